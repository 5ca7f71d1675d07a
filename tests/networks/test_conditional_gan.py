"""Equations of the chapter on conditional GANs that hold for the best players."""

import pytest
import torch

from imd_helpers.networks import losses

HERE = "imd_helpers.networks.losses."


def table(seed, rows=4, columns=3):
    """Probabilities of (x, c), x down the rows, c along the columns; no cell is empty."""
    rng = torch.Generator().manual_seed(seed)
    cells = torch.rand(rows, columns, dtype=torch.float64, generator=rng) + 0.1
    return cells / cells.sum()


@pytest.mark.equation("eq-cgan-optimal", function=HERE + "optimal_discriminator")
def test_the_best_conditional_discriminator_is_found_by_minimising_its_loss(agrees):
    """Logits, one for each sample and condition, fitted to counted pairs."""
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(1, 6, (4, 3), generator=rng) for _ in range(2))
    fake[0, 0] += real.sum() - fake.sum() + 20
    real[1, 1] += 20  # as many real pairs as generated ones
    assert real.sum() == fake.sum()
    logits = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    cells = torch.arange(12)
    samples = [cells.repeat_interleave(n.flatten()) for n in (real, fake)]
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = losses.minimax_discriminator_loss(*(logits[s] for s in samples))
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    best = losses.optimal_discriminator(real / real.sum(), fake / fake.sum()).flatten()
    agrees(logits.detach().sigmoid(), best, within=1e-5)
    blind = losses.optimal_discriminator(real.sum(1) / real.sum(), fake.sum(1) / fake.sum())
    assert (best.reshape(4, 3) - blind[:, None]).abs().max() > 0.1  # the condition matters


@pytest.mark.equation("eq-cgan-split", function=HERE + "density_ratio")
def test_the_logit_is_a_sum_of_realism_and_fit(agrees):
    """Ratio of two tables of (x, c) against marginal and conditional probabilities."""
    for seed in range(5):
        p, q = table(2 * seed), table(2 * seed + 1)
        fit = (p / p.sum(1, keepdim=True)).log() - (q / q.sum(1, keepdim=True)).log()
        realism = (p.sum(1) / q.sum(1)).log()[:, None]
        agrees(losses.density_ratio(fit + realism), p / q, within=1e-12, relative=True)


@pytest.mark.equation("eq-cgan-sharpened", function=HERE + "kl_divergence")
def test_the_classifier_sharpens_what_the_generator_makes(agrees):
    """Minimum over all distributions by gradient descent on logits, three weights."""
    joint = table(3, rows=6)
    given_c = joint[:, 0] / joint[:, 0].sum()
    of_c = joint[:, 0] / joint.sum(1)
    for weight in (0.5, 1.0, 3.0):
        logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [logits],
            max_iter=500,
            tolerance_grad=1e-12,
            tolerance_change=1e-16,
            line_search_fn="strong_wolfe",
        )

        def closure(weight=weight, logits=logits, optimizer=optimizer):
            optimizer.zero_grad()
            made = logits.softmax(0)
            loss = losses.kl_divergence(made, given_c) - weight * (made * of_c.log()).sum()
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        expected = given_c * of_c**weight
        agrees(logits.detach().softmax(0), expected / expected.sum(), within=1e-5)
