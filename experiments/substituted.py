"""Real prototypes filled with the elements of one chemical system, relaxed by CHGNet.

    python experiments/substituted.py relax NAME [PART OF]    finished pieces are kept
    python experiments/substituted.py table NAME              NAME.npz of all that is finished
    python experiments/substituted.py compare NAME            what is tried beside what is not

NAME is one of SYSTEMS; the hydrides of four metals lie in one folder. Several processes share the
work as parts 0, 1, ... of so many. What is in the file already is not
relaxed again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import record
import torch
from scipy.optimize import nnls
from scipy.stats import ks_2samp

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.datasets import CrystalSet, split_of
from imd_helpers.datasets.splits import SPLITS
from imd_helpers.datasets.store import FRAC_STEPS
from imd_helpers.energies import relaxation
from imd_helpers.energies.hull import formation_energy
from imd_helpers.energies.potentials import JUDGES, potential

PIECE, STEPS, FMAX = 8, 100, 0.05
ADDED = {"kept", "formation_energy", "space_group", "split"}
INTERLEAVE = 7919  # a prime: any number of pieces is a sample of all


@dataclass(frozen=True)
class System:
    """Which parents are filled with which elements.

    Attributes:
        symbols: the elements; the last is the anion.
        most: largest number of atoms of each, where a descriptor has so many rows.
        sites: largest number of atoms in the cell.
        edge: longest edge of the cell, Å.
        same_anion: parents have the anion themselves, and only the metals are exchanged.
        both_orders: a parent's elements are exchanged both ways.
        folder: of the data set, where it is not the name of the system.
    """

    symbols: tuple[str, ...]
    most: tuple[int, ...] = ()
    sites: int = 20
    edge: float = np.inf
    same_anion: bool = False
    both_orders: bool = True
    folder: str = ""


SYSTEMS = {
    "mg_mn_o": System(("Mg", "Mn", "O"), most=(8, 8, 12), sites=28, same_anion=True),
    "v_o": System(("V", "O"), both_orders=False),
    "bi_se": System(("Bi", "Se"), edge=10.0),
    **{
        f"{metal.lower()}_h": System((metal, "H"), sites=24, same_anion=True, folder="hydrides")
        for metal in ("Mg", "Ti", "Pd", "Ni")
    },
}


def file_of(name: str) -> Path:
    """Where the relaxed crystals of a system are kept."""
    return record.DATA / (SYSTEMS[name].folder or name) / f"{name}.npz"


# ---- candidates


def parents(known: CrystalSet, system: System) -> np.ndarray:
    """Rows of the real crystals to fill: of each prototype and size the one lowest in energy."""
    table, z = known.table, [elements.number(s) for s in system.symbols]
    present = known.crystals.counts().numpy() > 0
    fits = (table["n_elements"] == len(z)) & (table["n_sites"] <= system.sites)
    fits &= np.array([set(row.nonzero()[0]) != set(z) for row in present])
    fits &= np.linalg.norm(known.lattice, axis=2).max(1) <= system.edge
    if system.same_anion:
        fits &= present[:, z[-1]]
    chosen = table[fits].sort_values("energy_above_hull", kind="stable")
    return np.sort(chosen.drop_duplicates(["prototype", "n_sites"]).index.to_numpy())


@dataclass(frozen=True)
class Candidates:
    """Filled prototypes at a guessed volume.

    Attributes:
        crystals: n of them.
        parent: (n,) rows of `oqmd_icsd`.
        order: (n,) which of the orders of the parent's elements.
    """

    crystals: CrystalBatch
    parent: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.parent)

    def __getitem__(self, rows: np.ndarray) -> Candidates:
        return Candidates(self.crystals[rows], self.parent[rows], self.order[rows])


def candidates(name: str) -> Candidates:
    """All of a system, in a fixed order in which any beginning is a sample of the whole."""
    known, system = imd.datasets.load("oqmd_icsd"), SYSTEMS[name]
    new = [elements.number(s) for s in system.symbols]
    rows = parents(known, system)
    volumes, found = atomic_volumes(known), []
    chi = elements.column("electronegativity")
    for row in rows:
        one = known[[row]].crystals
        old = sorted(torch.unique(one.numbers[one.numbers > 0]).tolist(), key=lambda z: chi[z])
        if system.same_anion:
            old = [z for z in old if z != new[-1]] + [new[-1]]
        orders = list(itertools.permutations(old[:-1] if system.same_anion else old))
        for k, order in enumerate(orders if system.both_orders else orders[:1]):
            filled = fill(one, [*order, *old[len(order) :]], new, volumes)
            counts = filled.counts().numpy()[0, new]
            if not system.most or (counts <= system.most).all():
                found.append((filled, row, k))
    order = np.argsort(np.arange(len(found)) * INTERLEAVE % len(found))
    made = Candidates(
        CrystalBatch.cat([crystal for crystal, _, _ in found]),
        np.array([row for _, row, _ in found]),
        np.array([k for _, _, k in found]),
    )
    return made[order]


def fill(one: CrystalBatch, old: list[int], new: list[int], volumes: np.ndarray) -> CrystalBatch:
    """One crystal with other elements, scaled to the volume that these take as a rule."""
    numbers = one.numbers.clone()
    for before, after in zip(old, new, strict=True):
        numbers[one.numbers == before] = after
    volume = float(volumes[numbers[0].numpy()].sum())
    scale = (volume / float(one.lattice[0].det().abs())) ** (1 / 3)
    return CrystalBatch(one.lattice * scale, one.frac, numbers)


def atomic_volumes(known: CrystalSet) -> np.ndarray:
    """(119,) Å^3 that an atom of each element adds to a compound, by least squares."""
    compounds = known.crystals[np.flatnonzero(known.table["n_elements"] > 1)]
    counts = compounds.counts().numpy().astype(float)
    size = counts.sum(1)
    volume = compounds.lattice.det().abs().numpy()
    return nnls(counts / size[:, None], volume / size)[0]


# ---- relaxation


def relax(name: str, part: str = "0", of: str = "1") -> None:
    """Relax every candidate, in pieces of similar size."""
    todo = candidates(name)
    todo = todo[~done(name, todo)]
    n_sites = todo.crystals.n_sites.numpy()
    starts = range(int(part) * PIECE, len(todo), int(of) * PIECE)
    print(f"{name}: {len(todo)} candidates of {n_sites.sum()} atoms to relax", flush=True)
    for start in starts:
        some = todo[np.arange(start, min(start + PIECE, len(todo)))]
        key = f"{some.parent[0]}-{some.order[0]}"
        record.once(record.BUILD / name / f"piece-{key}.npz", relaxed, some)


def relaxed(some: Candidates) -> dict[str, np.ndarray]:
    """Geometry by the first potential, energies by both, in the units of the data set."""
    rest = relaxation.relax(some.crystals, JUDGES[0], fmax=FMAX, steps=STEPS)
    second = potential(JUDGES[1]).evaluate(rest.crystals).energy
    site = rest.crystals.numbers > 0
    return {
        "parent": some.parent.astype(np.uint16),
        "order": some.order.astype(np.uint8),
        "n_sites": rest.crystals.n_sites.numpy().astype(np.uint8),
        "lattice": rest.crystals.lattice.numpy().astype(np.float32),
        "frac": np.rint(rest.crystals.frac[site].numpy() * FRAC_STEPS).astype(np.uint16),
        "numbers": rest.crystals.numbers[site].numpy().astype(np.uint8),
        "energy": np.stack([rest.energy, second], axis=1).astype(np.float32),  # eV/atom
        "converged": rest.converged,
    }


# ---- the data set


def finished(name: str) -> list[dict[str, np.ndarray]]:
    """What an earlier data set and all pieces since then hold, each candidate once."""
    files = [file_of(name), *sorted((record.BUILD / name).glob("piece-*.npz"))]
    parts: list[dict[str, np.ndarray]] = []
    for file in files:
        part = dict(np.load(file)) if file.exists() else {}
        if part and not keys(part) & set().union(*map(keys, parts)):
            parts.append(part)
    return parts


def keys(part: dict[str, np.ndarray]) -> set[tuple[int, int]]:
    """Parent and order of each candidate."""
    return set(zip(part["parent"].tolist(), part["order"].tolist(), strict=True))


def done(name: str, made: Candidates) -> np.ndarray:
    """(n,) bool: relaxed already."""
    known = set().union(*map(keys, finished(name)))
    return np.array([key in known for key in zip(made.parent, made.order, strict=True)])


def table(name: str) -> None:
    """Everything that is finished into NAME.npz, with what a reader asks for."""
    parts = finished(name)
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0].keys() - ADDED}
    lattice, frac = merged["lattice"].astype(float), merged["frac"] / FRAC_STEPS
    crystals = CrystalBatch.from_ragged(lattice, frac, merged["numbers"], merged["n_sites"])
    formed = np.stack(
        [
            formation_energy(crystals.counts().numpy(), merged["energy"][:, k].astype(float), by)
            for k, by in enumerate(JUDGES)
        ],
        axis=1,
    )
    kept = np.isfinite(formed).all(1) & imd.judge.geometry_valid(crystals)
    lowest_first = np.lexsort([formed[:, 0], ~kept])[: kept.sum()]  # of two copies the lower stays
    kept[lowest_first[~imd.judge.unique(crystals[lowest_first])]] = False
    split = [SPLITS.index(split_of(formula)) for formula in crystals.formulas()]
    found = {
        "kept": kept,
        "formation_energy": formed.astype(np.float32),
        "space_group": symmetry.space_group_numbers(crystals).astype(np.uint8),
        "split": np.array(split, dtype=np.uint8),
    }
    record.write_arrays(file_of(name), **merged, **found)
    print(f"{name}: {len(kept)} of {len(candidates(name))} tried, {kept.sum()} kept")


def compare(name: str) -> None:
    """Means of candidates that were relaxed and of the others, and whether these differ."""
    made, known = candidates(name), imd.datasets.load("oqmd_icsd").table
    tried, size = done(name, made), made.crystals.n_sites.numpy()
    anion = elements.number(SYSTEMS[name].symbols[-1])
    columns = {
        "atoms": size,
        "share of the anion": made.crystals.counts()[:, anion].numpy() / size,
        "volume per atom (Å^3)": made.crystals.lattice.det().abs().numpy() / size,
        "parent above its hull (eV/atom)": known["energy_above_hull"].to_numpy()[made.parent],
        "space group of the parent": known["space_group"].to_numpy()[made.parent],
        "order of the elements": made.order,
    }
    print(f"{tried.sum()} of {len(made)} tried")
    for what, value in columns.items():
        p = ks_2samp(value[tried], value[~tried]).pvalue
        means = f"{value[tried].mean():.3f} tried, {value[~tried].mean():.3f} not"
        print(f"{what}: {means}; Kolmogorov-Smirnov p = {p:.2f}")


TASKS = (relax, table, compare)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
