"""The compiled matcher: pymatgen's verdicts, planted duplicates, tolerances, malformed crystals."""

import numpy as np
import pytest
import torch
from numba import njit
from scipy.optimize import linear_sum_assignment

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.kernels import matching as _matching
from imd_helpers.matching import cells as matching
from imd_helpers.matching.cells import NONE, MatchSettings
from imd_helpers.runtime import InputError


def crystal(lattice, frac, numbers):
    return CrystalBatch.from_ragged(
        np.array(lattice, dtype=float)[None], np.array(frac, dtype=float), numbers, [len(numbers)]
    )


def parts(batch):
    n = int(batch.n_sites[0])
    return batch.lattice[0].numpy(), batch.frac[0, :n].numpy(), batch.numbers[0, :n].numpy()


def same_structure(one, other, *, settings=None):
    """(n,) bool: pair by pair, are two crystals the same?"""
    n = len(one)
    cells = matching.reduce_cells(CrystalBatch.cat([one, other]), settings)
    codes = np.split(cells.code, cells.start[1:])
    codes = [code[:k] for code, k in zip(codes, cells.n_sites, strict=True)]
    alike = [len(codes[i]) > 0 and np.array_equal(codes[i], codes[i + n]) for i in range(n)]
    pairs = [np.array([i, i + n]) for i in np.flatnonzero(alike)]
    if not pairs:
        return np.zeros(n, dtype=bool)
    found = matching.first_matches(cells, pairs, n_old=[1] * len(pairs), settings=settings)
    return found[n:] != NONE


def same(one, other, **tolerances):
    """Our verdict, after checking that pymatgen's is equal, both ways round."""
    from pymatgen.core.structure_matcher import StructureMatcher

    matcher = StructureMatcher(**tolerances)
    settings = MatchSettings(**tolerances)
    verdicts = []
    for a, b in ((one, other), (other, one)):
        verdict = bool(same_structure(a, b, settings=settings)[0])
        assert verdict == matcher.fit(a.structures()[0], b.structures()[0])
        verdicts.append(verdict)
    assert verdicts[0] == verdicts[1]
    return verdicts[0]


@pytest.fixture(scope="module")
def real():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=16)
    return data[np.random.default_rng(0).permutation(len(data))[:300]].crystals


# ---- agreement with pymatgen


def near_pairs(batch, seed):
    """Each crystal with a distorted self: atoms moved, cell strained, elements exchanged."""
    rng = np.random.default_rng(seed)
    out = []
    for one in batch:
        lattice, frac, numbers = parts(one)
        spacing = (abs(np.linalg.det(lattice)) / len(numbers)) ** (1 / 3)
        moves = rng.normal(0, rng.uniform(0, 0.25) * spacing, frac.shape)
        frac = frac + moves @ np.linalg.inv(lattice)
        strain = np.eye(3) + rng.normal(0, rng.uniform(0, 0.09), (3, 3))
        numbers = numbers.copy()
        if rng.random() < 0.3:
            i, j = rng.integers(0, len(numbers), 2)
            numbers[[i, j]] = numbers[[j, i]]
        if rng.random() < 0.2:
            frac = np.concatenate([frac, frac + [0, 0, 1]]) / [1, 1, 2]
            numbers, lattice = np.tile(numbers, 2), np.diag([1, 1, 2]) @ lattice
        out.append(crystal(lattice @ strain, frac, numbers))
    return CrystalBatch.cat(out)


@pytest.mark.parametrize(
    "tolerances",
    [
        {},
        {"stol": 0.5, "ltol": 0.3, "angle_tol": 10.0},
        {"stol": 0.15, "ltol": 0.1, "angle_tol": 3.0, "scale": False},
        {"primitive_cell": False},
    ],
    ids=["defaults", "wide", "narrow, unscaled", "given cells"],
)
def test_pymatgen_says_the_same_of_near_pairs(real, tolerances):
    from pymatgen.core.structure_matcher import StructureMatcher

    batch = real[:150]
    other = near_pairs(batch, 1)
    matcher = StructureMatcher(**tolerances)
    pairs = zip(batch.structures(), other.structures(), strict=True)
    expected = np.array([matcher.fit(a, b) for a, b in pairs])
    assert 0.05 < expected.mean() < 0.95
    assert (same_structure(batch, other, settings=MatchSettings(**tolerances)) == expected).all()


@pytest.mark.parametrize("counts", [(1, 1, 3), (4, 4, 12), (3, 9), (33, 2)])
def test_pymatgen_says_the_same_at_the_edge_of_the_tolerances(counts):
    # crystals of one composition, moved by about as much as may be: what is quick must not say no
    from pymatgen.core.structure_matcher import StructureMatcher

    rng = np.random.default_rng(sum(counts))
    numbers = np.repeat([8, 38, 22], [*counts, 0][:3])
    n = len(numbers)
    apart = np.array([moved(n, rng) for _ in range(60)])  # (60, 2, n, 3)
    cells = 1.05 * n ** (1 / 3) * (np.eye(3) + rng.normal(0, 0.04, (60, 2, 3, 3)))
    one, other = (
        CrystalBatch.from_ragged(
            2.4 * cells[:, k], apart[:, k].reshape(-1, 3), np.tile(numbers, 60), [n] * 60
        )
        for k in (0, 1)
    )
    matcher = StructureMatcher(primitive_cell=False)
    both = zip(one.structures(), other.structures(), strict=True)
    expected = np.array([matcher.fit(a, b) for a, b in both])
    assert 0.1 < expected.mean() < 0.95
    settings = MatchSettings(primitive_cell=False)
    assert (same_structure(one, other, settings=settings) == expected).all()


def moved(n, rng):
    """Sites, and the same ones moved, inverted and shifted, their axes exchanged: (2, n, 3)."""
    frac = rng.random((n, 3))
    step = rng.normal(size=(n, 3))
    step *= rng.uniform(0.15, 0.34) * rng.random((n, 1)) / np.linalg.norm(step, axis=1)[:, None]
    other = rng.choice([-1, 1]) * (frac + step / n ** (1 / 3)) + rng.random(3)
    return np.stack([frac, other[:, rng.permutation(3)]])


def test_pymatgen_says_the_same_of_polymorphs():
    from pymatgen.core.structure_matcher import StructureMatcher

    silica = imd.datasets.load("oqmd_icsd").select(formulas="SiO2", max_sites=12).crystals
    silica = silica[silica.n_sites.numpy() == 12]
    pairs = np.random.default_rng(0).integers(0, len(silica), (150, 2))
    one, other = silica[pairs[:, 0]], silica[pairs[:, 1]]
    both = zip(one.structures(), other.structures(), strict=True)
    expected = np.array([StructureMatcher().fit(a, b) for a, b in both])
    assert (same_structure(one, other) == expected).all()
    assert 0 < expected.sum() < 100


def test_reduced_cells_are_pymatgens(real):
    from pymatgen.core.structure_matcher import StructureMatcher

    big = imd.datasets.load("oqmd_icsd").crystals
    big = big[np.flatnonzero(big.n_sites.numpy() > 40)[:15]]
    batch = CrystalBatch.cat([real[:150], big])
    cells = matching.reduce_cells(batch, MatchSettings(scale=False))
    close = 0
    for i, structure in enumerate(batch.structures()):
        expected = StructureMatcher._get_reduced_structure(structure)
        assert len(expected) == cells.n_sites[i]
        assert abs(np.linalg.det(cells.cells[i])) == pytest.approx(expected.volume, rel=1e-6)
        found, wanted = np.sort(cells.parameters[i, :3]), np.sort(expected.lattice.abc)
        assert np.allclose(found, wanted, rtol=1e-3)
        close += np.allclose(cells.parameters[i, 3:], expected.lattice.angles, atol=0.01)
        first = cells.start[i]
        x = cells.frac[first : first + cells.n_sites[i]]
        assert ((x >= 0) & (x <= 1)).all()
    assert close > 0.9 * len(batch)  # two angles within rounding of 90° may turn either way


# ---- the same crystal in disguise


def unimodular(rng):
    change = np.eye(3)
    for _ in range(6):
        i, j = rng.permutation(3)[:2]
        change[i] += rng.integers(-3, 4) * change[j]
    return change


def rotation(rng):
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def permuted(a, x, z, rng):
    order = rng.permutation(len(z))
    return a, x[order], z[order]


def supercell(a, x, z, rng):
    return np.diag([1, 2, 1]) @ a, np.concatenate([x, x + [0, 1, 0]]) / [1, 2, 1], np.tile(z, 2)


def skewed(a, x, z, rng):
    change = unimodular(rng)
    return change @ a, x @ np.linalg.inv(change), z


DISGUISES = {
    "order of sites": permuted,
    "origin": lambda a, x, z, rng: (a, x + rng.random(3), z),
    "orientation": lambda a, x, z, rng: (a @ rotation(rng), x, z),
    "hand of the basis": lambda a, x, z, rng: (a[[1, 0, 2]], x[:, [1, 0, 2]], z),
    "supercell": supercell,
    "skewed cell": skewed,
    "scale": lambda a, x, z, rng: (1.3 * a, x, z),
    "noise": lambda a, x, z, rng: (a, x + rng.normal(0, 0.02, x.shape) @ np.linalg.inv(a), z),
    "mirror image": lambda a, x, z, rng: (a, -x, z),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_disguised_crystals_are_found(real, name):
    rng = np.random.default_rng(2)
    batch = real[:200]
    other = CrystalBatch.cat([crystal(*DISGUISES[name](*parts(one), rng)) for one in batch])
    verdicts = same_structure(batch, other) & same_structure(other, batch)
    missed = np.flatnonzero(~verdicts)
    assert len(missed) <= (1 if name == "supercell" else 0)
    for i in missed:  # solid nitrogen: its atoms repeat almost within the 0.25 Å allowed
        one, two = batch[i].structures()[0], other[i].structures()[0]
        assert not one.matches(two)


def test_supercells_count_when_cells_are_taken_as_given(real):
    rng = np.random.default_rng(2)
    batch = real[:50]
    other = CrystalBatch.cat([crystal(*supercell(*parts(b), rng)) for b in batch])
    assert not same_structure(batch, other, settings=MatchSettings(primitive_cell=False)).any()


def test_enantiomers_are_the_same():
    silica = imd.datasets.load("oqmd_icsd").select(formulas="SiO2", max_sites=9)
    rows = np.flatnonzero(silica.table["space_group"] == 154)  # quartz
    left = silica.crystals[rows[:1]]
    lattice, frac, numbers = parts(left)
    right = crystal(lattice, -frac, numbers)
    assert symmetry.space_group_numbers(left) == [154]  # P3_2 21
    assert symmetry.space_group_numbers(right) == [152]  # P3_1 21
    assert same(left, right)


def test_skewed_cells_are_reduced():
    rng = np.random.default_rng(3)
    one = crystal([[4, 0, 0], [0, 5, 0], [0.5, 0, 6]], rng.random((4, 3)), [1, 1, 8, 8])
    lattice, frac, numbers = parts(one)
    for size in (10, 1000, 100_000):
        change = np.array([[1, size, 0], [0, 1, -size], [0, 0, 1]])
        skewed = crystal(change @ lattice, frac @ np.linalg.inv(change), numbers)
        assert same_structure(one, skewed)[0]


# ---- just inside and just outside the tolerances


@pytest.mark.parametrize(("shift", "expected"), [(0.30, True), (0.33, False)])
def test_site_tolerance(shift, expected):
    # two atoms share a shift, half each: it may be 2 stol (V/2)^(1/3) = 0.317 a
    one = crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    other = crystal(4 * np.eye(3), [[0, 0, 0], [0.5 + shift, 0.5, 0.5]], [55, 17])
    assert same(one, other, stol=0.2) == expected


@pytest.mark.parametrize(("stretch", "expected"), [(1.19, True), (1.21, False)])
def test_length_tolerance(stretch, expected):
    one = crystal(4 * np.eye(3), [[0, 0, 0]], [29])
    other = crystal(np.diag([4, 4, 4 * stretch]), [[0, 0, 0]], [29])
    assert same(one, other, scale=False) == expected


@pytest.mark.parametrize(("beta", "expected"), [(94.8, True), (95.2, False)])
def test_angle_tolerance(beta, expected):
    one = crystal(np.diag([4.0, 5.0, 6.0]), [[0, 0, 0]], [29])
    turned = 6 * np.array([np.cos(np.radians(beta)), 0, np.sin(np.radians(beta))])
    other = crystal([[4, 0, 0], [0, 5, 0], turned], [[0, 0, 0]], [29])
    assert same(one, other, scale=False) == expected


@pytest.mark.parametrize(("off", "expected"), [(0.24, True), (0.26, False)])
def test_primitive_cells_may_be_a_quarter_angstrom_off(off, expected):
    one = crystal(3 * np.eye(3), [[0, 0, 0]], [29])
    other = crystal(np.diag([3.0, 3.0, 6.0]), [[0, 0, 0], [0, 0, 0.5 + off / 6]], [29, 29])
    assert same(one, other) == expected


def test_the_largest_displacement_decides():
    # one atom of 16 is moved by 0.6 spacings: in the mean little, at the largest too much
    rng = np.random.default_rng(4)
    frac = np.stack(np.meshgrid(*[np.arange(2) / 2] * 3), -1).reshape(-1, 3)
    frac = np.concatenate([frac, frac + 0.25]) + 0.12 * rng.random((16, 3))
    numbers = [11] * 8 + [17] * 8
    moved = frac.copy()
    moved[3] += [0.22, 0, 0]
    one, other = (crystal(5 * np.eye(3), x, numbers) for x in (frac, moved))
    assert same(one, other, stol=0.6)
    assert not same(one, other, stol=0.3)


def test_elements_and_counts_must_agree():
    one = crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    assert not same(one, crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 35]))
    assert not same(one, crystal(4 * np.eye(3), [[0, 0, 0]], [55]))


# ---- crystals that are none


def malformed(real):
    """(what is wrong, crystal)"""
    nan, inf = float("nan"), float("inf")
    eye = 4 * np.eye(3)
    flat = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    rows = []
    for value in (nan, inf, -inf):
        for place in ((0, 0), (1, 2), (2, 2)):
            lattice = eye.copy()
            lattice[place] = value
            rows.append((lattice, [[0.0, 0, 0]], [11]))
        for axis in range(3):
            frac = np.zeros((2, 3))
            frac[1, axis] = value
            rows.append((eye, frac, [11, 17]))
    rows += [(lattice, [[0.0, 0, 0]], [11]) for lattice in (0 * eye, flat, flat.T, 1e-4 * eye)]
    rows += [(eye, [[0.0, 0, 0], [0.5, 0.5, 0.5]], z) for z in ([0, 0], [0, 11], [-1, 17])]
    rows += [(eye, [[0.0, 0, 0], [0.5, 0.5, 0.5]], z) for z in ([119, 17], [11, 1000])]
    rows += [(np.diag([1e-3, 1.0, e]), [[0.0, 0, 0]], [11]) for e in (1e4, 1e6, 1e9)]
    rows.append((30 * eye, np.random.default_rng(0).random((1001, 3)), [11] * 1001))
    out = []
    for row in rows:  # not by from_ragged, which would refuse some and wrap others
        lattice, frac, numbers = (torch.as_tensor(np.array(value))[None] for value in row)
        out.append(CrystalBatch(lattice.double(), frac.double(), numbers))
    return out


def test_malformed_crystals_fail_alone_and_say_why(real):
    bad = malformed(real)
    batch = CrystalBatch.cat([*bad, real[:5], real[:5]])
    cells = matching.reduce_cells(batch)
    n = len(bad)
    assert n > 25
    assert sorted(cells.failed) == list(range(n))
    assert all(len(why) > 15 for why in cells.failed.values())
    assert (cells.n_sites[:n] == 0).all()
    broken = cells.n_sites == 0  # the anchor is one of the sites, where there are some
    assert ((cells.anchor < cells.n_sites) | broken & (cells.anchor == 0)).all()
    assert same_structure(batch, batch).tolist() == [False] * n + [True] * 10
    first = matching.first_matches(cells, matching.buckets(cells))
    assert first.tolist() == [-1] * (n + 5) + list(range(n, n + 5))


def test_odd_but_whole_crystals_are_compared():
    on_top = crystal(4 * np.eye(3), [[0, 0, 0]] * 3, [11, 11, 17])
    tiny = crystal(0.02 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    needle = crystal(np.diag([1.0, 1.0, 60.0]), [[0, 0, 0], [0, 0, 0.4]], [11, 17])
    batch = CrystalBatch.cat([on_top, tiny, needle])
    assert not matching.reduce_cells(batch).failed
    assert same_structure(batch, batch).all()


# ---- the parts


@pytest.mark.parametrize("name", ["ltol", "stol", "angle_tol"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.2", None])
def test_tolerances_are_numbers(name, value):
    with pytest.raises(InputError, match=f"{name}=.*at least 0"):
        MatchSettings(**{name: value})


def test_definition_names_semantics_and_code():
    text = str(MatchSettings(stol=0.5).definition())
    for word in ("pymatgen", "StructureMatcher", "imd_helpers.matching.cells", "algorithm", "0.5"):
        assert word in text


def test_assignment_is_the_cheapest():
    @njit
    def solve(cost):
        n = len(cost)
        column = np.empty(n, dtype=np.int64)
        return _matching.assign(cost, n, column, np.empty((6, n))), column

    rng = np.random.default_rng(5)
    for _ in range(300):
        n = rng.integers(1, 15)
        cost = rng.random((n, n)) if rng.random() < 0.5 else rng.integers(0, 4, (n, n)) * 1.0
        cost[rng.random((n, n)) < rng.choice([0.0, 0.3, 0.6])] = _matching.FAR
        rows, columns = linear_sum_assignment(cost)
        possible = cost[rows, columns].max() < _matching.FAR
        found, column = solve(cost)
        assert found == possible
        if possible:
            assert sorted(column) == list(range(n))
            assert cost[rows, column].sum() == pytest.approx(cost[rows, columns].sum())


def test_buckets_hold_what_can_match(real):
    batch = CrystalBatch.cat([real[:50], real[20:70]])
    cells = matching.reduce_cells(batch)
    formulas = batch.formulas()
    for members in matching.buckets(cells):
        assert len(members) > 1
        assert len({formulas[i] for i in members}) == 1
        assert len(set(cells.n_sites[members].tolist())) == 1
    together = {frozenset(m.tolist()) for m in matching.buckets(cells)}
    assert all(any({i, i + 30} <= m for m in together) for i in range(20, 50))
