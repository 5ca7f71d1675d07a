"""What every descriptor has in common: `encode`, `decode`, and a verdict for each crystal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from ..crystals import CrystalBatch
from ..runtime import InputError


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


class Descriptor(Protocol):
    """A representation of crystals by tensors of one shape."""

    shape: tuple[int, ...]

    def encode(self, crystals: CrystalBatch) -> Tensor:
        """(batch, *shape) float32."""
        ...

    def decode(self, tensor: Tensor) -> Decoded:
        """Crystals from (batch, *shape)."""
        ...
