"""Seeds trained together: the numbers of each alone, for every setting."""

import numpy as np
import pytest
import torch
from torch import nn

from imd_helpers.networks import distances, layers, losses, train_seeds
from imd_helpers.networks.seeds import BLOCK, PENALTIES, diagnose
from imd_helpers.runtime import InputError, UnknownNameError

DATA = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) + 1
CLASSES = (DATA[:, 0] > 1).long()
SHORT = {"steps": 12, "critic_steps": 2, "batch": 16, "latent": 3, "log_every": 4, "seeds": (3, 7)}


def generator():
    return layers.mlp((3, 12, 2))


def critic():
    return layers.mlp((2, 12, 12, 1))


def worst(first, second):
    """Largest difference of two runs: histories, weights, samples."""
    assert list(first.history.columns) == list(second.history.columns)
    assert first.history.index.equals(second.history.index)
    apart = [np.abs(first.history.values - second.history.values).max()]
    for mine, other in zip(first.players, second.players, strict=True):
        for a, b in zip(mine, other, strict=True):
            apart += [
                float((x - y).abs().max())
                for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
            ]
    apart.append(float((first.sample(50) - second.sample(50)).abs().max()))
    return max(apart)


def both(make_generator=generator, make_critic=critic, data=DATA, **settings):
    settings = {**SHORT, **settings}
    return [
        train_seeds(make_generator, make_critic, data, together=together, **settings)
        for together in (True, False)
    ]


# ---- together is the same as alone


@pytest.mark.parametrize("loss", losses.PAIRS)
def test_every_loss_together_and_alone(loss):
    assert worst(*both(loss=loss)) < 1e-10


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("mixing", losses.MIXINGS)
def test_every_penalty_together_and_alone(penalty, mixing):
    assert worst(*both(penalty=penalty, mixing=mixing)) < 1e-10


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_every_optimizer_clipping_and_mean_together_and_alone(optimizer):
    runs = both(optimizer=optimizer, clip=0.05, ema=0.9)
    assert worst(*runs) < 1e-10
    for run in runs:
        for i in range(2):
            assert max(p.abs().max() for p in run.critic(i).parameters()) <= 0.05


NORMS = {
    "batch norm": lambda: layers.mlp((2, 12, 12, 1), norm=nn.BatchNorm1d),
    "layer norm": lambda: layers.mlp((2, 12, 12, 1), norm=nn.LayerNorm, activation=nn.SiLU()),
    "spectral norm": lambda: layers.spectral_norm(critic()),
    "deviation": lambda: nn.Sequential(
        layers.mlp((2, 12, 6)), layers.MinibatchDeviation(), nn.Linear(7, 1)
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_together_and_alone_with_their_running_numbers(name):
    """Batch norm and spectral norm change buffers in every forward pass."""
    runs = both(lambda: layers.mlp((3, 12, 2), norm=nn.BatchNorm1d), NORMS[name],
                penalty="gradient")  # fmt: skip
    assert worst(*runs) < 1e-7


class Own(nn.Module):
    """A network of the reader's own: shared weights, a buffer, code that counts from the front."""

    def __init__(self, share):
        super().__init__()
        self.first = nn.Linear(2, 8)
        self.again = self.first if share == "layer" else nn.Linear(2, 8)
        if share == "weight":
            self.again.weight = self.first.weight
        self.out = nn.Linear(8, 1)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.out(torch.tanh(self.scale * self.first(x)) * self.again(x).relu()).flatten(1)


@pytest.mark.parametrize("share", ["nothing", "layer", "weight"])
def test_networks_of_the_readers_own_together_and_alone(share):
    assert worst(*both(make_critic=lambda: Own(share), penalty="r1")) < 1e-10


CONDITIONAL = {
    "concatenation": (
        lambda: layers.Concatenated(layers.mlp((5, 12, 2)), nn.Embedding(2, 2)),
        lambda: layers.Concatenated(layers.mlp((4, 12, 1)), nn.Embedding(2, 2)),
        {"penalty": "gradient"},
    ),
    "projection": (
        lambda: layers.Concatenated(layers.mlp((5, 12, 2)), nn.Embedding(2, 2)),
        lambda: layers.ProjectionHead(layers.mlp((2, 12, 6)), 6, nn.Embedding(2, 6)),
        {"loss": "wasserstein"},
    ),
    "class": (
        lambda: layers.Concatenated(layers.mlp((5, 12, 2)), nn.Embedding(2, 2)),
        lambda: layers.AuxiliaryHead(layers.mlp((2, 12, 6)), 6, 2),
        {"auxiliary": "class", "penalty": "r1r2", "loss": "non_saturating"},
    ),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditions_together_and_alone(name):
    make_generator, make_critic, more = CONDITIONAL[name]
    runs = both(make_generator, make_critic, condition=CLASSES, **more)
    assert worst(*runs) < 1e-10
    wanted = torch.arange(20) % 2
    samples = runs[0].sample(20, condition=wanted)
    assert samples.shape == (2, 20, 2)


def test_a_condition_that_is_a_number_together_and_alone():
    runs = both(
        lambda: layers.Concatenated(layers.mlp((4, 12, 2))),
        lambda: layers.AuxiliaryHead(layers.mlp((2, 12, 6)), 6, 1),
        condition=DATA[:, 0], auxiliary="value", auxiliary_weight=2.0,
    )  # fmt: skip
    assert worst(*runs) < 1e-10
    assert {"critic_auxiliary", "generator_auxiliary"} <= set(runs[0].history.columns)


def test_samples_of_any_shape_together_and_alone():
    data = torch.randn(50, 3, 4, dtype=torch.float64)
    runs = both(
        lambda: nn.Sequential(nn.Linear(3, 12), nn.Unflatten(1, (3, 4))),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 1)), data,
        penalty="gradient",
    )  # fmt: skip
    assert worst(*runs) < 1e-10


def test_single_precision_agrees_to_1e_5():
    """Kinks (ReLU) amplify rounding in long runs; a smooth network does not."""
    smooth = {"activation": nn.SiLU()}
    runs = both(lambda: layers.mlp((3, 16, 2), **smooth), lambda: layers.mlp((2, 16, 1), **smooth),
                DATA.float(), penalty="gradient", steps=60)  # fmt: skip
    assert worst(*runs) < 1e-5


# ---- alone is the plain loop that a chapter writes


def plain_loop(seed, steps, critic_steps, batch, latent):
    """WGAN-GP written out, with torch's ordinary optimizer and the package's penalty by hand."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g, f = generator().double(), critic().double()
    rng = torch.Generator().manual_seed(seed)
    rounds = BLOCK // ((critic_steps + 1) * batch * (latent + 2))
    shape = (rounds, critic_steps + 1, batch)
    index = torch.randint(len(DATA), shape, generator=rng)
    noise = torch.randn(*shape, latent, generator=rng, dtype=torch.float64)
    weight = torch.rand(*shape, 1, generator=rng, dtype=torch.float64)
    options = {"lr": 1e-3, "betas": (0.5, 0.9)}
    adam_g = torch.optim.Adam(g.parameters(), **options)
    adam_f = torch.optim.Adam(f.parameters(), **options)
    for step in range(steps):
        for turn in range(critic_steps):
            real, fake = DATA[index[step, turn]], g(noise[step, turn]).detach()
            mixed = (real + weight[step, turn] * (fake - real)).requires_grad_()
            slope = torch.autograd.grad(f(mixed).sum(), mixed, create_graph=True)[0]
            penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
            adam_f.zero_grad()
            (f(fake).mean() - f(real).mean() + 10 * penalty).backward()
            adam_f.step()
        adam_g.zero_grad()
        (-f(g(noise[step, -1])).mean()).backward()
        adam_g.step()
    return g, f


def test_together_is_the_loop_written_out():
    run = train_seeds(generator, critic, DATA, penalty="gradient", **SHORT)
    for i, seed in enumerate(SHORT["seeds"]):
        players = plain_loop(seed, 12, 2, 16, 3)
        for mine, other in zip(run.players[i], players, strict=True):
            for a, b in zip(mine.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_a_seed_does_not_depend_on_the_others():
    three = train_seeds(generator, critic, DATA, **{**SHORT, "seeds": (1, 7, 3)})
    one = train_seeds(generator, critic, DATA, **{**SHORT, "seeds": (7,)})
    torch.testing.assert_close(three.sample(20)[1], one.sample(20)[0], atol=1e-10, rtol=0)
    assert (three.sample(20)[0] - three.sample(20)[1]).abs().max() > 1e-3


def test_a_longer_run_begins_as_a_shorter_one_and_draws_new_numbers_in_each_block():
    settings = {**SHORT, "batch": 400, "log_every": 1, "seeds": (0,)}
    settings["steps"] = BLOCK // (3 * 400 * 5) + 3  # beyond the first block
    longer = train_seeds(generator, critic, DATA, **settings).history
    shorter = train_seeds(generator, critic, DATA, **{**settings, "steps": 5}).history
    np.testing.assert_allclose(longer.values[:5], shorter.values, atol=1e-10)
    assert longer["real_score"].diff().abs().min() > 0


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_seeds(generator, critic, DATA, **SHORT)
    assert torch.equal(torch.rand(3), expected)


class Watching(nn.Module):
    """A critic that notes whether its input can send gradients to a generator."""

    def __init__(self, seen):
        super().__init__()
        self.network, self.seen = critic(), seen

    def __deepcopy__(self, memo):
        return self  # keeps the list

    def forward(self, x):
        self.seen.append(x.grad_fn is not None)
        return self.network(x)


def test_a_critic_step_sends_nothing_to_the_generator():
    """Real, generated, mixed in each critic step; the last call is the generator's step."""
    seen = []
    settings = {**SHORT, "steps": 1, "seeds": (0,), "penalty": "gradient"}
    train_seeds(generator, lambda: Watching(seen), DATA, together=False, **settings)
    assert seen == [False] * 6 + [True]


# ---- what it records


def test_history_means_slopes_and_probes():
    seen = []

    def probe(samples):
        seen.append(samples.shape)
        return {"mean": float(samples.mean())}

    for together in (True, False):
        run = train_seeds(generator, critic, DATA, penalty="gradient", probe=probe,
                          probe_samples=40, together=together, **SHORT)  # fmt: skip
        history = run.history
        assert history.index.names == ["seed", "step"]
        assert history.index.tolist() == [(s, t) for s in (3, 7) for t in (4, 8, 12)]
        assert set(history.columns) == {
            "critic_loss", "generator_loss", "penalty", "real_score", "fake_score",
            "critic_slope", "generator_slope", "mean",
        }  # fmt: skip
        difference = history["fake_score"] - history["real_score"]
        np.testing.assert_allclose(history["critic_loss"], difference, atol=1e-12)
    assert set(seen) == {(40, 2)}
    assert len(seen) == 12


def test_a_probe_sees_the_conditions_it_asked_for():
    def probe(samples, condition):
        return {"n": float(len(condition) == len(samples))}

    make_generator, make_critic, more = CONDITIONAL["concatenation"]
    run = train_seeds(make_generator, make_critic, DATA, condition=CLASSES, probe=probe,
                      **SHORT, **more)  # fmt: skip
    assert (run.history["n"] == 1).all()


def test_probing_changes_nothing():
    plain = train_seeds(lambda: layers.mlp((3, 8, 2), norm=nn.BatchNorm1d), critic, DATA, **SHORT)
    probed = train_seeds(lambda: layers.mlp((3, 8, 2), norm=nn.BatchNorm1d), critic, DATA,
                         probe=lambda samples: {}, **SHORT)  # fmt: skip
    assert torch.equal(plain.sample(9), probed.sample(9))


def test_a_seed_that_diverges_is_recorded_and_leaves_the_others():
    calls = []

    def sometimes_broken():
        calls.append(0)
        network = critic()
        if len(calls) == 1:
            nn.init.constant_(network[0].weight, float("nan"))
        return network

    run = train_seeds(generator, sometimes_broken, DATA, **SHORT)
    assert run.history.loc[3, "critic_loss"].isna().all()
    assert np.isfinite(run.history.loc[7].values).all()
    table = run.diagnose(DATA, n=100)
    assert table.loc[3].isna().all()
    assert np.isfinite(table.loc[7]).all()


def test_diagnose_is_what_the_distances_say():
    run = train_seeds(generator, critic, DATA, **SHORT)
    row = run.diagnose(DATA, n=100).iloc[0]
    fake = run.sample(100)[0]
    assert row["recall"] == distances.precision_recall(DATA[:100], fake).recall
    assert row["mmd"] == distances.mmd(DATA[:100], fake)
    assert diagnose(DATA[:50], DATA[:50])["sliced_wasserstein"] == 0.0


def test_scores_are_those_of_each_critic():
    run = train_seeds(generator, critic, DATA, **SHORT)
    scores = run.scores(DATA[:6])
    assert scores.shape == (2, 6)
    torch.testing.assert_close(scores[1], run.critic(1)(DATA[:6])[:, 0])
    assert not any(p.requires_grad for p in run.generator(0).parameters())


# ---- it learns, and the diagnostics tell


def ring(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    angle = torch.randint(8, (n,), generator=rng) * (torch.pi / 4)
    centre = torch.stack([angle.cos(), angle.sin()], dim=1)
    return centre + 0.05 * torch.randn(n, 2, generator=rng)


def test_diagnostics_separate_collapsed_from_healthy_runs():
    """Every seed: a one-step look into the generator's collapse, against a penalised critic."""
    settings = {"seeds": range(100, 104), "batch": 64, "latent": 4, "steps": 400}
    make = (lambda: layers.mlp((4, 32, 32, 2)), lambda: layers.mlp((2, 32, 32, 1)))
    healthy = train_seeds(*make, ring(2000), loss="relativistic", penalty="r1r2",
                          penalty_weight=0.05, lr_generator=2e-3, lr_critic=2e-3,
                          **settings)  # fmt: skip
    collapsed = train_seeds(*make, ring(2000), loss="minimax", lr_generator=5e-3, lr_critic=5e-4,
                            **settings)  # fmt: skip
    held_out = ring(400, seed=1)
    good, bad = healthy.diagnose(held_out, n=400), collapsed.diagnose(held_out, n=400)
    assert good["recall"].min() > bad["recall"].max() + 0.2
    assert good["sliced_wasserstein"].max() < bad["sliced_wasserstein"].min()


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch": 16.5}, "batch=16.5"),
        ({"lr_critic": float("nan")}, "lr_critic=nan"),
        ({"penalty_weight": -1.0}, "penalty_weight=-1.0"),
        ({"seeds": (0, 1.5)}, "seed=1.5"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"seeds": ()}, "seeds is empty"),
        ({"loss": "wasserstien"}, "wasserstein"),
        ({"penalty": "r3"}, "r1"),
        ({"optimizer": "adamw"}, "adam"),
        ({"auxiliary": "klass", "condition": CLASSES}, "class"),
        ({"auxiliary": "class"}, "give condition="),
        ({"condition": CLASSES[:5]}, "5 conditions for 300 samples"),
    ],
)
def test_impossible_settings_are_refused_in_words(settings, match):
    with pytest.raises(InputError, match=match):
        train_seeds(generator, critic, DATA, **{**SHORT, **settings})


def test_data_that_are_not_numbers_are_refused():
    with pytest.raises(InputError, match="floating point"):
        train_seeds(generator, critic, CLASSES, **SHORT)


def test_layers_with_random_numbers_are_refused():
    def with_dropout():
        return nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 1))

    with pytest.raises(InputError, match=r"'1' \(Dropout\)"):
        train_seeds(generator, with_dropout, DATA, **SHORT)


def test_unknown_mixing_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="uniform, normal"):
        train_seeds(generator, critic, DATA, mixing="unifrm", **SHORT)
