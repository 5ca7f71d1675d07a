"""Predictors of a property from a formula alone: one can guide a search, the other judge it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.compositions import checked
from ..descriptors.composition_matrix import ELEMENTS
from ..networks import layers
from ..networks.epochs import fit_epochs, seeded, shuffled
from ..runtime import InputError, lookup, reals, whole
from .base import UNFITTED, element_table, with_elements

KINDS = ("network", "trees")
EPOCHS, BATCH, RATE = 20, 256, 2e-3  # of the network


class FormulaPredictor:
    """Predicts one property from a composition alone.

    ``network`` is a small perceptron on the shares of the elements and statistics of their
    properties; ``trees`` is gradient boosting on the statistics.
    """

    def __init__(self, kind: str, *, seed: int = 0) -> None:
        self.kind = lookup("kind of predictor", kind, KINDS)
        self.seed = whole("seed", seed)
        self._model: Any = None
        self._scale: tuple[np.ndarray, np.ndarray] = (np.zeros(1), np.ones(1))

    def fit(self, counts: np.ndarray, values: np.ndarray) -> FormulaPredictor:
        """Fit to (n,) values of (n, 119) counts and return self.

        Raises:
            InputError: no rows, a row of zeros, or values that are not finite.
        """
        values = reals("values", values, len(counts))
        x = self._features(counts)
        self._scale = (x.mean(0), np.maximum(x.std(0), 0.05))  # rare elements: no huge numbers
        if self.kind == "trees":
            from sklearn.ensemble import HistGradientBoostingRegressor

            boosted = HistGradientBoostingRegressor(max_iter=200, random_state=self.seed)
            self._model = boosted.fit(x, values)
        else:
            self._model = _fit_network(self._scaled(x), values, self.seed)
        return self

    def predict(self, counts: np.ndarray) -> np.ndarray:
        """(n,) predictions; NaN for a row of zeros.

        Raises:
            InputError: not fitted.
        """
        if self._model is None:
            raise InputError(UNFITTED)
        out, good = np.full(len(counts), np.nan), checked(counts).any(1)
        if good.any():
            x = self._features(counts[good])
            if self.kind == "trees":
                out[good] = self._model.predict(x)
            else:
                with torch.no_grad():
                    out[good] = self._model(self._scaled(x))[:, 0].numpy()
        return out

    def _features(self, counts: np.ndarray) -> np.ndarray:
        return composition_features(counts, shares=self.kind == "network")

    def _scaled(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor((x - self._scale[0]) / self._scale[1], dtype=torch.float32)


def composition_features(counts: np.ndarray, *, shares: bool = False) -> np.ndarray:
    """(n, 44) mean, spread, largest and smallest of 11 element properties, weighted by atoms.

    Args:
        counts: (n, 119), no row of zeros.
        shares: put the shares of the 85 elements in front, (n, 129).

    Raises:
        InputError: a row of zeros.
    """
    counts = with_elements(counts)
    table = element_table()
    weight = counts / counts.sum(1, keepdims=True)  # (n, 119)
    mean = weight @ table
    spread = np.sqrt(np.maximum(weight @ table**2 - mean**2, 0.0))
    row, z = np.nonzero(counts)
    start = np.searchsorted(row, np.arange(len(counts)))
    high = np.maximum.reduceat(table[z], start, axis=0)
    low = np.minimum.reduceat(table[z], start, axis=0)
    parts = [mean, spread, high, low]
    return np.concatenate([weight[:, list(ELEMENTS)], *parts] if shares else parts, axis=1)


def _fit_network(x: Tensor, values: np.ndarray, seed: int) -> nn.Module:
    """A perceptron fitted to (n, features) and (n,) values, whose last layer scales back."""
    mean, spread = float(values.mean()), float(values.std() + 1e-6)
    y = torch.as_tensor((values - mean) / spread, dtype=torch.float32)[:, None]
    with seeded(seed):
        body = layers.mlp((x.shape[1], 128, 128, 1), activation=nn.SiLU())
        fit_epochs(
            body,
            lambda: shuffled(len(x), BATCH),
            lambda rows: {"loss": nn.functional.smooth_l1_loss(body(x[rows]), y[rows])},
            epochs=EPOCHS,
            lr=RATE,
            falling=EPOCHS * math.ceil(len(x) / BATCH),
        )
    unscale = nn.Linear(1, 1)
    with torch.no_grad():
        unscale.weight.fill_(spread)
        unscale.bias.fill_(mean)
    return nn.Sequential(body, unscale).eval()
