"""Does the package, with each notebook's extras, install on Colab without moving torch or numpy?

Resolves `pyproject.toml` by `uv pip compile` with the versions that Colab publishes as constraints.
Run it as `python book/_tools/colab_freeze.py [--freeze FILE] [--python 3.12 3.13]`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from bookfiles import REPO, read_extras, read_pages

FREEZE = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
FIXED = ("torch", "numpy")  # what a hosted notebook must keep
# Where Colab pins several packages that we never ask for, they may not agree with each other.
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.!]+)")
WHEEL = re.compile(r"^(?P<name>[\w.-]+) @ \S+/[\w.]+-(?P<version>[\d.]+)(?:%2B\w+)?-\S+\.whl")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--freeze", type=Path, help="a file, instead of the published list")
    parser.add_argument("--python", nargs="+", default=["3.12", "3.13"], metavar="VERSION")
    asked = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("uv is not installed: pip install uv")
    text = asked.freeze.read_text("utf-8") if asked.freeze else fetch()
    failed = 0
    for version in asked.python:
        for extras in sorted(
            {(), *(read_extras(page) for page in read_pages() if page.is_chapter)}
        ):
            problem = resolve(text, extras, version)
            failed += bool(problem)
            print(f"Python {version} [{','.join(extras)}]: {problem or 'resolves'}", flush=True)
    return int(failed > 0)


def fetch(timeout: float = 20.0) -> str:
    """Colab's published list of packages.

    Raises:
        OSError: there is no network, or nothing at that address.
    """
    with urllib.request.urlopen(FREEZE, timeout=timeout) as answer:
        return answer.read().decode("utf-8")


def pins(text: str) -> dict[str, str]:
    """Names and public versions of a list as `pip freeze` prints it; other lines are left out."""
    found = (PIN.match(line) or WHEEL.match(line) for line in text.splitlines())
    return {hit["name"].lower(): hit["version"] for hit in found if hit}


def resolve(text: str, extras: Iterable[str], python: str) -> str:
    """Empty if the package resolves beside Colab's packages, otherwise what uv says.

    Raises:
        FileNotFoundError: uv is not installed.
    """
    fixed = pins(text)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "colab.txt"
        constraints.write_text("".join(f"{name}=={value}\n" for name, value in fixed.items()))
        command = ["uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header"]
        command += ["--no-annotate", "--python-version", python, "--python-platform", "linux"]
        command += ["--constraint", str(constraints), *(f"--extra={name}" for name in extras)]
        done = subprocess.run(command, cwd=REPO, check=False, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    got = pins(done.stdout)
    moved = [f"{n} {fixed[n]} would become {got[n]}" for n in FIXED if got.get(n) != fixed.get(n)]
    return "; ".join(moved)


if __name__ == "__main__":
    sys.exit(main())
