"""Samplers of formulas without a network: copies, marginals of each row, one element exchanged."""

from __future__ import annotations

import numpy as np

from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import reduced
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.composition_matrix import ELEMENTS, MAX_COUNT, fits


class Copies:
    """Training formulas, at random."""

    def __init__(self, training: np.ndarray) -> None:
        self.training = training.astype(np.int64)

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions."""
        return Samples.from_counts(np.random.default_rng(seed).choice(self.training, size=n))


class Marginals:
    """Each element absent or there so many times as often as in training, whatever the others."""

    def __init__(self, training: np.ndarray) -> None:
        chosen = training[:, list(ELEMENTS)]  # (n, 85)
        self.share = np.stack([(chosen == k).mean(0) for k in range(MAX_COUNT + 1)], 1)  # (85, 9)

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: zeros where fewer than 2 or more than 8 elements were drawn."""
        drawn = np.random.default_rng(seed).random((n, len(ELEMENTS), 1))
        counts = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        counts[:, list(ELEMENTS)] = (drawn > self.share.cumsum(1)[:, :-1]).sum(2)
        counts[~fits(counts)] = 0
        return Samples.from_counts(reduced(counts))


class Exchange:
    """Training formulas with one element exchanged for one that stands in its place elsewhere.

    How often two elements stand in the same place, with the same number of atoms beside the same
    others, is counted in the training set.
    """

    def __init__(self, training: np.ndarray) -> None:
        self.training = training.astype(np.int64)
        places: dict[bytes, list[int]] = {}
        for row in training:
            for z, hole in zip(np.flatnonzero(row), holes(row), strict=True):
                places.setdefault(hole, []).append(int(z))
        together = np.zeros((elements.N_COLUMNS, elements.N_COLUMNS))
        for held in places.values():
            together[np.ix_(held, held)] += 1 - np.eye(len(held))
        self.often = together / together.sum(1, keepdims=True).clip(min=1)

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: zeros where the new element was there already."""
        rng, rows = np.random.default_rng(seed), np.arange(n)
        counts = rng.choice(self.training, size=n)
        old = np.where(counts > 0, rng.random(counts.shape), -1.0).argmax(1)
        last = elements.N_COLUMNS - 1
        new = (self.often[old].cumsum(1) < rng.random((n, 1))).sum(1).clip(max=last)
        taken = counts[rows, new] > 0
        counts[rows, new], counts[rows, old] = counts[rows, old], 0
        counts[taken] = 0
        return Samples.from_counts(reduced(counts), "two elements became one")


def holes(counts: np.ndarray) -> list[bytes]:
    """A formula without each of its elements in turn, of which the number of atoms is kept.

    Two formulas share one if they differ in one element alone, as after an exchange.
    """
    out = []
    for z in np.flatnonzero(counts):
        rest = counts.astype(np.int8)
        rest[0], rest[z] = counts[z], 0  # no element has column 0
        out.append(rest.tobytes())
    return out
