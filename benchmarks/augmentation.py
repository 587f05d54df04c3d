"""Measure the cost per image of an augmentation from an extension file, compared with a DataLoader of two workers.

    python benchmarks/augmentation.py [--quick]

There are three augmentations: none, one in plain numpy and, if it is installed, albumentations' rotation, colours and
holes. Images of 256 pixels become inputs of 224. Our lane starts from the decoded images, with two threads. A
DataLoader with two persistent workers reads the same decoded images and applies the same augmentation, then
torchvision's crop and flip. CPU time includes the workers. The exit code is 1 if our batches with two threads differ
from those with one.
"""

import importlib.util
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in workers: spinning threads stall each other

import numpy as np
import rounds
import torch
from feed import CROP, EYE, MEAN, STD, raw
from pictures import draw
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from trainers import extensions
from trainers.config import Augment
from trainers.extensions import ExtensionFile
from trainers.loading.batches import Data, in_order
from trainers.loading.loader import AugmentationSource, Batch, Loader

SIZE, SIDE, BATCH, IMAGES = 224, 256, 64, 256
NUMPY = """
import numpy as np

def speckle(image, generator, strength: float = 0.1):
    mask = generator.random(image.shape[:2]) < strength
    image[mask] = generator.integers(0, 256, (int(mask.sum()), 3), dtype=np.uint8)
    return image

augmentations = {"speckle": speckle}
"""
ALBUMENTATIONS = """
import albumentations as A

augmentations = {
    "pipeline": A.Compose(
        [A.Rotate(limit=15), A.RandomBrightnessContrast(), A.HueSaturationValue(), A.CoarseDropout()]
    )
}
"""
PLAIN = "none"


class Decoded(Dataset[torch.Tensor]):
    """The decoded images, each augmented when it is requested."""

    def __init__(self, data: Data, name: str) -> None:
        self.images, self.name = raw(data.cache.images), name
        self.finish = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIZE, scale=CROP["random_resized_crop"]["scale"], antialias=True),
                transforms.RandomHorizontalFlip(),
                transforms.ConvertImageDtype(torch.float32),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, number: int) -> torch.Tensor:
        image = np.array(self.images[number])
        if self.name != PLAIN:
            change = extensions.needed("augmentations", self.name).value
            called = self.name == "pipeline"
            image = change(image=image)["image"] if called else change(image, np.random.default_rng())
        finished: torch.Tensor = self.finish(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
        return finished


def ours(data: Data, name: str) -> None:
    """Pass once over the images by our CPU path."""
    for _ in batches(data, name):
        pass


def batches(data: Data, name: str) -> Iterator[Batch]:
    feed = Loader(data, SIZE, EYE, hosted=True)
    config = Augment(**CROP, **({} if name == PLAIN else {name: {}}))
    source = AugmentationSource(config, np.random.default_rng(0), np.zeros(len(data.table.rows), dtype=bool))
    return feed.training(in_order(np.arange(IMAGES), BATCH), source)


def theirs(loader: DataLoader[torch.Tensor]) -> None:
    for _ in loader:
        pass


def cpu_of(pids: list[int]) -> float:
    """Return the CPU seconds of this process and of the given running processes."""
    ticks = os.sysconf("SC_CLK_TCK")
    own = resource.getrusage(resource.RUSAGE_SELF)
    others = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return own.ru_utime + own.ru_stime + sum(int(part[11]) + int(part[12]) for part in others) / ticks


def timed(work: Callable[[], None], workers: Callable[[], list[int]], figures: list[float]) -> float:
    """Return the milliseconds per image by the clock, and append those of CPU time to `figures`."""
    before, began = cpu_of(workers()), time.perf_counter()
    work()
    took = time.perf_counter() - began
    figures.append((cpu_of(workers()) - before) * 1000 / IMAGES)
    return took * 1000 / IMAGES


def gate(data: Data, names: list[str]) -> bool:
    """Return True if two threads give the same batches as one."""
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append([batch.images.clone() for name in names for batch in batches(data, name)])
    return all(map(torch.equal, *found))


def main() -> int:
    given = rounds.arguments(__doc__ or "").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Data.open(draw(Path(folder) / "images", train=IMAGES, val=0, size=SIDE), Path(folder) / "cache")
        names = [PLAIN, *used(Path(folder))]
        lanes: dict[str, rounds.Lane] = {}
        cpu: dict[str, list[float]] = {}
        for name in names:
            loader = DataLoader(Decoded(data, name), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
            before = set(multiprocessing.active_children())
            theirs(loader)  # starts the workers before OpenCV has threads in this process, which a fork would stop
            pids = [worker.pid for worker in set(multiprocessing.active_children()) - before]
            for lane, work, whose in (
                ("ours", partial(ours, data, name), []),
                ("DataLoader", partial(theirs, loader), pids),
            ):
                figures = cpu[f"{name}: {lane}"] = []
                lanes[f"{name}: {lane}"] = partial(timed, work, partial(list, whose), figures)
        sound = gate(data, names)
        found = rounds.interleave(lanes, 4 if given.quick else 10)
    print(rounds.hardware(), "\n")
    headers = ["augmentation", "path", "ms per image", "least", "CPU ms per image", "over the DataLoader's"]
    print(rounds.table(headers, [line(lane, found, cpu) for lane in found]), "\n")
    print(f"Gate, two threads give the same batches as one: {'passed' if sound else 'FAILED'}")
    return int(not sound)


def used(folder: Path) -> list[str]:
    """Load the extension files, and return the names of their augmentations."""
    texts = [NUMPY] + [ALBUMENTATIONS] * (importlib.util.find_spec("albumentations") is not None)
    files = [folder / f"file{number}.py" for number in range(len(texts))]
    for path, text in zip(files, texts, strict=True):
        path.write_text(text)
    extensions.use([ExtensionFile.read(path) for path in files])
    return extensions.names("augmentations")


def line(lane: str, found: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[object]:
    name, path = lane.split(": ")
    first = float(np.median(found[lane][1:]))
    share = rounds.ratio(found[lane][1:], found[f"{name}: DataLoader"][1:])
    return [name, path, first, min(found[lane][1:]), float(np.median(cpu[lane][1:])), share]


if __name__ == "__main__":
    sys.exit(main())
