"""Calibrated stability: the formula, the interval, and what was recorded of it."""

import json

import numpy as np
import pytest

from imd_helpers.energies import calibration
from imd_helpers.energies.calibration import (
    FEATURES,
    Calibration,
    calibrated,
    features,
    features_in,
    metals_alone,
)
from imd_helpers.runtime import InputError, UnknownNameError, data_path

RECORD = json.loads(data_path("calibration", "stability.json").read_text(encoding="utf-8"))
BEST = tuple(RECORD["best"].split(" + "))


def made_up(between=0.0, covariance=0.0):
    return Calibration(
        ("a", "b"), 0.0, np.array([-1.0, -20.0, 2.0, -0.5, -1.5]), covariance * np.eye(5), between,
        10_000, np.ones(119, dtype=bool),
    )  # fmt: skip


def samples(n, seed=0):
    rng = np.random.default_rng(seed)
    above = rng.normal(0.15, 0.15, (n, 1)) + rng.normal(0, 0.03, (n, 2))
    return features(above, rng.normal(-1, 0.5, n), rng.random(n) < 0.3)


def test_the_features_are_bounded_and_in_order():
    found = features([[0.1, 0.3], [5.0, 0.0], [-4.0, -4.0]], [-1.0, 0.0, -2.0], [1, 0, 0])
    wanted = [[1, 0.2, 0.2, -1, 1], [1, 0.6, 0.3, 0, 0], [1, -0.3, 0, -2, 0]]
    assert found == pytest.approx(np.array(wanted))
    assert len(FEATURES) == found.shape[1]


def test_metals_alone_hold_no_anion():
    counts = np.zeros((4, 119), dtype=int)
    counts[0, [28, 13]], counts[1, [11, 17]], counts[2, [22, 1]] = 1, 1, 2  # NiAl, NaCl, TiH
    assert metals_alone(counts).tolist() == [True, False, False, False]  # the last has no atoms


def test_features_of_a_report_are_those_of_its_values():
    """Of some samples, in the order asked for; what a report does not hold is not known."""
    values = {"energy_above_hull a": np.array([0.1, 0.2, np.nan]),
              "energy_above_hull b": np.array([0.3, 0.2, 0.1]),
              "formation_energy": np.array([-1.0, -2.0, -3.0]),
              "metals alone": np.array([0.0, 1.0, np.nan])}  # fmt: skip
    rows = np.array([1, 0])
    found = features_in(values, ("a", "b"), rows)
    assert found == pytest.approx(np.array([[1, 0.2, 0, -2, 1], [1, 0.2, 0.2, -1, 0]]))
    assert np.isnan(features_in({}, ("a", "b"), rows)[:, 1:]).all()
    assert features_in({}, ("a", "b"), rows[:0]).shape == (0, len(FEATURES))


@pytest.mark.equation(
    "eq-stability-calibration",
    function="imd_helpers.energies.calibration.Calibration.probability",
)
def test_the_probability_is_the_logistic_function_of_the_features(agrees):
    """The equation by hand, for 50 crystals with made-up coefficients."""
    one = made_up()
    x = samples(50)
    by_hand = [1 / (1 + np.exp(1 + 20 * m - 2 * d + 0.5 * f + 1.5 * a)) for _, m, d, f, a in x]
    agrees(one.probability(x), by_hand, within=1e-12)


def test_the_interval_holds_what_happens():
    """Draw outcomes from the model itself, generators' shifts included: 95 % must lie inside."""
    for between in (0.0, 0.8):
        one = made_up(between)
        rng = np.random.default_rng(1)
        x = samples(200)
        value, low, high = one.expected(x)
        assert value == pytest.approx(one.probability(x).mean())
        exponent = x @ one.coefficients
        inside = 0
        for _ in range(400):
            p = 1 / (1 + np.exp(-exponent - rng.normal(scale=between)))
            inside += low <= (rng.random(200) < p).mean() <= high
        assert 0.92 < inside / 400 < 0.995, between


def test_more_doubt_makes_wider_intervals():
    x = samples(300)
    width = [np.ptp(made_up(tau).expected(x)[1:]) for tau in (0.0, 0.5, 1.0)]
    assert width[0] < width[1] < width[2]


def test_samples_without_energies_count_in_the_denominator_only():
    x = samples(100)
    whole = made_up().expected(x)[0]
    assert made_up().expected(x, n=400)[0] == pytest.approx(whole / 4)
    some = x.copy()
    some[:50, 1] = np.nan
    assert made_up().expected(some)[0] < whole
    assert made_up().expected(x[:0], n=10) == (0.0, 0.0, 0.0)
    with pytest.raises(InputError, match=r"n=99: .* at least 100"):
        made_up().expected(x, n=99)


def test_copies_share_their_luck():
    """A hundred copies of one crystal are stable together, or not at all."""
    one = made_up()
    x = np.repeat(samples(1) - [0.0, 0.2, 0.0, 0.0, 0.0], 100, axis=0)
    p = one.probability(x[:1])[0]
    assert 0.05 < p < 0.95
    value, low, high = one.expected(x, alike=np.zeros(100, int))
    assert (value, low, high) == (pytest.approx(p), 0.0, 1.0)
    apart = one.expected(x)
    assert apart == one.expected(x, alike=np.arange(100)[::-1])
    assert 0.0 < apart[1] < p < apart[2] < 1.0


def test_doubts_count_what_the_table_cannot_tell():
    held = np.zeros((4, 119), dtype=bool)
    held[0, [11, 17]] = held[1, [28, 13]] = held[2, [86, 17]] = True  # NaCl, NiAl, RnCl, nothing
    assert calibration.calibration(BEST, 0.1).doubts(held) == [
        "1 samples hold elements that the calibration never saw"
    ]
    assert calibration.calibration(BEST, 0.1).doubts(held[:1]) == []


@pytest.mark.parametrize("threshold", ["0.0", "0.1"])
def test_a_chemistry_that_was_left_out_is_predicted_but_for_two(threshold):
    """As recorded; oxides are better, and metals worse than compounds with anions tell."""
    found = RECORD["details"][threshold]["chemistry"]
    metals = found["metals alone"]
    for name, each in found.items():
        inside = each["expected"][1] <= each["dft"][0] <= each["expected"][2]
        assert inside or name in ("metals alone", "oxides"), name
    assert metals["systems"] == pytest.approx(metals["dft"][0], abs=0.02)


def test_unknown_pairs_and_thresholds_are_refused():
    with pytest.raises(UnknownNameError, match="calibrated pair"):
        calibration.calibration(("chgnet", "dft"))
    with pytest.raises(InputError, match=r"threshold = 0.3: calibrated are 0.0, 0.1"):
        calibration.calibration(BEST, 0.3)
    assert calibrated(BEST, 0.1)
    assert not calibrated(BEST, 0.05)
    assert not calibrated(BEST[:1], 0.0)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_what_was_fitted_is_sane(threshold):
    fit = calibration.calibration(BEST, threshold)
    grid = np.linspace(-0.2, 0.5, 30)
    p, of_metals = (
        fit.probability(features(np.stack([grid, grid], 1), np.full(30, -1.0), np.full(30, a)))
        for a in (0, 1)
    )
    assert (np.diff(p) < 0).all()  # further above the hull, less likely stable
    assert (of_metals < p).all()  # potentials are kinder to metals
    assert np.linalg.eigvalsh(fit.covariance).min() > 0
    assert fit.seen[[8, 14, 26]].all()
    assert not fit.seen[0]


@pytest.mark.parametrize("threshold", ["0.0", "0.1"])
def test_what_was_left_out_is_predicted_better_than_by_guesses(threshold):
    """Chemical systems and generators that a fit never saw, as recorded."""
    scores = RECORD["compared"][RECORD["best"]][threshold]
    for left_out in ("system", "method"):
        brier = scores[left_out]["brier"]
        assert brier < scores["base rate"]
        assert brier < min(scores["raw"].values())
    found = RECORD["details"][threshold]["generators"].values()
    inside = [g["expected"][1] <= g["dft"][0] <= g["expected"][2] for g in found]
    assert sum(inside) >= 5
    four = RECORD["details"][threshold]["four"]["compared"]
    for left_out in ("system", "method"):  # the coefficient of metals is worth its place
        assert all(scores[left_out][each] < four[left_out][each] for each in four[left_out])


@pytest.mark.parametrize("n", [1, 8, 100])
def test_a_small_chance_is_not_told_as_none(n):
    """A crystal high above the hull: the interval of the number of stable ones is 0 to 1, not 0."""
    value, low, high = made_up().expected(samples(1) + [0.0, 0.3, 0.0, 0.0, 0.0], n=n)
    assert 0.0 < value < 0.025 / n
    assert (low, high) == (0.0, pytest.approx(1 / n))


def test_how_far_the_default_pair_flatters_is_recorded():
    """One alone is kinder than both together, and both are kinder than DFT."""
    for threshold in (0.0, 0.1):
        alone, both = calibration.flattery(BEST, threshold)
        assert alone > both > 1.5
    assert calibration.flattery(BEST[::-1], 0.1) is None
