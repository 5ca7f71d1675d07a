"""The ladder on crystals with dates, from a file with the columns of the published one."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

import imd_helpers as imd
from imd_helpers.datasets import parsing
from imd_helpers.datasets.registry import REGISTRY
from imd_helpers.runtime import InputError

N_DATED = 240


@pytest.fixture(scope="module")
def script(experiment):
    return experiment("time_split")


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    """Perovskites and others with years; every tenth has none, and one is no crystal."""
    known = imd.datasets.load("oqmd_icsd").select(nelements=3, space_groups=[225, 216, 221])
    known = known[np.arange(0, 6 * N_DATED, 6)]
    years = [None if i % 10 == 3 else 1960 + i % 60 for i in range(N_DATED)]
    structures = [structure.as_dict() for structure in known.structures()]
    structures[7] = {"@module": "pymatgen.core.structure", "@class": "Structure"}
    columns = {
        "structure": structures,
        "material_id": [f"mp-{i}" for i in range(N_DATED)],
        "energy_above_hull": [0.0] * N_DATED,
        "formation_energy_per_atom": [-1.0] * N_DATED,
        "references": [["@article{a, year = {1990}}"]] * N_DATED,
        "discovery": [{"year": year, "authors": ["A"], "num_authors": 1} for year in years],
        "year": years,
    }
    rows = list(zip(*columns.values(), strict=True))
    layout = {"columns": list(columns), "index": list(range(N_DATED)), "data": rows}
    path = tmp_path_factory.mktemp("dated") / "mp_time_summary.json.gz"
    path.write_bytes(gzip.compress(json.dumps(layout).encode()))
    with pytest.warns(UserWarning, match="mpts_52: 1 rows left out, entry mp-7"):
        return parsing.read_set(REGISTRY["mpts_52"], [path], None)


def test_what_the_ladder_finds_of_what_came_later(script, dated):
    assert len(dated) == N_DATED - 1
    table = script.dated(dated, 2000, n=2_000)
    assert table.index[0] == "ion exchange"
    assert (table["hidden"] > 10).all()
    assert table["found"]["ion exchange"] > 0 == table["found"]["training copies"]
    for row in table.filter(like="siblings").to_numpy():
        pairs = [tuple(map(int, cell.split(" of "))) for cell in row]
        assert sum(of for _, of in pairs) == table["hidden"].iloc[0]
    assert table["0 siblings"]["ion exchange"].startswith("0 of")
    assert isinstance(table, pd.DataFrame)


def test_a_year_that_hides_nothing_is_refused(script, dated):
    with pytest.raises(InputError, match="0 with new formulas later: give another year"):
        script.dated(dated, 2100)
