"""The leaderboard: rebuilt from its reports, joined by entries of others, never mixed."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import imd_helpers as imd
from imd_helpers.cli import app
from imd_helpers.crystals import files
from imd_helpers.energies import calibration
from imd_helpers.judge import DefinitionError
from imd_helpers.judge.leaderboard import (
    CARD,
    EACH,
    HIDDEN,
    KIND,
    PER_HOUR,
    REPORT,
    RUNS,
    SAMPLES,
    Board,
    Entry,
    better,
    cells,
    leaderboard,
    read_card,
    shown,
)
from imd_helpers.judge.report import Number
from imd_helpers.judge.samples import DIFFERENT, FOUND, sets_of
from imd_helpers.runtime import InputError, data_path

BUILT_IN = data_path("leaderboard")
ONE, CHEMICAL = "cubic-cubicgan-fixed", "v_o-imatgen-fixed"
PAIR = ("chgnet", "sevennet_l3i5")


@cache
def built_in() -> Board:
    """The book's own entries, read once."""
    return leaderboard()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A copy of one entry, of somebody else."""
    folder = tmp_path / "mine"
    shutil.copytree(BUILT_IN / ONE, folder)
    text = (folder / CARD).read_text(encoding="utf-8")
    text = re.sub(r'name = ".*"', 'name = "somebody"', text, count=1)
    (folder / CARD).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def single(mine: Path) -> Path:
    """The same with its first run only."""
    for run in mine.glob("run-*"):
        shutil.rmtree(run)
    return mine


def test_tables_are_those_of_the_reports() -> None:
    board = built_in()
    assert not board.refused
    again = leaderboard()
    assert str(board) == str(again)
    for title, table in board.tables().items():
        entries = [each for each in board.entries if each.card.table == title]
        assert list(table.index) == [each.card.name for each in entries]
        for one in entries:
            files_of = [one.folder / REPORT, *sorted(one.folder.glob(f"{RUNS}/{REPORT}"))]
            runs = [json.loads(file.read_text(encoding="utf-8")) for file in files_of]
            assert len(runs) == len(one.reports)
            copies = np.mean([data["values"][KIND].count(0.0) / data["n"] for data in runs])
            assert one.shares()["copy"].value == pytest.approx(copies)
            assert table.loc[one.card.name, "copy"] == shown(one.shares()["copy"])
            valid = [{k["name"]: k["value"] for k in data["numbers"]}["valid"] for data in runs]
            assert one.shares()["valid"].value == pytest.approx(np.mean(valid))


@pytest.mark.parametrize(
    ("hits", "n", "text"), [(7, 40, "18 % (9–32)"), (2, 300, "0.7 % (0.2–2.4)"), (0, 0, "–")]
)
def test_shares_have_the_digits_of_their_interval(hits: int, n: int, text: str) -> None:
    assert shown(Number.share("any", hits, n, {})) == text


def test_reports_are_of_the_samples_beside_them() -> None:
    for one in built_in().entries:
        samples = files.read(one.folder / SAMPLES)
        assert len(samples) == one.report.n
        decodes = one.report.facts["decodes"] == 1
        assert (decodes == samples.ok).all()


def test_best_first() -> None:
    board = built_in()
    for title in board.tables():
        rows = [each for each in board.entries if each.card.table == title]
        values = [each.rank() for each in rows]
        assert values == sorted(values, reverse=True)
    ranked = [each for each in board.entries if each.rank() >= 0]
    assert len(ranked) >= 9
    column = "S.U.N. ≤ 0.1, by DFT"
    assert all(each.shares()[column].value == pytest.approx(each.rank()) for each in ranked)


def test_several_runs_make_one_row(single: Path) -> None:
    """The mean, an interval that holds those of samples and of runs, and the price of one run."""
    others = ("cubic-substitution", "cubic-site-marginals")
    first = [replace(some, reports=some.reports[:1]) for some in map(entry, others)]
    each = [*leaderboard(single, built_in=False).entries, *first]
    for k, name in enumerate(others, 2):
        place = single / f"run-{k}"
        place.mkdir()
        for file in (SAMPLES, REPORT):
            shutil.copy(BUILT_IN / name / file, place / file)
    (one,) = leaderboard(single, built_in=False).entries
    assert one.ranks() == [some.rank() for some in each]
    column = "S.U.N. ≤ 0.1, by DFT"
    for name, share in one.shares().items():
        values = [some.shares()[name].value for some in each]
        assert share.value == pytest.approx(np.mean(values))
        assert share.low <= share.value <= share.high
        assert share.n == 300
    spread = np.std(one.ranks(), ddof=1) / np.sqrt(3) * 4.303  # Student's, two degrees of freedom
    share = one.shares()[column]
    assert share.high - share.value > spread
    assert cells(one)["n"] == "3 × 100"
    assert cells(one)[EACH].count("/") == 2
    judged = np.mean([some.cpu_seconds - some.card.training_seconds for some in each])
    assert one.cpu_seconds - one.card.training_seconds == pytest.approx(judged, abs=10)
    assert better(one, each[0]) + better(each[0], one) == pytest.approx(1, abs=0.05)


def test_runs_that_agree_add_nothing(single: Path) -> None:
    """Twice the same run: Wilson's interval of all, as nothing is beyond the luck of samples."""
    (alone,) = leaderboard(single, built_in=False).entries
    place = single / "run-2"
    place.mkdir()
    for file in (SAMPLES, REPORT):
        shutil.copy(BUILT_IN / ONE / file, place / file)
    (one,) = leaderboard(single, built_in=False).entries
    hits = round(100 * alone.shares()["valid"].value)
    share, ends = one.shares()["valid"], imd.judge.wilson(2 * hits, 200)
    assert (share.low, share.high) == pytest.approx(tuple(map(float, ends)))


def test_runs_of_unequal_size_are_refused(single: Path) -> None:
    place = single / "run-2"
    place.mkdir()
    for file in (SAMPLES, REPORT):
        shutil.copy(BUILT_IN / CHEMICAL / file, place / file)
    board = leaderboard(single, built_in=False)
    assert "runs of 100 and of 30" in board.refused["mine"]


def test_a_report_without_energies_has_a_row_and_no_rank() -> None:
    one = entry(ONE)
    kept = tuple(each for each in one.report.numbers if "expected" not in each.name)
    bare = replace(one, reports=(replace(one.report, numbers=kept),))
    assert bare.rank() == -1 < one.rank()
    assert cells(bare)[PER_HOUR] == "–" != cells(one)[PER_HOUR]
    with pytest.raises(InputError, match="without two potentials"):
        better(bare, bare)


@pytest.mark.equation(
    "eq-leaderboard-rate", function="imd_helpers.judge.leaderboard.Entry.per_hour"
)
def test_rate_counts_training_sampling_and_judging(agrees) -> None:
    one = entry(ONE)
    judged = np.mean([sum(stage.seconds for stage in each.stages) for each in one.reports])
    hours = (one.card.training_seconds + one.card.sampling_seconds + judged) / 3600
    share = np.mean([each["S.U.N. within 0.1, expected by DFT"].value for each in one.reports])
    agrees(one.per_hour(), share * one.report.n / hours, within=1e-9)
    assert one.card.training_seconds > 60


def test_another_entry_joins(mine: Path) -> None:
    board = leaderboard(mine)
    table = board.tables()[read_card(mine / CARD).table]
    assert (table.loc["somebody"] == table.loc["CubicGAN fixed"]).all()
    alone = leaderboard(mine.parent, built_in=False)
    assert [each.card.name for each in alone.entries] == ["somebody"]


def test_foreign_cifs_are_judged_and_kept(tmp_path: Path) -> None:
    known = imd.datasets.load("oqmd_icsd").select(formulas=["ClNa", "MgO"], space_groups=[225])
    folder = tmp_path / "cifs"
    folder.mkdir()
    for i, structure in enumerate(known.crystals[:2].structures()):
        structure.to(filename=str(folder / f"{i}.cif"))
    card = 'name = "two CIFs"\ntable = "small"\nmade_by = "published"\nsource = "here"\n'
    (folder / CARD).write_text(card, encoding="utf-8")
    board = leaderboard(folder, built_in=False)
    report = board.entries[0].report
    assert report.n == 2
    assert board.entries[0].shares()["valid"].value == 1.0
    assert np.isin(report.values[KIND], (0, 1)).all()  # known crystals are copies
    assert sorted(file.name for file in folder.iterdir()) == ["0.cif", "1.cif", CARD, REPORT]
    assert str(leaderboard(folder, built_in=False)) == str(board)


def test_a_bad_entry_stops_nothing(mine: Path) -> None:
    bad = mine.parent / "bad"
    bad.mkdir()
    (bad / CARD).write_text('name = "x"\ncolour = "red"\n', encoding="utf-8")
    worse = mine.parent / "worse"
    worse.mkdir()
    (worse / CARD).write_text("name = [", encoding="utf-8")
    empty = mine.parent / "empty"
    empty.mkdir()
    (empty / CARD).write_text(
        'name = "e"\ntable = "t"\nmade_by = "rung"\nsource = "s"\n', encoding="utf-8"
    )
    board = leaderboard(mine.parent, built_in=False)
    assert [each.card.name for each in board.entries] == ["somebody"]
    assert "colour" in board.refused["bad"]
    assert "TOML" in board.refused["worse"]
    assert "no samples" in board.refused["empty"]
    assert "refused bad" in str(board)


def test_other_definitions_are_not_ranked(mine: Path) -> None:
    file = mine / REPORT
    data = json.loads(file.read_text(encoding="utf-8"))
    data["about"]["energies"]["stable"] = 0.05
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(DefinitionError, match="somebody"):
        leaderboard(mine)


def test_tables_are_not_mixed(tmp_path: Path) -> None:
    """An entry of one chemistry that calls itself one of all elements is refused."""
    folder = tmp_path / "guest"
    shutil.copytree(BUILT_IN / CHEMICAL, folder)
    text = (folder / CARD).read_text(encoding="utf-8")
    (folder / CARD).write_text(text.replace('table = "V-O"', 'table = "cubic ternaries"'))
    with pytest.raises(DefinitionError, match="cannot be compared"):
        leaderboard(folder)
    with pytest.raises(DefinitionError, match="cannot be compared"):
        better(entry(ONE), entry(CHEMICAL))


def test_hidden_crystals_are_those_that_the_matcher_finds() -> None:
    """The columns of the report against the matcher, for an entry that finds some."""
    one = entry("cubic-ion-exchange")
    hidden = sets_of().hidden
    samples = files.read(one.folder / SAMPLES).crystals
    same = ~imd.judge.novel(samples, hidden)
    assert one.report[FOUND].value * one.report.n == pytest.approx(same.sum())
    assert 0 < one.report[DIFFERENT].value * len(hidden) <= same.sum() + 1e-2
    assert f"of {len(hidden):,}" in cells(one)[DIFFERENT]
    first = one.report.values[HIDDEN]
    assert (np.isfinite(first) == same).all()
    i = int(np.flatnonzero(same)[0])
    assert samples[[i]].formulas() == hidden[[int(first[i])]].formulas()


def test_of_one_chemistry_all_real_crystals_are_hidden() -> None:
    sets = sets_of("V-O", "v_o")
    assert len(sets.hidden) == 28
    assert all(set(formula) <= set("VO0123456789") for formula in sets.hidden.formulas())
    assert not set(sets.hidden.formulas()) & set(sets.known.crystals.formulas())
    assert imd.judge.novel(sets.training.crystals, sets.hidden).all()
    everything = sets_of()
    assert everything.training is None
    assert len(everything.known) + len(everything.hidden) == 32_159
    with pytest.raises(InputError, match="give both"):
        sets_of("V-O")
    with pytest.raises(InputError, match="'Xe-Ne' alone"):
        sets_of("Xe-Ne", "v_o")


def test_no_entry(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an entry is a folder"):
        leaderboard(tmp_path, built_in=False)


def test_page_is_whole_and_asks_nobody(tmp_path: Path) -> None:
    out = tmp_path / "board.html"
    result = CliRunner().invoke(app, ["leaderboard", "-o", str(out)])
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    assert "http" not in text
    assert text.count("<tr") == len(built_in().entries) + len(built_in().tables())


def entry(folder: str) -> Entry:
    """One that is built in."""
    return next(each for each in built_in().entries if each.folder.name == folder)


@pytest.mark.equation(
    "eq-leaderboard-expected",
    function="imd_helpers.energies.calibration.Calibration.expected",
)
def test_rank_is_the_sum_of_calibrated_probabilities(agrees) -> None:
    for one in built_in().entries:
        if one.rank() < 0:  # judged without energies
            continue
        total = 0.0
        for i in np.flatnonzero(one.report.facts["metastable"] >= 0):
            above = [one.report.values[f"energy_above_hull {k}"][i] for k in PAIR]
            formed = one.report.values["formation_energy"][i]
            if not np.isfinite(above).all():  # one of the potentials has no energy: no hit
                continue
            mean, apart = np.clip(np.mean(above), -0.3, 0.6), min(abs(np.subtract(*above)), 0.3)
            b = calibration.calibration(PAIR, 0.1).coefficients
            metals = one.report.values["metals alone"][i]
            exponent = b @ [1, mean, apart, formed, metals]
            total += 1 / (1 + np.exp(-exponent))
        agrees(
            one.report["S.U.N. within 0.1, expected by DFT"].value,
            total / one.report.n,
            within=1e-5,
        )


@pytest.mark.equation("eq-leaderboard-better", function="imd_helpers.judge.leaderboard.better")
def test_better(agrees) -> None:
    """An entry beside itself wins as often as it loses; two entries share all the wins."""
    good, bad = entry(ONE), entry("cubic-cubicgan-paper")
    agrees(better(good, good), 0.5, within=0.05)  # as often as the other
    assert better(good, bad) > 0.9
    agrees(better(good, bad) + better(bad, good), 1.0, within=0.05)
