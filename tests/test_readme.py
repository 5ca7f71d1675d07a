"""What README.md promises: its code runs, its links and buttons lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run(capsys, monkeypatch):
    import imd_helpers as imd

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.setattr(imd.show, "crystal", lambda crystal: None)
    exec(compile(code, "README.md", "exec"), {})
    assert "novel" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", re.findall(r"\]\((?!http)([^)#]+)\)|src(?:set)?=\"([^\"]+)\"", README)
)
def test_local_links_exist(path):
    assert (ROOT / "".join(path)).exists()


def test_buttons_point_at_notebooks_of_this_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    slug = config["url"].removeprefix("https://github.com/")
    start = f"https://colab.research.google.com/github/{slug}/blob/{config['branch']}/"
    buttons = re.findall(r"\((https://colab\.research\.google\.com/github/[^)]+)\)", README)
    assert buttons
    for button in buttons:
        assert button.startswith(start)
        assert (ROOT / button.removeprefix(start)).is_file()


def test_every_chapter_is_on_the_map():
    for chapter in sorted((ROOT / "book").glob("[0-9]_*/*.md")):
        assert chapter.relative_to(ROOT).as_posix() in README


def test_chapter_commands_are_the_command_line():
    from typer.main import get_command

    from imd_helpers import cli

    known = get_command(cli.app).commands
    for words in re.findall(r"`imd (\w+)", README):
        assert words in known
