"""What a picture of a crystal is made of: atoms with their images, sticks, and the cell's edges."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from ..crystals import elements
from ..crystals.batch import CrystalBatch
from ..runtime import InputError

ON_FACE = 0.05  # Å: an atom this close to a face of the cell is drawn on the opposite face too
STICK_SLACK = 1.15  # sticks reach this much further than the nearest neighbour of both ends
MOST_ATOMS = 2000  # more than this and a browser stutters


@dataclass(frozen=True)
class Drawing:
    """One crystal, ready to be drawn.

    Attributes:
        lattice: (3, 3) Å, rows a, b, c of the unit cell.
        numbers: (atoms,) atomic numbers, images included.
        positions: (atoms, 3) Å.
        sticks: for each atom the atoms it is joined to.
        formula: reduced formula.
        n_sites: atoms in the unit cell.
    """

    lattice: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    sticks: list[list[int]]
    formula: str
    n_sites: int

    @property
    def symbols(self) -> list[str]:
        """Elements of the crystal in the order of their atomic numbers."""
        return [elements.SYMBOLS[z] for z in np.unique(self.numbers)]

    def words(self) -> str:
        """The picture in words, for readers who cannot see it."""
        lengths = np.linalg.norm(self.lattice, axis=1)
        unit = self.lattice / lengths[:, None]
        cosines = (unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1])
        angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        edges = ", ".join(f"{n} = {v:.3f} Å" for n, v in zip("abc", lengths, strict=True))
        corners = ", ".join(f"{n} = {v:.1f}°" for n, v in zip("αβγ", angles, strict=True))
        return f"{self.formula}, {self.n_sites} atoms in the unit cell; {edges}; {corners}"


def draw(crystals: CrystalBatch, index: int, supercell: tuple[int, int, int]) -> Drawing:
    """Collect the atoms, sticks and edges of one crystal of a batch.

    Raises:
        InputError: the supercell is not three positive integers, or holds too many atoms.
    """
    if len(supercell) != 3 or any(n != int(n) or n < 1 for n in supercell):
        raise InputError(f"supercell={supercell} must be three positive integers, as (2, 2, 1)")
    one = crystals[index]
    keep = one.mask[0]
    lattice = one.lattice[0].cpu().double().numpy()  # (3, 3)
    frac = one.frac[0][keep].cpu().double().numpy()  # (sites, 3)
    numbers = one.numbers[0][keep].cpu().numpy()  # (sites,)
    n_atoms = len(numbers) * int(np.prod(supercell))
    if n_atoms > MOST_ATOMS:
        raise InputError(f"{n_atoms} atoms are too many to draw: take a smaller supercell")
    sites, cells = boundary_images(frac, lattice, supercell)
    positions = (frac[sites] + cells) @ lattice  # (atoms, 3)
    sticks = mutual_neighbours(positions, nearest_distances(frac, lattice)[sites])
    return Drawing(lattice, numbers[sites], positions, sticks, one.formulas()[0], len(numbers))


def boundary_images(
    frac: np.ndarray, lattice: np.ndarray, supercell: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Every site in every cell of a block, and again where it lies on the block's far faces.

    Args:
        frac: (sites, 3).
        lattice: (3, 3) Å.
        supercell: cells along a, b, c.

    Returns:
        Index of the site (atoms,), and cell of the image (atoms, 3).
    """
    per_height = np.linalg.norm(np.linalg.inv(lattice), axis=0)  # (3,) 1 / distance of faces, 1/Å
    near = ON_FACE * per_height  # (3,) as a fraction of the cell
    sites, cells = [], []
    for site, position in enumerate(frac):
        low = np.where(position > 1 - near, -1, 0)  # an atom just inside the far face has its
        high = np.where(position < near, 1, 0)  # twin on the near one, and the other way round
        ranges = [
            range(start, n + stop) for start, stop, n in zip(low, high, supercell, strict=True)
        ]
        for cell in itertools.product(*ranges):
            sites.append(site)
            cells.append(cell)
    return np.array(sites), np.array(cells, dtype=float)


def nearest_distances(frac: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Distance (sites,) in Å from each site to its nearest neighbour, own images included."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3)))  # (27, 3)
    apart = frac[:, None] - frac[None, :]
    apart -= np.round(apart)
    vectors = (apart[:, :, None] + shifts) @ lattice  # (sites, sites, 27, 3)
    distances = np.linalg.norm(vectors, axis=-1)
    distances[distances < 1e-8] = np.inf
    return distances.min(axis=(1, 2))


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
