import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.config import Augment
from trainers.data.table import Category
from trainers.loading import policies, transforms

ZERO, ONE = torch.zeros(3), torch.ones(3)
OFF = {"horizontal_flip": 0.0}
NOTHING = 1e-9  # a shift that cannot be seen, of the lane that moves images


def photos(batch=4, side=64, seed=0):
    """Smooth random pictures, [B, 3, S, S] uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (batch, 8, 8, 3), dtype=np.uint8)
    big = [np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in coarse]
    return torch.from_numpy(np.stack(big)).permute(0, 3, 1, 2)


def changed(images, size=48, seed=0, shapes=None, **config):
    shapes = np.full((len(images), 2), 64) if shapes is None else shapes
    how = transforms.draw(Augment(**(OFF | config)), shapes, np.random.default_rng(seed))
    return transforms.apply(images, how, size, ZERO, ONE)


def planned(images, name, by, size=None, shapes=None, **config):
    """The images after one change by that amount each, after those of `config`."""
    shapes = np.full((len(images), 2), images.shape[-1]) if shapes is None else shapes
    given = transforms.draw(Augment(**(OFF | {"random_shift": NOTHING} | config)), shapes, np.random.default_rng(0))
    plan = policies.Plan(*(np.full((len(images), 1), value) for value in (policies.CHANGES.index(name), by)))
    affine = transforms.then(given.affine.double().numpy(), plan, shapes)
    colour, grey = policies.colour(plan, np.tile(np.eye(3), (len(images), 1, 1)), np.zeros(len(images)))
    how = replace(
        given,
        **{
            k: torch.from_numpy(np.float32(v))
            for k, v in zip(("affine", "colour", "contrast"), (affine, colour, grey), strict=True)
        },
    )
    return transforms.apply(images, how, size or images.shape[-1], ZERO, ONE)[0]


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


def psnr(a, b):
    return -10 * math.log10(float(((a - b) ** 2).mean()))


def test_without_any_change_training_sees_what_evaluation_sees():
    images = photos()
    assert torch.equal(changed(images)[0], transforms.plain(images, 48, ZERO, ONE))


def test_evaluation_resizes_as_pillow_does():
    images = photos(1)
    theirs = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((48, 48), Image.Resampling.BILINEAR)
    ours = transforms.plain(images, 48, ZERO, ONE)[0]
    assert psnr(ours, torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255) > 40


def test_normalization_is_applied_channel_by_channel():
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    ours = transforms.plain(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), 8, mean, std)
    torch.testing.assert_close(ours[0, :, 0, 0], (1 - mean) / std)


def test_a_certain_flip_mirrors_every_image():
    images = photos()
    assert torch.equal(changed(images, horizontal_flip=1.0)[0], transforms.plain(images, 48, ZERO, ONE).flip(3))


def test_a_flip_mirrors_the_moved_image_too():
    images = photos()
    upright, mirrored = (changed(images, random_shift=0.125, horizontal_flip=p)[0] for p in (0.0, 1.0))
    torch.testing.assert_close(upright.flip(3), mirrored, atol=1e-5, rtol=0)


def test_flips_differ_inside_a_batch():
    how = transforms.draw(Augment(horizontal_flip=0.5), np.full((64, 2), 64), np.random.default_rng(0))
    assert 10 < int(how.flip.sum()) < 54


@pytest.mark.parametrize("crop", [{"random_shift": 0.125}, {"random_resized_crop": {}}], ids=str)
def test_a_crop_is_the_same_window_cut_by_pillow(crop):
    """The gate of the affine lane: 40 dB against Pillow's crop and resize of the very same window."""
    images = photos(6, side=128)
    config = Augment(horizontal_flip=0, **crop)
    how = transforms.draw(config, np.full((6, 2), 128), np.random.default_rng(3))
    ours = transforms.apply(images, how, 96, ZERO, ONE)[0]
    for image, theta, mine in zip(images, how.affine, ours, strict=True):
        half, centre = theta[:, :2].diagonal().numpy(), theta[:, 2].numpy()
        box = [*(64 * (1 + centre - half)), *(64 * (1 + centre + half))]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        theirs = picture.resize((96, 96), Image.Resampling.BILINEAR, box=tuple(map(float, box)))
        assert psnr(mine, torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255) > 40


def test_a_rotation_is_the_same_rotation_by_pillow():
    images = photos(4, side=128)
    how = transforms.draw(Augment(horizontal_flip=0, rotation=30), np.full((4, 2), 128), np.random.default_rng(1))
    ours = transforms.apply(images, how, 128, ZERO, ONE)[0]
    for image, theta, mine in zip(images, how.affine, ours, strict=True):
        degrees = math.degrees(math.atan2(theta[1, 0], theta[0, 0]))
        assert 0 < abs(degrees) <= 30
        turned = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(degrees, Image.Resampling.BILINEAR)
        theirs = torch.from_numpy(np.array(turned)).permute(2, 0, 1) / 255
        inner = slice(32, 96)  # the corners are mirrored here and black there
        assert psnr(mine[:, inner, inner], theirs[:, inner, inner]) > 40


def test_a_rotation_turns_the_original_and_not_the_squashed_image():
    shapes = np.array([[100, 200]])
    how = transforms.draw(Augment(horizontal_flip=0, rotation=20), shapes, np.random.default_rng(0))
    stretch = np.diag([100.0, 200.0])
    linear = stretch @ how.affine[0, :, :2].double().numpy() @ np.linalg.inv(stretch)
    np.testing.assert_allclose(linear @ linear.T, np.eye(2), atol=1e-6)


def test_windows_of_the_resized_crop_keep_to_their_area():
    how = transforms.draw(
        Augment(random_resized_crop={"scale": (0.5, 1.0)}), np.full((500, 2), 64), np.random.default_rng(0)
    )
    area = (how.affine[:, 0, 0].abs() * how.affine[:, 1, 1]).numpy()
    assert area.min() > 0.4
    assert area.max() <= 1
    assert area.std() > 0.05


def test_windows_never_leave_the_image():
    how = transforms.draw(Augment(random_resized_crop={}), np.full((500, 2), 64), np.random.default_rng(0))
    reach = how.affine[:, :, 2].abs() + how.affine[:, :, :2].abs().sum(2)
    assert float(reach.max()) <= 1 + 1e-6


@pytest.mark.parametrize("what", [{"brightness": 0.5}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.3}])
def test_a_colour_change_differs_from_image_to_image(what):
    image = photos(1).repeat(4, 1, 1, 1)
    out = changed(image, color_jitter=what)[0]
    assert all(not torch.allclose(out[0], other, atol=1e-3) for other in out[1:])


def test_contrast_keeps_the_mean_grey():
    grey = torch.randint(60, 190, (4, 1, 64, 64)).repeat(1, 3, 1, 1).to(torch.uint8)
    out, before = changed(grey, color_jitter={"contrast": 0.3})[0], changed(grey)[0]
    torch.testing.assert_close(out.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=2e-3, rtol=0)
    assert not torch.allclose(out.std((1, 2, 3)), before.std((1, 2, 3)), atol=1e-3)


@pytest.mark.parametrize("what", ["saturation", "hue"])
def test_grey_has_neither_saturation_nor_hue(what):
    grey = torch.randint(0, 256, (4, 1, 64, 64)).repeat(1, 3, 1, 1).to(torch.uint8)
    torch.testing.assert_close(changed(grey, color_jitter={what: 0.5})[0], changed(grey)[0], atol=2e-3, rtol=0)


def test_brightness_is_a_factor():
    dark = torch.full((8, 3, 8, 8), 100, dtype=torch.uint8)
    factors = changed(dark, size=8, color_jitter={"brightness": 0.4})[0][:, 0, 0, 0] * 255 / 100
    assert ((factors > 0.6) & (factors < 1.4)).all()
    assert float(factors.std()) > 0.05


def test_erasing_blanks_one_rectangle():
    white = torch.full((50, 3, 64, 64), 255, dtype=torch.uint8)
    gone = (changed(white, size=64, random_erasing=1.0)[0][:, 0] == 0).float().mean((1, 2))
    assert float(gone.min()) > 0
    assert float(gone.max()) < 0.4


def test_erasing_leaves_out_what_the_coin_leaves_out():
    white = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    hit = ((changed(white, size=32, random_erasing=0.25)[0][:, 0] == 0).any(2).any(1)).sum()
    assert 25 < int(hit) < 80


def test_mixup_shares_images_as_it_shares_labels():
    images = photos(8)
    mixed, own = changed(images, mixup=1.0)
    how = transforms.draw(Augment(horizontal_flip=0, mixup=1.0), np.full((8, 2), 64), np.random.default_rng(0))
    alone = transforms.plain(images, 48, ZERO, ONE)
    expected = own[:, None, None, None] * alone + (1 - own)[:, None, None, None] * alone[how.partner]
    torch.testing.assert_close(mixed, expected)
    assert len(own.unique()) == 8


def test_cutmix_shares_labels_by_the_area_that_was_pasted():
    black, white = torch.zeros((1, 3, 48, 48), dtype=torch.uint8), torch.full((1, 3, 48, 48), 255, dtype=torch.uint8)
    images = torch.cat([black, white] * 8)
    mixed, own = changed(images, cutmix=1.0)
    how = transforms.draw(Augment(horizontal_flip=0, cutmix=1.0), np.full((16, 2), 64), np.random.default_rng(0))
    alone = transforms.plain(images, 48, ZERO, ONE)
    for k, partner in enumerate(how.partner.tolist()):
        if alone[k, 0, 0, 0] != alone[partner, 0, 0, 0]:
            same = (mixed[k] == alone[k]).float().mean()
            assert float(same) == pytest.approx(float(own[k]), abs=1e-6)


def test_the_same_seed_draws_the_same_and_another_another():
    images = photos()
    every = {
        "random_resized_crop": {"scale": (0.35, 1.0)},
        "rotation": 10,
        "color_jitter": {"brightness": 0.2, "hue": 0.1},
        "random_erasing": 0.5,
        "mixup": 0.2,
    }
    first, again, other = (changed(images, seed=seed, **every)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("config", "total", "following"),
    [
        ({}, 2.0, 285067033),
        ({"random_shift": 0.125, "color_jitter": {"contrast": 0.2}}, 22.62104, 267599304),
        (
            {
                "random_resized_crop": {"scale": (0.35, 1.0)},
                "rotation": 10,
                "color_jitter": {"brightness": 0.2, "hue": 0.1},
                "random_erasing": 0.5,
                "mixup": 0.2,
                "cutmix": 1,
            },
            44.06133,
            983325332,
        ),
        ({"random_shift": 0.125, "trivial_augment": True}, 25.57766, 266270012),
        ({"rand_augment": {}}, 23.33248, 266270012),
        (
            {
                "random_resized_crop": {"scale": (0.5, 1.0)},
                "rotation": 10,
                "color_jitter": {"brightness": 0.2, "contrast": 0.3, "hue": 0.1},
                "rand_augment": {"num_ops": 3, "magnitude": 9},
                "noise": 0.2,
                "random_erasing": 0.3,
                "mixup": 0.2,
            },
            42.92291,
            903375344,
        ),
    ],
)
def test_recipes_draw_what_they_always_drew(config, total, following):
    rng = np.random.default_rng(7)
    how = transforms.draw(Augment(**config), np.array([[64, 80]] * 5), rng)
    drawn = [getattr(how, field.name) for field in fields(how)]
    assert sum(float(t.double().sum()) for t in drawn if isinstance(t, torch.Tensor)) == pytest.approx(
        total, abs=1e-4
    )
    assert rng.integers(10**9) == following


# ------------------------------------------------------------------------------------------ policies
@pytest.mark.parametrize(
    ("name", "by", "matrix"),
    [
        ("shear_x", 0.3, (1, 0.3, -0.3 * 64, 0, 1, 0)),
        ("shear_y", -0.4, (1, 0, 0, -0.4, 1, 0.4 * 64)),
        ("translate_x", 0.1, (1, 0, 12.8, 0, 1, 0)),
        ("translate_y", -0.2, (1, 0, 0, 0, 1, -25.6)),
    ],
)
def test_a_change_of_geometry_is_the_same_by_pillow(name, by, matrix):
    images, inner = photos(3, side=128), slice(40, 88)
    for image, ours in zip(images, planned(images, name, by), strict=True):
        theirs = pillow(image).transform((128, 128), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        assert psnr(ours[:, inner, inner], tensor(theirs)[:, inner, inner]) > 40


def test_a_turn_of_the_policy_is_the_rotation_by_pillow():
    images, inner = photos(3, side=128), slice(40, 88)
    for image, ours in zip(images, planned(images, "rotate", math.radians(70)), strict=True):
        theirs = pillow(image).rotate(70, Image.Resampling.BILINEAR)
        assert psnr(ours[:, inner, inner], tensor(theirs)[:, inner, inner]) > 40


def test_a_change_of_an_oblong_original_is_made_in_its_own_proportions():
    """Squashed and changed, or changed at 192 x 96 by Pillow and then squashed: the same."""
    image = photos(1, side=192)[0]
    original = pillow(image).resize((192, 96), Image.Resampling.BICUBIC)
    square = torch.from_numpy(np.array(original.resize((192, 192), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    for name, by, matrix in (
        ("shear_x", 0.3, (1, 0.3, -0.3 * 48, 0, 1, 0)),
        ("shear_y", 0.2, (1, 0, 0, 0.2, 1, -0.2 * 96)),
        ("translate_x", 0.1, (1, 0, 19.2, 0, 1, 0)),
    ):
        turned = original.transform(original.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        ours = planned(square[None], name, by, shapes=np.array([[192, 96]]))[0]
        theirs, inner = tensor(turned.resize((192, 192), Image.Resampling.BICUBIC)), slice(56, 136)
        assert psnr(ours[:, inner, inner], theirs[:, inner, inner]) > 35


def test_a_change_comes_after_the_flip_and_inside_the_window():
    images = photos(2, side=128)
    ours = planned(images, "translate_x", 0.25, horizontal_flip=1.0, random_shift=0.5, size=64)
    window = planned(images, "identity", 0.0, horizontal_flip=1.0, random_shift=0.5, size=64)
    torch.testing.assert_close(ours[..., :48], window[..., 16:], atol=1e-4, rtol=0)


def test_a_change_of_colour_is_plain_arithmetic():
    images = photos(3)
    x = images / 255
    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    for name, other in (("brightness", 0), ("contrast", grey.mean((2, 3), keepdim=True)), ("saturation", grey)):
        for by in (-0.6, 0.5):
            expected = ((1 + by) * x - by * other).clamp(0, 1)
            torch.testing.assert_close(planned(images, name, by), expected, atol=1e-4, rtol=0)


def test_changes_of_colour_follow_one_another():
    """Against the same made one by one; within limits that clamp nothing on the way."""
    images = photos(1) // 4 + 80
    names, amounts = ("contrast", "brightness", "saturation", "contrast"), (-0.5, 0.2, -0.3, 0.4)
    plan = policies.Plan(np.array([[policies.CHANGES.index(name) for name in names]]), np.array([amounts]))
    matrix, grey = policies.colour(plan, np.eye(3)[None], np.zeros(1))
    x, weights = (images / 255).double(), torch.tensor(policies.GREY, dtype=torch.float64)
    mean = (x.mean((2, 3)) @ weights)[0]
    ours = torch.einsum("ij,bjhw->bihw", torch.from_numpy(matrix[0]), x) + grey[0] * mean
    for name, by in zip(names, amounts, strict=True):
        one = torch.einsum("bchw,c->bhw", x, weights)[:, None]
        other = {"brightness": 0, "contrast": one.mean(), "saturation": one}[name]
        x = (1 + by) * x - by * other
    torch.testing.assert_close(ours, x)


def test_the_identity_leaves_the_image_as_it_is():
    images = photos()
    torch.testing.assert_close(planned(images, "identity", 0.7), images / 255, atol=1e-5, rtol=0)


def test_a_policy_of_no_strength_changes_nothing():
    images = photos()
    out = changed(images, size=64, rand_augment={"magnitude": 0})[0]
    torch.testing.assert_close(out, images / 255, atol=1e-5, rtol=0)


def test_trivial_draws_every_change_once_an_image_at_every_strength_and_sign():
    plan = policies.draw(Augment(trivial_augment=True), 4000, np.random.default_rng(0))
    assert plan.kinds.shape == (4000, 1)
    times = np.bincount(plan.kinds[:, 0], minlength=len(policies.CHANGES))
    assert times.min() > 380
    assert times.max() < 510
    turns = np.degrees(plan.amounts[plan.kinds == policies.CHANGES.index("rotate")])
    assert (turns.min() < -120, turns.max() > 120, np.abs(turns).max() <= 135) == (True, True, True)
    assert 0.45 < (np.abs(turns) < 67.5).mean() < 0.55


def test_rand_draws_so_many_changes_of_one_strength():
    plan = policies.draw(Augment(rand_augment={"num_ops": 3, "magnitude": 15}), 1000, np.random.default_rng(0))
    assert plan.kinds.shape == (1000, 3)
    turns = np.degrees(plan.amounts[plan.kinds == policies.CHANGES.index("rotate")])
    np.testing.assert_allclose(np.abs(turns), 15)
    assert 0.4 < (turns > 0).mean() < 0.6
    assert (plan.kinds[:, 0] == plan.kinds[:, 1]).any()


@pytest.mark.parametrize("policy", [{"trivial_augment": True}, {"rand_augment": {}}], ids=str)
def test_a_policy_differs_from_image_to_image_and_repeats_itself(policy):
    image = photos(1).repeat(16, 1, 1, 1)
    first, again = (changed(image, **policy, seed=3)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(one.flatten()[:64].tolist()) for one in first}) > 8


def test_both_policies_follow_one_another():
    plan = policies.draw(Augment(rand_augment={"num_ops": 2}, trivial_augment=True), 50, np.random.default_rng(0))
    rand = policies.draw(Augment(rand_augment={"num_ops": 2}), 50, np.random.default_rng(0))
    assert (plan.kinds.shape, plan.amounts.shape) == ((50, 3), (50, 3))
    np.testing.assert_array_equal(plan.amounts[:, :2], rand.amounts)


def test_a_resized_crop_of_a_shifted_window_is_smaller_by_the_shift():
    crop = {"random_resized_crop": {"scale": (0.5, 0.9)}, "horizontal_flip": 0}
    alone, shifted = (
        transforms.draw(Augment(**crop, random_shift=shift), np.full((9, 2), 64), np.random.default_rng(0))
        for shift in (0.0, 0.25)
    )
    torch.testing.assert_close(shifted.affine[:, :, :2], 0.75 * alone.affine[:, :, :2])


@pytest.mark.parametrize("scale", [(0.9, 0.5), (0.0, 1.0), (0.5, 1.1), (0.5,)])
def test_a_scale_is_two_shares_the_smaller_one_first(scale):
    with pytest.raises(ValueError, match="scale"):
        Augment(random_resized_crop={"scale": scale})


def test_a_policy_goes_with_every_other_change():
    every = {
        "random_resized_crop": {"scale": (0.35, 1.0)},
        "rotation": 10,
        "color_jitter": {"brightness": 0.2, "hue": 0.1},
        "random_erasing": 0.5,
        "mixup": 0.2,
        "noise": 0.5,
    }
    out, own = changed(photos(), rand_augment={}, shapes=np.array([[64, 128]] * 4), **every)
    assert out.shape == (4, 3, 48, 48)
    assert (float(out.min()) >= 0, float(out.max()) <= 1, len(own)) == (True, True, 4)


# ------------------------------------------------------------------------------------------ noise
def test_noise_is_added_to_its_share_of_the_images():
    images = photos(1, side=32).repeat(400, 1, 1, 1)
    hit = (changed(images, size=32, noise=0.1)[0] != images / 255).flatten(1).any(1)
    assert 20 < int(hit.sum()) < 65


def test_noise_is_gaussian_of_the_given_strength_before_the_normalization():
    grey = torch.full((8, 3, 64, 64), 128, dtype=torch.uint8)
    how = transforms.draw(
        Augment(horizontal_flip=0, noise=1.0, noise_std=0.05), np.full((8, 2), 64), np.random.default_rng(0)
    )
    out = transforms.apply(grey, how, 64, ONE / 2, ONE / 4)[0]
    found = (out / 4 + 0.5 - 128 / 255) / 0.05
    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.std()) == pytest.approx(1, abs=0.02)
    assert float((found.abs() > 2).float().mean()) == pytest.approx(0.0455, abs=0.005)
    rows = found.flatten(1)
    assert float(torch.corrcoef(rows).fill_diagonal_(0).abs().max()) < 0.04
    lags = [float((rows[:, lag:] * rows[:, :-lag]).mean()) for lag in (1, 2, 64, 4096, 6144)]
    assert max(map(abs, lags)) < 0.03


def test_noise_never_leaves_the_scale_and_the_same_draw_makes_the_same():
    images = photos()
    first, again = (changed(images, noise=1.0, noise_std=1.0)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert (float(first.min()), float(first.max())) == (0, 1)


# ------------------------------------------------------------------------------------------ minority
def test_an_image_is_of_the_minority_when_one_of_its_classes_is_below_the_mean():
    labels = np.array([[0, 0], [1, 0], [0, 1], [1, 2]])
    two = [Category("sleeve", ("a", "b")), Category("fit", ("c", "d", "e"))]
    assert transforms.minority(labels, [[9, 3], [8, 4, 0]], two).tolist() == [False, True, False, True]
    assert transforms.minority(labels, [[6, 6], [4, 4, 4]], two).tolist() == [False] * 4


def test_mixup_of_the_minority_leaves_the_majority_untouched():
    images, rare = photos(8), np.array([True, False] * 4)
    config = Augment(horizontal_flip=0, mixup=1.0, mixup_classes="minority")
    how = transforms.draw(config, np.full((8, 2), 64), np.random.default_rng(0), rare)
    mixed, own = transforms.apply(images, how, 48, ZERO, ONE)
    alone = transforms.plain(images, 48, ZERO, ONE)
    assert torch.equal(mixed[1::2], alone[1::2])
    assert (own[1::2] == 1).all()
    assert (own[::2] < 1).all()
    expected = own[:, None, None, None] * alone + (1 - own)[:, None, None, None] * alone[how.partner]
    torch.testing.assert_close(mixed, expected)
    assert set(how.partner[::2].tolist()) & {1, 3, 5, 7}


def test_mixup_of_the_minority_wants_to_know_which_images_are():
    with pytest.raises(ValueError, match="needs to know which images"):
        transforms.draw(Augment(mixup=1.0, mixup_classes="minority"), np.full((2, 2), 64), np.random.default_rng(0))


# ------------------------------------------------------------------------------------ as evaluation, on a device
def detailed(batch=6, side=256, seed=0):
    """Pictures with as much detail at every scale as photographs have (1 / f), [B, 3, S, S] uint8."""
    rng, frequency = np.random.default_rng(seed), np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = 1
    waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((batch, 3, side, side))) / frequency).real
    waves /= waves.std((2, 3), keepdims=True)
    return torch.from_numpy((128 + 40 * waves).clip(0, 255).astype(np.uint8))


def detail(x):
    return float((x[..., 1:] - x[..., :-1]).square().mean())


@pytest.mark.parametrize("size", [192, 160, 144, 132, 96])
@pytest.mark.parametrize("config", [{"random_shift": 0.02}, {"random_shift": NOTHING}], ids=str)
def test_windows_are_as_smooth_as_what_evaluation_sees(size, config):
    images = detailed()
    how = transforms.draw(Augment(**OFF, **config), np.full((6, 2), 256), np.random.default_rng(0), None, 256)
    ours = transforms.apply(images, how, size, ZERO, ONE)[0]
    assert detail(ours) / detail(transforms.plain(images, size, ZERO, ONE)) == pytest.approx(1, abs=0.06)


def test_a_small_window_of_a_large_image_is_not_blurred():
    """What is not made smaller is sampled once for each pixel, beside others that are made smaller."""
    images = detailed(2)
    how = transforms.draw(Augment(**OFF, random_shift=NOTHING), np.full((2, 2), 256), np.random.default_rng(0))
    affine = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    ours = transforms.apply(images, replace(how, affine=affine), 128, ZERO, ONE)[0]
    torch.testing.assert_close(ours[0], images[0, :, 64:192, 64:192] / 255)
    assert psnr(ours[1], transforms.plain(images[1:], 128, ZERO, ONE)[0]) > 30


def turned(batch=8, side=64):
    config = Augment(
        random_resized_crop={},
        rotation=20,
        color_jitter={"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
        rand_augment={},
    )
    return transforms.draw(config, np.full((batch, 2), (80, 60)), np.random.default_rng(3), None, side)


def test_a_grid_by_broadcasting_is_torchs():
    how, middles = turned(), transforms.pixel_centers(48, torch.device("cpu"))[None]
    theirs = F.affine_grid(how.affine, [8, 3, 48, 48], align_corners=False)
    torch.testing.assert_close(transforms.sampling_grid(how.affine, middles, middles), theirs, atol=1e-6, rtol=0)


def test_colour_by_broadcasting_is_a_product_of_matrices():
    how, x = turned(), torch.rand(8, 3, 48, 48)
    grey = torch.einsum("bchw,c->b", x, torch.tensor(policies.GREY)) / 48**2 * how.contrast
    theirs = torch.baddbmm(grey[:, None, None], how.colour, x.flatten(2)).clamp(0, 1).view_as(x)
    torch.testing.assert_close(transforms.recolour(x, how.colour, how.contrast), theirs, atol=1e-6, rtol=0)


class Products(TorchDispatchMode):
    """Notes every product of matrices, which a GPU may compute with 10 bits."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in (
            "mm",
            "bmm",
            "addmm",
            "baddbmm",
            "addbmm",
            "addmv",
            "mv",
            "affine_grid_generator",
        ):
            self.found.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("size", [64, 48])
def test_no_image_is_made_by_a_product_of_matrices(size):
    with Products() as products:
        transforms.apply(photos(8), turned(), size, ZERO, ONE)
        transforms.plain(photos(8), size, ZERO, ONE)
    assert not products.found
    with Products() as products:
        F.affine_grid(turned().affine, [8, 3, 48, 48], align_corners=False)
    assert products.found, "this test would see one"
