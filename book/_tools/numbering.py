"""Numbers and labels of equations, figures, tables and exercises, as the built book gives them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bookfiles import BookError, Page
from myst_text import Block, Directive, Math, Prose, Target, blocks, split_front_matter

# Directives that hold further Markdown; the value is the title of those that have a fixed one.
ADMONITIONS = {
    "note": "Note",
    "tip": "Tip",
    "hint": "Hint",
    "important": "Important",
    "warning": "Warning",
    "caution": "Caution",
    "danger": "Danger",
    "attention": "Attention",
    "error": "Error",
    "seealso": "See also",
    "margin": "",
    "sidebar": "",
    "admonition": "",
    "dropdown": "",
    "card": "",
    "tab-item": "",
}
TRANSPARENT = {"div", "container", "tab-set", "grid", "grid-item"}
HEADING = re.compile(r"^(?P<marks>#{1,6}) +(?P<title>.+?) *$")


@dataclass(frozen=True)
class Label:
    """What a reference to a label turns into."""

    kind: str  # equation, figure, table, exercise, section
    number: str
    title: str
    page: str


class Numbering:
    """Counts equations, figures, tables and exercises of one chapter as the built book does."""

    def __init__(self, chapter: int | None) -> None:
        self.prefix = f"{chapter}." if chapter else ""
        self.counts: dict[str, int] = {}

    def next(self, kind: str) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return f"{self.prefix}{self.counts[kind]}"


def figure_of(directive: Directive) -> dict[str, Any]:
    """The figure settings of a code cell: name and caption, or nothing."""
    return directive.options.get("mystnb", {}).get("figure", {})


def walk(found: Iterable[Block], file: str) -> Iterable[Block]:
    """All blocks in the order of the text, those inside directives included."""
    for block in found:
        yield block
        if isinstance(block, Directive) and (
            block.name in ADMONITIONS
            or block.name in TRANSPARENT
            or block.name in {"exercise", "solution"}
        ):
            yield from walk(blocks(block.body, block.body_line, file), file)


def numbered_kind(block: Block) -> tuple[str, str] | None:
    """What a block is counted as, and its title, if the book numbers it."""
    if isinstance(block, Math):
        return ("equation", "") if block.label else None
    if not isinstance(block, Directive):
        return None
    counted = {
        "math": ("equation", bool(block.label)),
        "code-cell": ("figure", bool(figure_of(block).get("caption"))),
        "figure": ("figure", bool(block.body)),
        "table": ("table", bool(block.argument)),
        "list-table": ("table", bool(block.argument)),
        "exercise": ("exercise", True),
        "exercise-start": ("exercise", True),
    }
    kind, is_counted = counted.get(block.name, ("", False))
    return (kind, block.argument) if is_counted else None


def read_labels(pages: list[Page]) -> dict[str, Label]:
    """Every label of the book with the number that the built book gives it.

    Raises:
        BookError: a label is used twice.
    """
    labels: dict[str, Label] = {}
    for page in pages:
        for name, label in page_labels(page):
            if name in labels:
                raise BookError(
                    f"{page.path}: the label {name} is already used in {labels[name].page}"
                )
            labels[name] = label
    return labels


def page_labels(page: Page) -> Iterable[tuple[str, Label]]:
    """The labels of one page, in order."""
    numbers = Numbering(page.number)
    _, lines, first = split_front_matter(page.path.read_text("utf-8"))
    waiting: list[str] = []
    for block in walk(blocks(lines, first, str(page.path)), str(page.path)):
        if isinstance(block, Target):
            waiting.append(block.label)
            continue
        counted = numbered_kind(block)
        label = Label("section", "", first_heading(block), page.name)
        if counted:
            kind, title = counted
            label = Label(kind, numbers.next(kind), title, page.name)
            own = figure_of(block).get("name") if is_code_cell(block) else block.label
            if own:
                yield own, label
        for name in waiting:
            yield name, label
        waiting = []


def is_code_cell(block: Block) -> bool:
    return isinstance(block, Directive) and block.name == "code-cell"


def first_heading(block: Block) -> str:
    """The title that a block starts with, if it is prose with a heading."""
    if isinstance(block, Prose):
        for line in block.lines:
            if heading := HEADING.match(line):
                return heading["title"]
    return ""
