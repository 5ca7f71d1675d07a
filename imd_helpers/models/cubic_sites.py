"""What CubicGAN learns from and is asked for: crystals as sites, and labels drawn like theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..crystals import elements
from ..descriptors.symmetry_sites import (
    FEATURES,
    GRID,
    GROUP,
    LENGTH,
    N_ROWS,
    POSITION,
    SPACE_GROUPS,
    Sites,
    SymmetrySites,
    find_sites,
)
from ..runtime import InputError, lookup
from . import pgcgm_sites

if TYPE_CHECKING:
    from ..datasets import CrystalSet

LABEL_SOURCES = ("uniform", "data")
MOST_REDRAWS = 1_000
TRAINING_SETS = ("oqmd_icsd", "cubic_prototypes")
APART = 0.75  # of the sum of two radii: nearer atoms are too near, as in PGCGM
SHORTEST = 0.1  # Å of an edge, whose logarithm still has a slope


# ---- crystals


def training_sites(split: str | None = "train", *, data: str = "oqmd_icsd") -> Sites:
    """What CubicGAN trains on: one split, or all if None.

    Args:
        split: ``train``, ``val``, ``test`` or None.
        data: ``oqmd_icsd`` for the 943 real crystals that pass the filter, ``cubic_prototypes``
            for the enumerated ones.
    """
    from .. import datasets

    known = datasets.load(lookup("training set", data, TRAINING_SETS), split=split)
    if data == "cubic_prototypes":
        return _sites_of_prototypes(known)
    chosen = known.select(nelements=3, space_groups=list(SPACE_GROUPS))
    return find_sites(chosen.crystals)[0]


def _sites_of_prototypes(known: CrystalSet) -> Sites:
    """As `find_sites`, for crystals that are written orbit after orbit already."""
    crystals, n = known.crystals, len(known)
    group = known.table["space_group"].to_numpy()
    numbers = np.zeros((n, N_ROWS), dtype=np.int64)
    grid = np.zeros((n, N_ROWS, 3), dtype=np.int64)
    for kind in np.unique(group):
        rows = np.flatnonzero(group == kind)
        one = crystals.numbers[rows[0]].numpy()
        first = np.flatnonzero(np.diff(one, prepend=0) * (one > 0))  # where each orbit begins
        numbers[rows] = crystals.numbers.numpy()[rows][:, first]
        grid[rows] = np.rint(crystals.frac[rows[0]].numpy()[first] * GRID)
    return Sites(group, numbers, grid, crystals.lattice[:, 0, 0].numpy())


# ---- labels


@dataclass(frozen=True, eq=False)
class Labels:
    """What a batch of crystals is conditioned on."""

    group: Tensor  # (n,) int64, place in the list of space groups
    element: Tensor  # (n, 3) int64, rows of the descriptor's feature table

    def __len__(self) -> int:
        return len(self.group)

    def __getitem__(self, rows: Any) -> Labels:
        return Labels(self.group[rows], self.element[rows])

    def check(self, n_groups: int, n_elements: int) -> None:
        """Are they places in the tables of groups and elements?

        Raises:
            InputError: none at all, of another shape, or out of range.
        """
        n, limits = len(self.group), (n_groups, n_elements)
        shapes = ((n,), (n, N_ROWS))
        for each, shape, limit in zip((self.group, self.element), shapes, limits, strict=True):
            wrong = each.shape != shape or each.is_floating_point() or n == 0
            if wrong or int(each.min()) < 0 or int(each.max()) >= limit:
                raise InputError(f"labels must be whole numbers below {limit} of shape {shape}")


@dataclass(frozen=True, eq=False)
class LabelSource:
    """Draws labels after those of training crystals, with torch's global random numbers."""

    known: Labels
    descriptor: SymmetrySites

    def draw(self, n: int, *, source: str) -> Labels:
        """Labels of n samples.

        Groups follow the training frequencies. ``uniform`` takes any three different elements;
        ``data`` draws the element of each row from those that training crystals of the same
        group have in that row, each row on its own and with the square root of the frequency, so
        that most triples are new and rare elements are tried too.
        """
        lookup("source of labels", source, LABEL_SOURCES)
        where = self.known.group.device
        group = self.known.group[torch.randint(len(self.known), (n,), device=where)]
        if source == "uniform":
            return Labels(group, self._any_elements(n))
        element = torch.empty(n, N_ROWS, dtype=torch.long, device=where)
        todo = torch.arange(n, device=where)
        for _ in range(MOST_REDRAWS):  # of triples that repeat an element
            if not len(todo):
                return Labels(group, self._in_row_order(element))
            for row in range(N_ROWS):
                element[todo, row] = self._row_elements(group[todo], row)
            ordered = element[todo].sort(1).values
            todo = todo[(ordered[:, 1:] == ordered[:, :-1]).any(1)]
        raise InputError(
            f"{len(todo)} of {n} triples still repeat an element after {MOST_REDRAWS} draws: the "
            "labels of this model are damaged, get a fresh copy of its weights"
        )

    def batch(self, n: int, *, source: str, rng: torch.Generator | None = None) -> Labels:
        """Labels for a training batch; ``data`` takes those of one crystal together."""
        where = self.known.group.device
        picked = self.known[torch.randint(len(self.known), (n,), generator=rng, device=where)]
        return picked if source == "data" else Labels(picked.group, self._any_elements(n, rng))

    def asked(self, drawn: Labels, condition: Mapping[str, Any]) -> Labels:
        """Drawn labels with what a condition names in place of what was drawn.

        Raises:
            InputError: an unknown space group or element, or not three different ones.
        """
        group, element = drawn.group, drawn.element
        if "space_group" in condition:
            wanted = int(self.descriptor.group_index([condition["space_group"]])[0])
            group = torch.full_like(group, wanted)
        if "elements" in condition:
            wanted = self._rows_of(condition["elements"]).to(element.device)
            element = self._in_row_order(wanted.expand_as(element).clone())
        return Labels(group, element)

    def _any_elements(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        size = (n, len(self.descriptor.element_numbers))
        keys = torch.rand(size, generator=rng, device=self.known.group.device)
        return keys.topk(N_ROWS, dim=1).indices  # three different ones, uniformly

    def _row_elements(self, group: Tensor, row: int) -> Tensor:
        out = torch.empty_like(group)
        for g in group.unique().tolist():
            mine = group == g
            seen = self.known.element[self.known.group == g, row]
            weight = torch.bincount(seen, minlength=len(self.descriptor.element_numbers))
            draws = int(mine.sum())
            out[mine] = torch.multinomial(weight.double().sqrt(), draws, replacement=True)
        return out

    def _in_row_order(self, element: Tensor) -> Tensor:
        """Sort each triple as `canonical` sorts rows: by electronegativity, then number."""
        if not self.descriptor.canonical:
            return element
        place = elements.by_electronegativity()[list(self.descriptor.element_numbers)]
        rank = torch.as_tensor(place, device=element.device)
        return element.gather(1, rank[element].argsort(1))

    def _rows_of(self, symbols: Sequence[str]) -> Tensor:
        if isinstance(symbols, str) or len(set(symbols)) != N_ROWS:
            raise InputError(
                f"elements={symbols!r}: give three different symbols, e.g. ('Cs', 'Pb', 'I')"
            )
        numbers = np.array([elements.number(symbol) for symbol in symbols])
        return self.descriptor.element_index(numbers)[None]


# ---- physics


def room_and_contacts(made: Tensor, descriptor: SymmetrySites) -> tuple[Tensor, Tensor]:
    """How much room atoms have, and how much too near each other they are, with gradients.

    Args:
        made: (n, 3, 28) crystals as the descriptor writes them.
        descriptor: with the scales and elements.

    Returns:
        (n,) logarithms of the cell's volume for each cube of an atom's radius in it, and the mean
        over all contacts of max(0, `APART` (r1 + r2) - d), Å.
    """
    half = torch.as_tensor(descriptor.coord_max / 2).to(made)
    frac = (made[..., POSITION] + 1) * half
    length = (made[:, 0, LENGTH] + 1) * descriptor.length_max / 2
    length = length.clamp(min=SHORTEST)
    index = torch.cdist(made[..., FEATURES].detach(), descriptor.feature_table.to(made)[None])
    numbers = np.array(descriptor.element_numbers)[index.argmin(2).cpu()]
    radius = torch.as_tensor(pgcgm_sites.radius_of(numbers)).to(made)  # (n, 3)
    places = torch.as_tensor(pgcgm_sites.group_index(SPACE_GROUPS))
    group = places.to(made.device)[made[..., GROUP].argmax(1)]
    lattice = pgcgm_sites.lattice_of(length[:, None].expand(-1, N_ROWS), group)
    one, two = (list(side) for side in zip(*pgcgm_sites.PAIRS, strict=True))
    apart = pgcgm_sites.contacts(frac, group, lattice)  # (n, 6)
    near = pgcgm_sites.too_near(apart, APART * (radius[:, one] + radius[:, two]))
    _, many = pgcgm_sites.projected(frac, group, lattice, torch.zeros_like(radius))
    return 3 * length.log() - (many * radius**3).sum(1).log(), near
