"""From facts to numbers: shares, means and distances, each with its denominator and interval."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..intervals import bootstrap, wilson
from .facts import potential_name
from .protocols import Distance, Mean, Share
from .report import SHARE, Number
from .samples import safe_counts

if TYPE_CHECKING:
    from .engine import Run

DRAW_SEED = 0
NAN = float("nan")
ALL = "all samples"
COVERAGE = ("recall", "precision")
LOW = ("stable", "metastable")
NEAR = 0.1  # eV/atom above both hulls, for which there is a calibration


def expected(run: Run) -> list[Number]:
    """What DFT is expected to say, from facts and values alone."""
    shares = [each for each in run.protocol.numbers if isinstance(each, Share)]
    asked = [each for each in shares if run.asked(*each.where, *each.but_not, *each.of)]
    return [number for each in asked for number in _calibrated(run, each)]


def numbers(run: Run, *, distributions: bool = True) -> list[Number]:
    """The protocol's numbers; one whose condition or denominator was not asked is left out.

    Args:
        run: after all of its steps.
        distributions: also what compares sets of crystals, which is slow.
    """
    out = []
    for each in run.protocol.numbers:
        if isinstance(each, Share) and run.asked(*each.where, *each.but_not, *each.of):
            out += [_share(run, each), *_calibrated(run, each)]
        elif isinstance(each, Mean) and run.asked(*each.over):
            out.append(_mean(run, each))
    if "disagreement" in run.values:
        mean = Mean("disagreement of the potentials", "disagreement", "eV/atom", ("hull",))
        out.append(_mean(run, mean))
    distances = [each for each in run.protocol.numbers if isinstance(each, Distance)]
    wanted = [each for each in distances if run.asked(*each.over)]
    if wanted and distributions and run.reference is not None:
        out += _distances(run, wanted)
    return out


def _share(run: Run, share: Share) -> Number:
    hits = int(run.holds([*share.where, *share.of], share.but_not).sum())
    n = int(run.holds(share.of).sum())
    used = [*share.where, *share.but_not, *share.of]
    terms = {"where": list(share.where), "but_not": list(share.but_not)}
    terms["of"] = list(share.of) or ALL
    meaning, seconds = _meaning(run, used, **terms), _seconds(run, used)
    note = "" if n else "no sample in the denominator"
    return Number.share(share.name, hits, n, meaning, seconds, note)


def _calibrated(run: Run, share: Share) -> list[Number]:
    """What DFT is expected to say of a share of stable crystals, where two potentials tell."""
    from ..energies import calibration
    from ..energies.potentials import POTENTIALS

    fact = next((fact for fact in LOW if fact in share.where), "")
    others = [other for other in share.where if other not in LOW]
    pair = tuple(potential_name(each) for each in run.potentials[:2])
    known = set(pair) <= set(POTENTIALS) and not any("among" in other for other in others)
    known &= not set(others) & set(_behind_low(run))
    limit = getattr(run.protocol.energies, fact, float("nan"))
    if share.but_not or not known or not calibration.calibrated(pair, limit):
        return []
    first = next(step.fact for step, _ in run.steps if step.fact in LOW)
    rows = np.flatnonzero((run.facts[first] >= 0) & run.holds([*others, *share.of]))
    x = calibration.features_in(run.values, pair, rows)
    fit, n = calibration.calibration(pair, limit), int(run.holds(share.of).sum())
    if not n:
        return []
    held = safe_counts(run.content[rows]) > 0
    raw, without = _share(run, share), int((~np.isfinite(x)).any(1).sum())
    said = f"the potentials say {raw.value:.1%}"
    if factors := calibration.flattery(pair, limit):
        said += "; of generated crystals the first alone says {:.1f}, both together {:.1f} times "
        said = f"{said.format(*factors)}what DFT says"
    note = "; ".join([said, *fit.doubts(held)])
    if without:
        note += f"; {without} samples without both energies count as not stable"
    meaning = {**raw.definition, "calibrated": list(pair), "coefficients": list(fit.coefficients)}
    name = f"{share.name}, expected by DFT"
    ends = fit.expected(x, n, alike=_alike(run, rows, first, others))
    return [Number(name, ends[0], n, *ends[1:], "calibration", SHARE, meaning, 0.0, note)]


def _behind_low(run: Run) -> list[str]:
    """Facts that were asked only of what the potentials call stable: DFT may call more so."""
    order = [step.fact for step, _ in run.steps]
    sieve = [step.fact for step, _ in run.steps if step.filters and step.fact in LOW]
    return order[order.index(sieve[0]) + 1 :] if sieve else []


def _alike(run: Run, rows: np.ndarray, first: str, others: Sequence[str]) -> np.ndarray | None:
    """Where copies count, samples of one composition are stable together, or not at all."""
    before = [step.fact for step, _ in run.steps if step.filters]
    before = before[: before.index(first)] if first in before else before
    if "unique" in (*others, *before):
        return None
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in run.keys(rows)], dtype=int)


def _mean(run: Run, mean: Mean) -> Number:
    values = run.value(mean.value)[run.holds(mean.over)]
    values = values[np.isfinite(values)]
    n, ends = len(values), bootstrap(values)
    value = float(values.mean()) if n else NAN
    meaning = _meaning(run, mean.over, mean=mean.value, over=list(mean.over))
    seconds = _seconds(run, mean.over)
    note = "" if n else "no sample has this value"
    return Number(mean.name, value, n, *ends, "bootstrap", mean.unit, meaning, seconds, note)


# ---- crystals that were relaxed outside of a run


def at_rest(row: Mapping[str, Any]) -> dict[str, Any]:
    """What became of relaxed crystals: at rest, near both hulls, and what DFT is expected to say.

    One that was pushed and fell by more than 0.001 eV/atom counts where it came to rest.

    Args:
        row: ``n``, ``found_at_rest``, and for each of ``crystals`` its ``formula``, whether it
            ``converged``, its ``above_hull`` and ``formation_energy`` by the judge's pair of
            potentials, eV/atom, and the same again under ``rattled`` if it was pushed.

    Returns:
        The cells of a table; shares with their 95 % interval.
    """
    from ..crystals.compositions import amounts
    from ..energies.calibration import calibration, features, metals_alone
    from ..energies.potentials import JUDGES

    ends, fell = [], 0
    for one in row["crystals"]:
        drop = one["formation_energy"][0] - one.get("rattled", one)["formation_energy"][0]
        ends.append(one["rattled"] if drop > 0.001 else one)
        fell += drop > 0.001
    above = np.array([end["above_hull"] for end in ends], dtype=float)
    formed = np.array([end["formation_energy"][0] for end in ends], dtype=float)
    hits = int((above.max(1) <= NEAR).sum())
    low, high = wilson(hits, row["n"])
    metals = metals_alone(amounts([end["formula"] for end in row["crystals"]]))
    expected = calibration(JUDGES, NEAR).expected(features(above, formed, metals))
    return {
        "relaxed": row["n"],
        "at rest": sum(c["converged"] for c in row["crystals"]),
        "median above hull": f"{np.nanmedian(above.mean(1)):.2f} eV/atom",
        "near both hulls": f"{hits} ({low:.2f} to {high:.2f})",
        "fell when pushed": fell,
        "real found": row["found_at_rest"],
        "near DFT's": "{:.3f} ({:.2f} to {:.2f})".format(*expected),
    }


# ---- what compares sets


def _distances(run: Run, wanted: Sequence[Distance]) -> list[Number]:
    found: dict[str, Number] = {}
    out = []
    for each in wanted:
        rows = np.flatnonzero(run.holds([*each.over, "decodes"]))
        terms = {"measure": each.measure, "over": list(each.over) or ALL, "draw": each.draw}
        meaning = _meaning(run, each.over, **terms)
        short = _too_few(rows, each)
        if short:
            missing = (NAN, len(rows), NAN, NAN, "", each.unit, meaning, 0.0, short)
            out.append(Number(each.name, *missing))
            continue
        if each.measure not in found:
            start = time.perf_counter()
            measured = _measured(run, each, rows)
            took = time.perf_counter() - start
            found |= {name: replace(number, seconds=took) for name, number in measured.items()}
        number = found[each.measure]
        if each.measure in COVERAGE:
            number = _of_all(number, each.measure, len(run.samples))
        about = {**meaning, **number.definition}
        out.append(replace(number, name=each.name, unit=each.unit, definition=about))
    return out


def _too_few(rows: np.ndarray, distance: Distance) -> str:
    if not len(rows):
        return "no sample takes part"
    if distance.draw and len(rows) < distance.draw:
        return f"{distance.draw:,} valid samples are needed, there are {len(rows):,}"
    return ""


def _measured(run: Run, distance: Distance, rows: np.ndarray) -> dict[str, Number]:
    from .distributions import CUTOFFS, coverage, fingerprints, wasserstein

    crystals, reference = run.samples.crystals, run.reference.crystals
    if distance.measure in COVERAGE:
        how = {"processes": run.workers.workers, "progress": run.progress}
        points = (fingerprints(each, **how) for each in (crystals[rows], reference))
        return coverage(*points, cutoffs=CUTOFFS.get(run.reference.name, CUTOFFS["mp_20"]))
    if distance.draw:
        rng = np.random.default_rng(DRAW_SEED)
        rows = np.sort(rng.choice(rows, size=distance.draw, replace=False))
    return {distance.measure: wasserstein(crystals[rows], reference, distance.measure)}


def _of_all(number: Number, measure: str, n: int) -> Number:
    """Samples that do not decode are not covered, and stay in the denominator of precision."""
    number = replace(number, definition={**number.definition, "samples": n})
    if measure != "precision" or number.n == n:
        return number
    undecoded = f"{n - number.n} samples do not decode"
    note = "; ".join(filter(None, (undecoded, number.note)))
    hits = round(number.value * number.n)
    return Number.share(number.name, hits, n, number.definition, number.seconds, note)


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
