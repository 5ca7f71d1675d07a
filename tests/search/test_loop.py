"""Closed loops and policies over genes: equations, what is asked, and when they end."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from imd_helpers.descriptors.symmetry_sites import Sites
from imd_helpers.models.cubic_sites import training_sites
from imd_helpers.predictors import SitesEnsemble
from imd_helpers.predictors.boosted import BoostedEnsemble, Prediction
from imd_helpers.runtime import InputError
from imd_helpers.search import Oracle, loop, optimisers
from imd_helpers.search.genes import GenePool, crystal_keys
from imd_helpers.search.oracle import BudgetError


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.search.loop.{function}")


# ---- equations


@verifies("eq-loop-gain", "expected_gain")
def test_the_gain_is_that_of_normal_errors_where_errors_are_normal(agrees):
    """The closed form for a normal distribution, with its quantiles as errors of calibration."""
    from scipy.stats import norm

    mean, scale = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 0.3])
    residuals = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    said = Prediction(mean, scale, scale, residuals)
    expected = optimisers.expected_improvement(mean, scale, -0.4)
    agrees(loop.expected_gain(said, -0.4, lambda e: e), expected, within=1e-4)


@verifies("eq-loop-optimism", "winners_optimism")
@pytest.mark.parametrize(("n", "error", "spread"), [(10, 0.2, 0.5), (1000, 0.3, 0.0)])
def test_the_winner_disappoints_as_in_a_simulation(agrees, n, error, spread):
    """20,000 lists of n candidates, the lowest prediction of each against its truth."""
    rng, gaps = np.random.default_rng(0), []
    for _ in range(40):
        truth = rng.normal(0, spread, (500, n))
        said = truth + rng.normal(0, error, truth.shape)
        best = said.argmin(1, keepdims=True)
        gaps.append(np.take_along_axis(truth - said, best, 1))
    agrees(loop.winners_optimism(n, error, spread), np.mean(gaps), within=5e-3)


@verifies("eq-loop-policy", "GenePolicy.log_probability")
def test_the_probabilities_of_all_genes_add_up_to_one(agrees):
    """All genes of a small space, listed; and frequencies among 200,000 samples."""
    torch.manual_seed(0)
    policy = loop.GenePolicy(np.random.default_rng(0).integers(0, 5, (2, 3, 4)))
    genes = torch.tensor([
        [k, *three] for k in range(2) for three in itertools.permutations(range(4), 3)
    ])  # fmt: skip
    chance = policy.log_probability(genes).exp().detach()
    drawn = policy.sample(200_000)
    share = (drawn[:, None] == genes).all(2).double().mean(0)
    agrees(chance.sum(), 1.0, within=1e-5)
    agrees(share, chance, within=5e-3)


# ---- the loop


@dataclass(frozen=True)
class Points:
    """Questions of one number each."""

    x: np.ndarray

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return Points(self.x[rows])

    @classmethod
    def cat(cls, parts):
        return cls(np.concatenate([each.x for each in parts]))


class OneNumber(BoostedEnsemble):
    """Trees on the number itself."""

    def features(self, counts):
        return counts.x[:, None]

    def sound(self, counts):
        return np.ones(len(counts), dtype=bool)


def valley(points):
    return np.stack([np.abs(points.x - 0.7), points.x**2], axis=1)


def worth(rows, numbers):
    return np.abs(np.sqrt(np.maximum(numbers, 0)) - 0.7)


def started(seed=0, n=400):
    rng = np.random.default_rng(seed)
    before = Points(rng.uniform(0, 0.4, 60))
    known = before, valley(before)[:, 1] + rng.normal(0, 0.01, 60)
    return Points(rng.random(n)), known


def oracle(budget, answer=valley):
    keys = lambda points: [np.float64(x).tobytes() for x in points.x]  # noqa: E731
    return Oracle(answer, keys=keys, budget=budget)


def small(seed=0):
    return OneNumber(members=2, trees=20, leaves=7, seed=seed)


def test_it_finds_what_its_first_data_do_not_hold():
    candidates, known = started()
    ask = oracle(48)
    told = loop.closed_loop(ask, candidates, small(), known, worth)
    assert ask.calls == len(told) == 48
    assert {row["round"] for row in told} == set(range(6))
    assert min(ask.history()[1][:, 0]) < 0.02
    asked = np.array([row["row"] for row in told])
    assert len(set(asked)) == 48
    assert np.allclose([row["answer"] for row in told], candidates.x[asked] ** 2)


def test_it_stops_where_no_candidate_is_worth_a_call():
    candidates, known = started()
    ask = oracle(400)
    told = loop.closed_loop(ask, candidates, small(), known, worth, least=0.005)
    assert 8 <= len(told) < 400
    first = [row["gain"] for row in told if row["round"] == 0]
    assert max(first) >= 0.005


def test_it_ends_with_its_list_and_outlives_questions_without_an_answer():
    candidates, known = started(n=20)

    def broken(points):
        rows = valley(points)
        rows[points.x > 0.5] = np.nan
        return rows

    ask = oracle(100, broken)
    told = loop.closed_loop(ask, candidates, small(), known, worth)
    assert len(told) == ask.calls == 20
    assert sum(np.isnan(row["answer"]) for row in told) == (candidates.x > 0.5).sum()


# ---- the policy


def test_reinforcement_learns_what_is_paid_and_a_rate_of_zero_learns_nothing():
    def pays(genes):
        return (genes[:, 1] == 3).astype(float)

    flat = np.zeros((2, 3, 6))
    learnt = loop.reinforce(loop.GenePolicy(flat), pays, steps=60, batch=32, seed=1)
    idle = loop.reinforce(loop.GenePolicy(flat), pays, steps=60, batch=32, lr=0.0, seed=1)
    assert np.mean(learnt[-10:]) > 0.9
    assert np.mean(idle[-10:]) < 0.3
    again = loop.reinforce(loop.GenePolicy(flat), pays, steps=60, batch=32, seed=1)
    assert again == learnt


def test_reinforcement_ends_with_the_budget_and_refuses_a_reward_that_is_none():
    def spent(genes):
        raise BudgetError("nothing is left")

    assert loop.reinforce(loop.GenePolicy(np.zeros((1, 3, 5))), spent, steps=3) == []
    with pytest.raises(InputError, match="give failures a low finite one"):
        loop.reinforce(
            loop.GenePolicy(np.zeros((1, 3, 5))), lambda g: np.full(len(g), np.nan), steps=3
        )


# ---- genes of crystals


def test_crystals_become_genes_and_points_and_come_back():
    sites = training_sites("train")
    pool = GenePool.from_sites(sites)
    keys = crystal_keys(sites)
    assert crystal_keys(pool.sites(pool.genes(sites))) == keys
    assert crystal_keys(pool.decode(pool.encode(sites))) == keys
    drawn = pool.decode(pool.random(500, np.random.default_rng(0)))
    assert (pool.genes(pool.decode(pool.encode(drawn))) == pool.genes(drawn)).all()


def test_a_crystal_of_another_space_has_no_genes():
    sites = training_sites("val")
    pool = GenePool.from_sites(sites)
    other = GenePool(pool.space_group[:1], pool.grid[:1], pool.elements[:20])
    genes, points = other.genes(sites), other.encode(sites)
    gone = (genes < 0).all(1)
    assert 0 < gone.sum() < len(sites) or gone.all()
    assert np.isnan(points[gone]).all()
    assert np.isfinite(points[~gone]).all()


def test_an_ensemble_reads_sites_in_any_way_they_are_written():
    sites = training_sites("train")
    turned = Sites(sites.space_group, sites.numbers[:, ::-1], sites.grid[:, ::-1], sites.length)
    model = SitesEnsemble(members=2, trees=10, leaves=7).fit(sites, sites.length)
    said = model.predict(sites)
    assert np.allclose(said.mean, model.predict(turned).mean)
    assert np.abs(said.mean - sites.length).mean() < 0.5 * sites.length.std()
