"""Train the Mg-Mn-O GAN, and measure what the chapter compares it with.

    python experiments/mg_mn_o.py train VARIANT    weights and run.json
    python experiments/mg_mn_o.py arms             what each habit is worth, three seeds
    python experiments/mg_mn_o.py full             `fixed` at its length, cells reduced or not
    python experiments/mg_mn_o.py longer           the mended recipe, up to four times as many steps
    python experiments/mg_mn_o.py rungs            the same verdicts without learning
    python experiments/mg_mn_o.py critics          how restless a critic is, before and after
    python experiments/mg_mn_o.py energies         some of each, relaxed by both potentials
    python experiments/mg_mn_o.py oxides           known oxides, likewise

Everything but the weights goes into results.json.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import record
from crystalgan import above_both_hulls, at_rest, relaxed
from record import CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers.crystals.samples import Samples
from imd_helpers.models.coordinate_rows import NUMBERS, n_atoms, neighbours
from imd_helpers.models.mg_mn_o import MgMnOGan
from imd_helpers.models.periodic import FAR

PATH = CHECKPOINTS / "mg_mn_o" / "results.json"
N_JUDGED, SEEDS, ASKED = 1_000, (0, 1, 2), ("known", "hidden")  # compositions
STEPS = 500  # of the arms
MENDED = {"rows": "classifier", "sees": "rows"}  # the published recipe without its habits
HABITS: dict[str, Row] = {
    "epsilon of 0.8": {"norm_eps": 0.8},
    "softmax twice": {"softmax_twice": True},
    "sum penalised": {"penalised": "sum"},
    "any composition": {"any_composition": True},
    "noise for the classifier": {"noisy_classifier": True},
    "classifier learns fakes": {"classifier_learns_fakes": True},
    "scrambled supercells": {"supercells": "scrambled"},
    "decoding by row sum": {"rows": "row sum"},
}
ARMS: dict[str, tuple[str, Row]] = {  # name: variant, and what is changed
    "paper": ("paper", {}),
    **{name: ("fixed", {**MENDED, **habit}) for name, habit in HABITS.items()},
    "mended": ("fixed", MENDED),
    "composition given": ("fixed", {"sees": "rows"}),
    "critic sees distances": ("fixed", {}),
    "volume given": ("fixed", {}),
    "reduced cells": ("fixed", {"cells": "reduced"}),
}
FULL = (("as they come", 0), *(("reduced", seed) for seed in SEEDS))  # cells and seed of `full`
LOOKS = (500, 1_000, 2_000)  # steps of `longer`
GIVEN = ("composition given", "critic sees distances")
OXIDES = (  # formula, space group
    *(("MgO", 225), ("MnO", 225), ("Mn3O4", 141), ("Mn2O3", 206), ("MnO2", 87)),
    *(("Mg6MnO8", 225), ("MgMn2O4", 141)),
)
SAMPLED = ("fixed", "recoloured", "ion exchange", "random places")  # what is relaxed
# functions of the chapter
page = partial(record.chapter, "4_models/mg_mn_o", until="## Equation ↔ code")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(MgMnOGan, variant)


# ---- verdicts


def obeyed(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """(k, 3) atoms of each element in what decodes, and (k,) whether these were asked for."""
    got = samples.valid().counts()[:, list(NUMBERS)].numpy()
    return got, (got == samples.asked["counts"][samples.ok]).all(1)


def verdict(samples: Samples) -> Row:
    """How many have the composition, keep their distances, differ, are new, are in nature."""
    names, crystals = page(), samples.valid()
    got, as_asked = obeyed(samples)
    valid = imd.judge.geometry_valid(crystals)
    good = crystals[np.flatnonzero(as_asked & valid)]
    found = dict.fromkeys(("unique", "new", "hidden_found", "real_found"), 0)
    if len(good):
        found = {
            "unique": int(imd.judge.unique(good).sum()),
            "new": int(imd.judge.novel(good, names.training).sum()),
            "hidden_found": int((~imd.judge.novel(names.hidden, good)).sum()),
            "real_found": int((~imd.judge.novel(names.real, good)).sum()),
        }
    off = np.abs(got - samples.asked["counts"][samples.ok]).sum(1)
    return {
        "n": len(samples),
        "decoded": int(samples.ok.sum()),
        "as_asked": int(as_asked.sum()),
        "valid": int(valid.sum()),
        "both": len(good),
        **found,
        "atoms_off": rounded(float(off.mean())) if len(off) else None,
    }


def made(arm: str, seed: int, steps: int = STEPS, folder: Path | None = None) -> MgMnOGan:
    """A trained arm; with a folder it goes on from there."""
    variant, changes = ARMS[arm]
    kind = page().Roomy if arm == "volume given" else MgMnOGan
    how = {"profile": "full", "seed": seed, "progress": False}
    how |= {"folder": folder, "resume": True} if folder else {}
    return kind.train(variant, changes={**changes, "steps": steps}, **how)[0]


def of_model(model: MgMnOGan, asked: str, n: int, seed: int) -> Samples:
    """Samples of known or hidden compositions."""
    model.learnt["compositions"] = page().triples[asked]
    return model.sample(n, seed=seed)


@record.rows(PATH, [(arm, seed) for seed in SEEDS for arm in ARMS])
def arms(arm: str, seed: int) -> Row:
    """What each habit is worth."""
    model = made(arm, seed)
    return {asked: verdict(of_model(model, asked, N_JUDGED, seed)) for asked in ASKED}


@record.rows(PATH, FULL)
def full(cells: str, seed: int) -> Row:
    """`fixed` at its full length: what it makes, and what its critic would overlook of that."""
    folder = record.BUILD / "mg_mn_o" / f"{cells}-{seed}".replace(" ", "-")
    how = {"profile": "full", "seed": seed, "folder": folder, "resume": True}
    model, history = MgMnOGan.train("fixed", changes={"cells": cells}, progress=False, **how)
    about = {"steps": history.rows[-1]["step"], "nearest": nearest(model)}
    return about | {asked: lasting(of_model(model, asked, N_JUDGED, 1)) for asked in ASKED}


def nearest(model: MgMnOGan) -> float:
    """Median distance, Å, from a generated atom to the nearest other that the critic sees."""
    matrix = model.raw(0, N_JUDGED, seed=1)[0]
    near = neighbours(matrix, reduced=model.config.cells == "reduced").amax(2)
    return rounded(FAR * (1 - float(near[n_atoms(matrix)[0]].median())), 2)


def lasting(samples: Samples) -> Row:
    """The verdict, the same cells with their atoms elsewhere, and what a critic overlooks."""
    crystals, names = samples.valid(), page()
    flat = {"no_cell": sum("make no cell" in reason for reason in samples.reasons)}
    if not len(crystals):
        return verdict(samples) | flat
    return verdict(samples) | {
        **flat,
        "elsewhere": int(imd.judge.geometry_valid(names.elsewhere(crystals)).sum()),
        "room": rounded(names.room_of(crystals), 1),
        "overlooked": names.overlooked(crystals),
    }


@record.rows(PATH, [(0, steps) for steps in LOOKS])
def longer(seed: int, steps: int) -> Row:
    """Does the mended recipe obey when it learns for longer?"""
    model = made("mended", seed, steps, record.BUILD / "mg_mn_o" / f"mended-{seed}")
    return verdict(of_model(model, "known", N_JUDGED, seed))


@record.rows(
    PATH,
    lambda: [(rung, asked, seed) for seed in SEEDS for rung in page().RUNGS for asked in ASKED],
)
def rungs(rung: str, asked: str, seed: int) -> Row:
    """The same verdicts for samplers that learn nothing."""
    rng = np.random.default_rng(seed)
    samples = page().RUNGS[rung](page().triples[asked], N_JUDGED, rng)
    return verdict(samples) if len(samples) else {"n": 0}


@record.rows(PATH, [(arm, seed) for seed in SEEDS for arm in GIVEN])
def critics(arm: str, seed: int) -> Row:
    """How much the score of held-out crystals moves with axes and origin, trained and not."""
    model = made(arm, seed)
    both = {"trained": model, "untrained": MgMnOGan(model.config, model.learnt, seed=seed)}
    return {name: rounded(page().restlessness(each.critic)) for name, each in both.items()}


# ---- energies


@record.rows(PATH, [(source,) for source in SAMPLED])
def energies(source: str) -> Row:
    """A few different valid crystals of hidden compositions, at rest, above both hulls."""
    if source == "fixed":
        samples = of_model(imd.models.load("mg_mn_o"), "hidden", 4 * N_JUDGED, 1)
    else:
        rng = np.random.default_rng(1)
        samples = page().RUNGS[source](page().triples["hidden"], 4 * N_JUDGED, rng)
    crystals = samples.valid()
    good = obeyed(samples)[1] & imd.judge.geometry_valid(crystals)
    return relaxed(crystals[np.flatnonzero(good)], page().real)


@record.rows(PATH, OXIDES)
def oxides(oxide: str, group: int) -> Row:
    """Known oxides, whose free energies are tabulated, and both real crystals."""
    known = imd.datasets.load("oqmd_icsd").select(formulas=oxide, space_groups=group)
    lowest = known.table["energy_above_hull"].to_numpy().argmin()
    return above_both_hulls(at_rest(known[[lowest]].crystals))[0]


TASKS = (train, arms, full, longer, rungs, critics, energies, oxides)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
