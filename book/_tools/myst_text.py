"""Cut a MyST Markdown page into blocks: prose, mathematics, plain code, and directives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from bookfiles import BookError

# as in CommonMark, no backtick may follow the backticks that open a block
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}(?=[^`]*$)|~{3,}|:{3,})(?P<info>.*)$")
NO_FENCE = re.compile(r"^ *`{3,}\{")
DIRECTIVE = re.compile(r"^\{(?P<name>[\w:.+-]+)\} *(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<key>[\w-]+):(?: +(?P<value>.*))?$")
TARGET = re.compile(r"^\((?P<label>[^\s()]+)\)=\s*$")
MATH_END = re.compile(r"\$\$(?: *\((?P<label>[^\s()]+)\))? *$")


@dataclass
class Prose:
    """Lines of ordinary Markdown; ``line`` is the number of the first one in the file."""

    lines: list[str]
    line: int


@dataclass
class Target:
    """``(label)=``, which names the heading or block that follows."""

    label: str
    line: int


@dataclass
class Break:
    """``+++``, the border of a cell."""

    line: int


@dataclass
class Math:
    """A displayed equation, with its label if it has one."""

    body: str
    label: str | None
    line: int
    indent: str = ""


@dataclass
class Code:
    """A fence that is no directive: kept as it is."""

    lines: list[str]
    line: int


@dataclass
class Directive:
    """A fence with ``{name}``."""

    name: str
    argument: str
    options: dict[str, Any]
    body: list[str]
    line: int
    body_line: int
    indent: str = ""
    target: str | None = field(default=None)

    @property
    def label(self) -> str | None:
        """The name by which other pages refer to this block."""
        return self.options.get("name") or self.options.get("label") or self.target


Block = Prose | Target | Break | Math | Code | Directive


def split_front_matter(text: str) -> tuple[dict[str, Any], list[str], int]:
    """The YAML header, the lines after it, and the number of the first of them."""
    lines = text.splitlines()
    if not lines or lines[0] != "---":
        return {}, lines, 1
    end = lines.index("---", 1)
    return yaml.safe_load("\n".join(lines[1:end])) or {}, lines[end + 1 :], end + 2


def blocks(lines: list[str], first_line: int, file: str) -> Iterator[Block]:
    """Cut lines into blocks.

    Raises:
        BookError: a fence or a displayed equation is not closed, or options cannot be read.
    """
    prose: list[str] = []
    prose_line = first_line
    index = 0
    while index < len(lines):
        block, used = _special(lines, index, first_line, file)
        if block is None and used == 0:
            if not prose:
                prose_line = first_line + index
            prose.append(lines[index])
            index += 1
            continue
        if any(line.strip() for line in prose):
            yield Prose(prose, prose_line)
        prose = []
        if block is not None:
            yield block
        index += used
    if any(line.strip() for line in prose):
        yield Prose(prose, prose_line)


def _special(lines: list[str], index: int, first: int, file: str) -> tuple[Block | None, int]:
    """The block that starts at a line and how many lines it takes; (None, 0) for prose."""
    line, number = lines[index], first + index
    if line.startswith("%"):
        return None, 1
    if line.startswith("+++"):
        return Break(number), 1
    if target := TARGET.match(line):
        return Target(target["label"], number), 1
    if line.lstrip().startswith("$$"):
        return _math(lines, index, first, file)
    if fence := FENCE.match(line):
        return _fence(lines, index, first, file, fence)
    if NO_FENCE.match(line):
        raise BookError(f"{file}:{number}: a title with backticks needs ::: instead of ```")
    return None, 0


def _math(lines: list[str], index: int, first: int, file: str) -> tuple[Math, int]:
    indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
    text = lines[index].strip()[2:]
    used = 1
    while not (end := MATH_END.search(text)):
        if index + used >= len(lines):
            raise BookError(f"{file}:{first + index}: the equation opened by $$ is never closed")
        text += "\n" + lines[index + used].strip()
        used += 1
    return Math(text[: end.start()].strip(), end["label"], first + index, indent), used


def _fence(
    lines: list[str], index: int, first: int, file: str, opened: re.Match[str]
) -> tuple[Block, int]:
    mark, indent, number = opened["fence"], opened["indent"], first + index
    end = index + 1
    closing = re.compile(rf"^ *{re.escape(mark[0])}{{{len(mark)},}} *$")
    while end < len(lines) and not closing.match(lines[end]):
        end += 1
    if end == len(lines):
        raise BookError(f"{file}:{number}: the block opened by {mark}{opened['info']} never ends")
    used = end - index + 1
    directive = DIRECTIVE.match(opened["info"].strip())
    if not directive:
        if mark[0] == ":":
            raise BookError(f"{file}:{number}: ::: without {{name}} has no meaning here")
        return Code(lines[index : end + 1], number), used
    inner = [line.removeprefix(indent) for line in lines[index + 1 : end]]
    options, skip = _options(inner, file, number + 1)
    body = inner[skip:]
    while body and not body[0].strip():
        body, skip = body[1:], skip + 1
    return (
        Directive(
            directive["name"],
            directive["argument"].strip(),
            options,
            body,
            number,
            number + 1 + skip,
            indent,
        ),
        used,
    )


def _options(lines: list[str], file: str, number: int) -> tuple[dict[str, Any], int]:
    """Options of a directive, ``:key: value`` or a YAML block, and the lines they take."""
    if lines and lines[0] == "---":
        end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
        source, used = "\n".join(lines[1:end]), end + 1
    else:
        pairs: list[str] = []
        for line in lines:
            option = OPTION.match(line)
            if not option:
                break
            pairs.append(f"{option['key']}: {option['value'] or ''}")
        source, used = "\n".join(pairs), len(pairs)
    try:
        return yaml.safe_load(source) or {}, used
    except yaml.YAMLError:
        if lines[0] == "---":
            raise BookError(f"{file}:{number}: these options are not YAML:\n{source}") from None
    # a title with a colon in it is no YAML, and needs none
    return dict(pair.split(": ", 1) for pair in source.splitlines()), used
