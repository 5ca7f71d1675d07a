"""Train ZeoGAN, and measure what the chapter compares it with.

    python experiments/zeogan.py train VARIANT   weights and run.json of fixed, paper or target
    python experiments/zeogan.py known           framework types of the IZA, as digests
    python experiments/zeogan.py sizes           real frameworks there and back, by points
    python experiments/zeogan.py models          verdicts on trainings, with and without a target
    python experiments/zeogan.py rungs           the same verdicts without learning

`fixed` comes first: the others begin with its weights. Everything but the weights goes into
results.json. Interrupted work goes on where it stopped.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import record
from record import BUILD, CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.methane_grid import MethaneGrid
from imd_helpers.models import zeogan
from imd_helpers.models.zeogan import ZeoGan
from imd_helpers.models.zeogan_frameworks import framework_key, frameworks
from imd_helpers.networks import fit

PATH = CHECKPOINTS / "zeogan" / "results.json"
N_HEATS, N_DECODED = 500, 60
ARMS = ("target", "no target")
TRAINED = (("fixed", 0), ("paper", 0), *((arm, seed) for seed in (0, 1, 2) for arm in ARMS))
POINTS = (12, 16, 24, 32)


@cache
def page() -> ModuleType:
    """Functions of the chapter, and its frameworks."""
    return record.chapter("4_models/zeogan", until="## Equation ↔ code")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(ZeoGan, variant)


# ---- real frameworks


def known() -> None:
    """Digests of the framework types of all 217, for the page to look up."""
    batches = [
        CrystalBatch.from_structures([one])
        for one in imd.datasets.load("iza_zeolites").structures().values()
    ]
    digests = {page().digest(framework_key(one)) for one in batches}
    content = {"frameworks": len(batches), "types": sorted(digests)}
    record.write(PATH, record.read(PATH, {}) | {"known": content})


def sizes() -> None:
    """How many real frameworks come back from grids of so many points, by their longest edge."""
    record.fill(PATH, ("points",), [(points,) for points in POINTS], of_size, under="sizes")


def of_size(points: int) -> Row:
    """All frameworks with right angles and edges up to 25 Å."""
    real = ZeoGan.read(zeogan.FIXED.but(longest=25.0), None)
    longest = real.lattice.norm(dim=2).amax(1).numpy()
    grids = MethaneGrid(points=points).encode(real).float()
    made = frameworks(grids, real.lattice)
    same = [
        ok and framework_key(made.samples.crystals[i : i + 1]) == framework_key(real[i : i + 1])
        for i, ok in enumerate(made.samples.ok.tolist())
    ]
    return {
        "n": len(real),
        "right": int(np.sum(same)),
        "n to 20": int((longest <= 20).sum()),
        "right to 20": int(np.sum(np.array(same)[longest <= 20])),
    }


# ---- trained models


def models() -> None:
    """Verdicts on each training."""
    record.fill(PATH, ("variant", "seed"), TRAINED, of_training, under="models")


def of_training(variant: str, seed: int) -> Row:
    """Heats of many grids, and all verdicts of fewer; the same peaks anywhere in their cells."""
    model = trained(variant, seed)
    many, few = model.raw(0, N_HEATS, seed=seed), model.raw(0, N_DECODED, seed=seed + 100)
    found = page().heat_of(many[0]) | {"border": page().border(many[0])}
    decoded = page().verdict(*few) | {"by chance": page().by_chance(*few, seed)}
    return rounded({"heats": found, "decoded": decoded})


def trained(variant: str, seed: int) -> ZeoGan:
    """Committed weights, or a training that goes on from `fixed` with or without the target."""
    if variant in ("fixed", "paper", "target") and seed == 0:
        return imd.models.load("zeogan", variant=variant)
    config = ZeoGan.recipe("target", profile="full").but(seed=seed)
    if variant == "no target":
        config = config.but(low=0.0, high=0.0)
    model = ZeoGan.from_data(page().train, config, seed=seed)
    folder = BUILD / f"zeogan-{variant.replace(' ', '-')}-{seed}"
    history = fit(model, config.train, folder=folder, resume=True, progress=False)
    if history.ema is not None:
        model.generator.load_state_dict(history.ema.state_dict())
    return model


# ---- without learning


def rungs() -> None:
    """The same verdicts for grids that no network made."""

    def of_rung(rung: str) -> Row:
        grids, lengths = page().RUNGS[rung](100, 0)
        return rounded({"heats": page().heat_of(grids), "decoded": page().verdict(grids, lengths)})

    record.fill(PATH, ("rung",), [(rung,) for rung in page().RUNGS], of_rung, under="rungs")


TASKS = (train, known, sizes, models, rungs)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
