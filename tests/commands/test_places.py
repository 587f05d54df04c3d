"""Paths as people write them: with ~, in another Unicode form, not UTF-8; and a board's score that is none."""

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from sweeper.errors import EnvironmentFault
from sweeper.store import paths
from tests.support.cli import SPACE, lay_out, sweep
from trainers.config import Recipe
from trainers.data import layouts
from trainers.data_config import DataConfig
from trainers.support import files

FOREIGN = os.fsdecode(b"b\xff")
OTHER_COMMANDS = [("plan", "space.yaml"), ("status",), ("doctor",)]  # which begin as `run` does


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"), [("~", ""), ("~/pictures", "/pictures"), ("~/a ~b", "/a ~b"), ("~/ä%20/", "/ä%20")]
)
def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(at_home, monkeypatch, given, meant):
    train = {"backbone": "resnet18", "weights": given}
    recipe = Recipe.model_validate({"data": {"root": given, "labels": given}, "train": train})
    assert recipe.data.root == recipe.data.labels == recipe.train.weights == f"{at_home}{meant}"
    monkeypatch.setenv("SWEEP_HOME", given)
    assert str(paths.home()) == f"{at_home}{meant}"


@pytest.mark.parametrize("given", ["data/~", "./~", "a/", "../x", "/", "x~"])
def test_any_other_path_stays_as_it_is_written(given):
    assert DataConfig(root=given).root == given


def test_a_home_that_nobody_knows_is_named(monkeypatch):
    with pytest.raises(ValueError, match="no home folder is known for '~nobody-here/x'"):
        DataConfig(root="~nobody-here/x")
    monkeypatch.setenv("SWEEP_HOME", "~nobody-here")
    with pytest.raises(EnvironmentFault, match="no home folder"):
        paths.home()


@pytest.mark.slow
@pytest.mark.process
def test_the_command_line_knows_the_home_folder_too(at_home):
    folder = lay_out(at_home / "here", SPACE.replace("garments", "~/here/garments"))
    ended = sweep(folder, "run", "~/here/space.yaml", "--no-mlflow", SWEEP_HOME="~/runs")
    assert ended.returncode == 0, ended.stderr
    assert sweep(folder, "report", "--output", "~/page.html", SWEEP_HOME="~/runs").returncode == 0
    assert (at_home / "page.html").exists()
    assert (at_home / "runs" / "studies" / "question").is_dir()
    assert not (folder / "~").exists()


# ------------------------------------------------------------------------------------- Unicode forms
@pytest.mark.parametrize(("written", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["Kleider ä", "é/ü", "plain/Åsa"])
def test_a_data_set_is_found_under_its_name_in_another_unicode_form(tmp_path, monkeypatch, written, there, name):
    monkeypatch.chdir(tmp_path)
    root = Path(unicodedata.normalize(there, name))
    for split in ("train", "val"):
        for kind in ("a", "b"):
            (root / split / kind).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / split / kind / "0.png")
    for base in (Path(), tmp_path):
        given = str(base / unicodedata.normalize(written, name))
        assert layouts.read(DataConfig(layout="folder", root=given)).root == base / root


def test_of_two_forms_the_one_that_is_written_is_taken(tmp_path):
    forms = [tmp_path / unicodedata.normalize(form, "ä") for form in ("NFC", "NFD")]
    for each in forms:
        each.mkdir()
    assert [files.as_on_disk(each) for each in forms] == forms


# ------------------------------------------------------------------------------------- not UTF-8
def pictures(root: Path, *odd: str) -> None:
    for split in ("train", "val"):
        for kind in ("a", "b"):
            (root / split / kind).mkdir(parents=True)
            Image.new("RGB", (40, 40), (len(split) * 9, ord(kind), 9)).save(root / split / kind / "0.png")
    for name in odd:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (1, 2, len(name))).save(root / name, "png")


FOLDERS = SPACE.replace("{layout: challenge, root: garments, crop: box}", "{layout: folder, root: pictures}")


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "odd"),
    [
        (("data", "check"), f"train/a/{FOREIGN}.png"),
        (("data", "check"), f"train/{FOREIGN}/0.png"),
        (("data", "check"), f"{FOREIGN}/a/0.png"),
        (("run",), f"train/a/{FOREIGN}.png"),
        pytest.param(("run",), f"train/{FOREIGN}/0.png", marks=pytest.mark.slow),
        pytest.param(("run",), f"{FOREIGN}/a/0.png", marks=pytest.mark.slow),
    ],
)
def test_images_whose_names_are_not_utf8_are_refused_in_words(tmp_path, odd, command):
    pictures(tmp_path / "pictures", odd)
    (tmp_path / "space.yaml").write_text(FOLDERS)
    ended = sweep(tmp_path, *command, "space.yaml")
    assert ended.returncode == 3, ended.stdout
    assert "Traceback" not in ended.stderr
    assert "\\udcff" in ended.stdout + ended.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [(), ("run", "space.yaml"), *(pytest.param(words, marks=pytest.mark.slow) for words in OTHER_COMMANDS)],
)
def test_a_folder_whose_name_is_not_utf8_is_refused_in_words(tmp_path, words):
    folder = tmp_path / FOREIGN
    pictures(folder / "pictures")
    (folder / "space.yaml").write_text(FOLDERS)
    ended = sweep(folder, *words, SWEEP_HOME="")
    assert ended.returncode == 3, ended.stdout
    assert "this name is not UTF-8" in ended.stderr
    assert "\\udcff" in ended.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [
        ("run", f"{FOREIGN}.yaml"),
        ("plan", "space.yaml", "--set", f"data.root={FOREIGN}"),
        ("status", FOREIGN),
        ("score", FOREIGN, "0.5"),
        ("report", FOREIGN),
        ("run", "space.yaml", "--new-study", FOREIGN),
    ],
)
def test_words_that_are_not_utf8_are_refused_without_a_traceback(tmp_path, words):
    pictures(tmp_path / "pictures")
    for name in ("space", FOREIGN):
        (tmp_path / f"{name}.yaml").write_text(FOLDERS)
    ended = sweep(tmp_path, *words)
    assert ended.returncode in (2, 3), ended.stdout
    assert "Traceback" not in ended.stderr


# ------------------------------------------------------------------------------------- scores
@pytest.mark.process
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "good", "0,5", ""])
def test_a_score_that_is_no_number_is_refused(tmp_path, value):
    ended = sweep(tmp_path, "score", "question", "--", value)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "number" in ended.stderr or "not a valid float" in ended.stderr
