"""The two potentials, relaxation and the lattice scan, on crystals whose answers are known."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.energies import lattice_scan as scanning
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.energies.potentials import GPA, POTENTIALS, Potential, potential
from imd_helpers.energies.relaxation import rattled, relax
from imd_helpers.runtime import InputError, UnknownNameError


def rocksalt(cation, anion, a):
    return Structure.from_spacegroup(225, Lattice.cubic(a), [cation, anion], [[0] * 3, [0.5] * 3])


def mgo(a=4.25):
    return symmetry.primitive(CrystalBatch.from_structures([rocksalt("Mg", "O", a)]))


def shaken(crystals, amount, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shift = torch.randn(crystals.frac.shape, generator=rng, dtype=torch.float64) * amount
    return CrystalBatch(crystals.lattice, (crystals.frac + shift) % 1, crystals.numbers)


class Spring(Potential):
    """A crystal whose length likes to be 5 Å: Birch-Murnaghan with a known bulk modulus."""

    name, label, package, scale = "spring", "spring", "numpy", "none"
    a0, b0, b1, e0 = 5.0, 80.0 / GPA, 4.5, -3.0

    def __init__(self):
        self.calls = 0

    def _run(self, crystals, forces):
        self.calls += 1
        volume = crystals.lattice.det().abs().numpy() / crystals.n_sites.numpy()
        v0 = self.a0**3 / 8
        x = (v0 / volume) ** (2 / 3)
        energy = self.e0 + 9 / 16 * v0 * self.b0 * (
            (x - 1) ** 3 * self.b1 + (x - 1) ** 2 * (6 - 4 * x)
        )
        return [(e,) for e in energy]


@pytest.mark.equation(
    "eq-stability-forces", function="imd_helpers.energies.potentials.Potential.evaluate"
)
@pytest.mark.parametrize("name", POTENTIALS)
def test_energies_forces_and_stress_are_derivatives_of_one_another(name, agrees):
    """Central differences of the energy of MgO: the forces in eV/Å, the pressure as a ratio."""
    model = potential(name)
    crystal = shaken(mgo(4.4), 0.02)
    found = model.evaluate(crystal)
    assert model.energies(crystal) == pytest.approx(found.energy, abs=2e-6)
    step, atoms = 1e-2, int(crystal.n_sites[0])
    for axis in range(3):
        shift = torch.zeros_like(crystal.frac)
        shift[0, 0] = torch.linalg.solve(crystal.lattice[0].T, step * torch.eye(3)[axis].double())
        two = [
            CrystalBatch(crystal.lattice, crystal.frac + s * shift, crystal.numbers)
            for s in (-1, 1)
        ]
        down, up = (model.energies(each)[0] * atoms for each in two)
        agrees(found.forces[0, 0, axis], -(up - down) / (2 * step), within=0.03)
    down, up = (
        model.energies(CrystalBatch(crystal.lattice * (1 + s), crystal.frac, crystal.numbers))[0]
        for s in (-0.005, 0.005)
    )
    pressure = np.trace(found.stress[0]) * float(crystal.lattice.det().abs()) / atoms
    agrees((up - down) / 0.01 / pressure, 1.0, within=0.03)


def calculator(name):
    """The potential by its own package, for ASE."""
    if name == "chgnet":
        from chgnet.model.dynamics import CHGNetCalculator

        return CHGNetCalculator(potential(name).model, use_device="cpu", on_isolated_atoms="ignore")
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(potential(name).weights, device="cpu")


@pytest.mark.parametrize("name", POTENTIALS)
def test_batches_agree_with_single_crystals_and_with_ase(name):
    model = potential(name)
    crystals = CrystalBatch.from_structures(
        [rocksalt("Na", "Cl", 5.7), *mgo(4.1).structures(), rocksalt("K", "Br", 6.7)]
    )
    crystals = shaken(crystals, 0.01)
    found = model.evaluate(crystals, batch=3)
    for i in range(3):
        alone = model.evaluate(crystals[i])
        k = int(crystals.n_sites[i])
        assert found.energy[i] == pytest.approx(alone.energy[0], abs=1e-5)
        assert np.abs(found.forces[i, :k] - alone.forces[0, :k]).max() < 1e-3
        assert np.abs(found.stress[i] - alone.stress[0]).max() < 1e-4
    atoms = crystals[1].structures()[0].to_ase_atoms()
    atoms.calc = calculator(name)
    assert found.energy[1] == pytest.approx(atoms.get_potential_energy() / 2, abs=1e-5)
    assert np.abs(found.forces[1, :2] - atoms.get_forces()).max() < 1e-3
    assert np.abs(found.stress[1] - atoms.get_stress(voigt=False)).max() < 1e-4


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_stress_does_not_depend_on_the_order_of_the_edges(name):
    """Two edges exchanged make a left-handed cell of the same crystal."""
    crystal = shaken(mgo(4.4), 0.02)
    order = [1, 0, 2]
    left = CrystalBatch(crystal.lattice[:, order], crystal.frac[..., order], crystal.numbers)
    assert (crystal.lattice.det() * left.lattice.det() < 0).all()
    found, other = (potential(name).evaluate(each) for each in (crystal, left))
    assert np.abs(found.stress).max() > 1e-3
    assert np.abs(found.stress - other.stress).max() < 1e-5
    assert np.abs(found.forces - other.forces).max() < 1e-3


def test_a_crystal_that_breaks_the_gate_or_the_model_stops_nothing():
    good, crushed = mgo(), mgo(2.0)
    broken = CrystalBatch(good.lattice * float("nan"), good.frac, good.numbers)
    crystals = CrystalBatch.cat([crushed, good, broken])
    found = potential().evaluate(crystals)
    assert np.isnan(found.energy).tolist() == [True, False, True]
    assert "distance gate" in found.failed[0]
    assert "NaN" in found.failed[2]
    assert np.isnan(potential().energies(crystals)).tolist() == [True, False, True]

    class Odd(Spring):
        def _run(self, crystals, forces):
            if (crystals.lattice.det().abs() < 12).any():
                raise RuntimeError("too small for me")
            return super()._run(crystals, forces)

    energy = Odd().energies(CrystalBatch.cat([mgo(3.4), mgo(4.0), mgo(4.2)]))
    assert np.isnan(energy).tolist() == [True, False, False]


def test_a_collapsed_crystal_fails_alone_and_fills_no_memory(monkeypatch):
    """Its graph has so many angles that it is not even tried."""
    squeezed = CrystalBatch.from_structures([rocksalt("Mg", "O", 2.2)])
    both = CrystalBatch.cat([squeezed, mgo()])
    alone = potential("chgnet").evaluate(mgo()).energy
    monkeypatch.setattr("imd_helpers.energies.potentials.MOST_ANGLES", 2_000)
    found = potential("chgnet").evaluate(both, gate=None)
    assert "angles" in found.failed[0]
    assert "collapsed" in found.failed[0]
    assert found.energy[1] == pytest.approx(alone[0], abs=1e-5)


def test_unknown_potentials_and_bad_numbers_are_refused():
    with pytest.raises(UnknownNameError, match="sevennet"):
        potential("sevenet")
    with pytest.raises(InputError, match="fmax"):
        relax(mgo(), fmax=0)


def test_relaxation_finds_the_minimum_that_ase_finds():
    from ase.filters import UnitCellFilter
    from ase.optimize import FIRE

    crystal = shaken(mgo(4.4), 0.02)
    found = relax(crystal, fmax=0.02, trajectory=True)
    assert found.converged.all()
    assert len(found.frames) == found.steps[0] == len(found.energies)
    assert found.energies[-1, 0] == found.energy[0] < found.energies[0, 0] - 0.03
    atoms = crystal.structures()[0].to_ase_atoms()
    atoms.calc = calculator("chgnet")
    FIRE(UnitCellFilter(atoms), logfile=None).run(fmax=0.02, steps=200)
    assert found.energy[0] == pytest.approx(atoms.get_potential_energy() / 2, abs=2e-3)
    volume = float(found.crystals.lattice.det().abs())
    assert volume == pytest.approx(atoms.get_volume(), rel=0.01)
    assert symmetry.space_group_numbers(found.crystals, symprec=0.05)[0] == 225


def test_a_relaxation_that_runs_out_of_steps_says_so():
    crystals = CrystalBatch.cat([shaken(mgo(4.5), 0.05), mgo(2.0)])
    found = relax(crystals, steps=2)
    assert not found.converged.any()
    assert found.steps.tolist() == [2, 1]
    assert np.isfinite(found.energy[0])
    assert "distance gate" in found.failed[1]
    assert torch.equal(found.crystals.lattice[1], crystals.lattice[1])


def test_a_rattled_saddle_falls_and_a_rattled_valley_is_found_again():
    """Gold in a simple cubic lattice rests by symmetry alone; nature stacks it face-centred."""
    lattices = np.stack([np.eye(3) * 2.77, (np.ones((3, 3)) - np.eye(3)) * 2.08])
    gold = CrystalBatch.from_ragged(lattices, np.zeros((2, 3)), [79, 79], [1, 1])
    rest = relax(gold, "chgnet", fmax=0.005, steps=300)
    again = relax(rattled(rest.crystals), "chgnet", fmax=0.005, steps=400)
    assert rest.converged.all()
    assert again.converged.all()
    assert symmetry.space_group_numbers(rest.crystals).tolist() == [221, 225]
    assert symmetry.space_group_numbers(again.crystals).tolist() == [225, 225]
    gain = rest.energy - again.energy
    assert gain[0] > 0.1
    assert abs(gain[1]) < 1e-3


def test_a_push_depends_on_the_seed_of_its_crystal_alone():
    cells = np.tile(np.eye(3) * 4.0, (3, 1, 1))
    sites = np.tile([[0.0, 0, 0], [0.5, 0.5, 0.5]], (3, 1))
    crystals = CrystalBatch.from_ragged(cells, sites, [55, 17] * 3, [2, 2, 2])
    pushed = rattled(crystals, seeds=[5, 6, 5])
    assert torch.equal(pushed.frac[0], pushed.frac[2])
    assert not torch.equal(pushed.frac[0], pushed.frac[1])
    assert torch.equal(pushed[1].frac, rattled(crystals[1], seeds=6).frac)
    with pytest.raises(InputError, match="amplitude=0"):
        rattled(crystals, amplitude=0)


@pytest.mark.parametrize("start", [3.6, 4.6, 5.0, 5.3, 6.5])
def test_the_lattice_scan_finds_a_known_equation_of_state(start):
    model = Spring()
    found = lattice_scan(CrystalBatch.from_structures([rocksalt("Na", "Cl", start)]), model)
    assert found.ok.all(), found.reasons
    assert float(found.crystals.lattice[0, 0, 0]) == pytest.approx(5.0, abs=1e-4)
    assert found.energy[0] == pytest.approx(-3.0, abs=1e-6)
    assert found.bulk_modulus[0] == pytest.approx(80.0, rel=1e-3)


def test_the_lattice_scan_agrees_with_a_tight_relaxation():
    crystals = CrystalBatch.from_structures(
        [rocksalt("Mg", "O", 4.4), rocksalt("Na", "Cl", 5.5), rocksalt("Li", "F", 4.2)]
    )
    found = lattice_scan(crystals)
    tight = relax(symmetry.primitive(found.crystals), fmax=0.002)
    assert tight.converged.all()
    assert found.energy == pytest.approx(tight.energy, abs=2e-3)
    a = found.crystals.lattice[:, 0, 0].numpy()
    b = np.cbrt(4 * tight.crystals.lattice.det().abs().numpy())
    assert np.abs(a - b).max() < 0.02
    # measured on the page of facts: 4.252 Å by CHGNet 0.3.0
    assert a[0] == pytest.approx(4.25, abs=0.02)


def test_a_scan_without_a_minimum_gives_the_reason_and_the_crystal_back():
    class Slope(Spring):
        def _run(self, crystals, forces):
            return [(float(d),) for d in -crystals.lattice.det().abs()]

    crystals = CrystalBatch.cat([mgo(), mgo(2.0)])
    found = lattice_scan(crystals, Slope())
    assert not found.ok.any()
    assert "no minimum" in found.reasons[0]
    assert "distance gate" in found.reasons[1]
    assert torch.equal(found.crystals.lattice, crystals.lattice)


def test_which_crystals_have_nothing_free_but_the_scale():
    perovskite = Structure.from_spacegroup(
        221, Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0] * 3, [0.5] * 3, [0.5, 0.5, 0]]
    )
    pyrite = Structure.from_spacegroup(205, Lattice.cubic(5.4), ["Fe", "S"], [[0] * 3, [0.385] * 3])
    wurtzite = Structure.from_spacegroup(
        186, Lattice.hexagonal(3.25, 5.2), ["Zn", "O"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.38]]
    )
    given = [rocksalt("Mg", "O", 4.2), perovskite, pyrite, wurtzite]
    free = symmetry.only_scale_is_free(CrystalBatch.from_structures(given))
    assert free.tolist() == [True, True, False, False]


def test_the_parabola_never_leaves_its_window():
    energy = np.array([[0.0, 1.0, 0.0, 1.0, 0.0], [3.0, 2.0, 1.0, 2.0, 3.0]])
    factor = scanning._parabola(energy, np.array([2, 2]), np.array([True, True]))
    assert factor == pytest.approx(1.0)
