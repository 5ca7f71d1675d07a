"""Crystal graphs: pymatgen's neighbours, what they must not depend on, and bad input."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.crystal_graph import REASONS, crystal_graph, gaussians
from imd_helpers.runtime import InputError


def crystal(lattice, frac, numbers):
    return CrystalBatch.from_ragged(
        np.array(lattice, dtype=float)[None], np.array(frac), numbers, [len(numbers)]
    )


@pytest.fixture(scope="module")
def real():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=20)
    return data[np.random.default_rng(0).permutation(len(data))[:1000]].crystals


def edges_of(graph):
    """Rows (centre, neighbour, image) as a sorted array, and their distances in that order."""
    rows = torch.cat([graph.edge_index.T, graph.image], 1).numpy()
    order = np.lexsort(rows.T)
    return rows[order], graph.distance.numpy()[order]


@pytest.mark.parametrize("cutoff", [3.0, 5.5])
def test_all_neighbours_equal_those_of_pymatgen(real, cutoff):
    some = real[:60]
    graph = crystal_graph(some, cutoff=cutoff, neighbours=None)
    for i, structure in enumerate(some.structures()):
        centre, neighbour, image, distance = structure.get_neighbor_list(cutoff)
        mine = graph[i]
        if len(set(centre.tolist())) < len(structure):
            assert mine.reasons == (REASONS[2],)
            assert len(mine.distance) == 0
            continue
        theirs = np.column_stack([centre, neighbour, np.rint(image)]).astype(int)
        order = np.lexsort(theirs.T)
        rows, distances = edges_of(mine)
        assert np.array_equal(rows, theirs[order])
        assert np.allclose(distances, distance[order], atol=1e-5)


def test_thousands_of_neighbours():
    cube = crystal(2.5 * np.eye(3), [[0, 0, 0]], [84])
    graph = crystal_graph(cube, cutoff=22.51, neighbours=None)
    shifts = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3), -1).reshape(-1, 3)
    squares = (shifts**2).sum(1)
    assert len(graph.distance) == (squares <= 81).sum() - 1 > 3000
    assert np.allclose(graph.distance, 2.5 * np.sqrt(np.sort(squares)[1 : 1 + len(graph.distance)]))


def test_nearest_neighbours_equal_those_of_pymatgen(real):
    graph = crystal_graph(real[:60], tie=0.0)
    for i, structure in enumerate(real[:60].structures()):
        mine = graph[i]
        for site, around in enumerate(structure.get_all_neighbors(8.0)):
            expected = sorted(n.nn_distance for n in around)[:12]
            found = mine.distance[mine.edge_index[0] == site].numpy()
            assert np.allclose(found, expected, atol=1e-5)
            assert (np.diff(found) >= 0).all()


def test_images_and_indices_give_the_distances(real):
    graph = crystal_graph(real)
    centre, neighbour = graph.edge_index
    frac = real.frac[real.mask]
    step = frac[neighbour] + graph.image - frac[centre]
    vector = torch.einsum("ek,ekx->ex", step, real.lattice[graph.site_crystal[centre]])
    assert torch.allclose(vector.norm(dim=1).float(), graph.distance, atol=1e-5)
    assert torch.equal(graph.site_crystal[centre], graph.site_crystal[neighbour])
    assert torch.equal(graph.numbers, real.numbers[real.mask])
    assert graph.ok.all()


def test_a_shell_is_kept_whole():
    # caesium chloride: 8 at 0.87 a, 6 at a, 12 at 1.41 a; copper: 12 and then 6
    salt = crystal(4.12 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    found = [len(crystal_graph(salt, neighbours=k).distance) / 2 for k in (1, 8, 9, 12, 14, 15)]
    assert found == [8, 8, 14, 14, 14, 26]
    assert len(crystal_graph(salt, neighbours=12, tie=0.0).distance) == 24
    copper = crystal(1.8 * (1 - np.eye(3)), [[0, 0, 0]], [29])
    graph = crystal_graph(copper)
    assert graph.edge_index.abs().max() == 0  # a site and twelve images of itself
    assert len(graph.distance) == 12 == len(torch.unique(graph.image, dim=0))


def environments(graph):
    """For each site its element and its edges as sorted rows (element, distance): a multiset."""
    rows = []
    for site in range(len(graph.numbers)):
        mine = graph.edge_index[0] == site
        elements = graph.numbers[graph.edge_index[1, mine]].double()
        edges = torch.stack([elements, graph.distance[mine].double().round(decimals=3)], 1)
        order = np.lexsort(edges.numpy().T)
        rows.append((int(graph.numbers[site]), edges.numpy()[order]))
    return rows


def same_environments(one, other, times=1):
    """Are the sites of both the same, one of them repeated so many times?"""
    left = environments(one) * times
    for number, edges in environments(other):
        match = next(
            i
            for i, (z, e) in enumerate(left)
            if z == number and e.shape == edges.shape and np.abs(e - edges).max() < 2e-3
        )
        del left[match]
    return not left


@st.composite
def changed(draw):
    """A crystal with whole shells far apart, and a random change that leaves it the same."""
    index = draw(st.integers(0, 199))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return index, rng, draw(st.sampled_from(["rotate", "shift", "permute", "cell", "super"]))


@settings(max_examples=60, deadline=None)
@given(changed())
def test_only_the_arrangement_counts(small, change):
    index, rng, kind = change
    one = small[index % len(small)]
    lattice, frac = one.lattice[0].numpy(), one.frac[one.mask].numpy()
    numbers = one.numbers[one.mask].numpy()
    times = 1
    if kind == "rotate":
        lattice = lattice @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    elif kind == "shift":
        frac = frac + rng.random(3)
    elif kind == "permute":
        order = rng.permutation(len(numbers))
        frac, numbers = frac[order], numbers[order]
    elif kind == "cell":
        step = np.eye(3)
        for _ in range(3):
            i, j = rng.permutation(3)[:2]
            step[i] += rng.integers(-2, 3) * step[j]
        lattice, frac = step @ lattice, frac @ np.linalg.inv(step)
    else:
        axis, times = rng.integers(3), 2
        scale = np.ones(3)
        scale[axis] = 2
        lattice = np.diag(scale) @ lattice
        frac = np.concatenate([frac, frac + np.eye(3)[axis]]) / scale
        numbers = np.tile(numbers, 2)
    other = crystal(lattice, frac, numbers)
    # a tie between the distances of two shells could fall on either side of the limit by rounding
    assert same_environments(crystal_graph(one), crystal_graph(other), times)


@pytest.fixture(scope="module")
def small(real):
    """Crystals whose 12th neighbour is clearly nearer, or as near, as the next ones."""
    some = real[(real.n_sites <= 12).numpy()][:200]
    steps = [crystal_graph(some, tie=tie) for tie in (0.003, 0.01, 0.03)]
    counts = [torch.bincount(g.site_crystal[g.edge_index[0]], minlength=len(g)) for g in steps]
    clear = (counts[0] == counts[2]) & (counts[1] == counts[2])
    assert clear.float().mean() > 0.6
    return some[clear.numpy()]


def test_published_ties_depend_on_the_order_of_sites():
    """With exactly 12 neighbours a site of CsCl keeps four of six ties: here a choice of images."""
    salt = crystal(4.12 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    flipped = crystal(4.12 * np.eye(3)[[2, 0, 1]], [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    cut = [crystal_graph(c, tie=0.0) for c in (salt, flipped)]
    vectors = []
    for graph, cell in zip(cut, (salt, flipped), strict=True):
        frac = cell.frac[0]
        step = frac[graph.edge_index[1]] + graph.image - frac[graph.edge_index[0]]
        mine = (step @ cell.lattice[0])[graph.edge_index[0] == 0].round(decimals=3)
        vectors.append({tuple(v) for v in mine.tolist()})
    assert len(vectors[0]) == 12 == len(vectors[1])
    assert vectors[0] != vectors[1]


def test_picking_crystals(real):
    graph = crystal_graph(real[:30])
    again = crystal_graph(real[[7, 3, 3, 29]])
    picked = graph[[7, 3, 3, 29]]
    for name in ("edge_index", "image", "distance", "site_crystal", "numbers"):
        assert torch.equal(getattr(picked, name), getattr(again, name)), name
    assert len(graph[graph.ok]) == 30
    assert len(graph[5:9]) == 4
    assert torch.equal(torch.bincount(graph[5:9].site_crystal), real[5:9].n_sites)
    assert "30 crystals" in repr(graph)


def test_features(real):
    graph = crystal_graph(real[:20])
    assert graph.edge_features().shape == (len(graph.distance), 41)
    assert graph.edge_features(stop=4.0, step=0.5).shape == (len(graph.distance), 9)
    features = graph.site_features()
    assert features.shape == (len(graph.numbers), 23)
    assert features.min() >= 0 <= features.max() <= 1
    at = gaussians(torch.tensor([1.0]), stop=2.0, step=0.5)
    assert torch.allclose(at, torch.exp(-(torch.tensor([[2.0, 1, 0, 1, 2]]) ** 2)))


def test_crystals_that_fail_keep_their_place():
    good = crystal(4 * np.eye(3), [[0, 0, 0]], [26])
    lonely = crystal(20 * np.eye(3), [[0, 0, 0]], [2])
    overlap = crystal(4 * np.eye(3), [[0, 0, 0], [1 - 1e-5, 0, 0]], [3, 9])
    flat = CrystalBatch(torch.zeros(1, 3, 3).double(), good.frac, good.numbers)
    broken = CrystalBatch(good.lattice * torch.nan, good.frac, good.numbers)
    graph = crystal_graph(CrystalBatch.cat([good, lonely, overlap, flat, broken, good]))
    assert graph.ok.tolist() == [True, False, False, False, False, True]
    assert [REASONS.index(r) for r in graph.reasons] == [0, 2, 3, 1, 1, 0]
    assert torch.equal(graph[0].distance, graph[5].distance)
    assert len(graph[1:5].distance) == 0
    with pytest.raises(InputError, match=r"crystal 1: a site has no neighbour within the cutoff"):
        graph.checked()
    assert graph[graph.ok].checked().ok.all()
    needle = crystal(np.diag([1e-5, 1.0, 1.0]), [[0, 0, 0]], [1])
    assert crystal_graph(needle, neighbours=None).reasons[0] in REASONS[3:]


def test_a_long_empty_cell_finds_neighbours_beyond_the_first_sphere():
    layer = crystal(np.diag([2.5, 2.5, 60]), [[0, 0, 0]], [6])
    graph = crystal_graph(layer)
    assert len(graph.distance) == 12
    assert torch.allclose(graph.distance[-1], torch.tensor(5.0))
    few = crystal_graph(layer, cutoff=3.0)
    assert len(few.distance) == 4


def test_speed(real):
    """A compiled loop, hundreds of times faster than pymatgen's objects; a wide margin is asked."""
    crystal_graph(real[:5])
    structures = real[:20].structures()
    start = time.process_time()
    for structure in structures:
        structure.get_all_neighbors(8.0)
    theirs = (time.process_time() - start) / len(structures)
    start = time.process_time()
    crystal_graph(real)
    mine = (time.process_time() - start) / len(real)
    assert mine < theirs / 10
