"""Losses of the Wasserstein GAN, each a plain function with the sign and reduction of its paper."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime import lookup

MIXINGS = ("uniform", "normal")


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E f(fake) - E f(real), what the critic minimises.

    Its negative estimates the Wasserstein distance, up to the critic's Lipschitz constant.

    Args:
        real_scores: (batch, 1) or (batch,) critic scores of real samples.
        fake_scores: the same for generated ones.

    Returns:
        Scalar.

    Source:
        Arjovsky et al., Wasserstein GAN (2017), eq. 3 with the sign of a minimisation.
    """
    return fake_scores.mean() - real_scores.mean()


def generator_loss(fake_scores: Tensor) -> Tensor:
    """-E f(fake), what the generator minimises.

    Args:
        fake_scores: (batch, 1) or (batch,) critic scores of generated samples.

    Returns:
        Scalar.

    Source:
        Arjovsky et al., Wasserstein GAN (2017), algorithm 1, line 11.
    """
    return -fake_scores.mean()


def mix(real: Tensor, fake: Tensor, *, mixing: str = "uniform") -> Tensor:
    """Points on the lines between real and generated samples, one a pair.

    Args:
        real: (batch, ...).
        fake: (batch, ...).
        mixing: ``uniform`` draws the weight from U(0, 1), as in the paper; ``normal`` from
            N(0, 1), as CubicGAN's code does, so that most points lie outside the segment.

    Returns:
        (batch, ...), without history.

    Raises:
        UnknownNameError: another mixing.
    """
    lookup("mixing", mixing, MIXINGS)
    shape = (len(real), *([1] * (real.ndim - 1)))
    draw = torch.rand if mixing == "uniform" else torch.randn
    weight = draw(shape, dtype=real.dtype, device=real.device)  # one weight a sample
    return (real + weight * (fake - real)).detach()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, mixing: str = "uniform"
) -> Tensor:
    """E (|grad f| - 1)^2 at points between real and generated samples, without the factor lambda.

    The norm is over everything but the batch. The graph is kept, so the penalty has gradients
    with respect to the critic's weights.

    Args:
        critic: maps (batch, ...) to (batch, 1) or (batch,).
        real: (batch, ...).
        fake: (batch, ...).
        mixing: see `mix`.

    Returns:
        Scalar.

    Source:
        Gulrajani et al., Improved Training of Wasserstein GANs (2017), eq. 3.
    """
    points = mix(real, fake, mixing=mixing).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    norm = slope.flatten(1).norm(dim=1)  # (batch,)
    return (norm - 1.0).square().mean()
