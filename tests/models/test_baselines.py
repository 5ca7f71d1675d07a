import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import elements, symmetry
from imd_helpers.judge import geometry_valid, novel
from imd_helpers.models.baselines import (
    RandomCubic,
    Substitution,
    Templates,
    TrainingCopies,
    grid_orbits,
)
from imd_helpers.runtime import InputError, UnknownNameError

ALL = (TrainingCopies, Substitution, RandomCubic)


@pytest.fixture(scope="module")
def training():
    cubic = imd.datasets.load("oqmd_icsd").select(
        nelements=3, space_groups=[216, 221, 225], max_sites=6, split="train"
    )
    return Templates.of(cubic[:300].crystals)


@pytest.mark.parametrize("kind", ALL)
def test_n_in_n_out_and_seeded(kind, training):
    model = kind(training)
    decoded, asked = model.sample_decoded(200, seed=3)
    again, _ = model.sample_decoded(200, seed=3)
    other = model.sample(200, seed=4)
    assert len(decoded) == len(asked) == 200
    assert decoded.ok.all()
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
    sample = TrainingCopies(training).sample(50)
    assert not novel(sample, training.crystals).any()


def test_substitution_keeps_the_family(training):
    decoded, asked = Substitution(training).sample_decoded(300, seed=1)
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
    decoded, asked = RandomCubic(training).sample_decoded(2000, seed=0)
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


@pytest.mark.parametrize("kind", ALL)
def test_conditions(kind, training):
    model = kind(training)
    _, asked = model.sample_decoded(30, condition={"space_group": 221})
    assert set(asked.tolist()) == {221}
    symbols = [elements.SYMBOLS[z] for z in np.unique(training.crystals.numbers[0]) if z]
    sample = model.sample(20, condition={"elements": symbols})
    assert {frozenset(structure.symbol_set) for structure in sample.structures()} == {
        frozenset(symbols)
    }


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
