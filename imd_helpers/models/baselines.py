"""Generators that learn nothing: training copies, element substitution, random cubic crystals.

A model that does not beat them has learned nothing that counts. They have the interface of the
models, and go through the same judge.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, symmetry
from ..descriptors import Decoded
from ..descriptors.symmetry_sites import GRID, SPACE_GROUPS, Sites, decode_sites
from ..runtime import InputError, lookup

CONDITIONS = ("space_group", "elements")


@dataclass(frozen=True, eq=False)
class Templates:
    """Known crystals in standard conventional cells, with their space groups.

    Attributes:
        crystals: n crystals.
        space_group: (n,) ITA numbers.
    """

    crystals: CrystalBatch
    space_group: np.ndarray

    @classmethod
    def of(cls, crystals: CrystalBatch, *, symprec: float = 0.01) -> Templates:
        """Standardise crystals; those whose symmetry is not found are left out.

        Raises:
            InputError: no crystal is left.
        """
        found = [orbit for orbit in symmetry.orbits(crystals, symprec=symprec) if orbit is not None]
        if not found:
            raise InputError(f"moyopy finds a space group in none of {len(crystals)} crystals")
        groups = np.array([orbit.space_group for orbit in found])
        return cls(symmetry.from_orbits(found)[0], groups)

    def __len__(self) -> int:
        return len(self.crystals)

    def has(self, symbols: Sequence[str]) -> np.ndarray:
        """(n,) bool: made of exactly these elements."""
        wanted = np.zeros(elements.N_COLUMNS, dtype=bool)
        wanted[[elements.number(symbol) for symbol in symbols]] = True
        return ((self.crystals.counts().numpy() > 0) == wanted).all(1)


class Baseline(ABC):
    """What all three share.

    Args:
        training: the crystals that a model would train on, as `Templates` or any `CrystalBatch`.
    """

    def __init__(self, training: Templates | CrystalBatch) -> None:
        self.training = training if isinstance(training, Templates) else Templates.of(training)

    def sample(
        self, n: int, *, condition: Mapping[str, Any] | None = None, seed: int = 0
    ) -> CrystalBatch:
        """Draw n crystals; see `sample_decoded`."""
        return self.sample_decoded(n, condition=condition, seed=seed)[0].crystals

    def sample_decoded(
        self, n: int, *, condition: Mapping[str, Any] | None = None, seed: int = 0
    ) -> tuple[Decoded, np.ndarray]:
        """Draw n samples, and the (n,) space groups they were asked to have.

        Args:
            n: how many.
            condition: ``{"space_group": 225, "elements": ("Cs", "Pb", "I")}``, either or both.
            seed: of the random choices.

        Raises:
            InputError: n below 1, or a condition that nothing satisfies.
            UnknownNameError: a condition of unknown kind, or an unknown element.
        """
        if n < 1:
            raise InputError(f"n = {n}: ask for at least one sample")
        condition = dict(condition or {})
        for name in condition:
            lookup("condition", name, CONDITIONS)
        return self._draw(n, condition, np.random.default_rng(seed))

    @abstractmethod
    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Decoded, np.ndarray]: ...

    def _choose(
        self, n: int, keep: np.ndarray, condition: dict[str, Any], rng: np.random.Generator
    ) -> np.ndarray:
        """(n,) rows of the training set, drawn with replacement."""
        if "space_group" in condition:
            keep = keep & (self.training.space_group == condition["space_group"])
        if not keep.any():
            raise InputError(
                f"no training crystal satisfies {condition}: this baseline only varies "
                f"{len(self.training)} known crystals, so ask for something among them"
            )
        return rng.choice(np.flatnonzero(keep), size=n)


class TrainingCopies(Baseline):
    """Copies of training crystals, drawn with replacement: valid, stable, and never novel."""

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Decoded, np.ndarray]:
        keep = np.ones(len(self.training), dtype=bool)
        if "elements" in condition:
            keep = self.training.has(condition["elements"])
        rows = self._choose(n, keep, condition, rng)
        return _all_ok(self.training.crystals[rows]), self.training.space_group[rows]


class Substitution(Baseline):
    """Training crystals with every element swapped for another of its group of the periodic table.

    The new elements are drawn from those of the training set, and no two elements become one; an
    element with no other of its group stays. Lanthanides are swapped among themselves, and so are
    actinides. The cell is scaled by the ratio of the sums of covalent radii over all atoms.

    With ``condition={"elements": ...}`` those elements take the places of the template's instead,
    in order of electronegativity.
    """

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Decoded, np.ndarray]:
        present = self.training.crystals.counts().numpy() > 0
        keep = np.ones(len(present), dtype=bool)
        given = None
        if "elements" in condition:
            given = _by_electronegativity([elements.number(s) for s in condition["elements"]])
            keep = present.sum(1) == len(given)
        rows = self._choose(n, keep, condition, rng)
        families = _families(np.flatnonzero(present.any(0)))
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for i, row in enumerate(rows):
            old = _by_electronegativity(np.flatnonzero(present[row]).tolist())
            swap[i, old] = _relatives(old, families, rng) if given is None else given
        return _all_ok(_swapped(self.training.crystals[rows], swap)), self.training.space_group[
            rows
        ]


class RandomCubic(Baseline):
    """Random cubic ternaries on CubicGAN's grid, with no knowledge of which atoms go together.

    The space group (225, 216 or 221) is drawn with its share in the training set; three different
    elements uniformly from those of the training set; three different orbits uniformly from
    those with coordinates at multiples of 1/4; the lattice length from the training crystals of
    the same space group.
    """

    def _draw(
        self, n: int, condition: dict[str, Any], rng: np.random.Generator
    ) -> tuple[Decoded, np.ndarray]:
        rows = self._choose(n, np.isin(self.training.space_group, SPACE_GROUPS), condition, rng)
        groups = self.training.space_group[rows]
        known = np.flatnonzero(self.training.crystals.counts().numpy().any(0))
        if "elements" in condition:
            known = np.array([elements.number(symbol) for symbol in condition["elements"]])
        if len(set(known.tolist())) < 3:
            raise InputError(f"{len(known)} elements given: a ternary needs three different ones")
        grid = np.stack([rng.permutation(grid_orbits(int(g)))[:3] for g in groups])
        numbers = np.stack([rng.permutation(known)[:3] for _ in range(n)])
        length = self.training.crystals.lattice[rows, 0].norm(dim=1).numpy()
        return decode_sites(Sites(groups, numbers, grid, length)), groups


@cache
def grid_orbits(space_group: int) -> np.ndarray:
    """(orbits, 3) one position, in quarters, of each orbit of the grid of multiples of 1/4."""
    rotations, translations = symmetry.operations(space_group)
    points = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    images = np.einsum("gij,pj->pgi", rotations, points) + translations * GRID
    images = np.rint(images).astype(np.int64) % GRID  # (points, operations, 3)
    labels = (images @ [GRID * GRID, GRID, 1]).min(1)
    return points[np.unique(labels)]


def _families(known: np.ndarray) -> dict[int, np.ndarray]:
    """Each known element -> the known elements of its family, itself included."""
    column = elements.column("group").copy()
    column[57:72], column[89:104] = 101, 102  # lanthanides and actinides
    return {int(z): known[column[known] == column[z]] for z in known}


def _relatives(
    old: list[int], families: dict[int, np.ndarray], rng: np.random.Generator
) -> list[int]:
    """A different element of its family for each, all different; itself where there is none."""
    new: list[int] = []
    for place, z in enumerate(old):
        taken = {z, *new, *_alone(old[place + 1 :], families)}
        free = [int(other) for other in families[z] if other not in taken]
        new.append(int(rng.choice(free)) if free else z)
    # an element that stayed may have been given away before
    return new if len(set(new)) == len(new) else old


def _alone(numbers: Sequence[int], families: dict[int, np.ndarray]) -> list[int]:
    return [z for z in numbers if len(families[z]) == 1]


def _by_electronegativity(numbers: Sequence[int]) -> list[int]:
    chi = np.nan_to_num(elements.column("electronegativity"), nan=9.0)
    return sorted(set(numbers), key=lambda z: (chi[z], z))


def _swapped(crystals: CrystalBatch, swap: np.ndarray) -> CrystalBatch:
    """Replace elements by ``swap`` (n, 119) and scale the cells by the covalent radii."""
    new = torch.as_tensor(np.take_along_axis(swap, crystals.numbers.numpy(), axis=1))
    radius = torch.as_tensor(np.nan_to_num(elements.column("covalent_radius")))
    ratio = radius[new].sum(1) / radius[crystals.numbers].sum(1)
    return CrystalBatch(crystals.lattice * ratio[:, None, None], crystals.frac, new)


def _all_ok(crystals: CrystalBatch) -> Decoded:
    return Decoded(crystals, np.ones(len(crystals), dtype=bool), ("",) * len(crystals))
