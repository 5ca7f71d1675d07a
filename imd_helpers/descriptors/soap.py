"""Smooth overlap of atomic positions (SOAP) of molecules, in closed form.

Around an atom, each neighbour is a Gaussian blob; the density of each element is expanded in radial
functions times spherical harmonics, and products of coefficients, summed over m, no longer depend
on orientation. With radial functions built from r^l exp(-α r²) every integral has a closed form, so
the whole descriptor is a page of code. It equals dscribe's (``rbf="gto"``), which is the one to use
for crystals and large systems.

Source: Bartók, Kondor & Csányi, Phys. Rev. B 87 (2013) 184115; the radial basis as in Himanen et
al., Comput. Phys. Commun. 247 (2020) 106949.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..runtime import InputError, number, whole
from .base import Descriptor
from .molecules import MoleculeBatch, read_molecules

DECAY = 1e-3  # a radial function and a Gaussian are cut off where they have fallen to this
ORTHONORMAL = 1e-6  # largest overlap of two radial functions that rounding may leave


class Soap(Descriptor):
    """Power spectrum of the density of neighbours, the mean over the atoms of a molecule.

    The ``shape`` is that of one encoded molecule (dscribe: ``average="outer"``).

    Args:
        species: symbols of all elements that may occur.
        r_cut: radius of an environment, Å, larger than 1.
        n_max: radial functions.
        l_max: largest degree of the spherical harmonics.
        sigma: width of the Gaussians, Å.

    Raises:
        InputError: no species, a radius, width or number out of range, or radial functions so
            alike that rounding errors would drown what tells them apart.
    """

    dtype = torch.float64
    piece = 1

    def __init__(
        self,
        species: Sequence[str],
        *,
        r_cut: float = 5.0,
        n_max: int = 6,
        l_max: int = 4,
        sigma: float = 0.5,
    ) -> None:
        if isinstance(species, str) or len(species) == 0:
            raise InputError(f'species={species!r}: give a list of symbols, such as ["H", "C"]')
        self.numbers = np.array(sorted({elements.number(symbol) for symbol in species}))
        self.r_cut = number("r_cut", r_cut, above=1, why="such as 5 Å")
        self.n_max, self.l_max = whole("n_max", n_max, least=1), whole("l_max", l_max)
        self.sigma = number("sigma", sigma, above=0, why="such as 0.5 Å")
        for degree in range(self.l_max + 1):
            radial_mixing(degree, radial_exponents(degree, self.r_cut, self.n_max))
        channels = len(self.numbers) * n_max
        self.shape = (channels * (channels + 1) // 2 * (l_max + 1),)

    _read = staticmethod(read_molecules)

    def _write(self, batch: MoleculeBatch) -> Tensor:
        (one,) = batch.atoms()
        return torch.as_tensor(self.sites(one.positions, one.numbers).mean(0, keepdims=True))

    def sites(self, positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Power spectrum (atoms, *shape) of each atom from positions (atoms, 3), Å, and numbers.

        For each pair of elements, degree and pair of radial functions, in the order of dscribe.

        Raises:
            InputError: an element that is not among the species.
        """
        unknown = set(numbers.tolist()) - set(self.numbers.tolist())
        if unknown:
            names = [elements.SYMBOLS[z] for z in sorted(unknown)]
            raise InputError(f"{names} are not among the species: add them to Soap(species=...)")
        spectra = [
            math.pi * math.sqrt(8 / (2 * degree + 1)) * self._spectrum(degree, positions, numbers)
            for degree in range(self.l_max + 1)
        ]  # per degree (atoms, species, n, species, n)
        upper = np.triu_indices(self.n_max)
        columns = []
        for i in range(len(self.numbers)):
            for j in range(i, len(self.numbers)):
                for power in spectra:
                    block = power[:, i, :, j]  # (atoms, n, n)
                    columns.append(block[:, *upper] if i == j else block.reshape(len(numbers), -1))
        return np.concatenate(columns, axis=1)

    def _spectrum(self, degree: int, positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        c = expansion(
            degree,
            positions[None] - positions[:, None],
            numbers[:, None] == self.numbers,
            alphas=radial_exponents(degree, self.r_cut, self.n_max),
            sigma=self.sigma,
            reach=self.r_cut + self.sigma * math.sqrt(-2 * math.log(DECAY)),
        )  # (atoms, species, n, m)
        return np.einsum("aipm,ajqm->aipjq", c, c.conj()).real


def radial_exponents(degree: int, r_cut: float, n_max: int) -> np.ndarray:
    """(n_max,) exponents α, 1/Å²: r^l exp(-α r²) falls to `DECAY` at 1 Å, …, at r_cut."""
    r = np.linspace(1, r_cut, n_max)
    return -np.log(DECAY / r**degree) / r**2


def radial_mixing(degree: int, alphas: np.ndarray) -> np.ndarray:
    """(n_max, n_max) matrix S^(-1/2) that makes the functions r^l exp(-α r²) orthonormal.

    The overlap is S_pq = ∫ r^(2l+2) exp(-(α_p + α_q) r²) dr = Γ(l + 3/2) / 2 (α_p + α_q)^-(l+3/2).

    Raises:
        InputError: the functions are so alike that rounding errors drown what tells them apart.
    """
    from scipy.special import gamma

    overlap = 0.5 * gamma(degree + 1.5) * (alphas[:, None] + alphas) ** -(degree + 1.5)
    with np.errstate(all="ignore"):  # tested below
        values, vectors = np.linalg.eigh(overlap)
        mixing = vectors @ np.diag(values**-0.5) @ vectors.T
        off = np.abs(mixing @ overlap @ mixing - np.eye(len(alphas))).max()
    if not off <= ORTHONORMAL:
        raise InputError(
            f"the {len(alphas)} radial functions of degree {degree} are too alike, orthonormal to "
            f"{off:.0e} where {ORTHONORMAL:.0e} is needed: take a smaller n_max, or another r_cut; "
            "n_max = 8 and l_max = 6 are safe from r_cut = 3 Å to 8 Å"
        )
    return mixing


def expansion(
    degree: int,
    vectors: np.ndarray,
    channels: np.ndarray,
    *,
    alphas: np.ndarray,
    sigma: float,
    reach: float,
) -> np.ndarray:
    """Coefficients of the density around each centre.

    A Gaussian at R times a function r^l exp(-α r²) Y_lm integrates to
    (π / (α + η))^(3/2) (η / (α + η))^l R^l Y_lm(R) exp(-α η R² / (α + η)), with η = 1 / (2 σ²),
    because the mean of a solid harmonic over a ball is its value in the middle.

    Args:
        degree: l.
        vectors: (centres, atoms, 3) Å, from each centre to each atom.
        channels: (atoms, species) bool, which element an atom is.
        alphas: (n,) exponents of the radial functions.
        sigma: width of the Gaussians, Å.
        reach: atoms further away are left out, Å.

    Returns:
        (centres, species, n, 2 l + 1) complex.
    """
    from scipy.special import sph_harm_y

    r = np.linalg.norm(vectors, axis=-1)  # (centres, atoms)
    polar = np.arccos(np.clip(vectors[..., 2] / np.maximum(r, 1e-12), -1, 1))
    azimuth = np.arctan2(vectors[..., 1], vectors[..., 0])
    m = np.arange(-degree, degree + 1)
    harmonics = sph_harm_y(degree, m, polar[..., None], azimuth[..., None])  # (centres, atoms, m)
    eta = 1 / (2 * sigma**2)
    total = alphas + eta  # (n,)
    radial = (
        (math.pi / total) ** 1.5
        * (eta / total) ** degree
        * np.exp(-alphas * eta / total * r[..., None] ** 2)
    )  # (centres, atoms, n)
    radial = radial * np.where(r <= reach, r**degree, 0.0)[..., None]
    mixed = radial @ radial_mixing(degree, alphas)  # symmetric
    return np.einsum("can,cam,as->csnm", mixed, harmonics, channels.astype(float))
