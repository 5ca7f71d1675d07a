"""The page on verified equations: complete, true to its tests, and hard to fool."""

import re
import textwrap

import pytest
from bookfiles import BookError, read_address, read_pages
from equations import (
    PAGE,
    REQUIRED,
    Check,
    Equation,
    differences,
    make_page,
    measured,
    number,
    read_equations,
    read_test,
    render,
    run_checks,
    worst,
)

AGAIN = "run `python book/_tools/equations.py` and look at what changed"
NUMBERED = [e for e in read_equations(read_pages()) if e.page.name.startswith(REQUIRED)]


@pytest.mark.parametrize("equation", NUMBERED, ids=lambda equation: equation.label)
def test_every_numbered_equation_of_the_part_is_on_the_page(equation):
    assert f"{{eq}}`{equation.label}`" in PAGE.read_text("utf-8"), AGAIN


def test_the_page_is_what_the_tests_say_today(repo):
    """Runs all marked tests; an error may be ten times larger on another machine."""
    new, missing = make_page(repo)
    assert missing == []
    assert differences(PAGE.read_text("utf-8"), new) == [], AGAIN


# ---- the machinery


def check(**changes):
    base = {
        "label": "eq-a", "function": "imd_helpers.networks.losses.mix", "file": "tests/t.py",
        "test": "test_a", "says": "a closed form", "error": 3e-4, "within": 0.01, "relative": False,
    }  # fmt: skip
    return Check(**{**base, **changes})


def page_of(*checks):
    chapter = next(page for page in read_pages() if page.is_chapter)
    return render([Equation("eq-a", "a = b", chapter)], list(checks), read_address())


def test_a_page_shows_formula_function_comparison_and_both_errors():
    text = page_of(check(), check(test="test_b", says="by hand", error=0.0, relative=True))
    assert "Equation {eq}`eq-a`:\n\n$$\na = b\n$$" in text
    assert re.search(
        r"\| `networks.losses.mix` \| \[a closed form\]\(\S+\) \| 3 × 10⁻⁴ \| 0.01 \|", text
    )
    assert re.search(r"\| \[by hand\]\(\S+\) \| ≤ 10⁻¹² relative \| 0.01 relative \|", text)
    assert differences(text, text) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"error": 2e-3}, []),
        ({"error": 1e-9}, []),
        ({"error": 5e-3}, ["an error of 3 × 10⁻⁴ has become 0.005"]),
        ({"within": 0.02}, ["-|", "+|"]),
        ({"says": "another form"}, ["-|", "+|"]),
        ({"function": "imd_helpers.networks.losses.slope"}, ["-|", "+|"]),
    ],
)
def test_a_page_is_out_of_date_when_anything_but_rounding_has_changed(changes, found):
    lines = differences(page_of(check()), page_of(check(**changes)))
    assert len(lines) == len(found)
    for line, start in zip(lines, found, strict=True):
        assert line.startswith(start)


def test_an_edited_or_lost_equation_is_noticed():
    old = page_of(check())
    assert differences(old, old.replace("a = b", "a = -b")) == ["-a = b", "+a = -b"]
    assert any("eq-a" in line for line in differences(old, page_of()))


@pytest.mark.parametrize("error", [0.0, 1e-16, 1e-9, 3.4e-9, 2e-4, 0.0123, 0.5, 7.0])
def test_errors_are_written_as_they_are_read(error):
    assert number(measured(error)) == pytest.approx(max(error, 1e-12), rel=0.3)


def test_the_worst_parameter_counts():
    found = worst([check(error=1e-5), check(error=2e-3), check(error=1e-4, label="eq-b")])
    assert [(c.label, c.error) for c in found] == [("eq-a", 2e-3), ("eq-b", 1e-4)]


TEST = '''
import pytest
from imd_helpers.networks import losses

@pytest.mark.{mark}("eq-a", function="imd_helpers.networks.losses.{function}")
def test_it(agrees):
    """Compared with
    two lines.

    And more."""
    {body}
'''


@pytest.fixture
def tree(repo, tmp_path):
    """A repository of one marked test."""

    def write(body, function="clip_weights"):
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "conftest.py").write_text((repo / "tests/conftest.py").read_text())
        text = textwrap.dedent(TEST).format(mark="equation", body=body, function=function)
        (tmp_path / "tests" / "test_a.py").write_text(text)
        return tmp_path

    return write


def test_the_measured_error_and_the_tests_own_words_arrive(tree):
    root = tree("losses.clip_weights([], 1); agrees(1.0, 1.25, within=0.5)")
    (found,) = run_checks(root)
    assert (found.label, found.test, found.error, found.within) == ("eq-a", "test_it", 0.25, 0.5)
    assert found.says == "Compared with two lines"


@pytest.mark.parametrize(
    ("body", "function", "match"),
    [
        ("losses.clip_weights; agrees(1.0, 2.0, within=0.5)", "clip_weights", "error 1 above 0.5"),
        ("losses.clip_weights", "clip_weights", "compared nothing"),
        ("agrees(1, 1, within=1)", "clip_weights", "does not call it"),
        ("losses.clap; agrees(1, 1, within=1)", "clap", "fail"),
    ],
)
def test_marks_that_prove_nothing_are_refused(tree, body, function, match):
    with pytest.raises(BookError, match=match):
        run_checks(tree(body, function))


def test_a_function_that_does_not_exist_is_refused(repo):
    file = repo / "tests" / "book" / "test_equations.py"
    with pytest.raises(BookError, match="which does not exist"):
        read_test(file, "test_the_worst_parameter_counts", "imd_helpers.networks.losses.clap")


def test_a_repository_without_marked_tests_is_refused(tmp_path):
    (tmp_path / "tests").mkdir()
    with pytest.raises(BookError, match="no test is marked"):
        run_checks(tmp_path)
