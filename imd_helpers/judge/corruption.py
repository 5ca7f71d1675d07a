"""Known doses of corruption on real crystals, to find out what a metric sees and what it misses.

Every function takes n crystals, a dose and a seed of its random choices, and returns new crystals.
A dose of 0 changes nothing; one out of range raises `InputError`. With the same seed a larger dose
does more of the same: the same atoms move further in the same direction, and the sites or crystals
touched by a small dose are among those touched by a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np
import torch
from numpy.random import default_rng
from torch import Tensor

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.batch import check_shapes, wrap
from ..runtime import lookup, number, whole

STRAINS = ("isotropic", "shear")
TARGETS = ("same group", "other group")


def _checked(change: Callable[..., CrystalBatch]) -> Callable[..., CrystalBatch]:
    """With crystals in plain types, and a seed that is one."""

    @wraps(change)
    def checked(crystals: CrystalBatch, *dose: float, seed: int = 0, **more: Any) -> CrystalBatch:
        return change(check_shapes(crystals), *dose, seed=whole("seed", seed), **more)

    return checked


# ---- a dose for every crystal


@_checked
def strain(
    crystals: CrystalBatch, dose: float, *, seed: int = 0, kind: str = "isotropic"
) -> CrystalBatch:
    """Deform the cells and leave the fractional coordinates.

    The dose of an ``isotropic`` strain is the relative change of all lengths, above -1; that of a
    ``shear`` the largest principal strain of a random deformation of each crystal that keeps its
    volume.
    """
    lookup("kind of strain", kind, STRAINS)
    if kind == "isotropic":
        number("dose", dose, above=-1)
        return CrystalBatch(crystals.lattice * (1.0 + dose), crystals.frac, crystals.numbers)
    number("dose", dose)
    any_matrix = torch.as_tensor(default_rng(seed).normal(size=(len(crystals), 3, 3)))
    symmetric = any_matrix + any_matrix.mT
    trace = symmetric.diagonal(dim1=1, dim2=2).mean(1)  # (batch,)
    shear = symmetric - trace[:, None, None] * torch.eye(3)
    largest = torch.linalg.eigvalsh(shear).abs().amax(1)  # (batch,)
    deformation = torch.linalg.matrix_exp(dose * shear / largest[:, None, None])
    return CrystalBatch(crystals.lattice @ deformation, crystals.frac, crystals.numbers)


@_checked
def displace(crystals: CrystalBatch, dose: float, *, seed: int = 0) -> CrystalBatch:
    """Move every atom in a random direction by a normal random vector.

    The dose is the root mean square displacement, Å.
    """
    number("dose", dose, least=0)
    moves = torch.as_tensor(default_rng(seed).normal(size=crystals.frac.shape)) * (dose / 3**0.5)
    moves = moves @ torch.linalg.inv(crystals.lattice)  # fractional
    return _with_frac(crystals, crystals.frac + moves)


@_checked
def collapse(crystals: CrystalBatch, dose: float, *, seed: int = 0) -> CrystalBatch:
    """Shrink one cell edge of each crystal, so that atoms meet their own images.

    The dose is the share of the edge that is cut off, from 0 to below 1.
    """
    number("dose", dose, least=0, below=1)
    edge = torch.as_tensor(default_rng(seed).integers(3, size=len(crystals)))
    factor = torch.ones(len(crystals), 3, dtype=torch.float64)
    factor[torch.arange(len(crystals)), edge] -= dose
    return CrystalBatch(crystals.lattice * factor[:, :, None], crystals.frac, crystals.numbers)


# ---- a dose of sites


@_checked
def swap_elements(
    crystals: CrystalBatch,
    dose: float,
    *,
    seed: int = 0,
    to: str = "other group",
    whole_elements: bool = False,
) -> CrystalBatch:
    """Put other elements on a share of the sites; cells and positions stay.

    The new elements are drawn from those of all the crystals given. Lanthanides count as one group
    of the periodic table, and so do actinides. A site with no candidate stays as it is.

    The dose is the chance of each site to be swapped. With ``whole_elements`` it is that of each
    element of a crystal, which is then swapped on all its sites at once, and no two elements of a
    crystal become one.
    """
    _share(dose)
    lookup("target of a swap", to, TARGETS)
    candidates = _candidates(crystals, same_group=to == "same group")
    rng = default_rng(seed)
    swap = _swap_whole if whole_elements else _swap_sites
    numbers = crystals.numbers.numpy().copy()
    for row in numbers:
        swap(row, dose, candidates, rng)
    return CrystalBatch(crystals.lattice, crystals.frac, torch.as_tensor(numbers))


@_checked
def shuffle_sites(crystals: CrystalBatch, dose: float, *, seed: int = 0) -> CrystalBatch:
    """Deal the elements of a share of the sites anew among these sites; the formula stays.

    The dose is the chance of each site to take part.
    """
    _share(dose)
    rng = default_rng(seed)
    numbers = crystals.numbers.numpy().copy()
    for row in numbers:
        n = int((row > 0).sum())
        taking_part = np.flatnonzero(rng.random(n) < dose)
        # a key for each site, drawn for all of them, so that the dose does not change the rest
        order = np.argsort(rng.random(n)[taking_part])
        row[taking_part] = row[taking_part[order]]
    return CrystalBatch(crystals.lattice, crystals.frac, torch.as_tensor(numbers))


# ---- a dose of crystals


@_checked
def duplicate(crystals: CrystalBatch, dose: float, *, seed: int = 0) -> CrystalBatch:
    """Replace a share of the crystals by copies of the others, see `disguise`.

    The dose is the share that is replaced, rounded to whole crystals; one at least is kept.
    """
    n = len(crystals)
    order = default_rng(seed).permutation(n)
    replaced = order[: min(round(n * _share(dose)), n - 1)]
    kept = order[len(replaced) :]
    if len(replaced) == 0:
        return crystals
    source = np.arange(n)
    source[replaced] = default_rng(seed + 1).choice(kept, size=len(replaced))
    copies = disguise(crystals[source[replaced]], seed=seed)
    place = np.arange(n)
    place[replaced] = n + np.arange(len(replaced))
    return CrystalBatch.cat([crystals, copies])[place]


@_checked
def disguise(crystals: CrystalBatch, *, seed: int = 0) -> CrystalBatch:
    """Write the same crystals in another way.

    With other vectors of the same lattice, up to twice as long or more, doubled along one of them,
    from another origin, with the sites in another order, and turned in space.
    """
    for place, change in enumerate((_other_basis, _doubled, _shifted, _permuted, _turned)):
        crystals = change(crystals, default_rng([seed, place]))
    return crystals


@_checked
def mirror(crystals: CrystalBatch, dose: float = 1.0, *, seed: int = 0) -> CrystalBatch:
    """Replace a share of the crystals by their mirror images.

    Only crystals without mirror planes, inversion and rotoinversions change; others are their own
    image, written differently. The cell stays: inversion through the origin is a reflection and
    a rotation.

    The dose is the chance of each crystal to be mirrored.
    """
    chosen = torch.as_tensor(default_rng(seed).random(len(crystals)) < _share(dose))
    mirrored = wrap(-crystals.frac)
    return _with_frac(crystals, torch.where(chosen[:, None, None], mirrored, crystals.frac))


@_checked
def drop_modes(crystals: CrystalBatch, dose: float, *, seed: int = 0) -> CrystalBatch:
    """Leave out all crystals of some space groups, as a generator with mode collapse does.

    The dose is the share of the groups that is left out, rounded; one at least is kept.
    """
    found = symmetry.space_group_numbers(crystals)
    groups = default_rng(seed).permutation(np.unique(found))
    gone = groups[: min(round(len(groups) * _share(dose)), len(groups) - 1)]
    return crystals[~np.isin(found, gone)]


# ---- all of them in one table


@dataclass(frozen=True)
class CrashTest:
    """One kind of corruption and how much of it to give."""

    apply: Callable[..., CrystalBatch]  # ``apply(crystals, dose, seed=seed)`` -> crystals
    doses: tuple[float, ...]  # from none to severe
    unit: str  # of the dose


CRASH_TESTS: dict[str, CrashTest] = {
    "expansion": CrashTest(strain, (0.0, 0.05, 0.1, 0.2, 0.4, 0.8), "strain"),
    "compression": CrashTest(
        lambda crystals, dose, *, seed=0: strain(crystals, -dose, seed=seed),
        (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
        "strain",
    ),
    "shear": CrashTest(partial(strain, kind="shear"), (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), "strain"),
    "displacement": CrashTest(displace, (0.0, 0.05, 0.1, 0.2, 0.4, 0.8), "Å"),
    "collapse": CrashTest(collapse, (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), "of an edge"),
    "site swaps": CrashTest(swap_elements, (0.0, 0.05, 0.1, 0.25, 0.5, 1.0), "of the sites"),
    "substitution": CrashTest(
        partial(swap_elements, to="same group", whole_elements=True),
        (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
        "of the elements",
    ),
    "shuffled sites": CrashTest(shuffle_sites, (0.0, 0.1, 0.25, 0.5, 0.75, 1.0), "of the sites"),
    "duplicates": CrashTest(duplicate, (0.0, 0.1, 0.25, 0.5, 0.75, 0.95), "of the crystals"),
    "mirror images": CrashTest(mirror, (0.0, 0.25, 0.5, 0.75, 1.0), "of the crystals"),
    "lost space groups": CrashTest(drop_modes, (0.0, 0.25, 0.5, 0.75, 0.9), "of the groups"),
}


# ---- ways to write a crystal differently


def _other_basis(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    """Add one vector of the lattice to another, three times."""
    n = len(crystals)
    change = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
    rows = torch.arange(n)
    for _ in range(3):
        to, other = rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)[:, :2].T
        step = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1)
        step[rows, to, other] = torch.as_tensor(rng.choice([-1.0, 1.0], size=n))
        change = step @ change
    frac = crystals.frac @ torch.linalg.inv(change).round()
    lattice = change @ crystals.lattice
    return _with_frac(CrystalBatch(lattice, frac, crystals.numbers), frac)


def _doubled(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    n = len(crystals)
    axis = torch.nn.functional.one_hot(torch.as_tensor(rng.integers(3, size=n)), 3).double()
    lattice = crystals.lattice * (1.0 + axis)[:, :, None]
    half = crystals.frac / (1.0 + axis)[:, None]
    frac = torch.cat([half, half + axis[:, None] / 2], dim=1)  # (batch, 2 sites, 3)
    numbers = crystals.numbers.repeat(1, 2)
    mask = numbers > 0
    return CrystalBatch.from_ragged(lattice, frac[mask], numbers[mask], mask.sum(1))


def _shifted(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    shift = torch.as_tensor(rng.random((len(crystals), 1, 3)))
    return _with_frac(crystals, crystals.frac + shift)


def _permuted(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    key = torch.as_tensor(rng.random(tuple(crystals.numbers.shape)))
    order = torch.argsort(key + (~crystals.mask).double(), dim=1)  # padding stays at the end
    frac = torch.gather(crystals.frac, 1, order[:, :, None].expand(-1, -1, 3))
    return CrystalBatch(crystals.lattice, frac, torch.gather(crystals.numbers, 1, order))


def _turned(crystals: CrystalBatch, rng: np.random.Generator) -> CrystalBatch:
    turn, _ = torch.linalg.qr(torch.as_tensor(rng.normal(size=(len(crystals), 3, 3))))
    turn = turn * torch.linalg.det(turn).sign()[:, None, None]  # no reflection
    return CrystalBatch(crystals.lattice @ turn, crystals.frac, crystals.numbers)


# ---- swaps


def _candidates(crystals: CrystalBatch, *, same_group: bool) -> dict[int, np.ndarray]:
    """Each element -> the other elements of the crystals that may take its place."""
    known = np.flatnonzero(crystals.counts().numpy().any(0))
    family = elements.families()[known]
    alike = family[:, None] == family[None, :]
    fits = (alike if same_group else ~alike) & (known[:, None] != known[None, :])
    return {int(z): known[row] for z, row in zip(known, fits, strict=True)}


def _swap_sites(
    row: np.ndarray, dose: float, candidates: dict[int, np.ndarray], rng: np.random.Generator
) -> None:
    n = int((row > 0).sum())
    chance, choice = rng.random((2, n))
    for i in np.flatnonzero(chance < dose):
        others = candidates[int(row[i])]
        if len(others):
            row[i] = others[int(choice[i] * len(others))]


def _swap_whole(
    row: np.ndarray, dose: float, candidates: dict[int, np.ndarray], rng: np.random.Generator
) -> None:
    old = np.unique(row[row > 0])
    chance, choice = rng.random((2, len(old)))
    taken = set(old.tolist())
    before = row.copy()
    for i in np.flatnonzero(chance < dose):
        others = [z for z in candidates[int(old[i])].tolist() if z not in taken]
        if others:
            new = others[int(choice[i] * len(others))]
            taken.add(new)
            row[before == old[i]] = new


# ---- helpers


def _with_frac(crystals: CrystalBatch, frac: Tensor) -> CrystalBatch:
    """New coordinates, wrapped; padding stays at the origin."""
    frac = torch.where(crystals.mask[:, :, None], wrap(frac), torch.zeros_like(frac))
    return CrystalBatch(crystals.lattice, frac, crystals.numbers)


def _share(dose: float) -> float:
    return number("dose", dose, least=0, most=1)
