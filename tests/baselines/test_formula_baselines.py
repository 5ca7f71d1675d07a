"""Samplers of formulas that learn nothing."""

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.baselines import RandomFormulas, SubstitutedFormulas
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts, reduced
from imd_helpers.datasets.formula_sets import compositions
from imd_helpers.descriptors.composition_matrix import fits
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def training():
    return compositions("icsd")[0]


def neutral(counts):
    return imd.judge.charge_neutral(counts, alloys=False)


@pytest.mark.parametrize("like_training", [False, True])
def test_random_formulas(training, like_training):
    maker = RandomFormulas(training, accept=neutral, like_training=like_training)
    made = maker.sample(400, seed=1).counts
    assert made.shape == (400, 119)
    assert neutral(made).all()
    assert fits(made).all()
    assert (made == reduced(made)).all()
    assert (made == maker.sample(400, seed=1).counts).all()
    assert (made != maker.sample(400, seed=2).counts).any()


def test_like_training_follows_the_training_set(training):
    share = {}
    for like in (False, True):
        made = RandomFormulas(training, like_training=like).sample(2000).counts
        share[like] = (made[:, 8] > 0).mean()
    assert share[True] > 4 * share[False]
    assert share[True] < (training[:, 8] > 0).mean() + 0.05


def test_a_rule_that_nothing_passes_is_an_error(training):
    with pytest.raises(InputError, match="too strict"):
        RandomFormulas(training, accept=lambda c: np.zeros(len(c), bool)).sample(1)
    with pytest.raises(InputError, match="at least 1"):
        RandomFormulas(training).sample(0)


def test_substitution_keeps_columns_of_the_table():
    made = SubstitutedFormulas(amounts(["SrTiO3"])).sample(300, seed=0).counts
    column = elements.column("group")
    for row in made[made.any(1)]:
        groups = sorted(column[z] for z in np.flatnonzero(row))
        assert groups == [2, 4, 16]
        assert sorted(row[row > 0]) == [1, 1, 3]
    assert not (made[:, [38, 22, 8]] > 0).any()


def test_training_formulas_must_fit():
    with pytest.raises(InputError, match="2 to 8 elements"):
        RandomFormulas(amounts(["Fe"]))
