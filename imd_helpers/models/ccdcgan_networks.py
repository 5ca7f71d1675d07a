"""Networks of CCDCGAN: a picture drawn, judged, and read for its energy; and dense ones.

Source: Long et al., npj Comput. Mater. 7 (2021) 66, and its code (TengLong1993,
CCDCGAN-for-single-system at cec17bd). Keras' momentum 0.8 of batch norms is torch's 0.2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

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
