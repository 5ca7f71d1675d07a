"""Every loss against a closed form, its sign and its gradient."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from imd_helpers.networks import losses
from imd_helpers.runtime import InputError, UnknownNameError

HERE = "imd_helpers.networks.losses."


def equation(*labels, function):
    return pytest.mark.equation(*labels, function=HERE + function)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_of(function, at):
    """Derivative of a scalar function by central differences."""
    step = 1e-5
    out = torch.zeros_like(at)
    for i in range(at.numel()):
        moved = at.clone().flatten()
        moved[i] += step
        above = function(moved.view_as(at))
        moved[i] -= 2 * step
        out.view(-1)[i] = (above - function(moved.view_as(at))) / (2 * step)
    return out


# ---- classification


@pytest.mark.equation(
    "eq-gan-minimax", "eq-cgan-minimax", function=HERE + "minimax_discriminator_loss"
)
def test_the_discriminators_loss_is_minus_the_value_of_the_game(agrees):
    """The value written with probabilities, log D and log(1 - D)."""
    real, fake = normal(50), normal(40, seed=1)
    value = real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()
    agrees(-losses.minimax_discriminator_loss(real, fake), value, within=1e-12)
    agrees(
        losses.minimax_discriminator_loss(torch.zeros(3), torch.zeros(5)),
        2 * math.log(2),
        within=1e-6,
    )


def test_a_discriminator_gains_by_telling_apart():
    for name in ("minimax", "non_saturating", "wasserstein", "relativistic"):
        loss = losses.PAIRS[name].critic
        even = loss(torch.zeros(4), torch.zeros(4))
        assert loss(torch.full((4,), 0.5), torch.full((4,), -0.5)) < even, name
        assert loss(torch.full((4,), -0.5), torch.full((4,), 0.5)) > even, name


def test_a_least_squares_discriminator_gains_towards_its_labels():
    loss = losses.PAIRS["least_squares"].critic
    right = loss(torch.full((4,), 0.9), torch.full((4,), 0.1))
    assert right < loss(torch.full((4,), 0.5), torch.full((4,), 0.5))
    assert right < loss(torch.full((4,), 0.1), torch.full((4,), 0.9))


@pytest.mark.parametrize("name", losses.PAIRS)
def test_every_generator_gains_by_scoring_as_real(name):
    real, fake = normal(8), normal(8, seed=1).clamp(-0.9, 0.9).requires_grad_()
    (slope,) = torch.autograd.grad(losses.PAIRS[name].generator(real, fake), fake)
    assert (slope < 0).all(), "a higher score must lower the generator's loss"


@pytest.mark.parametrize("name", losses.PAIRS)
def test_losses_do_not_depend_on_the_shape_of_the_scores(name):
    real, fake = normal(8), normal(8, seed=1)
    for loss in (losses.PAIRS[name].critic, losses.PAIRS[name].generator):
        torch.testing.assert_close(loss(real, fake), loss(real[:, None], fake[:, None]))


@pytest.mark.parametrize("name", losses.PAIRS)
def test_slopes_of_the_losses_against_finite_differences(name):
    real, fake = normal(5), normal(5, seed=1)
    for loss in (losses.PAIRS[name].critic, losses.PAIRS[name].generator):
        for vary in (lambda x: loss(x, fake), lambda x: loss(real, x)):
            point = real.clone().requires_grad_()
            value = vary(point) + 0.0 * point.sum()  # most generators' losses need no real scores
            (slope,) = torch.autograd.grad(value, point)
            torch.testing.assert_close(slope, slope_of(vary, real), atol=1e-8, rtol=1e-6)


@equation("eq-gan-saturating", function="saturating_generator_loss")
def test_the_saturating_loss_and_its_slope(agrees):
    """The loss with probabilities, and its slope by a logit, -D."""
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    agrees(losses.saturating_generator_loss(logits), (1 - logits.sigmoid()).log().mean(),
           within=1e-10)  # fmt: skip
    for logit in logits:
        point = logit.clone().requires_grad_()
        (slope,) = torch.autograd.grad(losses.saturating_generator_loss(point), point)
        agrees(slope, -logit.sigmoid(), within=1e-12)


@equation("eq-gan-nonsaturating", function="non_saturating_generator_loss")
def test_the_non_saturating_loss_and_its_slope(agrees):
    """The loss with probabilities, and its slope by a logit, -(1 - D)."""
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    agrees(losses.non_saturating_generator_loss(logits), -logits.sigmoid().log().mean(),
           within=1e-12)  # fmt: skip
    for logit in logits:
        point = logit.clone().requires_grad_()
        (slope,) = torch.autograd.grad(losses.non_saturating_generator_loss(point), point)
        agrees(slope, logit.sigmoid() - 1, within=1e-12)


def test_sure_logits_stay_finite():
    """With log(sigmoid) written out, float32 gives infinity at -200."""
    sure = torch.tensor([-200.0, 200.0])
    for name in losses.PAIRS:
        pair = losses.PAIRS[name]
        assert torch.isfinite(pair.critic(sure, sure.flip(0)))
        assert torch.isfinite(pair.generator(sure, sure.flip(0)))


@pytest.mark.equation("eq-patho-lsgan", function=HERE + "least_squares_discriminator_loss")
def test_least_squares_against_its_closed_form(agrees):
    """The best constant output for real and generated samples that are alike is 1/2."""
    real, fake = torch.tensor([1.5, 0.5]), torch.tensor([0.5, -1.0])
    agrees(losses.least_squares_discriminator_loss(real, fake), 0.5 * (0.25 + 0.625), within=1e-7)
    for output in np.linspace(-1, 2, 31):
        same = torch.full((4,), output, dtype=torch.float64)
        found = losses.least_squares_discriminator_loss(same, same)
        agrees(found, (output - 0.5) ** 2 + 0.25, within=1e-12)


@equation("eq-patho-lsgan", function="least_squares_generator_loss")
def test_the_least_squares_generator_wants_ones(agrees):
    """Half the mean square distance from 1, by hand."""
    found = losses.least_squares_generator_loss(torch.tensor([1.0, 3.0, 0.0]))
    agrees(found, 0.5 * 5 / 3, within=1e-6)


@equation("eq-patho-relativistic", function="relativistic_discriminator_loss")
def test_the_relativistic_loss_sees_differences_alone(agrees):
    """-log of the probability that the real sample of a pair scores higher (Bradley-Terry)."""
    real, fake = normal(20), normal(20, seed=1)
    chance = real.exp() / (real.exp() + fake.exp())
    agrees(losses.relativistic_discriminator_loss(real, fake), -chance.log().mean(), within=1e-12)
    shifted = losses.relativistic_discriminator_loss(real + 3, fake + 3)
    agrees(shifted, losses.relativistic_discriminator_loss(real, fake), within=1e-12)


@equation("eq-patho-relativistic", function="relativistic_generator_loss")
def test_the_relativistic_generator_plays_the_discriminators_game_backwards(agrees):
    """The discriminator's loss with real and generated samples exchanged."""
    real, fake = normal(20), normal(20, seed=1)
    swapped = losses.relativistic_discriminator_loss(fake, real)
    agrees(losses.relativistic_generator_loss(real, fake), swapped, within=1e-12)


def test_a_relativistic_loss_refuses_to_broadcast():
    with pytest.raises(InputError, match=r"\(4, 1\).*\(4,\)"):
        losses.relativistic_discriminator_loss(torch.zeros(4, 1), torch.zeros(4))


# ---- what the best players reach


def two_densities(x):
    """A normal density and a mixture."""
    p = torch.exp(-0.5 * (x - 0.5) ** 2) / math.sqrt(2 * math.pi)
    q = 0.5 * (
        torch.exp(-0.5 * ((x + 1) / 0.7) ** 2) / 0.7 + torch.exp(-0.5 * (x - 2) ** 2)
    ) / math.sqrt(2 * math.pi)  # fmt: skip
    return p, q


@equation("eq-gan-optimal", function="optimal_discriminator")
def test_no_discriminator_beats_the_density_ratio(agrees):
    """Newton's method on the discriminator's loss, at each point of a grid of two densities."""
    p, q = two_densities(torch.linspace(-4, 5, 200, dtype=torch.float64))
    logit = torch.zeros_like(p)
    for _ in range(60):  # minimise -p log D - q log(1 - D), convex in the logit
        probability = logit.sigmoid()
        curvature = ((p + q) * probability * (1 - probability)).clamp(min=1e-300)
        logit = logit - (((p + q) * probability - p) / curvature).clamp(-1, 1)
    agrees(losses.optimal_discriminator(p, q), logit.sigmoid(), within=1e-12)
    agrees(losses.optimal_discriminator(p, p), 0.5, within=1e-12)


@equation("eq-gan-ratio", function="density_ratio")
def test_the_best_logit_is_the_logarithm_of_the_density_ratio(agrees):
    """p / q from the logit of the best discriminator of two known densities."""
    p, q = two_densities(torch.linspace(-3, 3, 100, dtype=torch.float64))
    logits = losses.optimal_discriminator(p, q).logit()
    agrees(losses.density_ratio(logits), p / q, within=1e-12, relative=True)


def test_a_trained_discriminator_measures_the_density_ratio():
    """Two Gaussians a unit apart: the log ratio is a straight line, which is learnt."""
    real, fake = normal(20_000) + 1.0, normal(20_000, seed=1)
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = losses.minimax_discriminator_loss(
            weights[0] * real + weights[1], weights[0] * fake + weights[1]
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert weights.tolist() == pytest.approx([1.0, -0.5], abs=0.03)  # log p/q = x - 1/2


@equation("eq-gan-jsd", function="jensen_shannon")
def test_the_best_discriminators_value_is_the_jensen_shannon_divergence(agrees):
    """The value of the best discriminator of two discrete distributions, 2 JSD - 2 log 2."""
    for seed in range(5):
        p, q = normal(2, 12, seed=seed).softmax(-1)
        best = losses.optimal_discriminator(p, q)
        value = (p * best.log()).sum() + (q * (1 - best).log()).sum()
        agrees(2 * losses.jensen_shannon(p, q) - 2 * math.log(2), value, within=1e-12)


@equation("eq-gan-jsd", function="jensen_shannon")
def test_the_jensen_shannon_divergence_lies_between_0_and_log_2(agrees):
    """0 for equal distributions, log 2 for distributions that share nothing."""
    p, apart = torch.tensor([0.2, 0.8, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.5, 0.5])
    agrees(losses.jensen_shannon(p, p), 0.0, within=1e-7)
    agrees(losses.jensen_shannon(p, apart), math.log(2), within=1e-6)


def test_kl_divergence_by_hand_and_by_torch():
    p, q = normal(2, 6).softmax(-1)
    expected = functional.kl_div(q.log(), p, reduction="sum")
    torch.testing.assert_close(losses.kl_divergence(p, q), expected)
    zero = torch.tensor([0.0, 1.0])
    assert float(losses.kl_divergence(zero, torch.tensor([0.5, 0.5]))) == pytest.approx(math.log(2))


# ---- Wasserstein


@equation("eq-wgan-dual", function="critic_loss")
def test_best_critic_measures_the_wasserstein_distance_of_two_gaussians(agrees):
    """W1 of two Gaussians that differ by a shift is the shift; 20,000 samples of each."""
    real, fake = normal(20_000), normal(20_000, seed=1) - 1.5
    agrees(-losses.critic_loss(real, fake), 1.5, within=0.03)  # the critic f(x) = x has slope 1


@equation("eq-wgan-dual", function="critic_loss")
def test_no_critic_of_slope_one_beats_the_exact_distance(agrees):
    """Best of 200 random critics of slope 1 never above, sorted samples' distance by scipy."""
    from scipy.stats import wasserstein_distance

    real, fake = normal(300).abs(), normal(300, seed=1)
    exact = wasserstein_distance(real.numpy(), fake.numpy())
    both, index = torch.cat([real, fake]).sort()
    slopes = normal(200, len(both), seed=2).clamp(-1, 1)[:, 1:] * both.diff()
    scores = torch.zeros(200, len(both), dtype=torch.float64)
    scores[:, index] = functional.pad(slopes.cumsum(1), (1, 0))
    found = [-losses.critic_loss(s[:300], s[300:]) for s in scores]
    assert max(found) <= exact
    # the best of all follows the sign of the difference of the distribution functions
    sign = torch.where(index < 300, 1.0, -1.0).double().cumsum(0).sign()[:-1]
    best = torch.zeros(len(both), dtype=torch.float64)
    best[index] = functional.pad((-sign * both.diff()).cumsum(0), (1, 0))
    agrees(-losses.critic_loss(best[:300], best[300:]), exact, within=1e-12)


def test_critic_gains_by_scoring_real_samples_higher():
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([1.0, 0.0])
    assert float(losses.critic_loss(real, fake)) == pytest.approx(0.5 - 3.0)
    assert losses.critic_loss(real + 1, fake) < losses.critic_loss(real, fake)


@equation("eq-wgan-generator", "eq-cubicgan-generator", function="generator_loss")
def test_generator_gains_by_higher_scores(agrees):
    """Minus the mean of three scores, and its slope -1/3."""
    fake = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    agrees(losses.generator_loss(fake), -3.0, within=1e-6)
    (slope,) = torch.autograd.grad(losses.generator_loss(fake), fake)
    agrees(slope, torch.full((3,), -1 / 3), within=1e-6)


# ---- what keeps a critic smooth


def linear_critic(weights):
    return lambda x: x.flatten(1) @ weights


@pytest.fixture
def points():
    real = normal(64, 3, 4)
    return real, real + 2 * normal(64, 3, 4, seed=1)


@equation("eq-wgan-penalty", "eq-cubicgan-penalty", function="gradient_penalty")
@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("mixing", losses.MIXINGS)
def test_penalty_of_a_linear_critic_is_its_closed_form(points, norm, mixing, agrees):
    """Penalty of a linear critic: (|w| - 1)^2 at any point."""
    weights = torch.full((12,), norm / np.sqrt(12), dtype=torch.float64)
    value = losses.gradient_penalty(linear_critic(weights), *points, mixing=mixing)
    agrees(value, (norm - 1) ** 2, within=1e-12)


@equation("eq-wgan-penalty", "eq-cubicgan-penalty", function="gradient_penalty")
def test_penalty_reaches_the_critics_weights(points, agrees):
    """Its slope by the weights of a linear critic, 2 (|w| - 1) w / |w|."""
    weights = torch.full((12,), 0.7, dtype=torch.float64, requires_grad=True)
    losses.gradient_penalty(linear_critic(weights), *points).backward()
    norm = float(weights.detach().norm())
    agrees(weights.grad, 2 * (norm - 1) * weights.detach() / norm, within=1e-12)


@equation("eq-wgan-penalty", "eq-cubicgan-penalty", function="gradient_penalty")
def test_penalty_of_a_curved_critic_against_finite_differences(points, agrees):
    """Its slope by a weight of a quadratic critic, by central differences."""

    def value(scale):
        torch.manual_seed(1)
        return losses.gradient_penalty(lambda x: scale * x.flatten(1).square().sum(1), *points)

    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value(scale).backward()
    step = 1e-6
    numeric = (value(scale.detach() + step) - value(scale.detach() - step)) / (2 * step)
    agrees(scale.grad, numeric, within=1e-6, relative=True)


@equation("eq-wgan-penalty", "eq-cubicgan-penalty", function="gradient_penalty")
def test_penalty_of_a_curved_critic_is_the_mean_over_samples(points, agrees):
    """f(x) = a |x|^2 / 2 has slope a x, another one at each of the mixed points."""
    torch.manual_seed(1)
    found = losses.gradient_penalty(lambda x: 0.3 * x.flatten(1).square().sum(1) / 2, *points)
    torch.manual_seed(1)
    mixed = losses.mix(*points).flatten(1)
    agrees(found, ((0.3 * mixed.norm(dim=1) - 1) ** 2).mean(), within=1e-12)


def test_the_norm_is_of_a_sample_not_of_a_row_or_the_batch(points):
    """A norm over rows, or over the batch, is a published error; both give another number."""
    weights = normal(12, seed=3)
    found = losses.gradient_penalty(linear_critic(weights), *points)
    by_row = (weights.view(3, 4).norm(dim=1) - 1).square().mean()
    assert float(found) == pytest.approx(float((weights.norm() - 1) ** 2))
    assert abs(float(found) - float(by_row)) > 0.1


def test_a_penalty_sends_no_gradient_to_the_generator(points):
    real, fake = points[0], points[1].clone().requires_grad_()
    weights = torch.full((12,), 0.7, dtype=torch.float64, requires_grad=True)

    def critic(x):  # curved, so that its slope depends on where it is taken
        return x.flatten(1).square() @ weights

    penalties = losses.gradient_penalty(critic, real, fake), losses.r2_penalty(critic, fake)
    for penalty in penalties:
        (slope,) = torch.autograd.grad(penalty, fake, allow_unused=True, retain_graph=True)
        assert slope is None
        assert torch.autograd.grad(penalty, weights)[0].abs().max() > 0


@equation("eq-patho-sum", function="gradient_penalty")
@pytest.mark.parametrize(("outputs", "target"), [("sum", 1 / 10), ("mean", 1.0)])
def test_a_penalty_on_a_sum_of_ten_scores_bounds_their_mean_by_a_tenth(outputs, target, agrees):
    """Slope of the mean of ten linear scores at which the penalty vanishes: 1/10 for the sum."""
    real, fake = normal(16, 5), normal(16, 5, seed=1)
    direction = functional.normalize(normal(5, seed=2), dim=0)
    critic = nn.Linear(5, 10, bias=False).double()
    with torch.no_grad():
        critic.weight.copy_((target * direction).expand(10, 5))  # each score has this slope
    penalty = losses.gradient_penalty(critic, real, fake, outputs=outputs)
    agrees(penalty, 0.0, within=1e-12)
    other = losses.gradient_penalty(critic, real, fake, outputs={"sum": "mean"}.get(outputs, "sum"))
    assert float(other.detach()) > 0.8


def test_several_scores_a_sample_are_refused_unless_said_what_to_do():
    with pytest.raises(InputError, match="returns 10 scores a sample"):
        losses.gradient_penalty(nn.Linear(5, 10), torch.zeros(4, 5), torch.ones(4, 5))


@equation("eq-patho-r1", function="r1_penalty")
def test_r1_of_a_quadratic_critic(agrees):
    """f(x) = a |x|^2 / 2 has slope a x, so the penalty is a^2 E |x|^2 / 2, and its slope a E |x|^2."""  # noqa: E501
    real, scale = normal(50, 3), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    penalty = losses.r1_penalty(lambda x: scale * x.square().sum(1) / 2, real)
    square = real.square().sum(1).mean()
    agrees(penalty, 0.49 * square / 2, within=1e-12)
    agrees(torch.autograd.grad(penalty, scale)[0], 0.7 * square, within=1e-12)


@equation("eq-patho-r2", function="r2_penalty")
def test_r2_is_the_same_at_generated_samples(agrees):
    """The closed form for a linear critic, |w|^2 / 2, and for a quadratic one at other points."""
    weights, fake = normal(12, seed=3), normal(40, 3, 4, seed=4) + 2
    agrees(losses.r2_penalty(linear_critic(weights), fake), weights.square().sum() / 2,
           within=1e-12)  # fmt: skip
    curved = losses.r2_penalty(lambda x: x.flatten(1).square().sum(1) / 2, fake)
    agrees(curved, fake.flatten(1).square().sum(1).mean() / 2, within=1e-12)


@equation("eq-wgan-mix", function="mix")
def test_uniform_mixing_stays_on_the_segment_and_normal_mixing_leaves_it(agrees):
    """Mean 1/2 and variance 1/12 of 40,000 uniform weights; one weight a sample."""
    real, fake = torch.zeros(40_000, 2), torch.ones(40_000, 2)
    torch.manual_seed(0)
    uniform = losses.mix(real, fake)
    normal_mix = losses.mix(real, fake, mixing="normal")
    assert ((uniform >= 0) & (uniform <= 1)).all()
    assert (uniform[:, 0] == uniform[:, 1]).all()  # one weight a sample, not one a number
    agrees(uniform.mean(), 0.5, within=0.005)
    agrees(uniform[:, 0].var(), 1 / 12, within=0.002)
    outside = ((normal_mix < 0) | (normal_mix > 1)).any(1).double().mean()
    assert float(outside) == pytest.approx(0.5 + 0.1587, abs=0.03)  # P(z < 0) + P(z > 1)


@equation("eq-wgan-mix", function="mix")
def test_mixing_weights_samples_as_the_equation_says(agrees):
    """x + eps (x~ - x), with eps read off the first coordinate."""
    real, fake = normal(20, 3), normal(20, 3, seed=1)
    mixed = losses.mix(real, fake)
    eps = ((mixed - real) / (fake - real))[:, :1]
    agrees(mixed, real + eps * (fake - real), within=1e-12)
    moving = losses.mix(real, fake.clone().requires_grad_())
    assert not moving.requires_grad


def test_unknown_mixing_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="uniform, normal"):
        losses.mix(torch.zeros(1, 1), torch.zeros(1, 1), mixing="unifrm")


@equation("eq-wgan-clip", function="clip_weights")
def test_clipping_moves_weights_to_the_nearest_allowed_one(agrees):
    """Projection on the box, number by number; weights inside stay."""
    network = nn.Linear(6, 4)
    before = [p.detach().clone() for p in network.parameters()]
    losses.clip_weights(network, 0.1)
    for weight, old in zip(network.parameters(), before, strict=True):
        agrees(weight, np.minimum(np.maximum(old.numpy(), -0.1), 0.1), within=1e-8)
    assert max(old.abs().max() for old in before) > 0.1
    with pytest.raises(InputError, match=r"limit=0"):
        losses.clip_weights(network, 0)


# ---- conditions


@equation("eq-cgan-auxiliary", function="auxiliary_class_loss")
def test_the_classifier_pays_for_the_wrong_class(agrees):
    """Minus the logarithm of the given class's probability, worked out by hand."""
    logits, classes = normal(30, 4), torch.arange(30) % 4
    chance = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -chance[torch.arange(30), classes].log().mean()
    agrees(losses.auxiliary_class_loss(logits, classes), expected, within=1e-12)
    twice = losses.auxiliary_class_loss(logits.softmax(1), classes)
    assert abs(float(twice - expected)) > 0.05  # softmax before cross-entropy is another loss


@equation("eq-cgan-auxiliary-value", function="auxiliary_value_loss")
def test_a_wrong_value_costs_its_square(agrees):
    """Mean square by hand; (batch, 1) against (batch,) does not compare all with all."""
    values, wanted = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0.0, 2.0, 1.0])
    agrees(losses.auxiliary_value_loss(values, wanted), 10 / 3, within=1e-6)


# ---- variational autoencoder


@equation("eq-vae-reparameterise", function="reparameterise")
def test_reparameterised_samples_have_the_mean_and_variance_and_gradients(agrees):
    """Mean and variance of 100,000 samples; slopes 1 and eps sigma / 2 by finite differences."""
    mean, log_variance = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    torch.manual_seed(0)
    z = losses.reparameterise(mean.expand(100_000, 2), log_variance.expand(100_000, 2))
    agrees(z.mean(0), mean, within=0.02)
    agrees(z.var(0), log_variance.exp(), within=0.02)
    noise, at = normal(3, 2), normal(3, 2, seed=1).requires_grad_()
    slope = torch.autograd.grad(losses.reparameterise(at, at, noise=noise).sum(), at)[0]
    agrees(slope, slope_of(lambda x: losses.reparameterise(x, x, noise=noise).sum(), at.detach()),
           within=1e-8)  # fmt: skip


@equation("eq-vae-kl", function="gaussian_kl")
def test_kl_of_gaussians_against_torch_and_quadrature(agrees):
    """torch.distributions' closed form, and a numerical integral in one dimension."""
    from scipy.integrate import quad

    mean, log_variance = normal(7, 3), normal(7, 3, seed=1)
    one = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    other = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(one, other).sum(1)
    agrees(losses.gaussian_kl(mean, log_variance), expected, within=1e-12)
    m, v = 0.7, 0.4

    def integrand(x):
        log_p = -0.5 * (x - m) ** 2 / v - 0.5 * math.log(2 * math.pi * v)
        return math.exp(log_p) * (log_p + 0.5 * x * x + 0.5 * math.log(2 * math.pi))

    found = losses.gaussian_kl(torch.tensor([[m]]).double(), torch.tensor([[math.log(v)]]).double())
    agrees(found, quad(integrand, -12, 12)[0], within=1e-7)


@equation("eq-vae-elbo", function="elbo")
def test_the_bound_is_tight_at_the_true_posterior_and_below_it_elsewhere(agrees):
    """log p(x) of a linear Gaussian model, x = z + noise, with 200,000 samples of z."""
    noise_variance, x = 0.5, 1.3
    evidence = -0.5 * x**2 / (1 + noise_variance) - 0.5 * math.log(
        2 * math.pi * (1 + noise_variance)
    )
    best = x / (1 + noise_variance), noise_variance / (1 + noise_variance)

    def bound(mean, variance, beta=1.0):
        shape = (200_000, 1)
        m = torch.full(shape, mean, dtype=torch.float64)
        v = torch.full(shape, math.log(variance), dtype=torch.float64)
        z = losses.reparameterise(m, v, noise=normal(*shape))
        log_likelihood = -0.5 * (x - z[:, 0]) ** 2 / noise_variance - 0.5 * math.log(
            2 * math.pi * noise_variance
        )
        return losses.elbo(log_likelihood, losses.gaussian_kl(m, v), beta=beta)

    agrees(bound(*best), evidence, within=0.01)
    assert float(bound(best[0] + 0.3, best[1])) < evidence - 0.05
    assert float(bound(best[0], 2 * best[1])) < evidence - 0.05
    assert float(bound(*best, beta=2.0)) < float(bound(*best))


# ---- sequences and rewards


@equation("eq-rnn-nll", function="next_token_loss")
def test_next_token_loss_by_hand(agrees):
    """Sum over tokens that are not padding, divided by their number."""
    logits, tokens = normal(2, 4, 5), torch.tensor([[1, 2, 3, 0], [4, 1, 0, 0]])
    logs = logits - logits.exp().sum(-1, keepdim=True).log()
    places = [(b, i) for b, i in itertools.product(range(2), range(4)) if tokens[b, i]]
    expected = -sum(logs[b, i, tokens[b, i]] for b, i in places) / len(places)
    agrees(losses.next_token_loss(logits, tokens), expected, within=1e-12)


@equation("eq-rnn-nll", function="next_token_loss")
def test_knowing_nothing_costs_the_logarithm_of_the_vocabulary(agrees):
    """Equal logits for 7 tokens: log 7 a token."""
    tokens = torch.randint(1, 7, (3, 5), generator=torch.Generator().manual_seed(0))
    agrees(losses.next_token_loss(torch.zeros(3, 5, 7), tokens), math.log(7), within=1e-6)


@equation("eq-rnn-sequence", function="sequence_log_probability")
def test_probabilities_of_all_sequences_sum_to_one(agrees):
    """A table of next-token probabilities: its 27 sequences of three tokens, added up."""
    table = normal(4, 4).log_softmax(-1)  # (token before, token), 0 never follows
    table[:, 0] = -torch.inf
    tokens = torch.tensor(list(itertools.product([1, 2, 3], repeat=3)))
    before = functional.pad(tokens[:, :-1], (1, 0), value=0)
    found = losses.sequence_log_probability(table[before], tokens)
    agrees(found.exp().sum(), 1.0, within=1e-12)
    padded = losses.sequence_log_probability(
        functional.pad(table[before], (0, 0, 0, 2)), functional.pad(tokens, (0, 2))
    )
    agrees(padded, found, within=1e-12)


REWARD = torch.tensor([0.0, 1.0, 3.0, 0.5], dtype=torch.float64)


def mean_reward(logits):
    return (logits.softmax(-1) * REWARD).sum()


@equation("eq-rl-reinforce", function="reinforce_loss")
def test_reinforce_climbs_the_mean_reward(agrees):
    """Exact slope of the mean reward of a softmax policy; 200,000 actions."""
    logits = normal(4).requires_grad_()
    expected = torch.autograd.grad(mean_reward(logits), logits)[0]
    torch.manual_seed(0)
    actions = torch.multinomial(logits.detach().softmax(-1), 200_000, replacement=True)
    loss = losses.reinforce_loss(logits.log_softmax(-1)[actions], REWARD[actions])
    agrees(-torch.autograd.grad(loss, logits)[0], expected, within=0.01)


@equation("eq-rl-reinforce", function="reinforce_loss")
def test_the_mean_of_the_others_leaves_the_gradient_unbiased(agrees):
    """All 64 batches of three actions, weighted by their probability, give the exact slope."""
    logits = normal(4, seed=5).requires_grad_()
    expected = torch.autograd.grad(mean_reward(logits), logits)[0]
    total = torch.zeros(4, dtype=torch.float64)
    chance = logits.detach().softmax(-1)
    for batch in itertools.product(range(4), repeat=3):
        actions = torch.tensor(batch)
        loss = losses.reinforce_loss(logits.log_softmax(-1)[actions], REWARD[actions])
        total -= chance[actions].prod() * torch.autograd.grad(loss, logits)[0]
    agrees(total, expected, within=1e-12)


def test_no_gradient_passes_through_the_reward():
    log_probability, reward = (normal(5, seed=k).requires_grad_() for k in range(2))
    loss = losses.reinforce_loss(log_probability, reward)
    slopes = torch.autograd.grad(loss, [log_probability, reward], allow_unused=True)
    assert slopes[0] is not None
    assert slopes[1] is None


def test_one_reward_has_no_others():
    with pytest.raises(InputError, match="at least 2"):
        losses.reinforce_loss(torch.zeros(1), torch.ones(1))


@equation("eq-rl-prior", function="prior_reward")
def test_leaving_the_prior_costs_the_divergence(agrees):
    """Mean under the policy: the mean reward minus weight times KL of policy and prior."""
    policy, prior = normal(2, 4).log_softmax(-1)
    found = losses.prior_reward(REWARD, policy, prior, weight=0.7)
    expected = (policy.exp() * REWARD).sum() - 0.7 * losses.kl_divergence(policy.exp(), prior.exp())
    agrees((policy.exp() * found).sum(), expected, within=1e-12)
    assert not losses.prior_reward(REWARD, policy.requires_grad_(), prior, weight=1.0).requires_grad


def test_pairs_of_different_shapes_are_never_broadcast():
    row, column = torch.ones(4), torch.ones(4, 1)
    for call in (
        lambda: losses.mix(column, row),
        lambda: losses.reinforce_loss(row, column),
        lambda: losses.prior_reward(column, row, row, weight=0.1),
    ):
        with pytest.raises(InputError, match="same shape"):
            call()
