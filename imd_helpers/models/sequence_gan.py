"""A GAN over compositions that writes them element by element: what one would do today.

The book's own model, for the task that MatGAN was published for. It shares the descriptor and the
training sets with `matgan`, and no layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.samples import Samples
from ..datasets import formula_sets
from ..descriptors.composition_matrix import ELEMENTS, FEWEST, MAX_COUNT, MOST
from ..networks import TrainConfig, layers, losses
from ..runtime import InputError
from .gan import Condition, GanConfig
from .matgan import CompositionGan

CELLS = len(ELEMENTS) * MAX_COUNT


@dataclass(frozen=True)
class SequenceGanConfig(GanConfig):
    """Architecture and training of one model; width 1.0 is 256 hidden units.

    The generator learns from a critic along the ``path`` through the matrix, as if the draws were a
    softmax (straight-through Gumbel-softmax), or by the ``score``: from the log-probability of what
    was drawn, weighted by its score (REINFORCE), without bias.
    """

    CHOICES: ClassVar = {
        "loss": ("penalty", "logistic"),
        "gradient": ("path", "score"),
        "condition": ("", *formula_sets.PROPERTIES),
        "data": formula_sets.ROLES,
    }
    latent: int = 64
    gradient: str = "score"
    counts: bool = True  # show the critic each element's count and its fraction of the atoms too
    dropout: float = 0.5  # of the critic, so that it cannot know its training formulas by heart
    entropy: float = 0.1  # reward for variety, times minus the log-probability of what was drawn
    loss: str = "logistic"  # of the critic: classification; ``penalty`` is Wasserstein's
    condition: str = ""  # property that generator and critic are given
    batch: int = 128
    data: str = "icsd"
    train: TrainConfig = TrainConfig(
        steps=8_000,
        lr_generator=5e-4,
        lr_critic=5e-4,
        fall=0.25,
        betas_generator=(0.0, 0.9),
        weight_decay_critic=1.0,
        ema=0.998,
        log_every=100,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entropy and self.gradient != "score":
            raise InputError(
                f"entropy={self.entropy} with gradient={self.gradient!r}: variety can be rewarded "
                "only with gradient='score'"
            )


ICSD = SequenceGanConfig()


# ---- networks


class SequenceGenerator(nn.Module):
    """Noise, and a condition if there is one, to a matrix drawn element by element.

    A recurrent state starts from the noise. It draws an element, then that element's count, takes
    both in, and goes on until it draws "stop", which it may after two elements. An element that is
    there is not drawn again, so each sample has two to eight elements.
    """

    def __init__(self, config: SequenceGanConfig) -> None:
        super().__init__()
        width = config.channels(256)
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
        """(batch, 85, 8) zeros and ones drawn from noise, and (batch,) logarithms of probability.

        With ``score`` the logarithm has a gradient, and the matrix none; otherwise the other way
        round, and the logarithm stays zero.
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
            drawn = layers.draw(logits.detach() if score else logits)
            element = drawn[:, :n]  # zeros after "stop", but with a gradient that says what if
            counts = self.count(torch.cat([state, element], 1))
            count = layers.draw(counts.detach() if score else counts)
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


class DenseCritic(nn.Module):
    """(batch, 85, 8), and a condition if there is one, to one score."""

    def __init__(self, config: SequenceGanConfig) -> None:
        super().__init__()
        width, self.counts = config.channels(256), config.counts
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


# ---- the model


class SequenceGan(CompositionGan):
    """A generator of compositions with its critic; load one with ``imd.models.load``."""

    name = "sequence_gan"
    Config = SequenceGanConfig
    KEPT_BY: ClassVar = {"neutral": "charge_neutral"}
    VARIANTS: ClassVar = {
        "icsd": ICSD,
        "neutral": ICSD.but(steps=5_000),  # see ``KEPT_BY``
        "oqmd": ICSD.but(data="oqmd", steps=5_000),
        "mp": ICSD.but(data="mp"),
        "energy": ICSD.but(condition="formation_energy"),
        "gap": ICSD.but(condition="band_gap"),
    }
    SMOKE: ClassVar = {"width": 1 / 4, "batch": 64, "steps": 60, "log_every": 5, "save_every": 60}
    PROFILES: ClassVar = {"": {"smoke": SMOKE, "colab": {}, "full": {}}}
    LEARNT = ("scale",)
    DROPPED: ClassVar = {
        "hard": True,
        "network": "sequence",
        "norm_in_critic": False,
        "normal_weights": False,
        "temperature": 1.0,
    }

    @property
    def conditions(self) -> tuple[str, ...]:
        """The property that it was trained with, if any."""
        return (self.config.condition,) if self.config.condition else ()

    def build(self) -> dict[str, nn.Module]:
        """Generator and critic; a property that was never learnt keeps its own scale."""
        self.learnt.setdefault("scale", [0.0, 1.0])
        return {"generator": SequenceGenerator(self.config), "critic": DenseCritic(self.config)}

    # ---- data

    @classmethod
    def read(cls, config: SequenceGanConfig, split: str | None = "train") -> Samples:
        """Compositions, with the property of each where the model is given one."""
        name = config.condition
        counts, values = formula_sets.compositions(config.data, split=split, value=name or None)
        return Samples.of(counts, asked={} if values is None else {name: values})

    @classmethod
    def learn(cls, data: Samples, config: SequenceGanConfig) -> dict[str, Any]:
        """Mean and spread of the property in the training set."""
        values = data.asked.get(config.condition)
        return {} if values is None else {"scale": [float(values.mean()), float(values.std())]}

    def prepare(self, data: Samples, *, seed: int = 0) -> None:
        """Keep counts and scaled properties on the device."""
        super().prepare(data.counts)
        values = data.asked.get(self.config.condition)
        self.values = None if values is None else self.scaled(values)

    def scaled(self, values: np.ndarray) -> Tensor:
        """(n, 1) property as the networks see it: mean 0 and variance 1 in the training set."""
        mean, spread = self.learnt["scale"]
        scaled = torch.as_tensor((values - mean) / spread, dtype=torch.float32)
        return scaled[:, None].to(self.device)

    # ---- training

    def generator_terms(self) -> dict[str, Tensor]:
        """Negative score of generated compositions, or what has the gradient of its mean."""
        if self.config.gradient == "path":
            return super().generator_terms()
        _, condition = self.real()
        if condition is not None:
            condition = condition.repeat(2, 1)
        self.critic.eval()  # the whole network judges
        noise = self.noise(2 * self.config.batch, condition)
        matrix, log_probability = self.generator.written(noise, score=True)
        with torch.no_grad():
            score = self.scorer(condition)(matrix)[:, 0]
            reward = score - self.config.entropy * log_probability
        return {"loss": losses.reinforce_loss(log_probability, reward), "score": score.mean()}

    # ---- sampling

    def wanted(self, condition: Condition, n: int) -> Tensor | None:
        """(n, 1) scaled property, which a model that was trained with one must be asked for."""
        name = self.config.condition
        if not name:
            return None
        if name not in condition:
            raise InputError(
                f"condition={dict(condition)}: this model was trained on {name}, ask for a value "
                f"of it, e.g. {{{name!r}: 1.0}}"
            )
        return self.scaled(np.full(n, condition[name], dtype=np.float32))
