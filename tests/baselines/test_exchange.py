"""Ion exchange and prototypes, by hand and against a data set."""

from collections import Counter

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.baselines import IonExchange, PrototypeEnumeration, Templates
from imd_helpers.baselines.exchange import exchange_pairs, exchanges
from imd_helpers.crystals import CrystalBatch, elements, symmetry
from imd_helpers.crystals.compositions import amounts, formulas
from imd_helpers.crystals.wyckoff import occupations
from imd_helpers.judge import charge_neutral
from imd_helpers.runtime import InputError


def crystal(number, cell, *sites):
    """One crystal from a space group and (symbol, x, y, z) of each orbit."""
    frac = np.array([[site[1:] for site in sites]], dtype=float)
    numbers = np.array([[elements.number(site[0]) for site in sites]])
    return symmetry.expand([number], np.asarray(cell, dtype=float)[None], frac, numbers)[0]


def rocksalt(one, two, a=5.6):
    return crystal(225, a * np.eye(3), (one, 0, 0, 0), (two, 0.5, 0.5, 0.5))


# ---- exchange


def test_pairs_by_hand():
    a = 4.1 * np.eye(3)
    crystals = CrystalBatch.cat(
        [
            rocksalt("Na", "Cl"),
            rocksalt("Cl", "K"),  # another choice of origin: the same prototype
            rocksalt("Na", "F"),
            rocksalt("Na", "F", 4.7),  # a second entry of a compound counts no more
            crystal(221, a, ("Cs", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5)),
            crystal(221, a, ("Sr", 0, 0, 0), ("Ti", 0.5, 0.5, 0.5), ("O", 0.5, 0.5, 0)),
            crystal(221, a, ("Ti", 0, 0, 0), ("Ba", 0.5, 0.5, 0.5), ("O", 0.5, 0, 0)),
        ]
    )
    expected = {("Na", "K"): 1, ("Cl", "F"): 1, ("Sr", "Ba"): 1}
    held = occupations(crystals)
    pairs = exchange_pairs(held)
    assert (pairs == pairs.T).all()
    found = {
        (elements.SYMBOLS[i], elements.SYMBOLS[j]): int(pairs[i, j])
        for i, j in np.argwhere(np.triu(pairs))
    }
    assert {frozenset(pair): n for pair, n in found.items()} == {
        frozenset(pair): n for pair, n in expected.items()
    }
    labels = [each.prototype() for each in held]
    assert len(set(labels)) == 3
    assert labels[0] == labels[1] == labels[2] == labels[3]
    assert labels[5] == labels[6]


def test_prototypes_agree_with_those_of_the_data_set():
    data = imd.datasets.load("oqmd_icsd").select(max_sites=12, space_groups=[225, 62, 194, 166])
    data = data[:300]
    labels = [each.prototype() for each in occupations(Templates.of(data.crystals).crystals)]
    named = data.table["prototype"].tolist()  # of another program
    same = [
        ((labels[i] == labels[j]), (named[i] == named[j])) for i in range(300) for j in range(i)
    ]
    both = Counter(same)
    assert both[True, True] > 1000
    assert both[True, False] + both[False, True] < 0.1 * both[True, True]


def test_exchange_follows_the_counts(training):
    model = IonExchange(training)
    n = 4000
    sample = model.sample(n, seed=5).crystals
    kept = (model.training.crystals.counts().numpy() > 0).astype(int)
    got = (sample.counts().numpy() > 0).astype(int)
    # each sample is a training crystal with one element exchanged for a counted partner
    some = got[:200]
    lost = (kept[None] > some[:, None]).sum(-1)
    won = (some[:, None] > kept[None]).sum(-1)
    one = (lost == 1) & (won == 1)
    assert one.any(1).all()
    pairs = [
        any(model.pairs[np.argmax(k > row), np.argmax(row > k)] for k in kept[hits])
        for row, hits in zip(some, one, strict=True)
    ]
    assert all(pairs)


def test_exchange_shares_by_hand():
    sets = [rocksalt("Na", x) for x in ("Cl", "F", "Br")] + [rocksalt("K", "Cl")]
    model = IonExchange(CrystalBatch.cat(sets))
    sample = model.sample(6000, seed=0).crystals
    shares = {formula: k / 6000 for formula, k in Counter(sample.formulas()).items()}
    # NaCl (1/4): Na -> K (1/2) or Cl -> F, Br (1/4 each); NaF: Na -> K, or F -> Cl, Br; NaBr alike;
    # KCl: K -> Na, or Cl -> F, Br
    expected = {
        "KCl": 1 / 8,
        "NaF": 1 / 16 + 1 / 16,
        "NaBr": 1 / 16 + 1 / 16,
        "KF": 1 / 8 + 1 / 16,
        "KBr": 1 / 8 + 1 / 16,
        "NaCl": 1 / 16 + 1 / 16 + 1 / 8,
    }
    assert shares == pytest.approx(expected, abs=0.025)
    found = model.sample(50, condition={"elements": ("K", "F")}).crystals
    assert set(found.formulas()) == {"KF"}


def test_exchange_errors(training):
    with pytest.raises(InputError, match="differ by one element"):
        IonExchange(CrystalBatch.cat([rocksalt("Na", "Cl"), rocksalt("Mg", "O")]))
    with pytest.raises(InputError, match="known crystals satisfies"):
        IonExchange(training).sample(2, condition={"elements": ("H", "He", "Ne")})


# ---- prototypes


def test_all_prototypes_are_filled_in_all_ways():
    a = 4.1 * np.eye(3)
    cscl = crystal(221, a, ("Cs", 0, 0, 0), ("Cl", 0.5, 0.5, 0.5))
    fluorite = crystal(225, 5.5 * np.eye(3), ("Ca", 0, 0, 0), ("F", 0.25, 0.25, 0.25))
    model = PrototypeEnumeration(
        CrystalBatch.cat([rocksalt("Na", "Cl"), rocksalt("K", "F"), cscl, fluorite])
    )
    assert len(model.prototypes) == 3
    sample = model.sample(300, condition={"elements": ("Mg", "O")}, seed=0)
    groups = sample.asked["space_group"].tolist()
    assert set(zip(sample.crystals.formulas(), groups, strict=True)) == {
        ("MgO", 221),
        ("MgO", 225),
        ("MgO2", 225),
        ("Mg2O", 225),
    }
    # prototypes are drawn alike, though two of four training crystals are rock salt
    asked = model.sample(3000, seed=0).asked["space_group"]
    assert np.mean(asked == 221) == pytest.approx(1 / 3, abs=0.04)


def test_nothing_is_filtered(mixed):
    free = PrototypeEnumeration(mixed).sample(300, seed=0)
    assert free.ok.all()
    assert charge_neutral(free.crystals.counts().numpy()).mean() < 0.85
    with pytest.raises(InputError, match="known crystals satisfies"):
        PrototypeEnumeration(mixed).sample(2, condition={"elements": [*"HBCNOFPSK"]})


# ---- a list by exchange


def pairs_of(*symbols):
    """Elements that replace each other, with how often."""
    out = np.zeros((119, 119), dtype=np.int64)
    for one, other, times in symbols:
        out[one, other] = out[other, one] = times
    return out


def test_every_exchange_of_one_element_once():
    known = amounts(["NaCl", "KCl", "Na2O"]).astype(np.int16)
    pairs = pairs_of((11, 19, 3), (17, 35, 1), (19, 37, 1))
    found = exchanges(known, pairs)
    assert sorted(formulas(found.counts.astype(int))) == sorted(
        ["KCl", "NaCl", "RbCl", "NaBr", "KBr", "K2O"]
    )
    which = formulas(found.counts.astype(int)).index("NaCl")  # from KCl: 3 of the 4 exchanges of K
    assert found.parent[which] == 1
    assert found.chance[which] == pytest.approx(np.log(3 / 4))
    with pytest.raises(InputError, match="has a partner"):
        exchanges(known, pairs_of((90, 92, 1)))


def test_two_elements_at_once_never_meet_and_take_each_others_counts():
    known = amounts(["CaTiO3"]).astype(np.int16)
    pairs = pairs_of((20, 38, 1), (22, 40, 1), (22, 38, 1))
    found = exchanges(known, pairs, two=50)
    names = set(formulas(found.counts.astype(int)))
    assert names == set(formulas(amounts(["SrTiO3", "CaZrO3", "CaSrO3", "SrZrO3"])))
    both = found[formulas(found.counts.astype(int)).index("SrZrO3")]
    assert sorted(both.new.tolist()) == [38, 40]
    assert both.chance == pytest.approx(np.log(0.5))


def test_the_swap_of_an_exchange_leads_to_its_composition():
    known = amounts(["CaTiO3", "Na2O"]).astype(np.int16)
    found = exchanges(known, pairs_of((20, 38, 1), (22, 40, 1), (11, 19, 2)), two=20)
    for i, swap in enumerate(found.swap()):
        made = np.zeros(119, dtype=int)
        np.add.at(made, swap, known[found.parent[i]])
        assert (made == found.counts[i]).all()
