"""From facts to numbers: shares, means and distances, each with its denominator and interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals.rules import GeometryRule, geometry_valid
from ..intervals import wilson
from .protocols import Distance, Mean, Share
from .report import SHARE, Number

if TYPE_CHECKING:
    from .distributions import Measure
    from .judging import Judging

RESAMPLES = 1_000
PERCENTILES = (2.5, 97.5)
DRAW_SEED = 0
NAN = float("nan")
MEASURABLE = GeometryRule(
    "measurable", "what CrystalNN can take", min_distance=0.5, volume_per_atom=(1.0, 1e4)
)


def numbers(job: Judging, *, distributions: bool = True) -> list[Number]:
    """The protocol's numbers, without those that need what was not asked.

    Args:
        job: after `Judging.ask_all`.
        distributions: also what compares sets of crystals, which is slow.
    """
    out = []
    for each in job.protocol.numbers:
        if isinstance(each, Share) and job.asked(*each.where, *each.but_not):
            out.append(_share(job, each))
        elif isinstance(each, Mean) and job.asked(*each.over):
            out.append(_mean(job, each))
    if "disagreement" in job.values:
        mean = Mean("disagreement of the potentials", "disagreement", "eV/atom", ("hull",))
        out.append(_mean(job, mean))
    wanted = [each for each in job.protocol.numbers if isinstance(each, Distance)]
    if wanted and distributions and job.known.get("reference") is not None:
        out += _distances(job, wanted)
    return out


def _share(job: Judging, share: Share) -> Number:
    of = [fact for fact in share.of if job.asked(fact)]  # without energies: of all samples
    hits = int(job.holds([*share.where, *of], share.but_not).sum())
    n = int(job.holds(of).sum())
    low, high = wilson(hits, n)
    used = [*share.where, *share.but_not, *of]
    meaning = _meaning(
        job, used, where=list(share.where), but_not=list(share.but_not), of=of or "all samples"
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
        seconds=_seconds(job, used),
        note="" if n else "no sample in the denominator",
    )


def _mean(job: Judging, mean: Mean) -> Number:
    values = job.value(mean.value)[job.holds(mean.over)]
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
        definition=_meaning(job, mean.over, mean=mean.value, over=list(mean.over)),
        seconds=_seconds(job, mean.over),
        note="" if len(values) else "no sample has this value",
    )


def bootstrap(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean, by resampling; (NaN, NaN) of fewer than two values."""
    if len(values) < 2:
        return NAN, NAN
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, PERCENTILES)
    return float(low), float(high)


# ---- what compares sets


def _distances(job: Judging, wanted: Sequence[Distance]) -> list[Number]:
    covered: dict[str, Measure] = {}
    out = []
    for each in wanted:
        over = [fact for fact in each.over if job.asked(fact)]
        rows = np.flatnonzero(job.holds([*over, "decodes"]))
        meaning = _meaning(
            job, over, measure=each.measure, over=over or "all samples", draw=each.draw
        )
        short = _too_few(job, rows, each)
        if short:
            out.append(_missing(each, len(rows), meaning, short))
        elif each.measure in ("recall", "precision"):
            covered = covered or _coverage(job, rows)
            out.append(_of_coverage(each, covered[each.measure], len(job.samples), meaning))
        else:
            out.append(_of_property(job, each, rows, meaning))
    return out


def _too_few(job: Judging, rows: np.ndarray, distance: Distance) -> str:
    if not len(rows):
        return "no sample takes part"
    if distance.draw and len(rows) < distance.draw:
        return f"{distance.draw:,} valid samples are needed, there are {len(rows):,}"
    if not distance.draw and not len(_measurable(job, rows)):
        return "no sample can have a fingerprint"
    return ""


def _measurable(job: Judging, rows: np.ndarray) -> np.ndarray:
    # CrystalNN needs minutes, or all memory, where images overlap or neighbours are far away
    return rows[geometry_valid(job.samples.crystals[rows], MEASURABLE)]


def _coverage(job: Judging, rows: np.ndarray) -> dict[str, Measure]:
    from .distributions import coverage

    return coverage(
        job.samples.crystals[_measurable(job, rows)],
        job.known["reference"].crystals,
        processes=job.workers.workers,
        progress=job.progress,
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


def _of_property(
    job: Judging, distance: Distance, rows: np.ndarray, meaning: dict[str, Any]
) -> Number:
    from .distributions import wasserstein

    if distance.draw:
        rng = np.random.default_rng(DRAW_SEED)
        rows = np.sort(rng.choice(rows, size=distance.draw, replace=False))
    reference = job.known["reference"].crystals
    measure = wasserstein(job.samples.crystals[rows], reference, distance.measure)
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


def _meaning(job: Judging, used: Sequence[str], **more: Any) -> dict[str, Any]:
    facts = {fact: job.definitions[fact] for fact in dict.fromkeys(used)}
    filters = [step.fact for step in job.steps if step.filters]
    return {"protocol": job.protocol.name, **more, "filters": filters, "facts": facts}


def _seconds(job: Judging, used: Sequence[str]) -> float:
    """Of the steps asked for, and of all that filtered before them."""
    order = [step.fact for step in job.steps]
    last = max((order.index(fact) for fact in used), default=-1)
    needed = {step.fact for step in job.steps[:last] if step.filters} | set(used)
    return sum(job.seconds[fact] for fact in needed)
