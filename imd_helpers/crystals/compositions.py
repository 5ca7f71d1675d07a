"""Compositions as counts: read, checked, reduced, written, and compared by the million.

Counts are an (n, 119) integer array with one column for each atomic number. A row of zeros keeps
the place of what is no composition, so that n things stay n rows.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..runtime import InputError
from . import elements

LARGEST = 9_999  # atoms of one element that the compiled parser counts
MOST = np.iinfo(np.int16).max  # and that fit
MAX_DENOMINATOR = 10_000  # decimals in formulas have at most four digits
BLOCK = 65_536  # rows that are worked on at once


# ---- reading and writing


def parse(formulas: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Read many formulas: a compiled parser first, the patient one where that gives up.

    Args:
        formulas: n formulas with whole counts, brackets allowed.

    Returns:
        (n, 119) int16 counts, and the reason for each formula that could not be read, by index;
        its row is zeros.
    """
    counts, known = _compiled(formulas)
    reasons = {}
    for i in np.flatnonzero(~known).tolist():
        try:
            amounts = _patiently(formulas[i])
        except InputError as error:
            reasons[i] = str(error)
            continue
        broken = [z for z, n in amounts.items() if n != round(n) or n > MOST]
        if broken:
            reasons[i] = (
                f"{formulas[i]!r} has {amounts[broken[0]]:.10g} atoms of "
                f"{elements.SYMBOLS[broken[0]]}: counts are whole, and at most {MOST}; multiply "
                "or divide the formula"
            )
        else:
            counts[i, list(amounts)] = list(amounts.values())
    return counts, reasons


def none(n: int) -> np.ndarray:
    """(n, 119) int16 zeros: rows that keep the places of what is no composition."""
    return np.zeros((n, elements.N_COLUMNS), dtype=np.int16)


def amounts(formulas: Sequence[str]) -> np.ndarray:
    """(n, 119) counts of formulas that must all be right: int64, or float64 where some are broken.

    Raises:
        InputError: not a formula.
        UnknownNameError: an element that does not exist.
    """
    formulas = list(formulas)
    counts, known = _compiled(formulas)
    patient = {}
    for i in np.flatnonzero(~known).tolist():
        try:
            patient[i] = _patiently(formulas[i])
        except InputError as error:
            raise type(error)(f"formula {i}: {error}") from error
    whole = all(n == round(n) for found in patient.values() for n in found.values())
    out = counts.astype(np.int64 if whole else np.float64)
    for i, found in patient.items():
        out[i, list(found)] = list(found.values())
    return out


def integer_amounts(formula: str) -> dict[int, int]:
    """``{atomic number: count}`` in the smallest whole numbers, e.g. Ag0.5S0.25 -> Ag2S.

    Raises:
        InputError: not a formula.
        UnknownNameError: an element that does not exist.
    """
    fractions = {
        z: Fraction(n).limit_denominator(MAX_DENOMINATOR)
        for z, n in elements.parse_formula(formula).items()
        if n
    }
    scale = math.lcm(*(n.denominator for n in fractions.values()))
    whole = {z: int(n * scale) for z, n in fractions.items()}
    factor = math.gcd(*whole.values())
    return {z: n // factor for z, n in whole.items()}


def _compiled(formulas: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 119) int16 counts, and (n,) bool: could the compiled parser read it?"""
    from ..kernels.formulas import parse_batch, symbol_table

    formulas = [each if isinstance(each, str) else "" for each in formulas]
    joined = "".join(formulas)
    text = np.frombuffer(joined.encode("ascii", "replace"), dtype=np.uint8)
    ends = np.cumsum(np.fromiter(map(len, formulas), dtype=np.int64, count=len(formulas)))
    counts = none(len(formulas))
    known = parse_batch(text, ends, symbol_table(elements.SYMBOLS), counts)
    known &= counts.any(1) & (counts.max(1) <= LARGEST)
    if elements.ROMAN.search(joined):
        known &= [elements.ROMAN.search(formula) is None for formula in formulas]
    counts[~known] = 0
    return counts, known


def _patiently(formula: Any) -> dict[int, float]:
    if isinstance(formula, str) and formula.strip():
        return elements.parse_formula(formula.strip())
    raise InputError(
        f"{formula!r} is no formula: a blank, or NaN (sodium nitride?) that pandas takes for one; "
        "drop it, or read the table with keep_default_na=False"
    )


def formulas(counts: np.ndarray) -> list[str]:
    """Reduced formulas as pymatgen writes them, ``""`` for a row of zeros."""
    counts = checked(counts)
    row, z = np.nonzero(counts)
    found: list[dict[int, int]] = [{} for _ in range(len(counts))]
    for i, k, n in zip(row.tolist(), z.tolist(), counts[row, z].tolist(), strict=True):
        found[i][k] = n
    return [elements.reduced_formula(one) if one else "" for one in found]


# ---- checking


def checked(counts: ArrayLike) -> np.ndarray:
    """Counts, if they are counts.

    Raises:
        InputError: another shape or type.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != elements.N_COLUMNS or counts.dtype.kind not in "iu":
        raise InputError(
            f"counts of shape {counts.shape} and type {counts.dtype}: expected whole numbers of "
            f"shape (n, {elements.N_COLUMNS}), one column for each atomic number, or formulas"
        )
    return counts


# ---- comparing


def reduced(counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts divided by their greatest common divisor; rows of zeros stay."""
    counts = checked(counts)
    divisor = np.gcd.reduce(counts, axis=1)
    if (divisor <= 1).all():
        return counts
    return counts // np.maximum(divisor, 1)[:, None].astype(counts.dtype)


def keys(counts: np.ndarray) -> list[bytes]:
    """One key a composition, for sets and dicts: equal for multiples; empty for a row of zeros."""
    lowest = reduced(counts).astype(np.int32)
    return [row.tobytes() if some else b"" for row, some in zip(lowest, lowest.any(1), strict=True)]


def grouped(keys: Iterable[Any]) -> dict[Any, np.ndarray]:
    """Where each key stands, in order; empty keys stand nowhere."""
    places: dict[Any, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key:
            places[key].append(i)
    return {key: np.array(some) for key, some in places.items()}


def occurrence(keys: Sequence[bytes]) -> np.ndarray:
    """(n,) how many equal keys stand before each."""
    seen: Counter[bytes] = Counter()
    out = np.empty(len(keys), dtype=np.int64)
    for i, key in enumerate(keys):
        out[i] = seen[key]
        seen[key] += 1
    return out


def first_rows(counts: np.ndarray) -> np.ndarray:
    """Index of the first row of each distinct composition, in rising order.

    Args:
        counts: (n, 119) reduced counts; rows of zeros count as one composition.
    """
    counts = checked(counts)
    _, first, which = np.unique(_hashes(counts), return_index=True, return_inverse=True)
    like = first[which]
    if not all((counts[part] == counts[like[part]]).all() for part in blocks(len(counts))):
        _, first = np.unique(counts, axis=0, return_index=True)  # two compositions share a hash
    return np.sort(first)


def member(counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) bool: is each row of (n, 119) reduced counts a row of (m, 119) known ones?"""
    out = np.zeros(len(counts), dtype=bool)
    if len(known) == 0 or len(counts) == 0:
        return out
    theirs = _hashes(known)
    order = np.argsort(theirs, kind="stable")
    theirs = theirs[order]
    for part in blocks(len(counts)):
        mine = _hashes(counts[part])
        place = np.searchsorted(theirs, mine).clip(max=len(known) - 1)
        maybe = np.flatnonzero(theirs[place] == mine)
        same = counts[part.start + maybe] == known[order[place[maybe]]]
        out[part.start + maybe] = same.all(1)
    return out


def blocks(n: int, size: int | None = None) -> Iterator[slice]:
    """Rows in blocks, so that what is made on the way stays small beside the counts."""
    size = size or BLOCK
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _hashes(counts: np.ndarray) -> np.ndarray:
    """(n,) uint64: a random number for each element times its count, added up modulo 2^64."""
    weight = np.random.default_rng(1).integers(1, 2**63, elements.N_COLUMNS, dtype=np.uint64)
    hashes = np.zeros(len(counts), dtype=np.uint64)
    for part in blocks(len(counts)):
        row, z = np.nonzero(counts[part])
        amount = counts[part][row, z].astype(np.uint64) * (2 * weight + 1)[z]
        np.add.at(hashes, part.start + row, amount)
    return hashes
