"""What compiled loops are given is checked first: they read and write wherever they are told to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from ..runtime import InputError

SMALLEST = 1e-9  # Å^3, of a cell
REMEDY = "build crystals with CrystalBatch.from_ragged, and drop what rules.broken_crystals finds"

Function = Callable[..., Any]


def border(**rules: str) -> Callable[[Function], Function]:
    """Check arguments of a compiled function, each by a rule: what it holds, then its shape.

    What it holds is ``out`` (anything: it is filled), ``bool``, ``whole`` (whole numbers), ``real``
    (finite numbers), ``cell`` (finite lattices with a volume), or a range as in Python, e.g.
    ``0:119``, of whole numbers, or of finite ones without an end. A shape is numbers and names; a
    name stands for one size wherever it is used, also in ranges (``0:sites+1``).

    The function that comes out raises InputError where a rule is broken.
    """

    def with_rules(function: Function) -> Function:
        names = tuple(inspect.signature(function.py_func).parameters)

        @wraps(function)
        def checked(*arguments: Any) -> Any:
            arrays = {k: np.asarray(v) for k, v in zip(names, arguments, strict=True)}
            sizes = {k: int(a) for k, a in arrays.items() if a.ndim == 0 and a.dtype.kind in "iu"}
            for name, array in arrays.items():
                _check_shape(name, array, rules[name].split()[1:], sizes)
            for name, array in arrays.items():
                _check_values(name, array, rules[name].split()[0], sizes)
            return function(*arguments)

        return checked

    return with_rules


def _size(text: str, sizes: dict[str, int]) -> int | None:
    """A number, a known size, or a sum or product of two; None where a name is not known yet."""
    for sign, together in (("+", int.__add__), ("*", int.__mul__)):
        if sign in text:
            one, two = (_size(part, sizes) for part in text.split(sign))
            return None if one is None or two is None else together(one, two)
    return int(text) if text.lstrip("-").isdigit() else sizes.get(text)


def _check_shape(name: str, array: np.ndarray, shape: list[str], sizes: dict[str, int]) -> None:
    fits = array.ndim == len(shape)
    for text, found in zip(shape, array.shape, strict=False):
        if _size(text, sizes) is None:
            sizes[text.removesuffix("+1")] = found - text.endswith("+1")
        fits = fits and _size(text, sizes) == found
    if not fits:
        known = ", ".join(f"{k} = {v}" for k, v in sizes.items() if k in " ".join(shape))
        raise InputError(
            f"{name} has shape {array.shape}: expected ({', '.join(shape)})"
            f"{f' with {known}' if known else ''}; {REMEDY}"
        )


def _check_values(name: str, array: np.ndarray, holds: str, sizes: dict[str, int]) -> None:
    if holds == "out":
        return
    kinds = {"real": "f", "cell": "f", "bool": "b"}.get(holds, "iu")
    first, _, end = holds.partition(":")
    if (holds == "real" and array.ndim == 0) or (":" in holds and not end):
        kinds = "fiu"
    if array.dtype.kind not in kinds:
        raise InputError(f"{name} holds {array.dtype}, not {holds}: {REMEDY}")
    if holds == "cell":
        _check_cells(array.reshape(-1, 3, 3))
    elif array.dtype.kind == "f":
        _refuse(name, array, np.isfinite(array), "NaN and infinity are no numbers")
    if ":" in holds:
        low, high = _size(first, sizes), _size(end, sizes) if end else np.inf
        rule = f"it must be at least {low}" + (f" and below {high}" if end else "")
        _refuse(name, array, (array >= low) & (array < high), rule)


def _check_cells(cells: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        broken = ~(np.abs(np.linalg.det(cells)) > SMALLEST) | ~np.isfinite(cells).all((1, 2))
    if broken.any():
        i = int(np.argmax(broken))
        raise InputError(
            f"crystal {i}: the cell {cells[i].tolist()} has no volume or is not finite: its three "
            "lattice vectors must not lie in one plane"
        )


def _refuse(name: str, array: np.ndarray, fine: np.ndarray, rule: str) -> None:
    if fine.all():
        return
    place = np.unravel_index(int(np.argmin(fine)), array.shape)
    where = f"[{', '.join(map(str, place))}]" if place else ""
    raise InputError(f"{name}{where} is {array[place]}: {rule}; {REMEDY}")
