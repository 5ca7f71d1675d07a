"""Checks of the chapter on symmetry and crystal graphs."""

from __future__ import annotations

import numpy as np

from .base import Check


def _images_of_the_origin() -> float:
    from ..crystals import symmetry

    rotations, translations = symmetry.operations(227)
    images = np.mod(translations, 1.0)  # of the origin: the rotations do not move it
    return len(np.unique(np.rint(images * 24).astype(int) % 24, axis=0)) if len(rotations) else 0


def _free_numbers_of_quartz() -> float:
    """Two lengths, and for each orbit the directions that its site symmetry leaves alone."""
    from .. import datasets
    from ..crystals import symmetry

    quartz = datasets.load("oqmd_icsd").select(formulas=["SiO2"], space_groups=[154], max_sites=9)
    (orbits,) = symmetry.orbits(quartz[0].crystals)
    rotations, translations = symmetry.operations(orbits.space_group)
    free = 2
    for site in orbits.frac:
        shift = rotations @ site + translations - site
        stays = rotations[np.abs(shift - np.rint(shift)).max(axis=1) < 1e-3]
        # a direction is free where every rotation of the site symmetry leaves it: (R - 1) x = 0
        free += 3 - np.linalg.matrix_rank(np.concatenate(stays - np.eye(3)), tol=1e-6)
    return free


def _neighbours_to_tell_packings() -> float:
    """First neighbour whose distance differs, from lattice sums over close-packed layers."""
    cubic, hexagonal = (_packing(layers) for layers in ((0, 1, 2), (0, 1)))
    return int(np.flatnonzero(np.abs(cubic - hexagonal) > 1e-9)[0]) + 1


def _packing(layers: tuple[int, ...]) -> np.ndarray:
    """Sorted distances from one atom in a stack of close-packed layers, nearest distance 1."""
    a, b = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.75**0.5, 0.0])
    up = np.array([0.0, 0.0, (2 / 3) ** 0.5])
    sites = np.array(
        [
            i * a + j * b + layers[k % len(layers)] * (a + b) / 3 + k * up
            for i in range(-6, 7)
            for j in range(-6, 7)
            for k in range(-4, 5)
        ]
    )
    return np.sort(np.linalg.norm(sites, axis=1))[1:40]


CHECKS = {
    "symmetry.1": Check(
        _images_of_the_origin,
        "Divide the 192 operations by those that leave the origin in place, up to whole numbers.",
    ),
    "symmetry.2": Check(
        _free_numbers_of_quartz,
        "A trigonal cell has two lengths; add the free coordinates of one site of each orbit, "
        "not of all nine.",
    ),
    "symmetry.3": Check(
        _neighbours_to_tell_packings,
        "Count the neighbours of the shells that both have, then one more.",
    ),
}
