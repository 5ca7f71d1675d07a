"""Grids of methane's energy, O and Si as surfaces in three dimensions, to turn with the mouse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..descriptors.methane_grid import ENERGY_RANGE
from ..runtime import InputError
from .crystal import SMALL, add_cell, one_each, publish

ATTRACTS = -1_000.0  # K, the energy of methane on its surface
HALF = 0.5  # the density on the surface of an atom, 0.83 Å from its centre
INKS = {"methane": "#9b59d0", "O": "#e6c700", "Si": "#d62728"}  # of the review's figure
BOHR = 0.529177  # Å
FINE = 26  # points along an edge that a browser gets
STEPS = 100  # whole numbers from 0 to 1, which are shorter


def grids(values: Tensor, lengths: Tensor, *, titles: Sequence[str] | None = None) -> None:
    """Show frameworks as surfaces: where methane is attracted, and around O and Si.

    In Jupyter and Colab this is a 3-D view; elsewhere the grids are told in words.

    Args:
        values: (batch, 3, n, n, n) as `MethaneGrid` writes them, at most 24.
        lengths: (batch, 3) edges of the cells, at right angles, Å.
        titles: one a grid.

    Raises:
        InputError: grids of another shape, too many, or not one cell and title for each.
    """
    shape = tuple(values.shape)
    if len(shape) != 5 or shape[1] != 3 or tuple(lengths.shape) != (shape[0], 3) or not shape[0]:
        raise InputError(
            f"grids {shape} with lengths {tuple(lengths.shape)}: give (batch, 3, n, n, n) as "
            "MethaneGrid writes them, and (batch, 3) in Å"
        )
    names = one_each(titles, [f"grid {i}" for i in range(shape[0])], "grids")
    pairs = list(zip(values.numpy(), lengths.numpy(), strict=True))
    pictures = [partial(_surfaces, grid=grid, edges=edges) for grid, edges in pairs]
    words = [_words(*each) for each in zip(names, values, lengths, strict=True)]
    size = (SMALL[0] * 3 // 2, SMALL[1] * 3 // 2)
    publish(pictures, INKS, words, names, columns=2, size=size)


def _surfaces(view: Any, grid: np.ndarray, edges: np.ndarray, place: dict[str, Any]) -> None:
    low, high = ENERGY_RANGE
    levels = 1 - (ATTRACTS - low) / (high - low), HALF, HALF
    for channel, ink, at in zip(grid, INKS.values(), levels, strict=True):
        look = {"isoval": round(STEPS * at, 2), "color": ink, "smoothness": 0}
        if channel.max() > at > channel.min():
            view.addVolumetricData(cube(channel, edges), "cube", look, **place)
    add_cell(view, np.diag(edges), place)
    view.zoom(1.25, **place)  # corners of a cell need less room than the sphere around it


def cube(values: np.ndarray, edges: np.ndarray) -> str:
    """One grid (n, n, n) in a cell with edges (3,) Å as a cube file, interpolated by splines.

    The first layer comes again as the last one: a surface that leaves the cell reaches its faces.
    """
    from scipy.ndimage import map_coordinates

    axis = np.linspace(0, len(values), FINE)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))
    full = map_coordinates(values, places, order=3, mode="grid-wrap")
    steps = np.diag(edges / (FINE - 1) / BOHR)
    rows = [f"{FINE} " + " ".join(f"{x:.5f}" for x in step) for step in steps]
    head = ["imd_helpers", "a grid that repeats", "0 0.0 0.0 0.0", *rows]
    whole = np.rint(STEPS * full).astype(int).reshape(-1, FINE)
    return "\n".join(head + [" ".join(map(str, line)) for line in whole.tolist()]) + "\n"


def _words(name: str, grid: Tensor, edges: Tensor) -> str:
    where = " × ".join(f"{edge:.1f}" for edge in edges.tolist())
    shares = [(channel > HALF).double().mean().item() for channel in grid[1:]]
    return f"{name}: {where} Å; O fills {shares[0]:.1%} of the cell, Si {shares[1]:.1%}"
