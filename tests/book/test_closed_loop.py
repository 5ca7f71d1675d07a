"""The loop and the policy of the chapter: equations, what is asked, and when they end."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from equations import page_functions

from imd_helpers.predictors.boosted import BoostedEnsemble, Prediction
from imd_helpers.search import Oracle, optimisers
from imd_helpers.search.oracle import BudgetError

PAGE = "5_judging/closed_loop"
LOOP = ("TARGET", "WINDOW", "distance", "expected_gain", "noted", "closed_loop")


def verifies(label, name):
    return pytest.mark.equation(label, function=f"{PAGE}.{name}")


@pytest.fixture(scope="module")
def page():
    return page_functions(PAGE, *LOOP, "winners_optimism", "Policy", "reinforce")


# ---- equations


@verifies("eq-loop-gain", "expected_gain")
def test_the_gain_is_that_of_normal_errors_where_errors_are_normal(agrees, page):
    """Closed form for a distance with two slopes, with a normal's quantiles as residuals."""
    from scipy.stats import norm

    mean, scale = np.array([-2.2, -2.0, -1.9]), np.array([0.05, 0.1, 0.03])
    residuals = norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    said = Prediction(mean, scale, scale, residuals)
    best, wanted, window = 3.0, page["TARGET"]["energy"], page["WINDOW"]["energy"]
    # a triangle over the target: an improvement from either end, less twice that from the middle
    ends = [optimisers.expected_improvement(mean, scale, wanted + k * window) for k in (-3, 0, 3)]
    triangle = (ends[0] - 2 * ends[1] + ends[2]) / window
    gap = np.full(3, page["TARGET"]["gap"])
    agrees(page["expected_gain"](said, best, gap), triangle, within=1e-4)


@verifies("eq-loop-optimism", "winners_optimism")
@pytest.mark.parametrize(("n", "error", "spread"), [(10, 0.2, 0.5), (1000, 0.3, 0.0)])
def test_the_winner_disappoints_as_in_a_simulation(agrees, page, n, error, spread):
    """20,000 lists of n candidates, the lowest prediction of each against its truth."""
    rng, gaps = np.random.default_rng(0), []
    for _ in range(40):
        truth = rng.normal(0, spread, (500, n))
        said = truth + rng.normal(0, error, truth.shape)
        best = said.argmin(1, keepdims=True)
        gaps.append(np.take_along_axis(truth - said, best, 1))
    agrees(page["winners_optimism"](n, error, spread), np.mean(gaps), within=5e-3)


@verifies("eq-loop-policy", "Policy")
def test_the_probabilities_of_all_genes_add_up_to_one(agrees, page):
    """All genes of a small space, listed; and frequencies among 200,000 samples."""
    torch.manual_seed(0)
    policy = page["Policy"](np.random.default_rng(0).integers(0, 5, (2, 3, 4)))
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
    """The distance to -2 eV/atom in windows of 0.05, and an energy of -2 at 0.7."""
    energy = points.x**2 - 2.49
    return np.stack([np.abs(energy + 2.0) / 0.05, energy], axis=1)


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


@pytest.fixture
def run(page):
    """The page's loop on points, whose gap is the wanted one."""

    def closed_loop(ask, candidates, known, **settings):
        page["Sites"] = Points
        gap = np.full(len(candidates), page["TARGET"]["gap"])
        return page["closed_loop"](ask, candidates, gap, small(), known, **settings)

    return closed_loop


def test_it_finds_what_its_first_data_do_not_hold(run):
    candidates, known = started()
    ask = oracle(48)
    told = run(ask, candidates, known, least=0.0)
    assert ask.calls == len(told) == 48
    assert {row["round"] for row in told} == set(range(6))
    assert min(ask.history()[1][:, 0]) < 0.6
    asked = np.array([row["row"] for row in told])
    assert len(set(asked)) == 48
    assert np.allclose([row["answer"] for row in told], candidates.x[asked] ** 2 - 2.49)


def test_it_stops_where_no_candidate_is_worth_a_call(run):
    candidates, known = started()
    ask = oracle(400)
    told = run(ask, candidates, known, least=0.1)
    assert 8 <= len(told) < 400
    first = [row["gain"] for row in told if row["round"] == 0]
    assert max(first) >= 0.1


def test_it_ends_with_its_list_and_outlives_questions_without_an_answer(run):
    candidates, known = started(n=20)

    def broken(points):
        rows = valley(points)
        rows[points.x > 0.5] = np.nan
        return rows

    ask = oracle(100, broken)
    told = run(ask, candidates, known, least=0.0)
    assert len(told) == ask.calls == 20
    assert sum(np.isnan(row["answer"]) for row in told) == (candidates.x > 0.5).sum()


# ---- the policy


def test_reinforcement_learns_what_is_paid_and_a_rate_of_zero_learns_nothing(page):
    def pays(genes):
        return (genes[:, 1] == 3).astype(float)

    flat, Policy, reinforce = np.zeros((2, 3, 6)), page["Policy"], page["reinforce"]
    learnt = reinforce(Policy(flat), pays, steps=60, batch=32, lr=0.1, seed=1)
    idle = reinforce(Policy(flat), pays, steps=60, batch=32, lr=0.0, seed=1)
    assert np.mean(learnt[-10:]) > 0.9
    assert np.mean(idle[-10:]) < 0.3
    again = reinforce(Policy(flat), pays, steps=60, batch=32, lr=0.1, seed=1)
    assert again == learnt


def test_reinforcement_ends_with_the_budget(page):
    def spent(genes):
        raise BudgetError("nothing is left")

    assert page["reinforce"](page["Policy"](np.zeros((1, 3, 5))), spent, steps=3) == []
