"""The reviewed systems, one file each, found by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..crystals import CrystalBatch
from ..runtime import data_path, lookup


class Generator(Protocol):
    """Anything that makes crystals or compositions: a model, or a baseline without learning."""

    def sample(self, n: int, *, condition: Any = None, seed: int = 0) -> CrystalBatch | np.ndarray:
        """Return n crystals, or (n, 119) counts; the same seed gives the same samples."""
        ...


_MODELS = {  # name: (module, class)
    "cubicgan": ("cubicgan", "CubicGan"),
    "matgan": ("matgan", "MatGan"),
}
FORMULA_MODELS = ("matgan",)  # whose samples are compositions


def names() -> list[str]:
    """Names of the models."""
    return sorted(_MODELS)


def module(name: str) -> Any:
    """The module of a model, with its recipes and its `train`.

    Raises:
        UnknownNameError: no such model.
    """
    return importlib.import_module(f".{_MODELS[lookup('model', name, _MODELS)][0]}", __name__)


def checkpoint_path(name: str, *, variant: str = "fixed") -> Path:
    """The trained weights that come with the package.

    Raises:
        UnknownNameError: no such model or variant.
    """
    lookup("variant", variant, module(name).VARIANTS)
    return data_path("checkpoints", f"{name}-{variant}", "model.safetensors")


def load(name: str, *, variant: str = "fixed", path: Path | str | None = None) -> Any:
    """Load a trained model, ready to ``.sample``.

    Args:
        name: see `names`.
        variant: ``fixed``, our best version, ``paper``, what was published, or another of the
            model's own ``VARIANTS``.
        path: weights of your own training instead of those that come with the package.

    Raises:
        UnknownNameError: no such model or variant.
        CheckpointError: missing, truncated or foreign weights.
    """
    cls = getattr(module(name), _MODELS[name][1])
    return cls.load(path if path is not None else checkpoint_path(name, variant=variant))
