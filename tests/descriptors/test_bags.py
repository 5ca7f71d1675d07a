import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imd_helpers.descriptors import smiles
from imd_helpers.descriptors.bags import (
    BondBags,
    ForceFieldBags,
    bend,
    cos_dihedral,
    morse,
    to_rdkit,
    uff_terms,
)
from imd_helpers.descriptors.coulomb import CoulombMatrix
from imd_helpers.descriptors.molecules import MoleculeBatch, g2_molecules
from imd_helpers.runtime import InputError, UnknownNameError

TEXTS = (
    "C CC CCC CCO COC CCN OO SC CSSC CC(C)C C1CCCCC1 C#C CC#N CC#CC CO N O "
    "C=C CC=C c1ccccc1 C=CC=C CC(C)=O CC(=O)O C=COC C=CN OC=C NCCc1ccc(O)cc1"
)


@pytest.mark.parametrize("text", TEXTS.split())
def test_the_terms_add_up_to_the_energy_of_rdkit(text):
    from rdkit.Chem import AddHs, MolFromSmiles
    from rdkit.Chem.rdDistGeom import EmbedMolecule
    from rdkit.Chem.rdForceFieldHelpers import UFFGetMoleculeForceField

    molecule = AddHs(MolFromSmiles(text))
    assert EmbedMolecule(molecule, randomSeed=1) == 0
    field = UFFGetMoleculeForceField(molecule, vdwThresh=1e9)
    ours = sum(uff_terms(molecule, stretch="harmonic").values())
    assert ours == pytest.approx(
        field.CalcEnergy(), abs=0.02 if "c" in text or "=" in text else 1e-6
    )


def test_morse_is_harmonic_at_its_bottom():
    k, r0, depth, h = 700.0, 1.5, 70.0, 1e-4
    at = [morse(r0 + step, r0, k, depth) for step in (-h, 0.0, h)]
    assert at[1] == -depth
    assert (at[0] - 2 * at[1] + at[2]) / h**2 == pytest.approx(k, rel=1e-4)
    assert abs(morse(30.0, r0, k, depth)) < 1e-6


@pytest.mark.parametrize(("natural", "fold"), [(109.47, 0), (104.5, 0), (120.0, 3), (180.0, 1)])
def test_the_angle_term_vanishes_at_the_natural_angle(natural, fold):
    angles = np.radians(np.linspace(natural - 10, natural + 10, 21))
    energies = [bend(float(np.cos(a)), 100.0, natural, fold=fold) for a in angles]
    assert min(energies) > -1e-9
    assert abs(energies[10]) < 1e-9
    assert energies[0] > 0.1


def test_dihedral_angles():
    a, b, c = np.array([1.0, 0, 0]), np.zeros(3), np.array([0, 0, 1.0])
    for angle in (0.0, 60.0, 90.0, 180.0):
        d = c + [np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0]
        assert cos_dihedral(a, b, c, d) == pytest.approx(np.cos(np.radians(angle)))
    assert cos_dihedral(-c, b, c, 2 * c) == 1.0


def test_bags_of_bonds_hold_the_coulomb_matrix():
    batch = g2_molecules()[1]
    bags = BondBags().fit(batch)
    vectors, matrices = bags.encode(batch), CoulombMatrix(16, order="none").encode(batch)
    upper = torch.triu(matrices).flatten(1)
    assert torch.allclose(vectors.sum(1), upper.sum(1))
    assert torch.allclose(vectors.square().sum(1), upper.square().sum(1))
    assert len(bags.labels) == bags.shape[0] == vectors.shape[1]


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_no_motion_and_no_numbering_changes_bags(seed):
    from rdkit.Chem import RenumberAtoms
    from rdkit.Chem.rdMolTransforms import TransformConformer
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    molecules = [smiles.embed(text, seed=1) for text in ("CCO", "CC(=O)O", "c1cc[nH]c1")]
    others = []
    for molecule in molecules:
        order = rng.permutation(molecule.GetNumAtoms()).tolist()
        other = RenumberAtoms(molecule, order)
        motion = np.eye(4)
        motion[:3, :3] = Rotation.random(random_state=seed).as_matrix()
        motion[:3, 3] = rng.normal(size=3)
        TransformConformer(other.GetConformer(), motion)
        others.append(other)
    bags = ForceFieldBags().fit(molecules)
    assert torch.allclose(bags.encode(molecules), bags.encode(others), atol=1e-6)
    pairs = BondBags().fit(smiles.batch_of(molecules))
    assert torch.allclose(
        pairs.encode(smiles.batch_of(molecules)), pairs.encode(smiles.batch_of(others)), atol=1e-6
    )


def test_more_kinds_make_longer_bags():
    molecules = [smiles.embed(text, seed=1) for text in ("CCO", "CCN")]
    sizes = [
        ForceFieldBags(angles=a, torsions=t).fit(molecules).shape[0]
        for a, t in ((False, False), (True, False), (True, True))
    ]
    assert sizes == sorted(set(sizes))


def test_molecules_that_do_not_fit_are_refused():
    small, large = g2_molecules()[1][:1], g2_molecules()[1][100:101]
    with pytest.raises(InputError, match="call fit"):
        BondBags().encode(small)
    with pytest.raises(InputError, match="fit on all molecules"):
        BondBags().fit(small).encode(large)
    from rdkit.Chem import MolFromSmiles

    with pytest.raises(InputError, match="no coordinates"):
        uff_terms(MolFromSmiles("C"))
    with pytest.raises(UnknownNameError, match="morse"):
        uff_terms(MolFromSmiles("C"), stretch="quartic")


def test_radicals_are_named_and_nothing_is_dropped():
    methyl = MoleculeBatch.from_lists(
        [np.array([[0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]])], [[6, 1, 1, 1]]
    )
    found, reasons = to_rdkit(methyl)
    assert found == [None]
    assert reasons[0]
