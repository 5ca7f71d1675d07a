"""Random crystals: on the grid, anywhere, and on Wyckoff positions."""

import numpy as np
import pytest

from imd_helpers.baselines import RandomCubic, RandomP1, RandomWyckoff, random_crystals
from imd_helpers.baselines.cells import atomic_volumes
from imd_helpers.baselines.random_crystals import grid_orbits
from imd_helpers.crystals import elements, geometry, symmetry
from imd_helpers.judge import geometry_valid
from imd_helpers.runtime import InputError, UnknownNameError


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


def test_random_wyckoff_follows_the_training_set(mixed, monkeypatch):
    monkeypatch.setattr(random_crystals, "TRIES", 1)  # space groups are drawn first, and kept
    decoded = RandomWyckoff(mixed).sample(2000, seed=1)
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
        model.sample(3, condition={"formula": "SrTiO3", "space_group": 230})
    with pytest.raises(InputError, match="space_group=231"):
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
    apart = closest(decoded.crystals) >= 0.65
    found = symmetry.space_group_numbers(decoded.crystals[apart], symprec=0.01)
    assert (found == 1).mean() > 0.8
    formula = RandomP1(mixed).sample(20, condition={"formula": "Fe4O6"}, seed=0).crystals
    assert set(formula.formulas()) == {"Fe2O3"}


def test_random_crystals_that_find_no_place_keep_it(mixed, monkeypatch):
    monkeypatch.setattr(random_crystals, "MIN_CONTACT", 4.0)
    monkeypatch.setattr(random_crystals, "TRIES", 2)
    decoded = RandomWyckoff(mixed).sample(7)
    asked = decoded.asked["space_group"]
    assert len(decoded) == len(asked) == 7
    assert not decoded.ok.any()
    assert set(decoded.reasons) == {"no crystal of the space group without overlap in 2 tries"}


@pytest.mark.parametrize("kind", [RandomP1, RandomWyckoff])
def test_random_crystals_errors(kind, mixed):
    model = kind(mixed)
    with pytest.raises(InputError, match="one of the two"):
        model.sample(2, condition={"formula": "NaCl", "elements": ("Na", "Cl")})
    with pytest.raises(InputError, match="at most 20 sites"):
        model.sample(2, condition={"formula": "Na30Cl17"})
    with pytest.raises(InputError, match="no composition of at most 20 sites"):
        model.sample(2, condition={"elements": [*"HBCNOFPSK"]})
    with pytest.raises(UnknownNameError, match="formula"):
        model.sample(2, condition={"formla": "NaCl"})
