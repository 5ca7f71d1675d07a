"""CubicGAN's descriptor: counts, round trips, canonical form, and every way to fail."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.descriptors import symmetry_sites
from imd_helpers.descriptors.symmetry_sites import SPACE_GROUPS, Sites, SymmetrySites
from imd_helpers.matching.same import same_as_reference
from imd_helpers.runtime import InputError

# Translations of the Euclidean normaliser (International Tables A, 15.2.1), in quarters of the
# cell diagonal; written again here, so that a wrong table in the package cannot excuse itself.
SHIFTS = {225: (0, 2), 216: (0, 1, 2, 3), 221: (0, 2)}


@pytest.fixture(scope="module")
def cubic():
    return imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=list(SPACE_GROUPS))


@pytest.fixture(scope="module")
def found(cubic):
    return symmetry_sites.find_sites(cubic.crystals)


@pytest.fixture(scope="module")
def descriptor(found):
    return SymmetrySites.fit(found[0])


def test_counts_of_the_filter(cubic, found):
    sites, kept = found
    assert len(cubic) == 1446
    assert len(kept) == len(sites) == 943
    assert [(sites.space_group == g).sum() for g in SPACE_GROUPS] == [282, 178, 483]
    assert len(set(cubic.table.formula.iloc[kept])) == 788
    assert len(np.unique(sites.numbers)) == 80


@pytest.mark.parametrize("published", [False, True])
def test_encode_decode_gives_the_same_crystals(cubic, found, published):
    """At least 99.5 % of 943 by our matcher, and all of some by StructureMatcher, its defaults."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    sites, kept = found
    descriptor = SymmetrySites.fit(sites, canonical=not published)
    crystals = cubic[kept].crystals
    decoded = descriptor.decode(descriptor.encode(crystals))
    assert decoded.ok.all()
    found_again = same_as_reference(decoded.crystals, crystals).first
    itself = same_as_reference(crystals, crystals).first
    assert (found_again == itself).mean() >= 0.995
    matcher, some = StructureMatcher(), np.arange(0, 943, 8)
    pairs = zip(crystals[some].structures(), decoded.crystals[some].structures(), strict=True)
    assert all(matcher.fit(a, b) for a, b in pairs)


def test_sites_come_back_exactly(found, descriptor):
    sites = symmetry_sites.canonical(found[0])
    back = descriptor.read_sites(descriptor.encode_sites(sites))
    assert np.array_equal(back.grid, sites.grid)
    assert np.array_equal(back.numbers, sites.numbers)
    assert np.array_equal(back.space_group, sites.space_group)
    np.testing.assert_allclose(back.length, sites.length, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_description_of_a_crystal_has_one_canonical_form(found, data):
    """Rows in any order, any origin of the normaliser, any image of each site."""
    sites = found[0]
    i = data.draw(st.integers(0, len(sites) - 1))
    one = sites[np.array([i])]
    group = int(one.space_group[0])
    order = list(data.draw(st.permutations(range(3))))
    shift = data.draw(st.sampled_from(SHIFTS[group]))
    rotations, translations = symmetry.operations(group)
    grid = (one.grid[0][order] + shift) % 4
    picks = [data.draw(st.integers(0, len(rotations) - 1)) for _ in range(3)]
    images = [
        np.rint(rotations[g] @ x + 4 * translations[g]) % 4
        for g, x in zip(picks, grid, strict=True)
    ]
    other = Sites(one.space_group, one.numbers[:, order], np.array([images], dtype=int), one.length)
    a, b = symmetry_sites.canonical(one), symmetry_sites.canonical(other)
    assert np.array_equal(a.grid, b.grid)
    assert np.array_equal(a.numbers, b.numbers)


def test_prototypes_do_not_depend_on_origin_or_order(found):
    sites = found[0]
    for i in range(0, len(sites), 7):
        group, grid = int(sites.space_group[i]), sites.grid[i]
        names = {
            symmetry_sites.prototype(group, (grid[order] + shift) % 4)
            for shift in SHIFTS[group]
            for order in ([0, 1, 2], [2, 0, 1])
        }
        assert len(names) == 1
    everything = zip(sites.space_group.tolist(), sites.grid, strict=True)
    assert len({symmetry_sites.prototype(group, grid) for group, grid in everything}) == 8


def test_snapping_survives_noise_below_an_eighth(found, descriptor):
    """Decoding is right as long as no coordinate is off by 1/8 or more."""
    tensor = descriptor.encode_sites(found[0])
    noise = (torch.rand(len(tensor), 3, 3) - 0.5) * 2 * 0.12 / 0.375
    noisy = tensor.clone()
    noisy[:, :, :3] += noise
    a, b = descriptor.read_sites(tensor), descriptor.read_sites(noisy)
    assert np.array_equal(a.grid, b.grid)


def test_tensor_columns_are_what_the_docstring_says(found, descriptor):
    tensor = descriptor.encode_sites(found[0])
    assert tensor.shape == (943, 3, 28)
    assert tensor[:, :, :3].abs().max() <= 1
    assert tensor[:, :, 3:26].min() >= 0
    assert tensor[:, :, 3:26].max() <= 1
    onehot = tensor[:, :, 27]
    assert torch.equal(onehot.sum(1), torch.ones(943))
    groups = np.array(SPACE_GROUPS)[onehot.argmax(1).numpy()]
    assert np.array_equal(groups, found[0].space_group)


def test_failures_keep_their_place_and_say_why(descriptor, found):
    good = descriptor.encode_sites(found[0])[:4].clone()
    good[1, 0, 0] = float("nan")
    good[2, :, 26] = -1.2  # a negative length
    good[3, 1, :3] = good[3, 0, :3]  # two elements on one orbit
    decoded = descriptor.decode(good)
    assert len(decoded) == 4
    assert decoded.ok.tolist() == [True, False, False, False]
    assert "NaN" in decoded.reasons[1]
    assert "not positive" in decoded.reasons[2]
    assert "sites 1 and 2 lie on one orbit" in decoded.reasons[3]
    assert len(decoded.valid()) == 1


@pytest.mark.parametrize("shape", [(0, 3, 28), (3, 28), (1, 3, 27), (1, 4, 28)])
def test_wrong_shapes(descriptor, shape):
    with pytest.raises(InputError, match=r"expected \(batch, 3, 28\)"):
        descriptor.decode(torch.zeros(shape))


def test_crystals_that_the_filter_rejects_are_named(descriptor, cubic):
    sodium_chloride = imd.datasets.load("oqmd_icsd").select(formulas=["NaCl"], space_groups=[225])
    batch = CrystalBatch.cat([cubic[:1].crystals, sodium_chloride[:1].crystals])
    with pytest.raises(InputError, match=r"number 1 of 2: NaCl: CubicGAN.*encode_all"):
        descriptor.encode(batch)


def test_an_element_outside_the_table(found):
    small = SymmetrySites(element_numbers=(8, 22, 38), length_max=12.0)
    with pytest.raises(InputError, match="choose from O Ti Sr"):
        small.encode_sites(found[0])


def test_unknown_space_group(descriptor):
    with pytest.raises(InputError, match="space group 227"):
        descriptor.group_index([225, 227])


def test_features_are_scaled_over_the_training_elements(descriptor):
    table = descriptor.feature_table
    assert table.shape == (80, 23)
    varying = table.max(0).values > 0
    assert torch.equal(table.max(0).values[varying], torch.ones(int(varying.sum())))
    assert torch.equal(table.min(0).values, torch.zeros(23))
    number = table[:, 0]
    assert (number.diff() > 0).all()
    assert elements.FEATURES[0] == "number"
