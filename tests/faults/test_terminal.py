"""X1: whatever stdout and stderr are, no traceback, no escape codes off a terminal, and the work is done."""

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import command, environment
from tests.support.processes import Lab, gone

pytestmark = pytest.mark.process

COMMANDS = {
    "status": ["status"],
    "leaderboard": ["leaderboard"],
    "best": ["best"],
    "report": ["report"],
    "plan": ["plan", "space.yaml", "--devices", "cpu"],
    "run": ["run", "space.yaml", "--devices", "cpu", "--no-mlflow"],
}
ENDS = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "stdin closed": "<&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "stderr full": "2>/dev/full",
    "a reader that leaves": "| head -1",
    "both into a reader that leaves": "2>&1 | head -1",
}
FEW = {("status", "all closed"), ("leaderboard", "a reader that leaves"), ("run", "stderr closed")}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, garments: Path) -> Lab:
    """A study of two trials that has ended."""
    from tests.support.processes import make

    lab = make(tmp_path_factory.mktemp("done"), garments, trials=2, epochs=2, env={"SWEEP_FAKE_SECONDS": "0"})
    assert lab.run("--no-mlflow").code == 0
    return lab


def shell(lab: Lab, words: list[str], ends: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The command with its streams as `ends` has them; its own exit code."""
    line = f"{' '.join(map(quoted, command(*words)))} {ends}; exit ${{PIPESTATUS[0]}}"
    env = environment(**{**lab.env, "CI": "1", **changes})
    return subprocess.run(
        ["bash", "-c", line], cwd=lab.root, env=env, capture_output=True, text=True, errors="replace", timeout=120
    )


def quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


@pytest.mark.fault("X1")
@pytest.mark.parametrize(
    ("name", "ends"),
    [
        (name, ends) if (name, ends) in FEW else pytest.param(name, ends, marks=pytest.mark.many)
        for name in COMMANDS
        for ends in ENDS
    ],
)
def test_closed_full_and_impatient_streams_change_nothing(done, case, name, ends):
    ended = shell(done, COMMANDS[name], ENDS[ends])
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "Exception ignored" not in ended.stdout + ended.stderr
    if name == "report":
        assert (done.study / "report.html").exists()


@pytest.mark.fault("X1")
@pytest.mark.many
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"CI": "", "TERM": "dumb"},
        {"NO_COLOR": "1"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "40"},
    ],
    ids=["dumb", "colourless", "C", "narrow"],
)
def test_environments_of_all_sorts_change_nothing(done, case, name, changes):
    ended = shell(done, COMMANDS[name], "", **changes)
    assert ended.returncode == 0, ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def on_a_terminal(lab: Lab, words: list[str], columns: int, **changes: str) -> tuple[int, str]:
    """Exit code and all that was written to a terminal so many columns wide."""
    master, slave = pty.openpty()
    env = environment(**{**lab.env, "COLUMNS": str(columns), **changes})
    process = subprocess.Popen(command(*words), cwd=lab.root, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # as Linux says that nobody is at the other end
            break
        if not part:
            break
        said += part
    os.close(master)
    return process.wait(60), said.decode(errors="replace")


@pytest.mark.fault("X1")
@pytest.mark.parametrize(
    ("changes", "escapes"),
    [
        ({"TERM": "dumb"}, False),
        pytest.param({"TERM": "xterm", "CI": "1"}, False, marks=pytest.mark.many),
        pytest.param({"TERM": "xterm", "NO_COLOR": "1"}, True, marks=pytest.mark.many),
        pytest.param({"TERM": "xterm"}, True, marks=pytest.mark.many),
    ],
    ids=["dumb", "CI", "NO_COLOR", "xterm"],
)
def test_on_a_terminal_there_are_escapes_only_where_it_can_move_its_cursor(lab, case, changes, escapes):
    code, said = on_a_terminal(lab, [*COMMANDS["run"], "--trials", "2"], 40, CI=changes.pop("CI", ""), **changes)
    assert code == 0, said
    assert ("\x1b[" in said) == escapes
    assert "Traceback" not in said
    if "NO_COLOR" in changes:
        assert "\x1b[3" not in said
    if not escapes:
        assert said.count(" epoch ") >= 2 * 4


@pytest.mark.fault("X1")
@pytest.mark.many
def test_a_terminal_that_is_closed_ends_the_sweep_and_the_next_one_goes_on(lab, case):
    master, slave = pty.openpty()
    env = environment(**{**lab.env, "SWEEP_FAKE_SECONDS": "0.3", "CI": "1"})
    process = subprocess.Popen(
        command(*COMMANDS["run"]),
        cwd=lab.root,
        env=env,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    while b" epoch 2/4" not in seen:
        seen += os.read(master, 1 << 16)
    process.send_signal(signal.SIGHUP)
    os.close(master)
    process.wait(30)
    gone(lab, within=5)
    before = lab.results()
    assert lab.run("--no-mlflow", SWEEP_FAKE_SECONDS="0").code == 0
    assert before.items() <= lab.results().items()
