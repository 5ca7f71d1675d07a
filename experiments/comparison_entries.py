"""The descriptors of the table, each with the same two functions: write and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.samples import Samples, assembled, in_places
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
from imd_helpers.models.pgcgm_sites import MEAN_LOG, SPACE_GROUPS, affine, group_index
from imd_helpers.networks.graphs import mean_by_graph

MOST_SITES = 20
PGCGM_MU = MEAN_LOG.numpy()  # of the logarithms of the lengths in Å
PGCGM_SIZE = 9 + 3 + 69 + 192 * 16
UNIT_WIDTH = 7 + 4 * MOST_SITES  # group, lengths, angles, and Z with coordinates of each orbit
N_CODED, CELL_CODE, SITE_CODE = 300, 25, 200  # crystals of the linear coder, numbers of its codes
Kinds = tuple[int, ...]  # the atomic numbers of a crystal, each once


@dataclass(frozen=True, eq=False)
class Entry:
    """A descriptor of the table."""

    family: str  # chapter that it belongs to
    gives: str  # what decoding gives: ``crystal``, ``formula`` or ``nothing``
    size: int  # how many numbers a crystal has
    # encode a batch, a row of numbers each; never raises for a crystal. What ``read`` needs beside
    # the numbers is in ``asked``
    write: Callable[[CrystalBatch], Samples]
    read: Callable[[Samples], Samples] | None = None  # decode to crystals or compositions
    regress: bool = True  # are the numbers comparable between all crystals?
    # which crystals to take where few of a random thousand fit, see `CrystalSet.select`
    kind: Mapping[str, Any] = field(default_factory=dict)


def population(entry: Entry, data: CrystalSet, most: int) -> CrystalBatch:
    """At most so many random crystals that a descriptor can write."""
    data = data.select(**entry.kind)
    batch = data[np.random.default_rng(0).permutation(len(data))].crystals
    return batch[np.flatnonzero(entry.write(batch).ok)[:most]]


def samples(content: Any, ok: np.ndarray, **asked: np.ndarray) -> Samples:
    """Numbers or crystals, and which of them could be written."""
    return Samples(content, ok, tuple("" if good else "not written" for good in ok), asked)


def whole(family: str, make: Callable[[], Any], *, gives: str = "crystal", **more: Any) -> Entry:
    """A descriptor that takes any crystal."""
    descriptor = cache(make)

    def write(batch: CrystalBatch) -> Samples:
        encoded = descriptor().encode_all(batch)
        return replace(encoded, content=encoded.tensor.float())

    def read(written: Samples) -> Samples:
        return descriptor().decode(written.tensor)

    size = int(np.prod(descriptor().shape))
    return Entry(family, gives, size, write, None if gives == "nothing" else read, **more)


def kinds(crystal: CrystalBatch) -> Kinds:
    """Atomic numbers of a crystal, each once, in rising order."""
    return tuple(sorted(set(crystal.numbers[0].tolist()) - {0}))


def own_elements(
    family: str, shape: tuple[int, ...], make: Callable[[Kinds], Any], **more: Any
) -> Entry:
    """A descriptor made for the elements of each crystal; ``make`` gives None where it has none."""

    def write(batch: CrystalBatch) -> Samples:
        makers = [make(kinds(crystal)) for crystal in batch]
        numbers, ok = torch.zeros(len(batch), *shape), np.zeros(len(batch), dtype=bool)
        for i, maker in enumerate(makers):
            if maker is not None:
                encoded = maker.encode_all(batch[i])
                numbers[i], ok[i] = encoded.tensor[0], encoded.ok[0]
        return samples(numbers, ok, maker=np.array(makers, dtype=object))

    def read(written: Samples) -> Samples:
        parts: list[CrystalBatch | str] = []
        makers = written.asked["maker"]
        for maker, row, good in zip(makers, written.tensor, written.ok, strict=True):
            back = maker.decode(row[None]) if good else None
            parts.append(back.crystals if back is not None and back.ok[0] else "not decoded")
        return assembled(parts)

    return Entry(family, "crystal", int(np.prod(shape)), write, read, False, **more)


# ---- compositions


def fractions(batch: CrystalBatch) -> Samples:
    """Share of each element."""
    counts = batch.counts()[:, 1:]
    return Samples.of(counts / counts.sum(1, keepdim=True))


def fractions_back(written: Samples) -> Samples:
    """Smallest whole numbers with these shares."""
    counts = np.zeros((len(written), elements.N_COLUMNS), dtype=np.int64)
    for found, row in zip(counts, written.tensor.numpy(), strict=True):
        shares = row[row > 0]
        n = next(n for n in range(1, 500) if np.abs(n * shares - np.rint(n * shares)).max() < 1e-3)
        found[1:] = np.rint(n * row)
    return Samples.from_counts(counts)


# ---- coordinates


def coordinates() -> coordinate_matrix.CoordinateMatrix:
    """The matrix of the composition-conditioned GAN, with rows for all elements."""
    data = imd.datasets.load("oqmd_icsd").select(max_sites=MOST_SITES)
    return coordinate_matrix.CoordinateMatrix.fit(data.crystals)


def hydride_entry(rule: str) -> Entry:
    """CrystalGAN's blocks, with those of the crystal's own metals."""

    def blocks_of(kinds: Kinds) -> hydride_blocks.HydrideBlocks | None:
        if len(kinds) == 3 and kinds[0] == 1:
            return hydride_blocks.HydrideBlocks(kinds, rule=rule)
        return None

    shape = (4, hydride_blocks.ROWS, 3)
    kind = {"elements": ["H"], "nelements": 3}
    return own_elements("coordinates", shape, blocks_of, kind=kind)


# ---- voxels


@cache
def imatgen(kinds: Kinds) -> voxel_grid.VoxelGrid | None:
    """The published grids of binaries, one channel for each of the crystal's own two elements."""
    return voxel_grid.VoxelGrid.imatgen(kinds) if len(kinds) == 2 else None


class Components(NamedTuple):
    """Principal components of grids: their mean (points,) and axes (points, k)."""

    mean: Tensor
    axes: Tensor

    @classmethod
    def of(cls, grids: Tensor, k: int) -> Components:
        """The first k of (n, points) grids, by the Gram matrix."""
        centred = grids - grids.mean(0)
        values, vectors = torch.linalg.eigh((centred @ centred.T).double())
        axes = centred.T @ vectors[:, -k:].float()
        return cls(grids.mean(0), axes / values[-k:].clamp_min(1e-12).sqrt().float())

    def encode(self, grids: Tensor) -> Tensor:
        """(batch, k)."""
        return (grids.flatten(1) - self.mean) @ self.axes

    def decode(self, code: Tensor) -> Tensor:
        """(batch, 1, points^3)."""
        edge = round(len(self.mean) ** (1 / 3))
        return (self.mean + code @ self.axes.T).view(-1, 1, edge, edge, edge)


@cache
def linear_coder() -> SimpleNamespace:
    """Principal components in the place of CCDCGAN's autoencoders, with codes as long as theirs.

    Fitted to training binaries, none of which has a formula that is tested.
    """
    known = imd.datasets.load("oqmd_icsd").select(max_sites=MOST_SITES)
    tested = known.table["formula"].iloc[np.random.default_rng(0).permutation(len(known))[:1000]]
    data = known.select(split="train", nelements=2)
    data = data[~data.table["formula"].isin(set(tested)).to_numpy()]
    data = data[np.random.default_rng(2).permutation(len(data))[:600]]
    cells, sites = [], []
    for crystal in data.crystals:
        grid = imatgen(kinds(crystal))
        encoded = grid.encode_all(crystal)
        if len(cells) < N_CODED and encoded.ok[0]:
            cell, site = grid.split(encoded.tensor)
            cells.append(cell.flatten(1))
            sites.append(site.flatten(2)[0])
    of_cells, of_sites = torch.cat(cells), torch.cat(sites)
    cell, site = Components.of(of_cells, CELL_CODE), Components.of(of_sites, SITE_CODE)
    both = {"encode_cells": cell.encode, "decode_cells": cell.decode}
    both |= {"encode_sites": site.encode, "decode_sites": site.decode}
    return SimpleNamespace(cell_code=CELL_CODE, site_code=SITE_CODE, **both)


def image(kinds: Kinds) -> crystal_image.CrystalImage | None:
    """CCDCGAN's image of binaries, with the crystal's own two elements."""
    if len(kinds) != 2:
        return None
    layout = crystal_image.ImageLayout(kinds)
    return crystal_image.CrystalImage(layout, imatgen(kinds), linear_coder())


_METHANE = methane_grid.MethaneGrid()


def methane_written(batch: CrystalBatch) -> Samples:
    """ZeoGAN's three grids; the cell is kept beside them, as there."""
    return replace(_METHANE.encode_all(batch), asked={"lattice": batch.lattice})


# ---- symmetry


CUBIC_TERNARIES = {"nelements": 3, "space_groups": list(symmetry_sites.SPACE_GROUPS)}


def site_rows() -> symmetry_sites.SymmetrySites:
    """CubicGAN's descriptor."""
    data = imd.datasets.load("oqmd_icsd").select(**CUBIC_TERNARIES)
    return symmetry_sites.SymmetrySites.fit(symmetry_sites.find_sites(data.crystals)[0])


def unit_written(batch: CrystalBatch) -> Samples:
    """Space group, cell and one site of each orbit."""
    numbers, ok = torch.zeros(len(batch), UNIT_WIDTH), np.zeros(len(batch), dtype=bool)
    for i, orbit in enumerate(symmetry.orbits(batch)):
        if orbit is None or len(orbit.numbers) > MOST_SITES:
            continue
        lengths, angles = coordinate_matrix.cell_parameters(torch.as_tensor(orbit.lattice)[None])
        sites = np.column_stack([orbit.numbers, orbit.frac]).ravel()
        row = np.concatenate([[orbit.space_group], lengths[0], angles[0], sites])
        numbers[i, : len(row)], ok[i] = torch.as_tensor(row), True
    return samples(numbers, ok)


def unit_back(written: Samples) -> Samples:
    """Apply the operations of the group."""
    rows = written.valid().double()
    lattice, _ = coordinate_matrix.lattice_of(rows[:, 1:4], rows[:, 4:7])
    sites = rows[:, 7:].view(len(rows), MOST_SITES, 4).numpy()
    groups, kinds = rows[:, 0].long().numpy(), sites[:, :, 0].astype(np.int64)
    crystals, _ = symmetry.expand(groups, lattice.numpy(), sites[:, :, 1:], kinds)
    return samples(in_places(crystals, written.ok), written.ok)


def pgcgm_entry(decimals: int | None) -> Entry:
    """PGCGM's input: base sites, lengths, features and the operations of the group."""
    raw = elements.features()
    table = torch.as_tensor(elements.minmax(raw, np.arange(1, len(raw))) * 2 - 1)

    def write(batch: CrystalBatch) -> Samples:
        ok, group = np.zeros(len(batch), dtype=bool), np.zeros(len(batch), dtype=np.int64)
        numbers, kinds = torch.zeros(len(batch), PGCGM_SIZE), np.zeros((len(batch), 3), np.int64)
        maybe = np.flatnonzero((batch.counts() > 0).sum(1).numpy() == 3)
        some = symmetry.orbits(batch[maybe]) if len(maybe) else []
        for i, orbit in zip(maybe, some, strict=True):
            if orbit is None or orbit.space_group not in SPACE_GROUPS or len(orbit.numbers) != 3:
                continue
            if len(set(orbit.numbers.tolist())) == 3:
                parts = [
                    (orbit.frac.ravel() - 0.5) / 0.5,
                    (np.log(np.linalg.norm(orbit.lattice, axis=1)) - PGCGM_MU) / PGCGM_MU,
                    table[orbit.numbers].numpy().ravel(),
                    affine()[group_index(orbit.space_group)].numpy().ravel(),
                ]
                numbers[i], ok[i] = torch.as_tensor(np.concatenate(parts)), True
                group[i], kinds[i] = orbit.space_group, orbit.numbers
        return samples(numbers, ok, group=group, kinds=kinds)

    def read(written: Samples) -> Samples:
        ok = written.ok
        if not ok.any():
            return samples(in_places(None, ok), ok)
        rows = written.valid().double().numpy()
        frac = (rows[:, :9] * 0.5 + 0.5).reshape(-1, 3, 3)
        frac = frac if decimals is None else frac.round(decimals)
        lengths = np.exp(rows[:, 9:12] * PGCGM_MU + PGCGM_MU)
        groups, numbers = written.asked["group"][ok], written.asked["kinds"][ok]
        angles = np.full((len(groups), 3), 90.0)
        angles[(groups >= 143) & (groups <= 194), 2] = 120.0  # hexagonal axes
        lattice, _ = coordinate_matrix.lattice_of(torch.as_tensor(lengths), torch.as_tensor(angles))
        crystals, _ = symmetry.expand(groups, lattice.numpy(), frac, numbers, tolerance=1e-3)
        return samples(in_places(crystals, ok), ok)

    return Entry("symmetry", "crystal", PGCGM_SIZE, write, read, decimals is None)


# ---- without a way back


def graph_written(batch: CrystalBatch) -> Samples:
    """Means over sites and edges of a crystal graph, as a network without training would pool."""
    graph = crystal_graph(batch)
    sites, edges = graph.site_features(), graph.edge_features()
    i, j = graph.edge_index
    product = sites[i] * sites[j]  # (edges, 23)
    difference = (sites[i] - sites[j]).abs()
    features = torch.cat([edges, product, difference], dim=1)
    pooled = mean_by_graph(features, graph.site_crystal[i], len(graph))
    mean = mean_by_graph(sites, graph.site_crystal, len(graph))
    square = mean_by_graph(sites**2, graph.site_crystal, len(graph))
    spread = (square - mean**2).clamp_min(0).sqrt()
    return samples(torch.cat([pooled, mean, spread], dim=1), graph.ok)


def amd_written(batch: CrystalBatch) -> Samples:
    """100 average minimum distances."""
    rows = torch.as_tensor(amd.average_minimum_distances(batch))
    return samples(rows.nan_to_num(), (~rows.isnan().any(1)).numpy())


@cache
def _soap() -> Any:
    from dscribe.descriptors import SOAP

    chi = elements.features()[:, 1]  # electronegativity, the mean where there is none
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


def soap_written(batch: CrystalBatch) -> Samples:
    """Mean power spectrum of a density in which each atom weighs its electronegativity."""
    from ase import Atoms

    atoms = [Atoms(z, scaled_positions=frac, cell=cell, pbc=True) for cell, frac, z in batch.each()]
    return Samples.of(torch.as_tensor(np.atleast_2d(_soap().create(atoms))))


def pair_matrix(make: Callable[[int], Any]) -> Entry:
    """A sine or an Ewald matrix, sorted; twice the sites, so that a doubled cell fits."""
    return whole("matrices", lambda: make(2 * MOST_SITES), gives="nothing")


ENTRIES: dict[str, Entry] = {
    "element fractions": Entry("compositions", "formula", 118, fractions, fractions_back),
    "composition matrix (MatGAN)": whole(
        "compositions", composition_matrix.CompositionMatrix, gives="formula"
    ),
    "coordinate matrix (Kim et al.)": whole("coordinates", coordinates),
    "hydride blocks (CrystalGAN), published": hydride_entry("published"),
    "hydride blocks (CrystalGAN)": hydride_entry("apart"),
    "voxels (iMatGen), published": own_elements("voxels", imatgen((1, 8)).shape, imatgen),
    "crystal image (CCDCGAN), linear coder": own_elements("voxels", (1, 28, 28), image),
    "voxels, one channel": whole("voxels", voxel_grid.VoxelGrid),
    "methane grids (ZeoGAN), cell given": Entry(
        "voxels",
        "crystal",
        3 * 32**3,
        methane_written,
        lambda written: _METHANE.decode(written.tensor, written.asked["lattice"]),
        regress=False,
        kind={"formulas": ["SiO2"]},
    ),
    "three sites (CubicGAN)": whole("symmetry", site_rows, kind=CUBIC_TERNARIES),
    "base sites (PGCGM), two decimals": pgcgm_entry(2),
    "base sites (PGCGM)": pgcgm_entry(None),
    "asymmetric unit": Entry("symmetry", "crystal", UNIT_WIDTH, unit_written, unit_back),
    "crystal graph, pooled": Entry("graphs", "nothing", 41 + 4 * 23, graph_written),
    "average minimum distances": Entry("graphs", "nothing", amd.K, amd_written),
    "SOAP, by electronegativity": Entry("graphs", "nothing", 126, soap_written),
    "sine matrix": pair_matrix(coulomb.SineMatrix),
    "Ewald matrix": pair_matrix(coulomb.EwaldMatrix),
}
