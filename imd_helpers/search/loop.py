"""Rounds of propose, rank, ask and learn; and a policy that the oracle itself pays.

A surrogate is asked about many candidates and the oracle about the few that promise most, so that
the errors of the surrogate are not drawn at random: `winners_optimism` says how far they are not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..networks import losses
from ..networks.epochs import seeded
from ..predictors.boosted import BoostedEnsemble, Prediction
from ..runtime import InputError, number, whole
from .oracle import BudgetError, Oracle

Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]


def expected_gain(
    said: Prediction, best: float, worth: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(n,) mean of ``max(best - v, 0)``: equation (eq-loop-gain) of the chapter on closed loops.

    The errors are those of the calibration, of any shape, and so is what a number is worth.

    Args:
        said: about n candidates.
        best: the lowest value so far.
        worth: (n, m) numbers to (n, m) values, of which low ones are wanted.
    """
    numbers = said.mean[:, None] + said.scale[:, None] * said.residuals  # (n, calibration)
    return np.maximum(best - worth(numbers), 0.0).mean(1)


def winners_optimism(n: int, error: float, spread: float) -> float:
    """How much the best-looking of n candidates disappoints on average.

    ``s^2 / sqrt(s^2 + t^2) * E[max of n standard normals]``, equation (eq-loop-optimism) of the
    chapter on closed loops, for true values of deviation t and independent errors of deviation s.

    Args:
        n: candidates.
        error: standard deviation s of the surrogate's errors.
        spread: standard deviation t of the true values.
    """
    from scipy.integrate import quad
    from scipy.stats import norm

    whole("n", n, least=1)
    number("error", error, least=0)
    number("spread", spread, least=0)
    if error == 0 or n == 1:
        return 0.0

    def density(z: float) -> float:
        return float(z * n * np.exp(norm.logpdf(z) + (n - 1) * norm.logcdf(z)))

    return error**2 / float(np.hypot(error, spread)) * quad(density, -10, 10, points=[0, 3, 5])[0]


def closed_loop(
    oracle: Oracle,
    candidates: Any,
    surrogate: BoostedEnsemble,
    known: tuple[Any, np.ndarray],
    worth: Worth,
    *,
    batch: int = 8,
    least: float = 0.0,
) -> list[dict[str, Any]]:
    """Ask about the candidates of largest expected gain, learn from the answers, and again.

    It ends where the budget is spent, no candidate is left, or none promises a gain of ``least``.
    The first number of an answer is its value, the second what the surrogate learns.

    Args:
        oracle: with a budget.
        candidates: questions that can be indexed by an array, and have a ``cat``.
        surrogate: is fitted again in each round.
        known: questions and the (k,) numbers that it learns from before the first answer.
        worth: values of (n, m) numbers of some rows of the candidates: ``worth(rows, numbers)``.
        batch: questions of a round.
        least: gain for which a question is worth asking.

    Returns:
        A row for each question: its ``round`` and ``row``, the ``promise`` of the surrogate, the
        ends ``low`` and ``high`` of its 90 % interval, its ``gain``, and the ``answer``.
    """
    questions, numbers = known
    left, told, best = np.arange(len(candidates)), [], np.inf
    with suppress(BudgetError):
        for turn in itertools.count():
            if not len(left):
                break
            said = surrogate.fit(questions, numbers).predict(candidates[left])
            mean = worth(left, said.mean[:, None])[:, 0]
            if np.isinf(best):  # nothing to gain over: the best that is promised
                best = mean.max()
            gain = expected_gain(said, best, lambda e, rows=left: worth(rows, e))
            chosen = np.lexsort((mean, -gain))[:batch]
            if gain[chosen[0]] < least:
                break
            rows, ends = left[chosen], np.stack(said.interval(0.9))[:, chosen]
            answers = oracle(candidates[rows])
            columns = said.mean[chosen], *ends, gain[chosen], answers[:, 1]
            told += [
                dict(zip(("row", "promise", "low", "high", "gain", "answer"), each, strict=True))
                | {"round": turn}
                for each in zip(rows.tolist(), *columns, strict=True)
            ]
            good = np.isfinite(answers[:, 1])
            questions = type(candidates).cat([questions, candidates[rows[good]]])
            numbers = np.concatenate([numbers, answers[good, 1]])
            best = min(np.nanmin(answers[:, 0], initial=np.inf), best)
            left = np.setdiff1d(left, rows)
    return told


# ---- reinforcement


class GenePolicy(nn.Module):
    """Chooses a prototype, then an element for each site that no earlier site holds.

    Genes are (n, 1 + sites) whole numbers, of a prototype and of elements.

    Args:
        start: (prototypes, sites, elements) how often each element stands there; one is added.
    """

    def __init__(self, start: np.ndarray) -> None:
        super().__init__()
        counts = torch.as_tensor(start, dtype=torch.float32)
        self.kind = nn.Parameter((counts.sum((1, 2)) + 1).log())  # (prototypes,)
        self.element = nn.Parameter((counts + 1).log())  # (prototypes, sites, elements)

    def sample(self, n: int) -> Tensor:
        """(n, 1 + sites) genes."""
        kind = torch.distributions.Categorical(logits=self.kind).sample((n,))
        chosen = [kind]
        for k in range(self.element.shape[1]):
            logits = self._logits(torch.stack(chosen, 1), k)
            chosen.append(torch.distributions.Categorical(logits=logits).sample())
        return torch.stack(chosen, 1)

    def log_probability(self, genes: Tensor) -> Tensor:
        """(n,) in nats: equation (eq-loop-policy) of the chapter on closed loops."""
        out = self.kind.log_softmax(0)[genes[:, 0]]
        for k in range(self.element.shape[1]):
            chosen = self._logits(genes, k).log_softmax(1)
            out = out + chosen.gather(1, genes[:, [k + 1]])[:, 0]
        return out

    def _logits(self, genes: Tensor, k: int) -> Tensor:
        logits = self.element[genes[:, 0], k]  # (n, elements)
        return logits.scatter(1, genes[:, 1 : k + 1], -torch.inf)


def reinforce(
    policy: GenePolicy,
    reward: Callable[[np.ndarray], np.ndarray],
    *,
    steps: int,
    batch: int = 16,
    lr: float = 0.1,
    seed: int = 0,
) -> list[float]:
    """Train a policy, in place, to choose genes of high reward; mean reward of each step.

    Args:
        policy: what is trained.
        reward: (n,) finite rewards of (n, 1 + sites) genes; may raise `BudgetError`, which ends it.
        steps: at most.
        batch: genes of a step.
        lr: of Adam.
        seed: of what is drawn.

    Raises:
        InputError: a reward that is not finite.
    """
    adam, means = torch.optim.Adam(policy.parameters(), lr=lr), []
    with seeded(whole("seed", seed)), suppress(BudgetError):
        for _ in range(whole("steps", steps, least=1)):
            genes = policy.sample(whole("batch", batch, least=2))
            earned = np.asarray(reward(genes.numpy()), dtype=np.float32)
            if not np.isfinite(earned).all():
                raise InputError("a reward is not finite: give failures a low finite one")
            adam.zero_grad()
            losses.reinforce_loss(policy.log_probability(genes), torch.as_tensor(earned)).backward()
            adam.step()
            means.append(float(earned.mean()))
    return means
