"""Pieces of work: in this process, in several, or on a cluster; each kept on disk when done.

A piece that is done is written to a file of its own, complete or not at all. A run that was killed
finds the pieces of its predecessor and goes on with the others. The folder's name is a hash of the
samples and of everything that the verdicts depend on, so pieces of another run are never taken.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from ..crystals import CrystalBatch
from ..runtime import InputError
from .checks import Answer, Task, run

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PATIENCE = 10  # s, for a scheduler to answer
MOST_ON_THE_WAY = 4  # pieces a worker may have waiting: all at once would fill the memory


class Workers:
    """Where tasks are carried out.

    Args:
        workers: processes on this machine; 1 works in this process.
        scheduler: address of a Dask scheduler; then ``workers`` must stay 1.

    Raises:
        InputError: a number of workers below 1, both kinds at once, no Dask, or nobody there.
    """

    def __init__(self, workers: int = 1, scheduler: str | None = None) -> None:
        if workers < 1:
            raise InputError(f"workers = {workers}: at least one process does the work")
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

    @property
    def many(self) -> bool:
        """Is there more than this process?"""
        return self.workers > 1 or self._client is not None

    def warm_up(self) -> None:
        """Start the processes: they load their libraries while this one does something else."""
        if self.workers > 1:
            with _one_thread_each():
                for _ in range(self.workers):
                    self._executor().submit(_ready)

    def answers(self, tasks: Iterable[Task], n: int) -> Iterator[tuple[int, Answer]]:
        """(place of the task, its answer), in the order in which they are done.

        Args:
            tasks: made one by one, not before a worker has room for them.
            n: how many there are.
        """
        if self._client is not None and n:
            yield from self._from_cluster(tasks)
        elif self.workers > 1 and n > 1:
            yield from self._from_processes(tasks)
        else:
            for i, task in enumerate(tasks):
                yield i, run(task)

    def _executor(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: a forked copy of a process in which torch or numba have threads may hang
            self._pool = ProcessPoolExecutor(self.workers, get_context("spawn"), _start)
        return self._pool

    def _from_processes(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Answer]]:
        waiting = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        try:
            with _one_thread_each():
                while True:
                    for i, task in waiting:
                        running[self._executor().submit(run_packed, task)] = i
                        if len(running) >= MOST_ON_THE_WAY * self.workers:
                            break
                    if not running:
                        return
                    done = next(as_completed(running))
                    yield running.pop(done), unpacked(done.result())
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {self.workers} worker processes died; finished pieces are in the cache, "
                "if there is one. Either no memory was left (take fewer workers), or a script "
                "starts processes without the line: if __name__ == '__main__':"
            ) from error

    def _from_cluster(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Answer]]:
        from distributed import KilledWorker
        from distributed import as_completed as completed

        waiting = iter(enumerate(tasks))
        place: dict[str, int] = {}
        first = max(1, MOST_ON_THE_WAY * sum(self._client.nthreads().values()))

        def submit() -> Any:
            for i, task in waiting:
                future = self._client.submit(run_packed, task, pure=False)
                place[future.key] = i
                return future
            return None

        started = [f for f in (submit() for _ in range(first)) if f is not None]
        queue = completed(started, loop=self._client.loop)
        try:
            for future in queue:
                yield place[future.key], unpacked(future.result())
                following = submit()
                if following is not None:
                    queue.add(following)
        except KilledWorker as error:
            raise InputError(
                f"a worker of the cluster died again and again ({error}): give it more memory. "
                "Finished pieces are in the cache, if there is one"
            ) from error


def run_packed(task: Task) -> dict[str, np.ndarray]:
    """Carry out a task; what one process does. The answer travels as plain arrays."""
    return packed(run(task), task.rows)


def packed(answer: Answer, rows: np.ndarray) -> dict[str, np.ndarray]:
    """An answer as arrays that a file can hold."""
    arrays = {"ok": answer.ok, "rows": rows, "seconds": np.array(answer.seconds)}
    arrays["reasons"] = np.array(json.dumps(answer.reasons))
    arrays |= {f"value {name}": values for name, values in answer.values.items()}
    if answer.crystals is not None:
        arrays["lattice"] = answer.crystals.lattice.numpy()
        arrays["frac"] = answer.crystals.frac.numpy()
        arrays["numbers"] = answer.crystals.numbers.numpy()
    return arrays


def unpacked(arrays: dict[str, np.ndarray]) -> Answer:
    """What `packed` made."""
    crystals = None
    if "lattice" in arrays:
        parts = (torch.from_numpy(np.array(arrays[k])) for k in ("lattice", "frac", "numbers"))
        crystals = CrystalBatch(*parts)
    return Answer(
        arrays["ok"],
        {int(i): why for i, why in json.loads(str(arrays["reasons"])).items()},
        {k.removeprefix("value "): v for k, v in arrays.items() if k.startswith("value ")},
        crystals,
        float(arrays["seconds"]),
    )


class Pieces:
    """Answers on disk, one file a piece.

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
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / ".writable", b"")
        except OSError as error:
            raise InputError(
                f"the cache {folder} cannot be written ({error}): choose another folder"
            ) from error

    def read(self, name: str, rows: np.ndarray) -> Answer | None:
        """The answer of a piece about these rows; None if it is not there or was damaged."""
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
                arrays = dict(file)
            return unpacked(arrays) if np.array_equal(arrays["rows"], rows) else None
        except (OSError, ValueError, KeyError, BadZipFile, EOFError):
            return None

    def write(self, name: str, answer: Answer, rows: np.ndarray) -> None:
        """Keep an answer; the file appears only when it is complete."""
        if self.folder is None:
            return
        from io import BytesIO

        blob = BytesIO()
        np.savez(blob, **packed(answer, rows))
        write(self.folder / f"{name}.npz", blob.getvalue())


def write(path: Path, content: bytes) -> None:
    """Write a file that appears only when it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


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
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent leaves nobody to answer to


def _ready() -> None:
    """Nothing: the imports of this module are what a new process has to do first."""


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
