"""Full disks: a sweep waits, and goes on by itself when there is room."""

import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import fill, small
from invariants import check
from lab import Lab, Running, make, seeds

EPOCH = r" epoch \d+/"
SIZE = 3_000_000  # bytes of each file of a checkpoint
LAST = {True: "browse: sweep ui question", False: "submit: sweep best question --export submission"}
PAUSED, ON = r"^disk full: ", r"are free again; going on"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "disk", 96) as place:
        yield place


def on(disk: Path, tmp_path: Path, garments: Path, size: int = SIZE, **changes: object) -> Lab:
    """A lab whose mlruns lie on `disk`."""
    env = {"SWEEP_HOME": str(disk / "mlruns"), "SWEEP_FAKE_BYTES": str(size), "SWEEP_FAKE_SECONDS": "0.3"}
    return make(tmp_path / "lab", garments, env=env, **{"trials": 4, **changes})


def paused(lab: Lab, running: Running) -> None:
    """Wait for the pause: nothing but the coordinator is left, and nothing is half written."""
    assert running.until(PAUSED), "".join(running.lines)
    assert list(lab.processes()) == [running.pid]
    assert not [path for path in lab.study.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.fault("E1")
@pytest.mark.parametrize("seed", seeds(6))
def test_a_sweep_waits_for_room_and_comes_to_the_same(tmp_path, disk, garments, reference, case, seed):
    """The disk is full, or nearly, at some moment: while a checkpoint, the database or the history is written."""
    draw, mlflow = random.Random(f"E1 {seed}"), seed % 2 == 1
    lab = on(disk, tmp_path, garments, size=draw.choice([SIZE, 20_000]))
    running = lab.begin(*([] if mlflow else ["--no-mlflow"]))
    running.until(EPOCH, times=draw.randrange(1, 8))
    time.sleep(draw.uniform(0, 0.1))
    filler = fill(disk, leaving=draw.choice([0, 0, 20_000, 100_000, SIZE // 2, SIZE + 100_000]))
    paused(lab, running)
    before = lab.results()
    filler.unlink()
    running.until(ON)
    ended = running.end()
    same = reference(trials=4)
    check(case, lab, before=before, ended=ended, last=LAST[mlflow], same_as=same, mlflow=mlflow)


@pytest.mark.fault("E1")
@pytest.mark.many
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_pause_and_the_same_command_goes_on(
    tmp_path, disk, garments, reference, case, number, code
):
    lab = on(disk, tmp_path, garments)
    running = lab.begin("--no-mlflow")
    running.until(EPOCH, times=2)
    filler = fill(disk)
    paused(lab, running)
    running.kill(number)
    began = time.monotonic()
    ended = running.end()
    assert time.monotonic() - began < 3
    assert "resume: sweep run space.yaml --devices cpu --no-mlflow" in ended.err
    check(case, lab, ended=ended, code=code, mlflow=False)
    before = lab.results()
    filler.unlink()
    ended = lab.run("--no-mlflow")
    check(case, lab, before=before, ended=ended, last=LAST[False], same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_disk_that_is_full_from_the_start_is_waited_for(tmp_path, disk, garments, reference, case):
    """Room for the decoded images, and for nothing more: the study itself cannot begin."""
    lab = on(disk, tmp_path, garments)
    assert lab.sweep("data", "cache", "space.yaml").code == 0
    filler = fill(disk)
    running = lab.begin("--no-mlflow")
    running.until(PAUSED)
    filler.unlink()
    check(case, lab, ended=running.end(), last=LAST[False], same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_trial_that_would_not_fit_is_not_begun(tmp_path, disk, garments, reference, case):
    lab = on(disk, tmp_path, garments)
    running = lab.begin("--no-mlflow")
    running.until("trial 0 done")
    filler = fill(disk, leaving=4 * SIZE)
    assert running.until(PAUSED)
    assert running.said("disk full: trial [1-3] would not fit")
    assert not (lab.trials[-1] / "history.jsonl").exists()
    filler.unlink()
    check(case, lab, ended=running.end(), last=LAST[False], same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_limit_on_the_size_of_files_is_waited_for_as_well(tmp_path, garments, reference, case):
    lab = make(tmp_path, garments, env={"SWEEP_FAKE_BYTES": str(SIZE)}, trials=4)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    running = lab.begin("--no-mlflow")
    running.until(EPOCH)
    for pid in lab.processes():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    running.until(PAUSED)
    assert list(lab.processes()) == [running.pid]
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (hard, hard))
    running.until(ON)
    ended = running.end()
    check(case, lab, ended=ended, last=LAST[False], same_as=reference(trials=4), mlflow=False)


# -------------------------------------------------------------------------------- what is no sweep yet
@pytest.mark.fault("E1")
@pytest.mark.many
def test_decoding_on_a_full_disk_says_so_and_leaves_nothing(tmp_path, garments):
    with small(tmp_path / "disk", 80) as disk:
        lab = on(disk, tmp_path, garments)
        fill(disk, leaving=300_000)
        ended = lab.sweep("data", "cache", "space.yaml")
        assert ended.code == 3
        assert "the decoded images need" in ended.err
        assert "free some; or set SWEEP_HOME to a folder on a larger disk" in ended.err
        assert not list((lab.home / "cache").glob("*-*"))
        assert not list((lab.home / "cache").glob(".*"))


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_final_on_a_full_disk_says_so_and_the_same_command_goes_on(tmp_path, disk, garments, case):
    lab = on(disk, tmp_path, garments)
    assert lab.run("--no-mlflow").code == 0
    words = ("best", "--export", "submission", "--devices", "cpu", "--no-mlflow")
    running = lab.start(*words)
    assert running.until(EPOCH)
    filler = fill(disk, leaving=4096)
    ended = running.end()
    assert ended.code == 3
    assert "error: the disk is full" in ended.err
    assert "run the same command again" in ended.err
    filler.unlink()
    check(case, lab, mlflow=False)
    ended = lab.sweep(*words)
    assert ended.code == 0, ended.err
    check(case, lab, mlflow=False)
    (final,) = (lab.study / "final").glob("*/submission.zip")
    assert final.stat().st_size > 0
