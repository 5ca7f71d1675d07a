import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imd_helpers.descriptors import smiles
from imd_helpers.runtime import InputError

KNOWN = list(smiles.WELL_KNOWN.values())


@given(st.sampled_from(KNOWN), st.integers(1, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_walk_has_one_canonical_name_and_comes_back_from_its_tokens(text, seed):
    for walk in smiles.rewrite(text, 3, seed=seed):
        assert "".join(smiles.tokenize(walk)) == walk
        assert smiles.canonical(walk) == smiles.canonical(text)


def test_what_is_no_token_is_named_with_its_place():
    assert smiles.tokenize("C%12C[nH]Cl%(1)") == ["C", "%12", "C", "[nH]", "Cl", "%(1)"]
    for text in ("CXC", "C[]"):
        with pytest.raises(InputError, match="position 1"):
            smiles.tokenize(text)


def test_verdicts_name_the_reason():
    assert smiles.verdict("c1ccccc1") == ""
    assert smiles.is_valid("C")
    assert smiles.verdict("C(C)(C)(C)(C)C") == "valence"
    assert smiles.verdict("c1cccc1") == "aromaticity"
    assert smiles.verdict("cC") == "aromaticity"
    assert smiles.verdict("C1CC") == "syntax"
    for text in ("", "  ", None, float("nan")):
        assert smiles.verdict(text) == "empty"
    for text in ("C C", "CCO ethanol", "C\nC", "\ud83d", "C−C"):
        assert smiles.verdict(text) == "syntax"


@pytest.mark.parametrize("text", ["C=1CCCCC-1", "C-%12CCCCC=%12", "C=%(123)CCC-%(123)"])
def test_marks_of_a_ring_that_disagree_are_no_syntax(text):
    assert smiles.verdict(text) == "syntax"


@pytest.mark.parametrize("text", ["C=1CCCCC=1", "C=1CCCCC1", "C1CCCCC=1", "C%12CCCC=%12"])
def test_marks_of_a_ring_that_agree_are(text):
    assert smiles.verdict(text) == ""


def test_a_single_bond_may_be_written():
    assert smiles.tokenize("C-C-O") == ["C", "-", "C", "-", "O"]
    assert smiles.canonical("C-C-O") == smiles.canonical("CCO") == "CCO"


@pytest.mark.parametrize("text", ["[Na+].[Cl-]", "[NH4+].[NH4+].[O-]S(=O)(=O)[O-]", "CCO.O"])
def test_the_parts_of_a_salt_lie_apart(text):
    from rdkit.Chem import GetMolFrags

    molecule = smiles.embed(text)
    distances = smiles.batch_of([molecule]).distances()[0].numpy()
    parts = GetMolFrags(molecule)
    between = [distances[np.ix_(a, b)].min() for a in parts for b in parts if a != b]
    assert 2.9 < min(between) < 5.0


def test_settings_that_count_are_whole():
    rng = np.random.default_rng(0)
    for value in (-1, 0.5, float("nan"), None):
        for name, call in {
            "n": lambda v: smiles.rewrite("CCO", v),
            "seed": lambda v: smiles.embed("CCO", seed=v),
            "edits": lambda v: smiles.mutate(["C"], ["O"], rng, edits=v),
        }.items():
            with pytest.raises(InputError, match=f"{name}={value}"):
                call(value)


def test_aromatic_and_aliphatic_letters_name_different_molecules():
    assert smiles.canonical("C1CCCCC1") != smiles.canonical("c1ccccc1")
    assert smiles.canonical("C1=CC=CC=C1") == smiles.canonical("c1ccccc1")
    with pytest.raises(InputError, match="aromaticity"):
        smiles.canonical("c1cccc1")


@given(st.sampled_from(KNOWN), st.integers(0, 2**31 - 1), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_mutated_selfies_are_valid_or_empty(text, seed, edits):
    tokens = smiles.to_selfies(text)
    alphabet = sorted({token for other in KNOWN[::7] for token in smiles.to_selfies(other)})
    mutant = smiles.mutate(tokens, alphabet, np.random.default_rng(seed), edits=edits)
    assert smiles.verdict(smiles.from_selfies(mutant)) in {"", "empty"}
    if edits == 0:
        assert mutant == tokens
    assert abs(len(mutant) - len(tokens)) <= edits


def test_mutations_use_all_three_edits_and_leave_the_source():
    source, rng = list("CCCCCC"), np.random.default_rng(0)
    lengths = [len(smiles.mutate(source, ["O"], rng)) for _ in range(300)]
    assert set(lengths) == {5, 6, 7}
    assert source == list("CCCCCC")
    assert min(np.bincount(lengths)[5:]) > 60
    with pytest.raises(InputError, match="something to change"):
        smiles.mutate([], ["O"], rng)


def test_selfies_come_back():
    for text in KNOWN:
        back = smiles.from_selfies(smiles.to_selfies(text))
        assert smiles.canonical(back) == smiles.canonical(text)
    with pytest.raises(InputError, match="no SELFIES"):
        smiles.to_selfies("C(")


def test_embedding_is_repeatable_and_keeps_hands():
    one, other = smiles.embed("CCO", seed=3), smiles.embed("CCO", seed=3)
    batch = smiles.batch_of([one, other])
    assert batch.formulas() == ["C2H6O"] * 2
    assert np.allclose(batch.positions[0], batch.positions[1])
    with pytest.raises(InputError, match="syntax"):
        smiles.embed("C(")
    from rdkit.Chem import MolFromSmiles

    with pytest.raises(InputError, match="no coordinates"):
        smiles.batch_of([MolFromSmiles("C")])
