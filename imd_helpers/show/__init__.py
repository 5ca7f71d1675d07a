"""Figures and 3-D views: the top floor, which nothing else imports."""

from importlib import import_module
from typing import Any

from .crystal import crystal, crystals
from .figures import PALETTE, style
from .slides import slides
from .trajectory import trajectory
from .volumes import grids


def __getattr__(name: str) -> Any:
    if name in ("bands", "reports"):  # they load the judge
        return getattr(import_module(f"{__name__}.charts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "PALETTE",
    "bands",
    "crystal",
    "crystals",
    "grids",
    "reports",
    "slides",
    "style",
    "trajectory",
]
