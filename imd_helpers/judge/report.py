"""What the judge returns: counts, shares with intervals, and the definition of each number."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError
from .intervals import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = "imd-report-1"
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


@dataclass(frozen=True, eq=False)
class Report:
    """Verdicts on n samples.

    Attributes:
        name: whose samples they are.
        n: how many samples were judged; every share is of these n.
        stages: in the order in which they were applied.
        failed_at: (n,) index of the first stage that a sample fails, ``len(stages)`` where it
            passes all.
        reasons: (n,) why a sample failed, empty where it passes.
    """

    name: str
    n: int
    stages: tuple[Stage, ...]
    failed_at: np.ndarray = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)

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

    @property
    def definition(self) -> dict[str, dict[str, Any]]:
        """Stage -> what its number means. Reports compare only where this is equal."""
        return {stage.name: dict(stage.definition) for stage in self.stages}

    def compare(self, *others: Report) -> pd.DataFrame:
        """See `compare`."""
        return compare([self, *others])

    def figure(self, *others: Report) -> Figure:
        """Shares that survive each stage, with intervals, of this report and others beside it.

        Raises:
            DefinitionError: the reports' numbers mean different things.
        """
        return _draw([self, *others])

    def to_json(self) -> str:
        """The whole report as JSON text."""
        data = {
            "format": FORMAT,
            "name": self.name,
            "n": self.n,
            "level": LEVEL,
            "stages": [
                {
                    "name": stage.name,
                    "definition": stage.definition,
                    "tried": stage.tried,
                    "passed": stage.passed,
                    "seconds": round(stage.seconds, 4),
                }
                for stage in self.stages
            ],
            "failed_at": self.failed_at.tolist(),
            "reasons": list(self.reasons),
        }
        return json.dumps(data, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what `to_json` wrote.

        Raises:
            InputError: the text is no report.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"not a report: not JSON ({error}); write it with to_json") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"not a report: its format is not {FORMAT!r}; write it with to_json")
        stages = tuple(Stage(**stage) for stage in data["stages"])
        failed_at = np.array(data["failed_at"], dtype=np.int64)
        return cls(data["name"], data["n"], stages, failed_at, tuple(data["reasons"]))

    def __str__(self) -> str:
        return f"{self.name}: {self.n:,} samples\n{_text(self.table)}"

    def _repr_html_(self) -> str:
        rows = _text_columns(self.table).to_html(border=0)
        meaning = html.escape(json.dumps(self.definition, indent=1, ensure_ascii=False))
        return (
            f"<p><b>{html.escape(self.name)}</b>: {self.n:,} samples; shares are of all samples, "
            f"with Wilson {LEVEL:.0%} intervals</p>{rows}"
            f"<details><summary>definitions</summary><pre>{meaning}</pre></details>"
        )


def compare(reports: Sequence[Report]) -> pd.DataFrame:
    """Shares of n that survive each stage, one column a report: ``12.3 % (11.0–13.7)``.

    Raises:
        DefinitionError: the reports' numbers mean different things.
        InputError: no reports.
    """
    import pandas as pd

    check_comparable(reports)
    columns = [
        pd.Series(_shares(table), table.index, name=f"{report.name} (n = {report.n:,})")
        for report, table in ((report, report.table) for report in reports)
    ]
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
                f"reports {first.name!r} and {other.name!r} cannot be compared: {key} is {one!r} "
                f"in the one and {two!r} in the other; judge both sets of samples alike"
            )


def _flat(definition: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    # through JSON, so that a report that was read back equals the one that was written
    plain = json.loads(json.dumps(definition))
    out = {"stages": list(plain)}
    for stage, values in plain.items():
        out.update({f"{stage}.{key}": value for key, value in values.items()})
    return out


def _difference(one: dict[str, Any], two: dict[str, Any]) -> tuple[str, Any, Any] | None:
    for key in [*one, *two]:
        if one.get(key) != two.get(key):
            return key, one.get(key), two.get(key)
    return None


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


def _text(table: pd.DataFrame) -> str:
    return _text_columns(table).to_string()


def _draw(reports: Sequence[Report]) -> Figure:
    from matplotlib import pyplot as plt

    check_comparable(reports)
    names = [stage.name for stage in reports[0].stages]
    thick = 0.8 / len(reports)
    size = (7.5, 0.7 + len(names) * max(0.45, 0.22 * len(reports)))
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    for k, report in enumerate(reports):
        table = report.table
        y = np.arange(len(names)) + (k - (len(reports) - 1) / 2) * thick
        share, low, high = (100 * table[c].to_numpy() for c in ("share", "low", "high"))
        color = COLORS[k % len(COLORS)]
        ax.barh(y, share, 0.9 * thick, color=color, label=f"{report.name} (n = {report.n:,})")
        ax.errorbar(share, y, xerr=(share - low, high - share), fmt="none", ecolor=INK, capsize=2)
        for place, value, end in zip(y, share, high, strict=True):
            ax.text(end + 1, place, f"{value:.1f}", va="center", fontsize=8, color=INK)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 108)
    ax.set_xlabel("samples that survive up to here, % of n")
    _blend(fig, ax)
    return fig


def _blend(fig: Figure, ax: Any) -> None:
    """No background and middle-grey ink, so that the figure reads on light and dark pages."""
    fig.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.tick_params(colors=INK)
    ax.xaxis.label.set_color(INK)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(INK)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, labelcolor=INK)
