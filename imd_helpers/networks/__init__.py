"""Losses, layers, distances, training loops and checkpoints. Knows nothing of crystals."""

from __future__ import annotations

from ..intervals import seed_interval
from . import checkpoint, distances, layers, losses, seeds
from .fit import Game, History, TrainConfig, fit
from .seeds import SeedRuns, train_seeds

__all__ = [
    "Game",
    "History",
    "SeedRuns",
    "TrainConfig",
    "checkpoint",
    "distances",
    "fit",
    "layers",
    "losses",
    "seed_interval",
    "seeds",
    "train_seeds",
]
