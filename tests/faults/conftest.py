"""How a case of the matrix counts, and the table that a run writes of itself."""

import json
import os
import platform
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from tests.faults.cases import CASES
from tests.faults.invariants import Reference
from tests.support.processes import Lab, make
from trainers.data.demo import draw

HEAD = """\
# The fault matrix

`make test-faults` writes this page. The last run: {selection}, {count} tests in {minutes:.0f} minutes on {cores}
cores, {day}, commit {commit}, seeds from {first} on.

A case provokes a fault for real, with processes, files, servers and databases. Afterwards, one function
(`tests/faults/invariants.py`) checks that

- **I1** every finished trial keeps its number, parameters and value;
- **I2** no number is used twice, and no configuration is evaluated to the end twice;
- **I3** the history has every epoch once;
- **I4** every checkpoint loads, and its checksum matches;
- **I5** MLflow equals the folders: the same points, the right outcomes, nothing RUNNING without a worker;
- **I6** no process of the tool is left, and no temporary file;
- **I7** the exit code and the last message are as promised;
- **I8** the best trial is that of a run without the fault.

A case without invariants is about something that must not start. Its tests state the details.

| case | what is done | tests | kills | failed | invariants that were checked |
|---|---|--:|--:|--:|---|
"""


@dataclass
class Case:
    """What one test did and saw."""

    kills: int = 0
    invariants: set[str] = field(default_factory=set)

    def held(self, *names: str) -> None:
        """Note invariants that were looked at and hold."""
        self.invariants |= set(names)


@pytest.fixture
def case() -> Case:
    """Counts for the table; a test without the mark `fault` has no place in it."""
    return Case()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put what a test counted into its report, before that is made."""
    one = getattr(item, "funcargs", {}).get("case")
    if call.when == "call" and isinstance(one, Case):
        item.user_properties.append(("case", json.dumps([one.kills, sorted(one.invariants)])))


@pytest.fixture(autouse=True)
def _no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab gives its processes an environment of their own."""
    monkeypatch.delenv("SWEEP_HOME", raising=False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            item.user_properties.append(("fault", mark.args[0]))
    if whole := config.getoption("every_seed_of").split():
        dropped = [one for one in items if one.get_closest_marker("many") and not _of(one, whole)]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [one for one in items if one not in set(dropped)]


def _of(item: pytest.Item, cases: list[str]) -> bool:
    return any(mark.args[0] in cases for mark in item.iter_markers("fault"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table, where one is asked for."""
    path = config.getoption("table")
    if path and not hasattr(config, "workerinput"):
        reports = [one for kind in ("passed", "failed", "error") for one in terminalreporter.stats.get(kind, [])]
        began = getattr(terminalreporter, "_sessionstarttime", None) or terminalreporter._session_start.time
        seconds = datetime.now(UTC).timestamp() - began
        chosen = config.getoption("every_seed_of")
        selection = f"every seed of {chosen}, of each other test one" if chosen else "the whole matrix"
        Path(path).write_text(_page(reports, seconds, config.getoption("first_seed"), selection))


def _page(reports: list[pytest.TestReport], seconds: float, first: int, selection: str) -> str:
    """docs/explanation/faults.md."""
    rows: dict[str, list[tuple[bool, int, set[str]]]] = defaultdict(list)
    for report in reports:
        given = dict(report.user_properties)
        if "fault" in given and (report.when == "call" or report.failed):
            kills, held = json.loads(given.get("case", "[0, []]"))
            rows[given["fault"]].append((report.failed, kills, set(held)))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    head = HEAD.format(
        count=sum(map(len, rows.values())),
        minutes=seconds / 60,
        cores=os.cpu_count(),
        day=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=commit or "unknown",
        first=first,
        selection=selection,
    )
    return (
        head + "".join(_row(name, rows.get(name, [])) for name in CASES) + f"\nPython {platform.python_version()}.\n"
    )


def _row(name: str, done: list[tuple[bool, int, set[str]]]) -> str:
    held = sorted(set().union(*(invariants for _, _, invariants in done)))
    kills, failed = sum(count for _, count, _ in done), sum(bad for bad, _, _ in done)
    return f"| {name} | {CASES[name]} | {len(done) or 'not run'} | {kills or ''} | {failed} | {' '.join(held)} |\n"


# ------------------------------------------------------------------------------------------- the lab
@pytest.fixture(scope="session")
def garments(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """A drawn data set, to be copied, and beside it an empty MLflow database."""
    root = tmp_path_factory.mktemp("drawn") / "garments"
    draw(root, images=(30, 12, 6), seed=0)
    shutil.copy(database, root.parent)
    return root


@pytest.fixture
def lab(tmp_path: Path, garments: Path) -> Lab:
    """Eight trials of four epochs with TPE and the median pruner, by the fake trainer."""
    return make(tmp_path, garments)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, garments: Path) -> Callable[..., Reference]:
    """What such a sweep comes to without a fault; asked once for each set of changes to the space."""

    @cache
    def ask(**changes: object) -> Reference:
        whole = make(tmp_path_factory.mktemp("whole"), garments, env={"SWEEP_FAKE_SECONDS": "0"}, **changes)
        ended = whole.run("--no-mlflow")
        assert ended.code == 0, ended.err
        return Reference.of(whole)

    return ask
