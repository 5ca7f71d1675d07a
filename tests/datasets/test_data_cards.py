"""Every count on a card is counted again from the file; every record can be made again."""

import ast
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from imd_helpers import datasets
from imd_helpers.crystals.elements import parse_formula
from imd_helpers.datasets.registry import REGISTRY
from imd_helpers.runtime import data_path

REPO = Path(__file__).resolve().parents[2]
DATA = REPO / "data"
RECORDS = sorted(path for path in (DATA / "checkpoints").iterdir() if path.is_dir())
COMMAND = re.compile(r"`python experiments/(\w+)\.py ?(\w*)[^`]*`")
HEADINGS = [
    "Origin", "Licence", "Columns and units", "Counts", "Known faults", "How it was made",
    "Citation",
]  # fmt: skip


def section(card: str, heading: str) -> str:
    return re.split(r"^## ", card, flags=re.M)[1 + HEADINGS.index(heading)]


def written_counts(card: str) -> dict[str, int]:
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \|$", section(card, "Counts"), flags=re.M)
    return {what: int(count.replace(",", "")) for what, count in rows}


def split_counts(table) -> dict[str, int]:
    counts = table["split"].value_counts()
    return {"train rows": counts["train"], "validation rows": counts["val"],
            "test rows": counts["test"]}  # fmt: skip


def count_oqmd_icsd() -> dict[str, int]:
    data = datasets.load("oqmd_icsd")
    table = data.table
    small = table["n_sites"] <= 20
    near = table["energy_above_hull"] <= 0.08
    cubic = {g: len(data.select(nelements=3, space_groups=g)) for g in (225, 216, 221)}
    arity = table["n_elements"].value_counts()
    return {
        "rows": len(data),
        "formulas": table["formula"].nunique(),
        "elements": len(set(data.flat_numbers.tolist())),
        "prototypes": table["prototype"].nunique(),
        "rows of at most 20 sites": small.sum(),
        "rows of at most 20 sites and at most 0.08 eV/atom above the hull": (small & near).sum(),
        "sites in the largest cell": table["n_sites"].max(),
        "rows with a band gap value": table["band_gap"].notna().sum(),
        "rows with a band gap above 0": (table["band_gap"] > 0).sum(),
        "stable rows (0 above the hull)": (table["energy_above_hull"] == 0).sum(),
        "rows at most 0.05 eV/atom above the hull": (table["energy_above_hull"] <= 0.05).sum(),
        "elements alone": arity[1],
        "binary": arity[2],
        "ternary": arity[3],
        "quaternary": arity[4],
        **{f"cubic ternary rows in space group {g}": n for g, n in cubic.items()},
        "cubic ternary rows in the three": sum(cubic.values()),
        "different ICSD codes": table["entry"].nunique(),
        "different pairs of formula and prototype": len(
            table.drop_duplicates(["formula", "prototype"])
        ),
        **split_counts(table),
    }


def count_formulas(name: str) -> dict[str, int]:
    table = datasets.load(name).table
    parsed = [tuple(parse_formula(formula)) for formula in table["formula"]]
    counts = {
        "rows": len(table),
        "formulas": table["formula"].nunique(),
        "elements": len({z for row in parsed for z in row}),
        "elements alone": sum(len(row) == 1 for row in parsed),
        **split_counts(table),
    }
    if "band_gap" in table:
        counts["rows with a band gap value"] = table["band_gap"].notna().sum()
        counts["rows with a band gap above 0"] = (table["band_gap"] > 0).sum()
        counts["metals (gap 0)"] = (table["band_gap"] == 0).sum()
    if "formation_energy" in table:
        counts["rows with a negative formation energy"] = (table["formation_energy"] < 0).sum()
    if "energy_above_hull" in table:
        hull = table["energy_above_hull"]
        counts["rows on the hull (0 after rounding)"] = (hull == 0).sum()
        counts["rows at most 0.05 eV/atom above the hull"] = (hull <= 0.05).sum()
    known = set(datasets.load("oqmd_icsd").table["formula"])
    counts["formulas that oqmd_icsd also has"] = len(known & set(table["formula"]))
    return counts


def count_zeolites() -> dict[str, int]:
    data = datasets.load("iza_zeolites")
    table, exact = data.table, data.is_exact_sio2
    right = (table[["alpha", "beta", "gamma"]] == 90).all(axis=1)
    return {
        "frameworks": len(table),
        "frameworks that are exactly SiO2": exact.sum(),
        "interrupted frameworks": table["is_interrupted"].sum(),
        "disordered frameworks": table["is_disordered"].sum(),
        "cells with three right angles": right.sum(),
        "exact SiO2 and three right angles": (right & exact).sum(),
        "exact SiO2 and cubic": (exact & (table["space_group"] >= 195)).sum(),
        "exact SiO2 and no edge above 25 Å": (
            exact & (table[["a", "b", "c"]].max(axis=1) <= 25)
        ).sum(),
        "frameworks with a largest cavity diameter": table["largest_cavity_diameter"].count(),
        "frameworks with a pore limiting diameter": table["pore_limiting_diameter"].count(),
        "frameworks with an accessible volume": table["accessible_volume_pct"].count(),
        "frameworks with a name": table["name"].count(),
    }


def count_hydrides() -> dict[str, int]:
    table = datasets.load("hydrides").table
    metals = {"of Mg": "Mg", "of Ti": "Ti", "of Pd": "Pd", "of Ni": "Ni"}
    tried = [np.load(file) for file in (DATA / "hydrides").glob("*.npz")]
    return {
        "rows": len(table),
        "formulas": table["formula"].nunique(),
        "tried": sum(len(each["kept"]) for each in tried),
        **{name: table["formula"].str.contains(metal).sum() for name, metal in metals.items()},
        "tried and not at rest after 100 steps": sum((~each["converged"]).sum() for each in tried),
        "rows with a negative formation energy": (table["formation_energy"] < 0).sum(),
        **split_counts(table),
    }


def count_filled(name: str) -> dict[str, int]:
    data = datasets.load(name)
    table, tried = data.table, np.load(DATA / name / f"{name}.npz")
    real = datasets.load("oqmd_icsd").table["formula"]
    return {
        "rows": len(table),
        "formulas": table["formula"].nunique(),
        "compositions of the cell": len(np.unique(data.crystals.counts().numpy(), axis=0)),
        "tried": len(tried["kept"]),
        "tried and not at rest after 100 steps": (~tried["converged"]).sum(),
        "rows with a negative formation energy": (table["formation_energy"] < 0).sum(),
        "rows with the formula of a real crystal": table["formula"].isin(real).sum(),
        **split_counts(table),
    }


def count_cubic_prototypes() -> dict[str, int]:
    data = datasets.load("cubic_prototypes")
    table = data.table
    kinds = table["prototype"].value_counts()
    known = set(datasets.load("oqmd_icsd").table["formula"])
    return {
        "rows": len(data),
        "formulas": table["formula"].nunique(),
        "elements": len(set(data.flat_numbers.tolist())),
        "half-Heuslers": kinds["half-Heusler"],
        "Heuslers": kinds["Heusler"],
        "perovskites": kinds["perovskite"],
        "rows with a negative formation energy": (table["formation_energy"] < 0).sum(),
        "formulas that oqmd_icsd also has": len(known & set(table["formula"])),
        **split_counts(table),
    }


def counted(name: str) -> dict[str, int]:
    if name == "oqmd_icsd":
        return count_oqmd_icsd()
    if name == "cubic_prototypes":
        return count_cubic_prototypes()
    if name == "hydrides":
        return count_hydrides()
    if name in {"mg_mn_o", "v_o", "bi_se"}:
        return count_filled(name)
    return count_zeolites() if name == "iza_zeolites" else count_formulas(name)


@pytest.mark.parametrize("name", datasets.EMBEDDED)
def test_counts_of_the_card(name):
    written = written_counts(datasets.card(name))
    measured = counted(name)
    assert len(written) >= 7
    assert written == {what: int(measured[what]) for what in written}


@pytest.mark.parametrize("name", datasets.names())
def test_every_card_has_the_same_headings(name):
    card = datasets.card(name)
    assert re.findall(r"^## (.+)$", card, flags=re.M) == HEADINGS
    for heading in HEADINGS:
        body = section(card, heading).removeprefix(heading).strip()
        assert len(body) >= 5, f"{name}: nothing under {heading}"


@pytest.mark.parametrize("name", datasets.EMBEDDED)
def test_one_sentence_a_line(name):
    for line in datasets.card(name).splitlines():
        if not line.startswith(("-", "|", "#")):
            assert not re.search(r"[a-z]\. [A-Z]", line), line


def test_faults_of_oqmd_icsd():
    data = datasets.load("oqmd_icsd")
    table = data.table
    with np.load(data_path("oqmd_icsd", "oqmd_icsd.npz")) as raw:
        stability, gap = raw["stability"], raw["band_gap"]
    repeated = table.duplicated("entry")
    faults = section(datasets.card("oqmd_icsd"), "Known faults")
    assert f"- {repeated.sum():,} rows repeat" in faults
    assert f"leaves {(~repeated).sum():,}" in faults
    assert f"In {(stability < -1).sum()} rows `stability` is below -1" in faults
    assert f"in {(stability > 1).sum()} above 1 eV/atom" in faults
    assert f"{(gap > 10).sum()} band gaps above 10 eV (He, Ne, CF4)" in faults
    assert set(table["formula"][gap > 10]) == {"He", "Ne", "CF4"}
    assert f"with the {np.isnan(gap).sum()} that the source lacks" in faults


def test_repeated_entries_are_the_same_crystal():
    data = datasets.load("oqmd_icsd")
    first = data.table.reset_index().groupby("entry")["index"].transform("first").to_numpy()
    rows = np.flatnonzero(data.table.duplicated("entry"))
    twins, originals = data[rows], data[first[rows]]
    assert (twins.table["formula"] == originals.table["formula"]).all()
    assert (twins.table["formation_energy"] == originals.table["formation_energy"]).all()
    assert np.allclose(twins.lattice, originals.lattice, atol=1e-3)
    assert (twins.numbers == originals.numbers).all()


def test_faults_of_the_tables():
    oqmd = datasets.load("oqmd_formulas").table["formation_energy"]
    faults = section(datasets.card("oqmd_formulas"), "Known faults")
    assert f"- {(oqmd.abs() > 5).sum()} formation energies" in faults
    assert f"down to {oqmd.min():.1f} and up to {oqmd.max():.1f}" in faults
    measured = datasets.load("expt_gap").table
    pairs = measured["formula"].duplicated().sum()
    assert f"- {pairs} pairs of rows" in section(datasets.card("expt_gap"), "Known faults")
    for name, count in {"oqmd_formulas": 1, "mp_e_hull": 1, "mp_e_form": 3}.items():
        assert (datasets.load(name).table["formula"] == "NaN").sum() == count


def test_remote_cards_name_every_file():
    for name, entry in REGISTRY.items():
        card = datasets.card(name)
        for file in entry.files:
            assert file.checksum in card
            assert all(url in card for url in file.urls)


# ---- records


def tasks(script: Path) -> set[str]:
    """The functions that a script lists in ``TASKS``: what its command line knows."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TASKS":
            return {name.id for name in node.value.elts}
    return set()


def commands(card: str) -> list[tuple[str, str]]:
    """Script and first argument of each command on a card, in backquotes."""
    return COMMAND.findall(card)


def test_records_lie_in_folders_with_a_card():
    assert [path for path in (DATA / "checkpoints").iterdir() if not path.is_dir()] == []
    assert len(RECORDS) >= 19
    assert [folder.name for folder in RECORDS if not (folder / "card.md").is_file()] == []


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_every_record_is_on_its_card_with_a_command(folder):
    card = (folder / "card.md").read_text()
    for file in folder.iterdir():
        if file.name == "card.md":
            continue
        parts = [part for part in re.split(r"\n\s*\n|\n- ", card) if f"`{file.name}`" in part]
        assert parts, f"{file.name} is not on the card"
        several = len({task for _, task in commands(card)} - {"million"}) > 1
        assert not several or any(commands(part) for part in parts), f"{file.name}: by which?"
    assert commands(card), "no command"


def test_commands_on_cards_name_scripts_and_tasks_that_exist():
    cards = [*DATA.glob("*/README.md"), *DATA.glob("checkpoints/*/card.md")]
    named = set()
    for card in cards:
        for name, task in commands(card.read_text()):
            script = REPO / "experiments" / f"{name}.py"
            assert script.is_file(), f"{card}: no {script.name}"
            known = tasks(script)
            assert task in {"", *known}, f"{card}: {script.name} has no task {task}"
            assert task or len(known) <= 1, f"{card}: {script.name} needs one of {known}"
            named.add(name)
    scripts = {path.stem for path in (REPO / "experiments").glob("*.py")}
    assert scripts - named == {"record", "comparison_entries"}


def test_every_task_is_on_a_card():
    cards = "\n".join(
        card.read_text() for card in (*DATA.glob("*/README.md"), *DATA.glob("*/*/card.md"))
    )
    for script in (REPO / "experiments").glob("*.py"):
        known = tasks(script)
        missing = {task for task in known if (script.stem, task) not in commands(cards)}
        assert len(known) == 1 or missing <= {"judge"}, f"{script.name}: {missing}"


def test_the_wheel_holds_data_and_no_script():
    build = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == ["imd_helpers"]
    assert build["targets"]["wheel"]["force-include"] == {"data": "imd_helpers/_data"}
    assert "experiments" not in build["targets"]["sdist"]["include"]
    assert list(DATA.rglob("*.py")) == []
