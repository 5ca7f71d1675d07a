"""MatGAN's matrix: the published elements, exact round trips, both rules, every way to fail."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imd_helpers as imd
from imd_helpers.crystals import elements
from imd_helpers.crystals.compositions import parse
from imd_helpers.crystals.samples import Samples
from imd_helpers.descriptors.composition_matrix import (
    ELEMENTS,
    CompositionMatrix,
    fits,
)
from imd_helpers.runtime import InputError

descriptor = CompositionMatrix()
compositions = st.dictionaries(st.sampled_from(ELEMENTS), st.integers(1, 8), min_size=2, max_size=8)


def counts_of(*amounts):
    counts = np.zeros((len(amounts), 119), dtype=np.int64)
    for row, found in zip(counts, amounts, strict=True):
        row[list(found)] = list(found.values())
    return counts


@pytest.fixture(scope="module")
def oqmd():
    return imd.datasets.load("oqmd_formulas").table["formula"].tolist()


def test_the_85_elements():
    assert len(ELEMENTS) == 85
    assert (elements.SYMBOLS[ELEMENTS[0]], elements.SYMBOLS[ELEMENTS[-1]]) == ("H", "Pu")
    for symbol in ("He", "Ne", "Ar", "Kr", "Po", "At", "Rn", "Fr", "Ra"):
        assert elements.number(symbol) not in ELEMENTS
    for symbol in ("Xe", "Tc", "Pm"):
        assert elements.number(symbol) in ELEMENTS


def test_one_matrix_by_hand():
    matrix = descriptor.encode(["Mg(NO3)2"])
    assert matrix.shape == (1, 85, 8)
    rows = {z: ELEMENTS.index(z) for z in (7, 8, 12)}
    assert matrix.sum() == 3
    assert matrix[0, rows[7], 1] == matrix[0, rows[8], 5] == matrix[0, rows[12], 0] == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(compositions, min_size=1, max_size=5), st.sampled_from(["published", "argmax"]))
def test_counts_come_back_exactly(amounts, rule):
    counts = counts_of(*amounts)
    decoded = CompositionMatrix(rule).decode(descriptor.encode(counts))
    assert decoded.ok.all()
    assert np.array_equal(decoded.counts, counts)
    assert fits(counts).all()


def test_every_formula_of_oqmd_comes_back_in_time(oqmd):
    """335,922 with at most 8 atoms of an element; three of them hold krypton."""
    descriptor.read(oqmd[:10])  # compile
    start = time.process_time()
    read = descriptor.read(oqmd)
    matrices = descriptor.matrices(read.valid())
    seconds = time.process_time() - start
    assert len(matrices) == 335_919
    decoded = descriptor.decode(matrices[::5])  # benchmarks/composition_matrix.py decodes all
    assert decoded.ok.all()
    assert np.array_equal(decoded.counts, read.valid()[::5])
    kept = [formula for formula, ok in zip(oqmd, read.ok, strict=True) if ok]
    some = Samples(decoded.counts[::5], decoded.ok[::5], decoded.reasons[::5])
    assert some.formulas() == kept[::25]
    assert seconds < 3
    small = np.array([max(elements.parse_formula(f).values()) <= 8 for f in oqmd[::50]])
    assert (read.ok[::50] <= small).all()
    assert sum("Kr" in reason for reason in read.reasons) == 4  # one has 12 of another element


def test_the_fast_parser_is_the_patient_one(oqmd):
    some = oqmd[::97]
    counts, reasons = parse(some)
    assert not reasons
    for row, formula in zip(counts, some, strict=True):
        assert {int(z): int(row[z]) for z in np.flatnonzero(row)} == elements.parse_formula(formula)


def read_patiently(text):
    """{atomic number: count}, or the reason why there is none."""
    try:
        return elements.parse_formula(text)
    except InputError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="HeLiNaO()0123456789Xx₂ -", max_size=12))
def test_any_text_is_read_as_the_patient_parser_reads_it(text):
    counts, reasons = parse([text, "NaCl"])
    assert counts[1, 11] == counts[1, 17] == 1
    expected = read_patiently(text.strip())
    if not text.strip():
        assert "a blank" in reasons[0]
    elif isinstance(expected, str):
        assert reasons == {0: expected}
    elif any(n != round(n) for n in expected.values()):
        assert "whole" in reasons[0]
    elif max(expected.values()) < 9_999:
        found = {int(z): int(counts[0, z]) for z in np.flatnonzero(counts[0])}
        assert found == {z: n for z, n in expected.items() if n}


def test_cells_are_reduced_first():
    crystals = imd.datasets.load("oqmd_icsd").select(formulas=["SrTiO3"]).crystals
    assert len({int(n) for n in crystals.n_sites}) > 1
    matrices = descriptor.encode(crystals)
    assert (matrices == descriptor.encode(["SrTiO3"])).all()
    assert descriptor.decode(descriptor.encode(["Sr2Ti2O6"])).counts[0, 8] == 6  # taken as written


@pytest.mark.parametrize(
    ("value", "published", "argmax"),
    [(0.19, 0, 0), (0.2, 3, 0), (0.5, 3, 0), (0.51, 3, 3), (1.0, 3, 3), (1.01, 0, 3)],
)
def test_thresholds(value, published, argmax):
    matrix = descriptor.encode(["NaCl", "NaCl"])
    matrix[:, ELEMENTS.index(8), 2] = value
    assert descriptor.decode(matrix).counts[0, 8] == published
    assert CompositionMatrix("argmax").decode(matrix).counts[0, 8] == argmax


def test_where_the_two_rules_differ():
    """A faint large count beats a clear small one by the published rule."""
    matrix = descriptor.encode(["NaCl"])
    matrix[0, ELEMENTS.index(17), 7] = 0.25
    assert descriptor.decode(matrix).formulas() == ["NaCl8"]
    assert CompositionMatrix("argmax").decode(matrix).formulas() == ["NaCl"]


def test_failures_keep_their_place_and_say_why():
    matrix = descriptor.encode(["NaCl"] * 6)
    matrix[1, 0, 0] = float("nan")
    matrix[2] = 0
    matrix[3, ELEMENTS.index(17)] = 0
    matrix[4, 20:28, 0] = 1
    matrix[5, 0, 0] = float("inf")
    decoded = descriptor.decode(matrix)
    assert decoded.ok.tolist() == [True, False, False, False, False, False]
    assert "NaN" in decoded.reasons[1]
    assert "no element" in decoded.reasons[2]
    assert "1 element" in decoded.reasons[3]
    assert decoded.reasons[4].startswith("10 elements")
    assert "infinity" in decoded.reasons[5]
    assert decoded.formulas() == ["NaCl", "", "", "", "", ""]
    assert not decoded.counts[1:].any()
    assert len(decoded.valid()) == 1


BAD = {
    "KrF2": "Kr is not among the 85",
    "Mg17Al12": "1 to 8 atoms",
    "Fe": "2 to 8 elements",
    "HLiBeBCNOFNa": "2 to 8 elements",
    "Na0.5Cl": "whole",
    "Na(Cl": "not a formula",
    "": "no formula: a blank",
    "NaXx": "unknown element 'Xx'",
}


def test_a_batch_goes_on_and_a_single_one_teaches():
    encoded = descriptor.encode_all(["NaCl", *BAD])
    assert encoded.ok.tolist() == [True] + [False] * len(BAD)
    for reason, rule in zip(encoded.reasons[1:], BAD.values(), strict=True):
        assert rule in reason
    assert torch.equal(encoded.valid(), descriptor.encode(["NaCl"]))
    assert not encoded.tensor[1:].any()
    for formula, rule in BAD.items():
        with pytest.raises(InputError, match=rule):
            descriptor.encode([formula])
    with pytest.raises(InputError, match="number 1 of 9"):
        descriptor.encode(["NaCl", *BAD])


def test_input_errors():
    with pytest.raises(InputError, match="one formula"):
        descriptor.encode("NaCl")
    with pytest.raises(InputError, match="no compositions"):
        descriptor.encode([])
    with pytest.raises(InputError, match=r"\(n, 119\)"):
        descriptor.encode(np.ones((2, 85), dtype=int))
    with pytest.raises(InputError, match="whole numbers"):
        descriptor.encode(np.ones((2, 119)))
    for shape in ((0, 85, 8), (85, 8), (2, 8, 85)):
        with pytest.raises(InputError, match="elements before counts"):
            descriptor.decode(torch.zeros(shape))
    with pytest.raises(InputError, match="rule of decoding"):
        CompositionMatrix("soft")
    with pytest.raises(InputError, match="one of each"):
        Samples(np.zeros((2, 119)), np.ones(1, bool), ("",))


def test_negative_counts_are_refused():
    counts = counts_of({11: 1, 17: -1})
    assert not descriptor.encode_all(counts).ok[0]


def test_two_million_need_no_matrices():
    """Read and decoded in pieces, the form between is one byte a number."""
    read = descriptor.read(["SrTiO3", "NaCl"] * 1000)
    assert read.counts.dtype == np.int8
    assert read.counts.nbytes == 2000 * 119
