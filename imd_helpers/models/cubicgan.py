"""CubicGAN: a Wasserstein GAN over cubic ternary crystals, conditioned on space group and elements.

Source: Zhao et al., High-throughput discovery of novel cubic crystal materials using deep
generative neural networks, Adv. Sci. 8 (2021) 2100566, and its code MilesZhao/CubicGAN
(wgan-v2.py and util.py at commit 7034d84). Where paper and code disagree, the code is followed and
the difference is a switch of `CubicGanConfig`.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.samples import Samples
from ..descriptors import symmetry_sites
from ..descriptors.symmetry_sites import N_ROWS, SPACE_GROUPS, Sites, SymmetrySites
from ..networks import TrainConfig, losses
from ..networks.layers import RowConv, RowConvTranspose, glorot, mlp
from ..runtime import lookup
from .cubic_sites import LABEL_SOURCES, TRAINING_SETS, Labels, LabelSource, training_sites
from .gan import Condition, Gan, GanConfig

N_GROUPS, N_FEATURES = len(SPACE_GROUPS), 23


@dataclass(frozen=True)
class CubicGanConfig(GanConfig):
    """Architecture and training of one CubicGAN; the defaults are the published code.

    Attributes:
        dropout_generator: after each convolution of the generator.
        dropout_critic: after each convolution of the critic.
        length_sees_condition: give the condition and the noise to the lattice-length head. In the
            published code that head sees the nine coordinates alone, so a length cannot depend on
            the elements.
        snap: show the critic positions on the grid of quarters (gradient passed through), as
            real crystals are, instead of positions near it.
        canonical: write each real crystal in one way (row order, origin) before training.
        labels: space groups and elements of generated samples in training: ``uniform`` draws the
            groups by their frequency and any three different elements; ``data`` draws both
            together from the training crystals, so that real and generated samples have the
            same labels and the critic cannot tell them apart by chemistry.
        frozen_labels: draw the labels of generated samples once for the whole training, as
            the published code does by calling NumPy inside a traced function.
        mixing: ``normal`` (code) or ``uniform`` (WGAN-GP).
        one_real_batch: use one batch of real crystals for all critic steps of an iteration.
        data: ``oqmd_icsd`` (real crystals) or ``cubic_prototypes`` (enumerated).
    """

    fewest_channels: ClassVar[int] = 8
    dropout_generator: float = 0.5
    dropout_critic: float = 0.25
    length_sees_condition: bool = False
    snap: bool = False
    canonical: bool = False
    labels: str = "uniform"
    frozen_labels: bool = True
    mixing: str = "normal"
    one_real_batch: bool = True
    batch: int = 256
    data: str = "oqmd_icsd"
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            steps=146_700, lr_generator=1e-5, lr_critic=1e-5, betas_generator=(0.9, 0.999)
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        lookup("source of labels", self.labels, LABEL_SOURCES)
        lookup("training set", self.data, TRAINING_SETS)


PAPER = CubicGanConfig()
FIXED = CubicGanConfig(
    width=0.125,
    dropout_generator=0.0,
    dropout_critic=0.0,
    length_sees_condition=True,
    snap=True,
    canonical=True,
    labels="data",
    frozen_labels=False,
    mixing="uniform",
    one_real_batch=False,
    batch=64,
    train=TrainConfig(steps=4_000, lr_generator=5e-4, lr_critic=5e-4, ema=0.995),
)
# At the scale of the paper, which trained on an enumeration, and not on known materials.
PROTOTYPES = FIXED.but(data="cubic_prototypes")


# ---- networks


class Generator(nn.Module):
    """Noise, space group and three elements to nine scaled coordinates and a scaled length."""

    def __init__(self, config: CubicGanConfig) -> None:
        super().__init__()
        c = [config.channels(n) for n in (1024, 1024, 512, 512, 128)]
        self.group = nn.Embedding(N_GROUPS, 64)
        self.group_dense = nn.Linear(64, 96)
        self.element_dense = nn.Linear(N_FEATURES, 128)
        self.noise_dense = nn.Linear(config.latent, 256)
        self.merge = nn.Linear(96 + N_ROWS * 128 + 256, N_ROWS * 128)
        self.upsample = nn.ModuleList([RowConvTranspose(128, c[0]), RowConvTranspose(c[0], c[1])])
        self.pointwise = nn.ModuleList(map(nn.Linear, c[1:], [*c[2:], 1]))
        self.drop = nn.Dropout(config.dropout_generator)
        self.sees_condition = config.length_sees_condition
        seen = N_ROWS * 3 + (N_ROWS * 128 if self.sees_condition else 0)
        hidden = (128, 64, 32) if self.sees_condition else (30, 18, 6)
        self.length = mlp([seen, *hidden, 1], activation=nn.ReLU(), last=nn.Tanh())
        glorot(self, normal=True)
        glorot(self.merge, normal=False)
        glorot(self.length, normal=False)

    def forward(self, noise: Tensor, group: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (batch, 3, 3) and length (batch,), both in [-1, 1].

        Args:
            noise: (batch, latent).
            group: (batch,) 0, 1, 2.
            features: (batch, 3, 23) scaled element features.
        """
        merged = self.hidden(noise, group, features)  # (batch, 384)
        position = self.positions(merged.view(-1, N_ROWS, 1, 128))  # (batch, 3, 3)
        seen = position.flatten(1)  # (batch, 9)
        if self.sees_condition:
            seen = torch.cat([seen, merged], dim=1)
        return position, self.length(seen).squeeze(1)

    def hidden(self, noise: Tensor, group: Tensor, features: Tensor) -> Tensor:
        """(batch, 384) merged condition and noise."""
        parts = [
            torch.relu(self.group_dense(self.group(group))),  # (batch, 96)
            torch.relu(self.element_dense(features)).flatten(1),  # (batch, 384)
            self.noise_dense(noise),  # (batch, 256), linear as published
        ]
        return torch.relu(self.merge(torch.cat(parts, dim=1)))

    def positions(self, x: Tensor) -> Tensor:
        """(batch, 3, 1, 128) to (batch, 3, 3): each site's row grows from 1 to x, y, z."""
        for layer in (*self.upsample, *self.pointwise[:-1]):
            x = self.drop(torch.relu(layer(x)))  # (batch, 3, 1 → 2 → 3, channels)
        return torch.tanh(self.pointwise[-1](x)).squeeze(-1)


class Critic(nn.Module):
    """(batch, 3, 28) to one score: convolutions along the three rows, then a dense tower."""

    def __init__(self, config: CubicGanConfig) -> None:
        super().__init__()
        c = [28, *(config.channels(n) for n in (128, 512, 1024, 1024, 2048, 4096))]
        dense = [c[6], *(config.channels(n) for n in (1024, 512, 256)), 32, 1]
        widths = (1, 1, 1, 2, 2, 2)
        self.rows = nn.ModuleList(map(RowConv, c[:-1], c[1:], widths))
        self.dense = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(dense)])
        self.drop = nn.Dropout(config.dropout_critic)
        glorot(self, normal=False)

    def forward(self, crystal: Tensor) -> Tensor:
        """(batch, 3, 28) to (batch, 1)."""
        x = crystal
        for index, layer in enumerate(self.rows):
            if index == 3:  # Keras' padding "same" for width 2: one zero row at the end
                x = nn.functional.pad(x, (0, 0, 0, 1))
            x = nn.functional.leaky_relu(self.drop(layer(x)), 0.2)  # (batch, 3 → 2 → 1, channels)
        x = x.squeeze(1)  # (batch, channels)
        for layer in self.dense[:-1]:
            x = nn.functional.leaky_relu(layer(x), 0.2)
        return self.dense[-1](x)


# ---- the model


SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"width": 1 / 32, "batch": 32, "steps": 60, "log_every": 5, "save_every": 60},
    "colab": {"width": 1 / 8, "batch": 64, "steps": 2_000},
    "full": {"width": 1 / 8, "batch": 64, "steps": 4_000},
}
PAPER_RATES = {"lr_generator": 2e-4, "lr_critic": 2e-4}


class CubicGan(Gan):
    """A generator with its critic, its descriptor and the labels it was trained on.

    The published schedule (28.5 M critic weights, batch 256, 146,700 iterations, `PAPER`) is days
    of two CPU cores. All variants train at one width, batch size and number of steps, each with
    the best of the learning rates tried: 2e-4 and 5e-4, and 5e-5 for ``paper`` alone.
    """

    name, format = "cubicgan", "imd-cubicgan-1"
    Config = CubicGanConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED, "prototypes": PROTOTYPES}
    PROFILES: ClassVar = {"": SIZES, "paper": {k: v | PAPER_RATES for k, v in SIZES.items()}}
    LEARNT = ("elements", "length_max", "coord_max", "labels.group", "labels.element")
    PIECE = 32_768
    CHUNK = 4_096  # noise drawn at once, which decides what a seed stands for

    conditions = ("space_group", "elements", "labels")

    def build(self) -> dict[str, nn.Module]:
        """Generator and critic, with the scales that were learnt."""
        self.descriptor = SymmetrySites(
            element_numbers=tuple(self.learnt["elements"]),
            length_max=self.learnt["length_max"],
            coord_max=np.array(self.learnt["coord_max"]),
            canonical=self.config.canonical,
        )
        self.table = self.descriptor.feature_table  # (elements, 23)
        return {"generator": Generator(self.config), "critic": Critic(self.config)}

    def to(self, where: torch.device | str) -> CubicGan:
        """Move networks, labels and feature table, and return self."""
        self.table = self.table.to(where)
        return super().to(where)

    @property
    def labels(self) -> LabelSource:
        """Draws space groups and elements after those of the training crystals."""
        known = Labels(self.learnt["labels.group"], self.learnt["labels.element"])
        return LabelSource(known, self.descriptor)

    # ---- data

    @classmethod
    def read(cls, config: CubicGanConfig, split: str | None = "train") -> Sites:
        """See `training_sites`."""
        return training_sites(split, data=config.data)

    @classmethod
    def learn(cls, data: Sites, config: CubicGanConfig) -> dict[str, Any]:
        """Scales and labels of the training crystals."""
        descriptor = SymmetrySites.fit(
            data, canonical=config.canonical, published_scaling=not config.canonical
        )
        written = symmetry_sites.canonical(data) if config.canonical else data
        return {
            "elements": list(descriptor.element_numbers),
            "length_max": descriptor.length_max,
            "coord_max": descriptor.coord_max.tolist(),
            "labels.group": torch.as_tensor(descriptor.group_index(written.space_group)),
            "labels.element": descriptor.element_index(written.numbers),
        }

    def prepare(self, data: Sites, *, seed: int = 0) -> None:
        """Encode the crystals, and draw the labels that stay frozen, if any."""
        self.data = self.descriptor.encode_sites(data).to(self.device)  # (n, 3, 28)
        self.batch: Tensor | None = None
        self.turn, self.frozen = 0, []
        if self.config.frozen_labels:
            rng = torch.Generator(device=self.device).manual_seed(seed)
            sets = range(self.config.train.critic_steps + 1)
            self.frozen = [self.batch_labels(rng) for _ in sets]

    # ---- training

    def real(self) -> tuple[Tensor, None]:
        """(batch, 3, 28) real crystals."""
        if self.batch is None or not self.config.one_real_batch:
            index = torch.randint(len(self.data), (self.config.batch,), device=self.device)
            self.batch = self.data[index]
        return self.batch, None

    def fake(self, condition: Tensor | None = None) -> Tensor:
        """(batch, 3, 28) generated crystals, for labels that are drawn here."""
        if not self.frozen:
            return self.generate(self.batch_labels())
        self.turn += 1
        return self.generate(self.frozen[self.turn - 1])

    def generator_terms(self) -> dict[str, Tensor]:
        """Negative score of generated crystals; the iteration ends here."""
        loss = losses.generator_loss(self.critic(self.fake()))
        self.batch, self.turn = None, 0
        return {"loss": loss}

    def tensors(self) -> dict[str, Tensor]:
        """The frozen labels, if there are any."""
        return {
            f"{i}.{name}": getattr(labels, name)
            for i, labels in enumerate(self.frozen)
            for name in ("group", "element")
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back the frozen labels."""
        self.frozen = [
            Labels(tensors[f"{i}.group"], tensors[f"{i}.element"]).to(self.device)
            for i in range(len(tensors) // 2)
        ]

    def batch_labels(self, rng: torch.Generator | None = None) -> Labels:
        """Labels for a batch of generated crystals."""
        return self.labels.batch(self.config.batch, source=self.config.labels, rng=rng)

    def generate(self, labels: Labels) -> Tensor:
        """(batch, 3, 28) descriptors from noise, with gradients."""
        noise = torch.randn(len(labels), self.config.latent, device=self.device)
        features = self.table[labels.element]  # (batch, 3, 23)
        position, length = self.generator(noise, labels.group, features)
        if self.config.snap:
            position = self.descriptor.snap_position(position)
        return self.descriptor.assemble(position, features, length, labels.group)

    # ---- sampling

    def piece_seed(self, seed: int, index: int) -> int:
        """The seed itself for the first piece."""
        return seed if index == 0 else super().piece_seed(seed, index)

    def draw(self, n: int, condition: Condition) -> Sites:
        """Sites of n crystals.

        The condition names a space group, ``elements`` such as ``("Cs", "Pb", "I")``, or both.
        What is not given is drawn, as in training or as ``labels`` says; see `LabelSource.draw`.
        """
        drawn = self.labels.draw(n, source=condition.get("labels", self.config.labels))
        labels = self.labels.asked(drawn, condition)
        parts = [
            self.generate(labels[start : start + self.CHUNK]) for start in range(0, n, self.CHUNK)
        ]
        return self.descriptor.read_sites(torch.cat(parts))

    def decode(self, raw: Sites) -> Samples:
        """Fill the cells; the space groups that were asked for stay beside them."""
        made = symmetry_sites.decode_sites(raw, finite=np.isfinite(raw.length))
        return dataclasses.replace(made, asked={"space_group": raw.space_group})

    def sample_sites(self, n: int, *, condition: Condition | None = None, seed: int = 0) -> Sites:
        """What `sample` decodes: sites without filled cells."""
        parts = [
            self.raw(index, size, condition=condition, seed=seed) for index, size in self.pieces(n)
        ]
        names = [f.name for f in dataclasses.fields(Sites)]
        return Sites(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
