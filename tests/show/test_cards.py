"""Cards of candidates, as a page shows them."""

import json

import pytest

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.runtime import InputError, data_path


@pytest.fixture(scope="module")
def survivor():
    record = data_path("checkpoints", "validation") / "results.json"
    found = json.loads(record.read_text())["sources"]["cubicgan-fixed"]["survivors"][0]
    lattice, frac, numbers = (found["crystal"][k] for k in ("lattice", "frac", "numbers"))
    return found["card"], CrystalBatch.from_ragged([lattice], frac, numbers, [len(numbers)])


def test_a_card_says_what_the_row_says_in_words_and_in_html(survivor, monkeypatch):
    row, crystal = survivor
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda given, raw: shown.append(given))
    imd.show.candidates([row, row], imd.crystals.CrystalBatch.cat([crystal, crystal]), ["A", "<B>"])
    page, words = shown[0]["text/html"], shown[0]["text/plain"]
    assert page.count("<article>") == 2
    assert "&lt;B&gt;" in page
    assert "http" not in page
    for said in ("HoSbRh", "3m (216)", "CHGNet −0.01 ± 0.14 eV/atom", "79 % within 0.1"):
        assert page.count(said) >= 2, said
    assert page.count('download="HoSbRh.cif"') == 2
    assert page.count("<circle") > 2 * crystal.n_sites.item()
    assert words.count("# HoSbRh, space group 216") == 2


def test_what_has_no_card_is_refused(survivor):
    row, crystal = survivor
    with pytest.raises(InputError, match="1 crystals for 2 cards"):
        imd.show.candidates([row, row], crystal)
    with pytest.raises(InputError, match="stopped before"):
        imd.show.candidates([{"number": 3, "formula": "NaCl"}], crystal)
