"""An ensemble of boosted trees: it learns, it knows where it does not, and its intervals hold."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.datasets.formula_sets import compositions
from imd_helpers.predictors import BoostedEnsemble
from imd_helpers.predictors.boosted import composition_statistics, conformal_radius
from imd_helpers.runtime import InputError

SMALL = {"members": 3, "trees": 40, "leaves": 15}


@pytest.fixture(scope="module")
def training():
    return np.random.default_rng(0).permutation(compositions("icsd")[0])[:3000]


@pytest.fixture(scope="module")
def values(training):
    """A smooth property, with noise that is four times larger in oxides."""
    chi = np.nan_to_num(elements.column("electronegativity"))
    noise = np.random.default_rng(1).normal(size=len(training)) * np.where(
        training[:, 8], 0.2, 0.05
    )
    return training @ chi / training.sum(1) + noise


@pytest.fixture(scope="module")
def model(training, values):
    return BoostedEnsemble(**SMALL).fit(training[:2000], values[:2000])


def test_it_learns_and_its_intervals_hold_what_they_promise(model, training, values):
    said, truth = model.predict(training[2000:]), values[2000:]
    assert np.abs(said.mean - truth).mean() < 0.4 * truth.std()
    for level in (0.5, 0.9):
        low, high = said.interval(level)
        covered = ((low <= truth) & (truth <= high)).mean()
        assert abs(covered - level) < 0.06, level  # of 1,000, calibrated on 200
    wide = np.diff(said.interval(0.9), axis=0)[0]
    assert wide.std() > 0  # the disagreement tells rows apart


def test_probabilities_of_a_threshold_are_calibrated_and_monotone(model, training, values):
    said, truth = model.predict(training[2000:]), values[2000:]
    threshold = float(np.median(truth))
    chance = said.below(threshold)
    assert (said.below(threshold + 0.5) >= chance).all()
    assert abs(chance.mean() - (truth <= threshold).mean()) < 0.05
    assert (said.below(-100.0) == 0).all()
    assert (said.below(100.0) == 1).all()
    each = said.below(np.full(len(truth), threshold))
    assert (each == chance).all()


def test_an_interval_is_the_inverse_of_a_probability(model, training):
    said = model.predict(training[2000:2200])
    low, high = said.interval(0.8)
    inside = said.below(high) - said.below(low)
    assert (np.abs(inside - 0.8) < 0.02).all()


def test_groups_are_never_divided(training):
    """All rows of a group have one value of their own: fit and calibration must not share it."""
    rng = np.random.default_rng(0)
    groups = np.arange(1200) // 4
    counts = training[groups]  # four rows of each composition
    value = rng.normal(size=300)[groups]
    together = BoostedEnsemble(**SMALL).fit(counts, value, groups=groups)
    apart = BoostedEnsemble(**SMALL).fit(counts, value)
    new = training[300:600]
    widths = [
        np.median(np.diff(each.predict(new).interval(0.9), axis=0)) for each in (together, apart)
    ]
    truth = rng.normal(size=300)
    low, high = together.predict(new).interval(0.9)
    assert ((low <= truth) & (truth <= high)).mean() > 0.82
    low, high = apart.predict(new).interval(0.9)
    assert ((low <= truth) & (truth <= high)).mean() < 0.8  # rows it had seen made it bold
    assert widths[0] > widths[1]


def test_the_same_seed_gives_the_same_ensemble_and_another_does_not(training, values):
    few = training[:300], values[:300]
    one, same, other = (BoostedEnsemble(**SMALL, seed=s).fit(*few) for s in (0, 0, 1))
    said = [each.predict(training[2000:2010]).mean for each in (one, same, other)]
    assert (said[0] == said[1]).all()
    assert (said[0] != said[2]).any()


def test_a_row_of_zeros_has_no_prediction_and_stops_nothing(model):
    counts = amounts(["NaCl", "MgO", "KBr"])
    counts[1] = 0
    said = model.predict(counts)
    assert np.isnan([said.mean[1], said.spread[1], said.below(0.0)[1]]).all()
    assert np.isfinite(said.mean[[0, 2]]).all()


def test_features_do_not_depend_on_the_size_of_the_formula():
    one = composition_statistics(amounts(["SrTiO3", "Sr2Ti2O6"]))
    assert one.shape == (2, 132)
    assert np.allclose(one[0], one[1])
    with pytest.raises(InputError, match="row of zeros"):
        composition_statistics(np.zeros((1, 119), dtype=int))


def test_input_is_checked(training, values):
    with pytest.raises(InputError, match="knows nothing yet"):
        BoostedEnsemble().predict(training[:2])
    with pytest.raises(InputError, match="19 groups"):
        BoostedEnsemble().fit(training[:19], values[:19])
    with pytest.raises(InputError, match="NaN or infinity"):
        BoostedEnsemble().fit(training[:30], np.full(30, np.nan))
    with pytest.raises(InputError, match="members=1"):
        BoostedEnsemble(members=1)
    with pytest.raises(InputError, match="level"):
        conformal_radius([1.0], 1.0)
    assert math.isinf(conformal_radius(np.arange(8.0), 0.9))


@pytest.mark.equation(
    "eq-screening-conformal", function="imd_helpers.predictors.boosted.conformal_radius"
)
@pytest.mark.parametrize(("n", "level"), [(19, 0.9), (40, 0.8), (9, 0.5)])
def test_the_radius_covers_what_the_ranks_promise(agrees, n, level):
    """Probability that the radius covers, from the ranks of n + 1 exchangeable scores, and the
    smallest radius of that kind; both by counting."""
    scores = np.random.default_rng(n).exponential(size=n)
    radius = conformal_radius(scores, level)
    rank = int((scores <= radius).sum())  # the next score is below with probability rank / (n + 1)
    assert rank / (n + 1) >= level > (rank - 1) / (n + 1)
    # for uniform scores: the next is below the k-th of n with the mean of a Beta(k, n + 1 - k)
    grid = np.linspace(0, 1, 200_001)
    at_least = binom.sf(rank - 1, n, grid)  # distribution of the k-th smallest
    mean = 1 - np.trapezoid(at_least, grid)
    agrees(rank / (n + 1), mean, within=1e-6)
