"""A seeded, stratified split where a data set names none."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.datasets import challenge_set, faults, put
from trainers.config import DataConfig
from trainers.data import layouts
from trainers.data.table import Row, Table, hold_out


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
    names = "026 031 054 066 074 082 087 088 097 098"
    assert sorted(row.path for row in table(unsplit, val_share="0.1").split("val")) == [
        f"{k}.jpg" for k in names.split()
    ]


def test_even_a_small_share_of_few_images_holds_one_out(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,kind\na.jpg,x\nb.jpg,y\nc.jpg,y\n")
    assert len(table(tmp_path, val_share="0.01").split("val")) == 1


def test_a_data_set_with_train_but_no_val_gets_one_from_train(tmp_path: Path):
    challenge = challenge_set(tmp_path)
    (challenge / "split/val.txt").unlink()
    put(challenge, "split/train.txt", "img/00000.jpg\nimg/00001.jpg\nimg/00002.jpg\n")
    put(challenge, "split/train_attr.txt", "5 1 2 0 2 2\n0 0 0 3 5 0\n0 0 0 3 5 0\n")
    found = layouts.read(DataConfig(root=str(challenge)))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [2, 1, 1]


# ------------------------------------------------------------------------------------------------- what always holds
def rows_of(labels: list[tuple[int, ...]]) -> list[Row]:
    return [Row(f"{k}.jpg", "train", None, answers, "") for k, answers in enumerate(labels)]


def counted(rows: list[Row], *splits: str) -> Counter[tuple[int, int]]:
    """Images of each class of each category."""
    return Counter(
        answer for row in rows if row.split in splits and row.labels is not None for answer in enumerate(row.labels)
    )


def labels(categories: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    return st.lists(st.tuples(*[st.integers(0, 7)] * categories), min_size=1, max_size=150)


any_labels = st.integers(1, 4).flatmap(labels)
shares = st.floats(0.01, 0.5)


@given(any_labels, st.floats(0.01, 0.99), st.integers(0, 9))
def test_every_class_stays_in_train(found: list[tuple[int, ...]], share: float, seed: int):
    rows = hold_out(rows_of(found), share=share, seed=seed)
    assert set(counted(rows, "train")) == set(counted(rows, "train", "val"))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), shares, st.integers(0, 9))
def test_of_one_category_each_class_and_the_whole_have_their_share_within_one_image(
    sizes: list[int], share: float, seed: int
):
    rows = hold_out(rows_of([(k,) for k, size in enumerate(sizes) for _ in range(size)]), share=share, seed=seed)
    val, movable = sum(row.split == "val" for row in rows), sum(size - 1 for size in sizes)
    assert abs(val - min(max(share * len(rows), 1), movable)) <= 1
    lonely = sum(size == 1 for size in sizes)
    for k, size in enumerate(sizes):
        assert abs(counted(rows, "val")[0, k] - share * size) <= 1 + lonely  # whose share the other classes give


@given(any_labels, shares, st.integers(0, 9))
def test_over_all_categories_val_has_its_share_and_each_class_about_its_own(
    found: list[tuple[int, ...]], share: float, seed: int
):
    rows = hold_out(rows_of(found), share=share, seed=seed)
    sizes, val = counted(rows, "train", "val"), counted(rows, "val")
    if all(size > 4 / share for size in sizes.values()):
        assert abs(sum(row.split == "val" for row in rows) - share * len(rows)) <= 0.5 + 1e-9
        assert all(abs(val[answer] - share * size) <= 2 for answer, size in sizes.items())


@given(any_labels, shares, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_no_matter(found: list[tuple[int, ...]], share: float, seed: int, random: Random):
    rows = rows_of(found)
    first = {row.path: row.split for row in hold_out(rows, share=share, seed=seed)}
    random.shuffle(rows)
    assert {row.path: row.split for row in hold_out(rows, share=share, seed=seed)} == first


@pytest.mark.parametrize(
    ("classes", "each", "share", "wanted"), [(100, 2, 0.2, 40), (50, 4, 0.1, 20), (300, 3, 0.3, 270)]
)
def test_many_small_classes_leave_val_its_share(classes: int, each: int, share: float, wanted: int):
    rows = hold_out(rows_of([(k,) for k in range(classes) for _ in range(each)]), share=share, seed=0)
    assert sum(row.split == "val" for row in rows) == wanted


def test_one_category_of_rare_classes_does_not_collapse_the_split():
    rows = hold_out(rows_of([(k // 2, k % 2, k % 5 == 0) for k in range(1000)]), share=0.2, seed=0)
    val = counted(rows, "val")
    assert val[1, 0] == val[1, 1] == 100
    assert val[2, 1] == 40
    assert max(val[0, k] for k in range(500)) == 1


# ------------------------------------------------------------------------------------------------------ too small
def listed(root: Path, *splits: str, classes: int = 2) -> None:
    lines = [f"{k}.jpg,{split},c{k % classes}" for k, split in enumerate(splits)]
    put(root, "labels.csv", "\n".join(["path,split,kind", *lines]))


def test_a_held_out_val_too_small_to_rank_trials_is_a_fault_with_figures(tmp_path: Path):
    listed(tmp_path, *["train"] * 100)
    (fault,) = faults(tmp_path, layout="table", val_share="0.04")
    assert fault.what == "val would be 4 of 100 images: one image is 25 points of accuracy"
    assert "val_share" in fault.help


def test_classes_of_one_image_leave_nothing_for_val(tmp_path: Path):
    listed(tmp_path, *["train"] * 6, classes=6)
    (fault,) = faults(tmp_path, layout="table")
    assert fault.what.startswith("no image can be held out for val")


@pytest.mark.parametrize(("val", "error"), [(1, "0.50"), (4, "0.25"), (49, "0.07")])
def test_a_given_val_of_few_images_is_noted_with_its_standard_error(tmp_path: Path, val: int, error: str):
    listed(tmp_path, *["train"] * 100, *["val"] * val)
    (note,) = layouts.scan(DataConfig(root=str(tmp_path), layout="table")).notes
    assert note.what.endswith(f"a standard error of up to {error}")


def test_a_val_of_fifty_images_is_not_noted(tmp_path: Path):
    listed(tmp_path, *["train"] * 100, *["val"] * 50)
    assert not layouts.scan(DataConfig(root=str(tmp_path), layout="table")).notes
