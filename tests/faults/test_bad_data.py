"""D1 to D3: data sets full of faults. One pass of `sweep data check` tells them all, in the words of golden files.

SWEEP_GOLDEN=1 writes the words anew.
"""

import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_tools import sweep
from PIL import Image

from trainers.data.images import decode, quiet

GOLDEN = Path(__file__).parent / "golden"
SPACE = (
    "study: bad\ndata: {{layout: {layout}, root: set{more}}}\ntrain: {{backbone: test_resnet, pretrained: false}}\n"
)
Build = Callable[[Path], None]


def told(folder: Path, layout: str, more: str = "") -> tuple[str, str]:
    """What `sweep data check` says, after `sweep run` was refused on the same data before any folder was made."""
    (folder / "space.yaml").write_text(SPACE.format(layout=layout, more=more))
    refused = sweep(folder, "run", "space.yaml")
    assert refused.returncode == 3, refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (folder / "mlruns/studies").exists()
    checked = sweep(folder, "data", "check", "space.yaml")
    assert checked.returncode == 3, checked.stderr
    assert "Traceback" not in checked.stderr
    return checked.stdout, refused.stderr


def golden(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SWEEP_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def encoded(image: Image.Image, format: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def too_large() -> bytes:
    return encoded(Image.new("1", (14_200, 14_200)), "TIFF", compression="group4")


def changed(path: Path, line: int, text: str) -> None:
    """Put `text` in place of a line, counted from 1."""
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


# ------------------------------------------------------------------------------------------ images
def bad_images(root: Path) -> None:
    """The same five faults in train, val and test, and links and pipes that lead elsewhere."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    photo = encoded(Image.fromarray(noise), "JPEG")
    for first in (0, 30, 42):
        files = [
            photo[: len(photo) // 2],
            b"",
            b"<!DOCTYPE html><html>",
            too_large(),
            encoded(Image.new("F", (9, 9)), "TIFF"),
        ]
        for k, content in enumerate(files):
            (root / f"img/{first + k:05d}.jpg").write_bytes(content)
    for name in ("00010", "00011", "00012", "00013", "00014", "00015"):
        (root / f"img/{name}.jpg").unlink()
    os.mkfifo(root / "img/00010.jpg")
    with socket.socket(socket.AF_UNIX) as one:
        place = Path.cwd()
        os.chdir(root / "img")  # the address of a socket is short
        one.bind("00011.jpg")
        os.chdir(place)
    (root / "img/00012.jpg").mkdir()
    (root / "img/00013.jpg").symlink_to("00013.jpg")
    (root / "img/00014.jpg").symlink_to("/dev/zero")
    (root / "img/00016.jpg").rename(root / "img/00016.JPG")
    (root / "img/00031.jpg").write_bytes((root / "img/00020.jpg").read_bytes())
    (root / "img/00045.jpg").write_bytes((root / "img/00021.jpg").read_bytes())


# ------------------------------------------------------------------------------------------- lists
def bad_lists(root: Path) -> None:
    split = root / "split"
    for line, text in enumerate(
        [
            "0 0 0 0 0",
            "0 0 0 0 0 0 0",
            "-1 0 0 0 0 0",
            "7 0 0 0 0 0",
            "0.5 0 0 0 0 0",
            "a 0 0 0 0 0",
            "",
            "0,0,0,0,0,0",
        ],
        2,
    ):
        changed(split / "train_attr.txt", line, text)
    paths = [
        "../../etc/passwd",
        "/etc/passwd",
        "img/../img/00003.jpg",
        "img\\00004.jpg",
        "img/0\0.jpg",
        "img/\x1b[31m.jpg",
    ]
    for line, text in enumerate([*paths, "img/00007.jpg ", "img/00007.jpg", "out/x.jpg", "img/nowhere.jpg"], 2):
        changed(split / "train.txt", line, text)
    (root / "out").symlink_to("/etc")
    changed(split / "val.txt", 1, "img/00020.jpg")
    changed(split / "test.txt", 1, "./img/00021.jpg")
    for line, text in enumerate(["1 1 10", "10 10 1 1", "0 0 5 5", "1 1 9999 9999", "1.0 1 5 5"], 1):
        changed(split / "val_bbox.txt", line, text)
    (split / "val_attr.txt").write_text((split / "val_attr.txt").read_text() + "0 0 0 0 0 0\n")
    (split / "test_attr.txt").write_text("0 0 0 0 0 0\n")


def harmless_lists(root: Path) -> None:
    """A BOM, DOS line ends, header lines and a blank last line stop nothing."""
    for path in (root / "split").glob("*.txt"):
        head = {"train.txt": "image_name\n", "train_attr.txt": "a b c d e f\n", "train_bbox.txt": "x1 y1 x2 y2\n"}
        text = head.get(path.name, "") + path.read_text()
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")


def bad_encoding(root: Path) -> None:
    split = root / "split"
    (split / "train_attr.txt").write_bytes(b"\xff" + (split / "train_attr.txt").read_bytes())
    (split / "val.txt").unlink()
    os.mkfifo(split / "val.txt")
    (split / "test.txt").unlink()
    (split / "test.txt").mkdir()


# ------------------------------------------------------------------------------------- other layouts
def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (shade, 80, 90)).save(path)


def bad_table(root: Path) -> None:
    for k in range(8):
        picture(root / f"{k}.png", k)
    lines = [
        "path,split,colour,place",
        *(
            f"{k}.png,{'train' if k < 5 else 'val'},{'red' if k % 2 else 'blue'},{'high' if k % 3 else 'low'}"
            for k in range(8)
        ),
        "../../etc/passwd,train,red,high",
        "/etc/passwd,train,red,high",
        '"a\nb.png",train,red,high',
        "c\\d.png,train,red,high",
        '"\x1b]0;title\x07.png",train,red,high',
        "0.png,val,red,high",
        "gone.png,test,,",
        "1.PNG,tset,red,high",
        "2.png,train,red",
        "3.png,train,red,high,more",
        "9.png,train,,high",
        ".,train,red,high",
        '10.png,train,"r\x1b[31med",high',
    ]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")


def bad_folder(root: Path) -> None:
    for split in ("train", "val"):
        for label in ("coat", "skirt"):
            for k in range(3):
                picture(root / split / label / f"{k}.png", 3 * k + len(split))
    picture(root / "train" / "lost.png", 7)
    picture(root / "tset" / "coat" / "1.png", 7)
    (root / "train/coat/0.png").write_bytes(b"")
    os.mkfifo(root / "train/coat/pipe.jpg")
    (root / "train/skirt/loop.jpg").symlink_to("loop.jpg")
    (root / "train/skirt/round").symlink_to("..")
    (root / "train/skirt/out.jpg").symlink_to("/etc/hostname")
    picture(root / "train/skirt/a\nb.png", 9)
    picture(root / "train/skirt/\x1b]0;title\x07.png", 10)
    shutil.copy(root / "train/coat/1.png", os.fsencode(root / "train/coat") + b"/caf\xe9.png")
    picture(root / "train/evil\x1b[31m/1.png", 11)
    for k in range(200):
        (root / "train" / f"notes{k}.txt").write_text("junk")


SETS: dict[str, tuple[str, str, str, Build]] = {
    "images": ("D1", "challenge", "", bad_images),
    "lists": ("D2", "challenge", ", crop: box", bad_lists),
    "encoding": ("D2", "challenge", "", bad_encoding),
    "table": ("D3", "table", "", bad_table),
    "folder": ("D3", "folder", "", bad_folder),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.fault(case), *([pytest.mark.many] if name == "encoding" else [])])
        for name, (case, *_) in SETS.items()
    ],
)
def test_every_fault_comes_in_one_pass_in_these_words(tmp_path, garments, case, name):
    _, layout, more, build = SETS[name]
    root = tmp_path / "set"
    if layout == "challenge":
        shutil.copytree(garments, root)
    root.mkdir(exist_ok=True)
    build(root)
    found, refused = told(tmp_path, layout, more)
    golden(name, found)
    assert all(ord(c) >= 32 or c == "\n" for c in found + refused)
    for line in found.splitlines():
        if line.startswith("fault"):
            assert line.removeprefix("fault  ").split(": ", 1)[1].split(" (")[0] in refused


@pytest.mark.fault("D2")
def test_a_byte_order_mark_dos_lines_headers_and_a_blank_end_are_no_faults(tmp_path, garments, case):
    shutil.copytree(garments, tmp_path / "set")
    harmless_lists(tmp_path / "set")
    (tmp_path / "space.yaml").write_text(SPACE.format(layout="challenge", more=", crop: box"))
    checked = sweep(tmp_path, "data", "check", "space.yaml")
    assert (checked.returncode, checked.stdout.splitlines()[-1][:9]) == (0, "0 faults,")


@pytest.mark.fault("D1")
def test_good_images_of_odd_modes_are_read_right(case):
    grey = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    glass = Image.new("RGBA", (8, 6), (10, 20, 30, 0))
    lying = Image.Exif()
    lying[0x0112] = 6
    with quiet():
        np.testing.assert_array_equal(np.asarray(decode(encoded(wide)))[..., 0], grey)
        assert np.asarray(decode(encoded(glass))).min() == 255
        assert decode(encoded(Image.fromarray(grey), exif=lying)).size == (6, 8)
        assert decode(encoded(Image.new("CMYK", (8, 6)), "JPEG")).mode == "RGB"
        assert np.asarray(decode(encoded(Image.fromarray(grey).convert("P")))).shape == (6, 8, 3)


@pytest.mark.fault("D1")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path, garments, case):
    shutil.copytree(garments, tmp_path / "set")
    (tmp_path / "set/img/00003.jpg").chmod(0)
    found, _ = told(tmp_path, "challenge")
    assert "split/train.txt:4: 'img/00003.jpg' cannot be read: Permission denied" in found
