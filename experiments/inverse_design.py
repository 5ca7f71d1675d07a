"""Does the order of the methods of the chapter on inverse design hold at other targets?

    python experiments/inverse_design.py targets

The searches are the chapter's own; results.json has a row for each target, method and seed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import record
from record import CHECKPOINTS, Row

from imd_helpers.descriptors.gene_pool import GenePool

PATH = CHECKPOINTS / "inverse_design" / "results.json"
SEEDS = range(4)
# lattice constant in Å, formation energy in eV/atom, and their windows; the first is the chapter's
TARGETS = (
    (6.2, -0.3, 0.1, 0.1),
    (5.8, -0.2, 0.1, 0.1),
    (6.6, -0.6, 0.1, 0.1),
    (6.8, -0.8, 0.1, 0.1),
    (4.0, -2.5, 0.15, 0.25),
)
METHODS = ("exchange", "exchange, all alike", "columns", "evolution", "generator")
UNTIL = "distinct, energy, agree, right, rows = {}, {}, {}, {}, []"
# the chapter's data, scout and searches
page = partial(record.chapter, "1_foundations/inverse_design", until=UNTIL)


def aim(wanted: tuple[float, ...]) -> Any:
    """Tell the chapter's searches the target, and what everybody may know about it."""
    p = page()
    target = p.Target(*wanted)
    hit = p.train & target.hit(p.values)
    groups, counts = np.unique(p.sites.space_group[hit], return_counts=True)
    given = p.train & np.isin(p.sites.space_group, groups)
    parents = p.sites[given]
    pool = GenePool.from_sites(parents, min_count=5)
    formulas = p.cubic.crystals[p.kept[given]].counts().numpy().astype(np.int16)
    some, chance = p.listed(parents, formulas, p.exchange_counts(parents))
    column, _ = p.listed(parents, formulas, p.same_column(pool.elements))
    lists = {
        "exchange": (some, chance),
        "exchange, all alike": (some, np.ones(len(some))),
        "columns": (column, np.ones(len(column))),
    }
    known = {"target": target, "groups": groups, "counts": counts}
    vars(p).update(known, parents=parents, pool=pool, lists=lists)
    return target


JOBS = [(*wanted, how, seed) for wanted in TARGETS for how in METHODS for seed in SEEDS]


@record.rows(PATH, JOBS, under="runs")
def targets(
    length: float, energy: float, length_window: float, energy_window: float, method: str, seed: int
) -> Row:
    """Each method at each target: calls, predicted hits, and those with the right energy."""
    target, p = aim((length, energy, length_window, energy_window)), page()
    search = {"evolution": p.search_evolution, "generator": p.search_generator}.get(method)
    ask = search(seed) if search else p.search_list(method, seed)
    hits = p.new_hits(ask)
    off = np.abs(p.energies_of(p.keyed_sites(hits)) - target.energy) if hits else np.zeros(0)
    right, told = (off <= target.energy_window).sum(), np.isfinite(off).sum()
    return {"calls": ask.calls, "hits": len(hits), "in_table": int(told), "right": int(right)}


TASKS = (targets,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
