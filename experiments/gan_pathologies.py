"""Provoke and cure each pathology of the chapter `gan_pathologies` on 16 seeds.

    python experiments/gan_pathologies.py [NAME ...]

Without names all experiments are run, and those that `run.json` has already are kept. Seeds 0 to 7
are for looking and choosing, 8 to 15 are held out. Nothing here is trained on the test split.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.networks import checkpoint, distances, layers, train_seeds
from imd_helpers.runtime import device_name, version

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "data" / "checkpoints" / "gan_pathologies"
FAMILIES = ("F", "O", "N", "S", "Te")
N_TRAIN, N_TEST = 350, 80  # crystals of a family
CHI_UNIT, CHI_BLUR = 0.25, 0.06  # Pauling units
WIDTH, LATENT, PROBED = 48, 8, 400
ON_FAMILY = 0.15  # Pauling units from the family's electronegativity
DUE_SHARE = 0.1  # of a fair share of the samples: fewer, and the family counts as lost
SEEN = ("precision", "recall", "families", "on_family", "distance", "obeyed")
SHOWN = ("collapse", "vanishing, least squares", "penalty, batch norm", "penalty")
CURVES = ("precision", "recall", "critic_loss", "generator_loss")


# ---- data: two numbers a crystal


def crystals_by_anion(split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(5 n, 2) electronegativity of the anion and formation energy, and (5 n,) families."""
    known = imd.datasets.load("oqmd_icsd")
    counts = known.crystals.counts().numpy()
    chi = np.nan_to_num(elements.column("electronegativity"))
    anion = np.where(counts > 0, chi, -1.0).argmax(1)  # (crystals,) most electronegative element
    mine = (known.table["split"] == "train").to_numpy() == (split == "train")
    mine &= (counts > 0).sum(1) >= 2
    rng = np.random.default_rng(0)
    rows = [
        rng.choice(np.flatnonzero(mine & (anion == elements.number(s))), n, replace=False)
        for s in FAMILIES
    ]
    energy = known.table["formation_energy"].to_numpy()
    picked = np.concatenate(rows)
    blurred = chi[anion[picked]] + rng.normal(0.0, CHI_BLUR, len(picked))
    return np.stack([blurred, energy[picked]], axis=1), np.repeat(np.arange(len(FAMILIES)), n)


def scaled(values: np.ndarray) -> Tensor:
    """(n, 2) float32 in units of 0.25 Pauling units from 3, and of 1 eV/atom from -1.3."""
    centre, unit = np.array([3.0, -1.3]), np.array([CHI_UNIT, 1.0])
    return torch.as_tensor((values - centre) / unit, dtype=torch.float32)


def family_of(samples: Tensor) -> Tensor:
    """(n,) index of the family whose electronegativity is near enough, -1 for none."""
    chi = torch.tensor([elements.column("electronegativity")[elements.number(s)] for s in FAMILIES])
    apart = (samples[:, :1].double() * CHI_UNIT + 3.0 - chi).abs()  # (n, 5)
    nearest, index = apart.min(1)
    return torch.where(nearest < ON_FAMILY, index, -1)


# ---- networks


def generator(norm: Callable[[int], nn.Module] | None = None, extra: int = 0) -> nn.Module:
    """A generator of two hidden layers."""
    return layers.mlp((LATENT + extra, WIDTH, WIDTH, 2), norm=norm)


def critic(norm: Callable[[int], nn.Module] | None = None, outputs: int = 1) -> nn.Module:
    """A critic of two hidden layers."""
    return layers.mlp((2, WIDTH, WIDTH, outputs), norm=norm)


def watching_critic() -> nn.Module:
    """A critic that sees how much its batch varies."""
    return nn.Sequential(
        nn.Linear(2, WIDTH), nn.LeakyReLU(0.2), layers.MinibatchDeviation(),
        nn.Linear(WIDTH + 1, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, 1),
    )  # fmt: skip


class TwoHeads(nn.Module):
    """Score and class of a sample; with ``twice`` the classes go through a softmax first."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        body = nn.Sequential(layers.mlp((2, WIDTH, WIDTH)), nn.LeakyReLU(0.2))
        self.heads, self.twice = layers.AuxiliaryHead(body, WIDTH, len(FAMILIES)), twice

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 2) to (batch, 1) and (batch, 5)."""
        score, logits = self.heads(x)
        return score, logits.softmax(1) if self.twice else logits


def conditional_generator() -> nn.Module:
    """A generator that is told the family."""
    return layers.Concatenated(generator(extra=4), nn.Embedding(len(FAMILIES), 4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "generator": generator,
    "generator, eps 0.8": lambda: generator(lambda n: nn.BatchNorm1d(n, 0.8)),
    "generator, batch norm": lambda: generator(nn.BatchNorm1d),
    "conditional": conditional_generator,
    "critic": critic,
    "deviation": watching_critic,
    "batch norm": lambda: critic(nn.BatchNorm1d),
    "layer norm": lambda: critic(nn.LayerNorm),
    "ten outputs": lambda: critic(outputs=10),
    "spectral norm": lambda: layers.spectral_norm(critic()),
    "classifier": lambda: TwoHeads(twice=False),
    "softmax twice": lambda: TwoHeads(twice=True),
}

# ---- experiments: (generator, critic, settings of train_seeds that differ from BASE)

BASE: dict[str, Any] = {
    "steps": 1000, "batch": 64, "latent": LATENT, "critic_steps": 1, "betas": (0.5, 0.9),
    "lr_generator": 1e-3, "lr_critic": 1e-3,
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
        family = family_of(samples)
        share = torch.bincount(family[family >= 0], minlength=len(FAMILIES)) / len(samples)
        row = {
            "precision": reached.precision,
            "recall": reached.recall,
            "families": float((share >= DUE_SHARE / len(FAMILIES)).sum()),
            "on_family": float(share.sum()),
            "distance": distances.sliced_wasserstein(real, samples, directions=32),
        }
        if asked is not None:
            row["obeyed"] = float((family == asked).double().mean())
        return row

    return probe


def run(name: str, data: Tensor, families: Tensor, test: Tensor, **change: Any) -> dict[str, Any]:
    """Train one experiment; ``change`` overrides its settings, e.g. ``steps`` or ``seeds``."""
    make_generator, make_critic, own = EXPERIMENTS[name]
    settings = BASE | own | change
    shift = settings.pop("shift", 0.0)
    settings.setdefault("seeds", range(16))
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
    record = {
        "generator": make_generator,
        "critic": make_critic,
        "settings": {**settings, "seeds": list(settings["seeds"]), "shift": shift},
        "last": {k: short(last[k]) for k in (*SEEN, *scores) if k in last},
        "mean": {"step": curves.index.tolist(), **{k: short(curves[k]) for k in CURVES}},
        "seconds": round(runs.seconds, 1),
    }
    if name in SHOWN:  # hundredths, of the first seed
        record["samples"] = runs.sample(250, seed=1)[0].sub(shift).mul(100).round().int().tolist()
    limit = settings.get("clip")
    if limit:
        weights = [torch.cat([p.flatten() for p in c.parameters()]) for _, c in runs.players]
        at = [float((w.abs() > 0.99 * limit).double().mean()) for w in weights]
        record["at_the_limit"] = [round(share, 4) for share in at]
    return record


def main(names: list[str]) -> None:
    """Run what is missing, and write `run.json` after each experiment."""
    path = HERE / "run.json"
    values, families = crystals_by_anion("train", N_TRAIN)
    data, test = scaled(values), scaled(crystals_by_anion("held-out", N_TEST)[0])
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    record |= {
        "data_sha256": hashlib.sha256(data.numpy().tobytes()).hexdigest(),
        "device": device_name(),
        "code_sha256": checkpoint.source_hash(),
        "versions": {name: version(name) for name in ("imd-helpers", "torch")},
    }
    for name in names or EXPERIMENTS:
        if name in record["runs"] and not names:
            continue
        record["runs"][name] = run(name, data, torch.as_tensor(families), test)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(record, separators=(",", ":")) + "\n")
        partial.replace(path)
        print(f"{name}: {record['runs'][name]['seconds']} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
