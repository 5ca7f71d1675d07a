"""Samplers that learn nothing, a ladder from pure chance to copies of what is known.

`RandomP1` knows densities; `RandomWyckoff` symmetry as well; `RandomCubic` the grid of CubicGAN;
`PrototypeEnumeration` the structures of known crystals; `Substitution` the groups of the periodic
table; `SiteMarginals` what stands on each site alone; `IonExchange` counts which elements replace
each other; `TrainingCopies` repeats. Formulas have rungs of the same kinds. A model that does not
beat them has learned nothing that counts. They sample like the models, and go through the same
judge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..crystals import CrystalBatch
from ..descriptors.symmetry_sites import SPACE_GROUPS
from .exchange import IonExchange, PrototypeEnumeration, SiteMarginals
from .formulas import CopiedFormulas, ExchangedFormulas, RandomFormulas, SubstitutedFormulas
from .known import Baseline, Substitution, Templates, TrainingCopies
from .random_crystals import RandomCubic, RandomP1, RandomWyckoff

__all__ = [
    "Baseline",
    "CopiedFormulas",
    "ExchangedFormulas",
    "IonExchange",
    "PrototypeEnumeration",
    "RandomCubic",
    "RandomFormulas",
    "RandomP1",
    "RandomWyckoff",
    "SiteMarginals",
    "Substitution",
    "SubstitutedFormulas",
    "Templates",
    "TrainingCopies",
    "ladder",
]


def ladder(training: Templates | CrystalBatch | np.ndarray) -> dict[str, Any]:
    """Every rung that a claim of success must be measured against, the best informed first.

    Args:
        training: what the model learned from: crystals, or (n, 119) counts of formulas.

    Returns:
        Name of the rung to its sampler. Copies come last: they are valid and stable, and never new.

    Raises:
        InputError: training data that a rung cannot use, e.g. no two crystals that differ by one
            element alone.
    """
    if isinstance(training, np.ndarray):
        return {
            "one-element exchange": ExchangedFormulas(training),
            "substitution": SubstitutedFormulas(training),
            "marginals": RandomFormulas(training, like_training=True),
            "random": RandomFormulas(training),
            "training copies": CopiedFormulas(training),
        }
    known = training if isinstance(training, Templates) else Templates.of(training)
    cubic = np.isin(known.space_group, SPACE_GROUPS).all() and (known.present.sum(1) == 3).all()
    return {
        "ion exchange": IonExchange(known),
        "site marginals": SiteMarginals(known),
        "substitution": Substitution(known),
        "random": RandomCubic(known) if cubic else RandomWyckoff(known),
        "training copies": TrainingCopies(known),
    }
