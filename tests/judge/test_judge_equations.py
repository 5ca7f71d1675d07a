"""Numbered equations of the chapter on metrics, as the package computes them."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from imd_helpers.crystals import CrystalBatch, geometry
from imd_helpers.descriptors import amd
from imd_helpers.descriptors.fingerprints import Features
from imd_helpers.judge import distributions
from imd_helpers.judge.charge import charge_neutral, oxidation_table
from imd_helpers.matching import same

SKEW = np.array([[4.1, 0.0, 0.0], [1.7, 3.6, 0.0], [-0.4, 1.9, 4.2]])  # Å
FRAC = np.array([[0.1, 0.2, 0.3], [0.6, 0.55, 0.8], [0.85, 0.05, 0.5]])
CRYSTAL = CrystalBatch.from_ragged(SKEW[None], FRAC, [8, 22, 8], [3])


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


def distances_of(frac, lattice, reach=4):
    """(sites, all others and images) distances, each row sorted, by a loop over shifts, Å."""
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))
    apart = frac[None, :, None] - frac[:, None, None] + shifts  # (sites, sites, shifts, 3)
    found = np.linalg.norm(apart @ lattice, axis=-1).reshape(len(frac), -1)
    return np.sort(found, axis=1)[:, 1:]  # without the site itself


@verifies("eq-metrics-distance", "crystals.geometry.closest_contact")
def test_the_closest_contact_among_all_images(agrees):
    """The smallest of all distances to 9 x 9 x 9 cells, in a skew cell."""
    agrees(geometry.closest_contact(CRYSTAL)[0], distances_of(FRAC, SKEW).min(), within=1e-9)
    alone = CrystalBatch.from_ragged(SKEW[None], FRAC[:1], [8], [1])  # only its own images
    agrees(geometry.closest_contact(alone)[0], distances_of(FRAC[:1], SKEW).min(), within=1e-9)


@verifies("eq-metrics-neutral", "judge.charge.charge_neutral")
def test_all_choices_of_oxidation_states(agrees):
    """All combinations of the states in smact's table, for 300 formulas of 2 or 3 elements."""
    table, rng = oxidation_table("smact14"), np.random.default_rng(0)
    usable = np.flatnonzero((table.n_states > 0) & (table.rank >= 0))
    counts = np.zeros((300, 119), dtype=int)
    for row in counts:
        some = rng.choice(usable, rng.integers(2, 4), replace=False)
        row[some] = rng.integers(1, 5, len(some))

    def balanced(row):
        z = np.flatnonzero(row)
        for states in itertools.product(*(table.states[k][: table.n_states[k]] for k in z)):
            q = np.array(states)
            chi, cation = table.rank[z], q > 0
            if q @ row[z] == 0 and chi[cation].max() < chi[~cation].min():
                return True
        return False

    found = charge_neutral(counts, oxidation_states="smact14", alloys=False)
    expected = [balanced(row) for row in counts]
    assert 30 < sum(expected) < 270
    agrees(found, expected, within=1e-12)


@verifies("eq-metrics-unique", "matching.same.unique")
def test_the_uniqueness_of_copies_drawn_with_known_chances(agrees):
    """1/n sum of 1 - (1 - p)^n over six crystals; mean of 400 sets of n = 8."""
    edges = np.array([3.0, 3.6, 4.3, 5.2, 6.2, 7.5])[:, None, None] * np.eye(3)
    frac, kinds = [[0.0] * 3, [0.5] * 3] * 6, [11, 17, 19, 35, 3, 9, 55, 53, 37, 35, 12, 8]
    six = CrystalBatch.from_ragged(edges, frac, kinds, [2] * 6)
    p, n = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]), 8
    rng = np.random.default_rng(0)
    shares = [same.unique(six[rng.choice(6, n, p=p)]).mean() for _ in range(400)]
    agrees(np.mean(shares), (1 - (1 - p) ** n).sum() / n, within=0.02)


@verifies("eq-metrics-amd", "descriptors.amd.average_minimum_distances")
def test_mean_distances_to_the_nearest_neighbours(agrees):
    """Means of the sorted distances of three sites to all images, in a skew cell."""
    expected = distances_of(FRAC, SKEW)[:, :20].mean(0)
    agrees(amd.average_minimum_distances(CRYSTAL, k=20)[0], expected, within=1e-9)


@verifies("eq-metrics-amd", "matching.same.structure_distance")
def test_the_distance_of_two_crystals_is_their_largest_difference(agrees):
    """A cubic crystal and the same 2 % longer: 2 % of the largest of 100 mean distances."""
    one, longer = (
        CrystalBatch.from_ragged(a * np.eye(3)[None], [[0, 0, 0]], [84], [1]) for a in (3.0, 3.06)
    )
    farthest = distances_of(np.zeros((1, 3)), 3 * np.eye(3))[0, 99]
    agrees(same.structure_distance(one, longer)[0], 0.02 * farthest, within=1e-9)


def points(values):
    rows = np.asarray(values, dtype=float).reshape(len(values), -1)
    return Features("test", rows, {"space": "test"}, {})


@verifies("eq-metrics-wasserstein", "judge.distributions.of_values")
def test_the_area_between_two_quantile_functions(agrees):
    """A sum over 600,000 quantiles of sets of 30 and 40 values."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=30), 1 + 2 * rng.normal(size=40)
    u = (np.arange(600_000) + 0.5) / 600_000
    inverse = [np.sort(x)[(u * len(x)).astype(int)] for x in (one, two)]
    found = distributions.of_values(points(one), points(two), resamples=2).value
    agrees(found, np.abs(inverse[0] - inverse[1]).mean(), within=1e-4)


@verifies("eq-metrics-coverage", "judge.distributions.coverage")
def test_coverage_counts_pairs_within_the_radius(agrees):
    """All distances of 50 samples and 70 references in four dimensions, counted by hand."""
    rng = np.random.default_rng(0)
    made, known = rng.normal(size=(50, 4)), 0.5 + rng.normal(size=(70, 4))
    sets = (distributions.Fingerprints(points(x), points(np.zeros(len(x)))) for x in (made, known))
    found = distributions.coverage(*sets, cutoffs=(1.2, 1.0))
    near = cdist(made, known) <= 1.2
    agrees(found["precision"].value, near.any(1).mean(), within=1e-12)
    agrees(found["recall"].value, near.any(0).mean(), within=1e-12)
