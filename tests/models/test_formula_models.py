import copy

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.descriptors.composition_matrix import ELEMENTS, fits
from imd_helpers.models import formula_baselines as fb
from imd_helpers.models import formula_models as fm
from imd_helpers.models import formula_predictor as fp
from imd_helpers.models import formula_tokens as ft
from imd_helpers.networks.checkpoint import CheckpointError
from imd_helpers.runtime import InputError, UnknownNameError, data_path


@pytest.fixture(scope="module")
def training():
    known = imd.datasets.load("oqmd_icsd", split="train")
    return ft.distinct(known.crystals.counts().numpy())


def counts_of(*formulas):
    out = np.zeros((len(formulas), elements.N_COLUMNS), dtype=np.int64)
    for row, formula in zip(out, formulas, strict=True):
        for z, n in elements.parse_formula(formula).items():
            row[z] = n
    return out


def neutral(counts):
    return imd.judge.charge_neutral(counts, alloys=False)


# ---- counts and tokens


def test_formulas_are_reduced_and_kept_once():
    twice = counts_of("NaCl", "Na2Cl2", "TiO2")
    assert len(ft.distinct(twice)) == 2
    assert ft.formulas(ft.reduced(twice)) == ["NaCl", "NaCl", "TiO2"]
    assert len(set(ft.keys(twice))) == 2
    assert ft.formulas(np.zeros((1, 119), dtype=int)) == [""]


def test_tokens_come_back(training):
    assert (ft.decode_tokens(ft.encode_tokens(training)) == training).all()


def test_tokens_follow_electronegativity():
    words = ft.encode_tokens(counts_of("OTiSr"))[0].tolist()
    written = [ELEMENTS[t - ft.FIRST_ELEMENT] for t in words[0:6:2]]
    assert written == [38, 22, 8]
    assert words[6] == ft.END
    assert set(words[7:]) == {ft.PAD}


def test_sentences_that_are_no_formula_become_zeros():
    good = ft.encode_tokens(counts_of("SrTiO3"))[0].tolist()
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
        ft.reduced(wrong)
    with pytest.raises(InputError, match="cannot hold"):
        ft.encode_tokens(counts_of("NaCl", "B12C3"))
    with pytest.raises(InputError, match="select them by"):
        fb.RandomFormulas(counts_of("Fe"))


# ---- samplers without learning


@pytest.mark.parametrize("like_training", [False, True])
def test_random_formulas(training, like_training):
    maker = fb.RandomFormulas(training, accept=neutral, like_training=like_training)
    made = maker.sample(400, seed=1).counts
    assert made.shape == (400, 119)
    assert neutral(made).all()
    assert fits(made).all()
    assert (made == ft.reduced(made)).all()
    assert (made == maker.sample(400, seed=1).counts).all()
    assert (made != maker.sample(400, seed=2).counts).any()


def test_like_training_follows_the_training_set(training):
    share = {}
    for like in (False, True):
        made = fb.RandomFormulas(training, like_training=like).sample(2000).counts
        share[like] = (made[:, 8] > 0).mean()
    assert share[True] > 4 * share[False]
    assert share[True] < (training[:, 8] > 0).mean() + 0.05


def test_a_rule_that_nothing_passes_is_an_error(training):
    with pytest.raises(InputError, match="too strict"):
        fb.RandomFormulas(training, accept=lambda c: np.zeros(len(c), bool)).sample(1)
    with pytest.raises(InputError, match="at least one"):
        fb.RandomFormulas(training).sample(0)


def test_substitution_keeps_columns_of_the_table():
    made = fb.SubstitutedFormulas(counts_of("SrTiO3")).sample(300, seed=0).counts
    column = elements.column("group")
    for row in made[made.any(1)]:
        groups = sorted(column[z] for z in np.flatnonzero(row))
        assert groups == [2, 4, 16]
        assert sorted(row[row > 0]) == [1, 1, 3]
    assert not (made[:, [38, 22, 8]] > 0).any()


# ---- networks


@pytest.fixture(scope="module")
def briefly(training):
    torch.manual_seed(0)
    vae, rnn = fm.FormulaVae(width=64, latent=8), fm.FormulaRnn(width=48, embedding=16)
    few = training[:: len(training) // 1500]
    rows = {
        "vae": fm.train_epochs(vae, few, fm.Schedule(epochs=6, batch=64), beta=0.2),
        "rnn": fm.train_epochs(rnn, few, fm.Schedule(epochs=8, batch=64)),
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
        config = fm.RlConfig(steps=40, batch=64, lr=3e-3, prior_weight=weight)
        rows = fm.reinforce(policy, has_oxygen, config, probe=lambda c: {"zero": 0.0})
        ends[weight] = rows[-1]
        assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-5)
        assert "zero" in rows[0]
    assert ends[0.0]["reward"] > rows[0]["reward"] + 0.2
    assert ends[0.5]["kl"] < ends[0.0]["kl"]


def test_reinforcement_checks_the_reward(briefly):
    with pytest.raises(InputError, match="one finite number a formula"):
        fm.reinforce(
            copy.deepcopy(briefly[1]), lambda c: np.full(len(c), np.nan), fm.RlConfig(steps=1)
        )
    with pytest.raises(InputError, match="at least 1 step"):
        fm.RlConfig(steps=0)


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


# ---- predictors


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_predictors_learn_a_smooth_property(training, kind):
    chi = np.nan_to_num(elements.column("electronegativity"))
    few = np.random.default_rng(0).permutation(training)[:3000]
    value = few @ chi / few.sum(1)
    half = len(few) // 2
    model = fp.FormulaPredictor(kind).fit(few[:half], value[:half])
    error = np.abs(model.predict(few[half:]) - value[half:]).mean()
    assert error < 0.25 * value.std()
    assert np.isnan(model.predict(np.zeros((1, 119), dtype=int))).all()


def test_predictors_check_their_input(training):
    with pytest.raises(InputError, match="knows nothing yet"):
        fp.FormulaPredictor("trees").predict(training[:2])
    with pytest.raises(InputError, match="one finite value"):
        fp.FormulaPredictor("trees").fit(training[:2], np.array([1.0, np.nan]))
    with pytest.raises(UnknownNameError, match="trees"):
        fp.FormulaPredictor("tree")


def test_features_do_not_depend_on_the_size_of_the_formula():
    one = fp.composition_features(counts_of("SrTiO3", "Sr2Ti2O6"), shares=True)
    assert one.shape == (2, 129)
    assert np.allclose(one[0], one[1])


# ---- what comes with the book


@pytest.mark.parametrize("name", fm.CHECKPOINTS)
def test_weights_that_come_with_the_book_write_formulas(name):
    made = fm.load(fm.checkpoint_path(name)).sample(200).counts
    assert made.any(1).mean() > 0.3
    assert (data_path("checkpoints", "vae_rnn_rl") / "card.md").is_file()
