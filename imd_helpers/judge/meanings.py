"""What each fact of a protocol means in one run: rules, thresholds, tables, versions.

Two reports compare only where all of this is equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..energies.potentials import GATE
from . import charge as composition
from .checks import SYMPREC
from .protocols import FACTS, Protocol
from .samples import Known

if TYPE_CHECKING:
    from ..energies.potentials import Potential


def potential_name(potential: str | Potential) -> str:
    """The name of a potential, given as such or loaded."""
    return potential if isinstance(potential, str) else potential.name


def meanings(
    protocol: Protocol,
    facts: Sequence[str],
    n: int,
    known: Mapping[str, Known],
    potentials: Sequence[str | Potential],
) -> dict[str, dict[str, Any]]:
    """Fact -> what it means.

    Args:
        protocol: whose facts they are.
        facts: those that are asked, in order.
        n: how many samples; fewer of more samples are unique.
        known: what novelty is measured against.
        potentials: the first one relaxes.
    """
    energies = protocol.energies
    matching = protocol.match.definition()
    references = {k: v for kind, each in known.items() for k, v in each.definition(kind).items()}
    fixed: dict[str, dict[str, Any]] = {
        "decodes": {"rule": "the descriptor gives back a crystal"},
        "distances": protocol.rule.definition(),
        "charge neutral": composition.definition(
            oxidation_states=protocol.oxidation_states, alloys=protocol.alloys
        ),
        "space group": {
            "rule": "found = requested",
            "symprec": SYMPREC,
            "moyopy": metadata.version("moyopy"),
        },
        "unique": {**matching, "samples": n},
        "novel": {**matching, **references},
        "still new": {**matching, "samples": n, **references},
        "converged": {"fmax": energies.fmax, "steps": energies.steps},
        "plausible energy": {
            "lowest_formation": energies.lowest_formation,
            "lowest_above_hull": energies.lowest_above_hull,
        },
        "metastable": {"energy_above_hull": energies.metastable},
        "stable": {"energy_above_hull": energies.stable},
    }
    if "relaxed" in facts:
        fixed["relaxed"] = _relaxed(protocol, potentials[0])
        fixed["hull"] = _hull(protocol, potentials)
        place = list(facts).index("relaxed")
        for fact in {"distances", "charge neutral", "unique", "novel"} & set(facts[place:]):
            fixed[fact]["crystals"] = "relaxed"
    return {fact: fixed.get(fact, {"rule": FACTS[fact]}) for fact in facts}


def _relaxed(protocol: Protocol, first: str | Potential) -> dict[str, Any]:
    from ..energies.potentials import potential

    energies = protocol.energies
    return {
        **potential(first).definition(),
        "fmax": energies.fmax,
        "steps": energies.steps,
        "lattice_scan": energies.lattice_scan,
        "most_atoms": energies.most_atoms,
        "gate": GATE.definition(),
    }


def _hull(protocol: Protocol, potentials: Sequence[str | Potential]) -> dict[str, Any]:
    from ..energies import hull
    from ..energies.potentials import potential

    energies = protocol.energies
    each = {potential_name(one): potential(one).definition() for one in potentials}
    return {
        "competitors": energies.competitors,
        "combined": "mean" if energies.ensemble and len(each) > 1 else "first",
        **{name: {**about, **hull.definition(name)} for name, about in each.items()},
    }
