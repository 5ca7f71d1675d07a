"""Lattice scans and batched single points against the usual roads, in one run, on one core.

    python benchmarks/energies.py [--crystals 60] [--save]

Crystals are real cubic ternaries of `oqmd_icsd` whose sites are fixed by symmetry. The scan and the
relaxation start from the same wrong length, up to 5 % off. The usual road to a relaxed crystal is
ASE's FIRE with a cell filter; the usual road to energies is CHGNet's own `predict_structure`, one
crystal at a time. Energies must agree, and so must lengths in the median.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for every road

import argparse

import numpy as np
import torch
from common import best_of, environment, save

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, symmetry
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.energies.potentials import potential
from imd_helpers.energies.relaxation import relax

REQUIRED = {"lattice scan": 5.0, "batched single points": 1.5}
MEDIAN_LENGTH = 0.005  # Å


def cubic_crystals(n: int) -> CrystalBatch:
    """Primitive cells of real crystals, their lengths multiplied by 0.95 to 1.05."""
    known = imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=[225, 216, 221])
    free = np.flatnonzero(symmetry.only_scale_is_free(known.crystals))
    rng = np.random.default_rng(0)
    small = symmetry.primitive(known.crystals[rng.choice(free, n, replace=False)])
    factor = torch.as_tensor(rng.uniform(0.95, 1.05, n))
    return CrystalBatch(small.lattice * factor[:, None, None], small.frac, small.numbers)


def fire(crystals: CrystalBatch, fmax: float) -> tuple[np.ndarray, np.ndarray]:
    """ASE's FIRE with FrechetCellFilter: energies per atom and volumes."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE
    from chgnet.model.dynamics import CHGNetCalculator

    model = potential("chgnet").model
    calculator = CHGNetCalculator(model, use_device="cpu", on_isolated_atoms="ignore")
    energy, volume = [], []
    for structure in crystals.structures():
        atoms = structure.to_ase_atoms()
        atoms.calc = calculator
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=fmax, steps=500)
        energy.append(atoms.get_potential_energy() / len(atoms))
        volume.append(atoms.get_volume())
    return np.array(energy), np.array(volume)


def one_by_one(crystals: CrystalBatch) -> np.ndarray:
    """CHGNet's own road to energies."""
    model = potential("chgnet").model
    return np.array([model.predict_structure(s, task="e")["e"] for s in crystals.structures()])


def length(crystals: CrystalBatch) -> np.ndarray:
    """Edge of a cube of the cell's volume, Å."""
    return np.cbrt(crystals.lattice.det().abs().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=60)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/energies.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    crystals = cubic_crystals(options.crystals)
    model = potential("chgnet")
    model.evaluate(crystals[:2])  # load and warm up
    seconds = {}
    seconds["scan"], scanned = best_of(1, lattice_scan, crystals)
    seconds["FIRE of ASE"], (energy, volume) = best_of(1, fire, crystals, 0.05)
    seconds["FIRE in batches"], batched = best_of(1, relax, crystals)
    tight = relax(crystals, fmax=0.005, steps=500)
    seconds["one by one"], alone = best_of(2, one_by_one, crystals)
    seconds["in batches"], together = best_of(2, model.energies, crystals)
    assert scanned.ok.all(), scanned.reasons
    assert batched.converged.all()
    assert np.abs(alone - together).max() < 1e-4, "batched energies differ"
    assert np.median(np.abs(batched.energy - energy)) < 1e-3, "our FIRE ends elsewhere than ASE's"
    # where symmetry is all that holds a crystal up, a relaxation walks away from it
    stayed = tight.converged & (np.abs(tight.energy - scanned.energy) < 0.005)
    difference = np.abs(length(scanned.crystals) - length(tight.crystals))[stayed]
    loose = np.abs(length(scanned.crystals) - np.cbrt(volume))
    ratios = {
        "lattice scan": seconds["FIRE of ASE"] / seconds["scan"],
        "batched single points": seconds["one by one"] / seconds["in batches"],
    }
    n = len(crystals)
    for name, value in seconds.items():
        print(f"{name:<18} {1000 * value / n:8.1f} ms a crystal")
    for name, value in ratios.items():
        print(f"{name:<24} {value:5.1f} x, asked for {REQUIRED[name]:g} x")
    print(
        f"a: scan against FIRE to 0.005 eV/Å, {stayed.sum()} of {n} that stayed: median "
        f"{np.median(difference):.4f} Å, largest {difference.max():.4f} Å; against FIRE to "
        f"0.05 eV/Å: median {np.median(loose):.4f} Å"
    )
    assert np.median(difference) < MEDIAN_LENGTH
    assert all(ratios[name] >= least for name, least in REQUIRED.items())
    if options.save:
        result = {
            "crystals": n,
            "seconds": seconds,
            "ratio": ratios,
            "required": REQUIRED,
            "stayed_cubic": int(stayed.sum()),
            "length_difference_median": float(np.median(difference)),
            "length_difference_largest": float(difference.max()),
        }
        print("wrote", save("energies", {**result, **environment("chgnet", "ase", "torch")}))


if __name__ == "__main__":
    main()
