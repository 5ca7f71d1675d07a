"""Elastic constants against springs, a direct minimum, pymatgen, and measured crystals."""

import numpy as np
import pytest
from pymatgen.analysis.elasticity import ElasticTensor
from scipy.optimize import minimize
from test_phonons import EDGE, FCC, SIGMA, SPRING, LennardJones, argon, cubic, rock_salt

from imd_helpers.energies.elastic import elastic, mechanically_stable, moduli, without_atoms
from imd_helpers.energies.potentials import GPA
from imd_helpers.runtime import InputError, UnknownNameError

# C11, C12, C44 in GPa at room temperature: Kittel, Introduction to Solid State Physics, chapter 3
MEASURED = {"MgO": (286, 87, 148), "NaCl": (48.7, 12.4, 12.6)}


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


@verifies("eq-candidates-elastic", "energies.elastic.elastic")
def test_a_lattice_of_springs(agrees):
    """Atoms in closest packing, bound to nearest neighbours only: C11 = 2 C12 = 2 C44 = √2 k/r."""
    found = elastic(argon(EDGE), LennardJones())
    k, r = SPRING, 2 ** (1 / 6) * SIGMA
    c11 = np.sqrt(2) * k / r * GPA
    expected = np.zeros((6, 6))
    expected[:3, :3] = c11 / 2
    expected[np.arange(6), np.arange(6)] = [c11] * 3 + [c11 / 2] * 3
    agrees(found.constants, expected, within=5e-3 * c11)  # what is not harmonic in 1 % of strain
    assert found.verdict == "positive"
    assert found.internal == np.inf


@verifies("eq-candidates-relaxed", "energies.elastic.without_atoms")
def test_atoms_that_give_way(agrees):
    """Energy of strain and displacements together, minimised numerically over the latter."""
    rng = np.random.default_rng(0)
    n, volume = 3, 40.0
    root = rng.normal(size=(3 * n, 3 * n))
    together = np.tile(np.eye(3), (n, 1)) / np.sqrt(n)
    apart = np.eye(3 * n) - together @ together.T
    springs = apart @ (root @ root.T + np.eye(3 * n)) @ apart
    coupling = apart @ rng.normal(size=(3 * n, 6))
    carried = np.diag(rng.uniform(1, 2, 6))
    relaxed, internal = without_atoms(carried, coupling, springs, volume)

    def lowest(strain):
        force = coupling @ strain
        found = minimize(
            lambda u: u @ springs @ u / 2 - force @ u, np.zeros(3 * n),
            jac=lambda u: springs @ u - force, tol=1e-10,
        )  # fmt: skip
        return volume / 2 * strain @ carried @ strain + found.fun

    strains = rng.normal(size=(5, 6))
    expected = [lowest(strain) for strain in strains]
    agrees([volume / 2 * s @ relaxed @ s for s in strains], expected, within=1e-6, relative=True)
    assert internal == pytest.approx(np.linalg.eigvalsh(springs)[3])


@verifies("eq-candidates-moduli", "energies.elastic.moduli")
def test_moduli_of_a_polycrystal(agrees):
    """Hill's means for random stable constants, by pymatgen."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        root = rng.normal(size=(6, 6))
        constants = root @ root.T + 5 * np.eye(6)
        theirs = ElasticTensor.from_voigt(constants)
        agrees(moduli(constants), (theirs.k_vrh, theirs.g_vrh), within=1e-9, relative=True)
    assert np.isnan(moduli(-np.eye(6))).all()


@verifies("eq-candidates-born", "energies.elastic.Elastic.eigenvalues")
@pytest.mark.parametrize("name", MEASURED)
def test_rock_salt_is_as_stiff_as_measured(name, agrees):
    """Rock salts by SevenNet-0: eigenvalues are 3 K, C11 - C12 and 2 C44, stiffness as measured."""
    crystal = rock_salt(4.21, 12, 8) if name == "MgO" else rock_salt(5.64, 11, 17)
    found = elastic(crystal, "sevennet")
    c11, c12, c44 = found.constants[[0, 0, 3], [0, 1, 3]]
    by_hand = sorted([c11 + 2 * c12, *[c11 - c12] * 2, *[2 * c44] * 3])
    agrees(found.eigenvalues, by_hand, within=1e-3 * c11)
    assert found.verdict == "positive"
    assert not found.doubts
    for value, measured in zip((c11, c12, c44), MEASURED[name], strict=True):
        assert abs(value / measured - 1) < 0.35  # soft, as all potentials of its kind
    assert c44 / MEASURED[name][2] < 1


def test_tungsten_in_closest_packing_is_unstable():
    """C11 < C12 by DFT too: Einarsdotter et al., Phys. Rev. Lett. 79 (1997) 2073."""
    said = mechanically_stable(cubic(4.05, [74] * 4, FCC))
    assert said.verdict == "unstable", said.reasons
    constants = said.found["sevennet"].constants
    assert constants[0, 0] < constants[0, 1]
    assert np.isnan(said.found["sevennet"].bulk)


class Mute(LennardJones):
    """Has no answer."""

    def _run(self, crystals, forces):
        raise FloatingPointError("no answer")


def test_one_witness_does_not_condemn_and_one_that_is_silent_does_not_acquit():
    crystal = argon(EDGE)
    assert mechanically_stable(crystal, [LennardJones()]).verdict == "stable"
    said = mechanically_stable(crystal, [LennardJones(), Mute("mute")])
    assert said.verdict == "undecided"
    assert "mute" not in said.found
    assert mechanically_stable(cubic(4.05, [74] * 4, FCC), ["sevennet"]).verdict == "undecided"


def test_what_cannot_be_answered():
    two = argon(EDGE)[[0, 0]]
    for ask in (elastic, mechanically_stable):
        with pytest.raises(InputError, match="one crystal, not of 2"):
            ask(two, [LennardJones()] if ask is mechanically_stable else LennardJones())
    with pytest.raises(UnknownNameError, match="unknown potential"):
        elastic(argon(EDGE), "chgnett")
    with pytest.raises(InputError, match="no potential given"):
        mechanically_stable(argon(EDGE), [])
    under_pressure = elastic(argon(0.97 * EDGE), LennardJones(), at_rest=False)
    assert under_pressure.pressure > 0
