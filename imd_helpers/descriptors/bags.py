"""Bags of bonds, and bags of bonds, angles and torsions with terms of a force field (BAML).

A molecule becomes many small lists, one for each kind of atom, pair, angle or torsion. Each is
sorted, so that the numbering of the atoms is lost, and padded with zeros to the longest one seen.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..crystals.samples import Samples
from ..runtime import InputError, lookup, need
from .base import Descriptor
from .coulomb import POWER
from .molecules import MoleculeBatch, read_molecules

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    Bag = tuple[str, ...]
    Bags = dict[Bag, list[float]]
    Term = tuple[tuple[Any, ...], float]  # kind and atoms, kcal/mol

STRETCHES = ("morse", "harmonic")
DEPTH = 70.0  # kcal/mol for each bond order: depth of UFF's Morse potential
FOLDS = {"SP": 1, "SP2": 3, "SP3D2": 4}  # of the angle term; the others have the general form


class _Padded(Descriptor):
    """Bags of different lengths as one vector."""

    dtype = torch.float64
    piece = 1

    def __init__(self) -> None:
        self.sizes: dict[Bag, int] = {}

    def _bags(self, molecule: Any) -> Bags:
        """The bags of one molecule."""
        raise NotImplementedError

    def fit(self, molecules: Any) -> Self:
        """Find how long each bag must be.

        Raises:
            InputError: a molecule is broken, or has no bags.
        """
        batch = Samples.from_reasons(*self._read(molecules)).checked()
        sizes: dict[Bag, int] = defaultdict(int)
        for i in range(len(batch)):
            for bag, values in self._bags(batch[i]).items():
                sizes[bag] = max(sizes[bag], len(values))
        self.sizes = dict(sorted(sizes.items()))
        return self

    def _write(self, batch: Any) -> Tensor:
        if not self.sizes:
            raise InputError("the bags have no sizes yet: call fit with all molecules first")
        starts = dict(zip(self.sizes, np.cumsum([0, *self.sizes.values()]).tolist(), strict=False))
        out = torch.zeros(1, *self.shape, dtype=torch.float64)
        for bag, values in self._bags(batch[0]).items():
            room = self.sizes.get(bag, 0)
            if len(values) > room:
                raise InputError(
                    f"{len(values)} of {'-'.join(bag)}, but the bags were fitted for {room}: fit "
                    "on all molecules (sizes need no targets, so that nothing leaks)"
                )
            ordered = sorted(values, key=lambda value: -abs(value))
            out[0, starts[bag] : starts[bag] + len(values)] = torch.tensor(ordered)
        return out

    @property
    def shape(self) -> tuple[int]:
        """Of one encoded molecule; all zeros belong to it."""
        return (sum(self.sizes.values()),)

    @property
    def labels(self) -> list[Bag]:
        """The bag of each column."""
        return [bag for bag, size in self.sizes.items() for _ in range(size)]


class BondBags(_Padded):
    """Bag of bonds: the values of the Coulomb matrix, sorted within each pair of elements.

    Every pair of atoms counts, bonded or not.

    Source: Hansen et al., J. Phys. Chem. Lett. 6 (2015) 2326.
    """

    _read = staticmethod(read_molecules)

    def _bags(self, molecule: MoleculeBatch) -> Bags:
        bags: Bags = defaultdict(list)
        distance = molecule.distances()[0].tolist()
        z = molecule.numbers[molecule.mask].tolist()
        for a, charge in enumerate(z):
            bags["atom", elements.SYMBOLS[charge]].append(0.5 * charge**POWER)
            for b in range(a):
                pair = sorted((elements.SYMBOLS[charge], elements.SYMBOLS[z[b]]))
                bags["pair", *pair].append(charge * z[b] / distance[a][b])
        return bags


class ForceFieldBags(_Padded):
    """Bags of atoms, bonds, other pairs, angles and torsions with terms of the force field UFF.

    An atom enters as 1, so that a linear model gives it its own energy; a bond as a Morse
    potential; a pair further apart than an angle as Lennard-Jones; angles and torsions, which may
    be left out, as UFF's cosine series. All in kcal/mol. Molecules are RDKit's, with all hydrogens
    and one conformer (see `to_rdkit`).

    Source:
        Huang & von Lilienfeld, J. Chem. Phys. 145 (2016) 161102 (BAML); the terms from Rappé et
        al., J. Am. Chem. Soc. 114 (1992) 10024. The original fits the energies of its atoms first;
        here the regression that follows does.
    """

    def __init__(self, *, angles: bool = True, torsions: bool = True) -> None:
        super().__init__()
        self.kinds = ["atom", "bond", "pair"] + ["angle"] * angles + ["torsion"] * torsions

    def _read(self, things: Sequence[Mol]) -> tuple[np.ndarray, list[str]]:
        if not isinstance(things, list | tuple) or len(things) == 0:
            raise InputError(f"{type(things).__name__} given: give a list of RDKit molecules")
        batch = np.empty(len(things), dtype=object)
        batch[:] = things
        missing = "no RDKit molecule: to_rdkit says why"
        return batch, ["" if hasattr(one, "GetAtoms") else missing for one in things]

    def _bags(self, molecule: Mol) -> Bags:
        bags: Bags = defaultdict(list)
        for atom in molecule.GetAtoms():
            bags["atom", atom.GetSymbol()].append(1.0)
        for (kind, *atoms), value in uff_terms(molecule).items():
            symbols = [molecule.GetAtomWithIdx(i).GetSymbol() for i in atoms]
            if kind in self.kinds:  # names are read from either end
                bags[kind, *min(symbols, symbols[::-1])].append(value)
        return bags


def uff_terms(molecule: Mol, *, stretch: str = "morse") -> dict[tuple[Any, ...], float]:
    """Energy of each bond, pair, angle and torsion in the force field UFF.

    Args:
        molecule: RDKit molecule with all hydrogens and one conformer.
        stretch: ``"morse"`` (zero for separated atoms, as BAML) or ``"harmonic"`` (as RDKit).

    Returns:
        ``{(kind, atom, atom, …): kcal/mol}``, kind one of bond, pair, angle, torsion. UFF's
        inversion terms at flat centres are left out.

    Raises:
        InputError: no conformer, an atom without parameters, or rdkit is not installed.
        UnknownNameError: no such stretch.

    Source: Rappé et al. (1992), equations 1, 2, 10, 16 and 20.
    """
    lookup("stretch", stretch, STRETCHES)
    field = need("rdkit.Chem.rdForceFieldHelpers")
    if molecule.GetNumConformers() == 0:
        raise InputError("the molecule has no coordinates: make them with smiles.embed(...)")
    xyz = molecule.GetConformer().GetPositions()  # (atoms, 3) Å
    with need("rdkit.rdBase").BlockLogs():  # UFF's atom types warn at every call
        if not field.UFFHasAllMoleculeParams(molecule):
            raise InputError("UFF lacks parameters for an atom of this molecule: drop the molecule")
        parts = (_pair_terms, _angle_terms, _torsion_terms)
        bonds = _bond_terms(molecule, xyz, field, stretch)
        return dict(itertools.chain(bonds, *(part(molecule, xyz, field) for part in parts)))


def to_rdkit(molecules: MoleculeBatch) -> tuple[list[Mol | None], tuple[str, ...]]:
    """RDKit molecules with bond orders found from the geometry, taken as neutral.

    Returns:
        n molecules, None where RDKit finds no bonding that gives every atom its valence, and n
        reasons, empty where it does.

    Raises:
        InputError: rdkit is not installed.
    """
    chem, perceive = need("rdkit.Chem"), need("rdkit.Chem.rdDetermineBonds")
    field, base = need("rdkit.Chem.rdForceFieldHelpers"), need("rdkit.rdBase")
    out, reasons = [], []
    for atoms in molecules.atoms():
        rows = zip(atoms.symbols, atoms.positions, strict=True)
        lines = [f"{symbol} {x:.8f} {y:.8f} {z:.8f}" for symbol, (x, y, z) in rows]
        with base.BlockLogs():
            molecule = chem.MolFromXYZBlock("\n".join([str(len(atoms)), "", *lines]))
            try:
                perceive.DetermineBonds(molecule, charge=0, allowChargedFragments=True)
                problem = "" if field.UFFHasAllMoleculeParams(molecule) else "no UFF parameters"
            except (ValueError, RuntimeError) as error:
                problem = str(error).splitlines()[0] or "no bonding found"
        radical = any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
        problem = problem or ("radical" if radical else "")
        out.append(None if problem else molecule)
        reasons.append(problem)
    return out, tuple(reasons)


# ---- the terms of UFF


def _bond_terms(molecule: Mol, xyz: np.ndarray, field: Any, stretch: str) -> Iterator[Term]:
    for bond in molecule.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        k, r0 = field.GetUFFBondStretchParams(molecule, i, j)
        r = np.linalg.norm(xyz[i] - xyz[j])
        spring = float(0.5 * k * (r - r0) ** 2)
        depth = DEPTH * bond.GetBondTypeAsDouble()
        yield ("bond", i, j), spring if stretch == "harmonic" else morse(r, r0, k, depth)


def morse(r: float, r0: float, k: float, depth: float) -> float:
    """Morse potential, zero for separated atoms: D [(1 - exp(-a (r - r0)))² - 1], a = √(k / 2D).

    Distance r and natural distance r0 in Å, force constant k in kcal/mol/Å², depth D in kcal/mol.
    """
    return float(depth * ((1 - math.exp(-math.sqrt(k / (2 * depth)) * (r - r0))) ** 2 - 1))


def _pair_terms(molecule: Mol, xyz: np.ndarray, field: Any) -> Iterator[Term]:
    steps = need("rdkit.Chem").GetDistanceMatrix(molecule)  # (atoms, atoms) bonds on the way
    for i, j in itertools.combinations(range(len(xyz)), 2):
        if steps[i, j] < 3:
            continue  # bonds and angles have their own terms
        r0, depth = field.GetUFFVdWParams(molecule, i, j)
        sixth = (r0 / np.linalg.norm(xyz[i] - xyz[j])) ** 6
        yield ("pair", i, j), float(depth * (sixth**2 - 2 * sixth))


def _angle_terms(molecule: Mol, xyz: np.ndarray, field: Any) -> Iterator[Term]:
    for atom in molecule.GetAtoms():
        j = atom.GetIdx()
        for i, k in itertools.combinations(sorted(n.GetIdx() for n in atom.GetNeighbors()), 2):
            parameters = field.GetUFFAngleBendParams(molecule, i, j, k)
            if parameters is None:
                continue
            one, other = xyz[i] - xyz[j], xyz[k] - xyz[j]
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            fold = FOLDS.get(str(atom.GetHybridization()), 0)
            yield ("angle", i, j, k), bend(float(np.clip(cosine, -1, 1)), *parameters, fold=fold)


def bend(cosine: float, stiffness: float, natural: float, *, fold: int = 0) -> float:
    """UFF's angle term, zero at the natural angle.

    With a fold n (1 linear, 3 trigonal, 4 octahedral) it is K / n² (1 - cos nθ), with a plus for
    the linear case; else K (C0 + C1 cos θ + C2 cos 2θ), which knows the natural angle, degrees. The
    stiffness K is in kcal/mol.
    """
    if fold:
        sign = 1.0 if fold == 1 else -1.0
        return stiffness / fold**2 * (1 + sign * math.cos(fold * math.acos(cosine)))
    start = math.radians(natural)
    c2 = 1 / (4 * math.sin(start) ** 2)
    c1, c0 = -4 * c2 * math.cos(start), c2 * (2 * math.cos(start) ** 2 + 1)
    return stiffness * (c0 + c1 * cosine + c2 * (2 * cosine**2 - 1))


def _torsion_terms(molecule: Mol, xyz: np.ndarray, field: Any) -> Iterator[Term]:
    for bond in molecule.GetBonds():
        j, k = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        ends = [
            [n.GetIdx() for n in molecule.GetAtomWithIdx(a).GetNeighbors() if n.GetIdx() != b]
            for a, b in ((j, k), (k, j))
        ]
        barriers = {
            (i, m): field.GetUFFTorsionParams(molecule, i, j, k, m)
            for i, m in itertools.product(*ends)
            if i != m
        }
        found = {pair: barrier for pair, barrier in barriers.items() if barrier is not None}
        for (i, m), barrier in found.items():
            phase, fold = _torsion_form(molecule, i, j, k, m)
            angle = math.acos(cos_dihedral(*xyz[[i, j, k, m]]))
            share = barrier / len(found)  # the barrier belongs to the bond
            yield ("torsion", i, j, k, m), 0.5 * share * (1 - phase * math.cos(fold * angle))


def _torsion_form(molecule: Mol, i: int, j: int, k: int, m: int) -> tuple[float, int]:
    """Cos(n φ0) and n, from the hybridization of the two atoms in the middle."""
    middle = [molecule.GetAtomWithIdx(a) for a in (j, k)]
    kind = [str(atom.GetHybridization()) for atom in middle]
    oxygen_like = [atom.GetAtomicNum() in {8, 16, 34, 52, 84} for atom in middle]
    if kind == ["SP3", "SP3"]:
        return (-1.0, 2) if all(oxygen_like) else (-1.0, 3)
    if kind == ["SP2", "SP2"]:
        return 1.0, 2
    flat, bent = (0, 1) if kind[0] == "SP2" else (1, 0)
    if oxygen_like[bent] and not oxygen_like[flat]:
        return -1.0, 2
    beyond = molecule.GetAtomWithIdx((i, m)[flat])  # the neighbour on the flat side
    if str(beyond.GetHybridization()) == "SP2":
        return -1.0, 3
    return 1.0, 6


def cos_dihedral(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> float:
    """Cosine of the angle between the planes abc and bcd; 1 where one of them is not a plane."""
    one, other = np.cross(a - b, c - b), np.cross(b - c, d - c)
    length = np.linalg.norm(one) * np.linalg.norm(other)
    return float(np.clip(one @ other / length, -1, 1)) if length > 1e-9 else 1.0
