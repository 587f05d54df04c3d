"""Pausing and promotion: who waits, who goes on, and that kills change nothing of it."""

from itertools import count
from pathlib import Path

import pytest

from sweeper.engine import loop
from sweeper.executors.inline import Inline
from sweeper.executors.local import Local
from sweeper.results import status
from sweeper.space import yaml_io
from sweeper.store import records, studies
from sweeper.store.paths import StudyFolder
from sweeper.study.asha import Rungs
from sweeper.study.study import Study
from sweeper.system.devices import Slot
from sweeper.system.signals import Stop
from sweeper.trial import Failed
from tests.support.studies import (
    CLIMB,
    Seen,
    curve,
    numbers,
    opened,
    outcome,
    past,
    play,
    played,
    uninterrupted,
    write,
)
from trainers.data import cache, layouts

THIRDS = "{sampler: random, pruner: {name: asha, min_epochs: 1, reduction_factor: 3}}"


pytestmark = pytest.mark.usefixtures("faked")


def states(study: Study) -> list[str]:
    return [one.state for one in study.results()]


# ------------------------------------------------------------------------------------------ the rule
def test_rungs_are_powers_of_the_factor_below_the_trials_epochs():
    rungs = Rungs(min_epochs=2, factor=3)
    assert [epochs for epochs in range(1, 30) if rungs.stops(epochs, 18)] == [2, 6]
    assert [epochs for epochs in range(1, 30) if rungs.stops(epochs, 19)] == [2, 6, 18]


def test_one_of_three_rises_by_its_best_value_so_far_and_the_earlier_of_equals():
    rungs = Rungs(min_epochs=2, factor=3)
    for trial, values in enumerate([[0.5, 0.1], [0.2, 0.5], [0.3, 0.4]]):
        rungs.learn(trial, values)
        assert rungs.is_promotable(0, 2, last=False) == (trial == 2)
    assert [rungs.is_promotable(trial, 2, last=False) for trial in range(3)] == [True, False, False]


def test_when_no_trial_will_come_the_best_rises_however_few_there_are():
    rungs = Rungs(min_epochs=1, factor=3)
    rungs.learn(4, [0.5])
    assert (rungs.is_promotable(4, 1, last=False), rungs.is_promotable(4, 1, last=True)) == (False, True)


def test_when_no_trial_will_come_the_studys_first_rises_too():
    rungs = Rungs(min_epochs=1, factor=3)
    for trial, value in enumerate([0.1, 0.5, 0.4, 0.3]):
        rungs.learn(trial, [value])
    rungs.learn(-1, [0.9])  # of another study
    assert rungs.promotable(1, last=False) == {-1}
    assert rungs.promotable(1, last=True) == {-1, 0}


def test_a_trial_that_failed_keeps_no_other_from_rising():
    rungs = Rungs(min_epochs=1, factor=3)
    rungs.learn(0, [0.9])
    rungs.learn(1, [0.5])
    rungs.forget(0)
    assert rungs.is_promotable(1, 1, last=True)


def test_the_place_of_a_trial_that_ended_at_its_rung_is_for_the_next():
    rungs = Rungs(min_epochs=1, factor=2)
    for trial, value in enumerate([0.9, 0.8, 0.7, 0.6]):
        rungs.learn(trial, [value])
    rungs.close(0, 1)
    rungs.close(3, 2)  # further up: it has left this rung
    assert rungs.promotable(1, last=False) == {1, 2}


# ------------------------------------------------------------------------------------------ a study
def test_trials_wait_at_the_first_rung_until_one_of_three_may_go_on(tmp_path):
    study = opened(write(tmp_path, search=THIRDS, budget="{trials: 30}"))
    play(study, 3)
    values = [records.history(study.folder.trial(number))[0].value("overall_accuracy") for number in range(3)]
    best = values.index(max(values))
    lengths = [one.epochs for one in study.results()]
    if best < 2:  # else it went on by itself
        assert states(study) == ["PAUSED"] * 3
        job = study.next_job()
        assert job
        assert (job.trial, job.resumed) == (best, True)
        played(study, job)
        lengths = [one.epochs for one in study.results()]
    assert lengths == [3 if number == best else 1 for number in range(3)]
    job = study.next_job()
    study.close()
    assert job
    assert job.trial == 3


def test_a_trial_that_is_good_enough_goes_on_without_giving_up_its_slot(tmp_path):
    study = opened(write(tmp_path, search=THIRDS, budget="{trials: 30}"))
    jobs = [job for job in (study.next_job(), study.next_job(), study.next_job()) if job]
    firsts = sorted(jobs, key=lambda job: curve(job)[0].value("overall_accuracy"))
    kept = [study.report(job.key, curve(job)[0]) for job in firsts]
    study.close()
    assert kept == [False, False, True]


def test_at_the_end_the_first_trial_and_the_best_complete_and_the_rest_is_pruned(tmp_path):
    study = opened(write(tmp_path, search=THIRDS, budget="{trials: 5}"))
    play(study)
    ended, values = states(study), [one.value for one in study.results()]
    paused = list(study.folder.trials.glob("*/paused"))
    study.close()
    assert {n for n, state in enumerate(ended) if state == "COMPLETE"} == {0, values.index(max(values))}
    assert set(ended) == {"COMPLETE", "PRUNED"}
    assert not paused


def test_twelve_trials_cost_a_part_of_their_epochs(tmp_path):
    study = opened(write(tmp_path, search=THIRDS, budget="{trials: 12}", epochs=9))
    play(study)
    lengths = sorted(one.epochs for one in study.results())
    study.close()
    assert lengths[-1] == 9
    assert sum(lengths) <= 40  # of 108
    assert set(lengths) == {1, 3, 9}


def test_a_paused_trial_is_called_so_and_stays_open(tmp_path):
    path = write(tmp_path, search=THIRDS)
    study = opened(path)
    play(study, 2)
    study.close()
    one = studies.status_of(StudyFolder(tmp_path / "question"))
    assert [result.state for result in one.results] == ["PAUSED", "PAUSED"]
    assert "trials   2 paused" in list(status.status(one))
    assert [trial.state.name for trial in past(path)] == ["RUNNING", "RUNNING"]


def test_a_worker_that_dies_while_its_trial_is_paused_costs_nothing(tmp_path):
    study = opened(write(tmp_path, search=THIRDS))
    job = study.next_job()
    assert job
    assert not study.report(job.key, curve(job)[0])
    assert study.finish(Failed(key=job.key, failure="died", text="killed")).state == "PAUSED"
    study.close()


def test_with_another_pruner_paused_trials_just_go_on(tmp_path):
    path = write(tmp_path, search=THIRDS, budget="{trials: 2}")
    study = opened(path)
    play(study, 2)
    study.close()
    study = opened(path, sets=["search.pruner=none"])
    play(study)
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6)] * 2
    study.close()


# ------------------------------------------------------------------------------------------ interruptions
@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """What a sweep without a fault comes to."""
    return uninterrupted(tmp_path_factory.mktemp("whole"), epochs=5, search=CLIMB)


def climb(folder: Path) -> Path:
    return write(folder, search=CLIMB, epochs=5, budget="{trials: 8}")


def test_a_promoted_trial_is_the_one_that_was_not_paused(tmp_path, expected):
    never = opened(write(tmp_path, search="{sampler: random, pruner: none}", budget="{trials: 4}"))
    play(never)
    never.close()
    (tmp_path / "climb").mkdir()
    climbed = opened(write(tmp_path / "climb", search=THIRDS, budget="{trials: 4}"))
    play(climbed)
    climbed.close()
    for one in climbed.results():
        whole = records.history(never.folder.trial(one.number))
        mine = records.history(climbed.folder.trial(one.number))
        assert [epoch.val for epoch in mine] == [epoch.val for epoch in whole[: len(mine)]]
    assert {one[1] for one in expected} == {"COMPLETE", "PRUNED"}  # of a study in which some were promoted


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_a_study_reopened_after_every_few_jobs_comes_to_the_same(tmp_path, jobs, expected):
    path = climb(tmp_path)
    for _ in count():
        study = opened(path)
        before = [numbers(folder) for _, folder in records.folders(study.folder) if folder.history.exists()]
        play(study, jobs)
        after = [numbers(folder) for _, folder in records.folders(study.folder) if folder.history.exists()]
        if before == after:
            break
        study.close()
    play(study)
    study.close()
    assert outcome(study) == expected


REAL = """\
study: question
data: {layout: table, root: ROOT, size: 32}
budget: {trials: 2}
search: {sampler: random, pruner: PRUNER}
train:
  backbone: test_resnet
  pretrained: false
  image_size: 32
  batch_size: 16
  optimizer: {name: adamw, lr: {loguniform: [1.0e-4, 1.0e-1]}}
  epochs: 3
"""


@pytest.mark.slow
def test_a_trial_that_was_paused_trains_bit_for_bit_as_one_that_was_not(tmp_path, photos, monkeypatch):
    monkeypatch.delenv("SWEEP_TRAINER")
    epochs = {}
    for pruner in ("none", "{name: asha, reduction_factor: 2}"):
        folder = tmp_path / str(len(epochs))
        folder.mkdir()
        path = folder / "question.yaml"
        path.write_text(REAL.replace("ROOT", photos.root).replace("PRUNER", pruner))
        read = yaml_io.read(path)
        cache.open_cache(layouts.read(read.data), read.data, folder / "cache")
        study, seen = opened(path, categories=["colour", "place"]), Seen()
        loop.run(study, Inline(), seen, stop=Stop())
        study.close()
        done = [one.number for one in study.results() if one.state == "COMPLETE"]
        epochs[pruner] = {number: records.history(study.folder.trial(number)) for number in done}
        assert ("end 0 PAUSED" in seen.words) == (pruner != "none")
    (number, continued), *_ = epochs.pop(pruner).items()
    for ours, plain in zip(continued, epochs["none"][number], strict=True):
        assert (ours.train, ours.val, ours.lr) == (plain.train, plain.val, plain.lr)


@pytest.mark.process
def test_several_slots_end_every_trial_and_use_no_epoch_twice(tmp_path):
    study, seen = opened(climb(tmp_path)), Seen()
    ended = loop.run(study, Local([Slot("a"), Slot("b"), Slot("c")]), seen, stop=Stop())
    study.close()
    assert ended == loop.SessionEnd(0)
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    for one in study.results():
        assert numbers(study.folder.trial(one.number)) == list(range(1, one.epochs + 1))


def test_the_loop_tells_its_observers_of_pauses_and_of_their_end(tmp_path):
    study, seen = opened(climb(tmp_path)), Seen()
    loop.run(study, Inline(), seen, stop=Stop())
    study.close()
    last = {int(said.split()[1]): said.split()[2] for said in seen.words if said.startswith("end")}
    assert last == {one.number: one.state for one in study.results()}
    assert "end 0 PAUSED" in seen.words
