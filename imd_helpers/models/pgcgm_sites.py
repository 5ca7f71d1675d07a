"""Base sites in 20 space groups: one atom of each element, which symmetry repeats.

Everything here works on whole batches, with gradients where a network needs them: cells, images,
projection onto special positions, and the closest contacts of all the atoms of a crystal.

Source: Zhao et al., npj Comput. Mater. 9 (2023) 38, and its code MilesZhao/PGCGM at commit ab38ec6
(space groups, scales of the lengths, merging and checks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..crystals import CrystalBatch, elements, symmetry
from ..descriptors.symmetry_sites import ElementRows
from ..runtime import InputError

SPACE_GROUPS = (139, 194, 71, 225, 227, 62, 191, 148, 166, 221, 167, 164, 123, 63, 129, 216, 122,
                186, 141, 140)  # fmt: skip
N_ROWS, MOST_OPERATIONS, FEW = 3, 192, 48
HEXAGONAL, CUBIC, TETRAGONAL = range(143, 195), range(195, 231), range(75, 143)
POLAR = (186,)  # the origin may lie anywhere along c
GRID = 12  # parts of an edge, among which other origins of the same group are looked for
MEAN_LOG = torch.tensor([1.5237, 1.5237, 1.9051], dtype=torch.float64)  # of the edges, ln Å
PAIRS = ((0, 1), (0, 2), (1, 2), (0, 0), (1, 1), (2, 2))  # of elements
ONE, TWO = (list(side) for side in zip(*PAIRS, strict=True))
SAME = 0.05  # Å; images that are nearer are one site
MERGED = 0.6  # of the sum of two radii; images of an atom that are nearer are merged
EPS = 1e-6  # of an edge; a smaller move ends the projection
ROUNDS = 4  # of the projection; one is exact where the near images form a group


@dataclass(frozen=True, eq=False)
class BaseSites:
    """Ternary crystals as one site of each element.

    Attributes:
        space_group: (n,) ITA numbers, of `SPACE_GROUPS`.
        numbers: (n, 3) atomic numbers.
        lengths: (n, 3) edges of the conventional cell, Å.
        frac: (n, 3, 3) a site of each element.
    """

    space_group: np.ndarray
    numbers: np.ndarray
    lengths: np.ndarray
    frac: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> BaseSites:
        return BaseSites(*(getattr(self, each.name)[index] for each in fields(self)))

    def lattice(self) -> np.ndarray:
        """(n, 3, 3) Å."""
        group = torch.as_tensor(group_index(self.space_group))
        return lattice_of(torch.as_tensor(self.lengths), group).numpy()


@dataclass(frozen=True, eq=False)
class Rows(ElementRows):
    """Places of elements and space groups in the tables of a model."""

    canonical: bool = True

    @staticmethod
    def group_index(space_group: Any) -> np.ndarray:
        """See `group_index`."""
        return group_index(space_group)


def group_index(space_group: Any) -> np.ndarray:
    """ITA numbers to places in `SPACE_GROUPS`.

    Raises:
        InputError: another group.
    """
    space_group = np.asarray(space_group)
    known = np.isin(space_group, SPACE_GROUPS)
    if not known.all():
        raise InputError(
            f"space group {space_group[~known].flat[0]}: PGCGM knows {len(SPACE_GROUPS)}, choose "
            f"from {', '.join(map(str, sorted(SPACE_GROUPS)))}"
        )
    return (space_group[..., None] == SPACE_GROUPS).argmax(-1)


# ---- groups and cells


@cache
def affine() -> Tensor:
    """(20, 192, 4, 4) float64: the operations of each group, padded with zeros."""
    out = torch.zeros(len(SPACE_GROUPS), MOST_OPERATIONS, 4, 4, dtype=torch.float64)
    for k, group in enumerate(SPACE_GROUPS):
        rotations, translations = symmetry.operations(group)
        out[k, : len(rotations), :3, :3] = torch.tensor(rotations)
        out[k, : len(rotations), :3, 3] = torch.tensor(translations)
        out[k, : len(rotations), 3, 3] = 1.0
    return out


@cache
def orders() -> tuple[int, ...]:
    """How many operations each group has."""
    return tuple(len(symmetry.operations(group)[0]) for group in SPACE_GROUPS)


def images(frac: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """All images of (n, k, 3) sites, (n, k, g, 3), not wrapped; and (n, g) which there are.

    g is the largest number of operations among the groups.
    """
    most = max(orders()[k] for k in group.unique().tolist())
    table = affine()[:, :most].to(frac)[group]  # (n, g, 4, 4)
    moved = torch.einsum("ngij,nkj->nkgi", table[..., :3, :3], frac)
    return moved + table[:, None, :, :3, 3], table[..., 3, 3] > 0


@cache
def _systems() -> tuple[Tensor, Tensor]:
    """(20, 3, 3) means over the edges that are equal, and (20,) which cells have 120°."""
    means = torch.eye(3, dtype=torch.float64).repeat(len(SPACE_GROUPS), 1, 1)
    for mean, group in zip(means, SPACE_GROUPS, strict=True):
        equal = 3 if group in CUBIC else 2 if group in HEXAGONAL or group in TETRAGONAL else 1
        mean[:equal, :equal] = 1 / equal
    return means, torch.tensor([group in HEXAGONAL for group in SPACE_GROUPS])


def averaged(lengths: Tensor, group: Tensor) -> Tensor:
    """(n, 3) edges, with the mean in place of those that the crystal system makes equal."""
    return (_systems()[0].to(lengths)[group] @ lengths[..., None])[..., 0]


def lattice_of(lengths: Tensor, group: Tensor) -> Tensor:
    """(n, 3, 3) cells with edges (n, 3), Å; 120° between a and b in the hexagonal groups."""
    tilted = _systems()[1].to(group.device)[group]
    shape = torch.eye(3).to(lengths).repeat(len(lengths), 1, 1)
    shape[tilted, 1] = torch.tensor([-0.5, 0.75**0.5, 0.0]).to(lengths)
    return lengths[..., None] * shape


def coded(lengths: Tensor) -> Tensor:
    """(n, 3) edges, Å, as (ln a - m) / m: 1 Å is -1, and the longest, 21 and 45 Å, are 1."""
    return lengths.log() / MEAN_LOG.to(lengths) - 1


def uncoded(code: Tensor) -> Tensor:
    """The way back from `coded`."""
    return ((code + 1) * MEAN_LOG.to(code)).exp()


def radius_of(numbers: Any) -> np.ndarray:
    """Atomic radii, Å, of any shape; the mean of the others where an element has none."""
    return elements.filled(["atomic_radius"])[:, 0][np.asarray(numbers)]


# ---- special positions and contacts


def apart_by_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function of (frac, group, ...) for groups of few and of many operations apart.

    The others would be padded to the 192 operations of the face-centred cubic groups.
    """

    @wraps(function)
    def called(frac: Tensor, group: Tensor, *more: Tensor) -> Any:
        many = (torch.tensor(orders()) > FEW).to(group.device)[group]
        rows = [part.nonzero()[:, 0] for part in (~many, many) if part.any()]
        parts = [function(*(x[some] for x in (frac, group, *more))) for some in rows]
        if len(parts) == 1:
            return parts[0]
        back = torch.cat(rows).argsort()
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)[back]
        return tuple(torch.cat(each)[back] for each in zip(*parts, strict=True))

    return called


@torch.no_grad()
@apart_by_order
def projected(
    frac: Tensor, group: Tensor, lattice: Tensor, within: Tensor
) -> tuple[Tensor, Tensor]:
    """Sites moved onto the special position on which images that are too near fall together.

    A site becomes the mean of its images nearer than ``within``: the merging of an orbit, without
    leaving the group.

    Args:
        frac: (n, k, 3).
        group: (n,) places in `SPACE_GROUPS`.
        lattice: (n, 3, 3) Å.
        within: (n, k) Å.

    Returns:
        (n, k, 3), and (n, k) how many sites the orbits have.
    """
    step, far, there = _steps(frac, group, lattice)
    for _ in range(ROUNDS):
        near = there[:, None] & (far < within[..., None])  # (n, k, g)
        move = (step * near[..., None]).sum(2) / near.sum(2, keepdim=True).clamp(min=1)
        frac = frac + move
        step, far, there = _steps(frac, group, lattice)
        if move.abs().max() < EPS:
            break
    kept = (there[:, None] & (far < SAME)).sum(2).clamp(min=1)
    return frac, there.sum(1, keepdim=True) / kept


def _steps(frac: Tensor, group: Tensor, lattice: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From sites to the nearest copies of their images, how far, Å, and which there are."""
    moved, there = images(frac, group)
    step = moved - frac[:, :, None]
    step = step - step.round()
    return step, (step @ lattice[:, None]).norm(dim=3), there


@apart_by_order
def contacts(frac: Tensor, group: Tensor, lattice: Tensor) -> Tensor:
    """(n, 6) closest distance of the elements of each of `PAIRS` in whole crystals, with gradients.

    The last three are those of an element to its own images; images that fall together are one
    site. Exact in the cells of `lattice_of`.

    Args:
        frac: (n, 3, 3) one site of each element.
        group: (n,) places in `SPACE_GROUPS`.
        lattice: (n, 3, 3) Å.
    """
    moved, there = images(frac, group)
    step = moved[:, TWO] - frac[:, ONE, None]  # (n, 6, g, 3)
    step = step - step.detach().round()
    with torch.no_grad():  # which is nearest; the distances below have gradients
        shifts = flat_shifts().to(frac)
        cart, cells = step @ lattice[:, None], shifts @ lattice  # (n, 6, g, 3), (n, 9, 3)
        squared = 2 * cart @ cells[:, None].mT + cells.square().sum(2)[:, None, None]
        squared += cart.square().sum(3, keepdim=True)  # (n, 6, g, 9)
        squared.masked_fill_(~there[:, None, :, None], torch.inf)
        own = squared[:, N_ROWS:]
        own.masked_fill_(own < SAME**2, torch.inf)
        best = squared.flatten(2).argmin(2)  # (n, 6)
    at = (best // len(shifts))[..., None, None].expand(-1, -1, 1, 3)
    vector = step.gather(2, at)[:, :, 0] + shifts[best % len(shifts)]
    distance = (vector[:, :, None] @ lattice[:, None])[:, :, 0].square().sum(2)
    distance = distance.clamp(min=1e-8).sqrt()  # the root has no slope at 0
    edge = lattice.norm(dim=2).amin(1, keepdim=True)  # an atom's own copy in the next cell
    return torch.cat([distance[:, :N_ROWS], distance[:, N_ROWS:].minimum(edge)], dim=1)


@cache
def flat_shifts() -> Tensor:
    """(9, 3) neighbouring cells that can hold a nearer copy, where 120° lie between a and b."""
    steps = torch.tensor([0.0, -1.0, 1.0])
    return torch.cartesian_prod(steps, steps, torch.zeros(1))


Distances = tuple[Tensor, Tensor]  # Å, and the sums of two radii that go with them


def too_near(distance: Tensor, wanted: Tensor) -> Tensor:
    """E max(0, wanted - d): how much too near atoms are, Å.

    Source: the distance losses of PGCGM, of which only the figure is known; the hinge is ours.
    """
    return functional.relu(wanted - distance).mean()


# ---- crystal -> sites


def find_base_sites(crystals: CrystalBatch) -> tuple[BaseSites, np.ndarray]:
    """Ternary crystals of the 20 groups with one orbit an element, each written in one way.

    Returns:
        Their sites, rows by electronegativity, and which of the crystals they are.
    """
    found = [
        (i, orbit)
        for i, orbit in enumerate(symmetry.orbits(crystals))
        if orbit is not None
        and orbit.space_group in SPACE_GROUPS
        and len(orbit.numbers) == N_ROWS == len(set(orbit.numbers.tolist()))
    ]
    order = elements.by_electronegativity()
    rows = [(orbit, order[orbit.numbers].argsort()) for _, orbit in found]
    return BaseSites(
        np.array([orbit.space_group for orbit, _ in rows], dtype=np.int64),
        np.array([orbit.numbers[by] for orbit, by in rows], dtype=np.int64).reshape(-1, N_ROWS),
        np.array([np.linalg.norm(orbit.lattice, axis=1) for orbit, _ in rows]).reshape(-1, 3),
        np.array(
            [smallest(orbit.space_group, orbit.frac[by]) for orbit, by in rows]
        ).reshape(-1, N_ROWS, 3),
    ), np.array([i for i, _ in found], dtype=np.int64)  # fmt: skip


def smallest(group: int, frac: np.ndarray) -> np.ndarray:
    """(3, 3) the description with the smallest coordinates: over all images, and all origins."""
    rotations, translations = symmetry.operations(group)
    shifts = origins(group)
    if group in POLAR:
        shifts = shifts - [0.0, 0.0, 1.0] * frac[:1]
    moved = np.einsum("gij,skj->skgi", rotations, frac + shifts[:, None]) + translations
    place = np.rint(moved * 1e4).astype(np.int64) % 10_000  # (shifts, 3, operations, 3)
    key = place @ np.array([10**8, 10**4, 1])
    best = key.argmin(2)  # (shifts, 3)
    first = np.take_along_axis(key, best[..., None], axis=2)[..., 0]
    s = min(range(len(shifts)), key=lambda s: tuple(first[s]))
    out = np.take_along_axis(moved[s], best[s][:, None, None], axis=1)[:, 0]
    out = out - np.floor(out + 5e-5)  # what rounds to 1 is 0
    return np.where(np.abs(out) < 5e-5, 0.0, out)


@cache
def origins(group: int) -> np.ndarray:
    """(m, 3) shifts of the origin, in twelfths, after which the group is the same."""
    rotations, _ = symmetry.operations(group)
    turned = np.unique(rotations, axis=0).astype(np.int64) - np.eye(3, dtype=np.int64)
    grid = np.stack(np.meshgrid(*[np.arange(GRID)] * 3, indexing="ij"), -1).reshape(-1, 3)
    left = (turned[:, None] @ grid[..., None])[..., 0] % GRID  # (rotations, grid, 3)
    _, shifts = symmetry.operations(group)
    pure = shifts[(rotations == np.eye(3)).all((1, 2))]  # centrings
    allowed = np.rint(pure * GRID).astype(np.int64) % GRID
    same = (left[:, :, None] == allowed).all(3).any(2).all(0)
    return grid[same] / GRID
