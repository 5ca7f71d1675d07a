"""Known structures with other elements: as often as the data exchange them, or all alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..crystals import CrystalBatch, elements
from ..crystals.compositions import blocks, checked, first_rows, reduced
from ..crystals.samples import Samples
from ..crystals.wyckoff import Occupation
from ..runtime import InputError, whole
from .cells import atomic_volumes
from .known import ALL, Baseline, Templates, elements_of

TRIES = 100  # draws of different elements; then the template stays as it is


class IonExchange(Baseline):
    """Training crystals with an element exchanged as often as the training set exchanges it.

    Two training crystals that are equal but for one element (same space group, same Wyckoff
    positions up to the choice of origin and axes, all other elements in the same places) are
    a pair. ``pairs[a, b]`` counts the contexts, that is the crystals without that element, in which
    both a and b occur. An element a of a crystal becomes b with probability
    ``pairs[a, b] / sum_c pairs[a, c]`` over the elements c that the crystal does not hold. Which of
    its elements is exchanged is drawn uniformly among those that have a partner; a
    crystal without any is never drawn. The cell is scaled by the volumes of the elements, see
    `atomic_volumes`.

    No probabilities are fitted, and common elements are common partners. Elements count,
    not ions: no oxidation states are assigned. With ``condition={"elements": ...}`` the crystals
    are those from which one exchange leads to exactly these elements.

    Attributes:
        pairs: (119, 119) int64, symmetric.

    Raises:
        InputError: a training set without any pair.

    Source: the idea of Hautier et al., Inorg. Chem. 50 (2011) 656, who fit probabilities for ions.
    """

    def __init__(self, training: Templates | CrystalBatch) -> None:
        super().__init__(training)
        self.volumes, _ = atomic_volumes(self.training.crystals)
        self.pairs = exchange_pairs(self.training.occupations)
        if not self.pairs.any():
            raise InputError(
                f"no two of {len(self.training)} training crystals differ by one element alone: "
                "there is nothing to count, so give more crystals, or use Substitution"
            )

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        numbers = elements_of(condition)
        wanted = None if numbers is None else np.isin(ALL, numbers)
        rows = self.training.choose(n, condition, rng, keep=self._possible(wanted))
        swap = np.tile(ALL, (n, 1))
        for i, row in enumerate(rows):
            held = self.training.present[row]
            if wanted is None:
                self._exchange_one(np.flatnonzero(held), swap[i], rng)
            else:
                swap[i, held & ~wanted] = np.flatnonzero(wanted & ~held)
        return self.training.refilled(rows, swap, self.volumes, power=1 / 3)

    def _possible(self, wanted: np.ndarray | None) -> np.ndarray:
        """(templates,) bool: an exchange is known, and leads to the elements that are wanted."""
        present = self.training.present
        if wanted is None:
            return ((present @ self.pairs > 0) & ~present).any(1)
        lost, won = present & ~wanted, wanted & ~present
        one = (lost.sum(1) == 1) & (won.sum(1) == 1)
        return one & (self.pairs[lost.argmax(1), won.argmax(1)] > 0)

    def _exchange_one(self, held: np.ndarray, swap: np.ndarray, rng: np.random.Generator) -> None:
        """Fill in what becomes of the first element, in a random order, that has a partner."""
        for a in rng.permutation(held):
            chance = self.pairs[a].astype(float)
            chance[held] = 0.0  # no two elements become one
            if chance.any():
                swap[a] = rng.choice(len(chance), p=chance / chance.sum())
                return


def exchange_pairs(held: Sequence[Occupation]) -> np.ndarray:
    """(119, 119) contexts in which both elements occur; see `IonExchange`."""
    contexts: dict[tuple, set[int]] = defaultdict(set)
    for occupation in held:
        for z in {z for _, z in occupation.ways[0]}:
            contexts[occupation.without(z)].add(z)
    pairs = np.zeros((elements.N_COLUMNS, elements.N_COLUMNS), dtype=np.int64)
    for found in contexts.values():
        pairs[np.ix_(list(found), list(found))] += 1
    np.fill_diagonal(pairs, 0)
    return pairs


class SiteMarginals(Baseline):
    """Training crystals with the element of each place drawn anew, whatever stands on the others.

    A template is drawn, and each of its places gets an element that stands there in some training
    crystal of the same prototype, as often as it does. Triples and pairs of elements are not
    known, so this is what a network that learned each site alone could do. The cell is
    scaled by the volumes of the elements, see `atomic_volumes`.
    """

    conditions: ClassVar[tuple[str, ...]] = ("space_group",)

    def __init__(self, training: Templates | CrystalBatch) -> None:
        super().__init__(training)
        self.volumes, _ = atomic_volumes(self.training.crystals)
        self.places = [each.places() for each in self.training.occupations]
        self.names = [each.prototype() for each in self.training.occupations]
        self.seen: dict[tuple, list[tuple[int, ...]]] = defaultdict(list)
        for name, places in zip(self.names, self.places, strict=True):
            self.seen[name].append(places)

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        rows = self.training.choose(n, condition, rng)
        swap = np.tile(ALL, (n, 1))
        for row, new in zip(rows, swap, strict=True):
            seen = np.array(self.seen[self.names[row]])  # (crystals, places)
            for _ in range(TRIES):
                drawn = [int(rng.choice(column)) for column in seen.T]
                if len(set(drawn)) == len(drawn):  # no two elements become one
                    new[list(self.places[row])] = drawn
                    break
        return self.training.refilled(rows, swap, self.volumes, power=1 / 3)


class PrototypeEnumeration(Baseline):
    """The structures of the training set, each once, filled with elements.

    A prototype is a space group with Wyckoff positions and which of them hold the same element, up
    to the choice of origin and axes; the first training crystal of each gives the coordinates
    and the shape of the cell. A prototype is drawn uniformly, and different elements for its
    places uniformly from those of the training set. The cell is scaled by the volumes of the
    elements, see `atomic_volumes`.

    Nothing is filtered: the rule of charge neutrality belongs to the judge, and a generator that
    has been filtered by it passes that stage by construction.

    Attributes:
        prototypes: one `Templates` crystal for each prototype.
    """

    def __init__(self, training: Templates | CrystalBatch) -> None:
        super().__init__(training)
        names = [each.prototype() for each in self.training.occupations]
        rows = sorted({name: i for i, name in reversed(list(enumerate(names)))}.values())
        self.prototypes = Templates(self.training.crystals[rows], self.training.space_group[rows])
        self.volumes, _ = atomic_volumes(self.training.crystals)

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        places = self.prototypes.present.sum(1)
        pool, wanted = self.training.known, elements_of(condition)
        keep = places <= len(pool)
        if wanted is not None:
            pool = np.unique(wanted)
            keep = places == len(pool)
        rows = self.prototypes.choose(n, condition, rng, keep=keep)
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for row, new in zip(rows, swap, strict=True):
            new[self.prototypes.present[row]] = rng.choice(pool, size=places[row], replace=False)
        return self.prototypes.refilled(rows, swap, self.volumes, power=1 / 3)


# ---- all exchanges of known compositions, as a list


@dataclass(frozen=True, eq=False)
class Exchanges:
    """n compositions, each a known one with one or two elements exchanged."""

    parent: np.ndarray  # (n,) row of the known composition
    old: np.ndarray  # (n, 2) atomic numbers that go; 0 where only one does
    new: np.ndarray  # (n, 2) and what takes their places
    counts: np.ndarray  # (n, 119) int8 reduced counts
    chance: np.ndarray  # (n,) log of the product of ``pairs[old, new] / sum(pairs[old])``

    def __len__(self) -> int:
        return len(self.parent)

    def __getitem__(self, rows: Any) -> Exchanges:
        """Select by a slice, integer indices or a boolean mask."""
        return Exchanges(*(each[rows] for each in vars(self).values()))

    def swap(self) -> np.ndarray:
        """(n, 119) what becomes of each element, as `Templates.refilled` takes it."""
        out = np.tile(np.arange(self.counts.shape[1]), (len(self), 1))
        np.put_along_axis(out, self.old, self.new, axis=1)
        return out


def exchanges(counts: np.ndarray, pairs: np.ndarray, *, two: int = 0, seed: int = 0) -> Exchanges:
    """Every exchange of one element for a partner, and some of two; each composition once.

    Of the ways to one composition the one with the largest chance is kept.

    Args:
        counts: (m, 119) of known compositions.
        pairs: (119, 119) how often elements replace each other, see `IonExchange`.
        two: draws of an exchange of two elements for each known composition; partners are equally
            likely, and draws in which elements meet are dropped.
        seed: of the draws.

    Raises:
        InputError: no element has a partner.
    """
    rng, made = np.random.default_rng(whole("seed", seed)), []
    partners = [np.flatnonzero(row) for row in pairs]
    for i, row in enumerate(checked(counts)):
        held = np.flatnonzero(row)
        free = {int(z): np.setdiff1d(partners[z], held) for z in held}
        free = {z: some for z, some in free.items() if len(some)}
        one = [[z, 0, new, 0] for z, some in free.items() for new in some]
        both = _two_at_once(free, whole("two", two), rng)
        made += [(np.full(len(e), i), e) for e in (np.reshape(one, (-1, 4)), both)]
    parent, swap = (np.concatenate(part) for part in zip(*made, strict=True))
    if len(swap) == 0:
        raise InputError("no element of these compositions has a partner: give other pairs")
    share = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    share[0, 0] = 1.0  # nothing is exchanged
    chance = np.log(share[swap[:, :2], swap[:, 2:]]).sum(1)
    order = np.argsort(-chance, kind="stable")
    parent, swap, chance = parent[order], swap[order].astype(np.int64), chance[order]
    found = _exchanged(counts, parent, swap)
    once = first_rows(found)
    return Exchanges(parent, swap[:, :2], swap[:, 2:], found, chance)[once]


def _two_at_once(free: Mapping[int, np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """(k, 4) different draws of two elements and their partners, k at most n."""
    if len(free) < 2 or n == 0:
        return np.zeros((0, 4), dtype=np.int64)
    held, size = np.array(list(free)), np.array([len(some) for some in free.values()])
    wide = np.zeros((len(held), size.max()), dtype=np.int64)
    for row, some in zip(wide, free.values(), strict=True):
        row[: len(some)] = some
    who = rng.random((n, len(held))).argsort(1)[:, :2]
    new = wide[who, (rng.random((n, 2)) * size[who]).astype(np.int64)]
    found = np.hstack([held[who], new])[new[:, 0] != new[:, 1]]
    _, first = np.unique(found @ 1000 ** np.arange(4), return_index=True)
    return found[np.sort(first)]  # each draw once: millions are drawn again and again


def _exchanged(counts: np.ndarray, parent: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """(n, 119) int8 reduced counts after the exchange."""
    out = np.empty((len(parent), counts.shape[1]), dtype=np.int8)
    for part in blocks(len(parent)):
        some, old, new = counts[parent[part]], swap[part, :2], swap[part, 2:]
        moved = np.take_along_axis(some, old, axis=1)
        np.put_along_axis(some, old, 0, axis=1)
        np.put_along_axis(some, new, moved, axis=1)
        out[part] = reduced(some)
    return out
