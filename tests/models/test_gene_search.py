"""Crystals of a gene at random: they have the gene, and room."""

import numpy as np
import pytest
import torch

from imd_helpers.baselines.random_crystals import contacts, placed
from imd_helpers.models import gene_search, genes
from imd_helpers.runtime import InputError


@pytest.mark.parametrize(
    ("group", "orbits"),
    [
        (221, (("a", 38), ("b", 22), ("c", 8))),  # nothing free
        (123, (("a", 33), ("b", 78), ("d", 12), ("i", 78))),
        (69, (("f", 79), ("g", 11), ("g", 81), ("h", 11), ("o", 11))),
        (11, (("a", 8), ("e", 8), ("e", 56), ("e", 74), ("f", 8))),
        (148, (("a", 3), ("b", 41), ("f", 9))),
    ],
)
def test_placements_have_the_gene(group, orbits):
    gene = genes.written(group, genes.canonical(group, orbits))
    found = gene_search.placements(gene, 4)
    assert len(found) == 4
    assert (genes.genes_of(found).tensor.numpy() == gene).all()
    assert contacts(found).min() > 0.75
    again = gene_search.placements(gene, 4)
    assert torch.equal(again.lattice, found.lattice)
    volume = torch.linalg.det(found.lattice).abs()
    assert torch.allclose(volume, volume[0])


@pytest.mark.parametrize("group", [1, 4, 47, 55, 123, 166, 227])
def test_positions_have_all_letters(group):
    found = gene_search.positions(group)
    assert sorted(found) == sorted(genes.LETTERS[: len(found)])
    sizes = [found[letter].multiplicity for letter in genes.LETTERS[: len(found)]]
    assert sizes == sorted(sizes)


def test_pushing_makes_room():
    plan = [(z, gene_search.positions(62)[letter]) for letter, z in (("c", 14), ("c", 77))]
    rng = np.random.default_rng(0)
    cells = np.tile(np.diag([6.0, 4.0, 7.0]), (20, 1, 1))
    free = rng.random((20, 2, 3))
    before, _ = placed(np.full(20, 62), [plan] * 20, cells, free.reshape(-1, 3))
    wider, moved = gene_search.pushed(62, plan, cells, free)
    after, _ = placed(np.full(20, 62), [plan] * 20, wider, moved.reshape(-1, 3))
    assert np.allclose(np.linalg.det(wider), 168.0)
    assert contacts(after).min() > 0.8 > np.median(contacts(before))


def test_no_gene():
    with pytest.raises(InputError, match="space group 0"):
        gene_search.placements(np.zeros(genes.WIDTH, np.int64), 2)
