"""A real sweep, torch on the CPU with pruning, killed at random: the same bits as one that nothing disturbed."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.invariants import TIMES, Reference, check, history
from tests.faults.test_kills import EPOCH, LAST
from tests.support.disks import fill, small
from tests.support.processes import Lab, gone
from trainers.data.demo import draw

pytestmark = pytest.mark.process

SPACE = """\
study: question
data: {layout: challenge, root: garments, crop: box}
metric: mean_class_accuracy
budget: {trials: 5}
search: {sampler: tpe, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}}
train:
  backbone: test_resnet
  pretrained: false
  image_size: 32
  loss:
    choice:
      - {name: cross_entropy, label_smoothing: {uniform: [0.0, 0.2]}}
      - {name: focal, gamma: {uniform: [0.5, 3.0]}}
  optimizer: {name: adamw, lr: {loguniform: [1e-4, 1e-1]}, weight_decay: 0.05}
  schedule: {name: cosine, warmup_epochs: 1}
  augment: {horizontal_flip: 0.5, random_resized_crop: {scale: [0.35, 1.0]}, mixup: 0.2}
  weight_averaging: {name: ema}
  epochs: 4
  batch_size: 16
"""


def laid_out(root: Path) -> Lab:
    draw(root / "garments", images=(96, 48, 8), seed=3)
    (root / "space.yaml").write_text(SPACE)
    return Lab(root, {"SWEEP_TRAINER": ""})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = laid_out(tmp_path_factory.mktemp("undisturbed"))
    ended = lab.run("--no-mlflow")
    assert ended.code == 0, ended.err
    assert {one["state"] for one in lab.results().values()} == {"COMPLETE", "PRUNED"}
    return lab


def bits(lab: Lab) -> dict[str, Any]:
    """All that must not depend on kills: epochs without their times, weights and logits to the byte."""
    found: dict[str, Any] = {}
    for folder in lab.trials:
        found[folder.name] = [{k: v for k, v in one.items() if k not in TIMES} for one in history(folder)]
        for name in ("model.safetensors", "val_logits.npy"):
            found[f"{folder.name}/{name}"] = digest(folder / name)
    return found


def digest(path: Path) -> str:
    """Of a weights file the data alone: its notes hold the epoch, and so its time."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little") if path.suffix == ".safetensors" else 0
    return hashlib.sha256(content[start:]).hexdigest()


def disturb(lab: Lab, draw: random.Random, worker: bool) -> int:
    """Start the sweep, kill a worker or the coordinator somewhere in it, and end it; returns the kills."""
    running = lab.begin("--no-mlflow")
    running.until(EPOCH, times=draw.randrange(1, 4))
    time.sleep(draw.uniform(0.0, 0.6))
    killed = 0
    for pid in lab.workers()[:1] if worker else ():
        os.kill(pid, signal.SIGKILL)
        killed += 1
    if worker:
        running.until(EPOCH, times=running.said(EPOCH) + 1)
    killed += running.process.poll() is None
    running.kill()
    running.end()
    gone(lab, within=2)
    return killed


@pytest.mark.fault("K2")
@pytest.mark.many
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_real_sweep_killed_at_random_ends_bit_for_bit_as_if_undisturbed(tmp_path, undisturbed, case, seed):
    lab, draw = laid_out(tmp_path), random.Random(f"real {seed}")
    for turn in range(3):
        case.kills += disturb(lab, draw, worker=turn % 2 == 1)
    before, ended = lab.results(), lab.run("--no-mlflow")
    same = Reference.of(undisturbed)
    check(case, lab, before=before, ended=ended, last=LAST, same_as=same, mlflow=False)
    assert bits(lab) == bits(undisturbed)
    assert board(lab) == board(undisturbed)


def board(lab: Lab) -> list[Any]:
    """The leaderboard as people see it, but for the minutes."""
    rows = json.loads(lab.sweep("leaderboard", "--json").out)["trials"]
    return [{key: value for key, value in row.items() if key not in ("minutes", "seconds")} for row in rows]


@pytest.mark.fault("E1")
@pytest.mark.many
def test_a_real_sweep_on_a_disk_that_was_full_comes_to_the_same_bits(undisturbed, tmp_path, case):
    """Filled three times, up to another number of bytes each: a state, weights or predictions do not fit."""
    with small(tmp_path / "disk", 128) as disk:
        whole = laid_out(tmp_path / "lab")
        lab = Lab(whole.root, {**whole.env, "SWEEP_HOME": str(disk / "mlruns")})
        running = lab.begin("--no-mlflow")
        for times, leaving in enumerate((0, 500_000, 2_000_000), 1):
            assert running.until(EPOCH, times=4 * times)
            filler = fill(disk, leaving=leaving)
            assert running.until("^disk full: ", times=times)
            filler.unlink()
            assert running.until("continuing", times=times)
        ended = running.end()
        check(case, lab, ended=ended, last=LAST, same_as=Reference.of(undisturbed), mlflow=False)
        assert bits(lab) == bits(undisturbed)
