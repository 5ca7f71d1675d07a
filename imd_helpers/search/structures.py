"""Structure prediction: crystals of a given formula, searched for the lowest energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..crystals import CrystalBatch
from ..descriptors.cell_points import CELL, TRIES, CellPoints
from ..energies import potentials
from ..energies.relaxation import relax
from ..matching.same import unique
from ..runtime import InputError, lookup, progress_bar, whole
from .optimisers import METHODS, Space, minimise
from .oracle import Oracle

SWAPPED = 0.3  # share of moves that also exchange two atoms
SETTINGS: dict[str, dict[str, Any]] = {  # of the methods: few points, because each is relaxed
    "random": {"batch": 5},
    "hopping": {"temperature": 0.1, "size": 0.15},
    "annealing": {"hottest": 0.5, "coldest": 0.01, "largest": 0.3, "smallest": 0.03},
    "swarm": {"particles": 5},
    "genetic": {"population": 5, "mutated": 0.5, "alike": 0.002},
    "bayesian": {"start": 5, "candidates": 200},
}


class Structures(CellPoints, Space):
    """Crystals with ``units`` formula units in the cell, and how to draw, move and cross them."""

    settles = True  # energies are those after a relaxation

    def __init__(self, formula: str, *, units: int = 1) -> None:
        CellPoints.__init__(self, formula, units=units)
        Space.__init__(self, self.dimensions, periodic=np.arange(self.dimensions) >= CELL)

    def moved(self, points: np.ndarray, rng: np.random.Generator, *, size: float) -> np.ndarray:
        """Strained cells with displaced atoms, in some of which two elements change places."""
        step = super().moved

        def draw(rows: np.ndarray) -> np.ndarray:
            found = step(points[rows], rng, size=size)
            for i in np.flatnonzero(rng.random(len(rows)) < SWAPPED):
                found[i] = self.exchanged(found[i], rng)
            return found

        return self._sound(len(points), draw, rng)

    def crossed(
        self, mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Cut and splice: one side of a plane from the mother, the other from the father."""

        def draw(rows: np.ndarray) -> np.ndarray:
            return np.array([self.spliced(mothers[i], fathers[i], rng) for i in rows])

        return self._sound(len(mothers), draw, rng)

    def _sound(
        self, n: int, draw: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
    ) -> np.ndarray:
        """Points whose atoms keep their distances; where they never do, random ones."""
        points, left = np.empty((n, self.dimensions)), np.arange(n)
        for _ in range(TRIES):
            points[left] = draw(left)
            left = left[~self.sound(points[left])]
            if not len(left):
                return points
        points[left] = self.random(len(left), rng)
        return points


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
        settings |= {"budget": calls, "dearest": max(self.steps, 1)}
        return Oracle(self, about=about, cost=lambda row: row[1] if len(row) > 1 else 1, **settings)


def predict(
    formula: str,
    method: str = "genetic",
    *,
    calls: int,
    seed: int = 0,
    units: int = 1,
    potential: str = "chgnet",
    steps: int = 60,
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
    potentials.potential(potential)  # raises before there is a log
    ask = Energy(space, potential, steps=steps).oracle(calls, about=about, **oracle)
    with progress_bar(None, formula, progress, total=calls, unit="call") as bar:
        ask.watch = bar.update
        minimise(method, ask, space, seed=seed, **SETTINGS[method])
    spent, answers = ask.history()
    order = answers[:, 0].argsort()[: np.isfinite(answers[:, 0]).sum()]  # NaN comes last
    order = order[unique(space.decode(answers[order, 2:]))]
    found = answers[order]
    return space.decode(found[:, 2:]), found[:, 0], spent[order], list(ask.failed.values())
