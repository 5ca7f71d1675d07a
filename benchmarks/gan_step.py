"""A step of the Mg-Mn-O GAN's critic and classifier at the published sizes, on one core.

    python benchmarks/gan_step.py [--save]

One step is loss and gradients of the critic, with its penalty, and of the classifier, 32 matrices
each. The peer computes the same with two-dimensional convolutions over (channels, rows, 1), as the
published code is written; losses must agree to 1e-5. The share of the machine's rate is the
multiplications that the step needs in a second, over those of one large product of matrices. What
limits it is measured as well: the same products of the same sizes, one by one and nothing else.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse

import torch
from common import best_of, environment, save
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from imd_helpers.models import coordinate_networks, mg_mn_o
from imd_helpers.models.coordinate_rows import DESCRIPTOR
from imd_helpers.models.mg_mn_o import MgMnOGan

REQUIRED = {"convolutions": 1.0}
TIMES, SIZE = 10, 1024
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def step(model: MgMnOGan) -> Tensor:
    """Losses of critic and classifier, with gradients of all weights."""
    torch.manual_seed(0)
    for part in (model.critic, model.classifier):
        part.zero_grad(set_to_none=True)
    losses = torch.stack([model.critic_terms()["loss"], model.classifier_terms()["loss"]])
    losses.sum().backward()
    return losses.detach()


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
            if isinstance(layer, coordinate_networks.Pointwise):
                linear, norm, activation = layer
                x = dense(linear, x)
                x = functional.batch_norm(
                    x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
                )
                x = activation(x)
            else:
                x = dense(layer, x) if isinstance(layer, nn.Linear) else layer(x)
        return x[..., 0].mT


def peer_of(model: MgMnOGan) -> MgMnOGan:
    """The same weights, with convolutions wherever rows are read."""
    made = MgMnOGan(model.config, model.learnt)
    made.data = model.data
    for name, network in model.networks.items():
        made.networks[name].load_state_dict(network.state_dict())
    made.critic.rows = Convolved(made.critic.rows)
    made.classifier.states = nn.ModuleList(map(Convolved, made.classifier.states))
    return made


def products_of(model: MgMnOGan) -> list[tuple[float, int, int, int]]:
    """Operations of each size of product in a step, and the size: (n, k) times (k, m)."""
    with profile(activities=[ProfilerActivity.CPU], with_flops=True, record_shapes=True) as counted:
        step(model)
    found = []
    for event in counted.key_averages(group_by_input_shape=True):
        if event.key in PRODUCTS:
            (n, k), (_, m) = [size for size in event.input_shapes if len(size) == 2][-2:]
            found.append((float(event.flops), n, k, m))
    return found


def alone(products: list[tuple[float, int, int, int]]) -> float:
    """Seconds of these products by themselves."""
    total = 0.0
    for flops, n, k, m in products:
        one, _ = best_of(TIMES, torch.matmul, torch.rand(n, k), torch.rand(k, m))
        total += one * flops / (2.0 * n * k * m)
    return total


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

    products = products_of(model)
    flops = sum(product[0] for product in products)
    a, b = torch.rand(2, SIZE, SIZE)
    machine = 2.0 * SIZE**3 / best_of(TIMES, torch.matmul, a, b)[0]
    ours, _ = best_of(TIMES, step, model)
    theirs, _ = best_of(TIMES, step, peer)
    share, bare = flops / ours / machine, alone(products)
    result = {
        "seconds": {"imd": ours, "convolutions": theirs},
        "ratio_to_convolutions": theirs / ours,
        "operations_of_a_step": flops,
        "share of the matrix rate": share,
        "share of the step in products": bare / ours,
        "share of the matrix rate, products alone": flops / bare / machine,
        "largest_difference": difference,
        "required": REQUIRED,
        **environment("torch"),
    }
    print(f"a step: {ours * 1e3:.0f} ms, with convolutions {theirs * 1e3:.0f} ms")
    print(f"{share:.0%} of the machine's matrix rate ({machine / 1e9:.0f} GFLOP/s)")
    bound = flops / bare / machine
    print(f"its products alone: {bare / ours:.0%} of the time, {bound:.0%} of the rate")
    if theirs / ours < REQUIRED["convolutions"]:
        raise SystemExit(f"{theirs / ours:.2f} times as fast, {REQUIRED['convolutions']} required")
    if save_it:
        print("wrote", save("gan_step", result))


if __name__ == "__main__":
    main()
