"""Samplers that learn nothing, a ladder from pure chance to copies of what is known.

`RandomP1` knows densities; `RandomWyckoff` symmetry as well; `RandomCubic` the grid of CubicGAN;
`PrototypeEnumeration` the structures of known crystals; `Substitution` the groups of the periodic
table; `IonExchange` counts which elements replace each other; `TrainingCopies` repeats. For
formulas there are `RandomFormulas` and `SubstitutedFormulas`. A model that does not beat them has
learned nothing that counts. They sample like the models, and go through the same judge.
"""

from __future__ import annotations

from .exchange import IonExchange, PrototypeEnumeration
from .formulas import RandomFormulas, SubstitutedFormulas
from .known import Baseline, Substitution, Templates, TrainingCopies
from .random_crystals import RandomCubic, RandomP1, RandomWyckoff

__all__ = [
    "Baseline",
    "IonExchange",
    "PrototypeEnumeration",
    "RandomCubic",
    "RandomFormulas",
    "RandomP1",
    "RandomWyckoff",
    "Substitution",
    "SubstitutedFormulas",
    "Templates",
    "TrainingCopies",
]
