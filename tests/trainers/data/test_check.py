"""Every fault of labels and images in one pass, once for a data set as it stands."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.config import DataConfig
from trainers.data import check, demo, layouts
from trainers.data.cache import open_cache
from trainers.data.check import Findings
from trainers.support.errors import DataError

CLOTHING = Path(__file__).parents[3] / "../shared/data/clothing"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "set"
    demo.draw(root, images=(24, 12, 6), seed=1)
    return root


@pytest.fixture
def root(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    copy = tmp_path / "set"
    for path in drawn.rglob("*.*"):
        (copy / path.relative_to(drawn)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(drawn)).write_bytes(path.read_bytes())
    return copy


def found(root: Path, **settings: str) -> Findings:
    return check.check(DataConfig(root=str(root), **settings))


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def test_a_good_data_set_has_no_fault(root: Path):
    assert found(root, crop="box").faults == ()


def test_bad_files_of_every_split_come_in_one_pass(root: Path):
    good = (root / "img/00000.jpg").read_bytes()
    huge = io.BytesIO()
    Image.new("1", (14_200, 14_200)).save(huge, "TIFF", compression="group4")
    (root / "img/00003.jpg").write_bytes(good[: len(good) // 2])
    (root / "img/00005.jpg").write_bytes(b"")
    (root / "img/00024.jpg").write_bytes(b"<html><body>404</body></html>")
    (root / "img/00036.jpg").write_bytes(huge.getvalue())
    (root / "img/00037.jpg").unlink()
    faults = found(root).faults
    assert [fault.where for fault in faults] == [
        "split/train.txt:4",
        "split/train.txt:6",
        "split/val.txt:1",
        "split/test.txt:1",
        "split/test.txt:2",
    ]
    for fault, words in zip(faults, ["truncated", "is empty", "<html>", "million", "is missing"], strict=True):
        assert words in fault.what


def test_odd_modes_that_can_be_read_are_no_faults(root: Path):
    grey = np.arange(200 * 150, dtype=np.uint16).reshape(200, 150)
    images = [Image.fromarray(grey), *(Image.new(mode, (150, 200)) for mode in ("P", "L", "RGBA", "LA", "1"))]
    for k, image in enumerate(images):
        image.save(root / f"img/{k:05d}.jpg", "PNG")
    (root / "img/00030.jpg").write_bytes(jpeg(Image.new("CMYK", (150, 200))))
    assert found(root).faults == ()


def test_faults_of_labels_do_not_hide_those_of_images(root: Path):
    lines = (root / "split/val_attr.txt").read_text().split("\n")
    (root / "split/val_attr.txt").write_text("\n".join(["9 0 0 0 0 0", *lines[1:]]))
    (root / "img/00001.jpg").write_bytes(b"")
    assert [fault.where for fault in found(root).faults] == ["split/val_attr.txt:1", "split/train.txt:2"]


def test_a_box_beyond_its_image_is_a_fault(root: Path):
    Image.new("RGB", (60, 140)).save(root / "img/00000.jpg")
    lines = (root / "split/train_bbox.txt").read_text().split("\n")
    (root / "split/train_bbox.txt").write_text("\n".join(["001 001 061 140", *lines[1:]]))
    assert found(root).faults == ()
    (fault,) = found(root, crop="box").faults
    assert fault.what == "'img/00000.jpg' has 60 x 140 pixels, and its box ends at 61, 140"


def test_a_margin_may_leave_the_image_and_excuses_no_box_that_does(root: Path, tmp_path: Path):
    config = DataConfig(root=str(root), crop="box", box_margin=1.0)
    assert check.check(config).faults == ()
    table = check.ensure(config, tmp_path).table
    assert table == layouts.read(config)
    assert min(row.box[0] for row in table.rows) < 0
    Image.new("RGB", (60, 140)).save(root / "img/00000.jpg")
    (fault,) = check.check(config).faults
    assert "has 60 x 140 pixels, and its box ends at" in fault.what


def test_another_margin_is_not_another_check(root: Path, tmp_path: Path):
    configs = [DataConfig(root=str(root), crop="box", box_margin=m) for m in (0, 0.2)]
    tables = [check.ensure(config, tmp_path).table for config in configs]
    assert len(list(tmp_path.glob("checked/*"))) == 1
    assert tables[0].fingerprint != tables[1].fingerprint


def test_another_margin_is_another_cache_with_other_pixels(root: Path, tmp_path: Path):
    configs = [DataConfig(root=str(root), crop="box", box_margin=share, size=32) for share in (0, 0.2)]
    caches = [open_cache(layouts.read(config), config, tmp_path) for config in configs]
    assert len(list(tmp_path.glob("*-32"))) == 2
    assert (caches[0].images != caches[1].images).any()
    assert (caches[0].sizes < caches[1].sizes).all()


def test_a_missing_image_suggests_the_spelling_that_is_there(root: Path):
    (root / "img/00002.jpg").rename(root / "img/00002.JPG")
    (fault,) = found(root).faults
    assert (fault.where, fault.help) == ("split/train.txt:3", "did you mean '00002.JPG'?")


def test_a_path_with_a_folder_too_much_or_something_behind_it_suggests_the_image(root: Path):
    listed = (root / "split/train.txt").read_text().splitlines()
    listed[1:4] = [f"set/{listed[1]}", f"{listed[2]} 1", f"nowhere/{'x' * 300}.jpg"]
    (root / "split/train.txt").write_text("\n".join(listed))
    helps = [fault.help for fault in found(root).faults]
    assert helps == ["did you mean 'img/00001.jpg'?", "did you mean 'img/00002.jpg'?", ""]


def test_no_image_at_all_is_one_fault(root: Path):
    (root / "img").rename(root / "images")
    (fault,) = found(root).faults
    assert fault.what == "none of the 42 images is there; the first is 'img/00000.jpg'"


def test_identical_images_are_notes_and_stop_nothing(root: Path):
    image = (root / "img/00000.jpg").read_bytes()
    (root / "img/00024.jpg").write_bytes(image)
    (root / "img/00036.jpg").write_bytes(image)
    labels = [(root / f"split/{name}_attr.txt").read_text().split("\n")[0] for name in ("train", "val")]
    other = ", with other labels" if labels[0] != labels[1] else ""
    findings = found(root)
    assert findings.faults == ()
    assert [note.what for note in findings.notes if "byte for byte" in note.what] == [
        f"'img/00024.jpg' is byte for byte 'img/00000.jpg', across train and val{other}",
        "'img/00036.jpg' is byte for byte 'img/00000.jpg', across train and test",
    ]


def test_a_class_without_training_image_is_a_note(root: Path):
    lines = (root / "split/train_attr.txt").read_text().split("\n")
    (root / "split/train_attr.txt").write_text("\n".join("5" + line[1:] for line in lines if line))
    notes = [note.what for note in found(root).notes]
    assert "no training image shows 'floral' of texture" in notes


def test_a_checked_data_set_is_not_checked_again(root: Path, tmp_path: Path):
    config, calls = DataConfig(root=str(root)), []
    for _ in range(2):
        found = check.ensure(config, tmp_path / "cache", lambda done, total: calls.append((done, total)))
    assert calls == [(32, 42), (42, 42)]
    assert len(found.table.rows) == 42


def test_copies_are_remembered_and_said_in_one_sentence(root: Path, tmp_path: Path):
    for name in ("00001", "00024", "00036"):
        (root / f"img/{name}.jpg").write_bytes((root / "img/00000.jpg").read_bytes())
    first, again = (check.ensure(DataConfig(root=str(root)), tmp_path) for _ in range(2))
    assert first == again
    assert sum("byte for byte" in note.what for note in again.notes) == 3
    (gist,) = [line for line in again.gist if "copies" in line]
    assert gist.startswith("3 images are copies of others (1 across train and val, 1 across train and test")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"copies": 3}', '{"root": "x", "notes": []}'])
def test_a_remembered_check_that_cannot_be_read_is_made_anew(root: Path, tmp_path: Path, content: str):
    first = check.ensure(DataConfig(root=str(root)), tmp_path)
    (remembered,) = tmp_path.glob("checked/*")
    whole = remembered.read_text()
    remembered.write_text(content)
    assert check.ensure(DataConfig(root=str(root)), tmp_path) == first
    assert remembered.read_text() == whole


def test_a_changed_image_is_checked_again(root: Path, tmp_path: Path):
    check.ensure(DataConfig(root=str(root)), tmp_path)
    (root / "img/00007.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        check.ensure(DataConfig(root=str(root)), tmp_path)


def test_a_changed_time_means_another_check(root: Path, tmp_path: Path):
    for time in (1, 2):
        os.utime(root / "img/00000.jpg", (time, time))
        check.ensure(DataConfig(root=str(root)), tmp_path)
    assert len(list(tmp_path.glob("checked/*"))) == 2


def test_ensuring_a_bad_data_set_names_all_its_faults_with_exit_code_3(root: Path, tmp_path: Path):
    (root / "img/00007.jpg").write_bytes(b"")
    (root / "split/val_attr.txt").write_text("9 0 0 0 0 0\n")
    with pytest.raises(DataError) as caught:
        check.ensure(DataConfig(root=str(root)), tmp_path)
    assert len(caught.value.faults) == 3
    assert caught.value.exit_code == 3
    assert list(tmp_path.glob("checked/*")) == []


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the clothing photographs are not there")
def test_the_clothing_photographs_have_no_fault():
    assert found(CLOTHING, layout="table").faults == ()
