"""Intervals: of shares, of means over seeds, of means and distances by resampling."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from .runtime import InputError, number, reals, whole

GROUPS = 20  # that a jackknife leaves out, one after another


def wilson(
    successes: ArrayLike, n: ArrayLike, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson score interval of a share; unlike the normal one it stays right near 0 and 1.

    Args:
        successes: how many of n succeeded; any shape.
        n: how many were tried; where it is 0 nothing is known, and the interval is (0, 1).
        level: probability that the interval covers the true share.

    Returns:
        low and high, float64, in the broadcast shape; exactly 0 (1) at the ends 0 (n).

    Raises:
        InputError: not 0 <= successes <= n, or a level outside (0, 1).

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    k, n = reals("successes", successes), reals("n", n)
    try:
        k, n = np.broadcast_arrays(k, n)
    except ValueError as error:
        raise InputError(f"successes and n: {error}; give one n for all, or one each") from error
    if not np.all((k >= 0) & (k <= n)):
        raise InputError(f"{k} successes of {n} tries: successes must lie between 0 and n")
    number("level", level, above=0, below=1)
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    center = k + z2 / 2
    half = np.sqrt(z2) * np.sqrt(np.where(n > 0, k * (n - k) / np.maximum(n, 1), 0) + z2 / 4)
    low = np.where(k == 0, 0.0, (center - half) / (n + z2))
    high = np.where(k == n, 1.0, (center + half) / (n + z2))
    return low, high


def difference(
    successes: tuple[ArrayLike, ArrayLike], n: tuple[ArrayLike, ArrayLike]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First share minus second, with Newcombe's 95 % interval from the two Wilson intervals.

    Args:
        successes: how many of each succeeded; two of any shape.
        n: how many of each were tried; where it is 0 the share counts as one half.

    Returns:
        difference, low and high, float64, in the broadcast shape.

    Raises:
        InputError: as `wilson`.

    Source: R. G. Newcombe, Stat. Med. 17 (1998) 873-890, method 10.
    """
    (one_low, one_high), (two_low, two_high) = (
        wilson(k, m) for k, m in zip(successes, n, strict=True)
    )
    one, two = (
        np.where(np.asarray(m) > 0, np.asarray(k) / np.maximum(m, 1), 0.5)
        for k, m in zip(successes, n, strict=True)
    )
    below = np.hypot(one - one_low, two_high - two)
    above = np.hypot(one_high - one, two - two_low)
    return one - two, one - two - below, one - two + above


def seed_interval(values: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds with the 95 % interval of Student's t.

    Args:
        values: (..., seeds); NaN and infinity, the mark of a seed that diverged, count for
            nothing: say how many there are.

    Raises:
        InputError: values that are no numbers.

    Returns:
        mean, low and high, each (...); low and high are NaN for fewer than two finite values.
    """
    from scipy.stats import t

    array = np.atleast_1d(reals("values", values, finite=False))
    finite = np.isfinite(array)
    n = finite.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(finite, array, 0.0).sum(-1) / n
        squares = np.where(finite, (array - mean[..., None]) ** 2, 0.0).sum(-1)
        half = t.ppf(0.975, n - 1) * np.sqrt(squares / (n - 1) / n)
    return mean, mean - half, mean + half


def bootstrap(values: np.ndarray, *, resamples: int = 1_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of (n,) values; (NaN, NaN) of fewer than two.

    Raises:
        InputError: values that are not finite, or an impossible setting.
    """
    values = reals("values", values, "n")
    n, resamples = len(values), whole("resamples", resamples, least=1)
    rng = np.random.default_rng(whole("seed", seed))
    if n < 2:
        return float("nan"), float("nan")
    means = [values[rng.integers(n, size=n)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def bootstrap_distance(
    distance: Callable[[np.ndarray, np.ndarray], float],
    sizes: tuple[int, int],
    *,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """A distance of two sets of given sizes, and an interval around it, never below 0.

    Resampling adds to a distance about as much as finite sets have added already, so the lower end
    is mirrored (basic bootstrap); the upper end is not lowered in return, which for two Gaussians
    would leave the truth outside in a third of the cases, where the distance is as small as its
    noise.

    ``distance`` takes how often each point of the two sets counts, (n,) and (m,); n and m are the
    sizes. The distance, low and high are returned.

    Raises:
        InputError: fewer than 2 resamples, or another setting that is impossible.
    """
    resamples = whole("resamples", resamples, least=2)
    number("level", level, above=0, below=1)
    rng = np.random.default_rng(whole("seed", seed))
    sizes = tuple(whole("size", n, least=1) for n in sizes)
    value = distance(*(np.ones(n) for n in sizes))
    repeated = [
        distance(*(rng.multinomial(n, np.full(n, 1 / n)).astype(float) for n in sizes))
        for _ in range(resamples)
    ]
    top = float(np.quantile(repeated, 0.5 + level / 2))
    return value, min(value, max(0.0, 2 * value - top)), value + top - float(np.mean(repeated))


def jackknife(statistic: Callable[[np.ndarray], float], n: int) -> tuple[float, float, float]:
    """A statistic of n things and its normal 95 % interval, never below 0, by leaving groups out.

    ``statistic`` takes the (k,) indices of the things that stay. It is returned with low and high,
    which are NaN for fewer than two things.

    Raises:
        InputError: no things.
    """
    groups = min(GROUPS, whole("n", n, least=1))
    value = statistic(np.arange(n))
    if groups < 2:
        return value, float("nan"), float("nan")
    label = np.random.default_rng(0).permutation(n) % groups
    left = np.array([statistic(np.flatnonzero(label != g)) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.sum((left - left.mean()) ** 2))
    half = NormalDist().inv_cdf(0.975) * error
    return value, max(0.0, float(value - half)), float(value + half)
