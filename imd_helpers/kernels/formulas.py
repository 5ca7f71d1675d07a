"""Compiled parser of formulas: many strings in one pass over their bytes."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import njit

from .border import border

MAX_TOKENS = 64  # elements written in one formula, repeats included
MAX_DEPTH = 8  # nested brackets
LARGEST = 9_999  # count of one element
LETTERS = 26


@cache
def symbol_table(symbols) -> np.ndarray:
    """(26, 27) atomic number by first letter and second letter (0: none); 0 where no element."""
    table = np.zeros((LETTERS, LETTERS + 1), dtype=np.int64)
    for z, symbol in enumerate(symbols):
        if symbol:
            second = ord(symbol[1]) - ord("a") + 1 if len(symbol) > 1 else 0
            table[ord(symbol[0]) - ord("A"), second] = z
    return table


@njit(cache=True)
def _parse_one(text, begin, end, table, z, amount, opened):
    """Fill z and amount with the elements of text[begin:end]; their number, or -1."""
    n, depth, i = 0, 0, begin
    while i < end:
        byte = text[i]
        first = n  # where the tokens begin that the next count multiplies
        if byte == 40:  # (
            if depth == MAX_DEPTH:
                return -1
            opened[depth] = n
            depth += 1
            i += 1
            continue
        if byte == 41:  # )
            if depth == 0:
                return -1
            depth -= 1
            first = opened[depth]
            i += 1
        elif 65 <= byte <= 90:
            second = 0
            if i + 1 < end and 97 <= text[i + 1] <= 122:
                second = text[i + 1] - 96
            if n == MAX_TOKENS or table[byte - 65, second] == 0:
                return -1
            z[n], amount[n] = table[byte - 65, second], 1
            n += 1
            i += 2 if second > 0 else 1
        else:
            return -1
        if i < end and 48 <= text[i] <= 57:
            times = 0
            while i < end and 48 <= text[i] <= 57:
                times = min(10 * times + (text[i] - 48), LARGEST + 1)
                i += 1
            for k in range(first, n):
                amount[k] *= times
                if amount[k] > LARGEST:
                    return -1
    return n if depth == 0 else -1


@border(
    text="0:256 bytes", ends="0:bytes+1 formulas", table="0:119 26 27", counts="out formulas 119"
)
@njit(cache=True)
def parse_batch(text, ends, table, counts):
    """Counts of formulas that are written with whole numbers.

    Args:
        text: (bytes,) uint8, all formulas one after the other.
        ends: (n,) where each formula ends.
        table: `symbol_table`.
        counts: (n, 119) int16 zeros, filled.

    Returns:
        (n,) bool, False where a formula needs the patient parser, which also knows why.
    """
    known = np.zeros(len(ends), dtype=np.bool_)
    z, amount = np.empty(MAX_TOKENS, dtype=np.int64), np.empty(MAX_TOKENS, dtype=np.int64)
    opened = np.empty(MAX_DEPTH, dtype=np.int64)
    begin = 0
    for row in range(len(ends)):
        n = _parse_one(text, begin, ends[row], table, z, amount, opened)
        begin = ends[row]
        for k in range(n):
            counts[row, z[k]] = min(counts[row, z[k]] + amount[k], LARGEST + 1)
        known[row] = n > 0
    return known
