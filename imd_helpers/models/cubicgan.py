"""CubicGAN: a Wasserstein GAN over cubic ternary crystals, conditioned on space group and elements.

Source: Zhao et al., High-throughput discovery of novel cubic crystal materials using deep
generative neural networks, Adv. Sci. 8 (2021) 2100566, and its code MilesZhao/CubicGAN
(wgan-v2.py and util.py at commit 7034d84). Where paper and code disagree, the code is followed and
the difference is a switch of `CubicGanConfig`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals import elements
from ..crystals.samples import Samples
from ..descriptors.symmetry_sites import (
    GRID,
    N_ROWS,
    SPACE_GROUPS,
    Sites,
    SymmetrySites,
    canonical,
    decode_sites,
    find_sites,
)
from ..networks import History, TrainConfig, checkpoint, fit, losses
from ..networks.fit import Callback
from ..runtime import InputError, device, lookup

if TYPE_CHECKING:
    from ..datasets import CrystalSet

FORMAT = "imd-cubicgan-1"
LABEL_SOURCES = ("uniform", "data")
TRAINING_SETS = ("oqmd_icsd", "cubic_prototypes")
N_GROUPS, N_FEATURES = len(SPACE_GROUPS), 23


@dataclass(frozen=True)
class CubicGanConfig:
    """Architecture and training of one CubicGAN; the defaults are the published code.

    Attributes:
        width: factor on the number of channels; 1.0 is the published size.
        latent: length of the noise vector.
        dropout_generator: dropout after each transposed convolution and convolution.
        dropout_critic: dropout after each convolution of the critic.
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
        mixing: points of the gradient penalty, ``normal`` (code) or ``uniform`` (WGAN-GP).
        one_real_batch: use one batch of real crystals for all critic steps of an iteration.
        penalty: factor of the gradient penalty.
        batch: samples a batch.
        data: training set, ``oqmd_icsd`` (real crystals) or ``cubic_prototypes`` (enumerated).
        train: rates, betas and number of steps.
    """

    width: float = 1.0
    latent: int = 128
    dropout_generator: float = 0.5
    dropout_critic: float = 0.25
    length_sees_condition: bool = False
    snap: bool = False
    canonical: bool = False
    labels: str = "uniform"
    frozen_labels: bool = True
    mixing: str = "normal"
    one_real_batch: bool = True
    penalty: float = 10.0
    batch: int = 256
    data: str = "oqmd_icsd"
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            steps=146_700, lr_generator=1e-5, lr_critic=1e-5, betas_generator=(0.9, 0.999)
        )
    )

    def __post_init__(self) -> None:
        lookup("source of labels", self.labels, LABEL_SOURCES)
        lookup("mixing", self.mixing, losses.MIXINGS)
        lookup("training set", self.data, TRAINING_SETS)
        if self.width <= 0 or self.batch < 2:
            raise InputError(
                f"width={self.width}, batch={self.batch}: width must be positive and a batch "
                "holds at least 2 samples"
            )

    def but(self, **changes: Any) -> CubicGanConfig:
        """A copy with other values; keys of ``train`` may be given directly."""
        inner = {f.name for f in dataclasses.fields(TrainConfig)}
        train = dataclasses.replace(self.train, **{k: v for k, v in changes.items() if k in inner})
        outer = {k: v for k, v in changes.items() if k not in inner}
        return dataclasses.replace(self, train=train, **outer)


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
VARIANTS = {"paper": PAPER, "fixed": FIXED, "prototypes": PROTOTYPES}


# ---- networks


class RowConv(nn.Module):
    """A convolution of width 1 or 2 along a short axis, as one matrix product.

    Equal to ``nn.Conv1d`` without padding on (batch, channels, rows), but for (batch, …, rows,
    channels), and several times faster on the CPU for three rows, gradient penalty included.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.dense = nn.Linear(width * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(…, rows, channels_in) to (…, rows - width + 1, channels_out)."""
        if self.width == 2:
            x = torch.cat([x[..., :-1, :], x[..., 1:, :]], dim=-1)
        return self.dense(x)


class RowConvTranspose(nn.Module):
    """A transposed convolution of width 2: (…, k, channels) to (…, k + 1, channels)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = RowConv(channels_in, channels_out, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad one zero on both sides, then convolve: the same sums."""
        return self.conv(nn.functional.pad(x, (0, 0, 1, 1)))


class Generator(nn.Module):
    """Noise, space group and three elements to nine scaled coordinates and a scaled length."""

    def __init__(self, config: CubicGanConfig) -> None:
        super().__init__()
        c = [_channels(n, config.width) for n in (1024, 1024, 512, 512, 128)]
        self.group = nn.Embedding(N_GROUPS, 64)
        self.group_dense = nn.Linear(64, 96)
        self.element_dense = nn.Linear(N_FEATURES, 128)
        self.noise_dense = nn.Linear(config.latent, 256)
        self.merge = nn.Linear(96 + N_ROWS * 128 + 256, N_ROWS * 128)
        self.upsample = nn.ModuleList([RowConvTranspose(128, c[0]), RowConvTranspose(c[0], c[1])])
        self.pointwise = nn.ModuleList(
            [nn.Linear(a, b) for a, b in zip(c[1:], [*c[2:], 1], strict=True)]
        )
        self.drop = nn.Dropout(config.dropout_generator)
        self.sees_condition = config.length_sees_condition
        seen = N_ROWS * 3 + (N_ROWS * 128 if self.sees_condition else 0)
        hidden = (128, 64, 32) if self.sees_condition else (30, 18, 6)
        self.length = nn.Sequential(
            nn.Linear(seen, hidden[0]), nn.ReLU(),
            nn.Linear(hidden[0], hidden[1]), nn.ReLU(),
            nn.Linear(hidden[1], hidden[2]), nn.ReLU(),
            nn.Linear(hidden[2], 1), nn.Tanh(),
        )  # fmt: skip
        _glorot(self, normal=True)
        _glorot(self.merge, normal=False)
        _glorot(self.length, normal=False)

    def forward(self, noise: Tensor, group: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Generate.

        Args:
            noise: (batch, latent).
            group: (batch,) 0, 1, 2.
            features: (batch, 3, 23) scaled element features.

        Returns:
            positions (batch, 3, 3) and length (batch,), both in [-1, 1].
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
        c = [28, *(_channels(n, config.width) for n in (128, 512, 1024, 1024, 2048, 4096))]
        dense = [c[6], *(_channels(n, config.width) for n in (1024, 512, 256)), 32, 1]
        widths = (1, 1, 1, 2, 2, 2)
        self.rows = nn.ModuleList(
            [RowConv(c[i], c[i + 1], width) for i, width in enumerate(widths)]
        )
        self.dense = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(dense)])
        self.drop = nn.Dropout(config.dropout_critic)
        _glorot(self, normal=False)

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


@dataclass(frozen=True, eq=False)
class Labels:
    """What the model is conditioned on.

    Attributes:
        group: (n,) int64, 0, 1, 2 for 225, 216, 221.
        element: (n, 3) int64, rows of the descriptor's feature table.
    """

    group: Tensor
    element: Tensor


class CubicGan:
    """A generator with its critic, its descriptor and the labels it was trained on.

    Build one on data with `from_sites`, or load a trained one with ``imd.models.load("cubicgan")``.
    """

    def __init__(
        self,
        config: CubicGanConfig,
        descriptor: SymmetrySites,
        train_labels: Labels,
        *,
        seed: int = 0,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator, self.critic = Generator(config), Critic(config)
        self.config, self.descriptor, self.train_labels = config, descriptor, train_labels
        self.table = descriptor.feature_table  # (elements, 23)

    @classmethod
    def from_sites(cls, sites: Sites, config: CubicGanConfig, *, seed: int = 0) -> CubicGan:
        """A model with random weights, scaled and labelled by its training crystals."""
        descriptor = SymmetrySites.fit(
            sites, canonical=config.canonical, published_scaling=not config.canonical
        )
        written = canonical(sites) if config.canonical else sites
        labels = Labels(
            torch.as_tensor(descriptor.group_index(written.space_group)),
            descriptor.element_index(written.numbers),
        )
        return cls(config, descriptor, labels, seed=seed)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> CubicGan:
        """Move networks, feature table and labels, and return self."""
        self.generator.to(device)
        self.critic.to(device)
        self.table = self.table.to(device)
        self.train_labels = Labels(
            self.train_labels.group.to(device), self.train_labels.element.to(device)
        )
        return self

    # ---- sampling

    def sample(
        self,
        n: int,
        *,
        condition: Mapping[str, Any] | None = None,
        seed: int = 0,
        labels: str | None = None,
    ) -> Samples:
        """Generate n crystals and keep a verdict for each.

        Args:
            n: how many.
            condition: ``{"space_group": 225, "elements": ("Cs", "Pb", "I")}``, either or both;
                what is not given is drawn by `draw_labels`.
            seed: the same seed gives the same crystals on the same device.
            labels: how labels that are not given are drawn, ``uniform`` or ``data``; the
                model's own way unless given.

        Returns:
            n crystals, with the space groups that they were asked to have.

        Raises:
            InputError: n below 1, a condition of unknown kind, group or element.
        """
        sites = self.sample_sites(n, condition=condition, seed=seed, labels=labels)
        finite = np.isfinite(sites.length)
        made = decode_sites(sites, finite=finite)
        return dataclasses.replace(made, asked={"space_group": sites.space_group})

    @torch.no_grad()
    def sample_sites(
        self,
        n: int,
        *,
        condition: Mapping[str, Any] | None = None,
        seed: int = 0,
        labels: str | None = None,
        chunk: int = 4096,
    ) -> Sites:
        """Generate sites without filling the cells: what `sample` decodes."""
        if n < 1:
            raise InputError(f"n={n}: ask for at least one sample")
        rng = torch.Generator(device=self.device).manual_seed(seed)
        drawn = self.draw_labels(n, rng, source=labels or self.config.labels)
        drawn = self._apply(condition, drawn)
        self.generator.eval()
        parts = []
        for start in range(0, n, chunk):
            some = Labels(drawn.group[start : start + chunk], drawn.element[start : start + chunk])
            noise = torch.randn(
                len(some.group), self.config.latent, generator=rng, device=self.device
            )
            tensor = self.generate(noise, some)
            parts.append(self.descriptor.read_sites(tensor))
        return Sites(
            *(
                np.concatenate([getattr(p, f.name) for p in parts])
                for f in dataclasses.fields(Sites)
            )
        )

    def generate(self, noise: Tensor, labels: Labels) -> Tensor:
        """(batch, 3, 28) descriptors, with gradients."""
        features = self.table[labels.element]  # (batch, 3, 23)
        position, length = self.generator(noise, labels.group, features)
        if self.config.snap:
            position = self.descriptor.snap_position(position)
        return self.descriptor.assemble(position, features, length, labels.group)

    def draw_labels(self, n: int, rng: torch.Generator, *, source: str) -> Labels:
        """Draw space groups and elements.

        Groups follow the training frequencies. ``uniform`` takes any three different elements;
        ``data`` draws the element of each row from those that training crystals of the same
        group have in that row, each row on its own and with the square root of the frequency, so
        that most triples are new and rare elements are tried too.
        """
        lookup("source of labels", source, LABEL_SOURCES)
        known = self.train_labels
        pick = torch.randint(len(known.group), (n,), generator=rng, device=self.device)
        group = known.group[pick]
        if source == "uniform":
            return Labels(group, self._any_elements(n, rng))
        element = torch.empty(n, N_ROWS, dtype=torch.long, device=self.device)
        todo = torch.arange(n, device=self.device)
        while len(todo):  # redraw triples that repeat an element
            for row in range(N_ROWS):
                element[todo, row] = self._row_elements(group[todo], row, rng)
            ordered = element[todo].sort(1).values
            todo = todo[(ordered[:, 1:] == ordered[:, :-1]).any(1)]
        return Labels(group, self._in_row_order(element))

    def _any_elements(self, n: int, rng: torch.Generator) -> Tensor:
        keys = torch.rand(n, len(self.table), generator=rng, device=self.device)
        return keys.topk(N_ROWS, dim=1).indices  # three different ones, uniformly

    def _row_elements(self, group: Tensor, row: int, rng: torch.Generator) -> Tensor:
        out = torch.empty_like(group)
        known = self.train_labels
        for g in group.unique().tolist():
            mine = group == g
            seen = known.element[known.group == g, row]
            weight = torch.bincount(seen, minlength=len(self.table)).double().sqrt()
            out[mine] = torch.multinomial(weight, int(mine.sum()), replacement=True, generator=rng)
        return out

    def _in_row_order(self, element: Tensor) -> Tensor:
        """Sort each triple as `canonical` sorts rows: by electronegativity, then number."""
        if not self.config.canonical:
            return element
        numbers = np.array(self.descriptor.element_numbers)
        chi = np.nan_to_num(elements.column("electronegativity"), nan=9.0)[numbers]
        rank = torch.as_tensor(np.lexsort((numbers, chi)).argsort(), device=element.device)
        return element.gather(1, rank[element].argsort(1))

    def _apply(self, condition: Mapping[str, Any] | None, drawn: Labels) -> Labels:
        condition = dict(condition or {})
        group, element = drawn.group, drawn.element
        if "space_group" in condition:
            wanted = int(self.descriptor.group_index([condition.pop("space_group")])[0])
            group = torch.full_like(group, wanted)
        if "elements" in condition:
            element = self._wanted_elements(condition.pop("elements")).expand_as(element)
            element = self._in_row_order(element.clone())
        for name in condition:
            lookup("condition", name, ("space_group", "elements"))
        return Labels(group, element)

    def _wanted_elements(self, symbols: Sequence[str]) -> Tensor:
        if isinstance(symbols, str) or len(set(symbols)) != N_ROWS:
            raise InputError(
                f"elements={symbols!r}: give three different symbols, e.g. ('Cs', 'Pb', 'I')"
            )
        numbers = np.array([elements.number(symbol) for symbol in symbols])
        return self.descriptor.element_index(numbers).to(self.device)[None]

    # ---- on disk

    def save(self, path: Path | str, *, generator: nn.Module | None = None) -> Path:
        """Write networks, descriptor and labels to one safetensors file."""
        tensors = {
            **checkpoint.prefixed("generator", (generator or self.generator).state_dict()),
            **checkpoint.prefixed("critic", self.critic.state_dict()),
            "labels.group": self.train_labels.group,
            "labels.element": self.train_labels.element,
        }
        header = {
            "format": FORMAT,
            "config": dataclasses.asdict(self.config),
            "elements": list(self.descriptor.element_numbers),
            "length_max": self.descriptor.length_max,
            "coord_max": self.descriptor.coord_max.tolist(),
        }
        return checkpoint.write(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str) -> CubicGan:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: missing, truncated or foreign.
        """
        tensors, header = checkpoint.read(path, expect=FORMAT)
        train = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in header["config"].pop("train").items()
        }
        config = CubicGanConfig(**header["config"], train=TrainConfig(**train))
        descriptor = SymmetrySites(
            element_numbers=tuple(header["elements"]),
            length_max=header["length_max"],
            coord_max=np.array(header["coord_max"]),
            canonical=config.canonical,
        )
        labels = Labels(tensors["labels.group"], tensors["labels.element"])
        model = cls(config, descriptor, labels)
        source = str(path)
        checkpoint.load_into(
            model.generator, checkpoint.section("generator", tensors), source=source
        )
        checkpoint.load_into(model.critic, checkpoint.section("critic", tensors), source=source)
        return model


# ---- training


class CubicGame:
    """CubicGAN's training as a `Game`: real crystals on the device, batches drawn by index."""

    def __init__(self, model: CubicGan, sites: Sites, *, seed: int = 0) -> None:
        self.model, self.generator, self.critic = model, model.generator, model.critic
        self.real = model.descriptor.encode_sites(sites).to(model.device)  # (n, 3, 28)
        self.batch: Tensor | None = None
        self.turn = 0
        self.frozen: list[Labels] = []
        if model.config.frozen_labels:
            rng = torch.Generator(device=model.device).manual_seed(seed)
            n_sets = model.config.train.critic_steps + 1
            self.frozen = [self._draw(rng) for _ in range(n_sets)]

    def critic_terms(self) -> dict[str, Tensor]:
        """Wasserstein loss plus penalty; ``distance`` is the estimated Wasserstein distance."""
        self.generator.train()
        self.critic.train()
        real, config = self._real(), self.model.config
        with torch.no_grad():
            fake = self._fake()
        wasserstein = losses.critic_loss(self.critic(real), self.critic(fake))
        penalty = losses.gradient_penalty(self.critic, real, fake, mixing=config.mixing)
        loss = wasserstein + config.penalty * penalty
        return {"loss": loss, "distance": -wasserstein, "penalty": penalty}

    def generator_terms(self) -> dict[str, Tensor]:
        """Negative score of generated crystals."""
        loss = losses.generator_loss(self.critic(self._fake()))
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
        device = self.model.device
        self.frozen = [
            Labels(tensors[f"{i}.group"].to(device), tensors[f"{i}.element"].to(device))
            for i in range(len(tensors) // 2)
        ]

    def _real(self) -> Tensor:
        if self.batch is None or not self.model.config.one_real_batch:
            index = torch.randint(
                len(self.real), (self.model.config.batch,), device=self.real.device
            )
            self.batch = self.real[index]  # (batch, 3, 28)
        return self.batch

    def _fake(self) -> Tensor:
        if self.frozen:
            labels = self.frozen[self.turn]
            self.turn += 1
        else:
            labels = self._draw(None)
        noise = torch.randn(len(labels.group), self.model.config.latent, device=self.model.device)
        return self.model.generate(noise, labels)

    def _draw(self, rng: torch.Generator | None) -> Labels:
        """Labels for a batch of generated samples, in the way that the configuration names."""
        known, n, device = self.model.train_labels, self.model.config.batch, self.model.device
        pick = torch.randint(len(known.group), (n,), generator=rng, device=device)
        if self.model.config.labels == "data":
            return Labels(known.group[pick], known.element[pick])
        keys = torch.rand(n, len(self.model.table), generator=rng, device=device)
        return Labels(known.group[pick], keys.topk(N_ROWS, dim=1).indices)


def training_sites(split: str | None = "train", *, data: str = "oqmd_icsd") -> Sites:
    """What CubicGAN trains on: those of one split unless None.

    Args:
        split: ``train``, ``val``, ``test`` or None for all.
        data: ``oqmd_icsd`` for the 943 real crystals that pass the filter, ``cubic_prototypes``
            for the enumerated ones.

    Raises:
        UnknownNameError: no such split or training set.
    """
    from .. import datasets

    known = datasets.load(lookup("training set", data, TRAINING_SETS), split=split)
    if data == "cubic_prototypes":
        return _sites_of_prototypes(known)
    chosen = known.select(nelements=3, space_groups=list(SPACE_GROUPS))
    return find_sites(chosen.crystals)[0]


def _sites_of_prototypes(known: CrystalSet) -> Sites:
    """As `find_sites`, for crystals that are written orbit after orbit already."""
    crystals, n = known.crystals, len(known)
    group = known.table["space_group"].to_numpy()
    numbers = np.zeros((n, N_ROWS), dtype=np.int64)
    grid = np.zeros((n, N_ROWS, 3), dtype=np.int64)
    for kind in np.unique(group):
        rows = np.flatnonzero(group == kind)
        one = crystals.numbers[rows[0]].numpy()
        first = np.flatnonzero(np.diff(one, prepend=0) * (one > 0))  # where each orbit begins
        numbers[rows] = crystals.numbers.numpy()[rows][:, first]
        grid[rows] = np.rint(crystals.frac[rows[0]].numpy()[first] * GRID)
    return Sites(group, numbers, grid, crystals.lattice[:, 0, 0].numpy())


def recipe(variant: str, *, profile: str) -> CubicGanConfig:
    """Configuration of a variant for a profile: smaller and shorter than published.

    The published schedule (28.5 M critic weights, batch 256, 146,700 iterations) is days of two
    CPU cores. Both variants therefore train at one width, one batch size and one number of
    steps; each has the best of the learning rates that were tried for it, 2e-4 and 5e-4, and 5e-5
    for ``paper`` alone. ``PAPER`` itself is the published size: ``recipe("paper",
    profile="full").but(width=1.0, batch=256, steps=146_700, lr_generator=1e-5,
    lr_critic=1e-5)``.

    Raises:
        UnknownNameError: no such variant or profile.
    """
    lookup("variant", variant, VARIANTS)
    size = _SIZES[lookup("profile", profile, _SIZES)]
    return VARIANTS[variant].but(**_RATES[variant], **size)


_RATES = {
    "paper": {"lr_generator": 2e-4, "lr_critic": 2e-4},
    "fixed": {"lr_generator": 5e-4, "lr_critic": 5e-4},
    "prototypes": {"lr_generator": 5e-4, "lr_critic": 5e-4},
}
_SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"width": 1 / 32, "batch": 32, "steps": 60, "log_every": 5, "save_every": 60},
    "colab": {"width": 1 / 8, "batch": 64, "steps": 2_000},
    "full": {"width": 1 / 8, "batch": 64, "steps": 4_000},
}


def train(
    variant: str = "fixed",
    *,
    profile: str = "smoke",
    folder: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> tuple[CubicGan, History]:
    """Train one variant on the training split and, with ``folder``, keep weights and run.json.

    Args:
        variant: ``fixed``, ``paper`` or ``prototypes``.
        profile: ``smoke``, ``colab`` or ``full``, see `recipe`.
        folder: where ``training.safetensors``, ``model.safetensors`` and ``run.json`` go.
        resume: go on from the folder's ``training.safetensors``.
        seed: of the weights, the frozen labels and the training.
        changes: other values for the configuration, see `CubicGanConfig.but`.
        callbacks: see `imd_helpers.networks.fit`.
        progress: show a progress bar.

    Returns:
        The model, with the averaged generator where the configuration keeps one, and the history.
    """
    config = recipe(variant, profile=profile).but(**dict(changes or {}), seed=seed)
    sites = training_sites(data=config.data)
    model = CubicGan.from_sites(sites, config, seed=seed).to(device())
    game = CubicGame(model, sites, seed=seed)
    history = fit(
        game,
        config.train,
        folder=folder,
        resume=resume,
        callbacks=callbacks,
        progress=progress,
    )
    if history.ema is not None:
        model.generator.load_state_dict(history.ema.state_dict())
    if folder is not None:
        path = model.save(Path(folder) / "model.safetensors")
        about = {
            "model": "cubicgan",
            "variant": variant,
            "profile": profile,
            "config": dataclasses.asdict(config),
            "training_crystals": len(sites),
        }
        checkpoint.write_run(path, history, about=about)
    return model, history


# ---- parts


def _channels(published: int, width: float) -> int:
    return max(8, math.ceil(published * width))


@torch.no_grad()
def _glorot(network: nn.Module, *, normal: bool) -> None:
    """Keras' initial weights for every dense, convolution and embedding layer inside.

    Uniform with zero biases is Keras' default; the published generator asks for Glorot normal
    weights and biases. The fan counts the width of a convolution, as Keras does.
    """
    widths = {m.dense: m.width for m in network.modules() if isinstance(m, RowConv)}
    for layer in network.modules():
        if isinstance(layer, nn.Embedding):
            nn.init.xavier_normal_(layer.weight)
        elif isinstance(layer, nn.Linear):
            fan_in = layer.in_features
            fan_out = layer.out_features * widths.get(layer, 1)
            std = math.sqrt(2.0 / (fan_in + fan_out))
            if normal:
                nn.init.normal_(layer.weight, std=std)
                nn.init.normal_(layer.bias, std=math.sqrt(1.0 / layer.out_features))
            else:
                nn.init.uniform_(layer.weight, -math.sqrt(3.0) * std, math.sqrt(3.0) * std)
                nn.init.zeros_(layer.bias)
