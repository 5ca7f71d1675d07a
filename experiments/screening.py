"""Screen nearly two million compositions, and measure what the chapter on screening compares.

    python experiments/screening.py errors      surrogates on three embedded sets, three splits
    python experiments/screening.py graphs      what limits a crystal graph: steps and data
    python experiments/screening.py funnel      all candidates through all filters
    python experiments/screening.py key         ways to rank, on candidates that OQMD has computed
    python experiments/screening.py verify      the best 24 of each way, by two potentials
    python experiments/screening.py expected    their chances anew, after a new calibration
    python experiments/screening.py timing      charge neutrality, one process and two
    python experiments/screening.py million     two million, killed on the way and resumed

Candidates are exchanges of one or two elements in ternary crystals of the training split; whatever
a filter knows is of the training split as well, and the rest of OQMD's table is the answer key.
Interrupted work goes on where it stopped: finished pieces lie in `_build/screening/`. One thread
needs about 30 minutes. Needs the packages of the extras `judge` and `hull`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from typing import Any

import numpy as np
import record
from record import Row, once, rounded
from stability import as_data
from validation import anywhere, stages

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.baselines.exchange import Exchanges, exchanges
from imd_helpers.crystals import symmetry
from imd_helpers.crystals.compositions import amounts, keys, member, reduced
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.crystal_graph import crystal_graph
from imd_helpers.energies import calibration, hull
from imd_helpers.energies.potentials import JUDGES
from imd_helpers.intervals import bootstrap
from imd_helpers.judge import charge_neutral, judge, mechanics
from imd_helpers.judge.protocols import PROTOCOLS
from imd_helpers.predictors import BoostedEnsemble, GraphPredictor
from imd_helpers.search import Filter, screened

WORK = record.BUILD / "screening"
PATH = record.CHECKPOINTS / "screening" / "results.json"
N, TWO, SEEDS = 2_000_000, 2_600, (0, 1, 2)
MORE = 5_000  # draws of two elements for each parent, for a list of two million
LARGEST, NEAR = 14, 0.05  # sites of a parent; eV/atom above the hull
WINDOW = (1.0, 2.0)  # eV, the gap that is wanted
HULLS = 10_000  # candidates whose distance from the hull is computed
N_KEY, N_VERIFIED, SEED = 4_000, 24, 0
UNUSABLE = [2, 10, 18, 36, 43, 54, 61, *range(84, 119)]  # noble gases, no stable isotope
SETS = {"expt_gap": "band_gap", "mp_gap": "band_gap", "mp_e_form": "formation_energy"}
SIZE = {"expt_gap": {"trees": 150, "leaves": 31}, "": {"trees": 300, "members": 2}}
FOLDS = 5


# ---- data


@cache
def listed() -> Any:
    """OQMD's formulas that are no failed calculations, with a gap."""
    table = imd.datasets.load("oqmd_formulas").table
    sane = table["band_gap"].notna() & (table["formation_energy"].abs() < -hull.LOWEST)
    return table[sane].reset_index(drop=True)


@cache
def listed_counts() -> np.ndarray:
    """(n, 119) of them."""
    return amounts(listed()["formula"].tolist()).astype(np.int16)


@cache
def parent_rows() -> np.ndarray:
    """Rows of `oqmd_icsd`: ternary training crystals near the hull."""
    t = imd.datasets.load("oqmd_icsd").table
    rows = (t["split"] == "train") & (t["n_elements"] == 3) & (t["n_sites"] <= LARGEST)
    return np.flatnonzero(rows & (t["energy_above_hull"] <= NEAR))


@cache
def parents() -> baselines.IonExchange:
    """These crystals, and which elements replace each other among them."""
    known = imd.datasets.load("oqmd_icsd").crystals[parent_rows()]
    ion = once(WORK / "parents.pickle", baselines.IonExchange, known)
    assert len(ion.training) == len(parent_rows())  # the symmetry of all was found
    return ion


def made(two: int = TWO) -> Row:
    """Compositions by exchange, the likeliest ones."""
    counts = parents().training.crystals.counts().numpy().astype(np.int16)
    found = exchanges(counts, parents().pairs, two=two, seed=SEED)
    return vars(found[np.sort(np.argsort(-found.chance, kind="stable")[:N])])


@cache
def candidates() -> Exchanges:
    """All compositions, made once."""
    return Exchanges(**once(WORK / "candidates.npz", made))


@cache
def known_hull() -> hull.Formulas:
    """What the training splits of both tables say about phases."""
    mine = (listed()["split"] == "train").to_numpy()
    icsd = imd.datasets.load("oqmd_icsd")
    t = icsd.table
    more = ((t["split"] == "train") & (t["formation_energy"] > hull.LOWEST)).to_numpy()
    counts = icsd.crystals.counts().numpy()[more].astype(np.int16)
    energy = t["formation_energy"].to_numpy()[more]
    energies = np.concatenate([listed()["formation_energy"].to_numpy()[mine], energy])
    return hull.Formulas(np.concatenate([listed_counts()[mine], counts]), energies)


def surrogate(target: str, seed: int = 0) -> BoostedEnsemble:
    """Fitted to the charge-neutral compounds of the training split."""
    return once(WORK / f"{target}-{seed}.pickle", fitted, target, seed)


def fitted(target: str, seed: int) -> BoostedEnsemble:
    """The fit itself."""
    counts, t = listed_counts(), listed()
    rows = (t["split"] == "train").to_numpy() & charge_neutral(counts, alloys=False)
    rows &= (counts > 0).sum(1) > 1
    model = BoostedEnsemble(members=4, trees=150, seed=seed)
    return model.fit(counts[rows], t[target].to_numpy()[rows])


# ---- questions


def usable(counts: np.ndarray) -> Row:
    """No noble gas, and nothing without a stable isotope."""
    return {"keep": ~(counts[:, UNUSABLE] > 0).any(1)}


def neutral(counts: np.ndarray) -> Row:
    """Oxidation states balance, and anions are more electronegative than cations."""
    return {"keep": charge_neutral(counts, alloys=False)}


def new(counts: np.ndarray, known: np.ndarray) -> Row:
    """Not in the training split of either table."""
    return {"keep": ~member(counts.astype(np.int16), known)}


def in_window(counts: np.ndarray, model: BoostedEnsemble) -> Row:
    """How likely the gap is to lie in the window."""
    said = model.predict(counts)
    likely = said.below(WINDOW[1]) - said.below(WINDOW[0])
    return {"keep": likely > 0, "gap": said.mean, "in window": likely, "not in": -likely}


def near_hull(counts: np.ndarray, model: BoostedEnsemble) -> Row:
    """Distance from the hull of known phases, and the chance that it is small."""
    said = model.predict(counts)
    lowest = known_lowest(counts)
    near = said.below(lowest + NEAR)
    told = {"energy": said.mean, "above hull": said.mean - lowest, "near": near}
    return {"keep": near > 0, "not near": -near, **told}


def known_formulas() -> np.ndarray:
    """(n, 119) reduced counts of the training splits."""
    return once(WORK / "known.npz", lambda: {"counts": reduced(known_hull().counts)})["counts"]


def cheap(piece: int) -> list[Filter]:
    """The questions that cost microseconds."""
    return [
        Filter("usable elements", usable, piece=piece),
        Filter("charge neutral", neutral, piece=piece),
        Filter("not known", partial(new, known=known_formulas()), piece=piece),
    ]


# ---- the funnel


def funnel() -> None:
    """All filters, and what passed each."""
    gap, energy = surrogate("band_gap"), surrogate("formation_energy")
    about = f"{WINDOW} {NEAR} seed 0"
    filters = [
        *cheap(200_000),
        Filter(
            "gap in the window", partial(in_window, model=gap), best=("not in", HULLS), about=about
        ),
        Filter(
            "near the hull", partial(near_hull, model=energy),
            piece=500, best=("not near", 1_000), about=about,
        ),
    ]  # fmt: skip
    found = screened(candidates().counts, filters, cache=WORK / "pieces", progress=True)
    record.write_arrays(WORK / "funnel.npz", left=found.left, **found.values)
    say("funnel", {"n": found.n, "stages": found.stages, "failed": len(found.failed)})


# ---- ways to rank, where DFT has answered


def key() -> None:
    """How each way to rank does on new, neutral candidates that the other splits of OQMD list."""
    found = dict(np.load(WORK / "funnel.npz"))
    asked = np.flatnonzero(np.isfinite(found["gap"]))  # passed all filters before the surrogates
    aside = np.flatnonzero(listed()["split"] != "train")
    theirs = reduced(listed_counts()[aside])
    row_of = dict(zip(keys(theirs), aside.tolist(), strict=True))
    mine = keys(candidates().counts[asked].astype(np.int16))
    both = [(int(i), row_of[k]) for i, k in zip(asked, mine, strict=True) if k in row_of]
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(both))[:N_KEY])
    places, rows = np.array(both)[drawn].T
    above = hull.oqmd_distance(listed_counts()[rows].astype(float))
    truth = {"energy": listed()["formation_energy"].to_numpy()[rows], "above hull": above}
    truth["gap"] = listed()["band_gap"].to_numpy()[rows]
    told = {name: rounded(score, 4) for name, score in scores(places).items()}
    counts = {"n": len(places), "of": len(both), "asked": len(asked)}
    say("key", counts | {"truth": rounded(truth, 4), "said": told})


def scores(places: np.ndarray) -> Row:
    """The larger, the sooner a candidate is taken; one list a way to rank."""
    some = candidates()[places]
    lowest = known_lowest(some.counts)
    out: Row = {"hull of known": lowest}
    for seed in SEEDS:
        gap = surrogate("band_gap", seed).predict(some.counts)
        energy = surrogate("formation_energy", seed).predict(some.counts)
        window = gap.below(WINDOW[1]) - gap.below(WINDOW[0])
        out[f"surrogates {seed}"] = energy.below(lowest + NEAR) * window
        out[f"predicted above hull {seed}"] = energy.mean - lowest
        out[f"predicted gap {seed}"] = gap.mean
        low, high = energy.interval(0.9)
        out[f"half width {seed}"] = (high - low) / 2
    return out | {"parent": parent_score(some), "exchange": some.chance}


def parent_score(some: Exchanges) -> np.ndarray:
    """A chemist's rule: the likeliest exchange first, of parents whose own gap is wanted."""
    return some.chance + np.where(np.abs(parent_gap()[some.parent] - 1.5) <= 0.5, 0.0, -1e3)


@cache
def parent_gap() -> np.ndarray:
    """(templates,) eV; NaN where OQMD gives none."""
    t = imd.datasets.load("oqmd_icsd").table
    return t["band_gap"].to_numpy()[parent_rows()]  # eV


def known_lowest(counts: np.ndarray) -> np.ndarray:
    """(n,) eV/atom, the hull of the training splits at each composition."""
    return np.array([known_hull().hull(row / row.sum()) for row in counts.astype(float)])


# ---- by two potentials


WAYS = ("surrogates", "careful", "chemist's rule", "random")
CLOSE = 0.1  # eV/atom, how far from the hull the careful way believes a surrogate


def chosen(way: str) -> np.ndarray:
    """Places of the candidates that a way to choose sends to the potentials."""
    found = dict(np.load(WORK / "funnel.npz"))
    pool = np.flatnonzero(np.isfinite(found["gap"]))
    if way == "surrogates":
        score = found["near"][found["left"]] * found["in window"][found["left"]]
        return found["left"][np.argsort(-score, kind="stable")[:N_VERIFIED]]
    if way == "careful":
        score = np.where(np.abs(found["above hull"]) <= CLOSE, candidates().chance, -np.inf)
        return np.sort(np.argsort(-score, kind="stable")[:N_VERIFIED])
    if way == "chemist's rule":
        score = parent_score(candidates()[pool])
        return pool[np.argsort(-score, kind="stable")[:N_VERIFIED]]
    return np.random.default_rng(SEED).permutation(pool)[:N_VERIFIED]


def verify(way: str = "") -> None:
    """The chosen of each way, relaxed and placed above the hull by the judge's pair."""
    for each in [way] if way else WAYS:
        say(f"verified {each}", once(WORK / f"verified-{each}.json", verified, each))


def verified(way: str) -> Row:
    """Crystals, gates, and what both potentials say."""
    places = chosen(way)
    some = candidates()[places]
    ion = parents()
    cells = ion.training.refilled(some.parent, some.swap(), ion.volumes, power=1 / 3)
    crystals = symmetry.primitive(cells.crystals)
    full = PROTOCOLS["validation"]
    protocol = replace(full, steps=full.steps[:7], funnel=full.funnel[:7], numbers=())
    report = judge(Samples.of(crystals), protocol=protocol, cache=WORK / "judge", name=way)
    found = dict(np.load(WORK / "funnel.npz"))
    values = {k: rounded(v, 4) for k, v in report.values.items()}
    listed_already = hull.oqmd_distance(some.counts.astype(float))
    of_screening = ("gap", "in window", "energy", "near", "above hull")
    rest = report.relaxed if report.relaxed is not None else crystals
    return {
        "formula": crystals.formulas(),
        "parent": ion.training.crystals[some.parent].formulas(),
        "space group": ion.training.space_group[some.parent].tolist(),
        "gates": stages(report),
        "stopped": [report.reason(i) for i in range(report.n)],
        "values": values,
        "oqmd": rounded(listed_already, 4),
        "anywhere": anywhere(Samples.of(crystals)),
        "said": {k: rounded(found[k][places], 4) for k in of_screening},
        "crystals": [as_data(rest[i]) for i in range(report.n)],
    }


def expected() -> None:
    """How likely each is to be metastable, anew from the recorded distances."""
    for name, part in record.read(PATH).items():
        if name.startswith("verified"):
            say(name, with_chances(part))


def with_chances(part: Row) -> Row:
    """The same crystals by today's calibration; the gate that asks it is the last."""
    values, last = part["values"], part["gates"][-1]
    above = np.array([values[f"energy_above_hull {name}"] for name in JUDGES], dtype=float).T
    metals = calibration.metals_alone(amounts(part["formula"]))
    x = calibration.features(above, values["formation_energy"], metals)
    chance = {
        name: calibration.calibration(JUDGES, limit).probability(x)
        for name, limit in mechanics.THRESHOLDS.items()
    }
    likely, stopped = chance["probability within 0.1"], list(part["stopped"])
    for i, why in enumerate(stopped):
        if not why or why.startswith(last["gate"]):
            low = likely[i] < mechanics.EVEN
            of = f"DFT finds it within 0.1 eV/atom of its hull with probability {likely[i]:.2f}"
            stopped[i] = f"{last['gate']}: {of}" if low else ""
    gates = [*part["gates"][:-1], last | {"passed": stopped.count("")}]
    told = {name: rounded(p, 4) for name, p in chance.items()}
    return part | {"values": values | told, "stopped": stopped, "gates": gates}


# ---- surrogates beside published ones


CUTS = ("rows", "systems", "rows, asked of systems", "formulas")
LARGE = ("mp_gap", "mp_e_form")


def cuts(seeds: str = "1") -> list[tuple[str, str, int]]:
    """Each set and cut, with so many seeds of the large sets; the small one three times."""
    jobs = [("expt_gap", cut, seed) for seed in SEEDS for cut in CUTS[:3]]
    some = range(int(seeds))
    jobs += [(name, "rows", seed) for seed in some for name in LARGE]
    return jobs + [(name, cut, seed) for seed in some for name in LARGE for cut in CUTS[1:]]


@record.rows(PATH, cuts)
def errors(set: str, split: str, seed: int) -> Row:
    """Error, coverage, and what chemistry costs, of a fifth that is held out.

    Intervals are calibrated on a part of the rest that is cut likewise; in the last split by rows,
    though the fifth is of new systems.
    """
    table = imd.datasets.load(set).table
    counts = amounts(table["formula"].tolist()).astype(np.int16)
    values = table[SETS[set]].to_numpy()
    systems = np.unique(counts > 0, axis=0, return_inverse=True)[1].ravel()
    groups = {"rows": np.arange(len(table)), "formulas": table["formula"].to_numpy()}
    mine = groups.get(split, systems)
    label = np.unique(mine, return_inverse=True)[1]
    fold = np.random.default_rng(seed).permutation(label.max() + 1)[label] % FOLDS
    test = fold == 0
    began = time.process_time()
    model = BoostedEnsemble(**SIZE.get(set, SIZE[""]), seed=seed)
    model.fit(counts[~test], values[~test], groups=None if "," in split else label[~test])
    said = model.predict(counts[test])
    off = np.abs(said.mean - values[test])
    low, high = said.interval(0.9)
    inside = (low <= values[test]) & (values[test] <= high)
    return rounded({
        "n": int(test.sum()),
        "trained": int((~test).sum()),
        "mae": off.mean(),
        "interval": bootstrap(off),
        "covered": inside.mean(),
        "width": float(np.median(high - low)),
        "guess": np.abs(values[test] - np.median(values[~test])).mean(),
        "seconds": time.process_time() - began,
    })  # fmt: skip


# ---- what limits a crystal graph

SITES, STEPS = 8, 2_736  # of a crystal, at most; of a training, 24 epochs of all
# of the training crystals one in so many, steps, seed
GRAPHS = ((1, STEPS // 4, 0), (1, STEPS // 4, 1), (1, STEPS, 0), (1, STEPS, 1), (4, STEPS, 0))


@cache
def graphed() -> tuple[Any, Any]:
    """Graphs of all small crystals, and their table."""
    known = imd.datasets.load("oqmd_icsd")
    known = known[(known.n_sites <= SITES) & (known.table["formation_energy"].abs() < -hull.LOWEST)]
    return once(WORK / "graphs.pickle", crystal_graph, known.crystals), known.table


def of_graph(part: int, steps: int, seed: int) -> Row:
    """One training, asked about the formulas of the test split."""
    graph, t = graphed()
    split, values = t["split"].to_numpy(), t["formation_energy"].to_numpy(float)
    test = np.flatnonzero(split == "test")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(split == "train"))
    rows = rows[: len(rows) // part]
    model = GraphPredictor(seed=seed)
    model.epochs = round(steps / (len(rows) // model.batch))
    began = time.process_time()
    model.fit(graph[rows], values[rows])
    seconds = time.process_time() - began
    off = np.abs(model.predict(graph[test]) - values[test])
    some = rng.permutation(rows)[: len(test)]
    seen = np.abs(model.predict(graph[some]) - values[some])
    return rounded({
        "trained": len(rows), "epochs": model.epochs, "seed": seed,
        "n": len(test), "mae": off.mean(), "median": np.median(off),
        "interval": bootstrap(off), "on training": seen.mean(), "seconds": seconds,
    })  # fmt: skip


def graphs() -> None:
    """Each training; what is done lies in `_build`."""
    made = []
    for job in GRAPHS:
        name = "-".join(map(str, job))
        made.append(once(WORK / f"graph-{name}.json", of_graph, *job))
        print(made[-1], flush=True)
    say("graphs", made)


# ---- speed, and a list of two million

PIECE, KILLED = 100_000, 12  # candidates of a piece; pieces on disk when the first run is killed


def timing() -> None:
    """Charge neutrality of all candidates, one process and two."""
    counts = candidates().counts
    charge_neutral(counts[:10])
    rows = {}
    for workers in (1, 2):
        began, cpu = time.perf_counter(), time.process_time()
        found = screened(
            counts, [Filter("charge neutral", neutral, piece=100_000)], workers=workers
        )
        rows[str(workers)] = {
            "wall": time.perf_counter() - began, "own processor time": time.process_time() - cpu,
            "computing": found.stages[0]["seconds"], "passed": len(found.left),
        }  # fmt: skip
    say("timing", {"n": len(counts), "workers": rows})


def million() -> None:
    """Two million compositions through the cheap questions: killed on the way, and in one go."""
    counts = once(WORK / "million.npz", made, MORE)["counts"]
    folder = WORK / "million"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, __file__, "resumed"]
    with subprocess.Popen(command) as first:
        while len(kept := [*folder.rglob("*.npz")]) < KILLED:
            time.sleep(0.01)
        first.kill()
    subprocess.run(command, check=True)
    again = record.read(WORK / "resumed.json")
    assert all(file.exists() for file in kept)
    began = time.process_time()
    whole = screened(counts, cheap(PIECE))
    spent = time.process_time() - began
    assert again["left"] == sha256(whole.left).hexdigest()
    say("million", {
        "n": len(counts), "draws": MORE, "workers": 2, "piece": PIECE, "killed after": len(kept),
        "pieces": len([*folder.rglob("*.npz")]), "seconds of one process": spent,
        "stages": whole.stages, "stages of two processes": again["stages"],
    })  # fmt: skip


def resumed() -> None:
    """The same in two processes, with progress; goes on from the pieces on disk."""
    counts = once(WORK / "million.npz", made, MORE)["counts"]
    found = screened(counts, cheap(PIECE), workers=2, cache=WORK / "million", progress=True)
    told = {"left": sha256(found.left).hexdigest(), "stages": found.stages}
    record.write(WORK / "resumed.json", told)


def say(name: str, what: Any) -> None:
    """One part of the record."""
    head = {"made_by": "python experiments/screening.py", "stamp": record.stamp("scikit-learn")}
    record.write(PATH, head | record.read(PATH, {}) | {name: rounded(what)}, indent=None)


TASKS = (errors, graphs, funnel, key, verify, expected, timing, million, resumed)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
