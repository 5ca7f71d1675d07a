"""One set of versions: the lock, the bounds in pyproject.toml, environment.yml, what runs here."""

import re
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version


@pytest.fixture(scope="module")
def project(repo):
    return tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def requirements(project):
    extras = project["optional-dependencies"].values()
    return [Requirement(r) for r in [*project["dependencies"], *(r for e in extras for r in e)]]


@pytest.fixture(scope="module")
def lock(repo):
    lines = (repo / "requirements.lock").read_text("utf-8").split()
    return {canonicalize_name(n): Version(v) for n, v in (line.split("==") for line in lines)}


def test_the_lock_holds_every_dependency_within_its_bounds(requirements, lock):
    for requirement in requirements:
        version = lock.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is in pyproject.toml but not in requirements.lock"
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_the_lock_has_no_local_versions(lock):
    assert [name for name, version in lock.items() if version.local] == []


def test_these_tests_run_with_the_locked_versions(requirements, lock):
    for name in {canonicalize_name(r.name) for r in requirements}:
        assert Version(metadata.version(name)).public == str(lock[name]), name


def test_core_dependencies_have_lower_bounds_only(project):
    for requirement in map(Requirement, project["dependencies"]):
        operators = {s.operator for s in requirement.specifier}
        assert operators == {">="}, f"{requirement}: an upper bound would change torch on Colab"


def test_environment_yml_is_the_lock_and_the_project(repo, project):
    text = yaml.safe_load((repo / "environment.yml").read_text("utf-8"))
    conda = [item for item in text["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in text["dependencies"] if isinstance(item, dict)]
    assert text["channels"] == ["conda-forge"]
    assert {re.split("[=<>]", item)[0] for item in conda} == {"python", "pip"}
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [item.split("=")[1] for item in conda if item.startswith("python")]
    assert SpecifierSet(project["requires-python"]).contains(python)


def test_one_version_everywhere(repo, project):
    import imd_helpers

    citation = yaml.safe_load((repo / "CITATION.cff").read_text("utf-8"))
    assert project["version"] == imd_helpers.__version__ == citation["version"]


def test_without_python_the_installer_says_what_to_do(repo, tmp_path):
    result = subprocess.run(
        ["/bin/bash", str(repo / "book" / "_tools" / "install.sh"), str(tmp_path / "venv")],
        env={"PATH": str(tmp_path)},
        cwd=repo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "No Python 3.11 or newer" in result.stderr
    assert "Install one" in result.stderr


def test_make_alone_lists_the_targets(repo):
    result = subprocess.run(["make"], cwd=repo, capture_output=True, text=True, check=True)
    for target in ("book", "test", "notebooks", "colab", "lint", "clean"):
        assert f"make {target}" in result.stdout
