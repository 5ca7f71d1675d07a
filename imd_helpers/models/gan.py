"""The skeleton of every reviewed GAN: recipes, training, sampling, and files, once.

A model's file adds what is its own: configuration and variants, networks, the loss where it is not
the usual one, what it is asked for, and how it reads its data and decodes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals.samples import Samples, room_for
from ..networks import History, TrainConfig, checkpoint, fit, losses
from ..networks.fit import Game
from ..networks.team import Team
from ..runtime import InputError, device, lookup, not_negative, number, settle, whole
from ..work import locked

Condition = Mapping[str, Any]


@dataclass(frozen=True)
class GanConfig:
    """Size and training of a model; each model adds its own switches."""

    fewest_channels: ClassVar[int] = 4
    CHOICES: ClassVar[Mapping[str, Iterable[str]]] = {}  # what a switch can be
    width: float = 1.0  # factor on the number of channels; 1.0 is the published size
    latent: int = 128  # length of the noise vector
    batch: int = 64
    penalty: float = 10.0  # factor of the gradient penalty
    mixing: str = "uniform"  # points of the gradient penalty, see `losses.mix`
    data: str = ""  # name of the training set
    train: TrainConfig = TrainConfig(steps=1_000)

    def __post_init__(self) -> None:
        for switch, known in {"mixing": losses.MIXINGS, **self.CHOICES}.items():
            lookup(switch, getattr(self, switch), known)
        settle(self, whole, "batch", least=2)
        settle(self, whole, "latent")
        settle(self, number, "width", least=1e-6)
        settle(self, number, *(k for k in vars(self) if "dropout" in k), least=0, below=1)
        settle(self, number, "penalty", least=0)
        not_negative(self)

    def channels(self, published: int) -> int:
        """A published number of channels times the width."""
        return max(self.fewest_channels, math.ceil(published * self.width))

    def but(self, **changes: Any) -> Self:
        """A copy with other values; keys of ``train`` may be given directly."""
        inner = {f.name for f in dataclasses.fields(TrainConfig)}
        train = dataclasses.replace(self.train, **{k: v for k, v in changes.items() if k in inner})
        outer = {k: v for k, v in changes.items() if k not in inner}
        return dataclasses.replace(self, train=train, **outer)


class Gan(Game):
    """Networks that make samples, with what they learnt of their data.

    A model defines the class attributes and at least `build`, `read`, `prepare` and `decode`. Load
    a trained one with ``imd.models.load(name)``.

    Args:
        config: sizes and switches.
        learnt: numbers and tensors that the model takes from its data, see `learn`.
        seed: of the weights.
    """

    name: ClassVar[str]
    format: ClassVar[str]  # of its files
    holds: ClassVar[str] = "crystals"  # what its samples are: crystals or compositions
    Config: ClassVar[type[GanConfig]]
    VARIANTS: ClassVar[Mapping[str, Any]]  # configurations by name
    PROFILES: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]]  # see `recipe`
    LEARNT: ClassVar[tuple[str, ...]] = ()  # names of what `learn` gives
    ONLY_IF: ClassVar[Mapping[str, str]] = {}  # of these, name: the switch that must be on for it
    KEPT_BY: ClassVar[Mapping[str, str]] = {}  # variant: rule of `imd.judge` that picks its data
    DROPPED: ClassVar[Mapping[str, Any]] = {}  # switches of older files that have but one value now
    PIECE: ClassVar[int] = 8_192  # samples made at once
    HALF: ClassVar[bool] = False  # 16-bit floats on disk
    conditions: tuple[str, ...] = ()  # what it can be asked for

    def __init__(
        self, config: Any, learnt: Mapping[str, Any] | None = None, *, seed: int = 0
    ) -> None:
        self.config, self.learnt = config, dict(learnt or {})
        self.penalty, self.mixing = config.penalty, config.mixing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = self.build()
        self._names = tuple(networks)
        vars(self).update(networks)

    # ---- what a model says of itself

    def build(self) -> dict[str, nn.Module]:
        """Networks by name, with their initial weights; ``generator`` and ``critic`` as a rule."""
        raise NotImplementedError

    @classmethod
    def read(cls, config: Any, split: str | None = "train") -> Any:
        """Data of one split, or of all: has a length, and takes a mask as index."""
        raise NotImplementedError

    @classmethod
    def learn(cls, data: Any, config: Any) -> dict[str, Any]:
        """What the model takes from its data beside the weights, to be kept in its file."""
        return {}

    def prepare(self, data: Any, *, seed: int = 0) -> None:
        """Put training data on the device, as ``self.data``, or in the form that `real` takes."""
        raise NotImplementedError

    def real(self) -> tuple[Tensor, Any]:
        """A batch of training data, and the condition that goes with it."""
        return self.data[self.some(len(self.data))], None

    def draw(self, n: int, condition: Condition) -> Any:
        """What the networks make of torch's global random numbers, n times, to be decoded."""
        return self.generator(self.noise(n))

    def decode(self, raw: Any) -> Samples:
        """What `draw` gave as samples."""
        raise NotImplementedError

    # ---- building

    @classmethod
    def recipe(cls, variant: str | None = None, *, profile: str) -> Any:
        """Configuration of a variant for a profile: ``PROFILES[variant or ""][profile]``.

        Raises:
            UnknownNameError: no such variant or profile.
        """
        variant = cls.variant(variant)
        sizes = cls.PROFILES.get(variant, cls.PROFILES[""])
        return cls.VARIANTS[variant].but(**sizes[lookup("profile", profile, sizes)])

    @classmethod
    def variant(cls, name: str | None = None) -> str:
        """A variant's name if there is one; without a name ``fixed``, or else the first.

        Raises:
            UnknownNameError: no such variant.
        """
        first = "fixed" if "fixed" in cls.VARIANTS else next(iter(cls.VARIANTS))
        return lookup("variant", first if name is None else name, cls.VARIANTS)

    @classmethod
    def from_data(
        cls, data: Any, config: Any, *, seed: int = 0, where: torch.device | str = "cpu"
    ) -> Self:
        """A model with random weights and its training data, ready for `fit`."""
        model = cls(config, cls.learn(data, config), seed=seed).to(where)
        model.prepare(data, seed=seed)
        return model

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks by name."""
        return {name: getattr(self, name) for name in self._names}

    def to(self, where: torch.device | str) -> Self:
        """Move networks and tensors, also what was learnt, and return self."""
        for network in self.networks.values():
            network.to(where)
        for held in (self.learnt, vars(self)):
            held.update({k: v.to(where) for k, v in held.items() if isinstance(v, Tensor)})
        return self

    # ---- training

    def some(self, known: int) -> Tensor:
        """(batch,) places among what is known, drawn with repetition."""
        return torch.randint(known, (self.config.batch,), device=self.device)

    def noise(self, n: int) -> Tensor:
        """(n, latent) of N(0, 1)."""
        return torch.randn(n, self.config.latent, device=self.device)

    @classmethod
    def train(
        cls,
        variant: str | None = None,
        *,
        profile: str = "smoke",
        folder: Path | str | None = None,
        resume: bool = False,
        seed: int = 0,
        changes: Mapping[str, Any] | None = None,
        keep: Callable[[Any], np.ndarray] | None = None,
        progress: bool = True,
    ) -> tuple[Self, History]:
        """Train one variant on the training split and, with ``folder``, keep weights and run.json.

        Args:
            variant: one of ``VARIANTS``; see `variant`.
            profile: ``smoke``, ``colab`` or ``full``, see `recipe`.
            folder: where ``training.safetensors``, ``model.safetensors`` and ``run.json`` go.
            resume: go on from the folder's ``training.safetensors``.
            seed: of the weights and the training.
            changes: other values for the configuration, see `GanConfig.but`.
            keep: rule that says which training samples are used, (n,) bool, e.g.
                ``imd.judge.charge_neutral`` for compositions.
            progress: show a progress bar.

        Returns:
            The model, with the averaged network where the configuration keeps one, and the history.
        """
        variant = cls.variant(variant)
        rule = getattr(keep, "__name__", repr(keep)) if keep else ""
        if cls.KEPT_BY.get(variant, rule) != rule:
            raise InputError(
                f"the variant {variant!r} learns from what {cls.KEPT_BY[variant]} keeps: give "
                f"keep=imd.judge.{cls.KEPT_BY[variant]}"
            )
        config = cls.recipe(variant, profile=profile).but(**dict(changes or {}), seed=seed)
        data = cls.read(config)
        if keep is not None:
            data = data[keep(data.counts if isinstance(data, Samples) else data)]
        model = cls.from_data(data, config, seed=seed, where=device())
        recipe = dataclasses.asdict(config)
        about = {"model": cls.name, "variant": variant, "config": recipe, "kept_by": rule}
        about[f"training_{cls.holds}"] = len(data)
        held = {name: each for name, each in vars(model).items() if isinstance(each, Tensor)}
        same = {**about, "config": {**recipe, "train": None}, "data": checkpoint.digest(held)}
        first = folder is not None and Team.join().rank == 0  # of the processes of torchrun
        with locked(Path(folder)) if first else nullcontext():
            how = {"folder": folder, "resume": resume, "identity": same, "progress": progress}
            history = fit(model, config.train, **how)
            if history.ema is not None:
                model.networks[model.averaged].load_state_dict(history.ema.state_dict())
            if first:
                weights = model.save(Path(folder) / "model.safetensors")
                about["profile"] = profile
                checkpoint.write_run(weights, about, history.seconds, history.rows)
        return model, history

    # ---- sampling

    def sample(self, n: int, *, condition: Condition | None = None, seed: int = 0) -> Samples:
        """Make n samples, with a reason for each that could not be decoded.

        Args:
            n: how many.
            condition: what they should be, e.g. ``{"space_group": 225}``, see `conditions`.
            seed: the same seed gives the same samples on the same device.

        Raises:
            InputError: n below 1, or a condition that the model does not have, or lacks.
        """
        parts = []
        for index, size in self.pieces(n):
            parts.append(self.piece(index, size, condition=condition, seed=whole("seed", seed)))
            if index == 0:
                room_for(parts[0], n)
        return Samples.cat(parts)

    def piece(
        self, index: int, n: int, *, condition: Condition | None = None, seed: int = 0
    ) -> Samples:
        """Piece ``index`` of `sample`: n of them, at most ``PIECE``.

        Each piece has random numbers of its own, from the seed and its place: pieces can be made
        in any order, or by different processes.
        """
        started = time.perf_counter()
        made = self.decode(self.raw(index, n, condition=condition, seed=seed))
        return dataclasses.replace(made, seconds=time.perf_counter() - started)

    @torch.no_grad()
    def raw(self, index: int, n: int, *, condition: Condition | None = None, seed: int = 0) -> Any:
        """What `piece` decodes."""
        condition = dict(condition or {})
        if condition and not self.conditions:
            raise InputError(f"condition={condition}: this model was trained without a condition")
        for name in condition:
            lookup("condition", name, self.conditions)
        for network in self.networks.values():
            network.eval()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.piece_seed(seed, index))
            return self.draw(n, condition)

    def pieces(self, n: int) -> Iterator[tuple[int, int]]:
        """Index and size of each piece of n samples, so that only one is in memory at once."""
        whole("n", n, least=1)
        for index, start in enumerate(range(0, n, self.PIECE)):
            yield index, min(self.PIECE, n - start)

    def piece_seed(self, seed: int, index: int) -> int:
        """Seed of a piece's random numbers."""
        return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])

    # ---- on disk

    def save(self, path: Path | str) -> Path:
        """Write networks and what was learnt to one safetensors file."""
        tensors = {k: v for k, v in self.learnt.items() if isinstance(v, Tensor)}
        values = {k: v for k, v in self.learnt.items() if k not in tensors}
        for name, network in self.networks.items():
            tensors |= checkpoint.prefixed(name, network.state_dict())
        if self.HALF:
            tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
        header = {"format": self.format, "config": dataclasses.asdict(self.config), **values}
        return checkpoint.write(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: missing, truncated or foreign.
        """
        tensors, header = checkpoint.read(path, expect=cls.format)
        try:
            config = cls._config_of(dict(header["config"]))
            names = [k for k in cls.LEARNT if getattr(config, cls.ONLY_IF.get(k, ""), True)]
            learnt = {name: (header | tensors)[name] for name in names}
            model = cls(config, learnt)
        except Exception as error:  # whatever a header from elsewhere may hold
            raise checkpoint.CheckpointError(
                f"{path}: its header is none that {cls.name} writes ({type(error).__name__}: "
                f"{error}): get a fresh copy, or train it again"
            ) from error
        for name, network in model.networks.items():
            checkpoint.load_into(network, checkpoint.section(name, tensors), source=str(path))
        return model

    @classmethod
    def _config_of(cls, values: dict[str, Any]) -> Any:
        """The configuration in a file, in which older files may have keys that are gone."""
        train = {k: v for k, v in values["train"].items() if k != "capture"}  # how, not what
        known = {f.name for f in dataclasses.fields(cls.Config)}
        for name in values.keys() - known:
            if values[name] != cls.DROPPED.get(name, values):  # no value equals them all
                raise InputError(f"{name}={values[name]!r} is of another version")
            del values[name]
        return cls.Config(**{**values, "train": TrainConfig(**train)})
