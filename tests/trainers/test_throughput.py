"""What `sweep plan` times."""

import pytest
import torch

from trainers import throughput
from trainers.config import Recipe
from trainers.data.decoded_files import JpegImages
from trainers.data.table import Category
from trainers.models import network
from trainers.support import device

CATEGORIES = [Category("a", ("x", "y", "z"))]


def recipe(**more):
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 16, "epochs": 2}
    return Recipe.model_validate({"data": {"root": ".", "size": 32}, "train": base | more})


@pytest.fixture
def small(monkeypatch):
    """Training passes of more images than `room` have none on the GPU; tells how many there were in each."""
    seen, room = [], [100]

    def refuse(module, inputs):
        if isinstance(module, network.Network):
            seen.append((len(inputs[0]), module.training))
            if module.training and len(inputs[0]) > room[0]:
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr(throughput, "SECONDS", 0)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    yield seen, room
    handle.remove()


def test_images_that_are_kept_as_jpeg_are_timed_as_such(small):
    how = recipe()
    how = how.model_copy(update={"data": how.data.model_copy(update={"cache": "jpeg"})})
    images = throughput.random_data(how, CATEGORIES).cache.images
    assert isinstance(images, JpegImages)
    assert len(images.content) < images.nbytes
    assert throughput.measure(how, CATEGORIES, "cpu")["train_images_per_second"] > 0


@pytest.mark.parametrize(("backbone", "side", "timed"), [("test_resnet", 64, 64), ("test_resnet", None, 32)])
def test_a_network_is_timed_at_the_size_asked_for(small, backbone, side, timed):
    found = throughput.timed(throughput.sized(recipe(backbone=backbone), side), CATEGORIES, "cpu")
    assert found["side"] == timed
    assert found["seconds"] > 0


def test_a_network_built_for_one_size_is_timed_at_its_own():
    own = recipe(backbone="test_vit", image_size=160)
    assert throughput.sized(own, 64) == own


def test_what_has_no_room_is_timed_in_pieces_and_that_is_said(small, capsys):
    seen, room = small
    room[0] = 7
    found = throughput.measure(recipe(), CATEGORIES, "cpu")
    assert found["train_images_per_second"] > 0
    assert {count for count, training in seen if training} == {16, 8, 4}
    assert "test_resnet: no room for 8 images at once, timed with 4" in capsys.readouterr().err


def test_what_has_no_room_for_a_few_images_says_so(small):
    small[1][0] = 3
    with pytest.raises(RuntimeError, match="ALLOC_FAILED"):
        throughput.measure(recipe(), CATEGORIES, "cpu")


def test_val_is_looked_at_in_whole_chunks(small):
    throughput.measure(recipe(batch_size=10), CATEGORIES, "cpu")
    looked = [count for count, training in small[0] if not training]
    assert len(set(looked)) == 1
    assert len(looked) >= 4  # two chunks, twice


@pytest.mark.parametrize(
    ("precision", "there", "asked", "measured"),
    [
        ("auto", True, True, True),
        ("auto", True, False, False),
        ("auto", False, True, False),
        ("fp32", True, True, False),
    ],
)
def test_bf16_is_timed_where_it_is_asked_for_and_might_pay(small, monkeypatch, precision, there, asked, measured):
    monkeypatch.setattr(device, "has_bf16", lambda: there)
    found = throughput.measure(recipe(precision=precision), CATEGORIES, "cpu", bf16=asked)
    assert ("bf16_speedup" in found) == measured
    assert found.get("bf16_speedup", 1) > 0


def test_a_network_that_cannot_compute_in_bf16_is_timed_without(small, monkeypatch):
    monkeypatch.setattr(device, "has_bf16", lambda: True)

    def refuse(module, inputs, out):
        if out.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")

    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, out: refuse(module, inputs, out) if isinstance(module, torch.nn.Conv2d) else None
    )
    try:
        found = throughput.measure(recipe(), CATEGORIES, "cpu", bf16=True)
    finally:
        handle.remove()
    assert found["train_images_per_second"] > 0
    assert "bf16_speedup" not in found
