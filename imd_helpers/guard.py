"""The border of the package: a call from outside that cannot work says value, rule and remedy.

Each function checks what it is about. What is the same for all stands here, once: a value of
another kind than its annotation names is refused, and what Python, NumPy or torch raise of values
that they cannot use comes out as an `InputError`. Calls inside the package pass through.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from numbers import Real
from types import FrameType, ModuleType
from typing import Any

from .runtime import InputError, shown

PACKAGE = f"{__package__}."
# called from inside alone
OWN = tuple(PACKAGE + name for name in ("kernels", "judge.facts", "judge.mechanics"))
FOREIGN = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError)


class Finder(PathFinder):
    """Finds the modules of the package, and has each of them guarded when it has run."""

    @classmethod
    def find_spec(cls, fullname: str, *where: Any) -> ModuleSpec | None:
        """As of every finder."""
        ours = fullname.startswith(PACKAGE) and not fullname.startswith(OWN)
        spec = super().find_spec(fullname, *where) if ours else None
        if spec and spec.loader:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (run(module), guard(module))  # type: ignore
        return spec


def guard(module: ModuleType) -> None:
    """Guard the public functions, and those of the public classes, that a module defines."""
    for name, thing in list(vars(module).items()):
        if name[0] == "_" or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(thing) or hasattr(thing, "cache_info"):
            setattr(module, name, _guarded(thing, thing))
        for key, each in list(vars(thing).items()) if inspect.isclass(thing) else ():
            plain = getattr(each, "__func__", each)  # of a class method or a static one
            if inspect.isfunction(plain) and (key[0] != "_" or key == "__init__"):
                made = _guarded(plain, thing if key == "__init__" else plain)
                setattr(thing, key, made if plain is each else type(each)(made))


def _guarded(function: Callable[..., Any], told_by: Any) -> Callable[..., Any]:
    called = f"{function.__module__}.{function.__qualname__.removesuffix('.__init__')}"
    names = inspect.unwrap(function).__globals__
    known = functools.cache(lambda: _arguments(function, told_by))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _inside(sys._getframe(1)):
            return function(*args, **kwargs)
        signature, rules = known()
        given = _given(signature.bind(*args, **kwargs))
        wrong = [(k, v) for k, v in given if k in rules and not _admitted(v, rules[k], names)]
        try:
            if not wrong or function.__name__ == "__init__":  # which may have more to say
                made = function(*args, **kwargs)
            for name, value in wrong:
                raise InputError(f"{name}={shown(value)}: must be {rules[name]} (see {called})")
            return made
        except FOREIGN as error:
            if type(error).__module__.startswith((PACKAGE, "torch")):  # ours; memory of a GPU
                raise
            told = [f"{k}={shown(v)}, must be {rules[k]}" for k, v in given if k in rules]
            raise InputError(
                f"{called} cannot use {'; '.join(told)} ({type(error).__name__}: {error}): give "
                "what it must be, or report it if that is what you gave"
            ) from error

    return call


def _inside(frame: FrameType) -> bool:
    """Is it the package that calls, be it by way of torch, which calls ``forward``?"""
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("torch."):
        frame = frame.f_back
    return frame.f_globals.get("__name__", "").startswith(PACKAGE)


def _given(bound: inspect.BoundArguments) -> list[tuple[str, Any]]:
    """Names and values; one of ``*args`` or ``**kwargs`` is named like all of them."""
    several = {2: tuple, 4: dict.values}  # by kind of parameter
    return [
        (name, value)
        for name, found in bound.arguments.items()
        for value in several.get(bound.signature.parameters[name].kind, lambda one: (one,))(found)
    ]


def _arguments(function: Callable[..., Any], told_by: Any) -> tuple[inspect.Signature, dict]:
    """Signature, and for each argument the annotation and what the docstring says after it."""
    signature, rules = inspect.signature(function), {}
    text = inspect.getdoc(told_by) or ""
    for name, each in signature.parameters.items():
        if each.annotation is not each.empty:
            said = re.search(rf"(?m)^    \**{name}:( .*(?:\n {{8}}.*)*)", text)
            rules[name] = each.annotation + (f"; {' '.join(said[1].split())}" if said else "")
    return signature, rules


def _array(value: Any) -> bool:
    return hasattr(value, "ndim") or isinstance(value, list | tuple)


def _real(value: Any) -> bool:
    plain = isinstance(value, Real) or getattr(value, "ndim", 1) == 0
    return plain and not isinstance(value, bool)


def _several(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, str | Mapping)


KINDS: dict[str, Callable[[Any], bool]] = {  # the others are classes
    "Any": lambda value: True,
    "None": lambda value: value is None,
    "int": lambda value: _real(value) and hasattr(value, "__index__"),
    "float": _real,
    **dict.fromkeys(("np.ndarray", "Tensor"), _array),
    **dict.fromkeys(("ArrayLike", "Points"), lambda value: _array(value) or _real(value)),
    **dict.fromkeys(("tuple", "list"), lambda value: isinstance(value, tuple | list)),
    **dict.fromkeys(("Sequence", "Iterable", "Crystals"), _several),
}


def _admitted(value: Any, annotation: str, names: Mapping[str, Any]) -> bool:
    """Is a value of a kind that an annotation names? What stands in brackets does not count."""
    annotation = annotation.partition(";")[0]
    while "[" in annotation:
        annotation = re.sub(r"\[[^][]*\]", "", annotation)
    if annotation.count(" | ") > 2:  # a door for many kinds knows best what to say
        return True
    if annotation != "Any" and "complex" in str(getattr(value, "dtype", "")):
        return False
    return any(_is(value, word, names.get(word)) for word in annotation.split(" | "))


def _is(value: Any, word: str, known: Any) -> bool:
    if word in KINDS:
        return KINDS[word](value)
    if known is not None:  # a class, or another name of something, e.g. a mapping
        kind = known if inspect.isclass(known) else typing.get_origin(known)
        return isinstance(value, kind or object)
    return word.rpartition(".")[2] in (each.__name__ for each in type(value).__mro__)
