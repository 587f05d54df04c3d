"""A model file with several networks says what their mean says, in every runtime."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from tests.trainers.evaluation.test_predictor import MODEL, elsewhere, own, recipe, said, trained
from tests.trainers.test_export import inputs, program, run
from trainers.config import Views
from trainers.data.table import spans
from trainers.evaluation import answers, model_file
from trainers.evaluation.graph import Graph
from trainers.evaluation.model_file import Calibration
from trainers.evaluation.predictor import ImageFile, Predictor
from trainers.support.errors import UserError

SHARES = (0.75, 0.25)
HEATS = ({"colour": 1.7}, {"colour": 0.6, "texture": 2.0})
TOGETHER = {"colour": 0.9}


@dataclass(frozen=True)
class Pair:
    """Two models, the file of both, and what each says of the test images: corrected logits [N, sum C]."""

    folders: tuple[Path, Path]
    path: Path
    files: list[ImageFile]
    logits: tuple[np.ndarray, np.ndarray]

    @property
    def expected(self) -> np.ndarray:
        """The probabilities of the mean."""
        model = Predictor(self.folders[0] / MODEL)
        parts = zip(self.logits, SHARES, HEATS, strict=True)
        mean = sum(share * divided(logits.astype(np.float64), model, heat) for logits, share, heat in parts)
        found = divided(mean, model, TOGETHER)
        return np.concatenate([softmax(found[:, span.classes], axis=1) for span in spans(model.categories)], axis=1)


def divided(logits: np.ndarray, model: Predictor, heat: dict[str, float]) -> np.ndarray:
    found = logits.copy()
    for span in spans(model.categories):
        found[:, span.classes] /= heat.get(span.category.name, 1.0)
    return found


@pytest.fixture
def pair(photos, tmp_path) -> Pair:
    """Networks with inputs of two sizes; one of them looks twice and is corrected."""
    data = photos.model_copy(update={"size": 64})
    first = recipe(data, tta=Views(flip=True), epochs=8)
    second = recipe(data, image_size=48, seed=1, epochs=8)
    folders = tmp_path / "a", tmp_path / "b"
    whole = trained(first, folders[0], calibration=Calibration(views=first.train.tta, tau=0.4, temperature=HEATS[0]))
    trained(second, folders[1], calibration=Calibration(temperature=HEATS[1]))
    offset = answers.logit_offset(whole.categories, whole.counts(whole.table.indices("train")), 0.4)
    logits = own(first, whole, folders[0], first.train.tta) - offset, own(second, whole, folders[1])
    path = tmp_path / MODEL
    parts = [(f / MODEL, share, heat) for f, share, heat in zip(folders, SHARES, HEATS, strict=True)]
    model_file.combined(parts, TOGETHER, path)
    return Pair(folders, path, elsewhere(whole, tmp_path / "new"), logits)


def test_predictions_are_those_of_the_mean(pair):
    np.testing.assert_allclose(said(Predictor(pair.path), pair.files), pair.expected, atol=1e-6)


def test_one_of_its_networks_alone_says_something_else(pair):
    alone = said(Predictor(pair.folders[0] / MODEL), pair.files)
    assert np.abs(alone - pair.expected).max() > 0.01


def test_the_file_is_the_same_when_it_is_made_again(pair, tmp_path):
    parts = [(f / MODEL, share, heat) for f, share, heat in zip(pair.folders, SHARES, HEATS, strict=True)]
    model_file.combined(parts, TOGETHER, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == pair.path.read_bytes()


def test_the_notes_tell_each_network(pair):
    notes = model_file.read(pair.path)
    assert [one.share for one in notes.members] == list(SHARES)
    assert [one.notes.images.input for one in notes.members] == [(32, 32), (48, 48)]
    assert notes.temperature == TOGETHER


def test_networks_of_one_level_become_one_program(photos, tmp_path):
    """48 and 56 pixels are both taken from the images of 64."""
    folders, data = (tmp_path / "a", tmp_path / "b"), photos.model_copy(update={"size": 64})
    for folder, size in zip(folders, (48, 56), strict=True):
        whole = trained(recipe(data, image_size=size), folder, calibration=Calibration(tau=0.4))
    parts = [(f / MODEL, share, heat) for f, share, heat in zip(folders, SHARES, HEATS, strict=True)]
    model_file.combined(parts, TOGETHER, tmp_path / MODEL)
    files, model = elsewhere(whole, tmp_path / "new"), Predictor(tmp_path / MODEL)
    images, expected = inputs(model.notes, files), said(model, files)
    with torch.no_grad():
        found = torch.cat(Graph(model)(torch.from_numpy(images)), dim=1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert program(tmp_path, "onnx")["off"] < 1e-4
    np.testing.assert_allclose(run(tmp_path, images), expected, atol=1e-4)
    inside = json.loads((tmp_path / "labels.json").read_text())["inside"]
    assert [one["network_input"] for one in inside["networks"]] == [[48, 48], [56, 56]]


def test_networks_of_two_levels_are_refused_as_one_program(pair):
    with pytest.raises(UserError, match="images decoded to different sizes"):
        Graph(Predictor(pair.path))


def test_networks_that_want_other_images_are_not_put_together(photos, tmp_path):
    folders, data = (tmp_path / "a", tmp_path / "b"), photos.model_copy(update={"size": 64})
    for folder, fit in zip(folders, ("squash", "pad"), strict=True):
        trained(recipe(data, fit=fit), folder)
    with pytest.raises(ValueError, match="images prepared in different ways"):
        model_file.combined([(folder / MODEL, 0.5, {}) for folder in folders], {}, tmp_path / MODEL)
    assert not (tmp_path / MODEL).exists()
