"""Losses of generative networks, each a function with the sign and reduction of its source.

What is minimised is called a loss. A *discriminator* returns logits: the probability that a sample
is real is ``sigmoid(logit)``. A *critic* returns scores without bounds. Scores are (batch,) or
(batch, 1); every loss is a scalar, and knows nothing of crystals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..runtime import InputError, lookup, number

MIXINGS = ("uniform", "normal")
OUTPUTS = ("one", "sum", "mean")

Scorer = Callable[[Tensor], Tensor]

# ---- two players: classification


def minimax_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))): minus the value V(D, G) of the minimax game.

    It is 2 log 2 for a discriminator that always says 1/2.

    Source: Goodfellow et al., Generative Adversarial Nets (2014), eq. 1.
    """
    # log(1 - sigmoid(s)) = logsigmoid(-s), without the overflow
    return -functional.logsigmoid(real_logits).mean() - functional.logsigmoid(-fake_logits).mean()


def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """E log(1 - D(G(z))), the generator's part of the minimax game.

    Its derivative by a logit is -D: it vanishes where the discriminator is sure of a fake.

    Source: Goodfellow et al. (2014), eq. 1.
    """
    return functional.logsigmoid(-fake_logits).mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)); its derivative by a logit is -(1 - D), largest for a sure fake.

    Source: Goodfellow et al. (2014), section 3.
    """
    return -functional.logsigmoid(fake_logits).mean()


def least_squares_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """(E (D(x) - 1)^2 + E D(G(z))^2) / 2: real samples are labelled 1, generated ones 0.

    Source: Mao et al., Least Squares Generative Adversarial Networks (2017), eq. 9.
    """
    return 0.5 * ((real_scores - 1.0).square().mean() + fake_scores.square().mean())


def least_squares_generator_loss(fake_scores: Tensor) -> Tensor:
    """E (D(G(z)) - 1)^2 / 2.

    Source: Mao et al. (2017), eq. 9.
    """
    return 0.5 * (fake_scores - 1.0).square().mean()


def relativistic_discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """-E log sigmoid(f(x) - f(G(z))) over pairs, the i-th real and the i-th generated sample.

    Raises:
        InputError: unequal shapes, which would silently compare every sample with every other.

    Source: Jolicoeur-Martineau, The Relativistic Discriminator (2019), RSGAN.
    """
    real, fake = _pairs(real_scores=real_scores, fake_scores=fake_scores)
    return -functional.logsigmoid(real - fake).mean()


def relativistic_generator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """-E log sigmoid(f(G(z)) - f(x)): the discriminator's loss with the roles exchanged.

    Source: Jolicoeur-Martineau (2019), RSGAN.
    """
    return relativistic_discriminator_loss(fake_scores, real_scores)


def _pairs(**given: Tensor) -> Iterable[Tensor]:
    """The tensors, if they have one shape: else each would be compared with every other."""
    shapes = {name: tuple(getattr(each, "shape", (each,))) for name, each in given.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"shapes {shapes}: these are pairs, so give all of them the same shape")
    return given.values()


# ---- two players: Wasserstein distance


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E f(fake) - E f(real), what the critic minimises.

    Its negative estimates the Wasserstein distance, up to the critic's Lipschitz constant.

    Source: Arjovsky et al., Wasserstein GAN (2017), eq. 3 with the sign of a minimisation.
    """
    return fake_scores.mean() - real_scores.mean()


def generator_loss(fake_scores: Tensor) -> Tensor:
    """-E f(fake), what the generator minimises.

    Source: Arjovsky et al., Wasserstein GAN (2017), algorithm 1, line 11.
    """
    return -fake_scores.mean()


# ---- the losses by name


class Pair(NamedTuple):
    """The losses of both players, each of (real scores, fake scores)."""

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def _of_fake(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda real_scores, fake_scores: loss(fake_scores)


PAIRS = {
    "minimax": Pair(minimax_discriminator_loss, _of_fake(saturating_generator_loss)),
    "non_saturating": Pair(minimax_discriminator_loss, _of_fake(non_saturating_generator_loss)),
    "least_squares": Pair(least_squares_discriminator_loss, _of_fake(least_squares_generator_loss)),
    "wasserstein": Pair(critic_loss, _of_fake(generator_loss)),
    "relativistic": Pair(relativistic_discriminator_loss, relativistic_generator_loss),
}

# ---- what keeps a critic smooth


def mix(real: Tensor, fake: Tensor, *, mixing: str = "uniform") -> Tensor:
    """Points on the lines between (batch, ...) real and generated samples, one a pair.

    Args:
        real: samples at weight 0.
        fake: samples at weight 1.
        mixing: ``uniform`` draws the weight from U(0, 1), as in the paper; ``normal`` from
            N(0, 1), as CubicGAN's code does, so that most points lie outside the segment.
    """
    shape = (len(real), *([1] * (real.ndim - 1)))
    return between(real, fake, mixing_weight(shape, mixing=mixing, like=real))


def mixing_weight(
    shape: tuple[int, ...],
    *,
    mixing: str = "uniform",
    generator: torch.Generator | None = None,
    like: Tensor,
) -> Tensor:
    """Weights for `between`, one a sample, of the kind and on the device of ``like``."""
    lookup("mixing", mixing, MIXINGS)
    draw = torch.rand if mixing == "uniform" else torch.randn
    return draw(shape, generator=generator, dtype=like.dtype, device=like.device)


def between(real: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """Points x + weight (x~ - x), without history: real at weight 0, generated at 1."""
    real, fake = _pairs(real=real, fake=fake)
    return (real + weight * (fake - real)).detach()


def slope(critic: Scorer, points: Tensor, *, outputs: str = "one", batch_dims: int = 1) -> Tensor:
    """(batch, ...) gradient of each sample's score by the sample, with the graph kept.

    Args:
        critic: maps (batch, ...) to (batch, 1) or (batch,).
        points: the samples.
        outputs: what to do with a critic of several outputs, see `gradient_penalty`.
        batch_dims: how many leading dimensions count samples.

    Raises:
        InputError: several scores a sample, and ``outputs`` does not say what to do with them.
    """
    lookup("treatment of outputs", outputs, OUTPUTS)
    points = points.detach().requires_grad_(True)
    scores = critic(points)
    several = math.prod(scores.shape[batch_dims:])
    if outputs == "one" and several > 1:
        raise InputError(
            f"the critic returns {several} scores a sample: a penalty on their sum bounds the "
            f'slope of their mean by 1/{several}; return one score, or choose outputs="mean" '
            '(or "sum", as the published Mg-Mn-O code does)'
        )
    total = scores.sum() / (several if outputs == "mean" else 1)
    return torch.autograd.grad(total, points, create_graph=True)[0]


def one_centred(slopes: Tensor) -> Tensor:
    """E (|slope| - 1)^2 of (batch, ...) slopes; the norm is over everything but the batch."""
    return (slopes.flatten(1).norm(dim=1) - 1.0).square().mean()


def zero_centred(slopes: Tensor) -> Tensor:
    """E |slope|^2 / 2 of (batch, ...) slopes."""
    return 0.5 * slopes.flatten(1).square().sum(dim=1).mean()


def gradient_penalty(
    critic: Scorer, real: Tensor, fake: Tensor, *, mixing: str = "uniform", outputs: str = "one"
) -> Tensor:
    """E (|grad f| - 1)^2 at points between real and generated samples, without the factor lambda.

    It has gradients with respect to the critic's weights.

    Args:
        critic: maps (batch, ...) to (batch, 1) or (batch,).
        real: (batch, ...).
        fake: (batch, ...).
        mixing: see `mix`.
        outputs: ``one`` refuses a critic of several outputs; ``mean`` takes the slope of their
            mean, which `critic_loss` uses; ``sum`` that of their sum, as the published code
            for Mg-Mn-O does, so that the mean is bounded by the inverse of their number.

    Source: Gulrajani et al., Improved Training of Wasserstein GANs (2017), eq. 3.
    """
    return one_centred(slope(critic, mix(real, fake, mixing=mixing), outputs=outputs))


def r1_penalty(critic: Scorer, real: Tensor) -> Tensor:
    """E |grad f(x)|^2 / 2 at real samples, without the factor gamma.

    Source: Mescheder et al., Which Training Methods for GANs do actually Converge? (2018).
    """
    return zero_centred(slope(critic, real))


def r2_penalty(critic: Scorer, fake: Tensor) -> Tensor:
    """E |grad f(G(z))|^2 / 2 at generated samples, without the factor gamma.

    Source: Mescheder et al. (2018).
    """
    return zero_centred(slope(critic, fake))


@torch.no_grad()
def clip_weights(network: nn.Module | Iterable[Tensor], limit: float) -> None:
    """Cut every weight to [-limit, limit], in place.

    Source: Arjovsky et al., Wasserstein GAN (2017), algorithm 1, line 7 (limit 0.01).
    """
    number("limit", limit, above=0)
    for weight in network.parameters() if isinstance(network, nn.Module) else network:
        weight.clamp_(-limit, limit)


# ---- conditions


def auxiliary_class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """-E log P(c | x), cross-entropy of (batch, classes) logits, before any softmax.

    Source: Odena et al., Conditional Image Synthesis with Auxiliary Classifier GANs (2017), eq. 3.
    """
    return functional.cross_entropy(logits, classes)


def auxiliary_value_loss(values: Tensor, wanted: Tensor) -> Tensor:
    """E (c' - c)^2 for conditions that are (batch,) or (batch, k) numbers."""
    return (values - wanted.reshape(values.shape)).square().mean()


AUXILIARIES = {"class": auxiliary_class_loss, "value": auxiliary_value_loss}

# ---- what the best players can reach


def optimal_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """D = p / (p + q): the best discriminator between densities p (data) and q (generator).

    Source: Goodfellow et al. (2014), proposition 1.
    """
    return p / (p + q)


def density_ratio(logits: Tensor) -> Tensor:
    """Ratio p / q = D / (1 - D) = exp(logit), exact for the best discriminator."""
    return logits.exp()


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p | q) = sum p log(p / q) of (..., n) probabilities, in nats; q > 0 where p > 0."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """(KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2, in nats: between 0 and log 2.

    The minimax value of the best discriminator is 2 JSD - 2 log 2.

    Source: Goodfellow et al. (2014), eq. 6.
    """
    middle = 0.5 * (p + q)
    return 0.5 * (kl_divergence(p, middle) + kl_divergence(q, middle))


# ---- variational autoencoder


def reparameterise(mean: Tensor, log_variance: Tensor, *, noise: Tensor | None = None) -> Tensor:
    """A normal sample, mean + exp(log_variance / 2) noise, with gradients for both arguments.

    All are (batch, latent); the noise from N(0, 1) is drawn unless given.

    Source: Kingma and Welling, Auto-Encoding Variational Bayes (2014), section 2.4.
    """
    noise = torch.randn_like(mean) if noise is None else noise
    return mean + (0.5 * log_variance).exp() * noise


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, var) | N(0, 1)) = sum (mean^2 + var - 1 - log var) / 2, in nats.

    (batch, latent) to (batch,).

    Source: Kingma and Welling (2014), appendix B.
    """
    _pairs(mean=mean, log_variance=log_variance)
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


def elbo(log_likelihood: Tensor, kl: Tensor, *, beta: float = 1.0) -> Tensor:
    """E (log p(x | z) - beta KL) of (batch,) each, to be maximised: for beta = 1 below log p(x).

    Source: Kingma and Welling (2014), eq. 3; beta: Higgins et al., beta-VAE (2017).
    """
    return (log_likelihood - beta * kl).mean()


# ---- masked diffusion


def uncovered(now: float, then: float) -> float:
    """Probability that a token that is hidden at time ``now`` is none at an earlier one.

    Tokens are hidden by time t with probability t, independently, and stay so.

    Source: Sahoo et al., MDLM (2024), eq. 7, with alpha_t = 1 - t.
    """
    return (now - then) / now


def masked_diffusion_bound(log_likelihood: Tensor, time: Tensor) -> Tensor:
    """(batch,) whose mean over times, uniform in [0, 1], is at least -log p, in nats.

    Args:
        log_likelihood: (batch, length) log p of each hidden token, given those that are seen; 0 of
            a token that is seen.
        time: (batch,) at which each was hidden with that probability.

    Source: Sahoo et al., MDLM (2024), eq. 10, with alpha_t = 1 - t.
    """
    return -log_likelihood.sum(1) / time


# ---- sequences and rewards


def next_token_loss(logits: Tensor, tokens: Tensor, *, padding: int = 0) -> Tensor:
    """-mean log p(t_i | t_<i) over all tokens that are not padding, in nats.

    Args:
        logits: (batch, length, vocabulary); row i is predicted from the tokens before i.
        tokens: (batch, length) int64.
        padding: the token that counts for nothing.
    """
    return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), ignore_index=padding)


def sequence_log_probability(logits: Tensor, tokens: Tensor, *, padding: int = 0) -> Tensor:
    """(batch,) sums of log p(t_i | t_<i), in nats; arguments as of `next_token_loss`."""
    chosen = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(tokens == padding, 0.0).sum(-1)


def reinforce_loss(log_probability: Tensor, reward: Tensor) -> Tensor:
    """-E (R - b) log pi: its gradient is minus the policy gradient of the mean reward.

    The baseline b is the mean of the other rewards of the batch, which leaves the gradient
    unbiased.

    Args:
        log_probability: (batch,) log probability of each sampled sequence, with gradients.
        reward: (batch,), two at least; no gradient passes through it.

    Source:
        Williams, Simple Statistical Gradient-Following Algorithms (1992), theorem 1; the mean of
        the others: Kool et al., Buy 4 REINFORCE Samples, Get a Baseline for Free (2019).
    """
    _pairs(log_probability=log_probability, reward=reward)
    reward = reward.detach()
    if len(reward) < 2:
        raise InputError(f"{len(reward)} reward: the mean of the others needs at least 2 of them")
    baseline = (reward.sum() - reward) / (len(reward) - 1)
    return -((reward - baseline) * log_probability).mean()


def prior_reward(
    reward: Tensor, log_probability: Tensor, prior_log_probability: Tensor, *, weight: float
) -> Tensor:
    """R - weight (log pi - log pi_0): a reward that pays for leaving the prior model.

    Its mean under pi, which sampled, is the mean reward minus ``weight`` KL(pi | pi_0), where pi_0
    is the model it began with. All are (batch,), in nats and without history.

    Source: Jaques et al., Sequence Tutor (2017).
    """
    pi, prior = _pairs(log_probability=log_probability, prior_log_probability=prior_log_probability)
    reward, pi = _pairs(reward=reward, log_probability=pi)
    return (reward - weight * (pi - prior)).detach()
