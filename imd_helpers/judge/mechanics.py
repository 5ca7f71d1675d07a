"""The last questions about a crystal at rest: what would DFT say, and does it resist every push?

They are dear, so a protocol asks them last: a probability from two hulls (for nothing), elastic
constants (seconds) and phonons (tens of seconds), each by two potentials. What they find beside
yes and no, tensors and bands, travels as the details of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch
from ..energies import calibration
from . import facts
from .facts import Answer, AtOnce, Fact, potential_name
from .report import rounded
from .samples import safe_counts

if TYPE_CHECKING:
    from ..energies.elastic import Elastic
    from ..energies.phonons import Phonons
    from ..energies.potentials import Witnesses
    from .engine import Run

EVEN = 0.5  # probability from which a crystal is likely metastable
THRESHOLDS = {"probability on the hull": 0.0, "probability within 0.1": 0.1}  # eV/atom
DIGITS = 4  # of energies, eV/atom, bands, THz, and elastic constants, GPa


def likely(run: Run) -> tuple[np.ndarray, dict[int, str]]:
    """Is it as likely as not that DFT finds the crystal metastable?

    Potentials that were never calibrated are taken at their word: the mean distance from the hull.
    """
    pair = tuple(potential_name(each) for each in run.potentials[:2])
    limit = run.protocol.energies.metastable
    if not calibration.calibrated(pair, limit):
        above = run.value("energy_above_hull")[run.left]
        why = {int(i): f"{x:.3f} eV/atom above hull" for i, x in zip(run.left, above, strict=True)}
        return above <= limit, why
    x = calibration.features_in(run.values, pair, run.left)
    held = safe_counts(run.content[run.left]) > 0
    for name, threshold in THRESHOLDS.items():
        run.value(name)[run.left] = calibration.calibration(pair, threshold).probability(x)
    asked = calibration.calibration(pair, limit)
    run.value("unseen elements")[run.left] = (held & ~asked.seen).any(1)
    p = asked.probability(x)
    why = {
        int(i): f"DFT finds it within {limit} eV/atom of its hull with probability {each:.2f}"
        for i, each in zip(run.left, p, strict=True)
    }
    return p >= EVEN, why


def elastic(content: CrystalBatch, rows: np.ndarray, *, witnesses: Sequence[Any]) -> Answer:
    """Does every strain of the cell cost energy?"""
    from ..energies.elastic import mechanically_stable

    return _each(content, witnesses, mechanically_stable, _moduli)


def phonons(content: CrystalBatch, rows: np.ndarray, *, witnesses: Sequence[Any]) -> Answer:
    """Does every displacement of the atoms cost energy?"""
    from ..energies.phonons import dynamically_stable

    return _each(content, witnesses, dynamically_stable, as_data)


def _each(
    content: CrystalBatch,
    witnesses: Sequence[Any],
    ask: Callable[..., Witnesses],
    write: Callable[[Any], dict[str, Any]],
) -> Answer:
    """What all witnesses say about each crystal, and what they found as plain data."""
    out = Answer(np.zeros(len(content), dtype=bool))
    for i in range(len(content)):
        said = ask(content[[i]], witnesses)
        out.ok[i] = said.verdict == "stable"
        if not out.ok[i]:
            out.reasons[i] = f"{said.verdict}: {'; '.join(said.reasons)}"
        out.details[i] = {"verdict": said.verdict, "reasons": list(said.reasons)}
        out.details[i] |= {name: write(one) for name, one in said.found.items()}
    return out


def _moduli(found: Elastic) -> dict[str, Any]:
    return {
        "constants": np.round(found.constants, DIGITS).tolist(),
        "bulk": rounded(found.bulk, DIGITS),
        "shear": rounded(found.shear, DIGITS),
        "lowest": rounded(found.eigenvalues[0], DIGITS),
    }


def as_data(found: Phonons) -> dict[str, Any]:
    """Phonons as plain data; `from_data` reads it."""
    out: dict[str, Any] = {}
    for name, value in vars(found).items():
        numeric = isinstance(value, np.ndarray | float)
        out[name] = np.round(value, DIGITS).tolist() if numeric else value
    return out | {"ticks": [list(tick) for tick in found.ticks]}


def from_data(data: Mapping[str, Any]) -> Phonons:
    """What `as_data` wrote."""
    from ..energies.phonons import Phonons

    arrays = ("distance", "frequencies", "dos_frequency", "dos")
    pairs = {"ticks": tuple(map(tuple, data["ticks"])), "lowest_at": tuple(data["lowest_at"])}
    pairs["optical"] = tuple(data["optical"])
    return Phonons(**{**data, **{k: np.array(data[k], dtype=float) for k in arrays}, **pairs})


def _witnesses(run: Run) -> dict[str, Any]:
    return {"witnesses": run.protocol.witnesses}


def _meaning(run: Run) -> dict[str, Any]:
    names = [potential_name(each) for each in run.protocol.witnesses]
    return {"witnesses": names, "rule": "all of them find a minimum"}


def _likely_means(run: Run) -> dict[str, Any]:
    pair = tuple(potential_name(each) for each in run.potentials[:2])
    limit = run.protocol.energies.metastable
    if not calibration.calibrated(pair, limit):
        return {"rule": "mean energy above hull", "at_most": limit}
    coefficients = calibration.calibration(pair, limit).coefficients.tolist()
    return {"calibrated": list(pair), "threshold": limit, "least": EVEN, "by": coefficients}


_LAST = (
    AtOnce("likely metastable", likely, _likely_means, needs="potentials"),
    Fact("elastic", elastic, _meaning, _witnesses, piece=1, needs="potentials"),
    Fact("phonons", phonons, _meaning, _witnesses, piece=1, needs="potentials"),
)
# all questions of the judge
FACTS: dict[str, dict[str, Fact]] = {
    **facts.FACTS,
    "crystals": facts.FACTS["crystals"] | {fact.name: fact for fact in _LAST},
}
