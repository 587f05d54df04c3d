"""Commands that look after this machine and the disk: doctor, sync, clean, rm."""

import sys
from typing import Annotated

import typer

from sweeper.cli.groups import Command
from sweeper.cli.parameters import Json, answer, study_argument
from sweeper.errors import EnvironmentFault, UserError

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    cls=Command,
    epilog="sweep doctor\nsweep doctor --json",
)
def doctor(as_json: Json = False) -> None:
    """Check this machine: libraries, GPUs, disk, network, MLflow.

    The exit code is 3 if something needs attention.
    """
    from sweeper.commands import doctor

    findings = doctor.examine()
    answer(doctor.document(findings) if as_json else doctor.lines(findings))
    raise typer.Exit(0 if all(one.ok for one in findings) else 3)


@commands.command(
    cls=Command,
    epilog="sweep sync\nsweep sync quickstart",
)
def sync(
    study: Annotated[
        str | None,
        study_argument("All studies if left out"),
    ] = None,
) -> None:
    """Upload to MLflow whatever is missing from it."""
    from sweeper.store import studies
    from sweeper.terminal.output import print_message
    from sweeper.tracking import catching_up

    chosen = ([] if study else studies.studies()) or [studies.find(study)]
    if not catching_up.catch_up(chosen, print_message):
        raise typer.Exit(EnvironmentFault.exit_code)
    answer([f"MLflow has all of {', '.join(one.name for one in chosen)}"])


@commands.command(
    cls=Command,
    epilog="sweep clean\nsweep clean quickstart --keep 3 --yes",
)
def clean(
    study: Annotated[
        str | None,
        study_argument("All studies and the cache if left out"),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Keep the checkpoints of the N best trials; default: keep_checkpoints of the study, else 1",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")] = False,
    as_json: Json = False,
) -> None:
    """Delete checkpoints beyond the best, and unused caches."""
    from sweeper import text
    from sweeper.commands import clean
    from sweeper.terminal.output import print_message

    found = clean.find(study, keep)
    if not as_json:
        answer(clean.lines(found))
    sure = yes or (not as_json and bool(found.items) and sys.stdin.isatty() and typer.confirm("remove it?", err=True))
    freed = clean.remove(study, keep) if sure and found.items else None
    if as_json:
        return answer(clean.document(found, freed))
    if freed is not None:
        return print_message(f"{text.format_bytes(freed)} freed")
    return print_message("nothing was removed; --yes removes it") if found.items else None


@commands.command(
    "rm",
    cls=Command,
    epilog="sweep rm other\nsweep rm other --yes",
)
def remove(
    study: Annotated[str, study_argument("Name of the study", "STUDY")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation")] = False,
) -> None:
    """Delete a study with its trials and models."""
    from sweeper.store import removal
    from sweeper.terminal.output import print_message

    found = removal.find(study)
    print_message(removal.question(found))
    if not yes and not sys.stdin.isatty():
        raise UserError(
            "nothing was removed: there is no terminal to confirm on",
            where="sweep rm",
            help="--yes removes it without asking",
        )
    if not yes and not typer.confirm("remove it?", err=True):
        return print_message("nothing was removed")
    for line in removal.remove(found):
        print_message(line)
    return None
