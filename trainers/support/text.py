"""Text of whoever's making as a terminal or a page may have it: what would steer it is shown, not done."""

import unicodedata

KEPT = "\n\t"
HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of characters, other line ends
TURNING = "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))  # the direction of what follows
LONGEST = 60  # characters of a value in a message


def visible(text: str) -> str:
    """`text` with an escape, such as \\x1b, for every character that steers a terminal or cannot be seen."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _steers(c) else c for c in text)


def on_one_line(text: str) -> str:
    """The same, line ends and tabs as escapes as well: for names and paths."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def brief(text: str) -> str:
    """The beginning of a long text, on one line."""
    one = on_one_line(text)
    return one if len(one) <= LONGEST else one[: LONGEST - 3] + "..."


def _steers(character: str) -> bool:
    return character not in KEPT and (unicodedata.category(character) in HIDDEN or character in TURNING)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
