import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, geometry
from imd_helpers.runtime import InputError

IMAGES = np.array(list(itertools.product(range(-4, 5), repeat=3)))


def brute_force(lattice, frac):
    """(sites, sites) shortest distance over the images -4..4, own images on the diagonal."""
    delta = frac[None, :, None] - frac[:, None, None] + IMAGES  # (sites, sites, images, 3)
    distances = np.linalg.norm(delta @ lattice, axis=-1)
    i = np.arange(len(frac))
    distances[i, i, len(IMAGES) // 2] = np.inf  # an atom and itself
    return distances.min(-1)


@st.composite
def skewed_crystals(draw):
    """A crystal in a cell up to 30 degrees flat, so that images -4..4 hold the nearest one."""
    lengths = draw(arrays(float, 3, elements=st.floats(2, 6)))
    angles = np.radians(draw(arrays(float, 3, elements=st.floats(45, 135))))
    cos = np.cos(angles)
    det = 1 - (cos**2).sum() + 2 * cos.prod()
    assume(det > 0.05)
    gram = np.array([[1, cos[2], cos[1]], [cos[2], 1, cos[0]], [cos[1], cos[0], 1]])
    lattice = np.linalg.cholesky(gram * np.outer(lengths, lengths))
    frac = draw(arrays(float, (draw(st.integers(1, 4)), 3), elements=st.floats(0, 0.999)))
    return lattice, frac


@given(skewed_crystals())
@settings(max_examples=150, deadline=None)
def test_distances_equal_brute_force(crystal):
    lattice, frac = crystal
    batch = CrystalBatch.from_ragged(lattice[None], frac, [6] * len(frac), [len(frac)])
    expected = brute_force(lattice, frac)
    distances = geometry.min_image_distances(batch)[0].numpy()
    np.testing.assert_allclose(distances, expected, atol=2e-6)  # the square root is clamped
    contact, sites = geometry.closest_contact(batch)
    np.testing.assert_allclose(contact[0], expected.min(), atol=1e-9)
    np.testing.assert_allclose(expected[tuple(sites[0])], expected.min(), atol=1e-9)


@given(skewed_crystals(), arrays(int, 3, elements=st.integers(-6, 6)))
@settings(max_examples=60, deadline=None)
def test_any_cell_of_the_same_lattice(crystal, shear):
    lattice, frac = crystal
    change = np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1.0]])
    change = change @ np.array([[1, 0, 0], [shear[1], 1, 0], [shear[0], shear[2], 1.0]])
    new = (change @ lattice, (frac @ np.linalg.inv(change)) % 1)
    one, two = (
        CrystalBatch.from_ragged(cell[None], x, [6] * len(x), [len(x)])
        for cell, x in ((lattice, frac), new)
    )
    distances = [geometry.min_image_distances(batch).numpy() for batch in (one, two)]
    np.testing.assert_allclose(*distances, atol=1e-5)
    np.testing.assert_allclose(
        geometry.closest_contact(one)[0], geometry.closest_contact(two)[0], atol=1e-8
    )


def test_scaled_contact_is_the_worst_pair():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=8)[::100]
    radius = np.nan_to_num(elements.column("covalent_radius"), nan=1.5)
    radius[0] = 1.0
    ratio, sites = geometry.closest_contact(data.crystals, scale=radius)
    for i, crystal in enumerate(data.crystals):
        n = int(crystal.n_sites[0])
        z = crystal.numbers[0, :n].numpy()
        distances = brute_force(crystal.lattice[0].numpy(), crystal.frac[0, :n].numpy())
        scaled = distances / (radius[z][:, None] + radius[z][None, :])
        assert ratio[i] == pytest.approx(scaled.min())
        assert scaled[tuple(sites[i])] == pytest.approx(scaled.min())


def test_own_images_can_be_left_out():
    cell = np.diag([2.0, 9.0, 9.0])[None]
    two = CrystalBatch.from_ragged(cell, [[0, 0, 0], [0, 0.5, 0.5]], [6, 6], [2])
    assert geometry.closest_contact(two)[0][0] == pytest.approx(2.0)
    assert geometry.closest_contact(two, own_images=False)[0][0] == pytest.approx(4.5 * 2**0.5)
    assert np.isinf(geometry.closest_contact(two, own_images=False)[0]) == [False]
    one = CrystalBatch.from_ragged(cell, [[0, 0, 0]], [6], [1])
    assert np.isinf(geometry.closest_contact(one, own_images=False)[0])


def test_padding_counts_for_nothing():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=6)[:20]
    batch = data.crystals
    wide = CrystalBatch(
        batch.lattice,
        torch.nn.functional.pad(batch.frac, (0, 0, 0, 7)),
        torch.nn.functional.pad(batch.numbers, (0, 7)),
    )
    assert (geometry.closest_contact(batch)[0] == geometry.closest_contact(wide)[0]).all()
    distances = geometry.min_image_distances(wide)
    assert torch.isinf(distances[:, -7:]).all()
    assert torch.isinf(distances[:, :, -7:]).all()


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    lattice = 3 * torch.eye(3, dtype=torch.float64) + torch.rand(
        2, 3, 3, dtype=torch.float64, generator=generator
    )
    frac = torch.rand(2, 3, 3, dtype=torch.float64, generator=generator)
    numbers = torch.full((2, 3), 6)

    def distances(lattice, frac):
        return geometry.min_image_distances(CrystalBatch(lattice, frac, numbers))

    inputs = (lattice.requires_grad_(), frac.requires_grad_())
    assert torch.autograd.gradcheck(distances, inputs)


def test_gradient_is_finite_where_atoms_meet():
    frac = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    batch = CrystalBatch(3 * torch.eye(3, dtype=torch.float64)[None], frac, torch.full((1, 2), 6))
    geometry.min_image_distances(batch).sum().backward()
    assert torch.isfinite(frac.grad).all()


@given(skewed_crystals(), arrays(int, 3, elements=st.integers(-9, 9)))
@settings(max_examples=100, deadline=None)
def test_reduction_keeps_the_lattice(crystal, shear):
    lattice, _ = crystal
    skewed = np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1.0]]) @ lattice
    reduced, change = geometry.reduce_lattice(torch.as_tensor(skewed)[None])
    reduced, change = reduced[0].numpy(), change[0].numpy()
    assert (change == np.rint(change)).all()
    assert abs(round(np.linalg.det(change))) == 1
    np.testing.assert_allclose(change @ skewed, reduced, atol=1e-9)
    assert abs(np.linalg.det(reduced)) == pytest.approx(abs(np.linalg.det(skewed)))
    lengths = np.linalg.norm(reduced, axis=1)
    assert (np.diff(lengths) >= -1e-9).all()
    # Minkowski: no shorter vector by adding +-1 of the others
    for a, b in itertools.product((-1, 0, 1), repeat=2):
        assert np.linalg.norm(reduced[2] + a * reduced[0] + b * reduced[1]) >= lengths[2] - 1e-9
        assert np.linalg.norm(reduced[1] + a * reduced[0]) >= lengths[1] - 1e-9
    shortest = np.linalg.norm(IMAGES[np.any(IMAGES != 0, axis=1)] @ reduced, axis=1).min()
    assert lengths[0] == pytest.approx(shortest)


def test_volume_mass_density_against_pymatgen():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=20)[::150]
    structures = data.structures()
    crystals = data.crystals
    np.testing.assert_allclose(geometry.volume(crystals), [s.volume for s in structures])
    np.testing.assert_allclose(
        geometry.density(crystals), [float(s.density) for s in structures], rtol=2e-3
    )
    np.testing.assert_allclose(
        geometry.mass(crystals), [float(s.composition.weight) for s in structures], rtol=2e-3
    )


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_cell_without_volume_is_refused(bad):
    lattice = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    lattice[1] *= bad
    batch = CrystalBatch(lattice, torch.zeros(3, 1, 3).double(), torch.full((3, 1), 6))
    for measure in (geometry.min_image_distances, geometry.closest_contact):
        with pytest.raises(InputError, match="crystal 1: the cell"):
            measure(batch)


def test_scale_is_checked():
    batch = imd.datasets.load("oqmd_icsd").select(max_sites=2)[:1].crystals
    for scale in (np.ones(5), np.zeros(119)):
        with pytest.raises(InputError, match="one positive length"):
            geometry.closest_contact(batch, scale=scale)
