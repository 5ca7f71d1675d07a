"""MatGAN: published layers, the same mended, losses, training, and the autoencoder twin."""

import numpy as np
import pytest
import torch

from imd_helpers.datasets import formula_sets
from imd_helpers.models import matgan
from imd_helpers.models.matgan import FIXED, PAPER, MatGan, dice_loss
from imd_helpers.networks import layers
from imd_helpers.runtime import InputError, UnknownNameError

SMALL = {"width": 1 / 16, "batch": 8, "steps": 3, "log_every": 1}


@pytest.fixture(scope="module")
def counts():
    return formula_sets.compositions("icsd")[0]


# ---- published layers

# channels and sizes of Dan et al.'s code, with the weights that follow from them
SHAPES = {
    "oqmd": {
        **{"features": 6 * 4 * 256, "seed": 6144, "kernel": (256, 128, 5, 5)},
        "weights": 1_911_393,
    },
    "icsd": {
        **{"features": 22 * 4 * 128, "seed": 3072, "kernel": (128, 64, 5, 5)},
        "weights": 630_753,
    },
}


@pytest.mark.parametrize("network", SHAPES)
def test_networks_have_the_published_shapes(network):
    model = MatGan(PAPER.but(network=network))
    shape = SHAPES[network]
    assert model.generator.dense.out_features == shape["seed"]
    assert tuple(model.generator.layers[0].weight.shape) == shape["kernel"]
    assert model.critic.n_features == shape["features"]
    assert sum(p.numel() for p in model.generator.parameters()) == shape["weights"]
    matrix = model.generator(torch.randn(2, 128))
    assert matrix.shape == (2, 85, 8)
    assert 0 <= matrix.min() <= matrix.max() <= 1
    assert model.critic(matrix).shape == (2, 1)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(85, 8), (11, 8), (22, 8)])
def test_the_transposed_convolution_is_the_transpose_of_the_convolution(size, kernel, stride):
    """<A x, y> = <x, A^T y> for the same kernel: padding and cropping agree."""
    forward = layers.SameConv(2, 3, kernel, stride, bias=False).double()
    back = layers.SameConvTranspose(3, 2, kernel, stride, size).double()
    back.weight.data, back.bias.data = forward.weight.data, torch.zeros(2).double()
    x = torch.randn(1, 2, *size, dtype=torch.double)
    image = forward(x)
    assert image.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    y = torch.randn_like(image)
    assert torch.allclose((image * y).sum(), (x * back(y)).sum(), atol=1e-10)


def test_the_first_norm_sees_each_feature_of_the_flat_layer():
    generator = MatGan(PAPER.but(width=1 / 8)).generator.train()
    x = generator.first_norm(generator.dense(torch.randn(64, PAPER.latent)))
    assert x.mean(0).abs().max() < 1e-4
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-3


def test_published_weights_are_very_wide_and_ours_are_not():
    wide, ours = (MatGan(config).critic.score.weight for config in (PAPER, FIXED))
    assert wide.std().item() == pytest.approx(1.0, abs=0.02)
    assert ours.std().item() < 0.05


def test_norm_in_the_critic_makes_a_score_depend_on_the_rest_of_the_batch():
    torch.manual_seed(0)
    x = torch.rand(6, 85, 8)
    for flag in (True, False):
        critic = MatGan(PAPER.but(width=1 / 16, norm_in_critic=flag)).critic.train()
        same = torch.allclose(critic(x)[:2], critic(x[:2]), atol=1e-5)
        assert same is not flag


# ---- the same, mended


def test_the_mended_networks_have_the_published_layers_at_the_published_width():
    """The same names and shapes; what is gone are the batch norms of the critic."""
    paper, fixed = MatGan(PAPER), MatGan(FIXED)
    for name in ("generator", "critic"):
        published = {k: v.shape for k, v in getattr(paper, name).state_dict().items()}
        ours = {k: v.shape for k, v in getattr(fixed, name).state_dict().items()}
        gone = published.keys() - ours.keys()
        assert ours == {k: v for k, v in published.items() if k not in gone}
        assert all(key.startswith("norms.") and name == "critic" for key in gone)


def test_draws_have_the_probabilities_and_the_gradient_of_the_softmax():
    torch.manual_seed(0)
    logits = torch.randn(4, requires_grad=True)
    drawn = layers.draw(logits.expand(20_000, 4))
    assert (drawn.mean(0) - logits.softmax(0)).abs().max() < 0.015
    drawn[:, 2].sum().backward()
    assert logits.grad[2] > 0 > logits.grad[[0, 1, 3]].max()


def test_a_generator_that_draws_shows_zeros_and_ones_and_passes_a_gradient():
    model = MatGan(FIXED.but(width=1 / 8))
    torch.manual_seed(0)
    noise = torch.randn(50, FIXED.latent, requires_grad=True)
    matrix = model.generator(noise)
    assert set(matrix.detach().unique().tolist()) <= {0.0, 1.0}
    assert matrix.sum(2).max() <= 1
    assert 5 < matrix.sum((1, 2)).mean() < 20  # few rows are occupied from the start
    (matrix * torch.randn(85, 8)).sum().backward()
    assert (noise.grad.abs().sum(1) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in model.generator.parameters())


# ---- training


@pytest.mark.parametrize("loss", matgan.LOSSES)
def test_each_loss_is_what_its_name_says(counts, loss):
    model = MatGan.from_data(counts, FIXED.but(**SMALL, loss=loss))
    if loss == "clipped":
        torch.nn.init.constant_(model.critic.score.weight, 1.0)
    torch.manual_seed(0)
    terms = model.critic_terms()
    extra = 10.0 * terms["penalty"] if loss == "penalty" else 0.0
    assert terms["loss"].item() == pytest.approx((extra - terms["distance"]).item(), abs=1e-5)
    biggest = max(p.abs().max().item() for p in model.critic.parameters())
    assert (biggest <= matgan.CLIP + 1e-9) is (loss == "clipped")


@pytest.mark.parametrize("variant", MatGan.VARIANTS)
def test_training_resumes_bit_for_bit(variant, tmp_path):
    whole, _ = MatGan.train(variant, changes=SMALL | {"steps": 4}, progress=False)
    for steps in (2, 4):
        parted, _ = MatGan.train(
            variant,
            changes=SMALL | {"steps": steps, "save_every": 2},
            folder=tmp_path,
            resume=True,
            progress=False,
        )
    for one, two in zip(whole.generator.parameters(), parted.generator.parameters(), strict=True):
        assert torch.equal(one, two)


def test_keep_chooses_what_is_learned_from(counts):
    def few(compositions):
        return np.arange(len(compositions)) < 100

    model, _ = MatGan.train("fixed", changes=SMALL, keep=few, progress=False)
    assert len(model.counts) == 100


def test_saved_models_load_and_sample_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(MatGan, "HALF", False)
    for config in (PAPER, FIXED):
        model = MatGan(config.but(width=1 / 16))
        path = model.save(tmp_path / "model.safetensors")
        twin = MatGan.load(path)
        assert twin.config == model.config
        assert np.array_equal(model.sample(20).counts, twin.sample(20).counts)


# ---- the twin's loss


def test_dice_loss_of_known_overlaps():
    a, b = torch.zeros(1, 85, 8), torch.zeros(1, 85, 8)
    a[0, :4, 0] = 1
    b[0, 2:6, 0] = 1
    assert dice_loss(a, a).item() == pytest.approx(-1.0)
    assert dice_loss(a, b).item() == pytest.approx(-0.5)
    assert dice_loss(a, 1 - a).item() == pytest.approx(0.0)


# ---- wrong input


def test_wrong_settings_are_explained():
    for changes, message in (({"width": 0}, "width=0"), ({"batch": 1}, "batch=1")):
        with pytest.raises(InputError, match=message):
            FIXED.but(**changes)


@pytest.mark.parametrize(
    ("changes", "known"),
    [({"network": "ocmd"}, "oqmd"), ({"loss": "penalti"}, "penalty"), ({"data": "isd"}, "icsd")],
)
def test_unknown_names_list_the_known_ones(changes, known):
    with pytest.raises(UnknownNameError, match=known):
        FIXED.but(**changes)
