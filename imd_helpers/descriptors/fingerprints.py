"""Crystals as points, to be compared by their distances: Magpie's and CrystalNN's fingerprints.

`magpie` sees compositions, `crystalnn` the coordination of sites. What cannot be a point is listed
with its reason. Where atoms are, whatever their element, say the distances of `amd`.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from ..crystals import CrystalBatch, elements, symmetry
from ..crystals import compositions as comps
from ..crystals.rules import GeometryRule, geometry_verdict, safe_counts
from ..crystals.samples import digest
from ..runtime import need, progress_bar, reals
from ..work import Pieces, Workers

SHELF = 2  # letters of a key: fingerprints are kept in 256 pieces
SYMPREC = 1e-3  # Å, within which sites of one orbit share a CrystalNN fingerprint
MEASURABLE = GeometryRule(
    "measurable",
    "what CrystalNN can take: its neighbour lists fill the memory where images overlap, and take "
    "minutes where neighbours are far away",
    min_distance=0.5,
    volume_per_atom=(1.0, 1e4),
)


@dataclass(frozen=True, eq=False)
class Features:
    """n crystals as points of a named space."""

    space: str  # its name
    values: np.ndarray  # (n, d) float64; NaN in the rows that failed
    definition: Mapping[str, Any]  # how the points were made
    failed: Mapping[int, str]  # index -> why there is no point

    def __len__(self) -> int:
        return len(self.values)

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


# ---- compositions: Magpie's statistics of elemental properties


def magpie(compositions: CrystalBatch | Sequence[str] | np.ndarray) -> Features:
    """Scaled Magpie fingerprints (132 numbers) of compositions.

    Six statistics over the atoms of 22 properties of the elements, from matminer's table and equal
    to matminer's ``ElementProperty.from_preset("magpie")``. Each is then scaled by its mean and
    standard deviation over the crystals of `oqmd_icsd`, so that the unit does not depend on the
    sets that are compared. CDVAE scales by constants of another data set: its distances are the
    same within 1 % in the median (a factor of 0.86 to 1.18 for 98 % of pairs), and its cutoff of
    10 gives the same verdict on 98.8 % of 1,000 crystals of `oqmd_icsd` beside 1,000 others.
    Counts are (n, 119), a column for each atomic number.

    Raises:
        InputError: matminer is not installed, or a formula cannot be read.

    Source: Ward et al., npj Comput. Mater. 2 (2016) 16028.
    """
    counts = _counts(compositions)
    mean, deviation = _magpie_scale()
    values = np.full((len(counts), len(mean)), np.nan)
    ok = np.isfinite(counts).all(1) & (counts >= 0).all(1) & (counts > 0).any(1)
    if ok.any():
        values[ok] = (magpie_statistics(counts[ok]) - mean) / deviation
    failed = dict.fromkeys(np.flatnonzero(~ok).tolist(), "no composition")
    definition = {
        "space": "magpie",
        "scaled": "by mean and standard deviation over the crystals of oqmd_icsd",
        "matminer": metadata.version("matminer"),
    }
    return Features("magpie", values, definition, failed)


def magpie_statistics(counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts -> (n, 132) unscaled Magpie statistics, in matminer's order.

    Raises:
        InputError: matminer is not installed.
    """
    properties = _magpie_table()
    return np.concatenate(
        [_statistics(counts[part], properties) for part in comps.blocks(len(counts), 1024)]
    )


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
    need("matminer", extra="judge")
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


def _counts(compositions: CrystalBatch | Sequence[str] | np.ndarray) -> np.ndarray:
    if isinstance(compositions, CrystalBatch):
        return safe_counts(compositions).astype(np.float64)
    if isinstance(compositions, np.ndarray):
        return reals("counts", compositions, "n", elements.N_COLUMNS, finite=False)
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

    Source: Zimmermann and Jain, RSC Adv. 10 (2020) 6063 (the fingerprint).
    """
    from ..datasets.remote import cache_dir

    need("matminer", extra="judge")
    versions = {name: metadata.version(name) for name in ("matminer", "pymatgen")}
    definition = {"space": "crystalnn", "preset": "ops", "mean_over_sites": True, **versions}
    made_by = hashlib.sha256(repr(sorted(definition.items())).encode()).hexdigest()[:12]
    folder = cache_dir() / "fingerprints" / f"crystalnn-{made_by}"
    verdict = geometry_verdict(crystals, MEASURABLE)
    failed = {int(i): verdict.reason(int(i)) for i in np.flatnonzero(~verdict.ok)}
    plain = {i: parts for i, parts in enumerate(crystals.each()) if verdict.ok[i]}
    keys = {i: digest(*parts, decimals=6).hex() for i, parts in plain.items()}
    work = {key: plain[i] for i, key in keys.items()}  # copies once
    found = _found(work, Pieces(folder if cached else None), processes, progress)
    values = np.full((len(crystals), len(_featurizer().feature_labels())), np.nan)
    for i, key in keys.items():
        answer = found[key]
        if isinstance(answer, str):
            failed[i] = answer
        else:
            values[i] = answer
    return Features("crystalnn", values, definition, dict(sorted(failed.items())))


Plain = tuple[np.ndarray, np.ndarray, np.ndarray]  # lattice, coordinates and numbers of a crystal


def _found(
    work: Mapping[str, Plain], pieces: Pieces, processes: int, progress: bool
) -> dict[str, np.ndarray | str]:
    """Fingerprint of each crystal by its key, or why there is none; kept as soon as known."""
    out: dict[str, np.ndarray | str] = {**_kept(pieces, work)}
    left = [key for key in work if key not in out]
    size = 8 if len(left) > 8 * processes else 1
    tasks = [{key: work[key] for key in left[i : i + size]} for i in range(0, len(left), size)]
    bar = progress_bar(None, "CrystalNN", progress, total=len(left), unit="crystal")
    with Workers(processes) as workers, bar:
        for _, answers in workers.map(crystalnn_task, tasks, len(tasks)):
            bar.update(len(answers))
            out.update(answers)
            _keep(pieces, {key: x for key, x in answers.items() if not isinstance(x, str)})
    return out


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
    (structure,) = crystal.structures()
    (data,) = symmetry.moyo_datasets(crystal, symprec=SYMPREC)
    orbits = np.arange(len(numbers)) if data is None else data.orbits  # first site of each
    first, times = np.unique(orbits, return_counts=True)
    each = np.array([_featurizer().featurize(structure, int(site)) for site in first])
    if not np.isfinite(each).all():
        raise ValueError("the fingerprint of a site is not finite")
    return np.average(each, axis=0, weights=times)


@cache
def _featurizer() -> Any:
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    return CrystalNNFingerprint.from_preset("ops")


def _kept(pieces: Pieces, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """What is known of some crystals; a piece holds all whose keys begin alike."""
    known: dict[str, np.ndarray] = {}
    for shelf in {key[:SHELF] for key in keys}:
        arrays = pieces.read(shelf)
        if arrays:
            known.update(zip(arrays["keys"].tolist(), arrays["points"], strict=True))
    return known


def _keep(pieces: Pieces, points: Mapping[str, np.ndarray]) -> None:
    for shelf in sorted({key[:SHELF] for key in points}):
        known = _kept(pieces, [shelf])
        known.update((key, x) for key, x in points.items() if key.startswith(shelf))
        pieces.write(
            shelf, {"keys": np.array(list(known)), "points": np.array(list(known.values()))}
        )
