"""The 2-D crystal image: short codes of voxel grids, laid out as one square picture.

A coder turns the grid of the cell, and the grid of each element's sites, into short codes. The
image holds the code of the cell first, in a room of its own, then one code for each element in a
fixed order, row after row; what is left is zero. An element that the crystal lacks has a code of
zeros.

Source: Long et al., npj Comput. Mater. 7 (2021) 66, and its code (TengLong1993,
CCDCGAN-for-single-system at cec17bd, CCDCGAN-for-multicomponent-systems at 49b7df7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..crystals.samples import Samples
from ..runtime import InputError, whole
from .base import Crystals, Descriptor, atomic_numbers, check_batch
from .voxel_grid import VoxelGrid

PRESENT = 1e-3  # an element is there if some number of its code is at least this large


@dataclass(frozen=True)
class ImageLayout:
    """Where in the image each code lies.

    The defaults are those published for Bi-Se: 28 x 28 for two elements. The published image of all
    elements has a side of 160 and keeps its first row for a code of 50 numbers of the cell.

    Attributes:
        elements: atomic numbers in the order of their codes.
        side: pixels along each side.
        cell_code: numbers of the code of the cell.
        site_code: numbers of the code of one element.
        cell_room: pixels kept for the code of the cell; the rest of them is zero.
    """

    elements: tuple[int, ...]
    side: int = 28
    cell_code: int = 25
    site_code: int = 200
    cell_room: int = 200

    def __post_init__(self) -> None:
        atomic_numbers("elements", self.elements)
        for name in ("side", "cell_code", "site_code", "cell_room"):
            whole(name, getattr(self, name), least=1)
        needed = self.cell_room + len(self.elements) * self.site_code
        if self.cell_code > self.cell_room:
            raise InputError(
                f"a cell's code of {self.cell_code} numbers does not fit into cell_room="
                f"{self.cell_room}: make the room larger"
            )
        if needed > self.side**2:
            raise InputError(
                f"{len(self.elements)} elements need {needed} pixels, an image of side {self.side} "
                f"has {self.side**2}: take a side of at least {int(np.ceil(np.sqrt(needed)))}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, side, side)."""
        return (1, self.side, self.side)

    def pack(self, cell: Tensor, sites: Tensor) -> Tensor:
        """(batch, 1, side, side) from codes (batch, cell code) and (batch, elements, site code).

        Raises:
            InputError: codes of other sizes.
        """
        wanted = (len(cell), len(self.elements), self.site_code)
        if cell.shape != (len(cell), self.cell_code) or sites.shape != wanted:
            raise InputError(
                f"codes of shapes {tuple(cell.shape)} and {tuple(sites.shape)}: expected (batch, "
                f"{self.cell_code}) for the cell and {wanted} for the sites"
            )
        flat = cell.new_zeros(len(cell), self.side**2)
        flat[:, : self.cell_code] = cell
        flat[:, self._sites] = sites.flatten(1)
        return flat.view(-1, *self.shape)

    def unpack(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (batch, cell code) and (batch, elements, site code) of (batch, 1, side, side).

        Raises:
            InputError: another shape.
        """
        check_batch(image, self.shape)
        flat = image.flatten(1)
        sites = flat[:, self._sites].unflatten(1, (len(self.elements), self.site_code))
        return flat[:, : self.cell_code], sites

    @property
    def _sites(self) -> slice:
        return slice(self.cell_room, self.cell_room + len(self.elements) * self.site_code)


@dataclass(frozen=True, eq=False)
class CrystalImage(Descriptor):
    """Encode crystals as images by way of voxel grids and a coder, and decode them.

    Attributes:
        layout: where the codes lie.
        voxels: the grids, with one channel for each element of the layout.
        coder: two autoencoders, for grids of cells (batch, 1, points^3) and of the sites of one
            element a row: methods ``encode_cells``, ``decode_cells``, ``encode_sites`` and
            ``decode_sites``, and how long the codes are: ``cell_code``, ``site_code``.
    """

    layout: ImageLayout
    voxels: VoxelGrid
    coder: Any

    def __post_init__(self) -> None:
        if self.voxels.elements != self.layout.elements:
            raise InputError(
                f"the grids have channels for {self.voxels.elements}, the image places for "
                f"{self.layout.elements}: give both the same elements in the same order"
            )
        codes = (self.coder.cell_code, self.coder.site_code)
        if codes != (self.layout.cell_code, self.layout.site_code):
            raise InputError(
                f"the coder writes codes of {codes[0]} and {codes[1]} numbers, the image has "
                f"places for {self.layout.cell_code} and {self.layout.site_code}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, side, side)."""
        return self.layout.shape

    def encode_all(self, crystals: Crystals) -> Samples:
        """(batch, 1, side, side): crystals that the grids cannot hold are zeros, with a reason."""
        grids = self.voxels.encode_all(crystals)
        cell, sites = self.voxels.split(grids.tensor)
        there = sites.flatten(2).amax(2) > 0  # (batch, elements)
        code = sites.new_zeros(*there.shape, self.layout.site_code)
        if bool(there.any()):
            code[there] = self.coder.encode_sites(sites[there][:, None])
        written = torch.as_tensor(grids.ok, device=sites.device)[:, None]
        image = self.layout.pack(self.coder.encode_cells(cell) * written, code)
        return Samples(image, grids.ok, grids.reasons)

    def _decode(self, rows: Tensor) -> Samples:
        cell_code, code = self.layout.unpack(rows)
        there = code.abs().amax(2) >= PRESENT  # (batch, elements)
        n = self.voxels.site_points
        sites = code.new_zeros(*there.shape, n, n, n)
        if bool(there.any()):
            sites[there] = self.coder.decode_sites(code[there])[:, 0]
        cells = self.coder.decode_cells(cell_code)
        cells = cells * (cell_code.abs().amax(1) >= PRESENT)[:, None, None, None, None]
        return self.voxels.decode(self.voxels.join(cells, sites))
