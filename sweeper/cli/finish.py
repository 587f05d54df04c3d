"""Commands that finish a study and use its model: best, predict, export, score."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli.groups import Command
from sweeper.cli.parameters import Devices, Json, Model, NoMlflow, Slots, StudyName, answer, file_path

if TYPE_CHECKING:
    from sweeper.system.devices import Slot
    from sweeper.winners.selection import Selection

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    cls=Command,
    epilog="sweep best quickstart --export submission\nsweep best quickstart --confirm 3",
)
def best(
    study: StudyName = None,
    export: Annotated[
        str | None,
        typer.Option(
            metavar="submission", help="Retrain on train + val, predict test, and pack the files of a submission"
        ),
    ] = None,
    confirm: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="First train the tied leaders again, with N new seeds each")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, metavar="N", help="Use trial N instead of the best one")] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(min=2, metavar="K", help="Combine at most K trials: those that do best together on val"),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Combine N retrainings of one trial with different seeds")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Retrain even if there is a final model already")] = False,
    devices: Devices = None,
    slots: Slots = 1,
    no_mlflow: NoMlflow = False,
    as_json: Json = False,
) -> None:
    """Print the winner, confirm it, retrain and export it."""
    from sweeper.results import winner
    from sweeper.store import studies
    from sweeper.system import devices as places
    from sweeper.terminal import output
    from sweeper.winners import confirm as confirming
    from sweeper.winners import final as winning
    from sweeper.winners import selection

    if export not in (None, "submission"):
        instead = "not 'submission'; sweep export writes a trained model in other formats"
        raise typer.BadParameter(f"{export!r} is {instead}", param_hint="--export")
    if ensemble is not None and trial is not None:
        raise typer.BadParameter("an ensemble chooses its trials itself: leave --trial out", param_hint="--ensemble")
    if confirm is not None and trial is not None:
        raise typer.BadParameter("it trains the tied leaders: leave --trial out", param_hint="--confirm")
    if ensemble is not None and seeds is not None:
        raise typer.BadParameter("choose either trials (--ensemble) or seeds of one trial", param_hint="--seeds")
    found = studies.find(study)
    if confirm is not None:
        rows = confirming.run(found, confirm, places.slots(devices, slots), mlflow=not no_mlflow)
        if as_json and not export:
            return answer(confirming.document(found, rows))
        if not as_json:
            output.print_table(confirming.HEADERS, confirming.cells(rows))
    if ensemble is not None:
        chosen = selection.select(found, ensemble)
        return _together(chosen, places.slots(devices, slots), export, again, no_mlflow, as_json)
    won = winner.chosen(found, trial) if trial is not None else winner.trained_once(found) or winner.winner(found)
    if seeds is not None:
        chosen = selection.repeated(won, seeds)
        return _together(chosen, places.slots(devices, slots), export, again, no_mlflow, as_json)
    if export:
        final = winning.export(won, places.slots(devices)[:1], again=again, mlflow=not no_mlflow)
        return answer(winning.finished(final) if as_json else winning.ending(final, found))
    if confirm is None:
        return answer(winner.document(won) if as_json else [winner.recipe(won).rstrip()])
    return None


def _together(
    chosen: "Selection",
    slots: "list[Slot]",
    export: str | None,
    again: bool,
    no_mlflow: bool,
    as_json: bool,
) -> None:
    """Show the models that an ensemble would combine, or train and export it."""
    from sweeper.terminal import output
    from sweeper.winners import ensemble, selection
    from sweeper.winners import final as winning

    if not as_json:
        output.print_table(selection.HEADERS, selection.cells(chosen), sys.stderr if export else None)
        output.print_message(chosen.line)
    if export:
        final = ensemble.export(chosen, slots, again=again, mlflow=not no_mlflow)
        return answer(winning.finished(final) if as_json else winning.ending(final, chosen.best.study))
    return answer(selection.document(chosen)) if as_json else None


@commands.command(
    cls=Command,
    epilog="sweep predict quickstart photos --top 2\nsweep predict quickstart/0 photos --csv predictions.csv",
)
def predict(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, or a list of paths: .txt, or .csv with a path column", show_default=False
        ),
    ],
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=file_path, help="Write a CSV file instead")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Show the K most likely classes per category")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=file_path, help="A CSV file with path,left,top,right,bottom in pixels"),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="0|cpu", help="Default: the first GPU, or cpu")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images per batch; default: as in training")
    ] = None,
    as_json: Json = False,
) -> None:
    """Classify images with a trained model.

    The exit code is 1 if some images cannot be read.
    """
    from sweeper import text
    from sweeper.commands import predict
    from sweeper.terminal import output

    options = predict.Options(top, boxes, csv, device, batch_size, details=as_json)
    predicted = predict.run(model, images, options)
    if as_json:
        answer(predict.document(predicted))
    elif csv:
        answer([text.relative_path(csv)])
    elif predicted.images:
        output.print_table(*predict.cells(predicted, top), more="--csv FILE has all")
    raise typer.Exit(predicted.exit_code)


@commands.command(
    cls=Command,
    epilog="sweep export quickstart --format onnx\nsweep export quickstart/0 --format torch --output model",
)
def export(
    model: Model,
    format: Annotated[str, typer.Option(metavar="onnx|torch|mlflow|csv", help="The format to write")],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="With csv: files, folders or lists; the test images if left out", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PATH", parser=file_path, help="Where to write; default: a folder MODEL-FORMAT here"),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=file_path, help="With csv: the sample submission to fill in")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="0|cpu", help="With csv: as for sweep predict")] = None,
    as_json: Json = False,
) -> None:
    """Export a trained model to ONNX, PyTorch, MLflow or CSV."""
    from sweeper import text
    from sweeper.model import export, find
    from sweeper.terminal.output import print_message

    wanted = export.format_of(format)
    export.refuse_options(wanted, images or (), like, device)
    found = find.find(model)
    print_message(f"model: {found.words}")
    if like is not None:
        made = export.filled(found, images or (), like, output, device)
    elif wanted == "mlflow":
        made = export.mlflow_model(found, output)
    else:
        print_message(f"exporting to {wanted}, and comparing its answers with the model's")
        made = export.program(found, wanted, output)
    print_message(made.note)
    lines = [*(text.relative_path(path) for path in made.files), *filter(None, [made.more.get("address")])]
    answer(made.document() if as_json else lines)


@commands.command(
    cls=Command,
    epilog="sweep score quickstart 0.791\nsweep score quickstart 0.791 --note 'public board, rank 12'",
)
def score(
    submission: Annotated[str, typer.Argument(help="A submission.zip, its folder, or a study for its latest one")],
    value: Annotated[float, typer.Argument(help="The score on the board")],
    note: Annotated[str, typer.Option(metavar="TEXT", help="A note, such as the board and the rank")] = "",
) -> None:
    """Record the score that a competition gave a submission."""
    from sweeper import text
    from sweeper.store import studies
    from sweeper.terminal.output import print_message

    folder = studies.note_score(submission, value, note)
    print_message(f"{value:g} recorded in {text.relative_path(folder.scores)}")
    for same in studies.same_submissions(folder):
        print_message(f"the same bytes as {same.name}")
