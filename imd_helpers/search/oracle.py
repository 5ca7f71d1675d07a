"""An oracle that counts how often it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import InputError, number
from ..work import JsonLog, Process

MOST_IDLE = 1_000  # calls in a row that ask nothing new, before a search counts as over


class BudgetError(InputError):
    """The budget of an oracle is spent, so that a question was not asked."""


class Oracle:
    """Answers questions, counts and keeps the answers, and outlives those that fail.

    One call is one question that was not asked before; asking again costs nothing. A question
    that raises, or has no answer within ``limit``, has the answer NaN and a reason in ``failed``;
    it is not tried again.

    Args:
        answer: (n,) or (n, width) numbers for n questions, which can be indexed by an array.
        keys: a key for each question, equal for equal questions; default: rows of numbers.
        budget: how much may be spent; a question that could cost more than is left is refused.
        cost: what an answer has cost, from its (width,) numbers, or one NaN; default: 1.
        dearest: the most that one answer can cost.
        limit: seconds for an answer, which is then sought in a process of its own that is killed
            and replaced; the function must be one of a module, or an object that can be pickled.
        log: a file of JSON lines, written after each batch. What it holds already is not computed
            again, so that a search that was killed goes on when it is started in the same way.
        about: what the log is of, on its first line.

    Raises:
        InputError: a budget, limit or cost that is not positive, a function that no other process
            can be given, or the log of something else.
    """

    def __init__(
        self,
        answer: Callable[[Any], Any],
        *,
        keys: Callable[[Any], list[bytes]] | None = None,
        budget: float | None = None,
        cost: Callable[[np.ndarray], float] | None = None,
        dearest: float = 1.0,
        limit: float | None = None,
        log: Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (("budget", budget), ("limit", limit), ("dearest", dearest)):
            if value is not None:
                number(name, value, above=0)
        self.budget, self.spent, self.idle = budget, 0.0, 0
        self.asked: list[Any] = []  # batches of questions, in order
        self.answers: dict[bytes, np.ndarray] = {}  # by key, in order, each (width,)
        self.failed: dict[bytes, str] = {}  # why there is no answer
        self._costs: list[float] = []
        self._width = 1  # of the rows
        self._keys, self._cost, self._dearest = keys or row_keys, cost or (lambda _: 1.0), dearest
        # is told what each batch has cost, for a progress bar; may raise `BudgetError`
        self.watch: Callable[[float], Any] | None = None
        self._answer = answer if limit is None else Process(answer, limit)
        self._log = None if log is None else JsonLog(log, dict(about or {}))

    @property
    def calls(self) -> int:
        """How many different questions were asked."""
        return len(self.answers)

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        return self.spent / self.budget if self.budget else 0.0

    def __call__(self, questions: Any) -> np.ndarray:
        """(n, width) answers, NaN where there is none.

        Raises:
            BudgetError: some of the questions were not asked; the others are in ``answers``. Also
                where `MOST_IDLE` calls in a row asked nothing new of an oracle with a budget.
        """
        keys = self._keys(questions)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        new = sorted(i for key, i in first.items() if key not in self.answers)
        self.idle = 0 if new else self.idle + 1
        if self.budget and self.idle > MOST_IDLE:
            raise BudgetError(f"nothing new was asked in {MOST_IDLE} calls: the search is over")
        while new:
            now = new[: self._room(len(new))]
            self._take(questions[np.array(now)], [keys[i] for i in now])
            new = new[len(now) :]
        return self._rows(keys)

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """(calls,) what was spent after each call, and (calls, width) the answers."""
        return np.cumsum(self._costs), self._rows(list(self.answers))

    def _rows(self, keys: list[bytes]) -> np.ndarray:
        width, rows = self._width, [self.answers[key] for key in keys]
        filled = [row if len(row) == width else np.full(width, np.nan) for row in rows]
        return np.array(filled).reshape(len(keys), width)

    def _room(self, wanted: int) -> int:
        if self.budget is None:
            return wanted
        room = int((self.budget - self.spent + 1e-9) // self._dearest)
        if room < 1:
            raise BudgetError(f"{self.spent:g} of a budget of {self.budget:g} are spent")
        return room

    def _take(self, questions: Any, keys: list[bytes]) -> None:
        """Answer new questions, from the log or by asking, and pay for them."""
        kept = {} if self._log is None else self._log.kept
        missing = [i for i, key in enumerate(keys) if key.hex() not in kept]
        answers = self._tried(questions[np.array(missing)]) if missing else []
        found = dict(zip(missing, answers, strict=True))
        self.asked.append(questions)
        for i, key in enumerate(keys):
            row, why = found[i] if i in found else kept[key.hex()]
            self.answers[key] = row
            self.failed.update({key: why} if why else {})
            self._width = max(self._width, len(row))
            self._costs.append(number("cost of an answer", self._cost(row), above=0))
            self.spent += self._costs[-1]
        if self._log is not None and found:
            self._log.add([(keys[i].hex(), *found[i]) for i in missing])
        if self.watch is not None:
            self.watch(sum(self._costs[-len(keys) :]))

    def _tried(self, questions: Any) -> list[tuple[np.ndarray, str]]:
        """A row and a reason for each question; where a batch fails, one after the other."""
        n = len(questions)
        try:
            rows = np.atleast_1d(np.asarray(self._answer(questions), dtype=float))
            if len(rows) != n or not rows.size:
                raise InputError(f"{n} answers needed, (n,) or (n, width), got {rows.shape}")
            rows = rows.reshape(n, -1)
        except Exception as error:
            if n > 1:
                return [self._tried(questions[np.array([i])])[0] for i in range(n)]
            return [(np.array([np.nan]), f"{type(error).__name__}: {error}")]
        why = np.where(np.isfinite(rows).all(1), "", "the answer is not finite").tolist()
        return list(zip(rows, why, strict=True))


def row_keys(points: np.ndarray) -> list[bytes]:
    """Keys of rows of numbers; what differs by less than 1e-9 is the same, but for rounding."""
    return [row.tobytes() for row in np.round(np.asarray(points, dtype=float), 9) + 0.0]
