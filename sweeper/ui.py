"""MLflow's pages, served on this machine for as long as someone looks. MLflow itself runs in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sweeper import paths, tracking
from sweeper.errors import EnvironmentFault
from sweeper.paths import StudyFolder

HOST, PORT, PORTS = "127.0.0.1", 5000, 50
GRACE = 5.0  # seconds that the server gets to end by itself
STARTING = 90.0  # seconds that it gets to answer


def serve(study: StudyFolder | None, say: Callable[[str], None], *, port: int = PORT) -> None:
    """Show MLflow until Ctrl-C or SIGTERM; `say` is told first where `study` opens. Afterwards no process is left.

    Only this machine can connect. The next free port is taken when `port` is not. Where MLFLOW_TRACKING_URI names
    a server, there is nothing to start, and only the address is told.
    """
    remote = tracking.uri()
    if remote.startswith("http"):
        return say(_address(study, remote))
    with _stoppable(), _server(remote, free_port(port)) as (server, base):
        say(_address(study, base))
        _wait_until_it_answers(server, base)
        say("MLflow is ready; Ctrl-C ends it")
        server.wait()
        raise EnvironmentFault(f"MLflow's server ended by itself, with code {server.returncode}", where=base)


def _address(study: StudyFolder | None, base: str) -> str:
    return (tracking.link(study, base) if study else None) or f"{base}/#/experiments"


def free_port(first: int) -> int:
    """`first`, or the next port on which nobody listens."""
    for port in range(first, min(first + PORTS, 65536)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
            return port
    raise EnvironmentFault(f"ports {first} to {first + PORTS - 1} are taken", help="choose another with --port")


@contextmanager
def _server(store: str, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """MLflow's server with one worker, and its address; its whole process group is gone afterwards."""
    if store == f"sqlite:///{paths.database()}" and not paths.database().exists():
        raise EnvironmentFault(
            "there is nothing to show yet", where=str(paths.database()), help="start a sweep: sweep run SPACE.yaml"
        )
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", HOST, "--port", str(port)]
    command += ["--backend-store-uri", store, "--default-artifact-root", paths.artifacts().as_uri()]
    command += ["--uvicorn-opts", "--log-level warning"]
    server = subprocess.Popen(command, env=_environment(), start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        yield server, f"http://{HOST}:{port}"
    finally:
        _end(server)


def _environment() -> dict[str, str]:
    """Ours without any stray setting of MLflow's, and what keeps it small (0.5 instead of 3.4 GB) and discreet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and every process it started."""
    _signal(server, signal.SIGTERM)
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(server, signal.SIGKILL)
        server.wait()


def _signal(server: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(server.pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return


def _wait_until_it_answers(server: subprocess.Popen[bytes], base: str) -> None:
    deadline = time.monotonic() + STARTING
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2):  # noqa: S310  (our own address)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how this is meant to end: both leave the block quietly."""

    def hear(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, old in before.items():
            signal.signal(number, old)
