"""Measure what the chapter on stability needs and a page cannot compute in a minute.

    python experiments/stability.py table           everything
    python experiments/stability.py enumerations    what CubicGAN learns from an enumeration, alone

Everything into `results.json`: crystals far above OQMD's hull, Na-Cl and Bi-Se by prototypes, four
sources of crystals down to the hull, and the phonons of the last few and of controls. Interrupted
runs go on where they stopped: finished pieces lie in `_build/stability/`. One process of one thread
takes about 25 minutes. Needs `data/potentials`, and the packages of the extras `judge` and `hull`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from importlib import metadata, resources
from typing import Any

import numpy as np
import record
import torch
from cubicgan import held_out, training_crystals
from record import Row, once, rounded
from substituted import fill

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.compositions import amounts
from imd_helpers.descriptors import symmetry_sites
from imd_helpers.energies import hull, phonons
from imd_helpers.energies.lattice_scan import lattice_scan
from imd_helpers.energies.potentials import POTENTIALS, potential
from imd_helpers.energies.relaxation import rattled, relax
from imd_helpers.models import cubicgan
from imd_helpers.runtime import InputError

WORK = record.BUILD / "stability"
PAIR = ("chgnet", "sevennet_l3i5")  # of the judge, chosen by experiments/calibration.py
WITNESSES = ("chgnet", "sevennet")  # smooth enough and fast enough for relaxations and phonons
SEED = 2022
N_HIGH, LARGEST_HIGH = 1_000, 12
BINARIES = (("Na", "Cl"), ("Bi", "Se"))
LARGEST_PROTOTYPE, RELAXED_PER_FORMULA = 12, 2
WORTH_RELAXING = 0.15  # eV/atom above CHGNet's hull before relaxation
N_JUDGED = 1_000
NEAR, N_PHONONS = 0.1, 25  # eV/atom above hull by both potentials; crystals of each source
PIECE, DIGITS = 50, 4
HELD_OUT = "held out"
TIGHT = {"fmax": 0.02, "steps": 500}
SOURCES = ("CubicGAN (fixed)", "ion exchange", "substitution", "random cubic", HELD_OUT)
ENUMERATIONS = ("prototypes of CubicGAN", "enumeration")  # of its chapter, without phonons
BASELINES = {
    "ion exchange": baselines.IonExchange,
    "enumeration": baselines.TrainingCopies,
    "substitution": baselines.Substitution,
    "random cubic": baselines.RandomCubic,
}
CONTROLS = {  # crystals whose answer is known, and their space groups
    "MgO": 225, "NaCl": 225, "CaF2": 225, "GaAs": 216, "ZrNiSn": 216, "ZnO": 186, "SnO2": 136,
    "CsPbCl3": 221, "CsPbBr3": 221, "SrTiO3": 221, "BaTiO3": 221, "Bi2Se3": 166, "TiO2": 136,
}  # fmt: skip


def label(source: str) -> str:
    """A source in the name of a file."""
    return source.split(maxsplit=1)[0].lower()


def as_data(crystals: CrystalBatch) -> Row:
    """One crystal as plain numbers; `from_data` reads it."""
    lattice, frac, numbers = next(crystals.each())
    return {"lattice": rounded(lattice), "frac": rounded(frac), "numbers": numbers.tolist()}


def from_data(data: Row) -> CrystalBatch:
    """What `as_data` wrote."""
    numbers = data["numbers"]
    lattice, frac = np.array([data["lattice"]]), np.array(data["frac"])
    return CrystalBatch.from_ragged(lattice, frac, numbers, [len(numbers)])


# --- crystals that DFT puts far above the hull


def high() -> Row:
    """Energies by both potentials of crystals more than 0.1 eV/atom above OQMD's hull."""
    known = imd.datasets.load("oqmd_icsd")
    above = known.table["energy_above_hull"] > 0.1
    compound = (known.table["n_elements"] > 1) & (known.table["n_sites"] <= LARGEST_HIGH)
    rows = np.flatnonzero(above & compound)
    rows = np.sort(np.random.default_rng(SEED).choice(rows, N_HIGH, replace=False))
    crystals = known.crystals[rows]
    energy = {name: potential(name).energies(crystals) for name in WITNESSES}
    return {"rows": rows.tolist(), **rounded(energy, DIGITS)}


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
    # ions and metals alike take about seven times the cube of their covalent radius
    volumes = 7.0 * elements.column("covalent_radius") ** 3
    names, found = [], []
    for name, batch in prototypes():
        old = torch.unique(batch.numbers[batch.numbers > 0]).tolist()
        for new in (z, z[::-1]):
            names.append(name)
            found.append(fill(batch, old, new, volumes))
    return names, CrystalBatch.cat(found)


def binary(one: str, two: str) -> list[Row]:
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
    rests = {name: relax(start, name, **TIGHT) for name in WITNESSES}
    stands = {
        name: hull.above_hull(rest.crystals.counts().numpy(), rest.energy, name)
        for name, rest in rests.items()
    }
    for k, i in enumerate(chosen):
        row: Row = {"formula": str(formulas[i]), "prototype": names[i]}
        row["crystal"] = as_data(rests["chgnet"].crystals[k])
        for name, rest in rests.items():
            row[name] = energies(stands[name], k) | {"converged": bool(rest.converged[k])}
        out.append(row)
    return [{"system": f"{one}-{two}", "tried": len(batch), "scanned": int(scan.ok.sum())}, *out]


def energies(verdict: hull.HullVerdict, i: int) -> Row:
    """Where one crystal stands, eV/atom."""
    return {
        "above_hull": rounded(verdict.energy_above_hull[i], DIGITS),
        "formation": rounded(verdict.formation_energy[i], DIGITS),
    }


# --- the judge on generated crystals


def generator(source: str) -> Any:
    """Who makes crystals: the network, or a baseline."""
    if "CubicGAN" in source:
        variant = "fixed" if "fixed" in source else "prototypes"
        return imd.models.load("cubicgan", variant=variant)
    data = "cubic_prototypes" if source == "enumeration" else "oqmd_icsd"
    known = symmetry_sites.decode_sites(cubicgan.training_sites("train", data=data)).crystals
    return BASELINES[source](known)


def judged(source: str) -> Row:
    """Funnel, lattice scan and both hulls of one source, and what OQMD knows of each formula."""
    if source == HELD_OUT:
        survivors, stages = held_out(), {}
        n = len(survivors)
    else:
        n = N_JUDGED
        samples, training = generator(source).sample(n, seed=1), training_crystals()
        report = imd.judge.judge(samples, protocol="funnel", training=training, name=source)
        stages = {stage.name: stage.passed for stage in report.stages}
        survivors = samples.crystals[report.passed]
    rows: list[Row] = []
    for k in range(0, len(survivors), PIECE):
        piece = WORK / "judged" / f"{label(source)}-{k:04d}.json"
        rows += once(piece, stands, survivors[slice(k, k + PIECE)])
    said = by_dft([row["formula"] for row in rows])
    return {"n": n, "stages": stages, "crystals": [r | {"dft": said[r["formula"]]} for r in rows]}


def stands(crystals: CrystalBatch) -> list[Row]:
    """Minimum, formation energy and energy above hull of each crystal, by both potentials."""
    groups = symmetry.space_group_numbers(crystals)
    fixed = symmetry.only_scale_is_free(crystals)
    rows = [
        {"formula": f, "space_group": int(g), "fixed": bool(x)}
        for f, g, x in zip(crystals.formulas(), groups, fixed, strict=True)
    ]
    counts = crystals.counts().numpy()
    start = crystals
    for name in PAIR:
        scan = lattice_scan(start, name)
        start = scan.crystals  # the second potential starts where the first came to rest
        verdict = hull.above_hull(counts, scan.energy, name)
        for i, row in enumerate(rows):
            length = rounded(float(scan.crystals.lattice[i, 0].norm()), DIGITS)
            reason = scan.reasons[i] or verdict.reasons[i]
            row[name] = {"length": length, **energies(verdict, i), "reason": reason}
            row["competitors"] = int(verdict.n_competitors[i])
            row["missing"] = rounded(verdict.missing[i], DIGITS)
    for i, row in enumerate(rows):
        row["crystal"] = as_data(symmetry.primitive(start[i]))
    return rows


# --- what OQMD says about the same compositions


def by_dft(formulas: list[str]) -> Row:
    """How far above its own hull OQMD sees each formula, eV/atom."""
    wanted = sorted(set(formulas))
    found = hull.oqmd_distance(amounts(wanted)) if wanted else []
    return dict(zip(wanted, rounded(list(map(float, found)), DIGITS), strict=True))


def near_both(row: Row) -> bool:
    """At most 0.1 eV/atom above the hull by both potentials."""
    above = [row[name]["above_hull"] for name in PAIR]
    return None not in above and max(above) <= NEAR


# --- phonons


def shaken(data: Row) -> Row:
    """The verdict of both potentials."""
    try:
        said = phonons.dynamically_stable(from_data(data), dos=False)
    except InputError as error:
        return {"verdict": "undecided", "reasons": [str(error)], "lowest": {}}
    return {
        "verdict": said.verdict,
        "reasons": list(said.reasons),
        "lowest": {k: round(p.lowest_exact, 3) for k, p in said.found.items()},
        "at_potential": {k: p.verdict for k, p in said.found.items()},
        "sum_rule": {k: float(f"{p.sum_rule:.1e}") for k, p in said.found.items()},
        "supercell": max((p.supercell for p in said.found.values()), default=0),
    }


def controls() -> Row:
    """Phonons of known crystals of `oqmd_icsd`."""
    known = imd.datasets.load("oqmd_icsd")
    out = {}
    for formula, group in CONTROLS.items():
        found = known.select(formulas=[formula], space_groups=[group])
        if len(found):
            lowest = int(found.table["energy_above_hull"].to_numpy().argmin())
            data = as_data(found.crystals[lowest])
            said = once(WORK / "phonons" / f"known-{formula}.json", shaken, data)
            out[formula] = {"space_group": group, **said}
    return out


def drawn(rows: list[Row]) -> list[int]:
    """Some of the crystals near both hulls, at random."""
    near = [i for i, row in enumerate(rows) if near_both(row)]
    return np.random.default_rng(SEED).permutation(near)[:N_PHONONS].tolist()


def last_few(source: str, rows: list[Row]) -> Row:
    """Phonons of some crystals near both hulls, and where they go when they are rattled."""
    found, chosen = [], drawn(rows)
    for i in chosen:
        piece = WORK / "phonons" / f"{label(source)}-{i:04d}.json"
        said = once(piece, shaken, rows[i]["crystal"])
        found.append({k: rows[i][k] for k in ("formula", "space_group")} | said)
    file = WORK / "rattled" / f"{label(source)}.json"
    gone = once(file, rattled_again, [rows[i]["crystal"] for i in chosen])
    near = sum(near_both(row) for row in rows)
    return {"near_both_hulls": near, "crystals": found, "rattled": gone}


def rattled_again(crystals: list[Row]) -> Row:
    """Rest, a push without symmetry, rest again: energy won, and the space groups."""
    start = relax(CrystalBatch.cat([from_data(each) for each in crystals]), WITNESSES[1], **TIGHT)
    pushed = rattled(start.crystals, seeds=np.arange(len(crystals)))
    end = relax(pushed, WITNESSES[1], **TIGHT)
    groups = [symmetry.space_group_numbers(rest.crystals) for rest in (start, end)]
    return {
        "potential": WITNESSES[1],
        "gain": rounded(start.energy - end.energy, DIGITS),
        "converged": (start.converged & end.converged).tolist(),
        "before": groups[0].tolist(),
        "after": groups[1].tolist(),
    }


# --- the file


def table() -> None:
    """Everything into results.json."""
    weights = imd.models.checkpoint_path("cubicgan", variant="fixed")
    definition = {
        "hull": {name: hull.definition(name) for name in POTENTIALS},
        "phonons": {
            "tolerance_thz": phonons.TOLERANCE,
            "most_atoms": phonons.MOST_ATOMS,
            "phonopy": metadata.version("phonopy"),
        },
        "cubicgan_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "seed": SEED,
        "near_ev_per_atom": NEAR,
    }
    found = {source: judged(source) for source in SOURCES}
    systems = {f"{a}-{b}": once(WORK / f"binary-{a}-{b}.json", binary, a, b) for a, b in BINARIES}
    results = {
        "made_by": "python experiments/stability.py",
        "definition": definition,
        "high": once(WORK / "high.json", high),
        "binaries": {name: [slim(row) for row in rows] for name, rows in systems.items()},
        "judged": {k: v | {"crystals": columns(v["crystals"])} for k, v in found.items()},
        "controls": controls(),
        "last_few": {source: last_few(source, v["crystals"]) for source, v in found.items()},
    }
    record.write(record.CHECKPOINTS / "stability" / "results.json", results, indent=None)
    enumerations()


def enumerations() -> None:
    """The network trained on an enumeration, and the enumeration, into results.json."""
    path = record.CHECKPOINTS / "stability" / "results.json"
    found = {source: judged(source) for source in ENUMERATIONS}
    slimmed = {k: v | {"crystals": columns(v["crystals"])} for k, v in found.items()}
    record.write(path, record.read(path) | {"enumerations": slimmed}, indent=None)


def columns(rows: list[Row]) -> Row:
    """One list a quantity instead of one record a crystal; geometries stay behind."""
    out = {
        key: [row[key] for row in rows]
        for key in ("formula", "space_group", "fixed", "competitors", "missing", "dft")
    }
    for name in PAIR:
        for key in ("length", "formation", "above_hull"):
            out[f"{name} {key}"] = [row[name][key] for row in rows]
    return out


def slim(row: Row) -> Row:
    """Keep the geometry only of what one potential puts on or below the known hull."""
    lowest = min((row[name]["above_hull"] or 0.0 for name in WITNESSES if name in row), default=0)
    return row if lowest <= 0.0 else {k: v for k, v in row.items() if k != "crystal"}


TASKS = (table, enumerations)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
