"""Molecules as text: SMILES read by hand, judged, rewritten and mutated, and SELFIES beside it.

A SMILES walks through the graph of bonds: letters are atoms (lower case: aromatic), hydrogens are
implied, brackets hold what is unusual, parentheses open branches, and equal digits close rings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..crystals import elements
from ..runtime import InputError
from .molecules import MoleculeBatch, need

if TYPE_CHECKING:
    from rdkit.Chem import Mol

TOKEN = re.compile(r"\[[^\[\]]+\]|Br|Cl|[BCNOPSFI]|[bcnops]|%\d\d|\d|[-=#:$/\\().]")
ORDERS = {"-": 1.0, "=": 2.0, "#": 3.0, ":": 1.5, "$": 4.0, "/": 1.0, "\\": 1.0}
BRACKET = re.compile(
    r"\[\d*([A-Z][a-z]?|[a-z][a-z]?)(?:@{1,2})?(?:H\d*)?(?:[+-]\d*|\++|-+)?(?::\d+)?\]"
)

# Well-known molecules, by common name; the reader can check each of them in any book of chemistry.
WELL_KNOWN: dict[str, str] = {
    "methane": "C",
    "ethanol": "CCO",
    "acetic acid": "CC(=O)O",
    "acetone": "CC(C)=O",
    "dimethyl ether": "COC",
    "formaldehyde": "C=O",
    "hydrogen cyanide": "C#N",
    "acetylene": "C#C",
    "urea": "NC(N)=O",
    "glycine": "NCC(=O)O",
    "L-alanine": "C[C@H](N)C(=O)O",
    "D-alanine": "C[C@@H](N)C(=O)O",
    "L-serine": "N[C@@H](CO)C(=O)O",
    "L-cysteine": "N[C@@H](CS)C(=O)O",
    "lactic acid": "CC(O)C(=O)O",
    "citric acid": "OC(=O)CC(O)(C(=O)O)C(=O)O",
    "glycerol": "OCC(O)CO",
    "glucose": "OCC1OC(O)C(O)C(O)C1O",
    "isoprene": "CC(=C)C=C",
    "limonene": "CC1=CCC(CC1)C(C)=C",
    "camphor": "CC1(C)C2CCC1(C)C(=O)C2",
    "menthol": "CC(C)C1CCC(C)CC1O",
    "cyclohexane": "C1CCCCC1",
    "decalin": "C1CCC2CCCCC2C1",
    "bicyclopentyl": "C1CCC(C1)C2CCCC2",
    "benzene": "c1ccccc1",
    "toluene": "Cc1ccccc1",
    "phenol": "Oc1ccccc1",
    "aniline": "Nc1ccccc1",
    "styrene": "C=Cc1ccccc1",
    "benzoic acid": "OC(=O)c1ccccc1",
    "nitrobenzene": "O=[N+]([O-])c1ccccc1",
    "biphenyl": "c1ccccc1-c1ccccc1",
    "naphthalene": "c1ccc2ccccc2c1",
    "anthracene": "c1ccc2cc3ccccc3cc2c1",
    "pyridine": "c1ccncc1",
    "pyrrole": "c1cc[nH]c1",
    "furan": "c1ccoc1",
    "thiophene": "c1ccsc1",
    "imidazole": "c1c[nH]cn1",
    "pyrimidine": "c1cncnc1",
    "indole": "c1ccc2[nH]ccc2c1",
    "quinoline": "c1ccc2ncccc2c1",
    "adenine": "Nc1ncnc2[nH]cnc12",
    "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
    "cytosine": "Nc1cc[nH]c(=O)n1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "nicotine": "CN1CCCC1c1cccnc1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "salicylic acid": "OC(=O)c1ccccc1O",
    "vanillin": "COc1cc(C=O)ccc1O",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "serotonin": "NCCc1c[nH]c2ccc(O)cc12",
    "adrenaline": "CNCC(O)c1ccc(O)c(O)c1",
    "ascorbic acid": "OCC(O)C1OC(=O)C(O)=C1O",
    "chloroform": "ClC(Cl)Cl",
    "trichloroethylene": "ClC=C(Cl)Cl",
    "bromobenzene": "Brc1ccccc1",
    "dimethyl sulfoxide": "CS(C)=O",
    "trinitrotoluene": "Cc1c(cc(cc1[N+](=O)[O-])[N+](=O)[O-])[N+](=O)[O-]",
}


@dataclass(frozen=True)
class SmilesGraph:
    """What a SMILES says about atoms and bonds, before any chemistry.

    Attributes:
        numbers: (atoms,) atomic numbers; hydrogens only where they are written as atoms.
        aromatic: (atoms,) whether the letter was lower case.
        bonds: ``(i, j, order)`` with i < j, sorted; 1.5 is aromatic.
    """

    numbers: tuple[int, ...]
    aromatic: tuple[bool, ...]
    bonds: tuple[tuple[int, int, float], ...]


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


def read_smiles(text: str) -> SmilesGraph:
    """Read atoms and bonds with a stack for branches and a table for open rings.

    Stereochemistry, isotopes and charges are read over.

    Raises:
        InputError: an unknown character or atom, a branch that is not closed or not open, a ring
            that is not closed, or a bond without an atom at one end.

    Source:
        Weininger, J. Chem. Inf. Comput. Sci. 28 (1988) 31.
    """
    reader = _Reader(text)
    for token in tokenize(text):
        reader.take(token)
    return reader.graph()


def is_valid(text: str) -> bool:
    """Does RDKit accept the text, syntax and chemistry?"""
    return verdict(text) == ""


def verdict(text: str) -> str:
    """Why RDKit rejects a SMILES, or nothing if it does not.

    Returns:
        ``""``, or ``"empty"`` (no atoms), ``"syntax"`` (no graph can be read), ``"valence"`` (too
        many bonds), ``"aromaticity"`` (no bond orders fit the lower-case letters).

    Raises:
        InputError: rdkit is not installed.
    """
    chem, base = need("rdkit.Chem"), need("rdkit.rdBase")
    if not text:
        return "empty"
    with base.BlockLogs():
        molecule = chem.MolFromSmiles(text, sanitize=False)
        if molecule is None:
            return "syntax"
        if chem.MolFromSmiles(text) is not None:
            return ""
        problems = [problem.GetType() for problem in chem.DetectChemistryProblems(molecule)]
    # a few valences are found wrong only after the bonds of aromatic rings are written out
    wrong = not problems or any("Valence" in problem for problem in problems)
    return "valence" if wrong else "aromaticity"


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
    return chem.MolToRandomSmilesVect(_molecule(text), n, randomSeed=seed)


def mutate(
    tokens: Sequence[str], alphabet: Sequence[str], rng: np.random.Generator, *, edits: int = 1
) -> list[str]:
    """Replace, insert or delete tokens at random places, each kind of edit equally often.

    Args:
        tokens: of a SMILES or of a SELFIES; not changed.
        alphabet: what may be put in.
        rng: source of random numbers.
        edits: how many edits.

    Raises:
        InputError: no tokens, no alphabet, or a negative number of edits.
    """
    if len(tokens) == 0 or len(alphabet) == 0 or edits < 0:
        raise InputError(
            f"{len(tokens)} tokens, {len(alphabet)} letters, {edits} edits: a mutation needs "
            "something to change, something to put in, and edits >= 0"
        )
    out = list(tokens)
    for _ in range(edits):
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

    Source:
        Krenn et al., Mach. Learn.: Sci. Technol. 1 (2020) 045024.
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

    Raises:
        InputError: RDKit does not accept the text, finds no coordinates, or is not installed.

    Source:
        Riniker & Landrum, J. Chem. Inf. Model. 55 (2015) 2562.
    """
    chem, force = need("rdkit.Chem"), need("rdkit.Chem.rdForceFieldHelpers")
    distance = need("rdkit.Chem.rdDistGeom")
    molecule = chem.AddHs(_molecule(text))
    options = distance.ETKDGv3()
    options.randomSeed = seed
    if distance.EmbedMolecule(molecule, options) != 0:
        raise InputError(f"SMILES {text!r}: no coordinates found with seed {seed}, try another")
    with need("rdkit.rdBase").BlockLogs():
        if force.UFFHasAllMoleculeParams(molecule):
            force.UFFOptimizeMolecule(molecule, maxIters=2000)
    return molecule


def batch_of(molecules: Sequence[Mol]) -> MoleculeBatch:
    """The coordinates of RDKit molecules as a batch.

    Raises:
        InputError: a molecule without coordinates.
    """
    for i, molecule in enumerate(molecules):
        if molecule.GetNumConformers() == 0:
            raise InputError(f"molecule {i} has no coordinates: make them with smiles.embed(...)")
    return MoleculeBatch.from_lists(
        [molecule.GetConformer().GetPositions() for molecule in molecules],
        [np.array([a.GetAtomicNum() for a in molecule.GetAtoms()]) for molecule in molecules],
    )


def _molecule(text: str) -> Mol:
    reason = verdict(text)
    if reason:
        raise InputError(f"RDKit rejects the SMILES {text!r}: {reason}")
    return need("rdkit.Chem").MolFromSmiles(text)


class _Reader:
    """What has been read of a SMILES, token by token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.numbers: list[int] = []
        self.aromatic: list[bool] = []
        self.bonds: list[tuple[int, int, str | None]] = []
        self.branches: list[int] = []  # where open branches go back to
        self.rings: dict[str, tuple[int, str | None]] = {}  # open ends: atom and bond written
        self.last: int | None = None  # the atom that the next one is bonded to
        self.bond: str | None = None  # the bond written since
        self.fresh = False  # no atom yet in this branch

    def take(self, token: str) -> None:
        if token in ORDERS:
            self._rule(self.bond is None and self.last is not None, "a bond without an atom before")
            self.bond = token
        elif token == "(":
            self._rule(self.last is not None, "a branch before the first atom")
            self._rule(self.bond is None and not self.fresh, "a branch must start at an atom")
            self.branches.append(self.last)
            self.fresh = True
        elif token == ")":
            self._rule(self.bond is None and bool(self.branches), "a parenthesis that is not open")
            self._rule(
                not self.fresh and self.last is not None, "a branch without an atom at its end"
            )
            self.last = self.branches.pop()
        elif token == ".":
            self._rule(self.bond is None and self.last is not None, "a dot without an atom before")
            self.last = None
        elif token[0].isdigit() or token[0] == "%":
            self._ring(token)
        else:
            self._add(*_atom(token, self.text))

    def graph(self) -> SmilesGraph:
        self._rule(not self.branches, f"{len(self.branches)} branches are never closed")
        self._rule(not self.rings, f"ring {', '.join(self.rings)} is never closed")
        self._rule(self.bond is None and self.last is not None, "it ends before an atom")
        pairs = {frozenset(bond[:2]) for bond in self.bonds}
        self._rule(len(pairs) == len(self.bonds), "two bonds between two atoms")
        bonds = _orders(self.bonds, self.aromatic)
        return SmilesGraph(tuple(self.numbers), tuple(self.aromatic), bonds)

    def _ring(self, digit: str) -> None:
        self._rule(self.last is not None and not self.fresh, "a ring digit without an atom before")
        if digit in self.rings:
            other, written = self.rings.pop(digit)
            self._rule(other != self.last, "a ring of one atom")
            self.bonds.append((other, self.last, self.bond or written))
        else:
            self.rings[digit] = (self.last, self.bond)
        self.bond = None

    def _add(self, number: int, aromatic: bool) -> None:
        self.numbers.append(number)
        self.aromatic.append(aromatic)
        here = len(self.numbers) - 1
        if self.last is not None:
            self.bonds.append((self.last, here, self.bond))
        self.last, self.bond, self.fresh = here, None, False

    def _rule(self, holds: bool, problem: str) -> None:
        _rule(holds, self.text, problem)


def _rule(holds: bool, text: str, problem: str) -> None:
    if not holds:
        raise InputError(f"SMILES {text!r}: {problem}")


def _atom(token: str, text: str) -> tuple[int, bool]:
    symbol = token
    if token[0] == "[":
        match = BRACKET.fullmatch(token)
        _rule(match is not None, text, f"{token} is no atom in brackets")
        symbol = match.group(1)
    lower = symbol[0].islower()
    symbol = symbol.capitalize()
    _rule(symbol in elements.SYMBOLS[1:], text, f"{symbol!r} is no element")
    return elements.number(symbol), lower


def _orders(
    bonds: list[tuple[int, int, str | None]], aromatic: list[bool]
) -> tuple[tuple[int, int, float], ...]:
    """Order of the bonds not written: aromatic within an aromatic ring, else single."""
    plain = [(i, j) for i, j, _ in bonds]
    out = []
    for i, j, written in bonds:
        if written is not None:
            order = ORDERS[written]
        else:
            flat = aromatic[i] and aromatic[j]
            order = 1.5 if flat and _in_ring(i, j, plain) else 1.0
        out.append((min(i, j), max(i, j), order))
    return tuple(sorted(out))


def _in_ring(i: int, j: int, bonds: list[tuple[int, int]]) -> bool:
    """Is there a way from i to j other than their bond?"""
    rest = [pair for pair in bonds if set(pair) != {i, j}]
    seen, border = {i}, [i]
    while border:
        atom = border.pop()
        for a, b in rest:
            for one, other in ((a, b), (b, a)):
                if one == atom and other not in seen:
                    seen.add(other)
                    border.append(other)
    return j in seen
