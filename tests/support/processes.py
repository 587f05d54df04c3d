"""A folder with a small data set and a search space, and real `sweep` processes in it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.support.cli import command, environment

SPACE = """\
study: question
data: {{layout: challenge, root: garments, crop: box}}
budget: {{trials: {trials}}}
search: {search}
train:
  backbone: {backbone}
  pretrained: false
  image_size: 32
  loss: {{name: focal, gamma: {{uniform: [0.0, 5.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
  schedule: {{choice: [constant, {{name: step, every: {{int: [1, 5]}}}}]}}
  epochs: {epochs}
"""
QUICK = "{sampler: tpe, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}}"
CLIMB = "{sampler: tpe, pruner: {name: asha, reduction_factor: 2}}"
PATIENCE = 120.0  # seconds for a sweep to end


@dataclass(frozen=True)
class Ended:
    """What a person saw of a command that is over."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


@dataclass
class Running:
    """A command under way; its stderr is collected, for whoever waits for a line."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    change: threading.Condition = field(default_factory=threading.Condition)
    readers: list[threading.Thread] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def listen(self) -> None:
        for stream, kept in ((self.process.stderr, self.lines), (self.process.stdout, self.out)):
            reader = threading.Thread(target=self._read, args=(stream, kept), daemon=True)
            self.readers.append(reader)
            reader.start()

    def _read(self, stream: IO[str], kept: list[str]) -> None:
        for line in stream:
            with self.change:
                kept.append(line)
                self.change.notify_all()
        with self.change:
            self.change.notify_all()

    def said(self, words: str) -> int:
        """How many lines on stderr match `words`, a regular expression."""
        return sum(bool(re.search(words, line)) for line in self.lines)

    def until(self, words: str, *, times: int = 1) -> bool:
        """Wait until so many lines match `words`; False if the process ended before."""
        return self.wait_for(lambda: self.said(words) >= times)

    def wait_for(self, seen: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait for something to be seen on stderr; False if the process ended before."""
        deadline = time.monotonic() + patience
        with self.change:
            while not seen():
                if not any(one.is_alive() for one in self.readers):
                    return seen()
                if time.monotonic() > deadline:
                    raise AssertionError(f"after {patience} s it has said only:\n{''.join(self.lines)}")
                self.change.wait(0.1)
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, if it is still there."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, patience: float = PATIENCE) -> Ended:
        """Wait for the end; one that does not come fails the test, with what was said."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end in {patience} s:\n{''.join(self.lines)}") from None
        for reader in self.readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        return Ended(code, "".join(self.out), "".join(self.lines))


@dataclass(frozen=True)
class Lab:
    """A folder to run in; `home` is its mlruns."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return Path(self.env.get("SWEEP_HOME") or self.root / "mlruns")

    @property
    def study(self) -> Path:
        return self.home / "studies" / "question"

    @property
    def trials(self) -> list[Path]:
        """The folders of the trials, by number."""
        return sorted(self.study.glob("trials/[0-9]*"))

    def start(self, *words: str, **changes: str) -> Running:
        """`sweep WORDS`, under way; changes are made to its environment."""
        process = subprocess.Popen(
            command(*words),
            cwd=self.root,
            env=environment(**{"CI": "1", **self.env, **changes}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        running = Running(process)
        running.listen()
        return running

    def sweep(self, *words: str, **changes: str) -> Ended:
        """`sweep WORDS` to its end."""
        return self.start(*words, **changes).end()

    def run(self, *words: str, **changes: str) -> Ended:
        """`sweep run space.yaml --devices cpu WORDS` to its end."""
        return self.sweep(*RUN, *words, **changes)

    def begin(self, *words: str, **changes: str) -> Running:
        """The same, under way."""
        return self.start(*RUN, *words, **changes)

    def caught_up(self, **changes: str) -> Ended:
        """Bring MLflow to where the folders are, as `sweep ui` does before it serves."""
        env = environment(**{"CI": "1", **self.env, **changes})
        done = subprocess.run(
            [sys.executable, "-c", CATCH_UP], cwd=self.root, env=env, capture_output=True, text=True, timeout=PATIENCE
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def results(self) -> dict[int, dict[str, Any]]:
        """The ends on record, by number."""
        found = [folder / "result.json" for folder in self.trials]
        return {int(path.parent.name): json.loads(path.read_text()) for path in found if path.exists()}

    def processes(self) -> dict[int, str]:
        """Processes of the tool that run in this folder: pid -> command line."""
        return dict(_processes(self.root))

    def workers(self) -> list[int]:
        return [pid for pid, line in self.processes().items() if "sweeper.worker" in line]


CATCH_UP = (
    "from sweeper.store import studies; from sweeper.tracking.catching_up import catch_up;"
    " catch_up(studies.studies(), print)"
)
RUN = ("run", "space.yaml", "--devices", "cpu")


def _processes(root: Path) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "-m sweeper" in line and (folder / "cwd").readlink() == root.resolve():
                yield int(folder.name), line


def gone(lab: Lab, within: float) -> float:
    """Seconds until no process of the tool was left; fails after `within`."""
    began = time.monotonic()
    while left := lab.processes():
        if time.monotonic() - began > within:
            raise AssertionError(f"after {within} s there are still {left}")
        time.sleep(0.01)
    return time.monotonic() - began


def make(root: Path, garments: Path, **changes: object) -> Lab:
    """A lab in `root` with a copy of the data set; `changes` are the holes of SPACE, and its environment as `env`.

    An empty MLflow database beside the data set is copied, too: each sweep would make its own in seconds.
    """
    values = {"trials": 8, "search": QUICK, "epochs": 4, "backbone": "test_resnet"}
    env = {"SWEEP_FAKE_SECONDS": "0.1", **dict(changes.pop("env", {}))}  # type: ignore[call-overload]
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(garments, root / "garments")
    (root / "space.yaml").write_text(SPACE.format(**(values | changes)))
    lab = Lab(root, env)
    if (empty := garments.with_name("mlflow.db")).exists():
        lab.home.mkdir(parents=True, exist_ok=True)
        shutil.copy(empty, lab.home)
    return lab


def seeds(count: int, sample: int = 1) -> Sequence[Any]:
    """So many seeds for a parametrized test, from --first-seed on; `sample` of them are for the fast suite."""
    import pytest

    first = int(os.environ.get("FAULTS_FIRST_SEED", "0"))
    return [first + n if n < sample else pytest.param(first + n, marks=pytest.mark.many) for n in range(count)]
