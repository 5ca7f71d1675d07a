"""A Gaussian process: what it expects at a point, and how sure it is."""

from __future__ import annotations

import warnings

import numpy as np

RIDGE = 1e-6  # smallest variance of noise, of standardised values
MOST_FITTED = 200  # values that it learns from: the lowest half, and the last ones


def predicted(
    features: np.ndarray, values: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a Gaussian process at other points.

    Args:
        features: (n, f) of the points that are known.
        values: (n,) found there.
        wanted: (m, f) of the other points.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    half = MOST_FITTED // 2
    rows = np.union1d(np.argsort(values)[:half], np.arange(len(values))[-half:])
    centre, scale = features[rows].mean(0), features[rows].std(0) + 1e-9
    length = Matern(np.sqrt(features.shape[1]), (0.05, 100.0), nu=2.5)
    kernel = ConstantKernel(1.0, (0.01, 100.0)) * length + WhiteKernel(1e-3, (RIDGE, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit((features[rows] - centre) / scale, values[rows])
    return process.predict((wanted - centre) / scale, return_std=True)


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """(n,) mean of ``max(best - y, 0)`` for normal y: equation (eq-globalopt-improvement)."""
    from scipy.stats import norm

    z = (best - mean) / np.maximum(deviation, 1e-12)
    return (best - mean) * norm.cdf(z) + deviation * norm.pdf(z)
