"""A newcomer adds a model, and models that are no pair of critic and generator fit too."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from imd_helpers import datasets
from imd_helpers.crystals import compositions
from imd_helpers.crystals.elements import N_COLUMNS
from imd_helpers.crystals.samples import Samples
from imd_helpers.models.gan import Gan, GanConfig
from imd_helpers.networks import History, TrainConfig, fit, layers, losses
from imd_helpers.networks.fit import Turn
from imd_helpers.runtime import InputError

TRAIN = TrainConfig(steps=4, critic_steps=2, ema=0.9, log_every=2, save_every=2)


# ---- a GAN on composition vectors: everything that a new model has to say

CARD = """# VectorGAN, variant `fixed`

A Wasserstein GAN over composition vectors: the share of each of 118 elements.

- Trained on: formulas of `oqmd_icsd`, the training split.
- Limits: three elements, at most 12 atoms of each; a formula says nothing of structure.
"""
ELEMENTS, LARGEST = 3, 12


class VectorGan(Gan):
    """Noise to the shares of all elements, of which the largest three are read as counts."""

    name, format, holds = "vector_gan", "imd-vector-gan-1", "compositions"
    Config = GanConfig
    VARIANTS: ClassVar = {"fixed": GanConfig(latent=16, data="oqmd_icsd", train=TRAIN)}
    PROFILES: ClassVar = {"": {"smoke": {}, "full": {"steps": 2_000}}}

    def build(self):
        width = self.config.channels(64)
        shares = nn.Softmax(dim=1)
        return {
            "generator": layers.mlp([self.config.latent, width, N_COLUMNS], last=shares),
            "critic": layers.mlp([N_COLUMNS, width, 1]),
        }

    @classmethod
    def read(cls, config, split="train"):
        formulas = datasets.load(config.data, split=split).table["formula"]
        return compositions.amounts(sorted(set(formulas)))

    def prepare(self, data, *, seed=0):
        shares = data / data.sum(1, keepdims=True)
        self.data = torch.as_tensor(shares, dtype=torch.float32, device=self.device)

    def real(self):
        rows = torch.randint(len(self.data), (self.config.batch,), device=self.device)
        return self.data[rows], None

    def fake(self, condition=None):
        return self.draw(self.config.batch, {})

    def draw(self, n, condition):
        return self.generator(torch.randn(n, self.config.latent, device=self.device))

    def decode(self, raw):
        shares = raw.cpu().numpy()
        shares[:, 0] = 0.0  # padding is no element
        third = np.sort(shares, axis=1)[:, [-ELEMENTS]]
        counts = np.where(shares >= third, np.rint(shares / third), 0)
        return Samples.from_counts(counts.clip(max=LARGEST).astype(np.int8))


def test_a_gan_on_composition_vectors(tmp_path):
    """It trains, resumes bit for bit, is saved, loaded and sampled, piece by piece."""
    whole, history = VectorGan.train(folder=tmp_path / "a", progress=False)
    assert {"critic_penalty", "generator_loss"} <= history.rows[-1].keys()
    for steps in (2, 4):
        parted, _ = VectorGan.train(
            folder=tmp_path / "b", changes={"steps": steps}, resume=True, progress=False
        )
    made = whole.sample(300, seed=3)
    assert np.array_equal(made.counts, parted.sample(300, seed=3).counts)
    loaded = VectorGan.load(tmp_path / "a" / "model.safetensors")
    assert np.array_equal(made.counts, loaded.sample(300, seed=3).counts)
    assert made.ok.all()
    assert (np.count_nonzero(made.counts, axis=1) == ELEMENTS).all()
    assert len(set(made.formulas())) > 10
    with pytest.raises(InputError, match="without a condition"):
        loaded.sample(5, condition={"space_group": 225})
    assert CARD.startswith("# VectorGAN, variant `fixed`")


# ---- an odd one: two critics, a classifier and an autoencoder around one grid


@dataclass(frozen=True)
class OddConfig(GanConfig):
    """Sizes.

    Attributes:
        edge: points along each edge of the grid.
    """

    edge: int = 4


class OddGan(Gan):
    """An encoder and a decoder write grids; two critics and a classifier look at them."""

    name, format, holds = "odd_gan", "imd-odd-gan-1", "grids"
    Config = OddConfig
    VARIANTS: ClassVar = {"first": OddConfig(latent=8, batch=8, train=TRAIN)}
    PROFILES: ClassVar = {"": {"smoke": {}}}
    LEARNT = ("highest", "mean")
    averaged = "decoder"

    def build(self):
        cells = self.config.edge**3
        return {
            "encoder": layers.mlp([cells, 32, 2 * self.config.latent]),
            "decoder": layers.mlp([self.config.latent, 32, cells]),
            "critic_grid": layers.mlp([cells, 16, 1]),
            "critic_slice": layers.mlp([self.config.edge**2, 16, 1]),
            "classifier": layers.mlp([cells, 16, 2]),
        }

    @classmethod
    def read(cls, config, split="train"):
        rng = np.random.default_rng(0)
        return rng.random((64, *3 * [config.edge])).astype(np.float32) * 5

    @classmethod
    def learn(cls, data, config):
        return {"highest": float(data.max()), "mean": torch.as_tensor(data.mean(0))}

    def prepare(self, data, *, seed=0):
        scaled = torch.as_tensor(data) / self.learnt["highest"]
        self.data = scaled.to(self.device)  # (n, edge, edge, edge)
        self.kind = (scaled.mean((1, 2, 3)) > 0.5).long().to(self.device)

    def turns(self, config):
        return [
            Turn("autoencoder", self.autoencoder_terms, ("encoder", "decoder")),
            Turn("critics", self.critics_terms, ("critic_grid", "critic_slice"), 2),
            Turn("classifier", self.classifier_terms, ("classifier",)),
            Turn("decoder", self.decoder_terms, ("decoder",)),
        ]

    def real(self):
        rows = torch.randint(len(self.data), (self.config.batch,), device=self.device)
        return self.data[rows].flatten(1), self.kind[rows]

    def fake(self, condition=None):
        return self.decoder(torch.randn(self.config.batch, self.config.latent, device=self.device))

    def autoencoder_terms(self):
        real, _ = self.real()
        mean, spread = self.encoder(real).chunk(2, dim=1)
        code = losses.reparameterise(mean, spread)
        error = (self.decoder(code) - real).square().sum(1).mean()
        divergence = losses.gaussian_kl(mean, spread).mean()
        return {"loss": error + divergence, "error": error}

    def critics_terms(self):
        real, fake = self.real()[0], self.fake().detach()
        one = losses.critic_loss(self.critic_grid(real), self.critic_grid(fake))
        two = losses.critic_loss(*(self.critic_slice(self.first(x)) for x in (real, fake)))
        penalty = losses.gradient_penalty(self.critic_grid, real, fake)
        return {"loss": one + two + 10 * penalty, "one": one, "two": two}

    def classifier_terms(self):
        real, kind = self.real()
        return {"loss": losses.auxiliary_class_loss(self.classifier(real), kind)}

    def decoder_terms(self):
        fake = self.fake()
        score = self.critic_grid(fake) + self.critic_slice(self.first(fake))
        kind = torch.ones(len(fake), dtype=torch.long, device=self.device)
        wanted = losses.auxiliary_class_loss(self.classifier(fake), kind)
        return {"loss": losses.generator_loss(score) + wanted}

    def first(self, grids):
        """The first slice of each grid."""
        return grids[:, : self.config.edge**2]

    def draw(self, n, condition):
        return self.decoder(torch.randn(n, self.config.latent, device=self.device))

    def decode(self, raw):
        grids = raw.view(-1, *3 * [self.config.edge]) * self.learnt["highest"]
        return Samples.of(grids + 0 * self.learnt["mean"])


def test_models_that_are_no_pair_fit_too(tmp_path):
    """Several turns, rates by name, a grid out of a grid in; resumed bit for bit, saved, loaded."""
    whole, history = OddGan.train(folder=tmp_path / "a", progress=False)
    assert isinstance(history, History)
    assert {"critics_two", "autoencoder_error", "classifier_loss"} <= history.rows[0].keys()
    for steps in (2, 4):
        parted, _ = OddGan.train(
            folder=tmp_path / "b", changes={"steps": steps}, resume=True, progress=False
        )
    for name, network in whole.networks.items():
        twin = parted.networks[name]
        assert all(map(torch.equal, network.state_dict().values(), twin.state_dict().values()))
    made = whole.sample(20, seed=1).tensor
    loaded = OddGan.load(tmp_path / "a" / "model.safetensors")
    assert made.shape == (20, 4, 4, 4)
    assert torch.equal(made, loaded.sample(20, seed=1).tensor)
    assert torch.equal(loaded.learnt["mean"], whole.learnt["mean"])


def test_critics_and_classifiers_take_the_critics_rate():
    """With the rate of one side at nearly nothing, only the other side moves."""
    data = OddGan.read(OddConfig())
    for change, still in (("lr_critic", True), ("lr_generator", False)):
        config = OddGan.recipe(profile="smoke").but(**{change: 1e-12})
        model = OddGan.from_data(data, config)
        before = {name: next(n.parameters()).clone() for name, n in model.networks.items()}
        fit(model, dataclasses.replace(config.train, ema=0.0), progress=False)
        for name, network in model.networks.items():
            moved = (next(network.parameters()) - before[name]).abs().max().item() > 1e-9
            assert moved is (name.startswith(("critic", "classifier")) is not still)
