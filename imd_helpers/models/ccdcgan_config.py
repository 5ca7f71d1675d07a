"""What a CCDCGAN is made of: its sizes and switches, and a cell as six numbers.

Source: Long et al., npj Comput. Mater. 7 (2021) 66, and TengLong1993/CCDCGAN-for-single-system at
cec17bd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ..descriptors.crystal_image import ImageLayout
from ..descriptors.voxel_grid import SIGMA, VoxelGrid
from ..networks import TrainConfig
from ..runtime import number, settle, whole
from .ccdcgan_networks import SIDE
from .gan import GanConfig

ELEMENTS = (83, 34)  # Bi and Se, in the order of their codes
CELL_CODE, CELL_ROOM = 25, 200  # published numbers of the code of a cell, and pixels kept for it
LOWER = ([0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2])  # the six numbers of a lattice
DIAGONAL = [0, 2, 5]  # of these
LARGE = 10.0  # Å; unit of lengths


@dataclass(frozen=True)
class CcdcganConfig(GanConfig):
    """Architecture and training; the defaults are what was published.

    Attributes:
        cell: how a cell is coded: ``grid``, by an autoencoder, or ``numbers``, read off.
        cell_points: points along each edge of the grid of a cell.
        site_points: points along each edge of the grids of sites.
        site_code: numbers of the code of one element.
        max_edge: longest edge of a cell, Å.
        repeats: grids of sites follow the reduced cell and repeat, instead of a box of 15 Å.
        sharpened: the decoders of grids end in the published re-mapping, instead of linearly.
        sigma: width of the Gaussians, Å.
        varied: autoencoders learn from crystals with another origin, a little strained and moved,
            and from grids turned at random, instead of from crystals as they come.
        jitter: deviation of the noise on the codes that the decoder of sites learns from.
        picture: networks are 2-D convolutions over the picture, instead of dense layers.
        standardised: each pixel has mean 0 and deviation 1 over the training crystals.
        loss: of the game, a name of `losses.PAIRS`.
        strength: factor of the mean of exp(energy) in the generator's loss.
        blur: deviation of the noise on the pictures that the constraint learns from.
        coder_width: factor on the 64 channels of the autoencoders.
        coder_batch: crystals in a batch of the autoencoders.
        coder_steps: of the autoencoders.
        coder_rate: of both.
        constraint_steps: of the constraint, at the rate of the generator.
    """

    CHOICES: ClassVar = {"cell": ("grid", "numbers"), "loss": ("non_saturating", "wasserstein")}
    latent: int = 200
    batch: int = 128
    data: str = "bi_se"
    cell: str = "grid"
    cell_points: int = 32
    site_points: int = 64
    site_code: int = 200
    max_edge: float = 10.0
    repeats: bool = False
    sharpened: bool = True
    sigma: float = SIGMA
    varied: bool = False
    jitter: float = 0.0
    picture: bool = True
    standardised: bool = False
    loss: str = "non_saturating"
    strength: float = 0.1
    blur: float = 0.0
    coder_width: float = 1.0
    coder_batch: int = 1
    coder_steps: int = 83_000  # 101 times 823 crystals
    coder_rate: float = 3e-4
    constraint_steps: int = 20_001
    train: TrainConfig = TrainConfig(
        steps=1_000_000,
        critic_steps=1,
        lr_generator=2e-4,
        lr_critic=2e-4,
        betas_generator=(0.5, 0.999),
        betas_critic=(0.5, 0.999),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, whole, "site_points", "site_code", "cell_points", least=8)
        settle(self, whole, "coder_batch", "coder_steps", "constraint_steps", least=1)
        settle(self, number, "max_edge", "sigma", "coder_rate", "coder_width", above=0)
        settle(self, number, "strength", "blur", "jitter", least=0)

    def voxels(self) -> VoxelGrid:
        """The grids that a crystal is written on."""
        how = {"cell_points": self.cell_points, "site_points": self.site_points}
        box = {} if self.repeats else {"box": 15.0, "reduce": False}
        return VoxelGrid(ELEMENTS, max_edge=self.max_edge, sigma=self.sigma, **how, **box)

    def layout(self) -> ImageLayout:
        """Where the codes lie in the picture: 28 x 28 as published, else as small as they fit."""
        if self.cell == "grid":
            return ImageLayout(ELEMENTS, SIDE, CELL_CODE, self.site_code, CELL_ROOM)
        cell = len(LOWER[0])
        side = int(np.ceil(np.sqrt(cell + len(ELEMENTS) * self.site_code)))
        return ImageLayout(ELEMENTS, side, cell, self.site_code, cell)


PAPER = CcdcganConfig()
FIXED = CcdcganConfig(
    width=0.5,
    latent=64,
    batch=64,
    cell="numbers",
    cell_points=40,
    site_points=16,
    max_edge=15.0,
    repeats=True,
    sharpened=False,
    sigma=0.5,
    varied=True,
    jitter=0.03,
    picture=False,
    standardised=True,
    loss="wasserstein",
    strength=10.0,
    blur=1.0,
    coder_width=0.25,
    coder_batch=16,
    coder_rate=2e-3,
    coder_steps=1_200,
    constraint_steps=200,
    train=TrainConfig(
        steps=600, critic_steps=2, lr_generator=1e-3, lr_critic=1e-3, fall=0.8, ema=0.99
    ),
)
SMOKE = {"width": 1 / 8, "coder_width": 1 / 16, "batch": 16, "coder_batch": 4, "coder_steps": 4}
SMOKE |= {"constraint_steps": 8, "steps": 8, "log_every": 4, "save_every": 8}
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "": {"smoke": SMOKE, "colab": {"coder_steps": 500}, "full": {"log_every": 25}},
    # published widths and lengths need a GPU and days
    "paper": {
        "smoke": SMOKE | {"site_points": 32},
        "colab": {"width": 1 / 4, "coder_width": 1 / 4, "coder_steps": 300}
        | {"constraint_steps": 300, "steps": 300},
        "full": {"width": 1 / 4, "coder_width": 1 / 4, "coder_steps": 1_000}
        | {"constraint_steps": 400, "steps": 400, "log_every": 20, "save_every": 100},
    },
}


def cell_numbers(lattice: Tensor) -> Tensor:
    """(n, 6) of lattices (n, 3, 3) with a triangle of zeros: logarithms where edges are positive.

    Order: ln a_x, b_x, ln b_y, c_x, c_y, ln c_z, lengths in units of 10 Å.
    """
    code = lattice[:, LOWER[0], LOWER[1]] / LARGE
    code[:, DIAGONAL] = code[:, DIAGONAL].log()
    return code


def lattice_of(code: Tensor) -> Tensor:
    """(n, 3, 3) lattices, Å, of six numbers each: the inverse of `cell_numbers`."""
    values = code.double()
    lattice = values.new_zeros(len(code), 3, 3)
    values = values.clone()
    values[:, DIAGONAL] = values[:, DIAGONAL].exp()
    lattice[:, LOWER[0], LOWER[1]] = values * LARGE
    return lattice
