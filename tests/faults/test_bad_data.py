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
from PIL import Image

from tests.support import golden
from tests.support.cli import sweep
from trainers.data.images import decode, pillow_errors

pytestmark = pytest.mark.process

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


def bad_encoding(root: Path) -> None:
    split = root / "split"
    (split / "train_attr.txt").write_bytes(b"\xff" + (split / "train_attr.txt").read_bytes())
    (split / "val.txt").unlink()
    os.mkfifo(split / "val.txt")
    (split / "test.txt").unlink()
    (split / "test.txt").mkdir()


# ------------------------------------------------------------------------------------- deepfashion
CLASSES = (7, 3, 3, 4, 6, 3)  # of the six categories that `garments` has


def flags(indices: str) -> str:
    """A line of class numbers as DeepFashion writes it: a flag an attribute, and a blank behind the last."""
    chosen = [int(word) for word in indices.split()]
    return "".join(f"{int(k == one)} " for one, size in zip(chosen, CLASSES, strict=True) for k in range(size))


def as_deepfashion(root: Path) -> Path:
    """The challenge's files as DeepFashion has them: flags in Anno_fine/, images in folders below Img/."""
    labels = (root / "split").rename(root / "Anno_fine")
    (root / "Img/img").mkdir(parents=True)
    (root / "img").rename(root / "Img/img/Sheer_Blouse")
    for split in ("train", "val", "test"):
        paths = (labels / f"{split}.txt").read_text()
        (labels / f"{split}.txt").write_text(paths.replace("img/", "img/Sheer_Blouse/"))
        lines = ["0 0 0 0 0 0"] * 6 if split == "test" else (labels / f"{split}_attr.txt").read_text().splitlines()
        (labels / f"{split}_attr.txt").write_text("".join(f"{flags(line)}\n" for line in lines))
    return labels


def bad_flags(root: Path) -> None:
    labels, good = as_deepfashion(root), flags("0 0 0 0 0 0").strip()
    lines = [
        good[:-2],
        good + " 0",
        "0 0 0 0 0",
        "0 0 0 0 0 0",
        "0 0 0 0 0 0 0",
        "-1" + good[1:],
        "7" + good[1:],
        "0.5" + good[1:],
        "n" + good[1:],
        "0" + good[1:],
        good[:-1] + "1",
        "",
        good.replace(" ", ","),
    ]
    for line, text in enumerate(lines, 2):
        changed(labels / "train_attr.txt", line, text)
    paths = [
        "../../etc/passwd",
        "/etc/passwd",
        "Img/img/Sheer_Blouse/00003.jpg",
        "img\\Sheer_Blouse\\00004.jpg",
        "img/Sheer_Blouse/0\0.jpg",
        "img/Sheer_Blouse/\x1b[31m.jpg",
        "img/Sheer_Blouse/00007.JPG",
        "img/Sheer_Blouse/00008.jpg ",
        "img/Sheer_Blouse/00008.jpg",
        "img/Sheer_Blouse/00009.jpg 1",
    ]
    for line, text in enumerate(paths, 2):
        changed(labels / "train.txt", line, text)
    changed(labels / "val.txt", 1, "img/Sheer_Blouse/00020.jpg")
    changed(labels / "test.txt", 1, "img//Sheer_Blouse/00021.jpg")
    for line, text in enumerate(["1 1 10", "10 10 1 1", "0 0 5 5", "1 1 9999 9999", "1.0 1 5 5"], 1):
        changed(labels / "val_bbox.txt", line, text)
    (labels / "val_attr.txt").write_text((labels / "val_attr.txt").read_text() + good + "\n")
    (labels / "test_attr.txt").write_text(good + "\n")
    (labels / "test_bbox.txt").unlink()


def bad_attributes(root: Path) -> None:
    """The list of the attributes itself, on which the meaning of every flag hangs."""
    labels = as_deepfashion(root)
    changed(labels / "list_attr_cloth.txt", 1, "27")
    changed(labels / "list_attr_cloth.txt", 4, "graphic")
    changed(labels / "list_attr_cloth.txt", 5, "floral 1")
    (labels / "val_attr.txt").unlink()
    (labels / "test_attr.txt").write_bytes((labels / "test_attr.txt").read_bytes()[:-1] + b"\xff\n")


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
    "flags": ("D2", "deepfashion", ", crop: box", bad_flags),
    "attributes": ("D2", "deepfashion", "", bad_attributes),
    "table": ("D3", "table", "", bad_table),
    "folder": ("D3", "folder", "", bad_folder),
}
SLOWER = ("encoding", "attributes")  # what others show, too: not in the fast suite


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.fault(case), *([pytest.mark.many] if name in SLOWER else [])])
        for name, (case, *_) in SETS.items()
    ],
)
def test_every_fault_comes_in_one_pass_in_these_words(tmp_path, garments, case, name):
    _, layout, more, build = SETS[name]
    root = tmp_path / "set"
    if layout in ("challenge", "deepfashion"):
        shutil.copytree(garments, root)
    root.mkdir(exist_ok=True)
    build(root)
    found, refused = told(tmp_path, layout, more)
    golden.same(GOLDEN / f"{name}.txt", found)
    assert all(ord(c) >= 32 or c == "\n" for c in found + refused)
    for line in found.splitlines():
        if line.startswith("fault"):
            assert line.removeprefix("fault  ").split(": ", 1)[1].split(" (")[0] in refused


def harmless(text: str, head: str = "") -> bytes:
    """The same with a BOM, DOS line ends, a header line and a blank last line."""
    return b"\xef\xbb\xbf" + f"{head}{text}\n".replace("\n", "\r\n").encode()


def harmless_lists(labels: Path) -> None:
    attributes = "a b c d e f\n" if labels.name == "split" else f"{' '.join(f'a{k}' for k in range(26))}\n"
    heads = {"train.txt": "image_name\n", "train_attr.txt": attributes, "train_bbox.txt": "x1 y1 x2 y2\n"}
    for path in labels.glob("*.txt"):
        path.write_bytes(harmless(path.read_text(), heads.get(path.name, "")))


def harmless_table(root: Path) -> None:
    for k in range(4):
        picture(root / f"{k}.png", k)
    lines = ["path,split,colour", "0.png,train,red", "1.png,train,blue", "2.png,val,red", "3.png,val,blue"]
    (root / "labels.csv").write_bytes(harmless("\n".join(lines) + "\n"))


@pytest.mark.fault("D2")
@pytest.mark.parametrize("layout", ["challenge", pytest.param("deepfashion", marks=pytest.mark.many), "table"])
def test_a_byte_order_mark_dos_lines_headers_and_a_blank_end_are_no_faults(tmp_path, garments, case, layout):
    root, more = tmp_path / "set", ", crop: box"
    if layout == "table":
        harmless_table(root)
        more = ""
    else:
        shutil.copytree(garments, root)
        harmless_lists(as_deepfashion(root) if layout == "deepfashion" else root / "split")
    (tmp_path / "space.yaml").write_text(SPACE.format(layout=layout, more=more))
    checked = sweep(tmp_path, "data", "check", "space.yaml")
    assert (checked.returncode, checked.stdout.splitlines()[-1][:9]) == (0, "0 faults,")


@pytest.mark.fault("D1")
def test_good_images_of_odd_modes_are_read_right(case):
    grey = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    glass = Image.new("RGBA", (8, 6), (10, 20, 30, 0))
    lying = Image.Exif()
    lying[0x0112] = 6
    with pillow_errors():
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
