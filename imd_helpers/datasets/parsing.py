"""Tables of published crystals (CIF columns, pymatgen dictionaries) to a `CrystalSet`."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError
from .embedded import FormulaTable
from .registry import RemoteSet
from .splits import SPLITS, split_of
from .store import CrystalSet

if TYPE_CHECKING:
    import pandas as pd

_DROPPED = ("elements", "pretty_formula", "reduced_formula", "chemical_system", "num_sites")


def read_set(entry: RemoteSet, paths: Sequence[Path], split: str | None) -> Any:
    """Read the files of a registry entry.

    Raises:
        InputError: a crystal cannot be used.
    """
    if entry.kind == "json":
        return _read_json(entry, paths[0], split)
    parts = _csv_parts(paths) if entry.kind == "cif_csv" else _zip_parts(paths[0])
    if split is not None and split not in parts:
        raise InputError(f"{entry.name} has no part {split!r}: it has {', '.join(parts)}")
    chosen = parts if split is None else {split: parts[split]}
    return crystals_from_cif({key: read() for key, read in chosen.items()}, entry)


def read_cif_csv(
    paths: Mapping[str, Path], *, name: str, columns: Mapping[str, str] | None = None
) -> CrystalSet:
    """Read your own csv files with a column `cif` (one for each split), as MP-20 has them.

    Args:
        paths: split -> file (csv, or csv compressed as its suffix says).
        name: name of the data set.
        columns: published column names -> the names used here; default: those of MP-20.

    Raises:
        InputError: no column `cif`, or a crystal that cannot be used.
    """
    import pandas as pd

    from .registry import REGISTRY

    renames = REGISTRY["mp_20"].columns if columns is None else columns
    entry = RemoteSet(name, "", (), "cif_csv", "", "", columns=renames)
    tables = {split: pd.read_csv(path, keep_default_na=True) for split, path in paths.items()}
    return crystals_from_cif(tables, entry)


def crystals_from_cif(tables: Mapping[str, pd.DataFrame], entry: RemoteSet) -> CrystalSet:
    """Parse the column `cif` of one table for each published split.

    Raises:
        InputError: no column `cif`, a CIF that cannot be read, or partial occupancy.
    """
    import pandas as pd

    table = pd.concat([part.assign(split=key) for key, part in tables.items()], ignore_index=True)
    if "cif" not in table:
        known = ", ".join(map(str, table.columns))
        raise InputError(f"{entry.name}: no column 'cif', only {known}: is this the right file?")
    return _assemble(entry, table, table.pop("cif"))


def _csv_parts(paths: Sequence[Path]) -> dict[str, Callable[[], pd.DataFrame]]:
    import pandas as pd

    return {path.name.split(".")[0]: lambda path=path: pd.read_csv(path) for path in paths}


def _zip_parts(path: Path) -> dict[str, Callable[[], pd.DataFrame]]:
    """The members ``<folder>/<split>.csv`` of a zip file."""
    import pandas as pd

    with zipfile.ZipFile(path) as archive:
        members = {Path(name).stem: name for name in archive.namelist() if name.endswith(".csv")}

    def read(member: str) -> pd.DataFrame:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            return pd.read_csv(stream, low_memory=False)

    found = [split for split in SPLITS if split in members]
    return {split: lambda member=members[split]: read(member) for split in found}


def _read_json(entry: RemoteSet, path: Path, split: str | None) -> CrystalSet | FormulaTable:
    import pandas as pd

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        raw = json.load(stream)
    table = pd.DataFrame(**raw) if set(raw) == {"data", "columns", "index"} else pd.DataFrame(raw)
    table = table.reset_index(drop=True).drop(columns="initial structure", errors="ignore")
    if "structure" in table:
        data = _assemble(entry, table, table.pop("structure"))
        return data if split is None else data.select(split=split)
    table = table.rename(columns=dict(entry.columns))
    table["split"] = [split_of(formula) for formula in table["formula"]]
    if split is not None:
        table = table[table["split"] == split].reset_index(drop=True)
    return FormulaTable(entry.name, table)


# ---- structures to flat arrays


def _assemble(entry: RemoteSet, table: pd.DataFrame, source: Iterable[Any]) -> CrystalSet:
    """Parse every structure and put it beside its row."""
    from tqdm import tqdm

    from ..crystals import files  # loads torch, which most data sets can do without

    table = table.rename(columns=dict(entry.columns))
    labels = table["entry"] if "entry" in table else range(len(table))
    lattice, frac, numbers = [], [], []
    rows = zip(labels, source, strict=True)
    for label, item in tqdm(rows, total=len(table), desc=entry.name, disable=None, leave=False):
        crystal = files.structure(item)
        if isinstance(crystal, str):
            raise InputError(
                f"{entry.name}, entry {label} cannot be read: {crystal}; remove or repair this row"
            )
        lattice.append(crystal.lattice[0].numpy())
        frac.append(crystal.frac[0].numpy())
        numbers.append(crystal.numbers[0].numpy().astype(np.uint8))
    if not numbers:
        raise InputError(f"{entry.name} has no rows: is the file complete?")
    columns = _columns(table, numbers)
    flat = (np.array(lattice), np.concatenate(numbers), np.concatenate(frac))
    return CrystalSet.from_flat(entry.name, columns, *flat)


def _columns(table: pd.DataFrame, numbers: Sequence[np.ndarray]) -> pd.DataFrame:
    """The published properties, with formula, size and split computed here."""
    from ..crystals import compositions, elements

    n_sites = [len(z) for z in numbers]
    counts = np.zeros((len(numbers), elements.N_COLUMNS), dtype=np.int16)
    np.add.at(counts, (np.repeat(np.arange(len(numbers)), n_sites), np.concatenate(numbers)), 1)
    formulas = compositions.formulas(counts)
    mine = ("formula", "n_sites", "n_elements", "formula_split")
    drop = [
        key
        for key in table
        if key in (*mine, *_DROPPED) or str(key).startswith("Unnamed")  # a stray row number
    ]
    out = table.drop(columns=drop)
    out.insert(0, "formula", formulas)
    out.insert(1, "n_sites", n_sites)
    sides = {formula: split_of(formula) for formula in set(formulas)}
    own = "formula_split" if "split" in out else "split"
    return out.assign(**{own: [sides[formula] for formula in formulas]})
