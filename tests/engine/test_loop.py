"""The loop with the fake trainer: what it tells whom, how it stops, and what is left when it is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.engine import loop
from sweeper.errors import EnvironmentFault
from sweeper.executors import Executor
from sweeper.executors.inline import Inline
from sweeper.executors.local import Local
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.study.study import Study
from sweeper.system.devices import Slot
from sweeper.system.signals import Stop
from sweeper.trial import TrialResult
from tests.support.studies import CLIMB, QUICK, Seen, close_all, numbers, opened, outcome, uninterrupted, write

pytestmark = pytest.mark.usefixtures("faked")


def swept(
    path: Path, executor: Executor | None = None, *, seen: Seen | None = None, stop: Stop | None = None
) -> tuple[loop.SessionEnd, Study, Seen]:
    study, seen = opened(path), seen or Seen()
    ended = loop.run(study, executor or Inline(), seen, stop=stop or Stop())
    study.close()
    return ended, study, seen


def folder(path: Path) -> StudyFolder:
    return StudyFolder(path.parent / "question")


# --------------------------------------------------------------------------------------- the loop
def test_a_sweep_trains_until_the_budget_is_used_up(tmp_path):
    ended, study, _ = swept(write(tmp_path, search=QUICK, epochs=3))
    assert ended == loop.SessionEnd(0)
    assert [one.number for one in study.results()] == list(range(12))


def test_an_observer_hears_of_everything_once_and_in_order(tmp_path):
    path = write(tmp_path, budget="{trials: 1}", epochs=2)
    _, _, seen = swept(path)
    assert seen.words == [
        "start 0 cpu",
        *["epoch 0 1", "epoch 0 2"],
        "end 0 COMPLETE",
    ]


@pytest.mark.process
def test_a_process_a_slot_comes_to_the_same_as_inline(tmp_path):
    paths = [tmp_path / name for name in ("inline", "local")]
    for path in paths:
        path.mkdir()
    results = [
        outcome(swept(write(path, search=QUICK, epochs=3), executor)[1])
        for path, executor in zip(paths, [Inline(), Local([Slot("cpu")])], strict=True)
    ]
    assert results[0] == results[1]


@pytest.mark.process
def test_several_slots_share_a_study(tmp_path):
    path = write(tmp_path, search=QUICK, epochs=3)
    ended, study, seen = swept(path, Local([Slot("a"), Slot("b"), Slot("c")]))
    assert ended.exit_code == 0
    assert [one.number for one in study.results()] == list(range(12))
    assert {word.split()[-1] for word in seen.words if word.startswith("start") and word.count(" ") == 2} == set(
        "abc"
    )


def test_a_study_that_is_done_ends_at_once_when_swept_again(tmp_path):
    path = write(tmp_path, budget="{trials: 2}")
    before = outcome(swept(path)[1])
    ended, study, seen = swept(path)
    assert (ended, outcome(study), seen.words) == (loop.SessionEnd(0), before, [])


# ---------------------------------------------------------------------------------------- failures
def test_a_failing_trial_is_recorded_and_the_sweep_goes_on(tmp_path):
    path = write(tmp_path, backbone="{choice: [broken.nan, resnet18]}", search="{sampler: random, pruner: none}")
    ended, study, _ = swept(path)
    states = {one.backbone: (one.state, one.failure) for one in study.results()}
    assert ended.exit_code == 0
    assert states == {"broken.nan": ("FAILED", "nan"), "resnet18": ("COMPLETE", None)}


def test_a_trial_that_overflows_in_fp16_completes_in_full_precision_and_that_is_said(tmp_path):
    path = write(tmp_path, backbone="broken.overflow", budget="{trials: 2}", search="{sampler: tpe, pruner: none}")
    ended, study, seen = swept(path)
    assert ended.exit_code == 0
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6), ("COMPLETE", 6)]
    assert "note trial 0: fp16 overflows in epoch 2; continues in full precision" in seen.words
    assert numbers(folder(path).trial(0)) == list(range(1, 7))


def test_a_sweep_in_which_every_trial_fails_alike_ends_early(tmp_path):
    ended, study, _ = swept(write(tmp_path, backbone="broken.error", budget="{trials: 100}"))
    assert ended.exit_code == 5
    assert "5 trials in a row failed the same way: ValueError: this recipe is broken" in ended.reason
    assert len(study.results()) == 5


def test_a_sweep_without_a_completed_trial_says_so(tmp_path):
    ended, _, _ = swept(write(tmp_path, backbone="broken.nan", budget="{trials: 2}"))
    assert ended == loop.SessionEnd(5, "no trial completed")


@pytest.mark.process
def test_a_worker_that_is_killed_once_costs_nothing(tmp_path):
    path = write(tmp_path, backbone="broken.kill_once", budget="{trials: 2}", search="{sampler: tpe, pruner: none}")
    ended, study, seen = swept(path, Local([Slot("cpu")]))
    assert ended.exit_code == 0
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6), ("COMPLETE", 6)]
    assert seen.words.count("end 0 INTERRUPTED") == 1
    assert numbers(folder(path).trial(0)) == list(range(1, 7))
    assert [word for word in seen.words if word.startswith("epoch 0")] == [
        f"epoch 0 {number}" for number in range(1, 7)
    ]


@pytest.mark.process
def test_a_worker_that_is_killed_in_the_same_epoch_again_fails_its_trial(tmp_path):
    path = write(tmp_path, backbone="broken.kill", budget="{trials: 1}")
    ended, study, _ = swept(path, Local([Slot("cpu")]))
    assert ended.exit_code == 5
    assert [(one.state, one.failure, one.epochs) for one in study.results()] == [("FAILED", "died", 1)]


def test_a_full_disk_ends_the_sweep_and_leaves_the_trial_open(tmp_path):
    path = write(tmp_path, backbone="broken.disk")
    with pytest.raises(EnvironmentFault, match="disk is full") as raised:
        swept(path)
    close_all()
    assert raised.value.exit_code == 3
    assert [one.state for one in records.results(folder(path))] == ["INTERRUPTED"]


# ---------------------------------------------------------------------------------------- stopping
class StopAt(Seen):
    """Asks for a stop after so many epochs."""

    def __init__(self, stop: Stop, epochs: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.stop, self.left, self.number = stop, epochs, number

    def say(self, *words: object) -> None:
        super().say(*words)
        self.left -= words[0] == "epoch"
        if not self.left:
            self.stop.signal = self.number


@pytest.mark.process
@pytest.mark.parametrize("make", [Inline, lambda: Local([Slot("cpu")])])
def test_a_stop_finishes_the_epoch_and_the_next_sweep_goes_on_from_there(tmp_path, make):
    path = write(tmp_path, budget="{trials: 3}", search="{sampler: tpe, pruner: none}")
    stop = Stop()
    ended, study, seen = swept(path, make(), seen=StopAt(stop, 8), stop=stop)
    assert ended == loop.SessionEnd(143, "stopped")
    assert seen.words.count("note finishing the epoch; press again to stop now") == 1
    assert seen.words[-1] == "end 1 INTERRUPTED"
    assert [one.state for one in study.results()] == ["COMPLETE", "INTERRUPTED"]
    assert numbers(folder(path).trial(1)) in ([1, 2], [1, 2, 3])
    ended, study, _ = swept(path)
    assert ended.exit_code == 0
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 6)] * 3


def test_a_stop_in_the_last_epoch_of_a_trial_completes_it(tmp_path):
    path = write(tmp_path, budget="{trials: 3}")
    stop = Stop()
    ended, study, _ = swept(path, seen=StopAt(stop, 6, signal.SIGINT), stop=stop)
    assert ended.exit_code == 130
    assert [one.state for one in study.results()] == ["COMPLETE"]


def start(path: Path, slots: int = 1, *, seconds: float = 0.0) -> "subprocess.Popen[str]":
    """A sweep in a process of its own, each epoch taking `seconds`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.coordinator", str(path), str(slots)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SWEEP_FAKE_SECONDS": str(seconds)},
    )


def until(process: "subprocess.Popen[str]", line: Callable[[str], bool]) -> str:
    """Read what a sweep says up to a line."""
    assert process.stdout is not None
    return next(said.strip() for said in process.stdout if line(said.strip()))


@pytest.mark.process
def test_an_interrupt_finishes_the_epoch_and_exits_130(tmp_path):
    with start(write(tmp_path), seconds=0.1) as process:
        until(process, lambda said: said == "epoch 0 2")
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "note finishing the epoch; press again to stop now" in said
    assert error.splitlines()[-1] == "stopped"
    assert [one.state for one in records.results(folder(tmp_path / "x"))] == ["INTERRUPTED"]


@pytest.mark.process
def test_a_second_interrupt_kills_the_workers_and_exits_130_within_two_seconds(tmp_path):
    write(tmp_path)
    with start(write(tmp_path)) as process:  # one epoch at once, so that a slow one can follow
        until(process, lambda said: said == "epoch 0 1")
        process.kill()
        process.communicate()
    with start(tmp_path / "question.yaml", seconds=60) as process:
        until(process, lambda said: said.startswith("start") and said.endswith("cpu:0"))
        process.send_signal(signal.SIGINT)
        until(process, lambda said: said.startswith("note"))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)
        took = time.monotonic() - begun
    assert process.returncode == 130, rest
    assert took < 2
    assert not children(tmp_path)


def children(where: Path) -> list[str]:
    """Processes of workers whose log lies under `where`."""
    return [
        str(link)
        for link in Path("/proc").glob("[0-9]*/fd/1")
        if link.is_symlink() and _target(link).startswith(str(where))
    ]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------- kills
@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """What a sweep without a fault comes to."""
    return uninterrupted(tmp_path_factory.mktemp("whole"), epochs=4)


def ended(path: Path) -> dict[int, TrialResult]:
    return {one.number: one for one in records.results(folder(path)) if one.state not in ("RUNNING", "INTERRUPTED")}


@pytest.mark.process
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_a_sweep_killed_again_and_again_comes_to_the_same(tmp_path, seed, expected):
    path = write(tmp_path, search=QUICK, epochs=4, budget="{trials: 8}")
    draw = random.Random(seed)
    before: dict[int, TrialResult] = {}
    for _ in range(3):
        with start(path, seconds=0.01) as process:
            for _ in range(draw.randrange(2, 30)):
                process.stdout.readline()
            time.sleep(draw.random() * 0.02)
            process.kill()
            process.communicate()
        now = ended(path)
        assert before.items() <= now.items()
        before = now
    with start(path) as process:
        process.communicate()
    assert process.returncode == 0
    assert not children(tmp_path)
    study = opened(path)
    assert outcome(study) == expected
    for one in study.results():
        assert numbers(study.folder.trial(one.number)) == list(range(1, one.epochs + 1))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """What a sweep with pauses and promotions comes to without a fault."""
    return uninterrupted(tmp_path_factory.mktemp("climbed"), epochs=5, search=CLIMB, trials=12)


def kill_a_worker(coordinator: int) -> None:
    """One that is there now, if any is."""
    there = Path(f"/proc/{coordinator}/task/{coordinator}/children").read_text().split()
    for child in there[:1]:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.process
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_kills_of_sweep_and_workers_change_nothing_of_pauses_and_promotions(tmp_path, seed, climbed):
    path = write(tmp_path, search=CLIMB, epochs=5, budget="{trials: 12}")
    draw = random.Random(seed)
    for _ in range(3):
        with start(path, seconds=0.01) as process:
            for victim in ("worker", "sweep"):
                for _ in range(draw.randrange(1, 25)):
                    process.stdout.readline()
                time.sleep(draw.random() * 0.02)
                if victim == "worker" and process.poll() is None:
                    kill_a_worker(process.pid)
            process.kill()
            process.communicate()
    with start(path) as process:
        process.communicate()
    assert process.returncode == 0
    study = opened(path)
    assert outcome(study) == climbed
    for one in study.results():
        assert numbers(study.folder.trial(one.number)) == list(range(1, one.epochs + 1))
    assert not children(tmp_path)
