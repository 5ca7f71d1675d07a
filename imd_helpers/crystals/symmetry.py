"""Space groups: expand orbits to crystals, detect the group, reduce a crystal to its orbits.

The tables and the detection are moyopy's (ITA numbers, its standard setting: origin choice 2 and
hexagonal axes where there is a choice, unless stated otherwise by `operations`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..runtime import InputError, number, whole
from .batch import CrystalBatch
from .geometry import reduce_lattice
from .rules import broken_crystals

if TYPE_CHECKING:
    import moyopy

N_SPACE_GROUPS = 230
FIRST_CUBIC = 195
FOUND_WITHIN = 0.01  # Å, where atoms should be if nothing else is said
NOT_FOUND = 0  # space-group number where detection failed
POLAR = {"1", "2", "m", "2mm", "3", "3m", "4", "4mm"}  # leave a direction unchanged
MAX_TRIES = 4
SHEAR = 2.0  # tolerances above 2 a²/c may take shears for symmetries: see `_dataset`
SAME_VOLUME = 0.05  # relative; what standardisation may change the volume per atom by


@cache
def operations(space_group: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetry operations of a space group, 1..230, in the conventional cell.

    Returns:
        rotations (n, 3, 3) and translations (n, 3), both float64, acting on column vectors:
        ``x' = R x + t``.

    Raises:
        InputError: a number outside 1..230.
    """
    import moyopy

    it = whole("space_group", space_group, least=1, most=N_SPACE_GROUPS)
    found = moyopy.operations_from_number(it, setting=moyopy.Setting.standard())
    rotations = np.array(found.rotations, dtype=np.float64)
    translations = np.array(found.translations, dtype=np.float64)
    rotations.setflags(write=False)
    translations.setflags(write=False)
    return rotations, translations


def expand(
    space_group: np.ndarray,
    lattice: np.ndarray,
    orbit_frac: np.ndarray,
    orbit_numbers: np.ndarray,
    *,
    tolerance: float = 0.01,
) -> tuple[CrystalBatch, np.ndarray]:
    """Expand orbit representatives to full crystals in the conventional cell.

    Args:
        space_group: (batch,) ITA numbers.
        lattice: (batch, 3, 3) Å, conventional cells.
        orbit_frac: (batch, orbits, 3) one position of each orbit.
        orbit_numbers: (batch, orbits) atomic numbers, 0 = padding at the end.
        tolerance: fractional distance within which two images are one site.

    Returns:
        The crystals, and (batch, orbits) multiplicities.

    Raises:
        InputError: a space group outside 1..230.
    """
    from ..kernels.crystals import expand_orbits

    orbit_frac = np.ascontiguousarray(orbit_frac, dtype=np.float64)
    multiplicity = np.zeros(orbit_numbers.shape, dtype=np.int64)
    flat_frac, flat_numbers, n_sites = [], [], []
    for i, group in enumerate(np.asarray(space_group).tolist()):
        rotations, translations = operations(int(group))
        orbits = int((orbit_numbers[i] > 0).sum())
        out = np.empty((orbits * len(rotations), 3))
        owner = np.empty(orbits * len(rotations), dtype=np.int64)
        n = expand_orbits(orbit_frac[i, :orbits], rotations, translations, tolerance, out, owner)
        flat_frac.append(out[:n])
        flat_numbers.append(orbit_numbers[i, owner[:n]])
        multiplicity[i, :orbits] = np.bincount(owner[:n], minlength=orbits)
        n_sites.append(n)
    crystals = CrystalBatch.from_ragged(
        lattice, np.concatenate(flat_frac), np.concatenate(flat_numbers), n_sites
    )
    return crystals, multiplicity


def space_group_numbers(crystals: CrystalBatch, *, symprec: float = 0.1) -> np.ndarray:
    """(batch,) numbers found by moyopy, 0 where it fails, with atoms up to ``symprec`` Å off."""
    found = moyo_datasets(crystals, symprec=symprec)
    return np.array([NOT_FOUND if data is None else data.number for data in found], dtype=np.int64)


@dataclass(frozen=True)
class Orbits:
    """A crystal in its standard conventional cell, reduced to one site an orbit."""

    space_group: int  # ITA number
    lattice: np.ndarray  # (3, 3) Å
    frac: np.ndarray  # (orbits, 3) one representative of each
    numbers: np.ndarray  # (orbits,) atomic numbers
    wyckoff: tuple[str, ...]  # (orbits,) letters
    multiplicity: np.ndarray  # (orbits,) sites in the conventional cell


def orbits(crystals: CrystalBatch, *, symprec: float = FOUND_WITHIN) -> list[Orbits | None]:
    """Reduce each crystal to its symmetry-distinct sites; None where the search fails.

    The representative of an orbit is its first site in the standardised conventional cell.
    """
    found = moyo_datasets(crystals, symprec=symprec)
    return [None if data is None else _orbits_of(data) for data in found]


def from_orbits(found: Sequence[Orbits]) -> tuple[CrystalBatch, np.ndarray]:
    """Full crystals from what `orbits` gave, and (batch, orbits) multiplicities; see `expand`.

    Raises:
        InputError: no crystal.
    """
    if not found:
        raise InputError("no crystals given: a CrystalBatch needs at least one crystal")
    groups = np.array([orbit.space_group for orbit in found])
    padded = CrystalBatch.from_ragged(  # a batch of orbits has the form of a batch of crystals
        np.stack([orbit.lattice for orbit in found]),
        np.concatenate([orbit.frac for orbit in found]),
        np.concatenate([orbit.numbers for orbit in found]),
        [len(orbit.numbers) for orbit in found],
    )
    return expand(groups, padded.lattice.numpy(), padded.frac.numpy(), padded.numbers.numpy())


def primitive(crystals: CrystalBatch) -> CrystalBatch:
    """Standard primitive cells; a crystal whose symmetry is not found stays as it is."""
    found = zip(crystals, moyo_datasets(crystals, symprec=FOUND_WITHIN), strict=True)
    return CrystalBatch.cat(
        [crystal if data is None else _batch_of(data.prim_std_cell) for crystal, data in found]
    )


def _batch_of(cell: moyopy.Cell) -> CrystalBatch:
    sites = np.array(cell.positions)
    return CrystalBatch.from_ragged(
        np.array(cell.basis)[None], sites, cell.numbers, [cell.num_atoms]
    )


def only_scale_is_free(crystals: CrystalBatch) -> np.ndarray:
    """(batch,) bool: cubic, and no site can move without breaking the symmetry.

    Such a crystal is known when its volume is. A site is fixed where the rotations that keep it
    leave no direction unchanged.
    """
    found = moyo_datasets(crystals, symprec=FOUND_WITHIN)
    return np.array(
        [
            data is not None
            and data.number >= FIRST_CUBIC
            # m.m2 is 2mm: whatever the axes that its parts belong to
            and not any(
                "".join(sorted(x.replace(".", ""))) in POLAR for x in data.site_symmetry_symbols
            )
            for data in found
        ]
    )


def _orbits_of(data: moyopy.MoyoDataset) -> Orbits:
    cell = data.std_cell
    # std_cell lists sites; its own dataset gives letters and orbits in that same cell
    again = _dataset(cell, 1e-4) or data
    first, counts = np.unique(np.array(again.orbits), return_counts=True)
    positions = np.array(cell.positions)[first]
    positions -= np.floor(positions)
    positions[positions >= 1.0] = 0.0  # -1e-17 rounds to 1
    return Orbits(
        space_group=data.number,
        lattice=np.array(cell.basis),
        frac=positions,
        numbers=np.array(cell.numbers)[first],
        wyckoff=tuple(again.wyckoffs[i] for i in first),
        multiplicity=counts,
    )


def moyo_datasets(crystals: CrystalBatch, *, symprec: float) -> list[moyopy.MoyoDataset | None]:
    """All that moyopy finds in each crystal; None where the search fails, or would not end.

    Raises:
        InputError: a tolerance that is not positive.
    """
    import moyopy

    number("symprec", symprec, above=0, why="a distance in Å, e.g. 0.1")
    out: list[moyopy.MoyoDataset | None] = [None] * len(crystals)
    rows = np.flatnonzero(~broken_crystals(crystals))
    for i, crystal in zip(rows.tolist(), crystals[rows].each(), strict=True):
        out[i] = _dataset(moyopy.Cell(*(part.tolist() for part in crystal)), symprec)
    return out


def _dataset(cell: moyopy.Cell, symprec: float) -> moyopy.MoyoDataset | None:
    """What moyopy finds, within a smaller tolerance where this one is too large for the cell.

    In a cell with the shortest vector a and the longest c, sliding along a changes lengths by about
    a²/c only. If the tolerance hides that, moyopy takes the slide for a symmetry, and looks without
    end for the finite group that it generates.
    """
    import moyopy

    _quiet()
    lengths = reduce_lattice(torch.tensor(cell.basis, dtype=torch.float64)[None])[0][0].norm(dim=1)
    most = SHEAR * float(lengths.min() ** 2 / lengths.max())
    for _ in range(MAX_TRIES):
        if symprec <= most:
            try:
                data = moyopy.MoyoDataset(cell, symprec=symprec, setting=moyopy.Setting.standard())
            except ValueError:  # overlapping atoms, or no group within the tolerance
                return None
            cells = (cell, data.prim_std_cell)
            sizes = [abs(np.linalg.det(np.array(c.basis))) / c.num_atoms for c in cells]
            if abs(sizes[0] / sizes[1] - 1.0) < SAME_VOLUME:
                return data
        symprec /= 2  # just at the edge of a symmetry moyopy may merge atoms of different sites
    return None


@cache
def _quiet() -> None:
    """Raise the level of moyopy's logger: it warns once for every supercell it is given."""
    logging.getLogger("moyo").setLevel(logging.ERROR)


def cubic_lattice(a: ArrayLike) -> np.ndarray:
    """(batch,) lengths, Å -> (batch, 3, 3) cubic cells."""
    return np.asarray(a, dtype=np.float64)[:, None, None] * np.eye(3)
