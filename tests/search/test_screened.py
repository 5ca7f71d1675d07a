"""Filters one behind the other: counts, reasons, and killed runs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from imd_helpers.crystals import CrystalBatch
from imd_helpers.runtime import InputError
from imd_helpers.search import Filter, screened

NUMBERS = np.arange(1000)


def even(some):
    return {"keep": some % 2 == 0, "half": some / 2}


def not_of_seven(some):
    if (some % 77 == 0).any():
        raise ValueError("a multiple of 77")
    return {"keep": some % 7 != 0, "rest": some % 7}


def broken(some):
    raise ValueError("always")


def without_answer(some):
    return {"half": some / 2}


def too_short(some):
    return {"keep": some[1:] > 0}


def no_module(some):
    raise ImportError("no module")


FILTERS = (Filter("even", even, piece=64), Filter("seven", not_of_seven, piece=50))


def by_hand():
    left = NUMBERS[NUMBERS % 2 == 0]
    return left[(left % 7 != 0)]


@pytest.mark.parametrize("workers", [1, 2])
def test_counts_values_and_reasons(workers):
    found = screened(NUMBERS, FILTERS, workers=workers)
    assert found.left.tolist() == by_hand().tolist()
    assert [(s["tried"], s["passed"], s["failed"]) for s in found.stages] == [
        (1000, 500, 0),
        (500, len(by_hand()), 7),
    ]
    assert (found.values["half"] == NUMBERS / 2).all()
    asked = np.isfinite(found.values["rest"])
    bad = (NUMBERS % 154) == 0
    assert (asked == ((NUMBERS % 2 == 0) & ~bad)).all()  # one bad candidate costs no other
    assert sorted(found.failed) == np.flatnonzero(bad).tolist()
    assert found.failed[154] == "ValueError: a multiple of 77"


def test_the_best_of_a_number_go_on():
    best = Filter("even", even, best=("half", 3))
    assert screened(NUMBERS[::-1].copy(), [best]).left.tolist() == [995, 997, 999]
    with pytest.raises(InputError, match=r"number 'third'.*half"):
        screened(NUMBERS, [Filter("even", even, best=("third", 3))])


def test_no_candidate_is_left_and_the_rest_is_not_asked():
    none = Filter("none", partial(np.less, 5000), piece=9)
    with pytest.raises(InputError, match="breaks down on all 1000"):
        screened(NUMBERS, [none])  # an array is no answer
    found = screened(NUMBERS[1:2], FILTERS)
    assert [s["tried"] for s in found.stages] == [1, 0]
    best = Filter("the best of nobody", not_of_seven, best=("rest", 3))
    assert not len(screened(NUMBERS[1:2], [FILTERS[0], best]).left)


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (broken, "breaks down on all 1000 candidates alike: ValueError: always"),
        (without_answer, "an answer needs keep"),
        (too_short, "an answer needs keep"),
    ],
)
def test_a_question_that_always_breaks_down_is_an_error(ask, match):
    with pytest.raises(InputError, match=match):
        screened(NUMBERS, [Filter("x", ask)])


def test_input_is_checked():
    with pytest.raises(ImportError, match="no module"):
        screened(NUMBERS, [Filter("x", no_module)])
    with pytest.raises(InputError, match="number of candidates=0"):
        screened(NUMBERS[:0], FILTERS)
    with pytest.raises(InputError, match="two filters are called 'even'"):
        screened(NUMBERS, [FILTERS[0], FILTERS[0]])
    with pytest.raises(InputError, match="piece=0"):
        screened(NUMBERS, [Filter("even", even, piece=0)])


# ---- what is kept


def count(some, log):
    with Path(log).open("a") as file:
        file.write(f"{len(some)}\n")
    return even(some)


def test_finished_pieces_are_taken_and_others_are_not(tmp_path):
    log = tmp_path / "log"
    log.touch()

    def asked(about="", numbers=NUMBERS):
        before = len(log.read_text().split())
        filters = [Filter("even", partial(count, log=log), piece=100, about=about)]
        found = screened(numbers, filters, cache=tmp_path / "kept")
        return found.left.tolist(), len(log.read_text().split()) - before

    first = asked()
    assert first[1] == 10
    assert asked() == (first[0], 0)
    (damaged,) = (tmp_path / "kept").rglob("even-00003.npz")
    damaged.write_bytes(damaged.read_bytes()[:99])
    assert asked() == (first[0], 1)
    assert asked("another threshold") == (first[0], 10)
    assert asked(numbers=NUMBERS + 1)[1] == 10


SLOW = """
    import sys, time
    import numpy as np
    from imd_helpers.search import Filter, screened
    def slow(some):
        if sys.argv[2] == "slow":
            time.sleep(0.15)
        return {"keep": some % 3 > 0, "square": some**2.0}
    if __name__ == "__main__":
        filters = [Filter("a", slow, piece=50), Filter("b", slow, piece=50)]
        how = {"workers": int(sys.argv[3]), "progress": True}
        found = screened(np.arange(1000), filters, cache=sys.argv[1], **how)
        print(found.left.sum(), np.nansum(found.values["square"]))
        print([(s["tried"], s["passed"]) for s in found.stages])
"""


@pytest.fixture(scope="module")
def script_and_table(tmp_path_factory):
    """The script, and what it prints when nobody stops it."""
    script = tmp_path_factory.mktemp("whole") / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    command = [sys.executable, str(script), str(script.parent / "kept"), "fast", "1"]
    return script, subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_and_gives_the_same_table(script_and_table, tmp_path, workers):
    script, table = script_and_table

    def run(folder, pace):
        return [sys.executable, str(script), str(tmp_path / folder), pace, str(workers)]

    process = subprocess.Popen(run("killed", "slow"))
    deadline = time.time() + 120
    while len(list((tmp_path / "killed").rglob("*.npz"))) < 4:
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {file: os.stat(file).st_mtime_ns for file in (tmp_path / "killed").rglob("*.npz")}
    assert 4 <= len(kept) < 35
    again = subprocess.run(run("killed", "fast"), capture_output=True, text=True, check=True)
    assert again.stdout == table
    assert "1000/1000" in again.stderr  # the bar
    assert all(os.stat(file).st_mtime_ns == then for file, then in kept.items())


def test_a_dask_cluster_does_the_same():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one:
        found = screened(NUMBERS, [Filter("even", partial(np_even), piece=300)],
                         scheduler=one.scheduler_address)  # fmt: skip
    assert found.left.tolist() == NUMBERS[::2].tolist()


def np_even(some):
    return {"keep": some % 2 == 0}


def test_crystals_can_be_candidates(tmp_path):
    crystals = CrystalBatch.from_ragged(np.eye(3)[None].repeat(4, 0) * 4, np.zeros((4, 3)),
                                        [3, 11, 19, 37], [1] * 4)  # fmt: skip
    light = Filter("light", lambda some: {"keep": some.numbers[:, 0].numpy() < 12}, piece=3)
    assert screened(crystals, [light], cache=tmp_path).left.tolist() == [0, 1]
    assert screened(crystals, [light], cache=tmp_path).left.tolist() == [0, 1]
