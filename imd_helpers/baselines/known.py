"""Known crystals as templates, and the two plainest baselines: copies, and swaps in a column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.samples import Samples, at_least_one
from ..crystals.wyckoff import Occupation, occupations
from ..runtime import InputError, lookup


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
    def of(cls, crystals: CrystalBatch) -> Templates:
        """Standardise crystals; those whose symmetry is not found are left out.

        Raises:
            InputError: no crystal is left.
        """
        found = [orbit for orbit in symmetry.orbits(crystals) if orbit is not None]
        if not found:
            raise InputError(f"moyopy finds a space group in none of {len(crystals)} crystals")
        groups = np.array([orbit.space_group for orbit in found])
        return cls(symmetry.from_orbits(found)[0], groups)

    def __len__(self) -> int:
        return len(self.crystals)

    @cached_property
    def present(self) -> np.ndarray:
        """(n, 119) bool: the crystal holds the element."""
        return self.crystals.counts().numpy() > 0

    @cached_property
    def known(self) -> np.ndarray:
        """Atomic numbers of all elements that occur, rising."""
        return np.flatnonzero(self.present.any(0))

    @cached_property
    def occupations(self) -> list[Occupation]:
        """Which element stands on which Wyckoff positions; 3 ms a crystal, once."""
        return occupations(self.crystals)


class Baseline(ABC):
    """What the baselines that make crystals share.

    Args:
        training: the crystals that a model would train on, as `Templates` or any `CrystalBatch`.

    Attributes:
        conditions: the kinds of condition that `sample` takes.
    """

    conditions: ClassVar[tuple[str, ...]] = ("space_group", "elements")

    def __init__(self, training: Templates | CrystalBatch) -> None:
        self.training = training if isinstance(training, Templates) else Templates.of(training)

    def sample(
        self, n: int, *, condition: Mapping[str, Any] | None = None, seed: int = 0
    ) -> Samples:
        """Draw n crystals; ``asked["space_group"]`` has the space groups that they should have.

        Args:
            n: how many.
            condition: ``{"space_group": 225, "elements": ("Cs", "Pb", "I")}``, either or both;
                random crystals also take ``{"formula": "CsPbI3"}``, see `conditions`.
            seed: of the random choices.

        Raises:
            InputError: n below 1, or a condition that nothing satisfies.
            UnknownNameError: a condition of unknown kind, or an unknown element.
        """
        for name in condition or {}:
            lookup("condition", name, self.conditions)
        return self._draw(at_least_one(n), condition or {}, np.random.default_rng(seed))

    @abstractmethod
    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples: ...

    def _choose(
        self, n: int, keep: np.ndarray, condition: Mapping[str, Any], rng: np.random.Generator
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

    def _made(self, crystals: CrystalBatch, rows: np.ndarray) -> Samples:
        """Crystals that should have the space groups of these rows of the training set."""
        return Samples.of(crystals, asked={"space_group": self.training.space_group[rows]})


class TrainingCopies(Baseline):
    """Copies of training crystals, drawn with replacement: valid, stable, and never novel."""

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        keep = np.ones(len(self.training), dtype=bool)
        wanted = elements_of(condition)
        if wanted is not None:
            keep = (self.training.present == mask_of(wanted)).all(1)
        rows = self._choose(n, keep, condition, rng)
        return self._made(self.training.crystals[rows], rows)


class Substitution(Baseline):
    """Training crystals with every element swapped for another of its group of the periodic table.

    The new elements are drawn from those of the training set, and no two elements become one; an
    element with no other of its group stays. Lanthanides are swapped among themselves, and so are
    actinides. The cell is scaled by the ratio of the sums of covalent radii over all atoms.

    With ``condition={"elements": ...}`` those elements take the places of the template's instead,
    in order of electronegativity.
    """

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        present, known = self.training.present, self.training.known
        keep = np.ones(len(present), dtype=bool)
        wanted = elements_of(condition)
        if wanted is not None:
            wanted = _by_electronegativity(wanted)
            keep = present.sum(1) == len(wanted)
        rows = self._choose(n, keep, condition, rng)
        family = elements.families()
        relatives = {int(z): known[family[known] == family[z]] for z in known}
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for i, row in enumerate(rows):
            old = _by_electronegativity(np.flatnonzero(present[row]).tolist())
            swap[i, old] = wanted or _others(old, relatives, rng)
        radius = np.nan_to_num(elements.column("covalent_radius"))
        crystals = refilled(self.training.crystals[rows], swap, radius)
        return self._made(crystals, rows)


def _others(
    old: list[int], relatives: Mapping[int, np.ndarray], rng: np.random.Generator
) -> list[int]:
    """A different element of its family for each, all different; itself where there is none."""
    new: list[int] = []
    for place, z in enumerate(old):
        stays = [y for y in old[place + 1 :] if len(relatives[y]) == 1]
        free = [int(y) for y in relatives[z] if y not in {z, *new, *stays}]
        new.append(int(rng.choice(free)) if free else z)
    # an element that stayed may have been given away before
    return new if len(set(new)) == len(new) else old


def _by_electronegativity(numbers: Sequence[int]) -> list[int]:
    chi = np.nan_to_num(elements.column("electronegativity"), nan=9.0)
    return sorted(set(numbers), key=lambda z: (chi[z], z))


# ---- what the baselines share


def elements_of(condition: Mapping[str, Any]) -> list[int] | None:
    """Atomic numbers of the elements that a condition asks for; None if it asks for none."""
    symbols = condition.get("elements")
    return None if symbols is None else [elements.number(symbol) for symbol in symbols]


def mask_of(numbers: Sequence[int]) -> np.ndarray:
    """(119,) bool: is it one of these elements?"""
    return np.isin(np.arange(elements.N_COLUMNS), numbers)


def refilled(
    crystals: CrystalBatch, swap: np.ndarray, size: np.ndarray, *, power: float = 1.0
) -> CrystalBatch:
    """Crystals with other elements in their places, and cells scaled to the new atoms.

    Args:
        crystals: n crystals.
        swap: (n, 119) what becomes of each element.
        size: (119,) radii or volumes of the elements; their sums over all atoms are compared.
        power: of the ratio of the sums, for the edges: 1 for radii, 1/3 for volumes.
    """
    old, each = crystals.numbers, torch.as_tensor(size)
    new = torch.as_tensor(np.take_along_axis(swap, old.numpy(), axis=1))
    ratio = (each[new].sum(1) / each[old].sum(1)) ** power  # (n,)
    return CrystalBatch(crystals.lattice * ratio[:, None, None], crystals.frac, new)
