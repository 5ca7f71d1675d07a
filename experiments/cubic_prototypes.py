"""Rigid cubic prototypes filled with elements, with lattice constants and energies by CHGNet.

    python experiments/cubic_prototypes.py scan     lattice scans, resumable
    python experiments/cubic_prototypes.py table    cubic_prototypes.npz
    python experiments/cubic_prototypes.py check    against the real crystals

Finished chunks lie in `_build/cubic_prototypes/`. One thread takes about an hour and a half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import record

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.datasets import split_of
from imd_helpers.datasets.embedded import CUBIC_PROTOTYPES, compound_formulas
from imd_helpers.datasets.splits import SPLITS
from imd_helpers.descriptors.symmetry_sites import Sites, canonical, decode_sites, find_sites
from imd_helpers.energies.hull import formation_energy
from imd_helpers.energies.lattice_scan import LatticeScan, lattice_scan
from imd_helpers.models.cubicgan import training_sites
from imd_helpers.predictors import SitePredictor

HERE = record.DATA / "cubic_prototypes"
WORK = record.BUILD / "cubic_prototypes"
CHUNK = 250
FIRST = 4_000  # compounds that teach the guess for the others
SEED = 2021
HOW_MANY = {"half-Heusler": 18_500, "Heusler": 18_500, "perovskite": 6_000}
ANIONS = ("H", "B", "C", "N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I")
INTERLEAVE = 7919  # a prime: chunks mix the prototypes, so that any number of them is a sample


def enumerate_all(name: str, known: np.ndarray) -> np.ndarray:
    """(all, 3) atomic numbers of every different filling of a prototype."""
    a, b, c = np.meshgrid(known, known, known, indexing="ij")
    different = (a != b) & (b != c) & (a != c)
    if name == "half-Heusler":
        different &= a < b  # an inversion exchanges the first two
    elif name == "Heusler":
        different &= b < c  # a shift of the origin exchanges the last two
    else:
        anion = np.isin(known, [elements.number(symbol) for symbol in ANIONS])
        different &= anion[None, None, :] & ~anion[:, None, None] & ~anion[None, :, None]
    return np.stack([a[different], b[different], c[different]], axis=1)


def compounds() -> Sites:
    """The sample, in a fixed order, with lengths guessed from the real training crystals."""
    real = training_sites("train")
    known = np.unique(real.numbers)
    rng = np.random.default_rng(SEED)
    parts = []
    for name, group, orbits in CUBIC_PROTOTYPES:
        everything = enumerate_all(name, known)
        chosen = rng.choice(len(everything), HOW_MANY[name], replace=False)
        print(f"{name}: {len(chosen):,} of {len(everything):,} with {len(known)} elements")
        n = len(chosen)
        grid = np.tile(np.array(orbits), (n, 1, 1))
        parts.append(Sites(np.full(n, group), everything[chosen], grid, np.full(n, 5.0)))
    sites = Sites.cat(parts)
    sites = sites[np.arange(len(sites)) * INTERLEAVE % len(sites)]
    values = np.stack([real.length, np.zeros(len(real))], axis=1)
    predictor = SitePredictor("contacts").fit(real, values)
    length = [predictor.predict(sites[k : k + 2000])[:, 0] for k in range(0, len(sites), 2000)]
    return replace(sites, length=np.concatenate(length))


def scan() -> None:
    """Every compound's equation of state; a chunk that is there is not computed again."""
    sites = compounds()
    record.write_arrays(WORK / "sites.npz", **vars(sites))
    refined = False
    for start in range(0, len(sites), CHUNK):
        file = WORK / f"chunk-{start:05d}.npz"
        if file.exists():
            continue
        if start == FIRST or (start > FIRST and not refined):
            sites, refined = _better_guess(sites), True
        record.once(file, _scan, sites[start : start + CHUNK])


def _scan(part: Sites) -> dict[str, np.ndarray]:
    """Fine points around the guess; where the minimum is not there, the coarse scan first."""
    crystals = symmetry.primitive(decode_sites(part).crystals)
    found = lattice_scan(crystals, coarse=False)
    columns = _columns(found, crystals, part.length)
    again = np.flatnonzero(~found.ok)
    if len(again):
        second = lattice_scan(crystals[again])
        for name, values in _columns(second, crystals[again], part.length[again]).items():
            columns[name][again] = values
    return columns


def _better_guess(sites: Sites) -> Sites:
    """Lengths as a sum over the sites of what each element adds there, learnt from the first."""
    chunks = [np.load(WORK / f"chunk-{start:05d}.npz") for start in range(0, FIRST, CHUNK)]
    length, ok = (np.concatenate([chunk[name] for chunk in chunks]) for name in ("length", "ok"))
    known = np.flatnonzero(ok)
    out = sites.length.copy()
    for _, group, _ in CUBIC_PROTOTYPES:
        mine = sites.space_group == group
        design = np.hstack([np.eye(elements.N_COLUMNS)[z] for z in sites.numbers.T])
        taught = known[mine[known]]
        a = design[taught]
        square = a.T @ a + 0.3 * np.eye(a.shape[1])
        middle = length[taught].mean()
        weight = np.linalg.solve(square, a.T @ (length[taught] - middle))
        out[mine] = middle + design[mine] @ weight
        error = np.abs(out[taught] / length[taught] - 1)
        print(f"space group {group}: guess within {np.median(error):.1%} (of what it learnt from)")
    return replace(sites, length=out)


def _columns(found: LatticeScan, given: CrystalBatch, length: np.ndarray) -> dict[str, np.ndarray]:
    scale = np.cbrt((found.crystals.lattice.det() / given.lattice.det()).abs().numpy())
    return {
        "length": length * scale,
        "energy": found.energy.copy(),
        "bulk_modulus": found.bulk_modulus.copy(),
        "ok": found.ok.copy(),
        "reasons": np.array(found.reasons, dtype="U200"),
    }


def table() -> None:
    """All finished chunks in one compact file."""
    with np.load(WORK / "sites.npz") as file:
        sites = Sites(**file)
    chunks = {int(file.stem[-5:]): dict(np.load(file)) for file in sorted(WORK.glob("chunk-*.npz"))}
    rows = np.concatenate([start + np.arange(len(found["ok"])) for start, found in chunks.items()])
    names = next(iter(chunks.values()))
    merged = {k: np.concatenate([found[k] for found in chunks.values()]) for k in names}
    sites = sites[rows]
    formed = formation_energy(decode_sites(sites).crystals.counts().numpy(), merged["energy"])
    ok = merged["ok"] & np.isfinite(formed)
    groups = [group for _, group, _ in CUBIC_PROTOTYPES]
    kept = sites[ok]
    kind = np.array([groups.index(g) for g in kept.space_group])
    split = [SPLITS.index(split_of(f)) for f in compound_formulas(kind, kept.numbers)]
    np.savez_compressed(
        HERE / "cubic_prototypes.npz",
        prototype=kind.astype(np.uint8),
        numbers=kept.numbers.astype(np.uint8),
        split=np.array(split, np.uint8),
        length=np.round(merged["length"][ok] * 1e4).astype(np.uint32),  # 1e-4 Å
        formation_energy=np.round(formed[ok] * 1e4).astype(np.int32),  # 0.1 meV/atom
        bulk_modulus=np.round(merged["bulk_modulus"][ok] * 10).astype(np.uint16),  # 0.1 GPa
    )
    print(f"{ok.sum():,} of {len(ok):,} scanned; without a minimum:")
    why, count = np.unique(merged["reasons"][~ok].astype("U40"), return_counts=True)
    for reason, n in sorted(zip(why, count, strict=True), key=lambda row: -row[1])[:12]:
        print(f"  {n:5d}  {reason}")


def check() -> None:
    """The same lattice scan on the real cubic ternaries: lengths against OQMD's."""
    real = imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=[225, 216, 221])
    sites, rows = find_sites(real.crystals)
    crystals = symmetry.primitive(decode_sites(canonical(sites)).crystals)
    found = lattice_scan(crystals)
    scale = _columns(found, crystals, np.ones(len(crystals)))["length"]
    error = (scale - 1)[found.ok]
    formed = formation_energy(crystals.counts().numpy(), found.energy)[found.ok]
    known = real.table["formation_energy"].to_numpy()[rows][found.ok]
    print(f"{found.ok.sum()} of {len(sites)} have a minimum")
    print(
        f"a: median error {np.median(np.abs(error)):.2%}, bias {np.mean(error):+.2%}, within 3 %: "
        f"{np.mean(np.abs(error) < 0.03):.1%}"
    )
    print(
        f"formation energy: mean absolute difference {np.abs(formed - known).mean():.3f}, mean "
        f"difference {np.mean(formed - known):+.3f}, r = {np.corrcoef(formed, known)[0, 1]:.4f}"
    )


TASKS = (scan, table, check)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
