"""What DFT would say: the probability that a crystal is stable, from what two potentials say.

Potentials flatter crystals that they have never seen, and two that agree may flatter alike. So
their distances from the hull were compared with decomposition energies by DFT of crystals that six
generators proposed (Szymanski and Bartel, Mater. Horiz. 2025, doi:10.1039/D5MH00010F), and a
logistic regression was fitted for each threshold,

    P(DFT <= t) = 1 / (1 + exp(-(b_0 + b_1 m + b_2 d + b_3 f + b_4 a))),

with the mean m of both distances, their difference d and the formation energy f by the first
potential, all in eV/atom, and a = 1 for a crystal of metals alone, else 0. Generators differ
beyond that: each adds something of its own to the exponent, of which a handful of generators tells
the spread. `data/calibration` holds the numbers, and how well they predict crystals of generators
and of chemical systems that were left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..runtime import InputError, data_path, lookup, whole

METALS = "metals alone"  # what the judge calls it: 1 yes, 0 no, NaN not asked
FEATURES = ("one", "mean distance", "difference", "formation energy", METALS)
LOWEST, HIGHEST = -0.3, 0.6  # eV/atom; mean distances beyond count as these
LARGEST_DIFFERENCE = 0.3  # eV/atom, likewise
ANIONS = (1, 5, 6, 7, 8, 9, 15, 16, 17, 33, 34, 35, 51, 52, 53)  # H B C N O F P S Cl As … I
DRAWS, SEED = 1_000, 0
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Calibration:
    """One fitted threshold."""

    potentials: tuple[str, str]  # names of the two; the order counts
    threshold: float  # eV/atom above DFT's hull
    coefficients: np.ndarray  # (5,) of `FEATURES`
    covariance: np.ndarray  # (5, 5) of the coefficients, by a bootstrap over chemical systems
    between: float  # standard deviation of the generators' own shifts of the exponent
    generators: int  # how many it was estimated from
    seen: np.ndarray  # (119,) bool, elements of the crystals that it was fitted to

    def probability(self, features: np.ndarray) -> np.ndarray:
        """(n,) that DFT puts the crystal at or below the threshold; NaN without an answer."""
        return _logistic(features @ self.coefficients)

    def doubts(self, held: np.ndarray) -> list[str]:
        """What to know of samples about which the table says nothing.

        Args:
            held: (n, 119) bool, the elements of each sample.
        """
        strange = int((held & ~self.seen).any(1).sum())
        return [f"{strange} samples hold elements that the calibration never saw"] * bool(strange)

    def drawn(self, *features: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Probabilities (`DRAWS`, k) of the samples (k, 5) of each of several generators.

        In a draw all have the same coefficients, and each generator a shift of its own.
        """
        drawn = rng.multivariate_normal(self.coefficients, self.covariance, DRAWS)
        out = []
        for some in features:
            # the shift of a further generator, when mean and spread are known from a few
            wide = self.between * np.sqrt(1 + 1 / self.generators)
            shift = wide * rng.standard_t(self.generators - 1, size=DRAWS)
            out.append(_logistic(drawn @ some.T + shift[:, None]))
        return out

    def expected(
        self, features: np.ndarray, n: int | None = None, *, alike: ArrayLike | None = None
    ) -> tuple[float, float, float]:
        """Expected share of n samples at or below the threshold, with its 95 % interval.

        The interval holds what is not known: the coefficients, how this generator differs from
        those of the table, and the luck of the draw. It is one of whole crystals, and holds the
        expectation.

        Args:
            features: (k, 5) of the samples that count; rows with NaN count as not stable.
            n: the denominator; default: k.
            alike: (k,) whole numbers, equal for samples that share their luck, as copies of one
                crystal do; default: each has its own.

        Raises:
            InputError: n is smaller than k or zero.
        """
        k = len(features)
        n = whole("n", k if n is None else n, least=max(k, 1))
        there = np.isfinite(features).all(1)
        features = features[there]
        alike = np.arange(k) if alike is None else np.asarray(alike)
        lots, of = np.unique(alike[there], return_inverse=True)
        rng = np.random.default_rng(SEED)
        found = np.zeros(DRAWS)
        for i, p in enumerate(self.drawn(features, rng=rng)[0]):
            found[i] = (rng.random(len(lots))[of] < p).sum()
        low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        mean = float(self.probability(features).sum())
        # crystals are whole: an interval of their number that leaves out its mean would be read
        # as "none, for certain"
        low, high = min(low, np.floor(mean)), max(high, np.ceil(mean))
        return mean / n, float(low / n), float(high / n)


@cache
def calibration(potentials: Sequence[str], threshold: float = 0.0) -> Calibration:
    """What was fitted for two potentials and a threshold.

    Raises:
        UnknownNameError: no such pair of potentials, in this order.
        InputError: no such threshold.
    """
    known = _record()
    pair = lookup("calibrated pair", " + ".join(potentials), known["pairs"])
    fits = {fit["threshold"]: fit for fit in known["pairs"][pair]["fits"]}
    if threshold not in fits:
        listed = ", ".join(map(str, fits))
        raise InputError(f"threshold = {threshold}: calibrated are {listed} eV/atom")
    fit = fits[threshold]
    seen = np.zeros(119, dtype=bool)
    seen[known["elements"]] = True
    return Calibration(
        tuple(pair.split(" + ")),
        threshold,
        np.array(fit["coefficients"]),
        np.array(fit["covariance"]),
        fit["between_generators"],
        fit["generators"],
        seen,
    )


@cache
def _record() -> dict[str, Any]:
    """Everything that was fitted and measured."""
    return json.loads(data_path("calibration", "stability.json").read_text(encoding="utf-8"))


def flattery(potentials: Sequence[str], threshold: float) -> tuple[float, float] | None:
    """How many times as many of the table's crystals as DFT potentials put at or below a threshold.

    Returns:
        The first alone, and both together; None for a pair of which that is not recorded.
    """
    known = _record()
    if known["best"] != " + ".join(potentials):
        return None
    rows = known["details"][str(float(threshold))]["generators"].values()
    true = sum(row["n"] * row["dft"][0] for row in rows)
    first = sum(row["n"] * row["raw"][potentials[0]] for row in rows)
    return first / true, sum(row["n"] * row["both"] for row in rows) / true


def calibrated(potentials: Sequence[str], threshold: float) -> bool:
    """Is there a calibration for these?"""
    try:
        calibration(tuple(potentials), threshold)
    except InputError:
        return False
    return True


def metals_alone(counts: ArrayLike) -> np.ndarray:
    """(n,) bool: no element is one of `ANIONS`; a sample without atoms is no metal.

    Args:
        counts: (n, 119) atoms of each element.
    """
    held = np.asarray(counts) > 0
    return held.any(1) & ~held[:, list(ANIONS)].any(1)


def features(above: ArrayLike, formation: ArrayLike, metals: ArrayLike) -> np.ndarray:
    """(n, 5) of what `FEATURES` lists.

    Args:
        above: (n, 2) eV/atom above the hull, by both potentials in the order of the pair.
        formation: (n,) eV/atom, formation energy by the first.
        metals: (n,) whether the crystal is of `metals_alone`.
    """
    above = np.asarray(above, dtype=float)
    mean = np.clip(above.mean(1), LOWEST, HIGHEST)
    difference = np.minimum(np.abs(above[:, 0] - above[:, 1]), LARGEST_DIFFERENCE)
    said = np.ones(len(above)), mean, difference, *np.array([formation, metals], dtype=float)
    return np.stack(said, axis=1)


def features_in(
    values: Mapping[str, np.ndarray], pair: Sequence[str], rows: np.ndarray
) -> np.ndarray:
    """(k, 5) of some samples, from the values of a judge's run or report.

    Args:
        values: quantity -> (n,), see `imd_helpers.judge.Report`; one that is not there is NaN.
        pair: names of both potentials.
        rows: (k,) places of the samples.
    """

    def of(name: str) -> np.ndarray:
        return values[name][rows] if name in values else np.full(len(rows), np.nan)

    above = np.stack([of(f"energy_above_hull {name}") for name in pair], axis=1)
    return features(above, of("formation_energy"), of(METALS))


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
