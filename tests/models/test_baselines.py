import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pymatgen.analysis.prototypes
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, geometry, symmetry
from imd_helpers.judge import charge_neutral, geometry_valid, novel
from imd_helpers.models.baselines import (
    IonExchange,
    PrototypeEnumeration,
    RandomCubic,
    RandomP1,
    RandomWyckoff,
    Substitution,
    Templates,
    TrainingCopies,
    atomic_volumes,
    exchange_pairs,
    grid_orbits,
    occupations,
    random_cells,
    wyckoff_positions,
)
from imd_helpers.runtime import InputError, UnknownNameError

KNOWN = (TrainingCopies, Substitution, RandomCubic, IonExchange, PrototypeEnumeration)
ALL = (*KNOWN, RandomP1, RandomWyckoff)


@pytest.fixture(scope="module")
def training():
    cubic = imd.datasets.load("oqmd_icsd").select(
        nelements=3, space_groups=[216, 221, 225], max_sites=6, split="train"
    )
    return Templates.of(cubic[:300].crystals)


@pytest.fixture(scope="module")
def mixed():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12, split="train")
    return Templates.of(data[np.random.default_rng(0).permutation(len(data))[:400]].crystals)


@pytest.fixture(scope="module")
def models(training):
    return {kind: kind(training) for kind in ALL}


def crystal(number, cell, *sites):
    """One crystal from a space group and (symbol, x, y, z) of each orbit."""
    frac = np.array([[site[1:] for site in sites]], dtype=float)
    numbers = np.array([[elements.number(site[0]) for site in sites]])
    return symmetry.expand([number], np.asarray(cell, dtype=float)[None], frac, numbers)[0]


def rocksalt(one, two, a=5.6):
    return crystal(225, a * np.eye(3), (one, 0, 0, 0), (two, 0.5, 0.5, 0.5))


@pytest.mark.parametrize("kind", ALL)
def test_n_in_n_out_and_seeded(kind, models):
    model = models[kind]
    decoded = model.sample(200, seed=3)
    asked = decoded.asked["space_group"]
    again = model.sample(200, seed=3)
    other = model.sample(200, seed=4).crystals
    assert len(decoded) == len(asked) == 200
    assert decoded.ok.mean() > (0.6 if kind is RandomWyckoff else 0.999)
    assert all((reason == "") == ok for reason, ok in zip(decoded.reasons, decoded.ok, strict=True))
    decoded.crystals.validate()
    assert (decoded.crystals.numbers == again.crystals.numbers).all()
    assert (decoded.crystals.lattice == again.crystals.lattice).all()
    assert decoded.crystals.formulas() != other.formulas()


def test_templates_are_the_same_crystals(training):
    from pymatgen.core.structure_matcher import StructureMatcher

    cubic = imd.datasets.load("oqmd_icsd").select(space_groups=[225, 194], max_sites=6)[:40]
    templates = Templates.of(cubic.crystals)
    assert len(templates) == 40
    assert (templates.space_group == cubic.table["space_group"]).mean() > 0.95
    matcher = StructureMatcher()
    pairs = zip(templates.crystals.structures(), cubic.structures(), strict=True)
    assert all(matcher.fit(one, two) for one, two in pairs)


def test_copies_are_copies(training):
    sample = TrainingCopies(training).sample(50).crystals
    assert not novel(sample, training.crystals).any()


def test_substitution_keeps_the_family(training):
    decoded = Substitution(training).sample(300, seed=1)
    asked = decoded.asked["space_group"]
    # the same draws as the templates: the generator chooses rows first
    rows = np.random.default_rng(1).choice(len(training), size=300)
    old = training.crystals[rows]
    assert (asked == training.space_group[rows]).all()
    family = elements.column("group").copy()
    family[57:72], family[89:104] = 101, 102
    before, after = old.numbers.numpy(), decoded.crystals.numbers.numpy()
    atoms = before > 0
    assert (family[before[atoms]] == family[after[atoms]]).all()
    assert (before[atoms] != after[atoms]).mean() > 0.8
    n_before = (old.counts() > 0).sum(1)
    assert (n_before == (decoded.crystals.counts() > 0).sum(1)).all()  # no two become one
    present = set(np.flatnonzero(training.crystals.counts().numpy().any(0)).tolist())
    assert set(after[atoms].tolist()) <= present
    radius = np.nan_to_num(elements.column("covalent_radius"))
    ratio = radius[after].sum(1) / radius[before].sum(1)
    stretch = decoded.crystals.lattice[:, 0].norm(dim=1) / old.lattice[:, 0].norm(dim=1)
    np.testing.assert_allclose(stretch, ratio, rtol=1e-12)


def test_random_cubic_follows_its_description(training):
    decoded = RandomCubic(training).sample(2000, seed=0)
    asked = decoded.asked["space_group"]
    for group in (216, 221, 225):
        expected = (training.space_group == group).mean()
        assert abs((asked == group).mean() - expected) < 4 * np.sqrt(expected / 2000) + 0.01
    crystals = decoded.crystals
    assert ((crystals.counts() > 0).sum(1) == 3).all()
    grid = crystals.frac.numpy() * 4
    np.testing.assert_allclose(grid, np.rint(grid), atol=1e-9)
    lengths = crystals.lattice[:, 0].norm(dim=1).numpy()
    known = training.crystals.lattice[:, 0].norm(dim=1).numpy()
    for group in (216, 221, 225):
        assert np.isin(
            lengths[asked == group].round(6), known[training.space_group == group].round(6)
        ).all()
    assert 0.01 < geometry_valid(crystals).mean() < 0.7  # most are impossible
    found = symmetry.space_group_numbers(crystals[:200])
    assert (found == asked[:200]).mean() > 0.6


def test_grid_orbits_cover_the_grid():
    for group, count in ((221, 10), (225, 5), (216, 6)):
        rotations, translations = symmetry.operations(group)
        orbits = [
            {
                tuple(np.rint(r @ site + 4 * t).astype(int) % 4)
                for r, t in zip(rotations, translations, strict=True)
            }
            for site in grid_orbits(group)
        ]
        assert len(set().union(*orbits)) == sum(map(len, orbits)) == 64
        assert len(orbits) == count  # by hand: multisets of {0, 1/4, 1/2} for 221


@pytest.mark.parametrize("kind", KNOWN)
def test_conditions(kind, training, models):
    model = models[kind]
    asked = model.sample(30, condition={"space_group": 221}).asked["space_group"]
    assert set(asked.tolist()) == {221}
    symbols = [elements.SYMBOLS[z] for z in np.unique(training.crystals.numbers[0]) if z]
    sample = model.sample(20, condition={"elements": symbols}).crystals
    assert {frozenset(structure.symbol_set) for structure in sample.structures()} == {
        frozenset(symbols)
    }


# ---- exchange


def test_pairs_by_hand():
    a = 4.1 * np.eye(3)
    crystals = CrystalBatch.cat(
        [
            rocksalt("Na", "Cl"),
            rocksalt("Cl", "K"),  # another choice of origin: the same prototype
            rocksalt("Na", "F"),
            rocksalt("Na", "F", 4.7),  # a second entry of a compound counts no more
            crystal(221, a, ("Cs", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5)),
            crystal(221, a, ("Sr", 0, 0, 0), ("Ti", 0.5, 0.5, 0.5), ("O", 0.5, 0.5, 0)),
            crystal(221, a, ("Ti", 0, 0, 0), ("Ba", 0.5, 0.5, 0.5), ("O", 0.5, 0, 0)),
        ]
    )
    expected = {("Na", "K"): 1, ("Cl", "F"): 1, ("Sr", "Ba"): 1}
    held = occupations(crystals)
    pairs = exchange_pairs(held)
    assert (pairs == pairs.T).all()
    found = {
        (elements.SYMBOLS[i], elements.SYMBOLS[j]): int(pairs[i, j])
        for i, j in np.argwhere(np.triu(pairs))
    }
    assert {frozenset(pair): n for pair, n in found.items()} == {
        frozenset(pair): n for pair, n in expected.items()
    }
    labels = [each.prototype() for each in held]
    assert len(set(labels)) == 3
    assert labels[0] == labels[1] == labels[2] == labels[3]
    assert labels[5] == labels[6]


def test_prototypes_agree_with_those_of_the_data_set():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12, space_groups=[225, 62, 194, 166])
    data = data[:300]
    labels = [each.prototype() for each in occupations(Templates.of(data.crystals).crystals)]
    named = data.table["prototype"].tolist()  # of another program
    same = [
        ((labels[i] == labels[j]), (named[i] == named[j])) for i in range(300) for j in range(i)
    ]
    both = Counter(same)
    assert both[True, True] > 1000
    assert both[True, False] + both[False, True] < 0.1 * both[True, True]


def test_exchange_follows_the_counts(training, models):
    model = models[IonExchange]
    n = 4000
    sample = model.sample(n, seed=5).crystals
    kept = (model.training.crystals.counts().numpy() > 0).astype(int)
    got = (sample.counts().numpy() > 0).astype(int)
    # each sample is a training crystal with one element exchanged for a counted partner
    some = got[:200]
    lost = (kept[None] > some[:, None]).sum(-1)
    won = (some[:, None] > kept[None]).sum(-1)
    one = (lost == 1) & (won == 1)
    assert one.any(1).all()
    pairs = [
        any(model.pairs[np.argmax(k > row), np.argmax(row > k)] for k in kept[hits])
        for row, hits in zip(some, one, strict=True)
    ]
    assert all(pairs)
    two = IonExchange(training, swaps=2).sample(100, seed=1).crystals.counts().numpy() > 0
    differ = (kept[None] > two[:, None]).sum(-1)
    assert (differ.min(1) <= 2).all()
    assert (differ.min(1) == 2).any()


def test_exchange_shares_by_hand():
    sets = [rocksalt("Na", x) for x in ("Cl", "F", "Br")] + [rocksalt("K", "Cl")]
    model = IonExchange(CrystalBatch.cat(sets))
    sample = model.sample(6000, seed=0).crystals
    shares = {formula: k / 6000 for formula, k in Counter(sample.formulas()).items()}
    # NaCl (1/4): Na -> K (1/2) or Cl -> F, Br (1/4 each); NaF: Na -> K, or F -> Cl, Br; NaBr alike;
    # KCl: K -> Na, or Cl -> F, Br
    expected = {
        "KCl": 1 / 8,
        "NaF": 1 / 16 + 1 / 16,
        "NaBr": 1 / 16 + 1 / 16,
        "KF": 1 / 8 + 1 / 16,
        "KBr": 1 / 8 + 1 / 16,
        "NaCl": 1 / 16 + 1 / 16 + 1 / 8,
    }
    assert shares == pytest.approx(expected, abs=0.025)
    found = model.sample(50, condition={"elements": ("K", "F")}).crystals
    assert set(found.formulas()) == {"KF"}


def test_exchange_errors(training, models):
    with pytest.raises(InputError, match="swaps = 0"):
        IonExchange(training, swaps=0)
    with pytest.raises(InputError, match="differ by one element"):
        IonExchange(CrystalBatch.cat([rocksalt("Na", "Cl"), rocksalt("Mg", "O")]))
    with pytest.raises(InputError, match="no training crystal"):
        models[IonExchange].sample(2, condition={"elements": ("H", "He", "Ne")})


# ---- prototypes


def test_enumeration_is_complete():
    a = 4.1 * np.eye(3)
    cscl = crystal(221, a, ("Cs", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5))
    fluorite = crystal(225, 5.5 * np.eye(3), ("Ca", 0, 0, 0), ("F", 0.25, 0.25, 0.25))
    model = PrototypeEnumeration(
        CrystalBatch.cat([rocksalt("Na", "Cl"), rocksalt("K", "F"), cscl, fluorite])
    )
    assert len(model.prototypes) == 3
    crystals, groups = model.enumerate(("Mg", "O"))
    assert Counter(zip(crystals.formulas(), groups.tolist(), strict=True)) == {
        ("MgO", 221): 2,
        ("MgO", 225): 2,
        ("MgO2", 225): 1,
        ("Mg2O", 225): 1,
    }
    neutral = PrototypeEnumeration(model.training, accept=charge_neutral)
    assert set(neutral.enumerate(("Mg", "O"))[0].formulas()) == {
        formula for formula in ("MgO", "MgO2", "Mg2O") if charge_neutral([formula])[0]
    }
    with pytest.raises(InputError, match="none is accepted"):
        model.enumerate(("Mg", "Al", "O"))
    # prototypes are drawn alike, though two of four training crystals are rock salt
    asked = model.sample(3000, seed=0).asked["space_group"]
    assert np.mean(asked == 221) == pytest.approx(1 / 3, abs=0.04)


def test_enumeration_filter(mixed):
    free = PrototypeEnumeration(mixed).sample(300, seed=0)
    assert free.ok.all()
    assert charge_neutral(free.crystals.counts().numpy()).mean() < 0.85
    kept = PrototypeEnumeration(mixed, accept=charge_neutral).sample(300, seed=0)
    assert kept.ok.all()
    assert charge_neutral(kept.crystals.counts().numpy()).all()
    never = PrototypeEnumeration(mixed, accept=lambda counts: np.zeros(len(counts), bool), tries=3)
    decoded = never.sample(5)
    asked = decoded.asked["space_group"]
    assert not decoded.ok.any()
    assert decoded.reasons == ("no filling accepted in 3 tries",) * 5
    assert len(decoded.crystals) == len(asked) == 5
    with pytest.raises(InputError, match="prototypes satisfies"):
        PrototypeEnumeration(mixed).sample(2, condition={"elements": [*"HBCNOFPSK"]})


# ---- Wyckoff positions, cells, volumes


def test_wyckoff_positions_of_all_groups():
    folder = Path(pymatgen.analysis.prototypes.__file__).parent
    sites, free = (
        json.loads(gzip.decompress((folder / f"wyckoff-position-{name}.json.gz").read_bytes()))
        for name in ("multiplicities", "params")
    )
    for number in range(1, 231):
        ours = [(each.multiplicity, each.free) for each in wyckoff_positions(number)]
        letters = sites[str(number)]
        expected = [(letters[letter], free[str(number)][letter]) for letter in letters]
        assert sorted(ours) == sorted(expected), number
    with pytest.raises(InputError, match="231"):
        wyckoff_positions(231)


@pytest.mark.parametrize("number", [2, 14, 62, 141, 167, 194, 216, 227, 230])
def test_points_of_a_wyckoff_position_have_its_multiplicity(number):
    rng = np.random.default_rng(number)
    rotations, translations = symmetry.operations(number)
    for position in wyckoff_positions(number):
        assert (position.directions == np.rint(position.directions)).all()
        u = rng.random((20, 3))
        points = position.origin + u @ position.directions
        for point in points:
            images = np.round((rotations @ point + translations) % 1, 6) % 1
            assert len(np.unique(images, axis=0)) == position.multiplicity


def test_free_parameters_fill_the_position():
    (line,) = [p for p in wyckoff_positions(194) if (p.multiplicity, p.free) == (6, 1)]
    points = (line.origin + np.random.default_rng(0).random((5000, 3)) @ line.directions) % 1
    np.testing.assert_allclose((points[:, 1] - 2 * points[:, 0] + 0.5) % 1, 0.5, atol=1e-9)
    assert np.histogram(points[:, 0], 10, (0, 1))[0].min() > 400


@pytest.mark.parametrize(
    ("number", "equal", "angles"),
    [
        (2, 3, (None, None, None)),
        (14, 3, (90, None, 90)),
        (62, 3, (90, 90, 90)),
        (136, 2, (90, 90, 90)),
        (166, 2, (90, 90, 120)),
        (225, 1, (90, 90, 90)),
    ],
)
def test_random_cells(number, equal, angles):
    from pymatgen.core import Lattice

    volumes = np.linspace(20, 300, 200)
    cells = random_cells(np.full(200, number), volumes, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.det(cells), volumes, rtol=1e-9)
    lattices = [Lattice(cell) for cell in cells]
    for lattice in lattices:
        assert len(set(np.round(lattice.abc, 6))) == equal
        assert max(lattice.abc) / min(lattice.abc) <= 3 + 1e-9
        for found, wanted in zip(lattice.angles, angles, strict=True):
            assert 60 - 1e-6 <= found <= 120 + 1e-6
            assert wanted is None or found == pytest.approx(wanted)
    if number == 2:
        boxes = [lattice.volume / np.prod(lattice.abc) for lattice in lattices]
        assert min(boxes) >= 0.3


def test_atomic_volumes_of_planted_ones(mixed):
    planted = np.random.default_rng(0).uniform(8, 40, elements.N_COLUMNS)
    counts = mixed.crystals.counts().numpy()
    true = torch.as_tensor(counts @ planted)
    scale = (true / geometry.volume(mixed.crystals)) ** (1 / 3)
    crystals = CrystalBatch(
        mixed.crystals.lattice * scale[:, None, None], mixed.crystals.frac, mixed.crystals.numbers
    )
    volumes, ratios = atomic_volumes(crystals)
    often = (counts > 0).sum(0) > 20
    assert often.sum() > 10
    error = np.abs(volumes[often] / planted[often] - 1)  # 0, but for the pull to the mean
    assert error.max() < 0.2
    assert np.median(error) < 0.06
    assert np.median(np.abs(ratios - 1)) < 0.03
    real, _ = atomic_volumes(mixed.crystals)
    sodium, oxygen, caesium = real[[11, 8, 55]]
    assert 5 < oxygen < sodium < caesium < 80  # Å^3


# ---- random crystals


def closest(crystals):
    radius = np.nan_to_num(elements.column("covalent_radius"), nan=1.7)
    radius[0] = 1.0
    return geometry.closest_contact(crystals, scale=radius)[0]


def centring(number):
    return int((symmetry.operations(number)[0] == np.eye(3)).all((1, 2)).sum())


def test_random_wyckoff_has_its_symmetry_and_no_overlap(mixed):
    decoded = RandomWyckoff(mixed).sample(150, seed=0)
    asked = decoded.asked["space_group"]
    good = decoded.crystals[decoded.ok]
    groups = asked[decoded.ok]
    assert decoded.ok.mean() > 0.93
    assert (symmetry.space_group_numbers(good, symprec=0.01) == groups).all()
    assert closest(good).min() >= 0.65
    assert geometry_valid(good).mean() > 0.95
    assert all(
        n <= 20 * centring(int(g)) for n, g in zip(good.n_sites.tolist(), groups, strict=True)
    )
    for i in np.flatnonzero(~decoded.ok):
        assert decoded.reasons[i] == "no crystal of the space group without overlap in 200 tries"


def test_random_wyckoff_follows_the_training_set(mixed):
    model = RandomWyckoff(mixed, tries=1)  # space groups are drawn first, and kept
    decoded = model.sample(2000, seed=1)
    asked = decoded.asked["space_group"]
    for group in (225, 62, 139, 194):
        expected = (mixed.space_group == group).mean()
        assert np.mean(asked == group) == pytest.approx(expected, abs=0.03)
    counts = mixed.crystals.counts().numpy()
    known = {tuple(sorted(row[row > 0] // np.gcd.reduce(row))) for row in counts}
    made = decoded.crystals[decoded.ok].counts().numpy()
    assert {tuple(sorted(row[row > 0] // np.gcd.reduce(row))) for row in made} <= known
    assert set(np.flatnonzero(made.any(0))) <= set(np.flatnonzero(counts.any(0)))


def test_random_wyckoff_conditions(mixed):
    model = RandomWyckoff(mixed)
    decoded = model.sample(12, condition={"formula": "SrTiO3", "space_group": 99}, seed=0)
    asked = decoded.asked["space_group"]
    assert set(asked.tolist()) == {99}  # P4mm, whether the training set has it or not
    assert decoded.ok.all()
    assert set(decoded.crystals.formulas()) == {"SrTiO3"}
    assert set(symmetry.space_group_numbers(decoded.crystals, symprec=0.01)) == {99}
    pair = model.sample(10, condition={"elements": ("Mg", "O")}, seed=0).crystals
    assert all(set(s.symbol_set) == {"Mg", "O"} for s in pair.structures())
    with pytest.raises(InputError, match="too many sites"):
        RandomWyckoff(mixed, max_sites=4).sample(
            3, condition={"formula": "NaCl", "space_group": 230}
        )
    with pytest.raises(InputError, match=r"1\.\.230"):
        model.sample(3, condition={"space_group": 231})


def test_random_p1(mixed):
    decoded = RandomP1(mixed).sample(300, seed=0)
    asked = decoded.asked["space_group"]
    assert decoded.ok.all()
    assert set(asked.tolist()) == {1}
    assert geometry_valid(decoded.crystals).mean() < 0.15  # chance alone puts atoms together
    assert int(decoded.crystals.n_sites.max()) <= 20
    volumes, ratios = atomic_volumes(mixed.crystals)
    described = decoded.crystals.counts().numpy() @ volumes
    drawn = geometry.volume(decoded.crystals).numpy() / described
    assert np.isin(drawn.round(9), ratios.round(9)).all()  # densities as in the training set
    apart = RandomP1(mixed, min_contact=0.65).sample(100, seed=0)
    assert apart.ok.mean() > 0.9
    assert closest(apart.crystals[apart.ok]).min() >= 0.65
    assert (symmetry.space_group_numbers(apart.crystals[apart.ok], symprec=0.01) == 1).mean() > 0.8
    formula = RandomP1(mixed).sample(20, condition={"formula": "Fe4O6"}, seed=0).crystals
    assert set(formula.formulas()) == {"Fe2O3"}


def test_random_crystals_that_find_no_place_keep_it(mixed):
    tight = RandomP1(mixed, min_contact=2.0, tries=2)
    decoded = tight.sample(7)
    asked = decoded.asked["space_group"]
    assert len(decoded) == len(asked) == 7
    assert not decoded.ok.any()
    assert set(decoded.reasons) == {"atoms overlap in 2 tries"}


@pytest.mark.parametrize("kind", [RandomP1, RandomWyckoff])
def test_random_crystals_errors(kind, mixed):
    model = kind(mixed)
    with pytest.raises(InputError, match="one of the two"):
        model.sample(2, condition={"formula": "NaCl", "elements": ("Na", "Cl")})
    with pytest.raises(InputError, match="whole numbers"):
        model.sample(2, condition={"formula": "Na0.5Cl"})
    with pytest.raises(InputError, match="at most 20 sites"):
        model.sample(2, condition={"formula": "Na30Cl17"})
    with pytest.raises(InputError, match="no composition"):
        model.sample(2, condition={"elements": [*"HBCNOFPSK"]})
    with pytest.raises(InputError, match="max_sites = 0"):
        kind(mixed, max_sites=0)
    with pytest.raises(UnknownNameError, match="formula"):
        model.sample(2, condition={"formla": "NaCl"})


def test_errors_teach(training):
    with pytest.raises(InputError, match="at least one sample"):
        TrainingCopies(training).sample(0)
    with pytest.raises(UnknownNameError, match="space_group"):
        RandomCubic(training).sample(2, condition={"spacegroup": 225})
    with pytest.raises(UnknownNameError, match="Xx"):
        RandomCubic(training).sample(2, condition={"elements": ("Xx", "O", "Na")})
    with pytest.raises(InputError, match="no training crystal"):
        Substitution(training).sample(2, condition={"space_group": 1})
    with pytest.raises(InputError, match="three different"):
        RandomCubic(training).sample(2, condition={"elements": ("Na", "Cl")})
    broken = training.crystals[:2]
    broken.lattice[:] = 0
    with pytest.raises(InputError, match="none of 2"):
        Templates.of(broken)
