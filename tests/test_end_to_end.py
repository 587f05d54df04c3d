"""The user's own question, with real training: killed in the middle, continued, and carried to a submission."""

import csv
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from trainers.data.demo import draw
from trainers.support.checkpoint import read_notes

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
CLOSED = (
    "backbone=test_resnet",
    "pretrained=false",
    "image_size=32",
    "epochs=3",
    "batch_size=16",
    "selection=metric",
)
RUN = ["run", str(ROOT / "search_spaces" / "focal_weights.yaml"), "--trials", "3", "--no-mlflow", "--devices", "cpu"]
RUN += [word for value in CLOSED for word in ("--set", f"train.{value}")]
CLOCKS = ("seconds", "images_per_second", "peak_memory_gb", "time")


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEP_")}
    return kept | {"CI": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sweeper.cli", *words]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=folder, env=environment(), capture_output=True, text=True, timeout=200, check=True
    )


def kill_in_the_middle(folder: Path) -> None:
    """Start the sweep, and kill its coordinator with SIGKILL once trial 1 has an epoch on record."""
    with subprocess.Popen(command(*RUN), cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "trial 1 epoch 1/3" in line:
                os.kill(process.pid, signal.SIGKILL)


def history(folder: Path, trial: int) -> list[dict]:
    path = folder / "mlruns" / "studies" / "focal_weights" / "trials" / f"{trial:04d}" / "history.jsonl"
    epochs = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in epoch.items() if key not in CLOCKS} for epoch in epochs]


def trials(folder: Path) -> list[tuple]:
    found = json.loads(sweep(folder, "leaderboard", "--json").stdout)["trials"]
    return sorted((one["trial"], one["state"], one["value"], str(one["params"])) for one in found)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders with the same data: in one the sweep ran through, in the other it was killed and run again."""
    whole, killed = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("killed")
    for folder in (whole, killed):
        draw(folder / "data" / "FashionDataset", images=(64, 32, 20), seed=1)
    sweep(whole, *RUN)
    kill_in_the_middle(killed)
    sweep(killed, *RUN)
    return whole, killed


@pytest.fixture(scope="module")
def ended(folders):
    """The trials of each folder, as the leaderboard has them."""
    return {folder: trials(folder) for folder in folders}


@pytest.fixture(scope="module")
def exported(folders):
    """The folder that was killed, with a final."""
    sweep(folders[1], "best", "--export", "submission", "--no-mlflow")
    return folders[1]


def test_a_killed_sweep_comes_to_the_same_numbers_parameters_and_values(folders, ended):
    whole, killed = folders
    assert ended[killed] == ended[whole]
    assert [number for number, *_ in ended[killed]] == [0, 1, 2]


def test_no_epoch_is_recorded_twice_and_every_epoch_is_bit_for_bit_the_same(folders):
    whole, killed = folders
    for trial in range(3):
        assert history(killed, trial) == history(whole, trial)
        assert [epoch["number"] for epoch in history(killed, trial)] == list(range(1, len(history(whole, trial)) + 1))


def test_completed_trials_and_the_study_are_drawn_without_mlflow_through_a_kill(folders, ended):
    for folder in folders:
        study = folder / "mlruns" / "studies" / "focal_weights"
        for number, state, *_ in ended[folder]:
            figures = study / "trials" / f"{number:04d}" / "figures"
            names = {path.name for path in figures.glob("[!.]*")}
            expected = {"curves.svg", "categories.svg", "confusion.png", "labels.svg", "mistakes.png"}
            assert names == (expected if state == "COMPLETE" else set())
        of_study = {path.name for path in (study / "figures").glob("[!.]*")}
        assert of_study >= {"history.svg", "slices.svg", "labels.svg"}
        assert (study / "report.html").exists()


def test_an_epoch_has_one_number_in_every_file_and_document(exported):
    folder = exported
    study = folder / "mlruns" / "studies" / "focal_weights"
    documents = {name: json.loads(sweep(folder, name, "--json").stdout) for name in ("best", "status", "leaderboard")}
    best = documents["best"]["result"]
    place, epoch = study / "trials" / f"{best['number']:04d}", best["epoch"]
    lines = [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(1, best["epochs"] + 1))
    assert lines[epoch - 1]["val"]["overall_accuracy"] == best["value"]
    assert json.loads((place / "result.json").read_text())["epoch"] == epoch
    assert read_notes(place / "model.safetensors")["epoch"]["number"] == epoch
    assert documents["status"]["best"]["epoch"] == epoch
    assert documents["leaderboard"]["trials"][0]["epoch"] == epoch
    with (study / "trials.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["epoch"] == str(epoch)
    (card,) = study.glob("finals/*/card.md")
    assert f"on train and val, {epoch} of 3 epochs, as many as selection: metric chose on val" in card.read_text()


def test_the_submission_has_a_line_for_each_line_of_the_test_list(exported):
    folder = exported
    (archive,) = folder.glob("mlruns/studies/focal_weights/finals/*/submission.zip")
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["prediction.txt"]
        lines = opened.read("prediction.txt").decode("ascii").splitlines()
    listed = (folder / "data" / "FashionDataset" / "split" / "test.txt").read_text().split()
    assert len(lines) == len(listed) == 20
    sizes = (7, 3, 3, 4, 6, 3)
    for line in lines:
        numbers = [int(word) for word in line.split(" ")]
        assert len(numbers) == 6
        assert all(0 <= number < size for number, size in zip(numbers, sizes, strict=True))
