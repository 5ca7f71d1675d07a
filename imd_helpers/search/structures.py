"""Structure prediction: crystals of a given formula as points of a `Space`, and their energies.

A point holds the volume and the shape of the cell, and the places of all atoms but the first,
which stands at the origin. Nothing known about the compound goes in: the scale of the volume is
that of spheres with the elements' covalent radii.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..crystals import CrystalBatch, compositions, elements, geometry
from ..crystals.rules import geometry_valid
from ..descriptors.coordinate_matrix import cell_parameters, lattice_of, right_handed
from ..energies import potentials
from ..energies.potentials import POTENTIALS
from ..energies.relaxation import relax
from ..matching.same import unique
from ..runtime import InputError, lookup, progress_bar, whole
from .optimisers import METHODS, Space, minimise
from .oracle import Oracle

CELL = 6  # numbers of a point that are the cell's
VOLUMES = (0.5, 3.0)  # of the cell, over that of the spheres of its atoms
LONGEST_RATIO = 3.5  # of two edges
ANGLES = (50.0, 130.0)  # degrees; a reduced cell has 60 to 120
MOST_SITES = 40
FLATTEST = 0.3  # volume of a cell, over that of a box with its edges
TRIES = 50  # how often a crystal whose atoms overlap is drawn again
SWAPPED = 0.3  # share of moves that also exchange two atoms
SHELLS = 6  # neighbours whose distances tell a Gaussian process what a crystal is
STEPS = 60  # of a relaxation
SETTINGS: dict[str, dict[str, Any]] = {  # of the methods: few points, because each is relaxed
    "random": {"batch": 5},
    "hopping": {"temperature": 0.1, "size": 0.15},
    "annealing": {"hottest": 0.5, "coldest": 0.01, "largest": 0.3, "smallest": 0.03},
    "swarm": {"particles": 5},
    "genetic": {"population": 5, "mutated": 0.5, "alike": 0.002},
    "bayesian": {"start": 5, "candidates": 200},
}


class Structures(Space):
    """Crystals with ``units`` formula units in the cell.

    Args:
        formula: e.g. ``SrTiO3``.
        units: how many of it; more of them can hold more structures, and take longer.

    Raises:
        InputError: no formula, or more than `MOST_SITES` atoms.
    """

    settles = True  # energies are those after a relaxation

    def __init__(self, formula: str, *, units: int = 1) -> None:
        counts = compositions.integer_amounts(formula)
        times = {z: k * whole("units", units, least=1) for z, k in sorted(counts.items())}
        self.numbers = np.repeat(list(times), list(times.values()))
        n = len(self.numbers)
        if not 1 <= n <= MOST_SITES:
            raise InputError(
                f"{units} × {formula} are {n} atoms: at most {MOST_SITES}, take fewer units"
            )
        self.formula, self.units = formula, units
        radius = np.nan_to_num(elements.column("covalent_radius")[self.numbers], nan=1.7)
        self.volume = float((4 / 3 * np.pi * radius**3).sum())  # Å^3
        dimensions = CELL + 3 * (n - 1)
        super().__init__(dimensions, periodic=np.arange(dimensions) >= CELL)

    # ---- points and crystals

    def decode(self, points: np.ndarray) -> CrystalBatch:
        """Crystals of (n, dimensions) points."""
        n, sites = len(points), len(self.numbers)
        low, high = np.log(VOLUMES)
        volume = self.volume * np.exp(low + points[:, 0] * (high - low))
        ratio = np.exp((2 * points[:, 1:3] - 1) * np.log(LONGEST_RATIO))
        edges = np.concatenate([np.ones((n, 1)), ratio], axis=1)
        angles = ANGLES[0] + points[:, 3:CELL] * (ANGLES[1] - ANGLES[0])
        shape, _ = lattice_of(torch.from_numpy(edges), torch.from_numpy(angles))
        size = torch.linalg.det(shape).abs().clamp_min(1e-12).numpy()
        lattice = shape * torch.from_numpy((volume / size) ** (1 / 3))[:, None, None]
        frac = np.concatenate([np.zeros((n, 1, 3)), points[:, CELL:].reshape(n, -1, 3)], axis=1)
        flat = frac.reshape(-1, 3)
        return CrystalBatch.from_ragged(lattice, flat, np.tile(self.numbers, n), [sites] * n)

    def sound(self, points: np.ndarray) -> np.ndarray:
        """(n,) bool: do the angles make a cell that is not flat, and do the atoms have room?"""
        alpha, beta, gamma = np.cos(np.radians(ANGLES[0] + points[:, 3:CELL] * np.ptp(ANGLES))).T
        square = 1 + 2 * alpha * beta * gamma - alpha**2 - beta**2 - gamma**2
        good = square > FLATTEST**2
        if good.any():
            good[good] = geometry_valid(self.decode(points[good]))
        return good

    def encode(self, crystals: CrystalBatch) -> np.ndarray:
        """(n, dimensions) points of crystals; NaN where a cell is longer or flatter than allowed.

        The cell is reduced first, so that crystals that are alike have points that are alike.
        """
        reduced, change = geometry.reduce_lattice(crystals.lattice)
        frac = crystals.frac @ torch.linalg.inv(change).round()
        crystals = CrystalBatch(reduced, frac, crystals.numbers)
        frac = right_handed(crystals)
        edges, angles = (each.numpy() for each in cell_parameters(reduced))
        low, high = np.log(VOLUMES)
        volume = torch.linalg.det(reduced).abs().numpy()
        cell = np.empty((len(crystals), CELL))
        cell[:, 0] = (np.log(volume / self.volume) - low) / (high - low)
        cell[:, 1:3] = (np.log(edges[:, 1:] / edges[:, :1]) / np.log(LONGEST_RATIO) + 1) / 2
        cell[:, 3:] = (angles - ANGLES[0]) / (ANGLES[1] - ANGLES[0])
        cell[((cell < 0) | (cell > 1)).any(1)] = np.nan
        sites = (frac[:, 1:] - frac[:, :1]).numpy().reshape(len(crystals), -1) % 1.0
        return np.concatenate([cell, sites], axis=1)

    # ---- how to draw, move and cross them

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random cells of middling volume with atoms anywhere, but not on top of each other."""
        return self._sound(n, None, rng)

    def moved(self, points: np.ndarray, rng: np.random.Generator, *, size: float) -> np.ndarray:
        """Strained cells with displaced atoms, in some of which two elements change places."""
        step = super().moved

        def draw(rows: np.ndarray) -> np.ndarray:
            found = step(points[rows], rng, size=size)
            for i in np.flatnonzero(rng.random(len(rows)) < SWAPPED):
                found[i] = self._exchanged(found[i], rng)
            return found

        return self._sound(len(points), draw, rng)

    def crossed(
        self, mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Cut and splice: one side of a plane from the mother, the other from the father."""

        def draw(rows: np.ndarray) -> np.ndarray:
            return np.array([self._spliced(mothers[i], fathers[i], rng) for i in rows])

        return self._sound(len(mothers), draw, rng)

    def features(self, points: np.ndarray) -> np.ndarray:
        """(n, f) inverse mean distances to the 1st, 2nd, … neighbour, for each pair of elements."""
        crystals = self.decode(points)
        lattice, change = geometry.reduce_lattice(crystals.lattice)
        frac = crystals.frac @ torch.linalg.inv(change).round()
        step = frac[:, None] - frac[:, :, None]  # (n, sites, sites, 3)
        shifts = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
        away = (step - step.round())[..., None, :] + shifts.double()
        distance = (away @ lattice[:, None, None]).norm(dim=-1).numpy()  # (n, sites, sites, 27)
        distance[distance < 1e-6] = np.inf  # an atom and itself
        found, kinds = [], np.unique(self.numbers)
        for a, b in itertools.product(kinds, repeat=2):
            some = distance[:, self.numbers == a][:, :, self.numbers == b]
            some = np.sort(some.reshape(*some.shape[:2], -1), axis=2)[..., :SHELLS]
            found.append((1 / some).mean(1))
        return np.concatenate(found, axis=1)

    def _sound(
        self, n: int, draw: Callable[[np.ndarray], np.ndarray] | None, rng: np.random.Generator
    ) -> np.ndarray:
        """Points whose atoms keep their distances; where they never do, random ones.

        Random cells grow from try to try, because many atoms find no room in a small one.
        """
        points, left = np.empty((n, self.dimensions)), np.arange(n)
        for k in range(-TRIES if draw else 0, 10 * TRIES):
            if draw and k < 0:
                points[left] = draw(left)
            else:
                some = rng.random((len(left), self.dimensions))
                some[:, :CELL] = 0.25 + 0.5 * some[:, :CELL]
                some[:, 0] += 0.25 * min(1.0, k / TRIES)
                points[left] = some
            left = left[~self.sound(points[left])]
            if not len(left):
                break
        return points

    def _exchanged(self, point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Two atoms of different elements change places."""
        kinds = np.unique(self.numbers)
        if len(kinds) == 1:
            return point
        pair = [
            rng.choice(np.flatnonzero(self.numbers == z))
            for z in rng.choice(kinds, size=2, replace=False)
        ]
        frac = self._places(point)
        frac[pair] = frac[pair[::-1]]
        return self._point(point[:CELL], frac)

    def _spliced(
        self, mother: np.ndarray, father: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        axis, cut = rng.integers(3), rng.uniform(0.2, 0.8)
        halves = [(self._places(each) + rng.random(3)) % 1.0 for each in (mother, father)]
        below = halves[0][:, axis] < cut, halves[1][:, axis] >= cut
        frac = np.empty_like(halves[0])
        for z in np.unique(self.numbers):
            mine = self.numbers == z
            inside = [half[mine & part] for half, part in zip(halves, below, strict=True)]
            outside = [half[mine & ~part] for half, part in zip(halves, below, strict=True)]
            pool = [rng.permutation(np.concatenate(each)) for each in (inside, outside)]
            frac[mine] = np.concatenate(pool)[: mine.sum()]  # too many are cut, too few filled up
        return self._point(cut * mother[:CELL] + (1 - cut) * father[:CELL], frac)

    def _places(self, point: np.ndarray) -> np.ndarray:
        """(sites, 3) fractional coordinates."""
        return np.concatenate([np.zeros((1, 3)), point[CELL:].reshape(-1, 3)])

    def _point(self, cell: np.ndarray, frac: np.ndarray) -> np.ndarray:
        return np.concatenate([cell, ((frac[1:] - frac[0]) % 1.0).ravel()])


@dataclass(frozen=True)
class Energy:
    """The energy of points of a space of crystals, after a relaxation of at most ``steps`` steps.

    Called with (n, dimensions) points it gives (n, 2 + dimensions) numbers: the energy in eV/atom,
    how often the potential was evaluated, and the point where the relaxation ended. All but the
    second are NaN where the potential has no answer, or the cell grew longer than a point can be.
    With ``steps=0`` nothing is relaxed, and the answer is (n, 2).
    """

    space: Structures
    potential: str = "chgnet"
    steps: int = 40

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(n, 2 + dimensions) or (n, 2) numbers."""
        points, model = np.asarray(points), potentials.potential(self.potential)
        width = self.space.dimensions if self.steps else 0
        rows = np.full((len(points), 2 + width), np.nan)
        rows[:, 1] = 1.0
        good = np.flatnonzero(self.space.sound(points))
        if not len(good):
            return rows
        crystals = self.space.decode(points[good])
        if self.steps == 0:
            rows[good, 0] = model.energies(crystals)
            return rows
        done = relax(crystals, model, steps=self.steps)
        found = np.column_stack([done.energy, done.steps, self.space.encode(done.crystals)])
        found[~np.isfinite(found).all(1)] = np.nan
        found[:, 1] = done.steps
        rows[good] = found
        return rows

    def oracle(self, calls: int, **settings: Any) -> Oracle:
        """An oracle whose budget is so many evaluations of the potential."""
        about = {"potential": self.potential, "steps": self.steps, "formula": self.space.formula}
        about |= {"units": self.space.units, **settings.pop("about", {})}
        settings |= {"cost": _evaluations, "dearest": max(self.steps, 1)}
        return Oracle(self, budget=calls, about=about, **settings)


def _evaluations(row: np.ndarray) -> float:
    return float(row[1]) if len(row) > 1 else 1.0  # an answer that never came is one NaN


def predict(
    formula: str,
    method: str = "genetic",
    *,
    calls: int,
    seed: int = 0,
    units: int = 1,
    potential: str = "chgnet",
    steps: int = STEPS,
    progress: bool = False,
    **oracle: Any,
) -> tuple[CrystalBatch, np.ndarray, np.ndarray, list[str]]:
    """Search for the structures of a formula, from random cells.

    Args:
        formula: e.g. ``SrTiO3``.
        method: one of `optimisers.METHODS`.
        calls: evaluations of the potential that may be made, relaxations included.
        seed: of all that is drawn.
        units: formula units in the cell.
        potential: a name of `energies.potentials`.
        steps: evaluations for one relaxation at most.
        progress: show a bar of the calls.
        oracle: more settings of the `Oracle`, such as its log.

    Returns:
        The structures that were found, each once and the lowest energy first; their energies (n,)
        eV/atom; the calls until each was found (n,); and why relaxations gave no structure.

    Raises:
        InputError: fewer calls than one relaxation may take, the log of another search, a potential
            that is not installed, or no relaxation succeeded.
        UnknownNameError: no such method or potential.
    """
    whole("steps", steps, least=1)
    if whole("calls", calls, least=1) < steps:
        raise InputError(f"calls={calls}: one relaxation may take steps={steps}, allow more calls")
    space = Structures(formula, units=units)
    about = {"method": lookup("method", method, METHODS), "seed": whole("seed", seed)}
    energy = Energy(space, lookup("potential", potential, POTENTIALS), steps=steps)
    potentials.potential(potential)  # raises before there is a log
    ask = energy.oracle(calls, about=about, **oracle)  # and this before there is a bar
    with progress_bar(None, formula, progress, total=calls, unit="call") as bar:
        ask.watch = bar.update
        minimise(method, ask, space, seed=seed, **SETTINGS[method])
    spent, answers = ask.history()
    good = np.flatnonzero(np.isfinite(answers[:, 0]))
    order = good[answers[good, 0].argsort()]
    order = order[unique(space.decode(answers[order, 2:]))]
    crystals = space.decode(answers[order, 2:])
    return crystals, answers[order, 0], spent[order], list(ask.failed.values())
