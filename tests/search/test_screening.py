import numpy as np
import pytest

from imd_helpers.crystals import elements
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.models.cubicgan import training_sites
from imd_helpers.runtime import InputError
from imd_helpers.search import CountedOracle, screen, substitutions
from imd_helpers.search.oracle import crystal_keys
from imd_helpers.search.screening import distinct, with_length


@pytest.fixture(scope="module")
def sites():
    return training_sites("test")


def predict(sites):
    return np.ones((len(sites), 2))


def test_distinct_keeps_the_first_of_each(sites):
    once = distinct(sites)
    keys = crystal_keys(sites)
    assert crystal_keys(once) == list(dict.fromkeys(keys))
    assert len(distinct(sites, without=once)) == 0
    assert len(distinct(sites[:0])) == 0


def test_substitutions_are_new_and_one_element_of_one_column_away(sites):
    made = substitutions(sites)
    assert len(made) > len(sites)
    assert not set(crystal_keys(made)) & set(crystal_keys(sites))
    assert set(np.unique(made.numbers)) <= set(np.unique(sites.numbers))
    assert decode_sites(made).ok.all()
    column = elements.column("group")
    parents = {
        (int(g), *np.sort(column[z]).tolist())
        for g, z in zip(sites.space_group, sites.numbers, strict=True)
    }
    for group, numbers in zip(made.space_group, made.numbers, strict=True):
        assert (int(group), *np.sort(column[numbers]).tolist()) in parents
        assert len(set(numbers.tolist())) == 3


def test_no_substitution_within_one_crystal_of_three_columns(sites):
    three = [len(set(elements.column("group")[z])) == 3 for z in sites.numbers]
    assert len(substitutions(sites[np.flatnonzero(three)[:1]])) == 0


def test_screen_asks_a_random_part_of_the_list(sites):
    once = distinct(sites)
    one, same, other = (CountedOracle(predict) for _ in range(3))
    screen(one, once, budget=10, seed=0)
    screen(same, once, budget=10, seed=0)
    screen(other, once, budget=10, seed=1)
    assert one.calls == 10
    assert list(one.answers) == list(same.answers) != list(other.answers)
    everything = CountedOracle(predict)
    screen(everything, once, budget=10_000)
    assert everything.calls == len(once)


def test_screening_needs_candidates_and_a_budget(sites):
    with pytest.raises(InputError, match="budget=0"):
        screen(CountedOracle(predict), sites, budget=0)
    with pytest.raises(InputError, match=r"budget=2\.5: must be int"):
        screen(CountedOracle(predict), sites, budget=2.5)
    with pytest.raises(InputError, match="number of candidates=0"):
        screen(CountedOracle(predict), sites[:0], budget=5)


def test_with_length(sites):
    assert (with_length(sites, 5.0).length == 5.0).all()
