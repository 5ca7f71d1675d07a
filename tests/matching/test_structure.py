import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.amd import average_minimum_distances
from imd_helpers.judge import novel, unique
from imd_helpers.matching.same import (
    NONE,
    MatchSettings,
    same_as_earlier,
    same_as_reference,
    structure_distance,
)


@pytest.fixture(scope="module")
def polymorphs():
    """Real crystals that share their formula with at least one other."""
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12)
    often = data.table["formula"].value_counts()
    shared = data.table["formula"].isin(often[often > 1].index).to_numpy()
    return data[shared][np.arange(400)].crystals


def disguised(structures, rng):
    """The same crystals again: moved, permuted, strained, noisy or as supercells."""
    out = []
    for structure in structures:
        new = structure.copy()
        kind = rng.integers(5)
        if kind == 0:
            new.apply_strain(rng.normal(0, 0.02, 3))
        elif kind == 1:
            new.perturb(0.05)
        elif kind == 2:
            new.make_supercell(np.diag(rng.permutation([1, 1, 2])))
        elif kind == 3:
            new.translate_sites(list(range(len(new))), rng.random(3))
            new = type(new).from_sites([new[k] for k in rng.permutation(len(new))])
        else:
            new.scale_lattice(1.3 * new.volume)
        out.append(new)
    return out


def test_same_groups_as_pymatgen(polymorphs):
    from pymatgen.core.structure_matcher import StructureMatcher

    structures = polymorphs.structures()
    structures += disguised(structures[::3], np.random.default_rng(0))
    batch = CrystalBatch.from_structures(structures)
    first = same_as_earlier(batch).first

    place = {id(structure): i for i, structure in enumerate(structures)}
    expected = np.full(len(structures), NONE)
    for group in StructureMatcher().group_structures(structures):
        head, *rest = sorted(place[id(structure)] for structure in group)
        expected[rest] = head
    assert (first != expected).mean() <= 0.001
    assert 150 < (first != NONE).sum() < 500
    assert (unique(batch) == (first == NONE)).all()


def test_novel_is_the_matcher_too(polymorphs):
    from pymatgen.core.structure_matcher import StructureMatcher

    known, new = polymorphs[::2], polymorphs[1::2]
    verdict = novel(new, known)
    matcher = StructureMatcher()
    pool = known.structures()
    expected = [not any(matcher.fit(one, s) for one in pool) for s in new.structures()]
    assert (verdict == expected).mean() >= 0.999
    assert 0.02 < verdict.mean() < 0.5


def test_copies_are_found_and_named(polymorphs):
    copies = polymorphs[[7, 3, 7, 250]]
    found = same_as_reference(copies, polymorphs)
    assert not novel(copies, polymorphs).any()
    same = [
        polymorphs[int(i)].structures()[0].matches(crystal.structures()[0])
        for i, crystal in zip(found.first, copies, strict=True)
    ]
    assert all(same)
    assert unique(copies).tolist() == [True, True, False, True]


def test_padding_and_order_of_reference_do_not_matter(polymorphs):
    wide = CrystalBatch.cat([polymorphs, imd.datasets.load("oqmd_icsd")[:5].crystals])
    some = polymorphs[100:140]
    order = np.random.default_rng(1).permutation(len(wide))
    assert not novel(some, wide).any()
    assert not novel(some, wide[order]).any()
    assert novel(some, wide[400:]).all()  # other formulas


def test_settings_are_used():
    data = imd.datasets.load("oqmd_icsd").select(formulas="NaCl")
    batch = CrystalBatch.cat([data.crystals[:1]] * 2)
    batch.lattice[1] *= 1.2
    assert unique(batch).tolist() == [True, False]
    assert unique(batch, settings=MatchSettings(scale=False, ltol=0.05)).all()


def test_supercell_is_a_duplicate_and_swap_is_not():
    cscl = CrystalBatch.from_ragged(
        4.12 * np.eye(3)[None], [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17], [2]
    )
    structure = cscl.structures()[0]
    big = structure * (3, 2, 1)
    other = CrystalBatch.from_ragged(cscl.lattice, [[0, 0, 0], [0.5, 0.5, 0.0]], [55, 17], [2])
    batch = CrystalBatch.cat([cscl, CrystalBatch.from_structures([big]), other])
    assert unique(batch).tolist() == [True, False, True]


def test_broken_crystals_fail_alone(polymorphs):
    batch = CrystalBatch.cat([polymorphs[:6], polymorphs[:6]])
    batch.lattice[1] = float("nan")
    batch.lattice[2, 1] = batch.lattice[2, 0]
    batch.frac[3, 1:] = batch.frac[3, 0]  # atoms on top of each other: not broken, but odd
    batch.numbers[4] = 0
    verdict = unique(batch)
    assert len(verdict) == len(batch)
    assert not verdict[[1, 2, 4]].any()
    assert not novel(batch, polymorphs)[[1, 2, 4]].any()
    assert novel(batch[[1, 2]], polymorphs).tolist() == [False, False]


def test_a_crystal_that_cannot_be_compared_stops_nothing(polymorphs):
    batch = CrystalBatch.cat([polymorphs[:6], polymorphs[:6]])
    batch.lattice[2] = torch.diag(torch.tensor([1e-3, 1.0, 1e6], dtype=torch.float64))
    for found in (same_as_earlier(batch), same_as_reference(batch, polymorphs)):
        assert list(found.failed) == [2]
        assert "lattice points" in found.failed[2]
        assert found.first[2] == NONE
    expected = np.repeat([True, False], 6)
    expected[[2, 8]] = False, True
    assert (unique(batch) == expected).all()
    assert not novel(batch, polymorphs).any()


def test_first_in_order_wins():
    nacl = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=[225]).crystals[:1]
    scaled = [CrystalBatch(f * nacl.lattice, nacl.frac, nacl.numbers) for f in (1.0, 1.02, 1.05)]
    other = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=[221]).crystals[:1]
    batch = CrystalBatch.cat([other, *scaled, other])
    assert same_as_earlier(batch).first.tolist() == [NONE, NONE, 1, 1, 0]
    assert same_as_reference(batch, batch[[3, 2, 0]]).first.tolist() == [2, 0, 0, 0, 2]


# ---- a distance without thresholds


def test_distance_is_zero_for_copies_and_grows_with_strain(polymorphs):
    same, _ = structure_distance(polymorphs[:50], polymorphs)
    assert same.max() < 1e-9
    known = polymorphs[:1]
    grown = [CrystalBatch(f * known.lattice, known.frac, known.numbers) for f in (1.01, 1.02, 1.04)]
    distance, _ = structure_distance(CrystalBatch.cat(grown), known)
    farthest = average_minimum_distances(known).max()
    assert np.allclose(distance, farthest * np.array([0.01, 0.02, 0.04]))


def test_distance_does_not_see_elements_unless_asked():
    data = imd.datasets.load("oqmd_icsd").select(space_groups=[225])
    salts = {name: data.select(formulas=name).crystals[:1] for name in ("NaCl", "MgO")}
    fake = CrystalBatch(salts["NaCl"].lattice, salts["NaCl"].frac, salts["MgO"].numbers)
    known = CrystalBatch.cat(list(salts.values()))
    free, index = structure_distance(fake, known)
    assert free[0] < 1e-9
    assert index.tolist() == [0]
    tied, index = structure_distance(fake, known, same_composition=True)
    assert tied[0] > 0.1
    assert index.tolist() == [1]
    none, index = structure_distance(fake, known[:1], same_composition=True)
    assert none.tolist() == [np.inf]
    assert index.tolist() == [NONE]


def test_distance_of_broken_crystals_is_not_a_number(polymorphs):
    batch = polymorphs[np.arange(4)]  # a copy, not a view
    batch.lattice[1] = float("nan")
    for tied in (False, True):
        found, index = structure_distance(batch, polymorphs[10:60], same_composition=tied)
        assert np.isnan(found).tolist() == [False, True, False, False]
        assert index[1] == NONE
    assert np.isfinite(structure_distance(polymorphs[:4], batch)[0]).all()  # they count for nothing
