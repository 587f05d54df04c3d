"""The path of a GPU where there is none: what would lie on the wrong device, and what would wait for it.

On `meta` the steps of an epoch are the very ones of `TrainingRun`, backward included; tensors there hold nothing, so
whatever asks for a value fails. A fake CUDA device (torch's FakeTensorMode) has autocast, and refuses what lies on
two devices; autograd cannot run there, so gradients are made up, and it knows neither fused SGD nor means of weights.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from sweeper.space.defaults import AUGMENT
from trainers import throughput
from trainers.config import Recipe
from trainers.data.table import Category
from trainers.evaluation.predict import windows
from trainers.evaluation.tally import Tally
from trainers.loading import loader
from trainers.loading.image_store import gather
from trainers.loading.loader import AugmentationSource
from trainers.loading.transforms import SHRINKS
from trainers.models import network
from trainers.train import Mean, TrainingRun

TO = nn.Module.to
META, CUDA = torch.device("meta"), torch.device("cuda", 0)
CATEGORIES = [Category(name, tuple(f"{name}{n}" for n in range(count))) for name, count in (("a", 4), ("b", 3))]
STRONG = {
    "random_resized_crop": {"scale": (0.35, 1.0)},
    "rotation": 10,
    "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
    "trivial_augment": True,
    "noise": 0.5,
    "random_erasing": 0.3,
    "mixup": 0.2,
    "cutmix": 1.0,
}
LOSSES = [
    {"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": "effective_number"},
    {"name": "focal", "gamma": 0.5},
    {"name": "asymmetric"},
    {"name": "asymmetric", "over": "sigmoid"},
    {"name": "dice"},
    {"name": "logit_adjusted"},
]
HEADS = [
    {"name": "linear", "dropout": 0.1},
    {"name": "relu_logits"},
    {"name": "logits_mlp"},
    {"name": "category_mlp"},
    {"name": "shared_mlp"},
    {"name": "query2label", "width": 16, "heads": 2, "feed_forward": 16},
]
OPTIMIZERS = [
    {"name": "adamw", "layer_decay": 0.8},
    {"name": "adam"},
    {"name": "sgd", "nesterov": True},
    {"name": "sgd", "momentum": 0.0},
]
AUGMENTS = [
    {"horizontal_flip": 0.5},
    STRONG,
    STRONG | {"trivial_augment": False, "rand_augment": {}, "cutmix": 0},
    {"mixup": 0.2, "mixup_classes": "minority"},
]
FAMILIES = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]
OTHERS = [
    {"weight_averaging": {"name": "ema"}, "clip_norm": 1.0, "accumulate": 2},
    {"freeze": {"epochs": 0, "gradual_epochs": 1}, "optimizer": {"name": "sgd"}},
    {"balanced_sampling": 0.5, "progressive_resizing": {"start": 0.5, "until": 1.0}},
]
FAKED = [
    *({"loss": loss} for loss in LOSSES),
    *({"head": head} for head in HEADS),
    *({"optimizer": optimizer} for optimizer in OPTIMIZERS[:2]),
    *({"augment": augment} for augment in AUGMENTS),
    *({"backbone": backbone} for backbone in FAMILIES),
]
ONE_BY_ONE = [*FAKED, *({"optimizer": optimizer} for optimizer in OPTIMIZERS[2:]), *OTHERS]


def recipe(**more):
    side = 160 if more.get("backbone") == "test_vit" else 64
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": side, "batch_size": 4, "epochs": 2}
    return Recipe.model_validate(
        {"data": {"root": ".", "size": 2 * side}, "train": base | {"augment": STRONG} | more}
    )


def a_run(how, device, folder):
    return TrainingRun(how, throughput.random_data(how, CATEGORIES), ("train",), device, folder)


@pytest.fixture(scope="module")
def no_autocast():
    """Which knows no device without numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *_how, **_more: nullcontext())
        yield


def steps(run):
    """Those of an epoch, and evaluation."""
    rng = np.random.default_rng(0)
    tally, mean, _ = run.passed(0, run.chunks(rng), rng)
    assert {tally.counts.device, mean.total.device, *(p.device for p in run.net.parameters())} == {META}
    assert run.lens.logits(run.eval_network, run.val).device == META


@pytest.mark.parametrize("more", ONE_BY_ONE, ids=str)
@pytest.mark.usefixtures("no_autocast")
def test_no_step_asks_for_a_value(tmp_path, more):
    run = a_run(recipe(**more), META, tmp_path)
    run.rows, run.micro_batch = run.rows[:8], 3
    steps(run)


@pytest.mark.slow
@pytest.mark.parametrize("augment", AUGMENTS, ids=range(len(AUGMENTS)))
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["name"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.usefixtures("no_autocast")
def test_no_step_of_any_combination_asks_for_a_value(tmp_path, loss, head, optimizer, augment):
    run = a_run(recipe(loss=loss, head=head, optimizer=optimizer, augment=augment), META, tmp_path)
    run.rows = run.rows[:4]
    steps(run)


FAULTS = {
    "cpu": lambda losses: losses.cpu().to(losses.device),
    "item": lambda losses: losses * (1 if losses.sum().item() > 0 else 2),
    "if": lambda losses: losses * 2 if losses.sum() > 0 else losses,
    "mask": lambda losses: losses[losses > 0],
    "nonzero": lambda losses: losses[losses.nonzero()[:, 0]],
}


def spoilt(run, fault):
    """The run with an objective that does as `fault` does."""
    sound = run.objective
    run.objective = lambda logits, labels: fault(sound(logits, labels))
    return run


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("no_autocast")
def test_a_step_that_asks_for_a_value_would_be_found(tmp_path, fault):
    run = spoilt(a_run(recipe(augment={"horizontal_flip": 0.5}), META, tmp_path), FAULTS[fault])
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        steps(run)


# ------------------------------------------------------------------------------------ fake CUDA
class Waits(TorchDispatchMode):
    """Fails where the host would wait for the device: for a value, or for a copy of the host's own memory."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        there = bool(args) and on_device(args[0])
        home = name == "_to_copy" and torch.device(kwargs.get("device") or CUDA).type == "cpu"
        asked = home or name in self.NAMES or (name.startswith("index") and _by_mask(args[1]))
        if (there and asked) or _copied(name, args, kwargs):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **kwargs)


def on_device(thing):
    return isinstance(thing, torch.Tensor) and thing.device.type == "cuda"


def on_host(thing):
    return isinstance(thing, torch.Tensor) and thing.device.type == "cpu"


def _by_mask(indices):
    asked = indices if isinstance(indices, (list, tuple)) else ()
    return any(isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in asked)


def _copied(name, args, kwargs):
    """True if the host waits for a copy to the device. Those of `send` do not make it wait; those of torch.tensor and
    of an index on the host do.
    """
    if name == "_to_copy":
        there = torch.device(kwargs.get("device") or "cpu").type == "cuda"
        return there and on_host(args[0]) and not kwargs.get("non_blocking")
    if name == "copy_":
        return on_device(args[0]) and on_host(args[1]) and not any([*args[2:], kwargs.get("non_blocking")])
    listed = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
    mixed = [*args, *listed] if name.startswith(("index", "where")) else ()
    return any(map(on_device, mixed)) and any(map(on_host, mixed))


def moved(module, device=None, **how):
    """What nn.Module.to does with everything but fakes."""
    if device is None:
        return TO(module, **how)
    for one in module.modules():
        for name, parameter in one._parameters.items():
            if parameter is not None:
                one._parameters[name] = nn.Parameter(parameter.detach().to(device))
        for name, buffer in one._buffers.items():
            if buffer is not None:
                one._buffers[name] = buffer.to(device)
    return module


def real(make):
    """Networks and images have values, which take memory, before they are faked."""

    def made(*args, **how):
        with unset_fake_temporarily():
            return make(*args, **how)

    return made


@cache
def can_fake():
    """Whether this torch moves tensors to a fake GPU where there is no driver; 2.9 does not."""
    plain = torch.zeros(1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            plain.to(CUDA)
        except RuntimeError:
            return False
    return True


@contextmanager
def fake_cuda():
    """torch as it is with a GPU, as far as one can be faked: without threads and streams."""
    if not can_fake():
        pytest.skip("this torch fakes no GPU without its driver")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("init", "reset_peak_memory_stats", "manual_seed_all"):
            patch.setattr(torch.cuda, name, lambda *_args: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_how: True)
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.amp.grad_scaler.torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(loader, "prefetch", lambda asked, make, *_args, **_how: map(make, asked))
        patch.setattr(nn.Module, "to", moved)
        patch.setattr(loader, "gather", real(lambda images, rows, **_how: gather(images, rows)))
        patch.setattr(network, "build", real(network.build))
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield


def batch(run):
    """The first one, drawn, sent and changed as in an epoch."""
    size = run.config.input_size
    feed = run.lens.feed(size, training=True)
    source = AugmentationSource(run.config.augment, np.random.default_rng(0), run.minority)
    return next(iter(feed.training([np.asarray(run.rows[: run.config.batch_size])], source)))


def step(run):
    """One step, its gradients made up, with what is counted of it."""
    tally, mean = Tally(run.data.categories, CUDA), Mean(CUDA, handled=run.scaler.is_enabled())
    run.net.train()
    with Waits():
        seen = batch(run)
        losses, logits = run.image_losses(seen)
        assert (losses.dtype, logits.dtype, losses.device, logits.device) == (torch.float32,) * 2 + (CUDA,) * 2
        run.scaler.scale(losses.mean())
        for parameter in run.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        run.step()
        tally.update(logits.detach(), seen.labels)
        mean.add(losses.mean().detach(), len(seen.images))


def look(run):
    """Evaluation of what a test-time view shows."""
    eye = run.lens.feed(run.config.input_size)
    images = torch.zeros((4, *eye.source, 3), dtype=torch.uint8, device=CUDA)
    run.net.eval()
    with torch.no_grad(), Waits():
        for window in windows(eye.source, run.config.tta):
            logits = run.lens.forward(run.eval_network, eye.seen(images, window))
            assert (logits.dtype, logits.device) == (torch.float32, CUDA)


@pytest.mark.parametrize("more", [*FAKED, {"precision": "fp16"}, {"precision": "fp32"}], ids=str)
def test_nothing_lies_on_another_device_or_waits(tmp_path, more):
    with fake_cuda():
        run = a_run(recipe(tta={"flip": True, "scales": [1.0, 1.15]}, **more), CUDA, tmp_path)
        step(run)
        look(run)


@pytest.mark.parametrize("name", ["medium", "strong"])
def test_default_augmentations_make_large_images_smaller_without_a_wait(tmp_path, name):
    with fake_cuda():
        run = a_run(recipe(augment=AUGMENT[name]), CUDA, tmp_path)
        size = run.config.input_size
        assert run.lens.feed(size, training=True).source[0] / size[0] > SHRINKS
        step(run)


COPIES = {
    "tensor": lambda losses: losses * torch.tensor([2.0], device=losses.device),
    "new_tensor": lambda losses: losses * losses.new_tensor([2.0]),
    "as_tensor": lambda losses: losses * torch.as_tensor([2.0], device=losses.device),
    "to": lambda losses: losses * torch.ones(4).to(losses.device),
    "copy": lambda losses: losses * torch.empty_like(losses).copy_(torch.ones(4)),
    "index": lambda losses: losses[torch.arange(4)],
    "list": lambda losses: losses[[0, 1, 2, 3]],
}


@pytest.mark.parametrize("fault", [*(name for name in FAULTS if name != "if"), *COPIES])
def test_a_step_that_waits_would_be_found(tmp_path, fault):
    with fake_cuda():
        run = spoilt(a_run(recipe(augment={"horizontal_flip": 0.5}), CUDA, tmp_path), (FAULTS | COPIES)[fault])
        with pytest.raises(AssertionError, match="waits for the device"):
            step(run)


@pytest.mark.parametrize("where", ["objective", "images"])
def test_a_tensor_on_the_wrong_device_would_be_found(tmp_path, where):
    with fake_cuda():
        run = a_run(recipe(augment={"horizontal_flip": 0.5}), CUDA, tmp_path)
        if where == "objective":
            spoilt(run, lambda losses: losses + torch.zeros(4))
        else:
            run.lens.eye = replace(run.lens.eye, mean=torch.zeros(3))
        with pytest.raises(RuntimeError, match="device"):
            step(run)
