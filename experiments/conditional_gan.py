"""The two comparisons of the chapter `conditional_gan`, trained for longer than a page can wait.

    python experiments/conditional_gan.py

Writes `run.json`: one row a way of conditioning and seed. Data, split, networks and judges are
those of the page. Neither the referee's rows nor the test rows are trained on.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import record
from record import Row
from torch import Tensor

from imd_helpers.networks import SeedRuns, distances, train_seeds
from imd_helpers.networks.layers import Concatenated, mlp
from imd_helpers.runtime import device_name

STEPS, SEEDS = 2000, range(8)
FAR = np.arange(-6.0, 4.1, 1.0)  # eV/atom
PAGE = record.chapter(
    "3_networks/conditional_gan", until="To compare, four ways that train no GAN."
)
ASKED, EACH = PAGE.ASKED, PAGE.EACH  # eV/atom, and formulas for one of them


def judge_formulas(runs: SeedRuns) -> list[Row]:
    """Asked against obtained, by the referee and by DFT where a formula is known, seed by seed."""
    wanted = np.repeat(np.concatenate([ASKED, FAR]), EACH)
    near = np.arange(len(wanted)) < EACH * len(ASKED)
    real = PAGE.points[PAGE.test[: EACH * len(ASKED)]]
    rows = []
    for made in runs.sample(len(wanted), condition=PAGE.scaled(wanted), seed=1).numpy():
        counts = PAGE.decode(made)
        found = PAGE.referee.predict(counts)
        keys = [row.tobytes() for row in counts[near]]
        dft = PAGE.hidden
        hits = [abs(dft[k] - w) for k, w in zip(keys, wanted[near], strict=True) if k in dft]
        reached = distances.precision_recall(real, made[near])
        rows.append(
            {
                "slope": float(np.polyfit(wanted[near], found[near], 1)[0]),
                "error": float(np.abs(found - wanted)[near].mean()),
                "dft_hits": len(hits),
                "dft_error": float(np.mean(hits)) if hits else None,
                "ternary": float(((counts > 0).sum(1) == 3)[near].mean()),
                "different": len(set(keys)) / len(keys),
                "copied": float(np.mean([key in PAGE.seen for key in keys])),
                "precision": reached.precision,
                "recall": reached.recall,
                "obtained": [float(found[near & (wanted == e)].mean()) for e in ASKED],
                "obtained_far": [float(found[~near & (wanted == e)].mean()) for e in FAR],
            }
        )
    return rows


def trained(name: str, way: tuple, points: Tensor, condition: Tensor, **options: Any) -> SeedRuns:
    """Train in one way: a generator, a discriminator, and what the way adds to the settings."""
    generator, discriminator, own = way
    runs = train_seeds(
        generator, discriminator, points, condition=condition, seeds=SEEDS, steps=STEPS,
        log_every=500, **PAGE.common, **options, **own,
    )  # fmt: skip
    print(name, f"{runs.seconds:.0f} s")
    return runs


def toy() -> dict[str, list[Row]]:
    """Eight overlapping classes."""
    out = {}
    for name, way in PAGE.toy_ways.items():
        runs = trained(name, way, PAGE.toy, PAGE.classes, latent=4)
        out[name] = PAGE.judge_toy(runs).astype(float).to_dict("records")
    return out


def formulas() -> dict[str, list[Row]]:
    """Formulas asked for an energy; at last with the energies dealt to the wrong formulas."""
    out = {}
    for name, way in (PAGE.ways | {"shuffled": PAGE.ways["projection"]}).items():
        condition = PAGE.E[PAGE.shuffle] if name == "shuffled" else PAGE.E
        whole = (lambda: Concatenated(mlp((17, 64, 64, 12))), *way)
        options = {"latent": 16, "penalty": "r1", "penalty_weight": 0.1}
        out[name] = judge_formulas(trained(name, whole, PAGE.X, condition, **options))
    return out


def both() -> None:
    """Train, judge, and write `run.json`."""
    began, cpu = time.perf_counter(), time.process_time()
    found = {
        "seeds": list(SEEDS),
        "toy_steps": STEPS,
        "steps": STEPS,
        "asked": ASKED.tolist(),
        "far": FAR.tolist(),
        "each": EACH,
        "toy": toy(),
        "formulas": formulas(),
        "device": device_name(),
    }
    found["wall_seconds"] = round(time.perf_counter() - began)
    found["cpu_seconds"] = round(time.process_time() - cpu)
    record.write(record.CHECKPOINTS / "conditional_gan" / "run.json", found)


TASKS = (both,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
