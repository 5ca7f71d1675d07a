import sys

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.energies import phonons as module
from imd_helpers.energies.phonons import (
    DISPLACEMENT,
    acoustic_sum,
    dynamically_stable,
    phonons,
    roughness,
)
from imd_helpers.energies.potentials import Potential, potential
from imd_helpers.runtime import InputError, UnknownNameError

THZ = 15.633302  # sqrt(eV / Å^2 / u) / 2π
ARGON = 39.948  # u
SIGMA, EPSILON = 3.4, 0.1  # Å, eV
SPRING = 72 * EPSILON / (2 ** (1 / 3) * SIGMA**2)  # second derivative at the minimum
EDGE = np.sqrt(2) * 2 ** (1 / 6) * SIGMA  # of the cubic cell, neighbours at the minimum


class LennardJones(Potential):
    """Nearest neighbours only, so that frequencies are known in closed form.

    ``pin`` adds a field that holds atoms to the sites of the lattice, which no crystal has;
    ``sign`` turns the forces round, so that every valley is a hill; ``cusp`` is a force that sets
    in at once when an atom leaves its site.
    """

    label, package, scale = "Lennard-Jones", "ase", "none"

    def __init__(self, name="lj", pin=0.0, sign=1.0, cusp=0.0):
        self.name, self.pin, self.sign, self.cusp = name, pin, sign, cusp

    def calculator(self):
        from ase.calculators.lj import LennardJones as Calculator

        return Calculator(sigma=SIGMA, epsilon=EPSILON, rc=1.3 * SIGMA)

    def _run(self, crystals, forces):
        return [self._one(each) for each in crystals.structures()]

    def _one(self, structure):
        atoms = structure.to_ase_atoms(msonable=False)
        atoms.calc = self.calculator()
        stress = atoms.get_stress(voigt=False)
        wave = 4 * np.pi / EDGE
        field = -self.pin / wave * np.sin(wave * atoms.positions)
        field -= self.cusp * np.tanh(1e6 * np.sin(wave * atoms.positions))
        forces = self.sign * atoms.get_forces() + field
        return atoms.get_potential_energy() / len(atoms), forces, stress


def cubic(edge, species, sites):
    n = len(species)
    return CrystalBatch.from_ragged(edge * np.eye(3)[None], np.array(sites), species, [n])


FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
OTHER = [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]


def argon(edge=EDGE):
    return cubic(edge, [18] * 4, FCC)


def rock_salt(edge, cation, anion):
    return cubic(edge, [cation] * 4 + [anion] * 4, FCC + OTHER)


@pytest.fixture(scope="module")
def lennard_jones():
    return phonons(argon(1.02 * EDGE), LennardJones())


HERE = "imd_helpers.energies.phonons."


@pytest.mark.equation("eq-stability-modes", function=HERE + "phonons")
def test_frequencies_of_springs_between_neighbours_are_those_of_the_textbook(lennard_jones, agrees):
    """Closed forms of the phonons at X and L: a face-centred lattice, springs to neighbours."""
    places = {name: place for place, name in lennard_jones.ticks}
    at_x = lennard_jones.frequencies[np.isclose(lennard_jones.distance, places["X"])][0]
    unit = THZ * np.sqrt(SPRING / ARGON)
    expected = unit * np.sqrt([4, 4, 8])  # transverse twice, longitudinal
    agrees(np.sort(at_x), expected, within=2e-3, relative=True)
    at_l = lennard_jones.frequencies[np.isclose(lennard_jones.distance, places["L"])][0]
    agrees(np.sort(at_l), unit * np.sqrt([2, 2, 8]), within=2e-3, relative=True)


@pytest.mark.equation("eq-stability-spring", function=HERE + "phonons")
def test_two_sublattices_on_springs_swing_with_their_reduced_mass(agrees):
    """Rock salt: each atom on two springs along a line, and the reduced mass of Mg and O, THz."""
    edge = 2 * 2 ** (1 / 6) * SIGMA  # six neighbours of the other kind at the minimum
    found = phonons(rock_salt(edge, 12, 8), LennardJones(), at_rest=False, dos=False)
    expected = THZ * np.sqrt(2 * SPRING * (1 / 24.305 + 1 / 15.9994))
    agrees(found.optical, np.full(3, expected), within=2e-3, relative=True)


def test_a_crystal_of_springs_is_at_rest_and_has_no_imaginary_mode(lennard_jones):
    assert lennard_jones.verdict == "real"
    assert lennard_jones.doubts == ()
    assert lennard_jones.sum_rule < 1e-6
    assert lennard_jones.force < 1e-9
    assert lennard_jones.space_group == 225
    assert lennard_jones.optical == ()  # one atom in the primitive cell
    assert lennard_jones.displacements == 1
    assert lennard_jones.roughness == 0.0  # forces on the only atom of the cell vanish


def test_the_density_of_states_counts_all_modes(lennard_jones):
    total = np.trapezoid(lennard_jones.dos, lennard_jones.dos_frequency)
    assert total == pytest.approx(3, rel=0.02)
    top = lennard_jones.frequencies.max()
    assert lennard_jones.dos[lennard_jones.dos_frequency > 1.1 * top] == pytest.approx(0)


def test_forces_that_do_not_add_up_break_the_sum_rule():
    pinned = phonons(argon(), LennardJones(pin=0.3 * SPRING), at_rest=False, dos=False)
    # an atom has 12 neighbours, its own constant is 4 springs, plus the pin
    assert pinned.sum_rule == pytest.approx(0.3 / 4.3, rel=0.01)
    assert pinned.verdict == "doubtful"
    assert "acoustic sum rule" in pinned.doubts[0]


@pytest.mark.equation("eq-stability-sum", function=HERE + "acoustic_sum")
def test_the_sum_rule_is_measured_on_full_and_compact_force_constants(agrees):
    """Two atoms on one spring: no violation, and 1/3 of the largest if one constant is raised."""
    spring = np.eye(3) * 2.0
    full = np.array([[spring, -spring], [-spring, spring]])
    agrees(acoustic_sum(full, [0, 1]), 0, within=1e-12)
    agrees(acoustic_sum(full[:1], [0]), 0, within=1e-12)
    full[0, 0] *= 1.5
    agrees(acoustic_sum(full, [0, 1]), 1 / 3, within=1e-12)
    agrees(acoustic_sum(full[:1], [0]), 1 / 3, within=1e-12)


def test_a_cusp_of_the_energy_is_noticed():
    primitive = CrystalBatch.from_ragged(
        EDGE * (np.ones((3, 3)) - np.eye(3))[None] / 2, [[0.0, 0.0, 0.0]], [18], [1]
    )
    two = CrystalBatch.from_ragged(
        EDGE * np.diag([1.0, 0.5, 0.5])[None] @ rotation(), [[0.0] * 3, [0.5] * 3], [18] * 2, [2]
    )
    assert roughness(two, LennardJones(), DISPLACEMENT) < 0.02
    # one atom alone moves with all its images, so that springs do not pull: only the cusp does
    share = roughness(primitive, LennardJones(cusp=1e-3), DISPLACEMENT)
    assert share == pytest.approx(1.0, rel=1e-3)


def rotation():
    return np.array([[1.0, 0, 0], [0, 1, 1], [0, -1, 1]])


def test_a_crystal_under_pressure_is_doubtful():
    squeezed = phonons(argon(0.97 * EDGE), LennardJones(), at_rest=False, dos=False)
    assert squeezed.pressure > module.LARGEST_PRESSURE
    assert squeezed.verdict == "doubtful"


def test_the_verdict_needs_two_witnesses_against_a_crystal():
    good, bad = LennardJones("good"), LennardJones("bad", sign=-1.0)
    also_bad = LennardJones("also bad", sign=-1.0)
    ask = {"at_rest": False, "dos": False}
    assert dynamically_stable(argon(), [good], **ask).verdict == "stable"
    assert dynamically_stable(argon(), [bad], **ask).verdict == "undecided"
    assert dynamically_stable(argon(), [good, bad], **ask).verdict == "undecided"
    both = dynamically_stable(argon(), [bad, also_bad], **ask)
    assert both.verdict == "unstable"
    assert len(both.reasons) == 2
    assert all("lowest frequency -" in reason for reason in both.reasons)


def test_a_potential_that_fails_leaves_the_verdict_open():
    class Mute(LennardJones):
        label = "Mute"

        def _one(self, structure):
            raise RuntimeError("no answer")

    said = dynamically_stable(argon(), [LennardJones(), Mute("mute")], at_rest=False, dos=False)
    assert said.verdict == "undecided"
    assert "no answer" in said.reasons[1]
    assert list(said.found) == ["lj"]


@pytest.mark.parametrize("name", ["chgnet", "sevennet"])
@pytest.mark.parametrize(("edge", "cation", "anion"), [(4.25, 12, 8), (5.67, 11, 17)])
def test_mgo_and_nacl_have_no_imaginary_modes(name, edge, cation, anion):
    found = phonons(rock_salt(edge, cation, anion), name, dos=False)
    assert found.verdict == "real"
    assert found.sum_rule < 1e-3
    assert found.supercell == 64
    assert found.displacements == 2
    assert len(found.optical) == 3
    assert max(found.optical) - min(found.optical) < 1e-3  # threefold, and not split


def test_mgo_in_the_structure_of_cscl_is_unstable_by_both_potentials():
    crystal = cubic(2.65, [12, 8], [[0, 0, 0], [0.5, 0.5, 0.5]])
    said = dynamically_stable(crystal, dos=False)
    assert said.verdict == "unstable"
    assert all(each.lowest < -5 for each in said.found.values())


def test_cubic_cspbi3_is_unstable_by_both_potentials():
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    said = dynamically_stable(cubic(6.3, [55, 82, 53, 53, 53], sites), dos=False)
    assert said.verdict == "unstable"
    for each in said.found.values():
        assert np.abs(each.lowest_at) == pytest.approx(0.5)  # octahedra turn against each other


def test_chgnet_has_a_cusp_where_atoms_are_in_line_and_sevennet_has_none():
    salt = rock_salt(5.67, 11, 17)
    assert roughness(salt, "sevennet", DISPLACEMENT) < 0.02
    assert roughness(salt, "chgnet", DISPLACEMENT) > 0.1


def test_sites_that_may_move_are_relaxed_first():
    x = 0.306
    rutile = np.diag([4.8, 4.8, 3.2])  # 2 % wrong
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [x, x, 0], [1 - x, 1 - x, 0]]
    sites += [[0.5 + x, 0.5 - x, 0.5], [0.5 - x, 0.5 + x, 0.5]]
    crystal = CrystalBatch.from_ragged(rutile[None], np.array(sites), [50] * 2 + [8] * 4, [6])
    found = phonons(crystal, supercell_length=5.0, dos=False)
    assert found.space_group == 136
    assert found.doubts == ()
    assert found.force < module.LARGEST_FORCE


@pytest.mark.parametrize(
    ("cell", "atoms", "shortest"),
    [
        (rock_salt(4.25, 12, 8), 64, 8.5),
        (cubic(3.94, [38, 22, 8, 8, 8], [[0, 0, 0], [0.5] * 3, *FCC[1:]]), 40, 7.88),
        (argon(5.4), 32, 10.8),
    ],
)
def test_the_supercell_is_even_and_near_the_length(cell, atoms, shortest):
    chosen, multiples = module._supercell(*module._both_cells(cell), 10.0)
    lattice = chosen.lattice[0].numpy() * np.array(multiples)[:, None]
    assert int(chosen.n_sites[0]) * np.prod(multiples) == atoms
    assert module._shortest(lattice) == pytest.approx(shortest)
    assert all(n == 1 or n % 2 == 0 for n in multiples)


def test_a_skew_cell_is_measured_by_its_shortest_translation_not_its_edges():
    sharp = np.array([[1.0, 0, 10], [-0.5, 0.866, 10], [-0.5, -0.866, 10]])
    assert module._shortest(sharp) == pytest.approx(np.sqrt(3), rel=1e-3)


def test_the_figure_says_what_is_missing(lennard_jones):
    from matplotlib import pyplot as plt

    fig = imd.show.bands(lennard_jones, lennard_jones)
    words = " ".join(text.get_text() for ax in fig.axes for text in (ax.title, ax._right_title))
    assert "no LO-TO splitting" in words
    assert fig.axes[0].get_xticklabels()[0].get_text() == "Γ"
    plt.close(fig)


def test_bands_of_different_crystals_are_not_drawn_together(lennard_jones):
    import dataclasses

    other = dataclasses.replace(lennard_jones, formula="Ne")
    with pytest.raises(InputError, match="another path"):
        imd.show.bands(lennard_jones, other)


def test_a_supercell_too_short_is_refused():
    for ask in (phonons, dynamically_stable):
        with pytest.raises(InputError, match="at least 3 and at most 50"):
            ask(argon(), supercell_length=1.0)


def test_one_crystal_at_a_time():
    two = CrystalBatch.cat([argon(), argon()])
    for ask in (phonons, dynamically_stable):
        with pytest.raises(InputError, match="not of 2"):
            ask(two)
        with pytest.raises(InputError, match="must be CrystalBatch"):
            ask(argon().structures()[0])


def test_broken_crystals_are_refused():
    nan = argon()
    nan.lattice[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        phonons(nan, LennardJones())
    with pytest.raises(InputError, match="distance gate"):
        phonons(argon(2.0), LennardJones())
    with pytest.raises(InputError, match="distance gate"):
        phonons(argon(2.0), LennardJones(), at_rest=False)


def test_unknown_potentials_and_none_are_refused():
    with pytest.raises(UnknownNameError, match="chgnet"):
        phonons(argon(), "chgnett")
    with pytest.raises(InputError, match="no potential given"):
        dynamically_stable(argon(), [])


def test_a_cell_too_large_for_phonons_is_refused():
    rng = np.random.default_rng(0)
    large = CrystalBatch.from_ragged(
        30 * np.eye(3)[None], rng.random((200, 3)), rng.integers(1, 80, 200), [200]
    )
    with pytest.raises(InputError, match="at most 100"):
        module._supercell(large, large, 10.0)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(InputError, match=r'phonopy .* pip install "imd-helpers\[judge\]"'):
        module.force_constants(LennardJones(), argon(), (1, 1, 1))


def test_both_real_potentials_are_what_the_default_asks():
    import inspect

    default = inspect.signature(dynamically_stable).parameters["potentials"].default
    assert [potential(name).name for name in default] == ["chgnet", "sevennet"]
