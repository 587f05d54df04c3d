"""The program `sweep`: its commands from the modules beside this one, a module per heading of `sweep --help`."""

from typing import Annotated

import typer

from sweeper.cli import data, finish, maintain, start, watch
from sweeper.cli.groups import Commands
from sweeper.cli.parameters import answer
from sweeper.errors import UserError

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
app.add_typer(data.commands, name="data")
for section in (start, watch, finish, maintain):
    app.add_typer(section.commands)


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

        answer([f"sweep {metadata.version('vision-sweep')}"])
        raise typer.Exit
    if as_json and context.invoked_subcommand:
        raise UserError("--json before a command has no effect", where="sweep", help="write it after the command")
    if context.invoked_subcommand is None:
        from sweeper.results import status

        answer(status.everything() if as_json else status.here())


def main() -> None:
    """Run the command line and exit."""
    from sweeper.system import interrupt, subprocesses

    interrupt.heed()
    subprocesses.settle()
    from sweeper.terminal import exit

    exit.run_and_exit(app)
