"""What descriptors have in common: reading what is given, reasons for what does not fit, settings.

Whatever comes in is made safe here: a broken crystal, molecule or row of a tensor gets a reason,
and something harmless takes its place, so that it can neither stop nor change the rest of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ..crystals import CrystalBatch, elements
from ..crystals.batch import check_shapes
from ..crystals.geometry import closest_contact
from ..crystals.rules import broken_crystals, why_broken
from ..crystals.samples import Samples, assembled, in_places, one_structure
from ..runtime import InputError, whole

if TYPE_CHECKING:
    from pymatgen.core import Structure

Crystals: TypeAlias = "CrystalBatch | Sequence[Structure]"
CLOSEST = 0.5  # Å; atoms nearer than this overlap
SMALLEST_VOLUME = 1e-3  # Å^3 of a cell, for each Å^3 of the box of the same edges
LARGEST = 1e4  # Å of an edge; single precision and sums of squares hold out to there
NOT_FINITE = "the tensor holds NaN or infinity"


class Descriptor:
    """A representation of crystals, or of other things, by tensors of one shape.

    A kind says what stands against writing a thing (`_mark_misfits`) and writes those that fit
    (`_write`), ``piece`` at a time; where there is a way back, it reads finite rows (`_decode`).
    """

    shape: tuple[int, ...]
    note: str = ""  # on the shape
    dtype: torch.dtype = torch.float32
    piece: int = 1_000_000  # things written at once; of one at a time, `_write` may say why not

    def encode_all(self, things: Any) -> Samples:
        """(n, *shape) for n things: those that do not fit are zeros, with a reason.

        Raises:
            InputError: nothing given, or something else than the descriptor is made for.
        """
        batch, reasons = self._read(things)
        self._mark_misfits(batch, reasons)
        out = torch.zeros(len(batch), *self.shape, dtype=self.dtype)
        good = without(reasons)
        for start in range(0, len(good), self.piece):
            rows = good[start : start + self.piece]
            try:
                out[rows] = self._write(batch[rows]).to(out.dtype)
            except InputError as error:
                if len(rows) > 1:
                    raise
                reasons[rows[0]] = str(error)
        return Samples.from_reasons(out, reasons)

    def encode(self, things: Any) -> Tensor:
        """(n, *shape) for n things that all fit.

        Raises:
            InputError: one does not fit; see `encode_all`.
        """
        return self.encode_all(things).checked()

    def decode(self, tensor: Any) -> Samples:
        """Things from (batch, *shape): a tensor, a NumPy array or nested lists.

        A row that holds nothing of the kind keeps its place and is not ``ok``, with a reason.

        Raises:
            InputError: something else than such numbers, or there is no way back.
        """
        rows, reasons = read_tensor(tensor, self.shape, self.note)
        made = self._decode(rows)
        if not any(reasons):
            return made
        return Samples.from_reasons(made.content, first_of(reasons, made.reasons))

    def _read(self, things: Any) -> tuple[Any, list[str]]:
        """A batch on the CPU in which nothing is broken, and what was."""
        batch, reasons = read_crystals(things)
        return batch.to("cpu"), reasons

    def _mark_misfits(self, batch: Any, reasons: list[str]) -> None:
        """Write why things of a batch do not fit."""

    def _write(self, batch: Any) -> Tensor:
        """(n, *shape) of a batch that fits."""
        raise NotImplementedError

    def _decode(self, rows: Tensor) -> Samples:
        """Things from finite rows (batch, *shape)."""
        raise InputError(f"{type(self).__name__} cannot be decoded: what it leaves out is lost")


# ---- what is given


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


def for_network(given: Any, shape: Sequence[int], network: nn.Module) -> Tensor:
    """(batch, *shape) as a network takes it: of its precision, on its device, with gradients.

    What is given may be a tensor or a NumPy array of any precision, NaN in some of its rows.

    Raises:
        InputError: no numbers, or as `check_batch`.
    """
    if not isinstance(given, Tensor):
        given, reasons = read_tensor(given, shape)
        given = given.clone()
        given[[reason != "" for reason in reasons]] = torch.nan
    check_batch(given, shape)
    return given.to(next(network.parameters()))


def read_tensor(given: Any, shape: Sequence[int], note: str = "") -> tuple[Tensor, list[str]]:
    """(batch, *shape) real numbers without a gradient, and which rows are not finite.

    What is given may be a tensor, a NumPy array or nested lists; of a tensor, device and precision
    are kept. Rows that are not finite come back as zeros.

    Raises:
        InputError: no numbers, or as `check_batch`.
    """
    try:
        tensor = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
        if tensor.is_complex():
            raise TypeError("complex numbers")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{type(given).__name__} given, of which no tensor of real numbers can be made: "
            f"expected (batch, {', '.join(map(str, shape))}) of them{note}"
        ) from error
    check_batch(tensor, shape, note)
    tensor = tensor.detach()
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    reasons = [""] * len(tensor)
    if torch.isfinite(tensor.sum()):  # NaN and infinity survive a sum
        return tensor, reasons
    finite = torch.isfinite(tensor).flatten(1).all(1)
    mark(reasons, finite, lambda _: NOT_FINITE)
    return tensor.masked_fill(~finite.view(-1, *[1] * len(shape)), 0.0), reasons


def read_crystals(given: Crystals) -> tuple[CrystalBatch, list[str]]:
    """Crystals of a batch or of pymatgen structures, and why some cannot be used.

    One that cannot be read (partial occupancy, dummy species) or is broken (not finite, no volume,
    no atoms, bad padding, too long) keeps its place as a cell of 1 Å with one hydrogen atom.

    Raises:
        InputError: nothing given, or something else than crystals.
    """
    one_batch = isinstance(given, CrystalBatch)
    several = isinstance(given, list | tuple) and all(hasattr(one, "frac_coords") for one in given)
    if not one_batch and not several:
        raise InputError(
            f"cannot encode {type(given).__name__}: give a CrystalBatch or a list of pymatgen "
            "structures"
        )
    if len(given) == 0:
        raise InputError("no crystals given: give at least one")
    if one_batch:
        batch, reasons = check_shapes(given), [""] * len(given)
    else:
        read = assembled([one_structure(each) for each in given])
        batch, reasons = read.crystals, list(read.reasons)
    mark(reasons, ~broken_crystals(batch), lambda i: why_broken(batch, i))
    mark_long(reasons, batch.lattice.detach().norm(dim=2))
    good = np.array([reason == "" for reason in reasons])
    if good.all():
        return batch, reasons
    return in_places(batch[good] if good.any() else None, good), reasons


# ---- reasons


def mark(reasons: list[str], passed: Tensor | np.ndarray, text: Callable[[int], str]) -> None:
    """Write a reason where a test has failed and nothing is written yet."""
    for i in (~torch.as_tensor(passed)).nonzero()[:, 0].tolist():
        reasons[i] = reasons[i] or text(i)


def mark_overlaps(reasons: list[str], crystals: CrystalBatch) -> None:
    """Write which of the crystals without a reason have atoms that are too close."""
    good = without(reasons)
    if len(good) == 0:
        return
    contact, pair = closest_contact(crystals[good])
    for row, d, (i, j) in zip(good.tolist(), contact.tolist(), pair.tolist(), strict=True):
        if d < CLOSEST:
            reasons[row] = (
                f"sites {i + 1} and {j + 1} are {d:.2f} Å apart: atoms overlap below {CLOSEST} Å, "
                "take one of them out"
            )


def mark_long(reasons: list[str], edges: Tensor) -> None:
    """Write which cells have edges (batch, 3), Å, that no crystal has."""
    text = f"an edge of {{:.2g}} Å: a cell has edges up to {LARGEST:g} Å"
    mark(reasons, edges.amax(1) <= LARGEST, lambda i: text.format(edges[i].max()))


def mark_cells(reasons: list[str], lattice: Tensor) -> None:
    """Write which cells (batch, 3, 3), Å, have edges that no crystal has, or are flat."""
    edges = lattice.norm(dim=2)  # (batch, 3)
    mark_long(reasons, edges)
    flat = torch.linalg.det(lattice).abs() <= SMALLEST_VOLUME * edges.prod(1)
    mark(reasons, ~flat, lambda _: "the cell is flat: its three vectors must not lie in one plane")


def first_of(*reasons: Sequence[str]) -> list[str]:
    """The first reason for each thing, of several lists of reasons; ``""`` where there is none."""
    return [next(filter(None, row), "") for row in zip(*reasons, strict=True)]


def without(reasons: Sequence[str]) -> np.ndarray:
    """Rows that have no reason."""
    return np.flatnonzero([reason == "" for reason in reasons])


# ---- settings


def atomic_numbers(name: str, given: Any) -> tuple[int, ...]:
    """Different elements, at least one.

    Raises:
        InputError: none, one twice, or something else than atomic numbers from 1 to 118.
    """
    numbers = tuple(whole(name, z, least=1, most=elements.N_COLUMNS - 1) for z in given)
    if not len(set(numbers)) == len(numbers) > 0:
        raise InputError(f"{name}={given!r}: give one element or more, each of them once")
    return numbers
