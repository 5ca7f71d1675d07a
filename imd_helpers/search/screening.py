"""High-throughput screening: write a list, then ask about what is on it.

`screened` sends a list of any length through questions one behind the other, the cheap ones first.
What is answered is kept on disk, so that a run that was killed goes on, and gives the same table.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals.compositions import blocks, checked, first_rows, reduced
from ..runtime import InputError, whole
from ..work import Pieces, Workers, in_pieces, locked

# ---- a list from known compositions


@dataclass(frozen=True, eq=False)
class Exchanges:
    """n compositions, each a known one with one or two elements exchanged."""

    parent: np.ndarray  # (n,) row of the known composition
    old: np.ndarray  # (n, 2) atomic numbers that go; 0 where only one does
    new: np.ndarray  # (n, 2) and what takes their places
    counts: np.ndarray  # (n, 119) int8 reduced counts
    chance: np.ndarray  # (n,) log of the product of ``pairs[old, new] / sum(pairs[old])``

    def __len__(self) -> int:
        return len(self.parent)

    def __getitem__(self, rows: Any) -> Exchanges:
        """Select by a slice, integer indices or a boolean mask."""
        return Exchanges(*(each[rows] for each in vars(self).values()))

    def swap(self) -> np.ndarray:
        """(n, 119) what becomes of each element, as `baselines.Templates.refilled` takes it."""
        out = np.tile(np.arange(self.counts.shape[1]), (len(self), 1))
        np.put_along_axis(out, self.old, self.new, axis=1)
        return out


def exchanges(counts: np.ndarray, pairs: np.ndarray, *, two: int = 0, seed: int = 0) -> Exchanges:
    """Every exchange of one element for a partner, and some of two; each composition once.

    Of the ways to one composition the one with the largest chance is kept.

    Args:
        counts: (m, 119) of known compositions.
        pairs: (119, 119) how often elements replace each other, see `baselines.IonExchange`.
        two: draws of an exchange of two elements for each known composition; partners are equally
            likely, and draws in which elements meet are dropped.
        seed: of the draws.

    Raises:
        InputError: no element has a partner.
    """
    rng, made = np.random.default_rng(whole("seed", seed)), []
    partners = [np.flatnonzero(row) for row in pairs]
    for i, row in enumerate(checked(counts)):
        held = np.flatnonzero(row)
        free = {int(z): np.setdiff1d(partners[z], held) for z in held}
        free = {z: some for z, some in free.items() if len(some)}
        one = [[z, 0, new, 0] for z, some in free.items() for new in some]
        both = _two_at_once(free, whole("two", two), rng)
        made += [(np.full(len(e), i), e) for e in (np.reshape(one, (-1, 4)), both)]
    parent, swap = (np.concatenate(part) for part in zip(*made, strict=True))
    if len(swap) == 0:
        raise InputError("no element of these compositions has a partner: give other pairs")
    share = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    share[0, 0] = 1.0  # nothing is exchanged
    chance = np.log(share[swap[:, :2], swap[:, 2:]]).sum(1)
    order = np.argsort(-chance, kind="stable")
    parent, swap, chance = parent[order], swap[order].astype(np.int64), chance[order]
    found = _exchanged(counts, parent, swap)
    once = first_rows(found)
    return Exchanges(parent, swap[:, :2], swap[:, 2:], found, chance)[once]


def _two_at_once(free: Mapping[int, np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """(k, 4) different draws of two elements and their partners, k at most n."""
    if len(free) < 2 or n == 0:
        return np.zeros((0, 4), dtype=np.int64)
    held, size = np.array(list(free)), np.array([len(some) for some in free.values()])
    wide = np.zeros((len(held), size.max()), dtype=np.int64)
    for row, some in zip(wide, free.values(), strict=True):
        row[: len(some)] = some
    who = rng.random((n, len(held))).argsort(1)[:, :2]
    new = wide[who, (rng.random((n, 2)) * size[who]).astype(np.int64)]
    found = np.hstack([held[who], new])[new[:, 0] != new[:, 1]]
    _, first = np.unique(found @ 1000 ** np.arange(4), return_index=True)
    return found[np.sort(first)]  # each draw once: millions are drawn again and again


def _exchanged(counts: np.ndarray, parent: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """(n, 119) int8 reduced counts after the exchange."""
    out = np.empty((len(parent), counts.shape[1]), dtype=np.int8)
    for part in blocks(len(parent)):
        some, old, new = counts[parent[part]], swap[part, :2], swap[part, 2:]
        moved = np.take_along_axis(some, old, axis=1)
        np.put_along_axis(some, old, 0, axis=1)
        np.put_along_axis(some, new, moved, axis=1)
        out[part] = reduced(some)
    return out


# ---- questions one behind the other


@dataclass(frozen=True, eq=False)
class Filter:
    """One question of a screening."""

    name: str  # in the table, and of the files of its pieces
    # of k candidates: ``keep`` (k,) bool, and (k,) numbers of any name; of a module, if other
    # processes are to find it
    ask: Callable[[Any], Mapping[str, ArrayLike]]
    piece: int = 20_000  # candidates asked about at once
    # name of a number, and how many go on at most: those in which it is smallest
    best: tuple[str, int] | None = None
    # what the answers depend on beside the candidates (weights, thresholds): pieces on disk that
    # were made with another text are not taken
    about: str = ""


@dataclass(frozen=True, eq=False)
class Screened:
    """What is left of n candidates, and what is known about all."""

    n: int
    left: np.ndarray  # places of those that passed everything, rising
    values: dict[str, np.ndarray]  # (n,) each number, NaN where nobody asked
    failed: dict[int, str]  # place -> why a question could not be answered; it does not pass
    # of each filter: ``filter``, ``tried``, ``passed``, ``failed``, ``seconds`` of computing time
    stages: list[dict[str, Any]]


def screened(
    candidates: Any,
    filters: Sequence[Filter],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    cache: Path | str | None = None,
    progress: bool = False,
) -> Screened:
    """Ask one question after the other about what is left of a list.

    A candidate on which a question breaks down does not pass, with the reason, and stops nothing.

    Args:
        candidates: n of them, an array with a row each or a `CrystalBatch`.
        filters: the questions in order, best the cheap ones first.
        workers: processes on this machine.
        scheduler: address of a Dask scheduler instead.
        cache: folder for finished pieces; a run that was stopped goes on from there.
        progress: show a bar for each question.

    Raises:
        InputError: no candidates, two filters of one name, another run in the folder, answers of
            the wrong shape, or a question that breaks down on every candidate alike.
    """
    whole("number of candidates", len(candidates), least=1)
    twice = [name for name, n in Counter(f.name for f in filters).items() if n > 1]
    if twice:
        raise InputError(f"two filters are called {twice[0]!r}: give each a name of its own")
    out = Screened(len(candidates), np.arange(len(candidates)), {}, {}, [])
    folder = None if cache is None else Path(cache)
    with locked(folder) if folder else nullcontext(), Workers(workers, scheduler) as where:
        own = _digest(candidates) if folder else ""
        for each in filters:
            key = hashlib.sha256(f"{own} {each.name} {each.about}".encode()).hexdigest()[:16]
            kept = Pieces(folder and folder / key)
            out = _filtered(candidates, each, out, where, kept, progress)
    return out


def _filtered(
    candidates: Any, asks: Filter, out: Screened, workers: Workers, kept: Pieces, progress: bool
) -> Screened:
    """What one question leaves."""
    parts = blocks(len(out.left), whole("piece", asks.piece, least=1))
    rows = [out.left[part] for part in parts]
    passed, known_bad, seconds = np.zeros(out.n, dtype=bool), len(out.failed), 0.0
    told = in_pieces(
        _answer, lambda i: (asks.ask, candidates[rows[i]]), rows, asks.name, workers, kept,
        progress=progress, unit="candidate",
    )  # fmt: skip
    for i, found in told:
        seconds += float(found.pop("seconds"))
        passed[rows[i]] = found.pop("keep")
        bad = rows[i][found.pop("bad")].tolist()
        out.failed.update(zip(bad, found.pop("why").tolist(), strict=True))
        for name, values in found.items():
            out.values.setdefault(name, np.full(out.n, np.nan))[rows[i]] = values
    failed, tried, left = len(out.failed) - known_bad, len(out.left), np.flatnonzero(passed)
    if 0 < tried == failed:
        why = out.failed[int(out.left[0])]
        raise InputError(f"{asks.name!r} breaks down on all {failed} candidates alike: {why}")
    if asks.best is not None and tried:
        name, most = asks.best
        if name not in out.values:
            names = ", ".join(out.values)
            raise InputError(f"best asks for {name!r}, but the answers have {names}")
        order = np.argsort(out.values[name][left], kind="stable")  # of equal ones the first
        left = np.sort(left[order[: whole("best", most, least=1)]])
    row = {"filter": asks.name, "tried": tried, "passed": len(left)}
    out.stages.append(row | {"failed": failed, "seconds": round(seconds, 6)})
    return replace(out, left=left)


def _answer(task: tuple[Callable[[Any], Mapping[str, ArrayLike]], Any]) -> dict[str, np.ndarray]:
    """What one process does: the answers about a piece, and the time they took."""
    start = time.process_time()
    found, why = _without_culprits(*task)
    bad = np.flatnonzero(why != "")
    seconds = np.array(time.process_time() - start)
    return {**found, "bad": bad, "why": why[bad].astype(str), "seconds": seconds}


def _without_culprits(
    ask: Callable[[Any], Mapping[str, ArrayLike]], some: Any
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Answers and why there is none, by halves until a candidate breaks down alone."""
    n = len(some)
    try:
        found = {name: np.asarray(values) for name, values in ask(some).items()}
        wrong = {name: values.shape for name, values in found.items() if values.shape != (n,)}
        if "keep" not in found or wrong:
            raise InputError(f"an answer needs keep, and ({n},) of each number; got {wrong}")
        return found, np.full(n, "", dtype=object)
    except (ImportError, MemoryError, OSError):
        raise  # no candidate is to blame
    except Exception as error:
        if n == 1:
            text = f"{type(error).__name__}: {str(error)[:200]}"
            return {"keep": np.zeros(1, dtype=bool)}, np.array([text], dtype=object)
    halves = [(some[: n // 2], n // 2), (some[n // 2 :], n - n // 2)]
    said = [(*_without_culprits(ask, half), k) for half, k in halves]
    names = {name: None for found, _, _ in said for name in found}
    joined = {
        name: np.concatenate([found.get(name, np.full(k, np.nan)) for found, _, k in said])
        for name in names
    }
    return joined, np.concatenate([why for _, why, _ in said])


def _digest(candidates: Any) -> str:
    """Tells two lists apart."""
    digest = hashlib.sha256()
    for part in getattr(candidates, "__dict__", {"": candidates}).values():
        array = np.ascontiguousarray(part)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
