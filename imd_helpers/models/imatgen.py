"""iMatGen: voxel grids of crystals squeezed to codes, and a variational autoencoder of the codes.

Two autoencoders turn the grid of the cell, and the grid of each element's sites, into short codes,
which are the rows of one picture. Then a variational autoencoder makes a continuous latent space of
the pictures, in which a classifier tells stable crystals from others. New crystals are drawn around
those of the training set, or on the way between two of them.

Source: Noh et al., Inverse design of solid-state materials via a continuous representation, Matter
1 (2019) 1370; sizes are those of the port nd-02110114/imatgen at 6ed113f. What differs here:

- One rate for all, that of the sites' autoencoder, 3e-4; in the port 1e-4 for the others.
- Errors are relative to drawing nothing. The classifier's loss has the factor 1; in the port 0.
- In both variants places are read between the voxels, and the real oxides are held out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import datasets
from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..descriptors.base import first_of
from ..descriptors.voxel_grid import SIGMA, VoxelGrid
from ..matching.same import novel
from ..networks import TrainConfig, losses
from ..networks.fit import Turn
from ..networks.layers import mlp
from ..runtime import InputError, number, settle, whole
from . import imatgen_networks
from .gan import Condition, Gan, GanConfig
from .imatgen_crystals import answers, cell_grids, relative, turned, varied

ELEMENTS = (8, 23)  # O and V, one grid of sites and one code each
CELL_POINTS = 32
CELL_CODE, CELL_NUMBERS = 20, 6
STABLE = -0.5  # eV/atom; a crystal with this formation energy, or a lower one, is stable
CODE_BATCH = 64
CELL_WEIGHT = 100.0  # of the error of six numbers beside that of the codes of sites
KL_WEIGHT = 1e-6  # of the divergence beside the mean squared error
PLACES = 4  # of each grid from which codes are learnt, if crystals are varied


@dataclass(frozen=True)
class IMatGenConfig(GanConfig):
    """Architecture and training; the defaults are what was published.

    Attributes:
        site_points: points along each edge of the grids of sites.
        site_code: numbers of the code of one element, and of a row of the picture.
        rows: of the picture: the cell, each element, and zeros.
        sigma: width of the Gaussians, Å.
        repeats: grids of sites follow the reduced cell and repeat, instead of a box of 15 Å.
        sharpened: the decoders of grids end in the published re-mapping, instead of linearly.
        biased: the layers of grids add a number of their own.
        numbers: the cell is written as its edges and angles, without a grid and an autoencoder.
        dense: width of the dense layers of codes; 0: the published convolutions over their order.
        copies: how many varied ones stand for each crystal; 0: the crystal as it comes.
        grids: share of the steps in which grids are learnt; in the rest it is their codes.
        sampling: where samples are drawn: around training crystals, or between two of them.
        spread: of the samples around a crystal, in standard deviations of its code.
    """

    CHOICES: ClassVar = {"sampling": ("around", "between")}
    latent: int = 500
    batch: int = 24
    data: str = "v_o"
    site_points: int = 64
    site_code: int = 200
    rows: int = 6
    sigma: float = SIGMA
    repeats: bool = False
    sharpened: bool = True
    biased: bool = False
    numbers: bool = False
    dense: int = 0
    copies: int = 0
    grids: float = 0.5
    sampling: str = "around"
    spread: float = 1.0
    train: TrainConfig = TrainConfig(steps=30_000, lr_generator=3e-4, betas_generator=(0.9, 0.999))

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "site_points", "site_code", least=8)
        settle(self, whole, "dense", "copies")
        settle(self, number, "sigma", above=0)
        settle(self, number, "grids", above=0, below=1)
        settle(self, whole, "rows", least=1 + len(ELEMENTS))

    def voxels(self) -> VoxelGrid:
        """The grids that a crystal is written on."""
        sizes = {"site_points": self.site_points, "sigma": self.sigma}
        if not self.repeats:
            return dataclasses.replace(VoxelGrid.imatgen(ELEMENTS), **sizes)
        return VoxelGrid(ELEMENTS, CELL_POINTS, **sizes)


PAPER = IMatGenConfig()
FIXED = IMatGenConfig(
    width=1 / 4,
    batch=16,
    site_points=16,
    rows=3,
    sigma=0.4,
    repeats=True,
    sharpened=False,
    biased=True,
    numbers=True,
    dense=256,
    copies=6,
    grids=0.6,
    latent=350,
    train=TrainConfig(steps=2_500, lr_generator=2e-3, betas_generator=(0.9, 0.999), fall=0.8),
)

SMOKE = {"width": 1 / 8, "batch": 8, "steps": 8, "log_every": 4, "save_every": 40}
SHORT = {"width": 1 / 8, "site_points": 32, "steps": 600, "log_every": 20, "save_every": 100}


class IMatGen(Gan):
    """Autoencoders of grids, a variational one of their codes, and a classifier: no game."""

    name, format = "imatgen", "imd-imatgen-1"
    Config = IMatGenConfig
    VARIANTS: ClassVar = {"paper": PAPER, "fixed": FIXED}
    PROFILES: ClassVar = {
        "": {
            "smoke": SMOKE | {"copies": 2, "dense": 64, "latent": 64, "steps": 200},
            "colab": {},
            "full": {"log_every": 50, "save_every": 250},
        },
        "paper": {
            "smoke": SMOKE | {"site_points": 32},
            "colab": {"steps": 500, "width": 1 / 4},
            "full": SHORT,
        },
    }
    LEARNT = ("lattice", "frac", "numbers")
    DROPPED: ClassVar = {"gain": 0.5, "stability": 1.0}
    PIECE = 256
    averaged = "code_decoder"

    def build(self) -> dict[str, nn.Module]:
        """Encoder and decoder of cells, of sites and of codes, and the classifier."""
        c = self.config

        def coders(name: str, points: int, code: int, periodic: bool) -> dict[str, nn.Module]:
            size, how = (points, c.channels(64), code), {"periodic": periodic, "bias": c.biased}
            decoder = imatgen_networks.grid_decoder(*size, **how, sharp=c.sharpened)
            encoder = imatgen_networks.grid_encoder(*size, **how)
            return {f"{name}_encoder": encoder, f"{name}_decoder": decoder}

        return {
            **({} if c.numbers else coders("cell", CELL_POINTS, CELL_CODE, periodic=False)),
            **coders("site", c.site_points, c.site_code, periodic=c.repeats),
            **imatgen_networks.code_networks(c.rows, c.site_code, c.latent, c.channels, c.dense),
            "classifier": mlp([c.latent, c.channels(500), 1], activation=nn.Tanh()),
        }

    # ---- data

    @classmethod
    def read(cls, config: IMatGenConfig, split: str | None = "train") -> datasets.CrystalSet:
        """Crystals of one split that fit into the grids, without those that are real oxides."""
        data = datasets.load(config.data, split=split)
        data = data[np.flatnonzero(novel(data.crystals, answers()))]
        return data[np.flatnonzero(config.voxels().verdict(data.crystals).ok)]

    @classmethod
    def learn(cls, data: datasets.CrystalSet, config: IMatGenConfig) -> dict[str, Any]:
        """The training crystals themselves: samples are drawn around them."""
        known = data.crystals
        whole = {"lattice": known.lattice.float(), "frac": known.frac.float()}
        return {**whole, "numbers": known.numbers.to(torch.uint8)}

    def prepare(self, data: datasets.CrystalSet, *, seed: int = 0) -> None:
        """The pool: its cells, grids of sites (pool, elements, points^3), and which are stable."""
        energy = torch.as_tensor(data.table["formation_energy"].to_numpy())
        stable = (energy <= STABLE).float()
        parts: list[tuple[Tensor, ...]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(max(1, self.config.copies)):
                some = varied(data.crystals) if self.config.copies else data.crystals
                written = self.config.voxels().encode_all(some)
                ok = torch.as_tensor(written.ok)
                parts.append((*(p.clone() for p in self.split(written.tensor[ok])), stable[ok]))
        pool = (torch.cat(part).to(self.device) for part in zip(*parts, strict=True))
        self.cells, self.sites, self.stable = pool
        self.pictures = None

    @property
    def known(self) -> CrystalBatch:
        """The training crystals."""
        held = self.learnt
        return CrystalBatch(held["lattice"].double(), held["frac"].double(), held["numbers"].long())

    # ---- training

    def turns(self, config: TrainConfig) -> list[Turn]:
        """The coders of grids first; then, with their codes as they are, what reads codes."""
        share = self.config.grids
        return [
            Turn("grids", self.grid_terms, self._names[:-3], end=share),
            Turn("codes", self.code_terms, self._names[-3:], begin=share),
        ]

    def grid_terms(self) -> dict[str, Tensor]:
        """Squared errors of the autoencoders of grids, relative to drawing nothing."""
        rows = self.some(len(self.sites))
        sites = self.sites[rows].flatten(0, 1)[:, None]
        if self.config.copies:
            sites = turned(sites)
        errors = {"sites": relative(self.site_decoder(self.site_encoder(sites)), sites)}
        if not self.config.numbers:
            cell = self.cells[rows]
            errors["cell"] = relative(self.cell_decoder(self.cell_encoder(cell)), cell)
        return {"loss": sum(errors.values()), **errors}

    def code_terms(self) -> dict[str, Tensor]:
        """Squared error of the codes, divergence, and cross-entropy of the classifier."""
        if self.pictures is None:
            self.pictures = self.all_pictures()
            if self.config.dense:
                coders, first = (self.code_encoder, self.code_decoder), CELL_WEIGHT**0.5
                imatgen_networks.start_from_components(*coders, self.pictures, first=first)
        rows = torch.randint(len(self.pictures), (CODE_BATCH,), device=self.device)
        picture = self.pictures[rows]
        mean, log_variance = self.code_encoder(picture)
        latent = losses.reparameterise(mean, log_variance)
        made = self.code_decoder(latent)
        error = relative(made, picture)
        if self.config.numbers:
            error = error + CELL_WEIGHT * relative(made[:, 0], picture[:, 0])
        divergence = losses.gaussian_kl(mean, log_variance).mean()
        logit = self.classifier(latent)[:, 0]
        known = self.stable[rows % len(self.stable)]
        wrong = nn.functional.binary_cross_entropy_with_logits(logit, known)
        loss = error + KL_WEIGHT * divergence + wrong
        return {"loss": loss, "error": error, "divergence": divergence, "stability": wrong}

    @torch.no_grad()
    def all_pictures(self) -> Tensor:
        """(places x pool, rows, site code): of the whole pool, with other origins if varied."""
        shifts = torch.arange(PLACES if self.config.copies else 1) * self.config.site_points
        parts = []
        for shift in (shifts // PLACES).tolist():
            moved = self.sites.roll((shift, shift, shift), (2, 3, 4))
            pairs = zip(self.cells.split(64), moved.split(64), strict=True)
            parts += [self.picture(cell, sites) for cell, sites in pairs]
        return torch.cat(parts)

    # ---- crystal -> picture -> latent, and back

    def split(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Cells, as grids or as six numbers, and grids of sites, of what `VoxelGrid` writes."""
        voxels = self.config.voxels()
        cell, sites = voxels.split(tensor)
        if self.config.numbers:
            lattice, _ = voxels.read_cells(cell[:, 0])
            return imatgen_networks.cell_numbers(lattice, voxels.max_edge).float(), sites
        return cell, sites

    def picture(self, cell: Tensor, sites: Tensor) -> Tensor:
        """(batch, rows, site code): the codes of the cell and of each element, then zeros."""
        out = sites.new_zeros(len(sites), self.config.rows, self.config.site_code)
        code = cell if self.config.numbers else self.cell_encoder(cell)
        out[:, 0, : code.shape[1]] = code
        codes = self.site_encoder(sites.flatten(0, 1)[:, None])
        out[:, 1 : 1 + len(ELEMENTS)] = codes.unflatten(0, (len(sites), len(ELEMENTS)))
        return out

    def drawn(self, picture: Tensor) -> Tensor:
        """(batch, numbers) grids of pictures (batch, rows, site code)."""
        voxels = self.config.voxels()
        sites = self.site_decoder(picture[:, 1 : 1 + len(ELEMENTS)].flatten(0, 1))
        sites = sites.unflatten(0, (len(picture), len(ELEMENTS)))[:, :, 0]
        if not self.config.numbers:
            return voxels.join(self.cell_decoder(picture[:, 0, :CELL_CODE]), sites)
        return voxels.join(cell_grids(voxels, picture[:, 0, :CELL_NUMBERS]), sites)

    @torch.no_grad()
    def encode(self, crystals: CrystalBatch) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Mean and spread (n, latent) of each crystal's latent code, and why it has none."""
        means, spreads, reasons = [], [], []
        for rows in torch.arange(len(crystals)).split(32):
            written = self.config.voxels().encode_all(crystals[rows.numpy()].to(self.device))
            mean, log_variance = self.code_encoder(self.picture(*self.split(written.tensor)))
            means.append(mean)
            spreads.append((0.5 * log_variance).exp())
            reasons.extend(written.reasons)
        return torch.cat(means), torch.cat(spreads), tuple(reasons)

    def rebuilt(self, crystals: CrystalBatch) -> Samples:
        """What comes back of crystals that went to the latent space; n in, n out."""
        mean, _, reasons = self.encode(crystals)
        back = self.decode(mean)
        return Samples.from_reasons(back.crystals, first_of(reasons, back.reasons))

    @torch.no_grad()
    def stable_share(self, latent: Tensor) -> Tensor:
        """(n,) probability that the classifier gives to points (n, latent)."""
        return self.classifier(latent)[:, 0].sigmoid()

    def walk(self, ends: CrystalBatch, frames: int) -> Samples:
        """Crystals on the way from the first of two to the second, ends included.

        Raises:
            InputError: not two crystals, one that cannot be encoded, or fewer than two frames.
        """
        mean, _, reasons = self.encode(ends)
        if len(ends) != 2 or any(reasons):
            why = "; ".join(filter(None, reasons)) or f"{len(ends)} crystals"
            raise InputError(f"{why}: a walk goes from one crystal that fits the grids to another")
        share = torch.linspace(0, 1, whole("frames", frames, least=2), device=self.device)
        return self.decode(imatgen_networks.slerp(*mean[:, None].expand(-1, frames, -1), share))

    # ---- sampling

    def draw(self, n: int, condition: Condition) -> Tensor:
        """(n, latent) points around training crystals, or between two that are drawn."""
        parents = torch.randint(len(self.learnt["numbers"]), (2, n))
        one, spread, _ = self.encode(self.known[parents[0].numpy()])
        if self.config.sampling == "between":
            two = self.encode(self.known[parents[1].numpy()])[0]
            return imatgen_networks.slerp(one, two, torch.rand(n, device=self.device))
        return one + self.config.spread * spread * torch.randn_like(one)

    @torch.no_grad()
    def decode(self, raw: Tensor) -> Samples:
        """Crystals of points (n, latent)."""
        parts = []
        for some in raw.split(32):
            grids = self.drawn(self.code_decoder(some))
            parts.append(self.config.voxels().decode(grids))
        return Samples.cat(parts)
