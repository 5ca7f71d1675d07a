"""`CrystalBatch`: many crystals as three padded tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..runtime import InputError
from . import compositions, elements, rules

if TYPE_CHECKING:
    from pymatgen.core import Structure

FULL_OCCUPANCY = 1.0 - 1e-3


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """Crystals of different sizes in three tensors; number 0 marks padding, always at the end.

    Attributes:
        lattice: (batch, 3, 3) float64, Å, rows are the vectors a, b, c.
        frac: (batch, sites, 3) float64, fractional coordinates in [0, 1).
        numbers: (batch, sites) int64, atomic numbers; 0 is padding.

    Building one does not check it, so that losses can use the type; `validate` does.
    """

    lattice: Tensor
    frac: Tensor
    numbers: Tensor

    # ---- construction

    @classmethod
    def from_ragged(
        cls,
        lattice: np.ndarray | Tensor,
        frac: np.ndarray | Tensor,
        numbers: np.ndarray | Tensor,
        n_sites: np.ndarray | Tensor | Sequence[int],
    ) -> CrystalBatch:
        """Pad flat site arrays into a batch.

        Args:
            lattice: (batch, 3, 3) Å.
            frac: (sum of n_sites, 3), wrapped into [0, 1) here.
            numbers: (sum of n_sites,).
            n_sites: (batch,) how many sites each crystal has.

        Raises:
            InputError: no crystal, a crystal without sites, or lengths that do not add up.
        """
        n_sites = torch.as_tensor(np.asarray(n_sites), dtype=torch.long)
        if not isinstance(lattice, Tensor):
            lattice = torch.from_numpy(np.array(lattice, dtype=np.float64))
        lattice = lattice.double().clone()  # a copy: changing the batch must not change its source
        frac = wrap(torch.as_tensor(np.asarray(frac), dtype=torch.float64).reshape(-1, 3))
        numbers = torch.as_tensor(np.asarray(numbers), dtype=torch.long).reshape(-1)
        _check_ragged(lattice, frac, numbers, n_sites)
        mask = torch.arange(int(n_sites.max()))[None, :] < n_sites[:, None]  # (batch, sites)
        padded_frac = torch.zeros(*mask.shape, 3, dtype=torch.float64)
        padded_numbers = torch.zeros(mask.shape, dtype=torch.long)
        padded_frac[mask] = frac
        padded_numbers[mask] = numbers
        return cls(lattice, padded_frac, padded_numbers)

    @classmethod
    def from_structures(cls, structures: Sequence[Structure]) -> CrystalBatch:
        """Convert pymatgen structures (ordered and fully occupied).

        Raises:
            InputError: an empty list, or a structure with partial occupancy or dummy species.
        """
        if len(structures) == 0:
            raise InputError("no structures given: a CrystalBatch needs at least one crystal")
        lattice, frac, numbers, n_sites = [], [], [], []
        for index, structure in enumerate(structures):
            numbers.append(_atomic_numbers(structure, index))
            lattice.append(structure.lattice.matrix)
            frac.append(structure.frac_coords)
            n_sites.append(len(structure))
        return cls.from_ragged(
            np.array(lattice), np.concatenate(frac), np.concatenate(numbers), n_sites
        )

    @classmethod
    def cat(cls, batches: Sequence[CrystalBatch]) -> CrystalBatch:
        """Concatenate batches, padding all to the widest.

        Raises:
            InputError: nothing to concatenate.
        """
        if len(batches) == 0:
            raise InputError("nothing to concatenate: give at least one CrystalBatch")
        width = max(batch.frac.shape[1] for batch in batches)
        padded = [batch._padded(width) for batch in batches]
        return cls(
            torch.cat([batch.lattice for batch in padded]),
            torch.cat([batch.frac for batch in padded]),
            torch.cat([batch.numbers for batch in padded]),
        )

    # ---- views

    def __len__(self) -> int:
        return self.lattice.shape[0]

    def __getitem__(self, index: Any) -> CrystalBatch:
        """Select crystals by an integer, a slice, integer indices or a boolean mask."""
        rows = rows_of(index, len(self), self.lattice.device)
        return CrystalBatch(self.lattice[rows], self.frac[rows], self.numbers[rows])

    def narrow(self, rows: np.ndarray) -> CrystalBatch:
        """Some crystals, by indices, with no more padding than they need."""
        numbers = self.numbers[torch.as_tensor(rows)]
        filled = (numbers != 0).any(0).nonzero()
        most = int(filled[-1]) + 1 if len(filled) else 1
        part = CrystalBatch(self.lattice, self.frac[:, :most], self.numbers[:, :most])[rows]
        return CrystalBatch(part.lattice, part.frac.contiguous(), part.numbers.contiguous())

    def __iter__(self) -> Iterator[CrystalBatch]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        if len(self) == 0:
            return "CrystalBatch(0 crystals)"
        names = ", ".join(self[:3].formulas())
        dots = ", …" if len(self) > 3 else ""
        plural = "crystal" if len(self) == 1 else "crystals"
        return (
            f"CrystalBatch({len(self)} {plural}, at most {self.frac.shape[1]} sites: {names}{dots})"
        )

    @property
    def mask(self) -> Tensor:
        """(batch, sites) bool, True where there is an atom."""
        return self.numbers > 0

    @property
    def n_sites(self) -> Tensor:
        """(batch,) number of atoms."""
        return self.mask.sum(1)

    @property
    def cart(self) -> Tensor:
        """(batch, sites, 3) Cartesian coordinates, Å (padding at the origin)."""
        return self.frac @ self.lattice

    def to(self, device: torch.device | str) -> CrystalBatch:
        """Copy to a device."""
        return CrystalBatch(self.lattice.to(device), self.frac.to(device), self.numbers.to(device))

    # ---- compositions

    def counts(self) -> Tensor:
        """(batch, 119) int64, atoms of each element; column = atomic number, column 0 is 0.

        Raises:
            InputError: an atomic number outside 0..118.
        """
        counts = torch.zeros(len(self), elements.N_COLUMNS, dtype=torch.long)
        numbers = elements.checked(self.numbers).cpu().long()
        counts.scatter_add_(1, numbers, (numbers > 0).long())
        return counts

    def formulas(self) -> list[str]:
        """Reduced formulas in pymatgen's order, e.g. ``SrTiO3``."""
        return compositions.formulas(self.counts().numpy())

    # ---- border

    def structures(self) -> list[Structure]:
        """Convert to pymatgen structures (slow: for the border of the program, not for loops)."""
        from pymatgen.core import Lattice, Structure

        return [
            Structure(Lattice(lattice), [elements.SYMBOLS[z] for z in numbers], frac)
            for lattice, frac, numbers in self.each()
        ]

    def each(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Lattice (3, 3), coordinates (sites, 3) and numbers (sites,) of one after another."""
        parts = (self.lattice, self.frac, self.numbers)
        arrays = (part.detach().cpu().numpy() for part in parts)
        for lattice, frac, numbers in zip(*arrays, strict=True):
            k = int((numbers > 0).sum())
            yield lattice, frac[:k], numbers[:k]

    def validate(self) -> CrystalBatch:
        """Check shapes and values, and return self.

        Raises:
            InputError: wrong shapes or types, an empty batch, a broken crystal (see
                `rules.why_broken`), or a fractional coordinate outside [0, 1).
        """
        check_shapes(self)
        if len(self) == 0:
            raise InputError("the batch is empty: a CrystalBatch needs at least one crystal")
        for i in np.flatnonzero(rules.broken_crystals(self)).tolist():
            raise InputError(f"crystal {i}: {rules.why_broken(self, i)}; drop or repair it")
        outside = ((self.frac < 0) | (self.frac >= 1)).any(-1)
        if bool(outside.any()):
            i, j = outside.nonzero()[0].tolist()
            raise InputError(
                f"crystal {i}, site {j}: fractional coordinates {self.frac[i, j].tolist()} lie "
                "outside [0, 1): wrap them with imd_helpers.crystals.batch.wrap(frac)"
            )
        return self

    def _padded(self, width: int) -> CrystalBatch:
        extra = width - self.frac.shape[1]
        if extra == 0:
            return self
        return CrystalBatch(
            self.lattice,
            torch.nn.functional.pad(self.frac, (0, 0, 0, extra)),
            torch.nn.functional.pad(self.numbers, (0, extra)),
        )


def rows_of(index: Any, n: int, device: torch.device) -> slice | Tensor:
    """The rows of a batch of n that an integer, slice, indices or a mask selects, as a batch.

    Raises:
        IndexError: an integer outside the batch.
    """
    if isinstance(index, slice):
        return index
    if isinstance(index, int | np.integer):
        index = range(n)[index]  # raises IndexError, and resolves negative indices
        return slice(index, index + 1)
    rows = torch.as_tensor(np.asarray(index), device=device)
    return rows.long() if rows.numel() == 0 else rows


def wrap(frac: Tensor) -> Tensor:
    """Wrap fractional coordinates into [0, 1), also where rounding gives exactly 1."""
    wrapped = frac - torch.floor(frac)
    return torch.where(wrapped >= 1.0, torch.zeros_like(wrapped), wrapped)


def _atomic_numbers(structure: Structure, index: int) -> np.ndarray:
    numbers = []
    for site in structure:
        occupancy = sum(site.species.values())
        if len(site.species) != 1 or occupancy < FULL_OCCUPANCY:
            raise InputError(
                f"structure {index} ({structure.formula}) has the site {site.species_string!r}: "
                "only ordered, fully occupied sites are supported; choose an ordered "
                "approximant (pymatgen's OrderDisorderedStructureTransformation) or drop it"
            )
        z = getattr(site.specie, "Z", 0)
        if not 1 <= z < elements.N_COLUMNS:
            raise InputError(
                f"structure {index} holds {site.species_string!r}, which is no element from H to "
                "Og: replace dummy species by elements"
            )
        numbers.append(z)
    if not numbers:
        raise InputError(f"structure {index} has no sites: drop it")
    return np.array(numbers)


def _check_ragged(lattice: Tensor, frac: Tensor, numbers: Tensor, n_sites: Tensor) -> None:
    if len(n_sites) == 0:
        raise InputError("the selection is empty: a CrystalBatch needs at least one crystal")
    if int(n_sites.min()) < 1:
        raise InputError(f"crystal {int(n_sites.argmin())} has no sites: drop it")
    total = int(n_sites.sum())
    if lattice.shape != (len(n_sites), 3, 3) or len(frac) != total or len(numbers) != total:
        raise InputError(
            f"n_sites names {len(n_sites)} crystals with {total} sites in all, but lattice has "
            f"shape {tuple(lattice.shape)}, frac {tuple(frac.shape)}, numbers "
            f"{tuple(numbers.shape)}: expected (batch, 3, 3), (sites, 3), (sites,)"
        )


def check_shapes(crystals: CrystalBatch) -> CrystalBatch:
    """Refuse what is no batch of crystals as a whole, and return it in plain types.

    float64 without gradients and int64; for single crystals see `rules.broken_crystals`.

    Raises:
        InputError: parts that are no tensors, wrong types or shapes, or no sites.
    """
    parts = {"lattice": crystals.lattice, "frac": crystals.frac, "numbers": crystals.numbers}
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            raise InputError(
                f"{name} is a {type(part).__name__}, not a tensor: build batches with "
                "CrystalBatch.from_ragged or .from_structures"
            )
    for name in ("lattice", "frac"):
        if not parts[name].is_floating_point():
            raise InputError(f"{name} is {parts[name].dtype}: it must be real, use .double()")
    if crystals.numbers.is_floating_point() or crystals.numbers.is_complex():
        raise InputError(
            f"numbers are {crystals.numbers.dtype}: atomic numbers are integers, use .long()"
        )
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    batch, sites = shapes["numbers"] if len(shapes["numbers"]) == 2 else (-1, -1)
    if shapes["lattice"] != (batch, 3, 3) or shapes["frac"] != (batch, sites, 3) or sites == 0:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(
            f"{listed}: expected (batch, 3, 3), (batch, sites, 3) and (batch, sites) with at least "
            "one site: build batches with CrystalBatch.from_ragged, which pads"
        )
    return CrystalBatch(
        crystals.lattice.detach().double(), crystals.frac.detach().double(), crystals.numbers.long()
    )
