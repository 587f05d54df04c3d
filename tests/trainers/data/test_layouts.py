"""Every layout becomes one table; no path leads out of the data set."""

from pathlib import Path

import pytest

from tests.support.datasets import challenge_set, faults, put
from trainers.data import layouts
from trainers.data.table import Table
from trainers.data_config import DataConfig

CLOTHING = Path(__file__).parents[3] / "../shared/data/clothing"


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    return challenge_set(tmp_path / "FashionDataset")


def table(root: Path, **settings: str) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="table", **settings))


def folder(root: Path, **settings: str) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="folder", **settings))


# ----------------------------------------------------------------------------------------------------------- safety
@pytest.mark.parametrize("path", ["../../etc/passwd.jpg", "/etc/passwd", "img/../../x.jpg", "img/\0.jpg"])
def test_a_path_that_leads_out_is_refused_and_quoted(challenge: Path, path: str):
    put(challenge, "split/train.txt", f"img/00000.jpg\n{path}\n")
    (fault,) = faults(challenge)
    assert (fault.where, fault.what) == ("split/train.txt:2", f"the path {path!r} is refused")


def test_a_refused_path_is_not_in_the_table(challenge: Path):
    put(challenge, "split/train.txt", "img/00000.jpg\n/etc/passwd\n")
    found, *_ = layouts.scan(DataConfig(root=str(challenge)))
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


# --------------------------------------------------------------------------------------------------------- the root
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
    assert fault.help == "layout challenge expects its labels there"


@pytest.mark.parametrize("above", ["", "train/"])
def test_a_root_of_class_folders_suggests_their_layout(tmp_path: Path, above: str):
    put(tmp_path, f"{above}hat/1.jpg")
    put(tmp_path, f"{above}shirt/2.jpg")
    (fault,) = faults(tmp_path)
    assert fault.help.endswith("; for one folder of images per class, write data.layout: folder")


def test_a_challenge_folder_without_its_labels_is_not_taken_for_class_folders(tmp_path: Path):
    put(tmp_path, "img/1.jpg")
    (fault,) = faults(tmp_path)
    assert fault.help == "layout challenge expects its labels there"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("set.zip", "unpack it: unzip {} -d {}"),
        ("set.tar.gz", "unpack it: mkdir {1} && tar -xf {0} -C {1}"),
        ("set.tgz", "unpack it: mkdir {1} && tar -xf {0} -C {1}"),
        ("set.7z", "unpack it: 7z x {} -o{}"),
        ("set.rar", "unpack it: unrar x {} {}/"),
    ],
)
def test_a_root_that_is_an_archive_is_refused_with_the_line_that_unpacks_it(tmp_path: Path, name: str, line: str):
    put(tmp_path, name)
    (fault,) = faults(tmp_path / name)
    assert fault.what == "is an archive"
    assert fault.help == f"{line.format(tmp_path / name, tmp_path / 'set')}; then data.root: {tmp_path / 'set'}"


def test_images_in_an_archive_beside_the_table_are_refused_with_the_line_that_unpacks_it(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,kind\n1.jpg,x\n2.jpg,y\n3.jpg,x\n4.jpg,y\n")
    put(tmp_path, "photos.zip")
    (fault,) = faults(tmp_path, layout="table")
    assert (fault.where, fault.what) == (str(tmp_path / "photos.zip"), "is an archive, and the images are missing")
    for k in range(1, 5):
        put(tmp_path, f"{k}.jpg")
    assert len(table(tmp_path).rows) == 4


def test_a_folder_with_a_table_for_each_split_is_guessed(tmp_path: Path):
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        put(tmp_path, name)
    guessed = layouts.guess(tmp_path)
    assert (guessed.layout, guessed.labels) == ("table", {"test": "test.csv", "train": "train.csv"})
    put(tmp_path, "labels.csv")
    assert layouts.guess(tmp_path).labels == "labels.csv"


# ------------------------------------------------------------------------------------------------------------ table
def test_a_table_has_a_category_a_column_and_classes_in_alphabetical_order(tmp_path: Path):
    put(
        tmp_path,
        "labels.csv",
        '\ufeffpath,split,kind,colour\r\na.jpg,train,shoe,"red, dark"\r\nb.jpg,train,hat,blue\r\n'
        "c.jpg,val,hat,blue\r\n\r\n",
    )
    found = table(tmp_path)
    assert [(c.name, c.classes) for c in found.categories] == [
        ("kind", ("hat", "shoe")),
        ("colour", ("blue", "red, dark")),
    ]
    assert [(r.labels, r.where) for r in found.rows] == [
        ((1, 1), "labels.csv:2"),
        ((0, 0), "labels.csv:3"),
        ((0, 0), "labels.csv:4"),
    ]


def test_rows_of_test_may_leave_all_labels_empty(tmp_path: Path):
    put(tmp_path, "labels.csv", "path,split,kind\na.jpg,train,x\nd.jpg,train,y\nb.jpg,valid,y\nc.jpg,test,\n")
    assert [(row.split, row.labels) for row in table(tmp_path).rows] == [
        ("train", (0,)),
        ("train", (1,)),
        ("val", (1,)),
        ("test", None),
    ]


def test_the_splits_of_a_table_have_more_than_one_name_each(tmp_path: Path):
    names = ("Training", "train", "VAL", "dev", "valid", "testing")
    lines = [f"{k}.jpg,{name},{'xy'[k % 2]}" for k, name in enumerate(names)]
    put(tmp_path, "labels.csv", "\n".join(["path,split,kind", *lines]))
    assert [row.split for row in table(tmp_path).rows] == ["train", "train", "val", "val", "val", "test"]


def test_every_wrong_row_of_a_table_is_named(tmp_path: Path):
    put(
        tmp_path,
        "l.csv",
        "path,split,a,b\n1.jpg,train,x,\n2.jpg,trian,x,y\n3.jpg,val,x\n4.jpg,test,x,\n5.jpg,val,z,q\n",
    )
    found = faults(tmp_path, layout="table", labels="l.csv")
    assert [(f.where, f.what) for f in found] == [
        ("l.csv:4", "3 columns, but the header has 4"),
        ("l.csv:3", "no split 'trian'"),
    ]
    assert found[1].help == "did you mean 'train'?"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,split,a\n", "no column 'path'"),
        ("", "no column 'path'"),
        ("path,split\na.jpg,train\n", "no category"),
        ("path,a,a\nx.jpg,1,2\ny.jpg,2,1\n", "2 columns are called 'a'"),
        ('path,a\n"x.jpg,1\n', "a quote is opened here but never closed"),
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


# ----------------------------------------------------------------------------------------------------------- folder
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
        ("train/stray.jpg", "an image outside any class folder")
    ]


def test_a_misspelt_split_folder_is_named(tmp_path: Path):
    for name in ("train/cat/a.jpg", "train/dog/a.jpg", "tets/cat/a.jpg"):
        put(tmp_path, name)
    (fault,) = faults(tmp_path, layout="folder")
    assert (fault.where, fault.help) == ("tets", "did you mean 'test'?")


# -------------------------------------------------------------------------------------------------------- real data
@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the clothing photographs are not there")
def test_the_clothing_photographs_are_read():
    found = table(CLOTHING)
    assert [len(found.split(name)) for name in ("train", "val", "test")] == [3709, 1055, 332]
    assert [(c.name, len(c.classes)) for c in found.categories] == [("garment", 17), ("wearer", 2)]
