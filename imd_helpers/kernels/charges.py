"""Compiled loops of the judge."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .border import border

WORD = 64
BAD = 2
MAX_COUNT = 100_000  # atoms of one element in a formula; more would need megabytes of bits


@njit(cache=True)
def _shift_or(work, source, shift, target, words):
    """Row target |= row source << shift, over words of 64 bits; bits beyond the end are lost."""
    if words == 1:
        if shift < WORD:
            work[target, 0] |= work[source, 0] << np.uint64(shift)
        return
    whole, part = shift // WORD, shift % WORD
    for i in range(words - 1, whole - 1, -1):
        bits = work[source, i - whole] << np.uint64(part)
        if part and i - whole > 0:
            bits |= work[source, i - whole - 1] >> np.uint64(WORD - part)
        work[target, i] |= bits


@njit(cache=True)
def _reach(work, source, z, count, table, n_states, sign, target, words):
    """Charges reachable after one more element in states of one sign."""
    for w in range(words):
        work[target, w] = 0
    for k in range(n_states[z]):
        state = table[z, n_states[z] - 1 - k] if sign > 0 else -table[z, k]
        if state < 0:
            break  # states ascend: the others have the other sign
        _shift_or(work, source, state * count, target, words)


@njit(cache=True)
def _balanced(z, count, m, table, n_states, rank, words, work):
    """Some cut of the elements, sorted by electronegativity, has cations = anions in charge.

    Row i of work holds the charges that the anions i, i + 1, … reach, rows m + 1 and m + 2 in turn
    those of the cations before i.
    """
    work[m, :words] = 0
    work[m, 0] = 1
    for i in range(m - 1, -1, -1):
        _reach(work, i + 1, z[i], count[i], table, n_states, -1, i, words)
    before, after = m + 1, m + 2
    work[before, :words] = 0
    work[before, 0] = 1
    for i in range(m):
        _reach(work, before, z[i], count[i], table, n_states, 1, after, words)
        before, after = after, before
        if i + 1 < m and rank[z[i]] == rank[z[i + 1]]:
            continue  # equally electronegative: both are cations or both anions
        for w in range(words):
            if work[before, w] & work[i + 1, w]:
                return True
    return False


@njit(cache=True)
def _neutral(z, count, m, table, n_states, words, work):
    """Some choice of states has charge zero, whoever is the cation."""
    work[0, :words] = 0
    work[0, 0] = 1
    target = 0
    for i in range(m):
        lowest = table[z[i], 0]
        target -= lowest * count[i]
        work[i + 1, :words] = 0
        for k in range(n_states[z[i]]):
            _shift_or(work, i, (table[z[i], k] - lowest) * count[i], i + 1, words)
    if target < 0 or target // WORD >= words:
        return False
    return (work[m, target // WORD] >> np.uint64(target % WORD)) & np.uint64(1) == 1


@njit(cache=True)
def _passes(z, count, m, table, n_states, rank, metal, pauling, alloys, work):
    all_metal, divisor, known = alloys, 0, True
    for i in range(m):
        all_metal = all_metal and metal[z[i]]
        known = known and n_states[z[i]] > 0 and (rank[z[i]] >= 0 or not pauling)
        divisor = divisor if divisor == 1 else math.gcd(count[i], divisor)
    if m == 1 or all_metal:
        return True
    if not known:
        return False
    positive, negative = 0, 0  # the largest charges of either sign
    for i in range(m):
        if divisor > 1:
            count[i] //= divisor
        positive += count[i] * max(table[z[i], n_states[z[i]] - 1], 0)
        negative += count[i] * max(-table[z[i], 0], 0)
    charges = max(positive, negative) if pauling else positive + negative
    words = charges // WORD + 1
    if words > work.shape[1]:
        work = np.empty((m + 3, words), dtype=np.uint64)
    if pauling:
        return _balanced(z, count, m, table, n_states, rank, words, work)
    return _neutral(z, count, m, table, n_states, words, work)


@border(
    counts="whole compositions columns",
    table="-20:21 columns states",
    n_states="0:states+1 columns",
    rank="whole columns",
    metal="bool columns",
    pauling="bool",
    alloys="bool",
)
@njit(cache=True)
def neutral_batch(counts, table, n_states, rank, metal, pauling, alloys):
    """(n, 119) counts -> (n,) int8: 0, 1, or BAD; tables as in `OxidationTable`."""
    n, columns = counts.shape
    out = np.zeros(n, dtype=np.int8)
    z = np.empty(columns, dtype=np.int64)
    count = np.empty(columns, dtype=np.int64)
    work = np.empty((columns + 3, 2), dtype=np.uint64)  # two words are enough for most
    order = 1 + np.argsort(rank[1:])  # elements by electronegativity
    for row in range(n):
        m, bad = 0, counts[row, 0] != 0
        for column in order:
            if counts[row, column] == 0:
                continue
            if counts[row, column] < 0 or counts[row, column] > MAX_COUNT:
                bad = True
                break
            z[m], count[m] = column, counts[row, column]
            m += 1
        if bad or m == 0:
            out[row] = BAD
        else:
            out[row] = _passes(z, count, m, table, n_states, rank, metal, pauling, alloys, work)
    return out
