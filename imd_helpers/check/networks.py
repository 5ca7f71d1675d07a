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

# ---- gan

DATA = (NormalDist(-1.0, 0.3), NormalDist(1.2, 0.3))  # two peaks of equal weight


def best_discriminator(x: float) -> float:
    """D* = p / (p + q) for the two densities of the chapter."""
    p = sum(peak.pdf(x) for peak in DATA) / len(DATA)
    return p / (p + NormalDist(0.5, 1.0).pdf(x))


# ---- wasserstein_gan


def composition_distance(one: str, other: str) -> float:
    """Earth mover's distance of two formulas in places of Pettifor's scale, by linear program."""
    place = elements.column("mendeleev_number")
    sides = [elements.parse_formula(formula) for formula in (one, other)]
    points = [place[list(amounts)][:, None] for amounts in sides]
    weights = [np.array(list(amounts.values())) for amounts in sides]
    return distances.transport(*points, weights_a=weights[0], weights_b=weights[1]).cost


# ---- conditional_gan

RADIUS, CLASSES, WIDTH = 2.0, 12, 0.6  # the ring of the chapter, with twelve clouds for its eight
ASKED = np.arange(-3.0, 0.1, 0.5)  # eV/atom


def share_at_home() -> float:
    """Share of a class's samples that are nearer to its centre than to both neighbours'."""
    half_way = RADIUS * math.sin(math.pi / CLASSES)
    return 2.0 * NormalDist(0.0, WIDTH).cdf(half_way) - 1.0


# ---- gan_pathologies


def double_softmax_floor(classes: int) -> float:
    """Smallest cross-entropy, in nats, of a softmax of a softmax: one input is 1, the others 0."""
    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = 1.0
    return float(losses.auxiliary_class_loss(best, torch.zeros(1, dtype=torch.long)))


def kept_by_batch_norm(spread: float, eps: float) -> float:
    """Standard deviation after batch norm of inputs with this standard deviation."""
    return spread / math.sqrt(spread**2 + eps)


# ---- vae_rnn_rl


def kl_of_gaussian(mean: float, sigma: float) -> float:
    """KL of N(mean, sigma^2) from N(0, 1) in nats, by the package's own function."""
    return float(losses.gaussian_kl(*torch.tensor([[[mean]], [[2 * math.log(sigma)]]]).double()))


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


TRUTHS = {
    "gan.1": lambda: best_discriminator(0.1),
    "gan.2": lambda: math.log(2.0) - 0.9 / 2.0,
    "wasserstein_gan.1": lambda: composition_distance("NaCl", "MgO"),
    "wasserstein_gan.2": lambda: 0.01 * math.sqrt(84),
    "conditional_gan.1": share_at_home,
    # least mean |obtained - asked|, in eV/atom, of a generator that ignores what is asked
    "conditional_gan.2": lambda: np.abs(ASKED - np.median(ASKED)).mean(),
    "gan_pathologies.1": lambda: kept_by_batch_norm(0.1, 0.8),
    "gan_pathologies.2": lambda: double_softmax_floor(5),
    "gan_pathologies.3": lambda: 1.0 / 10,
    "gan_pathologies.4": lambda: 1.5 - NormalDist().cdf(1.0),  # a weight of N(0, 1) not in [0, 1]
    "vae_rnn_rl.1": lambda: kl_of_gaussian(1.0, 0.5),
    "vae_rnn_rl.2": all_metal_share,
    "vae_rnn_rl.3": lambda: policy_gradient((1.0, 0.0, 0.0)),
}
