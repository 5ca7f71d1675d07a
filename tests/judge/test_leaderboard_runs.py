"""Judging entries: killed at any place and gone on with; crystals of six other generators."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import Spring, use_fake_hull

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import files
from imd_helpers.judge import judge
from imd_helpers.judge import leaderboard as boards
from imd_helpers.judge.leaderboard import CARD, KIND, PER_HOUR, REPORT, Board, leaderboard
from imd_helpers.runtime import data_path

HERE = Path(__file__).parent
CLOCK = [PER_HOUR, "CPU hours"]  # columns of measured seconds
KILLED = """
import sys
sys.path.insert(0, {here!r})
import pytest
from test_leaderboard_runs import cheap, die_at, leaderboard
cheap(pytest.MonkeyPatch())
die_at({place})
leaderboard({folder!r}, built_in=False)
print("done")
"""


def card(name: str, table: str) -> str:
    """The lines that an entry needs."""
    return f'name = "{name}"\ntable = "{table}"\nmade_by = "published"\nsource = "a test"\n'


class Uneven(Spring):
    """A spring whose energies differ by formula and by potential, from -0.2 to 0.3 eV/atom."""

    def _run(self, crystals, forces):
        for formula in crystals.formulas():
            self.energy[formula] = zlib.crc32(f"{self.name} {formula}".encode()) % 1000 / 2000 - 0.2
        return super()._run(crystals, forces)


def cheap(patch: pytest.MonkeyPatch) -> None:
    """Potentials and hull that cost nothing; everything else is as it is."""
    use_fake_hull(patch)
    pair = [Uneven(name=name) for name in ("chgnet", "sevennet_l3i5")]
    patch.setattr(boards, "judge", partial(judge, potentials=pair))


def die_at(place: int) -> None:
    """Kill this process when it is about to finish writing its n-th file."""
    written, fsync = [0], os.fsync

    def fatal(file):
        written[0] += 1
        if written[0] == place:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = fatal


def lasting(board: Board) -> tuple[dict[str, str], list[dict]]:
    """What no clock has measured: tables, and all that the reports hold."""
    tables = {k: v.drop(columns=CLOCK).to_string() for k, v in board.tables().items()}
    reports = [json.loads(r.to_json()) for e in board.entries for r in e.reports]
    for each in reports:
        for part in (*each["stages"], *each["numbers"]):
            part.pop("seconds")
    return tables, reports


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """Three entries of a few crystals, one of them in two runs."""
    known = imd.datasets.load("oqmd_icsd", split="train").select(nelements=3, space_groups=[225])
    sampler = baselines.Substitution(known.crystals[:40])
    for seed, place in enumerate(("one", "one/run-2", "other", "third")):
        folder = tmp_path / "entries" / place
        folder.mkdir(parents=True)
        files.write(folder / "samples.extxyz", sampler.sample(5, seed=seed).crystals)
        if "/" not in place:
            (folder / CARD).write_text(card(place, "small"), encoding="utf-8")
    return tmp_path / "entries"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_random_places_it_comes_to_the_same_table(entries, tmp_path, monkeypatch):
    """Killed twice in the midst of writing, at places that every run of the test draws anew."""
    cheap(monkeypatch)
    whole = tmp_path / "whole"
    shutil.copytree(entries, whole)
    places, fsync = [0], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: places.append(1) or fsync(file))
    expected = lasting(leaderboard(whole, built_in=False))
    monkeypatch.setattr(os, "fsync", fsync)
    assert any("by DFT" in line for line in expected[0].values())
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)  # shown if the test fails
    rng = random.Random(seed)
    for share in (0.6, 0.3):  # of what there is to write
        place = rng.randint(1, int(share * sum(places)))
        script = KILLED.format(here=str(HERE), place=place, folder=str(entries))
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        assert run.returncode == -signal.SIGKILL, run.stderr
        assert "done" not in run.stdout
    assert len(list(entries.rglob(REPORT))) < 4
    board = leaderboard(entries, built_in=False)
    assert not board.refused
    assert lasting(board) == expected
    assert not list(entries.rglob("work"))
    assert str(leaderboard(entries, built_in=False)) == str(board)  # now from the reports


def test_six_generators_of_others_join(tmp_path: Path) -> None:
    """Published CIFs of six generators become a table of six rows, beside the others' tables."""
    source = Path(os.environ.get("IMD_DATA_DIR", ""), "generated_dft", "calibration.csv.xz")
    if not os.environ.get("IMD_DATA_DIR") or not source.exists():
        pytest.skip("set IMD_DATA_DIR to a folder that holds generated_dft/calibration.csv.xz")
    table = pd.read_csv(source)
    table["sites"] = [text.split("_atom_site_occupancy")[-1].count("\n") for text in table["cif"]]
    for method, some in table.groupby("method"):
        folder = tmp_path / method
        folder.mkdir()
        for i, text in enumerate(some.sort_values("sites", kind="stable")["cif"][:2]):
            (folder / f"{i}.cif").write_text(text, encoding="utf-8")
        (folder / CARD).write_text(card(method, "generators of others"), encoding="utf-8")
    before = leaderboard().tables()
    board = leaderboard(tmp_path)
    assert not board.refused
    tables = board.tables()
    theirs = tables.pop("generators of others")
    assert sorted(theirs.index) == sorted(table["method"].unique())
    assert len(theirs) == 6
    assert all(tables[title].equals(before[title]) for title in before)
    for one in board.entries:
        if one.card.made_by == "published":
            assert one.report.n == 2
            assert (one.report.facts["decodes"] == 1).all()
            assert 0 <= one.rank() <= 1
            assert not (one.report.values[KIND] == 0).all()  # they are no copies of what is known
    assert str(leaderboard(tmp_path)) == str(board)
    assert not list(data_path("leaderboard").glob("generators*"))
    assert np.isfinite([each.rank() for each in board.entries]).all()
