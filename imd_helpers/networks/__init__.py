"""Losses, layers, distances, training loops and checkpoints. Knows nothing of crystals."""

from __future__ import annotations

from ..intervals import seed_interval
from . import checkpoint, distances, layers, losses, seeds
from .fit import Game, History, TrainConfig, fit
from .seeds import SeedConfig, SeedRuns, train_seeds
