"""Augmentations of extension files: of one image, of a batch, and albumentations as they are."""

from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch

from trainers import extensions
from trainers.config import Augment, ColorJitter, RandomResizedCrop, Recipe
from trainers.data.decoded_files import as_jpeg
from trainers.extensions import ExtensionFile
from trainers.loading import cpu_transforms, transforms
from trainers.loading.batches import Data, in_order
from trainers.loading.custom_augmentations import changes_images, check
from trainers.loading.image_store import DEVICE_IMAGES, gather
from trainers.loading.loader import AugmentationSource, Loader
from trainers.support.errors import UserError
from trainers.train import TrainingRun, train

CPU = torch.device("cpu")
EYE = cpu_transforms.InputFormat(
    CPU, torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4]), torch.channels_last
)
STILL = {"horizontal_flip": 0}
STRONG = {
    "random_resized_crop": RandomResizedCrop(),
    "rotation": 10,
    "color_jitter": ColorJitter(brightness=0.2, contrast=0.2),
    "noise": 0.3,
    "mixup": 0.2,
    "cutmix": 0.5,
}
FILE = """\
import random
import time
import numpy as np
import torch


def speckle(image, generator, strength: float = 0.5):
    image[generator.random(image.shape[:2]) < strength] = 255
    return image


def double(image, generator):
    return np.clip(image.astype(int) * 2, 0, 255).astype(np.uint8)


def darken(image, generator, by: int = 40):
    return np.clip(image.astype(int) - by, 0, 255).astype(np.uint8)


def mirror(image, generator):
    return image[:, ::-1]


def batch_noise(images, generator, strength: float = 0.1):
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + strength * noise).clamp(0, 1)


def transposed(images, generator):
    return images.transpose(2, 3)


class Slow:
    \"\"\"It works in memory of its own, and takes turns with other threads on the way.\"\"\"

    def __init__(self, strength: float = 0.5):
        self.strength, self.room = strength, None

    def __call__(self, image, generator):
        self.room = image
        mask = generator.random(image.shape[:2]) < self.strength
        time.sleep(0.001)
        self.room = np.where(mask[..., None], 0, self.room).astype(np.uint8)
        return self.room


class BatchScale:
    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, images, generator):
        return images.mul_(self.strength)


class Pipeline:
    \"\"\"What albumentations 2 has: set_random_state, and a call with image=.\"\"\"

    def set_random_state(self, random_generator, py_random):
        self.numbers, self.coins = random_generator, py_random

    def __call__(self, *args, force_apply=False, **given):
        image = given["image"]
        if self.coins.random() < 0.5:
            image = image[::-1]
        return {"image": image + self.numbers.integers(0, 2, image.shape, np.uint8)}


augmentations = {
    "speckle": speckle,
    "zdouble": double,
    "darken": darken,
    "mirror": mirror,
    "batch_noise": batch_noise,
    "transposed": transposed,
    "slow": Slow,
    "batch_scale": BatchScale,
    "pipeline": Pipeline(),
}
"""


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


@pytest.fixture
def use(tmp_path):
    """Put the text of an extension file in use; returns its path."""

    def used(text):
        path = tmp_path / "mine.py"
        path.write_text(text)
        extensions.use([ExtensionFile.read(path)])
        return path

    yield used
    extensions.use([])


@pytest.fixture
def mine(use):
    return use(FILE)


@pytest.fixture(params=[1, 2, 4], ids="{} threads".format)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def batches(data, config, *, hosted=True, size=32, resident=False, seed=1):
    """Every batch of one pass in order, as copies."""
    feed, rows = Loader(data, size, EYE, hosted=hosted, resident=resident), np.arange(40)
    rare = np.zeros(len(data.table.rows), dtype=bool)
    drawing = AugmentationSource(config, np.random.default_rng(seed), rare)
    return [(b.images.clone(), b.labels, b.own, b.other) for b in feed.training(in_order(rows, 16), drawing)]


def pixels(data, config, **how):
    """The images of one pass in 0..255, [40, 32, 32, 3]."""
    x = torch.cat([images for images, *_ in batches(data, config, **how)])
    x = (x * EYE.std[:, None, None] + EYE.mean[:, None, None]) * 255
    return x.permute(0, 2, 3, 1).numpy()


def cached(data):
    return gather(data.cache.images, np.arange(40)).numpy()


def same(one, other):
    for first, second in zip(one, other, strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("hosted", [True, False])
def test_an_image_is_changed_as_the_function_says(data, mine, hosted):
    found = pixels(data, Augment(darken={"by": 30}, **STILL), hosted=hosted)
    np.testing.assert_allclose(found, np.clip(cached(data).astype(int) - 30, 0, 255), atol=0.01)


@pytest.mark.parametrize("hosted", [True, False])
def test_a_view_of_the_image_may_be_returned(data, mine, hosted):
    np.testing.assert_allclose(
        pixels(data, Augment(mirror={}, **STILL), hosted=hosted), cached(data)[:, :, ::-1], atol=0.01
    )


@pytest.mark.parametrize("hosted", [True, False])
def test_a_batch_is_changed_before_it_is_normalised(data, mine, hosted):
    found = pixels(data, Augment(batch_scale={"strength": 0.5}, **STILL), hosted=hosted)
    np.testing.assert_allclose(found, cached(data) / 2, atol=0.01)


@pytest.mark.parametrize("hosted", [True, False])
def test_a_batch_may_be_a_view_of_what_was_given(data, mine, hosted):
    found = pixels(data, Augment(transposed={}, **STILL), hosted=hosted)
    np.testing.assert_allclose(found, cached(data).transpose(0, 2, 1, 3), atol=0.01)


@pytest.mark.parametrize("names", [("zdouble", "darken"), ("darken", "zdouble")])
def test_the_order_is_that_of_the_recipe(data, mine, names):
    config = Augment(**{name: {} for name in names}, **STILL)
    config = Augment.model_validate_json(config.model_dump_json())
    steps = {"zdouble": lambda x: np.clip(x * 2, 0, 255), "darken": lambda x: np.clip(x - 40, 0, 255)}
    wanted = steps[names[1]](steps[names[0]](cached(data).astype(int)))
    np.testing.assert_allclose(pixels(data, config), wanted, atol=0.01)


def test_null_is_off(data, mine):
    same(batches(data, Augment(speckle=None, batch_noise=None)), batches(data, Augment()))


def test_keys_of_a_class_and_of_a_function_take_effect(data, mine):
    for name in ("slow", "speckle", "batch_noise"):
        strong, weak = (pixels(data, Augment(**{name: {"strength": by}}, **STILL)) for by in (0.5, 0.1))
        changed = [np.abs(found - cached(data)).mean() for found in (strong, weak)]
        assert changed[0] > 2 * changed[1] > 0


ALL = {"speckle": {}, "slow": {}, "batch_noise": {}, "pipeline": {}}


@pytest.mark.parametrize("hosted", [True, False])
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_the_number_of_threads_makes_no_difference(data, mine, hosted, kind):
    if kind == "jpeg":
        kept = {name: as_jpeg(np.asarray(getattr(data.cache, name))) for name in ("images", "half")}
        data = Data(
            data.table, type(data.cache)(**{f.name: getattr(data.cache, f.name) for f in fields(data.cache)} | kept)
        )
    before, found = torch.get_num_threads(), []
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(batches(data, Augment(**ALL, **STRONG), hosted=hosted))
    torch.set_num_threads(before)
    same(*found)
    assert not torch.equal(found[0][0][0], batches(data, Augment(**ALL, **STRONG), hosted=hosted, seed=2)[0][0])


def test_every_image_has_numbers_of_its_own(data, mine):
    found = pixels(data, Augment(slow={}, **STILL)) < 0.5
    patterns = {mask.tobytes() for mask in found.all(-1)}
    assert len(patterns) == len(found)


@pytest.mark.parametrize("resident", [False, True])
def test_the_cache_is_not_written_to(data, mine, threads, resident):
    before = cached(data)
    for hosted in (True, False):
        pixels(
            data, Augment(speckle={"strength": 1.0}, batch_scale={"strength": 0.0}), hosted=hosted, resident=resident
        )
    assert np.array_equal(cached(data), before)
    plain = pixels(data, Augment(**STILL), hosted=False, resident=True)
    np.testing.assert_allclose(plain, before, atol=0.01)


@pytest.mark.parametrize("more", [{}, STRONG, {"trivial_augment": True, "random_erasing": 0.5}])
def test_a_recipe_without_any_draws_what_it_drew_before(data, more):
    config, rows = Augment(**more), np.arange(16)
    ours, plain = np.random.default_rng(5), np.random.default_rng(5)
    rare = np.zeros(len(data.table.rows), dtype=bool)
    feed = Loader(data, 32, EYE, hosted=True)
    found = feed.draw(rows, AugmentationSource(config, ours, rare))
    wanted = transforms.draw(config, np.asarray(data.cache.sizes[rows]), plain, rare[rows], feed.source)
    for one in fields(found):
        a, b = (getattr(draw, one.name) for draw in (found, wanted))
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert ours.bit_generator.state == plain.bit_generator.state


def test_images_on_a_device_serve_batch_augmentations_and_evaluation_only(photos, data, mine, tmp_path):
    for names, resident in (((), True), (("batch_noise",), True), (("batch_noise", "speckle"), False)):
        DEVICE_IMAGES.clear()
        config = Augment(**{name: {} for name in names})
        assert changes_images(config) is not resident
        run = TrainingRun(recipe(photos, augment=config), data, ("train",), CPU, tmp_path / str(len(names)))
        run.lens.hosted, run.lens.resident = False, True
        assert (run.lens.feed(32, training=True).kept is not None) is resident
        assert run.lens.feed(32).kept is not None
    DEVICE_IMAGES.clear()


def test_a_resident_loader_gives_the_batches_of_one_that_is_not(data, mine):
    for names in (("batch_noise",), tuple(ALL)):
        config = Augment(**{name: {} for name in names}, **STRONG)
        same(batches(data, config, hosted=False), batches(data, config, hosted=False, resident=True))
    DEVICE_IMAGES.clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [False, True])
def test_on_a_gpu_nothing_waits_and_the_numbers_are_those_of_the_seed(data, mine, resident):
    gpu, rows = torch.device("cuda"), np.arange(40)
    eye = cpu_transforms.InputFormat(gpu, EYE.mean.to(gpu), EYE.std.to(gpu), EYE.layout)
    config, rare, found = Augment(**ALL), np.zeros(len(data.table.rows), dtype=bool), []
    for _ in range(2):
        drawing = AugmentationSource(config, np.random.default_rng(1), rare)
        feed = Loader(data, 32, eye, hosted=False, resident=resident)
        torch.cuda.set_sync_debug_mode("error")
        try:
            made = [batch.images for batch in feed.training(in_order(rows, 16), drawing)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(torch.cat(made).cpu())
    assert torch.equal(*found)


# ---------------------------------------------------------------------------------------------- training
def recipe(photos, **more):
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 3, "batch_size": 16}
    return Recipe(data=photos, train=base | more)


def comparable(epochs):
    clocks = {"seconds", "images_per_second", "peak_memory_gb", "time"}
    return [epoch.model_dump(exclude=clocks) for epoch in epochs]


def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(photos, data, mine, tmp_path):
    how = recipe(photos, augment=Augment(**ALL, **STRONG))
    whole = comparable(train(how, data, tmp_path / "whole"))
    first = train(how, data, tmp_path / "cut")
    assert comparable(islice(first, 1)) == whole[:1]
    first.close()
    assert comparable(train(how, data, tmp_path / "cut")) == whole


@pytest.mark.parametrize("hosted", [True, False])
def test_it_works_beside_whatever_else_changes_the_batches(photos, data, mine, tmp_path, hosted):
    how = recipe(
        photos,
        augment=Augment(**ALL, **STRONG, mixup_classes="minority"),
        progressive_resizing={"start": 0.5},
        accumulate=2,
        balanced_sampling=0.5,
        tta={"flip": True, "scales": (1.0, 1.25)},
        weight_averaging={"name": "swa"},
    )
    run = TrainingRun(how, data, ("train",), CPU, tmp_path)
    run.lens.hosted, run.micro_batch, seen = hosted, 5, []
    run.net.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    for index in range(3):
        scores, *_ = run.fit(index)
        assert np.isfinite(scores.loss)
    assert {shape[2:] for shape in seen if shape[0] > 1} == {(32, 32)}


def test_evaluation_sees_none(photos, data, mine, tmp_path):
    plain, custom = (
        TrainingRun(recipe(photos, augment=config), data, ("train",), CPU, tmp_path / name)
        for name, config in (
            ("plain", Augment()),
            ("custom", Augment(speckle={"strength": 1.0}, batch_scale={"strength": 0})),
        )
    )
    assert np.array_equal(plain.evaluate().logits, custom.evaluate().logits)
    for one, other in zip(plain.lens.images(range(20)), custom.lens.images(range(20)), strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------------------------------------- mistakes
IMAGE, BATCH = "def wrong(image, generator):\n    ", "def wrong(images, generator):\n    "
CLASS = "class wrong:\n    count = 0\n    "
FAILED = "wrong of augmentations failed: "
WRONG = [
    (IMAGE + "return image[:16]", r"returns uint8 \[16, 32, 3\] for a uint8 image \[32, 32, 3\]\n"),
    (IMAGE + "return image / 2", r"returns float64 \[32, 32, 3\]"),
    (IMAGE + "return image[..., 0]", r"returns uint8 \[32, 32\]"),
    (IMAGE + "image[:] = 0", "returns NoneType"),
    (IMAGE + "return {'image': image}", "returns dict"),
    (IMAGE + "raise ValueError('no such pixel')", f"{FAILED}ValueError: no such pixel"),
    (BATCH + "return images[:2]", r"returns a tensor \[2, 3, 32, 32\] for a batch \["),
    (BATCH + "return images.double()", "returns torch.float64 on cpu"),
    (BATCH + "return images.numpy()", "returns ndarray"),
    (BATCH + "return images.nothing", f"{FAILED}AttributeError"),
    (CLASS + "def __call__(self, image):\n        return image", f"{FAILED}TypeError"),
    (CLASS + "def __init__(self):\n        1 / 0", f"{FAILED}ZeroDivisionError"),
    (CLASS + "def use(self, image, generator):\n        return image", f"{FAILED}TypeError"),
]


def written(text):
    above = "import random\nimport numpy as np\nimport torch\nkept = []\n"
    return f"{above}\n{text}\n\naugmentations = {{'wrong': wrong}}\n"


@pytest.mark.parametrize("hosted", [True, False])
@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_mistake_is_said_with_its_line(data, use, threads, hosted, text, said):
    path = use(written(text))
    for attempt in (
        lambda: batches(data, Augment(wrong={}), hosted=hosted),
        lambda: check(Augment(wrong={}), cached(data), CPU),
    ):
        with pytest.raises(UserError, match=said) as found:
            attempt()
        file, _, line = found.value.where.rpartition(":")
        assert file == str(path)
        assert 6 <= int(line) <= 9
        assert found.value.help


COUNTER = CLASS + (
    "def __call__(self, image, generator):\n        self.count += 1\n        return image + np.uint8(self.count)"
)
GLOBAL = [
    (IMAGE + "return image + np.uint8(np.random.randint(3))", "uses the global random numbers of numpy.random\n"),
    (IMAGE + "return image + np.uint8(random.randrange(3))", "uses the global random numbers of random\n"),
    (IMAGE + "random.seed(2), np.random.seed(2)\n    return image", "of random and numpy.random\n"),
    (BATCH + "return images * torch.rand(())", "random numbers of torch\n"),
    (BATCH + "torch.manual_seed(3)\n    return images", "random numbers of torch\n"),
    (
        IMAGE + "return image + np.uint8(np.random.default_rng().integers(9))",
        "different results for equal generators",
    ),
    (IMAGE + "return image + np.uint8(random.Random().randrange(9))", "different results for equal generators"),
    (IMAGE + "kept.append(1)\n    return image + np.uint8(len(kept))", "different results"),
    (COUNTER, "different results"),
    (BATCH + "return images / 0", "not finite"),
]


@pytest.mark.parametrize(("text", "said"), GLOBAL)
def test_numbers_of_anything_but_the_generator_are_refused(data, use, text, said):
    path = use(written(text))
    with pytest.raises(UserError, match=said) as found:
        check(Augment(wrong={}), cached(data)[:4], CPU)
    assert found.value.where == f"{path}:6"
    assert "generator" in found.value.help or "between 0 and 1" in found.value.help


def test_those_that_are_in_order_pass_and_leave_the_images_alone(data, mine):
    images = cached(data)
    check(
        Augment(
            **{name: {"strength": 0.5} if "batch_scale" in name else {} for name in extensions.names("augmentations")}
        ),
        images,
        CPU,
    )
    assert np.array_equal(images, cached(data))


def test_a_recipe_whose_file_is_not_in_use_says_so(data):
    extensions.use([])
    with pytest.raises(UserError, match="no extension file defines 'speckle' in augmentations"):
        batches(data, Augment(speckle={}))


# ---------------------------------------------------------------------------------------- albumentations
ALBUMENTATIONS = """\
import albumentations as A


class Weather(A.Compose):
    def __init__(self, limit: float = 0.3, p: float = 0.5):
        super().__init__([A.RandomBrightnessContrast(brightness_limit=limit, p=p), A.GaussNoise(p=p)])


augmentations = {
    "pipeline": A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Rotate(limit=20), A.CoarseDropout()]),
    "flips": A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]),
    "one": A.OneOf([A.Blur(p=1), A.ColorJitter(p=1)], p=0.9),
    "alone": A.GaussNoise(p=1),
    "flip": A.HorizontalFlip,
    "weather": Weather,
    "normal": A.Normalize(),
    "small": A.Resize(16, 16),
}
"""


@pytest.fixture
def albumentations(use, monkeypatch):
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    pytest.importorskip("albumentations", reason="albumentations is an extra: pip install albumentations")
    return use(ALBUMENTATIONS)


PIPELINES = {"pipeline": {}, "one": {}, "alone": {}, "flip": {"p": 0.3}, "weather": {"limit": 0.8}}


@pytest.mark.parametrize("hosted", [True, False])
def test_albumentations_goes_in_as_it_is(data, albumentations, hosted):
    config, before, found = Augment(**PIPELINES, **STRONG), torch.get_num_threads(), []
    check(config, cached(data), CPU)
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(batches(data, config, hosted=hosted))
    torch.set_num_threads(before)
    same(*found)
    assert np.abs(pixels(data, Augment(pipeline={}, **STILL)) - cached(data)).mean() > 5


def test_keys_of_a_transform_that_is_a_class(data, albumentations):
    assert extensions.needed("augmentations", "flip").own == ["p"]
    mirrored = pixels(data, Augment(flip={"p": 1.0}, **STILL))
    np.testing.assert_allclose(mirrored, cached(data)[:, :, ::-1], atol=0.01)


def test_transforms_of_one_pipeline_decide_for_themselves(data, albumentations):
    """Seeded alike, both flips would always come together."""
    found, plain = pixels(data, Augment(flips={}, **STILL)), cached(data)
    kinds = {(0, 0): plain, (0, 1): plain[:, :, ::-1], (1, 0): plain[:, ::-1], (1, 1): plain[:, ::-1, ::-1]}
    counts = {k: sum(np.allclose(a, b, atol=0.01) for a, b in zip(found, v, strict=True)) for k, v in kinds.items()}
    assert min(counts.values()) > 2
    assert sum(counts.values()) == len(plain)


@pytest.mark.parametrize(("name", "said"), [("normal", "returns float32"), ("small", r"returns uint8 \[16, 16, 3\]")])
def test_what_a_pipeline_must_not_do(data, albumentations, name, said):
    with pytest.raises(UserError, match=said) as found:
        check(Augment(**{name: {}}), cached(data), CPU)
    assert found.value.where.startswith(str(albumentations))
