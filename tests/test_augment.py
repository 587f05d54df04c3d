import math

import numpy as np
import pytest
import torch
from PIL import Image

from trainers import augment
from trainers.config import Augment

ZERO, ONE = torch.zeros(3), torch.ones(3)
OFF = {"flip": 0.0}


def photos(batch=4, side=64, seed=0):
    """Smooth random pictures, [B, 3, S, S] uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)
    big = [np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse]
    return torch.from_numpy(np.stack(big)).permute(0, 3, 1, 2)


def changed(images, size=48, seed=0, shapes=None, **config):
    shapes = np.full((len(images), 2), 64) if shapes is None else shapes
    how = augment.draw(Augment(**(OFF | config)), shapes, np.random.default_rng(seed))
    return augment.apply(images, how, size, ZERO, ONE)


def psnr(a, b):
    return -10 * math.log10(float(((a - b) ** 2).mean()))


def test_without_any_change_training_sees_what_evaluation_sees():
    images = photos()
    assert torch.equal(changed(images)[0], augment.plain(images, 48, ZERO, ONE))


def test_evaluation_resizes_as_pillow_does():
    images = photos(1)
    theirs = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BILINEAR)
    ours = augment.plain(images, 48, ZERO, ONE)[0]
    assert psnr(ours, torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255) > 40


def test_normalization_is_applied_channel_by_channel():
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    ours = augment.plain(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), 8, mean, std)
    torch.testing.assert_close(ours[0, :, 0, 0], (1 - mean) / std)


def test_a_certain_flip_mirrors_every_image():
    images = photos()
    assert torch.equal(changed(images, flip=1.0)[0], augment.plain(images, 48, ZERO, ONE).flip(3))


def test_a_flip_mirrors_the_moved_image_too():
    images = photos()
    upright, mirrored = (changed(images, crop="random", flip=p)[0] for p in (0.0, 1.0))
    torch.testing.assert_close(upright.flip(3), mirrored, atol=1e-5, rtol=0)


def test_flips_differ_inside_a_batch():
    how = augment.draw(Augment(flip=0.5), np.full((64, 2), 64), np.random.default_rng(0))
    assert 10 < int(how.flip.sum()) < 54


@pytest.mark.parametrize("crop", ["random", "resized"])
def test_a_crop_is_the_same_window_cut_by_pillow(crop):
    """The gate of the affine lane: 40 dB against Pillow's crop and resize of the very same window."""
    images = photos(6, side=128)
    config = Augment(flip=0, crop=crop)
    how = augment.draw(config, np.full((6, 2), 128), np.random.default_rng(3))
    ours = augment.apply(images, how, 96, ZERO, ONE)[0]
    for image, theta, mine in zip(images, how.affine, ours, strict=True):
        half, centre = theta[:, :2].diagonal().numpy(), theta[:, 2].numpy()
        box = [*(64 * (1 + centre - half)), *(64 * (1 + centre + half))]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        theirs = picture.resize((96, 96), Image.Resampling.BILINEAR, box=tuple(map(float, box)))
        assert psnr(mine, torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255) > 40


def test_a_rotation_is_the_same_rotation_by_pillow():
    images = photos(4, side=128)
    how = augment.draw(Augment(flip=0, rotate=30), np.full((4, 2), 128), np.random.default_rng(1))
    ours = augment.apply(images, how, 128, ZERO, ONE)[0]
    for image, theta, mine in zip(images, how.affine, ours, strict=True):
        degrees = math.degrees(math.atan2(theta[1, 0], theta[0, 0]))
        assert 0 < abs(degrees) <= 30
        turned = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(degrees, Image.Resampling.BILINEAR)
        theirs = torch.from_numpy(np.array(turned)).permute(2, 0, 1) / 255
        inner = slice(32, 96)  # the corners are mirrored here and black there
        assert psnr(mine[:, inner, inner], theirs[:, inner, inner]) > 40


def test_a_rotation_turns_the_original_and_not_the_squashed_image():
    shapes = np.array([[100, 200]])
    how = augment.draw(Augment(flip=0, rotate=20), shapes, np.random.default_rng(0))
    stretch = np.diag([100.0, 200.0])
    linear = stretch @ how.affine[0, :, :2].double().numpy() @ np.linalg.inv(stretch)
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-6)


def test_windows_of_the_resized_crop_keep_to_their_area():
    how = augment.draw(Augment(crop="resized", min_area=0.5), np.full((500, 2), 64), np.random.default_rng(0))
    area = (how.affine[:, 0, 0].abs() * how.affine[:, 1, 1]).numpy()
    assert area.min() > 0.4
    assert area.max() <= 1
    assert area.std() > 0.05


def test_windows_never_leave_the_image():
    how = augment.draw(Augment(crop="resized"), np.full((500, 2), 64), np.random.default_rng(0))
    reach = how.affine[:, :, 2].abs() + how.affine[:, :, :2].abs().sum(2)
    assert float(reach.max()) <= 1 + 1e-6


@pytest.mark.parametrize("what", [{"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.3}])
def test_a_colour_change_differs_from_image_to_image(what):
    image = photos(1).repeat(4, 1, 1, 1)
    out = changed(image, **what)[0]
    assert all(not torch.allclose(out[0], other, atol=1e-3) for other in out[1:])


def test_contrast_keeps_the_mean_grey():
    grey = torch.randint(60, 190, (4, 1, 64, 64)).repeat(1, 3, 1, 1).to(torch.uint8)
    out, before = changed(grey, contrast=0.3)[0], changed(grey)[0]
    torch.testing.assert_close(out.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=2e-3, rtol=0)
    assert not torch.allclose(out.std((1, 2, 3)), before.std((1, 2, 3)), atol=1e-3)


@pytest.mark.parametrize("what", ["saturation", "hue"])
def test_grey_has_neither_saturation_nor_hue(what):
    grey = torch.randint(0, 256, (4, 1, 64, 64)).repeat(1, 3, 1, 1).to(torch.uint8)
    torch.testing.assert_close(changed(grey, **{what: 0.5})[0], changed(grey)[0], atol=2e-3, rtol=0)


def test_brightness_is_a_factor():
    dark = torch.full((8, 3, 8, 8), 100, dtype=torch.uint8)
    factors = changed(dark, size=8, brightness=0.4)[0][:, 0, 0, 0] * 255 / 100
    assert ((factors > 0.6) & (factors < 1.4)).all()
    assert float(factors.std()) > 0.05


def test_erasing_blanks_one_rectangle():
    white = torch.full((50, 3, 64, 64), 255, dtype=torch.uint8)
    gone = (changed(white, size=64, erase=1.0)[0][:, 0] == 0).float().mean((1, 2))
    assert float(gone.min()) > 0
    assert float(gone.max()) < 0.4


def test_erasing_leaves_out_what_the_coin_leaves_out():
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    hit = ((changed(white, size=32, erase=0.25)[0][:, 0] == 0).any(2).any(1)).sum()
    assert 25 < int(hit) < 80


def test_mixup_shares_images_as_it_shares_labels():
    images = photos(8)
    mixed, own = changed(images, mixup=1.0)
    how = augment.draw(Augment(flip=0, mixup=1.0), np.full((8, 2), 64), np.random.default_rng(0))
    alone = augment.plain(images, 48, ZERO, ONE)
    expected = own[:, None, None, None] * alone + (1 - own)[:, None, None, None] * alone[how.partner]
    torch.testing.assert_close(mixed, expected)
    assert len(own.unique()) == 8


def test_cutmix_shares_labels_by_the_area_that_was_pasted():
    black, white = torch.zeros((1, 3, 48, 48), dtype=torch.uint8), torch.full((1, 3, 48, 48), 255, dtype=torch.uint8)
    images = torch.cat([black, white] * 8)
    mixed, own = changed(images, cutmix=1.0)
    how = augment.draw(Augment(flip=0, cutmix=1.0), np.full((16, 2), 64), np.random.default_rng(0))
    alone = augment.plain(images, 48, ZERO, ONE)
    for k, partner in enumerate(how.partner.tolist()):
        if alone[k, 0, 0, 0] != alone[partner, 0, 0, 0]:
            same = (mixed[k] == alone[k]).float().mean()
            assert float(same) == pytest.approx(float(own[k]), abs=1e-6)


def test_the_same_seed_draws_the_same_and_another_another():
    images = photos()
    every = {"crop": "resized", "rotate": 10, "brightness": 0.2, "hue": 0.1, "erase": 0.5, "mixup": 0.2}
    first, again, other = (changed(images, seed=seed, **every)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
