"""The command line: `imd data`, `train`, `sample`, `search`, `judge`, `validate`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from .runtime import PROFILES, InputError, current_profile, lookup
from .work import locked, try_writing, write_atomic

if TYPE_CHECKING:
    from .crystals import CrystalBatch
    from .crystals.samples import Samples

SECONDS_A_SITE = 0.015  # of a fingerprint of coverage, for each site that symmetry leaves

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Inverse materials design: data, training, sampling and judging.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: list them, read a card, fetch one.")
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; wrong input ends in one line and exit code 2, not in a traceback."""
    from .datasets import DownloadError

    try:
        app()
    except (InputError, DownloadError, OSError) as error:
        typer.secho(f"imd: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(2) from error


@data_app.command("list")
def data_list() -> None:
    """Name every data set and say where it comes from."""
    from . import datasets

    for name in datasets.names():
        typer.echo(f"{name:<24}{_about(datasets.card(name))}")


def _about(card: str) -> str:
    """What a card says in one line: behind the name in its title, else its first sentence."""
    title, *lines = [line for line in card.splitlines() if line.strip()]
    prose = (line for line in lines if not line.startswith(("#", "-", "|")))
    return title.partition(": ")[2] or next(prose, "")


@data_app.command("card")
def data_card(name: str) -> None:
    """Print the card of a data set."""
    from . import datasets

    typer.echo(str(datasets.card(name)))


@data_app.command("fetch")
def data_fetch(name: str) -> None:
    """Download a data set into the cache, verified; say where it is."""
    from . import datasets

    for path in datasets.fetch(name):
        typer.echo(str(path))


@app.command()
def train(
    model: str,
    variant: Annotated[str | None, typer.Option(help="fixed, paper, …: see the chapter")] = None,
    profile: Annotated[str, typer.Option(help="smoke, colab or full")] = "",
    out: Annotated[Path | None, typer.Option(help="folder for weights and run.json")] = None,
    resume: Annotated[bool, typer.Option(help="go on from the folder's checkpoint")] = False,
    seed: Annotated[int, typer.Option(help="seed of weights and training")] = 0,
    steps: Annotated[
        int | None, typer.Option(help="generator steps, instead of the profile's")
    ] = None,
    width: Annotated[float | None, typer.Option(help="1.0 is the published size")] = None,
) -> None:
    """Train a model of the book and write its weights and run.json."""
    from . import judge as judging
    from . import models

    chosen = lookup("profile", profile, PROFILES) if profile else current_profile()
    cls = models.find(model)
    folder = out or Path("runs") / f"{model}-{cls.variant(variant)}"
    changes = {k: v for k, v in {"steps": steps, "width": width}.items() if v is not None}
    rule = cls.KEPT_BY.get(cls.variant(variant), "")
    how = {"resume": resume, "seed": seed, "changes": changes}
    if rule:
        how["keep"] = getattr(judging, rule)
    cls.train(variant, profile=chosen, folder=folder, **how)
    typer.echo(f"wrote {folder / 'model.safetensors'} and {folder / 'run.json'}")


@app.command()
def sample(
    model: str,
    out: Annotated[Path, typer.Option("--out", "-o", help="an .extxyz file, or .csv of formulas")],
    n: Annotated[int, typer.Option("-n", help="how many")] = 1000,
    variant: Annotated[str | None, typer.Option(help="fixed, paper, …: see the chapter")] = None,
    weights: Annotated[Path | None, typer.Option(help="your own model.safetensors")] = None,
    space_group: Annotated[int | None, typer.Option(help="e.g. 225")] = None,
    elements: Annotated[str | None, typer.Option(help="e.g. Cs,Pb,I")] = None,
    value: Annotated[float | None, typer.Option(help="of the property, where one is asked")] = None,
    seed: Annotated[int, typer.Option(help="same seed, same crystals")] = 0,
) -> None:
    """Generate crystals or formulas; those that do not decode stay in the file, with the reason."""
    from . import models

    suffixes = {"crystals": (".extxyz",), "compositions": (".csv",)}
    _check_writable(out, suffixes[models.find(model).holds])
    generator = models.load(model, variant=variant, path=weights)
    condition: dict[str, object] = {"space_group": space_group}
    if elements is not None:
        condition["elements"] = tuple(symbol.strip() for symbol in elements.split(","))
    if value is not None:
        if len(generator.conditions) != 1:
            raise InputError(f"{model} cannot be asked for a --value: it learnt no property")
        condition[generator.conditions[0]] = value
    condition = {name: asked for name, asked in condition.items() if asked is not None}
    with locked(out.absolute().parent, file=out.name):
        _write_samples(out, generator.sample(n, condition=condition, seed=seed))


@app.command()
def search(
    formula: str,
    out: Annotated[Path, typer.Option("--out", "-o", help="an .extxyz file; its log lies beside")],
    method: Annotated[
        str, typer.Option(help="random, hopping, annealing, swarm, genetic or bayesian")
    ] = "genetic",
    calls: Annotated[int, typer.Option(help="evaluations of the potential, in all")] = 1200,
    seed: Annotated[int, typer.Option(help="same seed, same search")] = 0,
    units: Annotated[int, typer.Option(help="formula units in the cell")] = 1,
    steps: Annotated[int, typer.Option(help="evaluations for one relaxation at most")] = 60,
    potential: Annotated[
        str, typer.Option(help="chgnet, sevennet or sevennet_l3i5; `imd judge` asks two")
    ] = "chgnet",
    limit: Annotated[float | None, typer.Option(help="seconds for one relaxation")] = None,
) -> None:
    """Search for the structures of a formula; a search that was stopped goes on from its log."""
    from .crystals import files
    from .search.structures import predict

    _check_writable(out, (".extxyz",))
    log = out.with_suffix(".jsonl")
    how = {"calls": calls, "seed": seed, "units": units, "steps": steps, "potential": potential}
    with locked(out.absolute().parent, file=out.name):
        crystals, energy, after, failed = predict(
            formula, method, **how, log=log, limit=limit, progress=True
        )
    files.write(out, crystals, energy=energy, calls=after)
    lowest = f"the lowest has {energy[0]:.4f} eV/atom, after {after[0]:.0f} calls"
    typer.echo(f"wrote {len(energy)} structures to {out}; {lowest}; log: {log}")
    if failed:
        typer.echo(f"{len(failed)} relaxations failed; the first: {failed[0]}", err=True)


@app.command()
def judge(
    paths: Annotated[
        list[Path], typer.Argument(help="files, a folder or a zip: CIF, extxyz, POSCAR, CSV tables")
    ],
    protocol: Annotated[
        str,
        typer.Option(help="imd, funnel, cdvae, mattergen, flowmm, lemat; formulas have their own"),
    ] = "",
    reference: Annotated[
        list[str] | None,
        typer.Option(help="what is known: a data set, or files; default: oqmd_icsd, oqmd_formulas"),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test, or all")] = "train",
    potential: Annotated[
        list[str] | None,
        typer.Option(help="the first relaxes, a second judges too; default: a pair set by DFT"),
    ] = None,
    energies: Annotated[bool, typer.Option(help="relax, and compare with known phases")] = True,
    distributions: Annotated[
        bool, typer.Option(help="coverage and distances, where the protocol has them")
    ] = True,
    workers: Annotated[int, typer.Option(help="processes on this machine")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="tcp://… of a Dask cluster")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="keep finished pieces here; a stopped run goes on from them")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="report as JSON")] = None,
    figure: Annotated[Path | None, typer.Option(help="funnel as .png, .svg or .pdf")] = None,
) -> None:
    """Judge crystals or formulas by a protocol: validity, uniqueness, novelty, stability."""
    from . import judge, show
    from .crystals import files
    from .energies.potentials import JUDGES

    if potential and not energies:
        raise InputError("--potential and --no-energies: give one of the two")
    for path, suffixes in ((out, (".json",)), (figure, (".png", ".svg", ".pdf"))):
        if path is not None:
            _check_writable(path, suffixes)
    samples = files.read(paths)
    formulas = isinstance(samples.content, np.ndarray)
    protocol = protocol or ("formulas" if formulas else "imd")
    holds = judge.PROTOCOLS[lookup("protocol", protocol, judge.PROTOCOLS)].content
    if formulas != (holds == "compositions"):
        raise InputError(
            f"--protocol {protocol} judges {holds}, and these are "
            f"{'formulas' if formulas else 'crystals'}: leave it out"
        )
    given = reference or ["oqmd_formulas" if formulas else "oqmd_icsd"]
    known = _reference(given, split, formulas=formulas)
    if distributions and not formulas:
        _announce_coverage(protocol, [samples.crystals, known.crystals], workers)
    report = judge.judge(
        samples,
        reference=known,
        protocol=protocol,
        potentials=(potential or JUDGES) if energies and not formulas else [],
        distributions=distributions,
        workers=workers,
        scheduler=scheduler,
        cache=cache,
        name=paths[0].stem,
        progress=True,
    )
    typer.echo(str(report))
    if out is not None:
        write_atomic(out, report.to_json().encode())
        typer.echo(f"wrote {out}")
    if figure is not None:
        picture = BytesIO()
        show.reports(report).savefig(picture, dpi=200, format=figure.suffix[1:].lower())
        write_atomic(figure, picture.getvalue())
        typer.echo(f"wrote {figure}")


@app.command()
def validate(
    paths: Annotated[
        list[Path], typer.Argument(help="files, a folder or a zip: CIF, extxyz, POSCAR, CSV tables")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of cards; goes on if stopped")],
    reference: Annotated[
        list[str] | None, typer.Option(help="where relatives are looked for: a data set, or files")
    ] = None,
    workers: Annotated[int, typer.Option(help="processes on this machine")] = 1,
    scheduler: Annotated[str | None, typer.Option(help="tcp://… of a Dask cluster")] = None,
) -> None:
    """Carry candidates through all gates to phonons, and write a card for each of them."""
    from matplotlib import pyplot as plt

    from . import show
    from .crystals import files
    from .judge.validation import validate as carry

    samples = files.read(paths)
    if isinstance(samples.content, np.ndarray):
        raise InputError("these are formulas: only crystals can be validated")
    plt.switch_backend("agg")
    report = carry(
        samples,
        out,
        reference=_reference(reference or ["oqmd_icsd"], "all", formulas=False),
        draw=show.bands,
        workers=workers,
        scheduler=scheduler,
        name=paths[0].stem,
        progress=True,
    )
    typer.echo(str(report))
    typer.echo(f"wrote {out / 'table.csv'}, report.json and the cards beside them")


@app.command()
def leaderboard(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="further entries: folders with card.toml and samples"),
    ] = None,
    built_in: Annotated[bool, typer.Option(help="beside the entries of the book")] = True,
    again: Annotated[bool, typer.Option(help="judge again what has a report")] = False,
    workers: Annotated[int, typer.Option(help="processes on this machine")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a sortable page, .html")] = None,
) -> None:
    """Rank everything that makes crystals by one judge; entries without a report are judged."""
    from .judge import leaderboard as boards

    if out is not None:
        _check_writable(out, (".html",))
    board = boards.leaderboard(
        *(folders or []), built_in=built_in, again=again, workers=workers, progress=True
    )
    typer.echo(str(board))
    if out is not None:
        write_atomic(out, board.page().encode())
        typer.echo(f"wrote {out}")


def _reference(given: list[str], split: str, *, formulas: bool) -> Any:
    """What is known, from a data set or from files: counts for formulas, else crystals."""
    from . import datasets
    from .crystals import files
    from .judge.samples import Known

    if len(given) == 1 and not Path(given[0]).suffix and not Path(given[0]).is_dir():
        known = datasets.load(given[0], split=None if split == "all" else split)
        return known if formulas else Known(known, given[0])
    found = files.read(given)
    if not found.ok.all():
        first = next(filter(None, found.reasons))
        bad = int((~found.ok).sum())
        typer.echo(f"reference: {bad} of {len(found)} left out; the first: {first}", err=True)
    known = found.valid()
    if not formulas:
        return Known(known, Path(given[0]).stem)
    return known if isinstance(known, np.ndarray) else known.counts().numpy()


def _announce_coverage(protocol: str, sets: list[CrystalBatch], workers: int) -> None:
    """Say how long coverage takes, before more than a minute of it."""
    from . import judge
    from .crystals import symmetry

    numbers = judge.PROTOCOLS[lookup("protocol", protocol, judge.PROTOCOLS)].numbers
    if not any(getattr(number, "measure", "") in ("recall", "precision") for number in numbers):
        return
    sites = 0.0
    for crystals in sets:
        some = crystals[:: -(-len(crystals) // 64)]  # at most 64 of them tell the symmetry
        pairs = zip(symmetry.orbits(some), some.n_sites.tolist(), strict=True)
        distinct = sum(n if found is None else len(found.numbers) for found, n in pairs)
        sites += len(crystals) * distinct / len(some)
    minutes = SECONDS_A_SITE * sites / workers / 60
    if minutes > 1:
        typer.echo(f"coverage: about {minutes:.0f} minutes; --no-distributions leaves it out")


def _write_samples(out: Path, samples: Samples) -> None:
    """A frame, or a row of a table, for every sample, with the reason where it did not decode."""
    import pandas as pd

    from .crystals import files

    if isinstance(samples.content, np.ndarray):
        kind = "formulas"
        # pandas would read the formula NaN as a missing number
        formulas = ["Na1N1" if formula == "NaN" else formula for formula in samples.formulas()]
        table = pd.DataFrame({"formula": formulas, "reason": samples.reasons})
        write_atomic(out, table.to_csv(index=False).encode())
    else:
        kind = "crystals"
        asked = {f"{files.ASKED}{name}": values for name, values in samples.asked.items()}
        told = {"decoded_ok": samples.ok, "reason": samples.reasons}
        files.write(out, samples.crystals, **told, **asked)
    typer.echo(f"wrote {len(samples)} {kind} to {out}; {int(samples.ok.sum())} decoded")


def _check_writable(path: Path, suffixes: tuple[str, ...]) -> None:
    """Before hours of work, not after them."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the suffix must be {' or '.join(suffixes)}")
    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        wrong = "is a folder, give a file" if path.is_dir() else "its folder is not there, make it"
        raise InputError(f"{path}: {wrong}")
    try:
        try_writing(folder)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error}), choose another") from error


if __name__ == "__main__":
    main()
