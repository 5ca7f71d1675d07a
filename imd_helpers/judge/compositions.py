"""What reports on compositions tell beside shares: repetition, recovery, novelty by size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..crystals.compositions import blocks, checked, member, reduced
from ..intervals import wilson
from ..runtime import whole
from .report import Report

if TYPE_CHECKING:
    import pandas as pd


def uniqueness(report: Report, points: int = 20) -> pd.DataFrame:
    """Distinct formulas among the first k samples: how soon a generator repeats itself.

    Args:
        report: by the protocol ``formulas``.
        points: how many values of k.

    Returns:
        One row for each k: ``distinct``, and ``share`` of those decoded.
    """
    import pandas as pd

    k = np.unique(np.linspace(0, report.n, whole("points", points, least=1) + 1).astype(int))[1:]
    distinct = np.cumsum(report.facts["unique"] == 1)[k - 1]
    decoded = np.cumsum(report.facts["decoded"] == 1)[k - 1]
    return pd.DataFrame(
        {"distinct": distinct, "share": distinct / np.maximum(decoded, 1)},
        index=pd.Index(k, name="samples"),
    )


def recovery(report: Report, reference: np.ndarray) -> pd.DataFrame:
    """How many formulas of a reference set were found, by number of elements.

    Args:
        report: by the protocol ``formulas``.
        reference: (m, 119) counts, each formula once, e.g. of the left-out split.

    Returns:
        One row for 2, 3, … elements: ``reference``, ``found``, ``share`` with its Wilson 95 %
        interval.
    """
    wanted = reduced(reference)
    found = member(wanted, report.samples.counts)
    return _by_elements(n_elements(wanted), found, ("reference", "found"))


def new_by_elements(report: Report, training: np.ndarray) -> pd.DataFrame:
    """How many of the distinct formulas are not in a training set, by number of elements.

    Args:
        report: by the protocol ``formulas``.
        training: (m, 119) counts.
    """
    mine = report.samples.counts[report.facts["unique"] == 1]
    new = ~member(mine, reduced(training))
    return _by_elements(n_elements(mine), new, ("made", "new"))


def n_elements(counts: np.ndarray) -> np.ndarray:
    """(n,) number of different elements of (n, 119) counts."""
    if not len(checked(counts)):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.count_nonzero(counts[part], 1) for part in blocks(len(counts))])


def _by_elements(kinds: np.ndarray, yes: np.ndarray, names: tuple[str, str]) -> pd.DataFrame:
    import pandas as pd

    groups = pd.Series(yes, dtype=int).groupby(pd.Index(kinds, name="elements"))
    table = groups.agg(["size", "sum"]).set_axis(list(names), axis=1)
    total, hits = (table[name] for name in names)
    low, high = wilson(hits, total)
    return table.assign(share=hits / total, low=low, high=high)
