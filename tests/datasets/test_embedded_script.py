"""The script that builds the embedded files: its parts here, the whole where the wheels are."""

import hashlib
import importlib.util
import json
import lzma
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "embedded.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("embedded", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_are_quantised_within_half_a_step(script):
    rng = np.random.default_rng(0)
    cell = np.diag([4.0, 5.0, 30.0]) + rng.normal(0, 0.2, (3, 3))
    frac = np.vstack([rng.random((40, 3)), [[0.25, 0.5, 0.999999], [-1e-9, 1.0, 2.5]]])
    values = {"delta_e": -1.0, "stability": 0.1, "spacegroup": 1, "proto_name": "A_1_a_1"}
    values["directory"] = "/somewhere/icsd/8153/relaxed"
    numbers = np.full(len(frac), 14, np.int32)
    positions = (frac @ cell).tobytes()
    row = script.oqmd_row(numbers.tobytes(), positions, cell.tobytes(), json.dumps(values))
    error = row["frac"] / 65_536 - frac
    error -= np.round(error)
    assert np.abs(error).max() <= 0.5 / 65_536 * 1.0001
    assert row["frac"][40].tolist() == [16_384, 32_768, 0]
    assert row["entry"] == 8153
    assert np.isnan(row["band_gap"])


def test_tables_come_out_the_same_twice(script, tmp_path):
    table = pd.DataFrame(
        {"formula": ["N1Na1", "O4Ti2", "Al0.1Ga0.9P1"], "band_gap": [1.23456, 3, 0]}
    )
    for out in ("first", "second"):
        script.write_formulas(table, tmp_path / out, "toy", band_gap=3)
    first, second = (
        (tmp_path / out / "toy" / "toy.csv.xz").read_bytes() for out in ("first", "second")
    )
    assert first == second
    lines = lzma.decompress(first).decode().splitlines()
    assert lines[0] == "formula,band_gap,split"
    assert [line.rsplit(",", 1)[0] for line in lines[1:]] == [
        "NaN,1.235",
        "TiO2,3.0",
        "AlGa9P10,0.0",
    ]


def test_content_is_compared_not_packing(script, tmp_path):
    arrays = {"a": np.arange(50), "b": np.array([b"x", b"yz"])}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "packed.npz", **dict(reversed(arrays.items())))
    np.savez(tmp_path / "other.npz", a=np.arange(50) + 1, b=arrays["b"])
    hashes = [script.content_hash(tmp_path / f"{n}.npz") for n in ("plain", "packed", "other")]
    assert hashes[0] == hashes[1] != hashes[2]
    (tmp_path / "x.csv.xz").write_bytes(lzma.compress(b"text", preset=0))
    assert script.content_hash(tmp_path / "x.csv.xz") == hashlib.sha256(b"text").hexdigest()


def test_a_wrong_wheel_is_refused(script, tmp_path):
    with zipfile.ZipFile(tmp_path / "zefram-0.1.3-py3-none-any.whl", "w") as archive:
        archive.writestr("zefram/frameworks.db", "another file")
    with pytest.raises(SystemExit, match=r"has SHA-256 [0-9a-f]{64}, expected 1b7eda92"):
        script.make_zeolites(tmp_path, tmp_path / "out")


def test_the_committed_files_are_what_the_script_builds():
    wheels = os.environ.get("IMD_WHEELS")
    if not wheels or not Path(wheels).is_dir():
        pytest.skip("set IMD_WHEELS to a folder with the wheels that experiments/embedded.py names")
    command = [sys.executable, str(SCRIPT), "--wheels", wheels, "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
