"""The questions that the judge asks, each about one piece of the samples.

A check is a function of a piece of crystals and plain settings, so that it runs in any process. It
answers for every crystal of its piece; what it cannot answer is a no with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.rules import GeometryRule, broken_crystals, geometry_verdict
from ..energies.potentials import GATE
from ..matching import same as structure
from ..matching.same import MatchSettings
from ..runtime import InputError
from . import charge as composition

SYMPREC = 0.1  # Å, for the space group that a sample has
SCAN, RELAX = 1.0, 0.0  # the two roads to a minimum


@dataclass(eq=False)
class Answer:
    """What a check says about k crystals.

    Attributes:
        ok: (k,) bool.
        reasons: place in the piece -> why not.
        values: quantity -> (k,) float64.
        crystals: the k crystals, where the check moved them.
        seconds: wall time.
    """

    ok: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    crystals: CrystalBatch | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work for one process, in arrays: tensors do not travel well.

    Attributes:
        check: name of the check in `CHECKS`.
        rows: (k,) places of the crystals among the n samples.
        lattice: (k, 3, 3).
        frac: (k, sites, 3).
        numbers: (k, sites).
        settings: keyword arguments of the check.
    """

    check: str
    rows: np.ndarray
    lattice: np.ndarray
    frac: np.ndarray
    numbers: np.ndarray
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, check: str, crystals: CrystalBatch, rows: np.ndarray, **settings: Any) -> Task:
        """Cut out rows, with no more padding than they need."""
        numbers = crystals.numbers[torch.as_tensor(rows)].numpy()
        filled = np.flatnonzero((numbers != 0).any(0))
        most = int(filled[-1]) + 1 if len(filled) else 1
        lattice, frac = crystals.lattice.numpy()[rows], crystals.frac.numpy()[rows, :most]
        return cls(check, rows, lattice, frac, numbers[:, :most], settings)

    @property
    def crystals(self) -> CrystalBatch:
        """The piece as a batch."""
        parts = (torch.from_numpy(np.array(a)) for a in (self.lattice, self.frac, self.numbers))
        return CrystalBatch(*parts)


def run(task: Task) -> Answer:
    """Carry out one task; a crystal on which the check breaks down is a no, and stops nothing.

    Raises:
        InputError: the same one for every crystal, so it is the settings that are wrong.
    """
    start = time.perf_counter()
    check, crystals = CHECKS[task.check], task.crystals
    try:
        answer = check(crystals, task.rows, **task.settings)
    except Exception:
        answer = _without_culprits(check, crystals, task.rows, dict(task.settings))
    answer.seconds = time.perf_counter() - start
    return answer


def _without_culprits(
    check: Callable[..., Answer], crystals: CrystalBatch, rows: np.ndarray, settings: dict[str, Any]
) -> Answer:
    """Ask each crystal alone; then all that can be asked together once more."""
    k = len(rows)
    broken: dict[int, str] = {}
    for i in range(k):
        try:
            check(crystals[i], rows[i : i + 1], **_of_rows(settings, [i], k))
        except Exception as error:
            broken[i] = f"{type(error).__name__}: {str(error)[:200]}"
            last = error
    if len(broken) == k > 1 and len(set(broken.values())) == 1 and isinstance(last, InputError):
        raise last
    good = np.array([i for i in range(k) if i not in broken], dtype=np.int64)
    out = Answer(np.zeros(k, dtype=bool), broken)
    if len(good) == 0:
        return out
    part = check(crystals[good], rows[good], **_of_rows(settings, good, k))
    out.ok[good] = part.ok
    out.reasons |= {int(good[i]): why for i, why in part.reasons.items()}
    for name, values in part.values.items():
        out.values[name] = np.full(k, np.nan)
        out.values[name][good] = values
    if part.crystals is not None:
        lattice, frac = crystals.lattice.clone(), crystals.frac.clone()
        lattice[good], frac[good] = part.crystals.lattice, part.crystals.frac
        out.crystals = CrystalBatch(lattice, frac, crystals.numbers)
    return out


def _of_rows(settings: dict[str, Any], rows: Any, k: int) -> dict[str, Any]:
    """Settings that hold one value a crystal, for some of the crystals."""
    return {
        name: value[rows] if isinstance(value, np.ndarray) and value.shape == (k,) else value
        for name, value in settings.items()
    }


# ---- without energies


def distances(crystals: CrystalBatch, rows: np.ndarray, *, rule: GeometryRule) -> Answer:
    """Does the geometry rule hold?"""
    verdict = geometry_verdict(crystals, rule)
    return Answer(verdict.ok, {int(i): verdict.reason(int(i)) for i in np.flatnonzero(~verdict.ok)})


def charge_neutral(
    crystals: CrystalBatch, rows: np.ndarray, *, oxidation_states: str, alloys: bool
) -> Answer:
    """Do some oxidation states balance?"""
    numbers = crystals.numbers.numpy()
    atoms = ((numbers >= 0) & (numbers < elements.N_COLUMNS)).all(1) & (numbers > 0).any(1)
    ok = np.zeros(len(numbers), dtype=bool)
    known = np.flatnonzero(atoms)
    if len(known):
        counts = crystals[known].counts().numpy()
        ok[known] = composition.charge_neutral(
            counts, oxidation_states=oxidation_states, alloys=alloys
        )
    reasons = {
        int(i): f"no {oxidation_states} oxidation states balance {crystals[int(i)].formulas()[0]}"
        if atoms[i]
        else "no atoms, or numbers that are no elements"
        for i in np.flatnonzero(~ok)
    }
    return Answer(ok, reasons)


def space_group(crystals: CrystalBatch, rows: np.ndarray, *, requested: np.ndarray) -> Answer:
    """Is the space group that was asked for the one found?"""
    ok, found = structure.space_group_kept(crystals, requested, symprec=SYMPREC)
    reasons = {
        int(i): f"space group {found[i]} found, {requested[i]} requested"
        for i in np.flatnonzero(~ok)
    }
    return Answer(ok, reasons, {"space_group": found.astype(float)})


def compound(crystals: CrystalBatch, rows: np.ndarray) -> Answer:
    """Are there two elements or more?"""
    numbers = np.sort(crystals.numbers.numpy(), axis=1)
    different = ((np.diff(numbers, axis=1, prepend=0) > 0) & (numbers > 0)).sum(1)
    ok = different > 1
    return Answer(ok, {int(i): "a single element" for i in np.flatnonzero(~ok)})


def unique(crystals: CrystalBatch, rows: np.ndarray, *, match: MatchSettings) -> Answer:
    """Is it unlike all earlier ones? All crystals of one composition are in one piece."""
    found = structure.same_as_earlier(crystals, settings=match)
    return _answer(found, lambda i: f"same as sample {rows[found.first[i]]}")


def novel(
    crystals: CrystalBatch,
    rows: np.ndarray,
    *,
    match: MatchSettings,
    known: Task | None,
    called: str,
) -> Answer:
    """Is it unlike all known crystals? Those come as a task, with their places as rows."""
    if known is None:
        broken = np.flatnonzero(broken_crystals(crystals))
        found = structure.Matches(
            np.full(len(rows), structure.NONE), dict.fromkeys(broken.tolist(), "broken crystal")
        )
        return _answer(found, lambda i: "")
    found = structure.same_as_reference(crystals, known.crystals, settings=match)
    return _answer(found, lambda i: f"same as {called} crystal {known.rows[found.first[i]]}")


def _answer(found: structure.Matches, why: Callable[[int], str]) -> Answer:
    ok = found.first == structure.NONE
    ok[list(found.failed)] = False
    reasons = {int(i): found.failed.get(int(i)) or why(int(i)) for i in np.flatnonzero(~ok)}
    return Answer(ok, reasons)


# ---- with energies


def road(crystals: CrystalBatch, rows: np.ndarray) -> Answer:
    """Which crystals may be scanned in volume instead of relaxed?"""
    broken = broken_crystals(crystals)
    scan = np.zeros(len(rows), dtype=bool)
    if not broken.all():
        scan[~broken] = symmetry.only_scale_is_free(crystals[np.flatnonzero(~broken)])
    return Answer(np.ones(len(rows), dtype=bool), values={"road": np.where(scan, SCAN, RELAX)})


def scan(crystals: CrystalBatch, rows: np.ndarray, *, potential: Any, most_atoms: int) -> Answer:
    """Energy at the minimum of the equation of state."""
    from ..energies.lattice_scan import lattice_scan

    def at_minimum(some: CrystalBatch) -> Answer:
        found = lattice_scan(some, potential)
        values = {"energy": found.energy, "bulk_modulus": found.bulk_modulus}
        values["converged"] = found.ok.astype(float)
        why = {i: reason for i, reason in enumerate(found.reasons) if not found.ok[i]}
        return Answer(found.ok, why, values, found.crystals)

    return _behind_gate(crystals, most_atoms, at_minimum)


def relax(
    crystals: CrystalBatch,
    rows: np.ndarray,
    *,
    potential: Any,
    most_atoms: int,
    fmax: float,
    steps: int,
) -> Answer:
    """Energy where the forces vanish, or where the steps end."""
    from ..energies.relaxation import relax as follow

    def downhill(some: CrystalBatch) -> Answer:
        found = follow(some, potential, fmax=fmax, steps=steps)
        values = {"energy": found.energy, "steps": found.steps.astype(float)}
        values["converged"] = found.converged.astype(float)
        return Answer(np.isfinite(found.energy), dict(found.failed), values, found.crystals)

    return _behind_gate(crystals, most_atoms, downhill)


def _behind_gate(
    crystals: CrystalBatch, most_atoms: int, ask: Callable[[CrystalBatch], Answer]
) -> Answer:
    """Ask only about crystals that a potential can know something about."""
    verdict = geometry_verdict(crystals, GATE)
    sites = crystals.n_sites.numpy()
    good = verdict.ok & (sites <= most_atoms)
    out = Answer(np.zeros(len(good), dtype=bool), crystals=crystals)
    for i in np.flatnonzero(~good):
        out.reasons[int(i)] = (
            f"{sites[i]} atoms: more than {most_atoms} are not relaxed"
            if verdict.ok[i]
            else f"distance gate: {verdict.reason(int(i))}"
        )
    inside = np.flatnonzero(good)
    if len(inside) == 0:
        return out
    part = ask(crystals[inside])
    out.ok[inside] = part.ok
    for i in np.flatnonzero(~part.ok):
        out.reasons[int(inside[i])] = part.reasons.get(int(i), "the potential gives no energy")
    for name, values in part.values.items():
        out.values[name] = np.full(len(good), np.nan)
        out.values[name][inside] = values
    lattice, frac = crystals.lattice.clone(), crystals.frac.clone()
    lattice[inside], frac[inside] = part.crystals.lattice, part.crystals.frac
    out.crystals = CrystalBatch(lattice, frac, crystals.numbers)
    return out


def single_point(crystals: CrystalBatch, rows: np.ndarray, *, potential: Any) -> Answer:
    """Energy of a second potential where the first one came to rest."""
    from ..energies.potentials import potential as load

    found = load(potential).energies(crystals)
    return Answer(np.isfinite(found), values={"energy": found})


def hull(
    crystals: CrystalBatch,
    rows: np.ndarray,
    *,
    energy: np.ndarray,
    potential: Any,
    competitors: int,
) -> Answer:
    """Energy of formation and above the hull of known phases, by one potential."""
    from ..energies.hull import above_hull

    verdict = above_hull(crystals.counts().numpy(), energy, potential)
    few = np.asarray(verdict.n_competitors) < competitors
    ok = np.asarray(verdict.ok) & ~few
    reasons = {
        int(i): verdict.reasons[i] or f"only {verdict.n_competitors[i]} known compounds compete"
        for i in np.flatnonzero(~ok)
    }
    values = {
        "energy_above_hull": np.where(ok, verdict.energy_above_hull, np.nan),
        "formation_energy": np.asarray(verdict.formation_energy, dtype=float),
        "competitors": np.asarray(verdict.n_competitors, dtype=float),
    }
    return Answer(ok, reasons, values)


def still_new(
    crystals: CrystalBatch, rows: np.ndarray, *, match: MatchSettings, known: Task | None
) -> Answer:
    """Has relaxation made it a known crystal, or an earlier sample?"""
    first = novel(crystals, rows, match=match, known=known, called="known")
    again = unique(crystals, rows, match=match)
    reasons = {**again.reasons, **first.reasons}
    return Answer(first.ok & again.ok, {i: f"relaxed: {why}" for i, why in reasons.items()})


CHECKS: dict[str, Callable[..., Answer]] = {
    "distances": distances,
    "charge neutral": charge_neutral,
    "space group": space_group,
    "compound": compound,
    "unique": unique,
    "novel": novel,
    "road": road,
    "scan": scan,
    "relax": relax,
    "single point": single_point,
    "hull": hull,
    "still new": still_new,
}
