import warnings

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.judge import charge_neutral
from imd_helpers.judge.charge import oxidation_table
from imd_helpers.runtime import InputError, UnknownNameError


def smact_says(formulas, table, *, pauling=True, alloys=True):
    from smact.screening import smact_validity

    oxidation_set = None if table == "icsd24" else table
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(
            [
                smact_validity(
                    formula,
                    use_pauling_test=pauling,
                    include_alloys=alloys,
                    oxidation_states_set=oxidation_set,
                )
                for formula in formulas
            ]
        )


def random_formulas(n, largest, seed):
    """Formulas of 1 to 5 of the 103 elements that smact knows."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        numbers = rng.choice(np.arange(1, 104), rng.integers(1, 6), replace=False)
        counts = rng.integers(1, largest + 1, len(numbers))
        out.append(
            "".join(f"{elements.SYMBOLS[z]}{k}" for z, k in zip(numbers, counts, strict=True))
        )
    return out


@pytest.fixture(scope="module")
def real_formulas():
    table = imd.datasets.load("oqmd_formulas").table
    return table["formula"].sample(3000, random_state=0).tolist()


@pytest.mark.parametrize("table", ["icsd24", "smact14"])
def test_equals_smact_on_real_formulas(real_formulas, table):
    ours = charge_neutral(real_formulas, oxidation_states=table)
    assert (ours == smact_says(real_formulas, table)).all()
    assert 0.5 < ours.mean() < 0.99  # both verdicts occur often


@pytest.mark.parametrize("table", ["icsd24", "smact14"])
@pytest.mark.parametrize(("pauling", "alloys"), [(True, True), (True, False), (False, False)])
def test_equals_smact_on_random_formulas(table, pauling, alloys):
    # counts up to 8 need one word of bits, up to 200 many
    formulas = random_formulas(600, 8, seed=1) + random_formulas(150, 200, seed=2)
    options = {"pauling": pauling, "alloys": alloys}
    ours = charge_neutral(formulas, oxidation_states=table, **options)
    assert (ours == smact_says(formulas, table, **options)).all()


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("NaCl", True),
        ("NaCl2", False),
        ("Fe3O4", False),  # one state an element: mixed valence is not found, as in smact
        ("Cu3Au", True),  # an alloy
        ("He", True),  # a single element
        ("HeNa", False),  # no oxidation state of He
        ("ArO2", False),
        ("XeF2", True),
        ("OgO", False),  # smact has no data of Og and raises; here it has no oxidation state
        ("Mg(NO3)2", True),
    ],
)
def test_single_cases(formula, expected):
    assert charge_neutral([formula]).tolist() == [expected]


def test_alloys_and_pauling_are_options():
    assert charge_neutral(["Cu3Au"], alloys=False).tolist() == [False]
    assert charge_neutral(["PmO", "Pm2O3"]).tolist() == [False, False]  # no electronegativity
    assert charge_neutral(["Pm2O3"], pauling=False).tolist() == [True]


def test_formulas_and_counts_agree(real_formulas):
    counts = amounts(real_formulas).astype(np.int16)
    assert (charge_neutral(counts) == charge_neutral(real_formulas)).all()
    assert (charge_neutral(3 * counts) == charge_neutral(counts)).all()  # lowest terms count


def test_large_charges_are_exact():
    # 64 and more positive charges: the word boundary
    formulas = [f"Na{n}F{n + d}" for n in (62, 63, 64, 65, 127, 128, 129) for d in (0, 1)]
    assert charge_neutral(formulas).tolist() == [True, False] * 7


def test_pieces_join(monkeypatch):
    from imd_helpers.judge import charge as composition

    formulas = random_formulas(50, 8, seed=3)
    whole = charge_neutral(formulas)
    monkeypatch.setattr(composition, "ROWS", 7)
    assert (charge_neutral(formulas) == whole).all()


def test_the_two_smact_tables_differ():
    new, old = oxidation_table("icsd24").n_states, oxidation_table("smact14").n_states
    assert (new != old).sum() > 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("NaCl", "n formulas"),
        ([], "at least one"),
        (["Na0.5Cl"], "whole"),
        (["nonsense"], "formula"),
        (np.ones((2, 5)), "shape"),
        (np.zeros((1, 119), dtype=int), "at least one atom"),
        (-np.eye(119, dtype=int)[[11]], "between 0"),
        (np.full((1, 119), np.nan), "whole"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(InputError, match=message):
        charge_neutral(given)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="icsd24"):
        charge_neutral(["NaCl"], oxidation_states="icsd2")
    with pytest.raises(UnknownNameError, match="Xx"):
        charge_neutral(["XxO"])
