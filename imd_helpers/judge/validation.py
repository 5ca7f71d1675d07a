"""From candidates to materials: gates one behind the other, and a card for each crystal.

The gates are the protocol ``validation`` of the judge, so a run that was stopped goes on from its
finished pieces, and processes or a Dask cluster share them. Cards hold no times and no paths: the
same crystals give the same cards, however often the work was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch, symmetry
from ..crystals.elements import SYMBOLS
from ..crystals.rules import broken_crystals
from ..crystals.samples import Samples
from ..energies.potentials import JUDGES
from ..matching.novelty import novelty_kinds
from ..runtime import data_path
from ..work import locked, write_atomic
from .engine import judge
from .facts import potential_name
from .mechanics import DIGITS, from_data
from .report import Report, rounded
from .samples import Known, as_known

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..energies.phonons import Phonons
    from ..energies.potentials import Potential

SYMPREC = 0.05  # Å, of the groups on the cards
CIF_SYMPREC = 0.01  # Å
FEW = 3  # compounds in the chemical system of a candidate: with fewer the hull says little
NO_SEARCH = "none was looked for"
# of phonons, whose bands are not for the cards
KEPT = ("lowest", "lowest_at", "lowest_exact", "optical", "sum_rule", "supercell")
# elements with open d and f shells, which may order
MAGNETIC = {"V", "Cr", "Mn", "Fe", "Co", "Ni", "U", "Np", "Pu", *SYMBOLS[58:70]}
Row = dict[str, Any]


def validate(
    samples: Samples | CrystalBatch,
    out: Path | str,
    *,
    reference: Known | CrystalBatch | str | None = "oqmd_icsd",
    potentials: Sequence[str | Potential] = JUDGES,
    draw: Callable[..., Figure] | None = None,
    **how: Any,
) -> Report:
    """Send crystals through all gates and write a card for each that came to rest.

    Args:
        samples: crystals; those that could not be read keep their place and their reason.
        out: folder for ``table.csv``, ``report.json`` and one folder a crystal with ``card.md``,
            ``numbers.json``, ``crystal.cif`` and, for those that reached the phonons, a plot.
            Finished pieces lie in ``work`` below it: a run that was stopped goes on from there.
        reference: known crystals, among which the nearest relative of each survivor is looked for;
            None for no search.
        potentials: the first relaxes, both say how far above the hull.
        draw: of phonons, makes the plot, e.g. `imd_helpers.show.bands`; None for no plots.
        how: further arguments of `judge`, e.g. ``workers``, ``name``, or a protocol of your own.

    Raises:
        InputError: another process writes to the folder, or `judge` refuses the crystals.
    """
    out = Path(out)
    with locked(out):
        how = {"protocol": "validation", "name": "candidates", "cache": out / "work", **how}
        report = judge(samples, potentials=potentials, **how)
        rows = cards(report, reference, potentials)
        for row in rows:
            if "space_group" in row:
                folder = out / f"{row['number']:05d}-{row['formula']}"
                _write_card(folder, row, report, draw)
        write_atomic(out / "table.csv", _table(rows).encode())
        write_atomic(out / "report.json", report.to_json().encode())
    return report


def cards(
    report: Report,
    reference: Known | CrystalBatch | str | None,
    potentials: Sequence[str | Potential] = JUDGES,
) -> list[Row]:
    """What is known about each crystal, as plain data; all of it that a card holds."""
    crystals, rest = report.samples.crystals, report.relaxed
    rest = crystals if rest is None else rest
    unread = broken_crystals(crystals) | ~report.samples.ok
    alive = np.isfinite(report.values.get("energy", np.full(report.n, np.nan)))
    before, after = (np.zeros(report.n, dtype=np.int64) for _ in range(2))
    some = np.flatnonzero(alive)
    if len(some):
        for groups, batch in ((before, crystals), (after, rest)):
            groups[some] = symmetry.space_group_numbers(batch[some], symprec=SYMPREC)
    relatives = _relatives(report, rest, reference)
    names = [potential_name(each) for each in potentials]
    rows = []
    for i in range(report.n):
        formula = "" if unread[i] else crystals[i].formulas()[0]
        row: Row = {"number": i, "formula": formula, "survives": bool(report.passed[i])}
        row["stopped"] = report.reason(i)
        if alive[i]:
            row |= {"space_group": int(after[i]), "given_as": int(before[i])}
            row |= _numbers(report, i, names)
            row["relative"] = relatives.get(i, NO_SEARCH)
            row["for_dft"] = _open_questions(row, rest[i])
        rows.append(row)
    return rows


def _numbers(report: Report, i: int, names: Sequence[str]) -> Row:
    """Energies with what they are worth, and what the witnesses found."""
    value = {k: rounded(v[i], DIGITS) for k, v in report.values.items()}
    above = {name: value.get(f"energy_above_hull {name}") for name in names}
    out: Row = {
        "formation_energy": value.get("formation_energy"),
        "energy_above_hull": value.get("energy_above_hull"),
        "by_potential": above,
        "error_of_generated": {name: _usual_error(name) for name in names},
        "competitors": value.get("competitors"),
        "gain_by_rattling": value.get("gain by rattling"),
        "probability_on_hull": value.get("probability on the hull"),
        "probability_within_0.1": value.get("probability within 0.1"),
        "unseen_elements": bool(value.get("unseen elements")),
    }
    elastic, phonons = (report.details.get(fact, {}).get(i, {}) for fact in ("elastic", "phonons"))
    without_bands = {name: {k: one[k] for k in KEPT} for name, one in _of_witnesses(phonons)}
    return out | {"elastic": elastic, "phonons": {**phonons, **without_bands}}


def _usual_error(name: str) -> float | None:
    """Mean absolute error against DFT of 1,446 generated crystals, eV/atom."""
    known = json.loads(data_path("calibration", "stability.json").read_text(encoding="utf-8"))
    found = known["errors"].get(name)
    return round(found["all"]["mean_absolute"], 3) if found else None


def _relatives(
    report: Report, rest: CrystalBatch, reference: Known | CrystalBatch | str | None
) -> dict[int, str]:
    """Survivor -> the nearest thing that is known."""
    some = np.flatnonzero(report.passed)
    if reference is None or not len(some):
        return {}
    found = novelty_kinds(rest[some], as_known(reference, "crystals").crystals)
    said = zip(some.tolist(), found.kind, found.details, strict=True)
    return {i: f"{kind}: {detail}" if detail else str(kind) for i, kind, detail in said}


def _open_questions(row: Row, crystal: CrystalBatch) -> list[str]:
    """What DFT would have to settle, the first first."""
    out = []
    p = row["probability_within_0.1"]
    if p is not None:
        out.append(f"energy and hull: within 0.1 eV/atom with a probability of {p:.2f}")
    else:
        out.append("energy and hull: these potentials were never calibrated against DFT")
    if row["unseen_elements"]:
        out.append("the calibration holds no crystal with some of these elements")
    if (row["competitors"] or 0) < FEW:
        out.append(f"competing phases: {row['competitors'] or 0:.0f} known in the chemical system")
    held = {site.symbol for site in crystal.structures()[0].composition}
    magnetic = sorted(MAGNETIC & held)
    if magnetic:
        out.append(f"magnetic order, and Hubbard's U, of {', '.join(magnetic)}")
    if row["space_group"] != row["given_as"]:
        out.append(f"symmetry: group {row['given_as']} fell to {row['space_group']} when rattled")
    for fact, what in (("elastic", "elastic constants"), ("phonons", "phonons")):
        if row[fact].get("verdict") == "undecided":
            out.append(f"{what}: the potentials disagree")
    if row["phonons"].get("verdict") == "stable":
        out.append("phonons with Born charges: LO-TO splitting is missing here")
    return out


# ---- files


def _write_card(folder: Path, row: Row, report: Report, draw: Callable[..., Figure] | None) -> None:
    from pymatgen.io.cif import CifWriter

    i = row["number"]
    rest = report.samples.crystals if report.relaxed is None else report.relaxed
    structure = rest[i].structures()[0]
    try:
        cif = str(CifWriter(structure, symprec=CIF_SYMPREC))
    except (TypeError, ValueError, AttributeError):  # no symmetry is found in it
        cif = str(CifWriter(structure))
    write_atomic(folder / "crystal.cif", cif.encode())
    bands = report.details.get("phonons", {}).get(i, {})
    found: list[Phonons] = [from_data(each) for each in bands.values() if isinstance(each, dict)]
    picture = _picture(found, draw)
    if picture:
        write_atomic(folder / "phonons.png", picture)
    data = json.dumps({**row, "bands": bands}, ensure_ascii=False, indent=1)
    write_atomic(folder / "numbers.json", data.encode())
    write_atomic(folder / "card.md", card(row, picture=bool(picture)).encode())


def _picture(found: list[Phonons], draw: Callable[..., Figure] | None) -> bytes:
    """Bands of all witnesses that follow the path of the first."""
    if draw is None or not found:
        return b""
    from matplotlib import pyplot as plt

    path = [name for _, name in found[0].ticks]
    figure = draw(*(each for each in found if [name for _, name in each.ticks] == path))
    content = BytesIO()
    figure.savefig(content, dpi=120, format="png", metadata={"Software": None})
    plt.close(figure)
    return content.getvalue()


def card(row: Row, *, picture: bool = False) -> str:
    """One crystal in Markdown."""
    lines = [f"# {row['formula']}, space group {row['space_group']}", ""]
    lines += ["Survives all gates." if row["survives"] else f"Stopped at {row['stopped']}.", ""]
    lines += ["| quantity | value |", "| --- | --- |"]
    errors, above = row["error_of_generated"], row["by_potential"]
    lines.append(f"| formation energy | {_said(row['formation_energy'])} eV/atom |")
    for name, value in above.items():
        bar = f" ± {errors[name]:.2f}" if errors[name] else ""
        lines.append(f"| above hull, {name} | {_said(value)}{bar} eV/atom |")
    for key, label in (("on_hull", "on the hull"), ("within_0.1", "within 0.1 eV/atom of it")):
        p = row[f"probability_{key}"]
        lines.append(f"| probability by DFT: {label} | {_said(p, 2)} |")
    lines.append(f"| won by rattling | {_said(row['gain_by_rattling'])} eV/atom |")
    for name, one in _of_witnesses(row["elastic"]):
        said = f"{_said(one['bulk'], 0)}, {_said(one['shear'], 0)}, {_said(one['lowest'], 1)} GPa"
        lines.append(f"| bulk and shear modulus, lowest eigenvalue, {name} | {said} |")
    for name, one in _of_witnesses(row["phonons"]):
        lines.append(f"| lowest frequency, {name} | {_said(one['lowest'], 2)} THz |")
    lines += ["", f"Nearest relative that is known: {row['relative']}.", ""]
    lines += ["What DFT would have to settle:", ""]
    lines += [f"- {question}" for question in row["for_dft"]]
    if picture:
        lines += ["", "![Phonon bands along the standard path](phonons.png)"]
    lines += ["", "Errors are mean absolute ones against DFT, of 1,446 generated crystals.", ""]
    return "\n".join(lines)


def _of_witnesses(found: Row) -> list[tuple[str, Row]]:
    return [(name, one) for name, one in found.items() if isinstance(one, dict)]


def _said(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(rows: Sequence[Row]) -> str:
    """The short numbers of all crystals as CSV."""
    import pandas as pd

    keys = ["number", "formula", "given_as", "space_group", "survives", "stopped"]
    keys += ["formation_energy", "energy_above_hull", "probability_within_0.1", "relative"]
    return pd.DataFrame(rows, columns=keys, dtype=object).to_csv(index=False)
