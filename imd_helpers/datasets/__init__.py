"""Where crystals and formulas come from: ``names()``, ``card(name)``, ``load(name)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..runtime import InputError, data_path, lookup
from . import remote
from .embedded import (
    FormulaTable,
    Zeolites,
    load_cubic_prototypes,
    load_formulas,
    load_oqmd_icsd,
    load_substituted,
    load_zeolites,
)
from .parsing import read_cif_csv, read_set
from .registry import REGISTRY
from .remote import DownloadError
from .splits import SPLITS, split_of
from .store import CrystalSet

__all__ = [
    "SPLITS",
    "Card",
    "CrystalSet",
    "DownloadError",
    "FormulaTable",
    "Zeolites",
    "card",
    "fetch",
    "load",
    "names",
    "read_cif_csv",
    "split_of",
]

_FORMULA_TABLES = ("oqmd_formulas", "mp_e_form", "mp_gap", "mp_e_hull", "expt_gap")
EMBEDDED: dict[str, Callable[[], Any]] = {
    "oqmd_icsd": load_oqmd_icsd,
    "cubic_prototypes": load_cubic_prototypes,
    **{name: partial(load_formulas, name) for name in _FORMULA_TABLES},
    "iza_zeolites": load_zeolites,
    "hydrides": partial(load_substituted, "hydrides", "mg_h", "ti_h", "pd_h", "ni_h"),
    "mg_mn_o": partial(load_substituted, "mg_mn_o"),
    "v_o": partial(load_substituted, "v_o"),
    "bi_se": partial(load_substituted, "bi_se"),
}


class Card(str):
    """The card of a data set: a string that notebooks show as formatted text."""

    __repr__ = _repr_markdown_ = str.__str__


def names() -> list[str]:
    """Names of all data sets: first those in the package, then those to download."""
    return [*EMBEDDED, *REGISTRY]


def card(name: str) -> Card:
    """Origin, licence, columns and units, counts, faults, making and citation of a data set.

    Raises:
        UnknownNameError: no such data set; the known ones are listed, nearest first.
    """
    lookup("data set", name, names())
    if name in REGISTRY:
        return Card(REGISTRY[name].card())
    return Card(data_path(name, "README.md").read_text(encoding="utf-8"))


def load(name: str, split: str | None = None) -> Any:
    """Load a data set, downloading it first if it is not in the package.

    Args:
        name: one of `names()`.
        split: ``train``, ``val`` or ``test``; default: all.

    Returns:
        A `CrystalSet` where there are structures, a `FormulaTable` where there are only formulas,
        or `Zeolites`.

    Raises:
        UnknownNameError: no such data set or split; the known ones are listed, nearest first.
        InputError: the data set cannot be split, or has no reader.
        DownloadError: it could not be downloaded.
    """
    lookup("data set", name, names())
    if split is not None:
        lookup("split", split, SPLITS)
    if name in EMBEDDED:
        data = EMBEDDED[name]()
    elif (entry := REGISTRY[name]).kind == "files":
        raise InputError(
            f"{name} has no reader: imd.datasets.fetch({name!r}) returns the paths of its files, "
            "and its card says what they hold"
        )
    else:
        data = read_set(entry, remote.fetch(entry, split), split)
    return data if split is None else data.select(split=split)


def fetch(name: str) -> list[Path]:
    """Download a data set if it is not on this machine yet, and return the paths of its files.

    Raises:
        UnknownNameError: no such data set.
        InputError: the data set is part of the package.
        DownloadError: it could not be downloaded.
    """
    lookup("data set", name, names())
    if name in EMBEDDED:
        raise InputError(
            f"{name} is part of the package, so there is nothing to download: use load({name!r})"
        )
    return remote.fetch(REGISTRY[name])
