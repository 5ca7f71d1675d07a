"""`judge`: carry out a protocol on samples, in pieces, and report its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..crystals import CrystalBatch
from ..crystals.samples import Samples
from ..runtime import lookup
from .chunks import Workers
from .judging import Judging
from .protocols import PROTOCOLS, Protocol
from .report import Report
from .samples import Known, as_known, as_samples
from .tally import numbers

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ..datasets import CrystalSet
    from ..energies.potentials import Potential


def judge(
    samples: Samples | CrystalBatch | CrystalSet | Sequence[Structure],
    *,
    reference: Known | CrystalBatch | CrystalSet | str | None,
    protocol: str | Protocol = "imd",
    potentials: Sequence[str | Potential] = ("chgnet",),
    training: Known | CrystalBatch | CrystalSet | str | None = None,
    distributions: bool = True,
    workers: int = 1,
    scheduler: str | None = None,
    cache: Path | str | None = None,
    name: str = "samples",
    progress: bool = False,
) -> Report:
    """Judge n samples by a protocol.

    Steps that cannot be taken (no space groups requested, no reference, no potential) are left
    out, and so are the numbers that need them; such reports only compare among themselves.

    Args:
        samples: what a generator made or a descriptor decoded, crystals, or pymatgen structures;
            the space groups that were asked for in ``samples.asked["space_group"]``.
        reference: known crystals, that novelty and coverage are measured against: crystals, a data
            set or its name; None for no novelty.
        protocol: one of `PROTOCOLS`, or one of your own.
        potentials: the first relaxes and decides; further ones say how far they disagree (in an
            ensemble protocol their mean decides). Empty: no energies.
        training: what the generator learned from, where the protocol asks for it; default: the
            reference.
        distributions: compute coverage and distances too, where the protocol has them (slow: some
            15 ms for each distinct site of samples and reference).
        workers: processes on this machine, each with one thread.
        scheduler: address of a Dask scheduler instead, e.g. ``tcp://localhost:8786``.
        cache: folder for finished pieces; a run that was stopped goes on from there.
        name: whose samples they are.
        progress: show a bar for each step.

    Raises:
        InputError: no samples, tensors of the wrong shape, a reference without crystals, a
            potential that is not installed, a scheduler that does not answer.
        UnknownNameError: no such protocol, potential or data set.
    """
    chosen = _protocol(protocol)
    given = as_samples(samples)
    known = {"reference": as_known(reference), "training": as_known(training)}
    with Workers(workers, scheduler) as where:
        where.warm_up()
        job = Judging(given, chosen, known, potentials, where, progress)
        job.keep_in(cache)
        job.ask_all()
        found = numbers(job, distributions=distributions)
    return job.report(name, found)


def _protocol(protocol: str | Protocol) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol
    return PROTOCOLS[lookup("protocol", protocol, PROTOCOLS)]
