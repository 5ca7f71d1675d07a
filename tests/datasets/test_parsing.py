"""Published files of crystals: csv with CIFs, zip of such files, JSON with structures."""

import gzip
import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imd_helpers import datasets
from imd_helpers.datasets import CrystalSet, FormulaTable, read_cif_csv, split_of
from imd_helpers.datasets.registry import REGISTRY, RemoteFile, RemoteSet
from imd_helpers.runtime import InputError, UnknownNameError


@pytest.fixture(scope="module")
def crystals() -> CrystalSet:
    data = datasets.load("oqmd_icsd").select(max_sites=8)
    data = data[data.table["band_gap"] >= 0]
    return data[np.linspace(0, len(data) - 1, 24).astype(int)]


@pytest.fixture(scope="module")
def published(crystals) -> pd.DataFrame:
    """The crystals as a table with the columns of MP-20."""
    table = crystals.table
    return pd.DataFrame(
        {
            "material_id": [f"mp-{entry}" for entry in table["entry"]],
            "formation_energy_per_atom": table["formation_energy"],
            "band_gap": table["band_gap"],
            "pretty_formula": table["formula"],
            "e_above_hull": table["energy_above_hull"],
            "elements": "[]",
            "cif": [each.to(fmt="cif") for each in crystals.structures()],
            "spacegroup.number": table["space_group"],
        }
    )


PARTS = {"train": slice(0, 16), "val": slice(16, 20), "test": slice(20, 24)}


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Put a file into IMD_DATA_DIR and register it under a name of its own."""
    monkeypatch.setenv("IMD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path / "cache"))
    entries = dict(REGISTRY)
    monkeypatch.setattr(datasets, "REGISTRY", entries)

    def register(name, kind, contents: dict[str, bytes], **options):
        files = []
        (tmp_path / name).mkdir()
        for path, content in contents.items():
            (tmp_path / name / path).write_bytes(content)
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            split = Path(path).stem if kind == "cif_csv" else None
            files.append(RemoteFile(path, ("https://127.0.0.1:9/x",), f"git:{digest}", split=split))
        entries[name] = RemoteSet(name, "a test", tuple(files), kind, "none", "none", **options)

    return register


def check_same_crystals(found: CrystalSet, expected: CrystalSet) -> None:
    assert len(found) == len(expected)
    assert found.table["formula"].tolist() == expected.table["formula"].tolist()
    assert found.table["n_sites"].tolist() == expected.table["n_sites"].tolist()
    assert (found.table["space_group"].to_numpy() == expected.table["space_group"]).all()
    volumes = [np.abs(np.linalg.det(data.lattice)) for data in (found, expected)]
    assert np.allclose(*volumes, rtol=1e-4)
    assert sorted(found.numbers.tolist()) == sorted(expected.numbers.tolist())
    found.crystals.validate()


def test_three_csv_files(registered, published, crystals):
    contents = {
        f"{split}.csv": published[rows].to_csv().encode()  # with the stray row numbers of MP-20
        for split, rows in PARTS.items()
    }
    registered("toy_20", "cif_csv", contents, columns=REGISTRY["mp_20"].columns)
    data = datasets.load("toy_20")
    check_same_crystals(data, crystals)
    assert list(data.table) == [
        "formula", "n_sites", "n_elements", "entry", "formation_energy", "band_gap",
        "energy_above_hull", "space_group", "split", "formula_split",
    ]  # fmt: skip
    assert np.allclose(data.table["formation_energy"], crystals.table["formation_energy"])
    assert data.table["split"].tolist() == ["train"] * 16 + ["val"] * 4 + ["test"] * 4
    assert data.table["formula_split"].tolist() == list(map(split_of, data.table["formula"]))
    check_same_crystals(datasets.load("toy_20", split="val"), crystals[PARTS["val"]])
    assert len(data.select(nelements=2)) == len(crystals.select(nelements=2))


def test_only_the_asked_part_is_fetched(registered, published, tmp_path):
    contents = {f"{s}.csv": published[rows].to_csv().encode() for s, rows in PARTS.items()}
    registered("toy_20", "cif_csv", contents, columns=REGISTRY["mp_20"].columns)
    (tmp_path / "toy_20" / "train.csv").write_bytes(b"spoiled")
    assert len(datasets.load("toy_20", split="test")) == 4
    with pytest.raises(datasets.DownloadError, match=r"train\.csv is not the file"):
        datasets.load("toy_20")


def test_a_zip_of_csv_files(registered, published, crystals, tmp_path):
    path = tmp_path / "build.zip"
    renamed = published.rename(
        columns={"band_gap": "dft_band_gap", "e_above_hull": "energy_above_hull"}
    )
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("train", "val"):
            archive.writestr(f"toy/{split}.csv", renamed[PARTS[split]].to_csv(index=False))
        archive.writestr("toy/readme.txt", "hello")
    columns = {**REGISTRY["alex_mp_20"].columns, "spacegroup.number": "space_group"}
    registered("toy_zip", "cif_zip", {"toy.zip": path.read_bytes()}, columns=columns)
    data = datasets.load("toy_zip")
    check_same_crystals(data, crystals[:20])
    assert data.table["band_gap"].tolist() == pytest.approx(
        crystals[:20].table["band_gap"].tolist()
    )
    assert len(datasets.load("toy_zip", split="val")) == 4
    with pytest.raises(InputError, match=r"no part 'test': it has train, val"):
        datasets.load("toy_zip", split="test")


def pack(columns: dict[str, list]) -> bytes:
    rows = list(zip(*columns.values(), strict=True))
    layout = {"columns": list(columns), "index": list(range(len(rows))), "data": rows}
    return gzip.compress(json.dumps(layout, default=float).encode())


def test_json_with_structures(registered, crystals):
    content = pack(
        {
            "structure": [structure.as_dict() for structure in crystals.structures()],
            "e_form": crystals.table["formation_energy"].tolist(),
            "space_group": crystals.table["space_group"].tolist(),
        }
    )
    columns = REGISTRY["matbench_mp_e_form"].columns
    registered("toy_json", "json", {"toy.json.gz": content}, columns=columns)
    data = datasets.load("toy_json")
    check_same_crystals(data, crystals)
    assert np.allclose(data.frac, crystals.frac)  # as given, so the order of sites too
    assert "formation_energy" in data.table
    train = datasets.load("toy_json", split="train")
    assert 0 < len(train) < len(data)
    assert train.table["formula"].map(split_of).eq("train").all()


def test_crystals_with_dates(registered, crystals):
    years = [1990 + i for i in range(len(crystals))]
    content = pack(
        {
            "structure": [structure.as_dict() for structure in crystals.structures()],
            "material_id": [f"mp-{i}" for i in range(len(crystals))],
            "theoretical": [False] * len(crystals),
            "space_group": crystals.table["space_group"].tolist(),  # beside what is published
            "energy_above_hull": crystals.table["energy_above_hull"].tolist(),
            "formation_energy_per_atom": crystals.table["formation_energy"].tolist(),
            "references": [["@article{a, year = {1990}}"]] * len(crystals),
            "discovery": [{"year": year, "authors": ["A"], "num_authors": 1} for year in years],
            "year": years,
        }
    )
    entry = REGISTRY["mpts_52"]
    registered("dated", entry.kind, {"toy.json.gz": content}, columns=entry.columns)
    data = datasets.load("dated")
    check_same_crystals(data, crystals)
    assert data.table["year"].tolist() == years


def test_rows_of_a_published_file_that_cannot_be_read_are_left_out(registered, crystals):
    some = crystals[np.arange(4)]
    structures = [structure.as_dict() for structure in some.structures()]
    half = json.loads(json.dumps(structures[1]))
    half["sites"][0]["species"][0]["occu"] = 0.5
    years = [1990, 1991, None, 1993]
    columns = {"structure": [structures[0], half, structures[2], None], "year": years}
    content = {"toy.json.gz": pack({"material_id": [f"mp-{i}" for i in range(4)], **columns})}
    entry = REGISTRY["mpts_52"]
    registered("dated", entry.kind, content, columns=entry.columns)
    with pytest.warns(UserWarning, match="dated: 2 rows left out, entry mp-1 cannot be read"):
        data = datasets.load("dated")
    assert data.table["entry"].tolist() == ["mp-0", "mp-2"]
    assert data.table["formula"].tolist() == [some.table["formula"].iloc[i] for i in (0, 2)]
    assert data.table["year"][0] == 1990
    assert np.isnan(data.table["year"][1])
    broken = {"structure": [half], "material_id": ["mp-9"]}
    registered("broken", entry.kind, {"toy.json.gz": pack(broken)}, columns=entry.columns)
    with pytest.raises(InputError, match="broken has no row that can be read: entry mp-9"):
        datasets.load("broken")


def test_json_without_structures(registered):
    content = pack({"formula": ["Co2MnSi", "NaN", "Fe3Al"], "e_form": [-0.4, -0.1, -0.2]})
    columns = REGISTRY["heusler_magnetic"].columns
    registered("toy_table", "json", {"toy.json.gz": content}, columns=columns)
    data = datasets.load("toy_table")
    assert isinstance(data, FormulaTable)
    assert list(data.table) == ["formula", "formation_energy", "split"]
    parts = [datasets.load("toy_table", split=split) for split in datasets.SPLITS]
    assert sum(map(len, parts)) == 3


def test_names_include_what_is_registered(registered):
    registered("toy_20", "files", {"a.bin": b"content"})
    assert "toy_20" in datasets.names()
    assert [path.read_bytes() for path in datasets.fetch("toy_20")] == [b"content"]
    with pytest.raises(UnknownNameError, match="nearest first: toy_20"):
        datasets.load("toy_2O")


# ---- what cannot be used

DISORDERED = """data_alloy
_cell_length_a 3.8
_cell_length_b 3.8
_cell_length_c 3.8
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{atoms}
"""


@pytest.mark.parametrize(
    "atoms",
    ["Cu1 Cu 0 0 0 0.5\nAu1 Au 0 0 0 0.5", "Cu1 Cu 0 0 0 0.9", "Cu1 Cu 0 0 0 1\nO1 O .5 .5 .5 .4"],
)
def test_partial_occupancy(tmp_path, published, atoms):
    table = published[:3].copy()
    table.loc[1, "cif"] = DISORDERED.format(atoms=atoms)
    table.to_csv(tmp_path / "own.csv")
    with pytest.raises(
        InputError, match=r"entry mp-\d+ .*partly occupied.*ordered approximant"
    ) as e:
        read_cif_csv({"train": tmp_path / "own.csv"}, name="own")
    assert str(table["material_id"][1]) in str(e.value)


@pytest.mark.parametrize("text", ["", "data_x\n", "not a CIF at all", DISORDERED.format(atoms="")])
def test_a_cif_that_cannot_be_read(tmp_path, published, text):
    table = published[:2].copy()
    table.loc[0, "cif"] = text
    table.to_csv(tmp_path / "own.csv")
    with pytest.raises(InputError, match=r"own, entry mp-.*cannot be read.*repair this row"):
        read_cif_csv({"train": tmp_path / "own.csv"}, name="own")


def test_letters_of_another_encoding_and_rows_too_long(tmp_path, published):
    text = published[:2].assign(by="Müller").to_csv(index=False)
    (tmp_path / "own.csv").write_bytes(text.encode("latin-1"))
    assert len(read_cif_csv({"train": tmp_path / "own.csv"}, name="own")) == 2
    (tmp_path / "own.csv").write_text("id,cif\nx,1,data_x\n")
    with (
        pytest.warns(pd.errors.ParserWarning),
        pytest.raises(InputError, match="entry 0 cannot be read"),
    ):
        read_cif_csv({"train": tmp_path / "own.csv"}, name="own")


def test_a_table_of_something_else(tmp_path):
    pd.DataFrame({"a": [1], "b": [2]}).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(InputError, match=r"no column 'cif', only a, b"):
        read_cif_csv({"train": tmp_path / "own.csv"}, name="own")
    for content in (b"", b"id,cif\n1,2\n1,2,3\n"):
        (tmp_path / "own.csv").write_bytes(content)
        with pytest.raises(InputError, match="not readable as a table"):
            read_cif_csv({"train": tmp_path / "own.csv"}, name="own")
    pd.DataFrame({"cif": []}).to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(InputError, match=r"own has no rows"):
        read_cif_csv({"train": tmp_path / "empty.csv"}, name="own")


# ---- real crystals of the Materials Project, where they are present


def materials_project_files() -> dict[str, Path]:
    folder = Path(os.environ.get("IMD_DATA_DIR", "")) / "mp20_biternary"
    paths = {split: folder / f"{split}.csv.gz" for split in ("val", "test")}
    if "IMD_DATA_DIR" not in os.environ or not all(path.is_file() for path in paths.values()):
        pytest.skip("set IMD_DATA_DIR to a folder with mp20_biternary/{val,test}.csv.gz")
    return paths


def test_real_materials_project_crystals(tmp_path):
    paths = materials_project_files()
    tables = {split: pd.read_csv(path) for split, path in paths.items()}
    assert sum(map(len, tables.values())) == 14_258
    samples = {}
    for split, table in tables.items():
        samples[split] = tmp_path / f"{split}.csv.gz"
        table[:: len(table) // 300].to_csv(samples[split], index=False)
    data = read_cif_csv(samples, name="mp20_biternary")
    assert len(data) > 600
    assert data.table["n_sites"].max() <= 20
    assert data.table["n_elements"].isin([2, 3]).all()
    published = pd.concat([pd.read_csv(path) for path in samples.values()], ignore_index=True)
    assert data.table["formula"].tolist() == published["pretty_formula"].tolist()
    assert (data.table["space_group"] == published["spacegroup.number"]).all()
    crystals = data.crystals.validate()
    assert crystals.formulas() == data.table["formula"].tolist()
    structure = data[0].structures()[0]
    assert structure.matches(structure.__class__.from_str(published["cif"][0], fmt="cif"))
