"""What one self-check is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..runtime import InputError


@dataclass(frozen=True)
class Check:
    """A question with a number as its answer.

    Attributes:
        truth: computes the answer.
        hint: what to think of when the answer is wrong; it must not give the answer away.
        tolerance: largest accepted difference, as a share of the truth; 0 asks for equality.
    """

    truth: Callable[[], float]
    hint: str
    tolerance: float = 0.0

    def right(self, value: Any) -> bool:
        """Is the value the truth, within the tolerance?

        Raises:
            InputError: not one finite number.
        """
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{value!r} is not a number: replace the three dots by your own result"
            ) from error
        if not math.isfinite(number):
            raise InputError(f"your answer is {number}: a check needs a finite number")
        truth = float(self.truth())
        return abs(number - truth) <= self.tolerance * abs(truth)
