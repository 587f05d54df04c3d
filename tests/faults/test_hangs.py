"""Workers that stand still or train without end, and coordinators that only slept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeper.store import records
from sweeper.store.paths import StudyFolder
from tests.faults.invariants import check
from tests.support.processes import make
from tests.support.studies import write

pytestmark = pytest.mark.process

COORDINATOR = ("-m", "tests.support.coordinator")


@pytest.mark.fault("O3")
@pytest.mark.many
def test_a_worker_that_stands_still_is_killed_and_its_trial_tried_once_more(tmp_path, garments, case):
    """After 120 s, here after a thirtieth of that."""
    lab = make(tmp_path, garments, backbone="broken.hang_once", trials=1)
    ended = lab.run("--no-mlflow", SWEEP_PATIENCE=str(1 / 30))
    check(case, lab, ended=ended, mlflow=False)
    assert ended.err.count("trial 0: the worker sent nothing for 4s; retrying") == 1
    assert lab.results()[0]["state"] == "COMPLETE"


@contextmanager
def coordinating(path: Path, seconds: float, **patience: float) -> Iterator["subprocess.Popen[str]"]:
    """A sweep in a process of its own, with epochs of so many seconds and a watchdog of such patience."""
    command = [sys.executable, *COORDINATOR, str(path), "1", json.dumps(patience)]
    env = os.environ | {"SWEEP_FAKE_SECONDS": str(seconds), "SWEEP_TRAINER": "fake"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        yield process
        process.kill()


def until(process: "subprocess.Popen[str]", found: Callable[[str], bool]) -> str:
    assert process.stdout is not None
    return next(line.strip() for line in process.stdout if found(line.strip()))


@pytest.mark.fault("O3")
@pytest.mark.parametrize("trouble", ["stall_once", pytest.param("grind_once", marks=pytest.mark.many)])
def test_training_that_never_ends_is_killed_and_tried_once_more(tmp_path, case, trouble):
    """In a process that lives, as one that waits for a driver; or in C, which keeps the process from saying so."""
    path = write(tmp_path, backbone=f"broken.{trouble}", budget="{trials: 1}")
    floor = 1.0 if trouble == "stall_once" else 60.0
    with coordinating(path, 0, floor=floor, factor=1.0, silence=4.0) as process:
        noted = until(process, lambda line: line.startswith("note"))
        process.communicate(timeout=60)
    said = {"stall_once": "training hangs: no epoch finished in", "grind_once": "the worker sent nothing for 4s"}[
        trouble
    ]
    assert said in noted
    assert noted.endswith("retrying")
    assert process.returncode == 0
    assert [one.state for one in records.results(StudyFolder(tmp_path / "question"))] == ["COMPLETE"]


@pytest.mark.many
@pytest.mark.fault("O3")
@pytest.mark.parametrize("asleep", ["machine", pytest.param("coordinator", marks=pytest.mark.many)])
def test_a_coordinator_that_slept_takes_no_worker_for_hung(tmp_path, case, asleep):
    """The machine: all stop at once, and a worker is later up than the coordinator. The coordinator: as by Ctrl-Z."""
    path = write(tmp_path, budget="{trials: 1}", epochs=3)
    with coordinating(path, 1.0, silence=4.0, floor=4.0, factor=0.01) as process:
        until(process, lambda line: line == "epoch 0 1")
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        stopped = [process.pid, *([worker] if asleep == "machine" else [])]
        time.sleep(0.5)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "note" not in said
    assert "INTERRUPTED" not in said
    assert [(one.state, one.epochs) for one in records.results(StudyFolder(tmp_path / "question"))] == [
        ("COMPLETE", 3)
    ]
