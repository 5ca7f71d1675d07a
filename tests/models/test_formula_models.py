import copy

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals.compositions import amounts, formulas
from imd_helpers.descriptors.composition_matrix import ELEMENTS
from imd_helpers.models import formula_models as fm
from imd_helpers.models import formula_tokens as ft
from imd_helpers.networks.checkpoint import CheckpointError
from imd_helpers.runtime import InputError, UnknownNameError, data_path


@pytest.fixture(scope="module")
def training():
    known = imd.datasets.load("oqmd_icsd", split="train")
    return ft.distinct(known.crystals.counts().numpy())


# ---- counts and tokens


def test_formulas_are_reduced_and_kept_once():
    twice = amounts(["NaCl", "Na2Cl2", "TiO2", "Fe", "KrF2"])
    assert sorted(formulas(ft.distinct(twice))) == ["NaCl", "TiO2"]  # the others do not fit


def test_tokens_come_back(training):
    assert (ft.decode_tokens(ft.encode_tokens(training)) == training).all()


def test_tokens_follow_electronegativity():
    words = ft.encode_tokens(amounts(["OTiSr"]))[0].tolist()
    written = [ELEMENTS[t - ft.FIRST_ELEMENT] for t in words[0:6:2]]
    assert written == [38, 22, 8]
    assert words[6] == ft.END
    assert set(words[7:]) == {ft.PAD}


def test_sentences_that_are_no_formula_become_zeros():
    good = ft.encode_tokens(amounts(["SrTiO3"]))[0].tolist()
    strontium, one, end = good[0], good[1], good[6]
    bad = [
        [strontium, one, strontium, one, end],  # an element twice
        [strontium, one, end],  # one element only
        [strontium, strontium, one, end],  # no count
        [one, strontium, one, end],  # begins with a count
        [strontium, one, good[2]],  # never ends
        [end],
    ]
    tokens = torch.zeros(len(bad), ft.LENGTH, dtype=torch.long)
    for row, words in zip(tokens, bad, strict=True):
        row[: len(words)] = torch.tensor(words)
    assert not ft.decode_tokens(tokens).any()


@pytest.mark.parametrize("wrong", [np.zeros((3, 118), dtype=int), np.zeros((3, 119))])
def test_counts_are_checked(wrong):
    with pytest.raises(InputError, match="whole numbers of shape"):
        ft.encode_tokens(wrong)
    with pytest.raises(InputError, match="1 to 8 atoms"):
        ft.encode_tokens(amounts(["NaCl", "B12C3"]))


# ---- networks


@pytest.fixture(scope="module")
def briefly(training):
    torch.manual_seed(0)
    vae, rnn = fm.FormulaVae(width=64, latent=8), fm.FormulaRnn(width=48, embedding=16)
    few = training[:: len(training) // 1500]
    rows = {
        "vae": fm.train_epochs(vae, few, epochs=6, batch=64, beta=0.2),
        "rnn": fm.train_epochs(rnn, few, epochs=8, batch=64),
    }
    return vae.eval(), rnn.eval(), rows


@pytest.mark.parametrize("name", ["vae", "rnn"])
def test_training_lowers_the_loss(briefly, name):
    rows = briefly[2][name]
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]


def test_samples_are_seeded_and_leave_the_global_numbers_alone(briefly):
    for model in briefly[:2]:
        torch.manual_seed(5)
        before = torch.rand(1)
        torch.manual_seed(5)
        one = model.sample(50, seed=3).counts
        assert torch.rand(1) == before
        assert one.shape == (50, 119)
        assert (one == model.sample(50, seed=3).counts).all()


def test_the_network_scores_what_it_writes_as_it_drew_it(briefly):
    """Sampling step by step and scoring at once are the same distribution."""
    rnn = briefly[1]
    with torch.no_grad():
        torch.manual_seed(0)
        tokens = rnn.write(4000)
        first = rnn(tokens[:, :1])[0, 0].softmax(0)
    seen = torch.bincount(tokens[:, 0], minlength=ft.VOCABULARY) / 4000
    assert (seen - first).abs().max() < 0.03


def test_reinforcement_raises_the_reward_and_the_prior_holds(briefly):
    def has_oxygen(counts):
        return (counts[:, 8] > 0).astype(float)

    ends = {}
    for weight in (0.0, 0.5):
        policy = copy.deepcopy(briefly[1])
        rows = fm.reinforce(
            policy, has_oxygen, steps=40, batch=64, lr=3e-3, prior_weight=weight,
            probe=lambda c: {"zero": 0.0},
        )  # fmt: skip
        ends[weight] = rows[-1]
        assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
        assert "zero" in rows[0]
    assert ends[0.0]["reward"] > rows[0]["reward"] + 0.2
    assert ends[0.5]["kl"] < ends[0.0]["kl"]


def test_reinforcement_checks_the_reward(briefly):
    with pytest.raises(InputError, match="one finite number a formula"):
        fm.reinforce(copy.deepcopy(briefly[1]), lambda c: np.full(len(c), np.nan), steps=1)


def test_weights_come_back(briefly, tmp_path):
    for model in briefly[:2]:
        path = fm.save(model, tmp_path / f"{model.kind}.safetensors", about={})
        again = fm.load(path)
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-3)
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        fm.load(tmp_path / "cut.safetensors")
    with pytest.raises(UnknownNameError, match="vae"):
        fm.checkpoint_path("vea")


# ---- what comes with the book


@pytest.mark.parametrize("name", fm.CHECKPOINTS)
def test_weights_that_come_with_the_book_write_formulas(name):
    made = fm.load(fm.checkpoint_path(name)).sample(200).counts
    assert made.any(1).mean() > 0.3
    assert (data_path("checkpoints", "vae_rnn_rl") / "card.md").is_file()
