"""CubicGAN: published sizes, quirks as switches, conditions, resuming, files."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from imd_helpers import models
from imd_helpers.crystals import elements
from imd_helpers.crystals.geometry import min_image_distances
from imd_helpers.descriptors.symmetry_sites import SPACE_GROUPS, SymmetrySites, decode_sites
from imd_helpers.models import cubicgan
from imd_helpers.models.cubic_sites import APART, LABEL_SOURCES, room_and_contacts
from imd_helpers.models.cubicgan import FIXED, PAPER, CubicGan, Labels
from imd_helpers.networks import checkpoint, fit, layers
from imd_helpers.runtime import InputError, UnknownNameError

TINY = {"width": 1 / 64, "batch": 16, "steps": 3, "log_every": 1, "save_every": 2}


@pytest.fixture(scope="module")
def sites():
    return cubicgan.training_sites()


@pytest.fixture(scope="module", params=["fixed", "paper"])
def tiny(request, sites):
    return CubicGan.from_data(sites, CubicGan.VARIANTS[request.param].but(**TINY))


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_published_size(sites):
    """3.54 M and 28.5 M weights, counted from the published layers."""
    model = CubicGan.from_data(sites, PAPER)
    assert round(count(model.generator) / 1e6, 2) == 3.54
    assert round(count(model.critic) / 1e6, 1) == 28.5


def test_row_convolution_equals_the_convolution_it_stands_for():
    layer = layers.RowConv(5, 7, 2)
    x = torch.randn(4, 3, 5)
    weight = layer.dense.weight.view(7, 2, 5).transpose(1, 2)  # (out, in, width)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), weight, layer.dense.bias)
    torch.testing.assert_close(layer(x), expected.transpose(1, 2))


def test_row_transposed_convolution_equals_torchs():
    layer = layers.RowConvTranspose(5, 7)
    x = torch.randn(4, 2, 5)
    weight = layer.conv.dense.weight.view(7, 2, 5).flip(1).permute(2, 0, 1)  # (in, out, width)
    expected = torch.nn.functional.conv_transpose1d(
        x.transpose(1, 2), weight, layer.conv.dense.bias
    )
    torch.testing.assert_close(layer(x), expected.transpose(1, 2))


def test_split_sizes_add_up_to_the_published_filter(sites):
    everything = cubicgan.training_sites(None)
    assert len(everything) == 943
    parts = [len(cubicgan.training_sites(s)) for s in ("train", "val", "test")]
    assert sum(parts) == 943
    assert parts[0] == len(sites)


def test_generator_makes_scaled_descriptors(tiny):
    labels = Labels(torch.tensor([0, 1, 2]), torch.tensor([[0, 1, 2]] * 3))
    tensor = tiny.generate(labels)
    assert tensor.shape == (3, 3, 28)
    assert tensor[:, :, :3].abs().max() <= 1
    assert torch.equal(tensor[:, :, 27], torch.eye(3))
    torch.testing.assert_close(tensor[:, :, 3:26], tiny.table[labels.element])
    assert (tensor[:, :, 26] == tensor[:, :1, 26]).all()  # one length in all rows


def test_published_length_head_cannot_see_the_elements(sites):
    """Change the elements, keep the positions: the published length stays, the fixed one moves."""
    for config, moves in ((PAPER, False), (FIXED, True)):
        model = CubicGan.from_data(sites, config.but(**TINY))
        model.generator.eval()
        position = torch.zeros(1, 9)
        lengths = []
        for element in (0, 40):
            hidden = model.generator.hidden(
                torch.zeros(1, 128), torch.tensor([0]), model.table[torch.tensor([[element, 1, 2]])]
            )
            seen = torch.cat([position, hidden], 1) if moves else position
            lengths.append(model.generator.length(seen))
        assert bool((lengths[0] != lengths[1]).all()) is moves


def test_snapped_positions_lie_on_the_grid_and_pass_the_gradient(sites):
    model = CubicGan.from_data(sites, FIXED.but(**TINY))
    position = torch.rand(5, 3, 3, requires_grad=True)
    snapped = model.descriptor.snap_position(position)
    quarters = (snapped.detach() + 1) * 0.375 * 4
    torch.testing.assert_close(quarters, quarters.round(), atol=1e-5, rtol=0)
    snapped.sum().backward()
    assert (position.grad == 1).all()


def test_frozen_labels_never_change_and_live_ones_do(sites):
    def fake_elements(config, n):
        game = CubicGan.from_data(sites, config.but(**TINY))
        rows = []
        for _ in range(n):
            for _ in range(5):
                rows.append(game.fake()[:, :, 3:26])
            rows.append(game.fake()[:, :, 3:26])
            game.batch, game.turn = None, 0
        return torch.stack(rows)  # (calls, batch, 3, 23)

    torch.manual_seed(0)
    frozen = fake_elements(PAPER, 3)
    assert torch.equal(frozen[:6], frozen[6:12])
    assert torch.equal(frozen[:6], frozen[12:])
    assert not torch.equal(frozen[0], frozen[1])  # six sets, not one
    live = fake_elements(PAPER.but(frozen_labels=False), 3)
    assert not torch.equal(live[:6], live[6:12])


def test_one_real_batch_is_shared_by_the_critic_steps_of_an_iteration_only(sites):
    game = CubicGan.from_data(sites, PAPER.but(**TINY))
    first, second = game.real()[0], game.real()[0]
    assert torch.equal(first, second)
    game.generator_terms()
    assert not torch.equal(first, game.real()[0])


def test_penalty_is_not_detached_and_the_critic_trains_alone(tiny):
    terms = tiny.critic_terms()
    weights = list(tiny.critic.parameters())
    slope = torch.autograd.grad(terms["penalty"], weights, allow_unused=True, retain_graph=True)
    assert any(g is not None and g.abs().max() > 0 for g in slope)
    to_generator = torch.autograd.grad(
        terms["loss"], list(tiny.generator.parameters()), allow_unused=True
    )
    assert all(g is None for g in to_generator)


def test_training_resumes_to_the_same_weights(sites, tmp_path):
    def trained(folder, steps, resume=False):
        config = PAPER.but(**{**TINY, "steps": steps})
        model = CubicGan.from_data(sites, config, seed=1)
        fit(model, config.train, folder=folder, resume=resume, progress=False)
        return torch.cat([p.detach().flatten() for p in model.generator.parameters()])

    trained(tmp_path / "a", 2)
    resumed = trained(tmp_path / "a", 4, resume=True)
    assert torch.equal(resumed, trained(tmp_path / "b", 4))


def test_room_and_contacts_are_those_of_the_whole_crystals(sites):
    some = sites[np.arange(0, len(sites), 40)]
    small = dataclasses.replace(some, length=0.6 * some.length)  # so that atoms are too near
    descriptor = SymmetrySites.fit(sites)
    room, near = room_and_contacts(descriptor.encode_sites(small), descriptor)
    crystals = decode_sites(small).crystals
    radii = elements.filled(["atomic_radius"])[:, 0]
    contacts = []
    for i, structure in enumerate(crystals.structures()):
        z = np.array(structure.atomic_numbers)
        assert room[i].exp() == pytest.approx(structure.volume / (radii[z] ** 3).sum(), rel=1e-4)
        distance = min_image_distances(crystals[i : i + 1])[0].numpy()
        a, b, c = dict.fromkeys(z)
        for one, two in ((a, b), (a, c), (b, c), (a, a), (b, b), (c, c)):
            least = distance[np.ix_(z == one, z == two)]
            least = min(least[least > 0.05], default=np.inf)
            least = min(least, structure.lattice.a) if one == two else least
            contacts.append(max(0.0, APART * (radii[one] + radii[two]) - least))
    assert max(contacts) > 0.3
    assert float(near) == pytest.approx(np.mean(contacts), rel=1e-3)


def test_physics_in_the_loss_reaches_lengths_and_positions(sites):
    model = CubicGan.from_data(sites, FIXED.but(**TINY, distances=1.0, cell=1.0))
    small = dataclasses.replace(sites[:100], length=0.5 * sites.length[:100])
    made = model.descriptor.encode_sites(small).requires_grad_()
    room, near = room_and_contacts(made, model.descriptor)
    (room.sum() + near).backward()
    slope = made.grad.abs().sum((0, 1))
    assert slope[0:3].min() > 0
    assert slope[26] > 0
    terms = model.generator_terms()
    assert terms["too_near"] > 0
    assert terms["cell"] > 0
    assert "cell" not in CubicGan.from_data(sites, FIXED.but(**TINY)).generator_terms()


@pytest.mark.parametrize("source", LABEL_SOURCES)
def test_samples_are_reproducible_and_all_there(tiny, source):
    decoded = tiny.sample(200, seed=3, condition={"labels": source})
    requested = decoded.asked["space_group"]
    again = tiny.sample(200, seed=3, condition={"labels": source})
    other = tiny.sample(200, seed=4, condition={"labels": source})
    assert len(decoded) == len(requested) == 200
    assert decoded.crystals.formulas() == again.crystals.formulas()
    assert decoded.crystals.formulas() != other.crystals.formulas()
    assert set(requested) <= set(SPACE_GROUPS)


def test_data_labels_never_repeat_an_element_and_keep_the_row_order(sites):
    model = CubicGan.from_data(sites, FIXED.but(**TINY))
    torch.manual_seed(0)
    labels = model.labels.draw(3000, source="data")
    ordered = labels.element.sort(1).values
    assert (ordered[:, 1:] != ordered[:, :-1]).all()
    numbers = np.array(model.descriptor.element_numbers)[labels.element]
    chi = elements.column("electronegativity")[numbers]
    assert (np.diff(chi, axis=1) >= 0).all()


def test_conditions_are_obeyed(tiny):
    condition = {"space_group": 221, "elements": ("O", "Sr", "Ti")}
    decoded = tiny.sample(20, condition=condition)
    requested = decoded.asked["space_group"]
    assert (requested == 221).all()
    wanted = {elements.number(s) for s in ("O", "Sr", "Ti")}
    for crystal in decoded.crystals:
        assert set(crystal.numbers[crystal.mask].tolist()) == wanted


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"space_group": 227}, "space group 227: CubicGAN knows 225"),
        ({"elements": ("Xx", "O", "Ti")}, "unknown element 'Xx'"),
        ({"elements": ("He", "O", "Ti")}, "He are not among the"),
        ({"elements": ("O", "O", "Ti")}, "three different symbols"),
        ({"elements": "SrTiO"}, "three different symbols"),
        ({"spacegroup": 225}, "unknown condition 'spacegroup'; known, nearest first: space_group"),
    ],
)
def test_wrong_conditions_teach(tiny, condition, message):
    with pytest.raises(InputError, match=message):
        tiny.sample(2, condition=condition)


def test_no_samples_is_an_error(tiny):
    with pytest.raises(InputError, match="n=0"):
        tiny.sample(0)


def test_diverged_networks_give_reasons_not_crashes(sites):
    model = CubicGan.from_data(sites, FIXED.but(**TINY))
    with torch.no_grad():
        model.generator.merge.weight.fill_(float("nan"))
    decoded = model.sample(5)
    assert not decoded.ok.any()
    assert "NaN" in decoded.reasons[0]


def test_save_and_load_give_the_same_samples(tiny, tmp_path):
    path = tiny.save(tmp_path / "model.safetensors")
    loaded = CubicGan.load(path)
    assert loaded.config == tiny.config
    a, b = tiny.sample_sites(50), loaded.sample_sites(50)
    assert np.array_equal(a.grid, b.grid)
    assert np.array_equal(a.length, b.length)


def test_pieces_join_to_the_samples_and_the_first_keeps_its_seed(tiny, monkeypatch):
    whole = tiny.sample_sites(50, seed=3)
    monkeypatch.setattr(CubicGan, "PIECE", 50)
    longer = tiny.sample_sites(120, seed=3)
    assert np.array_equal(longer[:50].grid, whole.grid)
    third = tiny.piece(2, 20, seed=3)
    assert np.array_equal(third.asked["space_group"], longer[100:].space_group)


def test_broken_weights_are_refused(tiny, tmp_path):
    path = tiny.save(tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match="truncated"):
        CubicGan.load(path)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint at"):
        CubicGan.load(tmp_path / "nothing.safetensors")


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="cubicgan"):
        models.load("cubicgn")
    with pytest.raises(UnknownNameError, match="fixed"):
        models.load("cubicgan", variant="fix")
    with pytest.raises(UnknownNameError, match="data"):
        models.load("cubicgan").sample(2, condition={"labels": "dat"})
    with pytest.raises(UnknownNameError, match="smoke"):
        CubicGan.recipe("paper", profile="smok")


def test_train_writes_weights_and_run_json(tmp_path):
    model, history = CubicGan.train(
        "fixed", folder=tmp_path, changes={**TINY, "ema": 0.5}, progress=False
    )
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["config"]["train"]["steps"] == 3
    assert len(run["history"]) == len(history.rows) == 3
    loaded = CubicGan.load(tmp_path / "model.safetensors")
    for name, tensor in loaded.generator.state_dict().items():
        assert torch.equal(tensor, model.generator.state_dict()[name])


@pytest.mark.parametrize("variant", CubicGan.VARIANTS)
def test_the_trained_model_that_comes_with_the_package(variant):
    """Weights, run.json and card agree, and a fresh sample decodes as often as recorded."""
    path = models.checkpoint_path("cubicgan", variant=variant)
    run = json.loads(path.with_name("run.json").read_text())
    assert run["variant"] == variant
    import hashlib

    assert run["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (path.parent / "card.md").is_file()
    model = models.load("cubicgan", variant=variant)
    decoded = model.sample(1000, seed=99)
    recorded = next(r for r in run["funnel"]["own labels"] if r["stage"] == "decodes")
    share = recorded["passed"] / recorded["n"]
    assert decoded.ok.mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels.group", lambda group: group + 3),
        ("labels.group", lambda group: group - 10),
        ("labels.element", lambda element: element + 10_000),
        ("labels.element", lambda element: element[:, :2]),
        ("labels.element", lambda element: element.float()),
    ],
)
def test_labels_of_a_file_that_are_no_places_in_the_tables(name, change, tiny, tmp_path):
    kept = tiny.learnt
    tiny.learnt = kept | {name: change(kept[name])}
    path = tiny.save(tmp_path / "model.safetensors")
    tiny.learnt = kept
    with pytest.raises(checkpoint.CheckpointError, match="labels must be whole numbers below"):
        CubicGan.load(path)
