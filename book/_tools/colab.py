"""Run chapters in the profile `colab`, one after the other, and record time and outcome.

`make colab` runs all; `python book/_tools/colab.py 3_networks/gan` runs one and keeps what is
recorded of the others. The solutions of the exercises run too. `--table` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bookfiles import REPO, Page, read_pages
from build import ENVIRONMENT, Run, execute_one, read_notebook
from plain_notebook import page_title

FOLDER = REPO / "book" / "_runs"
RECORD, TABLE = FOLDER / "colab.json", FOLDER / "colab_table.md"
LONGEST_CELL_S = 7200  # a cell made for a GPU takes long on two cores

Record = dict[str, dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("pages", nargs="*", help="as in _toc.yml, such as 3_networks/gan; or all")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table anew")
    asked = parser.parse_args()
    chapters = [page for page in read_pages() if page.is_chapter]
    unknown = set(asked.pages) - {page.name for page in chapters}
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such chapter in book/_toc.yml")
    failed = 0
    for page in chapters:
        if not asked.table and page.name in (asked.pages or [page.name]):
            run = execute(page)
            failed += run.error is not None
            save(load() | {page.name: describe(run)})
            print(f"{page.name}: {run.seconds:.0f} s, {run.error or 'passed'}", flush=True)
    write(TABLE, table(chapters, load()))
    return int(failed > 0)


def execute(page: Page) -> Run:
    """One chapter in the profile `colab`, with all cores that are there."""
    os.environ.update(ENVIRONMENT | {"IMD_PROFILE": "colab"})
    os.environ.pop("OMP_NUM_THREADS", None)
    return execute_one(page, read_notebook(page), timeout=LONGEST_CELL_S)


def describe(run: Run) -> dict[str, Any]:
    """What is kept of a run."""
    last = (run.error or "").strip().splitlines()
    return {
        "seconds": round(run.seconds),
        "outcome": "failed" if run.error else "passed",
        "error": last[-1] if last else None,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "revision": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "-s") else ""),
        "device": device(),
    }


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=REPO, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def device() -> str:
    """The GPU if there is one, otherwise how many cores of which kind."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} cores, {platform.machine()}"


def load() -> Record:
    return json.loads(RECORD.read_text("utf-8"))


def save(record: Record) -> None:
    write(RECORD, json.dumps(dict(sorted(record.items())), indent=1, ensure_ascii=False) + "\n")


def write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="\n")


def table(chapters: list[Page], record: Record) -> str:
    """What is recorded, as a table for the page *How to use this book*."""
    lines = ["| Chapter | Outcome | Minutes | On | Code of |", "| --- | --- | --- | --- | --- |"]
    for page in chapters:
        name = f"[{page.number}. {page_title(page)}](/{page.name}.md)"
        run = record.get(page.name)
        if run is None:
            lines.append(f"| {name} | not run yet | | | |")
            continue
        outcome = run["outcome"] if run["error"] is None else f"failed: `{run['error'][:60]}`"
        when = f"{run['date']}, `{run['revision']}`"
        lines.append(
            f"| {name} | {outcome} | {run['seconds'] / 60:.1f} | {run['device']} | {when} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
