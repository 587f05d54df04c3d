"""Measure the CPU time per image on the way to a network, by path.

    python benchmarks/feed.py [--quick]

One thread turns JPEGs of 300 x 300 pixels into inputs of 224 and 64. Our path starts from the decoded images, which
all trials share. The others decode each time. A second table compares a cache in which no random crop is enlarged
with one of 1.14 times the network's input: originals of 448 x 448 become inputs of 112, 160 and 224 pixels. The exit
code is 1 if our images differ from Pillow's.
"""

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rounds
import timm.data
import torch
from numpy.typing import NDArray
from pictures import SIDE, draw
from PIL import Image
from torchvision import transforms

from trainers.config import Augment
from trainers.data.cache import wanted_side
from trainers.data.decoded_files import Images, JpegImages
from trainers.loading import cpu_transforms
from trainers.loading import transforms as augmentation
from trainers.loading.batches import Data
from trainers.loading.image_store import gather, shared
from trainers.loading.image_store import level as level_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EYE = cpu_transforms.InputFormat(torch.device("cpu"), torch.tensor(MEAN), torch.tensor(STD), torch.channels_last)
CROP = {"random_resized_crop": {"scale": (0.35, 1.0)}}
COLOUR = {"color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}}
FULL = Augment(**CROP, **COLOUR, rotation=10)
BATCH = 64
LEAST = 40.0  # dB, for the gate
THEIRS = "torchvision, a JPEG each time"


def raw(images: Images) -> NDArray[np.uint8]:
    """Return the images, which must be kept as raw pixels. Raise TypeError if they are JPEGs."""
    if isinstance(images, JpegImages):
        raise TypeError("the cache holds JPEGs, not raw pixels")
    return images


class Paths:
    """The paths of one batch to inputs of one size."""

    def __init__(self, data: Data, size: int) -> None:
        self.data, self.size = data, size
        self.images = level_of(data.cache, size)
        self.level, self.room = shared(raw(self.images)), cpu_transforms.BatchBuffers()
        self.rows = np.random.default_rng(0).permutation(len(data.table.rows))[:BATCH]
        self.files = [data.table.root / data.table.rows[row].path for row in self.rows]

    def decoding(self, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        torch.stack([transform(Image.open(path).convert("RGB")) for path in self.files])

    def draw(self, config: Augment, seed: int = 0) -> augmentation.Draw:
        shapes = self.data.cache.sizes[self.rows]
        return augmentation.draw(config, shapes, np.random.default_rng(seed), None, self.images.shape[1])

    def hosted(self, config: Augment) -> torch.Tensor:
        return cpu_transforms.apply(self.level, self.rows, self.draw(config), self.size, EYE, self.room)[0]

    def device(self, config: Augment) -> torch.Tensor:
        images = gather(self.images, self.rows).permute(0, 3, 1, 2)
        return augmentation.apply(images, self.draw(config), self.size, EYE.mean, EYE.std)[0]

    def looks(self) -> dict[str, Callable[[], object]]:
        """Return the paths that depend on the size of the cache."""
        whole = (0, 0, self.images.shape[1], self.images.shape[1], False)
        return {
            "gather alone": lambda: gather(self.images, self.rows),
            "training: crop, flip": lambda: self.hosted(Augment(**CROP)),
            "training: crop, flip, rotation": lambda: self.hosted(Augment(**CROP, rotation=10)),
            "training: the GPU path, on the CPU": lambda: self.device(Augment(**CROP)),
            "evaluation": lambda: cpu_transforms.look(self.level, self.rows, whole, self.size, EYE, self.room),
        }

    def lanes(self) -> dict[str, Callable[[], object]]:
        return {
            THEIRS: lambda: self.decoding(by_torchvision(self.size)),
            "timm, a JPEG each time": lambda: self.decoding(timm.data.create_transform(self.size, is_training=True)),
            "ours: gather alone": lambda: gather(self.images, self.rows),
            "ours: crop, flip": lambda: self.hosted(Augment(**CROP)),
            "ours: crop, flip, colour": lambda: self.hosted(Augment(**CROP, **COLOUR)),
            "ours: crop, flip, colour, rotation": lambda: self.hosted(FULL),
            "ours: the GPU path, on the CPU": lambda: self.device(FULL),
        }


def by_torchvision(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Return the full recipe as torchvision transforms, as a Dataset would use them."""
    whole: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.35, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(10, transforms.InterpolationMode.BILINEAR),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return whole


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of two normalised images, in dB."""
    return -10 * math.log10(max(float((((a - b) * EYE.std[:, None, None]) ** 2).mean()), 1e-12))


def gate(paths: Paths) -> list[tuple[str, float]]:
    """Return the name of each comparison, and the median PSNR over the images, in dB."""
    upright, turned = Augment(**CROP, horizontal_flip=0), Augment(random_shift=0.125, rotation=10)
    ours, how = paths.hosted(upright).clone(), paths.draw(upright)
    found = [
        ("our CPU path, Pillow on the original", [psnr(*pair) for pair in zip(ours, pillow(paths, how), strict=True)])
    ]
    for name, config in (("upright", upright), ("turned", turned)):
        pairs = zip(paths.hosted(config), paths.device(config), strict=True)
        found.append((f"our CPU path, our GPU path, {name}", [psnr(*pair) for pair in pairs]))
    return [(name, float(np.median(values))) for name, values in found]


def pillow(paths: Paths, how: augmentation.Draw) -> list[torch.Tensor]:
    """Return the same windows, cut from the files by Pillow."""
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    made = []
    if how.affine is None:
        raise ValueError("this draw has no windows")
    for path, affine in zip(paths.files, how.affine.double().numpy(), strict=True):
        half, centre = np.diag(affine[:, :2]), affine[:, 2]
        box = np.clip(np.concatenate([1 + centre - half, 1 + centre + half]) * SIDE / 2, 0, SIDE)
        whole = Image.open(path).convert("RGB")
        made.append(finish(whole.resize((paths.size,) * 2, Image.Resampling.BILINEAR, box=tuple(box.tolist()))))
    return made


def per_image(work: Callable[[], object]) -> rounds.Lane:
    """Return a lane that measures CPU ms per image of a batch."""
    return lambda: rounds.cpu(work) * 1000 / BATCH


def rows_of(paths: Paths, count: int) -> list[list[object]]:
    """Return a line per path: CPU ms per image, the ratio to torchvision's, and whether the target is met."""
    lanes = {name: per_image(work) for name, work in paths.lanes().items()}
    rounds.interleave(lanes, 1)  # warm
    found = rounds.interleave(lanes, count)
    lines: list[list[object]] = []
    for name, values in found.items():
        share = rounds.ratio(values, found[THEIRS], found[THEIRS])
        metric, verdict = "", ""
        if "gather" in name:
            metric, verdict = "<= 0.1 ms", rounds.verdict(float(np.median(values)), 0.1)
        elif name == "ours: crop, flip, colour, rotation":
            metric, verdict = "<= 0.5 x", rounds.verdict(share.median, 0.5)
        middle = float(np.median(values))
        lines.append([paths.size, name, middle, min(values), 1000 / middle, share, share.dropped, metric, verdict])
    return lines


def by_cache_size(folder: Path, count: int) -> list[list[object]]:
    """Return a line per input size and path: CPU ms per image at both cache sizes, and their ratio by round."""
    lines: list[list[object]] = []
    for size in (112, 160, 224):
        sides = [wanted_side(size, window) for window in (1.0, Augment(**CROP).smallest_window)]
        root = folder / f"original-{size}"
        config = draw(root, train=2 * BATCH, val=1, size=sides[0], side=448)
        before, after = (
            Paths(Data.open(config.model_copy(update={"size": side}), folder / "cache"), size) for side in sides
        )
        lanes = {}
        for which, paths in (("before", before), ("after", after)):
            for name, work in paths.looks().items():
                lanes[f"{name}, {which}"] = per_image(work)
        rounds.interleave(lanes, 1)  # warm
        found = rounds.interleave(lanes, count)
        for name in after.looks():
            old, new = found[f"{name}, before"], found[f"{name}, after"]
            middles = [float(np.median(values)) for values in (old, new)]
            lines.append([size, "{} -> {}".format(*sides), name, *middles, rounds.ratio(new, old)])
    return lines


def main() -> int:
    ask = rounds.arguments(__doc__ or "")
    given = ask.parse_args()
    torch.set_num_threads(1)
    lines: list[list[object]] = []
    gates: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size, side in ((224, 256), (64, 96)):
            root = Path(folder) / str(size)
            data = Data.open(draw(root, train=2 * BATCH, val=1, size=side), Path(folder) / "cache")
            paths = Paths(data, size)
            lines += rows_of(paths, 5 if given.quick else 15)
            gates += [
                [size, name, f"{value:.1f}", rounds.verdict(value, LEAST, at_least=True)]
                for name, value in gate(paths)
            ]
        by_size = by_cache_size(Path(folder), 5 if given.quick else 15)
    print(rounds.hardware(), "\n")
    headers = ["to", "path", "CPU ms per image", "least", "images/s", "over torchvision", "dropped", "target", ""]
    print(rounds.table(headers, lines), "\n")
    headers = ["to", "cache", "path", "CPU ms per image, 1.14 x", "without enlarging", "ratio"]
    print(rounds.table(headers, by_size), "\n")
    print(rounds.table(["to", "same boxes", "median PSNR, dB", f">= {LEAST:.0f} dB"], gates))
    return int(any(line[-1] == "missed" for line in gates))


if __name__ == "__main__":
    sys.exit(main())
