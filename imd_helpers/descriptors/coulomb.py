"""Coulomb matrices of molecules, and two of their heirs for crystals: sine and Ewald matrices.

All three hold 0.5 Z^2.4 or a self-energy on the diagonal and an interaction of two nuclei off it,
without the constants of Coulomb's law: charges count protons and distances are Å (or bohr).
Each comes in three orders:

- ``"none"``: as the atoms are numbered;
- ``"sorted"``: rows and columns by falling norm of the row;
- ``"eigenvalues"``: the eigenvalues only, by falling absolute value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals.samples import Samples
from ..runtime import InputError, lookup, number, whole
from .base import LARGEST, Descriptor, mark
from .molecules import SMALLEST_DISTANCE, MoleculeBatch, positions_from_distances, read_molecules

ORDERS = ("none", "sorted", "eigenvalues")
BOHR = 0.529177210903  # Å, CODATA 2018
UNITS = {"angstrom": 1.0, "bohr": 1.0 / BOHR}
POWER = 2.4  # of the self-energy, a fit to the energies of free atoms
TIE = 1e8  # norms that agree to 1e-8 are equal, and keep the order of the atoms
MAX_VECTORS, MAX_PAIRS = 3e6, 1e9  # of a sum over lattice vectors
OVERLAP = "two sites in one place: remove one of them"
RESIDUAL = 0.05  # Å; largest difference of the distances of a decoded molecule
CHUNK = 200_000  # terms of such a sum at a time


class _Matrix(Descriptor):
    """A square matrix with a row for each atom, padded and put in one of `ORDERS`.

    Args:
        max_atoms: size to which matrices are padded with zeros.
        order: one of `ORDERS`.
        unit: of distances, ``"angstrom"`` (as dscribe) or ``"bohr"`` (as the sources and matminer).

    Attributes:
        shape: of one encoded molecule or crystal.

    Raises:
        UnknownNameError: no such order or unit.
        InputError: no room for an atom.
    """

    dtype = torch.float64

    def __init__(self, max_atoms: int, *, order: str = "sorted", unit: str = "angstrom") -> None:
        self.max_atoms = whole("max_atoms", max_atoms, least=1)
        self.order = lookup("order", order, ORDERS)
        self.scale = UNITS[lookup("unit", unit, UNITS)]
        self.shape = (max_atoms,) if order == "eigenvalues" else (max_atoms, max_atoms)

    def _mark_misfits(self, batch: CrystalBatch | MoleculeBatch, reasons: list[str]) -> None:
        sizes = batch.mask.sum(1)
        text = f"{{}} atoms, but max_atoms is {self.max_atoms}: make the matrix larger"
        mark(reasons, sizes <= self.max_atoms, lambda i: text.format(int(sizes[i])))

    def _write(self, batch: CrystalBatch | MoleculeBatch) -> Tensor:
        matrices = self._matrices(batch)  # (batch, atoms, atoms)
        extra = self.max_atoms - matrices.shape[1]  # columns beyond max_atoms are padding
        return _ordered(torch.nn.functional.pad(matrices, (0, extra, 0, extra)), self.order)

    def _matrices(self, batch: Any) -> Tensor:
        """(batch, atoms, atoms), zeros for padding."""
        raise NotImplementedError


class CoulombMatrix(_Matrix):
    """Coulomb matrix of molecules: 0.5 Z_i^2.4 on the diagonal, Z_i Z_j / d_ij off it.

    Decoding gives molecules up to rotation, shift and mirror image: the diagonal tells the
    elements, the rest all distances, and multidimensional scaling makes coordinates of them. It
    fails where the diagonal holds no atomic number, an off-diagonal value is not positive, or no
    points in space have these distances; from eigenvalues there is no way back.

    Source: Rupp, Tkatchenko, Müller & von Lilienfeld, Phys. Rev. Lett. 108 (2012) 058301.
    """

    _read = staticmethod(read_molecules)

    def _matrices(self, batch: MoleculeBatch) -> Tensor:
        return coulomb(batch.numbers, batch.distances() * self.scale)

    def _decode(self, rows: Tensor) -> Samples:
        if self.order == "eigenvalues":
            raise InputError(
                f"{self.max_atoms} eigenvalues cannot give back up to {3 * self.max_atoms - 6} "
                "internal coordinates: decode from order='none' or order='sorted'"
            )
        found = [self._decode_one(matrix) for matrix in rows.cpu().double()]
        positions, numbers, reasons = zip(*found, strict=True)
        return Samples.from_reasons(MoleculeBatch.from_lists(positions, numbers), reasons)

    def _decode_one(self, matrix: Tensor) -> tuple[np.ndarray, np.ndarray, str]:
        place = (np.zeros((1, 3)), np.ones(1, dtype=int))  # keeps the row where nothing was decoded
        charge = (2 * matrix.diagonal().clamp_min(0)) ** (1 / POWER)  # (max_atoms,)
        problem = _problem(matrix, charge)
        if problem:
            return *place, problem
        z = charge.round()
        atoms = z > 0
        z, inner = z[atoms], matrix[atoms][:, atoms]
        distances = z[:, None] * z / ((inner + inner.T) / 2) / self.scale
        distances.fill_diagonal_(0.0)
        if not float(distances.max()) <= LARGEST:
            return *place, f"atoms {float(distances.max()):.2g} Å apart, at most {LARGEST:g} Å"
        xyz, residual = positions_from_distances(distances)
        if not float(residual) <= RESIDUAL:
            return *place, f"no points have these distances: residual {float(residual):.2g} Å"
        if len(z) > 1 and float(torch.pdist(xyz).min()) < SMALLEST_DISTANCE:
            return *place, "two atoms in one place"
        return xyz.numpy(), z.long().numpy(), ""


def _problem(matrix: Tensor, charge: Tensor) -> str:
    """What forbids to read elements and distances from a matrix, or nothing."""
    z = charge.round()
    worst = int((charge - z).abs().argmax())
    if bool((charge[worst] - z[worst]).abs() > 0.1) or bool(z.max() > elements.N_COLUMNS - 1):
        return f"diagonal {worst} gives the charge {float(charge[worst]):.2f}"
    if not bool((z > 0).any()):
        return "no atoms: the diagonal is zero"
    inner = matrix[z > 0][:, z > 0]
    if bool((inner - inner.T).abs().max() > 1e-2 * inner.abs().max()):
        return "the matrix is not symmetric"
    off = ~torch.eye(len(inner), dtype=torch.bool)
    return "an interaction off the diagonal is not positive" if (inner[off] <= 0).any() else ""


class SineMatrix(_Matrix):
    """Sine matrix of crystals: a periodic function of the difference replaces the distance.

    The off-diagonal value is Z_i Z_j / | Σ_k sin²(π Δf_k) a_k |, which repeats from cell to cell
    like the crystal, and has the shape of 1 / distance nearby. It depends on the choice of cell.

    Source: Faber, Lindmaa, von Lilienfeld & Armiento, Int. J. Quantum Chem. 115 (2015) 1094.
    """

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
        super()._mark_misfits(batch, reasons)
        distance = self._distances(batch)
        diagonal = torch.eye(distance.shape[1], dtype=torch.bool)
        closest = distance.masked_fill(diagonal, torch.inf).flatten(1).amin(1)
        mark(reasons, closest >= SMALLEST_DISTANCE, lambda _: OVERLAP)

    def _matrices(self, batch: CrystalBatch) -> Tensor:
        return coulomb(batch.numbers[:, : self.max_atoms], self._distances(batch))

    def _distances(self, batch: CrystalBatch) -> Tensor:
        """(batch, sites, sites), infinite for padding; sites beyond ``max_atoms`` do not count."""
        frac, there = batch.frac[:, : self.max_atoms], batch.mask[:, : self.max_atoms]
        delta = frac[:, :, None] - frac[:, None]  # (batch, sites, sites, 3)
        warped = torch.sin(math.pi * delta).square() @ batch.lattice[:, None]
        distance = self.scale * warped.square().sum(-1).sqrt()
        return torch.where(there[:, :, None] & there[:, None], distance, torch.inf)


class EwaldMatrix(_Matrix):
    """Ewald matrix of crystals: electrostatic energy of pairs of sublattices of nuclei.

    Entry (i, j) is the interaction per cell of all images of i with all of j, in a uniform
    background that makes each sublattice neutral; the diagonal is the energy of one sublattice.
    Diagonal plus upper triangle sum to the Ewald energy of the cell (dscribe's definition; the
    source shares out self-energies otherwise). A cell so elongated that the sums are too long does
    not fit.

    Args:
        max_atoms, order: as in the other matrices.
        accuracy: relative size of the terms left out of both sums, between 0 and 1.

    Source:
        Faber et al. (2015), as `SineMatrix`; Jackson & Catlow, Mol. Simul. 1 (1988) 207 for the
        cutoffs.
    """

    piece = 1

    def __init__(self, max_atoms: int, *, order: str = "sorted", accuracy: float = 1e-8) -> None:
        super().__init__(max_atoms, order=order)
        self.accuracy = number("accuracy", accuracy, above=0, below=1, why="such as 1e-8")

    def _matrices(self, batch: CrystalBatch) -> Tensor:
        ((lattice, frac, numbers),) = batch.each()
        matrix = ewald(lattice, frac, numbers.astype(float), accuracy=self.accuracy)
        return torch.as_tensor(matrix)[None]


def coulomb(numbers: Tensor, distances: Tensor) -> Tensor:
    """Coulomb matrices: Z_i Z_j / d_ij, 0.5 Z_i^2.4 on the diagonal (Rupp et al. (2012), eq. 1).

    Args:
        numbers: (batch, atoms), 0 is padding.
        distances: (batch, atoms, atoms); infinity for padding, anything on the diagonal.
    """
    z = numbers.double()
    diagonal = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    pairs = z[:, :, None] * z[:, None] / distances.masked_fill(diagonal, 1.0)
    return torch.where(diagonal, torch.diag_embed(0.5 * z**POWER), pairs)


def ewald(
    lattice: np.ndarray,
    frac: np.ndarray,
    charges: np.ndarray,
    *,
    accuracy: float = 1e-8,
    screening: float | None = None,
) -> np.ndarray:
    """Interactions of the sublattices of a crystal of point charges, by Ewald's two sums.

    Args:
        lattice: (3, 3) Å, rows.
        frac: (sites, 3).
        charges: (sites,) in units of the elementary charge.
        accuracy: relative size of the terms left out.
        screening: width parameter α, 1/Å; None chooses.

    Returns:
        (sites, sites) e²/Å; diagonal plus upper triangle sum to the energy of the cell, with a
        uniform background if the charges do not sum to zero.

    Raises:
        InputError: no volume, two sites in one place, or sums too long.

    Source: Toukmaji & Board, Comput. Phys. Commun. 95 (1996) 73, equations 5 and 16.
    """
    n, volume = len(charges), abs(float(np.linalg.det(lattice)))
    if volume < 1e-6:
        raise InputError(f"the cell has volume {volume:.2g} Å^3: its vectors lie in one plane")
    alpha = screening or math.sqrt(math.pi) * (n / volume**2) ** (1 / 6)
    reach = math.sqrt(-math.log(number("accuracy", accuracy, above=0, below=1)))
    delta = frac[None] - frac[:, None]  # (sites, sites, 3), from row to column
    delta = delta - np.round(delta)
    factor = np.outer(charges, charges)
    sums = _real_sum(lattice, delta, alpha, reach / alpha)
    sums += _reciprocal_sum(lattice, delta, alpha, 2 * alpha * reach, volume)
    sums -= math.pi / (volume * alpha**2)  # each sublattice in its background
    sums -= np.diag(np.full(n, 2 * alpha / math.sqrt(math.pi)))  # a charge with its own cloud
    matrix = factor * sums
    return matrix - np.diag(np.diag(matrix) / 2)  # i with i: each pair of images once


def _real_sum(lattice: np.ndarray, delta: np.ndarray, alpha: float, cutoff: float) -> np.ndarray:
    from scipy.special import erfc

    vectors = delta @ lattice  # (sites, sites, 3)
    widest = math.sqrt((vectors**2).sum(-1).max())
    shifts = _lattice_vectors(lattice, cutoff + widest, pairs=len(delta) ** 2) @ lattice
    total = np.zeros(delta.shape[:2])
    for part in np.array_split(shifts, len(shifts) * total.size // CHUNK + 1):
        r = np.sqrt(((vectors + part[:, None, None]) ** 2).sum(-1))  # (shifts, sites, sites)
        near = (r < cutoff) & (r > 1e-8)
        if ((r < SMALLEST_DISTANCE).sum(0) > np.eye(len(delta))).any():
            raise InputError(OVERLAP)
        total += np.where(near, erfc(alpha * r) / np.where(near, r, 1.0), 0.0).sum(0)
    return total


def _reciprocal_sum(
    lattice: np.ndarray, delta: np.ndarray, alpha: float, cutoff: float, volume: float
) -> np.ndarray:
    reciprocal = 2 * math.pi * np.linalg.inv(lattice).T  # rows
    whole = _lattice_vectors(reciprocal, cutoff, pairs=len(delta) ** 2)
    g2 = ((whole @ reciprocal) ** 2).sum(1)
    whole, g2 = whole[g2 > 1e-12], g2[g2 > 1e-12]
    weight = 4 * math.pi / volume * np.exp(-g2 / (4 * alpha**2)) / g2
    total = np.zeros(delta.shape[:2])
    for rows in np.array_split(np.arange(len(whole)), len(whole) * total.size // CHUNK + 1):
        total += np.cos(2 * math.pi * (delta @ whole[rows].T)) @ weight[rows]
    return total


def _lattice_vectors(lattice: np.ndarray, radius: float, *, pairs: int) -> np.ndarray:
    """(n, 3) integer coordinates of all lattice vectors within a radius."""
    most = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 1e-9).astype(int)
    count = float(np.prod(2.0 * most + 1))
    if not (count < MAX_VECTORS and count * pairs < MAX_PAIRS):
        raise InputError(
            f"an Ewald sum over {count:.2g} vectors and {pairs} pairs is too long: the cell is "
            "flat, long or large; reduce it with imd_helpers.crystals.geometry.reduce_lattice, or "
            "ask for less accuracy"
        )
    grid = np.indices(2 * most + 1).reshape(3, -1).T - most  # (n, 3)
    return grid[((grid @ lattice) ** 2).sum(1) <= radius**2].astype(float)


def _ordered(matrices: Tensor, order: str) -> Tensor:
    if order == "none":
        return matrices
    if order == "eigenvalues":
        values = torch.linalg.eigvalsh(matrices)  # (batch, atoms)
        by_size = values.abs().argsort(dim=1, descending=True, stable=True)
        return values.gather(1, by_size)
    norms = matrices.norm(dim=2)  # (batch, atoms)
    norms = (norms * TIE).round()  # so that rounding errors do not choose between equal atoms
    rows = norms.argsort(dim=1, descending=True, stable=True)
    picked = matrices.gather(1, rows[:, :, None].expand_as(matrices))
    return picked.gather(2, rows[:, None].expand_as(matrices))
