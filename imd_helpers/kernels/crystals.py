"""Compiled loops over single crystals, for judging and decoding (no gradients)."""

from __future__ import annotations

import math

import numpy as np

from .border import border
from .linear import dot, entry, invert, jit, plane_densities, row_times

MAX_ROUNDS = 100  # a reduction ends long before; the cap guards against NaN
MAX_CELLS = 2_000_000  # that are looked at around one site


@jit
def _swap(basis, change, i, j):
    for k in range(3):
        basis[i, k], basis[j, k] = basis[j, k], basis[i, k]
        change[i, k], change[j, k] = change[j, k], change[i, k]


@jit
def _sort_by_length(basis, change):
    for i in range(2):
        for j in range(2 - i):
            if dot(basis[j], basis[j]) > dot(basis[j + 1], basis[j + 1]):
                _swap(basis, change, j, j + 1)


@jit
def _reduce_pair(basis, change):
    """Gauss reduction of the two shortest vectors."""
    for _ in range(MAX_ROUNDS):
        times = np.rint(dot(basis[0], basis[1]) / dot(basis[0], basis[0]))
        for k in range(3):
            basis[1, k] -= times * basis[0, k]
            change[1, k] -= times * change[0, k]
        if dot(basis[1], basis[1]) >= dot(basis[0], basis[0]) * (1 - 1e-12):
            return
        _swap(basis, change, 0, 1)


@jit
def _reduce_third(basis, change):
    """Subtract from the third vector the lattice point of the other two closest to it."""
    g00, g11 = dot(basis[0], basis[0]), dot(basis[1], basis[1])
    g01 = dot(basis[0], basis[1])
    p0, p1 = dot(basis[0], basis[2]), dot(basis[1], basis[2])
    det = g00 * g11 - g01 * g01
    y0 = np.floor((p0 * g11 - p1 * g01) / det)
    y1 = np.floor((p1 * g00 - p0 * g01) / det)
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


@jit
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
        after = dot(basis[2], basis[2])
        if after >= dot(basis[1], basis[1]) * (1 - 1e-12):
            return


@border(lattice="cell crystals 3 3")
@entry
def minkowski_batch(lattice):
    """(n, 3, 3) lattices -> reduced lattices and the integer changes of basis."""
    basis = np.empty_like(lattice)
    change = np.empty_like(lattice)
    for i in range(lattice.shape[0]):
        minkowski(lattice[i], basis[i], change[i])
    return basis, change


@jit
def reduced_sites(lattice, frac, n, basis, change, cart, wrapped):
    """Sites in a Minkowski-reduced cell, so that a sphere meets few cells.

    Args:
        lattice, frac, n: (3, 3), (sites, 3), and how many sites there are.
        basis, change: (3, 3), filled as by `minkowski`.
        cart: (sites, 3) filled, Cartesian.
        wrapped: (sites, 3) filled: the cells by which wrapping moved the sites.

    Returns:
        The longest difference of two sites.
    """
    back = np.empty((3, 3))
    minkowski(lattice, basis, change)
    invert(change, back)
    for i in range(n):
        for k in range(3):
            x = frac[i, 0] * back[0, k] + frac[i, 1] * back[1, k] + frac[i, 2] * back[2, k]
            wrapped[i, k] = math.floor(x)
            cart[i, k] = x - wrapped[i, k]
        row_times(cart[i], basis, cart[i])
    widest = 0.0
    for i in range(n):
        for j in range(i):
            x, y, z = cart[i, 0] - cart[j, 0], cart[i, 1] - cart[j, 1], cart[i, 2] - cart[j, 2]
            widest = max(widest, x * x + y * y + z * z)
    return math.sqrt(widest)


@jit
def half_of_cells(basis, radius, cells):
    """Lattice vectors within a radius in whole numbers: one of each pair T, -T, and not 0.

    Returns:
        How many there are, -1 if too many, and (at least as many, 3) int64: the given room or more.
    """
    box, most = 1.0, np.empty(3, dtype=np.int64)
    inverse, planes = np.empty((3, 3)), np.empty(3)
    plane_densities(basis, inverse, planes)
    for k in range(3):
        reach = radius * planes[k]
        box *= 2 * reach + 1
        most[k] = math.floor(min(reach + 1e-8, 1e6))
    if not box < MAX_CELLS:
        return -1, cells
    n = 0
    for a in range(most[0] + 1):
        for b in range(-most[1] if a > 0 else 0, most[1] + 1):
            for c in range(-most[2] if a > 0 or b > 0 else 1, most[2] + 1):
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
def image_vectors(basis, shifts):
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


@jit
def _closest(basis, reduced, scale, n, shifts, own_images, back, planes):
    """Smallest d_ij / (s_i + s_j) over all pairs and images.

    The lattice planes between two sites say of most pairs that they are no closer than others.
    """
    best, first, second = np.inf, 0, 0
    plane_densities(basis, back, planes)
    rx, ry, rz = planes[0], planes[1], planes[2]
    own = math.sqrt(dot(basis[0], basis[0]))  # the shortest lattice vector of a reduced cell
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
            limit = best * (scale[i] + scale[j])
            if abs(fx) > limit * rx or abs(fy) > limit * ry or abs(fz) > limit * rz:
                continue
            x = fx * basis[0, 0] + fy * basis[1, 0] + fz * basis[2, 0]
            y = fx * basis[0, 1] + fy * basis[1, 1] + fz * basis[2, 1]
            z = fx * basis[0, 2] + fy * basis[1, 2] + fz * basis[2, 2]
            nearest = np.inf
            for m in range(27):
                dx = x + shifts[m, 0]
                dy = y + shifts[m, 1]
                dz = z + shifts[m, 2]
                nearest = min(nearest, dx * dx + dy * dy + dz * dz)
            if nearest < limit * limit:
                best, first, second = math.sqrt(nearest) / (scale[i] + scale[j]), i, j
    return best, first, second


@border(
    lattice="cell crystals 3 3",
    frac="real crystals sites 3",
    numbers="0:119 crystals sites",
    scale_of="real 119",
    own_images="bool",
)
@entry
def closest_batch(lattice, frac, numbers, scale_of, own_images):
    """Scaled closest contact of each crystal of a padded batch.

    In a Minkowski-reduced cell a difference wrapped into [-1/2, 1/2] has its shortest image among
    the 27 neighbouring cells, however skewed the given cell was.
    """
    n_crystals, n_max = numbers.shape
    ratio = np.full(n_crystals, np.inf)
    pair = np.zeros((n_crystals, 2), dtype=np.int64)
    basis, change, back = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    shifts, planes = np.empty((27, 3)), np.empty(3)
    reduced, scale = np.empty((n_max, 3)), np.empty(n_max)
    for c in range(n_crystals):
        n = 0
        while n < n_max and numbers[c, n] > 0:
            scale[n] = scale_of[numbers[c, n]]
            n += 1
        if n == 0:
            continue
        minkowski(lattice[c], basis, change)
        invert(change, back)  # whole numbers of determinant 1 or -1: exact
        image_vectors(basis, shifts)
        for i in range(n):
            row_times(frac[c, i], back, reduced[i])
            for k in range(3):
                reduced[i, k] -= math.floor(reduced[i, k])
        ratio[c], pair[c, 0], pair[c, 1] = _closest(
            basis, reduced, scale, n, shifts, own_images, back, planes
        )
    return ratio, pair


@border(
    frac="real orbits 3",
    operations_r="real operations 3 3",
    operations_t="real operations 3",
    tolerance="0:",
    out="out orbits*operations 3",
    owner="out orbits*operations",
)
@entry
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
