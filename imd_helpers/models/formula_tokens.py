"""Formulas of 2 to 8 of 85 elements as sentences of tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..crystals.compositions import reduced
from ..descriptors.composition_matrix import ELEMENTS, MAX_COUNT, MOST, CompositionMatrix, fits

PAD, START = 0, 1
FIRST_ELEMENT, FIRST_COUNT = 2, 2 + len(ELEMENTS)
END = FIRST_COUNT + MAX_COUNT
VOCABULARY = END + 1
LENGTH = 2 * MOST + 1


def distinct(counts: np.ndarray) -> np.ndarray:
    """(m, 119) reduced compositions that fit, each once, in a fixed order."""
    found = np.unique(reduced(counts), axis=0)
    return found[fits(found)]


def encode_tokens(counts: np.ndarray) -> Tensor:
    """Formulas as tokens: element, count, element, count, ..., end, then padding.

    Elements stand in order of electronegativity, as in a written formula.

    Args:
        counts: (n, 119) that fit.

    Returns:
        (n, 17) int64, 0 = padding.

    Raises:
        InputError: a composition that does not fit.
    """
    counts = CompositionMatrix().read(counts).checked().astype(np.int64)
    order = elements.by_electronegativity()[list(ELEMENTS)].argsort()
    chosen = counts[:, list(ELEMENTS)][:, order]  # (n, 85)
    row, place = np.nonzero(chosen)
    nth = np.arange(len(row)) - np.searchsorted(row, row)  # position within its formula
    tokens = np.zeros((len(counts), LENGTH), dtype=np.int64)
    tokens[row, 2 * nth] = FIRST_ELEMENT + order[place]
    tokens[row, 2 * nth + 1] = FIRST_COUNT + chosen[row, place] - 1
    tokens[np.arange(len(counts)), 2 * (chosen > 0).sum(1)] = END
    return torch.as_tensor(tokens)


def decode_tokens(tokens: Tensor) -> np.ndarray:
    """(n, 119) counts of (n, length) tokens; sentences that are no formula become zeros.

    A formula alternates elements and counts, repeats no element, has at least two, and ends.
    """
    tokens = tokens.cpu().numpy()
    ended = np.cumsum(tokens == END, axis=1) > 0
    even = np.arange(tokens.shape[1]) % 2 == 0
    is_element = (tokens >= FIRST_ELEMENT) & (tokens < FIRST_COUNT)
    is_count = (tokens >= FIRST_COUNT) & (tokens < END)
    right = np.where(even, is_element | (tokens == END), is_count) | ended
    ok = right.all(1) & ended.any(1)
    row, place = np.nonzero(is_element & ~ended & ok[:, None])
    z = np.array(ELEMENTS)[tokens[row, place] - FIRST_ELEMENT]
    counts = np.zeros((len(tokens), elements.N_COLUMNS), dtype=np.int64)
    times = np.zeros_like(counts)
    np.add.at(times, (row, z), 1)
    counts[row, z] = tokens[row, place + 1] - FIRST_COUNT + 1
    counts[(times > 1).any(1)] = 0
    counts[~fits(counts)] = 0
    return counts
