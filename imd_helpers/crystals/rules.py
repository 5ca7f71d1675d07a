"""Geometric validity: distances, density and volume by named rules."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError, lookup, number, read_toml
from . import elements, geometry

if TYPE_CHECKING:
    from . import CrystalBatch

ANY = (0.0, float("inf"))


@dataclass(frozen=True)
class GeometryRule:
    """What a crystal must satisfy; all bounds are inclusive; none is negative or NaN.

    Two atoms must be at least ``s_i + s_j`` apart, where
    ``s_i = max(min_distance / 2, radius_fraction * (r_i + radius_offset / 2))``.
    """

    name: str
    source: str  # where it comes from, and what it leaves out
    min_distance: float = 0.0  # shortest distance of any two atoms, Å
    own_images: bool = True  # is an atom's distance to its own periodic images checked too?
    radii: str = ""  # column of the element table that holds r_i; empty where radii play no part
    radius_fraction: float = 0.0
    radius_offset: float = 0.0  # Å
    default_radius: float = 0.0  # r_i of elements without one, Å
    cell_volume: tuple[float, float] = ANY  # (low, high), Å^3
    volume_per_atom: tuple[float, float] = ANY  # (low, high), Å^3
    density: tuple[float, float] = ANY  # (low, high), g/cm^3
    edges: tuple[float, float] = ANY  # (low, high) of the lengths of a, b, c, Å

    def __post_init__(self) -> None:
        for name in ("min_distance", "radius_fraction", "radius_offset", "default_radius"):
            number(f"{self.name}: {name}", getattr(self, name), least=0)
        for name in ("cell_volume", "volume_per_atom", "density", "edges"):
            low, high = getattr(self, name)
            if not number(f"{self.name}: lowest {name}", low, least=0) <= high:
                raise InputError(
                    f"{self.name}: {name} lies between {low} and {high}: give the lower bound "
                    "first, and infinity where there is no upper one"
                )

    @property
    def scale(self) -> np.ndarray:
        """(119,) s_i in Å; index = atomic number."""
        scale = np.full(elements.N_COLUMNS, max(self.min_distance / 2, 1e-12))
        if self.radii:
            radius = elements.column(self.radii)
            radius = np.where(np.isnan(radius), self.default_radius, radius)
            scale = np.maximum(scale, self.radius_fraction * (radius + self.radius_offset / 2))
        return scale

    def definition(self) -> dict[str, Any]:
        """The rule as plain data, for reports."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


RULES: dict[str, GeometryRule] = {
    name: GeometryRule(name, **rule) for name, rule in read_toml("protocols", "rules.toml").items()
}


@dataclass(frozen=True, eq=False)
class GeometryVerdict:
    """Verdicts of one rule on n crystals; reasons are written only when asked for."""

    ok: np.ndarray  # (n,) bool
    rule: GeometryRule
    contact: np.ndarray  # (n,) smallest d_ij / (s_i + s_j); NaN where the crystal is broken
    sites: np.ndarray  # (n, 2) the two sites of that contact
    crystals: CrystalBatch
    broken: np.ndarray  # (n,) bool, nothing can be measured, see `why_broken`
    bounds: dict[str, tuple[float, float, np.ndarray, str]]  # name -> (low, high, values, unit)

    def reason(self, index: int) -> str:
        """Why a crystal fails, e.g. ``Mg–O 0.83 Å < 1.20 Å``; empty where it passes."""
        if self.ok[index]:
            return ""
        if self.broken[index]:
            return why_broken(self.crystals, index)
        if not self.contact[index] >= 1.0:
            return self._why_close(index)
        for name, (low, high, values, unit) in self.bounds.items():
            value = np.atleast_1d(values[index])
            if value.min() < low:
                return f"{name} {value.min():.3g} {unit} < {low:g} {unit}"
            if value.max() > high:
                return f"{name} {value.max():.3g} {unit} > {high:g} {unit}"
        raise AssertionError("a failed crystal has a reason")

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """(n,) reasons, empty where a crystal passes."""
        return tuple(self.reason(i) for i in range(len(self.ok)))

    def _why_close(self, index: int) -> str:
        i, j = self.sites[index]
        numbers = self.crystals.numbers[index, [i, j]].tolist()
        limit = float(self.rule.scale[numbers].sum())
        distance = float(self.contact[index]) * limit
        names = "–".join(elements.SYMBOLS[z] for z in numbers)
        image = " (own image)" if i == j else ""
        digits = 2 if f"{distance:.2f}" != f"{limit:.2f}" else 6
        return f"{names} {distance:.{digits}f} Å < {limit:.{digits}f} Å{image}"


def geometry_valid(crystals: CrystalBatch, rule: str | GeometryRule = "imd") -> np.ndarray:
    """(n,) bool: has each crystal possible distances, volumes and densities?

    Broken crystals (NaN, no volume, no atoms) fail and stop nothing. The rule is ``imd``, ``cdvae``
    or ``lemat`` (see `RULES`), or one of your own.

    Raises:
        UnknownNameError: no such rule.
    """
    return geometry_verdict(crystals, rule).ok


def geometry_verdict(crystals: CrystalBatch, rule: str | GeometryRule = "imd") -> GeometryVerdict:
    """As `geometry_valid`, with a reason for each failure.

    Raises:
        UnknownNameError: no such rule.
    """
    if not isinstance(rule, GeometryRule):
        rule = RULES[lookup("geometry rule", rule, RULES)]
    lattice = crystals.lattice.detach().cpu().double().numpy()
    broken = broken_crystals(crystals)
    contact = np.full(len(crystals), np.nan)
    sites = np.zeros((len(crystals), 2), dtype=np.int64)
    whole = crystals if not broken.any() else crystals[~broken]
    if len(whole):
        contact[~broken], sites[~broken] = geometry.closest_contact(
            whole, scale=rule.scale, own_images=rule.own_images
        )
    bounds = _bounds(crystals, lattice, rule)
    ok = ~broken & (contact >= 1.0)
    for low, high, values, _ in bounds.values():
        inside = (values >= low) & (values <= high)
        ok &= inside if inside.ndim == 1 else inside.all(1)
    return GeometryVerdict(ok, rule, contact, sites, crystals, broken, bounds)


def broken_crystals(crystals: CrystalBatch) -> np.ndarray:
    """(n,) bool: nothing can be measured, see `why_broken`.

    Raises:
        InputError: tensors that belong to no batch, e.g. one lattice for two crystals.
    """
    from .batch import check_shapes

    check_shapes(crystals)
    lattice = crystals.lattice.detach().cpu().double().numpy()
    numbers = crystals.numbers.cpu().numpy()
    broken = ~np.isfinite(lattice).all((1, 2))
    broken |= ~np.isfinite(crystals.frac.detach().cpu().numpy()).all((1, 2))
    broken |= ~(_volume(lattice) > 1e-6)
    broken |= _no_element(numbers).any(1)
    atom = numbers > 0
    return broken | ~atom[:, 0] | (atom[:, 1:] & ~atom[:, :-1]).any(1)


def why_broken(crystals: CrystalBatch, index: int) -> str:
    """Why a broken crystal is: not finite, no volume, no atoms, no such element, bad padding."""
    lattice = crystals.lattice[index].detach().cpu().double().numpy()
    numbers = crystals.numbers[index].cpu().numpy()
    if not np.isfinite(lattice).all() or not bool(crystals.frac[index].isfinite().all()):
        return "NaN or infinity in the cell or the coordinates"
    if not (numbers > 0).any():
        return "no atoms"
    if _no_element(numbers).any():
        return f"no element has the atomic number {numbers[np.argmax(_no_element(numbers))]}"
    if (numbers[:-1] == 0)[numbers[1:] > 0].any():
        return "padding stands before an atom"
    return f"cell volume {float(_volume(lattice[None])[0]):.1g} Å^3: the vectors lie in one plane"


def safe_counts(crystals: CrystalBatch) -> np.ndarray:
    """(n, 119) atoms of each element; 0 everywhere for crystals that are broken."""
    whole = np.flatnonzero(~broken_crystals(crystals))
    counts = np.zeros((len(crystals), elements.N_COLUMNS), dtype=np.int64)
    if len(whole):
        counts[whole] = crystals[whole].counts().numpy()
    return counts


def _no_element(numbers: np.ndarray) -> np.ndarray:
    return (numbers < 0) | (numbers >= elements.N_COLUMNS)


def _bounds(
    crystals: CrystalBatch, lattice: np.ndarray, rule: GeometryRule
) -> dict[str, tuple[float, float, np.ndarray, str]]:
    volume = _volume(lattice)
    numbers = crystals.numbers.cpu().numpy().clip(0, elements.N_COLUMNS - 1)
    mass = np.nan_to_num(elements.column("mass"))[numbers].sum(1)
    with np.errstate(all="ignore"):  # broken crystals fail anyway
        density = mass / volume * geometry.AMU_PER_A3_IN_G_PER_CM3
        measured = {
            "cell volume": (*rule.cell_volume, volume, "Å^3"),
            "volume per atom": (*rule.volume_per_atom, volume / (numbers > 0).sum(1), "Å^3"),
            "density": (*rule.density, density, "g/cm^3"),
            "edge": (*rule.edges, np.linalg.norm(lattice, axis=2), "Å"),
        }
    return {name: entry for name, entry in measured.items() if entry[:2] != ANY}


def _volume(lattice: np.ndarray) -> np.ndarray:
    """(n,) cell volumes, Å^3; NaN passes through."""
    with np.errstate(all="ignore"):
        return np.abs(np.einsum("ni,ni->n", lattice[:, 0], np.cross(lattice[:, 1], lattice[:, 2])))
