"""Networks of CCDCGAN: a picture drawn, judged, and read for its energy; and dense ones.

Source: Long et al., npj Comput. Mater. 7 (2021) 66, and its code (TengLong1993,
CCDCGAN-for-single-system at cec17bd). Keras' momentum 0.8 of batch norms is torch's 0.2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..networks.layers import SameConv, mlp

Channels = Callable[[int], int]
SIDE = 28  # pixels; the layers below halve it twice, to 7
TRUNK = (32, 64, 128, 256)  # channels of the discriminator's and of the constraint's layers
HEAD = (1024, 256, 256, 256, 64)  # widths of the constraint's dense layers


def picture_generator(latent: int, channels: Channels) -> nn.Sequential:
    """Noise (batch, latent) to pictures (batch, 1, 28, 28) between -1 and 1."""
    wide, narrow = channels(128), channels(64)
    return nn.Sequential(
        nn.Linear(latent, wide * 7 * 7),
        nn.ReLU(),
        nn.Unflatten(1, (wide, 7, 7)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(wide, wide, 3, padding=1),
        nn.BatchNorm2d(wide, momentum=0.2),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(wide, narrow, 3, padding=1),
        nn.BatchNorm2d(narrow, momentum=0.2),
        nn.ReLU(),
        nn.Conv2d(narrow, 1, 3, padding=1),
        nn.Tanh(),
    )


def trunk(channels: Channels) -> tuple[list[nn.Module], int]:
    """Layers from a picture (batch, 1, 28, 28) to (batch, features), and how many features."""
    parts: list[nn.Module] = []
    widths = [1, *map(channels, TRUNK)]
    for k in range(len(TRUNK)):
        parts.append(SameConv(widths[k], widths[k + 1], 3, 2 if k < 3 else 1))
        if k == 1:
            parts.append(nn.ZeroPad2d((0, 1, 0, 1)))  # 7 to 8
        if k:
            parts.append(nn.BatchNorm2d(widths[k + 1], momentum=0.2))
        parts += [nn.LeakyReLU(0.2), nn.Dropout(0.25)]
    return [*parts, nn.Flatten()], widths[-1] * 4 * 4


def picture_critic(channels: Channels) -> nn.Sequential:
    """Pictures (batch, 1, 28, 28) to one logit: is it a real crystal's?"""
    layers, features = trunk(channels)
    return nn.Sequential(*layers, nn.Linear(features, 1))


def picture_constraint(channels: Channels) -> nn.Sequential:
    """Pictures (batch, 1, 28, 28) to formation energies, eV/atom.

    As published a leaky ReLU stands behind the last layer too.
    """
    layers, features = trunk(channels)
    widths = [features, *map(channels, HEAD), 1]
    return nn.Sequential(*layers, mlp(widths, last=nn.LeakyReLU(0.2)))


def dense_generator(latent: int, width: int, side: int) -> nn.Sequential:
    """Noise (batch, latent) to pictures (batch, 1, side, side), with a linear output."""
    body = mlp([latent, width, width, side**2], activation=nn.ReLU())
    return nn.Sequential(body, nn.Unflatten(1, (1, side, side)))


def dense_critic(width: int, side: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Pictures (batch, 1, side, side) to one number, whatever the order of the pixels."""
    sizes = [side**2, width, width, 1]
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), mlp(sizes))


class Fold(nn.Module):
    """(batch, n, n, n, channels) to (batch, n/k, n/k, n/k, channels k^3): blocks as features."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Blocks of k^3 points."""
        for axis in (1, 3, 5):
            x = x.unflatten(axis, (-1, self.k))  # (batch, m, k, m, k, m, k, channels)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


class Unfold(Fold):
    """The inverse of `Fold`."""

    def forward(self, x: Tensor) -> Tensor:
        """Points of blocks."""
        x = x.unflatten(4, (self.k, self.k, self.k, -1))  # (batch, m, m, m, k, k, k, channels)
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7)
        for axis in (1, 2, 3):
            x = x.flatten(axis, axis + 1)
        return x


def patch_encoder(points: int, width: int, code: int) -> nn.Sequential:
    """(batch, 1, points^3) to codes (batch, code) between -1 and 1, block by block.

    Matrix products on blocks of 4^3 points, on blocks of 2^3 of these, and on all: several times
    cheaper than convolutions that overlap. ``points`` is a multiple of 8.
    """
    return nn.Sequential(
        nn.Unflatten(-1, (points, 1)),
        nn.Flatten(0, 1),  # one channel
        Fold(4),
        nn.Linear(64, width),
        nn.LeakyReLU(0.2),
        Fold(2),
        nn.Linear(8 * width, width),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear((points // 8) ** 3 * width, code),
        nn.Tanh(),
    )


def patch_decoder(points: int, width: int, code: int) -> nn.Sequential:
    """Codes (batch, code) to (batch, 1, points^3); the mirror of `patch_encoder`."""
    deep = points // 8
    return nn.Sequential(
        nn.Linear(code, deep**3 * width),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (deep, deep, deep, width)),
        nn.Linear(width, 8 * width),
        nn.LeakyReLU(0.2),
        Unfold(2),
        nn.Linear(width, 64),
        Unfold(4),
        nn.Flatten(3),
        nn.Unflatten(0, (-1, 1)),
    )
