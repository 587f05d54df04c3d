"""Commands that start a study: init, backbones, plan, run."""

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.groups import Command
from sweeper.cli.parameters import (
    AutoSlots,
    Devices,
    Hours,
    Json,
    NoMlflow,
    Sets,
    SpaceFile,
    Trials,
    Weights,
    answer,
    file_path,
    one_of,
    slot_count,
)

commands = typer.Typer(rich_markup_mode=None)

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", parser=file_path, help="The folder of a data set, or a table of labels", show_default=False
    ),
]


@commands.command(
    cls=Command,
    epilog="sweep init photos\nsweep init labels.csv --metric mean_class_accuracy --hours 2",
)
def init(
    path: DataPath,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What trials are compared by; default: overall_accuracy, or mean_average_precision if every"
            " category has several answers",
            show_default=False,
        ),
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.01, metavar="H", help="Wall-clock time of the search, retraining included")
    ] = 1.0,
    weights: Weights = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=file_path, help="Where to write; default: NAME.yaml here")
    ] = None,
    devices: Devices = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="data.KEY=VALUE",
            help="How to read the data, such as data.categories=[kind]; repeatable",
        ),
    ] = None,
) -> None:
    """Write a search space for a data set that fits this machine."""
    from sweeper.commands import init

    wishes = init.Wishes(metric, hours, weights, scratch, devices, tuple(sets or ()))
    answer(init.ending(init.write(path, wishes, out)))


@commands.command(
    cls=Command,
    epilog="sweep backbones mobilenetv3\nsweep backbones 'resnet1*' --json",
)
def backbones(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="Part of a name, such as vit, or a pattern with wildcards"),
    ] = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """List backbones with size, cost, licence and weights."""
    from sweeper.commands import backbones
    from sweeper.terminal import output

    found = backbones.find(pattern, weights)
    if as_json:
        return answer(backbones.document(found))
    output.print_table(backbones.HEADERS, backbones.cells(found))
    if found.more:
        output.print_message(f"{found.more} more match: a longer pattern shows them")
    return None


@commands.command(
    cls=Command,
    epilog="sweep plan search_spaces/quickstart.yaml\n"
    "sweep plan search_spaces/quickstart.yaml --trials 20 --set train.image_size=64",
)
def plan(
    space: SpaceFile,
    sets: Sets = None,
    trials: Trials = None,
    hours: Hours = None,
    devices: Devices = None,
    slots: AutoSlots = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Show what a study would try and cost. Trains nothing."""
    from sweeper.commands import init, plan
    from sweeper.engine.options import Options

    options = Options(tuple(sets or ()), trials, hours, devices, slot_count(slots))
    made = plan.plan(*init.resolved(space, options, weights))
    answer(made.document() if as_json else plan.lines(made))


@commands.command(
    cls=Command,
    epilog="sweep run search_spaces/quickstart.yaml\n"
    "sweep run search_spaces/quickstart.yaml --new-study other --set train.epochs=3 --trials 3",
)
def run(
    space: SpaceFile,
    sets: Sets = None,
    trials: Trials = None,
    hours: Hours = None,
    devices: Devices = None,
    slots: AutoSlots = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Train on the Ray cluster at HOST:PORT, or auto")
    ] = None,
    new_study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Start a new study NAME, warm-started from the old one")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Train in this process, to use a debugger")] = False,
    no_mlflow: NoMlflow = False,
    then_best: Annotated[
        bool | None,
        typer.Option(
            "--then-best/--no-then-best",
            help="Retrain the winner within the hours, and export it; on by default if hours are the only budget,"
            " with two models as an ensemble if there is time (rules: {ensemble: false} for one)",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    log_format: Annotated[
        str, typer.Option(metavar="text|json", help="json: one JSON object per event on stdout")
    ] = "text",
) -> None:
    """Start the study of a search space, or resume it."""
    from sweeper.commands import init, run
    from sweeper.engine.options import Options

    options = Options(
        sets=tuple(sets or ()),
        trials=trials,
        hours=hours,
        devices=devices,
        slots=slot_count(slots),
        ray=ray,
        new_study=new_study,
        inline=inline,
        mlflow=not no_mlflow,
        then_best=then_best,
        log_format=one_of(log_format, ("text", "json"), "--log-format"),
    )
    space, options = init.resolved(space, options, weights)
    session = run.session(space, options)
    if code := run.run(session).exit_code:
        raise typer.Exit(code)
    if final := run.final(session.prepared, options):
        from sweeper.terminal import events
        from sweeper.winners import final as winning

        if options.events:
            return events.emit("final", final.folder.study.name, **winning.finished(final))
        answer(winning.ending(final, final.folder.study))
    return None
