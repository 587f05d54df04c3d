"""What a cell of a table says: the answers in it, or a flag."""

import json
import math
import re
from contextlib import suppress
from typing import Any

BRACKETS = ("[]", "()", "{}")
ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^,'"\s][^,'"]*)""")  # of a list as Python, JSON or a database writes it
NONE = "none"  # no class at all, as a list in brackets that is empty
YES, NO = ("1", "true", "yes"), ("0", "false", "no")
FLAGS = dict.fromkeys(YES, 1) | dict.fromkeys(NO, 0)


def answers(cell: str, separator: str) -> list[str]:
    """The answers in a cell such as cotton|silk, or ['cotton', 'silk'], in which `separator` plays no role."""
    if cell[:1] + cell[-1:] in BRACKETS:
        found = _strings(cell) or [a or b or c.strip() for a, b, c in ITEM.findall(cell[1:-1])]
    else:
        found = [part.strip() for part in cell.split(separator)]
    return list(dict.fromkeys(filter(None, found)))


def _strings(cell: str) -> list[str]:
    """What a list of strings in JSON holds; nothing of any other."""
    with suppress(ValueError, RecursionError):
        found = json.loads(cell)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return [one.strip() for one in found]
    return []


def written(value: Any) -> str:
    """A value as a cell of a CSV file would hold it; blank for None and NaN, JSON for a list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps([written(one) for one in value], ensure_ascii=False)
    return str(value).strip()


def flag(cell: str) -> int | None:
    """1 or 0 for a cell that is true or false, however that is written; -1 for -1; None for all else."""
    plain = cell.lower()
    if re.fullmatch(r"-?[0-9]\.0*", plain):  # a whole number as pandas writes it beside blanks
        plain = plain.partition(".")[0]
    return -1 if plain == "-1" else FLAGS.get(plain)


def is_minus_one(cell: str) -> bool:
    """Whether a cell is -1, which often means that nobody knows."""
    return flag(cell) == -1
