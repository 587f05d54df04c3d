"""A Ray cluster on this machine, with a token, whose nodes can be killed."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STORE = str(100_000_000)  # bytes for objects, of which there are hardly any


@dataclass(frozen=True)
class Cluster:
    """Nodes of a core and a made-up GPU each; the first one is the head."""

    folder: Path  # its name is short, for Ray makes sockets in it
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What whoever joins needs."""
        token = str(self.folder / "token")
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token, "RAY_USAGE_STATS_ENABLED": "0"}

    def begin(self) -> None:
        """Start the head."""
        self._ray("--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.folder}")

    def join(self) -> int:
        """Start one more node; returns the process id of its raylet."""
        before = set(self.raylets())
        self._ray(f"--address={self.address}")
        (pid,) = set(self.raylets()) - before
        return pid

    def _ray(self, *words: str) -> None:
        fixed = ["--num-cpus=1", "--num-gpus=1", f"--object-store-memory={STORE}", "--disable-usage-stats"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *fixed]
        subprocess.run(command, env=os.environ | self.env, check=True, capture_output=True, timeout=120)

    def raylets(self) -> list[int]:
        """Process ids of the nodes' own processes, the head's first."""
        return [pid for pid, line in self.processes() if "raylet/raylet" in line]

    def head(self) -> int:
        """The process id of what all nodes ask."""
        return next(pid for pid, line in self.processes() if "gcs/gcs_server" in line)

    def actors(self) -> list[int]:
        """Process ids of the actors of a sweep."""
        raylets = set(self.raylets())
        return [pid for pid, line in _processes() if line.startswith("ray::SweepActor") and _parent(pid) in raylets]

    def processes(self) -> Iterator[tuple[int, str]]:
        """Process id and command line of all that is named after the folder, oldest first."""
        return ((pid, line) for pid, line in _processes() if f"{self.folder}/" in line)

    def end(self) -> None:
        """Kill everything; the workers of a node end with it."""
        for pid, _ in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> Iterator[tuple[int, str]]:
    for pid in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextmanager
def running(nodes: int = 2) -> Iterator[Cluster]:
    """A cluster of so many nodes; afterwards nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a socket's path has 107 bytes at most
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        cluster = Cluster(folder, found.getsockname()[1])
    try:
        cluster.begin()
        for _ in range(nodes - 1):
            cluster.join()
        yield cluster
    finally:
        cluster.end()
        _removed(folder)


def _removed(folder: Path) -> None:
    """What dies may still write for a moment."""
    deadline = time.monotonic() + 10
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < deadline)
