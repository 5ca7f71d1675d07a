"""Crystals in three dimensions, to turn with the mouse or a finger."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from functools import partial
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals.batch import CrystalBatch
from ..crystals.elements import SYMBOLS, column
from ..runtime import InputError, data_path
from .drawn import Drawing, draw, edges, kinds
from .figures import GREY, element_colours

if TYPE_CHECKING:
    from pymatgen.core import Structure

BALL, STICK = 0.36, 0.09  # radius drawn, as a share of the covalent radius; Å
MOST_VIEWS = 24
LARGE, SMALL = (480, 360), (240, 220)  # largest width, and height, of a view in pixels
TURNS = ((-76, "x"), (-28, "z"))  # stand c up, look down on the cell, and turn it about c


def crystal(crystals: CrystalBatch | Structure) -> None:
    """Show one crystal, with the images of atoms on the faces, edges and corners of its cell.

    In Jupyter and Colab this is a 3-D view; elsewhere the crystal is printed in words.

    Args:
        crystals: a batch, whose first crystal is shown, or a pymatgen structure.

    Raises:
        InputError: no crystal.
    """
    _publish([draw(as_batch(crystals), 0)], [], 1, LARGE)


def crystals(
    batch: CrystalBatch | Sequence[Structure],
    *,
    columns: int = 3,
    titles: Sequence[str] | None = None,
) -> None:
    """Show several crystals side by side, each under its title (its formula, if none is given).

    Args:
        batch: at most 24 crystals.
        columns: crystals in a row.
        titles: one a crystal.

    Raises:
        InputError: no crystals or too many, or not one title a crystal.
    """
    shown = as_batch(batch)
    if columns < 1:
        raise InputError(f"columns={columns} must be at least 1")
    names = one_each(titles, shown.formulas(), "crystals")
    drawings = [draw(shown, i) for i in range(len(shown))]
    _publish(drawings, names, columns, SMALL)


def one_each(titles: Sequence[str] | None, default: list[str], what: str) -> list[str]:
    """The titles, or else the default ones.

    Raises:
        InputError: another number of titles.
    """
    names = default if titles is None else list(titles)
    if len(names) != len(default):
        raise InputError(f"{len(names)} titles for {len(default)} {what}: give one each")
    return names


def as_batch(given: CrystalBatch | Structure | Sequence[Structure]) -> CrystalBatch:
    """A batch of at least one crystal.

    Raises:
        InputError: none.
    """
    if isinstance(given, CrystalBatch) and len(given) == 0:
        raise InputError("the batch holds no crystal to show: did a filter remove them all?")
    if isinstance(given, CrystalBatch):
        return given
    return CrystalBatch.from_structures([given] if hasattr(given, "frac_coords") else given)


def _publish(
    drawings: list[Drawing], titles: list[str], columns: int, size: tuple[int, int]
) -> None:
    """Display crystals, their titles and their legend, or words where there is no browser."""
    colours = element_colours(kinds(drawings))
    pictures = [partial(_fill, drawing=drawing, colours=colours) for drawing in drawings]
    legend = {SYMBOLS[z]: colour for z, colour in colours.items()}
    words = [drawing.words() for drawing in drawings]
    publish(pictures, legend, words, titles, columns=columns, size=size)


def publish(
    pictures: Sequence[Callable[..., None]],
    legend: dict[str, str],
    words: list[str],
    titles: Sequence[str],
    *,
    columns: int,
    size: tuple[int, int],
) -> None:
    """Display pictures in one view, with titles and a legend, or words where there is no browser.

    Args:
        pictures: each fills its place, ``picture(view, place=place)``.
        legend: colours by what they stand for.
        words: each picture, for readers who cannot see it.
        titles: one a picture, or none.
        columns: pictures in a row.
        size: width and height of one picture, pixels.

    Raises:
        InputError: too many pictures.
    """
    import py3Dmol
    from IPython.display import display

    n = len(pictures)
    if n > MOST_VIEWS:
        raise InputError(f"{n} views slow a page down: show at most {MOST_VIEWS}")
    columns = min(columns, n)
    rows = -(-n // columns)
    grid = (rows, columns) if n > 1 else None
    view = py3Dmol.view(width="100%", height=size[1] * rows, viewergrid=grid, linked=False)
    for index, picture in enumerate(pictures):
        place = {"viewer": divmod(index, columns)} if grid else {}
        view.setProjection("orthographic", **place)
        picture(view, place=place)
    view.setBackgroundColor("white", 0)  # transparent: the page's own colour shows, light or dark
    dot = '<span><span style="background:{}"></span> {}</span>'
    page = Template(data_path("figures", "view.html").read_text(encoding="utf-8")).substitute(
        view=view._make_html(),
        id=view.uniqueid,
        width=size[0] * columns,
        high=size[1] * rows,
        rows=rows,
        columns=columns,
        grey=GREY,
        words=html.escape("; ".join(words), quote=True),
        titles="".join(f"<span>{subscripts(title)}</span>" for title in titles),
        elements=" ".join(dot.format(colour, name) for name, colour in legend.items()),
        cell=subscripts(words[0]) if len(words) == 1 else "",
    )
    display({"text/html": page, "text/plain": "\n".join(words)}, raw=True)


def _fill(
    view: Any, drawing: Drawing, colours: dict[int, str], place: dict[str, tuple[int, int]]
) -> None:
    view.addModel(**place)
    view.getModel(**place).addAtoms(_atoms(drawing))
    radii = np.nan_to_num(column("covalent_radius"), nan=1.5)
    for z in kinds([drawing]):
        look = {
            "sphere": {"color": colours[z], "radius": round(BALL * radii[z], 3)},
            "stick": {"color": colours[z], "radius": STICK},
        }
        view.setStyle({"elem": SYMBOLS[z]}, look, **place)
    add_cell(view, drawing.lattice, place)


def add_cell(view: Any, lattice: np.ndarray, place: dict[str, tuple[int, int]]) -> None:
    """The edges of a cell (3, 3) Å with their names, turned so that c stands up."""
    for start, end in edges(lattice):
        line = {"start": _point(start), "end": _point(end), "radius": 0.025, "color": GREY}
        view.addCylinder(line, **place)
    for name, end in zip("abc", lattice, strict=True):
        beyond = end * (1 + 1.4 / np.linalg.norm(end))  # clear of an atom on the corner
        label = {"position": _point(beyond), "fontColor": GREY, "fontSize": 15, "bold": True}
        label |= {"showBackground": False, "inFront": True, "alignment": "center"}
        view.addLabel(name, label, **place)
    view.zoomTo(**place)
    for angle, axis in TURNS:
        view.rotate(angle, axis, **place)
    view.zoom(1.5, **place)


def _atoms(drawing: Drawing) -> list[dict[str, Any]]:
    places = [_point(position) for position in drawing.positions]
    bonds = [{"bonds": others, "bondOrder": [1] * len(others)} for others in drawing.sticks]
    names = [{"elem": SYMBOLS[z]} for z in drawing.numbers]
    return [name | at | bond for name, at, bond in zip(names, places, bonds, strict=True)]


def _point(position: np.ndarray) -> dict[str, float]:
    return {axis: round(float(value), 4) for axis, value in zip("xyz", position, strict=True)}


def subscripts(text: str) -> str:
    """Escape for HTML, and set the numbers of a formula low."""
    head, comma, tail = html.escape(text).partition(",")
    return re.sub(r"(?<=[A-Za-z)])(\d+)", r"<sub>\1</sub>", head) + comma + tail
