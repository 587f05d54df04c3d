"""Read the label files as one sheet: CSV, TSV or Parquet by their content, one file or one per split."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from trainers.data.folder_tree import unpacking
from trainers.data.table import Remarks, Split
from trainers.data.tabular import csv_file, parquet_file
from trainers.data.tabular.csv_file import Sheet
from trainers.data_config import DataConfig
from trainers.support.errors import DataError, Fault
from trainers.support.files import regular
from trainers.support.text import did_you_mean

ENDINGS = (".csv", ".tsv", ".parquet")
ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"
BOOKS = (".xlsx", ".xlsm", ".ods", ".xls")
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
NO_TABLE = "a table is a CSV, TSV or Parquet file; in pandas: .to_csv('labels.csv', index=False)"


def read(config: DataConfig, root: Path, columns: Collection[str], remarks: Remarks) -> Sheet:
    """Read what `labels` names, in `root`; `columns` are some that it may have. Raises DataError without a file."""
    if isinstance(config.labels, str):
        return _file(root, config.labels, columns, remarks)
    sheets = {split: _file(root, name, columns, remarks) for split, name in config.labels.items()}
    return _joined(sheets, remarks) if all(sheet.whole for sheet in sheets.values()) else sheets["train"]


def _file(root: Path, name: str, columns: Collection[str], remarks: Remarks) -> Sheet:
    content = _content(root, name)
    if refused := _no_table(Path(name), content):
        raise DataError([Fault(str(root / name), *refused)])
    if content.startswith(parquet_file.MAGIC):
        return parquet_file.parsed(name, content, remarks)
    return csv_file.parsed(name, content, columns, remarks)


def _content(root: Path, name: str) -> bytes:
    try:
        return regular(root / name).read_bytes()
    except OSError as error:
        near = did_you_mean(name, [p.name for p in root.glob("*") if p.suffix.lower() in ENDINGS])
        raise DataError([Fault(str(root / name), f"cannot be read: {error.strerror}", near)]) from None


def _no_table(name: Path, content: bytes) -> tuple[str, str] | None:
    """Return what a file is that holds no table, and what to do; None for any other."""
    if name.suffix.lower() in BOOKS or content.startswith(OLD_EXCEL):
        return "a spreadsheet, not a text file", "save it as 'CSV UTF-8'"
    if content.startswith((ZIP, GZIP)):
        return "an archive", unpacking(name) or "unpack it"
    if name.suffix.lower() in (".json", ".jsonl", ".pkl", ".npz", ".npy", ".xml"):
        return f"{name.suffix} is not a table format", NO_TABLE
    return None


def _joined(sheets: Mapping[Split, Sheet], remarks: Remarks) -> Sheet:
    """Return the sheets of several files as one, with the columns of train; only test may lack some of them."""
    header = sheets["train"].header
    for split, sheet in sheets.items():
        extra = [name for name in sheet.header if name and name not in header]
        for name in header if split != "test" else ():
            if name not in sheet.header:
                help = did_you_mean(name, extra) or f"{sheets['train'].name} has it; only the test file may lack it"
                remarks.faults.append(Fault(sheet.head, f"no column {name!r}", help))
        if extra:
            what = f"columns that {sheets['train'].name} lacks are left out: {', '.join(extra)}"
            remarks.notes.append(Fault(sheet.name, what))
    parts = list(sheets.values())
    records = [record for sheet in parts for record in _arranged(sheet, header)]
    splits: list[str] = [split for split, sheet in sheets.items() for _ in sheet.records]
    name, tall = ", ".join(sheet.name for sheet in parts), set[str]().union(*(sheet.tall for sheet in parts))
    first = sheets["train"]
    return Sheet(name, first.head, header, records, tall, whole=True, pandas=first.pandas, splits=splits)


def _arranged(sheet: Sheet, header: Sequence[str]) -> list[csv_file.Record]:
    """Return the records with their cells under `header`; blank if the file lacks the column."""
    if sheet.header == header:
        return sheet.records
    places = [sheet.header.index(name) if name in sheet.header else -1 for name in header]
    return [(where, ["" if at < 0 else cells[at] for at in places]) for where, cells in sheet.records]
