"""Design to a target in a closed loop, against searches that learn less, at equal calls.

    python experiments/closed_loop.py runs [SEEDS]   every arm on both problems, resumable
    python experiments/closed_loop.py rewards        reinforcement and its rungs, resumable
    python experiments/closed_loop.py verdicts [OF]  what was found, before both potentials
    python experiments/closed_loop.py expected       their chances anew, after a new calibration

The record is results.json. What the potential has answered lies in `_build/closed_loop`, shared
by all arms, so that a question costs time once; each arm pays a call for it all the same.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

import numpy as np
import record
from record import BUILD, CHECKPOINTS, Row, once, rounded

import imd_helpers as imd
from imd_helpers.baselines.exchange import exchange_pairs
from imd_helpers.baselines.random_crystals import grid_orbits
from imd_helpers.crystals import compositions, symmetry
from imd_helpers.crystals.wyckoff import occupations
from imd_helpers.descriptors import symmetry_sites
from imd_helpers.descriptors.gene_pool import GenePool
from imd_helpers.descriptors.symmetry_sites import (
    N_ROWS,
    SPACE_GROUPS,
    Sites,
    crystal_keys,
    decode_sites,
)  # fmt: skip
from imd_helpers.energies import calibration, hull
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.energies.potentials import JUDGES, potential
from imd_helpers.predictors import SitesEnsemble
from imd_helpers.search import Oracle, Space, minimise
from imd_helpers.search.optimisers import BudgetError

PATH = CHECKPOINTS / "closed_loop" / "results.json"
WORK = BUILD / "closed_loop"
SEEDS, CALLS, BATCH = 8, 24, 8
UNTIL = "ask = Oracle(told, keys=crystal_keys, budget=cfg.calls)"
MOST_SITES = 10  # of a new prototype, in its primitive cell
DRAWN = {"generator": 12_288, "random": 12_288, "exchange": 4_096}  # before any filter
LEAST = 0.01  # windows; a smaller gain is not worth a call
TREES = {"members": 3, "trees": 60, "leaves": 15}
PARENTS = 20  # of the exchange
TRIES = 20  # of a move, before a point is drawn anew
POLICIES, REWARDED, RATE = 3, 96, 0.5  # seeds, calls, learning rate
HIGHEST = 2.0  # eV/atom above the hull; a failure counts as this
JUDGED, HITS = 20, 5  # of each reward, of each arm
PROBLEMS = ("any prototype", "new prototype")


# the chapter's target, known crystals, surrogate for gaps, oracle, loop and policy
page = partial(record.chapter, "5_judging/closed_loop", until=UNTIL)

# ---- spaces


@cache
def pool(problem: str) -> GenePool:
    """The prototypes of the training crystals, or all others that are not too large."""
    mine: GenePool = page().pool
    if problem == PROBLEMS[0]:
        return mine
    found: dict[tuple, None] = {}
    for group in SPACE_GROUPS:
        for three in itertools.combinations(grid_orbits(group), N_ROWS):
            found.setdefault(symmetry_sites.prototype(group, np.array(three)))
    groups, grids = (np.array(part) for part in zip(*found, strict=True))
    every = GenePool(groups, grids, mine.elements)
    one = every.sites(np.array([[k, 0, 1, 2] for k in range(len(groups))]))
    cells_of = decode_sites(replace(one, length=np.full(len(one), 10.0))).crystals
    small = symmetry.primitive(cells_of).n_sites.numpy() <= MOST_SITES
    new = small & (mine.genes(one)[:, 0] < 0)
    return GenePool(groups[new], grids[new], mine.elements)


class Wanted(Space):
    """New crystals with a gap in the window; `start` are the first points that are drawn."""

    def __init__(self, problem: str, start: np.ndarray | None = None) -> None:
        self.pool, self.start = pool(problem), start
        super().__init__(self.pool.dimensions)

    def decode(self, points: np.ndarray) -> Sites:
        """The crystals of (n, 4) points."""
        return self.pool.decode(points)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """All equally likely; those of the start once, at first."""
        if self.start is not None:
            first, self.start = self.start[:n], None
            return first
        found = np.zeros((0, self.dimensions))
        while len(found) < n:
            some = super().random(1024, rng)
            found = np.concatenate([found, some[page().wanted(self.decode(some))]])
        return found[:n]

    def moved(self, points: np.ndarray, rng: np.random.Generator, *, size: float) -> np.ndarray:
        """Moved until they are wanted, or drawn anew."""
        step = super().moved
        return self._until(lambda: step(points, rng, size=size), len(points), rng)

    def crossed(
        self, mothers: np.ndarray, fathers: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Crossed until they are wanted, or drawn anew."""
        cross = super().crossed
        return self._until(lambda: cross(mothers, fathers, rng), len(mothers), rng)

    def features(self, points: np.ndarray) -> np.ndarray:
        """(n, prototypes + 3): which prototype, whose order means nothing, and the elements."""
        n = len(self.pool.space_group)
        kind = np.minimum((points[:, 0] * n).astype(np.int64), n - 1)
        return np.concatenate([np.eye(n)[kind], points[:, 1:]], axis=1)

    def _until(
        self, draw: Callable[[], np.ndarray], n: int, rng: np.random.Generator
    ) -> np.ndarray:
        out, left = np.empty((n, self.dimensions)), np.ones(n, dtype=bool)
        for _ in range(TRIES):
            some = draw()
            good = left & page().wanted(self.decode(some))
            out[good] = some[good]
            left &= ~good
            if not left.any():
                return out
        out[left] = self.random(int(left.sum()), rng)
        return out


# ---- the oracle


@cache
def answers() -> Oracle:
    """What the potential said, to anybody."""
    potential("chgnet").model.requires_grad_(False)  # the same numbers, a little faster
    WORK.mkdir(parents=True, exist_ok=True)
    return Oracle(
        page().scanned, keys=crystal_keys, log=WORK / "answers.jsonl", about={"by": "CHGNet"}
    )


def told(sites: Sites) -> np.ndarray:
    """(n, 3) distance to the target, formation energy, and what the answer costs."""
    before = dict(zip(crystal_keys(page().known), page().known_energy.tolist(), strict=True))
    keys = crystal_keys(sites)
    rows = np.array([[np.nan, before.get(key, np.nan), key not in before] for key in keys])
    new = np.flatnonzero(rows[:, 2])
    if len(new):
        rows[new, 1] = answers()(sites[new])[:, 1]
    rows[:, 0] = page().distance(rows[:, 1], page().gap_of(sites))
    return rows


def asked_by(space: Wanted | None = None, calls: int = CALLS) -> Oracle:
    """An oracle for sites, or for points of a space, with the budget of a run."""
    price = {"budget": calls, "cost": lambda row: row[2] if len(row) == 3 else 1.0}
    if space is None:
        return Oracle(told, keys=crystal_keys, **price)
    return Oracle(
        lambda points: told(space.decode(points)),
        keys=lambda points: crystal_keys(space.decode(points)), **price,
    )  # fmt: skip


# ---- lists of candidates


@cache
def listed(source: str, problem: str, seed: int) -> Sites:
    """What a source offers before any call: new, wanted, and each crystal once."""
    found = once(WORK / f"list-{source}-{seed}.npz", offered, source, seed)
    mine = found["genes"][found["problem"] == PROBLEMS.index(problem)]
    return pool(problem).sites(mine)


def offered(source: str, seed: int) -> dict[str, np.ndarray]:
    """Genes of both problems."""
    rng, n = np.random.default_rng(seed), DRAWN[source]
    if source == "generator":
        model = imd.models.load("cubicgan", variant="fixed")
        drawn = model.sample_sites(n, seed=seed)
        drawn = drawn[np.flatnonzero(decode_sites(drawn).ok)]
    elif source == "exchange":
        drawn = exchanged(page().known, n, rng)
    else:
        drawn = Sites.cat([pool(p).decode(Space(1 + N_ROWS).random(n, rng)) for p in PROBLEMS])
    genes = [rng.permutation(page().offered(drawn, pool(problem))) for problem in PROBLEMS]
    which = np.repeat(np.arange(len(PROBLEMS)), [len(each) for each in genes])
    return {"genes": np.concatenate(genes), "problem": which}


@cache
def pairs() -> np.ndarray:
    """(119, 119) how often elements replace each other among the training crystals."""
    crystals = decode_sites(page().known).crystals
    return exchange_pairs(occupations(crystals)).astype(float)


def exchanged(parents: Sites, n: int, rng: np.random.Generator) -> Sites:
    """One element of a parent becomes another, as often as the data exchange them."""
    rows = rng.integers(len(parents), size=n)
    numbers = parents.numbers[rows].copy()
    for row in numbers:
        k = rng.integers(N_ROWS)
        chance = pairs()[row[k]].copy()
        chance[row] = 0.0
        if chance.any():
            row[k] = rng.choice(len(chance), p=chance / chance.sum())
    return replace(parents[rows], numbers=numbers)


# ---- arms


def climb(
    oracle: Oracle,
    mine: Sites,
    value: np.ndarray,
    good: Callable[[Sites], np.ndarray],
    rng: np.random.Generator,
) -> None:
    """Exchange an element of one of the best crystals so far, until the budget is spent."""
    with suppress(BudgetError):
        while True:
            best = mine[np.argsort(value)[:PARENTS]]
            some = exchanged(best, 50 * BATCH, rng)
            some = some[good(some)]
            keys = crystal_keys(some)
            fresh = {k: i for i, k in enumerate(keys) if k not in oracle.answers}
            some = some[np.sort(np.array(list(fresh.values()), dtype=int))[:BATCH]]
            if not len(some):
                return
            value = np.concatenate([value, oracle(some)[:, 0]])
            mine = Sites.cat([mine, some])


def by_minimise(method: str, settings: Row) -> Callable[[str, int], tuple[Oracle, list]]:
    """One of the optimisers; it begins with the known crystals nearest to the target."""

    def run(problem: str, seed: int) -> tuple[Oracle, list]:
        start = None
        if problem == PROBLEMS[0] and method != "random":
            near = np.argsort(told(page().known)[:, 0])[:BATCH]
            start = pool(problem).encode(page().known[near])
        space = Wanted(problem, start)
        oracle = asked_by(space)
        minimise(method, oracle, space, seed=seed, **settings)
        return oracle, []

    return run


def by_list(source: str, batch: int) -> Callable[[str, int], tuple[Oracle, list]]:
    """A list and a surrogate, which learns after each batch."""

    def run(problem: str, seed: int) -> tuple[Oracle, list]:
        oracle, some = asked_by(), listed(source, problem, seed)
        mine = np.isfinite(page().known_energy)
        before = page().known[np.flatnonzero(mine)], page().known_energy[mine]
        model, gap = SitesEnsemble(**TREES, seed=seed), page().gap_of(some)
        found = page().closed_loop(oracle, some, gap, model, before, batch=batch, least=LEAST)
        return oracle, found

    return run


def exchange_run(problem: str, seed: int) -> tuple[Oracle, list]:
    """The strongest rung."""
    oracle, rng = asked_by(), np.random.default_rng(seed)
    mine, value = page().known, told(page().known)[:, 0]
    if problem == PROBLEMS[1]:  # nobody knows a crystal of these
        mine = pool(problem).decode(Wanted(problem).random(BATCH, rng))
        value = oracle(mine)[:, 0]
    climb(oracle, mine, value, page().wanted, rng)
    return oracle, []


ARMS = {
    "exchange": exchange_run,
    "random": by_minimise("random", {"batch": BATCH}),
    "screening": by_list("random", CALLS),
    "genetic": by_minimise("genetic", {"population": BATCH}),
    "Bayesian": by_minimise("bayesian", {"start": BATCH, "candidates": 400, "batch": BATCH}),
    "loop, random": by_list("random", BATCH),
    "loop, generator": by_list("generator", BATCH),
    "loop, exchange": by_list("exchange", BATCH),
}
NO_TEMPLATE = ("loop, exchange", "Bayesian")  # arms that the second problem lacks


def runs(seeds: str = str(SEEDS)) -> None:
    """Each arm on each problem."""
    jobs = [
        (problem, arm, seed)
        for seed in range(int(seeds))
        for problem in PROBLEMS
        for arm in ARMS
        if not (problem == PROBLEMS[1] and arm in NO_TEMPLATE)
    ]
    about = {
        "target": page().TARGET, "window": page().WINDOW, "calls": CALLS,
        "batch": BATCH, "problems": PROBLEMS, "least": LEAST,
    }  # fmt: skip
    record.fill(PATH, ("problem", "arm", "seed"), jobs, of_run, about=about)


def of_run(problem: str, arm: str, seed: int) -> Row:
    """One search: what it asked, what it was told, and what its surrogate had promised."""
    began = time.process_time()
    oracle, found = ARMS[arm](problem, seed)
    questions = Sites.cat([each if isinstance(each, Sites) else pool(problem).decode(each)
                           for each in oracle.asked])  # fmt: skip
    _, rows = oracle.history()
    paid = np.flatnonzero(rows[:, 2] == 1)
    sites = questions[paid]
    out = {
        "genes": pool(problem).genes(sites).tolist(),
        "formula": decode_sites(
            replace(sites, length=np.full(len(sites), 10.0))
        ).crystals.formulas(),
        "gap": page().gap_of(sites),
        "energy": rows[paid, 1],
        "distance": rows[paid, 0],
        "loop": found,
        "seconds": time.process_time() - began,
    }
    print(problem, arm, seed, len(paid), "calls", np.nanmin(rows[paid, 0]).round(2),
          (rows[paid, 0] <= 1).sum(), "hits", flush=True)  # fmt: skip
    return rounded(out, 4)


# ---- reinforcement, paid by the energy itself


def above(sites: Sites) -> np.ndarray:
    """(n,) eV/atom above the hull, both by CHGNet."""
    return above_by("chgnet", sites, answers()(sites)[:, 1])


def above_by(name: str, sites: Sites, formed: np.ndarray) -> np.ndarray:
    """(n,) eV/atom above the hull of a potential, from the formation energy by the same."""
    counts = page().counts_of(sites)
    elements = -hull.formation_energy(counts, np.zeros(len(counts)), name)
    return hull.above_hull(counts, formed + elements, name).energy_above_hull


def known_above() -> dict[str, np.ndarray]:
    """Of the training crystals."""
    mine = np.isfinite(page().known_energy)
    out = np.full(len(mine), np.nan)
    out[mine] = above_by("chgnet", page().known[np.flatnonzero(mine)], page().known_energy[mine])
    return {"above": out}


def by_reward(learns: bool, oracle: Oracle, seed: int) -> list[float]:
    """A policy that begins with how often each element stands on each site."""
    space = pool(PROBLEMS[0])
    policy = page().Policy(page().site_counts(space.genes(page().known)))

    def reward(drawn: np.ndarray) -> np.ndarray:
        some = space.sites(drawn)
        new = page().is_new(some)
        out = np.full(len(some), -HIGHEST)  # of what is known, or has no minimum
        if new.any():
            found = oracle(some[new])[:, 0]
            out[new] = -np.minimum(np.nan_to_num(found, nan=HIGHEST), HIGHEST)
        return out

    rate = RATE if learns else 0.0
    return page().reinforce(policy, reward, steps=10 * REWARDED, batch=16, lr=rate, seed=seed)


def exchanged_down(oracle: Oracle, seed: int) -> list[float]:
    """Exchange elements of the crystals nearest to the hull so far, known ones among them."""
    value = once(WORK / "known-above.npz", known_above)["above"]
    climb(oracle, page().known, value, page().is_new, np.random.default_rng(seed))
    return []


REWARDS: dict[str, Callable[[Oracle, int], list[float]]] = {
    "exchange": exchanged_down,
    "start of the policy": partial(by_reward, False),
    "policy": partial(by_reward, True),
}


def rewards() -> None:
    """The policy, its start without learning, and the exchange, at equal calls."""
    jobs = [(arm, seed) for seed in range(POLICIES) for arm in REWARDS]
    record.fill(PATH, ("arm", "seed"), jobs, of_reward, under="rewards")


def of_reward(arm: str, seed: int) -> Row:
    """Distances from the hull along a run."""
    oracle = Oracle(above, keys=crystal_keys, budget=REWARDED)
    mean = REWARDS[arm](oracle, seed)
    genes = pool(PROBLEMS[0]).genes(Sites.cat(oracle.asked))
    found = oracle.history()[1][:, 0]
    print(arm, seed, np.nanmedian(found).round(3), np.sort(found)[:5].round(3), flush=True)
    return rounded({"genes": genes.tolist(), "above": found, "mean_reward": mean}, 4)


# ---- before the second potential


def verdicts(*of: str) -> None:
    """The best of each reward, and hits of each arm on each problem; or of those named."""
    made = record.read(PATH)
    groups = [("rewards", arm) for arm in REWARDS]
    groups += [(problem, arm) for problem in PROBLEMS for arm in ARMS]
    jobs = [job for job in groups if (not of or job[0] in of) and chosen(made, *job)]
    record.fill(PATH, ("of", "arm"), jobs, lambda *job: of_verdict(chosen(made, *job), *job),
                under="verdicts")  # fmt: skip


def chosen(made: Row, of: str, arm: str) -> list[list[int]]:
    """Genes of the lowest of all seeds, or of some of the hits, each once."""
    if of == "rewards":
        mine = [row for row in made.get("rewards", []) if row["arm"] == arm]
        told = [
            (e, tuple(g)) for row in mine for e, g in zip(row["above"], row["genes"], strict=True)
        ]
        best = sorted((e, g) for e, g in set(told) if e is not None)
        return [list(g) for _, g in best[:JUDGED]]
    mine = [row for row in made["runs"] if (row["problem"], row["arm"]) == (of, arm)]
    told = [pair for row in mine for pair in zip(row["genes"], row["distance"], strict=True)]
    hits = sorted({tuple(g) for g, d in told if d is not None and d <= 1})
    order = np.random.default_rng(0).permutation(len(hits))[:HITS]
    return [list(hits[i]) for i in order]


def of_verdict(genes: list[list[int]], of: str, arm: str) -> Row:
    """Both potentials, and what DFT is expected to say of them."""
    problem = of if of in PROBLEMS else PROBLEMS[0]
    sites = pool(problem).sites(np.array(genes))
    said = answers()(sites)
    crystals = decode_sites(replace(sites, length=said[:, 0])).crystals
    second = lattice_scan(crystals, JUDGES[1], coarse=False)
    first = above_by(JUDGES[0], sites, said[:, 1])
    other = hull.above_hull(crystals.counts(), second.energy, JUDGES[1]).energy_above_hull
    return with_expected(rounded({
        "formula": crystals.formulas(), "genes": genes, "formation_energy": said[:, 1],
        "chgnet": first, "sevennet_l3i5": other,
    }, 4))  # fmt: skip


def with_expected(row: Row) -> Row:
    """A verdict with the chance of each crystal to be near DFT's hull, and the expected share."""
    above = np.array([row[name] for name in JUDGES], dtype=float).T
    metals = calibration.metals_alone(compositions.amounts(row["formula"]))
    x = calibration.features(above, row["formation_energy"], metals)
    ready = calibration.calibration(JUDGES, 0.1)
    return row | rounded({"chance": ready.probability(x), "expected": list(ready.expected(x))}, 4)


def expected() -> None:
    """What DFT is expected to say, anew from the recorded distances: after a new calibration."""
    found = record.read(PATH)
    record.write(PATH, found | {"verdicts": [with_expected(row) for row in found["verdicts"]]})


TASKS = (runs, rewards, verdicts, expected)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
