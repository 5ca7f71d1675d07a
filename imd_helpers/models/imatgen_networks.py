"""Networks of iMatGen: autoencoders of grids, and a variational one over their codes.

Sizes: the port nd-02110114/imatgen at 6ed113f, whose folder iMatGen holds the original scripts: no
layer of grids has a bias in BASIS/basis.py, as in the code of Long et al. (TengLong1993/
CCDCGAN-for-single-system at cec17bd), who took it over; in the port itself all have one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..runtime import InputError

SMALLEST = 4  # points along each edge of the innermost grid
PAIRS = ((0, 0, 1), (1, 2, 2))  # of edges, between which the angles lie
QUIET = -8.0  # logarithm of the variance from which training starts
LOW, HIGH = 0.5, 0.5001  # the published re-mapping keeps what lies between


def sharpen(y: Tensor) -> Tensor:
    """The published output, min(10^4 (clip(y, 0.5, 0.5001) - 0.5), 1), of any shape.

    It has a slope only where 0.5 < y < 0.5001: everywhere else it is 0 or 1, and a loss of it says
    nothing to the network. In a network without biases an empty voxel is at 0.5 exactly, and what
    the network adds is small: there it is a ramp of the slope 2,500 of what enters the sigmoid.

    Source: `threshold` in prepare/sites_autoencoder.py of the code of Long et al.
    """
    return ((y.clip(LOW, HIGH) - LOW) * 1e4).clip(max=1.0)


class Sharpened(nn.Module):
    """A sigmoid and the published re-mapping behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of any shape to numbers in [0, 1]."""
        return sharpen(x.sigmoid())


def halvings(points: int) -> int:
    """How many times a grid's edge is halved until 4 points are left.

    Raises:
        InputError: not 8, 16, 32, ... points.
    """
    times = int(math.log2(max(points, 1) / SMALLEST)) if points >= SMALLEST else 0
    if times < 1 or SMALLEST * 2**times != points:
        raise InputError(
            f"a grid of {points} points along each edge: the edge is halved until {SMALLEST} "
            "points are left, so take 8, 16, 32 or 64"
        )
    return times


def grid_encoder(
    points: int, width: int, code: int, *, periodic: bool, bias: bool = True
) -> nn.Sequential:
    """(batch, 1, points^3) to codes (batch, code) between -1 and 1.

    Args:
        points: along each edge: 8, 16, 32 or 64.
        width: channels of each layer.
        code: numbers of the code.
        periodic: the grid repeats, so that what leaves on one side comes in on the other.
        bias: layers add a number of their own; the original has none.
    """
    mode, parts = "circular" if periodic else "zeros", []
    for k in range(halvings(points)):
        parts += [nn.Conv3d(width if k else 1, width, 4, 2, 1, padding_mode=mode, bias=bias)]
        parts += [nn.LeakyReLU(0.2)]
    return nn.Sequential(
        *parts, nn.Conv3d(width, code, SMALLEST, bias=bias), nn.Flatten(), nn.Tanh()
    )


def grid_decoder(
    points: int, width: int, code: int, *, periodic: bool, bias: bool = True, sharp: bool = False
) -> nn.Sequential:
    """Codes to (batch, 1, points^3), `Sharpened` or not; the mirror of `grid_encoder`."""
    parts = [nn.Unflatten(1, (code, 1, 1, 1)), nn.ConvTranspose3d(code, width, SMALLEST, bias=bias)]
    times = halvings(points)
    for k in range(times):
        exits = width if k < times - 1 else 1
        around = [nn.CircularPad3d(1)] if periodic else []
        pad = 3 if periodic else 1
        grow = nn.ConvTranspose3d(width, exits, 4, stride=2, padding=pad, bias=bias)
        parts += [nn.LeakyReLU(0.2), *around, grow]
    return nn.Sequential(*parts, *([Sharpened()] if sharp else []))


class CodeEncoder(nn.Module):
    """(batch, rows, row) codes to mean and logarithm of the variance, (batch, latent) each."""

    def __init__(self, body: nn.Sequential, features: int, latent: int) -> None:
        super().__init__()
        self.body = body
        self.mean, self.log_variance = nn.Linear(features, latent), nn.Linear(features, latent)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""
        features = self.body(codes)
        return self.mean(features), self.log_variance(features)


def code_encoder(rows: int, row: int, latent: int, channels: Callable[[int], int]) -> CodeEncoder:
    """The published encoder: convolutions along a row."""
    wide, narrow = channels(100), channels(50)
    parts: list[nn.Module] = []
    for k in range(3):  # 200 -> 100 -> 50 -> 25
        parts += [nn.Conv1d(wide if k else rows, wide, 4, 2, 1), nn.LeakyReLU(0.2)]
    parts += [nn.Conv1d(wide, narrow, 1), nn.LeakyReLU(0.2), nn.Flatten()]
    return CodeEncoder(nn.Sequential(*parts), narrow * (row // 8), latent)


def code_decoder(rows: int, row: int, latent: int, channels: Callable[[int], int]) -> nn.Sequential:
    """(batch, latent) to (batch, rows, row) between -1 and 1; the mirror of `code_encoder`."""
    wide, narrow, short = channels(100), channels(50), row // 8
    parts: list[nn.Module] = [
        nn.Linear(latent, narrow * short),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (narrow, short)),
        nn.Conv1d(narrow, wide, 1),
    ]
    for k in range(3):
        exits = wide if k < 2 else rows
        parts += [nn.LeakyReLU(0.2), nn.ConvTranspose1d(wide, exits, 4, 2, 1)]
    return nn.Sequential(*parts, nn.Tanh())


class Beside(nn.Module):
    """What comes in, and what a network makes of it, side by side."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n) to (batch, n + m)."""
        return torch.cat([x, self.network(x)], -1)


def dense_code_encoder(rows: int, row: int, latent: int, wide: int) -> CodeEncoder:
    """As `code_encoder`, for numbers without an order: all of them see all, and a straight way."""
    n = rows * row
    hidden = nn.Sequential(nn.Linear(n, wide), nn.LeakyReLU(0.2))
    encoder = CodeEncoder(nn.Sequential(nn.Flatten(), Beside(hidden)), n + wide, latent)
    nn.init.zeros_(encoder.mean.weight)  # until `start_from_components`
    return encoder


@torch.no_grad()
def start_from_components(
    encoder: CodeEncoder, decoder: nn.Sequential, codes: Tensor, *, first: float
) -> None:
    """Let the straight ways be the principal components of codes (n, rows, row).

    Training then starts from the best that a linear map can do, with little noise. An error in the
    first row counts ``first`` times. Networks that have learnt already stay as they are.
    """
    if encoder.mean.weight.any():
        return
    weight = torch.ones_like(codes[0], dtype=torch.float64)
    weight[0] = first
    weight = weight.flatten()
    x = codes.flatten(1).double() * weight
    vectors = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(1)  # largest first
    ways = vectors[:, : len(encoder.mean.bias)]
    n, m = ways.shape
    last = decoder[1]
    encoder.mean.weight[:m, :n] = (ways * weight[:, None]).mT
    encoder.mean.bias.zero_()
    encoder.log_variance.weight.mul_(0.1)
    encoder.log_variance.bias.fill_(QUIET)
    last.weight.zero_()
    last.bias.zero_()
    last.weight[:, :m] = ways / weight[:, None]


def dense_code_decoder(rows: int, row: int, latent: int, wide: int) -> nn.Sequential:
    """(batch, latent) to (batch, rows, row); the mirror of `dense_code_encoder`."""
    hidden = nn.Sequential(nn.Linear(latent, wide), nn.LeakyReLU(0.2))
    return nn.Sequential(
        Beside(hidden), nn.Linear(latent + wide, rows * row), nn.Unflatten(1, (rows, row))
    )


def code_networks(
    rows: int, row: int, latent: int, channels: Callable[[int], int], dense: int
) -> dict[str, nn.Module]:
    """Encoder and decoder of codes, by convolutions or, unless ``dense`` is 0, that wide."""
    size = rows, row, latent
    made = (
        (dense_code_encoder(*size, dense), dense_code_decoder(*size, dense))
        if dense
        else (code_encoder(*size, channels), code_decoder(*size, channels))
    )
    return dict(zip(("code_encoder", "code_decoder"), made, strict=True))


def cell_numbers(lattice: Tensor, longest: float) -> Tensor:
    """(batch, 6) edges, in units of the longest, and cosines of angles, of (batch, 3, 3) Å."""
    metric = lattice @ lattice.mT
    edges = metric.diagonal(dim1=1, dim2=2).sqrt()
    cosines = metric / (edges[:, :, None] * edges[:, None])
    return torch.cat([edges / longest, cosines[:, *PAIRS]], 1)


def cell_of(numbers: Tensor, longest: float) -> Tensor:
    """(batch, 3, 3) Å of `cell_numbers`; NaN where no cell has such angles."""
    edges = numbers[:, :3].double() * longest
    cosines = torch.eye(3, dtype=edges.dtype, device=edges.device).repeat(len(edges), 1, 1)
    for (i, j), cosine in zip(zip(*PAIRS, strict=True), numbers[:, 3:].double().T, strict=True):
        cosines[:, i, j] = cosines[:, j, i] = cosine
    unit, info = torch.linalg.cholesky_ex(cosines)
    no_cell = (info != 0) | (edges <= 0).any(1)
    return (unit.tril() * edges[:, :, None]).masked_fill(no_cell[:, None, None], torch.nan)


def slerp(one: Tensor, two: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation, sin((1 - t) w) / sin w one + sin(t w) / sin w two.

    Where both directions agree it is the straight line.

    Args:
        one: (batch, latent).
        two: (batch, latent).
        share: (batch,) t, from 0, which gives the first, to 1, which gives the second.

    Returns:
        (batch, latent).

    Source: Shoemake, SIGGRAPH 1985; used between crystals by Noh et al., Matter 1 (2019) 1370.
    """
    cosine = torch.cosine_similarity(one, two, dim=-1).clamp(-1.0, 1.0)
    angle = cosine.arccos()[:, None]  # (batch, 1)
    t, near = share[:, None], angle.sin().abs() < 1e-4
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    first = torch.where(near, 1 - t, ((1 - t) * angle).sin() / sine)
    second = torch.where(near, t, (t * angle).sin() / sine)
    return first * one + second * two
