"""Eight seeds of a small GAN trained together against one after the other, in one run, on one core.

    python benchmarks/seeds.py [--steps 100] [--save]

Both roads are `networks.train_seeds`: stacked by torch.func, or a plain loop over plain modules
with torch's optimizer. They draw the same random numbers. That they end with the same weights is
asserted in double precision, where rounding cannot grow.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for both roads

import argparse
from typing import Any

import torch
from common import best_of, environment, save

from imd_helpers.networks import SeedRuns, layers, train_seeds

SEEDS = range(8)
LATENT = 8
# a chapter's toy models: name, width, batch, settings, least ratio (None: shown only)
WGAN = {"loss": "wasserstein", "penalty": "gradient", "critic_steps": 5}
PLAIN = {"loss": "non_saturating"}
R1R2 = {"loss": "relativistic", "penalty": "r1r2", "penalty_weight": 0.1}
GAMES: list[tuple[str, int, int, dict[str, Any], float | None]] = [
    ("non-saturating, width 32, batch 64", 32, 64, PLAIN, 2.0),
    ("non-saturating, width 64, batch 64", 64, 64, PLAIN, 2.0),
    ("relativistic with R1 and R2, width 32, batch 64", 32, 64, R1R2, 2.0),
    ("relativistic with R1 and R2, width 64, batch 64", 64, 64, R1R2, 2.0),
    ("Wasserstein with penalty, 5 critic steps, width 32, batch 64", 32, 64, WGAN, 2.0),
    ("Wasserstein with penalty, 5 critic steps, width 64, batch 64", 64, 64, WGAN, 2.0),
    ("Wasserstein with penalty, 5 critic steps, width 128, batch 128", 128, 128, WGAN, None),
]


def train(data: torch.Tensor, width: int, *, together: bool, **settings: Any) -> SeedRuns:
    return train_seeds(
        lambda: layers.mlp((LATENT, width, width, data.shape[1])),
        lambda: layers.mlp((data.shape[1], width, width, 1)),
        data, latent=LATENT, seeds=SEEDS, together=together, **settings,
    )  # fmt: skip


def apart(data: torch.Tensor, width: int, **settings: Any) -> float:
    """Largest difference of samples and critics' scores after a short run in double precision."""
    runs = [train(data.double(), width, together=t, **settings) for t in (True, False)]
    samples = [run.sample(200) for run in runs]
    scores = [run.scores(data.double()[:200]) for run in runs]
    return max(float((a - b).abs().max()) for a, b in (samples, scores))


def measure(data: torch.Tensor, width: int, steps: int, **settings: Any) -> dict[str, float]:
    """Milliseconds of one iteration of all seeds on both roads, and how far apart they end."""
    settings = {"steps": steps, "log_every": steps, **settings}
    seconds = {}
    for name, together in (("together", True), ("alone", False)):
        train(data, width, together=together, **{**settings, "steps": 5})  # warm up
        seconds[name], _ = best_of(3, lambda: train(data, width, together=together, **settings))  # noqa: B023
    return {
        "ms_together": 1e3 * seconds["together"] / steps,
        "ms_alone": 1e3 * seconds["alone"] / steps,
        "ratio": seconds["alone"] / seconds["together"],
        "apart": apart(data, width, **{**settings, "steps": 20}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save", action="store_true", help="write results/seeds.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0))
    games = {}
    for name, width, batch, settings, required in GAMES:
        steps = max(10, options.steps // settings.get("critic_steps", 1))
        row = measure(data, width, steps, batch=batch, **settings)
        games[name] = {**row, "required": required}
        print(f"{name:<64} {row['ms_alone']:7.2f} ms alone {row['ms_together']:7.2f} ms together "
              f"{row['ratio']:5.2f} x, apart {row['apart']:.0e}")  # fmt: skip
        assert row["apart"] < 1e-5, "the two roads end with different weights"
    slow = [name for name, row in games.items() if row["required"] and row["ratio"] < 2.0]
    assert not slow, f"below the required ratio: {slow}"
    if options.save:
        result = {"seeds": len(SEEDS), "games": games}
        print("wrote", save("seeds", {**result, **environment("torch")}))


if __name__ == "__main__":
    main()
