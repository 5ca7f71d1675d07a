"""Are two crystals the same? pymatgen's StructureMatcher, compiled, for whole batches.

The rules are those of `StructureMatcher.fit` with the `SpeciesComparator` (Ong et al., Comput.
Mater. Sci. 68 (2013) 314; the exact steps as in pymatgen 2026.10): each crystal is reduced to its
Niggli and primitive cell, both are scaled to one volume, and the second matches the first if some
lattice vectors of the first agree with its cell (lengths within ``ltol``, angles within
``angle_tol``) and if, on the averaged cell, some assignment of equal atoms after some shift leaves
no atom more than ``stol (V/N)^(1/3)`` from its partner. The assignment is the one of least squared
displacements, and the shift its mean displacement, starting from an atom of the rarest element.

What follows from the rules:

- Enantiomers are the same: a mapping of lattices may turn the hand, so left and right quartz match.
- Supercells are the same as their primitive cells with ``primitive_cell=True``. Atoms may lie
  0.25 Å off the exact repetition, so that cells in which different atoms lie almost that close
  (solid nitrogen) may be reduced too far, as in pymatgen.
- Crystals that differ by a scale factor are the same with ``scale=True``.
- The answer may depend on which crystal is the first, within the tolerances, and "same" is not
  transitive. The space groups of matching crystals may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from ..crystals import CrystalBatch, compositions, elements
from ..crystals.rules import broken_crystals, safe_counts, why_broken
from ..runtime import number

NONE = -1  # no crystal is the same
ALGORITHM = 1  # counts changes of `_matching.py` that could change a verdict
CHUNK = 200  # compositions in one call: compiled code cannot be interrupted


@dataclass(frozen=True)
class MatchSettings:
    """Tolerances of pymatgen's StructureMatcher; the defaults are its own.

    Raises:
        InputError: a tolerance that is negative or not finite.
    """

    ltol: float = 0.2  # relative difference of lattice lengths
    stol: float = 0.3  # largest site displacement, in units of (volume per atom)^(1/3)
    angle_tol: float = 5.0  # difference of lattice angles, degrees
    scale: bool = True  # compare after scaling to the same volume
    primitive_cell: bool = True  # compare primitive cells

    def __post_init__(self) -> None:
        for name in ("ltol", "stol", "angle_tol"):
            number(name, getattr(self, name), least=0)

    def definition(self) -> dict[str, Any]:
        """What `unique` and `novel` decide by, and which code decided, for reports."""
        return {
            "matcher": "semantics of pymatgen's StructureMatcher.fit",
            **asdict(self),
            "implementation": f"imd_helpers.matching.cells, algorithm {ALGORITHM}",
            "imd-helpers": metadata.version("imd-helpers"),
        }


@dataclass(frozen=True, eq=False)
class ReducedCells:
    """Crystals in the cells that the matcher compares; sites of one element lie together."""

    cells: np.ndarray  # (n, 3, 3) reduced lattices, one unit of volume an atom where scaled
    parameters: np.ndarray  # (n, 6) their edges and angles (degrees)
    frac: np.ndarray  # (sites, 3) fractional, crystal after crystal, rarest element first
    code: np.ndarray  # (sites,) rank of the element's symbol in the alphabet
    start: np.ndarray  # (n,) where each crystal's sites start
    n_sites: np.ndarray  # (n,) how many it has; 0 where it failed
    anchor: np.ndarray  # (n,) the site from which shifts start
    failed: dict[int, str]  # index -> why a crystal cannot be compared

    def __len__(self) -> int:
        return len(self.cells)


def reduce_cells(crystals: CrystalBatch, settings: MatchSettings | None = None) -> ReducedCells:
    """Niggli-reduced primitive cells; a crystal without one is listed with the reason."""
    from ..kernels import matching as _matching

    settings = settings or MatchSettings()
    broken = broken_crystals(crystals)
    failed = {
        i: f"broken crystal: {why_broken(crystals, i)}" for i in np.flatnonzero(broken).tolist()
    }
    numbers = crystals.numbers.cpu().numpy()
    atoms = (numbers > 0) & ~broken[:, None]
    start = np.concatenate([[0], np.cumsum(atoms.sum(1))])
    lattice = crystals.lattice.detach().cpu().double().numpy()
    n = len(crystals)
    out = ReducedCells(
        cells=np.zeros((n, 3, 3)),
        parameters=np.zeros((n, 6)),
        frac=crystals.frac.detach().cpu().double().numpy()[atoms],
        code=_alphabetical()[numbers[atoms]],
        start=start[:-1],
        n_sites=np.zeros(n, dtype=np.int64),
        anchor=np.zeros(n, dtype=np.int64),
        failed=failed,
    )
    status = np.zeros(n, dtype=np.int64)
    _matching.reduce_batch(
        np.where(broken[:, None, None], np.eye(3), lattice),
        out.frac,
        out.code,
        start,
        settings.primitive_cell,
        settings.scale,
        out.cells,
        out.parameters,
        status,
        out.n_sites,
        out.anchor,
    )
    sick = ~np.isfinite(out.frac).all(1)  # cells so odd that their reduction overflows
    odd = ~np.isfinite(out.cells).all((1, 2)) | ~np.isfinite(out.parameters).all(1)
    odd[np.repeat(np.arange(n), atoms.sum(1))[sick]] = True
    out.frac[sick], out.cells[odd], out.parameters[odd], out.n_sites[odd] = 0.0, 0.0, 0.0, 0
    status[odd & (status == _matching.OK)] = _matching.TOO_LONG
    for i in np.flatnonzero(status != _matching.OK).tolist():
        failed[i] = _why_not_reduced(int(status[i]), crystals, i)
    return out


def first_matches(
    cells: ReducedCells,
    buckets: Sequence[np.ndarray],
    *,
    n_old: Sequence[int] | None = None,
    settings: MatchSettings | None = None,
) -> np.ndarray:
    """For each crystal the first one of its bucket that it matches.

    Args:
        cells: the crystals.
        buckets: indices of crystals that have the same number of sites of each element (see
            `buckets`), each in the order in which they are compared.
        n_old: how many of each bucket, at its start, only stand to be matched by the others.
            Without it each crystal is compared with the first of each group so far, as
            pymatgen's ``group_structures`` does.
        settings: tolerances of the matcher.

    Returns:
        (n,) index of the match, or `NONE`.
    """
    from ..kernels import matching as _matching

    settings = settings or MatchSettings()
    first = np.full(len(cells), NONE)
    old = np.full(len(buckets), -1) if n_old is None else np.asarray(n_old, dtype=np.int64)
    for part in range(0, len(buckets), CHUNK):
        some = buckets[part : part + CHUNK]
        _matching.first_matches(
            np.concatenate(some),
            np.concatenate([[0], np.cumsum([len(members) for members in some])]),
            old[part : part + CHUNK],
            cells.cells,
            cells.parameters,
            cells.frac,
            cells.code,
            cells.start,
            cells.n_sites,
            cells.anchor,
            settings.ltol,
            settings.stol,
            settings.angle_tol,
            first,
        )
    return first


def buckets(cells: ReducedCells) -> list[np.ndarray]:
    """Indices of crystals that share the number of sites of each element, at least two each.

    Nothing else can match: the matcher asks for equal compositions, and never matches reduced
    cells of different sizes.
    """
    ends = zip(cells.start, cells.start + cells.n_sites, strict=True)
    places = compositions.grouped(cells.code[start:end].tobytes() for start, end in ends)
    return [members for members in places.values() if len(members) > 1]


def same_compositions(reference: CrystalBatch, crystals: CrystalBatch) -> np.ndarray:
    """Indices of the reference crystals whose composition some crystal has."""
    wanted = set(compositions.keys(safe_counts(crystals))) - {b""}
    known = compositions.keys(safe_counts(reference))
    return np.flatnonzero([key in wanted for key in known])


@cache
def _alphabetical() -> np.ndarray:
    """(119,) rank of each symbol in the alphabet, from 1: the order that pymatgen sorts in."""
    rank = np.zeros(elements.N_COLUMNS, dtype=np.int64)
    rank[np.argsort(np.array(elements.SYMBOLS[1:])) + 1] = np.arange(1, elements.N_COLUMNS)
    rank.setflags(write=False)
    return rank


def _why_not_reduced(status: int, crystals: CrystalBatch, index: int) -> str:
    from ..kernels import matching as _matching

    if status == _matching.TOO_LARGE:
        n = int(crystals.n_sites[index])
        return f"{n} sites: the matcher compares at most {_matching.MAX_SITES}"
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(crystals.lattice[index].detach().cpu().numpy(), axis=1)
    edges = " x ".join(f"{length:.3g}" for length in lengths)
    return (
        f"cell of {edges} Å: more than {_matching.MAX_POINTS // 10:,} lattice points within its "
        "longest edge, so that it is no crystal to compare"
    )
