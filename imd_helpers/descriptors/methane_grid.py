"""ZeoGAN's descriptor: the energy of a methane molecule everywhere in a zeolite, and its atoms.

Three grids follow the cell: the energy of one united-atom methane molecule at each point, in
kelvin, and sums of exp(-r^2) over O and over Si, r in Å. Only O atoms act on the molecule, by a
Lennard-Jones potential with a plain cutoff. The numbers that the source does not print were found
by fitting its two published grids (LTA and ACO), which they give back to 0.01 K and 1e-7.

Source: Kim, Lee & Kim, Sci. Adv. 6 (2020) eaax9324, and its code (Sangwon91/ZeoGAN at 94b1fab).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..runtime import InputError, number, whole
from ._grids import find_peaks, separate_peaks
from .base import Descriptor, first_of, mark, mark_cells, mark_overlaps, read_tensor

if TYPE_CHECKING:
    from pymatgen.core import Structure

OXYGEN, SILICON = 8, 14
CHANNELS = (OXYGEN, SILICON)  # of the second and the third grid
EPSILON, SIGMA = 115.0, 3.47  # K and Å, of the Lennard-Jones potential of methane and O
CUTOFF = 12.0  # Å; the potential is cut off there and not shifted
THRESHOLD = 0.3  # smallest value of an atom's voxel
DENSITY_CUTOFF = 4.7  # Å; exp(-r^2) is below 3e-10 there
SHORTEST = 2.0  # Å, of an edge of a cell that is decoded; atoms of a framework need more
DENSITY_WIDTH = 0.5**0.5  # Å; exp(-r^2) is a Gaussian of this width
ENERGY_RANGE = (-4000.0, 5000.0)  # K, as published
GAS_CONSTANT = 8.314e-3  # kJ/mol/K, as published


@dataclass(frozen=True)
class MethaneGrid(Descriptor):
    """Encode SiO2 frameworks as three grids, and decode atoms from the last two.

    Attributes:
        points: points along each edge of the cell, at fractional i / points.
    """

    points: int = 32

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(3, points, points, points): energy, O, Si."""
        return (3, self.points, self.points, self.points)

    piece = 1

    def __post_init__(self) -> None:
        whole("points", self.points, least=2)

    # ---- crystal -> grids

    def energy(self, structure: Structure | CrystalBatch) -> np.ndarray:
        """(points, points, points) energy of one methane molecule, K; huge where it overlaps O.

        Raises:
            InputError: no framework of Si and O, a disordered one, or overlapping atoms.
        """
        return self._sum(self._one(structure), OXYGEN, lennard_jones=True)

    def density(self, structure: Structure | CrystalBatch) -> np.ndarray:
        """(2, points, points, points) sums of exp(-r^2) over O and over Si.

        Raises:
            InputError: as `energy`.
        """
        return self._densities(self._one(structure))

    def _one(self, structure: Structure | CrystalBatch) -> CrystalBatch:
        given = structure if isinstance(structure, CrystalBatch) else [structure]
        if len(given) != 1:
            raise InputError(f"{len(given)} crystals at once: use encode for more than one")
        batch, reasons = self._read(given)
        self._mark_misfits(batch, reasons)
        return Samples.from_reasons(batch, reasons).checked()

    def _mark_misfits(self, batch: CrystalBatch, reasons: list[str]) -> None:
        held = batch.counts() > 0
        only = held.sum(1) == held[:, CHANNELS].sum(1)
        text = "{}: the methane grid is defined for frameworks of Si and O alone; write Al and "
        text += "other T atoms as Si, and take cations and water out"
        names = batch.formulas()
        mark(reasons, held[:, CHANNELS].all(1) & only, lambda i: text.format(names[i]))
        mark_overlaps(reasons, batch)

    def _densities(self, crystal: CrystalBatch) -> np.ndarray:
        return np.stack([self._sum(crystal, z, lennard_jones=False) for z in CHANNELS])

    def _write(self, batch: CrystalBatch) -> Tensor:
        """O, Si, and before them the energy from 1 to 0 (`scale_energy`)."""
        energy = scale_energy(self._sum(batch, OXYGEN, lennard_jones=True))
        return torch.as_tensor(np.concatenate([energy[None], self._densities(batch)]))[None]

    def _sum(self, crystal: CrystalBatch, number: int, *, lennard_jones: bool) -> np.ndarray:
        from ..kernels.grids import GAUSSIAN, LENNARD_JONES, add_pairs

        out = np.zeros((self.points,) * 3)
        mine = crystal.numbers[0] == number
        frac = np.ascontiguousarray(crystal.frac[0, mine].numpy())
        lattice = np.ascontiguousarray(crystal.lattice[0].numpy())
        kind = (CUTOFF, LENNARD_JONES) if lennard_jones else (DENSITY_CUTOFF, GAUSSIAN)
        add_pairs(lattice, frac, self.points, *kind, EPSILON, SIGMA, out)
        return out

    # ---- grids -> crystal

    def decode(self, tensor: Any, lattice: Tensor) -> Samples:
        """Frameworks from grids (batch, *shape) and their cells, which the grids do not hold.

        The lattice is (batch, 3, 3) Å; the atoms are the peaks of the O and Si grids. A row fails
        when it holds NaN, when it has no peak of O or of Si, when there are not two O for each Si,
        when atoms overlap, or when its cell is none or has an edge below 2 Å.

        Raises:
            InputError: something else than such numbers, or not one cell for each row.
        """
        grids, reasons = read_tensor(tensor, self.shape)
        cells, broken = read_tensor(lattice, (3, 3), ", one cell for each row: grids hold none")
        if len(cells) != len(grids):
            raise InputError(
                f"{len(cells)} cells for {len(grids)} grids: expected ({len(grids)}, 3, 3), one "
                "cell for each sample; the grids do not hold it"
            )
        cells = cells.cpu().double()
        reasons = first_of(reasons, broken)
        mark_cells(reasons, cells)
        for i, edge in enumerate(cells.norm(dim=2).amin(1).tolist()):
            if edge < SHORTEST:  # its windows would fill the memory
                reasons[i] = reasons[i] or f"an edge of {edge:.2g} Å, at least {SHORTEST} Å"
        bad = torch.tensor([reason != "" for reason in reasons])[:, None, None]
        cells = torch.where(bad, torch.eye(3, dtype=torch.float64), cells)
        density = grids[:, 1:].cpu().float().masked_fill(bad[..., None, None], 0.0)
        parts = [self._decode(grid, cell) for grid, cell in zip(density, cells, strict=True)]
        crystals, found = zip(*parts, strict=True)
        return Samples.from_reasons(CrystalBatch.cat(crystals), first_of(reasons, found))

    def _decode(self, density: Tensor, lattice: Tensor) -> tuple[CrystalBatch, str]:
        empty = CrystalBatch.from_ragged(lattice[None], np.zeros((1, 3)), [OXYGEN], [1])
        metric = (lattice @ lattice.T / self.points**2).expand(2, 3, 3)
        width = {"sigma": DENSITY_WIDTH, "threshold": THRESHOLD, "periodic": True}
        peaks = find_peaks(density, metric, **width)
        peaks = separate_peaks(density, peaks, metric, radius=DENSITY_CUTOFF, passes=3, **width)
        n_oxygen, n_silicon = torch.bincount(peaks.row, minlength=2).tolist()
        if n_oxygen == 0 or n_silicon == 0:
            missing = "O" if n_oxygen == 0 else "Si"
            return empty, f"the grid of {missing} has no peak above {THRESHOLD}"
        numbers = torch.tensor(CHANNELS)[peaks.row]
        crystal = CrystalBatch.from_ragged(
            lattice[None], peaks.place / self.points, numbers, [len(numbers)]
        )
        if n_oxygen != 2 * n_silicon:
            return crystal, f"{n_oxygen} O and {n_silicon} Si, not two O for each Si"
        reasons = [""]
        mark_overlaps(reasons, crystal)
        return crystal, reasons[0]


def scale_energy(energy: np.ndarray) -> np.ndarray:
    """K to [0, 1] as published: 1 at -4000 K and below, 0 at 5000 K and above."""
    low, high = ENERGY_RANGE
    clipped = np.clip(np.nan_to_num(energy, nan=high, posinf=high), low, high)
    return (1.0 - (clipped - low) / (high - low)).astype(np.float32)


def heat_of_adsorption(energy: np.ndarray, *, temperature: float = 298.0) -> float:
    """Heat that one methane molecule sets free on entering, kJ/mol, from energies on a grid in K.

    ``-<U exp(-U/T)> / <exp(-U/T)> + T``, averages over the points, for a rigid framework without
    other guests.

    Source: the target of Kim, Lee & Kim (2020), from its code.
    """
    temperature = number("temperature", temperature, above=0, why="in K, such as 298")
    energy = np.asarray(energy, dtype=np.float64)
    if energy.size == 0 or np.isnan(energy).any():
        raise InputError("the energies are empty or hold NaN: take those of MethaneGrid().energy")
    shifted = energy - energy.min()  # the shift cancels, and spares overflow
    weight = np.exp(-shifted / temperature)
    mean = (np.where(weight > 0, energy, 0.0) * weight).sum() / weight.sum()
    return float((temperature - mean) * GAS_CONSTANT)
