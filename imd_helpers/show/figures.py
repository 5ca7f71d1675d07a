"""One look for all figures, readable on paper, on a screen and without colour vision."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import data_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's eight colours, told apart by readers with any common colour blindness
# (jfly.uni-koeln.de/color); the order starts with the strongest contrast on a white ground.
PALETTE: dict[str, str] = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",  # last: as a line it is hardly seen on white
}
GREY = "#72777b"  # 4.5 to 1 against white and against black
ALIKE = 0.25  # colours nearer than this in red, green and blue, 0 to 1, are taken for one


def style() -> dict[str, Any]:
    """Matplotlib settings of the book; they change nothing until you apply them.

    For a whole notebook write ``plt.rcParams.update(imd.show.style())``, for one figure
    ``with plt.rc_context(imd.show.style()):``. Lines of one plot differ by dashes too, so that no
    meaning hangs on colour alone.
    """
    from cycler import cycler
    from matplotlib import rc_params_from_file

    colours = [colour for name, colour in PALETTE.items() if name != "yellow"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    cycle = cycler(color=colours) + cycler(linestyle=dashes)
    settings = rc_params_from_file(
        data_path("figures", "book.mplstyle"), use_default_template=False
    )
    return {**settings, "axes.prop_cycle": cycle}


def for_any_page(ax: Axes) -> None:
    """No ground and grey ink, which read on light and on dark pages."""
    for part in (ax.figure, ax):
        part.patch.set_alpha(0)
    ax.tick_params(colors=GREY)
    ax.xaxis.label.set_color(GREY)
    for spine in ax.spines.values():
        spine.set_color(GREY)


def element_colour(number: int) -> str:
    """``#rrggbb`` in which chemists expect to see an element (Jmol's), given its atomic number."""
    from ase.data.colors import jmol_colors

    return _hex(jmol_colors[min(number, len(jmol_colors) - 1)])  # the last elements share one


def element_colours(numbers: Iterable[int]) -> dict[int, str]:
    """A colour for each element of a picture, by atomic number; no two look alike.

    The usual ones, but where one is nearly that of a lighter element (titanium, platinum and
    mercury are all grey), the one that is farthest from all others.
    """
    usual = {z: element_colour(z) for z in sorted(set(numbers))}
    tones = itertools.product(range(12), ((0.9, 0.85), (0.5, 1.0), (0.9, 0.5)))
    wheel = np.array([colorsys.hsv_to_rgb(hue / 12, *tone) for hue, tone in tones])  # (36, 3)
    out = dict(usual)
    for z, colour in usual.items():
        lighter = [_shares(out[other]) for other in usual if other < z]
        if lighter and np.linalg.norm(lighter - _shares(colour), axis=1).min() < ALIKE:
            others = np.array([_shares(out[other]) for other in usual if other != z])
            apart = np.linalg.norm(wheel[:, None] - others, axis=2).min(1)
            out[z] = _hex(wheel[apart.argmax()])
    return out


def _shares(colour: str) -> np.ndarray:
    """(3,) red, green and blue, 0 to 1, of ``#rrggbb``."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _hex(shares: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * share):02x}" for share in shares.tolist())
