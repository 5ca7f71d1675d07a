"""Which crystals are the same: uniqueness, novelty, and whether a requested symmetry is there.

"The same" is pymatgen's `StructureMatcher.fit`. Three steps keep its answer and avoid most of
its work: only crystals of the same composition can match; crystals that are equal but for a scale
factor do match; and each cell is reduced once, not once a comparison.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch, symmetry
from ..runtime import InputError
from .geometry import broken_crystals

if TYPE_CHECKING:
    from pymatgen.core import Structure

NONE = -1  # no crystal is the same
LARGE_CELL = 16  # sites above which moyopy finds the primitive cell faster than pymatgen
SAME_DIGITS = 4  # decimals of scaled lattices and coordinates in which copies agree


@dataclass(frozen=True)
class MatchSettings:
    """Tolerances of pymatgen's StructureMatcher; the defaults are its own.

    Attributes:
        ltol: relative difference of lattice lengths.
        stol: largest site displacement, in units of (volume per atom)^(1/3).
        angle_tol: difference of lattice angles, degrees.
        scale: compare after scaling to the same volume.
        primitive_cell: compare primitive cells.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0
    scale: bool = True
    primitive_cell: bool = True

    def definition(self) -> dict[str, Any]:
        """What `unique` and `novel` decide by, for reports."""
        version = metadata.version("pymatgen")
        return {"matcher": "StructureMatcher", **asdict(self), "pymatgen": version}


@dataclass(frozen=True, eq=False)
class Matches:
    """For each of n crystals the first that is the same.

    Attributes:
        first: (n,) index, or `NONE`.
        failed: index -> why a crystal could not be compared.
    """

    first: np.ndarray
    failed: dict[int, str]


def unique(crystals: CrystalBatch, *, settings: MatchSettings | None = None) -> np.ndarray:
    """Which crystals are not the same as an earlier one; the first of each group counts.

    Args:
        crystals: n crystals.
        settings: tolerances of the matcher.

    Returns:
        (n,) bool; False where a crystal is broken.
    """
    found = same_as_earlier(crystals, settings=settings)
    ok = found.first == NONE
    ok[list(found.failed)] = False
    return ok


def novel(
    crystals: CrystalBatch, reference: CrystalBatch, *, settings: MatchSettings | None = None
) -> np.ndarray:
    """Which crystals are the same as no crystal of a reference.

    Args:
        crystals: n crystals.
        reference: what is known already, e.g. the training set.
        settings: tolerances of the matcher.

    Returns:
        (n,) bool; False where a crystal is broken.
    """
    found = same_as_reference(crystals, reference, settings=settings)
    ok = found.first == NONE
    ok[list(found.failed)] = False
    return ok


def same_as_earlier(
    crystals: CrystalBatch, *, settings: MatchSettings | None = None, progress: bool = False
) -> Matches:
    """The first crystal of the group that each crystal repeats, as `group_structures` groups them.

    A crystal is compared with the first one of each group, in order; the first that matches wins.
    """
    work = _Work(crystals, settings)
    first = np.full(len(crystals), NONE)
    for members in _bar(work.buckets(), progress, "unique"):
        heads: list[int] = []
        for i in members:
            first[i] = next((j for j in heads if work.same(j, i)), NONE)
            if first[i] == NONE and i not in work.failed:
                heads.append(i)
    return Matches(work.spread(first), work.failed)


def same_as_reference(
    crystals: CrystalBatch,
    reference: CrystalBatch,
    *,
    settings: MatchSettings | None = None,
    progress: bool = False,
) -> Matches:
    """The first crystal of a reference that is the same as each crystal."""
    wanted = set(_composition_keys(crystals).values())
    rows = [j for j, key in _composition_keys(reference).items() if key in wanted]
    m = len(rows)
    if m == 0:
        return Matches(np.full(len(crystals), NONE), _broken(crystals))
    work = _Work(CrystalBatch.cat([reference[rows], crystals]), settings)
    first = np.full(m + len(crystals), NONE)
    for members in _bar(work.buckets(), progress, "novel"):
        old = [j for j in members if j < m]
        for i in members[len(old) :]:
            first[i] = next((j for j in old if work.same(j, i)), NONE)
    found = work.spread(first)[m:]
    found = np.where(found < m, found, NONE)  # a copy of a new crystal is as new as that
    failed = {i - m: why for i, why in work.failed.items() if i >= m}
    return Matches(np.where(found == NONE, NONE, np.array(rows)[found]), failed)


def space_group_kept(
    crystals: CrystalBatch, requested: np.ndarray, *, symprec: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Is the space group that a sample was asked to have the one it has?

    Args:
        crystals: n crystals.
        requested: (n,) ITA numbers.
        symprec: how far atoms may be from the symmetric position, Å.

    Returns:
        (n,) bool, and (n,) the numbers found (0 where none was).

    Raises:
        InputError: not one requested number for each crystal.
    """
    requested = np.asarray(requested)
    if requested.shape != (len(crystals),):
        raise InputError(
            f"requested space groups have shape {requested.shape} for {len(crystals)} crystals: "
            "give one number for each"
        )
    found = np.zeros(len(crystals), dtype=np.int64)
    whole = np.flatnonzero(~broken_crystals(crystals))
    if len(whole):
        found[whole] = symmetry.space_group_numbers(crystals[whole], symprec=symprec)
    return found == requested, found


class _Work:
    """Crystals on their way through the matcher."""

    def __init__(self, crystals: CrystalBatch, settings: MatchSettings | None) -> None:
        from pymatgen.core.structure_matcher import StructureMatcher

        self.settings = settings or MatchSettings()
        self.matcher = StructureMatcher(**asdict(self.settings))
        self.crystals = crystals
        self.failed = _broken(crystals)
        self.reduced: dict[int, Structure] = {}
        self.copy_of = np.arange(len(crystals))  # the first of the scaled copies of each

    def buckets(self) -> list[list[int]]:
        """Crystals that share a composition, without the scaled copies of earlier ones."""
        groups: dict[bytes, list[int]] = defaultdict(list)
        for i, key in _composition_keys(self.crystals).items():
            groups[key].append(i)
        shared = [members for members in groups.values() if len(members) > 1]
        self._find_copies([i for members in shared for i in members])
        return [[i for i in members if self.copy_of[i] == i] for members in shared]

    def _find_copies(self, rows: list[int]) -> None:
        seen: dict[bytes, int] = {}
        for i, key in zip(rows, _copy_keys(self.crystals, rows, self.settings.scale), strict=True):
            self.copy_of[i] = seen.setdefault(key, i)

    def same(self, one: int, other: int) -> bool:
        """Does the matcher call two crystals of one composition the same?"""
        pair = [self._reduce(one), self._reduce(other)]
        if pair[0] is None or pair[1] is None or len(pair[0]) != len(pair[1]):
            return False  # the matcher never matches primitive cells of different sizes
        try:
            return bool(self.matcher.fit(*pair, skip_structure_reduction=True))
        except Exception as error:  # one odd crystal must not stop the run
            self.failed[other] = f"matcher: {type(error).__name__}: {error}"
            return False

    def _reduce(self, index: int) -> Structure | None:
        if index not in self.reduced and index not in self.failed:
            try:
                self.reduced[index] = self._reduced(index)
            except Exception as error:  # as above
                self.failed[index] = f"cell reduction: {type(error).__name__}: {error}"
        return self.reduced.get(index)

    def _reduced(self, index: int) -> Structure:
        crystal = self.crystals[index]
        if not self.settings.primitive_cell:
            return crystal.structures()[0].get_reduced_structure("niggli")
        if int(crystal.n_sites[0]) > LARGE_CELL:
            crystal = symmetry.primitive(crystal, symprec=1e-3)
        reduced = crystal.structures()[0].get_reduced_structure("niggli")
        return reduced.get_primitive_structure()

    def spread(self, first: np.ndarray) -> np.ndarray:
        """Give scaled copies the verdict of the crystal that they copy."""
        copies = np.flatnonzero(self.copy_of != np.arange(len(first)))
        heads = self.copy_of[copies]
        out = first.copy()
        out[copies] = np.where(first[heads] == NONE, heads, first[heads])
        return out


def _broken(crystals: CrystalBatch) -> dict[int, str]:
    return dict.fromkeys(np.flatnonzero(broken_crystals(crystals)).tolist(), "broken crystal")


def _composition_keys(crystals: CrystalBatch) -> dict[int, bytes]:
    """Index of each whole crystal -> its composition in lowest terms."""
    rows = np.flatnonzero(~broken_crystals(crystals))
    if len(rows) == 0:
        return {}
    counts = crystals[rows].counts().numpy()
    lowest = (counts // np.gcd.reduce(counts, axis=1)[:, None]).astype(np.int32)
    return {int(i): row.tobytes() for i, row in zip(rows, lowest, strict=True)}


def _copy_keys(crystals: CrystalBatch, rows: list[int], scale: bool) -> Iterator[bytes]:
    """Equal keys belong to crystals that agree in all decimals kept, up to a scale factor."""
    if not rows:
        return
    part = crystals[rows]
    lattice = part.lattice.detach().cpu().double().numpy()
    if scale:
        size = np.abs(np.linalg.det(lattice)) ** (1 / 3)
        lattice = lattice / size[:, None, None]
    cells = np.round(lattice, SAME_DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
    frac = np.round(part.frac.detach().cpu().numpy(), SAME_DIGITS) % 1.0 + 0.0
    numbers = part.numbers.cpu().numpy()
    for cell, x, z in zip(cells, frac, numbers, strict=True):
        n = int((z > 0).sum())
        yield cell.tobytes() + x[:n].tobytes() + z[:n].tobytes()


def _bar(buckets: list[list[int]], progress: bool, name: str) -> Iterable[list[int]]:
    if not progress:
        return buckets
    from tqdm.auto import tqdm

    return tqdm(buckets, desc=name, unit="composition")
