import dataclasses
import json

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.judge import PROTOCOLS, DefinitionError, Report, compare, judge, wilson
from imd_helpers.judge.numbers import at_rest
from imd_helpers.runtime import InputError, UnknownNameError


def funnel(samples, *, requested_space_groups=None, training=None, name="samples", **settings):
    if requested_space_groups is not None:
        crystals = samples if isinstance(samples, Samples) else Samples.of(samples)
        asked = {"space_group": np.asarray(requested_space_groups)}
        samples = dataclasses.replace(crystals, asked=asked)
    protocol = dataclasses.replace(PROTOCOLS["funnel"], **settings)
    return judge(samples, protocol=protocol, training=training, name=name)


@pytest.fixture(scope="module")
def known():
    cubic = imd.datasets.load("oqmd_icsd").select(space_groups=225, max_sites=8)
    return cubic[:150]


@pytest.fixture(scope="module")
def planted(known):
    """Twelve samples of which the fate is known, with the stage that each must fail."""
    training = known.crystals[:100]
    new = known.crystals[100:]
    neutral = np.flatnonzero(imd.judge.charge_neutral(new.counts(), alloys=False))
    good = new[neutral[:4]]
    rows = {
        "decodes": good[:2],
        "distances": CrystalBatch(good.lattice[:2] * 0.4, good.frac[:2], good.numbers[:2]),
        "charge neutral": odd_charge(),
        "space group": good[:1],
        "unique": good[[1, 2]],
        "novel": training[[5]],
    }
    batch = CrystalBatch.cat([*rows.values(), good])
    fate = [name for name, part in rows.items() for _ in range(len(part))] + ["passes"] * 4
    asked = np.full(len(batch), 225)
    asked[fate.index("space group")] = 221
    ok = np.array([name != "decodes" for name in fate])
    batch.lattice[2] = float("nan")  # one broken crystal among the distances
    order = np.arange(len(fate))
    swap = [i for i, name in enumerate(fate) if name == "unique"]
    order = np.r_[np.delete(order, swap), swap]  # duplicates come after what they repeat
    decoded = Samples(batch[order], ok[order], tuple("" if k else "it broke" for k in ok[order]))
    return decoded, asked[order], [fate[i] for i in order], training


def odd_charge():
    lattice = 5.6 * np.eye(3)[None]
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], float)
    sites = np.r_[frac, frac + [0.25, 0.25, 0.25], frac + [0.75, 0.75, 0.75]] % 1
    return CrystalBatch.from_ragged(lattice, sites, [11] * 4 + [17] * 8, [12])  # NaCl2


def test_every_plant_falls_where_it_should(planted):
    decoded, asked, fate, training = planted
    report = funnel(decoded, requested_space_groups=asked, training=training, name="planted")
    names = [stage.name for stage in report.stages]
    assert names == ["decodes", "distances", "charge neutral", "space group", "unique", "novel"]
    got = ["passes" if at == len(names) else names[at] for at in report.failed_at]
    assert got == fate
    assert report.passed.tolist() == [name == "passes" for name in fate]
    assert len(report.reasons) == report.n == len(fate)
    words = {
        "decodes": "it broke",
        "distances": "",
        "charge neutral": "NaCl2",
        "space group": "space group 225 found, 221 requested",
        "unique": "same as sample",
        "novel": "same as training crystal 5",
        "passes": "",
    }
    for i, name in enumerate(fate):
        assert words[name] in report.reasons[i]
        assert bool(report.reason(i)) == (name != "passes")
    assert any("NaN" in reason for reason in report.reasons)


def test_table_adds_up(planted):
    decoded, asked, _, training = planted
    table = funnel(decoded, requested_space_groups=asked, training=training).table
    assert table["tried"].iloc[0] == len(decoded)
    assert (table["tried"].iloc[1:].to_numpy() == table["passed"].iloc[:-1].to_numpy()).all()
    low, high = wilson(table["passed"], len(decoded))
    np.testing.assert_allclose(table["share"], table["passed"] / len(decoded))
    np.testing.assert_allclose(table["low"], low)
    np.testing.assert_allclose(table["high"], high)
    assert (table["seconds"] >= 0).all()


def test_json_round_trip(planted):
    decoded, asked, _, training = planted
    report = funnel(decoded, requested_space_groups=asked, training=training, name="a < b")
    text = report.to_json()
    back = Report.from_json(text)
    assert back.to_json() == text
    assert back.passed.tolist() == report.passed.tolist()
    assert back.reasons == report.reasons
    assert list(back.table.columns) == list(report.table.columns)
    assert compare([report, back]).shape == (6, 2)
    stage = json.loads(text)["stages"][4]["definition"]
    assert "StructureMatcher" in stage["matcher"]
    assert stage["ltol"] == 0.2
    assert "a &lt; b" in report._repr_html_()
    assert "100.0 %" in str(funnel(decoded.valid()[:1], geometry="cdvae"))


def test_only_equal_definitions_compare(known):
    crystals = known.crystals[:20]
    one = funnel(crystals, name="one")
    assert compare([one, funnel(known.crystals[20:40], name="two")]).shape == (4, 2)
    different = {
        "distances.name": funnel(crystals, geometry="cdvae", name="other"),
        "charge neutral.oxidation_states": funnel(crystals, oxidation_states="smact14"),
        "unique.samples": funnel(crystals[:10]),
        "stages": funnel(crystals, training=known.crystals[50:60]),
    }
    for key, other in different.items():
        with pytest.raises(DefinitionError, match=key):
            compare([one, other])
        with pytest.raises(DefinitionError, match=key):
            imd.show.reports(one, other)
    trained = [funnel(crystals, training=known.crystals[50:k]) for k in (60, 61)]
    with pytest.raises(DefinitionError, match=r"novel\.training"):
        compare(trained)


def test_reference_in_other_order_is_the_same_reference(known):
    crystals, training = known.crystals[:10], known.crystals[50:70]
    wider = CrystalBatch.cat([training[::2], training[1::2], odd_charge()])[:20]
    assert wider.frac.shape != training.frac.shape
    compare([funnel(crystals, training=training), funnel(crystals, training=wider)])


def test_figure_shows_every_stage_and_report(known):
    reports = [funnel(known.crystals[k : k + 20], name=f"set {k}") for k in (0, 20, 40)]
    figure = imd.show.reports(*reports)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(reports[0].table.index)
    widths = [bar.get_width() for bar in axes.patches]
    expected = np.concatenate([100 * report.table["share"] for report in reports])
    np.testing.assert_allclose(widths, expected)
    assert len(axes.get_legend().get_texts()) == 3
    assert figure.patch.get_alpha() == 0


def test_everything_broken_still_reports(known):
    batch = known.crystals[:3]
    broken = CrystalBatch(batch.lattice * float("nan"), batch.frac, batch.numbers)
    report = funnel(broken, requested_space_groups=[225] * 3, training=batch)
    assert report.table["passed"].tolist() == [3, 0, 0, 0, 0, 0]
    assert all(report.reasons)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"geometry": "cdvea"}, UnknownNameError, "cdvae"),
        ({"oxidation_states": "icsd"}, UnknownNameError, "icsd24"),
        ({"requested_space_groups": [225]}, InputError, "one of each for every sample"),
    ],
)
def test_bad_options(known, options, error, message):
    with pytest.raises(error, match=message):
        funnel(known.crystals[:3], **options)


def test_bad_input(known):
    with pytest.raises(InputError, match="at least one"):
        funnel(known.crystals[:0])
    with pytest.raises(InputError, match="JSONDecodeError"):
        Report.from_json("no")
    with pytest.raises(InputError, match="format"):
        Report.from_json("{}")
    with pytest.raises(InputError, match="at least one"):
        compare([])


def test_a_crystal_that_falls_when_pushed_counts_where_it_came_to_rest():
    def crystal(above, formed, **more):
        return {
            "formula": "NaCl",
            "above_hull": above,
            "formation_energy": [formed, formed],
            "converged": True,
            **more,
        }

    row = {"n": 3, "found_at_rest": 0}
    crystals = [
        crystal([0.05, 0.09], -1.0, rattled=crystal([0.2, 0.2], -1.5)),  # fell, and is judged there
        crystal([0.05, 0.09], -1.0, rattled=crystal([0.2, 0.2], -1.0)),  # stayed
        crystal([0.4, None], -0.5),  # without an answer of the second
    ]
    found = at_rest({**row, "crystals": crystals})
    low, high = wilson(1, 3)
    assert found["near both hulls"] == f"1 ({low:.2f} to {high:.2f})"
    assert (found["relaxed"], found["at rest"], found["fell when pushed"]) == (3, 3, 1)
    assert found["median above hull"].startswith("0.1")
