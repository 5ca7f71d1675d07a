"""Crystals that change: a relaxation, a walk through latent space, samples during training."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch, elements
from ..runtime import InputError
from .crystal import BALL, LARGE, TURNS, as_batch, one_each
from .drawn import Drawing, draw, edges, kinds
from .figures import GREY, element_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FRAMES = 400  # each is a model of its own in the viewer


def trajectory(
    frames: CrystalBatch,
    *,
    titles: Sequence[str] | None = None,
    strip: int = 5,
) -> None:
    """Show crystals one after the other; composition, cell and number of atoms may change.

    In JupyterLab and Colab, with nglview, this is a 3-D view with a player. Elsewhere, as in a
    built page or where ``IMD_STATIC`` is set, it is a strip of pictures.

    Args:
        frames: one crystal a frame.
        titles: one a frame; default: its number.
        strip: how many frames, evenly spaced, the strip holds.

    Raises:
        InputError: no frames or too many, or not one title a frame.
    """
    drawings, names = _drawings(frames, titles)
    if is_live():
        from IPython.display import display

        display(player(drawings, names))
    else:
        from matplotlib import pyplot as plt

        _strip(drawings, names, strip)
        plt.show()


def is_live() -> bool:
    """Is there a widget's other half: nglview, and a running JupyterLab or Colab?"""
    colab = "google.colab" in sys.modules
    served = colab or "JPY_SESSION_NAME" in os.environ  # set by the Jupyter server for its kernels
    return served and not os.environ.get("IMD_STATIC") and find_spec("nglview") is not None


def _drawings(
    frames: CrystalBatch, titles: Sequence[str] | None
) -> tuple[list[Drawing], list[str]]:
    batch = as_batch(frames)
    if len(batch) > MOST_FRAMES:
        raise InputError(f"{len(batch)} frames: show at most {MOST_FRAMES}, as in frames[::10]")
    names = one_each(titles, [f"frame {i}" for i in range(len(batch))], "frames")
    return [draw(batch, i) for i in range(len(batch))], names


# ---- live


def player(drawings: Sequence[Drawing], names: Sequence[str]) -> Any:
    """The view, a slider and a button to play, as one widget."""
    import ipywidgets
    from ase import Atoms

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # nglview's affair
        import nglview

    if "google.colab" in sys.modules:
        from google.colab import output

        output.enable_custom_widget_manager()  # widgets that are not Colab's own
    view = nglview.NGLWidget()
    view.layout.width, view.layout.height = (f"{pixels}px" for pixels in LARGE)
    for drawing in drawings:
        atoms = Atoms(drawing.numbers, drawing.positions, cell=drawing.lattice, pbc=True)
        model = view.add_component(nglview.ASEStructure(atoms), default_representation=False)
        model.add_ball_and_stick()
        model.add_unitcell()
    view.camera = "orthographic"
    view.center()
    last = len(drawings) - 1
    step = ipywidgets.IntSlider(0, 0, last, description="frame")
    play = ipywidgets.Play(value=0, min=0, max=last, interval=250)
    said = ipywidgets.Label()

    def show(_: object = None) -> None:
        view.show_only([step.value])
        said.value = f"{names[step.value]}: {drawings[step.value].words()}"

    ipywidgets.jslink((play, "value"), (step, "value"))
    step.observe(show, "value")
    show()
    return ipywidgets.VBox([view, ipywidgets.HBox([play, step]), said])


# ---- still


def _strip(drawings: Sequence[Drawing], names: Sequence[str], most: int) -> Figure:
    """Some frames side by side, in one scale; more than four in two lines, for a phone."""
    from matplotlib import pyplot as plt

    if most < 1:
        raise InputError(f"strip={most} must be at least 1")
    n = min(most, len(drawings))
    rows = np.linspace(0, len(drawings) - 1, n).round().astype(int)
    lines = 1 if n <= 4 else 2
    across = -(-n // lines)
    size = (1.7 * across, 0.3 + 2.0 * lines)
    fig, axes = plt.subplots(lines, across, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    flat = [projected(drawings[i]) for i in rows]
    reach = max(np.abs(corners[..., :2]).max() for _, corners in flat) + 0.8  # Å
    colours = element_colours(kinds(drawings))
    for ax, i, (atoms, corners) in zip(axes.flat[:n], rows, flat, strict=True):
        _draw_frame(ax, drawings[i], atoms, corners, colours)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.set_axis_off()
        ax.set_title(names[i], loc="center", fontsize=9)
    for z, colour in colours.items():
        dot = {"marker": "o", "mec": GREY, "mfc": colour}
        axes[0, 0].plot([], [], ls="", label=elements.SYMBOLS[z], **dot)
    fig.legend(loc="outside lower center", ncols=len(colours), frameon=False)
    return fig


def projected(drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
    """Atoms (atoms, 3) and edges (12, 2, 3), turned as in the 3-D view, about the middle."""
    from scipy.spatial.transform import Rotation

    angles, axes = zip(*TURNS, strict=True)
    turn = Rotation.from_euler("".join(axes).upper(), angles, degrees=True).as_matrix()
    middle = drawing.lattice.sum(0) / 2
    ends = np.array(edges(drawing.lattice))
    return (drawing.positions - middle) @ turn.T, (ends - middle) @ turn.T


def _draw_frame(
    ax: Axes,
    drawing: Drawing,
    atoms: np.ndarray,
    corners: np.ndarray,
    colours: dict[int, str],
) -> None:
    """Edges, sticks and atoms, what is near over what is far."""
    from matplotlib.patches import Circle

    for start, end in corners:
        ax.plot(*np.array([start, end]).T[:2], color=GREY, lw=0.7, ls="-", zorder=-50)
    radii = np.nan_to_num(elements.column("covalent_radius"), nan=1.5)
    for i, (at, z) in enumerate(zip(atoms, drawing.numbers, strict=True)):
        colour = colours[int(z)]
        for j in drawing.sticks[i]:
            half = np.array([at, (at + atoms[j]) / 2])  # each end draws its half
            ax.plot(*half.T[:2], color=colour, lw=1.6, ls="-", zorder=half[:, 2].mean())
        ax.add_patch(Circle(at[:2], BALL * radii[z], fc=colour, ec=GREY, lw=0.4, zorder=at[2]))
