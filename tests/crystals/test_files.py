"""Files as people have them: what is read, and the reason for what is not."""

import gzip
import time
import warnings
import zipfile

import ase.io
import gemmi
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from scipy.spatial import cKDTree

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, cif, files, geometry
from imd_helpers.runtime import InputError


def cell(a, b=None, c=None, angles=(90, 90, 90)):
    lengths = "".join(f"_cell_length_{k} {v}\n" for k, v in zip("abc", (a, b or a, c or a)))
    names = ("alpha", "beta", "gamma")
    return lengths + "".join(f"_cell_angle_{k} {v}\n" for k, v in zip(names, angles))


def sites(*rows, more=""):
    names = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", *more.split())
    return "loop_\n" + "".join(f"_atom_site_{k}\n" for k in names) + "\n".join(rows) + "\n"


def operators(*triplets):
    return "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{t}'\n" for t in triplets)


def of_group(name):
    return operators(*(op.triplet() for op in gemmi.find_spacegroup_by_name(name).operations()))


HEX, RHOMB = (90, 90, 120), (50, 50, 50)
NAME = "_symmetry_space_group_name_H-M '{}'\n"
SI8, SI0 = sites("Si1 Si .125 .125 .125"), sites("Si1 Si 0 0 0")
BI = sites("Bi Bi .1 .1 .1", "Te Te 0 0 0")
ONE = cell(5) + sites("C1 C 0 0 0")
P63 = of_group("P 63/m m c")
FILLED = "occupancy"
TIMES = "site_symmetry_multiplicity"
LABELS = "loop_\n" + "".join(f"_atom_site_{k}\n" for k in ("label", *(f"fract_{x}" for x in "xyz")))
MOS2 = sites("Mo Mo 0.33 0.67 .25", "S S 0.333 0.667 .621")

CRYSTALS = {
    "origin 2 by name": (cell(5.43) + NAME.format("F d -3 m :2") + SI8, "Si", 8),
    "origin 2, ICSD's Z": (cell(5.43) + NAME.format("F d -3 m Z") + SI8, "Si", 8),
    "origin 1, ICSD's S": (cell(5.43) + NAME.format("FD-3MS") + SI0, "Si", 8),
    "Hall symbol": (cell(5.43) + "_space_group_name_Hall '-F 4vw 2vw 3'\n" + SI8, "Si", 8),
    "number": (cell(5) + "_space_group_IT_number 225\n" + SI0, "Si", 4),
    "origin by formula and Z": (
        cell(5.43) + NAME.format("F d -3 m") + SI8
        + "_chemical_formula_sum Si\n_cell_formula_units_Z 8\n", "Si", 8,
    ),
    "hexagonal axes": (cell(4, 4, 20, HEX) + NAME.format("R -3 m H") + SI0, "Si", 3),
    "rhombohedral axes": (cell(4, angles=RHOMB) + NAME.format("R -3 m :R") + BI, "Bi2Te", 3),
    "axes by the cell": (cell(4, angles=RHOMB) + NAME.format("R -3 m") + BI, "Bi2Te", 3),
    "an underscore": (cell(5, 6, 7, (90, 99, 90)) + NAME.format("P 2_1/c") + SI8, "Si", 4),
    "two and three digits": (cell(3.16, 3.16, 12.29, HEX) + P63 + MOS2, "MoS2", 6),
    "occupancy .": (cell(5) + sites("C1 C 0 0 0 .", more=FILLED), "C", 1),
    "occupancy ?": (cell(5) + sites("C1 C 0 0 0 ?", more=FILLED), "C", 1),
    "occupancy 0.9995": (cell(5) + sites("C1 C 0 0 0 0.9995", more=FILLED), "C", 1),
    "upper case": (ONE.upper().replace("LOOP_", "loop_"), "C", 1),
    "dots in tags": (ONE.replace("_cell_", "_cell.").replace("_site_", "_site."), "C", 1),
    "data_ in a text field": ("_publ_text\n;\nhello\ndata_here\n;\n" + ONE, "C", 1),
    "charges": (cell(5) + sites("A Fe3+ 0 0 0", "B O2- .5 .5 .5"), "FeO", 2),
    "a short label, known by the formula": (
        cell(5) + LABELS + "OW1 0 0 0\n_chemical_formula_sum O\n", "O2", 1),
    "one disorder group": (cell(5) + sites("C1 C 0 0 0 1", more="disorder_group"), "C", 1),
    "no dimensions of modulation": (ONE + "_cell_modulation_dimension 0\n", "C", 1),
    "operators beat a name cut short": (
        cell(5) + of_group("P -1") + NAME.format("P 1") + BI, "Bi2Te", 3),
    "multiplicities that are orders": (
        cell(5) + of_group("P m -3 m") + sites("C1 C 0 0 0 48", more=TIMES), "C", 1),
    "formula of the whole cell": (
        cell(5) + of_group("F m -3 m") + SI0
        + "_chemical_formula_sum Si4\n_cell_formula_units_Z 4\n", "Si", 4,
    ),
}  # fmt: skip

REASONS = {
    "an open setting": (cell(5.43) + NAME.format("F d -3 m") + SI8, "has two settings"),
    "hexagonal operators": (cell(4, angles=RHOMB) + of_group("R -3 m") + BI, "not fit the cell"),
    "hydrogens without a place": (
        cell(5) + sites("C1 C 0 0 0 3", more="attached_hydrogens"), "3 hydrogen atoms"),
    "partly occupied": (cell(5) + sites("C1 C 0 0 0 .5", more=FILLED), "partly occupied"),
    "an isotope": (cell(5) + sites("D1 D 0 0 0"), "an isotope: write H"),
    "a dummy": (cell(5) + sites("Q X 0 0 0"), "no element from H to Og"),
    "a dummy by flag": (cell(5) + sites("C C 0 0 0 dum", more="calc_flag"), "dummy atom"),
    "one place twice": (cell(5) + sites("C C 0 0 0", "N N 1 0 0"), "on one place"),
    "operators that are no group": (
        cell(5) + operators("x,y,z", "-x,-y,z", "-x,y,-z") + SI0, "make a group of 4"),
    "an operator twice": (cell(5) + operators("x,y,z", "x,y,z") + SI0, "make a group of 1"),
    "no identity": (cell(5) + operators("-x,-y,-z") + SI0, "x,y,z too"),
    "operators of reciprocal space": (cell(5) + operators("h,k,l") + SI0, "'h' instead of x"),
    "no centring": (
        cell(5) + of_group("P m m m") + NAME.format("F m m m") + SI0, "group 47, but"),
    "operators of the other hand": (
        cell(5, 5, 7, HEX) + of_group("P 31 2 1") + NAME.format("P 32 2 1") + SI0,
        "group 152, but"),
    "a number of another name": (
        cell(5) + NAME.format("F m -3 m") + "_space_group_IT_number 227\n" + SI0, "group 225, but"),
    "a lattice, and no group": (ONE + "_space_group_crystal_system cubic\n", "crystal_system"),
    "a parent, and no group": (ONE + "_parent_space_group.name_H-M_alt 'P m'\n", "_parent_"),
    "a modulation by its vector": (ONE + "loop_\n_cell_wave_vector_x\n.3\n", "modulated"),
    "another volume": (ONE + "_cell_volume 250\n", "the volume is 250"),
    "a negative edge": (cell(-5) + SI0, "close no cell"),
    "multiplicities without a group": (cell(5) + sites("Na1 Na 0 0 0 4", more=TIMES), "is 4"),
    "two disorder groups": (
        cell(5) + sites("O1 O 0 0 0 1", "O2 O .1 0 0 2", more="disorder_group"), "exclude"),
    "a disorder group and its images": (
        cell(5) + sites("O1 O .1 0 0 -1", more="disorder_group"), "exclude"),
    **{f"the type {t}": (cell(5) + sites(f"M {t} 0 0 0"), "no element from H")
       for t in ("Fe/Ni", "'Mg, Fe'", "H2O", "NH4+", "Fe0.5Ni0.5", "13C")},
    **{f"the label {t}": (cell(5) + LABELS + f"{t} 0 0 0\n", "or no atom")
       for t in ("Wat1", "OH1", "Vac", "Si,Al", "H2O", "CA", "Cg1")},
    "an operator that is none": (cell(5) + operators("x,y,z", "x,y") + SI0, "not readable"),
    "one operator, a rich group": (
        cell(5) + operators("x,y,z") + NAME.format("F d -3 m") + SI8, "group 1, but"),
    "an unknown group": (cell(5) + NAME.format("F q -3 m") + SI8, "no space group is called"),
    "Z that does not fit": (
        ONE + "_chemical_formula_sum C\n_cell_formula_units_Z 8\n", "give C1 in the cell"),
    "another formula": (ONE + "_chemical_formula_sum 'C O2'\n", "but the formula is C O2"),
    "magnetic operators": (
        ONE + "loop_\n_space_group_symop_magn_operation.xyz\n x,y,z,+1\n", "symop_magn"),
    "a modulated one": (ONE + "_cell_modulation_dimension 1\n", "modulated"),
    "a tag twice": (ONE + "_cell_length_a 5\n", "duplicate tag"),
    "an impossible angle": (cell(5, angles=(90, 90, 300)) + SI0, "close no cell"),
    "a flat cell": (cell(5, angles=(120, 120, 120)) + SI0, "close no cell"),
    "half a group": (cell(5) + "_space_group_IT_number 2.5\n" + SI0, "no space group is called"),
    "a huge group": (cell(5) + "_space_group_IT_number 1e30\n" + SI0, "no space group is called"),
    "a group by number, open": (
        cell(5.43) + "_space_group_IT_number 227\n" + SI8, "'227' has two settings"),
    "no number": (cell(5) + sites("C1 C ? 0 0"), "no number"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_cif_is_read(name):
    text, formula, n = CRYSTALS[name]
    (found,) = cif.read("data_x\n" + text)
    assert isinstance(found, CrystalBatch), found
    assert (found.formulas()[0], int(found.n_sites)) == (formula, n)


@pytest.mark.parametrize("name", REASONS)
def test_a_cif_that_is_no_crystal_says_why(name):
    text, why = REASONS[name]
    (found,) = cif.read("data_x\n" + text)
    assert isinstance(found, str)
    assert why in found


def test_a_cif_of_20_000_atoms_is_read_in_seconds():
    n = 27
    grid = np.stack(np.meshgrid(*[np.arange(n) / n] * 3), -1).reshape(-1, 3)
    grid += np.random.default_rng(0).normal(0, 0.002, grid.shape)
    start = time.process_time()
    rows = [f"Na{i} Na {x:.6f} {y:.6f} {z:.6f}" for i, (x, y, z) in enumerate(grid)]
    (found,) = cif.read("data_x\n" + cell(3 * n) + sites(*rows))
    contact, _ = geometry.closest_contact(found)
    assert time.process_time() - start < 15  # all pairs in all images: minutes
    tree = cKDTree(found.frac[0].numpy() % 1.0, boxsize=1.0)
    nearest = tree.query(found.frac[0].numpy(), k=2)[0][:, 1].min() * 3 * n
    assert contact[0] == pytest.approx(nearest, abs=1e-9)


@pytest.mark.parametrize("symprec", [None, 0.01])
def test_the_same_crystals_as_pymatgen(symprec):
    data = imd.datasets.load("oqmd_icsd")
    for structure in data[:: len(data) // 40].structures():
        text = str(CifWriter(structure, symprec=symprec))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = Structure.from_str(text, fmt="cif")
        (found,) = cif.read(text)
        np.testing.assert_allclose(found.lattice[0], expected.lattice.matrix, atol=1e-12)
        assert found.numbers[0].tolist() == [site.specie.Z for site in expected]
        away = found.frac[0].numpy() - expected.frac_coords
        assert np.abs(away - np.round(away)).max() < 2e-4


def test_the_frameworks_of_zeolites():
    data = imd.datasets.load("iza_zeolites")
    for code in data.table["code"][data.is_exact_sio2]:
        (found,) = cif.read(data.cifs[code])
        if code == "OKO":  # words without quotes, which is no CIF
            assert "parse error" in found
        else:
            assert found.formulas() == ["SiO2"], code


# ---- files


GOOD = "data_a\n" + ONE
FRAME = '{n}\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="{pbc}"\n{atoms}\n'
FINE = FRAME.format(n=2, pbc="T T T", atoms="Cs 0 0 0\nCl 2 2 2")


def test_of_three_blocks_the_bad_one_gets_a_reason(tmp_path):
    path = tmp_path / "x.cif"
    path.write_text("\ufeff" + GOOD + "data_b\n" + cell(5) + sites("C1 C 0 0 0 7") + GOOD)
    found = files.read(path)
    assert found.ok.tolist() == [True, False, True]
    assert "Wrong number of values" in found.reasons[1]


BROKEN = {
    "no column of places": (FINE.replace("pos:", "frac:"), "no column pos:R:3"),
    "capital keys": (FINE.replace("pbc=", "PBC=").replace("T T T", "F F F"), "no periodic cell"),
    "another word for no": (FINE.replace("T T T", "no no no"), "no periodic cell"),
    "an atom more than announced": (FINE.replace("2\n", "1\n", 1), "nor one of those"),
    "an isotope": (FINE.replace("Cs", "D"), "not readable as extended XYZ"),
    "an ion": (FINE.replace("Cs", "Mg2+"), "not readable as extended XYZ"),
    "cut short": (FINE.replace("2\n", "9\n", 1), "cut short, 9 atoms"),
    "not periodic": (FINE.replace("T T T", "F F F"), "no periodic cell"),
    "a last ghost": (FINE.replace("Cl", "X"), "atom 2 is X"),
    "a line too many": (FINE + "Cl 1 1 1\n", "no number of atoms"),
    "a number of 5000 digits": ("9" * 5000 + FINE[1:], "is no number"),
    "a first line that is none": ("two" + FINE[1:], "'two' is no number"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_leaves_the_others(name, tmp_path):
    text, why = BROKEN[name]
    (tmp_path / "x.extxyz").write_text(FINE + text + FINE)
    found = files.read(tmp_path / "x.extxyz")
    assert found.ok.tolist() == [True, False, True]
    (reason,) = filter(None, found.reasons)
    assert why in reason
    assert reason.startswith("frame ")


def test_a_group_in_another_block_than_the_atoms_is_told():
    group, crystal = cif.read("data_group\n" + NAME.format("F m -3 m") + "data_x\n" + ONE)
    assert "_cell_length_a" in group
    assert isinstance(crystal, CrystalBatch)


def test_a_broken_frame_takes_no_column_from_the_others(tmp_path):
    told = FINE.replace("pbc=", "decoded_ok=F reason=bad requested_space_group=221 pbc=")
    (tmp_path / "x.extxyz").write_text(told.replace("=F", "=T") + FINE.replace("Cs", "D") + told)
    found = files.read(tmp_path / "x.extxyz")
    assert found.ok.tolist() == [True, False, False]
    assert found.reasons[2] == "bad"
    np.testing.assert_equal(found.asked["space_group"], [221, np.nan, 221])
    ragged = [FINE.replace("pbc=", f'requested_x="{x}" pbc=') for x in ("1 2", "1 2 3")]
    (tmp_path / "x.extxyz").write_text("".join(ragged))
    assert files.read(tmp_path / "x.extxyz").ok.all()


POSCAR = "Na Cl\n{scale}\n4 0 0\n0 4 0\n0 0 4\n{names}{counts}\n{mode}\n0 0 0\n.5 .5 .5\n{more}"
POSCARS = {
    "plain": ({}, ""),
    "VASP 4, names in the title": ({"names": ""}, ""),
    "potentials": ({"names": "Na_pv/0a1b Cl_h\n"}, ""),
    "a volume": ({"scale": "-64"}, ""),
    "velocities": ({"more": "\n0 0 0\n0 0 0\n"}, ""),
    "velocities cut short": ({"more": "\n0 0 0\n"}, ""),
    "velocities of the lattice": ({"more": "Lattice velocities and vectors\n1\n"}, ""),
    "names of nothing": ({"names": "my salt\n"}, "names 'my salt'"),
    "one name for two": ({"names": "NaCl\n"}, "give element symbols, and a count for each"),
    "a count too few": ({"counts": "2"}, "counts '2'"),
    "counts that are none": ({"counts": "1.0 1.0"}, "write whole numbers"),
    "counts of 5000 digits": ({"counts": "1 " + "9" * 5000}, "write whole numbers"),
    "an atom too many": ({"more": ".1 .1 .1\n"}, "more than 1 + 1 atoms"),
    "another crystal behind": ({"more": "Direct configuration= 2\n"}, "more than 1 + 1 atoms"),
    "an atom too few": ({"counts": "1 2"}, "line 11 has no three numbers"),
}


@pytest.mark.parametrize("name", POSCARS)
def test_a_poscar_is_read_or_says_why(name, tmp_path):
    parts, why = POSCARS[name]
    plain = {"scale": "1", "names": "Na Cl\n", "counts": "1 1", "mode": "Direct", "more": ""}
    (tmp_path / "POSCAR").write_text(POSCAR.format(**(plain | parts)))
    Structure(Lattice.cubic(5), ["Na"], [[0, 0, 0]]).to(str(tmp_path / "z.vasp"), fmt="poscar")
    found = files.read(tmp_path)
    assert found.formulas() == ["" if why else "NaCl", "Na"]
    assert why in found.reasons[0]


def test_what_is_written_comes_back(tmp_path):
    crystals = imd.datasets.load("oqmd_icsd")[:3].crystals
    values = {"energy": [1.0, 2.0, 3.0], "magmom": [0.0, 0.1, 0.2], "free_energy": [3.0, 4.0, 5.0]}
    path = files.write(
        tmp_path / "x.extxyz", crystals, decoded_ok=[True, False, True], reason=["", "no x", ""],
        requested_space_group=[1, 2, 3], **values,
    )  # fmt: skip
    found = files.read(path)
    assert found.ok.tolist() == [True, False, True]
    assert found.reasons == ("", "no x", "")
    assert found.asked["space_group"].tolist() == [1, 2, 3]
    frames = [frame.calc.results | frame.info for frame in ase.io.read(path, ":")]
    assert {name: [frame[name] for frame in frames] for name in values} == values


def test_a_folder_a_zip_and_packed_files(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.cif").write_text(GOOD)
    (tmp_path / "c.extxyz.gz").write_bytes(gzip.compress((FINE + FINE).encode()))
    Structure(Lattice.cubic(5), ["Na"], [[0, 0, 0]]).to(str(tmp_path / "POSCAR"), fmt="poscar")
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a 4\n")
    (tmp_path / "notes.txt").write_text("hello")
    found = files.read(tmp_path)
    assert found.formulas() == ["Na", "", "CsCl", "CsCl", "C"]
    assert found.reasons[1].startswith("bad.cif: no structure")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "in" / "b.cif", "deep/b.cif")
        archive.writestr("__MACOSX/b.cif", "junk")
        archive.writestr("folder.cif/", "")
        archive.writestr("inner.zip", "PK")
        archive.writestr("POSCAR_deep.cif", GOOD.replace(" C ", " O "))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("deep/b.cif", GOOD.replace(" C ", " N "))
    files_of_it = [tmp_path / "x.zip", tmp_path / "POSCAR"]
    assert files.read(files_of_it).formulas() == ["O2", "C", "N2", "", "Na"]
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.index(b"deep/b.cif") + 15] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(content)
    assert files.read(tmp_path / "x.zip").ok.tolist() == [True, False, True, False]


def test_tables_of_structures_and_of_formulas(tmp_path):
    rows = "name,CIF\nx," + '"' + GOOD.replace('"', '""') + '"\ny,\n'
    (tmp_path / "x.csv").write_text(rows)
    found = files.read(tmp_path / "x.csv")
    assert found.ok.tolist() == [True, False]
    (tmp_path / "y.csv.gz").write_bytes(
        gzip.compress(b"formula,reason\nNaN,\n,no atoms\nQq,\nNaCl,\n")
    )
    found = files.read(tmp_path / "y.csv.gz")
    assert found.formulas() == ["NaN", "", "", "NaCl"]
    assert found.reasons[1] == "no atoms"
    assert "Qq" in found.reasons[2]
    with pytest.raises(InputError, match="one kind at a time"):
        files.read([tmp_path / "x.csv", tmp_path / "y.csv.gz"])


QUOTED = '"' + GOOD.replace('"', '""') + '"'
TABLES = {
    "semicolons": (f"id;cif\n1;{QUOTED}\n", [""]),
    "tabs, UTF-16": (f"id\tcif\n1\t{QUOTED}\n".encode("utf-16"), [""]),
    "UTF-16 without a mark": (f"cif,id\n{QUOTED},1\n".encode("utf-16-le"), [""]),
    "Latin letters": (f"cif,by\n{QUOTED},Müller\n".encode("latin-1"), [""]),
    "a row too long": (f"id,cif\nx,1,{QUOTED}\n2,{QUOTED}\n", ["more than the 2 fields", ""]),
    "rows too short": (f"id,cif\n1\n2,{QUOTED}\n", ["is it a CIF?", ""]),
    "a quote that never ends": (f'id,cif\n1,{QUOTED}\n2,"data_x\n', ["", "correct the quotes"]),
    "not decoded": (f"cif,decoded_ok\n{QUOTED},False\n{QUOTED},True\n", ["did not decode", ""]),
    "a long cell": (f'id,cif\n1,"{GOOD}#{"x" * 200_000}"\n', [""]),
    "formulas that did not decode": ("formula,decoded_ok\nMgO,F\nNaCl,T\n", ["not decode", ""]),
    "no letters": ("formula\nNa\0Cl\nNaCl\n", ["is not a formula", ""]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_as_people_write_it(name, tmp_path):
    content, reasons = TABLES[name]
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "x.csv").write_bytes(content)
    found = files.read(tmp_path / "x.csv")
    assert found.ok.tolist() == [why == "" for why in reasons]
    assert all(why in told for why, told in zip(reasons, found.reasons, strict=True))
    assert [name != "" for name in found.formulas()] == found.ok.tolist()


def test_an_empty_table_takes_no_formulas_down(tmp_path):
    tables = {"a": "formula\nNaCl\n", "b": "", "c": "formula,requested_x\nMgO,2\n"}
    for name, content in tables.items():
        (tmp_path / f"{name}.csv").write_text(content)
    found = files.read(tmp_path)
    assert found.formulas() == ["NaCl", "", "MgO"]
    assert found.reasons[1].startswith("b.csv: a table of 0 rows")
    assert files.read(tmp_path / "c.csv").asked["x"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pdf", b"", "suffix must be one of"),
        ("x.zip", b"PK nothing", "no zip file"),
        ("x.cif.gz", b"not packed", "cannot be read"),
        ("x.csv", b"a,b\n1,2\n", "columns a, b"),
        ("x.csv", b"Formula,formula\nNaCl,MgO\n", "two columns of the table are called 'formula'"),
        ("x.csv", b"", "a table of 0 rows"),
        ("x.csv", b'"formula\nNaCl\n', "correct the quotes"),
        ("x.extxyz", b"", "empty"),
    ],
)
def test_a_file_of_which_nothing_can_be_read(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        files.read(tmp_path / name)


def test_a_folder_without_crystals(tmp_path):
    with pytest.raises(InputError, match="holds no file of crystals"):
        files.read(tmp_path)


@pytest.mark.parametrize("number", [0, 119, -1, 10**9])
def test_an_atomic_number_of_no_element_is_named(tmp_path, number):
    head = '2\nLattice="4 0 0 0 4 0 0 0 4" Properties=Z:I:1:pos:R:3\n'
    frames = [f"{head}11 0 0 0\n{z} 2 2 2\n" for z in (17, number, 9)]
    path = tmp_path / "some.extxyz"
    path.write_text("".join(frames))
    found = files.read(path)
    assert found.ok.tolist() == [True, False, True]
    assert "frame 2: atom 2 is" in found.reasons[1]
    assert found.crystals.numbers[[0, 2]].tolist() == [[11, 17], [11, 9]]
