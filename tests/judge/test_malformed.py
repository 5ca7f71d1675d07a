"""Malformed input: a crystal gets a reason and stops nothing; a whole input gets an error.

Every error names the value, the rule and the remedy, in one line.
"""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from fakes import Spring, use_fake_hull

import imd_helpers as imd
from imd_helpers import cli
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.files import read
from imd_helpers.crystals.samples import Samples
from imd_helpers.judge import PROTOCOLS, Report, judge
from imd_helpers.judge.samples import Known
from imd_helpers.runtime import InputError

NAN, INF = float("nan"), float("inf")
SITES = 8
A = 5.64


def batch(lattice=None, frac=None, numbers=None):
    """One crystal, not checked; rock salt where nothing else is said."""
    lattice = A * np.eye(3) if lattice is None else np.array(lattice, float)
    frac = ROCK_SALT if frac is None else np.array(frac, float)
    numbers = [11] * 4 + [17] * 4 if numbers is None else list(numbers)
    padded_frac, padded_numbers = np.zeros((SITES, 3)), np.zeros(SITES, int)
    padded_frac[: len(frac)] = frac
    padded_numbers[: len(numbers)] = numbers
    return CrystalBatch(
        torch.tensor(lattice, dtype=torch.float64)[None],
        torch.tensor(padded_frac, dtype=torch.float64)[None],
        torch.tensor(padded_numbers)[None],
    )


FCC = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
ROCK_SALT = np.r_[FCC, (FCC + 0.5) % 1]
ONE = [[0, 0, 0]]


def changed(where, value, what="frac"):
    array = {"frac": ROCK_SALT.copy(), "lattice": A * np.eye(3)}[what]
    array[where] = value
    return batch(**{what: array})


# Each crystal, and the reason that the protocol `imd` gives; an empty one where it must pass.
CRYSTALS = {
    "NaN in the cell": (changed((0, 0), NAN, "lattice"), "NaN or infinity"),
    "a cell of NaN": (batch(lattice=np.full((3, 3), NAN)), "NaN or infinity"),
    "infinity in the cell": (changed((1, 1), INF, "lattice"), "NaN or infinity"),
    "minus infinity in the cell": (changed((2, 0), -INF, "lattice"), "NaN or infinity"),
    "NaN in a coordinate": (changed((3, 1), NAN), "NaN or infinity"),
    "infinity in a coordinate": (changed((7, 2), INF), "NaN or infinity"),
    "a cell of zeros": (batch(lattice=np.zeros((3, 3))), "lie in one plane"),
    "two equal vectors": (changed(1, [A, 0, 0], "lattice"), "lie in one plane"),
    "three vectors in a plane": (changed(2, [A, A, 0], "lattice"), "lie in one plane"),
    "a vector of length zero": (changed(2, 0.0, "lattice"), "lie in one plane"),
    "a cell flat to 1e-9 Å": (changed((2, 2), 1e-9, "lattice"), "lie in one plane"),
    "a cell flat to 0.01 Å": (changed((2, 2), 0.01, "lattice"), "Å <"),
    "a left-handed cell": (batch(lattice=A * np.eye(3)[[1, 0, 2]]), ""),
    "one negative edge": (batch(lattice=np.diag([-A, A, A])), ""),
    "three negative edges": (batch(lattice=-A * np.eye(3)), ""),
    "coordinates far outside the cell": (batch(frac=ROCK_SALT + [1000, -7, 3]), ""),
    "coordinates of 1e300": (changed((2, 0), 1e300), "Å <"),
    "NaN in the padding": (
        batch(lattice=4.12 * np.eye(3), frac=[[0, 0, 0], [0.5] * 3, [NAN] * 3], numbers=[55, 17]),
        "",
    ),
    "coincident atoms": (changed(1, ROCK_SALT[0]), "0.00 Å <"),
    "atoms that meet across the border": (changed(1, [0.9999999, 0, 0]), "0.00 Å <"),
    "all sites identical": (batch(frac=np.full((8, 3), 0.3)), "0.00 Å <"),
    "all sites at the border": (batch(frac=np.ones((8, 3))), "0.00 Å <"),
    "overlapping images of a skewed cell": (
        batch(lattice=[[3, 0, 0], [2.99, 0.1, 0], [0, 0, 30]], frac=ONE, numbers=[11]),
        "(own image)",
    ),
    "a needle": (batch(lattice=np.diag([0.3, 10, 10]), frac=ONE, numbers=[26]), "(own image)"),
    "one atom in a cube of 0.5 Å": (
        batch(lattice=0.5 * np.eye(3), frac=ONE, numbers=[26]),
        "Fe–Fe 0.50 Å < 1.85 Å (own image)",
    ),
    "edges of 1e-3 Å": (batch(lattice=1e-3 * np.eye(3)), "one plane"),
    "edges of 1e-300 Å": (batch(lattice=1e-300 * np.eye(3)), "one plane"),
    "denormal edges": (batch(lattice=5e-324 * np.eye(3)), "one plane"),
    "edges of 1e6 Å": (batch(lattice=1e6 * np.eye(3)), "volume per atom"),
    "edges of 1e300 Å": (batch(lattice=1e300 * np.eye(3)), "volume per atom"),
    "one edge of 1e6 Å": (changed((2, 2), 1e6, "lattice"), "volume per atom"),
    "an isolated atom": (batch(lattice=30 * np.eye(3), frac=ONE, numbers=[47]), "volume per atom"),
    "an isolated pair": (
        batch(lattice=40 * np.eye(3), frac=[[0, 0, 0], [0.06, 0, 0]], numbers=[11, 17]),
        "volume per atom",
    ),
    "hydrogen as thin as air": (
        batch(lattice=6.4 * np.eye(3), frac=[[0, 0, 0], [0.5] * 3], numbers=[1, 1]),
        "density",
    ),
    "no atoms": (batch(frac=np.zeros((0, 3)), numbers=[]), "no atoms"),
    "padding inside": (batch(numbers=[11, 0, 11, 11, 17, 17, 17, 17]), "padding stands before"),
    "padding at the front": (batch(numbers=[0, 11, 11, 11, 17, 17, 17, 17]), "padding stands"),
    "element 119": (batch(numbers=[119] * 4 + [17] * 4), "atomic number 119"),
    "element 1000000007": (batch(numbers=[10**9 + 7] * 8), "atomic number 1000000007"),
    "element -1": (batch(numbers=[-1] * 4 + [17] * 4), "no element has the atomic number"),
    "charges that cannot balance": (batch(numbers=[11] * 2 + [17] * 6), "oxidation states balance"),
    "a noble gas with a metal": (
        batch(lattice=6 * np.eye(3), numbers=[2] * 4 + [11] * 4),
        "balance",
    ),
    "an element without oxidation states": (batch(numbers=[100] * 4 + [17] * 4), "balance"),
    "the last element": (
        batch(lattice=5 * np.eye(3), frac=FCC, numbers=[118] * 4),
        "",
    ),
    "the same crystal again": (batch(), "same as sample 0"),
    "the same crystal, all sites permuted": (
        batch(frac=ROCK_SALT[::-1], numbers=[17] * 4 + [11] * 4),
        "same as sample 0",
    ),
    "the same crystal from another origin": (
        batch(frac=(ROCK_SALT + 0.123) % 1),
        "same as sample 0",
    ),
    "a known crystal": (
        batch(lattice=4.21 * np.eye(3), numbers=[12] * 4 + [8] * 4),
        "same as reference crystal 0",
    ),
    "did not decode": (batch(), "a wrong shape"),
    "did not decode and does not say why": (batch(), "no reason given"),
    "a requested space group that it has not": (
        batch(lattice=3.2 * np.eye(3), frac=[[0, 0, 0], [0.5] * 3], numbers=[58, 7]),
        "221 found, 225 requested",
    ),
    "no requested space group": (
        batch(lattice=3.3 * np.eye(3), frac=[[0, 0, 0], [0.5] * 3], numbers=[59, 7]),
        "221 found, 0 requested",
    ),
}
SAME = {  # the same crystal as sample 0 in another guise
    "a left-handed cell": "same as sample 0",
    "one negative edge": "same as sample 0",
    "three negative edges": "same as sample 0",
    "coordinates far outside the cell": "same as sample 0",
}
NAMES = list(CRYSTALS)
CRYSTAL_PROTOCOLS = [name for name, each in PROTOCOLS.items() if each.content == "crystals"]
GROUPS = {"NaN in the padding": 221, "no requested space group": NAN}
KNOWN = batch(lattice=4.21 * np.eye(3), numbers=[12] * 4 + [8] * 4)


@pytest.fixture(scope="module")
def all_of_them():
    """Rock salt, and behind it everything that is wrong."""
    crystals = CrystalBatch.cat([batch(), *(crystal for crystal, _ in CRYSTALS.values())])
    ok = np.array([True, *("did not decode" not in name for name in NAMES)])
    why = tuple("a wrong shape" if name == "did not decode" else "" for name in ["", *NAMES])
    return Samples(crystals, ok, why)


@pytest.fixture(scope="module")
def report(all_of_them):
    asked = {"space_group": np.array([225.0, *(GROUPS.get(name, 225) for name in NAMES)])}
    samples = dataclasses.replace(all_of_them, asked=asked)
    return judge(samples, reference=KNOWN, potentials=())


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_crystal_gets_a_reason(report, name):
    expected = SAME.get(name, CRYSTALS[name][1])
    reason = report.reason(1 + NAMES.index(name))
    assert expected in reason
    assert bool(reason) == bool(expected)


def test_there_are_enough_kinds(report):
    assert len(NAMES) >= 50
    assert report.reason(0) == ""
    assert report.n == len(NAMES) + 1
    assert Report.from_json(report.to_json()).reasons == report.reasons


@pytest.mark.parametrize("protocol", CRYSTAL_PROTOCOLS)
def test_no_protocol_stops_at_them(all_of_them, protocol, monkeypatch):
    """The fakes answer in the place of all potentials, of those of the protocol too."""
    use_fake_hull(monkeypatch)
    spring = Spring(volume={"NaCl": A**3 / 8})
    report = judge(
        all_of_them,
        reference=KNOWN,
        protocol=dataclasses.replace(PROTOCOLS[protocol], witnesses=(spring,)),
        potentials=(spring,),
        distributions=False,
    )
    failed = ~report.passed
    assert all(reason for reason, bad in zip(report.reasons, failed, strict=True) if bad)
    assert report.facts["decodes"].sum() == report.n - 2


def test_no_protocol_stops_at_them_without_energies(all_of_them):
    for protocol in CRYSTAL_PROTOCOLS:
        judge(all_of_them, reference=KNOWN, protocol=protocol, potentials=(), distributions=False)


def test_coverage_does_not_stop_at_them(all_of_them, monkeypatch, tmp_path):
    pytest.importorskip("matminer")
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path))
    report = judge(all_of_them, reference=batch(), protocol="cdvae", potentials=())
    assert report["COV-R"].value == 1.0
    assert report["COV-P"].n == report.n
    assert "samples could not be measured" in report["COV-P"].note


def test_everything_wrong_and_nothing_else(all_of_them):
    bad = [i for i, name in enumerate(NAMES, 1) if "NaN or infinity" in CRYSTALS[name][1]]
    report = judge(all_of_them.crystals[np.array(bad)], reference=KNOWN, potentials=())
    assert report.table["passed"].iloc[-1] == 0
    assert all("NaN" in reason for reason in report.reasons)


def test_too_many_atoms_for_a_relaxation(monkeypatch):
    use_fake_hull(monkeypatch)
    imd_protocol = PROTOCOLS["imd"]
    small = dataclasses.replace(imd_protocol.energies, most_atoms=7)
    protocol = dataclasses.replace(imd_protocol, energies=small)
    report = judge(batch(), reference=None, protocol=protocol, potentials=(Spring(),))
    assert report.reason(0) == "relaxed: 8 atoms: more than 7 are not relaxed"


# ---- lists of structures


def structures():
    from pymatgen.core import DummySpecies, Lattice, Structure

    cube = Lattice.cubic(4.12)
    ends = [[0, 0, 0], [0.5, 0.5, 0.5]]
    good = Structure(cube, ["Cs", "Cl"], ends)
    charged = Structure(cube, ["Cs+", "Cl-"], ends)
    return {
        "ordered": (good, ""),
        "with oxidation states": (charged, "same as sample 0"),
        "disordered": (
            Structure(cube, [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]),
            "only ordered, fully occupied sites",
        ),
        "partly occupied": (Structure(cube, [{"Cu": 0.9}], [[0, 0, 0]]), "only ordered"),
        "with a dummy": (Structure(cube, [DummySpecies("X")], [[0, 0, 0]]), "no element"),
        "without sites": (Structure(cube, [], []), "no sites"),
        "None": (None, "no crystal but a NoneType"),
        "a formula": ("CsCl", "no crystal but a str"),
        "a dictionary": (good.as_dict(), "no crystal but a dict"),
    }


def test_structures_that_are_none():
    given = structures()
    report = judge([each for each, _ in given.values()], reference=None, potentials=())
    for i, (name, (_, expected)) in enumerate(given.items()):
        assert expected in report.reason(i), name
        assert bool(report.reason(i)) == bool(expected), name


# ---- whole inputs

GOOD = batch()


def tensors(**parts):
    old = {"lattice": GOOD.lattice, "frac": GOOD.frac, "numbers": GOOD.numbers}
    return CrystalBatch(**{**old, **parts})


WHOLE = {
    "no samples": (lambda: GOOD[:0], "at least one"),
    "an empty list": (lambda: [], "at least one"),
    "a path": (lambda: "crystals.extxyz", "give a CrystalBatch"),
    "a dictionary": (lambda: {"lattice": 1}, "give a CrystalBatch"),
    "None": (lambda: None, "give a CrystalBatch"),
    "a number": (lambda: 7, "give a CrystalBatch"),
    "arrays instead of tensors": (
        lambda: tensors(lattice=GOOD.lattice.numpy()),
        "not a tensor: build batches with",
    ),
    "cells of the wrong shape": (
        lambda: tensors(lattice=GOOD.lattice[:, :2]),
        r"lattice \(1, 2, 3\)",
    ),
    "lengths and angles as cells": (lambda: tensors(lattice=torch.ones(1, 6)), "expected"),
    "a cell too many": (lambda: tensors(lattice=GOOD.lattice.repeat(2, 1, 1)), "expected"),
    "coordinates of the wrong shape": (lambda: tensors(frac=GOOD.frac[..., :2]), "expected"),
    "fewer coordinates than numbers": (lambda: tensors(frac=GOOD.frac[:, :3]), "expected"),
    "one row of numbers": (lambda: tensors(numbers=GOOD.numbers[0]), "expected"),
    "one-hot numbers": (
        lambda: tensors(numbers=torch.nn.functional.one_hot(GOOD.numbers)),
        "expected",
    ),
    "no sites": (
        lambda: tensors(frac=GOOD.frac[:, :0], numbers=GOOD.numbers[:, :0]),
        "at least one site",
    ),
    "real numbers as elements": (lambda: tensors(numbers=GOOD.numbers.double()), "use .long()"),
    "whole numbers as cells": (lambda: tensors(lattice=GOOD.lattice.long()), "use .double()"),
    "complex coordinates": (lambda: tensors(frac=GOOD.frac.cfloat()), "must be Tensor"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_malformed_input_is_an_error(name):
    make, message = WHOLE[name]
    with pytest.raises(InputError, match=message) as caught:
        judge(make(), reference=None, potentials=())
    assert "\n" not in str(caught.value)


def test_single_precision_is_no_error():
    low = CrystalBatch(GOOD.lattice.float(), GOOD.frac.float(), GOOD.numbers.int())
    report = judge(low, reference=None, potentials=())
    assert report.passed.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "oqmd"}, "nearest first: oqmd_icsd"),
        ({"reference": "oqmd_formulas"}, "holds no crystals: give a CrystalBatch"),
        ({"reference": GOOD[:0]}, "holds no crystals: give at least one"),
        ({"reference": tensors(lattice=GOOD.lattice * NAN)}, "none of the 1 crystals"),
        ({"reference": [1, 2]}, "a list, which holds no crystals"),
        ({"training": 3}, "holds no crystals"),
        ({"protocol": "imdb"}, "nearest first: imd"),
        ({"protocol": 7}, "must be str"),
        ({"potentials": ("mace",)}, "unknown potential"),
    ],
)
def test_malformed_options(options, message):
    two = CrystalBatch.cat([GOOD, GOOD])
    with pytest.raises(InputError, match=message):
        judge(two, **{"reference": None, "potentials": (), **options})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (np.array([[225, 225], [225, 225]]), "one number for each sample"),
        (np.array(["Fm-3m", "P1"]), "not numbers"),
    ],
)
def test_malformed_space_groups(asked, message):
    two = Samples.of(CrystalBatch.cat([GOOD, GOOD]), asked={"space_group": asked})
    with pytest.raises(InputError, match=message):
        judge(two, potentials=())


def test_an_empty_selection_is_no_reference():
    none = imd.datasets.load("oqmd_icsd").select(elements="Xe", nelements=9)
    with pytest.raises(InputError, match="holds no crystals"):
        Known(none)


# ---- files

FRAME = '{n}\nLattice="{cell}" Properties=species:S:1:pos:R:3 pbc="T T T"\n{atoms}\n'
CUBE = "4.12 0 0 0 4.12 0 0 0 4.12"
ATOMS = "Cs 0 0 0\nCl 2.06 2.06 2.06"
GOOD_FRAME = FRAME.format(n=2, cell=CUBE, atoms=ATOMS)

FRAMES = {
    "no cell": ("2\n\n" + ATOMS + "\n", "no periodic cell"),
    "a flat cell": (FRAME.format(n=2, cell="4 0 0 0 4 0 0 0 0", atoms=ATOMS), "no periodic cell"),
    "NaN in the cell": (FRAME.format(n=2, cell="nan 0 0 0 4 0 0 0 4", atoms=ATOMS), "NaN"),
    "NaN in a position": (FRAME.format(n=1, cell=CUBE, atoms="Cs nan 0 0"), "NaN"),
    "a ghost atom": (FRAME.format(n=2, cell=CUBE, atoms="X 0 0 0\nCl 2 2 2"), "atom 1 is X"),
    "atoms on each other": (FRAME.format(n=2, cell=CUBE, atoms="Cs 0 0 0\nCl 0 0 0"), "Å <"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_malformed_frame_gets_a_reason(name, tmp_path):
    frame, expected = FRAMES[name]
    path = tmp_path / "x.extxyz"
    path.write_text(GOOD_FRAME + frame)
    report = judge(read(path), reference=None, potentials=())
    assert report.reason(0) == ""
    assert expected in report.reason(1)


CIF = """data_x
_cell_length_a 4.12
_cell_length_b 4.12
_cell_length_c 4.12
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
"""
FILES = {
    "missing": ("x.extxyz", None, "no file"),
    "another suffix": ("x.pdf", "text", "suffix must be one of"),
    "no suffix": ("crystals", "text", "suffix must be one of"),
    "empty": ("x.extxyz", "", "x.extxyz"),
    "words": ("x.extxyz", "these are no crystals\nat all\n", "not readable as extended XYZ"),
    "bytes": ("x.extxyz", b"\x00\xff\xfe\x89PNG", "not readable as extended XYZ"),
    "cut off": ("x.extxyz", GOOD_FRAME.replace("2\n", "9\n", 1), "not readable as extended XYZ"),
    "an unknown element": ("x.extxyz", GOOD_FRAME.replace("Cs", "Qq"), "not readable"),
    "a missing column": (
        "x.extxyz",
        GOOD_FRAME.replace("Cs 0 0 0", "Cs 0 0"),
        "not readable as extended XYZ",
    ),
    "words for coordinates": ("x.extxyz", GOOD_FRAME.replace("Cs 0", "Cs a"), "not readable"),
    "an empty CIF": ("x.cif", "", "no structure"),
    "words as CIF": ("x.cif", "these are no crystals\n", "no structure"),
    "a CIF without cell": ("x.cif", "data_x\n_cell_length_a 4\n", "no structure"),
    "a CIF without atoms": ("x.cif", CIF, "no structure"),
    "a CIF with words for numbers": ("x.cif", CIF.replace("90", "right"), "no structure"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_malformed_file_is_an_error(name, tmp_path):
    file, content, message = FILES[name]
    if isinstance(content, str):
        (tmp_path / file).write_text(content)
    elif content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / file)


def test_an_empty_folder_holds_nothing(tmp_path):
    (tmp_path / "x.extxyz").mkdir()
    with pytest.raises(InputError, match="holds no file of crystals"):
        read(tmp_path / "x.extxyz")


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        ("A Cu 0 0 0 0.5\nB Au 0 0 0 0.5\n", "only ordered, fully occupied"),
        ("A Qq 0 0 0 1\n", "no element from H to Og"),
    ],
)
def test_a_cif_block_that_is_no_crystal_gets_a_reason(atoms, expected, tmp_path):
    path = tmp_path / "x.cif"
    path.write_text(CIF + "A Cs 0 0 0 1\nB Cl 0.5 0.5 0.5 1\n\n" + CIF + atoms)
    found = read(path)
    assert found.ok.tolist() == [True, False]
    assert expected in found.reasons[1]
    path.write_text(CIF + atoms)  # nothing is left to judge
    with pytest.raises(InputError, match=expected):
        read(path)


def test_columns_that_some_frames_lack(tmp_path):
    path = tmp_path / "x.extxyz"
    with_column = GOOD_FRAME.replace("pbc=", "requested_space_group=221 decoded_ok=F pbc=")
    path.write_text(with_column + GOOD_FRAME)
    found = read(path)
    assert not found.asked
    assert found.ok.all()  # a column that not all have is no column


# ---- the command line


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    """Run ``imd judge`` in a folder with one good file; exit code and the error line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.extxyz").write_text(GOOD_FRAME)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["imd", "judge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.extxyz",), "no file nothing.extxyz"),
        (("good.extxyz", "--protocol", "imdb"), "nearest first: imd"),
        (("good.extxyz", "--potential", "mace"), "unknown potential"),
        (("good.extxyz", "--potential", "chgnet", "--no-energies"), "give one of the two"),
        (("good.extxyz", "--reference", "oqmd"), "oqmd_icsd"),
        (("good.extxyz", "--reference", "oqmd_formulas"), "holds no crystals"),
        (("good.extxyz", "--split", "tran"), "train"),
        (("good.extxyz", "--workers", "0"), "at least 1"),
        (("good.extxyz", "--figure", "funnel.doc"), "funnel.doc"),
        (("good.extxyz", "-o", "nowhere/report.json"), "nowhere"),
        (("good.extxyz", "--workers", "2", "--scheduler", "tcp://x:1"), "one of the two"),
    ],
)
def test_the_command_line_ends_with_2_and_one_line(shell, arguments, message, tmp_path):
    more = () if "--potential" in arguments else ("--no-energies",)
    code, (out, err) = shell(*arguments, *more)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert [path.name for path in tmp_path.iterdir()] == ["good.extxyz"]
