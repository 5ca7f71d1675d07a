from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.fingerprints import Features, magpie, magpie_statistics
from imd_helpers.judge import distributions as dist
from imd_helpers.judge.distributions import Fingerprints
from imd_helpers.judge.report import DefinitionError
from imd_helpers.runtime import InputError, UnknownNameError

REPO = Path(__file__).resolve().parents[2]
FEW = 20  # resamples: these tests are about values


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path))


@pytest.fixture(scope="module")
def real():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12)
    return data[np.random.default_rng(0).permutation(len(data))[:1200]]


@pytest.fixture(scope="module")
def cubic():
    data = imd.datasets.load("oqmd_icsd").select(space_groups=[216, 221, 225], max_sites=5)
    return data[np.random.default_rng(0).permutation(len(data))[:24]].crystals


def rocksalt(*pairs, a=5.0):
    """Rock-salt crystals of pairs of atomic numbers."""
    fcc = a / 2 * (np.ones((3, 3)) - np.eye(3))
    frac = np.tile([[0.0, 0, 0], [0.5, 0.5, 0.5]], (len(pairs), 1))
    sizes = [2] * len(pairs)
    return CrystalBatch.from_ragged(np.tile(fcc, (len(pairs), 1, 1)), frac, np.ravel(pairs), sizes)


def line(*values):
    lost = np.flatnonzero(np.isnan(values)).tolist()
    rows, reasons = np.array(values, dtype=float)[:, None], dict.fromkeys(lost, "not finite")
    return Features("line", rows, {"space": "line"}, reasons)


def permuted(crystals, seed=0):
    """The same crystals in another order, each with its sites in another order."""
    rng = np.random.default_rng(seed)
    out = []
    for i in rng.permutation(len(crystals)):
        n = int(crystals.n_sites[i])
        sites = rng.permutation(n)
        out.append(
            CrystalBatch.from_ragged(
                crystals.lattice[[i]], crystals.frac[i, sites], crystals.numbers[i, sites], [n]
            )
        )
    return CrystalBatch.cat(out)


# ---- coverage


def by_hand():
    """Four samples and three reference crystals; cutoffs 1 and 1.

    Sample 0 lies on reference 0. Sample 1 has the structure of reference 0 and the composition of
    reference 1: the hole. Sample 2 is far from all structures. Sample 3 failed. Reference 2 has
    the structure of sample 2, and no sample near its composition.
    """
    samples = Fingerprints(line(0, 0.5, 30, np.nan), line(0, 10, 0, 0))
    reference = Fingerprints(line(0, 10, 30), line(0, 10.5, 20))
    return samples, reference


def test_coverage_by_hand():
    samples, reference = by_hand()
    found = dist.coverage(samples, reference, cutoffs=(1, 1))
    # structures: 0 and 1 near reference 0, 2 near 2; compositions: 0 and 2 near 0, 1 near 1
    assert found["precision"].value == pytest.approx(3 / 4)
    # reference 0 by sample 0; reference 1 has no structure near; reference 2 no composition
    assert found["recall"].value == pytest.approx(1 / 3)
    assert found["precision"].n == 4
    assert found["recall"].n == 3
    assert found["precision"].note == "1 samples could not be measured (not finite)"
    assert found["recall"].low < 1 / 3 < found["recall"].high


def test_coverage_without_the_hole():
    samples, reference = by_hand()
    strict = dist.coverage(samples, reference, cutoffs=(1, 1), same_crystal=True)
    assert strict["precision"].value == pytest.approx(1 / 4)  # sample 0 alone
    assert strict["recall"].value == pytest.approx(1 / 3)
    assert strict["recall"].definition["near"] == "one crystal in both"


def test_coverage_cutoffs_are_inclusive_and_failed_reference_is_left_out():
    samples = Fingerprints(line(0.0), line(0.0))
    reference = Fingerprints(line(0.4, np.nan), line(10.0, 0.0))
    found = dist.coverage(samples, reference)
    assert found["recall"].value == found["precision"].value == 1.0
    assert found["recall"].n == 1
    assert found["recall"].note == "1 reference crystals could not be measured (not finite)"
    found = dist.coverage(samples, reference, cutoffs=(0.4, 9.99))
    assert found["recall"].value == 0.0


def test_coverage_equals_the_steps_of_the_original(cubic, monkeypatch):
    monkeypatch.syspath_prepend(REPO / "experiments")
    import metrics

    sets = cubic[:8], cubic[6:16]
    points = [[metrics.published_point(each) for each in some.structures()] for some in sets]
    points[0].append(None)  # CrystalNN gave no fingerprint
    theirs = metrics.published_coverage(*points)
    broken = CrystalBatch.cat([sets[0], rocksalt((11, 17), a=np.nan)])
    ours = dist.coverage(dist.fingerprints(broken), dist.fingerprints(sets[1]))
    assert ours["precision"].value == pytest.approx(theirs["precision"])
    assert ours["recall"].value == pytest.approx(theirs["recall"])
    assert 0 < theirs["recall"] < 1
    found = dist.fingerprints(sets[0])
    for each, structure, composition in zip(
        points[0], found.structure.values, found.composition.values, strict=False
    ):
        assert structure == pytest.approx(each[0], abs=1e-3)
        assert composition == pytest.approx(each[1], abs=1e-9)


def test_coverage_of_nothing():
    samples, reference = by_hand()
    none = Fingerprints(line(np.nan), line(0))
    assert dist.coverage(none, reference)["precision"].value == 0.0
    assert dist.coverage(none, reference)["recall"].value == 0.0
    with pytest.raises(InputError, match="none of 1"):
        dist.coverage(samples, none)


def test_coverage_of_broken_crystals(cubic):
    broken = cubic[:2].to("cpu")
    broken = CrystalBatch(broken.lattice * 0.01, broken.frac, broken.numbers)
    found = dist.coverage(dist.fingerprints(broken), dist.fingerprints(cubic[:2]))
    assert [found[name].value for name in ("recall", "precision")] == [0.0, 0.0]
    assert found["precision"].note.startswith("2 samples could not be measured")


def test_coverage_of_real_crystals(cubic):
    prints = dist.fingerprints(cubic)
    itself = dist.coverage(prints, prints)
    assert itself["recall"].value == itself["precision"].value == 1.0
    mixed = dist.coverage(dist.fingerprints(permuted(cubic)), prints)  # in any order
    assert mixed["recall"].value == mixed["precision"].value == 1.0
    # rock salt whose reference holds its structure and its composition, but in two crystals
    points = [dist.fingerprints(each) for each in (rocksalt((55, 53), a=7.6), _cscl_and_rocksalt())]
    hole = dist.coverage(*points)
    assert hole["precision"].value == 1.0
    strict = dist.coverage(*points, same_crystal=True, cutoffs=(0.4, 5))
    assert strict["precision"].value == 0.0


def test_compositions_are_scaled_as_in_cdvae():
    means, deviations = (np.array(dist.CDVAE["magpie"][k]) for k in ("means", "deviations"))
    assert means.shape == deviations.shape == (132,)
    low, high, width = means.reshape(22, 6)[:, :3].T  # the mean of a range is that of its ends
    np.testing.assert_allclose(high - low, width, rtol=1e-9)
    found = dist.fingerprints(rocksalt((11, 17)), cached=False).composition
    again = found.values * deviations + means
    np.testing.assert_allclose(again, magpie_statistics(nacl()), atol=1e-9)
    assert "CDVAE" in found.definition["scaled"]
    assert dist.CUTOFFS == {"mp_20": (0.4, 10), "carbon_24": (0.2, 4), "perov_5": (0.2, 4)}


def nacl():
    return rocksalt((11, 17)).counts().double().numpy()


def _cscl_and_rocksalt():
    cscl = CrystalBatch.from_ragged(
        4.6 * np.eye(3)[None], np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), [55, 53], [2]
    )
    return CrystalBatch.cat([rocksalt((11, 17), a=5.64), cscl])


# ---- Wasserstein


def test_wasserstein_closed_forms():
    values = np.random.default_rng(0).normal(size=300)
    for one, two, expected in (
        (values, values + 2.5, 2.5),  # a shift
        (values, values, 0.0),
        ([0.0, 1.0], [0.0, 0.0, 1.0, 1.0], 0.0),  # sizes do not matter
        ([0.0, 0.0, 0.0, 1.0], [1.0], 0.75),
        (np.arange(100) / 99, 3 * np.arange(100) / 99, 1.0),  # uniform on [0, 1] and on [0, 3]
    ):
        found = dist.of_values(line(*one), line(*two), FEW)
        assert found.value == pytest.approx(expected, abs=1e-12)
        assert found.low <= found.value <= found.high


def test_wasserstein_of_properties(real):
    one, two = real.crystals[:80], real.crystals[80:200]
    structures = real.structures()
    density = np.array([s.density for s in structures])
    kinds = np.array([len(s.composition) for s in structures])
    for name, values in (("density", density), ("n_elements", kinds)):
        found = dist.wasserstein(one, two, name, resamples=FEW)
        expected = wasserstein_distance(values[:80], values[80:200])
        assert found.value == pytest.approx(expected, rel=1e-3)
        same = dist.wasserstein(permuted(one), permuted(two), name, resamples=FEW)
        assert same.value == pytest.approx(found.value, rel=1e-9)
        assert same.definition == found.definition


def test_wasserstein_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        one, two = rng.normal(size=150), rng.normal(0.5, 1, size=150)
        found = dist.of_values(line(*one), line(*two), 100)
        hits += found.low <= 0.5 <= found.high
    assert hits >= 33  # of 40, for a 95 % interval
    same = dist.of_values(line(*one), line(*rng.normal(size=150)))
    assert same.low == 0.0 < same.value  # two finite sets differ, and are not told apart


def test_wasserstein_lists_failures_and_takes_tiny_sets():
    found = dist.of_values(line(1.0, np.nan, 3.0), line(1.0), FEW)
    assert found.note == "1 samples could not be measured (not finite)"
    assert (found.n, found.value) == (2, 1.0)
    crystals = rocksalt((11, 17), (12, 8))
    crystals.lattice[0] = 0
    found = dist.wasserstein(crystals, rocksalt((12, 8)), "density", resamples=FEW)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert "one plane" in found.note
    with pytest.raises(InputError, match="none of 1 crystals of the samples"):
        dist.of_values(line(np.nan), line(1.0))
    with pytest.raises(UnknownNameError, match="density"):
        dist.wasserstein(crystals, crystals, "densty")
    with pytest.raises(InputError, match="resamples=1"):
        dist.of_values(line(1.0), line(1.0), 1)


# ---- all of them


def measures(samples, reference):
    points = map(dist.fingerprints, (samples, reference))
    found = {f"coverage {name}": each for name, each in dist.coverage(*points).items()}
    for name in dist.PROPERTIES:
        found[name] = dist.wasserstein(samples, reference, name, resamples=FEW)
    return found


def test_measures_are_seeded_and_know_no_order(cubic):
    found = measures(cubic[:12], cubic[12:])
    again = measures(cubic[:12], cubic[12:])
    mixed = measures(permuted(cubic[:12]), permuted(cubic[12:]))
    for name, measure in found.items():
        ends = (measure.value, measure.low, measure.high)
        assert (again[name].value, again[name].low, again[name].high) == ends
        assert mixed[name].value == pytest.approx(measure.value, rel=1e-6, abs=1e-6)
        assert mixed[name].definition == measure.definition == again[name].definition
        assert measure.low <= measure.value + 1e-12
        assert measure.value <= measure.high + 1e-12
    assert len(found) == 4


def test_spaces_do_not_mix(real):
    points = magpie(real.crystals[:10])
    with pytest.raises(DefinitionError, match="one space"):
        dist.of_values(line(1.0, 2.0), dist.values_of(real.crystals[:5], "density"))
    half = magpie(real.crystals[:5])
    assert cdist(half.points, points.points).min(1).max() == 0.0
