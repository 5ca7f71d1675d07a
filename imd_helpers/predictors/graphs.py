"""Networks that read crystal graphs, and a predictor of one property of a crystal from its graph.

Source: CGCNN, Xie & Grossman, Phys. Rev. Lett. 120 (2018) 145301; smaller, and trained for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..crystals import elements
from ..crystals.compositions import checked
from ..descriptors.crystal_graph import CrystalGraph, gaussians
from ..networks.epochs import fit_epochs, seeded
from ..networks.graphs import GraphNetwork
from ..runtime import InputError, device, number, reals, settle, whole
from .base import UNFITTED

EDGE_STOP = 8.0  # Å, the last centre of the Gaussians of an edge
PUBLISHED = ("group", "row", "electronegativity", "covalent_radius", "molar_volume")
EDGE_STEP = 0.4  # Å; published 0.2: the coarser one costs half and loses little


class GraphReader(GraphNetwork):
    """The published network, which makes the features of sites and edges itself."""

    def __init__(
        self, *, width: int, convolutions: int, stop: float, step: float, dropout: float = 0.0
    ) -> None:
        """Hidden width and depth; last centre of the Gaussians of an edge, and their step, Å."""
        widths = atom_features().shape[1], len(gaussians(torch.zeros(()), stop=stop, step=step))
        depth = {"width": width, "convolutions": convolutions}
        super().__init__(*widths, **depth, published=True, dropout=dropout)
        self.stop, self.step = stop, step

    def read(self, graph: CrystalGraph, *, noise: float = 0.0) -> Tensor:
        """(graphs,) one number a graph, with normal noise on the features of the sites."""
        graph = graph.to(next(self.parameters()).device)
        sites = atom_features().to(graph.numbers.device)[graph.numbers]
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
    _network: GraphReader | None = field(default=None, init=False, repr=False)
    _scale: tuple[float, float] = field(default=(0.0, 1.0), init=False, repr=False)

    def __post_init__(self) -> None:
        settle(self, whole, "width", "convolutions", "epochs", "batch", least=1)
        settle(self, number, "lr", above=0)
        settle(self, whole, "seed")

    def fit(self, graph: CrystalGraph, values: np.ndarray) -> GraphPredictor:
        """Fit to (n,) values and return self.

        Raises:
            InputError: a graph that failed, too few of them, or values that are not finite.
        """
        graph = graph.checked()
        values = reals("values", values, len(graph))
        if len(graph) < self.batch:
            raise InputError(f"{len(graph)} graphs: at least one batch of {self.batch} is needed")
        mean, spread = self._scale = float(values.mean()), float(values.std() + 1e-6)
        scaled = torch.as_tensor((values - mean) / spread, dtype=torch.float32, device=device())
        rng, n_batches = np.random.default_rng(self.seed), len(graph) // self.batch

        def batches() -> Iterator[tuple[tuple[CrystalGraph, Tensor], int]]:
            order = rng.permutation(len(graph))[: n_batches * self.batch]
            for rows in order.reshape(n_batches, self.batch):
                yield (graph[rows], scaled[torch.as_tensor(rows)]), self.batch

        def terms(batch: tuple[CrystalGraph, Tensor]) -> dict[str, Tensor]:
            return {"loss": functional.smooth_l1_loss(network.read(batch[0]), batch[1])}

        with seeded(self.seed):
            network = GraphReader(
                width=self.width, convolutions=self.convolutions, stop=EDGE_STOP, step=EDGE_STEP
            ).to(device())
            falling = self.epochs * n_batches
            fit_epochs(network, batches, terms, epochs=self.epochs, lr=self.lr, falling=falling)
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
        out = np.full(len(graph), np.nan)
        for rows in np.split(np.flatnonzero(graph.ok), range(512, len(graph), 512)):
            if len(rows):
                found = self._network.read(graph[rows]).cpu().numpy()
                out[rows] = self._scale[0] + self._scale[1] * found
        return out


# ---- features, and graphs of formulas


@cache
def atom_features() -> Tensor:
    """(119, 92) float32 one-hot features of the elements; a property without a value has no one.

    Group (19, the first for the f block), period (7), valence electrons (12) and block (4); in ten
    bins each electronegativity, covalent radius, ionization energy, electron affinity and volume.

    Source:
        The nine properties of Xie & Grossman (2018), and their 92 columns in all. Values are
        pymatgen's; the bins are ours, equal parts of the range of the elements up to curium.
    """
    from pymatgen.core import Element

    known = [Element.from_Z(z) for z in range(1, 119)]
    block = np.array(["spdf".index(e.block) for e in known])
    group, row, chi, radius, volume = (elements.column(name)[1:] for name in PUBLISHED)
    group = np.where(block == 3, 0, group)
    valence = np.where(group > 12, group - 10, np.where(group == 0, 3, group))
    ionization = [(e.data.get("Ionization energies") or [np.nan])[0] for e in known]  # eV
    affinity = np.array([e.data.get("Electron affinity", np.nan) for e in known])  # eV
    kinds = ((group, 19), (row - 1, 7), (valence - 1, 12), (block, 4))
    ranges = (chi, radius, np.log(ionization), affinity, np.log(volume))
    parts = [_one_hot(*kind) for kind in kinds] + [_binned(values) for values in ranges]
    return torch.as_tensor(np.pad(np.concatenate(parts, axis=1), ((1, 0), (0, 0)))).float()


def _one_hot(index: np.ndarray, n: int) -> np.ndarray:
    """(elements, n) one in the column of each index; none where there is no index."""
    return index[:, None] == np.arange(n)


def _binned(values: np.ndarray) -> np.ndarray:
    """(elements, 10) which of ten equal parts of the range of the first 96 values each is in."""
    low, high = np.nanmin(values[:96]), np.nanmax(values[:96])
    return _one_hot(np.clip(np.floor((values - low) / (high - low) * 10), 0, 9), 10)


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
