"""What all experiments share: folders, files, going on where one stopped, stamps, command line.

    python experiments/SCRIPT.py [TASK [ARGUMENT ...]]

A script lists its tasks in ``TASKS``: functions that take what follows their name as text.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from imd_helpers.runtime import device_name, version
from imd_helpers.work import Workers, write_atomic

REPO = Path(__file__).resolve().parents[1]
DATA = REPO / "data"
CHECKPOINTS = DATA / "checkpoints"
BUILD = REPO / "_build"  # pieces of unfinished work
Row = dict[str, Any]


# ---- files


def read(path: Path, default: Any = None) -> Any:
    """What a JSON file holds; the default where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def write_text(path: Path, text: str) -> None:
    """Write a file in one go: the old one stays whole until the new one is complete."""
    write_atomic(path, text.encode())
    print(f"wrote {path.parent.name}/{path.name}", flush=True)


def write(path: Path, record: Any, *, indent: int | None = 1) -> None:
    """Write JSON in one go."""
    write_text(path, json.dumps(record, indent=indent, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write an ``npz`` file in one go."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path, content.getvalue())


# ---- going on where one stopped


def once(path: Path, make: Callable[..., Any], *arguments: Any) -> Any:
    """What ``make`` returns for the arguments: computed once, then read from the file.

    An ``npz`` file holds named arrays, a ``pickle`` anything, any other what JSON can hold.
    """
    if not path.exists():
        began = time.process_time()
        made = make(*arguments)
        if path.suffix == ".npz":
            write_arrays(path, **made)
        elif path.suffix == ".pickle":
            write_atomic(path, pickle.dumps(made))
        else:
            write(path, made, indent=None)
        print(f"{path.stem}: {time.process_time() - began:.0f} s", flush=True)
    if path.suffix == ".pickle":
        return pickle.loads(path.read_bytes())
    return dict(np.load(path)) if path.suffix == ".npz" else read(path)


def said(potential: str, crystals: Any) -> dict[str, np.ndarray]:
    """Energies, eV/atom, of crystals that are known to be real, to be kept by `once`."""
    from imd_helpers.energies import potentials

    return {"energy": potentials.potential(potential).energies(crystals, gate=None)}


def fill(
    path: Path,
    keys: Sequence[str],
    jobs: Sequence[tuple],
    make: Callable[..., Row],
    *,
    about: Row | None = None,
    under: str = "runs",
    processes: int = 1,
) -> None:
    """Add a row for each job that a record lacks, in the order of the jobs; written after each.

    Several commands may work on different jobs: the record is read again before each row.

    Args:
        path: the record.
        keys: what the values of a job are called in its row.
        jobs: values of the keys.
        make: the rest of the row, from the values of a job.
        about: what the record says beside its rows.
        under: the name of the rows.
        processes: how many jobs at once.
    """

    def place(row: Row) -> int:
        job = tuple(row[key] for key in keys)
        return jobs.index(job) if job in jobs else len(jobs)

    def there() -> list[Row]:
        return read(path, {}).get(under, [])

    done = [tuple(row[key] for key in keys) for row in there()]
    todo = [job for job in jobs if job not in done]
    with Workers(processes) as where:
        for k, found in where.map(_made, [(make, job) for job in todo], len(todo)):
            rows = [*there(), dict(zip(keys, todo[k], strict=True)) | found]
            write(path, read(path, {}) | (about or {}) | {under: sorted(rows, key=place)})


def rows(
    path: Path,
    jobs: Sequence[tuple] | Callable[..., Sequence[tuple]],
    *,
    about: Row | Callable[[], Row] | None = None,
    under: str = "",
) -> Callable[[Callable[..., Row]], Callable[..., None]]:
    """Make the function of a job a task, which fills a record with the rows that it returns.

    Its parameters name the keys of a job. Jobs that wait for a chapter or for the command line are
    a function of what follows the task's name. Rows are called as the task, or as ``under`` says.
    """

    def task_of(make: Callable[..., Row]) -> Callable[..., None]:
        keys, name = tuple(inspect.signature(make).parameters), under or make.__name__

        @wraps(make)
        def task(*given: str) -> None:
            some = jobs(*given) if callable(jobs) else jobs
            told = about() if callable(about) else about
            fill(path, keys, some, make, about=told, under=name.format(*given))

        return task

    return task_of


def _made(task: tuple[Callable[..., Row], tuple]) -> Row:
    make, job = task
    return make(*job)


def train(kind: Any, variant: str, *, seed: int = 0, progress: bool = True) -> tuple[Any, Any]:
    """A model at the profile `full`, and its history; goes on where it was interrupted.

    Seed 0 leaves weights and run.json to be committed, others leave theirs in `_build`.
    """
    from imd_helpers import judge

    name = f"{kind.name}-{variant}"
    folder = BUILD / f"{name}-{seed}" if seed else CHECKPOINTS / name
    keep = getattr(judge, kind.KEPT_BY[variant]) if variant in kind.KEPT_BY else None
    how = {"profile": "full", "folder": folder, "resume": True, "seed": seed, "keep": keep}
    trained = kind.train(variant, **how, progress=progress)
    for file in ("training.safetensors", ".lock") if seed == 0 else ():
        (folder / file).unlink(missing_ok=True)
    return trained


# ---- what the page shows


@cache
def chapter(page: str, *, until: str) -> ModuleType:
    """Run the code of a chapter up to a line of it; its data, networks and measures by name.

    An experiment trains what the page shows, for longer: it has no copy of it.

    Args:
        page: path below `book/`, without suffix.
        until: the line, a heading or the first line of a cell.
    """
    os.environ.setdefault("MPLBACKEND", "agg")
    os.environ["IMD_PROFILE"] = "smoke"
    text = (REPO / "book" / f"{page}.md").read_text(encoding="utf-8")
    before, found, _ = text.partition(f"\n{until}\n")
    if not found:
        raise ValueError(f"{page}.md has no line {until!r}: name another one of the page")
    names = ModuleType(page)
    for cell in re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", before, flags=re.M | re.S):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code_of(cell), f"{page}.md", "exec"), vars(names))
    return names


def code_of(cell: str) -> str:
    """What a cell runs, without the options above it."""
    return re.sub(r"\A(---\n.*?^---\n|(:\w[^\n]*\n)+)", "", cell, flags=re.M | re.S)


# ---- numbers


def rounded(value: Any, digits: int = 5) -> Any:
    """The same with so many digits after the point, and None for NaN, however deep inside."""
    if isinstance(value, dict):
        return {key: rounded(each, digits) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [rounded(each, digits) for each in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(float(value), digits)
    return value


def table_rows(table: Any) -> list[Row]:
    """A table with its index as plain numbers."""
    return json.loads(table.reset_index().to_json(orient="records", double_precision=6))


# ---- where and by which code


def stamp(*packages: str) -> Row:
    """Device, threads, the hash of the package's code, and versions."""
    import torch

    from imd_helpers.networks.checkpoint import source_hash

    return {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "code_sha256": source_hash(),
        "versions": {name: version(name) for name in ("imd-helpers", "torch", *packages)},
    }


def one_thread() -> None:
    """Recorded times and numbers are those of one thread."""
    import torch

    torch.set_num_threads(1)


def command(tasks: Sequence[Callable[..., Any]], usage: str | None) -> None:
    """Run the task that the command line names; the name of a single task may be left out."""
    names = {task.__name__: task for task in tasks}
    given = sys.argv[1:]
    if len(names) == 1 and (not given or given[0] not in {*names, "--help"}):
        given = [*names, *given]
    if not given or given[0] not in names:
        sys.exit(usage)
    one_thread()
    names[given[0]](*given[1:])
