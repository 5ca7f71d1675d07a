"""Compiled loops: the edges from each site to its neighbours in the infinite crystal."""

from __future__ import annotations

import math

import numpy as np

from .border import border
from .crystals import half_of_cells, reduced_sites
from .linear import determinant, entry, jit

EXTRA = 1.6  # how many more points than k the first sphere should hold on average
GROW = 1.2  # how much wider the next sphere is, where a site saw too few
SAME_PLACE = 1e-6  # Å^2; two atoms nearer than 0.001 Å
FINE, BROKEN, LONELY, OVERLAP, ELONGATED = 0, 1, 2, 3, 4


@jit
def _cells_within(basis, radius, half):
    """Integer lattice vectors no longer than radius; the number is -1 if there are too many."""
    n, half = half_of_cells(basis, radius, half)
    cells = np.zeros((max(2 * n + 1, 0), 3), dtype=np.int64)
    for m in range(n):
        for k in range(3):
            cells[n + 1 + m, k], cells[n - 1 - m, k] = half[m, k], -half[m, k]
    return n if n < 0 else len(cells), cells, half


@jit
def _around(i, n, cart, basis, cells, n_cells, radius, squares, to, cell):
    """Squared distances from site i, the sites and the cells; -1: no room, -2: an overlap."""
    found, limit = 0, radius * radius
    for m in range(n_cells):
        a, b, c = cells[m, 0], cells[m, 1], cells[m, 2]
        tx = a * basis[0, 0] + b * basis[1, 0] + c * basis[2, 0] - cart[i, 0]
        ty = a * basis[0, 1] + b * basis[1, 1] + c * basis[2, 1] - cart[i, 1]
        tz = a * basis[0, 2] + b * basis[1, 2] + c * basis[2, 2] - cart[i, 2]
        for j in range(n):
            x, y, z = tx + cart[j, 0], ty + cart[j, 1], tz + cart[j, 2]
            d = x * x + y * y + z * z
            if d > limit or (j == i and a == 0 and b == 0 and c == 0):
                continue
            if d < SAME_PLACE:
                return -2
            if found == len(squares):
                return -1
            squares[found], to[found], cell[found] = d, j, m
            found += 1
    return found


@jit
def _how_many(squares, order, found, k, tie, radius, cutoff):
    """How many of the ordered neighbours to keep; -1: the sphere is too small to know."""
    if k == 0:
        return found
    if found < k:
        return found if radius >= cutoff else -1
    if tie == 0.0:
        return k
    limit = math.sqrt(squares[order[k - 1]]) + tie
    if limit > radius and radius < cutoff:
        return -1
    kept = k
    while kept < found and math.sqrt(squares[order[kept]]) <= limit:
        kept += 1
    return kept


@jit
def _room(size):
    return np.empty(size), np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)


@jit
def _image(edge, cell, wrapped, change):
    """Turn a cell of the reduced lattice into one of the given lattice, edge[2:5]."""
    for k in range(3):
        x = 0.0
        for m in range(3):
            x += (cell[m] - wrapped[edge[1], m] + wrapped[edge[0], m]) * change[m, k]
        edge[2 + k] = round(x)


@jit
def _longer(edges, distance):
    more, longer = np.empty((2 * len(edges), 5), dtype=np.int64), np.empty(2 * len(distance))
    more[: len(edges)], longer[: len(distance)] = edges, distance
    return more, longer


@border(
    lattice="cell crystals 3 3",
    frac="real crystals sites 3",
    n_sites="0:sites+1 crystals",
    cutoff="0:",
    k="0:",
    tie="0:",
    status="out crystals",
)
@entry
def all_edges(lattice, frac, n_sites, cutoff, k, tie, status):
    """Edges of many crystals, centre by centre and near ones first.

    Args:
        lattice, frac, n_sites: (n, 3, 3), (n, sites, 3), (n,); n_sites 0: leave out.
        cutoff: longest edge, Å.
        k: neighbours a site; 0: all within the cutoff.
        tie: neighbours this much farther than the k-th, Å, are kept too; 0: exactly k.
        status: (n,) filled with FINE, BROKEN, LONELY, OVERLAP or ELONGATED.

    Returns:
        edges (edges, 5): centre, neighbour (sites counted within the crystal), image along a, b, c
        of the given cell; distances (edges,) Å; and the number of edges of each crystal (n,).
    """
    most = frac.shape[1]
    basis, change = np.empty((3, 3)), np.empty((3, 3))
    cart, wrapped = np.empty((most, 3)), np.empty((most, 3))
    half = np.empty((64, 3), dtype=np.int64)
    squares, to, cell = _room(512)
    guess = max(64, n_sites.sum() * (k + 4))
    edges, distance = np.empty((guess, 5), dtype=np.int64), np.empty(guess)
    number, total = np.zeros(len(lattice), dtype=np.int64), 0
    for c in range(len(lattice)):
        n, begin = n_sites[c], total
        status[c] = BROKEN if n == 0 else FINE
        if n == 0:
            continue
        widest = reduced_sites(lattice[c], frac[c], n, basis, change, cart, wrapped)
        radius = cutoff
        if k > 0:  # a sphere that holds somewhat more than k sites on average
            volume = EXTRA * k * abs(determinant(basis)) / n
            radius = min(cutoff, (volume * 3.0 / (4.0 * math.pi)) ** (1.0 / 3.0) + tie)
        n_cells, cells, half = _cells_within(basis, radius + widest, half)
        i = 0
        while i < n:
            if n_cells < 0:
                status[c] = ELONGATED
                break
            found = _around(i, n, cart, basis, cells, n_cells, radius, squares, to, cell)
            if found == -1:
                squares, to, cell = _room(2 * len(squares))
                continue
            if found == -2:
                status[c] = OVERLAP
                break
            order = np.argsort(squares[:found], kind="mergesort")
            kept = _how_many(squares, order, found, k, tie, radius, cutoff)
            if kept < 0:
                radius = min(cutoff, GROW * radius)
                n_cells, cells, half = _cells_within(basis, radius + widest, half)
                continue
            if kept == 0:
                status[c] = LONELY
                break
            while total + kept > len(edges):
                edges, distance = _longer(edges, distance)
            for e in range(kept):
                at = order[e]
                edges[total, 0], edges[total, 1] = i, to[at]
                distance[total] = math.sqrt(squares[at])
                _image(edges[total], cells[cell[at]], wrapped, change)
                total += 1
            i += 1
        if status[c] != FINE:
            total = begin
        number[c] = total - begin
    return edges[:total], distance[:total], number
