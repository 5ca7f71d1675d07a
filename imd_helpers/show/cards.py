"""Cards of crystals that went through all gates, as a page shows them: side by side, to be read."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from ..crystals.batch import CrystalBatch
from ..crystals.elements import SYMBOLS, column
from ..energies.potentials import POTENTIALS
from ..judge.validation import card
from ..runtime import InputError, data_path
from .crystal import BALL, STICK, as_batch, one_each, subscripts
from .drawn import Drawing, draw, kinds
from .figures import GREY, PALETTE, element_colours
from .trajectory import projected

Row = dict[str, Any]
REACH = 0.35  # eV/atom, the ends of the scale of energies
WIDE, HIGH = 260, 130  # pixels of a picture


def candidates(
    rows: Sequence[Row], crystals: CrystalBatch, titles: Sequence[str] | None = None
) -> None:
    """Show cards side by side: picture, energies with their errors, odds, stiffness, what is open.

    Args:
        rows: cards as `imd_helpers.judge.validation.cards` makes them.
        crystals: one a card, for the picture and the file that can be saved.
        titles: what stands below each formula, e.g. where the crystal is from; None for nothing.

    Raises:
        InputError: not one crystal and one title a card, or a card of a crystal without energies.
    """
    from IPython.display import display

    batch = as_batch(crystals)
    if len(batch) != len(rows):
        raise InputError(f"{len(batch)} crystals for {len(rows)} cards: give one each")
    for row in rows:
        if "by_potential" not in row:
            raise InputError(f"card {row.get('number')}: stopped before it had an energy, leave it")
    names = one_each(titles, ["" for _ in rows], "cards")
    look = data_path("figures", "cards.css").read_text(encoding="utf-8")
    made = [_article(row, batch[i], names[i]) for i, row in enumerate(rows)]
    page = f'<style>{look}</style><div class="imd-cards">{"".join(made)}</div>'
    display({"text/html": page, "text/plain": "\n".join(card(row) for row in rows)}, raw=True)


def _article(row: Row, crystal: CrystalBatch, title: str) -> str:
    came = "" if row["given_as"] == row["space_group"] else f"came as group {row['given_as']}"
    fate = "survives all gates" if row["survives"] else f"stopped: {row['stopped']}"
    parts = [
        f"<header><b>{subscripts(row['formula'])}</b>"
        f"<span>{_symbol(row['space_group'])} ({row['space_group']})</span></header>",
        f"<p>{escape(' · '.join(filter(None, (title, came, fate))))}</p>",
        _picture(draw(crystal, 0)),
        _energies(row),
        _odds(row),
        _table(row),
        f"<p><i>Nearest that is known</i><br>{escape(row['relative'])}</p>",
        "<p><i>For DFT to settle</i></p>"
        f"<ul>{''.join(f'<li>{escape(question)}</li>' for question in row['for_dft'])}</ul>",
        _file(row, crystal),
    ]
    return f"<article>{''.join(parts)}</article>"


def _symbol(space_group: int) -> str:
    """Short symbol of Hermann and Mauguin, with bars and screws as they are printed."""
    from pymatgen.symmetry.groups import SpaceGroup

    symbol = SpaceGroup.from_int_number(space_group).symbol
    if 3 <= space_group <= 15:  # monoclinic ones come with a 1 for each idle axis
        symbol = symbol[0] + symbol[2:-1]
    symbol = re.sub(r"-(\d)", r'<span style="text-decoration:overline">\1</span>', escape(symbol))
    return re.sub(r"_(\d)", r"<sub>\1</sub>", symbol)


def _picture(drawing: Drawing) -> str:
    """Atoms and sticks, the far ones first, in the picture's own scale."""
    atoms, corners = projected(drawing)
    colours = element_colours(kinds([drawing]))
    radii = BALL * np.nan_to_num(column("covalent_radius"), nan=1.5)
    reach = np.abs(np.concatenate([atoms, corners.reshape(-1, 3)])).max(0)[:2] + 0.7  # Å
    scale = min(WIDE / 2 / reach[0], HIGH / 2 / reach[1])

    def line(start: np.ndarray, end: np.ndarray, colour: str, width: float) -> str:
        x1, y1, x2, y2 = (scale * np.concatenate([start[:2], end[:2]]) * [1, -1, 1, -1]).round(1)
        ends = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        return f'<line {ends} stroke="{colour}" stroke-width="{width:.1f}"/>'

    marks = [(-1e3, line(*ends, GREY, 1)) for ends in corners]
    for at, z, others in zip(atoms, drawing.numbers, drawing.sticks, strict=True):
        colour = colours[int(z)]
        for j in others:  # each end draws its half
            middle = (at + atoms[j]) / 2
            marks.append((middle[2], line(at, middle, colour, 2 * STICK * scale)))
        x, y = (scale * at[:2]).round(1)
        ball = f'cx="{x}" cy="{-y}" r="{scale * radii[z]:.1f}" fill="{colour}" stroke="{GREY}"'
        marks.append((at[2], f"<circle {ball}/>"))
    inside = "".join(mark for _, mark in sorted(marks, key=lambda each: each[0]))
    box = f"{-WIDE // 2} {-HIGH // 2} {WIDE} {HIGH}"
    words = escape(drawing.words(), quote=True)
    dots = (f'<b style="color:{ink}">●</b> {SYMBOLS[z]}' for z, ink in colours.items())
    picture = f'<svg viewBox="{box}" role="img" aria-label="{words}">{inside}</svg>'
    return f'{picture}<p class="elements">{" ".join(dots)}</p>'


def _energies(row: Row) -> str:
    """Each potential's distance from the hull, where it has one, with its usual error."""

    def at(energy: float) -> float:
        return round(WIDE / 2 * (1 + float(np.clip(energy / REACH, -1, 1))), 1)

    words = ((0, "start", "below"), (WIDE / 2, "middle", "hull"), (WIDE, "end", "above"))
    marks = [f'<text x="{x}" y="10" text-anchor="{end}">{word}</text>' for x, end, word in words]
    inks = (PALETTE["blue"], PALETTE["orange"])
    found = [(name, above) for name, above in row["by_potential"].items() if above is not None]
    for k, ((name, above), ink) in enumerate(zip(found, inks, strict=False)):
        y, error = 38 + 34 * k, row["error_of_generated"][name] or 0.0
        said = f"{_label(name)} {above:+.2f} ± {error:.2f} eV/atom".replace("-0.", "−0.")
        ends = f'x1="{at(above - error)}" x2="{at(above + error)}" y1="{y}" y2="{y}"'
        hull = f'x1="{at(0)}" x2="{at(0)}" y1="{y - 7}" y2="{y + 7}" stroke="{GREY}"'
        marks.append(f'<text x="0" y="{y - 11}">{said}</text><line {hull} stroke-width="2"/>')
        marks.append(f'<line {ends} stroke="{ink}" stroke-width="3"/>')
        marks.append(f'<circle cx="{at(above)}" cy="{y}" r="5" fill="{ink}"/>')
    return f'<svg viewBox="0 0 {WIDE} 82">{"".join(marks)}</svg>'


def _odds(row: Row) -> str:
    """Two bars: how likely DFT finds it near the hull, and on it."""
    out = ""
    for key, what in (("within_0.1", "within 0.1 eV/atom of the hull"), ("on_hull", "on the hull")):
        p = row[f"probability_{key}"]
        if p is not None:
            out += f'<div class="odds"><i style="width:{100 * p:.0f}%"></i></div>'
            out += f"<p>{100 * p:.0f} % {what}</p>"
    return f"<p><i>Odds that DFT finds it</i></p>{out}" if out else ""


def _table(row: Row) -> str:
    """Stiffness and frequencies, a column each witness."""
    witnesses = [name for name, one in row["elastic"].items() if isinstance(one, dict)]
    lines = [
        ("bulk modulus, GPa", "elastic", "bulk", 0),
        ("shear modulus, GPa", "elastic", "shear", 0),
        ("softest strain, GPa", "elastic", "lowest", 0),
        ("lowest phonon, THz", "phonons", "lowest", 2),
    ]
    head = "".join(f"<th>{_label(name)}</th>" for name in witnesses)
    body = ""
    for what, fact, key, digits in lines:
        values = [row[fact].get(name, {}).get(key) for name in witnesses]
        cells = "".join(f"<td>{'–' if v is None else f'{v:.{digits}f}'}</td>" for v in values)
        body += f"<tr><th>{what}</th>{cells}</tr>"
    won = row["gain_by_rattling"] or 0.0
    body += f'<tr><th>won by the push</th><td colspan="2">{won:.3f} eV/atom</td></tr>'
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def _file(row: Row, crystal: CrystalBatch) -> str:
    """A link to the CIF, which lies in the page itself."""
    text = crystal.structures()[0].to(fmt="cif", symprec=0.01)
    code, name = base64.b64encode(text.encode()).decode(), escape(f"{row['formula']}.cif")
    return f'<a download="{name}" href="data:chemical/x-cif;base64,{code}">{name}</a>'


def _label(potential: str) -> str:
    return escape(POTENTIALS.get(potential, potential))
