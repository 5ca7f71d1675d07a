"""What kind of new is a crystal: a copy, a substitution, a known prototype, or a new one?

Each crystal gets exactly one label, the first of these that holds against a reference:

=============== ==================================================================================
broken          it cannot be measured, or no space group is found where one is needed
copy            a reference crystal of the same composition matches, and the nearest that does is
                as large (volume per atom within `VOLUME`) and as close (average minimum
                distances, without scaling, within `DISTANCE`)
strained copy   a reference crystal of the same composition matches, but none so closely
known prototype (site swap) a reference crystal of the same composition matches if its elements
                exchange their sites
substitution    a reference crystal of another composition matches after renaming its elements
known prototype no such match, but the reference has the prototype: anonymous formula, space group
                and Wyckoff letters of each element
new prototype   none of these
=============== ==================================================================================

"Matches" is the yes or no of `matching`, for renamed elements that of pymatgen's
``StructureMatcher.fit_anonymous``. It is generous (by default 20 % in the edges, 0.3 of an atom's
share of space in the sites), so that a distorted perovskite may count as a substitution in the
ideal one; the label does not depend on the symmetry found. Prototypes do: they are found within
`SYMPREC`, so that noise makes a prototype new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import groupby, permutations, product
from typing import Any

import numpy as np

from ..crystals import CrystalBatch, compositions
from ..crystals.rules import safe_counts
from ..crystals.samples import set_digest
from ..descriptors import amd
from . import cells as matching
from .cells import NONE, MatchSettings, ReducedCells
from .prototypes import NO_PROTOTYPE, prototypes

COPY, STRAINED, SUBSTITUTION = "copy", "strained copy", "substitution"
KNOWN, NEW, BROKEN = "known prototype", "new prototype", "broken"
KINDS = (COPY, STRAINED, SUBSTITUTION, KNOWN, NEW, BROKEN)
NEAR = 30  # reference crystals tried first, nearest first: most substitutions end there
CHUNK = 200  # crystals whose anonymous matches are looked for at once
MATCH = MatchSettings()  # tolerances of the matcher
DISTANCE = 0.05  # of average minimum distances of a copy at most, in (volume per atom)^(1/3)
VOLUME = 0.05  # largest relative difference of the volumes per atom of a copy
SYMPREC = 0.1  # Å, how far atoms may be from the symmetric position for a prototype


@dataclass(frozen=True, eq=False)
class NoveltyKinds:
    """One label for each of n crystals."""

    kind: np.ndarray  # (n,) one of `KINDS`
    reference: np.ndarray  # (n,) index of the reference crystal that shows it, or `NONE`
    details: tuple[str, ...]  # n sentences: what was found
    definition: dict[str, Any]  # what the labels mean

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def counts(self) -> dict[str, int]:
        """How many crystals there are of each kind; all kinds are listed."""
        return {kind: int((self.kind == kind).sum()) for kind in KINDS}


def novelty_kinds(crystals: CrystalBatch, reference: CrystalBatch) -> NoveltyKinds:
    """Label each crystal by what it repeats of a reference; see the module for the labels.

    Args:
        crystals: n crystals.
        reference: what is known already, e.g. the training set. Broken ones count for nothing.
    """
    work = _Work(crystals, reference)
    work.copies()
    work.renamed()
    work.prototypes()
    definition = {
        "kinds": list(KINDS),
        "match": MATCH.definition(),
        "copy": {"distance": DISTANCE, "volume": VOLUME, "amd_neighbours": amd.K},
        "anonymous": "semantics of pymatgen's StructureMatcher.fit_anonymous",
        "prototype": {
            "symprec": SYMPREC,
            "moyopy": metadata.version("moyopy"),
            "relabelling": f"pymatgen {metadata.version('pymatgen')}",
        },
        "reference": set_digest(reference),
        "reference_size": len(reference),
    }
    kind = np.array(work.kind, dtype=object).astype(str)
    return NoveltyKinds(kind, work.reference, tuple(work.details), definition)


class _Work:
    """Crystals on their way to a label; those with one are not looked at again."""

    def __init__(self, crystals: CrystalBatch, reference: CrystalBatch) -> None:
        ours, theirs = anonymous_keys(crystals), anonymous_keys(reference)
        wanted = set(ours) - {()}
        self.rows = np.flatnonzero([key in wanted for key in theirs])
        self.known = reference[self.rows].to("cpu")
        self.crystals = crystals = crystals.to("cpu")
        self.n, self.m = len(crystals), len(self.rows)
        both = CrystalBatch.cat([self.known, crystals])
        self.cells = matching.reduce_cells(both, MATCH)
        self.keys = [theirs[j] for j in self.rows.tolist()] + ours
        self.compositions = compositions.keys(safe_counts(both))
        self.shapes = [_shape(self.cells, i) for i in range(len(both))]
        self.amd = amd.average_minimum_distances(both)
        lattice = both.lattice.detach().cpu().double().numpy()
        with np.errstate(all="ignore"):
            self.volume = np.abs(np.linalg.det(lattice)) / both.n_sites.cpu().numpy()  # Å^3/atom
        self.kind: list[str | None] = [None] * self.n
        self.reference = np.full(self.n, NONE)
        self.details = [""] * self.n
        for i, why in self.cells.failed.items():
            if i >= self.m:
                self._label(i - self.m, BROKEN, why)

    def _label(self, i: int, kind: str, detail: str, known: int = NONE) -> None:
        self.kind[i] = kind
        self.reference[i] = self.rows[known] if known != NONE else NONE
        self.details[i] = detail

    def _open(self) -> list[int]:
        return [i for i in range(self.n) if self.kind[i] is None]

    # ---- the same composition

    def copies(self) -> None:
        """Label copies and strained copies by the nearest reference crystal that matches."""
        buckets, who = [], []
        for members in matching.buckets(self.cells):
            known = members[members < self.m]
            for row in members[len(known) :] if len(known) else ():
                order = np.argsort(self._distances(known, row), kind="stable")
                buckets.append(np.append(known[order], row))
                who.append(row - self.m)
        for i, found in zip(who, self._last_of(buckets, self.cells), strict=True):
            if found != NONE:
                self._label_copy(i, found)

    def _last_of(self, buckets: list[np.ndarray], cells: ReducedCells) -> list[int]:
        """What the last crystal of each bucket matches among the others, or `NONE`."""
        if not buckets:
            return []
        old = [len(members) - 1 for members in buckets]
        first = matching.first_matches(cells, buckets, n_old=old, settings=MATCH)
        return [int(first[members[-1]]) for members in buckets]

    def _label_copy(self, i: int, known: int) -> None:
        size = self.volume[known] ** (1 / 3)
        distance = float(self._distances(np.array([known]), i + self.m)[0])
        change = float(self.volume[i + self.m] / self.volume[known] - 1)
        close = distance <= DISTANCE * size and abs(change) <= VOLUME
        detail = (
            f"same as {self._name(known)}, volume {change:+.1%}, average minimum distances within "
            f"{distance:.3f} Å"
        )
        self._label(i, COPY if close else STRAINED, detail, known)

    def _distances(self, known: np.ndarray, row: int, scaled: bool = False) -> np.ndarray:
        """Largest differences of average minimum distances, Å or in units of (V/N)^(1/3)."""
        new, old = self.amd[row], self.amd[known]
        if scaled:
            new, old = new / np.cbrt(self.volume[row]), old / np.cbrt(self.volume[known])[:, None]
        distance = np.abs(old - new).max(1)
        return np.where(np.isnan(distance), np.inf, distance)

    def _name(self, known: int) -> str:
        formula = self.known[known].formulas()[0]
        return f"reference crystal {self.rows[known]} ({formula})"

    # ---- renamed elements

    def renamed(self) -> None:
        """Label site swaps and substitutions."""
        places = compositions.grouped(self.shapes[: self.m])
        left = [i for i in self._open() if self.shapes[i + self.m] in places]
        for part in range(0, len(left), CHUNK):
            some = left[part : part + CHUNK]
            candidates = {i: self._candidates(i, places) for i in some}
            self._try(candidates, swap=True)
            for piece in (slice(0, NEAR), slice(NEAR, None)):
                open_ = [i for i in some if self.kind[i] is None]
                self._try({i: candidates[i][piece] for i in open_}, swap=False)

    def _candidates(self, i: int, places: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
        """Reference crystals with the same numbers of sites an element, most alike first."""
        known = places[self.shapes[i + self.m]]
        return known[np.argsort(self._distances(known, i + self.m, scaled=True), kind="stable")]

    def _try(self, candidates: dict[int, np.ndarray], *, swap: bool) -> None:
        """Match crystals with renamed elements; swap: those of their own composition, or others."""
        tasks = []
        for i, known in candidates.items():
            own = self.compositions[i + self.m]
            fits = np.array([(self.compositions[j] == own) == swap for j in known], dtype=bool)
            if fits.any():
                tasks.append((i, known[fits]))
        if not tasks:
            return
        cells, buckets, owners = _with_renamings(self.cells, self.m, tasks)
        for i, found in zip(owners, self._last_of(buckets, cells), strict=True):
            if found != NONE and self.kind[i] is None:
                if swap:
                    detail = f"site swap: as {self._name(found)} with elements exchanged"
                    self._label(i, KNOWN, detail, found)
                else:
                    self._label(i, SUBSTITUTION, f"as {self._name(found)}, renamed", found)

    # ---- prototypes

    def prototypes(self) -> None:
        """Label what is left by its prototype."""
        left = self._open()
        if not left:
            return
        wanted = {self.keys[i + self.m] for i in left}
        rows = np.flatnonzero([key in wanted for key in self.keys[: self.m]])
        known: dict[str, int] = {}  # the first reference crystal of each prototype
        theirs = prototypes(self.known[rows], symprec=SYMPREC)
        for j, name in zip(rows.tolist(), theirs, strict=True):
            known.setdefault(name, j)
        ours = prototypes(self.crystals[np.array(left)], symprec=SYMPREC)
        for i, name in zip(left, ours, strict=True):
            if name == NO_PROTOTYPE:
                self._label(i, BROKEN, f"no space group found within {SYMPREC} Å")
            elif name in known:
                detail = f"prototype {name} of {self._name(known[name])}, other coordinates"
                self._label(i, KNOWN, detail, known[name])
            else:
                self._label(i, NEW, f"prototype {name} is not in the reference")


def anonymous_keys(crystals: CrystalBatch) -> list[tuple[int, ...]]:
    """Numbers of atoms of each crystal in lowest terms, ascending; empty for a broken one."""
    lowest = np.sort(compositions.reduced(safe_counts(crystals)), axis=1)
    kinds = (lowest > 0).sum(1)
    return [tuple(row[len(row) - k :].tolist()) for row, k in zip(lowest, kinds, strict=True)]


def _shape(cells: ReducedCells, i: int) -> tuple[int, ...]:
    """Numbers of sites of each element of a reduced cell, ascending as the cell stores them."""
    codes = cells.code[cells.start[i] : cells.start[i] + cells.n_sites[i]]
    return tuple(len(list(sites)) for _, sites in groupby(codes.tolist()))


def _renamings(shape: tuple[int, ...]) -> Iterator[list[int]]:
    """Orders of the elements that keep the numbers of sites."""
    equal = [list(places) for _, places in groupby(range(len(shape)), key=lambda k: shape[k])]
    for orders in product(*(permutations(places) for places in equal)):
        yield [k for order in orders for k in order]


def _with_renamings(
    cells: ReducedCells, m: int, tasks: list[tuple[int, np.ndarray]]
) -> tuple[ReducedCells, list[np.ndarray], list[int]]:
    """The reference crystals, and every renaming of some crystals, with nameless elements.

    Returns:
        the cells, a bucket for each renaming (what it is compared with, and itself), and the
        crystal that each bucket belongs to.
    """
    frac, code = [cells.frac], [np.zeros_like(cells.code)]
    rows, start, anchor = list(range(m)), cells.start[:m].tolist(), cells.anchor[:m].tolist()
    buckets, owners = [], []
    place = len(cells.frac)
    for j in {int(j) for _, known in tasks for j in known}:
        first, n = cells.start[j], cells.n_sites[j]
        code[0][first : first + n] = _nameless(_shape(cells, j))
    for i, known in tasks:
        shape = _shape(cells, m + i)
        n, edges = sum(shape), np.cumsum((0,) + shape)
        sites = cells.start[m + i] + np.arange(n)
        for order in _renamings(shape):
            moved = np.concatenate([np.arange(edges[k], edges[k + 1]) for k in order])
            frac.append(cells.frac[sites[moved]])
            code.append(_nameless(shape))
            start.append(place)
            anchor.append(int(np.flatnonzero(moved == cells.anchor[m + i])[0]))
            buckets.append(np.append(known, len(rows)))
            rows.append(m + i)
            owners.append(i)
            place += n
    every = ReducedCells(
        cells.cells[rows],
        cells.parameters[rows],
        np.concatenate(frac),
        np.concatenate(code),
        np.array(start),
        cells.n_sites[rows],
        np.array(anchor),
        {},
    )
    return every, buckets, owners


def _nameless(shape: tuple[int, ...]) -> np.ndarray:
    """(sites,) codes of elements that are told apart, but not named."""
    return np.repeat(np.arange(1, len(shape) + 1), shape)
