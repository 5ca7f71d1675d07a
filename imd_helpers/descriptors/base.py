"""What descriptors have in common: `encode`, a verdict for each crystal, and checks of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..crystals.samples import Samples, assembled
from ..runtime import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


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
    """Raise unless there is a batch of tensors of one shape.

    Args:
        tensor: (batch, *shape).
        shape: of one of them.
        note: what else to say.

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
