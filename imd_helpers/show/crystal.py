"""Crystals in three dimensions, to turn with the mouse or a finger."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import elements
from ..crystals.batch import CrystalBatch
from ..runtime import InputError, lookup
from .colours import element_colour
from .drawn import Drawing, draw, edges
from .figures import GREY

if TYPE_CHECKING:
    from pymatgen.core import Structure

STYLES = ("ball_stick", "spheres")
BALL, SPHERE = 0.36, 0.85  # radius drawn, as a share of the covalent radius
MOST_VIEWS = 24
TURNS = ((-76, "x"), (-28, "z"))  # stand c up, look down on the cell, and turn it about c


def crystal(
    crystals: CrystalBatch | Structure,
    *,
    index: int = 0,
    size: tuple[int, int] = (480, 360),
    supercell: tuple[int, int, int] = (1, 1, 1),
    style: str = "ball_stick",
) -> None:
    """Show one crystal, with the images of atoms on the faces, edges and corners of its cell.

    In Jupyter and Colab this is a 3-D view; elsewhere the crystal is printed in words.

    Args:
        crystals: a batch, or a pymatgen structure.
        index: which crystal of the batch.
        size: largest width, and height, in pixels.
        supercell: how many cells along a, b and c.
        style: ``ball_stick`` (sticks join mutual nearest neighbours) or ``spheres``.

    Raises:
        InputError: no crystal, no such index, style or supercell.
    """
    batch = as_batch(crystals)
    if not -len(batch) <= index < len(batch):
        raise InputError(f"index={index}, but there are {len(batch)}: take 0 to {len(batch) - 1}")
    lookup("style", style, STYLES)
    _publish([draw(batch, index, supercell)], [""], 1, size, style)


def crystals(
    batch: CrystalBatch | Sequence[Structure],
    *,
    columns: int = 3,
    titles: Sequence[str] | None = None,
    size: tuple[int, int] = (240, 220),
    style: str = "ball_stick",
) -> None:
    """Show several crystals side by side, each under its title (its formula, if none is given).

    Args:
        batch: at most 24 crystals.
        columns: crystals in a row.
        titles: one a crystal.
        size: largest width, and height, of one view in pixels.
        style: ``ball_stick`` or ``spheres``.

    Raises:
        InputError: no crystals or too many, or not one title a crystal.
    """
    shown = as_batch(batch)
    lookup("style", style, STYLES)
    if len(shown) > MOST_VIEWS:
        raise InputError(f"{len(shown)} views slow a page down: show at most {MOST_VIEWS}")
    if columns < 1:
        raise InputError(f"columns={columns} must be at least 1")
    drawings = [draw(shown, i, (1, 1, 1)) for i in range(len(shown))]
    names = [drawing.formula for drawing in drawings] if titles is None else list(titles)
    if len(names) != len(drawings):
        raise InputError(f"{len(names)} titles for {len(drawings)} crystals: give one each")
    _publish(drawings, names, min(columns, len(drawings)), size, style)


def as_batch(given: object) -> CrystalBatch:
    """A batch of at least one crystal.

    Raises:
        InputError: something else.
    """
    if isinstance(given, CrystalBatch):
        batch = given
    elif hasattr(given, "frac_coords"):
        batch = CrystalBatch.from_structures([given])
    elif isinstance(given, Sequence) and given and all(hasattr(s, "frac_coords") for s in given):
        batch = CrystalBatch.from_structures(given)
    else:
        raise InputError(
            f"cannot show {type(given).__name__}: give a CrystalBatch or a pymatgen Structure, "
            'for example imd.datasets.load("oqmd_icsd").crystals'
        )
    if len(batch) == 0:
        raise InputError("the batch holds no crystal to show: did a filter remove them all?")
    return batch


def _publish(
    drawings: list[Drawing], titles: list[str], columns: int, size: tuple[int, int], style: str
) -> None:
    from IPython.display import display

    words = "\n".join(drawing.words() for drawing in drawings)
    markup = _page_part(drawings, titles, columns, size, style)
    display({"text/html": markup, "text/plain": words}, raw=True)


def _page_part(
    drawings: list[Drawing], titles: list[str], columns: int, size: tuple[int, int], style: str
) -> str:
    """The view, its titles and its legend as HTML."""
    import py3Dmol

    rows = -(-len(drawings) // columns)
    grid = (rows, columns) if len(drawings) > 1 else None
    view = py3Dmol.view(width="100%", height=size[1] * rows, viewergrid=grid, linked=False)
    for index, drawing in enumerate(drawings):
        place = {"viewer": divmod(index, columns)} if grid else {}
        _fill(view, drawing, style, place)
    view.setBackgroundColor("white", 0)  # transparent: the page's own colour shows, light or dark
    script = view._make_html()
    words = html.escape("; ".join(drawing.words() for drawing in drawings), quote=True)
    return (
        f'<figure class="imd-crystal" style="max-width:{size[0] * columns}px;margin:.5em 0">'
        f'<div role="img" aria-label="3-D view of {words}" style="position:relative">'
        f"{script}{_titles(titles, columns, rows)}</div>"
        f"{_legend(drawings)}</figure>{_no_wheel(view.uniqueid)}"
    )


def _fill(view: Any, drawing: Drawing, style: str, place: dict[str, tuple[int, int]]) -> None:
    view.setProjection("orthographic", **place)
    view.addModel(**place)
    view.getModel(**place).addAtoms(_atoms(drawing, style == "ball_stick"))
    share = BALL if style == "ball_stick" else SPHERE
    radii = elements.column("covalent_radius")
    for z in np.unique(drawing.numbers):
        colour = element_colour(int(z))
        radius = radii[z] if np.isfinite(radii[z]) else 1.5
        look: dict[str, Any] = {"sphere": {"color": colour, "radius": round(share * radius, 3)}}
        if style == "ball_stick":
            look["stick"] = {"color": colour, "radius": 0.09}
        view.setStyle({"elem": elements.SYMBOLS[z]}, look, **place)
    for start, end in edges(drawing.lattice):
        line = {"start": _point(start), "end": _point(end), "radius": 0.025, "color": GREY}
        view.addCylinder(line, **place)
    for name, end in zip("abc", drawing.lattice, strict=True):
        beyond = end * (1 + 1.4 / np.linalg.norm(end))  # clear of an atom on the corner
        label = {"position": _point(beyond), "fontColor": GREY, "fontSize": 15, "bold": True}
        label |= {"showBackground": False, "inFront": True, "alignment": "center"}
        view.addLabel(name, label, **place)
    view.zoomTo(**place)
    for angle, axis in TURNS:
        view.rotate(angle, axis, **place)
    view.zoom(1.5, **place)


def _atoms(drawing: Drawing, sticks: bool) -> list[dict[str, Any]]:
    joined = drawing.sticks if sticks else [[] for _ in drawing.sticks]
    return [
        {
            "elem": elements.SYMBOLS[z],
            **_point(position),
            "bonds": others,
            "bondOrder": [1] * len(others),
        }
        for z, position, others in zip(drawing.numbers, drawing.positions, joined, strict=True)
    ]


def _point(position: np.ndarray) -> dict[str, float]:
    return {axis: round(float(value), 4) for axis, value in zip("xyz", position, strict=True)}


def _titles(titles: list[str], columns: int, rows: int) -> str:
    """Titles laid over the views of a grid."""
    if not any(titles):
        return ""
    cells = "".join(
        f'<span style="justify-self:center;font-size:.9em">{_subscripts(title)}</span>'
        for title in titles
    )
    return (
        '<div style="position:absolute;inset:0;display:grid;pointer-events:none;'
        f'grid-template:repeat({rows},1fr)/repeat({columns},1fr)">{cells}</div>'
    )


def _legend(drawings: list[Drawing]) -> str:
    """Colours of the elements, and the cell of a single crystal."""
    symbols = sorted({s for drawing in drawings for s in drawing.symbols}, key=elements.number)
    dots = " ".join(
        '<span style="white-space:nowrap;margin-right:.9em"><span style="display:inline-block;'
        f"width:.8em;height:.8em;border-radius:50%;border:1px solid {GREY};vertical-align:-.05em;"
        f'background:{element_colour(elements.number(symbol))}"></span> {symbol}</span>'
        for symbol in symbols
    )
    only = drawings[0] if len(drawings) == 1 else None
    said = f"<span>{_subscripts(only.words())}</span>" if only else ""
    return (
        '<figcaption style="font-size:.85em;line-height:1.5" class="imd-legend">'
        f"{dots} {said}</figcaption>"
    )


def _subscripts(text: str) -> str:
    """Escape for HTML, and set the numbers of a formula low."""
    head, comma, tail = html.escape(text).partition(",")
    return re.sub(r"(?<=[A-Za-z)])(\d+)", r"<sub>\1</sub>", head) + comma + tail


def _no_wheel(uniqueid: str) -> str:
    """Leave the wheel to the page, so that scrolling does not stop at a view; Ctrl+wheel zooms."""
    return (
        "<script>(function(){"
        f'var e=document.getElementById("3dmolviewer_{uniqueid}");'
        'if(e)e.parentElement.addEventListener("wheel",'
        "function(w){if(!w.ctrlKey)w.stopPropagation();},true);})();</script>"
    )
