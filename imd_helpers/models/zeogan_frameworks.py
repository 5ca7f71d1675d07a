"""Frameworks of SiO2 from peaks: which O bridges which Si, what is mended, and what is new.

The clean-up that turns peaks into a framework, in this order:

1. An O peak with two Si within 2.3 Å, which are 2.6 Å apart at least, can be their bridge. The
   bridges are taken with the best bond lengths first, while both Si have fewer than four.
2. Two Si with fewer than four, 2.6 to 3.5 Å apart, get an O midway, those nearest to 3.1 Å first.
3. O that bridges nothing is dropped. A framework in which each Si then has four bridges is whole.

ZeoGAN's own clean-up is not published. Framework types are told apart as the IZA does, by how many
Si lie 1, 2, 3, … bridges away from each (Meier and Moeck, J. Solid State Chem. 27 (1979) 349).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..crystals.batch import wrap
from ..crystals.samples import Samples
from ..descriptors.base import mark_overlaps
from ..descriptors.methane_grid import OXYGEN, SILICON, MethaneGrid
from ..runtime import InputError

FOUR = 4  # bridges of each Si
BOND = 1.61  # Å, of Si and O in silica
LONGEST_BOND = 2.3  # Å, of a peak of O that can still be a bridge
CLOSEST_SI, FARTHEST_SI = 2.6, 3.5  # Å, of two Si with a bridge
SI_APART = 3.1  # Å, of two Si with a bridge in silica
DENSEST = 30.0  # Si in 1000 Å^3; quartz has 26.6, frameworks of zeolites 10 to 21
SHELLS = 10  # of a coordination sequence, as the IZA's tables print


class Bridges(NamedTuple):
    """Si that share an O: rows of (Si, Si) and the cell in which the second lies."""

    first: np.ndarray  # (bridges,)
    second: np.ndarray  # (bridges,)
    image: np.ndarray  # (bridges, 3) cells from the first to the second
    oxygen: np.ndarray  # (bridges, 3) fractional places of O
    peak: np.ndarray  # (bridges,) which peak of O it is; -1 where it was put midway


class Mended(NamedTuple):
    """Frameworks after the clean-up, and what it did to each."""

    samples: Samples
    kept: np.ndarray  # (n,) O that were peaks
    added: np.ndarray  # (n,) O that were put midway
    dropped: np.ndarray  # (n,) O that bridged nothing

    @property
    def untouched(self) -> np.ndarray:
        """(n,) bool: whole frameworks in which nothing was added or dropped."""
        return self.samples.ok & (self.added == 0) & (self.dropped == 0)


def frameworks(grids: Any, lattice: Tensor) -> Mended:
    """Frameworks from grids (batch, 3, n, n, n) as `MethaneGrid` writes them, mended.

    The lattice is (batch, 3, 3) Å. A row fails where `MethaneGrid.decode` finds no peaks or no
    cell, where there are too many Si, or where a Si is left without four bridges.

    Raises:
        InputError: grids of another shape or of several, or not one cell for each.
    """
    if len(getattr(grids, "shape", ())) < 3:
        raise InputError(
            f"grids={type(grids).__name__}: expected one tensor (batch, 3, n, n, n); give grids "
            "of several sizes one size after the other"
        )
    return mend(MethaneGrid(points=grids.shape[2]).decode(grids, lattice))


def mend(found: Samples) -> Mended:
    """The clean-up of peaks that were read as Si and O; rows without Si keep their reason."""
    parts, reasons, numbers = [], [], np.zeros((3, len(found)), dtype=np.int64)
    crystals = found.crystals
    for i in range(len(found)):
        one = crystals[i : i + 1]
        why = found.reasons[i] or "no Si, or no O"
        if one.counts()[0][[SILICON, OXYGEN]].all():
            one, why, numbers[:, i] = _mended(one)
        parts.append(one)
        reasons.append(why)
    batch = CrystalBatch.cat(parts)
    mark_overlaps(reasons, batch)
    return Mended(Samples.from_reasons(batch, reasons), *numbers)


def _mended(crystal: CrystalBatch) -> tuple[CrystalBatch, str, tuple[int, int, int]]:
    """One crystal of Si and O after the clean-up, why it failed, and O kept, added, dropped."""
    lattice, silicon, oxygen = _parts(crystal)
    most = int(DENSEST * abs(np.linalg.det(lattice)) / 1000)
    if len(silicon) > most:
        return crystal, f"{len(silicon)} Si, at most {most}: too many peaks", (0, 0, 0)
    found = connect(lattice, silicon, oxygen, midway=True)
    kept = int((found.peak >= 0).sum())
    done = (kept, len(found.peak) - kept, len(oxygen) - kept)
    few = int((_degree(found, len(silicon)) < FOUR).sum())
    if few:
        why = f"interrupted: {few} of {len(silicon)} Si have fewer than four bridges"
        return crystal, why, done
    frac = torch.as_tensor(np.concatenate([found.oxygen, silicon]))
    numbers = [OXYGEN] * len(found.oxygen) + [SILICON] * len(silicon)
    whole_one = CrystalBatch.from_ragged(crystal.lattice, wrap(frac), numbers, [len(numbers)])
    return whole_one, "", done


def _parts(crystal: CrystalBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lattice (3, 3) Å, and fractional places of Si and O, (atoms, 3)."""
    frac, numbers = crystal.frac[0].double().numpy(), crystal.numbers[0].numpy()
    lattice = crystal.lattice[0].double().numpy()
    return lattice, frac[numbers == SILICON], frac[numbers == OXYGEN]


def connect(
    lattice: np.ndarray, silicon: np.ndarray, oxygen: np.ndarray, *, midway: bool = False
) -> Bridges:
    """Bridges between Si, by the steps 1 and, with ``midway``, 2 of the clean-up.

    Args:
        lattice: (3, 3) Å.
        silicon: (Si, 3) fractional places.
        oxygen: (O, 3) fractional places.
        midway: put O between Si that have too few.
    """
    taken: list[tuple[int, int, tuple[int, ...], np.ndarray, int]] = []
    degree, joined = np.zeros(len(silicon), dtype=int), set()
    candidates = _peaks(lattice, silicon, oxygen)
    if midway:
        candidates += _midways(lattice, silicon)
    for i, j, image, place, peak in candidates:
        one = min((i, j, image), (j, i, tuple(-step for step in image)))
        room = degree[i] < FOUR and degree[j] < FOUR - (i == j)
        if room and one not in joined:
            joined.add(one)
            degree[i] += 1
            degree[j] += 1
            taken.append((i, j, image, place, peak))
    if not taken:
        none = np.zeros((0, 3), dtype=int)
        return Bridges(none[:, 0], none[:, 0], none, none.astype(float), none[:, 0])
    return Bridges(*(np.array(column) for column in zip(*taken, strict=True)))


def _peaks(lattice: np.ndarray, silicon: np.ndarray, oxygen: np.ndarray) -> list[tuple]:
    """What each O could bridge, the best bond lengths first."""
    near: list[list] = [[] for _ in oxygen]
    owners, who, images, apart = _near(lattice, oxygen, silicon, LONGEST_BOND)
    for k, i, image, d in zip(owners, who, images, apart, strict=True):
        near[k].append((d, i, image))
    found = []
    for k, ends in enumerate(near):
        if len(ends) < 2:
            continue
        (d, i, here), (e, j, there) = sorted(ends, key=lambda end: end[0])[:2]
        image = there - here
        if np.linalg.norm((silicon[j] + image - silicon[i]) @ lattice) >= CLOSEST_SI:
            score = abs(d - BOND) + abs(e - BOND)
            found.append((score, (i, j, tuple(image.tolist()), oxygen[k], k)))
    return [one for _, one in sorted(found, key=lambda pair: (pair[0], pair[1][4]))]


def _midways(lattice: np.ndarray, silicon: np.ndarray) -> list[tuple]:
    """Pairs of Si that could get an O midway, those nearest to 3.1 Å first."""
    first, second, images, apart = _near(lattice, silicon, silicon, FARTHEST_SI)
    order = np.lexsort((second, first, np.abs(apart - SI_APART).round(6)))
    order = order[apart[order] >= CLOSEST_SI]
    i, j, image = first[order], second[order], images[order]
    places = (silicon[i] + silicon[j] + image) / 2
    steps = map(tuple, image.tolist())
    return list(zip(i.tolist(), j.tolist(), steps, places, [-1] * len(i), strict=True))


def _near(
    lattice: np.ndarray, centres: np.ndarray, points: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs up to a radius, Å: centre, point, the cell of the point, and the distance."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    centre, point, image, d = find_points_in_spheres(
        all_coords=np.ascontiguousarray(points @ lattice),
        center_coords=np.ascontiguousarray(centres @ lattice),
        r=float(radius),
        pbc=np.array([1, 1, 1], dtype=np.int64),
        lattice=np.ascontiguousarray(lattice, dtype=float),
        tol=1e-8,
    )
    return centre, point, image.astype(int), d


def _degree(found: Bridges, n: int) -> np.ndarray:
    """(n,) bridges of each Si."""
    return np.bincount(np.concatenate([found.first, found.second]), minlength=n)


# ---- which framework it is


def coordination_sequences(crystal: CrystalBatch) -> np.ndarray:
    """(Si, 10) how many Si lie 1, 2, … bridges away from each Si of one framework.

    Raises:
        InputError: not one whole framework of SiO2.

    Source: Meier and Moeck (1979).
    """
    if len(crystal) != 1:
        raise InputError(f"{len(crystal)} crystals at once: give one, as batch[i : i + 1]")
    lattice, silicon, oxygen = _parts(crystal)
    found = connect(lattice, silicon, oxygen)
    degree = _degree(found, len(silicon))
    if len(silicon) == 0 or (degree != FOUR).any() or len(oxygen) != 2 * len(silicon):
        raise InputError(
            "no whole framework: each Si needs four O that bridge to others; mend() says which "
            "frameworks are"
        )
    steps: list[list[tuple]] = [[] for _ in silicon]
    for i, j, image in zip(*found[:3], strict=True):
        a, b, c = image.tolist()
        steps[i].append((int(j), a, b, c))
        steps[j].append((int(i), -a, -b, -c))
    return np.array([_sequence(steps, start) for start in range(len(silicon))])


def _sequence(steps: list[list[tuple]], start: int) -> list[int]:
    before, now, sizes = set(), {(start, 0, 0, 0)}, []
    for _ in range(SHELLS):
        ring = {(j, x + a, y + b, z + c) for i, x, y, z in now for j, a, b, c in steps[i]}
        before, now = now, ring - now - before
        sizes.append(len(now))
    return sizes


def framework_key(crystal: CrystalBatch) -> tuple:
    """The different coordination sequences of one framework and their shares, in order.

    Equal for all cells of one framework type, whatever its shape; two types can share it.
    """
    sequences = coordination_sequences(crystal)
    rows, count = np.unique(sequences, axis=0, return_counts=True)
    shares = count // np.gcd.reduce(count)
    return tuple(map(tuple, np.column_stack([rows, shares]).tolist()))
