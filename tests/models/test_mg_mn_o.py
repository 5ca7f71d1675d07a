"""The composition-conditioned GAN of Mg-Mn-O: published sizes, symmetries, quirks, training."""

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from imd_helpers import datasets
from imd_helpers.crystals import CrystalBatch
from imd_helpers.models import coordinate_rows, mg_mn_o
from imd_helpers.models.coordinate_rows import DESCRIPTOR
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


@pytest.mark.parametrize("variant", ["paper", "fixed"])
def test_it_trains_and_resumes_bit_for_bit(variant, oxides, tmp_path):
    whole = model_of(variant, oxides)
    history = fit(whole, whole.config.train, progress=False)
    assert {"critic_distance", "classifier_composition"} <= history.rows[-1].keys()
    assert ("classifier_fakes_loss" in history.rows[-1]) is (variant == "paper")
    for steps in (10, 20):
        parted = model_of(variant, oxides, steps=steps)
        fit(parted, parted.config.train, folder=tmp_path, resume=True, progress=False)
    for one, two in zip(whole.networks.values(), parted.networks.values(), strict=True):
        assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


def test_samples_have_what_was_asked_beside_them(oxides, tmp_path):
    model = model_of("fixed", oxides)
    made = model.sample(50, condition={"composition": "Mg2Mn4O8"}, seed=1)
    assert (made.asked["counts"] == [2, 4, 8]).all()
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
