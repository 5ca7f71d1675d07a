"""The sets of formulas that composition models learn from, in the roles that MatGAN's sets had."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..crystals.compositions import member
from ..descriptors.composition_matrix import CompositionMatrix
from ..runtime import InputError, lookup
from . import SPLITS, load

ROLES = ("icsd", "oqmd", "mp")
PROPERTIES = ("formation_energy", "band_gap")
NEAR_HULL = 0.05  # eV/atom; the role of MP holds compositions that may be made


def compositions(
    role: str, *, split: str | None = "train", value: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compositions of one role and split, and a property of each if asked for.

    ``icsd``: compositions of the crystals of ``oqmd_icsd``, which come from the ICSD.
    ``oqmd``: ``oqmd_formulas``, mostly hypothetical. ``mp``: those of ``mp_e_hull`` within
    0.05 eV/atom of the hull. Each keeps what fits MatGAN's matrix: 2 to 8 of 85 elements, at most
    8 atoms of each.

    Args:
        role: one of `ROLES`.
        split: ``train``, ``val``, ``test``, or None for all.
        value: ``formation_energy`` in eV/atom or ``band_gap`` in eV; of several crystals of one
            composition, the one with the lowest formation energy counts.

    Returns:
        (n, 119) int8 reduced counts, each composition once, and (n,) float64 values or None.

    Raises:
        UnknownNameError: no such role, split or property.
        InputError: a role that does not know the property.
    """
    lookup("training set", role, ROLES)
    counts, splits, values = _role(role)
    keep = np.ones(len(counts), dtype=bool)
    if split is not None:
        keep &= splits == lookup("split", split, SPLITS)
    if value is None:
        return counts[keep], None
    lookup("property", value, PROPERTIES)
    if value not in values:
        raise InputError(f"the training set {role!r} holds no {value}: take icsd or oqmd")
    keep &= np.isfinite(values[value]) & (np.abs(values["formation_energy"]) < 5)
    return counts[keep], values[value][keep]


def made_and_unlabelled(
    split: str | None = "train", *, unlabelled: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compositions that were made, and compositions of which nothing is known.

    Made: those of the ICSD's crystals (role ``icsd``). Unlabelled: the formulas of OQMD (role
    ``oqmd``) that are not among them, in any split; most were enumerated.

    Args:
        split: ``train``, ``val``, ``test`` or None for all; the same rule for both.
        unlabelled: draw so many at random, in random order; all if None.

    Returns:
        (n, 119) and (m, 119) int8 reduced counts, each composition once.

    Raises:
        InputError: more unlabelled wanted than there are.
    """
    made, others = compositions("icsd", split=split)[0], compositions("oqmd", split=split)[0]
    others = others[~member(others, compositions("icsd", split=None)[0])]
    if unlabelled is None:
        return made, others
    if unlabelled > len(others):
        raise InputError(f"unlabelled={unlabelled}: there are only {len(others)}")
    rng = np.random.default_rng(0)
    return made, others[rng.choice(len(others), size=unlabelled, replace=False)]


@cache
def _role(role: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All compositions of a role with split and properties; treat them as read-only."""
    if role == "mp":
        table = load("mp_e_hull").table
        table = table[table["energy_above_hull"] <= NEAR_HULL].drop_duplicates("formula")
    elif role == "oqmd":
        table = load("oqmd_formulas").table
    else:
        table = load("oqmd_icsd").table
        lowest_first = table.sort_values("formation_energy", kind="stable")
        table = lowest_first.drop_duplicates("formula").sort_index()
    read = CompositionMatrix().read(table["formula"].tolist())
    keep = read.ok
    values = {name: table[name].to_numpy(dtype=float)[keep] for name in PROPERTIES if name in table}
    return read.counts[keep], table["split"].to_numpy().astype(str)[keep], values
