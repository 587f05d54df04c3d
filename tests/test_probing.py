"""The probe before a sweep: what it asks, what it queues, and that it happens once in the life of a study."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import lay_out
from played import close_all, opened, write

from sweeper import dataset, launch, probing, record, spec
from sweeper.devices import Slot
from sweeper.errors import EnvironmentFault, UserError
from sweeper.options import Options
from sweeper.paths import StudyFolder
from sweeper.search import Probe
from sweeper.space import Space
from sweeper.stop import Stop

ASKED = "search.probe={candidates: 6, keep: 0.5, epochs: 2}"
OPTIONS = Options((ASKED,), devices="cpu", inline=True, mlflow=False)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("ground"))


@pytest.fixture
def here(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a data set and a space, as the current one."""
    monkeypatch.chdir(ground)
    before = dict(os.environ)
    yield ground / "space.yaml"
    close_all()
    os.environ.clear()
    os.environ.update(before)


def verdict(score: float | None = None, *, diverged: bool = False, unjudged: str = "") -> dict[str, Any]:
    return {"score": score, "diverged": diverged, "unjudged": unjudged}


# ------------------------------------------------------------------------------------ what is asked
def test_candidates_are_the_defaults_then_different_draws_of_the_seed(tmp_path):
    def drawn(seed: int) -> list[probing.Params]:
        read = spec.read(write(tmp_path), sets=[f"search.seed={seed}"])
        return probing.candidates(read.search, Space(read, ["pattern"]), Probe(candidates=20))

    space = Space(spec.read(write(tmp_path)), ["pattern"])
    first, again, other = drawn(0), drawn(0), drawn(1)
    assert first[:2] == space.default()
    assert len({json.dumps(one, sort_keys=True) for one in first}) == len(first) == 20
    assert first == again
    assert first[2:] != other[2:]


def test_a_space_of_few_configurations_gives_each_once(tmp_path):
    path = write(tmp_path, backbone="resnet18", loss="{choice: [focal, dice]}", optimizer="adamw")
    read = spec.read(path)
    assert len(probing.candidates(read.search, Space(read, []), Probe(candidates=20))) == 2


def test_a_grid_has_nothing_to_probe(tmp_path):
    with pytest.raises(UserError, match="a grid tries every configuration"):
        spec.read(write(tmp_path, search="{sampler: grid, probe: {candidates: 4}}"))


# --------------------------------------------------------------------------------- what is queued
def test_the_best_share_is_kept_the_best_first():
    assert probing.kept([verdict(s) for s in (0.1, 0.4, 0.3, 0.2)], 0.5) == [1, 2]
    assert probing.kept([verdict(s) for s in (0.1, 0.4, 0.3)], 0.5) == [1, 2]
    assert probing.kept([verdict(s) for s in (0.3, 0.3, 0.3, 0.3)], 0.5) == [0, 1]


def test_what_diverged_is_never_queued_and_counts_among_the_hopeless():
    ruined = verdict(diverged=True)
    assert probing.kept([ruined, verdict(0.1), ruined, verdict(0.2)], 0.5) == [3, 1]
    assert probing.kept([ruined, verdict(0.1), ruined], 1.0) == [1]


def test_what_the_probe_cannot_judge_goes_through_among_the_others():
    blind = verdict(unjudged="query2label needs the map")
    assert probing.kept([blind, verdict(0.1), verdict(0.4), blind, verdict(0.2), verdict(0.3)], 0.5) == [2, 0, 5, 3]
    assert probing.kept([blind, blind], 0.5) == [0, 1]


# ------------------------------------------------------------------------------------- in a sweep
@pytest.mark.slow
def test_a_sweep_tries_the_defaults_then_the_best_candidates_of_the_probe(here, capfd):
    launch.run(here, OPTIONS)
    folder = StudyFolder.named("question")
    document = json.loads(folder.probe.read_text())
    scored = document["scored"]
    assert len(scored) == 6
    tried = [result.params for result in record.results(folder)]
    queued = sorted((one for one in scored if one["place"] is not None), key=lambda one: one["place"])
    assert tried == [scored[0]["params"], *(one["params"] for one in queued)]
    worst_kept = min(one["score"] for one in queued)
    assert all(one["score"] <= worst_kept for one in scored[1:] if one["place"] is None)
    said = capfd.readouterr().err
    assert "probe: 6 candidates on frozen features on cpu" in said
    assert f"the best {len(queued)} are queued" in said
    values = [result.value for result in record.results(folder)]
    known = {json.dumps(one["params"]): one["score"] for one in scored}
    expected = probing.tau([known[json.dumps(one)] for one in tried], [value or 0 for value in values])
    assert (document["tau"], document["trials"]) == (expected, 3)


@pytest.mark.slow
def test_no_more_is_queued_than_the_budget_has_trials(here):
    sets = ("search.probe={candidates: 6, keep: 1.0, epochs: 1}", "budget.trials=3")
    prepared = launch.prepare(here, Options(sets, devices="cpu"))
    dataset.decode(prepared.table, prepared.spec.data)
    assert len(probing.queue(prepared, Slot("cpu"), Stop())) == 2


def test_a_study_is_probed_once_in_its_life(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    path = write(tmp_path, backbone="resnet18", schedule="constant")
    chosen = [{"loss.gamma": gamma, "optimizer.lr": 0.01} for gamma in (1.5, 4.5)]
    asked: list[int] = []

    def queue() -> list[probing.Params]:
        asked.append(1)
        return chosen

    for _ in range(2):
        study = opened(path)
        study.enqueue(queue)
        study.close()
    assert len(asked) == 1
    study = opened(path)
    jobs = [study.next_job() for _ in range(4)]
    assert [job.params for job in jobs if job][1:3] == chosen
    assert jobs[3] is not None
    assert jobs[3].params not in chosen
    study.close()


def test_a_kill_while_candidates_are_queued_loses_and_doubles_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    path = write(tmp_path, backbone="resnet18", schedule="constant")
    chosen = [{"loss.gamma": gamma, "optimizer.lr": 0.01} for gamma in (1.5, 3.0, 4.5)]

    def broken() -> Iterator[probing.Params]:
        yield from chosen[:2]
        raise KeyboardInterrupt

    study = opened(path)
    with pytest.raises(KeyboardInterrupt):
        study.enqueue(broken)
    study.close()
    study = opened(path)
    study.enqueue(lambda: chosen)
    jobs = [study.next_job() for _ in range(5)]
    assert [job.params for job in jobs if job][1:4] == chosen
    assert jobs[4] is not None
    assert jobs[4].params not in chosen
    study.close()


def test_a_study_without_a_probe_runs_none(here, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    launch.run(here, Options(devices="cpu", inline=True, mlflow=False))
    assert not StudyFolder.named("question").probe.exists()


@pytest.mark.slow
def test_a_probe_that_dies_leaves_a_study_that_can_go_on(here, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(probing, "MODULE", "trainers.no_such_module")
        with pytest.raises(EnvironmentFault, match="the probe died with code 1"):
            launch.run(here, OPTIONS)
    assert not StudyFolder.named("question").probe.exists()
    assert launch.run(here, OPTIONS).exit_code == 0
    assert StudyFolder.named("question").probe.exists()


@pytest.mark.slow
def test_a_signal_ends_the_probe_at_once_and_the_same_command_begins_it_again(here, tmp_path):
    command = [sys.executable, "-m", "sweeper.cli", "run", "space.yaml", "--no-mlflow", "--devices", "cpu"]
    slow = [*command, "--set", "search.probe={candidates: 6, epochs: 1000000}"]
    environment = {**os.environ, "SWEEP_HOME": str(tmp_path / "mlruns")}
    with subprocess.Popen(slow, env=environment, stderr=subprocess.PIPE, text=True) as sweep:
        assert sweep.stderr is not None
        while "candidates on frozen features" not in (line := sweep.stderr.readline()):
            assert line
        began = time.monotonic()
        sweep.send_signal(signal.SIGTERM)
        rest = sweep.stderr.read()
    assert sweep.returncode == 143
    assert time.monotonic() - began < 10
    assert "the same command begins it again" in rest
    assert not (tmp_path / "mlruns/studies/question/probe.json").exists()


# --------------------------------------------------------------------------------------------- tau
def test_tau_is_kendalls():
    assert probing.tau([1, 2, 3], [2, 4, 9]) == pytest.approx(1)
    assert probing.tau([1, 2, 3], [9, 4, 2]) == pytest.approx(-1)
    assert probing.tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)  # one pair of six is turned
    assert probing.tau([1, 1, 2, 3], [1, 2, 2, 3]) == pytest.approx(4 / 5)  # tau-b: 4 / sqrt(5 x 5)
    assert probing.tau([1, 1, 1], [1, 2, 3]) is None
