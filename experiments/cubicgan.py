"""Train the CubicGANs that come with the book, and measure what each published quirk costs.

    python experiments/cubicgan.py train VARIANT        weights and run.json
    python experiments/cubicgan.py judge VARIANT        the funnel, into run.json; card.md
    python experiments/cubicgan.py baselines            the same for baselines
    python experiments/cubicgan.py relapses [SEED ...]  one published quirk at a time

VARIANT is paper, fixed or prototypes. Interrupted training goes on where it stopped. Everything
uses the training split only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.models import baselines, cubicgan

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "data" / "checkpoints"
N_JUDGED, N_ENERGIES, N_RELAPSE, RELAPSE_STEPS = 10_000, 1_000, 2_000, 1_000

TRAINED_ON = {
    "oqmd_icsd": "the 943 in `oqmd_icsd` that pass CubicGAN's filter",
    "cubic_prototypes": "the enumerated compounds of `cubic_prototypes`",
}

# `fixed` with one thing of the published code put back.
RELAPSES: dict[str, dict[str, Any]] = {
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


def folder(variant: str) -> Path:
    """Where a variant's files are."""
    return HERE / f"cubicgan-{variant}"


def training_crystals() -> CrystalBatch:
    """What novelty is measured against: every embedded crystal of the three cubic groups.

    Not only those that pass CubicGAN's filter: a sample that equals any known cubic ternary of the
    training split is not new.
    """
    known = imd.datasets.load("oqmd_icsd", split="train")
    return known.select(nelements=3, space_groups=[225, 216, 221]).crystals


def funnel(model: Any, n: int, *, name: str, labels: str | None = None) -> imd.judge.Report:
    """Judge n samples of a model or a baseline."""
    how = {} if labels is None else {"labels": labels}
    samples = model.sample(n, seed=2022, **how)
    training = training_crystals()
    return imd.judge.judge(samples, protocol="funnel", training=training, name=name)


def rows(report: imd.judge.Report) -> list[dict[str, Any]]:
    """The table of a report as plain numbers, n in every row."""
    table = report.table.reset_index()
    table.insert(1, "n", report.n)
    return json.loads(table.to_json(orient="records", double_precision=6))


def write(path: Path, record: Any) -> None:
    """Write JSON in one go."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
    print(f"wrote {path.name}")


def train(variant: str) -> None:
    """Train one variant at the profile `full`."""
    cubicgan.train(variant, profile="full", folder=folder(variant), resume=True)
    (folder(variant) / "training.safetensors").unlink()  # 4 times the weights, not committed


def judge(variant: str) -> None:
    """Add the funnel of 10,000 samples, with each way of drawing labels, to run.json."""
    path = folder(variant) / "run.json"
    run = json.loads(path.read_text())
    model = imd.models.load("cubicgan", variant=variant)
    run["funnel"] = {
        f"{labels or 'own'} labels": rows(funnel(model, N_JUDGED, name=variant, labels=labels))
        for labels in (None, *cubicgan.LABEL_SOURCES)
    }
    report = funnel(model, N_JUDGED, name=variant)
    run["funnel_definition"] = report.definition
    if variant != "paper":  # of which too few are left to ask
        run["energies"] = rows(to_the_hull(model, variant))
    if run["config"].get("data") == "cubic_prototypes":
        run["funnel_of_training_set"] = rows(funnel(enumeration(), N_JUDGED, name="enumeration"))
        run["energies_of_training_set"] = rows(to_the_hull(enumeration(), "enumeration"))
    write(path, run)
    (folder(variant) / "card.md").write_text(
        card(variant, run, path.with_name("model.safetensors"))
    )


def enumeration() -> baselines.TrainingCopies:
    """The training split of `cubic_prototypes` as a generator without learning."""
    known = imd.datasets.load("cubic_prototypes", split="train")
    groups = known.table["space_group"].to_numpy()
    return baselines.TrainingCopies(baselines.Templates(known.crystals, groups))


def to_the_hull(model: Any, name: str) -> imd.judge.Report:
    """The judge with CHGNet energies, of 1,000 samples."""
    samples = model.sample(N_ENERGIES, seed=2022)
    return imd.judge.judge(
        samples,
        reference=training_crystals(),
        distributions=False,
        name=name,
        progress=True,
    )


def card(variant: str, run: dict[str, Any], weights: Path) -> str:
    """The card of a checkpoint, every number taken from its run.json."""
    config, last = run["config"], run["funnel"]["own labels"][-1]
    hull = [row for row in run.get("energies", []) if row["stage"] == "metastable"]
    train, elements = config["train"], len(cubicgan.CubicGan.load(weights).table)
    share = f"{100 * last['share']:.1f} % ({100 * last['low']:.1f} to {100 * last['high']:.1f})"
    lines = [
        f"# CubicGAN, variant `{variant}`",
        "",
        "Generator and critic of a Wasserstein GAN over cubic ternary crystals.",
        "",
        "- Source: Zhao et al., Adv. Sci. 8 (2021) 2100566, and the code MilesZhao/CubicGAN, "
        "commit 7034d84 (MIT). Re-implemented here, without weights or code of the authors.",
        f"- Trained on: {run['training_crystals']:,} crystals, the training split of "
        f"{TRAINED_ON[config.get('data', 'oqmd_icsd')]}.",
        f"- Size: {config['width']:g} of the published width, batch {config['batch']}, "
        f"{train['steps']} generator steps with {train['critic_steps']} critic steps each, "
        f"learning rate {train['lr_generator']:g}.",
        f"- Training: {run['seconds'] / 60:.0f} minutes, {run['device']}, {run['threads']} "
        f"thread, seed {train['seed']}.",
        f"- Funnel of {last['n']:,} samples: {share} pass all stages, with the 95 % Wilson "
        "interval. The definition of each stage is in `run.json`.",
        *(
            f"- Of {row['n']:,} samples {row['passed']} are new and at most 0.1 eV/atom above the "
            "hull of known phases by CHGNet."
            for row in hull
        ),
        "- Limits: space groups 225, 216 and 221; three orbits at multiples of 1/4; "
        f"{elements} elements.",
        "- Licence: BSD-3-Clause for the weights; the data are CC-BY-4.0.",
        f"- Made by `python experiments/cubicgan.py train {variant}`, then `judge`.",
    ]
    return "\n".join(lines) + "\n"


def baseline_funnels() -> None:
    """The three baselines without learning, through the same funnel."""
    sites = cubicgan.training_sites()
    known = decode_sites(sites).crystals
    record = {}
    for cls in (baselines.TrainingCopies, baselines.Substitution, baselines.RandomCubic):
        record[cls.__name__] = rows(funnel(cls(known), N_JUDGED, name=cls.__name__))
    write(HERE / "cubicgan-baselines.json", record)


def relapses(seeds: list[int]) -> None:
    """Train `fixed` with one published quirk put back, briefly and equally; keeps what it has.

    Several processes may work on different seeds: the file is read again before each write.
    """
    path = HERE / "cubicgan-relapses.json"
    for seed in seeds:
        for name, change in RELAPSES.items():
            if any((row["name"], row["seed"]) == (name, seed) for row in read_rows(path)):
                continue
            row = {"name": name, "seed": seed, **run_relapse(name, seed, change)}
            order = list(RELAPSES)
            table = [*read_rows(path), row]
            write(path, sorted(table, key=lambda r: (order.index(r["name"]), r["seed"])))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What is already there."""
    return json.loads(path.read_text()) if path.exists() else []


def run_relapse(name: str, seed: int, change: dict[str, Any]) -> dict[str, Any]:
    """Train and judge one relapse with one seed."""
    changes = {"steps": RELAPSE_STEPS, "log_every": 100, **change}
    variant = "paper" if name.endswith("paper") else "fixed"
    model, history = cubicgan.train(
        variant, profile="full", seed=seed, changes=changes, progress=False
    )
    # every relapse is asked for the same kind of elements, however it was trained
    report = funnel(model, N_RELAPSE, name=name, labels="data")
    print(seed, name, round(report.table["share"].iloc[-1], 3), flush=True)
    return {"steps": RELAPSE_STEPS, "seconds": round(history.seconds), "funnel": rows(report)}


if __name__ == "__main__":
    task, *rest = sys.argv[1:]
    if task == "relapses":
        relapses([int(seed) for seed in rest] or [0, 1, 2])
    elif task == "baselines":
        baseline_funnels()
    else:
        {"train": train, "judge": judge}[task](rest[0])
