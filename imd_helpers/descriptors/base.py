"""What descriptors have in common: `encode`, reasons for what does not fit, checks of shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..crystals.geometry import closest_contact
from ..crystals.rules import broken_crystals, why_broken
from ..crystals.samples import Samples, assembled
from ..runtime import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


CLOSEST = 0.5  # Å; atoms nearer than this overlap


class Descriptor:
    """A representation of crystals, or of other things, by tensors of one shape.

    Where there is a way back, a method `decode` gives `Samples` from (batch, *shape).
    """

    shape: tuple[int, ...]

    def encode_all(self, things: Any) -> Samples:
        """(n, *shape) for n things: those that do not fit are zeros, with a reason.

        Raises:
            InputError: nothing given.
        """
        raise NotImplementedError

    def encode(self, things: Any) -> Tensor:
        """(n, *shape) for n things that all fit.

        Raises:
            InputError: one does not fit; see `encode_all`.
        """
        return self.encode_all(things).checked()


def check_batch(tensor: Tensor, shape: Sequence[int], note: str = "") -> None:
    """Raise unless a tensor is (batch, *shape) with at least one row; ``note`` says what else.

    Raises:
        InputError: another shape, or an empty batch.
    """
    if tuple(tensor.shape[1:]) != tuple(shape) or tensor.ndim == 0 or len(tensor) == 0:
        expected = ", ".join(map(str, shape))
        raise InputError(
            f"tensor of shape {tuple(tensor.shape)}: expected (batch, {expected}) with batch >= 1"
            + note
        )


def finite_rows(tensor: Tensor) -> Tensor:
    """(batch,) bool: neither NaN nor infinity in a row."""
    return torch.isfinite(tensor).flatten(1).all(1)


def mark(reasons: list[str], passed: Tensor | np.ndarray, text: Callable[[int], str]) -> None:
    """Write a reason where a test has failed and nothing is written yet."""
    for i in (~torch.as_tensor(passed)).nonzero()[:, 0].tolist():
        reasons[i] = reasons[i] or text(i)


def mark_broken(reasons: list[str], crystals: CrystalBatch) -> None:
    """Write which crystals are not finite, or have no volume, no atoms or bad padding."""
    mark(reasons, ~broken_crystals(crystals), lambda i: why_broken(crystals, i))


def mark_overlaps(reasons: list[str], crystals: CrystalBatch) -> None:
    """Write which of the crystals without a reason have atoms that are too close."""
    good = np.flatnonzero([reason == "" for reason in reasons])
    if len(good) == 0:
        return
    contact, pair = closest_contact(crystals[good])
    for row, d, (i, j) in zip(good.tolist(), contact.tolist(), pair.tolist(), strict=True):
        if d < CLOSEST:
            reasons[row] = (
                f"sites {i + 1} and {j + 1} are {d:.2f} Å apart: atoms overlap below {CLOSEST} Å"
            )


def first_of(*reasons: Sequence[str]) -> list[str]:
    """The first reason for each thing, of several lists of reasons; ``""`` where there is none."""
    return [next(filter(None, row), "") for row in zip(*reasons, strict=True)]


def read_crystals(given: CrystalBatch | Sequence[Structure]) -> tuple[CrystalBatch, list[str]]:
    """Crystals of a batch or a list of pymatgen structures, and why some cannot be read.

    A structure that cannot (partial occupancy, dummy species, no sites) keeps its place as a cell
    of 1 Å with one hydrogen atom.

    Args:
        given: n crystals.

    Returns:
        n crystals and n reasons, empty where all is well.

    Raises:
        InputError: nothing given.
    """
    if len(given) == 0:
        raise InputError("no crystals given: give at least one")
    if isinstance(given, CrystalBatch):
        return given, [""] * len(given)
    parts: list[CrystalBatch | str] = []
    for structure in given:
        try:
            parts.append(CrystalBatch.from_structures([structure]))
        except InputError as error:
            parts.append(str(error).removeprefix("structure 0 "))
    read = assembled(parts)
    return read.crystals, list(read.reasons)
