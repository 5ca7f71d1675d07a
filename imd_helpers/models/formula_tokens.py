"""Formulas as counts, and as sentences of tokens.

Counts are an (n, 119) integer array with one column for each atomic number. A row of zeros is a
sample that is no formula, so that n samples stay n rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, MOST, fits
from ..runtime import InputError

PAD, START = 0, 1
FIRST_ELEMENT, FIRST_COUNT = 2, 2 + len(ELEMENTS)
END = FIRST_COUNT + MAX_COUNT
VOCABULARY = END + 1
LENGTH = 2 * MOST + 1


def checked(counts: np.ndarray, *, fitting: bool = False) -> np.ndarray:
    """Counts as int64, if they are counts.

    Args:
        counts: (n, 119) integers.
        fitting: demand rows, and that all are formulas of 2 to 8 of the 85 elements, each at most
            8 times.

    Raises:
        InputError: another shape or type; with ``fitting`` also no rows, or one that does not fit.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != elements.N_COLUMNS or counts.dtype.kind not in "iu":
        raise InputError(
            f"counts of shape {counts.shape} and type {counts.dtype}: expected whole numbers of "
            f"shape (n, {elements.N_COLUMNS}), one column for each atomic number"
        )
    if fitting and (len(counts) == 0 or not fits(counts).all()):
        raise InputError(
            f"{len(counts)} compositions, {int((~fits(counts)).sum())} of which the vocabulary of "
            f"{len(ELEMENTS)} elements and {MAX_COUNT} counts cannot hold: select them by "
            "composition_matrix.fits(counts)"
        )
    return counts.astype(np.int64, copy=False)


def reduced(counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts divided by their greatest common divisor; rows of zeros stay."""
    counts = checked(counts)
    return counts // np.maximum(np.gcd.reduce(counts, axis=1), 1)[:, None]


def distinct(counts: np.ndarray) -> np.ndarray:
    """(m, 119) reduced compositions that fit, each once, in a fixed order."""
    found = np.unique(reduced(counts), axis=0)
    return found[fits(found)]


def keys(counts: np.ndarray) -> list[bytes]:
    """One key a composition, for sets: equal for multiples of the same formula."""
    return [row.tobytes() for row in reduced(counts).astype(np.uint8)]


def at_least_one(n: int) -> int:
    """n, if it is a number of samples.

    Raises:
        InputError: n below 1.
    """
    if n < 1:
        raise InputError(f"n = {n}: ask for at least one sample")
    return n


def formulas(counts: np.ndarray) -> list[str]:
    """Reduced formulas of counts, ``""`` for a row of zeros."""
    out = []
    for row in checked(counts):
        amounts = {int(z): int(row[z]) for z in np.flatnonzero(row)}
        out.append(elements.reduced_formula(amounts) if amounts else "")
    return out


def encode_tokens(counts: np.ndarray) -> Tensor:
    """Formulas as tokens: element, count, element, count, ..., end, then padding.

    Elements stand in order of electronegativity, as in a written formula.

    Args:
        counts: (n, 119) that fit.

    Returns:
        (n, 17) int64, 0 = padding.

    Raises:
        InputError: a composition that does not fit.
    """
    counts = checked(counts, fitting=True)
    chi = np.nan_to_num(elements.column("electronegativity"), nan=9.0)
    order = sorted(range(len(ELEMENTS)), key=lambda i: (chi[ELEMENTS[i]], ELEMENTS[i]))
    chosen = counts[:, list(ELEMENTS)][:, order]  # (n, 85)
    row, place = np.nonzero(chosen)
    nth = np.arange(len(row)) - np.searchsorted(row, row)  # position within its formula
    tokens = np.zeros((len(counts), LENGTH), dtype=np.int64)
    tokens[row, 2 * nth] = FIRST_ELEMENT + np.array(order)[place]
    tokens[row, 2 * nth + 1] = FIRST_COUNT + chosen[row, place] - 1
    tokens[np.arange(len(counts)), 2 * (chosen > 0).sum(1)] = END
    return torch.as_tensor(tokens)


def decode_tokens(tokens: Tensor) -> np.ndarray:
    """(n, 119) counts of (n, length) tokens; sentences that are no formula become zeros.

    A formula alternates elements and counts, repeats no element, has at least two, and ends.
    """
    tokens = tokens.cpu().numpy()
    ended = np.cumsum(tokens == END, axis=1) > 0
    even = np.arange(tokens.shape[1]) % 2 == 0
    is_element = (tokens >= FIRST_ELEMENT) & (tokens < FIRST_COUNT)
    is_count = (tokens >= FIRST_COUNT) & (tokens < END)
    right = np.where(even, is_element | (tokens == END), is_count) | ended
    ok = right.all(1) & ended.any(1)
    row, place = np.nonzero(is_element & ~ended & ok[:, None])
    z = np.array(ELEMENTS)[tokens[row, place] - FIRST_ELEMENT]
    counts = np.zeros((len(tokens), elements.N_COLUMNS), dtype=np.int64)
    times = np.zeros_like(counts)
    np.add.at(times, (row, z), 1)
    counts[row, z] = tokens[row, place + 1] - FIRST_COUNT + 1
    counts[(times > 1).any(1)] = 0
    counts[~fits(counts)] = 0
    return counts
