"""Kills of workers and of the coordinator: at random times, many seeds, and at every point between two writes."""

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.invariants import check, exported, history
from tests.support.processes import CLIMB, QUICK, Lab, Running, gone, make, seeds

pytestmark = pytest.mark.process

SPACES = {"median": {"search": QUICK, "trials": 12}, "asha": {"search": CLIMB, "trials": 12}}
KILLS = 12


OFTEN = {"SWEEP_CHECKPOINT_INTERVAL": "0"}  # a checkpoint after each epoch; else at the end of a run alone, so short


def checkpoints(seed: int) -> dict[str, str]:
    """The environment of a seed: one in three writes a checkpoint after each epoch."""
    return OFTEN if seed % 3 == 1 else {}


EPOCH = r"(?<! after) epoch \d+/"  # an epoch that ends, not one after which a trial goes on


# ------------------------------------------------------------------------------------ the coordinator
def kill_somewhere(running: Running, draw: random.Random) -> bool:
    """SIGKILL a sweep while it starts, or some epochs later; False if it had ended by itself."""
    if draw.random() < 0.2:
        time.sleep(draw.uniform(0.0, 2.5))
    else:
        running.until(EPOCH, times=draw.randrange(1, 4))
        time.sleep(draw.uniform(0.0, 0.12))
    alive = running.process.poll() is None
    running.kill()
    running.end()
    return alive


def further(before: dict[str, int], lab: Lab) -> dict[str, int]:
    """Epochs on record by trial; none may be fewer than before."""
    now = {folder.name: whole_lines(folder / "history.jsonl") for folder in lab.trials}
    assert all(now.get(name, 0) >= count for name, count in before.items()), (before, now)
    return now


def whole_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.fault("K2")
@pytest.mark.many
@pytest.mark.parametrize("kind", ["median", "asha"])
@pytest.mark.parametrize("seed", seeds(13))
def test_a_sweep_killed_at_random_times_and_begun_again_comes_to_the_same(
    tmp_path, garments, reference, case, kind, seed
):
    """Twelve kills a seed; a quarter of the seeds with MLflow."""
    lab, draw = (
        make(tmp_path, garments, env=checkpoints(seed), **SPACES[kind]),
        random.Random(f"K2 {kind} {seed}"),
    )
    words = [] if seed % 4 == 0 else ["--no-mlflow"]
    ends, epochs = {}, {}
    for _ in range(KILLS):
        running = lab.begin(*words)
        case.kills += kill_somewhere(running, draw)
        gone(lab, within=2)
        now = lab.results()
        assert ends.items() <= now.items()
        ends, epochs = now, further(epochs, lab)
    ended = lab.run(*words, SWEEP_FAKE_SECONDS="0")
    same = reference(**SPACES[kind])
    check(case, lab, before=ends, ended=ended, last=LAST, same_as=same, mlflow=not words)
    exported(lab)


LAST = "next:   sweep best question --export submission"


# ------------------------------------------------------------------------------------------- workers
def assassin(lab: Lab, running: Running, draw: random.Random, count: int) -> int:
    """SIGKILL workers, one after another, each after an epoch more than the last one had; returns how many.

    For a trial whose worker dies twice in one epoch fails, as it should.
    """
    killed, seen = 0, 0
    while killed < count and running.until(EPOCH, times=seen + 1):
        time.sleep(draw.uniform(0.0, 0.15))
        before = running.said("interrupted"), running.said(EPOCH)
        for pid in lab.workers()[:1]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        running.wait_for(lambda: running.said("interrupted") > before[0] or running.said(EPOCH) > before[1] + 1)  # noqa: B023
        seen = running.said(EPOCH)
    return killed


@pytest.mark.fault("K1")
@pytest.mark.parametrize("seed", seeds(12))
def test_workers_killed_at_random_times_lose_no_epoch_on_record(tmp_path, garments, reference, case, seed):
    """Up to thirty-two kills a seed, one for each epoch of the sweep."""
    lab, draw = make(tmp_path, garments, env=checkpoints(seed), trials=10), random.Random(f"K1 {seed}")
    running = lab.begin()
    case.kills += assassin(lab, running, draw, count=32)
    ended = running.end()
    assert "restarts from scratch" not in ended.err
    check(case, lab, ended=ended, last=LAST, same_as=reference(trials=10))


@pytest.mark.fault("K1")
@pytest.mark.parametrize("seed", seeds(3, sample=0))
def test_with_two_workers_side_by_side_no_trial_is_lost_either(tmp_path, garments, case, seed):
    search, draw = "{sampler: random, pruner: none}", random.Random(f"K1b {seed}")
    lab = make(tmp_path, garments, env=checkpoints(seed), search=search)
    running = lab.begin("--slots", "2")
    case.kills += assassin(lab, running, draw, count=16)
    ended = running.end()
    check(case, lab, ended=ended, last=LAST)
    ends = [(one["state"], one["failure"]) for _, one in sorted(lab.results().items())]
    assert len(ends) == 8
    assert set(ends) <= {("COMPLETE", None), ("FAILED", "died")}  # one worker may be hit twice in an epoch
    assert ("COMPLETE", None) in ends


# --------------------------------------------------------------------------------------- every point
POINTS = """
paused
half history.jsonl|written history.jsonl|half trial_index.jsonl|written trial_index.jsonl
written last.ckpt|renamed last.ckpt|written model.safetensors|renamed model.safetensors
written config.json|renamed config.json|written result.json|renamed result.json
written study.json|renamed study.json|written space.yaml|renamed space.yaml|written data.json|renamed data.json
written resume_command|renamed resume_command|written elapsed_seconds|renamed elapsed_seconds
written trial_index.jsonl|renamed trial_index.jsonl|written importance.json|renamed importance.json
written mlflow.json|renamed mlflow.json|written trials.csv|renamed trials.csv
written digests.json|renamed digests.json|written meta.json|renamed meta.json|written sizes.npy|renamed sizes.npy
founded mlflow.db|mlflow.study|mlflow.study.born|mlflow.run.born|mlflow.run.points|mlflow.run.sent
"""
NAMES = [name for line in POINTS.strip().splitlines() for name in (line.split("|") if "|" in line else line.split())]
NAMES = list(dict.fromkeys(NAMES))


def points(every: int) -> list[object]:
    """Each point at its first passing and at a later one, with few checkpoints and many; a few for the fast suite."""
    found = [(name, times, often) for often in (False, True) for name in NAMES for times in (1, every)]
    fast = {("half history.jsonl", 1, False), ("renamed result.json", every, False)}
    return [one if one in fast else pytest.param(*one, marks=pytest.mark.many) for one in found]


@pytest.mark.fault("K3")
@pytest.mark.parametrize(("name", "times", "often"), points(4))
def test_a_kill_between_any_two_writes_changes_nothing(tmp_path, garments, reference, case, name, times, often):
    """Whichever process comes to the point dies there, once."""
    changes, env = {"search": CLIMB, "epochs": 3}, {"SWEEP_FAKE_SECONDS": "0", **(OFTEN if often else {})}
    lab, mark = make(tmp_path, garments, env=env, **changes), tmp_path / "dead"
    words = [] if "mlflow" in name else ["--no-mlflow"]
    if name == "founded mlflow.db":  # so that it is made
        (lab.home / "mlflow.db").unlink()
    if name == "renamed trial_index.jsonl":  # which is written anew where it lacks something
        lab.run(*words, "--trials", "2")
        (lab.study / "trial_index.jsonl").unlink()
    lab.run(*words, SWEEP_CRASH=f"{name}@{times}={mark}")
    before = lab.results()
    gone(lab, within=2)
    if times == 1:
        assert mark.exists(), f"nothing came to the point {name!r}"
    case.kills += mark.exists()
    ended = lab.run(*words)
    same = reference(**changes)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=not words)
    exported(lab)


@pytest.mark.fault("K3")
@pytest.mark.parametrize("line", [14, pytest.param(24, marks=pytest.mark.many)])
def test_an_epoch_that_ends_a_trial_ends_it_after_a_kill_too(tmp_path, garments, reference, case, line):
    """The kill comes when the epoch is on record and was not judged: the pruner must see it afterwards."""
    lab, mark = make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0"}, **SPACES["median"]), tmp_path / "dead"
    lab.run("--no-mlflow", SWEEP_CRASH=f"written history.jsonl@{line}={mark}")
    assert mark.exists()
    case.kills += 1
    last = lab.trials[-1]
    assert (len(history(last)), (last / "result.json").exists()) == (2, False)
    ended = lab.run("--no-mlflow")
    assert lab.results()[int(last.name)]["state"] == "PRUNED"
    check(case, lab, ended=ended, last=LAST, same_as=reference(**SPACES["median"]), mlflow=False)


@pytest.mark.fault("K3")
@pytest.mark.many
def test_every_point_that_a_sweep_comes_to_is_in_the_list(tmp_path, garments, case):
    lab, seen = make(tmp_path, garments, search=CLIMB, env={"SWEEP_FAKE_SECONDS": "0"}), tmp_path / "seen"
    (lab.home / "mlflow.db").unlink()  # so that it is made
    assert lab.run(SWEEP_CRASH=f"?={seen}").code == 0
    passed = Counter(seen.read_text().splitlines())
    ours = {name for name in passed if not re.search(ELSEWHERE, name)}
    assert ours <= set(NAMES), ours - set(NAMES)


ELSEWHERE = r" (preflight\.json|[0-9a-f]{16}\.npy)$"  # of the cache, which may be deleted at any time


# ------------------------------------------------------------------------------------------- signals
@pytest.mark.fault("K4")
@pytest.mark.parametrize("seed", seeds(4))
def test_a_request_to_end_finishes_the_epoch_and_says_how_to_go_on(lab, reference, case, seed):
    running, draw = lab.begin(), random.Random(f"K4 {seed}")
    running.until(EPOCH, times=draw.randrange(1, 12))
    time.sleep(draw.uniform(0.0, 0.1))
    running.kill(signal.SIGTERM)
    began = time.monotonic()
    ended = running.end()
    assert time.monotonic() - began < 30
    assert ended.code == 143
    assert "finishing the epoch; press again to stop now" in ended.err
    assert "resume: sweep run space.yaml --devices cpu" in ended.err
    check(case, lab, ended=ended, code=143, mlflow=False)
    before, ended = lab.results(), lab.run(SWEEP_FAKE_SECONDS="0")
    check(case, lab, before=before, ended=ended, last=LAST, same_as=reference())


@pytest.mark.fault("K5")
@pytest.mark.parametrize("seed", seeds(4))
def test_one_interrupt_finishes_the_epoch_and_two_end_it_at_once(lab, reference, case, seed):
    running, draw = lab.begin(), random.Random(f"K5 {seed}")
    running.until(EPOCH, times=draw.randrange(1, 8))
    running.kill(signal.SIGINT)
    ended = running.end()
    assert "finishing the epoch; press again to stop now" in ended.err
    check(case, lab, ended=ended, code=130, mlflow=False)
    before, running = lab.results(), lab.begin(SWEEP_FAKE_SECONDS="30")
    running.wait_for(lambda: bool(lab.workers()))
    running.kill(signal.SIGINT)
    running.until("press again")
    running.kill(signal.SIGINT)
    began = time.monotonic()
    ended = running.end()
    assert time.monotonic() - began < 2
    check(case, lab, before=before, ended=ended, code=130, mlflow=False)
    ended = lab.run(SWEEP_FAKE_SECONDS="0")
    check(case, lab, before=before, ended=ended, last=LAST, same_as=reference())


# ------------------------------------------------------------------------------------- two at a time
@pytest.mark.fault("S4")
def test_a_second_sweep_on_the_same_study_is_sent_away(lab, reference, case):
    running = lab.begin("--no-mlflow")
    running.until(EPOCH)
    running.kill(signal.SIGSTOP)  # it is not done before the second one has begun
    second = lab.run("--no-mlflow")
    running.kill(signal.SIGCONT)
    assert second.code == 4
    assert f"process {running.pid} on {os.uname().nodename} is running this study" in second.err
    ended = running.end()
    check(case, lab, ended=ended, same_as=reference(), mlflow=False)


@pytest.mark.fault("S4")
@pytest.mark.many
def test_of_sweeps_begun_at_once_one_wins_and_the_others_say_so(lab, reference, case):
    crowd = [lab.begin("--no-mlflow") for _ in range(4)]
    codes = [one.end().code for one in crowd]
    assert sorted(codes) == [0, 4, 4, 4]
    check(case, lab, same_as=reference(), mlflow=False)
