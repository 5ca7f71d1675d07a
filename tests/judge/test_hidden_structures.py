"""The judge on real structures that none of its rules were made with."""

import os
from pathlib import Path

import pytest

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.rules import geometry_verdict
from imd_helpers.judge import wilson

SPLITS = ("val", "test")


@pytest.fixture(scope="module", params=SPLITS)
def materials_project(request):
    root = os.environ.get("IMD_DATA_DIR", "")
    path = Path(root, "mp20_biternary", f"{request.param}.csv.gz")
    if not root or not path.is_file():
        pytest.skip(f"set IMD_DATA_DIR to a folder that holds {'/'.join(path.parts[-2:])}")
    return imd.datasets.read_cif_csv({request.param: path}, name="mp20_biternary")


def test_real_structures_pass_the_geometry_rule(materials_project):
    crystals = materials_project.crystals
    verdict = geometry_verdict(crystals, "imd")
    assert len(crystals) > 1000
    low, _ = wilson(verdict.ok.sum(), len(crystals))
    refused = [(crystals[i].formulas()[0], verdict.reason(i)) for i in (~verdict.ok).nonzero()[0]]
    assert low >= 0.97, f"{len(refused)} of {len(crystals)} real structures refused: {refused}"
    assert all(reason for _, reason in refused)


def test_the_rule_is_no_formality(materials_project):
    some = materials_project[:500].crystals
    squeezed = CrystalBatch(0.6 * some.lattice, some.frac, some.numbers)
    assert imd.judge.geometry_valid(squeezed, "imd").mean() < 0.05
