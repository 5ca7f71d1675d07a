"""The command line: `imd data`, `imd train`, `imd sample`, `imd judge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .runtime import PROFILES, InputError, current_profile, lookup

if TYPE_CHECKING:
    from .crystals.samples import Samples

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
    except (InputError, DownloadError, FileNotFoundError) as error:
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
    from . import models

    chosen = lookup("profile", profile, PROFILES) if profile else current_profile()
    cls = models.find(model)
    folder = out or Path("runs") / f"{model}-{cls.variant(variant)}"
    changes = {k: v for k, v in {"steps": steps, "width": width}.items() if v is not None}
    cls.train(variant, profile=chosen, folder=folder, resume=resume, seed=seed, changes=changes)
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
    condition: dict[str, object] = {}
    if space_group is not None:
        condition["space_group"] = space_group
    if elements is not None:
        condition["elements"] = tuple(e.strip() for e in elements.split(","))
    if value is not None:
        if len(generator.conditions) != 1:
            raise InputError(f"{model} cannot be asked for a --value: it learnt no property")
        condition[generator.conditions[0]] = value
    _write_samples(out, generator.sample(n, condition=condition, seed=seed))


@app.command()
def judge(
    file: Path,
    protocol: Annotated[str, typer.Option(help="imd, cdvae, mattergen, flowmm or lemat")] = "imd",
    reference: Annotated[str, typer.Option(help="data set that novelty is measured against")] = (
        "oqmd_icsd"
    ),
    split: Annotated[str, typer.Option(help="train, val, test, or all")] = "train",
    potential: Annotated[
        list[str] | None, typer.Option(help="chgnet or sevennet; a second one is a second opinion")
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
    """Judge crystals by a protocol: validity, uniqueness, novelty, stability."""
    from . import datasets, judge, show
    from .judge.samples import Known, read

    if potential and not energies:
        raise InputError("--potential and --no-energies: give one of the two")
    for path, suffixes in ((out, (".json",)), (figure, (".png", ".svg", ".pdf"))):
        if path is not None:
            _check_writable(path, suffixes)
    report = judge.judge(
        read(file),
        reference=Known(datasets.load(reference, split=None if split == "all" else split)),
        protocol=protocol,
        potentials=(potential or ["chgnet"]) if energies else [],
        distributions=distributions,
        workers=workers,
        scheduler=scheduler,
        cache=cache,
        name=file.stem,
        progress=True,
    )
    typer.echo(str(report))
    if out is not None:
        out.write_text(report.to_json(), encoding="utf-8")
        typer.echo(f"wrote {out}")
    if figure is not None:
        show.reports(report).savefig(figure, dpi=200)
        typer.echo(f"wrote {figure}")


def _write_samples(out: Path, made: Samples) -> None:
    """Crystals as extxyz; compositions as one row a sample, a formula or why there is none."""
    from .crystals import files
    from .crystals.batch import CrystalBatch

    crystals = isinstance(made.content, CrystalBatch)
    if crystals:
        asked = {f"requested_{name}": values for name, values in made.asked.items()}
        files.write(out, made.crystals, decoded_ok=made.ok, reason=made.reasons, **asked)
    else:
        import pandas as pd

        partial = out.with_name(f".{out.name}.part")
        table = pd.DataFrame({"formula": made.formulas(), "reason": made.reasons})
        table.to_csv(partial, index=False)
        partial.replace(out)
    kind = "crystals" if crystals else "formulas"
    typer.echo(f"wrote {len(made)} {kind} to {out}; {int(made.ok.sum())} decoded")


def _check_writable(path: Path, suffixes: tuple[str, ...]) -> None:
    """Before hours of work, not after them."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the suffix must be one of {', '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}, make it first")


if __name__ == "__main__":
    main()
