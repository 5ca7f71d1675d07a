"""Checks of the chapter on molecules."""

from __future__ import annotations

import numpy as np

from .base import Check


def missing_numbers(name: str) -> int:
    """By how many the internal coordinates of a molecule exceed its Coulomb eigenvalues."""
    from ..descriptors.molecules import g2_molecules

    names, batch, _ = g2_molecules()
    n = int(batch.n_atoms[names.index(name)])
    return (3 * n - 6) - n


def caesium_chloride() -> float:
    """Electrostatic energy of one pair of CsCl with neighbours 1 Å apart, e²/Å."""
    from ..descriptors.coulomb import ewald

    edge = 2 / np.sqrt(3)
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    return float(np.triu(ewald(edge * np.eye(3), sites, np.array([1.0, -1.0]))).sum())


def valid_deletions(name: str) -> int:
    """How many deletions of one token of the canonical SMILES of a molecule leave it valid."""
    from ..descriptors import smiles

    tokens = smiles.tokenize(smiles.canonical(smiles.WELL_KNOWN[name]))
    shorter = ("".join(tokens[:i] + tokens[i + 1 :]) for i in range(len(tokens)))
    return sum(smiles.is_valid(text) for text in shorter)


CHECKS = {
    "molecules.1": Check(
        lambda: missing_numbers("C6H6"),
        "A molecule of N atoms that is not a line has 3 N - 6 internal coordinates. How many "
        "eigenvalues has its Coulomb matrix?",
    ),
    "molecules.2": Check(
        caesium_chloride,
        "The neighbours lie half a body diagonal apart, so the edge is 2/√3 Å. Add the diagonal "
        "and the upper triangle, each once.",
        tolerance=1e-5,
    ),
    "molecules.3": Check(
        lambda: valid_deletions("caffeine"),
        "Delete each token of the canonical SMILES in turn, not each character: [nH] is one "
        "token. Count positions, also where two deletions give the same text.",
    ),
}
