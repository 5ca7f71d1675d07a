"""References as plain text, from ``references.bib``."""

from __future__ import annotations

from pathlib import Path

from pybtex.database import Entry, parse_file
from pybtex.richtext import Text


class References:
    """Looks up citation keys, and remembers nothing: the caller knows what was cited."""

    def __init__(self, path: Path) -> None:
        self.entries = dict(parse_file(str(path), bib_format="bibtex").entries)
        self._letters = self._distinguish()

    def textual(self, key: str) -> str:
        """``Author et al. (Year)``."""
        return f"{self._names(key)} ({self._year(key)})"

    def parenthetical(self, keys: list[str]) -> str:
        """``(Author et al., Year; Other, Year)``."""
        return "(" + "; ".join(f"{self._names(key)}, {self._year(key)}" for key in keys) + ")"

    def full(self, key: str) -> str:
        """One line of a list of references, in Markdown."""
        entry = self.entries[key]
        authors = ", ".join(_full_name(person) for person in entry.persons["author"])
        parts = [f"{authors} ({self._year(key)})", _plain(entry, "title")]
        venue = next(
            (
                _plain(entry, name)
                for name in ("journal", "booktitle", "publisher")
                if name in entry.fields
            ),
            "",
        )
        where = f"*{venue}*" if venue else ""
        if "volume" in entry.fields:
            where += f" **{_plain(entry, 'volume')}**"
        if "pages" in entry.fields:
            where += f", {_plain(entry, 'pages').replace('--', '–')}"
        link = (
            f"https://doi.org/{entry.fields['doi']}"
            if "doi" in entry.fields
            else entry.fields.get("url", "")
        )
        return ". ".join(part for part in (*parts, where, link) if part)

    def sort_key(self, key: str) -> tuple[str, str]:
        """Alphabetical by first author, then by year."""
        return self._names(key).lower(), self._year(key)

    def _names(self, key: str) -> str:
        names = [_last_name(person) for person in self.entries[key].persons["author"]]
        if len(names) > 2:
            return f"{names[0]} et al."
        return " and ".join(names)

    def _year(self, key: str) -> str:
        return self.entries[key].fields["year"] + self._letters.get(key, "")

    def _distinguish(self) -> dict[str, str]:
        """Letters after the year for works that would otherwise be cited alike."""
        self._letters = {}
        groups: dict[str, list[str]] = {}
        for key in sorted(self.entries):
            groups.setdefault(self.textual(key), []).append(key)
        return {
            key: "abcdefgh"[index]
            for keys in groups.values()
            if len(keys) > 1
            for index, key in enumerate(keys)
        }


def _plain(entry: Entry, name: str) -> str:
    return str(Text.from_latex(entry.fields[name]))


def _last_name(person: object) -> str:
    return " ".join(str(Text.from_latex(part)) for part in person.prelast_names + person.last_names)


def _full_name(person: object) -> str:
    given = person.first_names + person.middle_names
    initials = " ".join(f"{str(Text.from_latex(part))[0]}." for part in given if part)
    return f"{_last_name(person)} {initials}".strip()
