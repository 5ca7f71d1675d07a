"""The command line: `imd data`, `imd train`, `imd sample`, `imd judge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .runtime import PROFILES, InputError, current_profile, lookup

if TYPE_CHECKING:
    from .crystals import CrystalBatch
    from .datasets import CrystalSet

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
    variant: Annotated[str, typer.Option(help="fixed or paper")] = "fixed",
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
    lookup("variant", variant, models.VARIANTS)
    changes = {k: v for k, v in {"steps": steps, "width": width}.items() if v is not None}
    folder = out or Path("runs") / f"{model}-{variant}"
    module = models.module(model)
    module.train(variant, profile=chosen, folder=folder, resume=resume, seed=seed, changes=changes)
    typer.echo(f"wrote {folder / 'model.safetensors'} and {folder / 'run.json'}")


@app.command()
def sample(
    model: str,
    out: Annotated[Path, typer.Option("--out", "-o", help="an .extxyz file")],
    n: Annotated[int, typer.Option("-n", help="how many crystals")] = 1000,
    variant: Annotated[str, typer.Option(help="fixed or paper")] = "fixed",
    weights: Annotated[Path | None, typer.Option(help="your own model.safetensors")] = None,
    space_group: Annotated[int | None, typer.Option(help="e.g. 225")] = None,
    elements: Annotated[str | None, typer.Option(help="e.g. Cs,Pb,I")] = None,
    seed: Annotated[int, typer.Option(help="same seed, same crystals")] = 0,
) -> None:
    """Generate crystals; those that do not decode stay in the file, with the reason."""
    from . import models
    from .crystals import files

    condition: dict[str, object] = {}
    if space_group is not None:
        condition["space_group"] = space_group
    if elements is not None:
        condition["elements"] = tuple(e.strip() for e in elements.split(","))
    generator = models.load(model, variant=variant, path=weights)
    decoded, requested = generator.sample_decoded(n, condition=condition, seed=seed)
    files.write(
        out,
        decoded.crystals,
        decoded_ok=decoded.ok,
        reason=decoded.reasons,
        requested_space_group=requested,
    )
    typer.echo(f"wrote {len(decoded)} crystals to {out}; {int(decoded.ok.sum())} decoded")


@app.command()
def judge(
    file: Path,
    reference: Annotated[str, typer.Option(help="data set that novelty is measured against")] = (
        "oqmd_icsd"
    ),
    split: Annotated[str, typer.Option(help="train, val, test, or all")] = "train",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="report as JSON")] = None,
) -> None:
    """Send crystals through the funnel: decodes, distances, charges, symmetry, unique, novel."""
    from . import datasets, judge
    from .crystals import files
    from .descriptors import Decoded

    crystals, columns = files.read(file)
    known = datasets.load(reference, split=None if split == "all" else split)
    ok = columns.get("decoded_ok")
    decoded = Decoded(crystals, ok, tuple(columns["reason"])) if ok is not None else crystals
    report = judge.funnel(
        decoded,
        requested_space_groups=columns.get("requested_space_group"),
        training=_comparable(known, crystals),
        progress=True,
    )
    typer.echo(report.table.to_string())
    if out is not None:
        out.write_text(report.to_json())
        typer.echo(f"wrote {out}")


def _comparable(known: CrystalSet, crystals: CrystalBatch) -> CrystalBatch | None:
    """Reference crystals with as many elements as some sample: no other can be a duplicate."""
    n_elements = (crystals.counts() > 0).sum(1).unique().tolist()
    chosen = known.select(nelements=n_elements)
    return chosen.crystals if len(chosen) else None


if __name__ == "__main__":
    main()
