"""Samplers of formulas that learn nothing: random draws, and substitution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..crystals import elements
from ..crystals.compositions import reduced
from ..crystals.samples import Samples, at_least_one
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, MOST, CompositionMatrix
from ..runtime import InputError

Accept = Callable[[np.ndarray], np.ndarray]
TRIES = 100  # rounds of at least 1,000 draws before rejection gives up


class RandomFormulas:
    """Draws that know nothing of which elements go together, with rejection by a rule.

    The number of elements follows the training set. With ``like_training`` elements and counts
    are drawn with their frequencies there, else uniformly.

    Args:
        training: (n, 119) counts.
        accept: maps (n, 119) counts to (n,) bool; what it refuses is drawn again. None takes all.
        like_training: draw elements and counts with the frequencies of the training set.

    Raises:
        InputError: no training composition, or one that does not fit.
    """

    def __init__(
        self, training: np.ndarray, *, accept: Accept | None = None, like_training: bool = False
    ) -> None:
        training = CompositionMatrix().read(training).checked()
        chosen = training[:, list(ELEMENTS)]  # (n, 85)
        self.accept = accept
        self.kinds = np.bincount((chosen > 0).sum(1), minlength=MOST + 1).astype(float)
        self.element, self.count = np.ones(len(ELEMENTS)), np.ones(MAX_COUNT)
        if like_training:
            self.element = (chosen > 0).sum(0).astype(float)
            self.count = np.bincount(chosen[chosen > 0], minlength=MAX_COUNT + 1)[1:].astype(float)

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: reduced counts.

        Raises:
            InputError: n below 1, or a rule that hardly anything passes.
        """
        rng, kept = np.random.default_rng(seed), np.zeros((0, elements.N_COLUMNS), dtype=np.int64)
        size = max(at_least_one(n), 1000)
        for _ in range(TRIES):
            drawn = reduced(self._propose(size, rng))
            accepted = drawn if self.accept is None else drawn[self.accept(drawn)]
            kept = np.concatenate([kept, accepted])
            if len(kept) >= n:
                return Samples.from_counts(kept[:n])
        raise InputError(
            f"{len(kept)} of {TRIES * size:,} random formulas were accepted: the rule is too "
            "strict for rejection"
        )

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw without rejection; elements without replacement by Gumbel's trick."""
        kinds = rng.choice(len(self.kinds), size=n, p=self.kinds / self.kinds.sum())  # (n,)
        with np.errstate(divide="ignore"):
            score = np.log(self.element) + rng.gumbel(size=(n, len(ELEMENTS)))  # (n, 85)
        rank = (-score).argsort(1).argsort(1)
        size = rng.choice(MAX_COUNT, size=(n, len(ELEMENTS)), p=self.count / self.count.sum()) + 1
        counts = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        counts[:, list(ELEMENTS)] = np.where(rank < kinds[:, None], size, 0)
        return counts


class SubstitutedFormulas:
    """Training formulas with every element swapped for another of its column of the table.

    Lanthanides are swapped among themselves, and so are actinides; an element alone in its column
    stays. Two elements that become one make a sample that is no formula.

    Args:
        training: (n, 119) counts.

    Raises:
        InputError: no training composition, or one that does not fit.
    """

    def __init__(self, training: np.ndarray) -> None:
        self.training = CompositionMatrix().read(training).checked()
        family, known = elements.families(), np.array(ELEMENTS)
        others = {z: known[(family[known] == family[z]) & (known != z)] for z in ELEMENTS}
        self.relatives = {z: found if len(found) else [z] for z, found in others.items()}

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: reduced counts; zeros where two elements became one.

        Raises:
            InputError: n below 1.
        """
        rng = np.random.default_rng(seed)
        counts = np.zeros((at_least_one(n), elements.N_COLUMNS), dtype=np.int64)
        for new, old in zip(counts, rng.choice(self.training, size=n), strict=True):
            held = np.flatnonzero(old).tolist()
            swap = [int(rng.choice(self.relatives[z])) for z in held]
            if len(set(swap)) == len(held):
                new[swap] = old[held]
        return Samples.from_counts(reduced(counts), "two elements became one")
