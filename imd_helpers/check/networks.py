"""Checks of the chapters on networks."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import torch

from .. import datasets
from ..crystals import elements
from ..judge.charge import oxidation_table
from ..models import formula_tokens
from ..networks import distances, losses
from .base import Check

# ---- gan

DATA = (NormalDist(-1.0, 0.3), NormalDist(1.2, 0.3))  # two peaks of equal weight
FAKES = NormalDist(0.5, 1.0)


def best_discriminator(x: float) -> float:
    """D* = p / (p + q) for the two densities of the chapter."""
    p = sum(peak.pdf(x) for peak in DATA) / len(DATA)
    return p / (p + FAKES.pdf(x))


# ---- wasserstein_gan


def composition_distance(one: str, other: str) -> float:
    """Earth mover's distance of two formulas in places of Pettifor's scale, by linear program."""
    place = elements.column("mendeleev_number")
    sides = [elements.parse_formula(formula) for formula in (one, other)]
    points = [place[list(amounts)][:, None] for amounts in sides]
    weights = [np.array(list(amounts.values())) for amounts in sides]
    return distances.transport(*points, weights_a=weights[0], weights_b=weights[1]).cost


# ---- conditional_gan

RADIUS, CLASSES, WIDTH = 2.0, 8, 0.6  # the toy of the chapter
ASKED = np.arange(-3.0, 0.1, 0.5)  # eV/atom


def share_at_home() -> float:
    """Share of a class's samples that are nearer to its centre than to both neighbours'."""
    half_way = RADIUS * math.sin(math.pi / CLASSES)
    return 2.0 * NormalDist(0.0, WIDTH).cdf(half_way) - 1.0


def best_deaf_error() -> float:
    """Least mean |obtained - asked|, in eV/atom, of a generator that ignores what is asked."""
    return float(np.abs(ASKED - np.median(ASKED)).mean())


# ---- gan_pathologies


def double_softmax_floor(classes: int) -> float:
    """Smallest cross-entropy, in nats, of a softmax of a softmax: one input is 1, the others 0."""
    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = 1.0
    return float(losses.auxiliary_class_loss(best, torch.zeros(1, dtype=torch.long)))


def outside_the_segment() -> float:
    """Chance that a weight from N(0, 1) lies outside [0, 1]."""
    inside = 0.5 * math.erf(1.0 / math.sqrt(2.0))
    return 1.0 - inside


def kept_by_batch_norm(spread: float, eps: float) -> float:
    """Standard deviation after batch norm of inputs with this standard deviation."""
    return spread / math.sqrt(spread**2 + eps)


# ---- vae_rnn_rl


def kl_of_gaussian(mean: float, sigma: float) -> float:
    """KL of N(mean, sigma^2) from N(0, 1) in nats, by the package's own function."""
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
    known = datasets.load("oqmd_icsd")
    rows = (known.table["split"] != "train").to_numpy()
    counts = formula_tokens.distinct(known.crystals.counts().numpy()[rows])
    return float((counts[:, ~oxidation_table().metal] == 0).all(1).mean())


CHECKS = {
    "gan.1": Check(
        lambda: best_discriminator(0.1),
        "p is half of each peak; both densities are taken at x = 0.1, and the widths are "
        "standard deviations.",
        tolerance=1e-3,
    ),
    "gan.2": Check(
        lambda: math.log(2.0) - 0.9 / 2.0,  # JSD of a game whose best discriminator has that loss
        "The loss is minus the value of the game, and the logarithm is the natural one.",
        tolerance=1e-2,
    ),
    "wasserstein_gan.1": Check(
        lambda: composition_distance("NaCl", "MgO"),
        "Each formula is half metal, half anion; count places of the scale, and weigh each way "
        "by the share of atoms that goes it.",
        tolerance=1e-6,
    ),
    "wasserstein_gan.2": Check(
        lambda: 0.01 * math.sqrt(84),
        "The slope of a linear function is the length of w; which point of a box is farthest "
        "from its middle?",
        tolerance=1e-3,
    ),
    "conditional_gan.1": Check(
        share_at_home,
        "The border to each neighbour lies half-way between the two centres, and across the way "
        "to both neighbours the cloud is a normal distribution.",
        tolerance=0.02,
    ),
    "conditional_gan.2": Check(
        best_deaf_error,
        "Whatever the generator makes, it makes the same for each asked energy; which single "
        "energy is nearest to all seven on average?",
        tolerance=1e-3,
    ),
    "gan_pathologies.1": Check(
        lambda: kept_by_batch_norm(0.1, 0.8),
        "Batch norm divides by the root of the variance plus eps, and the variance is the square "
        "of the standard deviation.",
        tolerance=1e-2,
    ),
    "gan_pathologies.2": Check(
        lambda: double_softmax_floor(5),
        "The best that the inner softmax can give is 1 for the right class and 0 for the others; "
        "put these numbers into the cross-entropy as if they were logits.",
        tolerance=5e-3,
    ),
    "gan_pathologies.3": Check(
        lambda: 1.0 / 10,
        "The penalty is zero where the gradient of the sum has length 1; ten equal outputs share "
        "it.",
        tolerance=1e-2,
    ),
    "gan_pathologies.4": Check(
        outside_the_segment,
        "Add the two tails of the normal distribution, below 0 and above 1.",
        tolerance=5e-3,
    ),
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
