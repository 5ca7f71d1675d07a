"""Confidence intervals of shares."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from .runtime import InputError


def wilson(
    successes: ArrayLike, n: ArrayLike, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson score interval of a share; unlike the normal one it stays right near 0 and 1.

    Args:
        successes: how many of n succeeded; any shape.
        n: how many were tried; broadcast against `successes`. Where it is 0 nothing is known, and
            the interval is (0, 1).
        level: probability that the interval covers the true share.

    Returns:
        low and high, float64, in the broadcast shape; exactly 0 (1) at the ends 0 (n).

    Raises:
        InputError: not 0 <= successes <= n, or a level outside (0, 1).

    Source:
        E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if not np.all((k >= 0) & (k <= n)):
        raise InputError(f"{k} successes of {n} tries: successes must lie between 0 and n")
    if not 0 < level < 1:
        raise InputError(f"level {level}: must lie between 0 and 1, e.g. 0.95")
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    center = k + z2 / 2
    half = np.sqrt(z2) * np.sqrt(np.where(n > 0, k * (n - k) / np.maximum(n, 1), 0) + z2 / 4)
    low = np.where(k == 0, 0.0, (center - half) / (n + z2))
    high = np.where(k == n, 1.0, (center + half) / (n + z2))
    return low, high
