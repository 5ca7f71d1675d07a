"""Provoke and cure each pathology of the chapter `gan_pathologies` on 16 seeds.

    python experiments/gan_pathologies.py [NAME ...]

Without names all experiments are run, and those that `run.json` has already are kept. Seeds 0 to 7
are for looking and choosing, 8 to 15 are held out. Data and networks are those of the page; nothing
is trained on the test split.
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

PAGE = record.chapter("3_networks/gan_pathologies", until="## Equation ↔ code")
N_FAMILIES = len(PAGE.FAMILIES)
N_TRAIN, N_TEST = 350, 80  # crystals of a family
WIDTH, LATENT, PROBED = 48, 8, 400
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

# ---- experiments: (generator, critic, settings of train_seeds that differ from BASE)

BASE: dict[str, Any] = {
    "steps": 1000, "batch": 64, "latent": LATENT, "critic_steps": 1, "betas": (0.5, 0.9),
    "lr_generator": 1e-3, "lr_critic": 1e-3, "seeds": range(16),
}  # fmt: skip
HASTY = {"loss": "non_saturating", "betas": (0.9, 0.999), "lr_generator": 1e-2}
CALM = HASTY | {"betas": (0.0, 0.999)}
MODERN = {"loss": "relativistic", "penalty": "r1r2", "penalty_weight": 0.1}
FAR = {"shift": 12.0, "critic_steps": 5, "lr_critic": 2e-3}
EARTH = {"betas": (0.0, 0.9), "lr_generator": 5e-4, "lr_critic": 2e-3, "critic_steps": 3}
PENALTY = EARTH | {"penalty": "gradient", "penalty_weight": 1.0}
CLIP = {"critic_steps": 3, "optimizer": "rmsprop", "lr_generator": 5e-4, "lr_critic": 5e-4}
PAIRED = {"loss": "relativistic", "betas": (0.0, 0.9), "critic_steps": 3,
          "lr_generator": 5e-4, "lr_critic": 2e-3}  # fmt: skip
CLASSES = {"loss": "non_saturating", "auxiliary": "class", "auxiliary_weight": 1.0,
           "critic_steps": 2}  # fmt: skip

Recipe = tuple[str, str, dict[str, Any]]
EXPERIMENTS: dict[str, Recipe] = {
    # a generator that runs ahead of its discriminator, and what may stop it
    "collapse": ("generator", "critic", HASTY),
    "collapse, no momentum": ("generator", "critic", CALM),
    "collapse, slow generator": ("generator", "critic", HASTY | {"lr_generator": 1e-3}),
    "collapse, no momentum, slow generator": (
        "generator", "critic", CALM | {"lr_generator": 1e-3},
    ),
    "collapse, five critic steps": ("generator", "critic", HASTY | {"critic_steps": 5}),
    "collapse, minibatch deviation": ("generator", "deviation", HASTY),
    "collapse, spectral norm": ("generator", "spectral norm", HASTY),
    "collapse, R1": ("generator", "critic", HASTY | {"penalty": "r1", "penalty_weight": 0.1}),
    "collapse, gradient penalty": (
        "generator", "critic",
        HASTY | {"loss": "wasserstein", "penalty": "gradient", "penalty_weight": 1.0},
    ),
    "collapse, pairs, R1 + R2": ("generator", "critic", HASTY | MODERN),
    "collapse, no momentum, pairs, R1 + R2": ("generator", "critic", CALM | MODERN),
    # data far from where the generator begins
    "vanishing": ("generator", "critic", FAR | {"loss": "minimax"}),
    "vanishing, non-saturating": ("generator", "critic", FAR | {"loss": "non_saturating"}),
    "vanishing, least squares": ("generator", "critic", FAR | {"loss": "least_squares"}),
    "vanishing, gradient penalty": ("generator", "critic", PENALTY | {"shift": 12.0}),
    "vanishing, R1": (
        "generator", "critic", FAR | {"loss": "minimax", "penalty": "r1", "penalty_weight": 0.1},
    ),
    "vanishing, centred data": ("generator", "critic", FAR | {"loss": "minimax", "shift": 0.0}),
    # what holds the critic's slope
    "no constraint": ("generator", "critic", EARTH),
    "clip 0.01": ("generator", "critic", CLIP | {"clip": 0.01}),
    "clip 0.1": ("generator", "critic", CLIP | {"clip": 0.1}),
    "clip 1": ("generator", "critic", CLIP | {"clip": 1.0}),
    "penalty": ("generator", "critic", PENALTY),
    "spectral norm": ("generator", "spectral norm", EARTH),
    "pairs": ("generator", "critic", PAIRED),
    "pairs, R1": ("generator", "critic", PAIRED | {"penalty": "r1", "penalty_weight": 0.02}),
    "pairs, R1 + R2": ("generator", "critic", PAIRED | {"penalty": "r1r2", "penalty_weight": 0.02}),
    # errors in the penalty
    "penalty, batch norm": ("generator", "batch norm", PENALTY),
    "penalty, layer norm": ("generator", "layer norm", PENALTY),
    "penalty, sum of ten": ("generator", "ten outputs", PENALTY | {"outputs": "sum"}),
    "penalty, mean of ten": ("generator", "ten outputs", PENALTY | {"outputs": "mean"}),
    "penalty, normal mixing": ("generator", "critic", PENALTY | {"mixing": "normal"}),
    # errors in the generator
    "generator, eps 0.8": ("generator, eps 0.8", "critic", PENALTY),
    "generator, batch norm": ("generator, batch norm", "critic", PENALTY),
    # errors in the classifier beside the critic
    "softmax twice": ("conditional", "softmax twice", CLASSES),
    "softmax once": ("conditional", "classifier", CLASSES),
}  # fmt: skip


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


def run(name: str, data: Tensor, families: Tensor, test: Tensor) -> Row:
    """Train one experiment."""
    make_generator, make_critic, own = EXPERIMENTS[name]
    settings = BASE | own
    shift = settings.pop("shift", 0.0)
    conditional = families if settings.get("auxiliary") else None
    runs = train_seeds(
        NETWORKS[make_generator], NETWORKS[make_critic], data + shift, condition=conditional,
        log_every=settings["steps"] // 10, probe=probe_of(test, shift), probe_samples=PROBED,
        **settings,
    )  # fmt: skip
    table = runs.history
    last = table.groupby("seed").last()
    curves = table.groupby("step").mean()
    scores = ("critic_loss", "generator_loss", "critic_slope", "generator_slope")
    found = {
        "generator": make_generator,
        "critic": make_critic,
        "settings": {**settings, "seeds": list(settings["seeds"]), "shift": shift},
        "last": {k: short(last[k]) for k in (*SEEN, *scores) if k in last},
        "mean": {"step": curves.index.tolist(), **{k: short(curves[k]) for k in CURVES}},
        "seconds": round(runs.seconds, 1),
    }
    if name in SHOWN:  # hundredths, of the first seed
        found["samples"] = runs.sample(250, seed=1)[0].sub(shift).mul(100).round().int().tolist()
    limit = settings.get("clip")
    if limit:
        weights = [torch.cat([p.flatten() for p in c.parameters()]) for _, c in runs.players]
        at = [float((w.abs() > 0.99 * limit).double().mean()) for w in weights]
        found["at_the_limit"] = [round(share, 4) for share in at]
    return found


def trainings(*names: str) -> None:
    """Run what is missing, and write `run.json` after each experiment."""
    path = record.CHECKPOINTS / "gan_pathologies" / "run.json"
    families = torch.arange(N_FAMILIES).repeat_interleave(N_TRAIN)
    sha256 = hashlib.sha256(PAGE.real.numpy().tobytes()).hexdigest()
    found = record.read(path, {"runs": {}}) | {"data_sha256": sha256, **record.stamp()}
    for name in names or [name for name in EXPERIMENTS if name not in found["runs"]]:
        found["runs"][name] = run(name, PAGE.real, families, PAGE.test)
        record.write(path, found, indent=None)
        print(f"{name}: {found['runs'][name]['seconds']} s", flush=True)


TASKS = (trainings,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
