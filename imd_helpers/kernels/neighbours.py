"""Compiled loops: distances from each site to its nearest neighbours in the infinite crystal."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .crystals import _inverse_unimodular, minkowski

EXTRA = 1.35  # how many more points than k the first sphere should hold on average
GROW = 1.15  # how much wider the next sphere is, where a site saw too few
MAX_TRIES = 40
MAX_CELLS = 2_000_000
UNREACHED = -1e300  # distances are never so negative, though rounding may bring them below 0

jit = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
entry = njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)


@jit
def _half_of_cells(basis, radius, out):
    """Lattice vectors within a radius, one of each pair T, -T and without 0; -1: too many."""
    volume = abs(
        basis[0, 0] * (basis[1, 1] * basis[2, 2] - basis[1, 2] * basis[2, 1])
        - basis[0, 1] * (basis[1, 0] * basis[2, 2] - basis[1, 2] * basis[2, 0])
        + basis[0, 2] * (basis[1, 0] * basis[2, 1] - basis[1, 1] * basis[2, 0])
    )
    most, cells = np.empty(3, dtype=np.int64), 1.0
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        x = basis[i, 1] * basis[j, 2] - basis[i, 2] * basis[j, 1]
        y = basis[i, 2] * basis[j, 0] - basis[i, 0] * basis[j, 2]
        z = basis[i, 0] * basis[j, 1] - basis[i, 1] * basis[j, 0]
        reach = radius * math.sqrt(x * x + y * y + z * z) / volume  # spacing of lattice planes
        cells *= 2 * reach + 1
        most[k] = math.floor(min(reach, 1e6))
    if not cells < MAX_CELLS:
        return -1, out
    n = 0
    for a in range(most[0] + 1):
        for b in range(-most[1] if a > 0 else 0, most[1] + 1):
            for c in range(-most[2] if a > 0 or b > 0 else 1, most[2] + 1):
                x = a * basis[0, 0] + b * basis[1, 0] + c * basis[2, 0]
                y = a * basis[0, 1] + b * basis[1, 1] + c * basis[2, 1]
                z = a * basis[0, 2] + b * basis[1, 2] + c * basis[2, 2]
                if x * x + y * y + z * z > radius * radius:
                    continue
                if n == len(out):
                    longer = np.empty((2 * n, 3))
                    for i in range(n):
                        for k in range(3):
                            longer[i, k] = out[i, k]
                    out = longer
                out[n, 0], out[n, 1], out[n, 2] = x, y, z
                n += 1
    return n, out


@jit
def _collect(cart, n, cells, n_cells, radius, squares, number):
    """Squared distances below radius from each site, unordered; False if there is no room."""
    limit, room = radius * radius, squares.shape[1]
    for i in range(n):
        number[i] = 0
    for i in range(n):
        for j in range(i, n):
            if number[i] + 2 * n_cells + 1 > room or number[j] + 2 * n_cells + 1 > room:
                return False
            x = cart[j, 0] - cart[i, 0]
            y = cart[j, 1] - cart[i, 1]
            z = cart[j, 2] - cart[i, 2]
            if j > i:
                d = x * x + y * y + z * z
                if d < limit:
                    squares[i, number[i]] = d
                    number[i] += 1
                    squares[j, number[j]] = d
                    number[j] += 1
            for m in range(n_cells):
                tx, ty, tz = cells[m, 0], cells[m, 1], cells[m, 2]
                d = (x + tx) ** 2 + (y + ty) ** 2 + (z + tz) ** 2
                if d < limit:  # from i to the image of j, and from j to an image of i
                    squares[i, number[i]] = d
                    number[i] += 1
                    squares[j, number[j]] = d
                    number[j] += 1
                if j > i:
                    d = (x - tx) ** 2 + (y - ty) ** 2 + (z - tz) ** 2
                    if d < limit:
                        squares[i, number[i]] = d
                        number[i] += 1
                        squares[j, number[j]] = d
                        number[j] += 1
    return True


@jit
def _sorted_roots(squares, n, k, radius, bins, sorted_, out):
    """The k smallest distances, ascending: bins of equal volume, then insertion."""
    size = len(bins) - 1
    for b in range(size + 1):
        bins[b] = 0
    scale = size / radius**3
    for i in range(n):
        b = min(int(squares[i] * math.sqrt(squares[i]) * scale), size - 1)
        bins[b + 1] += 1
    for b in range(size):
        bins[b + 1] += bins[b]
    for i in range(n):
        b = min(int(squares[i] * math.sqrt(squares[i]) * scale), size - 1)
        sorted_[bins[b]] = squares[i]
        bins[b] += 1
    for i in range(1, n):
        value, place = sorted_[i], i
        while place > 0 and sorted_[place - 1] > value:
            sorted_[place] = sorted_[place - 1]
            place -= 1
        sorted_[place] = value
    for i in range(k):
        out[i] = math.sqrt(sorted_[i])


@jit
def _reduced_sites(lattice, frac, n, basis, cart):
    """Sites in a Minkowski-reduced cell, so that a sphere meets few cells; longest difference."""
    change, back = np.empty((3, 3)), np.empty((3, 3))
    minkowski(lattice, basis, change)
    _inverse_unimodular(change, back)
    f = np.empty(3)
    for i in range(n):
        for k in range(3):
            x = frac[i, 0] * back[0, k] + frac[i, 1] * back[1, k] + frac[i, 2] * back[2, k]
            f[k] = x - math.floor(x)
        for k in range(3):
            cart[i, k] = f[0] * basis[0, k] + f[1] * basis[1, k] + f[2] * basis[2, k]
    widest = 0.0
    for i in range(n):
        for j in range(i):
            x, y, z = cart[i, 0] - cart[j, 0], cart[i, 1] - cart[j, 1], cart[i, 2] - cart[j, 2]
            widest = max(widest, x * x + y * y + z * z)
    return math.sqrt(widest)


@entry
def nearest(lattice, frac, n_sites, k, average, out):
    """Distances to the k nearest neighbours.

    Args:
        lattice, frac, n_sites: (n, 3, 3), (n, sites, 3), (n,); n_sites 0: leave out.
        k: how many neighbours.
        average: write means over the sites?
        out: (n, 1, k) if average else (n, sites, k), filled; NaN where there are too many cells.
    """
    most = frac.shape[1]
    basis, cart = np.empty((3, 3)), np.empty((most, 3))
    cells, number = np.empty((64, 3)), np.empty(most, dtype=np.int64)
    squares, sorted_ = np.empty((most, 4 * k + 256)), np.empty(4 * k + 256)
    bins, row = np.empty(k + 1, dtype=np.int64), np.empty(k)
    for c in range(len(lattice)):
        n = n_sites[c]
        for i in range(out.shape[1]):
            for m in range(k):
                out[c, i, m] = 0.0 if average and n > 0 else np.nan
        if n == 0:
            continue
        widest = _reduced_sites(lattice[c], frac[c], n, basis, cart)
        volume = abs(
            basis[0, 0] * (basis[1, 1] * basis[2, 2] - basis[1, 2] * basis[2, 1])
            - basis[0, 1] * (basis[1, 0] * basis[2, 2] - basis[1, 2] * basis[2, 0])
            + basis[0, 2] * (basis[1, 0] * basis[2, 1] - basis[1, 1] * basis[2, 0])
        )
        radius = (EXTRA * k * volume / n * 3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)
        enough = False
        for _ in range(MAX_TRIES):
            n_cells, cells = _half_of_cells(basis, radius + widest, cells)
            if n_cells < 0:
                break
            while not _collect(cart, n, cells, n_cells, radius, squares, number):
                squares = np.empty((most, 2 * squares.shape[1]))
                sorted_ = np.empty(squares.shape[1])
            fewest = number[0]
            for i in range(n):
                fewest = min(fewest, number[i])
            enough = fewest >= k
            if enough:
                break
            radius *= GROW
        if not enough:
            for i in range(out.shape[1]):
                for m in range(k):
                    out[c, i, m] = np.nan
            continue
        for i in range(n):
            if average:
                _sorted_roots(squares[i], number[i], k, radius, bins, sorted_, row)
                for m in range(k):
                    out[c, 0, m] += row[m] / n
            else:
                _sorted_roots(squares[i], number[i], k, radius, bins, sorted_, out[c, i])


# ---- earth mover's distance between pointwise distances


@jit
def _cheapest_paths(cost, n, m, start, u, v, flow, left, least, done, row_at, parent_row,
                    parent_column):  # fmt: skip
    """Dijkstra from one pile to the nearest place with room; returns the place.

    u, v are potentials, least and row_at the distances of places and piles, and
    the parents lead back.
    """
    for j in range(m):
        least[j], done[j] = np.inf, False
    for i in range(n):
        row_at[i] = UNREACHED
    row_at[start] = 0.0
    for j in range(m):
        least[j] = cost[start, j] - u[start] - v[j]
        parent_row[j] = start
    while True:
        end = -1
        for j in range(m):
            if not done[j] and (end < 0 or least[j] < least[end]):
                end = j
        done[end] = True
        if left[end] > 0:
            break
        for i in range(n):  # what lies there already may be moved on
            if row_at[i] != UNREACHED or flow[i, end] == 0:
                continue
            row_at[i] = least[end]
            parent_column[i] = end
            for j in range(m):
                through = least[end] + cost[i, j] - u[i] - v[j]
                if not done[j] and through < least[j]:
                    least[j] = through
                    parent_row[j] = i
    for i in range(n):
        if row_at[i] != UNREACHED:
            u[i] += least[end] - row_at[i]
    for j in range(m):
        if done[j]:
            v[j] -= least[end] - least[j]
    return end


@jit
def transport(cost, n, m):
    """Least mean cost of moving n equal piles onto m equal places.

    Successive shortest paths in whole numbers: each pile has m units, each place room for n.
    """
    u, v, least, row_at = np.zeros(n), np.zeros(m), np.empty(m), np.empty(n)
    done, flow = np.zeros(m, dtype=np.bool_), np.zeros((n, m), dtype=np.int64)
    left = np.full(m, n)
    parent_row, parent_column = np.zeros(m, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for start in range(n):
        supply = m
        while supply > 0:
            end = _cheapest_paths(
                cost, n, m, start, u, v, flow, left, least, done, row_at, parent_row, parent_column
            )
            amount, i = min(supply, left[end]), parent_row[end]
            while i != start:
                j = parent_column[i]
                amount = min(amount, flow[i, j])
                i = parent_row[j]
            supply -= amount
            left[end] -= amount
            i = parent_row[end]
            flow[i, end] += amount
            while i != start:
                j = parent_column[i]
                flow[i, j] -= amount
                i = parent_row[j]
                flow[i, j] += amount
    total = 0.0
    for i in range(n):
        for j in range(m):
            total += flow[i, j] * cost[i, j]
    return total / (n * m)


@entry
def transport_batch(one, n_one, other, n_other, out):
    """Earth mover's distances of pairs of pointwise distances (pairs, sites, k); NaN if empty."""
    k = one.shape[2]
    cost = np.empty((one.shape[1], other.shape[1]))
    for c in range(len(one)):
        n, m = n_one[c], n_other[c]
        if n == 0 or m == 0:
            out[c] = np.nan
            continue
        for i in range(n):
            for j in range(m):
                largest = 0.0
                for r in range(k):
                    largest = max(largest, abs(one[c, i, r] - other[c, j, r]))
                cost[i, j] = largest
        out[c] = transport(cost, n, m)
