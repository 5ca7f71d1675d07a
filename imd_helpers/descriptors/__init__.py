"""Crystal to tensor and back: every representation of the review."""

from __future__ import annotations

from . import symmetry_sites
from .base import Decoded, Descriptor

__all__ = ["Decoded", "Descriptor", "symmetry_sites"]
