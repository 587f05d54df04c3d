"""Steps of fp16 that overflow: a scaler leaves them out, and nothing else may be the worse for it.

Many a CPU takes ten times as long for fp16. The scaler is what is looked at here, so all tests but one compute in
fp32.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from trainers.config import Recipe
from trainers.loading.batches import Data, in_order
from trainers.loading.loader import AugmentationSource
from trainers.models.network import Network
from trainers.support.errors import Diverged, Overflowed
from trainers.support.threads import INTERVAL_VARIABLE
from trainers.train import TrainingRun, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


def recipe(photos, **more):
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 2, "batch_size": 8}
    return Recipe(data=photos, train=base | {"precision": "fp16"} | more)


def started(photos, data, folder, **more):
    return TrainingRun(recipe(photos, **more), data, ("train",), CPU, folder)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_how, **_more: nullcontext())


@pytest.fixture
def overflowing(fast):
    """Has the forward passes of training with these numbers, counted from now on, overflow before the last norm."""
    handles = []

    def which(numbers):
        passes = []

        def spoil(module, inputs):
            if isinstance(module, Network) and module.training:
                passes.append(1)
                if len(passes) - 1 in numbers:
                    once(module.backbone.layer4[0].bn2)

        handles.append(nn.modules.module.register_module_forward_pre_hook(spoil))

    def once(norm):
        def infinite(module, inputs):
            handle.remove()
            return (inputs[0] * float("inf"),)

        handle = norm.register_forward_pre_hook(infinite)

    yield which
    for handle in handles:
        handle.remove()


# ------------------------------------------------------------------------------------ the first step
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_first_step_that_overflows_leaves_weights_and_momentum_alone(photos, data, tmp_path, fast, name, clip):
    junk = [torch.full((1 << 16,), 1e30) for _ in range(50)]  # what memory holds that others have used
    del junk
    run = started(photos, data, tmp_path, optimizer={"name": name, "lr": 0.01}, clip_norm=clip)
    run.net.train()
    next(run.net.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    before = [p.detach().clone() for p in run.net.parameters()]
    drawing = AugmentationSource(run.config.augment, np.random.default_rng(0), run.minority)
    batch = next(iter(run.lens.feed(32).training(in_order(run.rows, 8), drawing)))
    run.backward(batch, 1)
    run.step()
    assert run.scaler.get_scale() < 2.0**16, "it overflowed"
    assert all(torch.equal(a, b) for a, b in zip(before, run.net.parameters(), strict=True))
    for state in run.optimizer.state.values():
        for value in (v for k, v in state.items() if k != "step" and v is not None):
            assert not value.any()


def test_sgd_learns_in_fp16_though_its_first_steps_overflow(photos, data, tmp_path):
    """The one test that computes in it."""
    run = started(photos, data, tmp_path, optimizer={"name": "sgd", "lr": 0.01}, batch_size=24)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    first, *_, last = (run.fit(0)[0].loss for _ in range(3))
    assert run.scaler.get_scale() < 2.0**22, "some overflowed"
    assert last < first


# ------------------------------------------------------------------------------------ in the midst of an epoch
@pytest.mark.parametrize(
    "more", [{}, {"weight_averaging": {"name": "ema", "decay": 0.5}}, {"accumulate": 2}], ids=str
)
def test_a_step_that_the_scaler_leaves_out_costs_nothing_else(photos, data, tmp_path, overflowing, more):
    overflowing({2})
    epochs = list(train(recipe(photos, **more), data, tmp_path))
    assert len(epochs) == 2
    assert all(0 < epoch.train.loss < 10 and 0 < epoch.val.loss < 10 for epoch in epochs)


def test_what_is_frozen_is_not_renewed_after_an_overflow(photos, data, tmp_path, overflowing):
    overflowing({2})
    run = started(photos, data, tmp_path, freeze={"epochs": 2}, head="category_mlp")
    before = {key: tensor.clone() for key, tensor in run.net.backbone.state_dict().items()}
    run.fit(0)
    assert all(torch.equal(before[key], tensor) for key, tensor in run.net.backbone.state_dict().items())
    assert all(tensor.isfinite().all() for tensor in run.net.head.state_dict().values())


def test_its_loss_does_not_count(photos, data, tmp_path, overflowing):
    run = started(photos, data, tmp_path, optimizer={"name": "sgd", "lr": 1e-12})
    before = run.fit(0)[0].loss
    overflowing({0, 4})
    assert run.fit(0)[0].loss == pytest.approx(before, rel=0.2)


@pytest.mark.parametrize("numbers", [range(6), range(2, 6)], ids=["all", "four of six"])
def test_more_than_a_few_of_them_end_the_run_and_full_precision_goes_on(
    photos, data, tmp_path, overflowing, monkeypatch, numbers
):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0")
    how, done = recipe(photos), []
    overflowing({6 + number for number in numbers})
    with pytest.raises(Overflowed, match=r"fp16 overflows in [46] of 6 batches.* in epoch 2 \(lr"):
        done.extend(train(how, data, tmp_path))
    epochs = list(train(how, data, tmp_path, full_precision=True))
    assert epochs[:1] == done
    assert len(epochs) == 2
    run = TrainingRun(how, data, ("train",), CPU, tmp_path, full_precision=True)
    assert (run.config.precision, run.lens.config.precision, run.scaler.is_enabled()) == ("fp32", "fp32", False)


def test_weights_that_are_no_numbers_end_the_run(photos, data, tmp_path, fast):
    run = started(photos, data, tmp_path)

    def spoil(optimizer, args, kwargs):
        with torch.no_grad():
            optimizer.param_groups[-1]["params"][0].view(-1)[0] = float("nan")

    run.optimizer.register_step_post_hook(spoil)
    with pytest.raises(Overflowed, match="in epoch 1"):
        run.fit(0)


def test_gradients_that_overflow_at_every_scale_end_the_run(photos, data, tmp_path, fast):
    run = started(photos, data, tmp_path)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    next(run.net.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(Overflowed):
        run.fit(0)


def test_in_full_precision_a_loss_that_is_no_number_ends_the_run_as_ever(photos, data, tmp_path, overflowing):
    overflowing({2})
    with pytest.raises(Diverged, match="training loss is nan in epoch 1") as caught:
        list(train(recipe(photos, precision="fp32"), data, tmp_path))
    assert type(caught.value) is Diverged
