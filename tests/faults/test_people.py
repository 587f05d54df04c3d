"""What unlucky or hostile people do that no table of faults foresees."""

import json
import os
import random
import resource
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest

from tests.faults.invariants import check, plain
from tests.faults.test_kills import EPOCH, LAST
from tests.support.cli import command, environment
from tests.support.processes import RUN, Lab, Running, gone, make, seeds

pytestmark = pytest.mark.process

STEADY = {"search": "{sampler: tpe, pruner: none}", "trials": 4}


# ------------------------------------------------------------------------------------------- moving
@pytest.mark.fault("P1")
@pytest.mark.many
def test_a_project_that_is_moved_between_two_calls_goes_on_in_its_new_place(tmp_path, garments, reference, case):
    old = make(tmp_path / "old", garments, **STEADY)
    running = old.begin()
    running.until(f"trial 1{EPOCH}")
    running.kill()
    running.end()
    before = old.results()
    shutil.move(old.root, tmp_path / "new")
    new = Lab(tmp_path / "new", old.env)
    ended = new.run()
    check(case, new, before=before, ended=ended, last=LAST, same_as=reference(**STEADY))
    assert not (tmp_path / "old").exists()


@pytest.mark.fault("P2")
@pytest.mark.parametrize("what", ["trials", pytest.param("", marks=pytest.mark.many)])
def test_a_study_that_is_deleted_while_it_runs_ends_with_a_sentence(tmp_path, garments, case, what):
    lab = make(tmp_path, garments, **STEADY)
    running = lab.begin("--no-mlflow")
    running.until(EPOCH, times=2)
    running.kill(signal.SIGSTOP)  # no line of a log comes in between
    shutil.rmtree(lab.study / what)
    running.kill(signal.SIGCONT)
    ended = running.end()
    assert ended.code == 3, ended.err
    assert "Traceback" not in ended.err
    assert "is gone" in ended.err
    assert [path.name for path in lab.study.glob("*")] == [] or what
    gone(lab, within=2)


# -------------------------------------------------------------------------------------- the winner
@pytest.mark.fault("P3")
@pytest.mark.parametrize("seed", seeds(6))
def test_an_export_killed_anywhere_comes_to_the_same_submission(tmp_path, garments, case, seed):
    lab, draw = make(tmp_path, garments, **STEADY, env={"SWEEP_FAKE_SECONDS": "0"}), random.Random(f"P3 {seed}")
    assert lab.run("--no-mlflow").code == 0
    best = "best", "question", "--export", "submission", "--no-mlflow", "--devices", "cpu"
    before = lab.results()
    for _ in range(3):
        running = lab.start(*best, SWEEP_FAKE_SECONDS="0.2")
        time.sleep(draw.uniform(0.3, 3.0))
        case.kills += running.process.poll() is None
        running.kill()
        running.end()
        gone(lab, within=2)
    ended = lab.sweep(*best)
    assert ended.code == 0, ended.err
    (archive,) = lab.study.glob("finals/*/submission.zip")
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.read("prediction.txt").splitlines()) == 6
    assert len(list(lab.study.glob("finals/*"))) == 1
    check(case, lab, before=before, ended=ended, mlflow=False)


# ---------------------------------------------------------------------------------------- together
@pytest.mark.fault("P4")
@pytest.mark.many
def test_four_studies_begun_at_once_in_a_fresh_folder_do_not_disturb_each_other(tmp_path, garments, reference, case):
    lab = make(tmp_path, garments, **STEADY)
    crowd = [lab.begin("--new-study", f"s{number}") for number in range(4)]
    codes = [one.end().code for one in crowd]
    assert codes == [0, 0, 0, 0]
    ends = [_ends(lab.home / "studies" / f"s{number}") for number in range(4)]
    assert all(one == reference(**STEADY).results for one in ends)
    check(case, Named(lab.root, lab.env, "s0"))


class Named(Lab):
    """A lab whose study has another name."""

    def __init__(self, root: Path, env: dict[str, str], name: str) -> None:
        super().__init__(root, env)
        object.__setattr__(self, "name", name)

    @property
    def study(self) -> Path:
        return self.home / "studies" / str(getattr(self, "name", ""))


def _ends(study: Path) -> dict[int, object]:
    found = sorted(study.glob("trials/*/result.json"))
    return {int(path.parent.name): plain(json.loads(path.read_text())) for path in found}


# --------------------------------------------------------------------------------------- machinery
@pytest.mark.fault("P5")
@pytest.mark.many
def test_few_file_descriptors_are_enough_or_said_to_be_too_few(tmp_path, garments, reference, case):
    lab = make(tmp_path, garments, **STEADY, env={"SWEEP_FAKE_SECONDS": "0"})
    ended = _limited(lab, resource.RLIMIT_NOFILE, 24)
    assert ended.code in (0, 3), ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 0 or "too many files are open" in ended.err
    ended = lab.run("--no-mlflow")
    check(case, lab, ended=ended, last=LAST, same_as=reference(**STEADY), mlflow=False)


def _limited(lab: Lab, what: int, most: int):
    import subprocess

    process = subprocess.Popen(
        command(*RUN, "--no-mlflow"),
        cwd=lab.root,
        env=environment(CI="1", **lab.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(what, (most, most)),
    )
    running = Running(process)
    running.listen()
    return running.end()


@pytest.mark.fault("P6")
@pytest.mark.many
def test_everything_that_a_sweep_started_may_be_killed_but_its_coordinator(tmp_path, garments, reference, case):
    """The process that draws figures, and whatever else is there, together with the worker."""
    lab = make(tmp_path, garments, **STEADY)
    running = lab.begin()
    for turn in range(3):
        running.until(EPOCH, times=running.said(EPOCH) + 2)
        for pid in lab.processes():
            if pid != running.pid:
                os.kill(pid, signal.SIGKILL)
                case.kills += 1
        assert turn < 3
    ended = running.end()
    check(case, lab, ended=ended, last=LAST, same_as=reference(**STEADY))


# ------------------------------------------------------------------------------------ edited by hand
@pytest.mark.fault("P7")
@pytest.mark.parametrize(
    "name", ["result.json", *(pytest.param(n, marks=pytest.mark.many) for n in ("config.json", "history.jsonl"))]
)
def test_a_file_of_an_ended_trial_that_somebody_spoilt_is_named(tmp_path, garments, case, name):
    lab = make(tmp_path, garments, **STEADY, env={"SWEEP_FAKE_SECONDS": "0"})
    assert lab.run("--no-mlflow").code == 0
    spoilt = lab.trials[1] / name
    kept = spoilt.read_bytes()
    spoilt.write_bytes(kept[: len(kept) // 2])
    for words in (
        ("run", "space.yaml", "--devices", "cpu", "--no-mlflow", "--trials", "6"),
        ("leaderboard",),
        ("best",),
    ):
        ended = lab.sweep(*words)
        assert "Traceback" not in ended.err
        assert ended.code == 0 or (ended.code == 3 and f"trials/0001/{name}" in ended.err), (words, ended)
    spoilt.write_bytes(kept)
    ended = lab.run("--no-mlflow", "--trials", "6")
    check(case, lab, ended=ended, mlflow=False)
    assert sorted(lab.results()) == list(range(6))


@pytest.mark.fault("P8")
@pytest.mark.many
def test_the_current_folder_may_be_deleted_under_a_sweep_with_another_home(tmp_path, garments, case):
    lab = make(tmp_path / "here", garments, **STEADY, env={"SWEEP_HOME": str(tmp_path / "home")})
    (lab.root / "space.yaml").write_text(
        (lab.root / "space.yaml").read_text().replace("root: garments", f"root: {garments}")
    )
    running = lab.begin("--no-mlflow")
    running.until(EPOCH)
    shutil.rmtree(lab.root)
    ended = running.end()
    assert "Traceback" not in ended.err
    assert ended.code == 0, ended.err
