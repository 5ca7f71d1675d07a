"""The fixed split: which formula belongs to training, validation and test, in every data set."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "val", "test")  # stored as 0, 1, 2 in the files under data/
_SALT = "imd-split-1"


def formula_key(formula: str) -> str:
    """One spelling for each composition: atomic numbers in order, with counts.

    ``formula_key("Mg(NO3)2") == formula_key("N2O6Mg1") == "7:2 8:6 12:1"``.

    Raises:
        InputError: not a formula.
    """
    from ..crystals.compositions import integer_amounts

    return " ".join(f"{z}:{n}" for z, n in sorted(integer_amounts(formula).items()))


def split_of(formula: str) -> str:
    """``train``, ``val`` or ``test`` (80 / 10 / 10), decided by the composition alone.

    The first 8 bytes of SHA-256 of ``"imd-split-1 " + formula_key(formula)``, read as a big-endian
    fraction of 2^64: below 0.8 train, below 0.9 val, else test. All polymorphs of a
    composition, in all data sets, are on the same side.

    Raises:
        InputError: not a formula.
    """
    return split_of_name(formula_key(formula))


def split_of_name(name: str) -> str:
    """The same for a name of another kind, such as the code of a zeolite's framework type."""
    digest = hashlib.sha256(f"{_SALT} {name}".encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") * 10 >> 64
    return SPLITS[max(0, tenth - 7)]
