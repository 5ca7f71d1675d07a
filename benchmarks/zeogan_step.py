"""A step of ZeoGAN's `fixed`, on one core, as a share of the machine's matrix rate.

    python benchmarks/zeogan_step.py [--save]

One step is loss and gradients of the critic, with its penalty, as often as the recipe has it, and
of the generator, eight grids of 16 points each. Counted are the operations of convolutions and
products of matrices, forwards and backwards, as `torch.utils.flop_counter` counts them; the
machine's rate is that of one large product of matrices. The peer is the same step as torch alone
writes it: its circular padding, one transposed convolution a layer, and what reaches over a border
added in place. All three are measured in turns; losses must agree to 1e-5 of the largest.
At last every operation of the step is timed by itself: what convolutions and products take alone
bounds the share from above, and their rates say by which layer.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from common import best_of, environment, save
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from imd_helpers.models import zeogan, zeogan_networks
from imd_helpers.models.zeogan import ZeoGan
from imd_helpers.models.zeogan_networks import KERNEL, PeriodicConv, PeriodicConvTranspose

REQUIRED = {"plain torch": 1.15}
TIMES, SIZE = 40, 1024


class Operations(TorchDispatchMode):
    """Layer, operations and seconds of everything that runs inside it, also on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, int, float]] = []

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None):
        """The operation, counted and timed; a convolution is named by its weights' shape."""
        began = time.process_time()
        out = function(*args, **(kwargs or {}))
        seconds = time.process_time() - began
        count = flop_registry.get(function.overloadpacket)
        name = function.overloadpacket.__name__
        if name.startswith("convolution"):
            name += " " + "x".join(map(str, args[2 if name.endswith("backward") else 1].shape))
        total = count(*args, **(kwargs or {}), out_val=out) if count else 0
        self.rows.append((name, total, seconds))
        return out


def alone(model: ZeoGan) -> tuple[float, float, dict[str, float]]:
    """Seconds of products and of the rest, each at its shortest, and rates of the products."""
    runs = []
    for _ in range(TIMES):
        with Operations() as timed:
            step(model)
        runs.append(timed.rows)
    shortest = [min(seconds for *_, seconds in rows) for rows in zip(*runs, strict=True)]
    done: dict[str, list[float]] = {}
    rest = 0.0
    for (name, count, _), seconds in zip(runs[0], shortest, strict=True):
        if count:
            both = done.setdefault(name, [0.0, 0.0])
            both[0], both[1] = both[0] + count, both[1] + seconds
        else:
            rest += seconds
    rates = {name: count / seconds for name, (count, seconds) in done.items()}
    return sum(seconds for _, seconds in done.values()), rest, rates


def step(model: ZeoGan) -> Tensor:
    """Losses of all turns of one step, with gradients of all weights."""
    torch.manual_seed(0)
    turns = [(model.critic, model.critic_terms)] * model.config.train.critic_steps
    losses = []
    for part, terms in [*turns, (model.generator, model.generator_terms)]:
        part.zero_grad(set_to_none=True)
        losses.append(terms()["loss"])
        losses[-1].backward(inputs=list(part.parameters()))  # as `fit` does
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


def padded(layer: PeriodicConv, x: Tensor) -> Tensor:
    """What `PeriodicConv` does, by torch's padding."""
    wide = functional.pad(x, 6 * [KERNEL // 2], mode="circular")
    return functional.conv3d(wide, layer.weight, layer.bias, layer.stride)


def transposed(layer: PeriodicConvTranspose, x: Tensor) -> Tensor:
    """What `PeriodicConvTranspose.tap_by_tap` does, by a transposed convolution."""
    return in_place(functional.conv_transpose3d(x, layer.weight), x.shape[-1])


def rolled(grids: Tensor, lengths: Tensor, *, turns_only: bool) -> tuple[Tensor, Tensor]:
    """What `zeogan.augmented` does, by a roll and a permutation of each grid."""
    orders = torch.tensor(zeogan.ORDERS)[torch.randint(3 if turns_only else 6, (len(grids),))]
    shifts = torch.randint(grids.shape[-1], (len(grids), 3, 1))
    moved = []
    for grid, order, shift in zip(grids, orders.tolist(), shifts, strict=True):
        turned = grid.permute(0, *(1 + axis for axis in order))
        moved.append(turned.roll(shift[:, 0].tolist(), (1, 2, 3)))
    return torch.stack(moved).contiguous(), lengths.gather(1, orders)


def plain(model: ZeoGan) -> Tensor:
    """A step as torch alone writes it."""
    ways: dict[tuple[Any, str], Any] = {(zeogan_networks, "folded"): in_place}
    ways |= {(zeogan_networks, "pointwise"): lambda x: x, (PeriodicConv, "forward"): padded}
    ways |= {(PeriodicConvTranspose, "tap_by_tap"): transposed, (zeogan, "augmented"): rolled}
    with ExitStack() as stack:
        for (where, name), way in ways.items():
            stack.enter_context(mock.patch.object(where, name, way))
        return step(model)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    save_it = parser.parse_args().save
    torch.set_num_threads(1)

    config = ZeoGan.recipe("fixed", profile="full")
    model = ZeoGan.from_data(ZeoGan.read(config), config)
    with Operations() as counted:
        theirs = plain(model)
    difference = float(((step(model) - theirs).abs() / theirs.abs().max()).max())
    if difference > 1e-5:
        raise SystemExit(f"losses differ by {difference} of the largest")
    a, b = torch.rand(2, SIZE, SIZE)
    works = {"imd": (step, model), "plain torch": (plain, model), "product": (torch.matmul, a, b)}
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(TIMES):
        for name, (function, *given) in works.items():
            seconds[name] = min(seconds[name], best_of(1, function, *given)[0])

    machine = 2.0 * SIZE**3 / seconds["product"]
    needed = sum(count for _, count, _ in counted.rows)
    share = needed / seconds["imd"] / machine
    products, rest, rates = alone(model)
    ratio = seconds["plain torch"] / seconds["imd"]
    result = {
        "seconds": seconds,
        "ratio to plain torch": ratio,
        "operations_of_a_step": needed,
        "share of the matrix rate": share,
        "seconds of operations by themselves": {"products": products, "rest": rest},
        "share of the matrix rate of products alone": needed / products / machine,
        "operations a second": rates | {"product": machine},
        "largest_difference": difference,
        "required": REQUIRED,
        **environment("torch"),
    }
    print(*(f"{name} {1e3 * each:.0f} ms" for name, each in seconds.items()), sep=", ")
    print(f"{share:.0%} of the machine's matrix rate ({machine / 1e9:.0f} GFLOP/s)")
    print(f"products alone {1e3 * products:.0f} ms, the rest {1e3 * rest:.0f} ms")
    print(*(f"{name}: {each / 1e9:.0f} GFLOP/s" for name, each in rates.items()), sep="\n")
    if ratio < REQUIRED["plain torch"]:
        raise SystemExit(f"{ratio:.2f} times as fast, {REQUIRED['plain torch']} required")
    if save_it:
        print("wrote", save("zeogan_step", result))


if __name__ == "__main__":
    main()
