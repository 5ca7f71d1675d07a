"""Crystallographic Information Files: each block to one crystal, or to the reason why it is none.

The syntax, the symbols of space groups and the operators are gemmi's. What the file says twice is
compared: operators, names and numbers with each other and with the cell, atoms with formula, Z and
multiplicities. Nothing is guessed in silence.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from functools import lru_cache
from itertools import pairwise

import gemmi
import numpy as np
from gemmi import cif

from ..runtime import InputError
from . import elements
from .batch import FULL_OCCUPANCY, CrystalBatch
from .geometry import closest_contact
from .symmetry import N_SPACE_GROUPS

MERGE = 0.1  # Å: images of one site that are closer stand on one special position
SAME_PLACE = 0.01  # Å: two listed sites that are closer are one place
LEAST_VOLUME = 1e-4  # of the box with the same edges
METRIC = 0.02  # how far an operator may change the cell's dot products, of their mean
VOLUME = 0.05  # how far the volume that is told may be from that of the cell
THIRDS, NEAR_THIRD = (1 / 3, 2 / 3), 1e-4  # 0.3333 is a third with four digits
CRYSTAL = re.compile(r"(?mi)^\s*(_cell[_.]length_a|_atom_site|_symmetry|_space_group)")
BLOCK = re.compile(r"(?mi)^[ \t]*data_")
FIELD = re.compile(r"(?ms)^;.*?^;")
SITES, UNITS = "_atom_site_", "_cell_formula_units_z"
MULTIPLICITIES = (SITES + "site_symmetry_multiplicity", SITES + "symmetry_multiplicity")
MODULATED = ("_cell_modulation", "_cell_wave", "_space_group_ssg", "_atom_site_displace")
SYMMETRY = ("_symmetry_", "_space_group_", "_parent_space_group")
GROUPS = ("_space_group_", "_symmetry_", "_symmetry_space_group_")
NAMES = [f"{g}name_{kind}" for g in GROUPS for kind in ("h-m_alt", "h-m_full", "h-m", "h-m_ref")]
NUMBERS = [f"{g}{n}" for g in GROUPS for n in ("it_number", "int_tables_number")]
HALLS = [f"{g}name_hall" for g in GROUPS]
OPERATORS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")

Tags = dict[str, list[str]]
Operators = tuple[np.ndarray, np.ndarray]  # (ops, 3, 3) rotations, (ops, 3) translations


def read(text: str) -> list[CrystalBatch | str]:
    """Read every block that has a cell or atoms; a block that is no crystal gives its reason."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    seen = text
    if len(re.findall("(?m)^;", text)) % 2 == 0:  # a field that never ends must spoil only its own
        seen = FIELD.sub(lambda field: " " * len(field[0]), text)  # a data_ inside starts no block
    starts = [match.start() for match in BLOCK.finditer(seen)]
    blocks = (text[i:j] for i, j in pairwise([0, *starts, len(text)]))
    return [_read(block) for block in blocks if CRYSTAL.search(block)]


def _read(block: str) -> CrystalBatch | str:
    try:
        return _crystal(_tags(block))
    except InputError as error:
        return f"no structure: {error}"
    except (ValueError, RuntimeError) as error:  # gemmi's
        why = re.sub(r"string:(\d+):\S*", r"line \1 of its block:", " ".join(str(error).split()))
        return f"no structure: not CIF ({why}): write it anew"


def _tags(block: str) -> Tags:
    """Values by tag in small letters; ``.`` and ``?`` are empty."""
    found: Tags = {}
    for item in cif.read_string(block, check_level=1).sole_block():
        if item.pair is not None:
            found[_plain(item.pair[0])] = [cif.as_string(item.pair[1])]
        elif item.loop is not None:
            width = item.loop.width()
            values = [cif.as_string(value) for value in item.loop.values]
            found |= {_plain(tag): values[i::width] for i, tag in enumerate(item.loop.tags)}
    return found


def _plain(tag: str) -> str:
    return tag.lower().replace(".", "_")


def _crystal(tags: Tags) -> CrystalBatch:
    if any(tag.startswith(MODULATED) and set(told) - {"", "0"} for tag, told in tags.items()):
        raise InputError("a modulated structure: give the average one, or a commensurate cell")
    lattice = _lattice(tags)
    numbers, frac = _sites(tags)
    found = []
    for operators in _symmetries(tags, lattice):
        which, places = expanded(lattice, frac, operators)
        wrong = _contradiction(tags, numbers[which]) or _miscounted(tags, which, len(operators[0]))
        found.append((numbers[which], places, wrong))
    kept = [(z, places) for z, places, wrong in found if not wrong]
    if not kept:
        raise InputError(found[0][2])
    if len(kept) > 1:
        raise InputError(
            f"{_one(tags, *NAMES, *NUMBERS)!r} has two settings, and nothing says which is meant: "
            "name one, as in 'F d -3 m :2', or list the operators"
        )
    z, places = kept[0]
    chi = np.nan_to_num(elements.column("electronegativity"), nan=np.inf)
    order = sorted(range(len(z)), key=lambda i: (chi[z[i]], elements.SYMBOLS[z[i]]))  # pymatgen's
    crystal = CrystalBatch.from_ragged(lattice[None], places[order], z[order], [len(z)])
    distance, (pair,) = closest_contact(crystal, own_images=False)
    if distance[0] < SAME_PLACE:
        raise InputError(
            f"two atoms stand on one place, {np.round(places[order][pair[0]], 4)}: list each atom "
            "once, and with operators only one of those that they join"
        )
    return crystal


# ---- cell and sites


def _lattice(tags: Tags) -> np.ndarray:
    """(3, 3) Å, with c along z and a in the plane of x and z."""
    from pymatgen.core import Lattice

    names = [f"_cell_length_{k}" for k in "abc"]
    names += [f"_cell_angle_{k}" for k in ("alpha", "beta", "gamma")]
    values = [_number(name, _one(tags, name)) for name in names]
    what = f"lengths {values[:3]} Å and angles {values[3:]}°"
    closed = min(values) > 0 and max(values[3:]) < 180
    matrix = Lattice.from_parameters(*values).matrix if closed else np.zeros((3, 3))
    volume = abs(np.linalg.det(matrix))
    if not closed or not volume > LEAST_VOLUME * np.prod(values[:3]):
        raise InputError(f"{what} close no cell: correct them")
    told = cif.as_number(_one(tags, "_cell_volume"))
    if told > 0 and abs(volume / told - 1) > VOLUME:
        raise InputError(f"{what} make {volume:.5g} Å³, but the volume is {told:g}: correct one")
    return matrix


def _sites(tags: Tags) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (sites,) and coordinates (sites, 3) that the file lists."""
    labels = tags.get(SITES + "label") or tags.get(SITES + "type_symbol") or []
    axes = [tags.get(f"{SITES}fract_{k}") for k in "xyz"]
    if not labels or None in axes:
        raise InputError("no atoms with fractional coordinates: give _atom_site_fract_x, _y, _z")
    blank = [""] * len(labels)
    names = ("type_symbol", "occupancy", "attached_hydrogens", "calc_flag")
    told = (tags.get(SITES + name, blank) for name in names)
    known = {elements.SYMBOLS[z] for z in _formula(tags)}
    numbers = np.array([_site(known, *site) for site in zip(labels, *told, strict=True)])
    groups = [tags.get(f"{SITES}disorder_{of}", blank) for of in ("assembly", "group")]
    parts = {(of, group) for of, group in zip(*groups, strict=True) if group not in ("", "0")}
    if len(parts) > len({of for of, _ in parts}) or any(group < "0" for _, group in parts):
        raise InputError(
            f"disorder groups {sorted(group for _, group in parts)} exclude each other, or their "
            "own images: keep one of them, and drop the column _atom_site_disorder_group"
        )
    frac = np.array(
        [[_number(f"{SITES}fract of {n}", v) for n, v in zip(labels, x, strict=True)] for x in axes]
    ).T
    for third in THIRDS:
        frac = np.where(np.abs(frac / third - 1) < NEAR_THIRD, third, frac)
    return numbers, frac


def _site(known: set[str], name: str, kind: str, share: str, hydrogens: str, flag: str) -> int:
    """Atomic number, if one whole atom stands there; ``known``: elements of the formula."""
    filled = _number(f"occupancy of {name}", share) if share else 1.0
    if not FULL_OCCUPANCY <= filled <= 2 - FULL_OCCUPANCY:
        raise InputError(
            f"the site {name!r} is partly occupied ({share}): only ordered, fully occupied sites "
            "are supported; choose an ordered approximant (pymatgen's "
            "OrderDisorderedStructureTransformation) or drop it"
        )
    if hydrogens and _number(f"attached hydrogens of {name}", hydrogens) > 0:
        raise InputError(
            f"{name!r} stands for {hydrogens} hydrogen atoms too (attached_hydrogens), and says "
            "not where they are: list them as sites"
        )
    if flag.lower() == "dum":
        raise InputError(f"{name!r} is a dummy atom: drop it, or name its element")
    return _element(kind, name, known)


def _element(kind: str, label: str, known: set[str]) -> int:
    """Atomic number of a type symbol (``Fe3+``, ``O2-``, ``SI``), or else of a label (``Fe1A``).

    A label that may be several things (``CA1``, ``OW``) is what the formula knows.
    """
    letters = re.match(r"[A-Za-z]*", kind or label).group()
    if kind:  # NH4 is no nihonium
        group = letters.isupper() and letters.capitalize() in elements.SYMBOLS[104:]
        maybe = [] if group or re.search(r"[^\d.+-]", kind[len(letters) :]) else [letters]
    else:
        maybe = [letters] if letters in elements.SYMBOLS else [letters[:1], letters[:2]]
    maybe = [each.capitalize() for each in maybe if each.capitalize() in elements.SYMBOLS[1:]]
    sure = kind or (letters in maybe and not re.search(r"[/,]|^H2O", label))
    matching = maybe if sure else [each for each in maybe if each in known]
    if len(matching) == 1:
        return elements.number(matching[0])
    if maybe and not kind:
        raise InputError(
            f"the label {label!r} may be {' or '.join(maybe)}, or no atom: give a type symbol"
        )
    remedy = "an isotope: write H" if letters in ("D", "T") else "give an element"
    raise InputError(
        f"the site {label!r} holds {kind or label!r}, no element from H to Og: {remedy}"
    )


def _one(tags: Tags, *names: str) -> str:
    return next((tags[name][0] for name in names if tags.get(name, [""])[0]), "")


def _number(name: str, text: str) -> float:
    value = cif.as_number(text)
    if not np.isfinite(value):
        raise InputError(f"{name} is {text!r}, no number: correct it")
    return value


# ---- symmetry


def _symmetries(tags: Tags, lattice: np.ndarray) -> list[Operators]:
    """The operators; several sets where the name leaves the setting open.

    Operators that are listed come first, then the Hall symbol, the name and the number. They must
    be of one group (or more operators than a name has, which is cut short at times), unless formula
    and Z say which atoms there are.
    """
    claims = [tag for tag in (*OPERATORS, *HALLS, *NAMES, *NUMBERS) if any(tags.get(tag, ""))]
    hints = [tag for tag, values in tags.items() if tag.startswith(SYMMETRY) and any(values)]
    magnetic = not any(tag in OPERATORS for tag in claims) and any("_magn" in tag for tag in hints)
    if magnetic or (hints and not claims):
        raise InputError(f"no group of all atoms, but {hints[-1]}: name it, or list its operators")
    told = {}
    for tag in claims:
        try:
            told[f"{tag} {tags[tag][0]!r}"] = _sets(tag, *tags[tag])
        except InputError:
            if not told:  # what comes first must be right
                raise
    said, (sets, number) = next(iter(told.items()), ("", _sets(OPERATORS[0], "x,y,z")))
    least = len(sets[0][0]) if {*claims[:1]} & {*OPERATORS} else 0
    others = {k: n for k, (ops, n) in told.items() if n != number and len(ops[0][0]) >= least}
    if others and not (_formula(tags) and _one(tags, UNITS)):
        raise InputError(
            f"{said}: group {number}, but {', '.join(f'{k}: group {n}' for k, n in others.items())}"
            "; correct one, or call the group P 1 if all atoms are listed"
        )
    fit = [operators for operators in sets if _keeps(lattice, operators[0])]
    if not fit:
        raise InputError(
            f"the symmetry ({said}) does not fit the cell: is it in another setting (rhombohedral "
            "or hexagonal axes, another unique axis)?"
        )
    return fit


@lru_cache(maxsize=256)
def _sets(tag: str, *values: str) -> tuple[list[Operators], int]:
    """What one tag says: operators, in all settings that it leaves open, and the group's number."""
    from spglib import get_spacegroup_type_from_symmetry

    if tag in OPERATORS or tag in HALLS:
        found = [_group(values, values[0] if tag in HALLS else "")]
    else:
        found = [_group((), group.hall) for group in _settings(values[0], by_name=tag in NAMES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib's own
        group = get_spacegroup_type_from_symmetry(np.rint(found[0][0]).astype(int), found[0][1])
    if group is None:
        raise InputError(f"the operators of {tag} are of no space group: correct them")
    return found, group.number


def _group(triplets: tuple[str, ...], hall: str) -> Operators:
    """Listed operators, or those of a Hall symbol, if the product of any two is one of them."""
    try:
        ops = list(gemmi.symops_from_hall(hall)) if hall else [gemmi.Op(t) for t in triplets]
        if not hall and (odd := re.search(r"(?i)[^xyz\d\s.,/+-]", "".join(triplets))):
            raise RuntimeError(f"{odd[0]!r} instead of x, y or z")
    except RuntimeError as error:
        what = f"Hall symbol {hall!r}" if hall else "symmetry operator"
        raise InputError(f"{what} not readable ({error}): correct it") from error
    group = gemmi.GroupOps(list({op.wrap().triplet(): op for op in ops}.values()))
    group.add_missing_elements()
    if len(list(group)) != len(ops):
        raise InputError(
            f"{len(ops)} operators make a group of {len(list(group))}: list each of them once, "
            "x,y,z too"
        )
    rot = np.array([op.rot for op in ops]) / gemmi.Op.DEN
    return rot, np.array([op.tran for op in ops]) / gemmi.Op.DEN


def _settings(name: str, *, by_name: bool) -> list[gemmi.SpaceGroup]:
    """Entries of the table with this name or number, of all settings where it tells none."""
    base, setting = re.sub(r"[\s_]", "", name), ""
    if match := re.fullmatch(r"(.+?)(?::(\w)|([SZHRhr]))", base):  # Fd-3m:2, Fd-3mZ, R-3mH
        base, setting = match[1], (match[2] or match[3]).upper()
        setting = {"S": "1", "Z": "2"}.get(setting, setting)
    if by_name:
        found = gemmi.find_spacegroup_by_name(base)
    else:
        value = _number("the space group", name)
        real = value in range(1, N_SPACE_GROUPS + 1)  # gemmi takes any other number for P 1
        found = gemmi.find_spacegroup_by_number(int(value)) if real else None
    if found is None:
        raise InputError(f"no space group is called {name!r}: list the operators")
    same = [g for g in gemmi.spacegroup_table() if g.hm == found.hm]
    return [g for g in same if g.ext == setting] or same


def _keeps(lattice: np.ndarray, rotations: np.ndarray) -> bool:
    """Do the operators leave the lengths and angles of the cell as they are?"""
    metric = lattice @ lattice.T
    moved = rotations.transpose(0, 2, 1) @ metric @ rotations  # (ops, 3, 3)
    return bool(np.abs(moved - metric).max() < METRIC * np.trace(metric) / 3)


def expanded(
    lattice: np.ndarray, frac: np.ndarray, operators: Operators
) -> tuple[np.ndarray, np.ndarray]:
    """Listed site (atoms,) and coordinates (atoms, 3) of all atoms of the cell.

    A site almost on a special position is moved onto it.

    Raises:
        InputError: a site has images that are neither apart nor on one place.
    """
    rotations, shifts = operators
    if len(rotations) == 1:
        return np.arange(len(frac)), frac
    which, places = [], []
    for i, start in enumerate(frac):
        site = start
        for _ in range(3):  # on the special position others of its operators come within reach
            away = rotations @ site + shifts - site
            away -= np.round(away)
            fixing = np.linalg.norm(away @ lattice, axis=1) < MERGE
            site = site + away[fixing].mean(0)
        images = rotations @ site + shifts  # (ops, 3)
        images -= np.floor(images)
        between = images[:, None] - images
        between -= np.round(between)
        together = np.linalg.norm(between @ lattice, axis=2) < MERGE  # (ops, ops)
        first = np.unique(together.argmax(1))
        if len(first) * fixing.sum() != len(rotations):
            raise InputError(
                f"site {i + 1} at {start} has images less than {MERGE} Å apart that its symmetry "
                "does not join: give its coordinates with more digits"
            )
        which += [i] * len(first)
        places.append(images[first])
    return np.array(which), np.concatenate(places)


# ---- what the file says twice


def _formula(tags: Tags) -> dict[int, float]:
    try:
        return elements.parse_formula(re.sub(r"\s", "", _one(tags, "_chemical_formula_sum")))
    except InputError:
        return {}


def _contradiction(tags: Tags, numbers: np.ndarray) -> str:
    """How the atoms of the cell disagree with formula and Z, or nothing."""
    formula, have = _formula(tags), Counter(numbers.tolist())
    if not formula:
        return ""
    ratios = np.array([have[z] / n for z, n in formula.items() if n])
    units = cif.as_number(_one(tags, UNITS) or "?")
    allowed = [units] if np.isfinite(units) else [ratios[0]]
    if units > 0 and all(n % units == 0 for n in formula.values()):
        allowed.append(1)  # the formula of the whole cell, as pymatgen writes it
    same = any(np.allclose(ratios, k, rtol=0.01, atol=0) for k in allowed)
    if same and set(have) <= set(formula):
        return ""
    said = _one(tags, "_chemical_formula_sum") + (f", Z = {units:g}" if units > 0 else "")
    found = " ".join(f"{elements.SYMBOLS[z]}{n}" for z, n in sorted(have.items()))
    return (
        f"the sites give {found} in the cell, but the formula is {said}: correct symmetry, sites "
        "or formula"
    )


def _miscounted(tags: Tags, which: np.ndarray, n_operators: int) -> str:
    """How the places of a site disagree with its multiplicity (or order), or nothing."""
    told = next((tags[tag] for tag in MULTIPLICITIES if any(tags.get(tag, ""))), [])
    for i, (text, places) in enumerate(zip(told, np.bincount(which), strict=False), 1):
        value = cif.as_number(text)
        if value not in (places, n_operators / places, 1) and np.isfinite(value):
            return (
                f"site {i} has {places} places in the cell, but its multiplicity is {text}: "
                "correct symmetry, coordinates or multiplicity"
            )
    return ""
