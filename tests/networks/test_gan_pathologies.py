"""Errors of published code that run without a complaint, against closed forms."""

import math

import pytest
import torch
from torch import nn

from imd_helpers.check import CHECKS
from imd_helpers.check import networks as checks
from imd_helpers.networks import layers, losses

HERE = "imd_helpers.check.networks."


@pytest.mark.equation("eq-patho-eps", function=HERE + "kept_by_batch_norm")
@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("eps", [1e-5, 0.8])
def test_batch_norm_with_a_large_eps_leaves_narrow_features_narrow(spread, eps, agrees):
    """torch's BatchNorm1d(1, eps) on 4,096 numbers of a known standard deviation."""
    x = torch.randn(4096, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = spread * (x - x.mean()) / x.std(correction=0)
    layer = nn.BatchNorm1d(1, eps).double()
    found = layer(x).std(correction=0)
    agrees(found, checks.kept_by_batch_norm(spread, eps), within=1e-6)


@pytest.mark.equation("eq-patho-floor", function=HERE + "double_softmax_floor")
@pytest.mark.parametrize("classes", [2, 5, 12])
def test_a_second_softmax_puts_a_floor_under_the_cross_entropy(classes, agrees):
    """Gradient descent on the logits through both softmaxes, and log(1 + (K - 1) / e)."""
    logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        loss = losses.auxiliary_class_loss(logits.softmax(1), torch.zeros(1, dtype=torch.long))
        loss.backward()
        optimizer.step()
    floor = checks.double_softmax_floor(classes)
    agrees(loss, floor, within=1e-4)
    agrees(floor, math.log(1 + (classes - 1) / math.e), within=1e-12)


def test_the_chance_to_leave_the_segment_is_that_of_the_drawn_weights():
    real, fake = torch.zeros(100_000, 1), torch.ones(100_000, 1)
    torch.manual_seed(0)
    weights = losses.mix(real, fake, mixing="normal")[:, 0]
    outside = ((weights < 0) | (weights > 1)).double().mean()
    assert float(outside) == pytest.approx(CHECKS["gan_pathologies.4"].truth(), abs=0.005)


def test_batch_norm_makes_the_slope_of_a_sample_depend_on_the_others():
    torch.manual_seed(0)
    x = torch.randn(6, 2)
    for norm, mixed in ((nn.BatchNorm1d, True), (nn.LayerNorm, False)):
        critic = layers.mlp((2, 16, 16, 1), norm=norm)
        slopes = torch.autograd.functional.jacobian(lambda x, c=critic: c(x).squeeze(1), x)
        others = slopes[~torch.eye(6, dtype=torch.bool)].abs().max()
        assert (float(others) > 1e-3) == mixed


@pytest.mark.parametrize("number", range(1, 5))
def test_every_answer_can_be_checked(number):
    check = CHECKS[f"gan_pathologies.{number}"]
    truth = check.truth()
    assert check.right(truth)
    assert not check.right(1.5 * truth)
