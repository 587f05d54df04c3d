"""Full disks, small and real: what is written is whole or not at all, and what there is room for is known before."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeper import text
from sweeper.engine import disk_space, preflight
from sweeper.engine.disk_space import DiskEstimate, TrialSize
from sweeper.errors import DiskFull, UserError
from sweeper.executors.local import Local
from sweeper.space import yaml_io
from sweeper.store import lock, records, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.system import disks
from sweeper.system.devices import Slot
from sweeper.tracking import local_store
from sweeper.trial import Failed, Job, Progress
from sweeper.worker.job import failed
from tests.support.disks import BLOCK, fill, small
from tests.support.records import begin, curve, end, epoch, job
from tests.support.studies import close_all, opened, write
from trainers.config import SGD, AdamW, Recipe, TrainConfig
from trainers.data.table import Category
from trainers.data_config import DataConfig
from trainers.epoch import Epoch
from trainers.models import network
from trainers.support import files
from trainers.support.checkpoint import save_state, save_weights
from trainers.support.checksummed import save_array


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "disk", 4) as place:
        yield place


# ------------------------------------------------------------------------------------------ writing
@pytest.mark.process
def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(disk):
    path = disk / "lines"
    files.append(path, b"one\n", sync=True)
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        files.append(path, b"x" * 3 * BLOCK + b"\n", sync=True)
    assert path.read_bytes() == b"one\n"


def appended(one: Job, epochs: Sequence[Epoch]) -> None:
    for each in epochs:
        records.append(RunFolder(one.folder), each)


@pytest.mark.process
def test_a_history_on_a_full_disk_stays_whole(disk):
    study = StudyFolder(disk / "question")
    one = begin(job(study, 0))
    epochs = [epoch(index, 0.5) for index in range(40)]
    filler = fill(disk, leaving=3 * BLOCK)
    with pytest.raises(OSError, match="No space left"):
        appended(one, epochs)
    kept = records.history(RunFolder(one.folder))
    assert 0 < len(kept) < 40
    filler.unlink()
    appended(one, epochs[len(kept) :])
    assert [each.number for each in records.history(RunFolder(one.folder))] == list(range(1, 41))


@pytest.mark.process
def test_the_ledger_on_a_full_disk_stays_whole(disk):
    study = StudyFolder(disk / "question")
    for number in range(3):
        one = begin(job(study, number))
        end(one, curve(one), "COMPLETE")
    entry, before = trial_index.read(study)[0], study.trial_index.read_bytes()
    entry = entry.model_copy(update={"spans": ((0.0, 1.0),) * BLOCK})  # longer than what is left of a block
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        trial_index.add(study, entry)
    assert study.trial_index.read_bytes() == before


@pytest.mark.process
@pytest.mark.parametrize(
    "save",
    [
        lambda path: save_state(path, {"network": {"w": torch.zeros(400_000)}}),
        lambda path: save_weights(path, {"w": torch.zeros(400_000)}, {"epoch": {"number": 1}}),
        lambda path: save_array(path, np.zeros(400_000, dtype=np.float32)),
    ],
    ids=["state", "weights", "array"],
)
@pytest.mark.parametrize("leaving", [0, 3 * BLOCK, 1_000_000])
def test_a_checkpoint_that_does_not_fit_is_a_full_disk_and_leaves_the_one_before(disk, save, leaving):
    path = disk / "file"
    path.write_bytes(b"before")
    fill(disk, leaving=leaving)
    with pytest.raises(Exception) as raised:  # noqa: PT011  torch may raise its own on top
        save(path)
    assert failed(job(StudyFolder(disk), 0), raised.value).failure == "disk"
    assert path.read_bytes() == b"before"
    assert sorted(each.name for each in disk.iterdir()) == ["file", "filler"]


LIMITED = """
import resource, sys, os
from pathlib import Path
from trainers.support import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    files.write_text(Path(sys.argv[1]), "x" * 5000)
except OSError as error:
    print(files.full(error), error.errno)
"""


@pytest.mark.process
def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path):
    said = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "file")], capture_output=True, text=True)
    assert said.stdout.split() == ["True", str(errno.EFBIG)]
    assert not list(tmp_path.iterdir())


@pytest.mark.process
def test_a_lock_is_held_on_a_full_disk(disk):
    held = lock.acquire(disk / "study" / "lock")
    held.release()
    fill(disk)
    held = lock.acquire(disk / "study" / "lock")
    found = lock.holder(disk / "study" / "lock")
    assert found
    assert found.pid in (0, os.getpid())
    held.release()


# ------------------------------------------------------------------------------------------- studies
@pytest.mark.process
@pytest.mark.parametrize("blocks", range(12))
def test_a_study_begun_on_a_nearly_full_disk_is_begun_anew_when_there_is_room(disk, blocks, faked):
    path = write(disk)
    filler = fill(disk, leaving=blocks * BLOCK)
    with contextlib.suppress(OSError, DiskFull):
        opened(path).next_job()
    close_all()
    filler.unlink()
    study = opened(path)
    job = study.next_job()
    study.close()
    assert job
    assert (job.trial, records.read_config(RunFolder(job.folder))) == (0, job.model_copy(update={"resumed": False}))


@pytest.mark.process
def test_mlflow_s_database_is_whole_or_not_there(disk):
    path = disk / "mlflow.db"

    def touch(address: str) -> None:
        Path(address.removeprefix("sqlite:///")).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        local_store.create(path, touch)
    assert [each.name for each in disk.iterdir()] == ["mlflow.lock"]


# ------------------------------------------------------------------------------------------ room
@pytest.mark.process
def test_a_quota_or_a_limit_is_found_by_asking_for_the_bytes(disk):
    assert disks.takes(disk, 2_000_000)
    assert not disks.takes(disk, 8_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert not disks.takes(disk, 2_000_000)
        assert disks.takes(disk, 2_000_000, piece=900_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not list(disk.iterdir())


def test_a_trial_s_size_follows_from_its_weights():
    assert disk_space.size(TrainConfig(backbone="b", optimizer=AdamW()), 100) == TrialSize(weights=100, state=300)
    assert disk_space.size(TrainConfig(backbone="b", optimizer=SGD()), 100) == TrialSize(weights=100, state=200)
    averaged = TrainConfig.model_validate(
        {"backbone": "b", "weight_averaging": {"name": "ema"}, "optimizer": {"name": "adam"}}
    )
    assert disk_space.size(averaged, 100).state == 400


def test_what_trials_put_down_takes_the_place_of_what_was_counted(tmp_path):
    study = StudyFolder(tmp_path / "question")
    one = begin(job(study, 0))
    known = DiskEstimate(study, {one.recipe.train.backbone: 1000})
    assert known.needed([one]) == disk_space.SPARE + 2 * 4000 - record_size(one.folder)
    RunFolder(one.folder).model.write_bytes(bytes(10))
    RunFolder(one.folder).checkpoint.write_bytes(bytes(25))
    known.learn(one, 1)
    assert known.size(one.recipe.train) == TrialSize(10, 25)


def test_the_smaller_state_after_a_last_epoch_is_not_expected_of_a_trial_that_is_stopped(tmp_path):
    """A short trial has no other: what it would have is counted from its weights."""
    study = StudyFolder(tmp_path / "question")
    one = begin(job(study, 0))
    known = DiskEstimate(study, {one.recipe.train.backbone: 1000})
    RunFolder(one.folder).model.write_bytes(bytes(10))
    RunFolder(one.folder).checkpoint.write_bytes(bytes(10))
    known.learn(one, one.recipe.train.epochs)
    assert known.size(one.recipe.train) == TrialSize(10, 30)


def record_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_of_a_backbone_of_which_nothing_is_known_nothing_is_expected(tmp_path):
    one = begin(job(StudyFolder(tmp_path / "question"), 0))
    assert DiskEstimate(RunFolder(one.folder).study).needed([one]) == disk_space.SPARE


@pytest.mark.process
def test_a_trial_that_does_not_fit_waits_for_those_that_run_or_for_room(disk):
    study = StudyFolder(disk / "question")
    jobs = [begin(job(study, number)) for number in (0, 1)]
    known = DiskEstimate(study, {jobs[0].recipe.train.backbone: 1000})
    assert not known.enough(jobs[0], jobs[1:])
    with pytest.raises(DiskFull, match="the disk is full") as raised:
        known.enough(jobs[0], [])
    assert raised.value.why == "trial 0 would not fit"
    assert raised.value.need > disk_space.SPARE


def test_amounts_are_read_easily():
    assert [text.format_bytes(n) for n in (12_345, 3_210_000, 4_560_000_000)] == ["12 kB", "3.2 MB", "4.6 GB"]


@pytest.mark.process
def test_a_worker_that_cannot_even_write_its_log_tells_of_the_full_disk(disk, monkeypatch):
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    one = begin(job(StudyFolder(disk / "question"), 0))
    fill(disk)
    executor = Local([Slot("cpu")])
    executor.start(one)
    told = executor.next(60)
    if isinstance(told, Progress):  # the disk is first written to when the trial is stopped
        executor.answer(one.key, keep=False)
        told = executor.next(60)
    executor.close(kill=True)
    assert isinstance(told, Failed)
    assert told.failure == "disk"


def test_a_budget_that_will_not_fit_is_told_with_what_to_do(tmp_path):
    path = write(tmp_path, budget="{trials: 60}", schedule="constant")
    recipes = [Recipe(data=DataConfig(root="d"), train=TrainConfig(backbone="resnet18"))]
    known = DiskEstimate(StudyFolder(tmp_path / "question"), {"resnet18": 10**12})
    line = known.outlook(yaml_io.read(path), recipes)
    assert line
    assert line.startswith("60 trials keep about 60000.0 GB, ")
    assert "write keep_checkpoints: 1 into the YAML, or free some space, for example with sweep clean" in line
    small_ones = DiskEstimate(StudyFolder(tmp_path / "question"), {"resnet18": 1000})
    assert small_ones.outlook(yaml_io.read(path), recipes) is None
    assert DiskEstimate(StudyFolder(tmp_path / "question")).outlook(yaml_io.read(path), recipes) is None


def test_predictions_that_every_trial_keeps_are_part_of_what_will_not_fit(tmp_path):
    text = write(tmp_path, budget="{trials: 1000000000}", schedule="constant").read_text()
    (tmp_path / "kept.yaml").write_text(f"keep_checkpoints: 1\n{text}")
    spec = yaml_io.read(tmp_path / "kept.yaml")
    recipes = [Recipe(data=DataConfig(root="d"), train=TrainConfig(backbone="resnet18"))]
    folder = StudyFolder(tmp_path / "question")
    assert DiskEstimate(folder, {"resnet18": 10**6}).outlook(spec, recipes) is None
    seen = DiskEstimate(folder, {"resnet18": 10**6}, {"resnet18": TrialSize(10**6, 10**6, 10**6)})
    line = seen.outlook(spec, recipes)
    assert line
    assert line.startswith("1000000000 trials keep about 1000000.0 GB, ")


@pytest.mark.process
def test_the_check_of_the_networks_counts_their_weights(tmp_path):
    train = TrainConfig(backbone="test_resnet", image_size=32, pretrained=False)
    recipe, sleeve = Recipe(data=DataConfig(root="d", size=32), train=train), Category("sleeve", ("long", "short"))
    counted = preflight.preflight([recipe], [sleeve], cache=tmp_path)
    net = network.build(train, [2])
    assert counted == {"test_resnet": sum(t.numel() * t.element_size() for t in net.state_dict().values())}
    assert preflight.preflight([recipe], [sleeve], cache=tmp_path) == counted  # remembered


def test_what_is_kept_is_no_part_of_what_a_study_asks(tmp_path):
    first = opened(write(tmp_path))
    first.close()
    path = write(tmp_path)
    path.write_text(f"keep_checkpoints: 2\n{path.read_text()}")
    opened(path).close()
    assert json.loads((tmp_path / "question" / "study.json").read_text())["keep_checkpoints"] == 2
    with pytest.raises(UserError, match="keep"):
        yaml_io.read(path, sets=["keep=0"])


def test_of_a_trial_that_was_given_up_the_state_is_measured_and_of_one_that_ended_it_is_worked_out(tmp_path):
    study = StudyFolder(tmp_path / "question")
    for number, count in ((0, 3), (1, 1)):
        one = begin(job(study, number))
        end(one, curve(one, count=count), "COMPLETE" if count == 3 else "PRUNED")
        RunFolder(one.folder).model.write_bytes(bytes(10))
        RunFolder(one.folder).checkpoint.write_bytes(bytes(11 if count == 3 else 25))
        assert DiskEstimate(study).size(one.recipe.train) == TrialSize(10, 30 if number == 0 else 25)
