"""A finished model on new images, from the command line and from Python, without its data set and its study."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sweeper
import trainers
from sweeper.errors import DataError, EnvironmentFault, UserError
from sweeper.model import find, image_files
from tests.support.cli import sweep
from tests.support.finished import final, really, sweep_and_export
from trainers.data import layouts
from trainers.data_config import DataConfig
from trainers.evaluation import answers
from trainers.support.checksummed import load_array

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # test_predictor.py has the fast ones

DATA = DataConfig(layout="table", root="photos", size=32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two trials and a final; not to be written to."""
    return sweep_and_export(tmp_path_factory.mktemp("finished"), "--no-mlflow")


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the current folder."""
    folder = Path(shutil.copytree(finished, tmp_path / "here"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SWEEP_HOME", str(folder / "mlruns"))
    return folder


def test_a_final_predicts_bit_for_bit_without_its_data_set_and_its_study(finished, tmp_path):
    (tmp_path / "new").mkdir()
    table = layouts.read(DATA.model_copy(update={"root": str(finished / "photos")}))
    names = [f"{number:03d}.png" for number in range(len(table.split("test")))]
    for name, row in zip(names, table.split("test"), strict=True):
        shutil.copy(finished / "photos" / row.path, tmp_path / "new" / name)
    shutil.copy(final(finished) / "model.safetensors", tmp_path / "my.safetensors")
    ended = really(tmp_path, "predict", "my.safetensors", "new", "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    heat = document["model"]["temperature"]
    logits = load_array(final(finished) / "test_logits.npy")
    expected = answers.probabilities(logits, table.categories, heat)
    assert [Path(image["path"]).name for image in document["images"]] == names
    for image, row in zip(document["images"], expected, strict=True):
        shares = {one["class"]: one["probability"] for part in image["categories"] for one in part["classes"]}
        np.testing.assert_array_equal([shares[c] for category in table.categories for c in category.classes], row)
    assert heat.keys() == {"colour", "place"}
    assert document["model"]["views"] == 2 or document["model"]["tau"] is not None


def test_what_cannot_be_read_is_named_and_the_exit_code_is_1(here):
    (here / "photos/text.jpg").write_text("no image")
    (here / "photos/IMG_1.HEIC").write_bytes(b"1")
    ended = really(here, "predict", "question/0", "photos/test000.png", "photos/text.jpg", "--csv", "out/a.csv")
    assert (ended.returncode, ended.stdout) == (1, "out/a.csv\n")
    assert "photos/text.jpg: is not an image" in ended.stderr
    assert "model: trial 0 of study question" in ended.stderr
    (row,) = csv.DictReader((here / "out/a.csv").read_text().splitlines())
    assert row.keys() == {"path", "colour", "colour probability", "place", "place probability"}
    assert 0 < float(row["colour probability"]) <= 1


@pytest.mark.parametrize(
    "made", ["photos/test000.png", "names.txt", "mlruns/studies/question/trials/0000/model.safetensors"]
)
def test_a_csv_overwrites_nothing_that_is_read(here, made):
    (here / "names.txt").write_text("photos/test000.png\n")
    before = (here / made).read_bytes()
    ended = sweep(here, "predict", "question/0", "names.txt", "photos", "--csv", made)
    assert ended.returncode == 2
    assert "--csv would overwrite a file that is read here" in ended.stderr
    assert (here / made).read_bytes() == before


def test_a_csv_goes_into_a_pipe_and_to_the_target_of_a_link(here):
    (here / "link.csv").symlink_to("target.csv")
    (here / "target.csv").write_text("before")
    words = ("predict", "question/0", "photos/test000.png", "--csv")
    written = really(here, *words, "/dev/stdout").stdout
    assert written.splitlines()[0] == "path,colour,colour probability,place,place probability"
    assert really(here, *words, "link.csv").returncode == 0
    assert (here / "link.csv").is_symlink()
    assert written.startswith((here / "target.csv").read_text())


def test_a_table_shows_an_image_on_a_line_and_top_the_likeliest_classes(here):
    ended = really(here, "predict", "question", "photos/test000.png", "--top", "2")
    header, line = ended.stdout.splitlines()
    assert header.split() == ["image", "colour", "place"]
    assert line.count(",") == 2
    assert "the final model of trial" in ended.stderr


def test_python_reads_studies_and_predicts(here):
    study = sweeper.open_study("question")
    assert list(study.trials()["trial"].sort_values()) == [0, 1]
    assert study.best.number == study.trials().iloc[0]["trial"]
    found = sweeper.load_model("question").predict(here / "photos/test000.png")
    assert found["colour"].answer in ("red", "green", "blue")
    assert sum(found["colour"].probabilities.values()) == pytest.approx(1)
    with pytest.raises(KeyError, match="the model has no category 'color': it has colour, place"):
        found["color"]


def test_importing_sweeper_loads_no_heavy_library():
    code = "import sweeper, sys; print(*{'torch', 'numpy', 'pandas', 'pydantic', 'optuna'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == ""


@pytest.mark.parametrize("name", ["trainers/__init__.py", "trainers/data.txt", "trainers.py"])
def test_trainers_of_the_user_in_front_of_ours_are_named(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    found = run_python(
        tmp_path, "import sys; sys.path.insert(0, '.'); import trainers; print(trainers.__file__)"
    ).stdout
    ended = run_python(tmp_path, "import sys, sweeper; sys.path.insert(0, '.'); sweeper.open_study('a')")
    if found.strip() == trainers.__file__:  # a folder without __init__.py comes last, unless the install is editable
        assert name == "trainers/data.txt"
        assert "there is no study yet" in ended.stderr
    else:
        assert "ImportError: `import trainers` finds" in ended.stderr
        assert str(tmp_path) in ended.stderr


def run_python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True)


# ------------------------------------------------------------------------------------- which model
def test_a_model_is_found_by_study_trial_folder_and_file(here):
    made = final(here)
    assert find.find("question").path == made / "model.safetensors"
    assert find.find("question/1").path == here / "mlruns/studies/question/trials/0001/model.safetensors"
    for word in (made, made / "model.safetensors", here / "mlruns/studies/question"):
        assert find.find(str(word)) == find.find("question")
    shutil.rmtree(made)
    assert find.find("question").kind == "trial"


@pytest.mark.parametrize(
    ("word", "help"),
    [
        ("qestion", "did you mean 'question'?"),
        ("qestion/1", "did you mean 'question'?"),
        ("question/9", "the nearest are 0, 1"),
        ("absent.safetensors", "check the path, or name a study"),
        ("photos", "give a study, STUDY/TRIAL, the folder of a run, or a model file"),
        ("photos/test000.png", "the model comes before the images: sweep predict MODEL IMAGES"),
    ],
)
def test_a_word_that_is_no_model_is_answered_with_the_nearest(here, word, help):
    with pytest.raises(UserError) as caught:
        find.find(word)
    assert caught.value.help == help


def test_a_trial_whose_model_was_removed_is_refused_with_the_command_that_trains_it_again(here):
    for number in (0, 1):
        (here / f"mlruns/studies/question/trials/000{number}/model.safetensors").unlink()
        with pytest.raises(EnvironmentFault, match="was removed") as caught:
            find.find(f"question/{number}")
        assert f"sweep best question --trial {number} > again.yaml && sweep run again.yaml" in caught.value.help
    recipe = sweep(here, "best", "question", "--trial", "0")
    assert "A trial of study question: trial 0" in recipe.stdout
    assert sweep(here, "best", "question", "--trial", "7").returncode == 2


def test_a_model_of_before_is_refused_with_the_command_that_makes_a_new_one(here):
    from trainers.support.checkpoint import load_weights, read_notes, save_weights

    path = here / "mlruns/studies/question/trials/0000/model.safetensors"
    notes = {key: value for key, value in read_notes(path).items() if key in ("recipe", "epoch")}
    save_weights(path, load_weights(path), notes)
    ended = really(here, "predict", "question/0", "photos/test000.png")
    assert ended.returncode == 3
    assert "an older version of sweep" in ended.stderr
    assert "sweep best question --export submission --again" in ended.stderr


# ---------------------------------------------------------------------------------- which images
def test_folders_lists_and_tables_are_read(tmp_path):
    for name in ("a/1.jpg", "a/b/2.PNG", "a/.hidden.jpg", "a/notes.md", "3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("3.jpg\n\na/1.jpg\n")
    (tmp_path / "windows.txt").write_text("3.jpg\n", encoding="utf-16")
    (tmp_path / "list.csv").write_text("id;path\n7;a/b/2.PNG\n")
    (tmp_path / "people.csv").write_text("Nr,Bild\n1000,3.jpg\n1001,a/1.jpg\n")
    words = [str(tmp_path / name) for name in ("a", "list.txt", "windows.txt", "list.csv", "people.csv", "3.jpg")]
    listed = image_files.listed(words)
    found = [path.relative_to(tmp_path).as_posix() for path in listed.paths]
    named = ["3.jpg", "a/1.jpg", "3.jpg", "a/b/2.PNG", "3.jpg", "a/1.jpg", "3.jpg"]
    assert found == ["a/1.jpg", "a/b/2.PNG", *named]
    rows = [{"id": "7", "path": "a/b/2.PNG"}, {"Nr": "1000", "Bild": "3.jpg"}, {"Nr": "1001", "Bild": "a/1.jpg"}]
    assert listed.cells == [{}, {}, {}, {}, {}, *rows, {}]


def test_pictures_that_cannot_be_read_are_left_out_of_a_folder_and_named(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/IMG_1.HEIC").touch()
    found = image_files.listed([str(tmp_path)])
    assert [path.name for path in found.paths] == ["a.jpg"]
    assert ".heic" in found.left_out[0]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("absent.jpg", None, "there is no such file or folder"),
        ("empty", "", "there are no images"),
        ("absent.txt", None, "cannot be read"),
        ("unmarked.txt", "a\0.\0j\0p\0g\0", "this list is not UTF-8"),
        ("a.csv", "image,label\na,1\n", "no column 'path'"),
        ("c.csv", "front,back\na.jpg,b.jpg\n", "no column 'path'"),
        ("a.txt", "\n\n", "there are no images"),
        ("b.txt", b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_words_that_mean_no_image_are_refused(tmp_path, name, content, what):
    if name == "empty":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=what):
        image_files.listed([str(tmp_path / name)])


def test_boxes_are_found_by_the_file_that_they_are_of(tmp_path):
    (tmp_path / "boxes.csv").write_text("path,left,top,right,bottom\na.jpg,1,2,30,40\nsub/../b.jpg,0,0,5,5\n")
    given = image_files.boxes(tmp_path / "boxes.csv")
    paths = [tmp_path / "b.jpg", tmp_path / "c.jpg", tmp_path / "a.jpg"]
    assert [box for _, box in image_files.with_boxes(paths, given)] == [(0, 0, 5, 5), None, (1, 2, 30, 40)]


@pytest.mark.parametrize("cells", ["1,2,x,4", "5,2,5,4", "1,9,3,4", "1.5,2,3,4", ",,,"])
def test_wrong_boxes_are_named_by_their_line(tmp_path, cells):
    (tmp_path / "boxes.csv").write_text(f"path,left,top,right,bottom\na.jpg,1,2,30,40\nb.jpg,{cells}\n")
    with pytest.raises(DataError) as caught:
        image_files.boxes(tmp_path / "boxes.csv")
    assert caught.value.where == str(tmp_path / "boxes.csv:3")


def test_boxes_without_a_column_are_refused(tmp_path):
    (tmp_path / "boxes.csv").write_text("path,left,top,width,height\na.jpg,1,2,30,40\n")
    with pytest.raises(UserError, match="no column 'right'"):
        image_files.boxes(tmp_path / "boxes.csv")
