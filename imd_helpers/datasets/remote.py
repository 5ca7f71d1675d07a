"""Download what the registry lists: verified, resumable, and never half a file under its name.

Where files are looked for, in this order:

1. ``$IMD_DATA_DIR/<data set>/<file>`` and ``$IMD_DATA_DIR/<file>``: used where they lie, if the
   checksum is right.
2. The cache: ``$IMD_CACHE_DIR``, or the system's cache folder for this package.
3. The addresses of the registry, in turn.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from ..work import locked
from .registry import RemoteFile, RemoteSet

ATTEMPTS = 4  # for each address; a dropped connection continues where it stopped
WAIT_S = 1.0  # before the second attempt, doubled each time
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two pieces of the answer
SLOWEST = 1_000  # bytes a second, in the mean of one answer; fewer are no progress
LARGEST = 1 << 34  # bytes, of a file whose size nobody tells
CHUNK = 1 << 15  # bytes, at most, between two looks at what has come
OK, PARTIAL, RANGE_NOT_SATISFIABLE = 200, 206, 416
WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(RuntimeError):
    """A file could not be had; the message lists what was tried and what to do."""


class _RefusedError(Exception):
    """This address will not give the file, however often it is asked."""


class _InterruptedError(Exception):
    """The transfer broke off, or the server is busy: worth another attempt."""


def fetch(entry: RemoteSet, split: str | None = None) -> list[Path]:
    """Paths of a data set's files on this machine, downloaded and verified if need be.

    With ``split`` only the file of this published part, where the files are the parts.

    Raises:
        DownloadError: no address gives the right file, the cache cannot be written, or a file in
            ``IMD_DATA_DIR`` has the wrong checksum.
    """
    wanted = [file for file in entry.files if split is None or file.split in (None, split)]
    return [_locate(entry, file) for file in wanted]


def cache_dir() -> Path:
    """``$IMD_CACHE_DIR`` if set, else the system's cache folder for this package."""
    import pooch

    return Path(os.environ.get("IMD_CACHE_DIR") or pooch.os_cache("imd_helpers")).expanduser()


def checksum(path: Path, kind: str) -> str:
    """Hex checksum of a file: ``sha256``, ``md5``, or ``git``, the name that git gives it."""
    start = hashlib.sha256() if kind == "sha256" else hashlib.md5(usedforsecurity=False)
    if kind == "git":
        start = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: start).hexdigest()


def _locate(entry: RemoteSet, file: RemoteFile) -> Path:
    on_disk = _in_data_dir(entry, file)
    if on_disk is not None:
        return on_disk
    # The folder is named after the checksum: a file of another version is never overwritten.
    folder = cache_dir() / entry.name / file.checksum.split(":")[1][:12]
    target = folder / file.path
    if target.is_file() and _fault(target, file) is None:
        return target
    try:
        with locked(folder, wait=True):
            if target.is_file():  # another process may have brought it meanwhile
                if _fault(target, file) is None:
                    return target
                target.unlink()  # damaged on disk
            _transfer(entry.name, file, target)
    except OSError as error:
        raise DownloadError(
            f"cannot write to the cache {folder}: {error.strerror or error}. Set IMD_CACHE_DIR to "
            "a folder that can be written and has room"
        ) from error
    return target


def _in_data_dir(entry: RemoteSet, file: RemoteFile) -> Path | None:
    root = os.environ.get("IMD_DATA_DIR")
    if not root:
        return None
    base = Path(root).expanduser()
    if not base.is_dir():
        raise DownloadError(f"IMD_DATA_DIR={root!r} is no folder: correct it, or unset it")
    for path in (base / entry.name / file.path, base / file.path):
        if path.is_file():
            fault = _fault(path, file)
            if fault is None:
                return path
            raise DownloadError(
                f"{path} is not the file {file.path} of {entry.name}: {fault}. Put the right "
                f"file at {base / entry.name / file.path}, or move this one out of IMD_DATA_DIR"
            )
    return None


def _fault(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with a file, or None if it is the right one."""
    size = path.stat().st_size
    if size == 0:
        return "it is empty"
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes, expected {file.size:,}{_disguise(path)}"
    kind, expected = file.checksum.split(":")
    found = checksum(path, kind)
    if found != expected:
        return f"its {kind} checksum is {found}, expected {expected}{_disguise(path)}"
    return None


def _disguise(path: Path) -> str:
    """Say what a wrong file looks like, where that is easy to tell."""
    with path.open("rb") as stream:
        head = stream.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return " (it is a web page: a login, a quota or an error)"
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer, not the file)"
    return ""


# ---- the transfer


def _transfer(dataset: str, file: RemoteFile, target: Path) -> None:
    """Try every address, resume what is there, verify, and only then give it its name."""
    part, problems = target.with_name(f"{target.name}.part"), []
    for address in file.urls:
        whole = part.exists() and _fault(part, file) is None
        problem = None if whole else _try_address(address, part, file)
        if problem is None:
            part.replace(target)
            return
        problems.append(f"  {address}: {problem}")
    lines = [f"{dataset}: {file.path} could not be downloaded.", *problems]
    if _size(part):
        lines.append(f"{_size(part):,} bytes are kept: the next call continues from there.")
    else:
        part.unlink(missing_ok=True)
    lines.append(
        "Check the connection and call again; or download the file by hand, put it at "
        f"DIR/{dataset}/{file.path}, and set IMD_DATA_DIR=DIR."
    )
    raise DownloadError("\n".join(lines))


def _try_address(url: str, part: Path, file: RemoteFile) -> str | None:
    """Complete ``part`` from one address; return what went wrong, or None."""
    problem, failed, most = "", 0, _size(part)
    while failed < ATTEMPTS:
        if failed:
            time.sleep(WAIT_S * 2 ** (failed - 1))
        resumed = _size(part) > 0
        try:
            _receive(url, part, file)
        except _RefusedError as error:
            return str(error)
        except _InterruptedError as error:
            problem = str(error)
            failed = 1 if _size(part) >= most + SLOWEST else failed + 1  # it got on: count anew
            most = max(most, _size(part))
            continue
        failed += 1
        fault = _fault(part, file)
        if fault is None:
            return None
        short = file.size is not None and part.stat().st_size < file.size
        problem = f"sent something else: {fault}"
        if not short:  # wrong bytes: begin again, unless this was a whole transfer
            part.unlink()
            if not resumed:
                return problem
    return f"{problem}, after {ATTEMPTS} attempts"


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _receive(url: str, part: Path, file: RemoteFile) -> None:
    """Append what is missing of a file to ``part``, or start it over if the server cannot."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    have = _size(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == RANGE_NOT_SATISFIABLE and have:
                if _fault(part, file) is not None:  # nothing beyond what we have, which is wrong
                    part.unlink()
                    raise _InterruptedError("has less than what an earlier attempt left")
                return
            begin = _first_byte(answer, part)
            with part.open("r+b" if begin else "wb") as stream:
                stream.seek(begin)
                _copy(answer, stream, file, begin)
    except (requests.Timeout, ReadTimeoutError) as error:
        raise _InterruptedError(f"no data for {TIMEOUT_S[1]:g} s") from error
    except (requests.RequestException, HTTPError) as error:
        raise _InterruptedError(f"the connection broke: {_short(error)}") from error
    if part.stat().st_size == 0:
        part.unlink()
        raise _RefusedError("answered 200 with an empty file")


def _first_byte(answer: Any, part: Path) -> int:
    """Where in the file the answer begins: 0 unless the server granted the range we asked for."""
    have = _size(part)
    code, reason = answer.status_code, answer.reason or ""
    if code in WORTH_RETRYING:
        raise _InterruptedError(f"answered {code} {reason}".strip())
    if code not in (OK, PARTIAL):
        raise _RefusedError(f"answered {code} {reason}, which brings no file")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise _RefusedError("answered with a web page (a login, a quota or an error), not the file")
    if code != PARTIAL:
        return 0
    content_range = answer.headers.get("Content-Range", "")
    if content_range.startswith(f"bytes {have}-"):
        return have
    part.unlink(missing_ok=True)  # or every later call would ask for the same range again
    raise _InterruptedError(f"sent the range {content_range!r}, asked to begin at byte {have}")


def _copy(answer: Any, stream: Any, file: RemoteFile, begin: int) -> None:
    from tqdm import tqdm

    told = str(answer.headers.get("Content-Length", ""))
    promised = int(told) if told.isdecimal() else 0
    most = file.size or (begin + promised if promised else LARGEST)
    options = {"unit": "B", "unit_scale": True, "desc": file.path, "disable": None}
    started = time.monotonic()
    with tqdm(total=file.size, initial=begin, **options) as bar:
        # what has come, not a whole chunk: a trickle would keep that waiting
        while piece := answer.raw.read1(CHUNK):
            stream.write(piece)
            bar.update(len(piece))
            if stream.tell() > most:
                stream.truncate(0)
                raise _RefusedError(f"sends more than the {most:,} bytes of the file")
            seconds = time.monotonic() - started
            if seconds > TIMEOUT_S[1] and stream.tell() - begin < SLOWEST * seconds:
                raise _RefusedError(f"sends fewer than {SLOWEST:,} bytes a second")
    if stream.tell() - begin < promised:  # older urllib3 does not notice
        raise _InterruptedError(f"stopped after {stream.tell() - begin:,} of {promised:,} bytes")


def _short(error: Exception) -> str:
    """The innermost reason, without the names of connection objects in front of it."""
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", inner)).split(": ", 1)[-1]
    return text if len(text) <= 160 else f"{text[:157]}..."
