"""The progress of a run within its epoch, for display."""

from typing import NamedTuple


class Position(NamedTuple):
    """The batches of a pass that are done, or sent to the device, and their total."""

    split: str  # train, or val during evaluation
    done: int
    total: int


class Cursor:
    """The current position of a run. The run sets it and other threads may read it, without any waiting."""

    at: Position | None = None  # between epochs, and before the first batch
