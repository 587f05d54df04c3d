"""Cross-validation as people use it: a real sweep, its winner with all that is written beside it, and bad input."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from sweeper.commands import plan, run
from sweeper.engine import prepare
from sweeper.engine.options import Options
from sweeper.errors import DataError, EnvironmentFault, UserError
from sweeper.figures.finished_run import Run
from sweeper.model import find
from sweeper.results import winner
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.store.retention import delete_checkpoints
from sweeper.system.devices import Slot
from sweeper.winners import final as export
from tests.support.cli import sweep
from tests.support.photos import draw_photos
from trainers.data import layouts
from trainers.support.checksummed import load_array

SPACE = """\
study: question
data: {layout: table, root: photos}
metric: overall_accuracy
budget: {trials: 2}
search: {folds: 3}
train:
  backbone: test_byobnet
  pretrained: false
  image_size: 32
  epochs: 2
  batch_size: 16
  optimizer: {name: adamw, lr: {loguniform: [1e-3, 1e-2]}}
  selection: metric
  posthoc_logit_adjustment: {fit: true}
"""


def lay_out(folder: Path, space: str = SPACE, *, train: int = 48, val: int = 24) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "photos").mkdir()
    draw_photos(folder / "photos", train=train, val=val)
    (folder / "space.yaml").write_text(space)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(lay_out(tmp_path / "here"))
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "here" / "mlruns"))
    return tmp_path / "here"


def table_of(path: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(path.read_text().splitlines())
    return header, rows


def shares(rows: list[list[str]]) -> np.ndarray:
    return np.array([[float(cell) for cell in row[2:]] for row in rows])


@pytest.mark.process
@pytest.mark.parametrize("how", [["--slots", "1"], pytest.param(["--inline"], marks=pytest.mark.slow)])
def test_a_sweep_with_folds_from_its_start_to_its_submission(here: Path, how: list[str]):
    """Values, rows and probabilities agree with one another, and one more call finds nothing to do."""
    ran = sweep(here, "run", "space.yaml", "--devices", "cpu", "--no-mlflow", *how, SWEEP_TRAINER="")
    assert ran.returncode == 0, ran.stderr
    assert "overall_accuracy on 3 folds of train and val" in ran.stderr
    study = StudyFolder.named("question")
    results = records.results(study)
    assert [(one.state, one.epochs, one.planned) for one in results] == [("COMPLETE", 6, 6)] * 2
    assert all(one.standard_error for one in results)
    _of_all_images(study)
    with pytest.raises(EnvironmentFault, match="has a model per fold, but none trained on all images") as caught:
        find.find("question/0")
    assert "sweep best question --trial 0 --export submission trains one" in caught.value.help
    if how == ["--inline"]:
        return
    again = sweep(here, "run", "space.yaml", "--devices", "cpu", "--no-mlflow", *how, SWEEP_TRAINER="")
    assert "nothing was left to do" in again.stdout + again.stderr
    other = sweep(here, "run", "space.yaml", "--set", "search.folds=4", SWEEP_TRAINER="")
    assert other.returncode == 2
    assert "search.folds: 3 -> 4" in other.stderr
    done = sweep(here, "best", "--export", "submission", "--devices", "cpu", "--no-mlflow", SWEEP_TRAINER="")
    assert done.returncode == 0, done.stderr
    assert "folds:      oof.csv, test_fold_1.csv to test_fold_3.csv" in done.stdout + done.stderr
    _of_the_final(study)


def _of_all_images(study: StudyFolder) -> None:
    """A trial's predictions stand on all images of train and val, in the order of the table."""
    trial = study.trial(0)
    job, result = records.read_config(trial), records.read_result(trial)
    assert job
    assert result
    one = Run(trial, job, result)
    assert [row.path for row in one.rows] == [row.path for row in one.table.rows if row.split != "test"]
    assert one.logits.shape == (72, 5)
    right = [one.logits[:, :3].argmax(1) == one.labels[:, 0], one.logits[:, 3:].argmax(1) == one.labels[:, 1]]
    assert np.mean(right) == pytest.approx(result.value)


def _of_the_final(study: StudyFolder) -> None:
    (folder,) = records.retrainings(study)
    won = winner.winner(study)
    assert won.epoch
    job = records.read_config(folder)
    assert job
    assert job.planned == won.length == round(np.mean([fold.epoch for fold in won.epoch.folds]))
    assert job.tau == won.epoch.corrected["overall_accuracy"].tau
    header, rows = table_of(folder.out_of_fold)
    columns = ["colour=blue", "colour=green", "colour=red", "place=high", "place=low"]
    assert header == ["path", "fold", *columns]
    table = layouts.read(job.recipe.data)
    assert [row[0] for row in rows] == [row.path for row in table.rows if row.split != "test"]
    assert sorted({row[1] for row in rows}) == ["1", "2", "3"]
    found = shares(rows)
    np.testing.assert_allclose(found[:, :3].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found[:, 3:].sum(1), 1, atol=1e-5)
    trial = study.trial(won.result.number)
    for number, fold in enumerate(trial.folds, 1):  # classes are equally frequent, so a correction changes nothing
        mine = np.array([row[1] == str(number) for row in rows])
        assert mine.sum() == 24
        np.testing.assert_allclose(found[mine, :3], softmax(load_array(fold.val_logits)[:, :3], 1), atol=1e-5)
    for number in (1, 2, 3):
        other, lines = table_of(folder.test_of_fold(number))
        assert other == header
        assert [line[0] for line in lines] == [row.path for row in table.split("test")]
        np.testing.assert_allclose(shares(lines)[:, :3].sum(1), 1, atol=1e-5)
    assert "on 3 folds" in folder.card.read_text()


@pytest.mark.slow
@pytest.mark.process
def test_without_the_folds_checkpoints_a_final_says_what_is_not_there(here: Path):
    assert (
        sweep(here, "run", "space.yaml", "--inline", "--no-mlflow", "--trials", "1", SWEEP_TRAINER="").returncode == 0
    )
    study = StudyFolder.named("question")
    delete_checkpoints(study.trial(0), but=study.trial(0).val_logits)
    assert not list(study.trial(0).root.glob("fold_*/*"))
    made = export.export(winner.winner(study), [Slot("cpu")], mlflow=False)
    said = " ".join(export.ending(made, study))
    assert "no oof.csv: keep_checkpoints or sweep clean has removed the predictions of the folds" in said
    assert not made.folder.out_of_fold.exists()


# ------------------------------------------------------------------------------------------ bad input
def test_folds_that_a_class_is_too_small_for_are_refused_before_anything_starts(here: Path):
    space = SPACE.replace("folds: 3", "folds: 13").replace("root: photos", "root: few")
    (here / "few").mkdir()
    draw_photos(here / "few", train=24, val=9)
    (here / "space.yaml").write_text(space)
    with pytest.raises(DataError) as caught:
        prepare.prepare(here / "space.yaml", Options(devices="cpu"), networks=False)
    text = str(caught.value)
    assert re.search(
        r"'\w+' of colour has 11 images in train and val, but search\.folds needs one in each of 13 folds", text
    )
    assert "write search: {folds: 11}" in text
    assert not StudyFolder.named("question").root.exists()


def test_a_data_set_without_val_is_parted_all_the_same(here: Path):
    labels = here / "photos" / "labels.csv"
    labels.write_text(labels.read_text().replace(",val,", ",train,"))
    prepared = prepare.prepare(here / "space.yaml", Options(devices="cpu"), networks=False)
    assert prepared.training_sizes == (48, 24)


def test_a_small_val_that_judges_nothing_is_not_noted(here: Path):
    def notes() -> list[str]:
        prepared = prepare.prepare(here / "space.yaml", Options(devices="cpu"), networks=False)
        return [note for note in prepared.summary.notes if note.startswith(prepare.OF_VAL)]

    assert notes() == []
    (here / "space.yaml").write_text(SPACE.replace("search: {folds: 3}\n", ""))
    assert len(notes()) == 1


@pytest.mark.process
def test_a_pruned_winner_has_no_predictions_of_all_folds_and_says_so(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Its retraining is as long as a fold, however far it came."""
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    run.run(run.session(here / "space.yaml", Options(inline=True, mlflow=False)))
    study = StudyFolder.named("question")
    result = records.read_result(study.trial(1))
    assert result
    records.write_result(study.trial(1), result.model_copy(update={"state": "PRUNED", "epoch": 3, "epochs": 3}))
    won = winner.chosen(study, 1)
    assert won.length == 2
    made = export.export(won, [Slot("cpu")], mlflow=False)
    assert "no oof.csv: trial 1 did not train all folds" in " ".join(export.ending(made, study))


def test_one_fold_is_refused_with_what_to_write(here: Path):
    (here / "space.yaml").write_text(SPACE.replace("folds: 3", "folds: 1"))
    with pytest.raises(UserError, match="one fold leaves no image to train on: write folds: 5"):
        prepare.prepare(here / "space.yaml", Options(devices="cpu"), networks=False)


# ------------------------------------------------------------------------------------------ the plan
@pytest.mark.slow
@pytest.mark.process
def test_a_plan_proposes_folds_where_val_is_small_and_counts_them_where_they_are_asked_for(here: Path):
    (here / "space.yaml").write_text(SPACE.replace("search: {folds: 3}\n", ""))
    plain = plan.plan(here / "space.yaml", Options(devices="cpu"))
    (said,) = [line for line in plan.lines(plain) if "search: {" in line]
    assert said == (
        "val has only 24 images, too few to rank trials well: search: {folds: 5} judges each trial on all 72 images,"
        " at 5 trainings per trial"
    )
    (here / "space.yaml").write_text(SPACE)
    parted = plan.plan(here / "space.yaml", Options(devices="cpu"))
    assert next(iter(plan.lines(parted))) == "study question: 2 trials, each of 3 folds of 2 epochs"
    assert parted.document()["folds"] == 3
    assert not parted.proposal
    each = 2 * 3 * 2 * parted.costs[0].seconds_per_epoch / 3600
    assert parted.hours == pytest.approx(each, abs=1e-3)
    assert json.dumps(parted.document())
