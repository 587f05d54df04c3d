"""Layout folder: what is a split, what is a class, and what is neither."""

import unicodedata
from pathlib import Path

import pytest
from PIL import features

from tests.support.datasets import faults, put
from trainers.data import images, layouts
from trainers.data.class_folders import split_of
from trainers.data.layouts import Scan
from trainers.data.table import Table
from trainers.data_config import DataConfig
from trainers.support.errors import Fault


def fill(root: Path, *folders: str, images: int = 3, ending: str = "jpg") -> None:
    for folder in folders:
        for k in range(images):
            put(root, f"{folder}/{k}.{ending}")


def scan(root: Path) -> Scan:
    return layouts.scan(DataConfig(root=str(root), layout="folder"))


def read(root: Path) -> Table:
    return layouts.read(DataConfig(root=str(root), layout="folder"))


def classes(root: Path) -> tuple[str, ...]:
    (category,) = read(root).categories
    return category.classes


def counts(root: Path) -> list[int]:
    return [len(read(root).split(name)) for name in ("train", "val", "test")]


def noted(root: Path) -> str:
    found = scan(root)
    return "\n".join([*found.read_as, *(f"{note.where}: {note.what}" for note in found.notes)])


def fault(root: Path) -> Fault:
    (one,) = faults(root, layout="folder")
    return one


# --------------------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Training", "train"),
        ("TRAIN", "train"),
        ("training_set", "train"),
        ("trainset", "train"),
        ("train-images", "train"),
        ("Train Data", "train"),
        ("images_train", "train"),
        ("valid", "val"),
        ("Validation_Set", "val"),
        ("dev", "val"),
        ("test_set", "test"),
        ("Testing", "test"),
        ("cat", None),
        ("trainer", None),
        ("train_station", None),
        ("latest", None),
        ("data", None),
        ("_", None),
    ],
)
def test_a_folder_is_named_after_a_split_in_many_ways(name: str, split: str | None):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("training_set", "test_set"), ("TRAIN", "TEST"), ("train-data", "test-data")]
)
def test_folders_named_like_splits_are_read_as_splits_and_said(tmp_path: Path, names: tuple[str, str]):
    fill(tmp_path, *(f"{name}/{label}" for name in names for label in ("glioma", "healthy")), images=5)
    assert classes(tmp_path) == ("glioma", "healthy")
    assert counts(tmp_path) == [8, 2, 10]
    assert scan(tmp_path).read_as == [f"splits '{names[1]}' as test, '{names[0]}' as train"]


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("seg_train", "seg_test", "test"),
        ("flowers-train", "flowers-val", "val"),
        ("x_train", "x_valid", "val"),
        ("1_Training", "2_Testing", "test"),
    ],
)
@pytest.mark.parametrize("inner", ["", "images/", "{}/"])
def test_names_of_splits_may_share_a_word_and_be_wrapped(
    tmp_path: Path, train: str, other: str, split: str, inner: str
):
    names = (train, other)
    fill(tmp_path, *(f"{n}/{inner.format(n)}{label}" for n in names for label in ("forest", "sea")), images=5)
    assert classes(tmp_path) == ("forest", "sea")
    assert len(read(tmp_path).split(split)) == 10
    assert f"{train}{'/' + inner.format(train).strip('/') if inner else ''}' as train" in noted(tmp_path)


@pytest.mark.parametrize(
    "names", [("test_tube", "test_strip"), ("night_train", "night_bus"), ("clean_test", "clean_val")]
)
def test_classes_that_share_a_word_are_no_splits(tmp_path: Path, names: tuple[str, str]):
    fill(tmp_path, *names, "shelf")
    assert classes(tmp_path) == tuple(sorted((*names, "shelf")))


def test_a_split_folder_wrapped_in_itself_is_unwrapped(tmp_path: Path):
    fill(
        tmp_path, *(f"{s}_set/{s}_set/{label}" for s in ("training", "test") for label in ("cats", "dogs")), images=5
    )
    assert classes(tmp_path) == ("cats", "dogs")
    assert "'training_set/training_set' as train" in noted(tmp_path)


def test_plain_split_folders_need_no_note(tmp_path: Path):
    fill(tmp_path, *(f"{split}/{label}" for split in ("train", "val") for label in ("cat", "dog")), images=30)
    assert noted(tmp_path) == ""


@pytest.mark.parametrize("name", ["validation", "test", "Testing"])
def test_a_split_folder_without_train_says_what_to_do(tmp_path: Path, name: str):
    fill(tmp_path, "cat", "dog", name)
    found = fault(tmp_path)
    assert found.what == f"named like a split: {name!r}; but there is no folder 'train' beside it"
    assert str(tmp_path / "train") in found.help


def test_two_folders_for_one_split_are_a_fault(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/dog", "Training/cat", "Training/dog", "test/cat")
    assert fault(tmp_path).what == "more than one folder is named like train: 'Training' and 'train'"


@pytest.mark.parametrize("others", [("bus", "tram"), ("test",), ()])
def test_a_train_folder_of_images_alone_is_no_split(tmp_path: Path, others: tuple[str, ...]):
    fill(tmp_path, "train", *others)
    found = fault(tmp_path)
    assert "'train' is named like a split, but holds images and no class folders" in found.what
    assert "layout: table" in found.help


def test_a_data_set_one_level_deeper_is_named(tmp_path: Path):
    fill(tmp_path, "archive/dataset/train/cat", "archive/dataset/train/dog", "archive/dataset/val/cat")
    assert fault(tmp_path).help == f"write data.root: {tmp_path}/archive/dataset"


def test_splits_below_the_classes_are_a_fault(tmp_path: Path):
    fill(tmp_path, *(f"{label}/{split}" for label in ("cat", "dog") for split in ("train", "test")))
    assert fault(tmp_path).what == "splits are below the classes, as in 'cat'"


def test_images_below_the_folders_of_classes_are_noted(tmp_path: Path):
    fill(tmp_path, "animals/cat", "animals/dog", "plants/oak", "plants")
    assert classes(tmp_path) == ("animals", "plants")
    assert "9 images in folders below classes, the first 'animals/cat/0.jpg'" in noted(tmp_path)


# --------------------------------------------------------------------------------------------------- what is no class
def test_an_environment_of_python_beside_the_classes_is_no_class(tmp_path: Path):
    fill(tmp_path, "cat", "dog", "env/lib")
    put(tmp_path, "env/pyvenv.cfg")
    assert classes(tmp_path) == ("cat", "dog")


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#snapshot",
        "Network Trash Folder",
        ".thumbs",
        ".ipynb_checkpoints",
        "#recycle",
        "$RECYCLE.BIN",
        "__MACOSX",
        "System Volume Information",
    ],
)
@pytest.mark.parametrize("place", ["", "cat/", "cat/deep/"])
def test_hidden_and_service_folders_are_left_out_at_any_depth_and_counted(tmp_path: Path, place: str, folder: str):
    fill(tmp_path, "cat", "dog", images=5)
    fill(tmp_path, f"{place}{folder}/a.jpg")
    assert classes(tmp_path) == ("cat", "dog")
    assert counts(tmp_path) == [8, 2, 0]
    assert f"left out: 3 hidden images in {place}{folder} (3)" in noted(tmp_path)


def test_hidden_images_are_counted(tmp_path: Path):
    fill(tmp_path, "cat", "dog")
    put(tmp_path, "cat/._0.jpg")
    assert "left out: 1 hidden image in cat/.* (1)" in noted(tmp_path)


@pytest.mark.parametrize("other", ["cache/checked/a.json", "mlflow.db"])
def test_what_a_study_leaves_beside_the_classes_is_no_class(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
):
    fill(tmp_path, "cat", "dog", "mine/studies/a/figures", images=5)
    put(tmp_path, f"mine/{other}")
    put(tmp_path, "s.yaml")
    monkeypatch.chdir(tmp_path)
    assert classes(Path()) == ("cat", "dog")
    assert "left out" not in noted(Path())


def test_what_a_check_leaves_beside_the_classes_is_no_class(tmp_path: Path):
    fill(tmp_path, "cat", "dog", images=5)
    put(tmp_path, "mlruns/cache/checked/a.npy")
    assert classes(tmp_path) == ("cat", "dog")
    assert "mlruns" not in noted(tmp_path)


@pytest.mark.parametrize("place", ["scripts", "train/scripts"])
def test_a_folder_without_images_is_no_class_and_noted(tmp_path: Path, place: str):
    top = "train/" if "/" in place else ""
    fill(tmp_path, f"{top}cat", f"{top}dog", images=5)
    put(tmp_path, f"{place}/run.py")
    assert classes(tmp_path) == ("cat", "dog")
    assert f"{place}: holds no image, so it is not a class" in noted(tmp_path)


def test_a_class_that_is_empty_in_train_alone_stays_a_class(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/dog", "val/cat", "val/emu")
    (tmp_path / "train/emu").mkdir()
    found = layouts.scan(DataConfig(layout="folder", root=str(tmp_path)))
    assert found.table.categories[0].classes == ("cat", "dog", "emu")
    assert [fault.what for fault in found.faults] == ["'emu' of class has 3 images in val and none in train"]


def test_a_folder_without_images_beside_the_splits_is_no_fault(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/dog", "val/cat")
    put(tmp_path, "scripts/run.py")
    assert counts(tmp_path) == [6, 3, 0]


# ---------------------------------------------------------------------------------------------------------- links
def test_a_linked_folder_inside_the_root_is_followed(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/dog/more", "val/cat")
    (tmp_path / "train/cat/more").symlink_to("../dog/more")
    assert counts(tmp_path) == [9, 3, 0]


def test_a_folder_that_is_linked_twice_is_read_once_a_class(tmp_path: Path):
    fill(tmp_path, "train/cat/real", "train/dog", "val/cat")
    (tmp_path / "train/cat/again").symlink_to("real")
    (tmp_path / "train/cat/thrice").symlink_to("again")
    assert counts(tmp_path) == [6, 3, 0]


@pytest.mark.parametrize(("link", "target"), [("cat/up", ".."), ("cat/self", "."), ("loop", "."), ("cat/a/up", "..")])
def test_links_in_a_circle_end_and_are_noted(tmp_path: Path, link: str, target: str):
    fill(tmp_path, "cat", "dog", "cat/a", images=5)
    (tmp_path / link).symlink_to(target)
    assert sum(counts(tmp_path)) == 15
    assert f"{link}: a link to a folder that contains it" in noted(tmp_path)


def test_links_between_classes_end(tmp_path: Path):
    fill(tmp_path, "cat", "dog", images=5)
    (tmp_path / "cat/dogs").symlink_to("../dog")
    (tmp_path / "dog/cats").symlink_to("../cat")
    assert sum(counts(tmp_path)) == 20


@pytest.mark.parametrize("link", ["emu", "cat/more"])
def test_a_linked_folder_out_of_the_root_is_refused_once(tmp_path: Path, link: str):
    fill(tmp_path, "set/cat", "set/dog", "outside")
    (tmp_path / "set" / link).symlink_to(tmp_path / "outside")
    assert fault(tmp_path / "set").what == f"the folder {link!r} is refused: a link out of the data set"


# -------------------------------------------------------------------------------------------------------- endings
@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "avif", "webp", "tif", "bmp", "gif", "ppm", "jp2"])
def test_what_pillow_reads_is_read(tmp_path: Path, ending: str):
    fill(tmp_path, "cat", "dog", ending=ending)
    assert sum(counts(tmp_path)) == 6


def test_other_files_are_counted_by_ending_with_what_to_do(tmp_path: Path):
    fill(tmp_path, "cat", "dog")
    fill(tmp_path, "cat", ending="HEIC")
    fill(tmp_path, "dog", ending="txt", images=2)
    put(tmp_path, "dog/Thumbs.db")
    put(tmp_path, "README.md")  # beside the classes there may be anything
    expected = "left out: 3 .heic (Pillow cannot read HEIC: convert them to JPEG), 2 .txt"
    assert noted(tmp_path).splitlines()[0].endswith(expected)


@pytest.mark.parametrize(("ending", "words"), [("HEIC", "convert"), ("zip", "unpack"), ("NEF", "develop")])
def test_nothing_but_files_that_cannot_be_read_is_a_fault_that_says_what_to_do(
    tmp_path: Path, ending: str, words: str
):
    fill(tmp_path, "cat", "dog", ending=ending)
    found = fault(tmp_path)
    assert found.what == "no readable image"
    assert found.help.startswith(f"6 .{ending.lower()} (")
    assert words in found.help


def test_files_beside_the_classes_of_a_split_are_counted(tmp_path: Path):
    fill(tmp_path, "train/cat", "train/dog", "val/cat")
    fill(tmp_path, "train", ending="xml")
    assert "left out: 3 .xml" in noted(tmp_path)


def test_an_archive_in_the_root_is_to_be_unpacked(tmp_path: Path):
    put(tmp_path, "photos.zip")
    assert "1 .zip (unpack it)" in fault(tmp_path).help


def test_a_class_that_cannot_be_read_is_not_dropped(tmp_path: Path):
    fill(tmp_path, "cat", "dog")
    fill(tmp_path, "emu", ending="heic")
    found = fault(tmp_path)
    assert found.where == "emu"
    assert "holds no readable image: 3 .heic" in found.what


def test_an_ending_whose_decoder_pillow_lacks_is_not_taken_for_an_image():
    assert all(images.pillow_reads(feature) for feature in ("", "webp"))
    assert not images.pillow_reads("a decoder of tomorrow")
    assert (".avif" in images.EXTENSIONS) == ("avif" in features.modules and features.check("avif"))
    assert not set(images.EXTENSIONS) & set(images.UNREAD)


def test_an_empty_folder_says_what_is_wanted(tmp_path: Path):
    assert fault(tmp_path) == Fault(
        str(tmp_path), "no readable image", "layout folder expects <class>/*.jpg or <split>/<class>/*.jpg"
    )


def test_images_without_any_folder_are_one_fault(tmp_path: Path):
    fill(tmp_path, ".", images=20)
    assert fault(tmp_path).what == "20 images but no class folder"


# ------------------------------------------------------------------------------------------------------- Unicode
def forms(name: str) -> list[str]:
    return [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]


@pytest.mark.parametrize("name", ["café", "Åland", "가방"])
def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path: Path, name: str):
    composed, apart = forms(name)
    fill(tmp_path, f"train/{apart}", "train/zoo", f"val/{composed}")
    assert sorted(classes(tmp_path)) == sorted([composed, "zoo"])
    assert counts(tmp_path) == [6, 3, 0]
    assert all((tmp_path / row.path).is_file() for row in read(tmp_path).rows)
    assert f"2 spellings of the class {composed!r} differ only in their Unicode form" in noted(tmp_path)


def test_two_forms_in_one_split_are_one_class_and_one_form_needs_no_note(tmp_path: Path):
    composed, apart = forms("café")
    fill(tmp_path / "a", composed, apart, "zoo", images=10)
    assert classes(tmp_path / "a") == (composed, "zoo")
    fill(tmp_path / "b", apart, "zoo", images=10)
    assert classes(tmp_path / "b") == (composed, "zoo")
    assert "Unicode" in noted(tmp_path / "a")
    assert "Unicode" not in noted(tmp_path / "b")
