"""The hours: what trials cost, what still fits, and that whole sweeps keep to them."""

import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.study.budget import TimeBudget
from sweeper.study.study import Study
from sweeper.trial import Done
from tests.support.cli import SPACE as PLAIN
from tests.support.cli import command, environment, lay_out, sweep
from tests.support.records import epoch
from tests.support.studies import close_all, curve, opened, write
from trainers.config import TrainConfig

SMALL, LARGE, OTHER = (TrainConfig(backbone=name, epochs=10) for name in ("small", "large", "other"))


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    (tmp_path / "study").mkdir()
    return StudyFolder(tmp_path / "study")


def clock(folder: StudyFolder, seconds: float, **paces: float) -> TimeBudget:
    """One that knows how many seconds an epoch takes."""
    made = TimeBudget(folder, seconds / 3600, {})
    for name, pace in paces.items():
        made.epoch(TrainConfig(backbone=name, epochs=10), epoch(0, 0.5, seconds=pace))
    return made


# ------------------------------------------------------------------------------------------ the time
def test_time_is_counted_over_all_calls(folder):
    first = TimeBudget(folder, None, {})
    time.sleep(0.05)
    first.save(now=True)
    again = TimeBudget(folder, None, {})
    assert 0.05 <= again.spent < 5
    assert again.spent >= float(folder.elapsed.read_text())


def test_the_next_session_knows_what_trials_take_beside_their_epochs(folder):
    """Otherwise a trial would seem to fit again, right after none did."""
    first = clock(folder, 1000, small=2.0)
    for rest in (5.0, 1.0, 1.0):
        first.learn_overhead(rest)
    first.save(now=True)
    again = clock(folder, 1000, small=2.0)
    assert again.cost(SMALL, 10) == pytest.approx(21)
    assert again.spent == pytest.approx(first.spent, abs=0.5)


def test_without_hours_everything_fits(folder):
    made = TimeBudget(folder, None, {})
    made.epoch(SMALL, epoch(0, 0.5, seconds=1e9))
    assert made.surely_fits_any()
    assert made.fits(SMALL, 10)
    assert not made.fits_none()
    assert not made.overruns(SMALL, 1)


# ------------------------------------------------------------------------------------------ costs
def test_a_trial_costs_its_epochs_and_the_rest(folder):
    made = clock(folder, 1000, small=2.0)
    assert made.cost(SMALL, 10) == pytest.approx(20)
    for rest in (5.0, 1.0, 1.0):  # the first worker was cold
        made.learn_overhead(rest)
    assert made.cost(SMALL, 10) == pytest.approx(21)


def test_a_backbone_or_size_never_trained_costs_the_mean_of_the_known(folder):
    made = clock(folder, 1000, small=2.0, large=6.0)
    assert made.cost(OTHER, 10) == pytest.approx(40)
    assert made.cost(SMALL.model_copy(update={"image_size": 96}), 1) == pytest.approx(4)


def test_a_machine_that_was_busy_for_a_while_is_not_expected_to_be(folder):
    """A trial is not stopped an epoch before its end because other programs slowed its first epochs."""
    made = clock(folder, 1000)
    for seconds in (20.0, 20.0, *[10.0] * 8):
        made.epoch(SMALL, epoch(0, 0.5, seconds=seconds))
    assert 100 < made.cost(SMALL, 10) < 107
    made.epoch(SMALL, epoch(0, 0.5, seconds=20.0))
    assert made.cost(SMALL, 10) < 130


def test_paces_are_learnt_from_the_histories(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    made = opened(write(tmp_path))
    job = made.next_job()
    assert job
    made.report(job.key, curve(job)[0].model_copy(update={"seconds": 7.0}))
    made.close()
    assert TimeBudget(made.folder, 1.0, {}).cost(job.recipe.train, 2) == pytest.approx(14)


def test_paces_of_ended_trials_are_learnt_from_the_ledger_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    made = opened(write(tmp_path, backbone="resnet18", search="{sampler: random, pruner: none}"))
    trained(made, {"resnet18": 7.0}, 2)
    made.close()
    train = TrainConfig(backbone="resnet18", epochs=6)
    whole = TimeBudget(made.folder, 1.0, {}).cost(train, 2)
    ended = records.ended(made.folder)
    for number in ended:
        made.folder.trial(number).history.unlink()
    assert TimeBudget(made.folder, 1.0, ended).cost(train, 2) == pytest.approx(whole) == pytest.approx(14)


# ------------------------------------------------------------------------------------------ what fits
def test_a_trial_fits_if_it_ends_inside(folder):
    made = clock(folder, 50, small=2.0, large=6.0)
    assert made.fits(SMALL, 10)
    assert not made.fits(LARGE, 10)
    assert not made.surely_fits_any()
    assert not made.fits_none()
    assert clock(folder, 15, small=2.0).fits_none()
    assert clock(folder, 100, small=2.0, large=6.0).surely_fits_any()


def test_time_is_kept_for_the_final_of_the_leader_or_of_the_trial_itself(folder):
    made = clock(folder, 50, small=2.0, large=6.0)
    made.expect_final(1.5)
    assert made.fits(SMALL, 9)  # 18 and 30
    made.leads(SMALL, 10)
    assert made.fits(SMALL, 9)
    made.leads(LARGE, 5)  # 45
    assert made.fits(SMALL, 2)
    assert not made.fits(SMALL, 3)


def test_time_is_kept_for_two_models_one_after_another(folder):
    made = clock(folder, 100, small=2.0)
    made.learn_overhead(3.0)
    made.leads(SMALL, 10)
    made.expect_final(1.5, 4.0, 2)  # 2 x (30 + 3) + 4
    assert made.fits(SMALL, 13)  # 26 + 3
    assert not made.fits(SMALL, 14)


def test_time_is_kept_for_confirming_the_leader_or_the_trial_itself_up_to_its_share(folder):
    made = clock(folder, 100, small=2.0, large=6.0)
    made.expect_confirmation(2, 0.5)
    assert made.fits(SMALL, 29)  # 58, and 40
    assert not made.fits(SMALL, 31)
    made.leads(LARGE, 5)
    assert made.fits(SMALL, 24)  # 48, and no more than 50 of the 120 that two of the large ones take
    assert not made.fits(SMALL, 26)
    made.expect_final(1.5)  # 45
    assert made.fits(SMALL, 2)
    assert not made.fits(SMALL, 3)


def test_what_is_left_of_the_hours_says_how_often_the_best_can_be_trained_again(folder):
    made = clock(folder, 100, small=2.0, large=6.0)
    assert made.repeats([SMALL, SMALL], 1) == pytest.approx(2.5, abs=0.01)
    assert made.repeats([SMALL, SMALL], 2) == pytest.approx(5, abs=0.01)
    assert made.repeats([SMALL, SMALL], 4) == pytest.approx(5, abs=0.01)
    made.expect_final(1.5)
    made.leads(LARGE, 5)
    assert made.repeats([SMALL, SMALL], 1) == pytest.approx(55 / 40, abs=0.01)
    assert TimeBudget(folder, None, {}).repeats([SMALL], 1) == float("inf")


def test_new_seeds_take_at_most_their_share_of_the_hours(folder):
    made = clock(folder, 100, small=2.0)
    assert made.repeats([SMALL, SMALL], 1, 0.25) == pytest.approx(25 / 40, abs=0.01)
    made.expect_final(1.5, 90)
    made.leads(SMALL, 1)
    assert made.repeats([SMALL, SMALL], 1, 0.25) == pytest.approx(7 / 40, abs=0.01)


def test_earlier_retrainings_and_new_seeds_are_part_of_more_hours(folder):
    for name, seconds in (("finals/one", 20), ("confirmations/0000-1", 7)):
        (folder.root / name).mkdir(parents=True)
        (folder.root / name / "elapsed_seconds").write_text(f"{seconds}\n")
    made = clock(folder, 100, small=2.0)
    assert made.fits(SMALL, 49)  # of a retraining that somebody asked for, the hours know nothing
    made.expect_final(1.0, 10)
    assert made.fits(SMALL, 24)  # 48 of 70, and 20 for the retraining
    assert not made.fits(SMALL, 26)
    made.expect_confirmation(0, 0.25)
    assert made.fits(SMALL, 20)
    assert not made.fits(SMALL, 22)
    assert made.spent < 1


def test_a_running_trial_stops_when_it_would_end_beyond_a_tenth_and_the_hours_have_no_room_for_an_epoch(folder):
    assert not clock(folder, 46, small=5.0).overruns(SMALL, 0)  # 50 of 46
    assert not clock(folder, 20, small=5.0).overruns(SMALL, 0)  # 50 of 20, but an epoch fits
    assert clock(folder, 4, small=5.0).overruns(SMALL, 0)


# ------------------------------------------------------------------------------------------ the study
@pytest.fixture
def studied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    yield lambda **words: opened(write(tmp_path, search="{sampler: tpe, pruner: none}", **words))
    close_all()


def trained(study: Study, seconds: dict[str, float], jobs: int) -> None:
    """Train `jobs` jobs whose epochs take `seconds` by backbone, as they say."""
    for _ in range(jobs):
        job = study.next_job()
        assert job
        for each in curve(job):
            study.report(job.key, each.model_copy(update={"seconds": seconds[job.recipe.train.backbone]}))
        study.finish(Done(key=job.key))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_where_the_proposal_does_not_fit_another_backbone_is_taken(tmp_path, monkeypatch, sampler):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    study = opened(
        write(tmp_path, search=f"{{sampler: {sampler}, pruner: none}}", budget="{hours: 0.01}")
    )  # 36 s: six epochs of resnet18 fit, of resnet50 do not
    trained(study, {"resnet18": 1.0, "resnet50": 60.0}, 10)
    backbones = [one.backbone for one in study.results()]
    study.close()
    assert sorted(backbones[:2]) == ["resnet18", "resnet50"]
    assert set(backbones[2:]) == {"resnet18"}
    gammas = [one.params["loss.gamma"] for one in study.results()]
    assert len(set(gammas)) >= 9  # the other values are drawn


def test_where_nothing_fits_no_trial_begins(studied):
    study = studied(budget="{hours: 0.01}")
    trained(study, {"resnet18": 30.0, "resnet50": 60.0}, 1)
    assert study.next_job() is None
    assert "the budget of 0.01 h is used up: no trial would finish in time" in study.outcome.reason
    study.close()


def test_paused_trials_that_lack_the_time_stay_open_for_more_hours(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    search = "{sampler: random, pruner: {name: asha, reduction_factor: 2}}"
    path = write(tmp_path, search=search, budget="{hours: 0.01}")
    study = opened(path)
    for job in [job for job in (study.next_job(), study.next_job()) if job]:
        study.report(job.key, curve(job)[0].model_copy(update={"seconds": 30.0}))
        study.finish(Done(key=job.key, stopped=True))
    assert study.next_job() is None
    assert study.settle() == []
    study.close()
    assert "PAUSED" in {one.state for one in study.results()}
    study = opened(path, sets=["budget.hours=10"])
    job = study.next_job()
    study.close()
    assert job
    assert job.resumed


# ------------------------------------------------------------------------------------------ whole sweeps
SPACE = PLAIN.replace("budget: {trials: 3}\n", "").replace(
    "{sampler: random, pruner: none}", "{sampler: tpe, seed: SEED, pruner: PRUNER}"
)


def lasted(study: Path) -> float:
    """Seconds from the moment a sweep held its study until its last trial, or its final, was on disk."""
    ends = [*study.glob("trials/*/result.json"), *study.glob("finals/*/submission.zip")]
    return max(path.stat().st_mtime for path in ends) - (study / "resume_command").stat().st_mtime


CASES = [(10, 1, False, 0), (12, 2, False, 1), (12, 1, True, 2), (16, 2, True, 3)]


@pytest.mark.process
@pytest.mark.slow
def test_after_a_signal_no_final_is_made_and_the_command_that_resumes_makes_it(tmp_path):
    folder = lay_out(tmp_path, SPACE.replace("SEED", "0").replace("PRUNER", "median"))
    words = ["run", "space.yaml", "--trials", "4", "--devices", "cpu", "--no-mlflow", "--then-best"]
    with subprocess.Popen(
        command(*words), cwd=folder, env=environment(SWEEP_FAKE_SECONDS="0.1"), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        next(line for line in process.stderr if "done after 4/4" in line)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert not list(folder.glob("mlruns/studies/question/finals/*"))
    resume = next(line for line in rest.splitlines() if line.startswith("resume: sweep "))
    ended = sweep(folder, *shlex.split(resume)[2:])
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^submission: \S+submission.zip, 6 images, sha256 [0-9a-f]{64}$", ended.stdout, re.MULTILINE)
    again = sweep(folder, "best", "--export", "submission")
    assert again.stdout == ended.stdout.replace("done: ", "made before (--again makes a new one): ")


@pytest.mark.process
def test_once_the_winner_is_retrained_only_more_hours_start_more_trials(tmp_path):
    folder = lay_out(tmp_path, SPACE.replace("SEED", "0").replace("PRUNER", "none"))
    words = ["run", "space.yaml", "--devices", "cpu", "--no-mlflow", "--set", "rules.ensemble=false"]
    study = folder / "mlruns/studies/question"

    def run(seconds: int, *more: str) -> tuple[subprocess.CompletedProcess[str], int]:
        ended = sweep(folder, *words, "--hours", str(seconds / 3600), *more, SWEEP_FAKE_SECONDS="0.1")
        assert ended.returncode == 0, ended.stderr
        return ended, len(list(study.glob("trials/*/result.json")))

    first, trials = run(5)
    assert "submission: " in first.stdout
    (study / "elapsed_seconds").write_text("0.5\n")  # as if there were time for many more
    again, same = run(5)
    assert same == trials
    assert "no trial was left to run: give --trials N or --hours H for more" in again.stderr
    assert "made before" in again.stdout
    assert run(8)[1] > trials
    assert len(list(study.glob("finals/*"))) <= 2


@pytest.mark.process
@pytest.mark.slow
def test_without_a_completed_trial_there_is_nothing_to_retrain(tmp_path):
    folder = lay_out(tmp_path, SPACE.replace("SEED", "0").replace("PRUNER", "none"))
    words = ["--set", "train.backbone=broken.nan", "--trials", "1", "--devices", "cpu", "--no-mlflow", "--then-best"]
    ended = sweep(folder, "run", "space.yaml", *words)
    assert (ended.returncode, ended.stdout) == (5, ""), ended.stderr


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "asha"])
@pytest.mark.parametrize(("seconds", "slots", "then_best", "seed"), CASES)
def test_a_sweep_keeps_its_hours_within_a_tenth(tmp_path, seconds, slots, then_best, seed, pruner):
    folder = lay_out(tmp_path, SPACE.replace("SEED", str(seed)).replace("PRUNER", pruner))
    words = ["run", "space.yaml", "--hours", str(seconds / 3600), "--slots", str(slots), "--devices", "cpu"]
    words += ["--set", "rules.ensemble=false"]  # the fake trainer's models are formulas, which cannot be averaged
    ended = sweep(folder, *words, "--no-mlflow", *["--no-then-best"] * (not then_best), SWEEP_FAKE_SECONDS="0.15")
    took = lasted(folder / "mlruns/studies/question")
    print(f"{took:.2f} s of {seconds}")
    assert ended.returncode == 0, ended.stderr
    assert "is used up: no trial would finish in time" in ended.stderr
    assert 0.9 * seconds <= took <= 1.1 * seconds
    finals = list(folder.glob("mlruns/studies/question/finals/*/submission.zip"))
    assert bool(finals) == then_best
    assert ("submission: " in ended.stdout) == then_best
