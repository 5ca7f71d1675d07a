"""`judge` as a whole: energies, pieces, processes, a cluster, kill and resume."""

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from fakes import Spring, use_fake_hull

import imd_helpers as imd
from imd_helpers import work
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples, set_digest
from imd_helpers.judge import PROTOCOLS, Report, compare, engine, facts, judge
from imd_helpers.judge.protocols import Distance, Protocol, Step
from imd_helpers.judge.samples import Known
from imd_helpers.runtime import InputError

HERE = Path(__file__).parent
FACTS = facts.FACTS["crystals"]


def small_cubic_crystals():
    """Real crystals, one of each formula, all neutral."""
    some = imd.datasets.load("oqmd_icsd").select(space_groups=[225, 221], max_sites=6)
    some = some[~some.table["formula"].duplicated().to_numpy()]
    for table in ("icsd24", "smact14"):
        formulas = some.table["formula"].tolist()
        some = some[imd.judge.charge_neutral(formulas, oxidation_states=table, alloys=False)]
    return some


@pytest.fixture(scope="module")
def known():
    return small_cubic_crystals()


@pytest.fixture(scope="module")
def samples(known):
    """40 real crystals: 10 known, 20 new, 10 repeated."""
    rows = np.r_[0:10, 200:220, 205:215]
    return known.crystals[rows]


@pytest.fixture
def small_pieces(monkeypatch):
    pieces_of(monkeypatch, 4)


def pieces_of(monkeypatch, size):
    for fact in FACTS.values():
        monkeypatch.setattr(fact, "piece", size)


def plain(report):
    """The report's JSON without the times."""
    data = json.loads(report.to_json())
    for part in [*data["stages"], *data["numbers"]]:
        part.pop("seconds")
    return data


def without_energies(samples, known, **options):
    return judge(samples, reference=known[:100], potentials=(), distributions=False, **options)


# ---- in pieces


def test_pieces_change_nothing(samples, known, monkeypatch):
    whole = without_energies(samples, known)
    pieces_of(monkeypatch, 3)
    assert plain(without_energies(samples, known)) == plain(whole)
    assert whole.table.loc["unique", "passed"] == 30
    assert whole.table.loc["novel", "passed"] == 20


def test_processes_change_nothing(samples, known, small_pieces):
    one = without_energies(samples, known)
    assert plain(without_energies(samples, known, workers=2)) == plain(one)


def test_a_cluster_changes_nothing(samples, known, small_pieces):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster:
        far = without_energies(samples, known, scheduler=cluster.scheduler_address)
    assert plain(far) == plain(without_energies(samples, known))


def test_a_cluster_that_is_not_there(samples, known, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(work, "PATIENCE", 1)
    with pytest.raises(InputError, match="start both with dask scheduler and dask worker"):
        without_energies(samples, known, scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers=0: must be a whole number of at least 1"),
        ({"workers": 2, "scheduler": "tcp://localhost:8786"}, "give one of the two"),
    ],
)
def test_impossible_workers(samples, known, options, message):
    with pytest.raises(InputError, match=message):
        without_energies(samples, known, **options)


class Deadly:
    """Ends the process that unpacks it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_is_an_error_with_a_remedy(samples):
    rows = np.arange(2)
    settings = {"rule": Deadly()}
    tasks = [engine.Task(facts.distances, samples[rows], rows, settings) for _ in range(2)]
    with work.Workers(2) as workers, pytest.raises(InputError, match="take fewer workers"):
        list(workers.map(engine.carried_out, tasks, 2))


# ---- kill and resume

KILLED = """
    import sys, time
    sys.path.insert(0, {here!r})
    import numpy as np
    from imd_helpers.judge import facts
    from test_engine import slow, the_run
    unique, novel = (facts.FACTS["crystals"][name] for name in ("unique", "novel"))
    unique.piece, novel.piece = 4, 2
    novel.answer = slow(novel.answer)
    the_run({cache!r})
    print("done")
"""


def slow(check):
    def later(*args, **settings):
        time.sleep(0.3)
        return check(*args, **settings)

    return later


def the_run(cache):
    known = small_cubic_crystals()
    return without_energies(known.crystals[np.r_[0:10, 200:220, 205:215]], known, cache=cache)


def test_a_killed_run_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(FACTS["unique"], "piece", 4)
    monkeypatch.setattr(FACTS["novel"], "piece", 2)
    expected = plain(the_run(None))
    script = textwrap.dedent(KILLED.format(here=str(HERE), cache=str(tmp_path)))
    run = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.time() + 120
    while len(list(tmp_path.glob("*/novel-*.npz"))) < 3:
        assert run.poll() is None, run.stderr.read()
        assert time.time() < deadline
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    assert "done" not in run.communicate()[0]

    done = {path.name for path in tmp_path.glob("*/*.npz")}
    asked = []
    real = engine.carried_out
    named = lambda task: asked.append(task.function.__qualname__) or real(task)  # noqa: E731
    monkeypatch.setattr(engine, "carried_out", named)
    assert plain(the_run(tmp_path)) == expected
    new = {path.name for path in tmp_path.glob("*/*.npz")} - done
    assert len(asked) == len(new)  # nothing that was done is done again
    assert sum(name.startswith("novel") for name in done) >= 3
    assert not asked.count("unlike_earlier")

    asked.clear()
    assert plain(the_run(tmp_path)) == expected
    assert not asked


def test_a_damaged_piece_is_made_again(samples, known, small_pieces, tmp_path):
    expected = plain(without_energies(samples, known, cache=tmp_path))
    first, second, *_ = sorted(tmp_path.glob("*/unique-*.npz"))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:100])
    assert plain(without_energies(samples, known, cache=tmp_path)) == expected


def test_another_run_takes_no_piece_of_this_one(samples, known, tmp_path):
    without_energies(samples, known, cache=tmp_path)
    without_energies(samples[:30], known, cache=tmp_path)
    without_energies(samples, known, cache=tmp_path, protocol="lemat")
    judge(samples, reference=known[:90], potentials=(), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_that_cannot_be_written(samples, known, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another folder"):
        without_energies(samples, known, cache=tmp_path / "file")


# ---- energies


def perovskites(n):
    """n different cubic perovskites that nobody knows: nothing in them can move."""
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    numbers = [[38 + k, 22, 8, 8, 8] for k in range(n)]
    return CrystalBatch.from_ragged(
        np.repeat(3.95 * np.eye(3)[None], n, 0), np.tile(frac, (n, 1)), np.ravel(numbers), [5] * n
    )


FAR = CrystalBatch.from_ragged(40 * np.eye(3)[None], [[0, 0, 0]], [10], [1])
ENERGY_ONLY = Protocol(
    name="energies",
    title="the energy steps alone",
    steps=tuple(
        Step(fact)
        for fact in ("relaxed", "converged", "hull", "plausible energy", "metastable", "stable")
    ),
    funnel=("relaxed", "converged", "hull", "plausible energy", "metastable", "stable"),
    numbers=(),
    energies=PROTOCOLS["imd"].energies,
)


def relaxed_by(spring, batch, protocol=ENERGY_ONLY, **options):
    return judge(batch, reference=None, protocol=protocol, potentials=(spring,), **options)


def test_every_way_to_fail_with_an_energy(monkeypatch):
    use_fake_hull(monkeypatch)
    batch = CrystalBatch.cat([perovskites(5), perovskites(1), FAR])
    batch.lattice[5] *= 0.4
    names = batch.formulas()
    volume = dict.fromkeys(names, 3.95**3 / 5)
    energy = {names[0]: 0.0, names[1]: 0.07, names[2]: -7.0, names[3]: -1.5}
    spring = Spring(energy, volume, broken={names[4]})
    report = relaxed_by(spring, batch)
    assert [report.reason(i).split(":")[0] for i in range(7)] == [
        "",  # on the hull
        "stable",
        "plausible energy",
        "plausible energy",
        "relaxed",
        "relaxed",
        "relaxed",
    ]
    assert "formation energy -8 eV/atom < -5.5" in report.reasons[2]
    assert "energy above hull -1.5 eV/atom < -1" in report.reasons[3]
    assert report.reasons[5].startswith("distance gate: ")
    assert report.reasons[6].startswith("distance gate: volume per atom")
    assert spring.asked > 0
    np.testing.assert_allclose(report.values["energy"][:4], [0.0, 0.07, -7.0, -1.5], atol=1e-4)
    assert report.values["scanned"][:4].tolist() == [1, 1, 1, 1]  # nothing in them can move


def test_the_gate_stands_before_the_potential(monkeypatch):
    use_fake_hull(monkeypatch)
    spring = Spring()
    batch = perovskites(3)
    batch.lattice[:] *= 0.3
    report = relaxed_by(spring, batch)
    assert spring.asked == 0
    assert not report.passed.any()


def test_what_does_not_converge_does_not_count(monkeypatch):
    use_fake_hull(monkeypatch)
    bent = perovskites(1)
    bent.lattice[0, 2, 0] = 0.8  # sheared: no longer cubic, so it is relaxed and not scanned
    names = bent.formulas()
    spring = Spring({names[0]: -0.1}, {names[0]: 8.0})  # far from where it starts
    protocol = PROTOCOLS["imd"]
    short = {"steps": 2, "lattice_scan": True}
    import dataclasses

    hasty = dataclasses.replace(
        ENERGY_ONLY, energies=dataclasses.replace(protocol.energies, **short)
    )
    report = relaxed_by(spring, bent, hasty)
    assert report.reason(0) == "converged: forces above the limit after 2 steps"
    assert report.values["steps"][0] == 2
    assert report.values["scanned"][0] == 0


def test_relaxing_into_something_known(monkeypatch):
    use_fake_hull(monkeypatch)
    steps = tuple(Step(f) for f in ("decodes", "unique", "novel", "relaxed", "still new"))
    facts = tuple(step.fact for step in steps)
    protocol = Protocol("again", "new twice", steps, facts, ())
    one = perovskites(1)
    squeezed = CrystalBatch(one.lattice.clone(), one.frac, one.numbers)
    squeezed.lattice[0, 2, 2] *= 1.35  # beyond the matcher's tolerance of lengths

    class Cubic(Spring):
        """Pulls every cell back to a cube."""

        def _run(self, crystals, forces):
            found = super()._run(crystals, forces)
            if not forces:
                return found
            out = []
            for k, (energy, f, _) in enumerate(found):
                cell = crystals.lattice[k].numpy()
                strain = np.diag(np.diag(cell) / 3.95 - 1)
                stress = 4 * strain / np.linalg.det(cell) * 5
                out.append((energy + 10 * (strain**2).sum(), f, stress))
            return out

    report = judge(
        squeezed, reference=one, protocol=protocol, potentials=(Cubic(),), distributions=False
    )
    assert report.facts["novel"][0] == 1
    assert report.reason(0) == "still new: relaxed: same as known crystal 0"


def test_chgnet_and_the_real_hull(tmp_path):
    """Rock salt is real: it relaxes, and lies near the hull of known phases."""
    pytest.importorskip("chgnet")
    try:
        imd.runtime.data_path("potentials", "about.json")
    except FileNotFoundError:
        pytest.skip("no table of energies in this checkout")
    rock = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=225)[:1].crystals
    squeezed = CrystalBatch(rock.lattice * 0.97, rock.frac, rock.numbers)
    report = judge(squeezed, reference=None, cache=tmp_path)
    assert report.facts["converged"][0] == 1
    assert report.values["gain by rattling"][0] < 1e-3
    assert report.values["symmetry kept"][0] == 1
    told = {number.name: number for number in report.numbers}
    raw, expected = told["S.U.N."], told["S.U.N., expected by DFT"]
    assert 0 < expected.value < 0.5
    assert expected.low <= expected.value <= expected.high
    assert expected.note.startswith(f"the potentials say {raw.value:.1%}; of generated crystals")
    alone = judge(squeezed, reference=None, potentials=["chgnet"])
    assert not any("expected" in number.name for number in alone.numbers)
    assert abs(report.values["energy_above_hull"][0]) < 0.05
    assert -2.3 < report.values["formation_energy"][0] < -1.7  # 298 K: -2.13 eV/atom
    assert 10 < report.values["bulk_modulus"][0] < 40  # GPa; measured 24
    a0 = float(report.relaxed.lattice[0].det().abs()) ** (1 / 3)
    primitive = len(rock.n_sites) and int(rock.n_sites[0]) == 2
    assert 5.5 < a0 * (4 ** (1 / 3) if primitive else 1) < 5.8


# ---- one broken crystal


def test_one_crystal_on_which_a_check_breaks_down(samples, known, monkeypatch):
    bad = samples.formulas()[25]
    real = facts.unlike_earlier

    def fragile(crystals, rows, **settings):
        if bad in crystals.formulas():
            raise ZeroDivisionError("cannot look at this")
        return real(crystals, rows, **settings)

    monkeypatch.setattr(FACTS["unique"], "answer", fragile)
    report = without_energies(samples, known)
    hit = [i for i, formula in enumerate(samples.formulas()) if formula == bad]
    assert report.reason(25) == "unique: ZeroDivisionError: cannot look at this"
    others = np.setdiff1d(np.arange(len(samples)), hit)
    monkeypatch.setattr(FACTS["unique"], "answer", real)
    expected = without_energies(samples, known)
    assert (report.failed_at[others] == expected.failed_at[others]).all()


@pytest.mark.parametrize("error", [ValueError, InputError])
def test_a_check_that_breaks_down_on_one_of_many(samples, known, monkeypatch, error):
    real = facts.distances

    def fragile(crystals, rows, **settings):
        if 7 in rows:
            raise error("not this one")
        return real(crystals, rows, **settings)

    monkeypatch.setattr(FACTS["distances"], "answer", fragile)
    report = without_energies(samples, known)
    assert report.reason(7) == f"distances: {error.__name__}: not this one"
    assert report.table.loc["distances", "passed"] == len(samples) - 1


def test_settings_that_are_wrong_for_all_are_an_error(samples, known, monkeypatch):
    def refuse(crystals, rows, **settings):
        raise InputError("install something first")

    monkeypatch.setattr(FACTS["novel"], "answer", refuse)
    with pytest.raises(InputError, match="install something first"):
        without_energies(samples, known)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'smact'"),
        MemoryError(),
        OSError(28, "No space left on device"),
        RuntimeError("cannot cache function 'closest': no locator available for file"),
        numba.core.errors.TypingError("failed in nopython mode"),
        ZeroDivisionError("the same for every sample"),
    ],
)
def test_a_fault_of_the_machine_is_no_verdict(samples, known, monkeypatch, tmp_path, error):
    def broken(crystals, rows, **settings):
        raise error

    monkeypatch.setattr(FACTS["distances"], "answer", broken)
    with pytest.raises(InputError, match="no verdict on them, and nothing was kept"):
        without_energies(samples, known, cache=tmp_path)
    assert not list(tmp_path.glob("*/distances*"))
    monkeypatch.undo()
    report = without_energies(samples, known, cache=tmp_path)
    assert report.table.loc["distances", "passed"] == len(samples)


# ---- references


def test_a_set_and_its_batch_are_the_same_reference(samples, known):
    part = known[:100]
    one, two = Known(part), Known(part.crystals)
    assert one.digests == two.digests
    assert one.digests[0] == set_digest(part.crystals)
    assert Known(part[np.arange(100)[::-1]]).digests[0] == one.digests[0]  # order does not count
    by_set = judge(samples, reference=part, potentials=())
    by_batch = judge(samples, reference=part.crystals, potentials=())
    assert plain(by_set) == plain(by_batch)
    assert by_set.reason(3) == "novel: same as reference crystal 3"


def test_a_reference_by_name():
    silver = CrystalBatch.from_ragged(4.16 * np.eye(3)[None], [[0, 0, 0]], [47], [1])
    report = judge(silver, reference="oqmd_icsd", potentials=())
    assert report.definition["novel"]["reference_size"] == 32_159


# ---- sets against sets


def test_coverage_and_distances(known, monkeypatch, tmp_path):
    pytest.importorskip("matminer")
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path))
    some = known.crystals[:6]
    given = Samples(some, np.arange(6) != 5, ("",) * 5 + ("broken",))
    report = judge(given, reference=known[:5], protocol="cdvae", potentials=())
    assert report["COV-R"].value == 1.0  # every known crystal is among the samples
    assert report["COV-R"].n == 5
    assert report["COV-P"].n == 6  # the sample that did not decode counts
    assert report["COV-P"].value == pytest.approx(5 / 6)
    for name in ("W1 density", "W1 elements"):
        assert np.isnan(report[name].value)
        assert "1,000 valid samples are needed" in report[name].note
    import dataclasses

    fewer = tuple(
        dataclasses.replace(k, draw=4) if isinstance(k, Distance) and k.draw else k
        for k in PROTOCOLS["cdvae"].numbers
    )
    mine = dataclasses.replace(PROTOCOLS["cdvae"], name="mine", numbers=fewer)
    report = judge(given, reference=known[:5], protocol=mine, potentials=())
    assert report["W1 density"].n == 4
    assert report["W1 density"].unit == "g/cm^3"
    assert 0 <= report["W1 density"].low <= report["W1 density"].value
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


@pytest.mark.parametrize("noise", [1e-9, -1e-9])
def test_rounding_noise_makes_no_other_crystal(samples, noise):
    part = samples[:20]
    frac = torch.where(part.mask[..., None], torch.tensor([0.0625, 0.0, 1 / 3]), part.frac)
    cell = part.lattice.round(decimals=2) + 0.0005  # a digit that people write, and round
    one = CrystalBatch(cell, frac, part.numbers)
    other = CrystalBatch(cell + noise, (frac + noise) % 1, part.numbers)  # 0 may become 1
    assert set_digest(one) == set_digest(other)
    shared = [engine._digest_of_samples(Samples.of(each)) for each in (one, other)]
    assert shared[0] == shared[1]
    assert set_digest(one) != set_digest(CrystalBatch(cell + 0.002, frac, part.numbers))


# ---- the report


def test_json_keeps_everything(samples, known, monkeypatch):
    use_fake_hull(monkeypatch)
    spring = Spring()
    report = judge(
        samples[:8],
        reference=known[20:60],
        protocol="lemat",
        potentials=(spring,),
        distributions=False,
        name="a < b",
    )
    text = report.to_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    back = Report.from_json(text)
    assert back.to_json() == text
    assert back.relaxed is None
    assert [number.name for number in back.numbers] == [number.name for number in report.numbers]
    assert back["S.U.N."].definition["of"] == ["decodes", "distances", "charge balance"]
    np.testing.assert_allclose(
        back.values["energy_above_hull"], report.values["energy_above_hull"], atol=1e-6
    )
    assert {k: v.tolist() for k, v in back.facts.items()} == {
        k: v.tolist() for k, v in report.facts.items()
    }
    assert "M.S.U.N." in report._repr_html_()
    assert "a &lt; b" in report._repr_html_()
    assert "S.U.N." in str(report)
    compare([report, back])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "imd-report-9"}, "format"),
        ({"stages": [{"name": "decodes"}]}, "changed or cut off"),
        ({"facts": {"unique": "1x0"}}, "changed or cut off"),
        ({"reasons": None}, "changed or cut off"),
    ],
)
def test_changed_reports_are_refused(samples, known, change, message):
    data = json.loads(without_energies(samples[:4], known).to_json()) | change
    with pytest.raises(InputError, match=message):
        Report.from_json(json.dumps(data))


def test_the_figure_shows_stages_and_numbers(samples, known):
    one, two = (without_energies(samples[k : k + 20], known, name=f"set {k}") for k in (0, 20))
    figure = imd.show.reports(one, two)
    stages, numbers = figure.axes
    assert [t.get_text() for t in stages.get_yticklabels()] == list(one.table.index)
    assert [t.get_text() for t in numbers.get_yticklabels()] == [k.name for k in one.numbers]
    drawn = [line.get_xdata() for line in numbers.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(drawn[0], [100 * k.value for k in one.numbers])
    np.testing.assert_allclose(drawn[1], [100 * k.value for k in two.numbers])
    assert figure.patch.get_alpha() == 0


def test_seconds_and_definitions_are_beside_each_number(samples, known):
    report = without_energies(samples, known)
    total = sum(stage.seconds for stage in report.stages)
    assert report["valid, unique, novel"].seconds == pytest.approx(total)  # it needs all of them
    assert 0 < report["valid"].seconds < total
    for number in report.numbers:
        assert number.definition["protocol"] == "imd"
        assert number.definition["facts"]["decodes"]
        assert 0 <= number.low <= number.value <= number.high <= 1
        assert number.interval == "Wilson"


# ---- files


def test_samples_from_a_file(samples, tmp_path):
    from imd_helpers.crystals import files

    n = len(samples)
    ok = np.arange(n) != 2
    path = files.write(
        tmp_path / "x.extxyz",
        samples,
        decoded_ok=ok,
        reason=["" if k else "no shape" for k in ok],
        requested_space_group=[225] * n,
    )
    found = files.read(path)
    assert found.ok.tolist() == ok.tolist()
    assert found.reasons[2] == "no shape"
    assert found.asked["space_group"].tolist() == [225] * n
    assert found.crystals.formulas()[0] == samples.formulas()[0]


# ---- how far it is


def test_few_frames_lie_between_the_shell_and_the_answer(tmp_path, samples, monkeypatch):
    from imd_helpers import cli
    from imd_helpers.crystals import files

    stack = []
    real = facts.distances

    def watched(content, rows, *, rule):
        names = [frame.function for frame in inspect.stack()]
        stack[:] = [name for name in names if name != "call"]  # the border, see `guard`
        return real(content, rows, rule=rule)

    monkeypatch.setattr(FACTS["distances"], "answer", watched)
    path = files.write(tmp_path / "x.extxyz", samples[:3])
    arguments = ["imd", "judge", str(path), "--no-energies"]
    monkeypatch.setattr(sys, "argv", arguments)
    with contextlib.suppress(SystemExit):
        cli.main()
    shell = [k for k, name in enumerate(stack) if name == "judge"][-1]
    assert shell - 1 <= 6, stack[: shell + 1]
