"""The loop over epochs on a line that is known."""

import pytest
import torch
from torch import nn

from imd_helpers.networks.epochs import fit_epochs, seeded, shuffled
from imd_helpers.runtime import InputError


def line(**options):
    """Fit y = 3 x + 1 on 100 points."""
    with seeded(0):
        x = torch.rand(100, 1)
        network = nn.Linear(1, 1)
        rows = fit_epochs(
            network,
            lambda: shuffled(100, 32),
            lambda at: {"loss": (network(x[at]) - 3 * x[at] - 1).square().mean()},
            **{"epochs": 200, "lr": 0.05} | options,
        )
    return network, rows


def test_it_finds_the_line_and_reports_each_epoch():
    network, rows = line(falling=800)
    assert network.weight.item() == pytest.approx(3.0, abs=1e-2)
    assert network.bias.item() == pytest.approx(1.0, abs=1e-2)
    assert [row["epoch"] for row in rows] == list(range(1, 201))
    assert rows[-1]["loss"] < 1e-4 < rows[0]["loss"]


def test_means_count_every_example_once():
    """The last of four batches has 4 rows and counts as much as 4 rows."""
    network = nn.Linear(1, 1)
    terms = {32: 1.0, 4: 10.0}
    (row,) = fit_epochs(
        network,
        lambda: shuffled(100, 32),
        lambda at: {"loss": network.weight.sum(), "seen": torch.tensor(terms[len(at)])},
        epochs=1,
        lr=0.0,
    )
    assert row["seen"] == pytest.approx((96 * 1.0 + 4 * 10.0) / 100)


def test_every_row_comes_once_an_epoch():
    rows = torch.cat([at for at, _ in shuffled(10, 3)])
    assert sorted(rows.tolist()) == list(range(10))


def test_each_step_is_announced():
    steps = []
    line(epochs=2, after_step=lambda: steps.append(1))
    assert len(steps) == 2 * 4


def test_a_loss_that_is_not_finite_stops_the_training():
    with pytest.raises(InputError, match="in epoch 1: lower lr"):
        line(lr=1e30)


def test_seeds_leave_the_global_numbers_alone():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(3)
    assert torch.rand(1) == before
