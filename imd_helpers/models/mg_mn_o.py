"""The composition-conditioned crystal GAN for Mg-Mn-O: a cell and its atoms as 30 x 3 numbers.

Source: Kim et al., Generative adversarial networks for crystal structure prediction, ACS Cent. Sci.
6 (2020) 1412, and its code kaist-amsg/Composition-Conditioned-Crystal-GAN at commit 35cf6d0.
Where paper and code disagree, the code is followed and the difference is a switch of
`MgMnOConfig`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.compositions import amounts
from ..crystals.samples import Samples
from ..descriptors.coordinate_matrix import CELL_ROWS, squeeze
from ..networks import TrainConfig, losses
from ..networks.fit import Turn
from ..runtime import InputError
from .coordinate_networks import Classifier, Critic, Generator
from .coordinate_rows import DESCRIPTOR, NUMBERS, SLOTS, augmented, doubled, n_atoms
from .gan import Condition, Gan, GanConfig

COMPOSITION_WEIGHT = 0.3  # of the composition in the losses of generator and classifier
EMPTY = 0.01  # smaller values are those of empty rows


@dataclass(frozen=True)
class MgMnOConfig(GanConfig):
    """Architecture and training of one GAN; the defaults are the published code."""

    fewest_channels: ClassVar[int] = 8
    CHOICES: ClassVar = {
        "supercells": ("none", "scrambled", "right"),
        "rows": ("row sum", "classifier", "asked"),
        "sees": ("rows", "distances"),
        "cells": ("as they come", "reduced"),
        "penalised": ("sum", "mean"),
    }
    latent: int = 512
    batch: int = 32
    data: str = "mg_mn_o"
    norm_eps: float = 0.8  # of the batch norms: written where the momentum was meant
    softmax_twice: bool = True  # before a cross-entropy that has its own
    penalised: str = "sum"  # of the critic's ten outputs, whose mean is its score
    any_composition: bool = True  # generated ones: any of the 8 x 8 x 12, not those of the data
    noisy_classifier: bool = True  # it sees noise in place of the zeros of real crystals
    classifier_learns_fakes: bool = True  # it moves towards what the generator makes, too
    copies: int = 100  # crystals of each composition after augmentation
    skip_populous: bool = True  # leave out compositions that have as many of their own
    supercells: str = "scrambled"  # doubled cells with the elements of their atoms mixed up
    rows: str = "row sum"  # what tells an atom from an empty row; "asked": as many as asked for
    sees: str = "rows"  # what the critic knows of an atom: its row, or its distances
    cells: str = "as they come"  # in which it looks for neighbours, if it sees distances
    train: TrainConfig = TrainConfig(
        steps=32_565,
        lr_generator=5e-5,
        lr_critic=5e-5,
        betas_generator=(0.5, 0.999),
        betas_critic=(0.5, 0.999),
    )


PAPER = MgMnOConfig()
FIXED = MgMnOConfig(
    norm_eps=1e-5,
    softmax_twice=False,
    penalised="mean",
    any_composition=False,
    noisy_classifier=False,
    classifier_learns_fakes=False,
    skip_populous=False,
    supercells="right",
    rows="asked",
    sees="distances",
    batch=16,
    train=TrainConfig(steps=16_000, critic_steps=3, lr_generator=5e-4, lr_critic=1e-3, ema=0.995),
)


# ---- the model


SMOKE = {"width": 1 / 8, "batch": 16, "copies": 8, "steps": 20, "log_every": 5, "save_every": 20}


class MgMnOGan(Gan):
    """Generator, critic and classifier of oxides of magnesium and manganese."""

    name, format = "mg_mn_o", "imd-mg-mn-o-1"
    Config = MgMnOConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED}
    PROFILES: ClassVar = {
        "": {
            "smoke": SMOKE,
            "colab": {"steps": 1_000},
            "full": {"width": 1 / 8, "log_every": 100, "save_every": 1_000},
        },
        "paper": {
            "smoke": SMOKE,
            "colab": {"steps": 1_000},
            "full": {"width": 1 / 8, "steps": 4_000, "log_every": 50},
        },
    }
    LEARNT = ("compositions",)
    PIECE = 4_096
    conditions = ("composition",)

    def build(self) -> dict[str, nn.Module]:
        """Generator, critic and, where the composition has to be learnt, classifier."""
        parts = {"generator": Generator, "critic": Critic}
        parts |= {} if self.config.rows == "asked" else {"classifier": Classifier}
        return {name: part(self.config) for name, part in parts.items()}

    # ---- data

    @classmethod
    def read(cls, config: MgMnOConfig, split: str | None = "train") -> CrystalBatch:
        """Relaxed oxides of one split, without the formulas that real crystals have."""
        made = datasets.load(config.data, split=split)
        real = made.table["formula"].isin(datasets.load("oqmd_icsd").table["formula"])
        return made[~real.to_numpy()].crystals

    @classmethod
    def learn(cls, data: CrystalBatch, config: MgMnOConfig) -> dict[str, Any]:
        """(compositions, 3) numbers of atoms that occur in the data."""
        return {"compositions": torch.unique(data.counts()[:, NUMBERS].long(), dim=0)}

    def prepare(self, data: CrystalBatch, *, seed: int = 0) -> None:
        """As many matrices of each composition, see `augmented`."""
        rng = torch.Generator().manual_seed(seed)
        matrix = DESCRIPTOR.encode(data)
        if self.config.supercells != "none":
            matrix = torch.cat([matrix, doubled(matrix, right=self.config.supercells == "right")])
        self.data = augmented(
            matrix, self.config.copies, skip_populous=self.config.skip_populous, rng=rng
        ).to(self.device)

    # ---- training

    def turns(self, config: TrainConfig) -> list[Turn]:
        """The classifier learns beside the critic; as published also with the generator."""
        critic, generator = super().turns(config)
        if self.config.rows == "asked":
            return [critic, generator]
        classifier = Turn("classifier", self.classifier_terms, ("classifier",), critic.times)
        fakes = Turn("classifier_fakes", self.composition_terms, ("classifier",))
        learns = self.config.classifier_learns_fakes
        return [critic, classifier, generator, *([fakes] if learns else [])]

    def fake(self, condition: Tensor | None = None) -> Tensor:
        """(batch, 30, 3) for compositions that are drawn here."""
        return self.generate(self.compositions(self.config.batch))

    def critic_terms(self) -> dict[str, Tensor]:
        """Wasserstein loss of the mean score, and the penalty of the mean or the sum.

        The slope is taken with respect to all that the critic sees, distances included: atoms that
        meet are near to atoms that do not as matrices, and far as distances.
        """
        real, fake, score = self.pair()
        real, fake = self.critic.see(real), self.critic.see(fake)
        both = score(torch.cat([real, fake]))
        wasserstein = losses.critic_loss(*both.chunk(2))
        penalty = losses.gradient_penalty(score, real, fake, outputs=self.config.penalised)
        loss = wasserstein + self.config.penalty * penalty
        return {"loss": loss, "distance": -wasserstein, "penalty": penalty}

    def classifier_terms(self) -> dict[str, Tensor]:
        """Cross-entropies of rows and of compositions of real crystals."""
        real, _ = self.real()
        present, counts = n_atoms(real)
        if self.config.noisy_classifier:
            noise = (1e-3 + 10**-2.5 * torch.randn_like(real)).abs()
            real = torch.where(real < EMPTY, real + noise, real)
        states, found = self.classifier(real)
        of_rows = self.cross_entropy(states.flatten(0, 1), present.long().flatten())
        of_counts = self.of_composition(found, counts)
        return {"loss": of_rows + COMPOSITION_WEIGHT * of_counts, "composition": of_counts}

    def generator_terms(self) -> dict[str, Tensor]:
        """Score of generated crystals, and whether the classifier finds what was asked."""
        counts = self.compositions(self.config.batch)
        fake = self.generate(counts)
        score = losses.generator_loss(self.critic(fake))
        if self.config.rows == "asked":
            return {"loss": score}
        of_counts = self.of_composition(self.classifier(fake)[1], counts)
        return {"loss": score + COMPOSITION_WEIGHT * of_counts, "composition": of_counts}

    def composition_terms(self) -> dict[str, Tensor]:
        """The same, for the classifier."""
        counts = self.compositions(self.config.batch)
        with torch.no_grad():
            fake = self.generate(counts)
        found = self.of_composition(self.classifier(fake)[1], counts)
        return {"loss": COMPOSITION_WEIGHT * found}

    def of_composition(self, found: list[Tensor], counts: Tensor) -> Tensor:
        """Sum over the elements of the cross-entropy of how many atoms there are."""
        wanted = (counts - 1).clamp(min=0).unbind(1)
        return torch.stack(list(map(self.cross_entropy, found, wanted))).sum()

    def cross_entropy(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Mean cross-entropy; as published of logits that are probabilities already."""
        logits = logits.softmax(-1) if self.config.softmax_twice else logits
        return losses.auxiliary_class_loss(logits, wanted)

    def compositions(self, n: int, *, of_data: bool = False) -> Tensor:
        """(n, 3) numbers of atoms, of the data or of all that fit."""
        if of_data or not self.config.any_composition:
            known = self.learnt["compositions"]
            return known[torch.randint(len(known), (n,), device=self.device)]
        drawn = [torch.randint(1, most + 1, (n,), device=self.device) for most in SLOTS]
        return torch.stack(drawn, dim=1)

    def generate(self, counts: Tensor) -> Tensor:
        """(n, 30, 3) from noise, with gradients."""
        matrix = self.generator(self.noise(len(counts)), counts)
        if self.config.rows == "asked":
            matrix = torch.cat([matrix[:, :CELL_ROWS], squeeze(matrix[:, CELL_ROWS:])], dim=1)
            matrix = kept(matrix, filled(counts))
        return matrix

    # ---- sampling

    def draw(self, n: int, condition: Condition) -> tuple[Tensor, Tensor]:
        """(n, 30, 3) matrices whose empty rows are zeros, and (n, 3) numbers of atoms asked.

        For one composition of the cell, e.g. ``{"composition": "Mg2Mn4O8"}``, or those of the data.
        """
        counts = self.compositions(n, of_data=True)
        if "composition" in condition:
            counts = asked(condition["composition"]).to(self.device).expand(n, -1)
        matrix = self.generate(counts)
        if self.config.rows == "classifier":
            matrix = kept(matrix, self.classifier(matrix)[0].argmax(2) == 1)
        return matrix, counts

    def decode(self, raw: tuple[Tensor, Tensor]) -> Samples:
        """Crystals; the (n, 3) numbers of atoms that were asked for stay beside them."""
        matrix, counts = raw
        made = DESCRIPTOR.decode(matrix)
        return dataclasses.replace(made, asked={"counts": counts.cpu().numpy()})


def filled(counts: Tensor) -> Tensor:
    """(n, 28) bool: of the rows of each element as many as there are atoms, the first ones."""
    pairs = zip(SLOTS, counts.unbind(1), strict=True)
    return torch.cat([torch.arange(m, device=n.device) < n[:, None] for m, n in pairs], dim=1)


def kept(matrix: Tensor, atom: Tensor) -> Tensor:
    """(n, 30, 3) with coordinates where (n, 28) says so, and zeros in the other rows."""
    return torch.cat([matrix[:, :CELL_ROWS], matrix[:, CELL_ROWS:] * atom[..., None]], dim=1)


def asked(composition: str) -> Tensor:
    """(1, 3) numbers of atoms of a cell such as ``Mg2Mn4O8``.

    Raises:
        InputError: other elements, or more atoms than there are rows.
    """
    counts = amounts([composition])[0]
    wanted = counts[list(NUMBERS)]
    if counts.sum() != wanted.sum() or (wanted < 1).any() or (wanted > SLOTS).any():
        raise InputError(
            f"composition={composition!r}: a cell of Mg, Mn and O with 1 to {SLOTS[0]}, 1 to "
            f"{SLOTS[1]} and 1 to {SLOTS[2]} atoms, e.g. 'Mg2Mn4O8'"
        )
    return torch.as_tensor(wanted.astype(np.int64))[None]
