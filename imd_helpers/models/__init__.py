"""The reviewed systems, one file each, found by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime import data_path, lookup

if TYPE_CHECKING:
    from .gan import Gan

_MODELS = {  # name: (module, class)
    "ccdcgan": ("ccdcgan", "Ccdcgan"),
    "crystalgan": ("crystalgan", "CrystalGan"),
    "cubicgan": ("cubicgan", "CubicGan"),
    "gene_diffusion": ("gene_models", "GeneDiffusion"),
    "gene_transformer": ("gene_models", "GeneTransformer"),
    "imatgen": ("imatgen", "IMatGen"),
    "matgan": ("matgan", "MatGan"),
    "mg_mn_o": ("mg_mn_o", "MgMnOGan"),
    "pgcgm": ("pgcgm", "Pgcgm"),
    "sequence_gan": ("sequence_gan", "SequenceGan"),
    "zeogan": ("zeogan", "ZeoGan"),
}


def names() -> list[str]:
    """Names of the models."""
    return sorted(_MODELS)


def find(name: str) -> type[Gan]:
    """The class of a model, with its variants, recipes and training."""
    module, cls = _MODELS[lookup("model", name, _MODELS)]
    return getattr(importlib.import_module(f".{module}", __name__), cls)


def checkpoint_path(name: str, *, variant: str | None = None) -> Path:
    """The trained weights that come with the package."""
    variant = find(name).variant(variant)
    return data_path("checkpoints", f"{name}-{variant}", "model.safetensors")


def load(name: str, *, variant: str | None = None, path: Path | str | None = None) -> Gan:
    """Load a trained model, ready to ``.sample``.

    Args:
        name: see `names`.
        variant: ``paper``, what was published, ``fixed``, what should have been, or another of the
            model's own ``VARIANTS``; unless given ``fixed`` where there is one, else the first.
        path: weights of your own training instead of those that come with the package.

    Raises:
        UnknownNameError: no such model or variant.
        CheckpointError: missing, truncated or foreign weights.
    """
    return find(name).load(path if path is not None else checkpoint_path(name, variant=variant))
