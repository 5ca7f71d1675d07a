"""Tables of data sets in words."""

import pandas as pd

import imd_helpers as imd


def test_words_and_units_stand_for_columns():
    given = {"formula": ["MgO"], "space_group": [225], "band_gap": [4.45678], "split": ["train"]}
    table = imd.show.worded(pd.DataFrame(given), digits=1)
    assert list(table) == ["space group", "gap, eV", "split"]
    assert table.loc["MgO"].tolist() == [225, 4.5, "train"]
    assert imd.show.worded(pd.DataFrame({"n_sites": [2]})).columns.tolist() == ["atoms"]
