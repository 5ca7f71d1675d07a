"""Elastic constants: does every small deformation of the cell cost energy?

The cell is strained, the potential answers with stresses, and their quotients are the elastic
constants with the atoms carried along. Then the atoms give way. They are displaced one by one,
which yields the force constants K at the zone centre, and the forces that a strain exerts on them,
Λ; in the harmonic limit letting them go costs no relaxation,

    C = C_carried - Λ^T K^+ Λ / V     (Wu, Vanderbilt, Hamann, Phys. Rev. B 72 (2005) 035105).

Without external stress a crystal is mechanically stable if and only if C is positive definite;
the criteria that books list for each crystal class are this one written out (Mouhat, Coudert,
Phys. Rev. B 90 (2014) 224104). Eigenvalues are taken in Kelvin's notation, in which they do not
depend on the axes: 3 bulk moduli, C11 - C12 and 2 C44 for a cubic crystal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..crystals import CrystalBatch
from ..runtime import InputError
from .phonons import DISPLACEMENT, SYMPREC, AtRest, check, force_constants, left, to_rest
from .potentials import GPA, Potential, Witnesses, by_all, potential

STRAIN = 0.01
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
KELVIN = np.sqrt([1, 1, 1, 2, 2, 2])
SOFT = 0.05  # eV/Å^2: force constants at the zone centre below minus this are no noise


@dataclass(frozen=True, eq=False, kw_only=True)
class Elastic(AtRest):
    """Elastic constants of one crystal by one potential, in GPa, axes of its conventional cell."""

    constants: np.ndarray = field(repr=False)  # (6, 6) in Voigt's notation, atoms relaxed
    carried: np.ndarray = field(repr=False)  # (6, 6) the same, atoms carried along by the strain
    # violation of C_ij = C_ji before it is enforced, half of the largest difference
    noise: float
    # eV/Å^2, lowest force constant of atoms against each other, inf for one atom: negative where a
    # displacement within the cell lowers the energy
    internal: float

    @property
    def eigenvalues(self) -> np.ndarray:
        """(6,) GPa, lowest first; all positive where the crystal is mechanically stable."""
        return np.linalg.eigvalsh(self.constants * np.outer(KELVIN, KELVIN))

    @property
    def bulk(self) -> float:
        """Bulk modulus of a polycrystal (Hill's mean of the bounds), GPa; NaN if unstable."""
        return moduli(self.constants)[0]

    @property
    def shear(self) -> float:
        """Shear modulus of a polycrystal (Hill's mean of the bounds), GPa; NaN if unstable."""
        return moduli(self.constants)[1]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these constants should not be believed; empty where nothing speaks against them."""
        lowest = float(self.eigenvalues[0])
        noisy = abs(lowest) < self.noise and self.internal > -SOFT
        why = f"{lowest:.1f} GPa is within the noise of {self.noise:.1f} GPa"
        return self.doubted((noisy, why))

    @property
    def verdict(self) -> str:
        """``positive``, ``negative`` or ``doubtful``: is the energy's second derivative?"""
        if self.doubts:
            return "doubtful"
        return "positive" if self.eigenvalues[0] > 0 and self.internal > -SOFT else "negative"


def elastic(
    crystal: CrystalBatch, model: str | Potential = "sevennet", *, at_rest: bool = True
) -> Elastic:
    """Elastic constants of one crystal, brought to rest in its own symmetry first.

    Args:
        crystal: one crystal.
        model: a potential or its name.
        at_rest: look for the minimum; without it the crystal is taken as it comes.

    Raises:
        InputError: not one crystal, one that the distance gate or the potential rejects, or one
            that finds no rest.
        UnknownNameError: no such potential.
    """
    check(crystal)
    model = potential(model)
    primitive = to_rest(crystal, model)[1] if at_rest else crystal
    rest = left(primitive, model)
    carried, coupling = _by_strain(primitive, model)
    springs = force_constants(model, primitive, (1, 1, 1)).force_constants  # (sites, sites, 3, 3)
    springs = springs.transpose(0, 2, 1, 3).reshape(3 * len(springs), -1)  # at the zone centre
    volume = float(np.abs(np.linalg.det(primitive.lattice[0].numpy())))
    relaxed, internal = without_atoms(carried, coupling, springs, volume)
    definition = {
        **model.definition(),
        "strain": STRAIN,
        "displacement": DISPLACEMENT,
        "symprec": SYMPREC,
    }
    return Elastic(
        **rest,
        definition=definition,
        constants=GPA * (relaxed + relaxed.T) / 2,
        carried=GPA * (carried + carried.T) / 2,
        noise=float(GPA * np.abs(carried - carried.T).max() / 2),
        internal=internal,
    )


def mechanically_stable(
    crystal: CrystalBatch, potentials: Sequence[str | Potential] = ("chgnet", "sevennet")
) -> Witnesses:
    """Does every strain of the cell cost energy, by the word of all potentials, see `by_all`?

    Raises:
        InputError: not one crystal, or no potential.
        UnknownNameError: no such potential.
    """
    check(crystal)
    ask = partial(elastic, crystal)
    return by_all(potentials, ask, _sentence, stable="positive", unstable="negative")


def _sentence(found: Elastic) -> str:
    said = f"lowest eigenvalue {found.eigenvalues[0]:.1f} GPa"
    soft = "; a displacement in the cell lowers the energy" if found.internal <= -SOFT else ""
    return "; ".join([said + soft, *found.doubts])


def without_atoms(
    carried: np.ndarray, coupling: np.ndarray, springs: np.ndarray, volume: float
) -> tuple[np.ndarray, float]:
    """Elastic constants once the atoms have given way, and the lowest force constant.

    Args:
        carried: (6, 6) eV/Å^3, constants with the atoms carried along.
        coupling: (3 sites, 6) eV/Å, forces on the atoms per strain.
        springs: (3 sites, 3 sites) eV/Å^2, force constants at the zone centre.
        volume: of the cell, Å^3.
    """
    n = len(springs) // 3
    # all atoms together may go anywhere at no cost: what is left is orthogonal to that
    moves = np.linalg.svd(np.tile(np.eye(3), (n, 1)))[0][:, 3:]  # (3n, 3n - 3)
    if not moves.size:
        return carried, float("inf")
    inner = moves.T @ (springs + springs.T) @ moves / 2
    values, modes = np.linalg.eigh(inner)
    push = modes.T @ moves.T @ coupling  # (3n - 3, 6)
    usable = np.abs(values) > 1e-6
    gain = push[usable].T @ (push[usable] / values[usable, None]) / volume
    return carried - gain, float(values[0])


def moduli(constants: np.ndarray) -> tuple[float, float]:
    """Bulk and shear modulus of a polycrystal: Hill's mean of Voigt's and Reuss's bounds.

    Args:
        constants: (6, 6) in Voigt's notation.

    Returns:
        Both in the unit of the constants; NaN if they are not positive definite.
    """
    if np.linalg.eigvalsh(constants)[0] <= 0:
        return float("nan"), float("nan")
    s = np.linalg.inv(constants)
    bulk, shear = [], []
    for m, is_stiffness in ((constants, True), (s, False)):
        a, b, c = np.trace(m[:3, :3]), m[0, 1] + m[0, 2] + m[1, 2], np.trace(m[3:, 3:])
        bulk.append((a + 2 * b) / 9 if is_stiffness else 1 / (a + 2 * b))
        shear.append((a - b + 3 * c) / 15 if is_stiffness else 15 / (4 * a - 4 * b + 3 * c))
    return float(np.mean(bulk)), float(np.mean(shear))


def _by_strain(crystal: CrystalBatch, model: Potential) -> tuple[np.ndarray, np.ndarray]:
    """(6, 6) stress, eV/Å^3, and (3 sites, 6) forces, eV/Å, per unit of each strain."""
    lattice, frac, numbers = next(crystal.each())
    strains = []
    for i, j in VOIGT:
        one = np.zeros((3, 3))
        one[i, j] = one[j, i] = STRAIN if i == j else STRAIN / 2  # shear counts twice
        strains += [one, -one]
    lattices = lattice @ (np.eye(3) + np.array(strains))  # (12, 3, 3)
    sizes, k = [len(numbers)] * len(lattices), len(lattices)
    batch = CrystalBatch.from_ragged(lattices, np.tile(frac, (k, 1)), np.tile(numbers, k), sizes)
    found = model.evaluate(batch, gate=None)
    if found.failed:
        raise InputError(f"{crystal.formulas()[0]}: {next(iter(found.failed.values()))}")
    rows, columns = np.array(VOIGT).T
    stress = found.stress[:, rows, columns]  # (12, 6)
    forces = found.forces.reshape(12, -1)
    return tuple((each[::2] - each[1::2]).T / (2 * STRAIN) for each in (stress, forces))
