"""What lies in search_spaces/ can be planned in a clean clone without a network, or says in one line what to set."""

from pathlib import Path

import pytest

from sweeper.engine import prepare
from sweeper.engine.options import Options
from tests.support.cli import sweep
from trainers.data.demo import draw
from trainers.support.errors import UserError

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").rglob("*.yaml"))
OFFLINE = {"HF_HUB_OFFLINE": "1", "SWEEP_TRAINER": ""}


def prepared(path: Path) -> str:
    """Everything that a plan does before it times steps, for which some of these networks are too large here."""
    try:
        prepare.prepare(path, Options(devices="cpu"), for_plan=True)
    except UserError as error:
        return f"{error.exit_code}: {error.help}"
    return ""


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_without_data_it_says_in_one_line_what_to_do(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepared(path).startswith(
        ("3: set it with --set data.root=FOLDER", "3: `sweep data demo data/FashionDataset`")
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_with_data_it_is_planned_or_says_which_weights_to_set(path, tmp_path, monkeypatch):
    draw(tmp_path / "data/FashionDataset", images=(60, 20, 6), seed=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    own = "data/clothing" in path.read_text()
    said = prepared(path)
    assert said == "" or said.startswith(
        "3: set it with --set data.root=" if own else "3: give a weights file with --set train.w"
    )


def test_the_first_lines_say_what_a_file_needs_that_no_command_makes():
    for path in SPACES:
        text = path.read_text()
        needs = "data/clothing" in text or "weights:" in text.replace("class_weights:", "").replace("y_weights:", "")
        assert ("\n# Needs: " in text) == needs, path


@pytest.mark.process
@pytest.mark.slow
def test_published_backbones_are_planned_without_a_network_and_that_is_said(tmp_path):
    draw(tmp_path / "garments", images=(16, 8, 4), seed=0)
    train = (
        "{backbone: {choice: [test_resnet.r160_in1k, test_vit.r160_in1k]}, image_size: 64, batch_size: 4, epochs: 1}"
    )
    head = "data: {layout: challenge, root: garments}\nbudget: {trials: 1}\n"
    (tmp_path / "two.yaml").write_text(f"{head}train: {train}\n")
    planned = sweep(tmp_path, "plan", "two.yaml", HF_HOME=str(tmp_path / "hub"), **OFFLINE)
    assert planned.returncode == 0, planned.stderr
    assert planned.stderr.count("are not on this machine") == 1
    assert "test_resnet.r160_in1k, test_vit.r160_in1k" in planned.stderr
    assert "(HF_HUB_OFFLINE is set); until they are there, weights are random" in planned.stderr
    assert "study two: 1 trial, each of 1 epoch" in planned.stdout
