"""Every loss against a closed form, its sign and its gradient."""

import numpy as np
import pytest
import torch

from imd_helpers.networks import losses
from imd_helpers.runtime import UnknownNameError


def linear_critic(weights):
    return lambda x: x.flatten(1) @ weights


@pytest.fixture
def points():
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(64, 3, 4, generator=rng, dtype=torch.float64)
    return real, real + 2 * torch.randn(64, 3, 4, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("mixing", losses.MIXINGS)
def test_penalty_of_a_linear_critic_is_its_closed_form(points, norm, mixing):
    weights = torch.full((12,), norm / np.sqrt(12), dtype=torch.float64)
    value = losses.gradient_penalty(linear_critic(weights), *points, mixing=mixing)
    assert float(value) == pytest.approx((norm - 1) ** 2, abs=1e-12)


def test_penalty_reaches_the_critics_weights(points):
    weights = torch.full((12,), 0.7, dtype=torch.float64, requires_grad=True)
    losses.gradient_penalty(linear_critic(weights), *points).backward()
    norm = float(weights.detach().norm())
    expected = 2 * (norm - 1) * weights.detach() / norm
    torch.testing.assert_close(weights.grad, expected)


def test_penalty_of_a_quadratic_critic_against_finite_differences(points):
    def value(scale):
        torch.manual_seed(1)
        return losses.gradient_penalty(lambda x: scale * x.flatten(1).square().sum(1), *points)

    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value(scale).backward()
    step = 1e-6
    numeric = (value(scale.detach() + step) - value(scale.detach() - step)) / (2 * step)
    assert float(scale.grad) == pytest.approx(float(numeric.detach()), rel=1e-6)


def test_critic_gains_by_scoring_real_samples_higher():
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 0.0])
    assert float(losses.critic_loss(real, fake)) == pytest.approx(0.5 - 3.0)
    assert losses.critic_loss(real + 1, fake) < losses.critic_loss(real, fake)


def test_generator_gains_by_higher_scores():
    fake = torch.tensor([1.0, 3.0])
    assert float(losses.generator_loss(fake)) == -2.0
    assert losses.generator_loss(fake + 1) < losses.generator_loss(fake)


def test_best_critic_measures_the_wasserstein_distance_of_two_gaussians():
    """For a shift, W1 is the shift, and a unit slope along it reaches it."""
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(20_000, 1, generator=rng)
    fake = torch.randn(20_000, 1, generator=rng) - 1.5
    distance = -losses.critic_loss(real, fake)  # the critic f(x) = x has slope 1
    assert float(distance) == pytest.approx(1.5, abs=0.03)


def test_uniform_mixing_stays_on_the_segment_and_normal_mixing_leaves_it():
    real, fake = torch.zeros(4000, 2), torch.ones(4000, 2)
    torch.manual_seed(0)
    uniform = losses.mix(real, fake)
    normal = losses.mix(real, fake, mixing="normal")
    assert ((uniform >= 0) & (uniform <= 1)).all()
    assert (uniform[:, 0] == uniform[:, 1]).all()  # one weight a sample, not one a number
    outside = ((normal < 0) | (normal > 1)).any(1).double().mean()
    assert float(outside) == pytest.approx(0.5 + 0.1587, abs=0.03)  # P(z < 0) + P(z > 1)


def test_unknown_mixing_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="uniform, normal"):
        losses.mix(torch.zeros(1, 1), torch.zeros(1, 1), mixing="unifrm")
