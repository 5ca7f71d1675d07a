"""Data sets that are too large to travel with the package: where they are, and how to trust them.

They are listed in `data/remote/sets.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..runtime import read_toml


@dataclass(frozen=True)
class RemoteFile:
    """One file: its name in the cache, where to get it, and what it must be."""

    path: str
    urls: tuple[str, ...]  # tried in turn
    checksum: str  # sha256:<hex>, md5:<hex>, or git:<hex>, SHA-1 over "blob <size>" and the content
    size: int | None = None  # bytes, None where the publisher does not say
    split: str | None = None  # which part of the published split, if the files are the parts


@dataclass(frozen=True)
class RemoteSet:
    """A downloadable data set.

    `load` reads it by its ``kind``: ``cif_csv`` (tables with a column `cif`), ``cif_zip`` (a zip of
    such tables), ``json`` (pandas' "split" layout, structures as pymatgen dicts), or ``files``
    (`fetch` only).
    """

    name: str
    title: str  # one line
    files: tuple[RemoteFile, ...]
    kind: str
    licence: str  # of the data, as its publisher states it
    citation: str
    rows: int | None = None  # as published
    columns: Mapping[str, str] = field(default_factory=dict)  # published names -> names used here
    notes: str = ""  # what to know before use

    def card(self) -> str:
        """The card as Markdown."""
        rows = "not stated" if self.rows is None else f"{self.rows:,}"
        columns = [f"- `{old}` is called `{new}` here" for old, new in self.columns.items()]
        lines = [
            f"# {self.name}: {self.title}",
            *("", "## Origin", "", *(f"- <{url}>" for file in self.files for url in file.urls)),
            *("", "## Licence", "", self.licence),
            *("", "## Columns and units", "", _UNITS, "", *columns),
            *("", "## Counts", "", f"Rows as published: {rows}."),
            *("", "## Known faults", "", self.notes or "None recorded."),
            *("", "## How it was made", "", "Published by others; downloaded and checked:", ""),
            *(f"- `{f.path}`: {_size(f)}, `{f.checksum}`" for f in self.files),
            *("", "## Citation", "", self.citation, ""),
        ]
        return "\n".join(lines)


_UNITS = "As published: Å, eV/atom for energies and eV for gaps unless a known fault says other."


def _size(file: RemoteFile) -> str:
    return "size not stated" if file.size is None else f"{file.size:,} bytes"


def _read() -> dict[str, RemoteSet]:
    sets = {}
    for name, entry in read_toml("remote", "sets.toml").items():
        files = tuple(RemoteFile(**file) for file in entry.pop("files"))
        sets[name] = RemoteSet(name, files=files, **entry)
    return sets


REGISTRY: Mapping[str, RemoteSet] = MappingProxyType(_read())
