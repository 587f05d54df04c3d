"""A model as MLflow asks it: contents of image files in, answers by category out."""

from base64 import encodebytes
from pathlib import Path

import pytest

from sweeper.model import serving
from tests.trainers.evaluation.test_predictor import elsewhere, recipe, trained
from trainers.config import Thresholds
from trainers.data import demo
from trainers.data_config import DataConfig
from trainers.evaluation.predictor import ImageFile, Predictor


def served(folder: Path, data: DataConfig, **train: object) -> tuple[Predictor, serving.Served, list[ImageFile]]:
    made = trained(recipe(data, **train), folder)
    model = Predictor(folder / "model.safetensors")
    return model, serving.load(str(folder)), elsewhere(made, folder / "new")


@pytest.mark.parametrize("how", [bytes, encodebytes, lambda content: encodebytes(content).decode()])
def test_answers_are_those_of_predict_whether_the_content_is_plain_or_base64(photos, tmp_path, how):
    model, one, files = served(tmp_path, photos)
    found = one.predict({"image": [how(file.path.read_bytes()) for file in files]})
    for row, said in zip(found, model.predict_all(files), strict=True):
        for category in ("colour", "place"):
            assert row[category] == said[category].answer
            assert row[f"{category} probability"] == said[category].probability
        assert len(row) == 4


def test_a_category_with_several_answers_has_lists(tmp_path):
    demo.draw(tmp_path / "several", images=(40, 30, 10), seed=0, multi=1)
    data = DataConfig(layout="table", root=str(tmp_path / "several"), multi=("texture",), size=32)
    model, one, files = served(tmp_path, data, thresholds=Thresholds(fit=True, min_images=1))
    found = one.predict({"image": [file.path.read_bytes() for file in files]})
    for row, said in zip(found, model.predict_all(files), strict=True):
        assert row["texture"] == list(said["texture"].answers)
        assert row["texture probability"] == [said["texture"].probabilities[name] for name in row["texture"]]


def test_what_is_no_image_is_named_by_its_number(photos, tmp_path):
    _, one, files = served(tmp_path, photos)
    with pytest.raises(ValueError, match="image 1 is not an image"):
        one.predict({"image": [files[0].path.read_bytes(), b"no image"]})
