"""A predictor of one property of a crystal from its graph, as CGCNN.

Source: Xie & Grossman, Phys. Rev. Lett. 120 (2018) 145301; smaller, and trained for minutes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ..descriptors.crystal_graph import CrystalGraph
from ..networks.graphs import GraphNetwork
from ..runtime import InputError, device
from .pu_cgcnn import N_SITE, chunks

EDGE_STOP, EDGE_STEP = (
    8.0,
    0.4,
)  # Å; published step 0.2: the coarser one costs half and loses little


class GraphPredictor:
    """Message passing on crystal graphs, fitted by Adam with a learning rate that falls to zero."""

    def __init__(
        self,
        *,
        width: int = 32,
        convolutions: int = 3,
        epochs: int = 10,
        batch: int = 64,
        lr: float = 3e-3,
        seed: int = 0,
    ) -> None:
        """Hidden width, depth, passes over the data, graphs in a step, learning rate, seed."""
        self.width, self.convolutions = width, convolutions
        self.epochs, self.batch, self.lr, self.seed = epochs, batch, lr, seed
        self.history: list[float] = []
        self._network: GraphNetwork | None = None
        self._scale = (0.0, 1.0)

    def fit(
        self, graph: CrystalGraph, values: np.ndarray, *, progress: bool = False
    ) -> GraphPredictor:
        """Fit to (n,) values and return self; ``history`` has the mean loss of each epoch.

        Raises:
            InputError: a graph that failed, too few of them, or values that are not finite.
        """
        from tqdm.auto import tqdm

        values = np.asarray(values, dtype=float)
        graph = graph.checked()
        if values.shape != (len(graph),) or not np.isfinite(values).all():
            raise InputError(
                f"{len(graph)} graphs and values {values.shape}: one finite value each"
            )
        if len(graph) < self.batch:
            raise InputError(f"{len(graph)} graphs: at least one batch of {self.batch} is needed")
        self._scale = float(values.mean()), float(values.std() + 1e-6)
        scaled = torch.as_tensor((values - self._scale[0]) / self._scale[1], dtype=torch.float32)
        place, rng = device(), np.random.default_rng(self.seed)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(self.seed)
            edge_width = len(torch.arange(0.0, EDGE_STOP + EDGE_STEP / 2, EDGE_STEP))
            self._network = GraphNetwork(
                N_SITE, edge_width, width=self.width, convolutions=self.convolutions
            ).to(place)
            adam = torch.optim.Adam(self._network.parameters(), self.lr)
            steps = self.epochs * (len(graph) // self.batch)
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
            self.history = []
            for _ in tqdm(range(self.epochs), disable=not progress, unit="epoch"):
                self.history.append(self._epoch(graph, scaled, adam, cosine, rng))
        self._network.eval()
        return self

    def predict(self, graph: CrystalGraph) -> np.ndarray:
        """(n,) predictions; NaN for a graph that failed.

        Raises:
            InputError: not fitted.
        """
        if self._network is None:
            raise InputError("this predictor knows nothing yet: call fit(graph, values) first")
        out, rows = np.full(len(graph), np.nan), np.flatnonzero(graph.ok)
        if len(rows):
            with torch.no_grad():
                parts = [self._forward(part).cpu() for part in chunks(graph[rows], 512)]
            out[rows] = self._scale[0] + self._scale[1] * torch.cat(parts).numpy()
        return out

    def _epoch(
        self,
        graph: CrystalGraph,
        scaled: torch.Tensor,
        adam: torch.optim.Optimizer,
        cosine: torch.optim.lr_scheduler.LRScheduler,
        rng: np.random.Generator,
    ) -> float:
        """One pass over whole batches; the mean loss."""
        order = rng.permutation(len(graph))[: len(graph) // self.batch * self.batch]
        targets = scaled[torch.as_tensor(order)].split(self.batch)
        total = 0.0
        for part, wanted in zip(chunks(graph[order], self.batch), targets, strict=True):
            found = self._forward(part)
            loss = functional.smooth_l1_loss(found, wanted.to(found.device))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            cosine.step()
            total += float(loss.detach())
        return total / len(targets)

    def _forward(self, graph: CrystalGraph) -> torch.Tensor:
        assert self._network is not None
        graph = graph.to(next(self._network.parameters()).device)
        edges = graph.edge_features(stop=EDGE_STOP, step=EDGE_STEP)
        sites = graph.site_features()
        return self._network(sites, graph.edge_index, edges, graph.site_crystal, len(graph))
