"""The cover shows what it says: its crystals pass the judge, and its numbers are today's."""

import itertools
import json

import draw_cover
import numpy as np
import pytest
from PIL import Image

import imd_helpers as imd
from imd_helpers.matching import same as structure

each_picture = pytest.mark.parametrize(
    ("theme", "layout"),
    list(itertools.product(draw_cover.THEMES, (draw_cover.WIDE, draw_cover.TALL))),
    ids=lambda part: part.file,
)


def committed(repo, theme, layout):
    path = repo / "book" / "_assets" / f"{layout.file}{theme.file}"
    with Image.open(path) as image:
        return np.asarray(image), draw_cover.Record(**json.loads(image.text["Record"])), path


@pytest.fixture(scope="module")
def record(repo):
    return committed(repo, draw_cover.THEMES[0], draw_cover.WIDE)[1]


@pytest.fixture(scope="module")
def decoded():
    return imd.models.load("cubicgan").sample(10_000, seed=draw_cover.SEED)


@each_picture
def test_the_pictures_have_the_size_and_colour_of_their_page(repo, theme, layout):
    pixels, _, path = committed(repo, theme, layout)
    assert pixels.shape == (layout.height, layout.width, 3)
    assert path.stat().st_size < 250_000
    assert (
        pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == np.rint(draw_cover.rgb(theme.paper) * 255)
    ).all()


@each_picture
def test_the_numbers_are_those_of_the_checkpoints(repo, theme, layout):
    _, record, _ = committed(repo, theme, layout)
    remedy = "the cover is out of date: run python book/_tools/draw_cover.py"
    assert record.weights == draw_cover.weights(), remedy
    now = draw_cover.numbers()
    assert {name: getattr(record, name) for name in now} == now, remedy
    # the judge counted the same samples when it wrote run.json; another CPU may round a few
    assert record.passed / record.n == pytest.approx(record.shares["CubicGAN, fixed"][-1], abs=1e-3)


@each_picture
def test_the_pictures_are_what_the_script_draws(repo, theme, layout):
    pixels, record, _ = committed(repo, theme, layout)
    again = draw_cover.pixels(record, theme, layout)
    # fonts are matplotlib's own, but another release may place a letter differently
    assert np.abs(again.astype(int) - pixels).mean() < 1.5


def test_the_new_crystals_pass_the_whole_funnel(record, decoded):
    samples, requested = decoded, decoded.asked["space_group"]
    formulas = np.array(samples.crystals.formulas())
    # a sample is unique unless an earlier one of its composition is the same
    rows = np.flatnonzero(np.isin(formulas, record.formulas) & samples.ok)
    rows = rows[rows <= max(record.samples)]
    report = imd.judge.judge(
        samples[rows],
        protocol="funnel",
        training=draw_cover.checkpoint_script().training_crystals(),
    )
    assert [stage.name for stage in report.stages] == record.stages
    assert set(record.samples) <= set(rows[report.passed].tolist())
    assert formulas[record.samples].tolist() == record.formulas
    assert sorted(requested[record.samples]) == [216, 221, 225]


def test_the_new_crystals_exist_and_were_held_back(record, decoded):
    new = decoded.crystals[np.array(record.samples)]
    held = draw_cover.held_back()
    train = imd.datasets.load("oqmd_icsd", split="train").table
    assert not set(train["formula"]) & set(record.formulas)
    assert held.table["formula"].iloc[record.twins].tolist() == record.formulas
    twins = structure.same_as_reference(new, held[record.twins].crystals).first
    assert twins.tolist() == [0, 1, 2]


def test_the_real_crystals_are_training_crystals():
    train = imd.datasets.load("oqmd_icsd", split="train")
    real = draw_cover.standard(draw_cover.of_data(train, draw_cover.REAL))
    assert real.formulas() == list(draw_cover.REAL)
    assert imd.crystals.symmetry.space_group_numbers(real, symprec=0.01).tolist() == [216, 221, 225]


def test_a_missing_crystal_is_named_with_the_choice_there_is():
    held = draw_cover.held_back()
    with pytest.raises(ValueError, match="NaCl: choose NEW from"):
        draw_cover.most_stable("NaCl", held, np.arange(3))


def test_of_two_balls_the_nearer_is_seen_whatever_was_drawn_first():
    near, far = (np.array([0, 0, 2.0]), 0.5, np.ones(3)), (np.array([0.3, 0, 0]), 0.5, np.zeros(3))
    canvas, other = draw_cover.Canvas(100, 25), draw_cover.Canvas(100, 25)
    for ball in (near, far):
        canvas.ball(*ball)
    for ball in (far, near):
        other.ball(*ball)
    np.testing.assert_array_equal(canvas.colour, other.colour)
    assert (canvas.colour[50, 50] == 1).all()
    seen = (canvas.colour[..., 0] == 1).sum()
    assert seen == pytest.approx(np.pi * (0.5 * 25) ** 2, rel=0.02)


def test_a_rod_is_as_long_and_as_wide_as_it_should_be():
    canvas = draw_cover.Canvas(800, 80)
    start, end = np.array([-2.0, -0.9, -1.0]), np.array([1.8, 1.1, 1.0])
    canvas.rod(start, end, 0.1, np.ones(3), 0.0)
    hit = np.isfinite(canvas.depth)
    seen = np.linalg.norm((end - start)[:2])  # its shadow on the plane of the picture
    assert hit.sum() == pytest.approx(seen * 0.2 * 80**2, rel=0.01)
    np.testing.assert_allclose(np.linalg.norm(canvas.normal[hit], axis=1), 1, atol=1e-9)
