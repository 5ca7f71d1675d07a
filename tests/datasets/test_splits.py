import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imd_helpers import datasets
from imd_helpers.crystals.compositions import integer_amounts
from imd_helpers.crystals.elements import SYMBOLS
from imd_helpers.datasets.splits import SPLITS, formula_key, split_of
from imd_helpers.runtime import InputError, UnknownNameError

FORMULA_TABLES = ("oqmd_formulas", "mp_e_form", "mp_gap", "mp_e_hull", "expt_gap")
compositions = st.dictionaries(st.integers(1, 103), st.integers(1, 40), min_size=1, max_size=5)


def spell(amounts: dict[int, int]) -> str:
    return "".join(f"{SYMBOLS[z]}{n}" for z, n in amounts.items())


@given(compositions, st.integers(1, 12), st.randoms())
def test_split_ignores_order_and_cell_size(amounts, times, rng):
    items = [(z, n * times) for z, n in amounts.items()]
    rng.shuffle(items)
    assert split_of(spell(dict(items))) == split_of(spell(amounts))


@given(compositions)
def test_key_is_reduced_and_reads_back(amounts):
    pairs = [part.split(":") for part in formula_key(spell(amounts)).split()]
    read = {int(z): int(n) for z, n in pairs}
    assert list(read) == sorted(amounts)
    assert np.gcd.reduce(list(read.values())) == 1
    ratios = {amounts[z] / read[z] for z in amounts}
    assert len(ratios) == 1


def test_rule_is_the_documented_one():
    digest = hashlib.sha256(b"imd-split-1 8:3 13:2").digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    expected = "train" if fraction < 0.8 else "val" if fraction < 0.9 else "test"
    assert formula_key("Al2O3") == "8:3 13:2"
    assert split_of("Al2O3") == split_of("O6Al4") == expected


def test_split_never_changes():
    # Frozen on purpose: another rule would leak the test formulas of recorded models.
    frozen = {"NaCl": "train", "SrTiO3": "test", "SiO2": "train", "GaAs": "train"}
    frozen |= {"TiO2": "train", "Bi2Se3": "test", "Fe7C3": "val", "Al2O3": "test"}
    assert {formula: split_of(formula) for formula in frozen} == frozen


def test_fractions_become_whole_numbers():
    assert integer_amounts("Ag0.5Ge1Pb1.75S4") == {47: 2, 32: 4, 82: 7, 16: 16}
    assert integer_amounts("Mg(NO3)2") == {12: 1, 7: 2, 8: 6}


@pytest.mark.parametrize("bad", ["", "NaCl)", "Mg(NO3", "123", "nacl"])
def test_not_a_formula(bad):
    with pytest.raises(InputError):
        split_of(bad)


def test_unknown_element():
    with pytest.raises(UnknownNameError, match="Xx"):
        split_of("XxO2")


@pytest.mark.parametrize("name", ["oqmd_icsd", *FORMULA_TABLES])
def test_committed_split_is_the_rule(name):
    table = datasets.load(name).table
    rows = table if len(table) < 40_000 else table.sample(20_000, random_state=0)
    unique = {formula: split_of(formula) for formula in set(rows["formula"])}
    assert (rows["formula"].map(unique) == rows["split"]).all()


def test_one_formula_one_side_in_all_sets():
    sides: dict[str, set[str]] = {}
    for name in ("oqmd_icsd", *FORMULA_TABLES):
        pairs = datasets.load(name).table[["formula", "split"]].drop_duplicates()
        assert pairs["formula"].is_unique, f"{name}: a formula is on two sides"
        for formula, split in pairs.itertuples(index=False):
            sides.setdefault(formula, set()).add(split)
    assert len(sides) > 350_000
    assert max(map(len, sides.values())) == 1


@pytest.mark.parametrize("name", ["oqmd_icsd", *FORMULA_TABLES])
def test_shares_are_80_10_10(name):
    unique = datasets.load(name).table.drop_duplicates("formula")
    shares = unique["split"].value_counts(normalize=True)
    # Three standard errors of a share of 0.8 and of 0.1, counted in formulas.
    assert abs(shares["train"] - 0.8) < 3 * np.sqrt(0.16 / len(unique))
    assert abs(shares["val"] - 0.1) < 3 * np.sqrt(0.09 / len(unique))
    assert abs(shares["test"] - 0.1) < 3 * np.sqrt(0.09 / len(unique))


def test_polymorphs_stay_together():
    data = datasets.load("oqmd_icsd")
    polymorphs = data.table.groupby("formula").filter(lambda rows: len(rows) > 1)
    assert len(polymorphs) > 5_000
    assert polymorphs.groupby("formula")["split"].nunique().max() == 1
    parts = [data.select(split=split) for split in SPLITS]
    assert sum(map(len, parts)) == len(data)
    formulas = [set(part.table["formula"]) for part in parts]
    assert sum(map(len, formulas)) == len(set.union(*formulas)) == 26_653
