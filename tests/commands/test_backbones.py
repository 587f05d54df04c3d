"""`sweep backbones`: a table, a document, or the names that were meant."""

import json
from pathlib import Path

import pytest

from sweeper.commands import backbones
from sweeper.engine.backbones import Found
from sweeper.errors import EnvironmentFault
from tests.support.cli import sweep

ONE = {
    "name": "a",
    "parameters": 5_480_000,
    "macs": 216_600_000,
    "input_size": 224,
    "weights": "hub",
    "licence": "mit",
}


def test_figures_are_short():
    assert backbones.cells(Found([ONE])) == [("a", "5.5 M", "0.22 G", "224", "on the hub", "mit")]


def test_what_could_not_be_counted_is_a_question_mark():
    (row,) = backbones.cells(Found([ONE | {"parameters": None, "macs": None}]))
    assert row[1:3] == ("?", "?")


def test_a_folder_of_weights_that_there_is_not_is_named(tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        backbones.find("resnet", str(tmp_path / "none"))
    assert caught.value.where == str(tmp_path / "none")


@pytest.mark.process
def test_a_name_as_people_write_it_is_answered(tmp_path: Path):
    ended = sweep(tmp_path, "backbones", "ViT-B16")
    assert ended.returncode == 2
    assert "did you mean vit_base_patch16_224" in ended.stderr


@pytest.mark.process
def test_what_was_counted_is_remembered(tmp_path: Path):
    ended = sweep(tmp_path, "backbones", "test_resnet", "--json")
    (found,) = json.loads(ended.stdout)["backbones"]
    (remembered,) = json.loads((tmp_path / "mlruns/cache/backbones.json").read_text()).values()
    assert remembered[found["name"]] == {key: found[key] for key in ("parameters", "macs")}
