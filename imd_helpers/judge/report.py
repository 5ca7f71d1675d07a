"""What the judge returns: counts, shares with intervals, and the definition of each number."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..intervals import wilson
from ..runtime import InputError, lookup

if TYPE_CHECKING:
    import pandas as pd

    from ..crystals import CrystalBatch
    from ..crystals.samples import Samples

FORMAT = "imd-report-2"
SHARE = "share"  # unit of a number that is a share
LEVEL = 0.95  # of all intervals
CODES = "-01"  # of facts in JSON: not asked, no, yes


class DefinitionError(InputError):
    """Two reports whose numbers mean different things."""


@dataclass(frozen=True)
class Stage:
    """One step of the funnel."""

    name: str  # e.g. ``distances``
    # rule, thresholds, tables and package versions: what the number means
    definition: Mapping[str, Any]
    tried: int  # how many samples reached this stage
    passed: int  # how many of them passed
    seconds: float  # of a processor, summed over all that worked


@dataclass(frozen=True)
class Number:
    """One number of a protocol."""

    name: str  # e.g. ``S.U.N.``
    value: float  # NaN where there is none; the note says why
    n: int  # its denominator: how many samples (or reference crystals) it is about
    low: float  # lower end of its 95 % interval
    high: float  # upper end
    # how the interval was made, e.g. ``Wilson`` or ``bootstrap``; empty where there is none
    interval: str
    unit: str  # ``share``, ``eV/atom``, …
    definition: Mapping[str, Any] = field(repr=False)  # what the number means
    seconds: float  # computing time of the steps it needs, summed over processes
    note: str = ""  # what to know before quoting it

    @classmethod
    def share(
        cls,
        name: str,
        hits: int,
        n: int,
        definition: Mapping[str, Any],
        seconds: float = 0.0,
        note: str = "",
    ) -> Number:
        """Hits of n with Wilson's interval; NaN where n is 0."""
        low, high = (float(end) for end in wilson(hits, n, level=LEVEL))
        value = hits / n if n else float("nan")
        return cls(name, value, n, low, high, "Wilson", SHARE, definition, seconds, note)

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        scale, digits, unit = (100, 1, " %") if self.unit == SHARE else (1, 3, f" {self.unit}")
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value}{unit} ({low}–{high})" if self.interval else value + unit


@dataclass(frozen=True, eq=False)
class Report:
    """Verdicts on n samples."""

    name: str  # whose samples they are
    n: int  # how many samples were judged; every share in `table` is of these n
    stages: tuple[Stage, ...]  # in the order in which they were applied
    # (n,) index of the first stage that a sample fails, ``len(stages)`` where it passes all
    failed_at: np.ndarray = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)  # (n,) why a sample failed, empty where it passes
    protocol: str = ""  # by which protocol
    # the protocol's title, sources, notes and settings
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    # the protocol's own numbers, each with its own denominator
    numbers: tuple[Number, ...] = field(default=(), repr=False)
    # fact -> (n,) int8: 1 holds, 0 does not, -1 was not asked
    facts: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    # quantity -> (n,) float64, NaN where it was not computed
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    # what to know before quoting this report
    notes: tuple[str, ...] = field(default=(), repr=False)
    # what was judged; not part of the JSON
    samples: Samples | None = field(default=None, repr=False)
    # the samples after relaxation, where there was one; not part of the JSON
    relaxed: CrystalBatch | None = field(default=None, repr=False)
    # fact -> sample -> plain data that some facts leave, e.g. phonon bands; not part of the JSON
    details: Mapping[str, Mapping[int, Any]] = field(default_factory=dict, repr=False)

    @property
    def passed(self) -> np.ndarray:
        """(n,) bool, True where a sample passes all stages."""
        return self.failed_at == len(self.stages)

    def reason(self, index: int) -> str:
        """``stage: why`` of one sample, empty where it passes."""
        if self.passed[index]:
            return ""
        return f"{self.stages[self.failed_at[index]].name}: {self.reasons[index]}"

    @property
    def table(self) -> pd.DataFrame:
        """One row a stage: tried, passed, share of n with its Wilson 95 % interval, seconds."""
        import pandas as pd

        passed = np.array([stage.passed for stage in self.stages])
        low, high = wilson(passed, self.n, level=LEVEL)
        rows = {stage.name: (stage.tried, stage.passed) for stage in self.stages}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["tried", "passed"])
        table = table.assign(share=passed / self.n, low=low, high=high)
        table["seconds"] = [stage.seconds for stage in self.stages]
        return table.rename_axis("stage")

    def __getitem__(self, name: str) -> Number:
        """One number by its name, e.g. ``report["S.U.N."]``.

        Raises:
            UnknownNameError: this report has no such number; those it has are listed.
        """
        by_name = {number.name: number for number in self.numbers}
        return by_name[lookup("number of this report", name, by_name)]

    @property
    def definition(self) -> dict[str, dict[str, Any]]:
        """Stage or number -> what it means. Reports compare only where this is equal."""
        stages = {stage.name: dict(stage.definition) for stage in self.stages}
        numbers = {f"number {number.name}": dict(number.definition) for number in self.numbers}
        return {"report": {"protocol": self.protocol, **self.about}, **stages, **numbers}

    def to_json(self) -> str:
        """The whole report as JSON text, without samples and relaxed crystals."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "n": self.n,
            "level": LEVEL,
            "protocol": self.protocol,
            "about": _jsonable(self.about),
            "notes": list(self.notes),
            "stages": [_plain(stage) for stage in self.stages],
            "numbers": [_plain(number) for number in self.numbers],
            "failed_at": self.failed_at.tolist(),
            "reasons": list(self.reasons),
            "facts": {k: "".join(CODES[c + 1] for c in v) for k, v in self.facts.items()},
            "values": {k: [rounded(x) for x in v] for k, v in self.values.items()},
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is no report.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            data.pop("level")
            data |= {key: tuple(data[key]) for key in ("reasons", "notes")}
            data["stages"] = tuple(Stage(**stage) for stage in data["stages"])
            data["numbers"] = tuple(_number(number) for number in data["numbers"])
            data["failed_at"] = np.array(data["failed_at"], dtype=np.int64)
            data["facts"] = {
                fact: np.array([CODES.index(letter) - 1 for letter in letters], dtype=np.int8)
                for fact, letters in data["facts"].items()
            }
            data["values"] = {k: np.array(v, dtype=float) for k, v in data["values"].items()}
            return cls(**data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not a report: {type(error).__name__}: {error}; the file was changed or cut off, "
                "write it again with to_json"
            ) from error

    def _texts(self) -> dict[str, pd.DataFrame]:
        """Heading -> table: stages, and the protocol's numbers where there are some."""
        import pandas as pd

        stages = pd.DataFrame(
            {
                "tried": [f"{stage.tried:,}" for stage in self.stages],
                "passed": [f"{stage.passed:,}" for stage in self.stages],
                "share of n": _shares(self.table),
                "seconds": [f"{stage.seconds:.2f}" for stage in self.stages],
            },
            index=self.table.index,
        )
        rows = [(str(k), f"{k.n:,}", f"{k.seconds:.2f}", k.note) for k in self.numbers]
        names = pd.Index([number.name for number in self.numbers], name="number")
        numbers = pd.DataFrame(rows, names, ["value", "of", "seconds", "note"])
        tables = {f"{self.name}: {self.n:,} samples": stages}
        return {**tables, f"protocol {self.protocol}": numbers} if rows else tables

    def __str__(self) -> str:
        lines = [f"{heading}\n{table.to_string()}" for heading, table in self._texts().items()]
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        parts = [
            f"<p><b>{html.escape(heading)}</b></p>{table.to_html(border=0)}"
            for heading, table in self._texts().items()
        ]
        meaning = html.escape(json.dumps(self.definition, indent=1, ensure_ascii=False))
        return (
            f"{''.join(parts)}<p>shares of the stages are of all samples; {LEVEL:.0%} intervals</p>"
            f"{''.join(f'<p>{html.escape(note)}</p>' for note in self.notes)}"
            f"<details><summary>definitions</summary><pre>{meaning}</pre></details>"
        )


def compare(reports: Sequence[Report]) -> pd.DataFrame:
    """One column a report: the protocol's numbers, or without a protocol the stages' shares of n.

    Cells read ``12.3 % (11.0–13.7)``.

    Raises:
        DefinitionError: the reports' numbers mean different things.
        InputError: no reports.
    """
    import pandas as pd

    check_comparable(reports)
    columns = []
    for report in reports:
        cells = pd.Series({number.name: str(number) for number in report.numbers})
        cells = cells.rename_axis("number") if len(cells) else _shares(report.table)
        columns.append(cells.rename(f"{report.name} (n = {report.n:,})"))
    return pd.concat(columns, axis=1)


def check_comparable(reports: Sequence[Report]) -> None:
    """Raise unless all reports define their numbers alike.

    Raises:
        DefinitionError: names the first difference.
        InputError: no reports.
    """
    if not reports:
        raise InputError("no reports given: compare at least one")
    first, *others = [_flat(report.definition) for report in reports]
    for report, other in zip(reports[1:], others, strict=True):
        key = next((key for key in [*first, *other] if first.get(key) != other.get(key)), None)
        if key is None:
            continue
        here, there = first.get(key), other.get(key)
        if key == "stages" and set(here) != set(there):  # name those that differ, not all
            here, there = ([k for k in a if k not in b] for a, b in ((here, there), (there, here)))
        raise DefinitionError(
            f"reports {reports[0].name!r} and {report.name!r} cannot be compared: {key} is "
            f"{_short(here)} in the one and {_short(there)} in the other; judge both sets of "
            "samples alike"
        )


def _flat(definition: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from pandas import json_normalize

    # through JSON, so that a report that was read back equals the one that was written
    plain = json.loads(json.dumps(_jsonable(definition)))
    about, stages = json_normalize(plain.pop("report")), list(plain)
    flat = [part.to_dict("records")[0] for part in (about, json_normalize(plain))]
    return {**flat[0], "stages": stages, **flat[1]}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _shares(table: pd.DataFrame) -> pd.Series:
    """Stage -> share of n with its interval, as text."""
    percent = (100 * table[["share", "low", "high"]]).map("{:.1f}".format)
    return percent["share"] + " % (" + percent["low"] + "–" + percent["high"] + ")"


def _plain(part: Stage | Number) -> dict[str, Any]:
    """A stage or a number as JSON can hold it: NaN becomes null."""
    fields = {key: getattr(part, key) for key in part.__dataclass_fields__}
    plain = {k: rounded(v) if isinstance(v, float) else v for k, v in fields.items()}
    return {**plain, "definition": _jsonable(part.definition)}


def _jsonable(value: Any) -> Any:
    """Infinite bounds as words: JSON has no number for them."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def rounded(value: float, digits: int = 6) -> float | None:
    """A number as JSON can hold it: none where it is not finite."""
    return round(float(value), digits) if np.isfinite(value) else None


def _number(data: dict[str, Any]) -> Number:
    missing = {key: float("nan") for key in ("value", "low", "high") if data[key] is None}
    return Number(**{**data, **missing})
