import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from imd_helpers.descriptors.molecules import MoleculeBatch, g2_molecules
from imd_helpers.descriptors.soap import Soap, radial_exponents, radial_mixing
from imd_helpers.runtime import InputError

SPECIES = ("H", "C", "N", "O")


@pytest.fixture(scope="module")
def organic():
    batch = g2_molecules()[1]
    allowed = torch.isin(batch.numbers, torch.tensor([0, 1, 6, 7, 8])).all(1)
    return batch[allowed.numpy()][::6]


@pytest.mark.parametrize(
    ("r_cut", "n_max", "l_max", "sigma"), [(5.0, 6, 4, 0.5), (2.5, 4, 6, 0.3), (6.0, 1, 0, 1.0)]
)
def test_soap_equals_dscribe(organic, r_cut, n_max, l_max, sigma):
    from dscribe.descriptors import SOAP

    reference = SOAP(
        species=SPECIES, r_cut=r_cut, n_max=n_max, l_max=l_max, sigma=sigma, average="outer"
    )
    ours = Soap(SPECIES, r_cut=r_cut, n_max=n_max, l_max=l_max, sigma=sigma)
    theirs = reference.create(organic.atoms())
    assert ours.encode(organic).shape == theirs.shape == (len(organic), *ours.shape)
    assert np.abs(ours.encode(organic).numpy() - theirs).max() < 1e-6


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_no_motion_mirror_or_numbering_changes_soap(seed):
    batch = g2_molecules()[1][[98, 110, 130]]
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix() * rng.choice([-1, 1])
    positions, numbers = [], []
    for i, n in enumerate(batch.n_atoms.tolist()):
        order = rng.permutation(n)
        positions.append((batch.positions[i, :n].numpy() @ turn + rng.normal(size=3))[order])
        numbers.append(batch.numbers[i, :n].numpy()[order])
    soap = Soap(("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl"), n_max=3, l_max=3)
    other = MoleculeBatch.from_lists(positions, numbers)
    assert torch.allclose(soap.encode(batch), soap.encode(other), atol=1e-8)


@pytest.mark.parametrize("degree", [0, 2, 5])
def test_the_radial_functions_are_orthonormal(degree):
    alphas = radial_exponents(degree, 5.0, 4)
    r = np.linspace(0, 40, 200_001)
    basis = r**degree * np.exp(-alphas[:, None] * r**2)
    basis = radial_mixing(degree, alphas) @ basis
    overlap = np.trapezoid(basis[:, None] * basis * r**2, r, axis=-1)
    assert np.allclose(overlap, np.eye(4), atol=1e-6)


def test_bad_calls_are_refused(organic):
    with pytest.raises(InputError, match="above 1"):
        Soap(SPECIES, r_cut=0.9)
    with pytest.raises(InputError, match="add them to"):
        Soap(["H"]).encode(organic)
