"""Make the entries of the leaderboard: samples and cards; then `imd leaderboard` ranks them.

    python experiments/leaderboard.py cubic      the ladder, CubicGAN, PGCGM and two models of genes
                                                 on cubic ternaries
    python experiments/leaderboard.py runs [NAME …]    two more runs of these entries, e.g.
                                                 cubic-cubicgan-fixed; of cubic ternaries if none
    python experiments/leaderboard.py chemistry NAME   those of one chemistry: v_o, bi_se, mg_mn_o
                                                 or hydrides
    python experiments/leaderboard.py formulas   those that make formulas, given a structure
    python experiments/leaderboard.py formula_counts   the same, more of them, without energies,
                                                 into results.json
    python experiments/leaderboard.py judge      reports of what has none; goes on if stopped
    python experiments/leaderboard.py expected   what DFT is expected to say, anew from the reports:
                                                 after the calibration was fitted again
    python experiments/leaderboard.py protocols  one entry by other protocols, into results.json
    python experiments/leaderboard.py coverage   of held-out cubic ternaries, into results.json

An entry that is there is left alone: remove its folder in `data/leaderboard` to make it again.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import crystalgan
import numpy as np
import record
import torch
from record import CHECKPOINTS, DATA, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import CrystalBatch, elements, files
from imd_helpers.crystals.samples import Samples
from imd_helpers.datasets import formula_sets
from imd_helpers.descriptors.symmetry_sites import SPACE_GROUPS, decode_sites, find_sites
from imd_helpers.energies import calibration
from imd_helpers.energies.potentials import JUDGES
from imd_helpers.judge import Report, distributions
from imd_helpers.judge import leaderboard as boards
from imd_helpers.judge.engine import Run
from imd_helpers.judge.leaderboard import CARD, HIDDEN, KIND, SAMPLES
from imd_helpers.judge.numbers import expected as expectations
from imd_helpers.judge.protocols import PROTOCOLS as JUDGED_BY
from imd_helpers.judge.samples import Sets, sets_of
from imd_helpers.models import cubicgan, formula_models
from imd_helpers.models.coordinate_rows import NUMBERS
from imd_helpers.models.gene_models import GeneModel
from imd_helpers.models.genes import WIDTH, Transfer, recorded
from imd_helpers.runtime import lookup
from imd_helpers.work import Workers, write_atomic

FOLDER = DATA / "leaderboard"
RESULTS = CHECKPOINTS / "leaderboard" / "results.json"
N, FEW, SEED = 100, 30, 2022  # samples of an entry: of all crystals, of one chemistry
MORE = (1, 2)  # seeds of further trainings, and of further draws
CUBIC = "cubic ternaries"
LEARNED = "763 cubic ternaries of oqmd_icsd, split train"
OF_GENES = (
    "23,622 crystals of oqmd_icsd, split train, asked for the three groups; what is no ternary is "
    "left out"
)
OF_TWENTY = "3,458 ternaries of oqmd_icsd in 20 groups, split train, asked for the three groups"
CUBIC_NETWORKS = {  # name: model, variant, what it learned from
    "CubicGAN fixed": ("cubicgan", "fixed", LEARNED),
    "CubicGAN paper": ("cubicgan", "paper", LEARNED),
    "PGCGM fixed": ("pgcgm", "fixed", OF_TWENTY),
    "PGCGM free": ("pgcgm", "free", OF_TWENTY),
    "PGCGM paper": ("pgcgm", "paper", OF_TWENTY),
    "gene transformer": ("gene_transformer", "icsd", OF_GENES),
    "gene diffusion": ("gene_diffusion", "icsd", OF_GENES),
}
CHEMISTRIES = {  # set of made crystals: elements, networks, what these learn from
    "v_o": ("V-O", ("iMatGen fixed", "iMatGen paper"), "v_o, split train, none like a real one"),
    "bi_se": ("Bi-Se", ("CCDCGAN fixed", "CCDCGAN paper"),
              "bi_se, split train, none like a real one"),
    "mg_mn_o": ("Mg-Mn-O", ("Mg-Mn-O GAN fixed", "Mg-Mn-O GAN paper"),
                "mg_mn_o, split train, no formula of a real one"),
    "hydrides": ("Mg-Ti-H", ("CrystalGAN fixed", "CrystalGAN paper"),
                 "hydrides of Mg and of Ti, real and made"),
}  # fmt: skip
FORMULAS, SOME, FEW_SITES = "formulas, given a structure", 40, 16
LEARNED_FORMULAS = (
    "18,302 formulas of oqmd_icsd, split train; the structure is that of the nearest of its "
    "crystals with the same amounts"
)
OF_FORMULAS = {  # name: model, variant
    "MatGAN fixed": ("matgan", "fixed"),
    "MatGAN paper": ("matgan", "paper"),
    "sequence GAN": ("sequence_gan", "icsd"),
}
WRITERS = {"VAE": "vae", "RNN": "rnn", "RNN with reinforcement": "anchored"}
WRITERS_OF = dict.fromkeys(WRITERS, "vae_rnn_rl")  # name: folder of its weights
FORMULA_RUNGS = ("one-element exchange", "substitution", "marginals", "random", "training copies")
MANY, SEEDS = 300, (2022,)  # formulas of a draw that is not asked for energies
MOST_SITES = {2: 20, 3: 28}  # of real crystals of so many elements that a rung starts from
PROTOCOLS, ENTRY = ("mattergen", "flowmm", "lemat"), "cubic-cubicgan-fixed"
Source = Callable[[], Samples]


# ---- who makes them


def cubic() -> None:
    """Ternaries in three cubic groups."""
    for name in (*rungs(), *CUBIC_NETWORKS):
        kind, variant, learned = CUBIC_NETWORKS.get(name, ("", "", LEARNED))
        made_by, weights = "network" if kind else "rung", f"{kind}-{variant}"
        entry("cubic", name, CUBIC, made_by, learned, partial(run, name), weights=weights)


def runs(*names: str) -> None:
    """Two more trainings of each network, and two more draws of each sampler of the cubic table."""
    wanted = further()
    for each in names or [name for name in wanted if name.startswith("cubic")]:
        source = wanted[lookup("entry", each, wanted)]
        for seed in MORE:
            file = FOLDER / each / f"run-{seed + 1}" / SAMPLES
            if not file.exists():
                write_atomic(file, packed(source(seed)))
                print(f"wrote {file.parent.name} of {each}", flush=True)


def further() -> dict[str, Callable[[int], Samples]]:
    """Folder of each entry that can be run again, and its samples by the seed of the run."""
    out = {f"cubic-{slug(name)}": partial(run, name) for name in (*rungs(), *CUBIC_NETWORKS)}
    for chemistry, (_, networks, _) in CHEMISTRIES.items():
        for name in networks:
            out[f"{chemistry}-{slug(name)}"] = partial(of_chemistry, chemistry, name)
    for name, (kind, variant) in OF_FORMULAS.items():
        out[f"formulas-{slug(name)}"] = partial(of_formulas, kind, variant)
    return out


@cache
def rungs() -> dict[str, Any]:
    """Samplers without learning, on the crystals that CubicGAN learns from."""
    return baselines.ladder(decode_sites(cubicgan.training_sites("train")).crystals)


def run(name: str, seed: int = 0) -> Samples:
    """Samples of a training, or of a draw."""
    if name in rungs():
        return rungs()[name].sample(N, seed=SEED + seed)
    kind, variant, _ = CUBIC_NETWORKS[name]
    model = trained(kind, variant, seed)
    return model.sample(N, seed=SEED) if kind == "cubicgan" else of_groups(model)


def trained(kind: str, variant: str, seed: int) -> Any:
    """The committed weights, or another training."""
    model = imd.models.load(kind, variant=variant)
    return record.train(type(model), variant, seed=seed)[0] if seed else model


def of_groups(model: Any) -> Samples:
    """As many of each group as the training crystals of the other entries have."""
    groups = cubicgan.training_sites("train").space_group
    drawn = np.random.default_rng(SEED).choice(groups, size=N)
    parts = []
    for group, wanted in zip(*np.unique(drawn, return_counts=True), strict=True):
        asked = {"condition": {"space_group": int(group)}, "seed": SEED}
        parts.append(ternaries(model, wanted, asked) if isinstance(model, GeneModel) else
                     model.sample(int(wanted), **asked))  # fmt: skip
    return Samples.cat(parts)


def ternaries(model: GeneModel, wanted: int, asked: Row) -> Samples:
    """Those of the genes that hold three elements."""
    tokens = model.sample_genes(50 * wanted, **asked)
    kinds = [len(set(row[2::2].tolist()) - {0}) for row in tokens]
    return model.decode(tokens[np.flatnonzero(np.array(kinds) == 3)[:wanted]])


def chemistry(name: str) -> None:
    """Everything that makes crystals of a few given elements."""
    symbols, networks, learned = CHEMISTRIES[lookup("made crystals", name, CHEMISTRIES)]
    about = {"chemistry": symbols, "made": name}
    for each in networks:
        source, weights = partial(of_chemistry, name, each), "-".join(network_of(name, each))
        entry(name, each, symbols, "network", learned, source, weights=weights, **about)
    rungs = hydrides(learned) if name == "hydrides" else ladder(name, symbols, learned)
    for rung, told, source in rungs:
        entry(name, rung, symbols, "rung", told, of_elements(source, symbols), **about)


def network_of(chemistry: str, name: str) -> tuple[str, str]:
    """Model and variant of an entry."""
    title, variant = name.rsplit(" ", 1)
    return chemistry if chemistry == "mg_mn_o" else title.lower(), variant


def of_chemistry(chemistry: str, name: str, seed: int = 0) -> Samples:
    """Samples of one network of a chemistry, by the seed of its training."""
    model = trained(*network_of(chemistry, name), seed)
    if chemistry == "mg_mn_o":  # asked for any composition of the data, hidden ones included
        counts = imd.datasets.load("mg_mn_o").crystals.counts()[:, list(NUMBERS)]
        model.learnt["compositions"] = torch.unique(counts, dim=0)
    source = partial(model.sample, FEW, seed=SEED)
    return of_elements(source, CHEMISTRIES[chemistry][0])()


def of_formulas(kind: str, variant: str, seed: int) -> Samples:
    """Formulas of another training, given a structure."""
    return given_structure(partial(trained, kind, variant, seed))


def ladder(name: str, symbols: str, learned: str) -> list[tuple[str, str, Source]]:
    """Rungs, the crystals that they know, and their samples."""
    wanted, sets = symbols.split("-"), sets_of(symbols, name)
    k = len(wanted)
    every = imd.datasets.load("oqmd_icsd").select(nelements=k, max_sites=MOST_SITES[k])
    foreign = ~every.table["formula"].isin(sets.hidden.formulas()).to_numpy()
    others = baselines.Templates.of(every.crystals[np.flatnonzero(foreign)])
    known = baselines.Templates.of(sets.training.crystals)
    of_others = f"{len(others):,} crystals of {k} elements of oqmd_icsd, none of {symbols}"
    asked = {"elements": wanted}
    return [
        (rung, told, partial(sampler.sample, FEW, condition=condition, seed=SEED))
        for rung, told, sampler, condition in (
            ("ion exchange", of_others, baselines.IonExchange(others), asked),
            ("substitution", of_others, baselines.Substitution(others), asked),
            ("site marginals", learned, baselines.SiteMarginals(known), {}),
            ("random", learned, baselines.RandomWyckoff(known), {}),
            ("training copies", learned, baselines.TrainingCopies(known), {}),
        )
    ]


def hydrides(learned: str) -> list[tuple[str, str, Source]]:
    """The rungs of CrystalGAN's chapter, which knows nothing ternary of the pair."""
    exchanged = {"ion exchange": "ternary hydrides of oqmd_icsd, none of Mg-Ti-H"}
    return [
        (rung, exchanged.get(rung, learned), partial(first_of_many, rung))
        for rung in crystalgan.RUNGS
    ]


def first_of_many(rung: str) -> Samples:
    """The first samples of what that chapter judges."""
    return crystalgan.without_learning("mg_ti_h", rung, SEED)[:FEW]


def of_elements(source: Source, symbols: str) -> Source:
    """The same, asked for nothing but the elements: without one of them a crystal is not made."""

    def checked() -> Samples:
        samples, reasons = source(), []
        counts = samples.crystals.counts().numpy()
        for i, why in enumerate(samples.reasons):
            lacks = [s for s in symbols.split("-") if not counts[i, elements.number(s)]]
            reasons.append(why or f"lacks {', '.join(lacks)}" * bool(lacks))
        return Samples.from_reasons(samples.crystals, reasons, seconds=samples.seconds)

    return checked


def formulas() -> None:
    """Everything that makes formulas of any elements, each in the nearest known crystal."""
    for name, maker in formula_makers().items():
        weights = WRITERS_OF.get(name, "-".join(OF_FORMULAS.get(name, ())))
        entry(
            "formulas",
            name,
            FORMULAS,
            "network" if weights else "rung",
            LEARNED_FORMULAS,
            partial(given_structure, maker),
            weights=weights,
        )


def formula_counts() -> None:
    """What the questions before the energies say of these, and how many are hidden crystals."""
    jobs = [(name, seed) for seed in SEEDS for name in formula_makers()]
    record.fill(RESULTS, ("maker", "seed"), jobs, without_energies, under="formulas")


def without_energies(name: str, seed: int) -> Row:
    """How many of the samples of one draw pass each question."""
    samples = given_structure(formula_makers()[name], n=MANY, seed=seed)
    report = boards.judged(samples, sets_of(), potentials=(), distributions=False)
    passed = {stage.name: stage.passed for stage in report.stages}
    kinds = np.bincount(report.values[KIND][report.values[KIND] >= 0].astype(int), minlength=4)
    hidden = report.values[HIDDEN]
    return {"n": report.n, "passed": passed, "kinds": kinds.tolist(),
            "hidden": len(np.unique(hidden[np.isfinite(hidden)]))}  # fmt: skip


def formula_makers() -> dict[str, Callable[[], Any]]:
    """Name -> what loads or makes it: models of formulas, and the rungs of formulas."""
    makers = {name: partial(imd.models.load, kind, variant=variant)
              for name, (kind, variant) in OF_FORMULAS.items()}  # fmt: skip
    for name, file in WRITERS.items():
        makers[name] = partial(formula_models.load, formula_models.checkpoint_path(file))
    for name in FORMULA_RUNGS:
        makers[name] = partial(formula_rung, name)
    return makers


@cache
def formula_rung(name: str) -> Any:
    """A sampler of formulas that learns nothing, on what these models learn from."""
    return baselines.ladder(formula_sets.compositions("icsd", split="train")[0])[name]


def given_structure(maker: Callable[[], Any], *, n: int = SOME, seed: int = SEED) -> Samples:
    """Its formulas as crystals."""
    made = maker().sample(n, seed=seed)
    return formula_templates().decode_formulas(made.counts)


@cache
def formula_templates() -> Transfer:
    """Training crystals of few sites, those near the hull first."""
    known = imd.datasets.load("oqmd_icsd").select(split="train", max_sites=FEW_SITES)
    first = np.argsort(known.table["energy_above_hull"].to_numpy(), kind="stable")
    no_genes = np.zeros((len(known), WIDTH), dtype=np.int64)
    return Transfer(known[first], no_genes, recorded()[1])


# ---- a folder each


def entry(
    table: str,
    name: str,
    title: str,
    made_by: str,
    learned_from: str,
    source: Source,
    *,
    weights: str = "",
    **more: str,
) -> None:
    """Samples and card of one entry, if it is not there."""
    folder = FOLDER / f"{table}-{slug(name)}"
    if (folder / CARD).exists():
        return
    command = f"chemistry {table}" if more else table
    start = time.process_time()
    samples = source()
    took = time.process_time() - start
    log = record.read(CHECKPOINTS / weights / "run.json") if weights else {"seconds": 0.0}
    card = {
        "name": name,
        "table": title,
        "made_by": made_by,
        "source": f"python experiments/leaderboard.py {command}",
        "learned_from": learned_from,
        "training_seconds": log.get("seconds", log.get("cpu_seconds")),
        "sampling_seconds": round(took, 2),
        **more,
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in card.items()]
    write_atomic(folder / SAMPLES, packed(samples))
    record.write_text(folder / CARD, "\n".join(lines) + "\n")


def slug(name: str) -> str:
    """A name as a folder has it."""
    return name.lower().replace(",", "").replace(" ", "-")


def packed(samples: Samples) -> bytes:
    """A zip file with the samples as extended XYZ, the same bytes for the same samples."""
    told = {"decoded_ok": samples.ok, "reason": samples.reasons}
    asked = {f"{files.ASKED}{name}": values for name, values in samples.asked.items()}
    content = BytesIO()
    with TemporaryDirectory() as folder, zipfile.ZipFile(content, "w") as archive:
        text = files.write(Path(folder) / "samples.extxyz", samples.crystals, **told, **asked)
        about = zipfile.ZipInfo("samples.extxyz")
        archive.writestr(about, text.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    return content.getvalue()


def judge() -> None:
    """Judge every entry that has no report."""
    print(boards.leaderboard(progress=False))


def expected() -> None:
    """What DFT is expected to say, anew from what the reports hold, where the calibration moved."""
    sets = cache(sets_of)
    for file in sorted(FOLDER.glob(f"*/{CARD}")):
        card = boards.read_card(file)
        for path in sorted(file.parent.rglob(boards.REPORT)):
            report = Report.from_json(path.read_text(encoding="utf-8"))
            samples = files.read(path.parent / SAMPLES)
            report = with_metals(report, samples.crystals.counts().numpy())
            report = expected_anew(report, samples, sets(card.chemistry, card.made))
            write_atomic(path, report.to_json().encode())


def with_metals(report: Report, counts: np.ndarray) -> Report:
    """The same, with whether each sample that was asked for a hull is of metals alone."""
    asked = report.facts["hull"] >= 0
    if not asked.any():
        return report
    metals = np.where(asked, calibration.metals_alone(counts), np.nan)
    return replace(report, values={**report.values, calibration.METALS: metals})


def expected_anew(report: Report, samples: Samples, sets: Sets) -> Report:
    """The same, with the expectations of today's calibration; what else they mean stays."""
    known = {"reference": sets.known, "training": sets.training}
    known = {kind: each for kind, each in known.items() if each is not None}
    protocol = JUDGED_BY[report.protocol]
    run = Run(samples, protocol, known, JUDGES, Workers(1), progress=False)
    run.facts, run.values = dict(report.facts), dict(report.values)
    run.seconds = dict.fromkeys(run.facts, 0.0)
    new = {each.name: each for each in expectations(run)}
    for each in (k for k in report.numbers if k.name in new):
        of = {key: new[each.name].definition[key] for key in ("calibrated", "coefficients")}
        new[each.name] = replace(new[each.name], definition={**each.definition, **of})
    told = tuple(new.get(each.name, each) for each in report.numbers)
    return replace(report, numbers=told)


def protocols() -> None:
    """The same samples by other protocols: one model, many shares."""
    jobs = [(protocol,) for protocol in PROTOCOLS]
    record.fill(RESULTS, ("protocol",), jobs, by_protocol, under="protocols")


def by_protocol(protocol: str) -> Row:
    """What one protocol says of the entry."""
    known = imd.datasets.load("oqmd_icsd", split="train")
    report = imd.judge.judge(
        files.read(FOLDER / ENTRY / SAMPLES), reference=known, protocol=protocol,
        distributions=False, cache=record.BUILD / "leaderboard",
    )  # fmt: skip
    numbers = {each.name: [each.value, each.low, each.high, each.n] for each in report.numbers}
    return rounded({"entry": ENTRY, "n": report.n, "numbers": numbers})


HELD = ((True,), (False,), (True, False))  # are they on the grid that CubicGAN writes?


def coverage() -> None:
    """Which held-out cubic ternaries have a sample near them, and which samples such a crystal."""
    jobs = [(each.parent.name,) for each in sorted(FOLDER.glob(f"cubic-*/{CARD}"))]
    record.fill(RESULTS, ("entry",), jobs, covered, under="coverage")


def covered(entry: str) -> Row:
    """By each run of an entry, and by all together; as CDVAE counts, and by one crystal in both."""
    files_of = [
        FOLDER / entry / SAMPLES,
        *sorted((FOLDER / entry).glob(f"{boards.RUNS}/{SAMPLES}")),
    ]
    crystals = [files.read(each).crystals for each in files_of]
    out: Row = {"each": [shares(some) for some in crystals], "together": None}
    if len(crystals) > 1:
        out["together"] = shares(CrystalBatch.cat(crystals))
    return rounded(out)


def shares(crystals: CrystalBatch) -> Row:
    """Recall and precision with their intervals and denominators, and recall of two parts."""
    made, out = distributions.fingerprints(crystals), {}
    held = dict(zip(("on the grid", "off the grid", "all"), map(of_held_out, HELD), strict=True))
    for way in ("cdvae", "one crystal"):
        how = {"same_crystal": way == "one crystal"}
        told = {part: distributions.coverage(made, each, **how) for part, each in held.items()}
        kept = {"recall": told["all"]["recall"], "precision": told["all"]["precision"]}
        kept |= {f"recall {part}": each["recall"] for part, each in told.items() if part != "all"}
        out[way] = {name: [k.value, k.low, k.high, k.n] for name, k in kept.items()}
    return out


@cache
def of_held_out(kinds: tuple[bool, ...]) -> distributions.Fingerprints:
    """Of real ternaries of the three groups that no entry was shown, by CubicGAN's grid or not."""
    wanted = {"split": ("val", "test"), "nelements": 3, "space_groups": list(SPACE_GROUPS)}
    held = imd.datasets.load("oqmd_icsd").select(**wanted).crystals
    on = np.isin(np.arange(len(held)), find_sites(held)[1])
    return distributions.fingerprints(held[np.flatnonzero(np.isin(on, kinds))])


TASKS = (cubic, runs, chemistry, formulas, formula_counts, judge, expected, protocols, coverage)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
