"""What the chapter `stability_synthesizability_properties` shows and cannot wait for.

    python experiments/stability_synthesizability_properties.py

Writes `bags.safetensors` (an ensemble on formulas) and `run.json`. An interrupted run goes on at
the next bag and the next part. No part has seen the val or test split, nor any formula that
CubicGAN was trained on: this ensemble is a judge of that model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import record
from record import Row

import imd_helpers as imd
from imd_helpers.crystals import symmetry
from imd_helpers.crystals.compositions import amounts, member
from imd_helpers.datasets.formula_sets import made_and_unlabelled
from imd_helpers.descriptors.crystal_graph import CrystalGraph, crystal_graph
from imd_helpers.descriptors.symmetry_sites import Sites, canonical, decode_sites, prototype
from imd_helpers.energies.hull import oqmd_distance
from imd_helpers.intervals import bootstrap
from imd_helpers.models import cubicgan
from imd_helpers.predictors import FormulaPredictor, GraphPredictor, PuConfig, PuEnsemble
from imd_helpers.predictors.graphs import formula_graph
from imd_helpers.runtime import device_name

HERE = record.CHECKPOINTS / "stability_synthesizability_properties"
PARTIAL = record.BUILD / "stability_synthesizability_properties"
UNLABELLED, SPIES, HELD_OUT = 40_000, 0.1, 4_000
FORMULAS = PuConfig(bags=20, epochs=2, batch=256, lr=3e-3, width=32, stop=1.0, step=0.1)
TEACHER_BAGS, CONTROLS = 5, 8
STRUCTURES = PuConfig(bags=10, epochs=5, batch=64, lr=3e-3, width=32, step=0.4)
LARGEST, GRAPH_EPOCHS = 8, 6  # sites of a crystal for the property predictors


# ---- formulas


def training_formulas() -> dict[str, np.ndarray]:
    """Positives, spies and unlabelled of the training split, without CubicGAN's formulas."""
    made, others = made_and_unlabelled("train", unlabelled=UNLABELLED)
    crystals = decode_sites(cubicgan.training_sites(None)).crystals
    cubic = amounts(crystals.formulas()).astype(np.int64)
    made = made[~member(made, cubic)]
    mixed = np.random.default_rng(0).permutation(len(made))
    cut = int(SPIES * len(made))
    return {"made": made[mixed[cut:]], "spies": made[mixed[:cut]], "unlabelled": others}


def held_out() -> dict[str, np.ndarray]:
    """What no bag may see."""
    test, unlabelled = made_and_unlabelled("test", unlabelled=HELD_OUT)
    return {"test": test, "val": made_and_unlabelled("val")[0], "unlabelled": unlabelled}


def above(scores: np.ndarray) -> Row:
    """Share above one half, with n."""
    scores = scores[np.isfinite(scores)]
    return {"n": len(scores), "above": int((scores > 0.5).sum()), "mean": float(scores.mean())}


def formulas() -> Row:
    """The ensemble that the chapter loads; spies are hidden behind the unlabelled."""
    data = training_formulas()
    hidden = np.concatenate([data["unlabelled"], data["spies"]])
    bags = HERE / "bags.safetensors"
    PuEnsemble(FORMULAS).fit(
        formula_graph(data["made"]), formula_graph(hidden), keep=bags, progress=True
    )
    model = PuEnsemble.load(bags)  # the rounded weights that a reader has
    oob = model.out_of_bag(formula_graph(hidden))
    n = len(data["unlabelled"])
    rest = {name: model.score(formula_graph(counts)) for name, counts in held_out().items()}
    return {
        "sizes": {name: len(rows) for name, rows in data.items()},
        "groups": {name: above(values) for name, values in rest.items()}
        | {"spies": above(oob[n:]), "unlabelled out of bag": above(oob[:n])},
        "spies": np.round(oob[n:], 4).tolist(),
        "unlabelled": np.round(oob[:n], 3).tolist(),
    }


def teacher() -> Row:
    """The first bags of `formulas`, and the same draws once more with a mean teacher."""
    data = training_formulas()
    hidden = np.concatenate([data["unlabelled"], data["spies"]])
    config = replace(FORMULAS, bags=TEACHER_BAGS, consistency=1.0)
    taught = PuEnsemble(config).fit(
        formula_graph(data["made"]),
        formula_graph(hidden),
        keep=PARTIAL / "teacher.safetensors",
        progress=True,
    )
    plain, out = PuEnsemble.load(HERE / "bags.safetensors"), {}
    for name, model in (("plain", plain), ("teacher", taught)):
        for group in ("test", "unlabelled"):
            scores = model.by_bag(formula_graph(held_out()[group]))[:TEACHER_BAGS].mean(0)
            out.setdefault(name, {})[group] = np.round(scores, 4).tolist()
    return out


def control() -> list[Row]:
    """Labels drawn by lot from made and unlabelled alike; a ninth of each side is held out."""
    data = training_formulas()
    pool = np.concatenate([data["made"], data["unlabelled"][: len(data["made"])]])
    rows = []
    for seed in range(CONTROLS):
        mixed = np.random.default_rng(seed).permutation(len(pool))
        parts = np.array_split(mixed[:27_000], 9)
        ones, others = np.concatenate(parts[:2]), np.concatenate(parts[2:7])
        config = replace(FORMULAS, bags=3, epochs=2, seed=seed)
        model = PuEnsemble(config).fit(formula_graph(pool[ones]), formula_graph(pool[others]))
        score = [above(model.score(formula_graph(pool[parts[k]]))) for k in (7, 8)]
        rows.append({"positive": score[0], "unlabelled": score[1]})
        print("control", seed, rows[-1], flush=True)
    return rows


# ---- energy above the hull of OQMD


def hull() -> dict[str, list[float]]:
    """Energy above the hull of what no bag has seen, both kinds by the same DFT, eV/atom."""
    known = {name: rows for name, rows in held_out().items() if name != "val"}
    return {k: np.maximum(oqmd_distance(v), 0.0).round(4).tolist() for k, v in known.items()}


# ---- crystals: three cubic prototypes, filled by nature or by enumeration


def graph(sites: Sites) -> CrystalGraph:
    """Graphs of primitive cells, a quarter as large for two of the prototypes."""
    return crystal_graph(symmetry.primitive(decode_sites(sites).crystals))


def keys(sites: Sites) -> list[tuple]:
    """Prototype and formula of each crystal."""
    one = canonical(sites)
    formulas = decode_sites(one).crystals.formulas()
    kinds = [prototype(g, s) for g, s in zip(one.space_group.tolist(), one.grid, strict=True)]
    return list(zip(kinds, formulas, strict=True))


def structures() -> Row:
    """Crystal graphs of real crystals and of an enumeration that fills the same prototypes."""
    rng = np.random.default_rng(0)
    filled = cubicgan.training_sites(None, data="cubic_prototypes")
    filled_keys = keys(filled)
    kinds = {kind for kind, _ in filled_keys}
    real = {s: cubicgan.training_sites(s) for s in ("train", "val", "test")}
    names = {s: keys(sites) for s, sites in real.items()}
    known = {key for some in names.values() for key in some}
    twin = np.array([key in known for key in filled_keys])
    twins = {key for key, yes in zip(filled_keys, twin, strict=True) if yes}
    use = {s: np.array([k[0] in kinds for k in names[s]]) for s in real}
    apart = {s: np.array([k in twins for k in names[s]]) for s in real}
    positive = real["train"][use["train"] & ~apart["train"]]
    free = rng.permutation(np.flatnonzero(~twin))
    unlabelled, rest = filled[free[:6000]], filled[free[6000:8000]]
    model = PuEnsemble(STRUCTURES).fit(
        graph(positive), graph(unlabelled), keep=PARTIAL / "structures.safetensors", progress=True
    )
    later = [real[s][use[s] & ~apart[s]] for s in ("val", "test")]
    groups = {
        "held out": np.concatenate([model.score(graph(sites)) for sites in later]),
        "twins, DFT cell": np.concatenate(
            [model.score(graph(real[s][use[s] & apart[s]])) for s in real if apart[s].any()]
        ),
        "twins, CHGNet cell": model.score(graph(filled[np.flatnonzero(twin)])),
        "enumeration": model.score(graph(rest)),
    }
    groups["enumeration, out of bag"] = model.out_of_bag(graph(unlabelled))
    return {
        "positive": len(positive),
        "unlabelled": len(unlabelled),
        "prototypes": len(kinds),
        "groups": {name: above(values) for name, values in groups.items()},
        "gan": gan_structures(model, kinds, known),
    }


def gan_structures(model: PuEnsemble, kinds: set, known: set) -> Row:
    """The scores of CubicGAN's crystals in the three prototypes, known and not."""
    gan = imd.models.load("cubicgan", variant="fixed")
    sites = gan.sample_sites(4000, seed=0)
    sites = sites[np.flatnonzero(decode_sites(sites).ok)]
    names = keys(sites)
    first = {key: i for i, key in reversed(list(enumerate(names)))}
    new = np.array(sorted(i for key, i in first.items() if key[0] in kinds and key not in known))
    old = np.array(sorted(i for key, i in first.items() if key[0] in kinds and key in known))
    return {
        "different": len(first),
        "new": above(model.score(graph(sites[new]))),
        "known": above(model.score(graph(sites[old]))),
    }


# ---- properties


def properties() -> Row:
    """Errors on the test split of predictors of two properties, from formula and from crystal."""
    known = imd.datasets.load("oqmd_icsd")
    known = known[(known.n_sites <= LARGEST) & (known.table["formation_energy"].abs() < 5)]
    graph = crystal_graph(known.crystals)
    counts = amounts(known.table["formula"].tolist()).astype(np.int64)
    split = known.table["split"].to_numpy()
    out: Row = {}
    for name in ("formation_energy", "band_gap"):
        values = known.table[name].to_numpy(dtype=float)
        good = graph.ok & np.isfinite(values)
        train, test = (np.flatnonzero(good & (split == part)) for part in ("train", "test"))
        guess = np.abs(values[test] - np.median(values[train]))
        errors = {"median of training": guess}
        for kind in ("trees", "network"):
            model = FormulaPredictor(kind).fit(counts[train], values[train])
            errors[f"formula, {kind}"] = np.abs(model.predict(counts[test]) - values[test])
        crystal = GraphPredictor(epochs=GRAPH_EPOCHS).fit(graph[train], values[train])
        errors["crystal graph"] = np.abs(crystal.predict(graph[test]) - values[test])
        polymorph = polymorphs(known.table["formula"].to_numpy()[test])
        rows = {k: interval(e) | {"polymorphs": interval(e[polymorph])} for k, e in errors.items()}
        out[name] = {
            "train": len(train), "test": len(test), "n_polymorphs": int(polymorph.sum()),
            "error": rows,
        }  # fmt: skip
        print(name, rows, flush=True)
    return out


def polymorphs(formulas: np.ndarray) -> np.ndarray:
    """(n,) bool: does another row have the same formula?"""
    _, which, n = np.unique(formulas, return_inverse=True, return_counts=True)
    return n[which] > 1


def interval(errors: np.ndarray) -> dict[str, float]:
    """Mean with its 95 % interval by resampling."""
    low, high = bootstrap(errors)
    return {"mean": float(errors.mean()), "low": low, "high": high}


# ---- all of it


def timed(part: Callable[[], Row]) -> Row:
    """What a part finds, and its seconds."""
    began = time.process_time()
    return {"found": part(), "seconds": round(time.process_time() - began)}


def table() -> None:
    """All parts that are missing, and run.json."""
    PARTIAL.mkdir(parents=True, exist_ok=True)
    parts = {
        part.__name__: record.once(PARTIAL / f"{part.__name__}.json", timed, part)
        for part in (hull, formulas, structures, teacher, control, properties)
    }
    found = {
        "device": device_name(),
        "seconds": {name: part["seconds"] for name, part in parts.items()},
        **{name: part["found"] for name, part in parts.items()},
        "settings": {"formulas": asdict(FORMULAS), "structures": asdict(STRUCTURES)},
    }
    record.write(HERE / "run.json", found, indent=None)


TASKS = (table,)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
