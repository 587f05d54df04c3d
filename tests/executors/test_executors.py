"""One contract over every executor, and what only processes can suffer. Training is the fake."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path

import pytest

from sweeper.executors import Executor
from sweeper.executors.inline import Inline
from sweeper.executors.local import Local
from sweeper.executors.packing import Packing
from sweeper.executors.watchdog import HangLimits
from sweeper.system.devices import Slot
from sweeper.trial import Done, Failed, Job, Progress
from sweeper.worker import fake_trainer
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from trainers.config import Recipe
from trainers.support.position import Position

pytestmark = pytest.mark.process

Message = Progress | Done | Failed
Make = Callable[..., Job]


@pytest.fixture(autouse=True)
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_TRAINER", "fake")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def job(number: int = 0, *, backbone: str = "resnet18", epochs: int = 3) -> Job:
        folder = tmp_path / f"{number:04d}"
        folder.mkdir(exist_ok=True)
        recipe = {"data": {"root": str(tmp_path / "nothing")}, "train": {"backbone": backbone, "epochs": epochs}}
        return Job(
            study="s", trial=number, recipe=Recipe.model_validate(recipe), folder=folder, cache=tmp_path / "cache"
        )

    return job


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node."""
    if util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray>=2.50'")
    with clusters.running(nodes=1) as made, pytest.MonkeyPatch.context() as patch:
        for name, text in made.env.items():
            patch.setenv(name, text)  # Ray reads them when it is imported
        yield made


def on_ray(request: pytest.FixtureRequest) -> Executor:
    """On a node whose place is there: one is waited for."""
    cluster, folder = request.getfixturevalue("cluster"), request.getfixturevalue("tmp_path")
    request.getfixturevalue("monkeypatch").chdir(folder)
    from sweeper.executors.ray import Ray

    (folder / "lock").write_text("ours")
    (folder / "image.jpg").touch()
    made = Ray(cluster.address, folder / "lock", folder / "image.jpg", lambda words: pytest.fail(words))
    while not made.free():
        assert made.next(0.1) is None
    return made


@pytest.fixture(params=["inline", "local", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    makers: dict[str, Callable[[], Executor]] = {
        "inline": Inline,
        "local": lambda: Local([Slot("cpu")]),
        "ray": lambda: on_ray(request),
    }
    made = makers[request.param]()
    yield made
    made.close(kill=True)


@pytest.fixture
def local() -> Iterator[Local]:
    made = Local([Slot("a"), Slot("b")])
    yield made
    made.close(kill=True)


def heard(executor: Executor, timeout: float = 30.0) -> Message:
    """The next message, waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if message := executor.next(0.25):
            return message
    raise TimeoutError("no message")


def drain(executor: Executor, *, keep: int = 10**6) -> tuple[list[Progress], Done | Failed]:
    """Everything up to the end of one job; progress is answered with True `keep` times, then with False."""
    epochs: list[Progress] = []
    while isinstance(message := heard(executor), Progress):
        epochs.append(message)
        executor.answer(message.key, len(epochs) <= keep)
    return epochs, message


def alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(alive(pid) for pid in pids)


# ----------------------------------------------------------------------------------- the contract
def test_a_job_ends_in_one_done_after_all_its_epochs(executor, make):
    executor.start(make(7))
    epochs, end = drain(executor)
    assert [message.epoch.number for message in epochs] == [1, 2, 3]
    assert end == Done(key=make(7).key)
    assert executor.next(0.05) is None


def test_a_busy_slot_is_not_free_and_an_ended_one_is(executor, make):
    assert executor.free() == 1
    executor.start(make())
    assert executor.free() == 0
    drain(executor)
    assert executor.free() == 1


def test_a_stopped_job_never_runs_another_epoch(executor, make):
    job = make(epochs=50)
    executor.start(job)
    epochs, end = drain(executor, keep=2)
    assert len(epochs) == 3
    assert end == Done(key=job.key, stopped=True)
    assert executor.next(0.05) is None
    executor.start(job)
    again, _ = drain(executor, keep=2)
    assert [message.epoch for message in again] == [message.epoch for message in epochs]


def test_a_worker_that_is_not_answered_waits(executor, make):
    executor.start(make())
    assert isinstance(heard(executor), Progress)
    assert executor.next(0.2) is None


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an executor that hands the environment on: epochs that last."""
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "2")


@pytest.mark.usefixtures("slowly")
def test_how_far_an_epoch_is_can_be_asked_while_it_runs(executor, make):
    executor.start(job := make(3))
    seen = []
    while not isinstance(executor.next(0.05), Progress):
        seen += [at for at in [executor.positions().get(job.key)] if at and at not in seen]
    assert seen == sorted(seen)
    assert all(at.split == "train" and at.total == fake_trainer.BATCHES - 1 for at in seen)
    assert isinstance(executor, Inline) or len(seen) >= 2


@pytest.mark.usefixtures("slowly")
def test_how_far_an_epoch_in_this_process_is_is_told_while_it_runs_and_not_after_it(make):
    told: list[dict[str, Position]] = []
    executor = Inline(moved=lambda positions: told.append(dict(positions)))
    executor.start(job := make(3))
    assert isinstance(executor.next(0.0), Progress)
    assert "positions" not in [one.name for one in threading.enumerate()]
    seen = [each[job.key] for each in told if each]
    assert seen == sorted(seen)
    assert len(set(seen)) >= 2
    assert all(at.split == "train" and at.total == fake_trainer.BATCHES - 1 for at in seen)


def test_an_error_in_training_fails_its_own_job_and_the_next_one_runs(executor, make):
    executor.start(make(1, backbone="broken.error"))
    epochs, end = drain(executor)
    assert len(epochs) == 1
    assert isinstance(end, Failed)
    assert (end.key, end.failure, end.text) == (make(1).key, "error", "ValueError: this recipe is broken")
    assert "in two lines" in end.detail
    executor.start(make(2))
    assert drain(executor)[1] == Done(key=make(2).key)


@pytest.mark.parametrize("trouble", ["nan", "oom", "disk"])
def test_trouble_is_called_by_its_name(executor, make, trouble):
    executor.start(make(backbone=f"broken.{trouble}"))
    end = drain(executor)[1]
    assert isinstance(end, Failed)
    assert end.failure == trouble


def test_a_job_goes_on_from_its_checkpoint_and_repeats_the_stored_epochs(executor, make):
    short, job = make(epochs=4), make(epochs=4)
    executor.start(short)
    first, _ = drain(executor, keep=1)
    executor.start(job)
    epochs, end = drain(executor)
    assert [message.epoch.number for message in epochs] == [1, 2, 3, 4]
    assert [message.epoch for message in epochs[:2]] == [message.epoch for message in first]
    assert end == Done(key=job.key)


# -------------------------------------------------------------------------------------- processes
def test_two_slots_run_two_jobs_side_by_side(local, make):
    jobs = [make(1, epochs=1), make(2, epochs=1)]
    slots = {local.start(job) for job in jobs}
    both = {heard(local).key, heard(local).key}
    assert (slots, both) == ({"a", "b"}, {job.key for job in jobs})


def started() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                yield folder.name


def workers() -> list[int]:
    """Process ids of the workers that this process has started and that run."""
    return [pid for pid in map(int, started()) if b"sweeper.worker" in command_line(pid)]


def command_line(pid: int) -> bytes:
    """Of a process that this one has started: none for a moment while the kernel puts its program in place."""
    folder = Path(f"/proc/{pid}")
    while not (line := (folder / "cmdline").read_bytes()):
        if (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z":  # it has ended
            break
    return line


def pid() -> int:
    """Process id of the only worker."""
    (found,) = workers()
    return found


def test_a_worker_is_kept_for_the_next_job(local, make):
    local.start(make(1, epochs=1))
    drain(local)
    first = pid()
    local.start(make(2, epochs=1))
    drain(local)
    assert pid() == first


def test_a_worker_whose_job_failed_is_gone(local, make):
    local.start(make(backbone="broken.nan"))
    first = pid()
    drain(local)
    assert gone([first], within=2)


def test_a_killed_worker_fails_its_own_job_and_the_next_one_runs(local, make):
    local.start(make(1, epochs=50))
    assert isinstance(heard(local), Progress)
    os.kill(pid(), signal.SIGKILL)
    end = heard(local)
    assert isinstance(end, Failed)
    assert (end.key, end.failure) == (make(1).key, "died")
    assert "signal 9" in end.text
    assert "memory" in end.text
    local.start(make(2))
    assert drain(local)[1] == Done(key=make(2).key)


def test_a_worker_outlasts_the_sigterm_of_whoever_stops_all_processes_of_a_job(local, make):
    local.start(make(1, epochs=3))
    assert isinstance(heard(local), Progress)
    os.kill(pid(), signal.SIGTERM)
    local.answer(make(1).key, keep=True)
    assert drain(local)[1] == Done(key=make(1).key)


def test_a_worker_that_kills_itself_in_the_middle_of_an_epoch_died(local, make):
    local.start(make(backbone="broken.kill"))
    epochs, end = drain(local)
    assert len(epochs) == 1
    assert isinstance(end, Failed)
    assert end.failure == "died"


def test_a_worker_that_cannot_start_says_why(make, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('no such luck')")
    executor = Local([Slot("cpu", env={"PYTHONPATH": str(tmp_path)})])
    executor.start(make())
    end = heard(executor)
    executor.close()
    assert isinstance(end, Failed)
    assert (end.failure, end.text) == ("died", "the worker ended with exit code 1")
    assert "no such luck" in end.detail


def test_a_worker_that_hangs_is_killed_and_its_job_fails(make):
    executor = Local([Slot("cpu")], patience=HangLimits(silence=3.0))
    executor.start(make(backbone="broken.hang"))
    first = pid()
    _, end = drain(executor)
    executor.close()
    assert isinstance(end, Failed)
    assert end.failure == "hung"
    assert not alive(first)


def test_training_that_hangs_in_a_process_that_lives_is_noticed(make):
    """Its heartbeat goes on; the longest epoch so far was the first, with the start of the worker."""
    executor = Local([Slot("cpu")], patience=HangLimits(floor=0.5, factor=1.0))
    executor.start(make(backbone="broken.stall"))
    first = pid()
    _, end = drain(executor)
    executor.close()
    assert isinstance(end, Failed)
    assert end.failure == "hung"
    assert re.fullmatch(
        r"training hangs: no epoch finished in \d+s \(the longest of broken.stall took \d+s\)", end.text
    )
    assert not alive(first)


def test_a_worker_busy_in_c_says_nothing_and_is_killed(make):
    executor = Local([Slot("cpu")], patience=HangLimits(silence=3.0))
    executor.start(make(backbone="broken.grind"))
    _, end = drain(executor)
    executor.close()
    assert isinstance(end, Failed)
    assert (end.failure, end.text) == ("hung", "the worker sent nothing for 3s")


def test_waiting_for_an_answer_is_not_hanging(make):
    executor = Local([Slot("cpu")], patience=HangLimits(floor=0.5, factor=0.01))
    executor.start(make())
    assert isinstance(heard(executor), Progress)
    assert executor.next(2.0) is None
    executor.answer(make().key, keep=True)
    assert drain(executor)[1] == Done(key=make().key)
    executor.close()


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_worker_is_not_taken_for_hung_when_the_time_of_day_is_set(make, monkeypatch, jump):
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "1")
    executor = Local([Slot("cpu")], patience=HangLimits(silence=30, unknown=30, floor=30))
    executor.start(make())
    assert isinstance(heard(executor), Progress)
    executor.answer(make().key, keep=True)
    today = time.time
    monkeypatch.setattr("time.time", lambda: today() + jump)
    assert drain(executor)[1] == Done(key=make().key)
    executor.close()


def test_what_training_prints_is_in_the_log_of_its_own_run(local, make):
    for number in (1, 2):
        job = make(number)
        (job.folder / "last.ckpt").write_text("not a checkpoint")
        local.start(job)
        drain(local)
        log = (job.folder / "log.txt").read_text()
        assert log.count("not usable, starting again") == 1
        assert str(job.folder) in log


def test_a_packed_device_takes_a_second_job_once_the_first_has_shown_what_it_needs(make: Make) -> None:
    packing = Packing({"cpu": 64.0}, {"cpu": 2})
    executor = Local([Slot("cpu:0", threads=2), Slot("cpu:1", threads=2)], packing=packing)
    try:
        executor.start(make(0))
        assert executor.free() == 0
        for _ in range(2):
            assert isinstance(heard(executor), Progress)
            executor.answer(make(0).key, True)
        assert executor.free() == 1
        executor.start(make(1))
        assert executor.free() == 0
        ended = {message.key for message in everything(executor, 2)}
        assert ended == {make(0).key, make(1).key}
        assert executor.free() == 2
    finally:
        executor.close(kill=True)


def test_a_packed_device_keeps_to_its_warm_workers(make: Make) -> None:
    slots = [Slot(f"cpu:{number}") for number in range(4)]
    executor = Local(slots, packing=Packing({"cpu": None}, {"cpu": 4}))
    try:
        names = []
        for number in range(3):
            names.append(executor.start(make(number)))
            everything(executor, 1)
        assert names == ["cpu:0"] * 3
    finally:
        executor.close(kill=True)


def everything(executor: Executor, jobs: int) -> list[Done | Failed]:
    """The ends of so many jobs, all of whose epochs are answered."""
    ends: list[Done | Failed] = []
    while len(ends) < jobs:
        message = heard(executor)
        if isinstance(message, Progress):
            executor.answer(message.key, True)
        else:
            ends.append(message)
    return ends


def test_a_worker_sees_its_device_alone_and_its_share_of_the_cores():
    from sweeper.executors.local import environment

    env = environment(Slot("cuda:1", "cuda:0", 3, {"CUDA_VISIBLE_DEVICES": "GPU-1"}))
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("GPU-1", "3")


def test_a_workers_memory_on_a_gpu_grows_in_segments_unless_the_user_says_otherwise(monkeypatch):
    from sweeper.executors.local import environment

    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    gpu = Slot("cuda:0", "cuda:0", 1, {"CUDA_VISIBLE_DEVICES": "0"})
    assert environment(gpu)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in environment(Slot("cpu"))
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert "PYTORCH_ALLOC_CONF" not in environment(gpu)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage_collection_threshold:0.8")
    assert environment(gpu)["PYTORCH_ALLOC_CONF"] == "garbage_collection_threshold:0.8"


@pytest.mark.parametrize("kill", [True, False])
def test_after_close_no_worker_is_left(make, kill):
    executor = Local([Slot("a"), Slot("b")])
    executor.start(make(1, epochs=1))
    drain(executor)
    executor.start(make(2, epochs=10**6))
    executor.start(make(3, epochs=10**6))
    heard(executor)
    pids = workers()
    assert len(pids) == 2
    executor.close(kill=kill)
    assert not any(alive(pid) for pid in pids)


def test_a_close_without_kill_lets_the_epoch_be_finished(make, monkeypatch):
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "0.2")
    executor = Local([Slot("cpu")])
    job = make(epochs=1000)
    executor.start(job)
    message = heard(executor)
    executor.answer(job.key, keep=True)
    executor.close()
    assert isinstance(message, Progress)
    assert not list(job.folder.glob(".*.tmp"))
    assert (job.folder / "last.ckpt").exists()


COORDINATOR = """
import os, signal, sys, time
from pathlib import Path
from sweeper.system.devices import Slot
from sweeper.executors.local import Local
from sweeper.trial import Job

executor = Local([Slot("cpu")])
text, pause = sys.stdin.read().splitlines()
job = Job.model_validate_json(text)
executor.start(job)
worker = next(iter(executor._workers.values())).process.pid
if pause:
    time.sleep(float(pause))
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
executor.next(60)
print(worker, flush=True)
executor.answer(job.key, keep=True)
executor.next(600)
"""


@contextlib.contextmanager
def coordinating(job: Job, pause: float | str = "") -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A coordinator in a process of its own and its worker, after an epoch; or killed `pause` s after its start."""
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as coordinator:
        assert coordinator.stdin is not None
        assert coordinator.stdout is not None
        coordinator.stdin.write(f"{job.model_dump_json()}\n{pause}\n")
        coordinator.stdin.close()
        yield coordinator, int(coordinator.stdout.readline())
        coordinator.kill()


def test_workers_are_gone_two_seconds_after_the_coordinator_was_killed(make, monkeypatch):
    job = make(epochs=3)
    inline = Inline()
    inline.start(job)
    inline.next(0)  # so that there is one epoch to report at once
    inline.close()
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "60")
    with coordinating(job) as (coordinator, worker):
        assert alive(worker)
        coordinator.kill()
        assert gone([worker], within=2)


@pytest.mark.parametrize("trouble", ["stall", "grind", "hang"])
def test_a_worker_that_can_do_nothing_itself_dies_with_the_coordinator(make, trouble):
    """In a call that never returns, in C with the interpreter held, stopped."""
    with coordinating(make(backbone=f"broken.{trouble}")) as (coordinator, worker):
        time.sleep(0.5)  # it is in its trouble by then; the test holds before, too
        assert alive(worker)
        coordinator.kill()
        assert gone([worker], within=2)


@pytest.mark.parametrize("pause", [0.0, *(pytest.param(n / 20, marks=pytest.mark.slow) for n in range(1, 30))])
def test_a_worker_whose_coordinator_dies_while_it_starts_is_gone_as_soon(make, pause):
    """Before it could ask the kernel to be killed, too, and with its libraries half loaded."""
    with coordinating(make(), pause) as (coordinator, worker):
        coordinator.wait(10)
        assert gone([worker], within=2)
