"""What the judge returns: counts, shares with intervals, and the definition of each number."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError, lookup
from .intervals import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..crystals import CrystalBatch

FORMAT = "imd-report-2"
OLD_FORMAT = "imd-report-1"  # stages alone
SHARE = "share"  # unit of a number that is a share
LEVEL = 0.95  # of all intervals
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # Okabe and Ito
INK = "#777777"  # readable on white and on black


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
        protocol: by which protocol, empty for a plain funnel.
        about: the protocol's title, sources, notes and settings.
        numbers: the protocol's own numbers, each with its own denominator.
        facts: fact -> (n,) int8: 1 holds, 0 does not, -1 was not asked.
        values: quantity -> (n,) float64, NaN where it was not computed.
        notes: what to know before quoting this report.
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

    def figure(self, *others: Report) -> Figure:
        """Shares that survive each stage, with intervals, of this report and others beside it.

        Where there is a protocol, its own shares stand in a second panel.

        Raises:
            DefinitionError: the reports' numbers mean different things.
        """
        return _draw([self, *others])

    def to_json(self) -> str:
        """The whole report as JSON text, without the relaxed crystals."""
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


def _draw(reports: Sequence[Report]) -> Figure:
    from matplotlib import pyplot as plt

    check_comparable(reports)
    shares = [k.name for k in reports[0].numbers if k.unit == SHARE and k.interval]
    rows = max(len(reports[0].stages), len(shares))
    size = (7.5 + 4.5 * bool(shares), 0.7 + rows * max(0.45, 0.22 * len(reports)))
    panels = {"width_ratios": (3, 2)} if shares else {}
    fig, axes = plt.subplots(
        1, 1 + bool(shares), figsize=size, layout="constrained", squeeze=False, gridspec_kw=panels
    )
    _draw_stages(axes[0, 0], reports)
    if shares:
        _draw_numbers(axes[0, 1], reports, shares)
    return fig


def _draw_stages(ax: Axes, reports: Sequence[Report]) -> None:
    names = [stage.name for stage in reports[0].stages]
    for k, report in enumerate(reports):
        table = report.table
        y = np.arange(len(names)) + _offset(k, len(reports))
        share, low, high = (100 * table[c].to_numpy() for c in ("share", "low", "high"))
        label = f"{report.name} (n = {report.n:,})"
        ax.barh(y, share, 0.72 / len(reports), color=COLORS[k % len(COLORS)], label=label)
        ax.errorbar(share, y, xerr=(share - low, high - share), fmt="none", ecolor=INK, capsize=2)
        for place, value, end in zip(y, share, high, strict=True):
            ax.text(end + 1, place, f"{value:.1f}", va="center", fontsize=8, color=INK)
    _finish(ax, names, "samples that survive up to here, % of n")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, labelcolor=INK)


def _draw_numbers(ax: Axes, reports: Sequence[Report], names: Sequence[str]) -> None:
    for k, report in enumerate(reports):
        y = np.arange(len(names)) + _offset(k, len(reports))
        rows = [report[name] for name in names]
        value, low, high = (
            100 * np.array([getattr(row, end) for row in rows]) for end in ("value", "low", "high")
        )
        ax.errorbar(
            value,
            y,
            xerr=(value - low, high - value),
            fmt="o",
            ms=5,
            capsize=2,
            color=COLORS[k % len(COLORS)],
        )
    _finish(ax, names, f"numbers of the protocol {reports[0].protocol}, %")


def _offset(k: int, n: int) -> float:
    """Where the k-th of n reports stands in its row."""
    return (k - (n - 1) / 2) * 0.8 / n


def _finish(ax: Axes, names: Sequence[str], label: str) -> None:
    """Rows from top to bottom, and ink that reads on light and dark pages."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 108)
    ax.set_xlabel(label)
    ax.figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.tick_params(colors=INK)
    ax.xaxis.label.set_color(INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(INK)
