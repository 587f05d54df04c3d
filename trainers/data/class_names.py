"""Class names: their order, and those that may be two spellings of one."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from trainers.data.table import Category, Row, counted
from trainers.data_config import DataConfig
from trainers.support.errors import Fault
from trainers.support.files import form

WHOLE = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")  # 3, and the 3.0 that a spreadsheet turns it into
SHORTEST, LONGEST = 4, 60  # characters of names in which one letter may be a typo


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names in alphabetical order, or in numerical order if all are whole numbers: 2 before 10."""
    known = sorted(set(names))
    numbers = [WHOLE.fullmatch(name) for name in known]
    if not all(numbers):
        return tuple(known)
    return tuple(name for _, name in sorted((int(found[1]), found[0]) for found in numbers if found))


def alike(categories: Sequence[Category], rows: Iterable[Row], config: DataConfig) -> list[Fault]:
    """Return a note for each class that may be a misspelt one, with the images of both, or a missing answer."""
    counts, notes = counted(rows, categories), []
    for c, category in enumerate(categories):
        images = {name: counts[c, k] for k, name in enumerate(category.classes)}
        listed = (config.classes or {}).get(category.name, ())
        for name in (name for name in images if _absent(name) and name not in listed):
            what = f"{_shown(name)} is read as a class ({images[name]} image{'s' * (images[name] != 1)})"
            key = f"if it means unknown, write data: {{missing: [{json.dumps(name, ensure_ascii=False)}]}}"
            help = key if config.is_tabular else "a missing label? remove these images"
            notes.append(Fault(config.root, f"{what}, in {category.name!r}", help))
        for name, other, how in (*_same_but_for_form(images), *_one_letter_apart(images)):
            what = f"{_shown(name)} ({images[name]} image{'s' * (images[name] != 1)}) differs from"
            what += f" {_shown(other)} ({images[other]}) only in {how}"
            notes.append(Fault(config.root, f"{what}, in {category.name!r}", "the same class? spell them alike"))
    return notes


def _absent(name: str) -> bool:
    return name.strip().lower() in ABSENT


def _shown(name: str) -> str:
    """Return the name in quotes, with an escape for each character that is not the plain one it looks like."""
    return repr(name) if form(name) == name else ascii(name)


# ----------------------------------------------------------------------------- case, blanks, Unicode form
def _seen(name: str) -> str:
    return "".join(c for c in name if unicodedata.category(c) != "Cf")


def _number(name: str) -> str:
    found = WHOLE.fullmatch(name)
    return str(int(found[1])) if found else name


WAYS: dict[str, Callable[[str], str]] = {
    "blanks": lambda name: " ".join(name.split()),
    "case": str.casefold,
    "Unicode form": lambda name: unicodedata.normalize("NFKC", name),
    "invisible characters": _seen,
    "the way a number is written": _number,
}
ABSENT = {"nan", "na", "n/a", "#n/a", "<na>", "null", "none", "unknown", "?", "-", "--"}


def _same(name: str, ways: Iterable[str] = WAYS) -> str:
    for way in ways:
        name = WAYS[way](name)
    return name


def _same_but_for_form(images: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield each name, the most common name that differs only in form, and the ways in which they differ."""
    groups: dict[str, list[str]] = {}
    for name in images:
        groups.setdefault(_same(name), []).append(name)
    for group in groups.values():
        first, *others = sorted(group, key=lambda name: -images[name])
        for other in others:
            yield other, first, _how(other, first)


def _how(one: str, other: str) -> str:
    """Return the fewest ways of simplifying two names that make them equal."""
    for count in range(1, len(WAYS)):
        for ways in combinations(WAYS, count):
            if _same(one, ways) == _same(other, ways):
                return " and ".join(ways)
    return " and ".join(WAYS)


# ------------------------------------------------------------------------------------------- one letter
def _one_letter_apart(images: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield names of one image that may be typos of a name of several: a letter added, dropped, changed or swapped.

    Names are looked up with one letter removed, so that the time grows with the letters, not with the pairs of names.
    """
    plain = {name: same for name in images if SHORTEST <= len(same := _same(name)) <= LONGEST}
    common: dict[str, list[str]] = {}
    for name, same in plain.items():
        for part in _parts(same) if images[name] > 1 else ():
            common.setdefault(part, []).append(name)
    for name, same in plain.items():
        parts = _parts(same) if images[name] == 1 else ()
        near = {other for part in parts for other in common.get(part, ()) if _slip(same, plain[other])}
        if near:
            yield name, min(near, key=lambda other: (-images[other], other)), "one letter"


def _parts(name: str) -> set[str]:
    """Return the name, and every form of it with one letter removed."""
    return {name, *(name[:k] + name[k + 1 :] for k in range(len(name)))}


def _after_shared(a: str, b: str) -> tuple[str, str]:
    """Return both names without their common prefix."""
    same = next((k for k, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    return a[same:], b[same:]


def _slip(a: str, b: str) -> bool:
    """True if two names differ by one letter, or by two swapped ones; a differing digit is not a typo."""
    a, b = _after_shared(a, b)
    a, b = _after_shared(a[::-1], b[::-1])
    if any(c.isdigit() for c in a + b):
        return False
    return max(len(a), len(b)) == 1 or (len(a) == 2 and a == b[::-1])
