"""Networks that read crystal graphs, and a predictor of one property of a crystal from its graph.

Source: CGCNN, Xie & Grossman, Phys. Rev. Lett. 120 (2018) 145301; smaller, and trained for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..crystals.compositions import checked
from ..descriptors.crystal_graph import CrystalGraph, gaussians
from ..networks.epochs import fit_epochs, seeded
from ..networks.graphs import GraphNetwork
from ..runtime import InputError, device
from .base import UNFITTED, checked_values

N_SITE = 23  # features of an element
EDGE_STOP = 8.0  # Å, the last centre of the Gaussians of an edge
EDGE_STEP = 0.4  # Å; published 0.2: the coarser one costs half and loses little


class GraphReader(GraphNetwork):
    """A graph network that makes the features of sites and edges itself."""

    def __init__(self, *, width: int, convolutions: int, stop: float, step: float) -> None:
        """Hidden width and depth; last centre of the Gaussians of an edge, and their step, Å."""
        n_edge = gaussians(torch.zeros(1), stop=stop, step=step).shape[1]
        super().__init__(N_SITE, n_edge, width=width, convolutions=convolutions)
        self.stop, self.step = stop, step

    def read(self, graph: CrystalGraph, *, noise: float = 0.0) -> Tensor:
        """(graphs,) one number a graph, with normal noise on the features of the sites."""
        graph = graph.to(next(self.parameters()).device)
        sites = graph.site_features()
        if noise:
            sites = sites + noise * torch.randn_like(sites)
        edges = graph.edge_features(stop=self.stop, step=self.step)
        return self(sites, graph.edge_index, edges, graph.site_crystal, len(graph))


@dataclass(eq=False)
class GraphPredictor:
    """Message passing on crystal graphs, fitted by Adam with a learning rate that falls to zero."""

    width: int = 32  # features of a site inside the network
    convolutions: int = 3
    epochs: int = 10  # passes over the data
    batch: int = 64  # graphs in a step
    lr: float = 3e-3  # at the start
    seed: int = 0  # of weights and order
    history: list[float] = field(default_factory=list, init=False)  # mean loss of each epoch
    _network: GraphReader | None = field(default=None, init=False, repr=False)
    _scale: tuple[float, float] = field(default=(0.0, 1.0), init=False, repr=False)

    def fit(self, graph: CrystalGraph, values: np.ndarray) -> GraphPredictor:
        """Fit to (n,) values and return self.

        Raises:
            InputError: a graph that failed, too few of them, or values that are not finite.
        """
        graph = graph.checked()
        values = checked_values(values, (len(graph),))
        if len(graph) < self.batch:
            raise InputError(f"{len(graph)} graphs: at least one batch of {self.batch} is needed")
        mean, spread = self._scale = float(values.mean()), float(values.std() + 1e-6)
        scaled = torch.as_tensor((values - mean) / spread, dtype=torch.float32, device=device())
        rng, n_batches = np.random.default_rng(self.seed), len(graph) // self.batch

        def batches() -> Iterator[tuple[tuple[CrystalGraph, Tensor], int]]:
            order = rng.permutation(len(graph))[: n_batches * self.batch]
            wanted = scaled[torch.as_tensor(order)].split(self.batch)
            for pair in zip(chunks(graph[order], self.batch), wanted, strict=True):
                yield pair, self.batch

        def terms(batch: tuple[CrystalGraph, Tensor]) -> dict[str, Tensor]:
            return {"loss": functional.smooth_l1_loss(network.read(batch[0]), batch[1])}

        with seeded(self.seed):
            network = GraphReader(
                width=self.width, convolutions=self.convolutions, stop=EDGE_STOP, step=EDGE_STEP
            ).to(device())
            rows = fit_epochs(
                network,
                batches,
                terms,
                epochs=self.epochs,
                lr=self.lr,
                falling=self.epochs * n_batches,
            )
        self.history = [row["loss"] for row in rows]
        self._network = network.eval()
        return self

    @torch.no_grad()
    def predict(self, graph: CrystalGraph) -> np.ndarray:
        """(n,) predictions; NaN for a graph that failed.

        Raises:
            InputError: not fitted.
        """
        if self._network is None:
            raise InputError(UNFITTED)
        out, rows = np.full(len(graph), np.nan), np.flatnonzero(graph.ok)
        if len(rows):
            parts = [self._network.read(part).cpu() for part in chunks(graph[rows], 512)]
            out[rows] = self._scale[0] + self._scale[1] * torch.cat(parts).numpy()
        return out


# ---- graphs in batches, and graphs of formulas


def chunks(graph: CrystalGraph, size: int) -> Iterator[CrystalGraph]:
    """Consecutive graphs, ``size`` at a time; cuts where indexing would go through all edges."""
    sites = np.r_[0, torch.cumsum(graph.n_sites, 0).numpy()]
    of_edge = torch.bincount(graph.site_crystal[graph.edge_index[0]], minlength=len(graph))
    edges = np.r_[0, torch.cumsum(of_edge, 0).numpy()]
    for start in range(0, len(graph), size):
        end = min(start + size, len(graph))
        site, edge = slice(sites[start], sites[end]), slice(edges[start], edges[end])
        yield CrystalGraph(
            edge_index=graph.edge_index[:, edge] - int(sites[start]),
            image=graph.image[edge],
            distance=graph.distance[edge],
            site_crystal=graph.site_crystal[site] - start,
            numbers=graph.numbers[site],
            ok=graph.ok[start:end],
            reasons=graph.reasons[start:end],
        )


def joined(one: CrystalGraph, two: CrystalGraph) -> CrystalGraph:
    """The graphs of two batches in one."""
    return CrystalGraph(
        edge_index=torch.cat([one.edge_index, two.edge_index + len(one.numbers)], dim=1),
        image=torch.cat([one.image, two.image]),
        distance=torch.cat([one.distance, two.distance]),
        site_crystal=torch.cat([one.site_crystal, two.site_crystal + len(one)]),
        numbers=torch.cat([one.numbers, two.numbers]),
        ok=np.concatenate([one.ok, two.ok]),
        reasons=one.reasons + two.reasons,
    )


def formula_graph(counts: np.ndarray) -> CrystalGraph:
    """Graphs of compositions: one site an element, an edge from each to all, itself included.

    The ``distance`` of an edge is the share of the neighbour's element among the atoms, 0 to 1: use
    ``PuConfig(stop=1.0, step=0.1)``.

    Args:
        counts: (n, 119) counts; a row of zeros gets ``ok=False``.

    Raises:
        InputError: counts of another shape or type.
    """
    counts = checked(counts)
    owner, z = np.nonzero(counts)
    share = counts[owner, z] / np.maximum(counts.sum(1), 1)[owner]
    kinds = np.bincount(owner, minlength=len(counts))  # (n,)
    size = kinds[owner]  # (sites,) edges of each
    centre = np.repeat(np.arange(len(owner)), size)
    begin = (np.cumsum(kinds) - kinds)[owner] - (np.cumsum(size) - size)
    neighbour = np.arange(len(centre)) + np.repeat(begin, size)
    ok = kinds > 0
    return CrystalGraph(
        edge_index=torch.as_tensor(np.stack([centre, neighbour])),
        image=torch.zeros(len(centre), 3, dtype=torch.long),
        distance=torch.as_tensor(share[neighbour], dtype=torch.float32),
        site_crystal=torch.as_tensor(owner),
        numbers=torch.as_tensor(z),
        ok=ok,
        reasons=tuple("" if good else "no element" for good in ok),
    )
