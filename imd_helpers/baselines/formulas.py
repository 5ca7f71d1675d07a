"""Samplers of formulas that learn nothing: random draws, and substitution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ..crystals import elements
from ..crystals.compositions import reduced
from ..crystals.samples import Samples
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, MOST, CompositionMatrix
from ..runtime import InputError, whole

Accept = Callable[[np.ndarray], np.ndarray]
TRIES = 100  # rounds of at least 1,000 draws before rejection gives up


class FormulaBaseline(ABC):
    """What the samplers of formulas share.

    Args:
        training: (n, 119) counts.

    Raises:
        InputError: no training composition, or one that does not fit.
    """

    def __init__(self, training: np.ndarray) -> None:
        self.training = CompositionMatrix().read(training).checked().astype(np.int64)

    def sample(self, n: int, *, seed: int = 0) -> Samples:
        """Make n compositions: reduced counts; zeros where two elements became one.

        Raises:
            InputError: n below 1, or a rule that hardly anything passes.
        """
        rng = np.random.default_rng(whole("seed", seed))
        counts = self._draw(whole("n", n, least=1), rng)
        return Samples.from_counts(reduced(counts), "two elements became one")

    @abstractmethod
    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray: ...


class RandomFormulas(FormulaBaseline):
    """Draws that know nothing of which elements go together, with rejection by a rule.

    The number of elements follows the training set. With ``like_training`` elements and counts
    are drawn with their frequencies there, else uniformly.

    Args:
        training: (n, 119) counts.
        accept: maps (n, 119) counts to (n,) bool; what it refuses is drawn again. None takes all.
        like_training: draw elements and counts with the frequencies of the training set.
    """

    def __init__(
        self, training: np.ndarray, *, accept: Accept | None = None, like_training: bool = False
    ) -> None:
        super().__init__(training)
        chosen = self.training[:, list(ELEMENTS)]  # (n, 85)
        self.accept = accept
        self.kinds = np.bincount((chosen > 0).sum(1), minlength=MOST + 1).astype(float)
        self.element, self.count = np.ones(len(ELEMENTS)), np.ones(MAX_COUNT)
        if like_training:
            self.element = (chosen > 0).sum(0).astype(float)
            self.count = np.bincount(chosen[chosen > 0], minlength=MAX_COUNT + 1)[1:].astype(float)

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        kept, size = np.zeros((0, elements.N_COLUMNS), dtype=np.int64), max(n, 1000)
        for _ in range(TRIES):
            drawn = reduced(self._propose(size, rng))
            accepted = drawn if self.accept is None else drawn[self.accept(drawn)]
            kept = np.concatenate([kept, accepted])
            if len(kept) >= n:
                return kept[:n]
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


class CopiedFormulas(FormulaBaseline):
    """Training formulas, drawn with replacement."""

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(self.training, n)


class ExchangedFormulas(FormulaBaseline):
    """Training formulas with one element exchanged as often as the training set exchanges it.

    Two formulas that differ in one element alone, with as many atoms of it, are a pair; an element
    a becomes b with the share that b has of all pairs of a. The counterpart of `IonExchange`.

    Raises:
        InputError: formulas without any pair.
    """

    def __init__(self, training: np.ndarray) -> None:
        super().__init__(training)
        places: dict[bytes, list[int]] = defaultdict(list)
        for row in self.training:
            for z, hole in zip(np.flatnonzero(row).tolist(), holes(row), strict=True):
                places[hole].append(z)
        pairs = np.zeros((elements.N_COLUMNS, elements.N_COLUMNS))
        for held in places.values():
            pairs[np.ix_(held, held)] += 1 - np.eye(len(held))
        self.often = pairs / pairs.sum(1, keepdims=True).clip(min=1)
        known = self.often.any(1)  # has a partner
        self.training = self.training[(self.training[:, known] > 0).any(1)]
        if not len(self.training):
            raise InputError(
                f"no two of {len(training)} formulas differ by one element alone: there is "
                "nothing to count, so give more formulas, or use SubstitutedFormulas"
            )

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        rows = np.arange(n)
        counts = rng.choice(self.training, size=n)
        free = (counts > 0) & self.often.any(1)
        old = np.where(free, rng.random(counts.shape), -1.0).argmax(1)
        last = elements.N_COLUMNS - 1
        new = (self.often[old].cumsum(1) < rng.random((n, 1))).sum(1).clip(max=last)
        taken = counts[rows, new] > 0
        counts[rows, new], counts[rows, old] = counts[rows, old], 0
        counts[taken] = 0
        return counts


def holes(counts: np.ndarray) -> list[bytes]:
    """A formula (119,) without each of its elements in turn, of which the number of atoms is kept.

    Two formulas share one if they differ in one element alone, as after an exchange.
    """
    out = []
    for z in np.flatnonzero(counts):
        rest = counts.astype(np.int8)
        rest[0], rest[z] = counts[z], 0  # no element has column 0
        out.append(rest.tobytes())
    return out


class SubstitutedFormulas(FormulaBaseline):
    """Training formulas with every element swapped for another of its column of the table.

    Lanthanides are swapped among themselves, and so are actinides; an element alone in its column
    stays. Two elements that become one make a sample that is no formula.
    """

    def __init__(self, training: np.ndarray) -> None:
        super().__init__(training)
        family, known = elements.families(), np.array(ELEMENTS)
        others = {z: known[(family[known] == family[z]) & (known != z)] for z in ELEMENTS}
        self.relatives = {z: found if len(found) else [z] for z, found in others.items()}

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        counts = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for new, old in zip(counts, rng.choice(self.training, size=n), strict=True):
            held = np.flatnonzero(old).tolist()
            swap = [int(rng.choice(self.relatives[z])) for z in held]
            if len(set(swap)) == len(held):
                new[swap] = old[held]
        return counts
