"""Molecules as padded tensors: atoms in space, distances, and the graph of their bonds.

Molecules have no lattice and so do not fit into `CrystalBatch`; `MoleculeBatch` is its little
sister. The descriptors of molecules are in `coulomb`, `bags`, `soap` and `smiles`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..crystals.batch import rows_of
from ..runtime import InputError, reals, whole

if TYPE_CHECKING:
    from ase import Atoms

SMALLEST_DISTANCE = 0.1  # Å, below it two atoms are taken for one
BOND_SCALE = 1.25  # a bond is at most this many times the sum of the covalent radii


@dataclass(frozen=True, eq=False)
class MoleculeBatch:
    """Molecules of different sizes in two tensors; number 0 marks padding, always at the end."""

    positions: Tensor  # (batch, atoms, 3) float64, Å; padding at the origin
    numbers: Tensor  # (batch, atoms) int64, atomic numbers; 0 is padding

    @classmethod
    def from_lists(
        cls, positions: Sequence[np.ndarray], numbers: Sequence[np.ndarray]
    ) -> MoleculeBatch:
        """Pad one array of positions (atoms, 3), Å, and one of numbers (atoms,) a molecule.

        Raises:
            InputError: no molecule, shapes that do not fit, values that are not finite, an atomic
                number outside 1..118, or two atoms in one place.
        """
        if len(positions) == 0 or len(positions) != len(numbers):
            raise InputError(
                f"{len(positions)} sets of positions and {len(numbers)} of numbers: a "
                "MoleculeBatch needs at least one molecule, and one of each for every molecule"
            )
        width = max(len(row) for row in numbers)
        places = torch.zeros(len(numbers), width, 3, dtype=torch.float64)
        charges = torch.zeros(len(numbers), width, dtype=torch.long)
        for i, (xyz, z) in enumerate(zip(positions, numbers, strict=True)):
            heaviest = elements.N_COLUMNS - 1
            z_ = [whole(f"an atomic number of molecule {i}", k, least=1, most=heaviest) for k in z]
            xyz_ = reals(f"positions of molecule {i}", xyz, len(z_), 3, finite=False)
            reason = _broken(xyz_, np.array(z_, dtype=int))
            if reason:
                raise InputError(f"molecule {i}: {reason}; repair or drop it")
            places[i, : len(z_)], charges[i, : len(z_)] = torch.as_tensor(xyz_), torch.tensor(z_)
        return cls(places, charges)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> MoleculeBatch:
        """Select molecules by an integer, a slice, integer indices or a boolean mask."""
        rows = rows_of(index, len(self), self.numbers.device)
        return MoleculeBatch(self.positions[rows], self.numbers[rows])

    def __repr__(self) -> str:
        names = ", ".join(self[:3].formulas())
        return f"MoleculeBatch({len(self)} molecules: {names}{', …' if len(self) > 3 else ''})"

    @property
    def mask(self) -> Tensor:
        """(batch, atoms) bool, True where there is an atom."""
        return self.numbers > 0

    @property
    def n_atoms(self) -> Tensor:
        """(batch,) number of atoms."""
        return self.mask.sum(1)

    def formulas(self) -> list[str]:
        """Formulas in Hill's order, not reduced: benzene is C6H6."""
        return [one.get_chemical_formula(mode="hill") for one in self.atoms()]

    def distances(self) -> Tensor:
        """(batch, atoms, atoms) Å; 0 on the diagonal, infinity where either is padding."""
        delta = self.positions[:, :, None] - self.positions[:, None]  # (batch, atoms, atoms, 3)
        pairs = self.mask[:, :, None] & self.mask[:, None]
        return torch.where(pairs, delta.square().sum(-1).sqrt(), torch.inf)

    def atoms(self) -> list[Atoms]:
        """Convert to ASE's `Atoms`."""
        from ase import Atoms

        return [
            Atoms(self.numbers[i, :n].cpu().numpy(), self.positions[i, :n].cpu().numpy())
            for i, n in enumerate(self.n_atoms.tolist())
        ]


def positions_from_distances(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates from all distances of a point set, by classical multidimensional scaling.

    The Gram matrix B = -1/2 J D² J, with J = 1 - 1/n, has the eigenvalues λ and vectors v, and the
    coordinates are v √λ for the three largest λ. They are right up to rotation, shift and mirror.

    Returns:
        Positions (n, 3), Å, from (n, n) distances, and a residual: the largest difference, Å,
        between their distances and the given ones, zero exactly if they fit in three dimensions.

    Source: W. S. Torgerson, Psychometrika 17 (1952) 401.
    """
    n = len(distances)
    center = torch.eye(n, dtype=distances.dtype) - 1.0 / n
    gram = -0.5 * center @ distances.square() @ center  # (n, n)
    values, vectors = torch.linalg.eigh(gram)
    k = min(3, n)
    xyz = torch.zeros(n, 3, dtype=distances.dtype)
    xyz[:, :k] = vectors[:, -k:] * values[-k:].clamp_min(0).sqrt()
    return xyz, (torch.cdist(xyz[None], xyz[None])[0] - distances).abs().max()


def bonds(molecules: MoleculeBatch) -> Tensor:
    """The molecular graph: which atoms are near enough to be bonded.

    Two atoms are bonded if their distance is at most 1.25 times the sum of their covalent radii
    (Cordero), which leaves room for long bonds and is far from other contacts. The rule sees no
    bond orders and knows no charges.

    Returns:
        (batch, atoms, atoms) bool, symmetric, False on the diagonal and in padding.
    """
    radius = torch.tensor(elements.column("covalent_radius"))[molecules.numbers]
    limit = BOND_SCALE * (radius[:, :, None] + radius[:, None])  # (batch, atoms, atoms)
    diagonal = torch.eye(molecules.numbers.shape[1], dtype=torch.bool)
    return (molecules.distances() <= limit) & ~diagonal


def g2_molecules() -> tuple[list[str], MoleculeBatch, np.ndarray]:
    """The 148 molecules of the G2/97 set with measured energies, as ASE ships them.

    Returns:
        Names (as in `ase.build.molecule`), geometries (MP2/6-31G(d)), and (148,) energies of
        atomization at 0 K, kcal/mol, from measured enthalpies of formation at 298 K.

    Source: Curtiss, Raghavachari, Redfern & Pople, J. Chem. Phys. 106 (1997) 1063.
    """
    from ase.data.g2 import atom_names, data, molecule_names
    from ase.symbols import string2symbols

    # H(298 K) - H(0 K) of an element in its standard state, and its atom's heat of formation at 0 K
    thermal = {name: data[name]["thermal correction"] for name in atom_names}
    atom = {name: data[name]["enthalpy"] for name in atom_names}
    names, batch, energy = list(molecule_names), [], []
    for name in names:
        row = data[name]
        symbols = string2symbols(row["symbols"])
        at_zero = (
            row["enthalpy"] - row["thermal correction"] + sum(thermal[symbol] for symbol in symbols)
        )
        energy.append(sum(atom[symbol] for symbol in symbols) - at_zero)
        batch.append((np.array(row["positions"]), [elements.number(s) for s in symbols]))
    positions, numbers = zip(*batch, strict=True)
    return names, MoleculeBatch.from_lists(positions, numbers), np.array(energy)


def read_molecules(given: MoleculeBatch) -> tuple[MoleculeBatch, list[str]]:
    """Molecules, and why some are broken; in their places is a hydrogen atom.

    Raises:
        InputError: something else than a MoleculeBatch, or an empty one.
    """
    if not isinstance(given, MoleculeBatch) or len(given) == 0:
        raise InputError(
            f"{type(given).__name__} without molecules: give a MoleculeBatch of at least one, made "
            "by MoleculeBatch.from_lists or smiles.batch_of"
        )
    positions, numbers = given.positions.detach().cpu().clone(), given.numbers.cpu().clone()
    reasons = [_broken(xyz, z) for xyz, z in zip(positions.numpy(), numbers.numpy(), strict=True)]
    bad = torch.tensor([reason != "" for reason in reasons])
    positions[bad], numbers[bad] = 0.0, 0
    numbers[bad, :1] = 1
    return MoleculeBatch(positions, numbers), reasons


def _broken(xyz: np.ndarray, numbers: np.ndarray) -> str:
    """What is wrong with one molecule (atoms, 3) Å and (atoms,), padding at its end."""
    if not np.isfinite(xyz).all():
        return "NaN or infinity among its positions"
    if not numbers.any():
        return "no atoms"
    if numbers.min() < 0 or numbers.max() >= elements.N_COLUMNS:
        bad = numbers.min() if numbers.min() < 0 else numbers.max()
        return f"atomic number {bad}, must be from 1 to 118"
    n = int((numbers > 0).sum())
    if not (numbers[:n] > 0).all():
        return "padding (number 0) before an atom"
    distance = np.linalg.norm(xyz[:n, None] - xyz[None, :n], axis=-1) + 1e3 * np.eye(n)
    if distance.min() < SMALLEST_DISTANCE:
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        return (
            f"atoms {i} and {j} are {distance.min():.3g} Å apart, less than {SMALLEST_DISTANCE} Å: "
            "is one of them given twice, or are the units not Å?"
        )
    return ""
