"""What the build and the export both need to know: pages, their order and numbers, the address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

REPO = Path(__file__).resolve().parents[2]


class BookError(Exception):
    """Something in the book's sources is wrong; the message names the file and what to do."""


@dataclass(frozen=True)
class Page:
    """One entry of ``_toc.yml``: its name there, its source file, its chapter number if any."""

    name: str
    path: Path
    number: int | None

    @property
    def is_chapter(self) -> bool:
        """Does this page hold code cells to execute, and so have a notebook beside it?"""
        return self.path.suffix == ".md" and "format_name: myst" in _front_matter(self.path)


@dataclass(frozen=True)
class Address:
    """Where the book's repository is on the web; ``_config.yml`` is the only place that says it."""

    url: str
    branch: str
    folder: str

    @property
    def slug(self) -> str:
        """``owner/name``."""
        return urlparse(self.url).path.strip("/")

    def page(self, path: str) -> str:
        """The page that shows a file, given its path in the repository."""
        return f"{self.url}/blob/{self.branch}/{path}"

    def raw(self, path: str) -> str:
        """The bytes of a file, given its path in the repository."""
        return f"{self.url}/raw/{self.branch}/{path}"

    def colab(self, path: str) -> str:
        """The address that opens a notebook in Colab, given its path in the book."""
        host = "https://colab.research.google.com/github"
        return f"{host}/{self.slug}/blob/{self.branch}/{self.folder}/{path}"

    def binder(self, path: str) -> str:
        """The address that opens a notebook in Binder, given its path in the book."""
        host = "https://mybinder.org/v2/gh"
        return f"{host}/{self.slug}/{self.branch}?urlpath=lab/tree/{self.folder}/{path}"


def read_config(repo: Path = REPO) -> dict[str, Any]:
    """``_config.yml`` as a dictionary."""
    return yaml.safe_load((repo / "_config.yml").read_text("utf-8"))


def read_address(repo: Path = REPO) -> Address:
    """The repository's address from the ``repository`` block of ``_config.yml``."""
    block = read_config(repo)["repository"]
    return Address(block["url"].rstrip("/"), block["branch"], block["path_to_book"].strip("/"))


def read_pages(repo: Path = REPO) -> list[Page]:
    """The pages of ``book/_toc.yml`` in order, chapters numbered through as Jupyter Book does.

    Raises:
        BookError: the table of contents names a page that does not exist, or nests sections.
    """
    toc = yaml.safe_load((repo / "book" / "_toc.yml").read_text("utf-8"))
    pages = [_page(repo, toc["root"], None)]
    number = 0
    for part in toc.get("parts", [{"chapters": toc.get("chapters", [])}]):
        for entry in part["chapters"]:
            if set(entry) != {"file"}:
                raise BookError(f"_toc.yml: {entry} must hold a file and nothing else")
            number += bool(part.get("numbered"))
            pages.append(_page(repo, entry["file"], number if part.get("numbered") else None))
    return pages


def read_extras(page: Page) -> tuple[str, ...]:
    """Extras of `pyproject.toml` that a chapter needs beyond the core, from its front matter."""
    header = yaml.safe_load(_front_matter(page.path).removeprefix("---\n")) or {}
    return tuple(header.get("extras", []))


def _page(repo: Path, name: str, number: int | None) -> Page:
    path = repo / "book" / f"{name.removesuffix('.md')}.md"
    if not path.is_file():
        raise BookError(f"_toc.yml names {name}, but there is no {path}: write it or remove it")
    return Page(name.removesuffix(".md"), path, number)


def _front_matter(path: Path) -> str:
    text = path.read_text("utf-8")
    return text.split("\n---", 1)[0] if text.startswith("---\n") else ""
