"""Crystals of a gene without a known one: free parameters and cells at random, atoms pushed apart.

After random structure searching (Pickard and Needs, J. Phys.: Condens. Matter 23 (2011) 053201),
within the Wyckoff positions that the gene names.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..baselines.cells import random_cells
from ..baselines.random_crystals import LARGEST_RADIUS, contacts, placed
from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.wyckoff import Wyckoff, wyckoff_positions
from . import genes

DRAWN = 30  # random crystals for each that is wanted
PUSHED = 3  # of these are pushed apart
PUSHES, RATE = 40, 0.03  # steps of Adam
SHIFTS = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), dtype=torch.float32)


def placements(gene: np.ndarray, n: int, *, seed: int = 0) -> CrystalBatch:
    """At most n primitive cells of a gene, the roomiest of many that were drawn and pushed apart.

    Free parameters are uniform, cells as in `baselines.cells.random_cells`, with the volume that
    the elements take. Roomy is where the shortest distance is long, over the covalent radii. What
    has another gene by chance is left out.

    Args:
        gene: (41,) of `genes`.
        n: how many.
        seed: of what is drawn.

    Raises:
        InputError: no gene.
    """
    group, orbits = genes.read(gene)
    plan = [(z, positions(group)[letter]) for letter, z in orbits]
    room = sum(genes.recorded()[1][z] * position.multiplicity for z, position in plan)
    rng, many = np.random.default_rng(seed), DRAWN * n
    cells = random_cells(np.full(many, group), np.full(many, room), rng)
    free = rng.random((many, len(plan), 3))
    kept = _roomiest(*_placed(group, plan, cells, free), PUSHED * n)
    crystals, good = _placed(group, plan, *pushed(group, plan, cells[kept], free[kept]))
    found = crystals[_roomiest(crystals, good, 2 * n)]
    named = genes.genes_of(found).tensor.numpy()
    same = (named == genes.written(group, genes.canonical(group, orbits))).all(1)
    return symmetry.primitive(found[np.flatnonzero(same)[:n]])


def _placed(
    group: int, plan: list[tuple[int, Wyckoff]], cells: np.ndarray, free: np.ndarray
) -> tuple[CrystalBatch, np.ndarray]:
    n = len(cells)
    return placed(np.full(n, group), [plan] * n, cells, free.reshape(-1, 3))


def _roomiest(crystals: CrystalBatch, good: np.ndarray, most: int) -> np.ndarray:
    order = np.argsort(-contacts(crystals), kind="stable")
    return order[good[order]][:most]


def pushed(
    group: int, plan: list[tuple[int, Wyckoff]], cells: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells of equal volumes and free parameters in which atoms overlap less.

    Args:
        group: the space group.
        plan: element and position of each orbit.
        cells: (n, 3, 3) Å.
        free: (n, orbits, 3).
    """
    origins, directions = (
        torch.tensor(np.stack([getattr(position, name) for _, position in plan])).float()
        for name in ("origin", "directions")
    )
    owner, rotations, moves = _images(group, plan)
    radius = np.nan_to_num(elements.column("covalent_radius"), nan=LARGEST_RADIUS)
    r = torch.tensor(radius[[z for z, _ in plan]]).float()
    sums = (r[:, None] + r[owner])[..., None]  # (orbits, sites, 1)
    shapes = torch.tensor(_shapes(group)).reshape(-1, 3)
    start = torch.tensor(cells).float()
    u = torch.tensor(free).float().requires_grad_()
    stretch = torch.zeros(len(cells), len(shapes), requires_grad=True)
    adam = torch.optim.Adam([u, stretch], lr=RATE)

    def now() -> Tensor:
        return start * torch.exp(stretch @ shapes)[:, :, None]

    for _ in range(PUSHES):
        adam.zero_grad()
        first = origins + torch.einsum("noi,oij->noj", u, directions)  # (n, orbits, 3)
        sites = torch.einsum("sij,nsj->nsi", rotations, first[:, owner]) + moves
        apart = sites[:, None] - first[:, :, None]
        apart = (apart - apart.round())[..., None, :] + SHIFTS  # (n, orbits, sites, 27, 3)
        square = (apart @ now()[:, None, None]).square().sum(-1)
        near = square.masked_fill(square < 1e-4, torch.inf)  # the site itself
        overlap = (1 - near.sqrt() / sums).clamp_min(0).square()
        overlap.sum().backward()
        adam.step()
    stretched = np.exp((stretch @ shapes).detach().numpy().astype(float))
    return cells * stretched[:, :, None], u.detach().numpy().astype(float)


def _images(group: int, plan: list[tuple[int, Wyckoff]]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each site of the conventional cell the orbit, and what takes its first site there."""
    rotations, translations = symmetry.operations(group)
    rng, owner, which = np.random.default_rng(0), [], []
    for k, (_, position) in enumerate(plan):
        point = position.origin + rng.random(3) @ position.directions
        images = (rotations @ point + translations) % 1.0
        _, first = np.unique(np.round(images, 6) % 1.0, axis=0, return_index=True)
        owner += [k] * len(first)
        which += first.tolist()
    parts = (torch.tensor(each[which]).float() for each in (rotations, translations))
    return torch.tensor(owner), *parts


def _shapes(group: int) -> list[tuple[float, float, float]]:
    """Stretches of the edges that keep the volume and the crystal system."""
    if group >= symmetry.FIRST_CUBIC:
        return []
    return [(-0.5, -0.5, 1.0)] + ([(1.0, -1.0, 0.0)] if group < 75 else [])


@cache
def positions(group: int) -> dict[str, Wyckoff]:
    """The Wyckoff positions of a space group by letter, as one crystal that takes all of them."""
    listed = wyckoff_positions(group)
    plan = [(1 + k, position) for k, position in enumerate([*listed, *listed[-1:] * 3])]
    size = np.array([50.0 * sum(position.multiplicity for _, position in plan)])
    rng = np.random.default_rng(0)
    while True:  # until no two stand in one place
        cells = random_cells(np.array([group]), size, rng)
        made, good = placed(np.array([group]), [plan], cells, rng.random((len(plan), 3)))
        data = symmetry.moyo_datasets(made, symprec=symmetry.FOUND_WITHIN)[0] if good[0] else None
        if data is not None and data.number == group:
            letters = dict(zip(made.numbers[0].tolist(), data.wyckoffs, strict=True))
            return {letters[1 + k]: position for k, position in enumerate(listed)}
