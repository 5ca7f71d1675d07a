"""What every descriptor has in common: `encode`, `decode`, and a verdict for each crystal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch
from ..runtime import InputError

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True, eq=False)
class Decoded:
    """What came back from tensors: n in, n out, nothing dropped.

    Attributes:
        crystals: n crystals; where ``ok`` is False the row only keeps the place.
        ok: (n,) bool.
        reasons: n strings, empty where ``ok``.
    """

    crystals: CrystalBatch
    ok: np.ndarray
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.crystals) == len(self.ok) == len(self.reasons):
            raise InputError(
                f"{len(self.crystals)} crystals, {len(self.ok)} verdicts and {len(self.reasons)} "
                "reasons: a Decoded needs one of each for every sample"
            )

    def __len__(self) -> int:
        return len(self.ok)

    def valid(self) -> CrystalBatch:
        """The crystals that decoded."""
        return self.crystals[np.flatnonzero(self.ok)]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tensors with a verdict for each crystal: n in, n out.

    Attributes:
        tensor: (n, *shape); zeros where ``ok`` is False.
        ok: (n,) bool.
        reasons: n strings, empty where ``ok``.
    """

    tensor: Tensor
    ok: np.ndarray
    reasons: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.tensor) == len(self.ok) == len(self.reasons):
            raise InputError(
                f"{len(self.tensor)} tensors, {len(self.ok)} verdicts and {len(self.reasons)} "
                "reasons: an Encoded needs one of each for every sample"
            )

    def __len__(self) -> int:
        return len(self.ok)

    def valid(self) -> Tensor:
        """The tensors of what could be encoded."""
        return self.tensor[torch.as_tensor(np.flatnonzero(self.ok))]

    def checked(self) -> Tensor:
        """All tensors, if everything could be encoded.

        Raises:
            InputError: something could not; names the first, and how to leave such ones out.
        """
        if not self.ok.all():
            first = int(np.argmin(self.ok))
            of = f"number {first} of {len(self)}: " if len(self) > 1 else ""
            raise InputError(
                f"cannot be encoded: {of}{self.reasons[first]}; encode_all() goes on without "
                f"{'it' if (~self.ok).sum() == 1 else f'these {(~self.ok).sum()}'} and says why"
            )
        return self.tensor


class Descriptor(Protocol):
    """A representation of crystals by tensors of one shape."""

    shape: tuple[int, ...]

    def encode(self, crystals: CrystalBatch) -> Tensor:
        """(batch, *shape) float32."""
        ...

    def decode(self, tensor: Tensor) -> Decoded:
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
    out, reasons = [], []
    for structure in given:
        try:
            out.append(CrystalBatch.from_structures([structure]))
            reasons.append("")
        except InputError as error:
            out.append(placeholder(1))
            reasons.append(str(error).removeprefix("structure 0 "))
    return CrystalBatch.cat(out), reasons


def placeholder(n: int) -> CrystalBatch:
    """Cells of 1 Å with one hydrogen atom, n of them, to keep the places of what failed."""
    return CrystalBatch(
        torch.eye(3, dtype=torch.float64).repeat(n, 1, 1),
        torch.zeros(n, 1, 3, dtype=torch.float64),
        torch.ones(n, 1, dtype=torch.long),
    )
