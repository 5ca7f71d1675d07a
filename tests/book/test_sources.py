"""Rules for the sources of the book, checked without building it."""

import json
import re
from collections import Counter
from fractions import Fraction

import pytest
from bookfiles import BookError, read_address, read_pages
from citations import References
from myst_text import Code, Directive, Math, Prose, blocks, split_front_matter
from numbering import figure_of, is_code_cell, walk

# Headings of a chapter, in order. Chapters that train no network may leave out those in MAY_OMIT.
TEMPLATE = [
    "At a glance",
    "Objectives",
    "Setup",
    "The materials question",
    "Theory",
    "Data",
    "Build it",
    "Equation ↔ code",
    "Train it",
    "Look at what it makes",
    "When it fails",
    "Summary",
    "Exercises",
    "Further reading",
    "Reproducibility",
]
FOUNDATIONS_MAY_OMIT = {"Theory", "Build it", "Equation ↔ code", "Train it", "When it fails"}
MAY_OMIT = {"1_foundations": FOUNDATIONS_MAY_OMIT, "5_judging": {"Train it"}}
LONGEST_CELL, WIDEST_CELL = 25, 84
DRAWS = re.compile(r"\bplt\.(subplots|figure)\(|\.savefig\(")
PAGES = read_pages()
CHAPTERS = [page for page in PAGES if page.is_chapter]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)


def parts(page):
    _, lines, first = split_front_matter(page.path.read_text("utf-8"))
    return list(walk(blocks(lines, first, str(page.path)), str(page.path)))


def headings(page):
    lines = [line for part in parts(page) if isinstance(part, Prose) for line in part.lines]
    found = [line.removeprefix("## ").strip() for line in lines if line.startswith("## ")]
    return ["Objectives" if heading == "Learning objectives" else heading for heading in found]


@each_chapter
def test_a_chapter_has_the_headings_of_the_template_in_order(page):
    found = [heading for heading in headings(page) if heading in TEMPLATE]
    optional = MAY_OMIT.get(page.name.split("/")[0], set())
    assert set(TEMPLATE) - optional <= set(found)
    assert found == [heading for heading in TEMPLATE if heading in found]


@each_chapter
def test_a_chapter_opens_with_a_sentence_and_a_table_at_a_glance(page):
    text = page.path.read_text("utf-8")
    opening = re.search(r"^# .+\n\n(?P<sentence>[A-Z].+[.!?])\n", text, re.MULTILINE)
    assert opening, "after the title: one sentence that says what the reader will be able to do"
    glance = text.split("## At a glance")[1].split("\n## ")[0]
    assert "| --- |" in glance.replace("|---|", "| --- |")


@each_chapter
def test_cells_are_short_enough_to_read(page):
    for part in parts(page):
        if is_code_cell(part):
            assert len(part.body) <= LONGEST_CELL, f"{page.path}:{part.line}"


@each_chapter
def test_no_line_of_code_is_cut_on_a_laptop(page):
    """At 1,280 pixels a code cell shows 84 columns."""
    wide = [
        f"{page.path}:{part.body_line + index}"
        for part in parts(page)
        if is_code_cell(part)
        for index, line in enumerate(part.body)
        if len(line) > WIDEST_CELL
    ]
    assert wide == []


@each_chapter
def test_a_cell_that_draws_has_a_name_a_caption_and_alternative_text(page):
    for part in parts(page):
        if is_code_cell(part) and DRAWS.search("\n".join(part.body)):
            figure = figure_of(part)
            alt = part.options.get("mystnb", {}).get("image", {}).get("alt", "")
            where = f"{page.path}:{part.line}"
            assert figure.get("name"), f"{where}: give the figure a name"
            assert len(figure.get("caption", "")) > 20, f"{where}: give the figure a caption"
            assert len(alt) > 20, f"{where}: say in image: alt: what the figure shows"


@each_chapter
def test_a_chapter_has_exercises_that_check_themselves(page):
    exercises = [
        part
        for part in parts(page)
        if isinstance(part, Directive) and part.name in {"exercise", "exercise-start"}
    ]
    assert len(exercises) >= 3
    assert all("★" in exercise.argument for exercise in exercises), "mark each with ★ to ★★★"
    assert page.path.read_text("utf-8").count("imd.check.") >= 2


@each_page
def test_every_citation_is_in_the_bibliography(page, repo):
    known = References(repo / "book" / "references.bib").entries
    prose = "\n".join("\n".join(part.lines) for part in parts(page) if isinstance(part, Prose))
    for keys in re.findall(r"\{cite(?::\w)?\}`([^`]+)`", prose):
        for key in keys.split(","):
            assert key.strip() in known


@each_page
def test_equations_are_plain_enough_for_every_reader(page):
    """LaTeX environments outside $$ are numbered by the builder but not by the exporter."""
    for part in parts(page):
        if isinstance(part, Prose):
            for line in part.lines:
                assert not line.startswith("\\begin{"), f"{page.path}: put {line} between $$"


def test_no_label_is_used_twice():
    labels = Counter(
        part.label
        for page in PAGES
        for part in parts(page)
        if isinstance(part, Math | Directive) and part.label
    )
    assert [label for label, count in labels.items() if count > 1] == []


def test_chapters_lie_in_the_folder_of_their_part():
    for page in CHAPTERS:
        assert re.match(r"[1-6]_\w+/\w+$", page.name), page.name
        assert page.number, f"{page.name} must be in a numbered part"


def test_the_glossary_gives_a_chinese_term_for_each():
    (glossary,) = [page for page in PAGES if page.name == "glossary"]
    terms = []
    for part in parts(glossary):
        if isinstance(part, Directive) and part.name == "glossary":
            entries = re.split(r"\n\s*\n", "\n".join(part.body).strip())
            terms += [entry.split("\n") for entry in entries]
    assert len(terms) >= 60
    for english, chinese, *definition in terms:
        assert re.search(r"[\u4e00-\u9fff]", chinese), f"{english}: no Chinese term"
        assert definition, f"{english}: no definition"
        assert all(line.startswith("  ") for line in definition), english


def test_the_chinese_font_has_every_character_that_is_used():
    from fontTools.ttLib import TTFont
    from subset_font import FONT, characters_used

    missing = characters_used() - set(map(chr, TTFont(FONT).getBestCmap()))
    assert not missing, f"{''.join(sorted(missing))}: run book/_tools/subset_font.py again"


def test_the_readme_opens_notebooks_at_the_configured_address(repo):
    address = read_address()
    text = (repo / "README.md").read_text("utf-8")
    links = re.findall(r"https?://[^\s)>\"]+\.ipynb", text)
    for link in links:
        name = link.split(f"/{address.folder}/")[-1]
        good = {
            address.colab(name),
            address.binder(name),
            address.page(f"{address.folder}/{name}"),
        }
        assert link in good, f"README.md: {link} should be one of {good} (see book/publishing.md)"
        assert (repo / address.folder / name).is_file(), f"README.md: there is no {name}"


def test_the_table_of_systems_names_chapters_and_papers_that_exist(repo):
    """One table, `_status.md`, says how far the book is, with the widths of the weights."""
    text = (repo / "book" / "_status.md").read_text("utf-8")
    rows = [line for line in text.splitlines()[2:] if line]
    assert len(rows) == 8
    known = References(repo / "book" / "references.bib").entries
    for row in rows:
        assert set(re.findall(r"\{cite:p\}`([^`]+)`", row)) <= set(known), row
        for chapter in re.findall(r"\{doc\}`/([^`]+)`", row):
            assert chapter in {page.name for page in CHAPTERS}, row
        model = re.search(r"\{doc\}`/4_models/(\w+)`", row)[1]
        runs = [repo / f"data/checkpoints/{model}-{v}/run.json" for v in ("paper", "fixed")]
        widths = dict.fromkeys(json.loads(run.read_text())["config"]["width"] for run in runs)
        said = row.rsplit("|", 2)[1].split(" and ")
        assert [float(Fraction(width.strip())) for width in said] == list(widths), row


def test_licences_lie_beside_what_is_vendored(repo):
    vendor = repo / "book" / "_assets" / "vendor"
    for folder in vendor.iterdir():
        assert list(folder.glob("LICENSE*")), f"no licence in {folder}"
    size = sum(path.stat().st_size for path in vendor.rglob("*") if path.is_file())
    assert size < 4_000_000


def test_the_table_of_contents_must_name_files_that_exist(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: nowhere\n")
    with pytest.raises(BookError, match=r"names nowhere, but there is no"):
        read_pages(tmp_path)


def test_plain_code_is_not_taken_for_markup():
    (code,) = blocks(["```python", "x = '{eq}`no`'", "```"], 1, "page.md")
    assert isinstance(code, Code)
