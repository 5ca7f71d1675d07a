"""The two comparisons of the chapter `conditional_gan`, trained for longer than a page can wait.

    python experiments/conditional_gan.py

Writes `run.json`: one row a way of conditioning and seed. Data, split and networks are those of the
page. Neither the referee's rows nor the test rows are trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record
import torch
from record import Row
from torch import Tensor, nn

from imd_helpers.networks import SeedRuns, distances, train_seeds
from imd_helpers.networks.layers import AuxiliaryHead, Concatenated, ProjectionHead, mlp
from imd_helpers.runtime import device_name

TOY_STEPS, STEPS = 2000, 2000
SEEDS = range(8)
SMALL, WIDE = 4, 16  # latent numbers for the toy and for the formulas
ASKED = np.arange(-3.0, 0.1, 0.5)  # eV/atom
FAR = np.arange(-6.0, 4.1, 1.0)  # eV/atom
EACH = 150  # formulas for one asked energy
PAGE = record.chapter("3_networks/conditional_gan", until="## Equation ↔ code")
Way = tuple[Callable[[], nn.Module], Callable[[], nn.Module], Row]


# ---- the toy: eight overlapping classes


def judge_toy(runs: SeedRuns) -> list[Row]:
    """Obedience by Bayes' rule, distance to the class, and spread within it, seed by seed."""
    asked = torch.arange(8).repeat_interleave(250)
    real = PAGE.clouds(asked, seed=2)
    rows = []
    for made in runs.sample(len(asked), condition=asked, seed=1):
        mean = torch.stack([made[asked == k].mean(0) for k in range(8)])
        apart = [
            distances.sliced_wasserstein(made[asked == k], real[asked == k], directions=32)
            for k in range(8)
        ]
        spread = (made - mean[asked]).square().mean().sqrt()
        row = {"obeyed": PAGE.obeyed(made, asked), "distance": np.mean(apart), "spread": spread}
        rows.append({name: float(value) for name, value in row.items()})
    return rows


# ---- the formulas


def generator() -> nn.Module:
    """Formulas for an energy."""
    return Concatenated(mlp((WIDE + 1, 64, 64, 12)))


def projection() -> nn.Module:
    """A discriminator that multiplies features of the formula and of the energy."""
    return ProjectionHead(PAGE.features(12), 64, mlp((1, 32, 64)))


def guessing() -> nn.Module:
    """A discriminator that guesses the energy too."""
    return AuxiliaryHead(PAGE.features(12), 64, 1)


FORMULA_WAYS: dict[str, Way] = {
    "concatenation": (generator, lambda: Concatenated(mlp((13, 64, 64, 1))), {}),
    "projection": (generator, projection, {}),
    "auxiliary": (generator, guessing, {"auxiliary": "value"}),
}


def scaled(energy: np.ndarray) -> Tensor:
    """(n, 1) energies as the networks see them."""
    ours = PAGE.energy[PAGE.ours]
    return torch.tensor((energy - ours.mean()) / ours.std(), dtype=torch.float32)[:, None]


def judge_formulas(runs: SeedRuns) -> list[Row]:
    """Asked against obtained, by the referee and by DFT where a formula is known, seed by seed."""
    wanted = np.repeat(np.concatenate([ASKED, FAR]), EACH)
    near = np.arange(len(wanted)) < EACH * len(ASKED)
    hidden = np.concatenate([PAGE.referees, PAGE.test])
    dft = {PAGE.counts[i].tobytes(): PAGE.energy[i] for i in hidden}
    seen = {PAGE.counts[i].tobytes() for i in PAGE.ours}
    real = PAGE.points[PAGE.test[: EACH * len(ASKED)]]
    rows = []
    for made in runs.sample(len(wanted), condition=scaled(wanted), seed=1).numpy():
        counts = PAGE.decode(made)
        found = PAGE.referee.predict(counts)
        keys = [row.tobytes() for row in counts]
        kept = [key for key, inside in zip(keys, near, strict=True) if inside]
        hits = [abs(dft[k] - w) for k, w in zip(kept, wanted, strict=False) if k in dft]
        reached = distances.precision_recall(real, made[near])
        rows.append(
            {
                "slope": float(np.polyfit(wanted[near], found[near], 1)[0]),
                "error": float(np.abs(found - wanted)[near].mean()),
                "dft_hits": len(hits),
                "dft_error": float(np.mean(hits)) if hits else None,
                "ternary": float(((counts > 0).sum(1) == 3)[near].mean()),
                "different": len(set(kept)) / len(kept),
                "copied": float(np.mean([key in seen for key in kept])),
                "precision": reached.precision,
                "recall": reached.recall,
                "obtained": [float(found[near & (wanted == e)].mean()) for e in ASKED],
                "obtained_far": [float(found[~near & (wanted == e)].mean()) for e in FAR],
            }
        )
    return rows


# ---- both


def trained(
    ways: dict[str, Way],
    points: Tensor,
    condition: Tensor,
    judge: Callable[[SeedRuns], list[Row]],
    **options: Any,
) -> dict[str, list[Row]]:
    """Train and judge in every way."""
    out = {}
    for name, (generator, critic, own) in ways.items():
        runs = train_seeds(
            generator, critic, points, condition=condition, loss="non_saturating", seeds=SEEDS,
            betas=(0.5, 0.999), log_every=500, **options, **own,
        )  # fmt: skip
        out[name] = judge(runs)
        print(name, f"{runs.seconds:.0f} s", out[name][0])
    return out


def toy() -> dict[str, list[Row]]:
    """Eight overlapping classes."""
    options = {"steps": TOY_STEPS, "latent": SMALL}
    return trained(PAGE.toy_ways, PAGE.toy, PAGE.classes, judge_toy, **options)


def formulas() -> dict[str, list[Row]]:
    """Formulas asked for an energy; at last with the energies dealt to the wrong formulas."""
    points = torch.tensor(PAGE.points[PAGE.ours], dtype=torch.float32)
    condition = scaled(PAGE.energy[PAGE.ours])
    mixed = condition[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    options = {"steps": STEPS, "latent": WIDE, "penalty": "r1", "penalty_weight": 0.1}
    found = trained(FORMULA_WAYS, points, condition, judge_formulas, **options)
    shuffled = {"shuffled": FORMULA_WAYS["projection"]}
    return found | trained(shuffled, points, mixed, judge_formulas, **options)


def both() -> None:
    """Train, judge, and write `run.json`."""
    began, cpu = time.perf_counter(), time.process_time()
    found = {
        "seeds": list(SEEDS),
        "toy_steps": TOY_STEPS,
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
