"""Protocols as data: what five communities count, in which order, and divided by what.

The same samples get very different numbers for reasons that papers seldom state: whether validity
or stability comes first, whether crystals are relaxed before they are compared, what counts as
stable, and whether a share is of all samples or of those that were left. A `Protocol` states all
of it, `imd_helpers.judge.judge` carries it out, and `data/protocols` lists them all.

Where this package stands in for the potentials, hulls or references of others, the notes say so:
the numbers follow their definitions, and are not theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..crystals.rules import RULES, GeometryRule
from ..matching.same import MatchSettings
from ..runtime import lookup, read_toml
from .charge import OXIDATION_STATES


@dataclass(frozen=True)
class Step:
    """One question."""

    fact: str  # one of `imd_helpers.judge.facts.FACTS`, of the protocol's content
    # samples that fail are not asked anything further; else the answer is only noted
    filters: bool = True


@dataclass(frozen=True)
class Share:
    """Samples with some facts, as a share of others."""

    name: str  # e.g. ``S.U.N.``
    where: tuple[str, ...]  # facts that must all hold
    # the denominator: samples for which all of these hold; empty for all n samples
    of: tuple[str, ...] = ()
    but_not: tuple[str, ...] = ()  # facts that must not hold


@dataclass(frozen=True)
class Mean:
    """Mean of a quantity over the samples that have it."""

    name: str  # e.g. ``mean energy above hull``
    value: str  # key of `Report.values`
    unit: str  # e.g. ``eV/atom``
    over: tuple[str, ...]  # facts that must hold


@dataclass(frozen=True)
class Distance:
    """A number that compares the set of samples with the reference, from `distributions`."""

    name: str  # e.g. ``COV-R``
    measure: str  # ``recall``, ``precision``, ``density`` or ``n_elements``
    unit: str  # ``share`` or a unit
    over: tuple[str, ...] = ()  # which samples take part; empty for all n
    # how many of them, drawn without replacement; with fewer there is no number
    draw: int | None = None


@dataclass(frozen=True)
class Energies:
    """How energies come about and what they mean."""

    fmax: float = 0.05  # relaxations end below this force, eV/Å
    steps: int = 500  # most evaluations of one relaxation
    # Å; relaxed crystals are pushed out of their symmetry by this much and relaxed again, and the
    # lower of both minima counts. 0: not
    rattle: float = 0.0
    lattice_scan: bool = False  # crystals whose sites symmetry fixes are scanned in volume instead
    # with several potentials the energy above hull is their mean, else the first's
    ensemble: bool = False
    stable: float = 0.0  # largest energy above hull of a stable crystal, eV/atom
    metastable: float = 0.1  # the same of a metastable one; stable ones are metastable too
    # formation energies below are failures of the potential, eV/atom
    lowest_formation: float = float("-inf")
    # so are energies above hull below this, with three elements or more
    lowest_above_hull: float = float("-inf")
    competitors: int = 0  # fewest known compounds in the chemical system for a hull to count
    most_atoms: int = 200  # crystals with more are not relaxed


@dataclass(frozen=True)
class Protocol:
    """What is asked, in which order, and what is divided by what."""

    name: str  # how it is called
    title: str  # in one line
    # the questions in order; those before ``relaxed`` are about crystals as sampled, those after it
    # about relaxed ones
    steps: tuple[Step, ...]
    # facts that are counted one after the other for the table and the figure
    funnel: tuple[str, ...]
    numbers: tuple[Share | Mean | Distance, ...]  # what the protocol reports
    content: str = "crystals"  # ``crystals`` or ``compositions``
    # name of a rule of `imd_helpers.crystals.rules.RULES`, or a rule
    geometry: str | GeometryRule = "imd"
    oxidation_states: str = "icsd24"  # smact's table
    alloys: bool = True  # compositions of metals only are valid
    match: MatchSettings = field(default_factory=MatchSettings)  # when two crystals are the same
    # ``reference``, ``training`` or both: what a novel crystal must differ from
    novel_to: tuple[str, ...] = ("reference",)
    energies: Energies = field(default_factory=Energies)  # see `Energies`
    # the energy above hull that decides has the corrections MP2020, whatever the potential learned
    corrected: bool = False
    # potentials that are asked about strains and displacements; all must agree
    witnesses: tuple[str, ...] = ("chgnet", "sevennet")
    asks_for: int | None = None  # how many samples the protocol demands
    sources: tuple[str, ...] = ()  # what was read
    # what is second-hand, and where this package stands in for something else
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.geometry, str):
            lookup("geometry rule", self.geometry, RULES)
        lookup("oxidation-state table", self.oxidation_states, OXIDATION_STATES)

    @property
    def rule(self) -> GeometryRule:
        """The geometry rule itself."""
        return self.geometry if isinstance(self.geometry, GeometryRule) else RULES[self.geometry]

    def definition(self) -> dict[str, Any]:
        """The whole protocol as plain data."""
        return asdict(self)

    def about(self) -> dict[str, Any]:
        """What a reader of its numbers must know, for reports."""
        about = {name: getattr(self, name) for name in ("title", "novel_to", "sources", "notes")}
        return {**about, "energies": asdict(self.energies)}


KINDS = {"share": Share, "mean": Mean, "distance": Distance}


def _protocol(name: str, entry: dict[str, Any]) -> Protocol:
    """One protocol from its entry in the file."""
    steps = tuple(
        Step(fact, filters=kind == "ask")
        for group in entry.pop("steps")
        for kind, facts in group.items()
        for fact in facts
    )
    numbers = tuple(_number(each) for each in entry.pop("numbers", ()))
    parts = {"match": MatchSettings(**entry.pop("match", {}))}
    parts["energies"] = Energies(**entry.pop("energies", {}))
    return Protocol(name, steps=steps, numbers=numbers, **parts, **entry)


def _number(entry: dict[str, Any]) -> Share | Mean | Distance:
    kind = next(iter(entry))
    return KINDS[kind](entry.pop(kind), **entry)


PROTOCOLS: dict[str, Protocol] = {
    name: _protocol(name, entry) for name, entry in read_toml("protocols", "protocols.toml").items()
}
