"""Carry candidates through all gates: what the chapter on candidates and materials shows.

    python experiments/validation.py elastic                 tabulated elastic constants
    python experiments/validation.py controls                crystals whose answer is known
    python experiments/validation.py source NAME [DRAWN]     one source of candidates
    python experiments/validation.py table                   all of it into results.json

NAME is ``MODEL-VARIANT`` of any model that makes crystals, e.g. ``cubicgan-fixed``, or one of the
samplers without learning: ``ion exchange``, ``substitution``, ``random cubic`` are given what
CubicGAN learns from, ``ion exchange, 20 groups`` what PGCGM learns from, and ``no network, best of
100`` the positions that PGCGM ``fixed`` is given; ``held out`` are real crystals. 10,000 samples
go through the cheap gates, and a random 60 of what is new and valid through relaxation, hulls,
elastic constants and phonons. Interrupted runs go on: finished pieces lie in `_build/validation/`.
One thread needs about 3 to 12 minutes a source. Needs the packages of the extras `judge` and
`hull`.
"""

from __future__ import annotations

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
from imd_helpers.crystals import CrystalBatch, geometry, symmetry
from imd_helpers.crystals.rules import geometry_valid
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.energies.elastic import elastic as elastic_constants
from imd_helpers.energies.phonons import dynamically_stable
from imd_helpers.energies.potentials import JUDGES, POTENTIALS
from imd_helpers.judge import PROTOCOLS, Report, validation
from imd_helpers.models import cubicgan

WORK = record.BUILD / "validation"
RESULTS = record.CHECKPOINTS / "validation" / "results.json"
N, DRAWN, SEED, MOST_ATOMS = 10_000, 60, 2021, 40
HELD_OUT, N_HELD_OUT = "held out", 24
TWENTY = "ion exchange, 20 groups"
LOT = "no network, best of 100"  # of PGCGM
OF_TWENTY = ("pgcgm-free", "pgcgm-fixed", TWENTY, LOT)  # groups instead of three
SOURCES = ("cubicgan-fixed", "ion exchange", "substitution", "random cubic", *OF_TWENTY)
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
        samples = generator(name).sample(N, seed=SEED)
        known = imd.datasets.load("oqmd_icsd")
        how = {"protocol": "funnel", "name": name, "cache": folder / "cheap"}
        cheap = imd.judge.judge(samples, training=known, **how)
        crystals, n = samples.crystals[np.flatnonzero(cheap.passed)], N
    small = np.flatnonzero(symmetry.primitive(crystals).n_sites.numpy() <= MOST_ATOMS)
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


TASKS = (elastic, controls, source, table)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
