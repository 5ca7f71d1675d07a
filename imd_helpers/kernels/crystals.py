"""Compiled loops over single crystals, for judging and decoding (no gradients)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

MAX_ROUNDS = 100  # a reduction ends long before; the cap guards against NaN


@njit(cache=True)
def _norm2(v):
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


@njit(cache=True)
def _dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@njit(cache=True)
def _swap(basis, change, i, j):
    for k in range(3):
        basis[i, k], basis[j, k] = basis[j, k], basis[i, k]
        change[i, k], change[j, k] = change[j, k], change[i, k]


@njit(cache=True)
def _sort_by_length(basis, change):
    for i in range(2):
        for j in range(2 - i):
            if _norm2(basis[j]) > _norm2(basis[j + 1]):
                _swap(basis, change, j, j + 1)


@njit(cache=True)
def _reduce_pair(basis, change):
    """Gauss reduction of the two shortest vectors."""
    for _ in range(MAX_ROUNDS):
        times = round(_dot(basis[0], basis[1]) / _norm2(basis[0]))
        for k in range(3):
            basis[1, k] -= times * basis[0, k]
            change[1, k] -= times * change[0, k]
        if _norm2(basis[1]) >= _norm2(basis[0]) * (1 - 1e-12):
            return
        _swap(basis, change, 0, 1)


@njit(cache=True)
def _reduce_third(basis, change):
    """Subtract from the third vector the lattice point of the other two closest to it."""
    g00, g11 = _norm2(basis[0]), _norm2(basis[1])
    g01 = _dot(basis[0], basis[1])
    p0, p1 = _dot(basis[0], basis[2]), _dot(basis[1], basis[2])
    det = g00 * g11 - g01 * g01
    y0 = math.floor((p0 * g11 - p1 * g01) / det)
    y1 = math.floor((p1 * g00 - p0 * g01) / det)
    best, n0, n1 = np.inf, 0.0, 0.0
    for s0 in range(-1, 3):
        for s1 in range(-1, 3):
            c0, c1 = y0 + s0, y1 + s1
            length = 0.0
            for k in range(3):
                x = basis[2, k] - c0 * basis[0, k] - c1 * basis[1, k]
                length += x * x
            if length < best:
                best, n0, n1 = length, c0, c1
    for k in range(3):
        basis[2, k] -= n0 * basis[0, k] + n1 * basis[1, k]
        change[2, k] -= n0 * change[0, k] + n1 * change[1, k]


@njit(cache=True)
def minkowski(lattice, basis, change):
    """Minkowski-reduce one lattice: basis = change @ lattice, change unimodular (in place)."""
    basis[:] = lattice
    change[:] = 0.0
    for k in range(3):
        change[k, k] = 1.0
    for _ in range(MAX_ROUNDS):
        _sort_by_length(basis, change)
        _reduce_pair(basis, change)
        _reduce_third(basis, change)
        after = _norm2(basis[2])
        if after >= _norm2(basis[1]) * (1 - 1e-12):
            return


@njit(cache=True)
def minkowski_batch(lattice):
    """(n, 3, 3) lattices -> reduced lattices and the integer changes of basis."""
    basis = np.empty_like(lattice)
    change = np.empty_like(lattice)
    for i in range(lattice.shape[0]):
        minkowski(lattice[i], basis[i], change[i])
    return basis, change


@njit(cache=True)
def _inverse_unimodular(m, out):
    """Inverse of an integer matrix of determinant +-1 by its adjugate: exact."""
    det = 0.0
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            c, d = (j + 1) % 3, (j + 2) % 3
            out[j, i] = m[a, c] * m[b, d] - m[a, d] * m[b, c]
    for j in range(3):
        det += m[0, j] * out[j, 0]
    for i in range(3):
        for j in range(3):
            out[i, j] /= det


@njit(cache=True)
def _image_vectors(basis, shifts):
    """The 27 lattice vectors with coefficients -1, 0, 1; the zero vector first."""
    m = 1
    for a in range(-1, 2):
        for b in range(-1, 2):
            for c in range(-1, 2):
                zero = a == 0 and b == 0 and c == 0
                row = 0 if zero else m
                for k in range(3):
                    shifts[row, k] = a * basis[0, k] + b * basis[1, k] + c * basis[2, k]
                if not zero:
                    m += 1


@njit(cache=True)
def _closest(basis, reduced, scale, n, shifts, own_images):
    """Smallest d_ij / (s_i + s_j) over all pairs and images."""
    best, first, second = np.inf, 0, 0
    own = math.sqrt(_norm2(basis[0]))  # the shortest lattice vector of a reduced cell
    for i in range(n):
        ratio = own / (2.0 * scale[i])
        if own_images and ratio < best:
            best, first, second = ratio, i, i
        for j in range(i + 1, n):
            fx = reduced[j, 0] - reduced[i, 0]
            fy = reduced[j, 1] - reduced[i, 1]
            fz = reduced[j, 2] - reduced[i, 2]
            fx -= np.rint(fx)
            fy -= np.rint(fy)
            fz -= np.rint(fz)
            x = fx * basis[0, 0] + fy * basis[1, 0] + fz * basis[2, 0]
            y = fx * basis[0, 1] + fy * basis[1, 1] + fz * basis[2, 1]
            z = fx * basis[0, 2] + fy * basis[1, 2] + fz * basis[2, 2]
            nearest = np.inf
            for m in range(27):
                dx = x + shifts[m, 0]
                dy = y + shifts[m, 1]
                dz = z + shifts[m, 2]
                nearest = min(nearest, dx * dx + dy * dy + dz * dz)
            limit = best * (scale[i] + scale[j])
            if nearest < limit * limit:
                best, first, second = math.sqrt(nearest) / (scale[i] + scale[j]), i, j
    return best, first, second


@njit(cache=True)
def closest_batch(lattice, frac, numbers, scale_of, own_images):
    """Scaled closest contact of each crystal of a padded batch.

    In a Minkowski-reduced cell a difference wrapped into [-1/2, 1/2] has its shortest image among
    the 27 neighbouring cells, however skewed the given cell was.
    """
    n_crystals, n_max = numbers.shape
    ratio = np.full(n_crystals, np.inf)
    pair = np.zeros((n_crystals, 2), dtype=np.int64)
    basis, change, back = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    shifts = np.empty((27, 3))
    reduced, scale = np.empty((n_max, 3)), np.empty(n_max)
    for c in range(n_crystals):
        n = 0
        while n < n_max and numbers[c, n] > 0:
            scale[n] = scale_of[numbers[c, n]]
            n += 1
        if n == 0:
            continue
        minkowski(lattice[c], basis, change)
        _inverse_unimodular(change, back)
        _image_vectors(basis, shifts)
        for i in range(n):
            for k in range(3):
                f = 0.0
                for m in range(3):
                    f += frac[c, i, m] * back[m, k]
                reduced[i, k] = f - math.floor(f)
        ratio[c], pair[c, 0], pair[c, 1] = _closest(basis, reduced, scale, n, shifts, own_images)
    return ratio, pair


@njit(cache=True)
def expand_orbits(frac, operations_r, operations_t, tolerance, out, owner):
    """Images of each orbit representative under a space group, each once.

    Args:
        frac: (orbits, 3) representatives.
        operations_r, operations_t: (n, 3, 3), (n, 3).
        tolerance: fractional distance within which two images are one site.
        out, owner: (orbits * n, 3), (orbits * n,), filled in place.

    Returns:
        How many sites were written.
    """
    written = 0
    image = np.empty(3)
    for orbit in range(frac.shape[0]):
        start = written
        for g in range(operations_r.shape[0]):
            for k in range(3):
                x = operations_t[g, k]
                for m in range(3):
                    x += operations_r[g, k, m] * frac[orbit, m]
                x -= math.floor(x)
                image[k] = 0.0 if x > 1.0 - 1e-9 else x
            known = False
            for s in range(start, written):
                largest = 0.0
                for k in range(3):
                    d = image[k] - out[s, k]
                    largest = max(largest, abs(d - np.rint(d)))
                if largest < tolerance:
                    known = True
                    break
            if not known:
                out[written] = image
                owner[written] = orbit
                written += 1
    return written
