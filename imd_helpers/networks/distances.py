"""Distances between two sets of points: transport, kernels, neighbours, Gaussians.

Points are arrays or tensors, (n, d) or (n,) for d = 1; all is computed in float64 on the CPU, and
numbers come back as floats. For crystals see `imd_helpers.judge`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..runtime import InputError, number, reals, shown, whole

Points = ArrayLike | Tensor
FARTHEST = 1e150  # of a coordinate, whose square is a number too
MOST_DIRECTIONS = 1_000_000
WIDTHS = {"least": 1e-150, "most": 1e150}  # of a kernel

# ---- optimal transport


class Transport(NamedTuple):
    """The cheapest way to carry one set of weighted points onto another.

    The Kantorovich potentials have u_i + v_j <= distance_ij^p, equal where the plan carries
    something, and the weighted sum of u and v is ``cost``. For p = 1 the best critic of slope 1 is
    f(x) = min_j (|x - b_j| - v_j), which gives u_i to a_i.
    """

    cost: float  # sum of plan × distance^p, that is W_p^p
    plan: np.ndarray  # (n, m) weight carried from each point to each
    potential_a: np.ndarray  # (n,) u
    potential_b: np.ndarray  # (m,) v


def transport(
    a: Points,
    b: Points,
    *,
    p: float = 1.0,
    weights_a: ArrayLike | None = None,
    weights_b: ArrayLike | None = None,
) -> Transport:
    """Optimal transport by linear programming, with the dual solution.

    Args:
        a: (n, d).
        b: (m, d).
        p: exponent of the Euclidean distance.
        weights_a: (n,) not negative, scaled to sum 1; equal unless given.
        weights_b: (m,) the same.

    Raises:
        InputError: points of different width, weights that do not fit, p below 1.

    Source:
        Kantorovich's problem, Peyré and Cuturi, Computational Optimal Transport (2019), eq. 2.11;
        the program is solved by HiGHS through scipy.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    x, y = _two(a, b, p)
    n, m = len(x), len(y)
    wa, wb = _weights(weights_a, n), _weights(weights_b, m)
    cost = _apart(x, y).pow(p).numpy()
    # one variable a pair, row-major: n sums over rows, then m sums over columns
    pair = np.arange(n * m)
    rows = np.concatenate([pair // m, n + pair % m])
    sums = coo_array((np.ones(2 * n * m), (rows, np.tile(pair, 2))), shape=(n + m, n * m))
    solved = linprog(cost.ravel(), A_eq=sums.tocsr(), b_eq=np.concatenate([wa, wb]), method="highs")
    if not solved.success:
        raise InputError(f"the transport program has no solution: {solved.message}")
    dual = solved.eqlin.marginals
    return Transport(float(solved.fun), solved.x.reshape(n, m), dual[:n], dual[n:])


def wasserstein(a: Points, b: Points, *, p: float = 1.0) -> float:
    """Exact Wasserstein distance W_p of (n, d) and (m, d) equally weighted points.

    By sorting in one dimension, by assignment for sets of equal size, else by `transport`.
    """
    from scipy.optimize import linear_sum_assignment

    x, y = _two(a, b, p)
    if x.shape[1] == 1:
        return wasserstein_1d(x, y, p=p)
    if len(x) != len(y):
        return transport(x, y, p=p).cost ** (1.0 / p)
    cost = _apart(x, y).pow(p).numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean() ** (1.0 / p))


def wasserstein_1d(a: Points, b: Points, *, p: float = 1.0) -> float:
    """W_p in one dimension: the mean distance^p of the sorted points, or of the quantiles.

    Source: Peyré and Cuturi (2019), remark 2.30.
    """
    x, y = _two(a, b, p)
    if x.shape[1] != 1:
        raise InputError(f"points of width {x.shape[1]}: sorting works in one dimension only")
    return float(_sorted_cost(x, y, p)[0] ** (1.0 / p))


def sliced_wasserstein(
    a: Points, b: Points, *, p: float = 1.0, directions: int = 128, seed: int = 0
) -> float:
    """W_p of the projections on random directions of the sphere, (mean of W_p^p)^(1/p).

    Source: Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures (2015).
    """
    x, y = _two(a, b, p)
    rng = torch.Generator().manual_seed(whole("seed", seed))
    wide = whole("directions", directions, least=1, most=MOST_DIRECTIONS)
    axes = torch.randn(x.shape[1], wide, generator=rng, dtype=torch.float64)
    axes = axes / axes.norm(dim=0)  # (d, directions)
    return float(_sorted_cost(x @ axes, y @ axes, p).mean() ** (1.0 / p))


def _sorted_cost(x: Tensor, y: Tensor, p: float) -> Tensor:
    """(columns,) W_p^p of each column, by the quantile functions."""
    x, y = x.sort(0).values, y.sort(0).values
    n, m = len(x), len(y)
    if n == m:
        return (x - y).abs().pow(p).mean(0)
    # both quantile functions are constant between the multiples of 1/n and of 1/m; counting in
    # units of 1/(n m) keeps the borders exact
    borders = torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]).unique()
    width = borders.diff().double() / (n * m)
    left = borders[:-1]
    return ((x[left // m] - y[left // n]).abs().pow(p) * width[:, None]).sum(0)


def mmd(a: Points, b: Points, *, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel; it can be below zero.

    The bandwidth is sigma of exp(-|x - y|^2 / (2 sigma^2)); unless given, the median distance of
    all points. Values of different bandwidths cannot be compared.

    Source: Gretton et al., A Kernel Two-Sample Test (2012), eq. 3 and section 8.
    """
    x, y = _two(a, b)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise InputError(f"{n} and {m} points: the unbiased estimate needs 2 of each")
    both = torch.cat([x, y])
    square = _apart(both, both).square()
    if bandwidth is None:
        above = torch.triu_indices(n + m, n + m, offset=1)
        bandwidth = float(square[above[0], above[1]].median().sqrt())
    number("bandwidth", bandwidth, **WIDTHS, why="are all points the same?")
    kernel = (-square / (2.0 * bandwidth**2)).exp()
    within_x = (kernel[:n, :n].sum() - n) / (n * (n - 1))  # without the diagonal of ones
    within_y = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_x + within_y - 2.0 * kernel[:n, n:].mean())


def frechet_gaussians(
    mean_a: ArrayLike, covariance_a: ArrayLike, mean_b: ArrayLike, covariance_b: ArrayLike
) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): squared W_2 of two Gaussians.

    Means are (d,), covariances (d, d).

    Source:
        Dowson and Landau, The Fréchet distance between multivariate normal distributions (1982).
    """
    mean = reals("mean_a", mean_a, "d")
    d = len(mean)
    gap = mean - reals("mean_b", mean_b, d)
    ca, cb = reals("covariance_a", covariance_a, d, d), reals("covariance_b", covariance_b, d, d)
    # tr (A B)^(1/2) from the eigenvalues of the symmetric A^(1/2) B A^(1/2): no complex numbers
    values, vectors = np.linalg.eigh(ca)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cb @ root).clip(min=0.0)).sum()
    return float(gap @ gap + np.trace(ca) + np.trace(cb) - 2.0 * shared)


class PrecisionRecall(NamedTuple):
    """How many generated points look real, and how much of the real set is reached."""

    precision: float  # share of generated points within the k-th neighbour ball of a real one
    recall: float  # share of real points within the k-th neighbour ball of a generated one


def precision_recall(real: Points, fake: Points, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall by balls of k nearest neighbours.

    Both depend on the numbers of points: compare only values of equal k, n and m.

    The radius of a point's ball is the distance to its k-th neighbour in its own set; (n, d) real
    and (m, d) generated points, n and m above k.

    Source: Kynkäänniemi et al., Improved Precision and Recall Metric (2019), eq. 1 and 2.
    """
    x, y = _two(real, fake)
    k = whole("k", k, least=1)
    if not k < min(len(x), len(y)):
        raise InputError(f"k={k} with {len(x)} and {len(y)} points: k lies from 1 to n - 1")
    apart = _apart(x, y)  # (n, m)
    # the k-th neighbour's distance; the point itself is the 0-th
    around_x, around_y = (_apart(z, z).kthvalue(k + 1, dim=1).values for z in (x, y))
    in_real = (apart <= around_x[:, None]).any(0)  # (m,)
    in_fake = (apart <= around_y[None, :]).any(1)  # (n,)
    return PrecisionRecall(float(in_real.double().mean()), float(in_fake.double().mean()))


def vendi_score(points: Points, *, bandwidth: float) -> float:
    """The effective number of different points, from 1 to n, by a Gaussian kernel.

    The exponential of the entropy of the eigenvalues of K / n, with K_ij as in `mmd`. Duplicates
    count once, points much further apart than the bandwidth each count fully.

    Source: Friedman and Dieng, TMLR 2023 (arXiv 2210.02410).
    """
    number("bandwidth", bandwidth, **WIDTHS)
    x, _ = _two(points, points)
    kernel = (-_apart(x, x).square() / (2.0 * bandwidth**2)).exp()
    weights = torch.linalg.eigvalsh(kernel).clamp(min=0.0)
    return float(torch.special.entr(weights / weights.sum()).sum().exp())


# ---- parts


def _two(a: Points, b: Points, p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Both sets as (n, d) float64 on the CPU; a power of their distances must be one."""
    number("p", p, least=1, most=100)
    arrays = [reals("points", points) for points in (a, b)]
    x, y = (torch.from_numpy(each) for each in arrays)
    if not (x.numel() and y.numel()) or 0 in (x.ndim, y.ndim) or x[0].numel() != y[0].numel():
        raise InputError(
            f"points of shapes {tuple(x.shape)} and {tuple(y.shape)}: both need at least one point "
            "and the same width"
        )
    if max(np.abs(each).max() for each in arrays) > FARTHEST:
        raise InputError(f"points beyond {FARTHEST:g}: their squares overflow, scale them first")
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def _weights(weights: ArrayLike | None, n: int) -> np.ndarray:
    if weights is None:
        return np.full(n, 1.0 / n)
    array = reals("weights", weights, n)
    if (array < 0).any() or not array.sum() > 0:
        raise InputError(f"weights={shown(array)}: none may be negative, and not all zero")
    return array / array.sum()


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """(n, m) distances; exactly 0 for equal points, which the faster road through mm is not."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
