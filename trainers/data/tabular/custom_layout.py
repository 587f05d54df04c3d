"""A layout from an extension file: the rows that its function returns, as the sheet that a label file would be.

From there on they are read like the layout `table`, so that missing and multiple answers, the order of classes, rare
classes, paths and splits follow its rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from trainers import extensions
from trainers.data.table import Found, Remarks
from trainers.data.tabular import cells
from trainers.data.tabular.csv_file import BREAK, Record, Sheet
from trainers.data.tabular.rows import Causes, of_sheet, split_of
from trainers.data_config import DataConfig
from trainers.extensions import Definition
from trainers.support.errors import Fault, UserError, folded
from trainers.support.text import did_you_mean

KEYS = ("path", "split", "answers")
SHAPE = '{"path": "a.jpg", "split": "train", "answers": {"color": "red"}}'
LISTS = (list, tuple, set, frozenset, np.ndarray)
ANSWER = "a class is a name or a number; use None for an unknown answer, a list for several answers"


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Read every row of the layout `config.layout`; faults of rows go to `remarks`.

    Raises UserError, with the line in the user's file, if the function fails or returns something other than rows.
    """
    definition = extensions.needed("layouts", config.layout)
    causes: Causes = []
    reading = _Reading(definition, root, config, causes)
    rows = reading.rows(_returned(definition, root, config))
    sheet = reading.sheet(rows)
    remarks.faults.extend(folded(causes))
    if causes or not rows:
        return root, (), []
    named = {"path": "path", "split": "split", "multi": _multi(config, reading.lists)}
    return of_sheet(config.model_copy(update=named), root, sheet, remarks)


def _multi(config: DataConfig, lists: Iterable[str]) -> Any:
    """Return `data.multi` extended by the categories whose answers are lists."""
    if isinstance(config.multi, dict):
        return {**dict.fromkeys(lists, ()), **config.multi}
    return tuple(dict.fromkeys((*(config.multi or ()), *lists))) or None


# ---------------------------------------------------------------------------------------- the user's function
def _returned(definition: Definition, root: Path, config: DataConfig) -> list[Any]:
    """Return the rows that the function returns or yields."""
    made = definition.called(definition.value, root, **definition.given(config.layout_args))
    if _is_frame(made):
        return _of_frame(made)
    if made is None or isinstance(made, str | bytes | Mapping) or not isinstance(made, Iterable):
        what = "nothing" if made is None else f"{type(made).__name__} instead of rows"
        raise UserError(
            f"{definition.name} of layouts returns {what}",
            where=definition.where,
            help=f"return a list of rows, or yield them, each like {SHAPE}",
        )
    found: list[Any] = definition.called(list, made)
    return found


def _is_frame(made: Any) -> bool:
    return type(made).__module__.partition(".")[0] == "pandas" and hasattr(made, "columns")


def _of_frame(frame: Any) -> list[dict[Any, Any]]:
    """Return the rows of a pandas.DataFrame; without a column `answers`, all except path and split are categories."""
    plain = frame.astype(object)
    found: list[dict[Any, Any]] = plain.where(frame.notna(), None).to_dict("records")
    if "answers" in frame.columns:
        return found
    return [
        {key: row[key] for key in KEYS if key in row} | {"answers": {k: v for k, v in row.items() if k not in KEYS}}
        for row in found
    ]


# ------------------------------------------------------------------------------------------------------- rows
class _Row(NamedTuple):
    """A row as it was given, with its answers as cells."""

    where: str
    path: str
    split: str
    answers: dict[str, str]


@dataclass(frozen=True)
class _Reading:
    """Judges the rows of one call; faults go to `causes`.

    `lists` has, for each category with answers in lists, the lengths of those lists.
    """

    definition: Definition
    root: Path
    config: DataConfig
    causes: Causes
    lists: dict[str, set[int]] = field(default_factory=dict)

    def rows(self, given: Sequence[Any]) -> list[_Row]:
        """Return the rows without faults."""
        found = [row for number, one in enumerate(given, 1) if (row := self._row(number, one))]
        if not given:
            self.causes.append(("empty", Fault(self.definition.where, "no rows", f"yield one per image: {SHAPE}")))
        for name, lengths in self.lists.items():
            if lengths == {1}:
                what = f"every list of answers to {name!r} has one name"
                help = "give the name alone, without a list"
                self.causes.append((name, Fault(self.definition.where, what, help)))
        self._refuse_gaps(found)
        return found

    def _row(self, number: int, given: Any) -> _Row | None:
        where = f"{self.definition.where}, row {number}"
        try:
            row = _entries(given)
            path, split = self._path(row.get("path")), _split(row.get("split"))
            return _Row(where, path, split, self._answers(row.get("answers"), split))
        except _Wrong as wrong:
            self.causes.append((wrong.cause, Fault(where, wrong.what, wrong.help)))
            return None

    def _path(self, path: Any) -> str:
        if isinstance(path, PurePath):
            return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
        if not isinstance(path, str):
            raise _Wrong(
                "path", f"the path is {_kind(path)}", "a path is a string or a pathlib.Path, relative to root"
            )
        return path.strip()

    def _answers(self, given: Any, split: str) -> dict[str, str]:
        """Return the answers as cells; only a row of test may have none."""
        if given is None and split_of(self.config, split) == "test":
            return {}
        if not isinstance(given, Mapping):
            help = (
                'answers are a dictionary, such as {"color": "red", "sleeve": None}; only a row of test may have none'
            )
            raise _Wrong("answers", f"the answers are {_kind(given)}", help)
        return {str(name): self._cell(str(name), answer) for name, answer in given.items()}

    def _cell(self, name: str, answer: Any) -> str:
        if name in KEYS[:2]:
            raise _Wrong(f"name {name}", f"a category cannot be called {name!r}", "give it another name")
        if not isinstance(answer, LISTS):
            return _text(name, answer)
        ordered = sorted(answer, key=str) if isinstance(answer, set | frozenset) else list(answer)
        self.lists.setdefault(name, set()).add(len(ordered))
        return cells.written([_text(name, one, blank=False) for one in ordered])

    def _refuse_gaps(self, rows: Sequence[_Row]) -> None:
        """Add a fault for each row whose categories differ from those of the first row of train or val."""
        trained = [row for row in rows if split_of(self.config, row.split) != "test"]
        known = trained[0].answers if trained else {}
        for row in rows:
            for name in row.answers.keys() - known.keys():
                what = f"an answer to {name!r}, which {trained[0].where.rpartition(', ')[2]} does not have"
                help = (
                    did_you_mean(name, known)
                    or "every row needs the same categories; write None for an unknown answer"
                )
                self.causes.append((f"more {name}", Fault(row.where, what, help)))
        for row in trained:
            for name in known.keys() - row.answers.keys():
                help = "write None if it is unknown"
                self.causes.append((f"less {name}", Fault(row.where, f"no answer to {name!r}", help)))

    def sheet(self, rows: Sequence[_Row]) -> Sheet:
        """Return the rows as cells under a header, without a split column if no row names a split."""
        names = list(dict.fromkeys(name for row in rows for name in row.answers))
        split = ["split"] if any(row.split for row in rows) else []
        header = ["path", *split, *names]
        records: list[Record] = [
            (row.where, [row.path, *[row.split] * len(split), *(row.answers.get(name, "") for name in names)])
            for row in rows
        ]
        where = self.definition.where
        return Sheet(where, where, header, records, set(), whole=True, pandas="", declared=True)


class _Wrong(Exception):
    """The fault of one row."""

    def __init__(self, cause: str, what: str, help: str) -> None:
        super().__init__(what)
        self.cause, self.what, self.help = cause, what, help


def _entries(given: Any) -> Mapping[str, Any]:
    """Return a row as a mapping of its parts by name."""
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in KEYS]:
            help = did_you_mean(str(unknown[0]), KEYS) or f"a row has the keys {', '.join(KEYS)}"
            raise _Wrong(f"key {unknown[0]}", f"unknown key {str(unknown[0])!r}", help)
        if "path" not in given:
            raise _Wrong("no path", "no path", f"a row is like {SHAPE}")
        return given
    if isinstance(given, tuple | list) and len(given) in (2, 3):
        return dict(zip(KEYS, given, strict=False))
    raise _Wrong("row", f"the row is {_kind(given)}", f"a row is like {SHAPE}, or a tuple in that order")


def _split(given: Any) -> str:
    if given is not None and not isinstance(given, str):
        raise _Wrong("split", f"the split is {_kind(given)}", "write train, val or test, or None in every row")
    return (given or "").strip()


def _text(name: str, answer: Any, *, blank: bool = True) -> str:
    """Return an answer as a cell; raise _Wrong if it cannot be one. With `blank`, None is allowed."""
    plain = answer.item() if isinstance(answer, np.generic) else answer
    cell = cells.written(plain) if isinstance(plain, str | int | float | None) else BREAK
    if BREAK in cell or not (blank or cell):
        shown = repr(answer) if isinstance(plain, str) else _kind(answer)
        raise _Wrong(f"answer {name}", f"the answer {shown} to {name!r}", ANSWER)
    return cell


def _kind(value: Any) -> str:
    """Describe the type of a value, for a message."""
    if value is None:
        return "None"
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{size}"
