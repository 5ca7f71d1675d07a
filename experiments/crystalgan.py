"""Train CrystalGAN, and measure what the chapter compares it with.

    python experiments/crystalgan.py train VARIANT    weights and run.json
    python experiments/crystalgan.py maps             maps between two clouds of points, 8 seeds
    python experiments/crystalgan.py arms PAIR        what each part of it is worth, three seeds
    python experiments/crystalgan.py rungs PAIR       the same verdicts without learning
    python experiments/crystalgan.py energies PAIR    some of each, relaxed by both potentials

Everything but the weights goes into results.json. PAIR is ``mg_ti_h`` or ``pd_ni_h``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import record
import torch
from record import CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.hydride_blocks import HydrideBlocks
from imd_helpers.energies import hull
from imd_helpers.energies.potentials import JUDGES, potential
from imd_helpers.energies.relaxation import Relaxed, rattled, relax
from imd_helpers.models.crystalgan import METALS, CrystalGan
from imd_helpers.models.hydride_rows import keeps_published_bounds

PATH = CHECKPOINTS / "crystalgan" / "results.json"
N_JUDGED, N_RELAXED, PIECE, STEPS, SEEDS = 1_000, 12, 4, 200, (0, 1, 2)
NEAR = 0.1  # eV/atom above both hulls
ARMS: dict[str, tuple[str, Row]] = {  # name: variant, and what is changed
    "paper": ("paper", {}),
    "two GANs, no cycle": ("fixed", {"cycle": 0.0, "constraint": "none"}),
    "no third step": ("fixed", {"third": False}),
    "no bounds": ("fixed", {"constraint": "none"}),
    "published bounds, with a gradient": ("fixed", {"constraint": "published"}),
    "fixed": ("fixed", {}),
}
NO_TEMPLATE = ("pd_ni_h", "ion exchange")  # no known hydride is one exchange away
RUNGS = ("ion exchange", "recoloured", "overlaid and pushed apart", "overlaid", "random")
SOURCES = ("fixed", *RUNGS[:3], "two GANs, no cycle", "no third step")  # what is relaxed
# functions of the chapter, and its maps between two clouds of points
page = partial(record.chapter, "4_models/crystalgan", until="## Train it")
clouds = partial(record.chapter, "4_models/crystalgan", until="### Eight seeds")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(CrystalGan, variant)


@record.rows(PATH, lambda: [(arm, seed) for arm in clouds().ARMS for seed in range(8)])
def maps(arm: str, seed: int) -> Row:
    """Does the way there and back say which way?"""
    return rounded(clouds().mapped(arm, seed))


# ---- verdicts


def symbols(pair: str) -> list[str]:
    """Hydrogen and both metals."""
    return ["H", *(elements.SYMBOLS[z] for z in METALS[pair])]


def hidden(pair: str) -> CrystalBatch:
    """Real crystals of hydrogen and both metals, which nothing here has seen."""
    known = imd.datasets.load("oqmd_icsd").select(elements=["H"], nelements=3).crystals
    return known[of_all(known, pair)]


def of_all(crystals: CrystalBatch, pair: str) -> np.ndarray:
    """(n,) bool: holds hydrogen and both metals."""
    return (crystals.counts()[:, [1, *METALS[pair]]] > 0).all(1).numpy()


def ternary_and_valid(crystals: CrystalBatch, pair: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: holds all three elements, and of these which keep the judge's distances."""
    three = of_all(crystals, pair)
    return three, three & imd.judge.geometry_valid(crystals)


def verdict(samples: Samples, pair: str) -> Row:
    """How many decode, hold all three elements, are valid, differ, and are known to nature."""
    crystals = samples.valid()
    three, valid = ternary_and_valid(crystals, pair)
    good = crystals[np.flatnonzero(valid)]
    first = imd.judge.unique(good)
    kept = np.zeros(len(good), dtype=bool)
    if len(good):
        blocks = HydrideBlocks((1, *METALS[pair])).encode_all(good)
        kept[blocks.ok] = keeps_published_bounds(blocks.valid().float()).numpy()
    real = hidden(pair)
    lost = imd.judge.novel(real, good) if len(real) and len(good) else np.ones(len(real), bool)
    return {
        "n": len(samples),
        "decoded": int(samples.ok.sum()),
        "ternary": int(three.sum()),
        "valid": int(valid.sum()),
        "unique": int(first.sum()),
        "in_published_bounds": int((kept & first).sum()),
        "found": int((~lost).sum()),
        "hidden": len(real),
    }


def made(pair: str, arm: str, seed: int) -> Samples:
    """Samples of one arm."""
    variant, changes = ARMS[arm]
    steps = {} if variant == "paper" else {"steps": STEPS}
    how = {"profile": "full", "seed": seed, "progress": False}
    model, _ = CrystalGan.train(variant, changes={**changes, **steps, "data": pair}, **how)
    if changes.get("third", True):
        return model.sample(N_JUDGED, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        both = torch.cat(model.transfer())
    return model.decode(both[torch.randperm(len(both))[:N_JUDGED]])


def without_learning(pair: str, name: str, seed: int = 0) -> Samples:
    """Samples of one sampler that learns nothing."""
    if name == "ion exchange":
        known = imd.datasets.load("oqmd_icsd").select(elements=["H"], nelements=3).crystals
        return baselines.IonExchange(known[~of_all(known, pair)]).sample(
            N_JUDGED, condition={"elements": symbols(pair)}, seed=seed
        )
    config = CrystalGan.recipe("fixed", profile="full").but(data=pair, third=False)
    maps = CrystalGan(config)
    names, data = vars(page()), CrystalGan.read(config)
    names["first"], names["second"] = data
    maps.prepare(data)
    makers = {
        "recoloured": page().recoloured,
        "overlaid": page().overlaid,
        "overlaid and pushed apart": page().pushed_apart,
        "random": page().scattered,
    }
    return makers[name](maps, N_JUDGED, np.random.default_rng(seed))


def three_seeds(names: Iterable[str], pair: str) -> list[tuple[str, str, int]]:
    """Pair, name and seed of what can be made."""
    return [(pair, name, seed) for seed in SEEDS for name in names if (pair, name) != NO_TEMPLATE]


@record.rows(PATH, partial(three_seeds, ARMS), under="arms {}")
def arms(pair: str, arm: str, seed: int) -> Row:
    """What each part of CrystalGAN is worth."""
    return verdict(made(pair, arm, seed), pair)


@record.rows(PATH, partial(three_seeds, RUNGS), under="rungs {}")
def rungs(pair: str, rung: str, seed: int) -> Row:
    """The same verdicts for samplers that learn nothing."""
    return verdict(without_learning(pair, rung, seed), pair)


# ---- energies


def energies(pair: str) -> None:
    """At most N_RELAXED different valid crystals of each source, at rest, above both hulls."""
    jobs = [(source,) for source in SOURCES if (pair, source) != NO_TEMPLATE]
    record.fill(PATH, ("source",), jobs, lambda s: of_source(s, pair), under=f"energies {pair}")


def of_source(source: str, pair: str) -> Row:
    """Some valid crystals of one source."""
    if source in RUNGS:
        samples = without_learning(pair, source, 1)
    elif (pair, source) == ("mg_ti_h", "fixed"):
        samples = imd.models.load("crystalgan").sample(N_JUDGED, seed=1)
    else:
        samples = made(pair, source, 1)
    crystals = samples.valid()
    good = np.flatnonzero(ternary_and_valid(crystals, pair)[1])
    return relaxed(crystals[good], hidden(pair), most=N_RELAXED)


def relaxed(good: CrystalBatch, real: CrystalBatch, *, most: int = 24) -> Row:
    """Some different ones, relaxed and judged; those near both hulls are rattled as well.

    Args:
        good: valid crystals.
        real: those that may be found.
        most: how many are relaxed.
    """
    good = good[np.flatnonzero(imd.judge.unique(good))[:most]] if len(good) else good
    rows, found = [], np.zeros(len(real), dtype=bool)
    for start in range(0, len(good), PIECE):  # a potential's graphs of more would fill the memory
        rest = at_rest(good[start : start + PIECE])
        said = above_both_hulls(rest)
        for i in filter(lambda k: near_both(said[k]), range(len(said))):
            pushed = rattled(rest.crystals[[i]], seeds=start + i)
            said[i]["rattled"] = above_both_hulls(at_rest(pushed))[0]
        rows += said
        if len(found):
            found |= ~imd.judge.novel(real, rest.crystals)
    return {"n": len(rows), "found_at_rest": int(found.sum()), "crystals": rows}


def at_rest(crystals: CrystalBatch) -> Relaxed:
    """As near to a minimum of the first potential as a hundred steps lead."""
    return relax(crystals, JUDGES[0], fmax=0.05, steps=100)


def near_both(row: Row) -> bool:
    """Is it near the hulls of both potentials?"""
    return None not in row["above_hull"] and max(row["above_hull"]) <= NEAR


def above_both_hulls(rest: Relaxed) -> list[Row]:
    """Where each crystal came to rest, and above each potential's hull."""
    counts = rest.crystals.counts().numpy()
    energy = [rest.energy, potential(JUDGES[1]).evaluate(rest.crystals).energy]
    said = [hull.above_hull(counts, e, by) for e, by in zip(energy, JUDGES, strict=True)]
    groups = symmetry.space_group_numbers(rest.crystals)
    return [
        {
            "formula": formula,
            "space_group": int(groups[i]),
            "above_hull": rounded([float(each.energy_above_hull[i]) for each in said], 4),
            "formation_energy": rounded([float(each.formation_energy[i]) for each in said], 4),
            "converged": bool(rest.converged[i]),
        }
        for i, formula in enumerate(rest.crystals.formulas())
    ]


TASKS = (train, maps, arms, rungs, energies)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
