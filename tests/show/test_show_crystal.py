"""What a view of a crystal holds: atoms, images, sticks, legend, words."""

import re

import numpy as np
import pytest

import imd_helpers as imd
from imd_helpers.crystals import CrystalBatch
from imd_helpers.runtime import InputError
from imd_helpers.show import drawn


def batch(lattice, frac, numbers):
    return CrystalBatch.from_ragged(
        np.asarray(lattice, float)[None], np.asarray(frac, float), numbers, [len(numbers)]
    )


@pytest.fixture
def perovskite():
    frac = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return batch(4.01 * np.eye(3), frac, [56, 22, 8, 8, 8])


@pytest.fixture
def published(monkeypatch):
    """Collects what would be displayed."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    return shown


def test_atoms_on_faces_edges_and_corners_are_repeated(perovskite):
    drawing = drawn.draw(perovskite, 0)
    kinds, counts = np.unique(drawing.numbers, return_counts=True)
    assert dict(zip(kinds, counts, strict=True)) == {8: 6, 22: 1, 56: 8}
    assert drawing.positions.min() >= -1e-9
    assert drawing.positions.max() <= 4.01 + 1e-9


@pytest.mark.parametrize("shift", [1e-4, -1e-4])
def test_an_atom_almost_on_a_face_is_repeated_too(shift):
    drawing = drawn.draw(batch(4 * np.eye(3), [[shift % 1, 0.5, 0.5]], [3]), 0)
    ends = np.sort(drawing.positions[:, 0])
    assert ends == pytest.approx([4 * shift, 4 + 4 * shift])


def test_an_atom_inside_is_drawn_once():
    drawing = drawn.draw(batch(4 * np.eye(3), [[0.1, 0.2, 0.9]], [3]), 0)
    assert drawing.positions == pytest.approx(np.array([[0.4, 0.8, 3.6]]))


def test_images_are_right_in_a_skewed_cell():
    lattice = np.array([[3.0, 0, 0], [-1.5, 2.6, 0], [0.7, 0.2, 5.0]])
    drawing = drawn.draw(batch(lattice, [[0, 0, 0]], [30]), 0)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ lattice
    assert len(drawing.positions) == 8
    for corner in corners:
        assert np.linalg.norm(drawing.positions - corner, axis=1).min() < 1e-9


def test_sticks_join_mutual_nearest_neighbours(perovskite):
    drawing = drawn.draw(perovskite, 0)
    titanium = int(np.flatnonzero(drawing.numbers == 22)[0])
    assert set(drawing.numbers[drawing.sticks[titanium]]) == {8}
    assert len(drawing.sticks[titanium]) == 6
    for barium in np.flatnonzero(drawing.numbers == 56):
        assert drawing.sticks[barium] == []
    for atom, others in enumerate(drawing.sticks):
        assert all(atom in drawing.sticks[other] for other in others)


@pytest.mark.parametrize("change", [[5, 3], [47, -12]])
def test_a_very_skewed_cell_is_reduced_so_that_neighbours_are_joined(change):
    """Rock salt in a needle: the same 27 atoms and 54 sticks of half an edge as in its cube."""
    frac = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0]])
    frac = np.concatenate([frac, [[0, 0, 1]]]) / 2
    basis = np.array([[1, 0, 0], [change[0], 1, 0], [change[0] * change[1], change[1], 1]])
    skewed = batch(basis @ (4.2 * np.eye(3)), frac @ np.linalg.inv(basis) % 1, [12] * 4 + [8] * 4)
    drawing = drawn.draw(skewed, 0)
    assert np.linalg.norm(drawing.lattice, axis=1) == pytest.approx([4.2] * 3)
    joined = [(i, j) for i, others in enumerate(drawing.sticks) for j in others]
    assert len(drawing.numbers) == 27
    assert len(joined) == 2 * 54
    lengths = [np.linalg.norm(np.subtract(*drawing.positions[list(pair)])) for pair in joined]
    assert lengths == pytest.approx([2.1] * len(lengths))
    assert "very skewed" in drawing.words()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_broken_crystal_is_told_and_not_drawn(perovskite, value):
    broken = CrystalBatch(perovskite.lattice.clone(), perovskite.frac, perovskite.numbers)
    broken.lattice[0, 2] = value
    with pytest.raises(InputError, match=r"crystal 1 cannot be drawn: .*leave it out"):
        imd.show.crystals(CrystalBatch.cat([perovskite, broken]))


def test_padding_is_not_drawn(perovskite):
    padded = CrystalBatch.cat([batch(3 * np.eye(3), [[0.5, 0.5, 0.5]], [26]), perovskite])
    assert drawn.draw(padded, 0).numbers.tolist() == [26]


def test_words_describe_the_crystal(perovskite):
    words = drawn.draw(perovskite, 0).words()
    assert words.startswith("BaTiO3, 5 atoms in the unit cell; a = 4.010 Å")
    assert words.endswith("γ = 90.0°")


def test_a_view_is_html_with_words_and_legend(perovskite, published):
    imd.show.crystal(perovskite)
    (data,) = published
    page = data["text/html"]
    assert 'role="img" aria-label="3-D view of BaTiO3, 5 atoms' in page
    assert data["text/plain"].startswith("BaTiO3")
    for symbol in ("O", "Ti", "Ba"):
        assert f"</span> {symbol}</span>" in page
    assert "BaTiO<sub>3</sub>" in page
    assert page.count("addCylinder") == 12
    assert page.count('"elem": "') == 15 + 3  # atoms, and one style an element
    assert page.count('"elem": "Ba"') == 8 + 1


def test_a_view_loads_3dmol_only_where_the_book_does_not(perovskite, published):
    """The one address in it is py3Dmol's own, used only if the page did not predefine a loader."""
    imd.show.crystal(perovskite)
    page = published[0]["text/html"]
    assert "typeof $3Dmolpromise === 'undefined'" in page
    assert set(re.findall(r"https?://([\w.-]+)", page)) <= {"cdn.jsdelivr.net", "medium.com"}


def test_several_crystals_share_one_canvas(perovskite, published):
    iron = batch(2.87 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [26, 26])
    imd.show.crystals(CrystalBatch.cat([perovskite, iron, perovskite]), columns=2)
    page = published[0]["text/html"]
    assert page.count("createViewerGrid") == 1
    assert "{rows: 2, cols: 2" in page
    assert ">BaTiO<sub>3</sub></span>" in page
    assert ">Fe</span>" in page


def test_titles_are_text_and_not_markup(perovskite, published):
    imd.show.crystals(CrystalBatch.cat([perovskite, perovskite]), titles=["<b>", "a & b"])
    page = published[0]["text/html"]
    assert "&lt;b&gt;" in page
    assert "a &amp; b" in page
    assert "<b>" not in page


def test_a_pymatgen_structure_is_welcome(published):
    from pymatgen.core import Lattice, Structure

    salt = Structure.from_spacegroup(
        225, Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    imd.show.crystal(salt)
    imd.show.crystals([salt, salt])
    assert published[0]["text/html"].count('"elem": "') == 27 + 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: imd.show.crystal("NaCl"), "must be CrystalBatch"),
        (lambda b: imd.show.crystal(b[:0]), "no crystal to show"),
        (lambda b: imd.show.crystals([]), "no structures given"),
        (lambda b: imd.show.crystal(batch(np.eye(3), np.zeros((2001, 3)), [1] * 2001)), "too many"),
        (lambda b: imd.show.crystals(b, titles=["x", "y"]), "2 titles for 1 crystals"),
        (lambda b: imd.show.crystals(b, columns=0), "columns=0 must be at least 1"),
        (lambda b: imd.show.crystals(CrystalBatch.cat([b] * 25)), "show at most 24"),
    ],
)
def test_bad_input_says_what_to_do(perovskite, call, message):
    with pytest.raises(InputError, match=message):
        call(perovskite)
