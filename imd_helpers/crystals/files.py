"""Samples on disk: extended XYZ is written; what people have is read.

One item that is broken gets a reason, in its place; it takes none of the others down.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
import zipfile
import zlib
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError
from ..work import write_atomic
from . import compositions, elements
from .batch import CrystalBatch
from .samples import Samples, assembled, one_structure

if TYPE_CHECKING:
    from ase import Atoms

PACKED = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
UNPACKING = (OSError, EOFError, lzma.LZMAError, zlib.error, RuntimeError, zipfile.BadZipFile)
SUFFIXES = (".cif", ".extxyz", ".xyz", ".vasp", ".poscar", ".csv", ".zip")
STRUCTURES = ("cif", "structure")
FORMULAS = ("formula", "composition", "pretty_formula", "formula_pretty", "reduced_formula")
SEPARATORS = ",;\t|"
HEADER = re.compile(r"\s*\d{1,9}\s*")
COMMENT = re.compile(r"(?i)\b(lattice|properties)(?=\s*=)")
PBC = re.compile(r"(?i)\bpbc\s*=\s*(.*?)\s*(?=\w+\s*=|$)")
PLACE = re.compile(r"(?i)(([-+.\de]+|nan|inf)( |$)){3}")
POSITIONS = re.compile(r"(?i)(\bpos|\bpositions):R:3\b")
BROKEN = float("nan")  # in the columns, for what cannot be read
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
    # an empty string does not survive the format
    return "ok" if isinstance(value, str) and not value else value


def read(paths: Path | str | Sequence[Path | str]) -> Samples:
    """Read samples from a file or several, a folder (with its folders) or a zip file.

    Crystals from ``.cif``, ``.extxyz``, ``.xyz``, POSCAR, and tables ``.csv`` with a column ``cif``
    or ``structure``; compositions from tables with a column ``formula`` or ``composition``. Any of
    them may be packed (``.gz``, ``.xz``, ``.bz2``). Columns ``decoded_ok``, ``reason`` and
    ``requested_…``, which `imd sample` writes, are used where all frames (that can be read) or the
    header have them. Tables may be separated by comma, semicolon, tab or bar.

    Raises:
        InputError: no such file, another suffix, nothing that can be read, or crystals and
            compositions together.
    """
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    sources = [source for path in given for source in _sources(Path(path))]
    found, kinds, first = [], set(), ""
    for name, data in sources:
        samples, some = _samples(name, data)
        kinds |= {type(samples.content)} if some else set()
        if len(sources) > 1:
            reasons = tuple(f"{name}: {why}" if why else "" for why in samples.reasons)
            samples = replace(samples, reasons=reasons)
        first = first or next(filter(None, samples.reasons), "")
        found.append(samples)
    label = ", ".join(map(str, given[:3])) + ", …" * (len(given) > 3)
    if not kinds:
        raise InputError(f"{label} holds no crystal that can be read; the first: {first}")
    if len(kinds) > 1:
        raise InputError(f"{label} hold crystals and formulas: read one kind at a time")
    if np.ndarray in kinds:  # a file that is no table keeps a place among formulas
        found = [s if s.ok.any() else replace(s, content=compositions.none(len(s))) for s in found]
    common = set.intersection(*(set(samples.asked) for samples in found))
    return Samples.cat(
        [replace(s, asked={key: s.asked[key] for key in sorted(common)}) for s in found]
    )


# ---- which files


def _sources(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of each file that is meant; tables only where there is nothing else."""
    kind = _kind(path.name)
    if path.is_dir():
        files = [(str(p.relative_to(path)), p.read_bytes) for p in path.rglob("*") if p.is_file()]
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
        members = [info for info in archive.infolist() if not info.is_dir()]
        files = [(info.filename, partial(archive.read, info)) for info in members]
    hidden = re.compile(r"(^|/)(\.|__MACOSX)")
    others = (None, ".zip") if path.is_dir() else (None,)  # in a folder it may be what is unpacked
    files = [f for f in files if _kind(f[0]) not in others and not hidden.search(f[0])]
    files = [f for f in files if _kind(f[0]) != ".csv"] or files
    if not files:
        raise InputError(f"{path} holds no file of crystals: give {', '.join(SUFFIXES)}")
    yield from sorted(files, key=itemgetter(0))


def _kind(name: str) -> str | None:
    """The suffix that tells how to read a file, if any does; that of packing does not count."""
    path = Path(name)
    path = path.with_suffix("") if path.suffix.lower() in PACKED else path
    if path.suffix.lower() in SUFFIXES:
        return path.suffix.lower()
    return ".poscar" if path.name.upper().startswith(("POSCAR", "CONTCAR")) else None


# ---- what is in them


def _samples(name: str, data: Callable[[], bytes]) -> tuple[Samples, bool]:
    """What one file holds, and whether any of it could be read."""
    columns: Columns = {}
    try:
        content = PACKED.get(Path(name).suffix.lower(), bytes)(data())
        kind = _kind(name)
        if kind == ".zip":
            raise InputError("a zip file in another: unpack it")
        if kind == ".csv":
            return _table(_text(content))
        elif kind == ".cif":
            parts = _cif(_text(content))
        elif kind in (".extxyz", ".xyz"):
            parts, columns = _extxyz(_text(content))
        else:
            parts = [_poscar(_text(content))]
    except UNPACKING as error:
        parts = [f"the file cannot be read ({error}): pack it anew"]
    except InputError as error:
        parts = [str(error)]
    some = any(not isinstance(part, str) for part in parts)
    return _told(assembled(parts), columns), some


def _text(content: bytes) -> str:
    text = content.decode(json.detect_encoding(content), errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _cif(text: str) -> Parts:
    from . import cif

    return cif.read(text) or ["no structure: no cell and no atoms: is it a CIF?"]


def _told(samples: Samples, columns: Columns) -> Samples:
    """Samples with what the file says of them: decoded or not and why, and what was asked for."""
    asked = {
        name.removeprefix(ASKED): np.array(values)
        for name, values in columns.items()
        if name.startswith(ASKED) and len({np.shape(value) for value in values}) == 1
    }
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
    told: list[Mapping[str, Any] | None] = []
    for k, (frame, why) in enumerate(_frames(text), 1):
        part, info = (why, None) if why else _frame(frame)
        parts.append(f"frame {k}: {part}" if isinstance(part, str) else part)
        told.append(info)
    if not parts:
        raise InputError("not readable as extended XYZ: the file is empty")
    common = set.intersection(*[set(info) for info in told if info is not None] or [set()])
    columns = {name: [info[name] if info else BROKEN for info in told] for name in sorted(common)}
    return parts, columns


def _frames(text: str) -> Iterator[tuple[str, str]]:
    """Text of each frame, or why it is none; the next frame is found again behind a broken one."""
    lines = text.rstrip().split("\n")
    pairs = enumerate(pairwise(lines))
    starts = [i for i, (n, below) in pairs if HEADER.fullmatch(n) and COMMENT.search(below)]
    starts.append(len(lines))
    at, frame = 0, ""
    while at < len(lines):
        line, following = lines[at], starts[bisect(starts, at)]
        end = at + 2 + int(line) if HEADER.fullmatch(line) else 0
        if not line.strip():
            at += 1
            continue
        why = f"cut short, {line} atoms are announced" if end else f"{line[:40]!r} is no number"
        if frame and not end and not any(map(COMMENT.search, lines[at:following])):
            frame, why = "", f"{why} of atoms, nor one of those that are announced above it"
        elif frame:
            yield frame, ""
        whole = 0 < end <= following
        frame, at = ("\n".join(lines[at:end]) + "\n", end) if whole else ("", following)
        if not whole:
            yield "", f"not readable as extended XYZ: {why}: correct the number of atoms"
    if frame:
        yield frame, ""


def _frame(text: str) -> tuple[CrystalBatch | str, dict[str, Any] | None]:
    """One frame by ASE, which takes what it does not find for zeros, and any word for True."""
    number, head, atoms = text.split("\n", 2)
    head = COMMENT.sub(lambda key: key[0].capitalize(), head)
    if "Properties" in head and not POSITIONS.search(head):
        return "not readable as extended XYZ: Properties has no column pos:R:3: add it", None
    for told in PBC.findall(head):
        if not re.fullmatch(r"(?i)(\W*(t+|true|1))+\W*", told):
            return f"it has no periodic cell (pbc = {told}): no crystal, give it one", None
    return _from_ase(f"{number}\n{head}\n{atoms}", "extxyz", "extended XYZ")


def _poscar(text: str) -> CrystalBatch | str:
    """By ASE, which guesses missing names, and leaves out what is more than announced."""
    lines = [line.split("!")[0].split() for line in text.split("\n")] + [[]] * 9
    names, counts, at = lines[5], lines[6], 7
    if all(map(HEADER.fullmatch, names)):  # VASP 4: the names are in the title
        names, counts, at = lines[0], lines[5], 6
    symbols = [re.split("[_/]", name)[0] for name in names]
    if len(names) != len(counts) or not set(symbols) <= set(elements.SYMBOLS[1:]):
        why = f"names {' '.join(names)!r} and counts {' '.join(counts)!r}"
        return f"not readable as POSCAR: {why}: give element symbols, and a count for each"
    if not all(map(HEADER.fullmatch, counts)):
        return f"not readable as POSCAR: counts {' '.join(counts)!r}: write whole numbers"
    at += 2 if "".join(lines[at])[:1] in ("S", "s") else 1
    end = at + sum(map(int, counts))
    for i in (2, 3, 4, *range(at, min(end, len(lines)))):
        if not PLACE.match(" ".join(lines[i])):
            return f"not readable as POSCAR: line {i + 1} has no three numbers: correct it"
    if lines[end] and not re.match("(?i)lattice|cart|direct$", " ".join(lines[end])):
        return f"not readable as POSCAR: more than {' + '.join(counts)} atoms: correct the counts"
    told = "\n".join(text.split("\n")[:end]) + "\n"  # without velocities, which end in many ways
    return _from_ase(told, "vasp", "POSCAR")[0]


def _from_ase(text: str, form: str, name: str) -> tuple[CrystalBatch | str, dict[str, Any] | None]:
    from ase.io import read as ase_read

    try:
        atoms = ase_read(StringIO(text), index=0, format=form)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        why = f"{error} is no element" if isinstance(error, KeyError) else why
        return f"not readable as {name} ({why}): write it with imd sample, ASE or OVITO", None
    return _from_atoms(atoms), atoms.info


def _from_atoms(atoms: Atoms) -> CrystalBatch | str:
    cell = atoms.cell.array
    if len(atoms) == 0:
        return "no atoms: give at least one"
    if not np.isfinite(cell).all() or not np.isfinite(atoms.positions).all():
        return "NaN or infinity in the cell or the coordinates: repair or drop it"
    if abs(np.linalg.det(cell)) < 1e-6 or not atoms.pbc.all():
        return f"it has no periodic cell (pbc = {atoms.pbc.tolist()}): no crystal, give it one"
    wrong = ~np.isin(atoms.numbers, range(1, elements.N_COLUMNS))
    if wrong.any():
        first = int(np.argmax(wrong))
        name = f"number {atoms.numbers[first]}" if atoms.numbers[first] else "X"
        return f"atom {first + 1} is {name}, no element from H to Og: give an element, or drop it"
    frac = atoms.get_scaled_positions(wrap=False)
    return CrystalBatch.from_ragged(cell[None], frac, atoms.numbers, [len(atoms)])


# ---- tables


def _table(text: str) -> tuple[Samples, bool]:
    """A row a sample: crystals from a column of structures, else compositions."""
    columns, wrong = _columns(text)
    n = len(next(iter(columns.values()), []))
    column = next((name for name in STRUCTURES + FORMULAS if name in columns), None)
    if column is None or not n:
        raise InputError(
            f"a table of {n} rows with columns {', '.join(columns)}: one of "
            f"{', '.join(STRUCTURES + FORMULAS)} is needed"
        )
    asked = {name: _numbers(columns[name]) for name in columns if name.startswith(ASKED)}
    columns = {**columns, **asked}
    if column in STRUCTURES:
        parts = [wrong.get(i) or structure(text) for i, text in enumerate(columns[column])]
        return _told(assembled(parts), columns), any(not isinstance(part, str) for part in parts)
    formulas = [text.strip() for text in columns[column]]
    counts, strange = compositions.parse(formulas)
    words = columns.get("reason", [""] * n)
    reasons = [
        wrong.get(i) or (strange.get(i, "") if formula else word or "no formula")
        for i, (formula, word) in enumerate(zip(formulas, words, strict=True))
    ]
    samples = _told(Samples.from_reasons(counts, reasons), columns)
    return replace(samples, content=counts * samples.ok[:, None]), True


def _columns(text: str) -> tuple[dict[str, Sequence[Any]], dict[int, str]]:
    """Columns by name in small letters, and why rows are none, by index."""
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(StringIO(text), restval="", delimiter=separator, strict=True)
    names, rows, wrong = [], [], {}
    try:
        names = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        for row in reader:
            if any(row.get(None, ())):
                wrong[len(rows)] = f"more than the {len(names)} fields of the header: quote them"
            rows.append(row)
    except csv.Error as error:
        wrong[len(rows)] = f"not readable as a table from here on ({error}): correct the quotes"
        if not names:
            raise InputError(wrong[0]) from error
        rows.append(dict.fromkeys(names, ""))
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise InputError(f"two columns of the table are called {twice[0]!r}: keep one")
    return {name: [row[name] for row in rows] for name in names}, wrong


def _numbers(values: Sequence[str]) -> Sequence[Any]:
    try:
        return [float(value or BROKEN) for value in values]
    except ValueError:
        return values


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
        return one_structure(Structure.from_dict(values))
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return f"no structure that pymatgen can read ({why}): give that of Structure.as_dict()"
