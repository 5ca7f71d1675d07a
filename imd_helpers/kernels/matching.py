"""Compiled loops of the structure matcher: cells reduced once, pairs compared by the million.

The semantics are those of pymatgen's StructureMatcher (Ong et al., Comput. Mater. Sci. 68 (2013)
314); the code is this package's own. Lattice reduction: Lenstra, Lenstra & Lovász, Math. Ann. 261
(1982) 515; Grosse-Kunstleve, Sauter & Adams, Acta Cryst. A60 (2004) 1. Assignment: Jonker &
Volgenant, Computing 38 (1987) 325.

Atoms, fractional (n, 3), stand in groups of equal elements: ``bounds`` holds where the groups
start, ``groups`` how many there are.
"""

from __future__ import annotations

import math

import numpy as np

from .border import border
from .crystals import half_of_cells, image_vectors
from .linear import (
    copy_matrix,
    determinant,
    dot,
    entry,
    invert,
    jit,
    plane_densities,
    row_times,
)

OK, TOO_LONG, TOO_LARGE = 0, 1, 2
MAX_ROUNDS = 1000  # reductions end long before; the cap guards against rounding at the edge
NIGGLI_ROUNDS = 100
NIGGLI_TOL = 1e-5  # of the edge of a cube of the cell's volume
PRIMITIVE_TOL = 0.25  # Å, along each axis, that repeated atoms may lie apart
MAX_POINTS = 2_000_000  # lattice points looked at for one cell; real crystals need hundreds
MAX_SITES = 1000
FAR = 1e20
TURN, MASK, ROUNDING = 2.0**32, 2**32 - 1, 8  # coordinates in whole numbers

# ---- lattices


@jit
def _orthogonalise(basis, star, mu, norm):
    copy_matrix(basis, star)
    for i in range(3):
        for j in range(i):
            mu[i, j] = dot(basis[i], star[j]) / norm[j]
            for k in range(3):
                star[i, k] -= mu[i, j] * star[j, k]
        norm[i] = dot(star[i], star[i])


@jit
def lll(lattice, basis, change):
    """LLL reduction with delta = 3/4: basis = change @ lattice (in place)."""
    star, mu, norm = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    copy_matrix(lattice, basis)
    for i in range(3):
        for k in range(3):
            change[i, k] = 1.0 if i == k else 0.0
    _orthogonalise(basis, star, mu, norm)
    k = 1
    for _ in range(MAX_ROUNDS):
        if k > 2:
            return
        for i in range(k - 1, -1, -1):
            times = np.rint(mu[k, i])
            if times != 0.0:
                for m in range(3):
                    basis[k, m] -= times * basis[i, m]
                    change[k, m] -= times * change[i, m]
                for j in range(i):
                    mu[k, j] -= times * mu[i, j]
                mu[k, i] -= times
        if norm[k] >= (0.75 - mu[k, k - 1] ** 2) * norm[k - 1]:
            k += 1
            continue
        for m in range(3):
            basis[k, m], basis[k - 1, m] = basis[k - 1, m], basis[k, m]
            change[k, m], change[k - 1, m] = change[k - 1, m], change[k, m]
        _orthogonalise(basis, star, mu, norm)
        k = max(k - 1, 1)


@jit
def _sign(x, e):
    if abs(x) < e:
        return 0
    return 1 if x > 0 else -1


@jit
def _add_row(basis, i, times, j):
    for k in range(3):
        basis[i, k] += times * basis[j, k]


@jit
def _swap_and_flip(basis, i, j):
    """Exchange two vectors and turn all three round, which keeps the hand of the basis."""
    for k in range(3):
        basis[i, k], basis[j, k] = basis[j, k], basis[i, k]
    _scale_rows(basis, -1.0, -1.0, -1.0)


@jit
def _scale_rows(basis, i, j, k):
    for m in range(3):
        basis[0, m] *= i
        basis[1, m] *= j
        basis[2, m] *= k


@jit
def _turn(basis, xi, eta, zeta, e):
    """Steps A3 and A4: all angles acute, or none; a right angle may turn either way."""
    s1, s2, s3 = _sign(xi, e), _sign(eta, e), _sign(zeta, e)
    turned = -1 if s1 * s2 * s3 == 1 else 1
    i = -1.0 if s1 == turned else 1.0
    j = -1.0 if s2 == turned else 1.0
    k = -1.0 if s3 == turned else 1.0
    if i * j * k < 0:
        if s3 == 0:
            k = -1.0
        elif s2 == 0:
            j = -1.0
        elif s1 == 0:
            i = -1.0
    _scale_rows(basis, i, j, k)


@jit
def _too_long(product, square, other, third, e):
    """Steps A5 to A7: would the longer of two vectors be shorter less the other one?"""
    return (
        abs(product) > square + e
        or (abs(product - square) < e and other - e > 2 * third)
        or (abs(product + square) < e and other < -e)
    )


@jit
def _niggli_step(basis, e):
    """One round of steps A1 to A8; returns whether another one is needed."""
    A, B, C = dot(basis[0], basis[0]), dot(basis[1], basis[1]), dot(basis[2], basis[2])
    xi, eta = 2 * dot(basis[1], basis[2]), 2 * dot(basis[0], basis[2])
    zeta = 2 * dot(basis[0], basis[1])
    if B + e < A or (abs(A - B) < e and abs(xi) > abs(eta) + e):
        _swap_and_flip(basis, 0, 1)
        A, B, xi, eta = B, A, eta, xi
    if C + e < B or (abs(B - C) < e and abs(eta) > abs(zeta) + e):
        _swap_and_flip(basis, 1, 2)
        return True
    _turn(basis, xi, eta, zeta, e)
    xi, eta = 2 * dot(basis[1], basis[2]), 2 * dot(basis[0], basis[2])
    zeta = 2 * dot(basis[0], basis[1])
    all_sum = xi + eta + zeta + A + B
    if _too_long(xi, B, zeta, eta, e):
        _add_row(basis, 2, -1.0 if xi > 0 else 1.0, 1)
    elif _too_long(eta, A, zeta, xi, e):
        _add_row(basis, 2, -1.0 if eta > 0 else 1.0, 0)
    elif _too_long(zeta, A, eta, xi, e):
        _add_row(basis, 1, -1.0 if zeta > 0 else 1.0, 0)
    elif all_sum < -e or (abs(all_sum) < e < zeta + 2 * (A + eta)):
        _add_row(basis, 2, 1.0, 0)
        _add_row(basis, 2, 1.0, 1)
    else:
        return False
    return True


@jit
def niggli(lattice, out):
    """A right-handed Niggli-reduced basis of the lattice (in place)."""
    lll(lattice, out, np.empty((3, 3)))
    volume = determinant(out)
    if volume < 0.0:
        _scale_rows(out, -1.0, -1.0, -1.0)
    e = NIGGLI_TOL * abs(volume) ** (1.0 / 3.0)
    for _ in range(NIGGLI_ROUNDS):
        if not _niggli_step(out, e):
            return


@jit
def _points(basis, radius):
    """About how many lattice points `lattice_vectors` looks at."""
    inverse, reach = np.empty((3, 3)), np.empty(3)
    plane_densities(basis, inverse, reach)
    size = 1.0
    for k in range(3):
        size *= 2.0 * radius * reach[k] + 1.0
    return size


@jit
def lattice_vectors(basis, radius):
    """Lattice vectors in a sphere, of each pair v, -v the one whose first coordinate is positive.

    Args:
        basis: (3, 3) any basis.
        radius: of the sphere.

    Returns:
        (n, 7): coordinates in the basis, Cartesian coordinates, length. None, if there are more
        than MAX_POINTS points to look at.
    """
    if not _points(basis, radius) < MAX_POINTS:
        return np.empty((0, 7))
    n, cells = half_of_cells(basis, radius, np.empty((64, 3), dtype=np.int64))
    found = np.empty((n, 7))
    for i in range(n):
        row = found[i]
        row[0], row[1], row[2] = cells[i, 0], cells[i, 1], cells[i, 2]
        row_times(row, basis, row[3:])
        row[6] = math.sqrt(dot(row[3:], row[3:]))
    return found


@jit
def _like(vectors, edges, factor, picked, number):
    """Which vectors are between edge / factor and edge * factor long, for each of three edges?"""
    number[0] = number[1] = number[2] = 0
    for i in range(len(vectors)):
        d = vectors[i, 6]
        for s in range(3):
            if edges[s] < d * factor and d < edges[s] * factor:
                picked[s, number[s]] = i
                number[s] += 1


@jit
def _cosine(vectors, p, q):
    """Of the angle between two `lattice_vectors`."""
    both = (
        vectors[p, 3] * vectors[q, 3]
        + vectors[p, 4] * vectors[q, 4]
        + vectors[p, 5] * vectors[q, 5]
    )
    return both / (vectors[p, 6] * vectors[q, 6])


# ---- primitive cells


@jit
def _near_any(v, points, n, tol):
    """Is v, up to lattice vectors, within tol along each axis of one of n points?"""
    for m in range(n):
        if (
            abs(v[0] - points[m, 0] - np.rint(v[0] - points[m, 0])) < tol[0]
            and abs(v[1] - points[m, 1] - np.rint(v[1] - points[m, 1])) < tol[1]
            and abs(v[2] - points[m, 2] - np.rint(v[2] - points[m, 2])) < tol[2]
        ):
            return True
    return False


@jit
def _translations(frac, bounds, groups, tol, found):
    """Vectors of the smallest group of equal atoms that map all atoms onto equal ones.

    Returns how many there are; `found` (n, 3) is filled.
    """
    smallest = 0
    for g in range(groups):
        if bounds[g + 1] - bounds[g] < bounds[smallest + 1] - bounds[smallest]:
            smallest = g
    start = bounds[smallest]
    n = bounds[smallest + 1] - start
    for i in range(n):
        for k in range(3):
            found[i, k] = frac[start + i, k] - frac[start, k]
    moved = np.empty(3)
    for g in range(groups):
        equal = frac[bounds[g] : bounds[g + 1]]
        for i in range(len(equal)):
            kept = 0
            for m in range(n):
                for k in range(3):
                    moved[k] = found[m, k] + equal[i, k]
                if _near_any(moved, equal, len(equal), tol):
                    for k in range(3):
                        found[kept, k] = found[m, k]
                    kept += 1
            n = kept
            if n <= 1:
                return n
    return n


@jit
def _fold(frac, bounds, groups, fold, det, lattice, tol, partner):
    """Which atoms fall together in the smaller cell of `fold`? False if they do not in `det`s.

    Args:
        frac, bounds, groups: the atoms.
        fold: (3, 3) integers: lattice = fold @ smaller lattice.
        det: how many smaller cells there are in one.
        lattice: the larger cell.
        tol: (3,) PRIMITIVE_TOL in fractions of its edges.
        partner: (n, n) bool, filled.
    """
    inverse, small = np.empty((3, 3)), np.empty((3, 3))
    invert(fold, inverse)
    for i in range(3):
        row_times(inverse[i], lattice, small[i])
    near = np.empty(3)
    for k in range(3):
        near[k] = PRIMITIVE_TOL / math.sqrt(dot(small[k], small[k]))
    d, f = np.empty(3), np.empty(3)
    for g in range(groups):
        for i in range(bounds[g], bounds[g + 1]):
            together = 0
            for j in range(bounds[g], bounds[g + 1]):
                apart = i == j
                for k in range(3):
                    d[k] = frac[j, k] - frac[i, k]
                    apart = apart or abs(d[k] - np.rint(d[k])) > 2 * tol[k]
                row_times(d, fold, f)
                close = apart  # neighbours in the larger cell are different atoms
                for k in range(3):
                    close = close and abs(f[k] - np.rint(f[k])) < near[k]
                partner[i, j] = close
                together += close
            if together != det:
                return False
        for i in range(bounds[g], bounds[g + 1]):  # all partners are partners of each other
            for j in range(bounds[g], bounds[g + 1]):
                if not partner[i, j]:
                    continue
                for m in range(bounds[g], bounds[g + 1]):
                    if partner[i, m] and not partner[j, m]:
                        return False
    return True


@jit
def _merge(frac, code, fold, partner):
    """Replace partners by their mean, in the coordinates of the smaller cell; atoms left."""
    n, kept = len(frac), 0
    out, out_code = np.empty((n, 3)), np.empty(n, dtype=np.int64)
    done = np.zeros(n, dtype=np.bool_)
    f = np.empty(3)
    for i in range(n):
        if done[i]:
            continue
        seen = 0
        for j in range(n):
            if code[i] != code[j] or not partner[i, j]:
                continue
            done[j] = True
            seen += 1
            row_times(frac[j], fold, f)
            for k in range(3):
                if seen == 1:
                    out[kept, k] = f[k] - math.floor(f[k])
                else:
                    step = f[k] - out[kept, k]
                    out[kept, k] += (step - np.rint(step)) / seen
        out_code[kept] = code[i]
        kept += 1
    for i in range(kept):
        code[i] = out_code[i]
        for k in range(3):
            frac[i, k] = out[i, k]
    return kept


@jit
def _sort(key, frac, code):
    """Sort atoms by key, equal ones in their order; the key becomes the old place of each."""
    order = np.argsort(key, kind="mergesort")
    old, old_code = frac.copy(), code.copy()
    for i in range(len(key)):
        key[i] = order[i]
        code[i] = old_code[order[i]]
        for k in range(3):
            frac[i, k] = old[order[i], k]


@jit
def _group(code, bounds):
    """Starts of runs of equal codes; returns how many there are and what divides all sizes."""
    groups, common = 0, 0
    bounds[0] = 0
    for i in range(1, len(code) + 1):
        if i == len(code) or code[i] != code[i - 1]:
            size = i - bounds[groups]
            groups += 1
            bounds[groups] = i
            common = math.gcd(common, size)
    return groups, common


@jit
def _smaller_cell(cell, frac, code):
    """One step towards the primitive cell, in place; returns the atoms left (0: none was found).

    The cells tried are all sublattices, in Hermite normal form, whose index divides the number of
    atoms of each element.
    """
    n = len(frac)
    _sort(code.copy(), frac, code)
    bounds = np.empty(n + 1, dtype=np.int64)
    groups, common = _group(code, bounds)
    if common == 1:
        return 0
    tol, wide = np.empty(3), np.empty(3)
    for k in range(3):
        tol[k] = PRIMITIVE_TOL / math.sqrt(dot(cell[k], cell[k]))
        wide[k] = 2 * tol[k]
    vectors = np.empty((n, 3))
    n_vectors = _translations(frac, bounds, groups, wide, vectors)
    partner = np.empty((n, n), dtype=np.bool_)
    fold, inverse, small = np.zeros((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    for det in range(2, common + 1):
        for p in range(1, det + 1):
            for q in range(1, det // p + 1):
                if common % det or det % (p * q):
                    continue
                fold[0, 0], fold[1, 1], fold[2, 2] = p, q, det // (p * q)
                for m in range(p * p * q):
                    fold[0, 1], fold[0, 2], fold[1, 2] = m // (p * q), m // q % p, m % q
                    invert(fold, inverse)
                    if not (
                        _near_any(inverse[0], vectors, n_vectors, tol)
                        and _near_any(inverse[1], vectors, n_vectors, tol)
                        and _near_any(inverse[2], vectors, n_vectors, tol)
                    ):
                        continue
                    if _fold(frac, bounds, groups, fold, det, cell, tol, partner):
                        for i in range(3):
                            row_times(inverse[i], cell, small[i])
                        copy_matrix(small, cell)
                        return _merge(frac, code, fold, partner)
    return 0


@jit
def _change_basis(frac, lattice, basis):
    """Fractional coordinates in another basis of the same lattice, in [0, 1); in place."""
    inverse, change = np.empty((3, 3)), np.empty((3, 3))
    invert(basis, inverse)
    for i in range(3):
        row_times(lattice[i], inverse, change[i])
    for i in range(len(frac)):
        row_times(frac[i], change, frac[i])
        for k in range(3):
            frac[i, k] -= math.floor(frac[i, k])


@jit
def _reduce(lattice, frac, code, primitive, out):
    """Niggli cell, then the primitive one in its Niggli form; sites are changed in place.

    Returns:
        A status, and how many sites are left.
    """
    n = len(frac)
    if n > MAX_SITES:
        return TOO_LARGE, n
    niggli(lattice, out)
    _change_basis(frac, lattice, out)
    cell, less = np.empty((3, 3)), n
    copy_matrix(out, cell)
    while primitive and less > 0:
        n = less
        less = _smaller_cell(cell, frac[:n], code[:n])
    if n < len(frac):
        niggli(cell, out)
        _change_basis(frac[:n], cell, out)
    longest = math.sqrt(max(dot(out[0], out[0]), dot(out[1], out[1]), dot(out[2], out[2])))
    return OK if _points(out, longest) < MAX_POINTS / 5 else TOO_LONG, n


@border(
    lattice="cell crystals 3 3",
    frac="real sites 3",
    code="0:128 sites",
    start="0:sites+1 crystals+1",
    primitive="bool",
    scale="bool",
    cells="out crystals 3 3",
    parameters="out crystals 6",
    status="out crystals",
    n_sites="out crystals",
    anchor="out crystals",
)
@entry
def reduce_batch(lattice, frac, code, start, primitive, scale, cells, parameters, status, n_sites,
                 anchor):  # fmt: skip
    """Reduce many crystals; sites of one element lie together afterwards, rarest element first.

    Args:
        lattice: (n, 3, 3).
        frac, code: (sites, 3) and (sites,), changed in place; a crystal with fewer sites than
            before uses the first of its places. Codes sort as the symbols of the elements do.
        start: (n + 1,) where each crystal's sites start.
        primitive: look for a primitive cell?
        scale: scale to one unit of volume an atom?
        cells, parameters: (n, 3, 3) and (n, 6), filled: the reduced cells, edges and angles.
        status, n_sites: (n,) filled.
        anchor: (n,) filled: the site that translations start from, the first in the matcher's
            order of the rarest element.
    """
    count = np.zeros(128, dtype=np.int64)
    for c in range(len(lattice)):
        x, z = frac[start[c] : start[c + 1]], code[start[c] : start[c + 1]]
        if len(x) == 0:
            continue  # a broken crystal, of which nothing was given
        given, given_code = x.copy(), z.copy()
        status[c], n = _reduce(lattice[c], x, z, primitive, cells[c])
        if status[c] != OK:
            continue
        if n == len(given):  # the order of sites is the given one if nothing was merged
            for i in range(n):
                z[i] = given_code[i]
                for k in range(3):
                    x[i, k] = given[i, k]
            _change_basis(x, lattice[c], cells[c])
        n_sites[c] = n
        anchor[c] = _rarest_first(x[:n], z[:n], count)
        if scale:
            size = (n / abs(determinant(cells[c]))) ** (1.0 / 3.0)
            for i in range(3):
                for k in range(3):
                    cells[c, i, k] *= size
        for k in range(3):
            parameters[c, k] = math.sqrt(dot(cells[c, k], cells[c, k]))
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            edges = parameters[c, i] * parameters[c, j]
            cosine = dot(cells[c, i], cells[c, j]) / edges
            parameters[c, 3 + k] = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


@jit
def _rarest_first(frac, code, count):
    """Sort sites by how many of their element there are; returns where the anchor goes."""
    n = len(code)
    for i in range(n):
        count[code[i]] += 1
    key, rarest = np.empty(n, dtype=np.int64), 0
    for i in range(n):
        key[i] = count[code[i]] * 128 + code[i]
        if count[code[i]] < count[code[rarest]]:
            rarest = i
    for i in range(n):
        count[code[i]] = 0
    _sort(key, frac, code)
    anchor = 0
    while key[anchor] != rarest:
        anchor += 1
    return anchor


# ---- matching


@jit
def _half_way(one, two):
    """Cosine of the mean of two angles, from their cosines."""
    return 0.5 * (
        math.sqrt((1.0 + one) * (1.0 + two)) - math.sqrt(max(0.0, (1.0 - one) * (1.0 - two)))
    )


@jit
def _average_cell(a, b, c, ca, cb, cg, edges, cosines, out):
    """The lattice whose edges and angles are the means of two; returns its volume."""
    a, b, c = 0.5 * (a + edges[0]), 0.5 * (b + edges[1]), 0.5 * (c + edges[2])
    ca, cb, cg = _half_way(ca, cosines[0]), _half_way(cb, cosines[1]), _half_way(cg, cosines[2])
    sg = math.sqrt(1.0 - cg * cg)
    y = (ca - cb * cg) / sg
    z2 = 1.0 - cb * cb - y * y
    if not z2 > 1e-12:
        return 0.0
    out[0, 0], out[0, 1], out[0, 2] = a, 0.0, 0.0
    out[1, 0], out[1, 1], out[1, 2] = b * cg, b * sg, 0.0
    out[2, 0], out[2, 1], out[2, 2] = c * cb, c * y, c * math.sqrt(z2)
    return out[0, 0] * out[1, 1] * out[2, 2]


@jit
def _turns(frac, first, last, out):
    """Coordinates in whole numbers of 2^-32, so that differences lose their whole cells by a mask."""
    for i in range(first, last):
        for k in range(3):
            out[i, k] = np.int64((frac[i, k] - math.floor(frac[i, k])) * TURN)


@jit
def _covered(one, two, i, anchor, hand, first, last, tol):
    """Has each site of a group of two, shifted, one of one within tol along each axis?

    In whole numbers, see `_turns`: quick, and only ever wrong by saying yes. The shift brings site anchor of two onto site i of one; hand -1 turns all of one round.
    """
    for s in range(first, last):
        x, y, z = two[s, 0] - two[anchor, 0], two[s, 1] - two[anchor, 1], two[s, 2] - two[anchor, 2]
        x, y, z = x + hand * one[i, 0], y + hand * one[i, 1], z + hand * one[i, 2]
        near = False
        for j in range(first, last):
            near = (
                ((x - hand * one[j, 0] + tol[0]) & MASK) <= 2 * tol[0]
                and ((y - hand * one[j, 1] + tol[1]) & MASK) <= 2 * tol[1]
                and ((z - hand * one[j, 2] + tol[2]) & MASK) <= 2 * tol[2]
            )
            if near:
                break
        if not near:
            return False
    return True


@jit
def assign(cost, n, column, work):
    """Cheapest assignment of n rows to n columns; False if none avoids costs of FAR.

    Args:
        cost: (at least n, at least n).
        column: (n,) the column of each row, filled.
        work: (6, at least n) scratch.
    """
    row_of, u, v, least, before, used = work[0], work[1], work[2], work[3], work[4], work[5]
    for j in range(n):
        row_of[j] = -1.0
        v[j] = 0.0
    free = 0
    for i in range(n):  # each row's own nearest: the answer, if all differ
        best = 0
        for j in range(1, n):
            if cost[i, j] < cost[i, best]:
                best = j
        if cost[i, best] >= FAR:
            return False
        u[i] = cost[i, best]
        column[i] = -1
        if row_of[best] < 0:
            row_of[best] = i
            column[i] = best
        else:
            free += 1
    if free == 0:
        return True
    for start in range(n):
        if column[start] >= 0:
            continue
        for j in range(n):
            least[j] = np.inf
            used[j] = 0.0
        i, end, reached = start, -1, 0.0
        while end < 0:
            nearest = -1
            for j in range(n):
                if used[j] != 0.0:
                    continue
                through = reached + cost[i, j] - u[i] - v[j]
                if through < least[j]:
                    least[j] = through
                    before[j] = i
                if nearest < 0 or least[j] < least[nearest]:
                    nearest = j
            reached = least[nearest]
            if not reached < FAR / 2:
                return False
            used[nearest] = 1.0
            if row_of[nearest] < 0:
                end = nearest
            else:
                i = int(row_of[nearest])
        u[start] += reached
        for j in range(n):
            if used[j] != 0.0 and j != end:
                u[int(row_of[j])] += reached - least[j]
                v[j] -= reached - least[j]
        i = -1
        while i != start:
            i = int(before[end])
            row_of[end] = i
            end, column[i] = column[i], end
    return True


@jit
def _images(basis, out):
    """27 neighbouring lattice vectors, and the square of half the shortest one."""
    image_vectors(basis, out)
    shortest = np.inf
    for m in range(1, 27):  # the first is 0
        shortest = min(shortest, dot(out[m], out[m]))
    return shortest / 4.0


@jit
def _shortest(f, basis, images, half, out):
    """Shortest of the vectors f + lattice, f within half a cell; returns its square."""
    row_times(f, basis, out)
    shortest = dot(out, out)
    if shortest <= half:
        return shortest
    x0, y0, z0 = out[0], out[1], out[2]
    for m in range(1, 27):
        x, y, z = x0 + images[m, 0], y0 + images[m, 1], z0 + images[m, 2]
        length = x * x + y * y + z * z
        if length < shortest:
            shortest = length
            out[0], out[1], out[2] = x, y, z
    return shortest


@jit
def _squared_distance(one, two):
    x, y, z = one[0] - two[0], one[1] - two[1], one[2] - two[2]
    return x * x + y * y + z * z


@jit
def _displacement(one, two, shift, bounds, groups, basis, to_basis, near, images, half, limit,
                  tables):  # fmt: skip
    """Largest displacement of sites after the best common shift; FAR where there is no mapping.

    Args:
        one, two: (n, 3) sites, fractional in the averaged cell.
        shift: (3,) added to two.
        bounds, groups: of both.
        basis, to_basis: LLL-reduced averaged cell, and the change of coordinates to it.
        near: (3,) how far sites may be apart along the axes of the reduced cell.
        images, half: of `_images`.
        limit: displacements of a match are below it, in the units of the cell.
        tables: scratch.
    """
    cost, vectors, chosen, column, work = tables
    d, f = np.empty(3), np.empty(3)
    wide = 4.0 * limit * limit * (1.0 + 1e-9)  # all displacements lie within one sphere
    for g in range(groups):
        first, size = bounds[g], bounds[g + 1] - bounds[g]
        for i in range(size):
            possible = False
            for j in range(size):
                cost[i, j] = FAR
                for k in range(3):
                    d[k] = one[first + j, k] - two[first + i, k] - shift[k]
                row_times(d, to_basis, f)
                for k in range(3):
                    f[k] -= np.rint(f[k])
                if abs(f[0]) > near[0] or abs(f[1]) > near[1] or abs(f[2]) > near[2]:
                    continue
                cost[i, j] = _shortest(f, basis, images, half, vectors[i, j])
                if first == 0 or _squared_distance(vectors[i, j], chosen[0]) < wide:
                    possible = True
            if not possible:
                return FAR
        if not assign(cost, size, column, work):
            return FAR
        for i in range(size):
            for k in range(3):
                chosen[first + i, k] = vectors[i, column[i], k]
            if _squared_distance(chosen[first + i], chosen[0]) > wide:
                return FAR
    return _largest_from_mean(chosen, len(one))


@jit
def _largest_from_mean(vectors, n):
    x, y, z = 0.0, 0.0, 0.0
    for i in range(n):
        x, y, z = x + vectors[i, 0], y + vectors[i, 1], z + vectors[i, 2]
    mean = (x / n, y / n, z / n)
    largest = 0.0
    for i in range(n):
        largest = max(largest, _squared_distance(vectors[i], mean))
    return math.sqrt(largest)


@jit
def _sites_match(frac, inverse, two, anchor, bounds, groups, may, average, volume, stol,
                 tables):  # fmt: skip
    """Is there a shift that brings two onto the mapped one, or onto its inversion?

    Args:
        frac, inverse: sites of one, and the change to the coordinates of two's cell.
        two, anchor: sites of two, and the one of them that shifts start from.
        bounds, groups: of both.
        may: of `_possible`.
        average, volume: the averaged cell.
        stol: as in `MatchSettings`.
        tables: scratch.
    """
    n = len(two)
    mapped, (back, shift, basis, change, to_basis, near, images) = tables[5:7]
    limit = stol * (volume / n) ** (1.0 / 3.0)
    lll(average, basis, change)
    invert(change, to_basis)
    plane_densities(basis, back, near)
    for k in range(3):
        near[k] *= 2.0 * limit
    half = _images(basis, images)
    for i in range(n):
        row_times(frac[i], inverse, mapped[i])
    first, last = _group_of(anchor, bounds)
    for hand in (1, -1):
        for i in range(first, last):
            if not may[i - first] & (1 if hand > 0 else 2):
                continue
            for k in range(3):
                shift[k] = hand * mapped[i, k] - two[anchor, k]
            turned = mapped if hand > 0 else -mapped
            if limit > _displacement(
                turned, two, shift, bounds, groups, basis, to_basis, near, images, half, limit,
                tables[:5],
            ):  # fmt: skip
                return True
    return False


@jit
def _group_of(anchor, bounds):
    """Where the group of a site starts and ends."""
    group = 0
    while bounds[group + 1] <= anchor:
        group += 1
    return bounds[group], bounds[group + 1]


@jit
def _limits(parameters, angle_tol, stol, n, cosines, low, high, widest):
    """What cells that match this one may be like, for all crystals that it is compared with.

    Args:
        parameters: (6,) edges and angles of the cell.
        angle_tol, stol: as in `MatchSettings`.
        n: sites.
        cosines, low, high: (3,) filled: of the angles, and between which those of a match lie.
        widest: (3,) filled: with averaged edges a, b, c, sites may be at most
            widest[0] (b c / a^2)^(1/3) apart along the first axis, in fractions of it.
    """
    ends = np.empty((3, 2))  # cosines between which those of the averaged cell lie
    for k in range(3):  # cosines fall with the angle
        angle = parameters[3 + k]
        cosines[k] = math.cos(math.radians(angle))
        low[k] = math.cos(math.radians(min(180.0, angle + angle_tol)))
        high[k] = math.cos(math.radians(max(0.0, angle - angle_tol)))
        ends[k, 0] = math.cos(math.radians(min(180.0, angle + angle_tol / 2)))
        ends[k, 1] = math.cos(math.radians(max(0.0, angle - angle_tol / 2)))
    # (volume / (a b c))^2 is concave in each cosine, so that it is least in a corner
    least = 1.0
    for a in ends[0]:
        for b in ends[1]:
            for c in ends[2]:
                least = min(least, 1.0 + 2.0 * a * b * c - a * a - b * b - c * c)
    for k in range(3):
        flat = max(0.0, ends[k, 0], -ends[k, 1])  # the least cosine, up to its sign
        sine = math.sqrt(max(0.0, 1.0 - flat * flat))
        widest[k] = np.inf
        if least > 1e-6:
            widest[k] = (1.0 + 1e-6) * 2.0 * stol * sine / (n * least) ** (1.0 / 3.0)


@jit
def _wide(vectors, picked, number, edges, widest, out):
    """How far sites may be apart along each axis, whichever of the vectors are mapped (in place)."""
    least, most = np.empty(3), np.empty(3)
    for s in range(3):
        least[s], most[s] = np.inf, 0.0
        for i in range(number[s]):
            d = 0.5 * (vectors[picked[s, i], 6] + edges[s])
            least[s], most[s] = min(least[s], d), max(most[s], d)
    for k in range(3):
        ratio = most[(k + 1) % 3] * most[(k + 2) % 3] / (least[k] * least[k])
        out[k] = np.int64(min(widest[k] * ratio ** (1.0 / 3.0), 0.5) * TURN) + 4 * ROUNDING


@jit
def _possible(inverse, one, two, anchor, bounds, groups, wide, may, moved):
    """Onto which sites can the anchor be shifted, so that all others find a partner each?

    In whole numbers: quick, and only ever wrong by saying yes.

    Args:
        inverse: (3, 3) the mapping: coordinates of one times it are those in two's cell.
        one, two: sites as by `_turns`.
        anchor, bounds, groups: the site of two that shifts start from; groups of both.
        wide: (3,) of `_wide`.
        may: one for each site of the anchor's group, filled: 1 if it is possible, 2 if its
            inversion is, 3 if both are.
        moved: (n, 3) scratch.

    Returns:
        Is any possible?
    """
    own, last = _group_of(anchor, bounds)
    _move(one, inverse, own, last, moved)
    known, found = 0, False  # groups that were moved: most often few are needed
    for i in range(own, last):
        may[i - own] = 0
        for hand in (1, -1):
            fits = _covered(moved, two, i, anchor, hand, own, last, wide)
            for g in range(groups):
                if not fits:
                    break
                if g >= known:
                    _move(one, inverse, bounds[g], bounds[g + 1], moved)
                    known = g + 1
                fits = _covered(moved, two, i, anchor, hand, bounds[g], bounds[g + 1], wide)
            if fits:
                may[i - own] += 1 if hand > 0 else 2
        found = found or may[i - own] != 0
    return found


@jit
def _move(one, inverse, first, last, out):
    """Sites as by `_turns`, in the coordinates of another cell."""
    for k in range(3):
        x, y, z = np.int64(inverse[0, k]), np.int64(inverse[1, k]), np.int64(inverse[2, k])
        for i in range(first, last):
            out[i, k] = x * one[i, 0] + y * one[i, 1] + z * one[i, 2]


@jit
def fit(vectors, picked, frac, whole, parameters, two, turns, anchor, bounds, groups, ltol, stol,
        limits, tables):  # fmt: skip
    """Does the matcher map crystal one onto crystal two?

    Args:
        vectors, frac, whole: of one, its `lattice_vectors` as far as two's edges reach, (n, 3)
            sites, and the same as by `_turns`.
        picked: (3, at least as many) scratch.
        parameters, two, turns, anchor: of two, edges and angles (6,), sites (n, 3), the same as by
            `_turns`, and the site that translations start from.
        bounds, groups: of both.
        ltol, stol: as in `MatchSettings`.
        limits: of two, by `_limits`.
        tables: scratch.
    """
    cosines, low, high, widest = limits
    trial, straight, inverse, average, moved, may, wide, number = tables[7]
    _like(vectors, parameters, 1.0 + ltol, picked, number)
    if min(number[0], number[1], number[2]) == 0:
        return False
    _wide(vectors, picked, number, parameters, widest, wide)
    for i in range(number[0]):  # a mapping and its inversion are looked at together
        a = picked[0, i]
        for j in range(number[1]):
            b = picked[1, j]
            ab = _cosine(vectors, a, b)
            if not (low[2] <= ab <= high[2] or low[2] <= -ab <= high[2]):
                continue
            for k in range(number[2]):
                c = picked[2, k]
                bc, ac = _cosine(vectors, b, c), _cosine(vectors, a, c)
                for m in range(3):
                    trial[0, m], trial[1, m] = vectors[a, m], vectors[b, m]
                    trial[2, m] = vectors[c, m]
                if abs(abs(determinant(trial)) - 1.0) > 0.5:
                    continue
                invert(trial, straight)
                for sb, sc in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    ca, cb, cg = sb * sc * bc, sc * ac, sb * ab
                    if not (
                        low[0] <= ca <= high[0]
                        and low[1] <= cb <= high[1]
                        and low[2] <= cg <= high[2]
                    ):
                        continue
                    for m in range(3):
                        inverse[m, 0] = straight[m, 0]
                        inverse[m, 1], inverse[m, 2] = sb * straight[m, 1], sc * straight[m, 2]
                    if not _possible(
                        inverse, whole, turns, anchor, bounds, groups, wide, may, moved
                    ):
                        continue
                    volume = _average_cell(
                        vectors[a, 6], vectors[b, 6], vectors[c, 6], ca, cb, cg, parameters, cosines,
                        average,
                    )  # fmt: skip
                    if volume > 0.0 and _sites_match(
                        frac, inverse, two, anchor, bounds, groups, may, average, volume, stol,
                        tables,
                    ):  # fmt: skip
                        return True
    return False


@jit
def _scratch(n, like):
    """Room for comparing crystals of n sites, so many like the anchor: once, for many pairs."""
    assignment = np.empty((n, n)), np.empty((n, n, 3)), np.empty((n, 3))
    rows = np.empty(n, dtype=np.int64), np.empty((6, n))
    cells = (
        np.empty((3, 3)), np.empty(3), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)),
        np.empty(3), np.empty((27, 3)),
    )  # fmt: skip
    mapping = (
        np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3)),
        np.empty((n, 3), dtype=np.int64), np.empty(like, dtype=np.int64),
        np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64),
    )  # fmt: skip
    return *assignment, *rows, np.empty((n, 3)), cells, mapping


@border(
    rows="0:crystals rows",
    ends="0:rows+1 buckets+1",
    n_old="-1:rows+1 buckets",
    cells="real crystals 3 3",
    parameters="real crystals 6",
    frac="real sites 3",
    code="0:128 sites",
    start="0:sites+1 crystals",
    n_sites="0:sites+1 crystals",
    anchor="0:sites+1 crystals",
    ltol="0:",
    stol="0:",
    angle_tol="0:",
    first="out crystals",
)
@entry
def first_matches(rows, ends, n_old, cells, parameters, frac, code, start, n_sites, anchor,
                  ltol, stol, angle_tol, first):  # fmt: skip
    """For each crystal of each bucket the first one that it matches (in place).

    Args:
        rows: crystals, bucket after bucket; those of a bucket share elements and counts.
        ends: (buckets + 1,) where buckets start in rows.
        n_old: (buckets,) how many rows, at the start of a bucket, only stand to be matched; -1:
            each is compared with the first of each group so far.
        cells, ..., anchor: of `reduce_batch`; start: where each crystal's sites start.
        ltol, stol, angle_tol: as in `MatchSettings`.
        first: (crystals,) filled.

    Returns:
        How many pairs were compared.
    """
    pairs = 0
    for b in range(len(ends) - 1):
        members = rows[ends[b] : ends[b + 1]]
        n = n_sites[members[0]]
        turns, bounds = np.empty((n, 3), dtype=np.int64), np.empty(n + 1, dtype=np.int64)
        groups, _ = _group(code[start[members[0]] : start[members[0]] + n], bounds)
        like = _group_of(anchor[members[0]], bounds)
        tables = _scratch(n, like[1] - like[0])
        limits = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        heads = members.copy()
        wholes = np.empty((len(members), n, 3), dtype=np.int64)
        n_heads = 0
        for place in range(len(members)):
            i = members[place]
            two = frac[start[i] : start[i] + n]
            _turns(two, 0, n, turns)
            _limits(parameters[i], angle_tol, stol, n, *limits)
            longest = max(parameters[i, 0], parameters[i, 1], parameters[i, 2]) * (1.0 + ltol)
            for h in range(n_heads if place >= n_old[b] else 0):
                j = heads[h]
                pairs += 1
                vectors = lattice_vectors(cells[j], longest)
                picked = np.empty((3, len(vectors)), dtype=np.int64)
                if fit(
                    vectors, picked, frac[start[j] : start[j] + n], wholes[h], parameters[i], two,
                    turns, anchor[i], bounds, groups, ltol, stol, limits, tables,
                ):  # fmt: skip
                    first[i] = j
                    break
            if first[i] < 0 and (n_old[b] < 0 or place < n_old[b]):
                heads[n_heads], wholes[n_heads] = i, turns
                n_heads += 1
    return pairs
