"""CrystalGAN: hydrides of two metals mapped onto each other, and ternary hydrides made of both.

Three steps. A pair of networks learns to turn the hydrides of one metal into those of the other and
back (step 1); each generated crystal takes the second metal from a crystal of the other direction
(step 2, `CrystalGan.transfer`); a pair of the same kind learns between the two sets of ternaries,
with bounds on the distances (step 3).

Source: Nouira, Sokolovska & Crivello, arXiv 1810.11203 (2018), and its code asmanouira/CrystalGAN
at commit 6b98615. Where paper and code disagree, the code is followed and the difference is a
switch of `CrystalGanConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.batch import wrap
from ..crystals.elements import SYMBOLS
from ..crystals.geometry import min_image_distances, reduce_lattice
from ..crystals.samples import Samples
from ..descriptors.hydride_blocks import ROWS, HydrideBlocks
from ..networks import TrainConfig, fit, losses
from ..networks.epochs import seeded
from ..networks.fit import Turn
from ..runtime import InputError, settle, whole
from .gan import Condition, Gan, GanConfig
from .hydride_networks import RowNetwork, WholeDiscriminator, WholeMap
from .hydride_rows import in_cell, is_atom, limits, out_of_bounds, published_squares, with_cell

METALS = {"mg_ti_h": (12, 22), "pd_ni_h": (46, 28)}  # first and second metal
HYDROGEN, FIRST, SECOND = 1, 2, 3  # blocks; the cell is block 0
MOLECULE = 1.2  # Å; hydrogen atoms that are nearer are a molecule, of 0.75 Å as a rule
MOST_METALS = 8  # atoms of a metal in a training crystal; the authors' data have at most 6


@dataclass(frozen=True)
class CrystalGanConfig(GanConfig):
    """Architecture and training of both pairs of networks; the defaults are the published code.

    In that code every row of three numbers passes through the networks alone, no noise enters, the
    second discriminator is never updated, its loss has no lower bound, and the distances of step 3
    are read back from files, so that they have no gradient: ``constraint="none"`` is what it does.
    """

    fewest_channels: ClassVar[int] = 8
    CHOICES: ClassVar = {"data": METALS, "constraint": ("none", "published", "bounds")}
    whole: bool = False  # networks see the whole crystal, over its periodic images
    latent: int = 0  # numbers of noise
    both_learn: bool = False  # the second discriminator is updated too
    bounded: bool = False  # the discriminators' loss is the cross-entropy
    cycle: float = 1.0  # factor of the loss of the way there and back; 0: two plain GANs
    constraint: str = "none"  # of distances in the third step
    strength: float = 1.0  # factor of the constraint
    generator_steps: int = 5  # for each step of the discriminators
    seeds: int = 0  # ternary crystals of step 2; 0: one for each pair of rows, as published
    third: bool = True  # train the third step, and not only the first
    data: str = "mg_ti_h"
    batch: int = 35
    train: TrainConfig = TrainConfig(
        steps=100, critic_steps=1, betas_generator=(0.5, 0.999), betas_critic=(0.5, 0.999)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "generator_steps", least=1)


PAPER = CrystalGanConfig()
FIXED = CrystalGanConfig(
    whole=True,
    latent=16,
    both_learn=True,
    bounded=True,
    constraint="bounds",
    strength=100.0,
    generator_steps=1,
    seeds=512,
    batch=32,
    train=TrainConfig(steps=600, critic_steps=1, lr_generator=1e-3, lr_critic=5e-4),
)


def exchanged(blocks: Tensor) -> Tensor:
    """The same crystals with the atoms of one metal called the other."""
    return blocks[:, [0, HYDROGEN, SECOND, FIRST]]


# ---- the model


class Hydrides(NamedTuple):
    """Crystals of both domains."""

    first: CrystalBatch  # of hydrogen and the first metal
    second: CrystalBatch

    def __len__(self) -> int:
        return len(self.first) + len(self.second)


SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 20, "log_every": 5, "save_every": 20, "seeds": 64},
    "colab": {"steps": 600},
    "full": {"steps": 600},
}
PUBLISHED: dict[str, dict[str, Any]] = {k: {"steps": 100, "log_every": 10} for k in SIZES}


class CrystalGan(Gan):
    """Two maps between two sets of crystals, a discriminator for each set, and their ternaries.

    The file holds the networks of the third step and the ternary crystals of the second, on which
    they act. The whole published schedule, 100 steps of all rows, takes two minutes. The weights
    that come with the package are for Mg-Ti-H; train another pair with ``changes={"data": ...}``.
    """

    name, format = "crystalgan", "imd-crystalgan-1"
    Config = CrystalGanConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED}
    PROFILES: ClassVar = {"": SIZES, "paper": PUBLISHED}
    LEARNT = ("ternary.first", "ternary.second", "shortest")
    DROPPED: ClassVar = {"layers": 10}
    averaged = "to_first"

    def build(self) -> dict[str, nn.Module]:
        """Maps to the crystals of each metal, and a discriminator for each."""
        config = self.config
        rule = "apart" if config.whole else "published"
        self.descriptor = HydrideBlocks((1, *METALS[config.data]), rule=rule)
        to, judges = partial(RowNetwork, outputs=3), partial(RowNetwork, outputs=1)
        if config.whole:
            to, judges = WholeMap, WholeDiscriminator
        return {
            "to_first": to(config),
            "to_second": to(config),
            "discriminator_first": judges(config),
            "discriminator_second": judges(config),
        }

    # ---- data

    @classmethod
    def read(cls, config: CrystalGanConfig, split: str | None = None) -> Hydrides:
        """Known and relaxed hydrides of both metals; there are too few to split."""
        return Hydrides(*(hydrides_of(metal) for metal in METALS[config.data]))

    @classmethod
    def learn(cls, data: Hydrides, config: CrystalGanConfig) -> dict[str, Any]:
        """Steps 1 and 2: ternary crystals of both directions, and the shortest known distances."""
        maps = cls(config.but(third=False), seed=config.train.seed)
        maps.prepare(data)
        pair, shortest = (maps.first, maps.second), limits(maps.first, maps.second)
        if config.third:
            fit(maps, config.train, progress=False)
            with seeded(config.train.seed):
                pair = maps.transfer()
        return {"ternary.first": pair[0], "ternary.second": pair[1], "shortest": shortest}

    def prepare(self, data: Hydrides, *, seed: int = 0) -> None:
        """Blocks of both domains: of the data, or in the third step of the ternary crystals."""
        if self.config.third:
            self.first, self.second = self.learnt["ternary.first"], self.learnt["ternary.second"]
            return
        blocks = [self.descriptor.encode(x).float().to(self.device) for x in data]
        self.first, self.second = blocks

    # ---- training

    def turns(self, config: TrainConfig) -> list[Turn]:
        """Discriminators, then maps; as published the second discriminator stays as it was."""
        learning = ("discriminator_first", "discriminator_second")
        learning = learning if self.config.both_learn else learning[:1]
        times = self.config.generator_steps
        return [
            Turn("discriminator", self.discriminator_terms, learning, config.critic_steps),
            Turn("generator", self.generator_terms, ("to_first", "to_second"), times),
        ]

    def batches(self) -> tuple[Tensor, Tensor]:
        """(batch, 4, 18, 3) crystals of each domain."""
        first, second = (self.some(len(each)) for each in (self.first, self.second))
        return self.first[first], self.second[second]

    def map(self, network: nn.Module, blocks: Tensor) -> Tensor:
        """(n, 4, 18, 3) crystals of the other domain, with gradients."""
        renamed = self.config.whole and not self.config.third
        return network(exchanged(blocks) if renamed else blocks)

    def discriminator_terms(self) -> dict[str, Tensor]:
        """Both discriminators; the published loss pays for large logits without end."""
        first, second = self.batches()
        with torch.no_grad():
            fakes = self.map(self.to_first, second), self.map(self.to_second, first)
        pairs = [
            (self.discriminator_first(first), self.discriminator_first(fakes[0])),
            (self.discriminator_second(second), self.discriminator_second(fakes[1])),
        ]
        if self.config.bounded:
            found = [losses.minimax_discriminator_loss(*pair) for pair in pairs]
        else:  # a low logit means real
            soft = functional.softplus
            found = [soft(real).mean() - soft(fake).mean() for real, fake in pairs]
        return {"loss": found[0] + found[1]}

    def generator_terms(self) -> dict[str, Tensor]:
        """Deceive both discriminators, come back after two maps, and keep the distances."""
        first, second = self.batches()
        to_first, to_second = self.map(self.to_first, second), self.map(self.to_second, first)
        logits = self.discriminator_first(to_first), self.discriminator_second(to_second)
        deceive = losses.non_saturating_generator_loss if self.config.bounded else _low
        back = cycle_error(self.map(self.to_second, to_first), second)
        back = back + cycle_error(self.map(self.to_first, to_second), first)
        terms = {"loss": deceive(logits[0]) + deceive(logits[1]) + self.config.cycle * back}
        terms["cycle"] = back
        if self.config.third and self.config.constraint != "none":
            broken = self.constraint(torch.cat([to_first, to_second]))
            terms["loss"] = terms["loss"] + self.config.strength * broken
            terms["constraint"] = broken
        return terms

    def constraint(self, blocks: Tensor) -> Tensor:
        """How far distances are from what is asked, Å^2."""
        if self.config.constraint == "published":
            return published_squares(blocks)
        return out_of_bounds(blocks, self.learnt["shortest"].to(blocks.device))

    # ---- step 2

    @torch.no_grad()
    def transfer(self) -> tuple[Tensor, Tensor]:
        """(n, 4, 18, 3) ternary crystals of both directions.

        Each generated crystal takes its empty block from a generated crystal of the other
        direction: as published the same Cartesian rows of the crystal with the same number, else
        the same places in the cell of any other.
        """
        n = self.config.seeds or min(len(self.first), len(self.second))
        rows = [torch.arange(n), torch.arange(n)]
        if self.config.seeds:
            rows = [torch.randint(len(x), (n,)) for x in (self.first, self.second)]
        one = self.map(self.to_first, self.second[rows[1]])
        two = self.map(self.to_second, self.first[rows[0]])
        # a map that sees the crystal has called the metal by its new name; a row's map has not
        lacks = (SECOND, FIRST) if self.config.whole else (FIRST, SECOND)
        return self.filled(one, two, lacks[0]), self.filled(two, one, lacks[1])

    def filled(self, blocks: Tensor, other: Tensor, block: int) -> Tensor:
        """Crystals with one block of others."""
        out = blocks.clone()
        out[:, block] = other[:, block]
        if not self.config.whole:
            return out
        lattice, inverse = blocks[:, 0, :3], torch.linalg.inv(other[:, 0, :3])
        out[:, block] = other[:, block] @ inverse @ lattice
        present = is_atom(blocks).unflatten(1, (-1, ROWS))
        present[:, block - 1] = is_atom(other).unflatten(1, (-1, ROWS))[:, block - 1]
        return with_cell(lattice, in_cell(out), present.flatten(1))

    # ---- sampling

    def draw(self, n: int, condition: Condition) -> Tensor:
        """(n, 4, 18, 3) ternary crystals, half of them by each map."""
        first, second = self.learnt["ternary.first"], self.learnt["ternary.second"]
        parts = []
        for size, to, known in ((n - n // 2, "to_first", second), (n // 2, "to_second", first)):
            rows = torch.randint(len(known), (size,), device=self.device)
            parts.append(self.map(self.networks[to], known[rows]))
        return torch.cat(parts)

    def decode(self, raw: Tensor) -> Samples:
        """Crystals of hydrogen and both metals."""
        return self.descriptor.decode(raw)


def cycle_error(back: Tensor, start: Tensor) -> Tensor:
    """E |F(G(x)) - x|^2 over all entries, of what came back after two maps.

    Source: Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
    Networks (2017), eq. 2, with the square that CrystalGAN's code has.
    """
    return (back - start).square().mean()


def _low(logits: Tensor) -> Tensor:
    """Loss of a map as published, where a low logit means real."""
    return functional.softplus(logits).mean()


def hydrides_of(metal: int) -> CrystalBatch:
    """Real and made binary hydrides of a metal in reduced cells, at most 18 H and 8 metal atoms.

    Without those in which hydrogen is a molecule: some prototypes come apart when they relax.

    Raises:
        InputError: another metal than those of `METALS`.
    """
    known = [z for pair in METALS.values() for z in pair]
    if metal not in known:
        named = ", ".join(f"{z} ({SYMBOLS[z]})" for z in known)
        raise InputError(
            f"metal={metal!r}: no set of hydrides; the atomic number is one of {named}"
        )
    symbols = ["H", SYMBOLS[metal]]
    real = datasets.load("oqmd_icsd").select(nelements=2, elements=symbols)
    made = datasets.load("hydrides").select(elements=symbols)
    crystals = CrystalBatch.cat([real.crystals, made.crystals])
    counts = crystals.counts()
    fits = (counts[:, 1] <= ROWS) & (counts[:, metal] <= MOST_METALS)
    apart = min_image_distances(crystals)
    hydrogen = crystals.numbers == 1
    apart[~(hydrogen[:, :, None] & hydrogen[:, None, :])] = torch.inf
    fits &= apart.flatten(1).amin(1) > MOLECULE
    crystals = crystals[fits.nonzero()[:, 0]]
    lattice, change = reduce_lattice(crystals.lattice)
    frac = wrap(crystals.frac @ torch.linalg.inv(change).round())
    return CrystalBatch(lattice, frac, crystals.numbers)
