"""The mark ``equation`` and the fixture ``agrees``: tests of equations, and their errors.

And the fixture ``experiment``, which imports a script of `experiments/`.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

MARK = (
    "equation(*labels, function): the test verifies numbered equations of the book, as computed by "
    "one function of the package, given by its dotted name"
)


def pytest_configure(config):
    config.addinivalue_line("markers", MARK)


PAGE = "tests/book/test_equations.py::test_the_page_is_what_the_tests_say_today"


def pytest_collection_modifyitems(config, items):
    """Tests of equations measure an error; where the test of their page runs, it runs them."""
    for item in items:
        if item.get_closest_marker("equation") and "agrees" not in item.fixturenames:
            raise pytest.UsageError(
                f"{item.nodeid} is marked as an equation's test but measures no error: use agrees"
            )
    if any(item.nodeid == PAGE for item in items):
        marked = [item for item in items if item.get_closest_marker("equation")]
        items[:] = [item for item in items if item not in marked]
        config.hook.pytest_deselected(items=marked)


@pytest.fixture(scope="session")
def experiment():
    """Imports a script of `experiments/` by its name."""
    folder = str(Path(__file__).resolve().parents[1] / "experiments")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


class Agreement:
    """Asserts that numbers agree, and keeps the worst error in units of what is allowed."""

    def __init__(self):
        self.error, self.within, self.relative = -1.0, 1.0, False  # -1: nothing compared yet

    def __call__(self, found, expected, *, within, relative=False):
        assert within > 0, "rounding differs between machines: allow some, e.g. within=1e-12"
        found, expected = _plain(found), _plain(expected)
        assert found.shape == expected.shape or 1 in (found.size, expected.size)
        apart = np.abs(found - expected)
        if relative:
            apart = apart / np.abs(expected)
        error = float(apart.max())
        if not error / within <= self.error / self.within:
            self.error, self.within, self.relative = error, within, relative
        unit = "relative error" if relative else "error"
        assert error <= within, f"{unit} {error:.3g} above {within:.3g}: {found}, not {expected}"


def _plain(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=float)


@pytest.fixture(autouse=True)
def drawing_as_it_was():
    """A test that applies the book's style leaves it to nobody."""
    if "matplotlib" not in sys.modules:
        yield
        return
    with sys.modules["matplotlib"].rc_context():
        yield


@pytest.fixture
def agrees(request, record_property):
    agreement = Agreement()
    yield agreement
    marks = list(request.node.iter_markers("equation"))
    if marks and agreement.error < 0:
        pytest.fail("this test is marked as an equation's, but compared nothing with agrees()")
    for mark in marks:
        record = {
            "labels": mark.args,
            "function": mark.kwargs["function"],
            "error": agreement.error,
            "within": agreement.within,
            "relative": agreement.relative,
        }
        record_property("equation", json.dumps(record))
