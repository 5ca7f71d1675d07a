"""CCDCGAN: codes of voxel grids drawn as one picture, and an energy that pulls at the generator.

Two autoencoders turn the grid of the cell and the grid of each element's sites into short codes,
which are the pixels of one picture. A GAN draws such pictures. A third network, the constraint, has
learnt the formation energy of a picture, and its gradient goes back into the generator.

Source: Long et al., Constrained crystals deep convolutional generative adversarial network, npj
Comput. Mater. 7 (2021) 66, and TengLong1993/CCDCGAN-for-single-system at cec17bd. What differs in
both variants:

- Real cells of bismuth and selenium, and what is the like of them, are in no training.
- The discriminator takes one step from a real and a generated batch, not a step from each.
- Dropout of the frozen constraint is off while the generator learns from it.
- Both autoencoders learn from one crystal at a time; errors are relative to drawing nothing.
- Places are read between the voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..descriptors.base import first_of
from ..descriptors.crystal_image import CrystalImage
from ..matching.same import novel
from ..networks import TrainConfig, fit, losses
from ..networks.fit import Game, Turn
from . import ccdcgan_config, ccdcgan_networks
from .ccdcgan_config import CELL_CODE, FIXED, PAPER, PROFILES, CcdcganConfig
from .gan import Gan
from .imatgen_crystals import relative, turned, varied
from .imatgen_networks import grid_decoder, grid_encoder

HIGHEST = 1.0  # eV/atom; a crystal above did not relax
CODERS = ("cell_encoder", "cell_decoder", "site_encoder", "site_decoder")
CHUNK = 32  # crystals or pictures worked on at once


class Ccdcgan(Gan):
    """Coders, constraint, generator and critic, which learn one after the other."""

    name, format = "ccdcgan", "imd-ccdcgan-1"
    Config = CcdcganConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED}
    PROFILES: ClassVar = PROFILES
    LEARNT = ("shift", "scale", "stages")
    DROPPED: ClassVar = {"patches": False}
    PIECE = 256

    def build(self) -> dict[str, nn.Module]:
        """Autoencoders of cells, where cells are grids, and of sites; constraint; the players."""
        c = self.config
        # without biases an empty voxel starts inside the window of the re-mapping
        coders = (
            partial(grid_encoder, bias=not c.sharpened),
            partial(grid_decoder, bias=not c.sharpened, sharp=c.sharpened),
        )
        wide = max(c.fewest_channels, round(64 * c.coder_width))
        cell, sites = (c.cell_points, wide, CELL_CODE), (c.site_points, wide, c.site_code)
        parts = [coder(*cell, periodic=False) for coder in coders] if c.cell == "grid" else []
        parts += [coder(*sites, periodic=c.repeats) for coder in coders]
        return dict(zip(CODERS[-len(parts) :], parts, strict=True)) | self.players()

    def players(self) -> dict[str, nn.Module]:
        """Constraint, generator and critic."""
        c, side = self.config, self.config.layout().side
        if c.picture:
            return {
                "constraint": ccdcgan_networks.picture_constraint(c.channels),
                "generator": ccdcgan_networks.picture_generator(c.latent, c.channels),
                "critic": ccdcgan_networks.picture_critic(c.channels),
            }
        wide = c.channels(512)
        return {
            "constraint": ccdcgan_networks.dense_critic(wide, side, dropout=0.3),
            "generator": ccdcgan_networks.dense_generator(c.latent, wide, side),
            "critic": ccdcgan_networks.dense_critic(wide, side),
        }

    # ---- data

    @classmethod
    def read(cls, config: CcdcganConfig, split: str | None = "train") -> datasets.CrystalSet:
        """Crystals of one split that fit into the grids, without the likes of real ones."""
        data = datasets.load(config.data, split=split)
        sound = data.table["formation_energy"].to_numpy() <= HIGHEST
        data = data[np.flatnonzero(sound & novel(data.crystals, answers()))]
        return data[np.flatnonzero(config.voxels().verdict(data.crystals).ok)]

    @classmethod
    def learn(cls, data: datasets.CrystalSet, config: CcdcganConfig) -> dict[str, Any]:
        """Room for what `prepare` finds: mean and deviation of each pixel, losses of the stages."""
        shape = config.layout().shape
        return {"shift": torch.zeros(shape), "scale": torch.ones(shape), "stages": []}

    def prepare(self, data: datasets.CrystalSet, *, seed: int = 0) -> None:
        """Train the coders, freeze them, compute all pictures once, and train the constraint."""
        c = self.config
        self.energy = energies(data).to(self.device)  # (crystals,) eV/atom
        self.known = data.crystals.to(self.device)
        rates = {"lr_generator": c.coder_rate, "betas_generator": (0.9, 0.999)}
        steps = {"steps": c.coder_steps, "fall": c.train.fall}
        self.stage("coders", self.coder_terms, CODERS, **steps, **rates)
        del self.known
        if c.standardised:
            images = self.written(data.crystals).tensor
            deviation = images.std(0)
            self.learnt["shift"] = images.mean(0)
            self.learnt["scale"] = torch.where(deviation > 1e-4, deviation, 1.0)
        self.look_at(data.crystals)
        rates = {"lr_generator": 2e-4, "betas_generator": (0.5, 0.999)}
        steps = {"steps": c.constraint_steps}
        self.stage("constraint", self.constraint_terms, ("constraint",), **steps, **rates)

    def look_at(self, crystals: CrystalBatch) -> Self:
        """Take crystals to learn to draw, with the coders as they are, and return self."""
        self.images = self.encode(crystals).tensor  # (crystals, 1, side, side)
        return self

    def stage(
        self, name: str, terms: Callable[[], dict[str, Tensor]], parts: tuple[str, ...], **how: Any
    ) -> None:
        """Train some parts before the game, and note their losses and seconds."""
        networks = {each: self.networks[each] for each in parts if each in self.networks}
        config = TrainConfig(
            **how, log_every=max(1, how["steps"] // 20), seed=self.config.train.seed
        )
        history = fit(Alone(name, networks, terms), config, progress=False)
        for network in networks.values():
            network.requires_grad_(False).eval()
        self.learnt["stages"].append(
            {"name": name, "seconds": round(history.seconds, 1), "rows": history.rows}
        )

    def anew(self, *, seed: int, **changes: Any) -> Self:
        """The same coders, constraint and pictures with a new generator and critic."""
        other = type(self)(self.config.but(seed=seed, **changes), self.learnt, seed=seed)
        for name in self._names[:-2]:
            setattr(other, name, getattr(self, name))
        other.images = self.images
        return other.to(self.device)

    # ---- coders

    @cached_property
    def descriptor(self) -> CrystalImage:
        """Crystals to pictures of codes, before they are standardised, and back."""
        return CrystalImage(self.config.layout(), self.config.voxels(), self)

    @property
    def cell_code(self) -> int:
        """Numbers of the code of a cell."""
        return self.config.layout().cell_code

    @property
    def site_code(self) -> int:
        """Numbers of the code of one element."""
        return self.config.site_code

    def encode_cells(self, cell: Tensor) -> Tensor:
        """(batch, cell code) of grids (batch, 1, points^3)."""
        if self.config.cell == "grid":
            return self.cell_encoder(cell)
        lattice = self.config.voxels().read_cells(cell[:, 0])[0]
        return ccdcgan_config.cell_numbers(lattice).to(cell)

    def decode_cells(self, code: Tensor) -> Tensor:
        """(batch, 1, points^3) of codes (batch, cell code)."""
        if self.config.cell == "grid":
            return self.cell_decoder(code)
        return self.config.voxels().cell_grids(ccdcgan_config.lattice_of(code))[:, None]

    def encode_sites(self, sites: Tensor) -> Tensor:
        """(batch, site code) of grids (batch, 1, points^3)."""
        return self.site_encoder(sites)

    def decode_sites(self, code: Tensor) -> Tensor:
        """(batch, 1, points^3) of codes (batch, site code)."""
        return self.site_decoder(code)

    def coder_terms(self) -> dict[str, Tensor]:
        """Squared errors of the autoencoders, relative to drawing nothing."""
        some = self.known[torch.randint(len(self.energy), (self.config.coder_batch,)).numpy()]
        voxels = self.config.voxels()
        written = voxels.encode_all(varied(some) if self.config.varied else some)
        cell, sites = voxels.split(written.tensor)
        sites = sites[torch.as_tensor(written.ok)].flatten(0, 1)[:, None]  # strained, some are long
        sites = turned(sites) if self.config.varied else sites
        code = self.encode_sites(sites)
        code = code + self.config.jitter * torch.randn_like(code)
        errors = {"sites": relative(self.decode_sites(code), sites)}
        if self.config.cell == "grid":
            errors["cell"] = relative(self.decode_cells(self.encode_cells(cell)), cell)
        return {"loss": torch.stack(list(errors.values())).sum(), **errors}

    # ---- crystal -> picture -> crystal

    @torch.no_grad()
    def written(self, crystals: CrystalBatch) -> Samples:
        """Pictures (n, 1, side, side) of crystals, before they are standardised."""
        parts = [
            self.descriptor.encode_all(crystals[rows.numpy()].to(self.device))
            for rows in torch.arange(len(crystals)).split(CHUNK)
        ]
        reasons = [why for part in parts for why in part.reasons]
        return Samples.from_reasons(torch.cat([part.tensor for part in parts]), reasons)

    def encode(self, crystals: CrystalBatch) -> Samples:
        """Pictures (n, 1, side, side) of crystals as the networks see them, with reasons."""
        found = self.written(crystals)
        images = (found.tensor - self.learnt["shift"]) / self.learnt["scale"]
        return Samples.from_reasons(images, found.reasons)

    def rebuilt(self, crystals: CrystalBatch) -> Samples:
        """What comes back of crystals that became pictures; n in, n out."""
        pictures = self.encode(crystals)
        back = self.decode(pictures.tensor)
        return Samples.from_reasons(back.crystals, first_of(pictures.reasons, back.reasons))

    @torch.no_grad()
    def predicted(self, images: Tensor) -> Tensor:
        """(n,) formation energies, eV/atom, that the constraint reads from pictures."""
        self.constraint.eval()
        return self.constraint(images)[:, 0]

    # ---- training

    def constraint_terms(self) -> dict[str, Tensor]:
        """Squared error of the formation energy, (eV/atom)^2, on training crystals."""
        self.constraint.train()
        rows = torch.randint(len(self.images), (64,), device=self.device)
        some = self.images[rows]
        some = some + self.config.blur * torch.randn_like(some)
        return {"loss": (self.constraint(some)[:, 0] - self.energy[rows]).square().mean()}

    def real(self) -> tuple[Tensor, None]:
        """A batch of pictures of training crystals."""
        return self.images[self.some(len(self.images))], None

    def fake(self, condition: Tensor | None = None) -> Tensor:
        """A batch of drawn pictures, with gradients."""
        return self.draw(self.config.batch, {})

    def critic_terms(self) -> dict[str, Tensor]:
        """Wasserstein's loss with its penalty, or the cross-entropy of real and drawn pictures."""
        if self.config.loss == "wasserstein":
            return super().critic_terms()
        real, fake, score = self.pair()
        return {"loss": losses.PAIRS[self.config.loss].critic(score(real), score(fake))}

    def generator_terms(self) -> dict[str, Tensor]:
        """The game's loss, and where it has a factor what the constraint says of the drawn ones."""
        self.constraint.eval()
        fake = self.fake()
        seen = self.critic(fake)
        score = losses.PAIRS[self.config.loss].generator(seen, seen)  # of the drawn ones alone
        if not self.config.strength:
            return {"loss": score, "score": score}
        energy = self.constraint(fake)[:, 0]
        loss = score + self.config.strength * constraint_loss(energy)
        return {"loss": loss, "score": score, "energy": energy.mean()}

    # ---- sampling

    @torch.no_grad()
    def decode(self, raw: Tensor) -> Samples:
        """Crystals of pictures (n, 1, side, side)."""
        images = raw * self.learnt["scale"] + self.learnt["shift"]
        return Samples.cat([self.descriptor.decode(some) for some in images.split(CHUNK)])


class Alone(Game):
    """Parts of a model that learn before the game does, together and from one loss."""

    def __init__(
        self, name: str, parts: dict[str, nn.Module], terms: Callable[[], dict[str, Tensor]]
    ) -> None:
        self.name, self.parts, self.terms = name, parts, terms

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The parts."""
        return self.parts

    def turns(self, config: TrainConfig) -> list[Turn]:
        """One turn."""
        return [Turn(self.name, self.terms, tuple(self.parts))]


def constraint_loss(energy: Tensor) -> Tensor:
    """Mean of exp(E) of formation energies (n,) in eV/atom, to be made small.

    Source: Long et al. (2021) and `train_GAN.py` of its code.
    """
    return energy.exp().mean()


def energies(data: datasets.CrystalSet) -> Tensor:
    """(n,) formation energies by SevenNet-l3i5, eV/atom, from a set's mean of two potentials.

    CHGNet, which learned corrected energies, is the lower one of each selenide.
    """
    table = data.table
    both = table["formation_energy"] + table["disagreement"] / 2
    return torch.as_tensor(both.to_numpy(dtype=np.float32))


def answers() -> CrystalBatch:
    """The real cells of bismuth and selenium, which no training sees: are they found?"""
    return datasets.load("oqmd_icsd").select(elements=["Bi", "Se"], nelements=2).crystals
