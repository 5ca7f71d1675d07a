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
OLD_FORMAT = "imd-report-1"  # stages alone
SHARE = "share"  # unit of a number that is a share
LEVEL = 0.95  # of all intervals


class DefinitionError(InputError):
    """Two reports whose numbers mean different things."""


@dataclass(frozen=True)
class Stage:
    """One step of the funnel.

    Attributes:
        name: e.g. ``distances``.
        definition: rule, thresholds, tables and package versions: what the number means.
        tried: how many samples reached this stage.
        passed: how many of them passed.
        seconds: wall time.
    """

    name: str
    definition: Mapping[str, Any]
    tried: int
    passed: int
    seconds: float


@dataclass(frozen=True)
class Number:
    """One number of a protocol.

    Attributes:
        name: e.g. ``S.U.N.``.
        value: NaN where there is none; the note says why.
        n: its denominator: how many samples (or reference crystals) it is about.
        low: lower end of its 95 % interval.
        high: upper end.
        interval: how the interval was made, e.g. ``Wilson`` or ``bootstrap``; empty where there is
            none.
        unit: ``share``, ``eV/atom``, …
        definition: what the number means.
        seconds: computing time of the steps it needs, summed over processes.
        note: what to know before quoting it.
    """

    name: str
    value: float
    n: int
    low: float
    high: float
    interval: str
    unit: str
    definition: Mapping[str, Any] = field(repr=False)
    seconds: float
    note: str = ""

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        scale, digits, unit = (100, 1, " %") if self.unit == SHARE else (1, 3, f" {self.unit}")
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value}{unit.rstrip()} ({low}–{high})" if self.interval else value + unit.rstrip()


@dataclass(frozen=True, eq=False)
class Report:
    """Verdicts on n samples.

    Attributes:
        name: whose samples they are.
        n: how many samples were judged; every share in `table` is of these n.
        stages: in the order in which they were applied.
        failed_at: (n,) index of the first stage that a sample fails, ``len(stages)`` where it
            passes all.
        reasons: (n,) why a sample failed, empty where it passes.
        protocol: by which protocol.
        about: the protocol's title, sources, notes and settings.
        numbers: the protocol's own numbers, each with its own denominator.
        facts: fact -> (n,) int8: 1 holds, 0 does not, -1 was not asked.
        values: quantity -> (n,) float64, NaN where it was not computed.
        notes: what to know before quoting this report.
        samples: what was judged; not part of the JSON.
        relaxed: the samples after relaxation, where there was one; not part of the JSON.
    """

    name: str
    n: int
    stages: tuple[Stage, ...]
    failed_at: np.ndarray = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    protocol: str = ""
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    numbers: tuple[Number, ...] = field(default=(), repr=False)
    facts: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    values: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    samples: Samples | None = field(default=None, repr=False)
    relaxed: CrystalBatch | None = field(default=None, repr=False)

    @property
    def passed(self) -> np.ndarray:
        """(n,) bool, True where a sample passes all stages."""
        return self.failed_at == len(self.stages)

    def reached(self, stage: str) -> np.ndarray:
        """(n,) bool, True where a sample passes this stage and all before it."""
        names = [each.name for each in self.stages]
        if stage not in names:
            raise InputError(f"no stage {stage!r} in this report; it has {', '.join(names)}")
        return self.failed_at > names.index(stage)

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
        return pd.DataFrame(
            {
                "tried": [stage.tried for stage in self.stages],
                "passed": passed,
                "share": passed / self.n,
                "low": low,
                "high": high,
                "seconds": [stage.seconds for stage in self.stages],
            },
            index=pd.Index([stage.name for stage in self.stages], name="stage"),
        )

    def __getitem__(self, name: str) -> Number:
        """One number by its name, e.g. ``report["S.U.N."]``.

        Raises:
            UnknownNameError: this report has no such number; those it has are listed.
        """
        by_name = {number.name: number for number in self.numbers}
        return by_name[lookup("number of this report", name, by_name)]

    @property
    def summary(self) -> pd.DataFrame:
        """One row a number: value, 95 % interval, denominator, unit, seconds, note."""
        import pandas as pd

        columns = ["value", "low", "high", "n", "interval", "unit", "seconds", "note"]
        rows = [[getattr(number, column) for column in columns] for number in self.numbers]
        names = pd.Index([number.name for number in self.numbers], name="number")
        return pd.DataFrame(rows, index=names, columns=columns)

    @property
    def definition(self) -> dict[str, dict[str, Any]]:
        """Stage or number -> what it means. Reports compare only where this is equal."""
        stages = {stage.name: dict(stage.definition) for stage in self.stages}
        numbers = {f"number {number.name}": dict(number.definition) for number in self.numbers}
        return {"report": {"protocol": self.protocol, **self.about}, **stages, **numbers}

    def compare(self, *others: Report) -> pd.DataFrame:
        """See `compare`."""
        return compare([self, *others])

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
            "facts": {fact: _encode(codes) for fact, codes in self.facts.items()},
            "values": {key: [_rounded(x) for x in v] for key, v in self.values.items()},
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote, now or in the first format.

        Raises:
            InputError: the text is no report.
        """
        data = _parsed(text)
        try:
            return cls(
                name=data["name"],
                n=data["n"],
                stages=tuple(Stage(**stage) for stage in data["stages"]),
                failed_at=np.array(data["failed_at"], dtype=np.int64),
                reasons=tuple(data["reasons"]),
                protocol=data.get("protocol", ""),
                about=data.get("about", {}),
                numbers=tuple(_number(number) for number in data.get("numbers", ())),
                facts={fact: _decode(code) for fact, code in data.get("facts", {}).items()},
                values={k: np.array(v, dtype=float) for k, v in data.get("values", {}).items()},
                notes=tuple(data.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not a report: {type(error).__name__}: {error}; the file was changed or cut off, "
                "write it again with to_json"
            ) from error

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.n:,} samples", _text_columns(self.table).to_string()]
        if self.numbers:
            parts += [f"protocol {self.protocol}", _text_numbers(self.numbers).to_string()]
        return "\n".join([*parts, *self.notes])

    def _repr_html_(self) -> str:
        rows = _text_columns(self.table).to_html(border=0)
        if self.numbers:
            rows += f"<p>protocol <b>{html.escape(self.protocol)}</b></p>"
            rows += _text_numbers(self.numbers).to_html(border=0)
        rows += "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        meaning = html.escape(json.dumps(self.definition, indent=1, ensure_ascii=False))
        return (
            f"<p><b>{html.escape(self.name)}</b>: {self.n:,} samples; shares of the stages are of "
            f"all samples; {LEVEL:.0%} intervals</p>{rows}"
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
        if report.numbers:
            names = pd.Index([number.name for number in report.numbers], name="number")
            cells = [str(number) for number in report.numbers]
        else:
            names, cells = report.table.index, _shares(report.table)
        columns.append(pd.Series(cells, names, name=f"{report.name} (n = {report.n:,})"))
    return pd.concat(columns, axis=1)


def check_comparable(reports: Sequence[Report]) -> None:
    """Raise unless all reports define their numbers alike.

    Raises:
        DefinitionError: names the first difference.
        InputError: no reports.
    """
    if not reports:
        raise InputError("no reports given: compare at least one")
    first = reports[0]
    for other in reports[1:]:
        difference = _difference(_flat(first.definition), _flat(other.definition))
        if difference:
            key, one, two = difference
            raise DefinitionError(
                f"reports {first.name!r} and {other.name!r} cannot be compared: {key} is "
                f"{_short(one)} in the one and {_short(two)} in the other; judge both sets of "
                "samples alike"
            )


def _flat(definition: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    # through JSON, so that a report that was read back equals the one that was written
    plain = json.loads(json.dumps(_jsonable(definition)))
    stages = [key for key in plain if key != "report"]
    return {**_leaves(plain.pop("report"), ""), "stages": stages, **_leaves(plain, "")}


def _leaves(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    out = {}
    for key, value in values.items():
        inner = isinstance(value, dict) and value
        out.update(_leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return out


def _difference(one: dict[str, Any], two: dict[str, Any]) -> tuple[str, Any, Any] | None:
    for key in [*one, *two]:
        here, there = one.get(key), two.get(key)
        if here == there:
            continue
        if key == "stages" and set(here) != set(there):  # name those that differ, not all
            here, there = ([k for k in a if k not in b] for a, b in ((here, there), (there, here)))
        return key, here, there
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _shares(table: pd.DataFrame) -> list[str]:
    return [
        f"{100 * row.share:.1f} % ({100 * row.low:.1f}–{100 * row.high:.1f})"
        for row in table.itertuples()
    ]


def _text_columns(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "tried": [f"{n:,}" for n in table["tried"]],
            "passed": [f"{n:,}" for n in table["passed"]],
            "share of n": _shares(table),
            "seconds": [f"{s:.2f}" for s in table["seconds"]],
        },
        index=table.index,
    )


def _text_numbers(numbers: Sequence[Number]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "value": [str(number) for number in numbers],
            "of": [f"{number.n:,}" for number in numbers],
            "seconds": [f"{number.seconds:.2f}" for number in numbers],
            "note": [number.note for number in numbers],
        },
        index=pd.Index([number.name for number in numbers], name="number"),
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not a report: not JSON ({error}); write it with to_json") from None
    known = isinstance(data, dict) and data.get("format") in (FORMAT, OLD_FORMAT)
    if not known:
        raise InputError(f"not a report: its format is not {FORMAT!r}; write it with to_json")
    return data


def _plain(part: Stage | Number) -> dict[str, Any]:
    """A stage or a number as JSON can hold it: NaN becomes null."""
    fields = {key: getattr(part, key) for key in part.__dataclass_fields__}
    plain = {k: _rounded(v) if isinstance(v, float) else v for k, v in fields.items()}
    return {**plain, "definition": _jsonable(part.definition)}


def _jsonable(value: Any) -> Any:
    """Infinite bounds as words: JSON has no number for them."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _number(data: dict[str, Any]) -> Number:
    missing = {key: float("nan") for key in ("value", "low", "high") if data[key] is None}
    return Number(**{**data, **missing})


def _encode(codes: np.ndarray) -> str:
    return "".join("-01"[code + 1] for code in codes)


def _decode(text: str) -> np.ndarray:
    return np.array(["-01".index(letter) - 1 for letter in text], dtype=np.int8)
