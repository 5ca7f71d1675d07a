"""Charge neutrality and electronegativity balance against smact, in one run, on one core.

    python benchmarks/composition.py [--formulas 10000] [--save]

Half of the formulas are real (oqmd_formulas), half random (2 to 5 elements, counts 1 to 8). smact
gets pymatgen compositions, ready made, and our code counts; all answers must agree, for both
tables of oxidation states. Timed with the table icsd24, smact's default. Four speeds are required:
the ratios on counts and on formulas, formulas parsed and judged in a second, and seconds for two
million counts.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for both roads

import argparse
import warnings

import numpy as np
from common import best_of, environment, save

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import amounts
from imd_helpers.judge import charge_neutral

REQUIRED = 300  # times faster than smact, on counts
ON_FORMULAS = 100  # the same, parsing included
FORMULAS_A_SECOND = 200_000  # parsing included
MILLIONS, SECONDS = 2, 5.0


def formulas(n: int) -> list[str]:
    """n formulas, half real, half random."""
    real = imd.datasets.load("oqmd_formulas").table["formula"].sample(n // 2, random_state=0)
    rng = np.random.default_rng(0)
    out = real.tolist()
    while len(out) < n:
        numbers = rng.choice(np.arange(1, 104), rng.integers(2, 6), replace=False)
        counts = rng.integers(1, 9, len(numbers))
        pairs = zip(numbers, counts, strict=True)
        out.append("".join(f"{elements.SYMBOLS[z]}{k}" for z, k in pairs))
    return out


def smact_road(compositions: list, table: str | None) -> np.ndarray:
    from smact.screening import smact_validity

    return np.array([smact_validity(c, oxidation_states_set=table) for c in compositions])


def main() -> None:
    from pymatgen.core import Composition

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formulas", type=int, default=10_000)
    parser.add_argument("--save", action="store_true", help="write results/composition.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    texts = formulas(options.formulas)
    compositions = [Composition(text) for text in texts]
    counts = amounts(texts).astype(np.int64)
    many = np.tile(counts.astype(np.int16), (MILLIONS * 1_000_000 // len(counts), 1))

    smact_road(compositions[:10], None)  # read smact's tables
    charge_neutral(counts[:10])  # compile
    seconds = {}
    seconds["smact_validity"], expected = best_of(1, smact_road, compositions, None)
    seconds["imd, counts"], ours = best_of(5, charge_neutral, counts)
    seconds["imd, formulas"], parsed = best_of(5, charge_neutral, texts)
    seconds["imd, two million counts"], verdicts = best_of(1, charge_neutral, many)
    old = charge_neutral(counts, oxidation_states="smact14")
    different = {
        "icsd24": int((ours != expected).sum() + (parsed != expected).sum()),
        "two million": int((verdicts.reshape(-1, len(texts)) != expected).sum()),
        "smact14": int((old != smact_road(compositions, "smact14")).sum()),
    }
    assert not any(different.values()), f"answers differ from smact's: {different}"

    per = {name: value / len(texts) for name, value in seconds.items()}
    per["imd, two million counts"] = seconds["imd, two million counts"] / len(many)
    ratios = {name: per["smact_validity"] / value for name, value in per.items()}
    print(f"{len(texts):,} formulas, {expected.mean():.1%} pass, all answers equal")
    for name, value in per.items():
        print(f"{name:<24} {1e6 * value:9.2f} us a formula  {ratios[name]:8.1f} x")
    speed = len(texts) / seconds["imd, formulas"]
    whole = seconds["imd, two million counts"]
    print(f"{speed:,.0f} formulas a second; {len(many):,} counts in {whole:.1f} s")
    assert ratios["imd, counts"] >= REQUIRED
    assert ratios["imd, formulas"] >= ON_FORMULAS
    assert speed >= FORMULAS_A_SECOND
    assert whole <= SECONDS
    if options.save:
        result = {
            "formulas": len(texts),
            "pass": int(expected.sum()),
            "different_answers": different,
            "seconds_per_formula": per,
            "ratio_to_smact": ratios,
            "formulas_per_second": speed,
            "seconds_for_two_million": whole,
            "required": {
                "ratio_on_counts": REQUIRED,
                "ratio_on_formulas": ON_FORMULAS,
                "formulas_per_second": FORMULAS_A_SECOND,
                "seconds_for_two_million": SECONDS,
            },
        }
        print("wrote", save("composition", {**result, **environment("smact", "pymatgen", "numba")}))


if __name__ == "__main__":
    main()
