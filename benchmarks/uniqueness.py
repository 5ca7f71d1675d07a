"""Duplicates among crystals against pymatgen's `group_structures`, in one run, on one core.

    python benchmarks/uniqueness.py [--formula 500] [--mixed 10000] [--save]

Two sets. One formula: the polymorphs of SiO2 in oqmd_icsd with at most 36 sites, the same again
with moved atoms and strained cells until half the set is full, and random crystals of 3 to 12
atoms. Mixed: real crystals of at most 20 sites, and as many of them in disguise: moved, turned,
strained, scaled, noisy, in another order, in a skewed cell, as a supercell. Both roads get their
own objects ready made; a crystal agrees if both roads put it into the group of the same first
crystal. Beside the groups, the time of the average minimum distances of the mixed set.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for both roads

import argparse
import time
import warnings

import numpy as np
from common import best_of, environment, save

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.amd import average_minimum_distances
from imd_helpers.matching.same import NONE, same_as_earlier

REQUIRED = {"one formula": 30, "mixed": 5}
REQUIRED_AGREEMENT = 0.999
REQUIRED_AMD = 1e-4  # s a crystal
Sites = tuple[np.ndarray, np.ndarray, np.ndarray]  # lattice, frac, numbers


def sites(batch: CrystalBatch) -> list[Sites]:
    n = batch.n_sites.tolist()
    arrays = zip(batch.lattice.numpy(), batch.frac.numpy(), batch.numbers.numpy(), n, strict=True)
    return [(lattice, frac[:k], numbers[:k]) for lattice, frac, numbers, k in arrays]


def together(crystals: list[Sites]) -> CrystalBatch:
    lattice, frac, numbers = zip(*crystals, strict=True)
    return CrystalBatch.from_ragged(
        np.stack(lattice), np.concatenate(frac), np.concatenate(numbers), [len(z) for z in numbers]
    )


def moved(crystal: Sites, rng: np.random.Generator, distance: float) -> Sites:
    """Atoms moved at random by a distance, Å, and a strain of 3 %."""
    lattice, frac, numbers = crystal
    step = rng.normal(size=frac.shape)
    step *= distance / np.linalg.norm(step, axis=1, keepdims=True)
    strain = np.diag(1 + rng.normal(0, 0.03, 3))
    return lattice @ strain, frac + step @ np.linalg.inv(lattice), numbers


def random_silica(rng: np.random.Generator) -> Sites:
    """1 to 4 formula units at random in a random cell of 10 to 16 Å^3 an atom."""
    units = int(rng.integers(1, 5))
    lattice = np.diag(rng.uniform(3, 7, 3)) + rng.normal(0, 0.8, (3, 3))
    volume = 3 * units * rng.uniform(10, 16)
    lattice *= (volume / abs(np.linalg.det(lattice))) ** (1 / 3)
    return lattice, rng.random((3 * units, 3)), np.repeat([14, 8], [units, 2 * units])


def one_formula(n: int) -> CrystalBatch:
    rng = np.random.default_rng(0)
    real = imd.datasets.load("oqmd_icsd").select(formulas="SiO2", max_sites=36).crystals
    crystals = sites(real)[: n // 2]
    known = len(crystals)
    while len(crystals) < n // 2:
        crystals.append(moved(crystals[rng.integers(known)], rng, rng.uniform(0.02, 0.8)))
    while len(crystals) < n:
        crystals.append(random_silica(rng))
    return together([crystals[i] for i in rng.permutation(n)])


def disguised(crystal: Sites, rng: np.random.Generator) -> Sites:
    lattice, frac, numbers = crystal
    kind = rng.integers(6)
    if kind == 0:
        return moved(crystal, rng, rng.uniform(0, 0.5))
    if kind == 1:
        axis = rng.integers(3)
        twice = np.ones(3)
        twice[axis] = 2
        frac = np.concatenate([frac, frac + (twice - 1)]) / twice
        return np.diag(twice) @ lattice, frac, np.tile(numbers, 2)
    if kind == 2:
        order = rng.permutation(len(numbers))
        return lattice, (frac + rng.random(3))[order], numbers[order]
    if kind == 3:
        return rng.uniform(0.8, 1.3) * lattice, frac, numbers
    if kind == 4:
        change = np.eye(3)
        change[rng.permutation(3)[:2], rng.permutation(3)[:2]] += rng.integers(-2, 3, 2)
        if abs(np.linalg.det(change)) != 1:
            change = np.array([[1.0, 1, 0], [0, 1, 0], [0, -2, 1]])
        return change @ lattice, frac @ np.linalg.inv(change), numbers
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return lattice @ turn, frac + rng.normal(0, 0.01, frac.shape), numbers


def mixed(n: int) -> CrystalBatch:
    rng = np.random.default_rng(1)
    data = imd.datasets.load("oqmd_icsd").select(max_sites=20)
    real = sites(data[rng.permutation(len(data))[: n // 2]].crystals)
    crystals = real + [disguised(crystal, rng) for crystal in real]
    return together([crystals[i] for i in rng.permutation(len(crystals))])


def pymatgen_road(structures: list) -> np.ndarray:
    """The first of its group for each structure, or NONE, from `group_structures`."""
    from pymatgen.core.structure_matcher import StructureMatcher

    place = {id(structure): i for i, structure in enumerate(structures)}
    first = np.full(len(structures), NONE)
    for group in StructureMatcher().group_structures(structures):
        head, *rest = sorted(place[id(structure)] for structure in group)
        first[rest] = head
    return first


def compare(name: str, batch: CrystalBatch) -> dict:
    structures = batch.structures()
    ours_seconds, found = best_of(3, same_as_earlier, batch)
    seconds, expected = best_of(1, pymatgen_road, structures)
    different = np.flatnonzero(found.first != expected)
    for i in different:
        print(f"  crystal {i} ({batch[int(i)].formulas()[0]}): {found.first[i]}, {expected[i]}")
    agreement = 1 - len(different) / len(batch)
    ratio = seconds / ours_seconds
    groups = int((expected == NONE).sum())
    print(
        f"{name}: {len(batch):,} crystals in {groups:,} groups, {agreement:.2%} agree; pymatgen "
        f"{seconds:.2f} s, imd {ours_seconds:.3f} s, {ratio:.0f} x"
    )
    assert not found.failed
    assert agreement >= REQUIRED_AGREEMENT
    return {
        "crystals": len(batch),
        "groups": groups,
        "different_answers": len(different),
        "seconds": {"pymatgen": seconds, "imd": ours_seconds},
        "ratio_to_pymatgen": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formula", type=int, default=500)
    parser.add_argument("--mixed", type=int, default=10_000)
    parser.add_argument("--save", action="store_true", help="write results/uniqueness.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # pymatgen misses electronegativities of noble gases

    some = mixed(4)
    start = time.process_time()
    same_as_earlier(some)
    average_minimum_distances(some)
    print(
        f"first call, compiling or reading what was compiled: {time.process_time() - start:.1f} s"
    )
    results = {"one formula": compare("one formula", one_formula(options.formula))}
    batch = mixed(options.mixed)
    results["mixed"] = compare("mixed", batch)
    for name, result in results.items():
        assert result["ratio_to_pymatgen"] >= REQUIRED[name]
    seconds, _ = best_of(3, average_minimum_distances, batch)
    small = batch[batch.n_sites.numpy() <= 20]
    small_seconds, _ = best_of(3, average_minimum_distances, small)
    print(
        f"average minimum distances: {1e6 * seconds / len(batch):.0f} us a crystal, of at most 20"
    )
    print(f"  sites {1e6 * small_seconds / len(small):.0f} us")
    assert small_seconds / len(small) <= REQUIRED_AMD
    if options.save:
        result = {
            **results,
            "seconds_per_amd": {"all": seconds / len(batch), "20": small_seconds / len(small)},
            "required": REQUIRED,
        }
        print("wrote", save("uniqueness", {**result, **environment("pymatgen", "numba", "scipy")}))


if __name__ == "__main__":
    main()
