import numpy as np
import pytest
import torch

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.rules import (
    RULES,
    GeometryRule,
    geometry_verdict,
    safe_counts,
    why_broken,
)
from imd_helpers.judge import geometry_valid
from imd_helpers.runtime import UnknownNameError


def cubic(a, numbers, frac, *, edges=None):
    lattice = np.diag(edges) if edges else a * np.eye(3)
    return CrystalBatch.from_ragged(lattice[None], np.array(frac, float), numbers, [len(numbers)])


ROCKSALT = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]] + [
    [0.5, 0, 0],
    [0, 0.5, 0],
    [0, 0, 0.5],
    [0.5, 0.5, 0.5],
]


@pytest.fixture(scope="module")
def real():
    return imd.datasets.load("oqmd_icsd").select(max_sites=20).crystals


def test_real_crystals_pass(real):
    assert len(real) == 20_988
    passing = {name: int(geometry_valid(real, name).sum()) for name in RULES}
    assert passing == {"imd": 20_981, "cdvae": 20_988, "lemat": 20_983}  # in the docstring


def test_same_verdict_in_any_cell(real):
    some = real[:300]
    skew = torch.tensor([[1.0, 0, 0], [3, 1, 0], [-2, 4, 1]], dtype=torch.float64)
    skewed = CrystalBatch(
        skew @ some.lattice, (some.frac @ torch.linalg.inv(skew)) % 1, some.numbers
    )
    for scale in (1.0, 0.75, 0.5):  # at 0.75 some pass and some fail
        one = CrystalBatch(scale * some.lattice, some.frac, some.numbers)
        two = CrystalBatch(scale * skewed.lattice, skewed.frac, skewed.numbers)
        assert (geometry_valid(one) == geometry_valid(two)).all()


def test_limit_is_where_it_should_be():
    # Na–Cl: 0.65 * (1.66 + 1.02) = 1.742 Å
    for a, ok in ((3.50, True), (3.46, False)):
        verdict = geometry_verdict(cubic(a, [11] * 4 + [17] * 4, ROCKSALT))
        assert verdict.ok.tolist() == [ok]
    assert verdict.reason(0) == "Na–Cl 1.73 Å < 1.74 Å"


@pytest.mark.parametrize(
    "crystal",
    [
        cubic(0.5, [26], [[0, 0, 0]]),
        cubic(0, [26, 8], [[0, 0, 0], [0, 0.5, 0]], edges=[0.3, 10, 10]),
    ],
    ids=["Fe in a cube of 0.5 Å", "FeO in 0.3 x 10 x 10 Å"],
)
def test_the_hole_of_cdvae(crystal):
    assert geometry_valid(crystal, "cdvae").all()
    verdict = geometry_verdict(crystal, "imd")
    assert not verdict.ok.any()
    assert verdict.reason(0).endswith("(own image)")


@pytest.mark.parametrize(
    ("rule", "crystal", "ok", "reason"),
    [
        # CDVAE: pairs at least 0.5 Å apart, cell of at least 0.1 Å^3
        ("cdvae", cubic(4, [6, 6], [[0, 0, 0], [0.126, 0, 0]]), True, ""),
        ("cdvae", cubic(4, [6, 6], [[0, 0, 0], [0.12, 0, 0]]), False, "C–C 0.48 Å < 0.50 Å"),
        ("cdvae", cubic(0.46, [6], [[0, 0, 0]]), False, "cell volume 0.0973 Å^3 < 0.1 Å^3"),
        # LeMat: 0.5 * (0.7 + 0.7 + 0.7) = 1.05 Å for carbon
        ("lemat", cubic(4, [6, 6], [[0, 0, 0], [0.27, 0, 0]]), True, ""),
        ("lemat", cubic(4, [6, 6], [[0, 0, 0], [0.25, 0, 0]]), False, "C–C 1.00 Å < 1.05 Å"),
        # He has no atomic radius there: 0.5 * (0.7 + 1 + 1) = 1.35 Å
        ("lemat", cubic(4, [2, 2], [[0, 0, 0], [0.33, 0, 0]]), False, "He–He 1.32 Å < 1.35 Å"),
        ("lemat", cubic(101, [6], [[0, 0, 0]]), False, "volume per atom"),
        ("lemat", cubic(0, [92], [[0, 0, 0]], edges=[120, 2, 2]), False, "edge 120 Å > 100 Å"),
        ("lemat", cubic(2.2, [92], [[0, 0, 0]]), False, "density 37.1 g/cm^3 > 25 g/cm^3"),
        ("imd", cubic(20, [6], [[0, 0, 0]]), False, "volume per atom 8e+03 Å^3 > 150 Å^3"),
        ("imd", cubic(5.3, [3], [[0, 0, 0]]), True, ""),
        ("imd", cubic(6, [1], [[0, 0, 0]]), False, "volume per atom 216 Å^3 > 150 Å^3"),
        ("imd", cubic(0.49, [1], [[0, 0, 0]]), False, "H–H 0.49 Å < 0.50 Å (own image)"),
    ],
)
def test_rules_by_hand(rule, crystal, ok, reason):
    verdict = geometry_verdict(crystal, rule)
    assert verdict.ok.tolist() == [ok]
    assert reason in verdict.reason(0)
    assert bool(verdict.reason(0)) != ok


def test_broken_crystals_fail_alone():
    good = cubic(5.64, [11] * 4 + [17] * 4, ROCKSALT)
    batch = CrystalBatch.cat([good] * 8)
    batch.lattice[1, 0, 0] = float("nan")
    batch.frac[2, 3, 1] = float("inf")
    batch.lattice[3, 2] = batch.lattice[3, 1]
    batch.lattice[4] = 0
    batch.numbers[5] = 0
    batch.numbers[6, 0] = 200
    batch.numbers[7, 2] = 0
    for rule in RULES:
        verdict = geometry_verdict(batch, rule)
        assert verdict.ok.tolist() == [True] + [False] * 7
        assert len(verdict.reasons) == len(batch)
        assert all(verdict.reasons[1:])
    words = ["", "NaN", "NaN", "volume", "volume", "no atoms", "200", "padding"]
    assert all(word in reason for word, reason in zip(words, verdict.reasons, strict=True))
    assert geometry_valid(batch[1:3]).tolist() == [False, False]
    counts = safe_counts(batch)
    assert counts[0].sum() == 8
    assert not counts[1:].any()
    batch.numbers[6, 0] = -1
    assert "-1" in why_broken(batch, 6)


def test_every_failure_has_a_reason(real):
    rng = np.random.default_rng(0)
    scale = torch.as_tensor(np.exp(rng.uniform(-3, 1, 2000)))[:, None, None]
    squeezed = CrystalBatch(scale * real.lattice[:2000], real.frac[:2000], real.numbers[:2000])
    for rule in RULES:
        verdict = geometry_verdict(squeezed, rule)
        assert 0.05 < verdict.ok.mean() < 0.95
        assert [reason == "" for reason in verdict.reasons] == verdict.ok.tolist()


def test_own_rule_and_unknown_rule(real):
    strict = GeometryRule("strict", "a test", min_distance=2.0)
    assert 0.2 < geometry_valid(real[:500], strict).mean() < 0.9
    with pytest.raises(UnknownNameError, match="cdvae"):
        geometry_valid(real[:1], "cdva")
