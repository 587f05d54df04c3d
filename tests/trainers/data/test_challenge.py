"""The two text layouts: read right in their variants, and every fault named."""

from pathlib import Path

import pytest

from tests.support.datasets import LIST, challenge_set, faults, put
from trainers.data import layouts
from trainers.data.images import stamp
from trainers.data_config import DataConfig
from trainers.support.errors import Fault

FLAGS = {  # the 26 flags of the labels 5 1 2 0 2 2
    "train": "0 0 0 0 0 1 0  0 1 0  0 0 1  1 0 0 0  0 0 1 0 0 0  0 0 1 ",
    "val": "1 0 0 0 0 0 0  1 0 0  1 0 0  0 0 0 1  0 0 0 0 0 1  1 0 0",
}


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    return challenge_set(tmp_path / "FashionDataset")


# -------------------------------------------------------------------------------------------------------- challenge
def test_the_challenge_layout_gives_rows_with_their_split_labels_and_place(challenge: Path):
    found = layouts.read(DataConfig(root=str(challenge)))
    assert [(r.path, r.split, r.labels, r.where) for r in found.rows] == [
        ("img/00000.jpg", "train", (5, 1, 2, 0, 2, 2), "split/train.txt:1"),
        ("img/00001.jpg", "train", (0, 0, 0, 3, 5, 0), "split/train.txt:2"),
        ("img/00002.jpg", "val", (5, 1, 2, 3, 2, 2), "split/val.txt:1"),
        ("img/00003.jpg", "test", None, "split/test.txt:1"),
    ]
    assert found.root == challenge
    assert found.indices("val", "test") == [2, 3]
    assert [row.path for row in found.split("test")] == ["img/00003.jpg"]


def test_the_26_known_attributes_form_six_named_categories(challenge: Path):
    found = layouts.categories(DataConfig(root=str(challenge)))
    assert [c.name for c in found] == ["texture", "sleeve", "length", "neckline", "material", "fit"]
    assert [len(c.classes) for c in found] == [7, 3, 3, 4, 6, 3]
    assert found[0].classes[:2] == ("floral", "graphic")


def test_other_attributes_form_numbered_categories(challenge: Path):
    put(challenge, "split/list_attr_cloth.txt", "a 1\nb 1\nlong name 2\nd 2\n")
    found = layouts.categories(DataConfig(root=str(challenge)))
    assert [(c.name, c.classes) for c in found] == [("category1", ("a", "b")), ("category2", ("long name", "d"))]


def test_inclusive_corners_from_one_become_pillows_boxes(challenge: Path):
    rows = layouts.read(DataConfig(root=str(challenge), crop="box")).rows
    assert [row.box for row in rows] == [(61, 61, 165, 300), (0, 0, 10, 10), (0, 1, 3, 4), (9, 9, 10, 10)]


def test_a_margin_is_a_share_of_the_longer_side_of_the_box_all_around(challenge: Path):
    rows = layouts.read(DataConfig(root=str(challenge), crop="box", box_margin=0.1)).rows
    assert [row.box for row in rows] == [(37, 37, 189, 324), (-1, -1, 11, 11), (0, 1, 3, 4), (9, 9, 10, 10)]


def test_a_scan_leaves_the_boxes_as_they_are_listed(challenge: Path):
    plain, wide = (DataConfig(root=str(challenge), crop="box", box_margin=margin) for margin in (0.0, 0.5))
    assert layouts.scan(wide)[0] == layouts.scan(plain)[0] == layouts.read(plain)


def test_another_margin_is_another_data_set_and_another_cache(challenge: Path):
    tables = [layouts.read(DataConfig(root=str(challenge), crop="box", box_margin=share)) for share in (0, 0.1, 0.2)]
    assert len({table.fingerprint for table in tables}) == 3
    assert len({stamp(table) for table in tables}) == 3


def test_a_margin_without_boxes_changes_nothing(challenge: Path):
    assert layouts.read(DataConfig(root=str(challenge), box_margin=0.5)) == layouts.read(
        DataConfig(root=str(challenge))
    )


def test_without_the_crop_boxes_are_neither_read_nor_needed(challenge: Path):
    (challenge / "split/train_bbox.txt").unlink()
    assert layouts.read(DataConfig(root=str(challenge))).rows[0].box is None
    assert [f.where for f in faults(challenge, crop="box")] == ["split/train_bbox.txt"]


def test_a_first_line_that_names_a_picture_of_any_kind_is_no_header(challenge: Path):
    put(challenge, "split/train.txt", "00000.heic\n00001.jpg\n")
    assert [row.path for row in layouts.read(DataConfig(root=str(challenge))).split("train")] == [
        "00000.heic",
        "00001.jpg",
    ]


def test_bom_crlf_header_lines_and_blank_last_lines_are_harmless(challenge: Path):
    plain = layouts.read(DataConfig(root=str(challenge), crop="box"))
    headers = {"": "picture_filename", "_attr": "category1 category2 c3 c4 c5 c6", "_bbox": "x_1 y_1 x_2 y_2"}
    for path in (challenge / "split").glob("t*.txt"):
        header = headers[path.stem.removeprefix("train").removeprefix("test")]
        text = f"{header}\n{path.read_text()}\n\n".replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = layouts.read(DataConfig(root=str(challenge), crop="box"))
    assert [(r.path, r.box, r.labels) for r in found.rows] == [(r.path, r.box, r.labels) for r in plain.rows]
    assert found.rows[0].where == "split/train.txt:2"


def test_test_labels_are_read_where_they_are_known(challenge: Path):
    put(challenge, "split/test_attr.txt", "6 2 2 3 5 2\n")
    assert layouts.read(DataConfig(root=str(challenge))).rows[-1].labels == (6, 2, 2, 3, 5, 2)


def test_a_parent_folder_called_test_decides_nothing(challenge: Path):
    moved = challenge.parent / "test" / "set"
    moved.parent.mkdir()
    challenge.rename(moved)
    assert len(layouts.read(DataConfig(root=str(moved))).split("train")) == 2


def test_the_fingerprint_follows_labels_and_boxes_but_not_the_place(challenge: Path):
    before = layouts.read(DataConfig(root=str(challenge)))
    assert len(before.fingerprint) == 16
    assert layouts.read(DataConfig(root=str(challenge), crop="box")).fingerprint != before.fingerprint
    moved = challenge.rename(challenge.with_name("moved"))
    assert layouts.read(DataConfig(root=str(moved))).fingerprint == before.fingerprint
    put(moved, "split/val_attr.txt", "5 1 2 3 2 0\n")
    assert layouts.read(DataConfig(root=str(moved))).fingerprint != before.fingerprint


# ------------------------------------------------------------------------------------------------------ deepfashion
@pytest.fixture
def deepfashion(tmp_path: Path) -> Path:
    put(tmp_path, "Anno_fine/list_attr_cloth.txt", LIST)
    for split in ("train", "val"):
        put(tmp_path, f"Anno_fine/{split}.txt", f"img/Sheer_Blouse/{split}.jpg\n")
        put(tmp_path, f"Anno_fine/{split}_attr.txt", FLAGS[split] + "\n")
    return tmp_path


def test_deepfashions_flags_become_indices(deepfashion: Path):
    (deepfashion / "Img").mkdir()
    found = layouts.scan(DataConfig(root=str(deepfashion), layout="deepfashion")).table
    assert [row.labels for row in found.rows] == [(5, 1, 2, 0, 2, 2), (0, 0, 0, 3, 5, 0)]
    assert found.root == deepfashion / "Img"


def test_deepfashions_images_may_lie_beside_the_annotations(deepfashion: Path):
    assert layouts.scan(DataConfig(root=str(deepfashion), layout="deepfashion")).table.root == deepfashion


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (FLAGS["train"].replace("1", "0", 1), "0 flags are set in texture"),
        (FLAGS["train"].replace("0", "1", 1), "2 flags are set in texture"),
        (FLAGS["train"].replace("0", "2", 1), "'2' is not a flag"),
    ],
)
def test_flags_that_are_no_choice_are_faults(deepfashion: Path, flags: str, what: str):
    put(deepfashion, "Anno_fine/train_attr.txt", flags)
    assert [(f.where, f.what) for f in faults(deepfashion, layout="deepfashion")] == [
        ("Anno_fine/train_attr.txt:1", what)
    ]


# -------------------------------------------------------------------------------------- missing and several answers
def scan(root: Path, layout: str, **settings: object) -> layouts.Scan:
    return layouts.scan(DataConfig.model_validate({"layout": layout, "root": str(root), **settings}))


def test_an_index_of_minus_one_is_a_missing_answer_only_where_that_is_said(challenge: Path):
    put(challenge, "split/train_attr.txt", "5 1 2 -1 2 2\n-1 -1 -1 -1 -1 -1\n")
    put(challenge, "split/val_attr.txt", "5 1 2 -1 2 2\n")
    found = scan(challenge, "challenge", missing=[-1])
    assert found.faults == []
    assert [row.labels for row in found.table.rows[:2]] == [(5, 1, 2, -1, 2, 2), None]
    told = [note.what for note in found.notes]
    each = "texture 1, sleeve 1, length 1, neckline 3, material 1, fit 1"
    assert f"missing answers among the 3 rows of train and val: {each}" in told
    assert "1 row of train without any answer, the first split/train.txt:2" in told
    faults = scan(challenge, "challenge").faults
    assert faults[0].what == "-1 is not a class of neckline"
    assert faults[0].help == "classes are numbered from 0 to 3; if -1 means unknown, write data: {missing: [-1]}"


def test_another_word_may_stand_for_a_missing_index(challenge: Path):
    put(challenge, "split/train_attr.txt", "5 1 2 NA 2 2\n0 0 0 3 5 0\n")
    assert scan(challenge, "challenge", missing=["na"]).table.rows[0].labels == (5, 1, 2, -1, 2, 2)
    assert [fault.what for fault in scan(challenge, "challenge").faults] == ["'NA' is not a whole number"]


def both(root: Path, flags: str) -> None:
    """The flags of the image of train, and of that of val."""
    for split in ("train", "val"):
        put(root, f"Anno_fine/{split}_attr.txt", flags)


@pytest.mark.parametrize("missing", [["none_set"], ["none_set", -1]])
def test_a_group_without_a_flag_is_a_missing_answer_only_where_that_is_said(deepfashion: Path, missing: list[object]):
    both(deepfashion, FLAGS["train"].replace("1", "0", 1))
    found = scan(deepfashion, "deepfashion", missing=missing)
    assert (found.faults, found.table.rows[0].labels) == ([], (-1, 1, 2, 0, 2, 2))
    fault, *_ = scan(deepfashion, "deepfashion", missing=[-1]).faults
    assert (fault.what, "none_set" in fault.help) == ("0 flags are set in texture", True)


def test_a_category_of_several_answers_takes_all_its_flags(deepfashion: Path):
    several = FLAGS["train"].replace("0 0 1 0 0 0  0 0 1", "1 0 1 0 0 0  0 0 1")  # denim and cotton
    both(deepfashion, several)
    found = scan(deepfashion, "deepfashion", multi=["material"])
    assert (found.faults, found.table.categories[4].multi) == ([], True)
    assert found.table.rows[0].labels == (5, 1, 2, 0, 1, 0, 1, 0, 0, 0, 2)
    fault, *_ = scan(deepfashion, "deepfashion").faults
    assert fault.what == "2 flags are set in material"
    assert fault.help.endswith("data: {multi: [material]}")


def test_unknown_flags_of_a_category_of_several_answers_are_missing_one_by_one(deepfashion: Path):
    both(deepfashion, FLAGS["train"].replace("0 0 1 0 0 0  0 0 1", "-1 0 1 0 0 0  -1 -1 -1"))
    found = scan(deepfashion, "deepfashion", multi=["material"], missing=[-1])
    assert (found.faults, found.table.rows[0].labels) == ([], (5, 1, 2, 0, -1, 0, 1, 0, 0, 0, -1))


def test_several_answers_want_flags_and_a_category_that_is_there(challenge: Path):
    (fault, *_) = scan(challenge, "challenge", multi=["material"]).faults
    assert (fault.where, fault.what) == (
        "split/train_attr.txt",
        "one index per category, but 'material' is in data.multi",
    )
    (fault, *_) = scan(challenge, "challenge", multi=["matreial"]).faults
    assert (fault.where, fault.help) == ("data.multi", "did you mean 'material'?")


# ----------------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("5 1 2 0 2", "5 columns, but there are 6 categories"),
        ("5 1 2 0 2 2 1", "7 columns, but there are 6 categories"),
        ("5 1 2 0 2 -1", "-1 is not a class of fit"),
        ("7 1 2 0 2 2", "7 is not a class of texture"),
        ("5 1 2.0 0 2 2", "'2.0' is not a whole number"),
    ],
)
def test_a_wrong_line_of_labels_is_named(challenge: Path, line: str, what: str):
    put(challenge, "split/train_attr.txt", f"5 1 2 0 2 2\n{line}\n")
    assert [(f.where, f.what) for f in faults(challenge)] == [("split/train_attr.txt:2", what)]


@pytest.mark.parametrize("line", ["012 001 003 004", "1 5 3 4", "0 1 3 4", "-1 1 3 4"])
def test_corners_that_are_no_box_are_named(challenge: Path, line: str):
    put(challenge, "split/train_bbox.txt", f"{line}\n001 001 002 002\n")
    assert [(f.where, f.what) for f in faults(challenge, crop="box")] == [
        ("split/train_bbox.txt:1", f"{line!r} is not a box")
    ]


def test_different_numbers_of_lines_are_named_at_the_first_that_is_over(challenge: Path):
    put(challenge, "split/train_attr.txt", "5 1 2 0 2 2\n" * 3)
    put(challenge, "split/val_attr.txt", "")
    assert [(f.where, f.what) for f in faults(challenge)] == [
        ("split/train_attr.txt:3", "3 lines for the 2 images of train.txt"),
        ("split/val_attr.txt", "0 lines for the 1 images of val.txt"),
    ]


def test_a_blank_line_in_the_middle_is_named(challenge: Path):
    put(challenge, "split/train.txt", "img/00000.jpg\n\nimg/00001.jpg\n")
    assert [(f.where, f.what) for f in faults(challenge)] == [("split/train.txt:2", "blank line")]


def test_bytes_that_are_no_text_are_named(challenge: Path):
    put(challenge, "split/train.txt", b"img/00000.jpg\nimg/\xff.jpg\n")
    assert faults(challenge)[0] == Fault("split/train.txt:2", "not UTF-8 text", "save the file as UTF-8")


def test_an_image_listed_twice_is_named_with_its_first_place(challenge: Path):
    put(challenge, "split/train.txt", "img/00000.jpg\nimg/./00000.jpg\n")
    put(challenge, "split/test.txt", "img/00002.jpg\n")
    assert [(f.where, f.what, f.help) for f in faults(challenge)] == [
        ("split/train.txt:2", "'img/./00000.jpg' is listed twice in train", "first at split/train.txt:1"),
        ("split/test.txt:1", "'img/00002.jpg' is listed twice in val and test", "first at split/val.txt:1"),
    ]


def test_a_category_of_one_class_is_a_fault(challenge: Path):
    put(challenge, "split/list_attr_cloth.txt", "a 1\nb 1\nc 2\n")
    assert "category 'category2' has 1 class" in [f.what for f in faults(challenge)]


def test_a_wrong_count_of_attributes_and_a_torn_line_are_named(challenge: Path):
    put(challenge, "split/list_attr_cloth.txt", "9\nattribute_name attribute_type\na 1\nb 1\nc\nd 2\ne 2\na 1\n")
    found = [(f.where.rpartition(":")[2], f.what) for f in faults(challenge) if "list_attr" in f.where]
    assert found == [
        ("5", "'c' is not an attribute name followed by a category number"),
        ("8", "attribute 'a' appears twice in category 1"),
        ("1", "declares 9 attributes, but 6 follow"),
    ]


def test_labels_are_not_judged_by_a_list_of_attributes_that_has_faults(challenge: Path):
    text = (challenge / "split/list_attr_cloth.txt").read_text()
    put(challenge, "split/list_attr_cloth.txt", text.replace("26", "27", 1))
    put(challenge, "split/train_attr.txt", "9 9 9\n")
    assert [f.where for f in faults(challenge)] == ["split/list_attr_cloth.txt:1", "split/train_attr.txt:1"]
    assert "1 line for the 2 images" in faults(challenge)[1].what


def test_all_faults_come_in_one_pass(challenge: Path):
    put(challenge, "split/train_attr.txt", "5 1 2 0 2\n9 0 0 3 5 0\n")
    put(challenge, "split/val_bbox.txt", "x 2 3 4\n")
    put(challenge, "split/test.txt", "../secret.jpg\n")
    (challenge / "split/val_attr.txt").unlink()
    assert [f.where for f in faults(challenge, crop="box")] == [
        "split/train_attr.txt:1",
        "split/train_attr.txt:2",
        "split/val_attr.txt",
        "split/val_bbox.txt:1",
        "split/test.txt:1",
    ]
