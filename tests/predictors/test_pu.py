"""Positive-unlabelled learning on graphs whose truth is known."""

import numpy as np
import pytest
import torch

from imd_helpers.networks import checkpoint
from imd_helpers.predictors.graphs import formula_graph
from imd_helpers.predictors.pu import PuConfig, PuEnsemble, bag_loss, largest_prior, posterior
from imd_helpers.runtime import InputError

SMALL = PuConfig(bags=4, epochs=15, batch=32, lr=1e-2, width=8, convolutions=1, stop=1.0, step=0.25)


def compositions(n, *, oxide, seed):
    """Random pairs of a metal with oxygen, or with another metal."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n, 119), dtype=np.int64)
    for row in counts:
        row[rng.integers(21, 31)] = rng.integers(1, 4)
        row[8 if oxide else rng.integers(39, 49)] = rng.integers(1, 4)
    return counts


@pytest.fixture(scope="module")
def world():
    """Positives are oxides; a third of the unlabelled are oxides too."""
    unlabelled = np.concatenate(
        [compositions(100, oxide=True, seed=1), compositions(200, oxide=False, seed=2)]
    )
    return {
        "positive": formula_graph(compositions(100, oxide=True, seed=3)),
        "unlabelled": formula_graph(unlabelled),
        "held out": formula_graph(compositions(80, oxide=True, seed=4)),
        "hidden": np.arange(300) < 100,
    }


@pytest.fixture(scope="module")
def trained(world):
    return PuEnsemble(SMALL).fit(world["positive"], world["unlabelled"])


def test_a_formula_graph_joins_all_elements_with_their_shares():
    graph = formula_graph(np.stack([row("NaCl"), row("CsPbI3"), np.zeros(119, dtype=int)]))
    assert graph.ok.tolist() == [True, True, False]
    assert graph.numbers.tolist() == [11, 17, 53, 55, 82]
    assert graph.site_crystal.tolist() == [0, 0, 1, 1, 1]
    assert len(graph.distance) == 4 + 9
    centre, neighbour = graph.edge_index
    assert torch.equal(graph.site_crystal[centre], graph.site_crystal[neighbour])
    share = dict(zip(graph.numbers[neighbour].tolist(), graph.distance.tolist(), strict=True))
    assert share == pytest.approx({11: 0.5, 17: 0.5, 53: 0.6, 55: 0.2, 82: 0.2})


def row(formula):
    from imd_helpers.crystals.compositions import amounts

    return amounts([formula])[0].astype(int)


def test_hidden_positives_are_found_among_the_unlabelled(trained, world):
    """The unlabelled served as negatives, a third of them wrongly; the mean sees through it."""
    score = trained.out_of_bag(world["unlabelled"])
    hidden = world["hidden"]
    assert np.isfinite(score).sum() > 200
    assert np.nanmean(score[hidden]) > np.nanmean(score[~hidden]) + 0.3
    assert (trained.score(world["held out"]) > 0.5).mean() > 0.9


def test_random_labels_teach_nothing(world):
    """Positives and negatives from one pool: a held-out one is above 0.5 about half the time."""
    pool = compositions(400, oxide=True, seed=5)
    ensemble = PuEnsemble(SMALL).fit(formula_graph(pool[:130]), formula_graph(pool[130:]))
    score = ensemble.score(world["held out"])
    assert abs(score.mean() - 0.5) < 0.15


def test_a_bag_never_scores_what_it_saw(trained, world):
    each = trained.by_bag(world["unlabelled"])
    out = trained.out_of_bag(world["unlabelled"])
    for i in (0, 50, 150, 299):
        free = ~trained.drawn[:, i]
        if free.any():
            assert out[i] == pytest.approx(each[free, i].mean())
        else:
            assert np.isnan(out[i])


def test_bags_draw_as_many_negatives_as_there_are_positives(trained):
    assert trained.drawn.sum(1).tolist() == [100] * 4
    assert len({tuple(bag) for bag in trained.drawn}) == 4


def test_a_mean_teacher_learns_too(world):
    config = PuConfig(**{**SMALL.__dict__, "consistency": 1.0, "teacher_decay": 0.8})
    ensemble = PuEnsemble(config).fit(world["positive"], world["unlabelled"])
    score = ensemble.out_of_bag(world["unlabelled"])
    assert np.nanmean(score[world["hidden"]]) > np.nanmean(score[~world["hidden"]]) + 0.2


def test_the_same_seed_gives_the_same_scores(trained, world):
    again = PuEnsemble(SMALL).fit(world["positive"], world["unlabelled"])
    assert np.array_equal(again.score(world["held out"]), trained.score(world["held out"]))


def test_files_keep_networks_and_bags(trained, world, tmp_path):
    twin = PuEnsemble.load(trained.save(tmp_path / "pu.safetensors"))
    assert np.array_equal(twin.drawn, trained.drawn)
    assert np.allclose(twin.score(world["held out"]), trained.score(world["held out"]), atol=5e-3)
    foreign = checkpoint.write(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"format": "no"})
    with pytest.raises(checkpoint.CheckpointError, match="imd-pu-cgcnn-2"):
        PuEnsemble.load(foreign)


def test_failed_graphs_score_nan(trained):
    graph = formula_graph(np.stack([row("FeO"), np.zeros(119, dtype=int)]))
    assert np.isnan(trained.score(graph)).tolist() == [False, True]


def test_wrong_input_is_explained(trained, world):
    with pytest.raises(InputError, match="knows nothing"):
        PuEnsemble().score(world["held out"])
    with pytest.raises(InputError, match="80 materials"):
        trained.out_of_bag(world["held out"])
    with pytest.raises(InputError, match="at most half"):
        PuEnsemble(SMALL).fit(world["positive"][:10], world["unlabelled"])
    with pytest.raises(InputError, match="have no graph"):
        PuEnsemble(SMALL).fit(world["positive"], formula_graph(np.zeros((1, 119), dtype=int)))
    with pytest.raises(InputError, match="expected"):
        formula_graph(np.zeros((2, 5)))


def test_an_interrupted_training_goes_on_where_it_stopped(trained, world, tmp_path):
    path, pair = tmp_path / "bags.safetensors", (world["positive"], world["unlabelled"])
    whole = PuEnsemble(SMALL)
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return PuEnsemble._one(whole, *args)

    whole._one = interrupted
    with pytest.raises(KeyboardInterrupt):
        whole.fit(*pair, keep=path)
    rest = PuEnsemble(SMALL).fit(*pair, keep=path)
    assert np.array_equal(rest.drawn, trained.drawn)
    assert np.allclose(rest.score(world["held out"]), trained.score(world["held out"]), atol=5e-3)
    with pytest.raises(InputError, match="other settings"):
        PuEnsemble(PuConfig(**{**SMALL.__dict__, "width": 9})).fit(*pair, keep=path)


# ---- numbered equations of the chapter


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.predictors.pu.{function}")


@verifies("eq-ssp-score", "PuEnsemble")
def test_the_score_of_a_bag_is_that_of_the_densities(agrees):
    """p1 / (p1 + p) of two formulas: 80 and 20 % of the positives, 30 and 70 % of the others."""
    ones, others = ([row("MgO")] * n + [row("FeAu")] * m for n, m in ((320, 80), (300, 700)))
    config = PuConfig(**{**SMALL.__dict__, "bags": 3, "epochs": 12, "lr": 5e-3})
    ensemble = PuEnsemble(config).fit(*(formula_graph(np.stack(side)) for side in (ones, others)))
    found = ensemble.score(formula_graph(np.stack([row("MgO"), row("FeAu")])))
    agrees(found, [0.8 / (0.8 + 0.3), 0.2 / (0.2 + 0.7)], within=0.08)


@verifies("eq-ssp-posterior", "posterior")
def test_the_posterior_is_exact_where_the_densities_are_known(agrees):
    """Densities of two Gaussians, a fifth of the mixture from the first."""
    x = np.linspace(-3, 3, 61)
    ones, others = np.exp(-((x - 1) ** 2) / 2), np.exp(-((x + 1) ** 2) / 2)
    mixture = 0.2 * ones + 0.8 * others
    score = ones / (ones + mixture)
    agrees(posterior(score, 0.2), 0.2 * ones / mixture, within=1e-12)
    assert score.max() < 1 / 1.2  # a perfect bag is never sure: positives are among its negatives
    agrees(posterior([0.0, 0.5, 1.0], 0.3), [0.0, 0.3, 1.0], within=1e-12)
    agrees(posterior([0.0, 1.0], 0.0), [0.0, 0.0], within=1e-12)


@verifies("eq-ssp-bound", "largest_prior")
def test_the_smallest_quotient_of_two_tails(agrees):
    """Tails of 1,000 scores counted one by one, at the thresholds that 5, 10, … 95 % reach."""
    rng = np.random.default_rng(0)
    spies, others = rng.beta(5, 2, 1000), rng.beta(2, 5, 1000)
    quotients = []
    for share in range(5, 100, 5):
        t = np.quantile(spies, 1 - share / 100)
        quotients.append(sum(s >= t for s in others) / sum(s >= t for s in spies))
    agrees(largest_prior(spies, others), min(quotients), within=1e-12)


@verifies("eq-ssp-teacher", "bag_loss")
def test_the_teachers_part_of_the_loss(world, trained, monkeypatch, agrees):
    """NumPy's cross-entropy of 60 graphs, and 0.7 of the mean square between two networks."""
    monkeypatch.setattr("imd_helpers.predictors.pu.NOISE", 0.0)
    student, teacher = trained.networks[:2]
    labelled, free = world["unlabelled"][:60], world["held out"]
    with torch.no_grad():
        found = bag_loss(student, teacher, labelled, free, 0.7)
        p, ours, theirs = (
            torch.sigmoid(net.read(graph)).double().numpy()
            for net, graph in ((student, labelled), (student, free), (teacher, free))
        )
    entropy = -(np.log(p[:30]).sum() + np.log(1 - p[30:]).sum()) / 60
    agrees(found, entropy + 0.7 * ((ours - theirs) ** 2).mean(), within=1e-5)


def test_the_bound_on_the_share_holds_and_is_close_for_classes_apart():
    rng = np.random.default_rng(0)
    spies, hidden = rng.normal(3, 1, (2, 4000))
    mixed = np.concatenate([hidden[:1000], rng.normal(-3, 1, 3000)])
    assert largest_prior(spies, mixed) == pytest.approx(0.25, abs=0.03)
    close = np.concatenate([hidden[:1000], rng.normal(1.5, 1, 3000)])
    assert 0.25 < largest_prior(spies, close) < 0.8
    for too_few in (np.full(30, np.nan), spies[:5]):
        with pytest.raises(InputError, match="at least 20 finite"):
            largest_prior(too_few, mixed)
    with pytest.raises(InputError, match="prior"):
        posterior(0.5, 1.2)
