"""The OPTIMADE server of the chapter on databases: answers, pages, questions that break down."""

from itertools import pairwise

import pytest

pytest.importorskip("optimade.server")


@pytest.fixture(scope="module")
def page(experiment):
    """The chapter up to its first answer, its server running."""
    names = experiment("record").chapter("1_foundations/databases", until="### An answer")
    yield names
    names.server.should_exit = True


def counted(page, question):
    return page.ask(question)["meta"]["data_returned"]


def has(table, *symbols):
    sets = table["formula"].map(elements_of)
    return sets.map(lambda found: found >= set(symbols))


def elements_of(formula):
    from pymatgen.core import Composition

    return {each.symbol for each in Composition(formula)}


def test_filters_count_what_a_table_counts(page):
    t = page.oxides.table
    kinds = t["formula"].map(elements_of)
    gap = t["band_gap"]
    expected = {
        "nelements>=1": len(t),
        'elements HAS ALL "Sr","Ti"': has(t, "Sr", "Ti").sum(),
        'elements HAS ANY "Sr","Ti"': (has(t, "Sr") | has(t, "Ti")).sum(),
        'elements HAS ONLY "O","Ti"': kinds.map(lambda found: found <= {"O", "Ti"}).sum(),
        'NOT elements HAS "Li" AND nelements=3': (~has(t, "Li") & (kinds.map(len) == 3)).sum(),
        "_imd_band_gap>2": (gap > 2).sum(),
        "_imd_band_gap IS UNKNOWN": gap.isna().sum(),
        "nsites<=6": (page.oxides.n_sites <= 6).sum(),
        'chemical_formula_reduced="O3SrTi"': (has(t, "Sr", "Ti")
            & t["formula"].map(lambda f: sorted(amounts(f)) == [1, 1, 3])).sum(),
    }  # fmt: skip
    for question, n in expected.items():
        assert counted(page, question) == n > 0, question


def amounts(formula):
    from pymatgen.core import Composition

    return [int(n) for n in Composition(formula).reduced_composition.values()]


@pytest.mark.parametrize(
    ("question", "more"),
    [
        ("elements HAS", {}),
        ("nelements=", {}),
        ("(((", {}),
        ("_imd_bandgap>2", {}),
        ("nelements=3", {"page_limit": -1}),
        ("nelements=3", {"page_limit": 10**9}),
        ("nelements=3", {"sort": "nothing"}),
        ("nelements=3", {"response_format": "xml"}),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_and_harms_nothing(page, question, more):
    answer = page.ask(question, **more)
    assert answer["errors"]
    assert all(int(error["status"]) >= 400 for error in answer["errors"])
    assert counted(page, "nelements>=1") == len(page.oxides)


def test_pages_hold_every_entry_once(page):
    question, seen = 'elements HAS ALL "Ti","O" AND nelements=2', []
    answer = page.ask(question)
    while True:
        seen += [int(row["id"]) for row in answer["data"]]
        following = answer["links"]["next"]
        if not following:
            break
        assert len(answer["data"]) == 3
        answer = page.requests.get(following, timeout=60).json()
    assert len(set(seen)) == len(seen) == counted(page, question)


def test_entries_are_what_the_standard_asks_for(page):
    from optimade.models import StructureResource

    for row in page.ask("nelements>=2", page_limit=100)["data"]:
        one = StructureResource(**row).attributes  # the standard's own checks
        assert one.elements == sorted(one.elements)
        assert len(one.cartesian_site_positions) == one.nsites
        assert sum(one.elements_ratios) == pytest.approx(1.0)


def test_an_order_that_is_asked_for_is_kept(page):
    answer = page.ask("_imd_band_gap>0", sort="-_imd_band_gap", page_limit=50)
    gaps = [row["attributes"]["_imd_band_gap"] for row in answer["data"]]
    assert len(gaps) == 50
    assert all(a >= b for a, b in pairwise(gaps))
