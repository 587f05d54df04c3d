"""The command line: parses, calls, prints. Only typer lives here; what is heavy is imported inside a command."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from sweeper.errors import EnvironmentFault, UserError

if TYPE_CHECKING:
    from sweeper.results.status import Watched
    from sweeper.store.paths import StudyFolder
    from sweeper.system.devices import Count, Slot


SECTIONS = {
    "Start": ("init", "data", "backbones", "plan", "run"),
    "Watch": ("status", "leaderboard", "show", "compare", "report", "ui"),
    "Finish": ("best", "predict", "export", "score"),
    "Maintain": ("doctor", "sync", "clean", "rm"),
}
"""The commands of `sweep --help`, by heading."""


class Commands(TyperGroup):
    """Commands in sections, whose usage errors read like all other errors."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections = SECTIONS if self.name == "sweep" else {"Commands": self.list_commands(ctx)}
        width = max(map(len, self.list_commands(ctx)))
        for title, names in sections.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                limit = formatter.width - width - 6
                rows = [(name.ljust(width), one.get_short_help_str(limit)) for name, one in found if one]
                formatter.write_dl(rows)

    def make_context(self, *words: Any, **more: Any) -> Any:
        with _in_our_words():
            return super().make_context(*words, **more)

    def invoke(self, ctx: Any) -> Any:
        with _in_our_words():
            return super().invoke(ctx)


class Command(TyperCommand):
    """A command whose help ends with examples, each on a line of its own."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  of typer
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.splitlines()))


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        raise _usage(error) from None


def _usage(error: Any) -> UserError:
    """What typer found wrong with the words of a command."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "sweep"
    option = str(getattr(error, "option_name", ""))
    if not option or not hasattr(error, "possibilities"):
        what = error.format_message().rstrip(".")
        return UserError(what[:1].lower() + what[1:], where=command, help=f"see {command} --help")
    near = f"did you mean {' or '.join(sorted(error.possibilities))}?" if error.possibilities else ""
    help = _instead(option) or near or f"see {command} --help"
    return UserError(f"no option {option}", where=command, help=help)


def _instead(option: str) -> str:
    """What to write for an option that there is not, where a key of the file is called so, or habit knows it."""
    from sweeper.space import hints

    key = option.lstrip("-").replace("-", "_")
    if key == "seed":
        return "--set search.seed=1 for the sampler, --set train.seed=1 for the training"
    found = hints.places(key)
    return hints.HABITS.get(key) or (f"--set {found[0]}=VALUE" if found else "")


app = typer.Typer(
    name="sweep",
    cls=Commands,
    help="Search the hyperparameters of an image classifier, and retrain the best trial.",
    epilog="Run `sweep` without a command to see the status of this directory and the next command."
    " Results go to stdout, everything else to stderr.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
)
data = typer.Typer(cls=Commands, help="Check a data set, or draw a demo set.", rich_markup_mode=None)
app.add_typer(data, name="data")


def _path(given: str) -> Path:
    from trainers.support.files import expanded

    return Path(expanded(given))  # a shell does not, behind = or in quotes


def _proposing(kind: str) -> Callable[[str], list[str]]:
    """Completes names of a kind in a shell."""

    def complete(incomplete: str) -> list[str]:
        from sweeper.commands import completion

        return completion.proposals(kind, incomplete)

    return complete


def _study(help: str, metavar: str = "[STUDY]") -> Any:
    """An argument that names a study."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=_proposing("study"))


SpaceFile = Annotated[
    Path, typer.Argument(metavar="SPACE.yaml", parser=_path, help="A search space, or a recipe", show_default=False)
]
StudyName = Annotated[
    str | None,
    _study("The latest study if left out"),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the file, such as train.epochs=3; repeatable",
        autocompletion=_proposing("key"),
    ),
]
Trials = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Trials of the study in total, earlier runs included")
]
Hours = Annotated[
    float | None, typer.Option(min=0, metavar="H", help="Hours of the study in total, earlier runs included")
]
Devices = Annotated[str | None, typer.Option(metavar="0,1|cpu", help="The GPUs to use, or cpu; all GPUs if left out")]
Slots = Annotated[int, typer.Option(min=1, metavar="N", help="Trials per device at the same time")]
AutoSlots = Annotated[
    str | None,
    typer.Option(
        "--slots",
        metavar="N|auto",
        help="Trials per device at the same time; auto: as many as fit in memory and speed the study up."
        " Default: 1 per GPU; on a CPU 1 per core for small networks, memory permitting, otherwise 1",
    ),
]
NoMlflow = Annotated[bool, typer.Option("--no-mlflow", help="Do not log to MLflow")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document")]


@app.callback(invoke_without_command=True)
def sweep(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Without a command: the status of this directory as JSON")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit")] = False,
) -> None:
    if version:
        from importlib import metadata

        _answer([f"sweep {metadata.version('vision-sweep')}"])
        raise typer.Exit
    if as_json and context.invoked_subcommand:
        raise UserError("--json before a command asks it nothing", where="sweep", help="write it behind the command")
    if context.invoked_subcommand is None:
        from sweeper.results import status

        _answer(status.everything() if as_json else status.here())


# ------------------------------------------------------------------------------------------- starting
DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", parser=_path, help="The folder of a data set, or a table of labels", show_default=False
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", envvar="SWEEP_WEIGHTS", help="A folder with pretrained weights, for use without the model hub"
    ),
]


@app.command(
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
        Path | None, typer.Option(metavar="FILE", parser=_path, help="Where to write; default: NAME.yaml here")
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
    _answer(init.ending(init.write(path, wishes, out)))


@app.command(
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
        return _answer(backbones.document(found))
    output.print_table(backbones.HEADERS, backbones.cells(found))
    if found.more:
        output.print_message(f"{found.more} more match: a longer pattern shows them")
    return None


# ------------------------------------------------------------------------------------------- sweeping
@app.command(
    cls=Command,
    epilog="sweep run search_spaces/quickstart.yaml\n"
    "sweep run search_spaces/quickstart.yaml --new-study other --set train.epochs=3 --trials 3",
)
def run(
    space: Annotated[
        Path,
        typer.Argument(
            metavar="SPACE.yaml",
            parser=_path,
            help="A search space or a recipe; for a data set, a search space is written first",
            show_default=False,
        ),
    ],
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
            " on a CPU with the best pair of models as an ensemble (rules: {ensemble: false} for one)",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    log_format: Annotated[
        str, typer.Option(metavar="text|json", help="json: one JSON object per event on stdout")
    ] = "text",
) -> None:
    """Start the study of a search space, or resume it."""
    from sweeper.commands import data, init, run
    from sweeper.engine.options import Options

    options = Options(
        sets=tuple(sets or ()),
        trials=trials,
        hours=hours,
        devices=devices,
        slots=_count(slots),
        ray=ray,
        new_study=new_study,
        inline=inline,
        mlflow=not no_mlflow,
        then_best=then_best,
        log_format=_one_of(log_format, ("text", "json"), "--log-format"),
    )
    if data.is_data(space):
        space = init.for_run(space, options, weights)
    elif weights:
        options = init.with_weights(space, options, weights)
    if code := run.run(space, options).exit_code:
        raise typer.Exit(code)
    if final := run.final(space, options):
        from sweeper.terminal import events
        from sweeper.winners import final as winning

        if options.events:
            return events.emit("final", final.folder.study.name, **winning.finished(final))
        _answer(winning.ending(final, final.folder.study))
    return None


@app.command(
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
    as_json: Json = False,
) -> None:
    """Show what a study would try and cost. Trains nothing."""
    from sweeper.commands import plan
    from sweeper.engine.options import Options

    made = plan.plan(space, Options(tuple(sets or ()), trials, hours, devices, _count(slots)))
    _answer(made.document() if as_json else plan.lines(made))


@app.command(
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
        raise UserError("--watch and --json are two answers", where="sweep status", help="ask for one")
    if watch:
        _watch(status.Watched(found))
    one = studies.status_of(found)
    _answer(status.report(one) if as_json else status.status(one))


def _watch(watched: "Watched") -> None:
    """Show a sweep of another process while it runs."""
    from sweeper import text
    from sweeper.system.interrupt import stoppable
    from sweeper.terminal import follow, views
    from sweeper.terminal.summary import Known

    where = [f"files: {text.relative_path(watched.study.root)}", "stop:  Ctrl-C; the sweep continues"]
    with stoppable():
        if watched.look().holder:
            known = Known(watched.names, watched.epochs)
            follow.follow(watched, views.choose(sys.stdout, where=where, known=known))


@app.command(
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
            "--csv, --markdown and --json are three answers", where="sweep leaderboard", help="ask for one"
        )
    found = studies.find(study)
    standing = leaderboard.standing(found, leaderboard.Wanted(top, cross, columns, by))
    if as_json:
        return _answer(standing.document())
    if not standing.results:
        return output.print_message(f"no trial of {found.name} has started")
    if as_csv:
        return _answer([standing.csv().rstrip("\n")])
    made = standing.cross
    if markdown:
        return _answer((made.board() if made and cross else standing.board()).markdown())
    if not cross:
        board = standing.board()
        output.print_table(board.headers, board.rows, more=leaderboard.MORE)
        if standing.said and not columns:
            _answer(["", *standing.said])
        if standing.ledger.rows and not columns:
            _answer(["", "final models:"])
            output.print_table(standing.ledger.headers, standing.ledger.rows)
    if made:
        _answer([*([] if cross else [""]), made.title])
        output.print_table(*made.table())
    return None


@app.command(
    cls=Command,
    epilog="sweep show quickstart/0\nsweep show quickstart/0 --yaml",
)
def show(
    trial: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY/]TRIAL",
            help="Such as focal_weights/4; 4 alone is trial 4 of the latest study",
            autocompletion=_proposing("trial"),
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
        raise UserError("--yaml and --json are two answers", where="sweep show", help="ask for one")
    found = trial_view.view(trial)
    if as_yaml:
        return _answer([found.recipe().rstrip()])
    return _answer(found.document() if as_json else found.lines())


@app.command(
    cls=Command,
    epilog="sweep compare quickstart other\nsweep compare quickstart other --json",
)
def compare(
    a: Annotated[str, _study("A study", "A")],
    b: Annotated[str, _study("Another study", "B")],
    as_json: Json = False,
) -> None:
    """Compare two studies."""
    from sweeper.results import comparison
    from sweeper.store import studies
    from sweeper.terminal import output

    made = comparison.comparison(studies.find(a), studies.find(b))
    if as_json:
        return _answer(made.document())
    differences = made.differences(made.sides[1])
    _answer([f"{a} -> {b}:", *(f"  {line}" for line in differences or ["they ask the same"])])
    for title, headers, rows in made.tables():
        _answer(["", f"{title}:"])
        output.print_table(headers, rows)
    return None


@app.command(
    "rm",
    cls=Command,
    epilog="sweep rm other\nsweep rm other --yes",
)
def remove(
    study: Annotated[str, _study("Name of the study", "STUDY")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")] = False,
) -> None:
    """Delete a study with its trials and models."""
    from sweeper.store import removal
    from sweeper.terminal.output import print_message

    found = removal.find(study)
    print_message(removal.question(found))
    if not yes and not sys.stdin.isatty():
        raise UserError("nothing was removed: nobody can be asked here", where="sweep rm", help="--yes removes it")
    if not yes and not typer.confirm("remove it?", err=True):
        return print_message("nothing was removed")
    for line in removal.remove(found):
        print_message(line)
    return None


# ------------------------------------------------------------------------------------------- the winner
@app.command(
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

    if export not in (None, "submission"):
        instead = "not 'submission'; sweep export writes a trained model in other formats"
        raise typer.BadParameter(f"{export!r} is {instead}", param_hint="--export")
    if ensemble is not None and trial is not None:
        raise typer.BadParameter("an ensemble chooses its trials itself: leave --trial out", param_hint="--ensemble")
    found = studies.find(study)
    if confirm is not None:
        rows = confirming.run(found, confirm, places.slots(devices, slots), mlflow=not no_mlflow)
        if as_json and not export:
            return _answer(confirming.document(found, rows))
        if not as_json:
            output.print_table(confirming.HEADERS, confirming.cells(rows))
    if ensemble is not None:
        return _together(found, ensemble, places.slots(devices, slots), export, again, no_mlflow, as_json)
    won = winner.winner(found) if trial is None else winner.chosen(found, trial)
    if export:
        final = winning.export(won, places.slots(devices)[:1], again=again, mlflow=not no_mlflow)
        return _answer(winning.finished(final) if as_json else winning.ending(final, found))
    if confirm is None:
        return _answer(winner.document(won) if as_json else [winner.recipe(won).rstrip()])
    return None


def _together(
    study: "StudyFolder",
    most: int,
    slots: "list[Slot]",
    export: str | None,
    again: bool,
    no_mlflow: bool,
    as_json: bool,
) -> None:
    """An ensemble: which trials it would take, or exported."""
    from sweeper.terminal import output
    from sweeper.winners import ensemble as together
    from sweeper.winners import final as winning

    chosen = together.select(study, most)
    if not as_json:
        output.print_table(together.HEADERS, together.cells(chosen), sys.stderr if export else None)
        output.print_message(chosen.line)
    if export:
        final = together.export(chosen, slots, again=again, mlflow=not no_mlflow)
        return _answer(winning.finished(final) if as_json else winning.ending(final, study))
    return _answer(together.document(chosen)) if as_json else None


@app.command(
    cls=Command,
    epilog="sweep score quickstart 0.791\nsweep score quickstart 0.791 --note 'public board, rank 12'",
)
def score(
    submission: Annotated[str, typer.Argument(help="A submission.zip, its folder, or a study for its latest one")],
    value: Annotated[float, typer.Argument(help="The score on the board")],
    note: Annotated[str, typer.Option(metavar="TEXT", help="A note, such as the board and the rank")] = "",
) -> None:
    """Record a leaderboard's score of a submission."""
    from sweeper import text
    from sweeper.store import studies
    from sweeper.terminal.output import print_message

    folder = studies.note_score(submission, value, note)
    print_message(f"noted in {text.relative_path(folder.scores)}")
    for same in studies.same_submissions(folder):
        print_message(f"the same bytes as {same.name}")


@app.command(
    cls=Command,
    epilog="sweep report quickstart\nsweep report quickstart other --output both.html",
)
def report(
    study: Annotated[
        list[str] | None,
        _study("The latest study if left out; several are compared", "[STUDY]..."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=_path,
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
    _answer(document if as_json else [text.relative_path(made.path)])


@app.command(
    cls=Command,
    epilog="sweep clean\nsweep clean quickstart --keep 3 --yes",
)
def clean(
    study: Annotated[
        str | None,
        _study("All studies and the cache if left out"),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Keep the checkpoints of the N best trials; default: keep_checkpoints of the study",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")] = False,
    as_json: Json = False,
) -> None:
    """Delete checkpoints and caches that are no longer needed."""
    from sweeper import text
    from sweeper.commands import clean
    from sweeper.terminal.output import print_message

    found = clean.find(study, keep)
    if not as_json:
        _answer(clean.lines(found))
    sure = yes or (not as_json and bool(found.items) and sys.stdin.isatty() and typer.confirm("remove it?", err=True))
    freed = clean.remove(study, keep) if sure and found.items else None
    if as_json:
        return _answer(clean.document(found, freed))
    if freed is not None:
        return print_message(f"{text.format_bytes(freed)} freed")
    return print_message("nothing was removed; --yes removes it") if found.items else None


@app.command(
    cls=Command,
    epilog="sweep ui\nsweep ui quickstart --port 5001",
)
def ui(
    study: StudyName = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="The port; the next free one if it is in use")
    ] = 5000,
) -> None:
    """Open the studies in MLflow, until Ctrl-C."""
    from sweeper.commands import ui
    from sweeper.store import studies
    from sweeper.terminal.output import print_result

    there = studies.studies()
    ui.serve(studies.find(study) if study or there else None, print_result, port=port)


@app.command(
    cls=Command,
    epilog="sweep sync\nsweep sync quickstart",
)
def sync(
    study: Annotated[
        str | None,
        _study("All studies if left out"),
    ] = None,
) -> None:
    """Upload to MLflow whatever is missing from it."""
    from sweeper.store import studies
    from sweeper.terminal.output import print_message
    from sweeper.tracking import catching_up

    chosen = ([] if study else studies.studies()) or [studies.find(study)]
    if not catching_up.catch_up(chosen, print_message):
        raise typer.Exit(EnvironmentFault.exit_code)
    _answer([f"MLflow has all of {', '.join(one.name for one in chosen)}"])


# ------------------------------------------------------------------------------------------- the model
@app.command(
    cls=Command,
    epilog="sweep predict quickstart photos --top 2\nsweep predict quickstart/0 photos --csv predictions.csv",
)
def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="A study, STUDY/TRIAL, the folder of a run, or a model file",
            show_default=False,
            autocompletion=_proposing("model"),
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, or a list of paths: .txt, or .csv with a path column", show_default=False
        ),
    ],
    csv: Annotated[Path | None, typer.Option(metavar="FILE", parser=_path, help="Write a CSV file instead")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Show the K most likely classes per category")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=_path, help="A CSV file with path,left,top,right,bottom in pixels"),
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
        _answer(predict.document(predicted))
    elif csv:
        _answer([text.relative_path(csv)])
    elif predicted.images:
        output.print_table(*predict.cells(predicted, top), more="--csv FILE has all")
    raise typer.Exit(predicted.exit_code)


@app.command(
    cls=Command,
    epilog="sweep export quickstart --format onnx\nsweep export quickstart/0 --format torch --output model",
)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A study, STUDY/TRIAL, the folder of a run, or a model file",
            show_default=False,
            autocompletion=_proposing("model"),
        ),
    ],
    format: Annotated[str, typer.Option(metavar="onnx|torch|mlflow|csv", help="The format to write")],
    images: Annotated[
        list[str] | None,
        typer.Argument(help="With csv: files, folders or lists; the test images if left out", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", parser=_path, help="Where to write; default: the current folder")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=_path, help="With csv: the sample submission to fill in")
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
        made = export.program(found, wanted, output)
    print_message(made.note)
    lines = [*(text.relative_path(path) for path in made.files), *filter(None, [made.more.get("address")])]
    _answer(made.document() if as_json else lines)


# ------------------------------------------------------------------------------------------- data
@data.command(
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
    _answer(data.document(checked) if as_json else data.lines(checked, path, every=every))
    if checked.found.faults:
        raise typer.Exit(3)
    if cache:
        from sweeper.commands import run
        from sweeper.engine.options import Options
        from sweeper.terminal.output import print_message

        print_message(f"{run.cached(path, Options(tuple(sets or ())))} images are decoded")


@data.command(
    "demo",
    cls=Command,
    epilog="sweep data demo\nsweep data demo garments --images 80 20 20 --multi 1",
)
def data_demo(
    root: Annotated[Path | None, typer.Argument(parser=_path, help="A new folder", show_default="data/demo")] = None,
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


@app.command(
    cls=Command,
    epilog="sweep doctor\nsweep doctor --json",
)
def doctor(as_json: Json = False) -> None:
    """Check this machine: libraries, GPUs, disk, network, MLflow.

    The exit code is 3 if something needs attention.
    """
    from sweeper.commands import doctor

    findings = doctor.examine()
    _answer(doctor.document(findings) if as_json else doctor.lines(findings))
    raise typer.Exit(0 if all(one.ok for one in findings) else 3)


def _count(slots: str | None) -> "Count | None":
    if slots is None:
        return None
    if slots == "auto":
        return "auto"
    if not slots.isdecimal() or int(slots) < 1:
        raise typer.BadParameter(f"{slots!r} is neither a number from 1 on nor auto", param_hint="--slots")
    return int(slots)


def _one_of(word: str, words: tuple[str, ...], option: str) -> str:
    if word not in words:
        raise typer.BadParameter(f"{word!r} is not {' or '.join(words)}", param_hint=option)
    return word


def _answer(answer: dict[str, Any] | Iterable[str]) -> None:
    """Print one JSON document, or lines."""
    from sweeper import text
    from sweeper.terminal.output import print_result

    for line in [json.dumps(text.finite(answer), indent=1, allow_nan=False)] if isinstance(answer, dict) else answer:
        print_result(line)


def main() -> None:
    """The program, for `sweeper.__main__`, and for those who run this module."""
    from sweeper.system import interrupt, subprocesses

    interrupt.heed()
    subprocesses.settle()
    from sweeper.terminal import exit

    exit.run_and_exit(app)


if __name__ == "__main__":
    main()
