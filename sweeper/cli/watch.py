"""Commands that watch a study and read its results: status, leaderboard, show, compare, report, ui."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli.groups import Command
from sweeper.cli.parameters import Json, StudyName, answer, file_path, proposing, study_argument
from sweeper.errors import UserError

if TYPE_CHECKING:
    from sweeper.results.status import Watched

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    cls=Command,
    epilog="sweep status\nsweep status quickstart --json",
)
def status(
    study: StudyName = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the running sweep until it finishes or you press Ctrl-C")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the status of a study."""
    from sweeper.results import status
    from sweeper.store import studies

    found = studies.find(study)
    if watch and as_json:
        raise UserError("--watch and --json cannot be combined", where="sweep status", help="leave one out")
    if watch:
        _watch(status.Watched(found))
    one = studies.status_of(found)
    answer(status.report(one) if as_json else status.status(one))


def _watch(watched: "Watched") -> None:
    """Follow a sweep of another process until it ends."""
    from sweeper import text
    from sweeper.system.interrupt import stoppable
    from sweeper.terminal import follow, views
    from sweeper.terminal.summary import Known

    where = [f"files: {text.relative_path(watched.study.root)}", "stop:  Ctrl-C; the sweep continues"]
    with stoppable():
        if watched.look().holder:
            known = Known(watched.names, watched.epochs)
            follow.follow(watched, views.choose(sys.stdout, where=where, known=known))


@commands.command(
    cls=Command,
    epilog="sweep leaderboard quickstart --top 5\nsweep leaderboard quickstart --by mean_class_accuracy --csv",
)
def leaderboard(
    study: StudyName = None,
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="Show only the first N trials")] = None,
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns to show: parameters, metrics, or any column of --csv"),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="METRIC", help="Rank by another recorded metric")] = None,
    cross: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Show a table of parameter A (rows) by parameter B (columns) instead"),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every column as CSV")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown")] = False,
    as_json: Json = False,
) -> None:
    """Rank the trials, and show which parameters mattered.

    Parameters appear under the shortest end of their name that is unique, such as lr for optimizer.lr, and can be
    typed that way. A grid over two parameters also prints their table.
    """
    from sweeper.commands import leaderboard
    from sweeper.store import studies
    from sweeper.terminal import output

    if as_csv + markdown + as_json > 1:
        raise UserError(
            "--csv, --markdown and --json cannot be combined", where="sweep leaderboard", help="choose one"
        )
    found = studies.find(study)
    standing = leaderboard.standing(found, leaderboard.Wanted(top, cross, columns, by))
    if as_json:
        return answer(standing.document())
    if not standing.results:
        return output.print_message(standing.nothing)
    made = standing.cross
    if as_csv:
        return answer([(made.board().csv() if made and cross else standing.csv()).rstrip("\n")])
    if markdown:
        return answer((made.board() if made and cross else standing.board()).markdown())
    if not cross:
        board = standing.board()
        output.print_table(board.headers, board.rows, more=leaderboard.MORE)
        if standing.remarks and not columns:
            answer(["", *standing.remarks])
        if standing.ledger.rows and not columns:
            answer(["", "final models:"])
            output.print_table(standing.ledger.headers, standing.ledger.rows)
    if made:
        answer([*([] if cross else [""]), made.title])
        output.print_table(*made.table())
    return None


@commands.command(
    cls=Command,
    epilog="sweep show quickstart/0\nsweep show quickstart/0 --yaml",
)
def show(
    trial: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY/]TRIAL",
            help="Such as focal_weights/4; 4 alone is trial 4 of the latest study",
            autocompletion=proposing("trial"),
        ),
    ],
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print its recipe as a search space that can be run")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one trial in detail."""
    from sweeper.results import trial_view

    if as_yaml and as_json:
        raise UserError("--yaml and --json cannot be combined", where="sweep show", help="leave one out")
    found = trial_view.view(trial)
    if as_yaml:
        return answer([found.recipe().rstrip()])
    return answer(found.document() if as_json else found.lines())


@commands.command(
    cls=Command,
    epilog="sweep compare quickstart other\nsweep compare quickstart other --json",
)
def compare(
    a: Annotated[str, study_argument("A study", "A")],
    b: Annotated[str, study_argument("Another study", "B")],
    as_json: Json = False,
) -> None:
    """Compare two studies."""
    from sweeper.results import comparison
    from sweeper.store import studies
    from sweeper.terminal import output

    found = [studies.find(a), studies.find(b)]
    made = comparison.comparison(*found)
    if as_json:
        return answer(made.document())
    differences = made.differences(made.sides[1])
    answer([f"{a} -> {b}:", *(f"  {line}" for line in differences or ["no differences"])])
    answer(["", made.caution or comparison.headline([studies.status_of(one) for one in found])])
    for title, headers, rows in made.tables():
        answer(["", f"{title}:"])
        output.print_table(headers, rows)
    return None


@commands.command(
    cls=Command,
    epilog="sweep report quickstart\nsweep report quickstart other --output both.html",
)
def report(
    study: Annotated[
        list[str] | None,
        study_argument("The latest study if left out; several are compared", "[STUDY]..."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=file_path,
            help="Where to write; default: report.html in the study's folder, or mlruns/comparison.html",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a study, or comparing several."""
    from sweeper import text
    from sweeper.store import paths, studies
    from sweeper.terminal import output as terminal

    found = [studies.find(name) for name in dict.fromkeys(study)] if study else [studies.find(None)]
    os.environ.setdefault("MPLCONFIGDIR", str(paths.fonts()))  # before the plotting library is loaded
    from sweeper.results import page

    made = page.write(found[0], output) if len(found) == 1 else page.compare(found, output)
    for trouble in made.troubles:
        terminal.print_message(f"not drawn: {trouble}")
    document = {"schema_version": 1, "path": str(made.path), "troubles": list(made.troubles)}
    answer(document if as_json else [text.relative_path(made.path)])


@commands.command(
    cls=Command,
    epilog="sweep ui\nsweep ui quickstart --port 5001",
)
def ui(
    study: StudyName = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="The port; the next free one if it is in use")
    ] = 5000,
) -> None:
    """Serve the studies in MLflow until Ctrl-C."""
    from sweeper.commands import ui
    from sweeper.store import studies
    from sweeper.terminal.output import print_result

    there = studies.studies()
    ui.serve(studies.find(study) if study or there else None, print_result, port=port)
