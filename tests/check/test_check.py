import dataclasses
import math
import re
from functools import cache

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.check import CHECKS, Check
from imd_helpers.check.foundations import calls_for_one_hit
from imd_helpers.runtime import InputError, UnknownNameError


def test_every_check_tells_right_from_wrong(capsys, monkeypatch):
    """The truth is computed twice, and comes out the same; the rest asks what is known by then."""
    assert len(imd.check.names()) == len(CHECKS) >= 2
    for name, fresh in list(CHECKS.items()):
        truth = fresh.truth()
        assert math.isfinite(truth)
        assert 0 < truth < 1 or not fresh.share
        check = dataclasses.replace(fresh, truth=cache(fresh.truth))
        monkeypatch.setitem(CHECKS, name, check)
        assert imd.check.answer(name, truth)
        assert "right." in capsys.readouterr().out
        assert not imd.check.answer(name, truth + 1 + 2 * check.tolerance * abs(truth))
        said = capsys.readouterr().out
        assert check.hint in said
        numbers = re.findall(r"\d+(?:\.\d+)?", check.hint.replace("log softmax by logit 1", ""))
        assert not any(check.right(number) for number in numbers)  # nothing is given away


def test_the_tolerance_is_a_share_of_the_truth():
    check = Check(lambda: 200.0, "hint", tolerance=0.01)
    assert check.right(201.9)
    assert not check.right(202.1)


@pytest.mark.parametrize("value", [..., None, "many", float("nan"), [1, 2]])
def test_an_answer_is_a_finite_number(value):
    with pytest.raises(InputError, match="number"):
        imd.check.answer("inverse_design.1", value)


@pytest.mark.parametrize("value", [24.0, "24", np.float32(24)])
def test_per_cent_in_place_of_a_share_get_a_hint(monkeypatch, capsys, value):
    asked = Check(lambda: 0.24, "another hint", share=True)
    monkeypatch.setitem(CHECKS, "inverse_design.1", asked)
    assert not imd.check.answer("inverse_design.1", value)
    said = capsys.readouterr().out
    assert "divide by 100" in said
    assert "another hint" not in said
    assert not imd.check.answer("inverse_design.1", 25)  # wrong as a share too: both hints
    said = capsys.readouterr().out
    assert "divide by 100" in said
    assert "another hint" in said
    for other in (0.25, 101, -3):
        assert not imd.check.answer("inverse_design.1", other)
        assert "divide by 100" not in capsys.readouterr().out


def test_shares_are_marked_as_such():
    marked = {name for name, check in CHECKS.items() if check.share}
    assert {"conditional_gan.1", "matgan.2", "vae_rnn_rl.2", "comparison.1"} <= marked


def test_an_unknown_exercise_lists_the_nearest():
    with pytest.raises(UnknownNameError, match=r"inverse_design\.1"):
        imd.check.answer("inverse_desing.1", 3)


def test_calls_for_one_hit():
    assert calls_for_one_hit(10, 10, chance=0.95) == 1
    assert calls_for_one_hit(10, 1, chance=0.5) == 5
    assert calls_for_one_hit(10, 1, chance=1.0) == 10
    assert calls_for_one_hit(5, 0, chance=0.5) == math.inf
    n, hits = 943, 28
    calls = calls_for_one_hit(n, hits, chance=0.95)
    missed = [math.comb(n - hits, k) / math.comb(n, k) for k in (calls - 1, calls)]
    assert missed[0] > 0.05 >= missed[1]


def test_truths_of_cubicgan_are_those_of_the_tables():
    """ITA: site 24d of Fm-3m; and (2 - 1)^2 for a slope of 2."""
    assert CHECKS["cubicgan.1"].truth() == 24
    assert CHECKS["cubicgan.2"].truth() == pytest.approx(1.0)
