"""What all experiments share, and that the pages still hold what the experiments take from them."""

import ast
import re
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((REPO / "experiments").glob("*.py"))
CHAPTER = re.compile(r'record\.chapter[(,]\s*"([^"]+)",\s*until=(.+?)\s*\)\n', re.S)


@pytest.fixture(scope="module")
def record(experiment):
    return experiment("record")


def test_rows_that_are_there_are_kept_and_missing_ones_come_in_order(record, tmp_path):
    asked = []

    def make(case, seed):
        asked.append((case, seed))
        return {"value": 10 * seed}

    path, jobs = tmp_path / "run.json", [("a", 0), ("a", 1), ("b", 0)]
    record.write(path, {"runs": [{"case": "b", "seed": 0, "value": 7}], "old": 1})
    record.fill(path, ("case", "seed"), jobs, make, about={"device": "x"})
    found = record.read(path)
    assert asked == jobs[:2]
    assert [(row["case"], row["seed"], row["value"]) for row in found["runs"]] == [
        ("a", 0, 0), ("a", 1, 10), ("b", 0, 7),
    ]  # fmt: skip
    assert found["old"] == 1
    assert found["device"] == "x"
    assert list(tmp_path.iterdir()) == [path]


def test_a_function_of_a_job_becomes_a_task(record, tmp_path):
    path = tmp_path / "run.json"

    @record.rows(path, lambda case, most="2": [(case, n) for n in range(int(most))], under="of {}")
    def squares(case, n):
        """What it says."""
        return {"square": n * n}

    squares("a")
    squares("a", "3")
    rows = [{"case": "a", "n": n, "square": n * n} for n in range(3)]
    assert (record.read(path), squares.__name__) == ({"of a": rows}, "squares")


def test_what_was_computed_once_is_read(record, tmp_path):
    path = tmp_path / "pieces" / "one.json"
    assert record.once(path, lambda n: {"n": n}, 3) == {"n": 3}
    assert record.once(path, lambda n: {"n": n}, 4) == {"n": 3}
    anything = path.with_suffix(".pickle")
    assert [record.once(anything, lambda n: {n}, n) for n in (3, 4)] == [{3}, {3}]


def test_numbers_are_rounded_however_deep(record):
    value = {"a": [0.123456789, float("nan")], "b": np.array([1.00000049]), "c": "x", "d": True}
    assert record.rounded(value) == {"a": [0.12346, None], "b": [1.0], "c": "x", "d": True}


def test_a_chapter_runs_up_to_a_line(record, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "REPO", tmp_path)
    monkeypatch.setenv("IMD_PROFILE", "smoke")
    (tmp_path / "book").mkdir()
    cells = "```{code-cell} ipython3\n---\ntags: [x]\n---\na = 1\n```\ntext\n```\nno = 1\n```\n"
    (tmp_path / "book" / "page.md").write_text(
        cells + "```{code-cell} ipython3\nb = a + 1\n```\n## Stop\n```{code-cell}\nc = 1 / 0\n```\n"
    )
    page = record.chapter("page", until="## Stop")
    assert (page.a, page.b) == (1, 2)
    assert not hasattr(page, "no")
    with pytest.raises(ValueError, match="no line"):
        record.chapter("page", until="## Nowhere")


def test_an_unknown_task_prints_how_to_use_the_script(record, monkeypatch):
    monkeypatch.setattr(record, "one_thread", lambda: None)
    done = []
    two = [lambda: done.append(1), lambda: done.append(2)]
    two[0].__name__, two[1].__name__ = "one", "two"
    monkeypatch.setattr(sys, "argv", ["script.py", "three"])
    with pytest.raises(SystemExit, match="usage"):
        record.command(two, "usage")
    monkeypatch.setattr(sys, "argv", ["script.py", "two"])
    record.command(two, "usage")
    monkeypatch.setattr(sys, "argv", ["script.py"])
    record.command(two[:1], "usage")
    assert done == [2, 1]


def bound(code: str) -> set[str]:
    """Names that a page's code binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        names |= {
            name.id
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
    return names


def test_pages_hold_what_experiments_take_from_them(record):
    taken = 0
    for script in SCRIPTS:
        text, held = script.read_text(), set()
        for page, line in CHAPTER.findall(text) if script.stem != "record" else ():
            until = ast.literal_eval(line) if line[0] in "\"'" else None
            until = until or ast.literal_eval(re.search(rf"^{line} = (.+)$", text, re.M)[1])
            whole = (REPO / "book" / f"{page}.md").read_text()
            assert whole.count(f"\n{until}\n") == 1, f"{script.name}: {page} has no line {until!r}"
            before = whole.partition(f"\n{until}\n")[0]
            cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```", before, flags=re.M | re.S)
            held |= bound("\n".join(record.code_of(cell) for cell in cells))
        wanted = set(re.findall(r"\b(?:PAGE|page\(\))\.(\w+)", text)) if held else set()
        assert wanted <= held, f"{script.name}: its chapter does not have {wanted - held}"
        taken += len(wanted)
    assert taken >= 25


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_reaches_into_what_is_private(script):
    private = [
        f"{ast.unparse(node)}, line {node.lineno}"
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and ast.unparse(node.value) != "self"
    ]
    assert private == []
