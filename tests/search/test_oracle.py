import numpy as np
import pytest

from imd_helpers.runtime import InputError
from imd_helpers.search import Target

TARGET = Target(length=6.2, energy=-0.3, length_window=0.1, energy_window=0.2)


def test_the_distance_is_the_worse_of_both_deviations():
    values = np.array([[6.2, -0.3], [6.25, -0.3], [6.25, 0.3], [6.5, -0.2]])
    assert np.allclose(TARGET.distance(values), [0.0, 0.5, 3.0, 3.0])
    assert TARGET.hit(values).tolist() == [True, True, False, False]


def test_a_prediction_that_is_nan_is_no_hit():
    assert not TARGET.hit(np.array([[np.nan, -0.3]])).any()


def test_target_refuses_impossible_windows_and_shapes():
    with pytest.raises(InputError, match=r"length_window=0\.0: must be a finite number, above 0"):
        Target(length=6.2, energy=0.0, length_window=0.0)
    with pytest.raises(InputError, match="energy=nan"):
        Target(length=6.2, energy=float("nan"))
    with pytest.raises(InputError, match=r"expected \(n, 2\)"):
        TARGET.distance(np.zeros(3))
