"""A call from outside with a value that cannot work names the value, the rule and the remedy."""

import pickle
import types

import numpy as np
import pytest
import torch

from imd_helpers import judge
from imd_helpers.crystals import CrystalBatch, compositions, geometry, symmetry
from imd_helpers.crystals.elements import column
from imd_helpers.crystals.samples import Samples, placeholder, set_digest
from imd_helpers.datasets.remote import DownloadError
from imd_helpers.descriptors import coulomb, methane_grid
from imd_helpers.descriptors.base import first_of
from imd_helpers.guard import guard
from imd_helpers.judge import leaderboard
from imd_helpers.models.cubicgan import CubicGanConfig
from imd_helpers.networks import losses
from imd_helpers.predictors.pu import PuConfig
from imd_helpers.runtime import InputError, shown
from imd_helpers.search import optimisers

CUBE = CrystalBatch.from_ragged(4.0 * torch.eye(3)[None], np.zeros((1, 3)), [12], [1])
SQUARE = np.zeros((2, 2))


def distance_of(**settings):
    """A function of the package that takes settings by any name, called from outside."""
    module = types.ModuleType("imd_helpers.made_up")
    exec("def of(**settings: 'float') -> float:\n    return sum(settings.values())\n", vars(module))
    guard(module)
    return module.of(**settings)


OF_ANOTHER_KIND = {
    "None": (lambda: geometry.volume(None), r"crystals=None: must be CrystalBatch"),
    "a text": (lambda: placeholder("three"), r"n='three': must be int"),
    "a part of a number": (lambda: placeholder(2.5), r"n=2.5: must be int"),
    "a yes": (lambda: symmetry.orbits(CUBE, symprec=True), r"symprec=True: must be float"),
    "a list": (lambda: set_digest([CUBE]), r"crystals=.*: must be CrystalBatch"),
    "complex numbers": (
        lambda: losses.generator_loss(torch.ones(3, dtype=torch.complex64)),
        r"fake_scores=Tensor of torch.complex64, shape \(3,\): must be Tensor",
    ),
    "no yes or no": (lambda: CubicGanConfig(snap="yes"), r"snap='yes': must be bool"),
    "a field": (lambda: CubicGanConfig(train=None), r"train=None: must be TrainConfig"),
    "one text of many": (lambda: compositions.parse("MgO"), r"formulas='MgO': must be Sequence"),
    "no path": (lambda: judge.judge(["MgO"], cache=[1]), r"cache=\[1\]: must be Path"),
    "of a cached one": (lambda: column(3), r"name=3: must be str"),
    "no mapping": (lambda: judge.Report.from_json({}), r"text={}: must be str"),
    "one of several": (
        lambda: leaderboard.leaderboard("here", ["MgO"]),
        r"folders=\['MgO'\]: must be Path \| str; an entry each",
    ),
    "one with a name": (lambda: distance_of(size="a"), r"settings='a': must be float"),
    "with its rule": (
        lambda: coulomb.ewald("a", SQUARE, SQUARE),
        r"lattice='a': must be np.ndarray; \(3, 3\) Å",
    ),
}


@pytest.mark.parametrize("name", OF_ANOTHER_KIND)
def test_a_value_of_another_kind(name):
    call, message = OF_ANOTHER_KIND[name]
    with pytest.raises(InputError, match=message):
        call()


UNUSABLE = {
    "counts": (lambda: compositions.keys(SQUARE), r"counts of shape \(2, 2\)"),
    "formulas": (lambda: compositions.formulas(SQUARE), r"expected whole numbers of"),
    "samples of counts": (lambda: Samples.from_counts(SQUARE), r"\(n, 119\)"),
    "verdicts": (lambda: Samples(CUBE, np.ones((1, 2), bool), ("",)), r"'ok': 2"),
    "what torch refuses": (
        lambda: losses.relativistic_generator_loss(torch.ones(2) > 0, torch.ones(2) > 0),
        r"real_scores=Tensor of torch.bool, shape \(2,\), must be Tensor.*RuntimeError.*: give",
    ),
    "what NumPy refuses": (lambda: methane_grid.scale_energy([[1], [2, 3]]), r"ValueError.*: give"),
    "a number of cells": (lambda: placeholder(-1), r"n=-1, must be int \(RuntimeError"),
    "a temperature": (lambda: optimisers.metropolis(0.1, 0.0), r"temperature=0.0.*above 0"),
    "a setting of bags": (lambda: PuConfig(batch=-1), r"batch=-1: must be a whole number"),
    "a setting of a model": (lambda: CubicGanConfig(dropout_critic=1.0), r"below 1"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_value_that_cannot_be_used(name):
    call, message = UNUSABLE[name]
    with pytest.raises(InputError, match=message):
        call()


def test_what_passes():
    assert geometry.volume(CUBE).tolist() == [64.0]
    assert first_of(["", "b"], ["a", ""]) == ["a", "b"]
    assert distance_of(size=2.0, step=3) == 5.0
    assert "volumes" in geometry.volume.__doc__
    assert pickle.loads(pickle.dumps(geometry.volume)) is geometry.volume
    with pytest.raises(TypeError, match="missing a required argument: 'crystals'"):
        geometry.volume()
    assert shown(SQUARE) == "ndarray of float64, shape (2, 2)"


def test_calls_inside_the_package_and_own_errors_pass_through():
    module = types.ModuleType("imd_helpers.made_up")
    exec(  # a module of the package: one function that fails by itself, one that calls it
        "from __future__ import annotations\n"
        "def inner(n: int) -> int:\n    return n.missing\n"
        "def outer(n: int) -> str:\n"
        "    try:\n        return inner(n)\n    except AttributeError:\n        return 'as ever'\n"
        "def stops(error: Exception) -> None:\n    raise error\n",
        vars(module),
    )
    guard(module)
    assert module.outer(1) == "as ever"
    with pytest.raises(InputError, match=r"made_up.inner cannot use n=1, must be int \(Attr"):
        module.inner(1)
    with pytest.raises(DownloadError, match="gone"):
        module.stops(DownloadError("gone"))
