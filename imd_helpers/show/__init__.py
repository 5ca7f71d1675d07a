"""Figures and 3-D views: the top floor, which nothing else imports."""

from importlib import import_module
from typing import Any

from .crystal import crystal, crystals
from .figures import PALETTE, style
from .slides import slides
from .tables import worded
from .trajectory import trajectory
from .volumes import grids

JUDGED = {"bands": "charts", "reports": "charts", "candidates": "cards"}  # they load the judge


def __getattr__(name: str) -> Any:
    if name in JUDGED:
        return getattr(import_module(f"{__name__}.{JUDGED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "PALETTE",
    "bands",
    "candidates",
    "crystal",
    "crystals",
    "grids",
    "reports",
    "slides",
    "style",
    "trajectory",
    "worded",
]
