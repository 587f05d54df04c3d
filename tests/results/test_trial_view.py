"""One trial in detail."""

import numpy as np
import pytest

from sweeper.errors import UserError
from sweeper.results import trial_view
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from tests.support.records import begin, curve, end, job
from trainers.data import layouts
from trainers.data.demo import draw
from trainers.data_config import DataConfig


@pytest.fixture
def study() -> StudyFolder:
    folder = StudyFolder.named("focal_weights")
    for number, top in enumerate((0.5, 0.8, 0.7)):
        started = begin(job(folder, number, epochs=20))
        end(started, curve(started, top), "COMPLETE")
    document = f'{{"schema_version": {study_file.SCHEMA_VERSION}, "study": "x", "identity": '
    folder.study_file.write_text(document + '{"data": {}, "metric": "overall_accuracy", "train": {}}}')
    return folder


def text(name: str) -> str:
    return "\n".join(trial_view.view(name).lines())


def test_a_trial_is_shown_with_its_place_parameters_epochs_categories_files_and_log(study):
    study.trial(1).log.write_text("".join(f"line {n}\n" for n in range(30)))
    shown = text("focal_weights/1")
    assert shown.startswith(
        "trial 1 of focal_weights: complete, rank 1 of 3\noverall_accuracy 0.8000 after epoch 20 of 20"
    )
    for part in ("  schedule    cosine", "loss.name: cross_entropy -> focal", "  20*", "  material       0.81"):
        assert part in shown
    assert "its predictions on val were not kept" in shown
    assert "  history.jsonl  " in shown
    assert shown.endswith("  line 28\n  line 29")
    assert "line 19" not in shown


def test_a_number_alone_is_a_trial_of_the_last_study(study):
    assert trial_view.view("2") == trial_view.view(f"{study.name}/2")


@pytest.mark.parametrize(
    ("name", "help"), [("focal_weights/7", "the nearest are 0, 1, 2"), ("9", "the nearest are 0")]
)
def test_a_trial_that_is_missing_is_refused_with_the_nearest_numbers(study, name, help):
    with pytest.raises(UserError, match=r"no trial \d in study focal_weights") as caught:
        trial_view.view(name)
    assert help in caught.value.help


def test_what_names_no_trial_or_another_study_is_refused(study):
    with pytest.raises(UserError, match="'focal_weights' is not a trial"):
        trial_view.view("focal_weights")
    with pytest.raises(UserError, match="no study 'focal_weight'"):
        trial_view.view("focal_weight/1")


def test_its_recipe_is_a_search_space_that_closes_to_the_same(study, tmp_path):
    found = trial_view.view("1")
    path = tmp_path / "again.yaml"
    path.write_text(found.recipe())
    spec = yaml_io.read(path)
    assert spec.study == "focal_weights-t0001"
    assert Space(spec, ["material"]).recipe({}).train == found.job.recipe.train


def test_predictions_that_are_kept_show_classes_and_confusions(study, tmp_path):
    draw(tmp_path / "garments", images=(120, 24, 6), seed=0)
    data = DataConfig(layout="challenge", root=str(tmp_path / "garments"))
    table = layouts.read(data)
    folder = study.trial(1)
    started = records.read_config(folder)
    recipe = started.recipe.model_copy(update={"data": data})
    records.write_config(folder, started.model_copy(update={"recipe": recipe}))
    rows = table.split("val")
    logits = np.zeros((len(rows), sum(len(one.classes) for one in table.categories)), np.float32)
    logits[:, 0] = 1.0  # the first class of the first category, whatever the image shows
    write_logits(folder, logits)
    found = trial_view.view("1").answers
    assert found.trouble == ""
    one = table.categories[0]
    first = [each for each in found.classes if each.category == one.name and each.images]
    assert {each.name: each.recall for each in first} == {
        each.name: float(each.name == one.classes[0]) for each in first
    }
    assert sum(each.images for each in found.classes if each.category == one.name) == len(rows)
    assert all(each.predicted == one.classes[0] for each in found.confusions if each.category == one.name)
    assert "most common confusions on val:" in text("1")


def write_logits(folder: RunFolder, logits: np.ndarray) -> None:
    from trainers.support.checksummed import save_array

    save_array(folder.val_logits, logits)


def test_the_document_has_the_same(study):
    document = trial_view.view("1").document()
    assert (document["schema_version"], document["rank"], len(document["epochs"])) == (1, 1, 20)
    assert document["recipe"]["train"]["loss"]["name"] == "focal"
    assert document["answers"]["trouble"]
