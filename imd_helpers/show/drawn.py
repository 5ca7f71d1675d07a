"""What a picture of a crystal is made of: atoms with their images, sticks, and the cell's edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..crystals import geometry, rules
from ..crystals.batch import CrystalBatch, wrap
from ..runtime import InputError

ON_FACE = 0.05  # Å: an atom this close to a face of the cell is drawn on the opposite face too
STICK_SLACK = 1.15  # sticks reach this much further than the nearest neighbour of both ends
SKEWED = 8.0  # a cell is very skewed where a box of its edges has this many times its volume
MOST_ATOMS = 2000  # more than this and a browser stutters


@dataclass(frozen=True)
class Drawing:
    """One crystal, ready to be drawn."""

    lattice: np.ndarray  # (3, 3) Å, rows a, b, c of the unit cell
    numbers: np.ndarray  # (atoms,) atomic numbers, images included
    positions: np.ndarray  # (atoms, 3) Å
    sticks: list[list[int]]  # for each atom the atoms it is joined to
    formula: str  # reduced
    n_sites: int  # atoms in the unit cell
    reduced: bool = False  # is the cell another than the given one, a very skewed one?

    def words(self) -> str:
        """The picture in words, for readers who cannot see it."""
        from ase.cell import Cell

        lengths, angles = np.split(Cell(self.lattice).cellpar(), 2)
        edges = ", ".join(f"{n} = {v:.3f} Å" for n, v in zip("abc", lengths, strict=True))
        corners = ", ".join(f"{n} = {v:.1f}°" for n, v in zip("αβγ", angles, strict=True))
        note = "; the reduced cell, the given one is very skewed" if self.reduced else ""
        return f"{self.formula}, {self.n_sites} atoms in the unit cell; {edges}; {corners}{note}"


def draw(crystals: CrystalBatch, index: int) -> Drawing:
    """Collect the atoms and sticks of one crystal of a batch.

    A very skewed cell is a needle, in which neighbours lie far apart: it is reduced first.

    Raises:
        InputError: it is broken, or has too many atoms.
    """
    one = crystals[index].to("cpu")
    if rules.broken_crystals(one)[0]:
        raise InputError(
            f"crystal {index} cannot be drawn: {rules.why_broken(one, 0)}; leave it out, as in "
            "samples.valid()"
        )
    box = one.lattice.norm(dim=2).prod(1)  # Å^3
    skewed = bool(box > SKEWED * geometry.volume(one))
    if skewed:
        lattices, change = geometry.reduce_lattice(one.lattice)
        frac = wrap(one.frac @ torch.linalg.inv(change).round())
        one = CrystalBatch(lattices, frac, one.numbers)
    ((lattice, frac, numbers),) = one.each()
    if len(numbers) > MOST_ATOMS:
        raise InputError(f"{len(numbers)} atoms are too many to draw: at most {MOST_ATOMS}")
    sites, cells = boundary_images(frac, lattice)
    positions = (frac[sites] + cells) @ lattice  # (atoms, 3)
    nearest = geometry.min_image_distances(one)[0].amin(1).cpu().numpy()  # (sites,)
    sticks = mutual_neighbours(positions, nearest[sites])
    return Drawing(
        lattice, numbers[sites], positions, sticks, one.formulas()[0], len(numbers), skewed
    )


def boundary_images(frac: np.ndarray, lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every site of the cell, and again where it lies on the cell's far faces.

    Returns:
        Index of the site (atoms,), and cell of the image (atoms, 3).
    """
    per_height = np.linalg.norm(np.linalg.inv(lattice), axis=0)  # (3,) 1 / distance of faces, 1/Å
    near = ON_FACE * per_height  # (3,) as a fraction of the cell
    sites, cells = [], []
    for site, position in enumerate(frac):
        low = np.where(position > 1 - near, -1, 0)  # an atom just inside the far face has its
        high = np.where(position < near, 1, 0)  # twin on the near one, and the other way round
        for cell in itertools.product(*map(range, low, high + 1)):
            sites.append(site)
            cells.append(cell)
    return np.array(sites), np.array(cells, dtype=float)


def kinds(drawings: Sequence[Drawing]) -> list[int]:
    """Atomic numbers of all elements that are drawn."""
    return np.unique(np.concatenate([drawing.numbers for drawing in drawings])).tolist()


def mutual_neighbours(positions: np.ndarray, nearest: np.ndarray) -> list[list[int]]:
    """Which atoms to join: both must count the other among their nearest, within 15 %.

    The rule needs no table of radii; it draws the octahedra of a perovskite but no stick to its
    large cation.
    """
    apart = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)  # (atoms, atoms)
    reach = STICK_SLACK * np.minimum(nearest[:, None], nearest[None, :])
    joined = (apart <= reach) & (apart > 1e-8)
    return [np.flatnonzero(row).tolist() for row in joined]


def edges(lattice: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The twelve edges of the unit cell as pairs of points, Å."""
    corners = [np.array(c, dtype=float) for c in itertools.product((0, 1), repeat=3)]
    return [
        (start @ lattice, end @ lattice)
        for start, end in itertools.combinations(corners, 2)
        if np.abs(start - end).sum() == 1
    ]
