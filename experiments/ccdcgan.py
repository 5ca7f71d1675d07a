"""Train CCDCGAN, and measure what the chapter compares it with.

    python experiments/ccdcgan.py train VARIANT    weights and run.json
    python experiments/ccdcgan.py coders           what comes back of crystals, both variants
    python experiments/ccdcgan.py arms             the same of coders of `fixed` trained otherwise
    python experiments/ccdcgan.py games            factors of the constraint, three seeds each
    python experiments/ccdcgan.py paper            samples of the committed weights of `paper`
    python experiments/ccdcgan.py rungs            the same verdicts without learning
    python experiments/ccdcgan.py rest             crystals of these, relaxed
    python experiments/ccdcgan.py speed            seconds of a step, with and without

Everything but the weights goes into results.json. Interrupted work goes on where it stopped. The
games of one seed share coders and constraint with the committed weights of `fixed`.
"""

from __future__ import annotations

import itertools
import time
from functools import cache, partial

import numpy as np
import record
import torch
from record import CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.energies import hull, relaxation
from imd_helpers.energies.potentials import JUDGES, potential
from imd_helpers.models import ccdcgan
from imd_helpers.models.ccdcgan import Ccdcgan
from imd_helpers.networks import fit

PATH = CHECKPOINTS / "ccdcgan" / "results.json"
N_JUDGED, N_ENERGIES, SEEDS = 400, 20, (0, 1, 2)
STRENGTHS = (0.0, 10.0, 100.0)  # factors of the constraint; `fixed` has the second
LOOKS, N_LOOKED = 4, 8  # times that a training is looked at, and crystals judged each time
POOL, BEST = 1_000, 150  # samples that are screened, and how many of them are decoded
N_PAPER = 40  # samples of `paper`: hundreds of peaks a grid take seconds
N_BACK = 100  # crystals of a split that are written and read
FMAX, STEPS = 0.05, 100  # of a relaxation, as in `substituted.py`
RESTED = ("ion exchange", "substitution", "random", "training copies")
ARMS = {"crystals as they come": {"varied": False}}  # changes of `fixed`
# functions of the chapter, and its crystals
page = partial(record.chapter, "4_models/ccdcgan", until="## Equation ↔ code")


@cache
def base() -> Ccdcgan:
    """The committed weights of `fixed`, with the pictures of its training crystals."""
    return imd.models.load("ccdcgan", variant="fixed").look_at(page().known)


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(Ccdcgan, variant)


# ---- coders


@record.rows(PATH, [("fixed",), ("paper",)])
def coders(variant: str) -> Row:
    """Crystals that come back from their pictures, and errors of the constraint."""
    return of_model(imd.models.load("ccdcgan", variant=variant))


@record.rows(PATH, [(arm,) for arm in ARMS])
def arms(arm: str) -> Row:
    """Coders and constraint of `fixed`, of which one thing is another."""
    config = Ccdcgan.recipe("fixed", profile="full").but(**ARMS[arm])
    return of_model(Ccdcgan.from_data(Ccdcgan.read(config), config))


def of_model(model: Ccdcgan) -> Row:
    """What comes back by the coders of a model, and the errors of its constraint."""
    sets = {split: Ccdcgan.read(model.config, split)[:N_BACK] for split in ("train", "val", "test")}
    found = {name: page().came_back(model, data.crystals) for name, data in sets.items()}
    found["real"] = page().came_back(model, page().real)
    told = {split: ccdcgan.energies(data).numpy() for split, data in sets.items()}
    errors = {
        split: page().errors(model, data.crystals, told[split]) for split, data in sets.items()
    }
    return rounded({"back": found, "errors": errors})


# ---- games


def played(strength: float, seed: int, curve: list[Row] | None = None) -> Ccdcgan:
    """One game on the committed coders and constraint; notes what is made on the way."""
    model = base().anew(seed=seed, strength=strength)
    every = model.config.train.steps // LOOKS

    def look(step: int, _: object, history: object) -> None:
        if curve is not None and step % every == 0:
            with torch.random.fork_rng():
                raw = model.raw(0, 64, seed=seed)
                samples = model.decode(raw)
                few = page().energies(model, raw, N_LOOKED)
            model.generator.train()
            valid = len(page().valid_of(samples))
            curve.append({"step": step, "n": 64, "valid": valid, **few})

    config = model.config.but(log_every=every).train
    history = fit(model, config, callbacks=[look], progress=False)
    model.generator.load_state_dict(history.ema.state_dict())
    return model


@record.rows(PATH, [(strength, seed) for seed in SEEDS for strength in STRENGTHS])
def games(strength: float, seed: int) -> Row:
    """Trainings of the players with three factors of the constraint, looked at on the way.

    Verdicts, energies, and those of what the constraint likes best of many.
    """
    curve: list[Row] = []
    model = played(strength, seed, curve)
    pool = torch.cat([model.raw(k, n, seed=seed + 100) for k, n in model.pieces(POOL)])
    best = pool[model.predicted(pool).argsort(stable=True)[:BEST]]
    screened = page().energies(model, best, N_ENERGIES)
    return rounded({**of_samples(model, seed), "screened": screened, "curve": curve})


def of_samples(model: Ccdcgan, seed: int) -> Row:
    """Verdict and energies of a model's samples."""
    return of_pictures(
        model, torch.cat([model.raw(k, n, seed=seed) for k, n in model.pieces(N_JUDGED)]), seed
    )


def of_pictures(model: Ccdcgan, raw: torch.Tensor, seed: int) -> Row:
    """Verdict and energies of pictures, the same cells with atoms anywhere, and at rest."""
    samples = model.decode(raw)
    return {
        "verdict": page().verdict(samples),
        "anywhere": anywhere(samples, seed),
        "energies": page().energies(model, raw, N_ENERGIES),
        "at rest": at_rest(model, page().valid_of(samples)[:N_ENERGIES]),
    }


def at_rest(model: Ccdcgan, crystals: CrystalBatch) -> Row:
    """What becomes of crystals that relax, and what the constraint reads from them then."""
    if not len(crystals):
        return {"n": 0}
    found, after = relaxed(crystals)
    read = model.encode(after)
    return {**found, "constraint": float(model.predicted(read.tensor)[read.ok].mean())}


def relaxed(crystals: CrystalBatch) -> tuple[Row, CrystalBatch]:
    """How far crystals fall by the first judge, what both say then, and where they come to rest."""
    began = potential(JUDGES[0]).energies(crystals, gate=None)
    rest = relaxation.relax(crystals, JUDGES[0], fmax=FMAX, steps=STEPS)
    done = np.flatnonzero(np.isfinite(rest.energy))
    after, energy = rest.crystals[done], rest.energy[done]
    counts, second = after.counts().numpy(), potential(JUDGES[1]).energies(after, gate=None)
    above = [
        hull.above_hull(counts, e, by).energy_above_hull
        for e, by in zip((energy, second), JUDGES, strict=True)
    ]
    formed = hull.formation_energy(counts, second, JUDGES[1])
    return {
        "n": len(crystals),
        "at rest": int(rest.converged.sum()),
        "fell": np.quantile(began[done] - energy, [0.25, 0.5, 0.75]),
        "above hull": {by: float(np.median(a)) for by, a in zip(JUDGES, above, strict=True)},
        "judge": float(np.median(formed)),
    }, after


def anywhere(samples: Samples, seed: int) -> Row:
    """How many valid crystals stay valid with each atom anywhere in the same cell."""
    good = page().valid_of(samples)
    left = imd.judge.geometry_valid(page().anywhere(good, seed)).sum() if len(good) else 0
    return {"valid": len(good), "atoms anywhere": int(left)}


@record.rows(PATH, [(0,)])
def paper(seed: int) -> Row:
    """Samples of the committed weights of `paper`."""
    model = imd.models.load("ccdcgan", variant="paper")
    return rounded(of_pictures(model, model.raw(0, N_PAPER, seed=seed), seed))


# ---- without learning


def all_rungs() -> list[tuple[str, int]]:
    """Names and seeds."""
    names = (*page().rungs(), *page().PICTURES, "training copies")
    return [(rung, seed) for seed in SEEDS for rung in names]


@record.rows(PATH, all_rungs)
def rungs(rung: str, seed: int) -> Row:
    """The same verdicts and energies for samplers that learn nothing, and for training copies."""
    if rung in page().PICTURES:
        return rounded(of_pictures(base(), page().PICTURES[rung](N_JUDGED, seed), seed))
    samples = without_learning(rung, seed)
    good = page().valid_of(samples)[:N_ENERGIES]
    formed, above = page().judged(good)
    energies = {"judged": len(good), "judge": float(np.median(formed))}
    energies["above hull"] = float(np.median(above))
    found = {"verdict": page().verdict(samples), "anywhere": anywhere(samples, seed)}
    return rounded({**found, "energies": energies})


def without_learning(rung: str, seed: int) -> Samples:
    """Samples of one of the rungs, or training copies."""
    if rung != "training copies":
        return page().rungs()[rung].sample(N_JUDGED, condition=page().ASKED, seed=seed)
    rows = np.random.default_rng(seed).integers(len(page().known), size=N_JUDGED)
    return Samples.of(page().known[rows])


@record.rows(PATH, [(rung,) for rung in RESTED])
def rest(rung: str) -> Row:
    """What becomes of valid crystals of the samplers that learn nothing when they relax."""
    return rounded(at_rest(base(), page().valid_of(without_learning(rung, 0))[:N_ENERGIES]))


# ---- speed


@record.rows(PATH, list(itertools.product(("fixed", "paper"), (True, False))))
def speed(variant: str, constraint: bool) -> Row:
    """Seconds of a core for a step of each variant, with and without the constraint.

    The median of five short trainings.
    """
    model = imd.models.load("ccdcgan", variant=variant)
    crystals = Ccdcgan.read(model.config).crystals[:64]
    strength = model.config.strength if constraint else 0.0
    model = model.look_at(crystals).anew(seed=0, strength=strength)
    config, seconds = model.config.but(steps=10, log_every=10, fall=0.0).train, []
    for _ in range(5):
        began = time.process_time()
        fit(model, config, progress=False)
        seconds.append((time.process_time() - began) / 10)
    return rounded({"seconds": float(np.median(seconds)), "all": seconds})


TASKS = (train, coders, arms, games, paper, rungs, rest, speed)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
