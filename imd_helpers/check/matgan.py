"""Checks of the chapter on MatGAN."""

from __future__ import annotations

from .base import Check


def dice_of_half() -> float:
    """Dice loss of a found formula that shares 2 of 3 ones with the wanted one, and adds one."""
    import torch

    from ..models.matgan import dice_loss

    wanted, found = torch.zeros(1, 85, 8), torch.zeros(1, 85, 8)
    wanted[0, :3, 0] = 1
    found[0, 1:4, 0] = 1
    return float(dice_loss(found, wanted))


def neutral_share_of_hypothetical() -> float:
    """Charge-neutral share, metals held to the rule, of the training split of the OQMD role."""
    from ..datasets import formula_sets
    from ..judge.charge import charge_neutral

    counts, _ = formula_sets.compositions("oqmd")
    return float(charge_neutral(counts, pauling=False, alloys=False).mean())


CHECKS = {
    "matgan.1": Check(
        dice_of_half,
        "Count the ones of both matrices, and those that they share; the loss is negative.",
        tolerance=1e-3,
    ),
    "matgan.2": Check(
        neutral_share_of_hypothetical,
        "Take the role oqmd, its training split, and both settings pauling=False, alloys=False.",
        tolerance=1e-3,
    ),
}
