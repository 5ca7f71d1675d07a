"""What a search aims at, and an oracle that counts how often it was asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..descriptors.symmetry_sites import Sites, canonical
from ..runtime import InputError, number


@dataclass(frozen=True)
class Target:
    """Two wanted properties of a cubic crystal, with a window of tolerance around each."""

    length: float  # lattice constant, Å
    energy: float  # formation energy, eV/atom
    length_window: float = 0.1  # half width, Å
    energy_window: float = 0.1  # half width, eV/atom

    def __post_init__(self) -> None:
        number("energy", self.energy)
        for name in ("length", "length_window", "energy_window"):
            number(name, getattr(self, name), above=0)

    def distance(self, values: np.ndarray) -> np.ndarray:
        """`target_distance` of (n, 2) values."""
        return target_distance(values, self)

    def hit(self, values: np.ndarray) -> np.ndarray:
        """(n,) bool: inside both windows."""
        return self.distance(values) <= 1.0


def target_distance(values: np.ndarray, target: Target) -> np.ndarray:
    """(n,) distances to the target in units of the windows; at most 1 is a hit.

    ``max(|a - a*| / w_a, |E - E*| / w_E)``, equation (eq-inverse-distance) of the chapter on
    inverse design; NaN where a value is NaN.

    Args:
        values: (n, 2) lattice constant in Å and formation energy in eV/atom.
        target: what is wanted.

    Raises:
        InputError: values of another shape.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(f"values of shape {values.shape}: expected (n, 2), length and energy")
    off = np.abs(values - (target.length, target.energy))  # (n, 2)
    return (off / (target.length_window, target.energy_window)).max(1)


def predictive_value(prevalence: float, sensitivity: float, false_alarm: float) -> float:
    """Share of predicted hits that are true hits; NaN where the predictor never calls a hit.

    ``p s / (p s + (1 - p) q)``, Bayes' rule, equation (eq-inverse-precision) of the chapter on
    inverse design.

    Args:
        prevalence: share p of candidates that are hits.
        sensitivity: share s of hits that the predictor calls hits.
        false_alarm: share q of misses that the predictor calls hits.
    """
    for name, share in locals().items():
        number(name, share, least=0, most=1)
    called = prevalence * sensitivity + (1 - prevalence) * false_alarm
    return prevalence * sensitivity / called if called > 0 else math.nan


def enrichment(hits: int, calls: int, random_hits: int, random_calls: int) -> float:
    """How many times more hits a call brings than a random call; infinity if that found nothing.

    ``(h / n) / (h_0 / n_0)``, equation (eq-inverse-enrichment) of the chapter on inverse design.

    Raises:
        InputError: no calls, or more hits than calls.
    """
    if not (0 <= hits <= calls and 0 <= random_hits <= random_calls and calls * random_calls > 0):
        raise InputError(
            f"{hits} hits of {calls} calls against {random_hits} of {random_calls}: both need at "
            "least one call and no more hits than calls"
        )
    return math.inf if random_hits == 0 else (hits / calls) / (random_hits / random_calls)


def crystal_keys(sites: Sites) -> list[bytes]:
    """One key a crystal, equal for all ways to write the same sites; the length plays no part."""
    one = canonical(sites)
    rows = np.concatenate([one.patterns(), one.numbers], axis=1)
    return [row.tobytes() for row in rows.astype(np.int64)]


class CountedOracle:
    """A predictor that counts the different crystals it was asked about, and keeps its answers.

    Asking again about the same crystal costs nothing, because the answer is in the notebook.
    """

    def __init__(self, predict: Callable[[Sites], np.ndarray]) -> None:
        self._predict = predict
        self._asked: list[Sites] = []
        self.answers: dict[bytes, np.ndarray] = {}  # by key of a crystal, (2,), as they were asked

    @property
    def calls(self) -> int:
        """How many different crystals were asked about."""
        return len(self.answers)

    def __call__(self, sites: Sites) -> np.ndarray:
        """(n, 2) lattice constants in Å and formation energies in eV/atom."""
        keys = crystal_keys(sites)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self.answers)
        if new:
            asked = sites[np.array(new)]
            self._asked.append(asked)
            self.answers |= zip([keys[i] for i in new], self._predict(asked), strict=True)
        return np.array([self.answers[key] for key in keys]).reshape(-1, 2)

    def log(self) -> tuple[Sites, np.ndarray]:
        """All crystals asked about, in order, and the (calls, 2) answers.

        Raises:
            InputError: nothing was asked yet.
        """
        if not self._asked:
            raise InputError("this oracle was asked nothing yet: run a search with it first")
        return Sites.cat(self._asked), np.array(list(self.answers.values()))
