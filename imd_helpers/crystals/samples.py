"""`Samples`: what every generator, decoder and reader returns, and every judge takes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..runtime import InputError, whole
from . import compositions
from .batch import CrystalBatch

PIECE = 8_192  # samples that a source makes at once
ROUNDED = 3  # decimals of lattices and coordinates that count in a digest
SHIFT = 0.4142  # of the grid on which they are rounded, in units of the last decimal


@dataclass(frozen=True, eq=False)
class Samples:
    """n things and a verdict for each: n in, n out, nothing dropped.

    Attributes:
        content: n things of one kind, a row each: a `CrystalBatch`, (n, 119) int8 counts, a tensor
            (n, …) of a descriptor, or molecules. Where ``ok`` is False the row only keeps the place
            (of crystals a cell of 1 Å, of counts and tensors zeros).
        ok: (n,) bool: could it be made, read, decoded or encoded?
        reasons: n strings, why not; empty where ``ok``.
        asked: what the generator was asked for, e.g. ``{"space_group": (n,)}``.
        seconds: wall time of making them.
    """

    content: Any
    ok: np.ndarray
    reasons: tuple[str, ...]
    asked: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.asked.items()}
        lengths |= {"content": len(self.content), "reasons": len(self.reasons)}
        lengths["ok"] = np.size(self.ok)
        wrong = {name: n for name, n in lengths.items() if n != len(self.ok)}
        if wrong:
            raise InputError(
                f"{len(self.ok)} verdicts, but {wrong}: Samples need one of each for every sample"
            )

    @classmethod
    def of(cls, content: Any, **more: Any) -> Samples:
        """Things that are all right."""
        n = len(content)
        return cls(content, np.ones(n, dtype=bool), ("",) * n, **more)

    @classmethod
    def from_counts(cls, counts: np.ndarray, why: str = "no formula", **more: Any) -> Samples:
        """Compositions; a row of zeros is none, and ``why`` is its reason."""
        ok = compositions.checked(counts).any(1)
        return cls(counts, ok, tuple("" if good else why for good in ok), **more)

    @classmethod
    def from_reasons(cls, content: Any, reasons: Sequence[str], **more: Any) -> Samples:
        """Things and why each of them failed, ``""`` where it did not."""
        return cls(content, np.array([why == "" for why in reasons]), tuple(reasons), **more)

    @classmethod
    def cat(cls, parts: Sequence[Samples]) -> Samples:
        """Join pieces of one kind, in order.

        Raises:
            InputError: nothing to join.
        """
        if not parts:
            raise InputError("nothing to join: give at least one piece of samples")
        kinds = [part.content for part in parts]
        join: Any = np.concatenate
        if isinstance(kinds[0], CrystalBatch):
            join = CrystalBatch.cat
        elif isinstance(kinds[0], torch.Tensor):
            join = torch.cat
        asked = {k: np.concatenate([part.asked[k] for part in parts]) for k in parts[0].asked}
        return cls(
            join(kinds),
            np.concatenate([part.ok for part in parts]),
            tuple(why for part in parts for why in part.reasons),
            asked,
            sum(part.seconds for part in parts),
        )

    def __len__(self) -> int:
        return len(self.ok)

    def __getitem__(self, rows: Any) -> Samples:
        """Some of them, by a slice, indices or a mask."""
        at = np.arange(len(self))[rows]
        take = torch.as_tensor(at) if isinstance(self.content, torch.Tensor) else at
        asked = {name: np.asarray(values)[at] for name, values in self.asked.items()}
        reasons = tuple(self.reasons[i] for i in at.tolist())
        return Samples(self.content[take], self.ok[at], reasons, asked, self.seconds)

    # ---- the content

    @property
    def crystals(self) -> CrystalBatch:
        """The content, if it is crystals."""
        return self._of_kind(CrystalBatch, "crystals")

    @property
    def counts(self) -> np.ndarray:
        """(n, 119) counts, if the content is compositions."""
        return self._of_kind(np.ndarray, "compositions")

    @property
    def tensor(self) -> torch.Tensor:
        """(n, …) tensor, if the content is one."""
        return self._of_kind(torch.Tensor, "a tensor")

    def _of_kind(self, kind: type, name: str) -> Any:
        """The content, if it is of this kind."""
        if not isinstance(self.content, kind):
            raise InputError(
                f"these samples hold {type(self.content).__name__}, not {name}: take .content"
            )
        return self.content

    def valid(self) -> Any:
        """The content where ``ok``."""
        return self[self.ok].content

    def checked(self) -> Any:
        """The whole content, if everything is ``ok``.

        Raises:
            InputError: something is not; names the first, and how to go on without such ones.
        """
        if not self.ok.all():
            first, bad = int(np.argmin(self.ok)), int((~self.ok).sum())
            of = f"number {first} of {len(self)}: " if len(self) > 1 else ""
            raise InputError(
                f"cannot be encoded: {of}{self.reasons[first]}; encode_all() goes on without "
                f"{'it' if bad == 1 else f'these {bad}'} and says why"
            )
        return self.content

    def formulas(self) -> list[str]:
        """Reduced formulas of crystals or compositions, ``""`` where not ``ok``."""
        if isinstance(self.content, CrystalBatch):
            names = iter(self.valid().formulas() if self.ok.any() else ())
            return [next(names) if good else "" for good in self.ok]
        return compositions.formulas(self.counts)


@dataclass(frozen=True, eq=False)
class Stream:
    """n samples that are not made yet: each piece is, when and where it is needed.

    Attributes:
        source: what makes them, e.g. a model: ``piece(index, n, seed=)`` is that piece of the
            stream with this seed. It may say how large a piece is at most (``PIECE``).
        n: how many.
        seed: of all pieces; the same seed gives the same samples, whoever makes which piece.
    """

    source: Any
    n: int
    seed: int = 0

    def __post_init__(self) -> None:
        whole("n", self.n, least=1)
        whole("seed", self.seed)

    def __len__(self) -> int:
        return self.n

    @property
    def sizes(self) -> list[int]:
        """How many samples each piece has."""
        most = getattr(self.source, "PIECE", PIECE)
        return [min(most, self.n - start) for start in range(0, self.n, most)]

    def piece(self, index: int) -> Samples:
        """One of the pieces."""
        return self.source.piece(index, self.sizes[index], seed=self.seed)


def placeholder(n: int) -> CrystalBatch:
    """Cells of 1 Å with one hydrogen atom, n of them, to keep the places of what failed."""
    return CrystalBatch(
        torch.eye(3, dtype=torch.float64).repeat(n, 1, 1),
        torch.zeros(n, 1, 3, dtype=torch.float64),
        torch.ones(n, 1, dtype=torch.long),
    )


def in_places(crystals: CrystalBatch | None, ok: np.ndarray) -> CrystalBatch:
    """Crystals in the places where ``ok``, and placeholders elsewhere.

    Args:
        crystals: as many as ``ok`` has True; None where it has none.
        ok: (n,) bool.
    """
    if crystals is None:
        return placeholder(len(ok))
    if ok.all():
        return crystals
    place = np.where(ok, np.cumsum(ok) - 1, len(crystals))
    return CrystalBatch.cat([crystals, placeholder(1)])[place]


def one_structure(given: Any) -> CrystalBatch | str:
    """A pymatgen structure as a batch of one, or the reason why it is no crystal."""
    from pymatgen.core import IStructure

    if not isinstance(given, IStructure):
        return f"no crystal but a {type(given).__name__}"
    try:
        return CrystalBatch.from_structures([given])
    except InputError as error:
        return str(error).removeprefix("structure 0 ")


def assembled(parts: Sequence[CrystalBatch | str]) -> Samples:
    """One crystal or the reason why there is none, n times.

    Raises:
        InputError: nothing given.
    """
    if not parts:
        raise InputError("no crystals given: give at least one")
    reasons = tuple(part if isinstance(part, str) else "" for part in parts)
    crystals = CrystalBatch.cat([placeholder(1) if isinstance(p, str) else p for p in parts])
    return Samples.from_reasons(crystals, reasons)


# ---- digests


def room_for(some: Samples, n: int) -> None:
    """Would n samples like these fit into the memory of this machine?

    Raises:
        InputError: they need more than there is.
    """
    content = some.content
    parts = vars(content).values() if isinstance(content, CrystalBatch) else [content]
    needed = n / len(some) * sum(part.nbytes for part in parts)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise InputError(
            f"n={n:,}: these samples need {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f}: take fewer, or give the judge a Stream, which holds one piece"
        )


def set_digest(crystals: CrystalBatch) -> str:
    """A short hash of a set of crystals; neither order nor padding nor rounding noise counts."""
    each = sorted(digest(*crystal) for crystal in crystals.each())
    return hashlib.sha256(b"".join(each)).hexdigest()[:12]


def digest(
    lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray, *, decimals: int = ROUNDED
) -> bytes:
    """SHA-256 of one crystal on a grid; rounding noise does not count, nor that 0 and 1 differ.

    The grid is shifted, so that decimals and fractions that people write lie on none of its lines.
    """
    scale = 10.0**decimals
    cell = np.floor(lattice * scale + SHIFT)
    place = np.floor(frac * scale + SHIFT) % scale
    return hashlib.sha256(
        b"".join(x.tobytes() for x in (cell + 0.0, place, numbers.astype(np.int64)))
    ).digest()
