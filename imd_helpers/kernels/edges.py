"""Compiled loops: the edges from each site to its neighbours in the infinite crystal."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .crystals import _inverse_unimodular, minkowski

EXTRA = 1.6  # how many more points than k the first sphere should hold on average
GROW = 1.2  # how much wider the next sphere is, where a site saw too few
MAX_CELLS = 2_000_000
SAME_PLACE = 1e-6  # Å^2; two atoms nearer than 0.001 Å
FINE, BROKEN, LONELY, OVERLAP, ELONGATED = 0, 1, 2, 3, 4

jit = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
entry = njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)


@jit
def _reduced_sites(lattice, frac, n, basis, change, cart, wrapped):
    """Sites of a Minkowski-reduced cell, and the cells by which wrapping moved them."""
    back = np.empty((3, 3))
    minkowski(lattice, basis, change)
    _inverse_unimodular(change, back)
    for i in range(n):
        for k in range(3):
            x = frac[i, 0] * back[0, k] + frac[i, 1] * back[1, k] + frac[i, 2] * back[2, k]
            wrapped[i, k] = math.floor(x)
            cart[i, k] = x - wrapped[i, k]
        x, y, z = cart[i, 0], cart[i, 1], cart[i, 2]
        for k in range(3):
            cart[i, k] = x * basis[0, k] + y * basis[1, k] + z * basis[2, k]
    widest = 0.0
    for i in range(n):
        for j in range(i):
            x, y, z = cart[i, 0] - cart[j, 0], cart[i, 1] - cart[j, 1], cart[i, 2] - cart[j, 2]
            widest = max(widest, x * x + y * y + z * z)
    return math.sqrt(widest)


@jit
def _volume(basis):
    return abs(
        basis[0, 0] * (basis[1, 1] * basis[2, 2] - basis[1, 2] * basis[2, 1])
        - basis[0, 1] * (basis[1, 0] * basis[2, 2] - basis[1, 2] * basis[2, 0])
        + basis[0, 2] * (basis[1, 0] * basis[2, 1] - basis[1, 1] * basis[2, 0])
    )


@jit
def _cells_within(basis, radius, cells):
    """Integer lattice vectors no longer than radius; the number is -1 if there are too many."""
    volume, most, box = _volume(basis), np.empty(3, dtype=np.int64), 1.0
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        x = basis[i, 1] * basis[j, 2] - basis[i, 2] * basis[j, 1]
        y = basis[i, 2] * basis[j, 0] - basis[i, 0] * basis[j, 2]
        z = basis[i, 0] * basis[j, 1] - basis[i, 1] * basis[j, 0]
        reach = radius * math.sqrt(x * x + y * y + z * z) / volume  # spacing of lattice planes
        box *= 2 * reach + 1
        most[k] = math.floor(min(reach, 1e6))
    if not box < MAX_CELLS:
        return -1, cells
    n = 0
    for a in range(-most[0], most[0] + 1):
        for b in range(-most[1], most[1] + 1):
            for c in range(-most[2], most[2] + 1):
                x = a * basis[0, 0] + b * basis[1, 0] + c * basis[2, 0]
                y = a * basis[0, 1] + b * basis[1, 1] + c * basis[2, 1]
                z = a * basis[0, 2] + b * basis[1, 2] + c * basis[2, 2]
                if x * x + y * y + z * z > radius * radius:
                    continue
                if n == len(cells):
                    longer = np.empty((2 * n, 3), dtype=np.int64)
                    longer[:n] = cells
                    cells = longer
                cells[n, 0], cells[n, 1], cells[n, 2] = a, b, c
                n += 1
    return n, cells


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
def _first_radius(volume, k, tie, cutoff):
    """A sphere that holds somewhat more than k sites on average, each with its volume."""
    if k == 0:
        return cutoff
    return min(cutoff, (EXTRA * k * volume * 3.0 / (4.0 * math.pi)) ** (1.0 / 3.0) + tie)


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
    cells = np.empty((64, 3), dtype=np.int64)
    squares, to, cell = _room(512)
    guess = max(64, n_sites.sum() * (k + 4))
    edges, distance = np.empty((guess, 5), dtype=np.int64), np.empty(guess)
    number, total = np.zeros(len(lattice), dtype=np.int64), 0
    for c in range(len(lattice)):
        n, begin = n_sites[c], total
        status[c] = BROKEN if n == 0 else FINE
        if n == 0:
            continue
        widest = _reduced_sites(lattice[c], frac[c], n, basis, change, cart, wrapped)
        radius = _first_radius(_volume(basis) / n, k, tie, cutoff)
        n_cells, cells = _cells_within(basis, radius + widest, cells)
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
                n_cells, cells = _cells_within(basis, radius + widest, cells)
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
