"""Train the MatGANs that come with the book, judge them, and record what the chapter compares.

    python experiments/matgan.py train VARIANT [STEPS]  weights and run.json
    python experiments/matgan.py judge VARIANT [N]      verdicts, into run.json
    python experiments/matgan.py million VARIANT [N]    two million: time, memory
    python experiments/matgan.py baselines [N]          the same without a GAN
    python experiments/matgan.py losses                 plain, clipped, penalty
    python experiments/matgan.py draws                  all at once, or in turn
    python experiments/matgan.py autoencoder            the twin, with its weights
    python experiments/matgan.py condition              asked for a property

VARIANT is one of `imd_helpers.models.matgan.VARIANTS`; `judge` and `million` come after `train`.
What was interrupted goes on where it stopped. Everything learns from training splits only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import imd_helpers as imd
from imd_helpers.crystals.compositions import first_rows, member
from imd_helpers.crystals.samples import Samples, Stream
from imd_helpers.descriptors.composition_matrix import CompositionMatrix
from imd_helpers.judge import PROTOCOLS, Report
from imd_helpers.judge import charge as composition
from imd_helpers.judge.compositions import n_elements
from imd_helpers.models import formula_models, formula_sets, matgan
from imd_helpers.models.formula_baselines import RandomFormulas, SubstitutedFormulas
from imd_helpers.models.formula_predictor import FormulaPredictor
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError, device_name

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "data" / "checkpoints" / "matgan"
SEED, N_JUDGED, N_MILLION, POINTS = 2022, 200_000, 2_000_000, 40
SETTINGS = (("icsd24", True), ("icsd24", False), ("smact14", False))  # states, alloys pass
LOSS_CASES: dict[str, dict[str, Any]] = {
    "plain": {"loss": "plain"},
    "clipped": {"loss": "clipped"},
    "penalty": {"loss": "penalty"},
    "penalty, no norm": {"loss": "penalty", "norm_in_critic": False},
    "penalty, no norm, usual weights": {
        **{"loss": "penalty", "norm_in_critic": False, "normal_weights": False},
        **{"lr_critic": 1e-3},
    },
}
LOSS_STEPS, LOSS_SEEDS, LOSS_WIDTH = 200, 3, 1 / 8
TWIN = matgan.PAPER.but(width=1 / 8)
TWIN_EPOCHS, TWIN_BATCH, TWIN_RATE = 10, 64, 3e-3
SMALL = {"width": 1 / 4, "steps": 900, "ema": 0.99, "log_every": 45}
WASSERSTEIN = {
    **{"loss": "penalty", "counts": False, "dropout": 0.0, "entropy": 0.0},
    **{"weight_decay_critic": 0.0, "lr_critic": 3e-4},
}
BY_HEART = {"counts": False, "dropout": 0.0, "weight_decay_critic": 0.0}
DRAW_CASES: dict[str, dict[str, Any]] = {  # what differs from `fixed`
    "at once, path": {**WASSERSTEIN, "network": "dense", "gradient": "path"},
    "in turn, path": {**WASSERSTEIN, "gradient": "path"},
    "in turn, score": WASSERSTEIN,
    "in turn, log ratio": BY_HEART,
    "in turn, log ratio, forgetful": {},
    "no bonus": {"entropy": 0.0},
    "threefold bonus": {"entropy": 0.3},
}
DRAWN, N_DRAWN = ((900, 0), (900, 1), (900, 2), (2_000, 0)), 20_000  # steps and seeds
ASKED = {  # eV/atom, eV
    "energy": [-4.0, -3.0, -2.0, -1.0, 0.0],
    "gap": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
}
N_ASKED, CONDITION_SEEDS, CONTROL_SEEDS = 2_000, 3, 1
Row = dict[str, Any]


# ---- files


def folder(variant: str) -> Path:
    """Where a variant's files are."""
    return HERE.parent / f"matgan-{variant}"


def write(path: Path, record: Any) -> None:
    """Write JSON in one go."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
    print(f"wrote {path.parent.name}/{path.name}")


def read(path: Path) -> Row:
    """Read JSON; an empty record where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def rows(table: Any) -> list[Row]:
    """A table as plain numbers."""
    return json.loads(table.reset_index().to_json(orient="records", double_precision=6))


# ---- training


def train(variant: str, steps: str = "") -> None:
    """Train one variant at the profile `full`."""
    matgan.train(
        variant,
        profile="full",
        folder=folder(variant),
        resume=True,
        keep=imd.judge.charge_neutral if variant == "neutral" else None,
        changes={"steps": int(steps)} if steps else None,
    )
    (folder(variant) / "training.safetensors").unlink()  # not committed


# ---- verdicts


def training_set(variant: str) -> np.ndarray:
    """(n, 119) counts of what a variant learnt from."""
    counts, _ = formula_sets.compositions(matgan.VARIANTS[variant].data)
    return counts[imd.judge.charge_neutral(counts)] if variant == "neutral" else counts


def left_out(variant: str) -> np.ndarray:
    """(n, 119) counts of the other two splits of its set, by the same rule."""
    role = matgan.VARIANTS[variant].data
    parts = [formula_sets.compositions(role, split=split)[0] for split in ("val", "test")]
    counts = np.concatenate(parts)
    return counts[imd.judge.charge_neutral(counts)] if variant == "neutral" else counts


def shares(counts: np.ndarray) -> list[Row]:
    """How many of (n, 119) counts are neutral, and balanced too, by each setting."""
    smact = composition.definition(oxidation_states="icsd24")["smact"]
    return [
        {
            "oxidation_states": states,
            "alloys": alloys,
            "smact": smact,
            "n": len(counts),
            **{
                name: int(
                    imd.judge.charge_neutral(
                        counts, oxidation_states=states, pauling=pauling, alloys=alloys
                    ).sum()
                )
                for name, pauling in (("neutral", False), ("balanced", True))
            },
        }
        for states, alloys in SETTINGS
    ]


def mix(counts: np.ndarray) -> dict[str, int]:
    """How many compositions have 2, 3, … elements."""
    kinds, n = np.unique(np.count_nonzero(counts, axis=1), return_counts=True)
    return {str(k): int(m) for k, m in zip(kinds, n, strict=True)}


def by_formulas(samples: Any, training: np.ndarray, **options: Any) -> Report:
    """The judge's verdicts on compositions."""
    return imd.judge.judge(samples, protocol="formulas", training=training, **options)


def yes(made: Report, fact: str) -> np.ndarray:
    """(n,) bool, the answer to one question."""
    return made.facts[fact] == 1


def settings_of(made: Report) -> Row:
    """What charge balance was decided by, and the seed."""
    asked = made.definition["charge balanced"]
    return {**{key: asked[key] for key in ("oxidation_states", "alloys", "smact")}, "seed": SEED}


def strictly(made: Report, training: np.ndarray) -> Report:
    """The same samples, metals alone held to the rule too, as in the years of the paper."""
    protocol = dataclasses.replace(PROTOCOLS["formulas"], alloys=False)
    return imd.judge.judge(made.samples, protocol=protocol, training=training)


def verdicts(made: Report, training: np.ndarray, hidden: np.ndarray) -> Row:
    """Everything that is recorded of one set of samples."""
    counts, decoded = made.samples.counts, yes(made, "decoded")
    distinct = counts[yes(made, "unique")]
    return {
        "n": made.n,
        "settings": settings_of(made),
        "funnel": rows(made.table),
        "funnel_without_alloys": rows(strictly(made, training).table),
        "decoded": int(yes(made, "decoded").sum()),
        "distinct": len(distinct),
        "distinct_by_elements": mix(distinct),
        "shares_of_samples": shares(counts[decoded]),
        "shares_of_distinct": shares(distinct),
        "uniqueness": rows(imd.judge.uniqueness(made, POINTS)),
        "recovered": {
            "training": rows(imd.judge.recovery(made, training)),
            "left_out": rows(imd.judge.recovery(made, hidden)),
        },
        "new": rows(imd.judge.new_by_elements(made, training)),
    }


def judged(model: Any, variant: str, n: int, *, workers: int = 1, name: str = "") -> Row:
    """Verdicts on n samples of a model; finished pieces wait beside its weights until all are."""
    pieces = folder(variant) / "pieces"
    training = training_set(variant)
    started = time.perf_counter()
    made = by_formulas(
        Stream(model, n, seed=SEED),
        training,
        workers=workers,
        cache=pieces,
        progress=True,
        name=name or variant,
    )
    seconds = round(time.perf_counter() - started, 1)
    record = {**verdicts(made, training, left_out(variant)), "seconds": seconds}
    shutil.rmtree(pieces)
    return record


def judge(variant: str, n: str = "") -> None:
    """Verdicts on 200,000 samples, into run.json; then the card."""
    if matgan.VARIANTS[variant].condition:
        raise InputError(f"{variant} needs a condition: use the command `condition`")
    path = folder(variant) / "run.json"
    run = json.loads(path.read_text())
    model = imd.models.load("matgan", variant=variant)
    run["judged"] = judged(model, variant, int(n or N_JUDGED))
    write(path, run)
    card(variant)


def million(variant: str, n: str = "") -> None:
    """Two million samples end to end with two processes: time, memory, uniqueness, novelty."""
    started = time.perf_counter()
    model = imd.models.load("matgan", variant=variant)
    training = training_set(variant)
    stream = Stream(model, int(n or N_MILLION), seed=SEED)
    made = by_formulas(stream, training, workers=2, progress=True)
    first, balanced = yes(made, "unique"), yes(made, "charge balanced")
    new = first & yes(made, "novel")
    seconds = time.perf_counter() - started
    kib = {
        who: resource.getrusage(what).ru_maxrss
        for who, what in (("parent", resource.RUSAGE_SELF), ("child", resource.RUSAGE_CHILDREN))
    }
    path = folder(variant) / "run.json"
    run = json.loads(path.read_text())
    run["million"] = {
        "n": made.n,
        "workers": 2,
        "seconds": round(seconds, 1),
        "peak_gb": {
            "parent": round(kib["parent"] / 2**20, 3),
            "largest_child": round(kib["child"] / 2**20, 3),
            "at_most": round((kib["parent"] + 2 * kib["child"]) / 2**20, 3),  # all three at once
        },
        "device": device_name(),
        "decoded": int(yes(made, "decoded").sum()),
        "distinct": int(first.sum()),
        "distinct_balanced": int((first & balanced).sum()),
        "distinct_new": int(new.sum()),
        "distinct_new_balanced": int((new & balanced).sum()),
        "settings": settings_of(made),
        "uniqueness": rows(imd.judge.uniqueness(made, POINTS)),
        "recovered": {
            "training": rows(imd.judge.recovery(made, training)),
            "left_out": rows(imd.judge.recovery(made, left_out(variant))),
        },
        "new": rows(imd.judge.new_by_elements(made, training)),
    }
    write(path, run)
    card(variant)


# ---- without a GAN


def in_pieces(maker: Any, n: int, size: int = 20_000) -> Samples:
    """n compositions of a sampler, made in parts with a seed each."""
    return Samples.cat(
        [maker.sample(min(size, n - start), seed=SEED + start) for start in range(0, n, size)]
    )


def baselines(n: str = "") -> None:
    """The same verdicts for samplers without a GAN, and the shares of the training sets."""
    path = HERE / "baselines.json"
    record = read(path)
    total = int(n or N_JUDGED)
    training, hidden = training_set("fixed"), left_out("fixed")
    makers: dict[str, Callable[[], Any]] = {
        "random": lambda: RandomFormulas(training),
        "random, balanced": lambda: RandomFormulas(training, accept=imd.judge.charge_neutral),
        "substitution": lambda: SubstitutedFormulas(training),
        "RNN": lambda: formula_models.load(formula_models.checkpoint_path("rnn")),
    }
    for name, maker in makers.items():
        if record.get("samplers", {}).get(name, {}).get("n") == total:
            continue
        made = by_formulas(in_pieces(maker(), total), training, name=name)
        record.setdefault("samplers", {})[name] = verdicts(made, training, hidden)
        write(path, record)
    record["training_sets"] = {
        variant: {
            "n": len(counts),
            "by_elements": mix(counts),
            "shares": shares(counts),
            "left_out": len(left_out(variant)),
        }
        for variant in ("fixed", "neutral", "oqmd", "mp")
        for counts in (training_set(variant),)
    }
    write(path, record)
    card_of_records()


# ---- losses of the published critic


def losses() -> None:
    """Three losses, and the published critic without its two oddities: small width, few steps."""
    path = HERE / "losses.json"
    about = {"steps": LOSS_STEPS, "width": LOSS_WIDTH, "device": device_name()}
    record = read(path) or {**about, "runs": []}
    done = {(row["case"], row["seed"]) for row in record["runs"]}
    training, _ = formula_sets.compositions("icsd")
    for case, changes in LOSS_CASES.items():
        for seed in range(LOSS_SEEDS):
            if (case, seed) not in done:
                result = one_loss(changes, seed, training)
                record["runs"].append({"case": case, "seed": seed, **result})
                write(path, record)
    card_of_records()


def one_loss(changes: Row, seed: int, training: np.ndarray) -> Row:
    """Train once; the curve, the critic's slope, and what 2,000 samples are worth."""
    config = matgan.PAPER.but(
        width=LOSS_WIDTH, steps=LOSS_STEPS, log_every=10, seed=seed, **changes
    )
    model = matgan.MatGan(config, seed=seed)
    game = matgan.MatGame(model, training)
    slope = [slope_of(game)]
    history = fit(game, config.train, progress=False)
    slope.append(slope_of(game))
    made = by_formulas(model.sample(2_000, seed=SEED), training)
    return {
        "distance": [row["critic_distance"] for row in history.rows],
        "penalty": [row.get("critic_penalty") for row in history.rows],
        "slope_before_and_after": slope,
        "decoded": int(yes(made, "decoded").sum()),
        "balanced": int(yes(made, "charge balanced").sum()),
        "distinct": int(yes(made, "unique").sum()),
        "n": made.n,
    }


def slope_of(game: matgan.MatGame) -> float:
    """Median slope of the critic between real and generated samples, 256 points."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        slopes = []
        for _ in range(256 // game.model.config.batch):
            real, condition = game._real()
            with torch.no_grad():
                fake = game._fake(condition)
            mixed = torch.lerp(real, fake, torch.rand(len(real), 1, 1)).requires_grad_(True)
            (grad,) = torch.autograd.grad(game._scorer(condition)(mixed).sum(), mixed)
            slopes.append(grad.flatten(1).norm(dim=1))
    return float(torch.cat(slopes).median())


# ---- the autoencoder twin


def autoencoder() -> None:
    """Train the twin with the Dice loss, and with squares; which held-out formulas come back."""
    path = HERE / "autoencoder.json"
    record = read(path) or {
        "width": TWIN.width,
        "latent": TWIN.latent,
        "epochs": TWIN_EPOCHS,
        "batch": TWIN_BATCH,
        "learning_rate": TWIN_RATE,
        "device": device_name(),
    }
    for name, loss in (("dice", matgan.dice_loss), ("squares", nn.functional.mse_loss)):
        if name not in record:
            record[name] = one_twin(loss)
            write(path, record)
    card_of_records()


def one_twin(loss: Callable[..., torch.Tensor]) -> Row:
    """Train one autoencoder on the ICSD role; exact reconstructions of both splits."""
    training, _ = formula_sets.compositions("icsd")
    started = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = matgan.Autoencoder(TWIN)
        adam = torch.optim.Adam(model.parameters(), TWIN_RATE)
        steps = TWIN_EPOCHS * (len(training) // TWIN_BATCH)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        curve = []
        for _ in range(TWIN_EPOCHS):
            order, total = torch.randperm(len(training)).numpy(), 0.0
            for batch in np.array_split(order, len(training) // TWIN_BATCH):
                matrix = CompositionMatrix.matrices(training[batch])
                value = loss(model(matrix), matrix)
                adam.zero_grad(set_to_none=True)
                value.backward()
                adam.step()
                cosine.step()
                total += float(value.detach()) / (len(training) // TWIN_BATCH)
            curve.append(total)
            print(f"epoch {len(curve)}: {total:.4f}")
    hidden = left_out("fixed")
    sets = {"training": training[:: len(training) // len(hidden)], "left_out": hidden}
    record = {name: twice(model, counts) for name, counts in sets.items()}
    seconds = round(time.process_time() - started, 1)
    return {"curve": curve, "cpu_seconds": seconds, **record}


def twice(model: matgan.Autoencoder, counts: np.ndarray) -> list[Row]:
    """Exact reconstructions by number of elements, by the published decoding rule."""
    same = (decode_twin(model, counts) == counts).all(1)
    kinds = np.count_nonzero(counts, axis=1)
    return [
        {"elements": int(k), "n": int((kinds == k).sum()), "exact": int(same[kinds == k].sum())}
        for k in np.unique(kinds)
    ]


@torch.no_grad()
def decode_twin(model: matgan.Autoencoder, counts: np.ndarray) -> np.ndarray:
    """(n, 119) counts after encoding and decoding; zeros where no formula comes back."""
    model.eval()
    parts = [
        CompositionMatrix().decode(model(CompositionMatrix.matrices(part))).counts
        for part in np.array_split(counts, -(-len(counts) // 1024))
    ]
    return np.concatenate(parts)


# ---- all elements at once, or one after the other


def draws() -> None:
    """Drawing generators, small and short, two at once: what 20,000 samples are worth."""
    path = HERE / "draws.json"
    record = read(path) or {"width": SMALL["width"], "device": device_name(), "runs": []}
    done = {(row["case"], row["steps"], row["seed"]) for row in record["runs"]}
    todo = [(case, *run) for run in DRAWN for case in DRAW_CASES if (case, *run) not in done]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for row in pool.imap(one_draw, todo):
            record["runs"].append(row)
            write(path, record)
    card_of_records()


def one_draw(which: tuple[str, int, int]) -> Row:
    """Train one small generator of a case, for some steps from a seed, and judge it."""
    torch.set_num_threads(1)
    case, steps, seed = which
    changes = {**SMALL, **DRAW_CASES[case], "steps": steps}
    training, hidden = training_set("fixed"), left_out("fixed")
    started = time.process_time()
    model, _ = matgan.train("fixed", profile="full", changes=changes, seed=seed, progress=False)
    made = by_formulas(Stream(model, N_DRAWN, seed=SEED), training)
    counts, decoded = made.samples.counts, yes(made, "decoded")
    kinds = np.bincount(n_elements(counts), minlength=9)
    score = {
        name: scores(model, counts)
        for name, counts in (
            ("training", training[:: len(training) // len(hidden)]),
            ("left_out", hidden),
            ("generated", counts[decoded][: len(hidden)]),
        )
    }
    return {
        "case": case,
        "steps": steps,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - started, 1),
        "n": made.n,
        "decoded_by_elements": {str(k): int(m) for k, m in enumerate(kinds) if m},
        "shares_of_distinct": shares(counts[yes(made, "unique")]),
        "funnel": rows(made.table),
        "scored_above_generated": {
            name: above(score[name], score["generated"]) for name in ("training", "left_out")
        },
    }


@torch.no_grad()
def scores(model: matgan.MatGan, counts: np.ndarray) -> np.ndarray:
    """(n,) scores of the critic."""
    model.critic.eval()
    matrix = CompositionMatrix.matrices(counts)
    return torch.cat([model.critic(part) for part in matrix.split(1024)])[:, 0].numpy()


def above(a: np.ndarray, b: np.ndarray) -> float:
    """How often a random one of a exceeds a random one of b; ties count half."""
    ordered = np.sort(b)
    places = np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")
    return float(places.mean() / (2 * len(b)))


# ---- asked for a property


def condition() -> None:
    """Small models asked for a property, two at once, and what a referee finds.

    The control learns the same formulas with the same values, but each with another's.
    """
    path = HERE / "condition.json"
    record = read(path) or {**SMALL, "asked_each": N_ASKED, "device": device_name(), "runs": []}
    done = {(row["variant"], row["shuffled"], row["seed"]) for row in record["runs"]}
    for variant in ASKED:
        name = matgan.VARIANTS[variant].condition
        judge_ = referee(name)
        hidden, values = (
            np.concatenate(x) for x in zip(*(valued(name, s) for s in ("val", "test")), strict=True)
        )
        found = judge_.predict(hidden)
        record.setdefault("referee", {})[variant] = {
            "n": len(values),
            "mean_error": float(np.abs(found - values).mean()),
            "slope": float(np.polyfit(values, found, 1)[0]),
        }
    seeds = [(False, seed) for seed in range(CONDITION_SEEDS)]
    seeds += [(True, seed) for seed in range(CONTROL_SEEDS)]
    todo = [(v, *which) for v in ASKED for which in seeds if (v, *which) not in done]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for row in pool.imap(one_condition, todo):
            record["runs"].append(row)
            write(path, record)
    write(path, record)
    card_of_records()


def one_condition(which: tuple[str, bool, int]) -> Row:
    """Train one conditional model, ask it, and let the referee answer."""
    torch.set_num_threads(1)
    variant, shuffled, seed = which
    config = matgan.VARIANTS[variant]
    judge_ = referee(config.condition)
    started = time.process_time()
    model, history = asked_model(config, shuffled=shuffled, seed=seed)
    if seed == 0 and not shuffled:
        model.save(HERE / f"condition-{variant}.safetensors")
    return {
        "variant": variant,
        "shuffled": shuffled,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - started, 1),
        "distance": [row["critic_distance"] for row in history.rows],
        "obtained": [obtained(model, value, judge_) for value in ASKED[variant]],
    }


def asked_model(
    config: matgan.MatGanConfig, *, shuffled: bool, seed: int
) -> tuple[matgan.MatGan, Any]:
    """A small conditional model of the training split, with its values in order or shuffled."""
    counts, values = valued(config.condition, "train")
    if shuffled:
        values = np.random.default_rng(seed).permutation(values)
    config = config.but(**SMALL, seed=seed)
    model = matgan.MatGan(config, scale=(values.mean(), values.std()), seed=seed)
    history = fit(matgan.MatGame(model, counts, values), config.train, progress=False)
    assert history.ema is not None
    model.generator.load_state_dict(history.ema.state_dict())
    return model, history


def valued(condition: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Compositions of the ICSD role with a property of each."""
    counts, values = formula_sets.compositions("icsd", split=split, value=condition)
    assert values is not None
    return counts, values


def referee(condition: str) -> FormulaPredictor:
    """Gradient boosting on OQMD formulas, none of which any conditional model has seen."""
    counts, values = formula_sets.compositions("oqmd", split="val", value=condition)
    assert values is not None
    fresh = ~member(counts, formula_sets.compositions("icsd")[0])
    return FormulaPredictor("trees").fit(counts[fresh].astype(np.int64), values[fresh])


def obtained(model: matgan.MatGan, value: float, judge_: FormulaPredictor) -> Row:
    """What a model makes when asked for one value: distinct formulas and the referee's values."""
    made = model.sample(N_ASKED, condition=value, seed=SEED).counts
    made = made[made.any(1)]
    distinct = made[first_rows(made)] if len(made) else made
    predicted = judge_.predict(distinct.astype(np.int64)) if len(distinct) else np.array([])
    return {
        "asked": value,
        "decoded": len(made),
        "distinct": len(distinct),
        "mean": float(predicted.mean()) if len(predicted) else None,
        "quartiles": np.quantile(predicted, [0.25, 0.5, 0.75]).tolist() if len(predicted) else None,
    }


# ---- cards


def percent(k: int, n: int) -> str:
    """A share with its 95 % interval."""
    low, high = (100 * float(end) for end in imd.judge.wilson(k, n))
    return f"{100 * k / n:.1f} % ({low:.1f} to {high:.1f})"


def card(variant: str) -> None:
    """The card of a checkpoint, every number taken from its run.json."""
    path = folder(variant) / "run.json"
    run = json.loads(path.read_text())
    config, train_, judged_ = run["config"], run["config"]["train"], run.get("judged")
    weights = path.with_name("model.safetensors")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    kept = ", those that are charge neutral and balanced" if run["kept_by"] else ""
    lines = [
        f"# MatGAN, variant `{variant}`",
        "",
        "Generator and critic of a GAN over compositions of 2 to 8 elements.",
        "",
        "- Source: Dan et al., npj Comput. Mater. 6 (2020) 84, and the code originofmatter/MatGAN, "
        "commit e36c744 (no licence). Re-implemented here, without weights, code or data of the "
        "authors.",
        f"- Trained on: {run['training_compositions']:,} compositions of the training split, role "
        f"`{config['data']}`{kept}.",
        f"- Network `{config['network']}`, width {config['width']:g}, batch {config['batch']}, "
        f"{train_['steps']:,} generator steps with {train_['critic_steps']} critic steps each, "
        f"learning rates {train_['lr_generator']:g} (generator) and {train_['lr_critic']:g}, "
        f"loss `{config['loss']}`.",
    ]
    if judged_:
        last = judged_["funnel"][-1]
        lines.append(
            f"- Of {judged_['n']:,} samples {percent(last['passed'], judged_['n'])} are decoded, "
            "charge balanced, unique and new, with the 95 % Wilson interval."
        )
    if "million" in run:
        m = run["million"]
        gb = m["peak_gb"]["at_most"]
        lines.append(
            f"- {m['n']:,} samples end to end: {m['seconds']:.0f} s with {m['workers']} processes, "
            f"at most {gb:.1f} GB; {m['distinct']:,} distinct, {m['distinct_new']:,} of them new."
        )
    lines += [
        "- Limits: a formula says nothing of structure or stability; smact's rules are no proof.",
        f"- Weights: half precision, SHA-256 begins {digest}. Licence: BSD-3-Clause; the data are "
        "CC-BY-4.0.",
        f"- Made by `python experiments/matgan.py train {variant} "
        f"{train_['steps']}`, then `judge`.",
    ]
    path.with_name("card.md").write_text("\n".join(lines) + "\n")


def card_of_records() -> None:
    """The card of the records in this folder."""
    lines = ["# Records of the chapter on MatGAN", ""]
    said = {
        "baselines.json": "samplers without a GAN under the same verdicts as the variants, and the "
        "charge-neutral and balanced shares of the training sets (`fixed` stands for the ICSD "
        "role).",
        "losses.json": f"the published networks at {LOSS_WIDTH:g} of their width, {LOSS_STEPS} "
        f"steps, {LOSS_SEEDS} seeds: plain, clipped and penalised loss; the penalty without batch "
        "norm in the critic; and that with torch's usual weights and a critic rate of 1e-3.",
        "autoencoder.json": f"the autoencoder twin at {TWIN.width:g} of the width, "
        f"{TWIN_EPOCHS} epochs on the ICSD role: exact reconstructions with the Dice loss "
        "and with squares.",
        "draws.json": "drawing generators, all elements at once or one after the other, with "
        "several critics and rewards, "
        f"at {SMALL['width']:g} of the width, after a short and a longer training.",
        "condition.json": "small conditional models asked for formation energies or band gaps, "
        "checked by a referee that shares no row with them; controls learnt shuffled values.",
    }
    lines += [f"- `{name}`: {text}" for name, text in said.items() if (HERE / name).exists()]
    lines += [
        "- Limits: small networks and short trainings; they show tendencies, not the best that "
        "each setting can do.",
        "- Licence: CC-BY-4.0, as the data; weights BSD-3-Clause.",
        "- Made by `experiments/matgan.py`.",
    ]
    (HERE / "card.md").write_text("\n".join(lines) + "\n")


COMMANDS: dict[str, Callable[..., None]] = {
    f.__name__: f for f in (train, judge, million, baselines, losses, draws, autoencoder, condition)
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
