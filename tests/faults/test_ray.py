"""A cluster: its workers, its actors, its nodes, its head and the sweep itself are killed, and nothing is lost."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib import util

import pytest

from tests.faults.invariants import check
from tests.support import cluster as clusters
from tests.support.cli import command, environment
from tests.support.cluster import Cluster
from tests.support.processes import Ended, Lab, Running, gone, make, seeds

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray>=2.50'"),
]
EPOCH = r"(?<! after) epoch \d+/"  # an epoch that ends, not one after which a trial goes on
HIT = r"trial (\d+) interrupted"
LAST = "next:   sweep best question --export submission"
SPACE = {
    "search": "{sampler: random, pruner: none}",
    "trials": 8,
}  # side by side, what is drawn must not depend on ends


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Two nodes that outlive a test."""
    with clusters.running() as cluster:
        yield cluster


@pytest.fixture
def own() -> Iterator[Cluster]:
    """Two nodes that a test may kill."""
    with clusters.running() as cluster:
        yield cluster


def lay_out(tmp_path, garments, cluster: Cluster, seconds: str = "0.3") -> Lab:
    return make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": seconds, **cluster.env}, **SPACE)


def begin(lab: Lab, cluster: Cluster, *words: str) -> Running:
    return lab.start("run", "space.yaml", "--ray", cluster.address, "--no-mlflow", *words)


def under_way(lab: Lab, cluster: Cluster) -> Running:
    """A sweep on the cluster: trial 1 is at work, on its own node, trial 0 is or has just ended."""
    running = begin(lab, cluster)
    running.until(r"trial 1 epoch 2/")
    return running


def assassin(running: Running, victims: Callable[[], list[int]], draw: random.Random, count: int) -> int:
    """SIGKILL so many of the victims, each trial no more than once an epoch; returns how many were hit."""
    killed = 0
    while killed < count and running.until(EPOCH, times=running.said(EPOCH) + 1):
        time.sleep(draw.uniform(0.0, 0.1))
        before, told = running.said(HIT), running.said(EPOCH)
        for pid in draw.sample(there := victims(), k=min(1, len(there))):
            os.kill(pid, signal.SIGKILL)
            killed += 1
        running.wait_for(lambda: running.said(HIT) > before or running.said(EPOCH) > told + 3)  # noqa: B023
        if running.said(HIT) > before:
            recovered(running)
    return killed


def recovered(running: Running) -> None:
    """Wait until the trial that was hit last has told its next epoch."""
    at, trial = [(at, hit[1]) for at, line in enumerate(running.lines) if (hit := re.search(HIT, line))][-1]
    running.wait_for(lambda: any(f" trial {trial} epoch " in line for line in running.lines[at:]))


@pytest.mark.fault("R1")
@pytest.mark.parametrize("what", ["actor", "worker"])
@pytest.mark.parametrize("seed", seeds(2, sample=0))
def test_workers_and_actors_killed_at_random_times_lose_an_epoch_at_most(
    tmp_path, garments, reference, case, shared, what, seed
):
    lab, draw = lay_out(tmp_path, garments, shared, "0.1"), random.Random(f"R1 {what} {seed}")
    victims: Callable[[], list[int]] = lab.workers if what == "worker" else shared.actors
    running = begin(lab, shared)
    case.kills += assassin(running, victims, draw, 8)
    ended = running.end()
    assert "\x1b" not in ended.err + ended.out
    assert "(raylet)" not in ended.err, ended.err
    check(case, lab, ended=ended, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.many
@pytest.mark.parametrize("seed", seeds(2))
def test_a_sweep_killed_on_a_cluster_leaves_nothing_behind_and_goes_on(
    tmp_path, garments, reference, case, shared, seed
):
    lab, draw = lay_out(tmp_path, garments, shared, "0.1"), random.Random(f"R1 sweep {seed}")
    for _ in range(3):
        running = begin(lab, shared)
        running.until(EPOCH, times=draw.randrange(1, 6))
        before = lab.results()
        running.kill()
        running.end()
        case.kills += 1
        gone(lab, within=2)
    ended = begin(lab, shared).end()
    check(case, lab, before=before, ended=ended, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.many
def test_a_node_dies_and_another_joins(tmp_path, garments, reference, case, own):
    lab = lay_out(tmp_path, garments, own)
    running = under_way(lab, own)
    os.kill(own.raylets()[-1], signal.SIGKILL)
    case.kills += 1
    running.until("was lost: it cannot be reached; retrying|the actor died")
    own.join()
    running.wait_for(lambda: len(own.actors()) == 2)
    ended = running.end()
    check(case, lab, ended=ended, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.many
def test_without_its_head_the_cluster_goes_on_with_what_it_has(tmp_path, garments, reference, case, own):
    lab = lay_out(tmp_path, garments, own)
    running = under_way(lab, own)
    os.kill(own.head(), signal.SIGKILL)
    case.kills += 1
    ended = running.end()
    check(case, lab, ended=ended, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.many
def test_a_cluster_that_is_gone_is_said_and_the_same_command_goes_on_without_it(
    tmp_path, garments, reference, case, own
):
    """All nodes and the head are killed: an exit in words, after the minute for which a head may be away."""
    lab = lay_out(tmp_path, garments, own)
    running = under_way(lab, own)
    before = lab.results()
    own.end()
    ended = running.end()
    check(case, lab, before=before, ended=ended, code=3, last="run the same command again", mlflow=False)
    assert "the Ray cluster no longer answers" in ended.err
    again = lab.run("--no-mlflow")
    check(case, lab, before=before, ended=again, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.many
def test_ctrl_c_on_a_cluster_ends_in_order(tmp_path, garments, reference, case, shared):
    lab = lay_out(tmp_path, garments, shared)
    running = under_way(lab, shared)
    running.kill(signal.SIGINT)
    ended = running.end()
    check(case, lab, ended=ended, code=130, mlflow=False)
    assert "finishing the epoch" in ended.err
    assert "\nresume: sweep run space.yaml --ray" in ended.err
    again = begin(lab, shared).end()
    check(case, lab, ended=again, last=LAST, same_as=reference(**SPACE), mlflow=False)


@pytest.mark.fault("R1")
@pytest.mark.parametrize(
    ("disk", "words"),
    [
        ("mount -t tmpfs none mlruns", "does not see the files of"),
        ("mount --bind {garments} elsewhere", "does not see elsewhere/"),
    ],
)
def test_a_node_that_does_not_see_the_files_is_left_out_and_none_that_does_is_said(
    tmp_path, garments, case, shared, disk, words
):
    """The study's folder, or the data set, lies on a file system that only the sweep's own process sees."""
    lab = lay_out(tmp_path, garments, shared)
    (tmp_path / "elsewhere").mkdir()
    root = ["--set", "data.root=elsewhere"] if "elsewhere" in disk else []
    call = command("run", "space.yaml", "--ray", shared.address, "--no-mlflow", *root)
    hidden = ["unshare", "--mount", "sh", "-c", f'{disk.format(garments=garments)} && exec "$@"', "sh", *call]
    done = subprocess.run(
        hidden, cwd=tmp_path, env=environment(**lab.env), capture_output=True, text=True, timeout=60
    )
    ended = Ended(done.returncode, done.stdout, done.stderr)
    assert ended.code == 3, ended.err
    assert words in ended.err
    assert "put the project, the data and mlruns where every node sees them" in ended.last


@pytest.mark.many
@pytest.mark.fault("R1")
def test_an_actor_does_not_execute_a_users_files(tmp_path, garments, shared):
    lab = lay_out(tmp_path, garments, shared)
    for name in ("trainers", "pydantic", "optuna"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('executed')\n")
    ended = begin(lab, shared).end()
    assert ended.code == 0, ended.err


@pytest.mark.fault("R1")
def test_no_cluster_is_said_before_any_trial(tmp_path, garments, case, shared):
    lab = lay_out(tmp_path, garments, shared)
    for address, words in {"127.0.0.1:1": "Connection refused", "nonsense": "invalid address format"}.items():
        ended = lab.sweep("run", "space.yaml", "--ray", address, "--no-mlflow")
        assert (ended.code, lab.trials) == (3, [])
        assert f"no Ray cluster at {address}: " in ended.err
        assert words in ended.err
