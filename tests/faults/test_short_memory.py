"""Memory that does not suffice, the GPU's and the host's, and losses that are no numbers."""

import json
import random
import time
from pathlib import Path

import pytest

from sweeper.search import history
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from tests.faults.invariants import check
from tests.support.processes import Lab, gone, make, seeds

pytestmark = pytest.mark.process

LINE = "trial 0: out of GPU memory; continues with micro-batches of 15, 2 per step"  # half of the thirty in train
RANDOM = "{sampler: random, pruner: none}"
SPOILED = """\
import builtins, os, sys

def spoil():
    import torch
    from trainers.models.network import Network
    what, number = os.environ["SPOIL"].split()
    passes = []

    def before(module, inputs):
        if not isinstance(module, Network):
            return
        passes.append(1) if module.training else None
        if what == "oom" and len(inputs[0]) >= int(number):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        if what == "nan" and len(passes) >= int(number):
            with torch.no_grad():
                module.head[-1].weight[-1] = float("nan")

    torch.nn.modules.module.register_module_forward_pre_hook(before)

class Late:
    def find_spec(self, name, path=None, target=None):
        if name == "trainers.train":
            sys.meta_path.remove(self)
            spoil()

sys.meta_path.insert(0, Late())
"""


def micro_batches(lab: Lab) -> list[int | None]:
    return [json.loads((folder / "config.json").read_text())["micro_batch"] for folder in lab.trials]


def told(lab: Lab, number: int) -> float | None:
    """The final value that the sampler has of a trial in the next call."""
    asked, folder = yaml_io.read(lab.root / "space.yaml"), StudyFolder(lab.study)
    value: float | None = history.past_trials(folder, records.ended(folder), Space(asked, ()).suggest)[number].value
    return value


# ---------------------------------------------------------------------------------------- the GPU's
@pytest.mark.fault("O1")
def test_a_trial_without_room_goes_on_in_pieces_says_so_and_the_next_begins_so(tmp_path, garments, case):
    lab = make(tmp_path, garments, backbone="broken.oom_64", trials=3, search=RANDOM)
    ended = lab.run("--no-mlflow")
    check(case, lab, mlflow=False, ended=ended)
    assert ended.err.count("out of GPU memory") == ended.err.count(LINE) == 1
    assert [one["state"] for one in lab.results().values()] == ["COMPLETE"] * 3
    assert micro_batches(lab) == [15, 15, 15]
    assert "pieces of 15 images" in (lab.trials[0] / "log.txt").read_text()


@pytest.mark.fault("O1")
@pytest.mark.parametrize("seed", [pytest.param(one, marks=pytest.mark.many) for one in seeds(8, sample=8)])
def test_a_kill_around_the_want_of_memory_loses_nothing_of_what_was_learnt(tmp_path, garments, reference, case, seed):
    changes = {"backbone": "broken.oom_64", "trials": 3}
    lab, draw = make(tmp_path, garments, **changes), random.Random(f"O1 {seed}")
    running = lab.begin("--no-mlflow")
    running.until(LINE if seed % 2 else " epoch ")
    time.sleep(draw.uniform(0, 0.4))
    running.kill()
    running.end()
    case.kills += 1
    gone(lab, within=2)
    before, kept = lab.results(), [one for one in micro_batches(lab) if one]
    ended = lab.run("--no-mlflow")
    check(case, lab, mlflow=False, before=before, ended=ended, same_as=reference(**changes))
    assert micro_batches(lab) == [15, 15, 15]
    assert not kept or "out of GPU memory" not in ended.err


@pytest.mark.fault("O1")
@pytest.mark.many
def test_a_trial_that_never_has_room_fails_and_the_search_goes_on(tmp_path, garments, case):
    lab = make(tmp_path, garments, backbone="{choice: [broken.oom, test_resnet]}", search=RANDOM)
    ended = lab.run("--no-mlflow")
    check(case, lab, mlflow=False, ended=ended)
    ends = {(one["backbone"], one["state"], one["failure"]) for one in lab.results().values()}
    assert ends == {("broken.oom", "FAILED", "oom"), ("test_resnet", "COMPLETE", None)}


CLOSED = """\
study: question
data: {layout: challenge, root: garments, crop: box}
budget: {trials: 10}
search: {sampler: random, pruner: none}
train: {backbone: {choice: [broken.oom, test_resnet]}, pretrained: false, image_size: 32, epochs: 4}
"""


@pytest.mark.fault("O1")
@pytest.mark.many
def test_parameters_that_had_no_room_are_not_trained_again_and_mlflow_knows(tmp_path, garments, case):
    lab = make(tmp_path, garments, env={"SWEEP_FAKE_SECONDS": "0.5"})
    (tmp_path / "space.yaml").write_text(CLOSED)
    ended = lab.run()
    check(case, lab, ended=ended)
    first, *others = [number for number, one in sorted(lab.results().items()) if one["failure"] == "oom"]
    assert others
    for number in others:
        assert lab.results()[number]["error"] == f"the same configuration ran out of memory in trial {first}"
        assert not (lab.trials[number] / "history.jsonl").exists()


def real(tmp_path: Path, garments: Path, spoil: str) -> Lab:
    """A lab whose workers train for real, in an interpreter that is spoiled."""
    import os

    (tmp_path / "spoiled").mkdir()
    (tmp_path / "spoiled/sitecustomize.py").write_text(SPOILED)
    path = f"{tmp_path / 'spoiled'}:{os.environ.get('PYTHONPATH', '')}"
    env = {"SWEEP_TRAINER": "", "SPOIL": spoil, "PYTHONPATH": path}
    return make(tmp_path, garments, trials=1, search=RANDOM, env=env)


@pytest.mark.fault("O1")
@pytest.mark.many
@pytest.mark.parametrize(("batch", "half"), [(16, 8), (64, 15)])
def test_real_training_that_runs_out_of_memory_goes_on_in_pieces(tmp_path, garments, case, batch, half):
    """Thirty images are less than a batch of 64: pieces of 32 would be no change, and nothing would be tried."""
    lab = real(tmp_path, garments, "oom 16")
    ended = lab.run("--no-mlflow", "--set", f"train.batch_size={batch}")
    check(case, lab, mlflow=False, ended=ended)
    assert f"trial 0: out of GPU memory; continues with micro-batches of {half}, 2 per step" in ended.err
    assert lab.results()[0]["state"] == "COMPLETE"
    assert micro_batches(lab) == [half]


# ---------------------------------------------------------------------------------------- the host's
@pytest.mark.fault("O2")
def test_a_worker_killed_for_want_of_memory_is_tried_once_more_and_says_what_it_may_be(tmp_path, garments, case):
    lab = make(tmp_path, garments, backbone="broken.kill_once", trials=1)
    ended = lab.run("--no-mlflow")
    case.kills += 1
    check(case, lab, mlflow=False, ended=ended)
    said = "trial 0: the worker was killed (signal 9), often because the host is out of memory; retrying"
    assert ended.err.count(said) == 1
    assert lab.results()[0]["state"] == "COMPLETE"


@pytest.mark.fault("O2")
@pytest.mark.many
def test_a_worker_that_is_killed_every_time_fails_its_trial_alone(tmp_path, garments, case):
    lab = make(tmp_path, garments, backbone="{choice: [broken.kill, test_resnet]}", search=RANDOM)
    ended = lab.run("--no-mlflow")
    check(case, lab, mlflow=False, ended=ended)
    ends = {(one["backbone"], one["state"], one["failure"]) for one in lab.results().values()}
    assert ends == {("broken.kill", "FAILED", "died"), ("test_resnet", "COMPLETE", None)}
    failed = [one for one in lab.results().values() if one["state"] == "FAILED"]
    case.kills += 2 * len(failed)
    assert ended.err.count("retrying") == len(failed)
    assert {one["error"] for one in failed} == {
        "the worker was killed (signal 9), often because the host is out of memory"
    }


# ---------------------------------------------------------------------------------------- no numbers
@pytest.mark.fault("N1")
def test_a_loss_that_is_no_number_fails_its_trial_and_is_never_told_as_one(tmp_path, garments, case):
    lab = make(tmp_path, garments, backbone="{choice: [broken.nan, test_resnet]}", search=RANDOM, trials=4)
    ended = lab.run("--no-mlflow")
    check(case, lab, mlflow=False, ended=ended)
    for number, one in lab.results().items():
        broken = one["backbone"] == "broken.nan"
        assert (one["state"], one["failure"]) == (("FAILED", "nan") if broken else ("COMPLETE", None))
        assert (told(lab, number) is None) == broken


@pytest.mark.fault("N1")
@pytest.mark.many
def test_one_head_of_a_real_network_that_is_no_number_fails_its_trial_with_the_circumstances(
    tmp_path, garments, case
):
    """From the first step of epoch 3 on; an epoch has three steps of ten images."""
    lab = real(tmp_path, garments, "nan 7")
    ended = lab.run("--no-mlflow", "--set", "train.batch_size=10")
    check(case, lab, mlflow=False, ended=ended, code=5)
    (one,) = lab.results().values()
    assert (one["state"], one["failure"], one["epochs"]) == ("FAILED", "nan", 2)
    assert one["error"].startswith("training loss is nan in epoch 3 (lr ")
    assert "loss focal" in one["error"]
    assert f"gamma={one['params']['loss.gamma']}" in one["error"]
    assert told(lab, 0) is None
