"""Many seeds of one small GAN at once: every comparison gets an interval.

The k generators become one with weights (k, ...), and so do the k critics (`torch.func`), so that
each operation is done once for all seeds. Each seed keeps its own random numbers: it draws the
same ones, and ends with the same weights within rounding, as if it had been trained alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..runtime import InputError, lookup
from . import distances, layers, losses
from .checkpoint import section

if TYPE_CHECKING:
    import pandas as pd

PENALTIES = ("gradient", "r1", "r2", "r1r2")
OPTIMIZERS = ("adam", "rmsprop", "sgd")
BLOCK = 2**18  # random numbers that a seed draws at a time

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)

Probe = Callable[..., Mapping[str, float]]


def train_seeds(
    make_generator: Callable[[], nn.Module],
    make_critic: Callable[[], nn.Module],
    data: Tensor,
    *,
    condition: Tensor | None = None,
    loss: str = "wasserstein",
    penalty: str | None = None,
    penalty_weight: float = 10.0,
    mixing: str = "uniform",
    outputs: str = "one",
    clip: float | None = None,
    auxiliary: str | None = None,
    auxiliary_weight: float = 1.0,
    seeds: Iterable[int] = range(8),
    steps: int = 1000,
    critic_steps: int = 1,
    batch: int = 128,
    latent: int = 8,
    optimizer: str = "adam",
    lr_generator: float = 1e-3,
    lr_critic: float = 1e-3,
    betas: tuple[float, float] = (0.5, 0.9),
    ema: float = 0.0,
    log_every: int = 50,
    probe: Probe | None = None,
    probe_samples: int = 500,
    together: bool = True,
    progress: bool = False,
) -> SeedRuns:
    """Train one GAN with several seeds: ``critic_steps`` critic steps, then one generator step.

    A step draws ``batch`` rows of the data with replacement and as much noise from N(0, 1). The
    generated samples of a critic step share the conditions of its real ones.

    Args:
        make_generator: makes a generator; called once a seed, with torch seeded by it.
        make_critic: the same for the critic or discriminator.
        data: (n, ...) real samples.
        condition: (n,) classes or (n, ...) numbers; both networks are then called with it.
        loss: one of `losses.PAIRS`.
        penalty: ``gradient`` (between real and generated samples), ``r1`` (real), ``r2``
            (generated), ``r1r2`` (both), or None.
        penalty_weight: factor of the penalty.
        mixing: see `losses.mix`.
        outputs: see `losses.gradient_penalty`.
        clip: cut the critic's weights to [-clip, clip] after each of its steps.
        auxiliary: ``class`` or ``value``: the critic is called without the condition and returns
            a score and a prediction of the condition, which both players want to be right.
        auxiliary_weight: factor of that loss.
        seeds: one run each.
        steps: generator steps.
        critic_steps: critic steps for each generator step.
        batch: samples a batch.
        latent: length of the noise vector.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        lr_generator: the generator's learning rate.
        lr_critic: the critic's.
        betas: of Adam.
        ema: decay of the running mean of the generator's weights, which then samples; 0 for none.
        log_every: steps from one row of the history to the next.
        probe: called with samples (``probe_samples``, ...), and their conditions if there are
            any, of each seed at each row; what it returns goes into the history. The samples of a
            seed that diverged are NaN.
        probe_samples: how many.
        together: train all seeds at once; False trains one after the other, with the same numbers.
        progress: show a progress bar.

    Raises:
        InputError: an impossible setting, or a network with random layers (dropout), whose
            random numbers could not be the same in both ways.
        UnknownNameError: an unknown loss, penalty, mixing, optimizer or auxiliary loss.
    """
    settings = _Settings(
        loss=loss, penalty=penalty, penalty_weight=penalty_weight, mixing=mixing, outputs=outputs,
        clip=clip, auxiliary=auxiliary, auxiliary_weight=auxiliary_weight, steps=steps,
        critic_steps=critic_steps, batch=batch, latent=latent, optimizer=optimizer,
        lr_generator=lr_generator, lr_critic=lr_critic, betas=betas, ema=ema, log_every=log_every,
    )  # fmt: skip
    chosen = tuple(seeds)
    watch = _Watch(probe, probe_samples, progress)
    table = _Table(data, condition)
    if not chosen:
        raise InputError("seeds is empty: give at least one, e.g. range(8)")
    if auxiliary is not None and condition is None:
        raise InputError(f"auxiliary={auxiliary!r} predicts the condition: give condition=")
    began = time.perf_counter()
    groups = [chosen] if together else [(seed,) for seed in chosen]
    runs = [
        _Training(group, make_generator, make_critic, table, settings, stacked=together)
        for group in groups
    ]
    rows = [row for run in runs for row in run.train(watch)]
    players = [player for run in runs for player in run.final_players()]
    return SeedRuns(
        seeds=chosen, rows=rows, players=players, table=table, latent=latent,
        seconds=time.perf_counter() - began,
    )  # fmt: skip


# ---- what comes back


@dataclass
class SeedRuns:
    """Trained players of several seeds, and their history.

    Attributes:
        seeds: one a run.
        rows: one dict a seed and logged step.
        players: (generator, critic) of each seed, in evaluation mode.
        table: the data.
        latent: length of the noise vector.
        seconds: wall time.
    """

    seeds: tuple[int, ...]
    rows: list[dict[str, float]] = field(repr=False)
    players: list[tuple[nn.Module, nn.Module]] = field(repr=False)
    table: _Table = field(repr=False)
    latent: int
    seconds: float

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def history(self) -> pd.DataFrame:
        """Rows by (seed, step): means since the row before; slopes and probes at the step.

        ``critic_loss`` and ``generator_loss`` are without penalty and auxiliary loss, which have
        their own columns; ``critic_slope`` and ``generator_slope`` are the norms of all that the
        optimizer gets. A seed that diverged has NaN from there on.
        """
        import pandas as pd

        return pd.DataFrame(self.rows).set_index(["seed", "step"]).sort_index()

    def generator(self, index: int) -> nn.Module:
        """The generator of the index-th seed (the averaged one, where ``ema`` was asked for)."""
        return self.players[index][0]

    def critic(self, index: int) -> nn.Module:
        """The critic of the index-th seed."""
        return self.players[index][1]

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, seed: int = 0) -> Tensor:
        """Generate n samples with each seed's generator.

        Args:
            n: how many.
            condition: (n, ...) conditions; drawn from the data unless given.
            seed: of the noise, which is the same for each generator.

        Returns:
            (seeds, n, ...).
        """
        inputs = self.table.inputs(n, self.latent, seed, condition)
        return torch.stack([generator(*inputs) for generator, _ in self.players])

    @torch.no_grad()
    def scores(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(seeds, n, ...) what each critic says of (n, ...) samples."""
        inputs = (x,) if condition is None else (x, condition)
        return torch.stack([_score(critic(*inputs)).squeeze(-1) for _, critic in self.players])

    def diagnose(self, real: Tensor, *, n: int = 1000, k: int = 3, seed: int = 0) -> pd.DataFrame:
        """How far each seed's samples are from real ones.

        Args:
            real: (m, ...) held-out samples; the first n are used.
            n: generated samples.
            k: neighbour of `distances.precision_recall`.
            seed: of the noise.

        Returns:
            One row a seed: precision, recall, sliced_wasserstein, mmd; NaN where it diverged.
        """
        import pandas as pd

        samples = self.sample(n, seed=seed)
        rows = [diagnose(real[:n], fake, k=k) for fake in samples]
        return pd.DataFrame(rows, index=pd.Index(self.seeds, name="seed"))


def diagnose(real: Tensor, fake: Tensor, *, k: int = 3) -> dict[str, float]:
    """Precision, recall, sliced Wasserstein distance and MMD^2 of two sets, NaN for NaN."""
    if not torch.isfinite(fake).all():
        return dict.fromkeys(("precision", "recall", "sliced_wasserstein", "mmd"), float("nan"))
    reached = distances.precision_recall(real, fake, k=k)
    return {
        "precision": reached.precision,
        "recall": reached.recall,
        "sliced_wasserstein": distances.sliced_wasserstein(real, fake),
        "mmd": distances.mmd(real, fake),
    }


# ---- settings and data


@dataclass(frozen=True)
class _Settings:
    """What `train_seeds` was asked for; see there."""

    loss: str
    penalty: str | None
    penalty_weight: float
    mixing: str
    outputs: str
    clip: float | None
    auxiliary: str | None
    auxiliary_weight: float
    steps: int
    critic_steps: int
    batch: int
    latent: int
    optimizer: str
    lr_generator: float
    lr_critic: float
    betas: tuple[float, float]
    ema: float
    log_every: int

    def __post_init__(self) -> None:
        for name in ("steps", "critic_steps", "batch", "latent", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0.0 <= self.ema < 1.0:
            raise InputError(f"ema={self.ema}: a decay lies in [0, 1), e.g. 0.999")
        losses.pair(self.loss)
        lookup("mixing", self.mixing, losses.MIXINGS)
        lookup("optimizer", self.optimizer, OPTIMIZERS)
        if self.penalty is not None:
            lookup("penalty", self.penalty, PENALTIES)
        if self.auxiliary is not None:
            lookup("auxiliary loss", self.auxiliary, losses.AUXILIARIES)


@dataclass(frozen=True, eq=False)
class _Table:
    """Real samples with their conditions."""

    data: Tensor
    condition: Tensor | None

    def __post_init__(self) -> None:
        if not self.data.is_floating_point() or len(self.data) < 1:
            raise InputError(
                f"data of shape {tuple(self.data.shape)} and type {self.data.dtype}: give at least "
                "one row of floating point numbers"
            )
        if self.condition is not None and len(self.condition) != len(self.data):
            raise InputError(
                f"{len(self.condition)} conditions for {len(self.data)} samples: give one a sample"
            )

    def rows(self, index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Samples, and their conditions as a tuple of none or one."""
        return self.data[index], () if self.condition is None else (self.condition[index],)

    def inputs(
        self, n: int, latent: int, seed: int, condition: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What a generator takes for n samples: noise, and conditions if there are any."""
        rng = torch.Generator(device=self.data.device).manual_seed(seed)
        like = {"dtype": self.data.dtype, "device": self.data.device}
        noise = torch.randn(n, latent, generator=rng, **like)
        if self.condition is None:
            return (noise,)
        if condition is None:
            pick = torch.randint(len(self.data), (n,), generator=rng, device=self.data.device)
            condition = self.condition[pick]
        return noise, condition


class _Draws:
    """The random numbers of one seed, a block of iterations at a time from its own generator."""

    def __init__(self, seed: int, table: _Table, settings: _Settings) -> None:
        self.rng = torch.Generator(device=table.data.device).manual_seed(seed)
        self.like, self.n, self.settings = table.data, len(table.data), settings
        turns, s = settings.critic_steps + 1, settings
        self.rounds = max(1, BLOCK // (turns * s.batch * (s.latent + 2)))

    def block(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (rounds, turns, batch), noise (…, latent) and mixing weights (…, 1, …)."""
        s, like = self.settings, self.like
        shape = (self.rounds, s.critic_steps + 1, s.batch)
        index = torch.randint(self.n, shape, generator=self.rng, device=like.device)
        noise = torch.randn(
            *shape, s.latent, generator=self.rng, dtype=like.dtype, device=like.device
        )
        ones = [1] * (like.ndim - 1)
        weight = losses.mixing_weight(
            (*shape, *ones), mixing=s.mixing, generator=self.rng, like=like
        )
        return index, noise, weight


# ---- the players: one network, or k of them as one


class _Alone:
    """One network as it is."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        (self.network,) = networks
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]

    def __call__(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)

    def mode(self, training: bool) -> None:
        self.network.train(training)

    def buffer_list(self) -> list[Tensor]:
        return list(self.network.buffers())

    def networks(self) -> list[nn.Module]:
        return [self.network]

    def slope(self) -> Tensor:
        """Norm of the gradient."""
        return torch.stack([p.grad.norm() for p in self.parameters if p.grad is not None]).norm()


class _Stacked:
    """k networks of one architecture, their weights stacked: (k, ...) in, (k, ...) out."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.weights, self.buffers = stack_module_state(list(networks))
        self.base, self.k = copy.deepcopy(networks[0]), len(networks)
        self.parameters = [w for w in self.weights.values() if w.requires_grad]
        shared = len(list(self.base.named_parameters(remove_duplicate=False))) > len(self.weights)
        build = _by_vmap if shared else _stacked_call
        self.call = build(self.base, self.weights, self.buffers)

    def __call__(self, *inputs: Tensor) -> Any:
        return self.call(*inputs)

    def mode(self, training: bool) -> None:
        self.base.train(training)

    def buffer_list(self) -> list[Tensor]:
        return list(self.buffers.values())

    @torch.no_grad()
    def networks(self) -> list[nn.Module]:
        state = {**self.weights, **self.buffers}
        out = [copy.deepcopy(self.base) for _ in range(self.k)]
        for i, network in enumerate(out):
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                tensor.copy_(state[name][i])
        return out

    def slope(self) -> Tensor:
        """(k,) norms of the gradients."""
        squares = [p.grad.flatten(1).square().sum(1) for p in self.parameters if p.grad is not None]
        return torch.stack(squares).sum(0).sqrt()


State = Mapping[str, Tensor]
# layers that act on each number alone, so a stack needs no care
ELEMENTWISE = (
    nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus,
    nn.Softsign, nn.Tanh,
)  # fmt: skip
# networks whose own code counts dimensions from the end
CONTAINERS = (layers.AuxiliaryHead, layers.Concatenated, layers.ProjectionHead)


def _stacked_call(module: nn.Module, weights: State, buffers: State) -> Callable[..., Any]:
    """A function that does for a stack what ``module`` does for one: (k, ...) to (k, ...).

    Dense layers become one batched product; whatever has no short road goes through `vmap`, which
    costs more for each operation.
    """
    if type(module) is nn.Linear and "bias" in weights:
        return _Dense(module, weights, buffers)
    if type(module) in ELEMENTWISE:
        return module
    if type(module) is nn.Sequential or type(module) in CONTAINERS:
        shell = copy.copy(module)
        shell._modules = {
            name: None
            if child is None
            else _stacked_call(child, section(name, weights), section(name, buffers))
            for name, child in module._modules.items()
        }
        return shell.forward if type(module) in CONTAINERS else _Chain(shell._modules.values())
    return _by_vmap(module, weights, buffers)


def _by_vmap(module: nn.Module, weights: State, buffers: State) -> Callable[..., Any]:
    # torch looks for weights that several layers hold; a layer that is used twice needs no such
    # care, and would not be put back
    held = sum(p is not None for layer in module.modules() for p in layer._parameters.values())
    tied = held > len(weights)

    def one(weights: State, buffers: State, inputs: tuple[Tensor, ...]) -> Any:
        return functional_call(module, (weights, buffers), inputs, tie_weights=tied)

    return lambda *inputs: vmap(one)(weights, buffers, inputs)


class _Dense:
    """k dense layers: (k, batch, in) to (k, batch, out)."""

    def __init__(self, module: nn.Module, weights: State, buffers: State) -> None:
        self.weight, self.bias = weights["weight"], weights["bias"]
        self.general = _by_vmap(module, weights, buffers)

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 3:
            return self.general(x)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


class _Chain:
    """One function after the other."""

    def __init__(self, parts: Iterable[Callable[..., Any]]) -> None:
        self.parts = list(parts)

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


# ---- training


@dataclass
class _Watch:
    """What to do at each row of the history."""

    probe: Probe | None
    samples: int
    progress: bool


class _Training:
    """The training of one seed alone, or of several stacked. The code is the same."""

    def __init__(
        self,
        seeds: Sequence[int],
        make_generator: Callable[[], nn.Module],
        make_critic: Callable[[], nn.Module],
        table: _Table,
        settings: _Settings,
        *,
        stacked: bool,
    ) -> None:
        made = [_make(seed, make_generator, make_critic, table.data) for seed in seeds]
        kind = _Stacked if stacked else _Alone
        self.generator, self.critic = kind([g for g, _ in made]), kind([c for _, c in made])
        # a function of one seed's batch becomes one of all seeds' batches
        self.each = vmap if stacked else (lambda function: function)
        self.batch_dims = 2 if stacked else 1
        self.seeds, self.table, self.settings, self.stacked = seeds, table, settings, stacked
        self.pair = losses.pair(settings.loss)
        self.draws = [_Draws(seed, table, settings) for seed in seeds]
        self.optimizers = (
            _optimizer(self.critic.parameters, settings, settings.lr_critic),
            _optimizer(self.generator.parameters, settings, settings.lr_generator),
        )
        self.mean = kind(copy.deepcopy(self.generator.networks())) if settings.ema else None
        self.sums: dict[str, Tensor] = {}
        self.times: dict[str, int] = {}

    def train(self, watch: _Watch) -> list[dict[str, float]]:
        """All steps; returns the rows of the history."""
        from tqdm.auto import tqdm

        rows = []
        settings = self.settings
        bar = tqdm(
            range(1, settings.steps + 1), disable=not watch.progress, unit="step", mininterval=1.0
        )
        for step, (index, noise, weight) in zip(bar, self._iterations(), strict=False):
            for turn in range(settings.critic_steps):
                self._critic_step(index[turn], noise[turn], weight[turn])
            self._generator_step(index[-1], noise[-1])
            if step % settings.log_every == 0 or step == settings.steps:
                rows += self._log(step, watch)
        return rows

    def final_players(self) -> list[tuple[nn.Module, nn.Module]]:
        """(generator, critic) of each seed, in evaluation mode, without gradients."""
        chosen = self.mean or self.generator
        players = list(zip(chosen.networks(), self.critic.networks(), strict=True))
        for player in players:
            for network in player:
                network.eval().requires_grad_(False)
        return players

    # ---- one step

    def _critic_step(self, index: Tensor, noise: Tensor, weight: Tensor) -> None:
        real, condition = self.table.rows(index)
        with torch.no_grad():
            fake = self.generator(noise, *condition)
        seen = () if self.settings.auxiliary else condition
        real_out, fake_out = self.critic(real, *seen), self.critic(fake, *seen)
        real_score, fake_score = _score(real_out), _score(fake_out)
        loss = self.each(self.pair.critic)(real_score, fake_score)
        total = loss
        if self.settings.penalty:
            penalty = self._penalty(real, fake, weight, seen)
            total = total + self.settings.penalty_weight * penalty
            self._record(penalty=penalty)
        if self.settings.auxiliary:
            right = self._auxiliary(real_out, condition) + self._auxiliary(fake_out, condition)
            total = total + self.settings.auxiliary_weight * right
            self._record(critic_auxiliary=right)
        self._update(self.critic, self.optimizers[0], total)
        if self.settings.clip is not None:
            losses.clip_weights(self.critic.parameters, self.settings.clip)
        self._record(
            critic_loss=loss,
            real_score=real_score.flatten(self.batch_dims - 1).mean(-1),
            fake_score=fake_score.flatten(self.batch_dims - 1).mean(-1),
        )

    def _generator_step(self, index: Tensor, noise: Tensor) -> None:
        real, condition = self.table.rows(index)
        seen = () if self.settings.auxiliary else condition
        fake_out = self.critic(self.generator(noise, *condition), *seen)
        fake_score = _score(fake_out)
        real_score = fake_score  # most losses need none
        if self.settings.loss == "relativistic":
            with torch.no_grad():
                real_score = _score(self.critic(real, *seen))
        loss = self.each(self.pair.generator)(real_score, fake_score)
        total = loss
        if self.settings.auxiliary:
            right = self._auxiliary(fake_out, condition)
            total = total + self.settings.auxiliary_weight * right
            self._record(generator_auxiliary=right)
        self._update(self.generator, self.optimizers[1], total)
        if self.mean is not None:
            _average(self.mean, self.generator, self.settings.ema)
        self._record(generator_loss=loss)

    def _penalty(
        self, real: Tensor, fake: Tensor, weight: Tensor, seen: tuple[Tensor, ...]
    ) -> Tensor:
        """(k,) or a scalar, see ``penalty`` of `train_seeds`."""

        def slope(points: Tensor) -> Tensor:
            return losses.slope(
                lambda x: _score(self.critic(x, *seen)),
                points,
                outputs=self.settings.outputs,
                batch_dims=self.batch_dims,
            )

        kind = self.settings.penalty
        if kind == "gradient":
            return self.each(losses.one_centred)(slope(losses.between(real, fake, weight)))
        places = [x for x, name in ((real, "r1"), (fake, "r2")) if name in kind]
        return sum(self.each(losses.zero_centred)(slope(place)) for place in places)

    def _auxiliary(self, out: tuple[Tensor, Tensor], condition: tuple[Tensor, ...]) -> Tensor:
        return self.each(losses.AUXILIARIES[self.settings.auxiliary])(out[1], *condition)

    @staticmethod
    def _update(player: Any, optimizer: torch.optim.Optimizer, total: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        # seeds share no weight, so the gradient of the sum is each seed's own; only this player's
        total.sum().backward(inputs=player.parameters)
        optimizer.step()

    # ---- random numbers, records

    def _iterations(self) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        """Rows, noise and mixing weights of one iteration after the other: (turns, [k,] batch…)."""
        while True:
            blocks = [draws.block() for draws in self.draws]
            if self.stacked:
                block = [torch.stack(parts, dim=2) for parts in zip(*blocks, strict=True)]
            else:
                block = list(blocks[0])
            yield from zip(*block, strict=True)

    def _record(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
            self.times[name] = self.times.get(name, 0) + 1

    def _log(self, step: int, watch: _Watch) -> list[dict[str, float]]:
        values = {name: total / self.times[name] for name, total in self.sums.items()}
        values["critic_slope"] = self.critic.slope()
        values["generator_slope"] = self.generator.slope()
        self.sums, self.times = {}, {}
        columns = {name: np.atleast_1d(value.cpu().numpy()) for name, value in values.items()}
        rows = [
            {"seed": seed, "step": step, **{name: float(c[i]) for name, c in columns.items()}}
            for i, seed in enumerate(self.seeds)
        ]
        if watch.probe is not None:
            for row, found in zip(rows, self._probe(watch), strict=True):
                row.update(found)
        return rows

    @torch.no_grad()
    def _probe(self, watch: _Watch) -> list[Mapping[str, float]]:
        player = self.mean or self.generator
        player.mode(False)
        inputs = [
            self.table.inputs(watch.samples, self.settings.latent, seed + 1_000_003)
            for seed in self.seeds
        ]
        if self.stacked:
            samples = player(*(torch.stack(parts) for parts in zip(*inputs, strict=True)))
        else:
            samples = player(*inputs[0])[None]
        player.mode(True)
        return [watch.probe(mine, *given[1:]) for mine, given in zip(samples, inputs, strict=True)]


# ---- parts


def _make(
    seed: int,
    make_generator: Callable[[], nn.Module],
    make_critic: Callable[[], nn.Module],
    like: Tensor,
) -> tuple[nn.Module, nn.Module]:
    """Both networks of one seed, on the device and in the precision of the data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        players = make_generator(), make_critic()
    for network in players:
        for name, layer in network.named_modules():
            if isinstance(layer, RANDOM) and getattr(layer, "p", 1.0) > 0:
                raise InputError(
                    f"layer {name!r} ({type(layer).__name__}) draws random numbers of its own, so "
                    "seeds together and alone could not be the same: leave it out, or use "
                    "networks.fit"
                )
    generator, critic = (network.to(like.device, like.dtype).train() for network in players)
    return generator, critic


def _optimizer(parameters: list[Tensor], settings: _Settings, rate: float) -> torch.optim.Optimizer:
    """All are elementwise, so a stack of weights is trained as its members would be."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=settings.betas, fused=True)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate)
    return torch.optim.SGD(parameters, lr=rate)


@torch.no_grad()
def _average(mean: Any, player: Any, decay: float) -> None:
    torch._foreach_lerp_(mean.parameters, player.parameters, 1.0 - decay)
    for slow, fast in zip(mean.buffer_list(), player.buffer_list(), strict=True):
        slow.copy_(fast)


def _score(out: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The score, of a critic that may return a prediction beside it."""
    return out[0] if isinstance(out, tuple) else out
