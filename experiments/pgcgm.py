"""Train PGCGM, and measure what the chapter compares it with.

    python experiments/pgcgm.py train VARIANT    weights and run.json
    python experiments/pgcgm.py models           verdicts on trainings, three seeds of free
    python experiments/pgcgm.py ablation         each loss of free, briefly, three seeds
    python experiments/pgcgm.py longer           both losses and that on the cell, at full length
    python experiments/pgcgm.py rungs            the same verdicts without learning
    python experiments/pgcgm.py cubic            the three cubic groups, beside CubicGAN
    python experiments/pgcgm.py parts            sites or cells of free from elsewhere
    python experiments/pgcgm.py room             CubicGAN and drawn positions in equal room
    python experiments/pgcgm.py fixed [STEPS]    on positions drawn by lot, three seeds

Everything but the weights goes into results.json. Interrupted work goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial

import numpy as np
import record
import torch
from record import CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.baselines.cells import atomic_volumes
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.models import pgcgm_crystals
from imd_helpers.models.pgcgm import Pgcgm
from imd_helpers.models.pgcgm_sites import ONE, TWO, BaseSites, contacts, group_index, radius_of

PATH = CHECKPOINTS / "pgcgm" / "results.json"
N_JUDGED, SEEDS = 1_000, (0, 1, 2)
STEPS = 300  # of the ablation
BEST_OF = {"no network, best of 10": 10, "no network, best of 100": 100}  # draws of coordinates
TRAINED = (("free", 0), ("paper", 0), ("free", 1), ("free", 2))
ARMS: dict[str, tuple[str, Row]] = {  # name: variant, and what is changed
    "penalty only": ("free", {"inter": False, "intra": False}),
    "inter": ("free", {"intra": False}),
    "intra": ("free", {"inter": False}),
    "both": ("free", {}),
    "both, cell": ("free", {"cell": 2.0}),
    "both, cell, no gap": ("free", {"cell": 2.0, "merged": 0.75}),
    "paper": ("paper", {}),
}
CUBIC = (225, 216, 221)
SOURCES = ("PGCGM free", "PGCGM paper", "CubicGAN fixed", "CubicGAN paper", "ion exchange")
# functions of the chapter, and its crystals
page = partial(record.chapter, "4_models/pgcgm", until="## Equation ↔ code")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(Pgcgm, variant)


# ---- trained models


@record.rows(PATH, TRAINED)
def models(variant: str, seed: int) -> Row:
    """The committed weights and two more trainings of `free`: verdicts on their samples.

    Also on their cells with other places, and on their numbers decoded otherwise.
    """
    if seed:
        model, _ = record.train(Pgcgm, variant, seed=seed, progress=False)
    else:
        model = imd.models.load("pgcgm", variant=variant)
    raw = model.raw(0, N_JUDGED, seed=seed)
    other = page().elsewhere(raw, seed)
    found = {"as made": page().verdict(model.decode(raw))}
    for way in page().WAYS:
        found[way] = page().verdict(page().decoded_as(raw, way))
        found[f"{way}, sites anywhere"] = page().verdict(page().decoded_as(other, way))
    return rounded({"samples": found, "places": places(model.decode(raw), seed)})


def places(samples: Samples, seed: int) -> Row:
    """How many valid crystals stay valid with each atom anywhere in the same cell."""
    good = samples.valid()
    good = good[np.flatnonzero(imd.judge.geometry_valid(good))]
    left = imd.judge.geometry_valid(page().anywhere(good, seed)).sum() if len(good) else 0
    return {"valid": len(good), "atoms anywhere": int(left)}


# ---- losses


@record.rows(PATH, [(arm, seed) for arm in ARMS for seed in SEEDS], about={"steps": STEPS})
def ablation(arm: str, seed: int) -> Row:
    """What each loss of `free` is worth; briefly, equally, three seeds."""
    samples = trained(ARMS[arm], seed, steps=STEPS).sample(N_JUDGED, seed=seed)
    return rounded(page().verdict(samples))


@record.rows(PATH, [("both, cell", seed) for seed in SEEDS])
def longer(arm: str, seed: int) -> Row:
    """The arm with the right room, as long as `free`, and in the cubic groups; three seeds."""
    return everywhere(trained(ARMS[arm], seed), seed)


def everywhere(model: Pgcgm, seed: int) -> Row:
    """Verdicts on samples of all groups, and of the cubic ones."""
    cubes = page().verdict(of_groups(model, known_cubes(), seed))
    return rounded(page().verdict(model.sample(N_JUDGED, seed=seed)) | {"cubic": cubes})


def trained(arm: tuple[str, Row], seed: int, **steps: int) -> Pgcgm:
    """A model of a variant with the changes of an arm; no weights are kept."""
    variant, changes = arm
    how = {"profile": "full", "seed": seed, "progress": False}
    return Pgcgm.train(variant, changes={**changes, **steps}, **how)[0]


# ---- without learning


@record.rows(PATH, lambda: [(rung, seed) for seed in SEEDS for rung in page().RUNGS])
def rungs(rung: str, seed: int) -> Row:
    """The same verdicts for samplers that learn nothing."""
    samples = page().RUNGS[rung](N_JUDGED, seed)
    return rounded(page().verdict(samples) | {"places": places(samples, seed)})


@record.rows(PATH, [(source, seed) for seed in SEEDS for source in SOURCES])
def cubic(source: str, seed: int) -> Row:
    """The three groups that CubicGAN knows as well, on the same judge."""
    known = known_cubes()
    name, _, variant = source.partition(" ")
    if source == "ion exchange":
        templates = baselines.Templates(page().crystals_of(known), known.space_group)
        samples = baselines.IonExchange(templates).sample(N_JUDGED, seed=seed)
    elif name == "CubicGAN":
        model = imd.models.load("cubicgan", variant=variant)
        samples = model.sample(N_JUDGED, seed=seed)
    else:
        model = imd.models.load("pgcgm", variant=variant)
        samples = of_groups(model, known, seed)
    return rounded(page().verdict(samples))


def known_cubes() -> BaseSites:
    """Training crystals of the cubic groups."""
    return page().train[np.isin(page().train.space_group, CUBIC)]


def of_groups(model: Pgcgm, known: BaseSites, seed: int) -> Samples:
    """Samples of each cubic group, as many as its share of the training crystals."""
    return model.decode(raw_of_groups(model, known, seed))


def raw_of_groups(model: Pgcgm, known: BaseSites, seed: int) -> BaseSites:
    """What they are decoded from."""
    drawn = np.random.default_rng(seed).choice(known.space_group, size=N_JUDGED)
    made = [
        model.raw(0, int(n), condition={"space_group": int(group)}, seed=seed)
        for group, n in zip(*np.unique(drawn, return_counts=True), strict=True)
    ]
    return BaseSites(*(np.concatenate([getattr(m, f.name) for m in made]) for f in fields(made[0])))


# ---- what a sample owes to its sites and to its cell


def all_parts() -> list[tuple[str, int]]:
    """Names and seeds; what is drawn by lot is drawn three times."""
    *names, lot = exchanged(known_cubes()[:4], 0)
    lots = [(name, seed) for name in (lot, *BEST_OF) for seed in SEEDS]
    return [(name, 0) for name in names] + lots


@record.rows(PATH, all_parts)
def parts(part: str, seed: int) -> Row:
    """Samples of `free` with sites or cells from elsewhere; all groups, and the cubic ones."""
    model = imd.models.load("pgcgm", variant="free")
    every = model.raw(0, N_JUDGED, seed=seed)
    found = {}
    for key, raw in (("all", every), ("cubic", raw_of_groups(model, known_cubes(), seed))):
        sites = changed(part, raw, seed)
        whole = pgcgm_crystals.expanded(sites, decimals=None, projects=True)
        atoms = float(np.median(whole.n_sites.numpy()))
        found[key] = page().verdict(model.decode(sites)) | {"atoms": atoms}
    return rounded(found)


def changed(name: str, raw: BaseSites, seed: int) -> BaseSites:
    """One of `exchanged`, or the best of several draws."""
    found = exchanged(raw, seed)
    if name in BEST_OF:
        return best_of(BEST_OF[name], found["no network"], seed)
    return found[name]


def exchanged(raw: BaseSites, seed: int) -> dict[str, BaseSites]:
    """The same groups and elements, which are drawn by lot; sites and cells from elsewhere.

    The last one holds nothing that a network made: positions are those of a training crystal of
    the group, what they leave free is random, and the cell, of that crystal's shape, is scaled.
    """
    rng, train = np.random.default_rng(seed), page().train
    rows = [rng.choice(np.flatnonzero(train.space_group == g)) for g in raw.space_group]
    real = train[np.array(rows)]
    point = by_lot(real, rng)
    copied = replace(raw, frac=real.frac)
    return {
        "as made": raw,
        "usual volume": scaled(raw),
        "snapped to quarters, usual volume": scaled(replace(raw, frac=np.rint(4 * raw.frac) / 4)),
        "sites of real crystals": copied,
        "sites of real crystals, usual volume": scaled(copied),
        "no network": scaled(replace(raw, frac=point, lengths=real.lengths)),
    }


def by_lot(sites: BaseSites, rng: np.random.Generator) -> np.ndarray:
    """(n, 3, 3) other points of the same positions: what these leave free is random."""
    place = pgcgm_crystals.positions(sites).numpy()
    return (place[..., :3] @ rng.random((len(sites), 3, 3, 1)))[..., 0] + place[..., 3]


def best_of(tries: int, sites: BaseSites, seed: int) -> BaseSites:
    """Of several draws of the free coordinates that whose atoms are farthest apart."""
    rng = np.random.default_rng(seed)
    group, lattice = group_index(sites.space_group), torch.as_tensor(sites.lattice())
    radius = radius_of(sites.numbers)
    frac = np.stack([by_lot(sites, rng) for _ in range(tries)])
    near = [contacts(torch.as_tensor(f), torch.as_tensor(group), lattice).numpy() for f in frac]
    best = (np.stack(near) / (radius[:, ONE] + radius[:, TWO])).min(2).argmax(0)
    return replace(sites, frac=frac[best, np.arange(len(sites))])


def scaled(sites: BaseSites) -> BaseSites:
    """Cells of the volume that their atoms take in the training crystals."""
    whole = pgcgm_crystals.expanded(sites, decimals=None, projects=True)
    return replace(sites, lengths=sites.lengths * fullness(whole)[:, None] ** (-1 / 3))


@record.rows(PATH, [(seed,) for seed in SEEDS])
def room(seed: int) -> Row:
    """CubicGAN in cells of the usual volume, and drawn positions in cells as tight as its own.

    With the median of the volume over the usual one.
    """
    samples = imd.models.load("cubicgan", variant="fixed").sample(N_JUDGED, seed=seed)
    crystals, verdict = samples.crystals, page().verdict
    filled = np.where(samples.ok, fullness(crystals), 1.0)
    lattice = crystals.lattice * torch.as_tensor(filled ** (-1 / 3))[:, None, None]
    usual = replace(samples, content=CrystalBatch(lattice, crystals.frac, crystals.numbers))
    model = imd.models.load("pgcgm", variant="free")
    lot = exchanged(raw_of_groups(model, known_cubes(), seed), seed)["no network"]
    as_tight = np.random.default_rng(seed).choice(filled[samples.ok], size=len(lot)) ** (1 / 3)
    tight = model.decode(replace(lot, lengths=lot.lengths * as_tight[:, None]))
    return rounded({
        "fullness": float(np.median(filled[samples.ok])),
        "CubicGAN, as made": verdict(samples),
        "CubicGAN, usual volume": verdict(usual),
        "no network, as tight as CubicGAN": verdict(tight),
        "no network, usual volume": verdict(model.decode(lot)),
    })  # fmt: skip


def fullness(crystals: CrystalBatch) -> np.ndarray:
    """(n,) volume over that which the atoms take in the training crystals."""
    usual = crystals.counts().numpy() @ atomic_volumes(page().training)[0]
    return crystals.lattice.det().abs().numpy() / np.maximum(usual, 1e-9)


@record.rows(PATH, lambda steps=STEPS: [(int(steps), seed) for seed in SEEDS])
def fixed(steps: int, seed: int) -> Row:
    """Trainings on positions drawn by lot, of as many steps as those of `ablation` or as given."""
    return everywhere(trained(("fixed", {}), seed, steps=steps), seed)


TASKS = (train, models, ablation, longer, rungs, cubic, parts, room, fixed)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
