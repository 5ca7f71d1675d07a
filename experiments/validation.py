"""Carry candidates through all gates: what the chapter on candidates and materials shows.

    python experiments/validation.py elastic                 tabulated elastic constants
    python experiments/validation.py controls                crystals whose answer is known
    python experiments/validation.py source NAME [DRAWN]     one source of candidates
    python experiments/validation.py best [SECONDS]          chosen ones, into best.json
    python experiments/validation.py table                   all of it into results.json

NAME is ``MODEL-VARIANT`` of any model that makes crystals, e.g. ``cubicgan-fixed``, or one of the
samplers without learning: ``ion exchange``, ``substitution``, ``random cubic`` are given what
CubicGAN learns from, ``ion exchange, 20 groups`` what PGCGM learns from, and ``no network, best of
100`` the positions that PGCGM ``fixed`` is given; ``held out`` are real crystals. 10,000 samples
go through the cheap gates, and a random 60 of what is new and valid through relaxation, hulls,
elastic constants and phonons. Interrupted runs go on: finished pieces lie in `_build/validation/`.
One thread needs about 3 to 12 minutes a source. ``best`` takes the 50 lowest of 1,000 from each of
four sources, and carries these 200 by one call of ``imd validate`` on two processes, which it
kills after SECONDS if they are given; called again it goes on. Needs the packages of the extras
`judge` and `hull`.
"""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pgcgm
import record
import torch
from cubicgan import held_out
from record import Row, once, rounded
from stability import BASELINES, as_data

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch, files, geometry, symmetry
from imd_helpers.crystals.rules import geometry_valid
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.energies.elastic import elastic as elastic_constants
from imd_helpers.energies.phonons import dynamically_stable
from imd_helpers.energies.potentials import JUDGES, POTENTIALS, potential
from imd_helpers.judge import PROTOCOLS, Report, facts, validation
from imd_helpers.models import cubicgan

WORK = record.BUILD / "validation"
RESULTS = record.CHECKPOINTS / "validation" / "results.json"
N, DRAWN, SEED, MOST_ATOMS = 10_000, 60, 2021, 40
HELD_OUT, N_HELD_OUT = "held out", 24
TWENTY = "ion exchange, 20 groups"
LOT = "no network, best of 100"  # of PGCGM
OF_TWENTY = ("pgcgm-free", "pgcgm-fixed", TWENTY, LOT)  # groups instead of three
SOURCES = ("cubicgan-fixed", "ion exchange", "substitution", "random cubic", *OF_TWENTY)
ASKED, BEST = 1_000, 50  # new and valid ones whose energy is asked for, and the lowest of them
CHOSEN = ("cubicgan-fixed", "ion exchange", "pgcgm-fixed", TWENTY)
PART = 8  # of the chosen ones, carried once more without a stop
MEASURED = {  # C11, C12, C44 in GPa at room temperature, and the space group: Kittel, chapter 3
    "MgO": (286, 87, 148, 225), "NaCl": (48.7, 12.4, 12.6, 225), "Si": (166, 63.9, 79.6, 227),
    "Ge": (128.5, 48.3, 68.0, 227), "Cu": (168.4, 121.4, 75.4, 225), "Al": (106.8, 60.7, 28.2, 225),
}  # fmt: skip
CONTROLS = {  # space group, and does the cubic or simple form live at zero temperature?
    "MgO": (225, True), "NaCl": (225, True), "CaF2": (225, True), "GaAs": (216, True),
    "ZrNiSn": (216, True), "SrTiO3": (221, False), "CsPbCl3": (221, False), "CsSnI3": (221, False),
}  # fmt: skip


def lowest(formula: str, group: int) -> CrystalBatch:
    """The known crystal of this formula and group that lies lowest."""
    found = imd.datasets.load("oqmd_icsd").select(formulas=[formula], space_groups=[group])
    return symmetry.primitive(found.crystals[int(found.table["energy_above_hull"].argmin())])


# ---- what the witnesses are worth


def elastic() -> Row:
    """Elastic constants of measured crystals by all potentials."""
    return {f: once(WORK / "elastic" / f"{f}.json", constants, f) for f in MEASURED}


def constants(formula: str) -> Row:
    """C11, C12, C44, with atoms carried along too, and both moduli."""
    out: Row = {"measured": MEASURED[formula][:3]}
    for name in POTENTIALS:
        found = elastic_constants(lowest(formula, MEASURED[formula][3]), name)
        out[name] = {
            "constants": rounded([float(found.constants[k]) for k in ((0, 0), (0, 1), (3, 3))], 1),
            "carried": rounded(float(found.carried[3, 3]), 1),
            "verdict": found.verdict,
        }
    return out


def controls() -> Row:
    """The verdicts of both witnesses on crystals whose answer is known."""
    return {f: once(WORK / "controls" / f"{f}.json", control, f) for f in CONTROLS}


def control(formula: str) -> Row:
    """Elastic constants and phonons of one of them, each asked whatever the other says."""
    from imd_helpers.energies.elastic import mechanically_stable

    group, lives = CONTROLS[formula]
    crystal = lowest(formula, group)
    pushed, shaken = mechanically_stable(crystal), dynamically_stable(crystal, dos=False)
    return {
        "space_group": group,
        "lives": lives,
        "elastic": pushed.verdict,
        "phonons": shaken.verdict,
        "lowest": {k: round(p.lowest, 3) for k, p in shaken.found.items()},
        "eigenvalue": {k: round(float(e.eigenvalues[0]), 1) for k, e in pushed.found.items()},
    }


# ---- sources of candidates


def generator(name: str) -> Any:
    """A model and its variant, or a sampler that is given what CubicGAN or PGCGM learns from."""
    if name == TWENTY:
        page = pgcgm.page()
        templates = baselines.Templates(page.crystals_of(page.train), page.train.space_group)
        return baselines.IonExchange(templates)
    if name == LOT:
        return DrawnPositions()
    if name in BASELINES:
        return BASELINES[name](decode_sites(cubicgan.training_sites("train")).crystals)
    model, _, variant = name.partition("-")
    return imd.models.load(model, variant=variant or None)


class DrawnPositions:
    """Elements and positions as PGCGM `fixed` is given them, filled by lot, without its network.

    Of a hundred fillings that whose atoms are farthest apart counts; cells have the usual volume.
    """

    def sample(self, n: int, *, seed: int) -> Samples:
        """Decoded as the network's are."""
        model = imd.models.load("pgcgm", variant="fixed")
        lot = pgcgm.exchanged(model.raw(0, n, seed=seed), seed)["no network"]
        return model.decode(pgcgm.best_of(pgcgm.BEST_OF[LOT], lot, seed))


def source(name: str, drawn: str = str(DRAWN)) -> Row:
    """One source: cheap gates, a draw, all other gates."""
    folder = WORK / name.replace(" ", "_")
    return once(folder / "result.json", carried, name, int(drawn), folder)


def carried(name: str, drawn: int, folder: Any) -> Row:
    """All gates for one source."""
    if name == HELD_OUT:
        crystals, cheap, n = held_out(), None, 0
        drawn = N_HELD_OUT
    else:
        samples, cheap, n = *new_and_valid(name, folder), N
        crystals = samples.crystals[np.flatnonzero(cheap.passed)]
    small = small_ones(crystals)
    order = np.random.default_rng(SEED).permutation(small)[:drawn]
    chosen = symmetry.primitive(crystals[np.sort(order)])
    known = imd.datasets.load("oqmd_icsd").crystals
    report = validation.validate(chosen, folder / "cards", reference=None, name=name)
    rows = validation.cards(report, known if name != HELD_OUT else None)
    return {
        "n": n,
        "cheap": [] if cheap is None else stages(cheap),
        "anywhere": None if cheap is None else anywhere(samples),
        "volume_per_atom": volume(chosen),
        "too_large": len(crystals) - len(small),
        "drawn": len(chosen),
        "gates": stages(report),
        "crystals": [slim(row) for row in rows],
        "survivors": [survivor(row, report) for row in rows if row["survives"]],
    }


def new_and_valid(name: str, folder: Path) -> tuple[Samples, Report]:
    """Samples of a source, and what the cheap gates say of them."""
    samples = generator(name).sample(N, seed=SEED)
    how = {"protocol": "funnel", "name": name, "cache": folder / "cheap"}
    known = imd.datasets.load("oqmd_icsd")
    return samples, imd.judge.judge(samples, training=known, **how)


def small_ones(crystals: CrystalBatch) -> np.ndarray:
    """Places of those whose primitive cell has few atoms."""
    return np.flatnonzero(symmetry.primitive(crystals).n_sites.numpy() <= MOST_ATOMS)


def stages(report: Report) -> list[Row]:
    """How many came and passed, and what it cost."""
    return [
        {"gate": s.name, "tried": s.tried, "passed": s.passed, "seconds": round(s.seconds, 2)}
        for s in report.stages
    ]


def anywhere(samples: Any) -> Row:
    """The same cells with their atoms at random places: how many pass the distance gate?"""
    crystals = samples.valid()
    generator = torch.Generator().manual_seed(SEED)
    places = torch.rand(crystals.frac.shape, generator=generator, dtype=torch.float64)
    moved = CrystalBatch(crystals.lattice, places, crystals.numbers)
    return {"n": len(moved), "passed": int(geometry_valid(moved).sum()), **volume(crystals)}


def volume(crystals: CrystalBatch) -> Row:
    """Median volume per atom, Å^3."""
    each = (geometry.volume(crystals) / crystals.n_sites).numpy()
    return {"median_volume_per_atom": round(float(np.median(each)), 2)}


# ---- the best of many, and the shell


def best(seconds: str = "0") -> None:
    """The lowest of each source before relaxation, all in one call of the shell."""
    folder = WORK / "best"
    about = {name: once(folder / f"{name}.json", chosen, name) for name in CHOSEN}
    given = [folder / f"{name}.extxyz" for name in CHOSEN]
    if not shell(given, folder, float(seconds)):
        return
    part = files.write(folder / "part.extxyz", files.read(given).crystals[:PART])
    imd_validate([part], folder / "part", 1).wait()
    record.write(RESULTS.with_name("best.json"), told(about, given, folder), indent=None)


def chosen(name: str) -> Row:
    """The lowest above the hull of the first new and valid ones, as they were made."""
    samples, cheap = new_and_valid(name, WORK / name.replace(" ", "_"))
    crystals = samples.crystals[np.flatnonzero(cheap.passed)]
    some = symmetry.primitive(crystals[small_ones(crystals)[:ASKED]])
    began, energies = time.process_time(), PROTOCOLS["validation"].energies
    energy = potential(JUDGES[0]).energies(some)
    answer = facts.above_hull(
        some, np.arange(len(some)), energy=energy, potential=JUDGES[0],
        competitors=energies.competitors,
    )  # fmt: skip
    above = answer.values["energy_above_hull"]
    above[above < energies.lowest_above_hull] = np.nan  # the potential fails there
    lowest = np.argsort(above)[:BEST]  # NaN comes last
    files.write(WORK / "best" / f"{name}.extxyz", some[lowest])
    return {
        "asked": len(some),
        "seconds": round(time.process_time() - began, 1),
        "median_above_hull": round(float(np.nanmedian(above)), 3),
        "chosen": len(lowest),
        "highest_of_chosen": round(float(above[lowest].max()), 3),
    }


def imd_validate(given: list[Path], out: Path, workers: int) -> subprocess.Popen:
    """The shell, begun."""
    return subprocess.Popen(["imd", "validate", *given, "-o", out, "--workers", str(workers)])


def shell(given: list[Path], folder: Path, limit: float) -> bool:
    """One call on two processes, killed at the limit; did it end by itself?"""
    import psutil

    runs = record.read(folder / "runs.json", [])
    if runs and runs[-1]["ended"]:
        return True
    began, before = time.perf_counter(), _of_children()
    process = imd_validate(given, folder / "cards", 2)
    try:
        ended = process.wait(limit or None) == 0
        core = _of_children() - before
    except subprocess.TimeoutExpired:
        parent, ended = psutil.Process(process.pid), False
        family = [parent, *parent.children(recursive=True)]
        core = sum(sum(each.cpu_times()[:2]) for each in family)
        process.kill()
        process.wait()
    wall = time.perf_counter() - began
    row = {"ended": ended, "wall_seconds": round(wall), "core_seconds": round(core)}
    record.write(folder / "runs.json", [*runs, row])
    return ended


def _of_children() -> float:
    """Seconds of a core that finished processes took."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def told(about: Row, given: list[Path], folder: Path) -> Row:
    """What the cards say, source by source, and what the runs cost."""
    samples = files.read(given)
    out, name = folder / "cards", given[0].stem
    report = validation.validate(samples, out, name=name, draw=imd.show.bands)
    rows, start, sources = validation.cards(report, "oqmd_icsd"), 0, {}
    for name, each in about.items():
        mine = rows[start : start + each["chosen"]]
        start += each["chosen"]
        sources[name] = each | {
            "gates": counted(mine, [s.name for s in report.stages]),
            "volume_per_atom": volume(samples.crystals[[row["number"] for row in mine]]),
            "crystals": [slim(row) for row in mine],
        }
    same = [(folder / "part" / p.parent.name / p.name).read_bytes() == p.read_bytes()
            for p in sorted((folder / "cards").glob("*/card.md"))[:PART]]  # fmt: skip
    return {
        "seed": SEED,
        "runs": record.read(folder / "runs.json"),
        "gates": stages(report),
        "part": {"cards": len(same), "same": sum(same)},
        "sources": sources,
    }


def counted(rows: list[Row], gates: list[str]) -> list[Row]:
    """How many came to each gate and passed it."""
    ends = [row["stopped"].partition(":")[0] for row in rows]
    at = np.array([gates.index(end) if end else len(gates) for end in ends])
    return [
        {"gate": gate, "tried": int((at >= k).sum()), "passed": int((at > k).sum())}
        for k, gate in enumerate(gates)
    ]


def slim(row: Row) -> Row:
    """The short numbers of a crystal."""
    out = {k: row.get(k) for k in ("formula", "survives", "space_group", "given_as")}
    out["stopped"] = row["stopped"].partition(":")[0]
    for key in ("energy_above_hull", "probability_within_0.1", "probability_on_hull"):
        out[key] = row.get(key)
    for fact in ("elastic", "phonons"):
        out[fact] = row.get(fact, {}).get("verdict", "")
    return out | {"gain": row.get("gain_by_rattling")}


def survivor(row: Row, report: Report) -> Row:
    """All of a card, the crystal at rest, and its phonons."""
    i = row["number"]
    bands = {k: v for k, v in report.details["phonons"][i].items() if isinstance(v, dict)}
    return {"card": row, "crystal": as_data(report.relaxed[i]), "bands": bands}


def beside_oqmd(rows: list[Row]) -> list[Row]:
    """Real crystals with OQMD's own energy above its hull, eV/atom."""
    known = imd.datasets.load("oqmd_icsd").table
    out = []
    for row in rows:
        same = (known["formula"] == row["formula"]) & (known["space_group"] == row["given_as"])
        out.append(row | {"oqmd": rounded(float(known[same]["energy_above_hull"].min()), 4)})
    return out


def table() -> None:
    """Everything into results.json."""
    protocol = PROTOCOLS["validation"]
    sources = {name: source(name) for name in (HELD_OUT, *SOURCES)}
    sources[HELD_OUT] |= {"crystals": beside_oqmd(sources[HELD_OUT]["crystals"]), "survivors": []}
    for each in [s for name in OF_TWENTY for s in sources[name]["survivors"]]:
        del each["bands"]  # of many atoms, and the page draws none of them
    results = {
        "made_by": "python experiments/validation.py table",
        "definition": {
            "gates": protocol.definition()["energies"],
            "potentials": list(JUDGES),
            "seed": SEED,
            "most_atoms": MOST_ATOMS,
        },
        "elastic": elastic(),
        "controls": controls(),
        "sources": sources,
    }
    record.write(RESULTS, results, indent=None)


TASKS = (elastic, controls, source, best, table)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
