"""The two comparisons of the chapter `conditional_gan`, trained for longer than a page can wait.

    python experiments/conditional_gan.py

Writes `run.json`: one row a way of conditioning and seed. The networks, the split and the measures
are those of the chapter. Neither the referee's rows nor the test rows are trained on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.networks import SeedRuns, distances, train_seeds
from imd_helpers.networks.layers import AuxiliaryHead, Concatenated, ProjectionHead, mlp
from imd_helpers.predictors import FormulaPredictor
from imd_helpers.runtime import device_name

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "data" / "checkpoints" / "conditional_gan"
TOY_STEPS, STEPS = 2000, 2000
SEEDS = range(8)
SMALL, WIDE = 4, 16  # latent numbers for the toy and for the formulas
ASKED = np.arange(-3.0, 0.1, 0.5)  # eV/atom
FAR = np.arange(-6.0, 4.1, 1.0)  # eV/atom
EACH = 150  # formulas for one asked energy
COMMON = 24  # stoichiometries


# ---- the toy: eight overlapping classes


ANGLE = torch.arange(8) * torch.pi / 4
CENTRES = 2 * torch.stack([ANGLE.cos(), ANGLE.sin()], dim=1)  # (8, 2)
BLUR = 0.6


def clouds(classes: Tensor, seed: int = 0) -> Tensor:
    """(n, 2) points of the given classes."""
    rng = torch.Generator().manual_seed(seed)
    return CENTRES[classes] + BLUR * torch.randn(len(classes), 2, generator=rng)


class OneHot(nn.Module):
    """Classes as eight numbers."""

    def forward(self, classes: Tensor) -> Tensor:
        return nn.functional.one_hot(classes, 8).float()


def features(width_in: int, width: int = 64) -> nn.Module:
    """Two hidden layers and their activations: what a head reads."""
    return nn.Sequential(*mlp((width_in, width, width, width)), nn.LeakyReLU(0.2))


def toy_ways() -> dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], dict]]:
    """Generator, discriminator and options of each way to tell the networks the class."""
    one_hot = lambda: Concatenated(mlp((SMALL + 8, 64, 64, 2)), OneHot())  # noqa: E731
    embedded = lambda: Concatenated(mlp((SMALL + 4, 64, 64, 2)), nn.Embedding(8, 4))  # noqa: E731
    helped = lambda: AuxiliaryHead(features(2), 64, 8)  # noqa: E731
    return {
        "concatenation": (one_hot, lambda: Concatenated(mlp((10, 64, 64, 1)), OneHot()), {}),
        "embedding": (
            embedded,
            lambda: Concatenated(mlp((6, 64, 64, 1)), nn.Embedding(8, 4)),
            {},
        ),
        "projection": (
            embedded,
            lambda: ProjectionHead(features(2), 64, nn.Embedding(8, 64)),
            {},
        ),
        "auxiliary": (embedded, helped, {"auxiliary": "class"}),
        "not told": (embedded, helped, {"auxiliary": "class", "auxiliary_weight": 0.0}),
    }


def judge_toy(runs: SeedRuns) -> list[dict[str, float]]:
    """Obedience by Bayes' rule, distance to the class, and spread within it, seed by seed."""
    asked = torch.arange(8).repeat_interleave(250)
    real = clouds(asked, seed=2)
    rows = []
    for made in runs.sample(len(asked), condition=asked, seed=1):
        mean = torch.stack([made[asked == k].mean(0) for k in range(8)])
        apart = [
            distances.sliced_wasserstein(made[asked == k], real[asked == k], directions=32)
            for k in range(8)
        ]
        rows.append(
            {
                "obeyed": float((torch.cdist(made, CENTRES).argmin(1) == asked).float().mean()),
                "distance": float(np.mean(apart)),
                "spread": float((made - mean[asked]).square().mean().sqrt()),
            }
        )
    return rows


# ---- the formulas


class Formulas:
    """Ternary formulas of 24 stoichiometries as points, and their formation energies."""

    def __init__(self) -> None:
        table = imd.datasets.load("mp_e_form").table
        lowest = table.groupby(["formula", "split"], as_index=False)["formation_energy"].min()
        counts = amounts(lowest["formula"]).astype(np.int64)
        ternary = (counts > 0).sum(1) == 3
        counts, lowest = counts[ternary], lowest[ternary]
        _, ratio = self.sorted_elements(counts)
        _, which, n = np.unique(ratio, axis=0, return_inverse=True, return_counts=True)
        common = np.isin(which.ravel(), np.argsort(-n, kind="stable")[:COMMON])
        self.counts, self.table = counts[common], lowest[common].reset_index(drop=True)
        self.energy = self.table["formation_energy"].to_numpy()
        self.ratios = np.unique(ratio[common], axis=0)
        self.used = np.flatnonzero(self.counts.any(0))
        names = ("mendeleev_number", "electronegativity", "covalent_radius")
        raw = np.stack([elements.column(name)[self.used] for name in names], axis=1)
        self.places = np.zeros((elements.N_COLUMNS, 3))
        self.places[self.used] = (raw - raw.mean(0)) / raw.std(0)
        self.points = self.encode(self.counts)
        is_train = (self.table["split"] == "train").to_numpy()
        mixed = np.random.default_rng(0).permutation(np.flatnonzero(is_train))
        self.ours, self.referees = np.array_split(mixed, 2)
        self.test = np.random.default_rng(1).permutation(np.flatnonzero(~is_train))

    @staticmethod
    def sorted_elements(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3) atomic numbers by rising electronegativity, and their counts."""
        chi = np.where(counts > 0, elements.column("electronegativity"), np.inf)
        kinds = np.argsort(chi, axis=1, kind="stable")[:, :3]
        return kinds, np.take_along_axis(counts, kinds, axis=1)

    @staticmethod
    def shares(ratio: np.ndarray) -> np.ndarray:
        """(n, 3) counts to shares, so that their spread is about that of the other numbers."""
        return 8.0 * (ratio / ratio.sum(1, keepdims=True) - 1 / 3)

    def encode(self, counts: np.ndarray) -> np.ndarray:
        """(n, 119) counts to (n, 12) numbers."""
        kinds, ratio = self.sorted_elements(counts)
        return np.concatenate([self.places[kinds].reshape(-1, 9), self.shares(ratio)], axis=1)

    def decode(self, points: np.ndarray) -> np.ndarray:
        """(n, 12) numbers to the counts of the nearest elements and stoichiometry."""
        rows = points[:, :9].reshape(-1, 3, 1, 3)
        kinds = self.used[np.linalg.norm(rows - self.places[self.used], axis=-1).argmin(2)]
        apart = np.linalg.norm(points[:, None, 9:] - self.shares(self.ratios), axis=-1)
        counts = np.zeros((len(points), elements.N_COLUMNS), dtype=np.int64)
        row = np.arange(len(points))[:, None]
        np.add.at(counts, (row, kinds), self.ratios[apart.argmin(1)])
        return counts


def formula_ways() -> dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]]:
    """Discriminator and options of each way to tell the networks the energy."""
    helped = lambda: AuxiliaryHead(features(12), 64, 1)  # noqa: E731
    return {
        "concatenation": (lambda: Concatenated(mlp((13, 64, 64, 1))), {}),
        "projection": (lambda: ProjectionHead(features(12), 64, mlp((1, 32, 64))), {}),
        "auxiliary": (helped, {"auxiliary": "value"}),
        "shuffled": (lambda: ProjectionHead(features(12), 64, mlp((1, 32, 64))), {}),
    }


def judge_formulas(
    runs: SeedRuns, data: Formulas, referee: FormulaPredictor, scale: tuple[float, float]
) -> list[dict[str, Any]]:
    """Asked against obtained, by the referee and by DFT where a formula is known, seed by seed."""
    wanted = np.repeat(np.concatenate([ASKED, FAR]), EACH)
    near = np.arange(len(wanted)) < EACH * len(ASKED)
    hidden = np.concatenate([data.referees, data.test])
    dft = {data.counts[i].tobytes(): data.energy[i] for i in hidden}
    seen = {data.counts[i].tobytes() for i in data.ours}
    real = data.points[data.test[: EACH * len(ASKED)]]
    condition = torch.tensor((wanted - scale[0]) / scale[1], dtype=torch.float32)[:, None]
    rows = []
    for made in runs.sample(len(wanted), condition=condition, seed=1).numpy():
        counts = data.decode(made)
        found = referee.predict(counts)
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


def run_toy() -> dict[str, list[dict[str, float]]]:
    """Train and judge the toy in every way."""
    classes = torch.randint(8, (20_000,), generator=torch.Generator().manual_seed(0))
    points, out = clouds(classes), {}
    for name, (generator, discriminator, options) in toy_ways().items():
        runs = train_seeds(
            generator, discriminator, points, condition=classes, loss="non_saturating",
            seeds=SEEDS, steps=TOY_STEPS, latent=SMALL, betas=(0.5, 0.999), log_every=500,
            **options,
        )  # fmt: skip
        out[name] = judge_toy(runs)
        print(name, f"{runs.seconds:.0f} s", out[name][0])
    return out


def run_formulas() -> dict[str, list[dict[str, Any]]]:
    """Train and judge the conditional models of formulas in every way."""
    data = Formulas()
    referee = FormulaPredictor("trees").fit(data.counts[data.referees], data.energy[data.referees])
    energy = data.energy[data.ours]
    scale = float(energy.mean()), float(energy.std())
    points = torch.tensor(data.points[data.ours], dtype=torch.float32)
    condition = torch.tensor((energy - scale[0]) / scale[1], dtype=torch.float32)[:, None]
    mixed = condition[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    out = {}
    for name, (discriminator, options) in formula_ways().items():
        runs = train_seeds(
            lambda: Concatenated(mlp((WIDE + 1, 64, 64, 12))), discriminator, points,
            condition=mixed if name == "shuffled" else condition, loss="non_saturating",
            penalty="r1", penalty_weight=0.1, seeds=SEEDS, steps=STEPS, latent=WIDE,
            betas=(0.5, 0.999), log_every=500, **options,
        )  # fmt: skip
        out[name] = judge_formulas(runs, data, referee, scale)
        print(name, f"{runs.seconds:.0f} s", out[name][0])
    return out


def main() -> None:
    torch.set_num_threads(1)
    began, cpu = time.perf_counter(), time.process_time()
    record = {
        "seeds": list(SEEDS),
        "toy_steps": TOY_STEPS,
        "steps": STEPS,
        "asked": ASKED.tolist(),
        "far": FAR.tolist(),
        "each": EACH,
        "toy": run_toy(),
        "formulas": run_formulas(),
        "device": device_name(),
    }
    record["wall_seconds"] = round(time.perf_counter() - began)
    record["cpu_seconds"] = round(time.process_time() - cpu)
    (HERE / "run.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
