"""Distances of point sets against closed forms and independent programs."""

import itertools
import math

import numpy as np
import pytest

from imd_helpers.networks import distances
from imd_helpers.runtime import InputError

HERE = "imd_helpers.networks.distances."


def equation(label, *, function):
    return pytest.mark.equation(label, function=HERE + function)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ---- transport


@equation("eq-wgan-sorted", function="wasserstein_1d")
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("sizes", [(6, 6), (6, 4), (1, 5)])
def test_sorting_gives_the_exact_distance(p, sizes, agrees):
    """The linear program over all plans, also for sets of unequal size."""
    a, b = normal(sizes[0]), normal(sizes[1], seed=1) + 1
    expected = distances.transport(a, b, p=p).cost ** (1 / p)
    agrees(distances.wasserstein_1d(a, b, p=p), expected, within=1e-9)


@equation("eq-wgan-sorted", function="wasserstein_1d")
def test_wasserstein_distance_of_two_gaussians(agrees):
    """W2^2 of N(0, 1) and N(m, s^2) is m^2 + (s - 1)^2; 200,000 samples of each."""
    a, b = normal(200_000), 1.5 + 2 * normal(200_000, seed=1)
    agrees(distances.wasserstein_1d(a, b, p=2), math.hypot(1.5, 1.0), within=0.02)


def test_one_dimension_against_scipy():
    from scipy.stats import wasserstein_distance

    a, b = normal(37), 2 * normal(53, seed=1)
    assert distances.wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), abs=1e-12)


@equation("eq-wgan-primal", function="transport")
@pytest.mark.parametrize("p", [1, 2])
def test_the_best_plan_of_equal_sets_is_the_best_permutation(p, agrees):
    """All 120 ways to pair five points with five."""
    a, b = normal(5, 2), normal(5, 2, seed=1)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2) ** p
    best = min(apart[range(5), list(order)].mean() for order in itertools.permutations(range(5)))
    agrees(distances.transport(a, b, p=p).cost, best, within=1e-9)
    agrees(distances.wasserstein(a, b, p=p), best ** (1 / p), within=1e-9)


@equation("eq-wgan-primal", function="transport")
def test_a_plan_carries_everything_and_its_potentials_prove_it_is_best(agrees):
    """Sums of the plan, and the dual value: equal cost with feasible potentials is a proof."""
    a, b = normal(12, 3), normal(9, 3, seed=1) + 1
    wa, wb = np.arange(1, 13), np.ones(9)
    found = distances.transport(a, b, weights_a=wa, weights_b=wb)
    agrees(found.plan.sum(1), wa / wa.sum(), within=1e-9)
    agrees(found.plan.sum(0), wb / 9, within=1e-9)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert (found.plan >= -1e-12).all()
    assert (found.potential_a[:, None] + found.potential_b[None] <= apart + 1e-9).all()
    dual = (wa / wa.sum()) @ found.potential_a + found.potential_b.mean()
    agrees(dual, found.cost, within=1e-9)
    agrees((found.plan * apart).sum(), found.cost, within=1e-9)


@equation("eq-wgan-dual", function="transport")
def test_the_potentials_make_the_best_critic(agrees):
    """Score difference of the critic min_j (|x - b_j| - v_j), of slope 1 between any two points."""
    a, b = normal(15, 2), normal(12, 2, seed=1) + 1
    found = distances.transport(a, b)
    points = np.concatenate([a, b])
    scores = (np.linalg.norm(points[:, None] - b[None], axis=2) - found.potential_b).min(1)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert (np.abs(scores[:, None] - scores[None]) <= apart + 1e-9).all()
    agrees(scores[:15].mean() - scores[15:].mean(), found.cost, within=1e-9)
    agrees(scores[:15], found.potential_a, within=1e-9)


@equation("eq-wgan-sliced", function="sliced_wasserstein")
def test_sliced_distance_of_a_shift(agrees):
    """A shift of length 1 in the plane: the mean of |cos| is 2 / pi; 20,000 directions."""
    a = normal(40, 2)
    found = distances.sliced_wasserstein(a, a + [0.6, 0.8], directions=20_000)
    agrees(found, 2 / math.pi, within=0.01)


@equation("eq-wgan-sliced", function="sliced_wasserstein")
def test_sliced_distance_in_one_dimension_is_the_distance(agrees):
    """Sorting, for sets of unequal size."""
    a, b = normal(30), normal(20, seed=1) + 2
    agrees(distances.sliced_wasserstein(a, b, p=2), distances.wasserstein_1d(a, b, p=2),
           within=1e-9)  # fmt: skip


# ---- kernels


@equation("eq-patho-mmd", function="mmd")
def test_mmd_by_its_definition(agrees):
    """Three double sums in plain Python, the diagonal left out."""
    a, b, sigma = normal(7, 2), normal(5, 2, seed=1) + 1, 0.8

    def k(x, y):
        return math.exp(-np.sum((x - y) ** 2) / (2 * sigma**2))

    def within(z):
        pairs = list(itertools.permutations(range(len(z)), 2))
        return sum(k(z[i], z[j]) for i, j in pairs) / len(pairs)

    across = sum(k(x, y) for x in a for y in b) / 35
    found = distances.mmd(a, b, bandwidth=sigma)
    agrees(found, within(a) + within(b) - 2 * across, within=1e-12)


@equation("eq-patho-mmd", function="mmd")
def test_mmd_of_two_gaussians(agrees):
    """Closed form for N(0, 1) and N(m, 1): 2 s / r (1 - exp(-m^2 / 2 r^2)), r^2 = s^2 + 2; 2,000 points."""  # noqa: E501
    sigma, shift = 1.0, 1.0
    wide = math.sqrt(sigma**2 + 2)
    expected = 2 * sigma / wide * (1 - math.exp(-(shift**2) / (2 * wide**2)))
    found = distances.mmd(normal(2000), normal(2000, seed=1) + shift, bandwidth=sigma)
    agrees(found, expected, within=0.02)


def test_mmd_is_unbiased_and_so_sometimes_negative():
    values = [
        distances.mmd(normal(30, 2, seed=2 * i), normal(30, 2, seed=2 * i + 1)) for i in range(60)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(60)
    assert min(values) < 0 < max(values)


def test_the_bandwidth_is_the_median_distance():
    a, b = normal(20, 2), normal(30, 2, seed=1)
    both = np.concatenate([a, b])
    apart = np.linalg.norm(both[:, None] - both[None], axis=2)[np.triu_indices(50, 1)]
    sigma = float(np.sort(apart)[(len(apart) - 1) // 2])
    assert distances.mmd(a, b) == pytest.approx(distances.mmd(a, b, bandwidth=sigma))


# ---- Gaussians


@equation("eq-patho-frechet", function="frechet_gaussians")
def test_frechet_distance_of_round_and_of_diagonal_gaussians(agrees):
    """|m|^2 + sum (s_i - t_i)^2 for diagonal covariances."""
    mean, s, t = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    found = distances.frechet_gaussians(mean, np.diag(s**2), np.zeros(3), np.diag(t**2))
    agrees(found, mean @ mean + ((s - t) ** 2).sum(), within=1e-12)


@equation("eq-patho-frechet", function="frechet_gaussians")
def test_frechet_distance_against_scipys_matrix_root(agrees):
    """The formula with scipy.linalg.sqrtm for full covariances."""
    from scipy.linalg import sqrtm

    a, b = normal(4, 4), normal(4, 4, seed=1)
    ca, cb, gap = a @ a.T, b @ b.T, normal(4, seed=2)
    expected = gap @ gap + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    agrees(distances.frechet_gaussians(gap, ca, np.zeros(4), cb), expected, within=1e-8)


# ---- neighbours


def square_grid():
    return np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)


@equation("eq-patho-precision", function="precision_recall")
def test_precision_counts_generated_points_near_real_ones(agrees):
    """Points on a unit grid have balls of radius 1: 30 inside, 10 of 40 far away."""
    real = square_grid()
    fake = np.concatenate([real[:30] + 0.4, real[:10] + 100])
    found = distances.precision_recall(real, fake, k=2)
    agrees(found.precision, 30 / 40, within=1e-12)


@equation("eq-patho-recall", function="precision_recall")
def test_recall_counts_real_points_near_generated_ones(agrees):
    """A generator that makes one half of the grid, slightly moved, reaches that half."""
    real = square_grid()
    fake = real[real[:, 0] < 5] + [0.01, 0.0]  # its balls have radius 1: 50 points, and column 5
    found = distances.precision_recall(real, fake, k=2)
    agrees(found.recall, 0.6, within=1e-12)
    assert found.precision == 1.0


@equation("eq-patho-recall", function="precision_recall")
def test_a_collapsed_generator_has_precision_and_no_recall(agrees):
    """300 copies of one real point: balls of radius 0."""
    real = normal(200, 2)
    found = distances.precision_recall(real, np.repeat(real[:1], 300, 0))
    assert found.precision == 1.0
    agrees(found.recall, 1 / 200, within=1e-12)


def test_precision_and_recall_by_plain_loops_and_exchanged():
    real, fake, k = normal(40, 3), normal(30, 3, seed=1) + 0.5, 3

    def covered(points, centres):
        hits = 0
        for x in points:
            for c in centres:
                others = sorted(np.linalg.norm(c - o) for o in centres)
                if np.linalg.norm(x - c) <= others[k]:
                    hits += 1
                    break
        return hits / len(points)

    found = distances.precision_recall(real, fake, k=k)
    assert found.precision == pytest.approx(covered(fake, real))
    assert found.recall == pytest.approx(covered(real, fake))
    back = distances.precision_recall(fake, real, k=k)
    assert (back.precision, back.recall) == (found.recall, found.precision)


def test_the_same_distribution_is_precise_and_covered():
    found = distances.precision_recall(normal(800, 2), normal(800, 2, seed=1))
    assert found.precision > 0.9
    assert found.recall > 0.9


# ---- what is refused


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: distances.wasserstein(normal(4, 2), normal(4, 3)), "the same width"),
        (lambda: distances.wasserstein(normal(4, 2), normal(0, 2)), "at least one point"),
        (lambda: distances.wasserstein(normal(4, 2), np.full((4, 2), np.nan)), "NaN"),
        (lambda: distances.wasserstein(normal(4, 2), normal(4, 2), p=0.5), "p=0.5"),
        (lambda: distances.wasserstein_1d(normal(4, 2), normal(4, 2)), "one dimension"),
        (lambda: distances.transport(normal(4), normal(4), weights_a=[1, 2]), r"it must be \(4\)"),
        (lambda: distances.mmd(normal(1), normal(4)), "needs 2"),
        (lambda: distances.mmd(np.zeros((4, 2)), np.zeros((4, 2))), "all points the same"),
        (lambda: distances.precision_recall(normal(3), normal(9), k=3), "k=3 with 3 and 9"),
    ],
)
def test_bad_points_are_refused_in_words(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_vendi_score_by_hand():
    far = 1e3 * np.eye(7)
    assert distances.vendi_score(np.ones((7, 2)), bandwidth=1.0) == pytest.approx(1)
    assert distances.vendi_score(far, bandwidth=1.0) == pytest.approx(7)
    assert distances.vendi_score(np.repeat(far[:3], 4, 0), bandwidth=1.0) == pytest.approx(3)
    # two points of similarity s: eigenvalues (1 + s) / 2 and (1 - s) / 2
    share = (1 + np.exp(-(1.3**2) / 2)) / 2
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    found = distances.vendi_score(np.array([0.0, 2.6]), bandwidth=2.0)
    assert found == pytest.approx(np.exp(entropy))
