"""Read a cell of a table, as answers or as a flag."""

import json
import math
import re
from contextlib import suppress
from typing import Any

BRACKETS = ("[]", "()", "{}")
# an item of a list, as Python, JSON or a database writes it
ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^,'"\s][^,'"]*)""")
NONE = "none"  # no class at all, like an empty list in brackets
YES, NO = ("1", "true", "yes"), ("0", "false", "no")
FLAGS = dict.fromkeys(YES, 1) | dict.fromkeys(NO, 0)


def answers(cell: str, separator: str) -> list[str]:
    """Return the answers in a cell such as cotton|silk, or ['cotton', 'silk'], where `separator` does not matter."""
    if cell[:1] + cell[-1:] in BRACKETS:
        found = _strings(cell) or [a or b or c.strip() for a, b, c in ITEM.findall(cell[1:-1])]
    else:
        found = [part.strip() for part in cell.split(separator)]
    return list(dict.fromkeys(filter(None, found)))


def _strings(cell: str) -> list[str]:
    """Return the items of a JSON list of strings; empty for anything else."""
    with suppress(ValueError, RecursionError):
        found = json.loads(cell)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return [one.strip() for one in found]
    return []


def written(value: Any) -> str:
    """Return a value as a cell of a CSV file would hold it; blank for None and NaN, JSON for a list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps([written(one) for one in value], ensure_ascii=False)
    return str(value).strip()


def flag(cell: str) -> int | None:
    """Return 1 or 0 for a true or false cell, however it is written; -1 for -1; None for anything else."""
    plain = cell.lower()
    if re.fullmatch(r"-?[0-9]\.0*", plain):  # a whole number as pandas writes it beside blanks
        plain = plain.partition(".")[0]
    return -1 if plain == "-1" else FLAGS.get(plain)


def is_minus_one(cell: str) -> bool:
    """True if a cell is -1, which often means that the answer is unknown."""
    return flag(cell) == -1
