"""A seeded, stratified split where a data set names none."""

from pathlib import Path

import pytest
from datasets import challenge_set, put

from trainers.config import DataConfig
from trainers.data import layouts
from trainers.data.rows import Table


def table(root: Path, **settings: str) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="table", **settings))


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    lines = [f"{k:03d}.jpg,{'rare' if k < 5 else 'often'},{'odd' if k % 3 else 'even'}" for k in range(100)]
    put(tmp_path, "labels.csv", "\n".join(["path,kind,parity", *lines]))
    return tmp_path


def test_without_a_split_each_class_gives_its_share_to_val(unsplit: Path):
    val = [row.labels for row in table(unsplit).split("val")]
    assert len(val) == pytest.approx(20, abs=1)
    assert sum(labels[0] == 1 for labels in val) == 1
    assert sum(labels[1] == 0 for labels in val) == pytest.approx(7, abs=1)


def test_the_held_out_images_depend_on_the_seed_and_not_on_the_order(unsplit: Path):
    first = {row.path for row in table(unsplit).split("val")}
    assert {row.path for row in table(unsplit, split_seed="1").split("val")} != first
    header, *lines = (unsplit / "labels.csv").read_text().split("\n")
    put(unsplit, "labels.csv", "\n".join([header, *reversed(lines)]))
    assert {row.path for row in table(unsplit).split("val")} == first


def test_the_held_out_images_are_the_same_on_every_machine(unsplit: Path):
    assert sorted(row.path for row in table(unsplit, val_share="0.05").split("val")) == [
        "042.jpg",
        "070.jpg",
        "076.jpg",
        "091.jpg",
        "096.jpg",
    ]


def test_a_class_of_one_image_stays_in_train(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,kind\na.jpg,x\nb.jpg,y\nc.jpg,y\nd.jpg,y\n")
    assert "a.jpg" in [row.path for row in table(tmp_path, val_share="0.9").split("train")]


def test_even_a_small_share_of_few_images_holds_one_out(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,kind\na.jpg,x\nb.jpg,y\n")
    assert len(table(tmp_path, val_share="0.01").split("val")) == 1


def test_a_data_set_with_train_but_no_val_gets_one_from_train(tmp_path: Path):
    challenge = challenge_set(tmp_path)
    (challenge / "split/val.txt").unlink()
    found = layouts.read(DataConfig(root=str(challenge)))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [1, 1, 1]
