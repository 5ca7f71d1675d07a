"""Crystals as points, searched with a cheap potential, beside ASE's operators on the same one."""

from contextlib import suppress

import numpy as np
import pytest

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.rules import geometry_valid
from imd_helpers.energies import potentials
from imd_helpers.matching.same import same_as_reference, structure_distance
from imd_helpers.runtime import InputError, UnknownNameError
from imd_helpers.search.oracle import BudgetError
from imd_helpers.search.structures import Energy, Structures, predict


class Ions(potentials.Potential):
    """Hard spheres that attract the other element: pair energies of one radius, no weights.

    ``(s/d)^12 - 2 (s/d)^6`` between unlike atoms, ``(s/d)^12`` between like ones, cut at 8 Å.
    """

    name, label, package, extra, scale = "ions", "ions", "numpy", "judge", "made up"
    size = 2.1

    def _run(self, crystals, forces):
        out = []
        for lattice, frac, numbers in crystals.each():
            grid = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3)
            step = frac[None, :] - frac[:, None]  # (sites, sites, 3)
            away = (step[:, :, None] + grid) @ lattice  # (sites, sites, images, 3)
            d = np.linalg.norm(away, axis=-1)
            near = (d > 1e-6) & (d < 8)
            x = np.where(near, self.size / np.maximum(d, 1e-6), 0.0) ** 6
            unlike = (numbers[:, None] != numbers[None, :])[:, :, None]
            n = len(numbers)
            energy = (x**2 - 2 * x * unlike).sum() / 2 / n
            slope = (-12 * x**2 + 12 * x * unlike) / np.maximum(d, 1e-6) ** 2  # dE/dd / d
            pull = slope[..., None] * away
            force = pull.sum((1, 2))
            strain = np.einsum("ijka,ijkb->ab", away, pull) / 2
            out.append((energy, force, strain / abs(np.linalg.det(lattice))))
        return out if forces else [(each[0],) for each in out]


@pytest.fixture
def ions(monkeypatch):
    model = Ions()
    monkeypatch.setattr(potentials, "potential", lambda name: model)
    return model


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_cheap_potential_is_the_derivative_of_its_energy():
    space, model, h = Structures("MgO", units=2), Ions(), 1e-5
    crystal = space.decode(space.random(1, rng(3)))
    found = model.evaluate(crystal)
    energies = []
    for shift in (h, -h):
        frac = crystal.frac.clone()
        cart = frac @ crystal.lattice
        cart[0, 1, 0] += shift
        moved = CrystalBatch(crystal.lattice, cart @ crystal.lattice.inverse(), crystal.numbers)
        energies.append(model.energies(moved)[0] * 4)
    slope = (energies[0] - energies[1]) / (2 * h)
    assert found.forces[0, 1, 0] == pytest.approx(-slope, rel=1e-4)


def test_points_are_crystals_and_back():
    space = Structures("SrTiO3", units=2)
    assert space.dimensions == 6 + 3 * 9
    points = space.random(30, rng())
    crystals = space.decode(points)
    assert geometry_valid(crystals).all()
    assert set(crystals.formulas()) == {"SrTiO3"}
    again = space.encode(crystals)
    whole = np.isfinite(again).all(1)
    assert whole.mean() > 0.9
    distance, _ = structure_distance(space.decode(again[whole]), crystals[whole])
    assert distance.max() < 1e-9
    volume = np.abs(np.linalg.det(crystals.lattice.numpy()))
    assert volume.max() > 1.5 * volume.min()


def test_a_known_crystal_is_a_point():
    known = datasets.load("oqmd_icsd").select(formulas=["SrTiO3"], space_groups=[221]).crystals
    space = Structures("SrTiO3")
    order = known.numbers[0].argsort(stable=True)
    assert (known.numbers[0, order].numpy() == np.sort(space.numbers)).all()
    sorted_ = CrystalBatch(known.lattice, known.frac[:, order], known.numbers[:, order])
    back = space.decode(space.encode(sorted_))
    assert structure_distance(back, known)[0][0] < 1e-9


def test_a_cell_too_long_for_a_point_has_none():
    space = Structures("MgO")
    crystal = space.decode(np.full((1, space.dimensions), 0.5))
    lattice = crystal.lattice.clone()
    lattice[:, 2] *= 10
    assert np.isnan(space.encode(CrystalBatch(lattice, crystal.frac, crystal.numbers))).any()


@pytest.mark.parametrize("formula", ["MgO", "SrTiO3", "C"])
def test_moves_and_children_keep_the_formula_and_the_distances(formula):
    space = Structures(formula, units=2)
    mothers, fathers = space.random(20, rng(1)), space.random(20, rng(2))
    for points in (space.moved(mothers, rng(), size=0.1), space.crossed(mothers, fathers, rng())):
        assert points.shape == mothers.shape
        assert ((points >= 0) & (points <= 1)).all()
        assert geometry_valid(space.decode(points)).mean() > 0.9
        assert np.abs(points - mothers).max(1).min() > 0  # every one has changed
    near = space.moved(mothers, rng(), size=1e-4)
    assert structure_distance(space.decode(near), space.decode(mothers))[0].min() < 0.05


def test_a_child_has_atoms_of_both_parents():
    space = Structures("MgO", units=4)
    mothers, fathers = space.random(1, rng(1)), space.random(1, rng(2))
    child = space.spliced(mothers[0], fathers[0], rng(5))
    places = [space._places(each) for each in (child, mothers[0], fathers[0])]

    def vectors(frac):  # between all pairs of atoms: they do not depend on the origin
        step = (frac[None] - frac[:, None]) % 1.0
        return {tuple(v) for v in np.round(step.reshape(-1, 3), 6) % 1.0 if v.any()}

    mine, mother, father = (vectors(each) for each in places)
    assert mine & mother
    assert mine & father
    assert not mother & father


def test_features_do_not_depend_on_the_cell_and_know_the_elements():
    space = Structures("MgO", units=2)
    points = space.random(5, rng())
    again = space.encode(space.decode(points))
    good = np.isfinite(again).all(1)
    assert np.allclose(space.features(again[good]), space.features(points[good]), atol=1e-6)
    swapped = np.array([space.exchanged(point, rng(4)) for point in points])
    assert np.abs(space.features(swapped) - space.features(points)).max() > 1e-3


def test_too_many_atoms_and_no_formula_are_refused():
    with pytest.raises(InputError, match="are 50 atoms: at most 40"):
        Structures("SrTiO3", units=10)
    with pytest.raises(InputError):
        Structures("")
    with pytest.raises(InputError, match="one relaxation may take steps=60"):
        predict("MgO", calls=50)
    with pytest.raises(UnknownNameError, match="genetic"):
        predict("MgO", "genetics", calls=100)


def test_relaxations_count_by_their_evaluations(ions):
    space = Structures("MgO")
    oracle = Energy(space, "ions", steps=25).oracle(100)
    with suppress(BudgetError):
        while True:
            oracle(space.random(2, rng(int(oracle.spent))))
    spent, answers = oracle.history()
    assert oracle.spent <= 100
    assert oracle.spent > 100 - 25
    assert np.array_equal(np.cumsum(answers[:, 1]), spent)
    raw = Energy(space, "ions", steps=0)
    assert np.nanmax(answers[:, 0] - raw(np.concatenate(oracle.asked))[:, 0]) <= 0


@pytest.mark.parametrize("method", ["random", "hopping", "genetic", "swarm", "bayesian"])
def test_a_search_finds_the_lowest_packing_of_ions(ions, method):
    found, energy, calls, _ = predict("MgO", method, calls=1000, seed=1, steps=40)
    assert (np.diff(energy) >= 0).all()
    chloride = CrystalBatch.from_ragged(
        2.4 * np.eye(3)[None], [[0, 0, 0], [0.5, 0.5, 0.5]], [12, 8], [2]
    )
    assert same_as_reference(found[0], chloride).first[0] == 0
    assert np.flatnonzero(same_as_reference(found, found[0]).first == 0).tolist() == [0]
    assert calls[0] <= 1000


# ---- beside ASE


def by_ase(space, energy, *, calls, seed):
    """ASE's cut-and-splice, strain and permutation in the loop of `optimisers.genetic`."""
    from ase import Atoms
    from ase_ga.cutandsplicepairing import CutAndSplicePairing
    from ase_ga.standardmutations import PermutationMutation, StrainMutation
    from ase_ga.utilities import CellBounds, closest_distances_generator

    generator, old = np.random.default_rng(seed), np.random.RandomState(seed)
    blank = Atoms("", pbc=True)
    far = closest_distances_generator(space.numbers, 0.4)
    bounds = CellBounds({"phi": [30, 150], "chi": [30, 150], "psi": [30, 150]})
    n = len(space.numbers)
    pair = CutAndSplicePairing(blank, n, far, number_of_variable_cell_vectors=3,
                               cellbounds=bounds, rng=old)  # fmt: skip
    strain = StrainMutation(far, number_of_variable_cell_vectors=3, cellbounds=bounds,
                            rng=old)  # fmt: skip
    swap = PermutationMutation(n, rng=old)
    oracle = energy.oracle(calls)

    def atoms_of(point, value):
        ((lattice, frac, numbers),) = space.decode(point[None]).each()
        made = Atoms(numbers, scaled_positions=frac, cell=lattice, pbc=True)
        made.info.update(confid=int(generator.integers(10**9)), key_value_pairs={}, data={})
        made.info["value"] = value
        return made

    def relaxed(points):
        found = oracle(points)
        good = np.isfinite(found[:, 0])
        return [atoms_of(row[2:], row[0]) for row in found[good]]

    with suppress(BudgetError):
        pool = relaxed(space.random(5, generator))
        while True:
            order = np.argsort([each.info["value"] for each in pool])
            rank = [int(generator.integers(len(pool)) ** 2 / len(pool)) for _ in range(2)]
            parents = [pool[order[k]] for k in rank]
            child = None
            if rank[0] != rank[1]:
                child, _ = pair.get_new_individual(parents)
            child = parents[0].copy() if child is None else child
            child.info |= {"confid": 0, "data": {}, "key_value_pairs": {}}
            if generator.random() < 0.5:
                mutation = (strain, swap)[int(generator.integers(2))]
                changed, _ = mutation.get_new_individual([child])
                child = child if changed is None else changed
            child = child[np.argsort(child.numbers, kind="stable")]
            crystal = CrystalBatch.from_ragged(
                child.cell.array[None], child.get_scaled_positions(), child.numbers, [n]
            )
            point = space.encode(crystal)
            pool += relaxed(point if np.isfinite(point).all() else space.random(1, generator))
            pool = sorted(pool, key=lambda each: each.info["value"])[:5]
    return float(np.nanmin(oracle.history()[1][:, 0]))


def test_as_good_as_the_operators_of_ase(ions):
    """Medians of seven seeds, in units of what random search leaves."""
    from imd_helpers.search import minimise

    space = Structures("MgO", units=2)
    energy = Energy(space, "ions", steps=15)
    mine, random, theirs = [], [], []
    for seed in range(7):
        for method, found in (("genetic", mine), ("random", random)):
            settings = {"population": 5, "alike": 0.002} if method == "genetic" else {}
            found.append(minimise(method, energy.oracle(450), space, seed=seed, **settings)[1])
        theirs.append(by_ase(space, energy, calls=450, seed=seed))
    lowest = min(*mine, *random, *theirs)
    gap = [float(np.median(each)) - lowest for each in (mine, random, theirs)]
    assert gap[0] <= max(2 * gap[2], 0.02), gap
    assert gap[0] < gap[1], gap
