"""Does a set of crystals look like another set: coverage, and distances of properties.

These numbers compare sets, not crystals: no sample is right or wrong. Crystals become points (see
`descriptors.fingerprints`), and each number comes with its interval, n and definition; its note
says what could not be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..crystals import CrystalBatch, geometry
from ..crystals.compositions import blocks
from ..crystals.rules import GeometryRule, geometry_verdict
from ..descriptors.fingerprints import Features, crystalnn, magpie, magpie_statistics
from ..intervals import bootstrap_distance
from ..runtime import InputError, lookup, read_toml
from .report import LEVEL, DefinitionError, Number

CDVAE = read_toml("protocols", "cdvae.toml")  # its cutoffs, and its scale of Magpie's statistics
CUTOFFS: dict[str, tuple[float, float]] = CDVAE["cutoffs"]  # of structure and composition
SEED = 0  # of what is resampled
ANY = GeometryRule("any", "whatever can be measured at all")
RESAMPLES = 200
BLOCK = 1024  # points whose distances to all others are in memory at once
OTHER_SET_FIXED = f"Wilson {LEVEL:.0%}, other set fixed"


# ---- coverage


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Structure and composition of n crystals as points."""

    structure: Features  # points of the structures
    composition: Features  # points of the compositions

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def failed(self) -> dict[int, str]:
        """Index -> why one of the two is missing."""
        return {**self.composition.failed, **self.structure.failed}

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool, both are there."""
        return self.structure.ok & self.composition.ok


def fingerprints(
    crystals: CrystalBatch, *, processes: int = 1, cached: bool = True, progress: bool = False
) -> Fingerprints:
    """What `coverage` compares: `crystalnn`, and `magpie` scaled by CDVAE's constants."""
    structure = crystalnn(crystals, processes=processes, cached=cached, progress=progress)
    composition = magpie(crystals)
    means, deviations = (np.array(CDVAE["magpie"][part]) for part in ("means", "deviations"))
    values = np.full(composition.values.shape, np.nan)
    if composition.ok.any():
        statistics = magpie_statistics(crystals[composition.ok].counts().double().numpy())
        values[composition.ok] = (statistics - means) / deviations
    about = {**composition.definition, "scaled": "by the 132 means and deviations of CDVAE"}
    return Fingerprints(structure, Features("magpie", values, about, composition.failed))


def coverage(
    samples: Fingerprints,
    reference: Fingerprints,
    *,
    cutoffs: tuple[float, float] = CUTOFFS["mp_20"],
    same_crystal: bool = False,
) -> dict[str, Number]:
    """CDVAE's coverage: ``recall`` (COV-R) and ``precision`` (COV-P).

    A sample is precise if some reference structure lies within the structure cutoff and some
    reference composition within the composition cutoff. A reference crystal is recalled if samples
    lie around it in the same way. The definition has a hole: the nearest structure and the
    nearest composition may belong to two different crystals. Rock-salt CsI is covered by a
    reference of rock-salt NaCl and CsCl-type CsI. With ``same_crystal`` one crystal must be near
    in both.

    Recall grows with the number of samples, so that is part of the definition. The interval is
    Wilson's over the crystals of which the share is taken; the other set is held fixed.

    Args:
        samples: of n crystals; one without fingerprint is not precise.
        reference: what they should look like; one without fingerprint is left out of recall.
        cutoffs: largest distances of CrystalNN fingerprints and of Magpie fingerprints, see
            `CUTOFFS`.
        same_crystal: close the hole.

    Raises:
        DefinitionError: the fingerprints of the two sets were made differently.
        InputError: no sample, or a reference without any fingerprint.

    Source: Xie et al., ICLR 2022 (arXiv 2110.06197); ``compute_cov`` in scripts/eval_utils.py.
    """
    _comparable(samples.structure, reference.structure)
    _comparable(samples.composition, reference.composition)
    _not_empty(reference.ok, reference.failed, "reference")
    definition = {
        "metric": "coverage",
        "structure": dict(samples.structure.definition),
        "composition": dict(samples.composition.definition),
        "cutoffs": list(cutoffs),
        "near": "one crystal in both" if same_crystal else "nearest structure, nearest composition",
        "reference": [reference.structure.digest, reference.composition.digest],
        "interval": OTHER_SET_FIXED,
    }
    recalled, precise = (
        int(_covered(*pair, cutoffs, same_crystal).sum())
        for pair in ((reference, samples), (samples, reference))
    )
    note = _lost(samples.failed, reference.failed)
    sampled = {**definition, "samples": len(samples)}  # more samples recall more
    of = int(reference.ok.sum())
    return {
        "recall": Number.share("coverage recall", recalled, of, sampled, note=note),
        "precision": Number.share(
            "coverage precision", precise, len(samples), definition, note=note
        ),
    }


def _covered(
    these: Fingerprints, others: Fingerprints, cutoffs: tuple[float, float], same_crystal: bool
) -> np.ndarray:
    """(n,) bool: near to others in structure and composition; False without fingerprint."""
    from scipy.spatial.distance import cdist

    covered = np.zeros(len(these), dtype=bool)
    structures, compositions = (
        part.values[others.ok] for part in (others.structure, others.composition)
    )
    there = np.flatnonzero(these.ok)
    for part in blocks(len(there), BLOCK):
        rows = there[part]
        near = cdist(these.structure.values[rows], structures) <= cutoffs[0]
        alike = cdist(these.composition.values[rows], compositions) <= cutoffs[1]
        covered[rows] = (near & alike).any(1) if same_crystal else near.any(1) & alike.any(1)
    return covered


# ---- distances of distributions


PROPERTIES: dict[str, tuple[Callable[[CrystalBatch], Any], str]] = {
    "density": (geometry.density, "g/cm^3"),
    "n_elements": (lambda crystals: (crystals.counts() > 0).sum(1), "elements"),
}


def wasserstein(
    samples: CrystalBatch, reference: CrystalBatch, property: str, *, resamples: int = RESAMPLES
) -> Number:
    """Wasserstein distance of a property's distributions: the mean shift of sorted values.

    In the unit of the property. Two finite sets of the same origin are some distance apart; the
    lower end of the interval (bootstrap of both sets) allows for that, and is 0 where the sets
    cannot be told apart.

    Args:
        samples: n crystals.
        reference: crystals to compare with.
        property: ``density`` or ``n_elements``.
        resamples: of the bootstrap.

    Raises:
        UnknownNameError: no such property of crystals.
        InputError: a set in which nothing can be measured.
    """
    return of_values(*(values_of(each, property) for each in (samples, reference)), resamples)


def of_values(made: Features, known: Features, resamples: int = RESAMPLES) -> Number:
    """Wasserstein distance of two sets of points on a line.

    Raises:
        InputError: a set without values.
    """
    from scipy.stats import wasserstein_distance

    _comparable(made, known)
    for each, name in ((made, "samples"), (known, "reference")):
        _not_empty(each.ok, each.failed, name)
    one, two = made.points[:, 0], known.points[:, 0]
    sizes = len(one), len(two)
    value, *ends = bootstrap_distance(
        lambda u, v: wasserstein_distance(one, two, u, v),
        sizes,
        resamples=resamples,
        seed=SEED,
        level=LEVEL,
    )
    definition = {
        "metric": "Wasserstein-1 distance",
        **made.definition,
        "reference": known.digest,
        "samples": sizes[0],
        "reference_size": sizes[1],
        "interval": f"bootstrap {LEVEL:.0%}, {resamples} resamples of both sets, seed {SEED}",
    }
    unit, note = str(made.definition.get("unit", "")), _lost(made.failed, known.failed)
    about = ("bootstrap", unit, definition, 0.0, note)
    return Number(f"Wasserstein {made.space}", value, sizes[0], *ends, *about)


def values_of(crystals: CrystalBatch, name: str) -> Features:
    """Values of a property as points on a line; broken crystals fail."""
    function, unit = PROPERTIES[lookup("property", name, PROPERTIES)]
    values = np.full((len(crystals), 1), np.nan)
    verdict = geometry_verdict(crystals, ANY)
    if verdict.ok.any():
        values[verdict.ok, 0] = function(crystals[verdict.ok].to("cpu")).numpy()
    failed = {
        int(i): verdict.reason(int(i)) or f"no {name}: an element has no known mass"
        for i in np.flatnonzero(~np.isfinite(values[:, 0]))
    }
    return Features(name, values, {"property": name, "unit": unit}, failed)


# ---- what they share


def _comparable(one: Features, two: Features) -> None:
    if dict(one.definition) != dict(two.definition):
        raise DefinitionError(
            f"points of {dict(one.definition)} and of {dict(two.definition)}: distances have a "
            "meaning only within one space, so make both alike"
        )


def _not_empty(ok: np.ndarray, failed: Mapping[int, str], name: str) -> None:
    if not ok.any():
        why = f"; the first: {next(iter(failed.values()))}" if failed else ""
        raise InputError(
            f"none of {len(ok)} crystals of the {name} can be measured{why}: give at least one"
        )


def _lost(samples: Mapping[int, str], reference: Mapping[int, str]) -> str:
    """What could not be measured, and why the first of them could not."""
    told = (
        f"{len(lost)} {name} could not be measured ({next(iter(lost.values()))})"
        for name, lost in (("samples", samples), ("reference crystals", reference))
        if lost
    )
    return "; ".join(told)
