"""The enumerated prototypes: structures, splits, and energies that a fresh scan finds again."""

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.datasets import split_of
from imd_helpers.descriptors.symmetry_sites import canonical, find_sites
from imd_helpers.energies.hull import formation_energy
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.models.cubicgan import training_sites


@pytest.fixture(scope="module")
def known():
    return datasets.load("cubic_prototypes")


def test_at_least_forty_thousand_compounds_in_three_space_groups(known):
    assert len(known) >= 40_000
    assert set(known.table["space_group"]) == {216, 221, 225}
    assert known.table["entry"].is_unique
    assert known.table["bulk_modulus"].between(0.5, 1000).all()


def test_every_crystal_has_its_space_group_and_its_formula(known):
    rows = np.random.default_rng(0).choice(len(known), 120, replace=False)
    some = known[rows]
    groups = symmetry.space_group_numbers(some.crystals, symprec=0.01)
    assert (groups == some.table["space_group"]).all()
    assert some.crystals.formulas() == some.table["formula"].tolist()
    assert [split_of(formula) for formula in some.table["formula"]] == some.table["split"].tolist()


def test_no_two_rows_are_the_same_crystal(known):
    sites = canonical(training_sites(None, data="cubic_prototypes"))
    keys = np.column_stack([sites.space_group, sites.numbers, sites.grid.reshape(len(sites), 9)])
    assert len(np.unique(keys, axis=0)) == len(known)


def test_sites_are_read_as_the_filter_reads_them(known):
    train = datasets.load("cubic_prototypes", split="train")
    rows = np.random.default_rng(1).choice(len(train), 60, replace=False)
    fast = canonical(training_sites(data="cubic_prototypes")[rows])
    slow, kept = find_sites(train[rows].crystals)
    slow = canonical(slow)
    assert len(kept) == len(rows)
    assert (fast.numbers == slow.numbers).all()
    assert (fast.grid == slow.grid).all()
    assert fast.length == pytest.approx(slow.length)


def test_a_fresh_scan_finds_the_recorded_numbers(known):
    rows = np.random.default_rng(2).choice(len(known), 12, replace=False)
    some = known[rows]
    small = symmetry.primitive(some.crystals)
    nudged = CrystalBatch(small.lattice * 1.01, small.frac, small.numbers)
    found = lattice_scan(nudged)
    assert found.ok.all()
    ratio = np.cbrt((found.crystals.lattice.det() / small.lattice.det()).abs().numpy())
    # CHGNet's energy has ripples of about 1 meV/atom, so another start moves the minimum a little
    assert np.median(np.abs(ratio - 1)) < 1e-3
    assert np.abs(ratio - 1).max() < 1e-2
    formed = formation_energy(small.counts().numpy(), found.energy)
    assert formed == pytest.approx(some.table["formation_energy"].to_numpy(), abs=5e-3)
    modulus = some.table["bulk_modulus"].to_numpy()
    assert np.median(np.abs(found.bulk_modulus / modulus - 1)) < 0.1


def test_real_crystals_of_the_same_kind_have_almost_the_same_lengths(known):
    """Rows that OQMD relaxed by DFT as well: CHGNet's a0 lies within a few percent."""
    real = imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=[216, 221, 225])
    sites, _ = find_sites(real.crystals)
    lengths = {}
    for one in (canonical(sites), canonical(training_sites(None, data="cubic_prototypes"))):
        keys = np.column_stack([one.space_group, one.numbers, one.grid.reshape(len(one), 9)])
        lengths.setdefault("all", []).append(dict(zip(map(bytes, keys), one.length, strict=True)))
    dft, ours = lengths["all"]
    shared = dft.keys() & ours.keys()
    assert len(shared) >= 20
    error = np.array([ours[key] / dft[key] - 1 for key in shared])
    assert np.median(np.abs(error)) < 0.02
