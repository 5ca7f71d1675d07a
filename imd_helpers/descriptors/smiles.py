"""Molecules as text: SMILES taken apart, judged, rewritten and mutated, and SELFIES beside it.

A SMILES walks through the graph of bonds: letters are atoms (lower case: aromatic), hydrogens are
implied, brackets hold what is unusual, parentheses open branches, and equal digits close rings.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime import InputError, data_path, need, whole
from .molecules import MoleculeBatch

if TYPE_CHECKING:
    from rdkit.Chem import Mol

TOKEN = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|%\d\d|%\(\d+\)|\d|[-=#:$/\\().]")
GAP = 3.0  # Å between the parts of a salt
ORDERS = {"-": 1.0, "=": 2.0, "#": 3.0, ":": 1.5, "$": 4.0, "/": 1.0, "\\": 1.0}


_LINES = data_path("molecules", "well_known.csv").read_text(encoding="utf-8").splitlines()
WELL_KNOWN = {row["name"]: row["smiles"] for row in csv.DictReader(_LINES)}  # by common name


def tokenize(text: str) -> list[str]:
    """Split a SMILES into atoms, bonds, branches and ring digits.

    Raises:
        InputError: a character that belongs to no token, with its place.
    """
    tokens, place = [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise InputError(
                f"SMILES {text!r}: {text[place]!r} at position {place} is no atom, bond, branch or "
                "ring digit; atoms outside B C N O P S F Cl Br I need brackets, e.g. [Si]"
            )
        tokens.append(match.group())
        place = match.end()
    return tokens


def is_valid(text: Any) -> bool:
    """Does RDKit accept the text, syntax and chemistry?"""
    return verdict(text) == ""


def verdict(text: Any) -> str:
    """Why RDKit rejects a SMILES, or nothing if it does not.

    Returns:
        ``""``, or ``"empty"`` (no atoms), ``"syntax"`` (no graph can be read, or a name behind
        it), ``"valence"`` (too many bonds), ``"aromaticity"`` (no bond orders fit the lower-case
        letters).

    Raises:
        InputError: rdkit is not installed.
    """
    chem, base = need("rdkit.Chem"), need("rdkit.rdBase")
    if not isinstance(text, str) or not text.strip():
        return "empty"
    if not re.fullmatch("[!-~]+", text.strip()):  # RDKit takes what follows a blank for a name
        return "syntax"
    with base.BlockLogs():
        molecule = chem.MolFromSmiles(text, sanitize=False)
        if molecule is None or not _ring_marks_agree(text):
            return "syntax"
        if chem.MolFromSmiles(text) is not None:
            return ""
        problems = [problem.GetType() for problem in chem.DetectChemistryProblems(molecule)]
    # a few valences are found wrong only after the bonds of aromatic rings are written out
    wrong = not problems or any("Valence" in problem for problem in problems)
    return "valence" if wrong else "aromaticity"


def _ring_marks_agree(text: str) -> bool:
    """Do both marks of each ring name the same bond, where both name one? RDKit does not ask."""
    opened: dict[str, str] = {}
    bond = ""
    for token in TOKEN.findall(text):
        if not (token.isdigit() or token.startswith("%")):
            bond = token if token in ORDERS else ""
            continue
        ring = token.strip("%()")
        if ring not in opened:
            opened[ring] = bond
        else:
            other = opened.pop(ring)
            if bond and other and ORDERS[bond] != ORDERS[other]:
                return False
        bond = ""
    return True


def canonical(text: str) -> str:
    """The one SMILES that RDKit writes for a molecule, however its atoms are numbered.

    Raises:
        InputError: RDKit does not accept the text, or is not installed.
    """
    chem = need("rdkit.Chem")
    return chem.MolToSmiles(_molecule(text))


def rewrite(text: str, n: int, *, seed: int = 0) -> list[str]:
    """Write the same molecule n times, each time along another walk through its graph.

    Raises:
        InputError: RDKit does not accept the text, or is not installed.
    """
    chem = need("rdkit.Chem")
    n, seed = whole("n", n, least=1), whole("seed", seed)
    return chem.MolToRandomSmilesVect(_molecule(text), n, randomSeed=seed)


def mutate(
    tokens: Sequence[str], alphabet: Sequence[str], rng: np.random.Generator, *, edits: int = 1
) -> list[str]:
    """Replace, insert or delete tokens at random places, each kind of edit equally often.

    The tokens, of a SMILES or of a SELFIES, are not changed; an alphabet says what may be put in.

    Raises:
        InputError: no tokens, no alphabet, or a negative number of edits.
    """
    if len(tokens) == 0 or len(alphabet) == 0:
        raise InputError(
            f"{len(tokens)} tokens, {len(alphabet)} letters: a mutation needs something to change "
            "and something to put in"
        )
    out = list(tokens)
    for _ in range(whole("edits", edits)):
        kind = rng.integers(3) if len(out) > 1 else rng.integers(2)  # never delete the last one
        letter = alphabet[rng.integers(len(alphabet))]
        if kind == 0:
            out[rng.integers(len(out))] = letter
        elif kind == 1:
            out.insert(int(rng.integers(len(out) + 1)), letter)
        else:
            del out[rng.integers(len(out))]
    return out


def to_selfies(text: str) -> list[str]:
    """Tokens of the SELFIES of a molecule.

    Raises:
        InputError: the text is not accepted, or selfies is not installed.

    Source: Krenn et al., Mach. Learn.: Sci. Technol. 1 (2020) 045024.
    """
    selfies = need("selfies")
    try:
        return list(selfies.split_selfies(selfies.encoder(text)))
    except selfies.EncoderError as error:
        raise InputError(f"SMILES {text!r} has no SELFIES: {error}") from error


def from_selfies(tokens: Sequence[str]) -> str:
    """The SMILES of SELFIES tokens; every sequence has one, though it may be empty.

    Raises:
        InputError: a token that SELFIES does not know, or selfies is not installed.
    """
    selfies = need("selfies")
    try:
        return selfies.decoder("".join(tokens))
    except selfies.DecoderError as error:
        raise InputError(f"no SELFIES: {error}") from error


def embed(text: str, *, seed: int = 0) -> Mol:
    """Coordinates for a SMILES, with all hydrogens, by distance geometry (ETKDG) and UFF.

    The parts of a salt are laid side by side: how they pack is not known from the text.

    Raises:
        InputError: RDKit does not accept the text, finds no coordinates, or is not installed.

    Source: Riniker & Landrum, J. Chem. Inf. Model. 55 (2015) 2562.
    """
    chem, force = need("rdkit.Chem"), need("rdkit.Chem.rdForceFieldHelpers")
    distance = need("rdkit.Chem.rdDistGeom")
    molecule = chem.AddHs(_molecule(text))
    options = distance.ETKDGv3()
    options.randomSeed = whole("seed", seed)
    if distance.EmbedMolecule(molecule, options) != 0:
        raise InputError(f"SMILES {text!r}: no coordinates found with seed {seed}, try another")
    with need("rdkit.rdBase").BlockLogs():
        if force.UFFHasAllMoleculeParams(molecule):
            force.UFFOptimizeMolecule(molecule, maxIters=2000)
    _lay_apart(molecule)
    return molecule


def _lay_apart(molecule: Mol) -> None:
    """Move the parts of a molecule along x, in place, until they are `GAP` apart."""
    parts = need("rdkit.Chem").GetMolFrags(molecule)
    if len(parts) == 1:
        return
    conformer, end = molecule.GetConformer(), 0.0
    for part in parts:
        places = conformer.GetPositions()[list(part)]
        places[:, 0] += end - places[:, 0].min()
        places[:, 1:] -= places[:, 1:].mean(0)
        end = places[:, 0].max() + GAP
        for atom, place in zip(part, places.tolist(), strict=True):
            conformer.SetAtomPosition(atom, place)


def batch_of(molecules: Sequence[Mol]) -> MoleculeBatch:
    """The coordinates of RDKit molecules as a batch.

    Raises:
        InputError: a molecule without coordinates.
    """
    for i, molecule in enumerate(molecules):
        if molecule.GetNumConformers() == 0:
            raise InputError(f"molecule {i} has no coordinates: make them with smiles.embed(...)")
    numbers = [[atom.GetAtomicNum() for atom in molecule.GetAtoms()] for molecule in molecules]
    return MoleculeBatch.from_lists([m.GetConformer().GetPositions() for m in molecules], numbers)


def _molecule(text: str) -> Mol:
    reason = verdict(text)
    if reason:
        raise InputError(f"RDKit rejects the SMILES {text!r}: {reason}; correct or drop it")
    return need("rdkit.Chem").MolFromSmiles(text)
