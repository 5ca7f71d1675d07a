"""CubicGAN's descriptor: one row for each symmetry-distinct site of a cubic ternary.

A crystal becomes 3 rows x 28 columns: fractional position (3), element features (23), lattice
length (1), and the one-hot space group written down the three rows (1), which works because there
are three groups and three rows.

Source: Zhao et al., Adv. Sci. 8 (2021) 2100566, and its code, MilesZhao/CubicGAN (util.py and
wgan-v2.py at commit 7034d84).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals.samples import Samples
from ..runtime import InputError, number
from .base import NOT_FINITE, Crystals, Descriptor, atomic_numbers, mark, mark_long, read_crystals

SPACE_GROUPS = (225, 216, 221)  # Fm-3m, F-43m, Pm-3m: the order of the published one-hot
N_ROWS, N_COLUMNS = 3, 28
POSITION, FEATURES, LENGTH, GROUP = slice(0, 3), slice(3, 26), 26, 27
GRID = 4  # coordinates are multiples of 1/4
ON_GRID = 0.005  # largest distance from a multiple of 1/4 that the filter accepts
# Origin shifts that map each space group onto itself (translations of its Euclidean normaliser).
ORIGIN_SHIFTS = {225: (0, 2), 216: (0, 1, 2, 3), 221: (0, 2)}  # times (1/4, 1/4, 1/4)

Site = tuple[int, ...]  # three coordinates in quarters


@dataclass(frozen=True, eq=False)
class Sites:
    """Symmetry-distinct sites of cubic ternaries."""

    space_group: np.ndarray  # (batch,) ITA numbers
    numbers: np.ndarray  # (batch, 3) atomic numbers
    grid: np.ndarray  # (batch, 3, 3) positions in units of 1/4, integers 0..3
    length: np.ndarray  # (batch,) lattice length a, Å

    @classmethod
    def cat(cls, parts: Sequence[Sites]) -> Sites:
        """Several as one."""
        names = [each.name for each in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, index: np.ndarray | slice) -> Sites:
        return Sites(*(getattr(self, each.name)[index] for each in fields(self)))

    def patterns(self) -> np.ndarray:
        """(batch, 10) space group and positions: the crystals without elements and lengths."""
        return np.concatenate([self.space_group[:, None], self.grid.reshape(-1, 9)], axis=1)


def find_sites(crystals: CrystalBatch) -> tuple[Sites, np.ndarray]:
    """Apply CubicGAN's filter: a cubic ternary in 225, 216 or 221 with three orbits on the grid.

    Returns:
        The sites of those that pass, in standard settings, and their indices in ``crystals``.
    """
    orbits = enumerate(symmetry.orbits(crystals))
    rows = {index: orbit for index, orbit in orbits if orbit is not None and _passes(orbit)}
    grid = [np.rint(row.frac * GRID) % GRID for row in rows.values()]
    numbers = [row.numbers for row in rows.values()]
    sites = Sites(
        space_group=np.array([row.space_group for row in rows.values()], dtype=np.int64),
        numbers=np.array(numbers, dtype=np.int64).reshape(-1, N_ROWS),
        grid=np.array(grid, dtype=np.int64).reshape(-1, N_ROWS, 3),
        length=np.array([row.lattice[0, 0] for row in rows.values()]),
    )
    return sites, np.array(list(rows), dtype=np.int64)


def _passes(orbit: symmetry.Orbits) -> bool:
    off_grid = np.abs(orbit.frac * GRID - np.rint(orbit.frac * GRID)).max() / GRID
    return (
        orbit.space_group in SPACE_GROUPS
        and len(orbit.numbers) == N_ROWS
        and len(set(orbit.numbers.tolist())) == N_ROWS
        and off_grid < ON_GRID
    )


def canonical(sites: Sites) -> Sites:
    """Write each crystal in one way: rows by electronegativity, one origin, one representative.

    The same crystal has several descriptions: any order of rows, 2 or 4 origins, and any site of
    each orbit. This picks the smallest, so that a network need not learn that they are equal.
    """
    order = elements.by_electronegativity()[sites.numbers].argsort(1, kind="stable")
    numbers = np.take_along_axis(sites.numbers, order, axis=1)
    grid = np.take_along_axis(sites.grid, order[:, :, None], axis=1)
    for i, group in enumerate(sites.space_group.tolist()):
        grid[i] = _smallest_description(group, tuple(grid[i].ravel().tolist()))
    return Sites(sites.space_group, numbers, grid, sites.length)


def crystal_keys(sites: Sites) -> list[bytes]:
    """One key a crystal, equal for all ways to write the same sites; the length plays no part."""
    one = canonical(sites)
    rows = np.concatenate([one.patterns(), one.numbers], axis=1)
    return [row.tobytes() for row in rows.astype(np.int64)]


def keyed_sites(keys: list[bytes]) -> Sites:
    """The crystals of `crystal_keys`, without their lengths."""
    rows = np.frombuffer(b"".join(keys), dtype=np.int64).reshape(len(keys), 1 + 4 * N_ROWS)
    grid = rows[:, 1:-N_ROWS].reshape(-1, N_ROWS, 3)
    return Sites(rows[:, 0], rows[:, -N_ROWS:], grid, np.full(len(keys), np.nan))


@lru_cache(maxsize=100_000)
def _smallest_description(group: int, flat: tuple[int, ...]) -> np.ndarray:
    """Three sites, as nine quarters, with the origin that gives the smallest numbers."""
    return np.array(min(_descriptions(group, np.array(flat).reshape(N_ROWS, 3))))


def _descriptions(group: int, grid: np.ndarray) -> Iterator[list[Site]]:
    """For each origin the smallest site of each orbit, given one site of each (3, 3)."""
    for shift in ORIGIN_SHIFTS[group]:
        moved = (grid + shift) % GRID
        yield [smallest_site(group, tuple(row)) for row in moved.tolist()]


@cache
def smallest_site(group: int, site: Site) -> Site:
    """The image of a site, in quarters, that sorts first: one name for the whole orbit."""
    rotations, translations = symmetry.operations(group)
    images = np.rint(rotations @ np.array(site) + translations * GRID).astype(np.int64) % GRID
    return min(map(tuple, images.tolist()))


def prototype(group: int, grid: np.ndarray) -> tuple[int, tuple[Site, ...]]:
    """Name of an arrangement of orbits, the same for any origin and whatever the elements.

    The space group and, from one site of each orbit (3, 3) in quarters, their smallest sites in the
    smallest of their descriptions.
    """
    return arranged(group, grid)[0]


def arranged(group: int, grid: np.ndarray) -> tuple[tuple[int, tuple[Site, ...]], tuple[int, ...]]:
    """`prototype`, and which row of ``grid`` (3, 3) stands at each of its places."""
    order = itertools.permutations(range(N_ROWS))
    ways = itertools.product(_descriptions(group, grid), order)
    sites, rows = min((tuple(each[i] for i in rows), rows) for each, rows in ways)
    return (group, sites), rows


@dataclass(frozen=True, eq=False)
class ElementRows:
    """Elements of a training set as rows of a table of features."""

    element_numbers: tuple[int, ...]  # atomic numbers that the table holds, ascending

    @property
    def feature_table(self) -> Tensor:
        """(elements, 23) float32 features scaled to [0, 1] over ``element_numbers``."""
        rows = np.array(self.element_numbers)
        scaled = elements.minmax(elements.features(), rows)[rows]
        return torch.as_tensor(scaled, dtype=torch.float32)

    def element_index(self, numbers: np.ndarray) -> Tensor:
        """Atomic numbers to rows of the feature table.

        Raises:
            InputError: an element outside the table.
        """
        known = np.array(self.element_numbers)
        index = np.searchsorted(known, numbers).clip(max=len(known) - 1)
        if not (known[index] == numbers).all():
            raise InputError(self._unknown(numbers))
        return torch.as_tensor(index)

    def _unknown(self, numbers: np.ndarray) -> str:
        bad = sorted(elements.SYMBOLS[z] for z in np.setdiff1d(numbers, self.element_numbers))
        listed = " ".join(elements.SYMBOLS[z] for z in self.element_numbers)
        return (
            f"elements {', '.join(bad)} are not among the {len(self.element_numbers)} of the "
            f"training data: choose from {listed}"
        )


@dataclass(frozen=True, eq=False)
class SymmetrySites(ElementRows, Descriptor):
    """Encode cubic ternaries as (3, 28) tensors, and decode them by symmetry operations.

    In decoding positions snap to 1/4, and symmetry operations fill the cell. It fails where the
    lattice length is not positive, or two sites lie on one orbit; the reason says which.

    Attributes:
        length_max: longest lattice length of the training data, Å; lengths are scaled to
            [-1, 1] by ``(a - length_max / 2) / (length_max / 2)``, as published.
        coord_max: (3, 3) largest coordinate by site and axis, the published scaling of positions;
            all 3/4 unless given.
        canonical: write each crystal in one canonical way (`canonical`) before encoding.
    """

    length_max: float
    coord_max: np.ndarray = field(default_factory=lambda: np.full((N_ROWS, 3), 0.75))
    canonical: bool = True
    shape: tuple[int, int] = field(default=(N_ROWS, N_COLUMNS), init=False)

    def __post_init__(self) -> None:
        atomic_numbers("element_numbers", self.element_numbers)
        number("length_max", self.length_max, above=0, why="in Å, such as 12")
        scales = np.asarray(self.coord_max)
        if scales.shape != (N_ROWS, 3) or not ((scales > 0) & (scales < 1)).all():
            raise InputError(f"coord_max={scales.tolist()}: give (3, 3) numbers between 0 and 1")

    @classmethod
    def fit(cls, sites: Sites, *, canonical: bool = True) -> SymmetrySites:
        """Take elements and scales from training crystals.

        Args:
            sites: the training crystals.
            canonical: see the class; without it each coordinate of each site is scaled by its own
                maximum, as the published code does (3/4 where that is 0, which it divides by).
        """
        largest = sites.grid.max(0) / GRID
        scale = np.where((largest == 0) | canonical, 0.75, largest)
        chosen = tuple(np.unique(sites.numbers).tolist())
        return cls(chosen, float(sites.length.max()), scale, canonical)

    # ---- crystal -> tensor

    def encode_all(self, crystals: Crystals) -> Samples:
        """(batch, 3, 28) float32: crystals that CubicGAN's filter rejects are zeros, with a reason.

        So are those with an element outside the table of features.
        """
        batch, reasons = read_crystals(crystals)
        sites, kept = find_sites(batch)
        known = np.isin(sites.numbers, self.element_numbers).all(1)
        for i, row in zip(kept[~known].tolist(), sites.numbers[~known], strict=True):
            reasons[i] = reasons[i] or self._unknown(row)
        names = batch.formulas()
        text = "{}: CubicGAN's rows need a ternary in space group 225, 216 or 221 with three "
        text += "orbits at multiples of 1/4; select them with symmetry_sites.find_sites"
        passed = np.isin(np.arange(len(batch)), kept)
        mark(reasons, passed, lambda i: text.format(names[i]))
        tensor = torch.zeros(len(batch), *self.shape)
        if known.any():
            tensor[torch.as_tensor(kept[known])] = self.encode_sites(sites[known])
        return Samples.from_reasons(tensor, reasons)

    def encode_sites(self, sites: Sites) -> Tensor:
        """(batch, 3, 28) float32 from sites."""
        if self.canonical:
            sites = canonical(sites)
        index = self.element_index(sites.numbers)
        half = torch.as_tensor(self.coord_max / 2.0, dtype=torch.float32)
        position = (torch.as_tensor(sites.grid / GRID, dtype=torch.float32) - half) / half
        length = torch.as_tensor(sites.length, dtype=torch.float32)
        length = (length - self.length_max / 2.0) / (self.length_max / 2.0)
        group = torch.as_tensor(self.group_index(sites.space_group))
        return self.assemble(position, self.feature_table[index], length, group)

    @staticmethod
    def assemble(position: Tensor, features: Tensor, length: Tensor, group: Tensor) -> Tensor:
        """Put scaled parts together; differentiable in ``position`` and ``length``.

        (batch, 3, 28) from positions (batch, 3, 3) and lengths (batch,), scaled to [-1, 1], rows of
        `feature_table` (batch, 3, 23), and groups (batch,), 0, 1, 2 for 225, 216, 221.
        """
        lengths = length[:, None, None].expand(-1, N_ROWS, 1)
        onehot = torch.nn.functional.one_hot(group, len(SPACE_GROUPS)).to(position.dtype)
        down = onehot[:, :, None]  # (batch, 3, 1)
        return torch.cat([position, features, lengths, down], dim=-1)

    # ---- tensor -> crystal

    def _decode(self, rows: Tensor) -> Samples:
        return decode_sites(self.read_sites(rows))

    def read_sites(self, tensor: Tensor) -> Sites:
        """Snap a finite (batch, 3, 28) tensor to sites, without expanding them."""
        tensor = tensor.detach().cpu().double()
        coord_max = torch.as_tensor(self.coord_max)
        frac = (torch.nan_to_num(tensor[:, :, POSITION]) + 1.0) * coord_max / 2.0
        table = self.feature_table.double()
        distance = torch.cdist(tensor[:, :, FEATURES], table[None])  # (batch, 3, elements)
        index = distance.argmin(-1).numpy()
        length = (tensor[:, :, LENGTH].mean(1) + 1.0) * self.length_max / 2.0
        group = tensor[:, :, GROUP].argmax(1).numpy()
        return Sites(
            space_group=np.array(SPACE_GROUPS)[group],
            numbers=np.array(self.element_numbers)[index],
            grid=(np.rint(frac.numpy() * GRID) % GRID).astype(np.int64),
            length=length.numpy(),
        )

    def snap_position(self, position: Tensor) -> Tensor:
        """Nearest scaled position on the grid of quarters, with the gradient passed through."""
        step = torch.as_tensor(
            2.0 / (self.coord_max * GRID), dtype=position.dtype, device=position.device
        )
        snapped = torch.round((position + 1.0) / step) * step - 1.0
        return position + (snapped - position).detach()

    @staticmethod
    def group_index(space_group: np.ndarray | Sequence[int]) -> np.ndarray:
        """ITA numbers to 0, 1, 2.

        Raises:
            InputError: a group other than 225, 216, 221.
        """
        space_group = np.asarray(space_group)
        known = np.isin(space_group, SPACE_GROUPS)
        if not known.all():
            raise InputError(
                f"space group {space_group[~known][0]}: CubicGAN knows 225 (Fm-3m), 216 "
                "(F-43m) and 221 (Pm-3m), drop others"
            )
        return (space_group[..., None] == SPACE_GROUPS).argmax(-1)


def decode_sites(sites: Sites) -> Samples:
    """Fill the cells of ``sites`` by the operations of their space groups.

    A failed crystal keeps its place, with a cell of 1 Å where it has none.

    Raises:
        InputError: a space group other than 225, 216, 221.
    """
    SymmetrySites.group_index(sites.space_group)
    reasons = [""] * len(sites)
    short = "lattice length {:.2f} Å is not positive"
    mark(reasons, np.isfinite(sites.length), lambda _: NOT_FINITE)
    mark(reasons, sites.length > 0, lambda i: short.format(sites.length[i]))
    mark_long(reasons, torch.as_tensor(sites.length)[:, None])
    bad = np.array([reason != "" for reason in reasons])
    lattice = symmetry.cubic_lattice(np.where(bad, 1.0, sites.length))
    crystals, _ = symmetry.expand(sites.space_group, lattice, sites.grid / GRID, sites.numbers)
    orbits = [
        [smallest_site(group, tuple(row)) for row in grid]
        for group, grid in zip(sites.space_group.tolist(), sites.grid.tolist(), strict=True)
    ]

    def shared(i: int) -> str:
        pairs = ((j, k) for j, k in ((0, 1), (0, 2), (1, 2)) if orbits[i][j] == orbits[i][k])
        one, other = next(pairs)
        return f"sites {one + 1} and {other + 1} lie on one orbit"

    mark(reasons, np.array([len(set(orbit)) == N_ROWS for orbit in orbits]), shared)
    return Samples.from_reasons(crystals, reasons)
