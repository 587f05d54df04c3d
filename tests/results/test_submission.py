"""The submission: a checked zip that depends on the predictions alone."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sweeper.errors import DataError, EnvironmentFault
from sweeper.results import submission
from sweeper.store.paths import RunFolder
from trainers.data.layouts import Category, Row, Table
from trainers.data_config import DataConfig

CATEGORIES = (Category("sleeve", ("long", "short", "none")), Category("fit, at the waist", ("tight", "loose")))
LOGITS = np.array([[3, 1, 2, 0, 1], [0, 0, 5, 1, 0], [1, 2, 0, 4, 4]], dtype=np.float32)


def table(root: Path) -> Table:
    rows = [Row(f"img/{n}.jpg", "test", None, None, f"split/test.txt:{n + 1}") for n in range(3)]
    train = Row("img/9.jpg", "train", None, (0, 0), "split/train.txt:1")
    return Table(root, CATEGORIES, (train, *rows))


def data(layout: str, **more: str) -> DataConfig:
    return DataConfig.model_validate({"layout": layout, "root": "x", **more})


def exported(folder: Path, layout: str = "challenge") -> submission.Submission:
    folder.mkdir(parents=True)
    np.save(folder / "test_logits.npy", LOGITS)
    return submission.export(RunFolder(folder), table(folder), data(layout))


def zipped(path: Path, body: bytes, member: str = "prediction.txt") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, body)
    return path


def test_a_submission_has_a_line_an_image_and_an_index_a_category(tmp_path):
    made = exported(tmp_path / "finals")
    with zipfile.ZipFile(made.path) as archive:
        assert archive.namelist() == ["prediction.txt"]
        assert archive.read("prediction.txt") == b"0 1\n2 0\n1 0\n"


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    first, second = exported(tmp_path / "a"), exported(tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()


def test_the_bytes_of_the_zip_are_these_on_every_machine(tmp_path):
    assert exported(tmp_path / "a").sha256 == "49a2389215285e835d24889c06f34a627e0ab8f4b1596f824b0a3dcd1363f17b"


def test_a_table_gets_its_predictions_by_path_and_class_name_too(tmp_path):
    made = exported(tmp_path / "finals", "table")
    assert made.table is not None
    assert made.table.read_text().splitlines()[:2] == ['path,sleeve,"fit, at the waist"', "img/0.jpg,long,loose"]


def test_scores_that_are_not_numbers_are_refused():
    bad = LOGITS.copy()
    bad[1, 2] = np.nan
    with pytest.raises(EnvironmentFault, match="not finite: the scores of 1 test image\n"):
        submission.choose(bad, CATEGORIES)


def test_scores_of_another_width_are_refused():
    with pytest.raises(EnvironmentFault, match=r"expected \[images, 5\]"):
        submission.choose(LOGITS[:, :4], CATEGORIES)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"0 1\n2 0\n", "2 lines for 3 test images"),
        (b"0 1\n2 0\n1 0\n\n", "4 lines for 3 test images"),
        (b"0 1\n3 0\n1 0\n", "column 1: '3' is not a class from 0 to 2"),
        (b"0 1\n2 -1\n1 0\n", "column 2: '-1'"),
        (b"0 1\n2  0\n1 0\n", "3 values for 2 categories"),
        (b"0 1\n2.0 0\n1 0\n", "column 1: '2.0'"),
        (b"0 1\r\n2 0\r\n1 0\r\n", "end with LF"),
        (b"0 1\n2 0\n1 0", "end with LF"),
    ],
)
def test_what_a_board_would_refuse_is_found(tmp_path, body, what):
    with pytest.raises(DataError) as caught:
        submission.verify(zipped(tmp_path / "s.zip", body), [3, 2], 3)
    assert any(what in fault.what for fault in caught.value.faults)


def test_a_zip_with_another_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="exactly one file"):
        submission.verify(zipped(tmp_path / "s.zip", b"", "x/prediction.txt"), [3, 2], 0)


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "s.zip").write_text("no zip")
    with pytest.raises(DataError, match="not a readable zip"):
        submission.verify(tmp_path / "s.zip", [3, 2], 3)


@pytest.mark.parametrize(
    ("name", "computed"),
    [("=1+1", True), ("@SUM(1)", True), ("-cmd|x", True), ("+1", False), ("-0.5", False), ("a=1", False)],
)
def test_a_name_that_a_spreadsheet_computes_is_known(tmp_path, name, computed):
    table = Table(tmp_path, (Category("kind", (name, "b")),), (Row("img/0.jpg", "test", None, None, ""),))
    np.save(tmp_path / "test_logits.npy", np.zeros((1, 2), dtype=np.float32))
    assert submission.export(RunFolder(tmp_path), table, data("table")).formulas == computed


def test_classes_that_are_other_numbers_than_their_places_are_named(tmp_path):
    kinds = (
        Category("digit", ("0", "1", "3", "5")),
        Category("grade", ("0", "1", "2")),
        Category("size", ("a", "b")),
    )
    labels = Row("img/9.jpg", "train", None, (0, 0, 0), "")
    rows = (labels, Row("img/0.jpg", "test", None, None, ""))
    (tmp_path / "finals").mkdir()
    np.save(tmp_path / "finals" / "test_logits.npy", np.zeros((1, 9), dtype=np.float32))
    made = submission.export(RunFolder(tmp_path / "finals"), Table(tmp_path, kinds, rows), data("table"))
    assert list(made.renumbered()) == [(kinds[0], 2)]


# ------------------------------------------------------------------------------------ several answers
TAGS = Category("tags", ("warm", "dry", "=soft"), multi=True)
MIXED = np.array([[3, 1, 2, 1, -1, 2], [0, 0, 5, -1, -2, -3], [1, 2, 0, 0, 4, -4]], dtype=np.float32)


def mixed(root: Path, layout: str, **options: str) -> submission.Submission:
    rows = table(root).rows
    (root / "final").mkdir(parents=True)
    np.save(root / "final" / "test_logits.npy", MIXED)
    asked = Table(root, (CATEGORIES[0], TAGS), rows)
    return submission.export(RunFolder(root / "final"), asked, data(layout, **options))


@pytest.mark.parametrize("layout", ["table", "challenge"])
def test_several_answers_are_written_by_name_and_the_text_is_refused_with_the_reason(tmp_path, layout):
    made = mixed(tmp_path, layout)
    assert (made.path, made.sha256, made.images, made.formulas) == (None, None, 3, True)
    assert made.refused == (
        "prediction.txt holds one class number per category, but the data set has categories with several"
        " answers (tags)"
    )
    assert made.table is not None
    assert made.table.read_text().splitlines() == [
        "path,sleeve,tags",
        "img/0.jpg,long,warm|=soft",
        "img/1.jpg,none,",
        "img/2.jpg,short,dry",
    ]
    assert sorted(path.name for path in (tmp_path / "final").iterdir()) == ["predictions.csv", "test_logits.npy"]


def test_several_answers_are_parted_as_the_table_parts_them(tmp_path):
    made = mixed(tmp_path, "table", multi_separator="; ")
    assert made.table is not None
    assert "img/0.jpg,long,warm; =soft" in made.table.read_text()


def test_a_score_of_exactly_a_half_is_no_answer():
    assert submission.choose(MIXED, (CATEGORIES[0], TAGS)).tolist() == [[0, 1, 0, 1], [2, 0, 0, 0], [1, 0, 1, 0]]
