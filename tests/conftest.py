"""What many tests need: a folder of their own to run in, and a tiny data set to train on."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.photos import draw_photos
from tests.support.studies import close_all
from trainers.data_config import DataConfig

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: as workers have it, see executors/local
if "PYTEST_XDIST_WORKER" in os.environ:  # side by side on a few cores: a third less work in all
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell leaves it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", default="", help="where to write the table of faults (tests/faults)")
    parser.addoption("--every-seed-of", default="", help="cases of tests/faults; of the others one seed a test")
    parser.addoption("--first-seed", type=int, default=0, help="the seeds of tests/faults begin here")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("FAULTS_FIRST_SEED", str(config.getoption("first_seed")))


PROCESSES: list[str] = []  # that the test under way has started
SMALL = ("git", "uname", "lscpu")  # MLflow, torch and `platform` ask them for a word


def _process_started(event: str, args: tuple[object, ...]) -> None:
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty") and (
        not args or args[0] not in SMALL
    ):
        PROCESSES.append(f"{event} {args[0] if args else ''}")


sys.addaudithook(_process_started)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    PROCESSES.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """The marker `process` cannot lie: whatever starts one, the test itself, a fixture or the program, bears it."""
    yield
    if PROCESSES and not any(map(item.get_closest_marker, ("process", "slow", "many"))):
        pytest.fail(f"mark it with `process`, for it starts one: {PROCESSES[0]}", pytrace=False)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line: what a browser that is not here would have tested, and how to get it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if count := sum("Chromium" in str(one.longrepr) for one in skipped):
        many = f"{count} test{'s' if count > 1 else ''}"
        print(f"{many} skipped for want of Chromium: put chromium on the path (Debian: apt-get install chromium)")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test leaves behind lies in its own folder."""
    monkeypatch.setenv("SWEEP_HOME", str(tmp_path / "mlruns"))
    monkeypatch.delenv("SWEEP_TRAINER", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """The data set of `draw_photos`, drawn once; not to be written to."""
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for decoded images that all tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fake trainer; the studies that a test plays are closed after it."""
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    yield
    close_all()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it none."""
    from sweeper.tracking import client

    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_HOME", str(home))
        client.Server(print)
    return home / "mlflow.db"
