"""The book's tools are scripts, not a package: make them importable, and find what was built."""

import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "book" / "_tools"))


@pytest.fixture(scope="session")
def repo():
    return REPO


@pytest.fixture(scope="session")
def html():
    """The built site; tests that need it are skipped where it is missing or out of date.

    `.ci/run` has just built it, sets IMD_BOOK_BUILT, and gets a failure instead.
    """
    import build

    done = build.BUILD / "done.key"
    for name, value in build.ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not done.is_file():
        problem = "the book is not built: run `make book` first"
    elif done.read_text() != build.digest(build.everything()):
        problem = "the built book is older than its sources: run `make book` first"
    else:
        return build.HTML
    if os.environ.get("IMD_BOOK_BUILT"):
        pytest.fail(problem)
    pytest.skip(problem)
