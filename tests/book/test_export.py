"""The notebooks beside the chapters: as committed, plain Markdown, the same bytes each time."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bookfiles import BookError
from export import export_all, orphans

TORTURE = Path(__file__).parent / "torture"
# Written without looking at the exporter: anything that only Sphinx would understand.
RAW = re.compile(
    r"\{[a-zA-Z][\w:+.-]*\}`"  # {role}`text`
    r"|^ *(`{3,}|~{3,}|:{3,}) *\{"  # ```{directive}
    r"|^ *:{3,}"  # closing colons
    r"|^\([\w-]+\)=\s*$"  # (label)=
    r"|^:[a-z-]+:( |$)"  # :option: value
    r"|^\+\+\+"  # +++
    r"|^%[^%]"  # % comment
    r"|^\$\$ *\([\w-]+\)"  # $$ (label)
    r"|\{\{.+?\}\}"  # {{substitution}}
    r"|\[\^[\w-]+\]",  # [^footnote]
    re.MULTILINE,
)
BLOCK = re.compile(r"^[ >]*```(?!\s*\{).*?^[ >]*```$", re.MULTILINE | re.DOTALL)
# code in a line, unless it is what a role is about
SPAN = re.compile(r"(?<![`}])(`{1,2})(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


def raw_markup(notebook):
    texts = ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    return [hit[0] for text in texts for hit in RAW.finditer(SPAN.sub("", BLOCK.sub("", text)))]


@pytest.fixture(scope="module")
def fresh():
    return export_all()


@pytest.fixture(scope="module")
def torture():
    notebooks = export_all(TORTURE)
    return {path.stem: json.loads(text) for path, text in notebooks.items()}


def markdown(notebook):
    return "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )


def code(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_committed_notebooks_are_what_the_chapters_give(fresh):
    for path, text in fresh.items():
        assert path.is_file(), f"{path} is missing: run `make notebooks`"
        same = path.read_bytes() == text.encode("utf-8")
        assert same, f"{path} differs from its chapter: run `make notebooks`"
    assert orphans(fresh) == [], "notebooks without a chapter: run `make notebooks`"


def test_the_same_sources_give_the_same_bytes(fresh):
    assert export_all() == fresh


def test_no_markup_of_sphinx_is_left(fresh, torture):
    for name, notebook in [*((p.name, json.loads(t)) for p, t in fresh.items()), *torture.items()]:
        assert raw_markup(notebook) == [], name


def test_the_check_for_raw_markup_finds_some():
    for text in ("see {eq}`x`", "```{note}\nx\n```", "(label)=", "a [^1]", ":::\n", "+++"):
        assert raw_markup({"cells": [{"cell_type": "markdown", "source": [text]}]}), text


def test_notebooks_are_valid_and_empty(fresh, torture):
    for notebook in [*map(json.loads, fresh.values()), *torture.values()]:
        nbformat.validate(nbformat.from_dict(notebook))
        assert notebook["metadata"]["accelerator"] == "GPU"
        assert notebook["metadata"]["colab"] == {"gpuType": "T4", "toc_visible": True}
        ids = [cell["id"] for cell in notebook["cells"]]
        assert len(set(ids)) == len(ids)
        for cell in notebook["cells"]:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


def test_the_setup_cell_installs_from_the_configured_address(torture):
    badges, setup = torture["torture"]["cells"][:2]
    assert "github/example/torture/blob/trunk/book/part/torture.ipynb" in "".join(badges["source"])
    assert '"imd-helpers @ git+https://github.com/example/torture@trunk"' in "".join(
        setup["source"]
    )
    assert setup["metadata"]["tags"] == ["setup"]


def test_the_address_is_set_in_one_place(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TORTURE, copy)
    config = copy / "_config.yml"
    config.write_text(config.read_text().replace("example/torture", "someone/else"))
    for text in export_all(copy).values():
        assert "someone/else" in text
        assert "example/torture" not in text


def test_solutions_become_empty_answers(torture):
    text = json.dumps(torture["torture"])
    assert "secret prose" not in text
    assert "secret_answer = 42" not in text
    answers = [c for c in code(torture["torture"]) if c.startswith("# your answer")]
    assert len(answers) == 2
    assert answers[0].splitlines()[3:] == ["# imd.check.count(...)"]
    assert "secret_answer" not in text  # not even as what is checked


def test_citations_read_as_text_and_are_listed(torture):
    text = markdown(torture["torture"])
    assert "a role (Müller, 2001; Alpha et al., 2003a)" in text
    assert "Lee and van der Waals (2002)" in text
    listed = text.split("## References")[1].strip().splitlines()
    assert [line[2:7] for line in listed] == ["Alpha", "Alpha", "Lee B", "Mülle"]
    assert "https://doi.org/10.1/one" in listed[-1]


def test_references_read_as_text(torture):
    text = markdown(torture["torture"])
    assert "As Eq. (2.1) and Eq. (1.1) say" in text
    assert "Look at Fig. 2.1, at Picture 1.1, at Fig. 2.1 and at Fig. 2.2." in text
    assert "Table 2.1 and Table 2.2." in text
    assert "Exercise 2.1 and Exercise 2.2." in text
    assert "See Theory with `code` in its title, the theory," in text
    host = "https://colab.research.google.com/github"
    link = f"{host}/example/torture/blob/trunk/book/part/other.ipynb"
    assert f"[The other chapter]({link}), [another one]({link})" in text
    assert "[outside](https://example.org/x_(y))" in text


def test_blocks_read_as_plain_markdown(torture):
    text = markdown(torture["torture"])
    assert "> **Note**\n>\n> A note with Eq. (2.1) and a list:" in text
    assert "> > **Warning**\n> >\n> > Nested." in text
    assert "| Name | Value \\| unit |\n| --- | --- |\n| critic | $1$ Å long |" in text
    assert "+ \\lambda\n\\tag{2.1}\n$$" in text
    assert "**Figure 2.2.** *A plot of nothing, see Eq. (2.1).*" in text
    assert "a comment that nobody may see" not in text
    assert "`code that holds {cite:p}`" in text  # a code span is not a role


def test_code_and_tags_stay_as_they_are(torture):
    assert any(
        'x = "```{note}"  # {cite:p}`not a role`' in cell for cell in code(torture["torture"])
    )
    tags = [cell["metadata"].get("tags") for cell in torture["torture"]["cells"]]
    assert ["hide-input"] in tags


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("```{mystery}\nx\n```", r"chapter\.md:8: the directive \{mystery\} cannot be shown"),
        ("a\n{mystery}`x`", r"chapter\.md:9: the role \{mystery\} cannot be shown"),
        ("see {eq}`none`", r"chapter\.md:8: no equation is named none"),
        ("{cite:t}`nobody`", r"chapter\.md:8: nobody is not in references\.bib"),
        ("```{figure} none.png\n:alt: x\n```", r"chapter\.md:8: there is no file none\.png"),
        ("![](x.png)", r"chapter\.md:8: there is no file x\.png"),
        ("```{image} x.png\n```", r"chapter\.md:8: \{image\} needs :alt:"),
        ("{doc}`elsewhere`", r"chapter\.md:8: elsewhere is no page"),
        ("```{note}\nx", r"chapter\.md:8: the block opened by ```\{note\} never ends"),
        ("$$\nx", r"chapter\.md:8: the equation opened by \$\$ is never closed"),
        ("a note[^1]", r"chapter\.md:8: footnotes do not work"),
        ("```{solution-start} x\n```", r"solution-start without solution-end"),
        ("```{note} `x`\n```", r"chapter\.md:8: a title with backticks needs :::"),
    ],
)
def test_what_cannot_be_shown_is_an_error_that_says_where(tmp_path, line, message):
    (tmp_path / "book").mkdir()
    shutil.copy(TORTURE / "_config.yml", tmp_path)
    shutil.copy(TORTURE / "book" / "references.bib", tmp_path / "book")
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: chapter\n")
    header = "---\njupytext:\n  text_representation:\n    format_name: myst\n---\n# Title\n\n"
    (tmp_path / "book" / "chapter.md").write_text(f"{header}{line}\n")
    with pytest.raises(BookError, match=message):
        export_all(tmp_path)


def test_numbers_are_those_of_the_built_book(tmp_path, torture):
    """Jupyter Book itself numbers the same chapter; the exporter must agree with it."""
    shutil.copytree(TORTURE, tmp_path / "copy")
    tool = Path(sys.executable).parent / "jupyter-book"
    command = [tool, "build", "book", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        command, cwd=tmp_path / "copy", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "copy" / "_build" / "html" / "part" / "torture.html").read_text("utf-8")
    text = markdown(torture["torture"])
    equations = re.findall(r'class="eqno">\((\d+\.\d+)\)', page)
    assert equations == re.findall(r"\\tag\{(.+?)\}", text) == ["2.1", "2.2", "2.3"]
    figures = re.findall(r'caption-number">Fig\. (\d+\.\d+)', page)
    assert figures == re.findall(r"^\*\*Figure (.+?)\.\*\*", text, re.MULTILINE) == ["2.1", "2.2"]
    tables = re.findall(r'caption-number">Table (\d+\.\d+)', page)
    assert tables == re.findall(r"^\*\*Table (.+?)\.\*\*", text, re.MULTILINE) == ["2.1", "2.2"]
    exercises = re.findall(r'caption-number">Exercise (\d+\.\d+)', page)
    assert exercises == re.findall(r"^### Exercise (\d+\.\d+)\.", text, re.MULTILINE)
