"""Each protocol on ten crystals, against numbers worked out by hand from its definition."""

import dataclasses

import numpy as np
import pytest
from fakes import Spring, use_fake_hull

from imd_helpers.crystals import CrystalBatch
from imd_helpers.crystals.rules import RULES
from imd_helpers.crystals.samples import Samples
from imd_helpers.energies import corrections, hull
from imd_helpers.judge import PROTOCOLS, DefinitionError, Protocol, compare, judge
from imd_helpers.judge.mechanics import FACTS
from imd_helpers.judge.protocols import Distance, Mean, Share
from imd_helpers.runtime import InputError, UnknownNameError

NA, CL, MG, OX, FE, CS, CU, BR = 11, 17, 12, 8, 26, 55, 29, 35
FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def cubic(a, numbers, frac):
    return CrystalBatch.from_ragged(
        a * np.eye(3)[None], np.array(frac, float), numbers, [len(frac)]
    )


def rocksalt(a, one, two):
    other = (np.array(FCC) + 0.5) % 1
    return cubic(a, [one] * 4 + [two] * 4, np.r_[FCC, other])


def fluorite(a, one, two):
    tetrahedral = [[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)]
    return cubic(a, [one] * 4 + [two] * 8, np.r_[FCC, tetrahedral])


def pair(a, one, two):
    return cubic(a, [one, two], [[0, 0, 0], [0.5, 0.5, 0.5]])


#                                     distances by     charges  energy
#                                     cdvae lemat imd           above hull
SAMPLES = {
    0: rocksalt(5.64, NA, CL),  #       ok    ok    ok    ok      -0.02
    1: rocksalt(5.70, NA, CL),  #       ok    ok    ok    ok      -0.02   the same as 0
    2: rocksalt(4.25, MG, OX),  #        ok    ok    ok    ok      -0.01   known
    3: cubic(0.5, [FE], [[0, 0, 0]]),  # ok   no    no    ok       gate   touches its own image
    4: fluorite(6.2, NA, CL),  #        ok    ok    ok    no      -0.30   NaCl2
    5: pair(4.12, CS, CL),  #           ok    ok    ok    ok       0.05
    6: cubic(3.61, [CU] * 4, FCC),  #   ok    ok    ok    ok      -0.03   a single element
    7: cubic(5.0, [NA, CL], [[0, 0, 0], [0.06, 0, 0]]),  # no no no ok    gate   0.3 Å apart
    8: pair(4.30, CS, BR),  #           not decoded
    9: pair(4.30, CS, BR),  #           ok    ok    ok    ok       0.20
}
ABOVE_HULL = {"NaCl": -0.02, "MgO": -0.01, "NaCl2": -0.3, "CsCl": 0.05, "Cu": -0.03, "CsBr": 0.2}
VOLUMES = {  # Å^3 an atom, where the spring is relaxed; 1 starts a little larger
    "NaCl": 5.64**3 / 8,
    "MgO": 4.25**3 / 8,
    "NaCl2": 6.2**3 / 12,
    "CsCl": 4.12**3 / 2,
    "Cu": 3.61**3 / 4,
    "CsBr": 4.30**3 / 2,
}


CRYSTAL_PROTOCOLS = [name for name, each in PROTOCOLS.items() if each.content == "crystals"]


@pytest.fixture
def samples():
    batch = CrystalBatch.cat(list(SAMPLES.values()))
    ok = np.arange(10) != 8
    return Samples(batch, ok, tuple("" if k else "a wrong shape" for k in ok))


@pytest.fixture
def spring(monkeypatch):
    use_fake_hull(monkeypatch)
    return Spring(ABOVE_HULL, VOLUMES)


def run(samples, spring, protocol, **options):
    known = rocksalt(4.21, MG, OX)
    return judge(
        samples,
        reference=known,
        training=known,
        protocol=protocol,
        potentials=(spring,),
        distributions=False,
        **options,
    )


def shares(report):
    """Name -> (how many, of how many)."""
    return {k.name: (round(k.value * k.n), k.n) for k in report.numbers if k.unit == "share"}


def test_cdvae(samples, spring):
    report = run(samples, spring, "cdvae")
    assert spring.asked == 0  # this protocol has no energies
    assert shares(report) == {
        # of all 10: 8 did not decode, 7 is too close; the iron that touches itself passes
        "valid structure": (8, 10),
        # of all 10: 8 did not decode, 4 (NaCl2) is not neutral
        "valid composition": (8, 10),
        # both: 10 - {8, 7, 4}
        "valid": (7, 10),
    }
    assert report.facts["distances"].tolist() == [1, 1, 1, 1, 1, 1, 1, 0, -1, 1]


def test_mattergen(samples, spring):
    report = run(samples, spring, "mattergen")
    # evaluated = relaxed: 10 - {8 not decoded, 3 and 7 at the gate} = 7: 0 1 2 4 5 6 9
    assert np.flatnonzero(report.facts["relaxed"] == 1).tolist() == [0, 1, 2, 4, 5, 6, 9]
    assert shares(report) == {
        "valid structure": (7, 7),  # all that were relaxed are far from 0.5 Å
        "valid composition": (6, 7),  # but NaCl2
        "valid": (6, 7),
        "unique": (6, 7),  # 1 is 0
        "novel": (6, 7),  # 2 is known
        "novel and unique": (5, 7),
        # up to 0.1 eV/atom, of ALL 10: 0 1 2 4 5 6; CsBr at 0.2 is not
        "stable": (6, 10),
        # stable without 1 (repeated) and 2 (known): 0 4 5 6; nobody asks whether 4 is valid
        "S.U.N.": (4, 10),
    }
    mean = report["mean energy above hull"]
    # two NaCl, MgO, NaCl2, CsCl, Cu, CsBr
    expected = (-0.02 - 0.02 - 0.01 - 0.30 + 0.05 - 0.03 + 0.20) / 7
    assert mean.value == pytest.approx(expected, abs=1e-3)
    assert mean.n == 7
    assert mean.low < mean.value < mean.high


def test_flowmm(samples, spring):
    report = run(samples, spring, "flowmm")
    assert shares(report) == {
        "valid structure": (8, 10),  # as cdvae
        "valid composition": (8, 10),
        "valid": (7, 10),
        # relaxed 0 1 2 4 5 6 9, without the single element 6, at or below the hull: 0 1 2 4
        "stable": (4, 10),
        # without 2, which the training set has: 0 1 4; without the repeated 1: 0 4
        "S.U.N.": (2, 10),
        "S.U.N. of the stable": (2, 4),
    }
    # uniqueness is asked last, so only about what is stable and novel
    assert np.flatnonzero(report.facts["unique"] != -1).tolist() == [0, 1, 4]


def test_lemat(samples, spring):
    report = run(samples, spring, "lemat")
    assert shares(report) == {
        # 10 - {8 not decoded, 7 too close, 3 smaller than 1 Å^3, 4 not neutral} = 0 1 2 5 6 9
        "valid": (6, 10),
        "unique": (5, 6),  # 1 is 0
        "novel": (5, 6),  # 2 is known
        "stable": (4, 6),  # at or below the hull: 0 1 2 6
        "metastable": (5, 6),  # up to 0.1 above it: 0 1 2 5 6, stable ones count
        "S.U.N.": (2, 6),  # 0 6
        "M.S.U.N.": (1, 6),
        "S.U.N. of all": (2, 10),
        "M.S.U.N. of all": (1, 10),
    }
    assert "asks for exactly 2,500 samples, these are 10" in report.notes[0]


def test_lemat_judges_what_was_submitted_and_counts_within_each_set(spring):
    # the same crystal twice, once 5 % too long: relaxed both would be stable, and one repeats
    pair_of_two = CrystalBatch.cat([rocksalt(5.64, NA, CL), rocksalt(5.92, NA, CL)])
    report = run(Samples.of(pair_of_two), spring, "lemat")
    assert shares(report)["unique"] == (1, 2)
    stretched = -0.02 + 2.0 * np.log((5.92 / 5.64) ** 3) ** 2
    assert report.values["energy_above_hull"] == pytest.approx([-0.02, stretched], abs=1e-6)
    assert shares(report)["S.U.N."] == shares(report)["M.S.U.N."] == (1, 2)
    assert report.facts["unique among metastable"].tolist() == [-1, 1]


def test_imd(samples, spring):
    report = run(samples, spring, "imd")
    assert [(stage.name, stage.passed) for stage in report.stages] == [
        ("decodes", 9),  # 8
        ("distances", 7),  # 3 touches its own image, 7
        ("charge neutral", 6),  # 4
        ("unique", 5),  # 1
        ("novel", 4),  # 2: left are 0 5 6 9
        ("relaxed", 4),
        ("converged", 4),
        ("hull", 4),
        ("plausible energy", 4),
        ("still new", 4),
        ("metastable", 3),  # 9 is 0.2 above
        ("stable", 2),  # 5 is 0.05 above: left are 0 6
    ]
    assert shares(report) == {
        "valid": (6, 10),
        "valid, unique, novel": (4, 10),
        "converged": (4, 4),
        "S.U.N. within 0.1": (3, 10),
        "S.U.N.": (2, 10),
    }
    assert np.flatnonzero(report.passed).tolist() == [0, 6]
    why = {
        1: "unique: same as sample 0",
        2: "novel: same as reference crystal 0",
        3: "distances: Fe–Fe 0.50 Å < 1.85 Å (own image)",
        4: "charge neutral: no icsd24 oxidation states balance NaCl2",
        5: "stable: 0.050 eV/atom above hull > 0",
        7: "distances: Na–Cl 0.30 Å < 1.74 Å",
        8: "decodes: a wrong shape",
        9: "metastable: 0.200 eV/atom above hull > 0.1",
    }
    assert {i: report.reason(i) for i in why} == why


def test_the_same_samples_get_very_different_numbers(samples, spring):
    sun = {p: run(samples, spring, p)["S.U.N."].value for p in ("mattergen", "flowmm", "lemat")}
    assert sun == {"mattergen": 4 / 10, "flowmm": 2 / 10, "lemat": 2 / 6}


def test_an_ensemble_takes_the_mean(samples, monkeypatch):
    use_fake_hull(monkeypatch)
    one = Spring(ABOVE_HULL, VOLUMES, name="one")
    # the second opinion lifts Cu to 0.05: their mean is 0.01, so it is metastable, not stable
    two = Spring({**ABOVE_HULL, "Cu": 0.05}, VOLUMES, name="two")
    options = {"reference": rocksalt(4.21, MG, OX), "distributions": False}
    lemat = judge(samples, protocol="lemat", potentials=(one, two), **options)
    assert shares(lemat)["stable"] == (3, 6)
    assert shares(lemat)["metastable"] == (5, 6)  # stable ones count
    assert lemat.values["energy_above_hull"][6] == pytest.approx(0.01, abs=1e-6)
    # in a protocol that is no ensemble the first decides, and the second is the error bar
    imd = judge(samples, protocol="imd", potentials=(one, two), **options)
    assert shares(imd)["S.U.N."] == (2, 10)
    spread = imd["disagreement of the potentials"]
    assert spread.n == 4
    assert spread.value == pytest.approx(0.08 / 4, abs=1e-4)  # 0, 0.08, 0, 0
    assert spread.unit == "eV/atom"
    with pytest.raises(DefinitionError, match="disagreement of the potentials"):
        compare([lemat, judge(samples, protocol="lemat", potentials=(one,), **options)])


# ---- what DFT is expected to say

PAIR = ("chgnet", "sevennet_l3i5")  # calibrated; here two springs bear the names


def by_pair(samples, protocol, monkeypatch, above=ABOVE_HULL, broken=()):
    """Name -> number; the second potential breaks down for some formulas."""
    use_fake_hull(monkeypatch)
    formulas = dict(zip(PAIR, ((), broken), strict=True))
    springs = tuple(Spring(above, VOLUMES, formulas[name], name) for name in PAIR)
    options = {"reference": rocksalt(4.21, MG, OX), "distributions": False}
    report = judge(samples, protocol=protocol, potentials=springs, **options)
    return {number.name: number for number in report.numbers}


def test_copies_of_one_crystal_are_one_piece_of_luck(monkeypatch):
    """As likely as not within 0.1 eV/atom by DFT: forty copies are so together, or not at all."""
    copies = CrystalBatch.cat([SAMPLES[0]] * 40)
    told = by_pair(copies, "mattergen", monkeypatch, {"NaCl": 0.02})
    stable, sun = (told[f"{name}, expected by DFT"] for name in ("stable", "S.U.N."))
    assert 0.1 < stable.value < 0.9
    assert (stable.low, stable.high) == (0.0, 1.0)
    assert sun.value == pytest.approx(stable.value / 40)  # only one of them is unique
    apart = CrystalBatch.cat([rocksalt(5.64, NA, z) for z in range(3, 43)])
    told = by_pair(apart, "mattergen", monkeypatch)["stable, expected by DFT"]
    assert told.high - told.low < 0.9  # forty formulas


def test_nothing_is_expected_of_what_only_the_stable_were_asked(samples, monkeypatch):
    """`flowmm` asks what is new only of crystals that the potentials call stable."""
    told = by_pair(samples, "flowmm", monkeypatch)
    assert "stable, expected by DFT" in told
    assert "S.U.N." in told
    assert "S.U.N., expected by DFT" not in told


def test_odd_sets_have_an_expectation_all_the_same(samples, monkeypatch):
    """One crystal, only failures, an element that neither hull nor table knows."""
    crystals, name = samples.crystals, "stable, expected by DFT"
    one = by_pair(crystals[:1], "mattergen", monkeypatch)[name]
    assert one.n == 1
    assert one.low <= one.value <= one.high
    failed = Samples(crystals[:2], np.zeros(2, dtype=bool), ("no", "no"))
    none = by_pair(failed, "mattergen", monkeypatch)[name]
    assert (none.value, none.low, none.high, none.n) == (0.0, 0.0, 0.0, 2)
    radon = by_pair(pair(5.0, 86, CL), "mattergen", monkeypatch)[name]
    assert radon.note.endswith("; 1 samples hold elements that the calibration never saw")
    one = by_pair(crystals[:1], "mattergen", monkeypatch, broken=("NaCl",))[name]
    assert one.value == 0.0
    assert one.note.endswith("; 1 samples without both energies count as not stable")


class Uncorrected(Spring):
    corrected = False


def test_corrections_reach_the_verdict_and_nothing_else(samples, monkeypatch):
    """-0.2 eV/atom for oxides: of a potential that learned them without, in two protocols."""
    use_fake_hull(monkeypatch)
    plain = hull.above_hull

    def above_hull(counts, energy, potential="chgnet", *, added=0.0):
        return plain(counts, np.asarray(energy) + added, potential)

    def oxides(crystals):
        return np.where(crystals.counts().numpy()[:, OX] > 0, -0.2, 0.0)

    monkeypatch.setattr(hull, "above_hull", above_hull)
    monkeypatch.setattr(corrections, "mp2020", oxides)
    above = {**ABOVE_HULL, "MgO": 0.15}
    for kind, protocol, stable in (
        (Spring, "mattergen", 0),
        (Uncorrected, "mattergen", 1),
        (Uncorrected, "flowmm", 1),
        (Uncorrected, "lemat", 0),  # theirs are not corrected
    ):
        models = tuple(kind(above, VOLUMES, name=name) for name in PAIR)
        report = judge(samples, protocol=protocol, potentials=models, distributions=False)
        assert (report.facts["stable"][2] == 1) == stable, protocol
        assert report.values["energy_above_hull chgnet"][2] == pytest.approx(0.15)
        meanings = {k: v for k, v in report.definition.items() if k != "report"}
        assert ("'corrections'" in str(meanings)) == bool(stable)


def test_other_protocols_do_not_compare(samples, spring):
    one, two = (run(samples, spring, p) for p in ("mattergen", "imd"))
    with pytest.raises(DefinitionError, match="protocol"):
        compare([one, two])
    table = compare([one, run(samples, spring, "mattergen", name="again")])
    assert table.loc["S.U.N."].tolist() == ["40.0 % (16.8–68.7)"] * 2  # Wilson, 4 of 10


def test_without_energies_the_rest_stays(samples):
    known = rocksalt(4.21, MG, OX)
    for name in CRYSTAL_PROTOCOLS:
        report = judge(samples, reference=known, protocol=name, potentials=(), distributions=False)
        asked = set(report.facts)
        unasked = {"relaxed", "hull", "stable", "metastable", "converged"}
        assert not asked & unasked
        for number in report.numbers:  # none whose condition or denominator nobody asked about
            assert not {*number.definition["where"], *number.definition["of"]} & unasked
        with pytest.raises(UnknownNameError):
            report["S.U.N."]


def test_a_protocol_of_your_own(samples, spring):
    loose = dataclasses.replace(
        PROTOCOLS["mattergen"],
        name="loose",
        energies=dataclasses.replace(PROTOCOLS["mattergen"].energies, stable=0.3),
    )
    report = run(samples, spring, loose)
    assert report.protocol == "loose"
    assert shares(report)["stable"] == (7, 10)  # now CsBr too


def test_protocols_are_sound():
    for name, protocol in PROTOCOLS.items():
        assert isinstance(protocol, Protocol)
        assert protocol.name == name
        assert protocol.rule is RULES[protocol.geometry]
        asked = [step.fact for step in protocol.steps]
        assert set(asked) <= set(FACTS[protocol.content])
        assert len(set(asked)) == len(asked)
        assert set(protocol.funnel) <= set(asked)
        for number in protocol.numbers:
            used = {
                Share: lambda k: {*k.where, *k.of, *k.but_not},
                Mean: lambda k: set(k.over),
                Distance: lambda k: set(k.over),
            }[type(number)](number)
            assert used <= set(asked), (name, number)
        if name in ("funnel", "formulas"):  # nobody else's, and without numbers
            assert not protocol.numbers
            continue
        assert protocol.sources
        assert protocol.notes
        if name != "cdvae":  # the only one without energies
            assert any("stand" in text or "relax" in text for text in protocol.notes)


def test_what_stands_in_for_something_else_is_in_the_definition(samples, spring):
    report = run(samples, spring, "mattergen")
    assert any("stands in for MatterSim" in note for note in report.definition["report"]["notes"])
    assert report.definition["report"]["energies"]["stable"] == 0.1
    assert "stands in for MatterSim" in report._repr_html_()
    changed = dataclasses.replace(PROTOCOLS["mattergen"], notes=("something else",))
    with pytest.raises(DefinitionError, match="notes is"):
        compare([report, run(samples, spring, changed)])


def test_wrong_protocols(samples):
    known = rocksalt(4.21, MG, OX)
    with pytest.raises(UnknownNameError, match="nearest first: cdvae"):
        judge(samples, reference=known, protocol="cdvea")
    with pytest.raises(UnknownNameError, match="chgnet"):
        judge(samples, reference=known, potentials=("chgnt",))
    with pytest.raises(InputError, match="must be Sequence"):
        judge(samples, reference=known, potentials="chgnet")
    with pytest.raises(InputError, match="name each one once"):
        judge(samples, reference=known, potentials=("chgnet", "chgnet"))
