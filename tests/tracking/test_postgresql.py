"""MLflow and Optuna in PostgreSQL, as docs/how-to/mlflow.md has it: a real server, where one is installed."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from sweeper.store import paths, studies
from sweeper.tracking import catching_up
from tests.support import pages
from tests.support.studies import close_all, opened, play, write

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "mlflow.md"
BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), Path("/usr/bin"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BIN / "initdb").exists(), reason="no PostgreSQL here (Debian: apt-get install postgresql)"
    ),
    pytest.mark.skipif(find_spec("psycopg2") is None, reason="no psycopg2 here: pip install psycopg2-binary"),
    pytest.mark.filterwarnings("ignore:.*noload.*"),  # sqlalchemy 2.1, of mlflow 3.17's own models
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(mlflow|google|starlette|alembic).*"),
]


class PostgreSQL:
    """A server of its own in a folder of its own; it does not run as root."""

    def __init__(self, home: Path) -> None:
        self.data, self.sockets = home / "data", home
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def call(self, program: str, *words: str) -> str:
        within = ["runuser", "-u", self.user, "--"] if os.getuid() == 0 else []
        command = [*within, str(BIN / program), *words]
        ended = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def start(self) -> None:
        self.call("initdb", "-D", str(self.data), "--auth", "trust", "--no-sync")
        options = f"-p {self.port} -k {self.sockets} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.call("pg_ctl", "-D", str(self.data), "-o", options, "-l", str(self.data / "log"), "-w", "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def sql(self, database: str, query: str) -> str:
        return self.call("psql", "-h", "127.0.0.1", "-p", str(self.port), "-At", "-c", query, database)

    def here(self, text: str) -> str:
        """What the page says, of this server."""
        return text.replace("me@db.example", f"{self.user}@127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory(prefix="sweep-pg-") as home:
        found = PostgreSQL(Path(home))
        found.start()
        try:
            for name in ("mlflow", "optuna"):
                found.sql("postgres", f"CREATE DATABASE {name}")
            yield found
        finally:
            found.stop()


@pytest.fixture
def swept(faked) -> None:
    """The study `quickstart`, of three trials."""
    paths.studies().mkdir(parents=True)
    path = write(paths.studies(), epochs=2, budget="{trials: 3}", search="{sampler: random, pruner: none}")
    play(opened(path))
    close_all()


def block(word: str) -> str:
    """The shell block of the page that has `word` in it."""
    (found,) = [one for one in pages.blocks(pages.read(HOW_TO), "sh") if word in one]
    return found


def test_mlflow_in_postgresql_gets_every_study(server, swept, monkeypatch):
    (line, *_) = block("db.example/mlflow").splitlines()
    name, _, value = line.removeprefix("export ").partition("=")
    monkeypatch.setenv(name, server.here(value))
    said: list[str] = []
    catching_up.catch_up(studies.studies(), said.append)
    assert said == ["sent 3 runs and 6 epochs of question to MLflow"]
    assert server.sql("mlflow", "SELECT count(*) FROM runs") == "4"
    assert server.sql("mlflow", "SELECT count(*) FROM metrics WHERE key = 'val_loss'") == "6"
    said.clear()
    catching_up.catch_up(studies.studies(), said.append)
    assert said == []


def test_a_study_is_copied_into_postgresql_for_optuna_dashboard(server, tmp_path):
    import optuna

    place = tmp_path / "mlruns" / "studies" / "quickstart" / "study.db"
    place.parent.mkdir(parents=True)
    made = optuna.create_study(study_name="quickstart", storage=f"sqlite:///{place}")
    made.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=3)
    command, dashboard = server.here(block("copy_study")).rsplit("\n", 2)[:2]
    code = command.split('"')[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    storage = dashboard.removeprefix("optuna-dashboard ")
    assert len(optuna.load_study(study_name="quickstart", storage=storage).trials) == 3
