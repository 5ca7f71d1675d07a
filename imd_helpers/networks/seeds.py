"""Many seeds of one small GAN at once: every comparison gets an interval.

The k generators become one with weights (k, ...), and so do the k critics (`torch.func`), so that
each operation is done once for all seeds. Each seed keeps its own random numbers: it draws the
same ones, and ends with the same weights within rounding, as if it had been trained alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..runtime import InputError, lookup, number, reals, settle, shown, whole
from . import distances, layers, losses
from .checkpoint import section
from .fit import FASTEST, adam_betas

if TYPE_CHECKING:
    import pandas as pd

PENALTIES = ("gradient", "r1", "r2", "r1r2")  # between both; at real, at generated samples, both
OPTIMIZERS = ("adam", "rmsprop")
BLOCK = 2**18  # random numbers that a seed draws at a time

RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)

Probe = Callable[..., Mapping[str, float]]
Maker = Callable[[], nn.Module]


@dataclass(frozen=True, kw_only=True)
class SeedConfig:
    """How the seeds are trained; the keywords of `train_seeds`.

    With ``auxiliary`` the critic is called without the condition and returns a score and a
    prediction of the condition (a ``class`` or a ``value``), which both players want to be right.
    """

    loss: str = "wasserstein"  # one of `losses.PAIRS`
    penalty: str | None = None  # one of `PENALTIES`
    penalty_weight: float = 10.0
    mixing: str = "uniform"  # see `losses.mix`
    outputs: str = "one"  # see `losses.gradient_penalty`
    clip: float | None = None  # cut the critic's weights to [-clip, clip] after each of its steps
    auxiliary: str | None = None
    auxiliary_weight: float = 1.0
    steps: int = 1000  # of the generator, each after ``critic_steps`` of the critic
    critic_steps: int = 1
    batch: int = 128
    latent: int = 8  # length of the noise vector
    optimizer: str = "adam"  # with these ``betas``; or ``rmsprop``
    lr_generator: float = 1e-3
    lr_critic: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)
    ema: float = 0.0  # decay of the running mean of the generator's weights, which then samples
    log_every: int = 50  # steps from one row of the history to the next

    def __post_init__(self) -> None:
        settle(self, whole, "steps", "critic_steps", "batch", "latent", "log_every", least=1)
        # a rate of 0 trains one side alone
        settle(self, number, "lr_generator", "lr_critic", least=0, most=FASTEST)
        settle(self, number, "penalty_weight", "auxiliary_weight", least=0)
        settle(self, number, "ema", least=0, below=1)
        settle(self, adam_betas, "betas")
        if self.clip is not None:
            settle(self, number, "clip", above=0)
        lookup("treatment of outputs", self.outputs, losses.OUTPUTS)
        lookup("loss", self.loss, losses.PAIRS)
        lookup("mixing", self.mixing, losses.MIXINGS)
        lookup("optimizer", self.optimizer, OPTIMIZERS)
        if self.penalty is not None:
            lookup("penalty", self.penalty, PENALTIES)
        if self.auxiliary is not None:
            lookup("auxiliary loss", self.auxiliary, losses.AUXILIARIES)


def train_seeds(
    make_generator: Maker,
    make_critic: Maker,
    data: Tensor,
    *,
    condition: Tensor | None = None,
    seeds: Iterable[int] = range(8),
    probe: Probe | None = None,
    probe_samples: int = 500,
    together: bool = True,
    **settings: Any,
) -> SeedRuns:
    """Train one GAN with several seeds: ``critic_steps`` critic steps, then one generator step.

    A step draws ``batch`` rows of the data with replacement and as much noise from N(0, 1). The
    generated samples of a critic step share the conditions of its real ones.

    Args:
        make_generator: makes a generator; called once a seed, with torch seeded by it.
        make_critic: the same for the critic.
        data: (n, ...) real samples.
        condition: (n,) classes or (n, ...) numbers; both networks are then called with it.
        seeds: one run each.
        probe: called with samples (``probe_samples``, ...), and their conditions if there are
            any, of each seed at each row; what it returns goes into the history. The samples of a
            seed that diverged are NaN.
        probe_samples: how many.
        together: train all seeds at once; False trains one after the other, with the same numbers.
        settings: see `SeedConfig`.

    Raises:
        InputError: an impossible setting, or a network with random layers (dropout).
    """
    config = SeedConfig(**settings)
    chosen = tuple(whole("seed", seed) for seed in seeds)
    table = _Table(data, condition)
    probe_samples = whole("probe_samples", probe_samples, least=1)
    if not chosen:
        raise InputError("seeds is empty: give at least one, e.g. range(8)")
    if config.auxiliary is not None and condition is None:
        raise InputError(f"auxiliary={config.auxiliary!r} predicts the condition: give condition=")
    began = time.perf_counter()
    rows, players = [], []
    for group in [chosen] if together else [(seed,) for seed in chosen]:
        run = _Training(group, make_generator, make_critic, table, config, stacked=together)
        rows += run.train(probe, probe_samples)
        players += run.final_players()
    return SeedRuns(chosen, rows, players, table, config.latent, time.perf_counter() - began)


# ---- what comes back


@dataclass
class SeedRuns:
    """Trained players of several seeds, in evaluation mode, and their history."""

    seeds: tuple[int, ...]
    rows: list[dict[str, float]] = field(repr=False)  # one a seed and logged step, see `history`
    players: list[tuple[nn.Module, nn.Module]] = field(repr=False)  # generator and critic
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
        """(seeds, n, ...) samples of each seed's generator, from the same noise.

        The (n, ...) conditions are drawn from the data unless given.
        """
        inputs = self.table.inputs(n, self.latent, seed, condition)
        return torch.stack([generator(*inputs) for generator, _ in self.players])

    @torch.no_grad()
    def scores(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(seeds, n, ...) what each critic says of (n, ...) samples."""
        inputs = (x,) if condition is None else (x, condition)
        return torch.stack([_score(critic(*inputs)).squeeze(-1) for _, critic in self.players])

    def diagnose(self, real: Tensor, *, n: int = 1000, seed: int = 0) -> pd.DataFrame:
        """How far n samples of each seed are from the first n real ones, see `diagnose`."""
        import pandas as pd

        rows = [diagnose(real[:n], fake) for fake in self.sample(n, seed=seed)]
        return pd.DataFrame(rows, index=pd.Index(self.seeds, name="seed"))


def diagnose(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Precision, recall, sliced Wasserstein distance and MMD^2 of two sets, NaN for NaN."""
    if not torch.isfinite(fake).all():
        return dict.fromkeys(("precision", "recall", "sliced_wasserstein", "mmd"), float("nan"))
    reached = distances.precision_recall(real, fake)
    return {
        "precision": reached.precision,
        "recall": reached.recall,
        "sliced_wasserstein": distances.sliced_wasserstein(real, fake),
        "mmd": distances.mmd(real, fake),
    }


# ---- data and random numbers


@dataclass(frozen=True, eq=False)
class _Table:
    """Real samples with their conditions."""

    data: Tensor
    condition: Tensor | None

    def __post_init__(self) -> None:
        if reals("data", self.data).ndim == 0 or not self.data.is_floating_point():
            raise InputError(f"data={shown(self.data)}: give rows of floating point numbers")
        told = self.condition
        if len(self.data) < 1 or (told is not None and reals("condition", told).ndim == 0):
            raise InputError("data and condition must have at least one row: there is none")
        if told is not None and len(told) != len(self.data):
            raise InputError(f"{len(told)} conditions for {len(self.data)} samples: give one each")

    def rows(self, index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Samples, and their conditions as a tuple of none or one."""
        return self.data[index], () if self.condition is None else (self.condition[index],)

    def inputs(
        self, n: int, latent: int, seed: int, condition: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """What a generator takes for n samples: noise, and conditions if there are any."""
        rng = torch.Generator(device=self.data.device).manual_seed(whole("seed", seed))
        like = {"dtype": self.data.dtype, "device": self.data.device}
        n = whole("n", n, least=1)
        noise = torch.randn(n, latent, generator=rng, **like)
        if self.condition is None:
            return (noise,)
        if condition is None:
            pick = torch.randint(len(self.data), (n,), generator=rng, device=self.data.device)
            condition = self.condition[pick]
        return noise, condition


def _blocks(seed: int, table: _Table, config: SeedConfig) -> Iterator[tuple[Tensor, ...]]:
    """The random numbers of one seed from its own generator, a block of iterations at a time.

    Rows (rounds, turns, batch), noise (…, latent) and mixing weights (…, 1, …).
    """
    data, turns = table.data, config.critic_steps + 1
    rng = torch.Generator(device=data.device).manual_seed(seed)
    rounds = max(1, BLOCK // (turns * config.batch * (config.latent + 2)))
    shape = (rounds, turns, config.batch)
    wide, ones = (*shape, config.latent), [1] * (data.ndim - 1)
    while True:
        yield (
            torch.randint(len(data), shape, generator=rng, device=data.device),
            torch.randn(wide, generator=rng, dtype=data.dtype, device=data.device),
            losses.mixing_weight((*shape, *ones), mixing=config.mixing, generator=rng, like=data),
        )


# ---- the players: one network, or k of them as one


class _Player:
    """One network as it is, or k of one architecture with stacked weights: (k, ...) to (k, ...)."""

    def __init__(
        self, networks: Sequence[nn.Module], config: SeedConfig, rate: float, *, stacked: bool
    ) -> None:
        self.k, self.stacked, self.base = len(networks), stacked, networks[0]
        if stacked:
            self.weights, self.buffers = stack_module_state(list(networks))
            self.base = copy.deepcopy(self.base)
            held = len(list(self.base.named_parameters(remove_duplicate=False)))
            build = _by_vmap if held > len(self.weights) else _stacked_call
            self.call = build(self.base, self.weights, self.buffers)
        else:
            self.weights = dict(self.base.named_parameters())
            self.buffers = dict(self.base.named_buffers())
            self.call = self.base
        self.parameters = [w for w in self.weights.values() if w.requires_grad]
        # both are elementwise, so a stack of weights is trained as its members would be
        if config.optimizer == "rmsprop":
            self.optimizer = torch.optim.RMSprop(self.parameters, lr=rate)
        else:
            self.optimizer = torch.optim.Adam(self.parameters, rate, config.betas, fused=True)

    def __call__(self, *inputs: Tensor) -> Any:
        return self.call(*inputs)

    def learn(self, loss: Tensor) -> None:
        """One step down a loss, a scalar or one a network, which share no weight."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward(inputs=self.parameters)  # of this player alone
        self.optimizer.step()

    @torch.no_grad()
    def networks(self) -> list[nn.Module]:
        """The k networks, each with its own weights."""
        if not self.stacked:
            return [self.base]
        state = {**self.weights, **self.buffers}
        out = [copy.deepcopy(self.base) for _ in range(self.k)]
        for i, network in enumerate(out):
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                tensor.copy_(state[name][i])
        return out

    def slope(self) -> Tensor:
        """(k,) norms of the gradients."""
        found = [p.grad for p in self.parameters if p.grad is not None]
        return torch.stack([g.reshape(self.k, -1).square().sum(1) for g in found]).sum(0).sqrt()

    @torch.no_grad()
    def follow(self, other: _Player, decay: float) -> None:
        """Move a running mean of weights towards another player's; buffers are copied."""
        torch._foreach_lerp_(self.parameters, other.parameters, 1.0 - decay)
        for slow, fast in zip(self.buffers.values(), other.buffers.values(), strict=True):
            slow.copy_(fast)


State = Mapping[str, Tensor]
# layers that act on each number alone, so a stack needs no care
ELEMENTWISE = (
    nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus,
    nn.Softsign, nn.Tanh,
)  # fmt: skip
# networks whose own code counts dimensions from the end
CONTAINERS = (nn.Sequential, layers.AuxiliaryHead, layers.Concatenated, layers.ProjectionHead)


def _stacked_call(module: nn.Module, weights: State, buffers: State) -> Callable[..., Any]:
    """A function that does for a stack what ``module`` does for one: (k, ...) to (k, ...).

    Dense layers become one batched product; whatever has no short road goes through `vmap`, which
    costs more for each operation.
    """
    if type(module) is nn.Linear and "bias" in weights:

        def dense(x: Tensor) -> Tensor:  # (k, batch, …, in) to (k, batch, …, out)
            bias, weight = weights["bias"].unsqueeze(1), weights["weight"].mT
            return torch.baddbmm(bias, x.flatten(1, -2), weight).view(*x.shape[:-1], -1)

        return dense
    if type(module) in ELEMENTWISE:
        return module
    if type(module) in CONTAINERS:
        shell = copy.copy(module)
        shell._modules = {
            name: None
            if child is None
            else _stacked_call(child, section(name, weights), section(name, buffers))
            for name, child in module._modules.items()
        }
        return shell.forward
    return _by_vmap(module, weights, buffers)


def _by_vmap(module: nn.Module, weights: State, buffers: State) -> Callable[..., Any]:
    # torch looks for weights that several layers hold; a layer that is used twice needs no such
    # care, and would not be put back
    held = sum(p is not None for layer in module.modules() for p in layer._parameters.values())
    tied = held > len(weights)

    def one(weights: State, buffers: State, inputs: tuple[Tensor, ...]) -> Any:
        return functional_call(module, (weights, buffers), inputs, tie_weights=tied)

    return lambda *inputs: vmap(one)(weights, buffers, inputs)


# ---- training


class _Training:
    """The training of one seed alone, or of several stacked. The code is the same."""

    def __init__(
        self,
        seeds: Sequence[int],
        make_generator: Maker,
        make_critic: Maker,
        table: _Table,
        config: SeedConfig,
        *,
        stacked: bool,
    ) -> None:
        made = [_make(seed, make_generator, make_critic, table.data) for seed in seeds]
        generators, critics = zip(*made, strict=True)
        self.generator = _Player(generators, config, config.lr_generator, stacked=stacked)
        self.critic = _Player(critics, config, config.lr_critic, stacked=stacked)
        self.sampler = self.generator  # or the running mean of it
        if config.ema:
            slow = copy.deepcopy(self.generator.networks())
            self.sampler = _Player(slow, config, 0.0, stacked=stacked)
        # a function of one seed's batch becomes one of all seeds' batches
        self.each = vmap if stacked else (lambda function: function)
        self.batch_dims = 2 if stacked else 1
        self.seeds, self.table, self.config, self.stacked = seeds, table, config, stacked
        self.pair = losses.PAIRS[config.loss]
        self.sums: dict[str, Tensor] = {}
        self.times: dict[str, int] = {}

    def train(self, probe: Probe | None, probe_samples: int) -> list[dict[str, float]]:
        """All steps; returns the rows of the history."""
        rows, config = [], self.config
        steps = range(1, config.steps + 1)
        for step, (index, noise, weight) in zip(steps, self._iterations(), strict=False):
            for turn in range(config.critic_steps):
                self._critic_step(index[turn], noise[turn], weight[turn])
            self._generator_step(index[-1], noise[-1])
            if step % config.log_every == 0 or step == config.steps:
                new = self._rows(step)
                if probe is not None:
                    for row, found in zip(new, self._probe(probe, probe_samples), strict=True):
                        row.update(found)
                rows += new
        return rows

    def final_players(self) -> list[tuple[nn.Module, nn.Module]]:
        """(generator, critic) of each seed, in evaluation mode, without gradients."""
        frozen = [
            [network.eval().requires_grad_(False) for network in player.networks()]
            for player in (self.sampler, self.critic)
        ]
        return list(zip(*frozen, strict=True))

    # ---- one step

    def _critic_step(self, index: Tensor, noise: Tensor, weight: Tensor) -> None:
        real, condition = self.table.rows(index)
        with torch.no_grad():
            fake = self.generator(noise, *condition)
        seen = () if self.config.auxiliary else condition
        real_out, fake_out = self.critic(real, *seen), self.critic(fake, *seen)
        real_score, fake_score = _score(real_out), _score(fake_out)
        loss = self.each(self.pair.critic)(real_score, fake_score)
        total = loss + self._penalty(real, fake, weight, seen)
        self.critic.learn(total + self._auxiliary("critic", condition, real_out, fake_out))
        if self.config.clip is not None:
            losses.clip_weights(self.critic.parameters, self.config.clip)
        self._record(
            critic_loss=loss,
            real_score=real_score.flatten(self.batch_dims - 1).mean(-1),
            fake_score=fake_score.flatten(self.batch_dims - 1).mean(-1),
        )

    def _generator_step(self, index: Tensor, noise: Tensor) -> None:
        real, condition = self.table.rows(index)
        seen = () if self.config.auxiliary else condition
        fake_out = self.critic(self.generator(noise, *condition), *seen)
        fake_score = _score(fake_out)
        real_score = fake_score  # most losses need none
        if self.config.loss == "relativistic":
            with torch.no_grad():
                real_score = _score(self.critic(real, *seen))
        loss = self.each(self.pair.generator)(real_score, fake_score)
        self.generator.learn(loss + self._auxiliary("generator", condition, fake_out))
        if self.config.ema:
            self.sampler.follow(self.generator, self.config.ema)
        self._record(generator_loss=loss)

    def _penalty(
        self, real: Tensor, fake: Tensor, weight: Tensor, seen: tuple[Tensor, ...]
    ) -> Tensor | float:
        """The critic's penalty times its weight; 0 without one."""
        kind, dims = self.config.penalty, self.batch_dims
        if kind is None:
            return 0.0

        def slope(points: Tensor) -> Tensor:
            def score(x: Tensor) -> Tensor:
                return _score(self.critic(x, *seen))

            return losses.slope(score, points, outputs=self.config.outputs, batch_dims=dims)

        if kind == "gradient":
            penalty = self.each(losses.one_centred)(slope(losses.between(real, fake, weight)))
        else:
            places = [x for x, name in ((real, "r1"), (fake, "r2")) if name in kind]
            penalty = sum(self.each(losses.zero_centred)(slope(place)) for place in places)
        self._record(penalty=penalty)
        return self.config.penalty_weight * penalty

    def _auxiliary(
        self, player: str, condition: tuple[Tensor, ...], *outputs: tuple[Tensor, Tensor]
    ) -> Tensor | float:
        """What wrong predictions of the condition cost a player; 0 without that loss."""
        if self.config.auxiliary is None:
            return 0.0
        loss = self.each(losses.AUXILIARIES[self.config.auxiliary])
        cost = sum(loss(prediction, *condition) for _, prediction in outputs)
        self._record(**{f"{player}_auxiliary": cost})
        return self.config.auxiliary_weight * cost

    # ---- random numbers, records

    def _iterations(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, noise and mixing weights of one iteration after the other: (turns, [k,] batch…)."""
        draws = [_blocks(seed, self.table, self.config) for seed in self.seeds]
        for blocks in zip(*draws, strict=True):
            block = blocks[0]
            if self.stacked:
                block = [torch.stack(parts, dim=2) for parts in zip(*blocks, strict=True)]
            yield from zip(*block, strict=True)

    def _record(self, **values: Tensor) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
            self.times[name] = self.times.get(name, 0) + 1

    def _rows(self, step: int) -> list[dict[str, float]]:
        """One row of the history for each seed, and new sums."""
        values = {name: total / self.times[name] for name, total in self.sums.items()}
        values["critic_slope"] = self.critic.slope()
        values["generator_slope"] = self.generator.slope()
        self.sums, self.times = {}, {}
        columns = {name: np.atleast_1d(value.cpu().numpy()) for name, value in values.items()}
        return [
            {"seed": seed, "step": step, **{name: float(c[i]) for name, c in columns.items()}}
            for i, seed in enumerate(self.seeds)
        ]

    @torch.no_grad()
    def _probe(self, probe: Probe, n: int) -> list[Mapping[str, float]]:
        inputs = [self.table.inputs(n, self.config.latent, s + 1_000_003) for s in self.seeds]
        self.sampler.base.train(False)
        if self.stacked:
            samples = self.sampler(*(torch.stack(parts) for parts in zip(*inputs, strict=True)))
        else:
            samples = self.sampler(*inputs[0])[None]
        self.sampler.base.train(True)
        return [probe(mine, *given[1:]) for mine, given in zip(samples, inputs, strict=True)]


# ---- parts


def _make(
    seed: int, make_generator: Maker, make_critic: Maker, like: Tensor
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


def _score(out: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The score, of a critic that may return a prediction beside it."""
    return out[0] if isinstance(out, tuple) else out
