import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imd_helpers.crystals import elements
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors import molecules
from imd_helpers.descriptors.molecules import (
    MoleculeBatch,
    bonds,
    g2_molecules,
    positions_from_distances,
)
from imd_helpers.runtime import InputError, need

points = st.integers(1, 9).flatmap(
    lambda n: arrays(float, (n, 3), elements=st.floats(-5, 5, allow_nan=False))
)


@pytest.fixture(scope="module")
def g2():
    return g2_molecules()


def test_g2_is_the_set_of_148_with_measured_energies(g2):
    names, batch, energy = g2
    assert len(names) == len(batch) == len(energy) == 148
    assert energy[names.index("CH4")] == pytest.approx(392.5, abs=0.5)  # NIST: 392.5 kcal/mol
    assert energy[names.index("N2")] == pytest.approx(225.1, abs=0.3)  # dissociation: 9.76 eV
    assert energy.min() > 0


def test_batches_select_convert_and_name(g2):
    names, batch, _ = g2
    one = batch[names.index("C6H6")]
    assert one.formulas() == ["C6H6"]
    assert int(one.n_atoms) == 12
    atoms = batch[:20].atoms()
    back = MoleculeBatch.from_lists([a.positions for a in atoms], [a.numbers for a in atoms])
    assert torch.equal(back.positions, batch[:20].positions[:, : back.numbers.shape[1]])
    assert len(batch[np.zeros(148, bool)]) == 0
    assert "148 molecules" in repr(batch)
    assert batch[-1].formulas() == batch.formulas()[-1:]


def test_bad_molecules_are_refused():
    with pytest.raises(InputError, match="at least one molecule"):
        MoleculeBatch.from_lists([], [])
    with pytest.raises(InputError, match=r"it must be \(1, 3\)"):
        MoleculeBatch.from_lists([np.zeros((2, 3))], [[1]])
    with pytest.raises(InputError, match="NaN"):
        MoleculeBatch.from_lists([np.full((1, 3), np.nan)], [[1]])
    with pytest.raises(InputError, match="at most 118"):
        MoleculeBatch.from_lists([np.zeros((1, 3))], [[119]])
    with pytest.raises(InputError, match="must be a whole"):
        MoleculeBatch.from_lists([np.zeros((1, 3))], [[1.5]])
    with pytest.raises(InputError, match="given twice"):
        MoleculeBatch.from_lists([np.zeros((2, 3))], [[1, 1]])


@given(points)
@settings(max_examples=60, deadline=None)
def test_distances_give_back_their_points(xyz):
    distances = torch.cdist(torch.tensor(xyz)[None], torch.tensor(xyz)[None])[0]
    back, residual = positions_from_distances(distances)
    assert float(residual) < 1e-4  # the square root of rounding where points coincide
    assert torch.allclose(torch.cdist(back[None], back[None])[0], distances, atol=1e-4)


def test_distances_of_no_points_in_space_have_a_residual():
    distances = 1.0 - torch.eye(5, dtype=torch.float64)  # five points, all one apart: no room
    assert float(positions_from_distances(distances)[1]) > 0.05


def test_bonds_agree_with_rdkit_where_both_know(g2):
    from rdkit import Chem

    from imd_helpers.descriptors.bags import to_rdkit

    _, batch, _ = g2
    found, reasons = to_rdkit(batch)
    matrix = bonds(batch).numpy()
    assert len(found) == len(reasons) == 148
    different = 0
    for i, molecule in enumerate(found):
        if molecule is not None:
            n = molecule.GetNumAtoms()
            different += (Chem.GetAdjacencyMatrix(molecule) != matrix[i, :n, :n]).any()
    assert sum(m is not None for m in found) > 100
    assert different == 0
    assert not matrix[:, ~np.eye(matrix.shape[1], dtype=bool)].all()


def test_bonds_agree_with_ase(g2):
    from ase.neighborlist import natural_cutoffs, neighbor_list

    _, batch, _ = g2
    matrix = bonds(batch)
    radius = elements.column("covalent_radius")
    for i, atoms in enumerate(batch.atoms()):
        cutoffs = [molecules.BOND_SCALE * radius[z] for z in atoms.numbers]
        assert len(natural_cutoffs(atoms)) == len(cutoffs)
        here, there = neighbor_list("ij", atoms, cutoffs)
        other = np.zeros(matrix.shape[1:], dtype=bool)
        other[here, there] = True
        assert (matrix[i].numpy() == other).all()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "selfies", None)
    with pytest.raises(InputError, match=r"pip install \"imd-helpers\[descriptors\]\""):
        need("selfies")


def test_verdicts_must_be_as_many_as_molecules(g2):
    with pytest.raises(InputError, match="one of each"):
        Samples(g2[1][:2], np.array([True]), ("", ""))
