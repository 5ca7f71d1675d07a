"""Frames of crystals: the strip of a built page, and the player in a real JupyterLab."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.runtime import InputError

module = import_module("imd_helpers.show.trajectory")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
PATIENCE_S = 60


@pytest.fixture
def frames():
    """Caesium chloride that grows, and at last another crystal of another size."""
    lattice = np.eye(3) * np.linspace(4.0, 4.4, 6)[:, None, None]
    growing = CrystalBatch.from_ragged(
        lattice, np.tile([[0, 0, 0], [0.5] * 3], (6, 1)), [55, 17] * 6, [2] * 6
    )
    other = CrystalBatch.from_ragged(2.9 * np.eye(3)[None], [[0, 0, 0]], [26], [1])
    return CrystalBatch.cat([growing, other])


@pytest.fixture
def still(monkeypatch):
    """No live front end, and what would be shown."""
    monkeypatch.setenv("IMD_STATIC", "1")
    mpl.use("Agg")
    shown = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: shown.append(mpl.pyplot.gcf()))
    yield shown
    mpl.pyplot.close("all")


def test_a_strip_of_evenly_spaced_frames_in_one_scale(frames, still):
    imd.show.trajectory(frames, strip=4)
    (figure,) = still
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["frame 0", "frame 2", "frame 4", "frame 6"]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    atoms = [len(ax.patches) for ax in figure.axes]
    assert atoms == [9, 9, 9, 8]  # with the images on the corners
    assert [text.get_text() for text in figure.legends[0].texts] == ["Cl", "Fe", "Cs"]


def test_few_frames_make_a_short_strip(frames, still):
    imd.show.trajectory(frames[:2], titles=["before", "after"])
    assert [ax.get_title() for ax in still[0].axes] == ["before", "after"]


def test_the_strip_turns_the_crystal_and_keeps_its_lengths(frames):
    drawing = imd.show.drawn.draw(frames, 0)
    atoms, edges = module.projected(drawing)
    np.testing.assert_allclose(np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1), 4.0)
    apart = np.linalg.norm(atoms[0] - atoms, axis=1)
    np.testing.assert_allclose(
        apart, np.linalg.norm(drawing.positions[0] - drawing.positions, axis=1)
    )
    up = drawing.lattice[2] @ (atoms[1] - atoms[0]) / 4.0
    assert np.isfinite(up)


@pytest.mark.parametrize(
    ("there", "served", "static", "live"),
    [
        (True, "JPY_SESSION_NAME", "", True),
        (False, "JPY_SESSION_NAME", "", False),  # nglview is missing
        (True, "OTHER", "", False),  # nobody would answer: a built page, a script
        (True, "JPY_SESSION_NAME", "1", False),
    ],
)
def test_live_only_where_a_widget_has_its_other_half(monkeypatch, there, served, static, live):
    for name in ("JPY_SESSION_NAME", "IMD_STATIC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(served, "/notebook.ipynb")
    if static:
        monkeypatch.setenv("IMD_STATIC", static)
    monkeypatch.setattr(module, "find_spec", lambda name: there or None)
    assert module.is_live() is live


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: imd.show.trajectory(f[:0]), "no crystal to show"),
        (lambda f: imd.show.trajectory("NaCl"), "must be CrystalBatch"),
        (lambda f: imd.show.trajectory(f, titles=["x"]), "1 titles for 7 frames"),
        (lambda f: imd.show.trajectory(f, strip=0), "strip=0 must be at least 1"),
        (lambda f: imd.show.trajectory(CrystalBatch.cat([f] * 58)), r"at most 400.*frames\[::10\]"),
    ],
)
def test_bad_input_says_what_to_do(frames, still, call, message):
    with pytest.raises(InputError, match=message):
        call(frames)


def test_the_player_has_a_model_for_each_frame(frames):
    pytest.importorskip("nglview")
    drawings, names = module._drawings(frames, None)
    view, controls, said = module.player(drawings, names).children
    assert len(view._ngl_component_ids) == 7
    assert said.value.startswith("frame 0: CsCl, 2 atoms")
    controls.children[1].value = 6
    assert said.value.startswith("frame 6: Fe, 1 atoms")


# ---- a real JupyterLab

CELL = """import numpy as np
import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
a = np.eye(3) * np.linspace(4.0, 4.4, 4)[:, None, None]
imd.show.trajectory(CrystalBatch.from_ragged(
    a, np.tile([[0, 0, 0], [0.5] * 3], (4, 1)), [55, 17] * 4, [2] * 4))
"""


@pytest.fixture
def lab(tmp_path):
    """Address and token of a JupyterLab with one notebook."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install one to run the browser tests (apt install chromium)")
    for needed in ("jupyterlab", "nglview", "playwright"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install {needed}")
    notebook = {"cells": [_code(CELL)], "metadata": _KERNEL, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "view.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    settings = {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "PYTHONPATH": str(Path(imd.__file__).parents[1]),
    }
    environment = {k: v for k, v in os.environ.items() if k != "IMD_STATIC"} | settings
    command = ["-m", "jupyterlab", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    with (tmp_path / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command, f"--IdentityProvider.token={token}", "--allow-root"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(f"{address}/api?token={token}")
        yield f"{address}/lab/tree/view.ipynb?reset&token={token}"
    finally:
        process.terminate()
        process.wait(20)


_KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def _code(source):
    return {
        "cell_type": "code",
        "id": "view",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }


def _wait_for(address):
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


@pytest.mark.browser
def test_frames_are_stepped_in_a_real_jupyterlab(lab):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
    flags.append("--enable-unsafe-swiftshader")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(lab)
        page.get_by_text("| Idle").first.wait_for()  # the kernel is there
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.locator(".jp-OutputArea canvas").first.wait_for()
        said = page.locator(".jp-OutputArea .widget-label", has_text="atoms in the unit cell")
        assert said.inner_text().startswith("frame 0: CsCl, 2 atoms in the unit cell; a = 4.000")
        page.locator(".jp-OutputArea .widget-play button:visible").first.click()
        page.get_by_text("frame 3: CsCl").wait_for()  # played to the end
        browser.close()
