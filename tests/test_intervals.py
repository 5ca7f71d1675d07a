import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from imd_helpers.judge import wilson
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
    with pytest.raises(InputError, match="must lie between"):
        wilson(k, n, level=level)
