"""The periodic table as arrays: symbols, properties, formulas.

Values come from pymatgen's periodic table (MIT licence); `experiments/elements.py` wrote the
file that is read here, so that nothing here needs pymatgen.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ..runtime import InputError, data_path, lookup

N_COLUMNS = 119  # index = atomic number; index 0 is padding
LANTHANIDES, ACTINIDES = 101, 102  # stand for a column of the periodic table


@cache
def _rows() -> list[dict[str, str]]:
    with data_path("elements", "elements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SYMBOLS: tuple[str, ...] = ("", *(row["symbol"] for row in _rows()))
_NUMBERS = {symbol: z for z, symbol in enumerate(SYMBOLS) if symbol}

# The 23 columns that the published CubicGAN uses, in its order (util.py of MilesZhao/CubicGAN,
# commit 7034d84); PGCGM uses the same. The first is the atomic number itself.
FEATURES = tuple(name for name in _rows()[0] if name not in ("symbol", "covalent_radius"))


def number(symbol: str) -> int:
    """Atomic number of a symbol.

    Raises:
        UnknownNameError: no such element.
    """
    return _NUMBERS[lookup("element", symbol, _NUMBERS)]


def checked(numbers: Any) -> Any:
    """Atomic numbers (an array or a tensor), if all are.

    Raises:
        InputError: one is outside 0..118.
    """
    for z in (int(numbers.min()), int(numbers.max())) if len(numbers) else ():
        if not 0 <= z < N_COLUMNS:
            raise InputError(
                f"no element has the atomic number {z}: they are 1..118, and 0 for padding; drop "
                "what rules.broken_crystals finds"
            )
    return numbers


@cache
def column(name: str) -> np.ndarray:
    """(119,) float64 array of a property; index = atomic number, NaN where there is no value.

    Units are in `data/elements/README.md`.

    Raises:
        UnknownNameError: no such property.
    """
    lookup("element property", name, [key for key in _rows()[0] if key != "symbol"])
    values = np.array([math.nan, *(float(row[name] or "nan") for row in _rows())])
    values.setflags(write=False)
    return values


@cache
def by_electronegativity() -> np.ndarray:
    """(119,) place of each element in their order by it, then by number; unknown ones come last."""
    chi = np.nan_to_num(column("electronegativity"), nan=9.0)
    return np.lexsort((np.arange(N_COLUMNS), chi)).argsort()


@cache
def features() -> np.ndarray:
    """(119, 23) float32 `FEATURES`, as they are; row = atomic number.

    A property that an element lacks is filled with the mean over the elements that have it.
    Scale the rows that you use with `minmax`.
    """
    values = filled(FEATURES)
    values[0] = 0.0
    return values.astype(np.float32)


def filled(names: Sequence[str]) -> np.ndarray:
    """(119, names) properties; one that an element lacks is the mean of the others.

    Raises:
        UnknownNameError: no such property.
    """
    raw = np.stack([column(name) for name in names], axis=1)
    return np.where(np.isnan(raw), np.nanmean(raw, axis=0), raw)


@cache
def families() -> np.ndarray:
    """(119,) column of the periodic table; lanthanides and actinides are families of their own."""
    family = column("group").copy()
    family[57:72], family[89:104] = LANTHANIDES, ACTINIDES
    family.setflags(write=False)
    return family


def minmax(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scale each column to [0, 1] over ``rows``; a constant column becomes 0."""
    low, high = values[rows].min(0), values[rows].max(0)
    return (values - low) / np.where(high > low, high - low, 1.0)


# ---- formulas

# pymatgen's exceptions, kept so that both write the same formula
_PEROXIDES = {f"{metal}O": f"{metal}2O2" for metal in ("Li", "Na", "K", "H", "Cs", "Rb")}
_SPECIAL = _PEROXIDES | {symbol: f"{symbol}2" for symbol in ("O", "N", "F", "Cl", "H")}


def reduced_formula(amounts: Mapping[int, int]) -> str:
    """Reduced formula of ``{atomic number: count}``, written as pymatgen writes it.

    Elements are sorted by electronegativity; a divisible anion group is bracketed, e.g.
    ``Mg(NO3)2``.

    Raises:
        InputError: no atoms, or a count that is not a positive integer.
    """
    amounts = {z: int(n) for z, n in amounts.items() if n}
    if not amounts or min(amounts.values()) < 0:
        raise InputError(f"composition {dict(amounts)} has no atoms or a negative count")
    formula = _reduce(amounts)[0]
    return _SPECIAL.get(formula, formula)


def _reduce(amounts: Mapping[int, int]) -> tuple[str, int]:
    chi = column("electronegativity")
    order = sorted(amounts, key=lambda z: (chi[z] if chi[z] == chi[z] else math.inf, SYMBOLS[z]))
    factor = math.gcd(*amounts.values())
    tail = ""
    if len(order) >= 3 and chi[order[-1]] - chi[order[-2]] < 1.65:  # pymatgen's polyanion rule
        group, times = _reduce({z: amounts[z] // factor for z in order[-2:]})
        if times != 1:
            tail, order = f"({group}){times}", order[:-2]
    counts = ((SYMBOLS[z], amounts[z] // factor) for z in order)
    return "".join(s if n == 1 else f"{s}{n}" for s, n in counts) + tail, factor


_COUNT = r"((?:\d+\.?\d*|\.\d+)?)"
_TOKEN = re.compile(rf"([A-Z][a-z]?){_COUNT}|([(\[{{])|([)\]}}]){_COUNT}")
_OPENED_BY = {")": "(", "]": "[", "}": "{"}
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
# iron(III) is no iodide; but (VI)2 is how a group of vanadium and iodine is written
ROMAN = re.compile(r"\((?:II|III|IV|VII|VIII)\)|\((?:I|V|VI)\)(?!\d)")
# a point before water is one between parts, but not in O0.5 or Li1.5
_DOT = re.compile(
    r"\s*[·•⋅∙*]\s*|\.(?=[A-Z(])|(?<![A-Za-z).·•⋅∙* ][01])\.(?=\d*\.?\d*(H2O|\(H2O\)|D2O)$)"
)


def parse_formula(formula: str) -> dict[int, float]:
    """Parse ``"Mg(NO3)2"`` into ``{atomic number: count}``; ``"CuSO4.5H2O"`` is a hydrate.

    Raises:
        InputError: not a formula.
        UnknownNameError: an element that does not exist.
    """
    formula = formula.translate(_SUBSCRIPTS)
    cuts = [match.span() for match in _DOT.finditer(formula)]
    points = any("." in formula[start:end] for start, end in cuts)
    total: dict[int, float] = {}
    for start, end in zip([0, *(b for _, b in cuts)], [*(a for a, _ in cuts), None], strict=True):
        part, times = formula[start:end], 1.0
        if cuts and (number := re.match(r"\d+\.?\d*|\.\d+", part)):
            part, times = part[number.end() :], float(number.group())
        if points and "." in part:
            raise InputError(f"{formula!r} has points in counts and between parts: write · there")
        for z, n in _parse_part(part, formula).items():
            total[z] = total.get(z, 0) + n * times
    if state := ROMAN.search(formula):
        raise InputError(f"{formula!r} is not a formula: leave out the oxidation state {state[0]}")
    if not 0 < sum(total.values()) < math.inf:
        raise InputError(f"{formula!r} is no formula: its counts add up to 0, or to infinity")
    return total


def _parse_part(formula: str, whole: str) -> dict[int, float]:
    """As `parse_formula`, for a part without dots of the whole."""
    stack: list[dict[int, float]] = [{}]
    opened = [""]
    position = 0
    for match in _TOKEN.finditer(formula):
        if match.start() != position:
            break
        position = match.end()
        symbol, count, opening, closing, times = match.groups()
        if symbol:
            z = _NUMBERS.get(symbol) or number(symbol)
            stack[-1][z] = stack[-1].get(z, 0) + float(count or 1)
        elif opening:
            stack.append({})
            opened.append(opening)
        elif opened[-1] == _OPENED_BY[closing]:
            opened.pop()
            for z, n in stack.pop().items():
                stack[-1][z] = stack[-1].get(z, 0) + n * float(times or 1)
        else:
            position = match.start()
            break
    if position != len(formula) or len(stack) != 1 or not stack[0]:
        raise InputError(
            f"{whole!r} is not a formula (stopped at {formula[position:]!r}): write element "
            "symbols, counts and balanced brackets, e.g. 'Mg(NO3)2'"
        )
    return stack[0]
