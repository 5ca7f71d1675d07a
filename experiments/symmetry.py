"""Learning curves of the chapter `symmetry`: formation energy from crystal graphs and without them.

    python experiments/symmetry.py

Trains the same network on the same crystals twice: once on crystal graphs, once on graphs that know
the composition alone (every site of the reduced formula joined to all of them, all edges equal).
Adds to `data/checkpoints/symmetry/run.json` after each training; rows that are there are kept.
Trained on the training split of `oqmd_icsd`, judged on its test split, at most 20 sites.
"""

from __future__ import annotations

import time

import numpy as np
import record
import torch
from record import Row
from torch import Tensor

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.compositions import reduced
from imd_helpers.descriptors.crystal_graph import CrystalGraph, crystal_graph
from imd_helpers.networks.graphs import GraphNetwork

ALL_CRYSTALS = 16_786  # the whole training split of at most 20 sites
SEEDS_AT = {500: 3, 1000: 3, 2000: 3, 4000: 2, ALL_CRYSTALS: 1}
EPOCHS, EPOCHS_ALL, BATCH, RATE = 20, 10, 64, 5e-3
WIDTH, CONVOLUTIONS, STOP, STEP = 32, 2, 8.0, 0.4  # Å


def composition_graph(crystals: CrystalBatch) -> CrystalGraph:
    """Graphs that hold the reduced formula and nothing else: all pairs of its atoms, distance 0."""
    counts = reduced(crystals.counts().numpy())
    n_sites = counts.sum(1)  # (crystals,)
    numbers = np.concatenate([np.repeat(np.arange(len(row)), row) for row in counts])
    begin = np.cumsum(n_sites) - n_sites
    pairs = [b + np.indices((n, n)).reshape(2, -1) for b, n in zip(begin, n_sites, strict=True)]
    edge_index = torch.as_tensor(np.concatenate(pairs, axis=1))
    return CrystalGraph(
        edge_index=edge_index,
        image=torch.zeros(edge_index.shape[1], 3, dtype=torch.long),
        distance=torch.zeros(edge_index.shape[1]),
        site_crystal=torch.as_tensor(np.repeat(np.arange(len(n_sites)), n_sites)),
        numbers=torch.as_tensor(numbers),
        ok=np.ones(len(n_sites), dtype=bool),
        reasons=("",) * len(n_sites),
    )


def predict(network: GraphNetwork, graph: CrystalGraph) -> Tensor:
    """(crystals,) standardised energies."""
    edges = graph.edge_features(stop=STOP, step=STEP)
    return network(graph.site_features(), graph.edge_index, edges, graph.site_crystal, len(graph))


def train(graph: CrystalGraph, energy: Tensor, *, epochs: int, seed: int) -> GraphNetwork:
    """Fit standardised energies by their mean absolute error."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = GraphNetwork(
        graph.site_features().shape[1], round(STOP / STEP) + 1,
        width=WIDTH, convolutions=CONVOLUTIONS,
    )  # fmt: skip
    batches = -(-len(graph) // BATCH)
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=epochs * batches)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(len(graph)), batches):
            loss = (predict(network, graph[rows]) - energy[rows]).abs().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            rate.step()
    return network.eval()


@torch.no_grad()
def errors(network: GraphNetwork, graph: CrystalGraph, energy: Tensor, scale: float) -> np.ndarray:
    """(crystals,) absolute errors, eV/atom."""
    rows = np.array_split(np.arange(len(graph)), -(-len(graph) // 256))
    found = torch.cat([predict(network, graph[part]) for part in rows])
    return ((found - energy).abs() * scale).numpy()


def judged(kind: str, n: int, seed: int) -> Row:
    """Train on n crystals drawn by the seed, and judge on the test split."""
    graph_of = {"graph": crystal_graph, "composition": composition_graph}[kind]
    parts = {}
    for split in ("train", "test"):
        data = imd.datasets.load("oqmd_icsd", split=split).select(max_sites=20)
        rows = np.random.default_rng(seed).permutation(len(data))
        data = data[rows[:n]] if split == "train" else data
        energy = torch.as_tensor(data.table["formation_energy"].to_numpy(np.float32))
        parts[split] = graph_of(data.crystals).checked(), energy
    graph, energy = parts["train"]
    mean, scale = energy.mean(), float(energy.std())
    began, cpu = time.perf_counter(), time.process_time()
    epochs = EPOCHS if n < ALL_CRYSTALS else EPOCHS_ALL
    network = train(graph, (energy - mean) / scale, epochs=epochs, seed=seed)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    graph, energy = parts["test"]
    off = errors(network, graph, (energy - mean) / scale, scale)
    return {
        "epochs": epochs, "n_test": len(off),
        "mae": float(off.mean()), "interval": record.interval(off),
        "median": float(np.median(off)), "weights": sum(p.numel() for p in network.parameters()),
        "cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1),
    }  # fmt: skip


def curves() -> None:
    """Run what is missing."""
    settings = {
        "batch": BATCH, "rate": RATE, "width": WIDTH, "convolutions": CONVOLUTIONS,
        "gaussians_stop": STOP, "gaussians_step": STEP,
    }  # fmt: skip
    jobs = [(kind, n, seed) for n, seeds in SEEDS_AT.items() for seed in range(seeds)
            for kind in ("composition", "graph")]  # fmt: skip
    record.fill(
        record.CHECKPOINTS / "symmetry" / "run.json",
        ("kind", "n_train", "seed"),
        jobs,
        judged,
        about={"settings": settings, **record.stamp("numpy")},
        under="rows",
    )


TASKS = (curves,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
