"""MatGAN's descriptor: a formula as a matrix of 85 elements x 8 counts.

Row i belongs to element i, column j says that there are j + 1 atoms of it: at most one 1 in a row,
and a row of zeros for an element that is not there. Axes in the order of the published code:
(batch, 85 elements, 8 counts).

Whatever is larger than a batch should stay what it is here between the two: counts, one byte for
each of 119 atomic numbers. Two million compositions are 0.24 GB as counts, and 5.4 GB as matrices.

Source: Dan et al., npj Comput. Mater. 6 (2020) 84, and its code, originofmatter/MatGAN at commit
e36c744: elements, order, axes, the threshold of 0.2, and 2 to 8 elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements
from ..crystals import compositions as comps
from ..crystals.rules import broken_crystals, safe_counts, why_broken
from ..crystals.samples import Samples
from ..runtime import InputError, lookup
from .base import Descriptor, mark

_LEFT_OUT = {2, 10, 18, 36, 84, 85, 86, 87, 88}  # He Ne Ar Kr Po At Rn Fr Ra
ELEMENTS: tuple[int, ...] = tuple(z for z in range(1, 95) if z not in _LEFT_OUT)  # H … Pu
MAX_COUNT = 8
FEWEST, MOST = 2, 8  # different elements in a formula
RULES = ("published", "argmax")
LOW, HIGH = 0.2, 1.0  # values that count as 1 by the published rule
HALF = 0.5  # the same for argmax
ROWS = 4096  # matrices worked on at once: they fit into the cache


@dataclass(frozen=True)
class CompositionMatrix(Descriptor):
    """Encode compositions as (85, 8) matrices of zeros and ones, and decode them.

    Decoding fails where less than 2 or more than 8 elements are found.

    Attributes:
        rule: how `decode` reads a row. ``published``: the largest count whose value lies between
            0.2 and 1. ``argmax``: the count with the largest value, if that is above 0.5.
    """

    rule: str = "published"
    shape: tuple[int, int] = field(default=(len(ELEMENTS), MAX_COUNT), init=False)
    note = ", elements before counts"

    def __post_init__(self) -> None:
        lookup("rule of decoding", self.rule, RULES)

    # ---- composition -> tensor

    def read(self, compositions: Sequence[str] | np.ndarray | CrystalBatch) -> Samples:
        """Counts that fit the matrix, without the matrices: the form to keep many in.

        Formulas and (batch, 119) counts are taken as they are written; those of crystals are
        reduced first, because a cell may be any multiple of the formula. A composition fails when
        it is no formula, or holds an element outside the 85, less than 2 or more than 8 elements,
        or more than 8 atoms of one.

        Raises:
            InputError: nothing given, or counts of another shape or type.
        """
        counts, reasons = self._read(compositions)
        return Samples.from_reasons(counts, reasons)

    def _read(self, things: Any) -> tuple[np.ndarray, list[str]]:
        if isinstance(things, str):
            raise InputError(f"{things!r} is one formula: give a list, [{things!r}]")
        if len(things) == 0:
            raise InputError("no compositions given: give at least one formula")
        reasons = [""] * len(things)
        if isinstance(things, CrystalBatch):
            counts = comps.reduced(safe_counts(things))
            mark(reasons, ~broken_crystals(things), lambda i: why_broken(things, i))
        elif isinstance(things[0], str):
            counts, unread = comps.parse(things)
            for i, reason in unread.items():
                reasons[i] = reason
        else:
            counts = comps.checked(things)
        mark(reasons, fits(counts), lambda i: _misfit(counts[i]))
        good = np.array([reason == "" for reason in reasons])
        return np.where(good[:, None], counts, 0).astype(np.int8), reasons

    def _write(self, batch: np.ndarray) -> Tensor:
        return self.matrices(batch)

    @staticmethod
    def matrices(counts: np.ndarray) -> Tensor:
        """(n, 85, 8) float32 of (n, 119) counts that `read` has passed; zeros stay zeros."""
        chosen = np.take(counts, ELEMENTS, axis=1)  # (n, 85)
        present = np.flatnonzero(chosen)
        flat = MAX_COUNT * present + chosen.ravel()[present] - 1
        out = torch.zeros(len(counts), len(ELEMENTS), MAX_COUNT)
        out.view(-1)[torch.as_tensor(flat)] = 1.0
        return out

    # ---- tensor -> composition

    def _decode(self, rows: Tensor) -> Samples:
        parts = [self._chosen(part).cpu().numpy() for part in rows.split(ROWS)]
        chosen = np.concatenate(parts)  # (batch, 85)
        kinds = (chosen > 0).sum(1)
        ok = (kinds >= FEWEST) & (kinds <= MOST)
        counts = np.zeros((len(chosen), elements.N_COLUMNS), dtype=np.int8)
        counts[:, list(ELEMENTS)] = np.where(ok[:, None], chosen, 0)
        reasons = [""] * len(chosen)
        names = ["no element", "1 element", *(f"{k} elements" for k in range(2, len(ELEMENTS) + 1))]
        mark(reasons, ok, lambda i: f"{names[kinds[i]]}: a formula has {FEWEST} to {MOST}")
        return Samples(counts, ok, tuple(reasons))

    def _chosen(self, part: Tensor) -> Tensor:
        """(batch, 85) int8 count of each element, 0 where it is absent."""
        if self.rule == "published":
            size = torch.arange(1, MAX_COUNT + 1, dtype=torch.int8, device=part.device)
            return (((part >= LOW) & (part <= HIGH)) * size).amax(2)
        value, place = part.max(2)
        return torch.where(value > HALF, place + 1, 0).to(torch.int8)


def fits(counts: np.ndarray) -> np.ndarray:
    """(n,) bool of (n, 119) counts: 2 to 8 of the 85 elements, each 1 to 8 times."""
    foreign = np.setdiff1d(np.arange(elements.N_COLUMNS), ELEMENTS)
    kinds = np.count_nonzero(counts, axis=1)
    small = (counts.max(1) <= MAX_COUNT) & (counts.min(1) >= 0)
    return small & (kinds >= FEWEST) & (kinds <= MOST) & ~counts[:, foreign].any(1)


def _misfit(counts: np.ndarray) -> str:
    """Why one (119,) composition does not fit."""
    found = np.flatnonzero(counts).tolist()
    listed = " ".join(f"{elements.SYMBOLS[z] or '?'}{counts[z]}" for z in found)
    outside = [elements.SYMBOLS[z] or "padding" for z in found if z not in ELEMENTS]
    if outside:
        return (
            f"{listed}: {', '.join(outside)} is not among the {len(ELEMENTS)} elements of the "
            "matrix, H to Pu without He Ne Ar Kr Po At Rn Fr Ra"
        )
    if not FEWEST <= len(found) <= MOST:
        return f"{listed or 'no atoms'}: a formula has {FEWEST} to {MOST} elements"
    return f"{listed}: the matrix holds 1 to {MAX_COUNT} atoms of an element"
