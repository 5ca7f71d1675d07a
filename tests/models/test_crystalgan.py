"""CrystalGAN: periodic neighbours, published networks and faults, maps of whole crystals."""

import numpy as np
import pytest
import torch
from pymatgen.core import Structure

from imd_helpers.descriptors.hydride_blocks import ROWS
from imd_helpers.models import crystalgan, hydride_rows, periodic
from imd_helpers.models.crystalgan import FIXED, PAPER, CrystalGan
from imd_helpers.models.hydride_networks import RowNetwork, WholeMap
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def data():
    return CrystalGan.read(FIXED)


@pytest.fixture(scope="module")
def maps(data):
    model = CrystalGan(FIXED.but(third=False))
    model.prepare(data)
    return model


def trained(data, config, **changes):
    model = CrystalGan.from_data(data, config.but(steps=2, log_every=1, seeds=16, **changes))
    fit(model, model.config.train, progress=False)
    return model


# ---- distances


def test_neighbours_are_those_of_pymatgen(maps, agrees):
    """All distances to the five nearest atoms of each kind, up to 6 Å."""
    blocks = torch.cat([maps.first[:12], maps.second[:12]]).double()
    near = hydride_rows.neighbours(blocks)
    places = {row: k for k, row in enumerate(near.used.tolist())}
    for i, one in enumerate(blocks):
        rows = hydride_rows.is_atom(blocks)[i].nonzero()[:, 0].tolist()
        kinds = ["H" if r < ROWS else "Mg" if r < 2 * ROWS else "Ti" for r in rows]
        cart = one[1:].flatten(0, 1)[rows].numpy()
        known = Structure(one[0, :3].numpy(), kinds, cart, coords_are_cartesian=True)
        for site, row in zip(known, rows, strict=True):
            found = known.get_neighbors(site, periodic.FAR)
            for k, symbol in enumerate(("H", "Mg", "Ti")):
                wanted = sorted(n.nn_distance for n in found if n.specie.symbol == symbol)[:5]
                wanted += [periodic.FAR] * (5 - len(wanted))
                agrees(near.distance[i, places[row], k].numpy(), np.array(wanted), within=1e-6)


def test_gradients_of_distances_are_those_of_finite_differences(maps):
    blocks = maps.second[:2].double()
    moved = blocks + 0.01 * torch.randn_like(blocks) * (blocks != 0)
    assert torch.autograd.gradcheck(
        lambda x: hydride_rows.neighbours(x).distance, (moved.requires_grad_(),), fast_mode=True
    )


def pair_of_atoms(distance):
    """Two H at a distance in a large cell, as blocks."""
    blocks = torch.zeros(1, 4, ROWS, 3, dtype=torch.float64)
    blocks[0, 0, :3] = 20 * torch.eye(3)
    blocks[0, 1, 0] = torch.tensor([5.0, 5.0, 5.0])
    blocks[0, 1, 1] = torch.tensor([5.0 + distance, 5.0, 5.0])
    return blocks


@pytest.mark.equation(
    "eq-crystalgan-published", function="imd_helpers.models.hydride_rows.published_squares"
)
def test_the_published_constraint_wants_every_distance_at_2_4(agrees):
    """Two atoms at three distances, by hand; it is smallest at 2.4 Å."""
    for d in (1.0, 2.4, 3.3):
        found = float(hydride_rows.published_squares(pair_of_atoms(d)))
        agrees(found, (d - 1.8) ** 2 + (3 - d) ** 2, within=1e-6)
    best = min(np.arange(1.5, 3.5, 0.1), key=lambda d: float(
        hydride_rows.published_squares(pair_of_atoms(d))))  # fmt: skip
    assert best == pytest.approx(2.4)


@pytest.mark.equation(
    "eq-crystalgan-bounds", function="imd_helpers.models.hydride_rows.out_of_bounds"
)
def test_bounds_cost_nothing_inside_them(agrees):
    """Two atoms that are too near, inside the bounds, and too far, by hand."""
    shortest = torch.full((3, 3), 1.5, dtype=torch.float64)
    for d, wanted in ((1.0, 0.5**2), (2.0, 0.0), (3.5, 0.5**2)):
        agrees(float(hydride_rows.out_of_bounds(pair_of_atoms(d), shortest)), wanted, within=1e-6)


def test_training_crystals_keep_their_own_shortest_distances(maps):
    shortest = hydride_rows.limits(maps.first, maps.second)
    assert 0.7 < shortest[0, 0] < 2
    assert 2 < shortest[1, 2] < 4
    for blocks in (maps.first, maps.second):
        near = hydride_rows.neighbours(blocks)
        low = shortest[near.kind][None, :, :, None]
        assert (near.distance >= low - 1e-5).all()


@pytest.mark.equation("eq-crystalgan-cycle", function="imd_helpers.models.crystalgan.cycle_error")
def test_error_of_the_way_there_and_back(agrees):
    """Points that come back three times as far out: four times their mean square."""
    start = torch.randn(7, 3, dtype=torch.float64)
    wanted = 4 * float(start.square().mean())
    agrees(float(crystalgan.cycle_error(3 * start, start)), wanted, within=1e-12)
    assert crystalgan.cycle_error(start, start) == 0


# ---- networks


def test_sizes_are_the_published_ones():
    """91.6 and 91.4 thousand weights with ten layers."""
    networks = CrystalGan(PAPER, {"ternary.first": None}).networks
    sizes = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    assert sizes["to_first"] == sizes["to_second"] == 91_603
    assert sizes["discriminator_first"] == 91_401


def test_a_published_map_sees_one_row(maps):
    network, blocks = RowNetwork(PAPER, 3), maps.first[:3].clone()
    before = network(blocks)
    blocks[:, 1, 0] += 1.0
    other = network(blocks) != before
    assert other[:, 1, 0].any()
    other[:, 1, 0] = False
    assert not other.any()


def test_a_turned_and_shifted_crystal_is_mapped_to_the_same_crystal(maps):
    network, blocks = WholeMap(FIXED), maps.second[:4]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    atom = hydride_rows.is_atom(blocks)
    frac = hydride_rows.in_cell(blocks) + torch.tensor([0.2, 0.3, 0.4])
    moved = hydride_rows.with_cell(blocks[:, 0, :3] @ turn, frac % 1.0, atom)
    found = []
    for start in (blocks, moved):
        torch.manual_seed(0)
        found.append(hydride_rows.neighbours(network(start)).distance)
    assert torch.allclose(*found, atol=2e-3)
    start = hydride_rows.neighbours(blocks).distance
    assert (found[0] - start).abs().max() > 0.01


@pytest.mark.parametrize("config", [PAPER, FIXED])
def test_blocks_in_double_precision_and_a_flat_cell_among_them(config, maps):
    """The flat one has no logit, or, seen row by row, nothing to do with the others."""
    model = CrystalGan(config.but(third=False))
    model.discriminator_first.eval()
    blocks = maps.second[:5].double().numpy().copy()
    wanted = model.discriminator_first(blocks)
    blocks[2, 0] = 0.0
    found = model.discriminator_first(blocks)
    assert found[2].isnan().all() or not config.whole
    assert torch.allclose(found[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]], atol=1e-6)
    assert model.map(model.to_first, blocks[:2]).isfinite().all()
    with pytest.raises(InputError, match=r"expected \(batch, 4, 18, 3\)"):
        model.discriminator_first(blocks[:, :, :17])


# ---- training


def test_the_published_code_never_updates_its_second_discriminator(data):
    for config, still in ((PAPER, True), (FIXED, False)):
        few = config.but(steps=2, log_every=1, seeds=16)
        model = CrystalGan.from_data(data, few)
        before = [p.clone() for p in model.discriminator_second.parameters()]
        fit(model, few.train, progress=False)
        after = list(model.discriminator_second.parameters())
        assert all(map(torch.equal, before, after)) is still


def test_ternaries_hold_three_elements_and_come_back(data, tmp_path):
    model = trained(data, FIXED)
    blocks = model.learnt["ternary.first"]
    counts = [hydride_rows.is_atom(blocks)[:, k * ROWS : (k + 1) * ROWS].sum(1) for k in range(3)]
    assert len(blocks) == 16
    assert torch.stack(counts).min() >= 1
    made = model.sample(20, seed=3)
    numbers = set(made.valid().numbers.unique().tolist())
    assert numbers - {0} == {1, 12, 22}
    loaded = CrystalGan.load(model.save(tmp_path / "model.safetensors"))
    assert torch.equal(loaded.raw(0, 20, seed=3), model.raw(0, 20, seed=3))


def test_the_published_maps_have_no_noise(data):
    """As many different samples as there are pairs of rows, in both directions."""
    model = trained(data, PAPER)
    drawn = model.raw(0, 1_000, seed=0)
    pairs = 2 * min(len(data.first), len(data.second))
    assert len(torch.unique(drawn, dim=0)) <= pairs


def test_training_goes_on_bit_for_bit(tmp_path):
    how = {"variant": "fixed", "profile": "smoke", "progress": False}
    changes = {"seeds": 16, "log_every": 1, "save_every": 1}
    whole, _ = CrystalGan.train(**how, changes={**changes, "steps": 3})
    for resume in (False, True):
        parted, _ = CrystalGan.train(
            **how, changes={**changes, "steps": 3}, folder=tmp_path, resume=resume
        )
    for name, network in whole.networks.items():
        twin = parted.networks[name].state_dict().values()
        assert all(map(torch.equal, network.state_dict().values(), twin))


def test_bad_settings_are_named():
    with pytest.raises(InputError, match="latent"):
        FIXED.but(latent=-1)
    with pytest.raises(InputError, match="constraint"):
        FIXED.but(constraint="hope")
    with pytest.raises(InputError, match=r"metal=79.*12 \(Mg\)"):
        crystalgan.hydrides_of(79)
