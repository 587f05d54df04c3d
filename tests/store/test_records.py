"""What the coordinator remembers in run folders."""

import fcntl
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault, StudyHeld
from sweeper.store import lock, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Failed, Job, TrialResult
from trainers.config import Recipe
from trainers.epoch import Epoch, Scores


def scores(value: float, loss: float = 1.0) -> Scores:
    return Scores(
        loss=loss,
        overall_accuracy=value,
        mean_class_accuracy=0.5,
        macro_precision=0.5,
        macro_recall=0.5,
        macro_f1=0.5,
        category_accuracy={"sleeve": value},
    )


def epoch(index: int, value: float = 0.5, *, seconds: float = 1.0, end: float | None = None) -> Epoch:
    return Epoch(
        number=index + 1,
        train=scores(value),
        val=scores(value),
        lr=1e-3,
        seconds=seconds,
        images_per_second=10,
        peak_memory_gb=0,
        time=100.0 + index if end is None else end,
    )


def job(folder: RunFolder, number: int = 0) -> Job:
    recipe = Recipe.model_validate({"data": {"root": "nowhere"}, "train": {"backbone": "resnet18.a1", "epochs": 4}})
    return Job(study="s", trial=number, recipe=recipe, params={"x": 1}, folder=folder.root, cache=Path("cache"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "0000")
    folder.root.mkdir()
    return folder


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "study")


def test_epochs_come_back_as_they_were_appended(run):
    epochs = [epoch(0, 0.1), epoch(1, 1 / 3)]
    for one in epochs:
        records.append(run, one)
    assert records.history(run) == epochs


def test_a_loss_that_is_no_number_survives_the_record(run):
    records.append(run, epoch(0).model_copy(update={"train": scores(0.5, loss=math.inf)}))
    assert records.history(run)[0].train.loss == math.inf


def test_a_history_cut_at_any_byte_of_its_last_two_lines_loses_only_what_was_cut(run):
    for index in range(4):
        records.append(run, epoch(index))
    whole = run.history.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[1], len(whole) + 1):
        run.history.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert [one.number for one in records.history(run)] == list(range(1, kept + 1))
        assert records.repair(run) == records.history(run)
        assert run.history.read_bytes() == whole[: ends[kept - 1]]


def test_reading_a_torn_history_leaves_the_file_alone(run):
    run.history.write_bytes(b'{"number": 1, "tr')
    assert records.history(run) == []
    assert run.history.read_bytes() == b'{"number": 1, "tr'


def test_an_epoch_out_of_order_ends_what_is_believed(run):
    for index in (0, 1, 1):
        records.append(run, epoch(index))
    assert [one.number for one in records.repair(run)] == [1, 2]


def test_a_run_without_a_history_has_no_epochs(run):
    assert records.repair(run) == []


def test_a_job_comes_back_from_its_config(run):
    records.write_config(run, job(run))
    assert records.read_config(run) == job(run)


UNEVEN = [epoch(0, 0.2), epoch(1, 0.7), epoch(2, 0.7), epoch(3, 0.4)]


@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED", "PAUSED", "INTERRUPTED"])
def test_the_value_of_a_trial_is_that_of_its_last_epoch(run, state):
    result = records.result_of(job(run), UNEVEN, state)
    assert (result.value, result.epoch, result.epochs, result.seconds) == (0.4, 4, 4, 4.0)


@pytest.mark.parametrize("selection", ["metric", "overall_accuracy"])
def test_with_a_selection_it_is_that_of_the_best_epoch_the_earliest_of_equals(run, selection):
    made = job(run)
    train = made.recipe.train.model_copy(update={"selection": selection})
    chosen = made.model_copy(update={"recipe": made.recipe.model_copy(update={"train": train})})
    result = records.result_of(chosen, UNEVEN, "COMPLETE")
    assert (result.value, result.epoch, result.epochs) == (0.7, 2, 4)


def test_without_an_epoch_a_trial_has_no_value(run):
    result = records.result_of(job(run), [], "FAILED")
    assert (result.value, result.epoch) == (None, None)


def test_results_list_ended_and_unended_trials_by_number(study):
    for number in (10, 2):
        folder = study.trial(number)
        records.write_config(folder, job(folder, number))
    records.append(study.trial(10), epoch(0, 0.4))
    other = job(study.trial(2), 2)
    ended = records.result_of(other, [], "FAILED", Failed(key=other.key, failure="nan", text="no number"))
    records.write_result(study.trial(2), ended)
    found = records.results(study)
    assert [(one.number, one.state, one.value) for one in found] == [(2, "FAILED", None), (10, "INTERRUPTED", 0.4)]


def test_an_unended_trial_is_running_while_a_sweep_holds_the_study(study):
    records.write_config(study.trial(0), job(study.trial(0)))
    held = lock.acquire(study.lock)
    states = [result.state for result in records.results(study)]
    held.release()
    assert states == ["RUNNING"]
    assert [result.state for result in records.results(study)] == ["INTERRUPTED"]


def test_a_trial_killed_before_its_config_was_written_is_not_listed(study):
    study.trial(0).root.mkdir(parents=True)
    assert records.results(study) == []


def test_hours_count_once_where_trials_overlap(study):
    spans = [[(10, 0), (10, 20)], [(8, 4), (3, 33)]]  # (seconds, end) of the epochs of two trials
    for number, trial in enumerate(spans):
        study.trial(number).root.mkdir(parents=True)
        for index, (seconds, end) in enumerate(trial):
            records.append(study.trial(number), epoch(index, seconds=seconds, end=end))
    assert records.seconds(study) == 10 + 4 + 10 + 3


def test_a_held_study_names_its_holder(study):
    held = lock.acquire(study.lock)
    with pytest.raises(StudyHeld, match=r"process \d+ on ") as raised:
        lock.acquire(study.lock)
    held.release()
    assert raised.value.exit_code == 4
    lock.acquire(study.lock).release()


def test_who_is_refused_or_only_looks_leaves_no_trace(study):
    assert lock.holder(study.lock) is None
    assert not study.lock.exists()
    held = lock.acquire(study.lock)
    before = study.lock.read_bytes(), study.lock.stat().st_mtime_ns
    with pytest.raises(StudyHeld):
        lock.acquire(study.lock)
    assert lock.holder(study.lock).pid == os.getpid()
    assert (study.lock.read_bytes(), study.lock.stat().st_mtime_ns) == before
    held.release()
    assert lock.holder(study.lock) is None


def test_those_who_look_do_not_take_one_another_for_a_holder(study):
    lock.acquire(study.lock).release()
    with study.lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as `holder` does
        assert lock.holder(study.lock) is None


def test_a_short_note_takes_the_place_of_a_longer_one(study):
    study.lock.parent.mkdir(parents=True, exist_ok=True)
    study.lock.write_text("x" * 5000)
    held = lock.acquire(study.lock)
    assert lock.holder(study.lock).pid == os.getpid()
    assert held.there
    held.release()
    assert not held.there


@pytest.mark.process
def test_a_process_that_was_begun_by_the_holder_does_not_hold_the_study(study):
    held = lock.acquire(study.lock)
    code = "import sys; print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "close_fds": False, "preexec_fn": os.getpid}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        child.stdout.readline()
        held.release()
        lock.acquire(study.lock).release()
        child.stdin.close()


@pytest.mark.process
def test_a_holder_that_is_killed_lets_go_of_the_study(study):
    code = (
        f"from pathlib import Path; from sweeper.store import lock; held = lock.acquire(Path({str(study.lock)!r}))\n"
    )
    code += "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert "pid" in study.lock.read_text()
    assert lock.holder(study.lock) is None
    lock.acquire(study.lock).release()


def test_a_study_whose_folder_was_moved_is_no_longer_there(study):
    held = lock.acquire(study.lock)
    study.root.rename(study.root.with_name("moved"))
    assert not held.there
    lock.acquire(study.lock).release()  # by another, at the same path
    assert not held.there
    held.release()


def test_a_result_comes_back_as_it_was_written(run):
    result = TrialResult(number=1, state="PRUNED", metric="macro_f1", value=0.5, planned=3, backbone="x")
    assert records.read_result(run) is None
    records.write_result(run, result)
    assert records.read_result(run) == result


@pytest.mark.parametrize("damage", ["", "{", '{"number": 1}'])
def test_a_damaged_result_is_named_with_the_way_out(run, damage):
    run.result.write_text(damage)
    with pytest.raises(EnvironmentFault, match="damaged, or was written by another version") as caught:
        records.read_result(run)
    assert caught.value.where == str(run.result)


def test_a_copy_of_a_job_takes_no_field_that_a_job_does_not_have(study):
    made = job(study.trial(0))
    assert made.model_copy(update={"tau": 0.5}).tau == 0.5
    with pytest.raises(TypeError, match="Job has no field views"):
        made.model_copy(update={"views": False})
