"""Protocols as data: what five communities count, in which order, and divided by what.

The same samples get very different numbers for reasons that papers seldom state: whether validity
or stability comes first, whether crystals are relaxed before they are compared, what counts as
stable, and whether a share is of all samples or of those that were left. A `Protocol` states all
of it; `imd_helpers.judge.judge` carries it out.

What others did was read in their code (`sources`) unless a note says otherwise. Where this package
stands in for their potentials, hulls or references, the notes say so: the numbers follow their
definitions, and are not theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..crystals.rules import RULES, GeometryRule
from ..matching.same import MatchSettings
from ..runtime import lookup
from .charge import OXIDATION_STATES

MEASURES = ("recall", "precision", "density", "n_elements")


@dataclass(frozen=True)
class Step:
    """One question.

    Attributes:
        fact: one of `imd_helpers.judge.facts.FACTS`, of the protocol's content.
        filters: samples that fail are not asked anything further; else the answer is only noted.
    """

    fact: str
    filters: bool = True


@dataclass(frozen=True)
class Share:
    """Samples with some facts, as a share of others.

    Attributes:
        name: e.g. ``S.U.N.``.
        where: facts that must all hold.
        of: the denominator: samples for which all of these hold; empty for all n samples.
        but_not: facts that must not hold.
    """

    name: str
    where: tuple[str, ...]
    of: tuple[str, ...] = ()
    but_not: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mean:
    """Mean of a quantity over the samples that have it.

    Attributes:
        name: e.g. ``mean energy above hull``.
        value: key of `Report.values`.
        unit: e.g. ``eV/atom``.
        over: facts that must hold.
    """

    name: str
    value: str
    unit: str
    over: tuple[str, ...]


@dataclass(frozen=True)
class Distance:
    """A number that compares the set of samples with the reference, from `distributions`.

    Attributes:
        name: e.g. ``COV-R``.
        measure: one of `MEASURES`.
        unit: ``share`` or a unit.
        over: which samples take part; empty for all n.
        draw: how many of them, drawn without replacement; with fewer there is no number.
    """

    name: str
    measure: str
    unit: str
    over: tuple[str, ...] = ()
    draw: int | None = None


@dataclass(frozen=True)
class Energies:
    """How energies come about and what they mean.

    Attributes:
        fmax: relaxations end below this force, eV/Å.
        steps: most evaluations of one relaxation.
        lattice_scan: crystals whose sites symmetry fixes are scanned in volume instead.
        ensemble: with several potentials the energy above hull is their mean, else the first's.
        stable: largest energy above hull of a stable crystal, eV/atom.
        metastable: the same of a metastable one; stable ones are metastable too.
        lowest_formation: formation energies below are failures of the potential, eV/atom.
        lowest_above_hull: so are energies above hull below this, with three elements or more.
        competitors: fewest known compounds in the chemical system for a hull to count.
        most_atoms: crystals with more are not relaxed.
    """

    fmax: float = 0.05
    steps: int = 500
    lattice_scan: bool = False
    ensemble: bool = False
    stable: float = 0.0
    metastable: float = 0.1
    lowest_formation: float = float("-inf")
    lowest_above_hull: float = float("-inf")
    competitors: int = 0
    most_atoms: int = 200


@dataclass(frozen=True)
class Protocol:
    """What is asked, in which order, and what is divided by what.

    Attributes:
        name: how it is called.
        title: in one line.
        steps: the questions in order; those before ``relaxed`` are about crystals as sampled,
            those after it about relaxed ones.
        funnel: facts that are counted one after the other for the table and the figure.
        numbers: what the protocol reports.
        content: ``crystals`` or ``compositions``.
        geometry: name of a rule of `imd_helpers.crystals.rules.RULES`, or a rule.
        oxidation_states: smact's table.
        alloys: compositions of metals only are valid.
        match: when two crystals are the same.
        novel_to: ``reference``, ``training`` or both: what a novel crystal must differ from.
        energies: see `Energies`.
        asks_for: how many samples the protocol demands.
        sources: what was read.
        notes: what is second-hand, and where this package stands in for something else.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    funnel: tuple[str, ...]
    numbers: tuple[Share | Mean | Distance, ...]
    content: str = "crystals"
    geometry: str | GeometryRule = "imd"
    oxidation_states: str = "icsd24"
    alloys: bool = True
    match: MatchSettings = field(default_factory=MatchSettings)
    novel_to: tuple[str, ...] = ("reference",)
    energies: Energies = field(default_factory=Energies)
    asks_for: int | None = None
    sources: tuple[str, ...] = ()
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


VALID = ("decodes", "distances", "charge neutral")
CDVAE_SOURCES = (
    "txie-93/cdvae, scripts/compute_metrics.py and scripts/eval_utils.py, commits 51383a9, 73874c4",
    "Xie et al., ICLR 2022, arXiv 2110.06197",
)
SMACT_NOTE = (
    "The oxidation table is smact's older list of 2014, as in the smact of that time. Where an "
    "element has no electronegativity the original code lets the compound pass; here it fails."
)


def _noted(*facts: str) -> tuple[Step, ...]:
    return tuple(Step(fact, filters=False) for fact in facts)


def _asked(*facts: str) -> tuple[Step, ...]:
    return tuple(Step(fact) for fact in facts)


def _cdvae_numbers(draw: int) -> tuple[Share | Distance, ...]:
    return (
        Share("valid structure", ("decodes", "distances")),
        Share("valid composition", ("decodes", "charge neutral")),
        Share("valid", VALID),
        Distance("COV-R", "recall", "share"),
        Distance("COV-P", "precision", "share"),
        Distance("W1 density", "density", "g/cm^3", VALID, draw),
        Distance("W1 elements", "n_elements", "elements", VALID, draw),
    )


_CDVAE = Protocol(
    name="cdvae",
    title="validity of all samples, coverage of all, distances of 1,000 valid ones; no energies",
    steps=(*_asked("decodes"), *_noted("distances", "charge neutral")),
    funnel=VALID,
    numbers=_cdvae_numbers(1000),
    geometry="cdvae",
    oxidation_states="smact14",
    sources=CDVAE_SOURCES,
    notes=(
        "The reference of coverage and distances is the test split in the original code: give "
        "that as reference.",
        SMACT_NOTE,
        "The original calls a crystal invalid whose CrystalNN fingerprint cannot be made; here it "
        "only fails to be covered.",
        "The original stops where fewer than 1,000 samples are valid; here the two distances "
        "are missing then.",
    ),
)

_MATTERGEN = Protocol(
    name="mattergen",
    title="everything about relaxed crystals; stable up to 0.1 eV/atom; S.U.N. of all samples",
    steps=(
        *_asked("decodes", "relaxed"),
        *_noted("distances", "charge neutral", "unique", "novel", "hull", "stable"),
    ),
    funnel=("decodes", "relaxed", "stable", "unique", "novel"),
    numbers=(
        Share("valid structure", ("distances",), of=("relaxed",)),
        Share("valid composition", ("charge neutral",), of=("relaxed",)),
        Share("valid", ("distances", "charge neutral"), of=("relaxed",)),
        Share("unique", ("unique",), of=("relaxed",)),
        Share("novel", ("novel",), of=("relaxed",)),
        Share("novel and unique", ("novel", "unique"), of=("relaxed",)),
        Share("stable", ("stable",)),
        Share("S.U.N.", ("stable", "unique", "novel")),
        Mean("mean energy above hull", "energy_above_hull", "eV/atom", ("hull",)),
    ),
    geometry="cdvae",
    oxidation_states="smact14",
    energies=Energies(fmax=0.05, steps=500, stable=0.1, metastable=0.1),
    sources=(
        "microsoft/mattergen, mattergen/evaluation: metrics/structure.py and metrics/energy.py "
        "(commit 6f3b04c), metrics/core.py, evaluate.py, utils/globals.py (stable: 0.1 eV/atom), "
        "utils/structure_matcher.py, utils/relaxation.py",
        "Zeni et al., Nature 639 (2025) 624",
    ),
    notes=(
        "S.U.N. does not ask for validity. Relaxations that fail count in the denominators of "
        "stable and S.U.N., and in no other.",
        "The potential stands in for MatterSim (and DFT in the paper); MatterSim's relaxer has no "
        "practical step limit, here it is 500 and the convergence flag is not asked for, as there.",
        "The reference stands in for Alex-MP-ICSD, 845,997 crystals of which the ICSD part "
        "cannot be shared.",
        "The original's matcher also calls two orderings of one alloy equal (elements alike in "
        "radius and electronegativity swap places); here they differ.",
        "Where an element has no reference energy the original drops all energy numbers; here the "
        "sample is not stable.",
        SMACT_NOTE,
    ),
)

_FLOWMM = Protocol(
    name="flowmm",
    title="stability first, on the hull exactly; then novel to the training set, then unique",
    steps=(
        *_asked("decodes"),
        *_noted("distances", "charge neutral"),
        *_asked("relaxed", "compound", "hull", "stable", "novel", "unique"),
    ),
    funnel=("decodes", "relaxed", "compound", "hull", "stable", "novel", "unique"),
    numbers=(
        *_cdvae_numbers(1000),
        Share("stable", ("compound", "stable")),
        Share("S.U.N.", ("compound", "stable", "novel", "unique")),
        Share("S.U.N. of the stable", ("novel", "unique"), of=("compound", "stable")),
    ),
    geometry="cdvae",
    oxidation_states="smact14",
    novel_to=("training",),
    energies=Energies(fmax=0.1, steps=1500, stable=0.0, metastable=0.1),
    sources=(
        "facebookresearch/flowmm, scripts_analysis/novelty.py and prerelax.py, "
        "src/flowmm/pandas_.py, chgnet_.py and old_eval/generation_metrics.py, commit 3abc580",
        "Miller et al., ICML 2024, arXiv 2406.04713",
    ),
    notes=(
        "The script prints counts; that shares are of all samples is second-hand, from the paper.",
        "The original relaxes with CHGNet as here, without asking whether it converged, and then "
        "by DFT; the hull is that of the Materials Project of 2023-02-07. Here there is no DFT.",
        "Crystals of one element are dropped before anything is counted as stable.",
        SMACT_NOTE,
    ),
)

_LEMAT = Protocol(
    name="lemat",
    title="validity first; everything else is a share of the valid samples",
    steps=(
        *_asked(*VALID),
        *_noted("unique", "novel"),
        *_asked("relaxed"),
        *_noted("hull", "metastable", "stable"),
    ),
    funnel=(*VALID, "unique", "novel", "relaxed", "metastable", "stable"),
    numbers=(
        Share("valid", VALID),
        Share("unique", ("unique",), of=VALID),
        Share("novel", ("novel",), of=VALID),
        Share("stable", ("stable",), of=VALID),
        Share("metastable", ("metastable",), of=VALID, but_not=("stable",)),
        Share("S.U.N.", ("stable", "unique", "novel"), of=VALID),
        Share("M.S.U.N.", ("metastable", "unique", "novel"), of=VALID, but_not=("stable",)),
        Share("S.U.N. of all", ("stable", "unique", "novel")),
        Share("M.S.U.N. of all", ("metastable", "unique", "novel"), but_not=("stable",)),
        Mean("mean energy above hull", "energy_above_hull", "eV/atom", ("hull",)),
    ),
    geometry="lemat",
    oxidation_states="icsd24",
    match=MatchSettings(ltol=0.1),
    energies=Energies(fmax=0.02, steps=50, ensemble=True, stable=0.0, metastable=0.1),
    asks_for=2500,
    sources=(
        "LeMaterial/lemat-genbench, src/config/comprehensive_multi_mlip_hull.yaml (commit "
        "2383022), src/lemat_genbench/metrics: validity_metrics.py (50434f6) and sun_metric.py "
        "(59217eb), scripts/run_benchmarks.py",
        "material-hasher, similarity/structure_matchers.py: tolerance 0.1 is ltol",
        "arXiv 2512.04562",
    ),
    notes=(
        "Charges: smact's table of 2024 stands in for the original's chain of metallicity, bond "
        "valence and weighted guesses, which accepts more (94.3 % against 82.7 % of 5,000 crystals "
        "of LeMat-Bulk).",
        "The potentials given stand in for ORB, MACE and UMA, each with its own hull; a second one "
        "is evaluated at the geometry of the first.",
        "Relaxations end after 50 steps, converged or not, as in the original.",
        "The reference stands in for LeMat-Bulk, about 5 million crystals.",
        "The original demands exactly 2,500 samples. Whether its board divides by the valid or by "
        "all samples is told differently by different users, so both are given.",
    ),
)

_IMD = Protocol(
    name="imd",
    title="one funnel, every share of all samples; nothing counts that did not converge",
    steps=_asked(
        *VALID,
        "space group",
        "unique",
        "novel",
        "relaxed",
        "converged",
        "hull",
        "plausible energy",
        "still new",
        "metastable",
        "stable",
    ),
    funnel=(
        *VALID,
        "space group",
        "unique",
        "novel",
        "relaxed",
        "converged",
        "hull",
        "plausible energy",
        "still new",
        "metastable",
        "stable",
    ),
    numbers=(
        Share("valid", VALID),
        Share("valid, unique, novel", (*VALID, "unique", "novel")),
        Share("converged", ("converged",), of=("relaxed",)),
        Share("S.U.N. within 0.1", ("metastable",)),
        Share("S.U.N.", ("stable",)),
        Mean("mean energy above hull", "energy_above_hull", "eV/atom", ("plausible energy",)),
    ),
    novel_to=("reference", "training"),
    energies=Energies(
        fmax=0.05,
        steps=200,
        lattice_scan=True,
        stable=0.0,
        metastable=0.1,
        lowest_formation=-5.5,
        lowest_above_hull=-1.0,
        competitors=1,
    ),
    sources=(
        "The bounds of plausible energies: the lowest formation energy of the 32,159 crystals of "
        "oqmd_icsd is -4.57 eV/atom; of 500 stable ones drawn at random, the 378 with three or "
        "more elements lie at most 0.65 eV/atom below the hull of all others (OQMD's energies).",
    ),
    notes=(
        "Metastable means not ruled out: the error of the potentials is of the order of 0.05 "
        "eV/atom.",
        "Known phases stand in the hull as OQMD relaxed them, samples as the potential does, which "
        "flatters samples: by 2.6 meV/atom in the mean and 0.5 in the median of 60 stable cubic "
        "phases with CHGNet.",
        "Cubic crystals whose sites are fixed by symmetry are scanned in volume: an exact "
        "relaxation within the symmetry, blind to any that breaks it.",
    ),
)

_WITHOUT_ENERGIES = (*VALID, "space group", "unique", "novel")
_FUNNEL = Protocol(
    name="funnel",
    title="the steps of imd without energies; every share of all samples",
    steps=_asked(*_WITHOUT_ENERGIES),
    funnel=_WITHOUT_ENERGIES,
    numbers=(),
    novel_to=("training",),
)

_FORMULAS = Protocol(
    name="formulas",
    title="compositions: decoded, balanced, first of their kind, not in the training set",
    steps=(*_asked("decoded"), *_noted("charge neutral", "charge balanced", "unique", "novel")),
    funnel=("decoded", "charge balanced", "unique", "novel"),
    numbers=(),
    content="compositions",
    novel_to=("training",),
)

PROTOCOLS: dict[str, Protocol] = {
    each.name: each for each in (_CDVAE, _MATTERGEN, _FLOWMM, _LEMAT, _IMD, _FUNNEL, _FORMULAS)
}
