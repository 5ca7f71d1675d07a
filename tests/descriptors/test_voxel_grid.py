"""Voxel grids: against plain loops, round trips of real crystals, invariances, and failures."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors._grids import add_gaussians, find_peaks
from imd_helpers.descriptors.voxel_grid import CUT, SIGMA, VoxelGrid, largest_site_error
from imd_helpers.runtime import InputError

SMALL = VoxelGrid(site_points=32)


def crystal(lattice, frac, numbers):
    lattice = np.array(lattice, dtype=float)[None]
    return CrystalBatch.from_ragged(lattice, np.array(frac, dtype=float), numbers, [len(numbers)])


def cubic(a, *sites):
    frac, numbers = zip(*sites, strict=True)
    return crystal(a * np.eye(3), frac, numbers)


@pytest.fixture(scope="module")
def real():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=20)
    return data[np.random.default_rng(3).permutation(len(data))[:120]].crystals


def by_loops(points, lattice, cart, heights, images):
    """One atom, one image and all grid points at a time, straight from the definition."""
    axis = np.arange(points) / points
    frac = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    grid = np.zeros((points,) * 3)
    for position, height in zip(cart, heights, strict=True):
        for image in images:
            square = ((frac @ lattice - position - np.array(image) @ lattice) ** 2).sum(-1)
            value = np.exp(-square / (2 * SIGMA**2))
            grid += height * np.where(value >= CUT, value, 0.0)
    return grid


SKEWED = [[3.0, 0, 0], [1.4, 2.7, 0], [-0.8, 0.9, 3.3]]


def test_periodic_grids_are_sums_over_images():
    batch = crystal(SKEWED, [[0.02, 0.97, 0.5], [0.6, 0.4, 0.1]], [14, 8])
    voxels = VoxelGrid(elements=(8, 14), site_points=24, reduce=False)
    cell, sites = voxels.split(voxels.encode(batch))
    written = voxels.written(batch)
    lattice, cart = written.lattice[0].numpy(), written.cart[0].numpy()
    images = list(itertools.product((-1, 0, 1), repeat=3))
    middle = np.array([[0.5, 0.5, 0.5]]) @ lattice
    assert np.allclose(cell[0, 0], by_loops(32, lattice, middle, [1.0], images), atol=1e-5)
    for channel, atom in ((0, 1), (1, 0)):
        expected = by_loops(24, lattice, cart[atom : atom + 1], [1.0], images)
        assert np.allclose(sites[0, channel], expected, atol=1e-5)


def test_images_count_where_the_cell_is_smaller_than_a_gaussian():
    grids = torch.zeros(1, 6, 6, 6)
    lattice = np.diag([0.6, 0.9, 1.3])
    place = torch.tensor([[1.3, 5.9, 2.0]], dtype=torch.float64)
    metric = torch.tensor(lattice @ lattice.T / 36)[None]
    row, height = torch.tensor([0]), torch.tensor([2.0])
    radius = SIGMA * np.sqrt(-2 * np.log(CUT))
    add_gaussians(grids, row, place, metric, height, sigma=SIGMA, radius=radius, periodic=True)
    cart = place.numpy() / 6 @ lattice
    images = list(itertools.product((-2, -1, 0, 1, 2), repeat=3))
    assert np.allclose(grids[0], by_loops(6, lattice, cart, [2.0], images), atol=1e-5)


def test_a_box_holds_the_sites_around_their_centroid():
    batch = crystal(SKEWED, [[0.02, 0.97, 0.5], [0.6, 0.4, 0.1]], [14, 8])
    voxels = VoxelGrid.imatgen((8, 14))
    _, sites = voxels.split(voxels.encode(batch))
    written = VoxelGrid(reduce=False).written(batch)  # as it comes, in standard orientation
    cart = written.cart[0].numpy()
    cart = cart - cart.mean(0) + 7.5
    for channel, atom in ((0, 1), (1, 0)):
        expected = by_loops(64, 15.0 * np.eye(3), cart[atom : atom + 1], [1.0], [(0, 0, 0)])
        assert np.allclose(sites[0, channel], expected, atol=1e-5)


def test_one_grid_for_all_elements_is_as_high_as_the_atomic_number():
    batch = cubic(4.0, ([0, 0, 0], 55), ([0.5, 0.5, 0.5], 17))
    _, sites = SMALL.split(SMALL.encode(batch))
    assert sites[0, 0, 0, 0, 0].item() == pytest.approx(0.55)
    assert sites[0, 0, 16, 16, 16].item() == pytest.approx(0.17)


# ---- round trips


def recovered(voxels, crystals, decoded):
    """Distance (Å) from each site to the nearest decoded one of its element; 9 where none is."""
    written, back = voxels.written(crystals), decoded.crystals
    out = []
    for i in range(len(crystals)):
        n, m = int(written.n_sites[i]), int(back.n_sites[i])
        delta = written.frac[i, :n, None] - back.frac[i, None, :m]
        distance = ((delta - delta.round()) @ written.lattice[i]).norm(dim=-1)
        same = written.numbers[i, :n, None] == back.numbers[i, None, :m]
        nearest = distance.masked_fill(~same, 9.0).amin(1)
        out += [9.0] * n if not decoded.ok[i] else nearest.tolist()
    return np.array(out)


@pytest.mark.parametrize("voxels", [VoxelGrid(), SMALL, VoxelGrid(box=15.0)])
def test_sites_of_real_crystals_come_back(real, voxels):
    """At least 99 % of the sites within 0.1 Å; measured: all of them, within 1e-6 Å, by default."""
    ok = voxels.verdict(real).ok
    assert 0.75 < ok.mean() < 1
    crystals = real[np.flatnonzero(ok)]
    decoded = voxels.round_trip(crystals)
    distance = recovered(voxels, crystals, decoded)
    assert (distance < 0.1).mean() >= 0.99
    assert (decoded.crystals.n_sites == crystals.n_sites).float().mean() > 0.98
    lattice = voxels.written(crystals).lattice
    assert (decoded.crystals.lattice - lattice)[decoded.ok].abs().max() < 1e-3


def test_the_published_grids_of_a_binary_system():
    data = imd.datasets.load("oqmd_icsd").select(elements="V-O", nelements=2, max_sites=20)
    voxels = VoxelGrid.imatgen((23, 8))
    crystals = data.crystals[np.flatnonzero(voxels.verdict(data.crystals).ok)]
    assert len(crystals) >= 10
    decoded = voxels.round_trip(crystals)
    assert decoded.ok.all(), decoded.reasons
    assert recovered(voxels, crystals, decoded).max() < 1e-3
    assert decoded.crystals.formulas() == crystals.formulas()


def test_reasons_of_a_round_trip_name_what_could_not_be_written(real):
    decoded = SMALL.round_trip(real)
    assert decoded.ok.tolist() == [not reason for reason in decoded.reasons]
    said = set(SMALL.verdict(real).reasons) - {""}
    assert said <= set(decoded.reasons)


def test_an_atom_between_voxels_is_one_atom():
    """All eight voxels around the middle of a voxel hold the same number."""
    half = 0.5 / 32
    batch = cubic(4.0, ([half, half, half], 26), ([0.5 + half, 0.5, 0.5], 26))
    decoded = SMALL.decode(SMALL.encode(batch))
    assert decoded.crystals.n_sites.tolist() == [2]
    assert recovered(SMALL, batch, decoded).max() < 1e-5


def test_close_atoms_do_not_pull_each_other_nor_make_a_third():
    for distance in (0.65, 0.75, 1.1, 1.25):  # H2 0.74 Å, N2 1.10 Å, C-C of a carbide 1.2 to 1.3 Å
        batch = cubic(5.0, ([0.4, 0.4, 0.4], 6), ([0.4 + distance / 5, 0.4, 0.4], 6))
        decoded = VoxelGrid().decode(VoxelGrid().encode(batch))
        assert decoded.crystals.n_sites.tolist() == [2]
        assert recovered(VoxelGrid(), batch, decoded).max() < 0.02


def test_the_largest_error_counts_every_atom_and_element(real):
    crystals = real[np.flatnonzero(SMALL.verdict(real).ok)[:30]]
    written, decoded = SMALL.written(crystals), SMALL.round_trip(crystals)
    assert np.abs(largest_site_error(written, decoded)).max() < 0.02
    frac, numbers = written.frac.clone(), written.numbers.clone()
    cart = written.cart
    cart[0, 0, 1] += 0.3  # Å
    frac[0] = (cart[0] @ torch.linalg.inv(written.lattice[0])) % 1.0
    numbers[1, 0] = 118
    worse = CrystalBatch(written.lattice, frac * written.mask[:, :, None], numbers)
    error = largest_site_error(worse, decoded)
    assert error[0] == pytest.approx(0.3, abs=0.02)
    assert error[1] == np.inf
    failed = type(decoded)(decoded.crystals, np.zeros(30, bool), ("no",) * 30)
    assert (largest_site_error(written, failed) == np.inf).all()


# ---- invariances


@st.composite
def crystals(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 5))
    lattice = rng.normal(0, 0.5, (3, 3)) + np.diag(rng.uniform(4.0, 7.0, 3))
    spots = rng.permutation(27)[:n]
    frac = np.stack([spots // 9, spots // 3 % 3, spots % 3], 1) / 3 + rng.random(3)
    return lattice, frac, rng.integers(1, 90, n), rng


FIXED = VoxelGrid(site_points=24, reduce=False)  # one given cell, so that grids can be compared


@settings(max_examples=25, deadline=None)
@given(crystals())
def test_what_does_not_change_the_grids(made):
    lattice, frac, numbers, rng = made
    order = rng.permutation(len(numbers))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    expected = FIXED.encode(crystal(lattice, frac, numbers))
    same = [
        crystal(lattice, frac[order], numbers[order]),
        crystal(lattice @ turn, frac, numbers),
        crystal(lattice, frac + rng.integers(-3, 4, frac.shape), numbers),
        crystal(-lattice, -frac, numbers),  # a left-handed cell of the same crystal
    ]
    found = FIXED.encode(CrystalBatch.cat(same))
    assert (found - expected).abs().max() < 2e-3  # values near the cut of 0.02 hang on rounding
    assert ((found - expected).abs() > 1e-5).sum() < 10


@settings(max_examples=25, deadline=None)
@given(crystals(), st.tuples(*[st.integers(-30, 30)] * 3))
def test_moving_by_whole_voxels_rolls_the_grid(made, steps):
    lattice, frac, numbers, _ = made
    cell, sites = FIXED.split(FIXED.encode(crystal(lattice, frac, numbers)))
    moved = FIXED.split(FIXED.encode(crystal(lattice, frac + np.array(steps) / 24, numbers)))
    assert torch.equal(cell, moved[0])
    rolled = sites.roll(steps, (-3, -2, -1))
    assert ((rolled - moved[1]).abs() > 1e-4).sum() < 10


@settings(max_examples=15, deadline=None)
@given(crystals())
def test_a_box_does_not_see_the_origin(made):
    lattice, frac, numbers, rng = made
    voxels = VoxelGrid(box=15.0, reduce=False, site_points=48)
    frac = 0.1 + 0.6 * (frac - np.floor(frac))  # so that no site crosses the face of the cell
    pair = [crystal(lattice, f, numbers) for f in (frac, frac + 0.25 * rng.random(3))]
    batch = CrystalBatch.cat(pair)
    if voxels.verdict(batch).ok.all():
        one, other = voxels.encode(batch)
        assert ((one - other).abs() > 1e-4).sum() < 10


@settings(max_examples=25, deadline=None)
@given(crystals())
def test_any_cell_comes_back(made):
    lattice, frac, numbers, _ = made
    batch = crystal(lattice, frac, numbers)
    if SMALL.verdict(batch).ok.all():
        decoded = SMALL.decode(SMALL.encode(batch))
        assert decoded.ok.all(), decoded.reasons
        assert (decoded.crystals.lattice - SMALL.written(batch).lattice).abs().max() < 1e-3
        assert sorted(decoded.crystals.numbers[0].tolist()) == sorted(numbers.tolist())
        assert recovered(SMALL, batch, decoded).max() < 0.02


# ---- failures


def disordered():
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice.cubic(4.0), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])


BAD = {
    "Cl has no channel; the channels are Na O": cubic(4.0, ([0, 0, 0], 17)),
    "21 sites, at most 20": cubic(9.0, *[([x / 21, 0.3 * (x % 3), 0], 8) for x in range(21)]),
    "an edge of 10.50 Å, at most 10.0 Å": cubic(10.5, ([0, 0, 0], 8)),
    "sites 1 and 2 are 0.20 Å apart": cubic(4.0, ([0, 0, 0], 8), ([0.05, 0, 0], 8)),
    "NaN or infinity": crystal(np.full((3, 3), np.nan), [[0, 0, 0]], [8]),
    "lie in one plane": crystal([[4, 0, 0], [0, 4, 0], [4, 4, 0]], [[0, 0, 0]], [8]),
    "ordered, fully occupied": [disordered()],
    "planes are 1.00 Å apart": crystal(np.diag([1.0, 4, 4]), [[0, 0, 0]], [8]),
}
TABLE = VoxelGrid(elements=(11, 8), site_points=32)


@pytest.mark.parametrize("reason", BAD)
def test_one_crystal_that_cannot_be_written_raises(reason):
    with pytest.raises(InputError, match=reason):
        TABLE.encode(BAD[reason])


def test_in_a_batch_it_is_a_row_of_zeros_and_a_reason():
    good = cubic(4.0, ([0, 0, 0], 11), ([0.5, 0.5, 0.5], 8))
    parts = [part for part in BAD.values() if isinstance(part, CrystalBatch)]
    batch = CrystalBatch.cat([good, *parts])
    verdict = TABLE.verdict(batch)
    assert verdict.ok.tolist() == [True] + [False] * len(parts)
    assert all(reason for reason in verdict.reasons[1:])
    encoded = TABLE.encode_all(batch)
    tensor = encoded.tensor
    assert encoded.reasons == verdict.reasons
    with pytest.raises(InputError, match=r"number 1 of 8: Cl has no channel.*encode_all"):
        TABLE.encode(batch)
    assert torch.equal(tensor[0], TABLE.encode(good)[0])
    assert tensor[1:].abs().max() == 0
    decoded = TABLE.decode(tensor)
    assert decoded.ok.tolist() == verdict.ok.tolist()
    assert "is empty" in decoded.reasons[1]


def test_structures_are_read_and_a_disordered_one_keeps_its_place():
    good = cubic(4.0, ([0, 0, 0], 11), ([0.5, 0.5, 0.5], 8))
    encoded = TABLE.encode_all([*good.structures(), disordered()])
    assert encoded.ok.tolist() == [True, False]
    assert "only ordered, fully occupied sites" in encoded.reasons[1]
    assert encoded.tensor[1].abs().max() == 0 < encoded.tensor[0].abs().max()


def test_a_site_outside_the_box():
    far = crystal([[9.5, 0, 0], [9.0, 3, 0], [9.0, 0, 3]], [[0, 0, 0], [0.9, 0.9, 0.9]], [8, 8])
    with pytest.raises(InputError, match=r"does not fit into the box.*box=None"):
        VoxelGrid.imatgen((8,)).encode(far)
    assert VoxelGrid((8,)).round_trip(far).ok.all()


def test_decoding_says_what_is_wrong():
    good = TABLE.encode(cubic(4.0, ([0, 0, 0], 11), ([0.5, 0.5, 0.5], 8)))[0]
    rows = good.repeat(6, 1)
    cell, sites = TABLE.split(rows)
    cell[0] = float("nan")
    cell[1] = 0
    sites[2] = 0
    sites[3, 0] = (torch.rand(32, 32, 32, generator=torch.manual_seed(0)) > 0.9).float()
    cell[4] = 0.5  # a blob that fills the grid
    decoded = TABLE.decode(rows)
    assert decoded.ok.tolist() == [False] * 5 + [True]
    for reason, words in zip(
        decoded.reasons, ["NaN", "cell is empty", "no site", "peaks, at most 20", ""], strict=False
    ):
        assert words in reason
    assert len(decoded.valid()) == 1


def test_wrong_shapes_and_settings():
    with pytest.raises(InputError, match=r"expected \(batch, 98304\)"):
        TABLE.decode(torch.zeros(2, 5))
    with pytest.raises(InputError, match="too coarse"):
        VoxelGrid(max_edge=20.0)
    with pytest.raises(InputError, match="each of them once"):
        VoxelGrid(elements=(8, 8))
    one = TABLE.encode(cubic(4.0, ([0, 0, 0], 11)))
    assert torch.equal(TABLE.join(*TABLE.split(one)), one)


def test_an_empty_grid_has_no_peaks():
    metric = torch.eye(3, dtype=torch.float64)[None] * 0.01
    peaks = find_peaks(torch.zeros(1, 8, 8, 8), metric, sigma=SIGMA, threshold=0.3, periodic=True)
    assert len(peaks.row) == len(peaks.place) == len(peaks.height) == 0
