"""No wrong number reaches a compiled loop: every entry point refuses it, with value and rule."""

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest

import imd_helpers
from imd_helpers.crystals import CrystalBatch, geometry, symmetry
from imd_helpers.descriptors import amd
from imd_helpers.descriptors.crystal_graph import crystal_graph
from imd_helpers.judge import charge
from imd_helpers.matching import same
from imd_helpers.runtime import InputError

RNG = np.random.default_rng(0)
CELLS = np.tile(4.0 * np.eye(3), (2, 1, 1))
FRAC = RNG.random((2, 3, 3))
NUMBERS = np.array([[11, 17, 0], [11, 17, 8]])
SITES = NUMBERS[NUMBERS > 0]


def ints(*shape):
    return np.zeros(shape, dtype=np.int64)


REDUCED = (FRAC[NUMBERS > 0], SITES, np.array([0, 2, 5]), ints(2), np.array([2, 3]))
ENTRIES = {  # what each compiled function takes, right
    "crystals.minkowski_batch": (CELLS,),
    "crystals.closest_batch": (CELLS, FRAC, NUMBERS, np.full(119, 0.5), True),
    "crystals.expand_orbits": (
        FRAC[0], *symmetry.operations(2), 0.01, np.zeros((6, 3)), ints(6),
    ),
    "neighbours.mean_nearest": (CELLS, FRAC, np.array([2, 3]), 4, np.zeros((2, 4))),
    "edges.all_edges": (CELLS, FRAC, np.array([2, 3]), 5.0, 4, 0.01, ints(2)),
    "formulas.parse_batch": (
        np.frombuffer(b"NaClO", dtype=np.uint8), np.array([4, 5]), ints(26, 27), ints(2, 119),
    ),
    "charges.neutral_batch": (
        ints(2, 119), ints(119, 3), ints(119), ints(119), np.zeros(119, dtype=bool), True, True,
    ),
    "grids.add_pairs": (CELLS[0], FRAC[0], 4, 3.0, 0, 1.0, 1.0, np.zeros((4, 4, 4))),
    "matching.reduce_batch": (
        CELLS, *REDUCED[:3], True, True, np.zeros((2, 3, 3)), np.zeros((2, 6)), ints(2), ints(2),
        ints(2),
    ),
    "matching.first_matches": (
        np.array([0, 1]), np.array([0, 1, 2]), np.array([-1, -1]), CELLS,
        np.tile([4.0, 4, 4, 90, 90, 90], (2, 1)), REDUCED[0], SITES, np.array([0, 2]), REDUCED[4],
        ints(2), 0.2, 0.3, 5.0, ints(2),
    ),
}  # fmt: skip


def entry(name):
    module, function = name.split(".")
    return getattr(importlib.import_module(f"imd_helpers.kernels.{module}"), function)


def copies(arguments):
    return [x.copy() if isinstance(x, np.ndarray) else x for x in arguments]


def wrong_values(value):
    """The same argument with one wrong number or another shape."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        bad = [np.nan, np.inf]
    elif array.dtype.kind == "i":
        bad = [-(10**9), 10**9]
    else:
        bad = []
    for number in bad:
        changed = array.copy()
        changed[(-1,) * array.ndim] = number
        yield changed if array.ndim else changed.item()
    if array.ndim:
        yield np.concatenate([array, array])
        yield array[..., None]


# filled, or checked by the loop itself: other values are no mistake, other shapes are
FREE = {
    "out", "owner", "status", "first", "counts", "rank", "cells", "parameters", "n_sites", "anchor",
}  # fmt: skip


LONE = {  # of any length: nothing else is as long
    "crystals.minkowski_batch": "lattice",
    "charges.neutral_batch": "counts",
    "formulas.parse_batch": "text",
    "grids.add_pairs": "frac",
    "matching.first_matches": "rows",
}


@pytest.mark.parametrize("name", ENTRIES)
def test_right_arguments_pass(name):
    entry(name)(*copies(ENTRIES[name]))


@pytest.mark.parametrize("name", ENTRIES)
def test_wrong_arguments_are_refused(name):
    function = entry(name)
    names = function.__wrapped__.py_func.__code__.co_varnames
    tried = 0
    for place, value in enumerate(ENTRIES[name]):
        for wrong in wrong_values(value):
            array = np.asarray(wrong)
            fills = names[place] in FREE and name != "matching.first_matches"
            if array.shape == np.shape(value) and (fills or names[place] == "first"):
                continue
            if names[place] == LONE.get(name) and len(array) == 2 * len(value):
                continue
            if np.ndim(value) == 0 and names[place] in ("k", "n") and array > 0:
                continue  # its outputs have another size then, which is what is refused
            arguments = copies(ENTRIES[name])
            arguments[place] = wrong
            with pytest.raises(InputError) as error:
                function(*arguments)
            assert len(str(error.value)) > 30
            tried += 1
    assert tried >= 3


def test_every_compiled_function_that_the_package_calls_has_a_border():
    root = Path(imd_helpers.__file__).parent
    called = set()
    for path in root.rglob("*.py"):
        if path.parent.name == "kernels":
            continue
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            ours = isinstance(node, ast.ImportFrom) and node.level  # scikit-learn has kernels too
            if not ours or "kernels" not in (node.module or ""):
                continue
            module = node.module.split("kernels")[1].strip(".")
            for alias in node.names:
                if module:
                    called.add(f"{module}.{alias.name}")
                else:
                    shown = importlib.import_module(f"imd_helpers.kernels.{alias.name}")
                    called |= {
                        f"{alias.name}.{name}"
                        for name in vars(shown)
                        if f"{alias.asname or alias.name}.{name}(" in text
                    }
    compiled = {
        name
        for name in called
        if hasattr(getattr(entry(name), "__wrapped__", entry(name)), "py_func")
    }
    assert compiled == set(ENTRIES)
    assert all(hasattr(entry(name).__wrapped__, "py_func") for name in compiled)


# ---- and from above


def batch(z=17, lattices=2):
    whole = CrystalBatch.from_ragged(CELLS, FRAC[:, :2].reshape(-1, 3), [11, 17, 11, 17], [2, 2])
    numbers = whole.numbers.clone()
    numbers[1, 1] = z
    return CrystalBatch(whole.lattice[:lattices], whole.frac, numbers)


CALLS = {
    "closest contact": geometry.closest_contact,
    "images": geometry.min_image_distances,
    "mass": geometry.mass,
    "counts": CrystalBatch.counts,
    "formulas": CrystalBatch.formulas,
}
TOLERANT = {  # these answer for each crystal, and say which is broken
    "neighbour distances": amd.average_minimum_distances,
    "graph": crystal_graph,
    "unique": same.unique,
    "space groups": symmetry.space_group_numbers,
}


@pytest.mark.parametrize("z", [119, 10**9, -5])
@pytest.mark.parametrize("name", sorted(set(CALLS) - {"images"}))
def test_atomic_numbers_without_an_element_are_refused(name, z):
    with pytest.raises(InputError, match=str(z)):
        CALLS[name](batch(z))


@pytest.mark.parametrize("z", [119, 10**9, -5])
@pytest.mark.parametrize("name", TOLERANT)
def test_one_crystal_without_an_element_spoils_no_other(name, z):
    TOLERANT[name](batch(z))


@pytest.mark.parametrize("name", ["closest contact", "images", "neighbour distances", "graph",
                                  "unique", "space groups"])  # fmt: skip
def test_one_lattice_for_two_crystals_is_refused(name):
    with pytest.raises(InputError, match=r"lattice|crystals = 1"):
        {**CALLS, **TOLERANT}[name](batch(lattices=1))


def test_charges_of_negative_counts_are_refused():
    counts = ints(1, 119)
    counts[0, 11] = -1
    with pytest.raises(InputError, match="between 0"):
        charge.charge_neutral(counts)
