"""Grids as surfaces: a cube file that repeats, its units, what is drawn, and bad input."""

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.runtime import InputError
from imd_helpers.show import volumes as module


@pytest.fixture
def published(monkeypatch):
    """Collects what would be displayed."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    return shown


def framework():
    """A well of methane in the middle, an O at the corner, and nothing in the grid of Si."""
    values = torch.zeros(1, 3, 8, 8, 8)
    values[0, 0, 3:6, 3:6, 3:6] = 0.8
    values[0, 1, 0, 0, 0] = 1.0
    return values, torch.tensor([[8.0, 9.0, 10.0]])


def test_a_cube_file_begins_again_where_it_ends():
    """ASE reads the cell in angstrom, and the values of the points that were given."""
    from io import StringIO

    from ase.io.cube import read_cube

    rng = np.random.default_rng(0)
    values = rng.random((5, 5, 5))
    found = read_cube(StringIO(module.cube(values, np.array([5.0, 6.0, 7.0]))), read_data=True)
    edge, n = found["spacing"].diagonal() * (module.FINE - 1), module.FINE
    assert edge == pytest.approx([5.0, 6.0, 7.0], abs=0.01)
    data = found["data"].reshape(n, n, n) / module.STEPS
    assert data[::5, ::5, ::5][:5, :5, :5] == pytest.approx(values, abs=0.006)
    assert np.array_equal(data[0], data[-1])
    assert np.array_equal(data[:, :, 0], data[:, :, -1])


def test_what_has_no_surface_is_not_drawn(published):
    imd.show.grids(*framework(), titles=["one"])
    page = published[0]["text/html"]
    assert page.count("addVolumetricData") == 2
    assert all(ink in page for ink in module.INKS.values())
    assert published[0]["text/plain"].startswith("one: 8.0 × 9.0 × 10.0 Å")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v, e: (v[0], e), "batch, 3, n, n, n"),
        (lambda v, e: (v, e[:, :2]), "in Å"),
        (lambda v, e: (v.repeat(25, 1, 1, 1, 1), e.repeat(25, 1)), "at most 24"),
    ],
)
def test_grids_that_cannot_be_shown(change, says):
    with pytest.raises(InputError, match=says):
        imd.show.grids(*change(*framework()))
