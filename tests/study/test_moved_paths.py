"""A study whose images or local weights were moved goes on; with other bytes it asks another question."""

import json
import shutil
from pathlib import Path

import pytest

from sweeper.errors import UserError
from sweeper.store import records, study_file
from tests.support.studies import close_all, opened, play, write

pytestmark = pytest.mark.usefixtures("faked")

RANDOM = "{sampler: random, pruner: none}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study of two backbones, two of whose trials have ended, one is open, and a final has been made."""
    (tmp_path / "old").mkdir()
    for name in ("resnet18", "resnet50"):
        (tmp_path / "old" / f"{name}.safetensors").write_bytes(name.encode() * 1000)
    path = write(tmp_path, search=RANDOM, epochs=2, weights=str(tmp_path / "old"))
    study = opened(path)
    play(study, 2)
    study.next_job()
    ended = records.read_config(study.folder.trial(0))
    (study.folder.final("one").root).mkdir(parents=True)
    records.write_config(study.folder.final("one"), ended.model_copy(update={"kind": "final"}))
    study.close()
    return path


def at(place: Path) -> list[str]:
    return [f"train.weights={place}"]


def moved(path: Path) -> Path:
    return Path(shutil.move(path.parent / "old", path.parent / "new"))


def test_a_study_goes_on_with_its_weights_at_another_place(path):
    place = moved(path)
    study = opened(path, sets=at(place))
    assert study_file.identity(study.folder)["train"]["weights"] == str(place)
    jobs = [records.read_config(run) for run in records.runs(study.folder)]
    assert [job.recipe.train.weights for job in jobs] == [str(place)] * 4
    resumed = study.next_job()
    assert (resumed.trial, resumed.resumed, resumed.recipe.train.weights) == (2, True, str(place))
    assert study.next_job().recipe.train.weights == str(place)
    assert [one.state for one in study.results()][:2] == ["COMPLETE", "COMPLETE"]


def test_and_back_again(path):
    old = path.parent / "old"
    shutil.copytree(old, path.parent / "new")
    for place in (path.parent / "new", old, path.parent / "new"):
        study = opened(path, sets=at(place))
        assert study.next_job().recipe.train.weights == str(place)
        close_all()


@pytest.mark.parametrize("how", ["other bytes", "one of them gone", "a study of before, which has no checksums"])
def test_other_weights_are_refused_with_the_difference(path, how):
    place = moved(path)
    if how == "other bytes":
        (place / "resnet50.safetensors").write_bytes(b"resnet50" * 999 + b"resnet51")
    elif how == "one of them gone":
        (place / "resnet18.safetensors").unlink()
    else:
        document = json.loads((path.parent / "question/study.json").read_text())
        del document["weights"]
        (path.parent / "question/study.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"train\.weights: .*old.* -> .*new"):
        opened(path, sets=at(place))
    assert "old" in records.read_config(study_folder(path).trial(0)).recipe.train.weights


def study_folder(path: Path):
    from sweeper.store.paths import StudyFolder

    return StudyFolder(path.parent / "question")


def test_anything_else_that_changed_is_refused_all_the_same(path):
    place = moved(path)
    with pytest.raises(UserError, match=r"train\.epochs: 2 -> 3") as caught:
        opened(path, sets=[*at(place), "train.epochs=3"])
    assert "train.weights" not in caught.value.what


def test_a_kill_before_the_study_knows_of_it_is_mended_by_the_next_call(path):
    document, place = (path.parent / "question/study.json").read_bytes(), moved(path)
    before = records.read_config(study_folder(path).trial(1))
    opened(path, sets=at(place)).close()
    (path.parent / "question/study.json").write_bytes(document)
    records.write_config(study_folder(path).trial(1), before)
    study = opened(path, sets=at(place))
    assert records.read_config(study.folder.trial(1)).recipe.train.weights == str(place)
    assert study_file.identity(study.folder)["train"]["weights"] == str(place)


def test_a_configuration_that_was_trained_before_gets_a_new_seed_after_it(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "resnet18.safetensors").write_bytes(b"w")
    closed = {"loss": "cross_entropy", "optimizer": "adamw"}
    path = write(tmp_path, search=RANDOM, backbone="resnet18", epochs=1, weights=str(tmp_path / "old"), **closed)
    play(opened(path), 2)
    close_all()
    study = opened(path, sets=at(moved(path)))
    assert [study.next_job().recipe.train.seed for _ in range(2)] == [2, 3]


# ------------------------------------------------------------------------------------------ images
@pytest.fixture
def seen(path: Path) -> Path:
    """The same study, started with a fingerprint of its images."""
    close_all()
    opened(path, fingerprint="aaaa-bbbb").close()
    return path


def test_a_study_goes_on_with_its_images_at_another_place(seen):
    study = opened(seen, sets=["data.root=elsewhere"], fingerprint="aaaa-bbbb")
    assert study_file.identity(study.folder)["data"]["root"] == "elsewhere"
    jobs = [records.read_config(run) for run in records.runs(study.folder)]
    assert [job.recipe.data.root for job in jobs] == ["elsewhere"] * 4
    resumed = study.next_job()
    assert (resumed.trial, resumed.resumed, resumed.recipe.data.root) == (2, True, "elsewhere")
    assert [one.state for one in study.results()][:2] == ["COMPLETE", "COMPLETE"]


def test_images_and_weights_may_move_together(seen):
    study = opened(seen, sets=[*at(moved(seen)), "data.root=elsewhere"], fingerprint="aaaa-bbbb")
    recipe = study.next_job().recipe
    assert (recipe.data.root, recipe.train.weights) == ("elsewhere", str(seen.parent / "new"))


@pytest.mark.parametrize("fingerprint", ["aaaa-cccc", "dddd-bbbb", "dddd-cccc"])
def test_other_images_elsewhere_are_refused(seen, fingerprint):
    with pytest.raises(UserError, match=r"data\.root: nothing -> elsewhere"):
        opened(seen, sets=["data.root=elsewhere"], fingerprint=fingerprint)
    assert records.read_config(study_folder(seen).trial(0)).recipe.data.root == "nothing"


@pytest.mark.parametrize("change", ["train.epochs=3", "data.cache=jpeg"])
def test_a_refused_command_moves_nothing(seen, change):
    place = moved(seen)
    before = {run.root: records.read_config(run) for run in records.runs(study_folder(seen))}
    with pytest.raises(UserError, match="no longer matches"):
        opened(seen, sets=[*at(place), "data.root=elsewhere", change], fingerprint="aaaa-bbbb")
    assert {run.root: records.read_config(run) for run in records.runs(study_folder(seen))} == before


def test_a_run_that_an_interrupted_move_left_at_a_third_place_follows_the_next_move(seen):
    job = records.read_config(study_folder(seen).trial(1))
    data = job.recipe.data.model_copy(update={"root": "third"})
    records.write_config(
        study_folder(seen).trial(1),
        job.model_copy(update={"recipe": job.recipe.model_copy(update={"data": data})}),
    )
    study = opened(seen, sets=["data.root=elsewhere"], fingerprint="aaaa-bbbb")
    assert records.read_config(study.folder.trial(1)).recipe.data.root == "elsewhere"


def test_without_a_fingerprint_nobody_knows_that_images_only_moved(path):
    with pytest.raises(UserError, match=r"data\.root: nothing -> elsewhere"):
        opened(path, sets=["data.root=elsewhere"], fingerprint="aaaa-bbbb")


def test_other_keys_of_the_data_stay_fixed(seen):
    with pytest.raises(UserError, match=r"data\.cache: ") as caught:
        opened(seen, sets=["data.root=elsewhere", "data.cache=jpeg"], fingerprint="aaaa-bbbb")
    assert "data.root" not in caught.value.what
