"""The command line, as a shell calls it: files, exit codes, one-line errors."""

import json
import re
import subprocess
import sys

import pytest

from imd_helpers import cli, models
from imd_helpers import datasets as imd_datasets
from imd_helpers.crystals import files
from imd_helpers.work import locked

TINY = ["--profile", "smoke", "--steps", "2", "--width", "0.02"]


class Done:
    """What a command left behind."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


@pytest.fixture
def imd(monkeypatch, capsys):
    """Run the command line in this process: a process of its own costs seconds of imports."""

    def run(*arguments, folder=None):
        if folder is not None:
            monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["imd", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Done(code, *capsys.readouterr())

    return run


def test_the_installed_command_runs():
    done = subprocess.run(
        [sys.executable, "-c", "from imd_helpers.cli import main; main()", "--help"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "judge" in done.stdout


def test_data_list_names_every_set(imd):
    done = imd("data", "list")
    assert done.returncode == 0, done.stderr
    about = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert {"oqmd_icsd", "mp_20"} <= about.keys()
    assert not any(text.startswith(("#", "-", "<")) for text in about.values())


def test_search_writes_structures_and_goes_on_from_its_log(imd, tmp_path):
    out, log = tmp_path / "found.extxyz", tmp_path / "found.jsonl"
    given = ["search", "MgO", "--calls", "60", "--steps", "20", "--method", "random", "-o", out]
    done = imd(*given)
    assert done.returncode == 0, done.stderr
    assert re.search(r"wrote \d structures to .*; the lowest has -[56]\.\d{4} eV/atom", done.stdout)
    lines, text = log.read_text().splitlines(), out.read_text()
    assert json.loads(lines[0])["about"]["formula"] == "MgO"
    assert len(lines) == 4
    assert imd(*given).returncode == 0
    assert out.read_text() == text
    log.write_text("\n".join(lines[:3]) + "\n")  # as if it had been stopped after two
    again = imd(*given)
    assert again.returncode == 0
    assert len(log.read_text().splitlines()) == 4
    # one relaxed alone rounds otherwise than one in a batch
    energies = [float(re.search(r"lowest has (\S+)", each.stdout)[1]) for each in (done, again)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-3)
    other = imd(*given, "--seed", "1")
    assert other.returncode == 2
    assert "the log of another search" in other.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["MgO", "--method", "genetics"], "unknown method 'genetics'; known, nearest first: gen"),
        (["MgO", "--calls", "10"], "one relaxation may take steps=60"),
        (["Mgg"], "Mgg"),
        (["MgO", "--potential", "chgnett"], "unknown potential"),
        (["SrTiO3", "--units", "9"], "at most 40, take fewer units"),
        (["MgO", "--seed", "-1"], "seed=-1"),
    ],
)
def test_search_says_what_is_wrong(imd, tmp_path, given, message):
    done = imd("search", *given, "-o", tmp_path / "found.extxyz")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "found.jsonl").exists()  # no log that the next try would stumble over
    assert "%|" not in done.stderr  # no bar of a search that never began


def test_train_sample_judge_one_after_the_other(imd, tmp_path):
    trained = imd("train", "cubicgan", "--out", tmp_path / "run", *TINY)
    assert trained.returncode == 0, trained.stderr
    weights = tmp_path / "run" / "model.safetensors"
    made = imd("sample", "cubicgan", "-n", 30, "-o", tmp_path / "made.extxyz", "--weights", weights)
    assert made.returncode == 0, made.stderr
    judged = imd("judge", tmp_path / "made.extxyz", "-o", tmp_path / "report.json")
    assert judged.returncode == 0, judged.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["n"] == 30
    names = [stage["name"] for stage in report["stages"]]
    assert names[0] == "decodes"
    assert "space group" in names


@pytest.mark.parametrize("model", models.names())
def test_what_sample_writes_reads_back_for_every_model(imd, tmp_path, model):
    suffix = ".csv" if models.find(model).holds == "compositions" else ".extxyz"
    out = tmp_path / f"made{suffix}"
    made = imd("sample", model, "-n", 3, "-o", out)
    assert made.returncode == 0, made.stderr
    read, asked = files.read(out), models.load(model).sample(3, seed=0)
    assert read.ok.tolist() == asked.ok.tolist()
    assert read.formulas() == asked.formulas()
    for name, values in asked.asked.items() if suffix == ".extxyz" else ():
        assert read.asked[name] == pytest.approx(values)


def test_a_model_of_formulas_writes_a_table(imd, tmp_path):
    trained = imd("train", "matgan", "--out", tmp_path / "run", *TINY)
    assert trained.returncode == 0, trained.stderr
    weights = tmp_path / "run" / "model.safetensors"
    made = imd("sample", "matgan", "-n", 30, "-o", tmp_path / "made.csv", "--weights", weights)
    assert made.returncode == 0, made.stderr
    lines = (tmp_path / "made.csv").read_text().splitlines()
    assert lines[0] == "formula,reason"
    assert len(lines) == 31
    assert all(formula or reason for formula, reason in (x.rsplit(",", 1) for x in lines[1:]))
    judged = imd("judge", tmp_path / "made.csv", "-o", tmp_path / "report.json")
    assert judged.returncode == 0, judged.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["n"] == 30


def test_formulas_of_people_are_judged_against_files(imd, tmp_path):
    (tmp_path / "made.csv").write_text("formula,reason\nNaN,\n,no atoms\nNaCl,\nNaCl,\nMgO,\n")
    (tmp_path / "known.csv").write_text("composition\nMgO\nQq\n")
    done = imd("judge", tmp_path / "made.csv", "--reference", tmp_path / "known.csv")
    assert done.returncode == 0, done.stderr
    assert "reference: 1 of 2 left out" in done.stderr
    wrong = imd("judge", tmp_path / "made.csv", "--protocol", "cdvae")
    assert wrong.returncode == 2
    assert "judges crystals, and these are formulas" in wrong.stderr


def test_a_folder_is_judged_against_a_file(imd, tmp_path):
    from imd_helpers.crystals import files

    crystals = imd_datasets.load("oqmd_icsd")[:4].crystals
    (tmp_path / "made").mkdir()
    for i, crystal in enumerate(crystals):
        crystal.structures()[0].to(str(tmp_path / "made" / f"{i}.cif"))
    known = files.write(tmp_path / "known.extxyz", crystals[:1])
    done = imd("judge", tmp_path / "made", "--reference", known, "--no-energies",
               "-o", tmp_path / "report.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["n"] == 4


def test_coverage_says_how_long_it_takes(monkeypatch, capsys):
    crystals = imd_datasets.load("oqmd_icsd")[:300].crystals
    cli._announce_coverage("imd", [crystals] * 40, 1)
    assert capsys.readouterr().out == ""
    cli._announce_coverage("cdvae", [crystals] * 40, 1)
    assert re.match(r"coverage: about \d+ minutes; --no-distributions", capsys.readouterr().out)


def test_outputs_are_tried_before_the_work(imd, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.fsync", refuse)  # a block is written, not only a file opened
    done = imd("judge", "nothing.extxyz", "-o", tmp_path / "report.json")
    assert done.returncode == 2
    assert "cannot write there" in done.stderr
    assert "Read-only file system" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_formula_nan_comes_back_through_pandas(tmp_path):
    import pandas as pd

    from imd_helpers.crystals import compositions, files
    from imd_helpers.crystals.samples import Samples

    made = Samples.from_counts(compositions.parse(["NaN", "MgO"])[0])
    cli._write_samples(tmp_path / "made.csv", made)
    assert pd.read_csv(tmp_path / "made.csv")["formula"].tolist() == ["Na1N1", "MgO"]
    assert (files.read(tmp_path / "made.csv").counts == made.counts).all()


def test_resume_goes_on(imd, tmp_path):
    imd("train", "cubicgan", "--out", tmp_path, *TINY)
    again = imd("train", "cubicgan", "--out", tmp_path, "--resume", *TINY[:3], 4, *TINY[4:])
    assert again.returncode == 0, again.stderr
    rows = json.loads((tmp_path / "run.json").read_text())["history"]
    assert [row["step"] for row in rows] == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "cubicgn"), "known, nearest first: cubicgan"),
        (("train", "cubicgan", "--profile", "smok"), "smoke"),
        (("train", "cubicgan", "--variant", "fix"), "fixed"),
        (("sample", "cubicgan", "-o", "x.extxyz", "--space-group", "300"), "space group 300"),
        (("sample", "cubicgan", "-o", "x.extxyz", "--elements", "Cs,Pb"), "three different"),
        (("sample", "cubicgan", "-o", "x.pdf"), "suffix"),
        (("sample", "cubicgan", "-o", "x.extxyz", "--value", "1.0"), "cannot be asked"),
        (("sample", "sequence_gan", "-o", "x.csv", "--space-group", "225"), "without a condition"),
        (("sample", "matgan", "-o", "x.extxyz"), "suffix"),
        (("judge", "nothing.extxyz"), "no file nothing.extxyz"),
        (("data", "card", "oqmd"), "oqmd_icsd"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(imd, arguments, message, tmp_path):
    done = imd(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_download_that_cannot_work_says_why(imd, monkeypatch, tmp_path):
    monkeypatch.setenv("IMD_DATA_DIR", str(tmp_path / "nowhere"))
    done = imd("data", "fetch", "mp_20")
    assert done.returncode == 2
    assert "is no folder: correct it, or unset it" in done.stderr


def test_a_cif_with_partial_occupancy_is_refused(imd, tmp_path):
    from pymatgen.core import Lattice, Structure

    alloy = Structure(Lattice.cubic(4.0), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    alloy.to(str(tmp_path / "alloy.cif"))
    done = imd("judge", tmp_path / "alloy.cif")
    assert done.returncode == 2
    assert "ordered, fully occupied" in done.stderr


def test_two_samplings_into_one_file(imd, tmp_path):
    out = tmp_path / "made.csv"
    with locked(tmp_path, file=out.name):
        done = imd("sample", "matgan", "-n", 3, "-o", out)
    assert done.returncode == 2
    assert "another process is writing to" in done.stderr
    assert not out.exists()
    assert imd("sample", "matgan", "-n", 3, "-o", out).returncode == 0
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
