"""Wyckoff positions against pymatgen's tables, and by their own operations."""

import gzip
import json
from pathlib import Path

import numpy as np
import pymatgen.analysis.prototypes
import pytest

from imd_helpers.baselines.cells import random_cells
from imd_helpers.crystals import symmetry
from imd_helpers.crystals.wyckoff import wyckoff_positions
from imd_helpers.runtime import InputError


def test_wyckoff_positions_of_all_groups():
    folder = Path(pymatgen.analysis.prototypes.__file__).parent
    sites, free = (
        json.loads(gzip.decompress((folder / f"wyckoff-position-{name}.json.gz").read_bytes()))
        for name in ("multiplicities", "params")
    )
    for number in range(1, 231):
        ours = [(each.multiplicity, each.free) for each in wyckoff_positions(number)]
        letters = sites[str(number)]
        expected = [(letters[letter], free[str(number)][letter]) for letter in letters]
        assert sorted(ours) == sorted(expected), number
    with pytest.raises(InputError, match="231"):
        wyckoff_positions(231)


@pytest.mark.parametrize("number", [2, 14, 62, 141, 167, 194, 216, 227, 230])
def test_points_of_a_wyckoff_position_have_its_multiplicity(number):
    rng = np.random.default_rng(number)
    rotations, translations = symmetry.operations(number)
    for position in wyckoff_positions(number):
        assert (position.directions == np.rint(position.directions)).all()
        u = rng.random((20, 3))
        points = position.origin + u @ position.directions
        for point in points:
            images = np.round((rotations @ point + translations) % 1, 6) % 1
            assert len(np.unique(images, axis=0)) == position.multiplicity


def test_moyopy_gives_every_position_another_letter():
    rng = np.random.default_rng(0)
    for number in range(1, 231):
        positions = wyckoff_positions(number)
        if len(positions) == 1:  # one orbit in general position often has a higher symmetry
            continue
        cell = random_cells(np.array([number]), np.array([1e5]), rng)
        points = [each.origin + rng.random(3) @ each.directions for each in positions]
        names = np.arange(1, len(positions) + 1)  # another element on each
        crystal, _ = symmetry.expand(
            [number], cell, np.array([points]), names[None], tolerance=1e-6
        )
        (data,) = symmetry.moyo_datasets(crystal, symprec=1e-4)
        assert data.number == number
        found = set(zip(crystal.numbers[0].tolist(), data.wyckoffs, strict=True))
        assert len({letter for _, letter in found}) == len(found) == len(positions)


def test_free_parameters_fill_the_position():
    (line,) = [p for p in wyckoff_positions(194) if (p.multiplicity, p.free) == (6, 1)]
    points = (line.origin + np.random.default_rng(0).random((5000, 3)) @ line.directions) % 1
    np.testing.assert_allclose((points[:, 1] - 2 * points[:, 0] + 0.5) % 1, 0.5, atol=1e-9)
    assert np.histogram(points[:, 0], 10, (0, 1))[0].min() > 400
