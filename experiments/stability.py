"""Measure what the chapter on stability needs and a page cannot compute in a minute.

    python experiments/stability.py high       crystals far above OQMD's hull
    python experiments/stability.py binaries   Na-Cl and Bi-Se by prototypes
    python experiments/stability.py judged     four sources, down to the hull
    python experiments/stability.py phonons    the last few, and controls
    python experiments/stability.py table      all of it into results.json

Interrupted runs go on where they stopped: finished pieces lie in `_build/stability/`. One process
of one thread takes about 25 minutes. Needs `data/potentials`, and the packages of the extras
`judge` and `hull`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import time
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.compositions import amounts
from imd_helpers.descriptors import symmetry_sites
from imd_helpers.energies import hull, phonons
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.energies.potentials import POTENTIALS, potential
from imd_helpers.energies.relaxation import relax
from imd_helpers.models import baselines, cubicgan
from imd_helpers.runtime import InputError

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "data" / "checkpoints" / "stability"
WORK = ROOT / "_build" / "stability"
SEED = 2022
N_HIGH, LARGEST_HIGH = 1_000, 12
BINARIES = (("Na", "Cl"), ("Bi", "Se"))
LARGEST_PROTOTYPE, RELAXED_PER_FORMULA = 12, 2
WORTH_RELAXING = 0.15  # eV/atom above CHGNet's hull before relaxation
N_JUDGED = 1_000
NEAR, N_PHONONS = 0.1, 5  # eV/atom above hull by both potentials; crystals of each source
PIECE = 50


def record(name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, computed once."""
    path = WORK / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    start = time.process_time()
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(found))
    partial.replace(path)
    print(f"{name}: {time.process_time() - start:.0f} s", flush=True)
    return json.loads(path.read_text())


def rounded(values: Any, digits: int = 4) -> list[Any]:
    """Numbers for JSON, None for NaN."""
    return [None if np.isnan(v) else round(float(v), digits) for v in np.asarray(values, float)]


def as_data(crystals: CrystalBatch) -> dict[str, Any]:
    """One crystal as plain numbers; `from_data` reads it."""
    n = int(crystals.n_sites[0])
    return {
        "lattice": np.round(crystals.lattice[0].numpy(), 5).tolist(),
        "frac": np.round(crystals.frac[0, :n].numpy(), 5).tolist(),
        "numbers": crystals.numbers[0, :n].tolist(),
    }


def from_data(data: dict[str, Any]) -> CrystalBatch:
    """What `as_data` wrote."""
    return CrystalBatch.from_ragged(
        np.array([data["lattice"]]),
        np.array(data["frac"]),
        data["numbers"],
        [len(data["numbers"])],
    )


# --- crystals that DFT puts far above the hull


def high() -> dict[str, Any]:
    """Energies by both potentials of crystals more than 0.1 eV/atom above OQMD's hull."""
    known = imd.datasets.load("oqmd_icsd")
    above = known.table["energy_above_hull"] > 0.1
    compound = (known.table["n_elements"] > 1) & (known.table["n_sites"] <= LARGEST_HIGH)
    rows = np.flatnonzero(above & compound)
    rows = np.sort(np.random.default_rng(SEED).choice(rows, N_HIGH, replace=False))
    crystals = known.crystals[rows]
    energy = {name: potential(name).energies(crystals) for name in POTENTIALS}
    return {"rows": rows.tolist(), **{name: rounded(e) for name, e in energy.items()}}


# --- two binary systems by enumeration of prototypes


def prototypes() -> list[tuple[str, CrystalBatch]]:
    """Small binary prototypes of AFLOW's encyclopedia, as pymatgen carries them."""
    from pymatgen.core import Structure

    file = resources.files("pymatgen.analysis.prototypes") / "aflow_prototypes.json.gz"
    out = []
    for entry in json.loads(gzip.decompress(file.read_bytes())):
        structure = Structure.from_dict(entry["snl"])
        if len(structure.composition) == 2 and len(structure) <= LARGEST_PROTOTYPE:
            batch = CrystalBatch.from_structures([structure])
            out.append((entry["tags"]["aflow"], symmetry.primitive(batch)))
    return out


def candidates(one: str, two: str) -> tuple[list[str], CrystalBatch]:
    """Every prototype with both ways to place two elements, at a guessed volume."""
    z = [elements.number(one), elements.number(two)]
    radius = elements.column("covalent_radius")
    names, found = [], []
    for name, batch in prototypes():
        old = torch.unique(batch.numbers[batch.numbers > 0]).tolist()
        for new in (z, z[::-1]):
            numbers = batch.numbers.clone()
            for before, after in zip(old, new, strict=True):
                numbers[batch.numbers == before] = after
            # ions and metals alike take about seven times the cube of their covalent radius
            volume = 7.0 * sum(radius[int(k)] ** 3 for k in numbers[0])
            scale = (volume / float(batch.lattice[0].det().abs())) ** (1 / 3)
            names.append(name)
            found.append(CrystalBatch(batch.lattice * scale, batch.frac, numbers))
    return names, CrystalBatch.cat(found)


def binary(one: str, two: str) -> list[dict[str, Any]]:
    """The lowest prototypes of each formula, relaxed by both potentials, above each one's hull."""
    names, batch = candidates(one, two)
    scan = lattice_scan(batch, "chgnet")
    before = hull.above_hull(batch.counts().numpy(), scan.energy, "chgnet").energy_above_hull
    energy = np.where(before < WORTH_RELAXING, scan.energy, np.inf)
    formulas = np.array(batch.formulas())
    chosen: list[int] = []
    for formula in sorted(set(formulas)):
        mine = np.flatnonzero((formulas == formula) & np.isfinite(energy))
        chosen += mine[np.argsort(energy[mine])][:RELAXED_PER_FORMULA].tolist()
    start = scan.crystals[chosen]
    out = []
    rests = {name: relax(start, name, fmax=0.02, steps=300) for name in POTENTIALS}
    stands = {
        name: hull.above_hull(rest.crystals.counts().numpy(), rest.energy, name)
        for name, rest in rests.items()
    }
    for k, i in enumerate(chosen):
        row: dict[str, Any] = {"formula": str(formulas[i]), "prototype": names[i]}
        row["crystal"] = as_data(rests["chgnet"].crystals[k])
        for name, rest in rests.items():
            row[name] = {
                "above_hull": rounded([stands[name].energy_above_hull[k]])[0],
                "formation": rounded([stands[name].formation_energy[k]])[0],
                "converged": bool(rest.converged[k]),
            }
        out.append(row)
    return [{"system": f"{one}-{two}", "tried": len(batch), "scanned": int(scan.ok.sum())}, *out]


# --- the judge on generated crystals


def sources() -> dict[str, Any]:
    """Who makes crystals: the network, two baselines, and the held-out real ones."""
    known = symmetry_sites.decode_sites(cubicgan.training_sites("train")).crystals
    return {
        "CubicGAN (fixed)": imd.models.load("cubicgan", variant="fixed"),
        "substitution": baselines.Substitution(known),
        "random cubic": baselines.RandomCubic(known),
    }


def training() -> CrystalBatch:
    """What novelty is measured against, as in the chapter on CubicGAN."""
    known = imd.datasets.load("oqmd_icsd", split="train")
    return known.select(nelements=3, space_groups=list(symmetry_sites.SPACE_GROUPS)).crystals


def held_out() -> CrystalBatch:
    """Real cubic ternaries that no source has seen."""
    parts = [symmetry_sites.decode_sites(cubicgan.training_sites(s)) for s in ("val", "test")]
    return CrystalBatch.cat([part.crystals for part in parts])


def judged(name: str) -> dict[str, Any]:
    """Funnel, lattice scan and both hulls of one source."""
    if name == "held out":
        survivors, stages = held_out(), {}
        n = len(survivors)
    else:
        n = N_JUDGED
        samples = sources()[name].sample(n, seed=1)
        report = imd.judge.judge(samples, protocol="funnel", training=training(), name=name)
        stages = {stage.name: stage.passed for stage in report.stages}
        survivors = samples.crystals[report.passed]
    rows: list[dict[str, Any]] = []
    label = name.split(maxsplit=1)[0].lower()
    for k in range(0, len(survivors), PIECE):
        part = survivors[slice(k, k + PIECE)]
        rows += record(f"judged/{label}-{k:04d}", lambda part=part: stands(part))
    return {"n": n, "stages": stages, "crystals": rows}


def stands(crystals: CrystalBatch) -> list[dict[str, Any]]:
    """Minimum, formation energy and energy above hull of each crystal, by both potentials."""
    groups = symmetry.space_group_numbers(crystals)
    fixed = symmetry.only_scale_is_free(crystals)
    rows = [
        {"formula": f, "space_group": int(g), "fixed": bool(x)}
        for f, g, x in zip(crystals.formulas(), groups, fixed, strict=True)
    ]
    counts = crystals.counts().numpy()
    start = crystals
    for name in POTENTIALS:
        scan = lattice_scan(start, name)
        start = scan.crystals  # the second potential starts where the first came to rest
        verdict = hull.above_hull(counts, scan.energy, name)
        for i, row in enumerate(rows):
            row[name] = {
                "length": rounded([scan.crystals.lattice[i, 0].norm()])[0],
                "formation": rounded([verdict.formation_energy[i]])[0],
                "above_hull": rounded([verdict.energy_above_hull[i]])[0],
                "reason": scan.reasons[i] or verdict.reasons[i],
            }
            row["competitors"] = int(verdict.n_competitors[i])
    for i, row in enumerate(rows):
        row["crystal"] = as_data(symmetry.primitive(start[i]))
    return rows


# --- what OQMD says about the same compositions


class Bigger:
    """The hull of `oqmd_formulas`, 341,700 computed compositions, and that of our phases, by OQMD.

    Both are on OQMD's scale, so their difference says how much our hull lacks.
    """

    def __init__(self) -> None:
        listed = imd.datasets.load("oqmd_formulas").table
        self.formula = {f: i for i, f in enumerate(listed["formula"])}
        known = imd.datasets.load("oqmd_icsd")
        rows = hull.phases("chgnet").rows
        rows = rows[rows >= 0]
        counts = known.crystals.counts().numpy()[rows]
        self.big = self._phases(
            np.asarray(amounts(listed["formula"].tolist())), listed["formation_energy"]
        )
        self.small = self._phases(counts, known.table["formation_energy"].to_numpy()[rows])

    @staticmethod
    def _phases(counts: np.ndarray, energy: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return counts.astype(np.int16), np.asarray(energy, float), _words(counts > 0)

    def says(self, formula: str) -> dict[str, Any]:
        """How much deeper OQMD's hull is than ours, and where OQMD sees the formula itself."""
        counts = np.asarray(amounts([formula]))[0]
        own = self.formula.get(formula)
        small = self._hull(counts, self.small, None)
        big = self._hull(counts, self.big, own)
        found = {"missing": round(max(small - big, 0.0), 4), "dft": None}
        if own is not None:
            lowest = min(big, float(self.big[1][own]))
            found["dft"] = round(float(self.big[1][own]) - lowest, 4)
        return found

    @staticmethod
    def _hull(counts: np.ndarray, table: tuple[np.ndarray, ...], without: int | None) -> float:
        all_counts, energy, words = table
        present = counts > 0
        inside = np.flatnonzero(~(words & ~_words(present[None])).any(1))
        if without is not None:
            inside = inside[inside != without]
        some = all_counts[inside][:, present].astype(float)
        phases = np.concatenate([some / some.sum(1, keepdims=True), np.eye(present.sum())])
        energies = np.concatenate([energy[inside], np.zeros(present.sum())])
        return hull.hull_energy(counts[present] / counts.sum(), phases, energies)


def _words(present: np.ndarray) -> np.ndarray:
    """(n, 2) 64-bit words with one bit an element."""
    bits = np.zeros((len(present), 128), dtype=np.uint8)
    bits[:, : present.shape[1]] = present
    return np.packbits(bits, axis=1).view(np.uint64)


def with_dft(name: str) -> dict[str, Any]:
    """What `judged` found, and for each crystal what OQMD knows about its composition."""
    found = judged(name)
    formulas = sorted({row["formula"] for row in found["crystals"]})

    def ask() -> dict[str, Any]:
        bigger = Bigger()
        return {formula: bigger.says(formula) for formula in formulas}

    said = record(f"dft/{name.split(maxsplit=1)[0].lower()}", ask)
    return {**found, "crystals": [row | said[row["formula"]] for row in found["crystals"]]}


def near_both(row: dict[str, Any]) -> bool:
    """At most 0.1 eV/atom above the hull by both potentials, what it lacks added."""
    above = [row[name]["above_hull"] for name in POTENTIALS]
    return None not in above and max(above) + row["missing"] <= NEAR


# --- phonons


def shaken(data: dict[str, Any]) -> dict[str, Any]:
    """The verdict of both potentials."""
    try:
        said = phonons.dynamically_stable(from_data(data), dos=False)
    except InputError as error:
        return {"verdict": "undecided", "reasons": [str(error)], "lowest": {}}
    return {
        "verdict": said.verdict,
        "reasons": list(said.reasons),
        "lowest": {k: round(p.lowest_exact, 3) for k, p in said.phonons.items()},
        "at_potential": {k: p.verdict for k, p in said.phonons.items()},
        "sum_rule": {k: float(f"{p.sum_rule:.1e}") for k, p in said.phonons.items()},
        "supercell": max((p.supercell for p in said.phonons.values()), default=0),
    }


def controls() -> dict[str, Any]:
    """Crystals whose answer is known, from `oqmd_icsd`."""
    known = imd.datasets.load("oqmd_icsd")
    wanted = {
        "MgO": 225, "NaCl": 225, "CaF2": 225, "GaAs": 216, "ZrNiSn": 216, "ZnO": 186,
        "SnO2": 136, "CsPbCl3": 221, "CsPbBr3": 221, "SrTiO3": 221, "BaTiO3": 221, "Bi2Se3": 166,
        "TiO2": 136,
    }  # fmt: skip
    out = {}
    for formula, group in wanted.items():
        found = known.select(formulas=[formula], space_groups=[group])
        if len(found):
            lowest = int(found.table["energy_above_hull"].to_numpy().argmin())
            data = as_data(found.crystals[lowest])
            said = record(f"phonons/known-{formula}", lambda data=data: shaken(data))
            out[formula] = {"space_group": group, **said}
    return out


def last_few(name: str) -> dict[str, Any]:
    """Phonons of some crystals near both hulls, drawn at random."""
    rows = with_dft(name)["crystals"]
    near = [i for i, row in enumerate(rows) if near_both(row)]
    label = name.split(maxsplit=1)[0].lower()
    chosen = np.random.default_rng(SEED).permutation(near)[:N_PHONONS]
    found = []
    for i in chosen.tolist():
        data = rows[i]["crystal"]
        said = record(f"phonons/{label}-{i:04d}", lambda data=data: shaken(data))
        found.append({k: rows[i][k] for k in ("formula", "space_group")} | said)
    return {"near_both_hulls": len(near), "crystals": found}


# --- the file


def table() -> None:
    """Everything into results.json."""
    names = [*sources(), "held out"]
    weights = imd.models.checkpoint_path("cubicgan", variant="fixed")
    results: dict[str, Any] = {
        "made_by": "python experiments/stability.py",
        "definition": {
            "hull": {name: hull.definition(name) for name in POTENTIALS},
            "phonons": {
                "tolerance_thz": phonons.TOLERANCE,
                "most_atoms": phonons.MOST_ATOMS,
                "phonopy": metadata.version("phonopy"),
            },
            "cubicgan_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "seed": SEED,
            "near_ev_per_atom": NEAR,
        },
        "high": record("high", high),
        "binaries": {f"{a}-{b}": record(f"binary-{a}-{b}", lambda a=a, b=b: binary(a, b))
                     for a, b in BINARIES},
        "judged": {name: with_dft(name) for name in names},
        "controls": controls(),
        "last_few": {name: last_few(name) for name in names},
    }  # fmt: skip
    for each in results["judged"].values():
        each["crystals"] = columns(each["crystals"])
    for name, rows in results["binaries"].items():
        results["binaries"][name] = [rows[0], *(_slim(row) for row in rows[1:])]
    path = HERE / "results.json"
    path.write_text(json.dumps(results, ensure_ascii=False) + "\n")
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """One list a quantity instead of one record a crystal; geometries stay behind."""
    out: dict[str, list[Any]] = {}
    for key in ("formula", "space_group", "fixed", "competitors", "missing", "dft"):
        out[key] = [row[key] for row in rows]
    for name in POTENTIALS:
        for key in ("length", "formation", "above_hull"):
            out[f"{name} {key}"] = [row[name][key] for row in rows]
    return out


def _slim(row: dict[str, Any]) -> dict[str, Any]:
    """Keep the geometry only of what one potential puts on or below the known hull."""
    lowest = min(row[name]["above_hull"] or 0.0 for name in POTENTIALS)
    return row if lowest <= 0.0 else {k: v for k, v in row.items() if k != "crystal"}


if __name__ == "__main__":
    jobs: dict[str, Callable[[], Any]] = {
        "high": lambda: record("high", high),
        "binaries": lambda: [
            record(f"binary-{a}-{b}", lambda a=a, b=b: binary(a, b)) for a, b in BINARIES
        ],
        "judged": lambda: [judged(name) for name in [*sources(), "held out"]],
        "phonons": lambda: (controls(), [last_few(name) for name in [*sources(), "held out"]]),
        "table": table,
    }
    jobs[sys.argv[1]]()
