"""Puts the repository's address into pages: REPOSITORY_URL and REPOSITORY_NAME in the sources.

``_config.yml`` is the only place that knows the address.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    def put_address(app: Sphinx, _name: str, source: list[str]) -> None:
        url = app.config.html_theme_options["repository_url"].rstrip("/")
        text = source[0].replace("REPOSITORY_URL", url)
        source[0] = text.replace("REPOSITORY_NAME", url.rsplit("/", 1)[-1])

    app.connect("source-read", put_address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
