"""Crystals as grids of voxels: one small grid for the cell, and one grid of sites a channel.

iMatGen writes the cell as one Gaussian in the middle of a grid that follows the cell, so that the
cell's shape is the shape of the blob; and the sites of each element as Gaussians in a box of 15 Å.
`VoxelGrid.imatgen` is that. By default the grid of the sites follows the cell too and repeats with
it, so that it fits every cell and no site is ever cut.

Source: Noh et al., Matter 1 (2019) 1370; the same grids in Long et al., npj Comput. Mater. 7
(2021) 66. Grids that repeat: Kim, Lee & Kim, Sci. Adv. 6 (2020) eaax9324.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements, geometry
from ..crystals.batch import wrap
from ..crystals.samples import Samples, in_places
from ..runtime import InputError, number, whole
from ._grids import Peaks, add_gaussians, find_peaks, separate_peaks
from .base import (
    Crystals,
    Descriptor,
    atomic_numbers,
    check_batch,
    first_of,
    mark,
    mark_overlaps,
    read_crystals,
)

SIGMA = 0.26  # Å, as published
CUT = 0.02  # a Gaussian ends where it falls below this, as published
MAX_SITES = 20  # of a crystal, as published
FLOOR = 0.1  # smallest value of the cell's grid that decoding reads
THRESHOLD = 0.3  # smallest peak, as a share of the Gaussian's height
DENSITY_UNIT = 100.0  # atomic numbers are written in this unit where elements share a grid
CHUNK = 32  # crystals worked on at once
CUBE = 5.0 * torch.eye(3, dtype=torch.float64)  # in the place of a cell that failed
MONOMIALS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class VoxelGrid(Descriptor):
    """Encode crystals as (32^3 + channels x 64^3) numbers, and decode them by finding peaks.

    Single precision, about 1 MB a channel and crystal at 64 points. A crystal does not fit when it
    is disordered or has overlapping atoms, an element without a channel, too many sites, too long
    an edge, a flat cell, or a site outside the box. Decoding finds the cell by least squares; it
    fails where a grid is empty, the blob is no cell or its edges are far too long, there are too
    many peaks, or two lie closer than 0.5 Å.

    Attributes:
        elements: atomic numbers, one channel each; None: one channel for all, where a Gaussian is
            as high as its atomic number (in hundreds), like a density of electrons.
        cell_points: points along each edge of the cell's grid.
        site_points: points along each edge of the grid of sites.
        box: edge of the box of sites, Å, with the sites' centroid in its middle; None: the grid
            follows the cell and repeats.
        reduce: write the Minkowski-reduced cell instead of the given one.
        max_edge: longest edge of the cell that is written, Å.
        sigma: width of the Gaussians, Å.
    """

    elements: tuple[int, ...] | None = None
    cell_points: int = 32
    site_points: int = 64
    box: float | None = None
    reduce: bool = True
    max_edge: float = 10.0
    sigma: float = SIGMA

    def __post_init__(self) -> None:
        if self.elements is not None:
            atomic_numbers("elements", self.elements)
        for name in ("cell_points", "site_points"):
            whole(name, getattr(self, name), least=4)
        number("max_edge", self.max_edge, above=0, why="in Å, such as 10")
        if self.box is not None:
            number("box", self.box, above=0, why="in Å, such as 15, or None")
        number("sigma", self.sigma, above=0, why="in Å, such as 0.26")
        step = self.max_edge / self.cell_points
        reach = self.sigma * math.sqrt(-2 * math.log(FLOOR))
        if step * math.sqrt(2) > reach:
            raise InputError(
                f"an edge of {self.max_edge} Å on {self.cell_points} points has steps of "
                f"{step:.2f} Å, too coarse for Gaussians of width {self.sigma} Å: the blob of the "
                f"cell needs steps of at most {reach / math.sqrt(2):.2f} Å; take more points or "
                "a shorter max_edge"
            )

    @classmethod
    def imatgen(cls, elements: tuple[int, ...]) -> VoxelGrid:
        """The published grids: a box of 15 Å, and cells as they come."""
        return cls(elements=elements, box=15.0, reduce=False)

    @property
    def radius(self) -> float:
        """Where a Gaussian ends, Å."""
        return self.sigma * math.sqrt(-2 * math.log(CUT))

    @property
    def channels(self) -> int:
        """How many grids of sites."""
        return 1 if self.elements is None else len(self.elements)

    @property
    def shape(self) -> tuple[int]:
        """One row of numbers a crystal: the grid of the cell, then those of the sites."""
        return (self.cell_points**3 + self.channels * self.site_points**3,)

    # ---- crystal -> tensor

    def verdict(self, crystals: Crystals) -> Samples:
        """Crystals as `written`, and which cannot be, without drawing their grids."""
        given, reasons = read_crystals(crystals)
        self._mark_faults(given, reasons)
        bad = torch.tensor([reason != "" for reason in reasons], device=given.lattice.device)
        bad = bad[:, None, None]
        lattice = torch.where(bad, CUBE.to(bad.device), given.lattice)
        frac = given.frac.masked_fill(bad, 0.0)
        if self.reduce:
            lattice, change = geometry.reduce_lattice(lattice)
            frac = frac @ torch.linalg.inv(change).round()
        hand = torch.linalg.det(lattice).sign()[:, None, None]
        frac = wrap(frac * hand)  # turning both signs of a left-handed cell changes nothing
        lattice = torch.linalg.cholesky(lattice @ lattice.mT)
        mask = given.mask[:, :, None]
        if self.box is not None:
            cart = frac @ lattice
            centroid = (cart * mask).sum(1) / mask.sum(1).clamp_min(1)
            frac = (cart - centroid[:, None]) @ torch.linalg.inv(lattice)
        written = CrystalBatch(lattice, frac * mask, given.numbers)
        self._mark_misfits(written, reasons)
        return Samples.from_reasons(written, reasons)

    def written(self, crystals: Crystals) -> CrystalBatch:
        """The same crystals with the cell, orientation and origin that the grids hold.

        The first lattice vector lies along x and the second in the xy plane; with a box, the
        centroid of the sites is the origin. A crystal that cannot be written is a placeholder.
        """
        return self.verdict(crystals).crystals

    def encode_all(self, crystals: Crystals) -> Samples:
        """(batch, *shape): crystals that do not fit are zeros, with a reason."""
        verdict = self.verdict(crystals)
        written = verdict.crystals
        out = torch.zeros(len(written), *self.shape, device=written.lattice.device)
        cell, sites = self.split(out)
        for rows in torch.as_tensor(np.flatnonzero(verdict.ok)).split(CHUNK):
            cell[rows, 0] = self.cell_grids(written.lattice[rows])
            sites[rows] = self._site_grids(written[rows])
        return Samples(out, verdict.ok, verdict.reasons)

    def cell_grids(self, lattice: Tensor) -> Tensor:
        """(batch, cell points^3): one Gaussian in the middle of each cell (batch, 3, 3)."""
        n = self.cell_points
        grids = torch.zeros(len(lattice), n, n, n, device=lattice.device)
        middle = torch.full((len(lattice), 3), n // 2, dtype=torch.float64, device=lattice.device)
        row = torch.arange(len(lattice), device=lattice.device)
        height = torch.ones(len(lattice), device=lattice.device)
        self._add(grids, row, middle, _metric(lattice, n), height, periodic=True)
        return grids

    def _site_grids(self, crystals: CrystalBatch) -> Tensor:
        """(batch, channels, site points^3) from crystals as written."""
        n, mask = self.site_points, crystals.mask
        crystal = torch.arange(len(crystals), device=mask.device)[:, None].expand_as(mask)[mask]
        numbers = crystals.numbers[mask]
        grids = torch.zeros(len(crystals) * self.channels, n, n, n, device=mask.device)
        row = crystal * self.channels
        height = numbers / DENSITY_UNIT
        if self.elements is not None:
            row = row + self._channel[numbers.cpu()].to(row.device)
            height = torch.ones_like(height)
        if self.box is None:
            place = crystals.frac[mask] * n
        else:
            place = crystals.cart[mask] / (self.box / n) + n / 2
        metric = self._site_metric(crystals.lattice)[crystal]
        self._add(grids, row, place, metric, height, periodic=self.box is None)
        return grids.view(len(crystals), self.channels, n, n, n)

    def _add(self, *sites: Tensor, periodic: bool) -> None:
        add_gaussians(*sites, sigma=self.sigma, radius=self.radius, periodic=periodic)

    def _site_metric(self, lattice: Tensor) -> Tensor:
        """(batch, 3, 3) Å^2: squared lengths of steps between voxels of the sites' grid."""
        if self.box is None:
            return _metric(lattice, self.site_points)
        eye = torch.eye(3, dtype=torch.float64, device=lattice.device)
        return (eye * (self.box / self.site_points) ** 2).expand(len(lattice), 3, 3)

    @cached_property
    def _channel(self) -> Tensor:
        """(119,) channel of each atomic number, -1 where there is none."""
        table = torch.full((elements.N_COLUMNS,), -1)
        for channel, z in enumerate(self.elements or ()):
            table[z] = channel
        return table

    def _mark_faults(self, crystals: CrystalBatch, reasons: list[str]) -> None:
        """Write what is wrong with each crystal as it comes."""
        if self.elements is not None:
            foreign = (crystals.counts() > 0) & (self._channel < 0).to(crystals.numbers.device)
            listed = " ".join(elements.SYMBOLS[z] for z in self.elements)

            def unknown(i: int) -> str:
                names = " ".join(elements.SYMBOLS[z] for z in foreign[i].nonzero()[:, 0].tolist())
                return f"{names} has no channel; the channels are {listed}"

            mark(reasons, ~foreign.any(1), unknown)
        n = crystals.n_sites
        many = f"{{}} sites, at most {MAX_SITES}"
        mark(reasons, n <= MAX_SITES, lambda i: many.format(int(n[i])))
        mark_overlaps(reasons, crystals)

    def _mark_misfits(self, written: CrystalBatch, reasons: list[str]) -> None:
        """Write what does not fit into the grids, of crystals as written."""
        edge = written.lattice.norm(dim=-1).amax(1)
        apart = (1 / torch.linalg.inv(written.lattice).norm(dim=1)).amin(1)
        out = written.cart.abs().flatten(1).amax(1)
        long = f"an edge of {{:.2f}} Å, at most {self.max_edge} Å (max_edge)"
        mark(reasons, edge <= self.max_edge, lambda i: long.format(edge[i]))
        flat = "lattice planes are {:.2f} Å apart, so that the blob of the cell would touch its "
        flat += "images" if self.reduce else "images: reduce the cell (reduce=True)"
        mark(reasons, apart >= 2 * self.radius, lambda i: flat.format(apart[i]))
        if self.box is not None:
            off = "a site {:.2f} Å off the centroid does not fit into the box of "
            off += f"{self.box} Å: let the grid follow the cell (box=None)"
            mark(reasons, out + self.radius <= self.box / 2, lambda i: off.format(out[i]))

    # ---- tensor -> crystal

    def split(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Views of (batch, *shape): (batch, 1, cell points^3) and (batch, channels, site points^3).

        Raises:
            InputError: another shape.
        """
        check_batch(tensor, self.shape, self.note)
        n, m = self.cell_points, self.site_points
        cell = tensor[:, : n**3].unflatten(1, (1, n, n, n))
        return cell, tensor[:, n**3 :].unflatten(1, (self.channels, m, m, m))

    @property
    def note(self) -> str:
        """What a row holds."""
        return (
            f", {self.cell_points}^3 numbers for the cell and {self.channels} x "
            f"{self.site_points}^3 for the sites; use join(cell, sites)"
        )

    def join(self, cell: Tensor, sites: Tensor) -> Tensor:
        """(batch, *shape) from (batch, [1,] cell points^3) and (batch, channels, site points^3)."""
        return torch.cat([cell.flatten(1), sites.flatten(1)], 1)

    def _decode(self, rows: Tensor) -> Samples:
        return Samples.cat([self._decode_some(some.float()) for some in rows.split(CHUNK)])

    def round_trip(self, crystals: CrystalBatch) -> Samples:
        """Encode and decode piece by piece, so that the grids need little memory."""
        parts = []
        for start in range(0, len(crystals), CHUNK):
            encoded = self.encode_all(crystals[start : start + CHUNK])
            decoded = self.decode(encoded.tensor)
            reasons = first_of(encoded.reasons, decoded.reasons)
            parts.append(Samples.from_reasons(decoded.crystals, reasons))
        return Samples.cat(parts)

    def read_cells(self, cell: Tensor) -> tuple[Tensor, list[str]]:
        """Lattices (batch, 3, 3) Å from grids (batch, cell points^3), and what is wrong with each.

        A voxel at the step d from the middle holds ``exp(-d G d / (2 sigma^2))``, so its logarithm
        is linear in the six numbers of the metric G: least squares, weighted by the value squared.
        """
        n = self.cell_points
        value = cell.reshape(len(cell), -1).double()
        value = torch.where(torch.isfinite(value) & (value > FLOOR), value, torch.zeros_like(value))
        square = -2 * self.sigma**2 * value.clamp_min(FLOOR).log()
        design = self._design.to(value.device)  # (n^3, 6)
        weight = value.square()
        products = design[:, :, None] * design[:, None, :]  # (n^3, 6, 6)
        normal = (weight @ products.flatten(1)).view(-1, 6, 6)
        right = (weight * square) @ design
        eye = torch.eye(6, dtype=torch.float64, device=value.device)
        solution = torch.linalg.solve(normal + 1e-12 * eye, right)  # (batch, 6)
        metric = torch.empty(len(cell), 3, 3, dtype=torch.float64, device=value.device)
        for k, (i, j) in enumerate(MONOMIALS):
            metric[:, i, j] = metric[:, j, i] = solution[:, k] * n**2
        found = (weight > 0).sum(1)
        lattice, info = torch.linalg.cholesky_ex(metric)
        edge = lattice.norm(dim=-1).amax(1)
        shape = "the blob in the grid of the cell is not the shape of a cell"
        long = f"an edge of {{:.1f}} Å, far above {self.max_edge} Å"
        reasons = [""] * len(cell)
        mark(reasons, found >= 2, lambda _: "the grid of the cell is empty")
        mark(reasons, info == 0, lambda _: shape)
        mark(reasons, edge < 1.5 * self.max_edge, lambda i: long.format(edge[i]))
        bad = torch.tensor([reason != "" for reason in reasons], device=value.device)
        return torch.where(bad[:, None, None], CUBE.to(bad.device), lattice.tril()), reasons

    @cached_property
    def _design(self) -> Tensor:
        """(cell points^3, 6) products of steps from the middle; mixed ones count twice."""
        n = self.cell_points
        axis = torch.arange(n, dtype=torch.float64) - n // 2
        steps = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        columns = [steps[:, i] * steps[:, j] * (1 if i == j else 2) for i, j in MONOMIALS]
        return torch.stack(columns, 1)

    def _decode_some(self, tensor: Tensor) -> Samples:
        cell, sites = self.split(tensor)
        lattice, reasons = self.read_cells(cell)
        metric = self._site_metric(lattice).repeat_interleave(self.channels, 0)
        low = THRESHOLD / (DENSITY_UNIT if self.elements is None else 1.0)
        options = {"sigma": self.sigma, "threshold": low, "periodic": self.box is None}
        grids = sites.flatten(0, 1)
        peaks = find_peaks(grids, metric, **options)
        crowd = torch.bincount(peaks.row // self.channels, minlength=len(lattice))
        noisy = crowd > 2 * MAX_SITES  # some peaks may be sums of others, but not so many
        keep = ~noisy[peaks.row // self.channels]
        peaks = Peaks(peaks.row[keep], peaks.place[keep], peaks.height[keep])
        peaks = separate_peaks(grids, peaks, metric, radius=self.radius, passes=2, **options)
        crystals, count = self._crystals(lattice, peaks)
        many = f"{{}} peaks, at most {MAX_SITES}"
        mark(reasons, ~noisy, lambda i: many.format(int(crowd[i])))
        mark(reasons, count > 0, lambda _: "no site: the grid has no peak above the threshold")
        mark(reasons, count <= MAX_SITES, lambda i: many.format(int(count[i])))
        mark_overlaps(reasons, crystals)
        return Samples.from_reasons(crystals, reasons)

    def _crystals(self, lattice: Tensor, peaks: Peaks) -> tuple[CrystalBatch, Tensor]:
        """Crystals from peaks; those with none or too many are placeholders. Counts of peaks."""
        owner = peaks.row // self.channels
        count = torch.bincount(owner, minlength=len(lattice))
        place = peaks.place / self.site_points
        if self.box is not None:
            inverse = torch.linalg.inv(lattice)[owner]
            place = (((place - 0.5) * self.box)[:, None] @ inverse)[:, 0]
        if self.elements is None:
            numbers = (peaks.height * DENSITY_UNIT).round().clamp(1, elements.N_COLUMNS - 1).long()
        else:
            numbers = torch.tensor(self.elements, device=owner.device)[peaks.row % self.channels]
        usable = (count > 0) & (count <= MAX_SITES)
        keep, crystals = usable[owner].cpu(), None
        if usable.any():
            parts = [part.cpu() for part in (lattice[usable], place, numbers, count[usable])]
            crystals = CrystalBatch.from_ragged(parts[0], parts[1][keep], parts[2][keep], parts[3])
        placed = in_places(crystals, usable.cpu().numpy())
        return placed.to(lattice.device), count


def largest_site_error(written: CrystalBatch, decoded: Samples) -> np.ndarray:
    """How far the worst site of each decoded crystal is from where `VoxelGrid.written` has it.

    Returns:
        (n,) Å, over all sites and to the nearest of the same element, both ways; infinity where
        decoding failed or the numbers of atoms differ.
    """
    back = decoded.crystals
    right = torch.as_tensor(decoded.ok) & (written.counts() == back.counts()).all(1)
    reduced, change = geometry.reduce_lattice(written.lattice)
    inverse = torch.linalg.inv(change).round()
    delta = (written.frac @ inverse)[:, :, None] - (back.frac @ inverse)[:, None]
    distance = ((delta - delta.round()) @ reduced[:, None]).norm(dim=-1)  # (n, sites, sites)
    same = (written.numbers[:, :, None] == back.numbers[:, None]) & written.mask[:, :, None]
    distance = distance.masked_fill(~same, torch.inf)
    sides = ((2, written.mask), (1, back.mask))
    worst = [distance.amin(axis).masked_fill(~mask, 0.0).amax(1) for axis, mask in sides]
    return torch.maximum(*worst).cpu().masked_fill(~right, torch.inf).numpy()


def _metric(lattice: Tensor, n: int) -> Tensor:
    """(batch, 3, 3) Å^2: squared lengths of steps between points of a grid that follows a cell."""
    return lattice @ lattice.mT / n**2
