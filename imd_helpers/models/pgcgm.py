"""PGCGM: ternary crystals of 20 space groups from one site of each element.

No training code was ever published. Networks, scales and decoding follow the published classes and
sampler; losses, and what fills the critic's input, follow the figures of the paper; `PgcgmConfig`
says which numbers are ours.

Source: Zhao et al., Physics guided deep learning for generative design of crystal materials with
symmetry constraints, npj Comput. Mater. 9 (2023) 38, and MilesZhao/PGCGM at commit ab38ec6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.samples import Samples, in_places
from ..descriptors.base import without
from ..networks import TrainConfig, losses
from ..runtime import InputError, number, settle, whole
from . import pgcgm_networks, pgcgm_sites
from .cubic_sites import Labels, LabelSource
from .gan import Condition, Gan, GanConfig
from .pgcgm_crystals import expanded, mark_cells, mark_misfits, positions
from .pgcgm_networks import N_SETS
from .pgcgm_sites import N_ROWS, ONE, SPACE_GROUPS, TWO, BaseSites, Distances, affine

FAR = 3.0  # sums of two radii; the critic sees no contact beyond
SPREAD = 1.0  # deviations of the training cells' room within which a cell is as it should be


@dataclass(frozen=True)
class PgcgmConfig(GanConfig):
    """Architecture and training; the defaults are what was published, where it was.

    Ours, because neither the code nor the paper's text has them: ``apart``, ``strength``, ``cell``,
    rates, batch and steps, what fills the picture, and that generated crystals have the groups and
    elements of other training crystals than the real ones beside them.
    """

    fewest_channels: ClassVar[int] = 8
    blind: bool = True  # coordinates do not see the group, nor lengths the elements
    inter: bool = True  # loss of atoms of two elements that are too near
    intra: bool = True  # loss of atoms of one element that are too near
    apart: float = 0.75  # of the sum of two radii: what the losses ask for
    strength: float = 1.0  # factor of both losses
    cell: float = 0.0  # factor of the loss of cells too small or too large for their atoms
    decimals: int | None = 2  # of generated coordinates
    placed: bool = False  # on Wyckoff positions drawn from training crystals of the group
    # of the sum of two radii; images of an atom that are nearer are one
    merged: float = pgcgm_sites.MERGED
    most_sites: int = 20  # in the primitive cell of a training crystal
    mixing: str = "normal"
    batch: int = 64
    data: str = "oqmd_icsd"
    train: TrainConfig = TrainConfig(steps=5_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, number, "apart", "strength", "cell", "merged", least=0)
        settle(self, whole, "most_sites", least=3)
        if self.cell and self.blind:
            raise InputError(
                f"cell={self.cell:g} with blind=True: a blind critic is not told how much room "
                "atoms have, choose blind=False or cell=0"
            )
        if self.placed and self.blind:
            raise InputError(
                "placed=True with blind=True: blind coordinates do not see the group, whose "
                "positions they would be on, choose blind=False or placed=False"
            )
        if self.decimals is not None:
            settle(self, whole, "decimals", least=0)


PAPER = PgcgmConfig()
FREE = PgcgmConfig(  # no Wyckoff position is drawn: the network finds its own
    width=0.25,
    blind=False,
    decimals=None,
    mixing="uniform",
    strength=2.0,
    train=TrainConfig(
        steps=5_000, critic_steps=3, lr_generator=5e-4, lr_critic=1e-3, fall=0.3, ema=0.995
    ),
)
FIXED = FREE.but(placed=True)
SMOKE = {"width": 1 / 16, "batch": 16, "steps": 20, "log_every": 5, "save_every": 20}
SIZES: dict[str, dict[str, Any]] = {
    "smoke": SMOKE | {"most_sites": 5},
    "colab": {"steps": 2_000},
    "full": {"log_every": 50},
}
# a quarter of the published width: at the full one a step takes 0.8 s of a processor core; as
# many minutes as `free`
PUBLISHED = {name: {"width": 0.25, "steps": 1_200} | more for name, more in SIZES.items()}


class Batch(NamedTuple):
    """Some crystals on the way to the critic."""

    sites: Tensor  # (n, sets, 3, 3) fractional
    lengths: Tensor  # (n, 3) Å
    labels: Labels


class Pgcgm(Gan):
    """Generator and critic of ternary crystals in 20 space groups."""

    name, format = "pgcgm", "imd-pgcgm-1"
    Config = PgcgmConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED, "free": FREE}
    PROFILES: ClassVar = {"": SIZES, "paper": PUBLISHED}
    LEARNT = ("elements", "labels.group", "labels.element", "positions")
    ONLY_IF: ClassVar = {"positions": "placed"}
    PIECE = 2_048
    conditions = ("space_group", "elements", "labels")

    def build(self) -> dict[str, nn.Module]:
        """Generator and critic, with the tables of the elements that were learnt."""
        self.rows = rows = pgcgm_sites.Rows(tuple(self.learnt["elements"]))
        self.labels.known.check(len(SPACE_GROUPS), len(rows.element_numbers))
        self.features = 2 * rows.feature_table - 1  # (elements, 23) in [-1, 1]
        self.radii = torch.as_tensor(pgcgm_sites.radius_of(rows.element_numbers)).float()
        if self.config.blind:
            generator, critic = pgcgm_networks.PublishedGenerator, pgcgm_networks.PublishedCritic
        else:
            generator, critic = pgcgm_networks.WholeGenerator, pgcgm_networks.WholeCritic
        return {"generator": generator(self.config), "critic": critic(self.config)}

    @property
    def labels(self) -> LabelSource:
        """Draws space groups and elements after those of the training crystals."""
        known = Labels(self.learnt["labels.group"], self.learnt["labels.element"])
        return LabelSource(known, self.rows)

    # ---- data

    @classmethod
    def read(cls, config: PgcgmConfig, split: str | None = "train") -> BaseSites:
        """Real ternaries of one split, or of all, with one orbit an element."""
        which = {"nelements": 3, "space_groups": list(SPACE_GROUPS)}
        known = datasets.load(config.data, split=split)
        known = known.select(max_sites=config.most_sites, **which)
        return pgcgm_sites.find_base_sites(known.crystals)[0]

    @classmethod
    def learn(cls, data: BaseSites, config: PgcgmConfig) -> dict[str, Any]:
        """Elements, and the groups and elements of the training crystals."""
        known = np.unique(data.numbers)
        there = {"positions": positions(data).float()} if config.placed else {}
        return there | {
            "elements": known.tolist(),
            "labels.group": torch.as_tensor(pgcgm_sites.group_index(data.space_group)),
            "labels.element": torch.as_tensor(np.searchsorted(known, data.numbers)),
        }

    def prepare(self, data: BaseSites, *, seed: int = 0) -> None:
        """Put sites and lengths on the device."""
        labels = self.labels.known
        sites = torch.as_tensor(data.frac, dtype=torch.float32)[:, None].to(self.device)
        lengths = torch.as_tensor(data.lengths, dtype=torch.float32).to(self.device)
        self.data = Batch(sites, lengths, labels)
        if not self.config.blind:
            self.seen = self.described(self.data)[0]  # (crystals, 31)

    @cached_property
    def usual(self) -> tuple[float, float]:
        """Mean and deviation of the room of atoms in the training crystals, see `whole`."""
        return float(self.seen[:, -1].mean()), float(self.seen[:, -1].std())

    # ---- training

    def real(self) -> tuple[Tensor, Labels]:
        """A batch of real crystals as the critic sees them, and their labels."""
        rows = self.some(len(self.data.sites))
        some = Batch(*(part[rows] for part in self.data))
        if not self.config.blind:
            return self.seen[rows], some.labels
        moved, there = pgcgm_sites.images(some.sites[:, 0], some.labels.group)
        chance = there.float()[:, None].expand(-1, N_ROWS, -1).flatten(0, 1)
        drawn = torch.multinomial(chance, N_SETS, replacement=True)  # "self-augmentation"
        drawn = drawn.view(-1, N_ROWS, N_SETS, 1).expand(-1, -1, -1, 3)
        some = some._replace(sites=moved.gather(2, drawn).transpose(1, 2) % 1.0)
        return self.described(some)[0], some.labels

    def fake(self, condition: Labels | None = None) -> Tensor:
        """Generated crystals of such labels, as the critic sees them, with gradients."""
        return self.described(self.generate(condition))[0]

    def scorer(self, condition: Labels | None) -> losses.Scorer:
        """The critic for crystals of such labels."""
        if self.config.blind:
            operations = affine().to(self.features)[condition.group]
            return lambda seen: self.critic(seen, operations)
        features = self.features[condition.element]
        return lambda seen: self.critic(seen, condition.group, features)

    def critic_terms(self) -> dict[str, Tensor]:
        """Wasserstein loss; as published with a penalty by crystals and one by operations."""
        if not self.config.blind:
            return super().critic_terms()
        for network in self.networks.values():
            network.train()
        real, labels = self.real()
        others = self.labels.batch(len(real), source="data")
        with torch.no_grad():
            fake = self.fake(others)
        real_group, group = (affine().to(real)[each.group] for each in (labels, others))
        wasserstein = losses.critic_loss(self.critic(real, real_group), self.critic(fake, group))
        weight = losses.mixing_weight((len(real), 1, 1, 1), mixing=self.mixing, like=real)
        points = losses.between(real, fake, weight), losses.between(real_group, group, weight)
        by_crystal = losses.slope(lambda x: self.critic(x, points[1]), points[0])
        by_group = losses.slope(lambda x: self.critic(points[0], x), points[1])
        penalty = losses.one_centred(by_crystal) + losses.one_centred(by_group)
        loss = wasserstein + self.penalty * penalty
        return {"loss": loss, "distance": -wasserstein, "penalty": penalty}

    def generator_terms(self) -> dict[str, Tensor]:
        """Negative score, how much too near atoms are, Å, and how far cells are off in ln(room)."""
        labels = self.labels.batch(self.config.batch, source="data")
        seen, inter, intra = self.described(self.generate(labels))
        loss = losses.generator_loss(self.scorer(labels)(seen))
        terms = {}
        for name, (distance, sum_of_radii) in (("inter", inter), ("intra", intra)):
            terms[name] = pgcgm_sites.too_near(distance, self.config.apart * sum_of_radii)
            if getattr(self.config, name):
                loss = loss + self.config.strength * terms[name]
        if self.config.cell:
            off = (seen[:, -1] - self.usual[0]).abs() - SPREAD * self.usual[1]
            terms["cell"] = functional.relu(off).mean()
            loss = loss + self.config.cell * terms["cell"]
        return {"loss": loss, **terms}

    def generate(self, labels: Labels) -> Batch:
        """Crystals from noise, with gradients."""
        given = [self.noise(len(labels)), labels.group, self.features[labels.element]]
        if self.config.placed:
            given.append(self.drawn_positions(labels.group))
        sites, code = self.generator(*given)
        lengths = pgcgm_sites.averaged(pgcgm_sites.uncoded(code), labels.group)
        if self.config.blind:
            return Batch((sites + 1) / 2, lengths, labels)
        return Batch(sites[:, None], lengths, labels)

    def drawn_positions(self, group: Tensor) -> Tensor:
        """(n, 3, 3, 4) positions of the sites of training crystals of each group, by lot."""
        same = self.labels.known.group == group[:, None]  # (n, crystals)
        return self.learnt["positions"][torch.multinomial(same.float(), 1)[:, 0]]

    def described(self, some: Batch) -> tuple[Tensor, Distances, Distances]:
        """What the critic sees, with the distances between elements and within one."""
        radius = self.radii[some.labels.element]  # (n, 3)
        lattice = pgcgm_sites.lattice_of(some.lengths, some.labels.group)
        if self.config.blind:
            features = self.features[some.labels.element]
            return pgcgm_networks.picture(*some[:2], lattice, radius, features)
        return self.whole(some, lattice, radius)

    def whole(
        self, some: Batch, lattice: Tensor, radius: Tensor
    ) -> tuple[Tensor, Distances, Distances]:
        """(n, 31) sites on their special positions, edges, contacts, multiplicities, volume.

        The gradient passes through the projection as if it were not there.
        """
        frac, group = some.sites[:, 0], some.labels.group
        onto, many = pgcgm_sites.projected(frac, group, lattice, 2 * self.config.merged * radius)
        frac = frac + (onto - frac).detach()
        apart = pgcgm_sites.contacts(frac, group, lattice)  # (n, 6)
        sums = radius[:, ONE] + radius[:, TWO]
        turn = 2 * torch.pi * frac.flatten(1)
        size = (many * radius**3).sum(1, keepdim=True)
        filling = (some.lengths.prod(1, keepdim=True) / size).log()
        near = (apart / sums).clamp(max=FAR)
        edges = pgcgm_sites.coded(some.lengths)
        seen = [turn.cos(), turn.sin(), edges, near, many.log() / 2, filling]
        k = N_ROWS
        return torch.cat(seen, 1), (apart[:, :k], sums[:, :k]), (apart[:, k:], sums[:, k:])

    # ---- sampling

    def draw(self, n: int, condition: Condition) -> BaseSites:
        """Base sites for a space group, ``elements`` such as ``("Cs", "Pb", "I")``, or both.

        What is not given is drawn after the training crystals; ``labels="uniform"`` takes any
        three elements. Of the three published sets of sites one is taken, in turn.
        """
        labels = self.labels.draw(n, source=condition.get("labels", "data"))
        labels = self.labels.asked(labels, condition)
        made = self.generate(labels)
        place = torch.arange(n, device=self.device)
        frac = made.sites[place, place % made.sites.shape[1]]
        numbers = np.array(self.rows.element_numbers)[labels.element.cpu().numpy()]
        groups = np.array(SPACE_GROUPS)[labels.group.cpu().numpy()]
        return BaseSites(groups, numbers, *(x.cpu().double().numpy() for x in (made.lengths, frac)))

    def decode(self, raw: BaseSites) -> Samples:
        """Fill the cells, merge what is one site, and keep what passes the published checks."""
        reasons = [""] * len(raw)
        mark_cells(reasons, raw)
        good = without(reasons)
        ok = np.array([why == "" for why in reasons])
        c = self.config
        how = {"decimals": c.decimals, "projects": not c.blind, "merged": c.merged}
        crystals: CrystalBatch | None = expanded(raw[good], **how) if len(good) else None
        places = in_places(crystals, ok)
        mark_misfits(reasons, places, raw.space_group)
        ok = np.array([why == "" for why in reasons])
        kept = in_places(places[ok] if ok.any() else None, ok)
        return Samples.from_reasons(kept, reasons, asked={"space_group": raw.space_group})
