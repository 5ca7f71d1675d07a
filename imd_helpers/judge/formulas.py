"""Verdicts on compositions by the million: decoded, charge neutral, unique, new, recovered.

Samples are made in pieces of a few thousand, by one process or several. Between the pieces they are
counts, one byte for each of 119 atomic numbers: two million are 0.24 GB. Each finished piece can be
kept on disk, and a run that was stopped goes on with the others.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile

import numpy as np

from ..crystals import elements
from ..crystals.compositions import amounts, blocks, first_rows, member, reduced
from ..crystals.samples import Samples
from ..intervals import wilson
from ..runtime import InputError
from . import charge as composition
from .chunks import MOST_ON_THE_WAY, _one_thread_each, _start, write
from .report import Report, Stage

if TYPE_CHECKING:
    import pandas as pd


PIECE = 8_192  # samples
BINS = ("2", "3", "4", "5", "6", "7", "8")


class FormulaSource(Protocol):
    """Anything that makes compositions piece by piece, e.g. `imd_helpers.models.matgan.MatGan`."""

    def piece(self, index: int, n: int, *, seed: int = 0) -> Samples:
        """Piece ``index`` of the stream with this seed: n compositions."""
        ...


@dataclass(frozen=True, eq=False)
class Formulas:
    """n compositions with a verdict for each.

    Attributes:
        counts: (n, 119) int8 reduced counts; a row of zeros where nothing was decoded.
        neutral: (n,) bool, some choice of oxidation states adds up to zero.
        balanced: (n,) bool, a choice in which every cation is less electronegative than every
            anion.
        known: (n,) bool, in the training set; None without one.
        settings: oxidation states, treatment of alloys, smact's version, seed.
        seconds: wall time of making and judging.
        name: whose samples they are.
    """

    counts: np.ndarray
    neutral: np.ndarray
    balanced: np.ndarray
    known: np.ndarray | None
    settings: dict[str, Any] = field(repr=False)
    seconds: float = 0.0
    name: str = "samples"

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def decoded(self) -> np.ndarray:
        """(n,) bool."""
        return self.counts.any(1)

    @cached_property
    def first(self) -> np.ndarray:
        """(n,) bool: decoded, and no sample before it has the same reduced formula."""
        out = np.zeros(len(self), dtype=bool)
        out[first_rows(self.counts)] = True
        return out & self.decoded

    @cached_property
    def n_elements(self) -> np.ndarray:
        """(n,) number of different elements."""
        return np.concatenate(
            [np.count_nonzero(self.counts[part], 1) for part in blocks(len(self))]
        )

    def report(self) -> Report:
        """The funnel: decoded, balanced, unique, and new where there is a training set."""
        rule = {key: self.settings[key] for key in ("oxidation_states", "alloys", "smact")}
        stages = [
            ("decoded", {"rule": "2 to 8 elements, at most 8 atoms of each"}, self.decoded),
            ("charge balanced", {"rule": "smact_validity", "pauling": True, **rule}, self.balanced),
            ("unique", {"rule": "reduced formula, first of its kind"}, self.first),
        ]
        if self.known is not None:
            stages.append(("novel", {"rule": "formula not in the training set"}, ~self.known))
        return _funnel(self, stages)

    def uniqueness(self, points: int = 20) -> pd.DataFrame:
        """Distinct formulas among the first k samples: how soon a generator repeats itself.

        Returns:
            One row for each of ``points`` values of k: ``distinct``, and ``share`` of those
            decoded.
        """
        import pandas as pd

        k = np.unique(np.linspace(0, len(self), points + 1).astype(int))[1:]
        distinct, decoded = np.cumsum(self.first)[k - 1], np.cumsum(self.decoded)[k - 1]
        return pd.DataFrame(
            {"distinct": distinct, "share": distinct / np.maximum(decoded, 1)},
            index=pd.Index(k, name="samples"),
        )

    def recovery(self, reference: np.ndarray) -> pd.DataFrame:
        """How many formulas of a reference set were found, by number of elements.

        Args:
            reference: (m, 119) reduced counts, each once, e.g. of the left-out split.

        Returns:
            One row for 2, 3, … elements: ``reference``, ``found``, ``share`` with its Wilson 95 %
            interval.
        """
        found = member(reference, self.counts)
        kinds = np.count_nonzero(reference, axis=1)
        return _by_elements(kinds, found, ("reference", "found"))

    def new(self, training: np.ndarray) -> pd.DataFrame:
        """How many of the distinct formulas are not in a training set, by number of elements.

        Args:
            training: (m, 119) reduced counts.
        """
        mine = self.counts[self.first]
        return _by_elements(self.n_elements[self.first], ~member(mine, training), ("made", "new"))


def judge_formulas(
    source: FormulaSource | np.ndarray | Sequence[str],
    n: int | None = None,
    *,
    training: np.ndarray | None = None,
    oxidation_states: str = "icsd24",
    alloys: bool = True,
    seed: int = 0,
    workers: int = 1,
    cache: Path | str | None = None,
    progress: bool = False,
    name: str = "samples",
) -> Formulas:
    """Make n compositions and judge them; or judge those that are given.

    Args:
        source: a model with ``piece``, or (n, 119) counts, or formulas.
        n: how many to make; None where compositions are given.
        training: (m, 119) counts of the training set, for novelty.
        oxidation_states: ``icsd24`` or ``smact14``.
        alloys: compositions of metals alone pass.
        seed: of the samples.
        workers: processes on this machine, each with one thread.
        cache: folder for finished pieces; a run that was stopped goes on from there.
        progress: show a bar.
        name: whose samples they are.

    Raises:
        InputError: no samples, n below 1, workers below 1, or a folder that cannot be written.
    """
    started = time.perf_counter()
    settings = {
        "oxidation_states": oxidation_states,
        "alloys": alloys,
        "smact": composition.definition(oxidation_states=oxidation_states)["smact"],
        "seed": seed,
    }
    job = _Job(_as_source(source), oxidation_states, alloys, seed)
    n = _how_many(source, n)
    if workers < 1:
        raise InputError(f"workers = {workers}: at least one process does the work")
    counts, verdicts = _all_pieces(job, n, workers, cache, progress)
    known = None if training is None else member(counts, reduced(np.asarray(training)))
    return Formulas(
        counts,
        (verdicts & 1).astype(bool),
        (verdicts & 2).astype(bool),
        known,
        settings,
        time.perf_counter() - started,
        name,
    )


# ---- pieces


@dataclass(frozen=True)
class _Given:
    """Compositions that are there already, as a source."""

    counts: np.ndarray

    def part(self, index: int, n: int) -> np.ndarray:
        return self.counts[index * PIECE : index * PIECE + n]


@dataclass(frozen=True)
class _Job:
    source: Any
    oxidation_states: str
    alloys: bool
    seed: int

    def run(self, index: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, 119) int8 reduced counts, and (n,) verdicts: 1 neutral, 2 balanced too."""
        if isinstance(self.source, _Given):
            counts = self.source.part(index, n)
        else:
            counts = self.source.piece(index, n, seed=self.seed).counts
        counts = reduced(counts).astype(np.int8, copy=False)
        verdict = np.zeros(n, dtype=np.uint8)
        rows = np.flatnonzero(counts.any(1))
        if len(rows):
            for bit, pauling in ((1, False), (2, True)):
                passed = composition.charge_neutral(
                    counts[rows],
                    oxidation_states=self.oxidation_states,
                    pauling=pauling,
                    alloys=self.alloys,
                )
                verdict[rows[passed]] |= bit
        return counts, verdict

    def digest(self) -> str:
        """Name of everything that a piece depends on."""
        plain = json.dumps([self.oxidation_states, self.alloys, self.seed, PIECE])
        return hashlib.sha256(plain.encode() + _content(self.source)).hexdigest()[:16]


def _content(source: Any) -> bytes:
    """What tells two sources apart: weights where there are networks, else the pickled object."""
    if hasattr(source, "generator") and hasattr(source, "config"):
        digest = hashlib.sha256(repr(source.config).encode())
        for key, value in source.generator.state_dict().items():
            digest.update(key.encode() + value.detach().cpu().numpy().tobytes())
        return digest.digest()
    return hashlib.sha256(pickle.dumps(source)).digest()


def _all_pieces(
    job: _Job, n: int, workers: int, cache: Path | str | None, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 119) int8 counts and (n,) verdicts, each piece written to its place as it comes."""
    from tqdm.auto import tqdm

    counts = np.empty((n, elements.N_COLUMNS), dtype=np.int8)
    verdicts = np.empty(n, dtype=np.uint8)
    folder = None if cache is None else _folder(Path(cache) / f"formulas-{job.digest()}")
    todo = {}
    for i in range(-(-n // PIECE)):
        rows = slice(i * PIECE, min((i + 1) * PIECE, n))
        part = _read(folder, i, rows.stop - rows.start)
        if part is None:
            todo[i] = rows.stop - rows.start
        else:
            counts[rows], verdicts[rows] = part
    with tqdm(total=n, initial=n - sum(todo.values()), disable=not progress, unit="sample") as bar:
        for i, part in _run(job, todo, workers):
            rows = slice(i * PIECE, i * PIECE + todo[i])
            counts[rows], verdicts[rows] = part
            _keep(folder, i, part)
            bar.update(todo[i])
    return counts, verdicts


def _run(
    job: _Job, todo: dict[int, int], workers: int
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    if workers == 1 or len(todo) < 2:
        for i, size in todo.items():
            yield i, job.run(i, size)
        return
    waiting, running = iter(todo.items()), {}
    try:
        with (
            _one_thread_each(),
            ProcessPoolExecutor(workers, get_context("spawn"), _begin, (job,)) as pool,
        ):
            while True:
                for i, size in waiting:
                    running[pool.submit(_run_one, i, size)] = i
                    if len(running) >= MOST_ON_THE_WAY * workers:
                        break
                if not running:
                    return
                done = next(as_completed(running))
                yield running.pop(done), done.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"one of {workers} worker processes died; finished pieces are in the cache, if there "
            "is one. Either no memory was left (take fewer workers), or a script starts processes "
            "without the line: if __name__ == '__main__':"
        ) from error


_JOB: list[_Job] = []  # of a worker process


def _begin(job: _Job) -> None:
    _start()
    _JOB[:] = [job]


def _run_one(index: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    return _JOB[0].run(index, n)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        write(path / ".writable", b"")
    except OSError as error:
        raise InputError(
            f"the cache {path} cannot be written ({error}): choose another folder"
        ) from error
    return path


def _read(folder: Path | None, index: int, n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A piece of an earlier run; None where there is none, or a damaged or shorter one."""
    if folder is None:
        return None
    try:
        with np.load(folder / f"{index:06d}.npz", allow_pickle=False) as file:
            counts, verdict = file["counts"], file["verdict"]
    except (OSError, ValueError, KeyError, BadZipFile, EOFError):
        return None
    shapes = counts.shape == (n, elements.N_COLUMNS) and verdict.shape == (n,)
    return (counts, verdict) if shapes else None


def _keep(folder: Path | None, index: int, part: tuple[np.ndarray, np.ndarray]) -> None:
    if folder is None:
        return
    blob = BytesIO()
    np.savez_compressed(blob, counts=part[0], verdict=part[1])
    write(folder / f"{index:06d}.npz", blob.getvalue())


# ---- parts


def _as_source(source: Any) -> Any:
    if hasattr(source, "piece"):
        return source
    if isinstance(source, str):
        raise InputError(f"{source!r} is one formula: give a list, [{source!r}]")
    if not isinstance(source, np.ndarray):
        source = amounts(list(source))
    if source.ndim != 2 or source.shape[1] != elements.N_COLUMNS or len(source) == 0:
        raise InputError(
            f"counts have shape {source.shape}: expected (n, {elements.N_COLUMNS}) with n >= 1, "
            "a list of formulas, or a model that makes pieces"
        )
    if source.dtype.kind == "f" or source.max() > 127 or source.min() < 0:
        raise InputError("counts must be whole numbers from 0 to 127")
    return _Given(source.astype(np.int8))


def _how_many(source: Any, n: int | None) -> int:
    if hasattr(source, "piece"):
        if n is None or n < 1:
            raise InputError(f"n = {n}: say how many compositions the model shall make")
        return n
    if n is not None and n != len(source):
        raise InputError(f"n = {n}, but {len(source)} compositions were given: leave n out")
    return len(source)


def _by_elements(kinds: np.ndarray, yes: np.ndarray, names: tuple[str, str]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for k in np.unique(kinds):
        here = kinds == k
        total, hits = int(here.sum()), int(yes[here].sum())
        low, high = wilson(np.array([hits]), total)
        rows.append((int(k), total, hits, hits / total, float(low[0]), float(high[0])))
    columns = ["elements", *names, "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).set_index("elements")


def _funnel(formulas: Formulas, stages: list[tuple[str, dict[str, Any], np.ndarray]]) -> Report:
    n = len(formulas)
    failed_at = np.full(n, len(stages))
    alive = np.ones(n, dtype=bool)
    made = []
    for place, (name, definition, holds) in enumerate(stages):
        tried = int(alive.sum())
        failed_at[alive & ~holds] = place
        alive &= holds
        made.append(Stage(name, definition, tried, int(alive.sum()), 0.0))
    names = [name for name, _, _ in stages]
    why = np.array([*(f"not {name}" for name in names), ""], dtype=object)
    return Report(formulas.name, n, tuple(made), failed_at, tuple(why[failed_at]))
