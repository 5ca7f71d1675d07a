"""Checks of the chapter on compositions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Check

if TYPE_CHECKING:
    import pandas as pd


def _gaps() -> pd.DataFrame:
    """Rows of oqmd_icsd that have a band gap, eV."""
    from .. import datasets

    return datasets.load("oqmd_icsd").table.dropna(subset=["band_gap"])


def switches(*, above: float) -> int:
    """Formulas with one entry without a gap and another with a gap above a limit, eV."""
    gap = _gaps().groupby("formula")["band_gap"]
    return int(((gap.min() == 0) & (gap.max() > above)).sum())


def least_error() -> float:
    """Mean distance of gaps from the median of their formula, eV, where there are several."""
    table = _gaps()
    gap = table.groupby("formula")["band_gap"]
    several = gap.transform("size") > 1
    return float((table["band_gap"] - gap.transform("median")).abs()[several].mean())


CHECKS = {
    "compositions.1": Check(
        lambda: switches(above=1.0),
        "Group the rows that have a gap by formula, and compare the smallest and the largest gap "
        "of each; do not drop repeated entries.",
    ),
    "compositions.2": Check(
        least_error,
        "Take the median within each formula, keep only formulas with at least two gaps, and "
        "average over rows, not over formulas.",
        tolerance=1e-3,
    ),
}
