"""A step of the Mg-Mn-O GAN's critic and classifier at the published sizes, on one core.

    python benchmarks/gan_step.py [--save]

One step is loss and gradients of the critic, with its penalty, and of the classifier, 32 matrices
each. The peer is a straightforward port of the published code: convolutions over (channels, rows,
1), torch's leaky ReLU, real and generated matrices one after the other; losses must agree to 1e-5.
The share of the machine's rate is the multiplications that the step needs in a second, over those
of one large product of matrices. A convolution of the same size is timed as well, for torch hands
products and convolutions to two libraries, which are not equally fast on every processor. All take
turns, because a machine's speed changes with what else it does. At last every operation of the step
is timed by itself, to say how much of it are products at all.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import best_of, environment, save
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from imd_helpers.models import mg_mn_o
from imd_helpers.models.coordinate_networks import ConstantSlope, Pointwise, RowDense
from imd_helpers.models.coordinate_rows import DESCRIPTOR
from imd_helpers.models.mg_mn_o import MgMnOGan
from imd_helpers.networks import losses

REQUIRED = {"straightforward port": 1.0}
TIMES, SIZE, BATCH = 15, 1024, 32
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def step(model: MgMnOGan) -> Tensor:
    """Losses of critic and classifier, with gradients of all weights."""
    torch.manual_seed(0)
    for part in (model.critic, model.classifier):
        part.zero_grad(set_to_none=True)
    both = torch.stack([model.critic_terms()["loss"], model.classifier_terms()["loss"]])
    both.sum().backward()
    return both.detach()


# ---- the peer


def dense(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer as a convolution of 1 x 1 over (batch, channels, rows, 1)."""
    return functional.conv2d(x, layer.weight[:, :, None, None], layer.bias)


class Convolved(nn.Module):
    """A chain of layers on rows, as the published code has it."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        """(batch, rows, into) to (batch, rows, out)."""
        x = x.mT[..., None]
        for layer in self.chain:
            if isinstance(layer, Pointwise):
                linear, norm, activation = layer
                x = dense(linear, x)
                x = functional.batch_norm(
                    x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
                )
                x = activation(x)
            else:
                x = dense(layer, x) if isinstance(layer, nn.Linear) else layer(x)
        return x[..., 0].mT


class Port(MgMnOGan):
    """Real and generated matrices one after the other."""

    def critic_terms(self) -> dict[str, Tensor]:
        """Loss of the critic alone, which the step takes."""
        real, fake, score = self.pair()
        distance = losses.critic_loss(score(real), score(fake))
        penalty = losses.gradient_penalty(score, real, fake, outputs=self.config.penalised)
        return {"loss": distance + self.config.penalty * penalty}


def peer_of(model: MgMnOGan) -> Port:
    """The same weights, as a straightforward port."""
    made = copy_of(model, Port)
    replace(made.critic, ConstantSlope, nn.LeakyReLU)
    made.critic.rows = Convolved(made.critic.rows)
    made.classifier.states = nn.ModuleList(map(Convolved, made.classifier.states))
    return made


def copy_of(model: MgMnOGan, kind: type[MgMnOGan]) -> MgMnOGan:
    """The same weights and data in another model."""
    made = kind(model.config, model.learnt)
    made.data = model.data
    for name, network in model.networks.items():
        made.networks[name].load_state_dict(network.state_dict())
    return made


def replace(network: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Layers of one class as those of the class above it."""
    for layer in network.modules():
        if type(layer) is old:
            layer.__class__ = new


# ---- measures


def operations_of(model: MgMnOGan) -> float:
    """Multiplications and additions of a step, counted where all dense layers are products."""
    made = copy_of(model, MgMnOGan)
    replace(made.critic, RowDense, nn.Linear)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as counted:
        step(made)
    return float(sum(e.flops for e in counted.key_averages() if e.key in PRODUCTS))


class Timed(TorchDispatchMode):
    """Names and times, s, of all operations, also those of the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation, timed."""
        began = time.process_time()
        out = func(*args, **(kwargs or {}))
        self.rows.append((str(func), time.process_time() - began))
        return out


def share_of_products(model: MgMnOGan) -> float:
    """Time in products and convolutions over that in all operations, each at its shortest."""
    runs = []
    for _ in range(TIMES):
        with Timed() as timed:
            step(model)
        runs.append(timed.rows)
    names = [name for name, _ in runs[0]]
    shortest = [min(t for _, t in rows) for rows in zip(*runs, strict=True)]
    of = ("aten.mm", "aten.addmm", "aten.convolution")
    return sum(t for name, t in zip(names, shortest, strict=True) if name.startswith(of)) / sum(
        shortest
    )


def in_turn(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Shortest time of each, s, of several rounds."""
    rounds = [{name: best_of(1, job)[0] for name, job in jobs.items()} for _ in range(TIMES)]
    return {name: min(times[name] for times in rounds) for name in jobs}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    save_it = parser.parse_args().save
    torch.set_num_threads(1)

    data = MgMnOGan.read(mg_mn_o.PAPER)
    model = MgMnOGan(mg_mn_o.PAPER, MgMnOGan.learn(data, mg_mn_o.PAPER))
    model.data = DESCRIPTOR.encode(data).float()
    peer = peer_of(model)
    difference = float((step(model) - step(peer)).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"losses differ by {difference}")

    a, b = torch.rand(2, SIZE, SIZE)
    image = a.view(BATCH, -1, SIZE).mT[..., None]
    seconds = in_turn(
        {
            "imd": partial(step, model),
            "straightforward port": partial(step, peer),
            "product": partial(torch.matmul, a, b),
            "convolution": partial(functional.conv2d, image, b[:, :, None, None]),
        }
    )
    needed = operations_of(model)
    rate = {name: 2.0 * SIZE**3 / seconds.pop(name) for name in ("product", "convolution")}
    share = {name: needed / seconds["imd"] / each for name, each in rate.items()}
    ratio = seconds["straightforward port"] / seconds["imd"]
    result = {
        "seconds": seconds,
        "ratio_to_straightforward_port": ratio,
        "operations_of_a_step": needed,
        "operations a second": rate,
        "share of the matrix rate": share["product"],
        "share of a convolution's rate": share["convolution"],
        "share of the time in products": share_of_products(model),
        "largest_difference": difference,
        "required": REQUIRED,
        **environment("torch"),
    }
    print(*(f"{name}: {1e3 * each:.0f} ms" for name, each in seconds.items()), sep=", ")
    for name, each in rate.items():
        print(f"{share[name]:.0%} of the rate of a {name} ({each / 1e9:.0f} GFLOP/s)")
    print(f"{result['share of the time in products']:.0%} of the time in products")
    if ratio < REQUIRED["straightforward port"]:
        raise SystemExit(f"{ratio:.2f} times as fast, {REQUIRED['straightforward port']} required")
    if save_it:
        print("wrote", save("gan_step", result))


if __name__ == "__main__":
    main()
