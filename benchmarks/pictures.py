"""The images of the benchmarks: JPEGs of 300 x 300 pixels with one garment each, drawn into a folder."""

import csv
import itertools
from pathlib import Path

import numpy as np

from trainers.data.challenge import FASHION
from trainers.data.demo_images import Traits, picture
from trainers.data_config import DataConfig

SIDE = 300
CATEGORIES = {name: classes for classes, name in FASHION.items()}
ASKED = ("sleeve", "length")


def draw(root: Path, *, train: int, val: int, size: int, side: int = SIDE) -> DataConfig:
    """Draw a table of images of side x side, balanced over the classes of two categories, to be decoded at `size`."""
    rng, rows = np.random.default_rng(0), []
    (root / "images").mkdir(parents=True)
    answers = itertools.cycle(itertools.product(*(range(len(CATEGORIES[name])) for name in ASKED)))
    for number, split in enumerate(["train"] * train + ["val"] * val):
        asked = dict(zip(ASKED, next(answers), strict=True))
        traits = Traits(*(asked.get(name, int(rng.integers(len(CATEGORIES[name])))) for name in Traits._fields))
        path = f"images/{number:05d}.jpg"
        picture(traits, (side, side), rng)[0].save(root / path, quality=88)
        rows.append([path, split, *(CATEGORIES[name][asked[name]] for name in ASKED)])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", *ASKED], *rows])
    return DataConfig(layout="table", root=str(root), size=size)
