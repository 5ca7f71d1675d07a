"""What all baselines do, and those that copy or swap in a column of the periodic table."""

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.baselines import (
    IonExchange,
    PrototypeEnumeration,
    RandomCubic,
    RandomP1,
    RandomWyckoff,
    Substitution,
    Templates,
    TrainingCopies,
)
from imd_helpers.crystals import elements
from imd_helpers.judge import novel
from imd_helpers.runtime import InputError, UnknownNameError

KNOWN = (TrainingCopies, Substitution, RandomCubic, IonExchange, PrototypeEnumeration)
ALL = (*KNOWN, RandomP1, RandomWyckoff)


@pytest.fixture(scope="module")
def models(training):
    return {kind: kind(training) for kind in ALL}


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


def test_errors_teach(training):
    with pytest.raises(InputError, match="at least 1"):
        TrainingCopies(training).sample(0)
    with pytest.raises(UnknownNameError, match="space_group"):
        RandomCubic(training).sample(2, condition={"spacegroup": 225})
    with pytest.raises(UnknownNameError, match="Xx"):
        RandomCubic(training).sample(2, condition={"elements": ("Xx", "O", "Na")})
    with pytest.raises(InputError, match="known crystals satisfies"):
        Substitution(training).sample(2, condition={"space_group": 1})
    with pytest.raises(InputError, match="three different"):
        RandomCubic(training).sample(2, condition={"elements": ("Na", "Cl")})
    broken = training.crystals[[0, 1]]
    broken.lattice[:] = 0
    with pytest.raises(InputError, match="no space group found in 2"):
        Templates.of(broken)
