"""Classes that are numbers keep their order; two spellings of one class are noted with both counts."""

import time
import unicodedata
from pathlib import Path

import pytest

from tests.support.datasets import put
from trainers.data import layouts
from trainers.data.class_names import alike, class_order
from trainers.data.table import Category, Row
from trainers.data_config import DataConfig

LETTERS = "abcdefghijklmnopq"


def told(**images: int) -> list[str]:
    return spelt(images)


def spelt(images: dict[str, int]) -> list[str]:
    """The notes on these classes with so many images, without the category's name behind them."""
    labels = [k for k, count in enumerate(images.values()) for _ in range(count)]
    rows = [Row(f"{n}.png", "train", None, (k,), f"labels.csv:{n}") for n, k in enumerate(labels)]
    notes = alike([Category("wearer", tuple(images))], rows, DataConfig(root="data"))
    assert all(note.what.endswith(", in 'wearer'") for note in notes)
    return [note.what.removesuffix(", in 'wearer'") for note in notes]


# -------------------------------------------------------------------------------------------------------------- order
@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(k) for k in range(12)], [str(k) for k in range(12)]),
        (["10", "9", "-1", "+3"], ["-1", "+3", "9", "10"]),
        (["10.0", "2.0", "1.0"], ["1.0", "2.0", "10.0"]),
        (["010", "2", "10"], ["2", "010", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["size 10", "size 9"], ["size 10", "size 9"]),
        (["9" * 30, "10"], ["10", "9" * 30]),
        (["2.5", "10"], ["10", "2.5"]),
        (["b", "a"], ["a", "b"]),
    ],
)
def test_whole_numbers_are_ordered_as_numbers_and_all_else_as_text(names: list[str], order: list[str]):
    assert class_order(reversed(names)) == tuple(order)


def test_numbers_keep_their_order_in_tables_and_folders(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,digit\n" + "".join(f"{k}.png,{k % 12}\n" for k in range(48)))
    for k in range(12):
        put(tmp_path, f"folders/train/{k}/{k}.png")
        put(tmp_path, f"folders/val/{k}/{k}.png")
    table = DataConfig(layout="table", root=str(tmp_path))
    folder = DataConfig(layout="folder", root=str(tmp_path / "folders"))
    for config in (table, folder):
        (category,) = layouts.read(config).categories
        assert category.classes == tuple(str(k) for k in range(12))


# -------------------------------------------------------------------------------------------------------------- alike
@pytest.mark.parametrize(
    ("one", "other", "shown", "how"),
    [
        ("Adult", "adult", "'Adult'", "case"),
        ("t  shirt", "t shirt", "'t  shirt'", "blanks"),
        (" coat", "coat", "' coat'", "blanks"),
        ("coat ", "coat", "'coat '", "blanks"),
        ("t\xa0shirt", "t shirt", "'t\\xa0shirt'", "blanks"),
        ("T shirt ", "t shirt", "'T shirt '", "blanks and case"),
        (unicodedata.normalize("NFD", "café"), "café", "'cafe\\u0301'", "Unicode form"),
        ("\uff43oat", "coat", "'\uff43oat'", "Unicode form"),
        ("co\u200bat", "coat", "'co\\u200bat'", "invisible characters"),
        ("1.0", "1", "'1.0'", "the way a number is written"),
        ("01", "1", "'01'", "the way a number is written"),
        ("chlid", "child", "'chlid'", "one letter"),
        ("chid", "child", "'chid'", "one letter"),
        ("childd", "child", "'childd'", "one letter"),
        ("chield", "chinld", "'chield'", "one letter"),
    ],
)
def test_a_second_spelling_is_noted_with_both_counts(one: str, other: str, shown: str, how: str):
    assert spelt({one: 1, other: 152}) == [f"{shown} (1 image) differs from {other!r} (152) only in {how}"]


def test_spellings_that_differ_by_more_than_a_letter_are_noted_whatever_their_counts():
    assert told(Adult=40, adult=152) == ["'Adult' (40 images) differs from 'adult' (152) only in case"]


@pytest.mark.parametrize("name", ["NaN", "N/A", "null", "?", "<NA>", "none", "None", "unknown", "-"])
def test_what_programs_write_for_a_missing_label_is_noted(name: str):
    assert spelt({"coat": 9, name: 3, "no coat": 4}) == [f"{name!r} is read as a class (3 images)"]


def test_three_spellings_are_compared_with_the_commonest():
    assert told(ADULT=2, Adult=40, adult=3) == [
        "'adult' (3 images) differs from 'Adult' (40) only in case",
        "'ADULT' (2 images) differs from 'Adult' (40) only in case",
    ]


@pytest.mark.parametrize(
    "images",
    [
        {"child": 2, "chlid": 2},  # two images each: nobody slips twice
        {"coat": 1, "boat": 1},
        {"cat": 1, "bat": 50},  # short words differ by a letter
        {"size 10": 1, "size 11": 40},
        {"10000": 1, "10001": 40},
        {"skirt": 1, "shirts": 40},
    ],
)
def test_classes_that_may_well_be_two_are_not_noted(images: dict[str, int]):
    assert spelt(images) == []


def test_thousands_of_classes_are_compared_in_no_time():
    names = {
        f"species {a}{b}{c} of the {a}{c} family": 1 + (ord(b) % 2) for a in LETTERS for b in LETTERS for c in LETTERS
    }
    began = time.process_time()
    spelt(names)
    assert len(names) == 17**3
    assert time.process_time() - began < 8


def test_the_notes_reach_every_layout(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,wearer\n" + "".join(f"{k}.png,{'Adult' if k else 'adult'}\n" for k in range(4)))
    for name in ("coat/1.png", "Coat/2.png", "coat/3.png"):
        put(tmp_path, f"folders/train/{name}")
        put(tmp_path, f"folders/val/{name}")
    for layout, root in (("table", tmp_path), ("folder", tmp_path / "folders")):
        notes = layouts.scan(DataConfig.model_validate({"layout": layout, "root": str(root)})).notes
        how = [what.partition(",")[0] for note in notes for what in note.what.split(" only in ")[1:]]
        assert how == ["case"]
