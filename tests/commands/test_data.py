"""`sweep data check`, and what a sweep says of its data set: on the terminal, in the report, in the card."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.cli import lay_out, sweep
from tests.support.datasets import put

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose val holds copies of training images."""
    folder = lay_out(tmp_path_factory.mktemp("copied"))
    for k in range(3):
        shutil.copy(folder / f"garments/img/{k:05d}.jpg", folder / f"garments/img/{30 + k:05d}.jpg")
    return folder


@pytest.fixture(scope="module")
def swept(copied: Path) -> tuple[Path, str]:
    ended = sweep(copied, "run", "space.yaml", "--no-mlflow")
    assert ended.returncode == 0
    return copied, ended.stderr


NOTE = "3 pairs of identical images, 3 across train and val"


def test_a_sweep_says_what_it_understood_and_its_notes_in_one_line(swept):
    _, said = swept
    lines = said.splitlines()
    assert "data: garments, layout challenge: 30 train, 12 val, 6 test" in lines
    assert any(line.startswith("  texture   7 classes: ") for line in lines)
    (note,) = [line for line in lines if line.startswith("note: ")]
    assert NOTE in note
    assert note.endswith("(details: sweep data check space.yaml)")


@pytest.mark.slow
def test_report_and_card_have_the_notes(swept):
    folder, _ = swept
    assert sweep(folder, "best", "--export", "submission", "--no-mlflow").returncode == 0
    assert sweep(folder, "report").returncode == 0
    study = folder / "mlruns/studies/question"
    (card,) = study.glob("finals/*/card.md")
    assert NOTE in card.read_text().replace("\\", "")
    page = (study / "report.html").read_text()
    assert NOTE in page
    assert "data: garments, layout challenge: 30 train, 12 val, 6 test" in page


def test_the_card_says_which_number_is_which_class(swept):
    folder, _ = swept
    sweep(folder, "best", "--export", "submission", "--no-mlflow")
    (card,) = (folder / "mlruns/studies/question").glob("finals/*/card.md")
    rows = [line.split(" | ")[:3] for line in card.read_text().splitlines() if line.startswith("| sleeve")]
    assert rows == [
        ["| sleeve", "0", "long_sleeve"],
        ["| sleeve", "1", "short_sleeve"],
        ["| sleeve", "2", "sleeveless"],
    ]


@pytest.mark.slow
def test_a_plan_has_it_too_as_text_and_json(copied):
    ended = sweep(copied, "plan", "space.yaml", "--json")
    data = json.loads(ended.stdout)["data"]
    assert data["images"] == {"train": 30, "val": 12, "test": 6}
    assert [category["name"] for category in data["categories"]][:2] == ["texture", "sleeve"]
    assert data["notes"][-1].startswith(NOTE)


def test_it_decodes_the_images_when_asked_and_only_those_of_a_search_space(copied):
    ended = sweep(copied, "data", "check", "space.yaml", "--cache")
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (0, "48 images are decoded")
    assert list(copied.glob("mlruns/cache/*/images.npy"))
    refused = sweep(copied, "data", "check", "garments", "--cache")
    assert refused.returncode == 2
    assert "sweep data check SPACE.yaml --cache" in refused.stderr


def pets(root: str, count: int) -> list[str]:
    return [
        f"{root}/{split}/{pet}/{k}.png" for split in ("train", "val") for pet in ("cat", "dog") for k in range(count)
    ]


def pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (k, 2 * k, 255 - k)).save(folder / name)


def test_a_folder_is_checked_without_a_yaml_file(tmp_path: Path):
    pictures(tmp_path, *pets("my pets", 6))
    ended = sweep(tmp_path, "data", "check", "my pets")
    assert ended.returncode == 0
    *said, note, end = ended.stdout.splitlines()
    assert said == [
        'in a search space: data: {layout: "folder", root: "my pets"}',
        "data: my pets, layout folder: 12 train, 12 val, 0 test",
        "  pixels: 16 x 16 each",
        "  class  2 classes: cat 12, dog 12",
    ]
    assert note.startswith("note   my pets: val has 12 images, so accuracies have a standard error of up to 0.14")
    assert end == "0 faults, 1 note"


def test_a_file_of_labels_is_checked_with_settings_from_the_command_line(tmp_path: Path):
    pictures(tmp_path, *(f"images/{k}.png" for k in range(20)))
    put(tmp_path, "set.csv", "path,kind\n" + "".join(f"images/{k}.png,{'ab'[k % 2]}\n" for k in range(20)))
    ended = sweep(tmp_path, "data", "check", "set.csv", "--set", "data.val_share=0.4", "--json")
    document = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert document["data"]["images"] == {"train": 12, "val": 8, "test": 0}
    assert document["data"]["held_out"] is True


def test_an_archive_is_answered_with_the_line_that_unpacks_it(tmp_path: Path):
    put(tmp_path, "my photos.zip", "PK")
    ended = sweep(tmp_path, "data", "check", "my photos.zip")
    assert ended.returncode == 3
    assert "help: unpack it: unzip 'my photos.zip' -d 'my photos'; then data.root: my photos" in ended.stderr


def test_a_folder_with_a_table_for_each_split_is_checked_by_what_is_printed_for_a_search_space(tmp_path: Path):
    lines = "".join(f"{k}.png,{'ab'[k % 2]}\n" for k in range(20))
    pictures(tmp_path / "set", *(f"{k}.png" for k in range(22)))
    put(tmp_path / "set", "train.csv", f"path,kind\n{lines}")
    put(tmp_path / "set", "test.csv", "path\n20.png\n21.png\n")
    first = sweep(tmp_path, "data", "check", "set").stdout.splitlines()
    assert first[1].startswith("data: set, layout table: 16 train, 4 val, 2 test")
    put(tmp_path, "space.yaml", f"{first[0].removeprefix('in a search space: ')}\ntrain: {{backbone: resnet18}}\n")
    assert sweep(tmp_path, "data", "check", "space.yaml").stdout.splitlines() == first[1:]


def test_the_line_for_a_search_space_has_what_set_says(tmp_path: Path):
    pictures(tmp_path / "shop", *(f"{k}.png" for k in range(20)))
    lines = "".join(f"{k};{k}.png;{'ab'[k % 2]};{'train' if k < 14 else 'val'}\n" for k in range(20))
    put(tmp_path / "shop", "export.csv", f"id;file;kind;fold\n{lines}")
    said = ("--set", "data.path=file", "--set", "data.split=fold", "--set", "data.ignore=[id]")
    first = sweep(tmp_path, "data", "check", "shop/export.csv", *said)
    line, *rest = first.stdout.splitlines()
    assert (first.returncode, rest[0]) == (0, "data: shop, layout table: 14 train, 6 val, 0 test")
    put(tmp_path, "space.yaml", f"{line.removeprefix('in a search space: ')}\ntrain: {{backbone: resnet18}}\n")
    assert sweep(tmp_path, "data", "check", "space.yaml").stdout.splitlines() == rest


def test_a_missing_path_is_an_error_in_words(tmp_path: Path):
    ended = sweep(tmp_path, "data", "check", "nothing")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: there is no such file")


def test_notes_are_folded_by_kind_and_listed_when_asked_for(tmp_path: Path):
    pictures(tmp_path, *pets("set", 15))
    for path in (tmp_path / "set/val").rglob("*.png"):
        shutil.copy(tmp_path / "set/train" / path.relative_to(tmp_path / "set/val"), path)
    lines = sweep(tmp_path, "data", "check", "set").stdout.splitlines()
    assert lines[-3].startswith("note   set: val has 30 images, so accuracies have a standard error")
    assert lines[-2:] == [
        "note   set: 30 pairs of identical images, 30 across train and val: --all lists them",
        "0 faults, 31 notes",
    ]
    every = sweep(tmp_path, "data", "check", "set", "--all").stdout.splitlines()
    assert sum("is byte for byte" in line for line in every) == 30
    assert every[-1] == "0 faults, 31 notes"
    document = json.loads(sweep(tmp_path, "data", "check", "set", "--json").stdout)
    assert len(document["notes"]) == 31
    assert document["data"]["pixels"]["median"] == [16, 16]


def test_a_second_check_looks_at_nothing_unless_it_is_asked_to(tmp_path: Path):
    pictures(tmp_path, *pets("set", 6))
    first, second = (sweep(tmp_path, "data", "check", "set") for _ in range(2))
    assert second.stdout == first.stdout
    path = tmp_path / "set/train/cat/0.png"
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sweep(tmp_path, "data", "check", "set").returncode == 0  # as is written in --help
    assert sweep(tmp_path, "data", "check", "set", "--again").returncode == 3


# ------------------------------------------------------------------------------------------- a layout of one's own
LAYOUT = """\
from pathlib import Path


def mine(root: Path, every: int = 5):
    for k, path in enumerate(sorted(root.rglob("*.png"))):
        ROW


layouts = {"mine": mine}
"""
ROW = 'yield path, "train" if k % every else "val", {"kind": path.parent.name, "tags": ["a", "b"][: k % 3]}'


def own(folder: Path, row: str = ROW, args: str = "{every: 4}") -> None:
    pictures(folder, *pets("set", 15))
    put(folder, "own.py", LAYOUT.replace("ROW", row))
    data = f"{{layout: mine, root: set, layout_args: {args}}}"
    put(folder, "space.yaml", f"extensions: [own.py]\ndata: {data}\ntrain: {{backbone: resnet18}}\n")


def test_a_layout_of_an_extension_file_is_checked(tmp_path: Path):
    own(tmp_path)
    ended = sweep(tmp_path, "data", "check", "space.yaml", "--json")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["data"]["images"]) == (0, {"train": 45, "val": 15, "test": 0})
    assert [one["name"] for one in document["data"]["categories"]] == ["kind", "tags"]
    assert not [note for note in document["notes"] if "no class at all" in note["what"]]
    other = sweep(tmp_path, "data", "check", "space.yaml", "--set", "data.layout_args.every=6", "--json")
    assert json.loads(other.stdout)["data"]["images"] == {"train": 50, "val": 10, "test": 0}


@pytest.mark.parametrize(
    ("row", "code", "where", "what"),
    [
        ("yield path, 'tarin', {'kind': 'a'}", 3, "own.py:4", "no split 'tarin'"),
        ("yield path, 'train', {}['kind']", 2, "own.py:6", "mine of layouts failed: KeyError: 'kind'"),
        ("return", 2, "own.py:4", "mine of layouts returns nothing"),
        ("return\n    yield", 3, "own.py:4", "no rows"),
    ],
)
@pytest.mark.parametrize("command", [["data", "check"], ["plan"], ["run"]])
def test_a_layout_that_is_wrong_is_named_with_its_line_and_nothing_is_created(
    tmp_path: Path, command: list[str], row: str, code: int, where: str, what: str
):
    own(tmp_path, row)
    ended = sweep(tmp_path, *command, "space.yaml", SWEEP_TRAINER="fake")
    said = ended.stdout + ended.stderr
    assert ended.returncode == code
    assert (where in said, what in said, "Traceback" in said) == (True, True, False)
    assert not list(tmp_path.rglob("study.json"))
