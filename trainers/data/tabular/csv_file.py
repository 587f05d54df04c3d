"""A CSV file as people have it: encoding and separator are detected, and reported if they are unusual."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from trainers.data.table import Remarks
from trainers.support.errors import Fault, folded

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with BOM"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # starts with the mark of UTF-16
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
SAMPLE = 50  # lines from which the separator is detected
DECLARED = re.compile(r"sep=(.)\s")  # a first line for Excel
QUOTES = 'inside a quoted cell, " is written ""'
BREAK = "\n"  # in a cell that must be one line: a quote left open has swallowed the next lines
Record = tuple[str, list[str]]
"""The line where a record starts ("labels.csv:3"), and its cells."""


@dataclass(frozen=True)
class Sheet:
    """The header, and every record with as many cells; `whole` unless what follows could not be read.

    `name` is the file, or several; `head` the location of the header, `tall` those of records that span several
    lines, `splits` the split that the file of each record is for, `pandas` the call that opens the file.
    `declared` means that every column is known to be a category, so that none is doubted.
    """

    name: str
    head: str
    header: list[str]
    records: list[Record]
    tall: set[str]
    whole: bool
    pandas: str
    splits: list[str] | None = None
    declared: bool = False
    separator: str = ","
    _columns: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, Counter[str]] = field(default_factory=dict)

    def column(self, name: str) -> list[str]:
        """Return the cells under `name`, in order."""
        if name not in self._columns:
            at = self.header.index(name)
            self._columns[name] = [cells[at] for _, cells in self.records]
        return self._columns[name]

    def counts(self, name: str) -> Counter[str]:
        """Count how often each cell under `name` occurs."""
        if name not in self._counts:
            self._counts[name] = Counter(self.column(name))
        return self._counts[name]


def encoding_of(content: bytes) -> tuple[str, str]:
    """Return the encoding that the byte order mark of a text names, and its name for users; UTF-8 without one."""
    return next(((code, words) for mark, code, words in MARKS if content.startswith(mark)), ("utf-8", ""))


def parsed(name: str, content: bytes, columns: Collection[str], remarks: Remarks) -> Sheet:
    """Parse the CSV file `name`, which holds `content`, without blank lines. `columns` are some that it may have."""
    encoding, said = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.split("\r\n|\r|\n", error.object[: error.start].decode(encoding)))
        help = "save the file as UTF-8, in Excel as 'CSV UTF-8'; or use iconv -f windows-1252 -t utf-8"
        remarks.faults.append(Fault(f"{name}:{line}", f"not {said or 'UTF-8'} text", help))
        return Sheet(name, f"{name}:1", [], [], set(), whole=False, pandas="")
    if 4 * text[:400].count("\0") > len(text[:400]):
        remarks.faults.append(
            Fault(f"{name}:1", "UTF-16 text without a byte order mark (BOM)", "save the file as UTF-8")
        )
        return Sheet(name, f"{name}:1", [], [], set(), whole=False, pandas="")
    separator = _separator(text, columns)
    unusual = [SEPARATORS.get(separator, repr(separator))] * (separator != ",") + [said] * bool(said)
    unusual += ["Windows line endings"] * ("\r\n" in text[:4096])
    if unusual:
        remarks.notes.append(Fault(name, f"read as: {', '.join(unusual)}"))
    return _sheet(name, text, separator, remarks)


def _separator(text: str, columns: Collection[str]) -> str:
    """Return the separator that gives the header one of `columns`, or else most lines the width of the header."""
    if declared := DECLARED.match(text):
        return declared[1]
    wanted = {name.lower() for name in columns}
    lines = text[: 1 << 16].splitlines(keepends=True)[:SAMPLE]

    def fit(separator: str) -> tuple[bool, int, int]:
        found = [record for record in csv.reader(lines, delimiter=separator, skipinitialspace=True) if any(record)]
        header = [cell.strip().lower() for cell in found[0]] if found else []
        alike = sum(len(record) == len(header) for record in found) * (len(header) > 1)
        return not wanted.isdisjoint(header), alike, len(header)

    return max(SEPARATORS, key=fit)  # the first of equals wins


def _sheet(name: str, text: str, separator: str, remarks: Remarks) -> Sheet:
    before = len(remarks.faults)
    found = _records(name, io.StringIO(text, newline=""), separator, remarks.faults)
    if DECLARED.match(text):
        next(found)
    _, _, header = next(found, (0, 0, []))
    records: list[Record] = []
    tall: set[str] = set()
    wrong: list[tuple[str, Fault]] = []
    for first, last, cells in found:
        if len(cells) == len(header):
            where = f"{name}:{first}"
            records.append((where, cells))
            if last > first:
                tall.add(where)
        else:
            what = f"{len(cells)} column{'s' * (len(cells) != 1)}, but the header has {len(header)}"
            help = f"the row runs to line {last}: is a quote left open?" if last > first else ""
            wrong.append((what, Fault(f"{name}:{first}", what, help)))
    whole = len(remarks.faults) == before
    remarks.faults.extend(folded(wrong))
    pandas = f"pandas.read_csv({name!r}{f', sep={separator!r}' * (separator != ',')})"
    return Sheet(name, f"{name}:1", header, records, tall, whole, pandas, separator=separator)


def _records(
    name: str, lines: Iterable[str], separator: str, faults: list[Fault]
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the first line, the last line and the cells of each record that is not blank."""
    pending: list[str] = []  # the lines of the record that is being read

    def fed() -> Iterator[str]:
        for line in lines:
            pending.append(line)
            yield line

    reader = csv.reader(fed(), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for record in reader:
            if any(record):
                yield reader.line_num - len(pending) + 1, reader.line_num, [cell.strip() for cell in record]
            pending.clear()
    except csv.Error as error:
        faults.append(_torn(name, reader.line_num - len(pending) + 1, pending, str(error)))


def _torn(name: str, first: int, lines: list[str], error: str) -> Fault:
    """Return the fault in the quotes of a record that starts at line `first`, and its line."""
    if "expected after" in error:  # the first quote of the last line closed a cell opened long before
        lines = lines[:-1]
        if not lines:
            return Fault(f"{name}:{first}", "a cell continues after its closing quote", QUOTES)
    opened, inside = first, False
    for number, line in enumerate(lines, first):
        for _ in range(line.count('"')):
            inside = not inside
            opened = number if inside else opened
    return Fault(f"{name}:{opened}", "a quote is opened here but never closed", QUOTES)
