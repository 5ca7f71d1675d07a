"""Prototypes: which sites a crystal occupies, whatever its elements and coordinates.

Two descriptions of one prototype differ by the letters that they give. Merged here: every order of
the elements; the changes of origin and axes that pymatgen's table lists for each space group
(Goodall et al., Sci. Adv. 8 (2022) eabn4117: the Euclidean normaliser, and in orthorhombic groups
the exchanges of axes of the affine one); the eleven pairs of enantiomorphic space groups. Not
merged: other changes of basis of triclinic and monoclinic cells (moyopy chooses one reduced basis,
which near a tie depends on rounding). A prototype does not know free coordinates, and one whose
symmetry is a subgroup of another's is another prototype.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections import Counter, defaultdict
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ..crystals import CrystalBatch, symmetry

NO_PROTOTYPE = ""
ENANTIOMORPHIC = {
    78: 76, 95: 91, 96: 92, 145: 144, 153: 151, 154: 152, 170: 169, 172: 171, 179: 178, 181: 180,
    213: 212,
}  # fmt: skip


def prototypes(crystals: CrystalBatch, *, symprec: float = 0.1) -> list[str]:
    """Name of each crystal's prototype, e.g. ``ABC3_221_a_b_c``; empty where none is found.

    The name holds the anonymous formula, the space group (the first of an enantiomorphic pair) and
    the Wyckoff letters of each element, in the description that sorts first; see the module for
    which descriptions are merged. Atoms may be ``symprec`` (Å) from the symmetric position.
    """
    out = [NO_PROTOTYPE] * len(crystals)
    found = symmetry.moyo_datasets(crystals, symprec=symprec)
    for i, ((_, _, z_of), data) in enumerate(zip(crystals.each(), found, strict=True)):
        if data is None:
            continue
        letters: dict[int, list[str]] = defaultdict(list)
        for site in sorted(set(data.orbits)):
            letters[int(z_of[site])].append(data.wyckoffs[site])
        atoms = Counter(z_of.tolist())
        common = int(np.gcd.reduce(list(atoms.values())))
        occupied = tuple(sorted((atoms[z] // common, tuple(sorted(letters[z]))) for z in letters))
        out[i] = _first_name(data.number, occupied)
    return out


@lru_cache(maxsize=200_000)
def _first_name(number: int, occupied: tuple[tuple[int, tuple[str, ...]], ...]) -> str:
    """The description that sorts first among all equal ones."""
    best = min(
        tuple(
            sorted((count, tuple(sorted(names[a] for a in letters))) for count, letters in occupied)
        )
        for names in relabellings()[number]
    )
    formula = "".join(
        f"{chr(ord('A') + k)}{count if count > 1 else ''}" for k, (count, _) in enumerate(best)
    )
    positions = "_".join(
        "".join(
            f"{letter}{times if times > 1 else ''}" for letter, times in Counter(letters).items()
        )
        for _, letters in best
    )
    return f"{formula}_{ENANTIOMORPHIC.get(number, number)}_{positions}"


@cache
def relabellings() -> dict[int, list[dict[str, str]]]:
    """Space group -> what its Wyckoff letters become in the other descriptions of a crystal."""
    spec = importlib.util.find_spec("pymatgen.analysis")
    roots = spec.submodule_search_locations if spec else None
    for root in roots or ():
        for path in Path(root).rglob("wyckoff-position-relabelings.json*"):
            raw = path.read_bytes()
            table = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
            return {
                int(number): [{chr(int(a)): b for a, b in names.items()} for names in maps]
                for number, maps in table.items()
            }
    raise FileNotFoundError(
        "pymatgen's table wyckoff-position-relabelings is missing: install pymatgen>=2025.6.14"
    )
