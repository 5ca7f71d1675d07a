"""Compiled algebra of vectors and 3 x 3 matrices, which other kernels take in line."""

from __future__ import annotations

import math

from numba import njit

# Loops instead of array expressions, and no wrappers for calls from Python: a first call compiles
# everything, and a reader waits for it.
jit = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
entry = njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)


@jit
def dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@jit
def copy_matrix(m, out):
    for i in range(3):
        for k in range(3):
            out[i, k] = m[i, k]


@jit
def determinant(m):
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@jit
def invert(m, out):
    det = determinant(m)
    for i in range(3):
        a, b = (i + 1) % 3, (i + 2) % 3
        for j in range(3):
            c, d = (j + 1) % 3, (j + 2) % 3
            out[j, i] = (m[a, c] * m[b, d] - m[a, d] * m[b, c]) / det


@jit
def row_times(row, m, out):
    """Out = row @ m."""
    x, y, z = row[0], row[1], row[2]
    for k in range(3):
        out[k] = x * m[0, k] + y * m[1, k] + z * m[2, k]


@jit
def plane_densities(basis, inverse, out):
    """How many lattice planes lie in a unit of length along each axis (3,), and the inverse."""
    invert(basis, inverse)
    for k in range(3):
        out[k] = math.sqrt(inverse[0, k] ** 2 + inverse[1, k] ** 2 + inverse[2, k] ** 2)
