"""The scripts of examples/slurm on a real Slurm of one node: jobs wait, run out of time, are cancelled, finish."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import slurm
from tests.support.slurm import Cluster

ROOT = Path(__file__).parents[1]
EPOCHS, TRIALS = 10, 8
SPACE = f"""\
data: {{layout: challenge, root: data/demo}}
budget: {{trials: {TRIALS}}}
search: {{pruner: none}}
train:
  backbone: test_resnet
  pretrained: false
  optimizer: {{name: adamw, lr: {{loguniform: [1e-4, 1e-2]}}}}
  epochs: {EPOCHS}
"""
OPTIONS = ["--gres=none", "--cpus-per-task=1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        bool(slurm.MISSING),
        reason=f"no {', '.join(slurm.MISSING)} here (Debian: apt-get install slurmctld slurmd munge)",
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm.running() as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set, a search space and the scripts; jobs take the environment of `sbatch`."""
    for name in ("sweep.sbatch", "ray.sbatch"):
        shutil.copy(ROOT / "examples" / "slurm" / name, tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("SWEEP_HOME")
    subprocess.run(["sweep", "data", "demo", "data/demo", "--images", "20", "8", "4"], cwd=tmp_path, check=True)
    return tmp_path


def state(cluster: Cluster, job: int) -> str:
    return cluster.job(job)["JobState"]


def trials(project: Path, study: str) -> dict[int, list[int]]:
    """The epochs on record of each trial."""
    folders = sorted((project / "mlruns" / "studies" / study / "trials").glob("*"))
    return {int(one.name): [json.loads(line)["number"] for line in _lines(one / "history.jsonl")] for one in folders}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_complete(project: Path, study: str) -> bool:
    """Every trial is there once, with each epoch once."""
    return trials(project, study) == {number: list(range(1, EPOCHS + 1)) for number in range(TRIALS)}


def log(project: Path, job: int) -> str:
    text = (project / f"sweep-{job}.log").read_text()
    print(f"--- sweep-{job}.log\n{text}")
    return text


def test_a_job_waits_for_another_and_both_finish(cluster: Cluster, project: Path):
    first = cluster.submit(project, *OPTIONS, "sweep.sbatch", "space.yaml", "--set", "study=first")
    second = cluster.submit(project, *OPTIONS, "sweep.sbatch", "space.yaml", "--set", "study=second")
    cluster.wait(lambda: state(cluster, first) == "RUNNING", 60)
    assert (state(cluster, second), cluster.job(second)["Reason"]) in (("PENDING", "Resources"), ("PENDING", "None"))
    cluster.wait(lambda: state(cluster, second) == "COMPLETED", 300)
    assert state(cluster, first) == "COMPLETED"
    assert is_complete(project, "first")
    assert is_complete(project, "second")


def test_a_job_at_its_time_limit_joins_the_queue_and_resumes(cluster: Cluster, project: Path, monkeypatch):
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "1.5")  # two minutes in all, and the signal comes within the first one
    options = [*OPTIONS, "--time=2", "--signal=B:USR1@60"]
    job = cluster.submit(project, *options, "sweep.sbatch", "space.yaml")
    cluster.wait(lambda: cluster.job(job)["Restarts"] != "0", 180)
    before = trials(project, "space")
    cluster.wait(lambda: state(cluster, job) not in ("RUNNING", "PENDING", "COMPLETING"), 900)
    text = log(project, job)
    assert state(cluster, job) == "COMPLETED"
    assert f"job {job} joins the queue again" in text
    assert any(before.values())
    assert all(trials(project, "space")[number][: len(epochs)] == epochs for number, epochs in before.items())
    assert is_complete(project, "space")


@pytest.mark.parametrize("gently", [True, False])
def test_a_job_that_is_cancelled_is_resumed_by_the_next_job(
    cluster: Cluster, project: Path, monkeypatch, gently: bool
):
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "1")
    job = cluster.submit(project, *OPTIONS, "sweep.sbatch", "space.yaml")
    cluster.wait(lambda: len(trials(project, "space").get(1, [])) >= 2, 120)
    cluster.call("scancel", *(["--signal=USR2", "--batch"] if gently else []), str(job))
    cluster.wait(lambda: state(cluster, job) == ("FAILED" if gently else "CANCELLED"), 60)
    cluster.wait(lambda: "resume: sweep run space.yaml" in (project / f"sweep-{job}.log").read_text(), 60)
    assert cluster.job(job)["Restarts"] == "0"
    text = log(project, job)
    assert "joins the queue" not in text
    assert "the worker was killed" not in text
    monkeypatch.setenv("SWEEP_FAKE_SECONDS", "0")
    again = cluster.submit(project, *OPTIONS, "sweep.sbatch", "space.yaml")
    cluster.wait(lambda: state(cluster, again) == "COMPLETED", 120)
    assert is_complete(project, "space")
    log(project, again)


def test_a_sweep_trains_on_a_ray_cluster_inside_a_job(cluster: Cluster, project: Path):
    pytest.importorskip("ray")
    job = cluster.submit(project, *OPTIONS, "--nodes=1", "ray.sbatch", "space.yaml")
    cluster.wait(lambda: state(cluster, job) not in ("RUNNING", "PENDING", "COMPLETING"), 300)
    text = log(project, job)
    assert state(cluster, job) == "COMPLETED", text
    assert is_complete(project, "space")
    assert not list(project.glob(".ray-token-*"))
