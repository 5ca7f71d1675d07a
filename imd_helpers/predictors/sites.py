"""Fast predictors of lattice constant and formation energy for cubic ternaries.

Two families that share neither features nor regression method, so that one can search and the
other can judge: `CONTACTS` with kernel ridge regression, and `CHEMISTRY` with extremely
randomised trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..crystals import geometry, symmetry
from ..descriptors.symmetry_sites import GRID, N_ROWS, Sites, canonical
from ..runtime import InputError, lookup, reals, whole
from .base import UNFITTED, element_table
from .boosted import BoostedEnsemble

KINDS = ("contacts", "chemistry")
PAIRS = tuple((i, j) for i in range(N_ROWS) for j in range(i, N_ROWS))


class SitePredictor:
    """Predicts (lattice constant in Å, formation energy in eV/atom) from sites and elements.

    The length in the input plays no part. ``contacts`` is kernel ridge regression (Laplacian
    kernel) on the elements row by row and the shortest distances between orbits; it is
    smooth, and it continues beyond its data. ``chemistry`` is extremely randomised trees on
    statistics of the composition and the prototype; it never leaves the range of its data.
    """

    def __init__(self, kind: str, *, seed: int = 0) -> None:
        self.kind = lookup("kind of predictor", kind, KINDS)
        self.prototypes: list[tuple[int, ...]] = []  # known from the fit
        self.n_train = 0
        self._model = _kernel_ridge() if kind == "contacts" else _trees(whole("seed", seed))

    def fit(self, sites: Sites, values: np.ndarray) -> SitePredictor:
        """Fit to (n, 2) values and return self.

        Raises:
            InputError: no crystals, values of another shape, or values that are not finite.
        """
        values = reals("values", values, len(sites), 2)
        self.prototypes = sorted(set(_prototypes(canonical(sites))))
        self.n_train = len(sites)
        self._model.fit(self.features(sites), values)
        return self

    def predict(self, sites: Sites) -> np.ndarray:
        """(n, 2) lattice constants in Å and formation energies in eV/atom.

        Raises:
            InputError: not fitted.
        """
        if self.n_train == 0:
            raise InputError(UNFITTED)
        return self._model.predict(self.features(sites))

    def features(self, sites: Sites) -> np.ndarray:
        """(n, features), the same for all ways to write one crystal.

        The last columns of ``chemistry`` are one-hot: all zero for a prototype not seen in the fit.
        """
        one = canonical(sites)
        if self.kind == "contacts":
            return contact_features(one)
        seen = [[name == known for known in self.prototypes] for name in _prototypes(one)]
        return np.concatenate([chemistry_features(one), np.array(seen, dtype=float)], axis=1)


class SitesEnsemble(BoostedEnsemble):
    """Boosted trees that say how far they may be off, on the features of ``contacts``.

    `fit` and `predict` take n `Sites` in place of compositions; a property may be any number.
    """

    def features(self, counts: Sites) -> np.ndarray:
        """(n, 65), the same for all ways to write one crystal."""
        return contact_features(canonical(counts))

    def sound(self, counts: Sites) -> np.ndarray:
        """(n,) bool: all of them."""
        return np.ones(len(counts), dtype=bool)


def contact_features(sites: Sites) -> np.ndarray:
    """(n, 65) elements row by row, orbits' contacts, and what touching atoms say about the length.

    Contacts are the shortest distances between the six pairs of orbits at a = 1; the sum of two
    covalent radii divided by one of them is the smallest a at which the two do not overlap.
    """
    contacts, share, n_atoms = _geometry(sites)
    props = element_table()[sites.numbers]  # (n, 3, properties)
    radius, chi = props[:, :, 1], props[:, :, 0]
    first, second = np.array(PAIRS).T
    touching = (radius[:, first] + radius[:, second]) / contacts  # (n, 6) Å
    polarity = np.abs(chi[:, first] - chi[:, second]) / contacts  # (n, 6)
    mean = (props * share[:, :, None]).sum(1)  # (n, properties)
    count = share * n_atoms[:, None]
    filled = (4.0 / 3.0 * np.pi * (radius**3 * count).sum(1)) ** (1 / 3)  # Å, dense packing
    return np.concatenate(
        [
            *(props.reshape(len(sites), -1), mean, contacts, count, np.log(n_atoms)[:, None]),
            *(touching, touching.max(1)[:, None], polarity[:, first != second], filled[:, None]),
        ],
        axis=1,
    )


def chemistry_features(sites: Sites) -> np.ndarray:
    """(n, 77) weighted mean, spread and extremes of element properties, and the rows themselves."""
    _, share, _ = _geometry(sites)
    props = element_table()[sites.numbers]  # (n, 3, properties)
    weight = share[:, :, None]
    mean = (props * weight).sum(1)
    spread = np.sqrt((np.square(props - mean[:, None]) * weight).sum(1))
    rows = props.reshape(len(sites), -1)
    return np.concatenate([mean, spread, props.max(1), props.min(1), rows], axis=1)


def _geometry(sites: Sites) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 6) contacts at a = 1, (n, 3) shares of the atoms, (n,) atoms in the cell."""
    patterns, which = np.unique(sites.patterns(), axis=0, return_inverse=True)
    n = len(patterns)
    labels = np.tile(np.arange(1, N_ROWS + 1), (n, 1))
    frac = patterns[:, 1:].reshape(n, N_ROWS, 3) / GRID
    crystals, count = symmetry.expand(
        patterns[:, 0], symmetry.cubic_lattice(np.ones(n)), frac, labels
    )
    distance = geometry.min_image_distances(crystals).numpy()
    label = crystals.numbers.numpy()
    contacts = np.empty((n, len(PAIRS)))
    for column, (i, j) in enumerate(PAIRS):
        pair = (label == i + 1)[:, :, None] & (label == j + 1)[:, None, :]
        contacts[:, column] = np.where(pair, distance, np.inf).min((1, 2))
    contacts = np.clip(np.where(np.isfinite(contacts), contacts, 0.0), 0.1, None)
    total = count.sum(1).clip(min=1)
    which = which.ravel()
    return contacts[which], (count / total[:, None])[which], total[which].astype(float)


def _prototypes(sites: Sites) -> list[tuple[int, ...]]:
    return list(map(tuple, sites.patterns().tolist()))


def _kernel_ridge() -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # alpha and gamma: the best of a 3 x 3 grid by cross-validation on the training split
    ridge = KernelRidge(kernel="laplacian", alpha=0.01, gamma=0.01)
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(), ridge), transformer=StandardScaler()
    )


def _trees(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(n_estimators=100, max_features=0.5, random_state=seed)
