import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from trainers import extensions
from trainers.config import (
    EMA,
    SGD,
    SWA,
    AdamW,
    Augment,
    ColorJitter,
    Freeze,
    LinearHead,
    Plateau,
    PosthocLogitAdjustment,
    ProgressiveResizing,
    Recipe,
    Step,
    TrainConfig,
    Views,
)
from trainers.data.table import Category
from trainers.epoch import Look
from trainers.evaluation import answers, logit_adjustment, metrics, predict
from trainers.extensions import ExtensionFile
from trainers.loading.batches import Data, balanced, drawn, shuffled
from trainers.loading.loader import AugmentationSource, Batch
from trainers.models import network
from trainers.optim import frequency
from trainers.optim.optimizers import depths, learning, thaw
from trainers.support import device
from trainers.support.checkpoint import load_state, load_weights, read_notes, save_weights
from trainers.support.checksummed import save_array
from trainers.support.errors import Diverged, EnvironmentFault
from trainers.support.position import Cursor, Position
from trainers.support.threads import INTERVAL_VARIABLE
from trainers.train import TrainingRun, train


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


def recipe(photos, **more):
    base = {
        "backbone": "test_resnet",
        "pretrained": False,
        "image_size": 32,
        "epochs": 4,
        "batch_size": 16,
        "optimizer": AdamW(lr=3e-3),
        "head": LinearHead(dropout=0.1),
        "augment": Augment(random_shift=0.125, rotation=10, color_jitter=ColorJitter(brightness=0.1), mixup=0.2),
    }
    return Recipe(data=photos, train=TrainConfig(**(base | more)))


def comparable(epochs):
    """What must be equal between two runs: all but clocks and memory."""
    clocks = {"seconds", "images_per_second", "peak_memory_gb", "time"}
    return [epoch.model_dump(exclude=clocks) for epoch in epochs]


@pytest.fixture(scope="module")
def whole(photos, data, tmp_path_factory):
    """One uninterrupted run: its recipe, folder and epochs."""
    folder, how = tmp_path_factory.mktemp("whole"), recipe(photos)
    return how, folder, list(train(how, data, folder))


def test_a_run_yields_every_epoch_once(whole):
    assert [epoch.number for epoch in whole[2]] == [1, 2, 3, 4]


class Trace(Cursor):
    """A cursor that writes down where it is put."""

    def __init__(self) -> None:
        self.places = []

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        if name == "at":
            self.places.append(value)


def test_the_cursor_passes_every_batch_of_training_and_of_evaluation_in_order(whole, photos, data, tmp_path):
    cursor, rows = Trace(), {split: len(data.table.indices(split)) for split in ("train", "val")}
    epochs = train(recipe(photos), data, tmp_path, cursor=cursor)
    first = next(epochs)
    steps = rows["train"] // 16
    wanted = [Position("train", done, steps) for done in range(1, steps + 1)]
    passes = -(-rows["val"] // 128)
    assert cursor.places == [*wanted, *(Position("val", done, passes) for done in range(1, passes + 1)), None]
    assert comparable([first]) == comparable(whole[2][:1])


def test_a_network_learns_what_the_pictures_show(photos, data, tmp_path):
    plain = recipe(photos, epochs=8, augment=Augment(), optimizer=AdamW(lr=1e-2), head=LinearHead())
    *_, last = train(plain, data, tmp_path)
    assert last.val.category_accuracy["colour"] > 0.8


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_interrupted_and_continued_is_bit_for_bit_the_run_that_was_not(whole, data, tmp_path, after):
    how, folder, expected = whole
    first = train(how, data, tmp_path)
    assert comparable(islice(first, after)) == comparable(expected[:after])
    first.close()
    assert comparable(train(how, data, tmp_path)) == comparable(expected)
    one, other = (load_weights(each / "model.safetensors") for each in (folder, tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_finished_run_keeps_nothing_that_only_a_further_epoch_would_need(whole, photos, data, tmp_path):
    _, folder, _ = whole
    done = load_state(folder / "last.ckpt")
    assert {done[part] for part in ("network", "optimizer", "scaler", "average")} == {None}
    next(train(recipe(photos, epochs=2), data, tmp_path))
    assert load_state(tmp_path / "last.ckpt")["optimizer"]["state"]


def test_a_finished_run_asked_again_yields_the_same_epochs_at_once(whole, data):
    how, folder, expected = whole
    assert list(train(how, data, folder)) == expected


# ------------------------------------------------------------------------------------ checkpoints beside training
def stored(folder):
    """The number of epochs in the checkpoint, and of the epoch that the model is of; zeros where there is none."""
    state = load_state(folder / "last.ckpt")
    model = read_notes(folder / "model.safetensors")["epoch"]["number"] if state else 0
    return len(state["epochs"]) if state else 0, model


def same_model(one, other):
    ours, theirs = (load_weights(folder / "model.safetensors") for folder in (one, other))
    logits = [(folder / "val_logits.npy").read_bytes() for folder in (one, other)]
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours) and len({*logits}) == 1


@pytest.fixture
def after_each_epoch(monkeypatch):
    """A checkpoint is written at the end of every epoch."""
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")


class Disk:
    """What takes the place of os.fsync: as slow as is asked, full from a number of calls on."""

    def __init__(self, seconds=0.0, full_from=10**9):
        self.seconds, self.full_from, self.calls, self.busy, self.most = seconds, full_from, 0, 0, 0

    def __call__(self, handle):  # noqa: ARG002  nothing is lost in a test
        self.calls, self.busy = self.calls + 1, self.busy + 1
        self.most = max(self.most, self.busy)
        time.sleep(self.seconds)
        self.busy -= 1
        if self.calls >= self.full_from:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_is_written_before_a_checkpoint_is_due_or_the_run_is_stopped(photos, data, tmp_path):
    epochs = train(recipe(photos), data, tmp_path)
    assert next(epochs).number == 1
    assert next(epochs).number == 2
    assert list(tmp_path.iterdir()) == []
    epochs.close()
    assert stored(tmp_path) == (2, 2)


@pytest.mark.usefixtures("after_each_epoch")
def test_a_checkpoint_is_written_while_the_next_epoch_trains(photos, data, tmp_path):
    epochs = train(recipe(photos), data, tmp_path)
    for number in (1, 2, 3):
        next(epochs)
        assert stored(tmp_path)[0] in (number - 1, number)
    epochs.close()


def test_the_last_epoch_is_on_disk_before_it_is_yielded(photos, data, tmp_path):
    for epoch in train(recipe(photos, epochs=2), data, tmp_path):
        assert stored(tmp_path) == ((0, 0) if epoch.number == 1 else (2, 2))


@pytest.mark.parametrize("selection", ["last", "loss"])
def test_checkpoints_beside_training_change_nothing_of_it(photos, data, tmp_path, monkeypatch, selection):
    how = recipe(photos, weight_averaging=EMA(decay=0.9), selection=selection)
    seldom = list(train(how, data, tmp_path / "seldom"))
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    often = list(train(how, data, tmp_path / "often"))
    assert comparable(often) == comparable(seldom)
    assert same_model(tmp_path / "often", tmp_path / "seldom")
    assert stored(tmp_path / "often") == stored(tmp_path / "seldom")


@pytest.mark.usefixtures("after_each_epoch")
def test_a_checkpoint_holds_the_weights_as_they_were_when_its_epoch_ended(whole, data, tmp_path, monkeypatch):
    """They are written late, when the next epoch has long changed them."""
    monkeypatch.setattr(os, "fsync", Disk(seconds=0.2))
    epochs = train(whole[0], data, tmp_path)
    next(epochs), next(epochs)
    epochs.close()
    monkeypatch.undo()
    assert comparable(train(whole[0], data, tmp_path)) == comparable(whole[2])
    assert same_model(tmp_path, whole[1])


@pytest.mark.usefixtures("after_each_epoch")
def test_training_waits_for_a_disk_that_is_slower(photos, data, tmp_path, monkeypatch):
    disk = Disk(seconds=0.5)
    monkeypatch.setattr(os, "fsync", disk)
    began = time.monotonic()
    list(train(recipe(photos, epochs=3), data, tmp_path))
    assert disk.most == 1
    assert time.monotonic() - began > 0.5 * disk.calls
    assert stored(tmp_path) == (3, 3)


@pytest.mark.usefixtures("after_each_epoch")
def test_a_run_that_is_closed_while_a_checkpoint_is_written_waits_for_it(whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", Disk(seconds=0.3))
    epochs = train(whole[0], data, tmp_path)
    next(epochs)
    epochs.close()
    assert stored(tmp_path) == (1, 1)
    assert not list(tmp_path.glob("*next*"))


@pytest.mark.usefixtures("after_each_epoch")
def test_a_disk_that_was_full_ends_training_at_the_next_epoch_and_costs_what_was_not_written(
    whole, data, tmp_path, monkeypatch
):
    how, folder, expected = whole
    epochs = train(how, data, tmp_path)
    next(epochs), next(epochs)
    monkeypatch.setattr(os, "fsync", Disk(full_from=1))
    with pytest.raises(OSError, match="No space left"):
        list(epochs)
    monkeypatch.undo()
    assert stored(tmp_path)[0] in (1, 2)  # the second may have been written before the disk was full
    assert not list(tmp_path.glob(".*.tmp"))
    assert comparable(train(how, data, tmp_path)) == comparable(expected)
    assert same_model(tmp_path, folder)


def test_a_disk_that_is_full_when_a_run_is_stopped_is_said(photos, data, tmp_path, monkeypatch):
    epochs = train(recipe(photos), data, tmp_path)
    next(epochs)
    monkeypatch.setattr(os, "fsync", Disk(full_from=1))
    with pytest.raises(OSError, match="No space left"):
        epochs.close()


def test_the_figures_of_an_epoch_that_is_trained_again_stay_those_on_record(photos, data, tmp_path):
    """On a GPU they would differ: what was recorded, and judged by, decides which epoch counts."""
    how = recipe(photos, epochs=3, selection="loss")
    other = train(how, data, tmp_path / "other")
    first = next(other)
    other.close()
    better = first.model_copy(update={"number": 2, "val": first.val.model_copy(update={"loss": 0.0})})
    recorded = [first, better]
    again = list(train(how, data, tmp_path / "run", recorded=recorded))
    assert comparable(again[:2]) == comparable(recorded)
    assert again[0].time > first.time
    assert load_state(tmp_path / "run" / "last.ckpt")["epochs"][:2] == [one.model_dump_json() for one in recorded]
    assert stored(tmp_path / "run") == (3, 2)


# ------------------------------------------------------------------------------------------- damage


def test_a_damaged_checkpoint_is_said_and_training_starts_over(whole, data, tmp_path, caplog):
    how, _, expected = whole
    next(train(how, data, tmp_path))
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    assert comparable(islice(train(how, data, tmp_path), 2)) == comparable(expected[:2])
    assert "damaged" in caplog.text


def test_the_checkpoint_of_another_recipe_is_not_continued(whole, photos, data, tmp_path, caplog):
    next(train(whole[0], data, tmp_path))
    other = recipe(photos, epochs=1, seed=5)
    assert len(list(train(other, data, tmp_path))) == 1
    assert "another recipe" in caplog.text


def test_a_checkpoint_is_continued_where_only_the_place_of_the_weights_is_another(photos, data, tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), old)
    before, after = (recipe(photos, epochs=2, pretrained=True, weights=str(path)) for path in (old, new))
    first = next(train(before, data, tmp_path / "run"))
    old.rename(new)
    again = list(train(after, data, tmp_path / "run"))
    assert (again[0], len(again)) == (first, 2)


def test_the_model_and_the_logits_are_those_of_the_last_epoch(whole, photos, data):
    how, folder, epochs = whole
    logits = np.load(folder / "val_logits.npy")
    np.testing.assert_allclose(
        predict.predict(how, data, folder / "model.safetensors", split="val"), logits, atol=1e-5
    )
    labels = data.labels(data.table.indices("val"))
    right = [(part.argmax(1) == labels[:, k]).mean() for k, part in enumerate(np.split(logits, [3], axis=1))]
    assert np.mean(right) == pytest.approx(epochs[-1].val.overall_accuracy)


def test_training_and_val_together_leave_nothing_to_judge_by(photos, data, tmp_path):
    epochs = train(recipe(photos, epochs=3), data, tmp_path, fit=("train", "val"))
    assert [epoch.val for epoch in islice(epochs, 2)] == [None, None]
    epochs.close()
    newest = load_state(tmp_path / "last.ckpt")["network"]
    assert all(
        torch.equal(tensor, newest[key]) for key, tensor in load_weights(tmp_path / "model.safetensors").items()
    )


def test_stopping_early_keeps_the_schedules_horizon(whole, photos, data, tmp_path):
    short = list(islice(train(whole[0], data, tmp_path), 2))
    assert [epoch.lr for epoch in short] == [epoch.lr for epoch in whole[2][:2]]


def test_a_loss_that_is_no_number_ends_the_run_with_its_circumstances(photos, data, tmp_path):
    wild = recipe(photos, optimizer=SGD(lr=1e30), augment=Augment())
    with pytest.raises(Diverged, match=r"loss is (nan|inf) in epoch 1 \(lr .*cross_entropy"):
        list(train(wild, data, tmp_path))


def test_a_diverged_epoch_leaves_no_checkpoint(photos, data, tmp_path):
    with pytest.raises(Diverged):
        list(train(recipe(photos, optimizer=SGD(lr=1e30)), data, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"precision": "bf16"}, {"clip_norm": 0.5}, {"schedule": Step()}, {"batch_size": 500}]
)
def test_every_setting_of_the_step_trains(photos, data, tmp_path, change):
    (epoch,) = train(recipe(photos, epochs=1, **change), data, tmp_path)
    assert np.isfinite(epoch.train.loss)


def test_a_run_in_bf16_on_a_cpu_that_emulates_it_is_one_in_fp32(photos, data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(device, "has_bf16", lambda: False)
    losses = []
    for precision in ("bf16", "fp32"):
        (epoch,) = train(recipe(photos, epochs=1, precision=precision), data, tmp_path / precision)
        losses.append((epoch.train.loss, epoch.val.loss))
    assert losses[0] == losses[1]
    assert ["only emulated" in one.message for one in caplog.records] == [True]


def test_a_split_without_images_is_said(photos, data, tmp_path):
    with pytest.raises(EnvironmentFault, match="no images in split extra"):
        next(train(recipe(photos), data, tmp_path, fit=("extra",)))


def test_shuffling_visits_each_row_at_most_once_in_whole_batches():
    chunks = shuffled(range(50), 16, np.random.default_rng(0))
    assert [len(chunk) for chunk in chunks] == [16, 16, 16]
    assert len(set(np.concatenate(chunks))) == 48


def test_a_split_smaller_than_a_batch_is_one_batch():
    assert [len(chunk) for chunk in shuffled(range(5), 16, np.random.default_rng(0))] == [5]


def test_a_plateau_schedule_is_repeated_from_the_values_of_an_earlier_run(photos, data, tmp_path):
    """The retrain has no val of its own: it steps where the winner stepped."""
    how = recipe(photos, schedule=Plateau(patience=0, factor=0.1))
    values = (0.5, 0.4, 0.6)
    rates = [epoch.lr for epoch in train(how, data, tmp_path, fit=("train", "val"), past=values)]
    assert rates == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])


def test_weights_whose_epoch_never_came_on_record_are_dropped(whole, data, tmp_path):
    """As after a kill between the weights and the state that knows of them."""
    how, folder, epochs = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "model.safetensors").read_bytes()
    save_weights(tmp_path / "next.model.safetensors", {"w": torch.zeros(1)}, {"epoch": {"number": 9}})
    save_array(tmp_path / "next.val_logits.npy", np.zeros(1))
    assert list(train(how, data, tmp_path)) == epochs
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("next.*"))


def test_weights_whose_epoch_is_on_record_get_their_name(whole, data, tmp_path):
    how, folder, epochs = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    last = {"epoch": {"number": epochs[-1].number}}
    save_weights(tmp_path / "next.model.safetensors", {"w": torch.zeros(1)}, last)
    list(train(how, data, tmp_path))
    assert list(load_weights(tmp_path / "model.safetensors")) == ["w"]


KILLED = """\
import sys
from pathlib import Path
from trainers.config import Recipe
from trainers.loading.batches import Data
from trainers.train import train
how = Recipe.model_validate_json(sys.argv[1])
for _ in train(how, Data.open(how.data, Path(sys.argv[2])), Path(sys.argv[3])):
    pass
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "interval"),
    [
        ("renamed next.val_logits.npy@3", 0),
        ("written next.model.safetensors@3", 0),
        ("renamed next.model.safetensors@3", 0),
        ("written last.ckpt@4", 0),
        ("renamed last.ckpt@4", 0),
        ("settled val_logits.npy@2", 0),
        ("settled model.safetensors@4", 0),
        ("renamed next.val_logits.npy@1", 1000),
        ("renamed next.model.safetensors@1", 1000),
        ("written last.ckpt@1", 1000),
        ("renamed last.ckpt@1", 1000),
        ("settled val_logits.npy@1", 1000),
        ("settled model.safetensors@1", 1000),
    ],
)
def test_after_a_kill_at_any_point_the_model_is_that_of_the_state(whole, data, cache, tmp_path, point, interval):
    how, folder, _ = whole
    kill_at(point, interval, how, cache, tmp_path)
    again = train(how, data, tmp_path)
    next(again)  # what the kill left is settled
    if (tmp_path / "last.ckpt").exists():
        assert stored(tmp_path)[0] == stored(tmp_path)[1]
    list(again)
    assert same_model(tmp_path, folder)


def kill_at(point, interval, how, cache, folder):
    words = [sys.executable, "-c", KILLED, how.model_dump_json(), str(cache), str(folder)]
    env = os.environ | {"SWEEP_CRASH": point, INTERVAL_VARIABLE: str(interval)}
    killed = subprocess.run(words, env=env, check=False)
    assert killed.returncode == -signal.SIGKILL


def test_a_state_of_a_format_without_a_scaler_can_be_continued(photos, data, tmp_path):
    how = recipe(photos, epochs=2)
    next(train(how, data, tmp_path))
    state = load_state(tmp_path / "last.ckpt")
    assert state["scaler"] == {}
    assert len(list(train(how, data, tmp_path))) == 2


def test_sixteen_bit_networks_give_logits_in_full_precision(photos):
    net = network.build(recipe(photos).train, [3, 2]).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(torch.randn(2, 3, 32, 32)).dtype == torch.float32


def test_scores_of_finished_predictions_are_those_of_the_epoch_that_made_them(whole, data):
    """Its loss too, which is what a final reports on test."""
    how, folder, epochs = whole
    best = max(epochs, key=lambda epoch: epoch.val.overall_accuracy)
    found = predict.scores(how, data, np.load(folder / "val_logits.npy"), split="val", fit=("train",))
    assert found.loss == pytest.approx(best.val.loss, rel=1e-5)
    assert found.model_dump(exclude={"loss"}) == best.val.model_dump(exclude={"loss"})


# ------------------------------------------------------------------------------------ averages, thaw, growth
@pytest.mark.parametrize("kind", [EMA(decay=0.9), SWA(start=0.5)])
def test_an_averaged_run_continues_bit_for_bit(photos, data, tmp_path, kind):
    how = recipe(photos, weight_averaging=kind)
    whole = list(train(how, data, tmp_path / "whole"))
    list(islice(train(how, data, tmp_path / "part"), 3))
    again = list(train(how, data, tmp_path / "part"))
    assert comparable(again) == comparable(whole)
    one, other = (load_weights(tmp_path / name / "model.safetensors") for name in ("whole", "part"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_what_is_evaluated_and_saved_is_the_average(photos, data, tmp_path):
    run = TrainingRun(
        recipe(photos, weight_averaging=EMA(decay=0.99), epochs=1), data, ("train",), torch.device("cpu"), tmp_path
    )
    run.fit(0)
    shown, newest = run.eval_network.state_dict(), run.net.state_dict()
    assert not all(torch.equal(shown[key], newest[key]) for key in newest)
    np.testing.assert_array_equal(run.evaluate().logits, run.lens.logits(run.average.net, run.val).numpy())


def test_frozen_layers_and_their_statistics_stand_still_while_the_head_learns(photos, data, tmp_path):
    how = recipe(photos, freeze=Freeze(epochs=1))
    run = TrainingRun(how, data, ("train",), torch.device("cpu"), tmp_path)
    before = {key: value.clone() for key, value in run.net.state_dict().items()}
    run.fit(0)
    frozen = run.net.state_dict()
    assert all(torch.equal(before[key], frozen[key]) for key in before if key.startswith("backbone."))
    assert not torch.equal(before["head.1.weight"], frozen["head.1.weight"])
    run.fit(1)
    assert not all(
        torch.equal(before[key], value) for key, value in run.net.backbone.state_dict(prefix="backbone.").items()
    )


OWN = """
from torch import nn

class Mine(nn.Module):
    num_features = 4

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(False)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, images):
        return self.last(self.first(images)).mean((2, 3))

models = {"mine": Mine}
"""


@pytest.fixture
def own(tmp_path):
    """The name of a backbone whose own code freezes its first layers."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    extensions.use([ExtensionFile.read(path)])
    yield "mine"
    extensions.use([])


@pytest.mark.parametrize("freeze", [Freeze(), Freeze(epochs=1), Freeze(gradual_epochs=2)], ids=str)
def test_what_a_model_froze_itself_stays_frozen_with_its_statistics(photos, data, tmp_path, own, freeze):
    run = TrainingRun(recipe(photos, backbone=own, freeze=freeze), data, ("train",), torch.device("cpu"), tmp_path)
    before = {key: value.clone() for key, value in run.net.state_dict().items()}
    for epoch in range(3):
        run.fit(epoch)
        assert not any(parameter.requires_grad for parameter in run.net.backbone.first.parameters())
    moved = {key for key, value in run.net.state_dict().items() if not torch.equal(before[key], value)}
    assert {key.rpartition(".")[0] for key in moved} == {"backbone.last", "head.1"}


def test_clipping_looks_at_no_gradient_but_those_of_a_step(photos, data, tmp_path, own):
    """As of a layer whose own code lets it learn again: no step uses its gradient, and none clears it."""
    how = recipe(photos, backbone=own, clip_norm=1.0, optimizer=SGD(lr=1.0, momentum=0, weight_decay=0))
    run = TrainingRun(how, data, ("train",), torch.device("cpu"), tmp_path)
    weight = run.net.backbone.last.weight
    before, weight.grad = weight.detach().clone(), torch.full_like(weight, 1e-3)
    run.net.backbone.first[0].weight.grad = torch.full((4, 3, 3, 3), 1e6)
    run.step()
    torch.testing.assert_close(before - weight.detach(), torch.full_like(weight, 1e-3), rtol=1e-3, atol=0)


def test_layers_join_in_from_the_last_to_the_first(photos, data, tmp_path):
    run = TrainingRun(
        recipe(photos, freeze=Freeze(gradual_epochs=2)), data, ("train",), torch.device("cpu"), tmp_path
    )
    depth = depths(run.net.backbone)
    deepest = []
    for epoch in range(3):
        thaw(run.net.backbone, learning(run.config.freeze, epoch), ())
        deepest.append(max(depth[name] for name, p in run.net.backbone.named_parameters() if p.requires_grad))
    assert deepest == sorted(deepest)
    assert deepest[0] < 0.5
    assert deepest[-1] == 1


def test_accumulated_batches_are_one_large_batch_where_no_norm_looks_at_the_batch(photos, data, tmp_path):
    how = {
        "backbone": "test_vit",
        "image_size": 160,
        "augment": Augment(horizontal_flip=0),
        "head": LinearHead(),
        "epochs": 1,
    }
    found = []
    for batch_size, accumulate in ((16, 1), (8, 2)):
        config = recipe(photos, **how, batch_size=batch_size, accumulate=accumulate, optimizer=SGD(lr=0.1))
        run = TrainingRun(config, data, ("train",), torch.device("cpu"), tmp_path / str(accumulate))
        run.fit(0)
        found.append(run.net.state_dict())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-4, atol=1e-5)


def test_accumulating_leaves_the_statistics_of_norms_those_of_one_batch(photos, data, tmp_path):
    found = []
    for accumulate in (1, 2):
        config = recipe(photos, optimizer=SGD(lr=1e-12), head=LinearHead(), accumulate=accumulate, epochs=1)
        run = TrainingRun(config, data, ("train",), torch.device("cpu"), tmp_path / str(accumulate))
        run.fit(0)
        found.append({key: value for key, value in run.net.state_dict().items() if "running" in key})
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value)


def test_images_grow_to_their_size_and_stay_there():
    grow = ProgressiveResizing(start=0.5, until=0.5)
    assert [grow.size((128, 96), index / 8) for index in range(5)] == [
        (64, 48),
        (80, 64),
        (96, 64),
        (112, 80),
        (128, 96),
    ]
    assert [grow.size((128, 128), index / 8)[0] for index in range(8)] == [64, 80, 96, 112, 128, 128, 128, 128]
    assert ProgressiveResizing().size((100, 80), 0.0) == (100, 80)


def test_the_weights_notes_name_no_place_of_this_machine(photos, data, tmp_path):
    how = recipe(photos, epochs=1)
    list(train(how, data, tmp_path))
    notes = read_notes(tmp_path / "model.safetensors")
    assert notes["recipe"]["data"]["root"] == Path(how.data.root).name
    assert str(Path(how.data.root).parent) not in json.dumps(notes)


def test_a_growing_run_trains(photos, data, tmp_path):
    *_, last = train(
        recipe(photos, image_size=64, progressive_resizing=ProgressiveResizing(start=0.5, until=0.8), epochs=2),
        data,
        tmp_path,
    )
    assert last.val.overall_accuracy > 0


ONE = [Category("kind", ("a", "b"))]


def test_balanced_draws_show_every_class_equally_often():
    labels = np.array([[0]] * 90 + [[1]] * 10)
    shares = balanced(labels, [[90, 10]], 1.0, ONE)
    assert shares[labels[:, 0] == 0].sum() == pytest.approx(0.5)
    roots = balanced(labels, [[90, 10]], 0.5, ONE)
    assert roots[labels[:, 0] == 0].sum() == pytest.approx(3 / 4)  # sqrt 90 : sqrt 10
    np.testing.assert_allclose(balanced(labels, [[90, 10]], 0.0, ONE), 1 / 100)
    chosen = np.concatenate(drawn(range(100), shares, 10, np.random.default_rng(0)))
    assert len(chosen) == 100
    assert 35 < np.sum(chosen >= 90) < 65


# ------------------------------------------------------------------------------------ selection, correction, views
@pytest.mark.parametrize("selection", ["loss", "macro_f1", "metric"])
def test_the_epoch_that_counts_is_chosen_by_what_the_recipe_says(photos, data, tmp_path, selection):
    how = recipe(photos, selection=selection, epochs=4)
    epochs = list(train(how, data, tmp_path))
    sign = -1 if selection == "loss" else 1
    name = "overall_accuracy" if selection == "metric" else selection
    wanted = max(epochs, key=lambda epoch: sign * getattr(epoch.val, name))
    assert read_notes(tmp_path / "model.safetensors")["epoch"]["number"] == wanted.number


def test_every_epoch_records_what_a_correction_would_give(whole):
    for epoch in whole[2]:
        assert set(epoch.corrected) == {"overall_accuracy", "mean_class_accuracy"}
        assert epoch.plain is None


def test_a_fitted_correction_is_the_figure_that_counts(photos, data, tmp_path):
    how = recipe(photos, posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True), epochs=2)
    for epoch in train(how, data, tmp_path):
        assert epoch.val.overall_accuracy == epoch.corrected["overall_accuracy"].value
        assert epoch.plain is not None
        assert epoch.val.loss == epoch.plain.loss


def test_a_given_strength_is_taken_off_the_predictions(photos, data, tmp_path):
    corrected = list(
        train(
            recipe(photos, posthoc_logit_adjustment=PosthocLogitAdjustment(tau=0.8), epochs=1), data, tmp_path / "a"
        )
    )
    plain = list(train(recipe(photos, epochs=1), data, tmp_path / "b"))
    assert corrected[0].plain == plain[0].val
    moved, raw = (np.load(tmp_path / name / "val_logits.npy") for name in ("a", "b"))
    offset = answers.logit_offset(data.categories, data.counts(data.table.indices("train")), 0.8)
    np.testing.assert_allclose(raw - moved, np.tile(offset, (len(raw), 1)), atol=1e-5)


def test_views_are_windows_and_their_mirror_images():
    views = predict.windows(8, Views(flip=True, scales=(1.0, 2.0), crops=5))
    assert len(views) == Views(flip=True, scales=(1.0, 2.0), crops=5).count == 12
    assert views[:2] == [(0, 0, 8, 8, False), (2, 2, 6, 6, False)]
    assert views[2:6] == [(0, 0, 4, 4, False), (4, 0, 8, 4, False), (0, 4, 4, 8, False), (4, 4, 8, 8, False)]
    assert views[6:] == [(*window[:4], True) for window in views[:6]]


def test_a_look_through_several_views_is_the_mean_of_them(whole, data, photos):
    _, folder, _ = whole
    how, best = recipe(photos, tta=Views(flip=True)), folder / "model.safetensors"
    both = predict.predict(how, data, best, split="val", views=how.train.tta)
    plain = predict.predict(how, data, best, split="val")
    assert not np.allclose(both, plain)
    labels = data.labels(data.table.indices("val"))
    found = metrics.scores(both, labels, data.table.categories, loss=0.0)
    assert predict.evaluate_tta(how, data, best).overall_accuracy == found.overall_accuracy


def test_a_look_fits_its_own_strength_and_says_it(whole, data, photos):
    _, folder, _ = whole
    how = recipe(photos, tta=Views(flip=True), posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True))
    found = predict.evaluate_tta(how, data, folder / "model.safetensors")
    logits = predict.predict(how, data, folder / "model.safetensors", split="val", views=how.train.tta)
    labels = data.labels(data.table.indices("val"))
    prior = frequency.log_prior(data.counts(data.table.indices("train")))
    fit = logit_adjustment.Fitting(logits, labels, prior, data.categories).fit(how.metric, found.loss)
    assert found == Look(**fit.scores.model_dump(), tau=fit.tau)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_what_the_plain_one_does(photos, data, tmp_path):
    how = {"epochs": 2, "head": LinearHead(), "weight_averaging": EMA(decay=0.9)}
    plain = list(train(recipe(photos, **how), data, tmp_path / "plain"))
    fast = list(train(recipe(photos, **how, compile=True), data, tmp_path / "fast"))
    assert [e.train.loss for e in fast] == pytest.approx([e.train.loss for e in plain], rel=1e-3)
    names = [set(load_weights(tmp_path / name / "model.safetensors")) for name in ("plain", "fast")]
    assert names[0] == names[1]


# ------------------------------------------------------------------------------------ batches in pieces
MIXED = Augment(horizontal_flip=0, mixup=0.4)
NORMLESS = {
    "backbone": "test_vit",
    "image_size": 160,
    "augment": Augment(horizontal_flip=0),
    "head": LinearHead(),
    "epochs": 1,
}


def gradients(how, data, folder, micro_batch):
    """Loss, logits and gradients of the first batch."""
    run = TrainingRun(how, data, ("train",), torch.device("cpu"), folder)
    run.micro_batch = micro_batch
    rng = np.random.default_rng(0)
    (batch,) = run.lens.feed(how.train.input_size).training(
        run.chunks(rng)[:1], AugmentationSource(how.train.augment, rng, run.minority)
    )
    loss, logits = run.backward(batch, 1)
    return {"loss": loss, "logits": logits} | {key: p.grad for key, p in run.net.named_parameters()}


@pytest.mark.parametrize("micro_batch", [8, 6, 5, 1])
@pytest.mark.parametrize("change", [{}, {"augment": MIXED}, {"augment": Augment(horizontal_flip=0, cutmix=0.5)}])
def test_pieces_of_a_batch_add_up_to_its_gradients(photos, data, tmp_path, micro_batch, change):
    """6 and 5 do not divide 16; partners of mixed images lie in other pieces."""
    how = recipe(photos, **(NORMLESS | change))
    whole, pieces = (gradients(how, data, tmp_path / str(size), size) for size in (16, micro_batch))
    assert whole.keys() == pieces.keys()
    for key, value in whole.items():
        torch.testing.assert_close(pieces[key], value, rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_mixed_really_has_partners_in_other_pieces(photos, data, tmp_path):
    """Else the test above would say nothing of them."""
    plain, mixed = (
        gradients(recipe(photos, **(NORMLESS | {"augment": how})), data, tmp_path / how.model_dump_json()[:9], 5)
        for how in (Augment(horizontal_flip=0), MIXED)
    )
    assert not torch.allclose(plain["loss"], mixed["loss"])


def test_pieces_are_as_equal_as_can_be():
    """A last piece of one image would be too few for a batch norm."""
    batch = Batch(torch.arange(17.0), torch.zeros(17, 2))
    assert [len(piece.images) for piece in batch.pieces(8)] == [5, 6, 6]
    assert torch.equal(torch.cat([piece.images for piece in batch.pieces(8)]), batch.images)
    assert [len(piece.images) for piece in batch.pieces(99)] == [17]


@pytest.mark.parametrize("change", [{"accumulate": 2, "clip_norm": 0.5}, {"weight_averaging": EMA(decay=0.9)}])
def test_an_epoch_in_pieces_is_the_epoch_in_batches(photos, data, tmp_path, change):
    how = recipe(photos, **(NORMLESS | {"epochs": 2}), optimizer=SGD(lr=0.1), **change)
    runs = [train(how, data, tmp_path / str(size), micro_batch=size) for size in (None, 6)]
    epochs = [next(run) for run in runs]
    for run in runs:
        run.close()  # a finished run would keep no raw weights
    states = [load_state(tmp_path / name / "last.ckpt")["network"] for name in ("None", "6")]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-5)
    assert epochs[1].train.loss == pytest.approx(epochs[0].train.loss, rel=1e-5)
    assert epochs[1].lr == epochs[0].lr


def test_a_whole_batch_is_one_piece_bit_for_bit(whole, data, tmp_path):
    how, _, epochs = whole
    assert comparable(islice(train(how, data, tmp_path, micro_batch=16), 2)) == comparable(epochs[:2])


def test_a_run_in_pieces_continues_bit_for_bit(photos, data, tmp_path):
    how = recipe(photos, epochs=2, weight_averaging=SWA(start=0.5))
    expected = list(train(how, data, tmp_path / "whole", micro_batch=5))
    next(train(how, data, tmp_path / "part", micro_batch=5))
    assert comparable(train(how, data, tmp_path / "part", micro_batch=5)) == comparable(expected)


@pytest.fixture
def small_memory():
    """Every forward pass of 12 images or more runs out of memory, as on a small GPU; tells how many passed."""
    seen = []

    def refuse(module, inputs):
        if isinstance(module, network.Network):
            seen.append(len(inputs[0]))
            if len(inputs[0]) >= 12:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    yield seen
    handle.remove()


def test_a_run_goes_on_in_pieces_where_a_whole_batch_has_no_room(photos, data, tmp_path, small_memory):
    how = recipe(photos, epochs=2)
    with pytest.raises(torch.OutOfMemoryError):
        next(train(how, data, tmp_path))
    assert [epoch.number for epoch in train(how, data, tmp_path, micro_batch=8)] == [1, 2]
    assert small_memory.count(8) >= 12


# ------------------------------------------------------------------------------------ no numbers
def poisoned(epoch, spoil):
    """Has `spoil` meet the network in every forward pass from `epoch` (from 1) on: 3 steps of training each."""
    passes = []

    def hook(module, inputs):
        if isinstance(module, network.Network) and module.training:
            passes.append(1)
            if len(passes) > 3 * (epoch - 1):
                spoil(module)

    return torch.nn.modules.module.register_module_forward_pre_hook(hook)


def one_head(value):
    """A weight of the second category's classifier; the first category's stays sound."""

    def spoil(net):
        with torch.no_grad():
            net.head[-1].weight[-1, 0] = value

    return spoil


@pytest.mark.usefixtures("after_each_epoch")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_of_one_head_that_is_no_number_ends_the_run_in_its_epoch(photos, data, tmp_path, value):
    handle = poisoned(3, one_head(value))
    try:
        epochs, how = [], recipe(photos, loss={"name": "focal", "gamma": 1.5})
        with pytest.raises(
            Diverged, match=r"training loss is (nan|inf) in epoch 3 \(lr 0.00\d+; loss focal .*gamma=1.5"
        ):
            epochs.extend(train(how, data, tmp_path))
    finally:
        handle.remove()
    assert len(load_state(tmp_path / "last.ckpt")["epochs"]) == 2
    assert not list(tmp_path.glob("next.*"))


def test_val_that_is_no_number_ends_the_run_too(photos, data, tmp_path):
    """A running statistic overflows: training, which does not use it, sees nothing."""

    def spoil(net):
        norm = next(module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
        norm.running_mean.fill_(float("nan"))

    handle = poisoned(2, spoil)
    try:
        with pytest.raises(Diverged, match="val loss is nan in epoch 2"):
            list(train(recipe(photos, posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True)), data, tmp_path))
    finally:
        handle.remove()
