"""From base sites to whole crystals: merging what is one site, positions, the published checks.

Source: the sampler of MilesZhao/PGCGM at commit ab38ec6.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.geometry import closest_contact
from ..descriptors.base import LARGEST, mark, without
from .pgcgm_sites import (
    MERGED,
    SAME,
    BaseSites,
    affine,
    flat_shifts,
    group_index,
    images,
    projected,
    radius_of,
)

AGAIN, CROWDED = 1.5, 100  # merge again, of the sum of two radii, in cells of more atoms
APART = 0.75  # of the sum of two radii, which atoms must keep
EXPANDED_WITHIN = 1e-3  # of an edge; images of rounded sites, before clusters are looked for
FOUND_WITHIN = 0.1  # Å, for the space group of what was made


def expanded(
    sites: BaseSites, *, decimals: int | None, projects: bool, merged: float = MERGED
) -> CrystalBatch:
    """Whole crystals, before any check.

    Args:
        sites: finite, with positive edges.
        decimals: of the coordinates that are kept; all if None.
        projects: by `projected`; else, as published, by `clustered`.
        merged: of the sum of two radii; images of an atom that are nearer become one.
    """
    frac, lattice = np.asarray(sites.frac, dtype=np.float64), sites.lattice()
    frac = frac if decimals is None else frac.round(decimals)
    if projects:
        group = torch.as_tensor(group_index(sites.space_group))
        within = torch.as_tensor(2 * merged * radius_of(sites.numbers))
        frac = projected(torch.as_tensor(frac), group, torch.as_tensor(lattice), within)[0].numpy()
        return symmetry.expand(sites.space_group, lattice, frac, sites.numbers)[0]
    given = (sites.space_group, lattice, frac, sites.numbers)
    crystals, _ = symmetry.expand(*given, tolerance=EXPANDED_WITHIN)
    crystals = clustered(crystals, merged)
    crowded = np.flatnonzero(crystals.n_sites.numpy() > CROWDED)
    if not len(crowded):
        return crystals
    rest = np.setdiff1d(np.arange(len(crystals)), crowded)
    again = clustered(crystals[crowded], AGAIN)
    parts = [crystals[rest], again] if len(rest) else [again]
    return CrystalBatch.cat(parts)[np.argsort(np.concatenate([rest, crowded]))]


def clustered(crystals: CrystalBatch, factor: float) -> CrystalBatch:
    """Crystals in which atoms of one element that are near each other are one, in their middle.

    Near is closer than ``factor`` times two atomic radii, on average between two clusters.
    """
    lattices, sites, numbers, sizes = [], [], [], []
    for lattice, frac, z in crystals.each():
        parts = [_middles(lattice, frac[z == k], 2 * factor * radius_of(k)) for k in np.unique(z)]
        lattices.append(lattice)
        sites += parts
        numbers += [np.full(len(p), k) for p, k in zip(parts, np.unique(z), strict=True)]
        sizes.append(sum(map(len, parts)))
    return CrystalBatch.from_ragged(
        np.stack(lattices), np.concatenate(sites), np.concatenate(numbers), sizes
    )


def _middles(lattice: np.ndarray, frac: np.ndarray, within: float) -> np.ndarray:
    """(clusters, 3) the middle of each cluster of (n, 3) sites."""
    if len(frac) == 1:
        return frac
    step = frac[None] - frac[:, None]
    step -= np.rint(step)
    shifts = flat_shifts().numpy()
    cart = (step[:, :, None] + shifts) @ lattice  # (n, n, 9, 3)
    far = np.linalg.norm(cart, axis=3)
    nearest = far.argmin(2)
    step = step + shifts[nearest]
    apart = np.take_along_axis(far, nearest[..., None], axis=2)[..., 0]
    np.fill_diagonal(apart, 0.0)
    name = fcluster(linkage(squareform(apart, checks=False), "average"), within, "distance")
    first = np.unique(name, return_index=True)[1]
    return np.stack([frac[i] + step[i, name == name[i]].mean(0) for i in first]) % 1.0


# ---- positions


@torch.no_grad()
def positions(sites: BaseSites) -> Tensor:
    """(n, 3, 3, 4) P and t of the Wyckoff position of each site: it holds the points P f + t.

    They are means over the operations that leave the site where it is, as in `projected`: a point
    has P = 0, an axis one free direction, and a general position P = 1, t = 0.
    """
    group, lattice = torch.as_tensor(group_index(sites.space_group)), sites.lattice()
    found = torch.empty(len(sites), 3, 3, 4, dtype=torch.float64)
    for k in group.unique().tolist():  # groups differ in how many operations they have
        mine = (group == k).nonzero()[:, 0]
        frac, cell = torch.as_tensor(sites.frac)[mine], torch.as_tensor(lattice)[mine]
        moved, _ = images(frac, group[mine])
        step = moved - frac[:, :, None]  # (crystals, 3, g, 3)
        stays = ((step - step.round()) @ cell[:, None]).norm(dim=3) < SAME  # (crystals, 3, g)
        operations = affine()[k, : stays.shape[2], :3].repeat(len(mine), 3, 1, 1, 1)
        operations[..., 3] -= step.round()  # ends at the site itself, not at a copy
        weight = stays.double() / stays.sum(2, keepdim=True)
        found[mine] = (operations * weight[..., None, None]).sum(2)
    return found


# ---- checks


def mark_cells(reasons: list[str], sites: BaseSites) -> None:
    """Write which sites are not finite, or have edges that no cell has."""
    finite = np.isfinite(sites.lengths).all(1) & np.isfinite(sites.frac).all((1, 2))
    mark(reasons, finite, lambda _: "a length or coordinate is NaN or infinity")
    text = "edges of {:.2g} to {:.2g} Å: a cell has edges above 0 and up to " + f"{LARGEST:g} Å"
    good = (sites.lengths > 0).all(1) & (sites.lengths <= LARGEST).all(1)
    mark(reasons, good, lambda i: text.format(sites.lengths[i].min(), sites.lengths[i].max()))


def mark_misfits(reasons: list[str], crystals: CrystalBatch, space_group: np.ndarray) -> None:
    """The published checks: atoms 0.75 of their radii apart, and the group that was asked for."""
    good = without(reasons)
    if len(good):
        scale = np.maximum(APART * radius_of(np.arange(elements.N_COLUMNS)), 1e-6)
        near, pair = closest_contact(crystals[good], scale=scale)
        for i, ratio, (j, k) in zip(good.tolist(), near.tolist(), pair.tolist(), strict=True):
            if ratio < 1:
                names = "–".join(elements.SYMBOLS[int(crystals.numbers[i, s])] for s in (j, k))
                reasons[i] = f"distance: {names} at {APART * ratio:.2f} of the sum of their radii"
    good = without(reasons)
    if len(good):
        found = symmetry.space_group_numbers(crystals[good], symprec=FOUND_WITHIN)
        for i, number in zip(good.tolist(), found.tolist(), strict=True):
            if number != space_group[i]:
                reasons[i] = f"group: {number} found, {space_group[i]} asked for"
