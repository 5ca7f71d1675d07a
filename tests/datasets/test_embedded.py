"""Tables of formulas and zeolites, and the files themselves."""

import warnings

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers import datasets
from imd_helpers.datasets import Card, FormulaTable, Zeolites
from imd_helpers.runtime import InputError, UnknownNameError, data_path

TABLES = {
    "oqmd_formulas": (341_700, ["formation_energy", "band_gap"]),
    "mp_e_form": (132_752, ["formation_energy"]),
    "mp_gap": (106_113, ["band_gap"]),
    "mp_e_hull": (56_662, ["energy_above_hull"]),
    "expt_gap": (4_604, ["band_gap"]),
}


@pytest.fixture(scope="module")
def zeolites() -> Zeolites:
    return datasets.load("iza_zeolites")


@pytest.mark.parametrize("name", TABLES)
def test_formula_tables(name):
    rows, targets = TABLES[name]
    data = datasets.load(name)
    assert isinstance(data, FormulaTable)
    assert len(data) == rows
    assert list(data.table) == ["formula", *targets, "split"]
    assert all(data.table[target].dtype == np.float64 for target in targets)
    assert data.table["formula"].map(type).eq(str).all()
    parts = [datasets.load(name, split=split) for split in datasets.SPLITS]
    assert sum(map(len, parts)) == rows
    assert parts[1].table["split"].unique().tolist() == ["val"]
    assert repr(data).startswith(f"{name}: {rows:,} rows")


def test_sodium_nitride_is_no_missing_number():
    for name in ("oqmd_formulas", "mp_e_form", "mp_e_hull"):
        table = datasets.load(name).table
        assert "NaN" in set(table["formula"])
        assert not table["formula"].isna().any()
    assert "InF" in set(datasets.load("oqmd_formulas").table["formula"])


@pytest.mark.parametrize("name", TABLES)
def test_formulas_are_reduced_as_pymatgen_does(name):
    from pymatgen.core import Composition

    table = datasets.load(name).table.sample(400, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for formula in table["formula"]:
            assert Composition(formula).reduced_formula == formula


# ---- zeolites


def test_zeolite_table(zeolites):
    table = zeolites.table
    assert len(zeolites) == len(zeolites.cifs) == 229
    assert table["code"].is_unique
    assert "cif" not in table
    assert zeolites.is_exact_sio2.sum() == 217
    assert table["space_group"].between(1, 230).all()
    diameters = table[["pore_limiting_diameter", "largest_cavity_diameter"]].dropna()
    passes, fits = diameters.to_numpy().T
    assert (passes <= fits + 0.11).all()


def test_zeolite_structures(zeolites):
    exact = zeolites.table[zeolites.is_exact_sio2].set_index("code")
    odd_density = {"CZP", "FRA", "GON", "NPO", "RWY"}  # as the card says
    structures = zeolites.structures([*exact.index[::6], *odd_density])
    for code, structure in structures.items():
        amounts = structure.composition.get_el_amt_dict()
        assert set(amounts) == {"Si", "O"}
        assert amounts["O"] == 2 * amounts["Si"]
        assert structure.is_ordered
        assert structure.lattice.a == pytest.approx(exact.loc[code, "a"], abs=0.02)
        density = amounts["Si"] / structure.volume * 1_000  # T atoms in 1000 Å^3
        differs = abs(density / exact.loc[code, "framework_density"] - 1) > 0.02
        assert differs == (code in odd_density), code


def test_silicon_has_four_neighbours(zeolites):
    sodalite = zeolites.structures("SOD")["SOD"]
    silicon = [i for i, site in enumerate(sodalite) if site.specie.symbol == "Si"]
    for i in silicon:
        near = [n for n in sodalite.get_neighbors(sodalite[i], 1.75) if n.specie.symbol == "O"]
        assert len(near) == 4


def test_zeolite_errors(zeolites):
    interrupted = zeolites.table["code"][~zeolites.is_exact_sio2].tolist()
    assert len(interrupted) == 12
    for code in ("CHI", "CLO", "WEN"):
        assert code in interrupted
        with pytest.raises(InputError, match=f"{code} does not give SiO2"):
            zeolites.structures(code)
    with pytest.raises(UnknownNameError, match=r"'MFJ'.*nearest first: .{0,12}MFI"):
        zeolites.structures("MFJ")
    with pytest.raises(InputError, match="all frameworks of iza_zeolites have the formula SiO2"):
        datasets.load("iza_zeolites", split="train")


# ---- names and files


def test_names():
    embedded = list(datasets.EMBEDDED)
    made = ["hydrides", "mg_mn_o", "v_o", "bi_se"]
    assert embedded == ["oqmd_icsd", "cubic_prototypes", *TABLES, "iza_zeolites", *made]
    everything = imd.datasets.names()
    assert everything[: len(embedded)] == embedded
    assert {"mp_20", "perov_5", "carbon_24", "alex_mp_20"} <= set(everything)
    assert len(everything) == len(set(everything))


def test_unknown_names_list_the_nearest_first():
    for verb in (datasets.load, datasets.card, datasets.fetch):
        with pytest.raises(UnknownNameError, match=r"'oqmd_icds'.*nearest first: oqmd_icsd"):
            verb("oqmd_icds")
        with pytest.raises(UnknownNameError, match=r"nearest first: mp_20,"):
            verb("mp-20")
    with pytest.raises(UnknownNameError, match=r"'valid'.*nearest first: val"):
        datasets.load("oqmd_icsd", split="valid")


def test_fetch_of_what_is_here():
    with pytest.raises(InputError, match="part of the package"):
        datasets.fetch("oqmd_icsd")


def test_cards_show_as_text_and_as_markdown():
    card = datasets.card("oqmd_icsd")
    assert isinstance(card, Card)
    assert repr(card) == card._repr_markdown_() == str(card)
    assert card.startswith("# oqmd_icsd")


def test_size_of_all_embedded_data():
    folders = [data_path(name) for name in (*datasets.EMBEDDED, "potentials")]
    total = sum(f.stat().st_size for folder in folders for f in folder.iterdir())
    print(f"embedded data: {total:,} bytes")
    assert total < 9_000_000


def test_hydrides_hold_hydrogen_and_one_metal():
    data = datasets.load("hydrides")
    counts = data.crystals.counts().numpy()
    assert (counts[:, 1] > 0).all()
    assert ((counts > 0)[:, [12, 22, 28, 46]].sum(1) == 1).all()
    assert (data.table["n_elements"] == 2).all()
    assert list(data.table["formula"]) == data.crystals.formulas()
    assert data.table[["formation_energy", "disagreement"]].notna().all(axis=None)
    assert imd.judge.geometry_valid(data.crystals).all()


def test_vanadium_oxides_hold_both_elements_and_differ():
    """Unique is counted from the lowest energy up; the matcher is not transitive."""
    data = datasets.load("v_o")
    raw = np.load(data_path("v_o", "v_o.npz"))
    lowest_first = np.argsort(raw["formation_energy"][raw["kept"], 0], kind="stable")
    counts = data.crystals.counts()
    assert (counts[:, [8, 23]] >= 1).all()
    assert (counts[:, [8, 23]].sum(1) == data.crystals.n_sites).all()
    assert data.crystals.n_sites.max() <= 20
    assert imd.judge.geometry_valid(data.crystals).all()
    assert imd.judge.unique(data.crystals[lowest_first]).all()


def test_eight_real_vanadium_oxides_are_among_the_made_ones():
    """The card says so, and that each is the like of a training crystal."""
    real = datasets.load("oqmd_icsd").select(elements=["V", "O"], nelements=2).crystals
    assert len(real) == 28
    for split in (None, "train"):
        made = datasets.load("v_o", split=split).crystals
        assert (~imd.judge.novel(real, made)).sum() == 8


def test_bismuth_selenides_and_what_the_card_says_of_them():
    """Both elements, valid, different; CHGNet always lower; one real cell among them."""
    data = datasets.load("bi_se")
    raw = np.load(data_path("bi_se", "bi_se.npz"))
    formed = raw["formation_energy"][raw["kept"]]
    counts = data.crystals.counts()
    assert (counts[:, [34, 83]] >= 1).all()
    assert (counts[:, [34, 83]].sum(1) == data.crystals.n_sites).all()
    assert imd.judge.geometry_valid(data.crystals).all()
    assert imd.judge.unique(data.crystals[np.argsort(formed[:, 0], kind="stable")]).all()
    assert (formed[:, 0] < formed[:, 1]).all()
    assert round(float(np.median(formed[:, 1] - formed[:, 0])), 1) == 0.4
    assert (data.table["formation_energy"] > 1).sum() == 1
    real = datasets.load("oqmd_icsd").select(elements=["Bi", "Se"], nelements=2).crystals
    assert len(real) == 7
    for split, n in (("train", 0), ("val", 1), ("test", 0)):
        made = datasets.load("bi_se", split=split).crystals
        assert (~imd.judge.novel(real, made)).sum() == n


def test_filled_oxides_fit_the_matrix_and_are_no_real_crystal():
    data = datasets.load("mg_mn_o")
    counts = data.crystals.counts()[:, [12, 25, 8]]
    assert (counts >= 1).all()
    assert (counts <= torch.tensor([8, 8, 12])).all()
    assert (counts.sum(1) == data.crystals.n_sites).all()
    assert imd.judge.geometry_valid(data.crystals).all()
    assert imd.judge.unique(data.crystals).all()
