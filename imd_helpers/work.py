"""Work in pieces: in this process, in several, or on a cluster; what is done is kept on disk.

A piece that is done is written to a file of its own, complete or not at all. A run that was killed
finds the pieces of its predecessor and goes on with the others.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from .runtime import InputError, progress_bar, whole

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PATIENCE = 10  # s, for a scheduler to answer
YOUNG = 10  # s, in which a file that is being written is left alone
MOST_ON_THE_WAY = 4  # pieces a worker may have waiting: all at once would fill the memory


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that appears, or replaces the old one, only when it is complete.

    Raises:
        OSError: the folder cannot be made or written, or is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}.part")
    try:
        with partial.open("wb") as file:
            _take(file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def try_writing(folder: Path) -> None:
    """Write a block to a folder, made if need be, before the work whose results go there.

    What processes that were killed while writing have left there is removed.

    Raises:
        OSError: the folder cannot be made or written, or is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as probe:
        probe.write(bytes(4096))
        probe.flush()
        os.fsync(probe.fileno())
    for partial in folder.glob(".*.part"):
        with suppress(OSError), partial.open("rb") as file:
            old = time.time() - partial.stat().st_mtime > YOUNG  # a new one may not be locked yet
            if old and _take(file):  # refused while its writer lives
                partial.unlink()


def _take(file: IO[bytes], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where files cannot be locked.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except (OSError, AttributeError):  # a network's file system, Windows
        return False
    return True


@contextmanager
def locked(folder: Path, *, file: str = "", wait: bool = False) -> Iterator[None]:
    """Write a folder, one process at a time where the system has file locks.

    The lock ends with the process, however that ends.

    Args:
        folder: made if it is not there.
        file: name of the one file in it that is written; default: any.
        wait: for the other process, instead of giving up.

    Raises:
        InputError: another process writes there, and ``wait`` is False.
        OSError: the folder cannot be made or written.
    """
    try_writing(folder)
    place = folder / (f".{file}.lock" if file else ".lock")
    with place.open("wb") as lock:
        try:
            _take(lock, wait=wait)  # without locks each file is whole all the same
        except BlockingIOError as error:
            raise InputError(
                f"another process is writing to {folder / file}: wait for it, or give another "
                f"{'file' if file else 'folder'}"
            ) from error
        try:
            yield
        finally:
            if file:
                place.unlink(missing_ok=True)


class Workers:
    """Where pieces of work are carried out.

    Args:
        workers: processes on this machine, each with one thread; 1 works in this process.
        scheduler: address of a Dask scheduler; then ``workers`` must stay 1.

    Raises:
        InputError: a number of workers below 1, both kinds at once, no Dask, or nobody there.
    """

    def __init__(self, workers: int = 1, scheduler: str | None = None) -> None:
        whole("workers", workers, least=1)
        if scheduler and workers > 1:
            raise InputError(
                f"workers = {workers} and scheduler = {scheduler!r}: give one of the two; the "
                "cluster has its own workers"
            )
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._client = _client(scheduler) if scheduler else None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Start the processes: they load the function's module while this one does other things."""
        if self.workers > 1:
            with _one_thread_each():
                for _ in range(self.workers):
                    self._executor().submit(function)

    def map(
        self, function: Callable[[Any], Any], pieces: Iterable[Any], n: int
    ) -> Iterator[tuple[int, Any]]:
        """(place of the piece, what the function made of it), in the order in which they are done.

        Args:
            function: of a module, so that other processes find it.
            pieces: what it takes, made one by one and not before a worker has room for it. Pieces
                and results travel as pickles, and only if they leave this process.
            n: how many pieces there are.

        Raises:
            InputError: a worker died.
        """
        if self._client is not None or (self.workers > 1 and n > 1):
            yield from self._elsewhere(function, pieces)
        else:
            for i, piece in enumerate(pieces):
                yield i, function(piece)

    def _executor(self) -> Executor:
        if self._client is not None:
            return self._client.get_executor(pure=False)
        if self._pool is None:
            # spawn: a forked copy of a process in which torch or numba have threads may hang
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _start)
        return self._pool

    def _elsewhere(
        self, function: Callable[[Any], Any], pieces: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        executor, processes, died = self._executor(), self.workers, (BrokenExecutor,)
        if self._client is not None:
            from distributed import KilledWorker

            processes, died = max(1, sum(self._client.nthreads().values())), (KilledWorker,)
        waiting = iter(enumerate(pieces))
        running: dict[Future, int] = {}
        try:
            with _one_thread_each():
                while True:
                    for i, piece in islice(waiting, MOST_ON_THE_WAY * processes - len(running)):
                        packed = pickle.dumps((function, piece))
                        running[executor.submit(_carried_out, packed)] = i
                    if not running:
                        return
                    done = next(as_completed(running))
                    yield running.pop(done), pickle.loads(done.result())
        except died as error:
            raise InputError(
                f"one of {processes} worker processes died ({error}); finished pieces are in the "
                "cache, if there is one. Either no memory was left (take fewer workers, or give "
                "those of the cluster more), or a script starts processes without the line: "
                "if __name__ == '__main__':"
            ) from error


class Process:
    """A function in a process of its own, which is killed, and later replaced, if it is too slow.

    Args:
        function: of a module, or an object that can be pickled.
        seconds: for each of the things that it is called with, of which several may come at once.

    Raises:
        InputError: a function that cannot be pickled.
    """

    def __init__(self, function: Callable[[Any], Any], seconds: float) -> None:
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InputError(
                f"the function cannot be sent to another process ({error}): give one of a module, "
                "or no limit of time"
            ) from error
        self._function, self._seconds = function, seconds
        self._process: Any = None

    def __call__(self, things: Any) -> Any:
        """What the function makes of the things.

        Raises:
            TimeoutError: it took too long.
            RuntimeError: it raised, or its process died.
        """
        if self._process is None:
            self._begin()
        try:
            self._pipe.send(things)
            if not self._pipe.poll(self._seconds * len(things)):
                raise TimeoutError(f"no answer within {self._seconds:g} s")
            good, found = self._pipe.recv()
        except (OSError, EOFError) as error:  # a TimeoutError is an OSError
            self.stop()
            if isinstance(error, TimeoutError):
                raise
            raise RuntimeError("the process that was asked died") from error
        except BaseException:  # interrupted: the answer would be taken for that of the next thing
            self.stop()
            raise
        if not good:
            raise RuntimeError(found)
        return found

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def _begin(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()
        with suppress(EOFError):  # loading modules is not the answer's time
            self._pipe.recv()


def _serve(pipe: Any, function: Callable[[Any], Any]) -> None:
    """In a process of its own: answer until nobody asks."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send("ready")
    while True:
        things = pipe.recv()
        try:
            answer = (True, function(things))
        except Exception as error:
            answer = (False, f"{type(error).__name__}: {error}")
        pipe.send(answer)


class Pieces:
    """Results on disk, one file of arrays a piece.

    Args:
        folder: where; made if it is not there. None keeps nothing.

    Raises:
        InputError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is None:
            return
        try:
            try_writing(folder)
        except OSError as error:
            raise InputError(
                f"the cache {folder} cannot be written ({error}): choose another folder"
            ) from error

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a piece; None if it is not there or was damaged."""
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, KeyError, BadZipFile, EOFError):
            return None

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of a piece; the file appears only when it is complete."""
        if self.folder is None:
            return
        blob = BytesIO()
        np.savez_compressed(blob, **arrays)
        write_atomic(self.folder / f"{name}.npz", blob.getvalue())


def in_pieces(
    function: Callable[[Any], Any],
    task: Callable[[int], Any],
    rows: Sequence[np.ndarray],
    label: str,
    workers: Workers,
    kept: Pieces,
    *,
    progress: bool,
    unit: str,
    pack: Callable[[Any], Mapping[str, np.ndarray]] = dict,
    unpack: Callable[[Mapping[str, np.ndarray]], Any] = dict,
) -> Iterator[tuple[int, Any]]:
    """(number, answer) of each piece: from disk where it is there, else by the workers.

    Args:
        function: of a module, as for `Workers.map`.
        task: what it takes, made of the number of a piece when a worker is free.
        rows: what each piece is about; a piece on disk about other rows is not taken.
        label: names the pieces on disk and the bar.
        workers: who answers.
        kept: where finished pieces go.
        progress: show a bar over all rows.
        unit: of the bar, one row.
        pack: makes arrays of an answer, for the disk.
        unpack: makes an answer of these arrays.
    """
    names = [f"{label.replace(' ', '-')}-{number:05d}" for number in range(len(rows))]
    todo, total = [], sum(map(len, rows))
    with progress_bar(None, label, progress and total > 0, total=total, unit=unit) as bar:
        for number, some in enumerate(rows):
            arrays = kept.read(names[number])
            if arrays is None or not np.array_equal(arrays.pop("rows", None), some):
                todo.append(number)
                continue
            bar.update(len(some))
            yield number, unpack(arrays)
        for k, answer in workers.map(function, map(task, todo), len(todo)):
            some = rows[todo[k]]
            kept.write(names[todo[k]], {**pack(answer), "rows": some})
            bar.update(len(some))
            yield todo[k], answer


class JsonLog:
    """Answers on disk, one line each; a line that was torn when its writer was killed is dropped.

    Raises:
        InputError: the file is the log of something else.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.kept = path, {}
        head = json.dumps({"about": about}, sort_keys=True)
        text = path.read_text("utf-8") if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        if lines and lines[0] != head:
            raise InputError(
                f"{path} is the log of another search, {lines[0][:200]}: this one is {head}; "
                "give another file, or remove it"
            )
        for line in lines[1:]:
            key, row, why = json.loads(line)
            self.kept[key] = (np.array(row, dtype=float), why)  # null becomes NaN
        write_atomic(path, "".join(f"{line}\n" for line in lines or [head]).encode())

    def add(self, found: list[tuple[str, np.ndarray, str]]) -> None:
        """Append answers: key, row and reason."""
        plain = [
            (key, [x if math.isfinite(x) else None for x in row.tolist()], why)
            for key, row, why in found
        ]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in plain))


def _carried_out(packed: bytes) -> bytes:
    """What another process does with a piece."""
    function, piece = pickle.loads(packed)
    return pickle.dumps(function(piece))


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "scheduler= needs the package distributed: install it with pip install distributed, or "
            "give workers= instead"
        ) from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
        client.wait_for_workers(1, timeout=PATIENCE)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"no Dask scheduler with a worker answers at {address!r} ({error}): start both with "
            "dask scheduler and dask worker, and give the address that the former prints"
        ) from error
    return client


def _start() -> None:
    """In every new process: one thread, and an end when the parent ends."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent leaves nobody to answer to


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """New processes read from the environment how many threads they may start."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
