"""Build the book: execute the chapters in parallel, draw the pages, and check what came out.

Chapters are executed only if their code, the package, the data, the lock or the profile changed.
The exit status is 0 only if every cell ran, no warning was given, and every page is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
from bookfiles import REPO, BookError, Page, read_config, read_pages

BUILD = REPO / "_build"
HTML = BUILD / "html"
CACHE = BUILD / ".jupyter_cache"
WORKERS = 2
BUDGET_S, LIMIT_S = 60, 180  # smoke: a chapter should take the first, and in CI not the second
SMALLEST_PAGE = 5_000  # bytes; a page that is only a frame is smaller than its frame
# One thread a kernel, as two chapters run at once; a fixed hash seed, so that sets print alike.
# A page has no kernel, so what moves becomes a strip of pictures.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "IMD_PROFILE": "smoke",
    "IMD_STATIC": "1",
}


@dataclass
class Run:
    """One executed chapter."""

    page: Page
    notebook: nbformat.NotebookNode
    seconds: float
    error: str | None = None
    cached: bool = False


def main() -> int:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    started = time.perf_counter()
    try:
        pages = read_pages()
        done = BUILD / "done.key"
        key = digest(everything())
        if done.is_file() and done.read_text() == key and not missing_pages(pages):
            print("Nothing changed since the last build.")
        else:
            done.unlink(missing_ok=True)
            build(pages)
            done.write_text(key)
    except BookError as error:
        print(f"\nThe book was not built.\n{error}", file=sys.stderr)
        return 1
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    print(f"\nThe book is built: {len(pages)} pages, {minutes} min {seconds} s.")
    print(f"  open it     {(HTML / 'index.html').as_uri()}")
    print("  or serve it .venv/bin/python -m http.server 8000 --directory _build/html")
    return 0


def build(pages: list[Page]) -> None:
    """Execute, draw, check.

    Raises:
        BookError: a cell failed, a warning was given, or a page is missing.
    """
    forget_stale_outputs()
    report(execute([page for page in pages if page.is_chapter]))
    draw()
    problems = [*missing_pages(pages), *failed_cells(), *error_logs()]
    if problems:
        raise BookError("\n".join(problems))


# --- what was the input


def everything() -> Iterator[Path]:
    """All files that a page can depend on."""
    yield from execution_inputs()
    yield from tree(REPO / "book")
    yield from (REPO / "_config.yml", REPO / "pyproject.toml")


def execution_inputs() -> Iterator[Path]:
    """Files outside a chapter that can change its outputs: Jupyter's own cache ignores them."""
    yield from tree(REPO / "imd_helpers")
    yield from tree(REPO / "data")
    yield REPO / "requirements.lock"


def tree(folder: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, without what Python and Jupyter leave behind."""
    skip = {"__pycache__", ".ipynb_checkpoints", ".jupyter_cache"}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not skip & set(path.parts):
            yield path


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, the profile and the version of Python."""
    total = hashlib.sha256(f"{os.environ['IMD_PROFILE']} {sys.version}".encode())
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"\n{path.relative_to(REPO)} {content}".encode())
    return total.hexdigest()


def forget_stale_outputs() -> None:
    """Drop the execution cache if the package, the data, the lock or the profile changed."""
    BUILD.mkdir(exist_ok=True)
    stamp, key = BUILD / "execution.key", digest(execution_inputs())
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(CACHE, ignore_errors=True)
        stamp.write_text(key)


# --- execution


def execute(chapters: list[Page]) -> list[Run]:
    """Run the chapters that are not in the cache, two at a time, and put them there.

    Raises:
        BookError: a cell raised an error or took too long.
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    cache = get_cache(CACHE)
    runs, waiting = [], []
    for page in chapters:
        notebook = read_notebook(page)
        try:
            record = cache.match_cache_notebook(notebook)
        except KeyError:
            waiting.append((page, notebook))
        else:
            runs.append(Run(page, notebook, record.data["execution_seconds"], cached=True))
    print(f"Chapters: {len(runs)} unchanged, {len(waiting)} to execute", flush=True)
    with ProcessPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(execute_one, page, notebook) for page, notebook in waiting]
        for job in as_completed(jobs):
            run = job.result()
            runs.append(run)
            print(
                f"  {run.page.name}: {'FAILED' if run.error else f'{run.seconds:.0f} s'}",
                flush=True,
            )
            if run.error is None:
                bundle = CacheBundleIn(
                    run.notebook, str(run.page.path), data={"execution_seconds": run.seconds}
                )
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    failures = [f"{run.page.path}\n{run.error}" for run in runs if run.error]
    if failures:
        raise BookError("\n\n".join(failures))
    return runs


def read_notebook(page: Page) -> nbformat.NotebookNode:
    """A chapter as the builder will read it, so that the cache knows it again."""
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    extensions = read_config()["parse"]["myst_enable_extensions"]
    config = MdParserConfig(enable_extensions=set(extensions))
    return read_myst_markdown_notebook(page.path.read_text("utf-8"), config, path=page.path)


def execute_one(page: Page, notebook: nbformat.NotebookNode, *, timeout: int | None = None) -> Run:
    """Run one chapter in its own kernel, in its own folder; seconds that a cell may take."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    timeout = timeout or notebook.metadata.get("mystnb", {}).get(
        "execution_timeout", read_config()["execute"]["timeout"]
    )
    settings = {
        "timeout": timeout,
        "resources": {"metadata": {"path": str(page.path.parent)}},
        "record_timing": False,  # times in the metadata would change the cache's key
        "extra_arguments": ["--IPKernelApp.log_level=ERROR"],
    }
    started = time.perf_counter()
    error = None
    try:
        NotebookClient(notebook, **settings).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as problem:
        error = re.sub(r"\x1b\[[0-9;]*m", "", str(problem))  # no colours in a log
    return Run(page, notebook, time.perf_counter() - started, error)


def report(runs: list[Run]) -> None:
    """Print the time of each chapter.

    Raises:
        BookError: in CI, a chapter took longer than it may in the smoke profile.
    """
    if not runs:
        return
    profile = os.environ["IMD_PROFILE"]
    print(f"\nExecution time, profile {profile}, {WORKERS} at once")
    for run in sorted(runs, key=lambda run: run.page.name):
        late = "  over the budget of 60 s" if profile == "smoke" and run.seconds > BUDGET_S else ""
        note = "  (from the cache)" if run.cached else ""
        print(f"  {run.seconds:6.1f} s  {run.page.name}{note}{late}")
    slow = [run.page.name for run in runs if run.seconds > LIMIT_S]
    if slow and profile == "smoke" and os.environ.get("CI"):
        raise BookError(f"{', '.join(slow)}: over {LIMIT_S} s; smoke must be small enough for CI")


# --- pages


def draw() -> None:
    """Run Jupyter Book over all pages, warnings being errors.

    Always all of them and from nothing: an incremental build forgets warnings of the last one and
    keeps pages that no longer exist.

    Raises:
        BookError: Jupyter Book failed or warned.
    """
    print("\nDrawing the pages", flush=True)
    for folder in (HTML, BUILD / ".doctrees", BUILD / "jupyter_execute"):
        shutil.rmtree(folder, ignore_errors=True)
    tool = Path(sys.executable).parent / "jupyter-book"
    command = [str(tool), "build", "book", "-W", "--keep-going", "--all", "-q"]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = f"{result.stdout}\n{result.stderr}".splitlines()
        told = [line for line in lines if "WARNING" in line or "ERROR" in line]
        raise BookError("\n".join(told or lines[-40:]))


def missing_pages(pages: list[Page]) -> list[str]:
    """Pages of the table of contents that are not in the built site, or are all but empty."""
    problems = []
    for page in pages:
        path = HTML / f"{page.name}.html"
        if not path.is_file():
            problems.append(f"{path.relative_to(REPO)} was not built")
        elif path.stat().st_size < SMALLEST_PAGE:
            problems.append(f"{path.relative_to(REPO)} is only {path.stat().st_size} bytes")
    return problems


def failed_cells() -> list[str]:
    """Cells whose output is an error that the chapter does not announce by a tag."""
    problems = []
    for path in sorted((BUILD / "jupyter_execute").rglob("*.ipynb")):
        for index, cell in enumerate(nbformat.read(path, as_version=4).cells):
            expected = "raises-exception" in cell.metadata.get("tags", [])
            for output in cell.get("outputs", []):
                if output.output_type == "error" and not expected:
                    problems.append(f"{path.stem}, cell {index}: {output.ename}: {output.evalue}")
    return problems


def error_logs() -> list[str]:
    """Reports that the builder wrote about failed executions."""
    logs = sorted((HTML / "reports").glob("*.err.log"))
    return [f"{path.relative_to(REPO)}:\n{path.read_text('utf-8')}" for path in logs]


if __name__ == "__main__":
    sys.exit(main())
