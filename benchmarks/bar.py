"""Measure the cost of the progress bar: an epoch that reports its batches to a coordinator, over one that does not.

    python benchmarks/bar.py [--quick] [--device cuda]

Both lanes are `TrainingRun.fit` and `evaluate` of `trainers.train`, on very small batches. With the bar, a
worker's `Connection` reads the cursor four times per second and sends changes to a reader. Without it, the cursor
ignores its positions, and no thread runs beside the training.
The exit code is 1 if the median ratio is above 1.02.
"""

import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import rounds
import torch
from pictures import draw

from sweeper.worker.process import Connection
from sweeper.worker.protocol import LineReader
from trainers.config import Recipe
from trainers.loading.batches import Data
from trainers.support.position import Cursor, Position
from trainers.train import TrainingRun

METRIC = 1.02
IMAGES, BATCH, SIDE = 1600, 16, 64


class Forgetful(Cursor):
    """A cursor that ignores every position."""

    def __setattr__(self, name: str, value: Position | None) -> None:
        pass


def watched(cursor_of: Callable[[Cursor], None]) -> list[bytes]:
    """Connect a worker's connection to a cursor, and return the growing list of lines that its coordinator reads."""
    ours, theirs = socket.socketpair()
    connection, lines, received = Connection(theirs), LineReader(ours), []
    cursor_of(connection.cursor)

    def read() -> None:
        while found := lines.read():
            received.extend(found)

    threading.Thread(target=read, daemon=True).start()
    return received


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    count, images = (6, IMAGES // 4) if given.quick else (20, IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        config = draw(Path(folder) / "images", train=images, val=images // 8, size=SIDE)
        data = Data.open(config, Path(folder) / "cache")
        train = {"backbone": "test_resnet", "pretrained": False, "image_size": SIDE, "batch_size": BATCH}
        recipe = Recipe(data=config, train={**train, "epochs": count + 1, "schedule": "constant"})
        runs = {
            name: TrainingRun(recipe, data, ("train",), torch.device(given.device), Path(folder) / name)
            for name in ("with", "without")
        }
        runs["without"].cursor = runs["without"].lens.cursor = Forgetful()

        def put(cursor: Cursor) -> None:
            runs["with"].cursor = runs["with"].lens.cursor = cursor

        received, epochs = watched(put), {name: iter(range(count + 1)) for name in runs}
        cpu: dict[str, list[float]] = {name: [] for name in runs}

        def epoch(name: str) -> float:
            def work() -> None:
                runs[name].fit(next(epochs[name]))
                runs[name].evaluate()

            return rounds.wall(lambda: cpu[name].append(rounds.cpu(work)))

        lanes = {name: lambda name=name: epoch(name) for name in runs}
        rounds.interleave(lanes, 1)  # warm
        wall = rounds.interleave(lanes, count)
    found = rounds.ratio(wall["with"], wall["without"], wall["without"])
    work = rounds.ratio(cpu["with"][1:], cpu["without"][1:], wall["without"])
    print(rounds.hardware(given.device), "\n")
    headers = ["batches per epoch", "reported", "with / without", "dropped", "CPU seconds", "target", ""]
    steps = images // BATCH
    row = [steps, len(received), found, found.dropped, work, f"<= {METRIC}", rounds.verdict(found.median, METRIC)]
    print(rounds.table(headers, [row]))
    return int(found.median > METRIC)


if __name__ == "__main__":
    sys.exit(main())
