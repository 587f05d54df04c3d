"""Arguments and options that several commands share, and how an answer is printed."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sweeper.system.devices import Count


def file_path(given: str) -> Path:
    """The path, with ~ and variables expanded: a shell leaves them alone after = and in quotes."""
    from trainers.support.files import expanded

    return Path(expanded(given))


def proposing(kind: str) -> Callable[[str], list[str]]:
    """Return the function that completes names of a kind in a shell."""

    def complete(incomplete: str) -> list[str]:
        from sweeper.commands import completion

        return completion.proposals(kind, incomplete)

    return complete


def study_argument(help: str, metavar: str = "[STUDY]") -> Any:
    """Return an argument that names a study and that a shell completes."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=proposing("study"))


SpaceFile = Annotated[
    Path,
    typer.Argument(
        metavar="SPACE.yaml",
        parser=file_path,
        help="A search space or a recipe; for a data set, a search space is written first",
        show_default=False,
    ),
]
StudyName = Annotated[
    str | None,
    study_argument("The latest study if left out"),
]
Model = Annotated[
    str,
    typer.Argument(
        help="A study, STUDY/TRIAL, the folder of a run, or a model file",
        show_default=False,
        autocompletion=proposing("model"),
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the file, such as train.epochs=3; repeatable",
        autocompletion=proposing("key"),
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
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", envvar="SWEEP_WEIGHTS", help="A folder with pretrained weights, for use without the model hub"
    ),
]


def slot_count(slots: str | None) -> "Count | None":
    """Parse --slots. Raises typer.BadParameter."""
    if slots is None:
        return None
    if slots == "auto":
        return "auto"
    if not slots.isdecimal() or int(slots) < 1:
        raise typer.BadParameter(f"{slots!r} is neither a positive number nor auto", param_hint="--slots")
    return int(slots)


def one_of(word: str, words: tuple[str, ...], option: str) -> str:
    """Return `word` if it is one of `words`. Raises typer.BadParameter."""
    if word not in words:
        raise typer.BadParameter(f"{word!r} is not {' or '.join(words)}", param_hint=option)
    return word


def answer(given: dict[str, Any] | Iterable[str]) -> None:
    """Print one JSON document, or lines."""
    from sweeper import text
    from sweeper.terminal.output import print_result

    for line in [json.dumps(text.finite(given), indent=1, allow_nan=False)] if isinstance(given, dict) else given:
        print_result(line)
