"""`sweep ui`: serve MLflow's pages on this machine until Ctrl-C. MLflow itself runs in a process of its own."""

import os
import shlex
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from sweeper.errors import EnvironmentFault
from sweeper.store import paths, studies
from sweeper.store.paths import StudyFolder
from sweeper.system import subprocesses
from sweeper.system.interrupt import stoppable
from sweeper.terminal.output import print_message
from sweeper.tracking import catching_up, client
from sweeper.tracking.local_store import address, trouble

HOST, PORT, PORTS = "127.0.0.1", 5000, 50
SHUTDOWN_GRACE_S = 5.0  # seconds for the server to exit by itself
START_TIMEOUT_S = 90.0  # seconds for its first answer
APP = sysconfig.get_path("stdlib")  # where its web server looks for modules first; by default, the current folder


def serve(study: StudyFolder | None, say: Callable[[str], None], *, port: int = PORT) -> None:
    """Serve MLflow until Ctrl-C or SIGTERM, and pass the address of `study` to `say` first. Leaves no process behind.

    Data that MLflow lacks is sent first. Only this machine can connect. If `port` is taken, the next free port is
    used. If MLFLOW_TRACKING_URI names a server, nothing is started and only the address is shown.
    """
    store = client.uri()
    if store == address(paths.database()):
        _refuse_unusable()
    catching_up.catch_up(studies.studies(), print_message, beside=True)
    if store.startswith("http"):
        return say(_address(study, store))
    with stoppable(), _serving(store, free_port(port)) as pages:
        say(_address(study, pages.base))
        pages.await_answer()
        say("MLflow is ready; Ctrl-C ends it")
        print_message(f"from another machine: run {tunnel(pages.port)} there and open the same address")
        pages.server.wait()
        raise EnvironmentFault(f"MLflow's server exited unexpectedly: {pages.last_words()}", where=pages.base)
    return None


def _refuse_unusable() -> None:
    """Raise EnvironmentFault if there is nothing to show, or the database is of another MLflow version."""
    database = paths.database()
    if not database.exists() and not studies.studies():
        help = "start a sweep: sweep run SPACE.yaml"
        raise EnvironmentFault("there is nothing to show yet", where=str(database), help=help)
    if found := trouble(database):
        raise EnvironmentFault(found[0], where=str(database), help=found[1])


def tunnel(port: int) -> str:
    """Return the command that forwards a port of this machine to another, without opening it to the network."""
    return f"ssh -N -L {port}:localhost:{port} {socket.gethostname()}"


def _address(study: StudyFolder | None, base: str) -> str:
    return (client.link(study, base) if study else None) or f"{base}/#/experiments"


def free_port(first: int) -> int:
    """Return `first`, or the next port that is free."""
    for port in range(first, min(first + PORTS, 65536)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
            return port
    raise EnvironmentFault(f"ports {first} to {first + PORTS - 1} are in use", help="choose another with --port")


@dataclass(frozen=True)
class _Pages:
    """MLflow's server: its process, its port, and its output."""

    server: subprocess.Popen[bytes]
    port: int
    words: IO[bytes]

    @property
    def base(self) -> str:
        return f"http://{HOST}:{self.port}"

    def await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.server.poll() is None and time.monotonic() < deadline:
            try:
                with straight.open(f"{self.base}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise EnvironmentFault(f"MLflow's server did not start: {self.last_words()}", where=self.base)

    def last_words(self) -> str:
        self.words.seek(0)
        lines = self.words.read().decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
        code = self.server.returncode
        return f"no answer within {START_TIMEOUT_S:g} s" if code is None else f"exit code {code}"

    def end(self) -> None:
        """Stop the server and every process that it started."""
        self._signal(signal.SIGTERM)
        try:
            self.server.wait(SHUTDOWN_GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self.server.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
            os.killpg(self.server.pid, number)


@contextmanager
def _serving(store: str, port: int) -> Iterator[_Pages]:
    """Run MLflow's server with one worker, in a process group that is killed afterwards."""
    command = subprocesses.python("-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port))
    command += ["--backend-store-uri", store, "--default-artifact-root", paths.artifacts().as_uri()]
    command += ["--uvicorn-opts", f"--log-level warning --app-dir {shlex.quote(APP)}"]
    with tempfile.TemporaryFile() as words:
        server = subprocess.Popen(
            command,
            env=server_environment(),
            start_new_session=True,
            stdout=words,
            stderr=subprocess.STDOUT,
            preexec_fn=subprocesses.end_with_us(signal.SIGTERM),  # it then ends its own processes
        )
        pages = _Pages(server, port, words)
        try:
            yield pages
        finally:
            pages.end()


def server_environment() -> dict[str, str]:
    """Return our environment without stray MLflow settings, plus quiet ones that save memory (0.5, not 3.4 GB)."""
    kept = {name: value for name, value in subprocesses.environment().items() if not name.startswith("MLFLOW_")}
    return kept | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }
