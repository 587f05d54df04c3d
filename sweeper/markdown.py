"""Text of whoever's making in Markdown, which may hold HTML: it is shown as it is written, and does nothing."""

import re

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
