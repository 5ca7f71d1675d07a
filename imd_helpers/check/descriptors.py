"""Checks of the chapters on descriptors."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd

from .. import datasets
from ..crystals import symmetry
from ..descriptors import smiles
from ..descriptors.coordinate_matrix import CoordinateMatrix
from ..descriptors.coulomb import ewald
from ..descriptors.methane_grid import MethaneGrid, heat_of_adsorption
from ..descriptors.voxel_grid import SIGMA
from ..intervals import wilson
from ..runtime import data_path

# ---- compositions


def _gaps() -> pd.DataFrame:
    """Rows of oqmd_icsd that have a band gap, eV."""
    return datasets.load("oqmd_icsd").table.dropna(subset=["band_gap"])


def switches() -> int:
    """Formulas with one entry without a gap and another with a gap above 1 eV."""
    gap = _gaps().groupby("formula")["band_gap"]
    return int(((gap.min() == 0) & (gap.max() > 1.0)).sum())


def least_error() -> float:
    """Mean distance of gaps from the median of their formula, eV, where there are several."""
    table = _gaps()
    gap = table.groupby("formula")["band_gap"]
    several = gap.transform("size") > 1
    return float((table["band_gap"] - gap.transform("median")).abs()[several].mean())


# ---- coordinates


def _mirrored_quartz() -> float:
    """Space group of quartz after two columns of its matrix have changed places."""
    quartz = datasets.load("oqmd_icsd").select(formulas=["SiO2"], space_groups=[154])[0].crystals
    descriptor = CoordinateMatrix.fit(quartz)
    swapped = descriptor.decode(descriptor.encode(quartz)[:, :, [1, 0, 2]]).crystals
    return float(symmetry.space_group_numbers(swapped, symprec=0.01)[0])


# ---- molecules


def caesium_chloride() -> float:
    """Electrostatic energy of one pair of CsCl with neighbours 1 Å apart, e²/Å."""
    edge = 2 / np.sqrt(3)
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    return float(np.triu(ewald(edge * np.eye(3), sites, np.array([1.0, -1.0]))).sum())


def valid_deletions(name: str) -> int:
    """How many deletions of one token of the canonical SMILES of a molecule leave it valid."""
    tokens = smiles.tokenize(smiles.canonical(smiles.WELL_KNOWN[name]))
    shorter = ("".join(tokens[:i] + tokens[i + 1 :]) for i in range(len(tokens)))
    return sum(smiles.is_valid(text) for text in shorter)


# ---- symmetry


def _images_of_the_origin() -> float:
    rotations, translations = symmetry.operations(227)
    images = np.mod(translations, 1.0)  # of the origin: the rotations do not move it
    return len(np.unique(np.rint(images * 24).astype(int) % 24, axis=0)) if len(rotations) else 0


def _free_numbers_of_quartz() -> float:
    """Two lengths, and for each orbit the directions that its site symmetry leaves alone."""
    quartz = datasets.load("oqmd_icsd").select(formulas=["SiO2"], space_groups=[154], max_sites=9)
    (orbits,) = symmetry.orbits(quartz[0].crystals)
    rotations, translations = symmetry.operations(orbits.space_group)
    free = 2
    for site in orbits.frac:
        shift = rotations @ site + translations - site
        stays = rotations[np.abs(shift - np.rint(shift)).max(axis=1) < 1e-3]
        # a direction is free where every rotation of the site symmetry leaves it: (R - 1) x = 0
        free += 3 - np.linalg.matrix_rank(np.concatenate(stays - np.eye(3)), tol=1e-6)
    return free


def _neighbours_to_tell_packings() -> float:
    """First neighbour whose distance differs, from lattice sums over close-packed layers."""
    cubic, hexagonal = (_packing(layers) for layers in ((0, 1, 2), (0, 1)))
    return int(np.flatnonzero(np.abs(cubic - hexagonal) > 1e-9)[0]) + 1


def _packing(layers: tuple[int, ...]) -> np.ndarray:
    """Sorted distances from one atom in a stack of close-packed layers, nearest distance 1."""
    a, b = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.75**0.5, 0.0])
    up = np.array([0.0, 0.0, (2 / 3) ** 0.5])
    i, j, k = np.mgrid[-6:7, -6:7, -4:5].reshape(3, -1, 1)
    shift = np.array(layers)[k % len(layers)] * (a + b) / 3
    return np.sort(np.linalg.norm(i * a + j * b + k * up + shift, axis=1))[1:40]


# ---- comparison


def _lower_end() -> float:
    record = json.loads(data_path("checkpoints", "comparison", "run.json").read_text())
    rows = {row["name"]: row for row in record["rows"]}
    trip = rows["hydride blocks (CrystalGAN), published"]["round_trip"]
    return float(wilson(trip["same"], trip["n"])[0])


def _price_of_a_grid() -> float:
    n_sites = datasets.load("oqmd_icsd").select(max_sites=20).n_sites
    return (32**3 + 64**3) / (3 * float(n_sites.mean()) + 6)


TRUTHS = {
    "compositions.1": switches,
    "compositions.2": least_error,
    "coordinates.1": lambda: math.perm(8, 6) * math.perm(8, 1) * math.perm(12, 8),
    "coordinates.2": _mirrored_quartz,
    # internal coordinates of benzene, of 12 atoms, beside its Coulomb eigenvalues
    "molecules.1": lambda: (3 * 12 - 6) - 12,
    "molecules.2": caesium_chloride,
    "molecules.3": lambda: valid_deletions("caffeine"),
    "symmetry.1": _images_of_the_origin,
    "symmetry.2": _free_numbers_of_quartz,
    "symmetry.3": _neighbours_to_tell_packings,
    "voxels.1": lambda: heat_of_adsorption(
        MethaneGrid().energy(datasets.load("iza_zeolites").structures("SOD")["SOD"])
    ),
    "voxels.2": lambda: 2 * SIGMA,  # there the curvature half way between them is zero
    "comparison.1": _lower_end,
    "comparison.2": _price_of_a_grid,
}
