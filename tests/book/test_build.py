"""The build fails when it should, and does nothing when there is nothing to do."""

import os
import shutil
import subprocess
import sys

import pytest

CHAPTER = """---
jupytext:
  text_representation:
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Chapter

```{code-cell} ipython3
from pathlib import Path

with Path("../executions").open("a") as file:
    file.write("x")
print("value", Path("../data/value.txt").read_text())
```
"""
CONFIG = """title: Small
author: Nobody
only_build_toc_files: true
execute: {execute_notebooks: cache, timeout: 60, raise_on_error: true}
parse: {myst_enable_extensions: [colon_fence, dollarmath]}
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory, repo):
    """A book of two pages with the project's own build script."""
    root = tmp_path_factory.mktemp("small")
    shutil.copytree(repo / "book" / "_tools", root / "book" / "_tools")
    for folder in ("imd_helpers", "data"):
        (root / folder).mkdir()
    (root / "data" / "value.txt").write_text("one")
    (root / "_config.yml").write_text(CONFIG)
    for name in ("requirements.lock", "pyproject.toml"):
        (root / name).write_text("")
    toc = "format: jb-book\nroot: index\nchapters:\n  - file: chapter\n"
    (root / "book" / "_toc.yml").write_text(toc)
    (root / "book" / "index.md").write_text("# Start\n")
    (root / "book" / "chapter.md").write_text(CHAPTER)
    return root


def build(book, **extra):
    script = book / "book" / "_tools" / "build.py"
    return subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"IMD_PROFILE": "smoke"} | extra,
        capture_output=True,
        text=True,
        check=False,
    )


def output(book):
    return (book / "_build" / "html" / "chapter.html").read_text("utf-8")


def test_the_life_of_a_book(book):
    """Builds, rests, follows its data, fails loudly, and fails again."""
    chapter = book / "book" / "chapter.md"

    first = build(book)
    assert first.returncode == 0, first.stderr
    assert "1 to execute" in first.stdout
    assert "index.html" in first.stdout
    assert "value one" in output(book)
    assert (book / "executions").read_text() == "x"  # the builder found it in the cache

    again = build(book)
    assert again.returncode == 0
    assert "Nothing changed" in again.stdout

    (book / "data" / "value.txt").write_text("two")
    changed = build(book)
    assert changed.returncode == 0, changed.stderr
    assert "1 to execute" in changed.stdout  # Jupyter's own cache would have kept "value one"
    assert "value two" in output(book)

    chapter.write_text(CHAPTER.replace("print(", "raise ValueError("))
    for _ in range(2):  # an incremental build must not forget the failure
        broken = build(book)
        assert broken.returncode == 1
        assert "ValueError" in broken.stderr
        assert "chapter.md" in broken.stderr

    chapter.write_text(CHAPTER + "\nSee {ref}`nowhere`.\n")
    for _ in range(2):
        warned = build(book)
        assert warned.returncode == 1
        assert "nowhere" in warned.stderr


def test_a_page_that_is_all_but_empty_is_a_problem(monkeypatch, tmp_path):
    import build as script
    from bookfiles import Page

    html = tmp_path / "_build" / "html"
    html.mkdir(parents=True)
    (html / "short.html").write_text("<p>")
    monkeypatch.setattr(script, "REPO", tmp_path)
    monkeypatch.setattr(script, "HTML", html)
    pages = [Page(name, tmp_path / f"{name}.md", None) for name in ("short", "absent")]
    short, absent = script.missing_pages(pages)
    assert "short.html is only 3 bytes" in short
    assert "absent.html was not built" in absent


def test_a_slow_chapter_fails_in_ci_and_only_there(monkeypatch, tmp_path, capsys):
    import build as script
    from bookfiles import BookError, Page

    run = script.Run(Page("slow", tmp_path, 1), None, seconds=181.0)
    monkeypatch.setenv("IMD_PROFILE", "smoke")
    monkeypatch.delenv("CI", raising=False)
    script.report([run])
    assert "over the budget" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    with pytest.raises(BookError, match="slow: over 180 s"):
        script.report([run])
