"""Crystals on disk, in the extended XYZ format that ASE, OVITO and most potentials read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import InputError
from .batch import CrystalBatch


def write(path: Path | str, crystals: CrystalBatch, **columns: Sequence[Any]) -> Path:
    """Write crystals to ``.extxyz``, with one value of each column beside every crystal.

    The file appears only when it is complete.

    Raises:
        InputError: another suffix, or a column of another length.
    """
    from ase import Atoms
    from ase.io import write as ase_write

    path = _checked(path)
    for name, values in columns.items():
        if len(values) != len(crystals):
            raise InputError(f"{name} has {len(values)} values for {len(crystals)} crystals")
    lattice, frac = crystals.lattice.cpu().numpy(), crystals.frac.detach().cpu().numpy()
    numbers = crystals.numbers.cpu().numpy()
    images = []
    for i in range(len(crystals)):
        n = int((numbers[i] > 0).sum())
        info = {name: _plain(values[i]) for name, values in columns.items()}
        images.append(
            Atoms(
                numbers[i, :n], scaled_positions=frac[i, :n], cell=lattice[i], pbc=True, info=info
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    ase_write(partial, images, format="extxyz")
    partial.replace(path)
    return path


def read(path: Path | str) -> tuple[CrystalBatch, dict[str, np.ndarray]]:
    """Read ``.extxyz`` (or ``.cif``) into a batch and the columns that all crystals carry.

    Raises:
        InputError: no such file, another suffix, no crystal, or one without a periodic cell.
    """
    path = _checked(path, suffixes=(".extxyz", ".cif"))
    if not path.is_file():
        raise InputError(f"no file {path}: check the path")
    if path.suffix == ".cif":
        return _read_cif(path), {}
    from ase.io import read as ase_read

    try:
        images = ase_read(path, index=":", format="extxyz")
    except Exception as error:
        raise InputError(f"{path} is not readable as extended XYZ: {error}") from error
    if not images:
        raise InputError(f"{path} holds no crystal")
    for i, atoms in enumerate(images):
        if abs(atoms.cell.volume) < 1e-6:
            raise InputError(f"{path}, crystal {i}: it has no periodic cell, so it is no crystal")
    crystals = CrystalBatch.from_ragged(
        np.array([atoms.cell.array for atoms in images]),
        np.concatenate([atoms.get_scaled_positions() for atoms in images]),
        np.concatenate([atoms.numbers for atoms in images]),
        [len(atoms) for atoms in images],
    )
    common = set.intersection(*(set(atoms.info) for atoms in images))
    columns = {
        name: np.array([_text(atoms.info[name]) for atoms in images]) for name in sorted(common)
    }
    return crystals, columns


def _read_cif(path: Path) -> CrystalBatch:
    from pymatgen.io.cif import CifParser

    try:
        structures = CifParser(path).parse_structures(primitive=False)
    except ValueError as error:
        raise InputError(f"{path} holds no structure that pymatgen can read: {error}") from error
    return CrystalBatch.from_structures(structures)


def _checked(path: Path | str, *, suffixes: tuple[str, ...] = (".extxyz",)) -> Path:
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(f"{path}: the suffix must be one of {', '.join(suffixes)}")
    return path


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return "ok" if value == "" else value  # an empty string does not survive the format


def _text(value: Any) -> Any:
    return "" if isinstance(value, str) and value == "ok" else value
