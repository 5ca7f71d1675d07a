import numpy as np
import pytest

from imd_helpers.descriptors.symmetry_sites import Sites, canonical
from imd_helpers.models.cubicgan import training_sites
from imd_helpers.runtime import InputError
from imd_helpers.search import CountedOracle, Target
from imd_helpers.search.oracle import (
    crystal_keys,
    enrichment,
    predictive_value,
    target_distance,
)

TARGET = Target(length=6.2, energy=-0.3, length_window=0.1, energy_window=0.2)


@pytest.fixture(scope="module")
def sites():
    return training_sites("val")


def predict(sites):
    return np.stack([sites.numbers.sum(1), -sites.numbers.max(1)], axis=1).astype(float)


def test_target_distance_is_the_worse_of_both_deviations():
    values = np.array([[6.2, -0.3], [6.25, -0.3], [6.25, 0.3], [6.5, -0.2]])
    assert np.allclose(target_distance(values, TARGET), [0.0, 0.5, 3.0, 3.0])
    assert TARGET.hit(values).tolist() == [True, True, False, False]


def test_a_prediction_that_is_nan_is_no_hit():
    assert not TARGET.hit(np.array([[np.nan, -0.3]])).any()


def test_target_refuses_impossible_windows_and_shapes():
    with pytest.raises(InputError, match=r"length_window=0\.0: must be a finite number, above 0"):
        Target(length=6.2, energy=0.0, length_window=0.0)
    with pytest.raises(InputError, match="energy=nan"):
        Target(length=6.2, energy=float("nan"))
    with pytest.raises(InputError, match=r"expected \(n, 2\)"):
        target_distance(np.zeros(3), TARGET)


def test_predictive_value_equals_a_count():
    rng = np.random.default_rng(0)
    hit = rng.random(200_000) < 0.02
    called = np.where(hit, rng.random(len(hit)) < 0.8, rng.random(len(hit)) < 0.03)
    counted = (hit & called).sum() / called.sum()
    assert predictive_value(0.02, 0.8, 0.03) == pytest.approx(counted, abs=0.01)


def test_predictive_value_at_its_ends():
    assert predictive_value(0.1, 0.5, 0.0) == 1.0
    assert predictive_value(0.0, 0.5, 0.1) == 0.0
    assert np.isnan(predictive_value(0.1, 0.0, 0.0))


def test_enrichment():
    assert enrichment(20, 100, 10, 500) == pytest.approx(10.0)
    assert enrichment(1, 10, 0, 10) == np.inf
    with pytest.raises(InputError, match="no more hits than calls"):
        enrichment(11, 10, 1, 10)


def test_keys_ignore_the_way_a_crystal_is_written(sites):
    order = np.array([2, 0, 1])
    shifted = (sites.grid[:, order] + 2) % 4  # (1/2, 1/2, 1/2) is an origin of all three groups
    other = Sites(sites.space_group, sites.numbers[:, order], shifted, sites.length * 2)
    assert crystal_keys(other) == crystal_keys(sites)
    swapped = Sites(sites.space_group, sites.numbers[:, order], sites.grid, sites.length)
    assert crystal_keys(swapped) != crystal_keys(sites)


def test_the_oracle_counts_different_crystals_once(sites):
    asked = []
    oracle = CountedOracle(lambda s: asked.append(len(s)) or predict(s))
    n = len(set(crystal_keys(sites)))
    first = oracle(sites)
    again = oracle(canonical(sites))
    assert oracle.calls == n == sum(asked)
    assert len(sites) > n  # the set holds repeated crystals, so the test can fail
    assert (first == predict(sites)).all()
    assert (again == first).all()


def test_the_log_keeps_crystals_and_answers_in_order(sites):
    oracle = CountedOracle(predict)
    oracle(sites[10:20])
    oracle(sites[:15])
    logged, answers = oracle.log()
    assert (answers == predict(logged)).all()
    assert crystal_keys(logged) == list(oracle.answers)
    assert crystal_keys(logged[:1]) == crystal_keys(sites[10:11])


def test_an_oracle_nobody_asked_has_no_log():
    with pytest.raises(InputError, match="asked nothing"):
        CountedOracle(predict).log()


def test_concatenate(sites):
    both = Sites.cat([sites[:3], sites[3:]])
    assert (both.grid == sites.grid).all()
    assert (both.length == sites.length).all()
