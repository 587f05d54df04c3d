"""Words for people: numbers and durations, escapes for Markdown, secrets taken out."""

import difflib
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trainers.support.errors import UserError
from trainers.support.text import brief

_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:token|secret|passw|key|sig|auth|credential)[^=&#\s]*=)[^&#\s/]+", re.IGNORECASE
)
_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # shorter values would blot out innocent text


def redacted(text: str) -> str:
    """`text` with `***` for logins and keys in addresses and for the value of every secret in the environment."""
    for value in _secrets():
        text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _LOGIN.sub("***@", text))


def refuse_secret(text: str, where: str) -> None:
    """Raise UserError for a value with a login, a key or a secret of the environment in it.

    What a recipe holds is kept with each trial and shown; blotted out there, it could not be run again.
    """
    if redacted(text) != text:
        raise UserError(
            f"a login, a key or a secret of the environment: {brief(redacted(text))}",
            where=where,
            help="take it out, for values are kept and shown; weights and data are paths of this machine",
        )


def _secrets() -> list[str]:
    """Longest first, so that one which contains another goes whole."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


_STEERS = re.compile(r"[\\`*\[\]|]")


_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # a backslash before these is not known to every reader


def plain(text: str) -> str:
    """`text` as words of a line, also in the cell of a table."""
    return _STEERS.sub(r"\\\g<0>", "".join(_HTML.get(character, character) for character in text))


def code(text: str) -> str:
    """`text` as it would be typed, between more backticks than it has in a row."""
    most = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (most + 1)
    space = " " if most else ""
    return f"{fence}{space}{text}{space}{fence}"


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """`did you mean 'gamma'?` when one of the known words is near, else an empty text."""
    near = difflib.get_close_matches(text, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def join_or(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def format_value(value: float | None, error: float | None = None) -> str:
    """A score as every command writes it, with four decimals and its standard error where that is known.

    `0.8123 ±0.0049`; one that no answer is known for has none.
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" + ("" if error is None else f" ±{error:.4f}")


def finite(value: Any) -> Any:
    """Plain values as JSON knows them: null for each number that is none, such as the accuracy without an answer."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """The two largest units: 45s, 38m, 2h05m, 1d03h."""
    rest = max(0, round(seconds))
    for i, (size, unit) in enumerate(UNITS):
        if rest >= size or size == 1:
            small = UNITS[i + 1] if size > 60 else None
            return f"{rest // size}{unit}" + (f"{rest % size // small[0]:02d}{small[1]}" if small else "")
    return "0s"


def format_bytes(count: float) -> str:
    """Bytes as a person reads them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def relative_path(path: Path) -> str:
    """A path as a person here would write it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # it lies elsewhere, or there is no current folder any more
        return str(path)
