"""Write a plain notebook beside each chapter, for Colab, Binder and classes.

The sources are MyST Markdown; hosted notebooks show plain Markdown only. ``plain_notebook``
resolves the markup, this file adds the setup cell and writes. The same sources give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from bookfiles import (
    REPO,
    Address,
    BookError,
    Page,
    read_address,
    read_config,
    read_extras,
    read_pages,
)
from citations import References
from numbering import read_labels
from plain_notebook import Cell, Exporter, Surroundings, page_title

METADATA = {
    "accelerator": "GPU",
    "colab": {"gpuType": "T4", "toc_visible": True},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A failed %pip raises nothing, so the cell looks again and says what to do.
INSTALL = """import importlib.util

if importlib.util.find_spec("imd_helpers") is None:
    %pip install -q "{package} @ {source}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("imd_helpers") is None:
        raise SystemExit(
            "imd_helpers could not be installed from\\n    {source}\\n"
            "Is there a network, and is the book published at that address yet?\\n"
            "With a copy of it on your disk: %pip install '/path/to/the/copy{extras}'"
        )

import imd_helpers as imd"""


def main() -> int:
    try:
        notebooks = export_all()
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    for path, text in notebooks.items():
        old = path.read_text("utf-8") if path.is_file() else ""
        path.write_text(text, "utf-8", newline="\n")
        print(f"{'unchanged' if old == text else 'written  '} {path.relative_to(REPO)}")
    for path in orphans(notebooks):
        path.unlink()
        print(f"removed   {path.relative_to(REPO)}: no chapter of that name")
    return 0


def export_all(repo: Path = REPO) -> dict[Path, str]:
    """The text of every notebook, by path.

    Raises:
        BookError: a chapter holds markup that a plain notebook cannot show, or a wrong reference.
    """
    pages = read_pages(repo)
    around = Surroundings(
        root=repo / "book",
        labels=read_labels(pages),
        references=References(repo / "book" / "references.bib"),
        address=read_address(repo),
        titles={page.name: page_title(page) for page in pages},
        chapters={page.name for page in pages if page.is_chapter},
    )
    book = read_config(repo)["title"]
    return {
        page.path.with_suffix(".ipynb"): as_notebook(
            [*setup_cells(page, around.address, book), *Exporter(page, around).run()]
        )
        for page in pages
        if page.is_chapter
    }


def orphans(notebooks: dict[Path, str], repo: Path = REPO) -> list[Path]:
    """Notebooks in the book whose chapter is gone."""
    return [path for path in sorted((repo / "book").rglob("*.ipynb")) if path not in notebooks]


def setup_cells(page: Page, address: Address, book: str) -> list[Cell]:
    """Launch badges, and a cell that installs the package where it is not there yet."""
    notebook = f"{page.name}.ipynb"
    badges = (
        "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        f"({address.colab(notebook)})\n"
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({address.binder(notebook)})\n\n"
        f"This notebook is a chapter of [*{book}*]({address.url}).\n"
        "Run the next cell first: it installs what is missing.\n"
        "Solutions of the exercises are in the book."
    )
    extras = ",".join(read_extras(page))
    package = f"imd-helpers[{extras}]" if extras else "imd-helpers"
    source = f"git+{address.url}@{address.branch}"
    install = INSTALL.format(package=package, source=source, extras=package[11:])
    return [Cell("markdown", badges), Cell("code", install, ["setup"])]


def as_notebook(cells: list[Cell]) -> str:
    """Cells as the text of an ``.ipynb`` file, without outputs; ids follow from the contents."""
    notebook = {
        "cells": [as_json(index, cell) for index, cell in enumerate(cells)],
        "metadata": METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def as_json(index: int, cell: Cell) -> dict[str, object]:
    """One cell as nbformat wants it."""
    content: dict[str, object] = {
        "cell_type": cell.kind,
        "id": hashlib.sha256(f"{index}\n{cell.source}".encode()).hexdigest()[:12],
        "metadata": {"tags": cell.tags} if cell.tags else {},
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.kind == "code":
        content |= {"execution_count": None, "outputs": []}
    return content


if __name__ == "__main__":
    sys.exit(main())
