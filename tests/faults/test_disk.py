"""Full disks: sweeps, finals and confirmations wait, and go on by themselves when there is room."""

import errno
import json
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.store.paths import StudyFolder
from sweeper.store.records import elapsed_seconds
from tests.faults.invariants import TIMES, check, history, plain
from tests.support.disks import fill, rationed, small
from tests.support.processes import Lab, Running, make, seeds

pytestmark = pytest.mark.process

EPOCH = r"(?<! after) epoch \d+/"  # an epoch that ends, not one after which a trial goes on
SIZE = 3_000_000  # bytes of each file of a checkpoint
LAST = "next:   sweep best question --export submission"
PAUSED, ON = r"^disk full: ", r"are free again; continuing"


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
    """The disk is full, or nearly, at some moment: while a checkpoint, an end or the history is written."""
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
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=mlflow)


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
    check(case, lab, before=before, ended=ended, last=LAST, same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_the_hours_do_not_count_a_pause(tmp_path, disk, garments, reference, case):
    lab = on(disk, tmp_path, garments)
    running = lab.begin("--no-mlflow", "--hours", "0.5")
    running.until(EPOCH, times=5)
    filler = fill(disk)
    paused(lab, running)
    swept = elapsed_seconds(StudyFolder(lab.study))
    time.sleep(4)  # seconds that a clock which runs on would count
    filler.unlink()
    began = time.monotonic()
    ended = running.end()
    assert elapsed_seconds(StudyFolder(lab.study)) - swept <= time.monotonic() - began
    check(case, lab, ended=ended, last=LAST, same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_disk_that_is_full_from_the_start_is_waited_for(tmp_path, disk, garments, reference, case):
    """Room for the decoded images, and for nothing more: the study itself cannot begin."""
    lab = on(disk, tmp_path, garments)
    assert lab.sweep("data", "check", "space.yaml", "--cache").code == 0
    filler = fill(disk)
    running = lab.begin("--no-mlflow")
    running.until(PAUSED)
    filler.unlink()
    check(case, lab, ended=running.end(), last=LAST, same_as=reference(trials=4), mlflow=False)


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
    check(case, lab, ended=running.end(), last=LAST, same_as=reference(trials=4), mlflow=False)


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
    assert running.said("a quota or a limit leaves less")
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (hard, hard))
    running.until(ON)
    ended = running.end()
    check(case, lab, ended=ended, last=LAST, same_as=reference(trials=4), mlflow=False)


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_quota_that_is_used_up_is_waited_for_as_well(tmp_path, garments, reference, case):
    """The disk itself has room."""
    with rationed(tmp_path / "disk") as (disk, limit):
        lab = on(disk, tmp_path, garments)
        running = lab.begin("--no-mlflow")
        running.until(EPOCH, times=2)
        limit("1M")
        paused(lab, running)
        with pytest.raises(OSError, match="quota") as refused:
            (disk / "more").write_bytes(bytes(SIZE))
        assert refused.value.errno == errno.EDQUOT
        assert running.said("a quota or a limit leaves less")
        (disk / "more").unlink(missing_ok=True)
        limit("none")
        running.until(ON)
        ended = running.end()
        check(case, lab, ended=ended, last=LAST, same_as=reference(trials=4), mlflow=False)


# -------------------------------------------------------------------------------- what is no sweep yet
@pytest.mark.fault("E1")
@pytest.mark.many
def test_decoding_on_a_full_disk_says_so_and_leaves_nothing(tmp_path, garments):
    with small(tmp_path / "disk", 80) as disk:
        lab = on(disk, tmp_path, garments)
        fill(disk, leaving=300_000)
        ended = lab.sweep("data", "check", "space.yaml", "--cache")
        assert ended.code == 3
        assert "the decoded images need" in ended.err
        assert "free some space; or set SWEEP_HOME to a folder on a larger disk" in ended.err
        assert not list((lab.home / "cache").glob("*-*"))
        assert not list((lab.home / "cache").glob(".*"))


# ------------------------------------------------------------------------- finals and confirmations
EXPORT = ("best", "--export", "submission", "--devices", "cpu", "--no-mlflow")
OWN = ("log.txt", "mlflow.json")  # which tell of pauses, and of a database
CONFIRM = ("best", "--confirm", "2", "--devices", "cpu", "--no-mlflow")


@pytest.fixture
def swept(tmp_path: Path, disk: Path, garments: Path) -> Lab:
    """A lab on the disk whose sweep is over."""
    lab = on(disk, tmp_path, garments)
    assert lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0").code == 0
    return lab


def calm(lab: Lab, tmp_path: Path, *words: str) -> dict[str, object]:
    """What `words` come to in a copy of the lab that lies on a disk with room."""
    home = shutil.copytree(lab.home, tmp_path / "calm")
    ended = lab.sweep(*words, SWEEP_HOME=str(home), SWEEP_FAKE_SECONDS="0")
    assert ended.code == 0, ended.err
    return made(Lab(lab.root, {"SWEEP_HOME": str(home)}))


def made(lab: Lab) -> dict[str, object]:
    """What finals and confirmations have left: every file, but for the times in them and where they were made."""
    found = (path for kind in ("final", "confirm") for path in (lab.study / kind).rglob("*") if path.is_file())
    return {str(path.relative_to(lab.study)): content(path) for path in found if path.name not in OWN}


def content(path: Path) -> object:
    if path.name == "history.jsonl":
        return [plain(epoch) for epoch in history(path.parent)]
    if path.name in ("result.json", "config.json"):
        return plain(json.loads(path.read_text()), but=(*TIMES, "folder", "cache"))
    return None if path.name == "last.ckpt" else path.read_bytes()  # that tells the times, too


@pytest.mark.fault("E1")
@pytest.mark.parametrize(
    ("leaving", "mlflow"),
    [
        (0, False),
        pytest.param(SIZE // 2, True, marks=pytest.mark.many),
    ],
)
def test_a_final_waits_for_room_and_comes_to_the_same(tmp_path, disk, swept, case, leaving, mlflow):
    """The disk takes nothing more of an epoch, or half of its model."""
    words = EXPORT[: -1 if mlflow else None]
    wanted = calm(swept, tmp_path, *EXPORT)
    running = swept.start(*words)
    running.until(EPOCH)
    filler = fill(disk, leaving=leaving)
    paused(swept, running)
    before = swept.results()
    filler.unlink()
    assert running.until(ON)
    check(case, swept, before=before, ended=running.end(), mlflow=mlflow)
    assert made(swept) == wanted
    case.held("I8")


@pytest.mark.fault("E1")
@pytest.mark.many
def test_confirmations_wait_for_room_and_come_to_the_same(tmp_path, disk, swept, case):
    wanted = calm(swept, tmp_path, *CONFIRM)
    running = swept.start(*CONFIRM)
    running.until(r"epoch 2/", times=2)
    filler = fill(disk)
    paused(swept, running)
    assert len(list(swept.study.glob("confirmations/*/result.json"))) == 1
    filler.unlink()
    assert running.until(ON)
    check(case, swept, ended=running.end(), mlflow=False)
    assert made(swept) == wanted
    case.held("I8")


@pytest.mark.fault("E1")
@pytest.mark.many
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("words", [EXPORT, CONFIRM], ids=["final", "confirmation"])
def test_a_signal_ends_the_pause_of_a_final_and_the_same_command_goes_on(
    tmp_path, disk, swept, case, words, number, code
):
    wanted = calm(swept, tmp_path, *words)
    running = swept.start(*words)
    running.until(EPOCH, times=2)
    filler = fill(disk)
    paused(swept, running)
    running.kill(number)
    began = time.monotonic()
    ended = running.end()
    assert time.monotonic() - began < 3
    filler.unlink()
    check(case, swept, ended=ended, code=code, last="help: the same command resumes it", mlflow=False)
    check(case, swept, ended=swept.sweep(*words), mlflow=False)
    assert made(swept) == wanted
    case.held("I8")


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_final_that_would_not_fit_is_not_begun(disk, swept, case):
    filler = fill(disk, leaving=4 * SIZE)
    running = swept.start(*EXPORT)
    assert running.until(PAUSED)
    assert running.said("disk full: retraining of trial 2 would not fit")
    assert not list(swept.study.glob("finals/*"))
    filler.unlink()
    check(case, swept, ended=running.end(), mlflow=False)
    assert list(swept.study.glob("finals/*/submission.zip"))
