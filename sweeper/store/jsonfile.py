"""Reads our own JSON files and validates them; a damaged one is reported, not trusted."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sweeper.errors import EnvironmentFault

LARGEST = 64 << 20  # bytes; our files are thousands of times smaller
Read = TypeVar("Read")


def read(path: Path, kind: type[Read]) -> Read | None:
    """Return the contents of the JSON file at `path` as a `kind`; None if the file does not exist. Raises
    EnvironmentFault if it is damaged.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    if len(content) > LARGEST:
        raise _damaged(path, f"more than {LARGEST >> 20} MiB")
    return parsed(content, kind, str(path))


def parsed(content: bytes, kind: type[Read], where: str) -> Read:
    """Return the JSON text as a `kind`. Raises EnvironmentFault with the location `where` if it is damaged."""
    try:
        found: Read = _adapter(kind).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(where, f"{place}: {first['msg']}" if place else first["msg"]) from error
    return found


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _damaged(where: Path | str, why: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"this file is damaged, or was written by another version of sweep: {why}",
        where=str(where),
        help="restore it from a copy, or move its folder away",
    )
