"""Safe text for a terminal or a page: control characters from elsewhere are shown, not executed."""

import difflib
import unicodedata
from collections.abc import Iterable

KEPT = "\n\t"
HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, surrogates, other line ends
TURNING = "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))  # change the direction of text
LONGEST = 60  # characters of a value in a message
CLOSE = 0.6  # ratio of characters in common from which a word may have been meant
ENDING = 0.9  # factor on that ratio for the end of a word, such as accuracy in overall_accuracy


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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean 'gamma'?` if one of the known words, or the end of one, is close, else an empty string."""
    near = {one: _closeness(word, one) for one in known}
    best = max(near, key=lambda one: near[one], default="")  # the first of equally close ones
    return f"did you mean {best!r}?" if near.get(best, 0) >= CLOSE else ""


def _closeness(word: str, known: str) -> float:
    end = known.rpartition("_")[2]
    whole, last = (difflib.SequenceMatcher(None, one, word).ratio() for one in (known, end))
    return max(whole, ENDING * last)


def _steers(character: str) -> bool:
    return character not in KEPT and (unicodedata.category(character) in HIDDEN or character in TURNING)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
