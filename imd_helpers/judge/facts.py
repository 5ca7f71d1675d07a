"""The questions of the judge, one object each: its answer, its settings, its meaning.

A fact answers for every sample of a piece, and says why not where the answer is no. The function
that answers takes a piece of the content and plain settings, so that it runs in any process.
Whether a fact is about crystals as sampled or as relaxed depends on where a protocol asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..crystals import CrystalBatch, compositions, elements, symmetry
from ..crystals.compositions import first_rows, member
from ..crystals.rules import GeometryRule, broken_crystals, geometry_verdict
from ..energies import calibration
from ..energies.potentials import GATE
from ..matching import same
from ..matching.same import MatchSettings
from . import bond_valence, charge
from .samples import Known, safe_counts

if TYPE_CHECKING:
    from ..energies.potentials import Potential
    from .engine import Run

SYMPREC = 0.1  # Å, for the space group that a sample has
SCAN, RELAX = 1.0, 0.0  # the two roads to a minimum
FELL = 1e-3  # eV/atom that a pushed crystal must win to count
ORDER = """as given, each compared with the first of every group before it; being the same is not \
transitive, so that another order may give another number"""


@dataclass(eq=False)
class Answer:
    """What is said about k samples."""

    ok: np.ndarray  # (k,) bool
    reasons: dict[int, str] = field(default_factory=dict)  # place in the piece -> why not
    values: dict[str, np.ndarray] = field(default_factory=dict)  # quantity -> (k,) float64
    content: Any = None  # the k samples, where they were moved or made
    seconds: float = 0.0  # of a processor
    details: dict[int, Any] = field(default_factory=dict)  # place in the piece -> what else

    @classmethod
    def of(cls, ok: np.ndarray, why: Callable[[int], str], **values: np.ndarray) -> Answer:
        """A yes or a no for each, with a reason for each no."""
        return cls(ok, {i: why(i) for i in np.flatnonzero(~ok).tolist()}, values)


def nothing(run: Run) -> dict[str, Any]:
    """No settings."""
    return {}


@dataclass(eq=False)
class Fact:
    """A question with a yes or a no for each sample, asked in pieces."""

    name: str  # as protocols and reports call it
    # of k crystals or (k, 119) counts, their places (k,) among all samples, and settings
    answer: Callable[..., Any]
    # of a run: rules, thresholds, tables, versions; or what a yes says, where that is all. Reports
    # compare only where this is equal
    meaning: str | Callable[[Run], dict[str, Any]]
    # of a run: what `answer` takes beside the samples
    settings: Callable[[Run], dict[str, Any]] = nothing
    each: Callable[[Run], dict[str, Any]] = nothing  # of a run: settings with one value a sample
    piece: int = 1_000  # samples in one piece of work: some seconds each
    # the verdict depends on the other samples, and those of one composition stay in one piece
    together: bool = False
    relaxed_too: bool = False  # asked behind ``relaxed`` it means another thing, and says so
    among: tuple[str, ...] = ()  # asked only about samples for which all of these facts hold
    but_not: tuple[str, ...] = ()  # and none of these
    compares: bool = False  # with the known ones, as far as there are some
    # ``known``, ``potentials`` or ``space group`` (asked for), without which it is not asked; or
    # nothing
    needs: str = ""

    def can(self, run: Run) -> bool:
        """Is there what the question needs?"""
        asked = "space_group" in run.samples.asked
        there = {"known": run.known, "potentials": run.potentials, "space group": asked, "": True}
        return bool(there[self.needs])

    def definition(self, run: Run) -> dict[str, Any]:
        """What a yes means."""
        own = {"rule": self.meaning} if isinstance(self.meaning, str) else self.meaning(run)
        others = {"samples": len(run.samples)} if self.together else {}
        if self.among:
            others |= {"among": list(self.among), "but_not": list(self.but_not)}
        return {**own, **others, **(run.known_definition() if self.compares else {})}

    def ask(self, run: Run) -> None:
        """Ask about all samples that are left, or some of them."""
        known = list(run.known.values()) if self.compares else None
        settings, each = self.settings(run), self.each(run)
        some = run.left[run.holds(self.among, self.but_not)[run.left]]
        for rows, answer in run.answers(self, self.answer, some, settings, each=each, known=known):
            run.take(self, rows, answer)


class AtOnce(Fact):
    """A question about what is there already: `answer` takes the run.

    It returns (k,) bool for the samples that are left, and sample -> why not.
    """

    def ask(self, run: Run) -> None:
        """Ask about all samples that are left, at once."""
        run.note(self, run.left, *self.answer(run))


# ---- about crystals, without energies


def decodes(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Could the descriptor decode it, or the file be read?"""
    samples = run.samples
    why = {i: samples.reasons[i] for i in np.flatnonzero(~samples.ok).tolist()}
    return samples.ok[run.left], why


def distances(content: CrystalBatch, rows: np.ndarray, *, rule: GeometryRule) -> Answer:
    """Does the geometry rule hold?"""
    verdict = geometry_verdict(content, rule)
    return Answer.of(verdict.ok, verdict.reason)


def neutral(content: CrystalBatch, rows: np.ndarray, **settings: Any) -> Answer:
    """Do some oxidation states balance?"""
    numbers = content.numbers.numpy()
    atoms = ((numbers >= 0) & (numbers < elements.N_COLUMNS)).all(1) & (numbers > 0).any(1)
    ok = np.zeros(len(numbers), dtype=bool)
    known = np.flatnonzero(atoms)
    if len(known):
        ok[known] = charge.charge_neutral(content[known].counts().numpy(), **settings)
    wrong = f"no {settings['oxidation_states']} oxidation states balance"
    empty = "no atoms, or numbers that are no elements"
    return Answer.of(ok, lambda i: f"{wrong} {content[i].formulas()[0]}" if atoms[i] else empty)


def bonds_balance(content: CrystalBatch, rows: np.ndarray) -> Answer:
    """Do the charges balance by the rule of LeMat-GenBench?"""
    ok = np.zeros(len(rows), dtype=bool)
    whole = np.flatnonzero(~broken_crystals(content))
    if len(whole):
        ok[whole] = bond_valence.balanced(content[whole])
    return Answer.of(ok, lambda _: "neither a metal, nor balanced by composition or bonds")


def group_kept(content: CrystalBatch, rows: np.ndarray, *, requested: np.ndarray) -> Answer:
    """Is the space group that was asked for the one found?"""
    found = symmetry.space_group_numbers(content, symprec=SYMPREC)
    ok, told = found == requested, "space group {} found, {} requested".format
    return Answer.of(ok, lambda i: told(found[i], requested[i]), space_group=found.astype(float))


def compound(content: CrystalBatch, rows: np.ndarray) -> Answer:
    """Are there two elements or more?"""
    ok = (safe_counts(content) > 0).sum(1) > 1
    return Answer.of(ok, lambda _: "a single element")


def unlike_earlier(content: CrystalBatch, rows: np.ndarray, *, match: MatchSettings) -> Answer:
    """Is it unlike all earlier ones?"""
    found = same.same_as_earlier(content, settings=match)
    return _unlike(found, lambda i: f"same as sample {rows[found.first[i]]}")


def unlike_known(
    content: CrystalBatch,
    rows: np.ndarray,
    *,
    match: MatchSettings,
    known: tuple[CrystalBatch, np.ndarray] | None,
    called: str = "known crystal",
    names: np.ndarray | None = None,
) -> Answer:
    """Is it unlike all known crystals? These are called by their places, or have names."""
    if known is None:  # nobody knows a crystal of such a composition
        broken = np.flatnonzero(broken_crystals(content)).tolist()
        nowhere = np.full(len(rows), same.NONE)
        return _unlike(same.Matches(nowhere, dict.fromkeys(broken, "broken crystal")), str)
    crystals, places = known
    names = places if names is None else names[places]
    found = same.same_as_reference(content, crystals, settings=match)
    return _unlike(found, lambda i: f"same as {called} {names[found.first[i]]}")


def _unlike(found: same.Matches, why: Callable[[int], str]) -> Answer:
    ok = found.first == same.NONE
    ok[list(found.failed)] = False
    return Answer.of(ok, lambda i: found.failed.get(i) or why(i))


class Unique(Fact):
    """Is it unlike all earlier ones? Many of one composition are compared in rounds.

    In each round the next ones of a composition are compared among themselves, and all behind them
    with those of them that are new, so that workers share them, and what is done is kept.
    """

    def ask(self, run: Run) -> None:
        """Ask about some of each composition at a time."""
        match, name = self.settings(run), self.name
        left = run.left[run.holds(self.among, self.but_not)[run.left]]
        for number in count(1):
            now = compositions.occurrence(run.keys(left)) < self.piece
            some, left = left[now], left[~now]
            label = f"{name} {number}" if number > 1 else name
            for rows, answer in run.answers(self, self.answer, some, match, label=label):
                run.take(self, rows, answer)
            first = some[run.yes(name)[some]]
            if len(left) and len(first):
                settings = {**match, "called": "sample", "names": first}
                known = [Known(run.content[first])]
                apart, label = replace(self, together=False), f"{name} {number} behind"
                for rows, answer in run.answers(
                    apart, unlike_known, left, settings, label=label, known=known
                ):
                    run.take(self, rows, answer)
                left = left[run.yes(name)[left]]
            if not len(left):
                return


class Novel(Fact):
    """Is it unlike all known crystals? What one set knows is not looked up in the next."""

    def ask(self, run: Run) -> None:
        """Ask each set about the samples that none before it knows."""
        rows = run.left
        for kind, known in run.known.items():
            settings = {"match": run.protocol.match, "called": f"{kind} crystal"}
            asked = run.answers(
                self, self.answer, rows, settings, label=f"novel {kind}", known=[known]
            )
            for some, answer in asked:
                run.take(self, some, answer)
            rows = rows[run.yes(self.name)[rows]]


# ---- about crystals, with energies


def potential_name(potential: str | Potential) -> str:
    """The name of a potential, given as such or loaded."""
    return potential if isinstance(potential, str) else potential.name


class Relaxed(Fact):
    """Does the potential give an energy, at a minimum or where the steps ended?"""

    def ask(self, run: Run) -> None:
        """Scan what symmetry fixes up to the volume, and relax all others."""
        energies = run.protocol.energies
        road = np.full(len(run.samples), RELAX)
        if energies.lattice_scan:
            for rows, answer in run.answers(self, free_scale, run.left, label="road"):
                road[rows] = answer.values["road"]
        shared = _potential(run)
        forces = {**shared, "fmax": energies.fmax, "steps": energies.steps}
        scanned = road[run.left] == SCAN
        before = run.content
        lattice, frac = before.lattice.clone(), before.frac.clone()
        for label, function, piece, some, settings in (
            ("scan", scan, 32, run.left[scanned], shared),
            ("relax", relax, 8, run.left[~scanned], forces),
        ):
            asked = run.answers(self, function, some, settings, label=label, piece=piece)
            for rows, answer in asked:
                run.take(self, rows, answer)
                if answer.content is not None:
                    at, width = torch.as_tensor(rows), answer.content.frac.shape[1]
                    lattice[at] = answer.content.lattice
                    frac[at, :width] = answer.content.frac
        run.content = CrystalBatch(lattice, frac, before.numbers)
        if energies.rattle:
            self._push(run, {**forces, "amplitude": energies.rattle})
        if energies.lattice_scan:
            run.value("scanned")[run.left] = road[run.left]

    def _push(self, run: Run, settings: Mapping[str, Any]) -> None:
        """Out of saddles: the lower of two minima counts."""
        rows = run.left[np.isfinite(run.value("energy")[run.left])]
        energy, which = run.value("energy"), np.arange(len(run.samples))
        parts = [run.content]  # and the primitive cells of those that fell
        for some, answer in run.answers(self, push, rows, settings, label="rattle", piece=8):
            gain = np.nan_to_num(energy[some] - answer.values["energy"])
            run.value("gain by rattling")[some] = np.maximum(gain, 0.0)
            down = answer.ok & (gain > FELL)
            run.value("symmetry kept")[some] = np.where(down, answer.values["kept"], 1.0)
            fell = np.flatnonzero(down)
            if len(fell):
                which[some[fell]] = sum(map(len, parts)) + np.arange(len(fell))
                energy[some[fell]] = answer.values["energy"][fell]
                parts.append(answer.content[fell])
        run.content = CrystalBatch.cat(parts)[which]


def push(
    content: CrystalBatch,
    rows: np.ndarray,
    *,
    potential: Any,
    most_atoms: int,
    fmax: float,
    steps: int,
    amplitude: float,
) -> Answer:
    """Primitive cells relaxed again after a push that keeps no symmetry."""
    from ..energies.relaxation import rattled

    start = symmetry.primitive(content)
    pushed = rattled(start, amplitude=amplitude, seeds=rows)
    shared = {"potential": potential, "most_atoms": most_atoms}
    found = relax(pushed, rows, fmax=fmax, steps=steps, **shared)
    before, after = map(symmetry.space_group_numbers, (start, found.content))
    missing = np.full(len(rows), np.nan)
    values = {
        "energy": found.values.get("energy", missing),
        "kept": (before == after).astype(float),
    }
    return replace(found, ok=found.values.get("converged", missing) == 1, values=values)


def as_submitted(
    content: CrystalBatch, rows: np.ndarray, *, potential: Any, most_atoms: int
) -> Answer:
    """Energy of the crystal as it is."""
    return _behind_gate(
        content, most_atoms, lambda some: single_point(some, rows, potential=potential)
    )


def free_scale(content: CrystalBatch, rows: np.ndarray) -> Answer:
    """Which crystals may be scanned in volume instead of relaxed?"""
    road = np.where(symmetry.only_scale_is_free(content), SCAN, RELAX)
    return Answer(np.ones(len(rows), dtype=bool), values={"road": road})


def scan(content: CrystalBatch, rows: np.ndarray, *, potential: Any, most_atoms: int) -> Answer:
    """Energy at the minimum of the equation of state."""
    from ..energies.lattice_scan import lattice_scan

    def at_minimum(some: CrystalBatch) -> Answer:
        found = lattice_scan(some, potential)
        values = {"energy": found.energy, "bulk_modulus": found.bulk_modulus}
        values["converged"] = found.ok.astype(float)
        why = {i: reason for i, reason in enumerate(found.reasons) if not found.ok[i]}
        return Answer(found.ok, why, values, found.crystals)

    return _behind_gate(content, most_atoms, at_minimum)


def relax(
    content: CrystalBatch,
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

    return _behind_gate(content, most_atoms, downhill)


def _behind_gate(
    crystals: CrystalBatch, most_atoms: int, ask: Callable[[CrystalBatch], Answer]
) -> Answer:
    """Ask only about crystals that a potential can know something about."""
    verdict = geometry_verdict(crystals, GATE)
    sites = crystals.n_sites.numpy()
    good = verdict.ok & (sites <= most_atoms)
    out = Answer(np.zeros(len(good), dtype=bool), content=crystals)
    for i in np.flatnonzero(~good).tolist():
        out.reasons[i] = (
            f"{sites[i]} atoms: more than {most_atoms} are not relaxed"
            if verdict.ok[i]
            else f"distance gate: {verdict.reason(i)}"
        )
    inside = np.flatnonzero(good)
    if len(inside) == 0:
        return out
    part = ask(crystals[inside])
    for i in np.flatnonzero(~part.ok).tolist():
        part.reasons.setdefault(i, "the potential gives no energy")
    return put_in(out, inside, part)


def put_in(whole: Answer, places: np.ndarray, part: Answer) -> Answer:
    """The answer about some samples, in their places in the answer about all."""
    whole.ok[places] = part.ok
    whole.reasons |= {int(places[i]): why for i, why in part.reasons.items()}
    whole.details |= {int(places[i]): what for i, what in part.details.items()}
    for name, values in part.values.items():
        whole.values[name] = np.full(len(whole.ok), np.nan)
        whole.values[name][places] = values
    if part.content is not None and whole.content is not None:
        lattice, frac = whole.content.lattice.clone(), whole.content.frac.clone()
        lattice[places], frac[places] = part.content.lattice, part.content.frac
        whole.content = CrystalBatch(lattice, frac, whole.content.numbers)
    return whole


def converged(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Are forces and stresses below the limit within the steps?"""
    why = f"forces above the limit after {run.protocol.energies.steps} steps"
    return run.value("converged")[run.left] == 1, dict.fromkeys(run.left.tolist(), why)


class Hull(Fact):
    """Are there energies to compare with? By each potential; the first one's verdict counts.

    What each potential says stays as it is, because so it was calibrated; where a protocol wants
    corrections that the first one did not learn, they go into the energy above hull that decides.
    """

    def ask(self, run: Run) -> None:
        """Ask each potential about all samples that the first one gave an energy."""
        rows = run.left[np.isfinite(run.value("energy")[run.left])]
        missing = np.setdiff1d(run.left, rows)
        why = dict.fromkeys(missing.tolist(), "no energy")
        run.note(self, missing, np.zeros(len(missing), dtype=bool), why)
        run.value(calibration.METALS)[rows] = calibration.metals_alone(
            safe_counts(run.content[rows])
        )
        above = np.stack([self._above(run, k, rows) for k in range(len(run.potentials))])
        run.values["energy_above_hull"] = above[0].copy()
        if adds(run):
            run.values["energy_above_hull"] = self._above(run, 0, rows, corrected=True)
        if len(above) < 2:
            return
        both = np.isfinite(above).all(0)
        run.values["disagreement"] = np.where(both, above.max(0) - above.min(0), np.nan)
        if run.protocol.energies.ensemble:
            run.values["energy_above_hull"] = np.where(both, above.mean(0), above[0])

    def _above(self, run: Run, k: int, rows: np.ndarray, *, corrected: bool = False) -> np.ndarray:
        """(n,) energy above hull by potential k."""
        called = potential_name(run.potentials[k])
        energy = run.value("energy").copy()
        if k:
            energy[:] = np.nan
            one = {"potential": run.potentials[k]}
            label = f"single point {called}"
            for some, answer in run.answers(self, single_point, rows, one, label=label, piece=64):
                energy[some] = answer.values["energy"]
            rows = rows[np.isfinite(energy[rows])]
        settings = {"potential": called, "competitors": run.protocol.energies.competitors}
        label = f"hull {called}"
        if corrected:
            settings, label = {**settings, "corrected": True}, f"{label} corrected"
        above = np.full(len(run.samples), np.nan)
        for some, answer in run.answers(
            self, self.answer, rows, settings, label=label, each={"energy": energy}
        ):
            above[some] = answer.values.pop("energy_above_hull")
            if k == 0 and not corrected:
                run.take(self, some, answer)
        if len(run.potentials) > 1 and not corrected:
            run.values[f"energy_above_hull {called}"] = above
        return above


def adds(run: Run) -> bool:
    """Does the protocol want corrections that the first potential did not learn?"""
    from ..energies.potentials import potential

    return run.protocol.corrected and not potential(run.potentials[0]).corrected


def single_point(content: CrystalBatch, rows: np.ndarray, *, potential: Any) -> Answer:
    """Energy of a second potential where the first one came to rest."""
    from ..energies.potentials import potential as load

    found = load(potential).energies(content)
    return Answer(np.isfinite(found), values={"energy": found})


def above_hull(
    content: CrystalBatch,
    rows: np.ndarray,
    *,
    energy: np.ndarray,
    potential: str,
    competitors: int,
    corrected: bool = False,
) -> Answer:
    """Energy above hull, where enough known compounds compete; with MP2020 if asked for."""
    from ..energies import corrections, hull

    added = {"added": corrections.mp2020(content)} if corrected else {}
    verdict = hull.above_hull(content.counts().numpy(), energy, potential, **added)
    few = np.asarray(verdict.n_competitors) < competitors
    ok = np.asarray(verdict.ok) & ~few
    told = "only {} known compounds compete".format
    return Answer.of(
        ok,
        lambda i: verdict.reasons[i] or told(verdict.n_competitors[i]),
        energy_above_hull=np.where(ok, verdict.energy_above_hull, np.nan),
        formation_energy=np.asarray(verdict.formation_energy, dtype=float),
        competitors=np.asarray(verdict.n_competitors, dtype=float),
    )


def plausible(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Is it not far below all that is known? That is a failure of the potential, no discovery."""
    energies = run.protocol.energies
    formed = run.value("formation_energy")[run.left]
    above = run.value("energy_above_hull")[run.left]
    several = (safe_counts(run.content[run.left]) > 0).sum(1) > 2
    deep = formed < energies.lowest_formation
    lonely = several & (above < energies.lowest_above_hull)
    why = {}
    for k in np.flatnonzero(deep | lonely):
        name, value, limit = (
            ("formation energy", formed[k], energies.lowest_formation)
            if deep[k]
            else ("energy above hull", above[k], energies.lowest_above_hull)
        )
        why[int(run.left[k])] = f"{name} {value:.3g} eV/atom < {limit:g} eV/atom"
    return ~(deep | lonely), why


def low(run: Run, *, threshold: str) -> tuple[np.ndarray, dict[int, str]]:
    """Is the energy above hull at most a threshold of the protocol?"""
    limit = getattr(run.protocol.energies, threshold)
    above = run.value("energy_above_hull")[run.left]
    why = {
        int(i): f"{value:.3f} eV/atom above hull > {limit:g}"
        if np.isfinite(value)
        else "no energy above hull"
        for i, value in zip(run.left, above, strict=True)
    }
    with np.errstate(invalid="ignore"):
        return above <= limit, why


def still_new(
    content: CrystalBatch,
    rows: np.ndarray,
    *,
    match: MatchSettings,
    known: tuple[CrystalBatch, np.ndarray] | None,
) -> Answer:
    """Has relaxation made it neither a known crystal nor an earlier sample?"""
    first = unlike_known(content, rows, match=match, known=known)
    again = unlike_earlier(content, rows, match=match)
    reasons = {**again.reasons, **first.reasons}
    return Answer(first.ok & again.ok, {i: f"relaxed: {why}" for i, why in reasons.items()})


# ---- about compositions: millions of them, so no reason is written for each


def adds_up(content: np.ndarray, rows: np.ndarray, **settings: Any) -> Answer:
    """Does some choice of oxidation states add up to zero?"""
    return Answer(charge.charge_neutral(content, **settings))


def first_formula(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Has no earlier sample the same reduced formula?"""
    ok = np.zeros(len(run.samples), dtype=bool)
    ok[first_rows(run.content)] = True
    return ok[run.left], {}


def new_formula(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Is the reduced formula unknown?"""
    new = np.ones(len(run.samples), dtype=bool)
    for known in run.known.values():
        new &= ~member(run.content, known.counts)
    return new[run.left], {}


# ---- settings and meanings


def _charges(run: Run, **more: Any) -> dict[str, Any]:
    protocol = run.protocol
    return {"oxidation_states": protocol.oxidation_states, "alloys": protocol.alloys, **more}


def _charges_mean(run: Run, **more: Any) -> dict[str, Any]:
    return charge.definition(**_charges(run, **more))


def _groups_mean(run: Run) -> dict[str, Any]:
    return {"rule": "found = requested", "symprec": SYMPREC, "moyopy": metadata.version("moyopy")}


def _match(run: Run) -> dict[str, Any]:
    return {"match": run.protocol.match}


def _same(run: Run) -> dict[str, Any]:
    return run.protocol.match.definition()


def _energies(run: Run, *names: str) -> dict[str, Any]:
    return {name: getattr(run.protocol.energies, name) for name in names}


def _unique_means(run: Run) -> dict[str, Any]:
    return {**_same(run), "order": ORDER}


def _potential(run: Run) -> dict[str, Any]:
    return {"potential": run.potentials[0], **_energies(run, "most_atoms")}


def _energy_means(run: Run) -> dict[str, Any]:
    from ..energies.potentials import potential

    about = potential(run.potentials[0]).definition()
    return {**about, **_energies(run, "most_atoms"), "gate": GATE.definition()}


def _relaxed_means(run: Run) -> dict[str, Any]:
    return {**_energy_means(run), **_energies(run, "fmax", "steps", "lattice_scan", "rattle")}


def _hull_means(run: Run) -> dict[str, Any]:
    from ..energies import corrections, hull
    from ..energies.potentials import potential

    energies = run.protocol.energies
    each = {potential_name(one): potential(one).definition() for one in run.potentials}
    return {
        "competitors": energies.competitors,
        "combined": "mean" if energies.ensemble and len(each) > 1 else "first",
        **(corrections.definition() if adds(run) else {}),
        **{name: {**about, **hull.definition(name)} for name, about in each.items()},
    }


def _low(threshold: str) -> Fact:
    def meaning(run: Run) -> dict[str, Any]:
        return {"energy_above_hull": getattr(run.protocol.energies, threshold)}

    return AtOnce(threshold, partial(low, threshold=threshold), meaning, needs="potentials")


def _unique(name: str, among: str = "", but_not: tuple[str, ...] = ()) -> Fact:
    rest = {"among": (among,), "but_not": but_not, "needs": "potentials"} if among else {}
    common = {"together": True, "relaxed_too": True, "piece": 500}
    return Unique(name, unlike_earlier, _unique_means, _match, **common, **rest)


def _balanced(name: str, *, pauling: bool) -> Fact:
    meaning, settings = (partial(each, pauling=pauling) for each in (_charges_mean, _charges))
    return Fact(name, adds_up, meaning, settings, piece=8_192)


# ---- all of them

_CRYSTALS = (
    AtOnce("decodes", decodes, "the descriptor gives back a crystal"),
    Fact(
        "distances",
        distances,
        lambda run: run.protocol.rule.definition(),
        lambda run: {"rule": run.protocol.rule},
        piece=20_000,
        relaxed_too=True,
    ),
    Fact("charge neutral", neutral, _charges_mean, _charges, piece=50_000, relaxed_too=True),
    Fact("charge balance", bonds_balance, lambda run: bond_valence.definition(), piece=200),
    Fact(
        "space group",
        group_kept,
        _groups_mean,
        each=lambda run: {"requested": run.samples.asked["space_group"]},
        needs="space group",
    ),
    Fact("compound", compound, "at least two elements", piece=100_000),
    _unique("unique"),
    Novel("novel", unlike_known, _same, relaxed_too=True, compares=True, needs="known"),
    Fact("energy", as_submitted, _energy_means, _potential, piece=64, needs="potentials"),
    Relaxed("relaxed", relax, _relaxed_means, needs="potentials"),
    AtOnce("converged", converged, lambda run: _energies(run, "fmax", "steps"), needs="potentials"),
    Hull("hull", above_hull, _hull_means, piece=500, needs="potentials"),
    AtOnce(
        "plausible energy",
        plausible,
        lambda run: _energies(run, "lowest_formation", "lowest_above_hull"),
        needs="potentials",
    ),
    _low("metastable"),
    _low("stable"),
    _unique("unique among stable", "stable"),
    _unique("unique among metastable", "metastable", ("stable",)),
    Fact("still new", still_new, _same, _match, together=True, compares=True, needs="potentials"),
)
_COMPOSITIONS = (
    AtOnce("decoded", decodes, "2 to 8 elements, at most 8 atoms of each"),
    _balanced("charge neutral", pauling=False),  # whoever is the anion
    _balanced("charge balanced", pauling=True),  # cations less electronegative than anions
    AtOnce("unique", first_formula, "reduced formula, first of its kind"),
    AtOnce("novel", new_formula, "formula not in the training set", compares=True, needs="known"),
)
FACTS: dict[str, dict[str, Fact]] = {
    "crystals": {fact.name: fact for fact in _CRYSTALS},
    "compositions": {fact.name: fact for fact in _COMPOSITIONS},
}
