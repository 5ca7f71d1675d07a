"""Two models on one gene: what each may see, that its probabilities add up, and its bound."""

import itertools

import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.models import gene_models, genes
from imd_helpers.models.gene_models import PLACES, GeneConfig, GeneDiffusion, GeneTransformer
from imd_helpers.networks import losses
from imd_helpers.runtime import InputError

SMALL = GeneConfig(width=0.1, layers=1, heads=2, dropout=0.0, orbits=2, batch=8)
HERE, MODEL = "imd_helpers.networks.losses.", "imd_helpers.models.gene_models."


@pytest.fixture
def few(monkeypatch):
    """Three groups, two letters, two elements: all genes of two orbits can be listed."""
    monkeypatch.setattr(gene_models, "KINDS", (4, 3, 3))
    return np.array(list(itertools.product(range(4), *2 * [range(3), range(3)])))


def test_nothing_is_seen_of_what_comes_later():
    """Causal: no probability of a token depends on that token or one behind it."""
    model = GeneTransformer(GeneConfig(width=0.25, dropout=0.0))
    tokens = torch.as_tensor(GeneTransformer.read(model.config, "val")[:50])
    before = model.network.log_likelihood(tokens, tokens)
    for place in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 27
        after = model.network.log_likelihood(other, tokens)
        moved = (after - before).abs().amax(0) > 1e-6
        assert not moved[: place + 1].any()
        assert place == tokens.shape[1] - 1 or moved[place + 1 :].any()


def test_diffusion_sees_everything_but_what_is_hidden():
    model = GeneDiffusion(GeneConfig(width=0.25, dropout=0.0))
    model.network.eval()
    tokens = torch.as_tensor(GeneDiffusion.read(model.config, "val")[:50])
    seen, hidden = model.hide(tokens, torch.full((50,), 0.5))
    assert (seen == tokens)[~hidden].all()
    assert (seen != tokens)[hidden].all()
    assert 0.4 < hidden.float().mean() < 0.6
    before = model.network.log_likelihood(seen, tokens)
    seen[:, 3] = 2
    moved = (model.network.log_likelihood(seen, tokens) - before).abs().amax(0) > 1e-6
    assert moved[:3].any()
    assert moved[4:].any()


@pytest.mark.equation("eq-genes-chain", function=MODEL + "GeneTransformer.bound")
def test_probabilities_of_all_genes_add_up_to_one(few, agrees):
    """The probabilities of all genes that can be written add up to one."""
    model = GeneTransformer(SMALL, seed=3)
    ended = np.cumsum(few[:, 1::2] == 0, 1) > 0
    written = few[((few[:, 1::2] == 0) <= ended).all(1)]
    written = written[((written[:, 1::2] > 0) | (written[:, 2::2] == 0)).all(1)]
    later = (written[:, 1] == 0) & (written[:, 3] > 0)  # after the end nothing comes
    model.network.double().eval()
    with torch.no_grad():
        total = (-model.bound(torch.as_tensor(written[~later]))).exp().sum()
    agrees(total, 1.0, within=1e-9)


@pytest.mark.equation("eq-genes-bound", function=HERE + "masked_diffusion_bound")
def test_the_bound_is_the_mean_over_all_orders(few, agrees):
    """Against all 120 orders of uncovering, token by token (200,000 random times)."""
    model = GeneDiffusion(SMALL, seed=5)
    model.network.eval()
    gene, nats = torch.as_tensor([[2, 1, 2, 2, 1]]), []
    with torch.no_grad():
        for order in itertools.permutations(range(5)):
            seen, total = model.begun(1, {}), 0.0
            for place in order:
                total -= float(model.network.log_likelihood(seen, gene)[0, place])
                seen[0, place] = gene[0, place]
            nats.append(total)
    time = torch.linspace(0.0, 1.0, 200_001)[1:]
    wanted = gene.expand(len(time), -1)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        seen, hidden = model.hide(wanted, time)
        said = model.network.log_likelihood(seen, wanted) * hidden
    agrees(losses.masked_diffusion_bound(said, time).mean(), np.mean(nats), within=0.08)


@pytest.mark.equation("eq-genes-uncover", function=HERE + "uncovered")
def test_uncovering_undoes_hiding(agrees):
    """Counting two million tokens: of those hidden at t, the share not yet hidden at s."""
    hidden_at = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0))
    now, then = 0.8, 0.5
    was = hidden_at < now  # hidden by time t with probability t
    share = float((hidden_at[was] >= then).float().mean())
    agrees(losses.uncovered(now, then), share, within=2e-3)
    assert losses.uncovered(0.3, 0.0) == 1.0  # at time 0 nothing is hidden


def test_uncovering_one_by_one_draws_by_the_bound(few):
    """Samples of an untrained network are as frequent as the mean over orders says."""
    model = GeneDiffusion(SMALL.but(orbits=1), seed=2)
    made = model.raw(0, 10_000, condition={"passes": 100}, seed=1).numpy()
    model.network.eval()
    assert not (made == np.array([4, 3, 3])).any()  # nothing is hidden any more
    chance = []
    with torch.no_grad():
        for gene in itertools.product(range(4), range(3), range(3)):
            wanted = torch.as_tensor([gene])
            orders = []
            for order in itertools.permutations(range(3)):
                seen, total = model.begun(1, {}), 0.0
                for place in order:
                    total += float(model.network.log_likelihood(seen, wanted)[0, place])
                    seen[0, place] = wanted[0, place]
                orders.append(np.exp(total))
            chance.append(np.mean(orders))
    _, counts = np.unique(made @ [9, 3, 1], return_counts=True)
    assert sum(chance) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(counts / len(made) - chance).max() < 0.008  # four standard errors


@pytest.mark.parametrize("kind", [GeneTransformer, GeneDiffusion])
def test_it_trains_resumes_is_kept_and_sampled(kind, tmp_path):
    whole, _ = kind.train(folder=tmp_path / "a", progress=False)
    data = kind.read(whole.config, "val")[:300]
    before = kind(whole.config, whole.learnt).nats(data, rounds=4)
    assert whole.nats(data, rounds=4).mean() < before.mean() - 5
    for steps in (20, 60):
        parted, _ = kind.train(
            folder=tmp_path / "b", changes={"steps": steps, "fall": 0.0}, resume=True,
            progress=False,
        )  # fmt: skip
    straight, _ = kind.train(changes={"steps": 60, "fall": 0.0}, progress=False)
    for one, two in zip(
        parted.network.state_dict().values(), straight.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
    loaded = kind.load(tmp_path / "a" / "model.safetensors")
    assert loaded.nats(data) == pytest.approx(whole.nats(data), abs=0.05)  # 16 bits
    made = loaded.sample(40, seed=3)
    assert len(made) == 40
    assert made.formulas() == loaded.sample(40, seed=3).formulas()
    assert not torch.equal(loaded.sample_genes(40, seed=3), loaded.sample_genes(40, seed=4))


@pytest.mark.parametrize("name", ["gene_transformer", "gene_diffusion"])
def test_a_space_group_can_be_asked_for_and_a_part_given(name):
    model = imd.models.load(name)
    written = model.sample_genes(50, condition={"space_group": 225}, seed=0)
    assert (written[:, 0] == 225).all()
    given = written.clone()
    given[:, 2::2] = torch.where(given[:, 1::2] > 0, -1, 0)
    kept = model.raw(0, 50, condition={"given": given}, seed=1)
    assert torch.equal(kept[:, 1::2], written[:, 1::2])  # letters stay
    assert not torch.equal(kept[:, 2::2], written[:, 2::2])
    with pytest.raises(InputError, match="given of shape"):
        model.sample(50, condition={"given": given[:3]})
    for wrong in (0, 231, 2.5):
        with pytest.raises(InputError, match="space_group"):
            model.sample(3, condition={"space_group": wrong})


@pytest.mark.parametrize("name", ["gene_transformer", "gene_diffusion"])
def test_the_weights_know_more_than_frequencies(name):
    """On held-out crystals: fewer nats than elements drawn by place, whatever their neighbours."""
    model = imd.models.load(name)
    data = model.read(model.config, "val")
    mixed, rng = data.copy(), np.random.default_rng(0)
    for row in mixed:  # the same letters, with other elements of the data
        z = np.unique(row[2::2][row[2::2] > 0])
        new = rng.choice(data[:, 2::2][data[:, 2::2] > 0], size=len(z), replace=False)
        row[2::2] = np.concatenate([[0], new])[np.searchsorted(np.r_[0, z], row[2::2])]
    apart = model.nats(mixed, rounds=4) - model.nats(data, rounds=4)
    assert apart.mean() > 1.0
    assert PLACES[0] == slice(0, 1)
    assert data.shape[1] <= genes.WIDTH
