"""The built pages, read as files: complete, self-contained, described for those who cannot see."""

import re
import sys

import nbformat
import pytest
from bookfiles import read_address, read_pages

PAGES = read_pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
MOST_BYTES = 40_000_000


def read(html, page):
    return (html / f"{page.name}.html").read_text("utf-8")


@each_page
def test_nothing_is_loaded_from_another_host(html, page):
    text = read(html, page)
    loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)", text)
    loaded += re.findall(
        r"<link\b(?=[^>]*rel=\"(?:stylesheet|preload|icon))[^>]*href=\"([^\"]+)", text
    )
    assert loaded
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []


@each_page
def test_every_picture_is_described(html, page):
    article = read(html, page).split('<article class="bd-article"')[1].split("</article>")[0]
    for tag in re.findall(r"<img\b[^>]*>", article):
        alt = re.search(r'alt="([^"]*)"', tag)
        assert alt, tag
        assert alt[1], tag
        assert "_images/" not in alt[1], f"the path stands in for a description: {tag}"


@each_page
def test_launch_buttons_open_files_that_exist(html, page, repo):
    address = read_address()
    text = read(html, page)
    links = re.findall(r'href="(https://(?:colab\.research\.google\.com|mybinder\.org)[^"]+)', text)
    assert bool(links) == page.is_chapter
    if page.is_chapter:
        notebook = f"{page.name}.ipynb"
        assert (repo / address.folder / notebook).is_file(), f"run `make notebooks`: {notebook}"
        assert {address.colab(notebook), address.binder(notebook)} <= set(links)


@each_page
def test_the_download_button_serves_the_notebook_beside_the_chapter(html, page, repo):
    links = re.findall(r'href="([^"]+)"[^>]*btn-download-notebook-button', read(html, page))
    assert len(links) == page.is_chapter
    for link in links:
        served = ((html / page.name).parent / link).resolve()
        assert served.read_bytes() == (repo / "book" / f"{page.name}.ipynb").read_bytes()


def test_a_folded_cell_says_what_is_in_it(repo):
    sys.path.insert(0, str(repo / "book" / "_ext"))
    from imd_pages import what_is_folded

    assert what_is_folded("assert a\nassert b") == "Check, 2 assertions"
    assert what_is_folded("# no one twice\nassert a") == "Check: no one twice"
    assert what_is_folded("fig, ax = plt.subplots()") == "Code of the figure"
    assert what_is_folded("plt.show()\nassert a") == "Code of the figure"


def test_a_unit_stays_with_its_number_in_prose_and_is_left_alone_in_code(repo):
    sys.path.insert(0, str(repo / "book" / "_ext"))
    from docutils import nodes
    from imd_pages import keep_units_with_numbers

    said, code = nodes.paragraph("", "", nodes.Text("95 % of 5 samples")), nodes.literal("", "5 s")
    keep_units_with_numbers(None, nodes.section("", said, code), "")
    assert (said.astext(), code.astext()) == ("95\u00a0% of 5 samples", "5 s")


@each_page
def test_a_page_ends_with_a_way_to_say_what_is_wrong_with_it(html, page):
    text = read(html, page)
    assert f"{read_address().url}/issues/new?title=Page%20{page.name}" in text
    assert "THEBE_JS_URL" not in text  # sphinx-thebe declares it twice, an error on each page


def test_pictures_made_by_cells_have_caption_and_text(html):
    for path in sorted((html.parent / "jupyter_execute").rglob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            drawn = any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))
            if drawn:
                settings = cell.metadata.get("mystnb", {})
                assert settings.get("figure", {}).get("caption"), f"{path.stem}: {cell.source[:80]}"
                assert settings.get("image", {}).get("alt"), f"{path.stem}: {cell.source[:80]}"


def test_pages_that_are_no_longer_in_the_book_are_gone(html):
    expected = {f"{page.name}.html" for page in PAGES} | {"genindex.html", "search.html"}
    found = {str(path.relative_to(html)) for path in html.rglob("*.html")}
    found = {name for name in found if not name.startswith(("_static/", "_sources/"))}
    assert found == expected


def test_no_cell_failed(html):
    import build

    assert build.failed_cells() == []
    assert build.error_logs() == []


def test_the_site_is_small_enough_to_copy(html):
    size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
    assert size <= MOST_BYTES
