"""Weights and training states on disk: safetensors with a JSON header, written atomically.

No pickle is read or written, so a file from elsewhere cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import InputError, device_name, version
from ..work import write_atomic

_HEADER = "imd"


class CheckpointError(InputError):
    """A file that is not the checkpoint that was asked for."""


def write(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Path:
    """Write tensors, and as their header anything JSON can hold, with a ``format``.

    The old file stays whole until the new one is complete.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    from safetensors.torch import save

    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        mine = tensor.detach().cpu().contiguous()
        place = mine.untyped_storage().data_ptr()
        plain[name] = mine.clone() if place in seen else mine  # tied weights are written twice
        seen.add(place)
    plainly = json.loads(json.dumps(dict(header)))  # as it will be read: keys are strings
    text = json.dumps({**plainly, "content": _content(plain, plainly)}, sort_keys=True)
    return _put(Path(path), save(plain, metadata={_HEADER: text}))


def _put(path: Path, data: bytes) -> Path:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}; choose a folder that you may write to"
        ) from error
    return path


def read(path: Path | str, *, expect: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write` wrote with ``format`` ``expect``.

    Raises:
        CheckpointError: no such file, truncated, not safetensors, of another format, or not the
            file whose SHA-256 the ``run.json`` beside it records.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file "
            f"({error}); pickled weights (.pt, .pth, .ckpt) are not read: get a fresh copy or "
            "train again"
        ) from error
    signed = header.pop("content", None) if isinstance(header, dict) else None
    if signed is not None and signed != _content(tensors, header):
        raise CheckpointError(
            f"{path} is not what was written (its content has another SHA-256 than its header "
            "says): damaged or edited, get a fresh copy or train again"
        )
    found = header.get("format", "a foreign file") if isinstance(header, dict) else "no header"
    if found != expect:
        raise CheckpointError(
            f"{path} holds {found!r}, expected {expect!r}: it was not written by this version of "
            "imd_helpers for this purpose"
        )
    _compare_with_record(path)
    return tensors, header


def _content(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """SHA-256 of all that a file holds."""
    text = json.dumps(dict(header), sort_keys=True)
    return hashlib.sha256((text + digest(tensors)).encode()).hexdigest()


def _compare_with_record(path: Path) -> None:
    """Is it the file that ``run.json`` was written for?"""
    try:
        record = json.loads(path.with_name("run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(record, dict) or record.get("weights") != path.name:
        return
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != record.get("sha256"):
        raise CheckpointError(
            f"{path} has the SHA-256 {digest[:16]}…, and the run.json beside it was written for "
            f"{str(record.get('sha256'))[:16]}…: damaged or replaced, get a fresh copy of both"
        )


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named tensors into a module; names and shapes must agree.

    Raises:
        CheckpointError: missing or extra names, another shape, or weights that are not finite.
    """
    for name, own in module.state_dict().items():
        found = tensors.get(name, own)
        if found.is_floating_point() != own.is_floating_point() or not found.isfinite().all():
            raise CheckpointError(
                f"{source}: {name} holds {found.dtype}, or NaN or infinity; expected finite "
                f"{own.dtype}: get a fresh copy, or train again"
            )
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        wrong = " ".join(str(error).split())
        raise CheckpointError(
            f"{source} does not fit the network: {wrong}; was it trained with another width or "
            "variant?"
        ) from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with a prefix and a dot in front."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def section(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with the prefix and a dot, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A short hash of named tensors, whatever their order."""
    parts = (name.encode() + t.cpu().numpy().tobytes() for name, t in sorted(tensors.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def write_run(
    weights: Path, about: Mapping[str, Any], seconds: float, rows: list[dict[str, float]]
) -> Path:
    """Write ``run.json`` beside the weights: what ran, on what, for how long, with what result."""
    record = {
        **about,
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "seconds": round(seconds, 1),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "code_sha256": source_hash(),
        "versions": {
            "imd_helpers": version("imd-helpers"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
        "history": rows,
    }
    return _put(weights.with_name("run.json"), (json.dumps(record, indent=1) + "\n").encode())


def source_hash() -> str:
    """SHA-256 over the package's Python files: which code made a result."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
