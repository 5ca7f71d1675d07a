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
    """Write tensors and a JSON header; the old file stays whole until the new one is complete.

    Args:
        path: target, ``.safetensors``.
        tensors: named tensors.
        header: anything JSON can hold; it must have a ``format``.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _put(
        Path(path), save(plain, metadata={_HEADER: json.dumps(dict(header), sort_keys=True)})
    )


def _put(path: Path, data: bytes) -> Path:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}; choose a folder that you may write to"
        ) from error
    return path


def read(path: Path | str, *, expect: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `write` wrote.

    Args:
        path: the file.
        expect: the ``format`` that its header must name.

    Raises:
        CheckpointError: no such file, truncated, not safetensors, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: train first, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file "
            f"({error}); pickled weights (.pt, .pth, .ckpt) are not read: get a fresh copy or "
            "train again"
        ) from error
    if header.get("format") != expect:
        raise CheckpointError(
            f"{path} holds {header.get('format', 'a foreign file')!r}, expected {expect!r}: it "
            "was not written by this version of imd_helpers for this purpose"
        )
    return tensors, header


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named tensors into a module; names and shapes must agree.

    Raises:
        CheckpointError: missing or extra names, or another shape.
    """
    own = module.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    if missing or extra or shapes:
        raise CheckpointError(
            f"{source} does not fit the network: missing {missing[:3]}, unknown {extra[:3]}, "
            f"other shape {sorted(shapes)[:3]}; was it trained with another width or variant?"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with a prefix and a dot in front."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def section(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with the prefix and a dot, without it."""
    start = f"{prefix}."
    return {
        name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)
    }


def write_run(
    weights: Path, *, about: Mapping[str, Any], seconds: float, rows: list[dict[str, float]]
) -> Path:
    """Write ``run.json`` beside the weights: what was run, on what, for how long, with what result.

    Args:
        weights: the file of weights; its SHA-256 is recorded.
        about: model, variant, configuration and anything else to keep.
        seconds: wall time of training.
        rows: what was recorded while it lasted.
    """
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
