"""Crystals to genes and back: one description of each, and the nearest known crystal."""

from itertools import permutations

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, compositions, symmetry
from imd_helpers.crystals.wyckoff import occupations
from imd_helpers.matching.prototypes import relabellings
from imd_helpers.matching.same import same_as_reference
from imd_helpers.models import genes
from imd_helpers.models.genes import Transfer
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def some():
    """Crystals of all sizes and systems."""
    every = imd.datasets.load("oqmd_icsd")
    rows = np.random.default_rng(0).choice(len(every), 150, replace=False)
    return every[rows], genes.recorded()[0][rows]


def gene(group, *orbits):
    return genes.written(group, genes.canonical(group, tuple(sorted(orbits))))


PEROVSKITE = gene(221, ("a", 38), ("b", 22), ("c", 8))  # SrTiO3


def test_the_recorded_genes_are_those_of_the_crystals(some):
    crystals, recorded = some
    made = genes.genes_of(crystals.crystals)
    assert (made.tensor.numpy() == recorded).all()
    assert made.ok.sum() == (recorded[:, 0] > 0).sum() > 140
    assert all("a gene has room for 20" in why for why in np.array(made.reasons)[~made.ok])


def test_any_description_gives_the_same_gene(some):
    """Shifted, turned, doubled cells, and every relabelling of the letters."""
    crystals, recorded = some
    rows = np.flatnonzero(recorded[:, 0] > 74)[:60]
    batch, rng = crystals[rows].crystals, np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shifted = CrystalBatch(
        batch.lattice[:, [1, 2, 0]] @ torch.as_tensor(turn * np.sign(np.linalg.det(turn))),
        torch.where(batch.mask[..., None], (batch.frac[..., [1, 2, 0]] + 0.3) % 1.0, 0.0),
        batch.numbers,
    )
    again = genes.genes_of(shifted).tensor.numpy()
    assert (again == recorded[rows]).mean() > 0.999  # near a tie moyopy may see another axis
    for row in recorded[rows]:
        group, orbits = genes.read(row)
        for names in relabellings()[group]:
            renamed = tuple(sorted((names[letter], z) for letter, z in orbits))
            assert (genes.written(group, genes.canonical(group, renamed)) == row).all()


def test_prototypes_are_those_of_the_occupations(some):
    """Two crystals share a prototype by their genes if they do by moyopy's own normaliser."""
    crystals, recorded = some
    rows = np.flatnonzero(recorded[:, 0] > 0)
    theirs = [each.prototype() for each in occupations(crystals[rows].crystals)]
    ours = [genes.occupation(*genes.read(row)).prototype() for row in recorded[rows]]
    same = np.array([[a == b for b in ours] for a in ours])
    also = np.array([[a == b for b in theirs] for a in theirs])
    assert same.sum() > len(rows)  # some do
    assert (same == also).all()


def test_a_known_perovskite_comes_back():
    """From a training set without it: same structure, with a volume within 10 %."""
    known, written = genes.known_genes(None)
    formulas = known.table["formula"].to_numpy()
    without = formulas != "SrTiO3"
    made = Transfer(known[without], written[without], genes.recorded()[1]).decode(PEROVSKITE[None])
    assert made.ok.all()
    assert made.formulas() == ["SrTiO3"]
    truth = known[np.flatnonzero((formulas == "SrTiO3") & (written == PEROVSKITE).all(1))[:1]]
    assert same_as_reference(made.crystals, truth.crystals).first.tolist() == [0]
    volumes = [torch.linalg.det(each.crystals.lattice).abs() for each in (made, truth)]
    assert abs(float(volumes[0] / volumes[1]) - 1) < 0.1


def test_the_template_is_the_nearest_by_all_exchanges_of_equal_places():
    """By hand: NaCl from KBr and from an alloy; either element may stand on a."""
    known = imd.datasets.load("oqmd_icsd").select(formulas=["KBr", "TiC"], space_groups=225)
    salts = known[np.unique(known.table["formula"], return_index=True)[1]]
    made = Transfer(salts, genes.genes_of(salts.crystals).tensor.numpy(), np.ones(119))
    for orbits in ((("a", 11), ("b", 17)), (("a", 17), ("b", 11))):
        row, swap = made.template(genes.written(225, orbits))
        assert salts.table["formula"][row] == "KBr"
        assert (swap[19], swap[35]) == (11, 17)
        every = made.templates(genes.written(225, orbits), most=8)
        assert [salts.table["formula"][k] for k, _ in every[:1]] == ["KBr"]
        assert len(every) == 4  # two crystals, each with either element on a


def test_genes_of_decoded_crystals_are_the_genes(some):
    _, recorded = some
    made = genes.training_transfer().decode(recorded)
    assert 0.8 < made.ok.mean() < 1
    again = genes.genes_of(made[made.ok].crystals).tensor.numpy()
    assert (again == recorded[made.ok]).all(1).mean() > 0.97  # volumes round at a tolerance
    assert (made.asked["space_group"] == recorded[:, 0]).all()
    found = symmetry.space_group_numbers(made[made.ok].crystals, symprec=0.01)
    assert (found == recorded[made.ok, 0]).mean() > 0.97


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([0, 1, 8], "space group 0: give 1 to 230"),
        ([231, 1, 8], "space group 231"),
        ([221], "letters and elements do not come in pairs"),
        ([221, 0, 0, 1, 8], "letters and elements do not come in pairs"),
        ([221, 1, 0], "letters and elements do not come in pairs"),
        ([221, 27, 8], "position A: group 221 has 14"),
        ([221, 1, 95], "atomic number 95"),
        ([221, 1, 8, 1, 16], "no known crystal occupies these positions"),
    ],
)
def test_what_is_no_gene_keeps_its_place_with_a_reason(row, why):
    both = np.zeros((2, genes.WIDTH), dtype=np.int64)
    both[0, : len(row)], both[1] = row, PEROVSKITE
    made = genes.training_transfer().decode(both)
    assert made.ok.tolist() == [False, True]
    assert why in made.reasons[0]
    with pytest.raises(InputError, match=why[:20]):
        genes.training_transfer().template(both[0])


# ---- formulas


def counts_of(*formulas):
    return compositions.amounts(list(formulas))


@pytest.fixture(scope="module")
def cubic():
    known = imd.datasets.load("oqmd_icsd", split="train").select(max_sites=5)
    return Transfer(known, np.zeros((len(known), genes.WIDTH), dtype=int), genes.recorded()[1])


def test_a_formula_takes_the_nearest_crystal_with_its_amounts(cubic):
    """Against a search through all known crystals and all orders of equal amounts."""
    wanted = counts_of("SrTiO3", "CaZrO3", "NaCl", "KBaBi", "LiCu2Ge")
    made = cubic.decode_formulas(2 * wanted)  # a formula is its reduced amounts
    assert made.ok.all()
    assert (compositions.reduced(made.crystals.counts().numpy()) == wanted).all()
    known, scale = compositions.reduced(cubic.known.crystals.counts().numpy()), genes.mendeleev()
    for formula in wanted:
        ((row, swap),) = cubic.templates_of_formula(formula, most=1)
        there = np.flatnonzero(known[row])
        mine = (known[row][there] * abs(scale[there] - scale[swap[there]])).sum()
        assert mine == pytest.approx(
            min(
                sum(k[a] * abs(scale[a] - scale[b]) for a, b in zip(old, new, strict=True))
                for k in known
                if sorted(k[k > 0]) == sorted(formula[formula > 0])
                for old in [np.flatnonzero(k).tolist()]
                for new in permutations(np.flatnonzero(formula).tolist())
                if all(k[a] == formula[b] for a, b in zip(old, new, strict=True))
            )
        )


def test_a_known_formula_comes_back_as_its_crystal(cubic):
    rows = np.arange(0, len(cubic.known), 200)
    known = cubic.known[rows].crystals
    made = cubic.decode_formulas(known.counts().numpy())
    assert made.crystals.formulas() == known.formulas()
    same = [any(same_as_reference(made.crystals[[i]], cubic.known.crystals).first >= 0)
            for i in range(3)]  # fmt: skip
    assert all(same)


def test_a_formula_without_template_keeps_its_place_with_a_reason(cubic):
    made = cubic.decode_formulas(
        np.concatenate([counts_of("NaCl", "Na7Cl5"), np.zeros((1, 119), dtype=int)])
    )
    assert made.ok.tolist() == [True, False, False]
    assert made.reasons[1] == genes.UNMATCHED
    assert "no atom" in made.reasons[2]
