"""Does a set of crystals look like another set: coverage, precision, distances, diversity.

These numbers compare sets, not crystals: no sample is right or wrong. Crystals become points of a
named space (`magpie` for compositions, `crystalnn` or `amd` for structures, or one of your own),
and each number comes as a `Measure`: value, interval, n, definition, and what could not be
measured.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..crystals import CrystalBatch, elements, geometry, symmetry
from ..crystals import compositions as comps
from ..crystals.rules import GeometryRule, geometry_verdict
from ..descriptors.amd import K, average_minimum_distances
from ..intervals import wilson
from ..networks.distances import frechet_gaussians
from ..runtime import InputError, lookup
from .report import LEVEL, DefinitionError

if TYPE_CHECKING:
    import pandas as pd

SPACES = ("magpie", "crystalnn", "amd")
CUTOFFS = {"crystalnn": 0.4, "magpie": 10.0}  # of CDVAE for MP-20
# Vendi score: half of the cutoffs; for distances to 100 neighbours, an Å is 0.1 Å of each
BANDWIDTHS = {"crystalnn": 0.2, "magpie": 5.0, "amd": 1.0}
RESAMPLES = 200
GROUPS = 20  # of the jackknife
SYMPREC = 1e-3  # Å, within which sites of one orbit share a CrystalNN fingerprint
MEASURABLE = GeometryRule(
    "measurable",
    "what CrystalNN can take: its neighbour lists fill the memory where images overlap, and take "
    "minutes where neighbours are far away",
    min_distance=0.5,
    volume_per_atom=(1.0, 1e4),
)
ANY = GeometryRule("any", "whatever can be measured at all")


# ---- what every function here returns, and what most of them take


@dataclass(frozen=True)
class Measure:
    """One number about a set of crystals.

    Attributes:
        name: what is measured.
        value: the number.
        low: lower end of its 95 % interval.
        high: upper end.
        n: crystals that count in it.
        definition: what the number means; only measures with equal definitions compare.
        failed: index of a sample -> why it could not be measured.
        failed_reference: index of a reference crystal -> why it could not be measured.
        seconds: wall time.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    definition: Mapping[str, Any] = field(repr=False)
    failed: Mapping[int, str] = field(default_factory=dict, repr=False)
    failed_reference: Mapping[int, str] = field(default_factory=dict, repr=False)
    seconds: float = field(default=0.0, repr=False)

    def __str__(self) -> str:
        text = f"{self.name}: {self.value:.4g} ({self.low:.4g}–{self.high:.4g}), n = {self.n:,}"
        lost = len(self.failed) + len(self.failed_reference)
        return f"{text}, {lost} not measured" if lost else text


def table(measures: Iterable[Measure] | Mapping[str, Measure]) -> pd.DataFrame:
    """One row a measure: value, low, high, n, failed, seconds."""
    import pandas as pd

    rows = list(measures.values() if isinstance(measures, Mapping) else measures)
    columns = ("value", "low", "high", "n")
    data: dict[str, list] = {name: [getattr(row, name) for row in rows] for name in columns}
    data["failed"] = [len(row.failed) + len(row.failed_reference) for row in rows]
    data["seconds"] = [row.seconds for row in rows]
    return pd.DataFrame(data, index=pd.Index([row.name for row in rows], name="measure"))


@dataclass(frozen=True, eq=False)
class Features:
    """n crystals as points of a named space.

    Attributes:
        space: name of the space.
        values: (n, d) float64; NaN in the rows that failed.
        definition: how the points were made.
        failed: index -> why there is no point.
    """

    space: str
    values: np.ndarray
    definition: Mapping[str, Any]
    failed: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, space: str, values: ArrayLike) -> Features:
        """Points of a space of your own; rows that are not finite count as failed.

        Raises:
            InputError: not (n, d) numbers with n and d at least 1.
        """
        values = np.array(values, dtype=np.float64)
        if values.ndim != 2 or 0 in values.shape:
            raise InputError(
                f"features have shape {values.shape}: expected (n, d), one row a crystal; give a "
                "single number for each crystal as values[:, None]"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        values[bad] = np.nan
        reasons = dict.fromkeys(bad.tolist(), "not finite")
        return cls(space, values, {"space": space, "dimensions": values.shape[1]}, reasons)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Features:
        """Select crystals by a slice, integer indices or a boolean mask."""
        places = np.arange(len(self))[rows]
        kept = {k: self.failed[i] for k, i in enumerate(places.tolist()) if i in self.failed}
        return Features(self.space, self.values[places], self.definition, kept)

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool, True where there is a point."""
        ok = np.ones(len(self), dtype=bool)
        ok[list(self.failed)] = False
        return ok

    @property
    def points(self) -> np.ndarray:
        """(k, d) the points without those that failed."""
        return self.values[self.ok]

    @property
    def digest(self) -> str:
        """A short hash of the points, whatever their order."""
        rows = sorted(row.tobytes() for row in np.round(self.points, 6) + 0.0)
        return hashlib.sha256(b"".join(rows)).hexdigest()[:12]


def features(
    crystals: CrystalBatch, space: str = "magpie", *, processes: int = 1, progress: bool = False
) -> Features:
    """Crystals as points of ``magpie``, ``crystalnn`` or ``amd``.

    Raises:
        UnknownNameError: no such space.
        InputError: matminer is not installed (not needed for ``amd``).
    """
    if lookup("feature space", space, SPACES) == "magpie":
        return magpie(crystals)
    if space == "amd":
        return amd(crystals)
    return crystalnn(crystals, processes=processes, progress=progress)


def amd(crystals: CrystalBatch) -> Features:
    """Average minimum distances to 100 neighbours, Å: where atoms are, whatever their element.

    Source:
        Widdowson et al., MATCH 87 (2022) 529.
    """
    values = average_minimum_distances(crystals)
    verdict = geometry_verdict(crystals, ANY)
    failed = {
        int(i): verdict.reason(int(i)) or "too elongated"
        for i in np.flatnonzero(~np.isfinite(values).all(1))
    }
    return Features("amd", values, {"space": "amd", "neighbours": K, "unit": "Å"}, failed)


# ---- compositions: Magpie's statistics of elemental properties


def magpie(compositions: CrystalBatch | Sequence[str] | np.ndarray) -> Features:
    """Scaled Magpie fingerprints (132 numbers) of compositions.

    Six statistics over the atoms of 22 properties of the elements, from matminer's table and equal
    to matminer's ``ElementProperty.from_preset("magpie")``. Each is then scaled by its mean and
    standard deviation over the crystals of `oqmd_icsd`, so that the unit does not depend on the
    sets that are compared. CDVAE scales by constants of another data set: its distances are the
    same within 1 % in the median (a factor of 0.86 to 1.18 for 98 % of pairs), and its cutoff of
    10 gives the same verdict on 98.8 % of 1,000 crystals of `oqmd_icsd` beside 1,000 others.

    Args:
        compositions: crystals, formulas, or (n, 119) counts (column = atomic number).

    Raises:
        InputError: matminer is not installed, or a formula cannot be read.

    Source:
        Ward et al., npj Comput. Mater. 2 (2016) 16028.
    """
    counts = _counts(compositions)
    mean, deviation = _magpie_scale()
    values = np.full((len(counts), len(mean)), np.nan)
    ok = np.isfinite(counts).all(1) & (counts >= 0).all(1) & (counts > 0).any(1)
    if ok.any():
        values[ok] = (magpie_statistics(counts[ok]) - mean) / deviation
    failed = dict.fromkeys(np.flatnonzero(~ok).tolist(), "no composition")
    return Features("magpie", values, _magpie_definition(), failed)


def magpie_statistics(counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts -> (n, 132) unscaled Magpie statistics, in matminer's order.

    Raises:
        InputError: matminer is not installed.
    """
    properties = _magpie_table()
    pieces = (_statistics(counts[rows], properties) for rows in _pieces(np.arange(len(counts))))
    return np.concatenate(list(pieces))


def _statistics(counts: np.ndarray, properties: np.ndarray) -> np.ndarray:
    most = int((counts > 0).sum(1).max())
    listed = np.argsort(counts <= 0, axis=1, kind="stable")  # elements that are there come first
    listed = listed[:, :most]  # (n, most)
    amount = np.take_along_axis(counts, listed, axis=1)[..., None]  # (n, most, 1)
    there = amount > 0
    value = properties[listed]  # (n, most, 22)
    low = np.where(there, value, np.inf).min(1)
    high = np.where(there, value, -np.inf).max(1)
    total = amount.sum(1)
    mean = (amount * value).sum(1) / total
    spread = (amount * np.abs(value - mean[:, None])).sum(1) / total
    common = np.isclose(amount, amount.max(1, keepdims=True))
    mode = np.where(common, value, np.inf).min(1)  # of equally frequent elements the smallest value
    stacked = np.stack([low, high, high - low, mean, spread, mode], axis=2)  # (n, 22, 6)
    return stacked.reshape(len(counts), -1)


@cache
def _magpie_table() -> np.ndarray:
    """(119, 22) properties of the elements; row 0 is never used."""
    _need_matminer()
    from matminer.featurizers.composition.composite import ElementProperty

    preset = ElementProperty.from_preset("magpie", impute_nan=True)
    known = [preset.data_source.all_elemental_props[name] for name in preset.features]
    rows = [[column[symbol] for column in known] for symbol in elements.SYMBOLS[1:]]
    return np.array([[0.0] * len(known), *rows])


@cache
def _magpie_scale() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each statistic over oqmd_icsd; 1 where there is none."""
    from .. import datasets

    raw = magpie_statistics(comps.amounts(datasets.load("oqmd_icsd").table["formula"].tolist()))
    deviation = raw.std(0)
    return raw.mean(0), np.where(deviation > 1e-9, deviation, 1.0)


def _magpie_definition() -> dict[str, Any]:
    return {
        "space": "magpie",
        "scaled": "by mean and standard deviation over the crystals of oqmd_icsd",
        "matminer": metadata.version("matminer"),
    }


def _counts(compositions: CrystalBatch | Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(compositions, CrystalBatch):
        numbers = compositions.numbers.cpu().numpy()
        known = ((numbers >= 0) & (numbers < elements.N_COLUMNS)).all(1)
        counts = np.full((len(numbers), elements.N_COLUMNS), np.nan)
        if known.any():
            counts[known] = compositions[known].counts().numpy()
        return counts
    if isinstance(compositions, np.ndarray):
        if compositions.ndim != 2 or compositions.shape[1] != elements.N_COLUMNS:
            raise InputError(
                f"counts have shape {compositions.shape}: expected (n, {elements.N_COLUMNS}), one "
                "column for each atomic number"
            )
        return compositions.astype(np.float64)
    return comps.amounts(compositions)


# ---- structures: CrystalNN's order parameters, from matminer


def crystalnn(
    crystals: CrystalBatch, *, processes: int = 1, cached: bool = True, progress: bool = False
) -> Features:
    """CrystalNN fingerprints (61 numbers, preset ``ops``), averaged over the sites.

    As CDVAE does, but sites that symmetry makes equal (within 0.001 Å) are computed once. A
    crystal costs some 15 ms a distinct site; what was computed is kept on disk, by a hash of the
    crystal, so that a run that was stopped goes on where it was.

    Args:
        crystals: n crystals; those that are broken, outside of `MEASURABLE` or refused by
            CrystalNN fail with a reason.
        processes: how many at once.
        cached: read and write the cache, in the folder of downloaded data (``IMD_CACHE_DIR``).
        progress: show a progress bar.

    Raises:
        InputError: matminer is not installed, or the cache cannot be used.

    Source:
        Zimmermann and Jain, RSC Adv. 10 (2020) 6063 (the fingerprint).
    """
    _need_matminer()
    if processes < 1:
        raise InputError(f"processes = {processes}: at least one process does the work")
    definition = _crystalnn_definition()
    verdict = geometry_verdict(crystals, MEASURABLE)
    failed = {int(i): verdict.reason(int(i)) for i in np.flatnonzero(~verdict.ok)}
    plain = {int(i): _plain(crystals, int(i)) for i in np.flatnonzero(verdict.ok)}
    keys = {i: _crystal_key(parts, definition) for i, parts in plain.items()}
    work = {key: plain[i] for i, key in keys.items()}  # copies once
    store = _Cache(_cache_file()) if cached else None
    found = _found(work, store, processes, progress)
    values = np.full((len(crystals), len(_featurizer().feature_labels())), np.nan)
    for i, key in keys.items():
        answer = found[key]
        if isinstance(answer, str):
            failed[i] = answer
        else:
            values[i] = answer
    return Features("crystalnn", values, definition, dict(sorted(failed.items())))


def _found(
    work: Mapping[str, Plain], store: _Cache | None, processes: int, progress: bool
) -> dict[str, np.ndarray | str]:
    """Fingerprint of each crystal by its key, or why there is none; kept as soon as known."""
    out: dict[str, np.ndarray | str] = {**store.read(work)} if store else {}
    left = {key: parts for key, parts in work.items() if key not in out}
    for answers in _computed(left, processes, progress):
        out.update(answers)
        if store:
            store.write({key: x for key, x in answers.items() if not isinstance(x, str)})
    return out


Plain = tuple[np.ndarray, np.ndarray, np.ndarray]


def _plain(crystals: CrystalBatch, i: int) -> Plain:
    """Lattice, coordinates and numbers of one crystal, without padding."""
    numbers = crystals.numbers[i].cpu().numpy()
    n = int((numbers > 0).sum())
    lattice = crystals.lattice[i].detach().cpu().double().numpy()
    return lattice, crystals.frac[i, :n].detach().cpu().double().numpy(), numbers[:n]


def _crystal_key(parts: Plain, definition: Mapping[str, Any]) -> str:
    lattice, frac, numbers = parts
    digest = hashlib.sha256(repr(sorted(definition.items())).encode())
    for values in (lattice, frac):
        digest.update((np.round(values, 6) + 0.0).tobytes())
    digest.update(numbers.astype(np.int64).tobytes())
    return digest.hexdigest()


def _crystalnn_definition() -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("matminer", "pymatgen")}
    return {"space": "crystalnn", "preset": "ops", "mean_over_sites": True, **versions}


def _computed(
    work: Mapping[str, Plain], processes: int, progress: bool
) -> Iterator[dict[str, np.ndarray | str]]:
    """Fingerprints, or reasons, of some crystals at a time."""
    from tqdm.auto import tqdm

    names = list(work)
    size = 8 if len(names) > 8 * processes else 1
    tasks = [{key: work[key] for key in names[i : i + size]} for i in range(0, len(names), size)]
    with tqdm(total=len(names), desc="CrystalNN", unit="crystal", disable=not progress) as bar:
        for answer in _mapped(tasks, processes):
            bar.update(len(answer))
            yield answer


def _mapped(tasks: list, processes: int) -> Iterator[dict[str, np.ndarray | str]]:
    if processes == 1 or len(tasks) < 2:
        yield from map(crystalnn_task, tasks)
        return
    # spawn: a forked copy of a process in which torch or numba have threads may hang
    with ProcessPoolExecutor(min(processes, len(tasks)), get_context("spawn")) as pool:
        running = {pool.submit(crystalnn_task, task): task for task in tasks}
        for future in as_completed(running):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield dict.fromkeys(running[future], "a process died, by lack of memory? Run again")


def crystalnn_task(task: Mapping[str, Plain]) -> dict[str, np.ndarray | str]:
    """Fingerprints of a few crystals, or why there is none; what one process does."""
    out: dict[str, np.ndarray | str] = {}
    for key, parts in task.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # CrystalNN asks for oxidation states
                out[key] = _mean_fingerprint(*parts)
        except Exception as error:  # one odd crystal must not stop the run
            out[key] = f"CrystalNN: {type(error).__name__}: {str(error)[:200]}"
    return out


def _mean_fingerprint(lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    crystal = CrystalBatch.from_ragged(lattice[None], frac, numbers, [len(numbers)])
    structure = crystal.structures()[0]
    first, times = np.unique(_same_sites(lattice, frac, numbers), return_counts=True)
    each = np.array([_featurizer().featurize(structure, int(site)) for site in first])
    if not np.isfinite(each).all():
        raise ValueError("the fingerprint of a site is not finite")
    return np.average(each, axis=0, weights=times)


def _same_sites(lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(sites,) the first site of the orbit of each site; each its own where none is found."""
    import moyopy

    try:
        cell = moyopy.Cell(lattice.tolist(), frac.tolist(), numbers.tolist())
        return np.array(moyopy.MoyoDataset(cell, symprec=SYMPREC).orbits)
    except ValueError:
        return np.arange(len(numbers))


@cache
def _featurizer() -> Any:
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops")


@cache
def _need_matminer() -> None:
    try:
        import matminer  # noqa: F401
    except ImportError as error:
        raise InputError(
            "fingerprints of compositions and structures need the package matminer: install it "
            'with pip install "imd-helpers[judge]", or give Features of your own'
        ) from error


class _Cache:
    """Fingerprints by key in one SQLite file: writes are atomic, also with several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS points (key TEXT PRIMARY KEY, x BLOB)")
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"the cache {path} cannot be used ({error}): set IMD_CACHE_DIR to a folder that "
                "can be written, delete the file if it is damaged, or choose cached=False"
            ) from error

    def read(self, keys: Iterable[str]) -> dict[str, np.ndarray]:
        found = {}
        with closing(self._open()) as file:
            for key in keys:
                row = file.execute("SELECT x FROM points WHERE key = ?", (key,)).fetchone()
                if row:
                    found[key] = np.frombuffer(row[0])
        return found

    def write(self, points: Mapping[str, np.ndarray]) -> None:
        rows = [(key, point.astype(np.float64).tobytes()) for key, point in points.items()]
        with closing(self._open()) as file, file:  # the inner one commits all or nothing
            file.executemany("INSERT OR REPLACE INTO points VALUES (?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=60.0)


def _cache_file() -> Path:
    from ..datasets.remote import cache_dir

    return cache_dir() / "fingerprints" / "crystalnn.sqlite"


# ---- coverage


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Structure and composition of n crystals as points.

    Attributes:
        structure: points of the structures.
        composition: points of the compositions.
    """

    structure: Features
    composition: Features

    def __post_init__(self) -> None:
        if len(self.structure) != len(self.composition):
            raise InputError(
                f"{len(self.structure)} structures and {len(self.composition)} compositions: give "
                "both for every crystal"
            )

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def failed(self) -> dict[int, str]:
        """Index -> why one of the two is missing."""
        return {**self.composition.failed, **self.structure.failed}

    @property
    def ok(self) -> np.ndarray:
        """(n,) bool, both are there."""
        return self.structure.ok & self.composition.ok


def fingerprints(
    crystals: CrystalBatch, *, processes: int = 1, cached: bool = True, progress: bool = False
) -> Fingerprints:
    """What `coverage` compares: `crystalnn` and `magpie`; compute once, use often."""
    structure = crystalnn(crystals, processes=processes, cached=cached, progress=progress)
    return Fingerprints(structure, magpie(crystals))


def coverage(
    samples: CrystalBatch | Fingerprints,
    reference: CrystalBatch | Fingerprints,
    *,
    structure_cutoff: float = CUTOFFS["crystalnn"],
    composition_cutoff: float = CUTOFFS["magpie"],
    same_crystal: bool = False,
    processes: int = 1,
    progress: bool = False,
) -> dict[str, Measure]:
    """CDVAE's coverage: ``recall`` (COV-R) and ``precision`` (COV-P).

    A sample is precise if some reference structure lies within the structure cutoff and some
    reference composition within the composition cutoff. A reference crystal is recalled if samples
    lie around it in the same way. The definition has a hole: the nearest structure and the
    nearest composition may belong to two different crystals. Rock-salt CsI is covered by a
    reference of rock-salt NaCl and CsCl-type CsI. With ``same_crystal`` one crystal must be near
    in both.

    Recall grows with the number of samples, so that is part of the definition. The interval is
    Wilson's over the crystals of which the share is taken; the other set is held fixed.

    Args:
        samples: n crystals, or their fingerprints; one without fingerprint is not precise.
        reference: what they should look like; one without fingerprint is left out of recall.
        structure_cutoff: largest distance of CrystalNN fingerprints.
        composition_cutoff: largest distance of scaled Magpie fingerprints.
        same_crystal: close the hole.
        processes: for fingerprints of crystals.
        progress: show a progress bar for them.

    Raises:
        DefinitionError: the fingerprints of the two sets were made differently.
        InputError: no sample, a reference without any fingerprint, or a cutoff below zero.

    Source:
        Xie et al., ICLR 2022 (arXiv 2110.06197), whose cutoffs are 0.4 and 10 for MP-20.
    """
    start = time.perf_counter()
    cutoffs = (structure_cutoff, composition_cutoff)
    if not min(cutoffs) >= 0:
        raise InputError(f"cutoffs {cutoffs}: distances are never below zero")
    sets = [
        each
        if isinstance(each, Fingerprints)
        else fingerprints(each, processes=processes, progress=progress)
        for each in (samples, reference)
    ]
    made, known = sets
    _comparable(made.structure, known.structure)
    _comparable(made.composition, known.composition)
    _not_empty(known.ok, known.failed, "reference")
    definition = {
        "metric": "coverage",
        "structure": dict(made.structure.definition),
        "composition": dict(made.composition.definition),
        "cutoffs": list(cutoffs),
        "near": "one crystal in both" if same_crystal else "nearest structure, nearest composition",
        "reference": [known.structure.digest, known.composition.digest],
        "interval": f"Wilson {LEVEL:.0%}, other set fixed",
    }
    recalled = _covered(known, made, cutoffs, same_crystal)[known.ok]
    precise = _covered(made, known, cutoffs, same_crystal)
    lost = (made.failed, known.failed)
    sampled = {"samples": len(made)}  # more samples recall more
    return {
        "recall": _share("coverage recall", recalled, {**definition, **sampled}, lost, start),
        "precision": _share("coverage precision", precise, definition, lost, start),
    }


def _covered(
    these: Fingerprints, others: Fingerprints, cutoffs: tuple[float, float], same_crystal: bool
) -> np.ndarray:
    """(n,) bool: near to others in structure and composition; False without fingerprint."""
    from scipy.spatial.distance import cdist

    covered = np.zeros(len(these), dtype=bool)
    structures, compositions = (
        part.values[others.ok] for part in (others.structure, others.composition)
    )
    for rows in _pieces(np.flatnonzero(these.ok)):
        near = cdist(these.structure.values[rows], structures) <= cutoffs[0]
        alike = cdist(these.composition.values[rows], compositions) <= cutoffs[1]
        covered[rows] = (near & alike).any(1) if same_crystal else near.any(1) & alike.any(1)
    return covered


# ---- precision and recall of manifolds


def precision_recall(
    samples: CrystalBatch | Features,
    reference: CrystalBatch | Features,
    *,
    neighbours: int = 3,
    space: str = "magpie",
) -> dict[str, Measure]:
    """Improved precision and recall: shares of one set inside the manifold of the other.

    The manifold of a set is the union of balls around its points; each ball reaches to the point's
    k-th nearest other point of that set. No cutoff is chosen, but the balls shrink as a set grows
    and with duplicates, and one outlier makes a large ball. Both sizes are part of the definition.

    Args:
        samples: n crystals, or their points.
        reference: crystals or points to compare with.
        neighbours: k.
        space: where crystals are points, see `features`.

    Raises:
        DefinitionError: the points of the two sets were made differently.
        InputError: a set with fewer than k + 1 points.

    Source:
        Kynkäänniemi et al., NeurIPS 2019 (arXiv 1904.06991).
    """
    start = time.perf_counter()
    made, known = _point_sets(samples, reference, space)
    for name, points in (("samples", made.points), ("reference", known.points)):
        if not 1 <= neighbours < len(points):
            raise InputError(
                f"neighbours = {neighbours} and {len(points)} points in the {name}: a ball reaches "
                "to the k-th other point, so give more crystals than neighbours, at least one"
            )
    definition = {
        "metric": "precision and recall of manifolds",
        "neighbours": neighbours,
        **_pair_definition(made, known),
        "interval": f"Wilson {LEVEL:.0%}, other set fixed",
    }
    precise = np.zeros(len(made), dtype=bool)  # a sample without a point is in no manifold
    precise[made.ok] = _inside(made.points, known.points, neighbours)
    recalled = _inside(known.points, made.points, neighbours)
    lost = (made.failed, known.failed)
    return {
        "precision": _share("precision", precise, definition, lost, start),
        "recall": _share("recall", recalled, definition, lost, start),
    }


def _inside(points: np.ndarray, centers: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: a point lies in the ball of some centre."""
    from scipy.spatial.distance import cdist

    # place k of the sorted distances: place 0 is the point itself
    radius = np.concatenate(
        [np.partition(cdist(rows, centers), k, axis=1)[:, k] for rows in _pieces(centers)]
    )
    return np.concatenate([(cdist(rows, centers) <= radius).any(1) for rows in _pieces(points)])


# ---- distances of distributions


PROPERTIES: dict[str, tuple[Callable[[CrystalBatch], Any], str]] = {
    "density": (geometry.density, "g/cm^3"),
    "n_elements": (lambda crystals: (crystals.counts() > 0).sum(1), "elements"),
    "volume_per_atom": (lambda crystals: geometry.volume(crystals) / crystals.n_sites, "Å^3"),
}


def property_values(crystals: CrystalBatch, name: str) -> Features:
    """One of `PROPERTIES` of each crystal, as points on a line; broken crystals fail.

    Raises:
        UnknownNameError: no such property.
    """
    function, unit = PROPERTIES[lookup("property", name, PROPERTIES)]
    values = np.full((len(crystals), 1), np.nan)
    verdict = geometry_verdict(crystals, ANY)
    if verdict.ok.any():
        values[verdict.ok, 0] = function(crystals[verdict.ok].to("cpu")).numpy()
    failed = {int(i): verdict.reason(int(i)) for i in np.flatnonzero(~verdict.ok)}
    unmeasured = np.flatnonzero(verdict.ok & ~np.isfinite(values[:, 0]))
    failed.update(dict.fromkeys(unmeasured.tolist(), f"no {name}: an element has no known mass"))
    return Features(name, values, {"property": name, "unit": unit}, failed)


def wasserstein(
    samples: CrystalBatch | ArrayLike,
    reference: CrystalBatch | ArrayLike,
    property: str,
    *,
    unit: str = "",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measure:
    """Wasserstein distance of a property's distributions: the mean shift of sorted values.

    In the unit of the property. Two finite sets of the same origin are some distance apart; the
    lower end of the interval (bootstrap of both sets) allows for that, and is 0 where the sets
    cannot be told apart.

    Args:
        samples: n crystals, or n values of a property of your own (NaN = not measured).
        reference: crystals, or values, to compare with.
        property: ``density``, ``n_elements``, ``volume_per_atom``, or the name of your own.
        unit: of your own property.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        UnknownNameError: no such property of crystals.
        InputError: a set without values.
    """
    from scipy.stats import wasserstein_distance

    start = time.perf_counter()
    made, known = (_values(each, property, unit) for each in (samples, reference))
    _comparable(made, known)
    for each, name in ((made, "samples"), (known, "reference")):
        _not_empty(each.ok, each.failed, name)
    one, two = made.points[:, 0], known.points[:, 0]

    def distance(u: np.ndarray, v: np.ndarray) -> float:
        return wasserstein_distance(one, two, u, v)

    ends = _bootstrap(distance, (len(one), len(two)), resamples, seed)
    definition = {
        "metric": "Wasserstein-1 distance",
        **_pair_definition(made, known),
        "interval": _bootstrap_text(resamples, seed),
    }
    lost = (made.failed, known.failed)
    return _measure(f"Wasserstein {property}", ends, len(one), definition, lost, start)


def _values(given: CrystalBatch | ArrayLike, name: str, unit: str) -> Features:
    if isinstance(given, CrystalBatch):
        return property_values(given, name)
    column = np.asarray(given, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(f"{name} has shape {column.shape}: expected (n,), one value a crystal")
    made = Features.of(name, column[:, None])
    return Features(name, made.values, {"property": name, "unit": unit}, made.failed)


def frechet(
    samples: CrystalBatch | Features,
    reference: CrystalBatch | Features,
    *,
    space: str = "magpie",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measure:
    """Fréchet distance of two sets of points, each taken as a Gaussian.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)``: the squared Wasserstein-2 distance of
    Gaussians with these means and covariances. It sees nothing beyond them. Finite sets of the
    same origin are some distance apart, more so the fewer points there are for each dimension; the
    lower end of the interval (bootstrap of both sets) allows for that.

    Args:
        samples: n crystals, or their points.
        reference: crystals or points to compare with.
        space: where crystals are points, see `features`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DefinitionError: the points of the two sets were made differently.
        InputError: a set with fewer than 2 points.

    Source:
        Dowson and Landau, J. Multivar. Anal. 12 (1982) 450; Heusel et al., NeurIPS 2017 (FID).
    """
    start = time.perf_counter()
    made, known = _point_sets(samples, reference, space)
    one, two = made.points, known.points
    if min(len(one), len(two)) < 2:
        raise InputError(
            f"{len(one)} samples and {len(two)} reference points: a covariance needs at least 2 of "
            "each, and is good for something from several times the number of dimensions on"
        )

    def distance(u: np.ndarray, v: np.ndarray) -> float:
        return max(0.0, frechet_gaussians(*_moments(one, u), *_moments(two, v)))

    ends = _bootstrap(distance, (len(one), len(two)), resamples, seed)
    definition = {
        "metric": "Fréchet distance of Gaussians",
        **_pair_definition(made, known),
        "interval": _bootstrap_text(resamples, seed),
    }
    lost = (made.failed, known.failed)
    return _measure(f"Fréchet {made.space}", ends, len(one), definition, lost, start)


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased covariance of points that count as often as their weights say."""
    total = weights.sum()
    mean = weights @ points / total
    centered = points - mean
    return mean, (centered.T * weights) @ centered / (total - 1)


# ---- diversity


def diversity(
    crystals: CrystalBatch,
    *,
    space: str = "magpie",
    symprec: float = 0.1,
    at_most: int = 1000,
    seed: int = 0,
) -> dict[str, Measure]:
    """How varied a set is, by itself.

    - ``formulas``: different reduced formulas among the n crystals;
    - ``vendi``: see `vendi`, of at most ``at_most`` crystals;
    - ``element_entropy``: Shannon entropy (nats) of the element of an atom drawn at random, each
      crystal counting once;
    - ``space_group_entropy``: Shannon entropy (nats) of the space group found by moyopy.

    All of them grow with n, which is part of their definition. The intervals come from a jackknife
    that leaves out a twentieth at a time: a bootstrap repeats crystals, and repeats are
    what a diversity counts as loss.

    Args:
        crystals: n crystals; broken ones are left out and listed.
        space: of the Vendi score, see `features`.
        symprec: of the space groups, Å.
        at_most: crystals for the Vendi score, drawn without repeats.
        seed: of that draw, and of the groups of the jackknife.

    Raises:
        InputError: no crystal is whole.
    """
    verdict = geometry_verdict(crystals, ANY)
    failed = {int(i): verdict.reason(int(i)) for i in np.flatnonzero(~verdict.ok)}
    _not_empty(verdict.ok, failed, "set")
    whole = crystals[verdict.ok]
    rows = np.flatnonzero(verdict.ok)
    formulas = np.unique(whole.formulas(), return_inverse=True)[1]
    shares = whole.counts().numpy() / whole.n_sites.numpy()[:, None]
    groups = symmetry.space_group_numbers(whole, symprec=symprec)
    found = groups != symmetry.NOT_FOUND
    lost = failed | dict.fromkeys(rows[~found].tolist(), "no space group found")
    moyo = {"symprec": symprec, "moyopy": metadata.version("moyopy")}

    def measured(
        name: str, function: Callable, data: np.ndarray, why: dict, **more: Any
    ) -> Measure:
        start = time.perf_counter()
        ends = _jackknife(lambda keep: function(data[keep]), len(data), seed)
        definition = {"metric": name, "samples": len(crystals), **more, **_jackknife_text(seed)}
        return _measure(name, ends, len(data), definition, (why, {}), start)

    return {
        "formulas": measured("formulas", lambda x: float(len(np.unique(x))), formulas, failed),
        "vendi": vendi(whole, space=space, at_most=at_most, seed=seed),
        "element_entropy": measured(
            "element entropy", lambda x: entropy(x.sum(0)), shares, failed, unit="nat"
        ),
        "space_group_entropy": measured(
            "space group entropy",
            lambda x: entropy(np.bincount(x)),
            groups[found],
            lost,
            unit="nat",
            **moyo,
        ),
    }


def vendi(
    crystals: CrystalBatch | Features,
    *,
    space: str = "magpie",
    bandwidth: float | None = None,
    at_most: int = 1000,
    seed: int = 0,
) -> Measure:
    """Vendi score: the effective number of different crystals, from 1 to n.

    The exponential of the Shannon entropy of the eigenvalues of K / n, with the Gaussian kernel
    ``K_ij = exp(-d_ij^2 / (2 h^2))``. Duplicates count once, crystals much further apart than h
    each count fully. By default h is half of CDVAE's cutoff (5 in ``magpie``, 0.2 in
    ``crystalnn``), so that two crystals at the cutoff have a similarity of 0.14, and 1 Å in
    ``amd``.

    Args:
        crystals: n crystals, or their points.
        space: where crystals are points, see `features`.
        bandwidth: h; needed in a space of your own.
        at_most: larger sets are drawn from, without repeats.
        seed: of that draw, and of the groups of the jackknife that gives the interval.

    Raises:
        InputError: no points, or no bandwidth above zero.

    Source:
        Friedman and Dieng, TMLR 2023 (arXiv 2210.02410).
    """
    start = time.perf_counter()
    made = crystals if isinstance(crystals, Features) else features(crystals, space)
    _not_empty(made.ok, made.failed, "set")
    width = BANDWIDTHS.get(made.space, 0.0) if bandwidth is None else bandwidth
    if not width > 0:
        raise InputError(
            f"bandwidth {bandwidth} in the space {made.space!r}: give the distance at which two "
            "crystals begin to count as different, above zero"
        )
    points = made.points
    if len(points) > at_most:
        points = np.random.default_rng(seed).permutation(points)[:at_most]
    similarity = _gaussian_kernel(points, width)
    ends = _jackknife(lambda keep: vendi_score(similarity[np.ix_(keep, keep)]), len(points), seed)
    definition = {
        "metric": "Vendi score",
        **made.definition,
        "bandwidth": width,
        "samples": len(points),
        **_jackknife_text(seed),
    }
    return _measure("Vendi score", ends, len(points), definition, (made.failed, {}), start)


def vendi_score(similarity: np.ndarray) -> float:
    """Exponential of the entropy of the eigenvalues of K / n, from K (n, n) with ones in K_ii."""
    return float(np.exp(entropy(np.linalg.eigvalsh(similarity))))


def entropy(weights: ArrayLike) -> float:
    """Shannon entropy in nats of weights, brought to sum 1; those at or below 0 count nothing."""
    weights = np.asarray(weights, dtype=np.float64)
    share = weights[weights > 0] / weights[weights > 0].sum()
    return float(-(share * np.log(share)).sum())


def _gaussian_kernel(points: np.ndarray, width: float) -> np.ndarray:
    from scipy.spatial.distance import pdist, squareform

    return np.exp(squareform(pdist(points, "sqeuclidean")) / (-2.0 * width**2))


# ---- everything at once


def distributions(
    samples: CrystalBatch,
    reference: CrystalBatch,
    *,
    space: str = "magpie",
    processes: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Measure]:
    """All measures of this module, by name; see `table`.

    Args:
        samples: n crystals.
        reference: what they should look like, best a set that no model has seen.
        space: of precision and recall, the Fréchet distance and the Vendi score.
        processes: for the CrystalNN fingerprints, which take nearly all of the time.
        resamples: of the bootstraps.
        seed: of everything random.
        progress: show a progress bar.
    """
    options = {"processes": processes, "progress": progress}
    made, known = (fingerprints(each, **options) for each in (samples, reference))
    points = [
        each.composition if space == "magpie" else features(crystals, space, **options)
        for each, crystals in ((made, samples), (known, reference))
    ]
    boot = {"resamples": resamples, "seed": seed}
    out = {f"coverage_{key}": value for key, value in coverage(made, known).items()}
    out |= precision_recall(*points)
    out |= {
        f"wasserstein_{name}": wasserstein(samples, reference, name, **boot) for name in PROPERTIES
    }
    out["frechet"] = frechet(*points, **boot)
    return out | diversity(samples, space=space, seed=seed)


# ---- what they share


def _point_sets(
    samples: CrystalBatch | Features, reference: CrystalBatch | Features, space: str
) -> tuple[Features, Features]:
    made, known = (
        each if isinstance(each, Features) else features(each, space)
        for each in (samples, reference)
    )
    _comparable(made, known)
    return made, known


def _comparable(one: Features, two: Features) -> None:
    if dict(one.definition) != dict(two.definition):
        raise DefinitionError(
            f"points of {dict(one.definition)} and of {dict(two.definition)}: distances have a "
            "meaning only within one space, so make both alike"
        )


def _not_empty(ok: np.ndarray, failed: Mapping[int, str], name: str) -> None:
    if not ok.any():
        why = f"; the first: {next(iter(failed.values()))}" if failed else ""
        raise InputError(
            f"none of {len(ok)} crystals of the {name} can be measured{why}: give at least one"
        )


def _pair_definition(made: Features, known: Features) -> dict[str, Any]:
    """Space, reference and both sizes, on which every one of these numbers depends."""
    sizes = {"samples": int(made.ok.sum()), "reference_size": int(known.ok.sum())}
    return {**made.definition, "reference": known.digest, **sizes}


def _pieces(rows: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


Ends = tuple[float, float, float]
Lost = tuple[Mapping[int, str], Mapping[int, str]]


def _measure(
    name: str, ends: Ends, n: int, definition: dict[str, Any], lost: Lost, start: float
) -> Measure:
    return Measure(name, *ends, n, definition, *lost, time.perf_counter() - start)


def _share(
    name: str, hits: np.ndarray, definition: dict[str, Any], lost: Lost, start: float
) -> Measure:
    low, high = wilson(hits.sum(), len(hits), level=LEVEL)
    ends = (float(hits.mean()), float(low), float(high))
    return _measure(name, ends, len(hits), definition, lost, start)


def _bootstrap(
    distance: Callable[[np.ndarray, np.ndarray], float],
    sizes: tuple[int, int],
    resamples: int,
    seed: int,
) -> Ends:
    """A distance of two sets of given sizes, and a bootstrap interval around it, never below 0.

    ``distance`` takes how often each point of the two sets counts. Resampling adds to a distance
    about as much as finite sets have added already, so the lower end is mirrored (basic
    bootstrap); the upper end is not lowered in return, which for two Gaussians would leave the
    truth outside in a third of the cases, where the distance is as small as its noise.
    """
    if resamples < 2:
        raise InputError(f"resamples = {resamples}: an interval needs some, e.g. {RESAMPLES}")
    rng = np.random.default_rng(seed)
    value = distance(*(np.ones(n) for n in sizes))
    repeated = [
        distance(*(rng.multinomial(n, np.full(n, 1 / n)).astype(float) for n in sizes))
        for _ in range(resamples)
    ]
    top = float(np.quantile(repeated, 0.5 + LEVEL / 2))
    return value, min(value, max(0.0, 2 * value - top)), value + top - float(np.mean(repeated))


def _bootstrap_text(resamples: int, seed: int) -> str:
    return f"bootstrap {LEVEL:.0%}, {resamples} resamples of both sets, seed {seed}"


def _jackknife(statistic: Callable[[np.ndarray], float], n: int, seed: int) -> Ends:
    """A statistic of n crystals, given as indices, and its interval by leaving groups out."""
    value = statistic(np.arange(n))
    groups = min(GROUPS, n)
    if groups < 2:
        return value, float("nan"), float("nan")
    label = np.random.default_rng(seed).permutation(n) % groups
    left = np.array([statistic(np.flatnonzero(label != g)) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.sum((left - left.mean()) ** 2))
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * error
    return value, max(0.0, float(value - half)), float(value + half)


def _jackknife_text(seed: int) -> dict[str, str]:
    return {"interval": f"normal {LEVEL:.0%}, jackknife of {GROUPS} groups, seed {seed}"}
