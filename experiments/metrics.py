"""Crash-test the metrics, and send generators that learned nothing through all of them.

    python experiments/metrics.py crash       crash.json
    python experiments/metrics.py ladder      ladder.json
    python experiments/metrics.py cdvae SAMPLES REFERENCE   coverage beside the original procedure

SAMPLES and REFERENCE are CSV files with a column cif; SAMPLES may have a column method. Nothing is
written: coverage by this package and by CDVAE's own steps is printed for each method.

Fingerprints take most of the time. They are kept in the package's cache, so that a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import record
from cubicgan import held_out
from matminer.featurizers.composition.composite import ElementProperty
from matminer.featurizers.site.fingerprint import CrystalNNFingerprint
from pymatgen.core import Structure
from record import Row
from scipy.spatial.distance import cdist

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch, geometry, symmetry
from imd_helpers.descriptors.fingerprints import magpie
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.intervals import bootstrap_distance, jackknife
from imd_helpers.judge import Number, corruption, distributions, wilson
from imd_helpers.matching.novelty import BROKEN, KINDS, novelty_kinds
from imd_helpers.matching.same import structure_distance
from imd_helpers.models import cubicgan
from imd_helpers.networks import distances

HERE = record.CHECKPOINTS / "metrics"
N_DRAWN, N, N_SLOW, N_REFERENCE = 1000, 300, 100, 500
MOST_SITES, SEED = 20, 1
SHORTEST = 1.0  # Å
SLOW_DOSES = (0, 2, -1)  # which of the doses of a test get what is slow, of N_SLOW crystals
WIDTH = 5.0  # of the Vendi score: half of CDVAE's cutoff of compositions
RULES = ("cdvae", "lemat", "imd")
VARIANTS = ("fixed", "paper")
MAGPIE = ("means", "deviations")
N_COVERED, COVERED = 200, (10, 25, 50, 100)  # samples, to see how recall grows


def draw(split: str, n: int) -> CrystalBatch:
    """n crystals of one split with at most MOST_SITES sites."""
    data = imd.datasets.load("oqmd_icsd", split=split)
    small = np.flatnonzero(data.n_sites <= MOST_SITES)
    return data[np.sort(np.random.default_rng(0).permutation(small)[:n])].crystals


def share(name: str, yes: np.ndarray) -> Row:
    """A share with its Wilson interval."""
    low, high = wilson(yes.sum(), len(yes))
    return row(name, yes.mean(), low, high, len(yes))


def measured(name: str, measure: Number) -> Row:
    """A measure as plain numbers."""
    return row(name, measure.value, measure.low, measure.high, measure.n)


def row(name: str, value: float, low: float, high: float, n: int) -> Row:
    """One number with its interval."""
    return {"metric": name, "value": float(value), "low": float(low), "high": float(high), "n": n}


def long_enough(crystals: CrystalBatch) -> np.ndarray:
    """No lattice vector is below 1 Å: in flatter cells the search for symmetry does not end."""
    reduced, _ = geometry.reduce_lattice(crystals.lattice)
    return (reduced.norm(dim=2) >= SHORTEST).all(1).numpy()


def answers(crystals: CrystalBatch, training: CrystalBatch) -> dict[str, np.ndarray]:
    """Metrics that ask each crystal: name -> (n,) bool."""
    yes = {f"distances, {rule}": imd.judge.geometry_valid(crystals, rule) for rule in RULES}
    yes["charge neutral"] = imd.judge.charge_neutral(crystals.counts().numpy())
    ask = long_enough(crystals)
    yes["more than P1"] = ask.copy()
    yes["more than P1"][ask] = symmetry.space_group_numbers(crystals[ask]) > 1
    yes["unique"] = imd.judge.unique(crystals)
    yes["novel"] = imd.judge.novel(crystals, training)
    new = yes["charge neutral"] & yes["unique"] & yes["novel"]
    yes |= {f"V.U.N., {rule}": yes[f"distances, {rule}"] & new for rule in ("cdvae", "imd")}
    return yes


def of_sets(crystals: CrystalBatch, reference: CrystalBatch) -> list[Row]:
    """Metrics that compare the set with a reference, without slow fingerprints."""
    made, known = magpie(crystals).points, magpie(reference).points
    sizes = len(made), len(known)
    precision, recall = distances.precision_recall(known, made)
    frechet = bootstrap_distance(
        lambda u, v: distances.frechet_gaussians(*moments(made, u), *moments(known, v)),
        sizes,
        resamples=50,
    )
    vendi = jackknife(lambda keep: distances.vendi_score(made[keep], bandwidth=WIDTH), sizes[0])
    return [
        share("precision", np.arange(len(crystals)) < round(precision * sizes[0])),
        share("recall", np.arange(sizes[1]) < round(recall * sizes[1])),
        *(
            measured(f"W1 {called}", distributions.wasserstein(crystals, reference, name))
            for called, name in (("density", "density"), ("elements", "n_elements"))
        ),
        row("Fréchet", *frechet, sizes[0]),
        row("Vendi", *vendi, sizes[0]),
    ]


def moments(points: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of points that count so many times."""
    weights = times.astype(int)
    return np.average(points, 0, weights), np.cov(points.T, fweights=weights)


def covered(crystals: CrystalBatch, reference: distributions.Fingerprints) -> list[Row]:
    """CDVAE's coverage."""
    found = distributions.coverage(distributions.fingerprints(crystals), reference)
    return [measured("COV-R", found["recall"]), measured("COV-P", found["precision"])]


def kinds(crystals: CrystalBatch, training: CrystalBatch) -> list[Row]:
    """What kind of new each crystal is."""
    found = np.full(len(crystals), BROKEN, dtype=object)
    ask = long_enough(crystals)
    if ask.any():
        found[ask] = novelty_kinds(crystals[ask], training).kind
    return [share(f"kind: {kind}", found == kind) for kind in KINDS]


def distance(crystals: CrystalBatch, training: CrystalBatch) -> Row:
    """Median distance to the nearest known crystal of the formula, with its interval."""
    found, _ = structure_distance(crystals, training, same_composition=True)
    found = np.sort(found[np.isfinite(found)])
    n = len(found)
    if n < 10:
        return row("AMD", np.nan, np.nan, np.nan, n)
    reach = 0.98 * n**0.5  # ranks whose binomial probability is 95 %
    low, high = (found[int(np.clip(n / 2 + side * reach, 0, n - 1))] for side in (-1, 1))
    return row("AMD", np.median(found), low, high, n)


def crash() -> None:
    """Every test of `corruption.CRASH_TESTS` at every dose."""
    real, reference = draw("train", N_DRAWN)[:N], draw("test", N_REFERENCE)
    training = imd.datasets.load("oqmd_icsd", split="train").crystals
    fingerprints = distributions.fingerprints(reference)
    rows: list[Row] = []
    for name, test in corruption.CRASH_TESTS.items():
        chosen = {test.doses[place] for place in SLOW_DOSES}
        for dose in test.doses:
            start = time.process_time()
            made = test.apply(real, dose, seed=SEED)
            found = [share(*pair) for pair in answers(made, training).items()]
            found += [distance(made, training), *of_sets(made, reference)]
            if dose in chosen:
                # the same few crystals at every dose, not those that a drop leaves first
                made = test.apply(real[:N_SLOW], dose, seed=SEED)
                found += [*covered(made, fingerprints), *kinds(made, training)]
            rows += [{"test": name, "dose": dose, **row} for row in found]
            print(f"{name} {dose}: {time.process_time() - start:.0f} s", flush=True)
    write("crash.json", reference, rows)


def contestants() -> dict[str, Any]:
    """Generators that know the 763 cubic training crystals of CubicGAN, or parts of them."""
    templates = baselines.Templates.of(decode_sites(cubicgan.training_sites("train")).crystals)
    rungs = baselines.ladder(templates)
    copies, random = rungs.pop("training copies"), rungs.pop("random")
    makers = {
        "training copies": copies,
        **rungs,
        "prototype enumeration": baselines.PrototypeEnumeration(templates),
        "random cubic": random,
        "random Wyckoff": baselines.RandomWyckoff(templates),
        "random P1": baselines.RandomP1(templates),
    }
    return makers | {f"CubicGAN, {v}": imd.models.load("cubicgan", variant=v) for v in VARIANTS}


def ladder() -> None:
    """Every contestant through every metric."""
    training = imd.datasets.load("oqmd_icsd", split="train").crystals
    reference = held_out()
    fingerprints = distributions.fingerprints(reference)
    rows: list[Row] = []
    for name, maker in contestants().items():
        start = time.process_time()
        decoded = maker.sample(N_DRAWN, seed=SEED)
        made = decoded.valid()
        found = [share("decodes", decoded.ok)]
        for metric, yes in answers(made, training).items():
            every = np.zeros(len(decoded), dtype=bool)  # what did not decode has nothing
            every[decoded.ok] = yes
            found.append(share(metric, every))
        found += [distance(made, training), *of_sets(made, reference), *kinds(made, training)]
        found += covered(made[:N_COVERED], fingerprints)
        for n in COVERED:
            recall = covered(made[:n], fingerprints)[0]
            found.append({**recall, "metric": f"COV-R of {n}"})
        rows += [{"generator": name, **row} for row in found]
        print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    write("ladder.json", reference, rows)


def write(name: str, reference: CrystalBatch, rows: list[Row]) -> None:
    """All rows with five decimals."""
    found = {"reference": len(reference), "seed": SEED, "rows": record.rounded(rows)}
    record.write(HERE / name, found, indent=None)


# ---- coverage beside the original procedure


def cdvae(samples: str, reference: str, n: str = "100", n_reference: str = "300") -> None:
    """COV-R and COV-P, %, of some crystals of each method, twice."""
    known = structures(pd.read_csv(reference), int(n_reference))
    prints = distributions.fingerprints(CrystalBatch.from_structures(known))
    points = [published_point(each) for each in known]
    table = pd.read_csv(samples)
    for method, mine in table.groupby(table.get("method", pd.Series("", table.index))):
        made = structures(mine, int(n))
        ours = distributions.coverage(
            distributions.fingerprints(CrystalBatch.from_structures(made)), prints
        )
        theirs = published_coverage([published_point(each) for each in made], points)
        said = (f"{100 * ours[k].value:.1f} {100 * theirs[k]:.1f}" for k in ("recall", "precision"))
        print(f"{method}: COV-R {next(said)}, COV-P {next(said)}", flush=True)


def structures(table: pd.DataFrame, n: int) -> list[Structure]:
    """Some crystals of a table, drawn at random."""
    some = table.cif.sample(min(n, len(table)), random_state=0)
    return [Structure.from_str(cif, fmt="cif") for cif in some]


Point = tuple[np.ndarray, np.ndarray] | None  # of structure and composition


def published_point(structure: Structure) -> Point:
    """Every site's fingerprint, averaged, and scaled Magpie; None where CrystalNN fails.

    Source: txie-93/cdvae, `Crystal.get_fingerprints` in scripts/compute_metrics.py.
    """
    sites, elements = CrystalNNFingerprint.from_preset("ops"), ElementProperty.from_preset("magpie")
    try:
        each = [sites.featurize(structure, i) for i in range(len(structure))]
    except Exception:  # as there: whatever is wrong, the crystal has no point
        return None
    means, deviations = (np.array(distributions.CDVAE["magpie"][k]) for k in MAGPIE)
    scaled = (np.array(elements.featurize(structure.composition)) - means) / deviations
    return np.mean(each, axis=0), np.nan_to_num(scaled)


def published_coverage(samples: list[Point], reference: list[Point]) -> dict[str, float]:
    """Shares by the nearest structure and the nearest composition.

    Source: txie-93/cdvae, `compute_cov` in scripts/eval_utils.py.
    """
    made, known = ([each for each in some if each] for some in (samples, reference))
    near = np.array(
        [
            cdist(*(np.array([each[k] for each in some]) for some in (made, known))) <= cutoff
            for k, cutoff in enumerate(distributions.CUTOFFS["mp_20"])
        ]
    )
    precise, recalled = (near.any(axis=axis).all(0) for axis in (2, 1))
    return {"recall": recalled.mean(), "precision": precise.sum() / len(samples)}


TASKS = (crash, ladder, cdvae)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
