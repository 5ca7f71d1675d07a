"""Compiled loops of the judge."""

# ruff: noqa: ANN001, ANN202, D403
from __future__ import annotations

import numpy as np
from numba import njit

WORD = 64
BAD = 2
MAX_COUNT = 100_000  # atoms of one element in a formula; more would need megabytes of bits


@njit(cache=True)
def _shift_or(word, shift, out):
    """out |= word << shift, over words of 64 bits; bits beyond the end are lost."""
    whole, part = shift // WORD, shift % WORD
    for i in range(len(word) - 1, whole - 1, -1):
        bits = word[i - whole] << np.uint64(part)
        if part and i - whole > 0:
            bits |= word[i - whole - 1] >> np.uint64(WORD - part)
        out[i] |= bits


@njit(cache=True)
def _reach(word, count, states, n_states, sign, out):
    """Charges reachable after one more element in states of one sign."""
    out[:] = 0
    for k in range(n_states):
        charge = sign * states[k] * count
        if charge >= 0:
            _shift_or(word, charge, out)


@njit(cache=True)
def _balanced(z, count, m, table, n_states, rank, words):
    """Some cut of the elements, sorted by electronegativity, has cations = anions in charge."""
    suffix = np.zeros((m + 1, words), dtype=np.uint64)
    suffix[m, 0] = 1
    for i in range(m - 1, -1, -1):
        _reach(suffix[i + 1], count[i], table[z[i]], n_states[z[i]], -1, suffix[i])
    prefix = np.zeros(words, dtype=np.uint64)
    after = np.zeros(words, dtype=np.uint64)
    prefix[0] = 1
    for i in range(m):
        _reach(prefix, count[i], table[z[i]], n_states[z[i]], 1, after)
        prefix[:] = after
        if i + 1 < m and rank[z[i]] == rank[z[i + 1]]:
            continue  # equally electronegative: both are cations or both anions
        for w in range(words):
            if prefix[w] & suffix[i + 1, w]:
                return True
    return False


@njit(cache=True)
def _neutral(z, count, m, table, n_states, words):
    """Some choice of states has charge zero, whoever is the cation."""
    word = np.zeros(words, dtype=np.uint64)
    after = np.zeros(words, dtype=np.uint64)
    word[0] = 1
    target = 0
    for i in range(m):
        lowest = table[z[i], 0]
        target -= lowest * count[i]
        after[:] = 0
        for k in range(n_states[z[i]]):
            _shift_or(word, (table[z[i], k] - lowest) * count[i], after)
        word[:] = after
    if target < 0 or target // WORD >= words:
        return False
    return (word[target // WORD] >> np.uint64(target % WORD)) & np.uint64(1) == 1


@njit(cache=True)
def _gcd(a, b):
    while b:
        a, b = b, a % b
    return a


@njit(cache=True)
def _passes(z, count, m, table, n_states, rank, metal, pauling, alloys):
    all_metal, divisor, known = alloys, 0, True
    for i in range(m):
        all_metal = all_metal and metal[z[i]]
        known = known and n_states[z[i]] > 0 and (rank[z[i]] >= 0 or not pauling)
        divisor = _gcd(count[i], divisor)
    if m == 1 or all_metal:
        return True
    if not known:
        return False
    positive, negative = 0, 0  # the largest charges of either sign
    for i in range(m):
        count[i] //= divisor
        positive += count[i] * max(table[z[i], n_states[z[i]] - 1], 0)
        negative += count[i] * max(-table[z[i], 0], 0)
    if pauling:
        return _balanced(z, count, m, table, n_states, rank, max(positive, negative) // WORD + 1)
    return _neutral(z, count, m, table, n_states, (positive + negative) // WORD + 1)


@njit(cache=True)
def neutral_batch(counts, table, n_states, rank, metal, pauling, alloys):
    """(n, 119) counts -> (n,) int8: 0, 1, or BAD; tables as in `OxidationTable`."""
    n, columns = counts.shape
    out = np.zeros(n, dtype=np.int8)
    z = np.empty(columns, dtype=np.int64)
    count = np.empty(columns, dtype=np.int64)
    for row in range(n):
        m, bad = 0, counts[row, 0] != 0
        for column in range(1, columns):
            if counts[row, column] < 0 or counts[row, column] > MAX_COUNT:
                bad = True
            elif counts[row, column] > 0:
                place = m  # insertion sort by electronegativity
                while place > 0 and rank[z[place - 1]] > rank[column]:
                    z[place] = z[place - 1]
                    count[place] = count[place - 1]
                    place -= 1
                z[place], count[place] = column, counts[row, column]
                m += 1
        if bad or m == 0:
            out[row] = BAD
        else:
            out[row] = _passes(z, count, m, table, n_states, rank, metal, pauling, alloys)
    return out
