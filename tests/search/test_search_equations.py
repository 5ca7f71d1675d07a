"""The numbered equations of the chapter on inverse design, against what is known without them."""

import itertools

import numpy as np
import pytest

from imd_helpers.search.evolution import tournament_probability
from imd_helpers.search.oracle import Target, enrichment, predictive_value, target_distance


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.search.{function}")


@verifies("eq-inverse-distance", "oracle.target_distance")
def test_the_distance_is_the_factor_by_which_both_windows_must_grow(agrees):
    """The smallest factor on both windows that lets the crystal in, found by bisection."""
    values = np.random.default_rng(0).normal((6.2, -0.3), (0.4, 0.5), (50, 2))
    low, high = np.zeros(50), np.full(50, 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        wide = np.abs(values - (6.2, -0.3)) <= middle[:, None] * (0.1, 0.2)
        inside = wide.all(1)
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    target = Target(length=6.2, energy=-0.3, length_window=0.1, energy_window=0.2)
    agrees(target_distance(values, target), high, within=1e-9)


@verifies("eq-inverse-enrichment", "oracle.enrichment")
def test_enrichment_is_the_ratio_of_calls_a_hit_costs(agrees):
    """Calls that a hit costs at random, over those that it costs the search."""
    agrees(enrichment(20, 100, 10, 500), (500 / 10) / (100 / 20), within=1e-12)


@verifies("eq-inverse-tournament", "evolution.tournament_probability")
@pytest.mark.parametrize(("population", "size"), [(4, 2), (5, 3), (3, 4)])
def test_tournament_against_all_draws(agrees, population, size):
    """All draws with replacement, listed and counted."""
    draws = list(itertools.product(range(population), repeat=size))
    counted = np.bincount([min(draw) for draw in draws], minlength=population) / len(draws)
    agrees(tournament_probability(population, size), counted, within=1e-12)


@verifies("eq-inverse-precision", "oracle.predictive_value")
def test_predicted_hits_against_a_table_of_counts(agrees):
    """A population of 10,000 with 200 hits, of which 160 are called, and 294 false alarms."""
    agrees(predictive_value(0.02, 160 / 200, 294 / 9800), 160 / (160 + 294), within=1e-12)
