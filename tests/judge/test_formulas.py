"""Compositions by the million: sets, shares, pieces, and what an interruption leaves."""

import dataclasses
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import compositions, elements
from imd_helpers.crystals.compositions import amounts, first_rows, member
from imd_helpers.crystals.samples import PIECE, Samples, Stream
from imd_helpers.judge import PROTOCOLS, compare, judge
from imd_helpers.runtime import InputError


def counts_of(*texts):
    return amounts(texts)


def random_counts(n, *, seed, most=3):
    rng = np.random.default_rng(seed)
    counts = np.zeros((n, elements.N_COLUMNS), dtype=np.int8)
    for row in counts:
        row[rng.choice(np.arange(1, 20), size=3, replace=False)] = rng.integers(1, most, 3)
    return counts


@dataclass(frozen=True)
class Dice:
    """A source without a network; the first sample of each piece does not decode."""

    def piece(self, index, n, *, seed=0):
        counts = random_counts(n, seed=[seed, index])
        counts[0] = 0
        ok = counts.any(1)
        return Samples(counts, ok, tuple("" if good else "empty" for good in ok))


# ---- sets


@pytest.mark.parametrize("block", [7, 65_536])
def test_first_rows_and_membership_agree_with_sets_of_python(block, monkeypatch):
    monkeypatch.setattr(compositions, "BLOCK", block)
    counts, known = random_counts(3000, seed=1), random_counts(500, seed=2)
    texts = [row.tobytes() for row in counts]
    seen, expected = set(), []
    for i, text in enumerate(texts):
        if text not in seen:
            expected.append(i)
            seen.add(text)
    assert first_rows(counts).tolist() == expected
    theirs = {row.tobytes() for row in known}
    inside = member(counts, known)
    assert inside.tolist() == [text in theirs for text in texts]
    assert 0 < inside.sum() < len(counts)


def test_sets_stay_right_when_keys_collide(monkeypatch):
    counts, known = random_counts(300, seed=1), random_counts(200, seed=2)
    first, inside = first_rows(counts), member(counts[:1], counts[:1])
    monkeypatch.setattr(compositions, "_hashes", lambda rows: np.zeros(len(rows), dtype=np.uint64))
    assert first_rows(counts).tolist() == first.tolist()
    assert inside.tolist() == member(counts[:1], counts[:1]).tolist() == [True]
    assert member(counts[:1], known).sum() <= 1


def test_keys_of_empty_rows_are_zero_wherever_they_stand():
    counts = counts_of("NaCl", "MgO", "TiO2")
    counts[[0, 2]] = 0
    keys = compositions._hashes(counts)
    assert keys[0] == keys[2] == 0 != keys[1]
    assert compositions._hashes(counts_of("MgO"))[0] == keys[1]


def test_sets_take_little_memory_beside_the_counts(monkeypatch):
    """Keys and positions are some 40 bytes a row; a copy of the counts would be 119 more."""
    monkeypatch.setattr(compositions, "BLOCK", 1_000)
    counts = np.tile(random_counts(2_000, seed=1), (20, 1))
    for work in (lambda: first_rows(counts), lambda: member(counts, counts[:100])):
        work()
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < counts.nbytes


# ---- verdicts


def by_formulas(source, **options):
    return judge(source, protocol="formulas", **options)


def test_known_formulas_get_known_verdicts():
    given = ["NaCl", "Na2Cl2", "NaCl2", "CsPbI3", "TiO2"]
    found = by_formulas(given, training=counts_of("TiO2"))
    facts = {name: codes.tolist() for name, codes in found.facts.items()}
    assert facts["decoded"] == [1] * 5
    assert facts["charge balanced"] == [1, 1, 0, 1, 1]
    assert facts["unique"] == [1, 0, 1, 1, 1]  # Na2Cl2 is NaCl
    assert facts["novel"] == [1, 1, 1, 1, 0]
    table = found.table
    assert table["passed"].tolist() == [5, 4, 3, 2]
    assert table["tried"].tolist() == [5, 5, 4, 3]
    assert found.reason(1) == "unique: not unique"
    assert found.samples.formulas() == ["NaCl", "NaCl", "NaCl2", "CsPbI3", "TiO2"]


def test_what_is_known_comes_in_any_form():
    given = ["NaCl", "TiO2"]
    for training in (["Ti2O4"], counts_of("TiO2"), Samples.from_counts(counts_of("TiO2"))):
        assert by_formulas(given, training=training).facts["novel"].tolist() == [1, 0]
    by_name = by_formulas(["NaCl", "Na7Cl5"], reference="oqmd_formulas")
    assert by_name.facts["novel"].tolist() == [0, 1]
    assert "novel" not in by_formulas(given).facts


def test_balance_asks_more_than_neutrality():
    found = by_formulas(["NaCl", "FClO3", "ClF3"])
    verdict = imd.judge.charge_neutral(["NaCl", "FClO3", "ClF3"], pauling=False)
    assert (found.facts["charge neutral"] == 1).tolist() == verdict.tolist()
    assert (found.facts["charge balanced"] <= found.facts["charge neutral"]).all()


def test_alloys_are_a_choice_that_stands_in_the_definition():
    strict = dataclasses.replace(PROTOCOLS["formulas"], alloys=False)
    with_alloys, without = by_formulas(["Ni3Al"]), judge(["Ni3Al"], protocol=strict)
    assert with_alloys.facts["charge balanced"].all()
    assert not without.facts["charge balanced"].any()
    with pytest.raises(imd.judge.DefinitionError, match="alloys"):
        compare([with_alloys, without])


def test_uniqueness_falls_with_the_number_of_samples():
    found = by_formulas(Stream(Dice(), 20_000))
    curve = imd.judge.uniqueness(found, 5)
    assert curve.index.tolist() == [4000, 8000, 12000, 16000, 20000]
    assert (np.diff(curve["share"]) < 0).all()
    distinct = {row.tobytes() for row in found.samples.valid()}
    assert curve["distinct"].iloc[-1] == (found.facts["unique"] == 1).sum() == len(distinct)


def test_recovery_and_novelty_by_number_of_elements():
    found = by_formulas(["NaCl", "NaCl", "KCl", "CsPbI3", "CsPbBr3"])
    recovery = imd.judge.recovery(found, counts_of("NaCl", "LiF", "CsPbI3"))
    assert recovery["reference"].tolist() == [2, 1]
    assert recovery["found"].tolist() == [1, 1]
    assert (recovery["low"] < recovery["share"]).all()
    new = imd.judge.new_by_elements(found, counts_of("NaCl", "CsPbI3"))
    assert new["made"].tolist() == [2, 2]
    assert new["new"].tolist() == [1, 1]
    nothing = imd.judge.new_by_elements(by_formulas(["nonsense"]), counts_of("NaCl"))
    assert len(nothing) == 0


def test_formulas_that_are_none_keep_their_places():
    report = by_formulas(["NaCl", "nonsense", "Na0.5Cl", "C200H401", "C200H400"])
    assert report.facts["decoded"].tolist() == [1, 0, 0, 0, 1]
    assert "formula" in report.reasons[1]
    assert "whole" in report.reasons[2]
    assert report.reasons[3] == "more than 127 atoms of one element"


# ---- pieces


def same(one, two):
    assert np.array_equal(one.samples.counts, two.samples.counts)
    assert {k: v.tolist() for k, v in one.facts.items()} == {
        k: v.tolist() for k, v in two.facts.items()
    }


def test_two_processes_make_what_one_makes():
    stream = Stream(Dice(), 3 * PIECE + 5, seed=4)
    one, two = by_formulas(stream), by_formulas(stream, workers=2)
    same(one, two)
    assert (one.facts["decoded"] == 0).sum() == 4
    assert one.reason(0) == "decoded: empty"


def test_a_stopped_run_goes_on_from_its_pieces(tmp_path):
    class Stops(Dice):
        def piece(self, index, n, *, seed=0):
            if index == 2 and (tmp_path / "stop").exists():
                raise KeyboardInterrupt
            calls.append(index)
            return super().piece(index, n, seed=seed)

    calls = []
    Stops.__reduce__ = lambda self: (Dice, ())  # its content is that of Dice
    (tmp_path / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        by_formulas(Stream(Stops(), 4 * PIECE), cache=tmp_path)
    (tmp_path / "stop").unlink()
    assert calls == [0, 1]
    found = by_formulas(Stream(Stops(), 4 * PIECE), cache=tmp_path)
    assert calls == [0, 1, 2, 3]
    same(found, by_formulas(Stream(Dice(), 4 * PIECE)))


def test_pieces_of_another_seed_or_damaged_ones_are_not_taken(tmp_path):
    stream = Stream(Dice(), 2 * PIECE)
    first = by_formulas(stream, cache=tmp_path)
    other = by_formulas(Stream(Dice(), 2 * PIECE, seed=1), cache=tmp_path)
    assert not np.array_equal(first.samples.counts, other.samples.counts)
    files = [file for file in tmp_path.glob("*/*.npz") if "00000" in file.name]
    assert len(files) >= 6
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    same(by_formulas(stream, cache=tmp_path), first)


def test_crystals_can_be_a_stream_too():
    class Salt:
        PIECE = 2

        def piece(self, index, n, *, seed=0):
            crystal = imd.datasets.load("oqmd_icsd")[index : index + 1].crystals
            return Samples.of(crystal[np.zeros(n, dtype=int)])

    made = judge(Stream(Salt(), 5), protocol="funnel")
    rows = imd.datasets.load("oqmd_icsd")[[0, 0, 1, 1, 2]]
    given = judge(rows, protocol="funnel")
    assert len(made.samples) == 5
    assert (made.failed_at == given.failed_at).all()
    assert made.reasons == given.reasons


# ---- wrong input


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (lambda: Stream(Dice(), 0), {}, "at least 1"),
        (lambda: Stream(Dice(), 10), {"workers": 0}, "workers=0"),
        (lambda: "NaCl", {}, "one formula"),
        (lambda: [], {}, "at least one"),
        (lambda: np.zeros((3, 5), dtype=int), {}, "shape"),
        (lambda: np.full((1, 119), 0.5), {}, "whole"),
        (lambda: np.full((1, 119), -1), {}, "0 or more"),
        (lambda: imd.datasets.load("oqmd_icsd")[:2].crystals, {}, "give their counts"),
    ],
)
def test_wrong_input_is_explained(source, options, message):
    with pytest.raises(InputError, match=message):
        by_formulas(source(), **options)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="cannot be written"):
        by_formulas(Stream(Dice(), 10), cache=file)
