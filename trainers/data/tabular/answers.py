"""Interpret the cells of each category: its classes, and the labels of every cell that occurs."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress

from trainers.data.table import MISSING, Category
from trainers.data.tabular import cells
from trainers.data.tabular.classes import SHOWN, Choice, Shown, some
from trainers.data.tabular.columns import Question
from trainers.data.tabular.csv_file import BREAK
from trainers.data.validation import listed, word
from trainers.support.errors import Fault
from trainers.support.text import brief

Labels = tuple[int, ...]
Parts = dict[str, tuple[str, ...]]
"""The answers in each cell."""


@dataclass(frozen=True)
class Answers:
    """A category, and for each of its columns the position, and the labels that each cell stands for."""

    category: Category
    columns: tuple[tuple[int, dict[str, Labels]], ...]


@dataclass(frozen=True)
class Column:
    """The cells of a column: how often each occurs in total, in train and in val."""

    at: int
    all: Counter[str]
    train: Counter[str]
    val: Counter[str]

    def shown(self, parts: Parts) -> dict[str, Shown]:
        """Return the classes in the cells."""
        where: dict[str, set[str]] = {}
        for cell, those in parts.items():
            for one in those:
                where.setdefault(one, set()).add(cell)
        return {one: self.of(those) for one, those in where.items()}

    def of(self, those: Iterable[str]) -> Shown:
        """Return the class that these cells show."""
        some_cells = frozenset(those)
        train, every = (sum(count[cell] for cell in some_cells) for count in (self.train, self.all))
        return Shown(train, every, self.at, some_cells)


@dataclass(frozen=True)
class Reading:
    """Reads the cells of all categories, and counts those taken for missing, and for no class at all.

    `splits` has the split of each record.
    """

    choice: Choice
    splits: Sequence[str]
    absent: dict[str, Counter[str]] = field(default_factory=dict)
    empty: dict[str, Counter[str]] = field(default_factory=dict)

    def answers(self, questions: Iterable[Question]) -> list[Answers]:
        """Return the answers of each category that has any; what speaks against one goes to the remarks."""
        kinds: dict[str, Callable[[Question], Answers | None]]
        kinds = {"one": self._one, "cells": self._cells, "flags": self._flags}
        found = [one for question in questions if (one := kinds[question.kind](question))]
        self.choice.remarks.notes.extend(self._notes())
        return found

    def _one(self, question: Question) -> Answers | None:
        column, name = self._column(question.name), question.name
        missing = self._missing(name, column)
        parts: Parts = {cell: (cell,) for cell in column.all if cell not in missing and BREAK not in cell}
        classes = self.choice.classes(name, column.shown(parts))
        code = {one: (k,) for k, one in enumerate(classes)}
        labels: dict[str, Labels] = {cell: code.get(cell, (MISSING,)) for cell in column.all}
        return Answers(Category(name, classes), ((column.at, labels),)) if classes else None

    def _cells(self, question: Question) -> Answers | None:
        column, name = self._column(question.name), question.name
        order, missing = self.choice.order(name), self._missing(name, column)
        parts: Parts = {
            cell: tuple(cells.answers(cell, self.choice.config.multi_separator))
            for cell in column.all
            if cell not in missing and BREAK not in cell
        }
        none = {cell for cell, those in parts.items() if not those or self._means_none(those, order)}
        said = none - {"[]"} if self.choice.sheet.declared else none
        self.empty[name] = Counter({cell: column.all[cell] for cell in said})
        self._refuse_mixed(name, parts, column)
        parts |= dict.fromkeys(none, ())
        self._refuse_single(name, parts)
        classes = self.choice.classes(name, column.shown(parts))
        labels = {cell: tuple([int(one in those) for one in classes]) for cell, those in parts.items()}
        unknown = (MISSING,) * len(classes)
        found = {cell: labels.get(cell, unknown) for cell in column.all}
        return Answers(Category(name, classes, multi=True), ((column.at, found),)) if classes else None

    def _means_none(self, those: Sequence[str], order: Sequence[str]) -> bool:
        return len(those) == 1 and those[0].lower() == cells.NONE and those[0] not in order

    def _refuse_mixed(self, name: str, parts: Parts, column: Column) -> None:
        """Add a fault for cells that hold answers and, beside them, the word for none or for a missing one."""
        order, words = self.choice.order(name), {cells.NONE, *self.choice.config.spellings}
        mixed = {
            cell: column.all[cell]
            for cell, those in parts.items()
            if len(those) > 1 and any(one.lower() in words and one not in order for one in those)
        }
        if mixed:
            what = (
                f"{name!r} has cells that mix answers with the word for none or for a missing answer: {some(mixed)}"
            )
            help = "write only the answers; or list every class in data.classes, including that word"
            self.choice.fault(what, help, column.at, mixed)

    def _refuse_single(self, name: str, parts: Parts) -> None:
        """Add a fault if every image has one answer, although several are declared."""
        if not parts or any(len(those) != 1 for those in parts.values()):
            return
        config = self.choice.config
        other = next((mark for mark in ";|,/+" if any(mark in cell for cell in parts)), "")
        help = f"remove it: data: {{multi: {listed(one for one in config.several if one != name)}}}"
        if other:
            cell = min(cell for cell in parts if other in cell)
            help = f"for the answers in {brief(cell)!r}, write data: {{multi_separator: {word(other)}}}"
        elif len(config.several) == 1:
            help = "remove it from data.multi"
        what = f"{name!r} is in data.multi, but each cell has one answer (separated by {config.multi_separator})"
        self.choice.fault(what, help)

    def _flags(self, question: Question) -> Answers | None:
        columns = {name: self._column(name) for name in question.columns}
        missing = {name: self._missing(f"{question.name}: {name}", column) for name, column in columns.items()}
        read = {cell: cells.flag(cell) for column in columns.values() for cell in column.all}
        if -1 in read.values() and not self.choice.missing("-1"):
            read = self._signed(question.name, read)
        labels: dict[str, dict[str, Labels]] = {}
        for name, column in columns.items():
            given = {cell: read[cell] for cell in column.all if cell not in missing[name] and BREAK not in cell}
            self._refuse_flags(
                name, {cell: column.all[cell] for cell, flag in given.items() if flag not in (0, 1)}, column
            )
            labels[name] = {cell: (flag if flag in (0, 1) else MISSING,) for cell, flag in given.items()}
            labels[name] |= {cell: (MISSING,) for cell in column.all if cell not in given}
        shown = {
            name: column.of(cell for cell, flags in labels[name].items() if flags == (1,))
            for name, column in columns.items()
        }
        classes = self.choice.classes(question.name, shown, question.columns)
        self._refuse_one_hot(question, [(columns[name].at, labels[name]) for name in question.columns])
        if others := [name for name in classes if name not in columns]:
            help = f"its columns are {', '.join(question.columns)}"
            what = f"{others[0]!r} is not a column of {question.name!r}"
            self.choice.remarks.faults.append(Fault("data.classes", what, help))
            return None
        found = tuple((columns[name].at, labels[name]) for name in classes)
        return Answers(Category(question.name, classes, multi=True), found) if found else None

    def _signed(self, name: str, read: dict[str, int | None]) -> dict[str, int | None]:
        """Return the flags of columns that hold 1 and -1, as in CelebA; -1 beside 0 stays what it is."""
        if 0 in read.values():
            return read
        help = "if -1 means unknown, write data: {missing: [-1]}"
        what = f"the columns of {name!r} hold 1 and -1: -1 is read as no"
        self.choice.remarks.notes.append(Fault(self.choice.sheet.name, what, help))
        return {cell: 0 if flag == -1 else flag for cell, flag in read.items()}

    def _refuse_flags(self, name: str, wrong: dict[str, int], column: Column) -> None:
        if wrong:
            unknown = "; if -1 means unknown, write data: {missing: [-1]}"
            help = f"flags are 0 and 1, or true and false{unknown if any(map(cells.is_minus_one, wrong)) else ''}"
            self.choice.fault(
                f"the column {name!r} has cells that are not flags: {some(wrong)}", help, column.at, wrong
            )

    def _refuse_one_hot(self, question: Question, columns: Sequence[tuple[int, dict[str, Labels]]]) -> None:
        """Add a fault if every row has exactly one flag set."""
        if not self.choice.sheet.records:
            return
        for _, record in self.choice.sheet.records:
            if sum(labels[record[at]] != (0,) for at, labels in columns) != 1:
                return
        names = ", ".join(map(repr, question.columns))
        what = f"{question.name!r} is in data.multi, but every row has exactly one flag set"
        help = f"make it a column of classes, in pandas: table[{question.name!r}] = table[[{names}]].idxmax(axis=1)"
        self.choice.fault(what, help)

    # ------------------------------------------------------------------------------------------ cells, counted
    @cached_property
    def _masks(self) -> dict[str, list[bool]]:
        """The records that are in val, and those that are neither there nor in train."""
        return {
            "val": [split == "val" for split in self.splits],
            "other": [split not in ("train", "val") for split in self.splits],
        }

    def _column(self, name: str) -> Column:
        sheet, every = self.choice.sheet, self.choice.sheet.counts(name)
        val, other = (Counter(compress(sheet.column(name), self._masks[mask])) for mask in ("val", "other"))
        return Column(sheet.header.index(name), every, every - val - other, val)

    def _missing(self, name: str, column: Column) -> set[str]:
        """Return the cells of a category that stand for a missing answer; count those of train and val."""
        order = self.choice.order(name)
        found = {cell for cell in column.all if self.choice.missing(cell) and cell not in order}
        self.absent[name] = Counter({cell: column.train[cell] + column.val[cell] for cell in found})
        return found

    def _notes(self) -> Iterator[Fault]:
        """Yield notes on what was taken for missing, and for no class at all."""
        rows, name = self._masks["other"].count(False), self.choice.sheet.name
        absent = {name: +counts for name, counts in self.absent.items() if +counts}
        if absent:
            each = [f"{name} {counts.total():,} ({some(counts)})" for name, counts in absent.items()]
            more = f" and {len(each) - SHOWN} more" if len(each) > SHOWN else ""
            what = f"missing answers among the {rows:,} rows of train and val: {', '.join(each[:SHOWN])}{more}"
            words = self.choice.config.missing is None and any(word for counts in absent.values() for word in counts)
            more = "; if such a word is a class, write data: {missing: []}" if words else ""
            yield Fault(name, what, f"the rows are kept, without these answers{more}")
        for category, counts in self.empty.items():
            if counts:
                yield Fault(name, f"read as no class at all in {category!r}: {some(counts)}")
