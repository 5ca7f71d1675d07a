"""The questions of the judge, one object each: its words, its answer, its settings, its meaning.

A fact answers for every sample of a piece, and says why not where the answer is no. The function
that answers takes a piece of the content and plain settings, so that it runs in any process.
Whether a fact is about crystals as sampled or as relaxed depends on where a protocol asks it.
"""

# ruff: noqa: D102  (the methods are documented once, in `Fact`)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.compositions import first_rows, member
from ..crystals.rules import GeometryRule, broken_crystals, geometry_verdict
from ..energies.potentials import GATE
from ..matching import same
from ..matching.same import MatchSettings
from . import charge
from .samples import safe_counts

if TYPE_CHECKING:
    from ..energies.potentials import Potential
    from .engine import Run

SYMPREC = 0.1  # Å, for the space group that a sample has
SCAN, RELAX = 1.0, 0.0  # the two roads to a minimum


@dataclass(eq=False)
class Answer:
    """What is said about k samples.

    Attributes:
        ok: (k,) bool.
        reasons: place in the piece -> why not.
        values: quantity -> (k,) float64.
        content: the k samples, where they were moved or made.
        seconds: wall time.
    """

    ok: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    content: Any = None
    seconds: float = 0.0


class Fact:
    """A question with a yes or a no for each sample.

    Attributes:
        name: as protocols and reports call it.
        words: what a yes says.
        piece: samples in one piece of work: some seconds each.
        together: samples of one composition stay in one piece.
        relaxed_too: asked behind ``relaxed`` it means another thing, and says so.
        needs: ``known``, ``potentials`` or ``space group`` (asked for), without which it is not
            asked; or nothing.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    piece: ClassVar[int] = 1_000
    together: ClassVar[bool] = False
    relaxed_too: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    def can(self, run: Run) -> bool:
        """Is there what the question needs?"""
        asked = "space_group" in run.samples.asked
        there = {"known": run.known, "potentials": run.potentials, "space group": asked, "": True}
        return bool(there[self.needs])

    def meaning(self, run: Run) -> dict[str, Any]:
        """Rules, thresholds, tables, versions: reports compare only where this is equal."""
        return {"rule": self.words}

    def settings(self, run: Run) -> dict[str, Any]:
        """What `answer` takes beside the samples."""
        return {}

    def ask(self, run: Run) -> None:
        """Ask about all samples that are left, in pieces."""
        for rows, answer in run.answers(self, self.answer, run.left, self.settings(run)):
            run.take(self, rows, answer)

    @staticmethod
    def answer(content: Any, rows: np.ndarray, **settings: Any) -> Answer:
        """The answer about one piece.

        Args:
            content: k crystals, or (k, 119) counts.
            rows: (k,) their places among all samples.
            settings: see `settings`.
        """
        raise NotImplementedError


# ---- about crystals, without energies


class Decodes(Fact):
    """Could the descriptor decode it, or the file be read?"""

    name, words = "decodes", "the descriptor or file gives back a crystal"

    def meaning(self, run: Run) -> dict[str, Any]:
        return {"rule": "the descriptor gives back a crystal"}

    def ask(self, run: Run) -> None:
        samples = run.samples
        why = {i: samples.reasons[i] for i in np.flatnonzero(~samples.ok).tolist()}
        run.note(self, run.left, samples.ok[run.left], why)


class Distances(Fact):
    """Does the geometry rule hold?"""

    name, words = "distances", "the geometry rule holds"
    piece, relaxed_too = 20_000, True

    def meaning(self, run: Run) -> dict[str, Any]:
        return run.protocol.rule.definition()

    def settings(self, run: Run) -> dict[str, Any]:
        return {"rule": run.protocol.rule}

    @staticmethod
    def answer(content: CrystalBatch, rows: np.ndarray, *, rule: GeometryRule) -> Answer:
        verdict = geometry_verdict(content, rule)
        failed = np.flatnonzero(~verdict.ok).tolist()
        return Answer(verdict.ok, {i: verdict.reason(i) for i in failed})


class ChargeNeutral(Fact):
    """Do some oxidation states balance?"""

    name, words = "charge neutral", "oxidation states balance"
    piece, relaxed_too = 50_000, True

    def meaning(self, run: Run) -> dict[str, Any]:
        return charge.definition(**self.settings(run))

    def settings(self, run: Run) -> dict[str, Any]:
        protocol = run.protocol
        return {"oxidation_states": protocol.oxidation_states, "alloys": protocol.alloys}

    @staticmethod
    def answer(
        content: CrystalBatch, rows: np.ndarray, *, oxidation_states: str, alloys: bool
    ) -> Answer:
        numbers = content.numbers.numpy()
        atoms = ((numbers >= 0) & (numbers < elements.N_COLUMNS)).all(1) & (numbers > 0).any(1)
        ok = np.zeros(len(numbers), dtype=bool)
        known = np.flatnonzero(atoms)
        if len(known):
            counts = content[known].counts().numpy()
            ok[known] = charge.charge_neutral(
                counts, oxidation_states=oxidation_states, alloys=alloys
            )
        reasons = {
            int(
                i
            ): f"no {oxidation_states} oxidation states balance {content[int(i)].formulas()[0]}"
            if atoms[i]
            else "no atoms, or numbers that are no elements"
            for i in np.flatnonzero(~ok)
        }
        return Answer(ok, reasons)


class SpaceGroup(Fact):
    """Is the space group that was asked for the one found?"""

    name, words = "space group", "the space group found is the one requested"
    needs = "space group"

    def meaning(self, run: Run) -> dict[str, Any]:
        versions = {"moyopy": metadata.version("moyopy")}
        return {"rule": "found = requested", "symprec": SYMPREC, **versions}

    def ask(self, run: Run) -> None:
        requested = {"requested": run.samples.asked["space_group"]}
        for rows, answer in run.answers(self, self.answer, run.left, each=requested):
            run.take(self, rows, answer)

    @staticmethod
    def answer(content: CrystalBatch, rows: np.ndarray, *, requested: np.ndarray) -> Answer:
        ok, found = same.space_group_kept(content, requested, symprec=SYMPREC)
        reasons = {
            int(i): f"space group {found[i]} found, {requested[i]} requested"
            for i in np.flatnonzero(~ok)
        }
        return Answer(ok, reasons, {"space_group": found.astype(float)})


class Compound(Fact):
    """Are there two elements or more?"""

    name, words, piece = "compound", "at least two elements", 100_000

    @staticmethod
    def answer(content: CrystalBatch, rows: np.ndarray) -> Answer:
        numbers = np.sort(content.numbers.numpy(), axis=1)
        different = ((np.diff(numbers, axis=1, prepend=0) > 0) & (numbers > 0)).sum(1)
        ok = different > 1
        return Answer(ok, dict.fromkeys(np.flatnonzero(~ok).tolist(), "a single element"))


class Unique(Fact):
    """Is it unlike all earlier ones?"""

    name, words = "unique", "not the same as an earlier sample"
    together, relaxed_too = True, True

    def meaning(self, run: Run) -> dict[str, Any]:
        return {**run.protocol.match.definition(), "samples": len(run.samples)}

    def settings(self, run: Run) -> dict[str, Any]:
        return {"match": run.protocol.match}

    @staticmethod
    def answer(content: CrystalBatch, rows: np.ndarray, *, match: MatchSettings) -> Answer:
        found = same.same_as_earlier(content, settings=match)
        return _unlike(found, lambda i: f"same as sample {rows[found.first[i]]}")


class Novel(Fact):
    """Is it unlike all known crystals?"""

    name, words = "novel", "not the same as a known crystal"
    relaxed_too, needs = True, "known"

    def meaning(self, run: Run) -> dict[str, Any]:
        return {**run.protocol.match.definition(), **run.known_definition()}

    def ask(self, run: Run) -> None:
        rows = run.left
        for kind, known in run.known.items():  # what one set knows is not looked up in the next
            settings = {"match": run.protocol.match, "called": kind}
            asked = run.answers(
                self, self.answer, rows, settings, label=f"novel {kind}", known=[known]
            )
            for some, answer in asked:
                run.take(self, some, answer)
            rows = rows[run.yes(self.name)[rows]]

    @staticmethod
    def answer(
        content: CrystalBatch,
        rows: np.ndarray,
        *,
        match: MatchSettings,
        known: tuple[CrystalBatch, np.ndarray] | None,
        called: str,
    ) -> Answer:
        if known is None:  # nobody knows a crystal of such a composition
            broken = np.flatnonzero(broken_crystals(content)).tolist()
            nowhere = np.full(len(rows), same.NONE)
            found = same.Matches(nowhere, dict.fromkeys(broken, "broken crystal"))
            return _unlike(found, lambda i: "")
        crystals, places = known
        found = same.same_as_reference(content, crystals, settings=match)
        return _unlike(found, lambda i: f"same as {called} crystal {places[found.first[i]]}")


def _unlike(found: same.Matches, why: Callable[[int], str]) -> Answer:
    ok = found.first == same.NONE
    ok[list(found.failed)] = False
    failed = np.flatnonzero(~ok).tolist()
    return Answer(ok, {i: found.failed.get(i) or why(i) for i in failed})


# ---- about crystals, with energies


class EnergyFact(Fact):
    """A question that needs a potential."""

    needs = "potentials"


class Relaxed(EnergyFact):
    """Does the potential give an energy, at a minimum or where the steps ended?"""

    name = "relaxed"
    words = "the potential gives an energy at a minimum, or where the steps ended"

    def meaning(self, run: Run) -> dict[str, Any]:
        from ..energies.potentials import potential

        energies = run.protocol.energies
        return {
            **potential(run.potentials[0]).definition(),
            "fmax": energies.fmax,
            "steps": energies.steps,
            "lattice_scan": energies.lattice_scan,
            "most_atoms": energies.most_atoms,
            "gate": GATE.definition(),
        }

    def ask(self, run: Run) -> None:
        energies = run.protocol.energies
        road = np.zeros(len(run.samples))
        if energies.lattice_scan:
            for rows, answer in run.answers(self, self.road, run.left, label="road"):
                road[rows] = answer.values["road"]
        shared = {"potential": run.potentials[0], "most_atoms": energies.most_atoms}
        forces = {**shared, "fmax": energies.fmax, "steps": energies.steps}
        scanned = road[run.left] == SCAN
        before = run.content
        lattice, frac = before.lattice.clone(), before.frac.clone()
        for label, function, piece, some, settings in (
            ("scan", self.scan, 32, run.left[scanned], shared),
            ("relax", self.relax, 8, run.left[~scanned], forces),
        ):
            asked = run.answers(self, function, some, settings, label=label, piece=piece)
            for rows, answer in asked:
                run.take(self, rows, answer)
                if answer.content is not None:
                    at, width = torch.as_tensor(rows), answer.content.frac.shape[1]
                    lattice[at] = answer.content.lattice
                    frac[at, :width] = answer.content.frac
        run.move(CrystalBatch(lattice, frac, before.numbers))
        if energies.lattice_scan:
            scan = np.full(len(road), np.nan)
            scan[run.left] = road[run.left]
            run.values["scanned"] = scan

    @staticmethod
    def road(content: CrystalBatch, rows: np.ndarray) -> Answer:
        """Which crystals may be scanned in volume instead of relaxed?"""
        broken = broken_crystals(content)
        scan = np.zeros(len(rows), dtype=bool)
        if not broken.all():
            scan[~broken] = symmetry.only_scale_is_free(content[np.flatnonzero(~broken)])
        return Answer(np.ones(len(rows), dtype=bool), values={"road": np.where(scan, SCAN, RELAX)})

    @staticmethod
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

    @staticmethod
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
    for name, values in part.values.items():
        whole.values[name] = np.full(len(whole.ok), np.nan)
        whole.values[name][places] = values
    if part.content is not None and whole.content is not None:
        lattice, frac = whole.content.lattice.clone(), whole.content.frac.clone()
        lattice[places], frac[places] = part.content.lattice, part.content.frac
        whole.content = CrystalBatch(lattice, frac, whole.content.numbers)
    return whole


class Converged(EnergyFact):
    """Are forces and stresses below the limit?"""

    name, words = "converged", "forces and stresses are below the limit within the steps"

    def meaning(self, run: Run) -> dict[str, Any]:
        return {"fmax": run.protocol.energies.fmax, "steps": run.protocol.energies.steps}

    def ask(self, run: Run) -> None:
        why = f"forces above the limit after {run.protocol.energies.steps} steps"
        ok = run.value("converged")[run.left] == 1
        run.note(self, run.left, ok, dict.fromkeys(run.left.tolist(), why))


class Hull(EnergyFact):
    """Are there energies to compare with? By each potential; the first one's verdict counts."""

    name, words, piece = "hull", "there are energies to compare with", 500

    def meaning(self, run: Run) -> dict[str, Any]:
        from ..energies import hull
        from ..energies.potentials import potential

        energies = run.protocol.energies
        each = {potential_name(one): potential(one).definition() for one in run.potentials}
        return {
            "competitors": energies.competitors,
            "combined": "mean" if energies.ensemble and len(each) > 1 else "first",
            **{name: {**about, **hull.definition(name)} for name, about in each.items()},
        }

    def ask(self, run: Run) -> None:
        rows = run.left[np.isfinite(run.value("energy")[run.left])]
        missing = np.setdiff1d(run.left, rows)
        why = dict.fromkeys(missing.tolist(), "no energy")
        run.note(self, missing, np.zeros(len(missing), dtype=bool), why)
        above = np.stack([self._above(run, k, rows) for k in range(len(run.potentials))])
        run.values["energy_above_hull"] = above[0].copy()
        if len(above) < 2:
            return
        both = np.isfinite(above).all(0)
        run.values["disagreement"] = np.where(both, above.max(0) - above.min(0), np.nan)
        if run.protocol.energies.ensemble:
            run.values["energy_above_hull"] = np.where(both, above.mean(0), above[0])

    def _above(self, run: Run, k: int, rows: np.ndarray) -> np.ndarray:
        """(n,) energy above hull by potential k."""
        called = potential_name(run.potentials[k])
        energy = run.value("energy").copy()
        if k:
            energy[:] = np.nan
            one = {"potential": run.potentials[k]}
            label = f"single point {called}"
            for some, answer in run.answers(
                self, self.single_point, rows, one, label=label, piece=64
            ):
                energy[some] = answer.values["energy"]
            rows = rows[np.isfinite(energy[rows])]
        settings = {"potential": called, "competitors": run.protocol.energies.competitors}
        above = np.full(len(run.samples), np.nan)
        for some, answer in run.answers(
            self, self.answer, rows, settings, label=f"hull {called}", each={"energy": energy}
        ):
            above[some] = answer.values.pop("energy_above_hull")
            if k == 0:
                run.take(self, some, answer)
        if len(run.potentials) > 1:
            run.values[f"energy_above_hull {called}"] = above
        return above

    @staticmethod
    def single_point(content: CrystalBatch, rows: np.ndarray, *, potential: Any) -> Answer:
        """Energy of a second potential where the first one came to rest."""
        from ..energies.potentials import potential as load

        found = load(potential).energies(content)
        return Answer(np.isfinite(found), values={"energy": found})

    @staticmethod
    def answer(
        content: CrystalBatch,
        rows: np.ndarray,
        *,
        energy: np.ndarray,
        potential: Any,
        competitors: int,
    ) -> Answer:
        from ..energies.hull import above_hull

        verdict = above_hull(content.counts().numpy(), energy, potential)
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


class PlausibleEnergy(EnergyFact):
    """Is it not far below all that is known? That is a failure of the potential, no discovery."""

    name, words = "plausible energy", "the energy is not far below all that is known"

    def meaning(self, run: Run) -> dict[str, Any]:
        energies = run.protocol.energies
        return {
            "lowest_formation": energies.lowest_formation,
            "lowest_above_hull": energies.lowest_above_hull,
        }

    def ask(self, run: Run) -> None:
        energies = run.protocol.energies
        formed = run.value("formation_energy")[run.left]
        above = run.value("energy_above_hull")[run.left]
        several = (safe_counts(run.content[run.left]) > 0).sum(1) > 2
        deep = formed < energies.lowest_formation
        lonely = several & (above < energies.lowest_above_hull)
        why = {}
        for k, i in enumerate(run.left.tolist()):
            if deep[k]:
                limit = energies.lowest_formation
                why[i] = f"formation energy {formed[k]:.3g} eV/atom < {limit:g} eV/atom"
            elif lonely[k]:
                limit = energies.lowest_above_hull
                why[i] = f"energy above hull {above[k]:.3g} eV/atom < {limit:g} eV/atom"
        run.note(self, run.left, ~(deep | lonely), why)


class Metastable(EnergyFact):
    """Is the energy above hull at most the larger threshold?"""

    name, words = "metastable", "energy above hull at most the larger threshold"

    def limit(self, run: Run) -> float:
        """eV/atom."""
        return run.protocol.energies.metastable

    def meaning(self, run: Run) -> dict[str, Any]:
        return {"energy_above_hull": self.limit(run)}

    def ask(self, run: Run) -> None:
        limit = self.limit(run)
        above = run.value("energy_above_hull")[run.left]
        why = {
            int(i): f"{value:.3f} eV/atom above hull > {limit:g}"
            if np.isfinite(value)
            else "no energy above hull"
            for i, value in zip(run.left, above, strict=True)
        }
        with np.errstate(invalid="ignore"):
            run.note(self, run.left, above <= limit, why)


class Stable(Metastable):
    """Is the energy above hull at most the smaller threshold?"""

    name, words = "stable", "energy above hull at most the smaller threshold"

    def limit(self, run: Run) -> float:
        return run.protocol.energies.stable


class StillNew(EnergyFact):
    """Has relaxation made it neither a known crystal nor an earlier sample?"""

    name = "still new"
    words = "after relaxation neither a known crystal nor an earlier sample"
    together = True

    def meaning(self, run: Run) -> dict[str, Any]:
        own = {**run.protocol.match.definition(), "samples": len(run.samples)}
        return {**own, **run.known_definition()}

    def ask(self, run: Run) -> None:
        settings, known = {"match": run.protocol.match}, list(run.known.values())
        for rows, answer in run.answers(self, self.answer, run.left, settings, known=known):
            run.take(self, rows, answer)

    @staticmethod
    def answer(
        content: CrystalBatch,
        rows: np.ndarray,
        *,
        match: MatchSettings,
        known: tuple[CrystalBatch, np.ndarray] | None,
    ) -> Answer:
        first = Novel.answer(content, rows, match=match, known=known, called="known")
        again = Unique.answer(content, rows, match=match)
        reasons = {**again.reasons, **first.reasons}
        return Answer(first.ok & again.ok, {i: f"relaxed: {why}" for i, why in reasons.items()})


def potential_name(potential: str | Potential) -> str:
    """The name of a potential, given as such or loaded."""
    return potential if isinstance(potential, str) else potential.name


# ---- about compositions: millions of them, so no reason is written for each


class Decoded(Decodes):
    """Is there a formula at all?"""

    name, words = "decoded", "2 to 8 elements, at most 8 atoms of each"
    meaning = Fact.meaning


class Neutral(ChargeNeutral):
    """Does some choice of oxidation states add up to zero, whoever is the anion?"""

    name, words = "charge neutral", "oxidation states add up to zero"
    piece = 8_192
    pauling: ClassVar[bool] = False

    def settings(self, run: Run) -> dict[str, Any]:
        return {**super().settings(run), "pauling": self.pauling}

    @staticmethod
    def answer(content: np.ndarray, rows: np.ndarray, **settings: Any) -> Answer:
        return Answer(charge.charge_neutral(content, **settings))


class Balanced(Neutral):
    """Does a choice in which every cation is less electronegative than every anion?"""

    name = "charge balanced"
    words = "oxidation states add up to zero, cations less electronegative than anions"
    pauling = True


class UniqueFormula(Fact):
    """Has no earlier sample the same reduced formula?"""

    name, words = "unique", "reduced formula, first of its kind"

    def ask(self, run: Run) -> None:
        ok = np.zeros(len(run.samples), dtype=bool)
        ok[first_rows(run.content)] = True
        run.note(self, run.left, ok[run.left], {})


class NovelFormula(Fact):
    """Is the reduced formula unknown?"""

    name, words, needs = "novel", "formula not in the training set", "known"

    def meaning(self, run: Run) -> dict[str, Any]:
        return {"rule": self.words, **run.known_definition()}

    def ask(self, run: Run) -> None:
        new = np.ones(len(run.samples), dtype=bool)
        for known in run.known.values():
            new &= ~member(run.content, known.counts)
        run.note(self, run.left, new[run.left], {})


_CRYSTALS = (
    Decodes, Distances, ChargeNeutral, SpaceGroup, Compound, Unique, Novel, Relaxed, Converged,
    Hull, PlausibleEnergy, Metastable, Stable, StillNew,
)  # fmt: skip
_COMPOSITIONS = (Decoded, Neutral, Balanced, UniqueFormula, NovelFormula)
FACTS: dict[str, dict[str, Fact]] = {
    "crystals": {each.name: each() for each in _CRYSTALS},
    "compositions": {each.name: each() for each in _COMPOSITIONS},
}
