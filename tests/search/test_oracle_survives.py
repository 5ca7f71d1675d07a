"""One oracle: what it counts and keeps, and answers that raise, are NaN or never come."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from imd_helpers.runtime import InputError
from imd_helpers.search import Oracle
from imd_helpers.search.oracle import MOST_IDLE, BudgetError


def bowl(points):
    return ((points - 0.3) ** 2).sum(1)


def strict(points):
    """Raises for any point beyond 0.9, is NaN between 0.8 and 0.9, and right elsewhere."""
    if (points > 0.9).any():
        raise ArithmeticError("beyond 0.9")
    return np.where((points > 0.8).any(1), np.nan, bowl(points))


def stubborn(points):
    """Never answers beyond 0.9, and dies between 0.8 and 0.9."""
    if (points > 0.9).any():
        time.sleep(3600)
    if (points > 0.8).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(points)


LINE = np.array([[0.1], [0.95], [0.4], [0.85], [0.6]])
RIGHT = [0.04, np.nan, 0.01, np.nan, 0.09]


def test_one_that_raises_or_is_nan_takes_no_other_down():
    oracle = Oracle(strict)
    assert np.allclose(oracle(LINE)[:, 0], RIGHT, equal_nan=True)
    assert oracle.calls == 5
    assert sorted(oracle.failed.values()) == [
        "ArithmeticError: beyond 0.9",
        "the answer is not finite",
    ]
    oracle(LINE)
    assert oracle.calls == oracle.spent == 5  # a failure is kept like any answer


def test_one_that_never_comes_is_given_up_and_one_that_dies_is_replaced():
    oracle = Oracle(stubborn, limit=0.5)
    began = time.monotonic()
    assert np.allclose(oracle(LINE)[:, 0], RIGHT, equal_nan=True)
    assert time.monotonic() - began < 600  # and not an hour
    whys = sorted(oracle.failed.values())
    assert "TimeoutError: no answer within 0.5 s" in whys[1]
    assert "died" in whys[0]
    assert oracle(np.array([[0.5]]))[0, 0] == pytest.approx(0.04)  # a new process answers
    oracle._answer.stop()


@pytest.mark.parametrize(
    "answer",
    [
        lambda points: np.zeros((3, len(points))),  # a row for each number
        lambda points: np.zeros(0),
        lambda points: np.zeros(len(points) + 1),
        lambda points: "a word",
        lambda points: None,
    ],
)
def test_what_is_no_answer_is_a_failure_and_never_a_number(answer):
    oracle = Oracle(answer)
    assert np.isnan(oracle(LINE)).all()
    assert len(oracle.failed) == oracle.calls == 5


def test_a_function_that_takes_one_point_is_asked_one_by_one():
    oracle = Oracle(lambda points: float(bowl(points)[0]) if len(points) == 1 else bowl(points)[0])
    assert np.allclose(oracle(LINE)[:, 0], bowl(LINE))
    assert not oracle.failed


def sleepy(points):
    time.sleep(0.3)
    return bowl(points)


def test_after_an_interruption_no_answer_is_taken_for_another():
    oracle = Oracle(sleepy, limit=60)
    oracle(np.array([[0.2]]))  # its process has begun

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            oracle(np.array([[0.9]]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert oracle(np.array([[0.4]]))[0, 0] == pytest.approx(0.01)  # and not 0.36
    oracle._answer.stop()


def test_the_budget_is_kept_and_what_fits_is_asked():
    oracle = Oracle(bowl, budget=7)
    points = np.random.default_rng(0).random((5, 2))
    oracle(points)
    oracle(points)
    with pytest.raises(BudgetError, match="7 of a budget of 7"):
        oracle(np.random.default_rng(1).random((5, 2)))
    assert oracle.calls == oracle.spent == 7
    assert oracle.progress == 1.0


def test_a_dear_question_is_refused_before_it_is_asked():
    price = {"cost": lambda row: row[0], "dearest": 3.0}
    oracle = Oracle(lambda points: points[:, 0], budget=8, **price)
    with pytest.raises(BudgetError):
        oracle(np.array([[1.0], [2.0], [3.0], [2.5]]))
    assert oracle.spent == 6.0  # 2 are left, and the next could cost 3
    assert oracle.history()[0].tolist() == [1.0, 3.0, 6.0]


def test_a_search_that_asks_nothing_new_ends():
    oracle = Oracle(bowl, budget=10)
    for _ in range(MOST_IDLE + 1):
        oracle(np.zeros((1, 2)))
    with pytest.raises(BudgetError, match="nothing new"):
        oracle(np.zeros((1, 2)))
    assert oracle.calls == 1


def test_the_log_is_read_and_not_computed_again(tmp_path):
    log = tmp_path / "log.jsonl"
    asked = []

    def counting(points):
        asked.append(len(points))
        return strict(points)

    first = Oracle(counting, log=log, about={"of": "a line"})(LINE)
    n = sum(asked)
    again = Oracle(counting, log=log, about={"of": "a line"})
    assert np.array_equal(again(LINE), first, equal_nan=True)
    assert sum(asked) == n
    assert again.calls == 5  # they count for the new search as for the old one
    assert len(again.failed) == 2
    lines = log.read_text().splitlines()
    assert json.loads(lines[0]) == {"about": {"of": "a line"}}
    assert len(lines) == 6
    with pytest.raises(InputError, match="the log of another search"):
        Oracle(counting, log=log, about={"of": "something else"})


def test_a_torn_line_is_dropped_and_its_question_asked_again(tmp_path):
    log = tmp_path / "log.jsonl"
    whole = Oracle(bowl, log=log)(LINE)
    text = log.read_text()
    log.write_text(text[:-9])
    asked = []
    oracle = Oracle(lambda points: asked.append(points) or bowl(points), log=log)
    assert np.array_equal(oracle(LINE), whole)
    assert len(np.concatenate(asked)) == 1
    assert log.read_text() == text


KILLED = """
import sys, time
from pathlib import Path
from imd_helpers.search import Oracle, Space, minimise

def slow(points):
    time.sleep(0.02 * len(points))
    return ((points - 0.3) ** 2).sum(1)

oracle = Oracle(slow, budget=60, log=Path(sys.argv[1]))
point, value = minimise("genetic", oracle, Space(2), seed=3)
print(repr(value))
"""


def test_a_search_that_is_killed_goes_on_to_the_same_end(tmp_path, monkeypatch, capsys):
    script, log = tmp_path / "search.py", tmp_path / "log.jsonl"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(log)]
    with subprocess.Popen(command) as process:
        while not log.exists() or log.read_text().count("\n") < 15:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    done = log.read_text().count("\n") - 1
    assert done < 60
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "other.jsonl")])
    runpy.run_path(str(script))
    assert ended.stdout == capsys.readouterr().out != ""
    assert log.read_text() == (tmp_path / "other.jsonl").read_text()


def test_impossible_settings_are_refused():
    for name in ("budget", "limit", "dearest"):
        with pytest.raises(InputError, match=f"{name}=0"):
            Oracle(bowl, **{name: 0})
    for cost in (0.0, -1.0, np.nan):  # a search would never end
        with pytest.raises(InputError, match="cost of an answer"):
            Oracle(bowl, budget=9, cost=lambda row, cost=cost: cost)(LINE)
    with pytest.raises(InputError, match="cannot be sent to another process"):
        Oracle(lambda points: points[:, 0], limit=1)
