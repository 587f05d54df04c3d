"""What lies in the current folder is not imported, Ctrl-C is one word, and this machine is asked without a proxy."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault
from sweeper.system import subprocesses
from sweeper.system.ask import ask
from tests.support.cli import environment, lay_out

PROGRAM = str(Path(sys.executable).with_name("sweep"))
NAMES = ("random", "json", "numpy", "typer", "pydantic", "optuna", "timm", "torch", "mlflow", "uvicorn", "matplotlib")
FOLDERS = ("trainers", "sweeper", "PIL", "pandas", "sqlalchemy", "ruamel")
TRAP = "raise SystemExit('a file of the user was executed: ' + __file__)\n"
SPACE = """\
study: question
data: {layout: challenge, root: garments, crop: box}
budget: {trials: 1}
train: {backbone: test_resnet, pretrained: false, image_size: 32, epochs: 1}
"""
COMMANDS = (
    "sweep",
    "sweep data check space.yaml",
    "sweep plan space.yaml --devices cpu",
    "sweep run space.yaml --devices cpu",
    "sweep leaderboard",
    "sweep best --export submission --devices cpu",
    "sweep report",
    "sweep doctor",
)
AT_ONCE = (
    "--version",
    "--help",
    "doctor",
    "plan space.yaml",
    "run space.yaml",
    "data check space.yaml",
    "status",
    "ui",
)
BEGUN = "from sweeper.__main__ import main; print('begun', flush=True); main()"
PATHS = ("", os.pathsep + "/nowhere", ".", os.curdir + os.pathsep + os.curdir)


@pytest.fixture
def littered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a data set, a space, and files with the names of libraries, ours included."""
    folder = lay_out(tmp_path / "mine", SPACE)
    for name in NAMES:
        (folder / f"{name}.py").write_text(TRAP)
    for name in FOLDERS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(TRAP)
    monkeypatch.chdir(folder)
    return folder


def ran(command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    words = [PROGRAM, *command.split()[1:]]
    return subprocess.run(words, env=environment(**changes), capture_output=True, text=True, timeout=200)


@pytest.mark.process
@pytest.mark.parametrize("path", PATHS)
def test_no_child_finds_the_current_folder_on_its_path(littered, monkeypatch, path):
    monkeypatch.setenv("PYTHONPATH", path)
    code = "import json, random, trainers, sys; print(json.dumps([trainers.__file__, *sys.path]))"
    module, *entries = ask("-c", code, what="it")
    assert Path(module).parents[1] == Path(subprocesses.OWN)
    assert str(littered) not in entries
    assert "" not in entries


@pytest.mark.process
def test_what_a_child_starts_finds_none_either(littered):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import random'], check=True)"  # as uvicorn
    assert ask("-c", f"{code}; print([])", what="it") == []


@pytest.mark.process
def test_a_child_is_asked_in_json_and_its_last_line_is_the_answer(littered):
    code = "import json, sys; print('a library talks'); print(json.dumps({'heard': json.load(sys.stdin)}))"
    assert ask("-c", code, what="it", request={"a": [1, "é"]}) == {"heard": {"a": [1, "é"]}}


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "it died with code 0"),
        ("print(3)", "it died with code 0"),
        ("print('[]'); print('no answer')", "it died with code 0"),
        ("raise SystemExit(7)", "it died with code 7"),
        ("import os; os.kill(os.getpid(), 9)", "it died with code -9"),
    ],
)
def test_a_child_that_gives_no_answer_is_a_fault_of_the_environment(littered, code, words):
    with pytest.raises(EnvironmentFault, match=words):
        ask("-c", code, what="it")


@pytest.mark.process
def test_a_child_that_takes_too_long_is_ended(littered):
    with pytest.raises(EnvironmentFault, match=r"it did not answer within 0\.1 s"):
        ask("-c", "import time; time.sleep(60)", what="it", timeout=0.1)


def test_other_folders_stay_on_the_path(littered, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/one{os.pathsep}{os.pathsep}{littered}{os.pathsep}/two")
    assert subprocesses.environment()["PYTHONPATH"] == f"/one{os.pathsep}/two"


@pytest.mark.process
@pytest.mark.parametrize("path", PATHS[:2])
def test_a_sweep_does_not_execute_a_users_files(littered, path):
    if path:  # then Python itself finds it before a line of ours
        (littered / "sweeper").rename(littered / "swept")
    ended = ran("sweep run space.yaml --no-mlflow --devices cpu", PYTHONPATH=path)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.process
@pytest.mark.slow
def test_no_command_executes_a_users_files(littered):
    for command in COMMANDS:
        ended = ran(command, SWEEP_TRAINER="", SWEEP_HOME=str(littered / "runs"))
        assert ended.returncode in ((0, 3) if command.endswith("doctor") else (0,)), (
            command,
            ended.stderr,
        )  # 3: no hub
        assert "executed" not in ended.stdout + ended.stderr
    with subprocess.Popen(
        [PROGRAM, "ui"],
        env=environment(SWEEP_HOME=str(littered / "runs"), HTTP_PROXY="http://127.0.0.1:9"),
        stdout=subprocess.PIPE,
        text=True,
    ) as pages:
        assert "experiments" in pages.stdout.readline()
        assert "ready" in pages.stdout.readline()
        pages.send_signal(signal.SIGTERM)


# ------------------------------------------------------------------------------------------- Ctrl-C
DYING = 2.0  # seconds that the system may take to end children whose parent has ended


def left(group: int) -> list[str]:
    """The processes that were started in the session of `group` and are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group and fields[0] != "Z":
            found.append(path.parent.name)
    return found


def interrupted(command: str, seconds: float) -> tuple[int, list[str], list[str]]:
    """Ctrl-C to the whole group, `seconds` after its first line of ours: the code, the lines, and who is left."""
    words = [*subprocesses.python("-c", BEGUN), *command.split()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(words, env=environment(SWEEP_TRAINER=""), start_new_session=True, **streams)
    assert process.stdout.readline() == "begun\n"
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
    lines = process.communicate(timeout=60)[0].splitlines()
    until = time.monotonic() + DYING
    while (remain := left(process.pid)) and time.monotonic() < until:
        time.sleep(0.02)  # they are told to end as we end, and take a moment
    return process.returncode, lines, remain


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_ctrl_c_is_one_word_and_leaves_nobody(littered, seconds):
    assert interrupted("plan space.yaml --devices cpu", seconds) == (130, ["stopped"], [])


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("command", AT_ONCE)
def test_ctrl_c_at_any_moment_of_the_beginning(littered, command):
    for seconds in (0.0, 0.1, 0.2, 0.5, 1, 2, 4):
        code, lines, remain = interrupted(command, seconds)
        assert (code == 130) == bool({"stopped"} & set(lines)) or command.startswith("run"), (seconds, lines)
        assert not any("Traceback" in line for line in lines), (seconds, lines)
        assert not remain, seconds


# ------------------------------------------------------------------------------------------- proxies
@pytest.mark.process
def test_a_folder_that_was_deleted_is_one_message(tmp_path):
    (gone := tmp_path / "gone").mkdir()
    words = ["sh", "-c", 'rmdir "$PWD"; exec "$0" status', PROGRAM]
    ended = subprocess.run(words, cwd=gone, env=environment(), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr == "error: the current folder was deleted\nhelp: cd to another one\n"


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://proxy:8"}, "127.0.0.1,localhost,::1"),
        ({"all_proxy": "socks5://proxy:8", "NO_PROXY": "intern, localhost"}, "intern,localhost,127.0.0.1,::1"),
        ({"https_proxy": "http://proxy:8", "no_proxy": "*"}, "*"),
        ({"no_proxy": "intern"}, "intern"),
    ],
)
def test_this_machine_is_asked_without_a_proxy(monkeypatch, given, hosts):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    env = subprocesses.environment()
    assert (env.get("no_proxy") or env.get("NO_PROXY")) == hosts
    for name in ("no_proxy", "NO_PROXY"):
        if name in env:
            monkeypatch.setenv(name, env[name])
    if "HTTP_PROXY" in given:
        assert urllib.request.proxy_bypass("127.0.0.1:5000")
        assert not urllib.request.proxy_bypass("example.org")
