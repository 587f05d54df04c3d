"""Four layouts, read into one table; every fault of the label files in one pass."""

from pathlib import Path

import pytest

from trainers.config import DataConfig
from trainers.data import layouts
from trainers.data.challenge import FASHION
from trainers.data.rows import Table
from trainers.errors import DataError, Fault

FLAGS = {  # the 26 flags of the labels 5 1 2 0 2 2
    "train": "0 0 0 0 0 1 0  0 1 0  0 0 1  1 0 0 0  0 0 1 0 0 0  0 0 1 ",
    "val": "1 0 0 0 0 0 0  1 0 0  1 0 0  0 0 0 1  0 0 0 0 0 1  1 0 0",
}
LIST = "26 \nattribute_name   attribute_type\n" + "".join(
    f"{name:<20} {k}\n" for k, group in enumerate(FASHION, 1) for name in group
)
CLOTHING = Path(__file__).parents[1] / "../shared/data/clothing"


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    root = tmp_path / "FashionDataset"
    put(root, "split/list_attr_cloth.txt", LIST)
    put(root, "split/train.txt", "img/00000.jpg\nimg/00001.jpg\n")
    put(root, "split/train_attr.txt", "5 1 2 0 2 2\n0 0 0 3 5 0\n")
    put(root, "split/train_bbox.txt", "062 062 165 300\n001 001 010 010\n")
    put(root, "split/val.txt", "img/00002.jpg\n")
    put(root, "split/val_attr.txt", "5 2 2 1 2 2\n")
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


def table(root: Path, **settings: str) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="table", **settings))


def folder(root: Path, **settings: str) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="folder", **settings))


# ------------------------------------------------------------------------------------------- challenge
def test_the_challenge_layout_gives_rows_with_their_split_labels_and_place(challenge: Path):
    found = layouts.read(DataConfig(root=str(challenge)))
    assert [(r.path, r.split, r.labels, r.where) for r in found.rows] == [
        ("img/00000.jpg", "train", (5, 1, 2, 0, 2, 2), "split/train.txt:1"),
        ("img/00001.jpg", "train", (0, 0, 0, 3, 5, 0), "split/train.txt:2"),
        ("img/00002.jpg", "val", (5, 2, 2, 1, 2, 2), "split/val.txt:1"),
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


def test_without_the_crop_boxes_are_neither_read_nor_needed(challenge: Path):
    (challenge / "split/train_bbox.txt").unlink()
    assert layouts.read(DataConfig(root=str(challenge))).rows[0].box is None
    assert [f.where for f in faults(challenge, crop="box")] == ["split/train_bbox.txt"]


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
    put(moved, "split/val_attr.txt", "5 2 2 1 2 1\n")
    assert layouts.read(DataConfig(root=str(moved))).fingerprint != before.fingerprint


# ------------------------------------------------------------------------------------------ deepfashion
@pytest.fixture
def deepfashion(tmp_path: Path) -> Path:
    put(tmp_path, "Anno_fine/list_attr_cloth.txt", LIST)
    for split in ("train", "val"):
        put(tmp_path, f"Anno_fine/{split}.txt", f"img/Sheer_Blouse/{split}.jpg\n")
        put(tmp_path, f"Anno_fine/{split}_attr.txt", FLAGS[split] + "\n")
    return tmp_path


def test_deepfashions_flags_become_indices(deepfashion: Path):
    (deepfashion / "Img").mkdir()
    found = layouts.read(DataConfig(root=str(deepfashion), layout="deepfashion"))
    assert [row.labels for row in found.rows] == [(5, 1, 2, 0, 2, 2), (0, 0, 0, 3, 5, 0)]
    assert found.root == deepfashion / "Img"


def test_deepfashions_images_may_lie_beside_the_annotations(deepfashion: Path):
    assert layouts.read(DataConfig(root=str(deepfashion), layout="deepfashion")).root == deepfashion


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


# ------------------------------------------------------------------------------------- faults of text files
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("5 1 2 0 2", "5 columns, and there are 6 categories"),
        ("5 1 2 0 2 2 1", "7 columns, and there are 6 categories"),
        ("5 1 2 0 2 -1", "-1 is no class of fit"),
        ("7 1 2 0 2 2", "7 is no class of texture"),
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
        ("split/train_bbox.txt:1", f"{line!r} is no box")
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
        ("5", "'c' is not an attribute's name and the number of its category"),
        ("8", "attribute 'a' stands twice in category 1"),
        ("1", "says 9 attributes, and 6 follow"),
    ]


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


# ------------------------------------------------------------------------------------------------ safety
@pytest.mark.parametrize("path", ["../../etc/passwd.jpg", "/etc/passwd", "img/../../x.jpg", "img/\0.jpg"])
def test_a_path_that_leads_out_is_refused_and_quoted(challenge: Path, path: str):
    put(challenge, "split/train.txt", f"img/00000.jpg\n{path}\n")
    (fault,) = faults(challenge)
    assert (fault.where, fault.what) == ("split/train.txt:2", f"the path {path!r} is refused")


def test_a_refused_path_is_not_in_the_table(challenge: Path):
    put(challenge, "split/train.txt", "img/00000.jpg\n/etc/passwd\n")
    found, _ = layouts.scan(DataConfig(root=str(challenge)))
    assert [row.path for row in found.rows] == ["img/00000.jpg", "img/00002.jpg", "img/00003.jpg"]


@pytest.mark.parametrize("link", ["img/00000.jpg", "img"])
def test_a_link_that_leaves_the_data_set_is_refused(challenge: Path, link: str):
    put(challenge.parent, "outside/00000.jpg")
    (challenge / link).parent.mkdir(exist_ok=True)
    (challenge / link).symlink_to(challenge.parent / "outside" / link.removeprefix("img").removeprefix("/"))
    assert "the path 'img/00000.jpg' is refused: a link out of the data set" in [f.what for f in faults(challenge)]


def test_a_link_inside_the_data_set_is_followed(challenge: Path):
    put(challenge, "img/real.jpg")
    (challenge / "img/00000.jpg").symlink_to("real.jpg")
    linked = challenge.with_name("linked")
    linked.symlink_to(challenge)
    assert len(layouts.read(DataConfig(root=str(linked))).rows) == 4


# ---------------------------------------------------------------------------------------------- the root
def test_a_missing_root_suggests_its_neighbour(challenge: Path):
    (fault,) = faults(challenge.with_name("FashionDatset"))
    assert (fault.what, fault.help) == ("no such folder", "did you mean 'FashionDataset'?")


def test_a_missing_demo_suggests_to_draw_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (fault,) = faults(Path(layouts.DEMO_ROOT))
    assert "sweep data demo" in fault.help


def test_a_root_one_level_too_high_suggests_the_right_one(challenge: Path):
    (fault,) = faults(challenge.parent)
    assert fault.help == f"did you mean {str(challenge)!r}?"


def test_a_root_without_label_files_says_where_they_belong(tmp_path: Path):
    (fault,) = faults(tmp_path)
    assert fault.what == "no folder 'split' in the data set"


# ------------------------------------------------------------------------------------------------- table
def test_a_table_has_a_category_a_column_and_classes_in_alphabetical_order(tmp_path: Path):
    put(
        tmp_path,
        "labels.csv",
        '\ufeffpath,split,kind,colour\r\na.jpg,train,shoe,"red, dark"\r\nb.jpg,val,hat,blue\r\n\r\n',
    )
    found = table(tmp_path)
    assert [(c.name, c.classes) for c in found.categories] == [
        ("kind", ("hat", "shoe")),
        ("colour", ("blue", "red, dark")),
    ]
    assert [(r.labels, r.where) for r in found.rows] == [((1, 1), "labels.csv:2"), ((0, 0), "labels.csv:3")]


def test_rows_of_test_may_leave_all_labels_empty(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,split,kind\na.jpg,train,x\nb.jpg,valid,y\nc.jpg,test,\n")
    assert [(row.split, row.labels) for row in table(tmp_path).rows] == [
        ("train", (0,)),
        ("val", (1,)),
        ("test", None),
    ]


def test_every_wrong_row_of_a_table_is_named(tmp_path: Path):
    put(
        tmp_path,
        "l.csv",
        "path,split,a,b\n1.jpg,train,x,\n2.jpg,trian,x,y\n3.jpg,val,x\n4.jpg,test,x,\n5.jpg,val,z,q\n",
    )
    found = faults(tmp_path, layout="table", labels="l.csv")
    assert [(f.where, f.what) for f in found] == [
        ("l.csv:4", "3 columns, and the header has 4"),
        ("l.csv:2", "no label for b"),
        ("l.csv:3", "no split 'trian'"),
        ("l.csv:5", "no label for b"),
    ]
    assert found[2].help == "did you mean 'train'?"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,split,a\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,split\na.jpg,train\n", "no category"),
        ("path,a,a\nx.jpg,1,2\ny.jpg,2,1\n", "2 columns are called 'a'"),
        ('path,a\n"x.jpg,1\n', "not a CSV file: unexpected end of data"),
        (b"path,a\nx.jpg,\xff\n", "not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_such_table_is_named(tmp_path: Path, text: str | bytes, what: str):
    put(tmp_path, "labels.csv", text)
    assert what in [f.what for f in faults(tmp_path, layout="table")]


def test_a_missing_table_suggests_the_one_that_is_there(tmp_path: Path):
    put(tmp_path, "label.csv")
    assert faults(tmp_path, layout="table")[0].help == "did you mean 'label.csv'?"


def test_layouts_without_boxes_cannot_be_cropped_to_them(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,a\nx.jpg,1\ny.jpg,2\n")
    assert [f.what for f in faults(tmp_path, layout="table", crop="box")] == ["layout table has no boxes"]


# ----------------------------------------------------------------------------------------- held-out split
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


def test_a_data_set_with_train_but_no_val_gets_one_from_train(challenge: Path):
    (challenge / "split/val.txt").unlink()
    found = layouts.read(DataConfig(root=str(challenge)))
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [1, 1, 1]


# ------------------------------------------------------------------------------------------------ folder
def test_a_folder_of_splits_of_classes_is_read(tmp_path: Path):
    for name in ("train/cat/a.jpg", "train/dog/b.PNG", "train/dog/deep/c.webp", "Validation/cat/d.jpg"):
        put(tmp_path, name)
    for name in ("train/dog/Thumbs.db", "train/.hidden/x.jpg", "train/cat/._a.jpg", "test/e.tif", "test/dog/f.jpg"):
        put(tmp_path, name)
    found = folder(tmp_path)
    assert found.categories == (layouts.Category("class", ("cat", "dog")),)
    assert sorted((r.path, r.split, r.labels) for r in found.rows) == [
        ("Validation/cat/d.jpg", "val", (0,)),
        ("test/dog/f.jpg", "test", (1,)),
        ("test/e.tif", "test", None),
        ("train/cat/a.jpg", "train", (0,)),
        ("train/dog/b.PNG", "train", (1,)),
        ("train/dog/deep/c.webp", "train", (1,)),
    ]


def test_a_folder_of_classes_alone_is_split_by_seed(tmp_path: Path):
    for k in range(10):
        put(tmp_path, f"cat/{k}.jpg")
        put(tmp_path, f"dog/{k}.jpg")
    found = folder(tmp_path)
    assert sorted(row.labels for row in found.split("val")) == [(0,), (0,), (1,), (1,)]
    assert len(found.split("train")) == 16


def test_images_beside_the_classes_are_named(tmp_path: Path):
    for name in ("train/cat/a.jpg", "train/dog/a.jpg", "train/stray.jpg"):
        put(tmp_path, name)
    assert [(f.where, f.what) for f in faults(tmp_path, layout="folder")] == [
        ("train/stray.jpg", "an image outside the folder of a class")
    ]


def test_a_misspelt_split_folder_is_named(tmp_path: Path):
    for name in ("train/cat/a.jpg", "train/dog/a.jpg", "tets/cat/a.jpg"):
        put(tmp_path, name)
    (fault,) = faults(tmp_path, layout="folder")
    assert (fault.where, fault.help) == ("tets", "did you mean 'test'?")


def test_a_test_folder_among_classes_is_not_taken_for_one(tmp_path: Path):
    for name in ("cat/a.jpg", "dog/a.jpg", "test/a.jpg"):
        put(tmp_path, name)
    assert "a folder 'test' and no folder 'train'" in [f.what for f in faults(tmp_path, layout="folder")]


def test_an_empty_folder_has_no_class(tmp_path: Path):
    assert [f.what for f in faults(tmp_path, layout="folder")] == ["category 'class' has no class"]


# ---------------------------------------------------------------------------------------------- real data
@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the clothing photographs are not there")
def test_the_clothing_photographs_are_read():
    found = table(CLOTHING)
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [3709, 1055, 332]
    assert [(c.name, len(c.classes)) for c in found.categories] == [("garment", 17), ("wearer", 2)]
