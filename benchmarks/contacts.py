"""Closest contacts of symmetric crystals, with gradients, against pymatgen; one run, one core.

    python benchmarks/contacts.py [--crystals 500] [--save]

Both roads start from one site of each element in real ternaries of the space groups of PGCGM (but
for 141, which pymatgen writes from another origin), and find the closest distance of each pair of
elements, an element's own images included. The pymatgen road lets `Structure.from_spacegroup` fill
a cell and asks for its distance matrix, one crystal after the other; a second pymatgen road is
given the filled cells. `pgcgm_sites.contacts` takes all crystals at once. All distances must agree
to 1e-5 Å.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for every road

import argparse

import numpy as np
import torch
from common import best_of, environment, save
from pymatgen.core import Structure
from torch import Tensor

from imd_helpers.models import pgcgm, pgcgm_sites

REQUIRED, WITHIN = 10, 1e-5  # times as fast; Å
OTHER, SECOND_ORIGIN = 141, {129: "P4/nmm:2", 227: "Fd-3m:2"}  # as pymatgen calls them


def filled(sites: pgcgm_sites.BaseSites) -> list[Structure]:
    """Whole crystals by pymatgen."""
    groups = [SECOND_ORIGIN.get(group, group) for group in sites.space_group.tolist()]
    columns = groups, sites.lattice(), sites.numbers.tolist(), sites.frac
    return [Structure.from_spacegroup(*one, tol=1e-3) for one in zip(*columns, strict=True)]


def pymatgen_road(sites: pgcgm_sites.BaseSites, cells: list[Structure] | None = None) -> np.ndarray:
    """(n, 6) Å, one structure after the other."""
    out = np.empty((len(sites), len(pgcgm_sites.PAIRS)))
    for i, structure in enumerate(filled(sites) if cells is None else cells):
        apart, z = structure.distance_matrix, np.array(structure.atomic_numbers)
        np.fill_diagonal(apart, min(structure.lattice.abc))  # an atom's own copy in the next cell
        where = [np.flatnonzero(z == number) for number in sites.numbers[i]]
        out[i] = [apart[np.ix_(where[a], where[b])].min() for a, b in pgcgm_sites.PAIRS]
    return out


def with_gradients(frac: Tensor, group: Tensor, lattice: Tensor) -> np.ndarray:
    """The same by `contacts`, with the slopes along sites and cells that a training step needs."""
    frac, lattice = frac.clone().requires_grad_(True), lattice.clone().requires_grad_(True)
    found = pgcgm_sites.contacts(frac, group, lattice)
    found.sum().backward()
    return found.detach().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/contacts.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    sites = pgcgm.Pgcgm.read(pgcgm.FIXED)
    sites = sites[sites.space_group != OTHER]
    sites = sites[np.linspace(0, len(sites) - 1, options.crystals).astype(int)]
    group = torch.as_tensor(pgcgm_sites.group_index(sites.space_group))
    batch = torch.as_tensor(sites.frac), group, torch.as_tensor(sites.lattice())

    pgcgm_sites.contacts(*(part[:2] for part in batch))  # fill the tables
    seconds = {}
    cells = filled(sites)
    seconds["pymatgen"], expected = best_of(1, pymatgen_road, sites)
    seconds["pymatgen, cells given"], _ = best_of(1, pymatgen_road, sites, cells)
    seconds["imd"], ours = best_of(5, pgcgm_sites.contacts, *batch)
    seconds["imd, with gradients"], again = best_of(5, with_gradients, *batch)
    largest = float(np.abs(ours.numpy() - expected).max())
    assert largest < WITHIN, f"distances differ by {largest:.1e} Å from pymatgen's"
    assert np.array_equal(ours.numpy(), again)

    ratios = {name: seconds["pymatgen"] / value for name, value in seconds.items()}
    groups = len(np.unique(sites.space_group))
    print(f"{len(sites):,} crystals of {groups} groups, at most {largest:.1e} Å from pymatgen's")
    for name, value in seconds.items():
        print(f"{name:<21} {value:8.4f} s  {len(sites) / value:9,.0f} /s  {ratios[name]:6.1f} x")
    assert min(ratios["imd"], ratios["imd, with gradients"]) >= REQUIRED
    if options.save:
        result = {
            "crystals": len(sites),
            "space_groups": groups,
            "largest_difference": largest,
            "seconds": seconds,
            "ratio_to_pymatgen": ratios,
            "required": REQUIRED,
        }
        print("wrote", save("contacts", {**result, **environment("pymatgen", "torch")}))


if __name__ == "__main__":
    main()
