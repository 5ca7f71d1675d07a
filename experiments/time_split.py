"""Hidden crystals that samplers and CubicGAN find, whatever way they were hidden.

    python experiments/time_split.py rungs      every rung on every split, three seeds
    python experiments/time_split.py networks   CubicGAN `fixed`, trained on each split
    python experiments/time_split.py wider      formulas of another list that the same samples hold
    python experiments/time_split.py dates YEAR    the rungs on what was known before a year, and
                                                what came later; needs the data set mpts_52

Rows that are there are kept. The page `5_judging/time_split` says how crystals are hidden.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
import record
from record import BUILD, CHECKPOINTS, Row

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch
from imd_helpers.datasets.store import CrystalSet
from imd_helpers.descriptors.symmetry_sites import Sites, decode_sites, prototype
from imd_helpers.models.cubicgan import CubicGan
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError

PATH = CHECKPOINTS / "time_split" / "results.json"
N, SEEDS = 10_000, (0, 1, 2)
STEPS = 500  # of each training, an eighth of those of the committed weights
NETWORK = "CubicGAN fixed"
TRAINED = ("Heusler", "half-Heusler", "perovskite", "formula", "system")
# splits, rungs and the count of hits, as the page builds them
page = partial(record.chapter, "5_judging/time_split", until="### The estimate")


@cache
def samplers(split: str) -> dict[str, Any]:
    """The rungs of one split."""
    return page().samplers(split)


def all_rungs() -> list[tuple[str, str, int]]:
    """Split, rung and seed."""
    names = list(samplers("formula"))
    return [(split, name, seed) for split in page().HELD for name in names for seed in SEEDS]


@record.rows(PATH, all_rungs)
def rungs(split: str, maker: str, seed: int) -> Row:
    """How often what learns nothing drew each hidden crystal; what cannot be asked finds none."""
    _, hidden = page().divided(split)
    try:
        times = page().times_found(samplers(split)[maker](N, seed), hidden)
    except InputError:
        return {"n": N, "refused": True, "times": [0] * len(hidden)}
    return {"n": N, "refused": False, "times": times.tolist()}


def trained(split: str, seed: int) -> CubicGan:
    """One training, on what a split leaves; goes on where it was interrupted."""
    train, _ = page().divided(split)
    config = CubicGan.recipe("fixed", profile="full").but(steps=STEPS, seed=seed)
    model = CubicGan.from_data(train, config, seed=seed)
    folder = BUILD / "time_split" / f"{split}-{seed}"
    history = fit(model, config.train, folder=folder, resume=True, progress=False)
    if history.ema is not None:
        model.networks[model.averaged].load_state_dict(history.ema.state_dict())
    return model


@record.rows(PATH, [(split, NETWORK, 0) for split in TRAINED])
def networks(split: str, maker: str, seed: int) -> Row:
    """The same count of CubicGAN `fixed`, at an eighth of the published width.

    Also asked for the space group of the hidden prototype.
    """
    _, hidden = page().divided(split)
    group = page().GROUP.get(split)
    asked = None if group is None else {"space_group": int(group)}
    made = trained(split, seed).sample_sites(N, condition=asked, seed=seed)
    names = [prototype(int(g), grid) for g, grid in zip(made.space_group, made.grid, strict=True)]
    placed = sum(name == page().THREE.get(split) for name in names)  # whatever the elements
    times = page().times_found(made, hidden).tolist()
    return {"n": N, "steps": STEPS, "placed": placed, "times": times}


def all_makers() -> list[tuple[str, int]]:
    """Every rung three times, and the network."""
    return [(name, seed) for name in samplers("formula") for seed in SEEDS] + [(NETWORK, 0)]


@record.rows(PATH, all_makers)
def wider(maker: str, seed: int) -> Row:
    """How often formulas near the hull of the Materials Project that the ICSD set lacks came up."""
    if maker == NETWORK:
        made = trained("formula", seed).sample_sites(N, seed=seed)
    else:
        made = samplers("formula")[maker](N, seed)
    wanted = page().wider_list()
    counts = Counter(formulas(made))
    return {"n": N, "of": len(wanted), "times": sorted(counts[f] for f in wanted & set(counts))}


def formulas(made: Sites | CrystalBatch) -> list[str]:
    """Reduced formulas of samples."""
    return (decode_sites(made).crystals if isinstance(made, Sites) else made).formulas()


# ---- data with dates


def dates(year: str = "2004") -> None:
    """Print what each rung finds of the crystals that came in a year or later."""
    print(dated(imd.datasets.load("mpts_52"), int(year)).to_string())


def dated(data: CrystalSet, year: int, *, n: int = N) -> pd.DataFrame:
    """A row a rung: hidden crystals found among n samples, and the share by siblings."""
    here = page()
    before, after = here.by_year(data, year)
    if not len(before) or not len(after):
        raise InputError(
            f"{len(before)} crystals before {year} and {len(after)} with new formulas later: "
            "give another year"
        )
    train, later = here.cubic_sites(before), here.cubic_sites(after)
    hidden = here.unlike(train, later)
    near = here.siblings(train, hidden)
    group = np.digitize(near, (1, 4, 8))
    table = {}
    for name, rung in baselines.ladder(decode_sites(train).crystals).items():
        hits = here.times_found(rung.sample(n, seed=0).crystals, hidden) > 0
        row = {"known": len(train), "hidden": len(hidden), "found": int(hits.sum())}
        for k, siblings in enumerate(("0", "1 to 3", "4 to 7", "8 or more")):
            some = group == k
            row[f"{siblings} siblings"] = f"{hits[some].sum()} of {some.sum()}"
        table[name] = row
    return pd.DataFrame(table).T


TASKS = (rungs, networks, wider, dates)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
