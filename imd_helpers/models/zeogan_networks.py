"""ZeoGAN's networks: grids that repeat like the crystal, and the cell's lengths beside them.

Source: Kim, Lee & Kim, Sci. Adv. 6 (2020) eaax9324, and its code Sangwon91/ZeoGAN at 94b1fab.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.layers import draw_weights

if TYPE_CHECKING:
    from .zeogan import ZeoConfig

KERNEL = 5
CHANNELS = 3  # energy, O, Si
AXES = 3
PUBLISHED = partial(nn.init.normal_, std=0.02)  # first weights


class PeriodicConv(nn.Conv3d):
    """A convolution of 5 x 5 x 5 on a grid that repeats: a roll before is a roll behind it.

    With a stride s that holds for rolls by multiples of s points.
    """

    def __init__(self, into: int, out: int, *, stride: int = 1) -> None:
        super().__init__(into, out, KERNEL, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, into, n, n, n) to (batch, out, n / stride, …)."""
        few = self.in_channels == CHANNELS and self.stride[0] == 2
        if few and x.is_cpu and x.requires_grad:
            return self.by_neighbours(x)
        return super().forward(repeated(x))

    def by_neighbours(self, x: Tensor) -> Tensor:
        """The same sums for the stride 2: each 2 x 2 x 2 points are channels of one point.

        The gradient by the input is slow on a processor where few channels are read in strides.
        """
        weight = beside(functional.pad(self.weight, 3 * [0, 1]))  # (out, 8 into, 3, 3, 3)
        n, half = x.shape[-1] // 2, KERNEL // 4
        pairs = rows_of(x).view(-1, 2 * x.shape[1])  # two points of a line
        wide = Rearranged.apply(pairs, *by_eights(len(x), n, half))
        edges = AXES * [n + 2 * half]
        return functional.conv3d(grids_of(wide, len(x), edges), weight, self.bias)


class PeriodicConvTranspose(nn.ConvTranspose3d):
    """The transpose of `PeriodicConv`, to ``stride`` times as many points, which repeat as well.

    What reaches over the border of the grid is added on the other side. The published generator
    pads with zeros here, so that its grids know where the border of the cell is.
    """

    def __init__(self, into: int, out: int, *, stride: int = 2, periodic: bool = True) -> None:
        half = KERNEL // 2
        super().__init__(into, out, KERNEL, stride, half, stride - 1, bias=False)
        self.periodic = periodic

    def forward(self, x: Tensor) -> Tensor:
        """(batch, into, n, n, n) to (batch, out, stride n, stride n, stride n)."""
        if not self.periodic:
            return super().forward(x)
        step, size = self.stride[0], self.stride[0] * x.shape[-1]
        if step == 1 and self.training:
            return self.tap_by_tap(x)
        if step == 2 and self.training and is_pointwise(x):
            return folded(self.pair_by_pair(x), size)
        return folded(functional.conv_transpose3d(x, self.weight, None, step), size)

    def pair_by_pair(self, x: Tensor) -> Tensor:
        """The same sums for the stride 2 before folding: two points of a line are one's channels.

        There is a point more at the end of the last axis, to which nothing is added.
        """
        weight = functional.pad(self.weight, [0, 1]).unflatten(4, (-1, 2))
        weight = weight.permute(0, 5, 1, 2, 3, 4).flatten(1, 2)  # (into, 2 out, 5, 5, 3)
        y = functional.conv_transpose3d(x, weight, None, (2, 2, 1))
        edges = *y.shape[2:4], 2 * y.shape[4]
        return grids_of(rows_of(y).view(-1, self.out_channels), len(x), edges)

    def tap_by_tap(self, x: Tensor) -> Tensor:
        """The same sums for the stride 1: the taps along the last axis are channels of their own.

        Convolutions to few channels are slow on a processor, and the last one makes three. Only
        training takes this way: the order of the sums differs, and samples stay what they are.
        """
        taps = self.weight.flip(2, 3).permute(4, 1, 0, 2, 3).flatten(0, 1)  # (5 x out, into, 5, 5)
        y = functional.conv3d(repeated(x, (2, 3)), taps[..., None])
        apart, together = by_taps(len(x), x.shape[-1])
        rows = rows_of(y).view(-1, self.out_channels)  # one tap of one point
        return grids_of(Rearranged.apply(rows, together, apart), len(x), x.shape[2:])


# ---- points moved in memory


Lists = tuple[Tensor, Tensor]  # numbers of rows, and where those of each sum begin


class Rearranged(torch.autograd.Function):
    """Rows of a matrix copied or summed to other places, in one pass over memory.

    What it does is a matrix of zeros and ones, kept as lists of the ones; its gradient is the
    transpose, so it can be learnt through as often as one likes.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Lists, back: Lists) -> Tensor:
        """(n, channels) to (m, channels): sums of the rows that ``there`` lists for each."""
        ctx.lists = back, there
        return torch.embedding_bag(rows, *there)[0]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        """The same with the lists exchanged."""
        return Rearranged.apply(slope.contiguous(), *ctx.lists), None, None


def copies(source: Tensor, size: int) -> tuple[Lists, Lists]:
    """Lists that copy row ``source[i]`` of ``size`` rows to place i, and that add them up again."""
    source = source.flatten()
    order = source.argsort(stable=True)
    begins = torch.searchsorted(source[order], torch.arange(size))
    there = source.int(), torch.arange(len(source), dtype=torch.int32)
    return there, (order.int(), begins.int())


@lru_cache(maxsize=32)
def over_the_border(batch: int, n: int, ends: tuple[tuple[int, int], ...]) -> tuple[Lists, Lists]:
    """From n points along each edge to some more before and after, which are the other end's."""
    rows = torch.arange(batch)
    for before, after in ends:
        rows = rows[..., None] * n + (torch.arange(n + before + after) - before) % n
    return copies(rows, batch * n**AXES)


@lru_cache(maxsize=32)
def by_eights(batch: int, n: int, half: int) -> tuple[Lists, Lists]:
    """From pairs of 2 n points along each edge to eights, with ``half`` more at both ends."""
    place = (torch.arange(n + 2 * half) - half) % n
    both = 2 * place[:, None] + torch.arange(2)  # (n + 2 half, 2)
    rows = torch.arange(batch).view(-1, 1, 1, 1, 1, 1) * 2 * n + both[:, None, None, :, None]
    rows = (rows * 2 * n + both[:, None, None, :]) * n + place[:, None, None]
    return copies(rows, batch * 4 * n**AXES)


@lru_cache(maxsize=32)
def by_taps(batch: int, n: int) -> tuple[Lists, Lists]:
    """From n points along each edge to what each tap of the last axis adds to them."""
    place = (torch.arange(n)[:, None] + torch.arange(KERNEL) - KERNEL // 2) % n
    return copies(torch.arange(batch * n * n)[:, None, None] * n + place, batch * n**AXES)


def rows_of(x: Tensor) -> Tensor:
    """(batch, channels, a, b, c) grids as a row of channels for each point."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1]).contiguous()


def grids_of(rows: Tensor, batch: int, edges: Sequence[int]) -> Tensor:
    """What `rows_of` took apart."""
    return rows.view(batch, *edges, -1).movedim(4, 1)


def pointwise(x: Tensor) -> Tensor:
    """The same grids, in memory the channels of each point together: faster to learn from."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def is_pointwise(x: Tensor) -> bool:
    """Do the channels of each point lie together, in a processor's memory?"""
    return x.is_cpu and x.is_contiguous(memory_format=torch.channels_last_3d)


def beside(x: Tensor) -> Tensor:
    """(a, b, 2 m, 2 m, 2 m) to (a, 8 b, m, m, m), the channels last in memory."""
    for axis in (4, 3, 2):
        x = x.unflatten(axis, (-1, 2))
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).movedim(4, 1)


def repeated(x: Tensor, axes: tuple[int, ...] = (2, 3, 4)) -> Tensor:
    """Grids with half a kernel more at both ends of these axes: the points of the other end."""
    half = KERNEL // 2
    if is_pointwise(x):
        more = [half * (axis in axes) for axis in (2, 3, 4)]
        lists = over_the_border(len(x), x.shape[-1], tuple((k, k) for k in more))
        edges = [n + 2 * k for n, k in zip(x.shape[2:], more, strict=True)]
        return grids_of(Rearranged.apply(rows_of(x), *lists), len(x), edges)
    for axis in axes:
        # pieces of one split: its gradient is one concatenation, that of torch's padding many
        first, middle, last = x.split([half, x.shape[axis] - 2 * half, half], axis)
        x = torch.cat([last, first, middle, last, first], axis)
    return x


def folded(x: Tensor, size: int) -> Tensor:
    """Grids of ``size`` points along each edge, with what reaches over added on the other side.

    Args:
        x: (batch, channels, m, m, m), which begins half a kernel before the grid; where channels
            are together in memory the axes may be of several lengths.
        size: at least 4, at most m.
    """
    before = KERNEL // 2
    after = x.shape[-1] - before - size
    if is_pointwise(x):
        ends = tuple((before, m - before - size) for m in x.shape[2:])
        apart, together = over_the_border(len(x), size, ends)
        return grids_of(Rearranged.apply(rows_of(x), together, apart), len(x), AXES * [size])
    for axis in (2, 3, 4):
        # pieces of one split: its gradient is one concatenation
        sizes = [before, after, size - before - after, before, after]
        front, first, middle, last, back = x.split(sizes, axis)
        x = torch.cat([first + back, middle, last + front], axis)
    return x


class Generator(nn.Module):
    """Noise to three grids in [0, 1], and three lengths in [0, 1]."""

    def __init__(self, config: ZeoConfig) -> None:
        super().__init__()
        doublings = config.doublings
        c = [config.channels(256 >> k) for k in range(doublings + 1)]
        self.coarse = config.coarse
        self.first = nn.Linear(config.latent, c[0] * config.coarse**3, bias=False)
        self.norm = nn.BatchNorm3d(c[0])
        periodic = {"periodic": config.periodic_generator}
        blocks: list[nn.Module] = []
        for a, b in itertools.pairwise(c):
            blocks += [PeriodicConvTranspose(a, b, **periodic), nn.BatchNorm3d(b), nn.ReLU()]
        self.grow = nn.Sequential(*blocks)
        self.last = PeriodicConvTranspose(c[-1], CHANNELS, stride=1, **periodic)
        self.offset = nn.Parameter(torch.zeros(CHANNELS, 1, 1, 1))
        hidden = config.channels(512)
        dense = nn.Linear(c[0] * config.coarse**3, hidden, bias=False)
        self.cell = nn.Sequential(
            dense, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, AXES), nn.Sigmoid()
        )
        draw_weights(self, PUBLISHED)

    def forward(self, noise: Tensor, *, learns: bool = False) -> tuple[Tensor, Tensor]:
        """(batch, latent) to (batch, 3, n, n, n) and (batch, 3).

        Where it ``learns`` its grids are `pointwise`; samples stay what they are to the last bit.
        """
        x = self.first(noise).view(len(noise), -1, *[self.coarse] * AXES)
        x = pointwise(x) if learns else x
        x = torch.relu(self.norm(x))
        return torch.sigmoid(self.last(self.grow(x)) + self.offset), self.cell(x.flatten(1))


class Critic(nn.Module):
    """Three grids to a score, and to the lengths of the cell that they seem to be of."""

    def __init__(self, config: ZeoConfig) -> None:
        super().__init__()
        c = [config.channels(32 << k) for k in range(config.doublings + 1)]
        self.dropout = nn.Dropout(config.input_dropout)
        layers: list[nn.Module] = []
        if config.entry:
            layers += [PeriodicConv(CHANNELS, c[0]), nn.LeakyReLU(0.2)]
        else:
            c[0] = CHANNELS
        for a, b in itertools.pairwise(c):
            layers += [PeriodicConv(a, b, stride=2), nn.GroupNorm(1, b), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        width, hidden = c[-1] * config.coarse**3, config.channels(512)
        self.score = nn.Linear(width, 1)
        self.cell = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, AXES)
        )
        draw_weights(self, PUBLISHED)

    def read(self, grids: Tensor) -> Tensor:
        """(batch, 3, n, n, n) to (batch, features), of which `score` and `cell` make the rest.

        The cell's are logits (batch, 3) of lengths in [0, 1].
        """
        grids = pointwise(grids) if self.training else grids
        return self.features(self.dropout(grids)).flatten(1)

    def forward(self, grids: Tensor) -> Tensor:
        """(batch, 3, n, n, n) to (batch, 1) scores."""
        return self.score(self.read(grids))
