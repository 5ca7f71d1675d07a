"""Doses of corruption: nothing at dose 0, and what each keeps and what each destroys."""

import numpy as np
import pytest
import torch

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch, elements, geometry, symmetry
from imd_helpers.judge import corruption
from imd_helpers.matching.same import NONE, same_as_reference
from imd_helpers.runtime import InputError, UnknownNameError

N = 60


@pytest.fixture(scope="module")
def real():
    known = datasets.load("oqmd_icsd", split="test")
    small = np.flatnonzero(known.crystals.n_sites.numpy() <= 12)
    return known.crystals[np.random.default_rng(0).permutation(small)[:N]]


DOSED = {
    "isotropic": lambda c, d, s: corruption.strain(c, d, seed=s),
    "shear": lambda c, d, s: corruption.strain(c, d, seed=s, kind="shear"),
    "displace": lambda c, d, s: corruption.displace(c, d, seed=s),
    "collapse": lambda c, d, s: corruption.collapse(c, d, seed=s),
    "swap": lambda c, d, s: corruption.swap_elements(c, d, seed=s),
    "swap whole": lambda c, d, s: corruption.swap_elements(
        c, d, seed=s, to="same group", whole_elements=True
    ),
    "shuffle": lambda c, d, s: corruption.shuffle_sites(c, d, seed=s),
    "duplicate": lambda c, d, s: corruption.duplicate(c, d, seed=s),
    "mirror": lambda c, d, s: corruption.mirror(c, d, seed=s),
    "drop modes": lambda c, d, s: corruption.drop_modes(c, d, seed=s),
}
each = pytest.mark.parametrize("name", DOSED)


def equal(one, other):
    return (
        one.frac.shape == other.frac.shape
        and torch.equal(one.lattice, other.lattice)
        and torch.equal(one.frac, other.frac)
        and torch.equal(one.numbers, other.numbers)
    )


@each
def test_dose_zero_is_the_identity(name, real):
    assert equal(DOSED[name](real, 0.0, 3), real)


@each
def test_a_dose_changes_the_crystals_and_not_its_input(name, real):
    before = [t.clone() for t in (real.lattice, real.frac, real.numbers)]
    made = DOSED[name](real, 0.5, 3)
    assert not equal(made, real)
    made.validate()
    for old, now in zip(before, (real.lattice, real.frac, real.numbers), strict=True):
        assert torch.equal(old, now)


@each
def test_the_seed_decides(name, real):
    assert equal(DOSED[name](real, 0.5, 3), DOSED[name](real, 0.5, 3))
    if name != "isotropic":
        assert not equal(DOSED[name](real, 0.5, 3), DOSED[name](real, 0.5, 4))


@each
def test_impossible_doses_are_refused(name, real):
    for dose in (float("nan"), float("inf"), *((-1.5,) if name != "shear" else ())):
        with pytest.raises(InputError, match="dose"):
            DOSED[name](real, dose, 0)


@pytest.mark.parametrize("name", ["swap", "shuffle", "duplicate", "mirror", "drop modes"])
def test_shares_above_one_are_refused(name, real):
    with pytest.raises(InputError, match="at most 1"):
        DOSED[name](real, 1.01, 0)


def test_isotropic_strain_scales_every_distance(real):
    made = corruption.strain(real, 0.1)
    ratio = geometry.closest_contact(made)[0] / geometry.closest_contact(real)[0]
    assert np.allclose(ratio, 1.1)
    back = corruption.strain(made, 1 / 1.1 - 1)
    assert torch.allclose(back.lattice, real.lattice)


def test_shear_keeps_the_volume_and_has_the_size_asked_for(real):
    made = corruption.strain(real, 0.2, seed=1, kind="shear")
    assert torch.allclose(geometry.volume(made), geometry.volume(real))
    deformation = torch.linalg.inv(real.lattice) @ made.lattice
    assert torch.allclose(deformation, deformation.mT)  # a strain and no rotation
    largest = torch.linalg.eigvalsh(deformation).log().abs().amax(1)
    assert torch.allclose(largest, torch.full_like(largest, 0.2))
    back = corruption.strain(made, -0.2, seed=1, kind="shear")
    assert torch.allclose(back.lattice, real.lattice)


def test_displacements_have_the_size_asked_for_and_grow_along_a_line(real):
    def moves(dose):
        made = corruption.displace(real, dose, seed=2)
        delta = made.frac - real.frac
        return ((delta - delta.round()) @ real.lattice)[real.mask]  # (atoms, 3) Å

    small, large = moves(0.05), moves(0.1)
    assert torch.allclose(2 * small, large)
    assert float(large.square().sum(1).mean().sqrt()) == pytest.approx(0.1, rel=0.05)


def test_collapse_shrinks_one_edge(real):
    made = corruption.collapse(real, 0.9, seed=0)
    ratio = (made.lattice.norm(dim=2) / real.lattice.norm(dim=2)).sort(dim=1).values
    assert torch.allclose(ratio, torch.tensor([0.1, 1.0, 1.0]).double().expand(N, 3))


def test_one_atom_in_a_collapsed_cell_meets_its_own_image_only():
    iron = CrystalBatch.from_ragged(2.8 * np.eye(3)[None], np.zeros((1, 3)), [26], [1])
    made = corruption.collapse(iron, 0.9)
    assert geometry.closest_contact(made)[0][0] == pytest.approx(0.28)
    assert np.isinf(geometry.closest_contact(made, own_images=False)[0][0])


def test_swaps_go_where_they_should(real):
    group = elements.column("group").copy()
    group[57:72], group[89:104] = 101, 102
    for to in corruption.TARGETS:
        made = corruption.swap_elements(real, 1.0, to=to, seed=1)
        changed = made.numbers != real.numbers
        old, new = (group[c.numbers[changed].numpy()] for c in (real, made))
        assert ((old == new) == (to == "same group")).all()
        assert changed[real.mask].double().mean() > 0.8
        known = real.counts().any(0)
        assert not (made.counts().any(0) & ~known).any()


def test_the_dose_of_a_swap_is_a_share_of_sites(real):
    changed = [
        (corruption.swap_elements(real, d, seed=5).numbers != real.numbers)[real.mask]
        for d in (0.2, 0.6)
    ]
    assert not (changed[0] & ~changed[1]).any()  # the sites of a small dose are among those
    assert float(changed[1].double().mean()) == pytest.approx(0.6, abs=0.08)


def test_whole_elements_keep_the_template(real):
    made = corruption.swap_elements(real, 1.0, to="other group", whole_elements=True, seed=1)
    for one, other in zip(real, made, strict=True):
        n = int(one.n_sites[0])
        pairs = set(zip(one.numbers[0, :n].tolist(), other.numbers[0, :n].tolist(), strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_shuffling_keeps_the_formula(real):
    made = corruption.shuffle_sites(real, 1.0, seed=0)
    assert torch.equal(made.counts(), real.counts())
    assert (made.numbers != real.numbers).any()


def test_disguises_change_the_numbers_and_not_the_crystal(real):
    for way in ("_other_basis", "_doubled", "_shifted", "_permuted", "_turned"):
        made = getattr(corruption, way)(real, np.random.default_rng(2))
        assert not equal(made, real)
        found = same_as_reference(made, real)
        assert (found.first != NONE).mean() > 0.98, way
        contact = [geometry.closest_contact(c)[0] for c in (real, made)]
        assert np.allclose(*contact), way


def test_the_full_disguise_is_the_same_crystal_for_the_matcher(real):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    made = corruption.disguise(real, seed=7)
    assert (made.n_sites == 2 * real.n_sites).all()
    assert np.allclose(geometry.density(made), geometry.density(real))
    matcher = StructureMatcher()
    same = [
        matcher.fit(a, b) for a, b in zip(real.structures()[:30], made.structures(), strict=False)
    ]
    assert sum(same) >= 29


def test_a_rotation_is_no_reflection(real):
    made = corruption._turned(real, np.random.default_rng(0))
    assert torch.allclose(torch.linalg.det(made.lattice), torch.linalg.det(real.lattice))


def test_duplicates_are_copies_of_the_crystals_that_stay(real, monkeypatch):
    monkeypatch.setattr(corruption, "disguise", lambda crystals, *, seed: crystals)
    made = corruption.duplicate(real, 0.5, seed=1)
    kept = [i for i in range(N) if equal(made[i], real[i])]
    keys = {(real[i].lattice.numpy().tobytes(), real[i].frac.numpy().tobytes()) for i in kept}
    assert len(kept) == N // 2
    for one in made:
        assert (one.lattice.numpy().tobytes(), one.frac.numpy().tobytes()) in keys


def test_all_but_one_can_be_duplicates(real, monkeypatch):
    monkeypatch.setattr(corruption, "disguise", lambda crystals, *, seed: crystals)
    made = corruption.duplicate(real, 1.0)
    assert len({one.lattice.numpy().tobytes() for one in made}) == 1


def test_mirroring_twice_is_the_identity(real):
    twice = corruption.mirror(corruption.mirror(real))
    assert torch.allclose(twice.frac, real.frac)
    distances = [geometry.min_image_distances(c) for c in (real, corruption.mirror(real))]
    assert torch.allclose(*distances)


def test_a_left_handed_quartz_becomes_a_right_handed_one():
    left = datasets.load("oqmd_icsd").select(formulas=["SiO2"]).crystals
    group = symmetry.space_group_numbers(left, symprec=0.01)
    pairs = {152: 154, 154: 152, 92: 96, 96: 92}  # enantiomorphic pairs
    rows = np.flatnonzero(np.isin(group, list(pairs)))
    assert len(rows)
    mirrored = symmetry.space_group_numbers(corruption.mirror(left[rows]), symprec=0.01)
    assert mirrored.tolist() == [pairs[g] for g in group[rows]]


def test_dropping_modes_keeps_whole_space_groups(real):
    groups = symmetry.space_group_numbers(real)
    n = len(np.unique(groups))
    for dose, kinds in ((0.3, n - round(0.3 * n)), (1.0, 1)):
        made = corruption.drop_modes(real, dose, seed=0)
        kept = {
            int(groups[i])
            for i in range(N)
            if any(torch.equal(real[i].lattice, one.lattice) for one in made)
        }
        assert len(kept) == kinds
        assert len(made) == np.isin(groups, list(kept)).sum()


def test_every_crash_test_starts_at_nothing_and_ends_at_something(real):
    for name, test in corruption.CRASH_TESTS.items():
        assert test.doses[0] == 0.0, name
        assert list(test.doses) == sorted(test.doses), name
        assert equal(test.apply(real, 0.0, seed=1), real), name
        assert not equal(test.apply(real, test.doses[-1], seed=1), real), name


def test_unknown_names_are_told(real):
    with pytest.raises(UnknownNameError, match="isotropic"):
        corruption.strain(real, 0.1, kind="isotropc")
    with pytest.raises(UnknownNameError, match="same group"):
        corruption.swap_elements(real, 0.1, to="same groups")


def test_what_is_no_batch_or_no_seed_is_refused_and_any_precision_taken():
    crystals = CrystalBatch.from_ragged(
        4 * np.eye(3)[None], [[0.0, 0, 0], [0.5] * 3], [11, 17], [2]
    )
    single = CrystalBatch(crystals.lattice.float(), crystals.frac.float(), crystals.numbers.int())
    for call in (corruption.displace, corruption.mirror, corruption.swap_elements):
        assert call(single, 0.5, seed=np.int8(1)).lattice.dtype == torch.float64
        with pytest.raises(InputError, match="must be CrystalBatch"):
            call(None, 0.5)
        with pytest.raises(InputError, match=r"seed=1\.5"):
            call(crystals, 0.5, seed=1.5)
