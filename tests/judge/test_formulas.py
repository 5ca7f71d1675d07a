"""Compositions by the million: sets, shares, pieces, and what an interruption leaves."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import first_rows, member
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.composition_matrix import CompositionMatrix
from imd_helpers.judge import formulas
from imd_helpers.judge.formulas import PIECE, judge_formulas
from imd_helpers.runtime import InputError


def counts_of(*texts):
    return CompositionMatrix().read(list(texts)).counts


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
    monkeypatch.setattr(formulas, "BLOCK", block)
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
    monkeypatch.setattr(formulas, "_keys", lambda rows: np.zeros(len(rows), dtype=np.uint64))
    assert first_rows(counts).tolist() == first.tolist()
    assert inside.tolist() == member(counts[:1], counts[:1]).tolist() == [True]
    assert member(counts[:1], known).sum() <= 1


def test_keys_of_empty_rows_are_zero_wherever_they_stand():
    counts = counts_of("NaCl", "MgO", "TiO2")
    counts[[0, 2]] = 0
    keys = formulas._keys(counts)
    assert keys[0] == keys[2] == 0 != keys[1]
    assert formulas._keys(counts_of("MgO"))[0] == keys[1]


def test_sets_take_little_memory_beside_the_counts(monkeypatch):
    """Keys and positions are some 40 bytes a row; a copy of the counts would be 119 more."""
    monkeypatch.setattr(formulas, "BLOCK", 1_000)
    counts = np.tile(random_counts(2_000, seed=1), (20, 1))
    for work in (lambda: first_rows(counts), lambda: member(counts, counts[:100])):
        work()
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < counts.nbytes


# ---- verdicts


def test_known_formulas_get_known_verdicts():
    given = ["NaCl", "Na2Cl2", "NaCl2", "CsPbI3", "TiO2"]
    found = judge_formulas(given, training=counts_of("TiO2"))
    assert found.decoded.all()
    assert found.balanced.tolist() == [True, True, False, True, True]
    assert found.first.tolist() == [True, False, True, True, True]  # Na2Cl2 is NaCl
    assert found.known.tolist() == [False, False, False, False, True]
    table = found.report().table
    assert table["passed"].tolist() == [5, 4, 3, 2]
    assert table["tried"].tolist() == [5, 5, 4, 3]


def test_balance_asks_more_than_neutrality():
    found = judge_formulas(["NaCl", "FClO3", "ClF3"])
    verdict = imd.judge.charge_neutral(["NaCl", "FClO3", "ClF3"], pauling=False)
    assert found.neutral.tolist() == verdict.tolist()
    assert (found.balanced <= found.neutral).all()


def test_alloys_are_a_choice_that_stands_in_the_definition():
    with_alloys, without = (judge_formulas(["Ni3Al"], alloys=flag) for flag in (True, False))
    assert with_alloys.balanced.all()
    assert not without.balanced.any()
    with pytest.raises(imd.judge.DefinitionError):
        with_alloys.report().compare(without.report())


def test_uniqueness_falls_with_the_number_of_samples():
    found = judge_formulas(Dice(), 20_000)
    curve = found.uniqueness(5)
    assert curve.index.tolist() == [4000, 8000, 12000, 16000, 20000]
    assert (np.diff(curve["share"]) < 0).all()
    assert curve["distinct"].iloc[-1] == found.first.sum() == len(first_rows_of(found))


def first_rows_of(found):
    return {row.tobytes() for row in found.counts[found.decoded]}


def test_recovery_and_novelty_by_number_of_elements():
    found = judge_formulas(["NaCl", "NaCl", "KCl", "CsPbI3", "CsPbBr3"])
    recovery = found.recovery(counts_of("NaCl", "LiF", "CsPbI3"))
    assert recovery["reference"].tolist() == [2, 1]
    assert recovery["found"].tolist() == [1, 1]
    assert (recovery["low"] < recovery["share"]).all()
    new = found.new(counts_of("NaCl", "CsPbI3"))
    assert new["made"].tolist() == [2, 2]
    assert new["new"].tolist() == [1, 1]


# ---- pieces


def test_two_processes_make_what_one_makes():
    one = judge_formulas(Dice(), 3 * PIECE + 5, seed=4)
    two = judge_formulas(Dice(), 3 * PIECE + 5, seed=4, workers=2)
    for name in ("counts", "neutral", "balanced"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert (~one.decoded).sum() == 4


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
        judge_formulas(Stops(), 4 * PIECE, cache=tmp_path)
    (tmp_path / "stop").unlink()
    assert calls == [0, 1]
    found = judge_formulas(Stops(), 4 * PIECE, cache=tmp_path)
    assert calls == [0, 1, 2, 3]
    assert np.array_equal(found.counts, judge_formulas(Dice(), 4 * PIECE).counts)


def test_pieces_of_another_seed_or_damaged_ones_are_not_taken(tmp_path):
    first = judge_formulas(Dice(), 2 * PIECE, cache=tmp_path)
    other = judge_formulas(Dice(), 2 * PIECE, seed=1, cache=tmp_path)
    assert not np.array_equal(first.counts, other.counts)
    for file in tmp_path.glob("*/000000.npz"):
        file.write_bytes(file.read_bytes()[:100])
    again = judge_formulas(Dice(), 2 * PIECE, cache=tmp_path)
    assert np.array_equal(first.counts, again.counts)


# ---- wrong input


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Dice(), {}, "how many"),
        (Dice(), {"n": 0}, "how many"),
        (Dice(), {"n": 10, "workers": 0}, "workers = 0"),
        ("NaCl", {}, "one formula"),
        (["NaCl"], {"n": 3}, "1 compositions were given"),
        (np.zeros((3, 5), dtype=int), {}, "shape"),
        (np.full((1, 119), 0.5), {}, "whole"),
    ],
)
def test_wrong_input_is_explained(source, options, message):
    with pytest.raises(InputError, match=message):
        judge_formulas(source, **options)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="cannot be written"):
        judge_formulas(Dice(), 10, cache=file)
