"""Measure the share of its time that a device waits for images.

    python benchmarks/stall.py [--quick]

The device is simulated: it processes 1,000 or 3,000 images per second and leaves the processor idle meanwhile, as a
GPU does. Our loader gathers images, draws augmentations, and hands both over for a GPU to apply. A DataLoader with
two persistent workers decodes and augments each image. Its start and the wait for its first batch do not count, but
ours do. The exit code is 1 if one of our batches does not hold the requested rows.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import rounds
import torch
from feed import EYE, FULL, by_torchvision, raw
from pictures import draw
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from trainers.loading.batches import Data, in_order
from trainers.loading.image_store import shared
from trainers.loading.loader import AugmentationSource, Loader, RawBatch

SIZE, SIDE, BATCH = 224, 256, 64
RATES = (1000, 3000)
GOAL = 0.02
FEW, MANY = 256, 4096  # images on disk (one pass of a DataLoader), and images of one pass of ours
OURS, THEIRS = "ours", "DataLoader, two workers"
NOTHING = "nothing to load"


class Files(Dataset[torch.Tensor]):
    """The images, each decoded and augmented when it is requested."""

    def __init__(self, data: Data) -> None:
        self.paths = [data.table.root / row.path for row in data.table.rows]
        self.transform = by_torchvision(SIZE)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[number]).convert("RGB"))


def waited(batches: Callable[[], Iterable[object]], rate: int, first: bool) -> float:
    """Return the share of one pass that a device of this rate waits, including the `first` batch or not."""
    began, worked = time.perf_counter(), 0.0
    for number, _ in enumerate(batches()):
        start = time.perf_counter()
        if number == 0 and not first:
            began = start
        time.sleep(BATCH / rate)  # the device's work; oversleeping is lost time, as the lane without a loader shows
        worked += BATCH / rate
    return 1 - worked / (time.perf_counter() - began)


def ours(data: Data, chunks: list[np.ndarray]) -> Iterable[RawBatch]:
    feed = Loader(data, SIZE, EYE, hosted=False)
    drawing = AugmentationSource(FULL, np.random.default_rng(0), np.zeros(len(data.table.rows), dtype=bool))
    return feed.raw(chunks, drawing)


def gate(data: Data, chunks: list[np.ndarray]) -> bool:
    """Return True if every batch holds its rows and augments no two images alike."""
    images = shared(raw(data.cache.images))
    for rows, batch in zip(chunks, ours(data, chunks), strict=True):
        windows = None if batch.how is None else batch.how.affine
        alike = windows is None or len(torch.unique(windows, dim=0)) < len(rows)
        if alike or not torch.equal(batch.images, images[torch.from_numpy(rows)]):
            return False
    return True


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    torch.set_num_threads(2)  # with one, we would have no side thread
    with tempfile.TemporaryDirectory() as folder:
        data = Data.open(draw(Path(folder) / "images", train=FEW, val=0, size=SIDE), Path(folder) / "cache")
        rng = np.random.default_rng(0)
        chunks = in_order(np.concatenate([rng.permutation(FEW) for _ in range(MANY // FEW)]), BATCH)
        loader = DataLoader(Files(data), BATCH, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)
        lanes = {}
        for rate in RATES:
            lanes[f"{rate} {NOTHING}"] = partial(waited, lambda: range(len(chunks)), rate, first=True)
            lanes[f"{rate} {OURS}"] = partial(waited, lambda: ours(data, chunks), rate, first=True)
            lanes[f"{rate} {THEIRS}"] = partial(waited, lambda: loader, rate, first=False)
        sound = gate(data, chunks[: FEW // BATCH])
        rounds.interleave(lanes, 1)  # starts the workers, reads the map
        found = rounds.interleave(lanes, 5 if given.quick else 9)
    print(rounds.hardware(), "\n")
    headers = ["images/s", "path", "time lost, median", "least", "most", "target", ""]
    print(rounds.table(headers, (line(*one, found) for one in found.items())), "\n")
    print(f"Gate, rows and parameters of our batches (resized crop): {'passed' if sound else 'FAILED'}")
    return int(not sound)


def line(lane: str, values: list[float], found: dict[str, list[float]]) -> list[object]:
    """Return a line with the loss of a path. Ours is judged by its loss beyond that of a device without a loader."""
    rate, name = lane.split(" ", 1)
    beyond = [ours - none for ours, none in zip(values, found[f"{rate} {NOTHING}"], strict=True)]
    middle = float(np.median(values))
    metric = (f"< {GOAL:.0%} beyond", rounds.verdict(float(np.median(beyond)), GOAL)) if name == OURS else ("", "")
    return [rate, name, f"{middle:.1%}", f"{min(values):.1%}", f"{max(values):.1%}", *metric]


if __name__ == "__main__":
    sys.exit(main())
