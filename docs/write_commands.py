"""Write the options of every command into docs/reference/commands.md, between the comments that name the command."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sweeper import cli
from sweeper.cli import groups

PATH = Path(__file__).parent / "reference" / "commands.md"
BLOCK = re.compile(r"(<!-- options of ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def document(text: str) -> str:
    """Return the page with the current tables of options. Raise KeyError if a command has no place in it."""
    commands = dict(_commands(typer.main.get_command(cli.app), "sweep"))
    if missing := commands.keys() - {name for _, name, _ in BLOCK.findall(text)}:
        raise KeyError(f"{PATH.name} has no place for the options of {', '.join(sorted(missing))}")
    return BLOCK.sub(lambda found: f"{found[1]}\n{_table(commands[found[2]], found[2])}\n{found[3]}", text)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if command.params:
        yield name, command
    for word, each in getattr(command, "commands", {}).items():
        yield from _commands(each, f"{name} {word}")


def _table(command: Any, name: str) -> str:
    params = [one for one in command.params if one.name not in ("install_completion", "show_completion")]
    arguments = [one for one in params if one.param_type_name == "argument"]
    options = ["[OPTIONS]"] * (len(params) > len(arguments))
    usage = [name, *map(groups.usage, arguments), *options]
    rows = [f"| `{_escaped(_words(one))}` | {_escaped(_meaning(one))} |" for one in params]
    return "\n".join(
        ["```text", " ".join(usage), "```", "", "| argument or option | meaning |", "|---|---|", *rows, ""]
    )


def _words(param: Any) -> str:
    if param.param_type_name == "argument":
        return groups.argument_name(param)
    flag = param.is_flag or param.is_bool_flag
    value = param.metavar or "TEXT"
    return ", ".join([*param.opts, *param.secondary_opts]) + ("" if flag else f" {value}")


def _meaning(param: Any) -> str:
    default, more = param.default, []
    if param.min is not None:
        more.append(f"at least {param.min}")
    if param.max is not None:
        more.append(f"at most {param.max}")
    if default not in (None, False, ()) and param.show_default:
        more.append(f"default `{' '.join(map(str, default)) if isinstance(default, list | tuple) else default}`")
    if param.envvar:
        more.append(f"also `{param.envvar}`")
    return (param.help or "") + (f" ({', '.join(more)})" if more else "")


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


if __name__ == "__main__":
    PATH.write_text(document(PATH.read_text(encoding="utf-8")), encoding="utf-8")
