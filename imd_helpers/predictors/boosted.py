"""A surrogate that says how far it may be off: boosted trees, several of them, and calibrated.

The members of the ensemble see different parts of the data, so that they disagree where the data
say little. How far the truth lies from their mean, in units of the disagreement, is measured on
data that none of them saw: that makes intervals with a promise (split conformal prediction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals.compositions import blocks, checked
from ..runtime import InputError, number, reals, settle, whole
from .base import UNFITTED, with_elements

HELD_BACK = 0.1  # of the groups calibrate, and no member sees them
SEEN = 0.8  # of the other groups, by each member
LEARNING_RATE = 0.1
FEATURE_ROWS = 16_384  # compositions whose features are in memory at once


def conformal_radius(scores: ArrayLike, level: float = 0.9) -> float:
    """The radius within which the next error lies with at least this probability.

    The ``ceil((n + 1) level)``-th smallest of n scores, equation (eq-screening-conformal) of the
    chapter on screening; infinite where n is too small for the level. The promise holds if the
    next one is drawn like the n: of other chemistry, it is none.

    Args:
        scores: (n,) errors, by size, on data that the model did not see.
        level: probability that the next one is no larger.

    Raises:
        InputError: scores that are not finite, or a level outside (0, 1).

    Source:
        Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005); Lei et al.,
        J. Am. Stat. Assoc. 113 (2018) 1094.
    """
    number("level", level, above=0, below=1)
    scores = reals("scores", scores, "n")
    place = math.ceil((len(scores) + 1) * level)
    return math.inf if place > len(scores) else float(np.sort(scores)[place - 1])


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an ensemble says about n compositions; NaN for a row of zeros."""

    mean: np.ndarray  # (n,) of the members
    spread: np.ndarray  # (n,) standard deviation of the members
    scale: np.ndarray  # (n,) expected size of the error, up to a factor that calibration finds
    residuals: np.ndarray = field(repr=False)  # (m,) calibration's (truth - mean) / scale, rising

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """(n,) low and (n,) high ends that hold the truth with at least this probability."""
        half = conformal_radius(np.abs(self.residuals), level) * self.scale
        return self.mean - half, self.mean + half

    def below(self, threshold: ArrayLike) -> np.ndarray:
        """(n,) probability that the truth is at most a threshold, one for all or one each."""
        place = (np.asarray(threshold) - self.mean) / self.scale
        share = np.searchsorted(self.residuals, place, side="right") / len(self.residuals)
        return np.where(np.isfinite(place), share, np.nan)


@dataclass(eq=False)
class BoostedEnsemble:
    """Gradient-boosted trees on Magpie's statistics of a composition, with calibrated intervals."""

    members: int = 5
    trees: int = 300  # of a member
    leaves: int = 63  # of a tree
    seed: int = 0
    _models: list[Any] = field(default_factory=list, init=False, repr=False)
    _floor: float = field(default=1.0, init=False, repr=False)
    _residuals: np.ndarray = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    def __post_init__(self) -> None:
        settle(self, whole, "members", "leaves", least=2)
        settle(self, whole, "trees", least=1)
        settle(self, whole, "seed")

    def fit(
        self, counts: Any, values: np.ndarray, *, groups: ArrayLike | None = None
    ) -> BoostedEnsemble:
        """Fit to (n,) values of (n, 119) counts, calibrate, and return self.

        Args:
            counts: atoms of each element.
            values: the property.
            groups: (n,) labels; what has one label is never divided between fit and calibration,
                so that an interval promises something about *new* labels. Default: each row alone.

        Raises:
            InputError: fewer than 20 groups, a row of zeros, or values that are not finite.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor

        values = reals("values", values, len(counts))
        labels = np.arange(len(values)) if groups is None else np.asarray(groups)
        _, label = np.unique(labels, return_inverse=True)
        n = int(label.max()) + 1
        if n < 20:
            raise InputError(f"{n} groups: at least 20 are needed to fit and to calibrate")
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(n)
        back, mine = np.split(order, [math.ceil(HELD_BACK * n)])
        features = self.features(counts)
        self._models = []
        for k in range(self.members):
            some = np.isin(label, rng.permutation(mine)[: math.ceil(SEEN * len(mine))])
            member = HistGradientBoostingRegressor(
                max_iter=self.trees,
                learning_rate=LEARNING_RATE,
                max_leaf_nodes=self.leaves,
                early_stopping=False,
                random_state=self.seed + k,
            )
            self._models.append(member.fit(features[some], values[some]))
        held = np.isin(label, back)
        mean, spread = self._asked(features[held])
        self._floor = max(float(np.median(spread)), 1e-9)
        self._residuals = np.sort((values[held] - mean) / (spread + self._floor))
        return self

    def predict(self, counts: Any) -> Prediction:
        """Mean, disagreement and calibrated intervals of (n, 119) counts.

        Raises:
            InputError: not fitted.
        """
        if not self._models:
            raise InputError(UNFITTED)
        mean, spread = (np.full(len(counts), np.nan) for _ in range(2))
        rows = np.flatnonzero(self.sound(counts))
        for part in blocks(len(rows), FEATURE_ROWS):
            some = rows[part]
            mean[some], spread[some] = self._asked(self.features(counts[some]))
        return Prediction(mean, spread, spread + self._floor, self._residuals)

    def features(self, counts: Any) -> np.ndarray:
        """(n, features) by which the trees tell n questions apart."""
        return composition_statistics(counts)

    def sound(self, counts: Any) -> np.ndarray:
        """(n,) bool: questions that have an answer."""
        return checked(counts).any(1)

    def _asked(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said = np.stack([model.predict(features) for model in self._models])  # (members, n)
        return said.mean(0), said.std(0)


def composition_statistics(counts: np.ndarray) -> np.ndarray:
    """(n, 132) float32 Magpie statistics of (n, 119) counts.

    Raises:
        InputError: a row of zeros, or matminer is not installed.
    """
    from ..descriptors.fingerprints import magpie_statistics

    return magpie_statistics(with_elements(counts).astype(np.float64)).astype(np.float32)
