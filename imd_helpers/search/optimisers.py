"""Six ways to minimise a function that can only be asked: what each makes of the answers so far.

Points are rows of numbers from 0 to 1; a `Space` says how to draw, move and cross them, and the
oracle what they mean. The first number of an answer is the value to be minimised. Where an oracle
also goes downhill (a relaxation), the last numbers are the point where it arrived, and the search
goes on from there. Each optimiser asks until its oracle refuses, see `minimise`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from ..predictors.gaussian import expected_improvement, predicted
from ..runtime import InputError, lookup, number, whole
from .oracle import BudgetError, Oracle

WORST = 1e99  # the value of a point without an answer
FIRST_STEP, LAST_STEP = 0.1, 1e-3  # along an axis, on the way downhill
MOVED = 0.25  # share of the dimensions in which a move is one
OVERSHOOT = 0.25  # how far a child may lie beyond its parents, in units of their distance
INERTIA, PULL = 0.73, 1.5  # of a particle, for which a swarm neither explodes nor freezes
TOURNAMENT = 3  # who compete to become a parent
MUTATION = 0.1  # deviation of a step of a child that mutates


class Space:
    """The unit cube.

    Args:
        dimensions: of the cube.
        periodic: (dimensions,) bool, where 1 is 0 again; default: nowhere.
    """

    settles = False  # is the way downhill part of the oracle's answer?

    def __init__(self, dimensions: int, *, periodic: np.ndarray | bool = False) -> None:
        self.dimensions = whole("dimensions", dimensions, least=1)
        self.periodic = np.broadcast_to(periodic, dimensions)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n, dimensions) points, all equally likely."""
        return rng.random((n, self.dimensions))

    def moved(self, points: np.ndarray, rng: np.random.Generator, *, size: float) -> np.ndarray:
        """Points nearby: a normal step of this deviation in a few dimensions, at least in one."""
        chosen = rng.random(points.shape)
        chosen = chosen <= np.maximum(chosen.min(1, keepdims=True), MOVED)
        return self.inside(points + size * rng.normal(size=points.shape) * chosen)

    def crossed(
        self, mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """A child of each pair, in each dimension anywhere between its parents, or just beyond."""
        share = rng.uniform(-OVERSHOOT, 1 + OVERSHOOT, mothers.shape)
        return self.inside(mothers + share * self.way(mothers, fathers))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Points that left the cube, on its border, or on the other side where it is periodic."""
        return np.where(self.periodic, points % 1.0, np.clip(points, 0.0, 1.0))

    def way(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The shortest step from one point to another."""
        step = end - start
        return np.where(self.periodic, (step + 0.5) % 1.0 - 0.5, step)

    def features(self, points: np.ndarray) -> np.ndarray:
        """(n, features) by which a Gaussian process tells points apart."""
        turn = 2 * np.pi * points[:, self.periodic]
        return np.concatenate([points[:, ~self.periodic], np.sin(turn), np.cos(turn)], axis=1)


def asked(oracle: Oracle, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where n points ended, (n, dimensions), and (n,) values, `WORST` where there is none."""
    found = oracle(points)
    values = np.where(np.isfinite(found[:, 0]), found[:, 0], WORST)
    ended = found[:, -points.shape[1] :] if found.shape[1] > points.shape[1] else points
    return np.where(np.isfinite(ended), ended, points), values


def started(
    oracle: Oracle, space: Space, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One random point that has an answer, (1, dimensions), and its value, (1,)."""
    while True:
        point, value = asked(oracle, space.random(1, rng))
        if value[0] < WORST:
            return point, value


# ---- the optimisers


def random_search(
    oracle: Oracle, space: Space, rng: np.random.Generator, *, batch: int = 8
) -> None:
    """Draw, ask, forget."""
    while True:
        asked(oracle, space.random(whole("batch", batch, least=1), rng))


def basin_hopping(
    oracle: Oracle,
    space: Space,
    rng: np.random.Generator,
    *,
    temperature: float = 0.1,
    size: float = 0.2,
) -> None:
    """Jump, go downhill, and stay there by the rule of Metropolis.

    Source:
        Wales and Doye, J. Phys. Chem. A 101 (1997) 5111.
    """
    point, value = _settled(oracle, space, started(oracle, space, rng)[0])
    while True:
        found, other = _settled(oracle, space, space.moved(point, rng, size=size))
        if rng.random() < metropolis(other - value, temperature):
            point, value = found, other


def simulated_annealing(
    oracle: Oracle,
    space: Space,
    rng: np.random.Generator,
    *,
    hottest: float = 1.0,
    coldest: float = 1e-3,
    largest: float = 0.3,
    smallest: float = 0.01,
) -> None:
    """Walk by the rule of Metropolis while it grows cold, and the steps short.

    Source:
        Kirkpatrick, Gelatt and Vecchi, Science 220 (1983) 671.
    """
    point, value = started(oracle, space, rng)
    while True:
        size = cooled(oracle.progress, largest, smallest)
        found, other = asked(oracle, space.moved(point, rng, size=size))
        temperature = cooled(oracle.progress, hottest, coldest)
        if rng.random() < metropolis(float(other[0] - value[0]), temperature):
            point, value = found, other


def particle_swarm(
    oracle: Oracle, space: Space, rng: np.random.Generator, *, particles: int = 20
) -> None:
    """Particles fly on, drawn to the best places that they and the swarm have seen.

    Source:
        Kennedy and Eberhart, Proc. ICNN (1995) 1942; constants of Clerc and Kennedy (2002).
    """
    points, values = asked(oracle, space.random(whole("particles", particles, least=1), rng))
    speed = 0.1 * rng.normal(size=points.shape)
    own, least = points.copy(), values.copy()
    while True:
        own_way, swarm_way = space.way(points, own), space.way(points, own[[least.argmin()]])
        draws = rng.random((2, *points.shape))
        speed = velocity(speed, own_way, swarm_way, draws)
        points, values = asked(oracle, space.inside(points + speed))
        better = values < least
        own[better], least[better] = points[better], values[better]


def genetic(
    oracle: Oracle,
    space: Space,
    rng: np.random.Generator,
    *,
    population: int = 20,
    mutated: float = 0.8,
    alike: float = 1e-6,
) -> None:
    """Winners of tournaments have children, a share of which mutate; the fittest of all live on.

    Of those whose values agree within ``alike`` only one lives on, as long as there are others.

    Source:
        Deaven and Ho, Phys. Rev. Lett. 75 (1995) 288, for atoms.
    """
    points, values = asked(oracle, space.random(whole("population", population, least=1), rng))
    while True:
        drawn = rng.integers(len(values), size=(2, population, TOURNAMENT, 1))
        winners = np.take_along_axis(drawn, values[drawn].argmin(2, keepdims=True), axis=2)
        mothers, fathers = points[winners[..., 0, 0]]
        children = space.crossed(mothers, fathers, rng)
        changed = rng.random(population) < mutated
        if changed.any():
            children[changed] = space.moved(children[changed], rng, size=MUTATION)
        found, theirs = asked(oracle, children)
        points, values = np.concatenate([points, found]), np.concatenate([values, theirs])
        _, first = np.unique(np.round(values / alike), return_index=True)  # best first
        keep = np.concatenate([first, np.setdiff1d(np.argsort(values), first, True)])[:population]
        points, values = points[keep], values[keep]


def bayesian(
    oracle: Oracle,
    space: Space,
    rng: np.random.Generator,
    *,
    start: int = 10,
    candidates: int = 500,
    batch: int = 1,
) -> None:
    """Fit a Gaussian process to all answers, and ask where it expects the largest improvement.

    Source:
        Jones, Schonlau and Welch, J. Global Optim. 13 (1998) 455.
    """
    points = space.random(whole("start", start, least=1), rng)
    ended, values = asked(oracle, points)
    while True:
        best = ended[np.argsort(values)[:5]]
        near = best[rng.integers(len(best), size=whole("candidates", candidates, least=2) // 2)]
        size = float(np.exp(rng.uniform(np.log(0.01), np.log(0.2))))
        pool = [space.random(candidates // 2, rng), space.moved(near, rng, size=size)]
        trial = np.concatenate(pool)
        if not oracle.idle and values.min() < WORST:  # else nothing was learnt: ask at random
            known = np.minimum(values, values[values < WORST].max())  # no answer: the worst
            mean, deviation = predicted(space.features(points), known, space.features(trial))
            gain = expected_improvement(mean, deviation, known.min())
            trial = trial[np.argsort(-gain, kind="stable")]
        trial = trial[: whole("batch", batch, least=1)]
        found, theirs = asked(oracle, trial)
        points, ended = np.concatenate([points, trial]), np.concatenate([ended, found])
        values = np.concatenate([values, theirs])


METHODS: dict[str, Callable[..., None]] = {
    "random": random_search,
    "hopping": basin_hopping,
    "annealing": simulated_annealing,
    "swarm": particle_swarm,
    "genetic": genetic,
    "bayesian": bayesian,
}


def minimise(
    method: str, oracle: Oracle, space: Space, *, seed: int = 0, **settings: Any
) -> tuple[np.ndarray, float]:
    """Search until the budget of the oracle is spent.

    Args:
        method: one of `METHODS`.
        oracle: with a budget; its ``history()`` tells how the search went.
        space: of the points that the oracle is asked about.
        seed: of all that is drawn.
        settings: of the method.

    Returns:
        The best point (dimensions,) that was reached, and its value.

    Raises:
        UnknownNameError: no such method.
        InputError: an oracle without a budget, no point or particle, or no question had an answer.
    """
    search = METHODS[lookup("method", method, METHODS)]
    if oracle.budget is None:
        raise InputError("this oracle has no budget, and the search would never end: give budget=")
    with suppress(BudgetError):
        search(oracle, space, np.random.default_rng(whole("seed", seed)), **settings)
    if len(oracle.failed) == oracle.calls:
        why = next(iter(oracle.failed.values()), "the budget is below the price of one")
        raise InputError(f"none of {oracle.calls} questions had an answer; the first: {why}")
    oracle.idle = 0
    ended, values = asked(oracle, np.concatenate(oracle.asked))  # all have answers
    return ended[values.argmin()], float(values.min())


# ---- their parts


def _settled(oracle: Oracle, space: Space, point: np.ndarray) -> tuple[np.ndarray, float]:
    """Downhill from one point, along the axes, with steps that are halved where none helps."""
    point, values = asked(oracle, point)
    value, step = float(values[0]), FIRST_STEP
    axes = np.concatenate([np.eye(space.dimensions), -np.eye(space.dimensions)])
    while step > LAST_STEP and value < WORST and not space.settles:
        around, values = asked(oracle, space.inside(point + step * axes))
        if values.min() < value:
            point, value = around[[values.argmin()]], float(values.min())
        else:
            step /= 2
    return point, value


def metropolis(change: float, temperature: float) -> float:
    """Probability to accept a change of the value: ``min(1, exp(-change / T))``.

    Equation (eq-globalopt-metropolis) of the chapter on global optimisation.
    """
    return float(np.exp(-max(change, 0.0) / number("temperature", temperature, above=0)))


def cooled(progress: float, first: float, last: float) -> float:
    """``first (last / first)^progress``: a geometric schedule, equation (eq-globalopt-cooling)."""
    return float(first * (last / first) ** progress)


def velocity(
    before: np.ndarray, own_way: np.ndarray, swarm_way: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """Steps of a swarm: ``w v + c (r1 own_way + r2 swarm_way)``, equation (eq-globalopt-velocity).

    The last steps v and the ways to the best places, of each particle and of all, have the shape
    (particles, dimensions); ``draws`` holds two such arrays of numbers from 0 to 1.
    """
    return INERTIA * before + PULL * (draws[0] * own_way + draws[1] * swarm_way)
