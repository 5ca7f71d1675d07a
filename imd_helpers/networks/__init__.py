"""Losses, the training loop and checkpoints. Knows nothing of crystals."""

from __future__ import annotations

from . import checkpoint, losses
from .fit import Game, History, TrainConfig, fit

__all__ = ["Game", "History", "TrainConfig", "checkpoint", "fit", "losses"]
