"""What the book adds to Sphinx: the repository's address, the right download, a link for feedback.

``_config.yml`` is the only place that knows the address.
"""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copyfile
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx

FEEDBACK = """<p class="imd-feedback">Something wrong or unclear on this page?
<a href="{url}/issues/new?title={title}">Say so</a>, or read the
<a href="{url}/issues">open questions</a>.</p>"""
UNIT = re.compile(r"(?<=\d) (?=(%|Å|°|[mk]?eV|GPa|THz|kJ|GB|MB|K|s)(?!\w))")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", put_address)
    app.connect("doctree-read", say_what_is_folded)
    app.connect("doctree-resolved", keep_units_with_numbers)
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("html-page-context", with_feedback, priority=900)
    app.connect("build-finished", serve_exported_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def put_address(app: Sphinx, _name: str, source: list[str]) -> None:
    """REPOSITORY_URL and REPOSITORY_NAME in a source become the address."""
    url = address(app)
    source[0] = source[0].replace("REPOSITORY_URL", url)
    source[0] = source[0].replace("REPOSITORY_NAME", url.rsplit("/", 1)[-1])


def address(app: Sphinx) -> str:
    return app.config.html_theme_options["repository_url"].rstrip("/")


def keep_units_with_numbers(_app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """No line of prose ends between a number and its unit."""
    code = (nodes.literal, nodes.math, nodes.FixedTextElement)
    for text in filter(UNIT.search, list(doctree.findall(nodes.Text))):
        if text.parent and not isinstance(text.parent, code):
            text.parent.replace(text, nodes.Text(UNIT.sub("\u00a0", text)))


def say_what_is_folded(_app: Sphinx, doctree: nodes.document) -> None:
    """A folded cell says what is in it: a check, with its first comment, or a drawing."""
    for cell in doctree.findall(nodes.container):
        if "prompt_show" in cell:
            source = next(cell.findall(nodes.literal_block)).astext()
            cell["prompt_show"], cell["prompt_hide"] = what_is_folded(source), "Fold"


def what_is_folded(source: str) -> str:
    """The line in place of a folded cell."""
    lines = source.splitlines()
    checks = sum(line.lstrip().startswith("assert ") for line in lines)
    if "plt." in source:
        return "Code of the figure"
    if not checks:
        return "Code"
    if lines[0].startswith("# "):
        return f"Check: {lines[0][2:]}"
    return f"Check, {checks} assertion{'s' * (checks > 1)}"


def without_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: Any):
    """Leave out sphinx-thebe, which Jupyter Book always loads: it declares a constant twice."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body')}"
    ]


def with_feedback(app: Sphinx, page: str, _template: str, context: dict[str, Any], tree: Any):
    """End each page that has a source with a link to say what is wrong with it."""
    if tree is not None:
        title = quote(f"Page {page}: ")
        context["body"] += FEEDBACK.format(url=address(app), title=title)


def serve_exported_notebooks(app: Sphinx, problem: Exception | None) -> None:
    """Put the exported notebooks where the download button looks; the theme puts raw MyST there."""
    if problem is None and app.builder.name == "html":
        for served in (Path(app.outdir) / "_sources").rglob("*.ipynb"):
            name = served.relative_to(Path(app.outdir) / "_sources")
            copyfile(Path(app.srcdir) / name, served)
