"""CCDCGAN: published sizes, codes to pictures and back, the constraint's pull, stages, files."""

import numpy as np
import pytest
import torch

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.descriptors.voxel_grid import largest_site_error
from imd_helpers.matching.same import novel
from imd_helpers.models import ccdcgan
from imd_helpers.models.ccdcgan import Ccdcgan, constraint_loss
from imd_helpers.models.ccdcgan_config import cell_numbers, lattice_of
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError, UnknownNameError, data_path

FIXED = Ccdcgan.recipe("fixed", profile="smoke")
PAPER = Ccdcgan.recipe("paper", profile="smoke")


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


@pytest.fixture(scope="module")
def selenides():
    return Ccdcgan.read(FIXED)[np.arange(40)]


@pytest.fixture(scope="module")
def model(selenides):
    return Ccdcgan.from_data(selenides, FIXED)


def millions(network):
    return sum(p.numel() for p in network.parameters()) / 1e6


# ---- what was published


def test_sizes_are_the_published_ones():
    """The sheet of the code: 1.48, 0.39 and 4.99 million, 1.26 and 3.22 for the autoencoders."""
    networks = Ccdcgan(ccdcgan.PAPER).networks
    found = {name: millions(network) for name, network in networks.items()}
    assert found["generator"] == pytest.approx(1.48, abs=0.005)
    assert found["critic"] == pytest.approx(0.39, abs=0.005)
    assert found["constraint"] == pytest.approx(4.99, abs=0.006)
    assert found["cell_encoder"] + found["cell_decoder"] == pytest.approx(1.26, abs=0.005)
    assert found["site_encoder"] + found["site_decoder"] == pytest.approx(3.22, abs=0.005)
    assert networks["site_encoder"](torch.zeros(1, 1, 64, 64, 64)).shape == (1, 200)
    assert networks["critic"][:-1](torch.zeros(2, 1, 28, 28)).shape == (2, 4096)


def test_the_published_game_is_two_dimensional():
    networks = Ccdcgan(PAPER).networks
    kinds = {
        name: {type(m).__name__ for m in network.modules() if "Conv" in type(m).__name__}
        for name, network in networks.items()
    }
    assert kinds["generator"] == {"Conv2d"}
    assert kinds["critic"] == kinds["constraint"] == {"SameConv"}
    assert kinds["site_encoder"] == kinds["cell_encoder"] == {"Conv3d"}


def test_the_published_layout():
    """600 numbers and 184 zeros; the cell keeps 200 places for 25 numbers."""
    layout = ccdcgan.PAPER.layout()
    picture = layout.pack(torch.ones(1, 25), torch.ones(1, 2, 200)).flatten()
    assert layout.shape == (1, 28, 28)
    assert picture[600:].eq(0).all()
    assert picture[25:200].eq(0).all()
    assert picture.sum() == 425


# ---- equations


@verifies("eq-ccdcgan-cell", "models.ccdcgan_config.lattice_of")
def test_six_numbers_are_a_cell(agrees):
    """The matrix of the equation, written out; and every real cell comes back."""
    u = torch.randn(50, 6, dtype=torch.float64, generator=torch.manual_seed(0))
    zero = torch.zeros(50, dtype=torch.float64)
    rows = [
        torch.stack([u[:, 0].exp(), zero, zero], 1),
        torch.stack([u[:, 1], u[:, 2].exp(), zero], 1),
        torch.stack([u[:, 3], u[:, 4], u[:, 5].exp()], 1),
    ]
    agrees(lattice_of(u), 10 * torch.stack(rows, 1), within=1e-12)
    assert (torch.linalg.det(lattice_of(u)) > 0).all()
    written = FIXED.voxels().written(datasets.load("bi_se", split="val").crystals)
    agrees(lattice_of(cell_numbers(written.lattice)), written.lattice, within=1e-9)


@verifies("eq-ccdcgan-constraint", "models.ccdcgan.Ccdcgan.generator_terms")
def test_the_generators_loss(selenides, agrees):
    """Cross-entropy of torch, and the mean of exp(E) of what the constraint says, by hand."""
    model = Ccdcgan.from_data(selenides, PAPER)
    for network in model.networks.values():
        network.eval()
    torch.manual_seed(3)
    terms = model.generator_terms()
    torch.manual_seed(3)
    with torch.no_grad():
        drawn = model.generator(torch.randn(PAPER.batch, PAPER.latent))
        logit, energy = model.critic(drawn), model.constraint(drawn)[:, 0]
    ones = torch.ones_like(logit)
    entropy = torch.nn.functional.binary_cross_entropy(logit.sigmoid(), ones)
    wanted = entropy + 0.1 * sum(np.exp(e) for e in energy.tolist()) / PAPER.batch
    agrees(terms["loss"].detach(), wanted, within=1e-5)


def test_a_higher_energy_pulls_harder():
    energy = torch.tensor([-0.5, 0.0, 2.0], requires_grad=True)
    constraint_loss(energy).backward()
    assert torch.allclose(energy.grad, energy.detach().exp() / 3)


# ---- coders


def test_cells_read_off_come_back(model, selenides):
    """Where a cell is six numbers nothing of it is lost, whatever the sites' coder does."""
    some = selenides.crystals[:8]
    cell, _ = FIXED.layout().unpack(model.written(some).tensor)
    expected = FIXED.voxels().written(some).lattice
    assert torch.allclose(lattice_of(cell), expected, atol=1e-3)


def test_a_coder_learns(selenides):
    few = selenides[np.arange(3)]
    how = {"coder_width": 0.25, "coder_batch": 3, "coder_rate": 4e-3, "varied": False}
    learnt = Ccdcgan.from_data(few, FIXED.but(**how, coder_steps=200))
    back = learnt.rebuilt(few.crystals)
    error = largest_site_error(FIXED.voxels().written(few.crystals), back)
    assert (error < 0.5).sum() >= 2
    untrained = Ccdcgan.from_data(few, FIXED.but(**how, coder_steps=1)).rebuilt(few.crystals)
    assert not untrained.ok.any()


# ---- stages


def test_stages_are_frozen_and_pictures_are_computed_once(model, selenides):
    learns = {
        name: any(p.requires_grad for p in network.parameters())
        for name, network in model.networks.items()
    }
    assert [name for name, learn in learns.items() if learn] == ["generator", "critic"]
    assert [stage["name"] for stage in model.learnt["stages"]] == ["coders", "constraint"]
    assert torch.equal(model.images, model.encode(selenides.crystals).tensor)
    pixels = model.images.flatten(1)
    moving = pixels.std(0) > 0
    assert torch.allclose(pixels[:, moving].mean(0), torch.zeros(1), atol=1e-3)
    assert torch.allclose(pixels[:, moving].std(0), torch.ones(1), atol=1e-2)


@pytest.mark.parametrize("config", [FIXED, PAPER], ids=["fixed", "paper"])
def test_the_game_moves_the_players_alone(config, selenides):
    model = Ccdcgan.from_data(selenides, config)
    before = {k: [p.clone() for p in n.parameters()] for k, n in model.networks.items()}
    history = fit(model, config.train, progress=False)
    moved = {
        name: not all(map(torch.equal, before[name], network.parameters()))
        for name, network in model.networks.items()
    }
    assert [name for name, has in moved.items() if has] == ["generator", "critic"]
    assert {"generator_score", "generator_energy", "critic_loss"} <= history.rows[-1].keys()


def test_the_constraint_pulls_and_without_a_factor_it_does_not(model):
    """Equal seeds: the predicted energy is lower where the constraint has a factor."""
    found = {}
    for strength in (0.0, 100.0):
        other = model.anew(seed=1, strength=strength, steps=60, critic_steps=1, fall=0.0)
        history = fit(other, other.config.train, progress=False)
        found[strength] = float(other.predicted(other.raw(0, 200)).mean())
        assert ("generator_energy" in history.rows[-1]) == (strength > 0)
    assert found[100.0] < found[0.0] - 0.02


def test_new_players_share_what_was_learnt(model):
    other = model.anew(seed=5)
    assert other.site_decoder is model.site_decoder
    assert other.constraint is model.constraint
    assert other.images is model.images
    theirs, ours = (m.generator.state_dict() for m in (other, model))
    assert not all(map(torch.equal, theirs.values(), ours.values()))


# ---- data


def test_no_real_selenide_is_learnt_from():
    real = ccdcgan.answers()
    assert len(real) == 7
    for variant, fit_in in (("paper", 1), ("fixed", 5)):
        config = Ccdcgan.recipe(variant, profile="full")
        assert config.voxels().verdict(real).ok.sum() == fit_in
        for split in ("train", "val", "test"):
            learnt = Ccdcgan.read(config, split)
            assert novel(real, learnt.crystals).all()
            assert (learnt.table["formation_energy"] < 1).all()


def test_labels_are_those_of_one_potential():
    data = datasets.load("bi_se")
    raw = np.load(data_path("bi_se", "bi_se.npz"))
    wanted = raw["formation_energy"][raw["kept"], 1]
    assert np.allclose(ccdcgan.energies(data), wanted, atol=1e-5)


# ---- files, samples, faults


def test_training_resumes_saves_and_loads(tmp_path):
    how = {"progress": False, "profile": "smoke"}
    whole, _ = Ccdcgan.train("fixed", folder=tmp_path / "a", changes={"fall": 0.0}, **how)
    for steps in (4, 8):
        changes = {"fall": 0.0, "steps": steps, "save_every": 4}
        parted, _ = Ccdcgan.train(
            "fixed", folder=tmp_path / "b", resume=True, changes=changes, **how
        )
    loaded = Ccdcgan.load(tmp_path / "a" / "model.safetensors")
    for name, network in whole.networks.items():
        for other in (parted, loaded):
            twin = other.networks[name].state_dict()
            assert all(map(torch.equal, network.state_dict().values(), twin.values()))
    assert loaded.learnt["stages"][0]["rows"] == whole.learnt["stages"][0]["rows"]
    assert torch.equal(whole.raw(0, 5, seed=1), loaded.raw(0, 5, seed=1))


@pytest.mark.parametrize("variant", Ccdcgan.VARIANTS)
def test_committed_weights_make_samples_with_reasons(variant):
    model = Ccdcgan.load(data_path("checkpoints", f"ccdcgan-{variant}", "model.safetensors"))
    made = model.sample(20, seed=0)
    assert len(made) == 20
    assert all(bool(reason) is not ok for ok, reason in zip(made.ok, made.reasons, strict=True))
    assert set(made.valid().counts().nonzero()[:, 1].tolist()) <= {34, 83}


def test_a_crystal_that_does_not_fit_fails_alone(model, selenides):
    some = selenides.crystals[:3]
    lattice = some.lattice.clone()
    lattice[1] *= 5
    back = model.rebuilt(CrystalBatch(lattice, some.frac, some.numbers))
    alone = model.rebuilt(some)
    assert "max_edge" in back.reasons[1]
    assert [back.reasons[i] for i in (0, 2)] == [alone.reasons[i] for i in (0, 2)]


def test_errors_teach():
    with pytest.raises(UnknownNameError, match="cell"):
        ccdcgan.FIXED.but(cell="blob")
    with pytest.raises(InputError, match="strength=-1"):
        ccdcgan.FIXED.but(strength=-1)
    with pytest.raises(InputError, match="site_points=4"):
        ccdcgan.FIXED.but(site_points=4)
