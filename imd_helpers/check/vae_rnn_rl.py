"""Checks of the chapter on VAE, RNN and reinforcement learning."""

from __future__ import annotations

import numpy as np

from .base import Check


def kl_of_gaussian(mean: float, sigma: float) -> float:
    """KL of N(mean, sigma^2) from N(0, 1) in nats, by the package's own function."""
    import torch

    from ..networks import losses

    return float(
        losses.gaussian_kl(
            torch.tensor([[mean]], dtype=torch.float64),
            torch.tensor([[2 * np.log(sigma)]], dtype=torch.float64),
        )[0]
    )


def policy_gradient(rewards: tuple[float, ...]) -> float:
    """First component of the exact policy gradient at equal logits, one logit an action."""
    reward = np.asarray(rewards, dtype=float)
    share = np.full(len(reward), 1.0 / len(reward))
    return float(share[0] * (reward[0] - share @ reward))


def all_metal_share() -> float:
    """Share of the hidden formulas, validation and test, that hold metals only."""
    from .. import datasets
    from ..judge.charge import oxidation_table
    from ..models import formula_tokens

    known = datasets.load("oqmd_icsd")
    rows = (known.table["split"] != "train").to_numpy()
    counts = formula_tokens.distinct(known.crystals.counts().numpy()[rows])
    return float((counts[:, ~oxidation_table().metal] == 0).all(1).mean())


CHECKS = {
    "vae_rnn_rl.1": Check(
        lambda: kl_of_gaussian(1.0, 0.5),
        "Half of the sum of the squared mean and the variance, minus one, minus the logarithm of "
        "the variance; the variance is the square of sigma.",
        tolerance=5e-3,
    ),
    "vae_rnn_rl.2": Check(
        all_metal_share,
        "A formula holds metals only if every other column of its counts is zero; take distinct "
        "hidden formulas that fit the matrix.",
        tolerance=5e-3,
    ),
    "vae_rnn_rl.3": Check(
        lambda: policy_gradient((1.0, 0.0, 0.0)),
        "The gradient of log softmax by logit 1 is 1 - 1/3 for the first action and -1/3 for the "
        "others; weigh each with its reward and its probability.",
        tolerance=5e-3,
    ),
}
