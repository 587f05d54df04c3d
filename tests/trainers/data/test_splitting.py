"""A seeded, stratified split where a data set names none."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from tests.support.datasets import challenge_set, faults, put
from trainers.data import layouts
from trainers.data.splitting import hold_out, judge
from trainers.data.table import MISSING, Category, Remarks, Row, Table, classes_of, spans
from trainers.data_config import DataConfig


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
def single(labels: list[tuple[int, ...]]) -> tuple[Category, ...]:
    """Categories of one answer with the classes that occur."""
    widths = [max(answers) + 1 for answers in zip(*labels, strict=True)]
    return tuple(Category(f"c{k}", tuple(map(str, range(width)))) for k, width in enumerate(widths))


def held_out(labels: list[tuple[int, ...]], *, share: float, seed: int) -> list[Row]:
    return hold_out(rows_of(labels), single(labels), share=share, seed=seed)


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
    rows = held_out(found, share=share, seed=seed)
    assert set(counted(rows, "train")) == set(counted(rows, "train", "val"))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), shares, st.integers(0, 9))
def test_of_one_category_each_class_and_the_whole_have_their_share_within_one_image(
    sizes: list[int], share: float, seed: int
):
    rows = held_out([(k,) for k, size in enumerate(sizes) for _ in range(size)], share=share, seed=seed)
    val, movable = sum(row.split == "val" for row in rows), sum(size - 1 for size in sizes)
    assert abs(val - min(max(share * len(rows), 1), movable)) <= 1
    lonely = sum(size == 1 for size in sizes)
    for k, size in enumerate(sizes):
        assert abs(counted(rows, "val")[0, k] - share * size) <= 1 + lonely  # whose share the other classes give


@given(any_labels, shares, st.integers(0, 9))
def test_over_all_categories_val_has_its_share_and_each_class_about_its_own(
    found: list[tuple[int, ...]], share: float, seed: int
):
    rows = held_out(found, share=share, seed=seed)
    sizes, val = counted(rows, "train", "val"), counted(rows, "val")
    if all(size > 4 / share for size in sizes.values()):
        assert abs(sum(row.split == "val" for row in rows) - share * len(rows)) <= 0.5 + 1e-9
        assert all(abs(val[answer] - share * size) <= 2 for answer, size in sizes.items())


@given(any_labels, shares, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_no_matter(found: list[tuple[int, ...]], share: float, seed: int, random: Random):
    rows = rows_of(found)
    first = {row.path: row.split for row in hold_out(rows, single(found), share=share, seed=seed)}
    random.shuffle(rows)
    assert {row.path: row.split for row in hold_out(rows, single(found), share=share, seed=seed)} == first


@pytest.mark.parametrize(
    ("classes", "each", "share", "wanted"), [(100, 2, 0.2, 40), (50, 4, 0.1, 20), (300, 3, 0.3, 270)]
)
def test_many_small_classes_leave_val_its_share(classes: int, each: int, share: float, wanted: int):
    rows = held_out([(k,) for k in range(classes) for _ in range(each)], share=share, seed=0)
    assert sum(row.split == "val" for row in rows) == wanted


def test_one_category_of_rare_classes_does_not_collapse_the_split():
    rows = held_out([(k // 2, k % 2, int(k % 5 == 0)) for k in range(1000)], share=0.2, seed=0)
    val = counted(rows, "val")
    assert val[1, 0] == val[1, 1] == 100
    assert val[2, 1] == 40
    assert max(val[0, k] for k in range(500)) == 1


# -------------------------------------------------------------------------- missing and several answers, and groups
KINDS = (Category("kind", ("a", "b", "c")), Category("tags", ("w", "x", "y", "z"), multi=True))


def images_of(rows: Iterable[Row], *splits: str) -> Counter[tuple[int, int]]:
    """Images of each class of KINDS, counted one by one."""
    return Counter(
        (k, c)
        for row in rows
        if row.split in splits and row.labels
        for k, span in enumerate(spans(KINDS))
        for c in classes_of(row.labels[span.labels], span.category)
    )


@st.composite
def partly_known(draw: st.DrawFn, groups: int = 0) -> list[Row]:
    """Rows of KINDS where answers are missing, in that many groups or none."""
    tags = st.one_of(
        st.just((MISSING,) * 4), st.tuples(*[st.integers(0, 1)] * 4), st.tuples(*[st.integers(-1, 1)] * 4)
    )
    found = draw(st.lists(st.tuples(st.integers(-1, 2), tags), min_size=1, max_size=120))
    names = draw(st.lists(st.integers(0, groups), min_size=len(found), max_size=len(found)))
    return [
        Row(f"{k}.jpg", "train", None, (kind, *flags), "", group=f"g{name}" if name else None)
        for k, ((kind, flags), name) in enumerate(zip(found, names, strict=True))
    ]


@settings(deadline=None)
@given(partly_known(), shares, st.integers(0, 9))
def test_where_answers_are_missing_or_several_each_class_has_its_share(found: list[Row], share: float, seed: int):
    rows = hold_out(found, KINDS, share=share, seed=seed)
    sizes, val = images_of(rows, "train", "val"), images_of(rows, "val")
    assert set(images_of(rows, "train")) == set(sizes)
    if len(rows) > 10 / share:
        assert abs(sum(row.split == "val" for row in rows) - share * len(rows)) <= 0.5 + 1e-9
        assert all(abs(val[at] - share * size) <= 2 for at, size in sizes.items() if size > 4 / share)


@settings(deadline=None)
@given(partly_known(groups=12), shares, st.integers(0, 9), st.randoms(use_true_random=False))
def test_no_group_is_split_and_every_class_stays_in_train(found: list[Row], share: float, seed: int, random: Random):
    rows = hold_out(found, KINDS, share=share, seed=seed)
    assert not {row.group for row in rows if row.split == "val"} & {
        row.group for row in rows if row.split == "train"
    } - {None}
    assert set(images_of(rows, "train")) == set(images_of(rows, "train", "val"))
    random.shuffle(found)
    again = hold_out(found, KINDS, share=share, seed=seed)
    assert {row.path: row.split for row in again} == {row.path: row.split for row in rows}


def in_groups(sizes: Iterable[int], classes: int, seed: int) -> tuple[list[Row], tuple[Category, ...]]:
    """Rows in groups of these sizes, each mostly of its own class in two categories; all answers known."""
    random, labels = Random(seed), list[tuple[int, ...]]()
    names = [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)]
    own = {name: (random.randrange(classes), random.randrange(classes)) for name in names}
    labels = [tuple(c if random.random() < 0.8 else random.randrange(classes) for c in own[name]) for name in names]
    rows = [replace(row, group=name) for row, name in zip(rows_of(labels), names, strict=True)]
    return rows, single(labels)


@pytest.mark.parametrize("seed", range(3))
def test_of_small_groups_val_and_each_class_have_their_share(seed: int):
    random = Random(seed)
    rows, categories = in_groups([random.randint(1, 5) for _ in range(400)], 5, seed)
    rows = hold_out(rows, categories, share=0.2, seed=seed)
    sizes, val = counted(rows, "train", "val"), counted(rows, "val")
    assert abs(sum(row.split == "val" for row in rows) - 0.2 * len(rows)) <= 1
    assert max(abs(val[at] - 0.2 * size) for at, size in sizes.items()) <= 3


@pytest.mark.parametrize("seed", range(3))
def test_large_groups_are_stratified_better_than_those_of_one_category(seed: int):
    """scikit-learn's StratifiedGroupKFold knows one category: the first, and then each pair of classes as one."""
    random = Random(seed)
    rows, categories = in_groups([random.randint(5, 60) for _ in range(100)], 5, seed)
    sizes = counted(rows, "train")

    def off(val: Iterable[Row]) -> float:
        counts = Counter(answer for row in val for answer in enumerate(row.labels or ()))
        return sum((counts[at] - 0.2 * size) ** 2 for at, size in sizes.items())

    ours = off(row for row in hold_out(rows, categories, share=0.2, seed=seed) if row.split == "val")
    groups = [row.group for row in rows]
    for answers in ([row.labels[0] for row in rows if row.labels], [str(row.labels) for row in rows]):
        for _, places in StratifiedGroupKFold(5).split(groups, answers, groups):
            assert ours < off(rows[place] for place in places)


def test_an_unlabelled_image_goes_with_its_group():
    labels: list[tuple[int, ...] | None] = [(0,), (0,), (1,), (1,), None, None]
    rows = [Row(f"{k}.jpg", "train", None, known, "", group=f"g{k % 2}") for k, known in enumerate(labels)]
    rows = hold_out(rows, (Category("kind", ("a", "b")),), share=0.3, seed=0)
    assert len({(row.group, row.split) for row in rows}) == 2
    assert Counter(row.split for row in rows) == {"train": 3, "val": 3}


def judged(rows: list[Row], *, held_out: bool = False, val_share: float = 0.2) -> Remarks:
    remarks = Remarks()
    config = DataConfig(root="set", layout="table", val_share=val_share)
    judge(rows, (Category("kind", ("a", "b")),), config, remarks, held_out=held_out)
    return remarks


def test_a_group_in_two_splits_is_a_fault_with_counts_and_what_to_do():
    names = [
        ("g0", "train"),
        ("g0", "train"),
        ("g1", "train"),
        ("g1", "val"),
        ("g2", "val"),
        ("g2", "test"),
        (None, "val"),
    ]
    rows = [Row(f"{k}.jpg", split, None, (0,), f"labels.csv:{k + 2}", group=g) for k, (g, split) in enumerate(names)]
    (fault,) = judged(rows).faults
    assert fault.where == "labels.csv:5"
    assert fault.what == "'g1' is in train and val; 2 of 3 groups are in several splits, with 4 images"
    assert "leave out data.group" in fault.help


def test_groups_that_leave_val_empty_are_a_fault_with_their_number():
    rows = [Row(f"{k}.jpg", "train", None, (k % 2,), "", group=f"g{k % 2}") for k in range(100)]
    (fault,) = judged(hold_out(rows, (Category("kind", ("a", "b")),), share=0.2, seed=0), held_out=True).faults
    assert fault.what == "no group can be held out for val: each of the 2 is the only one with some class"


def test_groups_that_leave_val_too_small_are_a_fault_with_figures():
    groups = ["small"] * 4 + ["large"] * 96
    rows = [Row(f"{k}.jpg", "train", None, (k % 2,), "", group=group) for k, group in enumerate(groups)]
    (fault,) = judged(
        [replace(row, split="val") if row.group == "small" else row for row in rows], held_out=True
    ).faults
    assert fault.what == "val would have 4 of 100 images: one image is 25 points of accuracy"


def test_a_val_that_groups_keep_from_its_share_is_noted():
    rows = [Row(f"{k}.jpg", "train", None, (k % 4 // 2,), "", group=f"g{k % 2}") for k in range(200)]
    (note,) = judged(hold_out(rows, (Category("kind", ("a", "b")),), share=0.2, seed=0), held_out=True).notes
    assert note.what == "val has 50% of the images instead of the requested 20%"
    assert note.help == "groups are never split: there are 2, the largest with 100 images"


def test_a_class_of_a_named_val_that_train_lacks_is_a_fault_with_its_images():
    splits = [*["train"] * 5, *["val"] * 60]
    rows = [Row(f"{k}.jpg", split, None, (int(k > 61),), f"labels.csv:{k + 2}") for k, split in enumerate(splits)]
    (fault,) = judged(rows).faults
    assert (fault.where, fault.what) == ("labels.csv:64", "'b' of kind has 3 images in val and none in train")


def test_many_such_classes_are_counted():
    rows = [Row(f"{k}.jpg", "val" if k else "train", None, (k,), "") for k in range(60)]
    remarks = Remarks()
    judge(rows, single([row.labels for row in rows if row.labels]), DataConfig(root="set"), remarks, held_out=False)
    assert len(remarks.faults) == 11
    assert remarks.faults[-1].what == "59 classes have images in val and none in train"


# ------------------------------------------------------------------------------------------------------ too small
def listed(root: Path, *splits: str, classes: int = 2) -> None:
    lines = [f"{k}.jpg,{split},c{k % classes}" for k, split in enumerate(splits)]
    put(root, "labels.csv", "\n".join(["path,split,kind", *lines]))


def test_a_held_out_val_too_small_to_rank_trials_is_a_fault_with_figures(tmp_path: Path):
    listed(tmp_path, *["train"] * 100)
    (fault,) = faults(tmp_path, layout="table", val_share="0.04")
    assert fault.what == "val would have 4 of 100 images: one image is 25 points of accuracy"
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
