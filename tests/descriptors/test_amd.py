"""Average minimum distances: known values, brute force, and what they must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.amd import average_minimum_distances
from imd_helpers.runtime import InputError


def crystal(lattice, frac, numbers):
    return CrystalBatch.from_ragged(
        np.array(lattice, dtype=float)[None], np.array(frac), numbers, [len(numbers)]
    )


def shells(*pairs):
    """(squared distance, how many) -> distances."""
    return np.concatenate([np.full(n, np.sqrt(d)) for d, n in pairs])


CUBIC = [
    # simple cubic, face-centred and body-centred: sums of squares (OEIS A005875, A004015, A004013)
    ([[0, 0, 0]], shells((1, 6), (2, 12), (3, 8), (4, 6), (5, 24), (6, 24), (8, 12), (9, 8))),
    (
        [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        shells((0.5, 12), (1, 6), (1.5, 24), (2, 12), (2.5, 24), (3, 8), (3.5, 14)),
    ),
    (
        [[0, 0, 0], [0.5, 0.5, 0.5]],
        shells((0.75, 8), (1, 6), (2, 12), (2.75, 24), (3, 8), (4, 6), (4.75, 24), (5, 12)),
    ),
]


@pytest.mark.parametrize(("frac", "expected"), CUBIC)
@pytest.mark.parametrize("a", [1.0, 4.2])
def test_cubic_lattices(frac, expected, a):
    batch = crystal(a * np.eye(3), frac, [14] * len(frac))
    found = average_minimum_distances(batch, k=100)[0]
    assert np.allclose(found, a * expected[:100], atol=1e-12)


def test_unequal_sites_are_averaged():
    # a chain of pairs, far from its neighbours: each site sees 1, then 3, then 4 and 4, …
    batch = crystal(np.diag([4.0, 100, 100]), [[0, 0, 0], [0.25, 0, 0]], [1, 1])
    assert np.allclose(average_minimum_distances(batch, k=6)[0], [1, 3, 4, 4, 5, 7])
    third = crystal(np.diag([4.0, 100, 100]), [[0, 0, 0], [0.25, 0, 0], [0.5, 0, 0]], [1, 1, 1])
    assert np.allclose(average_minimum_distances(third, k=3)[0], [1, 5 / 3, 7 / 3])


@pytest.fixture(scope="module")
def real():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=20)
    return data[np.random.default_rng(0).permutation(len(data))[:300]].crystals


def test_brute_force(real):
    found = average_minimum_distances(real[:40], k=60)
    shifts = np.stack(np.meshgrid(*[np.arange(-7, 8)] * 3), -1).reshape(-1, 3)
    for i in range(40):
        n = int(real.n_sites[i])
        lattice, frac = real.lattice[i].numpy(), real.frac[i, :n].numpy()
        steps = shifts @ lattice
        rows = []
        for site in frac:
            squares = [(((f - site) @ lattice + steps) ** 2).sum(1) for f in frac]
            rows.append(np.sort(np.sqrt(np.concatenate(squares)))[1:61])
        # what lies beyond the box of cells cannot be seen by this reference
        inside = np.array(rows)[:, -1] < 7 / np.linalg.norm(np.linalg.inv(lattice), axis=0).max()
        if inside.all():
            assert np.allclose(found[i], np.mean(rows, 0), atol=1e-9)


@st.composite
def crystals(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 7))
    lattice = rng.normal(0, 1, (3, 3)) + 4 * np.eye(3)
    return crystal(lattice, rng.random((n, 3)), rng.integers(1, 90, n)), rng


def unimodular(rng):
    change = np.eye(3)
    for _ in range(4):
        i, j = rng.permutation(3)[:2]
        change[i] += rng.integers(-2, 3) * change[j]
    return change


@settings(max_examples=40, deadline=None)
@given(crystals())
def test_only_the_points_count(made):
    batch, rng = made
    lattice, frac, n = batch.lattice[0].numpy(), batch.frac[0].numpy(), int(batch.n_sites[0])
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    change = unimodular(rng)
    order = rng.permutation(n)
    others = [
        crystal(lattice, frac[order], batch.numbers[0, order]),
        crystal(lattice, frac + rng.random(3), batch.numbers[0]),
        crystal(lattice @ rotation, frac, batch.numbers[0]),
        crystal(lattice, -frac, batch.numbers[0]),
        crystal(change @ lattice, frac @ np.linalg.inv(change), batch.numbers[0]),
        crystal(
            np.diag([2.0, 1, 1]) @ lattice,
            np.concatenate([frac, frac + [1, 0, 0]]) / [2, 1, 1],
            [1] * (2 * n),
        ),
        CrystalBatch(
            batch.lattice,
            torch.nn.functional.pad(batch.frac, (0, 0, 0, 3)),
            torch.nn.functional.pad(batch.numbers, (0, 3)),
        ),
    ]
    found = average_minimum_distances(CrystalBatch.cat([batch, *others]), k=50)
    assert np.abs(found[1:] - found[0]).max() < 1e-8


@settings(max_examples=40, deadline=None)
@given(crystals(), st.floats(1e-4, 0.05))
def test_small_moves_change_little(made, size):
    """Sites that move by at most eps change no average by more than 2 eps."""
    batch, rng = made
    n = int(batch.n_sites[0])
    moves = rng.normal(size=(n, 3))
    moves *= size / np.linalg.norm(moves, axis=1).max()
    frac = batch.frac[0].numpy() + moves @ np.linalg.inv(batch.lattice[0].numpy())
    moved = crystal(batch.lattice[0].numpy(), frac, batch.numbers[0])
    one, other = average_minimum_distances(CrystalBatch.cat([batch, moved]))
    assert np.abs(one - other).max() <= 2 * size + 1e-9


def test_scale(real):
    bigger = CrystalBatch(1.1 * real.lattice, real.frac, real.numbers)
    ratio = average_minimum_distances(bigger) / average_minimum_distances(real)
    assert np.allclose(ratio, 1.1)


def test_broken_crystals_have_none(real):
    lattice, frac, numbers = (t.clone() for t in (real.lattice, real.frac, real.numbers))
    lattice[0] = float("nan")
    lattice[1, 2] = lattice[1, 1]
    frac[2, 0, 0] = float("inf")
    numbers[3] = 0
    numbers[4, 0] = -3
    lattice[5] = torch.diag(torch.tensor([1e-4, 1e-4, 1e4], dtype=torch.float64))
    batch = CrystalBatch(lattice, frac, numbers)
    found = average_minimum_distances(batch)
    assert np.isnan(found).all(1).tolist() == [True] * 6 + [False] * (len(real) - 6)
    assert np.array_equal(found[6:], average_minimum_distances(real[6:]))


def test_input_errors(real):
    with pytest.raises(InputError, match="at least 1"):
        average_minimum_distances(real, k=0)
