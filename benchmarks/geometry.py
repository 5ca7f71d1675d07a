"""Geometric validity of real crystals against the pymatgen road, in one run, on one core.

    python benchmarks/geometry.py [--crystals 10000] [--save]

Both roads decide whether any two atoms, own images included, are closer than a fraction of the sum
of their covalent radii. The pymatgen road builds a `Structure` for each crystal and asks it for its
neighbour list within the largest of the limits. All answers must agree, also on squeezed copies of
2,000 of the crystals, of which about half fail.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for every road

import argparse
import time

import numpy as np
import torch
from common import best_of, environment, save

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, geometry
from imd_helpers.crystals.rules import RULES, GeometryRule, geometry_valid

RULE = GeometryRule(
    "benchmark", "distances of the rule imd alone", 0.5, True, "covalent_radius", 0.65, 0.0, 1.7
)
REQUIRED = {"cpu": 10, "cuda": 50}


def squeezed(real: CrystalBatch) -> CrystalBatch:
    factor = torch.as_tensor(np.random.default_rng(0).uniform(0.5, 1.0, len(real)))
    return CrystalBatch(factor[:, None, None] * real.lattice, real.frac, real.numbers)


def plain_lists(batch: CrystalBatch) -> tuple[list, list, list]:
    """Lattices, atomic numbers and coordinates as pymatgen takes them."""
    numbers, frac = (
        [array[: int(n)].tolist() for array, n in zip(part.numpy(), batch.n_sites, strict=True)]
        for part in (batch.numbers, batch.frac)
    )
    return list(batch.lattice.numpy()), numbers, frac


def pymatgen_road(lattice: list, species: list, frac: list, scale: np.ndarray) -> np.ndarray:
    """Build each structure, ask for its neighbours, compare with the limits."""
    from pymatgen.core import Lattice, Structure

    out = np.empty(len(lattice), dtype=bool)
    for i, (cell, numbers, x) in enumerate(zip(lattice, species, frac, strict=True)):
        structure = Structure(Lattice(cell), numbers, x)
        size = scale[numbers]
        first, second, _, distance = structure.get_neighbor_list(2 * size.max())
        out[i] = np.all(distance >= size[first] + size[second])
    return out


def torch_road(batch: CrystalBatch, scale: torch.Tensor) -> torch.Tensor:
    """The differentiable distances that losses use."""
    size = scale[batch.numbers]  # (batch, sites)
    limits = size[:, :, None] + size[:, None, :]
    return (geometry.min_image_distances(batch) >= limits).flatten(1).all(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=10_000)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/geometry.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = imd.datasets.load("oqmd_icsd").select(max_sites=20)[: options.crystals].crystals
    scale = RULE.scale
    plain = plain_lists(batch)

    geometry_valid(batch[:10], RULE)  # compile
    seconds = {}
    seconds["pymatgen"], expected = best_of(1, pymatgen_road, *plain, scale)
    seconds["imd, compiled"], ours = best_of(5, geometry_valid, batch, RULE)
    seconds["imd, whole rule 'imd'"], _ = best_of(5, geometry_valid, batch, RULES["imd"])
    table = torch.as_tensor(scale)
    seconds["imd, torch on the CPU"], torch_ours = best_of(1, torch_road, batch, table)
    answers = {"compiled": ours, "torch": torch_ours.numpy()}
    if torch.cuda.is_available():
        seconds["imd, torch on the GPU"], gpu = best_of(
            5, cuda_road, batch.to("cuda"), table.to("cuda"), clock=time.perf_counter
        )
        answers["cuda"] = gpu.cpu().numpy()
    small = squeezed(batch[:2000])
    harder = pymatgen_road(*plain_lists(small), scale)
    assert (geometry_valid(small, RULE) == harder).all(), "answers differ on squeezed crystals"
    for name, answer in answers.items():
        different = int((answer != expected).sum())
        assert different == 0, f"{name}: {different} answers differ from pymatgen's"

    ratios = {name: seconds["pymatgen"] / value for name, value in seconds.items()}
    print(f"{len(batch):,} crystals, {expected.mean():.2%} valid, all answers equal")
    print(f"{len(small):,} squeezed crystals, {harder.mean():.1%} valid, all answers equal")
    for name, value in seconds.items():
        rate = len(batch) / value
        print(f"{name:<24} {value:9.4f} s  {rate:12,.0f} /s  {ratios[name]:8.1f} x")
    assert ratios["imd, compiled"] >= REQUIRED["cpu"]
    if "imd, torch on the GPU" in ratios:
        assert ratios["imd, torch on the GPU"] >= REQUIRED["cuda"]
    if options.save:
        result = {
            "crystals": len(batch),
            "valid": int(expected.sum()),
            "squeezed_crystals": len(small),
            "squeezed_valid": int(harder.sum()),
            "different_answers": 0,
            "seconds": seconds,
            "ratio_to_pymatgen": ratios,
            "required": REQUIRED,
        }
        print("wrote", save("geometry", {**result, **environment("pymatgen", "numba", "torch")}))


def cuda_road(batch: CrystalBatch, scale: torch.Tensor) -> torch.Tensor:
    answer = torch_road(batch, scale)
    torch.cuda.synchronize()
    return answer


if __name__ == "__main__":
    main()
