"""Safe text for a terminal or a page: control characters from elsewhere are shown, not executed."""

import unicodedata

KEPT = "\n\t"
HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, other line ends
TURNING = "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))  # change the direction of text
LONGEST = 60  # characters of a value in a message


def visible(text: str) -> str:
    """Return `text` with an escape, such as \\x1b, for every character that controls a terminal or is invisible."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _steers(c) else c for c in text)


def on_one_line(text: str) -> str:
    """Return the same with line ends and tabs escaped too: for names and paths."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def brief(text: str) -> str:
    """Return the start of a long text, on one line."""
    one = on_one_line(text)
    return one if len(one) <= LONGEST else one[: LONGEST - 3] + "..."


def _steers(character: str) -> bool:
    return character not in KEPT and (unicodedata.category(character) in HIDDEN or character in TURNING)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
