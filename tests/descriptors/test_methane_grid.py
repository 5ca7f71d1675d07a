"""The methane grid: published values, plain loops, invariances, atoms back, and failures."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.methane_grid import (
    MethaneGrid,
    heat_of_adsorption,
    scale_energy,
)
from imd_helpers.runtime import InputError

GRID = MethaneGrid()
COARSE = MethaneGrid(points=12)


@pytest.fixture(scope="module")
def zeolites():
    return imd.datasets.load("iza_zeolites").structures(["ACO", "LTA", "SOD", "CHA", "ABW"])


def test_minima_of_the_published_grids(zeolites):
    """The files of ZeoGAN hold -2392.2385 K for ACO and -2884.5645 K for LTA."""
    assert GRID.energy(zeolites["ACO"]).min() == pytest.approx(-2392.24, abs=0.01)
    assert GRID.energy(zeolites["LTA"]).min() == pytest.approx(-2884.5645, abs=0.01)


def by_loops(structure, points, cutoff):
    """All images of all O atoms, one after the other: energy, and both densities."""
    axis = np.arange(points) / points
    frac = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    lattice = structure.lattice.matrix
    reach = int(np.ceil(cutoff * np.linalg.norm(np.linalg.inv(lattice), axis=0).max())) + 1
    energy, density = np.zeros((points,) * 3), np.zeros((2, *(points,) * 3))
    for site in structure:
        for image in itertools.product(range(-reach, reach + 1), repeat=3):
            step = (frac - site.frac_coords - image) @ lattice
            square = (step**2).sum(-1)
            if site.specie.symbol == "O":
                sixth = (3.47**2 / square) ** 3
                energy += np.where(square <= cutoff**2, 4 * 115.0 * sixth * (sixth - 1), 0.0)
            density[0 if site.specie.symbol == "O" else 1] += np.exp(-square)
    return energy, density


@pytest.mark.parametrize("turned", [False, True])
def test_plain_loops(zeolites, turned):
    """Also in a skewed cell, a primitive one that another lattice vector was added to."""
    structure = zeolites["SOD"].get_primitive_structure() if turned else zeolites["ABW"]
    if turned:
        structure.make_supercell([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    grid = MethaneGrid(points=7)
    energy, density = by_loops(structure, 7, 12.0)
    inside = energy < 1e6
    assert inside.sum() > 20
    assert np.allclose(grid.energy(structure)[inside], energy[inside], rtol=1e-9, atol=1e-6)
    assert np.allclose(grid.density(structure), density, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(-20, 20)] * 3), st.integers(0, 2**31))
def test_moves_roll_and_order_does_not_count(zeolites, steps, seed):
    crystal = CrystalBatch.from_structures([zeolites["ABW"]])
    order = np.random.default_rng(seed).permutation(int(crystal.n_sites[0]))
    moved = CrystalBatch.from_ragged(
        crystal.lattice,
        crystal.frac[0][order] + torch.tensor(steps, dtype=torch.float64) / 12,
        crystal.numbers[0][order],
        [len(order)],
    )
    rolled = np.roll(COARSE.energy(crystal), steps, (0, 1, 2))
    found = COARSE.energy(moved)
    bounded = (rolled < 1e6) & (found < 1e6)
    assert bounded.sum() > 100
    apart = np.abs(found - rolled)[bounded] / np.maximum(1.0, np.abs(rolled[bounded]))
    # a pair at the cutoff, where the energy jumps by 0.27 K, may fall to either side
    assert np.quantile(apart, 0.95) < 1e-6
    assert apart.max() < 3.0
    rolled = np.roll(COARSE.density(crystal), steps, (1, 2, 3))
    assert np.allclose(COARSE.density(moved), rolled, atol=1e-8)


def test_turning_the_crystal_changes_nothing(zeolites):
    crystal = CrystalBatch.from_structures([zeolites["ABW"]])
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = CrystalBatch(crystal.lattice @ turn, crystal.frac, crystal.numbers)
    assert np.allclose(COARSE.energy(turned), COARSE.energy(crystal), rtol=1e-6)


def test_atoms_come_back(zeolites):
    structures = list(zeolites.values())
    crystals = CrystalBatch.from_structures(structures)
    decoded = GRID.decode(GRID.encode(structures), crystals.lattice)
    assert decoded.ok.all(), decoded.reasons
    assert decoded.crystals.n_sites.tolist() == crystals.n_sites.tolist()
    for i in range(len(crystals)):
        n = int(crystals.n_sites[i])
        delta = crystals.frac[i, :n, None] - decoded.crystals.frac[i, None, :n]
        distance = ((delta - delta.round()) @ crystals.lattice[i]).norm(dim=-1)
        same = crystals.numbers[i, :n, None] == decoded.crystals.numbers[i, None, :n]
        assert distance.masked_fill(~same, 9.0).amin(1).max() < 0.05


def test_energies_are_scaled_as_published():
    energy = np.array([-9000.0, -4000.0, 500.0, 5000.0, np.inf, np.nan])
    assert np.allclose(scale_energy(energy), [1, 1, 0.5, 0, 0, 0])


def test_heat_of_adsorption():
    """A flat well of depth D gives D + T; a wall far above adds nothing."""
    energy = np.array([-2000.0, -2000.0, 1e30, np.inf])
    assert heat_of_adsorption(energy) == pytest.approx((2000 + 298) * 8.314e-3)
    two = np.array([-2000.0, -1000.0])
    weight = np.exp(-two / 200.0)
    expected = (200 - (two * weight).sum() / weight.sum()) * 8.314e-3
    assert heat_of_adsorption(two, temperature=200.0) == pytest.approx(expected)


# ---- failures


def broken(zeolites):
    from pymatgen.core import Lattice, Structure

    quartz = zeolites["ABW"]
    twin = quartz.copy()
    twin.append("O", quartz[0].frac_coords + 0.005)
    salt = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    mixed = quartz.copy()
    mixed.replace(0, {"Si": 0.5, "Al": 0.5})
    return {"NaCl: the methane grid": salt, "apart: atoms overlap": twin, "ordered": mixed}


def test_single_ones_raise_and_batches_say_why(zeolites):
    bad = broken(zeolites)
    for reason, structure in bad.items():
        with pytest.raises(InputError, match=reason):
            GRID.energy(structure)
        with pytest.raises(InputError, match=reason):
            GRID.encode([structure])
    batch = [zeolites["ABW"], *bad.values()]
    encoded = COARSE.encode_all(batch)
    assert encoded.ok.tolist() == [True, False, False, False]
    assert all(words in reason for words, reason in zip(bad, encoded.reasons[1:], strict=True))
    tensor = encoded.tensor
    assert tensor[1:].abs().max() == 0 < tensor[0].abs().max()
    with pytest.raises(InputError, match="2 crystals at once"):
        GRID.energy(CrystalBatch.from_structures([zeolites["ABW"]] * 2))


def test_decoding_says_what_is_wrong(zeolites):
    crystal = CrystalBatch.from_structures([zeolites["ABW"]])
    tensor = GRID.encode(crystal).repeat(4, 1, 1, 1, 1)
    tensor[0, 1] = float("nan")
    tensor[1, 2] = 0
    tensor[2, 1] = tensor[2, 2]
    decoded = GRID.decode(tensor, crystal.lattice.repeat(4, 1, 1))
    assert decoded.ok.tolist() == [False, False, False, True]
    for reason, words in zip(decoded.reasons, ["NaN", "grid of Si has no peak", "two O", ""]):
        assert words in reason
    with pytest.raises(InputError, match=r"expected \(batch, 3, 32, 32, 32\)"):
        GRID.decode(tensor[:, :2], crystal.lattice)
    with pytest.raises(InputError, match="one cell for each sample"):
        GRID.decode(tensor, crystal.lattice)
