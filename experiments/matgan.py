"""Train the MatGANs that come with the book, judge them, and record what the chapter compares.

    python experiments/matgan.py train VARIANT    weights and run.json
    python experiments/matgan.py judge VARIANT    the verdicts alone, once more
    python experiments/matgan.py seeds VARIANT    the verdicts on two more trainings
    python experiments/matgan.py million VARIANT  two million: time, memory
    python experiments/matgan.py baselines        the same without a GAN
    python experiments/matgan.py losses           plain, clipped, penalty
    python experiments/matgan.py draws            all at once, or in turn
    python experiments/matgan.py autoencoder      the twin
    python experiments/matgan.py condition        asked for a property, with weights

VARIANT is paper or fixed, of `matgan`, or icsd, neutral, oqmd or mp, of `sequence_gan`; the other
tasks come after `train`. What was interrupted goes on where it stopped. Everything learns from
training splits only.
"""

from __future__ import annotations

import dataclasses
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from record import Row, table_rows
from sklearn.metrics import roc_auc_score
from torch import nn

import imd_helpers as imd
from imd_helpers.baselines import RandomFormulas, ladder
from imd_helpers.baselines.formulas import holes
from imd_helpers.crystals.compositions import first_rows, member
from imd_helpers.crystals.samples import Samples, Stream
from imd_helpers.datasets import formula_sets
from imd_helpers.descriptors.composition_matrix import ELEMENTS, MAX_COUNT, CompositionMatrix
from imd_helpers.judge import PROTOCOLS, Report
from imd_helpers.judge import charge as composition
from imd_helpers.models import formula_models, matgan
from imd_helpers.models.matgan import MatGan
from imd_helpers.models.sequence_gan import SequenceGan, SequenceGanConfig
from imd_helpers.networks import fit, layers
from imd_helpers.networks.epochs import fit_epochs, seeded
from imd_helpers.networks.losses import slope
from imd_helpers.predictors import FormulaPredictor
from imd_helpers.runtime import device_name

HERE = record.CHECKPOINTS / "matgan"
SEED, N_JUDGED, N_MILLION, POINTS = 2022, 200_000, 2_000_000, 40
MORE_SEEDS = (1, 2)  # of the training, beside the 0 of the weights that are kept
OF_A_SEED = ("n", "funnel", "funnel_without_alloys", "distinct_by_elements", "recovered")
IN_ONE = 20_000  # samples of a baseline with one seed
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
DRAW_CASES: dict[str, dict[str, Any]] = {  # what differs from `icsd`
    "at once, path": {**WASSERSTEIN, "gradient": "path"},  # by `AtOnce`
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


def model_of(variant: str) -> type[MatGan | SequenceGan]:
    """MatGAN or the sequence model, whichever has the variant."""
    return MatGan if variant in MatGan.VARIANTS else SequenceGan


def folder(variant: str) -> Path:
    """Where a variant's files are."""
    return record.CHECKPOINTS / f"{model_of(variant).name}-{variant}"


def add(variant: str, **parts: Row) -> None:
    """Parts of a variant's run.json."""
    path = folder(variant) / "run.json"
    record.write(path, record.read(path) | parts)


# ---- training


def train(variant: str) -> None:
    """Train one variant, and judge it."""
    record.train(model_of(variant), variant)
    judge(variant)


# ---- verdicts


def compositions(variant: str, *splits: str) -> np.ndarray:
    """(n, 119) counts of some splits of a variant's set, by the rule of its training."""
    role = model_of(variant).VARIANTS[variant].data
    parts = [formula_sets.compositions(role, split=split)[0] for split in splits]
    counts = np.concatenate(parts)
    return counts[imd.judge.charge_neutral(counts)] if variant == "neutral" else counts


def sets_of(variant: str) -> tuple[np.ndarray, np.ndarray]:
    """What a variant learnt from, and the other two splits of its set."""
    return compositions(variant, "train"), compositions(variant, "val", "test")


def shares(counts: np.ndarray) -> list[Row]:
    """How many of (n, 119) counts are neutral, and balanced too, by each setting."""
    rows: list[Row] = []
    for states, alloys in SETTINGS:
        rule = {"oxidation_states": states, "alloys": alloys}
        smact = composition.definition(oxidation_states=states)["smact"]
        neutral, balanced = (
            int(imd.judge.charge_neutral(counts, pauling=pauling, **rule).sum())
            if len(counts)
            else 0
            for pauling in (False, True)
        )
        found = {"n": len(counts), "neutral": neutral, "balanced": balanced}
        rows.append(rule | {"smact": smact} | found)
    return rows


def by_elements(counts: np.ndarray) -> dict[str, int]:
    """How many compositions have 2, 3, … elements."""
    kinds, n = np.unique(np.count_nonzero(counts, axis=1), return_counts=True)
    return {str(k): int(m) for k, m in zip(kinds, n, strict=True)}


def judged(samples: Samples | Stream, training: np.ndarray, **options: Any) -> Report:
    """The judge's verdicts on compositions."""
    return imd.judge.judge(samples, protocol="formulas", training=training, **options)


def yes(made: Report, fact: str) -> np.ndarray:
    """(n,) bool, the answers to one question."""
    return made.facts[fact] == 1


def settings_of(made: Report) -> Row:
    """What charge balance was decided by, and the seed."""
    asked = made.definition["charge balanced"]
    return {**{key: asked[key] for key in ("oxidation_states", "alloys", "smact")}, "seed": SEED}


def verdicts(
    samples: Samples | Stream, training: np.ndarray, hidden: np.ndarray, **options: Any
) -> Row:
    """Judge samples, also with metals alone held to the rule, as in the years of the paper."""
    started = time.perf_counter()
    made = judged(samples, training, **options)
    seconds = round(time.perf_counter() - started, 1)
    rule = dataclasses.replace(PROTOCOLS["formulas"], alloys=False)
    strict = imd.judge.judge(made.samples, protocol=rule, training=training)
    distinct = made.samples.counts[yes(made, "unique")]
    return {
        "n": made.n,
        "settings": settings_of(made),
        "funnel": table_rows(made.table),
        "funnel_without_alloys": table_rows(strict.table),
        "decoded": int(yes(made, "decoded").sum()),
        "distinct": len(distinct),
        "distinct_by_elements": by_elements(distinct),
        "shares_of_samples": shares(made.samples.counts[yes(made, "decoded")]),
        "shares_of_distinct": shares(distinct),
        **curves(made, training, hidden),
        "seconds": seconds,
    }


def curves(made: Report, training: np.ndarray, hidden: np.ndarray) -> Row:
    """Uniqueness along the samples, what is recovered, and what is new."""
    known = {hole for row in training for hole in holes(row)}
    far = np.array([known.isdisjoint(holes(row)) for row in hidden])
    wanted = {"training": training, "left_out": hidden, "left_out_far": hidden[far]}
    return {
        "uniqueness": table_rows(imd.judge.uniqueness(made, POINTS)),
        "recovered": {k: table_rows(imd.judge.recovery(made, v)) for k, v in wanted.items()},
        "new": table_rows(imd.judge.new_by_elements(made, training)),
    }


def stream_of(variant: str, n: int) -> Stream:
    """Samples of a trained variant."""
    return Stream(imd.models.load(model_of(variant).name, variant=variant), n, seed=SEED)


def judge(variant: str) -> None:
    """Verdicts on 200,000 samples, into run.json; finished pieces wait beside the weights."""
    pieces, stream = folder(variant) / "pieces", stream_of(variant, N_JUDGED)
    found = verdicts(stream, *sets_of(variant), cache=pieces, progress=True, name=variant)
    add(variant, judged=found)
    shutil.rmtree(pieces)


def seeds(variant: str) -> None:
    """Verdicts on as many samples of two more trainings, into run.json; no weights are kept."""
    path, jobs = folder(variant) / "run.json", [(seed,) for seed in MORE_SEEDS]
    record.fill(path, ("seed",), jobs, partial(one_seed, variant), under="seeds")


def one_seed(variant: str, seed: int) -> Row:
    """Train once more, and judge."""
    model, history = record.train(model_of(variant), variant, seed=seed)
    found = verdicts(Stream(model, N_JUDGED, seed=SEED), *sets_of(variant), name=variant)
    last = history.rows[-1]["critic_distance"]
    return {"critic_distance": last, **{key: found[key] for key in OF_A_SEED}}


def million(variant: str) -> None:
    """Two million samples end to end with two processes: time, memory, uniqueness, novelty."""
    started = time.perf_counter()
    training, hidden = sets_of(variant)
    made = judged(stream_of(variant, N_MILLION), training, workers=2, progress=True)
    first, balanced = yes(made, "unique"), yes(made, "charge balanced")
    new = first & yes(made, "novel")
    seconds = time.perf_counter() - started
    parent, child = (
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    found = {
        "n": made.n,
        "workers": 2,
        "seconds": round(seconds, 1),
        "peak_gb": round(parent + 2 * child, 3),  # at most: all three at once
        "device": device_name(),
        "decoded": int(yes(made, "decoded").sum()),
        "distinct": int(first.sum()),
        "distinct_balanced": int((first & balanced).sum()),
        "distinct_new": int(new.sum()),
        "distinct_new_balanced": int((new & balanced).sum()),
        "settings": settings_of(made),
        **curves(made, training, hidden),
    }
    add(variant, million=found)


# ---- without a GAN


def baselines() -> None:
    """The same verdicts for samplers without a GAN, and the shares of the training sets."""
    training, hidden = sets_of("icsd")
    makers = {
        **ladder(training),
        "random, balanced": RandomFormulas(training, accept=imd.judge.charge_neutral),
        "RNN": formula_models.load(formula_models.checkpoint_path("rnn")),
    }
    found = {}
    for name, maker in makers.items():
        pieces = [maker.sample(IN_ONE, seed=SEED + k) for k in range(0, N_JUDGED, IN_ONE)]
        found[name] = verdicts(Samples.cat(pieces), training, hidden, name=name)
    sets = {}
    for variant in ("icsd", "neutral", "oqmd", "mp"):
        counts, hidden = sets_of(variant)
        sets[variant] = {
            "n": len(counts),
            "by_elements": by_elements(counts),
            "shares": shares(counts),
            "left_out": len(hidden),
        }
    record.write(HERE / "baselines.json", {"samplers": found, "training_sets": sets})


# ---- losses of the published critic


def losses() -> None:
    """Three losses, and the published critic without its two oddities: small width, few steps."""
    about = {"steps": LOSS_STEPS, "width": LOSS_WIDTH, "device": device_name()}
    jobs = [(case, seed) for case in LOSS_CASES for seed in range(LOSS_SEEDS)]
    record.fill(HERE / "losses.json", ("case", "seed"), jobs, one_loss, about=about)


def one_loss(case: str, seed: int) -> Row:
    """Train once; the curve, the critic's slope, and what 2,000 samples are worth."""
    training, _ = formula_sets.compositions("icsd")
    config = matgan.PAPER.but(
        width=LOSS_WIDTH, steps=LOSS_STEPS, log_every=10, seed=seed, **LOSS_CASES[case]
    )
    model = MatGan.from_data(training, config, seed=seed)
    slopes = [slope_of(model)]
    history = fit(model, config.train, progress=False)
    slopes.append(slope_of(model))
    made = judged(model.sample(2_000, seed=SEED), training)
    return {
        "distance": [row["critic_distance"] for row in history.rows],
        "penalty": [row.get("critic_penalty") for row in history.rows],
        "slope_before_and_after": slopes,
        "decoded": int(yes(made, "decoded").sum()),
        "balanced": int(yes(made, "charge balanced").sum()),
        "distinct": int(yes(made, "unique").sum()),
        "n": made.n,
    }


def slope_of(model: MatGan) -> float:
    """Median slope of the critic between real and generated samples, 256 points."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        slopes = []
        for _ in range(256 // model.config.batch):
            real, _ = model.real()
            with torch.no_grad():
                fake = model.fake()
            points = torch.lerp(real, fake, torch.rand(len(real), 1, 1))
            gradient = slope(model.critic, points).detach()
            slopes.append(gradient.flatten(1).norm(dim=1))
    return float(torch.cat(slopes).median())


# ---- the autoencoder twin


def autoencoder() -> None:
    """Train the twin with the Dice loss, and with squares; which held-out formulas come back."""
    about = {
        "width": TWIN.width,
        "latent": TWIN.latent,
        "epochs": TWIN_EPOCHS,
        "batch": TWIN_BATCH,
        "learning_rate": TWIN_RATE,
        "device": device_name(),
        "dice": one_twin(matgan.dice_loss),
        "squares": one_twin(nn.functional.mse_loss),
    }
    record.write(HERE / "autoencoder.json", about)


class Autoencoder(nn.Module):
    """The autoencoder beside MatGAN: the critic's layers, a latent vector, the generator's layers.

    The paper's argument: what a decoder of this shape cannot write, the generator will not write.
    """

    def __init__(self, config: matgan.MatGanConfig) -> None:
        super().__init__()
        self.encoder = matgan.Critic(config.but(norm_in_critic=True))
        self.encoder.score = nn.Linear(self.encoder.n_features, config.latent)
        self.decoder = matgan.Generator(config)

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        """(batch, 85, 8) to (batch, 85, 8) values between 0 and 1."""
        return self.decoder(self.encoder(matrix))


def one_twin(loss: Callable[..., torch.Tensor]) -> Row:
    """Train one autoencoder on the ICSD role; exact reconstructions of both splits."""
    training, hidden = sets_of("icsd")
    steps = len(training) // TWIN_BATCH  # of an epoch
    started = time.process_time()

    def batches() -> Iterator[tuple[torch.Tensor, int]]:
        for rows in np.array_split(torch.randperm(len(training)).numpy(), steps):
            yield CompositionMatrix.matrices(training[rows]), 1

    def terms(matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": loss(model(matrix), matrix)}

    torch.set_flush_denormal(True)  # values near 0 of the Dice loss slow a step tenfold
    with seeded(0):
        model = Autoencoder(TWIN)
        rows = fit_epochs(
            model, batches, terms, epochs=TWIN_EPOCHS, lr=TWIN_RATE, falling=TWIN_EPOCHS * steps
        )
    same = {
        "training": twice(model, training[:: len(training) // len(hidden)]),
        "left_out": twice(model, hidden),
    }
    curve = [row["loss"] for row in rows]
    return {"curve": curve, "cpu_seconds": round(time.process_time() - started, 1), **same}


@torch.no_grad()
def twice(model: Autoencoder, counts: np.ndarray) -> list[Row]:
    """Exact reconstructions by number of elements, by the published decoding rule."""
    model.eval()
    parts = np.array_split(counts, -(-len(counts) // 1024))
    back = [CompositionMatrix().decode(model(CompositionMatrix.matrices(part))) for part in parts]
    same = (Samples.cat(back).counts == counts).all(1)
    kinds = np.count_nonzero(counts, axis=1)
    return [
        {"elements": int(k), "n": int((kinds == k).sum()), "exact": int(same[kinds == k].sum())}
        for k in np.unique(kinds)
    ]


# ---- all elements at once, or one after the other


def draws() -> None:
    """Drawing generators, small and short, two at once: what 20,000 samples are worth."""
    jobs = [(case, *run) for run in DRAWN for case in DRAW_CASES]
    about = {"width": SMALL["width"], "device": device_name()}
    keys = ("case", "steps", "seed")
    record.fill(HERE / "draws.json", keys, jobs, one_draw, about=about, processes=2)


def one_draw(case: str, steps: int, seed: int) -> Row:
    """Train one small generator of a case, for some steps from a seed, and judge it."""
    changes = {**SMALL, **DRAW_CASES[case], "steps": steps}
    training, hidden = sets_of("icsd")
    started = time.process_time()
    kind = AtOnce if case.startswith("at once") else SequenceGan
    model, _ = kind.train("icsd", profile="full", changes=changes, seed=seed, progress=False)
    made = judged(Stream(model, N_DRAWN, seed=SEED), training)
    counts = made.samples.counts
    score = {
        "training": scores(model, training[:: len(training) // len(hidden)]),
        "left_out": scores(model, hidden),
        "generated": scores(model, counts[yes(made, "decoded")][: len(hidden)]),
    }
    return {
        "cpu_seconds": round(time.process_time() - started, 1),
        "n": made.n,
        "decoded_by_elements": by_elements(counts),  # 0 where there is no formula
        "shares_of_distinct": shares(counts[yes(made, "unique")]),
        "funnel": table_rows(made.table),
        "scored_above_generated": {
            name: above(score[name], score["generated"]) for name in ("training", "left_out")
        },
    }


class AtOnce(SequenceGan):
    """The sequence model with another generator: all rows are drawn at once."""

    def build(self) -> dict[str, nn.Module]:
        """The generator that draws at once, and the critic of the sequence model."""
        critic = super().build()["critic"]
        return {"generator": DrawingGenerator(self.config), "critic": critic}


class DrawingGenerator(nn.Module):
    """Noise to a matrix whose rows are drawn all at once."""

    def __init__(self, config: SequenceGanConfig) -> None:
        super().__init__()
        width = config.channels(256)
        rows = len(ELEMENTS) * (MAX_COUNT + 1)
        self.body = layers.mlp(
            [config.latent, width, 2 * width, 2 * width, rows], activation=nn.ReLU()
        )
        bias = self.body[-1].bias.data.view(len(ELEMENTS), MAX_COUNT + 1)
        bias.zero_()
        bias[:, 0] = 4.0  # start near 12 elements a sample, not near 75

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """(batch, latent) to (batch, 85, 8): zeros and ones, with the softmax's gradient."""
        logits = self.body(noise).view(-1, len(ELEMENTS), MAX_COUNT + 1)
        return layers.draw(logits)[:, :, 1:]


@torch.no_grad()
def scores(model: SequenceGan, counts: np.ndarray) -> np.ndarray:
    """(n,) scores of the critic."""
    model.critic.eval()
    matrix = CompositionMatrix.matrices(counts)
    return torch.cat([model.critic(part) for part in matrix.split(1024)])[:, 0].numpy()


def above(a: np.ndarray, b: np.ndarray) -> float:
    """How often a random one of a exceeds a random one of b; ties count half."""
    return float(roc_auc_score(np.arange(len(a) + len(b)) < len(a), np.concatenate([a, b])))


# ---- asked for a property


def condition() -> None:
    """Small models asked for a property, two at once, and what a referee finds."""
    about = {
        **SMALL,
        "asked_each": N_ASKED,
        "device": device_name(),
        "referee": {variant: error_of_referee(variant) for variant in ASKED},
    }
    seeds = [(False, seed) for seed in range(CONDITION_SEEDS)]
    seeds += [(True, seed) for seed in range(CONTROL_SEEDS)]
    jobs = [(variant, *which) for variant in ASKED for which in seeds]
    keys = ("variant", "shuffled", "seed")
    record.fill(HERE / "condition.json", keys, jobs, one_condition, about=about, processes=2)


def error_of_referee(variant: str) -> Row:
    """Its predictions of compositions that nobody trained on."""
    name = SequenceGan.VARIANTS[variant].condition
    parts = [formula_sets.compositions("icsd", split=s, value=name) for s in ("val", "test")]
    hidden, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = referee(name).predict(hidden)
    return {
        "n": len(values),
        "mean_error": float(np.abs(found - values).mean()),
        "slope": float(np.polyfit(values, found, 1)[0]),
    }


def one_condition(variant: str, shuffled: bool, seed: int) -> Row:
    """Train one conditional model, ask it, and let the referee answer."""
    name = SequenceGan.VARIANTS[variant].condition
    started = time.process_time()
    model, history = (Shuffled if shuffled else SequenceGan).train(
        variant,
        profile="full",
        changes=SMALL,
        folder=None if shuffled or seed else folder(variant),
        seed=seed,
        progress=False,
    )
    (folder(variant) / "training.safetensors").unlink(missing_ok=True)
    return {
        "cpu_seconds": round(time.process_time() - started, 1),
        "distance": [row["critic_distance"] for row in history.rows],
        "obtained": [obtained(model, value, referee(name)) for value in ASKED[variant]],
    }


class Shuffled(SequenceGan):
    """Learns the same formulas with the same values, but each with another's."""

    @classmethod
    def read(cls, config: SequenceGanConfig, split: str | None = "train") -> Samples:
        """Compositions, with the value of another."""
        data = super().read(config, split)
        order = np.random.default_rng(config.train.seed).permutation(len(data))
        return Samples.of(data.counts, asked={k: v[order] for k, v in data.asked.items()})


@cache
def referee(condition: str) -> FormulaPredictor:
    """Gradient boosting on OQMD formulas, none of which any conditional model has seen."""
    counts, values = formula_sets.compositions("oqmd", split="val", value=condition)
    fresh = ~member(counts, compositions("icsd", "train"))
    return FormulaPredictor("trees").fit(counts[fresh].astype(np.int64), values[fresh])


def obtained(model: SequenceGan, value: float, judge_: FormulaPredictor) -> Row:
    """What a model makes when asked for one value: distinct formulas and the referee's values."""
    made = model.sample(N_ASKED, condition={model.config.condition: value}, seed=SEED).valid()
    distinct = made[first_rows(made)] if len(made) else made
    predicted = judge_.predict(distinct.astype(np.int64)) if len(distinct) else np.array([])
    return {
        "asked": value,
        "decoded": len(made),
        "distinct": len(distinct),
        "mean": float(predicted.mean()) if len(predicted) else None,
        "quartiles": np.quantile(predicted, [0.25, 0.5, 0.75]).tolist() if len(predicted) else None,
    }


TASKS = (train, judge, seeds, million, baselines, losses, draws, autoencoder, condition)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
