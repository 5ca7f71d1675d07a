"""Write the page on verified equations: run the tests that are marked as such, and tabulate.

A test marked ``@pytest.mark.equation("eq-label", function="imd_helpers.…")`` says which numbered
equation it verifies and with which function; the fixture ``agrees`` measures the error. A function
that only a chapter has is named by chapter: ``2_descriptors/symmetry.free_numbers``.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bookfiles import REPO, Address, BookError, Page, read_address, read_pages
from myst_text import Directive, Math, blocks, split_front_matter
from numbering import is_code_cell, walk
from plain_notebook import page_title

PAGE = REPO / "book" / "verified_equations.md"
REQUIRED = (
    "notation",
    "1_foundations/",
    "2_descriptors/",
    "3_networks/",
    "4_models/",
    "5_judging/",
)  # parts of the book of which every numbered equation needs a test
FLOOR = 1e-12  # below it an error is rounding, which differs from one machine to another
GROWTH = 10.0  # how much larger an error may be on another machine
SUPERSCRIPT = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"

INTRODUCTION = """# Verified equations

Every numbered equation of the book is computed by a function, and a test compares that function with something that is known without it: a closed form, a finite difference, an independent program.
The function is one of the package, or one that a chapter builds on its page and a test takes from there.
This page is written by those tests.
It shows the equation as the chapter prints it, the function, what it was compared with, the largest error that was measured, and the error at which the test fails.

Errors of 10⁻¹² and below are rounding.
A larger one comes from single precision, or from estimating a mean with a finite number of samples, and the test says which.
Run the tests yourself with `python -m pytest -m equation`, and write this page again with `python book/_tools/equations.py`.
"""  # noqa: E501 - one sentence a line, as in the book


@dataclass(frozen=True)
class Equation:
    """A labelled equation of a chapter."""

    label: str
    formula: str
    page: Page


@dataclass(frozen=True)
class Check:
    """One test of one equation by one function."""

    label: str
    function: str
    file: str
    test: str
    says: str
    error: float
    within: float
    relative: bool


def main() -> int:
    try:
        text, missing = make_page()
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8", newline="\n")
    print(f"written {PAGE.relative_to(REPO)}")
    if missing:
        print(f"no test is marked for: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


def make_page(repo: Path = REPO) -> tuple[str, list[str]]:
    """The text of the page, and the labels that should be on it but have no test.

    Raises:
        BookError: a marked test fails, or names a function that does not exist or that it does
            not use.
    """
    equations = list(read_equations(read_pages(repo)))
    checks = run_checks(repo)
    tested = {check.label for check in checks}
    required = [e.label for e in equations if e.page.name.startswith(REQUIRED)]
    missing = [label for label in required if label not in tested]
    return render(equations, checks, read_address(repo)), missing


# ---- what the book says, what the tests say


def read_equations(pages: list[Page]) -> Iterable[Equation]:
    """The labelled equations of the pages, in order."""
    for page in pages:
        _, lines, first = split_front_matter(page.path.read_text("utf-8"))
        for block in walk(blocks(lines, first, str(page.path)), str(page.path)):
            if isinstance(block, Math) and block.label:
                yield Equation(block.label, block.body, page)
            elif isinstance(block, Directive) and block.name == "math" and block.label:
                yield Equation(block.label, "\n".join(block.body).strip(), page)


def run_checks(repo: Path = REPO) -> list[Check]:
    """Run the marked tests and collect what they measured.

    Raises:
        BookError: see `make_page`.
    """
    files = [
        file
        for file in sorted((repo / "tests").rglob("test_*.py"))
        if "mark.equation(" in file.read_text("utf-8")
    ]
    if not files:
        raise BookError("no test is marked with pytest.mark.equation")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "equation", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *map(str, files)],
            cwd=repo, check=False, capture_output=True, text=True,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )  # fmt: skip
        if done.returncode:
            raise BookError(f"the tests of the equations fail:\n{done.stdout[-4000:]}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    return worst(check for case in cases for check in read_case(case, repo))


def read_case(case: ElementTree.Element, repo: Path) -> Iterable[Check]:
    """The checks of one test case of pytest's report."""
    file = case.get("classname", "").replace(".", "/") + ".py"
    test = case.get("name", "").split("[")[0]
    for entry in case.iter("property"):
        if entry.get("name") != "equation":
            continue
        record = json.loads(entry.get("value", ""))
        says = read_test(repo / file, test, record["function"])
        for label in record["labels"]:
            yield Check(
                label, record["function"], file, test, says,
                record["error"], record["within"], record["relative"],
            )  # fmt: skip


def read_test(file: Path, test: str, function: str) -> str:
    """The first sentence of the test, or its name in words.

    Raises:
        BookError: there is no such function, or the test does not mention it.
    """
    name = function.rpartition(".")[2]
    try:
        if "/" in function:
            page_functions(function.rpartition(".")[0], name)
        else:
            pkgutil.resolve_name(function)  # functions and methods alike
    except (ImportError, AttributeError, ValueError, BookError):
        raise BookError(f"{file}: {test} verifies {function}, which does not exist") from None
    source = file.read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == test:
            body = "\n".join(ast.get_source_segment(source, part) or "" for part in node.body)
            if not re.search(rf"\b{name}\b", body):
                raise BookError(f"{file}: {test} verifies {function}, but does not call it")
            words = test.removeprefix("test_").replace("_", " ")
            said = (ast.get_docstring(node) or words).split("\n\n")[0]
            return " ".join(said.split()).rstrip(".")
    raise BookError(f"{file}: there is no function {test}")


def page_functions(page: str, *names: str, **given: Any) -> dict[str, Any]:
    """Functions, classes and constants that the cells of a chapter define, by name.

    Only these and the imports of the chapter are executed; what else they need is given.

    Raises:
        BookError: the chapter does not define one of them.
    """
    found = {found.name: found for found in read_pages()}
    _, lines, first = split_front_matter(found[page].path.read_text("utf-8"))
    cells = [b for b in walk(blocks(lines, first, page), page) if is_code_cell(b)]
    nodes = [node for cell in cells for node in ast.parse("\n".join(cell.body)).body]
    wanted = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) or defines(n) in names]
    missing = set(names) - {defines(node) for node in wanted}
    if missing:
        raise BookError(f"{page} defines no {', '.join(sorted(missing))}")
    space: dict[str, Any] = dict(given)
    exec(compile(ast.Module(wanted, []), page, "exec"), space)
    return space


def defines(node: ast.stmt) -> str | None:
    """The name that a definition or a plain assignment binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def worst(checks: Iterable[Check]) -> list[Check]:
    """One check for each equation, function and test: of the parameters with the worst error."""
    found: dict[tuple[str, str, str, str], Check] = {}
    for check in checks:
        key = (check.label, check.function, check.file, check.test)
        if key not in found or check.error / check.within > found[key].error / found[key].within:
            found[key] = check
    return list(found.values())


# ---- the page


def render(equations: list[Equation], checks: list[Check], address: Address) -> str:
    """The page as Markdown, chapter after chapter."""
    parts = [INTRODUCTION]
    chapter = None
    for equation in equations:
        mine = [check for check in checks if check.label == equation.label]
        if not mine:
            continue
        if equation.page != chapter:
            chapter = equation.page
            parts.append(f"## [{page_title(chapter)}]({chapter.name}.md)\n")
        parts.append(f"Equation {{eq}}`{equation.label}`:\n\n$$\n{equation.formula}\n$$\n")
        parts.append(table(mine, address))
    return "\n".join(parts)


def table(checks: list[Check], address: Address) -> str:
    """The checks of one equation."""
    lines = ["| Function | Compared with | Error | Fails above |", "| --- | --- | --- | --- |"]
    for check in checks:
        name = check.function.removeprefix("imd_helpers.")
        says = check.says.replace("|", "\\|")
        unit = " relative" if check.relative else ""
        link = f"[{says}]({address.page(check.file)})"
        lines.append(
            f"| `{name}` | {link} | {measured(check.error)}{unit} | {shown(check.within)}{unit} |"
        )
    return "\n".join(lines) + "\n"


def shown(error: float) -> str:
    """One digit and a power of ten, as a reader writes it."""
    digit, power = f"{error:.0e}".split("e")
    if -3 <= int(power) <= 3:
        return f"{float(f'{error:.0e}'):g}"
    raised = "10" + str(int(power)).translate(str.maketrans("-0123456789", SUPERSCRIPT))
    return raised if digit == "1" else f"{digit} × {raised}"


def measured(error: float) -> str:
    """The same, but no digits of rounding, which differ from one machine to another."""
    return shown(error) if error > FLOOR else f"≤ {shown(FLOOR)}"


def number(text: str) -> float:
    """What `measured` wrote."""
    digit, _, power = text.removeprefix("≤ ").rpartition("10")
    if not power or power[0] not in SUPERSCRIPT:
        return float(text)
    plain = power.translate(str.maketrans(SUPERSCRIPT, "-0123456789"))
    return float(f"{digit.removesuffix(' × ') or 1}e{plain}")


ERROR = re.compile(r"(?<=\) \| )(?P<error>[^|]+?)(?= (?:relative )?\| )")


def differences(old: str, new: str) -> list[str]:
    """What has changed on the page, errors of the same size let pass."""
    before, after = ([ERROR.sub("", line) for line in page.splitlines()] for page in (old, new))
    if before != after:
        changed = difflib.unified_diff(before, after, n=0, lineterm="")
        return [line for line in changed if not line.startswith(("---", "+++", "@@"))]
    return [
        f"an error of {then['error']} has become {now['error']}"
        for then, now in zip(ERROR.finditer(old), ERROR.finditer(new), strict=True)
        if number(now["error"]) > GROWTH * number(then["error"])
    ]


if __name__ == "__main__":
    sys.exit(main())
