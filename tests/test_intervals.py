import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from imd_helpers import intervals
from imd_helpers.intervals import (
    bootstrap,
    bootstrap_distance,
    difference,
    jackknife,
    seed_interval,
    wilson,
)
from imd_helpers.runtime import InputError


def test_known_values():
    # Newcombe, Stat. Med. 17 (1998) 857, table I, method 3
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        got = wilson(k, n)
        assert (round(float(got[0]), 4), round(float(got[1]), 4)) == (low, high)


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_same_as_scipy(n, share, level):
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(level, "wilson")
    low, high = wilson(k, n, level=level)
    assert math.isclose(low, expected.low, abs_tol=1e-12)
    assert math.isclose(high, expected.high, abs_tol=1e-12)


@pytest.mark.equation("eq-wilson", function="imd_helpers.intervals.wilson")
def test_wilson_interval_is_that_of_scipy(agrees):
    """Every count out of 1, 7, 40 and 300, beside the interval of an independent program."""
    for n in (1, 7, 40, 300):
        k = np.arange(n + 1)
        both = [binomtest(int(i), n).proportion_ci(0.95, "wilson") for i in k]
        agrees(np.array(wilson(k, n)), np.array(both).T, within=1e-12)


def test_ends_and_nothing_tried():
    low, high = wilson([0, 10, 0], [10, 10, 0])
    assert low.tolist()[0] == 0.0
    assert high.tolist()[1] == 1.0
    assert (low[2], high[2]) == (0.0, 1.0)


def test_covers_as_promised():
    rng = np.random.default_rng(0)
    k = rng.binomial(200, 0.3, size=20_000)
    low, high = wilson(k, 200)
    assert 0.94 < np.mean((low <= 0.3) & (high >= 0.3)) < 0.96


@pytest.mark.parametrize(("k", "n", "level"), [(5, 4, 0.95), (-1, 4, 0.95), (1, 4, 1.0)])
def test_bad_input(k, n, level):
    with pytest.raises(InputError, match="must"):
        wilson(k, n, level=level)


# ---- of a difference


@pytest.mark.equation("eq-open-difference", function="imd_helpers.intervals.difference")
def test_known_differences(agrees):
    """Five differences as printed in Newcombe's own table, to its four digits."""
    # Newcombe, Stat. Med. 17 (1998) 873, table II, method 10
    for k, n, low, high in [
        ((56, 48), (70, 80), 0.0524, 0.3339),
        ((9, 3), (10, 10), 0.1705, 0.8090),
        ((5, 0), (56, 29), -0.0381, 0.1926),
        ((0, 0), (10, 20), -0.1611, 0.2775),
        ((10, 0), (10, 10), 0.6075, 1.0000),
    ]:
        value, *ends = difference(k, n)
        assert value == pytest.approx(k[0] / n[0] - k[1] / n[1])
        agrees(np.array(ends), np.array([low, high]), within=6e-5)


def test_a_difference_turns_its_sign_with_its_sides():
    value, low, high = difference(([3, 9], [7, 9]), (10, 12))
    back = difference(([7, 9], [3, 9]), (12, 10))
    np.testing.assert_allclose([value, low, high], [-back[0], -back[2], -back[1]])


def test_a_difference_covers_as_promised():
    rng = np.random.default_rng(0)
    k = rng.binomial(80, 0.1, size=20_000), rng.binomial(40, 0.3, size=20_000)
    _, low, high = difference(k, (80, 40))
    assert 0.94 < np.mean((low <= -0.2) & (high >= -0.2)) < 0.965


def test_nothing_tried_says_nothing_about_a_difference():
    value, low, high = difference((0, 5), (0, 10))
    assert value == 0
    assert low < -0.5
    assert high > 0.5
    with pytest.raises(InputError, match="between 0 and n"):
        difference((5, 1), (4, 4))


# ---- over seeds, and by resampling


def test_interval_of_seeds_is_students_and_skips_diverged_ones():
    from scipy import stats

    values = np.random.default_rng(0).normal(size=(3, 8))
    mean, low, high = seed_interval(values)
    expected = stats.t.interval(0.95, 7, values.mean(-1), stats.sem(values, axis=-1))
    np.testing.assert_allclose([mean, low, high], [values.mean(-1), *expected])
    broken = np.concatenate([values, np.full((3, 2), np.nan)], axis=1)
    np.testing.assert_allclose(seed_interval(broken), [mean, low, high])
    mean, low, high = seed_interval([2.0, np.nan])
    assert mean == 2.0
    assert np.isnan(low)
    assert np.isnan(high)


def test_intervals_hold_the_mean_as_often_as_they_say():
    _, low, high = seed_interval(np.random.default_rng(1).normal(size=(4000, 5)))
    held = ((low < 0) & (high > 0)).mean()
    assert held == pytest.approx(0.95, abs=0.01)


def test_bootstrap_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    ends = np.array([bootstrap(rng.normal(size=60), resamples=200, seed=i) for i in range(300)])
    held = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert held == pytest.approx(0.93, abs=0.03)  # percentiles are a little narrow
    assert np.isnan(bootstrap(np.ones(1))).all()


def test_bootstrap_of_a_distance_is_never_below_zero_and_holds_the_value():
    points = np.random.default_rng(0).normal(size=(2, 50))

    def apart(one, two):
        means = [np.average(x, weights=w) for x, w in zip(points, (one, two), strict=True)]
        return float(abs(means[0] - means[1]))

    value, low, high = bootstrap_distance(apart, (50, 50))
    assert value == pytest.approx(abs(points[0].mean() - points[1].mean()))
    assert 0 <= low <= value <= high
    with pytest.raises(InputError, match="resamples=1"):
        bootstrap_distance(apart, (50, 50), resamples=1)


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(5.0, 1.0, size=20)
    value, low, high = jackknife(lambda keep: float(values[keep].mean()), 20)
    assert value == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.959964 * values.std(ddof=1) / np.sqrt(20))
    assert np.isnan(jackknife(lambda keep: 1.0, 1)[1])


def test_jackknife_interval_covers_the_truth():
    share = 1 / np.arange(1, 201)
    share /= share.sum()
    n, rng, hits = 200, np.random.default_rng(0), 0
    truth = np.sum(1 - (1 - share) ** n)  # expected number of different ones in n draws
    for _ in range(60):
        drawn = rng.choice(200, size=n, p=share)
        ends = jackknife(lambda keep, drawn=drawn: float(len(set(drawn[keep]))), n)
        hits += ends[1] <= truth <= ends[2]
    assert hits >= 51  # of 60


def test_numbers_that_are_none_are_refused():
    with pytest.raises(InputError, match="NaN"):
        intervals.bootstrap([1.0, np.nan])
    with pytest.raises(InputError, match="n=0"):
        intervals.jackknife(len, 0)
