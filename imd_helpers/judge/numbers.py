"""From facts to numbers: shares, means and distances, each with its denominator and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals.rules import geometry_valid
from ..intervals import bootstrap, wilson
from .protocols import Distance, Mean, Share
from .report import SHARE, Number

if TYPE_CHECKING:
    from .distributions import Measure
    from .engine import Run

DRAW_SEED = 0
NAN = float("nan")


def numbers(run: Run, *, distributions: bool = True) -> list[Number]:
    """The protocol's numbers, without those that need what was not asked.

    Args:
        run: after all of its steps.
        distributions: also what compares sets of crystals, which is slow.
    """
    out = []
    for each in run.protocol.numbers:
        if isinstance(each, Share) and run.asked(*each.where, *each.but_not):
            out.append(_share(run, each))
        elif isinstance(each, Mean) and run.asked(*each.over):
            out.append(_mean(run, each))
    if "disagreement" in run.values:
        mean = Mean("disagreement of the potentials", "disagreement", "eV/atom", ("hull",))
        out.append(_mean(run, mean))
    wanted = [each for each in run.protocol.numbers if isinstance(each, Distance)]
    if wanted and distributions and run.reference is not None:
        out += _distances(run, wanted)
    return out


def _share(run: Run, share: Share) -> Number:
    of = [fact for fact in share.of if run.asked(fact)]  # without energies: of all samples
    hits = int(run.holds([*share.where, *of], share.but_not).sum())
    n = int(run.holds(of).sum())
    low, high = wilson(hits, n)
    used = [*share.where, *share.but_not, *of]
    meaning = _meaning(
        run, used, where=list(share.where), but_not=list(share.but_not), of=of or "all samples"
    )
    return Number(
        name=share.name,
        value=hits / n if n else NAN,
        n=n,
        low=float(low),
        high=float(high),
        interval="Wilson",
        unit=SHARE,
        definition=meaning,
        seconds=_seconds(run, used),
        note="" if n else "no sample in the denominator",
    )


def _mean(run: Run, mean: Mean) -> Number:
    values = run.value(mean.value)[run.holds(mean.over)]
    values = values[np.isfinite(values)]
    low, high = bootstrap(values)
    return Number(
        name=mean.name,
        value=float(values.mean()) if len(values) else NAN,
        n=len(values),
        low=low,
        high=high,
        interval="bootstrap",
        unit=mean.unit,
        definition=_meaning(run, mean.over, mean=mean.value, over=list(mean.over)),
        seconds=_seconds(run, mean.over),
        note="" if len(values) else "no sample has this value",
    )


# ---- what compares sets


def _distances(run: Run, wanted: Sequence[Distance]) -> list[Number]:
    covered: dict[str, Measure] = {}
    out = []
    for each in wanted:
        over = [fact for fact in each.over if run.asked(fact)]
        rows = np.flatnonzero(run.holds([*over, "decodes"]))
        meaning = _meaning(
            run, over, measure=each.measure, over=over or "all samples", draw=each.draw
        )
        short = _too_few(run, rows, each)
        if short:
            out.append(_missing(each, len(rows), meaning, short))
        elif each.measure in ("recall", "precision"):
            covered = covered or _coverage(run, rows)
            out.append(_of_coverage(each, covered[each.measure], len(run.samples), meaning))
        else:
            out.append(_of_property(run, each, rows, meaning))
    return out


def _too_few(run: Run, rows: np.ndarray, distance: Distance) -> str:
    if not len(rows):
        return "no sample takes part"
    if distance.draw and len(rows) < distance.draw:
        return f"{distance.draw:,} valid samples are needed, there are {len(rows):,}"
    if not distance.draw and not len(_measurable(run, rows)):
        return "no sample can have a fingerprint"
    return ""


def _measurable(run: Run, rows: np.ndarray) -> np.ndarray:
    from .distributions import MEASURABLE

    # CrystalNN needs minutes, or all memory, where images overlap or neighbours are far away
    return rows[geometry_valid(run.samples.crystals[rows], MEASURABLE)]


def _coverage(run: Run, rows: np.ndarray) -> dict[str, Measure]:
    from .distributions import coverage

    return coverage(
        run.samples.crystals[_measurable(run, rows)],
        run.reference.crystals,
        processes=run.workers.workers,
        progress=run.progress,
    )


def _of_coverage(distance: Distance, measure: Measure, n: int, meaning: dict[str, Any]) -> Number:
    """Samples without a fingerprint are not covered, and stay in the denominator of precision."""
    value, low, high, of = measure.value, measure.low, measure.high, measure.n
    if distance.measure == "precision" and of != n:
        hits = round(value * of)
        value, of = hits / n, n
        low, high = (float(end) for end in wilson(hits, n))
    lost = len(measure.failed) + (n - measure.n if distance.measure == "precision" else 0)
    note = f"{lost} samples have no fingerprint" if lost else ""
    definition = {**meaning, **measure.definition, "samples": n}
    return Number(
        distance.name, value, of, low, high, "Wilson", SHARE, definition, measure.seconds, note
    )


def _of_property(run: Run, distance: Distance, rows: np.ndarray, meaning: dict[str, Any]) -> Number:
    from .distributions import wasserstein

    if distance.draw:
        rng = np.random.default_rng(DRAW_SEED)
        rows = np.sort(rng.choice(rows, size=distance.draw, replace=False))
    reference = run.reference.crystals
    measure = wasserstein(run.samples.crystals[rows], reference, distance.measure)
    lost = len(measure.failed) + len(measure.failed_reference)
    return Number(
        name=distance.name,
        value=measure.value,
        n=measure.n,
        low=measure.low,
        high=measure.high,
        interval="bootstrap",
        unit=distance.unit,
        definition={**meaning, **measure.definition},
        seconds=measure.seconds,
        note=f"{lost} crystals could not be measured" if lost else "",
    )


def _missing(distance: Distance, n: int, meaning: dict[str, Any], why: str) -> Number:
    return Number(distance.name, NAN, n, NAN, NAN, "", distance.unit, meaning, 0.0, why)


# ---- what they share


def _meaning(run: Run, used: Sequence[str], **more: Any) -> dict[str, Any]:
    facts = {fact: run.definitions[fact] for fact in dict.fromkeys(used)}
    filters = [step.fact for step, _ in run.steps if step.filters]
    return {"protocol": run.protocol.name, **more, "filters": filters, "facts": facts}


def _seconds(run: Run, used: Sequence[str]) -> float:
    """Of the steps asked for, and of all that filtered before them."""
    order = [step.fact for step, _ in run.steps]
    last = max((order.index(fact) for fact in used), default=-1)
    needed = {step.fact for step, _ in run.steps[:last] if step.filters} | set(used)
    return sum(run.seconds[fact] for fact in needed)
