import shutil
import sys
import warnings

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.descriptors import fingerprints as prints
from imd_helpers.runtime import InputError


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


# ---- compositions


def test_magpie_equals_matminer(real):
    from matminer.featurizers.composition.composite import ElementProperty
    from pymatgen.core import Composition

    rng = np.random.default_rng(1)
    texts = real.table["formula"].tolist()[:150]
    for _ in range(100):  # every element, ties of the mode, large counts
        chosen = rng.choice(np.arange(1, 119), rng.integers(1, 7), replace=False)
        texts.append("".join(f"{elements.SYMBOLS[z]}{rng.integers(1, 20)}" for z in chosen))
    featurizer = ElementProperty.from_preset("magpie")
    expected = np.array([featurizer.featurize(Composition(text)) for text in texts])
    ours = prints.magpie_statistics(amounts(texts))
    assert ours.shape == (250, 132)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-6)


def test_magpie_of_crystals_formulas_and_counts(real):
    crystals = real.crystals[:50]
    points = prints.magpie(crystals)
    assert not points.failed
    np.testing.assert_allclose(prints.magpie(crystals.formulas()).values, points.values, atol=1e-9)
    counts = crystals.counts().numpy()
    np.testing.assert_array_equal(prints.magpie(counts).values, points.values)
    np.testing.assert_array_equal(prints.magpie(permuted(crystals)).digest, points.digest)


def test_magpie_is_scaled():
    points = prints.magpie(imd.datasets.load("oqmd_icsd").table["formula"].tolist()).points
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)
    spread = points.std(0)
    assert np.all(np.isclose(spread, 1) | np.isclose(spread, 0))
    assert np.isclose(spread, 1).sum() > 125


def test_magpie_lists_what_has_no_composition():
    counts = np.zeros((3, 119))
    counts[0, 11] = counts[2, 17] = 1
    points = prints.magpie(counts)
    assert points.failed == {1: "no composition"}
    assert np.isnan(points.values[1]).all()
    assert np.isfinite(points.values[[0, 2]]).all()
    strange = rocksalt((11, 17), (12, 8))
    strange.numbers[0, 0] = 200
    assert list(prints.magpie(strange).failed) == [0]


def test_missing_matminer_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "matminer", None)
    with pytest.raises(InputError, match=r'pip install "imd-helpers\[judge\]"'):
        prints.crystalnn(rocksalt((11, 17)))


# ---- structures


def plain_fingerprint(structure):
    """CDVAE's way: every site."""
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    featurizer = CrystalNNFingerprint.from_preset("ops")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sites = [featurizer.featurize(structure, i) for i in range(len(structure))]
    return np.mean(sites, axis=0)


def test_crystalnn_of_distinct_sites_equals_that_of_all(real):
    some = real[:6]
    points = prints.crystalnn(some.crystals)
    assert points.values.shape == (6, 61)
    expected = np.array([plain_fingerprint(s) for s in some.structures()])
    assert np.linalg.norm(points.values - expected, axis=1).max() < 0.01  # the cutoff is 0.4


def test_crystalnn_lists_what_fails_and_goes_on():
    crystals = rocksalt((11, 17), (12, 8), (3, 9), (19, 35))
    crystals.lattice[0] = torch.nan
    crystals.lattice[1] *= 20  # 125,000 Å^3 an atom
    crystals.lattice[3, 0] = crystals.lattice[3, 1]
    points = prints.crystalnn(crystals)
    assert list(points.failed) == [0, 1, 3]
    assert "NaN" in points.failed[0]
    assert "volume per atom" in points.failed[1]
    crystals.lattice[1] /= 200
    assert prints.crystalnn(crystals[1]).failed == {0: "Mg–O 0.25 Å < 0.50 Å"}
    assert "one plane" in points.failed[3]
    assert np.isfinite(points.values[2]).all()
    assert np.isnan(points.values[[0, 1, 3]]).all()


def test_crystalnn_failure_of_the_library_is_a_reason(monkeypatch):
    def refuse(*parts):
        raise RuntimeError("no neighbours")

    monkeypatch.setattr(prints, "_mean_fingerprint", refuse)
    points = prints.crystalnn(rocksalt((11, 17)))
    assert points.failed == {0: "CrystalNN: RuntimeError: no neighbours"}


def test_crystalnn_resumes_from_the_cache(monkeypatch):
    crystals = rocksalt((11, 17), (12, 8), (3, 9))
    real_task, seen = prints.crystalnn_task, []

    def dies(task):
        seen.extend(task)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real_task(task)

    monkeypatch.setattr(prints, "crystalnn_task", dies)
    with pytest.raises(KeyboardInterrupt):
        prints.crystalnn(crystals)
    again = []
    monkeypatch.setattr(
        prints, "crystalnn_task", lambda task: again.extend(task) or real_task(task)
    )
    points = prints.crystalnn(crystals)
    assert again == seen[2:]  # two were kept
    monkeypatch.setattr(prints, "crystalnn_task", None)
    np.testing.assert_array_equal(prints.crystalnn(crystals).values, points.values)
    np.testing.assert_array_equal(prints.crystalnn(crystals[1]).values[0], points.values[1])


def test_crystalnn_in_two_processes(cubic):
    one = prints.crystalnn(cubic[:4], cached=False)
    two = prints.crystalnn(cubic[:4], cached=False, processes=2)
    np.testing.assert_allclose(one.values, two.values, atol=1e-9)
    with pytest.raises(InputError, match="workers=0: must be a whole number of at least 1"):
        prints.crystalnn(cubic[:4], processes=0)


def test_a_damaged_cache_is_made_again_and_an_impossible_one_named(tmp_path):
    points = prints.crystalnn(rocksalt((11, 17)))
    (piece,) = (tmp_path / "fingerprints").rglob("*.npz")
    piece.write_bytes(b"not an archive")
    np.testing.assert_array_equal(prints.crystalnn(rocksalt((11, 17))).values, points.values)
    with np.load(piece) as file:
        assert file["points"].shape == (1, 61)
    shutil.rmtree(tmp_path / "fingerprints")
    (tmp_path / "fingerprints").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        prints.crystalnn(rocksalt((11, 17)))
    assert not prints.crystalnn(rocksalt((11, 17)), cached=False).failed
