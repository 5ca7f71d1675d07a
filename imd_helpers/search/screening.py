"""High-throughput screening: a list of any length, sent through questions, the cheap ones first.

What is answered is kept on disk, so that a run that was killed goes on, and gives the same table.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..crystals.compositions import blocks
from ..runtime import InputError, lookup, whole
from ..work import Pieces, Workers, in_pieces, locked


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
    piece = whole("piece", asks.piece, least=1)
    rows = [out.left[part] for part in blocks(len(out.left), piece)]
    passed, known_bad, seconds = np.zeros(out.n, dtype=bool), len(out.failed), 0.0
    told = in_pieces(
        _answer, lambda i: (asks.ask, candidates[rows[i]]), rows, asks.name, workers, kept,
        progress=progress, unit="candidate",
    )  # fmt: skip
    for i, found in told:
        seconds += float(found.pop("seconds"))
        passed[rows[i]] = found.pop("keep")
        why = zip(rows[i].tolist(), found.pop("why").tolist(), strict=True)
        out.failed.update({place: reason for place, reason in why if reason})
        for name, values in found.items():
            out.values.setdefault(name, np.full(out.n, np.nan))[rows[i]] = values
    failed, tried, left = len(out.failed) - known_bad, len(out.left), np.flatnonzero(passed)
    if 0 < tried == failed:
        why = out.failed[int(out.left[0])]
        raise InputError(f"{asks.name!r} breaks down on all {failed} candidates alike: {why}")
    if asks.best is not None and tried:
        name = lookup("number", asks.best[0], out.values)
        order = np.argsort(out.values[name][left], kind="stable")  # of equal ones the first
        left = np.sort(left[order[: whole("best", asks.best[1], least=1)]])
    row = {"filter": asks.name, "tried": tried, "passed": len(left)}
    out.stages.append(row | {"failed": failed, "seconds": round(seconds, 6)})
    return replace(out, left=left)


def _answer(task: tuple[Callable[[Any], Mapping[str, ArrayLike]], Any]) -> dict[str, np.ndarray]:
    """What one process does: the answers about a piece, and the time they took."""
    start = time.process_time()
    table = _without_culprits(*task)
    found = {name: column.to_numpy() for name, column in table.items()}
    why, seconds = table["why"].to_numpy(dtype=str), np.array(time.process_time() - start)
    return {**found, "why": why, "seconds": seconds}


def _without_culprits(ask: Callable[[Any], Mapping[str, ArrayLike]], some: Any) -> pd.DataFrame:
    """Answers and ``why`` there is none, by halves until a candidate breaks down alone."""
    n = len(some)
    try:
        table = pd.DataFrame({name: np.asarray(values) for name, values in ask(some).items()})
        if "keep" not in table or len(table) != n:
            raise InputError(f"an answer needs keep, and ({n},) of each number; got {table.shape}")
        return table.assign(why="")
    except (ImportError, MemoryError, OSError):
        raise  # no candidate is to blame
    except Exception as error:
        if n == 1:
            text = f"{type(error).__name__}: {str(error)[:200]}"
            return pd.DataFrame({"keep": [False], "why": [text]})
    halves = [_without_culprits(ask, half) for half in (some[: n // 2], some[n // 2 :])]
    return pd.concat(halves, ignore_index=True)


def _digest(candidates: Any) -> str:
    """Tells two lists apart."""
    parts = getattr(candidates, "__dict__", {"": candidates}).values()
    return hashlib.sha256(pickle.dumps([np.asarray(part) for part in parts])).hexdigest()
