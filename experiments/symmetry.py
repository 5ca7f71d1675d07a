"""Learning curves of the chapter `symmetry`: formation energy from crystal graphs and without them.

    python experiments/symmetry.py

Trains the network of the page on the same crystals twice: once on crystal graphs, once on graphs
that know the composition alone (every site of the reduced formula joined to all, all edges equal).
Adds to `data/checkpoints/symmetry/run.json` after each training; rows that are there are kept.
Trained on the training split of `oqmd_icsd`, judged on its test split, at most 20 sites.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import record
import torch
from record import Row

import imd_helpers as imd
from imd_helpers.descriptors.crystal_graph import CrystalGraph, crystal_graph
from imd_helpers.intervals import bootstrap
from imd_helpers.networks.graphs import GraphNetwork

ALL_CRYSTALS = 16_786  # the whole training split of at most 20 sites
SEEDS_AT = {500: 3, 1000: 3, 2000: 3, 4000: 2, ALL_CRYSTALS: 1}
EPOCHS, EPOCHS_ALL = 20, 10
SETTINGS = {  # of the page
    "batch": 64, "rate": 5e-3, "width": 32, "convolutions": 2,
    "gaussians_stop": 8.0, "gaussians_step": 0.4,
}  # fmt: skip
PATH = record.CHECKPOINTS / "symmetry" / "run.json"
JOBS = [(kind, n, seed) for n, seeds in SEEDS_AT.items() for seed in range(seeds)
        for kind in ("composition", "graph")]  # fmt: skip
UNTIL = 'train, test = (imd.datasets.load("oqmd_icsd", split=s).select(max_sites=20)'
# the graphs and the training of the chapter
page = partial(record.chapter, "2_descriptors/symmetry", until=UNTIL)


@torch.no_grad()
def errors(
    network: GraphNetwork, graph: CrystalGraph, energy: torch.Tensor, scale: float
) -> np.ndarray:
    """(crystals,) absolute errors, eV/atom."""
    rows = np.array_split(np.arange(len(graph)), -(-len(graph) // 256))
    found = torch.cat([page().predict(network, graph[part]) for part in rows])
    return ((found - energy).abs() * scale).numpy()


def about() -> Row:
    """Settings of the page, and where and by which code."""
    return {"settings": SETTINGS, **record.stamp("numpy")}


@record.rows(PATH, JOBS, about=about, under="rows")
def curves(kind: str, n_train: int, seed: int) -> Row:
    """Train on so many crystals drawn by the seed, and judge on the test split."""
    graph_of = {"graph": crystal_graph, "composition": page().composition_graph}[kind]
    parts = {}
    for split in ("train", "test"):
        data = imd.datasets.load("oqmd_icsd", split=split).select(max_sites=20)
        rows = np.random.default_rng(seed).permutation(len(data))
        data = data[rows[:n_train]] if split == "train" else data
        energy = torch.as_tensor(data.table["formation_energy"].to_numpy(np.float32))
        parts[split] = graph_of(data.crystals).checked(), energy
    graph, energy = parts["train"]
    mean, scale = energy.mean(), float(energy.std())
    began, cpu = time.perf_counter(), time.process_time()
    epochs = EPOCHS if n_train < ALL_CRYSTALS else EPOCHS_ALL
    network, _ = page().fit(graph, (energy - mean) / scale, epochs, seed)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    graph, energy = parts["test"]
    off = errors(network, graph, (energy - mean) / scale, scale)
    return {
        "epochs": epochs, "n_test": len(off),
        "mae": float(off.mean()), "interval": bootstrap(off, resamples=2000),
        "median": float(np.median(off)), "weights": sum(p.numel() for p in network.parameters()),
        "cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1),
    }  # fmt: skip


TASKS = (curves,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
