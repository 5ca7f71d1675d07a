"""Kinds of novelty: planted cases of each kind, pymatgen's anonymous matches, and prototypes."""

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.matching import novelty
from imd_helpers.matching import prototypes as naming
from imd_helpers.matching.cells import NONE, MatchSettings
from imd_helpers.matching.novelty import KINDS, novelty_kinds
from imd_helpers.matching.prototypes import prototypes

UNUSED = (86, 84, 85, 87, 88, 89)  # elements that the reference does not hold


def crystal(lattice, frac, numbers):
    return CrystalBatch.from_ragged(
        np.array(lattice, dtype=float)[None], np.array(frac, dtype=float), numbers, [len(numbers)]
    )


def parts(batch):
    n = int(batch.n_sites[0])
    return batch.lattice[0].numpy(), batch.frac[0, :n].numpy(), batch.numbers[0, :n].numpy()


def orbits(group, lattice, sites):
    """A crystal from one site of each orbit: (atomic number, position)."""
    numbers = np.array([[z for z, _ in sites]])
    frac = np.array([[x for _, x in sites]], dtype=float)
    batch, _ = symmetry.expand(np.array([group]), np.array(lattice)[None], frac, numbers)
    return batch


def renamed(batch, names):
    return CrystalBatch(
        batch.lattice,
        batch.frac,
        torch.tensor([[names.get(z, z) for z in batch.numbers[0].tolist()]]),
    )


def rotation(rng):
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


PYRITE = orbits(205, 5.4 * np.eye(3), [(26, [0, 0, 0]), (16, [0.385, 0.385, 0.385])])
DRY_ICE = orbits(205, 5.6 * np.eye(3), [(86, [0, 0, 0]), (85, [0.118, 0.118, 0.118])])
ANTIPEROVSKITE = orbits(
    221, 4.9 * np.eye(3), [(81, [0, 0, 0]), (62, [0.5, 0.5, 0]), (6, [0.5, 0.5, 0.5])]
)  # Sm3TlC


@pytest.fixture(scope="module")
def reference():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12)
    used = data.crystals.numbers.numpy()
    rows = np.flatnonzero(~np.isin(used, [*UNUSED, 62]).any(1))
    some = data[rows].crystals[np.random.default_rng(0).permutation(len(rows))[:300]]
    return CrystalBatch.cat([some, PYRITE, ANTIPEROVSKITE])


def kind_of(batch, reference):
    found = novelty_kinds(batch, reference)
    return found.kind[0], int(found.reference[0]), found.details[0]


# ---- planted cases


def test_copies_in_disguise(reference):
    rng = np.random.default_rng(1)
    copies = []
    for one in reference:
        lattice, frac, numbers = parts(one)
        order = rng.permutation(len(numbers))
        frac = frac + rng.random(3) + rng.normal(0, 0.01, frac.shape) @ np.linalg.inv(lattice)
        copies.append(crystal(1.005 * lattice @ rotation(rng), frac[order], numbers[order]))
    found = novelty_kinds(CrystalBatch.cat(copies), reference)
    assert (found.kind == "copy").all()
    assert (found.reference == np.arange(len(reference))).mean() > 0.97  # the others have twins
    assert "volume +1.5%" in found.details[0]


def test_strained_copies(reference):
    strained = []
    for factor in (0.9, 1.1):  # larger or smaller, and sheared at the same volume
        strained += [factor * one.lattice[0].numpy() for one in reference[:40]]
    shear = np.array([[1.0, 0.06, 0], [0, 1, 0.06], [0, 0, 1]])
    strained += [one.lattice[0].numpy() @ shear for one in reference[:40]]
    rows = np.tile(np.arange(40), 3)
    batch = CrystalBatch(
        torch.as_tensor(np.array(strained)), reference.frac[rows], reference.numbers[rows]
    )
    found = novelty_kinds(batch, reference)
    assert (found.kind[:80] == "strained copy").all()
    assert np.isin(found.kind, ["strained copy", "copy"]).mean() > 0.95
    assert (found.reference[:80] == rows[:80]).mean() > 0.9


def test_the_nearest_match_decides():
    data = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=[225])
    salt = data.crystals[:1]
    known = CrystalBatch.cat(
        [CrystalBatch(f * salt.lattice, salt.frac, salt.numbers) for f in (0.9, 1.001, 1.1)]
    )
    assert kind_of(salt, known)[:2] == ("copy", 1)
    assert kind_of(salt, known[[0, 2]])[0] == "strained copy"


def test_thresholds_of_copies(monkeypatch):
    data = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=[225])
    salt = data.crystals[:1]
    for change, expected in ((0.049, "copy"), (0.051, "strained copy")):
        grown = CrystalBatch((1 + change) ** (1 / 3) * salt.lattice, salt.frac, salt.numbers)
        assert kind_of(grown, salt)[0] == expected
        for volume, distance, other in ((0.1, 0.2, "copy"), (0.05, 1e-6, "strained copy")):
            with monkeypatch.context() as changed:
                changed.setattr(novelty, "VOLUME", volume)
                changed.setattr(novelty, "DISTANCE", distance)
                assert kind_of(grown, salt)[0] == other


def test_substitutions(reference):
    rng = np.random.default_rng(3)
    batch = []
    for one in reference:
        present = np.unique(parts(one)[2])
        names = dict(zip(present.tolist(), rng.permutation(UNUSED)[: len(present)], strict=True))
        batch.append(renamed(one, names))
    found = novelty_kinds(CrystalBatch.cat(batch), reference)
    assert (found.kind == "substitution").all()
    own = reference.structures()
    for i in range(0, len(reference), 10):  # the reference named need not be its own parent
        new = batch[i].structures()[0]
        from pymatgen.core.structure_matcher import StructureMatcher

        assert StructureMatcher().fit_anonymous(own[found.reference[i]], new)


def test_site_swaps_are_no_substitutions(reference):
    swapped = renamed(ANTIPEROVSKITE, {81: 6, 6: 81})
    kind, index, detail = kind_of(swapped, reference)
    assert (kind, index) == ("known prototype", len(reference) - 1)
    assert "site swap" in detail
    # without the compound itself it is a substitution in another antiperovskite
    others = CrystalBatch.cat([reference[:-1], renamed(ANTIPEROVSKITE, {62: 21, 81: 49})])
    assert kind_of(swapped, others)[0] == "substitution"
    # in rocksalt both sites are alike: exchanging the elements gives the same crystal
    salt = imd.datasets.load("oqmd_icsd").select(formulas="NaCl", space_groups=[225]).crystals[:1]
    assert kind_of(renamed(salt, {11: 17, 17: 11}), salt)[0] == "copy"


def test_known_prototypes(reference):
    # solid carbon dioxide has pyrite's prototype, and is another structure
    from pymatgen.core.structure_matcher import StructureMatcher

    pair = CrystalBatch.cat([PYRITE, DRY_ICE]).structures()
    assert not StructureMatcher().fit_anonymous(*pair)
    kind, index, detail = kind_of(DRY_ICE, reference)
    assert kind == "known prototype"
    assert prototypes(reference[[index]]) == ["AB2_205_a_c"]
    assert "AB2_205_a_c" in detail


def test_new_prototypes(reference):
    rng = np.random.default_rng(4)
    alone = crystal(
        6 * np.eye(3) + 0.3 * rng.random((3, 3)), rng.random((5, 3)), [86] * 3 + [85] * 2
    )
    kind, index, detail = kind_of(alone, reference)
    assert (kind, index) == ("new prototype", NONE)
    assert "A2B3_1_" in detail
    odd = crystal(6 * np.eye(3), rng.random((18, 3)), [86] * 17 + [85])
    assert kind_of(odd, reference)[0] == "new prototype"  # a new anonymous formula too


def test_broken_crystals_have_a_label(reference):
    batch = reference[np.arange(8)]  # a copy, not a view
    batch.lattice[1] = float("nan")
    batch.lattice[2, 1] = batch.lattice[2, 0]
    batch.numbers[3] = 0
    batch.frac[4, 1:] = batch.frac[4, 0]  # atoms on top of each other: no symmetry to be found
    batch.lattice[5] = torch.diag(torch.tensor([1e-3, 1.0, 1e6], dtype=torch.float64))
    found = novelty_kinds(batch, reference)
    assert (found.kind[[1, 2, 3, 4, 5]] == "broken").all()
    assert (found.kind[[0, 6, 7]] == "copy").all()
    assert all(len(found.details[i]) > 15 for i in range(8))
    # a broken reference crystal counts for nothing
    assert (novelty_kinds(reference[:8], batch).kind[[0, 6, 7]] == "copy").all()


# ---- all labels


def test_one_label_each(reference):
    batch = CrystalBatch.cat([reference[:30], imd.datasets.load("oqmd_icsd")[:30].crystals])
    found = novelty_kinds(batch, reference)
    assert len(found) == 60 == len(found.details) == len(found.reference)
    assert set(found.kind) <= set(KINDS)
    assert sum(found.counts.values()) == 60
    assert list(found.counts) == list(KINDS)
    assert found.definition["reference_size"] == len(reference)
    known = np.isin(found.kind, ["new prototype", "broken"])
    assert ((found.reference == NONE) == known).all()
    text = str(found.definition)
    for word in ("0.05", "symprec", "moyopy", "StructureMatcher", "fit_anonymous"):
        assert word in text


def test_order_of_the_reference_does_not_matter(reference):
    batch = imd.datasets.load("oqmd_icsd").select(max_sites=8)[:150].crystals
    order = np.random.default_rng(5).permutation(len(reference))
    one, other = novelty_kinds(batch, reference), novelty_kinds(batch, reference[order])
    assert (one.kind == other.kind).all()


def test_narrow_tolerances_make_fewer_copies(reference, monkeypatch):
    moved = CrystalBatch(
        reference.lattice,
        reference.frac + 0.02 * torch.rand(reference.frac.shape),
        reference.numbers,
    )
    wide = novelty_kinds(moved, reference).counts
    monkeypatch.setattr(novelty, "MATCH", MatchSettings(ltol=0.01, stol=0.01, angle_tol=0.1))
    narrow = novelty_kinds(moved, reference).counts
    assert wide["copy"] + wide["strained copy"] > 250
    assert narrow["copy"] + narrow["strained copy"] < 150


def test_anonymous_matches_are_pymatgens():
    """One reference crystal at a time: some label of a match if and only if pymatgen has one."""
    from pymatgen.core.structure_matcher import StructureMatcher

    data = imd.datasets.load("oqmd_icsd").select(nelements=3, max_sites=8)
    batch = data[np.random.default_rng(6).permutation(len(data))[:400]].crystals
    shapes: dict = {}
    for i, counts in enumerate(np.sort(batch.counts().numpy(), axis=1)):
        shapes.setdefault(counts.tobytes(), []).append(i)
    pairs = [(m[k], m[k + 1]) for m in shapes.values() for k in range(0, len(m) - 1, 2)][:120]
    matcher, verdicts = StructureMatcher(), []
    for i, j in pairs:
        found = novelty_kinds(batch[j], batch[i])
        swap = "site swap" in found.details[0]
        ours = found.kind[0] in ("copy", "strained copy", "substitution") or swap
        expected = matcher.fit_anonymous(batch[i].structures()[0], batch[j].structures()[0])
        assert ours == expected
        verdicts.append(expected)
    assert 0.1 < np.mean(verdicts) < 0.9


# ---- prototypes


def test_names_of_known_prototypes():
    salt = orbits(225, 5.6 * np.eye(3), [(11, [0, 0, 0]), (17, [0.5, 0.5, 0.5])])
    heusler = orbits(
        216, 6 * np.eye(3), [(12, [0, 0, 0]), (33, [0.25, 0.25, 0.25]), (47, [0.5, 0.5, 0.5])]
    )
    found = prototypes(CrystalBatch.cat([salt, heusler, PYRITE, ANTIPEROVSKITE]))
    assert found == ["AB_225_a_b", "ABC_216_a_b_c", "AB2_205_a_c", "ABC3_221_a_b_c"]


def test_half_heuslers_have_one_prototype():
    """Any three of the four special positions of F-43m, in any order, are one arrangement."""
    from itertools import permutations

    corners = [k / 4 * np.ones(3) for k in range(4)]
    made = [
        orbits(216, 6 * np.eye(3), list(zip((12, 33, 47), chosen, strict=True)))
        for chosen in permutations(corners, 3)
    ]
    assert set(prototypes(CrystalBatch.cat(made))) == {"ABC_216_a_b_c"}


def test_descriptions_of_one_crystal_have_one_prototype():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=16)
    batch = data[np.random.default_rng(7).permutation(len(data))[:150]].crystals
    expected = prototypes(batch, symprec=0.01)
    rng = np.random.default_rng(8)
    axes = {
        "origin": lambda a, x, z: (a, x + rng.random(3), z),
        "orientation": lambda a, x, z: (a @ rotation(rng), x, z),
        "axes": lambda a, x, z: (a[[1, 2, 0]], x[:, [1, 2, 0]], z),
        "mirror image": lambda a, x, z: (a, -x, z),
        "supercell": lambda a, x, z: (
            np.diag([1, 1, 2]) @ a,
            np.concatenate([x, x + [0, 0, 1]]) / [1, 1, 2],
            np.tile(z, 2),
        ),
        "elements": lambda a, x, z: (a, x, 100 - z),
    }
    for name, change in axes.items():
        other = CrystalBatch.cat([crystal(*change(*parts(one))) for one in batch])
        same = np.array(prototypes(other, symprec=0.01)) == expected
        assert same.mean() > 0.98, name
    assert "" not in expected
    assert len(set(expected)) > 50


def test_letters_move_as_moyopy_moves_them():
    """All descriptions that moyopy finds by the Euclidean normaliser are merged."""
    data = imd.datasets.load("oqmd_icsd").select(max_sites=10)
    batch = data[np.random.default_rng(9).permutation(len(data))[:250]].crystals
    several = 0
    for found in symmetry.moyo_datasets(batch, symprec=0.01):
        numbers = np.array(found.std_cell.numbers)
        names = set()
        sequences = found.normalizer_wyckoff_positions().coset_representatives
        for _, sequence in sequences:
            occupied = {}
            for z in set(numbers.tolist()):
                sites = [sequence[i] for i in np.flatnonzero(numbers == z)]
                letters = sorted(p.letter for p in sites)
                # each letter once an orbit, not once a site
                size = {p.letter: p.multiplicity for p in sites}
                each = [a for a in size for _ in range(letters.count(a) // size[a])]
                occupied[z] = (len(sites), tuple(sorted(each)))
            names.add(naming._first_name(found.number, tuple(sorted(occupied.values()))))
        several += len(sequences) > 1
        assert len(names) == 1
    assert several > 100


@pytest.mark.parametrize(("second", "first"), naming.ENANTIOMORPHIC.items())
def test_enantiomorphic_groups_have_one_prototype(second, first):
    rng = np.random.default_rng(second)
    lattice = np.diag([5.0, 5.0, 7.0]) if first < 143 or first > 194 else None
    if lattice is None:
        lattice = np.array([[5.0, 0, 0], [-2.5, 2.5 * np.sqrt(3), 0], [0, 0, 7.0]])
    if first > 194:
        lattice = 6.0 * np.eye(3)
    one = orbits(first, lattice, [(14, rng.random(3)), (8, rng.random(3))])
    cell, frac, numbers = parts(one)
    other = crystal(cell, -frac, numbers)
    both = CrystalBatch.cat([one, other])
    assert symmetry.space_group_numbers(both, symprec=1e-3).tolist() == [first, second]
    names = prototypes(both, symprec=1e-3)
    assert names[0] == names[1]
    assert f"_{first}_" in names[0]


def test_prototype_holds_the_anonymous_formula():
    batch = imd.datasets.load("oqmd_icsd").select(max_sites=10)[:100].crystals
    for name, counts in zip(prototypes(batch), batch.counts().numpy(), strict=True):
        present = np.sort(counts[counts > 0])
        lowest = present // np.gcd.reduce(present)
        expected = "".join(
            f"{'ABCDEFGH'[k]}{n if n > 1 else ''}" for k, n in enumerate(lowest.tolist())
        )
        assert name.split("_")[0] == expected
        assert int(name.split("_")[1]) in range(1, 231)


def test_no_symmetry_no_prototype():
    on_top = crystal(4 * np.eye(3), np.zeros((2, 3)), [11, 17])
    broken = crystal(4 * np.eye(3), [[0, 0, 0]], [11])
    broken.lattice[0, 0, 0] = float("nan")
    long = crystal(np.diag([1e-3, 1.0, 1e6]), [[0, 0, 0]], [11])  # moyopy would not come back
    found = prototypes(CrystalBatch.cat([on_top, broken, long, PYRITE]))
    assert found == ["", "", "", "AB2_205_a_c"]
