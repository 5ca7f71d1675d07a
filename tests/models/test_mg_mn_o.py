"""The composition-conditioned GAN of Mg-Mn-O: published sizes, symmetries, quirks, training."""

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.models import coordinate_networks, coordinate_rows, mg_mn_o, periodic
from imd_helpers.models.coordinate_rows import DESCRIPTOR, NUMBERS
from imd_helpers.models.mg_mn_o import MgMnOGan
from imd_helpers.networks import fit
from imd_helpers.runtime import InputError


@pytest.fixture(scope="module")
def oxides():
    """Real ternary oxides of two other metals, with Mg and Mn in their places."""
    known = datasets.load("oqmd_icsd", split="test").select(elements=["O"], nelements=3)
    out = []
    for one in known.crystals:
        metals = [z for z in torch.unique(one.numbers).tolist() if z not in (0, 8)]
        numbers = one.numbers.clone()
        for old, new in zip(metals, (12, 25), strict=True):
            numbers[one.numbers == old] = new
        out.append(CrystalBatch(one.lattice, one.frac, numbers))
    made = CrystalBatch.cat(out)
    return made[DESCRIPTOR.encode_all(made).ok][:40]


@pytest.fixture(scope="module")
def matrices(oxides):
    return DESCRIPTOR.encode(oxides)


def model_of(variant, oxides, **changes):
    config = MgMnOGan.recipe(variant, profile="smoke").but(**changes)
    return MgMnOGan.from_data(oxides, config)


LEARNT = {"rows": "classifier", "sees": "rows", "width": 1 / 16}  # the composition, by `fixed`


def same(one, two):
    matcher = StructureMatcher(scale=False)
    pairs = zip(one.structures(), two.structures(), strict=True)
    return np.array([matcher.fit(a, b) for a, b in pairs])


def test_sizes_are_the_published_ones():
    """Kim et al.'s code: 2.31, 1.88 and, without the branch that has no loss, 0.72 million."""
    networks = MgMnOGan(mg_mn_o.PAPER).networks
    sizes = {k: sum(p.numel() for p in n.parameters()) / 1e6 for k, n in networks.items()}
    assert sizes["generator"] == pytest.approx(2.31, abs=0.005)
    assert sizes["critic"] == pytest.approx(1.88, abs=0.005)
    assert sizes["classifier"] == pytest.approx(0.72, abs=0.005)


def test_layers_of_the_critic_are_those_of_torch():
    """Values and first and second derivatives of a dense layer and a leaky ReLU."""
    torch.manual_seed(0)
    layer = coordinate_networks.RowDense(3, 5).double()
    pairs = [
        (layer, lambda x: torch.nn.functional.linear(x, layer.weight, layer.bias)),
        (coordinate_networks.ConstantSlope(0.2), torch.nn.LeakyReLU(0.2)),
    ]
    for pair in pairs:
        found = []
        for one in pair:
            x = torch.linspace(-1, 1, 24).double().reshape(2, 4, 3).requires_grad_(True)
            y = one(x)
            (slope,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
            found.append((y, slope, *torch.autograd.grad((slope**2).sum(), x)))
        assert all(map(torch.allclose, *found))


def test_moved_matrices_are_the_same_crystals(oxides, matrices):
    moved = coordinate_rows.moved(matrices, torch.Generator().manual_seed(0))
    assert (moved - matrices).abs().flatten(1).amax(1).min() > 0.01
    made = DESCRIPTOR.decode(moved)
    assert made.ok.all()
    assert same(oxides, made.crystals).all()


def test_doubled_cells_and_the_published_mistake(oxides, matrices):
    right = DESCRIPTOR.decode(coordinate_rows.doubled(matrices, right=True))
    scrambled = DESCRIPTOR.decode(coordinate_rows.doubled(matrices, right=False))
    assert len(right) == len(scrambled) >= 9
    _, counts = coordinate_rows.n_atoms(matrices)
    small = (counts <= torch.tensor([4, 4, 6])).all(1) & (matrices[:, 0].amax(1) <= 0.5)
    parents = oxides[small.nonzero()[:, 0].repeat_interleave(3)]
    assert same(parents, right.crystals).all()
    assert same(parents, scrambled.crystals).mean() < 0.2


def test_the_critic_sees_no_order_within_an_element(matrices):
    critic = MgMnOGan(mg_mn_o.PAPER.but(width=1 / 8)).critic
    order = torch.cat([torch.arange(2), 2 + torch.randperm(8), torch.arange(10, 30)])
    mixed = torch.cat([torch.arange(2), 2 + torch.randperm(28)])
    assert torch.allclose(critic(matrices[:, order]), critic(matrices), atol=1e-5)
    assert not torch.allclose(critic(matrices[:, mixed]), critic(matrices), atol=1e-3)


def test_augmentation_gives_each_composition_its_share(matrices):
    rng = torch.Generator().manual_seed(0)
    _, counts = coordinate_rows.n_atoms(matrices)
    _, size = torch.unique(counts, dim=0, return_counts=True)
    for skip, kinds in ((False, len(size)), (True, int((size < 2).sum()))):
        made = coordinate_rows.augmented(matrices, 2, skip_populous=skip, rng=rng)
        _, left = torch.unique(coordinate_rows.n_atoms(made)[1], dim=0, return_counts=True)
        assert left.tolist() == [2] * kinds
    assert (size >= 2).any()


def test_images_of_the_authors_form_pass_through_all(oxides, matrices):
    """Float64, an element's rows in any order and with gaps; one that is NaN stays alone."""
    rng, images = np.random.default_rng(0), matrices.double().numpy().copy()
    for image in images:
        for rows in np.split(image[2:], np.cumsum(coordinate_rows.SLOTS)[:-1]):
            rows[:] = rng.permutation(rows)
    made = DESCRIPTOR.decode(images)
    assert made.ok.all()
    assert same(oxides, made.crystals).all()
    config = mg_mn_o.PAPER.but(width=1 / 16, copies=4)
    assert len(MgMnOGan.from_data(made.valid(), config).data) >= 4
    model = MgMnOGan(mg_mn_o.PAPER.but(width=1 / 8))
    for network in (model.critic, MgMnOGan(mg_mn_o.FIXED.but(width=1 / 8)).critic):
        assert torch.allclose(network(images), network(matrices), atol=1e-3)
    model.classifier.eval()
    broken = images.copy()
    broken[1, 3] = np.nan
    for network in (model.critic, lambda x: model.classifier(x)[0]):
        found, wanted = network(broken), network(images)
        assert found[1].isnan().any()
        others = torch.arange(len(images)) != 1
        assert torch.equal(found[others], wanted[others])
    for wrong in (images[:, :29], images[0], images.reshape(-1, 90)):
        for network in (model.critic, model.classifier):
            with pytest.raises(InputError, match=r"expected \(batch, 30, 3\)"):
                network(wrong)


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_it_trains_and_resumes_bit_for_bit(variant, oxides, tmp_path):
    whole = model_of(variant, oxides)
    history = fit(whole, whole.config.train, progress=False)
    for name in ("classifier_composition", "classifier_fakes_loss"):
        assert (name in history.rows[-1]) is (variant == "paper")
    for steps in (10, 20):
        parted = model_of(variant, oxides, steps=steps)
        fit(parted, parted.config.train, folder=tmp_path, resume=True, progress=False)
    assert ("classifier" in whole.networks) is (variant == "paper")
    for one, two in zip(whole.networks.values(), parted.networks.values(), strict=True):
        assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_samples_have_what_was_asked_beside_them(oxides, tmp_path):
    model = model_of("fixed", oxides)
    made = model.sample(50, condition={"composition": "Mg2Mn4O8"}, seed=1)
    assert (made.asked["counts"] == [2, 4, 8]).all()
    matrix, counts = model.raw(0, 50, seed=1)
    assert torch.equal(coordinate_rows.n_atoms(matrix)[1], counts)
    loaded = MgMnOGan.load(model.save(tmp_path / "model.safetensors"))
    again = loaded.sample(50, condition={"composition": "Mg2Mn4O8"}, seed=1)
    assert made.reasons == again.reasons
    known = set(map(tuple, model.learnt["compositions"].tolist()))
    assert set(map(tuple, model.sample(50, seed=2).asked["counts"].tolist())) <= known


@pytest.mark.parametrize("composition", ["MgO", "Mg9MnO8", "Mg2Mn4O8Fe", "Mg2Mn4O13"])
def test_a_composition_that_does_not_fit_is_refused(composition):
    model = MgMnOGan(mg_mn_o.PAPER.but(width=1 / 16), {"compositions": torch.ones(1, 3).long()})
    with pytest.raises(InputError, match="Mg2Mn4O8"):
        model.sample(2, condition={"composition": composition})


def test_the_sum_is_ten_times_the_mean(oxides):
    """The published penalty bounds the score, which is a mean, by a tenth."""
    critic = MgMnOGan(mg_mn_o.PAPER.but(width=1 / 8)).critic
    point = DESCRIPTOR.encode(oxides)[:4].requires_grad_(True)
    (of_sum,) = torch.autograd.grad(critic(point).sum(), point)
    (of_mean,) = torch.autograd.grad(critic(point).mean(1).sum(), point)
    assert torch.allclose(of_sum, 10 * of_mean, atol=1e-6)


def skewed_and_thin():
    """(24, 30, 3) matrices of one Mg, one Mn and two O in cells that are far from reduced."""
    rng = torch.Generator().manual_seed(0)
    matrix = torch.zeros(240, 30, 3, dtype=torch.float64)
    cell = torch.rand(240, 2, 3, generator=rng, dtype=torch.float64)
    matrix[:, 0], matrix[:, 1] = (2 + 6 * cell[:, 0]) / 30, (30 + 120 * cell[:, 1]) / 180
    matrix[:, [2, 10, 18, 19]] = 0.1 + 0.8 * torch.rand(240, 4, 3, generator=rng).double()
    sound = coordinate_rows.lattice_of(30 * matrix[:, 0], 180 * matrix[:, 1])[1]
    return matrix[sound][:24]


@pytest.mark.parametrize("of", ["oxides", "skewed and thin"])
def test_neighbours_are_those_of_pymatgen(of, oxides, matrices):
    """All distances to the five nearest atoms of each element, up to 6 Å."""
    if of != "oxides":
        matrices = skewed_and_thin()
        oxides = DESCRIPTOR.decode(matrices).crystals
    seen, plain = (
        coordinate_rows.neighbours(matrices[:24].double(), reduced=how) for how in (True, False)
    )
    near, missed = periodic.FAR * (1 - seen), (seen - plain > 0.01).flatten(1).any(1)
    assert missed.double().mean() > 0.5 if of != "oxides" else missed.double().mean() < 0.3
    for i, known in enumerate(oxides[:24].structures()):
        rows = coordinate_rows.n_atoms(matrices)[0][i].nonzero()[:, 0]
        assert (near[i].amin(1) == periodic.FAR).sum() == len(near[i]) - len(rows)
        sites = sorted(known, key=lambda site: NUMBERS.index(site.specie.Z))
        for row, site in zip(rows, sites, strict=True):
            found = known.get_neighbors(site, periodic.FAR)
            for k, z in enumerate(NUMBERS):
                wanted = sorted(n.nn_distance for n in found if z == n.specie.Z)[:5]
                wanted += [periodic.FAR] * (5 - len(wanted))
                assert np.allclose(near[i, row].view(3, 5)[k], wanted, atol=1e-4)


def test_what_a_critic_sees_it_sees_once(matrices):
    critic = MgMnOGan(mg_mn_o.FIXED.but(width=1 / 8)).critic
    seen = critic.see(matrices)
    assert seen.shape == (len(matrices), 30, 33)
    assert torch.equal(seen[:, :2, :3], matrices[:, :2])
    assert seen[:, 2:, :3].abs().max() == 0
    assert torch.equal(critic.see(seen), seen)
    assert torch.equal(critic(seen), critic(matrices))
    for cells in ("as they come", "reduced"):
        other = MgMnOGan(mg_mn_o.FIXED.but(width=1 / 8, cells=cells)).critic.see(matrices)
        near = coordinate_rows.neighbours(matrices, reduced=cells == "reduced")
        assert torch.equal(other[:, 2:, 3:18], near)
    assert seen[:, :2, 3:].abs().max() == 0  # the cell has no neighbours
    assert torch.allclose(seen[:, 2:, 18:], 10 * seen[:, 2:, 3:18] ** 6)
    origin = (matrices[:, 2:].sum(2, keepdim=True) > 0) * torch.tensor([0.1, 0.2, 0.05])
    rows = (coordinate_rows.unsqueeze(matrices[:, 2:]) + origin) % 1.0
    moved = torch.where(origin > 0, coordinate_rows.squeeze(rows), matrices[:, 2:])
    moved = torch.cat([matrices[:, :2], moved], dim=1)
    assert torch.allclose(critic(moved), critic(matrices), atol=1e-3)


def test_distances_have_gradients_also_where_angles_make_no_cell(matrices):
    moved = matrices[:3] + 0.01 * torch.randn_like(matrices[:3]) * (matrices[:3] != 0)
    sound = moved[:2].double()
    there = sound != 0
    assert torch.autograd.gradcheck(
        lambda x: coordinate_rows.neighbours(sound.masked_scatter(there, x)),
        (sound[there].requires_grad_(True),),
        fast_mode=True,
    )
    moved[2, 1] = torch.tensor([0.2, 0.2, 0.9])
    moved.requires_grad_(True)
    coordinate_rows.neighbours(moved).sum().backward()
    assert moved.grad.isfinite().all()


def minus_log(logits, wanted):
    return -logits.log_softmax(-1).gather(-1, wanted[..., None]).mean()


@pytest.mark.equation(
    "eq-mgmno-classifier", function="imd_helpers.models.mg_mn_o.MgMnOGan.classifier_terms"
)
def test_what_the_classifier_minimises(oxides, agrees):
    """Minus the logarithms of the right rows and numbers of atoms, for one crystal."""
    model = model_of("fixed", oxides, **LEARNT)
    model.data = model.data[:1]
    x = model.data.expand(model.config.batch, -1, -1)
    present, counts = coordinate_rows.n_atoms(x)
    rows, numbers = model.classifier(x)
    wanted = minus_log(rows, present.long())
    wanted = wanted + 0.3 * sum(minus_log(numbers[e], counts[:, e] - 1) for e in range(3))
    agrees(model.classifier_terms()["loss"], wanted, within=1e-5)


@pytest.mark.equation(
    "eq-mgmno-generator", function="imd_helpers.models.mg_mn_o.MgMnOGan.generator_terms"
)
def test_what_the_generator_minimises(oxides, agrees):
    """Minus the score, and minus the logarithms of what was asked for, for the same noise."""
    model = model_of("fixed", oxides, **LEARNT)
    torch.manual_seed(1)
    counts = model.compositions(model.config.batch)
    fake = model.generate(counts)
    numbers = model.classifier(fake)[1]
    wanted = -model.critic(fake).mean()
    wanted = wanted + 0.3 * sum(minus_log(numbers[e], counts[:, e] - 1) for e in range(3))
    torch.manual_seed(1)
    agrees(model.generator_terms()["loss"], wanted, within=1e-5)


def test_the_formulas_of_real_crystals_are_held_out():
    real = datasets.load("oqmd_icsd").select(elements="Mg-Mn-O", nelements=3)
    assert not set(MgMnOGan.read(mg_mn_o.FIXED).formulas()) & set(real.table["formula"])
