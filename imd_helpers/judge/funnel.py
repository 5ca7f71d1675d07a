"""The funnel: n samples in, and for each of them the first test that it fails."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from ..crystals import CrystalBatch
from ..descriptors import Decoded
from ..runtime import InputError
from . import composition, structure
from .geometry import RULES, GeometryRule, geometry_verdict
from .report import Report, Stage
from .structure import MatchSettings

SYMPREC = 0.1  # Å

Verdicts = tuple[np.ndarray, Callable[[int], str]]


@dataclass(frozen=True)
class Check:
    """One test: ``run(crystals, rows)`` judges the crystals that are left.

    Attributes:
        name: of the stage.
        definition: what it means to pass.
        run: crystals and their places among the n samples -> (k,) bool, and index -> reason.
    """

    name: str
    definition: dict[str, Any]
    run: Callable[[CrystalBatch, np.ndarray], Verdicts]


def funnel(
    decoded: Decoded | CrystalBatch,
    *,
    requested_space_groups: np.ndarray | None = None,
    training: CrystalBatch | None = None,
    rule: str | GeometryRule = "imd",
    oxidation_states: str = "icsd24",
    name: str = "samples",
    progress: bool = False,
) -> Report:
    """Judge n samples: decodes, distances, charge, space group, unique, novel.

    A sample that fails one stage does not reach the next. A broken crystal fails its stage with a
    reason and stops nothing.

    Args:
        decoded: what a descriptor decoded, or crystals (which all count as decoded).
        requested_space_groups: (n,) ITA numbers that the samples were asked to have; without them
            there is no such stage.
        training: the training set; without it there is no stage ``novel``.
        rule: geometry rule, see `imd_helpers.judge.geometry.RULES`.
        oxidation_states: ``icsd24`` or ``smact14``.
        name: whose samples they are, for tables and figures.
        progress: show a progress bar.

    Raises:
        InputError: no samples, or not one requested space group for each.
        UnknownNameError: no such rule or oxidation-state table.
    """
    from ..runtime import lookup

    if isinstance(rule, str):
        rule = RULES[lookup("geometry rule", rule, RULES)]
    lookup("oxidation-state table", oxidation_states, composition.OXIDATION_STATES)
    crystals = decoded.crystals if isinstance(decoded, Decoded) else decoded
    n = len(crystals)
    if n == 0:
        raise InputError("no samples given: the funnel needs at least one")
    checks = [_decodes(decoded), _distances(rule), _charge(oxidation_states)]
    if requested_space_groups is not None:
        checks.append(_space_group(np.asarray(requested_space_groups), n))
    checks.append(_unique(n))
    if training is not None:
        checks.append(_novel(training))
    return _run(checks, crystals, name, progress)


def _run(checks: list[Check], crystals: CrystalBatch, name: str, progress: bool) -> Report:
    n = len(crystals)
    failed_at = np.full(n, len(checks))
    reasons = [""] * n
    stages = []
    left = np.arange(n)
    for place, check in enumerate(_bar(checks, progress)):
        start = time.perf_counter()
        tried = len(left)
        if tried:
            ok, why = check.run(crystals[left], left)
            for k in np.flatnonzero(~ok):
                reasons[left[k]] = why(int(k))
            failed_at[left[~ok]] = place
            left = left[ok]
        seconds = time.perf_counter() - start
        stages.append(Stage(check.name, check.definition, tried, len(left), seconds))
    return Report(name, n, tuple(stages), failed_at, tuple(reasons))


def _decodes(decoded: Decoded | CrystalBatch) -> Check:
    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        if isinstance(decoded, Decoded):
            return np.asarray(decoded.ok, dtype=bool), lambda k: decoded.reasons[k]
        return np.ones(len(crystals), dtype=bool), lambda k: ""

    return Check("decodes", {"rule": "the descriptor gives back a crystal"}, run)


def _distances(rule: GeometryRule) -> Check:
    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        verdict = geometry_verdict(crystals, rule)
        return verdict.ok, verdict.reason

    return Check("distances", rule.definition(), run)


def _charge(oxidation_states: str) -> Check:
    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        counts = crystals.counts().numpy()
        ok = composition.charge_neutral(counts, oxidation_states=oxidation_states)

        def why(k: int) -> str:
            return f"no {oxidation_states} oxidation states balance {crystals[k].formulas()[0]}"

        return ok, why

    return Check("charge neutral", composition.definition(oxidation_states=oxidation_states), run)


def _space_group(requested: np.ndarray, n: int) -> Check:
    if requested.shape != (n,):
        raise InputError(
            f"requested_space_groups has shape {requested.shape} for {n} samples: give one number "
            "for each sample, also for those that did not decode"
        )

    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        ok, found = structure.space_group_kept(crystals, requested[rows], symprec=SYMPREC)
        return ok, lambda k: f"space group {found[k]} found, {requested[rows[k]]} requested"

    definition = {"rule": "found = requested", "symprec": SYMPREC, "moyopy": _version("moyopy")}
    return Check("space group", definition, run)


def _unique(n: int) -> Check:
    settings = MatchSettings()

    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        found = structure.same_as_earlier(crystals, settings=settings)
        ok = found.first == structure.NONE
        ok[list(found.failed)] = False

        def why(k: int) -> str:
            return found.failed.get(k) or f"same as sample {rows[found.first[k]]}"

        return ok, why

    # fewer of more samples are unique, so the number of samples is part of the definition
    definition = {**settings.definition(), "samples": n}
    return Check("unique", definition, run)


def _novel(training: CrystalBatch) -> Check:
    settings = MatchSettings()

    def run(crystals: CrystalBatch, rows: np.ndarray) -> Verdicts:
        found = structure.same_as_reference(crystals, training, settings=settings)
        ok = found.first == structure.NONE
        ok[list(found.failed)] = False

        def why(k: int) -> str:
            return found.failed.get(k) or f"same as training crystal {found.first[k]}"

        return ok, why

    reference = {"reference": fingerprint(training), "reference_size": len(training)}
    return Check("novel", {**settings.definition(), **reference}, run)


def fingerprint(crystals: CrystalBatch) -> str:
    """A short hash of a reference set; neither order nor padding nor rounding noise counts."""
    digests = []
    for lattice, frac, numbers in zip(
        crystals.lattice.cpu().numpy(),
        crystals.frac.cpu().numpy(),
        crystals.numbers.cpu().numpy(),
        strict=True,
    ):
        k = int((numbers > 0).sum())
        values = np.concatenate([lattice.ravel(), frac[:k].ravel()])
        text = (np.round(values, 3) + 0.0).tobytes() + numbers[:k].tobytes()
        digests.append(hashlib.sha256(text).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:12]


def _bar(checks: list[Check], progress: bool) -> Any:
    if not progress:
        return checks
    from tqdm.auto import tqdm

    return tqdm(checks, desc="judging", unit="stage")


def _version(package: str) -> str:
    return metadata.version(package)
