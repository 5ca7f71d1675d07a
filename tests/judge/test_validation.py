"""`validate`: gates, cards, bad files, kills, and what a card says."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import use_fake_hull

from imd_helpers import cli, show
from imd_helpers.crystals import CrystalBatch, files
from imd_helpers.crystals.samples import Samples
from imd_helpers.energies import potentials
from imd_helpers.energies.phonons import phonons
from imd_helpers.judge import PROTOCOLS, mechanics
from imd_helpers.judge.facts import AtOnce
from imd_helpers.judge.validation import cards, validate
from imd_helpers.runtime import InputError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "energies"))
from test_phonons import EDGE, LennardJones, argon, cubic, rock_salt  # noqa: E402

SCRIPT = """
    import sys
    sys.path[:0] = [{here!r}]
    import pytest
    from test_validation import carried, use_fakes
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        carried({out!r})
    print("done")
"""


def candidates():
    """Argon, argon pressed and stretched, argon with atoms on top of each other, and no crystal."""
    close = cubic(EDGE, [18] * 2, [[0, 0, 0], [0.01, 0, 0]])
    whole = CrystalBatch.cat([argon(), argon(0.98 * EDGE), argon(1.02 * EDGE), close, argon()])
    return Samples(whole, np.array([True] * 4 + [False]), ("",) * 4 + ("no crystal: torn",))


FAKES = {"one": {}, "two": {}, "upset": {"cusp": 0.5}}


def use_fakes(patch):
    """Springs under the names of potentials, and a hull at zero."""
    use_fake_hull(patch)
    patch.setattr(potentials, "POTENTIALS", (*potentials.POTENTIALS, *FAKES))
    for name, options in FAKES.items():

        class Fake(LennardJones):
            extra = "judge"

            def __init__(self, name=name, options=options):
                super().__init__(name, **options)

        patch.setitem(potentials._CLASSES, name, Fake)


def carried(out, *, second="two", reference=argon()):
    gates = PROTOCOLS["validation"]
    energies = replace(gates.energies, rattle=0.0)
    return validate(
        candidates(),
        out,
        potentials=("one", "two"),
        protocol=replace(gates, energies=energies, witnesses=("one", second)),
        reference=reference,
        draw=show.bands,
    )


def cards_of(out):
    """Every file but the finished pieces and the report, which holds seconds."""
    kept = [p for p in Path(out).rglob("*") if p.is_file() and "work" not in p.parts]
    kept = [p for p in kept if p.name not in ("report.json", ".lock")]
    return {str(p.relative_to(out)): p.read_bytes() for p in kept}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("cards")
    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        report = carried(out)
    return report, cards_of(out)


def test_one_bad_candidate_stops_none_of_the_others(expected):
    report, found = expected
    assert report.passed.tolist() == [True, True, True, False, False]
    assert "distances" in report.reason(3)
    assert report.reason(4) == "decodes: no crystal: torn"
    rows = list(csv.DictReader(found["table.csv"].decode().splitlines()))
    assert [row["survives"] for row in rows] == ["True"] * 3 + ["False"] * 2
    assert len({Path(name).parts[0] for name in found if "card.md" in name}) == 3


def test_a_card_holds_what_was_found(expected):
    _, found = expected
    data = json.loads(found["00001-Ar/numbers.json"])
    assert data["phonons"]["verdict"] == data["elastic"]["verdict"] == "stable"
    assert data["relative"].startswith("copy")
    assert data["space_group"] == data["given_as"] == 225
    text = found["00001-Ar/card.md"].decode()
    assert "Survives all gates" in text
    assert f"{data['elastic']['one']['bulk']:.0f}" in text
    assert found["00001-Ar/phonons.png"].startswith(b"\x89PNG")
    assert "Fm-3m" in found["00001-Ar/crystal.cif"].decode()


def test_bands_survive_their_way_through_a_file():
    first = phonons(argon(), LennardJones())
    data = json.loads(json.dumps(mechanics.as_data(first)))
    again = mechanics.from_data(data)
    assert again.verdict == first.verdict
    assert again.ticks == first.ticks
    assert np.abs(again.frequencies - first.frequencies).max() < 1e-4
    assert show.bands(again).axes


def test_a_killed_run_goes_on_and_ends_with_the_same_cards(expected, tmp_path, monkeypatch):
    script = textwrap.dedent(SCRIPT.format(here=str(HERE), out=str(tmp_path)))
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not list(tmp_path.glob("work/*/elastic-*.npz")):
        assert run.poll() is None
        assert time.time() < deadline
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert "done" not in run.communicate()[0]
    assert not list(tmp_path.glob("*/card.md"))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("work/*/*.npz")}
    use_fakes(monkeypatch)
    carried(tmp_path)
    assert cards_of(tmp_path) == expected[1]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


def test_every_question_can_be_asked_in_another_process():
    asked = [fact for facts in mechanics.FACTS.values() for fact in facts.values()]
    for fact in asked:
        if not isinstance(fact, AtOnce):  # these are answered where they stand
            assert pickle.loads(pickle.dumps(fact.answer)) is not None, fact.name


def test_two_runs_do_not_write_the_same_cards(tmp_path):
    from imd_helpers.work import locked

    with locked(tmp_path), pytest.raises(InputError, match="another process"):
        carried(tmp_path)


def test_a_witness_against_it_stops_a_crystal_and_says_so(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    report = carried(tmp_path, second="upset", reference=None)
    assert not report.passed.any()
    assert "undecided" in report.reason(0)
    rows = cards(report, None)
    assert any("potentials disagree" in line for line in rows[0]["for_dft"])
    assert rows[0]["relative"] == "none was looked for"


def shell(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["imd", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


def test_the_command_and_a_real_crystal(tmp_path, monkeypatch, capsys):
    """Rock salt through all gates, by the potentials themselves."""
    salt = rock_salt(5.64, 11, 17)
    files.write(tmp_path / "salt.extxyz", salt)
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a 4\n")
    given = [str(tmp_path / name) for name in ("salt.extxyz", "bad.cif")]
    out = tmp_path / "cards"
    assert shell(monkeypatch, "validate", *given, "-o", out, "--reference", given[0]) == 0
    said = capsys.readouterr().out
    assert "likely metastable" in said
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [(row["formula"], row["survives"]) for row in rows] == [("NaCl", "True"), ("", "False")]
    assert 0.5 < float(rows[0]["probability_within_0.1"]) < 1
    assert "bad.cif" in rows[1]["stopped"]
    card = (out / "00000-NaCl" / "card.md").read_text()
    assert "± 0.14 eV/atom" in card


def test_formulas_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "f.csv").write_text("formula\nNaCl\n")
    given = ("validate", tmp_path / "f.csv", "-o", tmp_path / "cards")
    assert shell(monkeypatch, *given) == 2
    assert "only crystals can be validated" in capsys.readouterr().err
