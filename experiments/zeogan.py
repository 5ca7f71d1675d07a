"""Train ZeoGAN, and measure what the chapter compares it with.

    python experiments/zeogan.py train VARIANT   weights and run.json of fixed, paper or target
    python experiments/zeogan.py known           framework types of the IZA, as digests
    python experiments/zeogan.py sizes           real frameworks there and back, by points
    python experiments/zeogan.py models          verdicts on trainings, with and without a target
    python experiments/zeogan.py again           the same of whole trainings with other seeds
    python experiments/zeogan.py published       how long a step of the published network takes
    python experiments/zeogan.py rungs           the same verdicts without learning
    python experiments/zeogan.py energies        frameworks above quartz, as listed and as decoded

`fixed` comes first: the others begin with its weights. Everything but the weights goes into
results.json. Interrupted work goes on where it stopped.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import record
from pymatgen.core import Lattice, Structure
from record import BUILD, CHECKPOINTS, Row, rounded

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.methane_grid import MethaneGrid
from imd_helpers.energies import relaxation
from imd_helpers.energies.potentials import JUDGES, potential
from imd_helpers.models import zeogan
from imd_helpers.models.zeogan import ZeoGan
from imd_helpers.models.zeogan_frameworks import framework_key, frameworks
from imd_helpers.networks import fit

PATH = CHECKPOINTS / "zeogan" / "results.json"
N_HEATS, N_DECODED = 500, 60
ARMS = ("target", "no target")
TRAINED = (("fixed", 0), ("paper", 0), *((arm, seed) for seed in (0, 1, 2) for arm in ARMS))
AGAIN = tuple((variant, seed) for seed in (1, 2) for variant in ("fixed", *ARMS))
POINTS = (12, 16, 24, 32)
MEASURED = ("AST", "CHA", "CFI", "IFR")  # with small primitive cells, of which calorimetry is known
DECODED = ("JBW", "ABW", "BIK", "ACO")  # small ones that were held out
FMAX, STEPS = 0.05, 150  # of a relaxation
KJ_MOL = 96.485  # of an eV
# functions of the chapter, and its frameworks
page = partial(record.chapter, "4_models/zeogan", until="## Equation ↔ code")


def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(ZeoGan, variant)


# ---- real frameworks


def known() -> None:
    """Digests of the framework types of all 217, for the page to look up."""
    batches = [
        CrystalBatch.from_structures([one])
        for one in imd.datasets.load("iza_zeolites").structures().values()
    ]
    digests = {page().digest(framework_key(one)) for one in batches}
    content = {"frameworks": len(batches), "types": sorted(digests)}
    record.write(PATH, record.read(PATH, {}) | {"known": content})


@record.rows(PATH, [(points,) for points in POINTS])
def sizes(points: int) -> Row:
    """How many real frameworks come back from grids of so many points, by their longest edge.

    All with right angles and edges up to 25 Å.
    """
    real = ZeoGan.read(zeogan.FIXED.but(longest=25.0), None)
    longest = real.lattice.norm(dim=2).amax(1).numpy()
    grids = MethaneGrid(points=points).encode(real).float()
    made = frameworks(grids, real.lattice)
    same = [
        ok and framework_key(made.samples.crystals[i : i + 1]) == framework_key(real[i : i + 1])
        for i, ok in enumerate(made.samples.ok.tolist())
    ]
    return {
        "n": len(real),
        "right": int(np.sum(same)),
        "n to 20": int((longest <= 20).sum()),
        "right to 20": int(np.sum(np.array(same)[longest <= 20])),
    }


# ---- trained models


@record.rows(PATH, TRAINED)
def models(variant: str, seed: int) -> Row:
    """Verdicts on each training."""
    return of_model(trained(variant, seed), seed)


@record.rows(PATH, AGAIN)
def again(variant: str, seed: int) -> Row:
    """Verdicts on `fixed` trained with other seeds, and on what goes on from each."""
    first, _ = record.train(ZeoGan, "fixed", seed=seed, progress=False)
    return of_model(first if variant == "fixed" else gone_on(variant, seed, first), seed)


def of_model(model: ZeoGan, seed: int) -> Row:
    """Heats of many grids, and all verdicts of fewer; the same peaks anywhere in their cells."""
    many, few = model.raw(0, N_HEATS, seed=seed), model.raw(0, N_DECODED, seed=seed + 100)
    found = page().heat_of(many[0]) | {"border": page().border(many[0])}
    decoded = page().verdict(*few) | {"by chance": page().by_chance(*few, seed)}
    return rounded({"heats": found, "decoded": decoded})


def trained(variant: str, seed: int) -> ZeoGan:
    """Committed weights, or a training that goes on from `fixed` with or without the target."""
    if variant in ("fixed", "paper", "target") and seed == 0:
        return imd.models.load("zeogan", variant=variant)
    return gone_on(variant, seed)


def gone_on(variant: str, seed: int, first: ZeoGan | None = None) -> ZeoGan:
    """What goes on from the committed weights of `fixed`, or from another training of it."""
    config = ZeoGan.recipe("target", profile="full").but(seed=seed)
    if variant == "no target":
        config = config.but(low=0.0, high=0.0)
    model = ZeoGan.from_data(page().train, config, seed=seed)
    for name, network in first.networks.items() if first else ():
        model.networks[name].load_state_dict(network.state_dict())
    folder = BUILD / f"zeogan-{variant.replace(' ', '-')}-{seed}{'-again' if first else ''}"
    history = fit(model, config.train, folder=folder, resume=True, progress=False)
    if history.ema is not None:
        model.generator.load_state_dict(history.ema.state_dict())
    return model


# ---- the published network


@record.rows(PATH, [(32,), (64,)])
def published(points: int) -> Row:
    """Weights of `paper` in full, and processor seconds of one step, five turns of the critic.

    The step has a batch of two grids.
    """
    config = zeogan.PAPER.but(points=points, batch=2, steps=1, log_every=1)
    model = ZeoGan.from_data(page().train[:2], config)
    began = time.process_time()
    row = fit(model, config.train, progress=False).rows[0]
    seconds = time.process_time() - began
    weights = sum(p.numel() for each in model.networks.values() for p in each.parameters())
    finite = bool(np.isfinite(list(row.values())).all())
    return rounded({"batch": 2, "weights": weights, "seconds": seconds, "finite": finite}, 1)


# ---- without learning


@record.rows(PATH, lambda: [(rung,) for rung in page().RUNGS])
def rungs(rung: str) -> Row:
    """The same verdicts for grids that no network made."""
    grids, lengths = page().RUNGS[rung](100, 0)
    return rounded({"heats": page().heat_of(grids), "decoded": page().verdict(grids, lengths)})


# ---- energies


LISTED = [(code, "listed") for code in ("quartz", *MEASURED, *DECODED)]


@record.rows(PATH, LISTED + [(code, "decoded") for code in DECODED])
def energies(framework: str, cell: str) -> Row:
    """Energies of quartz and of real frameworks, as listed and as decoded, and how far they fall.

    Relaxed by the first potential, and asked of the second where they come to rest; kJ/mol of SiO2.
    """
    listed = quartz() if framework == "quartz" else zeolite(framework)
    one = listed if cell == "listed" else decoded(framework)
    began = potential(JUDGES[0]).energies(one, gate=None)
    rest = relaxation.relax(one, JUDGES[0], fmax=FMAX, steps=STEPS)
    second = potential(JUDGES[1]).energies(rest.crystals, gate=None)
    unit = 3 * KJ_MOL  # atoms of SiO2
    return rounded(
        {
            "atoms": int(one.n_sites[0]),
            "at rest": bool(rest.converged[0]),
            "fell": float(unit * (began - rest.energy)[0]),
            **{by: float(unit * e[0]) for by, e in zip(JUDGES, (rest.energy, second), strict=True)},
        }
    )


def quartz() -> CrystalBatch:
    """Alpha quartz (Levien, Prewitt and Weidner, Am. Mineral. 65 (1980) 920)."""
    lattice = Lattice.hexagonal(4.916, 5.4054)
    places = [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.1191 + 2 / 3]]
    return CrystalBatch.from_structures(
        [Structure.from_spacegroup("P3_221", lattice, ["Si", "O"], places)]
    )


def zeolite(code: str) -> CrystalBatch:
    """A framework's primitive cell, as the IZA lists it."""
    one = imd.datasets.load("iza_zeolites").structures([code])[code]
    return CrystalBatch.from_structures([one.get_primitive_structure()])


def decoded(code: str) -> CrystalBatch:
    """What grids of 16 points of the whole cell decode to."""
    one = imd.datasets.load("iza_zeolites").structures([code])[code]
    listed = CrystalBatch.from_structures([one])
    grids = MethaneGrid(points=zeogan.FIXED.points).encode(listed).float()
    made = frameworks(grids, listed.lattice).samples
    if not made.ok[0]:
        raise SystemExit(f"{code} does not decode: {made.reasons[0]}; take another framework")
    primitive = made.crystals.structures()[0].get_primitive_structure(tolerance=0.3)
    return CrystalBatch.from_structures([primitive])


TASKS = (train, known, sizes, models, again, published, rungs, energies)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
