"""A slider that works without a server."""

import re

import pytest

import imd_helpers as imd
from imd_helpers.runtime import InputError


def test_one_picture_a_title_and_the_last_is_shown(monkeypatch):
    drawn, shown = [], []
    monkeypatch.setattr("IPython.display.display", lambda html: shown.append(html.data))
    imd.show.slides(
        lambda axes, i: (drawn.append(i), axes[1].plot([0, i])),
        ["step 1", "step 2", "a < b"],
        alt='points "moving"',
        panels=2,
    )
    (page,) = shown
    assert drawn == [0, 1, 2]
    assert page.count("data:image/png;base64,") == 3
    assert re.findall(r'title="([^"]*)"[^>]*100%(; display:none)?', page) == [
        ("step 1", "; display:none"),
        ("step 2", "; display:none"),
        ("a &lt; b", ""),
    ]
    assert 'max="2" value="2"' in page
    assert "<output>a &lt; b</output>" in page
    assert "http" not in page  # nothing is fetched


def test_no_pictures_are_refused():
    with pytest.raises(InputError, match="give one a picture"):
        imd.show.slides(lambda axes, i: None, [], alt="nothing")
