"""The table of the chapter `comparison`: every descriptor of crystals, measured alike.

    python experiments/comparison.py [NAME ...]

Writes `data/checkpoints/comparison/run.json` after each descriptor. Without names what is missing
is measured; with names these are measured again, and the other rows are kept.

For each descriptor: how many of 1,000 real crystals it can write, what comes back, what a change of
orientation, origin, order, cell or size does to its numbers, how many numbers it has, how long
it takes, and the error of one and the same regressor for the formation energy.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import comparison_entries as entries
import numpy as np
import record
import torch
from comparison_entries import ENTRIES, Entry
from record import Row
from torch import Tensor

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.datasets.store import CrystalSet
from imd_helpers.intervals import bootstrap
from imd_helpers.runtime import lookup

N_CRYSTALS, N_CHANGED = 1000, 60
N_TRAIN, N_VAL, N_TEST = 2000, 500, 1000
FEW = 100  # with fewer crystals of the thousand the round trip takes all that fit
PARTS = {"train": N_TRAIN, "val": N_VAL, "test": N_TEST}
CHUNK = 50
CHANGED = 1e-3  # of the median distance of two crystals: what counts as another description
SAME = 0.1  # Å; crystals nearer than this count as the same
SKETCH = 2048  # longer descriptors are hashed to this many numbers before the regression
WIDTHS, RIDGES = (0.1, 0.3, 1.0, 3.0), (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SETTINGS = {
    "data": "oqmd_icsd, at most 20 sites", "crystals": N_CRYSTALS, "same": SAME,
    "sketch": SKETCH, "seed": 0, **{f"n_{part}": n for part, n in PARTS.items()},
}  # fmt: skip


# ---- data


@cache
def crystals() -> CrystalSet:
    """Crystals of at most 20 sites."""
    return imd.datasets.load("oqmd_icsd").select(max_sites=20)


@cache
def sample(split: str | None, n: int) -> CrystalSet:
    """N random crystals, of one split or of all."""
    data = crystals() if split is None else crystals().select(split=split)
    return data[np.random.default_rng(0).permutation(len(data))[:n]]


def chunks(batch: CrystalBatch) -> Iterator[CrystalBatch]:
    """Pieces of a batch."""
    return (batch[i : i + CHUNK] for i in range(0, len(batch), CHUNK))


# ---- round trip


# the chapter, up to its measure of how far two crystals are apart
page = partial(record.chapter, "2_descriptors/comparison", until="### A round trip")


def deviation(one: CrystalBatch, other: CrystalBatch) -> np.ndarray:
    """(n,) Å: how far two crystals are apart, elements included; infinite for other formulas."""
    apart = [page().deviation(*pair) for pair in zip(one, other, strict=True)]
    return np.nan_to_num(np.array(apart), nan=np.inf, posinf=np.inf)


def round_trip(entry: Entry, batch: CrystalBatch) -> Row:
    """What comes back, and the time that both ways take."""
    few = entry.write(batch[:2])  # compiled loops compile now
    if entry.read is not None:
        entry.read(few)
    encode = decode = 0.0
    apart, decoded = [], 0
    for piece in chunks(batch):
        start = time.process_time()
        written = entry.write(piece)
        encode += time.process_time() - start
        if entry.read is None:
            continue
        start = time.process_time()
        back = entry.read(written)
        decode += time.process_time() - start
        good, far = np.flatnonzero(back.ok), np.full(len(piece), np.inf)
        if entry.gives == "formula":
            far[np.array(back.formulas()) == np.array(piece.formulas())] = 0.0
        elif len(good):
            far[good] = deviation(piece[good], back.crystals[good])
        decoded += len(good)
        apart.append(far)
    out: Row = {"n": len(batch), "encode_ms": 1000 * encode / len(batch), "decode_ms": None}
    if entry.read is None:
        return out
    far = np.concatenate(apart)
    finite = far[np.isfinite(far)]
    return out | {
        "decode_ms": 1000 * decode / len(batch),
        "decoded": decoded,
        "same": int((far < SAME).sum()),
        "median_error": float(np.median(finite)) if len(finite) else None,
        "error_90": float(np.quantile(finite, 0.9)) if len(finite) else None,
    }


# ---- invariances


def rewritten(kind: str, crystal: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    """The same crystal in another orientation, from another origin, in another order or cell."""
    lattice, frac, numbers = next(crystal.each())
    change, copies = np.eye(3), np.zeros((1, 3))
    if kind == "rotation":
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        lattice = lattice @ (turn * np.sign(np.linalg.det(turn)))
    elif kind == "translation":
        frac = frac + rng.random(3)
    elif kind == "permutation":
        order = rng.permutation(len(numbers))
        frac, numbers = frac[order], numbers[order]
    elif kind == "cell":
        i, j = rng.permutation(3)[:2]
        change[i, j] = rng.choice([-1, 1])
    else:  # two cells along the shortest edge
        axis = int(np.linalg.norm(lattice, axis=1).argmin())
        change[axis, axis] = 2
        copies = np.stack([np.zeros(3), np.eye(3)[axis]])
    frac = np.concatenate([frac + copy for copy in copies]) @ np.linalg.inv(change)
    numbers = np.tile(numbers, len(copies))
    return CrystalBatch.from_ragged((change @ lattice)[None], frac, numbers, [len(numbers)])


CHANGES = {
    kind: partial(rewritten, kind)
    for kind in ("rotation", "translation", "permutation", "cell", "supercell")
}


def invariances(entry: Entry, batch: CrystalBatch) -> Row:
    """Change of the numbers, where 1 is the median distance of two different crystals."""
    rng = np.random.default_rng(1)
    batch = batch[rng.permutation(len(batch))[:N_CHANGED]]
    plain = entry.write(batch).tensor.flatten(1).double()  # (n, numbers)
    pairs = torch.as_tensor(rng.integers(0, len(batch), (2, 400)))
    pairs = pairs[:, pairs[0] != pairs[1]]
    unit = (plain[pairs[0]] - plain[pairs[1]]).norm(dim=1)
    unit = float(unit[unit > 0].median())
    out: dict[str, Any] = {"n": len(batch)}
    for name, change in CHANGES.items():
        changed = CrystalBatch.cat([change(crystal, rng) for crystal in batch])
        written = entry.write(changed)
        moved = (written.tensor.flatten(1).double() - plain).norm(dim=1).numpy()[written.ok]
        out[name] = {
            "mean": float(moved.mean() / unit) if len(moved) else None,
            "median": float(np.median(moved) / unit) if len(moved) else None,
            "largest": float(moved.max() / unit) if len(moved) else None,
            "changed": int((moved > CHANGED * unit).sum()),
            "refused": int((~written.ok).sum()),
        }
    return out


# ---- regression


def features(entry: Entry, data: CrystalSet) -> tuple[np.ndarray, np.ndarray]:
    """(n, at most SKETCH) numbers and (n,) bool, whether the descriptor can write the crystal."""
    rows, ok = [], []
    for piece in chunks(data.crystals):
        written = entry.write(piece)
        rows.append(sketch(written.tensor.flatten(1).float()))
        ok.append(written.ok)
    return torch.cat(rows).double().numpy(), np.concatenate(ok)


def sketch(x: Tensor) -> Tensor:
    """Add up columns with random signs in SKETCH buckets: inner products stay, on average."""
    width = x.shape[1]
    if width <= SKETCH:
        return x
    make = torch.Generator().manual_seed(0)
    bucket = torch.randint(SKETCH, (width,), generator=make)
    sign = torch.randint(2, (width,), generator=make) * 2.0 - 1.0
    return torch.zeros(len(x), SKETCH).index_add(1, bucket, x * sign)


def regress(x: dict[str, np.ndarray], y: dict[str, np.ndarray]) -> tuple[np.ndarray, dict]:
    """Absolute errors on the test rows, by Gaussian kernel ridge regression.

    Columns are standardised; width and ridge are those with the least error on the validation rows,
    from one grid for all descriptors.
    """
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.metrics import euclidean_distances

    mean, std = x["train"].mean(0), x["train"].std(0)
    varies = std > 1e-9 * (1 + np.abs(mean))
    z = {part: (v[:, varies] - mean[varies]) / std[varies] for part, v in x.items()}
    z = {part: np.clip(v, -10, 10) for part, v in z.items()}
    squares = euclidean_distances(z["train"], squared=True)
    unit = np.median(squares[np.triu_indices(len(squares), 1)])
    offset = y["train"].mean()

    def off(settings: tuple[float, float], part: str) -> np.ndarray:
        width, ridge = settings
        model = KernelRidge(kernel="rbf", gamma=width / unit, alpha=ridge)
        guess = model.fit(z["train"], y["train"] - offset).predict(z[part])
        return np.abs(guess + offset - y[part])

    best = min(itertools.product(WIDTHS, RIDGES), key=lambda each: off(each, "val").mean())
    width, ridge = best
    return off(best, "test"), {"width": width, "ridge": ridge, "columns": int(varies.sum())}


def regression(entry: Entry) -> Row | None:
    """Errors, eV/atom, beside those of element fractions for the same crystals."""
    if not entry.regress:
        return None
    x, y, ok = {}, {}, {}
    for part, n in PARTS.items():
        data = sample(part, n)
        found, ok[part] = features(entry, data)
        x[part] = found[ok[part]]
        y[part] = data.table["formation_energy"].to_numpy()[ok[part]]
    off, settings = regress(x, y)
    fractions = {part: features(ENTRIES["element fractions"], sample(part, n))[0][ok[part]]
                 for part, n in PARTS.items()}  # fmt: skip
    theirs, _ = regress(fractions, y)
    return {
        "n_train": len(y["train"]),
        "n_test": len(off),
        "mae": float(off.mean()),
        "interval": bootstrap(off, resamples=2000),
        "fractions_mae": float(theirs.mean()),
        "mean_mae": float(np.abs(y["test"] - y["train"].mean()).mean()),
        **settings,
    }


# ---- all of it


def measure(name: str) -> Row:
    """One row of the table."""
    entry = ENTRIES[name]
    began = time.process_time()
    thousand = sample(None, N_CRYSTALS).crystals
    fits = np.concatenate([entry.write(piece).ok for piece in chunks(thousand)])
    batch = thousand[fits]
    if fits.sum() < FEW:
        batch = entries.population(entry, crystals(), N_CRYSTALS)
    trip = round_trip(entry, batch)
    row = {
        "family": entry.family,
        "gives": entry.gives,
        "numbers": entry.size,
        "fits_of_1000": int(fits.sum()),
        "round_trip": trip,
        "invariance": invariances(entry, batch),
        "regression": regression(entry),
    }
    return row | {"cpu_seconds": round(time.process_time() - began, 1)}


def table(*names: str) -> None:
    """Measure, and write after each row."""
    path = record.CHECKPOINTS / "comparison" / "run.json"
    again = {lookup("descriptor", name, ENTRIES) for name in names}
    if again:
        old = record.read(path)
        old["rows"] = [row for row in old["rows"] if row["name"] not in again]
        record.write(path, old)
    about = {"settings": SETTINGS, **record.stamp("numpy", "dscribe", "moyopy")}
    jobs = [(name,) for name in ENTRIES]
    record.fill(path, ("name",), jobs, measure, about=about, under="rows")


TASKS = (table,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
