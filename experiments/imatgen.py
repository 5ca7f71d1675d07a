"""Train iMatGen, and measure what the chapter compares it with.

    python experiments/imatgen.py train VARIANT    weights and run.json
    python experiments/imatgen.py models           what comes back, classifier, samples, three seeds
    python experiments/imatgen.py rungs            the same verdicts without learning
    python experiments/imatgen.py biases           the published coders without and with biases
    python experiments/imatgen.py more             verdicts on ten times as many samples
    python experiments/imatgen.py rest             real oxides found after a relaxation

Everything but the weights goes into results.json. Interrupted work goes on where it stopped.
"""

from __future__ import annotations

from functools import partial

import record
from record import CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers.energies import relaxation
from imd_helpers.energies.potentials import JUDGES
from imd_helpers.matching.same import MatchSettings
from imd_helpers.models.imatgen import IMatGen
from imd_helpers.networks import fit

PATH = CHECKPOINTS / "imatgen" / "results.json"
N_JUDGED, SEEDS = 500, (0, 1, 2)
TRAINED = (("fixed", 0), ("paper", 0), ("fixed", 1), ("fixed", 2))
FIRST = 60  # steps with grids, of `biases`
N_MORE, MORE = 5_000, ("around, 10 spreads", "between")  # ways that make new crystals
RESTED = (*MORE[::-1], "ion exchange", "substitution", "varied copies")
FMAX, RELAX_STEPS = 0.05, 100  # of a relaxation, as in `substituted.py`
NEAR = MatchSettings(ltol=0.4, stol=0.7, angle_tol=15.0)  # of a real oxide, from where to relax
# functions of the chapter, and its crystals
page = partial(record.chapter, "4_models/imatgen", until="## Equation ↔ code")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(IMatGen, variant)


# ---- trained models


@record.rows(PATH, TRAINED)
def models(variant: str, seed: int) -> Row:
    """What comes back, the classifier, and samples of four trainings."""
    if seed:
        model, _ = record.train(IMatGen, variant, seed=seed, progress=False)
    else:
        model = imd.models.load("imatgen", variant=variant)
    found: Row = {
        "back": {s: page().stages(model, getattr(page(), s).crystals) for s in ("val", "test")}
    }
    found["nearest voxel"] = page().at_voxels(model, page().test.crystals)
    found["classifier"] = page().classified(model, page().test)
    ways = list(page().WAYS) if variant == "fixed" else ["around", "between"]
    made = {way: page().drawn(model, way, N_JUDGED, seed) for way in ways}
    found["samples"] = {way: page().verdict(samples) for way, samples in made.items()}
    found["atoms anywhere"] = {
        way: page().verdict(page().anywhere(samples, seed)) for way, samples in made.items()
    }
    return rounded(found)


# ---- without learning


@record.rows(PATH, lambda: [(rung, seed) for seed in SEEDS for rung in page().RUNGS])
def rungs(rung: str, seed: int) -> Row:
    """The same verdicts for samplers that learn nothing."""
    return rounded(page().verdict(page().RUNGS[rung](N_JUDGED, seed)))


# ---- biases


@record.rows(PATH, [(False,), (True,)])
def biases(biased: bool) -> Row:
    """Errors of the published coders of grids, step by step, without and with biases."""
    config = IMatGen.recipe("paper", profile="full")
    config = config.but(biased=biased, steps=FIRST + 1, grids=FIRST / (FIRST + 1), log_every=4)
    model = IMatGen.from_data(page().train, config)
    sites = model.sites[:24].flatten(0, 1)[:, None]
    awake = page().awake(model, sites)
    history = fit(model, config.train, progress=False)
    rows = [row["grids_sites"] for row in history.rows if "grids_sites" in row]
    return rounded({"error": rows, "awake": [awake, page().awake(model, sites)]})


# ---- more samples


@record.rows(PATH, [(way,) for way in MORE])
def more(way: str) -> Row:
    """Verdicts on ten times as many samples, as made and with each atom anywhere."""
    samples = page().drawn(imd.models.load("imatgen", variant="fixed"), way, N_MORE, 0)
    loose = page().anywhere(samples, 0)
    return rounded(page().verdict(samples) | {"anywhere": page().verdict(loose)})


# ---- at rest


@record.rows(PATH, [(name,) for name in RESTED])
def rest(sampler: str) -> Row:
    """Real oxides among the samples before and after these relax.

    Those relax that are new, and that a far too tolerant matcher takes for a real oxide.
    """
    if sampler in page().WAYS:
        samples = page().drawn(imd.models.load("imatgen", variant="fixed"), sampler, N_JUDGED, 0)
    else:
        samples = page().RUNGS[sampler](N_JUDGED, 0)
    good, hidden = page().valid_of(samples), page().hidden
    new = imd.judge.unique(good) & imd.judge.novel(good, page().train.crystals)
    near = good[(new & ~imd.judge.novel(good, hidden, settings=NEAR)).nonzero()[0]]
    ended = relaxation.relax(near, JUDGES[0], fmax=FMAX, steps=RELAX_STEPS)
    known = ~imd.judge.novel(ended.crystals, page().train.crystals)
    return {
        "n": N_JUDGED,
        "new": int(new.sum()),
        "near": len(near),
        "at rest": int(ended.converged.sum()),
        "real before": page().real_found(near),
        "real after": page().real_found(ended.crystals),
        "training crystals after": int(known.sum()),
    }


TASKS = (train, models, rungs, biases, more, rest)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
