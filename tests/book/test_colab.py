"""On Colab: what a notebook imports is installed, and moves neither torch nor numpy."""

import ast
import json
import re
import shutil
import sys
import tomllib
from importlib import metadata

import colab
import colab_freeze
import pytest
from bookfiles import read_extras, read_pages
from build import Run, read_notebook
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHAPTERS = [page for page in read_pages() if page.is_chapter]
each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)


@pytest.fixture(scope="module")
def declared(repo):
    """Distributions of the core and of each extra."""
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        name: {canonicalize_name(Requirement(text).name) for text in texts}
        for name, texts in lists.items()
    }


def imports(page):
    """Top-level packages that the cells of a chapter import, beyond the standard library."""
    found = set()
    for cell in read_notebook(page).cells:
        if cell.cell_type == "code":
            for node in ast.walk(
                ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.M))
            ):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"imd_helpers"}


@each_chapter
def test_what_a_chapter_imports_comes_with_its_extras(page, declared):
    """Colab may have it anyway, but an environment of the reader's own does not."""
    providers = metadata.packages_distributions()
    installed = set().union(declared[""], *(declared[name] for name in read_extras(page)))
    for package in imports(page):
        distributions = {canonicalize_name(name) for name in providers[package]}
        assert distributions & installed, (
            f"{page.path} imports {package}: add the extra of pyproject.toml that has it to the "
            "line `extras: [...]` at the top of the chapter"
        )


FREEZE = """# generated
numpy==2.1.3
torch @ https://download.pytorch.org/whl/cu128/torch-2.11.0%2Bcu128-cp312-cp312-linux_x86_64.whl#sha256=a8
jaxlib @ https://example.org/jaxlib-0.4.16-cp310-cp310-manylinux2014_x86_64.whl
triton==3.6.0+git1
google-colab @ file:///colabtools/dist/google-colab-1.0.0.tar.gz
"""


def test_the_published_list_is_read_with_public_versions():
    assert colab_freeze.pins(FREEZE) == {
        "numpy": "2.1.3", "torch": "2.11.0", "jaxlib": "0.4.16", "triton": "3.6.0",
    }  # fmt: skip


@pytest.fixture(scope="module")
def published():
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: `pip install uv` to resolve against Colab's packages")
    try:
        return colab_freeze.fetch(timeout=5)
    except OSError as problem:
        pytest.skip(f"Colab's list of packages cannot be read from here: {problem}")


@pytest.mark.parametrize("python", ["3.12", "3.13"])
@pytest.mark.parametrize("extras", sorted({(), *map(read_extras, CHAPTERS)}), ids=",".join)
def test_the_package_installs_on_colab_and_moves_neither_torch_nor_numpy(published, extras, python):
    assert colab_freeze.resolve(published, extras, python) == ""


# ---- the record of `make colab`


def test_the_table_is_what_is_recorded_and_names_every_chapter():
    record = colab.load()
    assert set(record) <= {page.name for page in CHAPTERS}
    text = colab.TABLE.read_text("utf-8")
    assert text == colab.table(CHAPTERS, record), "run `python book/_tools/colab.py --table`"
    assert text.count("\n") == len(CHAPTERS) + 2


def test_a_run_is_described_by_its_last_line(monkeypatch):
    monkeypatch.setattr(colab, "git", lambda *words: "abc" if words[0] == "rev-parse" else "")
    page = CHAPTERS[0]
    good = colab.describe(Run(page, None, 61.4))
    bad = colab.describe(Run(page, None, 1.0, error="Traceback\nAssertionError: too few modes\n"))
    assert (good["seconds"], good["outcome"], good["error"]) == (61, "passed", None)
    assert (bad["outcome"], bad["error"]) == ("failed", "AssertionError: too few modes")
    assert json.loads(json.dumps(good)) == good
    lines = colab.table([page], {page.name: bad}).splitlines()
    assert "failed: `AssertionError: too few modes`" in lines[2]
    assert "not run yet" in colab.table([page], {})
