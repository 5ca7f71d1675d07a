"""Train iMatGen."""
from __future__ import annotations
import record
from imd_helpers.models.imatgen import IMatGen

def train(variant: str) -> None:
    """Weights and run.json of one variant."""
    record.train(IMatGen, variant)

TASKS = (train,)
if __name__ == "__main__":
    record.command(TASKS, __doc__)
