"""MatGAN: a Wasserstein GAN over compositions, written as matrices of 85 elements x 8 counts.

Source: Dan et al., Generative adversarial networks (GAN) based efficient sampling of chemical
composition space for inverse design of inorganic materials, npj Comput. Mater. 6 (2020) 84, and
its code originofmatter/MatGAN at commit e36c744. The code holds networks, losses and decoding;
it has no training loop and no training data. Where the text gives another loss than the code, the
loss is a switch of `MatGanConfig`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.samples import Samples
from ..datasets import formula_sets
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, CompositionMatrix
from ..networks import TrainConfig, layers, losses
from ..networks.layers import SameConv, SameConvTranspose
from .gan import Condition, Gan, GanConfig

NETWORKS = ("oqmd", "icsd")
LOSSES = ("penalty", "plain", "clipped")
CLIP = 0.01  # of the published code, in a path that it never takes
FEW = -4.0  # first bias of a generator that draws: near 11 elements a sample, not 76
HEIGHTS = (6, 11, 22, 43, 85)  # rows of the matrix on its way through the generator


@dataclass(frozen=True)
class MatGanConfig(GanConfig):
    """Architecture and training of one MatGAN; the defaults are the published code, size ICSD."""

    CHOICES: ClassVar = {"network": NETWORKS, "loss": LOSSES, "data": formula_sets.ROLES}
    network: str = "icsd"  # published layers of size ``oqmd`` or ``icsd`` (also used for MP)
    normal_weights: bool = True  # draw all from N(0, 1), as published, instead of torch's way
    norm_in_critic: bool = True  # published; a sample's penalty then depends on its batch
    hard: bool = False  # draw a count or none for each element; otherwise 680 sigmoids, published
    loss: str = "penalty"  # of the critic: as in the code; ``plain``, as in the text; ``clipped``
    batch: int = 32
    data: str = "icsd"
    train: TrainConfig = TrainConfig(
        steps=571_900, critic_steps=1, lr_generator=1e-3, lr_critic=1e-2, save_every=100
    )


PAPER = MatGanConfig()
FIXED = MatGanConfig(
    normal_weights=False,
    norm_in_critic=False,
    hard=True,
    train=TrainConfig(
        steps=1_200,
        critic_steps=3,
        lr_generator=5e-4,
        lr_critic=5e-4,
        betas_generator=(0.0, 0.9),
        betas_critic=(0.0, 0.9),
        ema=0.995,
        log_every=50,
        save_every=100,
    ),
)


# ---- networks

SAME, ROWS, BOTH = (1, 1), (2, 1), (2, 2)  # strides in rows and columns
# kernel, stride and channels of each layer; for a generator first the channels of its 6 x 4
_GENERATORS = {
    "oqmd": (
        256,
        [
            *((5, BOTH, 128), (3, SAME, 128), (3, ROWS, 64), (3, SAME, 64)),
            *((3, ROWS, 32), (3, SAME, 32), (3, ROWS, 1)),
        ],
    ),
    "icsd": (128, [(5, BOTH, 64), (3, ROWS, 32), (3, ROWS, 16), (3, ROWS, 1)]),
}
_CRITICS = {
    "oqmd": [
        *((3, SAME, 32), (3, ROWS, 32), (3, SAME, 64), (3, ROWS, 64)),
        *((3, SAME, 128), (3, ROWS, 128), (5, BOTH, 256)),
    ],
    "icsd": [(3, SAME, 16), (3, ROWS, 16), (3, SAME, 32), (3, SAME, 64), (5, BOTH, 128)],
}


class Generator(nn.Module):
    """The published generator: noise to 85 rows of 8 values.

    The published last step reads each value by a sigmoid, between 0 and 1. With ``hard`` each row
    is a choice among its 8 counts and 0 for "absent": zeros and a one are drawn, see `layers.draw`.
    """

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        first, plan = _GENERATORS[config.network]
        self.hard = config.hard
        into = config.channels(first)
        self.seed = (into, HEIGHTS[0], 4)
        self.dense = nn.Linear(config.latent, math.prod(self.seed))
        self.first_norm = nn.BatchNorm1d(math.prod(self.seed))  # before the reshape, as published
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        step = 0
        for kernel, stride, published in plan:
            out = 1 if published == 1 else config.channels(published)
            step += stride[0] == 2
            size = (HEIGHTS[step], MAX_COUNT)
            self.layers.append(SameConvTranspose(into, out, kernel, stride, size))
            self.norms.append(nn.BatchNorm2d(out) if out > 1 else nn.Identity())
            into = out
        if self.hard:
            nn.init.constant_(self.layers[-1].bias, FEW)

    def forward(self, noise: Tensor) -> Tensor:
        """(batch, latent) to (batch, 85, 8)."""
        x = torch.relu(self.first_norm(self.dense(noise)))  # (batch, channels x 6 x 4)
        x = x.view(-1, *self.seed)  # (batch, channels, 6, 4)
        for layer, norm in zip(self.layers[:-1], self.norms[:-1], strict=True):
            x = torch.relu(norm(layer(x)))  # (batch, channels, 11 → 22 → 43, 8)
        x = self.layers[-1](x).squeeze(1)
        if not self.hard:
            return torch.sigmoid(x)
        return layers.draw(nn.functional.pad(x, (1, 0)))[:, :, 1:]


class Critic(nn.Module):
    """The published critic: (batch, 85, 8) to one score."""

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        into, size = 1, [len(ELEMENTS), MAX_COUNT]
        for index, (kernel, stride, published) in enumerate(_CRITICS[config.network]):
            out = config.channels(published)
            self.layers.append(SameConv(into, out, kernel, stride))
            norm = config.norm_in_critic and index > 0
            self.norms.append(nn.BatchNorm2d(out) if norm else nn.Identity())
            into, size = out, [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        self.n_features = into * math.prod(size)
        self.score = nn.Linear(self.n_features, 1)

    def features(self, matrix: Tensor) -> Tensor:
        """(batch, 85, 8) to (batch, features)."""
        x = matrix[:, None]  # (batch, 1, 85, 8)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = nn.functional.leaky_relu(norm(layer(x)), 0.2)
        return x.flatten(1)

    def forward(self, matrix: Tensor) -> Tensor:
        """(batch, 85, 8) to (batch, 1)."""
        return self.score(self.features(matrix))


# ---- the model


class CompositionGan(Gan):
    """What GANs over composition matrices share: data as counts, one byte an element, decoding."""

    format = "imd-matgan-1"
    holds = "compositions"
    HALF = True
    CHUNK = 1_024  # samples that the generator makes at once
    hard = True  # does the generator draw zeros and ones?
    values: Tensor | None = None  # a property of each composition

    def prepare(self, data: np.ndarray, *, seed: int = 0) -> None:
        """Keep (n, 119) counts as (n, 85) bytes; matrices are made a batch at a time."""
        chosen = np.take(data, ELEMENTS, axis=1).astype(np.int64)
        self.counts = torch.as_tensor(chosen, dtype=torch.uint8, device=self.device)
        self.levels = torch.arange(1, MAX_COUNT + 1, dtype=torch.uint8, device=self.device)

    def real(self) -> tuple[Tensor, Tensor | None]:
        """(batch, 85, 8) zeros and ones, and (batch, 1) properties where there are any."""
        index = self.some(len(self.counts))
        matrix = (self.counts[index][:, :, None] == self.levels).float()
        return matrix, None if self.values is None else self.values[index]

    def fake(self, condition: Tensor | None = None) -> Tensor:
        """(batch, 85, 8) from noise."""
        return self.generator(self.noise(self.config.batch, condition))

    def critic_terms(self) -> dict[str, Tensor]:
        """Loss; ``distance`` is the mean score of real minus generated samples."""
        if self.config.loss == "penalty":
            return super().critic_terms()
        if self.config.loss == "clipped":
            losses.clip_weights(self.critic, CLIP)
        real, fake, score = self.pair()
        of_real, of_fake = score(real), score(fake)
        loss = wasserstein = losses.critic_loss(of_real, of_fake)
        if self.config.loss == "logistic":
            loss = losses.minimax_discriminator_loss(of_real, of_fake)
        return {"loss": loss, "distance": -wasserstein}

    def noise(self, n: int, condition: Tensor | None = None) -> Tensor:
        """(n, latent [+ 1]), a condition beside the noise if there is one."""
        noise = super().noise(n)
        return noise if condition is None else torch.cat([noise, condition], dim=1)

    def draw(self, n: int, condition: Condition) -> Tensor:
        """(n, 85, 8)."""
        noise = self.noise(n, self.wanted(condition, n))
        return torch.cat([self.generator(part) for part in noise.split(self.CHUNK)])

    def wanted(self, condition: Condition, n: int) -> Tensor | None:
        """(n, 1) what the generator is given beside its noise, if anything."""

    def decode(self, raw: Tensor) -> Samples:
        """Compositions, with a reason for each matrix that is none."""
        return CompositionMatrix("argmax" if self.hard else "published").decode(raw)


SMOKE = {"width": 1 / 8, "batch": 16, "steps": 40, "log_every": 5, "save_every": 40}


class MatGan(CompositionGan):
    """The published generator of compositions with its critic, or the same layers mended.

    ``paper`` keeps every layer, the published width, rates and batch; its length is smaller: 1,000
    passes over the ICSD, as published, are days of one CPU core, and those of the package are of
    profile ``full``. ``fixed`` keeps the layers, and mends what stands in their way.
    """

    name = "matgan"
    Config = MatGanConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED}
    PROFILES: ClassVar = {
        "paper": {
            "smoke": SMOKE,
            "colab": {"steps": 10_000, "log_every": 100},
            "full": {"steps": 1_000, "log_every": 100},
        },
        "": {"smoke": SMOKE, "colab": {}, "full": {}},
    }

    def build(self) -> dict[str, nn.Module]:
        """Generator and critic."""
        self.hard = self.config.hard
        networks = {"generator": Generator(self.config), "critic": Critic(self.config)}
        if self.config.normal_weights:
            layers.draw_weights(nn.ModuleDict(networks), nn.init.normal_)
        return networks

    @classmethod
    def read(cls, config: MatGanConfig, split: str | None = "train") -> np.ndarray:
        """(n, 119) counts of the training set's compositions."""
        return formula_sets.compositions(config.data, split=split)[0]


# ---- parts


def dice_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Minus the Dice overlap 2 A·B / (|A| + |B|) of two matrices, mean over the batch.

    -1 for equal (batch, …) matrices of zeros and ones, 0 for matrices that share nothing. Cells
    that are empty in both do not count, and 99 % of a composition matrix is empty.

    Source: Dan et al. (2020), supplement.
    """
    a, b = found.flatten(1), wanted.flatten(1)
    return -(2 * (a * b).sum(1) / (a.sum(1) + b.sum(1)).clamp(min=1e-6)).mean()
