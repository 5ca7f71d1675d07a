"""What the chapter on global optimisation compares: six optimisers at equal calls, eight seeds.

    python experiments/global_optimisation.py crystals     structure prediction with CHGNet
    python experiments/global_optimisation.py known        the known structures, relaxed alike
    python experiments/global_optimisation.py composition  the problem of the first chapter

Everything goes into results.json; each run also leaves a log in `_build`, from which it goes on.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import record
from record import BUILD, CHECKPOINTS, Row, rounded

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.energies.potentials import potential
from imd_helpers.energies.relaxation import relax
from imd_helpers.matching.same import NONE, same_as_reference
from imd_helpers.search import Oracle, optimisers, structures
from imd_helpers.search.oracle import BudgetError

PATH = CHECKPOINTS / "global_optimisation" / "results.json"
SEEDS = range(8)
# formula: units in the cell, steps of a relaxation at most, evaluations of the potential in a run
SYSTEMS = {"MgO": (1, 40, 200), "SrTiO3": (1, 60, 900)}
NEAR = 0.01  # eV/atom above the known structure, where a run that met it ends
QUESTIONS = 1_000  # of a search for a composition
UNTIL = 'blind = search_composition("random", 0, 100)'
UNRELAXED = "annealing, unrelaxed"
COLD = {"hottest": 0.5, "coldest": 0.01, "largest": 0.3, "smallest": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {**structures.SETTINGS, UNRELAXED: COLD}


# ---- structure prediction


JOBS = [(name, how, seed) for seed in SEEDS for name in SYSTEMS for how in SETTINGS]
JOBS.sort(key=lambda job: job[1] == UNRELAXED)  # the longest runs come last


@record.rows(PATH, JOBS, about={"systems": SYSTEMS, "settings": SETTINGS})
def crystals(formula: str, method: str, seed: int) -> Row:
    """Each method on each compound: its curve, and when the known structure was met.

    A call is one evaluation of the potential.
    """
    potential("chgnet").model.requires_grad_(False)  # the same numbers, in five sixths of the time
    units, steps, budget = SYSTEMS[formula]
    space = structures.Structures(formula, units=units)
    relaxed = structures.Energy(space, steps=steps)
    raw = method == UNRELAXED
    log = BUILD / "global_optimisation" / f"{formula}-{method}-{seed}.jsonl".replace(", ", "-")
    log.parent.mkdir(parents=True, exist_ok=True)
    ask = structures.Energy(space, steps=0) if raw else relaxed
    oracle = ask.oracle(budget - steps if raw else budget, log=log)
    if not raw:
        oracle.watch = lambda _: stop_if_met(oracle, formula)
    name = "annealing" if raw else method
    point, _ = optimisers.minimise(name, oracle, space, seed=seed, **SETTINGS[method])
    spent, answers = oracle.history()
    if raw:  # what it found is relaxed, at the price of a relaxation
        spent = np.append(spent[-1:], spent[-1] + steps)
        last = relaxed(point[None])
        answers = np.concatenate([np.full_like(last, np.nan), last])
    return rounded({"spent": spent.astype(int).tolist(), **verdict(space, formula, answers, spent)})


def stop_if_met(oracle: Oracle, formula: str) -> None:
    """A run is over when the known structure is met and relaxed; the search itself cannot know."""
    row = min(oracle.answers.values(), key=lambda row: np.nan_to_num(row[0], nan=np.inf))
    if len(row) > 2 and row[0] < known_energy(formula) + NEAR:
        crystal = structures.Structures(formula, units=SYSTEMS[formula][0]).decode(row[None, 2:])
        if same_as_reference(crystal, truth(formula)).first[0] != NONE:
            raise BudgetError("the known structure is met")


def verdict(
    space: structures.Structures, formula: str, answers: np.ndarray, spent: np.ndarray
) -> Row:
    """Energies along a run, whether its best is the known structure, and when it was first met."""
    energy = answers[:, 0]
    good = np.flatnonzero(np.isfinite(energy))
    ends = space.decode(answers[good, 2:])
    same = np.zeros(len(energy), dtype=bool)
    same[good] = same_as_reference(ends, truth(formula)).first != NONE
    best = good[energy[good].argmin()]
    group = symmetry.space_group_numbers(space.decode(answers[[best], 2:]), symprec=0.1)[0]
    return {
        "energy": energy.tolist(),
        "failed": int((~np.isfinite(energy)).sum()),
        "met": int(spent[same.argmax()]) if same.any() else None,  # calls when first met
        "right": bool(same[best]),  # is the best of the run the known structure?
        "best": float(energy[best]),
        "space_group": int(group),
    }


@cache
def truth(formula: str) -> CrystalBatch:
    """The known structure: that of lowest energy in the table, in the cubic case the ideal one."""
    found = datasets.load("oqmd_icsd").select(formulas=[formula])
    small = np.flatnonzero(found.crystals.n_sites.numpy() <= 5)
    height = found.table["energy_above_hull"].to_numpy()[small]
    return found.crystals[[int(small[height.argmin()])]]


def known_energy(formula: str) -> float:
    """Of the known structure, relaxed by the potential; eV/atom."""
    return next(row["energy"] for row in record.read(PATH)["known"] if row["formula"] == formula)


@record.rows(PATH, [(formula,) for formula in SYSTEMS])
def known(formula: str) -> Row:
    """The known structures, relaxed by the same potential until nothing pulls."""
    done = relax(truth(formula), "chgnet", steps=200, fmax=0.01)
    group = symmetry.space_group_numbers(done.crystals, symprec=0.1)[0]
    return rounded({"energy": float(done.energy[0]), "space_group": int(group)})


# ---- the composition problem


# the chapter's scout, target and pool
page = partial(record.chapter, "1_foundations/global_optimisation", until=UNTIL)


@record.rows(PATH, [(how, seed) for how in optimisers.METHODS for seed in SEEDS])
def composition(method: str, seed: int) -> Row:
    """Each method on the target of the first chapter: hits, and when the first came."""
    distance = page().search_composition(method, seed, QUESTIONS)
    hits = np.flatnonzero(distance <= 1)
    first = int(hits[0]) + 1 if len(hits) else None
    return {"calls": len(distance), "hits": len(hits), "first": first}


TASKS = (crystals, known, composition)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
