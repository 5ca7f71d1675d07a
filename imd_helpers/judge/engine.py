"""`judge`: a protocol's questions about n samples, one after the other, in pieces."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..crystals import CrystalBatch, compositions
from ..crystals.samples import Samples, Stream, digest
from ..energies.potentials import JUDGES
from ..runtime import InputError, lookup
from ..work import Pieces, Workers, in_pieces, write_atomic
from .facts import Answer, Fact, potential_name, put_in
from .mechanics import FACTS
from .numbers import numbers
from .protocols import PROTOCOLS, Protocol
from .report import Report, Stage
from .samples import Known, KnownFormulas, as_compositions, as_known, as_samples, safe_counts

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ..datasets import CrystalSet
    from ..energies.potentials import Potential

CACHE_FORMAT = 3  # a change of what the pieces hold changes this
WIDE = 500  # sites of a crystal that is asked about alone
KEYS = 50_000  # samples of which the compositions are counted at once
YES, NO, NOT_ASKED = 1, 0, -1
MACHINE = (
    "which is no verdict on them, and nothing was kept of it; mend the installation (modules, "
    "memory, a writable NUMBA_CACHE_DIR) and judge again"
)


def judge(
    samples: Samples | Stream | CrystalBatch | CrystalSet | np.ndarray | Sequence[Structure | str],
    *,
    reference: Known | CrystalBatch | CrystalSet | np.ndarray | Sequence[str] | str | None = None,
    protocol: str | Protocol = "imd",
    potentials: Sequence[str | Potential] = JUDGES,
    training: Known | CrystalBatch | CrystalSet | np.ndarray | Sequence[str] | str | None = None,
    distributions: bool = True,
    workers: int = 1,
    scheduler: str | None = None,
    cache: Path | str | None = None,
    name: str = "samples",
    progress: bool = False,
) -> Report:
    """Judge n samples by a protocol.

    Steps that cannot be taken (no space groups asked for, no reference, no potential) are left
    out, and so are the numbers that need them; such reports only compare among themselves.

    Args:
        samples: what a generator made or a descriptor decoded, crystals, or pymatgen structures;
            the space groups that were asked for in ``samples.asked["space_group"]``. A protocol
            of compositions takes samples, (n, 119) counts or formulas. A `Stream` of either kind
            is made piece by piece, by the workers.
        reference: what is known, that novelty and coverage are measured against: crystals, a data
            set or its name (for compositions: counts or formulas); None for no novelty.
        protocol: one of `PROTOCOLS`, or one of your own.
        potentials: the first relaxes and decides; further ones say how far they disagree (in an
            ensemble protocol their mean decides). Two that were calibrated against DFT also say
            what DFT is expected to say. Empty: no energies.
        training: what the generator learned from, where the protocol asks for it; default: the
            reference.
        distributions: compute coverage and distances too, where the protocol has them (slow: some
            15 ms for each distinct site of samples and reference).
        workers: processes on this machine, each with one thread.
        scheduler: address of a Dask scheduler instead, e.g. ``tcp://localhost:8786``.
        cache: folder for finished pieces; a run that was stopped goes on from there.
        name: whose samples they are.
        progress: show a bar for each step.

    Raises:
        InputError: no samples, tensors of the wrong shape, a reference without content, a
            potential that is not installed, a scheduler that does not answer.
        UnknownNameError: no such protocol, potential or data set.
    """
    if not isinstance(protocol, Protocol):
        protocol = PROTOCOLS[lookup("protocol", protocol, PROTOCOLS)]
    given = {"reference": reference, "training": training}
    known = {k: as_known(v, protocol.content) for k, v in given.items() if v is not None}
    with Workers(workers, scheduler) as where:
        where.warm_up(_ready)
        if isinstance(samples, Stream):
            samples = _made(samples, where, cache, progress)
        elif protocol.content == "compositions":
            samples = as_compositions(samples)
        if protocol.content == "crystals":
            samples = as_samples(samples)
        run = Run(samples, protocol, known, potentials, where, progress)
        run.keep_in(cache)
        for step, fact in run.steps:
            run.begin(fact)
            fact.ask(run)
            if step.filters:
                run.left = run.left[run.yes(fact.name)[run.left]]
        found = numbers(run, distributions=distributions)
    return run.report(name, found)


class Run:
    """One protocol on one set of samples: facts, values and reasons as they come in."""

    def __init__(
        self,
        samples: Samples,
        protocol: Protocol,
        given: Mapping[str, Known | KnownFormulas],
        potentials: Sequence[str | Potential],
        workers: Workers,
        progress: bool,
    ) -> None:
        self.samples, self.protocol = samples, protocol
        self.reference = given.get("reference")  # what coverage and distances compare with
        against = [kind for kind in given if kind in protocol.novel_to] or ["reference"]
        self.known = {kind: given[kind] for kind in against if kind in given}
        self.potentials = _checked(potentials)
        self.workers, self.progress = workers, progress
        known_facts = FACTS[protocol.content]
        asked = [(s, known_facts[lookup("fact", s.fact, known_facts)]) for s in protocol.steps]
        self.steps = [(step, fact) for step, fact in asked if fact.can(self)]
        self.content: Any = samples.content  # crystals as sampled until they are relaxed
        self.left = np.arange(len(samples))  # that no step has filtered out yet
        self.facts: dict[str, np.ndarray] = {}  # fact -> (n,) int8, see `Report.facts`
        self.values: dict[str, np.ndarray] = {}  # quantity -> (n,) float64
        self.reasons: dict[str, dict[int, str]] = {}  # fact -> sample -> why not
        self.details: dict[str, dict[int, Any]] = {}  # fact -> sample -> what else is known
        self.seconds: dict[str, float] = {}  # fact -> computing time
        self.definitions = self._definitions()  # fact -> what it means
        self.pieces = Pieces(None)

    def _definitions(self) -> dict[str, dict[str, Any]]:
        out, relaxed = {}, False
        for _, fact in self.steps:
            out[fact.name] = fact.definition(self)
            if relaxed and fact.relaxed_too:
                out[fact.name]["crystals"] = "relaxed"
            relaxed |= fact.name == "relaxed"
        return out

    def known_definition(self) -> dict[str, Any]:
        """Which sets novelty is measured against, for reports."""
        about: dict[str, Any] = {}
        for kind, known in self.known.items():
            about |= {kind: known.digests[0], f"{kind}_size": len(known)}
        return about

    def keep_in(self, folder: Path | str | None) -> None:
        """Keep finished pieces in a folder, and take those that are there.

        The folder's name is a hash of the samples and of all that the verdicts depend on, so that
        pieces of another run are never taken.

        Raises:
            InputError: the folder cannot be written.
        """
        if folder is None:
            return
        about = {
            "format": CACHE_FORMAT,
            "imd-helpers": metadata.version("imd-helpers"),
            "samples": _digest_of_samples(self.samples),
            "known": {kind: known.digests for kind, known in self.known.items()},
            "protocol": self.protocol.definition(),
            "definitions": self.definitions,
        }
        text = json.dumps(about, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.pieces = Pieces(Path(folder) / key)
        write_atomic(Path(folder) / key / "about.json", text.encode())

    # ---- asking

    def answers(
        self,
        fact: Fact,
        function: Callable[..., Answer],
        rows: np.ndarray,
        settings: Mapping[str, Any] | None = None,
        *,
        label: str = "",
        piece: int = 0,
        each: Mapping[str, np.ndarray] | None = None,
        known: Sequence[Known] | None = None,
    ) -> list[tuple[np.ndarray, Answer]]:
        """Answers about some samples, piece by piece, from disk where they are there.

        Args:
            fact: whose time it is.
            function: of a piece of the content, its rows and settings.
            rows: places of the samples.
            settings: the same for all.
            label: names the pieces on disk and the bar; default: the fact's name.
            piece: samples in one piece; default: the fact's.
            each: (n,) settings with one value a sample.
            known: sets of crystals, of which those with the compositions of a piece go with it.
        """
        label = label or fact.name
        keys = self.keys(rows) if fact.together or known is not None else []
        plan = _plan(len(rows), keys, piece or fact.piece, together=fact.together)
        crystals = isinstance(self.content, CrystalBatch)
        if crystals and not fact.together:
            plan = _alone(plan, (self.content.numbers[rows] != 0).sum(1).numpy() > WIDE)

        def task(number: int) -> Task:
            some = rows[plan[number]]
            own = dict(settings or {})
            if known is not None:
                own["known"] = _alike([keys[k] for k in plan[number]], known)
            of_rows = {name: values[some] for name, values in (each or {}).items()}
            # crystals with no more padding than they need
            content = self.content.narrow(some) if crystals else self.content[some]
            return Task(function, content, some, own, of_rows)

        rows_of = [rows[places] for places in plan]
        found = list(in_pieces(
            carried_out, task, rows_of, label, self.workers, self.pieces,
            progress=self.progress, unit="sample", pack=_packed, unpack=_unpacked,
        ))  # fmt: skip
        pairs = [(rows_of[number], answer) for number, answer in found]
        self.seconds[fact.name] += sum(answer.seconds for _, answer in pairs)
        return sorted(pairs, key=lambda pair: int(pair[0][0]))

    def keys(self, rows: np.ndarray) -> list[bytes]:
        """The composition of each of these samples, in pieces: counts are large."""
        return [
            key
            for part in compositions.blocks(len(rows), KEYS)
            for key in compositions.keys(safe_counts(self.content[rows[part]]))
        ]

    # ---- what facts write

    def begin(self, fact: Fact) -> None:
        """Nobody was asked yet."""
        self.facts[fact.name] = np.full(len(self.samples), NOT_ASKED, dtype=np.int8)
        self.reasons[fact.name] = {}
        self.details[fact.name] = {}
        self.seconds[fact.name] = 0.0

    def take(self, fact: Fact, rows: np.ndarray, answer: Answer) -> None:
        """Write down the answer about some samples."""
        self.note(fact, rows, answer.ok, {int(rows[i]): w for i, w in answer.reasons.items()})
        for name, values in answer.values.items():
            self.value(name)[rows] = values
        self.details[fact.name] |= {int(rows[i]): what for i, what in answer.details.items()}

    def note(self, fact: Fact, rows: np.ndarray, ok: np.ndarray, why: Mapping[int, str]) -> None:
        """Write down yes or no of some samples; ``why`` has the reasons of the refusals."""
        self.facts[fact.name][rows] = np.where(ok, YES, NO)
        failed = rows[~np.asarray(ok)].tolist() if why else []
        self.reasons[fact.name] |= {i: why[i] for i in failed if i in why}

    def value(self, name: str) -> np.ndarray:
        """(n,) one quantity, NaN where there is none; may be written to."""
        return self.values.setdefault(name, np.full(len(self.samples), np.nan))

    # ---- what numbers and reports read

    def asked(self, *facts: str) -> bool:
        """Were all of these asked?"""
        return set(facts) <= self.facts.keys()

    def yes(self, fact: str) -> np.ndarray:
        """(n,) bool: the answer was yes."""
        return self.facts[fact] == YES

    def holds(self, where: Sequence[str], but_not: Sequence[str] = ()) -> np.ndarray:
        """(n,) bool: which samples have all of some facts, and none of others."""
        out = np.ones(len(self.samples), dtype=bool)
        for fact in where:
            out &= self.yes(fact)
        for fact in but_not:
            out &= ~self.yes(fact)
        return out

    def report(self, name: str, found: Sequence[Any]) -> Report:
        """Facts one after the other as stages, beside the protocol's numbers."""
        n = len(self.samples)
        order = [fact for fact in self.protocol.funnel if fact in self.facts]
        passes = np.array([self.yes(fact) for fact in order])  # (stages, n)
        through = np.logical_and.accumulate(passes, axis=0)
        failed_at = through.sum(0)
        passed = through.sum(1).tolist()
        tried = [n, *passed[:-1]]
        stages = tuple(
            Stage(fact, self.definitions[fact], tried[k], passed[k], self.seconds[fact])
            for k, fact in enumerate(order)
        )
        why = [(self.reasons[fact], f"not {fact}") for fact in order]
        reasons = tuple(
            why[k][0].get(i, why[k][1]) if k < len(order) else ""
            for i, k in enumerate(failed_at.tolist())
        )
        return Report(
            name=name,
            n=n,
            stages=stages,
            failed_at=failed_at,
            reasons=reasons,
            protocol=self.protocol.name,
            about=self.protocol.about(),
            numbers=tuple(found),
            facts=dict(self.facts),
            values={k: v for k, v in self.values.items() if np.isfinite(v).any()},
            notes=self._notes(),
            samples=self.samples,
            relaxed=None if self.content is self.samples.content else self.content,
            details={k: v for k, v in self.details.items() if v},
        )

    def _notes(self) -> tuple[str, ...]:
        protocol, n = self.protocol, len(self.samples)
        notes = []
        if protocol.asks_for not in (None, n):
            notes.append(
                f"{protocol.name} asks for exactly {protocol.asks_for:,} samples, these are {n:,}: "
                "shares of unique crystals fall with n"
            )
        left_out = [step.fact for step in protocol.steps if step.fact not in self.facts]
        if left_out:
            notes.append(f"not asked: {', '.join(left_out)}")
        return tuple(notes)


def _checked(potentials: Sequence[str | Potential]) -> tuple[str | Potential, ...]:
    from ..energies.potentials import POTENTIALS, Potential

    if isinstance(potentials, str):
        raise InputError(f"potentials = {potentials!r}: give a list, [{potentials!r}]")
    for each in potentials:
        if not isinstance(each, Potential):
            lookup("potential", each, POTENTIALS)
    names = [potential_name(each) for each in potentials]
    if len(set(names)) < len(names):
        raise InputError(f"potentials are {', '.join(names)}: name each one once")
    return tuple(potentials)


# ---- one piece of work


@dataclass(frozen=True, eq=False)
class Task:
    """One piece of work: what `carried_out` does, in this process or another."""

    function: Callable[..., Answer]  # answers about the content
    content: Any  # k samples
    rows: np.ndarray  # (k,) their places among the n samples
    settings: Mapping[str, Any]  # the same for all of them
    # (k,) settings with one value a sample
    each: Mapping[str, np.ndarray] = field(default_factory=dict)

    def part(self, places: np.ndarray) -> Task:
        """The same about some of its samples."""
        each = {name: values[places] for name, values in self.each.items()}
        return replace(self, content=self.content[places], rows=self.rows[places], each=each)


def carried_out(task: Task) -> Answer:
    """The answer of a task; a sample on which it breaks down is a no, and stops nothing.

    Raises:
        InputError: it breaks down on every sample alike, so that the settings or the machine are
            to blame; or for want of a module, memory, a disk or a compiler.
    """
    start = time.process_time()
    try:
        answer = task.function(task.content, task.rows, **task.settings, **task.each)
    except Exception as error:
        _blame_the_machine(error)
        answer = _without_culprits(task)
    answer.seconds = time.process_time() - start
    return answer


def _without_culprits(task: Task) -> Answer:
    """Ask about each sample alone; then about all that can be asked together once more."""
    k = len(task.rows)
    broken: dict[int, str] = {}
    for i in range(k):
        one = task.part(np.array([i]))
        try:
            one.function(one.content, one.rows, **one.settings, **one.each)
        except Exception as error:
            _blame_the_machine(error)
            broken[i] = f"{type(error).__name__}: {str(error)[:200]}"
            last = error
    if len(broken) == k > 1 and len(set(broken.values())) == 1:
        if isinstance(last, InputError):
            raise last
        raise InputError(f"{k} of {k} samples fail alike, {MACHINE}: {broken[0]}") from last
    out = Answer(np.zeros(k, dtype=bool), broken)
    good = np.array([i for i in range(k) if i not in broken], dtype=np.int64)
    if len(good) == 0:
        return out
    rest = task.part(good)
    answer = rest.function(rest.content, rest.rows, **rest.settings, **rest.each)
    out.content = None if answer.content is None else task.content
    return put_in(out, good, answer)


def _blame_the_machine(error: Exception) -> None:
    """Raise if no sample can be at fault: a module, memory, a disk or a compiler is missing."""
    compiler = type(error).__module__.startswith(("numba", "llvmlite"))
    said = "cannot cache" in str(error) or "out of memory" in str(error)
    if compiler or said or isinstance(error, ImportError | MemoryError | OSError):
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"a question could not be asked, {MACHINE}: {why}") from error


def _alike(keys: list[bytes], sets: Sequence[Known]) -> tuple[CrystalBatch, np.ndarray] | None:
    """Known crystals of these compositions, and their places."""
    found = [(batch, rows) for batch, rows in (known.like(keys) for known in sets) if len(rows)]
    if not found:
        return None
    batches, rows = zip(*found, strict=True)
    return CrystalBatch.cat(batches), np.concatenate(rows)


def _plan(n: int, keys: Sequence[bytes], size: int, *, together: bool) -> list[np.ndarray]:
    """Places of n samples in each piece; with ``together`` a composition is never divided."""
    if not together:
        return [np.arange(a, min(a + size, n)) for a in range(0, n, size)]
    groups: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    pieces, piece = [], []
    for members in groups.values():
        if piece and len(piece) + len(members) > size:
            pieces.append(np.array(sorted(piece)))
            piece = []
        piece += members
    return [*pieces, np.array(sorted(piece))] if piece else pieces


def _alone(plan: list[np.ndarray], wide: np.ndarray) -> list[np.ndarray]:
    """The same pieces, but each very large crystal in one of its own: all are padded to it."""
    rest = [places[~wide[places]] for places in plan]
    return [places for places in [*rest, *np.flatnonzero(wide)[:, None]] if len(places)]


def _packed(answer: Answer) -> dict[str, np.ndarray]:
    """An answer as arrays that a file can hold."""
    arrays = {"ok": answer.ok, "seconds": np.array(answer.seconds)}
    arrays["reasons"] = np.array(json.dumps(answer.reasons))
    arrays["details"] = np.array(json.dumps(answer.details))
    arrays |= {f"value {name}": values for name, values in answer.values.items()}
    if isinstance(answer.content, CrystalBatch):
        parts = vars(answer.content)
        arrays |= {f"crystals {name}": tensor.numpy() for name, tensor in parts.items()}
    elif answer.content is not None:
        arrays["counts"] = answer.content
    return arrays


def _unpacked(arrays: Mapping[str, np.ndarray]) -> Answer:
    """What `_packed` made."""

    def named(kind: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}

    parts = {name: torch.from_numpy(values) for name, values in named("crystals ").items()}
    return Answer(
        arrays["ok"],
        {int(i): why for i, why in json.loads(str(arrays["reasons"])).items()},
        named("value "),
        CrystalBatch(**parts) if parts else arrays.get("counts"),
        float(arrays["seconds"]),
        {int(i): what for i, what in json.loads(str(arrays["details"])).items()},
    )


# ---- samples that are made on the way


def _made(stream: Stream, workers: Workers, cache: Path | str | None, progress: bool) -> Samples:
    """All samples of a stream, made by the workers; finished pieces are kept and taken."""
    folder = None if cache is None else Path(cache) / f"samples-{_digest_of_stream(stream)}"
    rows = np.split(np.arange(stream.n), np.cumsum(stream.sizes)[:-1])
    found = dict(in_pieces(
        _one_piece, lambda i: (stream, i), rows, "samples", workers, Pieces(folder),
        progress=progress, unit="sample", pack=_packed, unpack=_unpacked,
    ))  # fmt: skip
    parts = [found[number] for number in range(len(rows))]
    ok = np.concatenate([part.ok for part in parts])
    names = parts[0].values
    asked = {name: np.concatenate([part.values[name] for part in parts]) for name in names}
    told = (part.reasons.get(i, "") for part in parts for i in range(len(part.ok)))
    return Samples(_joined(parts), ok, tuple(told), asked)


def _one_piece(task: tuple[Stream, int]) -> Answer:
    """One piece of a stream, in the form that the judge takes."""
    stream, index = task
    part = stream.piece(index)
    part = as_compositions(part) if isinstance(part.content, np.ndarray) else as_samples(part)
    why = {i: part.reasons[i] for i in np.flatnonzero(~part.ok).tolist()}
    return Answer(part.ok, why, dict(part.asked), part.content, part.seconds)


def _joined(parts: list[Answer]) -> Any:
    """The content of all pieces; counts, which may be most of the memory, are never there twice."""
    if not isinstance(parts[0].content, np.ndarray):
        return CrystalBatch.cat([part.content for part in parts])
    n, columns = sum(len(part.ok) for part in parts), parts[0].content.shape[1]
    out, start = np.empty((n, columns), dtype=np.int8), 0
    for part in parts:
        out[start : start + len(part.ok)] = part.content
        part.content, start = None, start + len(part.ok)
    return out


def _digest_of_stream(stream: Stream) -> str:
    """Tells two streams apart: by weights where there are networks, else by the pickled source."""
    source = stream.source
    parts = {k: v for k, v in vars(source).items() if isinstance(v, torch.nn.Module)}
    digest = hashlib.sha256(repr((stream.seed, stream.sizes[:1])).encode())
    if not parts:
        digest.update(pickle.dumps(source))
    else:
        digest.update(repr(getattr(source, "config", None)).encode())
    for name, network in sorted(parts.items()):
        for key, value in network.state_dict().items():
            digest.update(f"{name}.{key}".encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest_of_samples(samples: Samples) -> str:
    """SHA-256 of everything that the verdicts depend on, up to rounding."""
    blob = hashlib.sha256(repr((samples.ok.tolist(), samples.reasons)).encode())
    if isinstance(samples.content, CrystalBatch):
        blob.update(b"".join(digest(*crystal) for crystal in samples.content.each()))
    else:
        blob.update(np.ascontiguousarray(samples.content).data)
    for name, values in sorted(samples.asked.items()):
        blob.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return blob.hexdigest()


def _ready() -> None:
    """Nothing: the imports of this module are what a new process has to do first."""
