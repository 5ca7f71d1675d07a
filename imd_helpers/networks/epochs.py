"""One loop over epochs for every network that is fitted to data, and is no GAN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..runtime import InputError, number, whole
from .fit import FASTEST

Batch = TypeVar("Batch")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed, inside; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng():
        torch.manual_seed(whole("seed", seed))
        yield


def fit_epochs(
    network: nn.Module,
    batches: Callable[[], Iterable[tuple[Batch, int]]],
    terms: Callable[[Batch], dict[str, Tensor]],
    *,
    epochs: int,
    lr: float,
    falling: int = 0,
    after_step: Callable[[], None] | None = None,
) -> list[dict[str, float]]:
    """Train a network in place by Adam.

    Args:
        network: what is trained.
        batches: called once an epoch; gives (batch, number of examples in it) one after another.
        terms: named scalars of a batch, each a mean over its examples; ``loss`` is minimised.
        epochs: passes over the data.
        lr: Adam's learning rate.
        falling: steps in which the rate falls to zero along a cosine; 0 keeps it.
        after_step: called after each step.

    Returns:
        One row an epoch: its number from 1, and the mean of each term over the examples.

    Raises:
        InputError: an impossible setting, or a loss that is not finite.
    """
    epochs, falling = whole("epochs", epochs, least=1), whole("falling", falling)
    number("lr", lr, least=0, most=FASTEST)
    adam = torch.optim.Adam(network.parameters(), lr=lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, falling) if falling else None
    rows = []
    for epoch in range(1, epochs + 1):
        sums: dict[str, float] = {}
        seen = 0
        for batch, size in batches():
            values = terms(batch)
            adam.zero_grad(set_to_none=True)
            values["loss"].backward()
            adam.step()
            if cosine is not None:
                cosine.step()
            if after_step is not None:
                after_step()
            seen += size
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * size
        rows.append({"epoch": epoch, **{name: total / seen for name, total in sums.items()}})
        if not math.isfinite(rows[-1]["loss"]):
            raise InputError(f"loss is {rows[-1]['loss']} in epoch {epoch}: lower lr")
    return rows


def shuffled(n: int, size: int) -> Iterator[tuple[Tensor, int]]:
    """Row numbers below n in a random order, ``size`` at a time, and how many there are."""
    for rows in torch.randperm(whole("n", n)).split(whole("size", size, least=1)):
        yield rows, len(rows)
