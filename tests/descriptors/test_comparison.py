"""The script of the chapter that compares descriptors: its measures, and the record it wrote."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from imd_helpers.crystals import CrystalBatch
from imd_helpers.runtime import data_path

FOLDER = data_path("checkpoints", "comparison")
SCRIPTS = Path(__file__).resolve().parents[2] / "experiments"
CHEAP = (
    "composition matrix (MatGAN)",
    "coordinate matrix (Kim et al.)",
    "base sites (PGCGM)",
    "asymmetric unit",
)


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("comparison")
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def record():
    return {row["name"]: row for row in json.loads((FOLDER / "run.json").read_text())["rows"]}


@pytest.fixture(scope="module")
def some(script):
    return script.sample(None, script.N_CRYSTALS)[:40].crystals


def test_every_descriptor_is_in_the_record(script, record):
    assert list(record) == list(script.ENTRIES)
    for name, entry in script.ENTRIES.items():
        assert record[name]["numbers"] == entry.size
        assert ("same" in record[name]["round_trip"]) == (entry.gives != "nothing")


def test_changes_of_writing_leave_the_crystal(script, some):
    rng = np.random.default_rng(0)
    for change in script.CHANGES.values():
        changed = CrystalBatch.cat([change(crystal, rng) for crystal in some])
        assert script.deviation(some, changed).max() < 1e-9
    larger = CrystalBatch(1.01 * some.lattice, some.frac, some.numbers)
    assert script.deviation(some, larger).min() > 0.01
    assert np.isinf(script.deviation(some[:1], some[1:2])).all()


def test_the_regressor_finds_what_is_there(script):
    rng = np.random.default_rng(0)
    x = {part: rng.normal(size=(n, 4)) for part, n in (("train", 300), ("val", 80), ("test", 90))}
    y = {part: v[:, 0] - 2 * np.abs(v[:, 1]) for part, v in x.items()}
    off, _ = script.regress(x, y)
    noise, _ = script.regress({part: v[:, 2:] for part, v in x.items()}, y)
    assert off.mean() < 0.3 * noise.mean()


@pytest.mark.parametrize("name", CHEAP)
def test_recorded_rows_can_be_measured_again(script, record, some, name):
    entry = script.ENTRIES[name]
    written = entry.write(some)
    share = record[name]["fits_of_1000"] / 1000
    assert abs(written.ok.mean() - share) < 4 * (share * (1 - share) / len(some)) ** 0.5 + 0.01
    trip = script.round_trip(entry, some[np.flatnonzero(written.ok)])
    assert trip["same"] == trip["n"]
    assert record[name]["round_trip"]["same"] == record[name]["round_trip"]["n"]
