"""Numbered equations that a chapter computes itself: the function is taken from the page."""

import itertools

import numpy as np
import pytest
import torch
from bookfiles import BookError
from equations import page_functions
from scipy.stats import norm

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.descriptors import amd

MOLECULES, COMPOSITIONS = "2_descriptors/molecules", "2_descriptors/compositions"
COORDINATES, SYMMETRY = "2_descriptors/coordinates", "2_descriptors/symmetry"
COMPARISON = "2_descriptors/comparison"
PROPERTIES = "4_models/stability_synthesizability_properties"
SCREENING, TIME = "1_foundations/screening", "5_judging/time_split"
INVERSE, SEARCH = "1_foundations/inverse_design", "1_foundations/global_optimisation"
BOARD = "5_judging/leaderboard"


def verifies(label, page, name):
    return pytest.mark.equation(label, function=f"{page}.{name}")


@verifies("eq-molecules-ridge", MOLECULES, "leave_one_out")
def test_leaving_one_out_without_a_second_fit(agrees):
    """Twenty fits of kernel ridge regression, each without one of 20 points."""
    leave_one_out = page_functions(MOLECULES, "leave_one_out")["leave_one_out"]
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    kernel = np.exp(-np.abs(x[:, None] - x))
    errors = []
    for i in range(20):
        rest = np.arange(20) != i
        weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + 0.1 * np.eye(19), y[rest])
        errors.append(y[i] - kernel[i, rest] @ weights)
    agrees(leave_one_out(kernel, y, 0.1), errors, within=1e-9)


@verifies("eq-compositions-share", COMPOSITIONS, "shares")
def test_shares_against_pymatgen(agrees):
    """Atomic fractions by pymatgen."""
    from pymatgen.core import Composition

    space = page_functions(COMPOSITIONS, "shares")
    counts = np.zeros((1, 119))
    counts[0, [38, 22, 8]] = 2, 2, 6
    found = space["shares"](counts)[0]
    for symbol, number in (("Sr", 38), ("Ti", 22), ("O", 8)):
        fraction = Composition("SrTiO3").get_atomic_fraction(symbol)
        agrees(found[space["ELEMENTS"].index(number)], fraction, within=1e-12)


@verifies("eq-compositions-least", COMPOSITIONS, "least_error")
def test_no_constant_of_a_formula_beats_the_least_error(agrees):
    """The best of 2,001 constants for each formula, tried one after the other."""
    import pandas as pd

    least_error = page_functions(COMPOSITIONS, "least_error")["least_error"]
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"formula": rng.integers(5, size=40), "y": rng.integers(0, 2001, 40)})
    tried = sum(
        np.abs(part.to_numpy()[:, None] - np.arange(2001)).sum(0).min()
        for _, part in table.groupby("formula")["y"]
    )
    agrees(least_error(table, "y"), tried / 40, within=1e-9)


@verifies("eq-coordinates-same", COORDINATES, "everything")
def test_all_ways_of_writing_a_crystal_keep_its_distances(agrees):
    """Average minimum distances of 20 real crystals, before and after, Å."""
    operations = ("translated", "permuted", "rotated", "changed_cell", "other_axes", "other_cell")
    everything = page_functions(COORDINATES, "everything", *operations)["everything"]
    crystals = imd.datasets.load("oqmd_icsd").select(max_sites=12)[:2000:100].crystals
    after = everything(crystals, np.random.default_rng(0))
    before = amd.average_minimum_distances(crystals, k=30)
    agrees(amd.average_minimum_distances(after, k=30), before, within=1e-6)


@verifies("eq-coordinates-spread", COORDINATES, "spread")
def test_spread_of_answers_with_known_noise(agrees):
    """Answers that scatter by 0.5 about properties that scatter by 2, in exact proportion."""
    spread = page_functions(COORDINATES, "spread")["spread"]
    noise = torch.tensor([-1.0, 0.0, 1.0]) * 0.5  # variance 0.25 with n - 1
    truth = torch.tensor([-1.0, 0.0, 1.0]) * 2  # standard deviation 2
    agrees(spread(truth + noise[:, None], truth), 0.5 / 2, within=1e-6)


@verifies("eq-symmetry-free", SYMMETRY, "free_numbers")
@pytest.mark.parametrize(
    ("formula", "group", "count"),
    [("NaCl", 225, 1), ("TiO2", 136, 3), ("SiO2", 154, 6), ("CaTiO3", 62, 10)],
)
def test_free_numbers_of_well_known_structures(agrees, formula, group, count):
    """Counts of a crystallographer: rock salt 1, rutile 3, quartz 6, orthorhombic perovskite 10."""
    needed = ("site_symmetry", "free_coordinates", "LATTICE", "free_numbers")
    free_numbers = page_functions(SYMMETRY, *needed)["free_numbers"]
    rows = imd.datasets.load("oqmd_icsd").select(formulas=[formula], space_groups=[group])
    smallest = rows[[int(rows.n_sites.argmin())]].crystals
    agrees(free_numbers(symmetry.orbits(smallest)[0]), count, within=1e-12)


@verifies("eq-symmetry-length", SYMMETRY, "lengths_code")
def test_lengths_on_a_logarithmic_scale(agrees):
    """0 for the mean of the logarithm, 1 for its double, and any length comes back."""
    space = page_functions(SYMMETRY, "lengths_code", "MU")
    code, mu = space["lengths_code"], space["MU"]
    agrees(code(np.diag(np.exp(mu))), np.zeros(3), within=1e-9)
    agrees(code(np.diag(np.exp(2 * mu))), np.ones(3), within=1e-9)
    lengths_code = code(np.diag([3.0, 5.0, 11.0]))
    agrees(np.exp(mu * (1 + lengths_code)), [3.0, 5.0, 11.0], within=1e-9)


@verifies("eq-symmetry-affine", SYMMETRY, "affine")
@pytest.mark.parametrize("group", [2, 62, 154, 225])
def test_affine_matrices_are_a_group(agrees, group):
    """The product of any two operations, up to whole shifts, is one of the list."""
    affine = page_functions(SYMMETRY, "affine")["affine"](group)
    real = affine[affine[:, 3, 3] == 1]
    wrapped = real.copy()
    wrapped[:, :3, 3] = np.mod(np.round(real[:, :3, 3], 6), 1)
    for first in real[:: max(1, len(real) // 8)]:
        products = first @ real
        products[:, :3, 3] = np.mod(np.round(products[:, :3, 3], 6), 1)
        nearest = np.abs(products[:, None] - wrapped[None]).max((2, 3)).min(1)
        agrees(nearest, np.zeros(len(real)), within=1e-5)


@verifies("eq-comparison-deviation", COMPARISON, "deviation")
def test_deviation_of_a_stretched_crystal(agrees):
    """A cube stretched by 1 %: the largest of 50 distances of a sublattice grows by 1 %."""
    deviation = page_functions(COMPARISON, "deviation", "parts")["deviation"]
    one, other = (
        CrystalBatch.from_ragged(a * np.eye(3)[None], [[0, 0, 0]], [84], [1]) for a in (3.0, 3.03)
    )
    steps = np.array(np.meshgrid(*[np.arange(-3, 4)] * 3)).reshape(3, -1).T
    fiftieth = np.sort(np.linalg.norm(steps, axis=1))[50]
    agrees(deviation(one, other), 0.03 * fiftieth, within=1e-6)


@verifies("eq-comparison-kernel", COMPARISON, "ridge")
def test_kernel_ridge_against_scikit_learn(agrees):
    """scikit-learn's KernelRidge with the same kernel."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics.pairwise import euclidean_distances

    ridge = page_functions(COMPARISON, "ridge")["ridge"]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    train = (x[:30] - x[:30].mean(0)) / x[:30].std(0)
    test = (x[30:] - x[:30].mean(0)) / x[:30].std(0)
    m = np.median(euclidean_distances(train, squared=True)[np.triu_indices(30, 1)])
    model = KernelRidge(alpha=0.01, kernel="rbf", gamma=0.7 / m).fit(train, y[:30] - y[:30].mean())
    expected = model.predict(test) + y[:30].mean()
    agrees(ridge(x[:30], y[:30], x[30:], width=0.7, ridge=0.01), expected, within=1e-8)


@verifies("eq-comparison-invariance", COMPARISON, "change")
def test_invariance_of_a_descriptor_that_feels_only_the_origin(agrees):
    """Two crystals with numbers half apart that a rewriting moves by a quarter: 1/2."""
    space = page_functions(COMPARISON, "change")
    space["rewritten"] = lambda crystal, rng, **kinds: CrystalBatch(
        crystal.lattice, crystal.frac + 0.25, crystal.numbers
    )
    two = CrystalBatch.from_ragged(
        np.tile(3 * np.eye(3), (2, 1, 1)), [[0.0, 0, 0], [0.5, 0, 0]], [84, 84], [1, 1]
    )
    change = space["change"]
    found = change(lambda batch: batch.frac[:, 0, :1].numpy(), CrystalBatch.cat([two] * 8))
    agrees(found, 0.25 / 0.5, within=1e-9)


@verifies("eq-ssp-blind", PROPERTIES, "left_unexplained")
def test_no_constant_of_a_formula_beats_what_it_leaves_unexplained(agrees):
    """The least mean square of 20,001 constants for each of five formulas."""
    import pandas as pd

    left_unexplained = page_functions(PROPERTIES, "left_unexplained")["left_unexplained"]
    rng, tried = np.random.default_rng(0), np.linspace(0, 1, 20_001)
    table = pd.DataFrame({"formula": rng.integers(5, size=40), "y": rng.random(40)})
    least = sum(
        ((part.to_numpy()[:, None] - tried) ** 2).sum(0).min()
        for _, part in table.groupby("formula")["y"]
    )
    agrees(left_unexplained(table, "y"), least / 40, within=1e-8)


@verifies("eq-ssp-false", PROPERTIES, "false_positives")
def test_false_positives_of_a_counted_crowd(agrees):
    """Of 1,000 unlabelled 100 are possible, and 80 of these and 90 of the others pass: 1/10."""
    false_positives = page_functions(PROPERTIES, "false_positives")["false_positives"]
    agrees(false_positives(0.8, 170 / 1000, 0.1), 90 / 900, within=1e-12)


@verifies("eq-screening-cost", SCREENING, "expected_cost")
def test_the_cost_of_a_candidate_against_all_outcomes(agrees):
    """Every pattern of yes and no with its probability, and what is paid until the first no."""
    expected_cost = page_functions(SCREENING, "expected_cost")["expected_cost"]
    costs, passes, by_order = np.array([1.0, 5.0, 40.0]), np.array([0.9, 0.2, 0.1]), {}
    for order in itertools.permutations(range(3)):
        paid = 0.0
        for answers in itertools.product((True, False), repeat=3):  # of questions 0, 1, 2
            chance = np.where(answers, passes, 1 - passes).prod()
            for k in order:
                paid += chance * costs[k]
                if not answers[k]:
                    break
        by_order[order] = paid
        agrees(expected_cost(costs[list(order)], passes[list(order)]), paid, within=1e-12)
    assert min(by_order, key=by_order.get) == tuple(np.argsort(costs / (1 - passes)))


@verifies("eq-screening-near", SCREENING, "called_stable")
def test_who_is_called_stable_by_a_million_errors(agrees):
    """The share of a million evenly spaced quantiles of a normal error that cross the threshold."""
    called_stable = page_functions(SCREENING, "called_stable")["called_stable"]
    error = 0.1 * norm.isf((np.arange(1_000_000) + 0.5) / 1_000_000)
    distance = np.array([-0.1, 0.0, 0.03, 0.2])
    counted = [(d + error <= 0.02).mean() for d in distance]
    agrees(called_stable(distance, 0.1, threshold=0.02), counted, within=2e-6)


@verifies("eq-screening-shrunk", SCREENING, "shrunk")
def test_the_truth_behind_a_prediction_by_integration(agrees):
    """Bayes' rule on a grid of 200,001 truths."""
    shrunk = page_functions(SCREENING, "shrunk")["shrunk"]
    truth = np.linspace(-5, 5, 200_001)
    for predicted in (-0.8, 0.1):
        weight = norm.pdf(truth, 0.3, 0.4) * norm.pdf(predicted, truth, 0.2)
        agrees(shrunk(predicted, 0.3, 0.4, 0.2), (truth * weight).sum() / weight.sum(), within=1e-9)


@verifies("eq-inverse-distance", INVERSE, "Target")
def test_the_distance_is_the_factor_by_which_both_windows_must_grow(agrees):
    """The smallest factor on both windows that lets the crystal in, found by bisection."""
    values = np.random.default_rng(0).normal((6.2, -0.3), (0.4, 0.5), (50, 2))
    low, high = np.zeros(50), np.full(50, 100.0)
    for _ in range(60):
        middle = (low + high) / 2
        wide = np.abs(values - (6.2, -0.3)) <= middle[:, None] * (0.1, 0.2)
        inside = wide.all(1)
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    target = page_functions(INVERSE, "Target")["Target"](6.2, -0.3, 0.1, 0.2)
    agrees(target.distance(values), high, within=1e-9)
    off = page_functions(SEARCH, "windows_off")["windows_off"]
    agrees(off(values, windows=(0.1, 0.2)), high, within=1e-9)
    assert target.hit(np.array([[6.3, -0.1], [6.31, -0.3], [np.nan, -0.3]])).tolist() == [
        True, False, False,
    ]  # fmt: skip


@verifies("eq-inverse-enrichment", INVERSE, "enrichment")
def test_enrichment_is_the_ratio_of_calls_a_hit_costs(agrees):
    """Calls that a hit costs at random, over those that it costs the search."""
    enrichment = page_functions(INVERSE, "enrichment")["enrichment"]
    agrees(enrichment(20, 100, 10, 500), (500 / 10) / (100 / 20), within=1e-12)


@verifies("eq-inverse-tournament", INVERSE, "tournament_probability")
@pytest.mark.parametrize(("population", "size"), [(4, 2), (5, 3), (3, 4)])
def test_tournament_against_all_draws(agrees, population, size):
    """All draws with replacement, listed and counted."""
    space = page_functions(INVERSE, "tournament_probability")
    draws = list(itertools.product(range(population), repeat=size))
    counted = np.bincount([min(draw) for draw in draws], minlength=population) / len(draws)
    agrees(space["tournament_probability"](population, size), counted, within=1e-12)


@verifies("eq-inverse-precision", INVERSE, "predictive_value")
def test_predicted_hits_against_a_table_of_counts(agrees):
    """A population of 10,000 with 200 hits, of which 160 are called, and 294 false alarms."""
    predictive_value = page_functions(INVERSE, "predictive_value")["predictive_value"]
    agrees(predictive_value(0.02, 160 / 200, 294 / 9800), 160 / (160 + 294), within=1e-12)


@verifies("eq-globalopt-regret", SEARCH, "regret")
def test_regret_in_a_plain_loop(agrees):
    """The smallest of all answers so far, one call after the other."""
    regret = page_functions(SEARCH, "regret")["regret"]
    values = np.random.default_rng(0).normal(size=40)
    expected = [min(values[: k + 1]) + 3.0 for k in range(40)]
    agrees(regret(values, -3.0), expected, within=1e-12)
    assert regret(np.array([np.nan, 1.0, np.nan]), 0.5).tolist() == [np.inf, 0.5, 0.5]


@verifies("eq-globalopt-draws", SEARCH, "calls_for")
def test_draws_until_found_against_a_sum(agrees):
    """Chances to find it first in draw 1, 2, … added until they reach what is asked."""
    calls_for = page_functions(SEARCH, "calls_for")["calls_for"]
    for chance, share in ((0.5, 0.3), (0.95, 0.07), (0.99, 0.5), (0.9, 1.0)):
        found, n = 0.0, 0
        while found < chance:
            found += share * (1 - share) ** n
            n += 1
        agrees(calls_for(chance, share), float(n), within=1e-9)


def test_exchanges_counted_on_the_page_are_those_of_the_baseline():
    """The chapter counts them from sites, `IonExchange` from Wyckoff positions."""
    from imd_helpers.baselines import IonExchange
    from imd_helpers.descriptors.symmetry_sites import find_sites

    exchange_counts = page_functions(INVERSE, "exchange_counts")["exchange_counts"]
    cubic = imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=[225, 216, 221])
    sites, kept = find_sites(cubic.crystals[:90])
    pairs = IonExchange(cubic.crystals[kept]).pairs
    assert pairs.any()
    assert (exchange_counts(sites) == pairs).all()


def test_a_chapter_that_lacks_the_function_is_refused():
    with pytest.raises(BookError, match="defines no leave_two_out"):
        page_functions(MOLECULES, "leave_two_out")


@verifies("eq-time-estimate", TIME, "recall_at")
def test_recall_at_k_over_every_choice_of_samples(agrees):
    """All choices of k of 8 samples, one after the other, for three hidden crystals."""
    recall_at = page_functions(TIME, "recall_at")["recall_at"]
    drawn = np.array([0, 2, 1, 0, 7, 0, 7, 7])  # 0, 1, 2 are hidden ones, 7 none of them
    times = np.array([(drawn == i).sum() for i in range(3)])
    for k in range(1, len(drawn) + 1):
        choices = itertools.combinations(drawn, k)
        share = [len(set(chosen) & {0, 1, 2}) / 3 for chosen in choices]
        agrees(recall_at(times, len(drawn), k), np.mean(share), within=1e-9)


@verifies("eq-time-recall", TIME, "recall_at")
def test_recall_at_k_is_right_on_average(agrees):
    """Mean of 20,000 runs of 50 samples, against the closed form for k = 20."""
    recall_at = page_functions(TIME, "recall_at")["recall_at"]
    p, k = np.array([0.001, 0.01, 0.05, 0.2]), 20
    rng = np.random.default_rng(0)
    times = rng.multinomial(50, [*p, 1 - p.sum()], size=20_000)[:, :-1]
    agrees(recall_at(times, 50, k).mean(), np.mean(1 - (1 - p) ** k), within=5e-3)
    plugged_in = np.mean(1 - (1 - times / 50) ** k)
    assert plugged_in < recall_at(times, 50, k).mean() - 5e-3


def test_a_split_by_year_shows_no_formula_of_the_future():
    data = imd.datasets.load("oqmd_icsd")[np.arange(0, 4_000, 2)]
    years = np.random.default_rng(0).integers(1950, 2020, len(data))
    data.table["year"] = years
    before, after = page_functions(TIME, "by_year")["by_year"](data, 2000)
    assert before.table["year"].max() < 2000 <= after.table["year"].min()
    assert not set(before.table["formula"]) & set(after.table["formula"])
    left_out = data.table["formula"][years >= 2000].isin(before.table["formula"])
    assert len(before) + len(after) + left_out.sum() == len(data)
    assert left_out.any()


def test_a_crystal_without_a_year_is_on_neither_side():
    data = imd.datasets.load("oqmd_icsd")[np.arange(6)]
    data.table["year"] = [1990, None, 2010, "unknown", 2011, 1995]
    before, after = page_functions(TIME, "by_year")["by_year"](data, 2000)
    assert before.table["year"].tolist() == [1990, 1995]
    known = set(data.table["formula"][[0, 1, 3, 5]])
    assert after.table["formula"].tolist() == [
        f for f in data.table["formula"][[2, 4]] if f not in known
    ]


@verifies("eq-leaderboard-best", BOARD, "best_of")
def test_the_best_of_every_choice_of_samples(agrees):
    """All choices of N of 7 samples, one after the other, the best m of each."""
    best_of = page_functions(BOARD, "best_of")["best_of"]
    p, score = np.random.default_rng(0).random((2, 7))
    for of, m in ((7, 3), (5, 2), (4, 4), (6, 1)):
        choices = (np.array(some) for some in itertools.combinations(range(7), of))
        hits = [p[some[np.argsort(score[some])[:m]]].sum() for some in choices]
        agrees(best_of(p, score, m, of), np.mean(hits), within=1e-9)
