"""Read a Parquet file as the cells that CSV would hold, with pyarrow if it is installed."""

import importlib
import io
from typing import Any

from trainers.data.table import Remarks
from trainers.data.tabular import cells
from trainers.data.tabular.csv_file import Record, Sheet
from trainers.support.errors import Fault

MAGIC = b"PAR1"
NO_CELLS = ("struct", "map", "binary", "large_binary", "fixed_size_binary")  # types that no cell can hold


def parsed(name: str, content: bytes, remarks: Remarks) -> Sheet:
    """Parse the Parquet file `name`, which holds `content`; records count from 1, and its head is the file."""
    empty = Sheet(name, name, [], [], set(), whole=False, pandas="")
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        help = "pip install pyarrow; or in pandas: pandas.read_parquet(...).to_csv('labels.csv', index=False)"
        remarks.faults.append(Fault(name, "a Parquet file, but pyarrow is not installed", help))
        return empty
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (arrow.ArrowException, OSError) as error:
        what = f"the Parquet file cannot be read: {str(error).splitlines()[0]}"
        remarks.faults.append(Fault(name, what, "write it again"))
        return empty
    left = [field.name for field in table.schema if _left_out(field)]
    if left:
        remarks.notes.append(Fault(name, f"columns without text or numbers are left out: {', '.join(left)}"))
    kept = [at for at, field in enumerate(table.schema) if not _left_out(field)]  # names may occur twice
    header = [table.schema.field(at).name.strip() for at in kept]
    columns = [[cells.written(value) for value in table[at].to_pylist()] for at in kept]
    records: list[Record] = [
        (f"{name}:{k}", list(row)) for k, row in enumerate(zip(*columns, strict=True), 1) if any(row)
    ]
    remarks.notes.append(Fault(name, "read as: Parquet"))
    tall = {where for where, row in records if any("\n" in cell for cell in row)}
    return Sheet(name, name, header, records, tall, whole=True, pandas=f"pandas.read_parquet({name!r})")


def _left_out(field: Any) -> bool:
    """True for types that no cell can hold, and for pandas' index, which is not a column of the user's."""
    return str(field.type).partition("<")[0].partition("[")[0] in NO_CELLS or field.name.startswith("__index_level_")
