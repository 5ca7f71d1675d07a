"""Energies of the competing phases of `oqmd_icsd` by each potential, one at a time.

    python experiments/potentials.py energies NAME   what the potential says
    python experiments/potentials.py relax NAME      the error of not relaxing
    python experiments/potentials.py table           all into potentials.npz

Interrupted runs go on where they stopped: finished chunks lie in `_build/potentials/`. One process
of one thread takes about 15 minutes for CHGNet, 30 for SevenNet-0 and 62 for SevenNet-l3i5.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib import metadata, resources
from typing import Any

import numpy as np
import record

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements
from imd_helpers.energies import relaxation
from imd_helpers.energies.potentials import POTENTIALS, potential

HERE = record.DATA / "potentials"
WORK = record.BUILD / "potentials"
CHUNK = 500
NEAR_HULL = 0.1  # eV/atom above OQMD's hull
LARGEST_ELEMENT = 64  # sites in a reference structure of an element
N_RELAXED = 60


def competing() -> tuple[np.ndarray, CrystalBatch]:
    """Rows of `oqmd_icsd` near the hull, and of the elements, small cells first."""
    known = imd.datasets.load("oqmd_icsd")
    near = (known.table["energy_above_hull"] <= NEAR_HULL) | (known.table["n_elements"] == 1)
    rows = np.flatnonzero(near)
    rows = rows[np.argsort(known.table["n_sites"].to_numpy()[rows], kind="stable")]
    return rows, known.crystals


def reference_elements() -> tuple[np.ndarray, CrystalBatch]:
    """Atomic numbers and structures of the elements that travel in matcalc."""
    from pymatgen.core import Structure

    file = resources.files("matcalc") / "elemental_refs" / "MP-PBE-Element-Refs.json.gz"
    listed = json.loads(gzip.decompress(file.read_bytes()))
    numbers, found = [], []
    for symbol, entry in sorted(listed.items()):
        given = entry["structure"]
        for each in given if isinstance(given, list) else [given]:
            structure = Structure.from_dict(each)
            if len(structure) <= LARGEST_ELEMENT:
                numbers.append(elements.number(symbol))
                found.append(structure)
    return np.array(numbers), CrystalBatch.from_structures(found)


def energies(name: str) -> tuple[np.ndarray, np.ndarray]:
    """eV/atom of all rows and of the elements, in chunks that survive an interruption."""
    rows, crystals = competing()
    parts = np.split(rows, range(CHUNK, len(rows), CHUNK))
    chunks = {f"rows-{k:03d}": crystals[part] for k, part in enumerate(parts)}
    chunks["elements"] = reference_elements()[1]
    *found, each = (
        record.once(WORK / name / f"{label}.npz", record.said, name, chunk)["energy"]
        for label, chunk in chunks.items()
    )
    return np.concatenate(found), each


def relax(name: str) -> None:
    """How much lower do competing phases come when the potential relaxes them?"""
    rows, crystals = competing()
    small = rows[crystals.n_sites.numpy()[rows] <= 20]
    chosen = np.random.default_rng(2022).choice(small, N_RELAXED, replace=False)
    before = potential(name).energies(crystals[chosen], gate=None)
    after = relaxation.relax(crystals[chosen], name, fmax=0.02, steps=300)
    gain = (before - after.energy)[after.converged]
    low, middle, high = np.quantile(gain, [0.05, 0.5, 0.95])
    print(
        f"{name}: {after.converged.sum()} of {N_RELAXED} converged; gain in eV/atom: mean "
        f"{gain.mean():.4f}, median {middle:.4f}, 5 % {low:.4f}, 95 % {high:.4f}"
    )


def table() -> None:
    """All potentials side by side, and where the numbers come from; what is not new stays."""
    rows, _ = competing()
    numbers, _ = reference_elements()
    z = np.unique(numbers)
    columns: dict[str, Any] = {"rows": rows.astype(np.uint16), "element": z.astype(np.uint8)}
    with np.load(HERE / "potentials.npz") as file:
        if all(np.array_equal(file[name], columns[name]) for name in columns):
            columns |= dict(file)
    for name in POTENTIALS:
        if name in columns and not (WORK / name).exists():
            continue
        found, each = energies(name)
        columns[name] = found.astype(np.float32)
        lowest = [np.nanmin(np.append(each[numbers == i], np.inf)) for i in z]
        columns[f"{name}_element"] = np.array(lowest, dtype=np.float32)
    source = HERE.parent / "oqmd_icsd" / "oqmd_icsd.npz"
    about = {
        "potentials": {name: potential(name).definition() for name in POTENTIALS},
        "structures": {"oqmd_icsd": hashlib.sha256(source.read_bytes()).hexdigest()},
        "elements": {"matcalc": metadata.version("matcalc"), "largest_cell": LARGEST_ELEMENT},
        "above_oqmd_hull": NEAR_HULL,
        "geometry": "as relaxed by OQMD, not relaxed again",
    }
    np.savez_compressed(HERE / "potentials.npz", **columns)
    record.write(HERE / "about.json", about)
    for name in POTENTIALS:
        print(name, len(rows), "structures,", int(np.isnan(columns[name]).sum()), "without energy")


TASKS = (energies, relax, table)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
