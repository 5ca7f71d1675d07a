"""Charge neutrality and electronegativity balance of compositions: smact's verdict, by bit masks.

An oxidation state of each element is chosen so that the charges add up to zero and every anion is
more electronegative than every cation. Sort the elements by electronegativity: then a prefix are
the cations and the rest the anions. Bit q of a machine word says "a total charge q can be reached",
so that adding an element is a shift by state times count, and a composition passes if the word
of a prefix and that of its suffix share a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals import compositions as comps
from ..crystals import elements
from ..runtime import InputError, lookup

OXIDATION_STATES = {
    "icsd24": "seen in 3 reports of the ICSD of 2024 or more; smact's default since December 2024",
    "smact14": "smact's list of 2014; its default before",
}
ROWS = 65_536


@dataclass(frozen=True)
class OxidationTable:
    """An oxidation-state set of smact as arrays; index = atomic number."""

    name: str  # ``icsd24`` or ``smact14``
    # (119, most) int64 oxidation states, padded with 0; the sets have no state 0
    states: np.ndarray
    n_states: np.ndarray  # (119,) how many states; 0 where smact has none, and such compounds fail
    # (119,) rank of the Pauling electronegativity, equal ones equal; -1 where missing
    rank: np.ndarray
    metal: np.ndarray  # (119,) bool, what smact counts as a metal


@cache
def oxidation_table(name: str = "icsd24") -> OxidationTable:
    """Read a table from smact.

    Args:
        name: ``icsd24`` is what ``smact.screening.smact_validity`` uses by default (states seen in
            at least 3 reports of the ICSD); ``smact14`` is the older list.

    Raises:
        UnknownNameError: no such table.
    """
    lookup("oxidation-state table", name, OXIDATION_STATES)
    from smact import Element, metals

    icsd24 = _icsd24_states()
    listed: list[list[int]] = [[] for _ in range(elements.N_COLUMNS)]
    chi = np.full(elements.N_COLUMNS, np.nan)
    for z, symbol in enumerate(elements.SYMBOLS):
        try:
            element = Element(symbol)
        except (KeyError, NameError, ValueError):  # padding, and elements that smact lacks
            continue
        states = icsd24.get(symbol) if name == "icsd24" else element.oxidation_states_smact14
        listed[z] = sorted({int(q) for q in states or ()})
        chi[z] = np.nan if element.pauling_eneg is None else element.pauling_eneg
    states = np.zeros((elements.N_COLUMNS, max(map(len, listed))), dtype=np.int64)
    for z, row in enumerate(listed):
        states[z, : len(row)] = row
    order = np.unique(chi[~np.isnan(chi)])
    rank = np.where(np.isnan(chi), -1, np.searchsorted(order, np.nan_to_num(chi)))
    metal = np.isin(np.array(elements.SYMBOLS), metals)
    return OxidationTable(name, states, np.array([len(row) for row in listed]), rank, metal)


def _icsd24_states() -> dict[str, list[int]]:
    from smact.screening import ICSD24FilterConfig
    from smact.utils.oxidation import ICSD24OxStatesFilter

    config = ICSD24FilterConfig()
    frame = ICSD24OxStatesFilter().filter(
        consensus=config.consensus,
        include_zero=config.include_zero,
        commonality=config.commonality,
    )
    states = frame["oxidation_state"].astype(str).str.split()
    return {e: [int(q) for q in qs] for e, qs in zip(frame["element"], states, strict=True)}


def charge_neutral(
    compositions: Sequence[str] | ArrayLike,
    *,
    oxidation_states: str = "icsd24",
    pauling: bool = True,
    alloys: bool = True,
) -> np.ndarray:
    """Which compositions are charge neutral and electronegativity balanced, as smact decides.

    Single elements pass. With ``alloys`` compositions of metals only pass. A composition with an
    element that has no oxidation state in the table fails, and so does, with ``pauling``, one with
    an element that has no electronegativity (He, Ne, Ar, Pm, Rn, Lr). Elements beyond Lr,
    for which smact raises, have no oxidation state here.

    Args:
        compositions: n formulas with whole counts, or (n, 119) counts (column = atomic number).
        oxidation_states: ``icsd24`` or ``smact14``, see `oxidation_table`.
        pauling: demand that every cation is less electronegative than every anion.
        alloys: let compositions of metals only pass.

    Returns:
        (n,) bool, equal to ``smact.screening.smact_validity``.

    Raises:
        InputError: a formula that cannot be read, counts that are not whole or negative, no atoms.
        UnknownNameError: no such table, or no such element.

    Source: Davies et al., Chem 1 (2016) 617 (the rules); smact (the tables).
    """
    from ..kernels.charges import BAD, MAX_COUNT, neutral_batch

    table = oxidation_table(oxidation_states)
    given = _as_counts(compositions)
    verdict = np.empty(len(given), dtype=np.int8)
    for start in range(0, len(given), ROWS):  # in pieces: whole counts as int64 are large
        piece = slice(start, start + ROWS)
        counts = _whole(given[piece], start)
        verdict[piece] = neutral_batch(
            counts, table.states, table.n_states, table.rank, table.metal, pauling, alloys
        )
    if (verdict == BAD).any():
        i = int(np.argmax(verdict == BAD))
        found = {elements.SYMBOLS[z]: given[i, z].item() for z in np.flatnonzero(given[i])}
        raise InputError(
            f"composition {i} is {found}: counts must lie between 0 and {MAX_COUNT}, with at least "
            "one atom"
        )
    return verdict == 1


def definition(
    *, oxidation_states: str, pauling: bool = True, alloys: bool = True
) -> dict[str, Any]:
    """What `charge_neutral` decided by, for reports."""
    return {
        "rule": "smact_validity",
        "oxidation_states": f"{oxidation_states}: {OXIDATION_STATES[oxidation_states]}",
        "pauling": pauling,
        "alloys": alloys,
        "smact": metadata.version("smact"),
    }


def _as_counts(compositions: Sequence[str] | ArrayLike) -> np.ndarray:
    """(n, 119) numbers, from formulas or counts."""
    if isinstance(compositions, str):
        raise InputError(f"{compositions!r} is one formula: give a list, [{compositions!r}]")
    given = np.asarray(compositions)
    if given.size == 0:
        raise InputError("no compositions given: give at least one formula")
    if given.dtype.kind in "UO":
        given = comps.amounts(given.tolist())
    if given.ndim != 2 or given.shape[1] != elements.N_COLUMNS:
        raise InputError(
            f"counts have shape {given.shape}: expected (n, {elements.N_COLUMNS}), one column for "
            "each atomic number, or a list of formulas"
        )
    return given


def _whole(given: np.ndarray, start: int) -> np.ndarray:
    """(rows, 119) int64 counts; `start` is the index of the first row, for the message."""
    if given.dtype.kind in "iub":
        return np.ascontiguousarray(given, dtype=np.int64)
    counts = np.round(given)
    wrong = ~(np.abs(given - counts) < 1e-6)
    if wrong.any():
        i, z = np.argwhere(wrong)[0]
        raise InputError(
            f"composition {start + i} has {given[i, z]:g} atoms of {elements.SYMBOLS[z]!r}: "
            "charges are balanced over whole atoms, so multiply the formula until its counts are "
            "whole"
        )
    return counts.astype(np.int64)
