"""Synthesizability by positive-unlabelled learning: bags of crystal graph networks (CLscore).

A material that was made is a positive. One that was not made may be impossible, or nobody tried: it
is unlabelled, never a negative. Each of many networks takes another random part of the unlabelled
for negatives; a material's score is the mean over the networks that did not see it.

Source: Jang et al., Structure-based synthesizability prediction of crystals using partially
supervised learning, J. Am. Chem. Soc. 142 (2020) 18836, and the settings inside its published
checkpoints; bagging after Mordelet & Vert, Pattern Recognit. Lett. 37 (2014) 201; the mean teacher
after Tarvainen & Valpola, NeurIPS 2017.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from ..descriptors.crystal_graph import CrystalGraph
from ..networks import checkpoint
from ..networks.epochs import fit_epochs, seeded
from ..networks.fit import average
from ..runtime import InputError, device, number, progress_bar, settle, whole
from .base import UNFITTED
from .graphs import GraphReader, joined

FORMAT = "imd-pu-cgcnn-2"
NOISE = 0.05  # standard deviation, on site features that teacher and student see


@dataclass(frozen=True)
class PuConfig:
    """The published settings by default."""

    bags: int = 100  # networks
    epochs: int = 50  # passes of each network over its positives and negatives
    batch: int = 64  # graphs in a step, at least 2
    lr: float = 1e-3  # Adam's learning rate
    width: int = 90  # features of a site; the hidden layer behind the network has twice as many
    convolutions: int = 3
    stop: float = 8.0  # largest value that the Gaussians of an edge reach, Å; 1 for shares
    step: float = 0.2  # between the Gaussians
    dropout: float = 0.5  # before the last layer
    consistency: float = 0.0  # weight of the mean teacher's part of the loss; 0: plain bagging
    teacher_decay: float = 0.99  # of the teacher's running mean of the student's weights
    seed: int = 0  # of weights, bags and order

    def __post_init__(self) -> None:
        settle(self, whole, "bags", "epochs", "width", "convolutions", least=1)
        settle(self, whole, "batch", least=2)
        settle(self, number, "lr", "stop", "step", above=0)
        settle(self, number, "dropout", "teacher_decay", least=0, below=1)
        settle(self, number, "consistency", least=0)
        settle(self, whole, "seed")


@dataclass(eq=False)
class PuEnsemble:
    """Networks trained on bags, and which unlabelled materials each of them saw."""

    config: PuConfig = field(default_factory=PuConfig)  # settings
    networks: list[GraphReader] = field(default_factory=list)  # one a bag, in evaluation mode
    # (bags, n_unlabelled) bool, True where the bag used a material as negative
    drawn: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=bool))

    def fit(
        self,
        positive: CrystalGraph,
        unlabelled: CrystalGraph,
        *,
        keep: Path | str | None = None,
        progress: bool = False,
    ) -> PuEnsemble:
        """Train every bag, and return self. Hold positives for testing back before.

        Args:
            positive: graphs of what was made.
            unlabelled: the others.
            keep: file that is written after each bag. Where it exists already, its bags are kept,
                and only the missing ones are trained.
            progress: show a bar.

        Raises:
            InputError: graphs that failed, fewer unlabelled than a bag needs, or a file of other
                settings.
        """
        positive, unlabelled = positive.checked(), unlabelled.checked()
        n = min(len(positive), len(unlabelled) // 2)
        if n < self.config.batch:
            raise InputError(
                f"{len(positive)} positives and {len(unlabelled)} unlabelled: a bag takes at most "
                f"half of the unlabelled as negatives, and needs {self.config.batch} of them"
            )
        self.networks, self.drawn = [], np.zeros((0, len(unlabelled)), dtype=bool)
        if keep is not None and Path(keep).exists():
            found = type(self).load(keep)
            if found.config != self.config or found.drawn.shape[1] != len(unlabelled):
                raise InputError(
                    f"{keep} holds bags of other settings ({found.config}) or of "
                    f"{found.drawn.shape[1]} unlabelled instead of {len(unlabelled)}: move it "
                    "away, or give another file"
                )
            self.networks, self.drawn = found.networks, found.drawn
        graph, missing = joined(positive, unlabelled), range(len(self.networks), self.config.bags)
        for bag in progress_bar(missing, "training", progress, unit="bag"):
            rng = np.random.default_rng((self.config.seed, bag))
            chosen = np.zeros(len(unlabelled), dtype=bool)
            chosen[rng.choice(len(unlabelled), size=n, replace=False)] = True
            self.networks.append(self._one(graph, chosen, rng))
            self.drawn = np.concatenate([self.drawn, chosen[None]])
            if keep is not None:
                self.save(keep)
        return self

    def score(self, graph: CrystalGraph) -> np.ndarray:
        """(n,) mean probability to be a positive, over all bags; NaN for a graph that failed.

        For materials that were not unlabelled in training; for those see `out_of_bag`.
        """
        return self.by_bag(graph).mean(0)

    def out_of_bag(self, unlabelled: CrystalGraph) -> np.ndarray:
        """(n,) the same for the unlabelled of the training, over the bags that did not see them.

        NaN where every bag saw a material.

        Raises:
            InputError: another number of materials than in training.
        """
        if len(unlabelled) != self.drawn.shape[1]:
            raise InputError(
                f"{len(unlabelled)} materials: the bags were drawn from {self.drawn.shape[1]}; "
                "give the unlabelled of the training in the same order, or use score"
            )
        each = np.where(self.drawn, 0.0, self.by_bag(unlabelled))
        votes = (~self.drawn).sum(0)
        return np.where(votes > 0, each.sum(0) / np.maximum(votes, 1), np.nan)

    @torch.no_grad()
    def by_bag(self, graph: CrystalGraph) -> np.ndarray:
        """(bags, n) probability to be a positive, by each network; NaN for a graph that failed.

        Raises:
            InputError: not fitted.
        """
        if not self.networks:
            raise InputError(UNFITTED)
        out = np.full((len(self.networks), len(graph)), np.nan)
        for rows in np.split(np.flatnonzero(graph.ok), range(4096, len(graph), 4096)):
            if len(rows):
                part = graph[rows]
                each = [torch.sigmoid(network.read(part)) for network in self.networks]
                out[:, rows] = torch.stack(each).numpy()
        return out

    # ---- one bag

    def _one(
        self, graph: CrystalGraph, chosen: np.ndarray, rng: np.random.Generator
    ) -> GraphReader:
        """A network that tells the positives from the chosen ones of the unlabelled behind them."""
        config, half = self.config, self.config.batch // 2
        n_positive = len(graph) - len(chosen)
        others = n_positive + np.flatnonzero(~chosen)

        def batches() -> Iterator[tuple[tuple[CrystalGraph, CrystalGraph | None], int]]:
            sides = [np.arange(n_positive), n_positive + np.flatnonzero(chosen)]
            sides = [rng.permutation(rows) for rows in sides]
            whole = min(map(len, sides)) // half * half
            # both sides in one batch, or batch norm would centre each on itself
            for rows in np.hstack([side[:whole].reshape(-1, half) for side in sides]):
                free = graph[rng.choice(others, size=config.batch)] if config.consistency else None
                yield (graph[rows], free), config.batch

        with seeded(int(rng.integers(2**31))):
            student = self._network().to(device())
            teacher = copy.deepcopy(student).requires_grad_(False)
            fit_epochs(
                student,
                batches,
                lambda each: {"loss": bag_loss(student, teacher, *each, config.consistency)},
                epochs=config.epochs,
                lr=config.lr,
                after_step=lambda: average(teacher, student, config.teacher_decay),
            )
        return (teacher if config.consistency else student).cpu().eval()

    def _network(self) -> GraphReader:
        names = ("width", "convolutions", "stop", "step", "dropout")
        return GraphReader(**{name: getattr(self.config, name) for name in names})

    # ---- on disk

    def save(self, path: Path | str) -> Path:
        """Write all networks, as 16-bit floats, and what each bag drew."""
        tensors: dict[str, Tensor] = {"drawn": torch.as_tensor(np.packbits(self.drawn, axis=1))}
        for k, network in enumerate(self.networks):
            for name, value in network.state_dict().items():
                tensors[f"{k}.{name}"] = value.half() if value.is_floating_point() else value
        config, n = dataclasses.asdict(self.config), self.drawn.shape[1]
        return checkpoint.write(
            path, tensors, {"format": FORMAT, "config": config, "unlabelled": n}
        )

    @classmethod
    def load(cls, path: Path | str) -> PuEnsemble:
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: missing, truncated or foreign.
        """
        tensors, header = checkpoint.read(path, expect=FORMAT)
        ensemble = cls(PuConfig(**header["config"]))
        bits = np.unpackbits(tensors["drawn"].numpy(), axis=1, count=header["unlabelled"])
        ensemble.drawn = bits.astype(bool)
        for k in range(len(bits)):
            network = ensemble._network()
            checkpoint.load_into(network, checkpoint.section(str(k), tensors), source=str(path))
            ensemble.networks.append(network.eval())
        return ensemble


def bag_loss(
    student: GraphReader,
    teacher: GraphReader,
    labelled: CrystalGraph,
    free: CrystalGraph | None,
    consistency: float,
) -> Tensor:
    """Cross-entropy of graphs of which the first half are positives, and the mean teacher's part.

    That is ``consistency`` times the mean square by which student and teacher differ on ``free``,
    graphs that the bag gives no labels; with it, sites are read under noise.
    """
    noise = 0.0 if free is None else NOISE
    logits = student.read(labelled, noise=noise)
    wanted = (torch.arange(len(logits), device=logits.device) < len(logits) // 2).float()
    loss = functional.binary_cross_entropy_with_logits(logits, wanted)
    if free is None:
        return loss
    with torch.no_grad():
        aim = torch.sigmoid(teacher.read(free, noise=noise))
    apart = torch.sigmoid(student.read(free, noise=noise)) - aim
    return loss + consistency * apart.square().mean()


# ---- what a score means


def posterior(score: ArrayLike, prior: float) -> np.ndarray:
    """Probability that an unlabelled material is a positive, from its score.

    A bag holds as many positives as negatives, so its best score is ``p1 / (p1 + p)``, with the
    densities of positives and of unlabelled. Then ``prior * p1 / p = prior * score / (1 - score)``,
    and at most 1, where noise would lead beyond it.

    Args:
        score: in [0, 1], any shape.
        prior: share of positives among the unlabelled.

    Raises:
        InputError: a prior outside [0, 1].

    Source:
        Elkan & Noto, KDD 2008, eq. 1 to 3, for a bag of two equal halves.
    """
    number("prior", prior, least=0, most=1)
    score = np.asarray(score, dtype=float)
    return np.minimum(prior * score / np.maximum(1 - score, 1e-300), 1.0)


def largest_prior(spies: ArrayLike, unlabelled: ArrayLike) -> float:
    """Upper bound of the share of positives among the unlabelled, from spies hidden among them.

    Spies are positives that were hidden among the unlabelled in training. At every threshold the
    positives among the true unlabelled reach beyond it as often as the spies do: the share can be
    no larger than the quotient of the two tails of scores. The smallest quotient counts, over
    thresholds that leave 5 % to 95 % of the spies above.

    Raises:
        InputError: fewer than 20 scores on a side, or scores that are not finite.

    Source:
        the spies of Liu et al., ICML 2002; the bound as in Blanchard et al., JMLR 11 (2010) 2973.
    """
    spies, unlabelled = np.asarray(spies, dtype=float), np.asarray(unlabelled, dtype=float)
    few = min(np.isfinite(spies).sum(), np.isfinite(unlabelled).sum()) < 20
    if few or not np.isfinite(np.concatenate([spies, unlabelled])).all():
        raise InputError(
            f"{len(spies)} spies, {len(unlabelled)} unlabelled: at least 20 finite scores of each; "
            "leave out what every bag saw"
        )
    above = np.arange(0.05, 0.951, 0.05)
    threshold = np.quantile(spies, 1 - above)
    tails = [np.mean(unlabelled >= t) / np.mean(spies >= t) for t in threshold]
    return float(min(1.0, *tails))
