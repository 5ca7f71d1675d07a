"""One run of a protocol: its steps one after the other, in pieces, with all that they find."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..crystals import CrystalBatch, compositions
from ..crystals.samples import Samples
from ..runtime import InputError, lookup
from .checks import SCAN, Answer, Task
from .chunks import Pieces, Workers, write
from .meanings import meanings, potential_name
from .protocols import FACTS, NEEDS_ENERGY, NEEDS_KNOWN, Protocol
from .report import Number, Report, Stage
from .samples import Known, content_digest, safe_counts

if TYPE_CHECKING:
    from ..energies.potentials import Potential

CACHE_FORMAT = 1  # a change of what the pieces hold changes this
PIECE = {  # crystals in one piece of work: some seconds each
    "distances": 20_000,
    "charge neutral": 50_000,
    "space group": 1_000,
    "compound": 100_000,
    "unique": 1_000,
    "novel": 1_000,
    "road": 1_000,
    "scan": 32,
    "relax": 8,
    "single point": 64,
    "hull": 500,
    "still new": 1_000,
}
KEYS = 50_000  # samples of which the compositions are counted at once
YES, NO, NOT_ASKED = 1, 0, -1


class Judging:
    """One run of a protocol: facts, values and reasons as they come in.

    Attributes:
        facts: fact -> (n,) int8, see `Report.facts`.
        values: quantity -> (n,) float64.
        reasons: fact -> sample -> why not.
        seconds: fact -> computing time.
        definitions: fact -> what it means.
        crystals: the samples, as sampled until they are relaxed.
        left: samples that no step has filtered out yet.
    """

    def __init__(
        self,
        samples: Samples,
        protocol: Protocol,
        known: Mapping[str, Known | None],
        potentials: Sequence[str | Potential] = (),
        workers: Workers | None = None,
        progress: bool = False,
    ) -> None:
        self.samples, self.protocol, self.known = samples, protocol, known
        self.potentials = _checked(potentials)
        self.workers, self.progress = workers or Workers(), progress
        self.steps = [step for step in protocol.steps if self._can(step.fact)]
        self.facts: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {}
        self.reasons: dict[str, dict[int, str]] = {}
        self.seconds: dict[str, float] = {}
        self.crystals = samples.crystals
        self.relaxed = False
        self.left = np.arange(len(samples))
        asked = [step.fact for step in self.steps]
        self.definitions = meanings(protocol, asked, len(samples), self._known(), self.potentials)
        self.pieces = Pieces(None)

    def _can(self, fact: str) -> bool:
        lookup("fact", fact, FACTS)
        if fact == "space group":
            return "space_group" in self.samples.asked
        if fact in NEEDS_KNOWN and not self._known():
            return False
        return fact not in NEEDS_ENERGY or bool(self.potentials)

    def _known(self) -> dict[str, Known]:
        """What novelty is measured against; where the protocol's own is missing, the reference."""
        chosen = {kind: self.known.get(kind) for kind in self.protocol.novel_to}
        found = {kind: each for kind, each in chosen.items() if each is not None}
        fallback = self.known.get("reference")
        return found or ({} if fallback is None else {"reference": fallback})

    def asked(self, *facts: str) -> bool:
        """Were all of these asked?"""
        return set(facts) <= self.facts.keys()

    # ---- pieces on disk

    def keep_in(self, folder: Path | str | None) -> None:
        """Keep finished pieces in a folder, and take those that are there.

        Raises:
            InputError: the folder cannot be written.
        """
        if folder is None:
            return
        about = {
            "format": CACHE_FORMAT,
            "imd-helpers": metadata.version("imd-helpers"),
            "samples": content_digest(self.samples),
            "known": {k: v.digests for k, v in self._known().items()},
            "protocol": self.protocol.definition(),
            "definitions": self.definitions,
        }
        text = json.dumps(about, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.pieces = Pieces(Path(folder) / key)
        write(Path(folder) / key / "about.json", text.encode())

    # ---- asking

    def ask_all(self) -> None:
        """Take every step, in order."""
        ask = {
            "decodes": self._decodes,
            "novel": self._novel,
            "relaxed": self._relaxed,
            "converged": self._converged,
            "hull": self._hull,
            "plausible energy": self._plausible,
            "metastable": lambda: self._below("metastable", self.protocol.energies.metastable),
            "stable": lambda: self._below("stable", self.protocol.energies.stable),
        }
        for step in self.steps:
            self.seconds[step.fact] = 0.0
            ask.get(step.fact, lambda fact=step.fact: self._in_pieces(fact))()
            if step.filters:
                self.left = self.left[self.facts[step.fact][self.left] == YES]

    def _decodes(self) -> None:
        why = dict(enumerate(self.samples.reasons))
        self._note("decodes", self.left, self.samples.ok, {i: w for i, w in why.items() if w})

    def _in_pieces(self, fact: str) -> None:
        """The checks that take crystals and settings, and give a yes or no."""
        protocol = self.protocol
        settings: dict[str, dict[str, Any]] = {
            "distances": {"rule": protocol.rule},
            "charge neutral": {
                "oxidation_states": protocol.oxidation_states,
                "alloys": protocol.alloys,
            },
            "unique": {"match": protocol.match},
            "still new": {"match": protocol.match},
        }
        known = "known" if fact == "still new" else None
        self._start(fact)
        for rows, answer in self._answers(fact, fact, self.left, settings.get(fact, {}), known):
            self._take(fact, rows, answer)

    def _novel(self) -> None:
        self._start("novel")
        rows = self.left
        for kind in self._known():  # what one source knows is not looked up in the next
            settings = {"match": self.protocol.match, "called": kind}
            for some, answer in self._answers("novel", f"novel {kind}", rows, settings, kind):
                self._take("novel", some, answer)
            rows = rows[self.facts["novel"][rows] == YES]

    def _relaxed(self) -> None:
        energies = self.protocol.energies
        self._start("relaxed")
        road = np.zeros(len(self.samples))
        if energies.lattice_scan:
            for rows, answer in self._answers("relaxed", "road", self.left, {}):
                road[rows] = answer.values["road"]
        shared = {"potential": self.potentials[0], "most_atoms": energies.most_atoms}
        forces = {**shared, "fmax": energies.fmax, "steps": energies.steps}
        parts = [
            self.crystals.lattice.clone(),
            self.crystals.frac.clone(),
            self.crystals.numbers,
        ]
        scanned = road[self.left] == SCAN
        for check, part, settings in (
            ("scan", self.left[scanned], shared),
            ("relax", self.left[~scanned], forces),
        ):
            for rows, answer in self._answers("relaxed", check, part, settings):
                self._take("relaxed", rows, answer)
                if answer.crystals is not None:
                    width = answer.crystals.frac.shape[1]
                    at = torch.as_tensor(rows)
                    parts[0][at] = answer.crystals.lattice
                    parts[1][at, :width] = answer.crystals.frac
        self.crystals, self.relaxed = CrystalBatch(*parts), True
        if energies.lattice_scan:
            self.values["scanned"] = np.where(self.facts["relaxed"] != NOT_ASKED, road, np.nan)

    def _converged(self) -> None:
        values = self.value("converged")[self.left]
        steps = self.protocol.energies.steps
        why = dict.fromkeys(self.left.tolist(), f"forces above the limit after {steps} steps")
        self._note("converged", self.left, values == 1, why)

    def _hull(self) -> None:
        """Energies above hull by every potential; they decide together or the first decides."""
        self._start("hull")
        rows = self.left[np.isfinite(self.value("energy")[self.left])]
        missing = np.setdiff1d(self.left, rows)
        why = dict.fromkeys(missing.tolist(), "no energy")
        self._note("hull", missing, np.zeros(len(missing), dtype=bool), why)
        each = [self._one_hull(k, rows) for k in range(len(self.potentials))]
        above = np.stack(each) if each else np.zeros((0, len(self.samples)))
        self.values["energy_above_hull"] = above[0].copy()
        if len(each) < 2:
            return
        both = np.isfinite(above).all(0)
        self.values["disagreement"] = np.where(both, above.max(0) - above.min(0), np.nan)
        if self.protocol.energies.ensemble:
            self.values["energy_above_hull"] = np.where(both, above.mean(0), above[0])

    def _one_hull(self, k: int, rows: np.ndarray) -> np.ndarray:
        """(n,) energy above hull by one potential; the first one's verdict is the fact."""
        model = self.potentials[k]
        called = potential_name(model)
        energy = self.value("energy").copy()
        if k:
            energy[:] = np.nan
            label = f"single point {called}"
            for some, answer in self._answers("hull", label, rows, {"potential": model}):
                energy[some] = answer.values["energy"]
            rows = rows[np.isfinite(energy[rows])]
        settings = {"potential": called, "competitors": self.protocol.energies.competitors}
        above = np.full(len(self.samples), np.nan)
        for some, answer in self._answers("hull", f"hull {called}", rows, settings, energy=energy):
            above[some] = answer.values["energy_above_hull"]
            if k == 0:
                answer.values.pop("energy_above_hull")
                self._take("hull", some, answer)
        if len(self.potentials) > 1:
            self.values[f"energy_above_hull {called}"] = above
        return above

    def _plausible(self) -> None:
        """An energy far below all that is known is a failure of the potential, no discovery."""
        energies = self.protocol.energies
        formed = self.value("formation_energy")[self.left]
        above = self.value("energy_above_hull")[self.left]
        several = (safe_counts(self.crystals[self.left]) > 0).sum(1) > 2
        deep = formed < energies.lowest_formation
        lonely = several & (above < energies.lowest_above_hull)
        why = {}
        for k, i in enumerate(self.left):
            if deep[k]:
                limit = energies.lowest_formation
                why[int(i)] = f"formation energy {formed[k]:.3g} eV/atom < {limit:g} eV/atom"
            elif lonely[k]:
                limit = energies.lowest_above_hull
                why[int(i)] = f"energy above hull {above[k]:.3g} eV/atom < {limit:g} eV/atom"
        self._note("plausible energy", self.left, ~(deep | lonely), why)

    def _below(self, fact: str, limit: float) -> None:
        above = self.value("energy_above_hull")[self.left]
        why = {
            int(i): f"{value:.3f} eV/atom above hull > {limit:g}"
            if np.isfinite(value)
            else "no energy above hull"
            for i, value in zip(self.left, above, strict=True)
        }
        with np.errstate(invalid="ignore"):
            self._note(fact, self.left, above <= limit, why)

    # ---- pieces of work

    def _answers(
        self,
        fact: str,
        label: str,
        rows: np.ndarray,
        settings: Mapping[str, Any],
        known: str | None = None,
        energy: np.ndarray | None = None,
    ) -> list[tuple[np.ndarray, Answer]]:
        """Answers of a check about some samples, from disk where they are there."""
        check = next(name for name in PIECE if label.startswith(name))
        together = check in ("unique", "still new")
        keys = self._keys(rows) if together or known is not None else []
        plan = _plan(len(rows), keys, PIECE[check], together=together)
        out: list[tuple[np.ndarray, Answer]] = []
        todo: list[tuple[str, np.ndarray]] = []
        bar = _bar(len(rows), label, self.progress)
        for number, places in enumerate(plan):
            name = f"{label.replace(' ', '-')}-{number:05d}"
            done = self.pieces.read(name, rows[places])
            if done is None:
                todo.append((name, places))
            else:
                out.append((rows[places], done))
                bar.update(len(places))

        def task(places: np.ndarray) -> Task:
            own = dict(settings)
            if check == "space group":
                own["requested"] = self.samples.asked["space_group"][rows[places]]
            if energy is not None:
                own["energy"] = energy[rows[places]]
            if known is not None:
                own["known"] = self._known_like([keys[k] for k in places], known)
            return Task.of(check, self.crystals, rows[places], **own)

        tasks = (task(places) for _, places in todo)  # made when a worker is free
        for k, answer in self.workers.answers(tasks, len(todo)):
            name, places = todo[k]
            self.pieces.write(name, answer, rows[places])
            out.append((rows[places], answer))
            bar.update(len(places))
        bar.close()
        self.seconds[fact] += sum(answer.seconds for _, answer in out)
        return sorted(out, key=lambda pair: int(pair[0][0]))

    def _keys(self, rows: np.ndarray) -> list[bytes]:
        """The composition of each of these samples, in pieces: counts are large."""
        pieces = [rows[i : i + KEYS] for i in range(0, len(rows), KEYS)]
        return [k for some in pieces for k in compositions.keys(safe_counts(self.crystals[some]))]

    def _known_like(self, keys: list[bytes], kind: str) -> Task | None:
        """Known crystals of these compositions; of all kinds together for ``known``."""
        sources = self._known()
        chosen = list(sources.values()) if kind == "known" else [sources[kind]]
        found = [each.like(keys) for each in chosen]
        batches = [batch for batch, _ in found if batch is not None]
        if not batches:
            return None
        together = CrystalBatch.cat(batches)
        task = Task.of("novel", together, np.arange(len(together)))
        places = np.concatenate([rows for batch, rows in found if batch is not None])
        return Task(task.check, places, task.lattice, task.frac, task.numbers, {})

    def _start(self, fact: str) -> None:
        self.facts[fact] = np.full(len(self.samples), NOT_ASKED, dtype=np.int8)
        self.reasons[fact] = {}

    def _take(self, fact: str, rows: np.ndarray, answer: Answer) -> None:
        self.facts[fact][rows] = np.where(answer.ok, YES, NO)
        self.reasons[fact] |= {int(rows[i]): why for i, why in answer.reasons.items()}
        for name, values in answer.values.items():
            self.value(name)[rows] = values

    def _note(self, fact: str, rows: np.ndarray, ok: np.ndarray, why: dict[int, str]) -> None:
        if fact not in self.facts:
            self._start(fact)
        self.facts[fact][rows] = np.where(ok, YES, NO)
        failed = set(rows[~np.asarray(ok)].tolist())
        self.reasons[fact] |= {i: text for i, text in why.items() if i in failed}

    def value(self, name: str) -> np.ndarray:
        """(n,) one quantity, NaN where there is none; may be written to."""
        return self.values.setdefault(name, np.full(len(self.samples), np.nan))

    # ---- the report

    def report(self, name: str, numbers: Sequence[Number] | None = None) -> Report:
        """Facts one after the other as stages; with numbers also what the protocol is."""
        n = len(self.samples)
        order = [fact for fact in self.protocol.funnel if fact in self.facts]
        passes = np.array([self.facts[fact] == YES for fact in order])  # (stages, n)
        through = np.logical_and.accumulate(passes, axis=0)
        failed_at = through.sum(0)
        passed = through.sum(1).tolist()
        tried = [n, *passed[:-1]]
        stages = tuple(
            Stage(fact, self.definitions[fact], tried[k], passed[k], self.seconds[fact])
            for k, fact in enumerate(order)
        )
        reasons = tuple(
            self.reasons[order[k]].get(i, "") if k < len(order) else ""
            for i, k in enumerate(failed_at)
        )
        return Report(
            name=name,
            n=n,
            stages=stages,
            failed_at=failed_at,
            reasons=reasons,
            protocol="" if numbers is None else self.protocol.name,
            about={} if numbers is None else self.protocol.about(),
            numbers=tuple(numbers or ()),
            facts=dict(self.facts),
            values={k: v for k, v in self.values.items() if np.isfinite(v).any()},
            notes=() if numbers is None else self._notes(),
            relaxed=self.crystals if self.relaxed else None,
        )

    def _notes(self) -> tuple[str, ...]:
        protocol, n = self.protocol, len(self.samples)
        notes = []
        if protocol.asks_for not in (None, n):
            notes.append(
                f"{protocol.name} asks for exactly {protocol.asks_for:,} samples, these are {n:,}: "
                "shares of unique crystals fall with n"
            )
        left_out = [s.fact for s in protocol.steps if s not in self.steps]
        if left_out:
            notes.append(f"not asked: {', '.join(left_out)}")
        return tuple(notes)

    def holds(self, where: Sequence[str], but_not: Sequence[str] = ()) -> np.ndarray:
        """(n,) bool: which samples have all of some facts, and none of others."""
        out = np.ones(len(self.samples), dtype=bool)
        for fact in where:
            out &= self.facts[fact] == YES
        for fact in but_not:
            out &= self.facts[fact] != YES
        return out


def _checked(potentials: Sequence[str | Potential]) -> tuple[str | Potential, ...]:
    from ..energies.potentials import POTENTIALS, Potential

    if isinstance(potentials, str):
        raise InputError(f"potentials = {potentials!r}: give a list, [{potentials!r}]")
    for each in potentials:
        if not isinstance(each, Potential):
            lookup("potential", each, POTENTIALS)
    names = [potential_name(each) for each in potentials]
    if len(set(names)) < len(names):
        raise InputError(f"potentials are {', '.join(names)}: name each one once")
    return tuple(potentials)


def _plan(n: int, keys: Sequence[bytes], size: int, *, together: bool) -> list[np.ndarray]:
    """Places of n samples in each piece; with ``together`` a composition is never divided."""
    if not together:
        return [np.arange(a, min(a + size, n)) for a in range(0, n, size)]
    groups: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    pieces, piece = [], []
    for members in groups.values():
        if piece and len(piece) + len(members) > size:
            pieces.append(np.array(sorted(piece)))
            piece = []
        piece += members
    return [*pieces, np.array(sorted(piece))] if piece else pieces


def _bar(total: int, name: str, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=name, unit="crystal", disable=not progress or not total)
