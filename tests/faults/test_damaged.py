"""E4: a run's files damaged while nobody trains. Training starts over, says so, and comes to the same."""

import logging
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.support.processes import make
from trainers.config import Recipe, TrainConfig
from trainers.data_config import DataConfig
from trainers.epoch import Epoch
from trainers.loading.batches import Data
from trainers.support.checkpoint import load_state, load_weights
from trainers.support.checksummed import load_array
from trainers.train import train

NAMES = ("last.ckpt", "model.safetensors", "val_logits.npy")
DAMAGES = {
    "flipped in the middle": lambda content: flipped(content, len(content) // 2),
    "flipped at the end": lambda content: flipped(content, len(content) - 1),
    "flipped at the start": lambda content: flipped(content, 20),
    "cut": lambda content: content[: len(content) // 3],
    "a byte short": lambda content: content[:-1],
    "empty": lambda content: content[:0],
    "of zeros": lambda content: bytes(len(content)),
    "html": lambda content: b"<html>" + content[:0],
}
EVERY = [(name, kind) for name in NAMES for kind in DAMAGES]
FEW = {(name, "flipped in the middle") for name in NAMES} | {("model.safetensors", "empty"), ("last.ckpt", "cut")}
CHANGING = {"seconds", "time", "images_per_second", "peak_memory_gb"}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


@pytest.fixture(scope="module")
def recipe(photos: DataConfig) -> Recipe:
    config = TrainConfig(backbone="test_resnet", pretrained=False, image_size=32, epochs=3, batch_size=16)
    return Recipe(data=photos, train=config)


@pytest.fixture(scope="module")
def data(photos: DataConfig, cache: Path) -> Data:
    return Data.open(photos, cache)


@pytest.fixture(scope="module")
def whole(recipe, data, tmp_path_factory) -> tuple[Path, list[dict]]:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, told(train(recipe, data, folder))


def told(epochs: list[Epoch]) -> list[dict]:
    return [epoch.model_dump(exclude=CHANGING) for epoch in epochs]


@pytest.mark.fault("E4")
@pytest.mark.parametrize(
    ("name", "kind"), [one if one in FEW else pytest.param(*one, marks=pytest.mark.many) for one in EVERY]
)
def test_a_damaged_file_is_noticed_and_the_run_comes_to_the_same(
    recipe, data, whole, tmp_path, case, caplog, name, kind
):
    list(islice(train(recipe, data, tmp_path), 2))
    path = tmp_path / name
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        again = told(train(recipe, data, tmp_path))
    assert f"{path} is damaged: training starts from scratch" in caplog.text
    folder, epochs = whole
    assert again == epochs
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)
    assert load_state(tmp_path / "last.ckpt") is not None
    assert (tmp_path / "val_logits.npy").read_bytes() == (folder / "val_logits.npy").read_bytes()
    ours, theirs = (load_weights(where / "model.safetensors") for where in (tmp_path, folder))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    case.held("I3", "I4", "I8")


@pytest.mark.fault("E4")
@pytest.mark.parametrize("name", NAMES[1:])
def test_a_missing_file_is_noticed_too(recipe, data, whole, tmp_path, case, caplog, name):
    list(islice(train(recipe, data, tmp_path), 2))
    (tmp_path / name).unlink()
    with caplog.at_level(logging.WARNING):
        assert told(train(recipe, data, tmp_path)) == whole[1]
    assert f"{tmp_path / name} is missing: training starts from scratch" in caplog.text
    load_array(tmp_path / "val_logits.npy")
    load_weights(tmp_path / "model.safetensors")


@pytest.mark.process
@pytest.mark.fault("E4")
def test_decoded_images_with_a_flipped_byte_are_made_anew_before_anybody_trains_on_them(tmp_path, garments, case):
    lab = make(tmp_path, garments, trials=1)
    assert lab.run("--no-mlflow").code == 0
    (path,) = tmp_path.glob("mlruns/cache/*/images.npy")
    sound = path.read_bytes()
    path.write_bytes(flipped(sound, len(sound) // 2))
    before, ended = lab.results(), lab.run("--no-mlflow", "--trials", "2")
    assert (ended.code, path.read_bytes() == sound) == (0, True)
    damage = f"{path.parent}: images.npy has changed since it was written"
    said = f"the decoded images are damaged, so they are decoded again: {damage}"
    assert ended.err.count(said) == 1
    assert lab.results()[0] == before[0]
    assert "damaged" not in lab.run("--no-mlflow", "--trials", "3").err
