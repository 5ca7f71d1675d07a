"""ZeoGAN: networks that know no border, statistics and heats by loops, training, failures."""

import math

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.datasets.splits import split_of_name
from imd_helpers.descriptors.methane_grid import MethaneGrid, heat_of_adsorption, scale_energy
from imd_helpers.models import zeogan
from imd_helpers.models import zeogan_networks as networks
from imd_helpers.models.zeogan import PAPER, ZeoConfig, ZeoGan
from imd_helpers.models.zeogan_networks import (
    Critic,
    Generator,
    PeriodicConv,
    PeriodicConvTranspose,
)
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError

GRID = MethaneGrid(points=16)


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


@pytest.fixture(scope="module")
def frameworks():
    return imd.datasets.load("iza_zeolites").structures(["ACO", "GIS", "SOD"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zeogan")
    return *ZeoGan.train(folder=folder, progress=False), folder


# ---- networks


def test_published_sizes():
    """32^3 grids of 44 million weights, as counted in the published code."""
    with torch.device("meta"):
        networks = Generator(PAPER), Critic(PAPER)
    total = sum(p.numel() for network in networks for p in network.parameters())
    assert round(total / 1e6) == 44


@verifies("eq-zeogan-transpose", "models.zeogan_networks.PeriodicConvTranspose")
@pytest.mark.parametrize(("stride", "training"), [(1, True), (1, False), (2, True)])
def test_a_transposed_convolution_point_by_point(stride, training, agrees):
    """Loops over points and taps, counted round the edges; training has a way of its own."""
    torch.manual_seed(0)
    layer = PeriodicConvTranspose(2, 3, stride=stride).double().train(training)
    x, n = torch.randn(1, 2, 4, 4, 4).double(), 4 * stride
    expected = np.zeros((3, n, n, n))
    for point in np.ndindex(4, 4, 4):
        for tap in np.ndindex(5, 5, 5):
            place = (stride * np.array(point) + np.array(tap) - 2) % n
            weight = layer.weight[(slice(None), slice(None), *tap)].detach().numpy()
            expected[(slice(None), *place)] += x[(0, slice(None), *point)].numpy() @ weight
    agrees(layer(x)[0].detach().numpy(), expected, within=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_roll_of_the_input_rolls_the_output(stride):
    torch.manual_seed(0)
    layer = PeriodicConvTranspose(2, 3, stride=stride)
    x = torch.randn(1, 2, 4, 4, 4)
    rolled = layer(torch.roll(x, (1, 2, 3), (2, 3, 4)))
    steps = tuple(stride * step for step in (1, 2, 3))
    assert torch.allclose(rolled, torch.roll(layer(x), steps, (2, 3, 4)), atol=1e-6)
    bordered = PeriodicConvTranspose(2, 3, stride=stride, periodic=False)
    bordered.load_state_dict(layer.state_dict())
    assert bordered(x).shape == rolled.shape
    assert not torch.allclose(bordered(x), layer(x), atol=1e-3)
    wide = torch.randn(1, 2, 8, 8, 8)
    inside = (..., *[slice(2 * stride, 6 * stride)] * 3)
    assert torch.allclose(bordered(wide)[inside], layer(wide)[inside], atol=1e-6)


def test_training_and_sampling_have_the_same_slopes():
    """The last convolution goes another way in training: outputs and all gradients are equal."""
    torch.manual_seed(0)
    layer = PeriodicConvTranspose(2, 3, stride=1).double()
    x = torch.randn(2, 2, 5, 5, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for training in (True, False):
        out = layer.train(training)(x)
        found.append([out, *torch.autograd.grad(out.square().sum(), (x, layer.weight))])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))


def one_step(model):
    """Losses of both turns, and gradients of all weights."""
    torch.manual_seed(0)
    found = []
    for part, terms in ((model.critic, "critic_terms"), (model.generator, "generator_terms")):
        part.zero_grad()
        loss = getattr(model, terms)()["loss"]
        loss.backward(inputs=list(part.parameters()))
        found += [loss, *(p.grad for p in part.parameters())]
    return [each.detach().clone() for each in found]


def test_a_step_is_that_of_plain_layers(frameworks, monkeypatch):
    """Rows moved in memory, pairs, eights and taps change no loss and no gradient."""
    config = ZeoGan.recipe("fixed", profile="smoke").but(low=18.0, high=22.0)
    model = ZeoGan.from_data(CrystalBatch.from_structures(list(frameworks.values())), config)
    model.grids, model.lengths = model.grids.double(), model.lengths.double()
    model.noise = lambda n: torch.randn(n, config.latent, dtype=torch.float64)
    for network in model.networks.values():
        network.double()
    ours = one_step(model)
    monkeypatch.setattr(networks, "is_pointwise", lambda x: False)
    monkeypatch.setattr(
        PeriodicConv,
        "forward",
        lambda self, x: self._conv_forward(
            torch.nn.functional.pad(x, 6 * [2], mode="circular"), self.weight, self.bias
        ),
    )
    monkeypatch.setattr(
        PeriodicConvTranspose,
        "tap_by_tap",
        lambda self, x: networks.folded(
            torch.nn.functional.conv_transpose3d(x, self.weight), x.shape[-1]
        ),
    )
    plain = one_step(model)
    assert len(ours) == 2 + sum(len(list(n.parameters())) for n in model.networks.values())
    assert all(torch.allclose(a, b, rtol=1e-8, atol=1e-9) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("channels", [2, 3])
def test_the_critic_pads_as_torch_does(channels):
    """Outputs bit for bit those of torch's circular padding, and a penalty's gradients.

    With gradients by few channels the critic goes another way.
    """
    torch.manual_seed(0)
    layer = PeriodicConv(channels, 3, stride=2)
    theirs = torch.nn.Conv3d(channels, 3, 5, 2, 2, padding_mode="circular")
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, channels, 8, 8, 8)
    assert torch.equal(layer(x), theirs(x))
    slopes = []
    for one in (layer.double(), theirs.double()):
        y = x.double().requires_grad_(True)
        (slope,) = torch.autograd.grad(one(y).square().sum(), y, create_graph=True)
        slopes.append(torch.autograd.grad(slope.square().sum(), one.weight)[0])
    assert torch.allclose(*slopes, rtol=1e-9)


def test_the_critics_features_know_no_origin():
    """A roll by the product of its strides moves features and leaves their sum."""
    config = ZeoGan.recipe(profile="full")
    critic = Critic(config).eval()
    x = torch.rand(1, 3, 16, 16, 16)
    rolled = torch.roll(x, (4, 8, 12), (2, 3, 4))
    a, b = critic.features(x), critic.features(rolled)
    assert torch.allclose(torch.roll(a, (1, 2, 3), (2, 3, 4)), b, atol=1e-4)


# ---- statistics and heats


def test_the_heat_is_that_of_the_descriptor(frameworks):
    energy = np.stack([GRID.energy(one) for one in frameworks.values()])
    scaled = torch.as_tensor(np.stack([scale_energy(one) for one in energy]))
    found = zeogan.heats(scaled.double())
    expected = [heat_of_adsorption(one) for one in energy]
    assert found.tolist() == pytest.approx(expected, abs=2e-3)


@verifies("eq-zeogan-free", "models.zeogan.free_energies")
def test_the_log_of_a_mean_of_boltzmann_factors(frameworks, agrees):
    """NumPy's mean of exp(-x / T) over the densities of O of three zeolites."""
    density = GRID.encode(CrystalBatch.from_structures(list(frameworks.values())))[:, 1].double()
    expected = np.log(np.exp(-density.numpy() / 0.06).mean((1, 2, 3)))
    agrees(zeogan.free_energies(density, 0.06).numpy(), expected, within=1e-9)


@verifies("eq-zeogan-matching", "models.zeogan.statistics_loss")
def test_statistics_by_plain_sums(frameworks, agrees):
    """NumPy's means and deviations of ln < exp(-x / T) > of three zeolites and two altered ones."""
    batch = CrystalBatch.from_structures(list(frameworks.values()))
    grids = GRID.encode(batch).double()
    other = 0.9 * grids.flip(0)[:2]
    total = 0.0
    for channel, temperature in enumerate((298.0, 0.06, 0.06)):
        stats = []
        for some in (grids, other):
            x = some[:, channel].numpy()
            x = 5000.0 - 9000.0 * x if channel == 0 else x
            stats.append(np.log(np.exp(-x / temperature).mean((1, 2, 3))))
        total += abs(stats[0].mean() - stats[1].mean()) + abs(stats[0].std() - stats[1].std())
    ours, theirs = zeogan.statistics(grids), zeogan.statistics(other)
    agrees(zeogan.statistics_loss(ours, theirs).item(), total, within=1e-4)
    assert zeogan.statistics_loss(ours, ours.flip(0)).item() == pytest.approx(0.0, abs=1e-9)


@verifies("eq-zeogan-target", "models.zeogan.target_loss")
def test_the_target_pulls_from_both_sides(agrees):
    """Two of five heats are outside, by factors of 1.8 and 1.82; gradients have the right signs."""
    heat = torch.tensor([10.0, 18.0, 20.0, 22.0, 40.0], requires_grad=True)
    loss = zeogan.target_loss(heat, 18.0, 22.0)
    expected = (math.log(18 / 10) ** 2 + math.log(40 / 22) ** 2) / 5
    agrees(loss.item(), expected, within=1e-5)
    loss.backward()
    assert heat.grad.sign().tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0]
    none = torch.tensor([-24.0], requires_grad=True)
    found = zeogan.target_loss(none, 18.0, 22.0)
    found.backward()
    assert found.item() == pytest.approx(math.log(18 / 5) ** 2, rel=1e-5)
    assert none.grad.tolist() == [0.0]


# ---- data


@pytest.mark.parametrize("turns_only", [True, False])
def test_augmented_grids_are_those_of_the_moved_framework(frameworks, turns_only):
    """Encoding after a shift and an exchange of axes gives one of the grids; heats stay."""
    batch = CrystalBatch.from_structures([frameworks["GIS"], frameworks["ACO"]] * 12)
    grids = GRID.encode(batch).float()
    torch.manual_seed(1)
    moved, lengths = zeogan.augmented(grids, batch.lattice.norm(dim=2), turns_only=turns_only)
    back = MethaneGrid(points=16).decode(moved, torch.diag_embed(lengths))
    assert back.ok.all()
    assert zeogan.heats(moved[:, 0]).tolist() == pytest.approx(
        zeogan.heats(grids[:, 0]).tolist(), abs=1e-4
    )
    assert len({tuple(each) for each in lengths[::2].tolist()}) == 3  # one edge of GIS is longer


def test_the_split_is_by_framework_type():
    """Of a split only its own codes are read, with edges at right angles and short enough."""
    config = ZeoGan.recipe(profile="smoke")
    table = imd.datasets.load("iza_zeolites")
    codes = [c for c in table.table["code"][table.is_exact_sio2] if split_of_name(c) == "val"]
    cells = [one.lattice for one in table.structures(codes).values()]
    fit = [one for one in cells if one.is_orthogonal and max(one.abc) <= config.longest]
    found = ZeoGan.read(config, "val")
    assert 0 < len(found) == len(fit) < len(cells)
    assert found.lattice.norm(dim=2).max() <= config.longest


# ---- training and samples


def test_it_trains_is_saved_and_sampled(trained):
    model, history, folder = trained
    row = history.rows[-1]
    assert {"critic_cell", "critic_penalty", "generator_matching"} <= row.keys()
    assert all(math.isfinite(value) for value in row.values())
    made = model.sample(5, seed=2)
    assert len(made) == 5
    assert all(made.reasons[i] for i in np.flatnonzero(~made.ok))
    assert made.asked["heat"].shape == (5,)
    loaded = ZeoGan.load(folder / "model.safetensors")
    again = loaded.sample(5, seed=2)
    assert again.asked["heat"] == pytest.approx(made.asked["heat"], rel=0.02)  # 16-bit weights


def test_one_goes_on_from_the_weights_of_another(frameworks):
    """`target` begins with the trained weights of `fixed`, and then leaves them."""
    config = ZeoGan.recipe("target", profile="smoke").but(steps=1)
    model = ZeoGan.from_data(CrystalBatch.from_structures(list(frameworks.values())), config)
    first = imd.models.load("zeogan").generator.state_dict()
    assert all(torch.equal(v, model.generator.state_dict()[k]) for k, v in first.items())
    fit(model, config.train, progress=False)
    assert any(not torch.equal(v, model.generator.state_dict()[k]) for k, v in first.items())


def test_the_critic_sees_generated_grids_moved(frameworks):
    """With ``both_moved`` the same noise gives grids at other origins, with their lengths."""
    data = CrystalBatch.from_structures(list(frameworks.values()))
    model = ZeoGan.from_data(data, ZeoGan.recipe("fixed", profile="smoke"))
    model.noise = lambda n: torch.ones(n, model.config.latent)
    model.generator.eval()
    with torch.no_grad():
        moved = model.made()[0]
        model.config = model.config.but(both_moved=False)
        same = model.made()[0]
    assert torch.allclose(same[0], same[1])
    assert not torch.allclose(moved[0], moved[1])
    assert torch.allclose(moved[0].sort().values.sum(), same[0].sum(), rtol=1e-4)


def test_samples_are_normalised_as_training_saw_them(frameworks):
    """Right after a large step of the weights, whatever the running means were."""
    data = CrystalBatch.from_structures(list(frameworks.values()))
    model = ZeoGan.from_data(data, ZeoGan.recipe("fixed", profile="smoke"))
    with torch.no_grad():
        model.generator.first.weight.mul_(10.0).add_(0.5)
        model.generator.train()
        seen = torch.cat([model.generator(model.noise(8))[0] for _ in range(32)])
    sampled, _ = model.raw(0, 128, seed=0)
    assert sampled.mean().item() == pytest.approx(seen.mean().item(), rel=0.03)
    assert sampled.std().item() == pytest.approx(seen.std().item(), rel=0.1)
    again, _ = model.raw(0, 128, seed=0)
    assert torch.equal(sampled, again)


def test_a_target_adds_its_own_term(frameworks):
    config = ZeoGan.recipe("fixed", profile="smoke").but(low=18.0, high=22.0)
    model = ZeoGan.from_data(CrystalBatch.from_structures(list(frameworks.values())), config)
    terms = model.generator_terms()
    assert terms["target"].item() >= 0
    terms["target"].backward(retain_graph=True)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.generator.parameters())


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"points": 20}, "doubles"), ({"low": 18.0}, "two heats"), ({"low": 3.0, "high": 2.0}, "two")],
)
def test_settings_that_cannot_be(bad, says):
    with pytest.raises(InputError, match=says):
        ZeoConfig(**bad)
