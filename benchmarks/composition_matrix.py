"""Formulas to MatGAN's composition matrices, against pymatgen's parser, in one run, on one core.

    python benchmarks/composition_matrix.py [--formulas 5000] [--save]

Both roads start at strings and end at one (n, 85, 8) array of zeros and ones; both arrays must be
equal. The whole of oqmd_formulas is then parsed, encoded and decoded, and must come back exactly.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for both roads

import argparse

import numpy as np
from common import best_of, environment, save

import imd_helpers as imd
from imd_helpers.descriptors.composition_matrix import ELEMENTS, MAX_COUNT, CompositionMatrix

REQUIRED = 10  # times faster than pymatgen's parser and a loop
SECONDS = 3.0  # to parse and encode all formulas of oqmd_formulas


def pymatgen_road(formulas: list[str]) -> np.ndarray:
    from pymatgen.core import Composition

    out = np.zeros((len(formulas), len(ELEMENTS), MAX_COUNT), dtype=np.float32)
    row = {z: i for i, z in enumerate(ELEMENTS)}
    for i, formula in enumerate(formulas):
        for element, count in Composition(formula).items():
            out[i, row[element.Z], int(count) - 1] = 1.0
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formulas", type=int, default=5_000, help="how many for the comparison")
    parser.add_argument("--save", action="store_true", help="write results/composition_matrix.json")
    options = parser.parse_args()

    descriptor = CompositionMatrix()
    table = imd.datasets.load("oqmd_formulas").table["formula"]
    read = descriptor.read(table.tolist())  # compiles the parser
    held = table[read.ok]
    some = held.sample(options.formulas, random_state=0).tolist()
    slow, expected = best_of(1, pymatgen_road, some)
    fast, found = best_of(5, descriptor.encode, some)
    assert (found.numpy() == expected).all(), "the two roads give different matrices"
    ratio = slow / fast

    whole, matrices = best_of(3, descriptor.encode, held.tolist())
    back, decoded = best_of(1, descriptor.decode, matrices)
    assert decoded.ok.all()
    assert decoded.formulas() == held.tolist(), "a formula did not come back"
    print(f"{len(some):,} formulas: {1e6 * slow / len(some):.1f} us each by pymatgen, "
          f"{1e6 * fast / len(some):.2f} us here, {ratio:.0f} x")  # fmt: skip
    print(f"{len(held):,} formulas encoded in {whole:.2f} s, decoded in {back:.2f} s, all equal")
    assert ratio >= REQUIRED
    assert whole <= SECONDS
    if options.save:
        result = {
            "formulas": len(held),
            "ratio_to_pymatgen": ratio,
            "seconds_per_formula": {"pymatgen": slow / len(some), "imd": fast / len(some)},
            "seconds_to_encode_all": whole,
            "seconds_to_decode_all": back,
            "required": {"ratio": REQUIRED, "seconds_to_encode_all": SECONDS},
        }
        print("wrote", save("composition_matrix", {**result, **environment("pymatgen", "torch")}))


if __name__ == "__main__":
    main()
