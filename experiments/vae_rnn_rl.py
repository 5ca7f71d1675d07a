"""Train what the chapter on VAE, RNN and reinforcement learning loads, and measure the policies.

    python experiments/vae_rnn_rl.py networks   weights of the VAE, the RNN and three policies; in
                                                run.json settings, curves, and what each policy
                                                writes, for five seeds; four minutes of one core
    python experiments/vae_rnn_rl.py seeds      what VAE and RNN of three trainings write, into
                                                seeds.json; resumable

Weights of further trainings are not kept.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable

import numpy as np
import record
import torch
from record import Row

import imd_helpers as imd
from imd_helpers.crystals import compositions
from imd_helpers.descriptors.composition_matrix import CompositionMatrix
from imd_helpers.models import formula_models as fm
from imd_helpers.models import formula_tokens as ft
from imd_helpers.predictors import FormulaPredictor

VAE, BETA = {"epochs": 30, "batch": 256, "lr": 3e-3, "seed": 0}, 0.1
RNN = {"epochs": 20, "batch": 256, "lr": 2e-3, "seed": 0}

HERE = record.CHECKPOINTS / "vae_rnn_rl"
PAGE = record.chapter("3_networks/vae_rnn_rl", until="## Build it")
POLICY = {"steps": 120, "batch": 128, "lr": 1e-3}
WEIGHTS = (0.0, 1.0, 3.0)  # eV a nat
SEEDS = range(5)
SAVED = {"free": 0.0, "anchored": 1.0}  # of the first seed
N, BEST, ROWS = 2_000, 200, 15_000
TRAININGS, N_JUDGED = range(3), 10_000  # seeds; the first is that of the weights that are kept


class Gaps:
    """Band gaps of neutral formulas: a guide and a referee that share no row, and the table."""

    def __init__(self) -> None:
        table = imd.datasets.load("oqmd_formulas").table
        table = table[table["band_gap"].notna()]
        read = CompositionMatrix().read(table["formula"].tolist())
        counts, gap = read.counts.astype(np.int64), table["band_gap"].to_numpy()
        train = read.ok & PAGE.neutral(counts) & (table["split"] == "train").to_numpy()
        order = np.random.default_rng(0).permutation(np.flatnonzero(train))
        first, second = order[:ROWS], order[ROWS : 2 * ROWS]
        self.guide = FormulaPredictor("network").fit(counts[first], gap[first])
        self.referee = FormulaPredictor("trees").fit(counts[second], gap[second])
        unseen = np.setdiff1d(np.flatnonzero(read.ok), first)
        self.table = dict(zip(compositions.keys(counts[unseen]), gap[unseen], strict=True))

    def reward(self, counts: np.ndarray) -> np.ndarray:
        """(n,) gap in eV that the guide promises for neutral formulas, 0 for others."""
        return np.where(PAGE.neutral(counts), np.maximum(self.guide.predict(counts), 0.0), 0.0)

    def judge(self, made: np.ndarray, known: set[bytes]) -> Row:
        """What a sample holds; gaps are means over distinct neutral formulas, in eV."""
        unique = ft.distinct(made)
        kept = unique[PAGE.neutral(unique)]
        words = compositions.keys(kept)
        looked_up = np.array([self.table.get(word, np.nan) for word in words])
        there = np.isfinite(looked_up)
        promised, refereed = self.guide.predict(kept), self.referee.predict(kept)
        return {
            "n": len(made),
            "neutral": float(PAGE.neutral(made).mean()),
            "distinct": len(unique) / len(made),
            "n_kept": len(kept),
            "new": float(np.mean([word not in known for word in words])),
            "promised": float(promised.mean()),
            "refereed": float(refereed.mean()),
            "n_in_table": int(there.sum()),
            "promised_in_table": float(promised[there].mean()) if there.any() else None,
            "in_table": float(looked_up[there].mean()) if there.any() else None,
            "examples": compositions.formulas(kept[np.argsort(-promised)[:8]]),
        }


def best_of_many(rnn: fm.FormulaRnn, gaps: Gaps, seed: int) -> np.ndarray:
    """The best formulas of as many draws from the prior as a policy makes in training."""
    unique = ft.distinct(rnn.sample(POLICY["steps"] * POLICY["batch"], seed=1000 + seed).counts)
    return unique[np.argsort(-gaps.reward(unique))[:BEST]]


def loopholes(rnn: fm.FormulaRnn) -> tuple[fm.FormulaRnn, list[Row]]:
    """Rewarded for smact's default verdict, which lets alloys pass; the first policy, all rows."""
    rows, first = [], copy.deepcopy(rnn)
    for seed in SEEDS:
        policy = first if seed == 0 else copy.deepcopy(rnn)
        fm.reinforce(policy, imd.judge.charge_neutral, **POLICY, seed=seed)
        made = policy.sample(N, seed=seed).counts
        rows.append(
            {
                "seed": seed,
                "default": float(PAGE.verdicts(made).mean()),
                "strict": float(PAGE.neutral(made).mean()),
                "metals_only": float(PAGE.metals_only(made).mean()),
                "distinct": len(ft.distinct(made)) / N,
            }
        )
    return first, rows


def policies(
    rnn: fm.FormulaRnn, gaps: Gaps, known: set[bytes], save: Callable[..., None]
) -> tuple[list[Row], dict[str, list[Row]]]:
    """What policies of all weights and seeds write, and the curves of the first seeds."""
    rows, curves = [], {}
    for seed in SEEDS:
        for name, made in (
            ("prior", rnn.sample(N, seed=seed).counts),
            ("best of many", best_of_many(rnn, gaps, seed)),
        ):
            rows.append({"kind": name, "seed": seed, **gaps.judge(made, known)})
        for weight in WEIGHTS:
            policy = copy.deepcopy(rnn)
            options = {**POLICY, "prior_weight": weight, "seed": seed}
            curve = fm.reinforce(policy, gaps.reward, **options)
            found = gaps.judge(policy.sample(N, seed=seed).counts, known)
            kl = float(np.mean([row["kl"] for row in curve[-20:]]))
            rows.append({"kind": "policy", "weight": weight, "seed": seed, "kl": kl, **found})
            for name, wanted in SAVED.items():
                if seed == 0 and weight == wanted:
                    save(name, policy)
                    curves[name] = curve
    return rows, curves


def networks() -> None:
    """Train everything, and write `run.json`."""
    start = time.process_time()
    counts, hashes = PAGE.train, {}

    def save(name: str, model: fm.FormulaVae | fm.FormulaRnn) -> None:
        about = {"name": name, "data": "oqmd_icsd, split train"}
        path = fm.save(model, HERE / f"{name}.safetensors", about=about)
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()

    torch.manual_seed(0)
    vae, rnn = fm.FormulaVae(), fm.FormulaRnn()
    curves = {"vae": fm.train_epochs(vae, counts, **VAE, beta=BETA)}
    save("vae", vae)
    curves["vae, beta 1"] = fm.train_epochs(fm.FormulaVae(), counts, **VAE)
    curves["rnn"] = fm.train_epochs(rnn, counts, **RNN)
    save("rnn", rnn)
    rnn = fm.load(HERE / "rnn.safetensors")  # as the chapter will find it
    gaps = Gaps()
    rows, more = policies(rnn, gaps, set(compositions.keys(counts)), save)
    loophole, by_verdict = loopholes(rnn)
    save("loophole", loophole)
    found = {
        "settings": {
            "vae": {"beta": BETA, **VAE, **vae.settings},
            "rnn": {**RNN, **rnn.settings},
            "policy": POLICY,
            "weights": WEIGHTS,
            "seeds": list(SEEDS),
            "rows_of_each_predictor": ROWS,
        },
        "sha256": hashes,
        "policies": rows,
        "loophole": by_verdict,
        "curves": curves | more,
        "cpu_seconds": round(time.process_time() - start, 1),
        **record.stamp("smact"),
    }
    record.write(HERE / "run.json", record.rounded(found))


# ---- further trainings


@record.rows(
    HERE / "seeds.json",
    [(name, seed) for name in ("vae", "rnn") for seed in TRAININGS],
    under="runs",
)
def seeds(name: str, seed: int) -> Row:
    """What VAE and RNN of three trainings write: counts of the chapter's questions, and finds."""
    model = trained(name, seed) if seed else fm.load(HERE / f"{name}.safetensors")
    made = model.sample(N_JUDGED, seed=1).counts
    unique = ft.distinct(made)
    good = compositions.keys(unique[PAGE.neutral(unique)])
    seen, hidden = (set(compositions.keys(counts)) for counts in (PAGE.train, PAGE.hidden))
    return {
        "n": len(made),
        "formula": int(made.any(1).sum()),
        "neutral": int(PAGE.neutral(made).sum()),
        "and distinct": len(good),
        "and new": len(set(good) - seen),
        "hidden found": len(set(compositions.keys(unique)) & hidden),
        "n_hidden": len(hidden),
    }


def trained(name: str, seed: int) -> fm.FormulaVae | fm.FormulaRnn:
    """The same settings from another seed."""
    torch.manual_seed(seed)
    model = fm.FormulaVae() if name == "vae" else fm.FormulaRnn()
    options = {**VAE, "beta": BETA} if name == "vae" else RNN
    fm.train_epochs(model, PAGE.train, **{**options, "seed": seed})
    return model


TASKS = (networks, seeds)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
