"""The looks of the command line: sections, examples below each command, usage errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from sweeper.errors import UserError

SECTIONS = {
    "Start": ("init", "data", "backbones", "plan", "run"),
    "Watch": ("status", "leaderboard", "show", "compare", "report", "ui"),
    "Finish": ("best", "predict", "export", "score"),
    "Maintain": ("doctor", "sync", "clean", "rm"),
}
"""The commands of `sweep --help`, by heading."""


class Commands(TyperGroup):
    """Commands listed by section; their usage errors read like all other errors."""

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
    """A command whose help names arguments as people write them, and ends with examples, one per line."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(usage(one) for one in self.get_params(ctx) if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        params: list[Any] = list(self.get_params(ctx))
        if arguments := [(usage(one), one.help or "") for one in params if _is_argument(one)]:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        records = (one.get_help_record(ctx) for one in params if not _is_argument(one))
        with formatter.section("Options"):
            formatter.write_dl([*filter(None, records)])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  of typer
        if self.epilog:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in self.epilog.splitlines()))


def usage(param: Any) -> str:
    """Return an argument as people write it: in brackets if it may be left out, with dots if there may be several."""
    name = argument_name(param) + ("..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"


def argument_name(param: Any) -> str:
    """Return the name of an argument in help and documents."""
    found = str(param.metavar or param.name.upper())
    return found if "/" in found else found.strip("[].")


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        raise _usage(error) from None


def _usage(error: Any) -> UserError:
    """Turn an error of typer into ours."""
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
    """Return what to write instead of an unknown option: the key of that name, or a known habit of other tools."""
    from sweeper.space import hints

    key = option.lstrip("-").replace("-", "_")
    if key == "seed":
        return "--set search.seed=1 for the sampler, --set train.seed=1 for the training"
    found = hints.places(key)
    return hints.HABITS.get(key) or (f"--set {found[0]}=VALUE" if found else "")
