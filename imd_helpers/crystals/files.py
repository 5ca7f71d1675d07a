"""Samples on disk: extended XYZ is written; what people have is read.

One item that is broken gets a reason, in its place; it takes none of the others down.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zipfile
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError
from ..work import write_atomic
from . import compositions, elements
from .batch import CrystalBatch
from .samples import Samples, assembled

if TYPE_CHECKING:
    from ase import Atoms

PACKED = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
SUFFIXES = (".cif", ".extxyz", ".xyz", ".vasp", ".poscar", ".csv", ".zip")
STRUCTURES = ("cif", "structure")
FORMULAS = ("formula", "composition", "pretty_formula", "reduced_formula")
HEADER = re.compile(r"\s*\d+\s*")
COMMENT = re.compile(r"(?i)\b(lattice|properties)\s*=")
ASKED = "requested_"  # columns of what the generator was asked for

Parts = list[CrystalBatch | str]
Columns = Mapping[str, Sequence[Any]]


def write(path: Path | str, crystals: CrystalBatch, **columns: Sequence[Any]) -> Path:
    """Write crystals as extended XYZ, with one value of each column beside every crystal."""
    from ase import Atoms
    from ase.io import write as ase_write

    images = []
    for i, (lattice, frac, numbers) in enumerate(crystals.each()):
        info = {name: _plain(values[i]) for name, values in columns.items()}
        images.append(Atoms(numbers, scaled_positions=frac, cell=lattice, pbc=True, info=info))
    text = StringIO()
    ase_write(text, images, format="extxyz")
    write_atomic(Path(path), text.getvalue().encode())
    return Path(path)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return "ok" if value == "" else value  # an empty string does not survive the format


def read(paths: Path | str | Sequence[Path | str]) -> Samples:
    """Read samples from a file or several, a folder (with its folders) or a zip file.

    Crystals from ``.cif``, ``.extxyz``, ``.xyz``, POSCAR, and tables ``.csv`` with a column ``cif``
    or ``structure``; compositions from tables with a column ``formula`` or ``composition``. Any of
    them may be packed (``.gz``, ``.xz``, ``.bz2``). Columns ``decoded_ok``, ``reason`` and
    ``requested_…``, which `imd sample` writes, are used where all frames have them.

    Raises:
        InputError: no such file, another suffix, nothing that can be read, or crystals and
            compositions together.
    """
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    sources = [source for path in given for source in _sources(Path(path))]
    found, readable, first = [], False, ""
    for name, data in sources:
        samples, some = _samples(name, data)
        readable |= some
        if len(sources) > 1:
            reasons = tuple(f"{name}: {why}" if why else "" for why in samples.reasons)
            samples = replace(samples, reasons=reasons)
        first = first or next(filter(None, samples.reasons), "")
        found.append(samples)
    label = ", ".join(map(str, given[:3])) + ", …" * (len(given) > 3)
    if not readable:
        raise InputError(f"{label} holds no crystal that can be read; the first: {first}")
    if len({type(samples.content) for samples in found}) > 1:
        raise InputError(f"{label} hold crystals and formulas: read one kind at a time")
    common = set.intersection(*(set(samples.asked) for samples in found))
    return Samples.cat(
        [replace(s, asked={key: s.asked[key] for key in sorted(common)}) for s in found]
    )


# ---- which files


def _sources(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of each file that is meant; tables only where there is nothing else."""
    kind = _kind(path.name)
    if path.is_dir():
        names = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
        content = lambda name: (path / name).read_bytes()  # noqa: E731
    elif kind is None:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: the suffix must be one of {known}, or of a folder")
    elif not path.is_file():
        raise InputError(f"no file {path}: check the path")
    elif kind != ".zip":
        yield path.name, path.read_bytes
        return
    else:
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(f"{path} is no zip file ({error}): pack it anew") from error
        names, content = archive.namelist(), archive.read
    hidden = re.compile(r"(^|/)(\.|__MACOSX)")
    files = [n for n in sorted(names) if _kind(n) not in (None, ".zip") and not hidden.search(n)]
    files = [name for name in files if _kind(name) != ".csv"] or files
    if not files:
        raise InputError(f"{path} holds no file of crystals: give {', '.join(SUFFIXES)}")
    yield from ((name, partial(content, name)) for name in files)


def _kind(name: str) -> str | None:
    """The suffix that tells how to read a file, if any does; that of packing does not count."""
    path = Path(name)
    path = path.with_suffix("") if path.suffix.lower() in PACKED else path
    if path.name.upper().startswith(("POSCAR", "CONTCAR")):
        return ".poscar"
    return path.suffix.lower() if path.suffix.lower() in SUFFIXES else None


# ---- what is in them


def _samples(name: str, data: Callable[[], bytes]) -> tuple[Samples, bool]:
    """What one file holds, and whether any of it could be read."""
    columns: Columns = {}
    try:
        content = PACKED.get(Path(name).suffix.lower(), bytes)(data())
        kind = _kind(name)
        if kind == ".csv":
            parts = _table(content)
        elif kind == ".cif":
            parts = _cif(_text(content))
        elif kind in (".extxyz", ".xyz"):
            parts, columns = _extxyz(_text(content))
        else:
            parts = [_from_ase(_text(content), "vasp", "POSCAR")[0]]
    except (OSError, EOFError, lzma.LZMAError, RuntimeError, zipfile.BadZipFile) as error:
        parts = [f"the file cannot be read ({error})"]
    except InputError as error:
        parts = [str(error)]
    if isinstance(parts, Samples):
        return parts, True
    some = any(not isinstance(part, str) for part in parts)
    return _told(assembled(parts), columns), some


def _text(content: bytes) -> str:
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _cif(text: str) -> Parts:
    from . import cif

    return cif.read(text) or ["no structure: no cell and no atoms"]


def _told(samples: Samples, columns: Columns) -> Samples:
    """Samples with what the file says of them: decoded or not and why, and what was asked for."""
    asked = {k.removeprefix(ASKED): np.array(v) for k, v in columns.items() if k.startswith(ASKED)}
    if "decoded_ok" in columns:
        told = [str(ok).strip().lower() in ("true", "t", "1") for ok in columns["decoded_ok"]]
        words = columns.get("reason", [""] * len(told))
        ok = samples.ok & np.array(told)
        reasons = tuple(
            "" if good else old or str(new if new not in ("", "ok") else "it did not decode")
            for good, old, new in zip(ok, samples.reasons, words, strict=True)
        )
        samples = replace(samples, ok=ok, reasons=reasons)
    return replace(samples, asked=asked)


# ---- extended XYZ and POSCAR, by ASE


def _extxyz(text: str) -> tuple[Parts, Columns]:
    """Crystals, and the columns that all frames have."""
    parts: Parts = []
    told: list[Mapping[str, Any]] = []
    for k, (frame, why) in enumerate(_frames(text), 1):
        part, info = (why, {}) if why else _from_ase(frame, "extxyz", "extended XYZ")
        parts.append(f"frame {k}: {part}" if isinstance(part, str) else part)
        told.append(info)
    if not parts:
        raise InputError("not readable as extended XYZ: the file is empty")
    common = set.intersection(*map(set, told))
    return parts, {name: [info[name] for info in told] for name in sorted(common)}


def _frames(text: str) -> Iterator[tuple[str, str]]:
    """Text of each frame, or why it is none; the next frame is found again behind a broken one."""
    lines = text.replace("\r\n", "\n").split("\n")
    pairs = enumerate(pairwise(lines))
    starts = [i for i, (n, below) in pairs if HEADER.fullmatch(n) and COMMENT.search(below)]
    starts.append(len(lines))
    at = 0
    while at < len(lines):
        line, following = lines[at], starts[bisect(starts, at)]
        end = at + 2 + int(line) if HEADER.fullmatch(line) else 0
        if not line.strip():
            at += 1
        elif 0 < end <= following:
            yield "\n".join(lines[at:end]) + "\n", ""
            at = end
        else:
            short = f"cut short, {line} atoms are announced"
            why = short if end else f"{line[:40]!r} is no number of atoms"
            yield "", f"not readable as extended XYZ: {why}"
            at = following


def _from_ase(text: str, form: str, name: str) -> tuple[CrystalBatch | str, dict[str, Any]]:
    from ase.io import read as ase_read

    try:
        atoms = ase_read(StringIO(text), index=0, format=form)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return f"not readable as {name} ({why}): write it with imd sample, ASE or OVITO", {}
    return _from_atoms(atoms), atoms.info


def _from_atoms(atoms: Atoms) -> CrystalBatch | str:
    cell = atoms.cell.array
    if len(atoms) == 0:
        return "no atoms"
    if not np.isfinite(cell).all() or not np.isfinite(atoms.positions).all():
        return "NaN or infinity in the cell or the coordinates"
    if abs(np.linalg.det(cell)) < 1e-6 or not atoms.pbc.all():
        return f"it has no periodic cell (pbc = {atoms.pbc.tolist()}), so it is no crystal"
    wrong = ~np.isin(atoms.numbers, range(1, elements.N_COLUMNS))
    if wrong.any():
        first = int(np.argmax(wrong))
        name = f"number {atoms.numbers[first]}" if atoms.numbers[first] else "X"
        return f"atom {first + 1} is {name}, no element from H to Og: give an element, or drop it"
    frac = atoms.get_scaled_positions(wrap=False)
    return CrystalBatch.from_ragged(cell[None], frac, atoms.numbers, [len(atoms)])


# ---- tables


def _table(content: bytes) -> Parts | Samples:
    """A row a sample: crystals from a column of structures, else compositions."""
    import pandas as pd

    try:
        table = pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False, na_filter=False)
    except ValueError as error:  # pandas' and that of the encoding
        raise InputError(f"not readable as a table ({error})") from error
    table.columns = [str(name).strip().lower() for name in table.columns]
    column = next((name for name in STRUCTURES + FORMULAS if name in table), None)
    if column is None or not len(table):
        raise InputError(
            f"a table of {len(table)} rows with columns {', '.join(table.columns)}: one of "
            f"{', '.join(STRUCTURES + FORMULAS)} is needed"
        )
    if column in STRUCTURES:
        return [structure(text) for text in table[column]]
    formulas = table[column].str.strip()
    counts, wrong = compositions.parse(formulas.tolist())
    words = table["reason"] if "reason" in table else [""] * len(table)
    reasons = [
        wrong.get(i, "") if formula else word or "no formula"
        for i, (formula, word) in enumerate(zip(formulas, words, strict=True))
    ]
    return Samples.from_reasons(counts, reasons)


def structure(given: Any) -> CrystalBatch | str:
    """What a row of a table holds, CIF or pymatgen's dictionary (or its JSON), or why not."""
    if isinstance(given, dict) or str(given).lstrip().startswith("{"):
        return _from_dict(given)
    found = _cif(str(given))
    return found[0] if len(found) == 1 else f"{len(found)} structures in one row: give one each"


def _from_dict(values: str | dict[str, Any]) -> CrystalBatch | str:
    from pymatgen.core import Structure

    try:
        values = json.loads(values) if isinstance(values, str) else values
        return CrystalBatch.from_structures([Structure.from_dict(values)])
    except InputError as error:
        return str(error).removeprefix("structure 0 ")
    except Exception as error:
        return f"no structure that pymatgen can read ({type(error).__name__}: {error})"
