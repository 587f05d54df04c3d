"""GPU memory that nobody uses any more, as a real program called nvidia-smi tells it of real processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.commands import doctor
from sweeper.system import gpu_processes
from tests.support.cli import environment

pytestmark = pytest.mark.process

Tell = Callable[..., Path]
IDENTITY = """{
    "schema_version": 2,
    "study": "s",
    "identity": {"metric": "overall_accuracy", "data": {}, "train": {}},
    "budget": {"trials": 3, "hours": null}
}"""
ASLEEP = "import sys, time; print('up', flush=True); time.sleep(600)"
LEAVE = """
import os, subprocess, sys
words = ["-m", "sweeper.worker", "--fd", "3", "--parent", str(os.getpid())]
command = [sys.executable, "-c", sys.argv[1], *words]
child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print(child.pid, flush=True)
"""


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Puts a program called nvidia-smi first in PATH, which says that these processes hold so many MiB."""

    def write(*apps: tuple[int, str], prelude: str = "") -> Path:
        said = "".join(f"echo '{pid}, python, {used}'\n" for pid, used in apps)
        script = tmp_path / "bin" / "nvidia-smi"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{prelude}\ncase $1 in --query-compute-apps*)\n{said};;\nesac\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        return script

    return write


@pytest.fixture
def orphan() -> Iterator[int]:
    """A process called as our workers are, whose parent has ended."""
    left = subprocess.run([sys.executable, "-c", LEAVE, ASLEEP], capture_output=True, text=True, check=True)
    pid = int(left.stdout)
    yield pid
    os.kill(pid, 9)


@pytest.fixture
def worker() -> Iterator[int]:
    """The same with its parent, which we are."""
    words = ["-m", "sweeper.worker", "--fd", "3", "--parent", str(os.getpid())]
    with subprocess.Popen([sys.executable, "-c", ASLEEP, *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def test_a_worker_whose_sweep_is_gone_is_named_with_the_command_that_frees_the_memory(tell, orphan):
    tell((orphan, "4321"))
    (one,) = gpu_processes.found()
    assert str(one) == (
        f"4321 MiB of GPU memory held by a worker whose sweep is gone (pid {orphan}); run kill -9 {orphan} to free it"
    )


def test_a_worker_of_a_sweep_that_runs_and_a_stranger_are_none(tell, worker):
    tell((worker, "4321"), (os.getpid(), "100"))
    assert gpu_processes.found() == []


def test_a_process_that_cannot_be_seen_is_named(tell):
    tell((pid := dead(), "[N/A]"))
    (one,) = gpu_processes.found()
    assert one.pid == pid
    assert "an unknown amount of GPU memory held by a process that is not visible from here" in str(one)
    assert f"kill -9 {pid} where it runs" in str(one)


def test_without_the_program_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_processes.found() == []


def test_a_driver_that_does_not_answer_is_not_waited_for(tell):
    tell((1, "1"), prelude="exec sleep 60")
    began = time.monotonic()
    assert gpu_processes.found(patience=0.5) == []
    assert time.monotonic() - began < 5


def asked(folder: Path, *words: str) -> str:
    """What a command prints in a folder with one study."""
    (folder / "mlruns/studies/s").mkdir(parents=True)
    (folder / "mlruns/studies/s/study.json").write_text(IDENTITY)
    command = [sys.executable, "-m", "sweeper.cli", *words]
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert ended.returncode in ((0, 3) if words[0] == "doctor" else (0,)), (
        ended.stderr
    )  # 3: such as a hub out of reach
    return ended.stdout


def said_by(command: str, folder: Path) -> str:
    """What a command says to people. The doctor is asked here: in a process it would load torch, as below."""
    if command == "status":
        return asked(folder, command)
    return "\n".join(doctor.lines(list(doctor.holders())))


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_both_commands_warn_of_it(tell, orphan, tmp_path, command):
    tell((orphan, "4321"))
    said = said_by(command, tmp_path)
    (line,) = [line for line in said.splitlines() if str(orphan) in line and "whose sweep is gone" in line]
    assert line.startswith("warn")
    assert "4321 MiB" in line
    assert f"run kill -9 {orphan} to free it" in said


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_both_tell_scripts_in_figures(tell, orphan, tmp_path, command):
    tell((orphan, "4321"), (pid := dead(), "[N/A]"), (os.getpid(), "100"))
    document = json.loads(asked(tmp_path, command, "--json"))
    assert document["schema_version"] == 1
    first, second = document["orphans"]
    assert first == {
        "pid": orphan,
        "mib": 4321,
        "why": "a worker whose sweep is gone",
        "remedy": f"run kill -9 {orphan} to free it",
    }
    assert (second["pid"], second["mib"]) == (pid, None)


def test_scripts_see_an_empty_list_where_there_is_none(tmp_path):
    assert json.loads(asked(tmp_path, "status", "--json"))["orphans"] == []
    assert doctor.document(list(doctor.holders()))["orphans"] == []
