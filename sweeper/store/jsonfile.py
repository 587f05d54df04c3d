"""Our own files read as what they should be; one that somebody has changed, or a disk, is named and not believed."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sweeper.errors import EnvironmentFault

LARGEST = 64 << 20  # bytes; ours are thousands of times smaller
Read = TypeVar("Read")


def read(path: Path, kind: type[Read]) -> Read | None:
    """What the JSON file at `path` holds, as a `kind`; None where there is none. Raises EnvironmentFault."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    if len(content) > LARGEST:
        raise _damaged(path, f"more than {LARGEST >> 20} MiB")
    return parsed(content, kind, str(path))


def parsed(content: bytes, kind: type[Read], where: str) -> Read:
    """The JSON text as a `kind`; `where` it stands is named in the EnvironmentFault."""
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
        f"this file is damaged, or of another version of sweep: {why}",
        where=str(where),
        help="restore it from a copy, or move the folder it lies in away",
    )
