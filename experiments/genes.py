"""Genes of the data, the two models that write them, and what their crystals are worth.

python experiments/genes.py read                genes of oqmd_icsd, into data/genes
python experiments/genes.py transfer            held-out crystals from their genes alone
"""

from __future__ import annotations

import numpy as np
import record
from record import CHECKPOINTS, DATA, Row, rounded

import imd_helpers as imd
from imd_helpers.baselines.cells import atomic_volumes
from imd_helpers.models import genes

FOLDER = CHECKPOINTS / "genes"


def read() -> None:
    """Genes of every crystal; zeros where it has none."""
    every = imd.datasets.load("oqmd_icsd")
    starts = range(0, len(every), 2_000)
    parts = [genes.genes_of(every[start : start + 2_000].crystals).tensor for start in starts]
    written = np.concatenate([part.numpy() for part in parts]).astype(np.uint8)
    path = DATA / "genes" / "genes.npz"
    path.parent.mkdir(exist_ok=True)
    volumes, _ = atomic_volumes(every.select(split="train").crystals)
    np.savez_compressed(path, genes=written, volumes=volumes)
    print(f"{(written[:, 0] > 0).sum():,} genes, {path.stat().st_size:,} bytes")


TASKS = (read,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
