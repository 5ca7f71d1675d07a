"""Make the entries of the leaderboard: samples and cards; then `imd leaderboard` ranks them.

    python experiments/leaderboard.py cubic      CubicGAN and the ladder on cubic ternaries
    python experiments/leaderboard.py judge      reports of what has none; goes on if stopped
    python experiments/leaderboard.py protocols  one entry by other protocols, into results.json

An entry that is there is left alone: remove its folder in `data/leaderboard` to make it again.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import record
from record import CHECKPOINTS, DATA, Row, rounded

import imd_helpers as imd
from imd_helpers import baselines
from imd_helpers.crystals import files
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.symmetry_sites import decode_sites
from imd_helpers.judge.leaderboard import CARD, SAMPLES, leaderboard
from imd_helpers.models import cubicgan
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


def network(model: str, variant: str) -> Source:
    """Samples of committed weights."""
    return lambda: imd.models.load(model, variant=variant).sample(N, seed=SEED)


# ---- a folder each


def entry(
    table: str, name: str, title: str, made_by: str, learned_from: str, source: Source
) -> None:
    """Samples and card of one entry, if it is not there."""
    folder = FOLDER / f"{table}-{name.lower().replace(',', '').replace(' ', '-')}"
    if (folder / CARD).exists():
        return
    start = time.process_time()
    samples = source()
    took = time.process_time() - start
    weights = CHECKPOINTS / name.lower().replace(" ", "-") / "run.json"
    card = {
        "name": name,
        "table": title,
        "made_by": made_by,
        "source": f"python experiments/leaderboard.py {table}",
        "learned_from": learned_from,
        "training_seconds": record.read(weights)["seconds"] if made_by == "network" else 0.0,
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


TASKS = (cubic, judge, protocols)

if __name__ == "__main__":
    record.command(TASKS, __doc__)
