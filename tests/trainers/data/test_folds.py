"""Folds of train and val: disjoint, complete, stratified, seeded, groups whole; and what they are too many for."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.splitting import folds, judge_folds, judged_on, most_folds, pooled, training_sizes, with_val
from trainers.data.table import MISSING, Category, Row, Table, classes_of, spans
from trainers.data_config import DataConfig

KINDS = (Category("kind", ("a", "b", "c")), Category("tags", ("x", "y"), multi=True))
Place = tuple[int, int]


@st.composite
def data_sets(draw: st.DrawFn, groups: int = 0) -> list[Row]:
    """Rows of all splits, with answers of several kinds that may be missing, and with groups or without."""
    flags = st.one_of(st.just((MISSING,) * 2), st.tuples(*[st.integers(0, 1)] * 2))
    answers = st.one_of(st.none(), *[st.tuples(st.integers(-1, 2), flags)] * 5)
    found = draw(st.lists(st.tuples(st.sampled_from(["train", "train", "val", "test"]), answers), max_size=150))
    return [
        Row(f"{k}.jpg", split, None, labels and (labels[0], *labels[1]), "", group=_group(draw, groups))
        for k, (split, labels) in enumerate(found)
    ]


def _group(draw: st.DrawFn, groups: int) -> str | None:
    name = draw(st.integers(0, groups))
    return f"g{name}" if name else None


def made(rows: list[Row], count: int = 5, seed: int = 0) -> list[int | None]:
    return folds(rows, KINDS, count=count, seed=seed)


def shown(rows: list[Row]) -> Counter[Place]:
    """How many of the rows have each class."""
    return Counter(
        (k, c)
        for row in rows
        for k, span in enumerate(spans(KINDS))
        for c in classes_of((row.labels or (MISSING,) * 3)[span.labels], span.category)
    )


counts, seeds = st.integers(2, 7), st.integers(0, 9)


# ------------------------------------------------------------------------------------------------- what always holds
@settings(deadline=None)
@given(data_sets(groups=8), counts, seeds)
def test_each_labelled_image_of_train_and_val_is_in_one_fold_and_no_other_image_is(
    rows: list[Row], count: int, seed: int
):
    found = made(rows, count, seed)
    assert len(found) == len(rows)
    for row, number in zip(rows, found, strict=True):
        judged = row.split != "test" and row.labels is not None
        assert (number in range(1, count + 1)) if judged else number is None


@settings(deadline=None)
@given(data_sets(groups=8), counts, seeds, st.randoms(use_true_random=False))
def test_groups_are_whole_and_order_does_not_matter(rows: list[Row], count: int, seed: int, random: Random):
    first = {row.path: number for row, number in zip(rows, made(rows, count, seed), strict=True)}
    parts = {(row.group, first[row.path]) for row in rows if row.group and first[row.path]}
    assert len(parts) == len({group for group, _ in parts})
    random.shuffle(rows)
    assert {row.path: number for row, number in zip(rows, made(rows, count, seed), strict=True)} == first


@settings(deadline=None)
@given(data_sets(), counts, seeds)
def test_folds_are_alike_in_size_and_in_every_class(rows: list[Row], count: int, seed: int):
    found = made(rows, count, seed)
    pool = [row for row, number in zip(rows, found, strict=True) if number]
    if len(pool) < 10 * count:
        return
    parts = [[row for row, number in zip(rows, found, strict=True) if number == n + 1] for n in range(count)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    whole = shown(pool)
    for part in parts:
        mine = shown(part)
        assert all(abs(mine[at] - size / count) <= 3 for at, size in whole.items() if size > 4 * count)


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(2, 8))
def test_a_class_of_as_many_images_as_folds_has_one_in_each(seed: int, count: int):
    rows = [Row(f"{k}.jpg", "train", None, (0 if k < count else 1 + k % 2, 0, 0), "") for k in range(20 * count)]
    found = made(rows, count, seed)
    assert sorted(number for number in found[:count] if number) == list(range(1, count + 1))


def test_the_folds_depend_on_the_seed():
    rows = [Row(f"{k}.jpg", "train", None, (k % 3, 0, 1), "") for k in range(60)]
    assert made(rows, seed=1) != made(rows, seed=0) == made(rows, seed=0)


def test_the_folds_are_the_same_on_every_machine():
    rows = [Row(f"{k:02d}.jpg", "train", None, (k % 3, k % 2, 0), "") for k in range(30)]
    assert "".join(map(str, made(rows, 3))) == "333123332211211321123113122232"


# ------------------------------------------------------------------------------------------------- tables of folds
def table(rows: list[Row]) -> Table:
    return Table(Path("photos"), KINDS, tuple(rows))


def test_each_fold_is_val_once_and_train_otherwise():
    rows = [Row(f"{k}.jpg", ("train", "val", "test")[k % 3], None, (k % 3, 1, 0), "") for k in range(60)]
    whole, numbers = table(rows), made(rows, 4)
    vals = [with_val(whole, numbers, number) for number in range(1, 5)]
    judged = sorted(path for one in vals for path in one.indices("val"))
    assert judged == whole.indices("train", "val") == pooled(whole).indices("val")
    for one in vals:
        assert one.indices("train", "val") == whole.indices("train", "val")
        assert one.split("test") == whole.split("test")


def test_an_image_without_any_answer_is_trained_on_and_judges_nothing():
    rows = [Row(f"{k}.jpg", "val", None, (k % 3, 1, 0), "") for k in range(12)]
    whole = table([*rows, Row("bare.jpg", "val", None, None, "")])
    numbers = made(list(whole.rows), 3)
    assert [with_val(whole, numbers, number).rows[-1].split for number in (1, 2, 3)] == ["train"] * 3
    assert pooled(whole).rows[-1].split == "train"


def test_without_folds_val_is_what_trials_are_judged_on():
    whole = table([Row(f"{k}.jpg", ("train", "val")[k % 2], None, (0, 1, 0), "") for k in range(10)])
    assert judged_on(whole, None) is whole
    assert training_sizes(whole, None) == (5, 5)
    assert training_sizes(whole, 5) == (8, 2)


# ------------------------------------------------------------------------------------------------- too many folds
CONFIG = DataConfig(layout="table", root="photos")


def of_kinds(*sizes: int) -> list[Row]:
    labels = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    return [Row(f"{k}.jpg", "train", None, (kind, k % 2, 1), "") for k, kind in enumerate(labels)]


def test_a_class_of_fewer_images_than_folds_is_refused_with_what_to_write():
    rows = of_kinds(30, 30, 3)
    assert judge_folds(table(rows), CONFIG, 3) == []
    (fault,) = judge_folds(table(rows), CONFIG, 5)
    assert fault.what == "'c' of kind has 3 images in train and val, but search.folds needs one in each of 5 folds"
    assert "write search: {folds: 3}" in fault.help
    assert "min_count: 5" in fault.help
    assert most_folds(table(rows)) == 3


def test_images_of_one_group_count_once():
    rows = [
        replace(row, group="one" if row.labels and row.labels[0] == 2 else row.path) for row in of_kinds(20, 20, 9)
    ]
    (fault,) = judge_folds(table(rows), CONFIG, 2)
    assert "'c' of kind has 1 group in train and val" in fault.what
    assert "leave out search.folds" in fault.help


@pytest.mark.parametrize("seed", range(5))
def test_a_data_set_that_is_not_refused_trains_every_class_in_every_fold(seed: int):
    random = Random(seed)
    rows = [
        Row(f"{k}.jpg", "train", None, (random.choice((0, 0, 0, 0, 1, 2)), int(random.random() < 0.1), 1), "")
        for k in range(100)
    ]
    whole = table(rows)
    count = min(5, most_folds(whole))
    assert judge_folds(whole, CONFIG, count) == []
    numbers = made(rows, count)
    for number in range(1, count + 1):
        parted = with_val(whole, numbers, number)
        assert set(shown(list(parted.split("train")))) == set(shown(rows))
