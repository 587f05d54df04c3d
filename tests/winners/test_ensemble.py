"""Ensembles: chosen by the record, retrained, put together, predicted and packed, with real training."""

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweeper.commands import run
from sweeper.engine.options import Options
from sweeper.engine.prepare import prepare
from sweeper.errors import UserError
from sweeper.results.submission import choose
from sweeper.statistics.ensemble import divided
from sweeper.store import lock, studies
from sweeper.store.paths import StudyFolder
from sweeper.study.planner import HoursPlan
from sweeper.winners import selection
from tests.support.cli import command, environment, sweep
from trainers.data import layouts
from trainers.data.demo import draw
from trainers.data.table import Category
from trainers.data_config import DataConfig
from trainers.evaluation import metrics
from trainers.support.checksummed import load_array

pytestmark = pytest.mark.process

SPACE = """
study: pair
data: {layout: challenge, root: garments, crop: box}
budget: {trials: 4}
search: {sampler: random, pruner: none, seed: 1}
train:
  backbone: test_resnet
  pretrained: false
  image_size: 32
  epochs: 5
  batch_size: 16
  optimizer: {name: adamw, lr: {loguniform: [3e-3, 2e-2]}}
"""
ALONE = ("rules.ensemble=false",)
QUIET = {"SWEEP_TRAINER": ""}
SELECT = ("best", "pair", "--ensemble", "5")
EXPORT = (*SELECT, "--export", "submission", "--no-mlflow", "--devices", "cpu")


def call(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ended = sweep(folder, *words, **QUIET)
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of real networks that know little, and err each in its own way; not to be written to."""
    folder = tmp_path_factory.mktemp("swept") / "here"
    draw(folder / "garments", images=(160, 100, 12), seed=0)
    (folder / "space.yaml").write_text(SPACE)
    call(folder, "run", "space.yaml", "--no-mlflow", "--devices", "cpu")
    return folder


@pytest.fixture(scope="module")
def exported(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an ensemble; not to be written to."""
    folder = Path(shutil.copytree(swept, tmp_path_factory.mktemp("exported") / "here"))
    call(folder, *EXPORT)
    return folder


@pytest.fixture
def folder(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the study, in which this process works as well."""
    return enter(Path(shutil.copytree(swept, tmp_path / "here")), monkeypatch)


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SWEEP_HOME", str(folder / "mlruns"))
    return folder


def finals(folder: Path) -> list[Path]:
    return sorted((folder / "mlruns/studies/pair/finals").glob("*"))


def made(folder: Path) -> Path:
    (found,) = (path for path in finals(folder) if path.name.endswith("-ensemble"))
    return found


def members(folder: Path) -> list[dict]:
    return json.loads((made(folder) / "config.json").read_text())["ensemble"]["members"]


def predictions(folder: Path, member: dict) -> np.ndarray:
    """What a member says of test, as sure as it was right on val."""
    table = layouts.read(DataConfig(layout="challenge", root=str(folder / "garments"), crop="box"))
    logits = load_array(made(folder).parent / member["final"] / "test_logits.npy")
    return divided(logits, table.categories, member["temperature"])


def test_the_choice_is_shown_before_anything_is_trained(folder):
    said = json.loads(call(folder, *SELECT, "--json").stdout)
    assert said["value"] >= said["best"]["value"]
    assert sum(one["share"] for one in said["members"]) == pytest.approx(1)
    assert len(said["members"]) > 1
    table = call(folder, *SELECT)
    assert table.stdout.split("\n")[0].split() == ["trial", "seed", "share", "backbone", "value"]
    assert f"{said['value']:.4f}" in table.stderr
    assert "They were chosen on these images" in table.stderr
    assert finals(folder) == []


def test_its_value_is_that_of_the_mean_of_stored_predictions(folder):
    said = json.loads(call(folder, *SELECT, "--json").stdout)
    table = layouts.read(DataConfig(layout="challenge", root="garments", crop="box"))
    logits = 0.0
    for one in said["members"]:
        path = StudyFolder.named("pair").trial(one["trial"])
        heat = json.loads(path.history.read_text().splitlines()[-1]).get("temperature", {})
        logits = logits + one["share"] * divided(load_array(path.val_logits), table.categories, heat)
    labels = np.array([row.labels for row in table.split("val")])
    assert said["value"] == pytest.approx((choose(logits, table.categories) == labels).mean())


def test_an_ensemble_is_packed_from_the_mean_of_its_members(exported):
    table = layouts.read(DataConfig(layout="challenge", root=str(exported / "garments"), crop="box"))
    mean = sum(one["share"] * predictions(exported, one).astype(np.float64) for one in members(exported))
    np.testing.assert_allclose(load_array(made(exported) / "test_logits.npy"), mean, atol=1e-5)
    lines = (made(exported) / "prediction.txt").read_text().splitlines()
    assert lines == [" ".join(map(str, row)) for row in choose(mean, table.categories).tolist()]
    card = (made(exported) / "card.md").read_text()
    assert all(f"trial {one['trial']}, in `finals/{one['final']}`" in card for one in members(exported))


def test_it_predicts_exports_and_stands_in_the_ledger(exported):
    said = json.loads(call(exported, "predict", "pair", "garments/img", "--json", "--top", "1").stdout)
    assert said["model"]["kind"] == "final"
    shown = "+".join(str(one["trial"]) for one in members(exported))
    assert shown in call(exported, "leaderboard", "pair").stdout
    assert f"ensemble of {len(members(exported))}" in call(exported, "predict", "pair", "garments/img").stderr


@pytest.mark.slow
def test_its_figures_are_those_of_its_predictions(exported, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "here"))
    assert "not drawn" not in call(folder, "report", "pair").stderr
    assert "figures are missing" not in call(folder, *EXPORT, "--again").stderr


def test_the_same_command_makes_nothing_twice(exported):
    before = {path: path.stat().st_mtime_ns for path in made(exported).parent.rglob("model.safetensors")}
    said = call(exported, *EXPORT)
    assert "made before" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in made(exported).parent.rglob("model.safetensors")} == before


def test_a_member_is_a_final_of_its_own_and_no_ensemble_is_taken_for_one(exported, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "here"))
    best = json.loads(call(folder, *SELECT, "--json").stdout)["best"]["trial"]
    said = call(folder, "best", "pair", "--export", "submission", "--no-mlflow", "--devices", "cpu").stdout
    assert "made before" in said
    assert f"-{best:04d}" in said.split("\n")[0]


def test_in_a_copy_without_its_times_the_ensemble_still_stands_for_the_study(exported, tmp_path, monkeypatch):
    folder = enter(Path(shutil.copytree(exported, tmp_path / "here")), monkeypatch)
    for path in finals(folder):
        os.utime(path / "result.json", (1, 1) if path == made(folder) else (2, 2))
    assert studies.newest_final(StudyFolder.named("pair")).root == made(folder)


def test_a_study_that_is_held_gets_no_ensemble_and_loses_none(folder):
    held = lock.acquire(StudyFolder.named("pair").lock)
    call(folder, *EXPORT, code=4)
    held.release()
    assert finals(folder) == []


@pytest.mark.slow
def test_ctrl_c_in_the_last_epoch_of_a_member_keeps_the_ensemble_for_the_same_command(folder, exported):
    with subprocess.Popen(command(*EXPORT), env=environment(**QUIET), stderr=subprocess.PIPE, text=True) as process:
        last = len(members(exported))
        for line in process.stderr:
            last -= " epoch 5/5 " in line
            if last == 0:
                last = -1
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert all((path / "result.json").exists() for path in finals(folder) if path != made(folder))
    assert not (made(folder) / "result.json").exists()
    call(folder, *EXPORT)
    assert (made(folder) / "submission.zip").read_bytes() == (made(exported) / "submission.zip").read_bytes()


@pytest.mark.slow
def test_a_kill_costs_no_member_that_was_trained(folder, exported):
    """SIGKILL when the first member has ended; the same command then makes the same bytes."""
    with subprocess.Popen(command(*EXPORT), env=environment(**QUIET), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if " done after " in line:
                os.kill(process.pid, signal.SIGKILL)
    done = [path for path in finals(folder) if (path / "result.json").exists()]
    kept = {path: (path / "model.safetensors").stat().st_mtime_ns for path in done}
    assert kept
    call(folder, *EXPORT)
    assert {path: (path / "model.safetensors").stat().st_mtime_ns for path in done} == kept
    assert (made(folder) / "submission.zip").read_bytes() == (made(exported) / "submission.zip").read_bytes()


def test_other_test_images_are_predicted_without_training(exported, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "here"))
    split = folder / "garments/split"
    for name in split.glob("test*.txt"):
        name.write_text("".join(line + "\n" for line in name.read_text().splitlines()[:-2]))
    before = (made(folder) / "model.safetensors").read_bytes()
    said = call(folder, *EXPORT)
    assert "predicts them without retraining" in said.stderr
    assert (made(folder) / "model.safetensors").read_bytes() == before
    assert len((made(folder) / "prediction.txt").read_text().splitlines()) == 10


# ------------------------------------------------------------------------------------------ hours alone
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "slots", "planned", "trial", "together"),
    [
        ((), None, 2, 1.0, True),
        pytest.param((), 2, 1, 1.0, True, marks=pytest.mark.slow),
        pytest.param((), None, 1, 1.0, True, marks=pytest.mark.slow),  # one after another
        pytest.param(ALONE, None, 2, 1.0, False, marks=pytest.mark.slow),
        pytest.param(ALONE, None, 1, 1.0, False, marks=pytest.mark.slow),
        pytest.param((), 1, 2, 1.0, False, marks=pytest.mark.slow),
        pytest.param((), None, 1, 1300.0, False, marks=pytest.mark.slow),
    ],
)
def test_hours_alone_end_with_two_models_where_that_is_allowed_and_there_is_time(
    folder, capfd, more, slots, planned, trial, together
):
    space, study = folder / "space.yaml", folder / "mlruns/studies/pair/study.json"
    space.write_text(SPACE.replace("{trials: 4}", "{hours: 1}"))
    seconds = {"trial_seconds": trial, "final_seconds": 1.0, "start_seconds": 1.0}
    known = {"hours": 1, "retrains": True, "slots": planned, "pairs": True, "values": {}, "image_size": "32"}
    plan = HoursPlan(**known, epochs=2, **seconds)
    study.write_text(json.dumps(json.loads(study.read_text()) | {"plan": plan.document()}))
    options = Options(more, devices="cpu", slots=slots, mlflow=False)
    found = run.final(prepare(space, options, networks=False), options)
    assert found.folder.root.name.endswith("-ensemble") == together
    assert (
        "is trained with the seeds 0 and 1000, and their logits are averaged" in capfd.readouterr().err
    ) == together
    assert len(finals(folder)) == (3 if together else 1)
    assert (found.folder.root / "submission.zip").exists()


def joint(*gain: float) -> selection.Joint:
    nothing = metrics.scores(np.eye(2), np.array([[0], [1]]), [Category("kind", ("a", "b"))], loss=0.0)
    return selection.Joint(own=0.5, val=nothing, temperature={}, gain=gain or None)


@pytest.mark.parametrize(
    ("own", "gain", "minimize", "worth"),
    [
        (0.98, (-0.01, 0.05), False, True),
        (0.995, (0.001, 0.009), False, False),
        (1.5, (-0.2, -0.1), True, True),
        (1.5, (-0.2, 0.1), True, False),
        (1.5, (), True, True),
    ],
)
def test_a_pair_of_backbones_is_worth_a_point_like_a_second_seed_or_is_certainly_better(own, gain, minimize, worth):
    found = replace(joint(*gain), own=own)
    assert found.beats_second_seed("overall_accuracy", minimize=minimize) == worth


def test_trials_of_the_same_backbone_do_not_join_where_other_backbones_are_asked_for(folder):
    assert len(selection.select(StudyFolder.named("pair"), 2).members) == 2
    assert selection.select(StudyFolder.named("pair"), 2, other_backbones=True).alone


# ------------------------------------------------------------------------------------------ several seeds
SEEDS = ("best", "pair", "--seeds", "2")
TWICE = (*SEEDS, "--export", "submission", "--no-mlflow", "--devices", "cpu")


@pytest.fixture(scope="module")
def twice(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with its best trial retrained with two seeds; not to be written to."""
    folder = Path(shutil.copytree(swept, tmp_path_factory.mktemp("twice") / "here"))
    call(folder, *TWICE)
    return folder


def test_a_trial_is_retrained_with_two_seeds_and_their_mean_is_packed(twice):
    table = layouts.read(DataConfig(layout="challenge", root=str(twice / "garments"), crop="box"))
    own, new = members(twice)
    assert (own["trial"], own["seed"], new["seed"]) == (new["trial"], None, 1000)
    apart = np.abs(predictions(twice, own) - predictions(twice, new)).max()
    assert apart > 0.01
    mean = (predictions(twice, own).astype(np.float64) + predictions(twice, new)) / 2
    lines = (made(twice) / "prediction.txt").read_text().splitlines()
    assert lines == [" ".join(map(str, row)) for row in choose(mean, table.categories).tolist()]
    card = (made(twice) / "card.md").read_text()
    assert f"trial {own['trial']} with seed 1000, in `finals/{new['final']}`, has 50% of the weight" in card
    assert f"of trial {own['trial']} with 2 seeds; overall_accuracy" in card
    assert "only the trial alone" in card


@pytest.mark.slow
def test_seeds_of_one_trial_train_side_by_side(folder):
    said = call(folder, *TWICE, "--slots", "2").stderr
    started = [line for line in said.split(" done after ")[0].splitlines() if " starts on cpu" in line]
    assert len(started) == 2
    assert "starts on cpu:0" in started[0]
    assert "starts on cpu:1" in started[1]


def test_the_own_seed_is_the_final_model_of_the_trial_and_the_other_is_not(twice, tmp_path):
    folder = Path(shutil.copytree(twice, tmp_path / "here"))
    said = call(folder, "best", "pair", "--export", "submission", "--no-mlflow", "--devices", "cpu").stdout
    assert "made before" in said
    assert said.split("\n")[0].endswith(members(twice)[0]["final"])
    assert members(twice)[1]["final"].endswith("-seed1000")


@pytest.mark.slow
def test_seeds_are_not_trained_twice_and_one_more_is_added(twice, tmp_path):
    folder = Path(shutil.copytree(twice, tmp_path / "here"))
    before = {path: path.stat().st_mtime_ns for path in made(folder).parent.rglob("model.safetensors")}
    assert "made before" in call(folder, *TWICE).stdout
    more = call(folder, "best", "pair", "--seeds", "3", "--export", "submission", "--no-mlflow", "--devices", "cpu")
    assert "with the seeds 0, 1000 and 2000" in more.stderr
    assert "with seed 1000 on train and val" not in more.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(finals(folder)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["member", "ensemble"])
def test_a_damaged_model_is_made_again_and_the_others_are_kept(twice, tmp_path, spoilt):
    folder = Path(shutil.copytree(twice, tmp_path / "here"))
    name = members(folder)[1]["final"] if spoilt == "member" else made(folder).name
    model = made(folder).parent / name / "model.safetensors"
    whole = (made(folder) / "prediction.txt").read_bytes()
    model.write_bytes(model.read_bytes()[:1000])
    said = call(folder, *TWICE)
    assert "with seed 0 on train" not in said.stderr
    assert (f"{name}/model.safetensors is missing or damaged, so" in said.stderr) == (spoilt == "member")
    again = folder / said.stdout.split("\n")[0].removeprefix("done: ")
    assert again.name.endswith("ensemble-2" if spoilt == "member" else "ensemble")
    assert (again / "prediction.txt").read_bytes() == whole
    assert "made before" in call(folder, *TWICE).stdout


def test_seeds_are_named_in_the_ledger_the_status_and_before_training(twice, folder):
    trial = members(twice)[0]["trial"]
    assert f"of trial {trial} with 2 seeds" in call(twice, "status", "pair").stdout
    ledger = call(twice, "leaderboard", "pair").stdout
    assert f"{trial}+{trial}" in ledger
    assert f"{trial} seed 1000" in ledger
    said = json.loads(call(folder, *SEEDS, "--json").stdout)
    assert [(one["trial"], one["seed"], one["share"]) for one in said["members"]] == [
        (trial, 0, 0.5),
        (trial, 1000, 0.5),
    ]
    assert (said["value"], said["gain"]) == (None, None)
    assert finals(folder) == []


@pytest.mark.slow
def test_seeds_that_were_interrupted_are_continued_by_the_command_that_status_names(twice, tmp_path):
    folder = Path(shutil.copytree(twice, tmp_path / "here"))
    (made(folder) / "result.json").unlink()
    trial = members(folder)[0]["trial"]
    command = f"sweep best pair --trial {trial} --seeds 2 --export submission"
    assert command in call(folder, "status", "pair").stdout
    study = StudyFolder(made(folder).parents[1])
    document = json.loads(study.study_file.read_text())
    study.study_file.write_text(json.dumps(document | {"rules": {"ensemble": False}}))
    assert "--seeds" not in call(folder, "status", "pair").stdout  # that would be refused
    study.study_file.write_text(json.dumps(document))
    call(folder, *command.split()[1:], "--no-mlflow", "--devices", "cpu")
    assert (made(folder) / "submission.zip").read_bytes() == (made(twice) / "submission.zip").read_bytes()


# ------------------------------------------------------------------------------------------ refused
def test_seeds_and_trials_are_not_combined(folder):
    assert "either trials (--ensemble) or seeds" in call(folder, *SELECT, "--seeds", "2", code=2).stderr


def test_rules_that_allow_one_model_alone_are_heeded(folder):
    call(folder, "run", "space.yaml", "--set", "rules.ensemble=false", "--no-mlflow", "--devices", "cpu")
    for words in (EXPORT, TWICE):
        said = call(folder, *words, code=2).stderr
        assert "rules.ensemble: false allows only one model" in said
        assert "sweep best pair --export submission" in said
    assert finals(folder) == []


def test_a_trial_of_ones_own_choice_is_no_ensemble(folder):
    assert "leave --trial out" in call(folder, *SELECT, "--trial", "1", code=2).stderr


def test_without_predictions_nothing_can_be_chosen(folder):
    study = StudyFolder.named("pair")
    for path in study.trials.glob("*/val_logits.npy"):
        path.unlink()
    with pytest.raises(UserError, match="those of the best trial are missing"):
        selection.select(study, 3)


def test_the_ledger_of_a_study_knows_the_members(exported, monkeypatch):
    enter(exported, monkeypatch)
    found = [one.members for one in studies.finals(StudyFolder.named("pair"))]
    assert [one for one in found if one] != []
    assert sum(bool(one) for one in found) == 1
