import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.photos import SHARED
from trainers.config import Augment
from trainers.loading import cpu_transforms, transforms
from trainers.loading.image_store import shared

EYE = cpu_transforms.InputFormat(
    torch.device("cpu"),
    torch.tensor([0.485, 0.456, 0.406]),
    torch.tensor([0.229, 0.224, 0.225]),
    torch.channels_last,
)
EVERYTHING = {
    "random_resized_crop": {"scale": (0.35, 1.0)},
    "rotation": 15,
    "color_jitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
}


def photographs(side, count=12):
    """Real ones where they are at hand, else smooth random ones, [N, S, S, 3] uint8."""
    found = sorted((SHARED / "data" / "clothing" / "images").glob("*.jpg"))[:count]
    rng = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in found] or [
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)
    ]
    return np.stack([np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)) for picture in pictures])


def both(images, size, eye=EYE, **config):
    """The same draw on the CPU's own lane and on the one of devices, on the scale 0..1; what is mixed in as well."""
    shapes = np.full((len(images), 2), (120, 160))
    how = transforms.draw(Augment(**config), shapes, np.random.default_rng(5), None, images.shape[1:3])
    rows = np.arange(len(images))
    ours, own = cpu_transforms.apply(shared(images), rows, how, size, eye, cpu_transforms.BatchBuffers())
    theirs, other = transforms.apply(torch.from_numpy(images).permute(0, 3, 1, 2), how, size, eye.mean, eye.std)
    assert (own is None and other is None) or torch.equal(own, other)
    return [x * eye.std[:, None, None] + eye.mean[:, None, None] for x in (ours, theirs)]


def psnr(a, b):
    return -10 * math.log10(max(float(((a - b) ** 2).mean()), 1e-12))


@pytest.mark.parametrize(
    "config",
    [
        {"random_shift": 0.25},
        {"random_shift": 0.25, "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}},
        {"random_resized_crop": {"scale": (0.35, 1.0)}, "rotation": 20},
        EVERYTHING,
        {"random_shift": 0.25, "trivial_augment": True},
        {"random_shift": 0.25, "rand_augment": {"num_ops": 2}},
        {"random_shift": 0.25, "random_erasing": 0.5, "mixup": 0.4},
        {"random_shift": 0.25, "noise": 0.5, "cutmix": 1.0},
        {"horizontal_flip": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_the_cpu_changes_each_image_as_a_device_would(config, layout):
    """The gate of the lane: 40 dB, image by image, where a window is not larger than the network's input."""
    eye = cpu_transforms.InputFormat(EYE.device, EYE.mean, EYE.std, layout)
    for ours, theirs in zip(*both(photographs(128), 112, eye, **config), strict=True):
        assert psnr(ours, theirs) > 40


@pytest.mark.parametrize(
    "config",
    [
        {"random_shift": 0.25},
        {"random_resized_crop": {"scale": (0.35, 1.0)}, "rotation": 20},
        EVERYTHING | {"random_erasing": 0.5, "mixup": 0.4},
        {"random_shift": 0.25, "noise": 0.5, "cutmix": 1.0},
        {"horizontal_flip": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("level", "size"), [((128, 96), (112, 84)), ((96, 128), (84, 112)), ((128, 128), (112, 108))]
)
def test_the_cpu_changes_tall_and_wide_images_as_a_device_would(config, level, size):
    images = np.ascontiguousarray(photographs(128)[:, : level[0], : level[1]])
    found = both(images, size, **config)
    assert found[0].shape == (12, 3, *size)
    for ours, theirs in zip(*found, strict=True):
        assert psnr(ours, theirs) > 40


@pytest.mark.parametrize("config", [{"random_shift": 0.25, "horizontal_flip": 0}, {"horizontal_flip": 0}], ids=str)
def test_what_is_made_smaller_by_another_factor_each_way_is_smoothed_as_much(config):
    images = photographs(128)
    for size in ((96, 48), (48, 96)):
        for ours, theirs in zip(*both(images, size, **config), strict=True):
            assert psnr(ours, theirs) > 32


def test_a_tall_image_is_seen_as_the_wide_one_that_it_is_when_turned():
    images = np.ascontiguousarray(photographs(128)[:, :, :80])
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
    how = transforms.draw(
        Augment(random_shift=0.25, horizontal_flip=0), np.full((12, 2), 9), np.random.default_rng(0)
    )
    how = replace(how, erase=torch.tensor([[0.1, 0.2, 0.5, 0.4]]).repeat(12, 1))
    swapped = replace(how, affine=how.affine.flip(1)[:, :, [1, 0, 2]], erase=how.erase[:, [1, 0, 3, 2]])
    for size in ((112, 64), (64, 40)):
        tall = transforms.apply(torch.from_numpy(images).permute(0, 3, 1, 2), how, size, EYE.mean, EYE.std)[0]
        wide = transforms.apply(torch.from_numpy(turned).permute(0, 3, 1, 2), swapped, size[::-1], EYE.mean, EYE.std)[
            0
        ]
        torch.testing.assert_close(tall, wide.transpose(2, 3), atol=1e-4, rtol=0)


def test_what_is_made_smaller_is_smoothed_as_evaluation_smooths_it():
    """The lane of devices, which blurs as much with another kernel, is near: 35 dB at half the size."""
    images, config = photographs(128), {"random_shift": 1e-9, "horizontal_flip": 0.0}
    ours, theirs = both(images, 64, **config)
    whole = cpu_transforms.look(
        shared(images), np.arange(len(images)), (0, 0, 128, 128, False), 64, EYE, cpu_transforms.BatchBuffers()
    )
    torch.testing.assert_close(ours, whole * EYE.std[:, None, None] + EYE.mean[:, None, None])
    assert psnr(ours, theirs) > 35


@pytest.mark.parametrize(
    "config",
    [{"rotation": 20, "random_shift": 0.1}, {"trivial_augment": True}, {"rand_augment": {"num_ops": 2}}],
    ids=str,
)
@pytest.mark.parametrize("size", [64, (96, 48), (112, 96)], ids=str)
def test_what_is_turned_or_sheared_is_smoothed_as_a_device_smooths_it(config, size):
    """Upright windows, which the policies draw as well, have another kernel: 30 dB."""
    found = [psnr(*pair) for pair in zip(*both(photographs(128), size, **config), strict=True)]
    assert min(found) > (60 if "rotation" in config else 30)


def test_noise_that_is_turned_and_made_smaller_does_not_alias():
    images = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
    ours, _ = both(images, 64, rotation=10, horizontal_flip=0)
    whole = cpu_transforms.look(
        shared(images), np.arange(8), (0, 0, 96, 96, False), 64, EYE, cpu_transforms.BatchBuffers()
    )
    seen = whole * EYE.std[:, None, None] + EYE.mean[:, None, None]
    turned, upright = (float(x.diff(dim=3).square().mean()) for x in (ours, seen))
    assert turned == pytest.approx(upright, rel=0.1)  # three times as much without smoothing


@pytest.mark.parametrize("size", [96, 160])
def test_a_window_is_the_one_that_pillow_cuts(size):
    images, window = photographs(128, 3), (11, 20, 107, 121)
    ours = cpu_transforms.look(
        shared(images), np.arange(3), (*window, False), size, EYE, cpu_transforms.BatchBuffers()
    )
    for image, mine in zip(images, ours, strict=True):
        theirs = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=window)
        expected = torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255
        assert psnr(mine * EYE.std[:, None, None] + EYE.mean[:, None, None], expected) > 45


def test_a_mirrored_window_is_the_window_mirrored():
    images, rows = shared(photographs(64, 2)), np.arange(2)
    seen = [
        cpu_transforms.look(images, rows, (3, 4, 50, 60, flip), 48, EYE, cpu_transforms.BatchBuffers())
        for flip in (False, True)
    ]
    assert torch.equal(seen[0].flip(3), seen[1])


def test_upright_windows_lie_on_whole_pixels_and_turned_ones_where_they_were_drawn():
    shapes = np.full((200, 2), 64)
    for config, whole in (
        ({"random_resized_crop": {"scale": (0.35, 1.0)}}, True),
        ({"random_resized_crop": {"scale": (0.35, 1.0)}, "rotation": 10}, False),
    ):
        free, bound = (
            transforms.draw(Augment(**config), shapes, np.random.default_rng(0), None, side).affine.double().numpy()
            for side in (None, 96)
        )
        edges = (1 + bound[:, :, 2] - np.abs(bound[:, (0, 1), (0, 1)])) * 48
        assert np.allclose(edges, np.round(edges), atol=1e-4) == whole
        assert np.abs(bound - free).max() <= 1 / 96 + 1e-6
        assert np.array_equal(bound, free) != whole
        assert (np.sign(bound[:, 0, 0]) == np.sign(free[:, 0, 0])).all()


def test_the_parameters_differ_inside_a_batch():
    images = np.repeat(photographs(64, 1), 8, axis=0)
    ours, _ = both(images, 48, **EVERYTHING)
    assert all(psnr(ours[0], other) < 40 for other in ours[1:])


def test_a_batch_stays_until_the_next_but_one_is_made():
    level, rows, room = shared(photographs(32, 6)), np.arange(6), cpu_transforms.BatchBuffers()
    parts = [cpu_transforms.look(level, rows[k : k + 2], (0, 0, 32, 32, False), 32, EYE, room) for k in (0, 2, 4)]
    assert parts[1].data_ptr() != parts[2].data_ptr() == parts[0].data_ptr()
