"""The winner: printed as a recipe, confirmed with new seeds, retrained and packed for a submission."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sweeper.commands import leaderboard, run
from sweeper.engine import prepare
from sweeper.engine.options import Options
from sweeper.errors import NoResult, RunFailed, UserError
from sweeper.results import card, status, submission, winner
from sweeper.space import yaml_io
from sweeper.store import paths, records, studies, study_file
from sweeper.store.paths import StudyFolder
from sweeper.system.devices import Slot
from sweeper.tracking import client
from sweeper.winners import confirm
from sweeper.winners import final as export
from tests.support.cli import SPACE, command, environment, lay_out, numbers, sweep
from tests.support.photos import draw_photos
from trainers.config import PosthocLogitAdjustment
from trainers.data import layouts
from trainers.data.table import Category
from trainers.epoch import Corrected, Look, Scores
from trainers.evaluation import metrics, temperature

pytestmark = pytest.mark.process

SLOTS = [Slot("cpu")]
TABLE = SPACE.replace("layout: challenge, root: garments, crop: box", "layout: table, root: photos")
PLAIN = Options(inline=True, mlflow=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of three trials; not to be written to."""
    folder = lay_out(tmp_path_factory.mktemp("swept") / "here")
    assert sweep(folder, "run", "space.yaml", "--inline", "--no-mlflow").returncode == 0
    return folder


@pytest.fixture
def study(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    """The study in a copy of that folder, which is the current one."""
    enter(Path(shutil.copytree(swept, tmp_path / "here")), monkeypatch)
    return StudyFolder.named("question")


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SWEEP_HOME", str(folder / "mlruns"))
    monkeypatch.setenv("SWEEP_TRAINER", "fake")


def small_study(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, test: int = 12) -> StudyFolder:
    """A study of `text` over a table of photos, swept in this process."""
    (tmp_path / "photos").mkdir()
    draw_photos(tmp_path / "photos", train=12, val=6, test=test)
    enter(tmp_path, monkeypatch)
    (tmp_path / "space.yaml").write_text(text)
    run.run(run.session(tmp_path / "space.yaml", PLAIN))
    return StudyFolder.named("question")


def exported(study: StudyFolder, **options: bool) -> export.Final:
    return export.export(winner.winner(study), SLOTS, mlflow=False, **options)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """A sweep inside this process sets the device and the threads of the process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# ------------------------------------------------------------------------------------------ the recipe
def test_the_winner_is_the_completed_trial_with_the_best_value(study):
    values = {result.number: result.value or 0 for result in records.results(study)}
    assert winner.winner(study).result.number == max(values, key=lambda number: values[number])


def test_the_recipe_is_the_trials_own_and_closed(study):
    (Path("space.yaml")).write_text("not what it was")
    won = winner.winner(study)
    Path("best.yaml").write_text(winner.recipe(won))
    read = yaml_io.read(Path("best.yaml"))
    assert read.data == won.job.recipe.data.model_copy(update={"size": None, "cache": "auto"})
    assert read.budget.trials == 1
    assert f"lr: {won.result.params['optimizer.lr']}" in winner.recipe(won)


@pytest.mark.parametrize(("image_size", "decoded"), [(32, 64), (64, 96), (96, 96)])
def test_what_follows_from_other_values_is_not_pinned_by_the_recipe(study, image_size, decoded):
    """A larger network's inputs are decoded anew, and are not the smaller images blown up."""
    Path("best.yaml").write_text(winner.recipe(winner.winner(study)))
    options = Options((f"train.image_size={image_size}",), inline=True, mlflow=False)
    run.run(run.session(Path("best.yaml"), options))
    job = records.read_config(StudyFolder.named("question-best").trial(0))
    assert job
    assert (job.recipe.data.size, job.recipe.train.image_size) == (decoded, image_size)


def test_a_size_that_somebody_wrote_is_printed(tmp_path, monkeypatch):
    study = small_study(TABLE.replace("root: photos", "root: photos, size: 96"), tmp_path, monkeypatch)
    text = winner.recipe(winner.winner(study))
    assert "size: 96" in text
    Path("best.yaml").write_text(text)
    with pytest.raises(UserError, match=r"image_size 128 is larger than data\.size 96") as caught:
        prepare.prepare(Path("best.yaml"), Options(("train.image_size=128",)))
    assert "--set train.image_size=128" in caught.value.where


def test_the_card_does_not_pin_it_and_the_record_has_it(study):
    final = exported(study)
    text = final.folder.card.read_text()
    assert "image_size: 32" in text
    assert ", size: " not in text
    assert '"size": 64' in final.folder.config.read_text()


def test_the_recipe_says_where_it_comes_from(study):
    won = winner.winner(study)
    first = winner.recipe(won).splitlines()[0]
    assert first == (
        f"# The best of study question: trial {won.result.number}, overall_accuracy {won.result.value:.4f} on val"
        " after epoch 4 of 4."
    )


def test_without_a_completed_trial_there_is_no_winner(study):
    shutil.rmtree(study.trials)
    with pytest.raises(NoResult, match="no trial of question has completed"):
        winner.winner(study)


# ------------------------------------------------------------------------------------------ the final
def test_the_final_keeps_the_recipe_and_runs_the_whole_schedule(study):
    won = winner.winner(study)
    final = exported(study)
    job = records.read_config(final.folder)
    assert job
    assert job.recipe == won.job.recipe
    assert numbers(final.folder.history) == [1, 2, 3, 4]
    assert "on train and val, 4 of 4 epochs\n" in final.folder.card.read_text()
    assert not final.folder.checkpoint.exists()


def test_the_final_of_a_trial_whose_selection_chose_an_epoch_has_as_many_and_says_so(study, capfd):
    won = winner.winner(study)
    train = won.job.recipe.train.model_copy(update={"selection": "metric"})
    chosen = won.job.model_copy(update={"recipe": won.job.recipe.model_copy(update={"train": train})})
    records.write_config(study.trial(won.result.number), chosen)
    records.write_result(study.trial(won.result.number), won.result.model_copy(update={"epoch": 2}))
    final = exported(study)
    job = records.read_config(final.folder)
    assert job
    assert job.recipe.train.epochs == 4
    assert numbers(final.folder.history) == [1, 2]
    said = "on train and val, 2 of 4 epochs, as many as selection: metric chose on val"
    assert said in final.folder.card.read_text()
    assert said.replace("val, ", "val for ", 1) in capfd.readouterr().err


def corrected(study: StudyFolder, **posterior: object) -> winner.Winner:
    """The winner as if its recipe had asked for a correction, its last epoch saying what was fitted."""
    won = winner.winner(study)
    folder = study.trial(won.result.number)
    train = won.job.recipe.train.model_copy(update={"posthoc_logit_adjustment": PosthocLogitAdjustment(**posterior)})
    recipe = won.job.recipe.model_copy(update={"train": train})
    records.write_config(folder, won.job.model_copy(update={"recipe": recipe}))
    fitted = {recipe.metric: Corrected(tau=0.7, value=0.9)}
    lines = [epoch.model_copy(update={"corrected": fitted}) for epoch in records.history(folder)]
    folder.history.write_text("".join(f"{line.model_dump_json()}\n" for line in lines))
    return winner.winner(study)


def test_the_final_takes_over_the_strength_that_the_winner_fitted_and_its_card_says_so(study):
    assert corrected(study, fit=True).tau == 0.7
    final = exported(study)
    job = records.read_config(final.folder)
    assert job
    assert job.tau == 0.7
    text = final.folder.card.read_text()
    assert "logits - 0.7 log(prior), fitted on val by the winning trial" in text
    assert "| overall_accuracy with posterior correction, cross-fitted (tau on all of val: 0.7) | 0.9000 |" in text


@pytest.mark.parametrize(("gain", "views"), [(0.01, True), (-0.01, False)])
def test_the_final_looks_through_several_views_unless_they_were_worse_on_val(study, gain, views):
    won = winner.winner(study)
    seen = Look(**{**won.epoch.val.model_dump(), won.result.metric: won.result.value + gain})
    records.write_result(study.trial(won.result.number), won.result.model_copy(update={"tta": seen}))
    job = records.read_config(exported(study).folder)
    assert job
    assert job.use_tta is views


@pytest.mark.parametrize(
    ("gain", "fitted", "tau"), [(0.01, 0.4, 0.4), (0.0, 0.4, 0.4), (-0.01, 0.4, 0.7), (0.01, None, 0.7)]
)
def test_a_final_that_takes_several_views_takes_the_strength_that_was_fitted_to_them(study, gain, fitted, tau):
    won = corrected(study, fit=True)
    values = {**won.epoch.val.model_dump(), won.result.metric: won.result.value + gain}
    result = won.result.model_copy(update={"tta": Look(**values, tau=fitted)})
    records.write_result(study.trial(won.result.number), result)
    assert winner.winner(study).tau == tau


def test_a_card_counts_categories_where_there_are_several():
    one, tags = Category("fit", ("tight", "loose")), Category("tags", ("warm", "dry"), multi=True)
    assert card.answers([one]) == "An image classifier with one answer."
    assert card.answers([one] * 3) == "An image classifier with one answer in each of 3 categories."
    assert card.answers([tags]) == "An image classifier with any number of answers in tags."
    assert card.answers([one, tags]) == (
        "An image classifier with one answer in one category and any number of answers in tags."
    )


def test_the_card_says_what_the_commonest_classes_would_score(study):
    table = layouts.read(winner.winner(study).job.recipe.data)
    overall, classes = card.baseline(table).values()
    logits = np.concatenate(
        [
            np.bincount([row.labels[k] for row in table.split("train")], minlength=len(c.classes))
            for k, c in enumerate(table.categories)
        ]
    )
    labels = np.array([row.labels for row in table.split("val")])
    found = metrics.scores(np.tile(logits, (len(labels), 1)), labels, table.categories, loss=0.0)
    assert (overall, classes) == pytest.approx((found.overall_accuracy, found.mean_class_accuracy))
    assert f"overall accuracy {overall:.4f}" in exported(study).folder.card.read_text()


def test_a_recipe_that_fits_nothing_has_no_strength_to_hand_on(study):
    assert corrected(study, fit=False).tau is None
    assert corrected(study, tau=0.4).tau is None  # the recipe itself says it
    assert "logits - 0.4 log(prior), the recipe's" in exported(study).folder.card.read_text()


def test_the_submission_holds_the_likeliest_classes_in_the_order_of_test(study):
    final = exported(study)
    table = layouts.read(winner.winner(study).job.recipe.data)
    logits = np.load(final.folder.test_logits)
    lines = final.folder.prediction.read_text().splitlines()
    assert len(lines) == 6
    assert lines[3] == " ".join(map(str, submission.choose(logits, table.categories)[3]))


def test_a_final_leaves_a_model_and_a_card_and_no_checkpoint(study):
    final = exported(study)
    names = {path.name for path in final.folder.root.iterdir()}
    assert names == {
        *("config.json", "history.jsonl", "result.json", "log.txt"),
        *("model.safetensors", "card.md", "test_logits.npy", "prediction.txt", "submission.zip", "test_images"),
        "elapsed_seconds",
    }
    card = final.folder.card.read_text()
    assert f"`model.safetensors`, sha256 `{hashlib.sha256(final.folder.model.read_bytes()).hexdigest()}`" in card
    assert final.submission
    assert f"`submission.zip`, sha256 `{final.submission.sha256}`" in card
    assert "30 train, 12 val, 6 test" in card


def test_a_finished_final_is_pointed_to_and_packed_the_same(study):
    first = exported(study)
    (first.folder.submission).unlink()
    second = exported(study)
    assert second.known
    assert (second.folder, second.submission) == (first.folder, first.submission)


@pytest.mark.parametrize("size", [100, 0])
def test_a_final_whose_model_is_damaged_or_missing_is_trained_again(study, capfd, size):
    first = exported(study)
    model = first.folder.model
    part = model.read_bytes()[:size]
    model.unlink()
    if part:
        model.write_bytes(part)
    second = exported(study)
    assert "model.safetensors is missing or damaged, so this model is trained again" in capfd.readouterr().err
    assert not second.known
    assert second.folder != first.folder
    assert exported(study).folder == second.folder


def test_a_winner_without_a_temperature_is_said_with_the_way_to_one(study, capfd):
    exported(study)
    number = winner.winner(study).result.number
    said = capfd.readouterr().err
    assert (
        f"not calibrated, because trial {number} has no temperature: either no category has {temperature.MIN_ANSWERS}"
        in said
    )
    assert "train it again with: sweep best question > best.yaml && sweep run best.yaml --then-best" in said
    picked = export.uncalibrated(winner.chosen(study, 0))
    assert picked.endswith("sweep best question --trial 0 > best.yaml && sweep run best.yaml --then-best")


# --------------------------------------------------------------------------------- other test images
def changed(root: Path, how: str) -> int:
    """Change the table of photos; returns how many test images there are then."""
    rows = (root / "labels.csv").read_text().splitlines()
    match how:
        case "added":
            shutil.copy(root / "test000.png", root / "new.png")
            rows.append("new.png,test,red,low")
        case "removed":
            rows = [row for row in rows if not row.startswith("test003")]
        case "none":
            rows = [row for row in rows if not row.startswith("test")]
        case "replaced":
            shutil.copy(root / "train001.png", root / "test000.png")
        case "swapped":
            rows[-1], rows[-2] = rows[-2], rows[-1]
        case "train":
            rows[1] = rows[1].replace("red", "blue")
        case "val":
            rows = [row.replace("high", "low") if row.startswith("val000") else row for row in rows]
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return sum(",test," in row for row in rows)


LONGER = [pytest.param(how, marks=pytest.mark.slow) for how in ("added", "removed", "none", "swapped")]


@pytest.mark.parametrize("how", ["replaced", *LONGER])
def test_other_test_images_are_predicted_without_retraining(tmp_path, monkeypatch, how):
    study = small_study(TABLE, tmp_path, monkeypatch)
    first = exported(study)
    model, history = first.folder.model.read_bytes(), first.folder.history.read_bytes()
    ended = studies.finals(study)[0].ended
    count = changed(tmp_path / "photos", how)
    second = exported(study)
    assert (second.folder, second.known) == (first.folder, True)
    assert (second.folder.model.read_bytes(), second.folder.history.read_bytes()) == (model, history)
    assert studies.finals(study)[0].ended == ended > 0  # it is no newer model
    assert (second.submission.images if second.submission else 0) == count
    table = layouts.read(winner.winner(study).job.recipe.data)
    if second.submission:
        rows = second.folder.predictions.read_text().splitlines()[1:]
        assert [row.partition(",")[0] for row in rows] == [row.path for row in table.split("test")]
    assert f"6 val, {count} test" in second.folder.card.read_text()
    before = second.folder.card.stat().st_mtime_ns
    assert exported(study).submission == second.submission
    assert second.folder.card.stat().st_mtime_ns == before  # nothing is predicted a third time


@pytest.mark.slow
def test_a_first_final_may_have_other_test_images_than_the_search(tmp_path, monkeypatch):
    study = small_study(TABLE, tmp_path, monkeypatch)
    count = changed(tmp_path / "photos", "added")
    assert exported(study).submission.images == count
    run.run(run.session(tmp_path / "space.yaml", PLAIN))  # and the search goes on


@pytest.mark.slow
@pytest.mark.parametrize("how", ["train", "val"])
@pytest.mark.parametrize("again", [False, True])
def test_other_images_to_fit_stay_refused_where_anything_is_trained_or_predicted(tmp_path, monkeypatch, how, again):
    study = small_study(TABLE, tmp_path, monkeypatch)
    first = exported(study)
    changed(tmp_path / "photos", how)
    changed(tmp_path / "photos", "added")
    logits = first.folder.test_logits.read_bytes()
    with pytest.raises(UserError, match="have changed since study 'question' started"):
        exported(study, again=again)
    assert first.folder.test_logits.read_bytes() == logits


@pytest.mark.slow
def test_a_kill_while_test_is_predicted_anew_leaves_it_to_the_next_call(tmp_path, monkeypatch):
    study = small_study(TABLE, tmp_path, monkeypatch)
    first = exported(study)
    study_file.note_test(first.folder, study_file.PENDING)
    first.folder.test_logits.unlink()
    assert exported(study).submission == first.submission


def test_a_final_of_before_is_packed_as_long_as_its_data_are_the_same(study):
    first = exported(study)
    first.folder.test_images.unlink()
    before = first.folder.card.stat().st_mtime_ns
    assert exported(study).submission == first.submission
    assert first.folder.card.stat().st_mtime_ns == before


def test_again_makes_another_final_beside_the_first(study):
    first, second = exported(study), exported(study, again=True)
    assert second.folder.root.name == f"{first.folder.root.name}-2"
    assert second.folder.submission.read_bytes() == first.folder.submission.read_bytes()


def test_a_final_that_was_interrupted_is_continued(study):
    words = command("best", "--export", "submission", "--no-mlflow")
    with subprocess.Popen(words, env=environment(SWEEP_FAKE_SECONDS="0.3"), stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(study.finals.glob("*/history.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    (begun,) = studies.finals(study)
    before = begun.folder.history.read_text()
    assert not begun.done
    final = exported(study)
    assert final.folder == begun.folder
    assert final.folder.history.read_text().startswith(before)
    assert numbers(final.folder.history) == [1, 2, 3, 4]


def test_a_worker_that_dies_in_the_final_is_replaced_once(tmp_path, monkeypatch):
    text = TABLE.replace("test_resnet", "broken.kill_once").replace("trials: 3", "trials: 1")
    (tmp_path / "photos").mkdir()
    draw_photos(tmp_path / "photos", train=12, val=6, test=3)
    enter(tmp_path, monkeypatch)
    (tmp_path / "space.yaml").write_text(text)
    run.run(run.session(tmp_path / "space.yaml", Options(mlflow=False)))
    final = exported(StudyFolder.named("question"))
    assert numbers(final.folder.history) == [1, 2, 3, 4]


def test_a_final_that_fails_stays_open_and_names_its_log(study):
    won = winner.winner(study)
    train = won.job.recipe.train.model_copy(update={"backbone": "broken.nan"})
    recipe = won.job.recipe.model_copy(update={"train": train})
    records.write_config(study.trial(won.result.number), won.job.model_copy(update={"recipe": recipe}))
    with pytest.raises(RunFailed, match="the loss is nan") as caught:
        exported(study)
    assert caught.value.where.endswith("log.txt")
    assert [final.done for final in studies.finals(study)] == [False]


def test_a_table_with_labelled_test_images_gets_names_and_scores(tmp_path, monkeypatch):
    final = exported(small_study(TABLE, tmp_path, monkeypatch))
    assert final.folder.predictions.read_text().startswith("path,colour,place\ntest000.png,")
    scores = Scores.model_validate_json(final.folder.test_scores.read_text())
    assert (
        f"| overall_accuracy | {winner.winner(StudyFolder.named('question')).epoch.val.overall_accuracy:.4f} |"
        in (card := final.folder.card.read_text())
    )
    assert f"| {scores.overall_accuracy:.4f} |" in card


def test_the_card_names_the_folders_of_figures_where_they_are_drawn(study):
    final, val = exported(study), study.trial(winner.winner(study).result.number).figures
    (line,) = [line for line in final.folder.card.read_text().splitlines() if line.startswith("- figures")]
    named = [final.folder.root / name for name in re.findall("`(.+?)/`", line)]
    folders = [val] if final.test is None else [final.folder.figures, val]
    assert [folder.resolve() for folder in named] == [folder.resolve() for folder in folders]


def test_without_test_images_there_is_a_model_and_no_submission(tmp_path, monkeypatch):
    final = exported(small_study(TABLE, tmp_path, monkeypatch, test=0))
    assert final.submission is None
    assert final.folder.model.exists()
    assert "submission.zip" not in final.folder.card.read_text()


def test_the_final_of_a_study_shows_in_mlflow_with_its_files(study, database):
    shutil.copy(database, paths.database())
    export.export(winner.winner(study), SLOTS)
    sent = [path.name for path in (Path("mlruns") / "artifacts").rglob("*") if path.is_file()]
    assert {"submission.zip", "card.md", "prediction.txt"} <= set(sent)


def test_a_final_that_was_made_without_mlflow_is_there_once_it_is_packed_again(study, database):
    shutil.copy(database, paths.database())
    exported(study)
    assert client.link(study, "") is None
    assert export.export(winner.winner(study), SLOTS).known
    assert client.link(study, "") is not None


# ------------------------------------------------------------------------------------------ confirming
def test_leaders_are_trained_again_with_new_seeds_and_the_best_mean_wins(study):
    rows = confirm.run(study, 2, SLOTS, mlflow=False)
    assert [len(row.again) for row in rows] == [2, 2, 2]
    assert [row.mean for row in rows] == sorted((row.mean for row in rows), reverse=True)
    won = winner.winner(study)
    assert won.result.number == rows[0].trial
    assert won.confirmed == rows[0].again
    said = f"trial {rows[0].trial} ({rows[0].backbone}): mean {won.result.metric} {rows[0].mean:.4f} over 2 new seeds"
    assert status.confirmation(studies.status_of(study)) == said
    shown = leaderboard.standing(study, leaderboard.Wanted())
    assert f"winner: {said}" in shown.remarks
    means = {int(line[1]): line[3] for line in shown.board().rows if line[3]}
    assert (shown.board().headers[3], means) == ("confirmed", {row.trial: f"{row.mean:.4f}" for row in rows})
    assert "# Confirmed with 2 new seeds: mean" in winner.recipe(won)


def test_confirmations_on_record_are_not_trained_again(study):
    confirm.run(study, 1, SLOTS, mlflow=False)
    first = {path: path.stat().st_mtime_ns for path in study.confirmations.rglob("result.json")}
    confirm.run(study, 2, SLOTS, mlflow=False)
    again = {path: path.stat().st_mtime_ns for path in study.confirmations.rglob("result.json")}
    assert len(again) == 6
    assert {path: again[path] for path in first} == first


def test_a_confirmation_differs_from_its_trial_in_the_seed_alone(study):
    confirm.run(study, 1, SLOTS, mlflow=False)
    job = records.read_config(study.confirm(0, 1))
    original = records.read_config(study.trial(0))
    assert job
    assert original
    assert job.recipe.train.seed == 1000
    changed = job.recipe.train.model_copy(update={"seed": original.recipe.train.seed})
    assert changed == original.recipe.train


def test_a_later_trial_that_is_better_outdoes_old_confirmations(study):
    confirm.run(study, 1, SLOTS, mlflow=False)
    loser = min(records.results(study), key=lambda result: result.value or 0)
    shutil.rmtree(study.confirm(loser.number, 1).root)
    records.write_result(study.trial(loser.number), loser.model_copy(update={"value": 0.99}))
    assert winner.winner(study).result.number == loser.number


def test_confirmations_of_a_trial_that_was_removed_do_not_count(study):
    rows = confirm.run(study, 1, SLOTS, mlflow=False)
    gone = next(row.trial for row in rows if row.trial != studies.status_of(study).best.number)
    again = records.read_result(study.confirm(gone, 1))
    records.write_result(study.confirm(gone, 1), again.model_copy(update={"value": 0.99}))
    assert winner.winner(study).result.number == gone
    shutil.rmtree(study.trial(gone).root)
    assert winner.winner(study).result.number != gone


def test_two_runs_of_one_trial_never_train_side_by_side(study):
    confirm.run(study, 2, [Slot("cpu:0"), Slot("cpu:1"), Slot("cpu:2"), Slot("cpu:3")], mlflow=False)
    assert all(numbers(path) == [1, 2, 3, 4] for path in study.confirmations.rglob("history.jsonl"))


SEEDS = SPACE.replace(
    "{sampler: random, pruner: none}", "{sampler: random, pruner: none, confirm: {top: 2, seeds: 2}}"
)


def test_a_study_file_can_ask_for_new_seeds_after_the_search_once(tmp_path):
    folder = lay_out(tmp_path, SEEDS)
    ended = sweep(folder, "run", "space.yaml", "--no-mlflow", "--devices", "cpu")
    assert ended.returncode == 0, ended.stderr
    there = {
        path: path.stat().st_mtime_ns for path in folder.glob("mlruns/studies/question/confirmations/*/result.json")
    }
    assert len(there) == 4
    assert re.search(
        r"trial \d had 0\.\d{4} in the search and has 0\.\d{4} with new seeds; (it|trial \d) has the best mean\n"
        r"next: +sweep best question --export submission$",
        ended.stderr,
    )
    again = sweep(folder, "run", "space.yaml", "--no-mlflow", "--devices", "cpu")
    assert again.returncode == 0, again.stderr
    assert again.stderr.splitlines()[-2:] == ended.stderr.splitlines()[-2:]
    assert {path: path.stat().st_mtime_ns for path in there} == there
    words = ["--set", "search.confirm={top: 4, seeds: 2}", "--log-format", "json"]
    more = sweep(folder, "run", "space.yaml", "--no-mlflow", "--devices", "cpu", *words)
    assert more.returncode == 0, more.stderr
    assert "room" not in more.stderr  # three trials have completed, and all were trained again
    events = [json.loads(line) for line in more.stdout.splitlines()]
    assert [event["kind"] for event in events if event["event"] == "trial_begin"] == ["confirm"] * 2
    assert [len(leader["again"]) for leader in events[-1]["leaders"]] == [2, 2, 2]
    assert len(list(folder.glob("mlruns/studies/question/confirmations/*/result.json"))) == 6


def test_hours_that_have_no_room_for_all_new_seeds_are_kept_and_said(tmp_path):
    folder = lay_out(tmp_path, SEEDS.replace("budget: {trials: 3}", "budget: {trials: 2, hours: 0.003}"))
    words = ["run", "space.yaml", "--no-mlflow", "--devices", "cpu", "--set", "search.confirm.seeds=40"]
    ended = sweep(folder, *words, SWEEP_FAKE_SECONDS="0.2")
    assert ended.returncode == 0, ended.stderr
    said = re.search(r"the hours allow (\d+) new seeds? for each of the best 2; increase --hours", ended.stderr)
    assert said
    assert len(list(folder.glob("mlruns/studies/question/confirmations/*/result.json"))) == 2 * int(said[1])


def test_the_table_of_confirmations_is_there_as_json(study):
    ended = subprocess.run(
        command("best", "--confirm", "1", "--json", "--no-mlflow"), env=environment(), capture_output=True, text=True
    )
    document = json.loads(ended.stdout)
    assert document["schema_version"] == 1
    assert document["winner"] == document["leaders"][0]["trial"]
    assert os.environ["SWEEP_HOME"] == str(study.root.parents[1])


# ------------------------------------------------------------------------------------ several answers
def test_an_export_without_a_zip_says_why_and_what_there_is_instead(tmp_path):
    from sweeper.store.paths import RunFolder

    folder = RunFolder(tmp_path / "final")
    tags = Category("tags", ("warm", "dry"), multi=True)
    made = submission.Submission(None, None, 12, (tags,), folder.predictions, refused="tags has several answers")
    final = export.Final(folder, "abc", made, False, "mean_average_precision", None)
    said = list(export.ending(final, StudyFolder.named("question")))
    assert "submission: none, tags has several answers" in said
    assert "predict:    sweep predict question IMAGES" in said
    assert any(line.startswith("by name:") and line.endswith("predictions.csv, 12 images") for line in said)
    document = export.finished(final)["submission"]
    assert (document["path"], document["sha256"], document["refused"]) == (None, None, "tags has several answers")
    assert document["by_name"] == str(folder.predictions)


def test_a_test_score_says_on_how_many_answers_it_stands(tmp_path):
    from sweeper.store.paths import RunFolder
    from tests.support.records import scores

    made = submission.Submission(None, None, 23, (), tmp_path / "predictions.csv", refused="tags")
    for known, said in (
        ({}, "23 images"),
        ({"tags": 2, "kind": 1}, "3 known answers"),
        ({"tags": 1}, "1 known answer"),
    ):
        test = scores(0.5).model_copy(update={"category_answers": known})
        final = export.Final(RunFolder(tmp_path / "final"), "abc", made, False, "overall_accuracy", test)
        (line,) = (line for line in export.ending(final, StudyFolder.named("question")) if line.startswith("test:"))
        assert line.endswith(f" 0.5000, {said}")


def test_a_test_score_that_stands_on_no_answer_is_no_number(tmp_path):
    from sweeper.store.paths import RunFolder
    from tests.support.records import scores

    test = scores(0.5).model_copy(update={"mean_average_precision": float("nan")})
    final = export.Final(RunFolder(tmp_path / "final"), "abc", None, False, "mean_average_precision", test)
    assert "test:       mean_average_precision -" in list(export.ending(final, StudyFolder.named("question")))
