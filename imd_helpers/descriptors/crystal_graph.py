"""Crystal graphs: sites as nodes, neighbours with their periodic images as edges.

Two sites may be joined by several edges, one for each image, and a site may be its own neighbour in
the next cell: a multigraph. It holds what a message-passing network reads, and does not depend on
orientation, origin, choice of cell or order of the sites. It cannot be decoded: edges hold lengths
and no directions, and a network sums over them.

Source: Xie & Grossman, Phys. Rev. Lett. 120 (2018) 145301 (CGCNN): 12 neighbours within 8 Å,
Gaussians every 0.2 Å. Its code keeps the 12 nearest neighbours exactly; where the 12th and the 13th
are equally far, which one is kept depends on the order of the sites. Here ties are kept by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..crystals.batch import CrystalBatch, check_shapes
from ..runtime import InputError, number, whole
from .amd import MOST, measurable_sites

CUTOFF, NEIGHBOURS = 8.0, 12  # Å and sites, as published
STEP = 0.2  # Å, between the centres of the Gaussians, as published
TIE = 0.01  # Å; neighbours of one shell differ by less: rounded coordinates of the data
REASONS = (
    "",
    "not finite, without volume or without atoms",
    "a site has no neighbour within the cutoff",
    "two atoms are on the same place",
    "the cell is so elongated that neighbours lie in more than two million cells",
)


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """The graphs of many crystals in one: no edge joins two crystals."""

    edge_index: Tensor  # (2, edges) int64, centre and neighbour, counted over all sites
    image: Tensor  # (edges, 3) int64, the neighbour's cell along a, b, c
    distance: Tensor  # (edges,) float32 Å
    site_crystal: Tensor  # (sites,) int64, the crystal of each site
    numbers: Tensor  # (sites,) int64 atomic numbers
    ok: np.ndarray  # (crystals,) bool; a crystal that failed has sites and no edges
    reasons: tuple[str, ...]  # one a crystal, empty where ``ok``

    @property
    def n_sites(self) -> Tensor:
        """(crystals,) number of sites."""
        return torch.bincount(self.site_crystal, minlength=len(self))

    def __len__(self) -> int:
        return len(self.ok)

    def __repr__(self) -> str:
        sizes = f"{len(self.numbers)} sites, {len(self.distance)} edges"
        failed = "" if self.ok.all() else f", {int((~self.ok).sum())} failed"
        return f"CrystalGraph({len(self)} crystals, {sizes}{failed})"

    def __getitem__(self, index: Any) -> CrystalGraph:
        """Select crystals by a slice, integer indices or a boolean mask, in the order given."""
        chosen = np.arange(len(self))[np.asarray(index) if not isinstance(index, slice) else index]
        chosen = np.atleast_1d(chosen)
        device = self.numbers.device
        where = torch.as_tensor(chosen, device=device)
        sites, first_site, n_sites = _rows(self.site_crystal, where, len(self))
        edge_crystal = self.site_crystal[self.edge_index[0]]
        edges, _, n_edges = _rows(edge_crystal, where, len(self))
        starts = torch.cumsum(n_sites, 0) - n_sites  # where each crystal's sites begin now
        shift = torch.repeat_interleave(starts - first_site, n_edges)
        place = torch.arange(len(chosen), device=device)
        return CrystalGraph(
            edge_index=self.edge_index[:, edges] + shift,
            image=self.image[edges],
            distance=self.distance[edges],
            site_crystal=torch.repeat_interleave(place, n_sites),
            numbers=self.numbers[sites],
            ok=self.ok[chosen],
            reasons=tuple(self.reasons[i] for i in chosen),
        )

    def to(self, device: torch.device | str) -> CrystalGraph:
        """Copy to a device."""
        tensors = (self.edge_index, self.image, self.distance, self.site_crystal, self.numbers)
        return CrystalGraph(*(part.to(device) for part in tensors), self.ok, self.reasons)

    def checked(self) -> CrystalGraph:
        """The graph itself, if every crystal has one.

        Raises:
            InputError: a crystal failed; names the first, and says how to leave such ones out.
        """
        if not self.ok.all():
            first = int(np.argmin(self.ok))
            raise InputError(
                f"{int((~self.ok).sum())} of {len(self)} crystals have no graph; crystal {first}: "
                f"{self.reasons[first]}; repair them, raise cutoff=, or go on with graph[graph.ok]"
            )
        return self

    def site_features(self) -> Tensor:
        """(sites, features) float32: CubicGAN's properties, each scaled to [0, 1] over H to Og."""
        raw = elements.features()
        scaled = elements.minmax(raw, np.arange(1, len(raw)))
        return torch.as_tensor(scaled, device=self.numbers.device)[self.numbers]

    def edge_features(self, *, stop: float = CUTOFF, step: float = STEP) -> Tensor:
        """(edges, gaussians) float32, see `gaussians`."""
        return gaussians(self.distance, stop=stop, step=step)


def crystal_graph(
    crystals: CrystalBatch,
    *,
    cutoff: float = CUTOFF,
    neighbours: int | None = NEIGHBOURS,
    tie: float = TIE,
) -> CrystalGraph:
    """Join each site with its nearest neighbours over all periodic images.

    Args:
        crystals: n crystals, computed on the CPU.
        cutoff: longest edge, Å.
        neighbours: how many for each site, fewer where the cutoff holds fewer; None: all within.
        tie: neighbours at most this much farther than the last one are kept too, Å. With 0 there
            are exactly ``neighbours``, as published, and ties are broken by the order of sites.

    Returns:
        The graphs; centres in order of sites, each with its nearest neighbours first.

    Raises:
        InputError: an option that is not positive (``tie`` may be 0). Broken crystals are marked
            in ``ok`` and ``reasons``; `CrystalGraph.checked` raises for them.
    """
    from ..kernels.edges import all_edges

    if neighbours is not None:
        whole("neighbours", neighbours, least=1, most=MOST)
    number("cutoff", cutoff, above=0, why=f"the longest edge, such as {CUTOFF} Å")
    number("tie", tie, why=f"a difference of distances such as {TIE} Å, or 0", least=0)
    check_shapes(crystals)
    numbers = crystals.numbers.cpu()
    status = np.zeros(len(crystals), dtype=np.int64)
    edges, distance, n_edges = all_edges(
        *measurable_sites(crystals),
        float(cutoff),
        0 if neighbours is None else int(neighbours),
        float(tie),
        status,
    )
    mask = numbers > 0
    n_sites = mask.sum(1)
    crystal = torch.arange(len(crystals))
    shift = np.repeat((torch.cumsum(n_sites, 0) - n_sites).numpy(), n_edges)  # (edges,)
    return CrystalGraph(
        edge_index=torch.as_tensor((edges[:, :2] + shift[:, None]).T.copy()),
        image=torch.as_tensor(edges[:, 2:].copy()),
        distance=torch.as_tensor(distance, dtype=torch.float32),
        site_crystal=torch.repeat_interleave(crystal, n_sites),
        numbers=numbers[mask],
        ok=status == 0,
        reasons=tuple(REASONS[i] for i in status.tolist()),
    )


def gaussians(distance: Tensor, *, stop: float = CUTOFF, step: float = STEP) -> Tensor:
    """(edges, gaussians) ``exp(-(d - c)^2 / step^2)`` of distances, c = 0, step, 2 step, … stop, Å.

    Source: Xie & Grossman (2018), and its code.
    """
    number("stop", stop, above=0, why=f"such as {CUTOFF} Å")
    number("step", step, above=0, why=f"such as {STEP} Å")
    centres = torch.arange(0.0, stop + step / 2, step, device=distance.device)
    return torch.exp(-(((distance[..., None] - centres) / step) ** 2))


def _rows(owner: Tensor, chosen: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of chosen crystals, of ascending owners (rows,); where they begin, how many they are."""
    count = torch.bincount(owner, minlength=n)
    first = (torch.cumsum(count, 0) - count)[chosen]
    number = count[chosen]
    starts = torch.cumsum(number, 0) - number
    rows = torch.arange(int(number.sum()), device=owner.device)
    return rows + torch.repeat_interleave(first - starts, number), first, number
