"""Relaxation of many crystals at once: sites and cells follow the forces and stresses downhill.

FIRE (Bitzek et al., Phys. Rev. Lett. 97 (2006) 170201) on sites and on the deformation of the
cell together; each crystal has its own time step and leaves the batch when it has converged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..crystals import CrystalBatch
from ..runtime import number, whole
from .potentials import GATE, Potential, potential

LONGEST_STEP = 0.1  # Å, per atom and row of the deformation
DT, DT_MAX = 0.1, 1.0
ALPHA, GROW, SHRINK, ALPHA_SHRINK, PATIENCE = 0.1, 1.1, 0.5, 0.99, 5
RATTLE = 0.05  # Å, standard deviation of each coordinate of an atom
STRAIN = 0.01  # the same of each component of the deformation: one atom alone has no other way out


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Where n crystals came to rest."""

    crystals: CrystalBatch  # the last geometries, also of crystals that did not converge
    energy: np.ndarray  # (n,) eV/atom at that geometry; NaN where the potential failed
    converged: np.ndarray  # (n,) bool: all forces and stresses below the limit within the steps
    steps: np.ndarray  # (n,) evaluations made
    failed: dict[int, str]  # index -> why there is no energy
    # with ``trajectory=True`` all n crystals after each step
    frames: list[CrystalBatch] = field(default_factory=list, repr=False)
    # with ``trajectory=True`` (frames, n) eV/atom
    energies: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), repr=False)


def relax(
    crystals: CrystalBatch,
    model: str | Potential = "chgnet",
    *,
    fmax: float = 0.05,
    steps: int = 200,
    trajectory: bool = False,
) -> Relaxed:
    """Move atoms and lattice vectors downhill until nothing pulls.

    Args:
        crystals: n crystals; those that break the distance gate are not touched.
        model: a potential or its name.
        fmax: converged when every force, and every row of the stress times volume per atom, is
            shorter than this, eV/Å and eV.
        steps: most evaluations for one crystal.
        trajectory: keep all n crystals after each step.

    Raises:
        InputError: fmax or steps not positive.
        UnknownNameError: no such potential.
    """
    number("fmax", fmax, above=0)
    whole("steps", steps, least=1)
    run = _Fire(crystals, potential(model), fmax)
    frames, energies = [], []
    for _ in range(steps):
        run.evaluate()
        if trajectory:
            frames.append(run.now())
            energies.append(run.energy.copy())
        if not len(run.active):
            break
        run.step()
    return Relaxed(
        run.now(), run.energy, run.converged, run.count, run.failed, frames, np.array(energies)
    )


def rattled(
    crystals: CrystalBatch, *, amplitude: float = RATTLE, seeds: ArrayLike = 0
) -> CrystalBatch:
    """Crystals without symmetry, to be relaxed again: a valley is found again, a saddle is left.

    A relaxation that starts from a symmetric crystal keeps its symmetry, because no force breaks
    it, and so ends on a saddle where the valley is less symmetric.

    Args:
        crystals: n crystals at rest.
        amplitude: standard deviation of the normal displacements, Å; the cell is deformed as well.
        seeds: (n,) or one for all; a crystal's displacements depend on its seed alone.

    Raises:
        InputError: the amplitude is not positive.
    """
    number("amplitude", amplitude, above=0)
    lattice, frac = crystals.lattice.numpy().copy(), crystals.frac.numpy().copy()
    for i, seed in enumerate(np.broadcast_to(seeds, len(lattice)).tolist()):
        rng = np.random.default_rng(seed)
        strain = rng.normal(scale=STRAIN, size=(3, 3))
        k = int(crystals.n_sites[i])
        frac[i, :k] += rng.normal(scale=amplitude, size=(k, 3)) @ np.linalg.inv(lattice[i])
        lattice[i] = lattice[i] @ (np.eye(3) + (strain + strain.T) / 2)
    return CrystalBatch(torch.as_tensor(lattice), torch.as_tensor(frac), crystals.numbers)


class _Fire:
    """State of the relaxation; arrays over all n crystals, ``active`` the ones still moving.

    Rows 0 to sites - 1 of the generalised coordinates are sites in the undeformed cell, the last
    three are the deformation times the number of atoms, so that both kinds are lengths.
    """

    def __init__(self, crystals: CrystalBatch, model: Potential, fmax: float) -> None:
        n, sites = crystals.numbers.shape
        self.model, self.fmax = model, fmax
        self.start = crystals
        self.lattice = crystals.lattice.numpy().copy()
        self.frac = crystals.frac.numpy().copy()
        self.weight = crystals.n_sites.numpy().astype(float)  # of the deformation
        self.deformation = np.tile(np.eye(3), (n, 1, 1))
        self.velocity = np.zeros((n, sites + 3, 3))
        self.force = np.zeros_like(self.velocity)
        self.dt, self.alpha = np.full(n, DT), np.full(n, ALPHA)
        self.downhill = np.zeros(n, dtype=np.int64)
        self.energy = np.full(n, np.nan)
        self.converged = np.zeros(n, dtype=bool)
        self.count = np.zeros(n, dtype=np.int64)
        self.failed: dict[int, str] = {}
        self.active = np.arange(n)

    def now(self) -> CrystalBatch:
        frac = torch.as_tensor(self.frac) % 1.0
        return CrystalBatch(torch.as_tensor(self.lattice.copy()), frac, self.start.numbers)

    def evaluate(self) -> None:
        """Energies and generalised forces of the active crystals; retire the finished ones."""
        rows = self.active
        gate = GATE if not self.count.any() else None  # the start decides who is let in
        found = self.model.evaluate(self.now()[rows], gate=gate)
        self.count[rows] += 1
        self.energy[rows] = found.energy
        self.failed.update({int(rows[i]): why for i, why in found.failed.items()})
        volume = np.abs(np.linalg.det(self.lattice[rows]))
        virial = -volume[:, None, None] * found.stress  # (active, 3, 3)
        deformation = self.deformation[rows]
        back = np.linalg.inv(deformation).transpose(0, 2, 1)
        self.force[rows, :-3] = np.nan_to_num(found.forces) @ deformation
        self.force[rows, -3:] = (virial @ back) / self.weight[rows, None, None]
        pull = np.linalg.norm(np.nan_to_num(found.forces), axis=2).max(1)
        strain = np.linalg.norm(virial, axis=2).max(1) / self.weight[rows]
        bad = np.isnan(found.energy)
        done = (np.maximum(pull, np.nan_to_num(strain)) < self.fmax) & ~bad
        self.converged[rows[done]] = True
        self.active = rows[~done & ~bad]

    def step(self) -> None:
        """One FIRE step of every active crystal."""
        rows = self.active
        force, velocity = self.force[rows], self.velocity[rows]
        power = (force * velocity).sum((1, 2))
        up = (power <= 0) & (self.count[rows] > 1)  # the first step starts from rest
        size = np.linalg.norm(velocity, axis=(1, 2)) / np.linalg.norm(force, axis=(1, 2))
        mix = self.alpha[rows, None, None]
        velocity = (1 - mix) * velocity + mix * force * size[:, None, None]
        velocity[up] = 0.0
        self.downhill[rows] = np.where(up, 0, self.downhill[rows] + 1)
        fast = self.downhill[rows] > PATIENCE
        self.dt[rows] = np.where(
            up,
            self.dt[rows] * SHRINK,
            np.where(fast, np.minimum(self.dt[rows] * GROW, DT_MAX), self.dt[rows]),
        )
        self.alpha[rows] = np.where(
            up, ALPHA, np.where(fast, self.alpha[rows] * ALPHA_SHRINK, self.alpha[rows])
        )
        dt = self.dt[rows, None, None]
        velocity += dt * force
        move = dt * velocity
        longest = np.linalg.norm(move, axis=2).max(1)
        move *= np.minimum(1.0, LONGEST_STEP / np.maximum(longest, 1e-12))[:, None, None]
        self.velocity[rows] = velocity
        old = self.start.lattice.numpy()[rows]
        self.frac[rows] += move[:, :-3] @ np.linalg.inv(old)  # sites in the undeformed cell
        self.deformation[rows] += move[:, -3:] / self.weight[rows, None, None]
        self.lattice[rows] = old @ self.deformation[rows].transpose(0, 2, 1)
