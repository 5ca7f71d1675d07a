"""Self-checks of the exercises: the truth is computed from data, and no answer is stored."""

from __future__ import annotations

from typing import Any

from ..runtime import lookup
from .base import Check
from .comparison import CHECKS as _COMPARISON
from .compositions import CHECKS as _COMPOSITIONS
from .conditional_gan import CHECKS as _CONDITIONAL_GAN
from .coordinates import CHECKS as _COORDINATES
from .cubicgan import CHECKS as _CUBICGAN
from .gan import CHECKS as _GAN
from .gan_pathologies import CHECKS as _GAN_PATHOLOGIES
from .inverse_design import CHECKS as _INVERSE_DESIGN
from .matgan import CHECKS as _MATGAN
from .metrics import CHECKS as _METRICS
from .molecules import CHECKS as _MOLECULES
from .stability import CHECKS as _STABILITY
from .stability_synthesizability_properties import CHECKS as _PROPERTIES
from .symmetry import CHECKS as _SYMMETRY
from .vae_rnn_rl import CHECKS as _VAE_RNN_RL
from .voxels import CHECKS as _VOXELS
from .wasserstein_gan import CHECKS as _WASSERSTEIN_GAN

_CHECKS: dict[str, Check] = {
    **_INVERSE_DESIGN,
    **_GAN,
    **_CONDITIONAL_GAN,
    **_WASSERSTEIN_GAN,
    **_VOXELS,
    **_GAN_PATHOLOGIES,
    **_VAE_RNN_RL,
    **_COMPOSITIONS,
    **_COORDINATES,
    **_CUBICGAN,
    **_MATGAN,
    **_METRICS,
    **_MOLECULES,
    **_STABILITY,
    **_PROPERTIES,
    **_SYMMETRY,
    **_COMPARISON,
}

__all__ = ["Check", "answer", "names"]


def names() -> list[str]:
    """Names of all exercises that can be checked, e.g. ``inverse_design.1``."""
    return sorted(_CHECKS)


def answer(exercise: str, value: Any) -> bool:
    """Compare your answer with what the data say, print the verdict, and return it.

    Args:
        exercise: name of the exercise, see `names`.
        value: your answer, a number.

    Raises:
        UnknownNameError: no such exercise.
        InputError: the value is not a finite number.
    """
    check = _CHECKS[lookup("exercise", exercise, _CHECKS)]
    right = check.right(value)
    print(f"{exercise}: {'right.' if right else 'not yet. ' + check.hint}")
    return right
