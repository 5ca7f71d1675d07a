"""Inverse materials design with generative adversarial networks: the package under the book.

Use it as ``import imd_helpers as imd``. Submodules load on first use, so the import is cheap.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

from .guard import Finder

if TYPE_CHECKING:
    from . import (
        baselines,
        check,
        crystals,
        datasets,
        descriptors,
        energies,
        judge,
        matching,
        models,
        networks,
        predictors,
        search,
        show,
    )
    from .runtime import profile, report, setup

__version__ = "0.1.0"
sys.meta_path.insert(0, Finder)

_SUBMODULES = tuple(room.name for room in pkgutil.iter_modules(__path__) if room.ispkg)
_FUNCTIONS = ("profile", "report", "setup")
__all__ = [*_SUBMODULES, *_FUNCTIONS, "__version__"]  # noqa: PLE0604 - names are strings


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.runtime"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
