"""Random cells, and the volumes of the elements."""

import numpy as np
import pytest
import torch

from imd_helpers.baselines.cells import atomic_volumes, random_cells
from imd_helpers.crystals import CrystalBatch, elements, geometry


@pytest.mark.parametrize(
    ("number", "equal", "angles"),
    [
        (2, 3, (None, None, None)),
        (14, 3, (90, None, 90)),
        (62, 3, (90, 90, 90)),
        (136, 2, (90, 90, 90)),
        (166, 2, (90, 90, 120)),
        (225, 1, (90, 90, 90)),
    ],
)
def test_random_cells(number, equal, angles):
    from pymatgen.core import Lattice

    volumes = np.linspace(20, 300, 200)
    cells = random_cells(np.full(200, number), volumes, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.det(cells), volumes, rtol=1e-9)
    lattices = [Lattice(cell) for cell in cells]
    for lattice in lattices:
        assert len(set(np.round(lattice.abc, 6))) == equal
        assert max(lattice.abc) / min(lattice.abc) <= 3 + 1e-9
        for found, wanted in zip(lattice.angles, angles, strict=True):
            assert 60 - 1e-6 <= found <= 120 + 1e-6
            assert wanted is None or found == pytest.approx(wanted)
    if number == 2:
        boxes = [lattice.volume / np.prod(lattice.abc) for lattice in lattices]
        assert min(boxes) >= 0.3


def test_atomic_volumes_of_planted_ones(mixed):
    planted = np.random.default_rng(0).uniform(8, 40, elements.N_COLUMNS)
    counts = mixed.crystals.counts().numpy()
    true = torch.as_tensor(counts @ planted)
    scale = (true / geometry.volume(mixed.crystals)) ** (1 / 3)
    crystals = CrystalBatch(
        mixed.crystals.lattice * scale[:, None, None], mixed.crystals.frac, mixed.crystals.numbers
    )
    volumes, ratios = atomic_volumes(crystals)
    often = (counts > 0).sum(0) > 20
    assert often.sum() > 10
    error = np.abs(volumes[often] / planted[often] - 1)  # 0, but for the pull to the mean
    assert error.max() < 0.2
    assert np.median(error) < 0.06
    assert np.median(np.abs(ratios - 1)) < 0.03
    real, _ = atomic_volumes(mixed.crystals)
    sodium, oxygen, caesium = real[[11, 8, 55]]
    assert 5 < oxygen < sodium < caesium < 80  # Å^3
