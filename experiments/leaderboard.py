"""Make the entries of the leaderboard: samples and cards; then `imd leaderboard` ranks them.

    python experiments/leaderboard.py cubic      CubicGAN and the ladder on cubic ternaries
    python experiments/leaderboard.py written    two models of genes, asked for the same
    python experiments/leaderboard.py judge      reports of what has none; goes on if stopped
    python experiments/leaderboard.py protocols  one entry by other protocols, into results.json

An entry that is there is left alone: remove its folder in `data/leaderboard` to make it again.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import record
import torch
from record import CHECKPOINTS, DATA, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import files
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.judge.leaderboard import CARD, SAMPLES, leaderboard
from imd_helpers.models import cubicgan
from imd_helpers.models.gene_models import GeneTransformer
from imd_helpers.work import write_atomic

FOLDER = DATA / "leaderboard"
RESULTS = CHECKPOINTS / "leaderboard" / "results.json"
N, SEED = 100, 2022
CUBIC = "cubic ternaries"
PROTOCOLS, ENTRY = ("mattergen", "flowmm", "lemat"), "cubic-cubicgan-fixed"
Source = Callable[[], Samples]


# ---- who makes them


def cubic() -> None:
    """Ternaries in three cubic groups."""
    known = decode_sites(cubicgan.training_sites("train")).crystals
    learned = f"{len(known)} cubic ternaries of oqmd_icsd, split train"
    rungs = {name: each.sample for name, each in baselines.ladder(known).items()}
    for name, sample in rungs.items():
        entry("cubic", name, CUBIC, "rung", learned, lambda sample=sample: sample(N, seed=SEED))
    for variant in ("fixed", "paper"):
        entry(
            "cubic", f"CubicGAN {variant}", CUBIC, "network", learned, network("cubicgan", variant)
        )


def written() -> None:
    """The same kind of crystals by the two models that write genes of all crystals."""
    known = f"{len(GeneTransformer.read(GeneTransformer.Config())):,} crystals of oqmd_icsd"
    learned = f"{known}, split train, asked for the three groups; what is no ternary is left out"
    for kind in ("transformer", "diffusion"):
        name, source = f"gene_{kind}", partial(ternaries, f"gene_{kind}")
        entry("cubic", f"gene {kind}", CUBIC, "network", learned, source, weights=f"{name}-icsd")


def ternaries(name: str) -> Samples:
    """As many of each group as the training crystals of the other entries have."""
    model, groups = imd.models.load(name), cubicgan.training_sites("train").space_group
    drawn = np.random.default_rng(SEED).choice(groups, size=N)
    parts = []
    for group in np.unique(drawn):
        wanted = int((drawn == group).sum())
        tokens = model.sample_genes(50 * wanted, condition={"space_group": int(group)}, seed=SEED)
        kinds = [len(set(row[2::2].tolist()) - {0}) for row in tokens]
        parts.append(tokens[np.flatnonzero(np.array(kinds) == 3)[:wanted]])
    return model.decode(torch.cat(parts))


def network(model: str, variant: str) -> Source:
    """Samples of committed weights."""
    return lambda: imd.models.load(model, variant=variant).sample(N, seed=SEED)


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
) -> None:
    """Samples and card of one entry, if it is not there; unless given, its name is its weights'."""
    folder = FOLDER / f"{table}-{name.lower().replace(',', '').replace(' ', '-')}"
    if (folder / CARD).exists():
        return
    start = time.process_time()
    samples = source()
    took = time.process_time() - start
    run = CHECKPOINTS / (weights or name.lower().replace(" ", "-")) / "run.json"
    card = {
        "name": name,
        "table": title,
        "made_by": made_by,
        "source": f"python experiments/leaderboard.py {'written' if weights else table}",
        "learned_from": learned_from,
        "training_seconds": record.read(run)["seconds"] if made_by == "network" else 0.0,
        "sampling_seconds": round(took, 2),
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in card.items()]
    write_atomic(folder / SAMPLES, packed(samples))
    record.write_text(folder / CARD, "\n".join(lines) + "\n")


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
    board = leaderboard(progress=False)
    print(board)


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


TASKS = (cubic, written, judge, protocols)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
