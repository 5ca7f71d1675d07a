"""Provoke and cure each pathology of the chapter `gan_pathologies` on 16 seeds.

    python experiments/gan_pathologies.py [NAME ...]

Without names all experiments of `experiments.json` are run, and those that `run.json` has already
are kept. Seeds 0 to 7 are for looking and choosing, 8 to 15 are held out. Data and networks are
those of the page; nothing is trained on the test split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import record
import torch
from record import Row
from torch import Tensor, nn

from imd_helpers.networks import distances, layers, train_seeds

HERE = record.CHECKPOINTS / "gan_pathologies"
PAGE = record.chapter("3_networks/gan_pathologies", until="## Equation ↔ code")
N_FAMILIES = len(PAGE.FAMILIES)
N_TRAIN, N_TEST = 350, 80  # crystals of a family
WIDTH, LATENT, PROBED, SEEDS = 48, 8, 400, range(16)
SEEN = ("precision", "recall", "families", "on_family", "distance", "obeyed")
SHOWN = ("collapse", "vanishing, least squares", "penalty, batch norm", "penalty")
CURVES = ("precision", "recall", "critic_loss", "generator_loss")


# ---- networks


class TwoHeads(nn.Module):
    """Score and class of a sample; with ``twice`` the classes go through a softmax first."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        body = nn.Sequential(layers.mlp((2, WIDTH, WIDTH)), nn.LeakyReLU(0.2))
        self.heads, self.twice = layers.AuxiliaryHead(body, WIDTH, N_FAMILIES), twice

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 2) to (batch, 1) and (batch, 5)."""
        score, logits = self.heads(x)
        return score, logits.softmax(1) if self.twice else logits


def told_generator() -> nn.Module:
    """A generator that is told the family."""
    body = layers.mlp((LATENT + 4, WIDTH, WIDTH, 2))
    return layers.Concatenated(body, nn.Embedding(N_FAMILIES, 4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "generator": PAGE.generator,
    "generator, eps 0.8": lambda: PAGE.generator(lambda n: nn.BatchNorm1d(n, 0.8)),
    "generator, batch norm": lambda: PAGE.generator(nn.BatchNorm1d),
    "conditional": told_generator,
    "critic": PAGE.critic,
    "deviation": PAGE.watching_critic,
    "batch norm": lambda: PAGE.critic(nn.BatchNorm1d),
    "layer norm": lambda: PAGE.critic(nn.LayerNorm),
    "ten outputs": lambda: PAGE.critic(outputs=10),
    "spectral norm": lambda: layers.spectral_norm(PAGE.critic()),
    "classifier": lambda: TwoHeads(twice=False),
    "softmax twice": lambda: TwoHeads(twice=True),
}

# ---- experiments


def recipes() -> dict[str, Row]:
    """Generator, critic and settings of `train_seeds` for each experiment of `experiments.json`."""
    listed = record.read(HERE / "experiments.json")
    groups = listed["experiments"].values()
    return {name: listed["base"] | own for group in groups for name, own in group.items()}


def short(column: Any) -> list[float]:
    """Numbers with three digits."""
    return [float(f"{value:.3g}") for value in column]


def probe_of(real: Tensor, shift: float) -> Callable[..., dict[str, float]]:
    """What is measured on samples during training."""

    def probe(samples: Tensor, asked: Tensor | None = None) -> dict[str, float]:
        if not torch.isfinite(samples).all():
            return dict.fromkeys(SEEN[:4], 0.0) | {"distance": float("inf")}
        samples = samples - shift
        reached = distances.precision_recall(real, samples)
        family = PAGE.family_of(samples)
        row = {
            "precision": reached.precision,
            "recall": reached.recall,
            "families": float(PAGE.families_held(samples)),
            "on_family": float((family >= 0).float().mean()),
            "distance": distances.sliced_wasserstein(real, samples, directions=32),
        }
        if asked is not None:
            row["obeyed"] = float((family == asked).double().mean())
        return row

    return probe


def run(recipe: Row, *, shown: bool) -> Row:
    """Train one experiment; with samples, if they are shown."""
    settings = recipe | {"betas": tuple(recipe["betas"]), "seeds": SEEDS}
    generator, critic, shift = (settings.pop(key) for key in ("generator", "critic", "shift"))
    families = torch.arange(N_FAMILIES).repeat_interleave(N_TRAIN)
    runs = train_seeds(
        NETWORKS[generator],
        NETWORKS[critic],
        PAGE.real + shift,
        condition=families if "auxiliary" in settings else None,
        log_every=settings["steps"] // 10,
        probe=probe_of(PAGE.test, shift),
        probe_samples=PROBED,
        **settings,
    )
    table = runs.history
    last = table.groupby("seed").last()
    curves = table.groupby("step").mean()
    scores = ("critic_loss", "generator_loss", "critic_slope", "generator_slope")
    found = {
        "generator": generator,
        "critic": critic,
        "settings": {**settings, "seeds": list(SEEDS), "shift": shift},
        "last": {k: short(last[k]) for k in (*SEEN, *scores) if k in last},
        "mean": {"step": curves.index.tolist(), **{k: short(curves[k]) for k in CURVES}},
        "seconds": round(runs.seconds, 1),
    }
    if shown:  # hundredths, of the first seed
        found["samples"] = runs.sample(250, seed=1)[0].sub(shift).mul(100).round().int().tolist()
    limit = settings.get("clip")
    if limit:
        weights = [torch.cat([p.flatten() for p in c.parameters()]) for _, c in runs.players]
        at = [float((w.abs() > 0.99 * limit).double().mean()) for w in weights]
        found["at_the_limit"] = [round(share, 4) for share in at]
    return found


def trainings(*names: str) -> None:
    """Run what is missing, and write `run.json` after each experiment."""
    path, listed = HERE / "run.json", recipes()
    sha256 = hashlib.sha256(PAGE.real.numpy().tobytes()).hexdigest()
    found = record.read(path, {"runs": {}}) | {"data_sha256": sha256, **record.stamp()}
    for name in names or [name for name in listed if name not in found["runs"]]:
        found["runs"][name] = run(listed[name], shown=name in SHOWN)
        record.write(path, found, indent=None)
        print(f"{name}: {found['runs'][name]['seconds']} s", flush=True)


TASKS = (trainings,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
