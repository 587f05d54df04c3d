"""A model leaves sweep from the command line: as files that agree with `sweep predict`, or as a sentence."""

import base64
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault, UserError
from sweeper.model import export
from sweeper.model.find import FoundModel
from tests.support.cli import environment
from tests.support.finished import final, really, sweep_and_export

NOWHERE = FoundModel(Path("absent.safetensors"), "a model")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two trials and a final; not to be written to."""
    return sweep_and_export(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def here(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "here"))


def exported(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ended = really(folder, "export", *words)
    assert ended.returncode == 0, ended.stderr
    return ended


def predicted(folder: Path, model: str, image: str) -> dict[str, tuple[str, float]]:
    """The answer and its probability, by category."""
    document = json.loads(really(folder, "predict", model, image, "--json").stdout)
    (found,) = document["images"]
    parts = [(one["category"], one["classes"][0]) for one in found["categories"]]
    return {name: (best["class"], best["probability"]) for name, best in parts}


# ------------------------------------------------------------------------------------------ programs
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_lines_of_the_card_say_what_predict_says(here):
    """ONNX Runtime, numpy and Pillow are enough."""
    ended = exported(here, "question", "--format", "onnx")
    assert ended.stdout == "question-onnx/model.onnx\nquestion-onnx/labels.json\n"
    assert "model: the final model of trial" in ended.stderr
    assert "checked with ONNX Runtime in batches of 1, 2, 5 images" in ended.stderr
    card = (final(here) / "card.md").read_text()
    lines = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)[0]
    place = here / "question-onnx"
    shutil.copy(here / "photos/test000.png", place / "photo.jpg")
    code = f"{lines}\nimport sys; assert not {{'torch', 'sweeper', 'trainers'}} & set(sys.modules)"
    used = subprocess.run([sys.executable, "-P", "-c", code], cwd=place, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    said = {name: (answer, float(share)) for name, answer, share in map(str.split, used.stdout.splitlines())}
    expected = predicted(here, "question", "photos/test000.png")
    assert {name: answer for name, (answer, _) in said.items()} == {n: answer for n, (answer, _) in expected.items()}
    assert [share for _, share in said.values()] == pytest.approx([p for _, p in expected.values()], abs=1e-4)
    assert json.loads((place / "labels.json").read_text())["model"].startswith("the final model of trial")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_program_goes_where_it_is_wanted_and_beside_what_is_there(here):
    (here / "app").mkdir()
    (here / "app/main.py").touch()
    ended = exported(here, "question/0", "--format", "torch", "--output", "app", "--json")
    document = json.loads(ended.stdout)
    assert (document["format"], document["model"]["trial"], document["off"] < 1e-4) == ("torch", 0, True)
    assert {path.name for path in (here / "app").iterdir()} == {"main.py", "model.pt2", "labels.json"}
    exported(here, "question/0", "--format", "torch", "--output", "new/my.pt2")
    assert {path.name for path in (here / "new").iterdir()} == {"my.pt2", "labels.json"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_damaged_model_leaves_nothing_behind(here):
    model = here / "my.safetensors"
    content = bytearray((final(here) / "model.safetensors").read_bytes())
    content[-5] ^= 1
    model.write_bytes(content)
    before = set(here.iterdir())
    ended = really(here, "export", "my.safetensors", "--format", "torch")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "it is damaged" in ended.stderr
    assert set(here.iterdir()) == before


def test_packages_that_lack_are_named_with_the_command_that_installs_them(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "NEEDED", {"onnx": ("json", "onnx_of_tomorrow")})
    with pytest.raises(EnvironmentFault, match="not installed: onnx_of_tomorrow") as caught:
        export.program(NOWHERE, "onnx", None)
    assert caught.value.help == "pip install onnx_of_tomorrow"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "images", "like", "device", "what"),
    [
        ("onnx", ["a.jpg"], None, None, "IMAGES only works with --format csv"),
        ("torch", [], Path("a.csv"), None, "--like only works with --format csv"),
        ("mlflow", [], None, "cpu", "--device only works with --format csv"),
        ("csv", [], None, None, "give it with --like FILE"),
    ],
)
def test_options_of_other_formats_are_refused(format, images, like, device, what):
    with pytest.raises(UserError, match=what):
        export.refuse_options(format, images, like, device)


@pytest.mark.parametrize(("word", "help"), [("onyx", "did you mean 'onnx'?"), ("pickle", "use onnx, torch")])
def test_an_unknown_format_is_answered_with_the_nearest(word, help):
    with pytest.raises(UserError) as caught:
        export.format_of(word)
    assert help in caught.value.help


def test_a_file_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "there.txt").touch()
    with pytest.raises(UserError, match="needs a folder"):
        export.program(NOWHERE, "torch", tmp_path / "there.txt")


@pytest.mark.parametrize(
    "there",
    ['["shirt"]', "not JSON", '{"categories": []}', '{"file": "other.pt2", "model": "trial 3 of study clothing"}'],
)
def test_labels_of_another_model_are_not_replaced(tmp_path, there):
    (tmp_path / "labels.json").write_text(there)
    with pytest.raises(UserError, match=r"this labels\.json belongs to another model"):
        export.program(NOWHERE, "torch", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]
    assert (tmp_path / "labels.json").read_text() == there


@pytest.mark.parametrize("there", [{"file": "model.pt2", "model": "old"}, {"file": "model.onnx", "model": "a model"}])
def test_labels_of_the_same_program_or_model_may_be_replaced(tmp_path, there):
    (tmp_path / "labels.json").write_text(json.dumps(there))
    export.refuse_other_labels(tmp_path / "labels.json", "model.pt2", "a model")


@pytest.mark.process
def test_a_rest_of_a_killed_process_with_our_number_is_no_obstacle(tmp_path):
    rest = tmp_path / f".new.{os.getpid()}.tmp"
    rest.mkdir()
    (rest / "half.onnx").touch()
    with pytest.raises(UserError, match="cannot read weights"):
        export.program(NOWHERE, "torch", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ samples
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_is_filled_in_with_the_test_split_in_its_own_order(here):
    names = [f"test{number:03d}" for number in reversed(range(19))]
    (here / "sample.csv").write_text("id;place;colour\n" + "".join(f"{name};high;red\n" for name in names))
    assert exported(here, "question", "--format", "csv", "--like", "sample.csv").stdout == "question.csv\n"
    lines = (final(here) / "predictions.csv").read_text()
    by_name = {row["path"].removesuffix(".png"): row for row in csv.DictReader(lines.splitlines())}
    found = (here / "question.csv").read_text().splitlines()
    assert found == [
        "id;place;colour",
        *(f"{name};{by_name[name]['place']};{by_name[name]['colour']}" for name in names),
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_with_columns_of_classes_gets_probabilities_of_the_images_that_are_named(here):
    (here / "sample.csv").write_text("file,blue,red,green\ntest001.png,0,0,1\ntest000.png,0,0,1\n")
    words = ("question/1", "photos/test000.png", "photos/test001.png", "--format", "csv", "--like", "sample.csv")
    exported(here, *words, "--output", "new/mine.csv")
    rows = list(csv.DictReader((here / "new/mine.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["test001.png", "test000.png"]
    answer, share = predicted(here, "question/1", "photos/test000.png")["colour"]
    assert float(rows[1][answer]) == pytest.approx(share, abs=1e-5)
    assert sum(float(rows[0][name]) for name in ("red", "green", "blue")) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_with_other_ids_is_refused_and_nothing_is_written(here):
    (here / "sample.csv").write_text("id,place\n" + "".join(f"test{number:03d},low\n" for number in range(2, 21)))
    ended = really(here, "export", "question", "--format", "csv", "--like", "sample.csv")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "sample.csv: 2 ids have no image: test019, test020" in ended.stderr
    assert "sample.csv: 2 images have no id: test000.png, test001.png" in ended.stderr
    assert not (here / "question.csv").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ids_of_a_table_name_its_images_and_the_table_is_not_overwritten(here):
    table = "Nr;Bild\n7;photos/test001.png\n8;photos/test000.png\n"
    (here / "test.csv").write_text(table)
    (here / "sample.csv").write_text("Nr,place\n8,low\n7,low\n")
    words = ("question", "test.csv", "--format", "csv", "--like", "sample.csv", "--output")
    exported(here, *words, "mine.csv")
    rows = list(csv.DictReader((here / "mine.csv").read_text().splitlines()))
    (answer, _) = predicted(here, "question", "photos/test000.png")["place"]
    assert [row["Nr"] for row in rows] == ["8", "7"]
    assert rows[0]["place"] == answer
    ended = really(here, "export", *words, "test.csv")
    assert ended.returncode == 2
    assert "--output would overwrite a file that is read here" in ended.stderr
    assert (here / "test.csv").read_text() == table


# ------------------------------------------------------------------------------------------ MLflow
def answered(port: int, body: dict[str, object]) -> list[dict[str, object]]:
    """What a served model says."""
    address = f"http://127.0.0.1:{port}/invocations"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310  our own address
        return list(json.loads(reply.read())["predictions"])


@contextmanager
def serving(folder: Path, address: str) -> Iterator[int]:
    """A model that `mlflow models serve` serves; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "bin").mkdir()
    (folder / "bin/uvicorn").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m uvicorn "$@"\n'
    )  # as where it is activated
    (folder / "bin/uvicorn").chmod(0o755)
    changes = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlruns/mlflow.db", "SWEEP_TRAINER": ""}
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "--env-manager", "local"]
    env = environment(**changes, PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
    log = (folder / "serve.log").open("w")
    with (
        log,
        subprocess.Popen(
            [*words, "--port", str(port), "--workers", "1"], env=env, stdout=log, stderr=log, start_new_session=True
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 300
            while not reached(port):
                assert server.poll() is None, (folder / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield port
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


def reached(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_registered_model_is_served_and_says_what_predict_says(finished, tmp_path):
    """In the study's own folder, for MLflow keeps files at the place where they were sent."""
    first = exported(finished, "question", "--format", "mlflow")
    assert first.stdout == "models:/question/1\n"
    assert "mlflow models serve -m models:/question/1 --env-manager local" in first.stderr
    for which, address in (("question/0", "models:/question/2"), ("question", "models:/question/1")):
        again = exported(finished, which, "--format", "mlflow", "--json")
        assert json.loads(again.stdout)["address"] == address
    assert "already registered as models:/question/1, with the same weights" in again.stderr
    content = base64.b64encode((finished / "photos/test000.png").read_bytes()).decode()
    with serving(finished, "models:/question/1") as port:
        for body in (
            {"inputs": {"image": [content]}},
            {"dataframe_split": {"columns": ["image"], "data": [[content]]}},
        ):
            (found,) = answered(port, body)
            expected = predicted(finished, "question", "photos/test000.png")
            assert {name: found[name] for name in expected} == {
                name: answer for name, (answer, _) in expected.items()
            }
            shares = [found[f"{name} probability"] for name in expected]
            assert shares == pytest.approx([share for _, share in expected.values()], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_of_no_study_becomes_a_folder_or_is_told_that_it_can(here, tmp_path):
    shutil.copy(final(here) / "model.safetensors", tmp_path / "my.safetensors")
    ended = really(tmp_path, "export", "my.safetensors", "--format", "mlflow")
    assert ended.returncode == 2
    assert "help: --output FOLDER writes the MLflow model" in ended.stderr
    assert exported(tmp_path, "my.safetensors", "--format", "mlflow", "--output", "out").stdout == "out\n"
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"MLmodel", "input_example.json", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle"))]
    assert "signature" in (tmp_path / "out/MLmodel").read_text()
