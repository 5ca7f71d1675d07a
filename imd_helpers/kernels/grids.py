"""Compiled loops: sums over pairs of a grid point and an atom, all periodic images included."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .border import border

LENNARD_JONES, GAUSSIAN = 0, 1


@border(
    lattice="cell 3 3",
    frac="real atoms 3",
    n="1:",
    cutoff="0:",
    kind="0:2",
    epsilon="real",
    sigma="real",
    out="out n n n",
)
@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"}, no_cfunc_wrapper=True)
def add_pairs(lattice, frac, n, cutoff, kind, epsilon, sigma, out):
    """Add a function of distance from each atom to each point within the cutoff.

    Seen from an atom, the points within a sphere are a window of whole numbers, and taking them
    modulo n folds in every image; so no list of neighbours is needed and no pair counts twice.

    Args:
        lattice, frac: (3, 3) Å and (atoms, 3).
        n: points along each edge, at fractional i / n.
        cutoff: Å.
        kind: 0 for 4 epsilon ((sigma / r)^12 - (sigma / r)^6), 1 for exp(-r^2).
        epsilon, sigma: K and Å.
        out: (n, n, n), added to.
    """
    metric = lattice @ lattice.T / (n * n)
    inverse = np.linalg.inv(metric)
    limit = cutoff * cutoff
    reach = cutoff * math.sqrt(inverse[0, 0])
    # along the last axis the sphere is an interval, found by solving a quadratic
    m00, m11, m22 = metric[0, 0], metric[1, 1], metric[2, 2]
    m01, m02, m12 = metric[0, 1], metric[0, 2], metric[1, 2]
    reach_1 = cutoff * math.sqrt(inverse[1, 1])
    for atom in range(len(frac)):
        u, v, w = frac[atom, 0] * n, frac[atom, 1] * n, frac[atom, 2] * n
        for i in range(math.ceil(u - reach), math.floor(u + reach) + 1):
            x = i - u
            for j in range(math.ceil(v - reach_1), math.floor(v + reach_1) + 1):
                y = j - v
                square = m00 * x * x + 2 * m01 * x * y + m11 * y * y
                half = (m02 * x + m12 * y) / m22
                inside = half * half - (square - limit) / m22
                if inside < 0:
                    continue
                width = math.sqrt(inside)
                row = out[i % n, j % n]
                for k in range(math.ceil(w - half - width), math.floor(w - half + width) + 1):
                    z = k - w
                    r2 = square + m22 * z * (z + 2 * half)
                    if kind == LENNARD_JONES:
                        ratio = sigma * sigma / max(r2, 1e-12)
                        sixth = ratio * ratio * ratio
                        row[k % n] += 4 * epsilon * sixth * (sixth - 1)
                    else:
                        row[k % n] += math.exp(-r2)
