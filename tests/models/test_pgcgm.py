"""PGCGM: contacts of whole crystals, projection, published sizes and faults, decoding, training."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from imd_helpers import datasets
from imd_helpers.crystals import symmetry
from imd_helpers.models import pgcgm_crystals, pgcgm_networks, pgcgm_sites
from imd_helpers.models.pgcgm import FIXED, FREE, PAPER, Pgcgm
from imd_helpers.models.pgcgm_sites import PAIRS, SPACE_GROUPS, BaseSites
from imd_helpers.runtime import InputError

SMALL = {"most_sites": 4, "width": 1 / 32, "batch": 8, "log_every": 1, "save_every": 1, "fall": 0}


@pytest.fixture(scope="module")
def sites():
    """Up to four real crystals of each group, at most 14 sites."""
    known = datasets.load("oqmd_icsd", split="val").select(nelements=3, max_sites=14)
    group = known.table["space_group"].to_numpy()
    rows = [i for g in SPACE_GROUPS for i in np.flatnonzero(group == g)[:12]]
    found, _ = pgcgm_sites.find_base_sites(known[np.array(rows)].crystals)
    first = [i for g in SPACE_GROUPS for i in np.flatnonzero(found.space_group == g)[:4]]
    return found[np.array(first)]


@pytest.fixture(scope="module")
def data():
    return Pgcgm.read(FREE.but(most_sites=4))


def tensors(sites):
    group = torch.as_tensor(pgcgm_sites.group_index(sites.space_group))
    return torch.as_tensor(sites.frac), group, torch.as_tensor(sites.lattice())


def model_of(data, config, **changes):
    return Pgcgm.from_data(data, config.but(**SMALL, **changes))


# ---- groups and distances


@pytest.mark.equation("eq-pgcgm-contact", function="imd_helpers.models.pgcgm_sites.contacts")
def test_contacts_are_those_of_pymatgen(sites, agrees):
    """The nearest two atoms of each pair of elements in the full crystal, periodic images too."""
    frac, group, lattice = tensors(sites)
    assert len(set(sites.space_group.tolist())) >= 15
    found = pgcgm_sites.contacts(frac, group, lattice)
    full, _ = symmetry.expand(sites.space_group, lattice.numpy(), frac.numpy(), sites.numbers)
    for i, known in enumerate(full.structures()):
        z = np.array(known.atomic_numbers)
        apart = known.distance_matrix + np.diag([min(known.lattice.abc)] * len(z))
        for k, (one, two) in enumerate(PAIRS):
            rows = z == sites.numbers[i, one], z == sites.numbers[i, two]
            agrees(float(found[i, k]), apart[np.ix_(*rows)].min(), within=1e-5)


def test_gradients_of_contacts_are_those_of_finite_differences(sites):
    frac, group, lattice = (x[:6] for x in tensors(sites))
    moved = (
        frac + 0.07 * torch.rand(frac.shape, generator=torch.Generator().manual_seed(0)).double()
    )
    assert torch.autograd.gradcheck(
        lambda x, y: pgcgm_sites.contacts(x, group, y),
        (moved.requires_grad_(), lattice.requires_grad_()),
        fast_mode=True,
    )


def test_distances_of_base_sites_are_those_of_pymatgen(sites, agrees):
    frac, _, lattice = (x[:8] for x in tensors(sites))
    rng = torch.Generator().manual_seed(1)
    three = (frac[:, None] + torch.rand(8, 3, 1, 3, generator=rng)) % 1.0
    in_set, of_element = pgcgm_networks.base_distances(three, lattice)
    for i in range(8):
        cell = Lattice(lattice[i].numpy())
        for k, (one, two) in enumerate(PAIRS[:3]):
            for j in range(3):
                a, b = three[i, j, one].numpy(), three[i, j, two].numpy()
                agrees(float(in_set[i, k, j]), cell.get_distance_and_image(a, b)[0], within=1e-5)
                a, b = three[i, one, j].numpy(), three[i, two, j].numpy()
                agrees(
                    float(of_element[i, k, j]), cell.get_distance_and_image(a, b)[0], within=1e-5
                )


@pytest.mark.equation("eq-pgcgm-near", function="imd_helpers.models.pgcgm_sites.too_near")
def test_loss_of_distances_by_hand(agrees):
    """Three atoms 1, 2 and 3 Å away, all wanted at 2.5 Å: 1.5 and 0.5 Å are lacking."""
    found = pgcgm_sites.too_near(torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.5))
    agrees(float(found), 2 / 3, within=1e-6)


@pytest.mark.equation("eq-pgcgm-project", function="imd_helpers.models.pgcgm_sites.projected")
def test_projection_by_hand_and_on_real_sites(sites, agrees):
    """A site beside a corner of Pm-3m falls on it; real sites stay, with their multiplicities."""
    frac = torch.tensor([[[0.03, 0.98, 0.01]]], dtype=torch.float64)
    cube = torch.eye(3, dtype=torch.float64)[None] * 4
    group = torch.tensor([SPACE_GROUPS.index(221)])
    onto, many = pgcgm_sites.projected(frac, group, cube, torch.ones(1, 1))
    agrees(np.abs(onto.numpy() - np.rint(onto.numpy())).max(), 0.0, within=1e-9)
    assert many.tolist() == [[1]]
    frac, group, lattice = tensors(sites)
    within = torch.as_tensor(1.2 * pgcgm_sites.radius_of(sites.numbers))
    onto, many = pgcgm_sites.projected(frac, group, lattice, within)
    agrees(onto.numpy(), frac.numpy(), within=1e-3)
    counted = symmetry.expand(sites.space_group, lattice.numpy(), frac.numpy(), sites.numbers)[1]
    assert (many.numpy() == counted).all()


def test_positions_of_real_sites(sites, agrees):
    """A real site is on its position; its other points have as many images."""
    place = pgcgm_crystals.positions(sites)
    turn, shift = place[..., :3], place[..., 3]
    frac, group, lattice = tensors(sites)

    def onto(point):
        return (turn @ point[..., None])[..., 0] + shift

    agrees(onto(frac).numpy(), frac.numpy(), within=1e-3)
    agrees((turn @ turn).numpy(), turn.numpy(), within=1e-9)
    point = onto(torch.rand(frac.shape, generator=torch.Generator().manual_seed(0)).double())
    agrees(onto(point).numpy(), point.numpy(), within=1e-9)
    nothing = torch.zeros(len(sites), 3)
    many = pgcgm_sites.projected(point, group, lattice, nothing)[1]
    same = many == pgcgm_sites.projected(frac, group, lattice, nothing)[1]
    assert same.double().mean() > 0.95  # by chance a point may be a more special one


def test_a_description_does_not_depend_on_image_or_origin(sites):
    rng = np.random.default_rng(0)
    for group, frac in zip(sites.space_group.tolist(), sites.frac, strict=True):
        rotations, translations = symmetry.operations(group)
        shift = rng.choice(pgcgm_sites.origins(group))
        some = rng.integers(len(rotations), size=3)
        moved = np.einsum("kij,kj->ki", rotations[some], frac + shift) + translations[some]
        again = pgcgm_sites.smallest(group, moved)
        assert np.abs(again - frac).max() < 1e-3


@pytest.mark.equation("eq-pgcgm-length", function="imd_helpers.models.pgcgm_sites.coded")
def test_lengths_and_their_codes(agrees):
    """1 Å is -1 and exp(m) is 0; a cube's three edges become their mean."""
    lengths = torch.tensor([[1.0, np.exp(1.5237), 7.0]], dtype=torch.float64)
    code = pgcgm_sites.coded(lengths)
    agrees(code[0, :2].numpy(), np.array([-1.0, 0.0]), within=1e-9)
    agrees(pgcgm_sites.uncoded(code).numpy(), lengths.numpy(), within=1e-9)
    cube = pgcgm_sites.averaged(torch.tensor([[3.0, 4.0, 8.0]]), torch.tensor([9]))
    agrees(cube.numpy(), np.full((1, 3), 5.0), within=1e-6)


# ---- decoding


@pytest.mark.parametrize(("config", "least"), [(PAPER, 0.9), (FREE, 0.95)])
def test_real_crystals_come_back(config, least, sites, data):
    """Through rounding and clusters, or through the projection."""
    made = model_of(data, config).decode(sites)
    assert made.ok.mean() > least, [why for why in made.reasons if why]
    assert all(why.startswith(("distance", "group")) for why in made.reasons if why)
    lattice = sites.lattice()
    wanted, _ = symmetry.expand(sites.space_group, lattice, sites.frac, sites.numbers)
    for i in np.flatnonzero(made.ok):
        one, other = (x[i : i + 1].structures()[0] for x in (made.crystals, wanted))
        assert one.composition == other.composition
        off = one.lattice.get_all_distances(one.frac_coords, other.frac_coords).min(1)
        assert off.max() < 0.25


def test_two_decimals_break_a_threefold_axis_and_both_repairs_mend_it():
    sites = BaseSites(
        np.array([164]), np.array([[11, 3, 8]]), np.array([[6.0, 6.0, 9.0]]),
        np.array([[[0, 0, 0], [1 / 3, 2 / 3, 0.2], [1 / 3, 2 / 3, 0.55]]]),
    )  # fmt: skip
    rounded = sites.frac.round(2)
    broken, _ = symmetry.expand(
        sites.space_group, sites.lattice(), rounded, sites.numbers, tolerance=1e-3
    )
    assert int(broken.n_sites[0]) == 1 + 6 + 6
    for projects in (False, True):
        whole = pgcgm_crystals.expanded(sites, decimals=2, projects=projects)
        assert int(whole.n_sites[0]) == 1 + 2 + 2
        assert symmetry.space_group_numbers(whole)[0] == 164


def test_images_between_both_published_bounds_are_merged_where_asked(data):
    """Six Li at 0.65 of the sum of two radii around a corner: refused, or one atom on it."""
    radius = pgcgm_sites.radius_of(3)
    x = 0.65 * 2 * radius / 2**0.5 / 10
    sites = BaseSites(
        np.array([221]), np.array([[3, 30, 8]]), np.full((1, 3), 10.0),
        np.array([[[x, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]]),
    )  # fmt: skip
    for merged, n, ok in ((0.6, 10, False), (0.75, 5, True)):
        whole = pgcgm_crystals.expanded(sites, decimals=None, projects=True, merged=merged)
        assert int(whole.n_sites[0]) == n
        assert model_of(data, FREE, merged=merged).decode(sites).ok.tolist() == [ok]


def test_one_bad_sample_does_not_stop_the_rest(sites, data):
    some = BaseSites(sites.space_group, sites.numbers, sites.lengths.copy(), sites.frac.copy())
    some.lengths[0, 0], some.lengths[1, 1], some.frac[2, 0, 0] = -1.0, 1e9, np.nan
    some.frac[3, 1] = some.frac[3, 0]
    for config in (PAPER, FREE):
        made = model_of(data, config).decode(some)
        assert not made.ok[:4].any()
        assert "edges of" in made.reasons[0]
        assert "edges of" in made.reasons[1]
        assert "NaN" in made.reasons[2]
        assert made.reasons[3].startswith("distance")
        assert made.ok[4:].mean() > 0.9
        assert len(made) == len(some)


# ---- the model


def test_sizes_are_the_published_ones(data):
    networks = Pgcgm.from_data(data, PAPER).networks
    sizes = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    assert sizes == {"generator": 4_750_342, "critic": 724_881}


def test_blind_spots_of_the_published_generator(data):
    """Coordinates do not change with the group, nor lengths with the elements."""
    for config, blind in ((PAPER, True), (FREE, False)):
        model = model_of(data, config)
        model.generator.eval()
        noise, features = torch.randn(4, model.config.latent), torch.rand(4, 3, 23)
        zero = torch.zeros(4, dtype=torch.long)
        start = model.generator(noise, zero, features)
        other = model.generator(noise, zero + 5, features)
        assert torch.equal(start[0], other[0]) is blind
        assert not torch.equal(start[1], other[1])
        other = model.generator(noise, zero, features.flip(1))
        assert torch.equal(start[1], other[1]) is blind
        assert not torch.equal(start[0], other[0])


def test_what_the_losses_say_goes_into_the_generators_loss(data):
    for config in (PAPER, FREE):
        found = []
        for inter, intra in ((False, False), (True, False), (False, True)):
            model = model_of(data, config, inter=inter, intra=intra, strength=2.0)
            torch.manual_seed(3)
            found.append({k: float(v.detach()) for k, v in model.generator_terms().items()})
        plain = found[0]
        for each, name in zip(found[1:], ("inter", "intra"), strict=True):
            assert each["loss"] - plain["loss"] == pytest.approx(2 * plain[name], abs=1e-4)


def test_the_loss_on_the_room_of_atoms(data):
    """Zero within one deviation of the training cells, and linear in ln(volume) beyond."""
    model = model_of(data, FREE, cell=3.0, inter=False, intra=False)
    mean, deviation = model.usual
    real = model.data
    model.scorer = lambda labels: lambda seen: seen[:, :1]
    found = []
    for stretch in (1.0, 2.0):
        model.generate = lambda labels, by=stretch: real._replace(lengths=by * real.lengths)
        found.append({k: float(v.detach()) for k, v in model.generator_terms().items()})
    off = (model.seen[:, -1] - mean).abs() - deviation
    assert found[0]["cell"] == pytest.approx(float(off.clamp(min=0).mean()), abs=1e-5)
    assert found[0]["cell"] < 0.5 * deviation
    assert found[1]["cell"] > found[0]["cell"] + 1.0  # 3 ln 2 each, less the deviation
    with pytest.raises(InputError, match="choose blind=False or cell=0"):
        PAPER.but(cell=1.0)


def test_sites_on_drawn_positions(data, tmp_path):
    """Each made site is on the position of a training crystal of its group, also after a file."""
    model = model_of(data, FIXED)
    for each in (model, Pgcgm.load(model.save(tmp_path / "model.safetensors"))):
        made = each.raw(0, 20, seed=3)
        found = pgcgm_crystals.positions(made).float()
        for group, place in zip(made.space_group, found, strict=True):
            known = each.learnt["positions"][torch.as_tensor(data.space_group == group)]
            assert (known - place).abs().flatten(1).amax(1).min() < 1e-4
    model.generator_terms()["loss"].backward()
    assert all(p.grad is not None for p in model.generator.parameters())
    with pytest.raises(InputError, match="choose blind=False or placed=False"):
        PAPER.but(placed=True)


def test_what_is_asked_for_is_made(data):
    for config in (PAPER, FIXED, FREE):
        model = model_of(data, config)
        made = model.raw(0, 6, condition={"space_group": 139, "elements": ("O", "Cs", "Cu")})
        assert set(made.space_group.tolist()) == {139}
        assert made.numbers.tolist() == [[55, 29, 8]] * 6
        assert np.allclose(made.lengths[:, 0], made.lengths[:, 1])
        assert len(model.sample(5, condition={"labels": "uniform"}, seed=1)) == 5
        with pytest.raises(InputError, match="space group 230: PGCGM knows 20"):
            model.sample(2, condition={"space_group": 230})
        with pytest.raises(InputError, match="three different symbols"):
            model.sample(2, condition={"elements": ("O", "O", "Cu")})


@pytest.mark.parametrize("variant", Pgcgm.VARIANTS)
def test_training_goes_on_bit_for_bit(variant, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Pgcgm, "read", classmethod(lambda cls, config, split="train": data))
    how = {"variant": variant, "profile": "smoke", "progress": False}
    whole, _ = Pgcgm.train(**how, changes={**SMALL, "steps": 3})
    for steps, resume in ((1, False), (3, True)):
        parted, history = Pgcgm.train(
            **how, changes={**SMALL, "steps": steps}, folder=tmp_path, resume=resume
        )
    assert [row["step"] for row in history.rows] == [1, 2, 3]
    for name, network in whole.networks.items():
        twin = parted.networks[name].state_dict().values()
        assert all(map(torch.equal, network.state_dict().values(), twin))
    loaded = Pgcgm.load(tmp_path / "model.safetensors")
    assert loaded.sample(3, seed=2).reasons == parted.sample(3, seed=2).reasons


def test_bad_settings_are_named():
    wrong = {"apart": -1, "strength": "much", "most_sites": 2, "decimals": -1, "merged": -1}
    wrong |= {"cell": -1}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=name):
            FREE.but(**{name: value})


def test_structures_of_the_groups_are_found_again():
    """A perovskite of pymatgen's own making."""
    cell = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.9), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]
    )
    from imd_helpers.crystals import CrystalBatch

    found, kept = pgcgm_sites.find_base_sites(CrystalBatch.from_structures([cell]))
    assert kept.tolist() == [0]
    assert (found.space_group.tolist(), found.numbers.tolist()) == ([221], [[38, 22, 8]])
    assert sorted(found.frac[0].sum(1).round(6)) in ([0, 0.5, 1.5], [0, 1, 1.5])
