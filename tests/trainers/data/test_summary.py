"""What is said of a data set before anything trains on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import challenge_set, put
from trainers.data import layouts
from trainers.data.demo import draw
from trainers.data.summary import WIDTH, Summary, pixels, summary
from trainers.data.table import MISSING, Category, Row, Table
from trainers.data_config import DataConfig


def of(table: Table, **settings: str) -> Summary:
    return summary(DataConfig(root="set", **settings), table, held_out=False, notes=())


def table(*counts: int, test: int = 0) -> Table:
    """One category with so many training images of each class, and test images without labels."""
    names = tuple(f"class{k}" for k in range(len(counts)))
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    rows = [Row(f"{i}.jpg", "train", None, (k,), "") for i, k in enumerate(labels)]
    rows += [Row(f"t{i}.jpg", "test", None, None, "") for i in range(test)]
    return Table(Path("set"), (Category("kind", names),), tuple(rows))


def test_classes_are_counted_by_split_in_label_order():
    made = of(table(3, 1, test=4), layout="table")
    assert made.images == {"train": 4, "val": 0, "test": 4}
    assert [(one.name, one.images["train"], one.images["test"]) for one in made.categories[0].classes] == [
        ("class0", 3, 0),
        ("class1", 1, 0),
    ]


def test_the_words_name_splits_categories_and_classes_the_most_frequent_first():
    assert list(of(table(1, 1_234, test=4), layout="table").lines()) == [
        "data: set, layout table: 1,235 train, 0 val, 4 test",
        "  kind  2 classes: class1 1,234, class0 1",
    ]


def test_of_many_classes_those_that_fit_are_named_and_the_rarest():
    (_, line) = of(table(*range(200, 0, -1))).lines()
    assert line.startswith("  kind  200 classes: class0 200, class1 199, ")
    assert line.endswith("more, class199 1")
    assert len(line) <= WIDTH + len("  kind  ")


def test_many_categories_stay_on_one_screen():
    rows = (Row("0.jpg", "train", None, (0,) * 40, ""), Row("1.jpg", "train", None, (1,) * 40, ""))
    groups = tuple(Category(f"c{k}", ("a", "b")) for k in range(40))
    lines = list(of(Table(Path("set"), groups, rows)).lines())
    assert len(lines) == 22
    assert lines[-1] == "  and 20 more categories"


def test_a_very_long_name_does_not_push_the_other_categories_off_the_screen():
    groups = (Category("n" * 300, ("a", "b")), Category("kind", ("a", "b")))
    rows = (Row("0.jpg", "train", None, (0, 1), ""),)
    (_, _, line) = of(Table(Path("set"), groups, rows)).lines()
    assert line.startswith("  kind  ")
    assert len(line) < 80


def test_a_chosen_val_is_said():
    made = summary(DataConfig(root="set"), table(3, 1), held_out=True, notes=())
    assert list(made.lines())[1] == "  val was held out from train: the data set names none"


def test_groups_are_said():
    rows = [Row(f"{k}.jpg", "train" if k < 4 else "val", None, (k % 2,), "", group=f"g{k // 2}") for k in range(6)]
    grouped = Table(Path("set"), (Category("kind", ("a", "b")),), tuple(rows))
    made = [summary(DataConfig(root="set"), grouped, held_out=held, notes=()) for held in (True, False)]
    assert [list(one.lines())[1] for one in made] == [
        "  val was held out from train, by group (3 groups): the data set names none",
        "  3 groups, none of them in two splits",
    ]


def test_missing_and_several_answers_are_said_with_their_shares():
    categories = (Category("kind", ("a", "b")), Category("tags", ("x", "y", "z"), multi=True))
    labels = [(0, 1, 1, 0), (MISSING, 0, 0, 0), (1, 1, MISSING, 0), (0, MISSING, MISSING, MISSING), None]
    rows = [Row(f"{k}.jpg", "train", None, known, "") for k, known in enumerate(labels)]
    rows += [Row("t.jpg", "test", None, None, "")]
    made = of(Table(Path("set"), categories, tuple(rows)))
    kind, tags = made.categories
    assert (kind.missing, kind.answers, kind.empty) == (2 / 5, None, None)
    assert tags.missing == 7 / 15  # of its labels
    assert (tags.answers, tags.empty) == (1, 1 / 3)
    assert list(made.lines())[1:] == [
        "  kind  2 classes, 40% missing: a 2, b 1",
        "  tags  3 classes, 1.0 per image, 33% have none, 47% missing: x 2, y 1, z 0",
    ]


def test_what_was_taken_for_what_and_the_pixels_come_before_the_categories():
    sizes = np.array([(30, 40)] * 6 + [(60, 20), (900, 1_200), (31, 40)])
    made = of(table(3, 1)).model_copy(update={"read_as": ("semicolons", "path 'file'"), "pixels": pixels(sizes)})
    assert list(made.lines())[1:4] == [
        "  read as: semicolons",
        "  read as: path 'file'",
        "  pixels: median 30 x 40, from 30 x 40 to 900 x 1,200, about 3:4 in 78%",
    ]


def test_images_of_one_size_have_no_range():
    found = pixels(np.full((4, 2), 224))
    assert found is not None
    assert (found.words(), found.aspect, pixels(np.empty((0, 2), int))) == ("224 x 224 each", (1, 1), None)


@pytest.mark.parametrize("width", [60, 80, 120, None])
def test_the_line_of_a_category_fits_the_terminal(width: int | None):
    (_, line) = of(table(*range(200, 0, -1))).lines(width)
    assert len(line) <= (width or WIDTH + 8)


# ------------------------------------------------------------------------------------------ guessing
def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.mark.parametrize(
    ("files", "asked", "layout", "labels"),
    [
        (["labels.csv", "other.csv"], ".", "table", "labels.csv"),
        (["answers.csv", "images/1.png"], ".", "table", "answers.csv"),
        (["answers.tsv"], ".", "table", "answers.tsv"),
        (["a.csv", "b.csv"], "b.csv", "table", "b.csv"),
        (["cat/1.png", "dog/1.png"], ".", "folder", "labels.csv"),
        (["train/cat/1.png"], ".", "folder", "labels.csv"),
        (["Anno_fine/train.txt"], ".", "deepfashion", "labels.csv"),
    ],
)
def test_the_layout_is_guessed_from_what_lies_there(
    tmp_path: Path, files: list[str], asked: str, layout: str, labels: str
):
    for name in files:
        picture(tmp_path / name) if name.endswith("png") else put(tmp_path, name)
    guessed = layouts.guess(tmp_path / asked)
    assert (guessed.layout, guessed.labels, Path(guessed.root)) == (layout, labels, tmp_path)


def test_the_challenge_layout_is_guessed_and_read(tmp_path: Path):
    challenge_set(tmp_path)
    assert layouts.guess(tmp_path).layout == "challenge"
    assert layouts.read(layouts.guess(tmp_path)).rows


def test_boxes_are_taken_where_every_split_that_is_listed_has_them(tmp_path: Path):
    draw(tmp_path, images=(20, 10, 5))
    assert layouts.guess(tmp_path).crop == "box"
    assert all(row.box for row in layouts.read(layouts.guess(tmp_path)).rows)
    (tmp_path / "split" / "test_bbox.txt").unlink()
    assert layouts.guess(tmp_path).crop == "none"
