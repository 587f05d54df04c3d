"""A tiny data set of drawn pictures, and where real ones may be."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.data_config import DataConfig

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
SHARED = Path(__file__).parents[3] / "shared"


def draw_photos(root: Path, *, train: int = 48, val: int = 24, test: int = 12) -> DataConfig:
    """A table of 40 x 48 pictures with two categories: the colour of a square, and whether it lies high or low."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            colour, place = list(COLOURS)[number % 3], ("high", "low")[number // 3 % 2]
            pixels = rng.integers(90, 160, (48, 40, 3), dtype=np.uint8)
            top = 4 if place == "high" else 26
            pixels[top : top + 18, 10:30] = np.clip(
                np.array(COLOURS[colour]) + rng.integers(-20, 20, (18, 20, 3)), 0, 255
            )
            path = f"{split}{number:03d}.png"
            Image.fromarray(pixels).save(root / path)
            rows.append([path, split, colour, place])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "colour", "place"], *rows])
    return DataConfig(layout="table", root=str(root), size=32)
