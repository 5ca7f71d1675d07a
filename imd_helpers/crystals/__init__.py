"""Crystals as batches of tensors: elements, periodic geometry, symmetry."""

from __future__ import annotations

from . import elements, geometry, symmetry
from .batch import CrystalBatch

__all__ = ["CrystalBatch", "elements", "geometry", "symmetry"]
