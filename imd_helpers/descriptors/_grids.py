"""What grids of blurred atoms share: adding Gaussians to them, and finding the peaks again.

Positions are in voxels, and a metric (3, 3) gives squared lengths: ``d @ metric @ d`` Å^2. So one
code serves skewed cells, where the grid follows the cell, and boxes, where it does not. Grids are
(rows, n, n, n), with a metric (rows, 3, 3) each; a Gaussian of width ``sigma``, Å, ends at
``radius``, Å; a ``periodic`` grid repeats, and of another what lies outside is left out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

BUDGET = 2_000_000  # values worked on at once
FACES = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
AROUND = list(itertools.product((-1, 0, 1), repeat=3))


def add_gaussians(
    grids: Tensor,
    row: Tensor,
    place: Tensor,
    metric: Tensor,
    height: Tensor,
    *,
    sigma: float,
    radius: float,
    periodic: bool,
) -> None:
    """Add ``height * exp(-r^2 / (2 sigma^2))`` around each site, up to a radius, in place.

    A periodic grid gets all images that reach into it, however small the cell. Sites have the
    ``row`` of their grid (sites,), a place (sites, 3), float64, a metric (sites, 3, 3) and a height
    (sites,); grids are float32.
    """
    n = grids.shape[-1]
    # an ellipsoid d M d <= R^2 reaches R sqrt((1 / M)_kk) along axis k
    reach = radius * torch.linalg.inv(metric).diagonal(dim1=1, dim2=2).sqrt()  # (sites, 3)
    half = 2 * torch.ceil((reach + 0.5) / 2).long()  # even: fewer kinds of windows
    kinds, kind = torch.unique(half, dim=0, return_inverse=True)
    flat = grids.view(-1)
    for index, window in enumerate(kinds.tolist()):
        sites = (kind == index).nonzero()[:, 0]
        size = (2 * window[0] + 1) * (2 * window[1] + 1) * (2 * window[2] + 1)
        for some in sites.split(max(1, BUDGET // size)):
            target, square = _window(place[some], metric[some], window, n, periodic)
            value = height[some].float()[:, None, None, None] * torch.exp(
                square.float() * (-0.5 / sigma**2)
            )
            value = value.masked_fill(square > radius**2, 0.0)  # also outside: squares of infinity
            target += (row[some] * n**3)[:, None, None, None]
            flat.index_add_(0, target.view(-1), value.view(-1))


def _window(
    place: Tensor, metric: Tensor, window: list[int], n: int, periodic: bool
) -> tuple[Tensor, Tensor]:
    """Voxels around sites: index in their grid, and squared distance from the site."""
    centre = place.round()
    voxels, steps = [], []
    for axis, half in enumerate(window):
        index = centre[:, axis, None].long() + torch.arange(-half, half + 1, device=place.device)
        step = index - place[:, axis, None]  # (sites, window)
        if not periodic:
            step = step.masked_fill((index < 0) | (index >= n), torch.inf)
            index = index.clamp(0, n - 1)
        voxels.append(index % n)
        steps.append(step.float())
    x, y, z = steps[0][:, :, None, None], steps[1][:, None, :, None], steps[2][:, None, None, :]
    m = metric.float()[:, :, :, None, None, None]
    if not periodic:  # a box is orthogonal, and infinity must not meet a zero
        square = (m[:, 0, 0] * x * x + m[:, 1, 1] * y * y) + m[:, 2, 2] * z * z
    else:
        plane = m[:, 0, 0] * x * x + 2 * m[:, 0, 1] * x * y + m[:, 1, 1] * y * y
        side = 2 * m[:, 1, 2] * y * z + m[:, 2, 2] * z * z
        square = plane + side + 2 * m[:, 0, 2] * x * z
    i, j, k = voxels[0][:, :, None, None], voxels[1][:, None, :, None], voxels[2][:, None, None, :]
    return (i * n + j) * n + k, square


@dataclass(frozen=True)
class Peaks:
    """Local maxima of grids."""

    row: Tensor  # (peaks,) which grid, ascending
    place: Tensor  # (peaks, 3) in voxels, between them too
    height: Tensor  # (peaks,) height of the Gaussian


def find_peaks(
    grids: Tensor, metric: Tensor, *, sigma: float, threshold: float, periodic: bool
) -> Peaks:
    """Local maxima above a threshold, placed between voxels by a fit of Gaussians of known width.

    Near an isolated atom ``ln v + d M d / (2 sigma^2)`` is linear in the step d from the voxel, and
    its slope is where the atom is. The fit is weighted by v^2, since ln v has the error of v
    divided by v. A voxel below the threshold is no peak.
    """
    index = (grids > threshold).nonzero()  # (voxels, 4)
    value = grids[tuple(index.T)]
    for step in FACES:  # cheap, and leaves few
        keep = value >= _neighbour(grids, index, step, periodic)
        index, value = index[keep], value[keep]
    around = torch.stack([_neighbour(grids, index, step, periodic) for step in AROUND], 1)
    # of equal neighbours, which an atom between voxels has, the first counts
    order = torch.stack([_order(grids.shape[-1], index, step) for step in AROUND], 1)
    own = _order(grids.shape[-1], index, (0, 0, 0))[:, None]
    beaten = (around > value[:, None]) | ((around == value[:, None]) & (order < own))
    keep = ~beaten.any(1)
    index, around = index[keep], around[keep].double()
    shift, height = _fit(around, metric[index[:, 0]].double(), sigma)
    return Peaks(index[:, 0], index[:, 1:] + shift, height)


def separate_peaks(
    grids: Tensor,
    peaks: Peaks,
    metric: Tensor,
    *,
    sigma: float,
    radius: float,
    threshold: float,
    periodic: bool,
    passes: int,
) -> Peaks:
    """Place peaks anew after taking away what their neighbours add to their voxels.

    Where Gaussians overlap, each pulls the peaks of the others towards itself, and two of them may
    add up to a peak where no atom is. All peaks are drawn again on an empty grid; what that leaves
    of the given grid, plus its own Gaussian, is what one atom alone would look like. A peak of
    which less than the threshold is left is dropped. All this is done ``passes`` times.
    """
    steps = torch.tensor(AROUND, dtype=torch.float64, device=grids.device)  # (27, 3)
    options = {"sigma": sigma, "radius": radius, "periodic": periodic}
    for _ in range(passes):
        own_metric = metric[peaks.row].double()
        model = torch.zeros(grids.shape, device=grids.device)
        add_gaussians(model, peaks.row, peaks.place, own_metric, peaks.height, **options)
        rest = grids - model
        voxel = peaks.place.round().long()
        index = torch.cat([peaks.row[:, None], voxel % grids.shape[-1]], 1)
        around = torch.stack([_neighbour(rest, index, step, periodic) for step in AROUND], 1)
        off = steps + (voxel - peaks.place)[:, None]  # (peaks, 27, 3)
        square = torch.einsum("pvi,pij,pvj->pv", off, own_metric, off)
        alone = around + peaks.height[:, None] * torch.exp(-square / (2 * sigma**2))
        shift, height = _fit(alone, own_metric, sigma)
        keep = height >= threshold
        peaks = Peaks(peaks.row[keep], (voxel + shift)[keep], height[keep])
    return peaks


def _neighbour(grids: Tensor, index: Tensor, step: tuple[int, ...], periodic: bool) -> Tensor:
    """Values beside voxels; 0 outside a grid that does not repeat."""
    n = grids.shape[-1]
    moved = index[:, 1:] + torch.tensor(step, device=index.device)
    inside = ((moved >= 0) & (moved < n)).all(1)
    moved = moved % n
    value = grids[index[:, 0], moved[:, 0], moved[:, 1], moved[:, 2]]
    return value if periodic else value.masked_fill(~inside, 0.0)


def _order(n: int, index: Tensor, step: tuple[int, ...]) -> Tensor:
    moved = (index[:, 1:] + torch.tensor(step, device=index.device)) % n
    return (moved[:, 0] * n + moved[:, 1]) * n + moved[:, 2]


def _fit(around: Tensor, metric: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Step from the voxel (peaks, 3) and height (peaks,) from 27 values (peaks, 27)."""
    steps = torch.tensor(AROUND, dtype=torch.float64, device=around.device)  # (27, 3)
    quadratic = torch.einsum("vi,pij,vj->pv", steps, metric, steps) / (2 * sigma**2)
    weight = torch.where(around > 0, around, torch.zeros_like(around)).square()
    weight = weight / weight.amax(1, keepdim=True).clamp_min(1e-300)
    target = around.clamp_min(1e-30).log() + quadratic
    design = torch.cat([torch.ones_like(steps[:, :1]), steps], 1)  # (27, 4)
    normal = torch.einsum("vi,pv,vj->pij", design, weight, design)
    right = torch.einsum("vi,pv->pi", design, weight * target)
    normal = normal + 1e-9 * torch.eye(4, dtype=torch.float64, device=around.device)
    solution = torch.linalg.solve(normal, right) if len(around) else right  # (peaks, 4)
    slope = solution[:, 1:] * sigma**2
    shift = torch.linalg.solve(metric, slope) if len(around) else slope
    shift = shift.clamp(-1.0, 1.0)  # further would be another voxel's peak
    rest = torch.einsum("pi,pij,pj->p", shift, metric, shift) / (2 * sigma**2)
    height = (solution[:, 0] + rest).exp()
    return shift, torch.minimum(height, 3 * around.amax(1).clamp_min(0.0))  # not more than is seen
