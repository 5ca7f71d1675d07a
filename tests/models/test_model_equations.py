"""Numbered equations of the chapters on CubicGAN and MatGAN, as the package computes them."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from imd_helpers.crystals import elements, symmetry
from imd_helpers.descriptors.composition_matrix import ELEMENTS, CompositionMatrix
from imd_helpers.models import gan, matgan
from imd_helpers.models.sequence_gan import ICSD, SequenceGan, SequenceGenerator
from imd_helpers.networks import layers


def verifies(label, function):
    return pytest.mark.equation(label, function=f"imd_helpers.{function}")


# ---- CubicGAN


@verifies("eq-cubicgan-orbit", "crystals.symmetry.expand")
@pytest.mark.parametrize("group", [216, 221, 225])
@pytest.mark.parametrize("site", [(0.0, 0.0, 0.0), (0.25, 0.25, 0.25), (0.0, 0.25, 0.75)])
def test_an_orbit_against_pymatgen(group, site, agrees):
    """Sites that pymatgen's table of symmetry operations makes of one."""
    from pymatgen.symmetry.groups import SpaceGroup

    cell, numbers = 4 * np.eye(3)[None], np.array([[84]])
    crystal, count = symmetry.expand(np.array([group]), cell, np.array([[site]]), numbers)
    orbit = SpaceGroup.from_int_number(group).get_orbit(site)
    found, expected = (
        np.array(sorted(np.mod(np.round(points, 6), 1).tolist()))
        for points in (crystal.frac[0].numpy(), np.array(orbit, dtype=float))
    )
    agrees(found, expected, within=1e-9)
    agrees(count[0, 0], len(orbit), within=1e-9)


def turn(real, fake, score, **config):
    """What a critic's turn of a model takes from it."""
    pair, config = (lambda: (real, fake, score)), {"config": SimpleNamespace(**config), **config}
    return SimpleNamespace(pair=pair, **config)


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return torch.rand(64, 12).double(), torch.rand(64, 12).double() + 1


@verifies("eq-cubicgan-critic", "models.gan.Gan.critic_terms")
def test_a_linear_critics_loss_is_its_closed_form(batches, agrees):
    """w (mean of generated - mean of real) + 10 (|w| - 1)^2 of a linear critic w."""
    w = torch.linspace(-1, 1, 12).double()
    found = gan.Gan.critic_terms(turn(*batches, lambda x: x @ w, penalty=10.0, mixing="uniform"))
    difference = float((batches[1].mean(0) - batches[0].mean(0)) @ w)
    agrees(found["loss"], difference + 10 * (float(w.norm()) - 1) ** 2, within=1e-9)


# ---- MatGAN


@verifies("eq-matgan-matrix", "descriptors.composition_matrix.CompositionMatrix")
def test_a_matrix_one_number_after_the_other(agrees):
    """A loop over the elements and the counts of three formulas."""
    formulas = ["SrTiO3", "Al2O3", "NaCl"]
    expected = np.zeros((3, 85, 8))
    for k, formula in enumerate(formulas):
        for z, n in elements.parse_formula(formula).items():
            expected[k, list(ELEMENTS).index(z), int(n) - 1] = 1
    agrees(CompositionMatrix().encode(formulas), expected, within=1e-12)


@verifies("eq-matgan-plain", "models.matgan.CompositionGan.critic_terms")
def test_the_plain_loss_is_a_difference_of_two_means(batches, agrees):
    """NumPy's mean score of the generated batch, minus that of the real one."""
    given = turn(*batches, lambda x: x.square().sum(1), loss="plain")
    real, fake = (batch.numpy() for batch in batches)
    expected = (fake**2).sum(1).mean() - (real**2).sum(1).mean()
    agrees(matgan.CompositionGan.critic_terms(given)["loss"], expected, within=1e-9)


@verifies("eq-matgan-draw", "networks.layers.draw")
def test_a_draw_is_the_largest_noisy_logit(agrees):
    """The argmax by NumPy for the same uniform numbers."""
    logits = torch.linspace(-2, 2, 5).repeat(1_000, 1)
    torch.manual_seed(0)
    drawn = layers.draw(logits)
    torch.manual_seed(0)
    u = torch.rand_like(logits).numpy()
    expected = (logits.numpy() - np.log(-np.log(u))).argmax(1)
    agrees(drawn, np.eye(5)[expected], within=1e-12)


@verifies("eq-matgan-draw", "networks.layers.draw")
def test_draws_have_the_shares_of_the_softmax(agrees):
    """The softmax of five logits, against 100,000 draws."""
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.5, 0.0, -1.0, 2.0])
    shares = layers.draw(logits.expand(100_000, 5)).mean(0)
    agrees(shares, logits.softmax(0), within=0.006)


@verifies("eq-matgan-turn", "models.sequence_gan.SequenceGenerator.written")
def test_a_sequence_of_draws_turn_by_turn(monkeypatch, agrees):
    """log p of two elements and a stop, by a plain walk with the GRU's equations in NumPy."""
    torch.manual_seed(0)
    net = SequenceGenerator(ICSD.but(width=1 / 16)).double()
    noise = torch.randn(2, ICSD.latent).double()
    turns = [(3, 2), (7, 1), (85, 1)]  # element and count; the last element is "stop"
    planned = iter([(e, 86) if k == 0 else (c - 1, 8) for e, c in turns for k in (0, 1)])
    monkeypatch.setattr(layers, "draw", lambda logits: hot(*next(planned)).expand(len(logits), -1))
    _, found = net.written(noise, score=True)

    expected, state, closed = 0.0, torch.tanh(net.start(noise)), [85]
    for place, (e, c) in enumerate(turns):
        logits = net.element(state)
        logits[:, closed] = -30.0
        expected = expected + logits.log_softmax(1)[:, e]
        closed = [*[z for z, _ in turns[: place + 1]], *([85] if place == 0 else [])]
        if e < 85:
            one = hot(e, 86)[:85].expand(2, -1)
            counts = net.count(torch.cat([state, one], 1))
            expected = expected + counts.log_softmax(1)[:, c - 1]
            state = gru(net.cell, torch.cat([one, hot(c - 1, 8).expand(2, -1)], 1), state)
    agrees(found, expected, within=1e-9)


def hot(index, n):
    return one_hot(torch.tensor(index), n).double()


def gru(cell, x, h):
    """One step of a gated recurrent unit, from its weights."""
    x, h = x.numpy(), h.detach().numpy()
    w, u, b, c = (p.detach().numpy() for p in cell.parameters())
    ours, theirs = np.split(x @ w.T + b, 3, axis=1), np.split(h @ u.T + c, 3, axis=1)
    reset, keep = (1 / (1 + np.exp(-ours[i] - theirs[i])) for i in (0, 1))
    new = np.tanh(ours[2] + reset * theirs[2])
    return torch.as_tensor((1 - keep) * new + keep * h)


class Policy:
    """A generator of five things, and a critic: what `SequenceGan.generator_terms` needs."""

    def __init__(self, logits, likes, *, entropy, batch=50_000):
        self.logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        self.likes = likes  # scores of the five, from their probabilities
        self.config = SimpleNamespace(gradient="score", entropy=entropy, batch=batch)
        self.critic, self.generator = torch.nn.Identity(), self

    def real(self):
        return None, None

    def noise(self, n, condition):
        return torch.zeros(n, 1)

    def written(self, noise, *, score):
        log_p = self.logits.log_softmax(0)
        drawn = one_hot(torch.multinomial(log_p.exp(), len(noise), replacement=True), 5)
        return drawn.double(), log_p[drawn.argmax(1)]

    def scorer(self, condition):
        return lambda matrix: matrix @ self.likes(self.logits.softmax(0))[:, None]


NATURE = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05], dtype=torch.float64)
START = [0.0, 0.5, -0.5, 1.0, 0.2]


def of_best_critic(probability):
    """The logarithm of how much more frequent each is in nature."""
    return (NATURE / probability).log()


@verifies("eq-matgan-score", "models.sequence_gan.SequenceGan.generator_terms")
def test_the_score_gradient_against_the_exact_one(agrees):
    """Gradient of the mean score of a policy of five choices, written out; 100,000 draws."""
    torch.manual_seed(0)
    scores = torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
    policy = Policy(START, lambda probability: scores, entropy=0.0)
    SequenceGan.generator_terms(policy)["loss"].backward()
    p = policy.logits.detach().softmax(0)
    agrees(-policy.logits.grad, p * (scores - p @ scores), within=0.01)


@verifies("eq-matgan-climb", "models.sequence_gan.SequenceGan.generator_terms")
def test_what_the_generator_climbs(agrees):
    """Central differences of E log(p / q) + beta H(q), beta = 0.3; 100,000 draws."""
    torch.manual_seed(0)
    policy = Policy(START, of_best_critic, entropy=0.3)
    SequenceGan.generator_terms(policy)["loss"].backward()

    def height(logits):
        q = logits.softmax(0)
        return float((q * (NATURE / q).log()).sum() - 0.3 * (q * q.log()).sum())

    start, step = policy.logits.detach(), 1e-5
    moves = step * torch.eye(5, dtype=torch.float64)
    slopes = [(height(start + m) - height(start - m)) / (2 * step) for m in moves]
    agrees(-policy.logits.grad, slopes, within=0.01)


@verifies("eq-matgan-flat", "models.sequence_gan.SequenceGan.generator_terms")
def test_the_summit_is_a_flattened_nature(agrees):
    """p^(1 / (1 + beta)), normalised, after 300 steps uphill; beta = 0.5."""
    torch.manual_seed(0)
    policy = Policy(START, of_best_critic, entropy=0.5, batch=2_000)
    adam = torch.optim.Adam([policy.logits], 0.03)
    for _ in range(300):
        adam.zero_grad()
        SequenceGan.generator_terms(policy)["loss"].backward()
        adam.step()
    summit = NATURE ** (1 / 1.5)
    agrees(policy.logits.detach().softmax(0), summit / summit.sum(), within=0.02)


@verifies("eq-matgan-dice", "models.matgan.dice_loss")
def test_dice_loss_number_by_number(agrees):
    """Loops over all numbers of two matrices."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1, 6, 4))
    both = sum(a[0, i, j] * b[0, i, j] for i, j in itertools.product(range(6), range(4)))
    loss = matgan.dice_loss(torch.as_tensor(a), torch.as_tensor(b))
    agrees(loss, -2 * both / (a.sum() + b.sum()), within=1e-12)
