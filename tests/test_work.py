"""Workers, pieces on disk, and files that are whole or not there."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from imd_helpers.runtime import InputError
from imd_helpers.work import Pieces, Workers, locked, try_writing, write_atomic


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomic(path, b"old")

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_remains_of_killed_writers_are_removed_and_living_ones_stay(tmp_path):
    dead, living = tmp_path / ".x.json.1-a.part", tmp_path / ".y.json.2-b.part"
    for file in (dead, living):
        file.write_bytes(b"half")
        os.utime(file, (0, 0))
    with living.open("r+b") as held:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(held, fcntl.LOCK_EX)
        try_writing(tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == [living.name]
    with locked(tmp_path):
        assert not living.exists()


def test_pieces_come_back_or_are_not_there(tmp_path):
    kept = Pieces(tmp_path / "run")
    kept.write("one", {"a": np.arange(3)})
    assert kept.read("one")["a"].tolist() == [0, 1, 2]
    file = tmp_path / "run" / "one.npz"
    file.write_bytes(file.read_bytes()[:50])
    assert kept.read("one") is None
    assert kept.read("two") is None
    Pieces(None).write("one", {})
    assert Pieces(None).read("one") is None


def square(x):
    if x == 7:
        raise InputError("not seven")
    return x * x


@pytest.mark.parametrize("workers", [1, 2])
def test_every_piece_gets_its_result(workers):
    with Workers(workers) as where:
        assert dict(where.map(square, iter(range(5)), 5)) == {i: i * i for i in range(5)}
        with pytest.raises(InputError, match="not seven"):
            list(where.map(square, iter([6, 7]), 2))


def test_workers_die_with_their_parent():
    script = """
        import os, sys, time
        from imd_helpers.work import Workers
        if __name__ == "__main__":
            workers = Workers(2)
            dict(workers.map(abs, range(2), 2))
            print(*[p.pid for p in workers._pool._processes.values()], flush=True)
            time.sleep(60)
    """
    path = [sys.executable, "-c", textwrap.dedent(script)]
    parent = subprocess.Popen(path, stdout=subprocess.PIPE, text=True)
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children
    parent.kill()
    parent.wait()
    deadline = time.time() + 20
    while any(_runs(pid) for pid in children):
        assert time.time() < deadline, "workers outlive a killed run"
        time.sleep(0.1)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
