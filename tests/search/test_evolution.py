import numpy as np
import pytest

from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.models.cubicgan import training_sites
from imd_helpers.runtime import InputError
from imd_helpers.search import CountedOracle, GenePool, Target, evolve
from imd_helpers.search.evolution import (
    crossover,
    mutate,
    next_generation,
    tournament,
    tournament_probability,
)
from imd_helpers.search.oracle import crystal_keys
from imd_helpers.search.screening import with_length


@pytest.fixture(scope="module")
def sites():
    return training_sites()


@pytest.fixture(scope="module")
def pool(sites):
    return GenePool.from_sites(sites, min_count=5)


def predict(sites):
    """A smooth landscape with one best crystal system: light elements, small spread."""
    return np.stack([sites.numbers.mean(1), sites.numbers.std(1)], axis=1)


def test_the_pool_holds_each_prototype_once(sites, pool):
    every = GenePool.from_sites(sites)
    assert len(every.space_group) >= len(pool.space_group) > 1
    written = [(int(g), grid.tobytes()) for g, grid in zip(every.space_group, every.grid)]
    assert len(set(written)) == len(written)
    for i in range(len(every.space_group)):  # no two prototypes give the same set of crystals
        genes = np.array([[i, *np.roll([3, 9, 22], k)] for k in range(3)])
        genes = np.concatenate([genes, genes[:, [0, 1, 3, 2]]])
        mine = set(crystal_keys(every.sites(genes)))
        for j in range(i):
            genes[:, 0] = j
            assert not mine & set(crystal_keys(every.sites(genes)))


def test_every_training_crystal_of_the_pool_is_a_genome(sites):
    every = GenePool.from_sites(sites)
    reach = set()
    for p in range(len(every.space_group)):
        for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
            numbers = sites.numbers[:50, order]
            genes = np.concatenate([np.full((50, 1), p), numbers], axis=1)
            reach |= set(crystal_keys(every.sites(genes)))
    assert set(crystal_keys(sites[:50])) <= reach


def test_random_genomes_decode(pool):
    genes = pool.random(300, np.random.default_rng(0))
    assert decode_sites(with_length(pool.sites(genes))).ok.all()
    k, p = len(pool.elements), len(pool.space_group)
    assert pool.size == p * k * (k - 1) * (k - 2)


def test_a_pool_of_too_rare_prototypes_is_refused(sites):
    with pytest.raises(InputError, match="lower min_count"):
        GenePool.from_sites(sites, min_count=10_000)


def test_neighbours_stay_in_the_pool_and_close(pool):
    numbers = np.tile(pool.elements[:, None], (1, 3))
    near = pool.neighbours(numbers, np.random.default_rng(0))
    assert np.isin(near, pool.elements).all()
    halogen = np.full((200, 3), 17)
    around = set(pool.neighbours(halogen, np.random.default_rng(1)).ravel().tolist())
    assert around & {9, 35, 53}
    assert len(around) <= 7


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_tournament_probability_equals_a_count(size):
    n, rounds = 12, 40_000
    fitness = np.random.default_rng(5).permutation(n).astype(float)
    winners = tournament(fitness, rounds, np.random.default_rng(6), size=size)
    rank = np.argsort(np.argsort(-fitness))
    counted = np.bincount(rank[winners], minlength=n) / rounds
    expected = tournament_probability(n, size)
    assert expected.sum() == pytest.approx(1.0)
    assert np.abs(counted - expected).max() < 0.01


def test_crossover_takes_genes_from_parents():
    mothers, fathers = np.zeros((200, 4), int), np.ones((200, 4), int)
    children = crossover(mothers, fathers, np.random.default_rng(0))
    assert set(np.unique(children)) == {0, 1}
    assert 0.4 < children.mean() < 0.6


def test_mutation_rate_and_repair(pool):
    genes = pool.random(500, np.random.default_rng(0))
    assert (mutate(genes, pool, np.random.default_rng(1), rate=0.0) == genes).all()
    changed = mutate(genes, pool, np.random.default_rng(1), rate=0.5)
    assert 0.3 < (changed != genes).mean() < 0.6
    assert all(len(set(row)) == 3 for row in changed[:, 1:].tolist())


def test_the_elite_survives(pool):
    genes = pool.random(20, np.random.default_rng(0))
    fitness = np.arange(20.0)
    after = next_generation(genes, fitness, pool, np.random.default_rng(0), elite=3)
    assert len(after) == 20
    assert (after[:3] == genes[[19, 18, 17]]).all()


def test_evolution_beats_random_at_equal_calls(pool):
    target = Target(length=20.0, energy=3.0, length_window=1.0, energy_window=1.0)
    best, random = [], []
    for seed in range(3):
        oracle = CountedOracle(predict)
        history = evolve(oracle, pool, target, budget=400, population=40, seed=seed)
        assert 300 < oracle.calls <= 400
        assert (np.diff(history) >= 0).all()  # the elite is never lost
        answers = oracle.log()[1]
        assert history[-1] == -target.distance(answers).min()
        best.append(target.hit(answers).sum())
        guesses = pool.sites(pool.random(400, np.random.default_rng(seed)))
        random.append(target.hit(predict(guesses)).sum())
    assert sum(best) > 3 * sum(random)


def test_evolution_is_reproducible(pool):
    runs = [CountedOracle(predict) for _ in range(2)]
    for run in runs:
        evolve(run, pool, Target(length=20.0, energy=3.0), budget=100, population=20, seed=4)
    assert list(runs[0].answers) == list(runs[1].answers)


def test_evolution_ends_where_nothing_new_is_left(sites):
    few = GenePool.from_sites(sites, min_count=5)
    tiny = GenePool(few.space_group[:1], few.grid[:1], np.array([3, 9, 22]))
    oracle = CountedOracle(predict)
    evolve(oracle, tiny, Target(length=20.0, energy=3.0), budget=100, population=10)
    assert oracle.calls <= 6


def test_evolution_refuses_a_budget_below_the_population(pool):
    with pytest.raises(InputError, match="population <= budget"):
        evolve(CountedOracle(predict), pool, Target(length=6, energy=0), budget=10, population=20)
    with pytest.raises(InputError, match=r"budget=30\.5: must be int"):
        evolve(CountedOracle(predict), pool, Target(length=6, energy=0), budget=30.5, population=20)
