"""Every descriptor, every fault: what is broken is told, and nothing else changes or stops."""

import numpy as np
import pytest
import torch

from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors import (
    amd,
    bags,
    composition_matrix,
    coordinate_matrix,
    coulomb,
    crystal_graph,
    crystal_image,
    hydride_blocks,
    methane_grid,
    soap,
    symmetry_sites,
    voxel_grid,
)
from imd_helpers.descriptors.molecules import MoleculeBatch
from imd_helpers.runtime import InputError

NAN, INF = float("nan"), float("inf")


class Verbatim:
    """A coder whose codes are the grids themselves."""

    cell_code = site_code = 12**3

    def encode_cells(self, grids):
        return grids.flatten(1)

    def decode_cells(self, codes):
        return codes.view(-1, 1, 12, 12, 12)

    encode_sites, decode_sites = encode_cells, decode_cells


def crystal(edge, numbers, frac):
    lattice = edge * np.eye(3)[None]
    return CrystalBatch.from_ragged(lattice, np.array(frac, float), numbers, [len(numbers)])


ROCK_SALT = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]
ROCK_SALT += [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
OXIDE = crystal(4.2, [12] * 4 + [8] * 4, ROCK_SALT)
TERNARY = crystal(3.9, [38, 22, 8, 8, 8], PEROVSKITE)
# one silicon in the middle of a cube and oxygen on two of its faces: SiO2, whatever else it is
SILICA = crystal(3.3, [14, 8, 8], [[0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5]])
HYDRIDE = crystal(4.1, [46] * 4 + [1] * 4, ROCK_SALT)
SMALL = voxel_grid.VoxelGrid((12, 8), cell_points=12, site_points=12, max_edge=4.5)
IMAGE = crystal_image.ImageLayout((12, 8), 72, 12**3, 12**3, 12**3)
WATER = MoleculeBatch.from_lists(
    [np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])], [np.array([8, 1, 1])]
)

OF_CRYSTALS = {
    "composition": (composition_matrix.CompositionMatrix(), OXIDE),
    "coordinates": (coordinate_matrix.CoordinateMatrix(), OXIDE),
    "blocks": (hydride_blocks.HydrideBlocks(), HYDRIDE),
    "published blocks": (hydride_blocks.HydrideBlocks(rule="published"), HYDRIDE),
    "voxels": (SMALL, OXIDE),
    "image": (crystal_image.CrystalImage(IMAGE, SMALL, Verbatim()), OXIDE),
    "methane": (methane_grid.MethaneGrid(points=8), SILICA),
    "sites": (symmetry_sites.SymmetrySites((8, 22, 38), 12.0), TERNARY),
    "sine": (coulomb.SineMatrix(8), OXIDE),
    "Ewald": (coulomb.EwaldMatrix(8, accuracy=1e-3), OXIDE),
}
OF_MOLECULES = {
    "Coulomb": (coulomb.CoulombMatrix(4), WATER),
    "eigenvalues": (coulomb.CoulombMatrix(4, order="eigenvalues"), WATER),
    "SOAP": (soap.Soap(["H", "O"], n_max=3, l_max=1), WATER),
    "bonds": (bags.BondBags().fit(WATER), WATER),
}
ALL = OF_CRYSTALS | OF_MOLECULES
ONE_WAY = ("sine", "Ewald", "eigenvalues", "SOAP", "bonds")


def _edited(batch, **edits):
    """Copies of the parts of a batch with one value changed: ``part=(index, value)``."""
    parts = {name: part.clone() for name, part in vars(batch).items()}
    for name, (index, value) in edits.items():
        parts[name][index] = value
    return type(batch)(**parts)


CRYSTAL_FAULTS = {
    "a NaN in the cell": {"lattice": ((0, 1, 1), NAN)},
    "an infinite cell": {"lattice": ((0, 0), INF)},
    "no volume": {"lattice": ((0, 2), 0.0)},
    "a cell of 1e200 Å": {"lattice": ((0,), 1e200 * torch.eye(3, dtype=torch.float64))},
    "a NaN coordinate": {"frac": ((0, 1, 0), NAN)},
    "an infinite coordinate": {"frac": ((0, 1, 0), -INF)},
    "no atoms": {"numbers": ((0,), 0)},
    "an atomic number of 119": {"numbers": ((0, 1), 119)},
    "an atomic number of 10^9": {"numbers": ((0, 1), 10**9)},
    "a negative number": {"numbers": ((0, 1), -8)},
    "padding before an atom": {"numbers": ((0, 1), 0)},
}
MOLECULE_FAULTS = {
    "a NaN position": {"positions": ((0, 1, 0), NAN)},
    "an infinite position": {"positions": ((0, 1, 0), INF)},
    "two atoms in one place": {"positions": ((0, 1), 0.0)},
    "no atoms": {"numbers": ((0,), 0)},
    "an atomic number of 119": {"numbers": ((0, 1), 119)},
    "a negative number": {"numbers": ((0, 1), -1)},
    "padding before an atom": {"numbers": ((0, 1), 0)},
}
BROKEN = [(n, f) for n in OF_CRYSTALS for f in CRYSTAL_FAULTS if n != "composition"]
BROKEN += [("composition", f) for f in CRYSTAL_FAULTS if "number" in f or f == "no atoms"]
BROKEN += [(n, f) for n in OF_MOLECULES for f in MOLECULE_FAULTS]


@pytest.mark.parametrize(("name", "fault"), BROKEN)
def test_a_broken_thing_is_told_and_changes_nothing_else(name, fault):
    descriptor, good = ALL[name]
    bad = _edited(good, **(CRYSTAL_FAULTS | MOLECULE_FAULTS)[fault])
    batch = _joined(good, bad, good)
    encoded = descriptor.encode_all(batch)
    assert encoded.ok.tolist() == [True, False, True]
    assert encoded.reasons[1]
    assert not np.asarray(encoded.content[1]).any()
    alone = descriptor.encode_all(good).content[0]
    assert np.array_equal(np.asarray(encoded.content[[0, 2]]), np.stack([alone, alone]))
    with pytest.raises(InputError):
        descriptor.encode(bad)


def _parts(batch):
    return tuple(vars(batch).values())


def _joined(*batches):
    return type(batches[0])(*map(torch.cat, zip(*map(_parts, batches), strict=True)))


def _decode(name, rows):
    descriptor, good = ALL[name]
    if name != "methane":
        return descriptor.decode(rows)
    return descriptor.decode(rows, good.lattice.repeat(len(rows), 1, 1))


@pytest.mark.parametrize("name", [name for name in ALL if name not in ONE_WAY])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30, -1e30])
def test_a_broken_row_is_told_and_changes_nothing_else(name, value):
    descriptor, good = ALL[name]
    row = descriptor.encode(good)
    bad = torch.full_like(row, value)
    decoded = _decode(name, torch.cat([row, bad, row]))
    alone = _decode(name, row)
    assert decoded.ok.tolist() == [*alone.ok, False, *alone.ok]
    assert decoded.reasons[1]
    kept, expected = decoded[[0, 2]].content, alone[[0, 0]].content
    if isinstance(kept, np.ndarray):
        assert np.array_equal(kept, expected)
        return
    for one, other in zip(_parts(kept), _parts(expected), strict=True):
        width = min(one.shape[1], other.shape[1])
        assert torch.equal(one[:, :width], other[:, :width])
    for part in _parts(decoded.content):
        assert part.isfinite().all()


@pytest.mark.parametrize("name", [name for name in ALL if name not in ONE_WAY])
def test_tensors_arrays_and_lists_decode_alike_and_nothing_else_does(name):
    descriptor, good = ALL[name]
    row = descriptor.encode(good)
    first = _decode(name, row)
    for same in (row.numpy(), row.tolist(), row.double(), row.clone().requires_grad_()):
        again = _decode(name, same)
        assert again.ok.tolist() == first.ok.tolist()
        assert again.reasons == first.reasons
    for wrong in ("text", None, {}, 3.0, [["a"]], [[1.0], [1.0, 2.0]], row[0], row[:0], 1j * row):
        with pytest.raises(InputError, match=r"expected \(batch, "):
            descriptor.decode(wrong, *([good.lattice] if name == "methane" else []))


@pytest.mark.parametrize("name", ONE_WAY)
def test_what_cannot_be_decoded_says_so(name):
    descriptor, _ = ALL[name]
    with pytest.raises(InputError, match="cannot"):
        descriptor.decode(torch.zeros(1, *descriptor.shape))


@pytest.mark.parametrize("name", ALL)
def test_other_things_cannot_be_encoded(name):
    for other in (None, 3, {"a": 1}, torch.zeros(2, 3)):
        with pytest.raises(InputError):
            ALL[name][0].encode_all(other)


def test_cells_beside_a_methane_grid_are_read_alike():
    grid, good = ALL["methane"]
    rows = grid.encode(good).repeat(4, 1, 1, 1, 1)
    cells = good.lattice.repeat(4, 1, 1)
    cells[1, 0, 0], cells[2, 2], cells[3] = NAN, 0.0, 1e9
    decoded = grid.decode(rows.numpy(), cells.numpy())
    assert decoded.ok.tolist()[1:] == [False] * 3
    for reason, word in zip(decoded.reasons[1:], ("NaN", "flat", "edge"), strict=True):
        assert word in reason
    with pytest.raises(InputError, match="one cell for each"):
        grid.decode(rows, good.lattice)


COUNTS = (0, -1, 2.5, NAN, INF, "3", None, True)
SIZES = (0.0, -1.0, NAN, INF, "wide", None, True)
SETTINGS = {
    "max_atoms": (coulomb.SineMatrix, COUNTS),
    "accuracy": (lambda x: coulomb.EwaldMatrix(4, accuracy=x), (*SIZES, 1.0)),
    "r_cut": (lambda x: soap.Soap(["H"], r_cut=x), (*SIZES, 1.0)),
    "n_max": (lambda x: soap.Soap(["H"], n_max=x), COUNTS),
    "l_max": (lambda x: soap.Soap(["H"], l_max=x), COUNTS[1:]),
    "sigma": (lambda x: soap.Soap(["H"], sigma=x), SIZES),
    "length_max": (lambda x: coordinate_matrix.CoordinateMatrix(length_max=x), SIZES),
    "Mg": (lambda x: coordinate_matrix.CoordinateMatrix((12,), (x,)), COUNTS),
    "numbers": (lambda x: coordinate_matrix.CoordinateMatrix((x,), (1,)), (0, 119, 8.5, NAN)),
    "rows": (lambda x: hydride_blocks.HydrideBlocks(rows=x), (*COUNTS, 2)),
    "cell_points": (lambda x: voxel_grid.VoxelGrid(cell_points=x), COUNTS),
    "site_points": (lambda x: voxel_grid.VoxelGrid(site_points=x), COUNTS),
    "max_edge": (lambda x: voxel_grid.VoxelGrid(max_edge=x), SIZES),
    "box": (lambda x: voxel_grid.VoxelGrid(box=x), (*SIZES[:5], True)),
    "elements": (lambda x: voxel_grid.VoxelGrid((x,)), (0, -8, 119, 8.5, NAN)),
    "points": (lambda x: methane_grid.MethaneGrid(points=x), COUNTS),
    "temperature": (
        lambda x: methane_grid.heat_of_adsorption(np.zeros(3), temperature=x),
        SIZES,
    ),
    "side": (lambda x: crystal_image.ImageLayout((8,), side=x), COUNTS),
    "length_max ": (lambda x: symmetry_sites.SymmetrySites((8, 22), x), SIZES),
    "element_numbers": (lambda x: symmetry_sites.SymmetrySites((8, x), 12.0), (8, 0, 2.5, NAN)),
    "space group": (symmetry_sites.SymmetrySites.group_index, ([0], [225.5], [NAN], [-1])),
    "k": (lambda x: amd.average_minimum_distances(OXIDE, k=x), COUNTS),
    "cutoff": (lambda x: crystal_graph.crystal_graph(OXIDE, cutoff=x), SIZES),
    "neighbours": (lambda x: crystal_graph.crystal_graph(OXIDE, neighbours=x), COUNTS[:6]),
    "tie": (lambda x: crystal_graph.crystal_graph(OXIDE, tie=x), SIZES[1:]),
    "step": (lambda x: crystal_graph.gaussians(torch.ones(2), step=x), SIZES),
    "stop": (lambda x: crystal_graph.gaussians(torch.ones(2), stop=x), SIZES),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_out_of_range_is_named_with_its_rule(name):
    make, values = SETTINGS[name]
    for value in values:
        with pytest.raises(InputError, match=rf"{name.strip()}\b.*") as error:
            make(value)
        shown = str(value[0]) if isinstance(value, list) else str(value)
        assert shown in str(error.value)


def test_broken_crystals_have_no_edges_and_no_distances():
    bad = [_edited(OXIDE, **fault) for fault in CRYSTAL_FAULTS.values()]
    batch = CrystalBatch.cat([OXIDE, *bad])
    graph = crystal_graph.crystal_graph(batch)
    assert graph.ok.tolist() == [True] + [False] * len(bad)
    assert torch.equal(graph[0].distance, crystal_graph.crystal_graph(OXIDE).distance)
    found = amd.average_minimum_distances(batch, k=5)
    assert np.isfinite(found[0]).all()
    assert not np.isfinite(found[1:]).any()


def test_bags_refuse_broken_molecules_by_their_number():
    for fault in MOLECULE_FAULTS.values():
        batch = _joined(WATER, _edited(WATER, **fault))
        with pytest.raises(InputError, match="number 1 of 2"):
            bags.BondBags().fit(batch)
