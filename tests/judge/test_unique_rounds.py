"""Uniqueness of many crystals of one composition: in rounds, verdicts of the plain loop."""

import numpy as np
import pytest

from imd_helpers.crystals import CrystalBatch
from imd_helpers.judge import engine, facts
from imd_helpers.matching import cells as matching
from imd_helpers.matching import same

UNIQUE = facts.FACTS["crystals"]["unique"]


def collapsed(n, seed=0):
    """Crystals of one composition: new ones, near copies of earlier ones, and one broken."""
    rng = np.random.default_rng(seed)
    frac = rng.random((n, 6, 3))
    for i in range(5, n):
        if rng.random() < 0.4:
            frac[i] = frac[rng.integers(i)] + rng.normal(0, 0.01, (6, 3))
    cells = np.eye(3) * 5.0 + rng.normal(0, 0.2, (n, 3, 3))
    numbers = np.tile([11, 11, 17, 17, 8, 8], n)
    out = CrystalBatch.from_ragged(cells, frac.reshape(-1, 3), numbers, [6] * n)
    out.lattice[3] = 0.0
    return CrystalBatch.cat(
        [out, CrystalBatch.from_ragged(cells[:2], frac[:2, :1], [3, 3], [1] * 2)]
    )


def plain(crystals):
    """As `group_structures`: each with the first of every group, a pair at a time."""
    cells = matching.reduce_cells(crystals)
    heads, first = [], np.full(len(crystals), same.NONE)
    for i in range(len(crystals)):
        for j in heads:
            alike = cells.n_sites[i] == cells.n_sites[j] > 0
            pair = [np.array([j, i])]
            if alike and matching.first_matches(cells, pair, n_old=[1])[i] == j:
                first[i] = j
                break
        else:
            if i not in cells.failed:
                heads.append(i)
    return first, cells.failed


def run_of(crystals, tmp_path):
    """A run that is about to ask whether the crystals are unique, about all of them."""
    from imd_helpers.judge.protocols import PROTOCOLS
    from imd_helpers.judge.samples import as_samples
    from imd_helpers.work import Workers

    run = engine.Run(as_samples(crystals), PROTOCOLS["imd"], {}, (), Workers(1), False)
    run.keep_in(tmp_path)
    run.begin(UNIQUE)
    return run


@pytest.mark.parametrize("piece", [3, 7, 20, 500])
def test_all_are_asked_and_told_which_they_repeat(piece, monkeypatch, tmp_path):
    crystals = collapsed(60, seed=1)
    first, failed = plain(crystals)
    monkeypatch.setattr(UNIQUE, "piece", piece)
    run = run_of(crystals, tmp_path)
    UNIQUE.ask(run)
    told = [run.reasons["unique"].get(i, "") for i in range(len(crystals))]
    assert told == [
        failed.get(i) or (f"same as sample {j}" if j != same.NONE else "")
        for i, j in enumerate(first)
    ]
    assert same.unique(crystals).tolist() == run.yes("unique").tolist()
    assert run.yes("unique").tolist() == [why == "" for why in told]


def test_what_was_compared_before_a_kill_is_kept(monkeypatch, tmp_path):
    crystals, asked = collapsed(60, seed=1), []
    monkeypatch.setattr(UNIQUE, "piece", 10)

    def counted(task, most=0):
        asked.append(len(task.rows))
        if most and len(asked) > most:
            raise KeyboardInterrupt
        return carried_out(task)

    carried_out = engine.carried_out
    monkeypatch.setattr(engine, "carried_out", lambda task: counted(task, 6))
    with pytest.raises(KeyboardInterrupt):
        UNIQUE.ask(run_of(crystals, tmp_path))
    done = len(asked) - 1
    monkeypatch.setattr(engine, "carried_out", counted)
    asked.clear()
    again = run_of(crystals, tmp_path)
    UNIQUE.ask(again)
    rest = len(asked)
    fresh = run_of(crystals, None)
    asked.clear()
    UNIQUE.ask(fresh)
    assert done == 6
    assert rest == len(asked) - done
    assert (again.facts["unique"] == fresh.facts["unique"]).all()
