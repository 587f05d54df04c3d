"""Text for people: numbers, durations, escapes for Markdown, and secrets redacted."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.support.errors import UserError
from trainers.support.text import brief

_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:token|secret|passw|key|sig|auth|credential)[^=&#\s]*=)[^&#\s/]+", re.IGNORECASE
)
_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 6  # redacting shorter values would hit innocent text


def redacted(text: str) -> str:
    """Return `text` with `***` for logins and keys in URLs and for the value of every secret in the environment."""
    for value in _secrets():
        text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _LOGIN.sub("***@", text))


def refuse_secret(text: str, where: str) -> None:
    """Raise UserError for a value that contains a login, a key or a secret from the environment.

    Recipes are stored with each trial and shown. With the secret redacted, a recipe could not be run again.
    """
    if redacted(text) != text:
        raise UserError(
            f"a login, a key or a secret from the environment: {brief(redacted(text))}",
            where=where,
            help="remove it, because values are stored and shown; weights and data are paths on this machine",
        )


def _secrets() -> list[str]:
    """Return the secrets in the environment, longest first, so that one that contains another is redacted whole."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


_STEERS = re.compile(r"[\\`*\[\]|]")


_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # not every renderer understands a backslash before these


def plain(text: str) -> str:
    """Escape `text` for a line of Markdown, including a table cell."""
    return _STEERS.sub(r"\\\g<0>", "".join(_HTML.get(character, character) for character in text))


def code(text: str) -> str:
    """Return `text` as Markdown code, between more backticks than it has in a row."""
    most = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (most + 1)
    space = " " if most else ""
    return f"{fence}{space}{text}{space}{fence}"


def join_or(words: Sequence[str]) -> str:
    """Join words as `a, b or c`."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def join_and(words: Sequence[str]) -> str:
    """Join words as `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def format_value(value: float | None, error: float | None = None) -> str:
    """Format a score with four decimals, and with its standard error if known: `0.8123 ±0.0049`.

    A score without a value, such as an accuracy without answers, is `-`.
    """
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4f}" + ("" if error is None else f" ±{error:.4f}")


def finite(value: Any) -> Any:
    """Return plain values for JSON, with null for numbers that are not finite, such as accuracy without answers."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def counted(number: int, what: str) -> str:
    """Count things: `1 trial`, `2 trials`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Format seconds in the two largest units, rounded: 45s, 38m, 2h05m, 1d03h."""
    rest = max(0, round(seconds))
    smallest = 3600 if rest >= 86400 else 60 if rest >= 60 else 1
    rest = smallest * round(rest / smallest)
    for i, (size, unit) in enumerate(UNITS):
        if rest >= size or size == 1:
            small = UNITS[i + 1] if size > 60 else None
            return f"{rest // size}{unit}" + (f"{rest % size // small[0]:02d}{small[1]}" if small else "")
    return "0s"


def format_bytes(count: float) -> str:
    """Format bytes for people: `1.5 GB`, `20.0 MB`, `12 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def relative_path(path: Path) -> str:
    """Return a path relative to the current folder if it lies inside, else as it is."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # it lies elsewhere, or the current folder no longer exists
        return str(path)
