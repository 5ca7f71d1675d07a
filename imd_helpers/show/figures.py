"""One look for all figures, readable on paper, on a screen and without colour vision."""

from __future__ import annotations

from typing import Any

# Okabe and Ito's eight colours, told apart by readers with any common colour blindness
# (jfly.uni-koeln.de/color); the order starts with the strongest contrast on a white ground.
PALETTE: dict[str, str] = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}
INK, RULE = "#2b3238", "#c9cdc8"
GREY = "#858b90"  # is seen on white and on black


def style() -> dict[str, Any]:
    """Matplotlib settings of the book; they change nothing until you apply them.

    For a whole notebook write ``plt.rcParams.update(imd.show.style())``, for one figure
    ``with plt.rc_context(imd.show.style()):``. Lines of one plot differ by dashes too, so that no
    meaning hangs on colour alone.
    """
    from cycler import cycler

    colours = [colour for name, colour in PALETTE.items() if name != "yellow"]
    dashes = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
    return {
        "axes.prop_cycle": cycler(color=colours) + cycler(linestyle=dashes),
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "axes.labelsize": 10.5,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
        "patch.linewidth": 0,
        "image.cmap": "cividis",
        "figure.figsize": (6.4, 3.6),
        "figure.dpi": 144,
        "figure.facecolor": "white",
        "axes.facecolor": "white",
        "figure.constrained_layout.use": True,
        "savefig.bbox": "tight",
    }
