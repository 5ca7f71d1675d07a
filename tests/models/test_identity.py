"""Training under its own name: a folder belongs to one recipe and its data, and to one process."""

import pytest
import torch

from imd_helpers import models
from imd_helpers.crystals.samples import Samples, room_for
from imd_helpers.networks.checkpoint import CheckpointError
from imd_helpers.runtime import InputError
from imd_helpers.work import locked

SMALL = {"steps": 4, "width": 1 / 32, "batch": 8, "save_every": 2, "log_every": 2}


def train(folder, model="matgan", variant="fixed", **more):
    changes = SMALL | more.pop("changes", {})
    options = {"profile": "smoke", "progress": False, "changes": changes} | more
    return models.find(model).train(variant, folder=folder, **options)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"variant": "paper"}, "variant"),
        ({"changes": {"batch": 16}}, "batch"),
        ({"changes": {"penalty": 5.0}}, "penalty"),
        ({"changes": {"data": "mp"}}, "data"),
        ({"keep": lambda counts: counts[:, 8] > 0}, "kept_by"),
    ],
)
def test_going_on_with_another_recipe_or_other_data_is_refused(change, named, tmp_path):
    train(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match=named):
        train(tmp_path, resume=True, **change)
    assert (tmp_path / "run.json").read_bytes() == before


def test_going_on_to_fewer_steps_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(CheckpointError, match="has 4 steps already, and steps=2"):
        train(tmp_path, resume=True, changes={"steps": 2})
    _, history = train(tmp_path, resume=True, changes={"steps": 6})
    assert [row["step"] for row in history.rows] == [2, 4, 6]


def test_a_variant_that_needs_a_rule_is_not_trained_without_it(tmp_path):
    with pytest.raises(InputError, match=r"keep=imd.judge.charge_neutral"):
        train(tmp_path, "sequence_gan", "neutral")


def test_two_trainings_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another process is writing"):
        train(tmp_path)
    train(tmp_path)


def test_weights_that_are_not_those_of_the_record(tmp_path):
    train(tmp_path / "one")
    train(tmp_path / "other", seed=1)
    file = tmp_path / "one" / "model.safetensors"
    file.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        models.load("matgan", path=file)
    file.with_name("run.json").unlink()  # weights alone have nothing to be compared with
    models.load("matgan", path=file)
    blob = bytearray(file.read_bytes())
    blob[-5] ^= 4
    file.write_bytes(blob)
    with pytest.raises(CheckpointError, match="damaged or edited"):  # but with themselves
        models.load("matgan", path=file)


@pytest.mark.parametrize(
    "header",
    ["[]", "{}", '{"format": "F"}', '{"format": "F", "config": 3}',
     '{"format": "F", "config": {"train": []}}',
     '{"format": "F", "config": {"train": {"steps": "many"}}}', "[" * 100_000],
)  # fmt: skip
def test_headers_from_elsewhere_are_refused(header, tmp_path):
    from safetensors.torch import save_file

    known = models.find("cubicgan")
    file = tmp_path / "model.safetensors"
    text = header.replace("F", known.format)
    save_file({"a": torch.zeros(1)}, str(file), metadata={"imd": text})
    with pytest.raises(CheckpointError):
        known.load(file)


def test_a_billion_samples_are_refused_with_what_they_need():
    with pytest.raises(InputError, match=r"n=1,000,000,000: these samples need [\d,]+ GB"):
        models.load("cubicgan").sample(1_000_000_000)
    room_for(Samples.of(torch.zeros(10, 100)), 1_000)


@pytest.mark.parametrize("n", [0, -1, 2.5, float("nan"), "3", None, True])
def test_numbers_of_samples_are_whole(n):
    with pytest.raises(InputError, match="n="):
        models.load("cubicgan").sample(n)
