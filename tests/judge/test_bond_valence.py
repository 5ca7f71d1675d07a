"""The charge rule of LeMat-GenBench on cases that follow from its definition."""

import numpy as np
import pytest

from imd_helpers.crystals import CrystalBatch
from imd_helpers.judge.bond_valence import balanced, least_tilt

CUBE = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def cubic(a, numbers, frac):
    frac = np.array(frac, float)
    return CrystalBatch.from_ragged(a * np.eye(3)[None], frac, numbers, [len(frac)])


def test_states_add_up():
    states = {"Na": {1}, "Cl": {-1}, "Fe": {2, 3}, "O": {-2}}
    assert least_tilt({"Na": 1, "Cl": 1}, states) < 0  # sodium gives
    assert least_tilt({"Na": 1, "Cl": 2}, states) is None
    assert least_tilt({"Fe": 3, "O": 4}, states) < 0  # 2 + 3 + 3: neighbours may mix
    assert least_tilt({"Fe": 3, "O": 4}, {**states, "Fe": {2, 4}}) is None  # those may not
    assert least_tilt({"Na": 1, "Cl": 1}, {"Na": {-1}, "Cl": {1}}) > 0  # the wrong way round
    assert least_tilt({"Fe": 2}, {"Fe": {-1, 0, 1}}) is None  # an element as a whole is charged
    assert least_tilt({"Na": 1, "Ar": 1}, states) is None


@pytest.mark.parametrize(
    ("crystal", "expected"),
    [
        (cubic(5.64, [11] * 4 + [17] * 4, np.r_[CUBE, CUBE + 0.5]), True),  # NaCl, by its formula
        (cubic(3.61, [29] * 4, CUBE), True),  # copper: all bond valence sums vanish
        (cubic(3.74, [79] + [29] * 3, CUBE), True),  # AuCu3: metallic
        (cubic(6.2, [56] * 2 + [80], [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5]]), True),  # Ba2Hg
        (cubic(5.0, [17] + [9], [[0, 0, 0], [0.5, 0.5, 0.5]]), True),  # ClF: chlorine can give
        (cubic(5.0, [11, 17, 17], [[0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]]), False),  # NaCl2
    ],
)
def test_balanced(crystal, expected):
    assert balanced(crystal).tolist() == [expected]
