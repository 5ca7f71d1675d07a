"""Cubic ternaries as points: every crystal can be reached, near in number is near in chemistry."""

from itertools import permutations

import numpy as np
import pytest

from imd_helpers.crystals import elements
from imd_helpers.descriptors.gene_pool import GenePool
from imd_helpers.descriptors.symmetry_sites import (
    Sites,
    canonical,
    crystal_keys,
    decode_sites,
    keyed_sites,
)  # fmt: skip
from imd_helpers.models.cubicgan import training_sites
from imd_helpers.runtime import InputError
from imd_helpers.search import Oracle, Space, minimise

FOUR = Space(GenePool.dimensions)


@pytest.fixture(scope="module")
def sites():
    return training_sites()


@pytest.fixture(scope="module")
def pool(sites):
    return GenePool.from_sites(sites, min_count=5)


def predict(sites):
    """A landscape that is smooth in chemistry: mean and spread of the Mendeleev numbers."""
    place = elements.column("mendeleev_number")[sites.numbers]
    return np.stack([place.mean(1), place.std(1)], axis=1)


def oracle_of(pool, budget):
    return Oracle(
        lambda points: np.abs((predict(pool.decode(points)) - (30.0, 10.0)) / 2.0).max(1),
        keys=lambda points: crystal_keys(pool.decode(points)),
        budget=budget,
    )


def points_of(pool, kind, numbers):
    """Points that decode to these prototypes with these elements."""
    place = {int(z): i for i, z in enumerate(pool.elements)}
    out = []
    for row in numbers:
        left, point = list(range(len(pool.elements))), [(kind + 0.5) / len(pool.space_group)]
        for z in row:
            k = left.index(place[int(z)])
            point.append((k + 0.5) / len(left))
            left.pop(k)
        out.append(point)
    return np.array(out)


def test_the_pool_holds_each_prototype_once(sites, pool):
    every = GenePool.from_sites(sites)
    assert len(every.space_group) >= len(pool.space_group) > 1
    seen = set()
    for kind in range(len(every.space_group)):  # no two prototypes give the same set of crystals
        orders = np.array(list(permutations([3, 9, 22])))
        mine = set(crystal_keys(every.decode(points_of(every, kind, orders))))
        assert not mine & seen
        seen |= mine


def test_every_training_crystal_of_the_pool_is_a_point(sites):
    every = GenePool.from_sites(sites)
    reach = set()
    for kind in range(len(every.space_group)):
        for order in map(list, permutations(range(3))):
            points = points_of(every, kind, sites.numbers[:50, order])
            reach |= set(crystal_keys(every.decode(points)))
    assert set(crystal_keys(sites[:50])) <= reach


def test_all_points_are_crystals_of_three_elements(pool):
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 4)).reshape(4, -1).T
    points = np.concatenate([FOUR.random(300, np.random.default_rng(0)), corners])
    found = pool.decode(points)
    assert all(len(set(row)) == 3 for row in found.numbers.tolist())
    assert np.isin(found.numbers, pool.elements).all()
    cells = Sites(found.space_group, found.numbers, found.grid, np.full(len(found), 10.0))
    assert decode_sites(cells).ok.all()
    k, p = len(pool.elements), len(pool.space_group)
    assert pool.size == p * k * (k - 1) * (k - 2)


def test_near_in_number_is_near_in_chemistry(pool):
    points = points_of(pool, 0, np.array([[17, 3, 22]] * 200))
    moved = FOUR.moved(points, np.random.default_rng(0), size=0.03)
    place = elements.column("mendeleev_number")
    step = np.abs(place[pool.decode(moved).numbers[:, 0]] - place[17])
    assert 0 < step.max() <= 0.15 * np.ptp(place[pool.elements])


def test_a_pool_of_too_rare_prototypes_is_refused(sites):
    with pytest.raises(InputError, match="lower min_count"):
        GenePool.from_sites(sites, min_count=10_000)


def test_evolution_beats_random_at_equal_calls(pool):
    hits = {"genetic": 0, "random": 0}
    for seed in range(3):
        for method in hits:
            oracle = oracle_of(pool, 400)
            minimise(method, oracle, FOUR, seed=seed)
            assert oracle.calls == 400
            hits[method] += (oracle.history()[1] <= 1).sum()
    assert hits["genetic"] > 3 * hits["random"]


def test_evolution_ends_where_nothing_new_is_left(pool):
    tiny = GenePool(pool.space_group[:1], pool.grid[:1], np.array([3, 9, 22]))
    oracle = oracle_of(tiny, 100)
    minimise("genetic", oracle, FOUR, population=10)
    assert oracle.calls <= 6


# ---- keys


def test_keys_ignore_the_way_a_crystal_is_written(sites):
    order = np.array([2, 0, 1])
    shifted = (sites.grid[:, order] + 2) % 4  # (1/2, 1/2, 1/2) is an origin of all three groups
    other = Sites(sites.space_group, sites.numbers[:, order], shifted, sites.length * 2)
    assert crystal_keys(other) == crystal_keys(sites)
    swapped = Sites(sites.space_group, sites.numbers[:, order], sites.grid, sites.length)
    assert crystal_keys(swapped) != crystal_keys(sites)


def test_a_key_is_the_whole_crystal_but_for_its_length(sites):
    found, expected = keyed_sites(crystal_keys(sites)), canonical(sites)
    for name in ("space_group", "numbers", "grid"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert np.isnan(found.length).all()
    assert len(keyed_sites([])) == 0


def test_an_oracle_counts_different_crystals_once(sites):
    asked = []
    oracle = Oracle(lambda s: asked.append(len(s)) or predict(s), keys=crystal_keys)
    n = len(set(crystal_keys(sites)))
    first = oracle(sites)
    again = oracle(canonical(sites))
    assert oracle.calls == n == sum(asked)
    assert len(sites) > n  # the set holds repeated crystals, so the test can fail
    assert (first == predict(sites)).all()
    assert (again == first).all()
    assert (np.array(list(oracle.answers.values())) == oracle.history()[1]).all()


# ---- genes of known crystals


def test_crystals_become_genes_and_points_and_come_back():
    sites = training_sites("train")
    pool = GenePool.from_sites(sites)
    keys = crystal_keys(sites)
    assert crystal_keys(pool.sites(pool.genes(sites))) == keys
    assert crystal_keys(pool.decode(pool.encode(sites))) == keys
    drawn = pool.decode(FOUR.random(500, np.random.default_rng(0)))
    assert (pool.genes(pool.decode(pool.encode(drawn))) == pool.genes(drawn)).all()


def test_a_crystal_of_another_space_has_no_genes():
    sites = training_sites("val")
    pool = GenePool.from_sites(sites)
    other = GenePool(pool.space_group[:1], pool.grid[:1], pool.elements[:20])
    genes, points = other.genes(sites), other.encode(sites)
    gone = (genes < 0).all(1)
    assert 0 < gone.sum() < len(sites) or gone.all()
    assert np.isnan(points[gone]).all()
    assert np.isfinite(points[~gone]).all()
