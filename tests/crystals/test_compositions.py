"""Many formulas at once: one that is none keeps its row, and says which it is."""

import numpy as np
import pandas as pd
import pytest

import imd_helpers as imd
from imd_helpers.crystals import compositions
from imd_helpers.runtime import InputError

BLANK = [float("nan"), None, "", "  ", np.nan, pd.NA]


@pytest.mark.parametrize("blank", BLANK)
def test_a_blank_row_takes_no_other_down(blank):
    counts, reasons = compositions.parse(["NaCl", blank, "CuSO4.5H2O"])
    assert counts[[0, 2]].sum(1).tolist() == [2, 21]
    assert list(reasons) == [1]
    assert "blank" in reasons[1]
    assert not counts[1].any()


@pytest.mark.parametrize("blank", BLANK)
def test_where_all_must_be_right_the_row_is_named(blank):
    with pytest.raises(InputError, match="formula 1: "):
        compositions.amounts(["NaCl", blank])


def test_blank_rows_are_judged_as_no_formula():
    report = imd.judge.judge(["NaCl", float("nan"), "MgO"], protocol="formulas")
    assert report.facts["decoded"].tolist() == [1, 0, 1]


@pytest.mark.parametrize("text", ["C99999H", "C32767C", "Na0", "Fe(III)2O3", "H" + "9" * 400])
def test_counts_that_do_not_fit_are_no_other_counts(text):
    counts, reasons = compositions.parse(["NaCl", text, "MgO"])
    assert list(reasons) == [1]
    assert repr(text) in reasons[1]
    assert counts.any(1).tolist() == [True, False, True]


def test_large_counts_are_exact_where_they_fit():
    assert compositions.amounts(["C99999H", "NaCl"])[:, [1, 6, 17]].tolist() == [
        [1, 99999, 0],
        [0, 0, 1],
    ]
