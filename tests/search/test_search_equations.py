"""The numbered equations of global optimisation, against what is known without them."""

import numpy as np
import pytest

from imd_helpers.search import optimisers


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.search.{function}")


@verifies("eq-globalopt-metropolis", "optimisers.metropolis")
def test_the_rule_of_metropolis_keeps_boltzmann_weights(agrees):
    """Flows between four levels, weighted by exp(-E/T), are equal in both directions."""
    level, temperature = np.array([-1.0, -0.7, 0.2, 3.0]), 0.4
    weight = np.exp(-level / temperature)
    accept = [[optimisers.metropolis(b - a, temperature) for b in level] for a in level]
    flow = weight[:, None] * np.array(accept)
    agrees(flow, flow.T, within=1e-12)


@verifies("eq-globalopt-cooling", "optimisers.cooled")
def test_cooling_divides_by_the_same_factor_in_equal_times(agrees):
    """From 5 to 0.005 in six equal steps, each by the sixth root of 1,000."""
    found = [optimisers.cooled(k / 6, 5.0, 0.005) for k in range(7)]
    agrees(found, 5.0 / np.power(1000 ** (1 / 6), np.arange(7)), within=1e-12)


@verifies("eq-globalopt-velocity", "optimisers.velocity")
def test_steps_of_a_swarm_in_plain_loops(agrees):
    """Loops over particles and dimensions."""
    rng = np.random.default_rng(0)
    before, own, swarm = rng.normal(size=(3, 5, 2))
    draws = rng.random((2, 5, 2))
    expected = [
        [0.73 * before[i, j] + 1.5 * draws[0, i, j] * own[i, j] + 1.5 * draws[1, i, j] * swarm[i, j]
         for j in range(2)]
        for i in range(5)
    ]  # fmt: skip
    found = optimisers.velocity(before, own, swarm, draws)
    agrees(found, expected, within=1e-12)


@verifies("eq-globalopt-improvement", "optimisers.expected_improvement")
def test_expected_improvement_is_an_integral(agrees):
    """The improvement over the best, weighted with the normal density, on a fine grid."""
    mean, deviation, best = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 0.3]), -0.4
    y = np.linspace(-12, 12, 480_001)
    density = np.exp(-(((y - mean[:, None]) / deviation[:, None]) ** 2) / 2)
    density /= deviation[:, None] * np.sqrt(2 * np.pi)
    area = (np.maximum(best - y, 0) * density).sum(1) * (y[1] - y[0])
    agrees(optimisers.expected_improvement(mean, deviation, best), area, within=1e-7)
