"""One training loop for every network of the book that learns in turns."""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..runtime import InputError, number, progress_bar, settle, shown, whole
from . import checkpoint, losses
from .team import Team

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "imd-training-1"
FASTEST = 1e30  # of all rates: what single precision can hold


@dataclass(frozen=True)
class Turn:
    """Networks that learn together from one loss.

    ``terms`` gives named scalars: ``loss`` is minimised, the rest is recorded. The rates and betas
    of a turn whose name begins with critic, classifier or discriminator are the critic's, all
    others the generator's.
    """

    name: str  # stands before the turn's terms in the history
    terms: Callable[[], dict[str, Tensor]]
    networks: tuple[str, ...]  # names of those that learn
    times: int = 1  # how often the turn is taken before the next one
    begin: float = 0.0  # share of the steps before its first
    end: float = 1.0  # share of the steps after which it is over

    @property
    def criticises(self) -> bool:
        """Does it take the critic's rates?"""
        return self.name.startswith(("critic", "classifier", "discriminator"))

    def span(self, steps: int) -> range:
        """The iterations of all in which it is taken."""
        return range(round(self.begin * steps), round(self.end * steps))


class Game:
    """Networks, their data and their losses: what a model gives to `fit`.

    As it stands a generator and a critic that take turns, with Wasserstein's losses of what `real`
    and `fake` give; one with other networks says so in `networks`, `turns` and ``averaged``. A loss
    draws its own batch, on the networks' device and with torch's global random numbers, so that
    seeding and resuming are the loop's business alone.
    """

    generator: nn.Module
    critic: nn.Module
    averaged: str = "generator"  # the network of which ``ema`` keeps a mean
    penalty: float = 10.0  # factor of the gradient penalty
    mixing: str = "uniform"  # its points, see `losses.mix`

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks by name."""
        return {"generator": self.generator, "critic": self.critic}

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(p for network in self.networks.values() for p in network.parameters()).device

    def turns(self, config: TrainConfig) -> list[Turn]:
        """What one iteration does."""
        return [
            Turn("critic", self.critic_terms, ("critic",), config.critic_steps),
            Turn("generator", self.generator_terms, ("generator",)),
        ]

    def real(self) -> tuple[Tensor, Tensor | None]:
        """A batch of training data, and the condition that goes with it."""
        raise NotImplementedError

    def fake(self, condition: Tensor | None = None) -> Tensor:
        """A batch that the generator makes, with gradients."""
        raise NotImplementedError

    def pair(self) -> tuple[Tensor, Tensor, losses.Scorer]:
        """For the critic's turn: a real batch, a generated one without gradient, and the critic."""
        for network in self.networks.values():
            network.train()
        real, condition = self.real()
        with torch.no_grad():
            fake = self.fake(condition)
        return real, fake, self.scorer(condition)

    def scorer(self, condition: Tensor | None) -> losses.Scorer:
        """The critic, which sees the condition if there is one."""
        if condition is None:
            return self.critic
        return lambda sample: self.critic(sample, condition)

    def critic_terms(self) -> dict[str, Tensor]:
        """Named scalars; ``loss`` is minimised over the critic, the rest is recorded.

        Wasserstein loss plus penalty; ``distance`` is the estimated Wasserstein distance.
        """
        real, fake, score = self.pair()
        wasserstein = losses.critic_loss(score(real), score(fake))
        penalty = losses.gradient_penalty(score, real, fake, mixing=self.mixing)
        loss = wasserstein + self.penalty * penalty
        return {"loss": loss, "distance": -wasserstein, "penalty": penalty}

    def generator_terms(self) -> dict[str, Tensor]:
        """Named scalars; ``loss``, the negative score, is minimised over the generator."""
        _, condition = self.real()
        return {"loss": losses.generator_loss(self.scorer(condition)(self.fake(condition)))}

    def tensors(self) -> dict[str, Tensor]:
        """Further state that training needs to go on, e.g. frozen labels."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""


def adam_betas(name: str, value: Any) -> tuple[float, float]:
    """Two decays of Adam, each at least 0 and below 1."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"{name}={shown(value)}: Adam has two, give e.g. (0.5, 0.9)")
    return tuple(number(name, each, least=0, below=1) for each in value)


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast."""

    steps: int  # iterations, each of ``critic_steps`` critic steps and one generator step
    critic_steps: int = 5
    lr_generator: float = 1e-4  # Adam's rate for the generator and other networks of its side
    lr_critic: float = 1e-4
    fall: float = 0.0  # share of the steps, at the end, in which both rates fall to zero linearly
    betas_generator: tuple[float, float] = (0.5, 0.9)
    betas_critic: tuple[float, float] = (0.5, 0.9)
    weight_decay_critic: float = 0.0  # decoupled, by AdamW; 0 for plain Adam
    ema: float = 0.0  # decay of the running mean of the generator's weights; 0 keeps none
    seed: int = 0
    log_every: int = 20  # steps from one row of the history to the next
    save_every: int = 500  # steps from one checkpoint to the next, with a folder

    def __post_init__(self) -> None:
        settle(self, whole, "steps", "critic_steps", "log_every", "save_every", least=1)
        settle(self, whole, "seed")
        settle(self, number, "lr_generator", "lr_critic", above=0, most=FASTEST)
        settle(self, number, "weight_decay_critic", least=0)
        settle(self, number, "fall", least=0, most=1)
        settle(self, number, "ema", least=0, below=1)
        settle(self, adam_betas, "betas_generator", "betas_critic")


@dataclass
class History:
    """What `fit` recorded."""

    rows: list[dict[str, float]] = field(default_factory=list)  # step, and means of the terms
    seconds: float = 0.0  # wall time of training, all runs together
    ema: nn.Module | None = None  # the averaged network

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table indexed by step."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("step") if self.rows else pd.DataFrame()


Callback = Callable[[int, Game, History], None]


def fit(
    game: Game,
    config: TrainConfig,
    *,
    folder: Path | str | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
) -> History:
    """Train: take all turns of the game, ``steps`` times.

    The global random state is restored at the end. Under ``torchrun`` gradients are averaged over
    all processes.

    Args:
        game: networks, data and losses.
        config: length, rates and seed.
        folder: where ``training.safetensors`` goes, every ``save_every`` steps and at the end.
        resume: go on from that file if it is there, bit for bit as if training had never stopped.
        identity: what else is kept in that file, and must be the same to go on from it, e.g. the
            data and the recipe; as JSON can hold it.
        callbacks: called as ``callback(step, game, history)`` after each row of the history.
        progress: show a progress bar.

    Raises:
        InputError: ``resume`` without ``folder``, or a loss that is not finite.
        CheckpointError: a checkpoint that is broken, of another run, or with more steps.
    """
    if resume and folder is None:
        raise InputError("resume=True needs the folder that holds the checkpoint: give folder=")
    team = Team.join()
    with torch.random.fork_rng(devices=[game.device] if game.device.type == "cuda" else []):
        # one stream of random numbers a process, equal weights in all
        torch.manual_seed(config.seed + 1_000_003 * team.rank)
        run = _Run(game, config, None if folder is None else Path(folder), team)
        run.same |= json.loads(json.dumps(dict(identity or {})))
        if resume:
            try:
                run.resume()
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                if isinstance(error, InputError):
                    raise
                raise checkpoint.CheckpointError(
                    f"{run.path} is no state of this training ({type(error).__name__}: {error}): "
                    "get a fresh copy, or train into a new folder"
                ) from error
        run.train(list(callbacks), progress)
    return run.history


# ---- the loop


class _Run:
    """The moving parts of one training."""

    def __init__(self, game: Game, config: TrainConfig, folder: Path | None, team: Team) -> None:
        self.game, self.config, self.folder, self.team = game, config, folder, team
        self.networks, self.turns = game.networks, game.turns(config)
        self.optimizers = {turn.name: self._optimizer(turn) for turn in self.turns}
        self.history = History()
        if config.ema:
            averaged = copy.deepcopy(self.networks[game.averaged])
            self.history.ema = averaged.requires_grad_(False)
        self.step = 0
        parted = any((turn.begin, turn.end) != (0.0, 1.0) for turn in self.turns)
        self.same = _comparable(config, parted)  # what a continuation must share
        self.sums: dict[str, Tensor] = {}
        team.equalise(*self.networks.values(), self.history.ema)

    def _optimizer(self, turn: Turn) -> torch.optim.Optimizer:
        config, parameters = self.config, self._parameters(turn)
        if not turn.criticises:
            return torch.optim.Adam(parameters, config.lr_generator, config.betas_generator)
        decay = config.weight_decay_critic  # without it AdamW is Adam
        return torch.optim.AdamW(
            parameters, config.lr_critic, config.betas_critic, weight_decay=decay
        )

    def _parameters(self, turn: Turn) -> list[nn.Parameter]:
        return [p for name in turn.networks for p in self.networks[name].parameters()]

    # ---- training

    def train(self, callbacks: list[Callback], progress: bool) -> None:
        config, started, before = self.config, time.perf_counter(), self.history.seconds
        show = progress and self.team.rank == 0
        with progress_bar(None, "", show, total=config.steps, unit="step") as bar:
            bar.update(self.step)
            while self.step < config.steps:
                if config.fall:
                    self._set_rates()
                self._iteration()
                self.step += 1
                bar.update()
                self.history.seconds = before + time.perf_counter() - started
                if self.step % config.log_every == 0 or self.step == config.steps:
                    row = self._log()
                    bar.set_postfix({k: f"{v:.3g}" for k, v in row.items() if k != "step"})
                    for callback in callbacks:
                        callback(self.step, self.game, self.history)
                if self.step % config.save_every == 0 or self.step == config.steps:
                    self.save()

    def _set_rates(self) -> None:
        config = self.config
        for turn in self.turns:
            span = turn.span(config.steps)
            left = (span.stop - self.step) / (max(1, len(span)) * config.fall)
            rate = config.lr_critic if turn.criticises else config.lr_generator
            for group in self.optimizers[turn.name].param_groups:
                group["lr"] = rate * min(1.0, left)

    def _iteration(self) -> None:
        """Every turn as often as it is taken; then the mean of the weights follows."""
        for turn in self.turns:
            taken = self.step in turn.span(self.config.steps)
            for _ in range(turn.times if taken else 0):
                self._update(turn)
        if self.history.ema is not None:
            average(self.history.ema, self.networks[self.game.averaged], self.config.ema)

    def _update(self, turn: Turn) -> None:
        optimizer = self.optimizers[turn.name]
        optimizer.zero_grad(set_to_none=True)
        values = turn.terms()
        # only the gradients of this turn's networks: the others stay untouched
        parameters = [p for p in self._parameters(turn) if p.requires_grad]
        values["loss"].backward(inputs=parameters)
        self.team.average(parameters)
        optimizer.step()
        for name, value in values.items():
            key = f"{turn.name}_{name}"
            if key not in self.sums:
                self.sums[key] = torch.zeros_like(value.detach())
            self.sums[key] += value.detach()

    def _log(self) -> dict[str, float]:
        row: dict[str, float] = {"step": self.step}
        for key, total in self.sums.items():
            if not (times := self._taken(key)):
                continue
            row[key] = float(total) / times
            if not torch.isfinite(total).all():
                raise InputError(
                    f"{key} is {float(total)} at step {self.step}: training diverged; lower the "
                    "learning rates, or raise the penalty"
                )
            total.zero_()
        self.history.rows.append(row)
        return row

    def _taken(self, key: str) -> int:
        """How often a term was added up since the last row of the history."""
        since = int(self.history.rows[-1]["step"]) if self.history.rows else 0
        turn = next(turn for turn in self.turns if key.startswith(f"{turn.name}_"))
        span = turn.span(self.config.steps)
        return turn.times * max(0, min(self.step, span.stop) - max(since, span.start))

    # ---- checkpoints

    @property
    def path(self) -> Path | None:
        """The checkpoint of this process, if there is a folder for it."""
        name = "training" if self.team.size == 1 else f"training-{self.team.rank}"
        return None if self.folder is None else self.folder / f"{name}.safetensors"

    def _modules(self) -> dict[str, nn.Module]:
        """What is saved and resumed: the networks, and the average of one."""
        ema = self.history.ema
        return self.networks if ema is None else {**self.networks, "ema": ema}

    def save(self) -> None:
        if self.path is None:
            return
        tensors = {
            **checkpoint.prefixed("game", self.game.tensors()),
            **checkpoint.prefixed("sums", self.sums),
            "random.cpu": torch.get_rng_state(),
        }
        if self.game.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.game.device)
        for name, network in self._modules().items():
            tensors |= checkpoint.prefixed(name, network.state_dict())
        for who, optimizer in self.optimizers.items():
            tensors |= checkpoint.prefixed(f"adam_{who}", _adam_state(optimizer))
        header = {
            "format": FORMAT,
            "config": self.same,
            "step": self.step,
            "rows": self.history.rows,
            "seconds": self.history.seconds,
        }
        checkpoint.write(self.path, tensors, header)

    def resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        tensors, header = checkpoint.read(self.path, expect=FORMAT)
        theirs, ours = header["config"], self.same
        if theirs != ours:
            keys = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
            changed = {key: (theirs.get(key), ours.get(key)) for key in keys}
            raise checkpoint.CheckpointError(
                f"{self.path} was trained with other settings (theirs, yours): {changed}; resume "
                "with the same ones (only steps may grow, and only without fall), or train into "
                "a new folder"
            )
        if header["step"] > self.config.steps:
            raise checkpoint.CheckpointError(
                f"{self.path} has {header['step']:,} steps already, and steps={self.config.steps}: "
                "ask for at least as many, or train into a new folder"
            )
        for name, network in self._modules().items():
            part = checkpoint.section(name, tensors)
            checkpoint.load_into(network, part, source=str(self.path))
        for who, optimizer in self.optimizers.items():
            _load_adam(optimizer, checkpoint.section(f"adam_{who}", tensors))
        self.game.load_tensors(checkpoint.section("game", tensors))
        sums, random = (checkpoint.section(name, tensors) for name in ("sums", "random"))
        self.sums = {name: total.to(self.game.device) for name, total in sums.items()}
        torch.set_rng_state(random["cpu"])
        if self.game.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.game.device)
        self.step, self.history.seconds = header["step"], header["seconds"]
        self.history.rows = header["rows"]


# ---- parts


def _adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _load_adam(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


@torch.no_grad()
def average(mean: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of a network's weights a step towards it; buffers are copied."""
    for slow, fast in zip(mean.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)
    for slow, fast in zip(mean.buffers(), network.buffers(), strict=True):
        slow.copy_(fast)


def _comparable(config: TrainConfig, parted: bool) -> dict[str, Any]:
    """Settings that must agree between a run and its continuation.

    Its length may differ, unless the rates depend on it, or when turns begin and end.
    """
    plain = dataclasses.asdict(config)
    del plain["save_every"]
    if not config.fall and not parted:
        del plain["steps"]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
