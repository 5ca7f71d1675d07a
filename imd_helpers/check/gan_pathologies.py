"""Checks of the chapter on what goes wrong in adversarial training."""

from __future__ import annotations

import math

from .base import Check


def double_softmax_floor(classes: int) -> float:
    """Smallest cross-entropy, in nats, of a softmax of a softmax: one input is 1, the others 0."""
    import torch

    from ..networks import losses

    best = torch.zeros(1, classes, dtype=torch.float64)
    best[0, 0] = 1.0
    return float(losses.auxiliary_class_loss(best, torch.zeros(1, dtype=torch.long)))


def outside_the_segment() -> float:
    """Chance that a weight from N(0, 1) lies outside [0, 1]."""
    inside = 0.5 * math.erf(1.0 / math.sqrt(2.0))
    return 1.0 - inside


def slope_with_sum(outputs: int) -> float:
    """Slope of the mean of equal outputs for which the penalty on their sum is 0."""
    return 1.0 / outputs


def kept_by_batch_norm(spread: float, eps: float) -> float:
    """Standard deviation after batch norm of inputs with this standard deviation."""
    return spread / math.sqrt(spread**2 + eps)


CHECKS = {
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
        lambda: slope_with_sum(10),
        "The penalty is zero where the gradient of the sum has length 1; ten equal outputs share "
        "it.",
        tolerance=1e-2,
    ),
    "gan_pathologies.4": Check(
        outside_the_segment,
        "Add the two tails of the normal distribution, below 0 and above 1.",
        tolerance=5e-3,
    ),
}
