"""One yardstick: everything that makes crystals in one table, a folder an entry, judged once.

    FOLDER/NAME/card.toml     who made the samples, from what, at which cost: the fields of `Card`
    FOLDER/NAME/samples.zip   the samples, or any files that `crystals.files.read` reads
    FOLDER/NAME/report.json   what the judge said; written when it is not there
    FOLDER/NAME/run-2/…       samples and report of another training, or another draw of a sampler

Tables are made from the reports alone, so they come out alike everywhere. Entries of one table are
judged against the same crystals, and only by the same definitions.
"""

from __future__ import annotations

import html
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch, files, symmetry
from ..crystals.samples import Samples
from ..energies import calibration
from ..matching.novelty import KINDS, novelty_kinds
from ..matching.same import NONE, same_as_reference
from ..runtime import InputError, data_path, lookup, number
from ..work import locked, write_atomic
from .engine import judge
from .report import LEVEL, Number, Report, check_comparable
from .samples import DIFFERENT, FOUND, Sets, found_again, sets_of

if TYPE_CHECKING:
    import pandas as pd

CARD, SAMPLES, REPORT, WORK = "card.toml", "samples.zip", "report.json", "work"
RUNS = "run-*"  # folders of further runs: trainings of a network, draws of a sampler
PROTOCOL = "imd"
MADE_BY = ("network", "rung", "search", "published")
# values and numbers that are added to a report
KIND, GROUP, HIDDEN = "kind of novelty", "space group", "hidden crystal"
RANKED_BY = "S.U.N. within 0.1, expected by DFT"
SHARES = {  # column: number of the protocol
    "S.U.N. ≤ 0.1, by DFT": RANKED_BY,  # stands first
    "valid": "valid",
    "valid, unique, new": "valid, unique, novel",
    "S.U.N. ≤ 0.1, potentials": "S.U.N. within 0.1",
    "S.U.N., by DFT": "S.U.N., expected by DFT",
    FOUND: FOUND,
}
P1, PER_HOUR, EACH = "P1", "S.U.N. ≤ 0.1 per CPU hour", "by DFT, each run"
HOUR, SEED = 3600.0, 0
WIDE = 0.1  # an interval as wide as this says nothing of decimals of a per cent
THRESHOLDS = {RANKED_BY: 0.1, "S.U.N., expected by DFT": 0.0}  # eV/atom above DFT's hull
SORT = (
    "<script>for(const t of document.querySelectorAll('table.imd-board'))"
    "t.querySelectorAll('th').forEach((h,k)=>{let up=false;h.style.cursor='pointer';"
    "h.onclick=()=>{up=!up;const v=r=>{const d=r.cells[k].textContent.replace(/,/g,'');"
    "const x=parseFloat(d);return d=='–'?-1:isNaN(x)?d:x};"
    "[...t.tBodies[0].rows].sort((a,b)=>(v(a)>v(b)?1:v(a)<v(b)?-1:0)*(up?1:-1))"
    ".forEach(r=>t.tBodies[0].append(r))}})</script>"
)


@dataclass(frozen=True)
class Card:
    """What must be known about an entry beside its samples."""

    name: str  # as it stands in the table
    table: str  # which table it belongs to, e.g. ``cubic ternaries``
    made_by: str  # ``network``, ``rung`` (a sampler without learning), ``search``, ``published``
    source: str  # the command or the address that the samples come from
    learned_from: str = ""  # the crystals that were known to whoever made them
    chemistry: str = ""  # of a table of crystals of these elements alone, e.g. ``V-O``
    made: str = ""  # set of made crystals that models of this chemistry learn from, e.g. ``v_o``
    training_seconds: float = 0.0  # of one core
    sampling_seconds: float = 0.0  # for these samples

    def __post_init__(self) -> None:
        for name in ("training_seconds", "sampling_seconds"):
            number(name, getattr(self, name), least=0)
        lookup("made_by", self.made_by, MADE_BY)


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of a table."""

    folder: Path
    card: Card
    # of the runs, all of n samples: trainings of a network, draws of a sampler
    reports: tuple[Report, ...]

    @property
    def report(self) -> Report:
        """Of the first run."""
        return self.reports[0]

    @property
    def cpu_seconds(self) -> float:
        """Training, sampling and judging together, of one run; of judging the mean over runs."""
        judged = [stage.seconds for report in self.reports for stage in report.stages]
        paid = self.card.training_seconds + self.card.sampling_seconds
        return paid + sum(judged) / len(self.reports)

    @property
    def numbers(self) -> dict[str, Number]:
        """The first report's numbers by their names."""
        return {each.name: each for each in self.report.numbers}

    def shares(self) -> dict[str, Number]:
        """Column -> share of all samples, a mean over runs; the interval is of samples and runs."""
        each = [_shares(report) for report in self.reports]
        if len(each) == 1:
            return each[0]
        runs = {column: [some[column] for some in each] for column in each[0]}
        return {column: over_runs(some, self._pooled(some)) for column, some in runs.items()}

    def _pooled(self, each: Sequence[Number]) -> Number:
        """A share of the samples of all runs together."""
        n = sum(number.n for number in each)
        if each[0].name not in THRESHOLDS:
            hits = sum(round(number.value * number.n) for number in each)
            return Number.share(each[0].name, hits, n, each[0].definition)
        fit = _fit(self, each[0].name)
        x = np.concatenate([_features(report, fit.potentials) for report in self.reports])
        _, low, high = fit.expected(x, n)
        return replace(each[0], n=n, low=low, high=high)

    def ranks(self) -> list[float]:
        """Of each run the share that DFT is expected to call stable within 0.1 eV/atom."""
        numbers = [{each.name: each.value for each in report.numbers} for report in self.reports]
        return [each.get(RANKED_BY, float("nan")) for each in numbers]

    def rank(self) -> float:
        """The mean of `ranks`; -1 where none is known."""
        mean = float(np.mean(self.ranks()))
        return -1.0 if np.isnan(mean) else mean

    def per_hour(self) -> float:
        """Crystals that DFT is expected to call stable within 0.1 eV/atom, in an hour of a core."""
        share = self.rank() if self.rank() >= 0 else float("nan")
        return share * self.report.n * HOUR / max(self.cpu_seconds, 1e-9)


def _shares(report: Report) -> dict[str, Number]:
    """Column -> share of all samples of one run, with its interval."""

    def counted(name: str, hits: np.ndarray) -> Number:
        return Number.share(name, int(hits.sum()), report.n, {})

    known = {each.name: each for each in report.numbers}
    out = {column: known[name] for column, name in SHARES.items() if name in known}
    kinds, groups = (report.values.get(name, np.array([])) for name in (KIND, GROUP))
    out |= {kind: counted(kind, kinds == k) for k, kind in enumerate(KINDS[:-1])}
    return out | {P1: counted(P1, groups == 1)}


def over_runs(each: Sequence[Number], pooled: Number) -> Number:
    """The mean of a share over k runs, with an interval for the luck of samples and of runs.

    The interval of the pooled samples is widened by Student's for the mean of k runs, added in
    squares. Where it holds the luck of sampling already (Wilson's), only what the runs differ
    beyond that luck is added.

    Args:
        each: the share in each run.
        pooled: of the samples of all runs; its interval knows nothing of runs.
    """
    from scipy.stats import t

    k, values = len(each), np.array([number.value for number in each])
    mean = float(values.mean())
    luck = mean * (1 - mean) / each[0].n if pooled.interval == "Wilson" else 0.0
    spread = np.sqrt(max(values.var(ddof=1) - luck, 0.0) / k) * t.ppf((1 + LEVEL) / 2, k - 1)
    low, high = (float(np.hypot(mean - end, spread)) for end in (pooled.low, pooled.high))
    ends = max(mean - low, 0.0), min(mean + high, 1.0)
    how = f"{pooled.interval}, and Student's over {k} runs"
    return replace(pooled, value=mean, low=ends[0], high=ends[1], interval=how)


@dataclass(frozen=True, eq=False, repr=False)
class Board:
    """All entries, best first within their tables.

    Attributes:
        entries: those that could be judged.
        refused: folder -> why it has no row.
    """

    entries: tuple[Entry, ...]
    refused: dict[str, str]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Title -> one row an entry; cells read ``12.3 % (11.0–13.7)`` or ``18 % (8–30)``."""
        import pandas as pd

        out = {}
        for title in dict.fromkeys(entry.card.table for entry in self.entries):
            entries = [entry for entry in self.entries if entry.card.table == title]
            names = pd.Index([entry.card.name for entry in entries], name="entry")
            out[title] = pd.DataFrame(map(cells, entries), names).fillna("–")
        return out

    def __str__(self) -> str:
        lines = [f"{title}\n{table.to_string()}\n" for title, table in self.tables().items()]
        return "\n".join([*lines, *(f"refused {n}: {why}" for n, why in self.refused.items())])

    __repr__ = __str__  # reports are long

    def _repr_html_(self) -> str:
        parts = [
            f"<p><b>{html.escape(title)}</b>: click a heading to sort</p>"
            "<div style='overflow-x:auto;white-space:nowrap'>"
            f"{table.reset_index().to_html(index=False, border=0, classes='imd-board')}</div>"
            for title, table in self.tables().items()
        ]
        refused = [f"<p>{html.escape(f'refused {n}: {w}')}</p>" for n, w in self.refused.items()]
        return "".join([*parts, *refused, SORT])

    def page(self) -> str:
        """A page of its own, which asks no other host for anything."""
        style = "body{font-family:sans-serif;margin:1rem}td,th{padding:.2rem .6rem;text-align:left}"
        head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        return (
            f"<!doctype html><html lang='en'><head>{head}<title>Leaderboard</title>"
            f"<style>{style}</style></head><body><h1>Leaderboard</h1>{self._repr_html_()}"
            "</body></html>"
        )


def cells(entry: Entry) -> dict[str, str]:
    """Column -> what is shown; the page sorts by the first number in it."""
    rate, k = entry.per_hour(), len(entry.reports)
    out = {"made by": entry.card.made_by, "n": f"{k} × {entry.report.n:,}"}
    out |= {column: shown(share) for column, share in entry.shares().items()}
    if k > 1 and entry.rank() >= 0:
        out[EACH] = " / ".join(f"{100 * rank:.1f}" for rank in entry.ranks()) + " %"
    if found := [report[DIFFERENT] for report in entry.reports if DIFFERENT in entry.numbers]:
        hits = " / ".join(f"{round(each.value * each.n)}" for each in found)
        out[DIFFERENT] = f"{hits} of {found[0].n:,}"
    out["CPU hours"] = f"{entry.cpu_seconds / HOUR:.2f}"
    out["of it training"] = f"{entry.card.training_seconds / HOUR:.2f}"
    return out | {PER_HOUR: "–" if np.isnan(rate) else f"{rate:.{int(rate < 10)}f}"}


def shown(share: Number) -> str:
    """A share with its interval in per cent, e.g. ``18 % (8–30)``; decimals if it is narrow."""
    if np.isnan(share.value):
        return "–"
    digits = int(share.high - share.low < WIDE)
    value, low, high = (f"{100 * x:.{digits}f}" for x in (share.value, share.low, share.high))
    return f"{value} % ({low}–{high})"


def better(one: Entry, other: Entry) -> float:
    """Probability that the first is the better one, by the share that DFT is expected to confirm.

    Equation (eq-leaderboard-better) of the chapter on the leaderboard: shares are drawn from the
    coefficients of the calibration, which are the same for both, from how generators differ, from
    what other samples of the same runs would have been, and from how runs differ beyond that;
    equal ones count half.

    Raises:
        InputError: a report without calibrated energies.
        DefinitionError: entries that were not judged alike, as those of two tables.
    """
    check_comparable([*one.reports, *other.reports])
    fit, rng = _fit(one, RANKED_BY), np.random.default_rng(SEED)
    said = [[_features(each, fit.potentials) for each in some.reports] for some in (one, other)]
    drawn = fit.drawn(*map(np.concatenate, said), rng=rng)
    shares = [
        _again(np.split(p, np.cumsum([len(x) for x in runs])[:-1], axis=1), some, fit, rng)
        for p, runs, some in zip(drawn, said, (one, other), strict=True)
    ]
    return float((shares[0] > shares[1]).mean() + (shares[0] == shares[1]).mean() / 2)


def _again(
    drawn: list[np.ndarray], entry: Entry, fit: calibration.Calibration, rng: np.random.Generator
) -> np.ndarray:
    """(draws,) shares that other samples and other runs of an entry might have had."""
    n, k, means, luck = entry.report.n, len(drawn), [], []
    for p, report in zip(drawn, entry.reports, strict=True):
        # samples that were not asked for energies are no hits
        times = rng.multinomial(n, np.full(n, 1 / n), len(p))[:, : p.shape[1]]
        means.append((times * np.nan_to_num(p)).sum(1) / n)
        said = np.nan_to_num(fit.probability(_features(report, fit.potentials)))
        luck.append(((said**2).sum() / n - (said.sum() / n) ** 2) / n)
    if k == 1:
        return means[0]
    spread = np.sqrt(max(np.var(entry.ranks(), ddof=1) - np.mean(luck), 0.0) / k)
    return np.mean(means, axis=0) + spread * rng.standard_t(k - 1, size=len(means[0]))


def _fit(one: Entry, name: str) -> calibration.Calibration:
    """The calibration by which an expected number of an entry was computed."""
    if name not in one.numbers:
        raise InputError(f"{one.report.name} was judged without two potentials: judge it again")
    pair = one.numbers[name].definition["calibrated"]
    return calibration.calibration(tuple(pair), THRESHOLDS[name])


def _features(report: Report, pair: tuple[str, ...]) -> np.ndarray:
    """(k, 5) of the samples that were asked whether they lie near the hull."""
    asked = np.flatnonzero(report.facts["metastable"] >= 0)
    return calibration.features_in(report.values, pair, asked)


# ---- from folders


def leaderboard(
    *folders: Path | str,
    built_in: bool = True,
    again: bool = False,
    workers: int = 1,
    progress: bool = False,
) -> Board:
    """The tables of all entries; those without a report are judged, the others are read.

    A folder that cannot be read or judged gets no row and a reason, and stops nothing. A run that
    was stopped goes on from its finished pieces.

    Args:
        folders: an entry each (with a ``card.toml``), or folders of entries.
        built_in: with the entries that travel in the package.
        again: judge again what has a report.
        workers: processes on this machine.
        progress: show a bar for each step.

    Raises:
        InputError: no entry at all.
        DefinitionError: two entries of one table were judged by different definitions.
    """
    places = [data_path("leaderboard")] if built_in else []
    found = [entry for place in [*places, *map(Path, folders)] for entry in _entries(place)]
    if not found:
        raise InputError(
            f"no entry in {', '.join(map(str, folders)) or 'no folder'}: an entry is a folder with "
            f"{CARD} and {SAMPLES}"
        )

    sets = cache(sets_of)
    entries, refused, how = [], {}, {"workers": workers, "progress": progress}
    for folder in found:
        try:
            entries.append(entry(folder, sets, again=again, **how))
        except (InputError, OSError) as error:
            refused[str(folder.name)] = str(error)
    for title in dict.fromkeys(each.card.table for each in entries):
        check_comparable([r for each in entries if each.card.table == title for r in each.reports])
    ranked = sorted(entries, key=_order)
    return Board(tuple(ranked), refused)


def _order(entry: Entry) -> tuple:
    """Tables of all chemistries come first, and in each table the best."""
    card = entry.card
    return card.chemistry, card.table, -entry.rank(), card.name


def _entries(place: Path) -> list[Path]:
    """A folder that is an entry, or those below it."""
    if (place / CARD).exists():
        return [place]
    return sorted(file.parent for file in place.glob(f"*/{CARD}"))


def entry(folder: Path, sets: Callable[[str, str], Sets], *, again: bool, **how: Any) -> Entry:
    """One entry; its runs are judged if they have no report.

    Raises:
        InputError: a card or samples that cannot be read, or runs of unequal size; names the file
            and the rule.
    """
    card = read_card(folder / CARD)
    places = [folder, *sorted(each for each in folder.glob(RUNS) if each.is_dir())]
    reports = tuple(_report(each, card, sets, again=again, **how) for each in places)
    if sizes := {each.n for each in reports} - {reports[0].n}:
        raise InputError(
            f"{folder} holds runs of {reports[0].n} and of {min(sizes)} samples: their mean is of "
            "runs of one size, so draw as many in each"
        )
    return Entry(folder, card, reports)


def _report(
    folder: Path, card: Card, sets: Callable[[str, str], Sets], *, again: bool, **how: Any
) -> Report:
    """Of one run, judged if it has no report."""
    file = folder / REPORT
    if file.exists() and not again:
        report = Report.from_json(file.read_text(encoding="utf-8"))
        return replace(report, name=card.name)
    with locked(folder, file=REPORT):
        how = {"cache": folder / WORK, "name": card.name, **how}
        text = judged(_samples(folder), sets(card.chemistry, card.made), **how).to_json()
        write_atomic(file, text.encode())
        shutil.rmtree(folder / WORK, ignore_errors=True)  # its pieces are in the report now
    return Report.from_json(text)  # as it will be read: rounded


def judged(samples: Samples, sets: Sets, **how: Any) -> Report:
    """The judge's report, and of each sample the kind of novelty, space group, hidden crystal."""
    report = judge(samples, reference=sets.known, training=sets.training, protocol=PROTOCOL, **how)
    found = {name: np.full(report.n, np.nan) for name in (KIND, GROUP, HIDDEN)}
    good = np.flatnonzero(report.facts["distances"] == 1)
    if len(good):
        crystals = report.samples.crystals[good]
        known = [each.crystals for each in sets[:2] if each is not None]
        kinds = novelty_kinds(crystals, CrystalBatch.cat(known)).kind
        found[KIND][good] = [KINDS.index(kind) for kind in kinds]
        found[GROUP][good] = symmetry.space_group_numbers(crystals)
        first = same_as_reference(crystals, sets.hidden).first
        found[HIDDEN][good] = np.where(first == NONE, np.nan, first)
    numbers = (*report.numbers, *found_again(found[HIDDEN], sets.hidden))
    return replace(report, values={**report.values, **found}, numbers=numbers)


def read_card(file: Path) -> Card:
    """A card of an entry.

    Raises:
        InputError: not TOML, a field that is missing or unknown, or a value out of its range.
    """
    try:
        data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f'{file} is no TOML ({error}): write lines such as name = "MatGAN"'
        ) from None
    known = {each.name: each for each in fields(Card)}
    for name in data:
        lookup(f"field of {file}", name, known)
    missing = [name for name in ("name", "table", "made_by", "source") if not data.get(name)]
    if missing:
        raise InputError(f"{file} lacks {', '.join(missing)}: an entry must say what it is")
    return Card(**data)


def _samples(folder: Path) -> Samples:
    """The samples beside a card."""
    ours = {CARD, REPORT}
    given = [folder / SAMPLES] if (folder / SAMPLES).exists() else sorted(
        file for file in folder.iterdir() if file.is_file() and file.name not in ours
        and not file.name.startswith(".")
    )  # fmt: skip
    if not given:
        raise InputError(f"{folder} holds no samples: put {SAMPLES}, CIFs or extxyz beside {CARD}")
    samples = files.read(given)
    if isinstance(samples.content, np.ndarray):
        raise InputError(f"{folder} holds formulas: only crystals can be ranked")
    return samples
