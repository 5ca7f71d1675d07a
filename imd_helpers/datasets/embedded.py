"""Readers of the data sets that travel inside the package; cards: `data/<name>/README.md`."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..runtime import InputError, data_path, lookup
from .splits import SPLITS
from .store import CrystalSet

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure

MAX_CREDIBLE_GAP = 10.0  # eV; OQMD has seven larger values, all of He, Ne and CF4
SITE_TOLERANCES = (1e-3, 5e-3, 1e-2, 2e-2, 5e-2)  # fractional, tried in turn on each CIF
# Name, space group, and the three orbits in quarters of the cell.
CUBIC_PROTOTYPES = (
    ("half-Heusler", 216, ((0, 0, 0), (2, 2, 2), (1, 1, 1))),  # the third touches both others
    ("Heusler", 225, ((1, 1, 1), (0, 0, 0), (2, 2, 2))),  # the first comes twice
    ("perovskite", 221, ((0, 0, 0), (2, 2, 2), (2, 2, 0))),  # A, B and X, which comes three times
)
_ZEOLITE_NAMES = {
    "spacegroup": "space_group",
    "isinterrupted": "is_interrupted",
    "isdisordered": "is_disordered",
    "lcd": "largest_cavity_diameter",
    "pld": "pore_limiting_diameter",
}


def load_oqmd_icsd() -> CrystalSet:
    """The 32,159 OQMD structures of ICSD materials."""
    import pandas as pd

    raw = _arrays("oqmd_icsd")
    n_sites = raw["n_sites"].astype(np.int64)
    gap = raw["band_gap"].astype(np.float64)
    table = pd.DataFrame(
        {
            "formula": _text(raw["formula"]),
            "formation_energy": raw["formation_energy"].astype(np.float64),
            "energy_above_hull": np.maximum(0.0, raw["stability"].astype(np.float64)),
            "band_gap": np.where(gap > MAX_CREDIBLE_GAP, np.nan, gap),
            "space_group": raw["space_group"].astype(np.int64),
            "prototype": _text(raw["prototype"]),
            "n_sites": n_sites,
            "split": np.array(SPLITS, object)[raw["split"]],
            "entry": raw["entry"].astype(np.int64),
        }
    )
    lattice = raw["lattice"].astype(np.float64)
    return CrystalSet.from_flat("oqmd_icsd", table, lattice, raw["numbers"], raw["frac"])


def load_cubic_prototypes() -> CrystalSet:
    """Half-Heuslers, Heuslers and perovskites filled with elements, energies by CHGNet."""
    import pandas as pd

    raw = _arrays("cubic_prototypes")
    kind, numbers = raw["prototype"].astype(np.int64), raw["numbers"].astype(np.int64)
    length = raw["length"] / 1e4
    lattice = length[:, None, None] * np.eye(3)
    flat_numbers, flat_frac, n_sites = _fill(kind, numbers)
    table = pd.DataFrame(
        {
            "formula": compound_formulas(kind, numbers),
            "formation_energy": raw["formation_energy"] / 1e4,
            "bulk_modulus": raw["bulk_modulus"] / 10.0,
            "space_group": np.array([group for _, group, _ in CUBIC_PROTOTYPES])[kind],
            "prototype": np.array([name for name, _, _ in CUBIC_PROTOTYPES], object)[kind],
            "n_sites": n_sites,
            "split": np.array(SPLITS, object)[raw["split"]],
            "entry": np.arange(len(kind)),
        }
    )
    return CrystalSet.from_flat("cubic_prototypes", table, lattice, flat_numbers, flat_frac)


def _fill(kind: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat atomic numbers and coordinates of all compounds, and their numbers of sites."""
    from ..crystals import symmetry

    cells = []
    for _, group, orbits in CUBIC_PROTOTYPES:
        one, _ = symmetry.expand(
            np.array([group]), np.eye(3)[None], np.array([orbits]) / 4, np.array([[1, 2, 3]])
        )
        cells.append((one.frac[0].numpy(), one.numbers[0].numpy() - 1))  # which orbit a site is of
    frac, owner = zip(*cells, strict=True)
    flat_numbers = np.concatenate([z[owner[k]] for k, z in zip(kind, numbers, strict=True)])
    flat_frac = np.concatenate([frac[k] for k in kind])
    return flat_numbers, flat_frac, np.array([len(each) for each in owner])[kind]


def load_substituted(name: str, *parts: str) -> CrystalSet:
    """Real prototypes filled with a few elements and relaxed, from one file for each part."""
    import pandas as pd

    from ..crystals.elements import reduced_formula

    read = [_arrays(name, part) for part in parts or (name,)]
    raw = {key: np.concatenate([each[key] for each in read]) for key in read[0]}
    kept = raw["kept"]
    of_site = np.repeat(kept, raw["n_sites"])
    parents = load_oqmd_icsd().table.iloc[raw["parent"][kept]]
    n_sites = raw["n_sites"][kept].astype(np.int64)
    formed = raw["formation_energy"][kept].astype(np.float64)
    numbers = raw["numbers"][of_site]
    cells = np.split(numbers, np.cumsum(n_sites)[:-1])
    table = pd.DataFrame(
        {
            "formula": [reduced_formula(Counter(cell.tolist())) for cell in cells],
            "formation_energy": formed.mean(1),
            "disagreement": np.abs(formed[:, 0] - formed[:, 1]),
            "space_group": raw["space_group"][kept].astype(np.int64),
            "prototype": parents["prototype"].to_numpy(),
            "n_sites": n_sites,
            "split": np.array(SPLITS, object)[raw["split"][kept]],
            "entry": parents["entry"].to_numpy(),
        }
    )
    lattice = raw["lattice"][kept].astype(np.float64)
    return CrystalSet.from_flat(name, table, lattice, numbers, raw["frac"][of_site])


def compound_formulas(kind: np.ndarray, numbers: np.ndarray) -> list[str]:
    """Reduced formulas of prototypes (index in `CUBIC_PROTOTYPES`) filled with (n, 3) elements."""
    from ..crystals.elements import reduced_formula

    counts = [(1, 1, 1), (2, 1, 1), (1, 1, 3)]
    return [
        reduced_formula(dict(zip(z, counts[k], strict=True)))
        for k, z in zip(kind.tolist(), numbers.tolist(), strict=True)
    ]


def _arrays(name: str, part: str = "") -> dict[str, np.ndarray]:
    with np.load(data_path(name, f"{part or name}.npz"), allow_pickle=False) as file:
        return dict(file)


def _text(column: np.ndarray) -> np.ndarray:
    return np.array([value.decode() for value in column.tolist()], object)


@dataclass(frozen=True, eq=False, repr=False)
class FormulaTable:
    """Formulas with one or two properties."""

    name: str  # name of the data set
    table: pd.DataFrame  # `formula` (reduced), the properties that the card names, and `split`

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        columns = ", ".join(self.table.columns)
        return f"{self.name}: {len(self):,} rows of {columns}"

    def select(self, *, split: str) -> FormulaTable:
        """The rows of one split."""
        rows = self.table["split"] == split
        return FormulaTable(self.name, self.table[rows].reset_index(drop=True))


def load_formulas(name: str) -> FormulaTable:
    """One of the tables of formulas, e.g. ``oqmd_formulas``."""
    import pandas as pd

    # Sodium nitride is NaN, and indium fluoride InF: only an empty field is a missing number.
    table = pd.read_csv(
        data_path(name, f"{name}.csv.xz"),
        dtype={"formula": str},
        keep_default_na=False,
        na_values={"band_gap": [""]},
    )
    return FormulaTable(name, table)


@dataclass(frozen=True, eq=False, repr=False)
class Zeolites:
    """Zeolite frameworks of the IZA database, as idealised SiO2."""

    table: pd.DataFrame  # one row a framework; columns and units are on the card
    cifs: dict[str, str]  # CIF text of each framework, by its three-letter code

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        exact = int(self.is_exact_sio2.sum())
        return f"iza_zeolites: {len(self)} frameworks, {exact} of them exactly SiO2"

    def select(self, *, split: str) -> Zeolites:
        """Refused: all frameworks have one formula, so a split by formula cannot divide them."""
        raise InputError(
            f"split={split!r}: all frameworks of iza_zeolites have the formula SiO2, so a split by "
            "formula cannot divide them; load the whole set and divide it by framework code"
        )

    @property
    def is_exact_sio2(self) -> np.ndarray:
        """(frameworks,) bool: two O for each Si, which holds where no framework is interrupted."""
        return ~self.table["is_interrupted"].to_numpy()

    def structures(self, codes: str | Iterable[str] | None = None) -> dict[str, Structure]:
        """Parse frameworks into pymatgen structures by code; default: all that are exactly SiO2.

        A CIF is read with growing `site_tolerance` until the symmetry gives two O for each Si, so
        that atoms near a special position are not counted twice. Takes about 0.03 s each.

        Raises:
            UnknownNameError: no framework of that code.
            InputError: the framework is interrupted, so no tolerance makes it SiO2.
        """
        if codes is None:
            codes = self.table["code"][self.is_exact_sio2]
        listed = [codes] if isinstance(codes, str) else list(codes)
        known = [lookup("zeolite framework", code, self.cifs) for code in listed]
        return {code: _parse_zeolite(code, self.cifs[code]) for code in known}


def load_zeolites() -> Zeolites:
    """The 229 zeolite frameworks."""
    import pandas as pd

    with lzma.open(data_path("iza_zeolites", "iza_zeolites.json.xz"), "rt") as file:
        table = pd.DataFrame(json.load(file)).rename(columns=_ZEOLITE_NAMES)
    cifs = dict(zip(table["code"], table.pop("cif"), strict=True))
    for flag in ("is_interrupted", "is_disordered"):
        table[flag] = table[flag].astype(bool)
    return Zeolites(table, cifs)


def _parse_zeolite(code: str, cif: str) -> Structure:
    import warnings

    from pymatgen.io.cif import CifParser

    found = "no atoms"
    for tolerance in SITE_TOLERANCES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rounding of coordinates, which is what we handle
            try:
                parser = CifParser.from_str(cif, site_tolerance=tolerance)
                structure = parser.parse_structures(primitive=False)[0]
            except ValueError:  # atoms merged into overfull sites: try a larger tolerance
                continue
        amounts = structure.composition.get_el_amt_dict()
        if set(amounts) == {"Si", "O"} and amounts["O"] == 2 * amounts["Si"]:
            return structure
        found = structure.composition.formula
    raise InputError(
        f"zeolite framework {code} does not give SiO2 (found {found}): interrupted frameworks "
        "have T atoms with fewer than four bridges; choose codes where is_exact_sio2 is True"
    )
