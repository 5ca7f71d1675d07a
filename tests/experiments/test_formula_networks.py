"""Networks that only the experiment on formulas trains: the twin, and draws all at once."""

import pytest
import torch

from imd_helpers.crystals.compositions import amounts
from imd_helpers.datasets import formula_sets
from imd_helpers.descriptors.composition_matrix import CompositionMatrix
from imd_helpers.models.matgan import PAPER, dice_loss
from imd_helpers.models.sequence_gan import ICSD


@pytest.fixture(scope="module")
def script(experiment):
    return experiment("matgan")


def test_the_autoencoder_learns_a_few_compositions(script):
    torch.manual_seed(0)
    counts = formula_sets.compositions("icsd")[0]
    model = script.Autoencoder(PAPER.but(width=1 / 8, latent=16))
    matrix = CompositionMatrix.matrices(counts[:8])
    adam = torch.optim.Adam(model.parameters(), 2e-2)
    first = last = 0.0
    for step in range(100):
        loss = dice_loss(model(matrix), matrix)
        first, last = (loss.item() if step == 0 else first), loss.item()
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert last < first - 0.3


def test_draws_at_once_show_zeros_and_ones_and_pass_a_gradient(script):
    model = script.AtOnce(ICSD.but(width=1 / 8, gradient="path", entropy=0.0))
    torch.manual_seed(0)
    noise = torch.randn(50, ICSD.latent, requires_grad=True)
    matrix = model.generator(noise)
    assert set(matrix.detach().unique().tolist()) <= {0.0, 1.0}
    assert matrix.sum(2).max() <= 1
    (matrix * torch.randn(85, 8)).sum().backward()
    assert (noise.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("other", "near"), [("KCl", True), ("KBr", False), ("Na2Cl", False)])
def test_formulas_share_a_hole_if_one_element_is_exchanged(script, other, near):
    one, two = (set(script.holes(row)) for row in amounts(["NaCl", other]))
    assert bool(one & two) is near
