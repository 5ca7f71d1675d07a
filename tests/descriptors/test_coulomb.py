from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.coulomb import ORDERS, CoulombMatrix, EwaldMatrix, SineMatrix, ewald
from imd_helpers.descriptors.molecules import MoleculeBatch, g2_molecules
from imd_helpers.runtime import InputError, UnknownNameError

SITES = 8
seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(scope="module")
def g2():
    return g2_molecules()[1]


@pytest.fixture(scope="module")
def crystals():
    known = datasets.load("oqmd_icsd").crystals
    small = np.flatnonzero(known.n_sites.numpy() <= SITES)
    return known[small[:: len(small) // 25]]


@cache
def few_crystals():
    known = datasets.load("oqmd_icsd").crystals
    return known[np.flatnonzero(known.n_sites.numpy() <= SITES)[::3000]]


def atoms_of(crystals):
    from pymatgen.io.ase import AseAtomsAdaptor

    return [AseAtomsAdaptor.get_atoms(s) for s in crystals.structures()]


def moved(batch, seed):
    """The same molecules, turned, shifted and with their atoms in another order."""
    rng = np.random.default_rng(seed)
    turn, shift = Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)
    positions, numbers = [], []
    for i, n in enumerate(batch.n_atoms.tolist()):
        order = rng.permutation(n)
        positions.append((batch.positions[i, :n].numpy() @ turn.T + shift)[order])
        numbers.append(batch.numbers[i, :n].numpy()[order])
    return MoleculeBatch.from_lists(positions, numbers)


# ---- molecules


@pytest.mark.parametrize(("order", "name"), [("none", "none"), ("eigenvalues", "eigenspectrum")])
def test_coulomb_matrices_equal_dscribe(g2, order, name):
    from dscribe.descriptors import CoulombMatrix as Reference

    theirs = Reference(n_atoms_max=16, permutation=name).create(g2.atoms())
    ours = CoulombMatrix(16, order=order).encode(g2).flatten(1).numpy()
    assert np.abs(ours - theirs).max() < 1e-6


def test_sorted_coulomb_matrices_equal_dscribe_where_no_two_rows_have_one_norm(g2):
    from dscribe.descriptors import CoulombMatrix as Reference

    theirs = Reference(n_atoms_max=16, permutation="sorted_l2").create(g2.atoms())
    ours = CoulombMatrix(16, order="sorted").encode(g2)
    norms = ours.norm(dim=2)
    gaps = torch.where(norms[:, 1:] > 0, norms[:, :-1] - norms[:, 1:], torch.inf).amin(1)
    clear = (gaps > 1e-6).numpy()
    assert clear.sum() > 20
    assert np.abs(ours.flatten(1).numpy() - theirs)[clear].max() < 1e-6
    theirs_ = torch.as_tensor(theirs).reshape(-1, 16, 16).norm(dim=2)
    assert torch.allclose(norms, theirs_, atol=1e-6)  # the norms agree for all


def test_in_bohr_coulomb_matrices_equal_matminer(g2):
    from matminer.featurizers.structure.matrix import CoulombMatrix as Reference
    from pymatgen.io.ase import AseAtomsAdaptor

    some = g2[::30]
    ours = CoulombMatrix(16, order="none", unit="bohr").encode(some).numpy()
    reference = Reference(flatten=False)
    for matrix, atoms in zip(ours, some.atoms(), strict=True):
        theirs = reference.featurize(AseAtomsAdaptor.get_molecule(atoms))[0]
        n = len(theirs)
        off = ~np.eye(n, dtype=bool)
        star = 1.00001495  # matminer converts from the X-ray unit Å*, not from Å (CODATA 2018)
        assert np.allclose(matrix[:n, :n][off], theirs[off] * star, rtol=1e-7)
        assert np.allclose(np.diag(matrix)[:n], np.diag(theirs))


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_no_motion_and_no_numbering_changes_the_eigenvalues(seed):
    batch = g2_molecules()[1][::5]
    descriptor = CoulombMatrix(16, order="eigenvalues")
    assert torch.allclose(
        descriptor.encode(batch), descriptor.encode(moved(batch, seed)), atol=1e-8
    )


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_motions_leave_the_sorted_matrix_and_numbering_its_norms(seed):
    batch = g2_molecules()[1][::5]
    descriptor = CoulombMatrix(16, order="sorted")
    one, other = descriptor.encode(batch), descriptor.encode(moved(batch, seed))
    assert torch.allclose(one.norm(dim=2), other.norm(dim=2), atol=1e-8)
    turned = MoleculeBatch(
        batch.positions @ torch.tensor(Rotation.random(random_state=seed).as_matrix()),
        batch.numbers,
    )
    assert torch.allclose(one, descriptor.encode(turned), atol=1e-8)


def test_numbering_changes_the_raw_matrix(g2):
    raw = CoulombMatrix(16, order="none")
    assert not torch.allclose(raw.encode(g2), raw.encode(moved(g2, 0)))


@pytest.mark.parametrize("order", ["none", "sorted"])
def test_matrices_decode_to_the_same_molecules(g2, order):
    descriptor = CoulombMatrix(16, order=order)
    back = descriptor.decode(descriptor.encode(g2))
    assert back.ok.all()
    assert back.content.formulas() == g2.formulas()
    eigenvalues = CoulombMatrix(16, order="eigenvalues")
    assert torch.allclose(eigenvalues.encode(back.content), eigenvalues.encode(g2), atol=1e-6)


def test_what_does_not_decode_says_why(g2):
    descriptor = CoulombMatrix(6, order="none")
    water = descriptor.encode(MoleculeBatch.from_lists(*_water()))[0]
    bad = torch.stack([water] * 6)
    bad[0, 0, 0] += 7.0  # between two elements
    bad[1, 0, 1] = 3.0  # not symmetric
    bad[2, 0, 1] = bad[2, 1, 0] = -1.0
    bad[3] = 0.0
    bad[4, 0, 0] = torch.nan
    bad[5, 1, 2] = bad[5, 2, 1] = 0.2  # two hydrogens 5 Å apart, both 1 Å from the oxygen
    back = descriptor.decode(bad)
    assert not back.ok.any()
    assert len(back) == 6
    expected = ["charge", "symmetric", "positive", "no atoms", "NaN", "residual"]
    assert all(word in reason for word, reason in zip(expected, back.reasons, strict=True))


def _water():
    return [np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])], [[8, 1, 1]]


def test_bad_calls_are_refused(g2):
    with pytest.raises(UnknownNameError, match="sorted"):
        CoulombMatrix(4, order="sort")
    with pytest.raises(UnknownNameError, match="bohr"):
        CoulombMatrix(4, unit="Bohr")
    with pytest.raises(InputError, match="make the matrix larger"):
        CoulombMatrix(4).encode(g2)
    with pytest.raises(InputError, match="eigenvalues cannot"):
        CoulombMatrix(4, order="eigenvalues").decode(torch.zeros(1, 4))
    with pytest.raises(InputError, match="expected"):
        CoulombMatrix(4).decode(torch.zeros(1, 3, 3))
    with pytest.raises(InputError, match="batch >= 1"):
        CoulombMatrix(4).decode(torch.zeros(0, 4, 4))
    with pytest.raises(InputError, match="max_atoms=0"):
        SineMatrix(0)
    with pytest.raises(InputError, match="accuracy"):
        EwaldMatrix(4, accuracy=0)


@pytest.mark.parametrize("order", ORDERS)
def test_shapes_are_as_promised(g2, crystals, order):
    for descriptor, batch in (
        (CoulombMatrix(16, order=order), g2),
        (SineMatrix(16, order=order), crystals),
        (EwaldMatrix(16, order=order, accuracy=1e-3), crystals),
    ):
        assert descriptor.encode(batch).shape == (len(batch), *descriptor.shape)


# ---- crystals


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_sine_matrices_equal_matminer(crystals):
    from matminer.featurizers.structure.matrix import SineCoulombMatrix

    reference = SineCoulombMatrix(flatten=False)
    ours = SineMatrix(SITES, order="none", unit="bohr").encode(crystals).numpy()
    star = 1.00001495  # as above
    for matrix, structure in zip(ours, crystals.structures(), strict=True):
        theirs = reference.featurize(structure)[0]
        n = len(theirs)
        scale = np.where(np.eye(n, dtype=bool), 1.0, star)
        assert np.abs(matrix[:n, :n] - theirs * scale).max() < 1e-6 * theirs.max()


def test_ewald_matrices_equal_dscribe(crystals):
    from dscribe.descriptors import EwaldSumMatrix

    reference = EwaldSumMatrix(n_atoms_max=SITES, permutation="none")
    theirs = reference.create(atoms_of(crystals), accuracy=1e-12)
    ours = EwaldMatrix(SITES, order="none", accuracy=1e-12).encode(crystals)
    assert np.abs(ours.flatten(1).numpy() - theirs).max() < 1e-6


def test_the_screening_of_an_ewald_sum_does_not_matter(crystals):
    for crystal in crystals[::5]:
        parts = next(crystal.each())
        one, other = (ewald(*parts, accuracy=1e-12, screening=width) for width in (0.5, 0.8))
        assert np.allclose(one, other, atol=1e-6)


def test_the_ewald_sum_of_rock_salt_is_its_madelung_constant():
    lattice = np.array([[0, 1.0, 1], [1, 0, 1], [1, 1, 0]])  # nearest neighbours at 1 Å
    matrix = ewald(lattice, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([1.0, -1.0]))
    assert np.triu(matrix).sum() == pytest.approx(-1.7475645946, abs=1e-6)


def test_the_ewald_energy_counts_cells(crystals):
    """A supercell has as many times the energy; its matrix is another one."""
    one = crystals[int(crystals.n_sites.argmin())]
    n = int(one.n_sites)
    frac, z = one.frac[0, :n].numpy(), one.numbers[0, :n].numpy()
    lattice = one.lattice[0].numpy()
    double = np.concatenate([frac, frac + [1, 0, 0]]) / [2, 1, 1]
    small = ewald(lattice, frac, z.astype(float), accuracy=1e-12)
    large = ewald(lattice * [[2], [1], [1]], double, np.tile(z, 2).astype(float), accuracy=1e-12)
    assert np.triu(large).sum() == pytest.approx(2 * np.triu(small).sum(), rel=1e-8)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_no_motion_and_no_numbering_changes_spectra_of_crystals(seed):
    some, rng = few_crystals(), np.random.default_rng(seed)
    turn = torch.tensor(Rotation.random(random_state=seed).as_matrix())
    frac = some.frac + torch.tensor(rng.random(3))
    frac, numbers = frac - frac.floor(), some.numbers.clone()
    for i, n in enumerate(some.n_sites.tolist()):
        order = torch.tensor(rng.permutation(n))
        frac[i, :n], numbers[i, :n] = frac[i, order], numbers[i, order]
    other = CrystalBatch(some.lattice @ turn, frac, numbers)
    for kind in (SineMatrix(SITES, order="eigenvalues"), EwaldMatrix(SITES, order="eigenvalues")):
        one = kind.encode(some)
        assert torch.allclose(one, kind.encode(other), atol=1e-4 * float(one.abs().max()) * 1e-3)


def test_another_cell_of_one_crystal_changes_sine_but_not_ewald(crystals):
    some = crystals[np.flatnonzero(crystals.n_sites.numpy() >= 3)[:5]]
    change = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    frac = some.frac @ torch.linalg.inv(change)
    frac = torch.where(some.mask[..., None], frac - frac.floor(), 0.0)
    other = CrystalBatch(change @ some.lattice, frac, some.numbers)
    sine, sums = (kind(SITES, order="eigenvalues") for kind in (SineMatrix, EwaldMatrix))
    assert (sine.encode(some) - sine.encode(other)).abs().max() > 0.1
    assert torch.allclose(sums.encode(some), sums.encode(other), atol=1e-3)


def test_broken_crystals_are_refused():
    lattice, frac = np.eye(3)[None] * 4, np.zeros((2, 3))
    twice = CrystalBatch.from_ragged(lattice, frac, [11, 17], [2])
    with pytest.raises(InputError, match="two sites in one place"):
        SineMatrix(2).encode(twice)
    with pytest.raises(InputError, match="two sites in one place"):
        EwaldMatrix(2).encode(twice)
    flat = np.array([[1.0, 0, 0], [2, 0, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="volume"):
        ewald(flat, frac[:1], np.ones(1))
    with pytest.raises(InputError, match="flat, long or large"):
        ewald(np.diag([1e-6, 1e3, 1e4]), frac[:1], np.ones(1))


@pytest.mark.parametrize("kind", [SineMatrix, EwaldMatrix])
def test_a_batch_goes_on_without_what_fails_and_says_why(kind):
    from pymatgen.core import Lattice, Structure

    cube = Lattice.cubic(4.0)
    good = Structure(cube, ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    twice = Structure(cube, ["Cs", "Cl"], [[0, 0, 0], [0, 0, 1e-4]])
    alloy = Structure(cube, [{"Cu": 0.5, "Zn": 0.5}], [[0, 0, 0]])
    large = Structure(cube, ["H"] * 3, [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
    result = kind(2).encode_all([good, twice, alloy, large])
    assert result.ok.tolist() == [True, False, False, False]
    for word, reason in zip(
        ("one place", "occupied", "max_atoms"), result.reasons[1:], strict=True
    ):
        assert word in reason
    assert (result.tensor[1:] == 0).all()
    assert torch.equal(result.tensor[:1], kind(2).encode(CrystalBatch.from_structures([good])))


def test_molecules_that_are_too_large_keep_their_place(g2):
    result = CoulombMatrix(6).encode_all(g2)
    assert (result.ok == (g2.n_atoms <= 6).numpy()).all()
    assert torch.equal(result.valid(), CoulombMatrix(6).encode(g2[result.ok]))
