"""The training loop: it learns, resumes bit for bit, and refuses what it should."""

import dataclasses
import itertools
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from imd_helpers.networks import TrainConfig, checkpoint, fit, losses
from imd_helpers.networks.fit import Game
from imd_helpers.runtime import InputError


class Line(Game):
    """A generator that must learn to shift noise by 3; dropout makes the random state matter."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.generator = nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.1), nn.Linear(16, 1))
        self.critic = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(), nn.Linear(16, 1))
        self.extra = torch.arange(3.0)

    def critic_terms(self):
        real = torch.randn(32, 1) + 3
        with torch.no_grad():
            fake = self.generator(torch.randn(32, 1))
        distance = losses.critic_loss(self.critic(real), self.critic(fake))
        penalty = losses.gradient_penalty(self.critic, real, fake)
        return {"loss": distance + 10 * penalty, "penalty": penalty}

    def generator_terms(self):
        return {"loss": losses.generator_loss(self.critic(self.generator(torch.randn(32, 1))))}

    def tensors(self):
        return {"extra": self.extra}

    def load_tensors(self, tensors):
        self.extra = tensors["extra"]


CONFIG = TrainConfig(steps=12, critic_steps=2, ema=0.9, log_every=4, save_every=5)


def weights(game):
    return torch.cat(
        [p.detach().flatten() for n in (game.generator, game.critic) for p in n.parameters()]
    )


def run(folder, *, stop=None, resume=False, config=CONFIG):
    class Killed(Exception):
        pass

    def killer(step, game, history):
        if stop is not None and step >= stop:
            raise Killed

    game = Line()
    try:
        history = fit(
            game, config, folder=folder, resume=resume, callbacks=[killer], progress=False
        )
    except Killed:
        return game, None
    return game, history


def test_it_moves_towards_the_data():
    """Samples start near 0, the data lie at 3; a wrong sign would drive them apart."""
    game, noise = Line(), torch.randn(2000, 1)

    def gap():
        with torch.no_grad():
            return abs(float(game.generator.eval()(noise).mean()) - 3)

    before = gap()
    config = TrainConfig(steps=60, critic_steps=3, lr_critic=1e-2, lr_generator=2e-3)
    fit(game, config, progress=False)
    assert gap() < before / 2


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    whole, history = run(tmp_path / "whole")
    run(tmp_path / "cut", stop=8)  # dies at step 8, after the checkpoint of step 5
    again, resumed = run(tmp_path / "cut", resume=True)
    assert torch.equal(weights(whole), weights(again))
    assert resumed.rows == history.rows
    for a, b in zip(history.ema.parameters(), resumed.ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_process_killed_without_warning_resumes_to_the_same_weights(tmp_path):
    """SIGKILL in the middle: no handler runs, only the last checkpoint is left."""
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        from test_fit import CONFIG, Line
        from imd_helpers.networks import fit
        def kill(step, game, history):
            if step >= 8:
                os.kill(os.getpid(), signal.SIGKILL)
        fit(Line(), CONFIG, folder={str(tmp_path / "killed")!r}, callbacks=[kill], progress=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    again, _ = run(tmp_path / "killed", resume=True)
    whole, _ = run(tmp_path / "whole")
    assert torch.equal(weights(whole), weights(again))
    assert not list((tmp_path / "killed").glob("*.part"))


def test_finished_training_can_be_prolonged(tmp_path):
    short = TrainConfig(steps=5, critic_steps=2, ema=0.9, log_every=4, save_every=5)
    run(tmp_path, config=short)
    longer, _ = run(tmp_path, resume=True)
    whole, _ = run(tmp_path / "whole")
    assert torch.equal(weights(whole), weights(longer))


def test_the_record_of_a_prolonged_training_adds_up(tmp_path):
    """An end between two rows starts the next mean anew."""
    run(tmp_path, config=dataclasses.replace(CONFIG, steps=5))
    _, longer = run(tmp_path, resume=True)
    _, whole = run(tmp_path / "whole")
    assert [row["step"] for row in longer.rows] == [4, 5, 8, 12]
    _, five, eight, _ = (row["critic_loss"] for row in longer.rows)
    assert (five + 3 * eight) / 4 == pytest.approx(whole.rows[1]["critic_loss"], rel=1e-5)


def test_tied_weights_are_saved_and_resumed(tmp_path):
    class Tied(Line):
        def __init__(self):
            super().__init__()
            twins = [nn.Linear(16, 16) for _ in range(2)]
            twins[1].weight = twins[0].weight
            self.generator = nn.Sequential(nn.Linear(1, 16), *twins, nn.Linear(16, 1))

    games = []
    for folder, steps in ((tmp_path / "whole", (6,)), (tmp_path / "cut", (3, 6))):
        for k in steps:
            games.append(game := Tied())
            config = dataclasses.replace(CONFIG, steps=k)
            fit(game, config, folder=folder, resume=True, progress=False)
    assert torch.equal(weights(games[0]), weights(games[2]))
    assert games[2].generator[1].weight is games[2].generator[2].weight


def test_weight_decay_shrinks_the_critic_and_resumes_bit_for_bit(tmp_path):
    config = dataclasses.replace(CONFIG, weight_decay_critic=500.0)  # by 5 % a critic step
    plain, _ = run(None)
    whole, _ = run(tmp_path / "whole", config=config)
    run(tmp_path / "cut", stop=7, config=config)
    again, _ = run(tmp_path / "cut", resume=True, config=config)
    assert torch.equal(weights(whole), weights(again))
    first = [game.critic[0].weight.norm() for game in (plain, whole)]
    assert first[1] < 0.5 * first[0]
    generators = [game.generator[0].weight.norm() for game in (plain, whole)]
    assert generators[1] > 0.9 * generators[0]


def test_rates_fall_at_the_end_and_resume_bit_for_bit(tmp_path):
    """Of 12 steps the last 6 fall; so the first 6 are those of a run with constant rates."""
    config = dataclasses.replace(CONFIG, fall=0.5)
    same = [run(None, config=c, stop=4)[0] for c in (config, CONFIG)]
    assert torch.equal(*map(weights, same))
    whole, _ = run(tmp_path / "whole", config=config)
    run(tmp_path / "cut", stop=8, config=config)
    again, _ = run(tmp_path / "cut", resume=True, config=config)
    assert torch.equal(weights(whole), weights(again))
    assert not torch.equal(weights(whole), weights(run(None)[0]))
    with pytest.raises(checkpoint.CheckpointError, match=r"steps': \(12, 20\)"):
        run(tmp_path / "cut", resume=True, config=dataclasses.replace(config, steps=20))


def test_the_last_rate_is_a_step_from_zero():
    seen = []

    class Watched(Line):
        def generator_terms(self):
            before = self.generator[0].weight.detach().clone()
            seen.append(before)
            return super().generator_terms()

    config = dataclasses.replace(CONFIG, steps=20, fall=1.0, betas_generator=(0.0, 0.0))
    fit(Watched(), config, progress=False)
    moves = [(b - a).abs().max().item() for a, b in itertools.pairwise(seen)]
    # Adam without memory moves each weight by its rate: 20/20, 19/20, ... 2/20 of 1e-4
    assert moves == pytest.approx([1e-4 * (20 - k) / 20 for k in range(19)], rel=0.02)


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    game = Line.__new__(Line)
    with torch.random.fork_rng():
        game.__init__()
    fit(game, CONFIG, progress=False)
    assert torch.equal(torch.rand(3), expected)


def test_same_seed_same_weights_other_seed_other_weights(tmp_path):
    first, _ = run(None)
    second, _ = run(None)
    other, _ = run(None, config=TrainConfig(**{**vars(CONFIG), "seed": 1}))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_resuming_with_other_settings_is_refused_and_names_them(tmp_path):
    run(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="lr_critic"):
        run(tmp_path, resume=True, config=TrainConfig(**{**vars(CONFIG), "lr_critic": 1e-2}))


@pytest.mark.parametrize("damage", ["truncated", "foreign", "pickle"])
def test_broken_checkpoints_are_refused(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / "training.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "foreign":
        checkpoint.write(path, {"a": torch.zeros(2)}, {"format": "something-else"})
    else:
        torch.save({"a": 1}, path)
    with pytest.raises(checkpoint.CheckpointError, match=str(path)):
        run(tmp_path, resume=True)


def test_weights_of_another_network_are_refused(tmp_path):
    run(tmp_path)
    game = Line()
    game.generator = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    with pytest.raises(checkpoint.CheckpointError, match="does not fit the network"):
        fit(game, CONFIG, folder=tmp_path, resume=True, progress=False)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = checkpoint.write(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {"format": "x"})
    before = path.read_bytes()

    def full_disk(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(checkpoint.CheckpointError, match="No space left"):
        checkpoint.write(path, {"a": torch.zeros(1)}, {"format": "x"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_divergence_is_an_error_that_names_the_step():
    game = Line()
    with torch.no_grad():
        game.generator[0].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="step 4: training diverged"):
        fit(game, CONFIG, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"critic_steps": 0},
        {"ema": 1.0},
        {"fall": 1.5},
        {"fall": float("nan")},
        {"lr_critic": float("inf")},
        {"seed": -1},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong)))):
        TrainConfig(**{"steps": 5, **wrong})


def test_two_processes_train_as_one(tmp_path):
    """Under torchrun the weights agree, and each process draws its own samples."""
    code = f"""
        import os, sys, torch
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        from test_fit import CONFIG, Line, weights
        from imd_helpers.networks import fit
        game = Line(seed=int(os.environ["RANK"]))
        fit(game, CONFIG, progress=False)
        torch.save(weights(game), {str(tmp_path)!r} + "/" + os.environ["RANK"])
        torch.distributed.destroy_process_group()
    """
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*command, str(script)], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / rank, weights_only=True) for rank in "01")
    alone, _ = run(None)
    assert torch.equal(first, second)
    assert not torch.equal(first, weights(alone))


def test_a_training_state_with_one_bit_turned_or_a_key_too_few_is_refused(tmp_path):
    header = {"format": "f", "at": {2: 1, 10: (2,)}}
    state = checkpoint.write(tmp_path / "a", {"x": torch.ones(3)}, header)
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    (tmp_path / "b").write_bytes(data)
    assert checkpoint.read(state, expect="f")[1] == {"format": "f", "at": {"2": 1, "10": [2]}}
    with pytest.raises(checkpoint.CheckpointError, match="damaged or edited"):
        checkpoint.read(tmp_path / "b", expect="f")


@pytest.mark.parametrize("weight", [torch.full((1, 1), torch.nan), torch.ones(1, 1).long()])
def test_weights_that_are_no_finite_numbers_are_refused(weight):
    network = nn.Linear(1, 1, bias=False)
    with pytest.raises(checkpoint.CheckpointError, match="weight holds"):
        checkpoint.load_into(network, {"weight": weight}, source="a file")
