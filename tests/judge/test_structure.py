import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.judge import novel, unique
from imd_helpers.judge.structure import (
    NONE,
    MatchSettings,
    same_as_earlier,
    same_as_reference,
    space_group_kept,
)
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def polymorphs():
    """Real crystals that share their formula with at least one other."""
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12)
    often = data.table["formula"].value_counts()
    shared = data.table["formula"].isin(often[often > 1].index).to_numpy()
    return data[shared][np.arange(400)].crystals


def disguised(structures, rng):
    """The same crystals again: moved, permuted, strained, noisy or as supercells."""
    out = []
    for structure in structures:
        new = structure.copy()
        kind = rng.integers(5)
        if kind == 0:
            new.apply_strain(rng.normal(0, 0.02, 3))
        elif kind == 1:
            new.perturb(0.05)
        elif kind == 2:
            new.make_supercell(np.diag(rng.permutation([1, 1, 2])))
        elif kind == 3:
            new.translate_sites(list(range(len(new))), rng.random(3))
            new = type(new).from_sites([new[k] for k in rng.permutation(len(new))])
        else:
            new.scale_lattice(1.3 * new.volume)
        out.append(new)
    return out


def test_same_groups_as_pymatgen(polymorphs):
    from pymatgen.core.structure_matcher import StructureMatcher

    structures = polymorphs.structures()
    structures += disguised(structures[::3], np.random.default_rng(0))
    batch = CrystalBatch.from_structures(structures)
    first = same_as_earlier(batch).first

    place = {id(structure): i for i, structure in enumerate(structures)}
    expected = np.full(len(structures), NONE)
    for group in StructureMatcher().group_structures(structures):
        head, *rest = sorted(place[id(structure)] for structure in group)
        expected[rest] = head
    assert (first != expected).mean() <= 0.001
    assert 150 < (first != NONE).sum() < 500
    assert (unique(batch) == (first == NONE)).all()


def test_novel_is_the_matcher_too(polymorphs):
    from pymatgen.core.structure_matcher import StructureMatcher

    known, new = polymorphs[::2], polymorphs[1::2]
    verdict = novel(new, known)
    matcher = StructureMatcher()
    pool = known.structures()
    expected = [not any(matcher.fit(one, s) for one in pool) for s in new.structures()]
    assert (verdict == expected).mean() >= 0.999
    assert 0.02 < verdict.mean() < 0.5


def test_copies_are_found_and_named(polymorphs):
    copies = polymorphs[[7, 3, 7, 250]]
    found = same_as_reference(copies, polymorphs)
    assert not novel(copies, polymorphs).any()
    same = [
        polymorphs[int(i)].structures()[0].matches(crystal.structures()[0])
        for i, crystal in zip(found.first, copies, strict=True)
    ]
    assert all(same)
    assert unique(copies).tolist() == [True, True, False, True]


def test_padding_and_order_of_reference_do_not_matter(polymorphs):
    wide = CrystalBatch.cat([polymorphs, imd.datasets.load("oqmd_icsd")[:5].crystals])
    some = polymorphs[100:140]
    order = np.random.default_rng(1).permutation(len(wide))
    assert not novel(some, wide).any()
    assert not novel(some, wide[order]).any()
    assert novel(some, wide[400:]).all()  # other formulas


def test_settings_are_used():
    data = imd.datasets.load("oqmd_icsd").select(formulas="NaCl")
    batch = CrystalBatch.cat([data.crystals[:1]] * 2)
    batch.lattice[1] *= 1.2
    assert unique(batch).tolist() == [True, False]
    assert unique(batch, settings=MatchSettings(scale=False, ltol=0.05)).all()


def test_supercell_is_a_duplicate_and_swap_is_not():
    cscl = CrystalBatch.from_ragged(
        4.12 * np.eye(3)[None], [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17], [2]
    )
    structure = cscl.structures()[0]
    big = structure * (3, 2, 1)
    other = CrystalBatch.from_ragged(cscl.lattice, [[0, 0, 0], [0.5, 0.5, 0.0]], [55, 17], [2])
    batch = CrystalBatch.cat([cscl, CrystalBatch.from_structures([big]), other])
    assert unique(batch).tolist() == [True, False, True]


def test_broken_crystals_fail_alone(polymorphs):
    batch = CrystalBatch.cat([polymorphs[:6], polymorphs[:6]])
    batch.lattice[1] = float("nan")
    batch.lattice[2, 1] = batch.lattice[2, 0]
    batch.frac[3, 1:] = batch.frac[3, 0]  # atoms on top of each other: not broken, but odd
    batch.numbers[4] = 0
    verdict = unique(batch)
    assert len(verdict) == len(batch)
    assert not verdict[[1, 2, 4]].any()
    assert not novel(batch, polymorphs)[[1, 2, 4]].any()
    assert novel(batch[[1, 2]], polymorphs).tolist() == [False, False]


def test_matcher_errors_stop_nothing(polymorphs, monkeypatch):
    from pymatgen.core.structure_matcher import StructureMatcher

    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(StructureMatcher, "fit", fail)
    found = same_as_earlier(polymorphs)
    assert found.failed
    assert all("out of luck" in why for why in found.failed.values())
    assert not unique(polymorphs)[list(found.failed)].any()


def test_space_group_kept():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=8, space_groups=[225, 221])[:200]
    asked = data.table["space_group"].to_numpy()
    ok, found = space_group_kept(data.crystals, asked)
    assert ok.mean() > 0.98
    assert (found[ok] == asked[ok]).all()
    assert not space_group_kept(data.crystals, asked - 1)[0].any()
    broken = CrystalBatch(
        torch.full((2, 3, 3), torch.nan), data.crystals.frac[:2], data.crystals.numbers[:2]
    )
    ok, found = space_group_kept(broken, [225, 225])
    assert found.tolist() == [0, 0]
    with pytest.raises(InputError, match="one number for each"):
        space_group_kept(data.crystals, [225])
