"""Profiles, names, paths, and what an import costs."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers import runtime


def test_import_is_cheap_and_lazy():
    code = (
        "import sys, time; t = time.perf_counter(); import imd_helpers; "
        "print(time.perf_counter() - t); "
        "heavy = {'torch', 'pandas', 'pymatgen', 'matplotlib', 'numba', 'numpy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    best = min(float(run(code)[0]) for _ in range(2))
    assert best < 0.5
    assert run(code)[1] == "[]"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["check", "crystals", "datasets", "descriptors", "judge"])
def test_submodules_load_on_first_use(name):
    assert getattr(imd, name).__name__ == f"imd_helpers.{name}"


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = imd.nonsense


@pytest.mark.parametrize(("profile", "value"), [("smoke", 1), ("colab", 2), ("full", 3)])
def test_profile_picks_by_environment(monkeypatch, profile, value):
    monkeypatch.setenv("IMD_PROFILE", profile)
    assert imd.profile(steps=(1, 2, 3)).steps == value


def test_default_profile_is_smoke_without_a_gpu(monkeypatch):
    monkeypatch.delenv("IMD_PROFILE", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert runtime.current_profile() == "smoke"


def test_unknown_profile_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("IMD_PROFILE", "smok")
    with pytest.raises(runtime.UnknownNameError, match="nearest first: smoke"):
        imd.profile(steps=(1, 2, 3))


@pytest.mark.parametrize("wrong", [(1, 2), "abc", (1, 2, 3, 4)])
def test_a_profile_needs_three_values(monkeypatch, wrong):
    monkeypatch.setenv("IMD_PROFILE", "smoke")
    with pytest.raises(runtime.InputError, match="one value for each"):
        imd.profile(steps=wrong)


def test_names_come_nearest_first():
    with pytest.raises(runtime.UnknownNameError) as error:
        runtime.lookup("data set", "mp20", ["oqmd_icsd", "perov_5", "mp_20"])
    assert str(error.value).index("mp_20") < str(error.value).index("oqmd_icsd")


def test_missing_embedded_data_names_both_places():
    with pytest.raises(FileNotFoundError, match=r"reinstall imd-helpers"):
        runtime.data_path("no", "such.file")


def test_setup_and_report_print_what_is_needed(capsys, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"abc")
    imd.setup(seed=7)
    imd.report(weights)
    text = capsys.readouterr().out
    for word in ("profile", "device", "seed", "torch", "wall time", "ba7816bf8f01cfea"):
        assert word in text


def test_a_gpu_is_reported_by_its_name(monkeypatch):
    import torch

    monkeypatch.setattr(runtime, "device", lambda: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: f"T4 at {where}")
    assert runtime.device_name() == "T4 at cuda:0"


def test_floors():
    """A file imports only from its own floor and those below it."""
    import ast
    from pathlib import Path

    floor = {
        "guard": 0, "runtime": 0, "work": 0, "intervals": 0, "kernels": 1,
        "crystals": 2, "networks": 3, "descriptors": 4, "datasets": 4, "energies": 4, "matching": 4,
        "models": 5, "baselines": 5, "predictors": 5, "search": 5,
        "judge": 6, "check": 7, "show": 7, "cli": 8,
    }  # fmt: skip
    root = Path(imd.__file__).parent
    wrong = []
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            base = parts[: len(parts) - node.level] if parts[-1] != "__init__" else parts[:-1]
            if parts[-1] == "__init__":
                base = parts[: len(parts) - node.level]
            names = [*base, *(node.module or "").split(".")]
            targets = [names[0]] if names[0] else [alias.name for alias in node.names]
            for target in targets:
                if target in floor and floor[target] > floor[parts[0]]:
                    wrong.append(f"{'/'.join(parts)} imports {target}")
    assert not wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.0, "a", None])
def test_a_number_between_bounds(value):
    rule = "must be a finite number, at least 0 and below 1"
    with pytest.raises(runtime.InputError, match=f"share={value!r}: {rule}"):
        runtime.number("share", value, least=0, below=1)
    assert runtime.number("share", 0, least=0, below=1) == 0.0


@pytest.mark.parametrize("value", [float("nan"), 2.5, 3.0, -1, True, "3", None, 2**70, [3]])
def test_a_count_is_a_whole_number_that_a_machine_can_hold(value):
    with pytest.raises(runtime.InputError, match=r"steps=.*must be a whole number of at least 0"):
        runtime.whole("steps", value)
    assert type(runtime.whole("steps", np.int8(3))) is int


@pytest.mark.parametrize("value", [None, "a", [[1], [2, 3]], {}, [1j], [np.nan], [[1.0]]])
def test_what_is_no_row_of_numbers_is_refused(value):
    with pytest.raises(runtime.InputError, match="values"):
        runtime.reals("values", value, "n")
    tensor = torch.ones(2, dtype=torch.float16, requires_grad=True)
    assert runtime.reals("values", tensor, 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, "0"])
def test_setup_refuses_a_seed_that_some_generator_cannot_take(seed):
    with pytest.raises(runtime.InputError, match="seed="):
        runtime.setup(seed)
