"""Self-checks of the exercises: the truth is computed from data, and no answer is stored."""

from __future__ import annotations

from typing import Any

from ..runtime import lookup
from . import descriptors, foundations, judging, models, networks
from .base import Check

_CHECKS: dict[str, Check] = {
    name: check
    for part in (foundations, descriptors, networks, models, judging)
    for name, check in part.CHECKS.items()
}

__all__ = ["Check", "answer", "names"]


def names() -> list[str]:
    """Names of all exercises that can be checked, e.g. ``inverse_design.1``."""
    return sorted(_CHECKS)


def answer(exercise: str, value: Any) -> bool:
    """Compare your answer with what the data say, print the verdict, and return it.

    Args:
        exercise: name of the exercise, see `names`.
        value: your answer, a number.

    Raises:
        UnknownNameError: no such exercise.
        InputError: the value is not a finite number.
    """
    check = _CHECKS[lookup("exercise", exercise, _CHECKS)]
    right = check.right(value)
    print(f"{exercise}: {'right.' if right else 'not yet. ' + check.hint}")
    return right
