"""Symmetric genes: a crystal as its space group, its occupied Wyckoff letters and their elements.

What a gene leaves out, free coordinates and the shape of the cell, comes back from a known crystal
that occupies the same positions: its elements are exchanged for those of the gene, and its cell is
scaled. Two genes are the same crystal where a change of origin or axes turns the letters of one
into those of the other (see `matching.prototypes`); `canonical` writes one of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from itertools import groupby, permutations, product

import numpy as np
import torch
from torch import Tensor

from ..baselines.known import ALL, Templates
from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.compositions import reduced
from ..crystals.samples import Samples, in_places
from ..crystals.wyckoff import Occupation, wyckoff_positions
from ..datasets.store import CrystalSet
from ..matching.prototypes import relabellings
from ..runtime import InputError, data_path

LETTERS = "abcdefghijklmnopqrstuvwxyzA"  # A: the 27th of Pmmm
MOST = 20  # occupied orbits that a gene has room for
WIDTH = 1 + 2 * MOST  # space group; letter and element of each orbit; zeros
HEAVIEST = 94  # the heaviest element of the data
UNKNOWN = "no known crystal occupies these positions"
UNMATCHED = "no known crystal has these amounts"

Orbit = tuple[str, int]  # Wyckoff letter, atomic number
Find = Callable[[np.ndarray], tuple[int, np.ndarray]]  # row of a template, and new elements


# ---- writing


def genes_of(crystals: CrystalBatch) -> Samples:
    """(n, 41) int64 canonical genes: space group, then letter (1 = a) and element of each orbit.

    Zeros where there is none: no symmetry at 0.01 Å, more than 20 orbits, or beyond plutonium.
    """
    genes = np.zeros((len(crystals), WIDTH), dtype=np.int64)
    reasons = [""] * len(crystals)
    found = symmetry.moyo_datasets(crystals, symprec=symmetry.FOUND_WITHIN)
    for i, ((_, _, z_of), data) in enumerate(zip(crystals.each(), found, strict=True)):
        first = sorted(set(data.orbits)) if data is not None else []
        if data is None:
            reasons[i] = f"moyopy finds no symmetry within {symmetry.FOUND_WITHIN} Å"
        elif len(first) > MOST:
            reasons[i] = f"{len(first)} occupied orbits: a gene has room for {MOST}"
        elif z_of.max() > HEAVIEST:
            reasons[i] = f"holds {elements.SYMBOLS[z_of.max()]}: genes end at plutonium"
        else:
            orbits = tuple(sorted((data.wyckoffs[j], int(z_of[j])) for j in first))
            genes[i] = written(data.number, canonical(data.number, orbits))
    return Samples.from_reasons(torch.as_tensor(genes), reasons)


def written(group: int, orbits: Sequence[Orbit]) -> np.ndarray:
    """(41,) int64 gene of a space group and its orbits, in their order."""
    gene = np.zeros(WIDTH, dtype=np.int64)
    flat = [code for letter, z in orbits for code in (1 + LETTERS.index(letter), z)]
    gene[0], gene[1 : 1 + len(flat)] = group, flat
    return gene


def read(gene: np.ndarray) -> tuple[int, tuple[Orbit, ...]]:
    """Space group and orbits of a gene, sorted.

    Raises:
        InputError: it is no gene, and why.
    """
    group, letters, numbers = int(gene[0]), gene[1::2].tolist(), gene[2::2].tolist()
    if not 1 <= group <= symmetry.N_SPACE_GROUPS:
        raise InputError(f"space group {group}: give 1 to {symmetry.N_SPACE_GROUPS}")
    pairs = list(zip(letters, numbers, strict=True))
    n = next((i for i, pair in enumerate(pairs) if pair == (0, 0)), len(pairs))
    if n == 0 or any(pair != (0, 0) for pair in pairs[n:]) or any(0 in pair for pair in pairs[:n]):
        raise InputError("letters and elements do not come in pairs, at least one, then zeros")
    there = len(wyckoff_positions(group))
    if max(letters) > there:
        raise InputError(f"position {LETTERS[max(letters) - 1]}: group {group} has {there}")
    if max(numbers) > HEAVIEST:
        raise InputError(f"atomic number {max(numbers)}: genes end at {HEAVIEST}")
    return group, tuple(sorted((LETTERS[a - 1], z) for a, z in pairs[:n]))


# ---- one of many descriptions


@lru_cache(maxsize=100_000)
def occupation(group: int, orbits: tuple[Orbit, ...]) -> Occupation:
    """The positions that each element takes, in every description of the same crystal."""
    ways = set()
    for names in relabellings()[group]:
        held: dict[int, Counter] = defaultdict(Counter)
        for letter, z in orbits:
            held[z][names[letter]] += 1
        ways.add(tuple((tuple(sorted(taken.items())), z) for z, taken in sorted(held.items())))
    return Occupation(group, tuple(sorted(ways)))


@lru_cache(maxsize=100_000)
def canonical(group: int, orbits: tuple[Orbit, ...]) -> tuple[Orbit, ...]:
    """The description of a crystal that sorts first, by letter and then element."""
    spelt = [
        (letter, z)
        for held, z in occupation(group, orbits).first()
        for letter, times in held
        for _ in range(times)
    ]
    return tuple(sorted(spelt))


def _orders(taken: Occupation) -> Iterator[tuple[int, ...]]:
    """Elements in all orders of the places that the prototype cannot tell apart."""
    _, places = taken.prototype()
    for way in taken.ways:
        ordered = sorted(way)
        if tuple(held for held, _ in ordered) == places:
            alike = [[z for _, z in same] for _, same in groupby(ordered, key=lambda each: each[0])]
            for parts in product(*map(permutations, alike)):
                yield tuple(z for part in parts for z in part)


# ---- reading


class Transfer:
    """Crystals of genes: the coordinates and the cell of the nearest known crystal of each.

    Nearest are the elements in the same places, by the mean difference of their Mendeleev numbers.
    The cell is scaled by the volumes of the elements.

    Args:
        known: the crystals.
        genes: (n, 41) theirs; rows of zeros are left out.
        volumes: (119,) Å^3 of the elements, see `baselines.cells.atomic_volumes`.
    """

    def __init__(self, known: CrystalSet, genes: np.ndarray, volumes: np.ndarray) -> None:
        self.known, self.volumes = known, volumes
        places: dict[tuple, list[tuple[int, ...]]] = defaultdict(list)
        rows: dict[tuple, list[int]] = defaultdict(list)
        for row in np.flatnonzero(genes[:, 0]).tolist():
            taken = occupation(*read(genes[row]))
            places[taken.prototype()].append(taken.places())
            rows[taken.prototype()].append(row)
        self.places = {name: np.array(each) for name, each in places.items()}  # (crystals, places)
        self.rows = {name: np.array(each) for name, each in rows.items()}

    def knows(self, gene: np.ndarray) -> bool:
        """Does a known crystal occupy the same positions?"""
        return occupation(*read(gene)).prototype() in self.rows

    def template(self, gene: np.ndarray) -> tuple[int, np.ndarray]:
        """The nearest of `templates`."""
        return self.templates(gene, most=1)[0]

    def templates(self, gene: np.ndarray, *, most: int) -> list[tuple[int, np.ndarray]]:
        """Rows of known crystals, and (119,) what each of their elements becomes; nearest first.

        Raises:
            InputError: no gene, or no known crystal occupies its positions.
        """
        taken = occupation(*read(gene))
        name = taken.prototype()
        if name not in self.rows:
            raise InputError(UNKNOWN)
        there, orders = self.places[name], np.array(sorted(set(_orders(taken))))
        scale = mendeleev()
        apart = np.abs(scale[there][:, None] - scale[orders][None]).mean(2)  # (crystals, orders)
        return _nearest(apart, self.rows[name], there, orders, most)

    def decode(self, genes: Tensor | np.ndarray) -> Samples:
        """Crystals of (n, 41) genes, with a reason where there is none."""
        asked = {"space_group": np.asarray(genes)[:, 0].astype(np.int64)}
        return self.refilled(np.asarray(genes), self.template, asked)

    def decode_formulas(self, counts: np.ndarray) -> Samples:
        """Crystals of (n, 119) formulas, with a reason where there is none.

        The template is the known crystal with the same amounts whose elements are nearest, by the
        mean difference of their Mendeleev numbers over all atoms; of equally near ones the first.
        """
        wanted = reduced(np.asarray(counts))
        return self.refilled(wanted, lambda one: self.templates_of_formula(one, most=1)[0], {})

    def templates_of_formula(
        self, formula: np.ndarray, *, most: int
    ) -> list[tuple[int, np.ndarray]]:
        """Rows of known crystals of (119,) amounts, and what their elements become; nearest first.

        Raises:
            InputError: no atom, or no known crystal has these amounts.
        """
        held, orders = _spellings(formula)
        if not held or held not in self.of_amounts:
            raise InputError(UNMATCHED if held else "no formula: it has no atom")
        rows, there = self.of_amounts[held]
        scale, weights = mendeleev(), np.array(held) / sum(held)
        apart = np.abs(scale[there][:, None] - scale[orders][None]) @ weights  # (crystals, orders)
        return _nearest(apart, rows, there, orders, most)

    @cached_property
    def of_amounts(self) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        """Rising amounts of a formula -> (k,) rows of known crystals, and (k, places) elements."""
        rows: dict[tuple, list[int]] = defaultdict(list)
        there: dict[tuple, list[tuple[int, ...]]] = defaultdict(list)
        for row, formula in enumerate(reduced(self.known.crystals.counts().numpy())):
            z = sorted(np.flatnonzero(formula).tolist(), key=lambda z: formula[z])
            held = tuple(formula[z].tolist())
            rows[held].append(row)
            there[held].append(tuple(z))
        return {held: (np.array(rows[held]), np.array(there[held])) for held in rows}

    def refilled(self, wanted: np.ndarray, template: Find, asked: dict[str, np.ndarray]) -> Samples:
        """A crystal of each of n things, in the template that is found for it.

        Args:
            wanted: (n, …), e.g. genes.
            template: finds a row of `known` for one of them, and what its elements become; its
                `InputError` says why there is none.
            asked: what was asked of the samples.
        """
        found, reasons = [], []
        for one in wanted:
            try:
                found.append(template(one))
                reasons.append("")
            except InputError as error:
                reasons.append(str(error))
        made = None
        if found:
            rows, swap = (np.array(each) for each in zip(*found, strict=True))
            groups = np.zeros(len(rows), dtype=np.int64)
            old = Templates(self.known[rows].crystals, groups)
            made = old.refilled(np.arange(len(rows)), swap, self.volumes, power=1 / 3).crystals
        good = np.array([why == "" for why in reasons])
        return Samples.from_reasons(in_places(made, good), reasons, asked=asked)


def _nearest(
    apart: np.ndarray, rows: np.ndarray, there: np.ndarray, orders: np.ndarray, most: int
) -> list[tuple[int, np.ndarray]]:
    """Rows and exchanges of the smallest of (crystals, orders) distances; of equals the first."""
    first = [apart.argmin()] if most == 1 else np.argsort(apart, axis=None, kind="stable")[:most]
    found = []
    for best, order in zip(*np.unravel_index(first, apart.shape), strict=True):
        swap = ALL.copy()
        swap[there[best]] = orders[order]
        found.append((int(rows[best]), swap))
    return found


def _spellings(formula: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Rising amounts of (119,) of a formula, and (k, places) elements in all orders that fit."""
    z = sorted(np.flatnonzero(formula).tolist(), key=lambda z: formula[z])
    alike = [list(same) for _, same in groupby(z, key=lambda z: formula[z])]
    orders = [
        tuple(z for part in parts for z in part) for parts in product(*map(permutations, alike))
    ]
    return tuple(formula[z].tolist()), np.array(orders)


@cache
def mendeleev() -> np.ndarray:
    """(119,) Mendeleev number of each element."""
    return np.nan_to_num(elements.column("mendeleev_number"))


# ---- the genes of the data


@cache
def recorded() -> tuple[np.ndarray, np.ndarray]:
    """What `data/genes` holds.

    Returns:
        (32159, 41) int64 genes of all of `oqmd_icsd`, zeros where there is none, and (119,) Å^3 of
        the elements, from the training split.
    """
    with np.load(data_path("genes", "genes.npz")) as file:
        return file["genes"].astype(np.int64), file["volumes"]


def known_genes(split: str | None = "train", *, most: int = MOST) -> tuple[CrystalSet, np.ndarray]:
    """The crystals of a split, or of all, and their (n, 41) genes; zeros for more orbits."""
    from .. import datasets

    every = datasets.load("oqmd_icsd")
    keep = np.full(len(every), True) if split is None else every.table["split"].eq(split).to_numpy()
    written = recorded()[0][keep]
    written[(written[:, 1::2] > 0).sum(1) > most] = 0
    return every[keep], written


@cache
def training_transfer() -> Transfer:
    """Crystals of genes, from all crystals of the training split."""
    return Transfer(*known_genes("train"), recorded()[1])
