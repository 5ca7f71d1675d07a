"""The whole judge: 10,000 samples without energies, lattice scans of 1,000, and two processes.

    python benchmarks/judging.py [--samples 10000] [--scans 1000] [--save]

The samples are those of the trained CubicGAN. The first part sends them through every stage of the
protocol `imd` that needs no energy, against the training split of oqmd_icsd. The second relaxes the
first 1,000 that are left by lattice scans with CHGNet and puts them on the hull of known phases.
The third scans some of them with one process and with two, each with one thread; all energies must
agree. Its ratio is of wall times where the machine is idle. Where other work runs beside it, it is
of processor times: of one process, and of the parent plus the busier of two workers, which is the
wall time that an idle machine would need.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for every process

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import environment, save

import imd_helpers as imd
from imd_helpers.crystals import symmetry
from imd_helpers.judge import PROTOCOLS, Protocol, facts, judge
from imd_helpers.judge.engine import Task, carried_out
from imd_helpers.judge.protocols import Step
from imd_helpers.work import Workers

REQUIRED = {"seconds_without_energies": 60, "seconds_of_scans": 120, "two_processes": 1.6}
IDLE = 0.5  # load average below which wall times are compared
ENERGIES = ("relaxed", "converged", "hull", "plausible energy", "metastable", "stable")


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    wall, processor = (now - then for now, then in zip(clock(), start, strict=True))
    return {"wall": round(wall, 2), "processor": round(processor, 2)}


def without_energies(n: int) -> tuple[dict, imd.crystals.CrystalBatch]:
    """Seconds of all stages but the energies, and the crystals that are left."""
    known = imd.datasets.load("oqmd_icsd", split="train")
    decoded = imd.models.load("cubicgan", variant="fixed").sample(n, seed=2022)
    judge(decoded.crystals[:50], reference=known[:500], potentials=())  # compile
    start = clock()
    report = judge(decoded, reference=known, potentials=(), name="CubicGAN")
    result = {"seconds": since(start), "stages": report.table.reset_index().to_dict("records")}
    print(report, "\n", result["seconds"])
    return result, decoded.crystals[np.flatnonzero(report.passed)]


def scans(crystals: imd.crystals.CrystalBatch) -> dict:
    """Seconds of lattice scans, hull and verdict."""
    steps = tuple(Step(fact) for fact in ENERGIES)
    energies = PROTOCOLS["imd"].energies
    protocol = Protocol("scans", "energies alone", steps, ENERGIES, (), energies=energies)
    judge(crystals[:2], reference=None, protocol=protocol)  # load the potential and the phases
    start = clock()
    report = judge(crystals, reference=None, protocol=protocol)
    result = {
        "crystals": len(crystals),
        "seconds": since(start),
        "scanned": int(np.nansum(report.values["scanned"])),
        "stages": report.table.reset_index().to_dict("records"),
    }
    print(report, "\n", result["seconds"])
    return result


def two_processes(crystals: imd.crystals.CrystalBatch, size: int = 16) -> dict:
    """Lattice scans in one process, and in two that are already running."""
    pieces = [np.arange(i, min(i + size, len(crystals))) for i in range(0, len(crystals), size)]
    load = os.getloadavg()[0]
    wall, processor, energies = {}, {}, {}
    for workers in (1, 2):
        with Workers(workers) as where:
            first = [scan(crystals, rows[:1]) for rows in pieces[:8]]
            list(where.map(carried_out, first, len(first)))  # start, import, load the potential
            tasks = [scan(crystals, rows) for rows in pieces]
            pids = list(where._pool._processes) if workers == 2 else []
            before, own, start = [spent(pid) for pid in pids], time.process_time(), clock()
            found = dict(where.map(carried_out, tasks, len(tasks)))
            wall[workers] = time.perf_counter() - start[0]
            busy = [spent(pid) - old for pid, old in zip(pids, before, strict=True)]
            processor[workers] = time.process_time() - own + max(busy, default=0.0)
        energies[workers] = np.concatenate([found[i].values["energy"] for i in range(len(pieces))])
    np.testing.assert_allclose(energies[1], energies[2], atol=1e-5)
    ratios = {"wall": wall[1] / wall[2], "processor": processor[1] / processor[2]}
    kind = "wall" if load < IDLE else "processor"
    print(f"one process {wall[1]:.1f} s, two {wall[2]:.1f} s on the wall: {ratios['wall']:.2f} x")
    print(
        f"{processor[1]:.1f} s and {processor[2]:.1f} s of processors: {ratios['processor']:.2f} x"
    )
    print(f"load {load:.1f} at the start: the {kind} counts")
    return {
        "crystals": len(crystals),
        "wall": wall,
        "processor": processor,
        "ratios": ratios,
        "load": round(load, 1),
        "ratio": ratios[kind],
        "ratio_of": kind,
    }


def scan(crystals: imd.crystals.CrystalBatch, rows: np.ndarray) -> Task:
    """A lattice scan of some crystals, as a piece of work."""
    return Task(facts.scan, crystals[rows], rows, {"potential": "chgnet", "most_atoms": 200})


def spent(pid: int) -> float:
    """Processor seconds of another process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--scans", type=int, default=1_000)
    parser.add_argument("--pairs", type=int, default=400, help="crystals for one and two processes")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/judging.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, left = without_energies(options.samples)
    left = left[np.flatnonzero(symmetry.only_scale_is_free(left[: 2 * options.scans]))]
    second = scans(left[: options.scans])
    third = two_processes(left[: options.pairs])
    if options.save:
        result = {"without_energies": first, "scans": second, "processes": third}
        result["required"] = REQUIRED
        packages = ("pymatgen", "moyopy", "numba", "torch", "chgnet")
        print("wrote", save("judging", {**result, **environment(*packages)}))
    assert first["seconds"]["processor"] < REQUIRED["seconds_without_energies"]
    assert second["seconds"]["processor"] < REQUIRED["seconds_of_scans"]
    assert third["ratio"] >= REQUIRED["two_processes"]


if __name__ == "__main__":
    main()
