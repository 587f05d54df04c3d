"""A model as a program of another runtime says what the model itself says."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.trainers.evaluation.test_predictor import HOW, MODEL, elsewhere, recipe, said, trained
from trainers import export, extensions
from trainers.config import Recipe, Thresholds
from trainers.data import demo
from trainers.data.decoded_files import ImageFormat
from trainers.data_config import DataConfig, Framing
from trainers.evaluation import model_file
from trainers.evaluation.graph import Graph, weights
from trainers.evaluation.model_file import Calibration
from trainers.evaluation.predictor import ImageFile, Predictor
from trainers.extensions import ExtensionFile
from trainers.loading.batches import Data
from trainers.loading.image_store import level
from trainers.support.errors import EnvironmentFault

CALIBRATION = {"tau": 0.4, "temperature": {"colour": 1.7}}
HEADS = ["relu_logits", "category_mlp", "shared_mlp", "query2label"]


def prepared(lines: list[str], file: ImageFile) -> np.ndarray:
    """What the lines of labels.json make of an image file."""
    code = "\n".join(lines).replace('"photo.jpg"', repr(str(file.path)))
    place = {"Image": Image, "ImageOps": ImageOps, "io": io}
    exec(code, place)  # noqa: S102  what people are told to write
    return np.asarray(place["image"])


def inputs(notes: model_file.ModelNotes, files: list[ImageFile]) -> np.ndarray:
    lines = notes.format.as_python(notes.images.input)
    return np.stack([prepared(lines, file) for file in files])


def program(folder: Path, format: str) -> dict[str, object]:
    """The model in `folder` exported to it."""
    asked = {"model": str(folder / MODEL), "remake": "", "extensions": str(folder / "extensions"), "threads": 1}
    more = {
        "format": {"pt2": "torch"}.get(format, format),
        "folder": str(folder),
        "file": f"model.{format}",
        "about": {"model": "a model"},
    }
    return export.exported(asked | more)


def run(folder: Path, images: np.ndarray) -> np.ndarray:
    """What the ONNX file says, the categories side by side."""
    import onnxruntime

    labels = json.loads((folder / "labels.json").read_text())
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [one.name for one in session.get_outputs()] == [one["name"] for one in labels["categories"]]
    return np.concatenate(session.run(None, {labels["input"]["name"]: images}), axis=1)


# ------------------------------------------------------------------------------------------ the graph
@pytest.mark.parametrize("cache", ["raw", "jpeg"])
@pytest.mark.parametrize("name", HOW)
def test_documented_lines_and_graph_say_what_predict_says(photos, tmp_path, name, cache):
    how = recipe(photos.model_copy(update={"cache": cache, "size": 64}), **HOW[name])
    data = trained(how, tmp_path, calibration=Calibration(views=how.train.tta, **CALIBRATION))
    files, model = elsewhere(data, tmp_path / "new"), Predictor(tmp_path / MODEL)
    with torch.no_grad():
        found = torch.cat(Graph(model)(torch.from_numpy(inputs(model.notes, files))), dim=1)
    np.testing.assert_allclose(found.numpy(), said(model, files), atol=1e-5)


@pytest.mark.parametrize("sizes", [(128, 112), (107, 128), (192, 64), (50, 96), (300, 224), (33, 32), (7, 96)])
def test_a_resize_is_that_of_8_bits_to_the_bit(sizes):
    rng, (source, size) = np.random.default_rng(0), sizes
    image = torch.from_numpy(rng.integers(0, 256, (3, 40, source), dtype=np.uint8))
    expected = torch.nn.functional.interpolate(image[None], size=(40, size), mode="bilinear", antialias=True)[0]
    assert torch.equal(torch.floor(image.float() @ weights(source, size).T + 0.5), expected.float())


@pytest.mark.parametrize("fit", ["squash", "pad", "center"])
@pytest.mark.parametrize("size", [(24, 16), (32, 24), (33, 24), (48, 32), (96, 64)])
def test_the_level_of_a_format_is_that_of_its_cache(tmp_path, fit, size):
    how = ImageFormat.of(64, "raw", Framing(fit, 48, 32))
    heights = [np.zeros((0, *one, 3), np.uint8) for one in how.levels.values()]
    from trainers.data.cache import Cache

    cache = Cache(64, *heights, np.zeros((0, 2), np.int32))
    assert how.level(size) == level(cache, size).shape[1:3]


# ------------------------------------------------------------------------------------------ the files
@pytest.mark.slow
@pytest.mark.parametrize("name", ["views", "pad", "normalized"])
def test_an_onnx_file_says_what_predict_says_of_any_number_of_images(photos, tmp_path, name):
    how = recipe(photos.model_copy(update={"size": 64}), **HOW[name])
    data = trained(how, tmp_path, calibration=Calibration(views=how.train.tta, **CALIBRATION))
    made = program(tmp_path, "onnx")
    assert made["off"] < 1e-4
    files, model = elsewhere(data, tmp_path / "new"), Predictor(tmp_path / MODEL)
    images, expected = inputs(model.notes, files), said(model, files)
    for count in (1, 3, len(files)):
        np.testing.assert_allclose(run(tmp_path, images[:count]), expected[:count], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_every_head_becomes_a_file(photos, tmp_path, backbone, head):
    size = {"image_size": 160} if backbone == "test_vit" else {}
    trained(recipe(photos, backbone=backbone, head={"name": head}, **size), tmp_path)
    assert program(tmp_path, "onnx")["off"] < 1e-4


@pytest.mark.slow
def test_a_torch_program_is_loaded_without_us(photos, tmp_path):
    data = trained(recipe(photos, **HOW["views"]), tmp_path)
    program(tmp_path, "pt2")
    files, model = elsewhere(data, tmp_path / "new"), Predictor(tmp_path / MODEL)
    np.save(tmp_path / "images.npy", inputs(model.notes, files))
    code = (
        "import numpy, sys, torch; model = torch.export.load('model.pt2').module();"
        "found = model(torch.from_numpy(numpy.load('images.npy')));"
        "numpy.save('found.npy', torch.cat(found, 1).detach().numpy()); print('trainers' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout == "False\n", ended.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), said(model, files), atol=1e-4)


def several(folder: Path, names: tuple[str, ...] = ()) -> tuple[Recipe, Data]:
    """A model with a category of several answers; with `names`, its categories are called so."""
    root = folder / "garments"
    demo.draw(root, images=(40, 30, 10), seed=0, multi=1)
    if names:
        head, _, rest = (root / "labels.csv").read_text().partition("\n")
        columns = head.split(",")
        columns[-1 - len(names) : -1] = names
        (root / "labels.csv").write_text(f"{','.join(columns)}\n{rest}")
    config = DataConfig(layout="table", root=str(root), multi=("texture",), size=32)
    how = recipe(config, thresholds=Thresholds(fit=True, min_images=1))
    return how, trained(how, folder)


@pytest.mark.slow
def test_thresholds_in_labels_give_the_answers_of_predict(tmp_path):
    _, data = several(tmp_path)
    program(tmp_path, "onnx")
    files, model = elsewhere(data, tmp_path / "new"), Predictor(tmp_path / MODEL)
    texture = next(c for c in json.loads((tmp_path / "labels.json").read_text())["categories"] if c["multi"])
    shares = [one["texture"] for one in model.predict_all(files)]
    names = np.array(texture["classes"])
    for one in shares:
        above = [one.probabilities[name] > limit for name, limit in zip(names, texture["thresholds"], strict=True)]
        assert tuple(names[above]) == one.answers


@pytest.mark.slow
def test_categories_may_be_called_like_a_runtimes_own_values(tmp_path):
    """The names of outputs are those of the categories, whatever the translator calls its values."""
    several(tmp_path, ("images", "linear", "shift", "val_0"))
    program(tmp_path, "onnx")
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels["input"]["name"] == "input"
    height, width = labels["input"]["shape"][1:3]
    found = run(tmp_path, np.zeros((1, height, width, 3), np.uint8))
    assert found.shape == (1, sum(len(one["classes"]) for one in labels["categories"]))


def test_a_program_that_says_something_else_is_refused(photos, tmp_path, monkeypatch):
    trained(recipe(photos), tmp_path)

    def other(graph, images, names, path):
        return lambda images: [part.numpy() + 2e-4 for part in graph(torch.from_numpy(images))]

    monkeypatch.setitem(export.WAYS, "other", other)
    with torch.no_grad(), pytest.raises(EnvironmentFault, match=r"a probability is off by 0\.0002"):
        program(tmp_path, "other")
    assert not (tmp_path / "labels.json").exists()


CODE = """\
import torch


class Nervous(torch.nn.Module):
    def __init__(self, width, sizes):
        super().__init__()
        self.linear = torch.nn.Linear(width, sum(sizes))

    def forward(self, features):
        found = self.linear(features)
        return found if float(found.detach().sum()) > 0 else found + 1


heads = {"nervous": Nervous}
"""


def test_code_that_cannot_be_translated_is_refused_with_what_runs_it(photos, tmp_path):
    (tmp_path / "extensions").mkdir()
    (tmp_path / "extensions/own.py").write_text(CODE)
    file = ExtensionFile.read(tmp_path / "extensions/own.py")
    extensions.use([file])
    how = recipe(photos, head={"name": "nervous"}).model_copy(update={"extensions": {file.name: file.checksum}})
    trained(how, tmp_path)
    with pytest.raises(EnvironmentFault, match="its network cannot be translated") as caught:
        program(tmp_path, "pt2")
    assert "sweep predict" in caught.value.help
    extensions.use([])


def test_the_lines_in_the_documents_are_those_of_a_format():
    page = (Path(__file__).parents[2] / "docs/how-to/export.md").read_text()
    assert "\n".join(ImageFormat.of(64).classify((64, 64), ["garment"])) in page
