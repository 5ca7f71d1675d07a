"""Tables of published crystals (CIF columns, pymatgen dictionaries) to a `CrystalSet`."""

from __future__ import annotations

import gzip
import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError
from .embedded import FormulaTable
from .registry import REGISTRY, RemoteSet
from .splits import SPLITS, split_of
from .store import CrystalSet

if TYPE_CHECKING:
    import pandas as pd

_DROPPED = ("elements", "pretty_formula", "reduced_formula", "chemical_system", "num_sites")


def read_set(entry: RemoteSet, paths: Sequence[Path], split: str | None) -> Any:
    """Read the files of a registry entry; of published parts only the one that is asked for.

    Raises:
        InputError: no crystal can be used, or the files have no part of that name. Rows of a
            published file that cannot be read are left out, with a warning.
    """
    if entry.kind == "json":
        return _read_json(entry, paths[0])
    parts: dict[str, Any] = {path.name.split(".")[0]: path for path in paths}
    if entry.kind == "cif_zip":
        with zipfile.ZipFile(paths[0]) as archive:
            members = {
                Path(name).stem: name for name in archive.namelist() if name.endswith(".csv")
            }
        found = [part for part in SPLITS if part in members]
        parts = {part: zipfile.Path(paths[0], members[part]) for part in found}
    if split is not None and split not in parts:
        raise InputError(f"{entry.name} has no part {split!r}: it has {', '.join(parts)}")
    return _read_csv(entry, parts if split is None else {split: parts[split]})


def read_cif_csv(paths: Mapping[str, Path], *, name: str) -> CrystalSet:
    """Read your own csv files with a column `cif` (one for each split), as MP-20 has them.

    Each split has its path, of a csv file or of one compressed as its suffix says.

    Raises:
        InputError: no column `cif`, a CIF that cannot be read, or partial occupancy.
    """
    entry = RemoteSet(name, "", (), "cif_csv", "", "", columns=REGISTRY["mp_20"].columns)
    return _read_csv(entry, paths)


def _read_csv(entry: RemoteSet, paths: Mapping[str, Any]) -> CrystalSet:
    """Files or members of a zip file, one for each published split, with a column `cif`."""
    import pandas as pd

    tables = []
    for split, path in paths.items():
        source = path.open("rb") if isinstance(path, zipfile.Path) else path
        try:
            part = pd.read_csv(source, low_memory=False, index_col=False, encoding_errors="replace")
        except ValueError as error:  # pandas'
            raise InputError(
                f"{entry.name}, {split}: not readable as a table ({error}): is this the right file?"
            ) from error
        tables.append(part.assign(split=split))
    table = pd.concat(tables, ignore_index=True)
    if "cif" not in table:
        known = ", ".join(map(str, table.columns))
        raise InputError(f"{entry.name}: no column 'cif', only {known}: is this the right file?")
    return _assemble(entry, table, table.pop("cif"))


def _read_json(entry: RemoteSet, path: Path) -> CrystalSet | FormulaTable:
    import pandas as pd

    with gzip.open(path, "rt", encoding="utf-8") as stream:
        raw = json.load(stream)
    table = pd.DataFrame(**raw) if set(raw) == {"data", "columns", "index"} else pd.DataFrame(raw)
    table = table.reset_index(drop=True).drop(columns="initial structure", errors="ignore")
    if "structure" in table:
        return _assemble(entry, table, table.pop("structure"))
    table = table.rename(columns=dict(entry.columns))
    table["split"] = [split_of(formula) for formula in table["formula"]]
    return FormulaTable(entry.name, table)


# ---- structures to flat arrays


def _assemble(entry: RemoteSet, table: pd.DataFrame, source: Iterable[Any]) -> CrystalSet:
    """Parse every structure and put it beside its row."""
    from tqdm import tqdm

    from ..crystals import files  # loads torch, which most data sets do without

    table = table.rename(columns=dict(entry.columns))
    labels = table["entry"] if "entry" in table else range(len(table))
    lattice, frac, numbers, kept, broken = [], [], [], [], []
    rows = zip(labels, source, strict=True)
    bar = tqdm(rows, total=len(table), desc=entry.name, disable=None, leave=False)
    for row, (label, item) in enumerate(bar):
        crystal = files.structure(item)
        if isinstance(crystal, str):
            broken.append(f"entry {label} cannot be read: {crystal}")
            if not entry.files:  # a file of one's own can be repaired, a published one cannot
                raise InputError(f"{entry.name}, {broken[0]}; remove or repair this row")
            continue
        kept.append(row)
        lattice.append(crystal.lattice[0].numpy())
        frac.append(crystal.frac[0].numpy())
        numbers.append(crystal.numbers[0].numpy().astype(np.uint8))
    if not numbers:
        why = f"no row that can be read: {broken[0]}" if broken else "no rows"
        raise InputError(f"{entry.name} has {why}; is the file complete?")
    if broken:
        warnings.warn(f"{entry.name}: {len(broken)} rows left out, {broken[0]}", stacklevel=2)
    columns = _columns(table.iloc[kept].reset_index(drop=True), numbers)
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
