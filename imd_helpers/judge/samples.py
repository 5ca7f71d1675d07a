"""What the judge is given: samples of any make in one form, and the crystals that are known.

A sample that cannot be read keeps its place with a reason. Input that is wrong as a whole (shapes,
types, no crystal at all) raises.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .. import datasets
from ..crystals import CrystalBatch, compositions
from ..crystals.batch import check_shapes, wrap
from ..crystals.rules import broken_crystals, safe_counts
from ..crystals.samples import Samples, assembled, digest, one_structure, set_digest
from ..datasets import CrystalSet
from ..matching.cells import MatchSettings
from ..matching.same import novel
from ..runtime import InputError
from .report import Number

if TYPE_CHECKING:
    from pymatgen.core import Structure

REFERENCE = "oqmd_icsd"  # where real crystals come from
DIFFERENT, FOUND = "hidden crystals found", "samples that are hidden crystals"
MOST = 127  # atoms of one element in a formula
FEW = 1_024  # known crystals that are made into a batch at once


def as_samples(
    given: Samples | CrystalBatch | CrystalSet | Sequence[Structure],
) -> Samples:
    """Bring samples into one form: float64 on the CPU, right-handed cells, coordinates in [0, 1).

    Args:
        given: samples, crystals, or a list of pymatgen structures. Space groups that samples were
            asked to have stand in ``asked["space_group"]``.

    Raises:
        InputError: no samples, tensors of the wrong shape or type, or not one requested space
            group for each sample.
    """
    if isinstance(given, CrystalSet):
        given = given.crystals
    if isinstance(given, CrystalBatch):
        given = Samples.of(given)
    if not isinstance(given, Samples):
        given = _from_structures(given)
    n = len(given)
    if n == 0:
        raise InputError("no samples given: the judge needs at least one")
    asked = dict(given.asked)
    if "space_group" in asked:
        asked["space_group"] = _checked_groups(asked["space_group"], n)
    ok = np.asarray(given.ok, dtype=bool)
    reasons = tuple(
        "" if good else str(why) or "no reason given"
        for good, why in zip(ok, given.reasons, strict=True)
    )
    return Samples(_normal(given.crystals), ok, reasons, asked, given.seconds)


def as_compositions(given: Samples | np.ndarray | Sequence[str]) -> Samples:
    """Bring compositions into one form: one byte a count, in lowest terms.

    A formula that cannot be read, or with more than 127 atoms of an element, keeps its place with a
    reason; so does a row of zeros.

    Args:
        given: samples of counts, (n, 119) counts, or formulas.

    Raises:
        InputError: none given, a single formula, crystals, or counts that are not whole.
    """
    if isinstance(given, Samples):
        counts, ok = given.counts, given.ok.copy()
        reasons = {i: given.reasons[i] for i in np.flatnonzero(~ok).tolist()}
    else:
        counts, reasons = _counts_of(given)
        ok = counts.any(1)
    if len(counts) == 0:
        raise InputError("no samples given: the judge needs at least one")
    lowest = np.empty(counts.shape, dtype=np.int8)
    for rows in compositions.blocks(len(counts)):
        some = compositions.reduced(counts[rows])
        large = np.flatnonzero((some > MOST).any(1))
        some[large] = 0
        why = f"more than {MOST} atoms of one element"
        reasons |= dict.fromkeys((rows.start + large).tolist(), why)
        lowest[rows] = some
    ok &= lowest.any(1)
    told = tuple("" if good else reasons.get(i) or "no formula" for i, good in enumerate(ok))
    asked, seconds = (given.asked, given.seconds) if isinstance(given, Samples) else ({}, 0.0)
    return Samples(lowest, ok, told, asked, seconds)


def _counts_of(given: Any) -> tuple[np.ndarray, dict[int, str]]:
    """(n, 119) counts, and the reason for each formula that cannot be read."""
    if isinstance(given, CrystalBatch | CrystalSet):
        raise InputError(
            "these are crystals, and the protocol is about compositions: give their counts, "
            "crystals.counts().numpy()"
        )
    if isinstance(given, str):
        raise InputError(f"{given!r} is one formula: give a list, [{given!r}]")
    if not isinstance(given, np.ndarray):
        return compositions.parse(list(given))
    counts = compositions.checked(given)
    if counts.size and counts.min() < 0:
        raise InputError(f"a count is {counts.min()}: counts are 0 or more")
    return counts, {}


class Known:
    """Crystals that are known already: what novelty is measured against.

    Args:
        source: crystals, or a data set that has some.
        name: what to call them; default: the name of the data set.

    Raises:
        InputError: there is no crystal among them.
    """

    def __init__(self, source: CrystalBatch | CrystalSet, name: str = "") -> None:
        if not isinstance(source, CrystalBatch | CrystalSet):
            raise InputError(
                f"the reference is a {type(source).__name__}, which holds no crystals: give a "
                "CrystalBatch, or a data set with structures, e.g. imd.datasets.load('oqmd_icsd')"
            )
        if len(source) == 0:
            raise InputError("the reference holds no crystals: give at least one, or None")
        self.source = as_samples(source).crystals if isinstance(source, CrystalBatch) else source
        self.name = name or getattr(source, "name", "crystals")
        if isinstance(source, CrystalBatch) and broken_crystals(self.source).all():
            raise InputError(
                f"none of the {len(source)} crystals of the reference is whole (NaN, no volume, no "
                "atoms): give at least one that is, or None"
            )

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Fingerprints without and with the order of the crystals."""
        each = [digest(*crystal) for part in self._parts() for crystal in part.each()]
        joined = (b"".join(order) for order in (sorted(each), each))
        return tuple(hashlib.sha256(blob).hexdigest()[:12] for blob in joined)

    @cached_property
    def _rows_of(self) -> dict[bytes, np.ndarray]:
        keys = (key for part in self._parts() for key in compositions.keys(safe_counts(part)))
        return compositions.grouped(keys)

    def like(self, keys: Sequence[bytes]) -> tuple[CrystalBatch | None, np.ndarray]:
        """Known crystals of given compositions (`compositions.keys`), and their places."""
        found = [self._rows_of[key] for key in self._rows_of.keys() & set(keys)]
        rows = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *found]))
        if len(rows) and isinstance(self.source, CrystalBatch):
            return self.source.narrow(rows), rows
        return (_batch(self.source[rows]) if len(rows) else None), rows

    @property
    def crystals(self) -> CrystalBatch:
        """All of them, in one batch."""
        return _batch(self.source)

    def _parts(self) -> Iterator[CrystalBatch]:
        """A few at a time: a batch is as wide as its largest crystal."""
        return (_batch(self.source[rows]) for rows in compositions.blocks(len(self), FEW))


class Sets(NamedTuple):
    """What samples are held against: what is known, and what nobody was shown."""

    known: Known  # real crystals that samples must differ from
    training: Known | None  # made ones likewise, where one chemistry is learned
    hidden: CrystalBatch  # real ones that nobody has learned from


def sets_of(chemistry: str = "", made: str = "") -> Sets:
    """Known and hidden crystals, of all elements or of a few.

    Of all: the splits of `REFERENCE`. Of one chemistry every real crystal of these elements alone
    is hidden, and a set of made ones is known, less those that are the same as a real one.

    Args:
        chemistry: the elements, e.g. ``V-O``; empty for all.
        made: name of the set of made crystals, e.g. ``v_o``.

    Raises:
        InputError: no real crystal has just these elements, or one of the two is missing.
        UnknownNameError: no such element or set.
    """
    if bool(chemistry) != bool(made):
        raise InputError(
            f"chemistry is {chemistry!r} and made {made!r}: give both, e.g. 'V-O' and 'v_o', or "
            "neither"
        )
    every = datasets.load(REFERENCE)
    if not chemistry:
        held = every.select(split=("val", "test")).crystals
        return Sets(Known(every.select(split="train"), REFERENCE), None, held)
    hidden = every.select(elements=chemistry, nelements=len(chemistry.split("-")))
    if not len(hidden):
        raise InputError(f"{REFERENCE} has no crystal of {chemistry!r} alone: write e.g. 'V-O'")
    foreign = every[~every.table["formula"].isin(set(hidden.table["formula"])).to_numpy()]
    ours = datasets.load(made, split="train").crystals
    ours = ours[np.flatnonzero(novel(ours, hidden.crystals))]
    return Sets(Known(foreign.select(split="train"), REFERENCE), Known(ours, made), hidden.crystals)


def found_again(first: np.ndarray, hidden: CrystalBatch) -> tuple[Number, Number]:
    """How many hidden crystals some sample is, and how many samples are one.

    Args:
        first: (n,) which of the hidden crystals a sample is, NaN where it is none.
        hidden: all of them.
    """
    about = {"hidden": set_digest(hidden), "crystals": "as sampled"}
    about["match"] = MatchSettings().definition()
    hits = first[np.isfinite(first)]
    return (
        Number.share(DIFFERENT, len(np.unique(hits)), len(hidden), about),
        Number.share(FOUND, len(hits), len(first), about),
    )


def _batch(source: CrystalBatch | CrystalSet) -> CrystalBatch:
    return source if isinstance(source, CrystalBatch) else source.crystals


@dataclass(frozen=True, eq=False)
class KnownFormulas:
    """Compositions that are known already."""

    counts: np.ndarray  # (m, 119), in lowest terms

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """A fingerprint of the set; the order does not count."""
        rows = (
            hashlib.sha256(key).digest()
            for part in compositions.blocks(len(self))
            for key in compositions.keys(self.counts[part])
        )
        return (hashlib.sha256(b"".join(sorted(rows))).hexdigest()[:12],)


def as_known(source: Any, content: str = "crystals") -> Known | KnownFormulas:
    """What is known, from crystals, a data set or its name; or from counts or formulas.

    Raises:
        InputError: it holds nothing of the kind that ``content`` names.
        UnknownNameError: no such data set.
    """
    if isinstance(source, Known | KnownFormulas):
        return source
    name = ""
    if isinstance(source, str):
        source, name = datasets.load(source), source
    if content == "crystals":
        return Known(source, name)
    table = getattr(source, "table", None)
    if table is not None:
        source = table["formula"].tolist()
    elif isinstance(source, Samples):
        source = source.valid()
    counts, wrong = _counts_of(source)
    if wrong:
        raise InputError(
            f"what is known has {len(wrong)} formulas that are none: {wrong.popitem()}"
        )
    if len(counts) == 0:
        raise InputError("the reference holds no formulas: give at least one, or None")
    return KnownFormulas(compositions.reduced(counts))


# ---- into one form


def _normal(crystals: CrystalBatch) -> CrystalBatch:
    """Plain types on the CPU, coordinates in the cell, right-handed cells, zeros as padding."""
    crystals = check_shapes(crystals).to("cpu")
    lattice, frac = crystals.lattice, crystals.frac
    left = (torch.linalg.det(torch.nan_to_num(lattice, 0.0, 0.0, 0.0)) < 0).double()
    sign = 1.0 - 2.0 * left[:, None, None]  # the same lattice, every vector turned round
    row, site = torch.nonzero(crystals.numbers, as_tuple=True)
    wrapped = torch.zeros_like(frac)
    wrapped[row, site] = wrap(frac[row, site] * sign[row, 0])
    return CrystalBatch(lattice * sign, wrapped, crystals.numbers)


def _checked_groups(requested: Any, n: int) -> np.ndarray:
    """(n,) int64; 0 where no group was asked for."""
    try:
        values = np.asarray(requested).astype(float).reshape(n)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the space groups asked for are not numbers of shape ({n},): {error}; give one number "
            "for each sample, also for those that did not decode"
        ) from None
    return np.where(np.isfinite(values), values, 0).astype(np.int64)


def _from_structures(given: Sequence[Any]) -> Samples:
    if isinstance(given, str | bytes | dict) or not hasattr(given, "__iter__"):
        raise InputError(
            f"samples are a {type(given).__name__}: give a CrystalBatch, what a descriptor "
            "decoded, or a list of pymatgen structures"
        )
    return assembled([one_structure(each) for each in given])
