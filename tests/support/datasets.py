"""Small data sets on disk, for the tests that read them."""

from pathlib import Path

import pytest

from trainers.data import layouts
from trainers.data.challenge import FASHION
from trainers.data_config import DataConfig
from trainers.support.errors import DataError, Fault

LIST = "26 \nattribute_name   attribute_type\n" + "".join(
    f"{name:<20} {k}\n" for k, group in enumerate(FASHION, 1) for name in group
)


def challenge_set(root: Path) -> Path:
    """Two images to train on, one for val, one for test; no image files."""
    put(root, "split/list_attr_cloth.txt", LIST)
    put(root, "split/train.txt", "img/00000.jpg\nimg/00001.jpg\n")
    put(root, "split/train_attr.txt", "5 1 2 0 2 2\n0 0 0 3 5 0\n")
    put(root, "split/train_bbox.txt", "062 062 165 300\n001 001 010 010\n")
    put(root, "split/val.txt", "img/00002.jpg\n")
    put(root, "split/val_attr.txt", "5 1 2 3 2 2\n")
    put(root, "split/val_bbox.txt", "001 002 003 004\n")
    put(root, "split/test.txt", "img/00003.jpg\n")
    put(root, "split/test_bbox.txt", "010 010 010 010\n")
    return root


def put(root: Path, name: str, text: str | bytes = b"") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def faults(root: Path, **settings: str) -> list[Fault]:
    with pytest.raises(DataError) as caught:
        layouts.read(DataConfig(root=str(root), **settings))
    return list(caught.value.faults)
