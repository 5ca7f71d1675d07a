"""Known crystals as templates, and the two plainest baselines: copies, and swaps in a column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.samples import Samples
from ..crystals.wyckoff import Occupation, occupations
from ..runtime import InputError, lookup, whole

ALL = np.arange(elements.N_COLUMNS)  # elements; index = atomic number


@dataclass(frozen=True, eq=False)
class Templates:
    """Known crystals in standard conventional cells, with their space groups."""

    crystals: CrystalBatch
    space_group: np.ndarray  # (n,) ITA numbers

    @classmethod
    def of(cls, crystals: CrystalBatch) -> Templates:
        """Standardise crystals; those whose symmetry is not found are left out.

        Raises:
            InputError: no crystal is left.
        """
        found = [orbit for orbit in symmetry.orbits(crystals) if orbit is not None]
        if not found:
            raise InputError(f"no space group found in {len(crystals)} crystals: give others")
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

    def choose(
        self, n: int, condition: Mapping[str, Any], rng: np.random.Generator, *, keep: Any = True
    ) -> np.ndarray:
        """(n,) rows, drawn with replacement from those to ``keep`` of the space group asked for.

        Raises:
            InputError: there are none.
        """
        keep = keep & np.ones(len(self), dtype=bool)
        if "space_group" in condition:
            keep &= self.space_group == condition["space_group"]
        if not keep.any():
            raise InputError(
                f"none of {len(self)} known crystals satisfies {condition}: this baseline only "
                "varies these, so ask for a space group and elements that they allow"
            )
        return rng.choice(np.flatnonzero(keep), size=n)

    def refilled(
        self, rows: np.ndarray, swap: np.ndarray, size: np.ndarray, *, power: float
    ) -> Samples:
        """Some crystals with other elements in their places, and cells scaled to the new atoms.

        Args:
            rows: (n,) which.
            swap: (n, 119) what becomes of each element.
            size: (119,) radii or volumes of the elements; their sums over all atoms are compared.
            power: of the ratio of the sums, for the edges: 1 for radii, 1/3 for volumes.
        """
        old, each = self.crystals[rows], torch.as_tensor(size)
        new = torch.as_tensor(np.take_along_axis(swap, old.numbers.numpy(), axis=1))
        ratio = (each[new].sum(1) / each[old.numbers].sum(1)) ** power  # (n,)
        crystals = CrystalBatch(old.lattice * ratio[:, None, None], old.frac, new)
        return Samples.of(crystals, asked={"space_group": self.space_group[rows]})


class Baseline(ABC):
    """What the baselines that make crystals share.

    Args:
        training: the crystals that a model would train on, as `Templates` or any `CrystalBatch`.
    """

    conditions: ClassVar[tuple[str, ...]] = ("space_group", "elements")  # that `sample` takes

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
        rng = np.random.default_rng(whole("seed", seed))
        return self._draw(whole("n", n, least=1), condition or {}, rng)

    @abstractmethod
    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples: ...


class TrainingCopies(Baseline):
    """Copies of training crystals, drawn with replacement: valid, stable, and never novel."""

    def _draw(self, n: int, condition: Mapping[str, Any], rng: np.random.Generator) -> Samples:
        known, wanted = self.training, elements_of(condition)
        keep = wanted is None or (known.present == np.isin(ALL, wanted)).all(1)
        rows = known.choose(n, condition, rng, keep=keep)
        return Samples.of(known.crystals[rows], asked={"space_group": known.space_group[rows]})


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
        place = elements.by_electronegativity().item
        wanted = sorted(set(elements_of(condition) or ()), key=place)
        keep = not wanted or present.sum(1) == len(wanted)
        rows = self.training.choose(n, condition, rng, keep=keep)
        family = elements.families()
        relatives = {int(z): known[family[known] == family[z]] for z in known}
        swap = np.zeros((n, elements.N_COLUMNS), dtype=np.int64)
        for i, row in enumerate(rows):
            old = sorted(np.flatnonzero(present[row]).tolist(), key=place)
            swap[i, old] = wanted or _others(old, relatives, rng)
        radius = np.nan_to_num(elements.column("covalent_radius"))
        return self.training.refilled(rows, swap, radius, power=1)


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


def elements_of(condition: Mapping[str, Any]) -> list[int] | None:
    """Atomic numbers of the elements that a condition asks for; None if it asks for none."""
    symbols = condition.get("elements")
    return None if symbols is None else [elements.number(symbol) for symbol in symbols]
