"""Frameworks out of grids: published sequences, mending, other cells, failures in a batch."""

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.methane_grid import MethaneGrid
from imd_helpers.matching.same import novel
from imd_helpers.models import zeogan_frameworks as zf
from imd_helpers.runtime import InputError

GRID = MethaneGrid(points=24)
CODES = ["ABW", "ACO", "CHA", "SOD", "GIS"]
SEQUENCES = {  # of the Atlas of Zeolite Framework Types
    "SOD": [4, 10, 20, 34, 52, 74, 100, 130, 164, 202],
    "CHA": [4, 9, 17, 29, 45, 64, 85, 110, 140, 173],
    "GIS": [4, 9, 18, 32, 48, 67, 92, 120, 150, 185],
}


@pytest.fixture(scope="module")
def zeolites():
    return imd.datasets.load("iza_zeolites").structures(CODES)


def batch_of(structure):
    return CrystalBatch.from_structures([structure])


def grids_of(crystal):
    """Densities behind a grid of zeros, which decoding does not read."""
    density = torch.as_tensor(GRID.density(crystal))
    return torch.cat([torch.zeros_like(density[:1]), density])[None]


def without(crystal, atom):
    """The crystal without one atom, as peaks that were read."""
    keep = np.arange(int(crystal.n_sites[0])) != atom
    fewer = CrystalBatch.from_ragged(
        crystal.lattice, crystal.frac[0, keep], crystal.numbers[0, keep], [int(keep.sum())]
    )
    return Samples.from_reasons(fewer, ["not two O for each Si"])


@pytest.mark.parametrize("code", CODES)
def test_there_and_back(zeolites, code):
    """Nothing is mended in a framework whose peaks are right."""
    crystal = batch_of(zeolites[code])
    made = zf.frameworks(grids_of(crystal), crystal.lattice)
    assert made.untouched.all()
    assert not novel(made.samples.crystals, crystal).any()
    assert zf.framework_key(made.samples.crystals) == zf.framework_key(crystal)


@pytest.mark.parametrize("code", SEQUENCES)
def test_published_coordination_sequences(zeolites, code):
    found = zf.coordination_sequences(batch_of(zeolites[code]))
    assert (found == SEQUENCES[code]).all()


def test_the_key_is_of_the_framework_not_of_the_cell(zeolites):
    """The same for a primitive cell and a doubled one; another for each type."""
    primitive = zeolites["SOD"].get_primitive_structure()
    double = zeolites["SOD"].copy().make_supercell([2, 1, 1])
    keys = {zf.framework_key(batch_of(cell)) for cell in (zeolites["SOD"], primitive, double)}
    assert len(keys) == 1
    assert len({zf.framework_key(batch_of(zeolites[code])) for code in CODES}) == len(CODES)


def test_a_lost_oxygen_is_put_back_midway(zeolites):
    crystal = batch_of(zeolites["CHA"])
    lost = int((crystal.numbers[0] == 8).nonzero()[0, 0])
    made = zf.mend(without(crystal, lost))
    assert made.samples.ok.all()
    assert (made.added[0], made.dropped[0], made.kept[0]) == (1, 0, int(crystal.counts()[0, 8]) - 1)
    assert not made.untouched[0]
    assert zf.framework_key(made.samples.crystals) == zf.framework_key(crystal)


def test_an_oxygen_in_a_pore_is_dropped(zeolites):
    crystal = batch_of(zeolites["SOD"])
    n = int(crystal.n_sites[0])
    pore = torch.tensor([[0.0, 0.0, 0.0]], dtype=crystal.frac.dtype)
    distance = zeolites["SOD"].lattice.get_all_distances(pore.numpy(), crystal.frac[0].numpy())
    assert distance.min() > 3.0
    more = CrystalBatch.from_ragged(
        crystal.lattice,
        torch.cat([crystal.frac[0], pore]),
        torch.cat([crystal.numbers[0], torch.tensor([8])]),
        [n + 1],
    )
    made = zf.mend(Samples.from_reasons(more, ["25 O and 12 Si, not two O for each Si"]))
    assert made.samples.ok.all()
    assert made.dropped[0] == 1
    assert int(made.samples.crystals.n_sites[0]) == n


def test_an_interrupted_framework_says_so(zeolites):
    crystal = batch_of(zeolites["SOD"])
    lost = int((crystal.numbers[0] == 14).nonzero()[0, 0])
    made = zf.mend(without(crystal, lost))
    assert made.samples.reasons[0] == "interrupted: 4 of 11 Si have fewer than four bridges"
    with pytest.raises(InputError, match="no whole framework"):
        zf.framework_key(without(crystal, lost).content)


def test_bad_grids_fail_alone(zeolites):
    """Empty, not finite, too many peaks, no room: each with its reason; the good one stays."""
    crystal = batch_of(zeolites["SOD"])
    good = grids_of(crystal)
    dense = CrystalBatch(0.75 * crystal.lattice, crystal.frac, crystal.numbers)
    grids = torch.cat([good, 0 * good, torch.full_like(good, torch.nan), grids_of(dense), good])
    tiny = 1e-3 * crystal.lattice
    cells = torch.cat([crystal.lattice.expand(3, -1, -1), dense.lattice, tiny])
    made = zf.frameworks(grids, cells)
    assert made.samples.ok.tolist() == [True, False, False, False, False]
    assert made.samples.reasons[4] == "an edge of 0.009 Å, at least 2.0 Å"
    assert "no peak" in made.samples.reasons[1]
    assert "NaN" in made.samples.reasons[2]
    assert "too many peaks" in made.samples.reasons[3]
    alone = zf.frameworks(good, crystal.lattice).samples.crystals
    kept = made.samples.crystals[:1]
    n = int(alone.n_sites[0])
    assert torch.equal(kept.frac[0, :n], alone.frac[0])


@pytest.mark.parametrize("shape", [(1, 3, 8, 8, 9), (1, 2, 8, 8, 8), (3, 8, 8, 8)])
def test_another_shape_is_an_error_that_teaches(shape):
    with pytest.raises(InputError, match=r"expected .*3, 8, 8, 8"):
        zf.frameworks(torch.zeros(shape), torch.eye(3)[None])


def test_grids_of_several_sizes_are_an_error_that_teaches():
    with pytest.raises(InputError, match="one size after the other"):
        zf.frameworks([torch.zeros(3, 8, 8, 8), torch.zeros(3, 16, 16, 16)], torch.eye(3)[None])
