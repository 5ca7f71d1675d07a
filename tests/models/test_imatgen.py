"""iMatGen: published sizes, the re-mapping without a slope, to the latent space and back."""

import dataclasses

import numpy as np
import pytest
import torch

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.matching.same import novel
from imd_helpers.models import imatgen
from imd_helpers.models.imatgen import IMatGen, within_tolerances
from imd_helpers.models.imatgen_networks import grid_decoder, grid_encoder, sharpen, slerp
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError, UnknownNameError

FIXED = IMatGen.recipe("fixed", profile="smoke")


@pytest.fixture(scope="module")
def oxides():
    return IMatGen.read(FIXED)[np.arange(12)]


@pytest.fixture(scope="module")
def model(oxides):
    return IMatGen.from_data(oxides, FIXED)


def test_sizes_are_the_published_ones():
    """The sheet of the port: 1.34, 0.71 and 0.25 million, and 64 channels for the grids."""
    networks = IMatGen(imatgen.PAPER).networks
    sizes = {k: sum(p.numel() for p in n.parameters()) / 1e6 for k, n in networks.items()}
    assert sizes["code_encoder"] == pytest.approx(1.34, abs=0.005)
    assert sizes["code_decoder"] == pytest.approx(0.71, abs=0.005)
    assert sizes["classifier"] == pytest.approx(0.25, abs=0.005)
    assert networks["site_encoder"](torch.zeros(1, 1, 64, 64, 64)).shape == (1, 200)
    assert networks["cell_encoder"](torch.zeros(1, 1, 32, 32, 32)).shape == (1, 20)


def test_the_remapping_has_a_slope_in_one_place_only():
    """min(10^4 (clip(y, 0.5, 0.5001) - 0.5), 1), by hand."""
    y = torch.tensor([0.0, 0.4, 0.50002, 0.50007, 0.51, 1.0], dtype=torch.float64)
    y.requires_grad_(True)
    out = sharpen(y)
    expected = torch.tensor([0.0, 0.0, 0.2, 0.7, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(out, expected, atol=1e-9)
    out.sum().backward()
    assert (y.grad != 0).tolist() == [False, False, True, True, False, False]


def test_periodic_networks_go_round():
    encoder = grid_encoder(16, 4, 8, periodic=True)
    decoder = grid_decoder(16, 4, 8, periodic=True)
    grid = torch.randn(2, 1, 16, 16, 16)
    once = encoder[:4]  # before the layer that takes all places together
    assert torch.allclose(once(grid.roll(4, 2)), once(grid).roll(1, 2), atol=1e-5)
    assert decoder(encoder(grid)).shape == grid.shape
    deep = torch.randn(1, 4, 4, 4, 4)
    assert torch.allclose(decoder[2:](deep.roll(1, 2)), decoder[2:](deep).roll(4, 2), atol=1e-5)


def test_spherical_interpolation():
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    middle = slerp(one, two, torch.tensor([0.5]))
    assert torch.allclose(middle, torch.full((1, 2), 3 / 2**0.5))
    ends = [slerp(one, two, torch.tensor([t])) for t in (0.0, 1.0)]
    assert torch.allclose(ends[0], one, atol=1e-6)
    assert torch.allclose(ends[1], two, atol=1e-6)
    assert torch.allclose(slerp(one, 2 * one, torch.tensor([0.25])), 1.25 * one)


def test_grids_hold_the_crystals_within_the_published_tolerances(oxides):
    voxels = FIXED.voxels()
    back = voxels.round_trip(oxides.crystals)
    written = voxels.written(oxides.crystals)
    assert within_tolerances(written, back).all()
    longer = CrystalBatch(back.crystals.lattice * 1.05, back.crystals.frac, back.crystals.numbers)
    assert not within_tolerances(written, dataclasses.replace(back, content=longer)).any()
    failed = Samples.from_reasons(back.crystals, ["no site"] * len(back))
    assert not within_tolerances(written, failed).any()


def test_moved_crystals_are_the_same_crystals(oxides):
    torch.manual_seed(0)
    moved = imatgen.moved(oxides.crystals)
    voxels = FIXED.voxels()
    assert voxels.encode_all(moved).ok.all()
    assert (moved.frac - oxides.crystals.frac).abs().amax((1, 2)).min() > 0.01
    steps = (moved.frac - oxides.crystals.frac).sub((moved.frac - oxides.crystals.frac)[:, :1])
    steps = (steps - steps.round()) * oxides.crystals.mask[..., None]
    assert steps.abs().max() < 1e-9


def test_parts_learn_from_their_own_losses(oxides):
    """The codes' loss leaves the networks that write them alone."""
    model = IMatGen.from_data(oxides, FIXED)
    model.grid_terms()
    model.code_terms()["loss"].backward()
    moved = {k: next(n.parameters()).grad is not None for k, n in model.networks.items()}
    assert moved == {
        "cell_encoder": False,
        "cell_decoder": False,
        "site_encoder": False,
        "site_decoder": False,
        "code_encoder": True,
        "code_decoder": True,
        "classifier": True,
    }


def test_the_published_output_stops_learning(oxides):
    """How many voxels of a grid have a slope: hardly any as published, all of a linear output."""
    alive = {}
    for sharpened in (True, False):
        torch.manual_seed(0)
        model = IMatGen.from_data(oxides, FIXED.but(sharpened=sharpened))
        sites = model.config.voxels().split(model.real()[0])[1].flatten(0, 1)[:, None]
        layers = [*model.site_decoder]
        body, last = (layers[:-1], layers[-1:]) if sharpened else (layers, [])
        logits = torch.nn.Sequential(*body)(model.site_encoder(sites))
        logits.retain_grad()
        imatgen.relative(torch.nn.Sequential(*last)(logits), sites).backward()
        alive[sharpened] = (logits.grad != 0).float().mean().item()
    assert alive[True] < 0.05
    assert alive[False] > 0.95


def test_the_loss_falls(oxides):
    config = FIXED.but(steps=24, log_every=6)
    model = IMatGen.from_data(oxides, config)
    history = fit(model, config.train, progress=False)
    first, last = history.rows[0], history.rows[-1]
    for term in ("grids_cell", "codes_error", "codes_stability"):
        assert last[term] < first[term]
    assert {"grids_sites", "codes_divergence"} <= last.keys()


def test_training_resumes_saves_and_loads(tmp_path):
    how = {"progress": False, "profile": "smoke"}
    whole, _ = IMatGen.train("fixed", folder=tmp_path / "a", changes={"fall": 0.0}, **how)
    for steps in (2, 4):
        changes = {"fall": 0.0, "steps": steps, "save_every": 2}
        parted, _ = IMatGen.train(
            "fixed", folder=tmp_path / "b", resume=True, changes=changes, **how
        )
    loaded = IMatGen.load(tmp_path / "a" / "model.safetensors")
    for name, network in whole.networks.items():
        for other in (parted, loaded):
            twin = other.networks[name].state_dict()
            assert all(map(torch.equal, network.state_dict().values(), twin.values()))
    assert torch.equal(whole.raw(0, 5, seed=1), loaded.raw(0, 5, seed=1))


def test_samples_walks_and_reasons(model, oxides):
    """n in, n out, with a reason for each failure."""
    for sampling in ("around", "between"):
        model.config = FIXED.but(sampling=sampling)
        made = model.sample(6, seed=0)
        assert len(made) == 6
        assert all(bool(reason) is not ok for ok, reason in zip(made.ok, made.reasons, strict=True))
    model.config = FIXED
    walk = model.walk(oxides.crystals[:2], 5)
    assert len(walk) == 5
    ends = model.encode(oxides.crystals[:2])[0]
    assert walk.ok[0] == model.decode(ends).ok[0]
    assert ((model.stable_share(ends) > 0) & (model.stable_share(ends) < 1)).all()


def test_a_crystal_that_does_not_fit_fails_alone(model, oxides):
    some = oxides.crystals[:3]
    lattice = some.lattice.clone()
    lattice[1] *= 5
    back = model.rebuilt(CrystalBatch(lattice, some.frac, some.numbers))
    alone = model.rebuilt(some)
    assert "max_edge" in back.reasons[1]
    assert not back.ok[1]
    assert [back.reasons[i] for i in (0, 2)] == [alone.reasons[i] for i in (0, 2)]


def test_published_settings_keep_the_box_and_the_empty_rows(oxides):
    paper = IMatGen.recipe("paper", profile="smoke")
    assert paper.voxels().box == 15.0
    model = IMatGen.from_data(oxides, paper)
    grids, stable = model.real()
    picture = model.picture(grids)
    assert picture.shape == (paper.batch, 6, 200)
    assert (picture[:, 3:] == 0).all()
    assert (picture[:, 0, imatgen.CELL_CODE :] == 0).all()
    assert set(stable.tolist()) <= {0.0, 1.0}


def test_errors_teach():
    with pytest.raises(InputError, match=r"24 points along each edge.*take 8, 16, 32 or 64"):
        grid_encoder(24, 4, 8, periodic=False)
    with pytest.raises(UnknownNameError, match="sampling"):
        imatgen.FIXED.but(sampling="anywhere")
    with pytest.raises(InputError, match="rows=2"):
        imatgen.FIXED.but(rows=2)


def test_stable_is_what_the_threshold_says():
    data = datasets.load("v_o", split="val")
    model = IMatGen.from_data(data, FIXED)
    assert model.stable.sum() == (data.table["formation_energy"] <= -0.5).sum()


def test_no_real_oxide_is_learnt_from():
    """Eight of the made crystals' kinds are real; none is left in what is read."""
    real = imatgen.answers()
    assert (~novel(real, datasets.load("v_o").crystals)).sum() == 8
    for variant in IMatGen.VARIANTS:
        learnt = IMatGen.read(IMatGen.recipe(variant, profile="full"), None)
        assert 500 < len(learnt) < 704
        assert novel(real, learnt.crystals).all()
