import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.batch import wrap
from imd_helpers.runtime import InputError

PARTIAL = """data_alloy
_cell_length_a 3.6
_cell_length_b 3.6
_cell_length_c 3.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
  Cu1 Cu 0 0 0 {first}
{second}
loop_
 _symmetry_equiv_pos_as_xyz
  'x, y, z'
"""


@pytest.fixture(scope="module")
def mixed():
    """Real crystals of 1 to 20 sites."""
    return imd.datasets.load("oqmd_icsd").select(max_sites=20)[::400]


def test_round_trip_with_pymatgen(mixed):
    batch = CrystalBatch.from_structures(mixed.structures()).validate()
    assert batch.lattice.dtype == batch.frac.dtype == torch.float64
    assert batch.numbers.dtype == torch.int64
    assert len(batch) == len(mixed)
    assert torch.equal(batch.n_sites, torch.as_tensor(mixed.n_sites))
    for one, two in zip(batch.structures(), mixed.structures(), strict=True):
        np.testing.assert_allclose(one.lattice.matrix, two.lattice.matrix, atol=1e-12)
        np.testing.assert_allclose(one.frac_coords, two.frac_coords % 1, atol=1e-12)
        assert one.species == two.species


def test_padding_is_at_the_end(mixed):
    batch = mixed.crystals
    assert batch.mask.sum() == batch.n_sites.sum()
    assert not (batch.mask[:, 1:] & ~batch.mask[:, :-1]).any()
    assert (batch.frac[~batch.mask] == 0).all()


def test_cat_and_index(mixed):
    batch = mixed.crystals
    small = batch[batch.n_sites.numpy() <= 4]
    narrow = CrystalBatch(small.lattice, small.frac[:, :4], small.numbers[:, :4])
    joined = CrystalBatch.cat([narrow, batch])
    assert joined.formulas() == narrow.formulas() + batch.formulas()
    assert batch[-1].formulas() == batch.formulas()[-1:]
    assert batch[2:4].formulas() == batch.formulas()[2:4]
    assert batch[[3, 0]].formulas() == [batch.formulas()[3], batch.formulas()[0]]
    assert len(batch[[]]) == 0
    assert [one.formulas()[0] for one in batch] == batch.formulas()
    with pytest.raises(IndexError):
        batch[len(batch)]


def test_formulas_are_those_of_pymatgen(mixed):
    expected = [structure.composition.reduced_formula for structure in mixed.structures()]
    assert mixed.crystals.formulas() == expected
    counts = mixed.crystals.counts()
    assert torch.equal(counts.sum(1), mixed.crystals.n_sites)


def test_cart_and_device(mixed):
    batch = mixed.crystals.to("cpu")
    structure = batch.structures()[5]
    n = len(structure)
    np.testing.assert_allclose(batch.cart[5, :n], structure.cart_coords, atol=1e-10)
    assert "crystals" in repr(batch)


def test_wrap_never_gives_one():
    frac = torch.tensor([-1e-17, -0.25, 1.0, 2.5, 0.0], dtype=torch.float64)
    assert wrap(frac).tolist() == [0.0, 0.75, 0.0, 0.5, 0.0]


@pytest.mark.filterwarnings("ignore:Issues encountered")
def test_partial_occupancy_is_refused():
    from pymatgen.core import Structure

    half = PARTIAL.format(first=0.5, second="  Au1 Au 0 0 0 0.5")
    vacant = PARTIAL.format(first=0.8, second="")
    for text in (half, vacant):
        structure = Structure.from_str(text, fmt="cif")
        with pytest.raises(InputError, match="fully occupied"):
            CrystalBatch.from_structures([structure])
    whole = Structure.from_str(PARTIAL.format(first=1, second=""), fmt="cif")
    assert CrystalBatch.from_structures([whole]).formulas() == ["Cu"]


def test_dummy_species_are_refused():
    from pymatgen.core import Lattice, Structure

    with pytest.raises(InputError, match="no element"):
        CrystalBatch.from_structures([Structure(Lattice.cubic(3), ["X"], [[0, 0, 0]])])


def changed(mixed, **parts):
    batch = mixed.crystals
    fields = {"lattice": batch.lattice, "frac": batch.frac, "numbers": batch.numbers}
    return CrystalBatch(**{**{k: v.clone() for k, v in fields.items()}, **parts})


def spoiled(mixed, name, index, value):
    batch = changed(mixed)
    getattr(batch, name)[index] = value
    return batch


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.crystals[[]], "empty"),
        (lambda m: changed(m, lattice=m.crystals.lattice[:3]), "expected"),
        (lambda m: changed(m, frac=m.crystals.frac[:, :4]), "expected"),
        (lambda m: changed(m, frac=m.crystals.frac[0]), "expected"),
        (lambda m: changed(m, numbers=m.crystals.numbers.double()), "integers"),
        (lambda m: spoiled(m, "frac", (1, 0, 0), float("nan")), "crystal 1: NaN"),
        (lambda m: spoiled(m, "lattice", (2, 0, 0), float("inf")), "crystal 2: NaN"),
        (lambda m: spoiled(m, "frac", (1, 0, 2), 1.0), "crystal 1, site 0"),
        (lambda m: spoiled(m, "frac", (1, 0, 2), -0.1), "outside"),
        (lambda m: spoiled(m, "numbers", (0, 0), 119), "atomic number 119"),
        (lambda m: spoiled(m, "numbers", (0, 0), -1), "atomic number -1"),
        (lambda m: spoiled(m, "numbers", (1, 0), 0), "padding"),
        (lambda m: spoiled(m, "numbers", 0, 0), "crystal 0: no atoms"),
        (lambda m: spoiled(m, "lattice", 3, 0.0), "crystal 3: cell volume"),
    ],
)
def test_validate_names_the_fault(mixed, make, message):
    with pytest.raises(InputError, match=message):
        make(mixed).validate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((0, 3, 3)), [], [], []), "empty"),
        ((np.eye(3)[None], [], [], [0]), "no sites"),
        ((np.eye(3)[None], [[0, 0, 0]], [6, 6], [1]), "expected"),
        ((np.eye(3), [[0, 0, 0]], [6], [1]), "expected"),
    ],
)
def test_from_ragged_checks(arguments, message):
    with pytest.raises(InputError, match=message):
        CrystalBatch.from_ragged(*arguments)


def test_empty_lists_are_refused():
    with pytest.raises(InputError, match="at least one"):
        CrystalBatch.from_structures([])
    with pytest.raises(InputError, match="at least one"):
        CrystalBatch.cat([])
