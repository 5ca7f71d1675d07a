"""The look of the figures."""

import matplotlib as mpl
import numpy as np
import pytest

from imd_helpers import show
from imd_helpers.show.figures import ALIKE, _shares, element_colour, element_colours


def test_style_changes_nothing_until_applied():
    mpl.rcdefaults()
    before = mpl.rcParams["axes.edgecolor"]
    show.style()
    assert mpl.rcParams["axes.edgecolor"] == before
    with mpl.rc_context(show.style()):
        assert mpl.rcParams["axes.edgecolor"] != before
    assert mpl.rcParams["axes.edgecolor"] == before


def test_lines_differ_in_colour_and_in_dashes():
    cycle = list(show.style()["axes.prop_cycle"])
    assert len({style["color"] for style in cycle}) == len(cycle)
    assert len({str(style["linestyle"]) for style in cycle}) == len(cycle)


def contrast(colour):
    """WCAG contrast against white."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_text_is_readable_on_the_figure():
    style = show.style()
    assert style["figure.facecolor"] == "white"
    for key in ("text.color", "axes.labelcolor", "xtick.color"):
        assert contrast(style[key]) > 7


def test_first_colours_stand_out_from_white():
    first = [style["color"] for style in show.style()["axes.prop_cycle"]][:3]
    assert all(contrast(colour) > 3 for colour in first)


@pytest.mark.parametrize(("number", "colour"), [(1, "#ffffff"), (8, "#ff0d0d"), (26, "#e06633")])
def test_elements_have_the_usual_colours(number, colour):
    assert element_colour(number) == colour


def test_every_element_has_a_colour():
    assert all(len(element_colour(number)) == 7 for number in range(1, 119))


@pytest.mark.parametrize(
    "numbers",
    [(22, 78, 80), (8, 22, 38), (57, 58, 59, 60, 62, 8), tuple(range(21, 31)), (6, 8, 80, 81, 82)],
)
def test_no_two_elements_of_a_picture_look_alike(numbers):
    colours = element_colours(numbers)
    assert set(colours) == set(numbers)
    assert colours[min(numbers)] == element_colour(min(numbers))
    shares = np.array([_shares(colour) for colour in colours.values()])
    apart = np.linalg.norm(shares[:, None] - shares, axis=2) + np.eye(len(numbers))
    assert apart.min() >= ALIKE


def test_colours_that_differ_are_the_usual_ones():
    assert element_colours([8, 38, 22]) == {z: element_colour(z) for z in (8, 22, 38)}
