"""Databases and MLflow servers in trouble: locked, dead, silent, failing, killed; and a clock that jumps."""

import http.server
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.invariants import check, exported, history
from tests.faults.test_kills import LAST
from tests.support.cli import command, environment
from tests.support.processes import Ended, Lab, make

pytestmark = pytest.mark.process

HOLD = """
import sqlite3, sys, time
link = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
link.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
link.execute("COMMIT")
"""
many = pytest.mark.many


def hold(database: Path, seconds: float) -> "subprocess.Popen[bytes]":
    """Another program that has locked `database`, for so long."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(database), str(seconds)], stdout=subprocess.PIPE)
    assert holder.stdout
    with holder.stdout as said:
        assert said.readline() == b"locked\n"
    return holder


# --------------------------------------------------------------------------------------------- locks
@pytest.mark.fault("S1")
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=many)])
def test_a_locked_study_db_costs_the_training_nothing(lab, reference, case, seconds):
    """It is for dashboards alone: the next call brings up to date what this one could not write."""
    running = lab.begin("--no-mlflow")
    running.until(" epoch ", times=3)
    holder = hold(lab.study / "study.db", seconds)
    ended = running.end()
    holder.kill()
    holder.wait()
    assert slowest(lab) < 1
    assert ("study.db is behind" in ended.err) == (seconds > 10)
    check(case, lab, ended=ended, last=LAST, same_as=reference(), mlflow=False)
    assert lab.run("--no-mlflow").code == 0
    exported(lab)


@pytest.mark.fault("S1")
@pytest.mark.many
@pytest.mark.parametrize("seconds", [3, 30])
def test_a_locked_mlflow_database_costs_the_training_nothing(lab, reference, case, seconds):
    assert lab.run("--trials", "1", SWEEP_FAKE_SECONDS="0").code == 0
    running = lab.begin()
    running.until("trial 1 epoch 1")
    holder = hold(lab.home / "mlflow.db", seconds)
    ended = running.end()
    holder.wait()
    assert slowest(lab) < 1
    if seconds > 10:
        assert re.search("mlflow.db is slow to answer, or locked|mlflow.db does not answer", ended.err)
    assert lab.caught_up().code == 0
    check(case, lab, ended=ended, last=LAST, same_as=reference())


def slowest(lab: Lab) -> float:
    """The longest time between two epochs of a trial, beyond the epoch itself, in seconds."""
    epochs = [history(folder) for folder in lab.trials]
    return max(b["time"] - a["time"] - b["seconds"] for each in epochs for a, b in pairwise(each))


# ------------------------------------------------------------------------------------------- outages
class Failing(http.server.BaseHTTPRequestHandler):
    """Answers everything with 500."""

    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def outage(kind: str) -> Iterator[str]:
    """The address of a server that is not there, never answers, or always fails."""
    if kind == "failing":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.fault("M1")
@pytest.mark.many
@pytest.mark.parametrize("kind", ["closed", "silent", "failing"])
def test_a_server_in_trouble_slows_no_epoch_and_what_it_missed_is_sent_later(lab, reference, case, kind):
    with outage(kind) as address:
        ended = lab.run(MLFLOW_TRACKING_URI=address)
        assert slowest(lab) < 1
        assert "training continues" in ended.err
        assert "the next `sweep run` or `sweep ui` sends the rest" in ended.err
        began = time.monotonic()
        shown = lab.sweep("ui", "question", MLFLOW_TRACKING_URI=address)
        assert (shown.code, time.monotonic() - began < 60) == (0, True)
        assert shown.out == f"{address}/#/experiments\n"
        assert "the next `sweep run` or `sweep ui` sends the rest" in shown.err
    epochs = sum(map(len, map(history, lab.trials)))
    assert lab.caught_up().out == f"sent 8 runs and {epochs} epochs of question to MLflow\n"
    check(case, lab, ended=ended, last="next:   sweep best question --export submission", same_as=reference())


@contextmanager
def server(root: Path, port: int) -> Iterator[None]:
    """MLflow's own server over the database in `root`, killed at the end."""
    words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    words += [
        "--backend-store-uri",
        f"sqlite:///{root}/mlflow.db",
        "--default-artifact-root",
        (root / "art").as_uri(),
    ]
    log = (root / "server.log").open("ab")
    with (
        log,
        subprocess.Popen([sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, process_group=0) as it,
    ):
        try:
            deadline = time.monotonic() + 90
            while not answers(port):
                assert time.monotonic() < deadline, (root / "server.log").read_text()
                time.sleep(0.1)
            yield
        finally:
            os.killpg(it.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.fault("M1")
@pytest.mark.many
def test_a_server_killed_and_started_again_in_the_run_has_all_in_the_end(tmp_path, garments, reference, case):
    lab = make(tmp_path / "lab", garments, env={"SWEEP_FAKE_SECONDS": "0.3"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with server(lab.home, port):
        running = lab.begin(**changes)
        running.until("trial 1 epoch 1")
    case.kills += 1
    running.until("trial 3 epoch 1")
    with server(lab.home, port):
        ended = running.end()
        assert slowest(lab) < 1
        assert lab.sweep("ui", "question", **changes).code == 0
    case.kills += 1
    check(case, lab, ended=ended, last=LAST, same_as=reference())


POINTS = ["mlflow.study", "mlflow.study.born", "mlflow.run.born", "mlflow.run.points", "mlflow.run.sent"]


@pytest.mark.fault("M2")
@pytest.mark.many
@pytest.mark.parametrize("point", POINTS)
def test_a_replay_that_is_killed_and_one_that_is_repeated_add_nothing(lab, reference, case, point):
    ended = lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0")
    times = "" if "study" in point else "@3"
    assert lab.caught_up(SWEEP_CRASH=f"{point}{times}").code == -signal.SIGKILL
    case.kills += 1
    assert lab.caught_up().code == 0
    check(case, lab, ended=ended, last=LAST, same_as=reference())
    again = lab.caught_up()
    assert (again.code, again.out) == (0, "")
    check(case, lab, ended=ended, last=LAST)


@pytest.mark.fault("M2")
@pytest.mark.many
def test_a_deleted_mlflow_database_is_made_anew_and_a_killed_run_is_ended(lab, reference, case):
    running = lab.begin()
    running.until("trial 3 epoch 2")
    running.kill()
    running.end()
    case.kills += 1
    assert lab.caught_up().code == 0
    check(case, lab)
    for path in lab.home.glob("mlflow.db*"):
        path.unlink()
    epochs = sum(map(len, map(history, lab.trials)))
    assert lab.caught_up().out == f"sent 4 runs and {epochs} epochs of question to MLflow\n"
    check(case, lab)
    ended = lab.run(SWEEP_FAKE_SECONDS="0")
    check(case, lab, ended=ended, last=LAST, same_as=reference())


@pytest.mark.fault("M2")
@pytest.mark.many
def test_a_study_that_is_swept_is_left_to_its_sweep(lab, case):
    running = lab.begin()
    running.until("trial 0 epoch 1")
    tried = lab.caught_up()
    running.kill()
    running.end()
    assert tried.code == 0
    assert re.fullmatch(
        r"question was not sent: process \d+ on \S+ is running this study; run `sweep sync question` afterwards\n",
        tried.out,
    )


# --------------------------------------------------------------------------------------- other spaces
GAMMA = "gamma: {uniform: [0.0, 5.0]}"
SCHEDULE, NAME = "schedule: {choice: [constant, {name: step, every: {int: [1, 5]}}]}", "study: question"
CHANGES = {
    "wider": ((GAMMA, "gamma: {uniform: [0.0, 9.0]}"), "learnt from 8 of 8 trials of question"),
    "narrower": ((GAMMA, "gamma: {uniform: [0.0, 3.0]}"), r"learnt from \d of 8 .* \(loss.gamma [0-9.]+ > 3\)"),
    "new choice": (("[constant,", "[cosine, constant,"), "learnt from 8 of 8 trials of question"),
    "removed parameter": ((SCHEDULE, "schedule: constant"), r"learnt from \d of 8 .* \(schedule"),
    "other metric": ((NAME, f"{NAME}\nmetric: macro_f1"), "nothing learnt from question: its metric was"),
    "other data": (None, "nothing learnt from question: its images, labels or splits were different"),
}


@pytest.mark.many
@pytest.mark.fault("Y2")
@pytest.mark.parametrize("name", ["narrower", *(pytest.param(n, marks=many) for n in CHANGES if n != "narrower")])
def test_a_changed_space_is_refused_and_a_new_study_learns_from_the_old(lab, reference, case, name):
    assert lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0").code == 0
    before, (change, words) = lab.results(), CHANGES[name]
    space = lab.root / "space.yaml"
    if change:
        assert change[0] in space.read_text()
        space.write_text(space.read_text().replace(*change))
    else:
        shutil.copy(*sorted((lab.root / "garments").rglob("*.jpg"))[:2])
    refused = lab.run("--no-mlflow")
    check(case, lab, before=before, ended=refused, code=2, last="--new-study NAME", same_as=reference(), mlflow=False)
    begun = lab.run("--no-mlflow", "--new-study", "next", "--trials", "2", SWEEP_FAKE_SECONDS="0")
    assert begun.code == 0, begun.err
    assert re.search(words, begun.err), begun.err
    numbers = sorted(path.name for path in (lab.home / "studies/next/trials").iterdir())
    assert numbers == ["0000", "0001"]
    check(case, lab, before=before, mlflow=False)


# ------------------------------------------------------------------------------------ clocks, folders
JUMP = """
import time
_true, _calls = time.time, [0]
def _jumping():
    _calls[0] += 1
    return _true() + ({seconds} if _calls[0] > {after} else 0)
time.time = _jumping
"""


@pytest.mark.fault("X-clock")
@pytest.mark.many
@pytest.mark.parametrize("seconds", [-600, 86400])
def test_a_clock_that_jumps_changes_nothing_but_the_times_on_record(lab, reference, case, seconds):
    """The workers' clocks jump after their tenth look."""
    site = lab.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMP.format(seconds=seconds, after=10))
    where = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
    ended = lab.run("--hours", "1", PYTHONPATH=where)
    times = [epoch["time"] for folder in lab.trials for epoch in history(folder)]
    assert any(abs(b - a) > 500 for a, b in pairwise(times))
    assert lab.sweep("leaderboard").code == lab.sweep("status").code == 0
    check(case, lab, ended=ended, last=LAST, same_as=reference())


@pytest.mark.fault("X-folder")
@pytest.mark.many
@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="permissions do not bind root")
def test_a_folder_that_may_not_be_written_is_said_and_nothing_is_half_written(lab, case):
    assert lab.run("--no-mlflow", "--trials", "2", SWEEP_FAKE_SECONDS="0").code == 0
    before = {path: path.read_bytes() for path in lab.study.rglob("*") if path.is_file()}
    lab.study.chmod(0o555)
    ended = bound(lab, "run", "space.yaml", "--devices", "cpu", "--no-mlflow")
    lab.study.chmod(0o755)
    assert ended.code == 3, ended.err
    assert ended.last.startswith("help: fix the permissions")
    assert "Traceback" not in ended.err
    after = {path: path.read_bytes() for path in lab.study.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {"lock"}


def bound(lab: Lab, *words: str) -> Ended:
    """`sweep WORDS` by somebody whom permissions bind; root is only without the right to pass over them."""
    without = "-dac_override,-dac_read_search"
    meek = ["setpriv", f"--bounding-set={without}", f"--inh-caps={without}"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*meek, *command(*words)], cwd=lab.root, env=environment(CI="1"), capture_output=True, text=True
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.fault("X-folder")
@pytest.mark.many
@pytest.mark.parametrize("odd", ["a?b{c}", "50% #1 {x}", "my%20runs"])
def test_a_folder_may_have_any_name(lab, reference, case, odd):
    odd_lab = Lab(lab.root, lab.env | {"SWEEP_HOME": str(lab.root / odd / "mlruns")})
    ended = odd_lab.run(SWEEP_FAKE_SECONDS="0")
    assert "MLflow" not in ended.err
    check(case, odd_lab, ended=ended, same_as=reference())


@pytest.mark.fault("X-newer")
@pytest.mark.many
def test_an_mlflow_database_of_a_newer_mlflow_costs_telemetry_alone(lab, reference, case):
    assert lab.run("--trials", "1", SWEEP_FAKE_SECONDS="0").code == 0
    with closing(sqlite3.connect(lab.home / "mlflow.db")) as link:
        link.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
        link.commit()
    ended = lab.run(SWEEP_FAKE_SECONDS="0")
    assert len(re.findall("mlflow.db is from another MLflow", ended.err)) == 1
    assert "mlflow.db is from another MLflow" in lab.sweep("doctor").out
    shown = lab.sweep("ui")
    assert (shown.code, "move" in shown.last) == (3, True)
    check(case, lab, ended=ended, same_as=reference(), mlflow=False)
