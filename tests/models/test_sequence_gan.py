"""The sequence model of compositions: draws in turn, losses, training, sampling, and files."""

import json
import pickle

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.datasets import formula_sets
from imd_helpers.models import sequence_gan
from imd_helpers.models.sequence_gan import ICSD, SequenceGan
from imd_helpers.networks import checkpoint
from imd_helpers.runtime import InputError, UnknownNameError

SMALL = {"width": 1 / 16, "batch": 8, "steps": 3, "log_every": 1}


@pytest.fixture(scope="module")
def data():
    return SequenceGan.read(ICSD)


# ---- networks


@pytest.mark.parametrize("condition", ["", "formation_energy"])
def test_the_generator_shows_zeros_and_ones_and_passes_a_gradient(condition):
    model = SequenceGan(ICSD.but(width=1 / 8, condition=condition, gradient="path", entropy=0.0))
    torch.manual_seed(0)
    noise = torch.randn(50, ICSD.latent + bool(condition), requires_grad=True)
    matrix = model.generator(noise)
    assert set(matrix.detach().unique().tolist()) <= {0.0, 1.0}
    assert matrix.sum(2).max() <= 1
    (matrix * torch.randn(85, 8)).sum().backward()
    assert (noise.grad.abs().sum(1) > 0).all()
    assert all(p.grad.abs().sum() > 0 for p in model.generator.parameters())


def test_the_critic_sees_counts_and_fractions_beside_the_matrix():
    critic = sequence_gan.DenseCritic(ICSD)
    critic.body = torch.nn.Identity()
    matrix = imd.descriptors.composition_matrix.CompositionMatrix().encode(["SrTiO3"])
    seen = critic(matrix, torch.tensor([[7.0]]))[0]
    assert torch.equal(seen[:680], matrix[0].flatten())
    assert seen[-1] == 7
    rows = [sequence_gan.ELEMENTS.index(z) for z in (38, 22, 8)]
    counts, fractions = torch.zeros(85), torch.zeros(85)
    counts[rows], fractions[rows] = torch.tensor([1.0, 1, 3]) / 4, torch.tensor([1.0, 1, 3]) * 8 / 5
    assert torch.allclose(seen[680:-1], torch.cat([counts, fractions]))
    assert torch.isfinite(critic(torch.zeros(1, 85, 8))).all()


def test_the_sequence_has_two_to_eight_elements_none_of_them_twice():
    model = SequenceGan(ICSD.but(width=1 / 8))
    torch.manual_seed(0)
    kinds = model.generator(torch.randn(500, ICSD.latent)).sum((1, 2))
    assert sorted(set(kinds.tolist())) == [2, 3, 4, 5, 6, 7, 8]
    for stop, expected in ((30.0, 2), (-30.0, 8)):
        torch.nn.init.constant_(model.generator.element[-1].bias[85:], stop)
        assert (model.generator(torch.randn(50, ICSD.latent)).sum((1, 2)) == expected).all()


def test_in_a_sequence_a_draw_knows_the_draws_before_it():
    """At the same noise a count depends on its element, and the next element on both."""
    generator = SequenceGan(ICSD.but(width=1 / 4)).generator
    with torch.no_grad():
        for layer in (generator.count[0], generator.element[0]):
            layer.weight *= 30
        generator.cell.weight_ih *= 8
        generator.element[-1].bias[85:] = -30.0
    torch.manual_seed(0)
    with torch.no_grad():
        matrix = generator(torch.randn(1, ICSD.latent).expand(4000, -1))  # one and the same noise
    mean_count = (matrix * torch.arange(1.0, 9.0)).sum((0, 2)) / matrix.sum((0, 2))
    often = matrix.sum((0, 2)) > 200
    assert often.sum() > 5
    assert mean_count[often].std() > 0.5  # all the same, but for 0.15 of noise, if drawn apart
    there = matrix.sum(2)[:, often]
    apart = torch.corrcoef(there.T).fill_diagonal_(0).abs().max()
    assert apart > 0.2


def test_the_probability_of_what_was_drawn_is_the_share_of_draws():
    """Two slots at fixed noise: shares of 40,000 draws against the reported probabilities."""
    generator = SequenceGan(ICSD.but(width=1 / 16)).generator
    with torch.no_grad():
        generator.element[-1].bias[:] = -9.0
        generator.element[-1].bias[:3] = torch.tensor([1.0, 0.5, 0.0])
        generator.element[-1].bias[85] = 0.5
        generator.count[-1].bias[2:] = -9.0
        generator.count[-1].bias[:2] = torch.tensor([0.3, 0.0])
        torch.manual_seed(0)
        noise = torch.randn(1, ICSD.latent).expand(40_000, -1)
        matrix, log_p = generator.written(noise, score=True)
    counts = (matrix * torch.arange(1.0, 9.0)).sum(2)  # (40000, 85)
    kinds, which, n = counts.unique(dim=0, return_inverse=True, return_counts=True)
    probability = torch.zeros(len(kinds))
    # the same matrix can be drawn in several orders, each with a probability of its own
    for k in range(len(kinds)):
        probability[k] = log_p[which == k].exp().unique().round(decimals=9).unique().sum()
    often = n > 800
    assert often.sum() >= 4
    share = n[often] / 40_000
    assert torch.allclose(probability[often], share, rtol=0.15)


class Likes(torch.nn.Module):
    """A critic that likes some elements."""

    def __init__(self, liked):
        super().__init__()
        self.liked = liked

    def forward(self, matrix):
        return (matrix.sum(2) @ self.liked)[:, None]


def test_the_score_gradient_is_that_of_the_mean_score(data):
    """With a critic that likes one element, both gradients raise its share at the same rate."""
    config = ICSD.but(width=1 / 16, batch=2_000, entropy=0.0)
    model = SequenceGan.from_data(data, config)
    model.critic = Likes(torch.eye(85)[16])  # some element, any count
    torch.manual_seed(0)
    model.generator_terms()["loss"].backward()
    bias = model.generator.element[-1].bias
    found = -bias.grad[16].item()
    step, shares = 0.3, []
    for sign in (1, -1):
        with torch.no_grad():
            bias[16] += sign * step
            noise = torch.randn(40_000, config.latent)
            shares.append(model.generator(noise)[:, 16].sum(1).mean().item())
            bias[16] -= sign * step
    slope = (shares[0] - shares[1]) / (2 * step)
    assert found == pytest.approx(slope, rel=0.25)


def test_a_reward_for_variety_spreads_the_draws(data):
    """A critic without an opinion: what is left is the entropy, and it grows."""
    model = SequenceGan.from_data(data, ICSD.but(width=1 / 16, batch=64, entropy=1.0))
    model.critic = Likes(torch.zeros(85))
    with torch.no_grad():
        model.generator.element[-1].bias[:5] += 4.0
    adam = torch.optim.Adam(model.generator.parameters(), 1e-2)
    torch.manual_seed(0)
    noise = torch.randn(500, ICSD.latent)
    before = model.generator.written(noise, score=True)[1].mean().item()
    for _ in range(20):
        adam.zero_grad()
        model.generator_terms()["loss"].backward()
        adam.step()
    assert model.generator.written(noise, score=True)[1].mean().item() < before - 1


# ---- training


def test_the_critic_is_shown_training_compositions(data):
    model = SequenceGan.from_data(data, ICSD.but(**SMALL))
    torch.manual_seed(0)
    matrix, _ = model.real()
    decoded = model.decode(matrix)
    known = {row.tobytes() for row in data.counts}
    assert decoded.ok.all()
    assert all(row.tobytes() in known for row in decoded.counts)


@pytest.mark.parametrize("loss", ["penalty", "logistic"])
def test_each_loss_is_what_its_name_says(data, loss):
    model = SequenceGan.from_data(data, ICSD.but(**SMALL, loss=loss))
    torch.manual_seed(0)
    terms = model.critic_terms()
    extra = 10.0 * terms["penalty"] if loss == "penalty" else 0.0
    if loss == "logistic":  # weights of a start: all scores near zero, each log(1/2) once
        assert terms["loss"].item() == pytest.approx(2 * np.log(2), abs=0.05)
        assert terms["loss"].item() != pytest.approx(-terms["distance"].item(), abs=0.1)
    else:
        assert terms["loss"].item() == pytest.approx((extra - terms["distance"]).item(), abs=1e-5)


def test_the_generator_is_judged_by_the_whole_critic(data):
    """Dropout is for the critic's own steps: the same formula has one score, not many."""
    model = SequenceGan.from_data(data, ICSD.but(width=1 / 8))
    x = model.real()[0][:4]
    model.critic_terms()
    assert not torch.equal(model.critic(x), model.critic(x))
    model.generator_terms()
    assert torch.equal(model.critic(x), model.critic(x))


def test_a_critic_learns_to_tell_noise_from_formulas():
    """Within 60 steps the estimated distance is positive and has grown."""
    changes = {"steps": 60, "log_every": 10, "width": 1 / 4, "batch": 32, "lr_generator": 1e-9}
    _, history = SequenceGan.train("icsd", changes=changes, progress=False)
    distance = history.table["critic_distance"]
    assert distance.iloc[-1] > 0
    assert distance.iloc[0] < distance.iloc[-1]


def test_training_resumes_bit_for_bit(tmp_path):
    changes = SMALL | {"fall": 0.0}  # with falling rates the length is fixed
    whole, _ = SequenceGan.train("icsd", changes=changes | {"steps": 4}, progress=False)
    for steps in (2, 4):
        parted, _ = SequenceGan.train(
            "icsd",
            changes=changes | {"steps": steps, "save_every": 2},
            folder=tmp_path,
            resume=True,
            progress=False,
        )
    for one, two in zip(whole.generator.parameters(), parted.generator.parameters(), strict=True):
        assert torch.equal(one, two)


def test_keep_chooses_what_is_learned_from(tmp_path):
    SequenceGan.train(
        "icsd",
        changes=SMALL,
        folder=tmp_path,
        keep=imd.judge.charge_neutral,
        progress=False,
    )
    run = json.loads((tmp_path / "run.json").read_text())
    everything = formula_sets.compositions("icsd")[0]
    assert run["training_compositions"] == imd.judge.charge_neutral(everything).sum()
    assert run["kept_by"] == "charge_neutral"


# ---- sampling


def test_samples_do_not_depend_on_how_many_are_asked_for(monkeypatch):
    model = SequenceGan(ICSD.but(width=1 / 8))
    monkeypatch.setattr(SequenceGan, "PIECE", 64)
    long = model.sample(150, seed=3).counts
    assert long.shape == (150, 119)
    assert np.array_equal(long[:128], model.sample(128, seed=3).counts)
    assert not np.array_equal(long, model.sample(150, seed=4).counts)
    assert np.array_equal(model.piece(1, 64, seed=3).counts, long[64:128])


def test_sampling_leaves_the_global_random_state_alone():
    model = SequenceGan(ICSD.but(width=1 / 8))
    before = torch.get_rng_state()
    model.sample(10).counts
    assert torch.equal(before, torch.get_rng_state())


def test_a_condition_is_scaled_and_must_fit_the_model():
    plain = SequenceGan(ICSD.but(width=1 / 8))
    asked = SequenceGan(ICSD.but(width=1 / 8, condition="formation_energy"), {"scale": [-1.0, 2.0]})
    assert asked.scaled(np.array([3.0])).item() == pytest.approx(2.0)
    assert asked.sample(5, condition={"formation_energy": -2.0}).counts.shape == (5, 119)
    with pytest.raises(InputError, match="without a condition"):
        plain.sample(5, condition={"formation_energy": -2.0})
    with pytest.raises(InputError, match="ask for a value"):
        asked.sample(5)


def test_a_model_travels_to_another_process():
    model = SequenceGan(ICSD.but(width=1 / 8))
    twin = pickle.loads(pickle.dumps(model))
    assert np.array_equal(model.sample(20).counts, twin.sample(20).counts)


# ---- files


def test_saved_models_load_and_sample_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(SequenceGan, "HALF", False)
    model = SequenceGan(ICSD.but(width=1 / 16), {"scale": [0.5, 2.0]})
    path = model.save(tmp_path / "model.safetensors")
    twin = SequenceGan.load(path)
    assert twin.config == model.config
    assert twin.learnt == model.learnt
    assert np.array_equal(model.sample(20).counts, twin.sample(20).counts)


def test_switches_of_older_files_are_known_or_refused(tmp_path, monkeypatch):
    """What a file was made with is never passed over in silence."""
    monkeypatch.setattr(SequenceGan, "HALF", False)
    model = SequenceGan(ICSD.but(width=1 / 16), {"scale": [0.0, 1.0]})
    path = model.save(tmp_path / "model.safetensors")
    tensors, header = checkpoint.read(path, expect="imd-matgan-1")
    for name, value, known in (("hard", True, True), ("hard", False, False), ("new", 1, False)):
        changed = {**header, "config": {**header["config"], name: value}}
        checkpoint.write(path, tensors, changed)
        if known:
            assert SequenceGan.load(path).config == model.config
        else:
            with pytest.raises(checkpoint.CheckpointError, match=f"{name}={value}"):
                SequenceGan.load(path)
    checkpoint.write(path, tensors, {k: v for k, v in header.items() if k != "scale"})
    with pytest.raises(checkpoint.CheckpointError, match="KeyError: 'scale'"):
        SequenceGan.load(path)


def test_half_precision_on_disk_is_half_the_size(tmp_path, monkeypatch):
    model = SequenceGan(ICSD.but(width=1 / 4))
    half = model.save(tmp_path / "half.safetensors").stat().st_size
    monkeypatch.setattr(SequenceGan, "HALF", False)
    whole = model.save(tmp_path / "whole.safetensors").stat().st_size
    assert half < 0.6 * whole
    assert SequenceGan.load(tmp_path / "half.safetensors").sample(5).counts.shape == (5, 119)


def test_foreign_weights_are_refused(tmp_path):
    path = checkpoint.write(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"format": "other"})
    with pytest.raises(checkpoint.CheckpointError, match="expected 'imd-matgan-1'"):
        SequenceGan.load(path)


# ---- wrong input


def test_wrong_settings_are_explained():
    with pytest.raises(InputError, match="only with gradient='score'"):
        ICSD.but(gradient="path", entropy=0.1)


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"loss": "penalti"}, "penalty"),
        ({"data": "isd"}, "icsd"),
        ({"condition": "gap"}, "band_gap"),
    ],
)
def test_unknown_names_list_the_known_ones(changes, known):
    with pytest.raises(UnknownNameError, match=known):
        ICSD.but(**changes)
