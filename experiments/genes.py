"""Genes of the data, the two models that write them, and what their crystals are worth.

    python experiments/genes.py read          genes of oqmd_icsd, into data/genes
    python experiments/genes.py train SEED    both models; the weights of seed 0 are kept
    python experiments/genes.py transfer      held-out crystals from their genes alone
    python experiments/genes.py relaxed       some of them before and after relaxation
    python experiments/genes.py chosen [N]    some of them, or the first N, each by the one of four
                                              relaxed templates that a potential prefers
    python experiments/genes.py searched      those without a known prototype: random coordinates
                                              and cells, of which a potential keeps a few
    python experiments/genes.py nats [SEED …]    held-out genes by the models
    python experiments/genes.py samples [SEED …] 10,000 samples of models and rungs, three seeds

Interrupted work goes on where it stopped. Everything learns from the training split only.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import record
import torch
from record import CHECKPOINTS, DATA, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.baselines.cells import atomic_volumes
from imd_helpers.crystals import CrystalBatch, geometry
from imd_helpers.crystals.compositions import reduced
from imd_helpers.crystals.samples import Samples
from imd_helpers.datasets.store import CrystalSet
from imd_helpers.judge import charge
from imd_helpers.matching import cells
from imd_helpers.matching.same import NONE, same_as_reference
from imd_helpers.models import gene_search, genes
from imd_helpers.models.gene_models import GeneDiffusion, GeneTransformer
from imd_helpers.runtime import InputError

FOLDER = CHECKPOINTS / "genes"
MODELS = {kind.name: kind for kind in (GeneTransformer, GeneDiffusion)}
RUNGS = ("ion exchange", "site marginals", "substitution")
MAKERS = (*MODELS, *(f"{name}, elements only" for name in MODELS), *RUNGS)
SEEDS, N, MOST = (0, 1, 2), 10_000, GeneTransformer.Config().orbits
BACK = 1_000  # crystals to bring back
NEXT = 8  # nearest templates of a crystal that did not come back from the first
RELAXED = (40, 20)  # to relax: that did not come back, that did
CHOSEN = (40, 100, 30)  # to choose for: the same, and without a known prototype
TEMPLATES, AMONG = 4, 24  # different templates that are relaxed, among so many nearest
STEPS = (30, 70)  # of each of them, and then of the one of lowest energy
ROOM = 10  # free coordinates of a gene that is searched, at most
STARTS, PER_FREE = 48, 6  # at most, and for each free number of cell and coordinates
HALVING = ((STARTS, 12), (12, 25), (4, 60))  # crystals and steps


def read() -> None:
    """Genes of every crystal, zeros where it has none; and volumes of the elements."""
    every = imd.datasets.load("oqmd_icsd")
    starts = range(0, len(every), 2_000)
    parts = [genes.genes_of(every[start : start + 2_000].crystals).tensor for start in starts]
    written = np.concatenate([part.numpy() for part in parts]).astype(np.uint8)
    volumes, _ = atomic_volumes(every.select(split="train").crystals)
    path = DATA / "genes" / "genes.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, genes=written, volumes=volumes)
    print(f"{(written[:, 0] > 0).sum():,} genes, {path.stat().st_size:,} bytes")


def train(seed: str) -> None:
    """Both models, at one budget."""
    for kind in MODELS.values():
        record.train(kind, "icsd", seed=int(seed), progress=False)


# ---- the way back


def transfer() -> None:
    """Crystals of the test split from their genes, and how many are the same again."""
    held, written = drawn()
    ways = {"nearest": genes.training_transfer().decode, "any": any_template}
    out: Row = {"held_out": len(held), "genes": int((written[:, 0] > 0).sum())}
    few = (written[:, 0] > 0) & ((written[:, 1::2] > 0).sum(1) <= MOST)
    small = (held.table["n_sites"] <= 20).to_numpy()
    free = np.array([free_parameters(gene) for gene in written])
    groups = {"all": free >= -1, f"at most {MOST} orbits": few, "at most 20 sites": small}
    groups |= {
        f"{low} to {high} free": (free >= low) & (free <= high)
        for low, high in ((0, 0), (1, 2), (3, 5), (6, 10), (11, 999))
    }
    holds = held.crystals.counts().numpy() > 0
    nonmetal = ~charge.oxidation_table().metal
    hydrogen, metals = holds[:, 1], ~(holds & nonmetal)[:, 1:].any(1)
    groups |= {"hydrogen": hydrogen, "metals only": metals, "others": ~hydrogen & ~metals}
    for way, decode in ways.items():
        made = decode(written)
        same, ratio = compared(made, held)
        within = np.abs(ratio - 1) < 0.1
        out[way] = {
            name: {
                "n": int(rows.sum()),
                "known": int(made.ok[rows].sum()),
                "same": int(same[rows].sum()),
                "volume within a tenth": int(within[rows].sum()),
            }
            for name, rows in groups.items()
        }
        if way == "nearest":
            out["distance"] = by_distance(written, made.ok, same)
            out["lost"] = lost(held, written, np.flatnonzero(~same))
    record.write(FOLDER / "transfer.json", rounded(out))


def drawn() -> tuple[CrystalSet, np.ndarray]:
    """Some crystals of the test split, and their genes."""
    held, written = genes.known_genes("test")
    rows = np.random.default_rng(0).permutation(len(held))[:BACK]
    return held[rows], written[rows]


def any_template(written: np.ndarray) -> Samples:
    """The same with a template drawn from those of the prototype, and elements in any order."""
    nearest, rng = genes.training_transfer(), np.random.default_rng(0)
    drawn = genes.Transfer(nearest.known, np.zeros((1, genes.WIDTH), np.int64), nearest.volumes)
    for name, rows in nearest.rows.items():
        row = rng.integers(len(rows))
        drawn.rows[name], drawn.places[name] = rows[[row]], nearest.places[name][[row]]
    return drawn.decode(written)


def compared(made: Samples, truth: CrystalSet) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool: the crystal that is meant; and (n,) its volume over the true one, NaN if none."""
    rows = np.flatnonzero(made.ok)
    ours, theirs = made[rows].crystals, truth[rows].crystals
    same, ratio = np.zeros(len(made), bool), np.full(len(made), np.nan)
    same[rows] = each_same(ours, theirs)
    ratio[rows] = (geometry.volume(ours) / geometry.volume(theirs)).numpy()
    return same, ratio


def each_same(ours: CrystalBatch, theirs: CrystalBatch) -> np.ndarray:
    """(n,) bool: does each crystal match the one in its place?"""
    n = len(ours)
    reduced = cells.reduce_cells(CrystalBatch.cat([theirs, ours]))
    pairs = [np.array([i, i + n]) for i in range(n)]
    first = cells.first_matches(reduced, pairs, n_old=[1] * n)
    return first[n:] == np.arange(n)


def free_parameters(gene: np.ndarray) -> int:
    """Free coordinates of all orbits; -1 of a row of zeros."""
    if not gene[0]:
        return -1
    group, orbits = genes.read(gene)
    found = gene_search.positions(group)
    return sum(found[letter].free for letter, _ in orbits)


def by_distance(written: np.ndarray, ok: np.ndarray, same: np.ndarray) -> list[Row]:
    """Same again, by how far the elements of the nearest template are."""
    scale, nearest = genes.mendeleev(), genes.training_transfer()
    apart = np.full(len(ok), np.nan)
    for i in np.flatnonzero(ok):
        _, swap = nearest.template(written[i])
        moved = np.flatnonzero(np.isin(swap, written[i, 2::2]) & (swap != np.arange(len(swap))))
        held = np.unique(written[i, 2::2][written[i, 2::2] > 0])
        apart[i] = np.abs(scale[moved] - scale[swap[moved]]).sum() / len(held)
    bins = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 99))
    inside = [(low, high, (apart >= low) & (apart < high)) for low, high in bins]
    return [
        {"from": low, "to": high, "n": int(rows.sum()), "same": int(same[rows].sum())}
        for low, high, rows in inside
    ]


def lost(held: CrystalSet, written: np.ndarray, rows: np.ndarray) -> dict[str, Row]:
    """Kinds of crystals that did not come back, and how many are right in a further template.

    Where the prototype is known these are the eight nearest of it, else crystals of equal amounts.
    """
    out: dict[str, Row] = {}
    for row in rows:
        kind, made = templates_for(held, written, row, most=NEXT)
        counted = out.setdefault(kind, {"n": 0, f"right in one of {NEXT}": 0})
        counted["n"] += 1
        if len(made):
            same, _ = compared(made, held[np.full(len(made), row)])
            counted[f"right in one of {NEXT}"] += int(same.any())
    return out


def templates_for(
    held: CrystalSet, written: np.ndarray, row: int, *, most: int
) -> tuple[str, Samples]:
    """What is known of a crystal's prototype, and it in the nearest templates."""
    nearest = genes.training_transfer()
    try:
        found = nearest.templates(written[row], most=most)
        alone = len(nearest.rows[genes.occupation(*genes.read(written[row])).prototype()]) == 1
        kind = "its prototype has one crystal" if alone else "its prototype has several"
    except InputError as error:
        kind = "no gene" if str(error) != genes.UNKNOWN else "its prototype is unknown"
        try:
            amounts = reduced(held[[row]].crystals.counts().numpy())[0]
            found = nearest.templates_of_formula(amounts, most=most)
        except InputError:
            kind, found = "its amounts are unknown", []
    return kind, nearest.refilled(np.arange(len(found)), found.__getitem__, {})


def relaxed() -> None:
    """Of those that did not come back, and of those that did, some after CHGNet."""
    held, written = drawn()
    made = genes.training_transfer().decode(written)
    same, _ = compared(made, held)
    groups = [np.flatnonzero(made.ok & (same == back))[:n] for back, n in enumerate(RELAXED)]
    jobs = [(int(row),) for row in np.sort(np.concatenate(groups))]
    record.fill(FOLDER / "relaxed.json", ("row",), jobs, lambda row: at_rest(held, made, row))


def at_rest(held: CrystalSet, made: Samples, row: int) -> Row:
    """One crystal: is it the true one before and after, and how far is its volume?"""
    from imd_helpers.energies.relaxation import relax

    start, truth = made[[row]].crystals, held[[row]].crystals
    rest = relax(start, steps=100)
    found = {"formula": truth.formulas()[0], "sites": int(truth.n_sites[0])}
    for name, crystal in (("before", start), ("after", rest.crystals)):
        found[name] = bool(each_same(crystal, truth)[0])
        found[f"volume {name}"] = float(geometry.volume(crystal) / geometry.volume(truth))
    return rounded(found | {"converged": bool(rest.converged[0])})


def chosen(*pieces: str) -> None:
    """Crystals by what a user would do: relax some templates, keep the one of lowest energy."""
    held, written = drawn()
    rows = kinds(held, written)
    # each kind in its order, all kinds from the start: stopped early, it is a smaller draw
    when = np.concatenate([np.arange(len(kind)) / len(kind) for kind in rows])
    jobs = [(int(row),) for row in np.concatenate(rows)[np.argsort(when, kind="stable")]]
    jobs = jobs[: int(pieces[0])] if pieces else jobs
    about = {"templates": TEMPLATES, "among": AMONG, "steps": STEPS}
    path = FOLDER / "chosen.json"
    record.fill(path, ("row",), jobs, lambda row: of_lowest(held, written, row), about=about)


def kinds(held: CrystalSet, written: np.ndarray) -> list[np.ndarray]:
    """Some rows of three kinds: not the same from the nearest template, the same, without one."""
    made = genes.training_transfer().decode(written)
    same, _ = compared(made, held)
    every = (made.ok & ~same, made.ok & same, ~made.ok)
    return [np.flatnonzero(kind)[:n] for kind, n in zip(every, CHOSEN, strict=True)]


def of_lowest(held: CrystalSet, written: np.ndarray, row: int) -> Row:
    """One crystal: is it the true one before, after a few steps by template, and at the end?

    The true crystal is looked at after the choice. Where the choice is wrong it is relaxed too.
    """
    from imd_helpers.energies.relaxation import relax

    began, truth = time.process_time(), held[[row]].crystals
    kind, made = templates_for(held, written, row, most=AMONG)
    out: Row = {"formula": truth.formulas()[0], "sites": int(truth.n_sites[0]), "kind": kind}
    if not len(made):
        return out | {"before": False, "starts": [], "after": False}
    start = made[different(made.crystals)[:TEMPLATES]].crystals
    few, rest = STEPS
    tried = relax(start, steps=few)
    best = int(np.nan_to_num(tried.energy, nan=np.inf).argmin())
    end = relax(tried.crystals[[best]], steps=rest)
    theirs = truth[[0] * len(start)]
    out["before"] = bool(each_same(start[[0]], truth)[0])
    out["starts"] = [
        {"energy": float(energy), "same": bool(same)}
        for energy, same in zip(tried.energy, each_same(tried.crystals, theirs), strict=True)
    ]
    after = bool(each_same(end.crystals, truth)[0])
    out |= {"best": best, "energy": float(end.energy[0]), "after": after}
    out["converged"] = bool(end.converged[0])
    out["volume"] = float(geometry.volume(end.crystals) / geometry.volume(truth)) * float(
        truth.n_sites[0] / end.crystals.n_sites[0]
    )
    out["seconds"] = time.process_time() - began
    if not after:
        true = relax(truth, steps=few + rest)
        out["true energy"] = float(true.energy[0])
        out["true stays"] = bool(each_same(true.crystals, truth)[0])
    return rounded(out)


def different(crystals: CrystalBatch) -> list[int]:
    """The first of each group of crystals that match, in their order; all have one formula."""
    reduced_cells = cells.reduce_cells(crystals)
    by_sites: dict[int, list[int]] = {}
    for i, n in enumerate(reduced_cells.n_sites.tolist()):
        by_sites.setdefault(n, []).append(i)
    found = cells.first_matches(reduced_cells, [np.array(each) for each in by_sites.values()])
    return np.flatnonzero((found == cells.NONE) | (found == np.arange(len(crystals)))).tolist()


def searched() -> None:
    """Those without a known prototype from their genes alone."""
    held, written = drawn()
    jobs = [(int(row),) for row in kinds(held, written)[-1]]
    about = {"room": ROOM, "starts": STARTS, "per_free": PER_FREE, "halving": HALVING}
    path = FOLDER / "searched.json"
    record.fill(path, ("row",), jobs, lambda row: by_search(held, written, row), about=about)


def by_search(held: CrystalSet, written: np.ndarray, row: int) -> Row:
    """One crystal from its gene alone: the last few, and is each the true one?

    The true crystal is looked at after the search. `gene`: has it the gene that was asked for?
    """
    from imd_helpers.energies.relaxation import relax

    began, truth, gene = time.process_time(), held[[row]].crystals, written[row]
    free = free_parameters(gene)
    out: Row = {"formula": truth.formulas()[0], "free": free, "starts": 0, "ends": []}
    if not 0 <= free <= ROOM:
        return out
    out["starts"] = min(STARTS, PER_FREE * (free + free_lengths(gene[0])))
    crystals = gene_search.placements(gene, out["starts"])
    for most, steps in HALVING:
        rest = relax(crystals[:most], steps=steps)
        order = np.argsort(rest.energy)  # NaN comes last
        order = order[: int(np.isfinite(rest.energy).sum())]
        if not len(order):
            return out
        order = order[different(rest.crystals[order])]
        crystals, energy, converged = (
            each[order] for each in (rest.crystals, rest.energy, rest.converged)
        )
    named = (genes.genes_of(crystals).tensor.numpy() == gene).all(1)
    same = each_same(crystals, truth[[0] * len(crystals)])
    out["ends"] = [
        dict(zip(("energy", "same", "gene", "converged"), each, strict=True))
        for each in zip(map(float, energy), map(bool, same), map(bool, named),
                        map(bool, converged), strict=True)
    ]  # fmt: skip
    return rounded(out | {"seconds": time.process_time() - began})


def free_lengths(group: int) -> int:
    """Free numbers of the cell of a space group."""
    first = (195, 143, 75, 16, 3, 1)
    return next(n for n, low in zip((1, 2, 2, 3, 4, 6), first, strict=True) if group >= low)


# ---- the models


def trained(name: str, seed: int) -> Any:
    """A model by its training seed."""
    if seed == 0:
        return imd.models.load(name)
    return MODELS[name].load(record.BUILD / f"{name}-icsd-{seed}" / "model.safetensors")


def nats(*seeds: str) -> None:
    """Minus log p of a held-out gene, in nats, on average; of diffusion a bound on it."""
    jobs = [(name, int(seed)) for name in MODELS for seed in seeds or map(str, SEEDS)]
    record.fill(FOLDER / "nats.json", ("model", "seed"), jobs, one_nats)


def one_nats(name: str, seed: int) -> Row:
    """Train and test, and the space group alone."""
    model = trained(name, seed)
    out = {}
    for split in ("train", "test"):
        data = model.read(model.config, split)
        data = data if split == "test" else data[:: len(data) // 3_000]
        out[split] = float(model.nats(data, rounds=1 if model.causal else 16).mean())
        out[f"n_{split}"] = len(data)
    return rounded(out)


def samples(*seeds: str) -> None:
    """What models and rungs make of 10,000 tries, at three seeds or those named."""
    wanted = [int(seed) for seed in seeds or map(str, SEEDS)]
    jobs = [(name, seed) for seed in wanted for name in MAKERS if not seed or "only" not in name]
    record.fill(FOLDER / "samples.json", ("maker", "seed"), jobs, counted)


def counted(name: str, seed: int) -> Row:
    """Genes that are none, unknown prototypes, copies, repetitions, and hidden crystals found."""
    kind, _, only = name.partition(", ")
    if kind in MODELS:
        model = trained(kind, seed)
        tokens = elements_only(model, seed) if only else model.sample_genes(N, seed=seed)
        written = torch.nn.functional.pad(tokens, (0, genes.WIDTH - model.config.length)).numpy()
        made = genes.training_transfer().decode(written)
    else:
        made = rungs()[name].sample(N, seed=seed)
        written = rungs()[name].training.written()
    return counts(written, made)


def elements_only(model: Any, seed: int) -> torch.Tensor:
    """Genes with group and letters of training crystals, and elements of the model's."""
    known = model.read(model.config)
    rows = np.random.default_rng(seed).integers(len(known), size=N)
    given = torch.as_tensor(known[rows])
    given[:, 2::2] = torch.where(given[:, 1::2] > 0, -1, 0)
    parts = given.split(model.PIECE)
    return torch.cat([
        model.raw(i, len(part), condition={"given": part}, seed=seed)
        for i, part in enumerate(parts)
    ])  # fmt: skip


class Noted(baselines.Templates):
    """Known crystals with their genes, and what became of the genes of those drawn last."""

    genes: np.ndarray
    last: tuple[np.ndarray, np.ndarray]

    def refilled(self, rows: np.ndarray, swap: np.ndarray, *size: Any, **power: Any) -> Samples:
        """As of any templates, noted."""
        object.__setattr__(self, "last", (rows, swap))
        return super().refilled(rows, swap, *size, **power)

    def written(self) -> np.ndarray:
        """(n, 41) genes of the crystals that were made last."""
        rows, swap = self.last
        out = self.genes[rows].copy()
        out[:, 2::2] = np.take_along_axis(swap, out[:, 2::2], axis=1)
        return out


def counts(written: np.ndarray, made: Samples) -> Row:
    """What there is in (n, 41) genes, and in the crystals made of them."""
    known = {row.tobytes() for row in genes.known_genes("train")[1]}
    keys, unknown, wrong = [], 0, Counter()
    for gene, ok, why in zip(written, made.ok, made.reasons, strict=True):
        if ok and gene[0]:
            keys.append(genes.written(*again(gene)).tobytes())
        elif why == genes.UNKNOWN:
            unknown += 1
        else:
            wrong[why.split(":")[0].split(" ")[0] or "broken"] += 1
    new = set(keys) - known
    hidden, names = hidden_crystals()
    ours = np.array(made.formulas())
    there, candidates = np.isin(names, ours), np.flatnonzero(np.isin(ours, names))
    found = 0
    if len(candidates):
        matches = same_as_reference(hidden[there], made[candidates].crystals)
        found = int((matches.first != NONE).sum())
    return {
        "n": len(made), "made": len(keys), "unknown_prototype": unknown, "no_gene": dict(wrong),
        "copies": sum(key in known for key in keys), "different": len(set(keys)),
        "new_and_different": len(new), "hidden": found, "of": len(hidden),
        "seconds": round(made.seconds, 1),
    }  # fmt: skip


def again(gene: np.ndarray) -> tuple[int, tuple]:
    """The canonical description of a gene as written."""
    group, orbits = genes.read(gene)
    return group, genes.canonical(group, orbits)


@cache
def hidden_crystals() -> tuple[CrystalBatch, np.ndarray]:
    """Held-out crystals of at most ten orbits, and their formulas."""
    parts = [genes.known_genes(split, most=MOST) for split in ("val", "test")]
    found = CrystalBatch.cat([held[written[:, 0] > 0].crystals for held, written in parts])
    return found, np.array(found.formulas())


@cache
def rungs() -> dict[str, Any]:
    """Samplers without learning, on the crystals that the models learn from."""
    known, written = genes.known_genes("train", most=MOST)
    rows = np.flatnonzero(written[:, 0])
    templates = Noted(known[rows].crystals, written[rows, 0])
    taken = [genes.occupation(*genes.read(gene)) for gene in written[rows]]
    # what moyopy would find a minute later
    templates.__dict__ |= {"genes": written[rows], "occupations": taken}
    kinds = (baselines.IonExchange, baselines.SiteMarginals, baselines.Substitution)
    return {name: kind(templates) for name, kind in zip(RUNGS, kinds, strict=True)}


TASKS = (read, train, transfer, relaxed, chosen, searched, nats, samples)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
