"""Calibrate the stability of generated crystals against decomposition energies by DFT.

    python experiments/calibration.py points TABLE NAME   energies by one potential, resumable
    python experiments/calibration.py fit TABLE           coefficients and how well they predict

TABLE is a CSV with the columns method, formula, decomposition_energy (eV/atom) and cif. The one
that was used holds 1,446 crystals of the repository Bartel-Group/matgen_baselines, see
`data/calibration/README.md`. The energies of one potential take 2 to 20 minutes of one core.
"""

from __future__ import annotations

import hashlib
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
from record import Row, rounded
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from imd_helpers.crystals import CrystalBatch, elements
from imd_helpers.energies import calibration, hull
from imd_helpers.energies.calibration import Calibration, features
from imd_helpers.energies.potentials import POTENTIALS
from imd_helpers.intervals import wilson
from imd_helpers.judge import Report

OUT = record.DATA / "calibration"
WORK = record.BUILD / "calibration"
CHUNK = 100
THRESHOLDS = (0.0, 0.1)  # eV/atom
WHOLE = len(calibration.FEATURES)
RIDGE = 1e-3
RESAMPLES, SEED = 400, 0
FOLDS = 10
BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0)


def crystals_of(table: pd.DataFrame) -> CrystalBatch:
    """The crystals of the table, in its order."""
    from pymatgen.core import Structure

    return CrystalBatch.from_structures([Structure.from_str(cif, fmt="cif") for cif in table.cif])


def points(table: str, name: str) -> None:
    """Energies on the published geometries."""
    energies(crystals_of(pd.read_csv(table)), name)


def energies(crystals: CrystalBatch, name: str) -> np.ndarray:
    """(n,) eV/atom by one potential, in chunks of similar size that are kept."""
    energy, order = np.zeros(len(crystals)), np.argsort(crystals.n_sites.numpy(), kind="stable")
    for start in range(0, len(crystals), CHUNK):
        rows, file = order[start : start + CHUNK], WORK / f"{name}-{start:04d}.npz"
        energy[rows] = record.once(file, record.said, name, crystals[rows])["energy"]
    return energy


class Table:
    """The crystals with their distances from the hull, by DFT and by each potential."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.table = pd.read_csv(file)
        self.dft = self.table.decomposition_energy.to_numpy()
        self.method = self.table.method.to_numpy()
        crystals = crystals_of(self.table)
        self.counts = crystals.counts().numpy()
        present = [row.tobytes() for row in self.counts > 0]
        self.system = np.unique(present, return_inverse=True)[1]
        self.stands = {
            name: hull.above_hull(self.counts, energies(crystals, name), name)
            for name in POTENTIALS
        }

    def above(self, name: str) -> np.ndarray:
        """(n,) eV/atom."""
        return self.stands[name].energy_above_hull

    def features(self, pair: tuple[str, str], k: int = WHOLE) -> np.ndarray:
        """(n, k), the first of `imd_helpers.energies.calibration.FEATURES`."""
        above = np.stack([self.above(name) for name in pair], axis=1)
        formation = self.stands[pair[0]].formation_energy
        return features(above, formation, calibration.metals_alone(self.counts))[:, :k]


# ---- fitting


def fitted(x: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """Coefficients of the logistic regression."""
    ridge = LogisticRegression(C=1 / RIDGE, fit_intercept=False, max_iter=5_000)
    return ridge.fit(x, stable).coef_[0]


def spread(x: np.ndarray, stable: np.ndarray, system: np.ndarray) -> np.ndarray:
    """Covariance of the coefficients over resampled chemical systems."""
    rng = np.random.default_rng(SEED)
    of = [np.flatnonzero(system == s) for s in np.unique(system)]
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([of[k] for k in rng.integers(len(of), size=len(of))])
        found.append(fitted(x[rows], stable[rows]))
    return np.cov(np.array(found).T)


def between(exponent: np.ndarray, stable: np.ndarray, method: np.ndarray) -> float:
    """Standard deviation of the generators' own shifts, their sampling errors taken off."""
    shifts, errors = [], []
    for one in np.unique(method):
        mine, shift = method == one, 0.0
        for _ in range(30):  # Newton's method for the likelihood of one number
            p = 1 / (1 + np.exp(-exponent[mine] - shift))
            shift += np.clip((stable[mine] - p).sum() / (p * (1 - p)).sum(), -1, 1)
        shifts.append(shift)
        errors.append(1 / (p * (1 - p)).sum())
    return float(np.sqrt(max(np.var(shifts, ddof=1) - np.mean(errors), 0.0)))


def fit_of(
    table: Table, pair: tuple[str, str], threshold: float, rows: np.ndarray, k: int = WHOLE
) -> Calibration:
    """A calibration on some rows, with the first k features."""
    x, stable = table.features(pair, k)[rows], table.dft[rows] <= threshold
    coefficients = fitted(x, stable)
    tau = between(x @ coefficients, stable, table.method[rows])
    covariance = spread(x, stable, table.system[rows])
    seen = (table.counts[rows] > 0).any(0)
    generators = len(np.unique(table.method[rows]))
    return Calibration(pair, threshold, coefficients, covariance, tau, generators, seen)


# ---- predicting what was left out


def left_out(
    table: Table, pair: tuple[str, str], threshold: float, by: str, k: int = WHOLE
) -> np.ndarray:
    """(n,) probability of each crystal by a fit without its group, with the first k features."""
    x, stable, groups = table.features(pair, k), table.dft <= threshold, getattr(table, by)
    folds = GroupKFold(FOLDS) if by == "system" else LeaveOneGroupOut()
    out = np.zeros(len(stable))
    for rest, held in folds.split(x, groups=groups):
        out[held] = 1 / (1 + np.exp(-x[held] @ fitted(x[rest], stable[rest])))
    return out


def scores(table: Table, pair: tuple[str, str], threshold: float, k: int = WHOLE) -> Row:
    """Brier scores and log losses beside the base rate and the raw verdicts."""
    stable = table.dft <= threshold
    raw = {name: table.above(name) <= threshold for name in pair}
    raw["both"] = raw[pair[0]] & raw[pair[1]]
    out: Row = {"raw": {name: float((said != stable).mean()) for name, said in raw.items()}}
    out["base rate"] = float(stable.mean() * (1 - stable.mean()))
    for by in ("system", "method"):
        p = left_out(table, pair, threshold, by, k)
        loss = -np.log(np.where(stable, p, 1 - p))
        out[by] = {"brier": float(((p - stable) ** 2).mean()), "log_loss": float(loss.mean())}
    return out


def reliability(table: Table, pair: tuple[str, str], threshold: float) -> list[Row]:
    """Predicted and observed shares of crystals with similar predictions, by left-out systems."""
    p, stable = left_out(table, pair, threshold, "system"), table.dft <= threshold
    rows = []
    for low, high in pairwise(BINS):
        mine = (p >= low) & (p < high)
        if mine.any():
            ends = wilson(int(stable[mine].sum()), int(mine.sum()))
            share = [stable[mine].mean(), *map(float, ends)]
            rows.append({"n": int(mine.sum()), "predicted": p[mine].mean(), "observed": share})
    return rows


def generators(table: Table, pair: tuple[str, str], threshold: float, k: int = WHOLE) -> Row:
    """Each generator: what DFT and each potential say, and what a fit without it expects."""
    x, out = table.features(pair, k), {}
    for one in np.unique(table.method):
        mine = table.method == one
        without = fit_of(table, pair, threshold, np.flatnonzero(~mine), k)
        hits, n = int((table.dft[mine] <= threshold).sum()), int(mine.sum())
        raw = {name: float((table.above(name)[mine] <= threshold).mean()) for name in POTENTIALS}
        agree = np.all([table.above(name)[mine] <= threshold for name in pair], axis=0)
        out[str(one)] = {
            "n": n,
            "dft": [hits / n, *map(float, wilson(hits, n))],
            "raw": raw,
            "both": float(agree.mean()),
            "expected": list(without.expected(x[mine])),
            "median_dft": float(np.median(table.dft[mine])),
        }
    return out


def chemistry(table: Table, pair: tuple[str, str], threshold: float) -> Row:
    """Crystals of one chemistry: what DFT says, and what is expected with and without others alike.

    ``expected`` is by a fit that saw none of this chemistry, ``systems`` by fits that left out
    chemical systems only.
    """
    x, stable = table.features(pair), table.dft <= threshold
    by_system, out = left_out(table, pair, threshold, "system"), {}
    for name, mine in chemistries(table.counts).items():
        without = fit_of(table, pair, threshold, np.flatnonzero(~mine))
        hits, n = int(stable[mine].sum()), int(mine.sum())
        out[name] = {
            "n": n,
            "dft": [hits / n, *map(float, wilson(hits, n))],
            "expected": list(without.expected(x[mine])),
            "systems": float(by_system[mine].mean()),
        }
    return out


def four(table: Table, pair: tuple[str, str], threshold: float) -> Row:
    """The same fit without the coefficient of metals: what it was worth, what the board would say.

    ``metals`` has what both expect of metals alone, chemical systems left out; ``board`` for each
    entry of the leaderboard its expected share with four coefficients and with five, means over
    its runs.
    """
    k, stable = WHOLE - 1, table.dft <= threshold
    alone = calibration.metals_alone(table.counts)
    ways = [fitted(table.features(pair, some), stable) for some in (k, WHOLE)]
    runs: dict[str, list[list[float]]] = {}
    folder = record.DATA / "leaderboard"
    for file in sorted(folder.rglob("report.json")):
        report = Report.from_json(file.read_text(encoding="utf-8"))
        asked = np.flatnonzero(report.facts["metastable"] >= 0)
        if len(asked):
            x = calibration.features_in(report.values, pair, asked)
            p = [1 / (1 + np.exp(-x[:, : len(b)] @ b)) for b in ways]
            entry = file.relative_to(folder).parts[0]
            runs.setdefault(entry, []).append([float(np.nansum(one) / report.n) for one in p])
    return {
        "coefficients": ways[0].tolist(),
        "compared": scores(table, pair, threshold, k),
        "generators": {
            name: {key: row[key] for key in ("n", "dft", "expected")}
            for name, row in generators(table, pair, threshold, k).items()
        },
        "metals": [
            float(left_out(table, pair, threshold, "system", some)[alone].mean())
            for some in (k, WHOLE)
        ],
        "board": {entry: np.mean(each, axis=0).tolist() for entry, each in runs.items()},
    }


def chemistries(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (n,) bool; a crystal may belong to several, but to metals only if to no other."""
    kinds = {"oxides": "O", "halides": "F Cl Br I", "sulfides to tellurides": "S Se Te"}
    kinds |= {"nitrides to antimonides": "N P As Sb", "hydrides, borides, carbides": "H B C"}
    numbers = {name: [elements.number(s) for s in text.split()] for name, text in kinds.items()}
    out = {name: (counts[:, some] > 0).any(1) for name, some in numbers.items()}
    return out | {calibration.METALS: calibration.metals_alone(counts)}


def errors(table: Table) -> Row:
    """How far each potential lies from DFT, eV/atom."""
    out: Row = {}
    for name in POTENTIALS:
        for one in ["all", *np.unique(table.method)]:
            mine = np.isin(table.method, [one]) | (one == "all")
            off = (table.above(name) - table.dft)[mine]
            alone = off - table.stands[name].missing[mine]
            out.setdefault(name, {})[str(one)] = {
                "median": float(np.median(off)),
                "mean_absolute": float(np.abs(off).mean()),
                "mean_absolute_without_missing": float(np.abs(alone).mean()),
                "correlation": float(np.corrcoef(table.above(name)[mine], table.dft[mine])[0, 1]),
            }
    return out


# ---- the file


def fit(file: str) -> None:
    """Every pair into stability.json, and the details of the best one."""
    table = Table(file)
    everything = np.arange(len(table.dft))
    compared = {
        " + ".join(pair): {str(t): scores(table, pair, t) for t in THRESHOLDS}
        for pair in permutations(POTENTIALS, 2)
    }
    pairs: Row = {}
    for pair in permutations(POTENTIALS, 2):
        fits = [fit_of(table, pair, t, everything) for t in THRESHOLDS]
        pairs[" + ".join(pair)] = {"fits": [as_data(each) for each in fits]}
    loss = {pair: sum(s["method"]["log_loss"] for s in c.values()) for pair, c in compared.items()}
    # the cheaper one of two relaxes, so it stands first; the order hardly changes the loss
    best = min(map(" + ".join, combinations(POTENTIALS, 2)), key=loss.__getitem__)
    details = {
        str(t): {
            "generators": generators(table, tuple(best.split(" + ")), t),
            "reliability": reliability(table, tuple(best.split(" + ")), t),
            "chemistry": chemistry(table, tuple(best.split(" + ")), t),
            "four": four(table, tuple(best.split(" + ")), t),
        }
        for t in THRESHOLDS
    }
    results = {
        "made_by": "python experiments/calibration.py fit TABLE",
        "table_sha256": hashlib.sha256(table.file.read_bytes()).hexdigest(),
        "n": len(table.dft),
        "features": list(calibration.FEATURES),
        "hull": {name: hull.definition(name) for name in POTENTIALS},
        "elements": np.flatnonzero((table.counts > 0).any(0)).tolist(),
        "best": best,
        "pairs": pairs,
        "compared": compared,
        "errors": errors(table),
        "details": details,
    }
    record.write(OUT / "stability.json", rounded(results, 5))
    for pair, total in sorted(loss.items(), key=lambda item: item[1]):
        print(f"{pair}: log loss {total:.4f} over both thresholds, generators left out")


def as_data(fit: Calibration) -> dict[str, Any]:
    """What `imd_helpers.energies.calibration.calibration` reads."""
    return {
        "threshold": fit.threshold,
        "coefficients": fit.coefficients.tolist(),
        "covariance": fit.covariance.tolist(),
        "between_generators": fit.between,
        "generators": fit.generators,
    }


TASKS = (points, fit)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
