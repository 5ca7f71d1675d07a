"""Downloads against a server on this machine that misbehaves in every way we know."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imd_helpers import datasets
from imd_helpers.datasets import DownloadError, remote
from imd_helpers.datasets.registry import REGISTRY, RemoteFile, RemoteSet
from imd_helpers.runtime import InputError

CONTENT = np.random.default_rng(0).bytes(400_000)


def git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


CHECKSUMS = {
    "sha256": "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
    "md5": "md5:" + hashlib.md5(CONTENT).hexdigest(),
    "git": "git:" + git_name(CONTENT),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server.site
        asked = self.headers.get("Range")
        site.asked[self.path].append(asked)
        script = site.scripts[self.path]
        behaviour = script.pop(0) if len(script) > 1 else script[0]
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if behaviour.startswith("length_"):
            return self.any_length(behaviour.removeprefix("length_"))
        getattr(self, f"do_{behaviour}")(begin)

    def log_message(self, *_):
        pass

    def head(self, code, length, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def start(self, begin):
        """Headers of a well-behaved answer; returns the bytes that are due."""
        if begin >= len(CONTENT):
            self.head(416, 0)
            return b""
        body = CONTENT[begin:]
        if begin:
            span = f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.head(206, len(body), Content_Range=span)
        else:
            self.head(200, len(body))
        return body

    def hang_up(self):
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    def do_good(self, begin):
        self.wfile.write(self.start(begin))

    def do_no_range(self, begin):
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT)

    def do_drop(self, begin):  # the connection breaks off after some of what is due
        body = self.start(begin)
        self.wfile.write(body[: min(150_000, len(body) // 2)])
        self.hang_up()

    def do_drop_no_range(self, begin):
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[:150_000])
        self.hang_up()

    def do_truncate(self, begin):  # a short file that claims to be whole
        self.head(200, 150_000)
        self.wfile.write(CONTENT[:150_000])

    def do_corrupt(self, begin):
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    def do_longer(self, begin):
        self.head(200, len(CONTENT) + 5)
        self.wfile.write(CONTENT + b"extra")

    def do_accepted(self, begin):
        self.head(202, 0)

    def do_forbidden(self, begin):
        self.head(403, 9)
        self.wfile.write(b"forbidden")

    def do_missing(self, begin):
        self.head(404, 0)

    def do_busy(self, begin):
        self.head(503, 0)

    def do_empty(self, begin):
        self.head(200, 0)

    def do_page(self, begin):
        body = b"<!DOCTYPE html><title>log in</title>"
        self.head(200, len(body), Content_Type="text/html; charset=utf-8")
        self.wfile.write(body)

    def do_disguised_page(self, begin):
        body = b"<!DOCTYPE html><title>log in</title>"
        self.head(200, len(body), Content_Type="text/csv")
        self.wfile.write(body)

    def do_pointer(self, begin):
        body = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
        self.head(200, len(body))
        self.wfile.write(body)

    def do_wrong_range(self, begin):
        self.head(206, len(CONTENT), Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.wfile.write(CONTENT)

    def do_slow(self, begin):
        body = self.start(begin)
        for i in range(0, len(body), 40_000):
            self.wfile.write(body[i : i + 40_000])
            self.wfile.flush()
            time.sleep(0.02)

    def any_length(self, length):
        self.head(200, length)
        self.wfile.write(CONTENT)
        self.hang_up()

    def do_endless(self, begin):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(500):
            self.wfile.write(CONTENT)
        self.hang_up()

    def do_trickle(self, begin):
        self.head(200, len(CONTENT))
        for i in range(0, len(CONTENT), 1_000):
            self.wfile.write(CONTENT[i : i + 1_000])
            self.wfile.flush()
            time.sleep(0.05)

    def do_drip(self, begin):
        self.head(200, len(CONTENT))
        for i in range(200):
            self.wfile.write(CONTENT[i : i + 1])
            self.wfile.flush()
            time.sleep(0.05)
        self.hang_up()

    def do_stall(self, begin):
        body = self.start(begin)
        self.wfile.write(body[:200_000])
        self.wfile.flush()
        self.server.site.stalled.set()
        self.server.site.release.wait(10)
        self.hang_up()


class Site:
    """The server: scripts say what each address does, answer after answer; the last one stays."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients hang up on purpose here
        self.server.site = self
        self.scripts: dict[str, list[str]] = {}
        self.asked: dict[str, list[str | None]] = defaultdict(list)
        self.stalled, self.release = threading.Event(), threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str, *script: str) -> str:
        self.scripts[path] = list(script)
        self.asked.pop(path, None)
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def entry(self, *scripts: tuple[str, ...], kind="sha256", size=None) -> RemoteSet:
        """A data set with one file; one script for each of its addresses."""
        urls = tuple(self.url(f"/{i}", *script) for i, script in enumerate(scripts))
        file = RemoteFile("train.csv", urls, CHECKSUMS[kind], size)
        return RemoteSet("toy_set", "a test", (file,), "files", "none", "none")


@pytest.fixture(scope="module")
def server():
    site = Site()
    yield site
    site.release.set()
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def site(server, tmp_path, monkeypatch):
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("IMD_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(remote, "WAIT_S", 0.0)
    monkeypatch.setattr(remote, "TIMEOUT_S", (5.0, 0.5))
    server.stalled.clear()
    server.release.clear()
    yield server
    server.release.set()


def files_under(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.name: path.read_bytes() for path in found}


def assert_nothing_under_the_final_name(folder: Path) -> None:
    assert "train.csv" not in files_under(folder)


# ---- what works


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_downloads_once(site, kind, tmp_path):
    entry = site.entry(("good",), kind=kind, size=len(CONTENT))
    (path,) = remote.fetch(entry)
    assert path.read_bytes() == CONTENT
    assert remote.fetch(entry) == [path]
    assert site.asked["/0"] == [None]
    assert set(files_under(tmp_path / "cache")) == {"train.csv"}  # no part, no temporary file


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_a_dropped_connection_resumes(site, kind):
    entry = site.entry(("drop", "drop", "good"), kind=kind)
    (path,) = remote.fetch(entry)
    assert path.read_bytes() == CONTENT
    first, second, third = site.asked["/0"]
    begins = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in (second, third)]
    assert first is None
    assert 100_000 < begins[0] <= 150_000  # what had come is not asked for again
    assert begins[0] + 80_000 < begins[1]


def test_a_server_without_ranges_starts_over(site):
    entry = site.entry(("drop_no_range", "no_range"))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert site.asked["/0"][1].startswith("bytes=")


def test_a_slow_server_is_waited_for(site):
    assert remote.fetch(site.entry(("slow",)))[0].read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(site):
    assert remote.fetch(site.entry(("busy", "busy", "good")))[0].read_bytes() == CONTENT


def test_a_stalled_server_is_left_and_resumed(site):
    entry = site.entry(("stall", "good"))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert site.asked["/0"][1] == "bytes=200000-"


@pytest.mark.parametrize(
    "fault",
    ["forbidden", "missing", "accepted", "empty", "page", "disguised_page", "truncate", "corrupt",
     "longer", "pointer", "busy", "drop_no_range"],
)  # fmt: skip
def test_the_second_address_is_tried(site, fault):
    entry = site.entry((fault,), ("good",))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert len(site.asked["/0"]) <= remote.ATTEMPTS
    assert len(site.asked["/1"]) <= 2


def test_nobody_listens(site, tmp_path):
    dead = RemoteFile("train.csv", ("http://127.0.0.1:9/x",), CHECKSUMS["sha256"])
    entry = RemoteSet("toy_set", "a test", (dead,), "files", "none", "none")
    with pytest.raises(DownloadError, match=r"connection broke.*after 4 attempts"):
        remote.fetch(entry)
    assert_nothing_under_the_final_name(tmp_path)


# ---- what does not, and says so


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("forbidden", "answered 403"),
        ("missing", "answered 404"),
        ("accepted", "answered 202"),
        ("empty", "200 with an empty file"),
        ("page", "answered with a web page"),
        ("disguised_page", "it is a web page"),
        ("pointer", "Git LFS pointer"),
        ("truncate", "sha256 checksum is"),
        ("corrupt", "sha256 checksum is"),
        ("longer", "sha256 checksum is"),
        ("busy", "answered 503"),
        ("drop", r"(connection broke|stopped after)"),
        ("wrong_range", "asked to begin at byte 0"),
    ],
)
def test_a_fault_is_named(site, fault, message, tmp_path):
    entry = site.entry((fault,))
    with pytest.raises(DownloadError, match=message) as error:
        remote.fetch(entry)
    text = str(error.value)
    assert "toy_set: train.csv could not be downloaded" in text
    assert "set IMD_DATA_DIR=DIR" in text
    assert "http://127.0.0.1" in text
    got_on = len(CONTENT) // remote.CHUNK  # a drop that brought something does not count
    assert len(site.asked["/0"]) <= remote.ATTEMPTS + got_on
    assert_nothing_under_the_final_name(tmp_path)


def test_a_known_size_is_checked(site, tmp_path):
    entry = site.entry(("longer",), size=len(CONTENT))
    with pytest.raises(DownloadError, match=r"sends more than the 400,000 bytes"):
        remote.fetch(entry)
    assert files_under(tmp_path) == {}


def test_a_body_without_end_is_cut_at_the_known_size(site, tmp_path):
    entry = site.entry(("endless",), ("good",), size=len(CONTENT))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert len(site.asked["/0"]) == 1


def test_a_body_without_end_and_without_a_known_size_is_cut_too(site, monkeypatch):
    monkeypatch.setattr(remote, "LARGEST", 1_000_000)
    assert remote.fetch(site.entry(("endless",), ("good",)))[0].read_bytes() == CONTENT


@pytest.mark.parametrize("slow", ["trickle", "drip"])
def test_a_trickle_is_left(slow, site, monkeypatch):
    monkeypatch.setattr(remote, "SLOWEST", 100_000)
    started = time.monotonic()
    assert remote.fetch(site.entry((slow,), ("good",)))[0].read_bytes() == CONTENT
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("length", ["many", "-5", "1e3"])
def test_a_length_that_is_no_number_is_not_believed(site, length):
    entry = site.entry((f"length_{length}",), ("good",))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT


def test_a_wrong_range_costs_the_part_and_not_the_file(site):
    entry = site.entry(("drop", "wrong_range", "good"))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert site.asked["/0"][2] is None  # from the start


def test_drops_that_each_got_on_do_not_end_the_call(site):
    entry = site.entry(("drop",) * (remote.ATTEMPTS + 2) + ("good",))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT


def test_a_short_answer_of_known_size_is_continued(site):
    entry = site.entry(("truncate", "good"), size=len(CONTENT))
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert site.asked["/0"] == [None, "bytes=150000-"]


def test_what_came_is_kept_for_the_next_call(site):
    entry = site.entry(("drop", "missing"))
    with pytest.raises(DownloadError, match=r"bytes are kept: the next call continues"):
        remote.fetch(entry)
    site.url("/0", "good")
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert site.asked["/0"][0].startswith("bytes=")


def test_a_spoiled_part_is_thrown_away(site, tmp_path):
    entry = site.entry(("drop", "missing"))
    with pytest.raises(DownloadError):
        remote.fetch(entry)
    (part,) = (tmp_path / "cache").rglob("*.part")
    part.write_bytes(b"\0" * part.stat().st_size)
    site.url("/0", "good")
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert [bool(asked) for asked in site.asked["/0"]] == [True, False]


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_part_that_is_whole_or_too_long(site, tmp_path, extra):
    entry = site.entry(("drop", "missing"))
    with pytest.raises(DownloadError):
        remote.fetch(entry)
    (part,) = (tmp_path / "cache").rglob("*.part")
    part.write_bytes(CONTENT + extra)
    site.url("/0", "good")
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert len(site.asked["/0"]) == (2 if extra else 0)


def test_a_damaged_file_in_the_cache_is_replaced(site):
    entry = site.entry(("good",))
    (path,) = remote.fetch(entry)
    path.write_bytes(CONTENT[:1000])
    assert remote.fetch(entry)[0].read_bytes() == CONTENT


def test_an_older_version_is_never_lost(site):
    older = site.entry(("good",), kind="git")
    (kept,) = remote.fetch(older)
    newer = site.entry(("corrupt",), kind="sha256")  # same name, another version
    with pytest.raises(DownloadError):
        remote.fetch(newer)
    assert kept.read_bytes() == CONTENT
    assert remote.fetch(older) == [kept]


SLOW = {"do_GET", "do_stall", "do_slow", "do_trickle", "do_drip", "do_endless"}
BEHAVIOURS = sorted(
    name.removeprefix("do_") for name in {*dir(Handler)} - SLOW if name.startswith("do_")
)
scripts = st.lists(st.sampled_from(BEHAVIOURS), min_size=1, max_size=5)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=scripts, second=scripts, kind=st.sampled_from(list(CHECKSUMS)), sized=st.booleans())
def test_any_misbehaviour_ends_right_or_in_an_error(
    site, tmp_path_factory, monkeypatch, first, second, kind, sized
):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IMD_CACHE_DIR", str(cache))
    entry = site.entry(tuple(first), tuple(second), kind=kind, size=len(CONTENT) if sized else None)
    try:
        assert remote.fetch(entry)[0].read_bytes() == CONTENT
    except DownloadError:
        assert_nothing_under_the_final_name(cache)
    most = remote.ATTEMPTS * (1 + len(CONTENT) // remote.CHUNK)
    assert all(len(site.asked[path]) <= most for path in ("/0", "/1"))


# ---- several at once, and killed


def test_four_at_once_download_once(site):
    entry = site.entry(("slow",))
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: remote.fetch(entry)[0], range(4)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert site.asked["/0"] == [None]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_download_continues(site, tmp_path):
    entry = site.entry(("stall",))
    url = entry.files[0].urls[0]
    code = f"""
        from imd_helpers.datasets import remote
        from imd_helpers.datasets.registry import RemoteFile, RemoteSet
        file = RemoteFile("train.csv", ({url!r},), {entry.files[0].checksum!r})
        remote.fetch(RemoteSet("toy_set", "", (file,), "files", "", ""))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    assert site.stalled.wait(60)
    part_of = lambda: list((tmp_path / "cache").rglob("*.part"))  # noqa: E731
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if part_of() and part_of()[0].stat().st_size > 100_000:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert_nothing_under_the_final_name(tmp_path)
    site.release.set()
    site.url("/0", "good")
    assert remote.fetch(entry)[0].read_bytes() == CONTENT
    assert int(site.asked["/0"][0].removeprefix("bytes=").rstrip("-")) > 100_000


# ---- files on disk, and a cache that cannot be written


def test_imd_data_dir_needs_no_network(site, tmp_path, monkeypatch):
    entry = site.entry(("missing",))
    for relative in ("toy_set/train.csv", "train.csv"):
        folder = tmp_path / relative.replace("/", "_")
        path = folder / relative
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        monkeypatch.setenv("IMD_DATA_DIR", str(folder))
        assert remote.fetch(entry) == [path]
    assert site.asked["/0"] == []
    assert not (tmp_path / "cache").exists()


def test_imd_data_dir_without_the_file_downloads(site, tmp_path, monkeypatch):
    monkeypatch.setenv("IMD_DATA_DIR", str(tmp_path))
    assert remote.fetch(site.entry(("good",)))[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"another file", "checksum is"), (b"", "it is empty"), (b"<html>", "it is a web page")],
)
def test_imd_data_dir_with_a_wrong_file(site, tmp_path, monkeypatch, content, message):
    (tmp_path / "toy_set").mkdir()
    (tmp_path / "toy_set" / "train.csv").write_bytes(content)
    monkeypatch.setenv("IMD_DATA_DIR", str(tmp_path))
    with pytest.raises(DownloadError, match=message) as error:
        remote.fetch(site.entry(("good",)))
    assert "IMD_DATA_DIR" in str(error.value)
    assert (tmp_path / "toy_set" / "train.csv").read_bytes() == content


def test_imd_data_dir_that_is_no_folder(site, tmp_path, monkeypatch):
    monkeypatch.setenv("IMD_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DownloadError, match=r"IMD_DATA_DIR=.*nowhere.* is no folder"):
        remote.fetch(site.entry(("good",)))


def test_a_cache_below_a_file(site, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("IMD_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match=r"cannot write to the cache.*Set IMD_CACHE_DIR"):
        remote.fetch(site.entry(("good",)))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(site, tmp_path, monkeypatch):
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o500)
    monkeypatch.setenv("IMD_CACHE_DIR", str(folder))
    with pytest.raises(DownloadError, match=r"cannot write to the cache.*Set IMD_CACHE_DIR"):
        remote.fetch(site.entry(("good",)))


@pytest.mark.parametrize("number", ["EROFS", "ENOSPC", "EACCES"])
def test_a_cache_that_refuses(site, monkeypatch, number):
    import errno

    def refuse(*_args, **_kwargs):
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(remote, "_copy", refuse)
    with pytest.raises(DownloadError, match=r"cannot write to the cache.*Set IMD_CACHE_DIR"):
        remote.fetch(site.entry(("good",)))


def test_a_read_only_cache_that_holds_the_file_is_used(site, monkeypatch):
    entry = site.entry(("good",))
    (path,) = remote.fetch(entry)
    monkeypatch.setattr(remote, "locked", None)  # a write would now fail
    assert remote.fetch(entry) == [path]


# ---- checksums and the registry


def test_git_names_are_those_of_git(tmp_path):
    path = tmp_path / "file"
    for content, expected in {
        b"": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        b"hello\n": "ce013625030ba8dba906f756967f9e9ca394464a",
    }.items():
        path.write_bytes(content)
        assert remote.checksum(path, "git") == git_name(content) == expected


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_entries_are_complete(name):
    entry = REGISTRY[name]
    assert entry.name == name
    assert entry.kind in ("cif_csv", "cif_zip", "json", "files")
    assert entry.licence
    assert entry.citation
    assert len({file.path for file in entry.files}) == len(entry.files) > 0
    for file in entry.files:
        kind, digest = file.checksum.split(":")
        assert len(digest) == {"sha256": 64, "git": 40, "md5": 32}[kind]
        assert int(digest, 16) > 0
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)
        assert file.size is None or file.size > 1_000_000
        assert file.path == Path(file.path).name


def test_sets_without_a_reader_say_what_to_do():
    with pytest.raises(InputError, match=r"cubicgan_ids has no reader.*fetch\('cubicgan_ids'\)"):
        datasets.load("cubicgan_ids")
