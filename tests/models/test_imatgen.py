"""iMatGen: published sizes, the re-mapping without a slope, to the latent space and back."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.samples import Samples
from imd_helpers.matching.same import novel
from imd_helpers.models import imatgen, imatgen_crystals
from imd_helpers.models.imatgen import IMatGen
from imd_helpers.models.imatgen_crystals import within_tolerances
from imd_helpers.models.imatgen_networks import (
    cell_numbers,
    cell_of,
    grid_decoder,
    grid_encoder,
    sharpen,
    slerp,
)
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError, UnknownNameError

FIXED = IMatGen.recipe("fixed", profile="smoke")


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.models.{function}")


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


@verifies("eq-imatgen-remap", "imatgen_networks.sharpen")
def test_the_remapping_has_a_slope_in_one_place_only(agrees):
    """min(10^4 (clip(y, 0.5, 0.5001) - 0.5), 1), by hand."""
    y = torch.tensor([0.0, 0.4, 0.50002, 0.50007, 0.51, 1.0], dtype=torch.float64)
    y.requires_grad_(True)
    out = sharpen(y)
    expected = torch.tensor([0.0, 0.0, 0.2, 0.7, 1.0, 1.0], dtype=torch.float64)
    agrees(out.detach(), expected, within=1e-9)
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


@verifies("eq-imatgen-slerp", "imatgen_networks.slerp")
def test_spherical_interpolation(agrees):
    """Between two points on a circle of radius 3, the point at a third of the right angle."""
    agrees(
        slerp(*torch.eye(2).double().mul(3).split(1), torch.tensor([1 / 3], dtype=torch.float64)),
        3 * np.array([[np.cos(np.pi / 6), np.sin(np.pi / 6)]]),
        within=1e-9,
    )
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


def test_varied_crystals_are_nearly_the_same_crystals(oxides):
    """Another origin; the rest within what a strain of 3 % and steps of 0.1 Å do."""
    torch.manual_seed(0)
    given = oxides.crystals
    varied = imatgen_crystals.varied(given)
    assert (varied.counts() == given.counts()).all()
    step = varied.frac - given.frac
    assert step.abs().amax((1, 2)).min() > 0.01
    step = (step - step[:, :1]) * given.mask[..., None]
    far = ((step - step.round()) @ given.lattice).norm(dim=-1)
    assert 0.02 < far[:, 1].mean() < 0.3
    assert far.max() < 1.0
    ratio = varied.lattice.det() / given.lattice.det()
    assert 0.01 < (ratio - 1).abs().mean() < 0.15


def test_turned_grids_are_those_of_turned_crystals():
    """Every turned grid is one of the 48 orders and signs of the axes, from another origin."""
    torch.manual_seed(0)
    grid = torch.rand(1, 1, 4, 4, 4)
    for _ in range(5):
        turned = imatgen_crystals.turned(grid)
        assert torch.equal(turned.flatten().sort()[0], grid.flatten().sort()[0])
        # neighbours stay neighbours: the six products of a grid with its neighbours are the same
        both = [
            sorted(round(float((g * g.roll(1, axis)).sum()), 3) for axis in (2, 3, 4))
            for g in (grid, turned)
        ]
        assert both[0] == both[1]


@verifies("eq-imatgen-cell", "imatgen_networks.cell_numbers")
def test_six_numbers_of_a_cell_by_pymatgen(agrees):
    """Edges in units of 10 Å and cosines of gamma, beta and alpha."""
    from pymatgen.core import Lattice

    cell = Lattice.from_parameters(4, 5, 6, 80, 95, 110)
    found = cell_numbers(torch.tensor(cell.matrix.copy())[None], 10.0)[0]
    cosines = np.cos(np.deg2rad([cell.gamma, cell.beta, cell.alpha]))
    agrees(found, np.concatenate([np.array(cell.abc) / 10, cosines]), within=1e-9)


@verifies("eq-imatgen-error", "imatgen_crystals.relative")
def test_error_beside_an_empty_drawing(agrees):
    """Sums of squares by NumPy."""
    made, wanted = np.random.default_rng(0).random((2, 3, 4, 4))
    expected = ((made - wanted) ** 2).sum() / (wanted**2).sum()
    agrees(imatgen_crystals.relative(*map(torch.as_tensor, (made, wanted))), expected, within=1e-9)


@verifies("eq-imatgen-loss", "imatgen.IMatGen.code_terms")
def test_the_loss_of_codes_term_by_term(oxides, agrees):
    """Error, divergence and cross-entropy by NumPy, of networks that give fixed numbers."""
    model = IMatGen.from_data(oxides, IMatGen.recipe("paper", profile="smoke"))
    n, latent, c = imatgen.CODE_BATCH, model.config.latent, model.config
    picture = torch.rand(1, c.rows, c.site_code)
    made = torch.rand(n, c.rows, c.site_code)
    mean, log_variance, logit = torch.randn(n, latent), torch.randn(n, latent), torch.randn(n, 1)
    model.pictures, model.stable = picture, torch.ones(1)
    model.code_encoder, model.code_decoder, model.classifier = (
        lambda x: (mean, log_variance),
        lambda z: made,
        lambda z: logit,
    )
    m, v = mean.double().numpy(), log_variance.double().numpy()
    error = ((made - picture).double().numpy() ** 2).mean() / (picture.double().numpy() ** 2).mean()
    divergence = 0.5 * (np.exp(v) + m**2 - 1 - v).sum(1).mean()
    wrong = np.log1p(np.exp(-logit.double().numpy())).mean()
    found = model.code_terms()["loss"]
    agrees(found, error + 1e-6 * divergence + wrong, within=1e-5)


def test_a_cell_is_six_numbers():
    """Edges 4, 5, 6 Å at 80, 95 and 110 degrees, to numbers and back; three at 125 are no cell."""
    angles = torch.tensor([80.0, 95.0, 110.0, 125.0, 125.0, 125.0]).deg2rad().cos().view(2, 3)
    numbers = torch.cat([torch.tensor([[0.4, 0.5, 0.6]] * 2), angles], 1)
    lattice = cell_of(numbers, 10.0)
    assert torch.allclose(lattice[0].norm(dim=-1), torch.tensor([4.0, 5.0, 6.0]).double())
    assert torch.allclose(cell_numbers(lattice[:1], 10.0).float(), numbers[:1], atol=1e-6)
    assert lattice[1].isnan().any()
    voxels = FIXED.voxels()
    grids = imatgen_crystals.cell_grids(voxels, numbers)
    assert (grids[1] == 0).all()
    found, reasons = voxels.read_cells(grids)
    assert torch.allclose(found[0], lattice[0], atol=1e-3)
    assert reasons == ["", "the grid of the cell is empty"]


def test_parts_learn_one_after_the_other(oxides):
    """First the coders of grids alone, then with these at rest what reads their codes."""
    model = IMatGen.from_data(oxides, FIXED.but(steps=6, grids=0.5, log_every=1))
    found = []

    def keep(step, game, history):
        state = game.networks.items()
        found.append({k: parameters_to_vector(n.parameters()).detach() for k, n in state})

    history = fit(model, model.config.train, callbacks=[keep], progress=False)
    for name in model.networks:
        moves = [not torch.equal(found[k][name], found[k + 1][name]) for k in range(5)]
        first = name.startswith("site")
        assert moves == [first, first, not first, not first, not first]
    assert all(("grids_loss" in row) == (row["step"] <= 3) for row in history.rows)
    assert all(("codes_loss" in row) == (row["step"] > 3) for row in history.rows)


def test_the_published_output_needs_layers_without_biases(oxides):
    """Voxels with a slope: about half of the original's, none with biases, all of a linear end."""
    alive, paper = {}, IMatGen.recipe("paper", profile="smoke")
    for name, changes in {
        "original": {},
        "biased": {"biased": True},
        "linear": {"sharpened": False, "biased": True},
    }.items():
        model = IMatGen.from_data(oxides, paper.but(**changes))
        sites = model.sites.flatten(0, 1)[:, None]
        layers = [*model.site_decoder]
        body, last = (layers, []) if name == "linear" else (layers[:-1], layers[-1:])
        logits = torch.nn.Sequential(*body)(model.site_encoder(sites))
        logits.retain_grad()
        imatgen_crystals.relative(torch.nn.Sequential(*last)(logits), sites).backward()
        alive[name] = (logits.grad != 0).float().mean().item()
    assert 0.2 < alive["original"] < 0.9
    assert alive["biased"] < 0.05
    assert alive["linear"] > 0.95


def test_coders_of_the_original_have_no_biases():
    for name, network in IMatGen(imatgen.PAPER).networks.items():
        biased = any(key.endswith("bias") for key in network.state_dict())
        assert biased is not name.startswith(("cell", "site"))


def test_the_losses_fall(oxides):
    config = FIXED.but(steps=60, log_every=6)
    model = IMatGen.from_data(oxides, config)
    history = fit(model, config.train, progress=False)
    for term in ("grids_sites", "codes_error", "codes_stability"):
        rows = [row[term] for row in history.rows if term in row]
        assert rows[-1] < rows[0]
    assert "codes_divergence" in history.rows[-1]


def test_training_resumes_saves_and_loads(tmp_path, monkeypatch):
    """Stopped among the grids, and once more among the codes."""
    changes = {"steps": 8, "grids": 0.5, "save_every": 1, "log_every": 3}
    how = {"progress": False, "profile": "smoke", "changes": changes}
    whole, _ = IMatGen.train("fixed", folder=tmp_path / "a", **how)
    for part in ("grid_terms", "code_terms"):
        calls, terms = [], getattr(IMatGen, part)

        def stops(self, calls=calls, terms=terms):
            calls.append(None)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return terms(self)

        with monkeypatch.context() as patch:
            patch.setattr(IMatGen, part, stops)
            with pytest.raises(KeyboardInterrupt):
                IMatGen.train("fixed", folder=tmp_path / "b", resume=True, **how)
    parted, history = IMatGen.train("fixed", folder=tmp_path / "b", resume=True, **how)
    assert [row["step"] for row in history.rows] == [3, 6, 8]
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
    with pytest.raises(InputError, match="1 crystals: a walk goes from one"):
        model.walk(oxides.crystals[:1], 5)
    long = CrystalBatch(5 * oxides.crystals.lattice, oxides.crystals.frac, oxides.crystals.numbers)
    with pytest.raises(InputError, match=r"max_edge.*: a walk goes"):
        model.walk(long[:2], 5)
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
    assert len(model.sites) == len(oxides)
    picture = model.picture(model.cells, model.sites)
    assert picture.shape == (len(oxides), 6, 200)
    assert (picture[:, 3:] == 0).all()
    assert (picture[:, 0, imatgen.CELL_CODE :] == 0).all()
    assert set(model.stable.tolist()) <= {0.0, 1.0}
    assert model.grid_terms().keys() == {"loss", "sites", "cell"}


def test_errors_teach():
    with pytest.raises(InputError, match=r"24 points along each edge.*take 8, 16, 32 or 64"):
        grid_encoder(24, 4, 8, periodic=False)
    with pytest.raises(UnknownNameError, match="sampling"):
        imatgen.FIXED.but(sampling="anywhere")
    with pytest.raises(InputError, match="rows=2"):
        imatgen.FIXED.but(rows=2)


def test_stable_is_what_the_threshold_says():
    data = datasets.load("v_o", split="val")
    model = IMatGen.from_data(data, FIXED.but(copies=0))
    data = data[np.flatnonzero(FIXED.voxels().verdict(data.crystals).ok)]
    assert model.stable.sum() == (data.table["formation_energy"] <= -0.5).sum()


def test_no_real_oxide_is_learnt_from():
    """Eight of the made crystals' kinds are real; none is left in what is read."""
    real = imatgen.answers()
    assert (~novel(real, datasets.load("v_o").crystals)).sum() == 8
    for variant in IMatGen.VARIANTS:
        learnt = IMatGen.read(IMatGen.recipe(variant, profile="full"), None)
        assert 500 < len(learnt) < 704
        assert novel(real, learnt.crystals).all()
