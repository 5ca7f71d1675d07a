"""Layers against what they stand for, and against torch where torch has the same."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from imd_helpers.networks import layers

HERE = "imd_helpers.networks.layers."


def test_mlp_puts_norm_and_activation_between_layers_only():
    network = layers.mlp((3, 8, 8, 2), norm=nn.BatchNorm1d, last=nn.Tanh())
    kinds = [type(layer) for layer in network]
    middle = [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU]
    assert kinds == [*middle, *middle, nn.Linear, nn.Tanh]
    assert network(torch.randn(5, 3)).shape == (5, 2)
    assert [type(layer) for layer in layers.mlp((3, 1))] == [nn.Linear]


@pytest.mark.parametrize("condition", [torch.tensor([0, 2, 1, 1]), torch.randn(4, 2)])
def test_concatenation_shows_the_body_both(condition):
    embedding = nn.Embedding(3, 5) if condition.ndim == 1 else None
    network = layers.Concatenated(nn.Identity(), embedding)
    x = torch.randn(4, 3)
    seen = network(x, condition)
    assert torch.equal(seen[:, :3], x)
    assert torch.equal(seen[:, 3:], condition if embedding is None else embedding(condition))


def test_one_number_a_sample_is_a_condition_too():
    network = layers.Concatenated(nn.Identity())
    assert network(torch.zeros(4, 3), torch.arange(4))[:, 3].tolist() == [0, 1, 2, 3]


@pytest.mark.equation("eq-cgan-projection", function=HERE + "ProjectionHead")
def test_a_projection_head_can_be_the_best_logit_of_a_labelled_mixture(agrees):
    """log p(x, c) / q(x, c) of Gaussians centred at v(c) against one at 0, set by hand."""
    centres = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.5, -1.5]], dtype=torch.float64)
    head = layers.ProjectionHead(nn.Identity(), 2, nn.Embedding(3, 3)).double()
    # the features are x and 1, so that the embedding can hold the constant of each class
    head.features, head.score = _AppendOne(), nn.Linear(3, 1).double()
    with torch.no_grad():
        head.score.weight.zero_(), head.score.bias.zero_()
        constant = -0.5 * centres.square().sum(1, keepdim=True)
        head.embedding.weight.copy_(torch.cat([centres, constant], dim=1))
    x = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    condition = torch.arange(30) % 3
    log_p = -0.5 * (x - centres[condition]).square().sum(1)
    agrees(head(x, condition)[:, 0], log_p + 0.5 * x.square().sum(1), within=1e-12)


class _AppendOne(nn.Module):
    def forward(self, x):
        return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


@pytest.mark.equation("eq-cgan-projection", function=HERE + "ProjectionHead")
def test_a_projection_head_is_a_score_and_an_inner_product(agrees):
    """psi(phi(x)) + <v(c), phi(x)> sample by sample."""
    torch.manual_seed(0)
    head = layers.ProjectionHead(layers.mlp((3, 6, 4)), 4, nn.Linear(2, 4)).double()
    x, condition = torch.randn(2, 5, 3).double().unbind(0)[0], torch.randn(5, 2).double()
    for i in range(5):
        phi = head.features(x[i])
        expected = head.score(phi) + torch.dot(head.embedding(condition[i]), phi)
        agrees(head(x, condition)[i], expected, within=1e-12)


def test_an_auxiliary_head_scores_and_predicts_from_the_same_features():
    head = layers.AuxiliaryHead(layers.mlp((3, 6)), 6, 4)
    score, prediction = head(torch.randn(5, 3))
    assert score.shape == (5, 1)
    assert prediction.shape == (5, 4)
    (slope,) = torch.autograd.grad(prediction.sum(), head.features[0].weight)
    assert slope.abs().max() > 0


@pytest.mark.equation("eq-patho-deviation", function=HERE + "MinibatchDeviation")
def test_a_batch_of_copies_has_no_deviation(agrees):
    """Mean standard deviation of the columns, by NumPy; near 0 for a batch of copies."""
    x = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = layers.MinibatchDeviation()
    found = layer(x)
    assert torch.equal(found[:, :6], x)
    agrees(found[:, 6], x.numpy().std(axis=0).mean(), within=1e-7)
    copies = x[:1].expand(50, 6).clone().requires_grad_()
    seen = layer(copies)[:, 6]
    assert float(seen.detach().max()) < 2e-4
    (slope,) = torch.autograd.grad(seen.sum(), copies)
    assert torch.isfinite(slope).all()


@pytest.mark.equation("eq-patho-spectral", function=HERE + "spectral_norm")
def test_spectral_norm_brings_the_largest_singular_value_to_one(agrees):
    """Largest singular value of every layer by numpy.linalg, after 60 forward passes."""
    torch.manual_seed(0)
    network = layers.spectral_norm(layers.mlp((5, 16, 16, 1))).double()
    for _ in range(60):
        network(torch.randn(4, 5).double())
    for layer in (network[0], network[2], network[4]):
        agrees(torch.linalg.matrix_norm(layer.weight, ord=2), 1.0, within=1e-3)


@pytest.mark.equation("eq-patho-spectral", function=HERE + "SpectralNorm")
def test_spectral_norm_is_torchs_own_step_by_step(agrees):
    """torch.nn.utils.parametrizations.spectral_norm from the same seed: weights and gradients."""
    found = []
    for wrap in (parametrizations.spectral_norm, layers.spectral_norm):
        torch.manual_seed(0)
        layer = wrap(nn.Linear(7, 5).double())
        assert wrap is parametrizations.spectral_norm or isinstance(
            layer.parametrizations.weight[0], layers.SpectralNorm
        )
        numbers = []
        for seed in range(3):
            x = torch.randn(6, 7, generator=torch.Generator().manual_seed(seed)).double()
            loss = (layer(x) * layer(2 * x)).square().sum()  # two passes before one backward
            numbers += [loss, *torch.autograd.grad(loss, list(layer.parameters()))]
        layer.eval()
        numbers.append(layer.weight)
        found.append(torch.cat([n.detach().flatten() for n in numbers]))
    agrees(found[1], found[0], within=1e-10, relative=True)


def test_spectral_norm_of_a_convolution_is_torchs_own():
    found = []
    for wrap in (parametrizations.spectral_norm, layers.spectral_norm):
        torch.manual_seed(0)
        layer = wrap(nn.Conv2d(3, 4, 2))
        found.append(layer(torch.ones(1, 3, 4, 4)))
    torch.testing.assert_close(found[0], found[1])
