"""Crystal to tensor and back: every representation of the review."""

from __future__ import annotations

from . import (
    bags,
    composition_matrix,
    coordinate_matrix,
    coulomb,
    crystal_image,
    hydride_blocks,
    methane_grid,
    molecules,
    smiles,
    soap,
    symmetry_sites,
    voxel_grid,
)
from .base import Descriptor
