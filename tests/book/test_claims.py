"""The list of claims: every link leads to a section that exists, every number to a record."""

import re

import pytest
from bookfiles import read_pages
from docutils.nodes import make_id

from imd_helpers.runtime import data_path, read_toml

PAGES = {page.name: page for page in read_pages()}
LISTS = read_toml("surveys", "claims.toml")
CLAIMS, LADDER = LISTS["claims"], LISTS["ladder"]
SINCE = read_toml("surveys", "since.toml")["since"]
PICKS = [
    {**claim, **pick}
    for claim in CLAIMS
    for pick in claim["measured"]
    if pick.get("page", claim["page"]) in PAGES
]


def sections(name):
    """The anchors of a page as the builder makes them, code cells left out."""
    text = re.sub(r"^```.*?^```", "", PAGES[name].path.read_text("utf-8"), flags=re.M | re.S)
    return {make_id(title) for title in re.findall(r"^#+ (.+)$", text, flags=re.M)}


@pytest.mark.parametrize("pick", PICKS, ids=lambda pick: f"{pick['system']}: {pick['what']}")
def test_a_measured_number_links_to_a_section_that_exists(pick):
    assert pick["section"] in sections(pick["page"])
    assert (data_path("checkpoints") / pick["file"]).is_file()


def test_every_claim_is_measured():
    assert all(claim["measured"] for claim in CLAIMS)


def test_a_ladder_of_a_chapter_of_the_book_has_its_record():
    names = {page.split("/")[1] for page in PAGES if page.startswith("4_models/")}
    for entry in LADDER:
        folder = entry["file"].split("/")[0]
        if folder.split("-")[0] in names:
            assert (data_path("checkpoints") / entry["file"]).is_file(), entry["file"]


def test_every_claim_and_every_later_number_has_a_source():
    for row in (*CLAIMS, *SINCE):
        assert row["source"].startswith("https://"), row
    assert all(claim["repository"] and claim["paper"] and claim["code"] for claim in CLAIMS)
    assert all(re.search(r"20(2[0-9])", row["date"]) for row in SINCE)


def test_every_later_number_belongs_to_a_problem_of_the_page():
    text = PAGES["5_judging/open_problems"].path.read_text("utf-8")
    assert {row["problem"] for row in SINCE} == set(re.findall(r'^later\("(.+)"\)', text, re.M))


def test_every_ladder_has_networks_and_rungs_and_both_questions():
    for system in {entry["system"] for entry in LADDER}:
        mine = [entry for entry in LADDER if entry["system"] == system]
        for kind in ("network", "rung"):
            found = set().union(*(entry.keys() for entry in mine if entry["kind"] == kind))
            assert {"new", "hidden"} <= found, (system, kind)
