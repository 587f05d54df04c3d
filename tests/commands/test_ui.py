"""MLflow's pages, as a person opens them: a real server, a real browser."""

import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.commands import ui
from sweeper.errors import EnvironmentFault
from sweeper.store import paths
from sweeper.store.paths import StudyFolder
from sweeper.tracking import client, local_store
from sweeper.tracking.reconcile import StudyInfo
from sweeper.tracking.tracker import MlflowTracker
from sweeper.trial import Closing
from tests.support.browser import CHROMIUM, FLAGS
from tests.support.records import begin, curve, end, job
from tests.support.studies import close_all, opened, play, write

SERVE = "import sys; from sweeper.commands import ui; from sweeper.store.paths import StudyFolder\n"
SERVE += "ui.serve(StudyFolder.named('focal_weights'), lambda text: print(text, flush=True), port=int(sys.argv[1]))"

pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*")  # sqlalchemy 2.1, of mlflow 3.17's own models


def shown_study(tops: dict[int, float]) -> None:
    study = StudyFolder.named("focal_weights")
    study.root.mkdir(parents=True)
    tracker = MlflowTracker(print)
    names = ["backbone", "loss.gamma", "schedule"]
    tracker.opened(StudyInfo(study, "data/clothes", "overall_accuracy", "study: x\n", names=names))
    for number, top in tops.items():
        started = begin(job(study, number, backbone="seresnet50.ra2_in1k"))
        tracker.started(started, "cpu")
        tracker.ended(started, end(started, curve(started, top), "COMPLETE"))
    tracker.closed(Closing("COMPLETE", timeout=60))


def served(port: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SERVE, str(port)], stdout=subprocess.PIPE, text=True)


def listeners(port: int) -> set[str]:
    """Local addresses on which somebody listens at `port`, as /proc writes them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {f[1].split(":")[0] for f in fields if f[3] == "0A" and int(f[1].split(":")[1], 16) == port}


def children(pid: int) -> set[int]:
    """All processes below `pid`."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child} | children(child)
    return found


@pytest.mark.process
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_pages_open_on_the_leaderboard_on_this_machine_only_and_leave_no_process(tmp_path, database):
    paths.home().mkdir()
    shutil.copy(database, paths.database())
    shown_study({0: 0.7, 1: 0.9, 2: 0.8})
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        server = served(taken.getsockname()[1])
        try:
            address = server.stdout.readline().strip()
            port = int(address.split(":")[2].split("/")[0])
            assert port != taken.getsockname()[1]
            assert "ready" in server.stdout.readline()
            below = children(server.pid)
            assert len(below) == 2
            assert listeners(port) == {"0100007F"}
            assert rows(address, tmp_path / "leaderboard.png") == [
                "t0001 seresnet50",
                "t0002 seresnet50",
                "t0000 seresnet50",
            ]
        finally:
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate(timeout=30)
    assert (server.returncode, rest) == (0, "")
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def rows(address: str, picture: Path) -> list[str]:
    """The names in MLflow's run table from the top, once the open values are seen on a small screen."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        headers = page.get_by_role("columnheader")
        for column in ("value", "loss.gamma", "schedule"):
            header = headers.get_by_text(column, exact=True).first
            expect(header).to_be_visible(timeout=30_000)
            assert header.evaluate(UNCOVERED), column
        links = page.get_by_role("link").filter(has_text="seresnet50")
        expect(links).to_have_count(3)
        found = sorted((link.bounding_box()["y"], link.inner_text()) for link in links.all())
        page.screenshot(path=picture)
        browser.close()
    return [name for _, name in found]


UNCOVERED = """one => {
  const box = one.getBoundingClientRect();
  const seen = document.elementFromPoint(box.left + Math.min(box.width, 60) - 1, box.top + box.height / 2);
  return one.contains(seen) || seen.contains(one);
}"""


def test_a_port_that_is_taken_leads_to_the_next():
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ui.free_port(port) > port


def test_a_command_brings_the_pages_to_another_machine():
    assert ui.tunnel(5055) == f"ssh -N -L 5055:localhost:5055 {socket.gethostname()}"


def test_without_a_database_it_says_what_to_do():
    with pytest.raises(EnvironmentFault, match="nothing to show yet") as caught:
        ui.serve(None, print)
    assert "sweep run" in caught.value.help


def test_a_server_that_runs_elsewhere_is_only_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    said: list[str] = []
    ui.serve(None, said.append)
    assert said == ["http://tracking.example:5000/#/experiments"]


@pytest.mark.process
def test_a_server_that_cannot_start_brings_its_last_words():
    paths.home().mkdir(parents=True)
    paths.database().write_text("this is no database, but long enough to be taken for a broken one" * 20)
    with pytest.raises(EnvironmentFault, match="did not start"):
        ui.serve(None, print)


def test_the_server_inherits_no_setting_of_mlflow(monkeypatch):
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:////elsewhere.db")
    kept = ui.server_environment()
    assert {name for name in kept if name.startswith("MLFLOW_")} == {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_LOGGING_LEVEL",
    }


@pytest.mark.process
def test_what_mlflow_lacks_of_the_studies_here_is_sent_first(database, monkeypatch, capsys):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    paths.studies().mkdir(parents=True)
    shutil.copy(database, paths.home() / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local_store.address(paths.home() / "other.db"))
    play(opened(write(paths.studies(), epochs=3, budget="{trials: 2}", search="{sampler: random, pruner: none}")))
    close_all()
    study = StudyFolder.named("question")
    monkeypatch.setattr(ui, "START_TIMEOUT_S", 0.0)  # the pages themselves are another test's
    said: list[str] = []
    with pytest.raises(EnvironmentFault, match="did not start"):
        ui.serve(study, said.append)
    assert "sent 2 runs and 6 epochs of question to MLflow" in capsys.readouterr().err
    assert client.link(study, "http://127.0.0.1") in re.sub(r"127.0.0.1:\d+", "127.0.0.1", said[0])


def test_a_database_of_a_newer_mlflow_is_said_before_a_server_starts(database):
    paths.home().mkdir(parents=True)
    shutil.copy(database, paths.database())
    with closing(sqlite3.connect(paths.database())) as link, link:
        link.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    with pytest.raises(EnvironmentFault, match="is from another MLflow") as caught:
        ui.serve(None, print)
    assert "`sweep run` or `sweep ui` creates a new one from the run folders" in caught.value.help
