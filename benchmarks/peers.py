"""The shared parts of the peers of equal_hours.py: their arguments, the table of images, and the file of answers.

Nothing from `sweep` is imported here, because a peer may run in its own environment.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Given:
    """The task of a peer: a data set, weights, hours, and the file for its answers."""

    root: Path
    weights: Path
    backbone: str
    arguments: dict[str, Any]
    size: int
    hours: float
    seed: int
    workers: int
    out: Path


@dataclass(frozen=True)
class Rows:
    """The images of a split: their paths, their names in the table, and their labels [N, K]."""

    paths: list[Path]
    names: list[str]
    labels: list[list[int]]


@dataclass(frozen=True)
class Table:
    """The table labels.csv: path, split, and one column per category, with classes in alphabetical order."""

    root: Path
    categories: list[str]
    classes: list[list[str]]
    lines: list[dict[str, str]]

    def split(self, *names: str) -> Rows:
        mine = [line for line in self.lines if line["split"] in names]
        found = [
            [each.index(line[name]) for name, each in zip(self.categories, self.classes, strict=True)]
            for line in mine
        ]
        return Rows([self.root / line["path"] for line in mine], [line["path"] for line in mine], found)


def arguments(description: str) -> Given:
    ask = argparse.ArgumentParser(description=description)
    ask.add_argument("--root", type=Path, required=True)
    ask.add_argument("--weights", type=Path, required=True)
    ask.add_argument("--backbone", default="mobilenetv2_100")
    ask.add_argument("--arguments", type=json.loads, default={"pad_type": "same"}, help="of timm.create_model")
    ask.add_argument("--size", type=int, default=160)
    ask.add_argument("--hours", type=float, required=True)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--workers", type=int, default=2, help="processes that load images")
    ask.add_argument("--out", type=Path, required=True)
    return Given(**vars(ask.parse_args()))


def read(root: Path) -> Table:
    with (root / "labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    categories = [name for name in lines[0] if name not in ("path", "split")]
    return Table(root, categories, [sorted({line[name] for line in lines}) for name in categories], lines)


def write(out: Path, table: Table, rows: Rows, answers: Sequence[Sequence[int]] | np.ndarray) -> None:
    """Write the answers [N, K] in the format of `sweep`'s predictions.csv: path, and the class of each category."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *table.categories])
        for name, chosen in zip(rows.names, answers, strict=True):
            writer.writerow([name, *(each[int(k)] for each, k in zip(table.classes, chosen, strict=True))])
