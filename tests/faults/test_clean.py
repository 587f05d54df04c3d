"""What is kept of a study, and `sweep clean`: killed in between, beside a running sweep, on a full disk."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.faults.invariants import check
from tests.support.cli import sweep
from tests.support.disks import fill, small
from tests.support.processes import Lab, make

pytestmark = pytest.mark.process

LAST = "next:   sweep best question --export submission"
FILES = ("model.safetensors", "last.ckpt")


def holding(lab: Lab) -> set[int]:
    """The trials that have both files of a checkpoint; none may have one alone, or leftovers."""
    found = {int(folder.name): [name for name in FILES if (folder / name).exists()] for folder in lab.trials}
    assert all(len(names) in (0, 2) for names in found.values()), found
    return {number for number, names in found.items() if names}


def best(lab: Lab, count: int) -> set[int]:
    results = lab.results().values()
    done = [(one["value"], -one["number"]) for one in results if one["state"] == "COMPLETE"]
    return {-number for _, number in sorted(done)[-count:]}


def keeping(lab: Lab, keep: int) -> Lab:
    space = lab.root / "space.yaml"
    space.write_text(f"keep_checkpoints: {keep}\n{space.read_text()}")
    return lab


@pytest.mark.fault("X-keep")
def test_the_best_keep_their_checkpoints_and_every_trial_its_record(tmp_path, garments, reference, case):
    lab = keeping(make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0"}), 2)
    ended = lab.run("--no-mlflow")
    assert holding(lab) == best(lab, 2)
    assert all((folder / name).exists() for folder in lab.trials for name in ("config.json", "log.txt"))
    check(case, lab, ended=ended, last=LAST, same_as=reference(), mlflow=False)


@pytest.mark.fault("X-keep")
@pytest.mark.many
@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("name", ["val_logits.npy", "last.ckpt", "model.safetensors"])
def test_a_kill_while_checkpoints_are_removed_is_mended_by_the_next_start(
    tmp_path, garments, reference, case, name, times
):
    lab, mark = keeping(make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0"}), 1), tmp_path / "dead"
    lab.run("--no-mlflow", SWEEP_CRASH=f"dropped {name}@{times}={mark}")
    assert mark.exists()
    case.kills += 1
    before = lab.results()
    ended = lab.run("--no-mlflow")
    assert holding(lab) == best(lab, 1)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=reference(), mlflow=False)


@pytest.mark.fault("X-keep")
@pytest.mark.many
def test_fewer_may_be_kept_in_a_later_call(tmp_path, garments, reference, case):
    lab = make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0"})
    assert lab.run("--no-mlflow").code == 0
    assert len(holding(lab)) == 8
    ended = keeping(lab, 3).run("--no-mlflow")
    assert holding(lab) == best(lab, 3)
    check(case, lab, ended=ended, last=LAST, same_as=reference(), mlflow=False)


# --------------------------------------------------------------------------------------------- clean
@pytest.fixture
def done(tmp_path: Path, garments: Path) -> Lab:
    """A study that has ended, with checkpoints of 100 kB each."""
    lab = make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0", "SWEEP_FAKE_BYTES": "100000"})
    assert lab.run("--no-mlflow").code == 0
    return lab


@pytest.mark.fault("X-clean")
def test_clean_says_first_then_removes_and_the_study_goes_on(done, reference, case):
    for folder in done.trials:
        (folder / "val_logits.npy").write_bytes(b"predictions, which the fake trainer does not make")
    said = done.sweep("clean", "question")
    assert "checkpoints of finished trials, beyond the best 1 (14)" in said.out
    assert "nothing was removed; --yes removes it" in said.err
    assert len(holding(done)) == 8
    worse = [folder for folder in done.trials if int(folder.name) not in best(done, 2)]
    bytes_held = sum((folder / name).stat().st_blocks * 512 for folder in worse for name in FILES)
    document = json.loads(done.sweep("clean", "question", "--keep", "2", "--yes", "--json").out)
    assert document["freed"] == document["bytes"] == bytes_held > 600_000
    assert holding(done) == best(done, 2)
    assert all((folder / "val_logits.npy").exists() for folder in done.trials)
    before = done.results()
    ended = done.run("--no-mlflow", "--trials", "9")
    assert holding(done) == best(done, 2) | {8}
    check(case, done, before=before, ended=ended, last=LAST, mlflow=False)


@pytest.mark.fault("X-clean")
@pytest.mark.many
def test_everything_that_reads_a_study_does_without_checkpoints(done):
    assert done.sweep("clean", "question", "--yes").code == 0
    for words in (["leaderboard"], ["status"], ["best"], ["report"], ["best", "--confirm", "1", "--devices", "cpu"]):
        ended = done.sweep(*words)
        assert ended.code == 0, ended.err


@pytest.mark.fault("X-clean")
@pytest.mark.parametrize("times", [3, *(pytest.param(n, marks=pytest.mark.many) for n in (1, 7))])
def test_a_clean_that_is_killed_leaves_a_study_that_goes_on(done, reference, case, times, tmp_path):
    killed = done.sweep("clean", "question", "--yes", SWEEP_CRASH=f"cleaned last.ckpt@{times}")
    assert killed.code == -9
    case.kills += 1
    before, ended = done.results(), done.run("--no-mlflow", "--trials", "9")
    check(case, done, before=before, ended=ended, last=LAST, mlflow=False)
    assert done.sweep("clean", "question", "--yes").code == 0
    assert holding(done) == best(done, 1)


@pytest.mark.fault("X-clean")
@pytest.mark.many
def test_a_study_at_work_is_not_touched(done):
    running = done.begin("--no-mlflow", "--trials", "12", SWEEP_FAKE_SECONDS="0.5")
    assert running.until(r" epoch \d+/")
    named = done.sweep("clean", "question", "--yes")
    assert named.code == 4
    assert f"process {running.pid} on {os.uname().nodename} is running this study" in named.err
    assert "question is running" in done.sweep("clean", "--yes").out
    assert {*range(8)} <= holding(done)
    running.kill(15)
    running.end()


def old(path: Path) -> None:
    os.utime(path, (time.time() - 90_000,) * 2)


@pytest.mark.fault("X-clean")
@pytest.mark.many
def test_only_what_no_study_uses_goes_from_the_cache_and_no_link_is_followed(done, tmp_path):
    (cache,) = (path.parent for path in (done.home / "cache").glob("*/meta.json"))
    other, young = cache.with_name("0" * 16 + "-64"), cache.with_name("1" * 16 + "-64")
    for folder in (other, young):
        folder.mkdir()
        (folder / "images.npy").write_bytes(bytes(50_000))
        (folder / "meta.json").write_text(json.dumps({"root": str(tmp_path / "gone"), "size": 64}))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(bytes(10_000))
    (outside / "meta.json").write_text(json.dumps({"root": "/", "size": 1}))
    cache.with_name("link").symlink_to(outside)
    weights = done.trials[0] / "model.safetensors" if 0 not in best(done, 1) else done.trials[1] / "model.safetensors"
    weights.unlink()
    weights.symlink_to(outside / "precious")
    old(cache)
    old(other)
    old(outside)
    assert done.sweep("clean", "--yes").code == 0
    assert cache.exists()
    assert young.exists()
    assert not other.exists()
    assert sorted(path.name for path in outside.iterdir()) == ["meta.json", "precious"]


@pytest.mark.fault("X-clean")
@pytest.mark.many
def test_clean_makes_room_for_a_sweep_that_waits(tmp_path, garments, reference, case):
    """The very command that the pause names, on the full disk, while the sweep waits."""
    with small(tmp_path / "disk", 160) as disk:
        env = {"SWEEP_HOME": str(disk / "mlruns"), "SWEEP_FAKE_BYTES": "6000000", "SWEEP_FAKE_SECONDS": "0.2"}
        lab = make(tmp_path / "lab", garments, env=env, trials=10)
        running = lab.begin("--no-mlflow")
        assert running.until("trial 8 (done|pruned)")
        fill(disk)
        assert running.until("^disk full: ")
        assert lab.sweep("clean", "--yes").code == 0
        assert running.until("continuing")
        ended = running.end()
        check(case, lab, ended=ended, last=LAST, same_as=reference(trials=10), mlflow=False)


def test_clean_without_a_study_has_nothing_to_say(tmp_path):
    ended = sweep(tmp_path, "clean")
    assert (ended.returncode, ended.stdout) == (0, "nothing to remove\n")
