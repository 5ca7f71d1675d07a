"""Phonons: does every small displacement of the atoms of a crystal cost energy?

Atoms of a supercell are displaced one by one, the potential answers with forces, and phonopy turns
their quotients into force constants and those into frequencies (Parlinski, Li, Kawazoe, Phys. Rev.
Lett. 78 (1997) 4063; Togo, J. Phys. Soc. Jpn. 92 (2023) 012001). An imaginary frequency, written as
a negative one, belongs to a displacement that lowers the energy.

How far atoms are displaced matters more than it should. Where three atoms lie in line, CHGNet's
energy has a cusp: it reads the angle, whose sine has a slope at 180 degrees. Frequencies of rock
salt then change with the displacement, and turn imaginary at small ones. Hence the large default;
`Phonons.roughness` measures what is left.

No Born charges are known to the potentials, so optical modes of ionic crystals are not split near
the zone centre (LO-TO). The splitting raises frequencies, so it hides no instability.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..crystals import CrystalBatch, symmetry
from ..runtime import InputError, need, number, version
from .lattice_scan import lattice_scan
from .potentials import GPA, Potential, Witnesses, by_all, potential
from .relaxation import relax

if TYPE_CHECKING:
    from phonopy import Phonopy

LENGTH = 10.0  # Å
DISPLACEMENT = 0.03  # Å, of one atom at a time
TOLERANCE = -0.1  # THz, imaginary below it; noise of the forces stays above, even for heavy atoms
BETWEEN = 3  # times the tolerance, where phonopy interpolates
SYMPREC = 1e-3  # Å
MOST_ATOMS = 100  # in the supercell: forces on more need several gigabytes
TIGHT = 2e-3  # eV/Å, for crystals whose sites symmetry does not fix
SUM_RULE = 0.05  # largest credible violation, as a share of the largest force constant
LARGEST_FORCE = 0.01  # eV/Å, left at rest
LARGEST_PRESSURE = 2.0  # GPa, left at rest
POINTS = 41  # of each band segment
GREEK = {"GAMMA": "Γ", "DELTA": "Δ", "LAMBDA": "Λ", "SIGMA": "Σ"}
MESH = 40.0  # Å; q-points lie closer than 2π over this


@dataclass(frozen=True, eq=False, kw_only=True)
class AtRest:
    """One crystal where a potential has its minimum, and what is left there."""

    formula: str  # reduced formula
    definition: Mapping[str, Any]  # potential, thresholds and versions: what the numbers mean
    force: float  # eV/Å, largest that is left
    pressure: float  # GPa, that is left

    def doubted(self, *more: tuple[bool, str]) -> tuple[str, ...]:
        """Reasons of the rules (broken, reason) that are broken, beside those of the rest."""
        rules = (
            *more,
            (self.force > LARGEST_FORCE, f"a force of {self.force:.3f} eV/Å is left"),
            (abs(self.pressure) > LARGEST_PRESSURE, f"{self.pressure:.1f} GPa are left"),
        )
        return tuple(reason for broken, reason in rules if broken)


@dataclass(frozen=True, eq=False, kw_only=True)
class Phonons(AtRest):
    """Frequencies of one crystal by one potential, in THz; negative ones are imaginary."""

    space_group: int  # ITA number of the crystal at rest
    distance: np.ndarray = field(repr=False)  # (k,) place on the path, 1/Å
    frequencies: np.ndarray = field(repr=False)  # (k, bands) THz along the path
    # (place, name) of the special points on the path
    ticks: tuple[tuple[float, str], ...] = field(repr=False)
    dos_frequency: np.ndarray = field(repr=False)  # (m,) THz
    dos: np.ndarray = field(repr=False)  # (m,) states per THz and primitive cell
    lowest: float  # lowest frequency anywhere but of the three acoustic modes at the zone centre
    lowest_at: tuple[float, ...]  # its q-point, in the reciprocal primitive cell
    # the same among the q-points that the supercell holds, where nothing is interpolated
    lowest_exact: float
    optical: tuple[float, ...]  # frequencies at the zone centre but of the acoustic modes
    # violation of the acoustic sum rule by the raw force constants, as a share of the largest of
    # them; it is enforced afterwards
    sum_rule: float
    # largest change of the forces per displacement when each atom's displacement in the primitive
    # cell is halved, as a share of the largest; 0 for springs
    roughness: float
    supercell: int  # atoms in the supercell
    displacements: int  # supercells whose forces were computed

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these frequencies should not be believed; empty where nothing speaks against them."""
        broken = self.sum_rule > SUM_RULE
        return self.doubted((broken, f"acoustic sum rule violated by {self.sum_rule:.0%}"))

    @property
    def verdict(self) -> str:
        """``imaginary``, ``real``, or ``doubtful``.

        Imaginary is a frequency below the tolerance at a q-point that the supercell holds. One that
        only the interpolation between those shows, below three times the tolerance, is doubtful.
        """
        if self.doubts:
            return "doubtful"
        if self.lowest_exact < TOLERANCE:
            return "imaginary"
        return "real" if self.lowest >= BETWEEN * TOLERANCE else "doubtful"


def phonons(
    crystal: CrystalBatch,
    model: str | Potential = "chgnet",
    *,
    at_rest: bool = True,
    supercell_length: float = LENGTH,
    dos: bool = True,
) -> Phonons:
    """Phonons of one crystal, brought to rest in its own symmetry first.

    Where symmetry fixes all sites a lattice scan does that and the crystal stays exact; elsewhere
    sites and cell are relaxed tightly and symmetrised.

    Args:
        crystal: one crystal.
        model: a potential or its name.
        at_rest: look for the minimum; without it the crystal is taken as it comes.
        supercell_length: shortest translation of the supercell to aim at, Å. Multiples are 1 or
            even, so that modes in which neighbouring cells move against each other fit in.
        dos: compute the density of states too.

    Raises:
        InputError: not one crystal, an option out of range, a crystal that the distance gate or the
            potential rejects, or one that finds no rest.
        UnknownNameError: no such potential.
    """
    check(crystal)
    number("supercell_length", supercell_length, least=3, most=50)
    model = potential(model)
    cell, primitive = to_rest(crystal, model) if at_rest else _both_cells(crystal)
    rest = left(primitive, model)
    run = force_constants(model, *_supercell(cell, primitive, supercell_length))
    sum_rule = acoustic_sum(run.force_constants, run.primitive.p2s_map)
    run.symmetrize_force_constants()
    found = _frequencies(run, dos)
    definition = {
        **model.definition(),
        "phonopy": version("phonopy"),
        "supercell_length": supercell_length,
        "displacement": DISPLACEMENT,
        "tolerance_thz": TOLERANCE,
        "symprec": SYMPREC,
        "lo_to": "not split",
    }
    return Phonons(
        **rest,
        space_group=int(symmetry.space_group_numbers(cell, symprec=0.01)[0]),
        definition=definition,
        **found,
        sum_rule=sum_rule,
        roughness=roughness(primitive, model, DISPLACEMENT),
        supercell=len(run.supercell),
        displacements=len(run.supercells_with_displacements),
    )


def dynamically_stable(
    crystal: CrystalBatch,
    potentials: Sequence[str | Potential] = ("chgnet", "sevennet"),
    **options: Any,
) -> Witnesses:
    """Is a crystal at the bottom of a valley, by the word of all potentials, see `by_all`?

    Raises:
        InputError: not one crystal, no potential, or an option out of range.
        UnknownNameError: no such potential.
    """
    check(crystal)
    number("supercell_length", options.get("supercell_length", LENGTH), least=3, most=50)
    ask = partial(phonons, crystal, **options)
    return by_all(potentials, ask, _sentence, stable="real", unstable="imaginary")


def acoustic_sum(force_constants: np.ndarray, atoms: Sequence[int]) -> float:
    """Violation of the acoustic sum rule, as a share of the largest force constant.

    Moving the whole crystal costs nothing, so the force constants of an atom with all atoms, itself
    included, add up to zero.

    Args:
        force_constants: (rows, sites, 3, 3) eV/Å^2; rows are all sites or the chosen ones.
        atoms: the site that belongs to each row to look at.

    Returns:
        max |sum_j Φ_ij| / max |Φ_ii|.
    """
    constants = np.asarray(force_constants)
    full = len(constants) == constants.shape[1]
    rows = constants[list(atoms)] if full else constants  # (rows, sites, 3, 3)
    own = rows[np.arange(len(rows)), list(atoms)]
    return float(np.abs(rows.sum(1)).max() / max(np.abs(own).max(), 1e-12))


def roughness(crystal: CrystalBatch, model: str | Potential, displacement: float) -> float:
    """Do forces grow in proportion to a displacement? See `Phonons.roughness`.

    The crystal is at rest; half of the displacement (Å) is tried too.
    """
    lattice, frac, numbers = next(crystal.each())
    n = len(numbers)
    lengths = np.concatenate([length * np.eye(n) for length in (displacement, displacement / 2)])
    lengths = np.concatenate([np.zeros((1, n)), lengths])[:, :, None]  # (2n + 1, n, 1) Å
    moved = frac + lengths * np.linalg.inv(lattice)[0]  # along x
    k = len(moved)
    lattices, species = np.repeat(lattice[None], k, axis=0), np.tile(numbers, k)
    batch = CrystalBatch.from_ragged(lattices, moved.reshape(-1, 3), species, [n] * k)
    forces = potential(model).evaluate(batch, gate=None).forces
    whole, half = ((forces[1:] - forces[0]) / displacement).reshape(2, n, n, 3)
    return float(np.abs(whole - 2 * half).max() / max(np.abs(whole).max(), 1e-12))


def check(crystal: CrystalBatch) -> None:
    """Refuse what is not one whole crystal.

    Raises:
        InputError: none or several, or a broken one.
    """
    if len(crystal) != 1:
        raise InputError(f"this asks about one crystal, not of {len(crystal)}: select by batch[i]")
    crystal.validate()


def left(crystal: CrystalBatch, model: Potential) -> dict[str, Any]:
    """Formula, largest force (eV/Å) and pressure (GPa) of a crystal, fields of `AtRest`.

    Raises:
        InputError: the distance gate or the potential rejects it.
    """
    found, formula = model.evaluate(crystal), crystal.formulas()[0]
    if found.failed:
        raise InputError(f"{formula}: {found.failed[0]}")
    pressure = float(-np.trace(found.stress[0]) / 3 * GPA)
    return {"formula": formula, "force": float(np.abs(found.forces).max()), "pressure": pressure}


def to_rest(crystal: CrystalBatch, model: Potential) -> tuple[CrystalBatch, CrystalBatch]:
    """The crystal at its minimum, symmetric and exact: conventional and primitive cell."""
    cell, primitive = _both_cells(crystal)
    name = crystal.formulas()[0]
    if symmetry.only_scale_is_free(cell)[0]:
        scan = lattice_scan(cell, model)
        if not scan.ok[0]:
            raise InputError(f"{name}: {scan.reasons[0]}")
        return _both_cells(scan.crystals)
    relaxed = relax(primitive, model, fmax=TIGHT, steps=500)
    if relaxed.failed:
        raise InputError(f"{name}: {relaxed.failed[0]}")
    if not relaxed.converged[0]:
        raise InputError(f"{name}: the relaxation finds no rest in {relaxed.steps[0]} steps")
    return _both_cells(relaxed.crystals)


def _both_cells(crystal: CrystalBatch) -> tuple[CrystalBatch, CrystalBatch]:
    """Conventional and primitive standard cell; as given where no symmetry is found."""
    (orbits,) = symmetry.orbits(crystal)
    if orbits is None:
        return crystal, crystal
    cell, _ = symmetry.from_orbits([orbits])
    return cell, symmetry.primitive(cell)


def _supercell(
    cell: CrystalBatch, primitive: CrystalBatch, length: float
) -> tuple[CrystalBatch, tuple[int, ...]]:
    """The cell and its multiples whose shortest translation is nearest to ``length``.

    Raises:
        InputError: the cell alone has more atoms than forces can be computed for.
    """
    for aim in np.arange(length, 0.0, -0.5):
        choices = []
        for each in (cell, primitive):
            edges = each.lattice[0].norm(dim=1).numpy()
            multiples = tuple(_even(aim / edge) for edge in edges)
            atoms = int(each.n_sites[0]) * int(np.prod(multiples))
            if atoms <= MOST_ATOMS:
                shortest = _shortest(each.lattice[0].numpy() * np.array(multiples)[:, None])
                choices.append((abs(shortest - length), atoms, each, multiples))
        if choices:
            _, _, each, multiples = min(choices, key=lambda choice: choice[:2])
            return each, multiples
    raise InputError(
        f"{cell.formulas()[0]} has {int(primitive.n_sites[0])} atoms in its primitive cell: "
        f"phonons are computed for at most {MOST_ATOMS}"
    )


def _shortest(lattice: np.ndarray) -> float:
    """Length of the shortest translation of a cell that is not too skew, Å."""
    steps = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(steps @ lattice, axis=1)
    return float(lengths[lengths > 1e-6].min())


def _even(ratio: float) -> int:
    """1 or the even number nearest to ``ratio``."""
    return min([1, *range(2, 2 * int(ratio) + 4, 2)], key=lambda n: abs(n - ratio))


def force_constants(model: Potential, cell: CrystalBatch, multiples: tuple[int, ...]) -> Phonopy:
    """Raw force constants, eV/Å^2, of a supercell by finite differences, in phonopy.

    Args:
        model: gives the forces.
        cell: one crystal at rest.
        multiples: of its edges, for the supercell.

    Raises:
        InputError: the potential rejects the crystal.
    """
    phonopy, atoms = need("phonopy", extra="judge"), need("phonopy.structure.atoms", extra="judge")
    need("seekpath", extra="judge")  # phonopy needs it for the path
    lattice, frac, numbers = next(cell.each())
    unit = atoms.PhonopyAtoms(numbers=numbers.tolist(), cell=lattice, scaled_positions=frac)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy says that it did not use to look for centrings
        run = phonopy.Phonopy(
            unit, supercell_matrix=np.diag(multiples), primitive_matrix="auto", symprec=SYMPREC
        )
    run.generate_displacements(distance=DISPLACEMENT)
    moved = [run.supercell, *run.supercells_with_displacements]
    k, n = len(moved), len(run.supercell)
    sites = np.concatenate([each.scaled_positions for each in moved])
    lattices = np.repeat(run.supercell.cell[None], k, axis=0)
    batch = CrystalBatch.from_ragged(lattices, sites, np.tile(run.supercell.numbers, k), [n] * k)
    found = model.evaluate(batch, batch=1, gate=None)
    if found.failed:
        raise InputError(f"{cell.formulas()[0]}: {next(iter(found.failed.values()))}")
    run.forces = found.forces[1:] - found.forces[0]  # what is left at rest is no response
    run.produce_force_constants()
    return run


def _frequencies(run: Phonopy, dos: bool) -> dict[str, Any]:
    """Bands, density of states, and where the lowest frequency is."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
    from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

    bands, _, _ = get_band_qpoints_by_seekpath(run.primitive, POINTS)
    run.run_band_structure(bands)
    path = run.band_structure
    run.run_mesh(MESH)
    matrix = np.rint(np.linalg.inv(run.primitive.primitive_matrix) @ run.supercell_matrix)
    exact = get_commensurate_points(matrix.astype("int64"))
    run.run_qpoints(exact)
    q = np.concatenate([*path.qpoints, run.mesh.qpoints, exact])  # (points, 3)
    all_of = np.concatenate([*path.frequencies, run.mesh.frequencies, run.qpoints.frequencies])
    lowest = np.array([_without_acoustic(*row)[0] for row in zip(q, all_of, strict=True)])
    place = int(lowest.argmin())
    dos_frequency, density = np.zeros(0), np.zeros(0)
    if dos:
        run.run_total_dos()
        dos_frequency, density = run.total_dos.frequency_points, run.total_dos.dos
    gamma = _without_acoustic(*next(row for row in zip(q, all_of, strict=True) if not row[0].any()))
    return {
        "distance": np.concatenate(path.distances),
        "frequencies": np.concatenate(path.frequencies),
        "ticks": _ticks(run.primitive, path.distances),
        "dos_frequency": dos_frequency,
        "dos": density,
        "lowest": float(lowest[place]),
        "lowest_at": tuple(np.round(q[place], 4).tolist()),
        "lowest_exact": float(lowest[-len(exact) :].min()),
        "optical": tuple(np.round(gamma[np.isfinite(gamma)], 4).tolist()),
    }


def _without_acoustic(q: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Frequencies in order, without the three nearest to zero if q is the zone centre."""
    if np.abs(q - np.rint(q)).max() > 1e-6:
        return np.sort(frequencies)
    rest = np.sort(frequencies[np.argsort(np.abs(frequencies))[3:]])
    return rest if len(rest) else np.array([np.inf])  # one atom has acoustic modes only


def _ticks(primitive: Any, distances: Sequence[np.ndarray]) -> tuple[tuple[float, str], ...]:
    """(place, name); names meet where the path jumps."""
    from seekpath import get_path

    places: dict[float, list[str]] = {}
    for names, segment in zip(get_path(primitive.totuple())["path"], distances, strict=True):
        for name, place in zip(map(_plain, names), (segment[0], segment[-1]), strict=True):
            here = places.setdefault(float(place), [])
            here += [name] if name not in here else []
    return tuple((place, "|".join(here)) for place, here in places.items())


def _plain(name: str) -> str:
    """Seekpath's name of a special point as text, e.g. ``SIGMA_0`` as Σ0."""
    for latin, greek in GREEK.items():
        name = name.replace(latin, greek)
    return name.replace("_", "")


def _sentence(found: Phonons) -> str:
    where = ", ".join(f"{x:.2f}" for x in found.lowest_at)
    said = f"lowest frequency {found.lowest:.2f} THz at ({where})"
    if found.doubts:
        return f"{said}; {', '.join(found.doubts)}"
    if found.verdict == "real":
        return "no imaginary frequency"
    if found.verdict == "doubtful":
        return f"{said}, between the points that the supercell holds: take a longer one"
    return said
