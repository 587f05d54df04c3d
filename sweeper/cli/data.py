"""The commands of `sweep data`: check, demo."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.groups import Command, Commands
from sweeper.cli.parameters import Json, Sets, answer, file_path

commands = typer.Typer(cls=Commands, help="Check a data set, or draw a demo set.", rich_markup_mode=None)


@commands.command(
    "check",
    cls=Command,
    epilog="sweep data check photos\nsweep data check search_spaces/quickstart.yaml --all",
)
def data_check(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A search space, the folder of a data set, or a table of labels", show_default=False
        ),
    ],
    sets: Sets = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Also decode the images of a search space, as sweep run would")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="List every note instead of one line per kind")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Check every image again, even if it has not changed")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how a data set is read, and what is wrong with it."""
    from sweeper.commands import data

    if cache:
        data.refuse_uncached(path)
    checked = data.run(path, sets or (), again=again)
    answer(data.document(checked) if as_json else data.lines(checked, path, every=every))
    if checked.found.faults:
        raise typer.Exit(3)
    if cache:
        from sweeper.commands import run
        from sweeper.engine.options import Options
        from sweeper.terminal.output import print_message

        print_message(f"{run.cached(path, Options(tuple(sets or ())))} images are decoded")


@commands.command(
    "demo",
    cls=Command,
    epilog="sweep data demo\nsweep data demo garments --images 80 20 20 --multi 1",
)
def data_demo(
    root: Annotated[
        Path | None, typer.Argument(parser=file_path, help="A new folder; default: data/demo", show_default=False)
    ] = None,
    images: Annotated[
        tuple[int, int, int], typer.Option(metavar="TRAIN VAL TEST", min=0, help="Number of images per split")
    ] = (800, 200, 200),
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Random seed")] = 0,
    missing: Annotated[
        float, typer.Option(min=0, max=0.9, metavar="X", help="Leave out this share of the answers; writes a table")
    ] = 0.0,
    multi: Annotated[
        int, typer.Option(min=0, max=1, metavar="N", help="Categories with several answers; writes a table")
    ] = 0,
) -> None:
    """Draw a demo data set: garments in six categories."""
    from sweeper.terminal.output import print_message, print_result
    from trainers.data import demo
    from trainers.data.layouts import DEMO_ROOT

    place = root or Path(DEMO_ROOT)
    demo.draw(place, images=images, seed=seed, missing=missing, multi=multi)
    if missing or multi:
        several = ", multi: [texture]" if multi else ""
        print_message(f"in a search space: data: {{layout: table, root: {json.dumps(str(place))}{several}}}")
    print_result(str(place))
