"""The funnel without energies: n samples in, and for each of them the first test that it fails."""

from __future__ import annotations

from dataclasses import replace

from ..crystals import CrystalBatch
from ..crystals.rules import RULES, GeometryRule
from ..crystals.samples import Samples
from ..runtime import lookup
from . import charge as composition
from .chunks import Workers
from .judging import Judging
from .protocols import PROTOCOLS
from .report import Report
from .samples import as_known, as_samples


def funnel(
    decoded: Samples | CrystalBatch,
    *,
    training: CrystalBatch | None = None,
    rule: str | GeometryRule = "imd",
    oxidation_states: str = "icsd24",
    name: str = "samples",
    workers: int = 1,
    progress: bool = False,
) -> Report:
    """Judge n samples: decodes, distances, charge, space group, unique, novel.

    A sample that fails one stage does not reach the next. A broken crystal fails its stage with a
    reason and stops nothing. These are the first stages of the protocol ``imd`` of
    `imd_helpers.judge.judge`, which goes on with energies.

    Args:
        decoded: what a generator made or a descriptor decoded, or crystals. Without space groups in
            ``asked`` there is no such stage.
        training: the training set; without it there is no stage ``novel``.
        rule: geometry rule, see `imd_helpers.crystals.rules.RULES`.
        oxidation_states: ``icsd24`` or ``smact14``.
        name: whose samples they are, for tables and figures.
        workers: processes on this machine.
        progress: show a bar for each stage.

    Raises:
        InputError: no samples, or not one requested space group for each.
        UnknownNameError: no such rule or oxidation-state table.
    """
    if isinstance(rule, str):
        lookup("geometry rule", rule, RULES)
    lookup("oxidation-state table", oxidation_states, composition.OXIDATION_STATES)
    protocol = replace(
        PROTOCOLS["imd"], geometry=rule, oxidation_states=oxidation_states, novel_to=("training",)
    )
    samples = as_samples(decoded)
    with Workers(workers) as where:
        where.warm_up()
        known = {"training": as_known(training)}
        job = Judging(samples, protocol, known, workers=where, progress=progress)
        job.ask_all()
    return job.report(name)
