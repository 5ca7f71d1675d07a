"""Compiled loops: distances from each site to its nearest neighbours in the infinite crystal."""

from __future__ import annotations

import math

import numpy as np

from .border import border
from .crystals import half_of_cells, reduced_sites
from .linear import determinant, entry, jit, row_times

EXTRA = 1.35  # how many more points than k the first sphere should hold on average
GROW = 1.15  # how much wider the next sphere is, where a site saw too few
MAX_TRIES = 40


@jit
def _half_of_vectors(basis, radius, cells):
    """Lattice vectors within a radius, one of each pair T, -T and without 0; -1: too many."""
    n, cells = half_of_cells(basis, radius, cells)
    vectors = np.empty((max(n, 0), 3))
    for m in range(n):
        row_times(cells[m], basis, vectors[m])
    return n, vectors, cells


@jit
def _note(squares, number, i, j, d):
    """Write a squared distance down for both of its sites."""
    squares[i, number[i]] = d
    number[i] += 1
    squares[j, number[j]] = d
    number[j] += 1


@jit
def _collect(cart, n, vectors, n_cells, radius, squares, number):
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
                    _note(squares, number, i, j, d)
            for m in range(n_cells):
                tx, ty, tz = vectors[m, 0], vectors[m, 1], vectors[m, 2]
                d = (x + tx) ** 2 + (y + ty) ** 2 + (z + tz) ** 2
                if d < limit:  # from i to the image of j, and from j to an image of i
                    _note(squares, number, i, j, d)
                if j > i:
                    d = (x - tx) ** 2 + (y - ty) ** 2 + (z - tz) ** 2
                    if d < limit:
                        _note(squares, number, i, j, d)
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


@border(
    lattice="cell crystals 3 3",
    frac="real crystals sites 3",
    n_sites="0:sites+1 crystals",
    k="1:",
    out="out crystals k",
)
@entry
def mean_nearest(lattice, frac, n_sites, k, out):
    """Distances to the k nearest neighbours, averaged over the sites.

    Args:
        lattice, frac, n_sites: (n, 3, 3), (n, sites, 3), (n,); n_sites 0: leave out.
        k: how many neighbours.
        out: (n, k), filled; NaN where there are too many cells, or nothing to measure.
    """
    most = frac.shape[1]
    basis, change = np.empty((3, 3)), np.empty((3, 3))
    cart, wrapped = np.empty((most, 3)), np.empty((most, 3))
    cells, number = np.empty((64, 3), dtype=np.int64), np.empty(most, dtype=np.int64)
    squares, sorted_ = np.empty((most, 4 * k + 256)), np.empty(4 * k + 256)
    bins, row = np.empty(k + 1, dtype=np.int64), np.empty(k)
    for c in range(len(lattice)):
        n, enough = n_sites[c], False
        for m in range(k):
            out[c, m] = np.nan
        if n == 0:
            continue
        widest = reduced_sites(lattice[c], frac[c], n, basis, change, cart, wrapped)
        volume = abs(determinant(basis))
        radius = (EXTRA * k * volume / n * 3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)
        for _ in range(MAX_TRIES):
            n_cells, vectors, cells = _half_of_vectors(basis, radius + widest, cells)
            if n_cells < 0:
                break
            while not _collect(cart, n, vectors, n_cells, radius, squares, number):
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
            continue
        for i in range(n):
            _sorted_roots(squares[i], number[i], k, radius, bins, sorted_, row)
            for m in range(k):
                out[c, m] = row[m] / n if i == 0 else out[c, m] + row[m] / n
