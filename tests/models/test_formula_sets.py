"""The sets of formulas that composition models learn from."""

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.models import formula_sets
from imd_helpers.runtime import InputError


@pytest.mark.parametrize(("role", "n"), [("icsd", 22_777), ("oqmd", 335_919), ("mp", 28_401)])
def test_roles_hold_what_their_data_sets_hold(role, n):
    everything, _ = formula_sets.compositions(role, split=None)
    parts = [formula_sets.compositions(role, split=s)[0] for s in ("train", "val", "test")]
    assert len(everything) == n == sum(map(len, parts))
    assert len({row.tobytes() for row in everything}) == n
    kinds = np.count_nonzero(everything, axis=1)
    assert (kinds.min(), everything.max()) == (2, 8)
    assert kinds.max() <= 8


def test_values_belong_to_their_compositions():
    counts, values = formula_sets.compositions("icsd", value="formation_energy")
    assert counts.shape[0] == len(values)
    table = imd.datasets.load("oqmd_icsd").table.groupby("formula")["formation_energy"].min()
    for row in (0, 500, 5000):
        amounts = {int(z): int(counts[row, z]) for z in np.flatnonzero(counts[row])}
        formula = imd.crystals.elements.reduced_formula(amounts)
        assert values[row] == pytest.approx(table[formula])


def test_a_role_without_the_property_says_which_have_it():
    with pytest.raises(InputError, match="icsd or oqmd"):
        formula_sets.compositions("mp", value="band_gap")
