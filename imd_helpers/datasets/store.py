"""`CrystalSet`: crystals of any size in flat arrays, with one table row of properties each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError, lookup, whole
from .splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

    from ..crystals import CrystalBatch

FRAC_STEPS = 65_536  # uint16 fractional coordinates count steps of 1/65536 of a cell edge


@dataclass(frozen=True, eq=False, repr=False)
class CrystalSet:
    """Crystals in flat arrays and a table; selections share the arrays and are cheap."""

    name: str  # name of the data set
    # one row a crystal; `formula`, `space_group`, `n_sites`, `n_elements`, `split`, and the
    # properties that the card names (energies in eV/atom, gaps in eV)
    table: pd.DataFrame
    lattice: np.ndarray  # (crystals, 3, 3) float64 Å, rows are a, b, c
    starts: np.ndarray  # (crystals,) where the sites of each crystal begin in the flat arrays
    flat_numbers: np.ndarray  # (all sites,) atomic numbers
    # (all sites, 3) fractional coordinates, float64, or uint16 steps of 1/65536
    flat_frac: np.ndarray

    @classmethod
    def from_flat(
        cls,
        name: str,
        table: pd.DataFrame,
        lattice: np.ndarray,
        flat_numbers: np.ndarray,
        flat_frac: np.ndarray,
    ) -> CrystalSet:
        """Build a set from flat arrays in the order of a table that has `n_sites`.

        Adds the column `n_elements` beside `n_sites`.
        """
        n_sites = table["n_sites"].to_numpy(np.int64)
        data = cls(name, table, lattice, np.cumsum(n_sites) - n_sites, flat_numbers, flat_frac)
        table.insert(table.columns.get_loc("n_sites") + 1, "n_elements", data._has_element.sum(1))
        for array in (lattice, flat_numbers, flat_frac):
            array.setflags(write=False)
        return data

    # ---- arrays of the crystals that are in this set

    @cached_property
    def n_sites(self) -> np.ndarray:
        """(crystals,) int64 number of sites."""
        return self.table["n_sites"].to_numpy(np.int64)

    @cached_property
    def numbers(self) -> np.ndarray:
        """(sites of this set,) int64 atomic numbers, crystal after crystal."""
        return self.flat_numbers[self._sites].astype(np.int64)

    @cached_property
    def frac(self) -> np.ndarray:
        """(sites of this set, 3) float64 fractional coordinates in [0, 1)."""
        frac = self.flat_frac[self._sites]
        return frac / FRAC_STEPS if frac.dtype == np.uint16 else frac

    @cached_property
    def offsets(self) -> np.ndarray:
        """(crystals + 1,) crystal i owns rows ``offsets[i]:offsets[i + 1]`` of numbers and frac."""
        return np.concatenate([[0], np.cumsum(self.n_sites)])

    @cached_property
    def _sites(self) -> np.ndarray:
        shift = np.repeat(self.starts - self.offsets[:-1], self.n_sites)
        return shift + np.arange(self.offsets[-1])

    @cached_property
    def _has_element(self) -> np.ndarray:
        """(crystals, 119) bool, column = atomic number."""
        has = np.zeros((len(self), 119), bool)
        has[np.repeat(np.arange(len(self)), self.n_sites), self.numbers] = True
        return has

    # ---- the set as a sequence

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> CrystalSet:
        """Pick by an integer (a set of one), a slice, integer indices or a boolean mask."""
        if isinstance(index, int | np.integer):
            index = [range(len(self))[index]]  # raises IndexError, resolves negative indices
        rows = np.arange(len(self))[index if isinstance(index, slice) else _array(index)]
        table = self.table.iloc[rows].reset_index(drop=True)
        arrays = (self.lattice[rows], self.starts[rows], self.flat_numbers, self.flat_frac)
        return CrystalSet(self.name, table, *arrays)

    def __iter__(self) -> Iterator[CrystalSet]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        formulas = self.table["formula"]
        summary = f"{self.name}: {len(self):,} crystals of {formulas.nunique():,} formulas"
        if len(self) == 0:
            return summary
        names = ", ".join(formulas.head(3)) + (", …" if len(self) > 3 else "")
        return f"{summary}, {self.n_sites.min()}–{self.n_sites.max()} sites: {names}"

    # ---- selection

    def select(
        self,
        *,
        elements: str | Iterable[str] | None = None,
        nelements: int | Iterable[int] | None = None,
        space_groups: int | Iterable[int] | None = None,
        max_sites: int | None = None,
        formulas: str | Iterable[str] | None = None,
        split: str | Iterable[str] | None = None,
    ) -> CrystalSet:
        """Return the crystals that meet every condition; an empty set is allowed.

        By a property: a mask of the table, e.g. ``data[data.table["band_gap"] > 1.0]``.

        Args:
            elements: symbols that a crystal must all contain, e.g. ``["Bi", "Se"]`` or ``"Bi-Se"``;
                add ``nelements=2`` for crystals of these two alone.
            nelements: how many different elements.
            space_groups: numbers 1..230.
            max_sites: most sites in the cell.
            formulas: in any spelling, e.g. ``"TiO2"`` or ``"Ti4O8"``.
            split: ``train``, ``val`` or ``test``.

        Raises:
            UnknownNameError: no such element or split.
            InputError: numbers that are not whole, a space group outside 1..230, a string that is
                not a formula, or a property that this data set lacks.
        """
        keep = np.ones(len(self), bool)
        if elements is not None:
            keep &= self._has_element[:, _atomic_numbers(elements)].all(1)
        if max_sites is not None:
            keep &= self.n_sites <= whole("max_sites", max_sites, least=1)
        keep &= self._among("n_elements", nelements, partial(whole, "nelements", least=1))
        keep &= self._among(
            "space_group", space_groups, partial(whole, "space_groups", least=1, most=230)
        )
        keep &= self._among("formula", formulas, _formula)
        keep &= self._among("split", split, lambda name: lookup("split", name, SPLITS))
        return self[keep]

    def _among(self, name: str, values: Any, read: Callable[[Any], Any]) -> np.ndarray | bool:
        if values is None:
            return True
        wanted = [read(value) for value in ([values] if np.isscalar(values) else values)]
        if name not in self.table:
            known = ", ".join(self.table.columns)
            raise InputError(
                f"{self.name} has no column {name!r} to select by: its columns are {known}"
            )
        return self.table[name].isin(wanted).to_numpy()

    # ---- other forms of the same crystals

    @cached_property
    def crystals(self) -> CrystalBatch:
        """All crystals as one padded `CrystalBatch`.

        Memory grows as crystals times the largest cell: select by `max_sites` first.

        Raises:
            InputError: the set is empty.
        """
        from ..crystals import CrystalBatch

        if len(self) == 0:
            raise InputError(
                f"this selection of {self.name} is empty, and a CrystalBatch needs at least one "
                "crystal: loosen the conditions given to select()"
            )
        lattice = self.lattice.copy()  # the batch may be written to, this set may not
        return CrystalBatch.from_ragged(lattice, self.frac, self.numbers, self.n_sites)

    def structures(self) -> list[Structure]:
        """All crystals as pymatgen structures (slow: for the border, not for loops)."""
        return self.crystals.structures() if len(self) else []


def _array(index: Any) -> np.ndarray:
    array = np.asarray(index)
    return array.astype(np.int64) if array.size == 0 and array.dtype != bool else array


def _atomic_numbers(symbols: str | Iterable[str]) -> list[int]:
    from ..crystals.elements import number

    listed = symbols.split("-") if isinstance(symbols, str) else symbols
    return [number(symbol) for symbol in listed]


def _formula(formula: str) -> str:
    """As the tables write it."""
    from ..crystals.compositions import integer_amounts
    from ..crystals.elements import reduced_formula

    return reduced_formula(integer_amounts(formula))
