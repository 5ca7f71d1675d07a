"""The descriptors of the table, each with the same two functions: write and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.samples import Samples, placeholder
from imd_helpers.datasets.store import CrystalSet
from imd_helpers.descriptors import (
    amd,
    composition_matrix,
    coordinate_matrix,
    coulomb,
    crystal_image,
    hydride_blocks,
    methane_grid,
    symmetry_sites,
    voxel_grid,
)
from imd_helpers.descriptors.crystal_graph import crystal_graph

MOST_SITES = 20
PGCGM_GROUPS = (139, 194, 71, 225, 227, 62, 191, 148, 166, 221, 167, 164, 123, 63, 129, 216, 122,
                186, 141, 140)  # fmt: skip
PGCGM_MU = np.array([1.5237, 1.5237, 1.9051])  # of the logarithms of the lengths in Å
MERGE = 0.02  # of a cell edge


@dataclass(frozen=True, eq=False)
class Written:
    """Numbers of n crystals, zeros where ``ok`` is False; what ``read`` needs besides."""

    numbers: Tensor
    ok: np.ndarray
    extra: Any = None


@dataclass(frozen=True, eq=False)
class Entry:
    """A descriptor of the table.

    Attributes:
        family: chapter that it belongs to.
        gives: what decoding gives: ``crystal``, ``formula`` or ``nothing``.
        size: how many numbers a crystal has.
        write: encode a batch; never raises for a crystal.
        read: decode: crystals, or reduced formulas (None where it fails).
        regress: are the numbers comparable between all crystals?
        population: which crystals to take where few of a random thousand fit.
    """

    family: str
    gives: str
    size: int
    write: Callable[[CrystalBatch], Written]
    read: Callable[[Written], Any] | None = None
    regress: bool = True
    population: Callable[[CrystalSet], CrystalSet] | None = None


def population(entry: Entry, data: CrystalSet, most: int) -> CrystalBatch:
    """At most so many random crystals that a descriptor can write."""
    data = entry.population(data) if entry.population else data
    order = np.random.default_rng(0).permutation(len(data))
    batch = data[order].crystals
    return batch[np.flatnonzero(entry.write(batch).ok)[:most]]


def on_those(
    ok: np.ndarray, shape: tuple[int, ...], encode: Callable[[np.ndarray], Tensor]
) -> Written:
    """Encode the rows that are ok, and leave zeros for the others."""
    numbers = torch.zeros(len(ok), *shape)
    rows = np.flatnonzero(ok)
    if len(rows):
        numbers[torch.as_tensor(rows)] = encode(rows).float().reshape(len(rows), *shape)
    return Written(numbers, ok)


def in_place(ok: np.ndarray, crystals: CrystalBatch | None, good: np.ndarray) -> Samples:
    """Crystals of the rows ``good``, placeholders elsewhere."""
    parts = [placeholder(1)] * len(ok)
    for i, crystal in zip(good, crystals if crystals is not None else (), strict=True):
        parts[i] = crystal
    reasons = tuple("" if good_one else "not written" for good_one in ok)
    return Samples(CrystalBatch.cat(parts), ok, reasons)


# ---- compositions


def fractions(batch: CrystalBatch) -> Written:
    """Share of each element."""
    counts = batch.counts()[:, 1:]
    return Written(counts / counts.sum(1, keepdim=True), np.ones(len(batch), dtype=bool))


def fractions_back(written: Written) -> list[str]:
    """Smallest whole numbers with these shares."""
    out = []
    for row in written.numbers.numpy():
        shares = row[row > 0]
        n = next(n for n in range(1, 500) if np.abs(n * shares - np.rint(n * shares)).max() < 1e-3)
        whole = {int(z) + 1: round(float(n * row[z])) for z in np.flatnonzero(row)}
        out.append(elements.reduced_formula(whole))
    return out


_MATRIX = composition_matrix.CompositionMatrix()


def matrix_written(batch: CrystalBatch) -> Written:
    """MatGAN's matrix."""
    encoded = _MATRIX.encode_all(batch)
    return Written(encoded.tensor, encoded.ok)


def matrix_back(written: Written) -> list[str | None]:
    """Formulas by the published rule."""
    back = _MATRIX.decode(written.numbers)
    return [
        elements.reduced_formula({int(z): int(c[z]) for z in np.flatnonzero(c)}) if good else None
        for c, good in zip(back.counts, back.ok, strict=True)
    ]


# ---- coordinates


@cache
def _coordinates() -> coordinate_matrix.CoordinateMatrix:
    data = imd.datasets.load("oqmd_icsd").select(max_sites=MOST_SITES)
    return coordinate_matrix.CoordinateMatrix.fit(data.crystals)


def coordinates_written(batch: CrystalBatch) -> Written:
    """The matrix of the composition-conditioned GAN, with rows for all elements."""
    encoded = _coordinates().encode_all(batch)
    return Written(encoded.tensor, encoded.ok)


def coordinates_back(written: Written) -> Samples:
    """Crystals from coordinate matrices."""
    return _coordinates().decode(written.numbers)


def hydrides(data: CrystalSet) -> CrystalSet:
    """Crystals of hydrogen and two other elements."""
    return data.select(elements=["H"], nelements=3)


def hydride_entry(rule: str) -> Entry:
    """CrystalGAN's blocks, with those of the crystal's own metals."""

    def blocks_of(row: Tensor) -> hydride_blocks.HydrideBlocks | None:
        others = sorted(set(row.tolist()) - {0, 1})
        if 1 not in row or len(others) != 2:
            return None
        return hydride_blocks.HydrideBlocks((1, others[0], others[1]), rule=rule)

    def write(batch: CrystalBatch) -> Written:
        blocks = [blocks_of(row) for row in batch.numbers]
        numbers, ok = torch.zeros(len(batch), 4, hydride_blocks.ROWS, 3), np.zeros(len(batch), bool)
        for i, block in enumerate(blocks):
            if block is not None:
                encoded = block.encode_all(batch[i])
                numbers[i], ok[i] = encoded.tensor[0], encoded.ok[0]
        return Written(numbers, ok, blocks)

    def read(written: Written) -> Samples:
        parts = [
            block.decode(row[None]) if block is not None and good else None
            for block, row, good in zip(written.extra, written.numbers, written.ok, strict=True)
        ]
        ok = np.array([part is not None and bool(part.ok[0]) for part in parts])
        crystals = [p.crystals if p is not None else placeholder(1) for p in parts]
        return Samples(CrystalBatch.cat(crystals), ok, ("",) * len(ok))

    size = 4 * hydride_blocks.ROWS * 3
    return Entry("coordinates", "crystal", size, write, read, False, hydrides)


# ---- voxels


def voxel_entry(grid: voxel_grid.VoxelGrid) -> Entry:
    """One channel for all elements."""

    def write(batch: CrystalBatch) -> Written:
        encoded = grid.encode_all(batch)
        return Written(encoded.tensor, encoded.ok)

    def read(written: Written) -> Samples:
        return grid.decode(written.numbers)

    return Entry("voxels", "crystal", grid.shape[0], write, read)


@cache
def _imatgen(numbers: tuple[int, ...]) -> voxel_grid.VoxelGrid:
    return voxel_grid.VoxelGrid.imatgen(numbers)


def imatgen_written(batch: CrystalBatch) -> Written:
    """The published grids of binaries, one channel for each of the crystal's own two elements."""
    systems = [tuple(sorted(set(row.tolist()) - {0})) for row in batch.numbers]
    width = _imatgen((1, 8)).shape[0]
    numbers, ok = torch.zeros(len(batch), width), np.zeros(len(batch), dtype=bool)
    for i, system in enumerate(systems):
        if len(system) == 2:
            encoded = _imatgen(system).encode_all(batch[i])
            numbers[i], ok[i] = encoded.tensor[0], encoded.ok[0]
    return Written(numbers, ok, systems)


def imatgen_back(written: Written) -> Samples:
    """Crystals by peaks."""
    parts = [
        _imatgen(system).decode(row[None]) if good else None
        for system, row, good in zip(written.extra, written.numbers, written.ok, strict=True)
    ]
    ok = np.array([part is not None and bool(part.ok[0]) for part in parts])
    crystals = [p.crystals if p is not None else placeholder(1) for p in parts]
    return Samples(CrystalBatch.cat(crystals), ok, ("",) * len(ok))


class LinearCoder:
    """Principal components in the place of CCDCGAN's autoencoders, with codes as long as theirs."""

    def __init__(self, cells: Tensor, sites: Tensor, *, cell_code: int = 25, site_code: int = 200):
        """Fit to grids (n, points) of cells and of the sites of one element."""
        self.cell_code, self.site_code = cell_code, site_code
        self._cells, self._sites = (
            _components(grids, k) for grids, k in ((cells, cell_code), (sites, site_code))
        )

    def encode_cells(self, cell: Tensor) -> Tensor:
        """(batch, cell code)."""
        return self._encode(self._cells, cell)

    def decode_cells(self, code: Tensor) -> Tensor:
        """(batch, 1, points^3)."""
        return self._decode(self._cells, code)

    def encode_sites(self, sites: Tensor) -> Tensor:
        """(batch, site code)."""
        return self._encode(self._sites, sites)

    def decode_sites(self, code: Tensor) -> Tensor:
        """(batch, 1, points^3)."""
        return self._decode(self._sites, code)

    @staticmethod
    def _encode(fitted: tuple[Tensor, Tensor], grids: Tensor) -> Tensor:
        mean, axes = fitted
        return (grids.flatten(1) - mean) @ axes

    @staticmethod
    def _decode(fitted: tuple[Tensor, Tensor], code: Tensor) -> Tensor:
        mean, axes = fitted
        edge = round(len(mean) ** (1 / 3))
        return (mean + code @ axes.T).view(-1, 1, edge, edge, edge)


def _components(grids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Mean (points,) and the first k principal axes (points, k), by the Gram matrix."""
    mean = grids.mean(0)
    grids = grids - mean
    values, vectors = torch.linalg.eigh((grids @ grids.T).double())
    axes = grids.T @ vectors[:, -k:].float()
    return mean, axes / values[-k:].clamp_min(1e-12).sqrt().float()


@cache
def _linear_coder() -> LinearCoder:
    known = imd.datasets.load("oqmd_icsd").select(max_sites=MOST_SITES)
    tested = known.table["formula"].iloc[np.random.default_rng(0).permutation(len(known))[:1000]]
    data = known.select(split="train", nelements=2)
    data = data[~data.table["formula"].isin(set(tested)).to_numpy()]  # no formula that is tested
    data = data[np.random.default_rng(2).permutation(len(data))[:600]]
    cells, sites = [], []
    for crystal in data.crystals:
        grid = _imatgen(tuple(sorted(set(crystal.numbers[0].tolist()) - {0})))
        encoded = grid.encode_all(crystal)
        if len(cells) < N_CODED and encoded.ok[0]:
            cell, site = grid.split(encoded.tensor)
            cells.append(cell.flatten(1))
            sites.append(site.flatten(2)[0])
    return LinearCoder(torch.cat(cells), torch.cat(sites))


N_CODED = 300  # training crystals of the linear coder


def _image(system: tuple[int, ...]) -> crystal_image.CrystalImage:
    layout = crystal_image.ImageLayout.one_system(system)
    return crystal_image.CrystalImage(layout, _imatgen(system), _linear_coder())


def image_written(batch: CrystalBatch) -> Written:
    """CCDCGAN's image of binaries, with the crystal's own two elements."""
    systems = [tuple(sorted(set(row.tolist()) - {0})) for row in batch.numbers]
    numbers, ok = torch.zeros(len(batch), 28 * 28), np.zeros(len(batch), dtype=bool)
    for i, system in enumerate(systems):
        if len(system) == 2:
            encoded = _image(system).encode_all(batch[i])
            numbers[i], ok[i] = encoded.tensor.flatten(), encoded.ok[0]
    return Written(numbers, ok, systems)


def image_back(written: Written) -> Samples:
    """Codes to grids, grids to crystals."""
    parts = [
        _image(system).decode(row.view(1, 1, 28, 28)) if good else None
        for system, row, good in zip(written.extra, written.numbers, written.ok, strict=True)
    ]
    ok = np.array([part is not None and bool(part.ok[0]) for part in parts])
    crystals = [p.crystals if p is not None else placeholder(1) for p in parts]
    return Samples(CrystalBatch.cat(crystals), ok, ("",) * len(ok))


_METHANE = methane_grid.MethaneGrid()


def methane_written(batch: CrystalBatch) -> Written:
    """ZeoGAN's three grids; the cell is kept beside them, as there."""
    encoded = _METHANE.encode_all(batch)
    return Written(encoded.tensor, encoded.ok, batch.lattice)


def methane_back(written: Written) -> Samples:
    """Frameworks by peaks, in the given cells."""
    return _METHANE.decode(written.numbers, written.extra)


def silica(data: CrystalSet) -> CrystalSet:
    """Crystals of SiO2."""
    return data.select(formulas=["SiO2"])


# ---- symmetry


@cache
def _sites() -> symmetry_sites.SymmetrySites:
    data = cubic_ternaries(imd.datasets.load("oqmd_icsd"))
    return symmetry_sites.SymmetrySites.fit(symmetry_sites.find_sites(data.crystals)[0])


def cubic_ternaries(data: CrystalSet) -> CrystalSet:
    """What may pass CubicGAN's filter."""
    return data.select(nelements=3, space_groups=list(symmetry_sites.SPACE_GROUPS))


def cubicgan_written(batch: CrystalBatch) -> Written:
    """Three rows of 28."""
    numbers, ok = torch.zeros(len(batch), 3, 28), np.zeros(len(batch), dtype=bool)
    maybe = np.flatnonzero((batch.counts() > 0).sum(1).numpy() == 3)
    if len(maybe):
        sites, kept = symmetry_sites.find_sites(batch[maybe])
        ok[maybe[kept]] = True
        if len(kept):
            numbers[torch.as_tensor(maybe[kept])] = _sites().encode_sites(sites)
    return Written(numbers, ok)


def cubicgan_back(written: Written) -> Samples:
    """Crystals by symmetry operations."""
    return _sites().decode(written.numbers)


UNIT_WIDTH = 7 + 4 * MOST_SITES  # group, lengths, angles, and Z with coordinates of each orbit


def unit_written(batch: CrystalBatch) -> Written:
    """Space group, cell and one site of each orbit."""
    numbers, ok = torch.zeros(len(batch), UNIT_WIDTH), np.zeros(len(batch), dtype=bool)
    for i, orbit in enumerate(symmetry.orbits(batch)):
        if orbit is None or len(orbit.numbers) > MOST_SITES:
            continue
        lengths, angles = coordinate_matrix.cell_parameters(torch.as_tensor(orbit.lattice)[None])
        sites = np.column_stack([orbit.numbers, orbit.frac]).ravel()
        row = np.concatenate([[orbit.space_group], lengths[0], angles[0], sites])
        numbers[i, : len(row)], ok[i] = torch.as_tensor(row), True
    return Written(numbers, ok)


def unit_back(written: Written) -> Samples:
    """Apply the operations of the group."""
    good = np.flatnonzero(written.ok)
    rows = written.numbers[torch.as_tensor(good)].double()
    lattice, _ = coordinate_matrix.lattice_of(rows[:, 1:4], rows[:, 4:7])
    sites = rows[:, 7:].view(len(rows), MOST_SITES, 4).numpy()
    groups, kinds = rows[:, 0].long().numpy(), sites[:, :, 0].astype(np.int64)
    crystals, _ = symmetry.expand(groups, lattice.numpy(), sites[:, :, 1:], kinds)
    return in_place(written.ok, crystals, good)


def pgcgm_entry(decimals: int | None) -> Entry:
    """PGCGM's input: base sites, lengths, features and the operations of the group."""
    raw = elements.features("cubicgan")
    table = torch.as_tensor(elements.minmax(raw, np.arange(1, len(raw))) * 2 - 1)

    def write(batch: CrystalBatch) -> Written:
        ok = np.zeros(len(batch), dtype=bool)
        numbers, found = torch.zeros(len(batch), 9 + 3 + 69 + 192 * 16), []
        maybe = np.flatnonzero((batch.counts() > 0).sum(1).numpy() == 3)
        some = symmetry.orbits(batch[maybe]) if len(maybe) else []
        for i, orbit in zip(maybe, some, strict=True):
            if orbit is None or orbit.space_group not in PGCGM_GROUPS or len(orbit.numbers) != 3:
                continue
            if len(set(orbit.numbers.tolist())) == 3:
                parts = [
                    (orbit.frac.ravel() - 0.5) / 0.5,
                    (np.log(np.linalg.norm(orbit.lattice, axis=1)) - PGCGM_MU) / PGCGM_MU,
                    table[orbit.numbers].numpy().ravel(),
                    affine(orbit.space_group).ravel(),
                ]
                numbers[i], ok[i] = torch.as_tensor(np.concatenate(parts)), True
                found.append((i, orbit.space_group, orbit.numbers))
        return Written(numbers, ok, found)

    def read(written: Written) -> Samples:
        if not written.extra:
            return in_place(written.ok, None, np.zeros(0, dtype=np.int64))
        good = np.array([i for i, _, _ in written.extra])
        rows = written.numbers[torch.as_tensor(good)].double().numpy()
        frac = (rows[:, :9] * 0.5 + 0.5).reshape(-1, 3, 3)
        frac = frac if decimals is None else frac.round(decimals)
        lengths = np.exp(rows[:, 9:12] * PGCGM_MU + PGCGM_MU)
        groups = np.array([g for _, g, _ in written.extra])
        angles = np.full((len(groups), 3), 90.0)
        angles[(groups >= 143) & (groups <= 194), 2] = 120.0  # hexagonal axes
        lattice, _ = coordinate_matrix.lattice_of(torch.as_tensor(lengths), torch.as_tensor(angles))
        kinds = np.stack([kind for _, _, kind in written.extra])
        crystals, _ = symmetry.expand(groups, lattice.numpy(), frac, kinds, tolerance=1e-3)
        return in_place(written.ok, crystals, good)

    size = 9 + 3 + 69 + 192 * 16
    return Entry("symmetry", "crystal", size, write, read, decimals is None, ternaries)


def ternaries(data: CrystalSet) -> CrystalSet:
    """What may fit PGCGM; few are enough."""
    data = data.select(nelements=3, space_groups=list(PGCGM_GROUPS))
    return data[np.random.default_rng(0).permutation(len(data))[:2000]]


@cache
def affine(group: int) -> np.ndarray:
    """(192, 4, 4) operations, padded with zeros."""
    rotations, translations = symmetry.operations(group)
    out = np.zeros((192, 4, 4))
    out[: len(rotations), :3, :3], out[: len(rotations), :3, 3] = rotations, translations
    out[: len(rotations), 3, 3] = 1
    return out


# ---- without a way back


def graph_written(batch: CrystalBatch) -> Written:
    """Means over sites and edges of a crystal graph, as a network without training would pool."""
    graph = crystal_graph(batch)
    sites, edges = graph.site_features(), graph.edge_features()
    i, j = graph.edge_index
    product = sites[i] * sites[j]  # (edges, 23)
    difference = (sites[i] - sites[j]).abs()
    kinds = torch.cat([edges, product, difference], dim=1)
    n_edges = torch.bincount(graph.site_crystal[i], minlength=len(graph)).clamp_min(1)
    pooled = torch.zeros(len(graph), kinds.shape[1]).index_add(0, graph.site_crystal[i], kinds)
    mean = torch.zeros(len(graph), 23).index_add(0, graph.site_crystal, sites)
    mean /= graph.n_sites[:, None]
    square = torch.zeros(len(graph), 23).index_add(0, graph.site_crystal, sites**2)
    spread = (square / graph.n_sites[:, None] - mean**2).clamp_min(0).sqrt()
    return Written(torch.cat([pooled / n_edges[:, None], mean, spread], dim=1), graph.ok)


def amd_written(batch: CrystalBatch) -> Written:
    """100 average minimum distances."""
    rows = torch.as_tensor(amd.average_minimum_distances(batch))
    return Written(rows.nan_to_num(), (~rows.isnan().any(1)).numpy())


@cache
def _soap() -> Any:
    from dscribe.descriptors import SOAP

    chi = elements.features("cubicgan")[:, 1]  # electronegativity, the mean where there is none
    species = list(elements.SYMBOLS[1:97])
    weights = {s: float(chi[elements.number(s)]) for s in species}
    return SOAP(
        species=species,
        periodic=True,
        r_cut=5.0,
        n_max=6,
        l_max=5,
        sigma=0.5,
        average="outer",
        compression={"mode": "mu2", "species_weighting": weights},
    )


def soap_written(batch: CrystalBatch) -> Written:
    """Mean power spectrum of a density in which each atom weighs its electronegativity."""
    from ase import Atoms

    atoms = [
        Atoms(c.numbers[c.mask].numpy(), scaled_positions=c.frac[c.mask].numpy(),
              cell=c.lattice[0].numpy(), pbc=True)
        for c in batch
    ]  # fmt: skip
    rows = np.atleast_2d(_soap().create(atoms))
    return Written(torch.as_tensor(rows), np.ones(len(batch), dtype=bool))


def matrix_entry(make: Callable[[int], Any]) -> Entry:
    """A sine or an Ewald matrix, sorted; twice the sites, so that a doubled cell fits."""
    matrix = make(2 * MOST_SITES)

    def write(batch: CrystalBatch) -> Written:
        ok = (batch.n_sites <= 2 * MOST_SITES).numpy()
        return on_those(ok, matrix.shape, lambda rows: matrix.encode(batch[rows]))

    return Entry("matrices", "nothing", int(np.prod(matrix.shape)), write)


ENTRIES: dict[str, Entry] = {
    "element fractions": Entry("compositions", "formula", 118, fractions, fractions_back),
    "composition matrix (MatGAN)": Entry(
        "compositions", "formula", 85 * 8, matrix_written, matrix_back
    ),
    "coordinate matrix (Kim et al.)": Entry(
        "coordinates", "crystal", int(np.prod(_coordinates().shape)),
        coordinates_written, coordinates_back,
    ),
    "hydride blocks (CrystalGAN), published": hydride_entry("published"),
    "hydride blocks (CrystalGAN)": hydride_entry("apart"),
    "voxels (iMatGen), published": Entry(
        "voxels", "crystal", _imatgen((1, 8)).shape[0], imatgen_written, imatgen_back, False
    ),
    "crystal image (CCDCGAN), linear coder": Entry(
        "voxels", "crystal", 28 * 28, image_written, image_back, False
    ),
    "voxels, one channel": voxel_entry(voxel_grid.VoxelGrid()),
    "methane grids (ZeoGAN), cell given": Entry(
        "voxels", "crystal", 3 * 32**3, methane_written, methane_back, False, silica
    ),
    "three sites (CubicGAN)": Entry(
        "symmetry", "crystal", 84, cubicgan_written, cubicgan_back, True, cubic_ternaries
    ),
    "base sites (PGCGM), two decimals": pgcgm_entry(2),
    "base sites (PGCGM)": pgcgm_entry(None),
    "asymmetric unit": Entry("symmetry", "crystal", UNIT_WIDTH, unit_written, unit_back),
    "crystal graph, pooled": Entry("graphs", "nothing", 41 + 4 * 23, graph_written),
    "average minimum distances": Entry("graphs", "nothing", amd.K, amd_written),
    "SOAP, by electronegativity": Entry("graphs", "nothing", 126, soap_written),
    "sine matrix": matrix_entry(coulomb.SineMatrix),
    "Ewald matrix": matrix_entry(coulomb.EwaldMatrix),
}  # fmt: skip
