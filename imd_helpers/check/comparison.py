"""Checks of the chapter that compares descriptors."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from .base import Check


@cache
def _rows() -> dict[str, Any]:
    from ..runtime import data_path

    record = json.loads(data_path("checkpoints", "comparison", "run.json").read_text())
    return {row["name"]: row for row in record["rows"]}


def _lower_end() -> float:
    """Wilson's formula, written out."""
    trip = _rows()["hydride blocks (CrystalGAN), published"]["round_trip"]
    n, share, q = trip["n"], trip["same"] / trip["n"], 1.959964
    centre = share + q**2 / (2 * n)
    spread = q * (share * (1 - share) / n + q**2 / (4 * n**2)) ** 0.5
    return (centre - spread) / (1 + q**2 / n)


def _price_of_a_grid() -> float:
    from .. import datasets

    n_sites = datasets.load("oqmd_icsd").select(max_sites=20).n_sites
    return (32**3 + 64**3) / (3 * float(n_sites.mean()) + 6)


CHECKS = {
    "comparison.1": Check(
        _lower_end,
        "imd_helpers.judge.wilson takes how many came back the same and how many were tried.",
        tolerance=0.002,
    ),
    "comparison.2": Check(
        _price_of_a_grid,
        "The grids of cell and sites together, divided by three numbers a site and six for the "
        "cell, with the mean number of sites.",
        tolerance=0.002,
    ),
}
