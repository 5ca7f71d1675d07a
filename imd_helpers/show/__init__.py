"""Figures and 3-D views: the top floor, which nothing else imports."""

from .crystal import crystal, crystals
from .figures import PALETTE, style

__all__ = ["PALETTE", "crystal", "crystals", "style"]
