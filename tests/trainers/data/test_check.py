"""Every fault of labels and images in one pass, once for a data set as it stands."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.datasets import put
from trainers.data import check, demo, layouts
from trainers.data.cache import open_cache
from trainers.data.check import Findings
from trainers.data.images import decode
from trainers.data.summary import PixelSummary
from trainers.data_config import DataConfig
from trainers.support.errors import DataError, Fault

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
    assert fault.what == "'img/00000.jpg' has 60 x 140 pixels, but its box ends at 61, 140"


def test_a_margin_may_leave_the_image_and_excuses_no_box_that_does(root: Path, tmp_path: Path):
    config = DataConfig(root=str(root), crop="box", box_margin=1.0)
    assert check.check(config).faults == ()
    table = check.ensure(config, tmp_path).table
    assert table == layouts.read(config)
    assert min(row.box[0] for row in table.rows) < 0
    Image.new("RGB", (60, 140)).save(root / "img/00000.jpg")
    (fault,) = check.check(config).faults
    assert "has 60 x 140 pixels, but its box ends at" in fault.what


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
    assert fault.what == "none of the 42 images exists; the first is 'img/00000.jpg'"


def test_identical_images_are_notes_and_stop_nothing(root: Path):
    image = (root / "img/00000.jpg").read_bytes()
    (root / "img/00024.jpg").write_bytes(image)
    (root / "img/00036.jpg").write_bytes(image)
    labels = [(root / f"split/{name}_attr.txt").read_text().split("\n")[0] for name in ("train", "val")]
    other = ", with different labels" if labels[0] != labels[1] else ""
    findings = found(root)
    assert findings.faults == ()
    assert [note.what for note in findings.notes if "byte for byte" in note.what] == [
        f"'img/00024.jpg' is byte for byte the same as 'img/00000.jpg', across train and val{other}",
        "'img/00036.jpg' is byte for byte the same as 'img/00000.jpg', across train and test",
    ]


def test_a_class_without_training_image_is_a_note(root: Path):
    for path in (root / "split/train_attr.txt", root / "split/val_attr.txt"):
        path.write_text("\n".join("5" + line[1:] for line in path.read_text().split("\n") if line))
    notes = [note.what for note in found(root).notes]
    assert "no training image shows 'floral' of texture" in notes


# ------------------------------------------------------------------------------------------- what is remembered
def looked_at(root: Path, cache: Path, *, again: bool = False, **settings: str) -> int:
    """How many images a check of the set looks at."""
    calls: list[tuple[int, int]] = []
    config = DataConfig(root=str(root), **settings)
    check.check(config, lambda done, total: calls.append((done, total)), cache=cache, again=again)
    return calls[-1][1] if calls else 0


def test_a_checked_data_set_is_not_checked_again(root: Path, tmp_path: Path):
    config, calls = DataConfig(root=str(root)), []
    found = [check.ensure(config, tmp_path, lambda done, total: calls.append((done, total))) for _ in range(2)]
    assert calls == [(32, 42), (42, 42)]
    assert found[0] == found[1]


def test_it_is_when_that_is_asked_for(root: Path, tmp_path: Path):
    assert [looked_at(root, tmp_path, again=again) for again in (False, False, True)] == [42, 0, 42]


def test_of_a_data_set_with_new_and_changed_images_only_those_are_looked_at(root: Path, tmp_path: Path):
    looked_at(root, tmp_path)
    image = (root / "img/00001.jpg").read_bytes()
    for k in range(42, 45):
        (root / f"img/{k:05d}.jpg").write_bytes(image)
    with (root / "split/test.txt").open("a") as file:
        file.writelines(f"\nimg/{k:05d}.jpg" for k in range(42, 45))
    assert looked_at(root, tmp_path) == 3
    (root / "img/00007.jpg").write_bytes(image)  # another size
    os.utime(root / "img/00008.jpg", (1, 1))
    assert looked_at(root, tmp_path) == 2
    (root / "img/00009.jpg").unlink()
    (root / "img/00009.jpg").symlink_to("00008.jpg")
    assert looked_at(root, tmp_path) == 1
    assert looked_at(root, tmp_path) == 0


def test_labels_splits_and_boxes_are_no_matter(root: Path, tmp_path: Path):
    looked_at(root, tmp_path)
    names = [name for split in ("train", "val") for name in (root / f"split/{split}.txt").read_text().split()]
    put(root, "labels.csv", "path,kind\n" + "".join(f"{name},{'ab'[k % 2]}\n" for k, name in enumerate(names)))
    assert looked_at(root, tmp_path, layout="table") == 0
    assert looked_at(root, tmp_path, crop="box") == 0  # the six of test, which the table lacks, are not forgotten


def test_a_remembered_image_is_judged_by_its_box(root: Path, tmp_path: Path):
    Image.new("RGB", (60, 140)).save(root / "img/00000.jpg")
    looked_at(root, tmp_path)
    lines = (root / "split/train_bbox.txt").read_text().split("\n")
    (root / "split/train_bbox.txt").write_text("\n".join(["001 001 061 140", *lines[1:]]))
    config = DataConfig(root=str(root), crop="box")
    (fault,) = check.check(config, cache=tmp_path).faults
    assert fault.what == "'img/00000.jpg' has 60 x 140 pixels, but its box ends at 61, 140"


def test_copies_are_remembered_and_said_in_one_sentence(root: Path, tmp_path: Path):
    for name in ("00001", "00024", "00036"):
        (root / f"img/{name}.jpg").write_bytes((root / "img/00000.jpg").read_bytes())
    config = DataConfig(root=str(root))
    first, again = (check.ensure(config, tmp_path) for _ in range(2))
    assert first == again
    assert sum("byte for byte" in note.what for note in again.notes) == 3
    (said,) = [line for line in again.summary(config).notes if "identical" in line]
    assert said.startswith("3 pairs of identical images, 1 across train and val, 1 across train and test")


def test_an_image_with_a_fault_is_looked_at_each_time(root: Path, tmp_path: Path):
    (root / "img/00007.jpg").write_bytes(b"<html>")
    (root / "img/00008.jpg").unlink()
    config = DataConfig(root=str(root))
    assert looked_at(root, tmp_path) == 42
    assert looked_at(root, tmp_path) == 2
    assert [fault.where for fault in check.check(config, cache=tmp_path).faults] == [
        "split/train.txt:8",
        "split/train.txt:9",
    ]


@pytest.mark.parametrize("damage", [b"", b"{}", "half", "flipped", "other"])
def test_a_damaged_memory_means_looking_again(root: Path, tmp_path: Path, damage: bytes | str):
    first = check.ensure(DataConfig(root=str(root)), tmp_path)
    (remembered,) = tmp_path.glob("checked/*")
    whole = remembered.read_bytes()
    other = io.BytesIO()
    np.save(other, np.zeros(3))
    spoilt = {
        "half": whole[: len(whole) // 2],
        "flipped": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "other": hashlib.sha256(other.getbuffer()).digest() + other.getvalue(),
    }
    remembered.write_bytes(damage if isinstance(damage, bytes) else spoilt[damage])
    assert looked_at(root, tmp_path) == 42
    assert check.ensure(DataConfig(root=str(root)), tmp_path) == first
    assert remembered.read_bytes() == whole


def test_what_was_looked_at_before_an_interrupt_is_remembered(root: Path, tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check.check(DataConfig(root=str(root)), interrupt, cache=tmp_path)
    assert looked_at(root, tmp_path) <= 10


def test_a_check_needs_no_memory(root: Path, tmp_path: Path):
    put(tmp_path, "checked", "a file, so there can be no folder of this name")
    config = DataConfig(root=str(root))
    found = check.check(config, cache=tmp_path)
    assert found.faults == ()
    assert found.notes[-1].what.startswith("the results for the images cannot be saved: ")


def test_a_changed_image_is_checked_again(root: Path, tmp_path: Path):
    check.ensure(DataConfig(root=str(root)), tmp_path)
    (root / "img/00007.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        check.ensure(DataConfig(root=str(root)), tmp_path)


def test_ensuring_a_bad_data_set_names_all_its_faults_with_exit_code_3(root: Path, tmp_path: Path):
    (root / "img/00007.jpg").write_bytes(b"")
    (root / "split/val_attr.txt").write_text("9 0 0 0 0 0\n")
    with pytest.raises(DataError) as caught:
        check.ensure(DataConfig(root=str(root)), tmp_path)
    assert len(caught.value.faults) == 3
    assert caught.value.exit_code == 3


# ------------------------------------------------------------------------------------------- notes by kind, pixels
def test_notes_that_are_answered_alike_are_one_sentence():
    notes = [Fault("a", "x", "mend it"), Fault("b", "y", "mend it"), Fault("c", "z"), Fault("d", "w", "mend it")]
    assert list(check.alike(notes)) == [
        (Fault("a", "x, and 2 more of this kind", "mend it"), 3),
        (Fault("c", "z"), 1),
    ]


def test_pixels_are_those_of_the_images_or_of_their_boxes(root: Path):
    def pixels(**settings: str) -> PixelSummary:
        seen = found(root, **settings).pixels
        assert seen is not None
        return seen

    sizes = [decode(path.read_bytes()).size for path in sorted((root / "img").glob("*.jpg"))]
    assert pixels().median == tuple(int(np.median(side)) for side in zip(*sizes, strict=True))
    assert pixels().largest == max(sizes, key=lambda size: size[0] * size[1])
    boxes = [row.box for row in layouts.read(DataConfig(root=str(root), crop="box")).rows if row.box]
    assert pixels(crop="box").smallest in [(box[2] - box[0], box[3] - box[1]) for box in boxes]


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the clothing photographs are not there")
def test_the_clothing_photographs_have_no_fault():
    assert found(CLOTHING, layout="table").faults == ()
