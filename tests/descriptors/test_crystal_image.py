"""The layout of the crystal image and its inverse, and crystals through image and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.crystal_image import CrystalImage, ImageLayout
from imd_helpers.descriptors.voxel_grid import VoxelGrid
from imd_helpers.runtime import InputError


class Verbatim:
    """A coder whose codes are the grids themselves, so that nothing is lost."""

    def __init__(self, points):
        self.points, self.cell_code, self.site_code = points, points**3, points**3

    def encode_cells(self, cell):
        return cell.flatten(1)

    def decode_cells(self, code):
        return code.unflatten(1, (1, self.points, self.points, self.points))

    encode_sites, decode_sites = encode_cells, decode_cells


POINTS = 20
VOXELS = VoxelGrid(elements=(34, 83), cell_points=POINTS, site_points=POINTS, max_edge=6.0)
LAYOUT = ImageLayout(
    (34, 83), side=155, cell_code=POINTS**3, site_code=POINTS**3, cell_room=POINTS**3
)
IMAGE = CrystalImage(LAYOUT, VOXELS, Verbatim(POINTS))


def crystals(*sites):
    lattice = np.tile(np.diag([4.0, 4.5, 5.0]), (len(sites), 1, 1))
    frac, numbers, n = [], [], []
    for one in sites:
        frac += [place for place, _ in one]
        numbers += [number for _, number in one]
        n.append(len(one))
    return CrystalBatch.from_ragged(lattice, np.array(frac, dtype=float), numbers, n)


BOTH = [([0, 0, 0], 83), ([0.5, 0.5, 0.4], 34)]
ONE = [([0.2, 0.1, 0.6], 83)]


def test_the_published_layout_of_one_system():
    layout = ImageLayout((83, 34))
    assert layout.shape == (1, 28, 28)
    cell, sites = (
        torch.full((1, 25), 1.0),
        torch.stack([torch.full((1, 200), v) for v in (2, 3)], 1),
    )
    flat = layout.pack(cell, sites).flatten()
    expected = [1.0] * 25 + [0.0] * 175 + [2.0] * 200 + [3.0] * 200 + [0.0] * 184
    assert flat.tolist() == expected


def test_the_published_layout_of_all_elements():
    layout = ImageLayout(tuple(range(1, 119)), side=160, cell_code=50, cell_room=160)
    assert layout.shape == (1, 160, 160)
    image = torch.zeros(1, 1, 160, 160)
    start = 160 + 25 * 200  # iron; the cell fills the first row
    image.view(-1)[start : start + 200] = 1.0
    _, sites = layout.unpack(image)
    assert sites[0, 25].eq(1).all()
    assert sites.sum() == 200


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 30), st.integers(1, 40), st.integers(0, 9)
)
def test_pack_and_unpack_are_inverse(batch, n_elements, cell_code, site_code, spare):
    room = cell_code + spare
    side = int(np.ceil(np.sqrt(room + n_elements * site_code)))
    layout = ImageLayout(tuple(range(1, n_elements + 1)), side, cell_code, site_code, room)
    cell, sites = torch.randn(batch, cell_code), torch.randn(batch, n_elements, site_code)
    image = layout.pack(cell, sites)
    assert image.shape == (batch, *layout.shape)
    back = layout.unpack(image)
    assert torch.equal(back[0], cell)
    assert torch.equal(back[1], sites)
    assert torch.equal(layout.pack(*back), image)


def test_crystals_survive_the_image_when_the_coder_loses_nothing():
    batch = crystals(BOTH, ONE)
    image = IMAGE.encode(batch)
    assert image.shape == (2, 1, 155, 155)
    assert torch.equal(image.flatten(1)[1, POINTS**3 :][: POINTS**3], torch.zeros(POINTS**3))
    decoded = IMAGE.decode(image)
    assert decoded.ok.all(), decoded.reasons
    assert decoded.crystals.formulas() == batch.formulas()
    direct = VOXELS.decode(VOXELS.encode(batch))
    assert torch.equal(decoded.crystals.frac, direct.crystals.frac)
    assert torch.equal(decoded.crystals.lattice, direct.crystals.lattice)


def test_failures_keep_their_place():
    batch = crystals(BOTH, [([0, 0, 0], 8)], ONE)
    encoded = IMAGE.encode_all(batch)
    assert encoded.ok.tolist() == [True, False, True]
    image = encoded.tensor
    assert image[1].abs().max() == 0
    decoded = IMAGE.decode(image)
    assert decoded.ok.tolist() == [True, False, True]
    assert "empty" in decoded.reasons[1]
    with pytest.raises(InputError, match="O has no channel"):
        IMAGE.encode(batch[1])


def test_errors_teach():
    with pytest.raises(InputError, match="take a side of at least 25"):
        ImageLayout((83, 34), side=20)
    with pytest.raises(InputError, match="make the room larger"):
        ImageLayout((83,), cell_code=300)
    with pytest.raises(InputError, match="each of them once"):
        ImageLayout((83, 83))
    layout = ImageLayout((83, 34))
    with pytest.raises(InputError, match=r"expected \(batch, 1, 28, 28\)"):
        layout.unpack(torch.zeros(2, 28, 28))
    with pytest.raises(InputError, match=r"\(batch, 25\) for the cell"):
        layout.pack(torch.zeros(2, 20), torch.zeros(2, 2, 200))
    with pytest.raises(InputError, match="same elements in the same order"):
        CrystalImage(ImageLayout((83, 34)), VOXELS, Verbatim(POINTS))
    with pytest.raises(InputError, match="has places for"):
        CrystalImage(ImageLayout((34, 83)), VOXELS, Verbatim(POINTS))
