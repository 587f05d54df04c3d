"""The executor and the observer that the documents build, in the real loop."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from sweeper.engine import loop
from sweeper.executors.inline import Inline
from sweeper.store import records
from sweeper.system.signals import Stop
from tests.support import pages
from tests.support.studies import QUICK, Seen, opened, outcome, write

pytestmark = pytest.mark.usefixtures("faked")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "contribute-kinds.md"


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """What the Python of that page defines."""
    (tmp_path / "made.py").write_text("\n".join(pages.blocks(pages.read(PAGE), "python")))
    return runpy.run_path(str(tmp_path / "made.py"))


def test_both_take_part_in_a_sweep(tmp_path, made):
    study = opened(write(tmp_path, search=QUICK, epochs=3))
    table = made["TrialTable"](study.folder, tmp_path / "table.csv")
    ended = loop.run(study, made["Threads"](2), table, stop=Stop())
    results = records.results(study.folder)
    study.close()
    assert ended == loop.SessionEnd(0)
    assert {one.state for one in results} == {"COMPLETE", "PRUNED"}
    rows = [f"{one.number},{one.state},{one.value}" for one in results]
    assert (tmp_path / "table.csv").read_text().splitlines() == ["trial,state,value", *rows]


def test_that_executor_gives_the_trials_that_ours_gives(tmp_path, made):
    results = []
    for name, executor in (("inline", Inline()), ("threads", made["Threads"](1))):
        (tmp_path / name).mkdir()
        study = opened(write(tmp_path / name, search=QUICK, epochs=3))
        loop.run(study, executor, Seen(), stop=Stop())
        study.close()
        results.append(outcome(study))
    assert results[0] == results[1]
