"""Turn one chapter of MyST Markdown into the cells of a plain notebook.

Every role and directive becomes ordinary Markdown. What this file does not know is an error that
names file and line; nothing is passed on unread.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bookfiles import Address, BookError, Page
from citations import References
from myst_text import Block, Break, Code, Directive, Math, Prose, Target, blocks, split_front_matter
from numbering import ADMONITIONS, HEADING, TRANSPARENT, Label, Numbering, figure_of, is_code_cell

DROPPED = {"bibliography", "tableofcontents", "contents", "toctree"}
ROLE_OR_CODE = re.compile(
    r"\{(?P<role>[\w:+-]+)\}(?P<tick>`+)(?P<inside>.+?)(?P=tick)(?!`)"
    r"|(?P<code>(?P<ticks>`+)[^`].*?(?P=ticks)(?!`))"
    r"|(?P<math>(?<![\\$])\$(?!\$)[^$]+?(?<!\\)\$)",
    re.DOTALL,
)
LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
EXPLICIT = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)
FOOTNOTE = re.compile(r"\[\^[\w-]+\]")
ANSWER = "# your answer"


@dataclass
class Cell:
    """A cell of the notebook to be."""

    kind: str
    source: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Surroundings:
    """What a chapter may refer to outside itself."""

    root: Path  # the folder of the book
    labels: dict[str, Label]
    references: References
    address: Address
    titles: dict[str, str]  # page name -> title
    chapters: set[str]  # pages that have a notebook


class Exporter:
    """Turns one chapter into cells."""

    def __init__(self, page: Page, around: Surroundings) -> None:
        self.page, self.around = page, around
        self.refs, self.address, self.labels = around.references, around.address, around.labels
        self.file = str(page.path)
        self.numbers = Numbering(page.number)
        self.cells: list[Cell] = []
        self.buffer: list[str] = []
        self.cited: set[str] = set()
        self.level = 2
        self.solution: list[str] | None = None  # checks in the solution that is being left out

    def fail(self, line: int, problem: str) -> BookError:
        return BookError(f"{self.file}:{line}: {problem}")

    def run(self) -> list[Cell]:
        """All cells of the chapter, and the list of what it cites."""
        _, lines, first = split_front_matter(self.page.path.read_text("utf-8"))
        for block in blocks(lines, first, self.file):
            if self.solution is None or is_code_cell(block) or ends_solution(block):
                self.block(block)
        if self.solution is not None:
            raise self.fail(first + len(lines), "solution-start without solution-end")
        self.flush()
        if self.cited:
            listed = sorted(self.cited, key=self.refs.sort_key)
            entries = "\n".join(f"- {self.refs.full(key)}" for key in listed)
            self.cells.append(Cell("markdown", f"## References\n\n{entries}"))
        return self.cells

    # --- output

    def write(self, text: str) -> None:
        self.buffer.append(text)

    def flush(self) -> None:
        text = re.sub(r"\n{3,}", "\n\n", "\n\n".join(self.buffer)).strip()
        self.buffer = []
        if text:
            self.cells.append(Cell("markdown", text))

    # --- blocks

    def block(self, block: Block) -> None:
        match block:
            case Target():
                pass
            case Break():
                self.flush()
            case Prose():
                self.prose(block)
            case Directive(name="code-cell"):
                self.code_cell(block)
            case Directive(name="solution-start"):
                self.solution = []
            case Directive(name="solution-end"):
                self.answer(self.solution or [])
                self.solution = None
            case Directive(name="solution"):
                self.answer([])
            case _:
                self.write(self.render(block))

    def prose(self, block: Prose) -> None:
        start = 0
        for index, line in enumerate(block.lines):
            if heading := HEADING.match(line):
                self.level = len(heading["marks"])
                if self.level <= 2:  # a new cell, so that hosted notebooks can fold sections
                    self.write(self.inline("\n".join(block.lines[start:index]), block.line + start))
                    self.flush()
                    start = index
        self.write(self.inline("\n".join(block.lines[start:]), block.line + start))

    def code_cell(self, block: Directive) -> None:
        source = "\n".join(block.body).rstrip()
        if self.solution is not None:
            self.solution += checks_in(source)
            return
        self.flush()
        self.cells.append(Cell("code", source, list(block.options.get("tags", []))))
        figure = figure_of(block)
        if caption := figure.get("caption"):
            self.write(self.caption("Figure", self.numbers.next("figure"), caption, block.line))
            self.flush()

    def answer(self, checks: list[str]) -> None:
        self.flush()
        lines = [ANSWER]
        if checks:
            lines += [
                "",
                "# then check it:",
                *(f"# {line}" for line in "\n".join(checks).split("\n")),
            ]
        self.cells.append(Cell("code", "\n".join(lines), ["answer"]))

    def render(self, block: Block) -> str:
        """A block as plain Markdown."""
        match block:
            case Target() | Break():
                return ""
            case Prose():
                return self.inline("\n".join(block.lines).strip("\n"), block.line)
            case Code():
                return "\n".join(block.lines)
            case Math():
                return indent(self.equation(block.body, block.label), block.indent)
        return indent(self.directive(block), block.indent)

    def body(self, block: Directive) -> str:
        inner = blocks(block.body, block.body_line, self.file)
        return "\n\n".join(filter(None, (self.render(part) for part in inner))).strip()

    def directive(self, block: Directive) -> str:
        name = block.name
        if name in ADMONITIONS:
            return self.admonition(block)
        if name in TRANSPARENT:
            return self.body(block)
        if name in DROPPED or name == "exercise-end":
            return ""
        known: dict[str, Callable[[Directive], str]] = {
            "math": lambda b: self.equation("\n".join(b.body).strip(), b.label),
            "figure": self.figure,
            "image": self.image,
            "exercise": lambda b: f"{self.exercise_title(b)}\n\n{self.body(b)}",
            "exercise-start": self.exercise_title,
            "table": self.table,
            "list-table": self.list_table,
            "code-block": plain_code,
            "code": plain_code,
        }
        if name not in known:
            raise self.fail(
                block.line,
                f"the directive {{{name}}} cannot be shown in a plain notebook; known: "
                + ", ".join(sorted([*known, *ADMONITIONS, *TRANSPARENT, *DROPPED, "code-cell"])),
            )
        return known[name](block)

    def equation(self, body: str, label: str | None) -> str:
        tag = f"\n\\tag{{{self.numbers.next('equation')}}}" if label else ""
        return f"$$\n{body}{tag}\n$$"

    def admonition(self, block: Directive) -> str:
        # margin notes and plain admonitions may start their text on the first line
        titled = block.name in {"admonition", "dropdown", "card", "tab-item", "sidebar"}
        title = block.argument if titled else ADMONITIONS[block.name]
        text = self.body(block)
        if block.argument and not titled:
            text = f"{self.inline(block.argument, block.line)}\n\n{text}".strip()
        head = f"**{self.inline(title, block.line)}**\n\n" if title else ""
        return "\n".join(f"> {line}".rstrip() for line in f"{head}{text}".split("\n"))

    def exercise_title(self, block: Directive) -> str:
        title = f". {self.inline(block.argument, block.line)}" if block.argument else ""
        return f"{'#' * min(self.level + 1, 6)} Exercise {self.numbers.next('exercise')}{title}"

    def image(self, block: Directive) -> str:
        alt = str(block.options.get("alt", "")).strip()
        if not alt:
            raise self.fail(
                block.line, f"{{{block.name}}} needs :alt: text for readers who cannot see it"
            )
        return f"![{alt}]({self.asset(block.argument, block.line)})"

    def figure(self, block: Directive) -> str:
        picture = self.image(block)
        if not block.body:
            return picture
        caption = self.caption(
            "Figure", self.numbers.next("figure"), "\n".join(block.body), block.line
        )
        return f"{picture}\n\n{caption}"

    def caption(self, word: str, number: str, text: str, line: int) -> str:
        text = self.inline(" ".join(text.split()), line)
        styled = text if "*" in text or "_" in text.replace("\\_", "") else f"*{text}*"
        return f"**{word} {number}.** {styled}"

    def table(self, block: Directive) -> str:
        if not block.argument:
            return self.body(block)
        number = self.numbers.next("table")
        return f"{self.caption('Table', number, block.argument, block.line)}\n\n{self.body(block)}"

    def list_table(self, block: Directive) -> str:
        rows: list[list[str]] = []
        for line in block.body:
            start = re.match(r"^(?P<row>[*-] +)?(?: *)[-*] ?(?P<cell>.*)$", line)
            if start and (start["row"] or line.startswith((" ", "\t"))):
                if start["row"]:
                    rows.append([])
                rows[-1].append(start["cell"].strip())
            elif line.strip():
                rows[-1][-1] += f" {line.strip()}"
        if not rows or len({len(row) for row in rows}) != 1:
            raise self.fail(block.line, "the rows of this list-table differ in length")
        cells = [
            [self.inline(cell, block.line).replace("|", "\\|") for cell in row] for row in rows
        ]
        head = cells.pop(0) if int(block.options.get("header-rows", 0)) else [""] * len(rows[0])
        lines = [head, ["---"] * len(head), *cells]
        text = "\n".join("| " + " | ".join(row) + " |" for row in lines)
        if not block.argument:
            return text
        number = self.numbers.next("table")
        return f"{self.caption('Table', number, block.argument, block.line)}\n\n{text}"

    # --- inside a line

    def inline(self, text: str, line: int) -> str:
        """Resolve roles and links; code spans and mathematics stay as they are."""
        pieces: list[str] = []
        position = 0
        for found in ROLE_OR_CODE.finditer(text):
            between = text[position : found.start()]
            pieces.append(self.links(between, line + text.count("\n", 0, position)))
            here = line + text.count("\n", 0, found.start())
            role = found["role"]
            pieces.append(self.role(role, found["inside"], here) if role else found[0])
            position = found.end()
        pieces.append(self.links(text[position:], line + text.count("\n", 0, position)))
        return "".join(pieces)

    def links(self, text: str, line: int) -> str:
        if note := FOOTNOTE.search(text):
            here = line + text.count("\n", 0, note.start())
            raise self.fail(here, "footnotes do not work in plain notebooks: write a note")

        def replace(found: re.Match[str]) -> str:
            return self.markdown_link(found, line + text.count("\n", 0, found.start()))

        return LINK.sub(replace, text)

    def markdown_link(self, found: re.Match[str], line: int) -> str:
        """``[words](target)`` or an image, its target made good from anywhere."""
        target, words = found["target"], found["text"]
        if re.match(r"^(https?:|mailto:)", target):
            return found[0]
        if target.startswith("#") or target in self.labels:
            return words or self.reference(target.lstrip("#"), line)
        if found["bang"]:
            return f"![{words}]({self.asset(target, line)})"
        path, _, _ = target.partition("#")
        return f"[{words}]({self.link(path, line)})"

    def role(self, name: str, inside: str, line: int) -> str:
        explicit = EXPLICIT.match(inside)
        words, target = (explicit["text"], explicit["target"]) if explicit else ("", inside)
        match name:
            case "cite:p" | "cite":
                text = self.refs.parenthetical(self.keys(inside, line))
            case "cite:t":
                text = " and ".join(self.refs.textual(key) for key in self.keys(inside, line))
            case "eq":
                text = f"Eq. ({self.label(target, line, 'equation').number})"
            case "numref":
                text = self.numbered(words, target, line)
            case "ref":
                text = words or self.reference(target, line)
            case "doc":
                text = f"[{words or self.title(target, line)}]({self.link(target, line)})"
            case "download":
                text = f"[{words or Path(target).name}]({self.asset(target, line)})"
            case "term" | "abbr":
                text = words or target
            case "math":
                text = f"${inside}$"
            case "sub" | "sup":
                text = f"<{name}>{inside}</{name}>"
            case "kbd" | "guilabel" | "menuselection":
                text = f"**{inside}**"
            case _:
                raise self.fail(line, f"the role {{{name}}} cannot be shown in a plain notebook")
        return text

    def keys(self, inside: str, line: int) -> list[str]:
        keys = [key.strip() for key in inside.split(",")]
        for key in keys:
            if key not in self.refs.entries:
                raise self.fail(line, f"{key} is not in references.bib")
        self.cited.update(keys)
        return keys

    def label(self, name: str, line: int, kind: str | None = None) -> Label:
        label = self.labels.get(name)
        if label is None or (kind and label.kind != kind):
            raise self.fail(line, f"no {kind or 'label'} is named {name}")
        return label

    def numbered(self, words: str, target: str, line: int) -> str:
        label = self.label(target, line)
        if not label.number:
            raise self.fail(line, f"{target} has no number: use {{ref}}")
        if words:
            return words.replace("%s", label.number).replace("{number}", label.number)
        short = {"figure": "Fig.", "table": "Table", "exercise": "Exercise", "equation": "Eq."}
        return f"{short[label.kind]} {label.number}"

    def reference(self, target: str, line: int) -> str:
        label = self.label(target, line)
        if label.kind == "section":
            return self.inline(label.title, line)
        return self.numbered("", target, line)

    def title(self, target: str, line: int) -> str:
        return self.around.titles[self.page_name(target, line)]

    def locate(self, target: str) -> Path:
        """A path in a link, which is relative to the page, or to the book if it starts with /."""
        base = self.around.root if target.startswith("/") else self.page.path.parent
        return (base / target.lstrip("/")).resolve()

    def page_name(self, target: str, line: int) -> str:
        path = self.locate(target)
        if path.is_relative_to(self.around.root):
            name = path.relative_to(self.around.root).as_posix()
            name = name.removesuffix(".md").removesuffix(".ipynb")
            if name in self.around.titles:
                return name
        raise self.fail(line, f"{target} is no page of the table of contents")

    def link(self, target: str, line: int) -> str:
        """The address of a page or file, good from wherever the notebook is opened."""
        path = self.locate(target)
        if path.suffix in {"", ".md", ".ipynb"} and path.is_relative_to(self.around.root):
            name = self.page_name(target, line)
            if name in self.around.chapters:  # a reader in Colab stays in Colab
                return self.address.colab(f"{name}.ipynb")
            return self.address.page(f"{self.address.folder}/{name}.md")
        return self.address.page(self.in_repository(target, line))

    def asset(self, target: str, line: int) -> str:
        """The address of a picture or download."""
        if target.startswith(("http://", "https://")):
            return target
        return self.address.raw(self.in_repository(target, line))

    def in_repository(self, target: str, line: int) -> str:
        path, repository = self.locate(target), self.around.root.parent
        if not path.is_file() or not path.is_relative_to(repository):
            raise self.fail(line, f"there is no file {target} in the repository")
        return path.relative_to(repository).as_posix()


def page_title(page: Page) -> str:
    """The first heading of a page.

    Raises:
        BookError: there is none.
    """
    for line in page.path.read_text("utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    raise BookError(f"{page.path}: the page has no title (# ...)")


def ends_solution(block: Block) -> bool:
    return isinstance(block, Directive) and block.name == "solution-end"


def checks_in(source: str) -> list[str]:
    """The calls of ``imd.check`` in a cell, for a reader's own answer: three dots stand for it."""
    checks = []
    for node in ast.parse(source).body:
        call = node.test if isinstance(node, ast.Assert) else getattr(node, "value", None)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("imd.check."):
            names = [ast.unparse(word) for word in call.args[:-1]]  # the last is the solution
            checks.append(f"{ast.unparse(call.func)}({', '.join([*names, '...'])})")
    return [check.replace("'", '"') for check in checks]


def plain_code(block: Directive) -> str:
    return "\n".join([f"```{block.argument}", *block.body, "```"])


def indent(text: str, by: str) -> str:
    return "\n".join(by + line if line else line for line in text.split("\n"))
