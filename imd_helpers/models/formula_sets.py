"""The sets of formulas that composition models learn from, in the roles that MatGAN's sets had."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..descriptors.composition_matrix import CompositionMatrix
from ..runtime import InputError, lookup

# role: (data set, what is kept)
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
        keep &= splits == lookup("split", split, ("train", "val", "test"))
    if value is None:
        return counts[keep], None
    lookup("property", value, PROPERTIES)
    if value not in values:
        raise InputError(f"the training set {role!r} holds no {value}: take icsd or oqmd")
    keep &= np.isfinite(values[value]) & (np.abs(values["formation_energy"]) < 5)
    return counts[keep], values[value][keep]


@cache
def _role(role: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """All compositions of a role with split and properties; treat them as read-only."""
    from .. import datasets

    if role == "mp":
        table = datasets.load("mp_e_hull").table
        table = table[table["energy_above_hull"] <= NEAR_HULL].drop_duplicates("formula")
    elif role == "oqmd":
        table = datasets.load("oqmd_formulas").table
    else:
        table = datasets.load("oqmd_icsd").table
        table = table.sort_values("formation_energy").drop_duplicates("formula").sort_index()
    read = CompositionMatrix().read(table["formula"].tolist())
    keep = read.ok
    values = {name: table[name].to_numpy(dtype=float)[keep] for name in PROPERTIES if name in table}
    return read.counts[keep], table["split"].to_numpy().astype(str)[keep], values
