"""MatGAN: a Wasserstein GAN over compositions, written as matrices of 85 elements x 8 counts.

Source: Dan et al., Generative adversarial networks (GAN) based efficient sampling of chemical
composition space for inverse design of inorganic materials, npj Comput. Mater. 6 (2020) 84, and
its code originofmatter/MatGAN at commit e36c744. The code holds networks, losses and decoding;
it has no training loop and no training data. Where the text gives another loss than the code, the
loss is a switch of `MatGanConfig`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.samples import Samples
from ..datasets import formula_sets
from ..descriptors.composition_matrix import (
    ELEMENTS,
    FEWEST,
    MAX_COUNT,
    MOST,
    CompositionMatrix,
)
from ..networks import History, TrainConfig, checkpoint, fit, layers, losses
from ..networks.fit import Callback
from ..runtime import InputError, device, lookup

FORMAT = "imd-matgan-1"
NETWORKS = ("oqmd", "icsd", "signal", "dense", "sequence")
DRAWING = NETWORKS[3:]
LOSSES = ("penalty", "plain", "clipped", "logistic")
GRADIENTS = ("path", "score")
CELLS = len(ELEMENTS) * MAX_COUNT
CLIP = 0.01  # of the published code, in a path that it never takes
CHUNK = 8_192  # samples made at once: 22 MB of matrices
Keep = Callable[[np.ndarray], np.ndarray]
HEIGHTS = (6, 11, 22, 43, 85)  # rows of the matrix on its way through the published generator


@dataclass(frozen=True)
class MatGanConfig:
    """Architecture and training of one MatGAN; the defaults are the published code, size ICSD.

    Attributes:
        network: ``oqmd``, ``icsd`` (also used for MP) and ``signal`` are the published layers;
            ``dense`` are two perceptrons, whose generator draws all elements at once; with
            ``sequence`` it draws one after the other, and each draw knows those before it.
        width: factor on the published number of channels, or on 256 hidden units.
        latent: length of the noise vector.
        normal_weights: draw all weights from N(0, 1), as published, instead of torch's way.
        norm_in_critic: batch normalisation in the critic, as published; the gradient penalty of
            a sample then depends on the other samples of its batch.
        hard: let the generator draw, so that the critic is shown matrices of zeros and ones from
            both sides; otherwise 680 sigmoids.
        gradient: how the generator learns from a critic. ``path``: through the matrix, and where it
            is drawn as if the draws were a softmax (straight-through Gumbel-softmax). ``score``:
            from the log-probability of what was drawn, weighted by its score (REINFORCE, baseline
            from the rest of the batch); without bias, only for ``sequence``.
        counts: give a drawing network's critic, beside the matrix, each element's count and its
            fraction of the atoms: a sum of charges is then linear in what it sees.
        entropy: with ``score``, this times minus the log-probability is added to the score of what
            was drawn: a reward for variety.
        temperature: of the softmax that stands in for a draw.
        dropout: share of a drawing network's critic that is left out at random while it learns, so
            that it cannot know its training formulas by heart.
        loss: of the critic. Wasserstein: ``penalty`` (code), ``plain`` (text: nothing keeps the
            critic's slope) or ``clipped`` (weights clipped to 0.01). ``logistic``: classification;
            the score is then the logarithm of how much more frequent real compositions are.
        penalty: factor of the gradient penalty.
        condition: property that generator and critic are given, or ``""`` for none.
        batch: samples a batch.
        data: training set, see `formula_sets.ROLES`.
        train: rates, betas and number of steps.
    """

    network: str = "icsd"
    width: float = 1.0
    latent: int = 128
    normal_weights: bool = True
    norm_in_critic: bool = True
    hard: bool = False
    gradient: str = "path"
    counts: bool = False
    dropout: float = 0.0
    entropy: float = 0.0
    temperature: float = 1.0
    loss: str = "penalty"
    penalty: float = 10.0
    condition: str = ""
    batch: int = 32
    data: str = "icsd"
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(
            steps=571_900, critic_steps=1, lr_generator=1e-3, lr_critic=1e-2
        )
    )

    def __post_init__(self) -> None:
        lookup("network", self.network, NETWORKS)
        lookup("loss", self.loss, LOSSES)
        lookup("gradient", self.gradient, GRADIENTS)
        lookup("training set", self.data, formula_sets.ROLES)
        if self.condition:
            lookup("property", self.condition, formula_sets.PROPERTIES)
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: a share lies in [0, 1), e.g. 0.5")
        if self.width <= 0 or self.batch < 2 or self.temperature <= 0:
            raise InputError(
                f"width={self.width}, batch={self.batch}, temperature={self.temperature}: width "
                "and temperature must be positive, and a batch holds at least 2 samples"
            )
        if self.entropy and self.gradient != "score":
            raise InputError(
                f"entropy={self.entropy} with gradient={self.gradient!r}: variety can be rewarded "
                "only with gradient='score'"
            )
        if self.gradient == "score" and self.network != "sequence":
            raise InputError(
                f"gradient='score' with network={self.network!r}: only 'sequence' knows the "
                "probability of what it drew; take gradient='path'"
            )
        drawing = self.network in DRAWING
        ours = self.condition or self.counts or self.dropout
        if self.hard != drawing or (ours and not drawing):
            raise InputError(
                f"network={self.network!r}, hard={self.hard}, condition={self.condition!r}, "
                f"counts={self.counts}, dropout={self.dropout}: the published networks write "
                "sigmoids and have no condition, counts or dropout; "
                f"{' and '.join(DRAWING)} draw"
            )

    def but(self, **changes: Any) -> MatGanConfig:
        """A copy with other values; keys of ``train`` may be given directly."""
        inner = {f.name for f in dataclasses.fields(TrainConfig)}
        train = dataclasses.replace(self.train, **{k: v for k, v in changes.items() if k in inner})
        outer = {k: v for k, v in changes.items() if k not in inner}
        return dataclasses.replace(self, train=train, **outer)


PAPER = MatGanConfig()
FIXED = MatGanConfig(
    network="sequence",
    latent=64,
    normal_weights=False,
    norm_in_critic=False,
    hard=True,
    gradient="score",
    counts=True,
    dropout=0.5,
    entropy=0.1,
    loss="logistic",
    batch=128,
    train=TrainConfig(
        steps=8_000,
        critic_steps=5,
        lr_generator=5e-4,
        lr_critic=5e-4,
        fall=0.25,
        betas_generator=(0.0, 0.9),
        weight_decay_critic=1.0,
        ema=0.998,
        log_every=100,
    ),
)
VARIANTS = {
    "paper": PAPER,
    "fixed": FIXED,
    "neutral": FIXED,  # trained on the charge-neutral part of its set, see `train`'s ``keep``
    "oqmd": FIXED.but(data="oqmd"),
    "mp": FIXED.but(data="mp"),
    "energy": FIXED.but(condition="formation_energy"),
    "gap": FIXED.but(condition="band_gap"),
}


# ---- networks

# (kernel, stride in rows and columns, channels): first the dense layer's channels of 6 x 4
_GENERATORS: dict[str, tuple[int, tuple[tuple[int, tuple[int, int], int], ...]]] = {
    "oqmd": (
        256,
        (
            *((5, (2, 2), 128), (3, (1, 1), 128), (3, (2, 1), 64), (3, (1, 1), 64)),
            *((3, (2, 1), 32), (3, (1, 1), 32), (3, (2, 1), 1)),
        ),
    ),
    "icsd": (128, ((5, (2, 2), 64), (3, (2, 1), 32), (3, (2, 1), 16), (3, (2, 1), 1))),
    "signal": (256, ((5, (2, 2), 128), (3, (2, 1), 64), (3, (2, 1), 32), (3, (2, 1), 1))),
}
_CRITICS: dict[str, tuple[tuple[int, tuple[int, int], int], ...]] = {
    "oqmd": (
        *((3, (1, 1), 32), (3, (2, 1), 32), (3, (1, 1), 64), (3, (2, 1), 64)),
        *((3, (1, 1), 128), (3, (2, 1), 128), (5, (2, 2), 256)),
    ),
    "icsd": (
        *((3, (1, 1), 16), (3, (2, 1), 16), (3, (1, 1), 32), (3, (1, 1), 64)),
        (5, (2, 2), 128),
    ),
    "signal": (
        *((3, (1, 1), 32), (3, (2, 1), 32), (3, (1, 1), 64), (3, (1, 1), 128)),
        (5, (2, 2), 256),
    ),
}


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's ``SAME`` does: the odd zero at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, channels, rows / stride, …), rounded up."""
        pads: list[int] = []
        for axis in (1, 0):  # last axis first
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class SameConvTranspose(nn.ConvTranspose2d):
    """The transpose of `SameConv`, to a size that is given, since several shrink to one."""

    def __init__(
        self, into: int, out: int, kernel: int, stride: tuple[int, int], size: tuple[int, int]
    ) -> None:
        super().__init__(into, out, kernel, stride)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) to (batch, channels, *size)."""
        full = super().forward(x)
        for axis in (0, 1):
            start = max(full.shape[2 + axis] - self.size[axis], 0) // 2
            full = full.narrow(2 + axis, start, self.size[axis])
        return full


class Generator(nn.Module):
    """The published generator: noise to (batch, 85, 8) values between 0 and 1."""

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        first, plan = _GENERATORS[config.network]
        channels = _channels(first, config.width)
        self.seed = (channels, HEIGHTS[0], 4)
        self.dense = nn.Linear(config.latent, math.prod(self.seed))
        self.first_norm = nn.BatchNorm2d(channels)
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        step = 0
        for kernel, stride, published in plan:
            out = 1 if published == 1 else _channels(published, config.width)
            step += stride[0] == 2
            size = (HEIGHTS[step], MAX_COUNT)
            self.layers.append(SameConvTranspose(channels, out, kernel, stride, size))
            self.norms.append(nn.BatchNorm2d(out) if out > 1 else nn.Identity())
            channels = out

    def forward(self, noise: Tensor) -> Tensor:
        """(batch, latent) to (batch, 85, 8)."""
        x = self.dense(noise).view(-1, *self.seed)  # (batch, channels, 6, 4)
        x = torch.relu(self.first_norm(x))
        for layer, norm in zip(self.layers[:-1], self.norms[:-1], strict=True):
            x = torch.relu(norm(layer(x)))  # (batch, channels, 11 → 22 → 43, 8)
        return torch.sigmoid(self.layers[-1](x)).squeeze(1)


class Critic(nn.Module):
    """The published critic: (batch, 85, 8) to one score."""

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        into, size = 1, [len(ELEMENTS), MAX_COUNT]
        for index, (kernel, stride, published) in enumerate(_CRITICS[config.network]):
            out = _channels(published, config.width)
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


class DrawingGenerator(nn.Module):
    """Noise, and a condition if there is one, to a matrix whose rows are drawn all at once."""

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        width, self.temperature = _channels(256, config.width), config.temperature
        into = config.latent + bool(config.condition)
        rows = len(ELEMENTS) * (MAX_COUNT + 1)
        self.body = layers.mlp([into, width, 2 * width, 2 * width, rows], activation=nn.ReLU())
        bias = self.body[-1].bias.data.view(len(ELEMENTS), MAX_COUNT + 1)
        bias.zero_()
        bias[:, 0] = 4.0  # start near 12 elements a sample, not near 75

    def forward(self, noise: Tensor) -> Tensor:
        """(batch, latent [+ 1]) to (batch, 85, 8): zeros and ones, with the softmax's gradient."""
        logits = self.body(noise).view(-1, len(ELEMENTS), MAX_COUNT + 1)
        return draw(logits, self.temperature)[:, :, 1:]


class SequenceGenerator(nn.Module):
    """Noise, and a condition if there is one, to a matrix drawn element by element.

    A recurrent state starts from the noise. It draws an element, then that element's count, takes
    both in, and goes on until it draws "stop", which it may after two elements. An element that is
    there is not drawn again, so each sample has two to eight elements.
    """

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        width, self.temperature = _channels(256, config.width), config.temperature
        n, into = len(ELEMENTS), config.latent + bool(config.condition)
        self.start = layers.mlp([into, width, width], activation=nn.ReLU())
        self.element = layers.mlp([width, width, n + 1], activation=nn.ReLU())  # the last: stop
        self.element[-1].bias.data[n] = math.log(n)  # at first every second sample stops
        self.count = layers.mlp([width + n, width, MAX_COUNT], activation=nn.ReLU())
        self.cell = nn.GRUCell(n + MAX_COUNT, width)

    def forward(self, noise: Tensor) -> Tensor:
        """(batch, latent [+ 1]) to (batch, 85, 8): zeros and ones, with the softmax's gradient."""
        return self.written(noise)[0]

    def written(self, noise: Tensor, *, score: bool = False) -> tuple[Tensor, Tensor]:
        """What is drawn from noise, and the logarithm of its probability.

        Args:
            noise: (batch, latent [+ 1]).
            score: give the logarithm its gradient, and the matrix none; otherwise the other way
                round, and the logarithm stays zero.

        Returns:
            (batch, 85, 8) zeros and ones, and (batch,).
        """
        n = len(ELEMENTS)
        state = torch.tanh(self.start(noise))
        matrix = noise.new_zeros(len(noise), n, MAX_COUNT)
        log_probability = noise.new_zeros(len(noise))
        rows = torch.arange(len(noise), device=noise.device)  # samples that still grow
        closed = torch.zeros(len(noise), n + 1, dtype=torch.bool, device=noise.device)
        for place in range(MOST):
            closed[:, n] = place < FEWEST
            logits = self.element(state).masked_fill(closed, -30.0)
            drawn = draw(logits.detach() if score else logits, self.temperature)
            element = drawn[:, :n]  # zeros after "stop", but with a gradient that says what if
            counts = self.count(torch.cat([state, element], 1))
            count = draw(counts.detach() if score else counts, self.temperature)
            matrix = matrix.index_add(0, rows, element[:, :, None] * count[:, None, :])
            if score:
                one = (logits.log_softmax(1) * drawn).sum(1)
                two = (counts.log_softmax(1) * count).sum(1) * element.sum(1)  # none after "stop"
                log_probability = log_probability.index_add(0, rows, one + two)
            on = (drawn[:, n] < 0.5).nonzero()[:, 0]
            if place == MOST - 1 or not len(on):
                break
            rows, closed = rows[on], closed[on] | (drawn[on] > 0.5)
            state = self.cell(torch.cat([element, count], 1)[on], state[on])
        return matrix, log_probability


def draw(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """One of the last axis, as zeros and a one; backwards, the softmax of the same noisy logits.

    Args:
        logits: (…, k).
        temperature: of the softmax; the draws themselves do not depend on it.

    Source:
        Jang et al., ICLR 2017 (straight-through Gumbel-softmax).
    """
    uniform = torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)
    soft = ((logits - (-uniform.log()).log()) / temperature).softmax(-1)
    drawn = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return drawn + (soft - soft.detach()) if soft.requires_grad else drawn


class DenseCritic(nn.Module):
    """(batch, 85, 8), and a condition if there is one, to one score."""

    def __init__(self, config: MatGanConfig) -> None:
        super().__init__()
        width, self.counts = _channels(256, config.width), config.counts
        into = CELLS + 2 * len(ELEMENTS) * self.counts + bool(config.condition)
        self.body = layers.mlp(
            [into, 2 * width, 2 * width, width, 1],
            activation=nn.LeakyReLU(0.2),
            norm=(lambda _: nn.Dropout(config.dropout)) if config.dropout else None,
        )

    def forward(self, matrix: Tensor, condition: Tensor | None = None) -> Tensor:
        """(batch, 85, 8) and (batch, 1) to (batch, 1)."""
        seen = [matrix.flatten(1)]
        if self.counts:
            levels = torch.arange(1, MAX_COUNT + 1, dtype=matrix.dtype, device=matrix.device)
            count = matrix @ levels  # (batch, 85)
            atoms = count.sum(1, keepdim=True).clamp(min=1.0)
            seen += [count / 4, 8 * count / atoms]  # both near 1 where an element is
        if condition is not None:
            seen.append(condition)
        return self.body(torch.cat(seen, dim=1))


_DRAWING: dict[str, type[nn.Module]] = {"dense": DrawingGenerator, "sequence": SequenceGenerator}


# ---- the model


class MatGan:
    """A generator of compositions with its critic; load one with ``imd.models.load("matgan")``."""

    def __init__(
        self, config: MatGanConfig, *, scale: tuple[float, float] = (0.0, 1.0), seed: int = 0
    ) -> None:
        drawing = _DRAWING.get(config.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator: nn.Module = (drawing or Generator)(config)
            self.critic: nn.Module = (DenseCritic if drawing else Critic)(config)
            if config.normal_weights:
                _draw_normal_weights(self.generator, self.critic)
        self.config, self.scale = config, scale
        self.descriptor = CompositionMatrix("argmax" if config.hard else "published")

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def to(self, device: torch.device | str) -> MatGan:
        """Move the networks and return self."""
        self.generator.to(device)
        self.critic.to(device)
        return self

    # ---- sampling

    def sample(self, n: int, *, condition: Any = None, seed: int = 0) -> Samples:
        """Make n compositions, with a reason for each matrix that is none.

        Args:
            n: how many.
            condition: of a conditional model, the property asked for: one value, or n.
            seed: the same seed gives the same compositions.

        Raises:
            InputError: n below 1, or a condition that the model does not have, or lacks.
        """
        return Samples.cat(list(self.stream(n, condition=condition, seed=seed)))

    def stream(self, n: int, *, condition: Any = None, seed: int = 0) -> Iterator[Samples]:
        """The same in pieces of 8,192, so that no more matrices are in memory at once.

        Each piece has a random stream of its own, drawn from the seed and its place: pieces can
        be made in any order, or by different processes.
        """
        if n < 1:
            raise InputError(f"n={n}: ask for at least one composition")
        wanted = self._wanted(condition, n)
        for start in range(0, n, CHUNK):
            rows = slice(start, min(start + CHUNK, n))
            part = None if wanted is None else wanted[rows]
            yield self.piece(start // CHUNK, rows.stop - start, wanted=part, seed=seed)

    @torch.no_grad()
    def piece(self, index: int, n: int, *, wanted: Tensor | None = None, seed: int = 0) -> Samples:
        """Piece ``index`` of a stream: n compositions.

        Args:
            index: place of the piece.
            n: how many, at most 8,192.
            wanted: (n, 1) scaled condition.
            seed: of the whole stream.
        """
        self.generator.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
            noise = torch.randn(n, self.config.latent).to(self.device)
            if wanted is not None:
                noise = torch.cat([noise, wanted.to(self.device)], dim=1)
            matrices = torch.cat([self.generator(part) for part in noise.split(1024)])
        return self.descriptor.decode(matrices)

    def _wanted(self, condition: Any, n: int) -> Tensor | None:
        name = self.config.condition
        if (condition is None) == bool(name):
            raise InputError(
                f"condition={condition!r}: this model was trained "
                + (f"on {name}, ask for a value of it" if name else "without a condition")
            )
        if condition is None:
            return None
        values = np.broadcast_to(np.asarray(condition, dtype=np.float32), (n,))
        return self.scaled(values)

    def scaled(self, values: np.ndarray) -> Tensor:
        """(n, 1) property as the networks see it: mean 0 and variance 1 in the training set."""
        mean, spread = self.scale
        return torch.as_tensor((values - mean) / spread, dtype=torch.float32)[:, None]

    # ---- on disk

    def save(self, path: Path | str, *, half: bool = True) -> Path:
        """Write the networks to one safetensors file.

        Args:
            path: the file.
            half: as 16-bit floats, half the size; the sampled formulas hardly change.
        """
        tensors = {
            **checkpoint.prefixed("generator", self.generator.state_dict()),
            **checkpoint.prefixed("critic", self.critic.state_dict()),
        }
        if half:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        header = {
            "format": FORMAT,
            "config": dataclasses.asdict(self.config),
            "scale": list(self.scale),
        }
        return checkpoint.write(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str) -> MatGan:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: missing, truncated or foreign.
        """
        tensors, header = checkpoint.read(path, expect=FORMAT)
        train = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in header["config"].pop("train").items()
        }
        config = MatGanConfig(**header["config"], train=TrainConfig(**train))
        model = cls(config, scale=tuple(header["scale"]))
        for name in ("generator", "critic"):
            checkpoint.load_into(
                getattr(model, name), checkpoint.section(name, tensors), source=str(path)
            )
        return model


# ---- training


class MatGame:
    """MatGAN's training as a `Game`; the data stay counts, one byte a cell."""

    def __init__(self, model: MatGan, counts: np.ndarray, values: np.ndarray | None = None) -> None:
        self.model, self.generator, self.critic = model, model.generator, model.critic
        chosen = np.take(counts, ELEMENTS, axis=1).astype(np.int64)
        self.counts = torch.as_tensor(chosen, dtype=torch.uint8, device=model.device)  # (n, 85)
        self.values = None if values is None else model.scaled(values).to(model.device)
        self.levels = torch.arange(1, MAX_COUNT + 1, dtype=torch.uint8, device=model.device)

    def critic_terms(self) -> dict[str, Tensor]:
        """The critic's loss; ``distance`` is the mean score of real minus generated samples."""
        self.generator.train()
        self.critic.train()
        config = self.model.config
        if config.loss == "clipped":
            losses.clip_weights(self.critic, CLIP)
        real, condition = self._real()
        with torch.no_grad():
            fake = self._fake(condition)
        score = self._scorer(condition)
        of_real, of_fake = score(real), score(fake)
        wasserstein = losses.critic_loss(of_real, of_fake)
        terms = {"loss": wasserstein, "distance": -wasserstein}
        if config.loss == "logistic":
            terms["loss"] = losses.minimax_discriminator_loss(of_real, of_fake)
        if config.loss == "penalty":
            terms["penalty"] = losses.gradient_penalty(score, real, fake)
            terms["loss"] = wasserstein + config.penalty * terms["penalty"]
        return terms

    def generator_terms(self) -> dict[str, Tensor]:
        """Negative score of generated compositions, or what has the gradient of its mean."""
        _, condition = self._real()
        if self.model.config.gradient == "path":
            return {"loss": losses.generator_loss(self._scorer(condition)(self._fake(condition)))}
        if condition is not None:
            condition = condition.repeat(2, 1)
        self.critic.eval()  # the whole network judges
        noise = self._noise(2 * self.model.config.batch, condition)
        matrix, log_probability = self.generator.written(noise, score=True)
        with torch.no_grad():
            score = self._scorer(condition)(matrix)[:, 0]
            reward = score - self.model.config.entropy * log_probability
        return {"loss": losses.reinforce_loss(log_probability, reward), "score": score.mean()}

    def tensors(self) -> dict[str, Tensor]:
        """Nothing beside the networks."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Nothing to take back."""

    def _real(self) -> tuple[Tensor, Tensor | None]:
        where = self.counts.device
        index = torch.randint(len(self.counts), (self.model.config.batch,), device=where)
        matrix = (self.counts[index][:, :, None] == self.levels).float()  # (batch, 85, 8)
        return matrix, None if self.values is None else self.values[index]

    def _fake(self, condition: Tensor | None) -> Tensor:
        return self.generator(self._noise(self.model.config.batch, condition))

    def _noise(self, n: int, condition: Tensor | None) -> Tensor:
        noise = torch.randn(n, self.model.config.latent, device=self.counts.device)
        return noise if condition is None else torch.cat([noise, condition], dim=1)

    def _scorer(self, condition: Tensor | None) -> losses.Scorer:
        if condition is None:
            return self.critic
        return lambda matrix: self.critic(matrix, condition)


def recipe(variant: str, *, profile: str) -> MatGanConfig:
    """Configuration of a variant for a profile.

    ``paper`` keeps every layer, the published width, rates and batch; its length is smaller:
    1,000 passes over the ICSD, as published, are three days of one CPU core.

    Raises:
        UnknownNameError: no such variant or profile.
    """
    lookup("variant", variant, VARIANTS)
    sizes = _SIZES["paper" if variant == "paper" else "fixed"]
    return VARIANTS[variant].but(**sizes[lookup("profile", profile, sizes)])


_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "smoke": {"width": 1 / 8, "batch": 16, "steps": 40, "log_every": 5, "save_every": 40},
        "colab": {"steps": 10_000, "log_every": 100},
        "full": {"steps": 6_000, "log_every": 100},
    },
    "fixed": {
        "smoke": {"width": 1 / 4, "batch": 64, "steps": 60, "log_every": 5, "save_every": 60},
        "colab": {},
        "full": {},
    },
}


def train(
    variant: str = "fixed",
    *,
    profile: str = "smoke",
    folder: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> tuple[MatGan, History]:
    """Train one variant on the training split and, with ``folder``, keep weights and run.json.

    Args:
        variant: ``fixed``, ``paper``, or another of `VARIANTS`.
        profile: ``smoke``, ``colab`` or ``full``, see `recipe`.
        folder: where ``training.safetensors``, ``model.safetensors`` and ``run.json`` go.
        resume: go on from the folder's ``training.safetensors``.
        seed: of the weights and the training.
        changes: other values for the configuration, see `MatGanConfig.but`.
        keep: rule that maps (n, 119) counts to (n,) bool; only training compositions that pass are
            used, e.g. ``imd.judge.charge_neutral``.
        callbacks: see `imd_helpers.networks.fit`.
        progress: show a progress bar.

    Returns:
        The model, with the averaged generator where the configuration keeps one, and the history.
    """
    config = recipe(variant, profile=profile).but(**dict(changes or {}), seed=seed)
    counts, values = formula_sets.compositions(config.data, value=config.condition or None)
    if keep is not None:
        chosen = keep(counts)
        counts, values = counts[chosen], None if values is None else values[chosen]
    scale = (0.0, 1.0) if values is None else (float(values.mean()), float(values.std()))
    model = MatGan(config, scale=scale, seed=seed).to(device())
    history = fit(
        MatGame(model, counts, values),
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
            "model": "matgan",
            "variant": variant,
            "profile": profile,
            "config": dataclasses.asdict(config),
            "kept_by": "" if keep is None else getattr(keep, "__name__", repr(keep)),
            "training_compositions": len(counts),
        }
        checkpoint.write_run(path, history, about=about)
    return model, history


# ---- the autoencoder twin


class Autoencoder(nn.Module):
    """The autoencoder beside MatGAN: the critic's layers, a latent vector, the generator's layers.

    The paper's argument: what a decoder of this shape cannot write, the generator will not write.

    Args:
        config: sizes; batch normalisation in both halves.
    """

    def __init__(self, config: MatGanConfig = PAPER) -> None:
        super().__init__()
        self.encoder = Critic(config.but(norm_in_critic=True))
        self.encoder.score = nn.Linear(self.encoder.n_features, config.latent)
        self.decoder = Generator(config)

    def forward(self, matrix: Tensor) -> Tensor:
        """(batch, 85, 8) to (batch, 85, 8) values between 0 and 1."""
        return self.decoder(self.encoder(matrix))


def dice_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Minus the Dice overlap 2 A·B / (|A| + |B|) of two matrices, mean over the batch.

    -1 for equal matrices of zeros and ones, 0 for matrices that share nothing. Cells that are empty
    in both do not count, and 99 % of a composition matrix is empty.

    Args:
        found: (batch, …) values from 0 to 1.
        wanted: (batch, …) zeros and ones.

    Source:
        Dan et al. (2020), supplement.
    """
    a, b = found.flatten(1), wanted.flatten(1)
    return -(2 * (a * b).sum(1) / (a.sum(1) + b.sum(1)).clamp(min=1e-6)).mean()


# ---- parts


def _channels(published: int, width: float) -> int:
    return max(4, math.ceil(published * width))


@torch.no_grad()
def _draw_normal_weights(*networks: nn.Module) -> None:
    """N(0, 1) for every weight of a dense layer or convolution, zeros for biases."""
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
