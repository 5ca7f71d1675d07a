"""The rungs: what each keeps of the training set, and what it leaves to chance."""

import numpy as np
import pytest

from imd_helpers.baselines import ExchangedFormulas, SiteMarginals, ladder
from imd_helpers.crystals import elements, symmetry
from imd_helpers.crystals.wyckoff import occupations
from imd_helpers.datasets import formula_sets


def test_every_rung_samples_crystals_and_copies_come_last(training):
    rungs = ladder(training)
    assert list(rungs) == [
        "ion exchange", "site marginals", "substitution", "random", "training copies"
    ]  # fmt: skip
    for rung in rungs.values():
        made = rung.sample(20, seed=1)
        again = rung.sample(20, seed=1)
        assert made.ok.all()
        assert np.array_equal(made.crystals.numbers, again.crystals.numbers)
    assert type(ladder(training)["random"]).__name__ == "RandomCubic"


def test_other_crystals_get_other_random_ones(mixed):
    assert type(ladder(mixed)["random"]).__name__ == "RandomWyckoff"


def test_site_marginals_keep_the_prototype_and_draw_each_place_alone(training):
    rung = SiteMarginals(training)
    made = rung.sample(40, seed=0)
    known = set(rung.names)
    for one in occupations(made.crystals):
        assert one.prototype() in known
        columns = np.array(rung.seen[one.prototype()]).T
        ways = [[z for _, z in sorted(way)] for way in one.ways]  # equivalent places may swap
        assert any(all(map(np.isin, way, columns)) for way in ways)
    groups = symmetry.space_group_numbers(made.crystals, symprec=0.01)
    assert np.array_equal(groups, made.asked["space_group"])
    triples = {tuple(np.unique(row[row > 0])) for row in made.crystals.numbers.numpy()}
    present = training.present
    seen = {tuple(np.flatnonzero(row)) for row in present}
    assert len(triples - seen) > 10  # most combinations are new


@pytest.fixture(scope="module")
def formulas():
    return formula_sets.compositions("icsd")[0][:3000]


def test_every_rung_samples_formulas(formulas):
    for name, rung in ladder(formulas).items():
        made = rung.sample(200, seed=3)
        assert made.ok.mean() > 0.5, name
        assert (made.counts[made.ok].sum(1) > 0).all()


def test_an_exchange_changes_one_element_and_keeps_its_count():
    """NaCl, KCl and NaF teach Na for K and Cl for F; nothing else can happen."""
    z = {s: elements.number(s) for s in ("Na", "K", "Cl", "F", "Mg", "O")}
    counts = np.zeros((4, elements.N_COLUMNS), dtype=np.int64)
    pairs = (("Na", "Cl"), ("K", "Cl"), ("Na", "F"), ("Mg", "O"))
    for row, pair in zip(counts, pairs, strict=True):
        row[[z[s] for s in pair]] = 1
    made = ExchangedFormulas(counts).sample(500, seed=0)
    assert set(made.formulas()) <= {"NaCl", "KCl", "NaF", "KF", ""}
    assert "KF" in made.formulas()
