import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition, Element

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.runtime import InputError, UnknownNameError

COLUMNS = ("electronegativity", "mass", "group", "row", "atomic_radius")


def test_symbols_are_in_order():
    assert len(elements.SYMBOLS) == elements.N_COLUMNS == 119
    assert [elements.number(symbol) for symbol in elements.SYMBOLS[1:]] == list(range(1, 119))
    assert elements.SYMBOLS[1:] == tuple(Element.from_Z(z).symbol for z in range(1, 119))


def test_columns_against_pymatgen():
    for z in (1, 3, 8, 26, 57, 79, 92):
        element, row = Element.from_Z(z), {name: elements.column(name)[z] for name in COLUMNS}
        assert row["electronegativity"] == pytest.approx(element.X)
        assert row["mass"] == pytest.approx(float(element.atomic_mass), rel=1e-3)
        assert (row["group"], row["row"]) == (element.group, element.row)
        assert row["atomic_radius"] == pytest.approx(float(element.atomic_radius))
    assert np.isnan(elements.column("electronegativity")[2])


def test_covalent_radii_are_cordero():
    # Cordero et al., Dalton Trans. 2008, 2832, table 2: C is sp2; Mn, Fe and Co are means of
    # low and high spin (Fe 1.32 and 1.52)
    known = {"H": 0.31, "C": 0.73, "O": 0.66, "Na": 1.66, "Mn": 1.5, "Fe": 1.42, "U": 1.96}
    for symbol, radius in known.items():
        assert elements.column("covalent_radius")[elements.number(symbol)] == radius


def test_every_formula_of_oqmd_icsd_as_pymatgen_writes_it():
    data = imd.datasets.load("oqmd_icsd")
    formulas = data.table["formula"].unique()
    assert len(formulas) == 26_653
    for formula in formulas:
        amounts = elements.parse_formula(formula)
        reduced = elements.reduced_formula({z: int(n) for z, n in amounts.items()})
        assert reduced == formula
    for formula in formulas[::8]:
        assert Composition(formula).reduced_formula == formula


@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")
@given(st.dictionaries(st.integers(1, 103), st.integers(1, 24), min_size=1, max_size=5))
def test_reduced_formula_equals_pymatgen(amounts):
    composition = Composition({Element.from_Z(z): n for z, n in amounts.items()})
    assert elements.reduced_formula(amounts) == composition.reduced_formula


@given(st.dictionaries(st.integers(1, 118), st.integers(1, 999), min_size=1, max_size=6))
def test_parse_undoes_reduce(amounts):
    parsed = elements.parse_formula(elements.reduced_formula(amounts))
    shares = {z: n / sum(amounts.values()) for z, n in amounts.items()}
    assert {z: n / sum(parsed.values()) for z, n in parsed.items()} == pytest.approx(shares)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Mg(NO3)2", {12: 1, 7: 2, 8: 6}),
        ("Ca(Al(SiO4)2)3", {20: 1, 13: 3, 14: 6, 8: 24}),
        ("Ag0.5S0.25", {47: 0.5, 16: 0.25}),
        ("OO2", {8: 3}),
        ("CuSO4.5H2O", {29: 1, 16: 1, 8: 9, 1: 10}),
        ("CuSO4·5H2O", {29: 1, 16: 1, 8: 9, 1: 10}),
        ("CuSO4 · 5H2O", {29: 1, 16: 1, 8: 9, 1: 10}),
        ("CaSO4.0.5H2O", {20: 1, 16: 1, 8: 4.5, 1: 1}),
        ("CaSO4·0.5H2O", {20: 1, 16: 1, 8: 4.5, 1: 1}),
        ("MgSO4.7(H2O)", {12: 1, 16: 1, 8: 11, 1: 14}),
        ("3CaO·Al2O3", {20: 3, 13: 2, 8: 6}),
        ("CaO.Al2O3", {20: 1, 13: 2, 8: 4}),
        ("AlCl3*6NH3", {13: 1, 17: 3, 7: 6, 1: 18}),
        ("LiNi0.5Mn1.5O4", {3: 1, 28: 0.5, 25: 1.5, 8: 4}),
        ("Li1.5H2O", {3: 1.5, 1: 2, 8: 1}),
        ("K4[Fe(CN)6]·3H₂O", {19: 4, 26: 1, 6: 6, 7: 6, 1: 6, 8: 3}),
        ("Ca3{Al[SiO2]}2", {20: 3, 13: 2, 14: 2, 8: 4}),
        ("Ba(VI)2", {56: 1, 23: 2, 53: 2}),
    ],
)
def test_parse(formula, expected):
    assert elements.parse_formula(formula) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "H.", "(NaCl", "NaCl)", "na", "2Na", "Na-Cl", "Na Cl", "Na+", "()", "(Na]Cl", "[Na"),
        *("Na0", "H" + "9" * 400, "Fe(III)2O3", "Cu(I)Cl", "[SO4]2-"),
    ],
)
def test_parse_errors(text):
    with pytest.raises(InputError, match="formula"):
        elements.parse_formula(text)


@pytest.mark.parametrize("text", ["K2O.Al2O3.6SiO2", "MgCl2.6H2O.NaCl", "La0.7Sr0.3O3.5H2O"])
def test_points_of_two_meanings(text):
    with pytest.raises(InputError, match="write ·"):
        elements.parse_formula(text)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Fe"):
        elements.number("FE")
    with pytest.raises(UnknownNameError, match="Xq"):
        elements.parse_formula("XqO2")
    with pytest.raises(UnknownNameError, match="mass"):
        elements.column("masss")


@pytest.mark.parametrize("amounts", [{}, {8: 0}, {8: -1}, {8: -1, 1: 2}])
def test_reduced_formula_errors(amounts):
    with pytest.raises(InputError, match="no atoms or a negative"):
        elements.reduced_formula(amounts)


def test_features_have_no_gaps():
    raw = elements.features()
    assert raw.shape == (119, 23)
    assert raw.dtype == np.float32
    assert np.isfinite(raw).all()
    rows = np.array([3, 8, 26, 82])
    scaled = elements.minmax(raw, rows)[rows]
    constant = raw[rows].min(0) == raw[rows].max(0)
    assert (scaled[:, ~constant].min(0) == 0).all()
    assert (scaled[:, ~constant].max(0) == 1).all()
    assert (scaled[:, constant] == 0).all()


def test_lanthanides_and_actinides_are_families_of_their_own():
    family = elements.families()
    same = {s: family[elements.number(s)] for s in ("La", "Lu", "Ac", "Lr", "Sc", "Y", "Hf", "Ti")}
    assert same["La"] == same["Lu"] == elements.LANTHANIDES
    assert same["Ac"] == same["Lr"] == elements.ACTINIDES
    assert same["Sc"] == same["Y"] == 3
    assert same["Hf"] == same["Ti"] == 4
