"""Self-checks of the exercises: the truth is computed from data, and no answer is stored.

Hints and tolerances are listed in `data/exercises/hints.toml`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..runtime import InputError, data_path, lookup
from . import descriptors, foundations, judging, models, networks

PER_CENT = "Asked is a share, from 0 to 1, and this looks like per cent: divide by 100."
__all__ = ["CHECKS", "Check", "answer", "names"]


@dataclass(frozen=True)
class Check:
    """A question with a number as its answer."""

    truth: Callable[[], float]  # computes the answer
    hint: str  # what to think of when the answer is wrong; it must not give the answer away
    tolerance: float = 0.0  # largest accepted difference, as a share of the truth; 0: equality
    share: bool = False  # is the answer a share, which people like to give in per cent?

    def right(self, value: Any) -> bool:
        """Is the value the truth, within the tolerance?

        Raises:
            InputError: not one finite number.
        """
        truth = float(self.truth())
        return abs(_number(value) - truth) <= self.tolerance * abs(truth)

    def advice(self, value: Any) -> str:
        """What to say of a wrong value."""
        if self.share and 1 < _number(value) <= 100:
            return f"{PER_CENT} {'' if self.right(_number(value) / 100) else self.hint}".strip()
        return self.hint


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{value!r} is not a number: replace the three dots by your own result"
        ) from error
    if not math.isfinite(number):
        raise InputError(f"your answer is {number}: a check needs a finite number")
    return number


_HINTS = tomllib.loads(data_path("exercises", "hints.toml").read_text(encoding="utf-8"))
CHECKS: dict[str, Check] = {
    name: Check(truth, **_HINTS[name])
    for part in (foundations, descriptors, networks, models, judging)
    for name, truth in part.TRUTHS.items()
}


def names() -> list[str]:
    """Names of all exercises that can be checked, e.g. ``inverse_design.1``."""
    return sorted(CHECKS)


def answer(exercise: str, value: Any) -> bool:
    """Compare your answer with what the data say, print the verdict, and return it.

    Args:
        exercise: name of the exercise, see `names`.
        value: your answer, a number.

    Raises:
        UnknownNameError: no such exercise.
        InputError: the value is not a finite number.
    """
    check = CHECKS[lookup("exercise", exercise, CHECKS)]
    right = check.right(value)
    print(f"{exercise}: {'right.' if right else 'not yet. ' + check.advice(value)}")
    return right
