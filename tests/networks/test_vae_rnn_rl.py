"""Equations of the chapter on VAE, RNN and RL, by the models that use them."""

import copy
import itertools

import numpy as np
import pytest
import torch

from imd_helpers import check
from imd_helpers.check import networks as checks
from imd_helpers.crystals.compositions import reduced
from imd_helpers.models import formula_models as fm
from imd_helpers.models import formula_tokens as ft

HERE = "imd_helpers.models.formula_models."


def salts(n):
    """(n, 119) counts of made-up binary salts."""
    rng = np.random.default_rng(0)
    counts = np.zeros((n, 119), dtype=np.int64)
    counts[np.arange(n), rng.choice([3, 11, 19, 12, 20], n)] = rng.integers(1, 4, n)
    counts[np.arange(n), rng.choice([8, 9, 16, 17], n)] = rng.integers(1, 4, n)
    return counts


@pytest.mark.equation("eq-vae-elbo", function=HERE + "FormulaVae.terms")
def test_the_bound_lies_below_the_likelihood_by_the_divergence_of_the_posterior(agrees):
    """log p(x) by a grid over a one-dimensional latent vector: the gap is a divergence, not below
    zero, and importance weights with many samples close it."""
    torch.manual_seed(0)
    vae = fm.FormulaVae(width=16, latent=1).double()
    x = fm.FormulaVae.read(salts(1)).double()
    with torch.no_grad():
        grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid)[:, 0]
        likelihood = vae.log_likelihood(grid, x.expand(len(grid), 85, 8))
        exact = torch.logsumexp(prior + likelihood, 0) + np.log(18 / 4000)
        many = x.expand(20_000, 85, 8)
        bound = -vae.terms(many)["loss"]
        mean, log_variance = vae.encode(x)
        q = torch.distributions.Normal(mean[0, 0], (0.5 * log_variance[0, 0]).exp())
        log_q = q.log_prob(grid[:, 0])
        gap = (log_q.exp() * (log_q - (prior + likelihood - exact))).sum() * 18 / 4000
    assert bound <= exact + 1e-3
    agrees(bound + gap, exact, within=0.02)


@pytest.mark.equation("eq-rnn-sequence", function=HERE + "FormulaRnn.log_probability")
def test_the_probabilities_of_all_sentences_sum_to_one(agrees):
    """All 8,836 sentences of two words, none of them padding or start, and six that differ."""
    torch.manual_seed(0)
    rnn = fm.FormulaRnn(width=8, embedding=4).double()
    words = range(ft.START + 1, ft.VOCABULARY)
    tokens = torch.tensor(list(itertools.product(words, words)))
    with torch.no_grad():
        log_p = rnn.log_probability(tokens)
        one = [rnn(tokens[i : i + 1])[0].log_softmax(1) for i in range(6)]
    agrees(log_p.exp().sum(), 1.0, within=1e-12)
    for i, table in enumerate(one):
        agrees(log_p[i], table[0, tokens[i, 0]] + table[1, tokens[i, 1]], within=1e-12)


@pytest.mark.equation("eq-rl-reinforce", function=HERE + "reinforce")
def test_a_step_of_reinforcement_moves_the_weights_along_the_policy_gradient(agrees, monkeypatch):
    """Plain gradient ascent in place of Adam: the step is the learning rate times the gradient of
    the mean reward that the same samples give."""
    torch.manual_seed(0)
    policy = fm.FormulaRnn(width=8, embedding=4)
    fm.train_epochs(policy, salts(200), epochs=30, batch=50, lr=1e-2)
    before = copy.deepcopy(policy)

    def reward(counts):
        return (counts[:, 8] > 0).astype(float)

    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    fm.reinforce(policy, reward, steps=1, batch=500, lr=0.1, seed=3)
    torch.manual_seed(3)
    tokens = before.write(500)
    counts = reduced(ft.decode_tokens(tokens))
    earned = torch.zeros(500)
    earned[counts.any(1)] = torch.as_tensor(reward(counts[counts.any(1)])).float()
    gradient = torch.zeros_like(before.head.bias)
    baseline = (earned.sum() - earned) / 499
    for sentence, advantage in zip(tokens[:, None], earned - baseline, strict=True):
        score = torch.autograd.grad(before.log_probability(sentence).sum(), before.head.bias)[0]
        gradient += advantage * score / 500
    moved = policy.head.bias - before.head.bias
    assert gradient.abs().max() > 1e-3
    agrees(moved, 0.1 * gradient, within=1e-5)


def test_answers_are_those_found_by_other_ways():
    """KL by torch.distributions, the slope of the mean reward by finite differences."""
    q, p = torch.distributions.Normal(1.0, 0.5), torch.distributions.Normal(0.0, 1.0)
    assert check.CHECKS["vae_rnn_rl.1"].right(float(torch.distributions.kl_divergence(q, p)))

    def mean_reward(logit):
        return float(torch.tensor([logit, 0.0, 0.0], dtype=torch.float64).softmax(0)[0])

    slope = (mean_reward(1e-4) - mean_reward(-1e-4)) / 2e-4
    assert check.CHECKS["vae_rnn_rl.3"].right(slope)
    assert not check.CHECKS["vae_rnn_rl.3"].right(-slope)
    assert 0.2 < checks.all_metal_share() < 0.35
