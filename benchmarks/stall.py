"""How much of its time a device waits for images.

    python benchmarks/stall.py [--quick]

The device is simulated: it takes 1,000 or 3,000 images a second and leaves the processor alone meanwhile, as a GPU
does. Ours gathers, draws and hands over what a GPU then changes; a DataLoader with two persistent workers decodes
and changes each image. Its start and its wait for the first batch do not count, ours do. Exit code 1 where a batch of
ours does not hold the rows it was asked for.
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
FEW, MANY = 256, 4096  # images on disk, which a DataLoader passes over once, and images of a pass of ours
OURS, THEIRS = "ours", "DataLoader, two workers"
NOTHING = "nothing to load"


class Files(Dataset[torch.Tensor]):
    """Each image decoded and changed when it is asked for."""

    def __init__(self, data: Data) -> None:
        self.paths = [data.table.root / row.path for row in data.table.rows]
        self.transform = by_torchvision(SIZE)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[number]).convert("RGB"))


def waited(batches: Callable[[], Iterable[object]], rate: int, first: bool) -> float:
    """The share of one pass that a device of this rate waits, for the `first` batch too or after it."""
    began, worked = time.perf_counter(), 0.0
    for number, _ in enumerate(batches()):
        start = time.perf_counter()
        if number == 0 and not first:
            began = start
        time.sleep(BATCH / rate)  # the device's work; what it oversleeps is lost, as that of no loader at all shows
        worked += BATCH / rate
    return 1 - worked / (time.perf_counter() - began)


def ours(data: Data, chunks: list[np.ndarray]) -> Iterable[RawBatch]:
    feed = Loader(data, SIZE, EYE, hosted=False)
    drawing = AugmentationSource(FULL, np.random.default_rng(0), np.zeros(len(data.table.rows), dtype=bool))
    return feed.raw(chunks, drawing)


def gate(data: Data, chunks: list[np.ndarray]) -> bool:
    """Every batch holds its rows, and no two images of it are changed alike."""
    images = shared(raw(data.cache.images))
    for rows, batch in zip(chunks, ours(data, chunks), strict=True):
        windows = None if batch.how is None else batch.how.affine
        alike = windows is None or len(torch.unique(windows, dim=0)) < len(rows)
        if alike or not torch.equal(batch.images, images[torch.from_numpy(rows)]):
            return False
    return True


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    torch.set_num_threads(2)  # with one, our side thread would be none
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
    headers = ["images/s", "path", "time lost, median", "least", "most", "metric", ""]
    print(rounds.table(headers, (line(*one, found) for one in found.items())), "\n")
    print(f"Gate, rows and parameters of our batches (resized crop): {'passed' if sound else 'FAILED'}")
    return int(not sound)


def line(lane: str, values: list[float], found: dict[str, list[float]]) -> list[object]:
    """What a path loses; ours is judged by what it loses beyond a device that has nothing to wait for."""
    rate, name = lane.split(" ", 1)
    beyond = [ours - none for ours, none in zip(values, found[f"{rate} {NOTHING}"], strict=True)]
    middle = float(np.median(values))
    metric = (f"< {GOAL:.0%} beyond", rounds.verdict(float(np.median(beyond)), GOAL)) if name == OURS else ("", "")
    return [rate, name, f"{middle:.1%}", f"{min(values):.1%}", f"{max(values):.1%}", *metric]


if __name__ == "__main__":
    sys.exit(main())
