"""Pictures of what the judge and the phonons found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..judge.report import SHARE, Report, check_comparable
from ..runtime import InputError
from .figures import GREY, PALETTE, for_any_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..energies.phonons import Phonons

COLORS = tuple(PALETTE[name] for name in ("blue", "orange", "green", "purple", "sky", "vermilion"))


def reports(*given: Report) -> Figure:
    """Shares that survive each stage, with intervals, of one report or several side by side.

    Where there is a protocol, its own shares stand in a second panel.

    Raises:
        DefinitionError: the reports' numbers mean different things.
        InputError: no reports.
    """
    from matplotlib import pyplot as plt

    check_comparable(given)
    shares = [k.name for k in given[0].numbers if k.unit == SHARE and k.interval]
    rows = max(len(given[0].stages), len(shares))
    size = (7.5 + 4.5 * bool(shares), 0.7 + rows * max(0.45, 0.22 * len(given)))
    panels = {"width_ratios": (3, 2)} if shares else {}
    fig, axes = plt.subplots(
        1, 1 + bool(shares), figsize=size, layout="constrained", squeeze=False, gridspec_kw=panels
    )
    _draw_stages(axes[0, 0], given)
    if shares:
        _draw_numbers(axes[0, 1], given, shares)
    return fig


def _draw_stages(ax: Axes, reports: Sequence[Report]) -> None:
    names = [stage.name for stage in reports[0].stages]
    for k, report in enumerate(reports):
        y = _rows(len(names), k, len(reports))
        share, low, high = (100 * report.table[c].to_numpy() for c in ("share", "low", "high"))
        label = f"{report.name} (n = {report.n:,})"
        ax.barh(y, share, 0.72 / len(reports), color=COLORS[k % len(COLORS)], label=label)
        ax.errorbar(share, y, xerr=(share - low, high - share), fmt="none", ecolor=GREY, capsize=2)
        for place, value, end in zip(y, share, high, strict=True):
            ax.text(end + 1, place, f"{value:.1f}", va="center", fontsize=9, color=GREY)
    _finish(ax, names, "samples that survive up to here, % of n")
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    ax.legend(**above, ncols=2, frameon=False, labelcolor=GREY)


def _draw_numbers(ax: Axes, reports: Sequence[Report], names: Sequence[str]) -> None:
    for k, report in enumerate(reports):
        y = _rows(len(names), k, len(reports))
        rows = [report[name] for name in names]
        value, low, high = 100 * np.array([(row.value, row.low, row.high) for row in rows]).T
        look = {"fmt": "o", "ms": 5, "capsize": 2, "color": COLORS[k % len(COLORS)]}
        ax.errorbar(value, y, xerr=(value - low, high - value), **look)
    _finish(ax, names, f"numbers of the protocol {reports[0].protocol}, %")


def _rows(n: int, k: int, reports: int) -> np.ndarray:
    """Heights of the k-th report's marks in n rows that the reports share."""
    return np.arange(n) + (k - (reports - 1) / 2) * 0.8 / reports


def _finish(ax: Axes, names: Sequence[str], label: str) -> None:
    """Rows from top to bottom."""
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 108), xlabel=label)
    ax.spines[["top", "right"]].set_visible(False)
    for_any_page(ax)


# ---- phonons


def bands(*all_of: Phonons) -> Figure:
    """Phonon bands and density of states of one crystal, by one potential or several.

    Raises:
        InputError: nothing given, or bands along different paths.
    """
    if not all_of:
        raise InputError("no phonons given: draw at least one")
    from matplotlib import pyplot as plt

    first = all_of[0]
    path = [(found.formula, *(name for _, name in found.ticks)) for found in all_of]
    for other in path[1:]:
        if other != path[0]:
            raise InputError(f"{other[0]} follows another path than {path[0][0]}: draw them apart")
    fig, (ax, side) = plt.subplots(
        1, 2, figsize=(7.0, 3.4), sharey=True, width_ratios=(4, 1), layout="constrained"
    )
    for found, color, dash in zip(all_of, COLORS, ("-", "--", "-.", ":"), strict=False):
        x = found.distance * (first.distance[-1] / found.distance[-1])
        for band in found.frequencies.T:
            ax.plot(*_broken(x, band), color=color, ls=dash, lw=1.2)
        ax.plot([], [], color=color, ls=dash, label=found.definition["potential"])
        side.plot(found.dos, found.dos_frequency, color=color, ls=dash, lw=1.2)
    _dress(ax, side, first)
    return fig


def _broken(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line with a gap where the path jumps to another point."""
    jump = np.flatnonzero((np.diff(x) == 0) & (np.abs(np.diff(y)) > 1e-3)) + 1
    return np.insert(x, jump, np.nan), np.insert(y, jump, np.nan)


def _dress(ax: Axes, side: Axes, first: Phonons) -> None:
    for axes in (ax, side):
        axes.axhline(0, color=GREY, lw=0.8)
        for_any_page(axes)
    ax.set_xticks(*zip(*first.ticks, strict=True))
    ax.grid(axis="y", visible=False)
    ax.set_xlim(first.distance[0], first.distance[-1])
    ax.set_ylabel("frequency (THz), negative = imaginary", color=GREY)
    ax.set_title(f"{first.formula}, space group {first.space_group}", color=GREY, loc="left")
    ax.legend(frameon=False, labelcolor=GREY, loc="upper right", ncols=2)
    side.set_xlim(0, None)
    side.set_xticks([])
    side.set_xlabel("states", color=GREY)
    side.set_title("no LO-TO splitting", color=GREY, loc="right")
