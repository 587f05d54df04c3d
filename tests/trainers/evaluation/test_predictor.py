"""A model file is all that is needed: its predictions are those that its own training would make."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers import extensions, prediction
from trainers.config import AdamW, PosthocLogitAdjustment, Recipe, Thresholds, TrainConfig, Views
from trainers.data import demo
from trainers.data_config import DataConfig
from trainers.evaluation import answers, model_file, predict
from trainers.evaluation.model_file import Calibration
from trainers.evaluation.predictor import ImageFile, Predictor, Unreadable
from trainers.extensions import ExtensionFile
from trainers.loading.batches import Data
from trainers.support.checkpoint import load_weights, save_weights
from trainers.support.errors import EnvironmentFault, UserError
from trainers.train import train

MODEL = "model.safetensors"


def recipe(data: DataConfig, **more) -> Recipe:
    base = {
        "backbone": "test_resnet",
        "pretrained": False,
        "image_size": 32,
        "epochs": 1,
        "batch_size": 16,
        "optimizer": AdamW(lr=3e-3),
    }
    return Recipe(data=data, train=TrainConfig(**(base | more)))


def trained(how: Recipe, folder: Path, **options) -> Data:
    """A model in `folder`, and the data set it was trained on."""
    data = Data.open(how.data, folder / "cache", how.train.framing)
    list(train(how, data, folder, **options))
    return data


def own(how: Recipe, data: Data, folder: Path, views: Views | None = None) -> np.ndarray:
    """The logits of test as a retraining predicts them."""
    return predict.predict(how, data, folder / MODEL, split="test", views=views)


def elsewhere(data: Data, folder: Path) -> list[ImageFile]:
    """Copies of the test images under other names, with their boxes."""
    folder.mkdir()
    found = []
    for number, row in enumerate(data.table.split("test")):
        copy = folder / f"{number}{Path(row.path).suffix}"
        shutil.copy(data.table.root / row.path, copy)
        found.append(ImageFile(copy, row.box))
    return found


def said(model: Predictor, files: list[ImageFile]) -> np.ndarray:
    """The probabilities of each image, [N, sum C], in the order of the classes."""
    rows = []
    for one in model.predict_all(files):
        parts = [one[category.name].probabilities[name] for category in model.categories for name in category.classes]
        rows.append(parts)
    return np.array(rows)


HOW = {
    "squash": {},
    "pad": {"fit": "pad", "image_size": {"height": 48, "width": 32}},
    "center": {"fit": "center", "image_size": {"height": 32, "width": 48}},
    "views": {"tta": Views(flip=True, scales=(1.0, 1.2), crops=5)},
    "corrected": {"posthoc_logit_adjustment": PosthocLogitAdjustment(tau=0.7)},
    "normalized": {"normalize": {"mean": 0.3, "std": [0.2, 0.25, 0.3]}},
}


@pytest.mark.parametrize("cache", ["raw", "jpeg"])
@pytest.mark.parametrize("name", HOW)
def test_test_is_predicted_bit_for_bit_from_the_file_alone(photos, tmp_path, name, cache):
    how = recipe(photos.model_copy(update={"cache": cache, "size": 64}), **HOW[name])
    views, tau = how.train.tta, how.train.posthoc_logit_adjustment.tau
    data = trained(how, tmp_path, calibration=Calibration(views=views, tau=tau, temperature={"colour": 1.7}))
    logits = own(how, data, tmp_path, views)
    logits = logits - answers.logit_offset(data.categories, data.counts(data.table.indices("train")), tau)
    files = elsewhere(data, tmp_path / "new")
    shutil.copy(tmp_path / MODEL, tmp_path / "alone.safetensors")
    found = said(Predictor(tmp_path / "alone.safetensors"), files)
    np.testing.assert_array_equal(found, answers.probabilities(logits, data.categories, {"colour": 1.7}))


@pytest.mark.parametrize("batch", [1, 5, 12, 100])
def test_a_batch_size_is_that_of_evaluation(photos, tmp_path, batch):
    how = recipe(photos)
    data = trained(how, tmp_path)
    files = elsewhere(data, tmp_path / "new")
    model = Predictor(tmp_path / MODEL, batch_size=batch)
    lens = predict.Evaluator(how.train, data, model.networks[0].net, torch.device("cpu"))
    lens.batch = batch
    logits = lens.logits(model.networks[0].net, data.table.indices("test")).numpy()
    heat = model.notes.calibration.temperature
    np.testing.assert_array_equal(said(model, files), answers.probabilities(logits, data.categories, heat))


def test_boxes_are_cut_with_the_margin_of_training(tmp_path):
    demo.draw(tmp_path / "garments", images=(24, 8, 6), seed=0)
    config = DataConfig(root=str(tmp_path / "garments"), crop="box", box_margin=0.1, size=32)
    how = recipe(config)
    data = trained(how, tmp_path)
    plain = Data.open(config.model_copy(update={"box_margin": 0.0}), tmp_path / "cache")
    files = elsewhere(replace(data, table=plain.table), tmp_path / "new")
    model = Predictor(tmp_path / MODEL)
    assert model.boxed
    logits, heat = own(how, data, tmp_path), model.notes.calibration.temperature
    np.testing.assert_array_equal(said(model, files), answers.probabilities(logits, data.categories, heat))
    whole = said(model, [replace(file, box=None) for file in files])
    assert not np.array_equal(whole, said(model, files))


def test_the_probabilities_of_a_category_add_up_and_the_likeliest_is_the_answer(photos, tmp_path):
    data = trained(recipe(photos), tmp_path)
    for one in Predictor(tmp_path / MODEL).predict_all(elsewhere(data, tmp_path / "new")):
        colour = one["colour"]
        assert sum(colour.probabilities.values()) == pytest.approx(1)
        assert colour.answer == next(iter(colour.probabilities))
        assert colour.probability == max(colour.probabilities.values())


def test_several_answers_are_those_above_their_thresholds(tmp_path):
    several = tmp_path / "several"
    demo.draw(several, images=(40, 30, 10), seed=0, multi=1)
    config = DataConfig(layout="table", root=str(several), multi=("texture",), size=32)
    how = recipe(config, thresholds=Thresholds(fit=True, min_images=1))
    data = trained(how, tmp_path)
    model = Predictor(tmp_path / MODEL)
    shares = model.notes.calibration.thresholds["texture"]
    offset = answers.logit_offset(data.categories, model.notes.counts, 0.0, {"texture": shares})
    judged = own(how, data, tmp_path) - offset
    place = next(s for s in predict.spans(data.categories) if s.category.multi)
    expected = [tuple(np.array(place.category.classes)[row > 0]) for row in judged[:, place.classes]]
    found = list(model.predict_all(elsewhere(data, tmp_path / "new")))
    assert [one["texture"].answers for one in found] == expected
    assert any(len(one) != 1 for one in expected)


# ---------------------------------------------------------------------------------------------- notes
def test_the_notes_tell_classes_counts_framing_and_versions(photos, tmp_path):
    data = trained(recipe(photos, fit="pad", image_size={"height": 48, "width": 32}), tmp_path)
    notes = model_file.read(tmp_path / MODEL).first
    assert [(c.name, c.classes, c.multi) for c in notes.categories] == [
        (c.name, c.classes, c.multi) for c in data.categories
    ]
    assert [list(c.images) for c in notes.categories] == data.counts(data.table.indices("train"))
    assert (notes.images.input, notes.images.fit, notes.images.crop) == ((48, 32), "pad", "none")
    assert notes.images.decoded == data.cache.images.shape[1:3]
    assert (notes.metric, notes.fitted_on) == ("overall_accuracy", ("train",))
    assert {"torch", "timm", "pillow"} <= notes.versions.keys()


def test_a_trial_keeps_the_correction_and_the_temperature_that_it_fitted(photos, tmp_path):
    how = recipe(photos, posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True))
    folder = tmp_path / "run"
    data = Data.open(photos, tmp_path / "cache")
    (epoch,) = train(how, data, folder)
    kept = model_file.read(folder / MODEL).first.calibration
    assert kept.tau == epoch.corrected["overall_accuracy"].tau
    assert kept.temperature == epoch.temperature


def test_the_calibration_of_a_model_makes_no_other_weights(photos, tmp_path):
    given = Calibration(tau=1.0, temperature={"colour": 3.0})
    trained(recipe(photos), tmp_path / "a")
    trained(recipe(photos), tmp_path / "b", calibration=given)
    one, other = (load_weights(tmp_path / name / MODEL) for name in "ab")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert model_file.read(tmp_path / "b" / MODEL).first.calibration == given


# ------------------------------------------------------------------------------------------ bad input
@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    trained(recipe(photos), folder)
    return folder / MODEL


def test_what_is_no_image_is_named_and_the_others_are_predicted(model, photos, tmp_path):
    good = Path(photos.root) / "test000.png"
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "half.png").write_bytes(good.read_bytes()[:500])
    names = ["empty.jpg", "text.jpg", "half.png", "absent.png", "."]
    files = [ImageFile(tmp_path / name) for name in names]
    both = [file for one in files for file in (one, ImageFile(good))]
    found = list(Predictor(model, batch_size=3).predict_all(both))
    assert [type(one) is Unreadable for one in found] == [True, False] * len(files)
    assert "is empty" in found[0].why
    assert "not an image" in found[2].why
    likeliest = [one["colour"].probability for one in found[1::2]]
    assert likeliest == pytest.approx([likeliest[0]] * len(files))


def test_nothing_but_what_is_no_image_is_no_error_of_the_model(model, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    assert [one.why for one in Predictor(model).predict_all([ImageFile(tmp_path / "text.jpg")])]
    assert list(Predictor(model).predict_all([])) == []
    with pytest.raises(UserError, match="not an image"):
        Predictor(model).predict(tmp_path / "text.jpg")


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P"])
def test_images_of_every_mode_are_predicted(model, tmp_path, mode):
    Image.new(mode, (50, 40)).save(tmp_path / "a.tiff")
    assert Predictor(model).predict(tmp_path / "a.tiff").categories.keys() == {"colour", "place"}


@pytest.mark.parametrize("version", [None, 1, 3])
def test_a_file_of_another_version_is_refused_with_the_command_that_makes_a_new_one(model, tmp_path, version):
    notes = model_file.read_notes(model)
    notes.pop("version")
    save_weights(tmp_path / MODEL, load_weights(model), notes | ({"version": version} if version else {}))
    with pytest.raises(EnvironmentFault, match="version of sweep") as caught:
        Predictor(tmp_path / MODEL, remake="sweep best question --export submission --again")
    assert caught.value.help == "sweep best question --export submission --again"


@pytest.mark.parametrize("at", [200, -10])
def test_a_damaged_file_is_refused(model, tmp_path, at):
    content = bytearray(model.read_bytes())
    content[at] ^= 255
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(EnvironmentFault):
        Predictor(tmp_path / MODEL)


def test_a_file_of_another_program_is_refused(tmp_path, model):
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(EnvironmentFault):
        Predictor(tmp_path / "text.safetensors")


def test_notes_that_lack_something_are_refused(model, tmp_path):
    notes = model_file.read_notes(model)
    notes["images"].pop("input")
    save_weights(tmp_path / MODEL, load_weights(model), notes)
    with pytest.raises(EnvironmentFault, match=r"images\.input"):
        Predictor(tmp_path / MODEL)


# ------------------------------------------------------------------------------------- the process
def asked(model: Path, images: list, **more) -> dict:
    base = {"model": str(model), "remake": "", "extensions": None, "device": "cpu", "threads": None}
    return base | {"batch_size": None, "top": None, "answers_alone": False, "boxes": False, "images": images} | more


def test_a_process_answers_a_line_of_json_for_each_image(model, photos, tmp_path):
    good = str(Path(photos.root) / "test000.png")
    first, one, other = prediction.answered(asked(model, [[good, None], [str(tmp_path / "absent"), None]], top=1))
    assert [c["name"] for c in first["model"]["categories"]] == ["colour", "place"]
    assert [len(c["classes"]) for c in one["categories"]] == [1, 1]
    assert other == {"path": str(tmp_path / "absent"), "unreadable": "No such file or directory"}
    json.dumps([first, one, other])


def test_boxes_for_a_model_of_whole_images_are_refused(model):
    with pytest.raises(UserError, match="takes no boxes"):
        next(prediction.answered(asked(model, [], boxes=True)))


# ---------------------------------------------------------------------------------- somebody's own code
OWN = """\
import torch


class Mean(torch.nn.Module):
    num_features = 3

    def forward(self, images):
        return images.mean((2, 3))


def flat(features, sizes):
    return torch.nn.Linear(features, sum(sizes))


def loss(logits, labels):
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


models = {"mean_colour": Mean}
heads = {"flat": flat}
losses = {"plain": loss}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "extensions").mkdir()
    (tmp_path / "extensions/own.py").write_text(OWN)
    found = ExtensionFile.read(tmp_path / "extensions/own.py")
    extensions.use([found])
    yield found
    extensions.use([])


@pytest.mark.parametrize("part", [{"backbone": "mean_colour"}, {"head": "flat"}])
def test_a_network_of_ones_own_is_made_by_the_copies_beside_the_file(photos, tmp_path, file, capfd, part):
    how = recipe(photos, **part).model_copy(update={"extensions": {file.name: file.checksum}})
    data = trained(how, tmp_path)
    logits, files = own(how, data, tmp_path), elsewhere(data, tmp_path / "new")
    extensions.use([])
    model = Predictor(tmp_path / MODEL)
    heat = model.notes.calibration.temperature
    np.testing.assert_array_equal(said(model, files), answers.probabilities(logits, data.categories, heat))
    next(prediction.answered(asked(tmp_path / MODEL, [], extensions=str(tmp_path / "extensions"))))
    assert "this model runs its own code: own.py" in capfd.readouterr().err
    (tmp_path / "extensions/own.py").write_text(f"{OWN}# changed\n")
    with pytest.raises(EnvironmentFault, match="extension file"):
        Predictor(tmp_path / MODEL)
    (tmp_path / "extensions/own.py").unlink()
    with pytest.raises(
        EnvironmentFault, match=r"own\.py, which defines the network of this model, is missing"
    ) as caught:
        Predictor(tmp_path / MODEL)
    assert caught.value.help == "copy the folder extensions with the model"


def test_of_a_loss_of_ones_own_a_finished_model_needs_nothing(photos, tmp_path, file):
    how = recipe(photos, loss="plain").model_copy(update={"extensions": {file.name: file.checksum}})
    trained(how, tmp_path)
    extensions.use([])
    (tmp_path / "extensions/own.py").unlink()
    found = Predictor(tmp_path / MODEL).predict(Path(photos.root) / "test000.png")
    assert found.categories.keys() == {"colour", "place"}
