"""How far a run is within its epoch, for whoever shows it."""

from typing import NamedTuple


class Position(NamedTuple):
    """Batches of a pass that are done, or given to the device, and those that it has."""

    split: str  # train, or val while it is evaluated
    done: int
    total: int


class Cursor:
    """Where a run is. The run sets it, another thread may read it: nothing is sent or waited for."""

    at: Position | None = None  # between epochs, and before the first batch
