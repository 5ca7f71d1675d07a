"""Profile, device, seeds, names and the report at the end of a chapter: what every floor needs."""

from __future__ import annotations

import difflib
import importlib
import math
import operator
import os
import platform
import random
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

PROFILES = ("smoke", "colab", "full")
LARGEST = 2**63 - 1  # that compiled code can count
REPORTED_PACKAGES = ("torch", "numpy", "pandas", "pymatgen", "moyopy", "smact", "numba")


class InputError(ValueError):
    """A value that breaks a rule; the message names the value, the rule and the remedy."""


class UnknownNameError(InputError):
    """A name that no registry knows; the message lists the known ones, nearest first."""


def lookup(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``, else raise with the nearest known names first.

    Raises:
        UnknownNameError: ``name`` is not known.
    """
    names = list(known)
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=len(names) or 1, cutoff=0.3)
    ordered = near + [other for other in names if other not in near]
    raise UnknownNameError(f"unknown {kind} {name!r}; known, nearest first: {', '.join(ordered)}")


def whole(name: str, value: Any, *, least: int = 0, most: int = LARGEST) -> int:
    """A setting that counts something, or a seed.

    Raises:
        InputError: it is no whole number, smaller than ``least``, or larger than ``most``.
    """
    try:
        found = operator.index(value)  # of Python, NumPy or torch; 3.0 is a measure, not a count
    except (TypeError, RuntimeError):
        found = least - 1
    if isinstance(value, bool) or not least <= found <= most:
        end = f" and at most {most:,}" if most < LARGEST or found > most else ""
        raise InputError(f"{name}={shown(value)}: must be a whole number of at least {least}{end}")
    return found


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    why: str = "",
) -> float:
    """A setting that is a finite number between bounds; ``why`` says what to choose.

    Raises:
        InputError: it is no number, NaN, infinite, or out of bounds.
    """
    try:
        fits = bool(above < value < below and least <= value <= most)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        fits = False
    if not fits or isinstance(value, bool | str):
        bounds = {"above": above, "at least": least, "below": below, "at most": most}
        rule = " and ".join(f"{word} {x:g}" for word, x in bounds.items() if math.isfinite(x))
        given = f"{name}={shown(value)}: must be a finite number"
        parts = ", ".join(filter(None, (given, rule, why)))
        raise InputError(parts)
    return float(value)


def settle(config: Any, check: Callable[..., Any], *names: str, **bounds: Any) -> None:
    """Check fields of a frozen dataclass by `whole` or `number`, and keep Python's own numbers."""
    for name in names:
        object.__setattr__(config, name, check(name, getattr(config, name), **bounds))


def not_negative(config: Any) -> None:
    """Refuse a negative number in any field of a dataclass."""
    for name, value in vars(config).items():
        if isinstance(value, int | float):
            number(name, float(value), least=0)


def reals(name: str, value: Any, *shape: int | str, finite: bool = True) -> np.ndarray:
    """A float64 array of real numbers: an array, tensor or nested lists, of whatever device.

    Args:
        name: of the argument.
        value: what was given.
        shape: a length of each dimension, or a word where any length is right; none: any shape.
        finite: refuse NaN and infinity.

    Raises:
        InputError: no real numbers, another shape, or numbers that are not finite.
    """
    import numpy as np

    try:
        plain = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(plain)
        if array.dtype.kind not in "biuf":
            raise TypeError(array.dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}={shown(value)}: must be an array of real numbers") from error
    pairs = zip(shape, array.shape, strict=False)
    if shape and (len(shape) != array.ndim or any(w != n for w, n in pairs if isinstance(w, int))):
        wanted = ", ".join(map(str, shape))
        raise InputError(f"{name} has the shape {array.shape}: it must be ({wanted}), reshape it")
    array = array.astype(np.float64)
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinity: drop them first, and say how many")
    return array


def shown(value: Any) -> str:
    """What was given, in one short line of a message."""
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}… ({type(value).__name__})"


def data_path(*parts: str) -> Path:
    """Path of a file of the embedded data: inside the installed wheel, else in the repository.

    Raises:
        FileNotFoundError: the file is in neither place.
    """
    here = Path(__file__).resolve().parent
    candidates = [here.joinpath("_data", *parts), here.parent.joinpath("data", *parts)]
    for path in candidates:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"embedded data {'/'.join(parts)!r} not found, looked at {candidates[0]} and "
        f"{candidates[1]}: reinstall imd-helpers, or run from a complete clone"
    )


def read_toml(*parts: str) -> dict[str, Any]:
    """Tables of an embedded TOML file (arguments as in `data_path`); lists become tuples."""

    def frozen(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: frozen(each) for key, each in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    with data_path(*parts).open("rb") as file:
        return frozen(tomllib.load(file))


def need(package: str, *, extra: str = "descriptors") -> Any:
    """Import a package that comes with an extra of this one, e.g. ``rdkit.Chem``.

    Raises:
        InputError: it is not installed; the message names the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"the package {(error.name or package).split('.')[0]} is needed here and not "
            f'installed: install it with pip install "imd-helpers[{extra}]"'
        ) from error


def device() -> torch.device:
    """The GPU if torch finds one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def current_profile() -> str:
    """``IMD_PROFILE`` if set, else ``colab`` where CUDA is present, else ``smoke``.

    Raises:
        UnknownNameError: ``IMD_PROFILE`` is none of smoke, colab, full.
    """
    name = os.environ.get("IMD_PROFILE", "")
    if name:
        return lookup("profile (IMD_PROFILE)", name, PROFILES)
    return "colab" if device().type == "cuda" else "smoke"


def profile(**choices: Sequence[Any]) -> SimpleNamespace:
    """Pick one value of each triple ``(smoke, colab, full)`` by the current profile.

    Example:
        ``cfg = imd.profile(epochs=(2, 60, 400)); cfg.epochs``

    Raises:
        InputError: a choice is not a triple.
        UnknownNameError: the profile is not known.
    """
    index = PROFILES.index(current_profile())
    picked = {}
    for key, values in choices.items():
        if not isinstance(values, tuple | list) or len(values) != len(PROFILES):
            raise InputError(
                f"profile({key}={values!r}) must give one value for each of {PROFILES}: "
                f"write {key}=(small, medium, large)"
            )
        picked[key] = values[index]
    return SimpleNamespace(**picked)


_session = SimpleNamespace(started=time.perf_counter(), seed=0)


def setup(seed: int = 0) -> torch.device:
    """Seed everything, print profile and device, start the clock, and return the device.

    Where there is no GPU, torch is held to the threads that ``OMP_NUM_THREADS`` allows.

    Raises:
        InputError: a seed that is no whole number from 0 to 2^32 - 1.
    """
    import numpy as np
    import torch

    where = device()
    seed = whole("seed", seed, most=2**32 - 1)  # NumPy's limit
    random.seed(seed)
    np.random.seed(seed)  # libraries below still draw from the global generator
    torch.manual_seed(seed)
    _session.started, _session.seed = time.perf_counter(), seed
    name = current_profile()
    print(f"imd_helpers {version('imd-helpers')} | profile {name} | device {where} | seed {seed}")
    if where.type == "cpu" and "google.colab" in sys.modules:
        print("No GPU found: in Colab choose Runtime > Change runtime type > T4 GPU.")
    return where


def report(*checkpoints: Path | str) -> None:
    """Print what is needed to reproduce this page: versions, profile, device, time, weights.

    Args:
        checkpoints: weight files whose SHA-256 is printed.
    """
    import hashlib

    seconds = time.perf_counter() - _session.started
    rows = [
        ("profile", current_profile()),
        ("device", device_name()),
        ("seed", str(_session.seed)),
        ("wall time", f"{seconds:.0f} s since imd.setup()"),
        ("Python", platform.python_version()),
        ("imd_helpers", version("imd-helpers")),
        *((name, version(name)) for name in REPORTED_PACKAGES),
    ]
    for path in map(Path, checkpoints):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append((f"{path.parent.name}/{path.name}", f"sha256 {digest[:16]}…"))
    width = max(len(key) for key, _ in rows)
    print("\n".join(f"{key:<{width}}  {value}" for key, value in rows))


def version(package: str) -> str:
    """Version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def device_name() -> str:
    """The GPU's name, or the kind of CPU."""
    import torch

    where = device()
    on_gpu = where.type == "cuda"
    return torch.cuda.get_device_name(where) if on_gpu else f"CPU, {platform.machine()}"


def progress_bar(
    items: Iterable[Any] | None, name: str, show: bool, *, total: int | None = None, unit: str = ""
) -> Any:
    """A tqdm bar over items, or with None one that the caller updates up to ``total``."""
    if show:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm  # looks for no widgets
    return tqdm(items, desc=name, total=total, unit=unit or "it", disable=not show)
