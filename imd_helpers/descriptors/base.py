"""What every descriptor has in common: `encode`, `decode`, and a verdict for each crystal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ..crystals import CrystalBatch
from ..crystals.samples import Samples, assembled
from ..runtime import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


class Descriptor(Protocol):
    """A representation of crystals by tensors of one shape."""

    shape: tuple[int, ...]

    def encode(self, crystals: CrystalBatch) -> Tensor:
        """(batch, *shape) float32."""
        ...

    def decode(self, tensor: Tensor) -> Samples:
        """Crystals from (batch, *shape)."""
        ...


def read_crystals(
    given: CrystalBatch | Sequence[Structure],
) -> tuple[CrystalBatch, list[str]]:
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
