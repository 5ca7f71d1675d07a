"""Two sets of known crystals: cubic ternaries, and all kinds."""

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.baselines import Templates


@pytest.fixture(scope="session")
def training():
    cubic = imd.datasets.load("oqmd_icsd").select(
        nelements=3, space_groups=[216, 221, 225], max_sites=6, split="train"
    )
    return Templates.of(cubic[:300].crystals)


@pytest.fixture(scope="session")
def mixed():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12, split="train")
    return Templates.of(data[np.random.default_rng(0).permutation(len(data))[:400]].crystals)
