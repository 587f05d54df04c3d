"""The layout `table`: label files with a column of paths, one of splits, and those of the categories."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from trainers.data import validation
from trainers.data.table import MISSING, SPLIT_NAMES, SPLITS, Category, Found, Remarks, Row, spans
from trainers.data.tabular import columns, label_files, paths, tall
from trainers.data.tabular.answers import Answers, Labels, Reading
from trainers.data.tabular.classes import Choice, some
from trainers.data.tabular.csv_file import BREAK, Record, Sheet
from trainers.data.tabular.image_lookup import located
from trainers.data.validation import word
from trainers.data_config import DataConfig
from trainers.support.errors import Fault, folded
from trainers.support.text import did_you_mean

MOST = 10  # this many bad values in a split column are refused together, not one by one
Causes = list[tuple[str, Fault]]


def read(config: DataConfig, root: Path, remarks: Remarks) -> Found:
    """Read every row of the files `labels` in `root`; faults go to `remarks`. Raises DataError without a file."""
    sheet = label_files.read(config, root, {*paths.fields(config.path, ()), columns.DEFAULT.path}, remarks)
    return of_sheet(config, root, sheet, remarks)


def of_sheet(config: DataConfig, root: Path, sheet: Sheet, remarks: Remarks) -> Found:
    """Read every row of a sheet that has already been loaded; faults go to `remarks`."""
    validation.boxes(config, remarks.faults)
    if sheet.whole and (fault := _without_paths(config, sheet)):
        remarks.faults.append(fault)
    if not set(paths.fields(config.path, sheet.header)) <= set(sheet.header):
        return root, (), []
    columns.refuse_unnamed(sheet, remarks)
    if fault := _tall(config, sheet):
        remarks.faults.append(fault)
        return root, (), []
    questions = columns.questions(config, sheet, remarks)
    causes: Causes = []
    splits = _splits(config, sheet, remarks, causes)
    choice = Choice(config, sheet, not causes and "" not in splits, remarks)
    answers = Reading(choice, splits).answers(questions)
    table = _Table(config, sheet, answers, _weights(config, sheet, splits, remarks))
    rows = [
        row for record, split in zip(sheet.records, splits, strict=True) if (row := table.row(record, split, causes))
    ]
    remarks.faults.extend(folded(causes))
    remarks.notes.extend(validation.unanswered(sheet.name, rows))
    rows = paths.relative(root, sheet.name, rows, remarks)
    return root, table.categories if sheet.whole else (), located(root, sheet.name, rows, remarks)


def _without_paths(config: DataConfig, sheet: Sheet) -> Fault | None:
    """Return a fault for path columns that are missing."""
    wanted = [name for name in paths.fields(config.path, sheet.header) if name not in sheet.header]
    if not wanted:
        return None
    if config.path == columns.DEFAULT.path:
        return Fault(sheet.head, "no column 'path'", columns.instead_of_path(sheet))
    help = did_you_mean(wanted[0], sheet.header) or f"the columns are {', '.join(filter(None, sheet.header))}"
    field = "" if wanted == [config.path] else f", a field of the pattern {config.path!r},"
    return Fault("data.path", f"no column {wanted[0]!r}{field} in {sheet.name}", help)


def _tall(config: DataConfig, sheet: Sheet) -> Fault | None:
    """Return a fault for a table with several rows per image."""
    if not sheet.whole or sheet.declared or config.path not in sheet.header:
        return None
    fixed = columns.taken(config, sheet).keys() - {config.path}
    return tall.refusal(sheet, config.path, config.ignore or (), fixed)


# ------------------------------------------------------------------------------------------------------- splits
def _splits(config: DataConfig, sheet: Sheet, remarks: Remarks, causes: Causes) -> list[str]:
    """Return the split of each record, or its value if that names none; ignore a column that is blank throughout."""
    if config.split is None or config.split not in sheet.header:
        return sheet.splits or ["train"] * len(sheet.records)
    column = sheet.column(config.split)
    blank = [where for (where, _), value in zip(sheet.records, column, strict=True) if not value]
    if len(blank) == len(column):
        if column and not sheet.splits:
            what = f"the column {config.split!r} is blank: {config.val_share:g} of train becomes val"
            remarks.notes.append(Fault(sheet.name, what))
        return sheet.splits or ["train"] * len(column)
    if blank and not sheet.splits:
        what = f"no split in {len(blank)} of {len(sheet.records)} rows, the first {blank[0]}"
        help = "fill in these cells; or leave the whole column blank, so that a share becomes val"
        remarks.faults.append(Fault(sheet.name, what, help))
    known = {value: split_of(config, value) for value in set(column)}
    found = [known[value] or value for value in column]
    if sheet.splits:
        found = [split or own for split, own in zip(found, sheet.splits, strict=True)]
        _refuse_other_splits(sheet, found, causes)
    _refuse_splits(sheet, column, known, causes)
    return found


def split_of(config: DataConfig, value: str) -> str | None:
    """Return the split that a word stands for, or None."""
    return (config.split_values or {}).get(value) or SPLIT_NAMES.get(value) or SPLIT_NAMES.get(value.lower())


def _refuse_splits(sheet: Sheet, column: Sequence[str], known: dict[str, str | None], causes: Causes) -> None:
    """Add a fault for each value that names no split, or one for all if no value does."""
    wrong = {value for value, split in known.items() if value and split is None and BREAK not in value}
    near = {value: did_you_mean(value.lower(), SPLIT_NAMES) for value in wrong}
    if wrong and not any(near.values()) and not any(known.values()):
        counts = Counter(value for value in column if value in wrong)
        help = f"say which is which: data: {{split_values: {{{columns.meaning('', counts)}}}}}"
        what = f"the split column has none of train, val and test: {some(counts)}"
        causes.append(("split", Fault(sheet.head, what, help)))
        return
    for (where, _), value in zip(sheet.records, column, strict=True) if wrong else ():
        if value in wrong:
            other = f"splits are train, val and test; or write data: {{split_values: {{{word(value)}: train}}}}"
            cause = f"split {value}" if len(wrong) < MOST else "split"
            causes.append((cause, Fault(where, f"no split {value!r}", near[value] or other)))


def _refuse_other_splits(sheet: Sheet, found: Sequence[str], causes: Causes) -> None:
    """Add faults for rows in the file of val or test that name another split; those of train may name any."""
    for (where, _), split, own in zip(sheet.records, found, sheet.splits or (), strict=True):
        if own not in ("train", split) and split in SPLITS:
            fault = Fault(where, f"{split!r} in the file that data.labels names for {own}", "keep one of the two")
            causes.append((f"{own} {split}", fault))


# ------------------------------------------------------------------------------------------------------ weights
def _weights(config: DataConfig, sheet: Sheet, splits: Sequence[str], remarks: Remarks) -> dict[str, float]:
    """Return the factor that each cell of `sample_weight` stands for; other cells are faults."""
    name = config.sample_weight
    if name is None or name not in sheet.header:
        return {}
    column = sheet.column(name)
    found = {cell: _number(cell) for cell in set(column)}
    wrong: Causes = []
    for (where, _), cell, split in zip(sheet.records, column, splits, strict=True):
        if found[cell] is None and (cell or split == "train"):
            what = (
                f"the weight {cell!r} in {name!r} is not a number of 0 or more" if cell else f"no weight in {name!r}"
            )
            wrong.append((f"weight {bool(cell)}", Fault(where, what, "use a number such as 1 or 0.5")))
    remarks.faults.extend(folded(wrong))
    if not wrong and not any(found[cell] for cell, split in zip(column, splits, strict=True) if split == "train"):
        remarks.faults.append(Fault(sheet.head, f"every weight in {name!r} is 0", "nothing would be learned"))
    return {cell: 1.0 if value is None else value for cell, value in found.items()}


def _number(cell: str) -> float | None:
    """Return a number of 0 or more, with a point or a comma; None for anything else."""
    plain = re.fullmatch(r"\+?([0-9]{1,15})?(?:[.,]([0-9]{0,15}))?(?:[eE]-?[0-9]{1,2})?", cell)
    if plain is None or not (plain[1] or plain[2]):
        return None
    return float(cell.replace(",", "."))


# --------------------------------------------------------------------------------------------------------- rows
class _Table:
    """Makes rows from records. Equal answers are read once and shared, since a table may have a million rows."""

    def __init__(
        self, config: DataConfig, sheet: Sheet, answers: Sequence[Answers], weights: dict[str, float]
    ) -> None:
        self.tall, self.weights, self.path = sheet.tall, weights, paths.reader(config.path, sheet.header)
        self.categories: tuple[Category, ...] = tuple(one.category for one in answers)
        self.columns = [column for one in answers for column in one.columns]
        self.none_set_missing, self.spellings = config.none_set_missing, config.spellings
        places = {name: at for at, name in enumerate(sheet.header)}
        keys = (config.group, config.sample_weight, config.split)
        self.group_at, self.weight_at, split = (None if key is None else places.get(key) for key in keys)
        of_path = [places[name] for name in paths.fields(config.path, sheet.header)]
        others = [at for at in (self.group_at, self.weight_at, split) if at is not None]
        self.used = [*of_path, *(at for at, _ in self.columns), *others]
        self.known: dict[Labels, Labels | None] = {}

    def row(self, record: Record, split: str, causes: Causes) -> Row | None:
        """Return one image; faults go to `causes`."""
        where, cells = record
        if where in self.tall and any(BREAK in cells[at] for at in self.used):
            causes.append(("break", Fault(where, "a cell spans several lines", "is a quote left open here?")))
            return None
        labels = self._labels(cells)
        if self.group_at is None and self.weight_at is None:
            return Row(self.path(cells), split, None, labels, where)
        group = cells[self.group_at] if self.group_at is not None else ""
        known_group = None if group.lower() in self.spellings else group
        weight = 1.0 if self.weight_at is None else self.weights[cells[self.weight_at]]
        return Row(self.path(cells), split, None, labels, where, known_group, weight)

    def _labels(self, cells: list[str]) -> Labels | None:
        """Return the labels of all categories; None if nothing is known. Equal ones are judged once."""
        labels = tuple([label for at, codes in self.columns for label in codes[cells[at]]])
        if labels not in self.known:
            self.known[labels] = self._judged(labels)
        return self.known[labels]

    def _judged(self, labels: Labels) -> Labels | None:
        if self.none_set_missing:
            for span in spans(self.categories):
                if span.category.multi and not any(labels[span.labels]):
                    unknown = (MISSING,) * span.category.width
                    labels = (*labels[: span.labels.start], *unknown, *labels[span.labels.stop :])
        return labels if any(label != MISSING for label in labels) else None
