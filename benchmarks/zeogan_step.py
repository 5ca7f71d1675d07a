"""A step of ZeoGAN's `fixed`, on one core, as a share of the machine's matrix rate.

    python benchmarks/zeogan_step.py [--save]

One step is loss and gradients of the critic, with its penalty, as often as the recipe has it, and
of the generator, eight grids of 16 points each. Counted are the operations of convolutions and
products of matrices, forwards and backwards, as `torch.utils.flop_counter` counts them; the
machine's rate is that of one large product of matrices. The peer is the same step with what
reaches over a border added in place, as in earlier versions; losses must agree to 1e-4.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from typing import Any

import torch
from common import best_of, environment, save
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from imd_helpers.models import zeogan_networks
from imd_helpers.models.zeogan import ZeoGan
from imd_helpers.models.zeogan_networks import KERNEL

REQUIRED = {"in place": 1.0}
TIMES, SIZE = 12, 1024


class Operations(TorchDispatchMode):
    """Adds up the operations of all products and convolutions that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None):
        out = function(*args, **(kwargs or {}))
        count = flop_registry.get(function.overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


def step(model: ZeoGan) -> Tensor:
    """Losses of all turns of one step, with gradients of all weights."""
    torch.manual_seed(0)
    turns = [(model.critic, model.critic_terms)] * model.config.train.critic_steps
    losses = []
    for part, terms in [*turns, (model.generator, model.generator_terms)]:
        part.zero_grad(set_to_none=True)
        losses.append(terms()["loss"])
        losses[-1].backward()
    return torch.stack(losses).detach()


def in_place(x: Tensor, size: int) -> Tensor:
    """What `zeogan_networks.folded` does, by additions to parts of a copy."""
    before = KERNEL // 2
    after = x.shape[-1] - before - size
    for axis in (2, 3, 4):
        inside = x.narrow(axis, before, size).clone()
        inside.narrow(axis, size - before, before).add_(x.narrow(axis, 0, before))
        inside.narrow(axis, 0, after).add_(x.narrow(axis, before + size, after))
        x = inside
    return x


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    save_it = parser.parse_args().save
    torch.set_num_threads(1)

    config = ZeoGan.recipe("fixed", profile="full")
    model, folded = ZeoGan.from_data(ZeoGan.read(config), config), zeogan_networks.folded
    with Operations() as counted:
        ours = step(model)
    a, b = torch.rand(2, SIZE, SIZE)
    machine = 2.0 * SIZE**3 / best_of(TIMES, torch.matmul, a, b)[0]
    seconds = {"imd": best_of(TIMES, step, model)[0]}
    zeogan_networks.folded = in_place
    difference = float((step(model) - ours).abs().max())
    seconds["in place"] = best_of(TIMES, step, model)[0]
    zeogan_networks.folded = folded
    if difference > 1e-4:
        raise SystemExit(f"losses differ by {difference}")

    share = counted.total / seconds["imd"] / machine
    ratio = seconds["in place"] / seconds["imd"]
    result = {
        "seconds": seconds,
        "ratio to in place": ratio,
        "operations_of_a_step": counted.total,
        "share of the matrix rate": share,
        "largest_difference": difference,
        "required": REQUIRED,
        **environment("torch"),
    }
    print(f"a step: {seconds['imd'] * 1e3:.0f} ms, in place {seconds['in place'] * 1e3:.0f} ms")
    print(f"{share:.0%} of the machine's matrix rate ({machine / 1e9:.0f} GFLOP/s)")
    if ratio < REQUIRED["in place"]:
        raise SystemExit(f"{ratio:.2f} times as fast, {REQUIRED['in place']} required")
    if save_it:
        print("wrote", save("zeogan_step", result))


if __name__ == "__main__":
    main()
