"""Cut a Chinese font down to the characters that the pages use (20 kB instead of a megabyte).

    npm pack @fontsource/noto-sans-sc && tar xzf fontsource-noto-sans-sc-*.tgz
    .venv/bin/python book/_tools/subset_font.py \
        package/files/noto-sans-sc-chinese-simplified-400-normal.woff

A test says when it has to be run again.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bookfiles import REPO

FONT = REPO / "book" / "_assets" / "vendor" / "fonts" / "noto-sans-sc-subset.woff"
CHINESE = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")


def characters_used(book: Path = REPO / "book") -> set[str]:
    """Chinese characters and punctuation in the pages."""
    return {c for page in book.rglob("*.md") for c in CHINESE.findall(page.read_text("utf-8"))}


def main(source: str) -> None:
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    font = TTFont(source)
    subsetter = Subsetter(Options(layout_features=[], notdef_outline=True))
    subsetter.populate(text="".join(sorted(characters_used())))
    subsetter.subset(font)
    font.flavor = "woff"
    font.save(FONT)
    print(f"{FONT.relative_to(REPO)}: {FONT.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
