"""Image paths in a table: from a column or a pattern of columns, and made relative where possible."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trainers.data.table import Remarks, Row
from trainers.data.validation import DRIVE, homes
from trainers.support.errors import Fault

FIELD = re.compile(r"\{([^{}]+?)(?::0(\d+)d?)?\}")


def fields(path: str, header: Sequence[str]) -> list[str]:
    """Return the columns that `data.path` names: itself, or those in its braces."""
    return [path] if path in header else [found[1] for found in FIELD.finditer(path)] or [path]


def reader(path: str, header: Sequence[str]) -> Callable[[list[str]], str]:
    """Return a function that makes a path from a record's cells; it is blank if a field of a pattern is."""
    if path in header:
        at = header.index(path)
        return lambda cells: cells[at]
    literal, *rest = FIELD.split(path)  # text, name, width, text, name, width, text ...
    parts = [(header.index(name), int(width or 0), text) for name, width, text in zip(*[iter(rest)] * 3, strict=True)]

    def made(cells: list[str]) -> str:
        if not all(cells[at] for at, _, _ in parts):
            return ""
        return literal + "".join(cells[at].zfill(width) + text for at, width, text in parts)

    return made


def relative(root: Path, name: str, rows: list[Row], remarks: Remarks) -> list[Row]:
    """Return the rows with / between folders and without `root` in front of their paths; note how many changed."""
    backslashes = absolute = 0
    example = ""
    here = homes(root)
    for k, row in enumerate(rows):
        path = row.path
        if "\\" in path and not DRIVE.match(path) and not os.path.lexists(f"{root}/{path}"):
            backslashes += 1
            path = path.replace("\\", "/")
        if path.startswith("/") and (home := next((home for home in here if path.startswith(home)), "")):
            absolute += 1
            path = path[len(home) :]
        if path != row.path:
            example = example or f"{row.path!r} is read as {path!r}"
            rows[k] = replace(row, path=path)
    said = [f"{count} {what}" for count, what in ((absolute, "absolute"), (backslashes, "with backslashes")) if count]
    if said:
        remarks.notes.append(Fault(name, f"paths are made relative ({', '.join(said)}): {example}"))
    return rows
