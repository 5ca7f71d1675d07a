"""ZeoGAN: zeolites as grids of energy, oxygen and silicon, made for a heat of adsorption.

Source: Kim, Lee & Kim, Inverse design of porous materials using artificial neural networks,
Sci. Adv. 6 (2020) eaax9324, and its code Sangwon91/ZeoGAN at commit 94b1fab. Where `FIXED` differs,
a switch of `ZeoConfig` says so.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..datasets.splits import split_of_name
from ..descriptors.methane_grid import ENERGY_RANGE, GAS_CONSTANT, MethaneGrid
from ..networks import TrainConfig, losses
from ..runtime import InputError, number, settle, whole
from . import load
from .gan import Condition, Gan, GanConfig
from .zeogan_frameworks import frameworks
from .zeogan_networks import Critic, Generator, grids_of, pointwise, rows_of

LONGEST = 150.0  # Å, the length that is written as 1 in the published code
TEMPERATURES = (298.0, 0.06, 0.06)  # of the Boltzmann statistics: K, and of the densities
CELL_CRITIC, CELL_GENERATOR = 1.0, 0.1  # factors of the cross-entropies of the lengths
LEAST_HEAT = 5.0  # kJ/mol, as which a smaller one counts in the target
TINY = 1e-6
CALIBRATION = 32  # batches from which the batch norms of the generator take their statistics
ORDERS = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 2, 1], [1, 0, 2]]  # whole turns first
SIZES = (6, 8, 12, 16, 24, 32, 48, 64)  # points that are 3 or 4, doubled


@dataclass(frozen=True)
class ZeoConfig(GanConfig):
    """Architecture and training; the defaults are the published code."""

    points: int = 32  # along each edge of the grids: 3 or 4 times a power of two
    latent: int = 1024
    batch: int = 32
    data: str = "iza_zeolites"
    longest: float = 25.0  # Å, of the cells that are learnt from
    scale: float = LONGEST  # Å, the length that is written as 1
    input_dropout: float = 0.5  # of the critic
    entry: bool = True  # the critic begins with a convolution on all points
    periodic_generator: bool = False  # its transposed convolutions repeat, as the critic's do
    one_axis_order: bool = False  # whole turns of the axes only; else all six orders
    both_moved: bool = False  # the critic sees generated grids rolled and turned, as real ones
    all_statistics: bool = False  # matched are those of the whole training set, not of a batch
    matching: float = 1.0  # factor of the matching loss
    start: str = ""  # variant of which the trained weights are the first ones
    low: float = 0.0  # kJ/mol, least heat of adsorption that is asked for
    high: float = 0.0  # kJ/mol, most; both zero: nothing is asked for
    wish: float = 100.0  # factor of the target
    train: TrainConfig = TrainConfig(steps=30_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "points", least=2)
        settle(self, number, "longest", "scale", above=0, most=LONGEST)
        settle(self, number, "low", "high", "matching", "wish", least=0)
        if self.points not in SIZES:
            raise InputError(
                f"points={self.points}: the grid doubles from 3 or 4 points, so give one of "
                f"{', '.join(map(str, SIZES))}"
            )
        if self.low > self.high or (self.high > 0) != (self.low > 0):
            raise InputError(
                f"low={self.low}, high={self.high}: a target is two heats in kJ/mol, such as "
                "low=18 and high=22, or both 0 for none"
            )

    @property
    def coarse(self) -> int:
        """Points along an edge where the generator begins, 3 or 4."""
        return 3 if self.points % 3 == 0 else 4

    @property
    def doublings(self) -> int:
        """How often the number of points doubles from there."""
        return int(math.log2(self.points // self.coarse))


PAPER = ZeoConfig(one_axis_order=True)
FIXED = ZeoConfig(
    points=16,
    longest=20.0,
    scale=40.0,
    input_dropout=0.0,
    entry=False,
    periodic_generator=True,
    both_moved=True,
    all_statistics=True,
    matching=0.1,
    train=TrainConfig(steps=750, critic_steps=2, lr_generator=4e-4, lr_critic=4e-4, log_every=25),
)
TARGET = FIXED.but(
    low=18.0,
    high=22.0,
    wish=1_000.0,
    start="fixed",
    steps=100,
    lr_generator=3e-4,
    ema=0.9,
    log_every=5,
)

FULL = {"points": 16, "width": 1 / 4, "latent": 64, "batch": 8, "longest": 20.0}
SMOKE = {"points": 12, "width": 1 / 8, "latent": 64, "batch": 8, "longest": 15.0}
SMOKE |= {"steps": 4, "critic_steps": 2, "log_every": 2, "save_every": 4}


class ZeoGan(Gan):
    """Generator and critic of orthogonal SiO2 frameworks."""

    name, format = "zeogan", "imd-zeogan-1"
    Config = ZeoConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED, "target": TARGET}
    PROFILES: ClassVar = {
        "": {"smoke": SMOKE, "colab": {**FULL, "steps": 300}, "full": FULL},
        "paper": {
            "smoke": SMOKE,
            "colab": {**FULL, "steps": 50},
            "full": {**FULL, "steps": 100},
        },
        "target": {
            "smoke": {**FULL, "steps": 4, "log_every": 2, "save_every": 4},
            "colab": {**FULL, "steps": 25},
            "full": FULL,
        },
    }
    PIECE = 64
    HALF = True

    def build(self) -> dict[str, nn.Module]:
        """Generator and critic."""
        return {"generator": Generator(self.config), "critic": Critic(self.config)}

    # ---- data

    @classmethod
    def read(cls, config: ZeoConfig, split: str | None = "train") -> CrystalBatch:
        """Orthogonal frameworks of one split by code, with edges up to ``longest``."""
        zeolites = datasets.load(config.data)
        table = zeolites.table[zeolites.is_exact_sio2]
        right = (table[["alpha", "beta", "gamma"]] == 90).all(axis=1)
        short = table[["a", "b", "c"]].max(axis=1) <= config.longest
        codes = [c for c in table["code"][right & short] if split in (None, split_of_name(c))]
        fits = list(zeolites.structures(codes).values())
        return CrystalBatch.from_structures(fits)

    def prepare(self, data: CrystalBatch, *, seed: int = 0) -> None:
        """(n, 3, points, points, points) grids, and (n, 3) lengths in [0, 1].

        With ``start`` the weights are those of that trained variant.
        """
        grids = MethaneGrid(points=self.config.points).encode(data).float().to(self.device)
        self.grids = pointwise(grids)
        self.lengths = (data.lattice.norm(dim=2) / self.config.scale).float().to(self.device)
        self.statistics = statistics(self.grids)  # of every framework, wherever its origin
        if self.config.start:
            trained = load(self.name, variant=self.config.start).networks
            for name, network in self.networks.items():
                network.load_state_dict(trained[name].state_dict())

    # ---- training

    def moved(self, grids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A batch, each with another origin and other axes first, see `augmented`."""
        return augmented(grids, lengths, turns_only=self.config.one_axis_order)

    def made(self) -> tuple[Tensor, Tensor]:
        """A batch of grids and lengths as the critic sees them, with gradients."""
        grids, lengths = self.generator(self.noise(self.config.batch), learns=True)
        return self.moved(grids, lengths) if self.config.both_moved else (grids, lengths)

    def critic_terms(self) -> dict[str, Tensor]:
        """Wasserstein loss, penalty, and how well the lengths are read from real grids."""
        for network in self.networks.values():
            network.train()
        rows = self.some(len(self.grids))
        real, lengths = self.moved(self.grids[rows], self.lengths[rows])
        with torch.no_grad():
            fake, _ = self.made()
        features = self.critic.read(torch.cat([real, fake]))  # at once: many small operations
        score, features = self.critic.score(features), features[: len(real)]
        wasserstein = losses.critic_loss(*score.tensor_split(2))
        penalty = losses.gradient_penalty(self.critic, real, fake, mixing=self.mixing)
        cell = functional.binary_cross_entropy_with_logits(self.critic.cell(features), lengths)
        loss = wasserstein + self.penalty * penalty + CELL_CRITIC * cell
        return {"loss": loss, "distance": -wasserstein, "penalty": penalty, "cell": cell}

    def generator_terms(self) -> dict[str, Tensor]:
        """Score, lengths that fit the grid, the statistics of real grids, and the target."""
        grids, lengths = self.made()
        features = self.critic.read(grids)
        score = losses.generator_loss(self.critic.score(features))
        seen = torch.sigmoid(self.critic.cell(features)).clamp(TINY, 1 - TINY)
        cell = functional.binary_cross_entropy(lengths, seen)
        real = self.statistics
        if not self.config.all_statistics:
            real = real[torch.randint(len(real), (len(grids),), device=self.device)]
        matching = statistics_loss(real, statistics(grids))
        loss = score + CELL_GENERATOR * cell + self.config.matching * matching
        heat = heats(grids[:, 0])
        terms = {"loss": loss, "cell": cell, "matching": matching, "heat": heat.mean()}
        if self.config.high:
            terms["target"] = target_loss(heat, self.config.low, self.config.high)
            terms["loss"] = loss + self.config.wish * terms["target"]
        return terms

    # ---- sampling

    def draw(self, n: int, condition: Condition) -> tuple[Tensor, Tensor]:
        """(n, 3, points, points, points) grids, and (n, 3) lengths in Å."""
        self.calibrate()
        grids, lengths = self.generator(self.noise(n))
        return grids, self.config.scale * lengths

    def calibrate(self) -> None:
        """Give the generator's batch norms the mean statistics of its own batches, once.

        Their running means lag behind the weights, and the grids would not be those that training
        saw. The random numbers are not those of the samples.
        """
        if not getattr(self, "calibrated", False):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                some = [self.noise(self.config.batch) for _ in range(CALIBRATION)]
            update_bn(some, self.generator)
            self.calibrated = True

    def decode(self, raw: tuple[Tensor, Tensor]) -> Samples:
        """Frameworks after the clean-up; heats of adsorption of the grids stay beside them."""
        grids, lengths = raw
        made = frameworks(grids, torch.diag_embed(lengths.double()))
        heat = heats(grids[:, 0].double()).cpu().numpy()
        return dataclasses.replace(made.samples, asked={"heat": heat})


def augmented(grids: Tensor, lengths: Tensor, *, turns_only: bool) -> tuple[Tensor, Tensor]:
    """The same frameworks, each with another origin and another order of the axes, at random.

    Args:
        grids: (batch, 3, n, n, n).
        lengths: (batch, 3).
        turns_only: the three cyclic orders of the axes, as published, instead of all six.
    """
    batch, n = len(grids), grids.shape[-1]
    points, each = torch.arange(n, device=grids.device), torch.arange(batch, device=grids.device)
    order = torch.tensor(ORDERS[: 3 if turns_only else 6], device=grids.device)
    order = order[torch.randint(len(order), (batch,), device=grids.device)]  # (batch, 3)
    shift = torch.randint(n, (batch, 3, 1), device=grids.device)
    # of the points that come to a place, what its number along each new axis adds to theirs
    along = (points - shift) % n * (n ** (2 - order))[..., None]
    first, second, third = along.unbind(1)  # (batch, n) each
    rows = first[:, :, None, None] + second[:, None, :, None] + third[:, None, None, :]
    rows = rows + n**3 * each[:, None, None, None]
    moved = rows_of(grids).index_select(0, rows.flatten())
    return grids_of(moved, batch, grids.shape[2:]), lengths.gather(1, order)


# ---- statistics of Boltzmann


def in_kelvin(scaled: Tensor) -> Tensor:
    """Energies in K of values from 1 to 0, as `scale_energy` writes them."""
    low, high = ENERGY_RANGE
    return low + (1 - scaled) * (high - low)


def free_energies(values: Tensor, temperature: float) -> Tensor:
    """(batch,) ``ln < exp(-x / T) >`` over the points of (batch, n, n, n) grids x."""
    flat = values.flatten(1)
    return torch.logsumexp(-flat / temperature, dim=1) - math.log(flat.shape[1])


def statistics(grids: Tensor) -> Tensor:
    """(batch, 3) ``ln < exp(-x / T) >`` of the energy, O and Si of (batch, 3, n, n, n) grids."""
    values = [in_kelvin(grids[:, 0]), grids[:, 1], grids[:, 2]]
    pairs = zip(values, TEMPERATURES, strict=True)
    return torch.stack([free_energies(x, temperature) for x, temperature in pairs], dim=1)


def statistics_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Differences of means and of deviations of two batches of `statistics`, summed.

    Source: Kim, Lee & Kim (2020), from its code.
    """
    means = (real.mean(0) - fake.mean(0)).abs()
    spreads = (real.std(0, correction=0) - fake.std(0, correction=0)).abs()
    return (means + spreads).sum()


def heats(scaled: Tensor) -> Tensor:
    """(batch,) heats of adsorption at 298 K, kJ/mol, of (batch, n, n, n) energies from 1 to 0.

    `descriptors.methane_grid.heat_of_adsorption` of each, with gradients.
    """
    temperature, energy = TEMPERATURES[0], in_kelvin(scaled).flatten(1)
    weight = torch.softmax(-energy / temperature, dim=1)
    return (temperature - (energy * weight).sum(1)) * GAS_CONSTANT


def target_loss(heat: Tensor, low: float, high: float) -> Tensor:
    """Mean square of how far ``ln`` of (batch,) heats, kJ/mol, is outside of ln low to ln high.

    A heat below 5 kJ/mol counts as 5, and has no slope: near 0 it would outdo all others.

    Source: Kim, Lee & Kim (2020), the user's target; its smooth square is the plain one here.
    """
    found = heat.clamp(min=LEAST_HEAT).log()
    outside = (math.log(low) - found).clamp(min=0) + (found - math.log(high)).clamp(min=0)
    return outside.square().mean()
