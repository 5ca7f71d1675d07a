"""Train the CubicGANs that come with the book, and measure what each published quirk costs.

    python experiments/cubicgan.py train VARIANT        weights and run.json
    python experiments/cubicgan.py judge VARIANT        the funnel alone, once more
    python experiments/cubicgan.py seeds VARIANT        the funnel on two more trainings
    python experiments/cubicgan.py baselines            the same for baselines
    python experiments/cubicgan.py hidden               hidden crystals that baselines find
    python experiments/cubicgan.py relapses [SEED ...]  one published quirk at a time
    python experiments/cubicgan.py widths [SEED ...]    with and without dropout at other widths
    python experiments/cubicgan.py physics [SEED ...]   distances and cell size in the loss
    python experiments/cubicgan.py whole [STEPS]        `paper` at its published width and rate

VARIANT is paper, fixed or prototypes. Interrupted training goes on where it stopped. Everything
uses the training split only.
"""

from __future__ import annotations

import itertools
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import record
import torch
from record import CHECKPOINTS, Row

import imd_helpers as imd
from imd_helpers import baselines as samplers
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.models import cubicgan
from imd_helpers.models.cubic_sites import room_and_contacts
from imd_helpers.models.cubicgan import PAPER_RATES, CubicGan

N_JUDGED, N_RELAPSE, RELAPSE_STEPS = 10_000, 2_000, 1_000
MORE_SEEDS, WIDTHS = (1, 2), (1 / 16, 1 / 4)  # an eighth is in relapses.json
LOOKS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 146_700)

# `fixed` with one thing of the published code put back.
RELAPSES: dict[str, Row] = {
    "fixed": {},
    "frozen labels": {"frozen_labels": True},
    "uniform labels": {"labels": "uniform"},
    "frozen uniform labels": {"labels": "uniform", "frozen_labels": True},
    "penalty off the segment": {"mixing": "normal"},
    "dropout": {"dropout_generator": 0.5, "dropout_critic": 0.25},
    "length blind to elements": {"length_sees_condition": False},
    "positions as they come": {"canonical": False, "snap": False},
    "all of them: paper": {},
}

# `fixed` with the losses that its authors turned to next.
PHYSICS: dict[str, Row] = {
    "neither": {},
    "distances": {"distances": 2.0},
    "cell": {"cell": 2.0},
    "both": {"distances": 2.0, "cell": 2.0},
}


def folder(variant: str) -> Path:
    """Where a variant's files are."""
    return CHECKPOINTS / f"cubicgan-{variant}"


def training_crystals() -> CrystalBatch:
    """What novelty is measured against: every embedded crystal of the three cubic groups.

    Not only those that pass CubicGAN's filter: a sample that equals any known cubic ternary of the
    training split is not new.
    """
    known = imd.datasets.load("oqmd_icsd", split="train")
    return known.select(nelements=3, space_groups=[225, 216, 221]).crystals


def held_out() -> CrystalBatch:
    """The real cubic ternaries that no model and no baseline was shown."""
    parts = [decode_sites(cubicgan.training_sites(split)) for split in ("val", "test")]
    return CrystalBatch.cat([part.crystals for part in parts])


def funnel(model: Any, n: int, *, name: str, labels: str | None = None) -> imd.judge.Report:
    """Judge n samples of a model or a baseline."""
    how = None if labels is None else {"labels": labels}
    samples = model.sample(n, condition=how, seed=2022)
    training = training_crystals()
    return imd.judge.judge(samples, protocol="funnel", training=training, name=name)


def rows(report: imd.judge.Report) -> list[Row]:
    """The table of a report as plain numbers, n in every row."""
    table = report.table
    table.insert(0, "n", report.n)
    return record.table_rows(table)


def train(variant: str) -> None:
    """Train one variant at the profile `full`, and judge it."""
    record.train(CubicGan, variant)
    judge(variant)


def judge(variant: str) -> None:
    """Add the funnel of 10,000 samples, with each way of drawing labels, to run.json."""
    path = folder(variant) / "run.json"
    run = record.read(path)
    model = imd.models.load("cubicgan", variant=variant)
    reports = {
        f"{labels or 'own'} labels": funnel(model, N_JUDGED, name=variant, labels=labels)
        for labels in (None, *cubicgan.LABEL_SOURCES)
    }
    run["funnel"] = {labels: rows(each) for labels, each in reports.items()}
    run["funnel_definition"] = reports["own labels"].definition
    if run["config"].get("data") == "cubic_prototypes":
        known = imd.datasets.load("cubic_prototypes", split="train")
        groups = known.table["space_group"].to_numpy()
        copies = samplers.TrainingCopies(samplers.Templates(known.crystals, groups))
        run["funnel_of_training_set"] = rows(funnel(copies, N_JUDGED, name="enumeration"))
    record.write(path, run)


def baselines() -> None:
    """The ladder of samplers that learn nothing, through the same funnel."""
    rungs = samplers.ladder(decode_sites(cubicgan.training_sites()).crystals)
    found = {k: rows(funnel(rung, N_JUDGED, name=k)) for k, rung in rungs.items()}
    record.write(CHECKPOINTS / "cubicgan" / "baselines.json", found)


def hidden() -> None:
    """Hidden crystals among the samples of each rung, three seeds of the sampler."""
    rungs = samplers.ladder(decode_sites(cubicgan.training_sites()).crystals)
    page = record.chapter("4_models/cubicgan", until="### Why exchange wins, and when it cannot")
    path = CHECKPOINTS / "cubicgan" / "hidden.json"
    jobs = [(name, seed) for name in rungs for seed in (0, *MORE_SEEDS)]
    record.fill(path, ("rung", "seed"), jobs, lambda *job: found_by(page, rungs, *job))


def found_by(page: ModuleType, rungs: dict[str, Any], name: str, seed: int) -> Row:
    """The page's count of one rung."""
    seeded = SimpleNamespace(sample=lambda n, **_: rungs[name].sample(n, seed=seed))
    return {"n": N_JUDGED, "hidden": len(page.rediscovered(seeded)), "of": len(page.hidden)}


def seeds(variant: str) -> None:
    """The funnel on two more trainings, into run.json; no weights are kept."""
    page = record.chapter("4_models/cubicgan", until="### Why exchange wins, and when it cannot")
    path, jobs = folder(variant) / "run.json", [(seed,) for seed in (0, *MORE_SEEDS)]
    record.fill(path, ("seed",), jobs, partial(one_seed, page, variant), under="seeds")


def one_seed(page: ModuleType, variant: str, seed: int) -> Row:
    """Train once more, and judge; the page knows the crystals that were hidden."""
    if seed == 0:
        model = imd.models.load("cubicgan", variant=variant)
    else:
        model, _ = record.train(CubicGan, variant, seed=seed, progress=False)
    found = rows(funnel(model, N_JUDGED, name=variant))
    return {"hidden": len(page.rediscovered(model)), "of": len(page.hidden), "funnel": found}


def relapses(*seeds: str) -> None:
    """Train `fixed` with one published quirk put back, briefly and equally; keeps what it has."""
    jobs = [(name, seed) for name in RELAPSES for seed in map(int, seeds or "012")]
    path = CHECKPOINTS / "cubicgan" / "relapses.json"
    record.fill(path, ("name", "seed"), jobs, relapse)


def widths(*seeds: str) -> None:
    """Is it the dropout, or the dropout in so narrow a network? ``fixed`` at other widths."""
    ways = itertools.product(("fixed", "dropout"), WIDTHS, map(int, seeds or "012"))
    path = CHECKPOINTS / "cubicgan" / "widths.json"
    jobs = [(name, seed, width) for name, width, seed in ways]
    record.fill(path, ("name", "seed", "width"), jobs, relapse)


def physics(*seeds: str) -> None:
    """Train `fixed` with losses on distances and cells, briefly and equally; keeps what it has."""
    jobs = [(name, seed) for seed in map(int, seeds or "012") for name in reversed(PHYSICS)]
    path = CHECKPOINTS / "cubicgan" / "physics.json"
    record.fill(path, ("name", "seed"), jobs, relapse)


def relapse(name: str, seed: int, width: float = 1 / 8) -> Row:
    """Train and judge one relapse with one seed."""
    more = RELAPSES | PHYSICS
    changes = {"steps": RELAPSE_STEPS, "log_every": 100, "width": width, **more[name]}
    variant = "paper" if name.endswith("paper") else "fixed"
    model, history = CubicGan.train(
        variant, profile="full", seed=seed, changes=changes, progress=False
    )
    # every relapse is asked for the same kind of elements, however it was trained
    report = funnel(model, N_RELAPSE, name=name, labels="data")
    found = {"steps": RELAPSE_STEPS, "seconds": round(history.seconds), "room": room(model)}
    return found | {"funnel": rows(report)}


def whole(steps: str = "10") -> None:
    """Train `paper` as it was published, as far as asked, and look on the way; goes on from there.

    The networks stay in `_build`. An iteration is 17 seconds of a core.
    """
    path = CHECKPOINTS / "cubicgan" / "whole.json"
    jobs = [(look,) for look in LOOKS if look <= int(steps)]
    about = {"published": LOOKS[-1], "width": cubicgan.PAPER.width, "batch": cubicgan.PAPER.batch}
    record.fill(path, ("steps",), jobs, whole_until, about=about | record.stamp())


def whole_until(steps: int) -> Row:
    """Go on to so many iterations; the last one's losses, and the funnel.

    ``seconds`` are those of all iterations, ``cpu_seconds`` those since the look before, or since
    this process began.
    """
    plain, schedule = cubicgan.PAPER, cubicgan.PAPER.train
    changes = {"width": plain.width, "batch": plain.batch, "steps": steps}
    changes |= {"log_every": 1, "save_every": 10}
    changes |= {name: getattr(schedule, name) for name in PAPER_RATES}
    how = {"folder": record.BUILD / "cubicgan-whole", "resume": True, "progress": False}
    spent = time.process_time()
    model, history = CubicGan.train("paper", profile="full", changes=changes, **how)
    found = {"seconds": round(history.seconds), "cpu_seconds": round(time.process_time() - spent)}
    found |= {"losses": record.rounded(history.rows[-1])}
    return found | {"n": N_RELAPSE, "funnel": rows(funnel(model, N_RELAPSE, name="paper"))}


def room(model: CubicGan) -> list[float]:
    """Quartiles of the room of atoms in generated cells, as factors of the training cells' mean."""
    data = CubicGan.read(model.config)
    model.prepare(data)
    with torch.no_grad():
        made = model.generate(model.labels.draw(N_RELAPSE, source="data"))
        factor = (room_and_contacts(made, model.descriptor)[0] - model.usual[0]).exp()
    return [round(float(q), 3) for q in factor.quantile(torch.tensor([0.25, 0.5, 0.75]))]


TASKS = (train, judge, seeds, baselines, hidden, relapses, widths, physics, whole)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
